//! What goes into the machine.

use alloc::string::String;
use core::time::Duration;

use crate::epoch::Epoch;
use crate::failure::Failure;
use crate::liveness::{Activity, HandshakeSign, RequestSign};
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
    /// Its user, where the operating system tells.
    pub user: Option<String>,
    /// How it is known to be what it is, in words; empty when there is nothing to say.
    pub detail: String,
}

impl core::fmt::Display for PortHolder {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match (&self.program, self.pid) {
            (Some(program), Some(pid)) => write!(formatter, "{program} (pid {pid})")?,
            (None, Some(pid)) => write!(formatter, "pid {pid}")?,
            (Some(program), None) => write!(formatter, "{program}")?,
            (None, None) => {
                formatter.write_str("a process that the operating system does not name")?
            }
        }
        match &self.user {
            Some(user) => write!(formatter, " of user {user}"),
            None => Ok(()),
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
    /// The child printed that it is ready. A hint to ask now, and no more than that.
    SaysReady,
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
    /// Discovery: a process that an earlier owner of this instance launched still lives, and is in our hands. It keeps the epoch of
    /// the discovery for its name.
    SurvivorFound {
        /// Its process id.
        pid: u32,
    },
    /// Discovery could not tell.
    DiscoveryFailed(Failure),
    /// The preparation hooks are done.
    Prepared,
    /// The preparation hooks are done, and what they lead to is what a survivor was launched as.
    PreparedAsRunning,
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
    /// The answer to a look at an open connection; stamped with the epoch of its connect.
    Looked(Look),
    /// What became of the verifying request; stamped with the epoch of the connect.
    RequestMade {
        /// Whether it came back.
        sign: RequestSign,
        /// How the connection looks now.
        look: Look,
    },
    /// What became of the second connection; stamped with the epoch of the first one's connect.
    HandshakeTried {
        /// How far it came.
        sign: HandshakeSign,
        /// How the first connection looks now.
        look: Look,
    },
    /// The repair ran and changed something for the better.
    Repaired,
    /// The repair did not help.
    RepairFailed(Failure),
    /// The process could not be ended within its limits; stamped with the epoch of its spawn.
    TerminationFailed(Failure),
}

/// How an open connection, and the process behind it, look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Look {
    /// Time since the last inbound byte, without the time during which this machine was asleep.
    pub silence: Duration,
    /// For how long this machine was asleep since the look before.
    pub suspended: Duration,
    /// What the process has done since the look before.
    pub activity: Activity,
}

/// How a connection was lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionLoss {
    /// What it amounts to.
    pub failure: Failure,
    /// What the gateway had announced.
    pub notice: ShutdownNotice,
}

/// What a gateway announced before it closed its connections. The close code does not tell: 1012 is used for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ShutdownNotice {
    /// Nothing.
    #[default]
    None,
    /// It restarts in place.
    Restart {
        /// It expects to be back within this time.
        expected: Duration,
    },
    /// It stops for good.
    Stop,
}

impl core::fmt::Display for ShutdownNotice {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::None => formatter.write_str("nothing announced"),
            Self::Restart { expected } => {
                write!(formatter, "announced to be back within {expected:?}")
            }
            Self::Stop => formatter.write_str("announced to stop"),
        }
    }
}
