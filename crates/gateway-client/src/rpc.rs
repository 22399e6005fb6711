//! Calls: what to ask for, and every way in which one can end.

use std::sync::Arc;
use std::time::Duration;

use gateway_protocol::{DecodeError, EncodeError, ErrorShape};

use crate::connection::Disconnected;
use crate::transport::TransportError;

/// How long a call may take when neither the call nor the connection says otherwise: 30 s, as in OpenClaw's own client.
pub const DEFAULT_CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Options of one call.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct CallOptions {
    /// How long the call may take, counted from the moment it is made and including the time in the queue. `None`
    /// means the connection's [`call_timeout`](crate::ConnectOptions::call_timeout).
    pub timeout: Option<Duration>,
    /// A W3C `traceparent` for the gateway's traces, at most 128 characters. Sent only when protocol 4 is in use,
    /// because protocol 3 refuses a request with a field that it does not know.
    pub traceparent: Option<String>,
}

impl CallOptions {
    /// Options with a time limit.
    #[must_use]
    pub fn timeout(timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..Self::default()
        }
    }

    /// Adds a `traceparent`.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }
}

/// What the caller knows about the effect of a call that returned an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallOutcome {
    /// The request never left; repeating it is safe.
    NotSent,
    /// The request may have been carried out: repeat it only if doing it twice is harmless.
    Unknown,
    /// The gateway refused it and did nothing.
    Rejected,
    /// The gateway carried it out; only its answer could not be used.
    Done,
}

/// Why a call returned no result. [`RpcError::outcome`] tells what may have happened on the other side.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// The connection had ended before the call was made.
    #[error(
        "Gateway not connected: {method} was not sent because the connection has ended ({disconnected}); connect again"
    )]
    NotConnected {
        /// The method called.
        method: String,
        /// How the connection ended.
        disconnected: Arc<Disconnected>,
    },
    /// The transport refused the frame before sending any of it; the connection lives on.
    #[error("Failed to send RPC request: {method}: {cause}")]
    NotSent {
        /// The method called.
        method: String,
        /// What the transport said.
        cause: TransportError,
    },
    /// The connection ended while the call was pending.
    #[error(
        "the connection was lost while {method} was pending ({disconnected}); {}",
        if *sent { "it may have been carried out, check before repeating it" }
        else { "it had not been sent and may be repeated" }
    )]
    ConnectionLost {
        /// The method called.
        method: String,
        /// Whether the request had been handed to the socket.
        sent: bool,
        /// How the connection ended; every pending call receives the same cause.
        disconnected: Arc<Disconnected>,
    },
    /// No answer within the time limit.
    #[error(
        "RPC timeout: {method} after {} ms; {}",
        elapsed.as_millis(),
        if *sent { "it was sent and may still be carried out, a late answer is dropped" }
        else { "it was never sent because the connection took no more data" }
    )]
    Timeout {
        /// The method called.
        method: String,
        /// Time since the call was made.
        elapsed: Duration,
        /// Whether the request had been handed to the socket. An unsent request is withdrawn.
        sent: bool,
    },
    /// The gateway answered with an error.
    #[error("{method} was rejected: {error}")]
    Rejected {
        /// The method called.
        method: String,
        /// The gateway's error with code, details and retry advice.
        error: Box<ErrorShape>,
        /// Time since the call was made.
        elapsed: Duration,
    },
    /// The parameters could not be written as JSON.
    #[error("the parameters of {method} could not be encoded: {source}")]
    Encode {
        /// The method called.
        method: String,
        /// What is wrong with them.
        source: EncodeError,
    },
    /// The gateway carried out the call, but its answer has another shape than the caller asked for.
    #[error(
        "the answer to {method} could not be decoded: {source}; read it as a raw payload instead"
    )]
    Decode {
        /// The method called.
        method: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The request exceeds what the gateway accepts and would have ended the connection with close code 1009.
    #[error(
        "{method} was not sent: its frame of {bytes} bytes exceeds the gateway's limit of {limit} bytes; send less at once"
    )]
    TooLarge {
        /// The method called.
        method: String,
        /// Size of the frame in bytes.
        bytes: usize,
        /// The limit in bytes, from `policy.maxPayload`.
        limit: usize,
    },
}

impl RpcError {
    /// What may have happened on the other side.
    #[must_use]
    pub fn outcome(&self) -> CallOutcome {
        match self {
            Self::NotConnected { .. }
            | Self::NotSent { .. }
            | Self::ConnectionLost { sent: false, .. }
            | Self::Timeout { sent: false, .. }
            | Self::Encode { .. }
            | Self::TooLarge { .. } => CallOutcome::NotSent,
            Self::ConnectionLost { sent: true, .. } | Self::Timeout { sent: true, .. } => {
                CallOutcome::Unknown
            }
            Self::Rejected { .. } => CallOutcome::Rejected,
            Self::Decode { .. } => CallOutcome::Done,
        }
    }

    /// The method that was called.
    #[must_use]
    pub fn method(&self) -> &str {
        match self {
            Self::NotConnected { method, .. }
            | Self::NotSent { method, .. }
            | Self::ConnectionLost { method, .. }
            | Self::Timeout { method, .. }
            | Self::Rejected { method, .. }
            | Self::Encode { method, .. }
            | Self::Decode { method, .. }
            | Self::TooLarge { method, .. } => method,
        }
    }

    /// The gateway's own error, if it answered with one.
    #[must_use]
    pub fn rejection(&self) -> Option<&ErrorShape> {
        match self {
            Self::Rejected { error, .. } => Some(error),
            _ => None,
        }
    }
}
