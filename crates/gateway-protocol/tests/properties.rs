//! Properties that hold for every frame, every byte string and every value.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use gateway_protocol::{
    Challenge, ConnectParams, DeviceAuthPayload, DevicePayloadVersion, ErrorCode, ErrorShape,
    EventFrame, Extra, Frame, HelloOk, Payload, Request, RequestId, Response, Role, Shutdown,
    StateVersion, Tick,
    jsonrpc::{ErrorObject, Id, Message, is_notification, is_request, is_response},
};
use proptest::{collection::vec, option, prelude::*};
use serde_json::{Map, Number, Value, json};

/// Text with everything that JSON has to escape, and characters of every width.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        r#"[a-z.]{0,12}"#,
        vec(
            prop::sample::select(vec![
                '"', '\\', '/', '\n', '\u{0}', '\u{1f}', '\u{7f}', '\u{2028}', 'é', '🦞'
            ]),
            0..12
        )
        .prop_map(|characters| characters.into_iter().collect()),
    ]
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<u64>().prop_map(Number::from),
        any::<i64>().prop_map(Number::from),
        any::<f64>().prop_filter_map("finite", Number::from_f64),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::from),
            vec((text(), inner), 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    value().prop_map(Payload::from)
}

/// Fields that no kind of frame knows.
fn extra() -> impl Strategy<Value = Extra> {
    vec((text(), payload()), 0..3).prop_map(|fields| {
        fields
            .into_iter()
            .map(|(name, value)| (format!("x-{name}"), value))
            .collect()
    })
}

fn request_id() -> impl Strategy<Value = RequestId> {
    prop_oneof![
        text().prop_map(RequestId::Text),
        number().prop_map(RequestId::Number)
    ]
}

fn error_shape() -> impl Strategy<Value = ErrorShape> {
    (
        prop_oneof![
            Just(ErrorCode::Unavailable),
            "[A-Z_]{1,12}".prop_map(ErrorCode::Other)
        ],
        text().prop_filter("an error has a message", |message| !message.is_empty()),
        option::of(payload()),
        option::of(any::<bool>()),
        option::of(any::<u64>()),
        extra(),
    )
        .prop_map(
            |(code, message, details, retryable, retry_after_ms, extra)| ErrorShape {
                code,
                message,
                details,
                retryable,
                retry_after_ms,
                extra,
            },
        )
}

fn rpc_id() -> impl Strategy<Value = Id> {
    prop_oneof![request_id().prop_map(Id::Value), Just(Id::Null)]
}

fn frame() -> impl Strategy<Value = Frame> {
    let request = (
        text(),
        text(),
        option::of(payload()),
        option::of(text()),
        extra(),
    )
        .prop_map(|(id, method, params, traceparent, extra)| {
            Frame::from(Request {
                id,
                method,
                params,
                traceparent,
                extra,
            })
        });
    let success =
        (request_id(), option::of(payload()), extra()).prop_map(|(id, payload, extra)| {
            Frame::from(Response {
                extra,
                ..Response::ok(id, payload)
            })
        });
    let failure = (request_id(), error_shape(), extra()).prop_map(|(id, error, extra)| {
        Frame::from(Response {
            extra,
            ..Response::error(id, error)
        })
    });
    let state_version = (any::<u64>(), any::<u64>())
        .prop_map(|(presence, health)| StateVersion { presence, health });
    let event = (
        text(),
        option::of(payload()),
        option::of(any::<u64>()),
        option::of(state_version),
        extra(),
    )
        .prop_map(|(event, payload, seq, state_version, extra)| {
            Frame::from(EventFrame {
                event,
                payload,
                seq,
                state_version,
                extra,
            })
        });
    let rpc_error = (any::<i64>(), text(), option::of(payload()), extra()).prop_map(
        |(code, message, data, extra)| ErrorObject {
            code,
            message,
            data,
            extra,
        },
    );
    let rpc = prop_oneof![
        (rpc_id(), text(), option::of(payload()))
            .prop_map(|(id, method, params)| Message::request(id, method, params)),
        (text(), option::of(payload()))
            .prop_map(|(method, params)| Message::notification(method, params)),
        (rpc_id(), payload()).prop_map(|(id, result)| Message::success(id, result)),
        (rpc_id(), rpc_error).prop_map(|(id, error)| Message::error(id, error)),
    ]
    .prop_map(Frame::from);
    prop_oneof![request, success, failure, event, rpc]
}

/// Objects full of the names that frames know, with any value behind them.
fn odd_object() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        8 => prop::sample::select(vec![
            "id", "method", "params", "ok", "payload", "error", "event", "seq", "stateVersion", "traceparent",
            "jsonrpc", "result", "extra",
        ]).prop_map(String::from),
        1 => text(),
    ];
    let kind = prop_oneof![
        4 => prop::sample::select(vec!["req", "res", "event", "2.0"]).prop_map(Value::from),
        1 => value(),
    ];
    let field = prop_oneof![
        4 => value(),
        1 => prop::sample::select(vec![
            json!("2.0"), json!("x"), json!(0), json!(true), json!(false), json!(null), json!({}),
            json!({"presence": 1, "health": 2}), json!({"code": "X", "message": "m"}),
            json!({"code": 7, "message": "", "details": null, "retryable": 0, "retryAfterMs": 1.5}),
        ]),
    ];
    (option::of(kind), vec((name, field), 0..7)).prop_map(|(kind, fields)| {
        let mut object: Map<String, Value> = fields.into_iter().collect();
        if let Some(kind) = kind {
            let name = if kind == "2.0" { "jsonrpc" } else { "type" };
            object.insert(name.into(), kind);
        }
        Value::Object(object)
    })
}

fn hash(id: &RequestId) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

proptest! {
    #[test]
    fn frames_round_trip(frame in frame()) {
        let text = frame.encode().unwrap();
        prop_assert_eq!(Frame::decode(text.into()).unwrap(), frame);
    }

    #[test]
    fn our_writer_writes_what_serde_json_reads(text in text()) {
        let frame = Frame::from(EventFrame::new(text.clone(), None));
        let value: Value = serde_json::from_str(&frame.encode().unwrap()).unwrap();
        prop_assert_eq!(value, json!({"type": "event", "event": text}));
    }

    /// Whatever object comes, nothing of it is lost; only what makes a response well formed may be added.
    #[test]
    fn any_object_goes_out_as_it_came(object in odd_object()) {
        let frame = Frame::decode(object.to_string().into()).unwrap();
        let mut again: Value = serde_json::from_str(&frame.encode().unwrap()).unwrap();
        let mut added = Vec::new();
        for name in ["ok", "error", "result"] {
            if object.get(name).is_none() && again.as_object_mut().unwrap().remove(name).is_some() {
                added.push(name);
            }
        }
        match (&frame, added.as_slice()) {
            (_, []) => {}
            (Frame::Response(_), ["ok"] | ["error"] | ["ok", "error"]) => {}
            (Frame::JsonRpc(Message::Response(_)), ["result"]) => {}
            other => prop_assert!(false, "added {other:?}"),
        }
        // The same inside an error object: a message is added when there was none.
        if let (Some(error), Some(again)) = (object.get("error"), again.get_mut("error"))
            && let (Some(error), Some(again)) = (error.as_object(), again.as_object_mut())
        {
            for name in ["message", "code"] {
                if !error.contains_key(name) {
                    again.remove(name);
                }
            }
        }
        prop_assert_eq!(again, object);
    }

    #[test]
    fn jsonrpc_frames_agree_with_the_classifiers(mut object in odd_object()) {
        // The gateway's own frames come first, so they would not count here.
        object.as_object_mut().unwrap().remove("type");
        let frame = Frame::decode(object.to_string().into()).unwrap();
        let expected = (is_response(&object), is_request(&object), is_notification(&object));
        match frame {
            Frame::JsonRpc(Message::Response(_)) => prop_assert!(expected.0),
            Frame::JsonRpc(Message::Request(_)) => prop_assert!(!expected.0 && expected.1),
            Frame::JsonRpc(Message::Notification(_)) => prop_assert!(expected.2),
            _ => prop_assert_eq!(expected, (false, false, false)),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Frame::decode(bytes.clone().into());
        let _ = Payload::from_json(bytes);
    }

    /// Broken in one place, a frame is an error or another frame, never a panic; what is accepted can be written.
    #[test]
    fn damaged_frames_never_panic(frame in frame(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = frame.encode().unwrap().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(frame) = Frame::decode(bytes.clone().into()) {
            frame.encode().unwrap();
        }
        bytes.truncate(at);
        let _ = Frame::decode(bytes.into());
    }

    /// JSON-like texts find more of the decoder than bytes do.
    #[test]
    fn arbitrary_tokens_never_panic(tokens in vec(prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"type\"", "\"res\"", "\"event\"", "\"id\"", "\"ok\"", "true", "null", "-", "1e999",
        "0.5", "\"", "\\", "\\ud83d", "\\u", " ", "é", "\"error\"", "\"jsonrpc\"", "\"2.0\"",
    ]), 0..40)) {
        let text: String = tokens.concat();
        if let Ok(frame) = Frame::decode(text.clone().into()) {
            let again = Frame::decode(frame.encode().unwrap().into()).unwrap();
            prop_assert_eq!(again.encode().unwrap(), frame.encode().unwrap());
        }
        if let Ok(payload) = Payload::from_json(text) {
            payload.to_value();
        }
    }

    /// Half a surrogate pair at any place: the tree is what JavaScript has, with U+FFFD for the half.
    #[test]
    fn mending_keeps_everything_else(units in vec(prop_oneof![any::<u16>(), 0xD800_u16..0xE000], 0..12)) {
        let escaped: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
        let payload = Payload::from_json(format!("[\"{escaped}\",1]")).unwrap();
        let expected = String::from_utf16_lossy(&units);
        prop_assert_eq!(payload.to_value(), json!([expected, 1]));
    }

    #[test]
    fn typed_payloads_never_panic(value in value(), object in odd_object()) {
        for payload in [Payload::from(&value), Payload::from(&object)] {
            let _ = HelloOk::from_payload(&payload);
            let _ = payload.parse::<ConnectParams>();
            let _ = Challenge::from_payload(&payload).map(|challenge| challenge.nonce().is_ok());
            let _ = Shutdown::from_payload(&payload).map(|shutdown| shutdown.restart_expected());
            let _ = Tick::from_payload(&payload);
            let _ = ErrorShape::from_payload(&payload).map(|error| {
                (error.to_string(), error.missing_scope(), error.expected_protocol(), error.pairing_request_id())
            });
        }
    }

    #[test]
    fn open_objects_lose_nothing(
        fields in vec((prop::sample::select(vec![
            "nonce", "ts", "capabilities", "reason", "restartExpectedMs", "added",
        ]), value()), 0..6),
    ) {
        let object = Value::Object(fields.into_iter().map(|(name, value)| (name.into(), value)).collect());
        let payload = Payload::from(&object);
        prop_assert_eq!(Challenge::from_payload(&payload).unwrap().to_payload().to_value(), object.clone());
        prop_assert_eq!(Shutdown::from_payload(&payload).unwrap().to_payload().to_value(), object.clone());
        prop_assert_eq!(Tick::from_payload(&payload).unwrap().to_payload().to_value(), object);
    }

    #[test]
    fn equal_ids_hash_equally(one in request_id(), two in request_id()) {
        prop_assert_eq!(&one, &one.clone());
        prop_assert!(one.matches_text(&one.to_text()));
        if one == two {
            prop_assert_eq!(hash(&one), hash(&two));
        }
        let json = serde_json::to_string(&one).unwrap();
        prop_assert_eq!(serde_json::from_str::<RequestId>(&json).unwrap(), one);
    }

    #[test]
    fn whole_numbers_are_equal_however_written(number in -9_007_199_254_740_992_i64..=9_007_199_254_740_992) {
        let whole = RequestId::from(number);
        let float = RequestId::Number(Number::from_f64(number as f64).unwrap());
        prop_assert_eq!(hash(&whole), hash(&float));
        prop_assert_eq!(whole, float);
    }

    /// Without separators in the values the fields can be read back from the signed text.
    #[test]
    fn signed_texts_hold_every_field(
        device_id in "[0-9a-f]{64}",
        scopes in vec("[a-z.]{1,12}", 0..4),
        signed_at_ms: u64,
        token in option::of("[^|]{0,12}"),
        nonce in "[^|]{1,12}",
        platform in "[A-Za-z]{0,8}",
        layout in 0_usize..3,
    ) {
        let version = [DevicePayloadVersion::V1, DevicePayloadVersion::V2, DevicePayloadVersion::V3][layout];
        let payload = DeviceAuthPayload {
            version,
            device_id: device_id.clone(),
            client_id: "cli".into(),
            client_mode: "ui".into(),
            role: Role::Operator,
            scopes: scopes.clone(),
            signed_at_ms,
            token: token.clone().map(Into::into),
            nonce: Some(nonce.clone()),
            platform: Some(platform.clone()),
            device_family: None,
        };
        prop_assert_eq!(payload.ambiguous_field(), None);
        let text = payload.signing_text();
        let fields: Vec<&str> = text.split('|').collect();
        let mut expected = vec![
            version.as_str().to_owned(), device_id, "cli".into(), "ui".into(), "operator".into(),
            scopes.join(","), signed_at_ms.to_string(), token.unwrap_or_default(),
        ];
        if version != DevicePayloadVersion::V1 {
            expected.push(nonce);
        }
        if version == DevicePayloadVersion::V3 {
            expected.push(platform.to_ascii_lowercase());
            expected.push(String::new());
        }
        prop_assert_eq!(fields, expected);
    }
}
