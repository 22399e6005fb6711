//! A world around the machine in which everything can happen that its bounds allow, for exploring all of it.
//!
//! Worlds that have the same future are equal: see [`Lifecycle::normal_form`].

use core::hash::{Hash, Hasher};
use core::time::Duration;
use std::collections::BTreeMap;

use gateway_policy::lifecycle::{
    AttachMode, ConnectionLoss, Look, PortHolder, Progress, ShutdownNotice,
};
use gateway_policy::liveness::{Activity, HandshakeSign, RequestSign};
use gateway_policy::status::{SessionFacts, Ticket, TicketOutcome};
use gateway_policy::{
    Effect, Epoch, Failure, FailureClass, GatewayState, Input, JournalEntry, Lifecycle,
    LifecycleConfig, Observation, Phase, Time, Trigger,
};

/// What a user can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Start,
    Stop,
    Restart,
    Debounced,
}

/// One step of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    Command(usize, Verb),
    /// The n-th open effect is answered.
    Answer(usize, Reply),
    Crash(FailureClass),
    /// A child that had refused to end ends after all.
    ExitLate,
    SocketLost(ShutdownNotice),
    Moves(Progress),
    /// The next deadline passes, and the machine is told at once.
    Timer,
    /// The machine is told an hour later, when every deadline has passed.
    LateTimer,
}

/// How an effect is answered. What does not fit an effect is not offered for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reply {
    Good,
    Bad(FailureClass),
    /// Somebody holds the port.
    GatewayThere,
    StrangerThere,
    /// A process of ours is there from before.
    SurvivorThere,
    /// What is prepared is what the survivor was launched as.
    AsRunning,
    /// Nobody holds the port, where somebody should.
    NobodyThere,
    /// The connection is silent, the request is not answered, the second connection is accepted and stalls, this long already.
    Silent(u16),
    /// The second connection is refused.
    Refused,
}

/// An effect that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    Discover,
    Prepare,
    Spawn,
    Connect,
    Disconnect,
    Look,
    Verify,
    Knock,
    Terminate,
    Repair,
}

impl Asked {
    /// It ends with the connection that it is about.
    pub(crate) fn is_about_connection(self) -> bool {
        matches!(
            self,
            Self::Disconnect | Self::Look | Self::Verify | Self::Knock
        )
    }
}

/// The machine and the world around it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct World {
    pub(crate) attach: AttachMode,
    pub(crate) machine: Lifecycle,
    pub(crate) now: Time,
    pub(crate) open: Vec<(Epoch, Asked)>,
    pub(crate) child: Option<Epoch>,
    pub(crate) connection: Option<Epoch>,
    pub(crate) commands_left: [u8; 2],
    pub(crate) faults_left: u8,
    pub(crate) moves_left: u8,
    /// Which tickets have been answered.
    pub(crate) tickets: BTreeMap<Ticket, bool>,
    /// The newest move of the machine.
    pub(crate) newest: Option<JournalEntry>,
    /// The first invariant that was broken, in words.
    pub(crate) broken: Option<&'static str>,
}

/// Equal for worlds that have the same future.
impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let form = self.machine.normal_form(self.now);
        form.machine.hash(state);
        // What the machine would not hear any more is zero; there is no such thing unless something is broken.
        let name = |epoch: &Epoch| form.epochs.get(epoch).copied().unwrap_or_default();
        for (epoch, asked) in &self.open {
            (name(epoch), asked).hash(state);
        }
        self.child.as_ref().map(name).hash(state);
        self.connection.as_ref().map(name).hash(state);
        let [one, other] = self.commands_left;
        (one.min(other), one.max(other)).hash(state);
        (self.faults_left, self.moves_left, self.broken).hash(state);
        let waiting = self.tickets.values().filter(|answered| !**answered).count();
        (waiting, form.tickets.len()).hash(state);
    }
}

/// The words, when the invariant does not hold.
pub(crate) fn must(holds: bool, what: &'static str) -> Option<&'static str> {
    (!holds).then_some(what)
}

pub(crate) fn failure(class: FailureClass) -> Failure {
    Failure::new(class, class.name())
}

pub(crate) fn lost(notice: ShutdownNotice) -> Observation {
    Observation::Disconnected(ConnectionLoss {
        failure: failure(FailureClass::Temporary),
        notice,
    })
}

impl World {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let mut config = LifecycleConfig::default();
        config.attach = bounds.attach;
        // Small numbers, so that every limit is met.
        config.reconnect.max_attempts = 3;
        config.holder.max_attempts = 1;
        config.budget.burst = 2;
        config.budget.spaced.truncate(1);
        Self {
            attach: bounds.attach,
            machine: Lifecycle::new(config),
            now: Time::ZERO,
            open: Vec::new(),
            child: None,
            connection: None,
            commands_left: [bounds.commands; 2],
            faults_left: bounds.faults,
            moves_left: 1,
            tickets: BTreeMap::new(),
            newest: None,
            broken: None,
        }
    }

    pub(crate) fn advance(&mut self, trigger: Trigger) {
        let entry = JournalEntry::of(&mut self.machine, self.now, trigger);
        self.newest = Some(entry.clone());
        for effect in entry.effects {
            let broken = self.accept(effect);
            self.broken = self.broken.or(broken);
        }
        self.broken = self.broken.or(self.contradiction());
    }

    pub(crate) fn observe(&mut self, epoch: Epoch, observation: Observation) {
        self.advance(Trigger::Input(Input::Observed { epoch, observation }));
    }

    pub(crate) fn command(&mut self, verb: Verb) -> Ticket {
        let ticket = Ticket::from_number(self.tickets.len() as u64);
        self.tickets.insert(ticket, false);
        self.advance(Trigger::Input(match verb {
            Verb::Start => Input::Start(ticket),
            Verb::Stop => Input::Stop(ticket),
            Verb::Restart => Input::Restart(ticket),
            Verb::Debounced => Input::RestartDebounced {
                ticket,
                delay: Duration::from_secs(2),
            },
        }));
        ticket
    }

    /// What holds between two inputs, when it does not.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let status = self.machine.status();
        let nothing_left = self.child.is_none() && self.connection.is_none();
        let quiet = self.open.is_empty() && self.machine.poll_timeout().is_none();
        let calm = matches!(status.state, GatewayState::Running | GatewayState::Stopped);
        let ended = matches!(status.phase, Phase::Failed | Phase::GaveUp);
        let waits_for_nothing = quiet && !ended && status.phase != Phase::Stopped;
        let about_connection = |(epoch, asked): &(Epoch, Asked)| {
            !asked.is_about_connection() || self.connection == Some(*epoch)
        };
        let invariants = [
            must(
                status.pid.is_some() == self.child.is_some(),
                "a pid and a child go together",
            ),
            must(
                status.session.is_none() || self.connection.is_some(),
                "a session has a connection",
            ),
            must(
                status.uptime(self.now).is_some() == status.session.is_some(),
                "an uptime and a session go together",
            ),
            must(
                status.phase != Phase::Stopped || (nothing_left && quiet),
                "stopped, and something is left",
            ),
            must(
                !calm || (status.failure.is_none() && status.gave_up.is_none()),
                "a failure beside running or stopped",
            ),
            must(
                !ended || (status.failure.is_some() && self.open.is_empty()),
                "it ended without a cause, or with something under way",
            ),
            must(
                !waits_for_nothing,
                "nothing is under way and nothing will ever happen",
            ),
            must(
                self.open.iter().all(about_connection),
                "a question about a connection that is gone",
            ),
        ];
        invariants.into_iter().flatten().next()
    }

    pub(crate) fn is_open(&self, wanted: impl Fn(Asked) -> bool) -> bool {
        self.open.iter().any(|(_, asked)| wanted(*asked))
    }

    /// Takes an effect; gives what is wrong with it.
    pub(crate) fn accept(&mut self, effect: Effect) -> Option<&'static str> {
        let nothing_left = self.child.is_none() && self.connection.is_none();
        let (epoch, asked, broken) = match effect {
            Effect::PublishStatus(status) => {
                return must(
                    status == self.machine.status(),
                    "a published status that is not the status",
                );
            }
            Effect::IgnoredStale { .. } => return Some("an answer was ignored"),
            Effect::Answer { ticket, outcome } => {
                return match self.tickets.insert(ticket, true) {
                    Some(false) => must(
                        outcome != TicketOutcome::Stopped || nothing_left,
                        "answered as stopped, and something is left",
                    ),
                    Some(true) => Some("a ticket was answered twice"),
                    None => Some("an answer without a ticket"),
                };
            }
            Effect::Cancel { epoch } => {
                // A repair that is called off still ends with an answer.
                let before = self.open.len();
                self.open
                    .retain(|(open, asked)| *open != epoch || *asked == Asked::Repair);
                let known =
                    before != self.open.len() || self.open.iter().any(|(open, _)| *open == epoch);
                return must(known, "what is not under way was cancelled");
            }
            Effect::Discover { epoch } => (epoch, Asked::Discover, None),
            Effect::Prepare { epoch } => (epoch, Asked::Prepare, None),
            Effect::Spawn { epoch } => {
                let busy = self.is_open(|asked| matches!(asked, Asked::Spawn | Asked::Repair));
                let alone = self.child.is_none() && !busy;
                let broken = must(alone, "a launch beside a child, a launch or a repair");
                (epoch, Asked::Spawn, broken)
            }
            Effect::Repair { epoch } => {
                let broken = must(self.child.is_none(), "a repair beside a child");
                (epoch, Asked::Repair, broken)
            }
            Effect::Connect { epoch, plan } => {
                let busy = self.is_open(|asked| asked == Asked::Connect);
                let alone = self.connection.is_none() && !busy;
                let broken = must(alone, "a second connection").or(must(
                    plan.attached != self.child.is_some(),
                    "an own child is never attached to",
                ));
                (epoch, Asked::Connect, broken)
            }
            Effect::Disconnect { connection, .. } => (connection, Asked::Disconnect, None),
            Effect::Look { connection } => (connection, Asked::Look, None),
            Effect::Verify { connection, .. } => (connection, Asked::Verify, None),
            Effect::Knock { connection, .. } => (connection, Asked::Knock, None),
            Effect::Terminate { child, .. } => {
                let fits = self.child == Some(child) && self.connection.is_none();
                let broken = must(
                    fits,
                    "a signal to nobody, or to a child with its socket open",
                );
                (child, Asked::Terminate, broken)
            }
        };
        // A close ends the questions about the connection; their answers would come too late.
        if asked == Asked::Disconnect {
            self.open
                .retain(|(open, asked)| *open != epoch || !asked.is_about_connection());
        }
        self.open.push((epoch, asked));
        broken
    }

    pub(crate) fn answer(&mut self, at: usize, reply: Reply) {
        let (epoch, asked) = self.open.remove(at);
        let good = reply == Reply::Good;
        let bad = match reply {
            Reply::Bad(class) => failure(class),
            _ => failure(FailureClass::Temporary),
        };
        let look = Look {
            silence: match reply {
                Reply::Silent(seconds) => Duration::from_secs(seconds.into()),
                _ => Duration::from_secs(70),
            },
            suspended: Duration::ZERO,
            activity: Activity::Idle,
        };
        let observation = match (asked, reply) {
            (Asked::Discover, Reply::StrangerThere) => {
                Observation::ForeignFound(PortHolder::default())
            }
            (Asked::Discover, Reply::GatewayThere) => {
                Observation::GatewayFound(PortHolder::default())
            }
            (Asked::Discover, Reply::Bad(_)) => Observation::DiscoveryFailed(bad),
            // It goes well when what may only be attached to is there.
            (Asked::Discover, Reply::Good) if self.attach == AttachMode::Only => {
                Observation::GatewayFound(PortHolder::default())
            }
            (Asked::Discover, Reply::SurvivorThere) => {
                self.child = Some(epoch);
                Observation::SurvivorFound { pid: 7 }
            }
            (Asked::Discover, _) => Observation::PortFree,
            (Asked::Prepare, Reply::AsRunning) => Observation::PreparedAsRunning,
            (Asked::Prepare, _) if good => Observation::Prepared,
            (Asked::Prepare, _) => Observation::PreparationFailed(bad),
            (Asked::Spawn, _) if good => {
                self.child = Some(epoch);
                Observation::Spawned { pid: 7 }
            }
            (Asked::Spawn, _) => Observation::SpawnFailed(bad),
            (Asked::Connect, _) if good => {
                self.connection = Some(epoch);
                Observation::Connected(SessionFacts::new(4, "", None))
            }
            (Asked::Connect, _) => Observation::ConnectFailed(bad),
            (Asked::Terminate, _) if good => {
                self.child = None;
                Observation::Exited(bad)
            }
            (Asked::Terminate, _) => Observation::TerminationFailed(bad),
            (Asked::Repair, _) if good => Observation::Repaired,
            (Asked::Repair, _) => Observation::RepairFailed(bad),
            (Asked::Look, Reply::Silent(_)) => Observation::Looked(look),
            (Asked::Look, _) => Observation::Looked(Look::default()),
            (Asked::Verify, Reply::Silent(_)) => Observation::RequestMade {
                sign: RequestSign::Unanswered,
                look,
            },
            (Asked::Verify, _) => Observation::RequestMade {
                sign: RequestSign::Answered {
                    after: Duration::ZERO,
                },
                look,
            },
            (Asked::Knock, Reply::Silent(_)) => Observation::HandshakeTried {
                sign: HandshakeSign::Stalled,
                look,
            },
            (Asked::Knock, Reply::Refused) => Observation::HandshakeTried {
                sign: HandshakeSign::Refused,
                look,
            },
            (Asked::Knock, _) => Observation::HandshakeTried {
                sign: HandshakeSign::Answered,
                look,
            },
            (Asked::Disconnect, _) => {
                self.lose_connection(epoch);
                lost(ShutdownNotice::None)
            }
        };
        self.observe(epoch, observation);
    }

    pub(crate) fn lose_connection(&mut self, epoch: Epoch) {
        self.connection = None;
        self.open
            .retain(|(open, asked)| *open != epoch || !asked.is_about_connection());
    }

    /// The child is gone, for whatever reason.
    pub(crate) fn child_ends(&mut self, class: FailureClass) {
        if let Some(epoch) = self.child.take() {
            self.open
                .retain(|(open, asked)| *open != epoch || *asked != Asked::Terminate);
            self.observe(epoch, Observation::Exited(failure(class)));
        }
    }

    pub(crate) fn fire(&mut self, late: bool) {
        if let Some(due) = self.machine.poll_timeout() {
            let delay = Duration::from_secs(if late { 3_600 } else { 0 });
            self.now = due.max(self.now) + delay;
            self.advance(Trigger::Timeout);
        }
    }

    pub(crate) fn all_answered(&self) -> bool {
        self.tickets.values().all(|answered| *answered)
    }
}

/// The bounds of one exploration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) attach: AttachMode,
    /// How many commands each of the two users gives.
    pub(crate) commands: u8,
    pub(crate) faults: u8,
}

/// Failures of a handshake, one for each road.
const HANDSHAKES: [FailureClass; 7] = [
    FailureClass::Configuration,
    FailureClass::InvalidSettings,
    FailureClass::Credentials,
    FailureClass::PairingRequired,
    FailureClass::StartingUp,
    FailureClass::NotListening,
    FailureClass::Temporary,
];

/// What a crash can amount to, one for each road.
const CRASHES: [FailureClass; 5] = [
    FailureClass::Configuration,
    FailureClass::UnsuitableRuntime,
    FailureClass::LockHeld,
    FailureClass::Unknown,
    FailureClass::Temporary,
];

const NOTICES: [ShutdownNotice; 3] = [
    ShutdownNotice::None,
    ShutdownNotice::Stop,
    ShutdownNotice::Restart {
        expected: Duration::from_millis(1_500),
    },
];

/// The bad answers to an effect.
pub(crate) fn bad_replies(asked: Asked, attach: AttachMode) -> Vec<Reply> {
    match asked {
        Asked::Disconnect => vec![],
        Asked::Discover if attach == AttachMode::Never => {
            vec![
                Reply::StrangerThere,
                Reply::SurvivorThere,
                Reply::Bad(FailureClass::Temporary),
            ]
        }
        Asked::Discover if attach == AttachMode::Only => {
            vec![Reply::StrangerThere, Reply::NobodyThere]
        }
        Asked::Discover => vec![
            Reply::StrangerThere,
            Reply::GatewayThere,
            Reply::SurvivorThere,
        ],
        Asked::Connect => HANDSHAKES.map(Reply::Bad).to_vec(),
        Asked::Look | Asked::Verify => vec![Reply::Silent(70)],
        Asked::Knock => vec![Reply::Silent(80), Reply::Silent(200), Reply::Refused],
        Asked::Prepare => vec![
            Reply::Bad(FailureClass::Temporary),
            Reply::Bad(FailureClass::InvalidSettings),
        ],
        Asked::Spawn | Asked::Terminate | Asked::Repair => {
            vec![Reply::Bad(FailureClass::Temporary)]
        }
    }
}

impl Bounds {
    /// What can happen next.
    pub(crate) fn actions(&self, world: &World) -> Vec<Act> {
        let mut acts = Vec::new();
        let [one, other] = world.commands_left;
        for (user, left) in [one, other].into_iter().enumerate() {
            // Users who have given as many commands are the same user.
            if left > 0 && !(user == 1 && one == other) {
                let verbs = [Verb::Start, Verb::Stop, Verb::Restart, Verb::Debounced];
                acts.extend(verbs.map(|verb| Act::Command(user, verb)));
            }
        }
        if world.machine.poll_timeout().is_some() {
            acts.extend([Act::Timer, Act::LateTimer]);
        }
        let faulty = world.faults_left > 0;
        for (at, (_, asked)) in world.open.iter().enumerate() {
            acts.push(Act::Answer(at, Reply::Good));
            if *asked == Asked::Prepare && world.child.is_some() {
                acts.push(Act::Answer(at, Reply::AsRunning));
            }
            if faulty {
                let bad = bad_replies(*asked, self.attach);
                acts.extend(bad.into_iter().map(|reply| Act::Answer(at, reply)));
            }
        }
        let refused = world.machine.status().phase == Phase::Failed;
        if world.child.is_some() && refused {
            acts.push(Act::ExitLate);
        } else if world.child.is_some() && faulty {
            acts.extend(CRASHES.map(Act::Crash));
        }
        let closing = world.is_open(|asked| asked == Asked::Disconnect);
        if faulty && world.connection.is_some() && !closing {
            acts.extend(NOTICES.map(Act::SocketLost));
        }
        let starting = world.child.is_some() && world.is_open(|asked| asked == Asked::Connect);
        if starting && world.moves_left > 0 {
            acts.extend([Progress::Output, Progress::Listening].map(Act::Moves));
        }
        if world.child.is_some() && world.connection.is_none() && world.moves_left > 0 {
            acts.push(Act::Moves(Progress::SaysReady));
        }
        acts
    }
}

impl World {
    /// Lets it happen; `None` when it cannot.
    pub(crate) fn perform(mut self, act: Act) -> Option<Self> {
        let world = &mut self;
        match act {
            Act::Command(user, verb) => {
                world.commands_left[user] -= 1;
                world.command(verb);
            }
            Act::Answer(at, reply) => {
                world.faults_left -= u8::from(!matches!(reply, Reply::Good | Reply::AsRunning));
                world.answer(at, reply);
            }
            Act::Crash(class) => {
                world.faults_left -= 1;
                world.child_ends(class);
            }
            Act::ExitLate => world.child_ends(FailureClass::Temporary),
            Act::SocketLost(notice) => {
                world.faults_left -= 1;
                let epoch = world.connection?;
                world.lose_connection(epoch);
                world.observe(epoch, lost(notice));
            }
            Act::Moves(progress) => {
                world.moves_left -= 1;
                let epoch = world.child?;
                world.observe(epoch, Observation::Progress(progress));
            }
            Act::Timer => world.fire(false),
            Act::LateTimer => world.fire(true),
        }
        Some(self)
    }
}
