//! What the recordings do not show: events, faults, stops and restarts of the fake gateway.

mod support;

use std::time::Duration;

use gateway_testkit::fake_gateway::{ChallengeFault, Phase, Refusal, StopOutcome};
use gateway_testkit::{FakeGateway, FakeGatewayConfig, FakeGatewayFaults, Vintage};
use serde_json::{Value, json};
use support::client::{Client, Received, connect_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const TOKEN: &str = FakeGatewayConfig::DEFAULT_TOKEN;
const PATIENCE: Duration = Duration::from_secs(10);

async fn start(vintage: Vintage) -> FakeGateway {
    FakeGateway::start(FakeGatewayConfig::new(vintage))
        .await
        .unwrap()
}

async fn faulty(faults: FakeGatewayFaults) -> FakeGateway {
    FakeGateway::start(FakeGatewayConfig::default().with_faults(faults))
        .await
        .unwrap()
}

async fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_stop_says_shutdown_then_1012_and_frees_the_port() {
    for (vintage, payload) in [
        (
            Vintage::V2026_3_2,
            json!({"reason": "gateway stopping", "restartExpectedMs": null}),
        ),
        (Vintage::V2026_9_6, json!({"reason": "gateway stopping"})),
    ] {
        let gateway = start(vintage).await;
        let (mut client, _) = Client::connected(gateway.port(), TOKEN).await;
        gateway.begin_stop();
        let shutdown = client.event("shutdown", PATIENCE).await.unwrap();
        assert_eq!(shutdown["payload"], payload, "{vintage:?}");
        assert!(shutdown["seq"].is_u64());
        assert_eq!(
            client.until_close(PATIENCE).await,
            json!({"code": 1012, "reason": "service restart"})
        );
        assert_eq!(
            timeout(PATIENCE, gateway.stopped()).await.unwrap(),
            StopOutcome::Stopped
        );
        assert!(
            TcpStream::connect(("127.0.0.1", gateway.port()))
                .await
                .is_err(),
            "{vintage:?}"
        );
        assert_eq!(
            gateway.stop().await,
            StopOutcome::Stopped,
            "a second stop is the same"
        );
    }
}

#[tokio::test]
async fn sockets_that_never_connected_are_closed_by_the_new_release_and_waited_for_by_the_old() {
    for (vintage, expected) in [
        (Vintage::V2026_3_2, json!(1006)),
        (Vintage::V2026_9_6, json!(1012)),
    ] {
        let mut config = FakeGatewayConfig::new(vintage);
        config.unauthenticated_linger =
            config.unauthenticated_linger.min(Duration::from_millis(50));
        let gateway = FakeGateway::start(config).await.unwrap();
        let mut client = Client::open(gateway.port(), "/", &[]).await.unwrap();
        client.event("connect.challenge", PATIENCE).await.unwrap();
        gateway.begin_stop();
        assert_eq!(
            client.until_close(PATIENCE).await["code"],
            expected,
            "{vintage:?}"
        );
        timeout(PATIENCE, gateway.stopped()).await.unwrap();
    }
}

#[tokio::test]
async fn a_restart_keeps_the_port_and_the_uptime_and_changes_the_boot() {
    let gateway = start(Vintage::V2026_9_6).await;
    let (mut client, before) = Client::connected(gateway.port(), TOKEN).await;
    gateway.begin_restart();
    let shutdown = client.event("shutdown", PATIENCE).await.unwrap();
    assert_eq!(
        shutdown["payload"],
        json!({"reason": "gateway restarting", "restartExpectedMs": 1500})
    );
    assert_eq!(client.until_close(PATIENCE).await["code"], 1012);
    timeout(
        PATIENCE,
        gateway.wait_for(|statistics| statistics.restarts == 1),
    )
    .await
    .unwrap();
    let (_client, after) = Client::connected(gateway.port(), TOKEN).await;
    assert_ne!(before["server"]["bootId"], after["server"]["bootId"]);
    assert!(after["snapshot"]["uptimeMs"].as_u64() >= before["snapshot"]["uptimeMs"].as_u64());
}

#[tokio::test]
async fn requests_that_restart_do() {
    let new = start(Vintage::V2026_9_6).await;
    let (mut client, _) = Client::connected(new.port(), TOKEN).await;
    let answer = client
        .call("gateway.restart.request", json!({"reason": "test"}))
        .await;
    assert_eq!(answer["payload"]["status"], "scheduled");
    assert_eq!(
        client.event("shutdown", PATIENCE).await.unwrap()["payload"]["restartExpectedMs"],
        1500
    );

    let old = start(Vintage::V2026_3_2).await;
    let (mut client, _) = Client::connected(old.port(), TOKEN).await;
    let hash = client.call("config.get", json!({})).await["payload"]["hash"].clone();
    let patch = json!({"raw": r##"{"ui":{"seamColor":"#00aa00"}}"##, "baseHash": hash});
    assert_eq!(
        client.call("config.patch", patch).await["payload"]["restart"]["signal"],
        "SIGUSR1"
    );
    assert_eq!(
        client.event("shutdown", PATIENCE).await.unwrap()["payload"]["restartExpectedMs"],
        1500
    );
}

#[tokio::test]
async fn a_new_token_in_the_configuration_closes_with_4001() {
    let gateway = start(Vintage::V2026_9_6).await;
    let (mut client, _) = Client::connected(gateway.port(), TOKEN).await;
    let hash = client.call("config.get", json!({})).await["payload"]["hash"].clone();
    let patch = json!({"raw": r#"{"gateway":{"auth":{"token":"other"}}}"#, "baseHash": hash});
    assert_eq!(client.call("config.patch", patch).await["ok"], true);
    assert_eq!(
        client.until_close(PATIENCE).await,
        json!({"code": 4001, "reason": "gateway auth changed"})
    );
    Client::connected(gateway.port(), "other").await;
}

#[tokio::test]
async fn a_stop_of_the_new_release_waits_for_an_agent_run() {
    let mut config = FakeGatewayConfig::new(Vintage::V2026_9_6);
    config.run_duration = Duration::from_secs(600);
    let gateway = FakeGateway::start(config).await.unwrap();
    let (mut client, _) = Client::connected(gateway.port(), TOKEN).await;
    let send = json!({"sessionKey": "main", "message": "hi", "idempotencyKey": "run-1"});
    assert_eq!(
        client.call("chat.send", send).await["payload"]["runId"],
        "run-1"
    );
    gateway.begin_stop();
    // The phase has no event of its own: the probe tells.
    let draining = async {
        while !get(gateway.port(), "/readyz")
            .await
            .contains("gateway-draining")
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, draining).await.unwrap();
    assert_eq!(gateway.phase(), Phase::Draining);
    let closed = Client::open(gateway.port(), "/", &[]).await.err();
    assert_eq!(
        closed,
        Some((503, "Gateway websocket admission closed".to_owned()))
    );
    let refused = client.call("status", json!({})).await;
    assert_eq!(refused["error"]["code"], "UNAVAILABLE");
    assert_eq!(refused["error"]["retryAfterMs"], 1000);
    assert_eq!(refused["error"]["details"]["reason"], "gateway-restarting");
    // Too late for that, too.
    let abort = client
        .call("chat.abort", json!({"sessionKey": "main"}))
        .await;
    assert_eq!(abort["error"]["code"], "UNAVAILABLE");
    // A second signal changes nothing.
    gateway.begin_stop();
    gateway.end_runs();
    assert_eq!(client.until_close(PATIENCE).await["code"], 1012);
    timeout(PATIENCE, gateway.stopped()).await.unwrap();
}

#[tokio::test]
async fn a_starting_gateway_says_so_before_it_looks_at_anything() {
    let gateway = start(Vintage::V2026_9_6).await;
    gateway.set_phase(Phase::Starting);
    let mut client = Client::open(gateway.port(), "/", &[]).await.unwrap();
    let Received::Frame(answer) = client.connect("wrong token").await else {
        panic!("no answer")
    };
    assert_eq!(answer["error"]["code"], "UNAVAILABLE");
    assert_eq!(answer["error"]["retryAfterMs"], 500);
    assert_eq!(
        client.until_close(PATIENCE).await,
        json!({"code": 1013, "reason": "gateway starting"})
    );
    assert!(
        get(gateway.port(), "/readyz")
            .await
            .contains("startup-sidecars")
    );
    gateway.set_phase(Phase::Ready);
    assert!(
        get(gateway.port(), "/startupz")
            .await
            .contains(r#""status":"started""#)
    );
    Client::connected(gateway.port(), TOKEN).await;
}

#[tokio::test(start_paused = true)]
async fn starting_takes_the_time_that_was_set_and_only_the_new_release_does_it() {
    for (vintage, first) in [
        (Vintage::V2026_3_2, Phase::Ready),
        (Vintage::V2026_9_6, Phase::Starting),
    ] {
        let mut config = FakeGatewayConfig::new(vintage);
        config.ready_after = Duration::from_secs(2);
        let gateway = FakeGateway::start_in_memory(config);
        tokio::time::sleep(Duration::from_millis(1_990)).await;
        assert_eq!(gateway.phase(), first, "{vintage:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(gateway.phase(), Phase::Ready, "{vintage:?}");
    }
}

#[tokio::test]
async fn events_are_numbered_like_the_release_does() {
    for (vintage, gapless) in [(Vintage::V2026_3_2, false), (Vintage::V2026_9_6, true)] {
        let gateway = start(vintage).await;
        let (mut client, _) = Client::connected(gateway.port(), TOKEN).await;
        // An event before the second client connects: a process-wide counter goes on, a connection's does not.
        gateway.tick();
        let first = client.event("tick", PATIENCE).await.unwrap();
        assert!(first["payload"]["ts"].is_u64());
        let (mut second, _) = Client::connected(gateway.port(), TOKEN).await;
        gateway.tick();
        let seen = second.event("tick", PATIENCE).await.unwrap()["seq"]
            .as_u64()
            .unwrap();
        let again = client.event("tick", PATIENCE).await.unwrap()["seq"]
            .as_u64()
            .unwrap();
        assert!(again > first["seq"].as_u64().unwrap());
        assert_eq!(seen == 1, gapless, "{vintage:?}: {seen}");
        assert_eq!(seen == again, !gapless, "{vintage:?}");
    }
}

#[tokio::test]
async fn ticks_come_at_the_advertised_interval() {
    let config = FakeGatewayConfig {
        tick_interval: Duration::from_millis(20),
        ..FakeGatewayConfig::default()
    };
    let gateway = FakeGateway::start(config).await.unwrap();
    let (mut client, hello) = Client::connected(gateway.port(), TOKEN).await;
    assert_eq!(hello["policy"]["tickIntervalMs"], 20);
    for _ in 0..3 {
        assert!(client.event("tick", PATIENCE).await.is_some());
    }
}

#[tokio::test]
async fn presence_is_told_when_others_come_and_go() {
    let gateway = start(Vintage::V2026_9_6).await;
    let (mut watcher, _) = Client::connected(gateway.port(), TOKEN).await;
    let mut other = Client::open(gateway.port(), "/", &[]).await.unwrap();
    let mut connect = connect_frame(TOKEN);
    connect["params"]["client"]["mode"] = json!("ui");
    other.text(connect.to_string()).await;
    assert!(matches!(
        other.response(&json!("connect"), PATIENCE).await,
        Received::Frame(_)
    ));
    let came = watcher.event("presence", PATIENCE).await.unwrap();
    assert!(came["stateVersion"]["presence"].is_u64());
    drop(other);
    let went = watcher.event("presence", PATIENCE).await.unwrap();
    let reasons = |event: &Value| -> Vec<String> {
        let entries = event["payload"]["presence"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| entry["reason"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(!reasons(&came).contains(&"disconnect".to_owned()));
    assert!(reasons(&went).contains(&"disconnect".to_owned()));
}

#[tokio::test]
async fn test_methods_answer_as_asked() {
    let gateway = start(Vintage::V2026_9_6).await;
    let (mut client, hello) = Client::connected(gateway.port(), TOKEN).await;
    let methods = hello["features"]["methods"].as_array().unwrap();
    assert!(
        methods
            .iter()
            .all(|name| !name.as_str().unwrap().starts_with("test."))
    );

    let params = json!({"a": [1, "ü", null]});
    assert_eq!(
        client.call("test.echo", params.clone()).await["payload"],
        params
    );
    let large = client
        .call("test.large", json!({"bytes": 20_000_000}))
        .await;
    assert_eq!(large["payload"]["data"].as_str().unwrap().len(), 20_000_000);
    let failed = client
        .call(
            "test.fail",
            json!({"code": "AGENT_TIMEOUT", "message": "m", "retryAfterMs": 5}),
        )
        .await;
    assert_eq!(
        failed["error"],
        json!({"code": "AGENT_TIMEOUT", "message": "m", "retryAfterMs": 5})
    );
    assert_eq!(
        client
            .call("test.events", json!({"count": 3, "bytes": 200}))
            .await["payload"]["count"],
        3
    );
    for _ in 0..3 {
        assert!(client.event("test.event", PATIENCE).await.is_some());
    }
    assert_eq!(
        client.call("test.nonsense", json!({})).await["error"]["message"],
        "unknown method: test.nonsense"
    );

    // A later answer overtakes a delayed one, and a silent method stays silent.
    for (id, method) in [
        ("slow", "test.delay"),
        ("never", "test.silent"),
        ("quick", "test.echo"),
    ] {
        client
            .text(
                json!({"type": "req", "id": id, "method": method, "params": {"ms": 30}})
                    .to_string(),
            )
            .await;
    }
    assert!(matches!(
        client.response(&json!("quick"), PATIENCE).await,
        Received::Frame(_)
    ));
    assert!(matches!(
        client.response(&json!("slow"), PATIENCE).await,
        Received::Frame(_)
    ));
    assert!(matches!(
        client
            .response(&json!("never"), Duration::from_millis(30))
            .await,
        Received::Nothing
    ));

    client
        .text(
            json!({"type": "req", "id": "x", "method": "test.close", "params": {"code": 1008}})
                .to_string(),
        )
        .await;
    assert_eq!(
        client.until_close(PATIENCE).await,
        json!({"code": 1008, "reason": ""})
    );
    let (mut client, _) = Client::connected(gateway.port(), TOKEN).await;
    client
        .text(json!({"type": "req", "id": "x", "method": "test.drop"}).to_string())
        .await;
    assert_eq!(client.until_close(PATIENCE).await["code"], 1006);
}

#[tokio::test]
async fn a_stalled_gateway_accepts_and_says_nothing_until_it_resumes() {
    let gateway = start(Vintage::V2026_9_6).await;
    let (mut client, _) = Client::connected(gateway.port(), TOKEN).await;
    gateway.stall();
    client
        .text(json!({"type": "req", "id": "h", "method": "health"}).to_string())
        .await;
    let mut fresh = TcpStream::connect(("127.0.0.1", gateway.port()))
        .await
        .expect("the kernel still accepts");
    fresh
        .write_all(b"GET /healthz HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut byte = [0; 1];
    assert!(
        timeout(Duration::from_millis(60), fresh.read(&mut byte))
            .await
            .is_err()
    );
    assert!(matches!(
        client
            .response(&json!("h"), Duration::from_millis(20))
            .await,
        Received::Nothing
    ));
    gateway.resume();
    assert!(matches!(
        client.response(&json!("h"), PATIENCE).await,
        Received::Frame(_)
    ));
    assert_eq!(
        timeout(PATIENCE, fresh.read(&mut byte))
            .await
            .unwrap()
            .unwrap(),
        1
    );
}

#[tokio::test]
async fn challenge_faults() {
    for (fault, expected) in [
        (ChallengeFault::Missing, None),
        (ChallengeFault::WithoutNonce, Some(Value::Null)),
        (ChallengeFault::EmptyNonce, Some(json!(""))),
    ] {
        let gateway = faulty(FakeGatewayFaults {
            challenge: fault,
            ..Default::default()
        })
        .await;
        let mut client = Client::open(gateway.port(), "/", &[]).await.unwrap();
        let patience = if expected.is_some() {
            PATIENCE
        } else {
            Duration::from_millis(50)
        };
        let challenge = client.event("connect.challenge", patience).await;
        assert_eq!(
            challenge.map(|frame| frame["payload"]["nonce"].clone()),
            expected,
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn refusals_can_be_counted() {
    let refusal =
        Refusal::new("NOT_PAIRED", "pairing required").details(json!({"code": "PAIRING_REQUIRED"}));
    let gateway = faulty(FakeGatewayFaults {
        refuse: Some(refusal),
        refuse_first: Some(2),
        ..Default::default()
    })
    .await;
    for _ in 0..2 {
        let mut client = Client::open(gateway.port(), "/", &[]).await.unwrap();
        let Received::Frame(answer) = client.connect(TOKEN).await else {
            panic!("no answer")
        };
        assert_eq!(answer["error"]["details"]["code"], "PAIRING_REQUIRED");
        assert_eq!(
            client.until_close(PATIENCE).await,
            json!({"code": 1008, "reason": "pairing required"})
        );
    }
    Client::connected(gateway.port(), TOKEN).await;
    let statistics = gateway.statistics();
    assert_eq!((statistics.refused, statistics.hellos), (2, 1));
    assert_eq!(gateway.connects().len(), 3);
    assert_eq!(gateway.connects()[0]["auth"]["token"], TOKEN);
    assert!(!format!("{gateway:?}{:?}", gateway.config()).contains(TOKEN));
}

#[tokio::test]
async fn other_faults() {
    let gateway = faulty(FakeGatewayFaults {
        silent_after_accept: true,
        ..Default::default()
    })
    .await;
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port()))
        .await
        .unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(
        timeout(Duration::from_millis(50), stream.read(&mut [0; 1]))
            .await
            .is_err()
    );

    let refused = faulty(FakeGatewayFaults {
        refuse_upgrade: Some((502, "no".to_owned())),
        ..Default::default()
    })
    .await;
    assert_eq!(
        Client::open(refused.port(), "/", &[]).await.err(),
        Some((502, "no".to_owned()))
    );

    // Challenge and hello are two frames; the third cuts.
    let dropping = faulty(FakeGatewayFaults {
        drop_after_frames: Some(3),
        ..Default::default()
    })
    .await;
    let (mut client, _) = Client::connected(dropping.port(), TOKEN).await;
    assert_eq!(client.call("test.echo", json!(1)).await["payload"], 1);
    assert_eq!(client.until_close(PATIENCE).await["code"], 1006);

    let oversize = faulty(FakeGatewayFaults {
        oversize_after_hello: Some(30 << 20),
        ..Default::default()
    })
    .await;
    let (mut client, _) = Client::connected(oversize.port(), TOKEN).await;
    assert!(
        client
            .event("test.oversize", PATIENCE)
            .await
            .unwrap()
            .to_string()
            .len()
            > 30 << 20
    );

    let deaf = faulty(FakeGatewayFaults {
        ignore_requests: true,
        ..Default::default()
    })
    .await;
    let (mut client, _) = Client::connected(deaf.port(), TOKEN).await;
    client
        .text(json!({"type": "req", "id": "h", "method": "health"}).to_string())
        .await;
    client.ping(b"p").await;
    assert!(client.pong(PATIENCE).await, "pings are answered");
    timeout(
        PATIENCE,
        deaf.wait_for(|statistics| statistics.requests == 1),
    )
    .await
    .unwrap();
    assert!(matches!(
        client
            .response(&json!("h"), Duration::from_millis(20))
            .await,
        Received::Nothing
    ));
}

#[tokio::test]
async fn limits_of_sockets_and_time_before_hello() {
    let config = FakeGatewayConfig {
        max_unauthenticated: Some(2),
        ..FakeGatewayConfig::default()
    };
    let gateway = FakeGateway::start(config).await.unwrap();
    let _waiting = (
        Client::open(gateway.port(), "/", &[]).await.unwrap(),
        Client::open(gateway.port(), "/", &[]).await.unwrap(),
    );
    let refused = Client::open(gateway.port(), "/", &[]).await.err();
    assert_eq!(
        refused,
        Some((503, "Too many unauthenticated sockets".to_owned()))
    );

    let config = FakeGatewayConfig {
        wrong_token_delay: Duration::from_millis(30),
        ..FakeGatewayConfig::default()
    };
    let gateway = FakeGateway::start(config).await.unwrap();
    let begin = Instant::now();
    for _ in 0..2 {
        let mut client = Client::open(gateway.port(), "/", &[]).await.unwrap();
        assert!(matches!(client.connect("wrong").await, Received::Frame(_)));
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(90),
        "30 ms, then 60 ms"
    );
}

#[tokio::test]
async fn a_peer_that_hides_its_pongs_is_cut() {
    let config = FakeGatewayConfig {
        ping_interval: Some(Duration::from_millis(50)),
        pong_timeout: Some(Duration::from_millis(600)),
        ..FakeGatewayConfig::default()
    };
    let gateway = FakeGateway::start(config).await.unwrap();
    let (mut quiet, _) = Client::connected(gateway.port(), TOKEN).await;
    let (mut lively, _) = Client::connected(gateway.port(), TOKEN).await;
    // A client that does not read answers no ping.
    let gone = gateway.wait_for(|statistics| statistics.connected == 1);
    tokio::select! {
        _ = gone => {}
        close = lively.until_close(PATIENCE) => panic!("the wrong one was cut: {close}"),
    }
    assert_eq!(quiet.until_close(PATIENCE).await["code"], 1006);
}

#[tokio::test]
async fn ipv6_is_served_when_there_is_any() {
    let gateway = start(Vintage::V2026_9_6).await;
    match tokio::net::TcpListener::bind("[::1]:0").await {
        Ok(_) => assert!(TcpStream::connect(("::1", gateway.port())).await.is_ok()),
        Err(error) => println!("no IPv6 here: {error}"),
    }
}

#[tokio::test]
async fn dropping_the_handle_frees_the_port_and_cuts_everybody() {
    let gateway = start(Vintage::V2026_9_6).await;
    let port = gateway.port();
    let (mut client, _) = Client::connected(port, TOKEN).await;
    drop(gateway);
    assert_eq!(client.until_close(PATIENCE).await["code"], 1006);
    assert!(
        FakeGateway::start(FakeGatewayConfig::default().with_port(port))
            .await
            .is_ok()
    );
}
