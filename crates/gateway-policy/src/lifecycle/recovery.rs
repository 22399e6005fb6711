//! What follows a failure: every class has one road, and every automatic attempt is paid for.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::{
    AttachMode, CredentialChoice, Desired, DisconnectReason, Effect, EndReason, Lifecycle, Rule,
    Step, Target, Then, Wait,
};
use crate::Time;
use crate::backoff::{ReconnectConfig, ReconnectDecision, ReconnectFacts};
use crate::budget::{Allowance, Limit};
use crate::failure::{Failure, FailureClass, Road};
use crate::readiness::{ReadinessStage, ReadinessWait};
use crate::status::TicketOutcome;

/// A living child is asked again at least this often: it may come round at any time.
const HANDSHAKE_RETRY_AT_MOST: Duration = Duration::from_secs(2);

impl Lifecycle {
    /// A handshake with the gateway in use failed, and that gateway, as far as anybody knows, still runs.
    pub(super) fn on_connect_failed(&mut self, now: Time, failure: Failure) {
        self.step = Step::Idle;
        match (failure.class.road(), self.target) {
            (Road::AwaitApproval, _) => self.await_approval(now, failure),
            (Road::AskAgain, _) if failure.class == FailureClass::StartingUp => {
                self.ask_again(now, failure)
            }
            (Road::AlternativeCredentialOnce | Road::StepDownOnce, _)
                if self.try_other_way(&failure) => {}
            (Road::RepairOnce, Target::Attached) => {
                // It is not ours to repair.
                self.target = Target::Undecided;
                self.readiness = None;
                self.halt(failure);
            }
            (_, Target::Attached) => {
                // Nothing of ours runs: the road of the failure as it is, and a new look at the port when it leads on. That
                // nobody listens any more is a loss like any other.
                let class = match failure.class {
                    FailureClass::NotListening => FailureClass::Temporary,
                    class => class,
                };
                self.fail(now, Failure { class, ..failure });
            }
            (
                Road::AlternativeCredentialOnce
                | Road::StepDownOnce
                | Road::Stop
                | Road::RepairOnce,
                _,
            ) => {
                self.fired(Rule::EndUnusable {
                    class: failure.class,
                });
                self.begin_teardown(
                    DisconnectReason::Restart,
                    EndReason::Unusable,
                    Then::Fail(failure),
                );
            }
            // Whatever it is, the child lives and may yet come round; its readiness deadline is the limit.
            (
                Road::AskAgain
                | Road::WaitForHolder
                | Road::Relaunch
                | Road::BackOff
                | Road::BackOffSlowly,
                _,
            ) => self.retry_handshake(now, failure),
        }
    }

    fn ask_again(&mut self, now: Time, failure: Failure) {
        let wait = self
            .readiness
            .get_or_insert_with(|| ReadinessWait::begin(now));
        wait.progress(now, Some(ReadinessStage::StartingUp));
        let delay = self.config.readiness.advised(failure.retry_after);
        self.fired(Rule::AskAgain { delay });
        // What cost the connection stays the cause; the news of a start replace each other.
        let keeps = |known: &Failure| known.class.road() != Road::AskAgain;
        if !self.failure.as_ref().is_some_and(keeps) {
            self.failure = Some(failure);
        }
        self.wait(now + delay, Wait::Retry);
    }

    fn retry_handshake(&mut self, now: Time, failure: Failure) {
        self.readiness
            .get_or_insert_with(|| ReadinessWait::begin(now));
        let delay = if failure.class == FailureClass::NotListening {
            self.config.readiness.poll
        } else {
            self.slow_down().min(HANDSHAKE_RETRY_AT_MOST)
        };
        self.fired(Rule::RetryHandshake {
            class: failure.class,
            delay,
        });
        self.failure = Some(failure);
        self.wait(now + delay, Wait::Retry);
    }

    fn await_approval(&mut self, now: Time, failure: Failure) {
        self.fired(Rule::AwaitApproval);
        // A person may take a day; the readiness of the gateway is not in question.
        self.readiness = None;
        self.answer_launch(&failure);
        self.failure = Some(failure);
        self.wait(now + self.config.approval_poll, Wait::Approval);
    }

    /// Takes the one other way to get in that this failure allows, if it has not been tried.
    fn try_other_way(&mut self, failure: &Failure) -> bool {
        let (least, most) = self.config.protocols;
        match failure.class {
            FailureClass::Credentials if self.credential == CredentialChoice::Primary => {
                self.fired(Rule::OtherCredential);
                self.credential = CredentialChoice::Alternative;
                true
            }
            FailureClass::ProtocolVersion => {
                // Once: a gateway that names another version for every offer would be asked for ever.
                let untried = self.protocols == self.config.protocols;
                let expected = failure
                    .expected_protocol
                    .filter(|version| (least..=most).contains(version) && least != most);
                let Some(protocol) = expected.filter(|_| untried) else {
                    return false;
                };
                self.fired(Rule::StepDown { protocol });
                self.protocols = (protocol, protocol);
                true
            }
            _ => false,
        }
    }

    pub(super) fn give_up_waiting_for_readiness(&mut self, now: Time) {
        let Some(wait) = self.readiness.take() else {
            return;
        };
        let waited = now.since(wait.began());
        self.fired(Rule::NotReady {
            purpose: wait.purpose(),
            waited,
        });
        let seen = match &self.failure {
            Some(failure) => format!(" Last seen: {failure}"),
            None => String::new(),
        };
        let failure = Failure::new(
            FailureClass::NotReady,
            format!(
                "The gateway did not become ready within {} s.{seen}",
                waited.as_secs()
            ),
        );
        if let Step::Connecting(epoch) = self.step {
            self.effects.push_back(Effect::Cancel { epoch });
        }
        self.step = Step::Idle;
        if self.target == Target::Attached {
            self.fail(now, failure);
        } else {
            self.begin_teardown(
                DisconnectReason::Restart,
                EndReason::NotReady,
                Then::Fail(failure),
            );
        }
    }

    /// Takes the road of a failure. No child of ours is alive here.
    pub(super) fn fail(&mut self, now: Time, failure: Failure) {
        self.target = Target::Undecided;
        self.readiness = None;
        self.step = Step::Idle;
        if self.desired == Desired::Stopped {
            return;
        }
        match failure.class.road() {
            Road::RepairOnce => self.repair(failure),
            Road::Stop | Road::StepDownOnce | Road::AlternativeCredentialOnce => self.halt(failure),
            Road::WaitForHolder => {
                self.answer_launch(&failure);
                let config = self.config.holder.clone();
                self.back_off(now, &config, failure, Wait::Holder);
            }
            Road::AskAgain if self.config.attach == AttachMode::Only => {
                self.wait_for_gateway(now, failure)
            }
            // Without a gateway there is nobody to be asked again, and nobody's approval to wait for.
            Road::AskAgain
            | Road::AwaitApproval
            | Road::Relaunch
            | Road::BackOff
            | Road::BackOffSlowly => {
                let config = self.config.reconnect.clone();
                self.back_off(now, &config, failure, Wait::BackOff);
            }
        }
    }

    fn repair(&mut self, failure: Failure) {
        if self.repair.take() {
            self.fired(Rule::RepairOnce);
            self.failure = Some(failure);
            let epoch = self.epochs.next_epoch();
            self.step = Step::Repairing {
                epoch,
                cancelled: false,
            };
            self.effects.push_back(Effect::Repair { epoch });
        } else {
            self.halt(self.repair.remark(failure));
        }
    }

    /// Only somebody else can start the gateway that we may only attach to. The caller is told, not kept waiting; the gateway is
    /// waited for as long as it is wanted.
    fn wait_for_gateway(&mut self, now: Time, failure: Failure) {
        self.answer_launch(&failure);
        let delay = self.slow_down();
        self.fired(Rule::WaitForGateway { delay });
        self.failure = Some(failure);
        self.wait(now + delay, Wait::BackOff);
    }

    /// Schedules the next attempt, within the limits of the back-off and of the budget.
    pub(super) fn back_off(
        &mut self,
        now: Time,
        config: &ReconnectConfig,
        failure: Failure,
        reason: Wait,
    ) {
        let facts = ReconnectFacts {
            wanted: self.desired == Desired::Running,
            scheduled: matches!(self.step, Step::Waiting { .. }),
            attempts: self.ledger.attempts(),
        };
        let (attempt, delay) = match config.decide(facts) {
            ReconnectDecision::Disabled | ReconnectDecision::AlreadyScheduled => return,
            ReconnectDecision::GiveUp { .. } => {
                return self.give_up(now, Limit::Attempts, failure);
            }
            ReconnectDecision::Schedule { attempt, delay } => (attempt, delay),
        };
        let allowance = self.ledger.grant(now, &self.config.budget);
        let earned = core::mem::take(&mut self.earned_retry) && reason == Wait::BackOff;
        let delay = match failure.class.road() {
            Road::Relaunch => Duration::ZERO,
            _ if earned => Duration::ZERO,
            Road::BackOffSlowly => config.max_delay,
            _ => delay,
        };
        self.fired(Rule::BackOff {
            class: failure.class,
            attempt,
            earned,
            delay,
            allowance,
        });
        let until = match allowance {
            Allowance::Now => now + delay,
            Allowance::Spaced { not_before, .. } => {
                // Nobody should be kept waiting for that long.
                self.answer_launch(&failure);
                not_before.max(now + delay)
            }
            Allowance::Exhausted => return self.give_up(now, Limit::Budget, failure),
        };
        self.ledger.attempt(now, failure.class);
        self.recovering = Some(failure.class);
        self.failure = Some(failure);
        self.wait(until, reason);
    }

    /// The delay for what happens again and again without being an attempt; the next one is longer.
    pub(super) fn slow_down(&mut self) -> Duration {
        let delay = self.config.reconnect.delay(self.slowness);
        self.slowness = self.config.reconnect.slower(self.slowness);
        delay
    }

    pub(super) fn wait(&mut self, until: Time, reason: Wait) {
        self.step = Step::Waiting { until, reason };
    }

    /// Waits as long as the budget says, or gives up.
    pub(super) fn spend(&mut self, now: Time, allowance: Allowance, cause: Option<Failure>) {
        let cause = || {
            let unknown = || Failure::new(FailureClass::Configuration, "A repair was run.");
            cause.unwrap_or_else(unknown)
        };
        match allowance {
            Allowance::Now => {}
            Allowance::Spaced { not_before, .. } => {
                let cause = cause();
                self.answer_launch(&cause);
                self.failure = Some(cause);
                self.wait(not_before, Wait::BackOff);
            }
            Allowance::Exhausted => self.give_up(now, Limit::Budget, cause()),
        }
    }

    pub(super) fn give_up(&mut self, now: Time, limit: Limit, failure: Failure) {
        let gave_up = self.ledger.give_up(now, limit);
        self.fired(Rule::GiveUp {
            limit,
            attempts: gave_up.attempts,
            class: failure.class,
        });
        let failure = gave_up.tell(failure);
        self.answer_launch(&failure);
        self.failure = Some(failure);
        self.step = Step::Halted(Some(gave_up));
    }

    pub(super) fn halt(&mut self, failure: Failure) {
        self.fired(Rule::Halt {
            class: failure.class,
        });
        self.answer_launch(&failure);
        self.failure = Some(failure);
        self.step = Step::Halted(None);
    }

    /// Answers everybody who waits for the launch that has just failed, or that waits for somebody outside.
    pub(super) fn answer_launch(&mut self, failure: &Failure) {
        let starts = core::mem::take(&mut self.starts);
        for ticket in starts.into_iter().chain(self.restarts.take_covered()) {
            self.answer(ticket, TicketOutcome::Failed(failure.clone()));
        }
    }
}
