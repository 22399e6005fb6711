//! Asking a child to end, and what can go wrong with that.
//!
//! Ending has four steps: ask the leader (`SIGTERM`), wait, force the whole group (`SIGKILL`), collect the exit status.
//! The task that owns the child carries them out, so dropping the future of
//! [`terminate`](crate::host::ManagedChild::terminate) does not call off an ending that has begun. A second request can only
//! make it quicker: the earlier of the two deadlines counts.
//!
//! Windows has no polite signal for a process without a console, so there the job is ended at once; ask over the
//! gateway's own connection first when that matters.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::exit::TerminationReason;

/// How long a gateway that is asked to end may take to let running agent work finish: 315 s of its own, 10 s that it keeps in reserve, and
/// 5 s for its exit (the constants of OpenClaw 2026.9.6).
pub const DRAIN_FOR: Duration = Duration::from_secs(330);

/// How long a child may take that is to end at once. It is asked all the same, because a gateway that is killed in the middle of a write
/// leaves a lock behind.
pub const NOW_FOR: Duration = Duration::from_secs(5);

/// How much time there is for work that is still running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopMode {
    /// All that the gateway itself allows: [`DRAIN_FOR`].
    Drain,
    /// So much, and not more. What is not done by then is lost.
    Bounded(Duration),
    /// None: [`NOW_FOR`] to end in order.
    Now,
}

impl StopMode {
    /// The time between asking and forcing.
    #[must_use]
    pub fn ask_for(self) -> Duration {
        match self {
            Self::Drain => DRAIN_FOR,
            Self::Bounded(time) => time,
            Self::Now => NOW_FOR,
        }
    }
}

impl Default for StopMode {
    /// [`DEFAULT_ASK_FOR`].
    fn default() -> Self {
        Self::Bounded(DEFAULT_ASK_FOR)
    }
}

/// How far the end of a child has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EndingStage {
    /// Nobody asked for it.
    #[default]
    NotAsked,
    /// It was asked, and works on it.
    Asked,
    /// It was killed, with everything that belongs to it.
    Forced,
    /// It is gone, and what it left behind is as well.
    Gone,
}

impl fmt::Display for EndingStage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotAsked => "not asked to end",
            Self::Asked => "asked to end",
            Self::Forced => "forced to end",
            Self::Gone => "gone",
        })
    }
}

/// The end of a child, as it can be watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// How far it has come.
    pub stage: EndingStage,
    /// When it was first asked for.
    pub since: Option<Instant>,
    /// When the child will be forced if it is not gone by then.
    pub force_at: Option<Instant>,
    /// When it was forced.
    pub forced_at: Option<Instant>,
}

/// How long a child may take to end by itself after being asked. Gateways need up to 1 s when idle and 5 s with a half-open
/// socket; only a running agent takes longer.
pub const DEFAULT_ASK_FOR: Duration = Duration::from_secs(10);

/// How long the operating system may take to make a killed process disappear.
pub const DEFAULT_REAP_WITHIN: Duration = Duration::from_secs(5);

/// A request to end a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Termination {
    /// Recorded with the child at once. The reason of the first request stays.
    pub reason: TerminationReason,
    /// Time between asking and forcing. Zero means: do not ask, force.
    pub ask_for: Duration,
    /// Time between forcing and giving up on seeing the exit.
    pub reap_within: Duration,
}

impl Termination {
    /// A request with the default times: 10 s to end by itself, 5 s to disappear once forced.
    #[must_use]
    pub fn new(reason: TerminationReason) -> Self {
        Self {
            reason,
            ask_for: DEFAULT_ASK_FOR,
            reap_within: DEFAULT_REAP_WITHIN,
        }
    }

    /// A request that gives running work so much time.
    #[must_use]
    pub fn in_mode(reason: TerminationReason, mode: StopMode) -> Self {
        Self::new(reason).ask_for(mode.ask_for())
    }

    /// A request that does not ask: `SIGKILL` to the whole group at once.
    #[must_use]
    pub fn force(reason: TerminationReason) -> Self {
        Self::new(reason).ask_for(Duration::ZERO)
    }

    /// Sets the time between asking and forcing.
    #[must_use]
    pub fn ask_for(mut self, ask_for: Duration) -> Self {
        self.ask_for = ask_for;
        self
    }

    /// Sets the time between forcing and giving up on seeing the exit.
    #[must_use]
    pub fn reap_within(mut self, reap_within: Duration) -> Self {
        self.reap_within = reap_within;
        self
    }
}

/// A child could not be ended within its bounds. Its owner keeps waiting for it, so that it is still collected when it goes.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TerminateError {
    /// Forced, and still there.
    #[error(
        "process {pid} was still there {waited:?} after the request to end it{}; it may be stuck in the kernel: inspect it, and do not start a successor on the same state directory",
        .signal_error.as_deref().map(|error| format!(" (sending the signal failed: {error})")).unwrap_or_default()
    )]
    StillAlive {
        /// The child's process id.
        pid: u32,
        /// How long this request waited.
        waited: Duration,
        /// The operating system's answer when the signal could not be sent, for example after the child changed its user.
        signal_error: Option<String>,
    },
    /// The child is gone and collected, but members of its group survived `SIGKILL`.
    #[error(
        "process {pid} is gone, but processes {survivors:?} of its group survived SIGKILL; they may be stuck in the kernel and may still hold the port: inspect them before starting a successor"
    )]
    GroupAlive {
        /// The child's process id.
        pid: u32,
        /// The members that are still there.
        survivors: Vec<u32>,
    },
}
