//! Errors: the ones a gateway sends, and the ones of reading and writing.

use alloc::{
    borrow::Cow,
    format,
    string::{String, ToString as _},
};
use core::{convert::Infallible, fmt, str::FromStr, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    Extra, Payload,
    json::{self, Fields, ObjectWriter, OpenObject, open_object},
    scan::Unexpected,
};

/// `details.code` of refused handshakes and calls, more exact than [`ErrorCode`].
pub mod details {
    /// The shared token is wrong.
    pub const AUTH_TOKEN_MISMATCH: &str = "AUTH_TOKEN_MISMATCH";
    /// A device connected without a token.
    pub const AUTH_TOKEN_MISSING: &str = "AUTH_TOKEN_MISSING";
    /// The gateway itself has no token to compare with.
    pub const AUTH_TOKEN_NOT_CONFIGURED: &str = "AUTH_TOKEN_NOT_CONFIGURED";
    /// The password is wrong.
    pub const AUTH_PASSWORD_MISMATCH: &str = "AUTH_PASSWORD_MISMATCH";
    /// The gateway wants a password and got none.
    pub const AUTH_PASSWORD_MISSING: &str = "AUTH_PASSWORD_MISSING";
    /// Too many wrong attempts.
    pub const AUTH_RATE_LIMITED: &str = "AUTH_RATE_LIMITED";
    /// The device token is not, or no longer, the one of this device.
    pub const AUTH_DEVICE_TOKEN_MISMATCH: &str = "AUTH_DEVICE_TOKEN_MISMATCH";
    /// The device token does not cover the scopes asked for.
    pub const AUTH_SCOPE_MISMATCH: &str = "AUTH_SCOPE_MISMATCH";
    /// Somebody has to approve this device first.
    pub const PAIRING_REQUIRED: &str = "PAIRING_REQUIRED";
    /// Neither a shared secret nor a device was given.
    pub const DEVICE_IDENTITY_REQUIRED: &str = "DEVICE_IDENTITY_REQUIRED";
    /// The signature does not fit the signed text.
    pub const DEVICE_AUTH_SIGNATURE_INVALID: &str = "DEVICE_AUTH_SIGNATURE_INVALID";
    /// `signedAt` is more than two minutes off.
    pub const DEVICE_AUTH_SIGNATURE_EXPIRED: &str = "DEVICE_AUTH_SIGNATURE_EXPIRED";
    /// The nonce is not the one of the challenge.
    pub const DEVICE_AUTH_NONCE_MISMATCH: &str = "DEVICE_AUTH_NONCE_MISMATCH";
    /// The device id is not the hash of the public key.
    pub const DEVICE_AUTH_DEVICE_ID_MISMATCH: &str = "DEVICE_AUTH_DEVICE_ID_MISMATCH";
    /// No protocol version fits.
    pub const PROTOCOL_MISMATCH: &str = "PROTOCOL_MISMATCH";
    /// The client's `Origin` header is not allowed.
    pub const CONTROL_UI_ORIGIN_NOT_ALLOWED: &str = "CONTROL_UI_ORIGIN_NOT_ALLOWED";
    /// The connection lacks a scope that the method needs.
    pub const MISSING_SCOPE: &str = "MISSING_SCOPE";
}

/// `code` of an error response.
///
/// A name that is not in the list is [`Other`](Self::Other). Comparison is by name, so `Other("FORBIDDEN")`
/// equals [`Forbidden`](Self::Forbidden).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The request, its parameters, the credentials or the device proof are not acceptable.
    InvalidRequest,
    /// Starting, draining or overloaded: the same request may succeed later.
    Unavailable,
    /// The device is unknown, or may not do this yet.
    NotPaired,
    /// A scope is missing (protocol 4; older gateways say [`InvalidRequest`](Self::InvalidRequest)).
    Forbidden,
    /// The approval asked for does not exist or has expired.
    ApprovalNotFound,
    /// A channel is not linked. No longer sent.
    NotLinked,
    /// An agent run took too long. No longer sent.
    AgentTimeout,
    /// Any other code; empty when the error has none.
    Other(String),
}

impl ErrorCode {
    /// The code as it stands on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::Unavailable => "UNAVAILABLE",
            Self::NotPaired => "NOT_PAIRED",
            Self::Forbidden => "FORBIDDEN",
            Self::ApprovalNotFound => "APPROVAL_NOT_FOUND",
            Self::NotLinked => "NOT_LINKED",
            Self::AgentTimeout => "AGENT_TIMEOUT",
            Self::Other(code) => code,
        }
    }
}

impl From<&str> for ErrorCode {
    fn from(code: &str) -> Self {
        match code {
            "INVALID_REQUEST" => Self::InvalidRequest,
            "UNAVAILABLE" => Self::Unavailable,
            "NOT_PAIRED" => Self::NotPaired,
            "FORBIDDEN" => Self::Forbidden,
            "APPROVAL_NOT_FOUND" => Self::ApprovalNotFound,
            "NOT_LINKED" => Self::NotLinked,
            "AGENT_TIMEOUT" => Self::AgentTimeout,
            other => Self::Other(other.into()),
        }
    }
}

impl FromStr for ErrorCode {
    type Err = Infallible;

    fn from_str(code: &str) -> Result<Self, Infallible> {
        Ok(Self::from(code))
    }
}

impl PartialEq for ErrorCode {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ErrorCode {}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = Cow::<str>::deserialize(deserializer)?;
        Ok(Self::from(&*code))
    }
}

/// Why a gateway refused something.
///
/// ```
/// use gateway_protocol::{ErrorCode, ErrorShape, Payload};
///
/// let error = ErrorShape::from_payload(&Payload::from_json(
///     r#"{"code":"FORBIDDEN","message":"missing scope: operator.read",
///         "details":{"code":"MISSING_SCOPE","missingScope":"operator.read"}}"#,
/// )?)?;
/// assert_eq!(error.code, ErrorCode::Forbidden);
/// assert_eq!(error.missing_scope().as_deref(), Some("operator.read"));
/// assert_eq!(error.to_string(), "FORBIDDEN: missing scope: operator.read (MISSING_SCOPE)");
/// # Ok::<(), gateway_protocol::DecodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorShape {
    /// What kind of refusal it is.
    pub code: ErrorCode,
    /// Text for people. Where the gateway sent none, the JSON of the error, or `Unknown error`.
    pub message: String,
    /// Facts for programs; usually an object with a `code` of its own.
    pub details: Option<Payload>,
    /// Whether the same request may succeed later.
    pub retryable: Option<bool>,
    /// Milliseconds to wait before the next attempt.
    pub retry_after_ms: Option<u64>,
    /// Further fields.
    pub extra: Extra,
}

/// Text for an error that says nothing about itself.
const UNKNOWN_ERROR: &str = "Unknown error";

impl ErrorShape {
    /// An error with code and message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: None,
            retryable: None,
            retry_after_ms: None,
            extra: Extra::new(),
        }
    }

    /// The same error with details.
    #[must_use]
    pub fn with_details(mut self, details: Payload) -> Self {
        self.details = Some(details);
        self
    }

    /// The same error, marked as worth a retry after so many milliseconds.
    #[must_use]
    pub fn with_retry_after_ms(mut self, milliseconds: u64) -> Self {
        self.retryable = Some(true);
        self.retry_after_ms = Some(milliseconds);
        self
    }

    /// Reads the `error` of a failed response, whatever it is. The flag tells whether the value holds everything
    /// that was there.
    pub(crate) fn from_raw(source: &Bytes, raw: Option<&str>) -> (Self, bool) {
        let Some(raw) = raw else {
            return (
                Self::new(ErrorCode::Other(String::new()), UNKNOWN_ERROR),
                true,
            );
        };
        if let Ok(error) = json::read_open(source, raw) {
            return (error, true);
        }
        let message = if json::truthy(raw) {
            raw
        } else {
            UNKNOWN_ERROR
        };
        (Self::new(ErrorCode::Other(String::new()), message), false)
    }

    /// How long the gateway asks to wait before the next attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_ms.map(Duration::from_millis)
    }

    /// Whether the gateway itself calls the failure temporary.
    pub fn is_retryable(&self) -> bool {
        self.retryable == Some(true)
    }

    /// `details.code`, for example one of [`details`](mod@details).
    pub fn details_code(&self) -> Option<String> {
        self.details_text("code")
    }

    /// `details.reason`, for example `startup-sidecars`, `gateway-restarting` or `not-paired`.
    pub fn details_reason(&self) -> Option<String> {
        self.details_text("reason")
    }

    /// `details.authReason`, for example `token_mismatch`.
    pub fn auth_reason(&self) -> Option<String> {
        self.details_text("authReason")
    }

    /// `details.recommendedNextStep` (protocol 4).
    pub fn recommended_next_step(&self) -> Option<String> {
        self.details_text("recommendedNextStep")
    }

    /// Whether a stored device token is worth a try after a refused shared one (protocol 4).
    pub fn can_retry_with_device_token(&self) -> bool {
        self.details_field("canRetryWithDeviceToken", json::boolean) == Some(true)
    }

    /// The scope that the connection lacks: from the details (protocol 4) or from the message (protocol 3).
    pub fn missing_scope(&self) -> Option<String> {
        self.details_text("missingScope").or_else(|| {
            let scope = self.message.strip_prefix("missing scope: ")?.trim();
            (!scope.is_empty()).then(|| scope.into())
        })
    }

    /// The protocol version that the gateway speaks, when it refused the one offered.
    pub fn expected_protocol(&self) -> Option<u32> {
        self.details_field("expectedProtocol", json::unsigned)
            .and_then(|version| version.try_into().ok())
    }

    /// Id of the pairing request that somebody has to approve.
    pub fn pairing_request_id(&self) -> Option<String> {
        let pairing = self.code == ErrorCode::NotPaired
            || self.details_code().as_deref() == Some(details::PAIRING_REQUIRED);
        if pairing {
            self.details_text("requestId")
        } else {
            None
        }
    }

    /// A text among the details; an empty one counts as none.
    pub fn details_text(&self, name: &str) -> Option<String> {
        self.details_field(name, |raw| {
            json::text(raw)
                .filter(|text| !text.is_empty())
                .map(Cow::into_owned)
        })
    }

    fn details_field<T>(&self, name: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let details = self.details.as_ref()?;
        let mut found = None;
        json::read_object(details.as_str(), |field, raw| {
            if field == name {
                found = Some(raw);
            }
        })
        .ok()?;
        found.and_then(read)
    }
}

impl OpenObject for ErrorShape {
    fn read(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        let code = fields
            .nonempty_text("code")
            .map_or(ErrorCode::Other(String::new()), |code| {
                ErrorCode::from(&*code)
            });
        let message = fields.nonempty_text("message");
        let details = fields.payload("details");
        let retryable = fields.boolean("retryable");
        let retry_after_ms = fields.unsigned("retryAfterMs");
        let mut error = Self {
            code,
            message: String::new(),
            details,
            retryable,
            retry_after_ms,
            extra: fields.rest(),
        };
        error.message = match message {
            Some(message) => message,
            // Clients show the JSON of an error without a message. Written before `message` is set, it does
            // not contain itself.
            None => {
                let mut text = String::new();
                json::write_open(&error, &mut text);
                text
            }
        };
        Ok(error)
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        if !self.code.as_str().is_empty() {
            object.text("code", self.code.as_str());
        }
        if !self.message.is_empty() {
            object.text("message", &self.message);
        }
        object.payload("details", self.details.as_ref());
        object.optional_display("retryable", self.retryable);
        object.optional_display("retryAfterMs", self.retry_after_ms);
    }
}

open_object!(ErrorShape, "the error of a failed response");

impl fmt::Display for ErrorShape {
    /// Code and message, then whatever of `details.code`, `details.reason` and the retry advice is there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.code.as_str().is_empty() {
            write!(f, "{}: ", self.code)?;
        }
        f.write_str(&self.message)?;
        let mut open = false;
        let mut separate = |f: &mut fmt::Formatter<'_>| {
            let mark = if open { "; " } else { " (" };
            open = true;
            f.write_str(mark)
        };
        if let Some(code) = self.details_code() {
            separate(f)?;
            f.write_str(&code)?;
        }
        if let Some(reason) = self.details_reason() {
            separate(f)?;
            write!(f, "reason {reason}")?;
        }
        if let Some(delay) = self.retry_after_ms {
            separate(f)?;
            write!(f, "retry after {delay} ms")?;
        } else if self.is_retryable() {
            separate(f)?;
            f.write_str("may be retried")?;
        }
        if open { f.write_str(")") } else { Ok(()) }
    }
}

impl core::error::Error for ErrorShape {}

/// Kinds of JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JsonKind {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A number.
    Number,
    /// A string.
    Text,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl JsonKind {
    /// The kind that a JSON text announces with its first character; `None` when no value begins like that.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let first = text
            .bytes()
            .find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))?;
        match first {
            b'n' => Some(Self::Null),
            b't' | b'f' => Some(Self::Boolean),
            b'-' | b'0'..=b'9' => Some(Self::Number),
            b'"' => Some(Self::Text),
            b'[' => Some(Self::Array),
            b'{' => Some(Self::Object),
            _ => None,
        }
    }
}

impl fmt::Display for JsonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::Text => "text",
            Self::Array => "an array",
            Self::Object => "an object",
        })
    }
}

/// Why bytes could not be read.
///
/// All of them mean that the peer sent something that is not the protocol; none of them is a reason to close
/// the connection, as gateways themselves skip what they cannot read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not UTF-8.
    #[error("not UTF-8 after {valid_up_to} bytes; the peer does not send JSON text")]
    NotUtf8 {
        /// Bytes before the first wrong one.
        valid_up_to: usize,
    },
    /// The text is not JSON.
    #[error(
        "not JSON: {detail}; the peer does not speak the gateway protocol, or the message was cut"
    )]
    InvalidJson {
        /// What is wrong and where, without quoting the text.
        detail: String,
    },
    /// The text is JSON but not an object.
    #[error("expected a JSON object, found {found}")]
    NotAnObject {
        /// What it is instead.
        found: JsonKind,
    },
    /// An object has more fields than any message of the protocol.
    #[error("a JSON object has more than {limit} fields")]
    TooManyFields {
        /// The most fields an object may have.
        limit: usize,
    },
    /// A field that makes the object what it is lacks or holds something else.
    #[error("{what}: field `{field}` must be {expected}")]
    Field {
        /// What was being read.
        what: &'static str,
        /// Name of the field.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// The JSON does not have the shape of the type asked for.
    #[error("JSON of another shape than expected: {detail}")]
    Mismatch {
        /// What differs and where. It may quote the value.
        detail: String,
    },
}

impl From<Unexpected> for DecodeError {
    fn from(unexpected: Unexpected) -> Self {
        Self::InvalidJson {
            detail: format!("expected {} at byte {}", unexpected.expected, unexpected.at),
        }
    }
}

impl DecodeError {
    pub(crate) fn from_json(error: &serde_json::Error) -> Self {
        let detail = error.to_string();
        if error.is_data() {
            Self::Mismatch { detail }
        } else {
            Self::InvalidJson { detail }
        }
    }
}

/// Why a value could not be written as JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be written as JSON: {detail}")]
pub struct EncodeError {
    detail: String,
}

impl EncodeError {
    pub(crate) fn new(error: &serde_json::Error) -> Self {
        Self {
            detail: error.to_string(),
        }
    }
}
