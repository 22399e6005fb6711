//! Recorded sessions with real gateways, played to the fake: it must answer the same.
//!
//! The recorded client frames are sent unchanged, signatures included; the fake is given the recorded challenge and
//! clock. Compared are kind, error code, message, details and close frame. Of successful answers the kind and, for
//! `hello-ok`, the rights are compared; the rest is shortened in the fake, but it may not have a field that the real
//! answer lacks.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_testkit::fake_gateway::{FixedChallenge, PairedDevice, Phase};
use gateway_testkit::{FakeGateway, FakeGatewayConfig, Vintage};
use serde_json::{Value, json};
use support::client::{Client, Received};
use support::transcripts::{Case, cases};

const TOKEN: &str = "probe-token-0001";
const PATIENCE: Duration = Duration::from_secs(5);

/// Cases that are about the process, or about a service the fake does not have.
const NOT_PLAYED: &[(&str, &str)] = &[
    ("chat_abort_then_sigterm", "agent run and signal"),
    ("config_", "configuration of a real process"),
    ("connect_while_draining", "signal"),
    ("event_stream_75s", "75 seconds of events"),
    ("keepalive_no_pong", "the recording client hides its pongs"),
    ("killed_", "signal"),
    (
        "preauth_budget_exceeded",
        "the 32 other sockets are not recorded",
    ),
    ("restart_request_", "restart"),
    ("rpc_gateway_identity_get", "method not built"),
    ("rpc_gateway_suspend_status", "method not built"),
    ("shutdown_", "signal"),
    ("signal_", "signal"),
    ("sigterm_", "signal"),
    ("stopped_", "signal"),
    ("suspend_prepare", "method not built"),
];

/// Cases where the fake is known to differ.
const DIFFERENT: &[(&str, &str)] = &[(
    "rpc_config_patch_bad_json",
    "the position in the text is counted by another reader",
)];

#[tokio::test]
async fn the_fake_answers_like_2026_3_2() {
    check(Vintage::V2026_3_2, 158).await;
}

#[tokio::test]
async fn the_fake_answers_like_2026_9_6() {
    check(Vintage::V2026_9_6, 162).await;
}

async fn check(vintage: Vintage, at_least: usize) {
    let cases = cases(vintage.release());
    let (mut matched, mut skipped, mut wrong) = (0, 0, BTreeMap::new());
    for case in cases.values() {
        let known =
            |list: &[(&str, &str)]| list.iter().any(|(prefix, _)| case.name.starts_with(prefix));
        if known(NOT_PLAYED) || known(DIFFERENT) {
            skipped += 1;
            continue;
        }
        match tokio::time::timeout(Duration::from_secs(20), play(vintage, case, &cases)).await {
            Ok(Ok(())) => matched += 1,
            Ok(Err(difference)) => drop(wrong.insert(&case.name, difference)),
            Err(_) => drop(wrong.insert(&case.name, "took too long".to_owned())),
        }
    }
    println!(
        "{}: {matched} cases matched, {} differ, {skipped} not played",
        vintage.release(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(matched >= at_least, "only {matched} cases were played");
}

async fn play(vintage: Vintage, case: &Case, cases: &BTreeMap<String, Case>) -> Result<(), String> {
    let gateway = FakeGateway::start(settings(vintage, case, cases))
        .await
        .map_err(|error| error.to_string())?;
    if case.name.starts_with("startup_unavailable") {
        gateway.set_phase(Phase::Starting);
    }
    for (second, lines) in [(false, &case.first), (true, &case.second)] {
        if !lines.is_empty() {
            play_socket(&gateway, case, lines)
                .await
                .map_err(|error| format!("second={second}: {error}"))?;
        }
    }
    Ok(())
}

fn settings(vintage: Vintage, case: &Case, cases: &BTreeMap<String, Case>) -> FakeGatewayConfig {
    let mut config = FakeGatewayConfig::new(vintage).with_token(TOKEN);
    config.handshake_timeout = if case.name == "preauth_idle_timeout" {
        Duration::from_millis(50)
    } else {
        Duration::from_secs(15)
    };
    config.fixed_challenges = [&case.first, &case.second]
        .into_iter()
        .filter_map(|lines| {
            let challenge = lines
                .iter()
                .map(|line| &line["frame"])
                .find(|frame| frame["event"] == "connect.challenge")?;
            let nonce = challenge["payload"]["nonce"].as_str()?.to_owned();
            Some(FixedChallenge {
                nonce,
                ts: challenge["payload"]["ts"].as_u64()?,
            })
        })
        .collect();
    // These cases use the key that an earlier one paired.
    if case.name.starts_with("hello_ui_device")
        || case.name.starts_with("hello_ui_platform")
        || case.name.contains("plus_devicetoken")
    {
        config.paired_devices.extend(paired_before(case, cases));
    }
    config
}

/// The device of `hello_ui_device_v2_firstpair`, as that session left it.
fn paired_before(case: &Case, cases: &BTreeMap<String, Case>) -> Option<PairedDevice> {
    let first = cases
        .get("hello_ui_device_v2_firstpair")
        .filter(|first| first.name != case.name)?;
    let connect = first
        .first
        .iter()
        .map(|line| &line["frame"])
        .find(|frame| frame["method"] == "connect")?;
    let hello = first
        .first
        .iter()
        .map(|line| &line["frame"])
        .find(|frame| frame["payload"]["type"] == "hello-ok")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(PairedDevice {
        id: text(&connect["params"]["device"]["id"])?,
        token: text(&hello["payload"]["auth"]["deviceToken"])?.into(),
        role: "operator".to_owned(),
        scopes: connect["params"]["scopes"]
            .as_array()?
            .iter()
            .filter_map(text)
            .collect(),
        platform: text(&connect["params"]["client"]["platform"]),
        device_family: None,
    })
}

fn headers(case: &Case) -> Vec<(&'static str, String)> {
    match case.name.as_str() {
        name if name.starts_with("url_host_header_foreign") => {
            vec![("Host", "gateway.example".to_owned())]
        }
        name if name.starts_with("xff_") => vec![("X-Forwarded-For", "203.0.113.7".to_owned())],
        "url_origin_header" => vec![("Origin", "https://evil.example".to_owned())],
        "auth_authorization_header" => vec![("Authorization", format!("Bearer {TOKEN}"))],
        _ => Vec::new(),
    }
}

async fn play_socket(gateway: &FakeGateway, case: &Case, lines: &[Value]) -> Result<(), String> {
    let path = lines
        .iter()
        .find_map(|line| line["url"].as_str())
        .and_then(|url| url.splitn(4, '/').nth(3))
        .map_or_else(|| "/".to_owned(), |path| format!("/{path}"));
    let mut client = match Client::open(gateway.port(), &path, &headers(case)).await {
        Ok(client) => client,
        Err((status, body)) => {
            let expected = lines
                .iter()
                .find(|line| line["http"].is_object())
                .ok_or("the upgrade was refused")?;
            return same(
                "upgrade",
                json!([expected["http"]["status"], expected["http"]["body"]]),
                json!([status, body]),
            );
        }
    };
    if case.name == "ping_before_connect" || case.name == "ws_ping_from_client" {
        client.ping(b"abc").await;
    }
    // The fake's configuration hash differs from the recorded one.
    let mut hash: Option<(String, String)> = None;
    for (index, line) in lines.iter().enumerate() {
        let place = format!("line {index}");
        match line["dir"].as_str() {
            Some("out") => send(&mut client, line, hash.as_ref()).await,
            Some("in") => {
                let received = expect(&mut client, line, &place).await?;
                let of = |frame: &Value| frame["payload"]["hash"].as_str().map(str::to_owned);
                hash = of(&line["frame"]).zip(of(&received)).or(hash);
            }
            _ => {}
        }
    }
    Ok(())
}

async fn send(client: &mut Client, line: &Value, hash: Option<&(String, String)>) {
    if let Some(note) = line["note"].as_str() {
        client.text(described(note)).await;
    } else if let Some(ping) = line["ping"].as_str() {
        client.ping(ping.as_bytes()).await;
    } else if let Some(text) = line["text"].as_str() {
        client.text(text.to_owned()).await;
    } else if let Some(bytes) = line["bytes"].as_u64() {
        let bytes = usize::try_from(bytes).unwrap();
        let padded = line["text_note"]
            .as_str()
            .is_some_and(|note| note.starts_with("connect"));
        client
            .text(if padded {
                padded_connect(bytes)
            } else {
                "x".repeat(bytes)
            })
            .await;
    } else if line["binary"] == true {
        client.binary(line["frame"].to_string()).await;
    } else if line["frame"].is_object() {
        let text = line["frame"].to_string();
        client
            .text(hash.map_or_else(
                || text.clone(),
                |(recorded, own)| text.replace(recorded, own),
            ))
            .await;
    }
}

/// Frames too large to be recorded.
fn described(note: &str) -> String {
    match note {
        "health request with 1 MiB string in params" => {
            let large = "x".repeat(1 << 20);
            json!({"type": "req", "id": "L", "method": "health", "params": {"large": large}})
                .to_string()
        }
        "one text frame of 26214401 bytes" => "x".repeat(26_214_401),
        other => panic!("nobody knows how to send {other:?}"),
    }
}

/// A good connect of exactly that many bytes, for both protocols.
fn padded_connect(bytes: usize) -> String {
    let connect = |padding: usize| {
        json!({"type": "req", "id": "big", "method": "connect", "params": {
            "minProtocol": 3, "maxProtocol": 4,
            "client": {"id": "gateway-client", "version": "0.1.0", "platform": "linux", "mode": "backend"},
            "role": "operator",
            "scopes": ["operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.pairing"],
            "auth": {"token": TOKEN},
            "userAgent": "x".repeat(padding),
        }})
        .to_string()
    };
    connect(bytes - connect(0).len())
}

/// Compares what comes with a recorded line; gives the frame, or null when it is not a frame.
async fn expect(client: &mut Client, line: &Value, place: &str) -> Result<Value, String> {
    let nothing = Ok(Value::Null);
    if let Some(close) = line.get("close") {
        // The recording client going away, or a connection that broke with its process.
        if close["reason"] == "done" || matches!(close["code"].as_u64(), Some(1005 | 1006)) {
            return nothing;
        }
        if matches!(close["reason"].as_str(), Some("bye" | "tick timeout")) {
            client
                .close(
                    close["code"].as_u64().unwrap() as u16,
                    close["reason"].as_str().unwrap(),
                )
                .await;
        }
        let received = client.until_close(PATIENCE).await;
        same(place, masked(close), masked(&received))?;
        return nothing;
    }
    let frame = &line["frame"];
    match frame["type"].as_str() {
        Some("res") => {
            let received = client.response(&frame["id"], PATIENCE).await;
            let Received::Frame(received) = received else {
                return Err(format!(
                    "{place}: {received:?} in place of {}",
                    summary(frame)
                ));
            };
            same(place, summary(frame), summary(&received))?;
            no_unknown_fields(place, frame, &received)?;
            Ok(received)
        }
        // Numbering, not content, is what can be compared: it is checked elsewhere.
        Some("event") if frame["event"] != "connect.challenge" => nothing,
        Some("event") => match client.event("connect.challenge", PATIENCE).await {
            Some(received) => same(place, frame.clone(), received).and(nothing),
            None => Err(format!("{place}: no challenge")),
        },
        _ if line["pong"].is_string() => {
            if client.pong(PATIENCE).await {
                nothing
            } else {
                Err(format!("{place}: no pong"))
            }
        }
        _ => nothing,
    }
}

fn same(place: &str, recorded: Value, received: Value) -> Result<(), String> {
    if recorded == received {
        Ok(())
    } else {
        Err(format!(
            "{place}\n recorded {recorded}\n received {received}"
        ))
    }
}

/// What is compared of an answer.
fn summary(frame: &Value) -> Value {
    if frame["ok"] == true {
        let payload = &frame["payload"];
        if payload["type"] == "hello-ok" {
            let auth = &payload["auth"];
            return json!({
                "hello": payload["protocol"],
                "version": payload["server"]["version"],
                "policy": payload["policy"]["maxPayload"],
                "tick": payload["policy"]["tickIntervalMs"],
                "role": auth["role"],
                "scopes": auth["scopes"],
                "method": auth["method"],
                "deviceToken": auth["deviceToken"].is_string(),
                "admin": payload["snapshot"]["configPath"].is_string(),
            });
        }
        return json!({"ok": true, "id": frame["id"]});
    }
    masked(&json!({"id": frame["id"], "error": frame["error"]}))
}

/// Random ids replaced.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                (
                    key.clone(),
                    if key == "requestId" {
                        json!("<id>")
                    } else {
                        masked(value)
                    },
                )
            })
            .collect(),
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::String(text) => match text.split_once("(requestId: ") {
            Some((before, _)) => json!(format!("{before}(requestId: <id>)")),
            None => value.clone(),
        },
        other => other.clone(),
    }
}

/// The fake may leave out, not invent.
fn no_unknown_fields(place: &str, recorded: &Value, received: &Value) -> Result<(), String> {
    fn walk(path: &str, depth: u8, recorded: &Value, received: &Value) -> Result<(), String> {
        let (Value::Object(recorded), Value::Object(received)) = (recorded, received) else {
            return Ok(());
        };
        for (key, value) in received {
            match recorded.get(key) {
                None if !OPTIONAL.contains(&key.as_str()) => {
                    return Err(format!("{path}: `{key}` is not in the recorded answer"));
                }
                Some(recorded) if depth > 0 => {
                    walk(&format!("{path}.{key}"), depth - 1, recorded, value)?
                }
                _ => {}
            }
        }
        Ok(())
    }
    /// Present in some recorded answers only.
    const OPTIONAL: &[&str] = &["modelRuntime", "eventLoop", "updateSchedule"];
    walk(place, 3, recorded, received)
}
