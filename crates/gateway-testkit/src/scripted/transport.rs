//! The sockets of a [`Machine`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use gateway_client::{
    Endpoint, HandshakeProgress, Transport, TransportError, TransportErrorKind, TransportOptions,
    TransportPair, WebSocketTransport,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::machine::{Dialled, HeldSocket, Machine};

/// Opens connections to what listens on a machine's ports. Made by [`Machine::transport`].
#[derive(Clone, Debug)]
pub struct ScriptedTransport {
    machine: Machine,
}

impl ScriptedTransport {
    pub(super) fn new(machine: Machine) -> Self {
        Self { machine }
    }
}

#[async_trait]
impl Transport for ScriptedTransport {
    async fn open(
        &self,
        endpoint: &Endpoint,
        options: &TransportOptions,
    ) -> Result<TransportPair, TransportError> {
        let port = endpoint.port();
        let found = self.machine.dial(port);
        if !matches!(found, Dialled::Nobody) {
            options.progress.report(HandshakeProgress::TcpAccepted);
        }
        match found {
            Dialled::Nobody => Err(TransportError::new(
                TransportErrorKind::Refused,
                format!("nobody listens on port {port}"),
            )),
            Dialled::Silent => {
                let _held = self.machine.hold_socket();
                std::future::pending().await
            }
            Dialled::WebServer => {
                let kind = TransportErrorKind::NotAWebSocket { status: Some(200) };
                Err(TransportError::new(kind, "a web page"))
            }
            Dialled::Gateway(stream) => {
                let socket = Socket {
                    stream,
                    _held: self.machine.hold_socket(),
                };
                WebSocketTransport::upgrade(socket, &endpoint.authority(), endpoint.path(), options)
                    .await
            }
        }
    }
}

/// A socket in memory that is counted.
struct Socket {
    stream: DuplexStream,
    _held: HeldSocket,
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
