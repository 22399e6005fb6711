//! What comes out of the machine.

use core::time::Duration;

use crate::epoch::Epoch;
use crate::status::{GatewayStatus, Ticket, TicketOutcome};

/// Something the owner of the machine has to do. Effects that are answered carry the epoch for the answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Find out who listens on the port.
    Discover {
        /// Stamp of the answer.
        epoch: Epoch,
    },
    /// Run the preparation hooks and build the launch context.
    Prepare {
        /// Stamp of the answer.
        epoch: Epoch,
    },
    /// Create the process.
    Spawn {
        /// Stamp of the answer, and from then on the name of the child.
        epoch: Epoch,
    },
    /// Open a connection and perform the handshake.
    Connect {
        /// Stamp of the answer, and from then on the name of the connection.
        epoch: Epoch,
        /// How.
        plan: ConnectPlan,
    },
    /// Give up an effect that has not been answered. Whatever it still reports is stale.
    Cancel {
        /// The effect to give up.
        epoch: Epoch,
    },
    /// Close the connection. It answers with `Disconnected`, within a bounded time.
    Disconnect {
        /// The connection.
        connection: Epoch,
        /// Why.
        reason: DisconnectReason,
    },
    /// Look at the connection and the process behind it. Answers with `Looked`.
    Look {
        /// The connection.
        connection: Epoch,
    },
    /// Make one cheap request on the connection. Answers with `RequestMade`, in time.
    Verify {
        /// The connection.
        connection: Epoch,
        /// How long the answer may take.
        within: Duration,
    },
    /// Open a second connection beside this one, go as far as the challenge, and close it again. Answers with
    /// `HandshakeTried`, in time.
    Knock {
        /// The connection.
        connection: Epoch,
        /// How long the challenge may take.
        within: Duration,
    },
    /// End the child: ask, wait, force, reap. It answers with `Exited` or `TerminationFailed`.
    Terminate {
        /// The child.
        child: Epoch,
        /// Why; recorded before the first signal.
        reason: EndReason,
    },
    /// Repair the configuration.
    Repair {
        /// Stamp of the answer.
        epoch: Epoch,
    },
    /// The status has changed.
    PublishStatus(GatewayStatus),
    /// A command has its answer.
    Answer {
        /// Whose.
        ticket: Ticket,
        /// The answer.
        outcome: TicketOutcome,
    },
    /// An observation came from something that is no longer there. For the log only.
    IgnoredStale {
        /// The epoch it carried.
        epoch: Epoch,
    },
}

/// How to make the next connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectPlan {
    /// The protocol versions to offer.
    pub protocols: (u32, u32),
    /// Which credential to present.
    pub credential: CredentialChoice,
    /// Whether the gateway is our own child, or one that was found.
    pub attached: bool,
    /// While nobody listens on the port, try again this often instead of answering: our own child will listen when it is ready to. The
    /// machine cancels the effect when the child ends or its time is up. `None` for a gateway that was found: it listens, or it is gone.
    pub wait_for_listener: Option<Duration>,
}

/// Which credential to present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CredentialChoice {
    /// The configured one.
    #[default]
    Primary,
    /// The other one, after the configured one was refused.
    Alternative,
}

/// Why a connection is closed by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DisconnectReason {
    /// The user stops the gateway.
    UserStop,
    /// A restart is due.
    Restart,
    /// The child behind it is gone.
    ChildGone,
    /// It does not answer, or its other end is gone.
    Unresponsive,
}

/// Why a child is ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The user stops the gateway.
    UserStop,
    /// A restart is due.
    Restart,
    /// It did not become ready in time.
    NotReady,
    /// It survived an earlier owner and is not what would be launched now.
    Outdated,
    /// Connecting to it cannot succeed; the cause is in the status.
    Unusable,
    /// It served and does not answer any more.
    Wedged,
}
