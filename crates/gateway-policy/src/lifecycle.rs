//! The lifecycle as a value: inputs in, effects out, time passed in, one deadline out.
//!
//! The machine keeps facts and one step in flight. After every input it compares what the user wants with what is there and
//! takes the next step, so there is one road for every decision: a first start, a retry, a restart and a recovery all go
//! through [`Lifecycle::advance`](Lifecycle). Whoever owns a machine performs its effects and reports what they led to; it
//! decides nothing.
//!
//! The facts are independent of each other: a child may live without a connection (then a new socket is made, not a new child),
//! and a connection may exist without a child (then the gateway is attached, and is neither repaired nor ended).
//!
//! ```
//! use gateway_policy::{Effect, Input, Lifecycle, LifecycleConfig, Observation, Time};
//! use gateway_policy::status::Ticket;
//!
//! let mut machine = Lifecycle::new(LifecycleConfig::default());
//! machine.handle(Time::ZERO, Input::Start(Ticket::from_number(1)));
//! let effects: Vec<Effect> = std::iter::from_fn(|| machine.poll_effect()).collect();
//! let Some(Effect::Discover { epoch }) = effects.iter().find(|effect| matches!(effect, Effect::Discover { .. })) else {
//!     panic!("a start looks for a gateway first");
//! };
//! machine.handle(Time::from_millis(3), Input::Observed { epoch: *epoch, observation: Observation::PortFree });
//! ```

mod config;
mod effect;
mod input;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

pub use config::{AttachMode, LifecycleConfig};
pub use effect::{ConnectPlan, CredentialChoice, DisconnectReason, Effect, EndReason};
pub use input::{ConnectionLoss, Input, Observation, PortHolder, Progress};

use crate::Time;
use crate::backoff::{ReconnectConfig, ReconnectDecision, ReconnectFacts};
use crate::budget::RestartLedger;
use crate::epoch::{Epoch, EpochCounter};
use crate::failure::{Failure, FailureClass, Road};
use crate::liveness::{Evidence, Verdict, assess};
use crate::readiness::{ReadinessStage, ReadinessWait};
use crate::repair::RepairBudget;
use crate::restart::RestartQueue;
use crate::status::{GatewayState, GatewayStatus, Phase, SessionFacts, Ticket, TicketOutcome};

/// What the user wants. Only commands set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Desired {
    Stopped,
    Running,
}

/// Which gateway is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    /// Discovery has to tell.
    Undecided,
    /// Ours: there is a child, or there will be one.
    Own,
    /// One that was there.
    Attached,
}

/// The process that we launched and whose end we have not seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Child {
    epoch: Epoch,
    pid: u32,
    ending: bool,
}

/// The one thing that is going on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Nothing; the next step can be taken.
    Idle,
    Discovering(Epoch),
    Preparing(Epoch),
    Spawning(Epoch),
    Connecting(Epoch),
    Connected(Session),
    Disconnecting(Epoch),
    Terminating,
    Repairing {
        epoch: Epoch,
        cancelled: bool,
    },
    Waiting {
        until: Time,
        reason: Wait,
    },
    /// Nothing more happens by itself.
    Halted {
        gave_up: bool,
    },
}

/// Why the machine waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wait {
    /// For the child's next chance to accept a connection.
    Retry,
    /// Before a new socket to a gateway that was lost.
    Reconnect,
    /// Before the next launch, or the next look at the port.
    BackOff,
    /// Until a holder of the port or of the state directory lets go.
    Holder,
    /// Until a person approves the device.
    Approval,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Session {
    epoch: Epoch,
    since: Time,
    facts: SessionFacts,
    watch: Watch,
    /// When it will have proved stable; `None` once it has.
    stable_at: Option<Time>,
}

/// The watch over an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Watch {
    LookAt(Time),
    Looking,
    Verifying,
}

/// Connection and child are being taken down, in this order, and then something follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Teardown {
    close: DisconnectReason,
    end: EndReason,
    then: Then,
    /// The state shown meanwhile: the one that was visible when it began.
    shown: GatewayState,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Then {
    /// Go by what the user wants.
    Proceed,
    /// Take the road of this failure.
    Fail(Failure),
}

/// The machine. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lifecycle {
    config: LifecycleConfig,
    epochs: EpochCounter,
    desired: Desired,
    target: Target,
    step: Step,
    child: Option<Child>,
    /// The wait for readiness of the gateway in use; present while there is one and no session with it.
    readiness: Option<ReadinessWait>,
    teardown: Option<Teardown>,
    // The episode: what recovery has used up since things were last known to be good.
    ledger: RestartLedger,
    reconnects: u32,
    repair: RepairBudget,
    credential: CredentialChoice,
    protocols: (u32, u32),
    /// Whether there was a session since the user last asked for a fresh gateway.
    served: bool,
    /// A session that proved stable earns one retry without delay.
    earned_retry: bool,
    /// Why it is not running.
    failure: Option<Failure>,
    // Commands that wait for their answer.
    starts: Vec<Ticket>,
    stops: Vec<Ticket>,
    restarts: RestartQueue,
    // Output. Answers come last, so that whoever is answered finds the status that the answer speaks of.
    effects: VecDeque<Effect>,
    answers: VecDeque<Effect>,
    published: GatewayStatus,
}

impl Lifecycle {
    /// A stopped machine.
    #[must_use]
    pub fn new(config: LifecycleConfig) -> Self {
        Self {
            repair: RepairBudget::new(config.repair),
            protocols: config.protocols,
            config,
            epochs: EpochCounter::default(),
            desired: Desired::Stopped,
            target: Target::Undecided,
            step: Step::Idle,
            child: None,
            readiness: None,
            teardown: None,
            ledger: RestartLedger::default(),
            reconnects: 0,
            credential: CredentialChoice::default(),
            served: false,
            earned_retry: false,
            failure: None,
            starts: Vec::new(),
            stops: Vec::new(),
            restarts: RestartQueue::default(),
            effects: VecDeque::new(),
            answers: VecDeque::new(),
            published: GatewayStatus::default(),
        }
    }

    /// Takes one input and everything that follows from it. Read [`poll_effect`](Self::poll_effect) until it is empty
    /// before the next input.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Start(ticket) => self.on_start(ticket),
            Input::Stop(ticket) => self.on_stop(ticket),
            Input::Restart(ticket) => self.on_restart(ticket),
            Input::RestartDebounced { ticket, delay } => {
                self.on_restart_debounced(now, ticket, delay)
            }
            Input::Observed { epoch, observation } => self.on_observation(now, epoch, observation),
        }
        self.settle(now);
    }

    /// The next effect to perform, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let step = match &self.step {
            Step::Waiting { until, .. } => Some(*until),
            Step::Connected(session) => {
                let look = match session.watch {
                    Watch::LookAt(at) => Some(at),
                    Watch::Looking | Watch::Verifying => None,
                };
                earliest(look, session.stable_at)
            }
            _ => None,
        };
        earliest(
            earliest(step, self.readiness_deadline()),
            self.restarts.due(),
        )
    }

    /// Acts on every deadline that has passed. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        self.restarts.mature(now);
        if self
            .readiness_deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.give_up_waiting_for_readiness(now);
        }
        match &mut self.step {
            Step::Waiting { until, .. } if *until <= now => self.step = Step::Idle,
            Step::Connected(session) => {
                let connection = session.epoch;
                let look = matches!(session.watch, Watch::LookAt(at) if at <= now);
                if look {
                    session.watch = Watch::Looking;
                }
                let stable = session.stable_at.take_if(|at| *at <= now).is_some();
                if look {
                    self.effects.push_back(Effect::CheckSilence { connection });
                }
                if stable {
                    self.close_episode();
                    self.earned_retry = true;
                }
            }
            _ => {}
        }
        self.settle(now);
    }

    /// The public status: a function of the machine.
    #[must_use]
    pub fn status(&self) -> GatewayStatus {
        let (session, next_attempt_at) = match &self.step {
            Step::Connected(session) => (Some(session), None),
            // The short polls of a start are no attempts worth announcing.
            Step::Waiting { until, reason } if *reason != Wait::Retry => (None, Some(*until)),
            _ => (None, None),
        };
        let state = self.state();
        GatewayStatus {
            state,
            phase: self.phase(),
            pid: self.child.as_ref().map(|child| child.pid),
            attached: self.target == Target::Attached,
            connected_at: session.map(|session| session.since),
            session: session.map(|session| session.facts.clone()),
            failure: self
                .failure
                .clone()
                .filter(|_| !matches!(state, GatewayState::Running | GatewayState::Stopped)),
            attempts: self.ledger.attempts(),
            next_attempt_at,
        }
    }

    /// Whether an observation with this epoch would be heard. A connection or child that arrives with an epoch nobody waits for
    /// has to be closed or ended by whoever made it.
    #[must_use]
    pub fn expects(&self, epoch: Epoch) -> bool {
        let in_step = match &self.step {
            Step::Discovering(step)
            | Step::Preparing(step)
            | Step::Spawning(step)
            | Step::Connecting(step)
            | Step::Disconnecting(step) => *step == epoch,
            Step::Repairing { epoch: step, .. } => *step == epoch,
            Step::Connected(session) => session.epoch == epoch,
            Step::Idle | Step::Terminating | Step::Waiting { .. } | Step::Halted { .. } => false,
        };
        in_step
            || self
                .child
                .as_ref()
                .is_some_and(|child| child.epoch == epoch)
    }

    /// What recovery has done by itself in the current episode.
    #[must_use]
    pub fn ledger(&self) -> &RestartLedger {
        &self.ledger
    }

    /// Whether the user wants a running gateway.
    #[must_use]
    pub fn wants_running(&self) -> bool {
        self.desired == Desired::Running
    }

    // Commands.

    fn on_start(&mut self, ticket: Ticket) {
        self.desired = Desired::Running;
        self.starts.push(ticket);
        self.resume_by_user();
    }

    fn on_stop(&mut self, ticket: Ticket) {
        // The stop is carried through even when a start follows on its heels: only then does the start mean a fresh gateway.
        self.begin_teardown(
            DisconnectReason::UserStop,
            EndReason::UserStop,
            Then::Proceed,
        );
        self.desired = Desired::Stopped;
        self.stops.push(ticket);
        let starts = core::mem::take(&mut self.starts);
        for ticket in starts.into_iter().chain(self.restarts.clear()) {
            self.answer(ticket, TicketOutcome::Superseded);
        }
    }

    fn on_restart(&mut self, ticket: Ticket) {
        self.desired = Desired::Running;
        self.restarts.request(ticket);
        self.resume_by_user();
    }

    fn on_restart_debounced(&mut self, now: Time, ticket: Ticket, delay: Duration) {
        match self.desired {
            Desired::Stopped => self.answer(ticket, TicketOutcome::NothingToDo),
            Desired::Running => self.restarts.request_debounced(now, delay, ticket),
        }
    }

    /// A user's command ends whatever the machine had resigned itself to, with a full budget.
    fn resume_by_user(&mut self) {
        let resigned = matches!(
            self.step,
            Step::Halted { .. }
                | Step::Waiting {
                    reason: Wait::BackOff | Wait::Holder | Wait::Approval,
                    ..
                }
        );
        if resigned {
            self.step = Step::Idle;
        }
        if resigned || matches!(self.step, Step::Idle) {
            self.close_episode();
            self.failure = None;
        }
    }

    /// Whatever comes next is a first start again.
    fn begin_anew(&mut self) {
        self.served = false;
        self.earned_retry = false;
        self.failure = None;
        self.close_episode();
    }

    /// Nothing is held against the gateway any more.
    fn close_episode(&mut self) {
        self.ledger.close();
        self.reconnects = 0;
        self.repair.refill();
        self.credential = CredentialChoice::default();
        self.protocols = self.config.protocols;
    }

    // Observations.

    fn on_observation(&mut self, now: Time, epoch: Epoch, observation: Observation) {
        if !self.expects(epoch) {
            self.effects.push_back(Effect::IgnoredStale { epoch });
            return;
        }
        if self
            .child
            .as_ref()
            .is_some_and(|child| child.epoch == epoch)
        {
            return self.on_child(now, observation);
        }
        match (&self.step, observation) {
            (Step::Discovering(_), Observation::PortFree) => self.on_port_free(now),
            (Step::Discovering(_), Observation::GatewayFound(holder)) => {
                self.on_gateway_found(now, &holder)
            }
            (Step::Discovering(_), Observation::ForeignFound(holder)) => {
                let evidence = match holder.detail.as_str() {
                    "" => String::new(),
                    detail => format!(" ({detail})"),
                };
                let message = format!(
                    "The port is held by {holder}, which is no OpenClaw Gateway{evidence}. It was left alone: stop it, or choose another port."
                );
                self.fail(now, Failure::new(FailureClass::PortHeld, message));
            }
            (Step::Preparing(_), Observation::Prepared) => {
                let epoch = self.epochs.next_epoch();
                self.step = Step::Spawning(epoch);
                self.effects.push_back(Effect::Spawn { epoch });
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
                Step::Connected(session),
                Observation::Silence {
                    silence,
                    suspended,
                    verification,
                },
            ) if matches!(session.watch, Watch::Looking | Watch::Verifying) => {
                let evidence = Evidence {
                    silence,
                    suspended,
                    verification,
                };
                self.on_silence(now, evidence);
            }
            (Step::Repairing { .. }, Observation::Repaired) => {
                self.step = Step::Idle;
                self.failure = None;
            }
            (Step::Repairing { cancelled, .. }, Observation::RepairFailed(failure)) => {
                if *cancelled {
                    self.step = Step::Idle;
                } else {
                    self.halt(failure, false);
                }
            }
            // Right epoch, wrong kind: the driver's mistake. It must not move the machine.
            _ => self.effects.push_back(Effect::IgnoredStale { epoch }),
        }
    }

    fn on_child(&mut self, now: Time, observation: Observation) {
        match observation {
            Observation::Progress(progress) => self.on_progress(now, progress),
            Observation::Exited(failure) => self.on_exited(now, failure),
            Observation::TerminationFailed(failure) => {
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
                self.halt(failure, false);
            }
            _ => {
                if let Some(child) = &self.child {
                    let epoch = child.epoch;
                    self.effects.push_back(Effect::IgnoredStale { epoch });
                }
            }
        }
    }

    fn on_progress(&mut self, now: Time, progress: Progress) {
        if let Some(wait) = &mut self.readiness {
            wait.progress(
                now,
                match progress {
                    Progress::Output => None,
                    Progress::Listening => Some(ReadinessStage::Listening),
                },
            );
        }
    }

    fn on_exited(&mut self, now: Time, failure: Failure) {
        self.child = None;
        self.readiness = None;
        match &self.step {
            Step::Terminating => self.step = Step::Idle,
            Step::Connecting(epoch) => {
                let epoch = *epoch;
                self.effects.push_back(Effect::Cancel { epoch });
                self.step = Step::Idle;
            }
            Step::Waiting { .. } => self.step = Step::Idle,
            Step::Idle
            | Step::Discovering(_)
            | Step::Preparing(_)
            | Step::Spawning(_)
            | Step::Connected(_)
            | Step::Disconnecting(_)
            | Step::Repairing { .. }
            | Step::Halted { .. } => {}
        }
        if matches!(self.step, Step::Halted { .. }) {
            // It had refused to end and is gone after all. Whoever wants a gateway has been told, and has to ask again.
            if self.desired == Desired::Stopped {
                self.step = Step::Idle;
                self.begin_anew();
            }
        } else if self.teardown.is_none() {
            self.target = Target::Undecided;
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
    }

    fn on_port_free(&mut self, now: Time) {
        if self.config.attach == AttachMode::Only {
            let message = "No gateway listens on the port, and launching one is switched off. Start the gateway, or allow launching.";
            return self.fail(now, Failure::new(FailureClass::NotListening, message));
        }
        self.target = Target::Own;
        // The launch context is built now, from everything that was asked for so far.
        self.restarts.cover();
        let epoch = self.epochs.next_epoch();
        self.step = Step::Preparing(epoch);
        self.effects.push_back(Effect::Prepare { epoch });
    }

    fn on_gateway_found(&mut self, now: Time, holder: &PortHolder) {
        if self.config.attach == AttachMode::Never {
            let message = format!(
                "The port is held by another OpenClaw Gateway, {holder}, and attaching is switched off. It was left alone: stop it, choose another port, or allow attaching."
            );
            return self.fail(now, Failure::new(FailureClass::PortHeld, message));
        }
        self.target = Target::Attached;
        self.restarts.cover();
        self.readiness = Some(ReadinessWait::begin(now));
        self.step = Step::Idle;
    }

    fn on_connected(&mut self, now: Time, epoch: Epoch, facts: SessionFacts) {
        let limit = self.config.liveness.silence_limit(facts.tick_interval);
        self.readiness = None;
        self.failure = None;
        self.served = true;
        self.step = Step::Connected(Session {
            epoch,
            since: now,
            facts,
            watch: Watch::LookAt(now + limit),
            stable_at: Some(now + self.config.reconnect.stable_after),
        });
    }

    fn on_connection_lost(&mut self, now: Time, loss: ConnectionLoss) {
        let stable = matches!(&self.step, Step::Connected(session) if session.stable_at.is_none());
        self.failure = Some(loss.failure.clone());
        if self.target == Target::Attached {
            // Whether it is still there is for discovery to say.
            self.target = Target::Undecided;
            self.step = Step::Idle;
            if stable {
                return;
            }
            return self.back_off(
                now,
                &self.config.reconnect.clone(),
                loss.failure,
                Wait::BackOff,
            );
        }
        let mut wait = ReadinessWait::begin(now);
        if let Some(expected) = loss.back_within {
            // An announced restart is progress in itself: the patience begins when it was meant to be over.
            wait.progress(now + expected, None);
        }
        self.readiness = Some(wait);
        let delay = if stable {
            Duration::ZERO
        } else {
            let delay = self.config.reconnect.delay(self.reconnects);
            self.reconnects = self.reconnects.saturating_add(1);
            // A planned restart is polled for like a start; anything else that keeps happening is slowed down.
            if loss.back_within.is_some() || self.reconnects == 1 {
                self.config.readiness.poll
            } else {
                delay
            }
        };
        self.wait(now + delay, Wait::Reconnect);
    }

    fn on_silence(&mut self, now: Time, evidence: Evidence) {
        let Step::Connected(session) = &mut self.step else {
            return;
        };
        let connection = session.epoch;
        let limit = self
            .config
            .liveness
            .silence_limit(session.facts.tick_interval);
        match assess(evidence, limit) {
            Verdict::Alive { look_again_in } => session.watch = Watch::LookAt(now + look_again_in),
            Verdict::Suspended => session.watch = Watch::LookAt(now + limit),
            Verdict::Silent => {
                session.watch = Watch::Verifying;
                self.effects.push_back(Effect::Verify {
                    connection,
                    within: self.config.liveness.verify_within,
                });
            }
            Verdict::Unresponsive => {
                // The socket is given up, not the child: a fresh handshake decides about that one.
                self.failure = Some(Failure::new(
                    FailureClass::Unresponsive,
                    format!(
                        "Nothing arrived for {} s and a request was not answered either; making a new connection.",
                        evidence.silence.as_secs()
                    ),
                ));
                self.reconnects = self.reconnects.saturating_add(1);
                self.step = Step::Disconnecting(connection);
                self.readiness = Some(ReadinessWait::begin(now));
                if self.target == Target::Attached {
                    self.target = Target::Undecided;
                    self.readiness = None;
                }
                self.effects.push_back(Effect::Disconnect {
                    connection,
                    reason: DisconnectReason::Unresponsive,
                });
            }
        }
    }

    /// A handshake with the gateway in use failed, and that gateway, as far as anybody knows, still runs.
    fn on_connect_failed(&mut self, now: Time, failure: Failure) {
        let road = failure.class.road();
        if self.target == Target::Attached && !matches!(road, Road::AskAgain | Road::AwaitApproval)
        {
            if let Some(retry) = self.second_try(&failure) {
                return retry(self);
            }
            // Nothing of ours runs: the road of the failure as it is, and a new look at the port when it leads on.
            self.target = Target::Undecided;
            self.readiness = None;
            return self.fail(now, failure);
        }
        match road {
            Road::AskAgain => {
                self.readiness
                    .get_or_insert_with(|| ReadinessWait::begin(now));
                let starting = failure.class == FailureClass::StartingUp;
                if starting && let Some(wait) = &mut self.readiness {
                    wait.progress(now, Some(ReadinessStage::StartingUp));
                }
                if !starting && self.target == Target::Attached {
                    self.target = Target::Undecided;
                    self.readiness = None;
                    return self.fail(
                        now,
                        Failure {
                            class: FailureClass::Temporary,
                            ..failure
                        },
                    );
                }
                let delay = if starting {
                    self.config.readiness.advised(failure.retry_after)
                } else {
                    self.config.readiness.poll
                };
                // What cost the connection stays the cause; the news of a start replace each other.
                let keeps = |known: &Failure| known.class.road() != Road::AskAgain;
                if !self.failure.as_ref().is_some_and(keeps) {
                    self.failure = Some(failure);
                }
                self.wait(now + delay, Wait::Retry);
            }
            Road::AwaitApproval => {
                self.failure = Some(failure.clone());
                // A person may take a day; the readiness of the gateway is not in question.
                self.readiness = None;
                self.answer_launch(&failure);
                self.wait(now + self.config.approval_poll, Wait::Approval);
            }
            Road::AlternativeCredentialOnce | Road::StepDownOnce => match self.second_try(&failure)
            {
                Some(retry) => retry(self),
                None => self.begin_teardown(
                    DisconnectReason::Restart,
                    EndReason::Unusable,
                    Then::Fail(failure),
                ),
            },
            Road::Stop | Road::RepairOnce => {
                self.begin_teardown(
                    DisconnectReason::Restart,
                    EndReason::Unusable,
                    Then::Fail(failure),
                );
                self.step = Step::Idle;
            }
            // Whatever it is, the child lives and may yet come round; its readiness deadline is the limit.
            Road::WaitForHolder | Road::BackOff => {
                self.readiness
                    .get_or_insert_with(|| ReadinessWait::begin(now));
                self.failure = Some(failure);
                let delay = self
                    .config
                    .reconnect
                    .delay(self.reconnects)
                    .min(Duration::from_secs(2));
                self.reconnects = self.reconnects.saturating_add(1);
                self.wait(now + delay, Wait::Retry);
            }
        }
        if self.teardown.is_some() {
            self.step = Step::Idle;
        }
    }

    /// The one other way to get in that this failure allows, if it has not been tried.
    fn second_try(&self, failure: &Failure) -> Option<impl FnOnce(&mut Self) + use<>> {
        let (least, most) = self.config.protocols;
        let credential = (failure.class == FailureClass::Credentials
            && self.credential == CredentialChoice::Primary)
            .then_some(CredentialChoice::Alternative);
        let protocol = failure
            .expected_protocol
            .filter(|version| {
                failure.class == FailureClass::ProtocolVersion && (least..=most).contains(version)
            })
            // Once: a gateway that names another version for every offer would be asked for ever.
            .filter(|_| self.protocols == self.config.protocols)
            .map(|version| (version, version))
            .filter(|exact| *exact != self.protocols);
        (credential.is_some() || protocol.is_some()).then_some(move |machine: &mut Self| {
            machine.credential = credential.unwrap_or(machine.credential);
            machine.protocols = protocol.unwrap_or(machine.protocols);
            machine.step = Step::Idle;
        })
    }

    fn readiness_deadline(&self) -> Option<Time> {
        let waiting = matches!(
            self.step,
            Step::Idle | Step::Connecting(_) | Step::Waiting { .. }
        );
        self.readiness
            .as_ref()
            .filter(|_| waiting && self.teardown.is_none())
            .map(|wait| wait.deadline(&self.config.readiness))
    }

    fn give_up_waiting_for_readiness(&mut self, now: Time) {
        let Some(wait) = self.readiness.take() else {
            return;
        };
        let seen = match &self.failure {
            Some(failure) => format!(" Last seen: {failure}"),
            None => String::new(),
        };
        let failure = Failure::new(
            FailureClass::NotReady,
            format!(
                "The gateway did not become ready within {} s.{seen}",
                now.since(wait.began()).as_secs()
            ),
        );
        if let Step::Connecting(epoch) = self.step {
            self.effects.push_back(Effect::Cancel { epoch });
        }
        self.step = Step::Idle;
        if self.target == Target::Attached {
            self.target = Target::Undecided;
            self.fail(now, failure);
        } else {
            self.begin_teardown(
                DisconnectReason::Restart,
                EndReason::NotReady,
                Then::Fail(failure),
            );
        }
    }

    // Roads.

    /// Takes the road of a failure. No child of ours is alive here.
    fn fail(&mut self, now: Time, failure: Failure) {
        self.target = Target::Undecided;
        self.readiness = None;
        self.step = Step::Idle;
        if self.desired == Desired::Stopped {
            return;
        }
        match failure.class.road() {
            Road::RepairOnce => {
                self.failure = Some(failure.clone());
                if self.repair.take() {
                    let epoch = self.epochs.next_epoch();
                    self.step = Step::Repairing {
                        epoch,
                        cancelled: false,
                    };
                    self.effects.push_back(Effect::Repair { epoch });
                } else {
                    self.halt(self.repair.remark(failure), false);
                }
            }
            Road::Stop | Road::StepDownOnce | Road::AlternativeCredentialOnce => {
                self.halt(failure, false)
            }
            Road::AwaitApproval => {
                self.answer_launch(&failure);
                self.failure = Some(failure);
                self.wait(now + self.config.approval_poll, Wait::Approval);
            }
            Road::WaitForHolder => {
                self.answer_launch(&failure);
                let config = self.config.holder.clone();
                self.back_off(now, &config, failure, Wait::Holder);
            }
            Road::AskAgain | Road::BackOff => {
                if failure.class == FailureClass::NotListening {
                    // Only somebody else can start the gateway that we may only attach to; the caller is told, not kept waiting.
                    self.answer_launch(&failure);
                }
                let config = self.config.reconnect.clone();
                self.back_off(now, &config, failure, Wait::BackOff);
            }
        }
    }

    fn back_off(&mut self, now: Time, config: &ReconnectConfig, failure: Failure, reason: Wait) {
        let facts = ReconnectFacts {
            wanted: self.desired == Desired::Running,
            scheduled: matches!(self.step, Step::Waiting { .. }),
            attempts: self.ledger.attempts(),
        };
        match config.decide(facts) {
            ReconnectDecision::Disabled | ReconnectDecision::AlreadyScheduled => {}
            ReconnectDecision::GiveUp { attempts } => {
                let lasted = self.ledger.lasted(now).as_secs();
                let message = format!(
                    "Gave up after {attempts} attempts in {lasted} s. Last cause: {failure} Start again when the cause is gone."
                );
                self.halt(Failure { message, ..failure }, true);
            }
            ReconnectDecision::Schedule { delay, .. } => {
                let earned = core::mem::take(&mut self.earned_retry) && reason == Wait::BackOff;
                self.ledger.charge(now, failure.class);
                self.failure = Some(failure);
                self.wait(if earned { now } else { now + delay }, reason);
            }
        }
    }

    fn wait(&mut self, until: Time, reason: Wait) {
        self.step = Step::Waiting { until, reason };
    }

    fn halt(&mut self, failure: Failure, gave_up: bool) {
        self.answer_launch(&failure);
        self.failure = Some(failure);
        self.step = Step::Halted { gave_up };
    }

    /// Answers everybody who waits for the launch that has just failed, or that waits for somebody outside.
    fn answer_launch(&mut self, failure: &Failure) {
        let starts = core::mem::take(&mut self.starts);
        for ticket in starts.into_iter().chain(self.restarts.take_covered()) {
            self.answer(ticket, TicketOutcome::Failed(failure.clone()));
        }
    }

    // The next step.

    fn settle(&mut self, now: Time) {
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

    fn answer(&mut self, ticket: Ticket, outcome: TicketOutcome) {
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
        // Each round either takes something down for good or returns, so a handful of rounds is the most there can be.
        loop {
            if self.teardown.is_some() {
                if !self.tear_down(now) {
                    return;
                }
            } else if self.restart_is_due() || self.child_is_left_over() {
                self.begin_teardown(DisconnectReason::Restart, EndReason::Restart, Then::Proceed);
            } else {
                return self.take_next_step();
            }
        }
    }

    /// Whether an uncovered restart request can be served now. While a launch is on its way the request waits for it: it will be
    /// covered by the next one, and a stream of requests cannot keep the gateway from ever becoming ready.
    fn restart_is_due(&self) -> bool {
        let settled = match &self.step {
            Step::Connected(_) | Step::Halted { .. } => true,
            Step::Waiting { reason, .. } => {
                matches!(reason, Wait::BackOff | Wait::Holder | Wait::Approval)
            }
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
                self.step = Step::Connecting(epoch);
                self.effects.push_back(Effect::Connect { epoch, plan });
            }
            _ => {
                // What is requested up to here shares the fate of this attempt, even if it never gets as far as a launch.
                self.restarts.cover();
                self.step = Step::Discovering(epoch);
                self.effects.push_back(Effect::Discover { epoch });
            }
        }
    }

    fn begin_teardown(&mut self, close: DisconnectReason, end: EndReason, then: Then) {
        let shown = match (&self.teardown, &then) {
            // A stop that is under way is carried through as a stop.
            (Some(teardown), _) if teardown.end == EndReason::UserStop => return,
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
        let (close, end) = (teardown.close, teardown.end);
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
            Step::Idle | Step::Waiting { .. } | Step::Halted { .. } => {}
        }
        if let Some(child) = &mut self.child {
            child.ending = true;
            self.step = Step::Terminating;
            self.effects.push_back(Effect::Terminate {
                child: child.epoch,
                reason: end,
            });
            return false;
        }
        self.step = Step::Idle;
        self.target = Target::Undecided;
        self.readiness = None;
        match self.teardown.take().map(|teardown| teardown.then) {
            Some(Then::Fail(failure)) if self.desired == Desired::Running => {
                self.fail(now, failure)
            }
            _ => {
                self.begin_anew();
                for ticket in core::mem::take(&mut self.stops) {
                    self.answer(ticket, TicketOutcome::Stopped);
                }
            }
        }
        true
    }

    // The outside.

    fn state(&self) -> GatewayState {
        if let Some(teardown) = &self.teardown {
            return teardown.shown;
        }
        match (&self.step, self.desired) {
            (Step::Halted { .. }, _) => GatewayState::Error,
            (_, Desired::Stopped) => GatewayState::Stopped,
            (Step::Connected(_), Desired::Running) => GatewayState::Running,
            (_, Desired::Running) if self.served || self.ledger.attempts() > 0 => {
                GatewayState::Reconnecting
            }
            (_, Desired::Running) => GatewayState::Starting,
        }
    }

    fn phase(&self) -> Phase {
        if self.teardown.is_some() {
            return Phase::Draining;
        }
        match &self.step {
            Step::Idle => Phase::Stopped,
            Step::Discovering(_) => Phase::Discovering,
            Step::Preparing(_) => Phase::Preparing,
            Step::Spawning(_) => Phase::Spawning,
            Step::Connecting(_)
            | Step::Waiting {
                reason: Wait::Retry | Wait::Reconnect,
                ..
            } => match self.readiness.as_ref().map(ReadinessWait::stage) {
                Some(ReadinessStage::Launched) => Phase::Listening,
                Some(ReadinessStage::Listening) | None => Phase::Handshaking,
                Some(ReadinessStage::StartingUp) => Phase::StartingUp,
            },
            Step::Connected(_) => Phase::Ready,
            Step::Disconnecting(_) | Step::Terminating => Phase::Draining,
            Step::Repairing { .. } => Phase::Repairing,
            Step::Waiting { reason, .. } => match reason {
                Wait::BackOff => Phase::BackingOff,
                Wait::Holder => Phase::WaitingForHolder,
                Wait::Approval => Phase::AwaitingApproval,
                Wait::Retry | Wait::Reconnect => Phase::Handshaking,
            },
            Step::Halted { gave_up: true } => Phase::GaveUp,
            Step::Halted { gave_up: false } => Phase::Failed,
        }
    }
}

fn earliest(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
