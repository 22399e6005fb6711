//! Every way in which a connection can fail to come about.

use std::fmt;
use std::time::Duration;

use gateway_protocol::error::details;
use gateway_protocol::{ErrorShape, ProtocolRange};

use crate::credentials::CredentialError;
use crate::endpoint::{Endpoint, EndpointError};
use crate::identity::IdentityError;
use crate::transport::{TransportError, TransportErrorKind};

/// Where a handshake was when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HandshakeStage {
    /// Opening the TCP connection.
    Dialing,
    /// Waiting for the answer to the WebSocket upgrade.
    Upgrading,
    /// Waiting for the gateway's challenge.
    AwaitingChallenge,
    /// Reading the credentials and sending the connect request.
    Connecting,
    /// Waiting for the answer to the connect request.
    AwaitingHello,
}

impl fmt::Display for HandshakeStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dialing => "opening the TCP connection",
            Self::Upgrading => "waiting for the answer to the WebSocket upgrade",
            Self::AwaitingChallenge => "waiting for connect.challenge",
            Self::Connecting => "reading the credentials and sending the connect request",
            Self::AwaitingHello => "waiting for the answer to the connect request",
        })
    }
}

/// Why there is no connection. The socket is closed in every case.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is not one of a gateway.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The socket failed.
    #[error("cannot connect to {endpoint}: {error}{}", next_step(&error.kind))]
    Transport {
        /// The address dialled.
        endpoint: Endpoint,
        /// What happened.
        #[source]
        error: TransportError,
    },
    /// Something listens there, but it is no gateway.
    #[error(
        "{endpoint} is not an OpenClaw Gateway: {evidence}; check the port, or free it for the gateway"
    )]
    NotAGateway {
        /// The address dialled.
        endpoint: Endpoint,
        /// How we know.
        evidence: String,
    },
    /// The upgrade was answered with an HTTP status. 503 comes from a gateway that is stopping, or that has too
    /// many unauthenticated sockets.
    #[error(
        "{endpoint} refused the WebSocket upgrade with HTTP {status}{}{body}; {}",
        if body.is_empty() { "" } else { ": " },
        if *status == 503 { "try again shortly" } else { "check that the port is the gateway's" }
    )]
    UpgradeRefused {
        /// The address dialled.
        endpoint: Endpoint,
        /// The HTTP status.
        status: u16,
        /// The beginning of the body, at most 512 bytes.
        body: String,
    },
    /// The TCP connection was not opened in time.
    #[error(
        "no TCP connection to {endpoint} within {} ms; check the address and the firewall",
        elapsed.as_millis()
    )]
    DialTimeout {
        /// The address dialled.
        endpoint: Endpoint,
        /// Time since the dial began.
        elapsed: Duration,
    },
    /// Something accepted the TCP connection and never answered the upgrade: a suspended or wedged gateway, or
    /// another program.
    #[error(
        "{endpoint} accepted the connection but did not answer the WebSocket upgrade within {} ms; the program on \
         that port is stuck or is no gateway",
        elapsed.as_millis()
    )]
    UpgradeTimeout {
        /// The address dialled.
        endpoint: Endpoint,
        /// Time since the dial began.
        elapsed: Duration,
    },
    /// A WebSocket was opened but no challenge came.
    #[error(
        "Timed out waiting for connect.challenge from Gateway: {endpoint} upgraded to WebSocket and sent no \
         challenge within {} ms; it may be another service",
        elapsed.as_millis()
    )]
    ChallengeTimeout {
        /// The address dialled.
        endpoint: Endpoint,
        /// Time since the dial began.
        elapsed: Duration,
    },
    /// The first challenge has no nonce, or an empty one.
    #[error(
        "Gateway connect.challenge missing nonce: {endpoint} does not follow the gateway protocol; check that the port \
         is the gateway's"
    )]
    MissingNonce {
        /// The address dialled.
        endpoint: Endpoint,
    },
    /// The gateway answered the connect request with an error.
    #[error(
        "the gateway refused the connection: {error}{}{}",
        close_text(*close_code, close_reason, &error.message),
        remedy(error)
    )]
    Refused {
        /// Code, details and retry advice.
        error: Box<ErrorShape>,
        /// The close code that followed; `None` when none came within 250 ms.
        close_code: Option<u16>,
        /// The reason in the close frame.
        close_reason: String,
        /// Time since the dial began.
        elapsed: Duration,
    },
    /// The WebSocket was closed before hello and without an answer.
    #[error(
        "WebSocket closed before handshake: {}{} while {stage}",
        if reason.is_empty() { "unknown" } else { reason },
        code.map_or_else(String::new, |code| format!(" (code {code})"))
    )]
    ClosedBeforeHello {
        /// The close code; `None` when the peer vanished without a close frame.
        code: Option<u16>,
        /// The reason in the close frame.
        reason: String,
        /// How far the handshake had come.
        stage: HandshakeStage,
    },
    /// No answer to the connect request in time.
    #[error(
        "Connect handshake timeout: no hello after {} ms, {stage}; the gateway may still be starting",
        elapsed.as_millis()
    )]
    HelloTimeout {
        /// Time since the dial began.
        elapsed: Duration,
        /// How far the handshake had come.
        stage: HandshakeStage,
    },
    /// The connect request was accepted, but the answer is no hello.
    #[error(
        "the gateway accepted the connection with an answer that is no hello: {reason}; check that the port is the \
         gateway's, or use a client for its version"
    )]
    MalformedHello {
        /// What is wrong with it.
        reason: String,
    },
    /// The hello names a protocol version that was not offered.
    #[error(
        "the gateway speaks protocol {answered}, but {} to {} was offered; use a client for that version",
        offered.min,
        offered.max
    )]
    ProtocolOutOfRange {
        /// The versions offered.
        offered: ProtocolRange,
        /// The version in the hello.
        answered: u32,
    },
    /// There is no device identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The credentials could not be read.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The connect request exceeds what a gateway accepts before authentication; it was not sent.
    #[error(
        "the connect request of {bytes} bytes exceeds the gateway's limit of {limit} bytes; shorten caps, scopes or names"
    )]
    TooLarge {
        /// Size of the frame in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The connect request could not be written as JSON.
    #[error("the connect request could not be encoded: {reason}")]
    Encode {
        /// What is wrong with it.
        reason: String,
    },
}

impl ConnectError {
    /// The gateway's own error, if it answered with one.
    #[must_use]
    pub fn refusal(&self) -> Option<&ErrorShape> {
        match self {
            Self::Refused { error, .. } => Some(error),
            _ => None,
        }
    }

    /// The close code that the peer sent.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        match self {
            Self::Refused { close_code, .. } => *close_code,
            Self::ClosedBeforeHello { code, .. } => *code,
            _ => None,
        }
    }

    /// When the gateway says that a new attempt makes sense.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal()
            .and_then(|error| error.retry_after_ms)
            .map(Duration::from_millis)
    }

    /// Sorts a failure of [`Transport::open`](crate::Transport::open) into the variants that say more.
    pub(crate) fn from_open(endpoint: &Endpoint, error: TransportError) -> Self {
        let endpoint = endpoint.clone();
        match error.kind {
            TransportErrorKind::NotAWebSocket { .. } => Self::NotAGateway {
                endpoint,
                evidence: error.to_string(),
            },
            TransportErrorKind::UpgradeRefused { status, body } => Self::UpgradeRefused {
                endpoint,
                status,
                body,
            },
            _ => Self::Transport { endpoint, error },
        }
    }
}

fn next_step(kind: &TransportErrorKind) -> &'static str {
    match kind {
        TransportErrorKind::Refused => {
            "; nothing listens there, start the gateway or check the port"
        }
        TransportErrorKind::Dns => "; check the host name",
        TransportErrorKind::MessageTooLarge { .. } => "; raise max_message_bytes",
        TransportErrorKind::Malformed => "; check that the port is the gateway's",
        TransportErrorKind::Reset => "; the gateway may be stopping or starting, try again",
        _ => "",
    }
}

/// What the caller can do about a refusal, where the gateway's code tells.
fn remedy(error: &ErrorShape) -> String {
    // Older gateways name the version that they expected, and give no code for it.
    if let Some(version) = error.expected_protocol() {
        return format!("; it speaks protocol {version}, use a client for that version");
    }
    let remedy = match error.details_code().as_deref() {
        Some(details::AUTH_TOKEN_MISMATCH | details::AUTH_TOKEN_MISSING) => {
            "; use the token that this gateway was started with, or the one in its configuration file"
        }
        Some(details::PAIRING_REQUIRED) => {
            "; approve this device on the gateway with `openclaw devices approve`"
        }
        Some(details::DEVICE_IDENTITY_REQUIRED) => {
            "; give the gateway's token, or a device identity"
        }
        _ => "",
    };
    remedy.to_owned()
}

/// The close frame's reason is mostly the message once more, cut to what fits into the frame.
fn close_text(code: Option<u16>, reason: &str, message: &str) -> String {
    match code {
        None => String::new(),
        Some(code) if message.starts_with(reason) => format!(" (close {code})"),
        Some(code) => format!(" (close {code} {reason})"),
    }
}
