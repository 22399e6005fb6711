//! WebSocket close codes, with what a gateway means by them.

use core::fmt;

/// Code of a WebSocket close frame, or one that a client makes up when none arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

/// Declares the constants together with their names and descriptions, so that no table can fall behind.
macro_rules! close_codes {
    ($($constant:ident = $code:literal, $name:literal, $description:literal;)*) => {
        impl CloseCode {
            $(
                #[doc = concat!("`", stringify!($code), "`: ", $description, ".")]
                pub const $constant: Self = Self($code);
            )*

            /// All codes that have a name.
            pub const NAMED: &'static [Self] = &[$(Self::$constant),*];

            /// Short name, `None` for a code that this crate does not know.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($name),)*
                    _ => None,
                }
            }

            /// What the code says about the connection.
            pub const fn description(self) -> &'static str {
                match self.0 {
                    $($code => $description,)*
                    3000..=3999 => "a code registered for libraries and applications",
                    4000..=4999 => "a code private to the application",
                    _ => "an unknown code",
                }
            }
        }
    };
}

close_codes! {
    NORMAL = 1000, "normal closure",
        "the connection has done its work; a gateway also closes so after a first frame that is no JSON and when the handshake takes too long";
    GOING_AWAY = 1001, "going away", "the peer leaves";
    PROTOCOL_ERROR = 1002, "protocol error",
        "the peer saw a violation; a gateway also closes so when no protocol version fits";
    UNSUPPORTED_DATA = 1003, "unsupported data", "the peer cannot take this kind of data";
    NO_STATUS = 1005, "no status", "the close frame had no code; never sent";
    ABNORMAL = 1006, "abnormal closure", "the connection ended without a close frame; never sent";
    INVALID_DATA = 1007, "invalid data", "the peer got a text that is not UTF-8";
    POLICY_VIOLATION = 1008, "policy violation",
        "a gateway refused the handshake, the device or the origin; the reason says why";
    MESSAGE_TOO_BIG = 1009, "message too big", "a frame was larger than the peer takes";
    MISSING_EXTENSION = 1010, "missing extension", "the client wanted an extension that the server did not agree to";
    INTERNAL_ERROR = 1011, "internal error", "the peer failed";
    SERVICE_RESTART = 1012, "service restart",
        "the gateway stops or restarts; only its shutdown event tells which";
    TRY_AGAIN_LATER = 1013, "try again later", "the gateway is still starting";
    BAD_GATEWAY = 1014, "bad gateway", "a proxy got a bad answer";
    TLS_FAILURE = 1015, "TLS failure", "the TLS handshake failed; never sent";
    LIVENESS_TIMEOUT = 4000, "liveness timeout",
        "the client heard nothing for too long and gave the connection up; sent by clients";
    AUTH_CHANGED = 4001, "auth changed", "the gateway's shared token or password was replaced in its configuration";
}

impl CloseCode {
    /// Whether the code may stand in a close frame: RFC 6455 keeps 1004, 1005, 1006 and 1015 back, and codes
    /// outside 1000..=4999 do not exist.
    pub const fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}
