//! The diary of a [`Machine`](super::Machine).

use std::time::Duration;

use gateway_process::TerminationReason;

/// Something that happened, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Time since the machine began.
    pub at: Duration,
    /// What it was.
    pub happening: Happening,
}

/// What can happen on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Happening {
    /// A child was started.
    Spawned {
        /// Its process id.
        pid: u32,
        /// The command line, without secrets.
        command: String,
    },
    /// A start failed.
    SpawnFailed {
        /// The command line, without secrets.
        command: String,
    },
    /// A child bound its port.
    Listening {
        /// Its process id.
        pid: u32,
        /// The port.
        port: u16,
    },
    /// A child was asked to end.
    Asked {
        /// Its process id.
        pid: u32,
        /// Why.
        reason: TerminationReason,
    },
    /// A child was forced to end.
    Killed {
        /// Its process id.
        pid: u32,
    },
    /// A child ended.
    Exited {
        /// Its process id.
        pid: u32,
        /// The exit code.
        code: Option<i32>,
        /// The signal.
        signal: Option<i32>,
    },
    /// A program began to run to its end, for example the doctor.
    RunStarted {
        /// The command line, without secrets.
        command: String,
    },
    /// It ended.
    RunEnded {
        /// The exit code; `None` when its time was over.
        code: Option<i32>,
    },
    /// Somebody asked who listens on a port.
    PortAsked {
        /// The port.
        port: u16,
    },
    /// Whoever had started the children was killed.
    OwnerKilled,
    /// A child of an owner that was killed was taken over by the next one.
    Adopted {
        /// Its process id.
        pid: u32,
    },
    /// The machine was asleep.
    Slept {
        /// For how long.
        time: Duration,
    },
    /// Somebody opened a connection to a port.
    Dialled {
        /// The port.
        port: u16,
        /// Whether anybody was there.
        accepted: bool,
    },
}
