//! One authenticated connection: calls, events, evidence of life, and its end.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway_protocol::limits::{DEFAULT_MAX_BUFFERED, DEFAULT_MAX_PAYLOAD, MAX_TRACEPARENT};
use gateway_protocol::{CloseCode, Frame, HelloOk, Payload, Request, Shutdown};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use crate::events::EventStream;
use crate::handshake::{self, deadline};
use crate::options::ConnectOptions;
use crate::requests::{CallId, RequestTable};
use crate::rpc::{CallOptions, RpcError};
use crate::socket::{self, Answer, CloseRequest, Command, Life, Shared};
use crate::transport::{Transport, TransportError};

/// A frame from this size on counts against the bytes that may wait for the socket; smaller ones are bounded well
/// enough by their number.
const LARGE_FRAME_BYTES: usize = 32 * 1024;

/// A limit beyond this, however it was advertised, is not believed.
const MAX_FRAME_BYTES: u64 = 1 << 30;

/// A connection to a gateway after a successful handshake.
///
/// Handles are cheap to clone and share one socket, which belongs to one task. When the last handle is dropped the
/// socket is closed with code 1000. A connection never reconnects; when it has ended, open another.
#[derive(Clone)]
pub struct Connection {
    handle: Arc<Handle>,
}

/// What the handles share. The socket's task does not hold it, so that dropping the last handle ends the task.
struct Handle {
    endpoint: Endpoint,
    hello: HelloOk,
    commands: mpsc::Sender<Command>,
    close: watch::Sender<Option<CloseRequest>>,
    shared: Arc<Shared>,
    /// Bytes of large frames that may wait for the socket.
    large_frames: Arc<Semaphore>,
    max_payload: usize,
    call_timeout: Duration,
    event_queue: usize,
}

/// How a connection ended. Every waiter receives the same value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Disconnected {
    /// The close code; `None` when the peer vanished without a close frame.
    pub code: Option<u16>,
    /// The reason in the close frame, often empty.
    pub reason: String,
    /// The last `shutdown` event of this connection. Only its
    /// [`restart_expected`](Shutdown::restart_expected) tells a restart from a stop.
    pub shutdown: Option<Shutdown>,
    /// Whose doing it was.
    pub cause: DisconnectCause,
}

/// Who ended a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisconnectCause {
    /// We did: [`Connection::close`], or the last handle was dropped.
    Local,
    /// The peer closed it in due form.
    Peer,
    /// The socket failed or was reset.
    Transport(TransportError),
}

impl fmt::Display for Disconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            DisconnectCause::Local => f.write_str("closed by this program")?,
            DisconnectCause::Peer => f.write_str("closed by the gateway")?,
            DisconnectCause::Transport(error) => write!(f, "{error}")?,
        }
        if let Some(code) = self.code {
            write!(f, ", code {code}")?;
        }
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        if let Some(shutdown) = &self.shutdown {
            write!(f, ", announced as: {}", shutdown.reason)?;
        }
        Ok(())
    }
}

/// Counters of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatistics {
    /// Data messages received.
    pub frames_received: u64,
    /// Messages that were no frame and were skipped.
    pub malformed_frames: u64,
    /// Answers that came after their call had timed out or was dropped.
    pub late_answers: u64,
    /// Answers to nothing that was asked.
    pub unknown_answers: u64,
    /// Frames dropped because a subscriber did not read.
    pub dropped_events: u64,
    /// Calls without an answer at this moment.
    pub pending_calls: usize,
}

impl Connection {
    /// Dials `endpoint` and performs the handshake.
    ///
    /// Ends within [`ConnectOptions::handshake_timeout`] whatever the peer does. Dropping the future closes the
    /// socket. Must run inside a Tokio runtime, which also runs the task of the new connection.
    ///
    /// # Errors
    /// See [`ConnectError`]; the socket is closed in every case.
    pub async fn open(
        transport: &dyn Transport,
        endpoint: &Endpoint,
        options: ConnectOptions,
    ) -> Result<Self, ConnectError> {
        let mut requests = RequestTable::new(random_prefix());
        let connect_id = requests.reserve();
        let established = handshake::perform(transport, endpoint, &options, connect_id).await?;
        let hello = established.hello;
        tracing::debug!(
            %endpoint,
            protocol = hello.protocol,
            server = hello.server.version,
            connection = hello.server.conn_id,
            "connected"
        );
        let advertised = match hello.policy.max_payload {
            0 => DEFAULT_MAX_PAYLOAD,
            advertised => advertised.min(MAX_FRAME_BYTES),
        };
        let max_payload = usize::try_from(advertised).unwrap_or(usize::MAX);
        if max_payload > options.max_message_bytes {
            tracing::warn!(
                max_payload,
                max_message_bytes = options.max_message_bytes,
                "the gateway may send messages that exceed max_message_bytes and would end the connection"
            );
        }
        // Any frame that is allowed at all must fit.
        let budget = advertised.max(DEFAULT_MAX_BUFFERED);
        let budget = usize::try_from(budget).unwrap_or(Semaphore::MAX_PERMITS);

        let shared = Arc::new(Shared::new(requests));
        for frame in established.early {
            shared.subscribers.publish(frame);
        }
        let (commands, queue) = mpsc::channel(options.command_queue.max(1));
        let (close, close_requests) = watch::channel(None);
        tokio::spawn(socket::task(
            established.pair,
            queue,
            close_requests,
            shared.clone(),
        ));
        Ok(Self {
            handle: Arc::new(Handle {
                endpoint: endpoint.clone(),
                hello,
                commands,
                close,
                shared,
                large_frames: Arc::new(Semaphore::new(budget)),
                max_payload,
                call_timeout: options.call_timeout,
                event_queue: options.event_queue,
            }),
        })
    }

    /// The address that was dialled.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.handle.endpoint
    }

    /// The gateway's acceptance: protocol, server, features, granted scopes, limits.
    #[must_use]
    pub fn hello(&self) -> &HelloOk {
        &self.handle.hello
    }

    /// Calls a method and returns its payload as raw JSON, a slice of the received message.
    ///
    /// The time limit covers everything from now on, waiting for room in the queue included. Dropping the future
    /// gives the call up: a request that has not left is withdrawn, a late answer is counted and dropped.
    ///
    /// # Errors
    /// See [`RpcError`]; [`RpcError::outcome`] tells whether the call may have had an effect.
    pub async fn call_raw(
        &self,
        method: &str,
        params: Option<Payload>,
        options: CallOptions,
    ) -> Result<Option<Payload>, RpcError> {
        let handle = &*self.handle;
        let started = Instant::now();
        let limit = deadline(started, options.timeout.unwrap_or(handle.call_timeout));
        let (waiter, mut answer) = oneshot::channel();
        let id = handle
            .shared
            .register(waiter)
            .map_err(|disconnected| RpcError::NotConnected {
                method: method.to_owned(),
                disconnected,
            })?;
        let entry = Entry {
            shared: &handle.shared,
            id,
        };

        let mut request = Request::new(id.to_string(), method, params);
        if handle.hello.protocol >= 4 {
            request.traceparent = options
                .traceparent
                .filter(|text| text.len() <= MAX_TRACEPARENT);
        }
        let text = Frame::from(request)
            .encode()
            .map_err(|source| RpcError::Encode {
                method: method.to_owned(),
                source,
            })?;
        if text.len() > handle.max_payload {
            return Err(RpcError::TooLarge {
                method: method.to_owned(),
                bytes: text.len(),
                limit: handle.max_payload,
            });
        }

        let exchange = async {
            // A closed queue means that the connection has ended; the answer then says how.
            handle.enqueue(id, text).await;
            (&mut answer).await
        };
        let settled = match timeout_at(limit, exchange).await {
            Ok(settled) => settled,
            Err(_) => match entry.give_up() {
                Some(sent) => {
                    return Err(RpcError::Timeout {
                        method: method.to_owned(),
                        elapsed: started.elapsed(),
                        sent,
                    });
                }
                // It was settled in this very moment.
                None => answer.await,
            },
        };
        match settled {
            Ok(Answer::Ok(payload)) => Ok(payload),
            Ok(Answer::Err(error)) => Err(RpcError::Rejected {
                method: method.to_owned(),
                error,
                elapsed: started.elapsed(),
            }),
            Ok(Answer::Refused(cause)) => Err(RpcError::NotSent {
                method: method.to_owned(),
                cause,
            }),
            Ok(Answer::Lost { sent, disconnected }) => Err(RpcError::ConnectionLost {
                method: method.to_owned(),
                sent,
                disconnected,
            }),
            // Settling consumes the waiter, so it is never dropped silently; say the cautious thing all the same.
            Err(_) => Err(RpcError::ConnectionLost {
                method: method.to_owned(),
                sent: true,
                disconnected: Arc::new(Disconnected::stopped()),
            }),
        }
    }

    /// Calls a method with typed parameters and a typed result, within the connection's default time limit.
    ///
    /// An absent payload is read as `null`, so `R` may be `()` or an `Option`. Cancel behaviour as
    /// [`Connection::call_raw`].
    ///
    /// # Errors
    /// See [`RpcError`].
    pub async fn call<P, R>(&self, method: &str, params: &P) -> Result<R, RpcError>
    where
        P: Serialize + ?Sized + Sync,
        R: DeserializeOwned,
    {
        self.call_with(method, params, CallOptions::default()).await
    }

    /// [`Connection::call`] with options.
    ///
    /// # Errors
    /// See [`RpcError`].
    pub async fn call_with<P, R>(
        &self,
        method: &str,
        params: &P,
        options: CallOptions,
    ) -> Result<R, RpcError>
    where
        P: Serialize + ?Sized + Sync,
        R: DeserializeOwned,
    {
        let params = Payload::from_serialize(params).map_err(|source| RpcError::Encode {
            method: method.to_owned(),
            source,
        })?;
        let payload = self
            .call_raw(method, Some(params), options)
            .await?
            .unwrap_or_default();
        payload.parse_lossy().map_err(|source| RpcError::Decode {
            method: method.to_owned(),
            source,
        })
    }

    /// Proves that the gateway's request router answers: calls the cheap method `health` and returns how long the
    /// answer took. An error in the answer is proof as well.
    ///
    /// # Errors
    /// No answer came: the timeout or the loss of the connection.
    pub async fn verify(&self, deadline: Duration) -> Result<Duration, RpcError> {
        let started = Instant::now();
        let options = CallOptions::timeout(deadline);
        match self.call_raw("health", None, options).await {
            Ok(_) | Err(RpcError::Rejected { .. }) => Ok(started.elapsed()),
            Err(error) => Err(error),
        }
    }

    /// Subscribes to the frames that are not answers, with a queue of its own. The first subscription also receives
    /// what came since the hello (at most the last 64 frames); later ones begin now.
    #[must_use]
    pub fn events(&self) -> EventStream {
        self.events_with_capacity(self.handle.event_queue)
    }

    /// [`Connection::events`] with a queue of `frames`, at least one.
    #[must_use]
    pub fn events_with_capacity(&self, frames: usize) -> EventStream {
        self.handle.shared.subscribers.subscribe(frames)
    }

    /// When anything last arrived, pings and pongs included.
    #[must_use]
    pub fn last_inbound(&self) -> Instant {
        self.handle.shared.last_inbound()
    }

    /// The counters.
    #[must_use]
    pub fn statistics(&self) -> ConnectionStatistics {
        self.handle.shared.statistics()
    }

    /// How the connection ended, if it has.
    #[must_use]
    pub fn disconnected(&self) -> Option<Disconnected> {
        self.handle.shared.disconnected()
    }

    /// Waits until the connection has ended. Any number of waiters; after the end it returns at once.
    ///
    /// The future does not count as a handle: it may be held by a task without keeping the connection open.
    pub fn closed(&self) -> impl Future<Output = Disconnected> + Send + use<> {
        let shared = self.handle.shared.clone();
        async move { shared.ended().await }
    }

    /// Closes the connection: pending calls are settled, a close frame is sent, and the peer has a second to answer
    /// it. Returns how the connection ended, which may have been earlier and for another reason.
    ///
    /// A code that must not be sent is replaced by 1000; a reason is cut to 123 bytes. Cancel safe: once polled,
    /// the closing goes on without the future.
    pub async fn close(&self, code: impl Into<CloseCode>, reason: &str) -> Disconnected {
        let code = code.into();
        let code = if code.may_be_sent() { code.0 } else { 1000 };
        let request = CloseRequest {
            code,
            reason: reason.to_owned(),
        };
        self.handle.close.send_if_modified(|slot| {
            let first = slot.is_none();
            slot.get_or_insert(request);
            first
        });
        self.handle.shared.socket_closed().await
    }
}

impl Handle {
    /// Waits for room and hands the frame to the socket's task.
    async fn enqueue(&self, id: CallId, text: String) {
        let budget = if text.len() >= LARGE_FRAME_BYTES {
            let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
            // The semaphore is never closed.
            self.large_frames
                .clone()
                .acquire_many_owned(bytes)
                .await
                .ok()
        } else {
            None
        };
        let command = Command {
            id,
            frame: Bytes::from(text),
            _budget: budget,
        };
        // An error means that the socket's task has ended and has settled every call.
        let _ = self.commands.send(command).await;
    }
}

/// The entry of one call in the table; removed when the call's future is dropped.
struct Entry<'a> {
    shared: &'a Shared,
    id: CallId,
}

impl Entry<'_> {
    /// Removes the entry; tells whether the frame had gone out, or `None` when the call was settled already.
    fn give_up(&self) -> Option<bool> {
        self.shared.remove(self.id)
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.shared.remove(self.id);
    }
}

impl Disconnected {
    /// The end that is reported when the runtime stops the socket's task.
    pub(crate) fn stopped() -> Self {
        Self {
            code: None,
            reason: "the runtime was shut down".to_owned(),
            shutdown: None,
            cause: DisconnectCause::Local,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hello = &self.handle.hello;
        f.debug_struct("Connection")
            .field("endpoint", &self.handle.endpoint)
            .field("protocol", &hello.protocol)
            .field("server", &hello.server.version)
            .field("connection", &hello.server.conn_id)
            .field("open", &matches!(self.handle.shared.life(), Life::Open))
            .finish_non_exhaustive()
    }
}

/// A prefix that differs between connections. It tells answers apart and protects nothing.
fn random_prefix() -> u32 {
    getrandom::u32().unwrap_or_else(|_| {
        use std::hash::{BuildHasher, RandomState};
        // Seeded once per process by the standard library and stepped for every instance.
        let hash = RandomState::new().hash_one(());
        u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default()
    })
}
