//! What the world reports.

use alloc::format;
use alloc::string::String;

use super::{
    AttachMode, Child, ConnectionLoss, Desired, DisconnectReason, Effect, EndReason, Lifecycle,
    Observation, PortHolder, Progress, Rule, Session, ShutdownNotice, Step, Target, Then, Wait,
    Watch,
};
use crate::Time;
use crate::epoch::Epoch;
use crate::failure::{Failure, FailureClass};
use crate::liveness::Verdict;
use crate::readiness::{ReadinessPurpose, ReadinessStage, ReadinessWait};
use crate::status::{SessionFacts, TicketOutcome};

impl Lifecycle {
    pub(super) fn on_observation(&mut self, now: Time, epoch: Epoch, observation: Observation) {
        if !self.expects(epoch) {
            return self.ignore(epoch);
        }
        if self.is_child(epoch) {
            return self.on_child(now, epoch, observation);
        }
        match (&self.step, observation) {
            (Step::Discovering(_), Observation::PortFree) => self.on_port_free(now),
            (Step::Discovering(_), Observation::GatewayFound(holder)) => {
                self.on_gateway_found(now, &holder)
            }
            (Step::Discovering(_), Observation::ForeignFound(holder)) => {
                self.on_foreign_found(now, &holder)
            }
            (Step::Discovering(_), Observation::SurvivorFound { pid }) => {
                self.on_survivor_found(epoch, pid)
            }
            (
                Step::Preparing(_),
                prepared @ (Observation::Prepared
                | Observation::PreparedAsRunning
                | Observation::PreparationFailed(_)),
            ) if self.child.is_some() => self.on_prepared_beside_survivor(now, prepared),
            (Step::Preparing(_), Observation::Prepared | Observation::PreparedAsRunning) => {
                self.launch(now)
            }
            (Step::Spawning(_), Observation::Spawned { pid }) => {
                self.child = Some(Child {
                    epoch,
                    pid,
                    ending: false,
                });
                self.readiness = Some(ReadinessWait::begin(now));
                self.step = Step::Idle;
            }
            (
                Step::Discovering(_) | Step::Preparing(_) | Step::Spawning(_),
                Observation::DiscoveryFailed(failure)
                | Observation::PreparationFailed(failure)
                | Observation::SpawnFailed(failure),
            ) => self.fail(now, failure),
            (Step::Connecting(_), Observation::Progress(progress)) => {
                self.on_progress(now, progress)
            }
            (Step::Connecting(_), Observation::Connected(facts)) => {
                self.on_connected(now, epoch, facts)
            }
            (Step::Connecting(_), Observation::ConnectFailed(failure)) => {
                self.on_connect_failed(now, failure)
            }
            (Step::Connected(_), Observation::Disconnected(loss)) => {
                self.on_connection_lost(now, loss)
            }
            (Step::Disconnecting(_), Observation::Disconnected(_)) => self.step = Step::Idle,
            (
                Step::Connected(Session {
                    watch: Watch::Asked(_),
                    ..
                }),
                Observation::Looked(look),
            ) => self.on_look(now, look, |_| {}),
            (
                Step::Connected(Session {
                    watch: Watch::Asked(_),
                    ..
                }),
                Observation::RequestMade { sign, look },
            ) => self.on_look(now, look, |evidence| evidence.request = sign),
            (
                Step::Connected(Session {
                    watch: Watch::Asked(_),
                    ..
                }),
                Observation::HandshakeTried { sign, look },
            ) => self.on_look(now, look, |evidence| evidence.handshake = sign),
            (Step::Repairing { .. }, Observation::Repaired) => self.on_repaired(now),
            (Step::Repairing { cancelled, .. }, Observation::RepairFailed(failure)) => {
                if *cancelled {
                    self.step = Step::Idle;
                } else {
                    self.halt(failure);
                }
            }
            // Right epoch, wrong kind: the driver's mistake. It must not move the machine.
            _ => self.ignore(epoch),
        }
    }

    fn ignore(&mut self, epoch: Epoch) {
        self.fired(Rule::Stale { epoch });
        self.effects.push_back(Effect::IgnoredStale { epoch });
    }

    // The port.

    fn on_port_free(&mut self, now: Time) {
        if let Some(until) = self.attached_back_by.filter(|until| *until > now) {
            // A launch of ours would take the port that it is about to bind again.
            self.fired(Rule::WaitForAttached { until });
            let look_again = now + self.config.readiness.starting_delay;
            return self.wait(look_again.min(until), Wait::Reconnect);
        }
        self.attached_back_by = None;
        if self.config.attach == AttachMode::Only {
            self.fired(Rule::NothingToAttachTo);
            let message = "No gateway listens on the port, and launching one is switched off. Start the gateway, or allow launching.";
            return self.fail(now, Failure::new(FailureClass::NotListening, message));
        }
        self.prepare();
    }

    fn prepare(&mut self) {
        self.target = Target::Own;
        // The launch context is built now, from everything that was asked for so far.
        self.restarts.cover();
        self.fired(Rule::PrepareLaunch {
            covers: self.restarts.covered(),
        });
        let epoch = self.epochs.next_epoch();
        self.step = Step::Preparing(epoch);
        self.effects.push_back(Effect::Prepare { epoch });
    }

    /// It is ours from here on. Whether it may stay is known when it is known what would be launched in its place.
    fn on_survivor_found(&mut self, epoch: Epoch, pid: u32) {
        self.fired(Rule::SurvivorFound);
        self.attached_back_by = None;
        self.child = Some(Child {
            epoch,
            pid,
            ending: false,
        });
        self.prepare();
    }

    fn on_prepared_beside_survivor(&mut self, now: Time, prepared: Observation) {
        self.step = Step::Idle;
        match prepared {
            // A gateway that serves, perhaps, is worth more than none.
            Observation::PreparationFailed(failure) => {
                self.fired(Rule::AdoptForWantOfAnother);
                self.failure = Some(failure);
            }
            // Whoever asked for a restart wants a fresh one.
            Observation::PreparedAsRunning if !self.restarts.has_waiting() => {
                self.fired(Rule::Adopt)
            }
            _ => {
                self.fired(Rule::ReplaceSurvivor);
                return self.begin_teardown(
                    DisconnectReason::Restart,
                    EndReason::Outdated,
                    Then::Relaunch,
                );
            }
        }
        self.readiness = Some(ReadinessWait::begin(now));
    }

    fn on_gateway_found(&mut self, now: Time, holder: &PortHolder) {
        if self.config.attach == AttachMode::Never {
            self.fired(Rule::AttachingNotAllowed {
                mode: self.config.attach,
            });
            let message = format!(
                "The port is held by another OpenClaw Gateway, {holder}, and attaching is switched off. It was left alone: stop it, choose another port, or allow attaching."
            );
            return self.fail(now, Failure::new(FailureClass::PortHeld, message));
        }
        self.fired(Rule::Attach);
        self.target = Target::Attached;
        self.attached_back_by = None;
        self.restarts.cover();
        self.readiness = Some(ReadinessWait::begin(now));
        self.step = Step::Idle;
    }

    fn on_foreign_found(&mut self, now: Time, holder: &PortHolder) {
        self.fired(Rule::PortHeldByStranger);
        let evidence = match holder.detail.as_str() {
            "" => String::new(),
            detail => format!(" ({detail})"),
        };
        let message = format!(
            "The port is held by {holder}, which is no OpenClaw Gateway{evidence}. It was left alone: stop it, or choose another port."
        );
        self.fail(now, Failure::new(FailureClass::PortHeld, message));
    }

    // The child.

    /// Creates the process. What recovery launches is charged, here and nowhere else.
    fn launch(&mut self, now: Time) {
        let recovering = self.recovering.take();
        if recovering.is_some() {
            self.ledger.charge(now, &self.config.budget);
        }
        self.fired(Rule::Launch {
            recovering,
            in_window: self.ledger.launches_in_window(now, &self.config.budget),
        });
        let epoch = self.epochs.next_epoch();
        self.step = Step::Spawning(epoch);
        self.effects.push_back(Effect::Spawn { epoch });
    }

    fn on_child(&mut self, now: Time, epoch: Epoch, observation: Observation) {
        match observation {
            Observation::Progress(progress) => self.on_progress(now, progress),
            Observation::Exited(failure) => self.on_exited(now, failure),
            Observation::TerminationFailed(failure) => self.on_termination_failed(failure),
            _ => self.ignore(epoch),
        }
    }

    fn on_progress(&mut self, now: Time, progress: Progress) {
        if let Some(wait) = &mut self.readiness {
            wait.progress(
                now,
                match progress {
                    Progress::Output | Progress::SaysReady => None,
                    Progress::Listening => Some(ReadinessStage::Listening),
                },
            );
        }
        let between_tries = matches!(
            self.step,
            Step::Waiting {
                reason: Wait::Retry,
                ..
            }
        );
        if progress == Progress::SaysReady && between_tries {
            self.fired(Rule::AskNow);
            self.step = Step::Idle;
        }
    }

    fn on_termination_failed(&mut self, failure: Failure) {
        if self.step != Step::Terminating {
            // Nobody waits for it: somebody has been told already.
            return;
        }
        self.fired(Rule::ChildRefusesToEnd);
        let failure = Failure {
            class: FailureClass::Unkillable,
            ..failure
        };
        for ticket in core::mem::take(&mut self.stops) {
            self.answer(ticket, TicketOutcome::Failed(failure.clone()));
        }
        // The child stays marked as ending: whatever comes next has to end it first. A restart that was to follow has failed
        // with it; left uncovered, it would have the same child ended again and again.
        self.restarts.cover();
        self.teardown = None;
        self.halt(failure);
    }

    fn on_exited(&mut self, now: Time, failure: Failure) {
        let asked = self.child.take().is_some_and(|child| child.ending);
        let wait = self.readiness.take();
        self.fired(Rule::ChildEnded {
            asked,
            class: failure.class,
        });
        if matches!(self.step, Step::Preparing(_)) {
            // A survivor that dies while its successor is prepared is no loss: the launch goes on.
            return;
        }
        match &self.step {
            Step::Terminating | Step::Waiting { .. } => self.step = Step::Idle,
            Step::Connecting(epoch) => {
                let epoch = *epoch;
                self.effects.push_back(Effect::Cancel { epoch });
                self.step = Step::Idle;
            }
            Step::Idle
            | Step::Discovering(_)
            | Step::Preparing(_)
            | Step::Spawning(_)
            | Step::Connected(_)
            | Step::Disconnecting(_)
            | Step::Repairing { .. }
            | Step::Halted(_) => {}
        }
        if matches!(self.step, Step::Halted(_)) {
            // It had refused to end and is gone after all. Whoever wants a gateway has been told, and has to ask again.
            if self.desired == Desired::Stopped {
                self.step = Step::Idle;
                self.begin_anew();
            }
            return;
        }
        if self.teardown.is_some() {
            return;
        }
        self.target = Target::Undecided;
        let announced =
            wait.is_some_and(|wait| wait.purpose() == ReadinessPurpose::AnnouncedRestart);
        let failure = if announced && failure.class == FailureClass::Temporary {
            Failure {
                class: FailureClass::PlannedRestart,
                ..failure
            }
        } else {
            failure
        };
        if matches!(self.step, Step::Connected(_) | Step::Disconnecting(_)) {
            // The socket goes with the child; take it down before the next launch.
            self.begin_teardown(
                DisconnectReason::ChildGone,
                EndReason::Unusable,
                Then::Fail(failure),
            );
        } else {
            self.fail(now, failure);
        }
    }

    fn on_repaired(&mut self, now: Time) {
        self.step = Step::Idle;
        let cause = self.failure.take();
        if self.teardown.is_some() {
            return;
        }
        self.recovering = Some(FailureClass::Configuration);
        let allowance = self.ledger.grant(now, &self.config.budget);
        self.fired(Rule::RelaunchAfterRepair { allowance });
        self.spend(now, allowance, cause);
    }

    // The connection.

    fn on_connected(&mut self, now: Time, epoch: Epoch, facts: SessionFacts) {
        self.fired(Rule::Serve {
            protocol: facts.protocol,
        });
        let limit = self.config.liveness.silence_limit(facts.tick_interval);
        self.readiness = None;
        self.failure = None;
        self.served = true;
        self.step = Step::Connected(Session {
            epoch,
            since: now,
            facts,
            watch: Watch::LookAt(now + limit),
            verdict: Verdict::Alive,
            stable_at: Some(now + self.config.reconnect.stable_after),
        });
    }

    fn on_connection_lost(&mut self, now: Time, loss: ConnectionLoss) {
        let stable = matches!(&self.step, Step::Connected(session) if session.stable_at.is_none());
        self.failure = Some(loss.failure.clone());
        if self.target == Target::Attached {
            self.on_attached_lost(now, loss, stable);
        } else {
            self.on_own_connection_lost(now, loss.notice, stable);
        }
    }

    /// Whether it is still there is for discovery to say.
    fn on_attached_lost(&mut self, now: Time, loss: ConnectionLoss, stable: bool) {
        self.fired(Rule::AttachedLost {
            notice: loss.notice,
        });
        self.target = Target::Undecided;
        self.step = Step::Idle;
        self.recovering = Some(loss.failure.class);
        if let ShutdownNotice::Restart { expected } = loss.notice {
            let patience = expected.saturating_mul(self.config.announced_restart_patience.max(1));
            self.attached_back_by = Some(now + patience);
            self.wait(now + expected, Wait::Reconnect);
        } else if !stable {
            let config = self.config.reconnect.clone();
            self.back_off(now, &config, loss.failure, Wait::BackOff);
        }
    }

    /// The child lives: a new connection, no new child.
    fn on_own_connection_lost(&mut self, now: Time, notice: ShutdownNotice, stable: bool) {
        let poll = self.config.readiness.poll;
        let (purpose, delay) = match notice {
            // Patience begins when the restart was meant to be over; until then it is polled for like a start.
            ShutdownNotice::Restart { .. } => (ReadinessPurpose::AnnouncedRestart, poll),
            // It is about to end, and its end is what is waited for.
            ShutdownNotice::Stop => (ReadinessPurpose::Reconnect, self.config.announced_stop),
            ShutdownNotice::None if stable => {
                (ReadinessPurpose::Reconnect, core::time::Duration::ZERO)
            }
            // The first time may be chance; what keeps happening is slowed down.
            ShutdownNotice::None => {
                let first = self.slowness == 0;
                let delay = self.slow_down();
                (
                    ReadinessPurpose::Reconnect,
                    if first { poll } else { delay },
                )
            }
        };
        let mut wait = ReadinessWait::begin_for(purpose, now);
        if let ShutdownNotice::Restart { expected } = notice {
            wait.progress(now + expected, None);
        }
        self.readiness = Some(wait);
        self.fired(Rule::ReconnectToChild { notice, delay });
        self.wait(now + delay, Wait::Reconnect);
    }
}
