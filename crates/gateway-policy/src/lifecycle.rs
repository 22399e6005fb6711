//! The lifecycle as a value: inputs in, effects out, time passed in, one deadline out.
//!
//! The machine keeps facts and one step in flight. After every input it compares what the user wants with what is there and
//! takes the next step, so there is one road for every decision: a first start, a retry, a restart and a recovery are the same
//! walk. Whoever owns a machine performs its effects and reports what they led to; it decides nothing.
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
//! let why: Vec<String> = std::iter::from_fn(|| machine.poll_rule()).map(|rule| rule.to_string()).collect();
//! assert_eq!(why, ["prepare-launch (covers requests up to 0)"]);
//! ```

mod advance;
mod commands;
mod config;
mod effect;
#[cfg(test)]
mod histories;
mod input;
mod normal_form;
mod observations;
mod outside;
mod recovery;
mod rule;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod tests;
mod watch;
#[cfg(test)]
mod world;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

pub use config::{AttachMode, LifecycleConfig};
pub use effect::{ConnectPlan, CredentialChoice, DisconnectReason, Effect, EndReason};
pub use input::{ConnectionLoss, Input, Look, Observation, PortHolder, Progress, ShutdownNotice};
pub use normal_form::NormalForm;
pub use rule::Rule;

use crate::Time;
use crate::budget::{GaveUp, RestartLedger};
use crate::epoch::{Epoch, EpochCounter};
use crate::failure::{Failure, FailureClass};
use crate::liveness::{Evidence, Verdict, assess_start};
use crate::readiness::ReadinessWait;
use crate::repair::RepairBudget;
use crate::restart::RestartQueue;
use crate::status::{GatewayState, GatewayStatus, SessionFacts, Ticket};

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
    /// Nothing more happens by itself: recovery gave up, or the cause is permanent.
    Halted(Option<GaveUp>),
}

/// Why the machine waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wait {
    /// For the gateway's next chance to accept a connection.
    Retry,
    /// Before a new socket to a gateway that was lost, or before looking whether it is back.
    Reconnect,
    /// Before the next launch, or the next look at the port.
    BackOff,
    /// Until a holder of the port or of the state directory lets go.
    Holder,
    /// Until a person approves the device.
    Approval,
}

impl Wait {
    /// Whether nothing is under way that a new command would have to leave alone.
    fn can_be_cut_short(self) -> bool {
        matches!(self, Self::BackOff | Self::Holder | Self::Approval)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Session {
    epoch: Epoch,
    since: Time,
    facts: SessionFacts,
    watch: Watch,
    verdict: Verdict,
    /// When it will have proved stable; `None` once it has.
    stable_at: Option<Time>,
}

/// The watch over an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Watch {
    /// Nothing is asked until then.
    LookAt(Time),
    /// A look, a request or a second connection is under way; this is known so far.
    Asked(Evidence),
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
    /// Launch another one in its place.
    Relaunch,
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
    /// How far what happens again and again has been slowed down: lost sockets, failed handshakes, looks for somebody else's gateway.
    slowness: u32,
    repair: RepairBudget,
    credential: CredentialChoice,
    protocols: (u32, u32),
    /// Whether there was a session since the user last asked for a fresh gateway.
    served: bool,
    /// A session that proved stable earns one retry without delay.
    earned_retry: bool,
    /// The failure that the next launch is to recover from; `None` when a user asked for it. Such a launch is charged.
    recovering: Option<FailureClass>,
    /// An attached gateway announced that it restarts: until then nothing is launched in its place.
    attached_back_by: Option<Time>,
    /// Why it is not running.
    failure: Option<Failure>,
    // Commands that wait for their answer.
    starts: Vec<Ticket>,
    stops: Vec<Ticket>,
    restarts: RestartQueue,
    // Output. Answers come last, so that whoever is answered finds the status that the answer speaks of.
    effects: VecDeque<Effect>,
    answers: VecDeque<Effect>,
    rules: VecDeque<Rule>,
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
            slowness: 0,
            credential: CredentialChoice::default(),
            served: false,
            earned_retry: false,
            recovering: None,
            attached_back_by: None,
            failure: None,
            starts: Vec::new(),
            stops: Vec::new(),
            restarts: RestartQueue::default(),
            effects: VecDeque::new(),
            answers: VecDeque::new(),
            rules: VecDeque::new(),
            published: GatewayStatus::default(),
        }
    }

    /// Takes one input and everything that follows from it. Read [`poll_effect`](Self::poll_effect) until it is empty
    /// before the next input.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.rules.clear();
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

    /// The next rule that fired in the last call of [`handle`](Self::handle) or [`handle_timeout`](Self::handle_timeout), in
    /// order. Nobody has to read them; the next call forgets them.
    pub fn poll_rule(&mut self) -> Option<Rule> {
        self.rules.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called, if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let step = match &self.step {
            Step::Waiting { until, .. } => Some(*until),
            Step::Connected(session) => {
                let look = match session.watch {
                    Watch::LookAt(at) => Some(at),
                    Watch::Asked(_) => None,
                };
                earliest(look, session.stable_at)
            }
            _ => None,
        };
        let readiness = self
            .wait_for_readiness()
            .map(|wait| wait.deadline(&self.config.readiness));
        earliest(earliest(step, readiness), self.restarts.due())
    }

    /// Acts on every deadline that has passed. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        self.rules.clear();
        if let Some(number) = self.restarts.mature(now) {
            self.fired(Rule::RestartMatured { number });
        }
        let limits = &self.config.readiness;
        let wait = self.wait_for_readiness();
        if wait.is_some_and(|wait| assess_start(wait, now, limits) == Verdict::Wedged) {
            self.give_up_waiting_for_readiness(now);
        }
        match &self.step {
            Step::Waiting { until, .. } if *until <= now => self.step = Step::Idle,
            Step::Connected(_) => self.watch(now),
            _ => {}
        }
        self.settle(now);
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
            Step::Idle | Step::Terminating | Step::Waiting { .. } | Step::Halted(_) => false,
        };
        in_step || self.is_child(epoch)
    }

    /// What recovery has done by itself.
    #[must_use]
    pub fn ledger(&self) -> &RestartLedger {
        &self.ledger
    }

    /// Whether the user wants a running gateway.
    #[must_use]
    pub fn wants_running(&self) -> bool {
        self.desired == Desired::Running
    }

    fn is_child(&self, epoch: Epoch) -> bool {
        self.child
            .as_ref()
            .is_some_and(|child| child.epoch == epoch)
    }

    fn fired(&mut self, rule: Rule) {
        self.rules.push_back(rule);
    }
}

fn earliest(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
