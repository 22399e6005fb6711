//! A gateway on the other end of an in-memory pipe, played by a script.
//!
//! Nothing here touches a real socket, so tests may run on tokio's paused clock.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt};
use gateway_client::{
    ConnectError, ConnectOptions, Connection, Credentials, Endpoint, Transport, TransportError,
    TransportOptions, TransportPair, WebSocketTransport,
};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

/// The shared token of every test. It must never show up in a text.
pub(crate) const TOKEN: &str = "s3cret-token-0001";

type Script = Box<dyn Fn(DuplexStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A transport whose peer is a script.
pub(crate) struct Scripted {
    script: Script,
    pipe_bytes: usize,
    peers: Mutex<Vec<JoinHandle<()>>>,
}

impl Scripted {
    /// The script receives the bare pipe.
    pub(crate) fn raw<F, Fut>(script: F) -> Self
    where
        F: Fn(DuplexStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self {
            script: Box::new(move |stream| Box::pin(script(stream))),
            pipe_bytes: 64 * 1024,
            peers: Mutex::default(),
        }
    }

    /// The script receives a WebSocket.
    pub(crate) fn new<F, Fut>(script: F) -> Self
    where
        F: Fn(Peer) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let script = Arc::new(script);
        Self::raw(move |stream| {
            let script = script.clone();
            async move {
                if let Some(peer) = Peer::accept(stream).await {
                    script(peer).await;
                }
            }
        })
    }

    pub(crate) fn with_pipe_bytes(mut self, bytes: usize) -> Self {
        self.pipe_bytes = bytes;
        self
    }

    /// Waits until every script has come to its end and passes on its panic.
    pub(crate) async fn finish(&self) {
        let peers = std::mem::take(&mut *self.peers.lock().unwrap());
        for peer in peers {
            peer.await.expect("the script of the peer failed");
        }
    }

    pub(crate) async fn connect(&self) -> Result<Connection, ConnectError> {
        self.connect_with(options()).await
    }

    pub(crate) async fn connect_with(
        &self,
        options: ConnectOptions,
    ) -> Result<Connection, ConnectError> {
        Connection::open(self, &Endpoint::loopback(1), options).await
    }
}

#[async_trait]
impl Transport for Scripted {
    async fn open(
        &self,
        endpoint: &Endpoint,
        options: &TransportOptions,
    ) -> Result<TransportPair, TransportError> {
        let (ours, theirs) = tokio::io::duplex(self.pipe_bytes);
        let peer = tokio::spawn((self.script)(theirs));
        self.peers.lock().unwrap().push(peer);
        options
            .progress
            .report(gateway_client::HandshakeProgress::TcpAccepted);
        WebSocketTransport::upgrade(ours, &endpoint.authority(), endpoint.path(), options).await
    }
}

/// Options with the test token.
pub(crate) fn options() -> ConnectOptions {
    ConnectOptions::new(Credentials::token(TOKEN))
}

/// A connection to a gateway that greets and then runs `script`.
pub(crate) async fn connected<F, Fut>(script: F) -> (Scripted, Connection)
where
    F: Fn(Peer) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let script = Arc::new(script);
    let transport = Scripted::new(move |mut peer: Peer| {
        let script = script.clone();
        async move {
            peer.greet().await;
            script(peer).await;
        }
    });
    let connection = transport.connect().await.expect("connects");
    (transport, connection)
}

/// The server's end of a WebSocket.
pub(crate) struct Peer<S = DuplexStream> {
    socket: WebSocketStream<S>,
}

impl<S> Peer<S>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    /// `None` when the client left before its upgrade was answered.
    pub(crate) async fn accept(stream: S) -> Option<Self> {
        let config = WebSocketConfig::default()
            .max_frame_size(None)
            .max_message_size(None);
        let socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await;
        Some(Self {
            socket: socket.ok()?,
        })
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.send_text(frame.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into())).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.expect("the client reads");
    }

    /// Queues without writing.
    pub(crate) async fn feed(&mut self, frame: Value) {
        let message = Message::text(frame.to_string());
        self.socket.feed(message).await.expect("the client reads");
    }

    pub(crate) async fn flush(&mut self) {
        self.socket.flush().await.expect("the client reads");
    }

    pub(crate) async fn challenge(&mut self) {
        self.send(challenge()).await;
    }

    /// The next data frame as JSON.
    pub(crate) async fn receive(&mut self) -> Value {
        match self.next().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).expect("frames are JSON"),
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    /// The next message that is not a ping or pong.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return Some(message),
            }
        }
    }

    pub(crate) async fn next_raw(&mut self) -> Option<Message> {
        self.socket.next().await?.ok()
    }

    pub(crate) async fn connect_request(&mut self) -> Value {
        let request = self.receive().await;
        assert_eq!(request["type"], "req");
        assert_eq!(request["method"], "connect");
        request
    }

    pub(crate) async fn greet(&mut self) -> Value {
        self.greet_with(hello()).await
    }

    /// The whole handshake; returns the connect request.
    pub(crate) async fn greet_with(&mut self, hello: Value) -> Value {
        self.challenge().await;
        let request = self.connect_request().await;
        self.reply(&request, hello).await;
        request
    }

    pub(crate) async fn reply(&mut self, request: &Value, payload: Value) {
        self.send(json!({"type":"res","id":request["id"],"ok":true,"payload":payload}))
            .await;
    }

    pub(crate) async fn reject(&mut self, request: &Value, error: Value) {
        self.send(json!({"type":"res","id":request["id"],"ok":false,"error":error}))
            .await;
    }

    pub(crate) async fn event(&mut self, name: &str, payload: Value) {
        self.send(json!({"type":"event","event":name,"payload":payload}))
            .await;
    }

    pub(crate) async fn close(&mut self, code: u16, reason: &str) {
        let frame = CloseFrame {
            code: code.into(),
            reason: reason.to_owned().into(),
        };
        // The client may have closed at the same moment.
        let _ = self.socket.send(Message::Close(Some(frame))).await;
    }

    /// Waits until the client has closed the socket and returns its close code, if it sent one.
    pub(crate) async fn gone(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some(Ok(message)) = self.socket.next().await {
            match message {
                Message::Close(frame) => code = frame.map(|frame| frame.code.into()).or(Some(1005)),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("the client should have left, but sent {other:?}"),
            }
        }
        code
    }
}

pub(crate) fn challenge() -> Value {
    json!({"type":"event","event":"connect.challenge","payload":{"nonce":"n-1","ts":1_795_402_436_158_u64}})
}

pub(crate) fn hello() -> Value {
    hello_with(4, 26_214_400)
}

pub(crate) fn hello_with(protocol: u32, max_payload: u64) -> Value {
    json!({
        "type":"hello-ok","protocol":protocol,
        "server":{"version":"2026.9.6","connId":"c-1"},
        "features":{"methods":["health"],"events":["tick"]},
        "snapshot":{"presence":[],"health":{},"stateVersion":{"presence":1,"health":1},"uptimeMs":5},
        "auth":{"role":"operator","scopes":["operator.read"]},
        "policy":{"maxPayload":max_payload,"maxBufferedBytes":52_428_800,"tickIntervalMs":30_000}
    })
}

/// Lets everything that is ready run, on a paused clock.
pub(crate) async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
