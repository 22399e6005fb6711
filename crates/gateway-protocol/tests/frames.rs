//! Frames one by one: what each text becomes, and what it is written as.

use bytes::Bytes;
use gateway_protocol::{
    Challenge, DecodeError, ErrorCode, ErrorShape, EventFrame, Extra, Frame, HelloOk, Payload,
    Request, RequestId, Response, ResponseOutcome, Shutdown, StateVersion, Tick,
    error::JsonKind,
    handshake::MissingNonce,
    limits::{DEFAULT_MAX_PAYLOAD, MAX_OBJECT_FIELDS},
};
use serde_json::{Value, json};

fn decode(text: &str) -> Frame {
    Frame::decode(Bytes::copy_from_slice(text.as_bytes()))
        .unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn tree(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn payload(json: &str) -> Payload {
    Payload::from_json(json.to_owned()).unwrap()
}

fn response(text: &str) -> Response {
    match decode(text) {
        Frame::Response(response) => response,
        other => panic!("{text} became {other:?}"),
    }
}

fn event(text: &str) -> EventFrame {
    match decode(text) {
        Frame::Event(event) => event,
        other => panic!("{text} became {other:?}"),
    }
}

/// Texts that come back as they are, whatever kind of frame they are.
#[test]
fn what_comes_in_goes_out() {
    for text in [
        r#"{"type":"req","id":"1","method":"health"}"#,
        r#"{"type":"req","id":"1","method":"health","params":null}"#,
        r#"{"type":"req","id":"1","method":"health","traceparent":"00-a-b-01","expectedProfileId":"p"}"#,
        r#"{"type":"req","id":"1","method":"health","traceparent":7}"#,
        r#"{"type":"req","id":"","method":""}"#,
        r#"{"type":"res","id":"1","ok":true}"#,
        r#"{"type":"res","id":"1","ok":true,"payload":null}"#,
        r#"{"type":"res","id":7,"ok":true,"payload":0}"#,
        r#"{"type":"res","id":-7.5,"ok":true,"payload":""}"#,
        r#"{"type":"res","id":"1","ok":true,"payload":false,"error":null}"#,
        r#"{"type":"res","id":"1","ok":true,"error":{"code":"X","message":"m"}}"#,
        r#"{"type":"res","id":"1","ok":false,"payload":{"a":1},"error":{"code":"X","message":"m","more":[1]}}"#,
        r#"{"type":"res","id":"1","ok":false,"error":"boom"}"#,
        r#"{"type":"res","id":"1","ok":false,"error":null}"#,
        r#"{"type":"res","id":"1","ok":false,"error":{"code":1,"message":{"a":2},"retryable":"no","retryAfterMs":-1}}"#,
        r#"{"type":"res","id":"1","ok":"yes","payload":1}"#,
        r#"{"type":"event","event":"tick","payload":{"ts":1},"seq":3,"stateVersion":{"presence":1,"health":2}}"#,
        r#"{"type":"event","event":"later.invented","recipientProfileId":"p"}"#,
        r#"{"type":"event","event":"agent","payload":null,"seq":null,"stateVersion":null}"#,
        r#"{"type":"event","event":"x","seq":-1,"stateVersion":{"presence":1}}"#,
        r#"{"type":"event","event":"x","seq":1.5,"stateVersion":{"presence":1,"health":2,"added":3}}"#,
        r#"{"type":"event","event":"\u00e9\"\\\n\t\u0001🦞","payload":"\ud83e\udd9e"}"#,
        r#"{"jsonrpc":"2.0","id":0,"method":"m","params":[1]}"#,
        r#"{"jsonrpc":"2.0","id":"","result":0,"more":true}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m","data":{}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":"boom"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":1,"error":null}"#,
        r#"{"jsonrpc":"2.0","id":{"odd":1},"method":"m"}"#,
        r#"{"jsonrpc":"2.0","method":"error"}"#,
        r#"{"type":"hello","id":"q"}"#,
        r#"{"type":"req","id":7,"method":"health"}"#,
        r#"{"type":7}"#,
        r"{}",
    ] {
        let frame = decode(text);
        let again = frame.encode().unwrap();
        assert_eq!(tree(&again), tree(text), "{frame:?}");
        assert_eq!(decode(&again), frame, "{text}");
    }
}

#[test]
fn kinds_of_frames() {
    fn kind(frame: &Frame) -> &'static str {
        match frame {
            Frame::Request(_) => "request",
            Frame::Response(_) => "response",
            Frame::Event(_) => "event",
            Frame::JsonRpc(_) => "jsonrpc",
            Frame::Unknown(_) => "unknown",
        }
    }
    for (text, expected) in [
        (r#"{"type":"req","id":"1","method":"m"}"#, "request"),
        (r#"{"type":"req","id":1,"method":"m"}"#, "unknown"),
        (r#"{"type":"req","method":"m"}"#, "unknown"),
        (r#"{"type":"req","id":"1"}"#, "unknown"),
        (r#"{"type":"req","id":"1","method":7}"#, "unknown"),
        (r#"{"type":"res","id":"1"}"#, "response"),
        (r#"{"type":"res","id":0,"ok":true}"#, "response"),
        (r#"{"type":"res","id":null,"ok":true}"#, "unknown"),
        (r#"{"type":"res","id":["1"],"ok":true}"#, "unknown"),
        (r#"{"type":"res","ok":true}"#, "unknown"),
        (r#"{"type":"event","event":"x"}"#, "event"),
        (r#"{"type":"event","event":null}"#, "unknown"),
        (r#"{"type":"event"}"#, "unknown"),
        (r#"{"type":"\u0065vent","\u0065vent":"x"}"#, "event"),
        (r#"{"type":"EVENT","event":"x"}"#, "unknown"),
        // The last of a repeated field counts.
        (r#"{"type":"req","type":"event","event":"x"}"#, "event"),
        (r#"{"jsonrpc":"2.0","method":"m"}"#, "jsonrpc"),
        (r#"{"jsonrpc":"2.0","id":1}"#, "unknown"),
        (r#"{"jsonrpc":2.0,"method":"m"}"#, "unknown"),
        (r#"{"jsonrpc":"1.0","method":"m"}"#, "unknown"),
        // The gateway's own frames come first.
        (
            r#"{"jsonrpc":"2.0","type":"event","event":"x","method":"m"}"#,
            "event",
        ),
        (
            r#"{"jsonrpc":"2.0","type":"res","id":null,"result":1}"#,
            "jsonrpc",
        ),
        ("  {\"type\":\"event\",\"event\":\"x\"}\r\n", "event"),
    ] {
        assert_eq!(kind(&decode(text)), expected, "{text}");
    }
}

#[test]
fn what_is_no_frame() {
    let decode = |bytes: &[u8]| Frame::decode(Bytes::copy_from_slice(bytes)).unwrap_err();
    for (text, found) in [
        ("null", JsonKind::Null),
        ("true", JsonKind::Boolean),
        ("-1.5", JsonKind::Number),
        ("\"{}\"", JsonKind::Text),
        (" [{}] ", JsonKind::Array),
    ] {
        assert_eq!(
            decode(text.as_bytes()),
            DecodeError::NotAnObject { found },
            "{text}"
        );
    }
    for text in [
        "",
        " ",
        "{",
        "{]",
        "{}}",
        "{} {}",
        "[1,2",
        "nul",
        "hello",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\":01}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\\x\"}",
        "\u{feff}{}",
        "HTTP/1.1 400 Bad Request",
    ] {
        assert!(
            matches!(decode(text.as_bytes()), DecodeError::InvalidJson { .. }),
            "{text}"
        );
    }
    assert_eq!(
        decode(b"{\"a\":\"\xff\"}"),
        DecodeError::NotUtf8 { valid_up_to: 6 }
    );
    // The message never quotes what came.
    let error = decode(br#"{"token":"hush" "#);
    assert!(!error.to_string().contains("hush"), "{error}");
}

#[test]
fn depth_is_no_danger() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!(r#"{{"type":"event","event":"x","payload":{deep}}}"#);
    let payload = event(&text).payload.unwrap();
    assert_eq!(payload.as_str(), deep);
    assert!(matches!(
        payload.parse::<Value>(),
        Err(DecodeError::InvalidJson { .. })
    ));
    assert_eq!(payload.to_value(), Value::String(deep));
}

#[test]
fn fields_are_bounded() {
    let object = |count: usize| {
        let fields: Vec<String> = (0..count).map(|index| format!("\"f{index}\":0")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let widest = decode(&object(MAX_OBJECT_FIELDS));
    assert!(matches!(widest, Frame::Unknown(_)));
    assert_eq!(
        Frame::decode(object(MAX_OBJECT_FIELDS + 1).into()),
        Err(DecodeError::TooManyFields {
            limit: MAX_OBJECT_FIELDS
        })
    );
}

#[test]
fn payloads_share_the_memory_of_the_frame() {
    let bytes = Bytes::from(format!(
        r#"{{"type":"res","id":"1","ok":true,"payload":{{"text":"{}"}},"added":[1]}}"#,
        "x".repeat(1000)
    ));
    let within = |payload: &Payload| {
        let range = bytes.as_ptr_range();
        range.contains(&payload.as_bytes().as_ptr())
    };
    let Frame::Response(response) = Frame::decode(bytes.clone()).unwrap() else {
        panic!("not a response");
    };
    assert!(within(response.extra.get("added").unwrap()));
    let ResponseOutcome::Ok(Some(payload)) = response.outcome else {
        panic!("not a payload");
    };
    assert!(within(&payload));
    assert_eq!(format!("{payload:?}"), "Payload(1011 bytes)");
}

#[test]
fn success_and_failure() {
    for (rest, failed) in [
        (r#""ok":true"#, false),
        (r#""ok":false"#, true),
        (r#""ok":null"#, false),
        (r#""ok":0"#, false),
        (r#""payload":1"#, false),
        (r#""ok":true,"error":null"#, false),
        (r#""ok":true,"error":false"#, false),
        (r#""ok":true,"error":0"#, false),
        (r#""ok":true,"error":-0.0"#, false),
        (r#""ok":true,"error":"""#, false),
        (r#""ok":true,"error":"x""#, true),
        (r#""ok":true,"error":1"#, true),
        (r#""ok":true,"error":[]"#, true),
        (r#""ok":true,"error":{}"#, true),
        (r#""error":true"#, true),
    ] {
        let response = response(&format!(r#"{{"type":"res","id":"1",{rest}}}"#));
        assert_eq!(response.outcome.into_result().is_err(), failed, "{rest}");
    }
}

#[test]
fn value_of_a_success() {
    for falsy in ["0", "false", "\"\""] {
        let response = response(&format!(
            r#"{{"type":"res","id":"1","ok":true,"payload":{falsy}}}"#
        ));
        assert_eq!(response.payload_or_frame().unwrap().as_str(), falsy);
    }
    for nothing in ["", r#","payload":null"#] {
        let text = format!(r#"{{"type":"res","id":"1","ok":true{nothing}}}"#);
        assert_eq!(
            response(&text).payload_or_frame().unwrap().to_value(),
            tree(&text)
        );
    }
    assert_eq!(
        response(r#"{"type":"res","id":"1","ok":false}"#).payload_or_frame(),
        None
    );
}

#[test]
fn text_of_a_failure() {
    for (error, code, message) in [
        (
            r#"{"code":"UNAVAILABLE","message":"busy"}"#,
            "UNAVAILABLE",
            "busy",
        ),
        (r#"{"code":"NEW_CODE","message":"m"}"#, "NEW_CODE", "m"),
        (r#"{"message":"m"}"#, "", "m"),
        (r#"{"code":"X"}"#, "X", r#"{"code":"X"}"#),
        (
            r#"{"code":"X","message":""}"#,
            "X",
            r#"{"code":"X","message":""}"#,
        ),
        (r#"{"message":7}"#, "", r#"{"message":7}"#),
        ("{}", "", "{}"),
        (r#""boom""#, "", r#""boom""#),
        ("[1]", "", "[1]"),
        ("17", "", "17"),
        ("null", "", "Unknown error"),
        ("0", "", "Unknown error"),
    ] {
        let response = response(&format!(
            r#"{{"type":"res","id":"1","ok":false,"error":{error}}}"#
        ));
        let shape = response.outcome.into_result().unwrap_err();
        assert_eq!(shape.code.as_str(), code, "{error}");
        assert_eq!(shape.message, message, "{error}");
    }
    let absent = response(r#"{"type":"res","id":"1","ok":false}"#);
    assert_eq!(
        absent.outcome.into_result().unwrap_err().message,
        "Unknown error"
    );
}

#[test]
fn odd_optional_fields_are_empty_and_kept() {
    let odd = event(r#"{"type":"event","event":"x","seq":"7","stateVersion":[1,2],"payload":1}"#);
    assert_eq!((odd.seq, odd.state_version), (None, None));
    assert_eq!(odd.extra.get("seq").unwrap().as_str(), "\"7\"");
    assert_eq!(odd.extra.get("stateVersion").unwrap().as_str(), "[1,2]");

    // A counter more than we know: the two known ones are read, and nothing is lost.
    let wide =
        event(r#"{"type":"event","event":"x","stateVersion":{"presence":1,"health":2,"added":3}}"#);
    assert_eq!(
        wide.state_version,
        Some(StateVersion {
            presence: 1,
            health: 2
        })
    );
    assert!(wide.extra.contains("stateVersion"));

    // u64 is the whole range of sequence numbers.
    let last = event(&format!(
        r#"{{"type":"event","event":"x","seq":{}}}"#,
        u64::MAX
    ));
    assert_eq!(last.seq, Some(u64::MAX));
    let beyond = event(r#"{"type":"event","event":"x","seq":18446744073709551616}"#);
    assert_eq!(beyond.seq, None);
}

#[test]
fn half_of_an_emoji() {
    // JavaScript cuts strings between the two halves of a character and writes the half as an escape.
    let text = r#"{"type":"event","event":"ch\ud83eat","payload":{"delta":"a\ud83e","n":1e999,"m":-1e999,"ok":"\ud83e\udd9e \udd9e \\ud83e"}}"#;
    let event = event(text);
    assert_eq!(event.event, "ch\u{FFFD}at");
    let payload = event.payload.unwrap();
    assert!(payload.parse::<Value>().is_err());
    let expected = json!({
        "delta": "a\u{FFFD}", "n": f64::MAX, "m": f64::MIN, "ok": "🦞 \u{FFFD} \\ud83e",
    });
    assert_eq!(payload.to_value(), expected);
    #[derive(serde::Deserialize)]
    struct Delta {
        delta: String,
    }
    assert_eq!(payload.parse_lossy::<Delta>().unwrap().delta, "a\u{FFFD}");
    // A text that is merely of another shape is not mended into something else.
    assert!(matches!(
        payload.parse_lossy::<Vec<u8>>(),
        Err(DecodeError::Mismatch { .. })
    ));
}

#[test]
fn ids() {
    let number = |text: &str| RequestId::Number(text.parse().unwrap());
    for (one, two, equal) in [
        (RequestId::from("7"), RequestId::from("7"), true),
        (RequestId::from("7"), RequestId::from(7_u64), false),
        (RequestId::from(7_u64), RequestId::from(7_u64), true),
        (RequestId::from(7_u64), number("7.0"), true),
        (RequestId::from(0_u64), number("-0.0"), true),
        (RequestId::from(0_u64), RequestId::from(""), false),
        (RequestId::from(-1_i64), number("-1.0"), true),
        (RequestId::from(-1_i64), RequestId::from(u64::MAX), false),
        (number("1.5"), number("1.5"), true),
        (number("1.5"), number("1"), false),
        (number("1e300"), number("1e300"), true),
        (
            number("18446744073709551615"),
            number("18446744073709551614"),
            false,
        ),
    ] {
        assert_eq!(one == two, equal, "{one:?} {two:?}");
        assert_eq!(two == one, equal, "{two:?} {one:?}");
    }
    assert!(RequestId::from(7_u64).matches_text("7"));
    assert!(RequestId::from(0_u64).matches_text("0"));
    assert!(!RequestId::from(0_u64).matches_text(""));
    assert!(RequestId::from("").matches_text(""));
    assert!(!RequestId::from("07").matches_text("7"));
    for json in ["\"a\"", "\"\"", "0", "-3", "1.5", "\"\\u00e9\""] {
        let id: RequestId = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_value(&id).unwrap(), tree(json));
    }
    for json in ["null", "true", "[]", "{}"] {
        assert!(serde_json::from_str::<RequestId>(json).is_err(), "{json}");
    }
}

#[test]
fn extra_fields() {
    let mut extra = Extra::from(vec![("a".into(), payload("1")), ("a".into(), payload("2"))]);
    assert_eq!(extra.len(), 1);
    assert_eq!(extra.get("a"), Some(&payload("2")));
    extra.insert("b", Payload::null());
    assert_eq!(
        extra.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(extra.remove("a"), Some(payload("2")));
    assert_eq!(extra.remove("a"), None);
    extra.remove("b");
    assert_eq!(extra, Extra::new());
    // A request with an extra field is written with it; the field takes the place of a typed one.
    let mut request = Request::new("1", "m", Some(payload("{}")));
    request.extra.insert("params", payload("[1]"));
    request.extra.insert("expectedProfileId", payload("\"p\""));
    assert_eq!(
        Frame::from(request).encode().unwrap(),
        r#"{"type":"req","id":"1","method":"m","params":[1],"expectedProfileId":"p"}"#
    );
}

#[test]
fn payloads() {
    for (json, kept) in [
        ("1", "1"),
        (" {} \n", "{}"),
        ("\t[1 , 2]", "[1 , 2]"),
        ("\"é\"", "\"é\""),
    ] {
        assert_eq!(payload(json).as_str(), kept);
    }
    for json in ["", " ", "{", "1 2", "nil", "\u{feff}1"] {
        assert!(Payload::from_json(json.to_owned()).is_err(), "{json:?}");
    }
    assert!(matches!(
        Payload::from_json(vec![b'"', 0xC3, b'"']),
        Err(DecodeError::NotUtf8 { valid_up_to: 1 })
    ));
    assert_eq!(Payload::default(), Payload::null());
    assert!(Payload::null().is_null());
    assert_eq!(
        Payload::from(json!({"a": [null]})).as_str(),
        r#"{"a":[null]}"#
    );
    let payload = payload(r#"{"a":[1,{"b":"é"}]}"#);
    // Through serde as raw JSON, inside another value, from text and from a tree.
    let nested = serde_json::to_string(&vec![&payload]).unwrap();
    assert_eq!(nested, r#"[{"a":[1,{"b":"é"}]}]"#);
    assert_eq!(
        serde_json::from_str::<Vec<Payload>>(&nested).unwrap(),
        vec![payload.clone()]
    );
    assert_eq!(serde_json::to_value(&payload).unwrap(), payload.to_value());
    assert_eq!(
        serde_json::from_value::<Payload>(payload.to_value()).unwrap(),
        payload
    );
    // JSON has no map with such keys.
    let keys = std::collections::BTreeMap::from([(vec![1_u8], 1)]);
    let error = Payload::from_serialize(&keys).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot be written as JSON: key must be a string"
    );
}

#[test]
fn challenges() {
    for (json, nonce) in [
        (r#"{"nonce":"n","ts":1}"#, Ok("n")),
        (r#"{"nonce":"n"}"#, Ok("n")),
        (r#"{"nonce":"","ts":1}"#, Err(MissingNonce)),
        (r#"{"nonce":null}"#, Err(MissingNonce)),
        (r#"{"nonce":7}"#, Err(MissingNonce)),
        (
            r#"{"nonce":["n"],"ts":"x","capabilities":"y"}"#,
            Err(MissingNonce),
        ),
        (r#"{"capabilities":[1,"a"],"ts":-1}"#, Err(MissingNonce)),
        (r#"{"capabilities":[]}"#, Err(MissingNonce)),
        ("{}", Err(MissingNonce)),
    ] {
        let challenge = Challenge::from_payload(&payload(json)).unwrap();
        assert_eq!(challenge.nonce(), nonce, "{json}");
        assert_eq!(challenge.to_payload().to_value(), tree(json), "{json}");
    }
    let mixed = Challenge::from_payload(&payload(r#"{"capabilities":[1,"a"]}"#)).unwrap();
    assert_eq!(mixed.capabilities, ["a"]);
    for json in ["null", "[]", "\"n\"", "7"] {
        assert!(matches!(
            Challenge::from_payload(&payload(json)),
            Err(DecodeError::NotAnObject { .. })
        ));
    }
    assert_eq!(
        MissingNonce.to_string(),
        "Gateway connect.challenge missing nonce"
    );
    assert_eq!(
        Challenge::new("n", 5).to_payload().as_str(),
        r#"{"nonce":"n","ts":5}"#
    );
}

#[test]
fn shutdowns() {
    for (json, reason, delay) in [
        (r#"{"reason":"gateway stopping"}"#, "gateway stopping", None),
        (
            r#"{"reason":"gateway stopping","restartExpectedMs":null}"#,
            "gateway stopping",
            None,
        ),
        (
            r#"{"reason":"r","restartExpectedMs":1500}"#,
            "r",
            Some(1500),
        ),
        (r#"{"reason":"r","restartExpectedMs":0}"#, "r", Some(0)),
        (
            r#"{"reason":"r","restartExpectedMs":1500.5}"#,
            "r",
            Some(1500),
        ),
        (r#"{"reason":"r","restartExpectedMs":-1}"#, "r", Some(0)),
        (
            r#"{"reason":"r","restartExpectedMs":1e300}"#,
            "r",
            Some(u64::MAX),
        ),
        (r#"{"reason":"r","restartExpectedMs":"1500"}"#, "r", None),
        (r#"{"reason":7,"restartExpectedMs":true}"#, "", None),
        (r#"{"restartExpectedMs":{}}"#, "", None),
        (r#"{"reason":"","added":1}"#, "", None),
        ("{}", "", None),
    ] {
        let shutdown = Shutdown::from_payload(&payload(json)).unwrap();
        assert_eq!(shutdown.reason, reason, "{json}");
        assert_eq!(shutdown.restart_expected_ms, delay, "{json}");
        assert_eq!(
            shutdown.restart_expected().map(|delay| delay.as_millis()),
            delay.map(u128::from),
            "{json}"
        );
        assert_eq!(shutdown.to_payload().to_value(), tree(json), "{json}");
    }
    assert_eq!(
        Shutdown::new("gateway restarting", Some(1500))
            .to_payload()
            .as_str(),
        r#"{"reason":"gateway restarting","restartExpectedMs":1500}"#
    );
}

#[test]
fn ticks() {
    assert_eq!(Tick::new(5).to_payload().as_str(), r#"{"ts":5}"#);
    for (json, ts) in [
        (r#"{"ts":5}"#, Some(5)),
        (r#"{"ts":"5"}"#, None),
        (r#"{"ts":null,"more":1}"#, None),
        ("{}", None),
    ] {
        let tick = Tick::from_payload(&payload(json)).unwrap();
        assert_eq!(tick.ts, ts, "{json}");
        assert_eq!(tick.to_payload().to_value(), tree(json), "{json}");
    }
    assert!(Tick::from_payload(&Payload::null()).is_err());
}

#[test]
fn smallest_hello() {
    let hello = HelloOk::from_payload(&payload(r#"{"type":"hello-ok","protocol":5}"#)).unwrap();
    assert_eq!(hello.protocol, 5);
    assert_eq!(hello.policy.max_payload, DEFAULT_MAX_PAYLOAD);
    assert_eq!(hello.policy.tick_interval().as_millis(), 30_000);
    assert_eq!(hello.auth, None);
    assert!(hello.features.methods.is_empty());
    for (json, field) in [
        ("{}", "type"),
        (r#"{"protocol":3}"#, "type"),
        (r#"{"type":"hello","protocol":3}"#, "type"),
        (r#"{"type":"hello-ok"}"#, "protocol"),
        (r#"{"type":"hello-ok","protocol":"3"}"#, "protocol"),
        (r#"{"type":"hello-ok","protocol":-3}"#, "protocol"),
        (r#"{"type":"hello-ok","protocol":4294967296}"#, "protocol"),
    ] {
        match HelloOk::from_payload(&payload(json)) {
            Err(DecodeError::Field { field: found, .. }) => assert_eq!(found, field, "{json}"),
            other => panic!("{json} gave {other:?}"),
        }
    }
}

#[test]
fn hello_with_everything_wrong_keeps_everything() {
    let json = json!({
        "type": "hello-ok", "protocol": 4, "added": [1],
        "server": {"version": 7, "connId": null, "bootId": {}, "buildId": false, "more": 1},
        "features": {"methods": "all", "events": ["tick", 7], "capabilities": {}},
        "snapshot": {
            "presence": 1, "health": null, "stateVersion": {"presence": "x"}, "uptimeMs": 1.5,
            "configPath": 1, "stateDir": [], "authMode": {}, "sessionDefaults": "d", "suspension": {"phase": "p"},
        },
        "auth": {"deviceToken": 1, "role": 2, "scopes": {"a": 1}, "issuedAtMs": "x", "method": []},
        "policy": {"maxPayload": "big", "maxBufferedBytes": -1, "tickIntervalMs": null, "attachments": {}},
    });
    let hello: HelloOk = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(hello.to_payload().to_value(), json);
    assert_eq!(hello.features.events, ["tick"]);
    assert_eq!(hello.snapshot.uptime_ms, None);
    assert_eq!(hello.policy.max_payload, DEFAULT_MAX_PAYLOAD);
    // Parts that are no objects at all.
    let json = json!({
        "type": "hello-ok", "protocol": 4, "server": 1, "features": [], "snapshot": null, "auth": "x", "policy": true,
    });
    let hello: HelloOk = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(hello.to_payload().to_value(), json);
    assert_eq!(hello.auth, None);
    // A tick interval of zero would make a client spin.
    let json = json!({"type": "hello-ok", "protocol": 4, "policy": {"tickIntervalMs": 0}});
    let hello: HelloOk = serde_json::from_value(json).unwrap();
    assert_eq!(hello.policy.tick_interval().as_millis(), 30_000);
}

#[test]
fn facts_in_errors() {
    let error = |json: Value| ErrorShape::from_payload(&Payload::from(json)).unwrap();
    let refused = error(json!({
        "code": "NOT_PAIRED", "message": "pairing required",
        "details": {"code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": "r-1"},
    }));
    assert_eq!(refused.pairing_request_id().as_deref(), Some("r-1"));
    assert_eq!(
        refused.to_string(),
        "NOT_PAIRED: pairing required (PAIRING_REQUIRED; reason not-paired)"
    );

    let starting = error(json!({
        "code": "UNAVAILABLE", "message": "gateway starting", "retryable": true, "retryAfterMs": 500,
        "details": {"reason": "startup-sidecars"},
    }));
    assert!(starting.is_retryable());
    assert_eq!(starting.retry_after().unwrap().as_millis(), 500);
    assert_eq!(
        starting.to_string(),
        "UNAVAILABLE: gateway starting (reason startup-sidecars; retry after 500 ms)"
    );
    let built = ErrorShape::new(ErrorCode::Unavailable, "gateway starting")
        .with_details(Payload::from(json!({"reason": "startup-sidecars"})))
        .with_retry_after_ms(500);
    assert_eq!(built, starting);

    let old = error(json!({"code": "INVALID_REQUEST", "message": "missing scope: operator.read"}));
    assert_eq!(old.missing_scope().as_deref(), Some("operator.read"));
    let new = error(json!({
        "code": "FORBIDDEN", "message": "no", "details": {"code": "MISSING_SCOPE", "missingScope": "operator.admin"},
    }));
    assert_eq!(new.missing_scope().as_deref(), Some("operator.admin"));

    let token = error(json!({
        "code": "INVALID_REQUEST", "message": "unauthorized",
        "details": {"authReason": "token_mismatch", "canRetryWithDeviceToken": true, "recommendedNextStep": "s"},
    }));
    assert_eq!(token.auth_reason().as_deref(), Some("token_mismatch"));
    assert_eq!(token.recommended_next_step().as_deref(), Some("s"));
    assert!(token.can_retry_with_device_token());
    // An id of something else is no pairing request.
    let other =
        error(json!({"code": "UNAVAILABLE", "message": "m", "details": {"requestId": "r"}}));
    assert_eq!(other.pairing_request_id(), None);

    for details in [
        json!(null),
        json!(7),
        json!("text"),
        json!([{"code": "X"}]),
        json!({}),
        json!({"code": 7, "reason": [], "missingScope": {}, "expectedProtocol": "4", "requestId": 1}),
        json!({"expectedProtocol": 99_999_999_999_u64, "canRetryWithDeviceToken": "yes"}),
    ] {
        let error = error(json!({"code": "NOT_PAIRED", "message": "m", "details": details}));
        assert_eq!(error.details_code(), None, "{details}");
        assert_eq!(error.details_reason(), None, "{details}");
        assert_eq!(error.missing_scope(), None, "{details}");
        assert_eq!(error.expected_protocol(), None, "{details}");
        assert_eq!(error.pairing_request_id(), None, "{details}");
        assert!(!error.can_retry_with_device_token(), "{details}");
        assert_eq!(error.to_string(), "NOT_PAIRED: m", "{details}");
    }
    let matched = error(json!({"code": "X", "message": "m", "details": {"expectedProtocol": 4}}));
    assert_eq!(matched.expected_protocol(), Some(4));
    assert_eq!(ErrorCode::Other("FORBIDDEN".into()), ErrorCode::Forbidden);
    assert_eq!(
        "APPROVAL_NOT_FOUND".parse(),
        Ok(ErrorCode::ApprovalNotFound)
    );
}
