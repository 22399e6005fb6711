//! The sockets of a [`Machine`].

use async_trait::async_trait;
use gateway_client::{
    Endpoint, HandshakeProgress, Transport, TransportError, TransportErrorKind, TransportOptions,
    TransportPair, WebSocketTransport,
};

use super::machine::{Dialled, Machine};

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
            Dialled::Silent => std::future::pending().await,
            Dialled::WebServer => {
                let kind = TransportErrorKind::NotAWebSocket { status: Some(200) };
                Err(TransportError::new(kind, "a web page"))
            }
            Dialled::Gateway(stream) => {
                WebSocketTransport::upgrade(stream, &endpoint.authority(), endpoint.path(), options)
                    .await
            }
        }
    }
}
