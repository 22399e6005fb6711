//! What the outside sees: a pure function of the machine, never stored beside it.

use alloc::string::String;
use core::time::Duration;

use crate::Time;
use crate::budget::GaveUp;
use crate::failure::Failure;
use crate::liveness::Verdict;

/// The port on which an OpenClaw Gateway listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 18_789;

/// Names one command of the user, so that its answer finds the way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// The ticket with this number. The caller keeps the numbers apart.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// How a command ended. Every ticket is answered exactly once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TicketOutcome {
    /// The gateway is running, by a launch that began after the request where one was asked for.
    Running,
    /// The gateway is stopped; nothing is left of it.
    Stopped,
    /// A later command wants something else; this one was given up.
    Superseded,
    /// There was nothing to do: a settings reload while the gateway is meant to be stopped.
    NothingToDo,
    /// It did not work, or only somebody else can make it work. Recovery may still be going on: see the status.
    Failed(Failure),
}

/// The five states that embedders know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GatewayState {
    /// Nothing runs, and nobody wants it to.
    #[default]
    Stopped,
    /// On the way to the first session.
    Starting,
    /// An authenticated connection is open and can serve.
    Running,
    /// It stays like this until a person does something.
    Error,
    /// It ran, or nearly did, and recovery is bringing it back.
    Reconnecting,
}

impl GatewayState {
    /// The name, as embedders spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Error => "error",
            Self::Reconnecting => "reconnecting",
        }
    }
}

impl core::fmt::Display for GatewayState {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What exactly is going on; finer than [`GatewayState`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Nothing is going on.
    #[default]
    Stopped,
    /// Looking at who listens on the port.
    Discovering,
    /// Preparation hooks run and the launch context is built.
    Preparing,
    /// The process is being created.
    Spawning,
    /// Waiting until the port accepts connections.
    Listening,
    /// Connected to the port; challenge and hello are outstanding.
    Handshaking,
    /// The gateway answered that it is still starting.
    StartingUp,
    /// Hello received: it serves.
    Ready,
    /// The gateway announced that it restarts in place, and is waited for.
    Restarting,
    /// The connection is being closed and the process ended, because something else follows.
    Draining,
    /// The same because the user stops the gateway.
    Stopping,
    /// Waiting before the next attempt.
    BackingOff,
    /// The configuration is being repaired.
    Repairing,
    /// A person has to approve this device.
    AwaitingApproval,
    /// Another process holds the port or the state directory.
    WaitingForHolder,
    /// All automatic attempts were used up.
    GaveUp,
    /// The cause is permanent; no attempt will be made.
    Failed,
}

impl Phase {
    /// The name, in kebab case, for logs and machine-readable output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Discovering => "discovering",
            Self::Preparing => "preparing",
            Self::Spawning => "spawning",
            Self::Listening => "listening",
            Self::Handshaking => "handshaking",
            Self::StartingUp => "starting-up",
            Self::Ready => "ready",
            Self::Restarting => "restarting",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::BackingOff => "backing-off",
            Self::Repairing => "repairing",
            Self::AwaitingApproval => "awaiting-approval",
            Self::WaitingForHolder => "waiting-for-holder",
            Self::GaveUp => "gave-up",
            Self::Failed => "failed",
        }
    }
}

impl core::fmt::Display for Phase {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What a session's hello told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SessionFacts {
    /// The protocol version in use.
    pub protocol: u32,
    /// The server's version as it reports it.
    pub server_version: String,
    /// How often the gateway sends a tick; `None` when it does not say.
    pub tick_interval: Option<Duration>,
}

impl SessionFacts {
    /// The facts of a hello.
    #[must_use]
    pub fn new(
        protocol: u32,
        server_version: impl Into<String>,
        tick_interval: Option<Duration>,
    ) -> Self {
        Self {
            protocol,
            server_version: server_version.into(),
            tick_interval,
        }
    }
}

/// The whole public status.
///
/// The parts agree with each other by construction: no failure while running, no pid without a child, no session without
/// a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GatewayStatus {
    /// The coarse state.
    pub state: GatewayState,
    /// What exactly is going on.
    pub phase: Phase,
    /// The process that we launched, while it lives.
    pub pid: Option<u32>,
    /// Whether the gateway in use was found rather than launched. An attached gateway is never repaired and never ended.
    pub attached: bool,
    /// Since when the session lasts.
    pub connected_at: Option<Time>,
    /// What hello told, while connected.
    pub session: Option<SessionFacts>,
    /// How the gateway was when it was last looked at, while connected.
    pub liveness: Option<Verdict>,
    /// Why it is not running.
    pub failure: Option<Failure>,
    /// The story of recovery, once it has given up; [`failure`](Self::failure) says it in words, with the way out.
    pub gave_up: Option<GaveUp>,
    /// How many automatic attempts the current episode has seen.
    pub attempts: u32,
    /// When the next attempt is due, while waiting for it.
    pub next_attempt_at: Option<Time>,
}

impl GatewayStatus {
    /// How long the session has lasted; `None` without one.
    #[must_use]
    pub fn uptime(&self, now: Time) -> Option<Duration> {
        self.connected_at.map(|since| now.since(since))
    }

    /// Whether calls can be made now: running, and not being taken down.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state == GatewayState::Running && self.session.is_some()
    }
}
