//! What a fake gateway is told before it starts, and the faults it can be told at any time.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The OpenClaw release whose behaviour is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Vintage {
    /// OpenClaw 2026.3.2, which speaks protocol 3.
    #[serde(rename = "2026.3.2")]
    V2026_3_2,
    /// OpenClaw 2026.9.6, which speaks protocol 4. The default.
    #[default]
    #[serde(rename = "2026.9.6")]
    V2026_9_6,
}

impl Vintage {
    /// Every vintage, oldest first.
    pub const ALL: [Self; 2] = [Self::V2026_3_2, Self::V2026_9_6];

    /// The release as OpenClaw writes it, for example `2026.9.6`.
    #[must_use]
    pub const fn release(self) -> &'static str {
        match self {
            Self::V2026_3_2 => "2026.3.2",
            Self::V2026_9_6 => "2026.9.6",
        }
    }

    /// The protocol version in `hello-ok`.
    #[must_use]
    pub const fn protocol(self) -> u32 {
        match self {
            Self::V2026_3_2 => 3,
            Self::V2026_9_6 => 4,
        }
    }

    /// The exit code for a configuration that cannot be used.
    #[must_use]
    pub const fn invalid_config_exit(self) -> u8 {
        match self {
            Self::V2026_3_2 => 1,
            Self::V2026_9_6 => 78,
        }
    }

    pub(crate) const fn is_new(self) -> bool {
        matches!(self, Self::V2026_9_6)
    }
}

/// A challenge that is known beforehand. The server clock is set to its time when it is sent.
///
/// With it a recorded `connect` frame, signature included, can be sent again unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedChallenge {
    /// The nonce sent in `connect.challenge`.
    pub nonce: String,
    /// The server clock, in milliseconds since the Unix epoch.
    pub ts: u64,
}

/// A device the gateway knows before anybody connects.
#[derive(Clone, Debug)]
pub struct PairedDevice {
    /// Lower-case hex SHA-256 of the public key.
    pub id: String,
    /// The token a previous `hello-ok` gave out.
    pub token: SecretString,
    /// Approved role.
    pub role: String,
    /// Approved scopes.
    pub scopes: Vec<String>,
    /// Pinned `client.platform`; a different one needs a new approval.
    pub platform: Option<String>,
    /// Pinned `client.deviceFamily`; a different one needs a new approval.
    pub device_family: Option<String>,
}

/// An answer to `connect` that is not `hello-ok`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Refusal {
    /// `error.code`.
    pub code: String,
    /// `error.message`.
    pub message: String,
    /// `error.details`.
    pub details: Option<Value>,
    /// `error.retryable`.
    pub retryable: Option<bool>,
    /// `error.retryAfterMs`.
    pub retry_after_ms: Option<u64>,
    /// Close code that follows the answer.
    pub close_code: u16,
    /// Close reason; longer than 120 bytes is cut, as the gateway does.
    pub close_reason: String,
    /// Whether the error answer is sent at all before the close.
    pub answered: bool,
}

impl Refusal {
    /// A refusal whose close frame repeats the message with code 1008, the most common form.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code: code.into(),
            close_reason: message.clone(),
            message,
            details: None,
            retryable: None,
            retry_after_ms: None,
            close_code: 1008,
            answered: true,
        }
    }

    /// Sets `error.details`.
    #[must_use]
    pub fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    /// Sets the close frame.
    #[must_use]
    pub fn close(mut self, code: u16, reason: impl Into<String>) -> Self {
        self.close_code = code;
        self.close_reason = reason.into();
        self
    }

    /// Sets `retryable: true` and `retryAfterMs`.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retryable = Some(true);
        self.retry_after_ms = u64::try_from(after.as_millis()).ok();
        self
    }
}

impl Default for Refusal {
    fn default() -> Self {
        Self::new("UNAVAILABLE", "refused by the test")
    }
}

/// What is wrong with `connect.challenge`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeFault {
    /// Nothing.
    #[default]
    None,
    /// It is never sent.
    Missing,
    /// It has no `nonce`.
    WithoutNonce,
    /// Its `nonce` is the empty string.
    EmptyNonce,
    /// A frame that is not JSON is sent in its place.
    Garbage,
}

/// Things a gateway never does when it is well. All off by default; a change holds for sockets accepted after it.
///
/// As JSON the fields keep their names; waits end in `_ms` and are numbers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FakeGatewayFaults {
    /// Accept TCP and then say nothing, not even the upgrade.
    pub silent_after_accept: bool,
    /// Answer the upgrade with this HTTP status and body.
    pub refuse_upgrade: Option<(u16, String)>,
    /// What is wrong with the challenge.
    pub challenge: ChallengeFault,
    /// Wait this long before the challenge.
    #[serde(rename = "challenge_delay_ms", with = "millis")]
    pub challenge_delay: Duration,
    /// Refuse every good `connect` with this.
    pub refuse: Option<Refusal>,
    /// Refuse only this many connects with [`refuse`](Self::refuse), counted from the moment the faults were set.
    pub refuse_first: Option<u64>,
    /// Take `connect` and never answer.
    pub silent_after_connect: bool,
    /// Wait this long before `hello-ok`.
    #[serde(rename = "hello_delay_ms", with = "millis")]
    pub hello_delay: Duration,
    /// Answer `connect` with this payload instead of a good one.
    pub hello_payload: Option<Value>,
    /// Send a frame that is not JSON right after `hello-ok`.
    pub garbage_after_hello: bool,
    /// Send an event frame of about this many bytes right after `hello-ok`.
    pub oversize_after_hello: Option<usize>,
    /// Cut the TCP connection after this many frames have been sent on it, the challenge included.
    pub drop_after_frames: Option<u64>,
    /// Read requests and never answer any of them. Pings are answered, events are sent.
    pub ignore_requests: bool,
    /// Send no `tick` events.
    pub no_ticks: bool,
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// Is told what a gateway would log: a subsystem and a sentence.
#[derive(Clone, Default)]
pub struct LogHook(Option<Arc<LogFn>>);

type LogFn = dyn Fn(&str, &str) + Send + Sync;

impl LogHook {
    /// Calls `hook` with subsystem and message for every line, on the gateway's own thread.
    pub fn new(hook: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hook)))
    }

    pub(super) fn line(&self, subsystem: &str, message: &str) {
        if let Some(hook) = &self.0 {
            hook(subsystem, message);
        }
    }
}

impl fmt::Debug for LogHook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() {
            "LogHook(set)"
        } else {
            "LogHook(none)"
        })
    }
}

/// Why a fake gateway could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FakeGatewayError {
    /// The address could not be bound.
    #[error("cannot listen on {address}: {source}; use port 0 to let the system choose a free one")]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// No random numbers from the operating system.
    #[error("the operating system gave no random numbers: {0}")]
    Random(String),
}

/// The settings of a [`FakeGateway`](super::FakeGateway).
///
/// [`new`](Self::new) gives what the release does, except that nothing is slow: waits that only cost time in a test are
/// zero unless they are set.
#[derive(Clone, Debug)]
pub struct FakeGatewayConfig {
    /// The release to copy.
    pub vintage: Vintage,
    /// The shared token. `None` refuses everybody, like a gateway that made up a token of its own.
    pub token: Option<SecretString>,
    /// The port; 0 lets the system choose. Default 0.
    pub port: u16,
    /// Also listen on `[::1]`; when that fails the gateway only warns, like the real one. Default true.
    pub ipv6: bool,
    /// `snapshot.stateDir`. Default `/fake/openclaw`.
    pub state_dir: PathBuf,
    /// The configuration file. `None` keeps the configuration in memory.
    pub config_path: Option<PathBuf>,
    /// How long the gateway says "starting" after it listens. 2026.3.2 has no such phase and ignores it. Default zero.
    pub ready_after: Duration,
    /// How long the port is closed during an in-process restart. Default 20 ms.
    pub restart_gap: Duration,
    /// Time between a reply that causes a restart and the restart. Default 20 ms (OpenClaw: 0.6 s and more).
    pub restart_delay: Duration,
    /// Interval of `tick` events and `policy.tickIntervalMs`. Default 30 s.
    pub tick_interval: Duration,
    /// Interval of `health` events. Default 60 s.
    pub health_interval: Duration,
    /// Interval of server pings. Default 25 s in 2026.9.6, none in 2026.3.2.
    pub ping_interval: Option<Duration>,
    /// TCP is cut when no pong came for this long after a ping. Default 50 s in 2026.9.6, never in 2026.3.2.
    pub pong_timeout: Option<Duration>,
    /// Sockets without a good `connect` are closed after this. Default 15 s, 10 s in 2026.3.2.
    pub handshake_timeout: Duration,
    /// `policy.maxPayload`. Default 26 214 400 bytes.
    pub max_payload: usize,
    /// Largest frame before `hello-ok`. Default 65 536 bytes, none in 2026.3.2.
    pub max_preauth_payload: Option<usize>,
    /// Sockets that have not connected yet. Default 32, none in 2026.3.2.
    pub max_unauthenticated: Option<usize>,
    /// Delay of the answer to the first wrong token, doubled for each further one up to 20 times as much. Default
    /// zero; 2026.9.6 uses 250 ms.
    pub wrong_token_delay: Duration,
    /// How long a stop waits for sockets that never connected. Default 5 s in 2026.3.2, zero in 2026.9.6, which closes
    /// them like the others.
    pub unauthenticated_linger: Duration,
    /// How long the agent run of a `chat.send` lasts. Default zero.
    pub run_duration: Duration,
    /// How long a stop of 2026.9.6 waits for an agent run. Default 315 s.
    pub drain_limit: Duration,
    /// Events waiting for one slow connection before that connection is cut. Default 1024.
    pub event_queue: usize,
    /// Devices known from the start.
    pub paired_devices: Vec<PairedDevice>,
    /// The challenges of the first sockets, in this order; later ones are random.
    pub fixed_challenges: Vec<FixedChallenge>,
    /// Is told what a gateway would log. Default nobody.
    pub log: LogHook,
    /// Faults from the start.
    pub faults: FakeGatewayFaults,
}

impl FakeGatewayConfig {
    /// The token of [`new`](Self::new).
    pub const DEFAULT_TOKEN: &'static str = "fake-gateway-token";

    /// A well gateway of that release on a free port.
    #[must_use]
    pub fn new(vintage: Vintage) -> Self {
        let new = vintage.is_new();
        Self {
            vintage,
            token: Some(Self::DEFAULT_TOKEN.into()),
            port: 0,
            ipv6: true,
            state_dir: PathBuf::from("/fake/openclaw"),
            config_path: None,
            ready_after: Duration::ZERO,
            restart_gap: Duration::from_millis(20),
            restart_delay: Duration::from_millis(20),
            tick_interval: Duration::from_secs(30),
            health_interval: Duration::from_secs(60),
            ping_interval: new.then_some(Duration::from_secs(25)),
            pong_timeout: new.then_some(Duration::from_secs(50)),
            handshake_timeout: Duration::from_secs(if new { 15 } else { 10 }),
            max_payload: limits::MAX_PAYLOAD,
            max_preauth_payload: new.then_some(limits::PRE_AUTH),
            max_unauthenticated: new.then_some(32),
            wrong_token_delay: Duration::ZERO,
            unauthenticated_linger: if new {
                Duration::ZERO
            } else {
                Duration::from_secs(5)
            },
            run_duration: Duration::ZERO,
            drain_limit: Duration::from_secs(315),
            event_queue: 1024,
            paired_devices: Vec::new(),
            fixed_challenges: Vec::new(),
            log: LogHook::default(),
            faults: FakeGatewayFaults::default(),
        }
    }

    /// Sets the shared token.
    #[must_use]
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(SecretString::from(token.into()));
        self
    }

    /// Sets the port.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the faults.
    #[must_use]
    pub fn with_faults(mut self, faults: FakeGatewayFaults) -> Self {
        self.faults = faults;
        self
    }
}

impl Default for FakeGatewayConfig {
    fn default() -> Self {
        Self::new(Vintage::default())
    }
}

/// The gateway's own limits. Repeated here and not taken from the protocol crate, so that a wrong constant there is
/// noticed.
mod limits {
    pub(super) const MAX_PAYLOAD: usize = 26_214_400;
    pub(super) const PRE_AUTH: usize = 65_536;
}
