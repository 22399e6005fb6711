//! The real transport: TCP and tokio-tungstenite.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WireCloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WireError, Message, Utf8Bytes};

use crate::endpoint::{Endpoint, Host};
use crate::transport::{
    FrameSink, FrameStream, HandshakeProgress, Transport, TransportError, TransportErrorKind,
    TransportMessage, TransportOptions, TransportPair,
};
use crate::upgrade::{Rewound, upgrade};

/// Bytes read from the socket at once, and the size from which written bytes go out without waiting for a flush.
/// It is allocated for every connection; a payload larger than this gets its own allocation of the exact size.
const BUFFER_BYTES: usize = 32 * 1024;

/// The longest reason that fits into a close frame (125 bytes of a control frame less two for the code).
const MAX_CLOSE_REASON_BYTES: usize = 123;

/// Opens plain `ws://` connections over TCP.
///
/// `TCP_NODELAY` is on, both the message and the frame limit follow [`TransportOptions::max_message_bytes`], pings
/// are answered even by a client that only reads, and there is neither an `Origin` header nor a redirect.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct WebSocketTransport;

impl WebSocketTransport {
    /// The transport. It holds no state, so one may serve any number of connections.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// Performs the WebSocket upgrade on a byte stream that is open already: a Unix socket, a tunnel, or an
    /// in-memory pipe in a test.
    ///
    /// `authority` becomes the `Host` header, `path` the request target. Without a deadline of its own; dropping
    /// the future closes the stream.
    ///
    /// # Errors
    /// As [`Transport::open`] after the TCP connection.
    pub async fn upgrade<S>(
        stream: S,
        authority: &str,
        path: &str,
        options: &TransportOptions,
    ) -> Result<TransportPair, TransportError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = upgrade(stream, authority, path).await?;
        options.progress.report(HandshakeProgress::Upgraded);
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            // The gateway sends a message as one frame: both limits, or replies above 16 MiB kill the connection.
            .max_message_size(Some(options.max_message_bytes))
            .max_frame_size(Some(options.max_message_bytes));
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        let (sink, stream) = socket.split();
        let limit = options.max_message_bytes;
        Ok(TransportPair {
            sink: Box::new(WebSocketSink { sink, limit }),
            stream: Box::new(WebSocketSource { stream, limit }),
        })
    }
}

#[async_trait]
impl Transport for WebSocketTransport {
    async fn open(
        &self,
        endpoint: &Endpoint,
        options: &TransportOptions,
    ) -> Result<TransportPair, TransportError> {
        let stream = dial(endpoint).await?;
        options.progress.report(HandshakeProgress::TcpAccepted);
        if let Err(error) = stream.set_nodelay(true) {
            // Slower, but it works.
            tracing::debug!(%endpoint, %error, "TCP_NODELAY could not be set");
        }
        Self::upgrade(stream, &endpoint.authority(), endpoint.path(), options).await
    }
}

/// Tries the addresses one after the other and reports every failure.
async fn dial(endpoint: &Endpoint) -> Result<TcpStream, TransportError> {
    let addresses = match endpoint.literal_addresses() {
        Some(addresses) => addresses,
        None => {
            let Host::Name(name) = endpoint.host() else {
                return Err(TransportError::new(TransportErrorKind::Dns, "no address"));
            };
            let found = tokio::net::lookup_host((name.as_str(), endpoint.port()))
                .await
                .map_err(|error| {
                    TransportError::new(TransportErrorKind::Dns, format!("{name}: {error}"))
                })?;
            found.collect()
        }
    };
    let mut first: Option<TransportError> = None;
    let mut evidence: Vec<String> = Vec::new();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                evidence.push(format!("{address}: {error}"));
                // The first address is the one that the gateway surely binds, so its failure is the one to act on.
                first.get_or_insert(TransportError::from_io(&error));
            }
        }
    }
    Err(match first {
        Some(error) => TransportError::new(error.kind, evidence.join("; ")),
        None => TransportError::new(TransportErrorKind::Dns, "the name has no address"),
    })
}

struct WebSocketSink<S> {
    sink: SplitSink<WebSocketStream<Rewound<S>>, Message>,
    limit: usize,
}

#[async_trait]
impl<S> FrameSink for WebSocketSink<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn feed(&mut self, message: TransportMessage) -> Result<(), TransportError> {
        let message = outbound(message)?;
        self.sink
            .feed(message)
            .await
            .map_err(|error| from_wire(&error, self.limit))
    }

    async fn flush(&mut self) -> Result<(), TransportError> {
        self.sink
            .flush()
            .await
            .map_err(|error| from_wire(&error, self.limit))
    }

    async fn close(&mut self, code: u16, reason: &str) -> Result<(), TransportError> {
        let close = Message::Close(Some(close_frame(code, reason)));
        match self.sink.send(close).await {
            // The peer was faster; the connection is closed as was asked.
            Ok(()) | Err(WireError::ConnectionClosed | WireError::AlreadyClosed) => Ok(()),
            Err(WireError::Protocol(ProtocolError::SendAfterClosing)) => Ok(()),
            Err(error) => Err(from_wire(&error, self.limit)),
        }
    }
}

struct WebSocketSource<S> {
    stream: SplitStream<WebSocketStream<Rewound<S>>>,
    limit: usize,
}

#[async_trait]
impl<S> FrameStream for WebSocketSource<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn next(&mut self) -> Option<Result<TransportMessage, TransportError>> {
        loop {
            let message = match self.stream.next().await? {
                Ok(message) => message,
                Err(error) => return Some(Err(from_wire(&error, self.limit))),
            };
            return Some(Ok(match message {
                Message::Text(text) => TransportMessage::Text(text.into()),
                Message::Binary(bytes) => TransportMessage::Binary(bytes),
                Message::Ping(bytes) => TransportMessage::Ping(bytes),
                Message::Pong(bytes) => TransportMessage::Pong(bytes),
                Message::Close(None) => TransportMessage::Close {
                    code: 1005,
                    reason: String::new(),
                },
                Message::Close(Some(frame)) => TransportMessage::Close {
                    code: frame.code.into(),
                    reason: frame.reason.as_str().to_owned(),
                },
                // Never produced by reading.
                Message::Frame(_) => continue,
            }));
        }
    }
}

fn outbound(message: TransportMessage) -> Result<Message, TransportError> {
    Ok(match message {
        TransportMessage::Text(bytes) => Message::Text(text(bytes)?),
        TransportMessage::Binary(bytes) => Message::Binary(bytes),
        TransportMessage::Ping(bytes) => Message::Ping(control(bytes)?),
        TransportMessage::Pong(bytes) => Message::Pong(control(bytes)?),
        TransportMessage::Close { code, reason } => {
            Message::Close(Some(close_frame(code, &reason)))
        }
    })
}

fn text(bytes: Bytes) -> Result<Utf8Bytes, TransportError> {
    Utf8Bytes::try_from(bytes).map_err(|_| {
        TransportError::new(
            TransportErrorKind::Malformed,
            "a text message must be UTF-8",
        )
    })
}

fn control(bytes: Bytes) -> Result<Bytes, TransportError> {
    if bytes.len() > 125 {
        return Err(TransportError::new(
            TransportErrorKind::MessageTooLarge { limit: 125 },
            "a control frame",
        ));
    }
    Ok(bytes)
}

fn close_frame(code: u16, reason: &str) -> CloseFrame {
    let mut end = reason.len().min(MAX_CLOSE_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    CloseFrame {
        code: WireCloseCode::from(code),
        reason: reason[..end].into(),
    }
}

fn from_wire(error: &WireError, limit: usize) -> TransportError {
    match error {
        WireError::Io(error) => TransportError::from_io(error),
        WireError::Capacity(CapacityError::MessageTooLong { size, .. }) => TransportError::new(
            TransportErrorKind::MessageTooLarge { limit },
            format!("{size} bytes"),
        ),
        WireError::ConnectionClosed
        | WireError::AlreadyClosed
        | WireError::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
        ) => TransportError::new(TransportErrorKind::Reset, String::new()),
        WireError::Protocol(error) => {
            TransportError::new(TransportErrorKind::Malformed, error.to_string())
        }
        WireError::Utf8(_) => {
            TransportError::new(TransportErrorKind::Malformed, "a text message is not UTF-8")
        }
        other => TransportError::new(TransportErrorKind::Io, other.to_string()),
    }
}
