//! The watch over an open connection: when to look, what to ask, and what follows from the verdict.

use alloc::format;

use super::{
    DisconnectReason, Effect, EndReason, Lifecycle, Look, Rule, Step, Target, Then, Watch,
};
use crate::Time;
use crate::failure::{Failure, FailureClass};
use crate::liveness::{Action, Assessment, Evidence, Question, Verdict, assess};
use crate::readiness::{ReadinessPurpose, ReadinessWait};

impl Lifecycle {
    /// Acts on the deadlines of an open connection.
    pub(super) fn watch(&mut self, now: Time) {
        let Step::Connected(session) = &mut self.step else {
            return;
        };
        let connection = session.epoch;
        let look = matches!(session.watch, Watch::LookAt(at) if at <= now);
        if look {
            session.watch = Watch::Asked(Evidence::default());
        }
        let stable = session.stable_at.take_if(|at| *at <= now).is_some();
        if look {
            self.effects.push_back(Effect::Look { connection });
        }
        if stable {
            self.fired(Rule::SessionProvedStable);
            self.forgive();
            self.earned_retry = true;
        }
    }

    /// Adds to the evidence what was just seen, and weighs it.
    pub(super) fn on_look(&mut self, now: Time, look: Look, learn: impl FnOnce(&mut Evidence)) {
        let Step::Connected(session) = &mut self.step else {
            return;
        };
        let Watch::Asked(evidence) = &mut session.watch else {
            return;
        };
        evidence.silence = look.silence;
        evidence.suspended = evidence.suspended.saturating_add(look.suspended);
        evidence.activity = look.activity;
        learn(evidence);
        let (connection, evidence) = (session.epoch, *evidence);
        let limit = self
            .config
            .liveness
            .silence_limit(session.facts.tick_interval);
        match assess(&evidence, limit, &self.config.liveness) {
            Assessment::Ask(question) => {
                self.fired(Rule::Ask { question, evidence });
                self.effects.push_back(match question {
                    Question::Request => Effect::Verify {
                        connection,
                        within: self.config.liveness.verify_within,
                    },
                    Question::Handshake => Effect::Knock {
                        connection,
                        within: self.config.liveness.handshake_within,
                    },
                });
            }
            Assessment::Conclusion {
                verdict,
                look_again_in,
            } => {
                session.verdict = verdict;
                session.watch = Watch::LookAt(now + look_again_in);
                let action = verdict.action(self.target == Target::Own);
                self.fired(Rule::Conclude {
                    verdict,
                    evidence,
                    action,
                });
                self.act(now, action, verdict, &evidence);
            }
        }
    }

    fn act(&mut self, now: Time, action: Action, verdict: Verdict, evidence: &Evidence) {
        let silence = evidence.silence.as_secs();
        let failure = |what| {
            let message = format!(
                "Nothing arrived for {silence} s and a request was not answered ({verdict}); {what}."
            );
            Failure::new(FailureClass::Unresponsive, message)
        };
        match action {
            Action::Keep => {}
            Action::Reconnect => {
                self.failure = Some(failure("making a new connection"));
                self.slow_down();
                let Step::Connected(session) = &self.step else {
                    return;
                };
                let connection = session.epoch;
                self.step = Step::Disconnecting(connection);
                if self.target == Target::Attached {
                    // Whether it is still there is for discovery to say.
                    self.target = Target::Undecided;
                    self.recovering = Some(FailureClass::Unresponsive);
                } else {
                    // A gateway that is not there for us may be there again; what happens to the process is decided by
                    // the wait for its readiness.
                    let wait = ReadinessWait::begin_for(ReadinessPurpose::Reconnect, now);
                    self.readiness = Some(wait);
                }
                self.effects.push_back(Effect::Disconnect {
                    connection,
                    reason: DisconnectReason::Unresponsive,
                });
            }
            Action::EndChild => self.begin_teardown(
                DisconnectReason::Unresponsive,
                EndReason::Wedged,
                Then::Fail(failure("replacing the gateway process")),
            ),
        }
    }
}
