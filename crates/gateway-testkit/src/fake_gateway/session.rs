//! One TCP connection, from the request head to the end.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error as WsError, Message, error::CapacityError};

use super::admission::{self, Admission, Upgrade};
use super::content;
use super::event::{Event, quoted};
use super::http::{self, Answer, Head};
use super::methods::{self, Caller, Failure, Reply};
use super::options::{ChallengeFault, FakeGatewayFaults, Refusal};
use super::schema;
use super::state::{Phase, Registration, Shared, ToSession, is_announced, random_uuid};
use super::wire::Wire;

/// Longest close reason the gateway sends.
const MAX_CLOSE_REASON: usize = 120;
/// How long a closing socket waits for the peer's own close. The gateway does not wait for it before it exits.
const CLOSE_WAIT: Duration = Duration::from_millis(100);
/// How long what a peer still sends is read away, so that it gets the close frame and not a reset.
const DISCARD_WAIT: Duration = Duration::from_secs(2);
/// How many waiting frames are taken before the answers are flushed.
const BATCH: usize = 64;
/// The role mismatch that ends the connection.
const REPEATED_UNAUTHORIZED: u32 = 11;
/// How long 2026.3.2 is busy with a `connect`; a second frame within it ends the connection.
const OLD_HANDSHAKE_WORK: Duration = Duration::from_millis(2);
const NO_CONNECT: &str = "invalid handshake: first request must be connect";

/// Why a session ended.
enum End {
    /// The peer went away, or was cut off.
    Gone,
    /// The gateway closes.
    Close { code: u16, reason: String },
    /// The peer sent more than allowed; what it still sends must be read away, or the close frame is lost.
    TooLarge,
}

impl End {
    fn close(code: u16, reason: impl Into<String>) -> Self {
        Self::Close {
            code,
            reason: reason.into(),
        }
    }
}

impl From<WsError> for End {
    fn from(error: WsError) -> Self {
        match error {
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => Self::TooLarge,
            _ => Self::Gone,
        }
    }
}

pub(super) async fn run(shared: Arc<Shared>, mut stream: Wire) {
    let faults = shared.faults();
    let cut = Arc::new(Notify::new());
    let mut closing = shared.closing.subscribe();
    let head = async {
        if faults.silent_after_accept {
            discard(&mut stream).await;
            return None;
        }
        let head = timeout(
            shared.config.handshake_timeout,
            http::read_head(&mut stream),
        )
        .await;
        unstalled(&shared).await;
        head.ok()?.ok()?
    };
    let head = tokio::select! {
            biased;
        head = head => head,
        _ = closing.changed() => None,
    };
    let Some(head) = head else { return };
    let serve = serve_head(&shared, faults, stream, head, &cut);
    tokio::select! {
            biased;
        () = cut.notified() => {}
        () = serve => {}
    }
}

/// Waits while the gateway is stalled.
async fn unstalled(shared: &Shared) {
    becomes(&mut shared.stalled.subscribe(), false).await;
}

async fn becomes(flag: &mut watch::Receiver<bool>, value: bool) {
    // The sender lives as long as the gateway, so this cannot fail.
    let _ = flag.wait_for(|flag| *flag == value).await;
}

async fn discard(stream: &mut Wire) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
}

async fn serve_head(
    shared: &Arc<Shared>,
    faults: Arc<FakeGatewayFaults>,
    mut stream: Wire,
    mut head: Head,
    cut: &Arc<Notify>,
) {
    let vintage = shared.config.vintage;
    if !head.is_upgrade() {
        shared.count(|statistics| statistics.http_requests += 1);
        let answer = http::plain(vintage, shared.phase(), &head.method, &head.path);
        // The peer may be gone already; there is nobody to tell.
        let _ = http::answer(&mut stream, head.method == "HEAD", &answer).await;
        return;
    }
    let registered = match refused_upgrade(shared, &faults, &head) {
        Some(answer) => Err(answer),
        None => shared
            .register(Arc::clone(cut))
            .ok_or_else(|| Answer::text(503, "Too many unauthenticated sockets")),
    };
    let (registration, receiver) = match registered {
        Ok(registered) => registered,
        Err(answer) => {
            shared.count(|statistics| statistics.refused_upgrades += 1);
            let _ = http::answer(&mut stream, false, &answer).await;
            return;
        }
    };
    if http::accept_upgrade(&mut stream, &head).await.is_err() {
        return;
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(shared.config.max_payload))
        .max_frame_size(Some(shared.config.max_payload));
    let rest = std::mem::take(&mut head.rest);
    let ws = WebSocketStream::from_partially_read(stream, rest, Role::Server, Some(config)).await;
    let mut session = Session {
        ws,
        shared: Arc::clone(shared),
        faults,
        registration,
        receiver,
        frames_sent: 0,
        seq: 0,
        unauthorized: 0,
        later: JoinSet::new(),
    };
    let end = if !vintage.is_new() && head.path == "/__openclaw__/ws" {
        session.other_service().await
    } else {
        let (nonce, ts) = shared.next_challenge();
        let upgrade = Upgrade {
            nonce,
            ts,
            foreign_origin: head.has_foreign_origin(),
            foreign_host: head.has_foreign_host(),
        };
        session.talk(&upgrade).await
    };
    session.end(end).await;
}

fn refused_upgrade(shared: &Shared, faults: &FakeGatewayFaults, head: &Head) -> Option<Answer> {
    if let Some((status, body)) = &faults.refuse_upgrade {
        return Some(Answer::text(*status, body.clone()));
    }
    if !shared.config.vintage.is_new() {
        return None;
    }
    if shared.phase() == Phase::Draining {
        return Some(Answer::text(503, "Gateway websocket admission closed"));
    }
    head.is_proxied().then(|| {
        let message = "Proxy client attribution is required. Configure gateway.trustedProxies narrowly and make the \
                       proxy overwrite or safely rebuild forwarded client headers.";
        Answer::json(403, json!({"error": {"message": message, "type": "proxy_attribution_required"}}).to_string())
    })
}

struct Session {
    ws: WebSocketStream<Wire>,
    shared: Arc<Shared>,
    faults: Arc<FakeGatewayFaults>,
    registration: Registration,
    receiver: mpsc::Receiver<ToSession>,
    frames_sent: u64,
    seq: u64,
    unauthorized: u32,
    /// Answers that are still to come; they go with the session.
    later: JoinSet<()>,
}

/// A request on the usual path: nothing but known fields, text id. Anything else is looked at in detail.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainRequest<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

impl Session {
    /// The service behind `/__openclaw__/ws` in 2026.3.2: it never says anything.
    async fn other_service(&mut self) -> End {
        loop {
            match self.ws.next().await {
                Some(Ok(_)) => {}
                _ => return End::Gone,
            }
        }
    }

    async fn talk(&mut self, upgrade: &Upgrade) -> End {
        match self.converse(upgrade).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn converse(&mut self, upgrade: &Upgrade) -> Result<std::convert::Infallible, End> {
        let deadline = Instant::now() + self.shared.config.handshake_timeout;
        if !self.faults.challenge_delay.is_zero() {
            sleep(self.faults.challenge_delay).await;
        }
        self.challenge(upgrade).await?;
        let admission = tokio::select! {
            biased;
            admission = self.handshake(upgrade) => admission?,
            // The gateway gives no reason.
            () = sleep_until(deadline) => return Err(End::close(1000, "")),
        };
        self.serve(&admission).await
    }

    async fn challenge(&mut self, upgrade: &Upgrade) -> Result<(), End> {
        let nonce = match self.faults.challenge {
            ChallengeFault::Missing => return Ok(()),
            ChallengeFault::Garbage => {
                self.send("{not json".to_owned()).await?;
                return self.flush().await;
            }
            ChallengeFault::WithoutNonce => None,
            ChallengeFault::EmptyNonce => Some(""),
            ChallengeFault::None => Some(upgrade.nonce.as_str()),
        };
        let payload = content::challenge(
            self.shared.config.vintage,
            nonce,
            upgrade.ts.unwrap_or_else(|| self.shared.now_ms()),
        );
        let frame = Event::targeted("connect.challenge", payload.to_string()).frame(&mut self.seq);
        self.send(frame).await?;
        self.flush().await
    }

    async fn handshake(&mut self, upgrade: &Upgrade) -> Result<Admission, End> {
        let first = self.next_data().await?;
        let new = self.shared.config.vintage.is_new();
        if self
            .shared
            .config
            .max_preauth_payload
            .is_some_and(|limit| first.len() > limit)
        {
            return Err(End::TooLarge);
        }
        let Ok(frame) = serde_json::from_slice::<Value>(&first) else {
            return Err(End::close(1000, ""));
        };
        if schema::request_problem(&frame, self.shared.config.vintage).is_some() {
            return Err(End::close(1008, "invalid request frame"));
        }
        let id = frame["id"].as_str().unwrap_or_default().to_owned();
        if frame["method"] != "connect" {
            return Err(self
                .reject(
                    &json!(id),
                    &Failure::invalid(NO_CONNECT),
                    End::close(1008, NO_CONNECT),
                )
                .await);
        }
        if !new {
            // 2026.3.2 works on a connect for a while; a second request meanwhile finds no client yet.
            if let Ok(second) = timeout(OLD_HANDSHAKE_WORK, self.next_data()).await {
                let id = serde_json::from_slice::<Value>(&second?)
                    .map_or(json!("invalid"), |frame| frame["id"].clone());
                return Err(self
                    .reject(
                        &id,
                        &Failure::invalid(NO_CONNECT),
                        End::close(1008, NO_CONNECT),
                    )
                    .await);
            }
        }
        if let Some(params) = frame.get("params") {
            self.shared.remember_connect(params.clone());
        }
        if self.faults.silent_after_connect {
            loop {
                self.next_data().await?;
            }
        }
        let admission = match admission::admit(&self.shared, frame.get("params"), upgrade) {
            Ok(admission) => admission,
            Err(refused) => {
                sleep(refused.after).await;
                return Err(self.refuse(&id, refused.refusal).await);
            }
        };
        if let Some(refusal) = self.shared.take_refusal(&self.faults) {
            return Err(self.refuse(&id, refusal).await);
        }
        if !self.faults.hello_delay.is_zero() {
            sleep(self.faults.hello_delay).await;
        }
        self.welcome(&id, &admission).await?;
        Ok(admission)
    }

    async fn refuse(&mut self, id: &str, refusal: Refusal) -> End {
        self.shared.count(|statistics| statistics.refused += 1);
        let end = End::close(refusal.close_code, refusal.close_reason);
        if !refusal.answered {
            return end;
        }
        let failure = Failure {
            code: refusal.code,
            message: refusal.message,
            details: refusal.details,
            retryable: refusal.retryable,
            retry_after_ms: refusal.retry_after_ms,
        };
        self.reject(&json!(id), &failure, end).await
    }

    /// Answers with an error and gives the end that follows it.
    async fn reject(&mut self, id: &Value, failure: &Failure, end: End) -> End {
        match self.send(failure_frame(id, failure)).await {
            Ok(()) => end,
            Err(gone) => gone,
        }
    }

    async fn welcome(&mut self, id: &str, admission: &Admission) -> Result<(), End> {
        self.registration.admit(admission.clone());
        let connection_id = random_uuid();
        let payload = match &self.faults.hello_payload {
            Some(payload) => payload.clone(),
            None => content::hello(&self.shared, admission, &connection_id),
        };
        self.send(payload_frame(id, &payload.to_string())).await?;
        if self.faults.garbage_after_hello {
            self.send("{not json".to_owned()).await?;
        }
        if let Some(bytes) = self.faults.oversize_after_hello {
            let payload = format!(r#"{{"data":"{}"}}"#, "x".repeat(bytes));
            let frame = Event::targeted("test.oversize", payload).frame(&mut self.seq);
            self.send(frame).await?;
        }
        if admission.role == "node" {
            let triggers = json!({"triggers": ["openclaw"]}).to_string();
            let frame = Event::targeted("voicewake.changed", triggers).frame(&mut self.seq);
            self.send(frame).await?;
        }
        self.flush().await?;
        if !self.shared.config.vintage.is_new() {
            self.shared.broadcast_health();
        } else if is_announced(&self.shared, admission) {
            self.shared.broadcast_presence(None);
        }
        Ok(())
    }

    async fn serve(&mut self, admission: &Admission) -> Result<std::convert::Infallible, End> {
        let shared = Arc::clone(&self.shared);
        let mut stalled = shared.stalled.subscribe();
        let mut next_ping = shared
            .config
            .ping_interval
            .map(|interval| Instant::now() + interval);
        let mut unanswered_ping: Option<Instant> = None;
        loop {
            becomes(&mut stalled, false).await;
            let overdue = unanswered_ping
                .zip(shared.config.pong_timeout)
                .map(|(since, limit)| since + limit);
            tokio::select! {
                biased;
                () = becomes(&mut stalled, true) => continue,
                order = self.receiver.recv() => self.obey(order).await?,
                message = self.ws.next() => match message {
                    Some(Ok(Message::Pong(_))) => unanswered_ping = None,
                    message => self.take(message, admission).await?,
                },
                () = maybe_until(next_ping) => {
                    self.ws.feed(Message::Ping(Bytes::new())).await?;
                    unanswered_ping = unanswered_ping.or_else(|| Some(Instant::now()));
                    next_ping = shared.config.ping_interval.map(|interval| Instant::now() + interval);
                }
                () = maybe_until(overdue) => return Err(End::Gone),
            }
            for _ in 0..BATCH {
                if let Ok(order) = self.receiver.try_recv() {
                    self.obey(Some(order)).await?;
                } else {
                    match self.ws.next().now_or_never() {
                        Some(Some(Ok(Message::Pong(_)))) => unanswered_ping = None,
                        Some(message) => self.take(message, admission).await?,
                        None => break,
                    }
                }
            }
            self.flush().await?;
        }
    }

    async fn obey(&mut self, order: Option<ToSession>) -> Result<(), End> {
        match order {
            Some(ToSession::Event(event)) => {
                let frame = event.frame(&mut self.seq);
                self.send(frame).await
            }
            Some(ToSession::Frame(frame)) => self.send(frame).await,
            Some(ToSession::Close { code, reason }) => Err(End::Close { code, reason }),
            // Cannot happen: the session holds a sender itself.
            None => Err(End::Gone),
        }
    }

    async fn take(
        &mut self,
        message: Option<Result<Message, WsError>>,
        admission: &Admission,
    ) -> Result<(), End> {
        match message {
            Some(Ok(Message::Text(text))) => self.request(text.as_bytes(), admission).await,
            Some(Ok(Message::Binary(bytes))) => self.request(&bytes, admission).await,
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(error.into()),
            None => Err(End::Gone),
        }
    }

    async fn request(&mut self, bytes: &[u8], admission: &Admission) -> Result<(), End> {
        let plain = serde_json::from_slice::<PlainRequest<'_>>(bytes)
            .ok()
            .filter(|request| {
                request.kind == "req" && !request.id.is_empty() && !request.method.is_empty()
            });
        if let Some(request) = plain {
            return self
                .dispatch(&request.id, &request.method, request.params, admission)
                .await;
        }
        // Not JSON: ignored.
        let Ok(frame) = serde_json::from_slice::<Value>(bytes) else {
            return Ok(());
        };
        if let Some(problem) = schema::request_problem(&frame, self.shared.config.vintage) {
            let id = match &frame["id"] {
                Value::Null => json!("invalid"),
                id => id.clone(),
            };
            let failure = Failure::invalid(format!("invalid request frame: {problem}"));
            return self.send(failure_frame(&id, &failure)).await;
        }
        let params = frame
            .get("params")
            .map(Value::to_string)
            .unwrap_or_else(|| "null".to_owned());
        let params = RawValue::from_string(params).ok();
        let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
        self.dispatch(&text("id"), &text("method"), params.as_deref(), admission)
            .await
    }

    async fn dispatch(
        &mut self,
        id: &str,
        method: &str,
        params: Option<&RawValue>,
        admission: &Admission,
    ) -> Result<(), End> {
        self.shared.count(|statistics| statistics.requests += 1);
        if self.faults.ignore_requests {
            return Ok(());
        }
        if method == "connect" {
            let failure = Failure::invalid("connect is only valid as the first request");
            return self.send(failure_frame(&json!(id), &failure)).await;
        }
        let caller = Caller {
            role: &admission.role,
            scopes: &admission.scopes,
        };
        match methods::call(&self.shared, &caller, method, params) {
            Reply::Payload(payload) => self.send(payload_frame(id, &payload)).await,
            Reply::Failure(failure) => {
                self.send(failure_frame(&json!(id), &failure)).await?;
                self.watch_for_flood(&failure)
            }
            Reply::Later { payload, after } => {
                let (sender, frame) = (
                    self.registration.sender.clone(),
                    payload_frame(id, &payload),
                );
                self.later.spawn(async move {
                    sleep(after).await;
                    // The session may be gone; then nobody waits for the answer.
                    let _ = sender.send(ToSession::Frame(frame)).await;
                });
                while self.later.try_join_next().is_some() {}
                Ok(())
            }
            Reply::Silent => Ok(()),
            Reply::Events { count, bytes } => {
                let payload = format!(r#"{{"data":"{}"}}"#, "x".repeat(bytes));
                for _ in 0..count {
                    let mut event = Event::targeted("test.event", payload.clone());
                    event.numbering = super::event::Numbering::PerConnection;
                    let frame = event.frame(&mut self.seq);
                    self.send(frame).await?;
                }
                self.send(payload_frame(id, &json!({"count": count}).to_string()))
                    .await
            }
            Reply::Raw(text) => {
                self.send(text).await?;
                self.send(payload_frame(id, "{}")).await
            }
            Reply::Close { code, reason } => Err(End::Close { code, reason }),
            Reply::Drop => Err(End::Gone),
        }
    }

    fn watch_for_flood(&mut self, failure: &Failure) -> Result<(), End> {
        if !failure.message.starts_with("unauthorized role") {
            return Ok(());
        }
        self.unauthorized += 1;
        if self.unauthorized >= REPEATED_UNAUTHORIZED {
            return Err(End::close(1008, "repeated unauthorized calls"));
        }
        Ok(())
    }

    /// The next text or binary frame. Obeys a close meanwhile.
    async fn next_data(&mut self) -> Result<Bytes, End> {
        loop {
            unstalled(&self.shared).await;
            tokio::select! {
            biased;
                order = self.receiver.recv() => self.obey(order).await?,
                message = self.ws.next() => match message {
                    Some(Ok(Message::Text(text))) => return Ok(text.into()),
                    Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Err(End::Gone),
                },
            }
        }
    }

    async fn send(&mut self, text: String) -> Result<(), End> {
        if self
            .faults
            .drop_after_frames
            .is_some_and(|limit| self.frames_sent >= limit)
        {
            self.flush().await?;
            return Err(End::Gone);
        }
        self.frames_sent += 1;
        self.ws.feed(Message::text(text)).await?;
        if self.faults.drop_after_frames == Some(self.frames_sent) {
            self.flush().await?;
            return Err(End::Gone);
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), End> {
        self.ws.flush().await.map_err(End::from)
    }

    async fn end(&mut self, end: End) {
        let (code, reason, too_large) = match end {
            End::Gone => return,
            End::Close { code, reason } => (code, reason, false),
            End::TooLarge => (1009, String::new(), true),
        };
        let frame = CloseFrame {
            code: code.into(),
            reason: cut_reason(&reason).into(),
        };
        let closing = async {
            // Errors mean that the peer is gone, which is the goal.
            let _ = self.ws.close(Some(frame)).await;
            if too_large {
                discard(self.ws.get_mut()).await;
            } else {
                while let Some(Ok(_)) = self.ws.next().await {}
            }
        };
        let wait = if too_large { DISCARD_WAIT } else { CLOSE_WAIT };
        let _ = timeout(wait, closing).await;
    }
}

async fn maybe_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn payload_frame(id: &str, payload: &str) -> String {
    format!(
        r#"{{"type":"res","id":{},"ok":true,"payload":{payload}}}"#,
        quoted(id)
    )
}

fn failure_frame(id: &Value, failure: &Failure) -> String {
    json!({"type": "res", "id": id, "ok": false, "error": failure.to_json()}).to_string()
}

fn cut_reason(reason: &str) -> String {
    let mut end = reason.len().min(MAX_CLOSE_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}
