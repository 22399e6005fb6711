//! The next step: what is wanted against what is there, and taking down what has to go first.

use super::{
    ConnectPlan, Desired, DisconnectReason, Effect, EndReason, Lifecycle, Rule, Step, Target,
    Teardown, Then,
};
use crate::Time;
use crate::readiness::{ReadinessPurpose, ReadinessWait};
use crate::status::{GatewayState, Ticket, TicketOutcome};

/// A bound, so that a mistake here would be a step that is not taken rather than a loop that never returns.
const MOST_ROUNDS: u32 = 8;

impl Lifecycle {
    pub(super) fn settle(&mut self, now: Time) {
        // Before anything else is begun: a launch that is up answers for what it covers, even when the next one is already due.
        self.answer_running();
        self.advance(now);
        let status = self.status();
        if status != self.published {
            self.published = status.clone();
            self.effects.push_back(Effect::PublishStatus(status));
        }
        self.effects.append(&mut self.answers);
    }

    pub(super) fn answer(&mut self, ticket: Ticket, outcome: TicketOutcome) {
        self.answers.push_back(Effect::Answer { ticket, outcome });
    }

    fn answer_running(&mut self) {
        if matches!(self.step, Step::Connected(_)) && self.teardown.is_none() {
            let starts = core::mem::take(&mut self.starts);
            for ticket in starts.into_iter().chain(self.restarts.take_covered()) {
                self.answer(ticket, TicketOutcome::Running);
            }
        }
    }

    fn advance(&mut self, now: Time) {
        // Each round either takes something down for good or returns, so two or three are the most there can be.
        for _ in 0..MOST_ROUNDS {
            if self.teardown.is_some() {
                if !self.tear_down(now) {
                    return;
                }
            } else if self.restart_is_due() {
                self.fired(Rule::RestartDue {
                    newest: self.restarts.newest(),
                    covered: self.restarts.covered(),
                });
                self.begin_teardown(DisconnectReason::Restart, EndReason::Restart, Then::Proceed);
            } else if self.child_is_left_over() {
                self.fired(Rule::EndLeftover);
                self.begin_teardown(DisconnectReason::Restart, EndReason::Restart, Then::Proceed);
            } else {
                return self.take_next_step();
            }
        }
        debug_assert!(false, "taking down without an end: {self:?}");
    }

    /// Whether an uncovered restart request can be served now. While a launch is on its way the request waits for it: it will be
    /// covered by the next one, and a stream of requests cannot keep the gateway from ever becoming ready. A gateway that has
    /// served and is only being reconnected to is no launch on its way.
    fn restart_is_due(&self) -> bool {
        let reconnecting = self
            .readiness
            .as_ref()
            .is_some_and(|wait| wait.purpose() != ReadinessPurpose::Launch);
        let settled = match &self.step {
            Step::Connected(_) | Step::Halted(_) => true,
            Step::Waiting { reason, .. } => reason.can_be_cut_short() || reconnecting,
            Step::Connecting(_) | Step::Idle => reconnecting,
            _ => false,
        };
        let due = self.desired == Desired::Running && self.restarts.is_uncovered();
        due && settled
    }

    /// Whether a child that refused to end stands in the way of the next launch.
    fn child_is_left_over(&self) -> bool {
        self.desired == Desired::Running
            && self.step == Step::Idle
            && self.child.as_ref().is_some_and(|child| child.ending)
    }

    fn take_next_step(&mut self) {
        if self.step != Step::Idle || self.desired == Desired::Stopped {
            return;
        }
        let epoch = self.epochs.next_epoch();
        match (self.target, &self.child) {
            (Target::Own, Some(_)) | (Target::Attached, _) => {
                let attached = self.target == Target::Attached;
                let plan = ConnectPlan {
                    protocols: self.protocols,
                    credential: self.credential,
                    attached,
                    wait_for_listener: (!attached).then_some(self.config.readiness.poll),
                };
                self.fired(Rule::Connect);
                self.step = Step::Connecting(epoch);
                self.effects.push_back(Effect::Connect { epoch, plan });
            }
            _ => {
                // What is requested up to here shares the fate of this attempt, even if it never gets as far as a launch.
                self.restarts.cover();
                self.fired(Rule::LookAtPort {
                    recovering: self.recovering,
                });
                self.step = Step::Discovering(epoch);
                self.effects.push_back(Effect::Discover { epoch });
            }
        }
    }

    pub(super) fn begin_teardown(&mut self, close: DisconnectReason, end: EndReason, then: Then) {
        let shown = match (&self.teardown, &then) {
            // Only a stop comes in between, and takes over.
            (Some(teardown), _) => teardown.shown,
            // A command leaves the old state visible until it is done; a failure is shown as what it is.
            (None, Then::Fail(_)) if self.state() == GatewayState::Running => {
                GatewayState::Reconnecting
            }
            (None, _) => self.state(),
        };
        if let Then::Fail(failure) = &then {
            self.failure = Some(failure.clone());
        }
        self.teardown = Some(Teardown {
            close,
            end,
            then,
            shown,
        });
    }

    /// Takes the next step of taking down; `true` when nothing is left to take down.
    fn tear_down(&mut self, now: Time) -> bool {
        let Some(teardown) = &self.teardown else {
            return true;
        };
        let (close, reason) = (teardown.close, teardown.end);
        match &mut self.step {
            // A process that is being created cannot be called back; it is ended as soon as it is there.
            Step::Spawning(_) | Step::Disconnecting(_) | Step::Terminating => return false,
            Step::Repairing { epoch, cancelled } => {
                if !core::mem::replace(cancelled, true) {
                    let epoch = *epoch;
                    self.effects.push_back(Effect::Cancel { epoch });
                }
                return false;
            }
            Step::Connected(session) => {
                let connection = session.epoch;
                self.fired(Rule::CloseFirst { reason });
                self.effects.push_back(Effect::Disconnect {
                    connection,
                    reason: close,
                });
                self.step = Step::Disconnecting(connection);
                return false;
            }
            Step::Discovering(epoch) | Step::Preparing(epoch) | Step::Connecting(epoch) => {
                let epoch = *epoch;
                self.effects.push_back(Effect::Cancel { epoch });
            }
            Step::Idle | Step::Waiting { .. } | Step::Halted(_) => {}
        }
        if let Some(child) = &mut self.child {
            child.ending = true;
            let child = child.epoch;
            self.fired(Rule::EndChild { reason });
            self.step = Step::Terminating;
            self.effects.push_back(Effect::Terminate { child, reason });
            return false;
        }
        self.fired(Rule::TakenDown);
        self.step = Step::Idle;
        self.target = Target::Undecided;
        self.readiness = None;
        match self.teardown.take().map(|teardown| teardown.then) {
            // A stop would have replaced it.
            Some(Then::Fail(failure)) => self.fail(now, failure),
            Some(Then::Relaunch) => {}
            _ => {
                self.begin_anew();
                for ticket in core::mem::take(&mut self.stops) {
                    self.answer(ticket, TicketOutcome::Stopped);
                }
            }
        }
        true
    }

    /// The wait for readiness, while there is something to be waited for.
    pub(super) fn wait_for_readiness(&self) -> Option<&ReadinessWait> {
        // Not while something is taken down, which is a step of its own.
        let waiting = matches!(
            self.step,
            Step::Idle | Step::Connecting(_) | Step::Waiting { .. }
        );
        self.readiness.as_ref().filter(|_| waiting)
    }
}
