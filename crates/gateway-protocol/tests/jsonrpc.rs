//! JSON-RPC 2.0: what counts as which message, and what the builders write.

use gateway_protocol::{
    Frame, Payload, RequestId,
    jsonrpc::{
        self, DEFAULT_ERROR_TEXT, ErrorObject, Id, Message, NotificationKind, error_number,
        is_notification, is_request, is_response, method,
    },
};
use serde_json::{Value, json};

fn decode(value: &Value) -> Frame {
    Frame::decode(value.to_string().into()).unwrap()
}

fn encode(message: Message) -> Value {
    serde_json::from_str(&Frame::from(message).encode().unwrap()).unwrap()
}

/// Value, then whether it is a request, a notification, a response.
#[test]
fn classifiers() {
    for (value, request, notification, response) in [
        (
            json!({"jsonrpc": "2.0", "id": "a", "method": "m"}),
            true,
            false,
            false,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 0, "method": "m"}),
            true,
            false,
            false,
        ),
        (
            json!({"jsonrpc": "2.0", "id": "", "method": "m"}),
            true,
            false,
            false,
        ),
        (
            json!({"jsonrpc": "2.0", "id": null, "method": "m"}),
            true,
            false,
            false,
        ),
        (
            json!({"jsonrpc": "2.0", "id": [1], "method": "m"}),
            true,
            false,
            false,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": ""}),
            true,
            false,
            false,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": 7}),
            false,
            false,
            false,
        ),
        (json!({"jsonrpc": "2.0", "method": "m"}), false, true, false),
        (
            json!({"jsonrpc": "2.0", "method": "m", "params": null}),
            false,
            true,
            false,
        ),
        (
            json!({"jsonrpc": "2.0", "method": null}),
            false,
            false,
            false,
        ),
        (
            json!({"jsonrpc": "2.0", "method": "m", "result": 1}),
            false,
            true,
            false,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 0, "result": 1}),
            false,
            false,
            true,
        ),
        (
            json!({"jsonrpc": "2.0", "id": "", "result": null}),
            false,
            false,
            true,
        ),
        (
            json!({"jsonrpc": "2.0", "id": null, "error": {}}),
            false,
            false,
            true,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "error": null}),
            false,
            false,
            true,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "result": 1, "error": {}}),
            false,
            false,
            true,
        ),
        (
            json!({"jsonrpc": "2.0", "id": 1, "method": "m", "result": 1}),
            true,
            false,
            true,
        ),
        (json!({"jsonrpc": "2.0", "result": 1}), false, false, false),
        (json!({"jsonrpc": "2.0", "id": 1}), false, false, false),
        (json!({"jsonrpc": "2.0"}), false, false, false),
        (
            json!({"jsonrpc": 2.0, "id": 1, "result": 1}),
            false,
            false,
            false,
        ),
        (
            json!({"jsonrpc": "1.0", "id": 1, "method": "m"}),
            false,
            false,
            false,
        ),
        (
            json!({"jsonrpc": "2.0 ", "method": "m"}),
            false,
            false,
            false,
        ),
        (json!({"id": 1, "result": 1}), false, false, false),
        (json!({}), false, false, false),
        (json!(null), false, false, false),
        (json!("2.0"), false, false, false),
        (
            json!([{"jsonrpc": "2.0", "method": "m"}]),
            false,
            false,
            false,
        ),
    ] {
        assert_eq!(is_request(&value), request, "request: {value}");
        assert_eq!(
            is_notification(&value),
            notification,
            "notification: {value}"
        );
        assert_eq!(is_response(&value), response, "response: {value}");
        if value.is_object() {
            match decode(&value) {
                Frame::JsonRpc(Message::Response(_)) => assert!(response, "{value}"),
                Frame::JsonRpc(Message::Request(_)) => assert!(request && !response, "{value}"),
                Frame::JsonRpc(Message::Notification(_)) => assert!(notification, "{value}"),
                Frame::Unknown(_) => assert!(!request && !notification && !response, "{value}"),
                other => panic!("{value} became {other:?}"),
            }
        }
    }
}

#[test]
fn builders() {
    let params = Payload::from_json(r#"{"a":1}"#).unwrap();
    for (message, expected) in [
        (
            Message::request("r-1", "status", Some(params.clone())),
            json!({"jsonrpc": "2.0", "id": "r-1", "method": "status", "params": {"a": 1}}),
        ),
        (
            Message::request(0, "status", None),
            json!({"jsonrpc": "2.0", "id": 0, "method": "status"}),
        ),
        (
            Message::request("", "status", None),
            json!({"jsonrpc": "2.0", "id": "", "method": "status"}),
        ),
        (
            Message::request(Id::Null, "status", None),
            json!({"jsonrpc": "2.0", "id": null, "method": "status"}),
        ),
        (
            Message::notification("error", None),
            json!({"jsonrpc": "2.0", "method": "error"}),
        ),
        (
            Message::success(0, Payload::null()),
            json!({"jsonrpc": "2.0", "id": 0, "result": null}),
        ),
        (
            Message::success("a", params.clone()),
            json!({"jsonrpc": "2.0", "id": "a", "result": {"a": 1}}),
        ),
        (
            Message::error(
                Id::Null,
                ErrorObject::new(error_number::PARSE_ERROR, "not JSON"),
            ),
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "not JSON"}}),
        ),
        (
            Message::error(
                7,
                ErrorObject {
                    data: Some(params),
                    ..ErrorObject::new(error_number::RATE_LIMITED, "slow down")
                },
            ),
            json!({"jsonrpc": "2.0", "id": 7, "error": {"code": -32006, "message": "slow down", "data": {"a": 1}}}),
        ),
    ] {
        assert_eq!(encode(message.clone()), expected);
        assert_eq!(decode(&expected), Frame::JsonRpc(message), "{expected}");
    }
}

#[test]
fn answers_find_their_requests() {
    let number = |text: &str| Id::from(text.parse::<serde_json::Number>().unwrap());
    for (answer, request, matches) in [
        (Id::from("a"), Id::from("a"), true),
        (Id::from("a"), Id::from("b"), false),
        (Id::from(0), Id::from(0), true),
        (Id::from(0), Id::from("0"), true),
        (Id::from("0"), Id::from(0), true),
        (number("7.0"), Id::from(7), true),
        (Id::from(""), Id::from(""), true),
        (Id::from(""), Id::from(0), false),
        (Id::Null, Id::Null, true),
        (Id::Null, Id::from("null"), false),
        (Id::Null, Id::from(""), false),
        (Id::Null, Id::from(0), false),
        (
            Id::Other(Payload::from_json("[1]").unwrap()),
            Id::from(1),
            false,
        ),
        (Id::Value(RequestId::from(12_u64)), Id::from("12"), true),
    ] {
        assert_eq!(answer.matches(&request), matches, "{answer:?} {request:?}");
        assert_eq!(request.matches(&answer), matches, "{request:?} {answer:?}");
    }
    // The same through the wire.
    for id in [json!(0), json!(""), json!(null), json!("x")] {
        let Frame::JsonRpc(Message::Request(request)) =
            decode(&json!({"jsonrpc": "2.0", "id": id, "method": "m"}))
        else {
            panic!("no request with id {id}");
        };
        let Frame::JsonRpc(Message::Response(response)) =
            decode(&json!({"jsonrpc": "2.0", "id": id, "result": 1}))
        else {
            panic!("no response with id {id}");
        };
        assert!(response.id.matches(&request.id), "{id}");
    }
}

#[test]
fn outcomes() {
    let outcome = |value: Value| match decode(&value) {
        Frame::JsonRpc(Message::Response(response)) => response.outcome,
        other => panic!("{value} became {other:?}"),
    };
    let result = |text: &str| Ok(Payload::from_json(text.to_owned()).unwrap());
    assert_eq!(
        outcome(json!({"jsonrpc": "2.0", "id": 1, "result": 0})),
        result("0")
    );
    assert_eq!(
        outcome(json!({"jsonrpc": "2.0", "id": 1, "result": null})),
        result("null")
    );
    assert_eq!(
        outcome(json!({"jsonrpc": "2.0", "id": 1, "error": null})),
        result("null")
    );
    assert_eq!(
        outcome(json!({"jsonrpc": "2.0", "id": 1, "result": 1, "error": null})),
        result("1")
    );
    for (error, code, message) in [
        (
            json!({"code": -32601, "message": "no such method"}),
            -32601,
            "no such method",
        ),
        (
            json!({"code": "x", "message": 7}),
            error_number::INTERNAL_ERROR,
            "Unknown error",
        ),
        (
            json!({"code": 1.5}),
            error_number::INTERNAL_ERROR,
            "Unknown error",
        ),
        (json!({}), error_number::INTERNAL_ERROR, "Unknown error"),
        (json!("boom"), error_number::INTERNAL_ERROR, "\"boom\""),
        (json!(false), error_number::INTERNAL_ERROR, "false"),
    ] {
        let found =
            outcome(json!({"jsonrpc": "2.0", "id": 1, "result": 1, "error": error})).unwrap_err();
        assert_eq!(found.code, code, "{error}");
        assert_eq!(found.message, message, "{error}");
        assert_eq!(found.to_string(), format!("{message} ({code})"));
    }
}

#[test]
fn notifications() {
    let notification = |value: Value| match decode(&value) {
        Frame::JsonRpc(Message::Notification(notification)) => notification,
        other => panic!("{value} became {other:?}"),
    };
    for (name, kind) in [
        (
            method::CHANNEL_STATUS_CHANGED,
            NotificationKind::ChannelStatus,
        ),
        (method::CHAT_MESSAGE_RECEIVED, NotificationKind::ChatMessage),
        (method::ERROR, NotificationKind::Error),
        ("anything.else", NotificationKind::Other),
        ("", NotificationKind::Other),
    ] {
        assert_eq!(
            notification(json!({"jsonrpc": "2.0", "method": name})).kind(),
            kind,
            "{name}"
        );
    }
    // An error notification may come without anything in it.
    assert_eq!(
        notification(json!({"jsonrpc": "2.0", "method": "error"})).error_text(),
        DEFAULT_ERROR_TEXT
    );
    for (params, text) in [
        (json!({"message": "boom"}), "boom"),
        (json!({"message": ""}), DEFAULT_ERROR_TEXT),
        (json!({"message": 7}), DEFAULT_ERROR_TEXT),
        (json!({}), DEFAULT_ERROR_TEXT),
        (json!(null), DEFAULT_ERROR_TEXT),
        (json!(["boom"]), DEFAULT_ERROR_TEXT),
        (json!("boom"), DEFAULT_ERROR_TEXT),
    ] {
        let notification =
            notification(json!({"jsonrpc": "2.0", "method": "error", "params": params}));
        assert_eq!(notification.error_text(), text, "{params}");
    }
}

#[test]
fn error_numbers() {
    assert_eq!(
        [
            error_number::PARSE_ERROR,
            error_number::INVALID_REQUEST,
            error_number::METHOD_NOT_FOUND,
            error_number::INVALID_PARAMS,
            error_number::INTERNAL_ERROR,
            error_number::SERVER_ERROR,
        ],
        [-32700, -32600, -32601, -32602, -32603, -32000]
    );
    assert_eq!(
        [
            error_number::NOT_CONNECTED,
            error_number::AUTH_REQUIRED,
            error_number::PERMISSION_DENIED,
            error_number::NOT_FOUND,
            error_number::TIMEOUT,
            error_number::RATE_LIMITED,
        ],
        [-32001, -32002, -32003, -32004, -32005, -32006]
    );
    assert_eq!(jsonrpc::VERSION, "2.0");
}
