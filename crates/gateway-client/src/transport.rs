//! The socket behind traits.
//!
//! A [`Transport`] opens a connection to an [`Endpoint`] and hands back its two halves. Everything above it, the
//! handshake and the connection, only sees whole messages. [`crate::WebSocketTransport`] is the real one; tests
//! put a scripted one in its place (with the feature `mock`, mockall's `MockTransport`, `MockFrameSink` and
//! `MockFrameStream`).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::endpoint::Endpoint;

/// Largest inbound message accepted unless the options say otherwise: 64 MiB.
///
/// It must exceed the 25 MiB (`policy.maxPayload`) and the 50 MiB (`policy.maxBufferedBytes`) that the gateway
/// advertises, because it sends a message as one frame whatever its size.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Opens connections.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Opens one connection and completes its upgrade.
    ///
    /// There is no deadline inside: the caller drops the future when its own has passed, and everything opened so
    /// far must be closed by that drop. Progress is reported through [`TransportOptions::progress`].
    ///
    /// # Errors
    /// See [`TransportErrorKind`].
    async fn open(
        &self,
        endpoint: &Endpoint,
        options: &TransportOptions,
    ) -> Result<TransportPair, TransportError>;
}

/// The half that sends.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait FrameSink: Send {
    /// Queues one message. It may wait until the peer takes earlier ones; it need not put this one on the wire.
    ///
    /// # Errors
    /// [`TransportErrorKind::MessageTooLarge`] and [`TransportErrorKind::Malformed`] mean that this message was
    /// refused before any of it was sent and the connection lives on. After any other error it is unusable.
    async fn feed(&mut self, message: TransportMessage) -> Result<(), TransportError>;

    /// Writes out everything queued.
    ///
    /// # Errors
    /// The connection is unusable afterwards.
    async fn flush(&mut self) -> Result<(), TransportError>;

    /// Sends a close frame and flushes. Nothing can be sent afterwards; the stream half may still yield messages.
    ///
    /// # Errors
    /// The close frame could not be written; the connection is gone all the same.
    async fn close(&mut self, code: u16, reason: &str) -> Result<(), TransportError>;
}

/// The half that receives.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait FrameStream: Send {
    /// The next message; `None` when the peer is gone for good.
    ///
    /// Must be cancel safe: dropping the future loses no message. An `Err` ends the stream.
    /// Pings are answered by the transport itself and reported here only as a sign of life.
    async fn next(&mut self) -> Option<Result<TransportMessage, TransportError>>;
}

/// Both halves of an open connection. Dropping both closes it.
pub struct TransportPair {
    /// The half that sends.
    pub sink: Box<dyn FrameSink>,
    /// The half that receives.
    pub stream: Box<dyn FrameStream>,
}

impl fmt::Debug for TransportPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportPair").finish_non_exhaustive()
    }
}

/// A whole WebSocket message, data or control.
#[derive(Clone, PartialEq, Eq)]
pub enum TransportMessage {
    /// A text message: UTF-8.
    Text(Bytes),
    /// A binary message. The gateway accepts the same JSON in either form.
    Binary(Bytes),
    /// A ping; the transport answers it.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// The peer's close frame.
    Close {
        /// The close code; 1005 when the frame held none.
        code: u16,
        /// The reason, often empty.
        reason: String,
    },
}

/// Prints kind and size only: messages hold credentials.
impl fmt::Debug for TransportMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(bytes) => write!(f, "Text({} bytes)", bytes.len()),
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
            Self::Ping(bytes) => write!(f, "Ping({} bytes)", bytes.len()),
            Self::Pong(bytes) => write!(f, "Pong({} bytes)", bytes.len()),
            Self::Close { code, reason } => write!(f, "Close({code}, {reason:?})"),
        }
    }
}

/// How to open a connection.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct TransportOptions {
    /// Largest inbound message in bytes, which is also the limit of a single frame. Default
    /// [`DEFAULT_MAX_MESSAGE_BYTES`]. A larger message ends the connection.
    pub max_message_bytes: usize,
    /// Told about [`HandshakeProgress::TcpAccepted`] and [`HandshakeProgress::Upgraded`].
    pub progress: ProgressListener,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            progress: ProgressListener::default(),
        }
    }
}

impl TransportOptions {
    /// Sets the largest inbound message in bytes.
    #[must_use]
    pub fn with_max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Sets the listener.
    #[must_use]
    pub fn with_progress(mut self, progress: ProgressListener) -> Self {
        self.progress = progress;
        self
    }
}

/// How far the opening of a connection has come. Each step is reported once, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum HandshakeProgress {
    /// Something accepted the TCP connection.
    TcpAccepted,
    /// It speaks WebSocket.
    Upgraded,
    /// It sent the challenge of a gateway.
    Challenged,
    /// Our connect request is on its way.
    ConnectSent,
}

/// An optional callback for [`HandshakeProgress`]. It runs on the task that connects and must not block.
#[derive(Clone, Default)]
pub struct ProgressListener(Option<Arc<dyn Fn(HandshakeProgress) + Send + Sync>>);

impl ProgressListener {
    /// A listener that calls `callback`.
    pub fn new(callback: impl Fn(HandshakeProgress) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(callback)))
    }

    /// Tells the callback, if there is one.
    pub fn report(&self, progress: HandshakeProgress) {
        if let Some(callback) = &self.0 {
            callback(progress);
        }
    }
}

impl From<Option<Arc<dyn Fn(HandshakeProgress) + Send + Sync>>> for ProgressListener {
    fn from(callback: Option<Arc<dyn Fn(HandshakeProgress) + Send + Sync>>) -> Self {
        Self(callback)
    }
}

impl fmt::Debug for ProgressListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "ProgressListener(set)"
        } else {
            "ProgressListener(none)"
        })
    }
}

/// A failure of the socket or of the WebSocket layer.
///
/// It is a value that can be cloned, so that every waiter of a lost connection receives the same cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}{}{detail}", if detail.is_empty() { "" } else { ": " })]
pub struct TransportError {
    /// What kind of failure.
    pub kind: TransportErrorKind,
    /// Evidence in words, for example the text of the operating system; may be empty.
    pub detail: String,
}

impl TransportError {
    /// An error of `kind` with evidence.
    pub fn new(kind: TransportErrorKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    /// Classifies an error of the operating system.
    #[must_use]
    pub fn from_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        let kind = match error.kind() {
            ErrorKind::ConnectionRefused => TransportErrorKind::Refused,
            ErrorKind::TimedOut => TransportErrorKind::TimedOut,
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::NotConnected => TransportErrorKind::Reset,
            _ => TransportErrorKind::Io,
        };
        Self::new(kind, error.to_string())
    }
}

/// The kinds of [`TransportError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportErrorKind {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The peer went away without a close frame.
    #[error("connection lost without a close frame")]
    Reset,
    /// The name has no address.
    #[error("the host name could not be resolved")]
    Dns,
    /// What answered the upgrade does not speak WebSocket.
    #[error("the peer does not speak WebSocket")]
    NotAWebSocket {
        /// The HTTP status, if the answer was HTTP at all.
        status: Option<u16>,
    },
    /// The upgrade was answered with an HTTP error.
    #[error("the WebSocket upgrade was refused with HTTP {status}")]
    UpgradeRefused {
        /// The HTTP status.
        status: u16,
        /// The first 512 bytes of the answer's body, made printable.
        body: String,
    },
    /// A message exceeds the limit.
    #[error("a message exceeds the limit of {limit} bytes")]
    MessageTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The peer broke the WebSocket protocol, or a message to be sent is not valid.
    #[error("the WebSocket protocol was violated")]
    Malformed,
    /// Any other failure of the operating system.
    #[error("socket failure")]
    Io,
}
