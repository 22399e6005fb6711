//! Frames that nobody asked for, delivered to any number of subscribers.
//!
//! The socket's task must never wait for a listener. Each subscriber therefore has its own bounded queue: when it
//! is full the oldest frames go and the subscriber is told how many, while its neighbours notice nothing. One
//! frame is delivered as one item; a frame of a kind that is not known yet passes through unchanged.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use gateway_protocol::{EventFrame, Payload, Request, jsonrpc};

/// Frames kept for a subscriber that does not read, unless the options say otherwise: 1024.
pub const DEFAULT_EVENT_QUEUE: usize = 1024;

/// Frames kept between hello and the first subscription, so that what the gateway sends right after hello is not
/// lost to a program that subscribes a moment later.
const EARLY_FRAMES: usize = 64;

/// A frame that is not the answer to a call. Cloning is cheap.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum IncomingFrame {
    /// An event of the gateway, known or not.
    Event(Arc<EventFrame>),
    /// A JSON-RPC 2.0 notification or request of an old gateway.
    JsonRpc(Arc<jsonrpc::Message>),
    /// A request of the gateway in its own framing. No gateway sends one today.
    Request(Arc<Request>),
    /// A JSON object of an unknown kind.
    Unknown(Payload),
}

/// What a subscriber receives.
#[derive(Debug, Clone)]
pub enum Delivery {
    /// The next frame, in the order of arrival.
    Frame(IncomingFrame),
    /// The queue was full and the oldest frames were dropped at this place.
    Lagged {
        /// How many were dropped.
        missed: u64,
    },
}

/// A subscription to the frames of one connection. It ends (`None`) after the connection has ended and the queue
/// is empty. Dropping it unsubscribes.
///
/// It is also a [`futures_util::Stream`].
#[derive(Debug)]
pub struct EventStream {
    queue: Arc<Queue>,
}

impl EventStream {
    /// The next frame, or how many were missed; `None` after the end of the connection.
    ///
    /// Cancel safe: dropping the future loses nothing. It has no deadline; a connection that is silent for long is
    /// the business of whoever watches [`Connection::last_inbound`](crate::Connection::last_inbound).
    pub async fn next(&mut self) -> Option<Delivery> {
        std::future::poll_fn(|cx| self.queue.poll(cx)).await
    }

    /// A frame that has arrived already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        self.queue.lock().take()
    }
}

impl Stream for EventStream {
    type Item = Delivery;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.queue.poll(cx)
    }
}

#[derive(Debug)]
struct Queue {
    state: Mutex<QueueState>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct QueueState {
    frames: VecDeque<IncomingFrame>,
    missed: u64,
    closed: bool,
    waker: Option<Waker>,
}

impl QueueState {
    fn take(&mut self) -> Option<Delivery> {
        // Frames are dropped at the front, so the gap lies before the first frame that is left.
        if self.missed > 0 {
            let missed = std::mem::take(&mut self.missed);
            return Some(Delivery::Lagged { missed });
        }
        self.frames.pop_front().map(Delivery::Frame)
    }
}

impl Queue {
    fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::default(),
            capacity: capacity.max(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // No code that could panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Delivery>> {
        let mut state = self.lock();
        if let Some(delivery) = state.take() {
            return Poll::Ready(Some(delivery));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Adds a frame; returns how many were dropped to make room.
    fn push(&self, frame: IncomingFrame) -> u64 {
        let mut state = self.lock();
        let mut dropped = 0;
        if state.frames.len() >= self.capacity {
            state.frames.pop_front();
            state.missed += 1;
            dropped = 1;
        }
        state.frames.push_back(frame);
        // Taken, so a batch of frames wakes the subscriber once.
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        dropped
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The sending side: the list of subscribers of one connection.
#[derive(Debug)]
pub(crate) struct Subscribers {
    state: Mutex<SubscribersState>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct SubscribersState {
    queues: Vec<Weak<Queue>>,
    /// The queue that waits for the first subscriber.
    early: Option<Arc<Queue>>,
    closed: bool,
}

impl Subscribers {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(SubscribersState {
                queues: Vec::new(),
                early: Some(Arc::new(Queue::new(EARLY_FRAMES))),
                closed: false,
            }),
            dropped: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, SubscribersState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new subscription. The first one also receives what arrived before it.
    pub(crate) fn subscribe(&self, capacity: usize) -> EventStream {
        let mut state = self.lock();
        let queue = Arc::new(Queue::new(capacity));
        if let Some(early) = state.early.take() {
            let mut early = early.lock();
            let mut fresh = queue.lock();
            fresh.missed = early.missed;
            let excess = early.frames.len().saturating_sub(queue.capacity);
            fresh.missed += excess as u64;
            fresh.frames = early.frames.drain(..).skip(excess).collect();
        }
        if state.closed {
            queue.close();
        } else {
            state.queues.push(Arc::downgrade(&queue));
        }
        EventStream { queue }
    }

    /// Delivers one frame to everybody.
    pub(crate) fn publish(&self, frame: IncomingFrame) {
        let mut dropped = 0;
        let mut state = self.lock();
        if let Some(early) = &state.early {
            early.push(frame);
            return;
        }
        let mut gone = false;
        if let [only] = state.queues.as_slice() {
            match only.upgrade() {
                Some(queue) => dropped += queue.push(frame),
                None => gone = true,
            }
        } else {
            for queue in &state.queues {
                match queue.upgrade() {
                    Some(queue) => dropped += queue.push(frame.clone()),
                    None => gone = true,
                }
            }
        }
        if gone {
            state.queues.retain(|queue| queue.strong_count() > 0);
        }
        drop(state);
        if dropped > 0 {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    /// Ends every subscription, also later ones, after what is queued.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for queue in state.queues.drain(..) {
            if let Some(queue) = queue.upgrade() {
                queue.close();
            }
        }
    }

    /// Frames dropped from full queues so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(n: usize) -> IncomingFrame {
        let json = format!("{{\"n\":{n}}}");
        IncomingFrame::Unknown(Payload::from_json(json).expect("valid JSON"))
    }

    fn number(delivery: &Delivery) -> String {
        match delivery {
            Delivery::Frame(IncomingFrame::Unknown(payload)) => payload.as_str().to_owned(),
            Delivery::Lagged { missed } => format!("missed {missed}"),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn drain(stream: &mut EventStream) -> Vec<String> {
        std::iter::from_fn(|| stream.try_next())
            .map(|delivery| number(&delivery))
            .collect()
    }

    #[test]
    fn a_slow_subscriber_is_told_and_its_neighbour_is_not_affected() {
        let subscribers = Subscribers::new();
        let mut slow = subscribers.subscribe(2);
        let mut fast = subscribers.subscribe(10);
        for n in 0..5 {
            subscribers.publish(frame(n));
        }
        assert_eq!(drain(&mut slow), ["missed 3", "{\"n\":3}", "{\"n\":4}"]);
        assert_eq!(drain(&mut fast).len(), 5);
        assert_eq!(subscribers.dropped(), 3);
        subscribers.publish(frame(9));
        assert_eq!(drain(&mut slow), ["{\"n\":9}"], "the gap is reported once");
    }

    #[test]
    fn the_first_subscriber_receives_what_came_before_it() {
        let subscribers = Subscribers::new();
        for n in 0..3 {
            subscribers.publish(frame(n));
        }
        let mut first = subscribers.subscribe(2);
        let mut second = subscribers.subscribe(2);
        assert_eq!(drain(&mut first), ["missed 1", "{\"n\":1}", "{\"n\":2}"]);
        assert_eq!(drain(&mut second), [""; 0]);
    }

    #[test]
    fn what_nobody_subscribes_to_is_bounded() {
        let subscribers = Subscribers::new();
        for n in 0..EARLY_FRAMES + 5 {
            subscribers.publish(frame(n));
        }
        let mut first = subscribers.subscribe(1000);
        assert_eq!(
            first.try_next().as_ref().map(number).as_deref(),
            Some("missed 5")
        );
        assert_eq!(drain(&mut first).len(), EARLY_FRAMES);
    }

    #[tokio::test]
    async fn the_end_comes_after_the_queued_frames() {
        let subscribers = Subscribers::new();
        let mut stream = subscribers.subscribe(4);
        subscribers.publish(frame(1));
        subscribers.close();
        assert!(matches!(stream.next().await, Some(Delivery::Frame(_))));
        assert!(stream.next().await.is_none());
        assert!(subscribers.subscribe(4).next().await.is_none());
    }

    #[tokio::test]
    async fn a_waiting_subscriber_is_woken() {
        let subscribers = Arc::new(Subscribers::new());
        let mut stream = subscribers.subscribe(4);
        let reader = tokio::spawn(async move { stream.next().await });
        tokio::task::yield_now().await;
        subscribers.publish(frame(1));
        assert!(reader.await.expect("no panic").is_some());
    }

    #[test]
    fn a_dropped_subscription_is_forgotten() {
        let subscribers = Subscribers::new();
        drop(subscribers.subscribe(4));
        drop(subscribers.subscribe(4));
        subscribers.publish(frame(1));
        assert_eq!(subscribers.lock().queues.len(), 0);
        assert_eq!(subscribers.dropped(), 0);
    }
}
