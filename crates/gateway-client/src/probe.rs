//! Is the thing on this port a gateway?

use std::time::Duration;

use gateway_protocol::Challenge;

use crate::endpoint::Endpoint;
use crate::error::{ConnectError, HandshakeStage};
use crate::handshake::challenge_only;
use crate::transport::{Transport, TransportError, TransportErrorKind};

/// A sensible deadline for [`probe_challenge`]: 1500 ms. A gateway sends its challenge
/// within milliseconds of the upgrade.
pub const PROBE_DEADLINE: Duration = Duration::from_millis(1500);

/// What a probe found.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProbeOutcome {
    /// A gateway: it sent its challenge. It may still be starting.
    Gateway {
        /// The challenge.
        challenge: Challenge,
    },
    /// Something answered that is no gateway, or no gateway that can be used.
    NotAGateway {
        /// How we know.
        evidence: String,
    },
    /// The upgrade was answered with an HTTP status. A gateway that is stopping answers 503.
    UpgradeRefused {
        /// The HTTP status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
    /// Something accepted the connection and then said nothing until the deadline: a suspended gateway, or another
    /// program.
    Silent {
        /// What we were waiting for.
        stage: HandshakeStage,
    },
    /// Nobody listens there, or the address cannot be reached.
    Nothing {
        /// What the socket said.
        error: TransportError,
    },
}

/// Opens a socket and looks for a gateway's challenge; only that counts, an open port proves nothing. The socket is
/// closed in every case, and nothing is sent on it beyond the upgrade.
///
/// Ends within `deadline` plus a tenth of a second for the goodbye. Prefer a real [`crate::Connection::open`] where a connection
/// is wanted anyway: every probe costs the gateway a socket and a line in its log.
pub async fn probe_challenge(
    transport: &dyn Transport,
    endpoint: &Endpoint,
    deadline: Duration,
) -> ProbeOutcome {
    let error = match challenge_only(transport, endpoint, deadline).await {
        Ok(challenge) => return ProbeOutcome::Gateway { challenge },
        Err(error) => error,
    };
    match error {
        ConnectError::UpgradeRefused { status, body, .. } => {
            ProbeOutcome::UpgradeRefused { status, body }
        }
        ConnectError::DialTimeout { .. } => ProbeOutcome::Nothing {
            error: TransportError::new(TransportErrorKind::TimedOut, error.to_string()),
        },
        ConnectError::UpgradeTimeout { .. } => ProbeOutcome::Silent {
            stage: HandshakeStage::Upgrading,
        },
        ConnectError::ChallengeTimeout { .. } => ProbeOutcome::Silent {
            stage: HandshakeStage::AwaitingChallenge,
        },
        ConnectError::NotAGateway { evidence, .. } => ProbeOutcome::NotAGateway { evidence },
        ConnectError::Transport { error, .. } => match error.kind {
            TransportErrorKind::Malformed
            | TransportErrorKind::MessageTooLarge { .. }
            | TransportErrorKind::Reset => ProbeOutcome::NotAGateway {
                evidence: error.to_string(),
            },
            _ => ProbeOutcome::Nothing { error },
        },
        other => ProbeOutcome::NotAGateway {
            evidence: other.to_string(),
        },
    }
}
