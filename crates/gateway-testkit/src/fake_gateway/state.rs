//! What all sockets of one fake gateway share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use super::admission::{Admission, Secrets};
use super::configuration::Configuration;
use super::content;
use super::event::{Event, Numbering, StateVersion};
use super::options::{FakeGatewayConfig, FakeGatewayFaults, FixedChallenge, PairedDevice};

/// How many `connect` attempts are remembered.
const REMEMBERED_CONNECTS: usize = 256;

/// Whether the gateway serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Listens, sends challenges, refuses every `connect` (2026.9.6 only).
    Starting,
    /// Serves.
    Ready,
    /// Waits for an agent run before it stops (2026.9.6 only).
    Draining,
}

/// Counters of a fake gateway. All but the two gauges only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FakeGatewayStatistics {
    /// TCP connections accepted.
    pub accepted: u64,
    /// Plain HTTP requests answered.
    pub http_requests: u64,
    /// WebSocket upgrades refused with an HTTP status.
    pub refused_upgrades: u64,
    /// WebSocket upgrades done.
    pub upgraded: u64,
    /// `connect` requests refused.
    pub refused: u64,
    /// `hello-ok` sent.
    pub hellos: u64,
    /// Requests received after `hello-ok`.
    pub requests: u64,
    /// In-process restarts finished.
    pub restarts: u64,
    /// Gauge: sockets with `hello-ok` that are open now.
    pub connected: u64,
    /// Gauge: sockets without `hello-ok` that are open now.
    pub unauthenticated: u64,
}

/// What the rest of the gateway sends to the task of one socket.
#[derive(Debug)]
pub(super) enum ToSession {
    Event(Arc<Event>),
    /// A whole frame, for example an answer that was delayed.
    Frame(String),
    Close {
        code: u16,
        reason: String,
    },
}

/// What somebody asks of the server task.
#[derive(Debug)]
pub(super) enum Command {
    Stop {
        restart: bool,
    },
    StopAfter {
        restart: bool,
        delay: Duration,
    },
    CloseAll {
        code: u16,
        reason: String,
        delay: Duration,
    },
}

#[derive(Debug)]
struct Link {
    sender: mpsc::Sender<ToSession>,
    /// Cuts the connection without a close frame.
    cut: Arc<Notify>,
    admission: Option<Admission>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    port: u16,
    boot_id: String,
    token: Option<SecretString>,
    faults: Arc<FakeGatewayFaults>,
    refused_by_fault: u64,
    wrong_tokens: u32,
    version: StateVersion,
    event_seq: u64,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    connects: VecDeque<Value>,
    fixed_challenges: VecDeque<FixedChallenge>,
    /// Where connections in memory go while the gateway listens.
    memory: Option<mpsc::Sender<DuplexStream>>,
    /// A moment and what the server clock said then.
    clock: (Instant, u64),
}

impl Inner {
    fn now_ms(&self) -> u64 {
        let (moment, ms) = self.clock;
        ms.saturating_add(content::millis(moment.elapsed()))
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: FakeGatewayConfig,
    started: Instant,
    inner: Mutex<Inner>,
    paired: Mutex<Vec<PairedDevice>>,
    configuration: Mutex<Configuration>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) stalled: watch::Sender<bool>,
    /// Changes when the listeners close; connections that are not WebSockets yet end with them.
    pub(super) closing: watch::Sender<u64>,
    pub(super) statistics: watch::Sender<FakeGatewayStatistics>,
    pub(super) runs: watch::Sender<usize>,
}

/// A poisoned lock only means that another test thread panicked; the data is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(config: FakeGatewayConfig, commands: mpsc::Sender<Command>) -> Self {
        let inner = Inner {
            phase: Phase::Starting,
            port: 0,
            boot_id: random_uuid(),
            token: config.token.clone(),
            faults: Arc::new(config.faults.clone()),
            refused_by_fault: 0,
            wrong_tokens: 0,
            version: StateVersion {
                presence: 1,
                health: 1,
            },
            // 2026.3.2 numbers for the whole process, so the first number a client sees is arbitrary.
            event_seq: 17,
            links: BTreeMap::new(),
            next_link: 0,
            connects: VecDeque::new(),
            fixed_challenges: config.fixed_challenges.clone().into(),
            memory: None,
            clock: (Instant::now(), wall_clock_ms()),
        };
        Self {
            started: Instant::now(),
            inner: Mutex::new(inner),
            paired: Mutex::new(config.paired_devices.clone()),
            configuration: Mutex::new(Configuration::load(
                config.config_path.as_deref(),
                &config.state_dir,
            )),
            commands,
            stalled: watch::Sender::new(false),
            closing: watch::Sender::default(),
            statistics: watch::Sender::default(),
            runs: watch::Sender::default(),
            config,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        lock(&self.inner).now_ms()
    }

    /// Nonce and, when it is known beforehand, time of the next socket's challenge.
    pub(super) fn next_challenge(&self) -> (String, Option<u64>) {
        let mut inner = lock(&self.inner);
        match inner.fixed_challenges.pop_front() {
            Some(fixed) => {
                inner.clock = (Instant::now(), fixed.ts);
                (fixed.nonce, Some(fixed.ts))
            }
            None => (random_uuid(), None),
        }
    }

    pub(super) fn uptime_ms(&self) -> u64 {
        content::millis(self.started.elapsed())
    }

    pub(super) fn open_memory(&self, sender: mpsc::Sender<DuplexStream>) {
        lock(&self.inner).memory = Some(sender);
    }

    pub(super) fn close_memory(&self) {
        lock(&self.inner).memory = None;
    }

    pub(super) fn connect_memory(&self) -> Option<DuplexStream> {
        const PIPE_BYTES: usize = 256 * 1024;
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        lock(&self.inner).memory.as_ref()?.try_send(server).ok()?;
        Some(client)
    }

    pub(super) fn phase(&self) -> Phase {
        lock(&self.inner).phase
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        lock(&self.inner).phase = phase;
    }

    pub(super) fn port(&self) -> u16 {
        lock(&self.inner).port
    }

    pub(super) fn set_port(&self, port: u16) {
        lock(&self.inner).port = port;
    }

    pub(super) fn boot_id(&self) -> String {
        lock(&self.inner).boot_id.clone()
    }

    pub(super) fn new_boot(&self) {
        self.runs.send_replace(0);
        let mut inner = lock(&self.inner);
        inner.boot_id = random_uuid();
        inner.version.health = 1;
        drop(inner);
        *lock(&self.configuration) =
            Configuration::load(self.config.config_path.as_deref(), &self.config.state_dir);
    }

    pub(super) fn token(&self) -> Option<SecretString> {
        lock(&self.inner).token.clone()
    }

    pub(super) fn set_token(&self, token: impl Into<SecretString>) {
        lock(&self.inner).token = Some(token.into());
    }

    pub(super) fn faults(&self) -> Arc<FakeGatewayFaults> {
        Arc::clone(&lock(&self.inner).faults)
    }

    pub(super) fn set_faults(&self, faults: FakeGatewayFaults) {
        let mut inner = lock(&self.inner);
        inner.faults = Arc::new(faults);
        inner.refused_by_fault = 0;
    }

    /// Whether the `refuse` fault holds for the next connect; counts it if so.
    pub(super) fn take_refusal(&self, faults: &FakeGatewayFaults) -> Option<super::Refusal> {
        let refusal = faults.refuse.as_ref()?;
        let mut inner = lock(&self.inner);
        if faults
            .refuse_first
            .is_some_and(|limit| inner.refused_by_fault >= limit)
        {
            return None;
        }
        inner.refused_by_fault += 1;
        Some(refusal.clone())
    }

    pub(super) fn next_wrong_token_delay(&self) -> Duration {
        const DOUBLINGS: u32 = 4;
        let first = self.config.wrong_token_delay;
        let mut inner = lock(&self.inner);
        let doublings = inner.wrong_tokens.min(DOUBLINGS + 1);
        inner.wrong_tokens += 1;
        if doublings > DOUBLINGS {
            first * 20
        } else {
            first * 2_u32.pow(doublings)
        }
    }

    pub(super) fn paired(&self) -> MutexGuard<'_, Vec<PairedDevice>> {
        lock(&self.paired)
    }

    pub(super) fn knows_device_token(&self, id: &str, role: &str, secrets: &Secrets<'_>) -> bool {
        self.paired().iter().any(|device| {
            device.id == id
                && device.role == role
                && secrets.matches_device_token(device.token.expose_secret())
        })
    }

    pub(super) fn configuration(&self) -> MutexGuard<'_, Configuration> {
        lock(&self.configuration)
    }

    pub(super) fn state_version(&self) -> StateVersion {
        lock(&self.inner).version
    }

    /// Whether a `health` event has been made since the start.
    pub(super) fn has_health(&self) -> bool {
        lock(&self.inner).version.health > 1
    }

    pub(super) fn remember_connect(&self, params: Value) {
        let mut inner = lock(&self.inner);
        if inner.connects.len() == REMEMBERED_CONNECTS {
            inner.connects.pop_front();
        }
        inner.connects.push_back(params);
    }

    pub(super) fn connects(&self) -> Vec<Value> {
        lock(&self.inner).connects.iter().cloned().collect()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut FakeGatewayStatistics)) {
        self.statistics.send_modify(change);
    }

    /// Takes a place among the sockets, or none when too many have not connected yet.
    pub(super) fn register(
        self: &Arc<Self>,
        cut: Arc<Notify>,
    ) -> Option<(Registration, mpsc::Receiver<ToSession>)> {
        let (sender, receiver) = mpsc::channel(self.config.event_queue.max(1));
        let mut inner = lock(&self.inner);
        let waiting = inner
            .links
            .values()
            .filter(|link| link.admission.is_none())
            .count();
        if self
            .config
            .max_unauthenticated
            .is_some_and(|limit| waiting >= limit)
        {
            return None;
        }
        let id = inner.next_link;
        inner.next_link += 1;
        inner.links.insert(
            id,
            Link {
                sender: sender.clone(),
                cut,
                admission: None,
            },
        );
        drop(inner);
        self.count(|statistics| {
            statistics.upgraded += 1;
            statistics.unauthenticated += 1;
        });
        Some((
            Registration {
                id,
                sender,
                shared: Arc::clone(self),
            },
            receiver,
        ))
    }

    /// The presence list as it is now.
    pub(super) fn presence(&self) -> Vec<Value> {
        let inner = lock(&self.inner);
        let now = inner.now_ms();
        let own = content::own_presence(self.config.vintage, &inner.boot_id, now);
        let clients = inner
            .links
            .values()
            .filter_map(|link| link.admission.as_ref())
            .map(|admission| {
                content::client_presence(self.config.vintage, admission, "connect", now)
            });
        std::iter::once(own).chain(clients).collect()
    }

    pub(super) fn broadcast_presence(&self, gone: Option<&Admission>) {
        let mut presence = self.presence();
        if let Some(gone) = gone {
            presence.push(content::client_presence(
                self.config.vintage,
                gone,
                "disconnect",
                self.now_ms(),
            ));
        }
        self.broadcast(
            "presence",
            serde_json::json!({ "presence": presence }).to_string(),
            true,
        );
    }

    pub(super) fn broadcast_health(&self) {
        lock(&self.inner).version.health += 1;
        let health = content::health(self).to_string();
        self.broadcast("health", health, true);
    }

    /// Sends an event to every connected client. A client whose queue is full is cut off, as the gateway does.
    pub(super) fn broadcast(&self, name: &str, payload: String, versioned: bool) {
        let new = self.config.vintage.is_new();
        let mut inner = lock(&self.inner);
        let numbering = if new {
            Numbering::PerConnection
        } else {
            inner.event_seq += 1;
            Numbering::Process(inner.event_seq)
        };
        let event = Arc::new(Event {
            name: name.to_owned(),
            payload,
            numbering,
            state_version: versioned.then_some(inner.version),
            recipient: new && name == "presence",
        });
        for link in inner.links.values().filter(|link| link.admission.is_some()) {
            if link
                .sender
                .try_send(ToSession::Event(Arc::clone(&event)))
                .is_err()
            {
                link.cut.notify_one();
            }
        }
    }

    /// Closes sockets. A full queue means that the peer does not read; then the connection is cut.
    pub(super) fn close_all(&self, code: u16, reason: &str, unauthenticated_too: bool) {
        let inner = lock(&self.inner);
        for link in inner
            .links
            .values()
            .filter(|link| unauthenticated_too || link.admission.is_some())
        {
            if link
                .sender
                .try_send(ToSession::Close {
                    code,
                    reason: reason.to_owned(),
                })
                .is_err()
            {
                link.cut.notify_one();
            }
        }
    }

    /// Cuts the sockets that never connected.
    pub(super) fn drop_unauthenticated(&self) {
        for link in lock(&self.inner)
            .links
            .values()
            .filter(|link| link.admission.is_none())
        {
            link.cut.notify_one();
        }
    }

    /// Cuts every TCP connection that belongs to a WebSocket.
    pub(super) fn drop_all(&self) {
        for link in lock(&self.inner).links.values() {
            link.cut.notify_one();
        }
    }
}

/// One socket's place in the books; leaving it is dropping this.
#[derive(Debug)]
pub(super) struct Registration {
    id: u64,
    pub(super) sender: mpsc::Sender<ToSession>,
    shared: Arc<Shared>,
}

impl Registration {
    pub(super) fn admit(&self, admission: Admission) {
        let mut inner = lock(&self.shared.inner);
        inner.version.presence += 1;
        if let Some(link) = inner.links.get_mut(&self.id) {
            link.admission = Some(admission);
        }
        drop(inner);
        self.shared
            .config
            .log
            .line("ws", &format!("client connected conn={}", self.id));
        self.shared.count(|statistics| {
            statistics.hellos += 1;
            statistics.connected += 1;
            statistics.unauthenticated -= 1;
        });
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut inner = lock(&self.shared.inner);
        let admission = inner.links.remove(&self.id).and_then(|link| link.admission);
        if admission.is_some() {
            inner.version.presence += 1;
        }
        drop(inner);
        self.shared.count(|statistics| {
            if admission.is_some() {
                statistics.connected -= 1;
            } else {
                statistics.unauthenticated -= 1;
            }
        });
        if admission.is_some() {
            self.shared
                .config
                .log
                .line("ws", &format!("client disconnected conn={}", self.id));
        }
        if let Some(admission) = admission.filter(|admission| is_announced(&self.shared, admission))
        {
            self.shared.broadcast_presence(Some(&admission));
        }
    }
}

/// 2026.9.6 keeps backends out of the presence list's events.
pub(super) fn is_announced(shared: &Shared, admission: &Admission) -> bool {
    !shared.config.vintage.is_new() || admission.client["mode"] != "backend"
}

fn wall_clock_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, content::millis)
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without random numbers a fake still works, with names that repeat; FakeGateway::start reports the failure.
    let _ = getrandom::fill(&mut bytes);
    bytes
}

/// A version 4 UUID.
pub(super) fn random_uuid() -> String {
    let mut bytes = random_bytes::<16>();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// 43 characters, like the gateway's device tokens.
pub(crate) fn random_token() -> String {
    Base64UrlUnpadded::encode_string(&random_bytes::<32>())
}
