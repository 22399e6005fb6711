//! Conversations with real gateways, replayed through the types of this crate.

use std::io::Write as _;

use bytes::Bytes;
use gateway_protocol::{
    Challenge, CloseCode, ConnectParams, DecodeError, DeviceAuthPayload, DevicePayloadVersion,
    ErrorShape, Frame, HelloOk, Payload, ResponseOutcome, Shutdown, Tick, event,
    handshake::CONNECT_METHOD,
};
use serde_json::Value;

mod support;

use support::{Case, cases, tree};

fn decode(case: &Case, text: &str) -> Frame {
    Frame::decode(Bytes::copy_from_slice(text.as_bytes()))
        .unwrap_or_else(|error| panic!("{}: {error}: {text}", case.title()))
}

/// Every inbound frame of every conversation, with its tree.
fn for_each_inbound(mut check: impl FnMut(&Case, Frame, Value)) {
    for case in &cases() {
        for text in case.frames("in") {
            check(case, decode(case, text), tree(text));
        }
    }
}

#[test]
fn every_inbound_frame_survives_decoding_and_encoding() {
    let cases = cases();
    let mut frames = 0;
    for case in &cases {
        for text in case.frames("in") {
            let title = case.title();
            let frame = decode(case, text);
            let json = tree(text);
            match (&frame, json["type"].as_str()) {
                (Frame::Response(response), Some("res")) => {
                    assert_eq!(
                        serde_json::to_value(&response.id).unwrap(),
                        json["id"],
                        "{title}"
                    );
                    let ok = matches!(response.outcome, ResponseOutcome::Ok(_));
                    assert_eq!(ok, json["ok"], "{title}: {text}");
                }
                (Frame::Event(event), Some("event")) => {
                    assert_eq!(event.event, json["event"], "{title}");
                    assert_eq!(event.seq, json["seq"].as_u64(), "{title}");
                    assert_eq!(
                        event.state_version.is_some(),
                        json.get("stateVersion").is_some(),
                        "{title}"
                    );
                }
                _ => panic!("{title}: wrong kind of frame for {text}"),
            }
            let again = frame.encode().unwrap();
            assert_eq!(tree(&again), json, "{title}");
            assert_eq!(decode(case, &again), frame, "{title}");
            frames += 1;
        }
    }
    // Past the test harness, which would swallow the line: the number is part of the result.
    let mut stdout = std::io::stdout();
    writeln!(
        stdout,
        "transcripts: {frames} inbound frames decoded and re-encoded ({} files)",
        support::VERSIONS.len()
    )
    .unwrap();
    assert_eq!(cases.len(), 377, "conversations");
    assert!(frames >= 1186, "only {frames} inbound frames");
}

#[test]
fn every_hello_parses_and_serialises_to_equal_json() {
    let mut hellos = 0;
    for_each_inbound(|case, frame, json| {
        let title = case.title();
        let Frame::Response(response) = frame else {
            return;
        };
        let ResponseOutcome::Ok(Some(payload)) = response.outcome else {
            return;
        };
        if json["payload"]["type"] != "hello-ok" {
            assert!(HelloOk::from_payload(&payload).is_err(), "{title}");
            return;
        }
        hellos += 1;
        let hello =
            HelloOk::from_payload(&payload).unwrap_or_else(|error| panic!("{title}: {error}"));
        let json = &json["payload"];
        assert_eq!(hello.to_payload().to_value(), *json, "{title}");
        // The same through serde, from text and from a tree.
        assert_eq!(payload.parse::<HelloOk>().unwrap(), hello, "{title}");
        assert_eq!(serde_json::to_value(&hello).unwrap(), *json, "{title}");
        let from_tree: HelloOk = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(from_tree.policy, hello.policy, "{title}");

        assert_eq!(hello.protocol, case.protocol, "{title}");
        assert!(!hello.server.version.is_empty(), "{title}");
        assert!(!hello.server.conn_id.is_empty(), "{title}");
        assert_eq!(
            hello.server.boot_id.is_some(),
            case.protocol == 4,
            "{title}"
        );
        assert!(hello.has_method("health"), "{title}");
        assert!(
            hello
                .features
                .events
                .iter()
                .any(|name| name == event::name::TICK),
            "{title}"
        );
        assert_eq!(
            hello.policy.max_payload,
            gateway_protocol::limits::DEFAULT_MAX_PAYLOAD,
            "{title}"
        );
        assert_eq!(hello.policy.tick_interval().as_secs(), 30, "{title}");
        assert!(hello.snapshot.uptime_ms.is_some(), "{title}");
        assert!(hello.snapshot.state_version.is_some(), "{title}");
        // Whatever a typed field took is not in the list of unknown ones.
        for (name, extra) in [
            ("server", &hello.server.extra),
            ("features", &hello.features.extra),
            ("policy", &hello.policy.extra),
            ("snapshot", &hello.snapshot.extra),
        ] {
            for known in [
                "version",
                "methods",
                "maxPayload",
                "stateVersion",
                "uptimeMs",
                "presence",
            ] {
                assert!(!extra.contains(known), "{title}: {name}.{known}");
            }
        }
        match &hello.auth {
            Some(auth) => {
                assert_eq!(
                    auth.device_token.as_ref().map(|token| token.expose()),
                    json["auth"]["deviceToken"].as_str(),
                    "{title}"
                );
                if let Some(token) = &auth.device_token {
                    assert!(
                        !format!("{hello:?}").contains(token.expose()),
                        "{title}: token printed"
                    );
                }
            }
            None => assert!(json.get("auth").is_none(), "{title}"),
        }
    });
    assert!(hellos >= 259, "only {hellos} hellos");
}

#[test]
fn every_error_parses_and_serialises_to_equal_json() {
    let mut errors = 0;
    let mut with_details = 0;
    for_each_inbound(|case, frame, json| {
        let title = case.title();
        let Frame::Response(response) = frame else {
            return;
        };
        let ResponseOutcome::Err(error) = response.outcome else {
            return;
        };
        errors += 1;
        let json = &json["error"];
        assert_eq!(error.code.as_str(), json["code"], "{title}");
        assert_eq!(error.message, json["message"], "{title}");
        assert_eq!(error.retryable, json["retryable"].as_bool(), "{title}");
        assert_eq!(
            error.retry_after_ms,
            json["retryAfterMs"].as_u64(),
            "{title}"
        );
        assert!(error.extra.is_empty(), "{title}: {:?}", error.extra);
        assert!(
            !matches!(error.code, gateway_protocol::ErrorCode::Other(_)),
            "{title}: {}",
            error.code
        );
        assert_eq!(error.to_payload().to_value(), *json, "{title}");
        let again: ErrorShape = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(again.to_string(), error.to_string(), "{title}");
        assert!(error.to_string().contains(&error.message), "{title}");
        if json.get("details").is_some() {
            with_details += 1;
            let text = |name: &str| json["details"][name].as_str().map(String::from);
            assert_eq!(error.details_code(), text("code"), "{title}");
            assert_eq!(error.details_reason(), text("reason"), "{title}");
            assert_eq!(error.auth_reason(), text("authReason"), "{title}");
            assert_eq!(
                error.expected_protocol().map(u64::from),
                json["details"]["expectedProtocol"].as_u64(),
                "{title}"
            );
            if text("code").as_deref() == Some("PAIRING_REQUIRED") {
                assert_eq!(error.pairing_request_id(), text("requestId"), "{title}");
                assert!(error.pairing_request_id().is_some(), "{title}");
            }
        }
        if error.message.starts_with("missing scope: ") {
            assert!(
                error
                    .missing_scope()
                    .is_some_and(|scope| scope.starts_with("operator.")),
                "{title}: {error}"
            );
        }
        if case.name.starts_with("proto_") && error.message.contains("protocol mismatch") {
            assert_eq!(error.expected_protocol(), Some(case.protocol), "{title}");
        }
    });
    assert!(errors >= 148, "only {errors} errors");
    assert!(
        with_details >= 70,
        "only {with_details} errors with details"
    );
}

#[test]
fn typed_events_hold_what_was_sent() {
    let (mut challenges, mut ticks, mut stops, mut restarts) = (0, 0, 0, 0);
    for_each_inbound(|case, frame, json| {
        let title = case.title();
        let Frame::Event(frame) = frame else {
            return;
        };
        let json = &json["payload"];
        match frame.event.as_str() {
            event::name::CONNECT_CHALLENGE => {
                challenges += 1;
                let challenge = Challenge::from_payload(&frame.payload.unwrap()).unwrap();
                assert_eq!(
                    challenge.nonce(),
                    Ok(json["nonce"].as_str().unwrap()),
                    "{title}"
                );
                assert_eq!(challenge.ts, json["ts"].as_u64(), "{title}");
                assert_eq!(
                    challenge.capabilities.is_empty(),
                    case.protocol == 3,
                    "{title}"
                );
                assert!(challenge.extra.is_empty(), "{title}");
                assert_eq!(challenge.to_payload().to_value(), *json, "{title}");
            }
            event::name::TICK => {
                ticks += 1;
                let tick = Tick::from_payload(&frame.payload.unwrap()).unwrap();
                assert_eq!(tick.ts, json["ts"].as_u64(), "{title}");
                assert_eq!(tick.to_payload().to_value(), *json, "{title}");
            }
            event::name::SHUTDOWN => {
                let shutdown = Shutdown::from_payload(&frame.payload.unwrap()).unwrap();
                assert_eq!(shutdown.reason, json["reason"], "{title}");
                match shutdown.restart_expected() {
                    Some(delay) => {
                        restarts += 1;
                        assert_eq!(shutdown.reason, "gateway restarting", "{title}");
                        assert_eq!(delay.as_millis(), 1500, "{title}");
                    }
                    None => {
                        stops += 1;
                        assert_eq!(shutdown.reason, "gateway stopping", "{title}");
                    }
                }
                assert_eq!(shutdown.to_payload().to_value(), *json, "{title}");
            }
            _ => {}
        }
    });
    assert!(challenges >= 374, "only {challenges} challenges");
    assert!(ticks >= 12, "only {ticks} ticks");
    assert!(
        stops >= 8 && restarts >= 8,
        "{stops} stops, {restarts} restarts"
    );
}

/// Messages that the recorded client got wrong on purpose, so that they are no `Frame::Request`: a number as id, no
/// id, and a `type` that does not exist.
const NO_REQUESTS: [&str; 3] = [
    "rpc_frame_numeric_id",
    "rpc_frame_without_id",
    "rpc_frame_unknown_type",
];

#[test]
fn outbound_messages_are_read_as_a_gateway_would() {
    let (mut requests, mut others, mut texts) = (0, 0, 0);
    for case in &cases() {
        let title = case.title();
        for text in case.frames("out") {
            let frame = decode(case, text);
            assert_eq!(tree(&frame.encode().unwrap()), tree(text), "{title}");
            match frame {
                Frame::Request(_) => requests += 1,
                Frame::Unknown(_) if NO_REQUESTS.contains(&&*case.name) => others += 1,
                frame => panic!("{title}: {frame:?} for {text}"),
            }
        }
        for line in case.lines.iter().filter(|line| line.dir == "out") {
            let Some(text) = &line.text else { continue };
            texts += 1;
            let frame = Frame::decode(text.clone().into());
            match case.name.as_str() {
                "first_empty_text" | "first_malformed_json" | "rpc_malformed_json_after_auth" => {
                    assert!(
                        matches!(frame, Err(DecodeError::InvalidJson { .. })),
                        "{title}: {frame:?}"
                    );
                }
                "first_json_array" | "first_json_null" => {
                    assert!(
                        matches!(frame, Err(DecodeError::NotAnObject { .. })),
                        "{title}: {frame:?}"
                    );
                }
                "first_json_not_request" | "first_req_without_id" => {
                    assert!(matches!(frame, Ok(Frame::Unknown(_))), "{title}: {frame:?}");
                }
                "first_not_connect" | "first_connect_empty_params" => {
                    assert!(matches!(frame, Ok(Frame::Request(_))), "{title}: {frame:?}");
                }
                name => panic!(
                    "{title}: no expectation for the text of {name}: {text:?} gave {frame:?}"
                ),
            }
        }
    }
    assert!(requests >= 513, "only {requests} requests");
    assert!(others >= 6, "only {others} broken requests");
    assert!(texts >= 18, "only {texts} texts");
}

/// Every outbound `connect` with parameters, as the gateway got it.
fn for_each_connect(mut check: impl FnMut(&Case, Payload)) {
    for case in &cases() {
        for text in case.frames("out") {
            if let Frame::Request(request) = decode(case, text)
                && request.method == CONNECT_METHOD
            {
                let params = request
                    .params
                    .unwrap_or_else(|| panic!("{}: no parameters", case.title()));
                check(case, params);
            }
        }
    }
}

#[test]
fn connect_parameters_round_trip() {
    let (mut exact, mut other) = (0, 0);
    for_each_connect(|case, params| {
        let title = case.title();
        let mut expected = params.to_value();
        match case.name.as_str() {
            // The gateway refuses a proof without a nonce, and so does the type.
            "device_nonce_missing" => {
                let error = params.parse::<ConnectParams>().unwrap_err().to_string();
                assert!(error.contains("missing field `nonce`"), "{title}: {error}");
                other += 1;
                return;
            }
            // The gateway refuses unknown fields here, so the type has no room for them.
            "first_connect_extra_property" => {
                expected.as_object_mut().unwrap().remove("bogus").unwrap();
                other += 1;
            }
            // What the gateway assumes when they are absent is written out.
            "hello_role_omitted" => {
                expected["role"] = "operator".into();
                other += 1;
            }
            "hello_scopes_omitted" => {
                expected["scopes"] = Value::Array(Vec::new());
                other += 1;
            }
            _ => exact += 1,
        }
        let parsed = params
            .parse::<ConnectParams>()
            .unwrap_or_else(|error| panic!("{title}: {error}"));
        assert_eq!(
            Payload::from_serialize(&parsed).unwrap().to_value(),
            expected,
            "{title}"
        );
        if let Some(token) = parsed.auth.as_ref().and_then(|auth| auth.signed_token())
            && !token.is_empty()
        {
            assert!(
                !format!("{parsed:?}").contains(token.expose()),
                "{title}: token printed"
            );
        }
    });
    assert!(exact >= 329, "only {exact} connects");
    assert_eq!(other, 8, "connects with something to except");
}

/// Cases whose client signed something else than it sent, to see it refused, and what differs.
fn signed_otherwise(case: &str, payload: &mut DeviceAuthPayload, signed: &str) -> bool {
    let signed_field = |index: usize| signed.split('|').nth(index).unwrap().to_owned();
    match case {
        // The id sent is not the hash of the key.
        "device_id_mismatch" => payload.device_id = signed_field(1),
        // The field holds another nonce than the challenge; the text was signed with the right one.
        "device_nonce_mismatch_field_only" => payload.nonce = Some(signed_field(8)),
        "device_signed_without_token" => payload.token = None,
        "device_signed_wrong_scopes" => {
            payload.scopes = signed_field(5).split(',').map(Into::into).collect();
        }
        _ => return false,
    }
    true
}

#[test]
fn signed_texts_are_rebuilt() {
    let (mut rebuilt, mut otherwise) = (0, 0);
    for case in &cases() {
        let title = case.title();
        let Some(signed) = case.lines.iter().find_map(|line| line.signed.as_ref()) else {
            continue;
        };
        // No proof without a nonce can be read, so nothing can be rebuilt from it.
        if case.name == "device_nonce_missing" {
            continue;
        }
        let signed = signed.payload.as_str();
        let version = [DevicePayloadVersion::V2, DevicePayloadVersion::V3]
            .into_iter()
            .find(|version| signed.starts_with(version.as_str()))
            .unwrap_or_else(|| panic!("{title}: {signed}"));
        // The head of a conversation with two sockets holds one of the two texts.
        let mut texts = Vec::new();
        for text in case.frames("out") {
            let Frame::Request(request) = decode(case, text) else {
                continue;
            };
            if request.method != CONNECT_METHOD {
                continue;
            }
            let params: ConnectParams = request.params.unwrap().parse().unwrap();
            let Some(device) = params.device.clone() else {
                continue;
            };
            let mut payload = DeviceAuthPayload::for_connect(
                version,
                device.id,
                &params,
                device.signed_at,
                device.nonce,
            );
            assert_eq!(payload.ambiguous_field(), None, "{title}");
            let as_sent = payload.signing_text();
            if signed_otherwise(&case.name, &mut payload, signed) {
                assert_ne!(as_sent, signed, "{title}: signed what was sent after all");
                otherwise += 1;
            }
            texts.push(payload.signing_text());
        }
        assert!(
            texts.iter().any(|text| text == signed),
            "{title}: {signed} is not in {texts:#?}"
        );
        rebuilt += 1;
    }
    assert!(rebuilt >= 72, "only {rebuilt} signed texts");
    assert_eq!(otherwise, 8, "texts signed otherwise than sent");
}

#[test]
fn every_close_code_has_a_name() {
    let mut closes = 0;
    for case in &cases() {
        for close in case.lines.iter().filter_map(|line| line.close.as_ref()) {
            closes += 1;
            assert!(
                CloseCode(close.code).name().is_some(),
                "{}: {}",
                case.title(),
                close.code
            );
        }
    }
    assert!(closes >= 364, "only {closes} closes");
}
