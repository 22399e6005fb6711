//! The task that owns the socket.
//!
//! It has two halves that run side by side in one task. The writing half takes whatever is queued, hands all of it
//! to the transport and flushes once. The reading half takes whatever has arrived, gives answers to their callers and
//! everything else to the subscribers. Neither waits for the other (a peer that stops reading until we read would
//! otherwise block both), and neither ever waits for a listener.
//!
//! When the connection ends, every pending call is settled at once with the same cause, whatever ended it: a close
//! frame, a broken socket, the last handle, or the runtime dropping the task.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use gateway_protocol::event::name::SHUTDOWN;
use gateway_protocol::{
    ErrorCode, ErrorShape, EventFrame, Frame, Payload, RequestId, ResponseOutcome, Shutdown,
    jsonrpc,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use crate::connection::{ConnectionStatistics, DisconnectCause, Disconnected};
use crate::events::{IncomingFrame, Subscribers};
use crate::requests::{CallId, Match, RequestTable};
use crate::transport::{
    FrameSink, FrameStream, TransportError, TransportErrorKind, TransportMessage, TransportPair,
};

/// Frames written, or read, before the other half gets its turn.
const BATCH: usize = 128;

/// How long the peer may take to answer our close frame.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// How long our answer to the peer's close frame may take, and how long to look for a close frame after a failed
/// write: a gateway that restarts sends 1012 and is gone, and the code matters more than the broken pipe.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// One request on its way to the socket.
pub(crate) struct Command {
    pub(crate) id: CallId,
    pub(crate) frame: Bytes,
    /// Room taken by a large frame; freed when the frame has been written or given up.
    pub(crate) _budget: Option<OwnedSemaphorePermit>,
}

/// The wish to close.
#[derive(Debug, Clone)]
pub(crate) struct CloseRequest {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

/// How a call is settled.
#[derive(Debug)]
pub(crate) enum Answer {
    Ok(Option<Payload>),
    Err(Box<ErrorShape>),
    /// The transport refused the frame without sending any of it.
    Refused(TransportError),
    Lost {
        sent: bool,
        disconnected: Arc<Disconnected>,
    },
}

type Waiter = oneshot::Sender<Answer>;

/// The stages of a connection's life.
#[derive(Debug, Clone)]
pub(crate) enum Life {
    Open,
    /// No more frames in either direction; calls are settled.
    Ended(Arc<Disconnected>),
    /// The socket is gone too.
    Closed(Arc<Disconnected>),
}

/// What the handles and the task share.
pub(crate) struct Shared {
    calls: Mutex<Calls>,
    pub(crate) subscribers: Subscribers,
    born: Instant,
    /// Nanoseconds from `born` to the last sign of life.
    last_inbound: AtomicU64,
    frames_received: AtomicU64,
    malformed_frames: AtomicU64,
    life: watch::Sender<Life>,
}

struct Calls {
    requests: RequestTable<Waiter>,
    /// Set when the connection ends, under the same lock as the table, so that no call slips in between.
    ended: Option<Arc<Disconnected>>,
}

impl Shared {
    /// State of a connection whose hello has just arrived.
    pub(crate) fn new(requests: RequestTable<Waiter>) -> Self {
        Self {
            calls: Mutex::new(Calls {
                requests,
                ended: None,
            }),
            subscribers: Subscribers::new(),
            born: Instant::now(),
            last_inbound: AtomicU64::new(0),
            frames_received: AtomicU64::new(0),
            malformed_frames: AtomicU64::new(0),
            life: watch::Sender::new(Life::Open),
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        // No code that could panic runs under this lock.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn register(&self, waiter: Waiter) -> Result<CallId, Arc<Disconnected>> {
        let mut calls = self.calls();
        match &calls.ended {
            Some(disconnected) => Err(disconnected.clone()),
            None => Ok(calls.requests.register(waiter)),
        }
    }

    /// Removes a call; tells whether it had been sent, or `None` when it was settled before.
    pub(crate) fn remove(&self, id: CallId) -> Option<bool> {
        self.calls().requests.remove(id).map(|(_, sent)| sent)
    }

    fn mark_sent(&self, id: CallId) -> bool {
        self.calls().requests.mark_sent(id)
    }

    fn refuse(&self, id: CallId, error: TransportError) {
        let waiter = self.calls().requests.remove(id);
        if let Some((waiter, _)) = waiter {
            // The caller may have gone in this moment.
            let _ = waiter.send(Answer::Refused(error));
        }
    }

    pub(crate) fn last_inbound(&self) -> Instant {
        self.born + Duration::from_nanos(self.last_inbound.load(Ordering::Relaxed))
    }

    fn touch(&self) {
        let nanoseconds = u64::try_from(self.born.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last_inbound.store(nanoseconds, Ordering::Relaxed);
    }

    pub(crate) fn statistics(&self) -> ConnectionStatistics {
        let mut statistics = ConnectionStatistics::default();
        {
            let calls = self.calls();
            statistics.late_answers = calls.requests.late_answers();
            statistics.unknown_answers = calls.requests.unknown_answers();
            statistics.pending_calls = calls.requests.len();
        }
        statistics.frames_received = self.frames_received.load(Ordering::Relaxed);
        statistics.malformed_frames = self.malformed_frames.load(Ordering::Relaxed);
        statistics.dropped_events = self.subscribers.dropped();
        statistics
    }

    pub(crate) fn life(&self) -> Life {
        self.life.borrow().clone()
    }

    pub(crate) fn disconnected(&self) -> Option<Disconnected> {
        match self.life() {
            Life::Open => None,
            Life::Ended(disconnected) | Life::Closed(disconnected) => Some((*disconnected).clone()),
        }
    }

    /// Waits for the end of the connection.
    pub(crate) async fn ended(&self) -> Disconnected {
        self.reach(|life| !matches!(life, Life::Open)).await
    }

    /// Waits until the socket is gone. Bounded by the task's own deadlines.
    pub(crate) async fn socket_closed(&self) -> Disconnected {
        self.reach(|life| matches!(life, Life::Closed(_))).await
    }

    async fn reach(&self, stage: impl Fn(&Life) -> bool) -> Disconnected {
        let mut life = self.life.subscribe();
        let reached = match life.wait_for(|life| stage(life)).await {
            Ok(life) => life.clone(),
            // The sender is part of `self`, so it lives as long as this wait.
            Err(_) => Life::Open,
        };
        match reached {
            Life::Ended(disconnected) | Life::Closed(disconnected) => (*disconnected).clone(),
            Life::Open => Disconnected::stopped(),
        }
    }

    /// Ends the connection once: settles every call, then the subscriptions.
    fn end(&self, disconnected: Disconnected) {
        let disconnected = Arc::new(disconnected);
        let waiters = {
            let mut calls = self.calls();
            if calls.ended.is_some() {
                return;
            }
            calls.ended = Some(disconnected.clone());
            calls.requests.drain()
        };
        self.life.send_replace(Life::Ended(disconnected.clone()));
        for (waiter, sent) in waiters {
            // A caller that has gone needs no answer.
            let _ = waiter.send(Answer::Lost {
                sent,
                disconnected: disconnected.clone(),
            });
        }
        self.subscribers.close();
    }

    fn socket_gone(&self) {
        self.life.send_modify(|life| {
            if let Life::Ended(disconnected) = life {
                *life = Life::Closed(disconnected.clone());
            }
        });
    }

    fn settle(&self, id: &RequestId, answer: Answer) {
        let matched = self.calls().requests.answer(id);
        match matched {
            Match::Waiting(waiter) => {
                // The caller may have gone in this moment.
                let _ = waiter.send(answer);
            }
            Match::Late => tracing::debug!("a late answer was dropped"),
            Match::Unknown => tracing::debug!("an answer to nothing that was asked was dropped"),
        }
    }

    fn receive(&self, bytes: Bytes) -> Option<Shutdown> {
        self.frames_received.fetch_add(1, Ordering::Relaxed);
        let length = bytes.len();
        let frame = match Frame::decode(bytes) {
            Ok(frame) => frame,
            Err(error) => {
                self.malformed_frames.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(length, %error, "skipped a message that is no frame");
                return None;
            }
        };
        match frame {
            Frame::Response(response) => {
                let answer = match response.outcome {
                    ResponseOutcome::Ok(payload) => Answer::Ok(payload),
                    ResponseOutcome::Err(error) => Answer::Err(Box::new(error)),
                };
                self.settle(&response.id, answer);
                None
            }
            Frame::Event(event) => {
                let shutdown = shutdown_notice(&event);
                self.subscribers
                    .publish(IncomingFrame::Event(Arc::new(event)));
                shutdown
            }
            Frame::JsonRpc(jsonrpc::Message::Response(response)) => {
                match response.id {
                    jsonrpc::Id::Value(id) => self.settle(&id, json_rpc_answer(response.outcome)),
                    // We never ask with such an id.
                    _ => self.settle(&RequestId::from(""), Answer::Ok(None)),
                }
                None
            }
            Frame::JsonRpc(message) => {
                self.subscribers
                    .publish(IncomingFrame::JsonRpc(Arc::new(message)));
                None
            }
            Frame::Request(request) => {
                self.subscribers
                    .publish(IncomingFrame::Request(Arc::new(request)));
                None
            }
            Frame::Unknown(payload) => {
                self.subscribers.publish(IncomingFrame::Unknown(payload));
                None
            }
        }
    }
}

fn shutdown_notice(event: &EventFrame) -> Option<Shutdown> {
    if event.event != SHUTDOWN {
        return None;
    }
    event.payload.as_ref()?.parse().ok()
}

fn json_rpc_answer(outcome: Result<Payload, jsonrpc::ErrorObject>) -> Answer {
    match outcome {
        Ok(payload) => Answer::Ok(Some(payload)),
        Err(error) => {
            let code = ErrorCode::Other(error.code.to_string());
            let shape = ErrorShape::new(code, error.message);
            Answer::Err(Box::new(match error.data {
                Some(data) => shape.with_details(data),
                None => shape,
            }))
        }
    }
}

/// Ends the connection if the task is dropped before it could.
struct LastWill(Arc<Shared>);

impl Drop for LastWill {
    fn drop(&mut self) {
        self.0.end(Disconnected::stopped());
        self.0.socket_gone();
    }
}

/// Why the writing half stopped.
enum WriteEnd {
    HandlesGone,
    Failed(TransportError),
}

/// Why the reading half stopped.
enum ReadEnd {
    Closed { code: u16, reason: String },
    Lost(TransportError),
}

/// How to say goodbye.
enum Goodbye {
    /// Send a close frame and wait for the peer's.
    Ours(CloseRequest),
    /// Answer the peer's close frame.
    Theirs,
    /// The socket is broken; one attempt to say why.
    Broken(u16),
}

/// The task: runs until the connection has ended and the socket is closed. Dropping it ends the connection too,
/// even before it ran for the first time.
pub(crate) fn task(
    pair: TransportPair,
    commands: mpsc::Receiver<Command>,
    close_requests: watch::Receiver<Option<CloseRequest>>,
    shared: Arc<Shared>,
) -> impl Future<Output = ()> + Send + 'static {
    let will = LastWill(shared.clone());
    async move {
        run(pair, commands, close_requests, &shared).await;
        drop(will);
    }
}

async fn run(
    pair: TransportPair,
    mut commands: mpsc::Receiver<Command>,
    mut close_requests: watch::Receiver<Option<CloseRequest>>,
    shared: &Shared,
) {
    let TransportPair {
        mut sink,
        mut stream,
    } = pair;
    let mut shutdown = None;

    let (mut disconnected, goodbye) = {
        let writing = write(&mut *sink, &mut commands, shared);
        let reading = read(&mut *stream, shared, &mut shutdown);
        let closing = wish_to_close(&mut close_requests);
        tokio::pin!(writing, reading, closing);
        tokio::select! {
            // What has arrived comes first: an answer that is there is given, and the peer's own word on the end says more than
            // our wish to end. Then what was queued before the wish. Always in this order, so that a history can be played again;
            // nobody starves, for all three wait after a batch, and only an end is ever ready.
            biased;
            end = &mut reading => after_reading(end),
            end = &mut writing => match end {
                WriteEnd::HandlesGone => after_closing(CloseRequest {
                    code: 1000,
                    reason: String::new(),
                }),
                WriteEnd::Failed(error) => match timeout(LAST_WORDS, &mut reading).await {
                    Ok(ReadEnd::Closed { code, reason }) => {
                        after_reading(ReadEnd::Closed { code, reason })
                    }
                    _ => after_reading(ReadEnd::Lost(error)),
                },
            },
            request = &mut closing => after_closing(request),
        }
    };
    disconnected.shutdown = shutdown;
    tracing::debug!(%disconnected, "the connection has ended");
    shared.end(disconnected);
    // Frees what callers that wait for room hold.
    commands.close();
    while commands.try_recv().is_ok() {}

    say_goodbye(&mut *sink, &mut *stream, goodbye).await;
    drop((sink, stream));
    shared.socket_gone();
}

async fn wish_to_close(requests: &mut watch::Receiver<Option<CloseRequest>>) -> CloseRequest {
    let request = match requests.wait_for(Option::is_some).await {
        Ok(request) => request.clone(),
        Err(_) => None,
    };
    match request {
        Some(request) => request,
        // Every handle is gone; the writing half notices that too, after what is queued.
        None => std::future::pending().await,
    }
}

fn after_closing(request: CloseRequest) -> (Disconnected, Goodbye) {
    let disconnected = Disconnected {
        code: Some(request.code),
        reason: request.reason.clone(),
        shutdown: None,
        cause: DisconnectCause::Local,
    };
    (disconnected, Goodbye::Ours(request))
}

fn after_reading(end: ReadEnd) -> (Disconnected, Goodbye) {
    match end {
        ReadEnd::Closed { code, reason } => {
            let disconnected = Disconnected {
                code: Some(code),
                reason,
                shutdown: None,
                cause: DisconnectCause::Peer,
            };
            (disconnected, Goodbye::Theirs)
        }
        ReadEnd::Lost(error) => {
            let code = match error.kind {
                TransportErrorKind::MessageTooLarge { .. } => 1009,
                TransportErrorKind::Malformed => 1002,
                _ => 1000,
            };
            let disconnected = Disconnected {
                code: None,
                reason: String::new(),
                shutdown: None,
                cause: DisconnectCause::Transport(error),
            };
            (disconnected, Goodbye::Broken(code))
        }
    }
}

async fn say_goodbye(sink: &mut dyn FrameSink, stream: &mut dyn FrameStream, goodbye: Goodbye) {
    // Nothing depends on these any more, so neither errors nor deadlines are reported.
    match goodbye {
        Goodbye::Ours(CloseRequest { code, reason }) => {
            let exchange = async {
                if sink.close(code, &reason).await.is_ok() {
                    while let Some(Ok(message)) = stream.next().await {
                        if matches!(message, TransportMessage::Close { .. }) {
                            break;
                        }
                    }
                }
            };
            let _ = timeout(CLOSE_PATIENCE, exchange).await;
        }
        Goodbye::Theirs => {
            // Reading to the end sends the transport's own answer to the close frame.
            let exchange = async {
                let _ = sink.flush().await;
                while let Some(Ok(_)) = stream.next().await {}
            };
            let _ = timeout(LAST_WORDS, exchange).await;
        }
        Goodbye::Broken(code) => {
            let _ = timeout(LAST_WORDS, sink.close(code, "")).await;
        }
    }
}

async fn write(
    sink: &mut dyn FrameSink,
    commands: &mut mpsc::Receiver<Command>,
    shared: &Shared,
) -> WriteEnd {
    loop {
        let Some(first) = commands.recv().await else {
            return WriteEnd::HandlesGone;
        };
        let mut next = Some(first);
        let mut fed = 0;
        while let Some(command) = next.take() {
            // Marked before it is handed over: from here on nobody can say for sure that it was not sent.
            if shared.mark_sent(command.id) {
                match sink.feed(TransportMessage::Text(command.frame)).await {
                    Ok(()) => fed += 1,
                    Err(error) if refused_before_sending(&error) => {
                        shared.refuse(command.id, error)
                    }
                    Err(error) => return WriteEnd::Failed(error),
                }
            }
            if fed < BATCH {
                next = commands.try_recv().ok();
            }
        }
        if fed > 0
            && let Err(error) = sink.flush().await
        {
            return WriteEnd::Failed(error);
        }
    }
}

fn refused_before_sending(error: &TransportError) -> bool {
    matches!(
        error.kind,
        TransportErrorKind::MessageTooLarge { .. } | TransportErrorKind::Malformed
    )
}

async fn read(
    stream: &mut dyn FrameStream,
    shared: &Shared,
    shutdown: &mut Option<Shutdown>,
) -> ReadEnd {
    loop {
        let mut arrived = stream.next().await;
        shared.touch();
        for taken in 1.. {
            match arrived {
                Some(Ok(TransportMessage::Text(bytes) | TransportMessage::Binary(bytes))) => {
                    if let Some(notice) = shared.receive(bytes) {
                        *shutdown = Some(notice);
                    }
                }
                Some(Ok(TransportMessage::Ping(_) | TransportMessage::Pong(_))) => {}
                Some(Ok(TransportMessage::Close { code, reason })) => {
                    return ReadEnd::Closed { code, reason };
                }
                Some(Err(error)) => return ReadEnd::Lost(error),
                None => {
                    return ReadEnd::Lost(TransportError::new(
                        TransportErrorKind::Reset,
                        String::new(),
                    ));
                }
            }
            if taken >= BATCH {
                // A peer that never pauses must not keep the writing half from its turn.
                tokio::task::yield_now().await;
                break;
            }
            match stream.next().now_or_never() {
                Some(next) => arrived = next,
                None => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    /// A peer that has closed already; it says so once.
    #[derive(Default)]
    struct Closed {
        said: bool,
    }

    #[async_trait]
    impl FrameStream for Closed {
        async fn next(&mut self) -> Option<Result<TransportMessage, TransportError>> {
            let close = TransportMessage::Close {
                code: 1012,
                reason: "service restart".to_owned(),
            };
            (!std::mem::replace(&mut self.said, true)).then_some(Ok(close))
        }
    }

    #[async_trait]
    impl FrameSink for Closed {
        async fn feed(&mut self, _: TransportMessage) -> Result<(), TransportError> {
            Ok(())
        }

        async fn flush(&mut self) -> Result<(), TransportError> {
            Ok(())
        }

        async fn close(&mut self, _: u16, _: &str) -> Result<(), TransportError> {
            Ok(())
        }
    }

    /// When the peer has closed, we wish to close and every handle is gone, all in the same moment, the peer's word counts: it says
    /// why. Often enough that chance would show.
    #[tokio::test(start_paused = true)]
    async fn of_ends_in_the_same_moment_the_peers_is_told() {
        for _ in 0..64 {
            let shared = Arc::new(Shared::new(RequestTable::new(1)));
            let (commands, queue) = mpsc::channel(1);
            drop(commands);
            let (_wish, wishes) = watch::channel(Some(CloseRequest {
                code: 1000,
                reason: String::new(),
            }));
            let pair = TransportPair {
                sink: Box::new(Closed::default()),
                stream: Box::new(Closed::default()),
            };
            task(pair, queue, wishes, shared.clone()).await;
            let end = shared.disconnected().expect("it has ended");
            assert_eq!((end.cause, end.code), (DisconnectCause::Peer, Some(1012)));
        }
    }
}
