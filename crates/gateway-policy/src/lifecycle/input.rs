//! What goes into the machine.

use alloc::string::String;
use core::time::Duration;

use crate::epoch::Epoch;
use crate::failure::Failure;
use crate::liveness::Verification;
use crate::status::{SessionFacts, Ticket};

/// Everything that can happen to the machine, time aside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The user wants a running gateway.
    Start(Ticket),
    /// The user wants none.
    Stop(Ticket),
    /// The user wants a fresh one; starts it when it is stopped.
    Restart(Ticket),
    /// Something changed that a fresh launch would pick up. Merged with others for `delay`; nothing happens while the user
    /// wants no gateway.
    RestartDebounced {
        /// Whom to answer.
        ticket: Ticket,
        /// How long to wait for more of the same.
        delay: Duration,
    },
    /// The world answered an effect.
    Observed {
        /// The epoch of that effect.
        epoch: Epoch,
        /// What was seen.
        observation: Observation,
    },
}

/// Who holds the port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortHolder {
    /// Its process id, where the operating system tells.
    pub pid: Option<u32>,
    /// Its program, where the operating system tells.
    pub program: Option<String>,
    /// How it is known to be what it is, in words; empty when there is nothing to say.
    pub detail: String,
}

impl core::fmt::Display for PortHolder {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match (&self.program, self.pid) {
            (Some(program), Some(pid)) => write!(formatter, "{program} (pid {pid})"),
            (None, Some(pid)) => write!(formatter, "pid {pid}"),
            (Some(program), None) => write!(formatter, "{program}"),
            (None, None) => {
                formatter.write_str("a process of which the operating system tells nothing")
            }
        }
    }
}

/// How far a start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// The child wrote something.
    Output,
    /// The port accepts connections.
    Listening,
}

/// What was seen of an effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Observation {
    /// Discovery: nobody listens on the port.
    PortFree,
    /// Discovery: an OpenClaw Gateway listens on the port.
    GatewayFound(PortHolder),
    /// Discovery: something else holds the port.
    ForeignFound(PortHolder),
    /// Discovery could not tell.
    DiscoveryFailed(Failure),
    /// The preparation hooks are done.
    Prepared,
    /// A preparation hook failed.
    PreparationFailed(Failure),
    /// The process exists.
    Spawned {
        /// Its process id.
        pid: u32,
    },
    /// No process was created.
    SpawnFailed(Failure),
    /// A start moves forward; stamped with the epoch of the spawn or of the connect.
    Progress(Progress),
    /// The process has ended and was reaped; stamped with the epoch of its spawn. The failure is what its end amounts to when
    /// nobody had asked for it.
    Exited(Failure),
    /// Hello received.
    Connected(SessionFacts),
    /// No hello.
    ConnectFailed(Failure),
    /// The connection is gone; stamped with the epoch of its connect.
    Disconnected(ConnectionLoss),
    /// How long an open connection has been silent; stamped with the epoch of its connect.
    Silence {
        /// Time since the last inbound byte.
        silence: Duration,
        /// How much of it this machine was asleep.
        suspended: Duration,
        /// What became of the verifying request, when this answers one.
        verification: Verification,
    },
    /// The repair ran and changed something for the better.
    Repaired,
    /// The repair did not help.
    RepairFailed(Failure),
    /// The process could not be ended within its limits; stamped with the epoch of its spawn.
    TerminationFailed(Failure),
}

/// How a connection was lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionLoss {
    /// What it amounts to.
    pub failure: Failure,
    /// The gateway announced that it would be back within this time.
    pub back_within: Option<Duration>,
}
