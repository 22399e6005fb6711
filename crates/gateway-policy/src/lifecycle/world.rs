//! The world of the tests: performs effects only when told to, and checks the invariants at every step.

use alloc::collections::BTreeMap;
use alloc::format;
use core::time::Duration;

use super::*;
use crate::journal::{Journal, Trigger};
use crate::liveness::{Activity, HandshakeSign, RequestSign};
use crate::status::{Phase, TicketOutcome};

/// Performs effects only when told to, so that a test decides in which order the world answers.
pub(super) struct World {
    pub(super) machine: Lifecycle,
    journal: Journal,
    pub(super) now: Time,
    /// Effects that wait for their answer, oldest first.
    pub(super) open: Vec<Effect>,
    pub(super) child: Option<Epoch>,
    pub(super) connection: Option<Epoch>,
    pub(super) launches: u32,
    pub(super) tickets: u64,
    pub(super) answers: BTreeMap<Ticket, TicketOutcome>,
    pub(super) stale: u32,
    /// What the machine decided, oldest first.
    pub(super) rules: Vec<Rule>,
    /// Effects that were called off.
    pub(super) cancelled: Vec<Effect>,
    /// The states that were published, without repetitions.
    pub(super) states: Vec<GatewayState>,
    /// When processes were launched, and whether recovery did it.
    pub(super) launched: Vec<(Time, bool)>,
}

pub(super) const SESSION_TICK: Duration = Duration::from_secs(30);

impl World {
    pub(super) fn new(config: LifecycleConfig) -> Self {
        let machine = Lifecycle::new(config);
        Self {
            // Small, so that its oldest entries are lived through as well.
            journal: Journal::new(&machine, 64),
            machine,
            now: Time::ZERO,
            open: Vec::new(),
            child: None,
            connection: None,
            launches: 0,
            tickets: 0,
            answers: BTreeMap::new(),
            stale: 0,
            rules: Vec::new(),
            states: Vec::new(),
            cancelled: Vec::new(),
            launched: Vec::new(),
        }
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket::from_number(self.tickets)
    }

    pub(super) fn start(&mut self) -> Ticket {
        let ticket = self.ticket();
        self.input(Input::Start(ticket));
        ticket
    }

    pub(super) fn stop(&mut self) -> Ticket {
        let ticket = self.ticket();
        self.input(Input::Stop(ticket));
        ticket
    }

    pub(super) fn restart(&mut self) -> Ticket {
        let ticket = self.ticket();
        self.input(Input::Restart(ticket));
        ticket
    }

    pub(super) fn restart_debounced(&mut self, millis: u64) -> Ticket {
        let ticket = self.ticket();
        let delay = Duration::from_millis(millis);
        self.input(Input::RestartDebounced { ticket, delay });
        ticket
    }

    pub(super) fn input(&mut self, input: Input) {
        self.advance(Trigger::Input(input));
    }

    pub(super) fn advance(&mut self, trigger: Trigger) {
        let effects = self.journal.advance(&mut self.machine, self.now, trigger);
        let entry = self.journal.entries().next_back().expect("just written");
        self.rules.extend(entry.rules.iter().cloned());
        for effect in effects {
            self.accept(effect);
        }
        self.check();
    }

    /// The journal tells the whole story.
    pub(super) fn check_journal(&self) {
        let replayed = self.journal.replay();
        assert_eq!(replayed.as_ref(), Ok(&self.machine));
    }

    pub(super) fn observe(&mut self, epoch: Epoch, observation: Observation) {
        self.input(Input::Observed { epoch, observation });
    }

    /// Lets time pass to the machine's next deadline, at most this far.
    pub(super) fn pass(&mut self, at_most: Duration) {
        let end = self.now + at_most;
        let mut rounds = 0;
        while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= end) {
            rounds += 1;
            assert!(
                rounds < 10_000,
                "a deadline that never passes: {:?}",
                self.machine
            );
            self.now = self.now.max(due);
            self.advance(Trigger::Timeout);
        }
        self.now = end;
    }

    pub(super) fn accept(&mut self, effect: Effect) {
        match effect {
            Effect::PublishStatus(status) => {
                assert_eq!(
                    status,
                    self.machine.status(),
                    "published status is the status"
                );
                self.states.push(status.state);
                self.states.dedup();
            }
            Effect::Answer { ticket, outcome } => {
                if outcome == TicketOutcome::Stopped {
                    assert_eq!(
                        (self.child, self.connection),
                        (None, None),
                        "stopped means that nothing is left"
                    );
                }
                assert_eq!(
                    self.answers.insert(ticket, outcome),
                    None,
                    "{ticket:?} was answered twice"
                );
            }
            Effect::IgnoredStale { .. } => self.stale += 1,
            Effect::Cancel { epoch } => {
                let cancelled = self
                    .open
                    .iter()
                    .position(|effect| epoch_of(effect) == Some(epoch));
                let at = cancelled.expect("only what is open can be cancelled");
                self.cancelled.push(self.open[at].clone());
                // A repair has to come to its end all the same; everything else is simply dropped.
                if !matches!(self.open[at], Effect::Repair { .. }) {
                    self.open.remove(at);
                }
            }
            effect => {
                match &effect {
                    Effect::Spawn { .. } => {
                        assert_eq!(self.child, None, "a launch beside a living child");
                        assert!(!self.open.iter().any(|open| matches!(
                            open,
                            Effect::Spawn { .. } | Effect::Repair { .. }
                        )));
                        self.launches += 1;
                        assert!(self.launches < 2_000, "launches without an end");
                        let recovering = self.rules.iter().rev().find_map(|rule| match rule {
                            Rule::Launch { recovering, .. } => Some(recovering.is_some()),
                            _ => None,
                        });
                        self.launched.push((self.now, recovering == Some(true)));
                    }
                    Effect::Repair { .. } => {
                        assert_eq!(self.child, None, "a repair beside a living child")
                    }
                    Effect::Connect { .. } => {
                        assert_eq!(self.connection, None, "a second connection");
                        assert!(
                            !self
                                .open
                                .iter()
                                .any(|open| matches!(open, Effect::Connect { .. }))
                        );
                    }
                    Effect::Terminate { child, .. } => {
                        assert_eq!(
                            self.child,
                            Some(*child),
                            "a signal to something that is not there"
                        );
                        assert_eq!(
                            self.connection, None,
                            "the socket is closed before the process is ended"
                        );
                    }
                    Effect::Disconnect { connection, .. } => {
                        assert_eq!(self.connection, Some(*connection))
                    }
                    _ => {}
                }
                self.open.push(effect);
            }
        }
    }

    /// What holds after every input.
    pub(super) fn check(&self) {
        let status = self.machine.status();
        assert_eq!(
            status.pid.is_some(),
            self.child.is_some(),
            "pid without a child, or the other way round"
        );
        assert_eq!(status.connected_at.is_some(), status.session.is_some());
        assert_eq!(status.liveness.is_some(), status.session.is_some());
        assert_eq!(status.gave_up.is_some(), status.phase == Phase::GaveUp);
        if status.session.is_some() {
            assert!(self.connection.is_some(), "a session without a connection");
        }
        if matches!(status.state, GatewayState::Running | GatewayState::Stopped) {
            assert_eq!(status.failure, None, "a failure beside {:?}", status.state);
        }
        if status.phase == Phase::Stopped {
            assert!(
                self.open.is_empty() && self.child.is_none() && self.connection.is_none(),
                "{:?}",
                self.open
            );
            assert_eq!(self.machine.poll_timeout(), None);
        }
        if status.session.is_some() {
            // Somebody always looks again: there is a deadline, or a question is under way.
            let asked = |effect: &Effect| {
                matches!(
                    effect,
                    Effect::Look { .. }
                        | Effect::Verify { .. }
                        | Effect::Knock { .. }
                        | Effect::Disconnect { .. }
                )
            };
            assert!(self.machine.poll_timeout().is_some() || self.open.iter().any(asked));
        }
        if matches!(status.phase, Phase::Failed | Phase::GaveUp) {
            assert!(status.failure.is_some() && self.open.is_empty());
        }
    }

    /// Answers the oldest open effect of the wanted kind.
    pub(super) fn answer(&mut self, kind: fn(&Effect) -> bool, observation: Observation) {
        let at = self
            .open
            .iter()
            .position(kind)
            .unwrap_or_else(|| panic!("not asked for: {observation:?}; open: {:?}", self.open));
        let effect = self.open.remove(at);
        let epoch = epoch_of(&effect).expect("an effect with an answer");
        match (&effect, &observation) {
            (Effect::Spawn { .. }, Observation::Spawned { .. })
            | (Effect::Discover { .. }, Observation::SurvivorFound { .. }) => {
                self.child = Some(epoch)
            }
            (Effect::Connect { .. }, Observation::Connected(_)) => self.connection = Some(epoch),
            (Effect::Disconnect { .. }, _) => self.connection = None,
            (Effect::Terminate { .. }, Observation::Exited(_)) => self.child = None,
            _ => {}
        }
        self.observe(epoch, observation);
    }

    // The usual answers.

    pub(super) fn port_free(&mut self) {
        self.answer(
            |effect| matches!(effect, Effect::Discover { .. }),
            Observation::PortFree,
        );
    }

    pub(super) fn survivor_found(&mut self) {
        self.answer(
            |effect| matches!(effect, Effect::Discover { .. }),
            Observation::SurvivorFound { pid: 77 },
        );
    }

    pub(super) fn prepared_as_running(&mut self) {
        self.answer(
            |effect| matches!(effect, Effect::Prepare { .. }),
            Observation::PreparedAsRunning,
        );
    }

    pub(super) fn gateway_found(&mut self) {
        self.answer(
            |effect| matches!(effect, Effect::Discover { .. }),
            Observation::GatewayFound(PortHolder::default()),
        );
    }

    pub(super) fn prepared(&mut self) {
        self.answer(
            |effect| matches!(effect, Effect::Prepare { .. }),
            Observation::Prepared,
        );
    }

    pub(super) fn spawned(&mut self) {
        let pid = 100 + self.launches;
        self.answer(
            |effect| matches!(effect, Effect::Spawn { .. }),
            Observation::Spawned { pid },
        );
    }

    pub(super) fn connected(&mut self) {
        let facts = SessionFacts::new(4, "2026.9.6", Some(SESSION_TICK));
        self.answer(
            |effect| matches!(effect, Effect::Connect { .. }),
            Observation::Connected(facts),
        );
    }

    pub(super) fn connect_failed(&mut self, failure: Failure) {
        self.answer(
            |effect| matches!(effect, Effect::Connect { .. }),
            Observation::ConnectFailed(failure),
        );
    }

    pub(super) fn disconnected(&mut self) {
        self.answer(
            |effect| matches!(effect, Effect::Disconnect { .. }),
            Observation::Disconnected(loss(ShutdownNotice::None)),
        );
    }

    pub(super) fn terminated(&mut self) {
        self.answer(
            |effect| matches!(effect, Effect::Terminate { .. }),
            Observation::Exited(temporary()),
        );
    }

    pub(super) fn exits(&mut self, failure: Failure) {
        let epoch = self.child.take().expect("a child");
        self.open
            .retain(|effect| !matches!(effect, Effect::Terminate { .. }));
        self.observe(epoch, Observation::Exited(failure));
    }

    pub(super) fn socket_lost(&mut self, notice: ShutdownNotice) {
        let epoch = self.connection.take().expect("a connection");
        self.open.retain(|effect| {
            !matches!(
                effect,
                Effect::Look { .. } | Effect::Verify { .. } | Effect::Knock { .. }
            )
        });
        self.observe(epoch, Observation::Disconnected(loss(notice)));
    }

    pub(super) fn launch_child(&mut self) {
        self.port_free();
        self.prepared();
        self.spawned();
    }

    pub(super) fn launch(&mut self) {
        self.launch_child();
        self.connected();
    }

    /// Answers everything kindly until nothing is open or the machine waits.
    pub(super) fn be_kind(&mut self) {
        let mut rounds = 0;
        while let Some(effect) = self.open.first().cloned() {
            rounds += 1;
            assert!(
                rounds < 10_000,
                "kindness without an end: {:?}",
                self.machine
            );
            match effect {
                Effect::Discover { .. } => self.port_free(),
                Effect::Prepare { .. } => self.prepared(),
                Effect::Spawn { .. } => self.spawned(),
                Effect::Connect { .. } => self.connected(),
                Effect::Disconnect { .. } => self.disconnected(),
                Effect::Terminate { .. } => self.terminated(),
                Effect::Repair { .. } => self.answer(
                    |effect| matches!(effect, Effect::Repair { .. }),
                    Observation::Repaired,
                ),
                Effect::Look { .. } => self.looks(0, Activity::Idle),
                Effect::Verify { .. } => self.verified(
                    RequestSign::Answered {
                        after: Duration::ZERO,
                    },
                    0,
                ),
                Effect::Knock { .. } => self.knocked(HandshakeSign::Answered, 0),
                other => panic!("not an effect with an answer: {other:?}"),
            }
        }
    }

    /// Answers a look at the connection.
    pub(super) fn looks(&mut self, silence: u64, activity: Activity) {
        let look = look(silence, activity);
        self.answer(
            |effect| matches!(effect, Effect::Look { .. }),
            Observation::Looked(look),
        );
    }

    /// Answers the verifying request.
    pub(super) fn verified(&mut self, sign: RequestSign, silence: u64) {
        let look = look(silence, Activity::Idle);
        self.answer(
            |effect| matches!(effect, Effect::Verify { .. }),
            Observation::RequestMade { sign, look },
        );
    }

    /// Answers the second connection.
    pub(super) fn knocked(&mut self, sign: HandshakeSign, silence: u64) {
        let look = look(silence, Activity::Idle);
        self.answer(
            |effect| matches!(effect, Effect::Knock { .. }),
            Observation::HandshakeTried { sign, look },
        );
    }

    pub(super) fn status(&self) -> GatewayStatus {
        self.machine.status()
    }

    pub(super) fn outcome(&self, ticket: Ticket) -> Option<&TicketOutcome> {
        self.answers.get(&ticket)
    }

    pub(super) fn running(config: LifecycleConfig) -> Self {
        let mut world = Self::new(config);
        let start = world.start();
        world.launch();
        assert_eq!(world.outcome(start), Some(&TicketOutcome::Running));
        assert_eq!(world.status().state, GatewayState::Running);
        world
    }
}

pub(super) fn epoch_of(effect: &Effect) -> Option<Epoch> {
    match effect {
        Effect::Discover { epoch }
        | Effect::Prepare { epoch }
        | Effect::Spawn { epoch }
        | Effect::Connect { epoch, .. }
        | Effect::Repair { epoch } => Some(*epoch),
        Effect::Disconnect { connection, .. }
        | Effect::Look { connection }
        | Effect::Verify { connection, .. }
        | Effect::Knock { connection, .. } => Some(*connection),
        Effect::Terminate { child, .. } => Some(*child),
        Effect::Cancel { .. }
        | Effect::PublishStatus(_)
        | Effect::Answer { .. }
        | Effect::IgnoredStale { .. } => None,
    }
}

pub(super) fn failure(class: FailureClass) -> Failure {
    Failure::new(class, format!("a failure of class {class}."))
}

pub(super) fn temporary() -> Failure {
    failure(FailureClass::Temporary)
}

pub(super) fn loss(notice: ShutdownNotice) -> ConnectionLoss {
    ConnectionLoss {
        failure: temporary(),
        notice,
    }
}

pub(super) fn look(silence: u64, activity: Activity) -> Look {
    Look {
        silence: seconds(silence),
        suspended: Duration::ZERO,
        activity,
    }
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn config() -> LifecycleConfig {
    LifecycleConfig::default()
}
