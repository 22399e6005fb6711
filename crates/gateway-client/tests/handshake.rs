//! The handshake against every kind of peer: each ends within the deadline, with its own error, and with the socket
//! closed.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use gateway_client::{
    ConnectError, ConnectOptions, Connection, CredentialError, CredentialSource, Credentials,
    DeviceIdentity, Endpoint, HandshakeProgress, HandshakeStage, ProbeOutcome, TransportErrorKind,
    WebSocketTransport, probe_challenge,
};
use gateway_protocol::{
    ClientInfo, DeviceAuthPayload, DevicePayloadVersion, ProtocolRange, Role, Sensitive,
};
use serde_json::{Value, json};
use support::{Peer, Scripted, TOKEN, hello, hello_with, options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

/// Connects, checks that it fails within the deadline and that the peer's script came to its end.
async fn failure(transport: Scripted, options: ConnectOptions) -> (ConnectError, Duration) {
    let limit = options.handshake_timeout;
    let started = Instant::now();
    // Far beyond the handshake's own deadline, so that one without an end is a failure and not a test that hangs.
    let ended = tokio::time::timeout(limit * 10, transport.connect_with(options)).await;
    let error = ended
        .expect("the handshake never ends")
        .expect_err("this peer must not be accepted");
    let elapsed = started.elapsed();
    assert!(
        elapsed <= limit + Duration::from_millis(5),
        "{elapsed:?}: {error}"
    );
    // Every script waits for the client to be gone.
    tokio::time::timeout(Duration::from_secs(60), transport.finish())
        .await
        .expect("the socket is closed");
    let text = format!("{error} {error:?}");
    assert!(!text.contains(TOKEN), "{text}");
    (error, elapsed)
}

#[tokio::test(start_paused = true)]
async fn the_connect_request_is_complete_and_alone() {
    let request = Arc::new(Mutex::new(Value::Null));
    let seen = request.clone();
    let transport = Scripted::new(move |mut peer: Peer| {
        let seen = seen.clone();
        async move {
            peer.challenge().await;
            let request = peer.connect_request().await;
            // A second frame before the answer would make an older gateway close.
            let more = tokio::time::timeout(Duration::from_secs(2), peer.next()).await;
            assert!(more.is_err(), "{more:?}");
            peer.reply(&request, hello()).await;
            *seen.lock().unwrap() = request;
            assert_eq!(peer.gone().await, Some(1000));
        }
    });
    let steps = Arc::new(Mutex::new(Vec::new()));
    let reported = steps.clone();
    let connection = transport
        .connect_with(
            options()
                .with_scopes(["operator.read", "operator.admin"])
                .with_progress(move |step| reported.lock().unwrap().push(step)),
        )
        .await
        .expect("connects");
    assert_eq!(
        *steps.lock().unwrap(),
        [
            HandshakeProgress::TcpAccepted,
            HandshakeProgress::Upgraded,
            HandshakeProgress::Challenged,
            HandshakeProgress::ConnectSent,
        ]
    );
    assert_eq!(connection.hello().protocol, 4);
    assert_eq!(connection.hello().server.conn_id, "c-1");
    drop(connection);
    transport.finish().await;

    let request = request.lock().unwrap().clone();
    let id = request["id"].as_str().expect("the id is text");
    assert!(id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    let params = &request["params"];
    assert_eq!(
        *params,
        json!({
            "minProtocol":3,"maxProtocol":4,
            "client":{"id":"gateway-client","version":env!("CARGO_PKG_VERSION"),
                "platform":std::env::consts::OS,"mode":"backend"},
            "role":"operator","scopes":["operator.read","operator.admin"],"caps":[],
            "auth":{"token":TOKEN}
        }),
        "no device block without an identity"
    );
}

#[tokio::test(start_paused = true)]
async fn the_device_proof_signs_the_challenge() {
    let seed = [7_u8; 32];
    for (version, with_ts) in [
        (DevicePayloadVersion::V3, true),
        (DevicePayloadVersion::V2, true),
        (DevicePayloadVersion::V3, false),
    ] {
        let device = Arc::new(Mutex::new(Value::Null));
        let seen = device.clone();
        let transport = Scripted::new(move |mut peer: Peer| {
            let seen = seen.clone();
            async move {
                let mut challenge = support::challenge();
                if !with_ts {
                    challenge["payload"] = json!({"nonce":"n-1"});
                }
                peer.send(challenge).await;
                let request = peer.connect_request().await;
                peer.reply(&request, hello()).await;
                *seen.lock().unwrap() = request["params"]["device"].clone();
                peer.gone().await;
            }
        });
        let mut client = ClientInfo::new("1.0", "Linux");
        client.device_family = Some("Desktop".to_owned());
        let identity = Arc::new(DeviceIdentity::from_seed(&seed));
        let connection = transport
            .connect_with(
                options()
                    .with_client(client.clone())
                    .with_identity(identity.clone())
                    .with_device_payload(version),
            )
            .await
            .expect("connects");
        drop(connection);
        transport.finish().await;

        let device = device.lock().unwrap().clone();
        let signed_at = device["signedAt"].as_u64().expect("a time");
        if with_ts {
            assert_eq!(signed_at, 1_795_402_436_158, "the gateway's own clock");
        } else {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let now = u64::try_from(now.as_millis()).unwrap();
            assert!(now.abs_diff(signed_at) < 60_000, "{signed_at}");
        }
        let payload = DeviceAuthPayload {
            version,
            device_id: identity.device_id().to_owned(),
            client_id: client.id.clone(),
            client_mode: client.mode.clone(),
            role: Role::Operator,
            scopes: vec!["operator.read".to_owned(), "operator.write".to_owned()],
            signed_at_ms: signed_at,
            token: Some(Sensitive::from(TOKEN)),
            nonce: Some("n-1".to_owned()),
            platform: Some("linux".to_owned()),
            device_family: Some("desktop".to_owned()),
        };
        assert_eq!(
            device,
            json!({
                "id":identity.device_id(),
                "publicKey":identity.public_key_base64url(),
                "signature":identity.sign(&payload),
                "signedAt":signed_at,
                "nonce":"n-1"
            })
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_challenge_without_nonce() {
    for payload in [
        json!({"ts":1}),
        json!({"nonce":"","ts":1}),
        json!({"nonce":7}),
        json!(null),
        json!("text"),
    ] {
        let text = payload.to_string();
        let transport = Scripted::new(move |mut peer: Peer| {
            let payload = payload.clone();
            async move {
                peer.event("connect.challenge", payload).await;
                assert_eq!(peer.gone().await, Some(1008));
            }
        });
        let (error, _) = failure(transport, options()).await;
        assert!(
            matches!(error, ConnectError::MissingNonce { .. }),
            "{text}: {error}"
        );
        let said = error.to_string();
        assert!(
            said.contains("Gateway connect.challenge missing nonce") && said.contains("check that"),
            "{said}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn peers_that_are_no_gateway() {
    for first in [
        Message::text("Request served by echo"),
        Message::text(""),
        Message::text("[1,2]"),
        Message::binary(vec![0xff, 0xfe]),
    ] {
        let transport = Scripted::new(move |mut peer: Peer| {
            let first = first.clone();
            async move {
                peer.send_message(first).await;
                assert_eq!(peer.gone().await, Some(1002));
            }
        });
        let (error, _) = failure(transport, options()).await;
        assert!(matches!(error, ConnectError::NotAGateway { .. }), "{error}");
        assert!(error.to_string().contains("ws://127.0.0.1:1/"), "{error}");
    }

    let chatter = Scripted::new(|mut peer: Peer| async move {
        for n in 0..100 {
            peer.feed(json!({"type":"event","event":"news","payload":n}))
                .await;
        }
        peer.flush().await;
        peer.gone().await;
    });
    let (error, _) = failure(chatter, options()).await;
    assert!(matches!(error, ConnectError::NotAGateway { .. }), "{error}");
}

/// Bytes that no WebSocket peer may send, in place of the challenge.
#[tokio::test(start_paused = true)]
async fn frames_that_break_the_protocol() {
    let frames: [(&str, &[u8]); 4] = [
        ("a reserved opcode", &[0x83, 0]),
        ("a reserved bit", &[0xc1, 0]),
        ("a ping in pieces", &[0x09, 0]),
        ("text that is no UTF-8", &[0x81, 1, 0xff]),
    ];
    for (name, frame) in frames {
        let transport = Scripted::raw(move |mut stream| async move {
            let upgraded = tokio_tungstenite::accept_async(&mut stream).await;
            drop(upgraded.expect("upgrades"));
            stream.write_all(frame).await.expect("writes");
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        });
        let (error, _) = failure(transport, options()).await;
        let said = error.to_string();
        assert!(
            matches!(&error, ConnectError::Transport { error, .. } if error.kind == TransportErrorKind::Malformed),
            "{name}: {error:?}"
        );
        assert!(
            said.contains("ws://127.0.0.1:1/") && said.contains("check that the port"),
            "{name}: {said}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn other_frames_before_the_challenge_are_skipped_and_a_binary_challenge_is_taken() {
    let transport = Scripted::new(|mut peer: Peer| async move {
        peer.send(json!({"type":"event","event":"news"})).await;
        peer.send(json!({"hello":"world"})).await;
        peer.send_message(Message::Ping("x".into())).await;
        let challenge = support::challenge().to_string().into_bytes();
        peer.send_message(Message::binary(challenge)).await;
        let request = peer.connect_request().await;
        peer.send(
            json!({"type":"res","id":"invalid","ok":false,"error":{"code":"X","message":"m"}}),
        )
        .await;
        peer.reply(&request, hello()).await;
        peer.gone().await;
    });
    let connection = transport.connect().await.expect("connects");
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn silence_at_each_stage() {
    let (error, elapsed) = failure(
        Scripted::raw(|mut stream| async move {
            let mut request = Vec::new();
            stream.read_to_end(&mut request).await.expect("reads");
        }),
        options(),
    )
    .await;
    assert!(
        matches!(error, ConnectError::UpgradeTimeout { .. }),
        "{error}"
    );
    assert_eq!(elapsed.as_secs(), 20);

    let (error, elapsed) = failure(
        Scripted::new(|mut peer: Peer| async move {
            peer.gone().await;
        }),
        options(),
    )
    .await;
    assert!(
        matches!(error, ConnectError::ChallengeTimeout { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("Timed out waiting for connect.challenge from Gateway")
    );
    assert_eq!(elapsed.as_secs(), 10);

    let (error, elapsed) = failure(
        Scripted::new(|mut peer: Peer| async move {
            peer.challenge().await;
            peer.connect_request().await;
            peer.gone().await;
        }),
        options().with_handshake_timeout(Duration::from_secs(3)),
    )
    .await;
    assert!(
        matches!(
            error,
            ConnectError::HelloTimeout {
                stage: HandshakeStage::AwaitingHello,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("Connect handshake timeout"),
        "{error}"
    );
    assert_eq!(elapsed.as_secs(), 3);

    // Signs of life that lead nowhere do not move the deadline.
    let (error, elapsed) = failure(
        Scripted::new(|mut peer: Peer| async move {
            peer.challenge().await;
            peer.connect_request().await;
            loop {
                tokio::select! {
                    _ = peer.next_raw() => break,
                    () = tokio::time::sleep(Duration::from_millis(700)) => {
                        peer.event("tick", json!({"ts":1})).await;
                    }
                }
            }
        }),
        options(),
    )
    .await;
    assert!(
        matches!(error, ConnectError::HelloTimeout { .. }),
        "{error}"
    );
    assert_eq!(elapsed.as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn refusals_keep_code_details_advice_and_close_code() {
    struct Case {
        error: Value,
        close: Option<(u16, &'static str)>,
        details_code: Option<&'static str>,
        retry_after: Option<Duration>,
        next_step: &'static str,
    }
    let cases = [
        Case {
            error: json!({"code":"INVALID_REQUEST","message":"unauthorized: gateway token mismatch",
                "details":{"code":"AUTH_TOKEN_MISMATCH","authReason":"token_mismatch"}}),
            close: Some((1008, "unauthorized: gateway token mismatch")),
            details_code: Some("AUTH_TOKEN_MISMATCH"),
            retry_after: None,
            next_step: "use the token that",
        },
        Case {
            error: json!({"code":"UNAVAILABLE","message":"gateway starting; retry shortly","retryable":true,
                "retryAfterMs":500,"details":{"reason":"startup-sidecars"}}),
            close: Some((1013, "gateway starting")),
            details_code: None,
            retry_after: Some(Duration::from_millis(500)),
            next_step: "retry after 500 ms",
        },
        Case {
            error: json!({"code":"INVALID_REQUEST","message":"protocol mismatch",
                "details":{"code":"PROTOCOL_MISMATCH","expectedProtocol":4}}),
            close: Some((1002, "protocol mismatch")),
            details_code: Some("PROTOCOL_MISMATCH"),
            retry_after: None,
            next_step: "it speaks protocol 4",
        },
        Case {
            error: json!({"code":"NOT_PAIRED","message":"device identity required",
                "details":{"code":"DEVICE_IDENTITY_REQUIRED"}}),
            close: None,
            details_code: Some("DEVICE_IDENTITY_REQUIRED"),
            retry_after: None,
            next_step: "or a device identity",
        },
    ];
    for case in cases {
        let (error, close) = (case.error.clone(), case.close);
        let transport = Scripted::new(move |mut peer: Peer| {
            let error = error.clone();
            async move {
                peer.challenge().await;
                let request = peer.connect_request().await;
                peer.reject(&request, error).await;
                if let Some((code, reason)) = close {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    peer.close(code, reason).await;
                }
                peer.gone().await;
            }
        });
        let (error, elapsed) = failure(transport, options()).await;
        assert!(elapsed <= Duration::from_millis(360), "{elapsed:?}");
        let said = error.to_string();
        assert!(said.contains(case.next_step), "{said}");
        assert_eq!(error.close_code(), case.close.map(|(code, _)| code));
        assert_eq!(error.retry_after(), case.retry_after);
        let ConnectError::Refused {
            error,
            close_reason,
            ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(error.code.as_str(), case.error["code"]);
        assert_eq!(error.message, case.error["message"]);
        assert_eq!(error.details_code().as_deref(), case.details_code);
        assert_eq!(close_reason, case.close.map_or("", |(_, reason)| reason));
    }
}

#[tokio::test(start_paused = true)]
async fn closed_at_each_stage() {
    let after_upgrade = Scripted::new(|mut peer: Peer| async move {
        peer.close(1008, "origin not allowed").await;
        peer.gone().await;
    });
    let (error, _) = failure(after_upgrade, options()).await;
    assert!(
        error
            .to_string()
            .starts_with("WebSocket closed before handshake: origin not allowed"),
        "{error}"
    );
    assert_eq!(error.close_code(), Some(1008));

    let dropped = Scripted::new(|peer: Peer| async move { drop(peer) });
    let (error, _) = failure(dropped, options()).await;
    assert!(
        matches!(
            error,
            ConnectError::ClosedBeforeHello {
                code: None,
                stage: HandshakeStage::AwaitingChallenge,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("WebSocket closed before handshake: unknown")
    );

    let after_connect = Scripted::new(|mut peer: Peer| async move {
        peer.challenge().await;
        peer.connect_request().await;
        peer.close(1000, "").await;
        peer.gone().await;
    });
    let (error, _) = failure(after_connect, options()).await;
    assert!(
        matches!(
            error,
            ConnectError::ClosedBeforeHello {
                code: Some(1000),
                stage: HandshakeStage::AwaitingHello,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_usable_hello() {
    let answers: [(Value, bool); 5] = [
        (json!({"type":"welcome"}), false),
        (json!({"type":"hello-ok"}), false),
        (json!(7), false),
        (hello_with(5, 1), true),
        (hello_with(2, 1), true),
    ];
    for (answer, out_of_range) in answers {
        let text = answer.to_string();
        let transport = Scripted::new(move |mut peer: Peer| {
            let answer = answer.clone();
            async move {
                peer.greet_with(answer).await;
                assert_eq!(peer.gone().await, Some(1002));
            }
        });
        let (error, _) = failure(transport, options()).await;
        let said = error.to_string();
        assert!(said.contains("use a client for"), "{said}");
        match error {
            ConnectError::ProtocolOutOfRange { offered, .. } => {
                assert!(out_of_range, "{text}");
                assert_eq!(offered, ProtocolRange::SUPPORTED);
            }
            ConnectError::MalformedHello { .. } => assert!(!out_of_range, "{text}"),
            other => panic!("{text}: {other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn oversize_in_both_directions() {
    let flood = Scripted::new(|mut peer: Peer| async move {
        peer.send_text(format!("\"{}\"", "x".repeat(2000))).await;
        peer.gone().await;
    });
    let (error, _) = failure(flood, options().with_max_message_bytes(1000)).await;
    assert!(
        error.to_string().contains("raise max_message_bytes"),
        "{error}"
    );
    let ConnectError::Transport { error, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(
        error.kind,
        TransportErrorKind::MessageTooLarge { limit: 1000 }
    );

    let patient = Scripted::new(|mut peer: Peer| async move {
        peer.challenge().await;
        assert_eq!(peer.gone().await, Some(1000), "nothing was sent");
    });
    let caps = vec!["c".repeat(1000); 70];
    let (error, _) = failure(patient, options().with_caps(caps)).await;
    assert!(
        matches!(error, ConnectError::TooLarge { bytes, limit: 65_536 } if bytes > 70_000),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn upgrades_that_are_refused_or_misunderstood() {
    let http = |answer: &'static str| {
        Scripted::raw(move |mut stream| async move {
            let mut request = [0_u8; 4096];
            let _ = stream.read(&mut request).await.expect("the request");
            stream.write_all(answer.as_bytes()).await.expect("taken");
            stream.shutdown().await.expect("shut");
            let _ = stream.read(&mut request).await;
        })
    };
    let (error, _) = failure(
        http("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 36\r\n\r\nGateway websocket admission closed\r\n"),
        options(),
    )
    .await;
    let ConnectError::UpgradeRefused {
        status, ref body, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (status, body.as_str()),
        (503, "Gateway websocket admission closed")
    );

    let (error, _) = failure(http("HTTP/1.0 200 OK\r\n\r\n<html>"), options()).await;
    assert!(
        matches!(error, ConnectError::UpgradeRefused { status: 200, .. }),
        "{error}"
    );

    let (error, _) = failure(http("220 mail.example ESMTP\r\n"), options()).await;
    assert!(matches!(error, ConnectError::NotAGateway { .. }), "{error}");
    assert!(
        error.to_string().contains("220 mail.example ESMTP"),
        "{error}"
    );

    let (error, _) = failure(http(""), options()).await;
    assert!(matches!(error, ConnectError::Transport { .. }), "{error}");
}

struct Failing;

#[async_trait]
impl CredentialSource for Failing {
    async fn credentials(&self) -> Result<Credentials, CredentialError> {
        Err(CredentialError::source("settings are locked"))
    }
}

struct Hanging;

#[async_trait]
impl CredentialSource for Hanging {
    async fn credentials(&self) -> Result<Credentials, CredentialError> {
        std::future::pending().await
    }
}

struct Fresh;

#[async_trait]
impl CredentialSource for Fresh {
    async fn credentials(&self) -> Result<Credentials, CredentialError> {
        Ok(Credentials::token("fresh").with_device_token("issued"))
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_that_cannot_be_read_end_the_handshake() {
    let peer = || {
        Scripted::new(|mut peer: Peer| async move {
            peer.challenge().await;
            peer.gone().await;
        })
    };
    let (error, elapsed) =
        failure(peer(), options().with_credential_source(Arc::new(Failing))).await;
    assert!(matches!(error, ConnectError::Credentials(_)), "{error}");
    assert!(error.to_string().contains("settings are locked"), "{error}");
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");

    let (error, elapsed) =
        failure(peer(), options().with_credential_source(Arc::new(Hanging))).await;
    assert!(
        matches!(
            error,
            ConnectError::HelloTimeout {
                stage: HandshakeStage::Connecting,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(elapsed.as_secs(), 20);

    let transport = Scripted::new(|mut peer: Peer| async move {
        let request = peer.greet().await;
        assert_eq!(
            request["params"]["auth"],
            json!({"token":"fresh","deviceToken":"issued"})
        );
        peer.gone().await;
    });
    let connecting = transport.connect_with(options().with_credential_source(Arc::new(Fresh)));
    drop(connecting.await.expect("connects"));
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn empty_secrets_are_not_sent() {
    let transport = Scripted::new(|mut peer: Peer| async move {
        let request = peer.greet().await;
        assert_eq!(request["params"].get("auth"), None);
        peer.gone().await;
    });
    let options = ConnectOptions::new(Credentials::token(""));
    drop(transport.connect_with(options).await.expect("connects"));
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_attempt_closes_the_socket() {
    let transport = Scripted::new(|mut peer: Peer| async move {
        peer.challenge().await;
        peer.connect_request().await;
        peer.gone().await;
    });
    let attempt = tokio::time::timeout(Duration::from_millis(50), transport.connect()).await;
    assert!(attempt.is_err());
    transport.finish().await;
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let error = Connection::open(
        &WebSocketTransport::new(),
        &Endpoint::loopback(port),
        options(),
    )
    .await
    .expect_err("nobody listens");
    let ConnectError::Transport {
        error: ref cause, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(cause.kind, TransportErrorKind::Refused);
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
    assert!(text.contains("start the gateway"), "{text}");
}

#[tokio::test]
async fn a_listener_that_never_accepts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("bound").port();
    let limit = Duration::from_millis(150);
    let started = std::time::Instant::now();
    let error = Connection::open(
        &WebSocketTransport::new(),
        &Endpoint::loopback(port),
        options().with_handshake_timeout(limit),
    )
    .await
    .expect_err("no answer");
    assert!(
        matches!(error, ConnectError::UpgradeTimeout { .. }),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    let probe = probe_challenge(&WebSocketTransport::new(), &Endpoint::loopback(port), limit).await;
    assert!(
        matches!(
            probe,
            ProbeOutcome::Silent {
                stage: HandshakeStage::Upgrading
            }
        ),
        "{probe:?}"
    );
    drop(listener);
}

#[tokio::test]
async fn a_listener_that_hangs_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("bound").port();
    let accepting = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepts");
        let mut request = [0_u8; 1024];
        let _ = stream.read(&mut request).await;
    });
    let error = Connection::open(
        &WebSocketTransport::new(),
        &Endpoint::loopback(port),
        options(),
    )
    .await
    .expect_err("hangs up");
    let ConnectError::Transport { error, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(error.kind, TransportErrorKind::Reset);
    accepting.await.expect("no panic");
}

/// The gateway serves `::1` too; when only that is there, it is found.
#[tokio::test]
async fn the_second_loopback_address_is_tried() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        eprintln!("no IPv6 on this machine");
        return;
    };
    let port = listener.local_addr().expect("bound").port();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepts");
        let mut peer = Peer::accept(stream).await.expect("upgrades");
        peer.greet().await;
        peer.gone().await
    });
    let connection = Connection::open(
        &WebSocketTransport::new(),
        &Endpoint::loopback(port),
        options(),
    )
    .await
    .expect("connects");
    connection.close(1000_u16, "bye").await;
    assert_eq!(serving.await.expect("no panic"), Some(1000));
}

/// Two programs may hold the same port on the two addresses. The one that a gateway surely binds is dialled, and only that.
#[tokio::test]
async fn the_first_loopback_address_is_the_ipv4_one() {
    let gateway = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = gateway.local_addr().expect("bound").port();
    let Ok(stranger) = TcpListener::bind(("::1", port)).await else {
        eprintln!("no IPv6 on this machine");
        return;
    };
    let serving = tokio::spawn(async move {
        let (stream, _) = gateway.accept().await.expect("accepts");
        let mut peer = Peer::accept(stream).await.expect("upgrades");
        peer.greet().await;
        peer.gone().await
    });
    let address = format!("ws://localhost:{port}");
    let endpoint = Endpoint::parse(&address).expect("an address");
    let transport = WebSocketTransport::new();
    let connecting = Connection::open(&transport, &endpoint, options());
    let connection = tokio::select! {
        connection = connecting => connection.expect("connects"),
        accepted = stranger.accept() => panic!("the stranger was dialled: {accepted:?}"),
    };
    connection.close(1000_u16, "bye").await;
    assert_eq!(serving.await.expect("no panic"), Some(1000));
}

#[tokio::test(start_paused = true)]
async fn probes_tell_what_is_there() {
    let endpoint = Endpoint::loopback(1);
    let limit = gateway_client::PROBE_DEADLINE;

    let gateway = Scripted::new(|mut peer: Peer| async move {
        peer.challenge().await;
        assert_eq!(
            peer.gone().await,
            Some(1000),
            "a probe sends nothing but a close"
        );
    });
    let found = probe_challenge(&gateway, &endpoint, limit).await;
    let ProbeOutcome::Gateway { challenge } = found else {
        panic!("{found:?}");
    };
    assert_eq!(challenge.nonce(), Ok("n-1"));
    gateway.finish().await;

    let echo = Scripted::new(|mut peer: Peer| async move {
        peer.send_text("hi there").await;
        peer.gone().await;
    });
    let found = probe_challenge(&echo, &endpoint, limit).await;
    assert!(
        matches!(found, ProbeOutcome::NotAGateway { .. }),
        "{found:?}"
    );
    echo.finish().await;

    let silent = Scripted::new(|mut peer: Peer| async move {
        peer.gone().await;
    });
    let started = Instant::now();
    let found = probe_challenge(&silent, &endpoint, limit).await;
    assert!(
        matches!(
            found,
            ProbeOutcome::Silent {
                stage: HandshakeStage::AwaitingChallenge
            }
        ),
        "{found:?}"
    );
    assert!(started.elapsed() <= limit + Duration::from_millis(101));
    silent.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_connection_has_other_ids() {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let seen = ids.clone();
    let transport = Scripted::new(move |mut peer: Peer| {
        let seen = seen.clone();
        async move {
            let request = peer.greet().await;
            seen.lock().unwrap().push(request["id"].clone());
            peer.gone().await;
        }
    });
    for _ in 0..2 {
        drop(transport.connect().await.expect("connects"));
    }
    transport.finish().await;
    let ids = ids.lock().unwrap();
    assert_ne!(ids[0], ids[1]);
}
