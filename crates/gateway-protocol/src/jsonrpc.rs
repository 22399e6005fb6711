//! JSON-RPC 2.0 messages, which older gateways and plug-ins send beside the gateway's own frames.
//!
//! # Which message is what
//!
//! Only objects whose `jsonrpc` is exactly the text `2.0` count. Presence means that the key is there, whatever
//! its value.
//!
//! | kind | needs |
//! |---|---|
//! | response | `id`, and `result` or `error` |
//! | request | `id` (even `null`), and `method` as text |
//! | notification | `method` as text, no `id` |
//!
//! An object may be none of them, or satisfy two rows: the upper one wins.

use alloc::string::String;

use bytes::Bytes;
use serde_json::{Number, Value};

use crate::{
    DecodeError, Extra, Payload, RequestId,
    frame::{Envelope, Field},
    json::{self, Fields, ObjectWriter, OpenObject, open_object},
};

/// `jsonrpc` of every message.
pub const VERSION: &str = "2.0";

/// Error numbers: those of JSON-RPC 2.0 (section 5.1) and the gateway's own below -32000.
pub mod error_number {
    /// The text is not JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// The JSON is no request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// No such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The parameters do not fit the method.
    pub const INVALID_PARAMS: i64 = -32602;
    /// The server failed.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// The server failed in a way of its own.
    pub const SERVER_ERROR: i64 = -32000;
    /// Not connected.
    pub const NOT_CONNECTED: i64 = -32001;
    /// Authentication is missing or wrong.
    pub const AUTH_REQUIRED: i64 = -32002;
    /// Authenticated, but not allowed to.
    pub const PERMISSION_DENIED: i64 = -32003;
    /// The thing asked for does not exist.
    pub const NOT_FOUND: i64 = -32004;
    /// It took too long.
    pub const TIMEOUT: i64 = -32005;
    /// Too many requests.
    pub const RATE_LIMITED: i64 = -32006;
}

/// Methods of notifications that a client treats specially.
pub mod method {
    /// A channel's state changed.
    pub const CHANNEL_STATUS_CHANGED: &str = "channel.status_changed";
    /// A chat message arrived.
    pub const CHAT_MESSAGE_RECEIVED: &str = "chat.message_received";
    /// The gateway reports a problem.
    pub const ERROR: &str = "error";
}

/// Text of an error notification that has none.
pub const DEFAULT_ERROR_TEXT: &str = "Gateway error";

fn is_message(value: &Value) -> bool {
    value.get("jsonrpc").and_then(Value::as_str) == Some(VERSION)
}

/// Whether a value is a JSON-RPC request. It may be a response as well.
pub fn is_request(value: &Value) -> bool {
    is_message(value)
        && value.get("method").is_some_and(Value::is_string)
        && value.get("id").is_some()
}

/// Whether a value is a JSON-RPC notification.
pub fn is_notification(value: &Value) -> bool {
    is_message(value)
        && value.get("method").is_some_and(Value::is_string)
        && value.get("id").is_none()
}

/// Whether a value is a JSON-RPC response. It may be a request as well.
pub fn is_response(value: &Value) -> bool {
    is_message(value)
        && value.get("id").is_some()
        && (value.get("result").is_some() || value.get("error").is_some())
}

/// Id of a request or response. Every value is allowed and kept: `0`, `""` and `null` too.
#[derive(Clone, Debug, PartialEq)]
pub enum Id {
    /// Text or a number, as JSON-RPC wants it.
    Value(RequestId),
    /// `null`: the answer to a request whose id could not be read.
    Null,
    /// Something that JSON-RPC does not allow.
    Other(Payload),
}

impl Id {
    fn from_raw(source: &Bytes, raw: &str) -> Self {
        match RequestId::from_raw(raw) {
            Some(id) => Self::Value(id),
            None if raw == "null" => Self::Null,
            None => Self::Other(Payload::slice_of(source, raw)),
        }
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Value(id) => id.write(out),
            Self::Null => out.push_str("null"),
            Self::Other(payload) => out.push_str(payload.as_str()),
        }
    }

    /// Whether a response with this id answers the request with the id `request`.
    ///
    /// Equal kind and value always match, `0`, `""` and `null` included. A text and a number match when they read
    /// the same, because older gateways turn one into the other.
    pub fn matches(&self, request: &Self) -> bool {
        match (self, request) {
            (Self::Value(one), Self::Value(two)) => one == two || one.to_text() == two.to_text(),
            _ => self == request,
        }
    }
}

impl From<RequestId> for Id {
    fn from(id: RequestId) -> Self {
        Self::Value(id)
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self::Value(text.into())
    }
}

impl From<String> for Id {
    fn from(text: String) -> Self {
        Self::Value(text.into())
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self::Value(number.into())
    }
}

impl From<Number> for Id {
    fn from(number: Number) -> Self {
        Self::Value(RequestId::Number(number))
    }
}

/// A call that wants an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Id that the response repeats.
    pub id: Id,
    /// Method name.
    pub method: String,
    /// Arguments.
    pub params: Option<Payload>,
    /// Further fields.
    pub extra: Extra,
}

/// A call that wants no answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// Method name.
    pub method: String,
    /// Arguments.
    pub params: Option<Payload>,
    /// Further fields.
    pub extra: Extra,
}

/// What a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationKind {
    /// [`method::CHANNEL_STATUS_CHANGED`].
    ChannelStatus,
    /// [`method::CHAT_MESSAGE_RECEIVED`].
    ChatMessage,
    /// [`method::ERROR`].
    Error,
    /// Anything else.
    Other,
}

impl Notification {
    /// What the notification is about.
    pub fn kind(&self) -> NotificationKind {
        match self.method.as_str() {
            method::CHANNEL_STATUS_CHANGED => NotificationKind::ChannelStatus,
            method::CHAT_MESSAGE_RECEIVED => NotificationKind::ChatMessage,
            method::ERROR => NotificationKind::Error,
            _ => NotificationKind::Other,
        }
    }

    /// `params.message` of an error notification, or [`DEFAULT_ERROR_TEXT`] when there are no parameters, no
    /// message, or an empty one.
    pub fn error_text(&self) -> String {
        self.params
            .as_ref()
            .and_then(|params| {
                let source = params.clone().into_bytes();
                Fields::read(&source, params.as_str())
                    .ok()?
                    .nonempty_text("message")
            })
            .unwrap_or_else(|| DEFAULT_ERROR_TEXT.into())
    }
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// Id of the request.
    pub id: Id,
    /// Result, or error. A response with both is an error, unless the error is `null`.
    pub outcome: Result<Payload, ErrorObject>,
    /// Further fields.
    pub extra: Extra,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct ErrorObject {
    /// Number; see [`error_number`]. [`error_number::INTERNAL_ERROR`] when the peer sent none.
    pub code: i64,
    /// Text for people; `Unknown error` when the peer sent none.
    pub message: String,
    /// Facts for programs.
    pub data: Option<Payload>,
    /// Further fields.
    pub extra: Extra,
}

impl ErrorObject {
    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
            extra: Extra::new(),
        }
    }
}

impl OpenObject for ErrorObject {
    fn read(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            code: fields
                .take("code", |raw| raw.parse().ok())
                .unwrap_or(error_number::INTERNAL_ERROR),
            message: fields
                .text("message")
                .unwrap_or_else(|| "Unknown error".into()),
            data: fields.payload("data"),
            extra: fields.rest(),
        })
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        object.display("code", self.code);
        object.text("message", &self.message);
        object.payload("data", self.data.as_ref());
    }
}

open_object!(ErrorObject, "the error of a JSON-RPC response");

/// Any JSON-RPC 2.0 message.
///
/// ```
/// use gateway_protocol::{Frame, jsonrpc::Message};
///
/// let request = Message::request(0, "status", None);
/// let text = Frame::from(request.clone()).encode()?;
/// assert_eq!(text, r#"{"jsonrpc":"2.0","id":0,"method":"status"}"#);
/// assert_eq!(Frame::decode(text.into())?, Frame::JsonRpc(request));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A call that wants an answer.
    Request(Request),
    /// The answer.
    Response(Response),
    /// A call that wants no answer.
    Notification(Notification),
}

impl Message {
    /// Builds a request. Whoever needs a fresh id makes one: this crate has no source of randomness.
    pub fn request(id: impl Into<Id>, method: impl Into<String>, params: Option<Payload>) -> Self {
        Self::Request(Request {
            id: id.into(),
            method: method.into(),
            params,
            extra: Extra::new(),
        })
    }

    /// Builds a notification.
    pub fn notification(method: impl Into<String>, params: Option<Payload>) -> Self {
        Self::Notification(Notification {
            method: method.into(),
            params,
            extra: Extra::new(),
        })
    }

    /// Builds a successful response.
    pub fn success(id: impl Into<Id>, result: Payload) -> Self {
        Self::Response(Response {
            id: id.into(),
            outcome: Ok(result),
            extra: Extra::new(),
        })
    }

    /// Builds a failed response.
    pub fn error(id: impl Into<Id>, error: ErrorObject) -> Self {
        Self::Response(Response {
            id: id.into(),
            outcome: Err(error),
            extra: Extra::new(),
        })
    }

    pub(crate) fn from_envelope(envelope: &mut Envelope<'_>, source: &Bytes) -> Option<Self> {
        let version = envelope.raw(Field::JsonRpc).and_then(json::text)?;
        if version != VERSION {
            return None;
        }
        let id = envelope.raw(Field::Id);
        let answered =
            envelope.raw(Field::Result).is_some() || envelope.raw(Field::Error).is_some();
        match id {
            Some(id) if answered => {
                let id = Id::from_raw(source, id);
                envelope.clear(Field::Id);
                Some(Self::response_from(envelope, source, id))
            }
            id => {
                let method = envelope.take_text(Field::Method)?;
                envelope.clear(Field::JsonRpc);
                envelope.clear(Field::Id);
                let params = envelope.take_payload(Field::Params, source);
                let extra = envelope.rest(source);
                Some(match id {
                    Some(id) => Self::Request(Request {
                        id: Id::from_raw(source, id),
                        method,
                        params,
                        extra,
                    }),
                    None => Self::Notification(Notification {
                        method,
                        params,
                        extra,
                    }),
                })
            }
        }
    }

    fn response_from(envelope: &mut Envelope<'_>, source: &Bytes, id: Id) -> Self {
        envelope.clear(Field::JsonRpc);
        let outcome = match envelope.raw(Field::Error) {
            Some(raw) if raw != "null" => Err(match json::read_open(source, raw) {
                Ok(error) => {
                    envelope.clear(Field::Error);
                    error
                }
                // No object: its JSON serves as the message, and the field is kept as it came.
                Err(_) => ErrorObject::new(error_number::INTERNAL_ERROR, raw),
            }),
            _ => Ok(envelope
                .take_payload(Field::Result, source)
                .unwrap_or_default()),
        };
        Self::Response(Response {
            id,
            outcome,
            extra: envelope.rest(source),
        })
    }

    pub(crate) fn write(&self, out: &mut String) {
        let extra = match self {
            Self::Request(request) => &request.extra,
            Self::Response(response) => &response.extra,
            Self::Notification(notification) => &notification.extra,
        };
        let mut object = ObjectWriter::begin(out, extra);
        object.text("jsonrpc", VERSION);
        match self {
            Self::Request(request) => {
                object.with("id", |out| request.id.write(out));
                object.text("method", &request.method);
                object.payload("params", request.params.as_ref());
            }
            Self::Notification(notification) => {
                object.text("method", &notification.method);
                object.payload("params", notification.params.as_ref());
            }
            Self::Response(response) => {
                object.with("id", |out| response.id.write(out));
                match &response.outcome {
                    Ok(result) => object.payload("result", Some(result)),
                    Err(error) => object.object("error", error),
                }
            }
        }
        object.finish();
    }
}
