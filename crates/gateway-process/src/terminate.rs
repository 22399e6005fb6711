//! Asking a child to end, and what can go wrong with that.
//!
//! Ending has four steps: ask the leader (`SIGTERM`), wait, force the whole group (`SIGKILL`), collect the exit status.
//! The task that owns the child carries them out, so dropping the future of
//! [`terminate`](crate::host::ManagedChild::terminate) does not call off an ending that has begun. A second request can only
//! make it quicker: the earlier of the two deadlines counts.
//!
//! Windows has no polite signal for a process without a console, so there the job is ended at once; ask over the
//! gateway's own connection first when that matters.

use std::time::Duration;

use crate::exit::TerminationReason;

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
