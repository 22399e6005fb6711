//! What the outside sees: a pure function of the machine.

use super::{Desired, EndReason, Lifecycle, Step, Target, Wait};
use crate::readiness::{ReadinessPurpose, ReadinessStage};
use crate::status::{GatewayState, GatewayStatus, Phase};

impl Lifecycle {
    /// The public status.
    #[must_use]
    pub fn status(&self) -> GatewayStatus {
        let (session, next_attempt_at) = match &self.step {
            Step::Connected(session) => (Some(session), None),
            // The short polls of a start are no attempts worth announcing.
            Step::Waiting { until, reason } if *reason != Wait::Retry => (None, Some(*until)),
            _ => (None, None),
        };
        let state = self.state();
        let calm = matches!(state, GatewayState::Running | GatewayState::Stopped);
        GatewayStatus {
            state,
            phase: self.phase(),
            pid: self.child.as_ref().map(|child| child.pid),
            attached: self.target == Target::Attached,
            connected_at: session.map(|session| session.since),
            session: session.map(|session| session.facts.clone()),
            liveness: session.map(|session| session.verdict),
            failure: self.failure.clone().filter(|_| !calm),
            gave_up: match &self.step {
                Step::Halted(gave_up) => gave_up.clone(),
                _ => None,
            },
            attempts: self.ledger.attempts(),
            next_attempt_at,
        }
    }

    pub(super) fn state(&self) -> GatewayState {
        if let Some(teardown) = &self.teardown {
            return teardown.shown;
        }
        match (&self.step, self.desired) {
            (Step::Halted(_), _) => GatewayState::Error,
            (_, Desired::Stopped) => GatewayState::Stopped,
            (Step::Connected(_), Desired::Running) => GatewayState::Running,
            (_, Desired::Running) if self.served || self.ledger.attempts() > 0 => {
                GatewayState::Reconnecting
            }
            (_, Desired::Running) => GatewayState::Starting,
        }
    }

    fn phase(&self) -> Phase {
        if let Some(teardown) = &self.teardown {
            return match teardown.end {
                EndReason::UserStop => Phase::Stopping,
                _ => Phase::Draining,
            };
        }
        match &self.step {
            Step::Idle => Phase::Stopped,
            Step::Discovering(_) if self.attached_back_by.is_some() => Phase::Restarting,
            Step::Discovering(_) => Phase::Discovering,
            Step::Preparing(_) => Phase::Preparing,
            Step::Spawning(_) => Phase::Spawning,
            Step::Connecting(_)
            | Step::Waiting {
                reason: Wait::Retry | Wait::Reconnect,
                ..
            } => self.phase_of_readiness(),
            Step::Connected(_) => Phase::Ready,
            Step::Disconnecting(_) | Step::Terminating => Phase::Draining,
            Step::Repairing { .. } => Phase::Repairing,
            Step::Waiting {
                reason: Wait::BackOff,
                ..
            } => Phase::BackingOff,
            Step::Waiting {
                reason: Wait::Holder,
                ..
            } => Phase::WaitingForHolder,
            Step::Waiting {
                reason: Wait::Approval,
                ..
            } => Phase::AwaitingApproval,
            Step::Halted(Some(_)) => Phase::GaveUp,
            Step::Halted(None) => Phase::Failed,
        }
    }

    fn phase_of_readiness(&self) -> Phase {
        match &self.readiness {
            None if self.attached_back_by.is_some() => Phase::Restarting,
            None => Phase::Handshaking,
            Some(wait) => match (wait.stage(), wait.purpose()) {
                (ReadinessStage::StartingUp, _) => Phase::StartingUp,
                (_, ReadinessPurpose::AnnouncedRestart) => Phase::Restarting,
                (ReadinessStage::Launched, _) => Phase::Listening,
                (ReadinessStage::Listening, _) => Phase::Handshaking,
            },
        }
    }
}
