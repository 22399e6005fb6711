//! A WebSocket client that sends what it is told and hides nothing.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::HeaderName;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// What came next.
#[derive(Debug)]
pub enum Received {
    Frame(Value),
    Close(Value),
    Nothing,
}

pub struct Client {
    ws: WebSocketStream<TcpStream>,
    frames: VecDeque<Value>,
    pongs: usize,
    closed: Option<Value>,
}

impl Client {
    /// Opens a socket; an upgrade that is refused gives status and body.
    pub async fn open(
        port: u16,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Self, (u16, String)> {
        let stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .expect("the gateway listens");
        // Without it the second of two frames in a row waits for the acknowledgement of the first.
        stream.set_nodelay(true).unwrap();
        let mut request = format!("ws://127.0.0.1:{port}{path}")
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            request
                .headers_mut()
                .insert(name, HeaderValue::from_str(value).unwrap());
        }
        let config = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None);
        match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
            Ok((ws, _)) => Ok(Self {
                ws,
                frames: VecDeque::new(),
                pongs: 0,
                closed: None,
            }),
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                Err((
                    response.status().as_u16(),
                    String::from_utf8_lossy(&body).into_owned(),
                ))
            }
            Err(error) => panic!("upgrade failed: {error}"),
        }
    }

    /// Opens a socket and connects with that token as a backend with every scope; gives `hello-ok`'s payload.
    pub async fn connected(port: u16, token: &str) -> (Self, Value) {
        let mut client = Self::open(port, "/", &[]).await.expect("upgraded");
        let answer = client.connect(token).await;
        let Received::Frame(answer) = answer else {
            panic!("{answer:?} in place of hello")
        };
        assert_eq!(answer["payload"]["type"], "hello-ok", "{answer}");
        (client, answer["payload"].clone())
    }

    /// Sends a connect and gives the answer.
    pub async fn connect(&mut self, token: &str) -> Received {
        self.text(connect_frame(token).to_string()).await;
        self.response(&json!("connect"), Duration::from_secs(10))
            .await
    }

    /// Calls a method and gives the answer frame.
    pub async fn call(&mut self, method: &str, params: Value) -> Value {
        self.text(
            json!({"type": "req", "id": "call", "method": method, "params": params}).to_string(),
        )
        .await;
        match self.response(&json!("call"), Duration::from_secs(10)).await {
            Received::Frame(frame) => frame,
            other => panic!("{other:?} in place of the answer to {method}"),
        }
    }

    /// Sends a frame. A connection that the gateway has already ended swallows it, as for a real client.
    pub async fn text(&mut self, text: String) {
        let _ = self.ws.send(Message::text(text)).await;
    }

    pub async fn binary(&mut self, text: String) {
        let _ = self.ws.send(Message::binary(text.into_bytes())).await;
    }

    pub async fn ping(&mut self, data: &[u8]) {
        let _ = self.ws.send(Message::Ping(data.to_vec().into())).await;
    }

    pub async fn close(&mut self, code: u16, reason: &str) {
        let _ = self
            .ws
            .close(Some(CloseFrame {
                code: code.into(),
                reason: reason.to_owned().into(),
            }))
            .await;
    }

    /// The answer with that id; frames before it are kept.
    pub async fn response(&mut self, id: &Value, patience: Duration) -> Received {
        self.find(
            |frame| frame["type"] == "res" && frame["id"] == *id,
            patience,
        )
        .await
    }

    /// The next event of that name; frames before it are kept.
    pub async fn event(&mut self, name: &str, patience: Duration) -> Option<Value> {
        match self.find(|frame| frame["event"] == name, patience).await {
            Received::Frame(frame) => Some(frame),
            _ => None,
        }
    }

    /// Whether a pong came or comes.
    pub async fn pong(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.pongs == 0 {
            if !self.read(deadline).await {
                return false;
            }
        }
        self.pongs -= 1;
        true
    }

    /// The close frame as `{code, reason}`; code 1006 when there was none, null when nothing ended.
    pub async fn until_close(&mut self, patience: Duration) -> Value {
        let deadline = Instant::now() + patience;
        while self.closed.is_none() {
            if !self.read(deadline).await {
                break;
            }
        }
        self.closed.clone().unwrap_or(Value::Null)
    }

    async fn find(&mut self, wanted: impl Fn(&Value) -> bool, patience: Duration) -> Received {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(place) = self.frames.iter().position(&wanted) {
                return self
                    .frames
                    .remove(place)
                    .map_or(Received::Nothing, Received::Frame);
            }
            if let Some(close) = &self.closed {
                return Received::Close(close.clone());
            }
            if !self.read(deadline).await {
                return Received::Nothing;
            }
        }
    }

    /// Reads one message; false when there is none before the deadline.
    async fn read(&mut self, deadline: Instant) -> bool {
        if self.closed.is_some() {
            return false;
        }
        let Ok(message) = timeout_at(deadline, self.ws.next()).await else {
            return false;
        };
        let text = match message {
            Some(Ok(Message::Text(text))) => text.as_str().to_owned(),
            Some(Ok(Message::Binary(bytes))) => String::from_utf8_lossy(&bytes).into_owned(),
            Some(Ok(Message::Pong(_))) => {
                self.pongs += 1;
                return true;
            }
            Some(Ok(Message::Close(Some(frame)))) => {
                self.closed =
                    Some(json!({"code": u16::from(frame.code), "reason": frame.reason.as_str()}));
                return true;
            }
            Some(Ok(Message::Close(None))) => {
                self.closed = Some(json!({"code": 1005, "reason": ""}));
                return true;
            }
            Some(Ok(_)) => return true,
            Some(Err(_)) | None => {
                self.closed = Some(json!({"code": 1006, "reason": ""}));
                return true;
            }
        };
        self.frames
            .push_back(serde_json::from_str(&text).unwrap_or(Value::String(text)));
        true
    }
}

/// A connect of a backend with every scope, for both protocols.
pub fn connect_frame(token: &str) -> Value {
    json!({"type": "req", "id": "connect", "method": "connect", "params": {
        "minProtocol": 3, "maxProtocol": 4,
        "client": {"id": "gateway-client", "version": "0.1.0", "platform": "linux", "mode": "backend"},
        "role": "operator",
        "scopes": ["operator.admin", "operator.read", "operator.write", "operator.approvals", "operator.pairing"],
        "auth": {"token": token},
    }})
}
