//! Calls on an open connection: who gets which answer, and what is known when there is none.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use gateway_client::{
    CallOptions, CallOutcome, Connection, DisconnectCause, Endpoint, FrameSink, RpcError,
    Transport, TransportError, TransportErrorKind, TransportMessage, TransportOptions,
    TransportPair,
};
use gateway_protocol::{ErrorCode, Payload};
use serde_json::{Value, json};
use support::{Peer, Scripted, connected, hello_with, options, settle};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

fn limit(milliseconds: u64) -> CallOptions {
    CallOptions::timeout(Duration::from_millis(milliseconds))
}

fn number(n: u64) -> Option<Payload> {
    Some(Payload::from_serialize(&n).expect("encodes"))
}

async fn raw(connection: &Connection, method: &str) -> Result<Option<Payload>, RpcError> {
    connection
        .call_raw(method, None, CallOptions::default())
        .await
}

#[tokio::test(start_paused = true)]
async fn answers_in_any_order_reach_their_callers() {
    const CALLS: usize = 300;
    let (transport, connection) = connected(|mut peer| async move {
        let mut requests = Vec::new();
        for _ in 0..CALLS {
            requests.push(peer.receive().await);
        }
        let ids: BTreeSet<_> = requests.iter().map(|r| r["id"].to_string()).collect();
        assert_eq!(ids.len(), CALLS, "ids are unique");
        // Odd ones first, each half backwards, with events in between.
        let (odd, even): (Vec<_>, Vec<_>) = requests
            .into_iter()
            .partition(|request| request["params"].as_u64().unwrap_or(0) % 2 == 1);
        for request in odd.iter().rev().chain(even.iter().rev()) {
            peer.feed(json!({"type":"event","event":"tick","payload":{"ts":1}}))
                .await;
            let answer = json!({"echo":request["params"]});
            peer.feed(json!({"type":"res","id":request["id"],"ok":true,"payload":answer}))
                .await;
        }
        peer.flush().await;
        peer.gone().await;
    })
    .await;
    let mut calls = JoinSet::new();
    for n in 0..CALLS as u64 {
        let connection = connection.clone();
        calls.spawn(async move {
            let answer: Value = connection.call("echo", &n).await.expect("answered");
            assert_eq!(answer, json!({"echo":n}));
        });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("no panic");
    }
    let statistics = connection.statistics();
    assert_eq!(statistics.pending_calls, 0);
    assert_eq!(
        (statistics.late_answers, statistics.unknown_answers),
        (0, 0)
    );
    assert_eq!(statistics.frames_received, 2 * CALLS as u64);
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_answer() {
    let (transport, connection) = connected(|mut peer| async move {
        for answer in [
            json!({"ok":true,"payload":0}),
            json!({"ok":true,"payload":false}),
            json!({"ok":true,"payload":""}),
            json!({"ok":true}),
            json!({"ok":true,"payload":{"n":7}}),
            json!({"ok":true,"payload":"seven"}),
            json!({"ok":false,"error":{"code":"UNAVAILABLE","message":"busy","retryable":true,"retryAfterMs":1000,
                "details":{"reason":"gateway-restarting"}}}),
        ] {
            let request = peer.receive().await;
            let mut frame = answer;
            frame["type"] = json!("res");
            frame["id"] = request["id"].clone();
            peer.send(frame).await;
        }
        peer.gone().await;
    })
    .await;
    let payload = |answer: Option<Payload>| answer.map(|payload| payload.as_str().to_owned());
    assert_eq!(
        payload(raw(&connection, "a").await.unwrap()).as_deref(),
        Some("0")
    );
    assert_eq!(
        payload(raw(&connection, "b").await.unwrap()).as_deref(),
        Some("false")
    );
    assert_eq!(
        payload(raw(&connection, "c").await.unwrap()).as_deref(),
        Some("\"\"")
    );
    connection
        .call::<_, ()>("d", &json!({}))
        .await
        .expect("no payload is unit");
    let typed: std::collections::BTreeMap<String, u8> =
        connection.call("e", &json!({})).await.expect("typed");
    assert_eq!(typed["n"], 7);
    let error = connection
        .call::<_, u8>("f", &json!({}))
        .await
        .expect_err("no number");
    assert!(matches!(error, RpcError::Decode { .. }), "{error}");
    assert_eq!(error.outcome(), CallOutcome::Done);
    let error = raw(&connection, "g").await.expect_err("rejected");
    assert_eq!(error.outcome(), CallOutcome::Rejected);
    let shape = error.rejection().expect("a shape");
    assert_eq!(shape.code, ErrorCode::Unavailable);
    assert_eq!(shape.retry_after_ms, Some(1000));
    assert_eq!(
        shape.details_reason().as_deref(),
        Some("gateway-restarting")
    );
    assert!(error.to_string().contains("g was rejected"), "{error}");
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_and_its_late_answer_is_counted() {
    let (transport, connection) = connected(|mut peer| async move {
        let first = peer.receive().await;
        let second = peer.receive().await;
        peer.reply(&first, json!("late")).await;
        peer.reply(&first, json!("twice")).await;
        peer.send(json!({"type":"res","id":"999","ok":true})).await;
        peer.reply(&second, json!("in time")).await;
        peer.gone().await;
    })
    .await;
    let started = Instant::now();
    let error = raw(&connection, "slow").await.expect_err("no answer");
    let RpcError::Timeout {
        elapsed,
        sent: true,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(started.elapsed().as_secs(), 30, "the default");
    assert_eq!(elapsed.as_secs(), 30);
    assert!(
        error.to_string().starts_with("RPC timeout: slow"),
        "{error}"
    );
    assert_eq!(error.outcome(), CallOutcome::Unknown);
    assert_eq!(connection.statistics().pending_calls, 0);

    let answer: String = connection.call("next", &()).await.expect("answered");
    assert_eq!(answer, "in time");
    let unasked = connection.events().try_next();
    assert!(unasked.is_none(), "no event either: {unasked:?}");
    let statistics = connection.statistics();
    assert_eq!(
        (statistics.late_answers, statistics.unknown_answers),
        (2, 1)
    );
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_frees_its_entry() {
    let (transport, connection) = connected(|mut peer| async move {
        let abandoned = peer.receive().await;
        assert_eq!(abandoned["method"], "abandoned");
        tokio::time::sleep(Duration::from_millis(20)).await;
        peer.reply(&abandoned, json!(1)).await;
        let next = peer.receive().await;
        peer.reply(&next, json!(2)).await;
        peer.gone().await;
    })
    .await;
    // Given up before the socket's task had its turn: withdrawn. The peer never sees it.
    let call = raw(&connection, "withdrawn");
    assert!(call.now_or_never().is_none());
    assert_eq!(connection.statistics().pending_calls, 0);
    // Given up after it was sent.
    let call = raw(&connection, "abandoned");
    let waited = tokio::time::timeout(Duration::from_millis(5), call).await;
    assert!(waited.is_err(), "{waited:?}");
    assert_eq!(connection.statistics().pending_calls, 0);
    assert_eq!(
        connection
            .call::<_, u8>("next", &())
            .await
            .expect("answered"),
        2
    );
    assert_eq!(connection.statistics().late_answers, 1);
    drop(connection);
    transport.finish().await;
}

/// A peer that does not read: the first frame fills the pipe, the next one the queue, and others wait for the queue.
#[tokio::test(start_paused = true)]
async fn waiting_for_room_counts_and_what_never_left_is_withdrawn() {
    let (start_reading, reading) = tokio::sync::watch::channel(false);
    let transport = Scripted::new(move |mut peer: Peer| {
        let mut reading = reading.clone();
        async move {
            peer.greet().await;
            reading.wait_for(|go| *go).await.expect("the test goes on");
            let mut methods = Vec::new();
            while let Some(Message::Text(text)) = peer.next().await {
                let request: Value = serde_json::from_str(&text).expect("JSON");
                let method = request["method"].as_str().expect("text").to_owned();
                if method == "last" {
                    peer.reply(&request, json!(null)).await;
                }
                methods.push(method);
            }
            assert_eq!(methods, ["big", "last"]);
        }
    })
    .with_pipe_bytes(1024);
    let connection = transport
        .connect_with(options().with_command_queue(1))
        .await
        .expect("connects");
    let filler = Payload::from_serialize(&"x".repeat(200_000)).expect("encodes");

    let error = connection
        .call_raw("big", Some(filler), limit(50))
        .await
        .expect_err("nobody reads");
    assert!(
        matches!(error, RpcError::Timeout { sent: true, .. }),
        "{error}"
    );
    for method in ["queued", "waits for the queue"] {
        let started = Instant::now();
        let error = connection
            .call_raw(method, number(1), limit(50))
            .await
            .expect_err("nobody reads");
        assert!(
            matches!(error, RpcError::Timeout { sent: false, .. }),
            "{method}: {error}"
        );
        assert_eq!(error.outcome(), CallOutcome::NotSent);
        assert_eq!(started.elapsed(), Duration::from_millis(50), "{method}");
    }
    start_reading.send(true).expect("the script waits");
    raw(&connection, "last")
        .await
        .expect("the connection lives");
    drop(connection);
    transport.finish().await;
}

/// Both sides send more than the pipe holds before they read: each must read while it writes.
#[tokio::test(start_paused = true)]
async fn reading_goes_on_while_writing_is_blocked() {
    const BYTES: usize = 4_000_000;
    let (transport, connection) = connected(|mut peer| async move {
        let first = peer.receive().await;
        assert_eq!(first["method"], "start");
        let answer = json!("y".repeat(BYTES));
        peer.reply(&first, answer).await;
        let second = peer.receive().await;
        assert_eq!(second["params"].as_str().map(str::len), Some(BYTES));
        peer.reply(&second, json!(null)).await;
        peer.gone().await;
    })
    .await;
    let filler = Payload::from_serialize(&"x".repeat(BYTES)).expect("encodes");
    let (first, second) = tokio::join!(
        raw(&connection, "start"),
        connection.call_raw("more", Some(filler), CallOptions::default()),
    );
    assert_eq!(
        first.expect("answered").map(|payload| payload.len()),
        Some(BYTES + 2)
    );
    second.expect("answered");
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn losing_the_connection_settles_every_call_at_once() {
    const CALLS: u64 = 50;
    let (transport, connection) = connected(|mut peer| async move {
        for _ in 0..CALLS {
            peer.receive().await;
        }
        peer.event(
            "shutdown",
            json!({"reason":"gateway restarting","restartExpectedMs":1500}),
        )
        .await;
        peer.close(1012, "service restart").await;
        peer.gone().await;
    })
    .await;
    let started = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..CALLS {
        let connection = connection.clone();
        calls.spawn(async move {
            connection
                .call_raw("m", number(n), CallOptions::default())
                .await
        });
    }
    let watchers: Vec<_> = (0..3).map(|_| tokio::spawn(connection.closed())).collect();
    let mut causes = Vec::new();
    while let Some(call) = calls.join_next().await {
        let error = call.expect("no panic").expect_err("never answered");
        assert_eq!(error.outcome(), CallOutcome::Unknown);
        let RpcError::ConnectionLost {
            sent: true,
            disconnected,
            ..
        } = error
        else {
            panic!("{error}");
        };
        causes.push(disconnected);
    }
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    assert!(
        causes.iter().all(|cause| Arc::ptr_eq(cause, &causes[0])),
        "one cause for all"
    );
    for watcher in watchers {
        let disconnected = watcher.await.expect("no panic");
        assert_eq!(disconnected, *causes[0]);
        assert_eq!(disconnected.code, Some(1012));
        assert_eq!(disconnected.reason, "service restart");
        assert_eq!(disconnected.cause, DisconnectCause::Peer);
        let shutdown = disconnected.shutdown.expect("was announced");
        assert_eq!(
            shutdown.restart_expected(),
            Some(Duration::from_millis(1500))
        );
    }
    let error = raw(&connection, "after").await.expect_err("too late");
    assert!(
        error.to_string().starts_with("Gateway not connected"),
        "{error}"
    );
    assert_eq!(error.outcome(), CallOutcome::NotSent);
    assert_eq!(
        connection.closed().await.code,
        Some(1012),
        "also for late waiters"
    );
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanishes() {
    let (transport, connection) = connected(|mut peer| async move {
        peer.receive().await;
    })
    .await;
    let error = raw(&connection, "m").await.expect_err("lost");
    let RpcError::ConnectionLost {
        sent: true,
        ref disconnected,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(disconnected.code, None);
    assert!(
        matches!(disconnected.cause, DisconnectCause::Transport(_)),
        "{disconnected:?}"
    );
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn closing_settles_calls_and_tells_the_peer() {
    let (transport, connection) = connected(|mut peer| async move {
        peer.receive().await;
        match peer.next().await {
            Some(Message::Close(Some(frame))) => {
                assert_eq!(u16::from(frame.code), 4000);
                assert_eq!(frame.reason.as_str(), "tick timeout");
            }
            other => panic!("{other:?}"),
        }
        peer.gone().await;
    })
    .await;
    let pending = tokio::spawn({
        let connection = connection.clone();
        async move { raw(&connection, "pending").await }
    });
    settle().await;
    let started = Instant::now();
    let disconnected = connection.close(4000_u16, "tick timeout").await;
    assert_eq!(
        (disconnected.code, disconnected.cause),
        (Some(4000), DisconnectCause::Local)
    );
    assert!(started.elapsed() < Duration::from_millis(100));
    let error = pending.await.expect("no panic").expect_err("closed");
    assert!(
        matches!(error, RpcError::ConnectionLost { sent: true, .. }),
        "{error}"
    );
    let again = connection.close(1000_u16, "").await;
    assert_eq!(again.code, Some(4000), "the first close counts");
    assert!(
        format!("{connection:?}").contains("open: false"),
        "{connection:?}"
    );
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn closing_is_bounded_when_the_peer_does_not_answer() {
    let (transport, connection) = connected(|peer: Peer| async move {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(peer);
    })
    .await;
    let started = Instant::now();
    connection.close(1005_u16, &"r".repeat(500)).await;
    assert_eq!(started.elapsed(), Duration::from_secs(1));
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes_the_socket() {
    let (transport, connection) = connected(|mut peer| async move {
        assert_eq!(peer.gone().await, Some(1000));
    })
    .await;
    let mut events = connection.events();
    let closed = connection.closed();
    let clone = connection.clone();
    drop(connection);
    settle().await;
    assert!(clone.disconnected().is_none(), "one handle is left");
    drop(clone);
    assert_eq!(closed.await.cause, DisconnectCause::Local);
    assert!(events.next().await.is_none());
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn seventeen_mebibytes_in_one_frame() {
    const BYTES: usize = 17 * 1024 * 1024;
    let (transport, connection) = connected(|mut peer| async move {
        let request = peer.receive().await;
        peer.reply(&request, json!("z".repeat(BYTES))).await;
        peer.gone().await;
    })
    .await;
    let answer = raw(&connection, "chat.history")
        .await
        .expect("passes")
        .expect("a payload");
    assert_eq!(answer.len(), BYTES + 2);
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_frame_beyond_the_inbound_limit_ends_the_connection() {
    let transport = Scripted::new(|mut peer: Peer| async move {
        peer.greet().await;
        peer.send_text("x".repeat(5000)).await;
        assert_eq!(peer.gone().await, Some(1009));
    });
    let connection = transport
        .connect_with(options().with_max_message_bytes(4000))
        .await
        .expect("connects");
    let disconnected = connection.closed().await;
    let DisconnectCause::Transport(error) = disconnected.cause else {
        panic!("{disconnected:?}");
    };
    assert_eq!(
        error.kind,
        TransportErrorKind::MessageTooLarge { limit: 4000 }
    );
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_beyond_the_advertised_limit_is_not_sent() {
    let transport = Scripted::new(|mut peer: Peer| async move {
        peer.greet_with(hello_with(4, 1000)).await;
        let request = peer.receive().await;
        assert_eq!(request["method"], "small");
        peer.reply(&request, json!(null)).await;
        peer.gone().await;
    });
    let connection = transport.connect().await.expect("connects");
    let error = connection
        .call::<_, ()>("big", &"x".repeat(1000))
        .await
        .expect_err("too large");
    assert!(error.to_string().ends_with("send less at once"), "{error}");
    let RpcError::TooLarge {
        bytes, limit: 1000, ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(bytes > 1000);
    assert_eq!(error.outcome(), CallOutcome::NotSent);
    raw(&connection, "small")
        .await
        .expect("the connection lives");
    assert_eq!(connection.statistics().pending_calls, 0);
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn answers_of_old_gateways_are_correlated_by_value_and_type() {
    let (transport, connection) = connected(|mut peer| async move {
        let request = peer.receive().await;
        let id: u64 = request["id"]
            .as_str()
            .expect("text")
            .parse()
            .expect("digits");
        for stranger in [json!(0), json!(""), json!(null), json!(-1), json!([1])] {
            peer.send(json!({"jsonrpc":"2.0","id":stranger,"result":"wrong"}))
                .await;
        }
        peer.send(json!({"jsonrpc":"2.0","id":id,"result":{"right":true}}))
            .await;
        let request = peer.receive().await;
        peer.send(json!({"jsonrpc":"2.0","id":request["id"],
            "error":{"code":-32601,"message":"Method not found","data":{"hint":1}}}))
            .await;
        peer.gone().await;
    })
    .await;
    let answer: Value = connection.call("first", &()).await.expect("answered");
    assert_eq!(answer, json!({"right":true}));
    assert_eq!(connection.statistics().unknown_answers, 5);
    let error = connection
        .call::<_, ()>("second", &())
        .await
        .expect_err("rejected");
    let shape = error.rejection().expect("a shape");
    assert_eq!(shape.code.as_str(), "-32601");
    assert_eq!(shape.message, "Method not found");
    assert_eq!(
        shape.details.as_ref().map(Payload::as_str),
        Some("{\"hint\":1}")
    );
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_trace_goes_to_protocol_four_only() {
    for (protocol, expected) in [(4, json!("00-ab-cd-01")), (3, Value::Null)] {
        let expected = Arc::new(expected);
        let transport = Scripted::new(move |mut peer: Peer| {
            let expected = expected.clone();
            async move {
                peer.greet_with(hello_with(protocol, 1_000_000)).await;
                let request = peer.receive().await;
                assert_eq!(request["traceparent"], *expected);
                peer.reply(&request, json!(null)).await;
                let request = peer.receive().await;
                assert_eq!(request.get("traceparent"), None, "too long");
                peer.reply(&request, json!(null)).await;
                peer.gone().await;
            }
        });
        let connection = transport.connect().await.expect("connects");
        for trace in ["00-ab-cd-01".to_owned(), "0".repeat(129)] {
            let options = CallOptions::default().with_traceparent(trace);
            connection
                .call_raw("m", None, options)
                .await
                .expect("answered");
        }
        drop(connection);
        transport.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_proves_that_the_router_answers_and_silence_does_not() {
    let (transport, connection) = connected(|mut peer| async move {
        let request = peer.receive().await;
        assert_eq!(request["method"], "health");
        tokio::time::sleep(Duration::from_millis(40)).await;
        peer.reject(
            &request,
            json!({"code":"INVALID_REQUEST","message":"missing scope: x"}),
        )
        .await;
        peer.receive().await;
        peer.gone().await;
    })
    .await;
    let elapsed = connection
        .verify(Duration::from_secs(5))
        .await
        .expect("alive");
    assert!((40..=45).contains(&elapsed.as_millis()), "{elapsed:?}");
    let error = connection
        .verify(Duration::from_secs(5))
        .await
        .expect_err("silent");
    assert!(
        matches!(error, RpcError::Timeout { sent: true, .. }),
        "{error}"
    );
    drop(connection);
    transport.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_endless_time_limit_is_no_overflow() {
    let (transport, connection) = connected(|mut peer| async move {
        let request = peer.receive().await;
        peer.reply(&request, json!(1)).await;
        peer.gone().await;
    })
    .await;
    let options = CallOptions::timeout(Duration::MAX);
    connection
        .call_raw("m", None, options)
        .await
        .expect("answered");
    drop(connection);
    transport.finish().await;
}

#[test]
fn calls_do_not_hang_when_the_runtime_of_the_connection_is_gone() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let first = runtime();
    let (_transport, connection) = first.block_on(connected(|mut peer| async move {
        peer.gone().await;
    }));
    drop(first);
    runtime().block_on(async move {
        let error = raw(&connection, "m").await.expect_err("no task is left");
        assert!(matches!(error, RpcError::NotConnected { .. }), "{error}");
        assert_eq!(connection.closed().await.cause, DisconnectCause::Local);
        connection.close(1000_u16, "").await;
    });
}

/// Refuses every frame of the method `refused` before it is sent.
struct Picky(Box<dyn FrameSink>);

#[async_trait]
impl FrameSink for Picky {
    async fn feed(&mut self, message: TransportMessage) -> Result<(), TransportError> {
        if let TransportMessage::Text(bytes) = &message
            && find(bytes, b"\"refused\"")
        {
            let kind = TransportErrorKind::MessageTooLarge { limit: 1 };
            return Err(TransportError::new(kind, ""));
        }
        self.0.feed(message).await
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.0.flush().await
    }

    async fn close(&mut self, code: u16, reason: &str) -> Result<(), TransportError> {
        self.0.close(code, reason).await
    }
}

fn find(haystack: &Bytes, needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

struct PickyTransport(Scripted);

#[async_trait]
impl Transport for PickyTransport {
    async fn open(
        &self,
        endpoint: &Endpoint,
        options: &TransportOptions,
    ) -> Result<TransportPair, TransportError> {
        let pair = self.0.open(endpoint, options).await?;
        Ok(TransportPair {
            sink: Box::new(Picky(pair.sink)),
            stream: pair.stream,
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_the_transport_refuses_fails_its_own_call_only() {
    let transport = PickyTransport(Scripted::new(|mut peer: Peer| async move {
        peer.greet().await;
        let request = peer.receive().await;
        assert_eq!(request["method"], "accepted");
        peer.reply(&request, json!(null)).await;
        peer.gone().await;
    }));
    let connection = Connection::open(&transport, &Endpoint::loopback(1), options())
        .await
        .expect("connects");
    let error = raw(&connection, "refused").await.expect_err("refused");
    assert!(matches!(error, RpcError::NotSent { .. }), "{error}");
    assert!(
        error.to_string().starts_with("Failed to send RPC request"),
        "{error}"
    );
    assert_eq!(error.outcome(), CallOutcome::NotSent);
    raw(&connection, "accepted")
        .await
        .expect("the connection lives");
    drop(connection);
    transport.0.finish().await;
}
