//! Named scenarios, and random histories against a simulated world that checks the invariants at every step.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::liveness::Verification;

/// Performs effects only when told to, so that a test decides in which order the world answers.
struct World {
    machine: Lifecycle,
    now: Time,
    /// Effects that wait for their answer, oldest first.
    open: Vec<Effect>,
    child: Option<Epoch>,
    connection: Option<Epoch>,
    launches: u32,
    tickets: u64,
    answers: BTreeMap<Ticket, TicketOutcome>,
    stale: u32,
}

const SESSION_TICK: Duration = Duration::from_secs(30);

impl World {
    fn new(config: LifecycleConfig) -> Self {
        Self {
            machine: Lifecycle::new(config),
            now: Time::ZERO,
            open: Vec::new(),
            child: None,
            connection: None,
            launches: 0,
            tickets: 0,
            answers: BTreeMap::new(),
            stale: 0,
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket::from_number(self.tickets)
    }

    fn start(&mut self) -> Ticket {
        let ticket = self.ticket();
        self.input(Input::Start(ticket));
        ticket
    }

    fn stop(&mut self) -> Ticket {
        let ticket = self.ticket();
        self.input(Input::Stop(ticket));
        ticket
    }

    fn restart(&mut self) -> Ticket {
        let ticket = self.ticket();
        self.input(Input::Restart(ticket));
        ticket
    }

    fn restart_debounced(&mut self, millis: u64) -> Ticket {
        let ticket = self.ticket();
        let delay = Duration::from_millis(millis);
        self.input(Input::RestartDebounced { ticket, delay });
        ticket
    }

    fn input(&mut self, input: Input) {
        self.machine.handle(self.now, input);
        self.drain();
    }

    fn observe(&mut self, epoch: Epoch, observation: Observation) {
        self.input(Input::Observed { epoch, observation });
    }

    /// Lets time pass to the machine's next deadline, at most this far.
    fn pass(&mut self, at_most: Duration) {
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
            self.machine.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            self.accept(effect);
        }
        self.check();
    }

    fn accept(&mut self, effect: Effect) {
        match effect {
            Effect::PublishStatus(status) => assert_eq!(
                status,
                self.machine.status(),
                "published status is the status"
            ),
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
    fn check(&self) {
        let status = self.machine.status();
        assert_eq!(
            status.pid.is_some(),
            self.child.is_some(),
            "pid without a child, or the other way round"
        );
        assert_eq!(status.connected_at.is_some(), status.session.is_some());
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
        if matches!(status.phase, Phase::Failed | Phase::GaveUp) {
            assert!(status.failure.is_some() && self.open.is_empty());
        }
    }

    /// Answers the oldest open effect of the wanted kind.
    fn answer(&mut self, kind: fn(&Effect) -> bool, observation: Observation) {
        let at = self
            .open
            .iter()
            .position(kind)
            .unwrap_or_else(|| panic!("not asked for: {observation:?}; open: {:?}", self.open));
        let effect = self.open.remove(at);
        let epoch = epoch_of(&effect).expect("an effect with an answer");
        match (&effect, &observation) {
            (Effect::Spawn { .. }, Observation::Spawned { .. }) => self.child = Some(epoch),
            (Effect::Connect { .. }, Observation::Connected(_)) => self.connection = Some(epoch),
            (Effect::Disconnect { .. }, _) => self.connection = None,
            (Effect::Terminate { .. }, Observation::Exited(_)) => self.child = None,
            _ => {}
        }
        self.observe(epoch, observation);
    }

    // The usual answers.

    fn port_free(&mut self) {
        self.answer(
            |effect| matches!(effect, Effect::Discover { .. }),
            Observation::PortFree,
        );
    }

    fn prepared(&mut self) {
        self.answer(
            |effect| matches!(effect, Effect::Prepare { .. }),
            Observation::Prepared,
        );
    }

    fn spawned(&mut self) {
        let pid = 100 + self.launches;
        self.answer(
            |effect| matches!(effect, Effect::Spawn { .. }),
            Observation::Spawned { pid },
        );
    }

    fn connected(&mut self) {
        let facts = SessionFacts::new(4, "2026.9.6", Some(SESSION_TICK));
        self.answer(
            |effect| matches!(effect, Effect::Connect { .. }),
            Observation::Connected(facts),
        );
    }

    fn connect_failed(&mut self, failure: Failure) {
        self.answer(
            |effect| matches!(effect, Effect::Connect { .. }),
            Observation::ConnectFailed(failure),
        );
    }

    fn disconnected(&mut self) {
        self.answer(
            |effect| matches!(effect, Effect::Disconnect { .. }),
            Observation::Disconnected(loss(None)),
        );
    }

    fn terminated(&mut self) {
        self.answer(
            |effect| matches!(effect, Effect::Terminate { .. }),
            Observation::Exited(temporary()),
        );
    }

    fn exits(&mut self, failure: Failure) {
        let epoch = self.child.take().expect("a child");
        self.open
            .retain(|effect| !matches!(effect, Effect::Terminate { .. }));
        self.observe(epoch, Observation::Exited(failure));
    }

    fn socket_lost(&mut self, back_within: Option<Duration>) {
        let epoch = self.connection.take().expect("a connection");
        self.observe(epoch, Observation::Disconnected(loss(back_within)));
    }

    fn launch_child(&mut self) {
        self.port_free();
        self.prepared();
        self.spawned();
    }

    fn launch(&mut self) {
        self.launch_child();
        self.connected();
    }

    /// Answers everything kindly until nothing is open or the machine waits.
    fn be_kind(&mut self) {
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
                Effect::CheckSilence { .. } => self.silence(
                    |effect| matches!(effect, Effect::CheckSilence { .. }),
                    Duration::ZERO,
                    Verification::NotAsked,
                ),
                Effect::Verify { .. } => self.silence(
                    |effect| matches!(effect, Effect::Verify { .. }),
                    Duration::ZERO,
                    Verification::Answered,
                ),
                other => panic!("not an effect with an answer: {other:?}"),
            }
        }
    }

    fn silence(
        &mut self,
        kind: fn(&Effect) -> bool,
        silence: Duration,
        verification: Verification,
    ) {
        self.answer(
            kind,
            Observation::Silence {
                silence,
                suspended: Duration::ZERO,
                verification,
            },
        );
    }

    fn status(&self) -> GatewayStatus {
        self.machine.status()
    }

    fn outcome(&self, ticket: Ticket) -> Option<&TicketOutcome> {
        self.answers.get(&ticket)
    }

    fn running(config: LifecycleConfig) -> Self {
        let mut world = Self::new(config);
        let start = world.start();
        world.launch();
        assert_eq!(world.outcome(start), Some(&TicketOutcome::Running));
        assert_eq!(world.status().state, GatewayState::Running);
        world
    }
}

fn epoch_of(effect: &Effect) -> Option<Epoch> {
    match effect {
        Effect::Discover { epoch }
        | Effect::Prepare { epoch }
        | Effect::Spawn { epoch }
        | Effect::Connect { epoch, .. }
        | Effect::Repair { epoch } => Some(*epoch),
        Effect::Disconnect { connection, .. }
        | Effect::CheckSilence { connection }
        | Effect::Verify { connection, .. } => Some(*connection),
        Effect::Terminate { child, .. } => Some(*child),
        Effect::Cancel { .. }
        | Effect::PublishStatus(_)
        | Effect::Answer { .. }
        | Effect::IgnoredStale { .. } => None,
    }
}

fn failure(class: FailureClass) -> Failure {
    Failure::new(class, format!("a failure of class {class}."))
}

fn temporary() -> Failure {
    failure(FailureClass::Temporary)
}

fn loss(back_within: Option<Duration>) -> ConnectionLoss {
    ConnectionLoss {
        failure: temporary(),
        back_within,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn config() -> LifecycleConfig {
    LifecycleConfig::default()
}

#[test]
fn a_start_goes_through_its_phases() {
    let mut world = World::new(config());
    assert_eq!(world.status(), GatewayStatus::default());
    let start = world.start();
    assert_eq!(
        (world.status().state, world.status().phase),
        (GatewayState::Starting, Phase::Discovering)
    );
    world.port_free();
    assert_eq!(world.status().phase, Phase::Preparing);
    world.prepared();
    assert_eq!(
        (world.status().phase, world.status().pid),
        (Phase::Spawning, None)
    );
    world.spawned();
    assert_eq!(
        (world.status().phase, world.status().pid),
        (Phase::Listening, Some(101))
    );
    let Some(Effect::Connect { plan, .. }) = world.open.last() else {
        panic!("no connect: {:?}", world.open);
    };
    assert_eq!(
        plan.wait_for_listener,
        Some(Duration::from_millis(50)),
        "our own child will listen"
    );
    world.connect_failed(failure(FailureClass::NotListening));
    assert_eq!(world.status().phase, Phase::Listening);
    world.pass(Duration::from_millis(50));
    let connect = epoch_of(world.open.last().expect("a connect")).expect("an epoch");
    world.observe(connect, Observation::Progress(Progress::Listening));
    assert_eq!(world.status().phase, Phase::Handshaking);
    world.connect_failed(
        failure(FailureClass::StartingUp).retry_after(Some(Duration::from_millis(500))),
    );
    assert_eq!(world.status().phase, Phase::StartingUp);
    let news = world.status().failure.map(|failure| failure.class);
    assert_eq!(
        news,
        Some(FailureClass::StartingUp),
        "news of a start replace older ones"
    );
    world.pass(Duration::from_millis(499));
    assert!(world.open.is_empty(), "the advised delay is honoured");
    world.pass(Duration::from_millis(1));
    assert_eq!(world.outcome(start), None);
    world.connected();
    assert_eq!(world.outcome(start), Some(&TicketOutcome::Running));
    assert_eq!(
        (world.status().state, world.status().phase),
        (GatewayState::Running, Phase::Ready)
    );
    assert_eq!(
        world.status().attempts,
        0,
        "waiting for a start is no attempt"
    );
    assert_eq!(
        world.status().uptime(world.now + seconds(3)),
        Some(seconds(3))
    );
}

#[test]
fn a_start_while_running_or_starting_joins() {
    let mut world = World::new(config());
    let first = world.start();
    let second = world.start();
    world.launch();
    let third = world.start();
    for ticket in [first, second, third] {
        assert_eq!(world.outcome(ticket), Some(&TicketOutcome::Running));
    }
    assert_eq!(world.launches, 1);
}

#[test]
fn a_stop_takes_down_socket_then_process_and_leaves_nothing() {
    let mut world = World::running(config());
    let stop = world.stop();
    assert_eq!(
        (world.status().state, world.status().phase),
        (GatewayState::Running, Phase::Draining)
    );
    world.disconnected();
    assert_eq!(world.outcome(stop), None);
    world.terminated();
    assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
    assert_eq!(world.status(), GatewayStatus::default());
    world.pass(seconds(3_600));
    assert!(world.open.is_empty());
}

/// A stop at any point of a start leaves nothing behind, and a start on its heels is served afterwards.
#[test]
fn a_stop_overtakes_a_start_wherever_it_is() {
    for point in 0..6 {
        for start_again in [false, true] {
            let mut world = World::new(config());
            let start = world.start();
            let steps: [fn(&mut World); 5] = [
                World::port_free,
                World::prepared,
                World::spawned,
                |world| world.connect_failed(failure(FailureClass::NotListening)),
                |world| world.pass(Duration::from_millis(50)),
            ];
            for step in &steps[..point.min(5)] {
                step(&mut world);
            }
            let stop = world.stop();
            let again = start_again.then(|| world.start());
            world.be_kind();
            assert_eq!(
                world.outcome(start),
                Some(&TicketOutcome::Superseded),
                "at {point}"
            );
            assert_eq!(
                world.outcome(stop),
                Some(&TicketOutcome::Stopped),
                "at {point}"
            );
            match again {
                Some(again) => assert_eq!(
                    world.outcome(again),
                    Some(&TicketOutcome::Running),
                    "at {point}"
                ),
                None => assert_eq!(world.status(), GatewayStatus::default(), "at {point}"),
            }
        }
    }
}

#[test]
fn a_child_spawned_after_the_stop_is_ended() {
    let mut world = World::new(config());
    world.start();
    world.port_free();
    world.prepared();
    let stop = world.stop();
    assert_eq!(
        world.outcome(stop),
        None,
        "the process is being created; nobody knows yet whether it is there"
    );
    world.spawned();
    world.terminated();
    assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
}

#[test]
fn late_events_of_the_replaced_change_nothing() {
    let mut world = World::running(config());
    let (old_child, old_connection) = (
        world.child.expect("child"),
        world.connection.expect("connection"),
    );
    world.restart();
    world.be_kind();
    let before = world.status();
    world.observe(
        old_child,
        Observation::Exited(failure(FailureClass::Configuration)),
    );
    world.observe(old_connection, Observation::Disconnected(loss(None)));
    world.observe(Epoch::from_number(9_999), Observation::PortFree);
    assert_eq!((world.status(), world.stale), (before, 3));
}

#[test]
fn a_restart_is_covered_only_by_a_launch_that_began_after_it() {
    let mut world = World::running(config());
    let first = world.restart();
    world.disconnected();
    world.terminated();
    world.port_free();
    let second = world.restart();
    world.prepared();
    world.spawned();
    world.connected();
    assert_eq!(world.outcome(first), Some(&TicketOutcome::Running));
    assert_eq!(
        world.outcome(second),
        None,
        "its launch context was built before the request"
    );
    world.be_kind();
    assert_eq!(world.outcome(second), Some(&TicketOutcome::Running));
    assert_eq!(world.launches, 3);
}

#[test]
fn ten_requests_during_a_launch_become_one_restart() {
    let mut world = World::running(config());
    world.restart();
    world.disconnected();
    world.terminated();
    world.port_free();
    let requests: Vec<Ticket> = (0..10).map(|_| world.restart()).collect();
    world.be_kind();
    assert_eq!(world.launches, 3);
    assert!(
        requests
            .iter()
            .all(|ticket| world.outcome(*ticket) == Some(&TicketOutcome::Running))
    );
}

#[test]
fn debounced_restarts_merge_and_never_start_a_stopped_gateway() {
    let mut world = World::running(config());
    let early = world.restart_debounced(2_000);
    world.pass(Duration::from_millis(1_999));
    let late = world.restart_debounced(8_000);
    world.pass(Duration::from_millis(7_999));
    assert!(
        world.open.is_empty(),
        "the second call replaced the timer and its delay"
    );
    world.pass(Duration::from_millis(1));
    world.be_kind();
    assert_eq!(
        (world.outcome(early), world.outcome(late)),
        (Some(&TicketOutcome::Running), Some(&TicketOutcome::Running))
    );
    assert_eq!(world.launches, 2);

    let dropped = world.restart_debounced(2_000);
    let stop = world.stop();
    world.be_kind();
    assert_eq!(
        (world.outcome(dropped), world.outcome(stop)),
        (
            Some(&TicketOutcome::Superseded),
            Some(&TicketOutcome::Stopped)
        )
    );
    let nothing = world.restart_debounced(1);
    world.pass(seconds(60));
    assert_eq!(world.outcome(nothing), Some(&TicketOutcome::NothingToDo));
    assert_eq!(
        (world.launches, world.status()),
        (2, GatewayStatus::default())
    );
}

#[test]
fn a_lost_socket_means_a_new_socket_to_the_same_child() {
    let mut world = World::running(config());
    let pid = world.status().pid;
    world.socket_lost(None);
    assert_eq!(
        (world.status().state, world.status().pid),
        (GatewayState::Reconnecting, pid)
    );
    world.pass(Duration::from_millis(50));
    world.connected();
    assert_eq!(
        (world.status().state, world.status().pid, world.launches),
        (GatewayState::Running, pid, 1)
    );
    assert_eq!(world.status().failure, None);
}

#[test]
fn an_exit_and_a_lost_socket_lead_to_one_launch_in_either_order() {
    for exit_first in [true, false] {
        let mut world = World::running(config());
        if exit_first {
            world.exits(temporary());
            world.disconnected_by_peer();
        } else {
            world.socket_lost(None);
            world.exits(temporary());
        }
        assert_eq!(world.status().phase, Phase::BackingOff);
        assert_eq!(world.status().attempts, 1);
        world.pass(seconds(1));
        world.be_kind();
        assert_eq!(
            (world.launches, world.status().state),
            (2, GatewayState::Running)
        );
    }
}

impl World {
    /// The answer to a `Disconnect` for a socket that was gone anyway.
    fn disconnected_by_peer(&mut self) {
        self.disconnected();
    }
}

#[test]
fn a_gateway_that_dies_at_every_start_is_given_up_with_the_cause() {
    let mut world = World::new(config());
    let start = world.start();
    let mut delays = Vec::new();
    while world.status().phase != Phase::GaveUp {
        world.launch_child();
        world.exits(temporary());
        if let Some(due) = world.status().next_attempt_at {
            delays.push(due.since(world.now).as_secs());
            world.pass(due.since(world.now));
        }
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]);
    assert_eq!(world.launches, 11);
    let Some(TicketOutcome::Failed(failure)) = world.outcome(start) else {
        panic!("the start was not answered");
    };
    assert!(
        failure.message.contains("10 attempts in 181 s") && failure.message.contains("temporary"),
        "{failure}"
    );
    world.pass(seconds(86_400));
    assert!(world.open.is_empty());
    // A user's start is served at once, with a full budget.
    let again = world.start();
    world.be_kind();
    assert_eq!(world.outcome(again), Some(&TicketOutcome::Running));
}

#[test]
fn short_sessions_do_not_reset_the_count_and_stable_ones_do() {
    let mut world = World::running(config());
    for attempts in 1..=3 {
        world.pass(seconds(5));
        world.be_kind();
        world.socket_lost(None);
        world.exits(temporary());
        assert_eq!(world.status().attempts, attempts);
        world.pass(seconds(60));
        world.be_kind();
    }
    world.pass(seconds(60));
    world.be_kind();
    assert_eq!(world.status().attempts, 0);
    world.exits(temporary());
    world.disconnected();
    assert_eq!(world.status().attempts, 1);
    world.pass(Duration::ZERO);
    assert_eq!(
        world.status().phase,
        Phase::Discovering,
        "the first retry after a stable session does not wait"
    );
}

#[test]
fn a_broken_configuration_is_repaired_once_and_then_reported() {
    let mut world = World::new(config());
    let start = world.start();
    for round in 0..2 {
        world.launch_child();
        world.exits(failure(FailureClass::Configuration));
        if round == 0 {
            assert_eq!(world.status().phase, Phase::Repairing);
            world.answer(
                |effect| matches!(effect, Effect::Repair { .. }),
                Observation::Repaired,
            );
        }
    }
    assert_eq!((world.status().phase, world.launches), (Phase::Failed, 2));
    assert!(
        matches!(world.outcome(start), Some(TicketOutcome::Failed(failure)) if failure.class == FailureClass::Configuration)
    );
    world.pass(seconds(86_400));
    assert!(
        world.open.is_empty(),
        "a permanent cause is never retried by itself"
    );
}

#[test]
fn a_repair_that_fails_or_is_switched_off_ends_the_start() {
    let mut world = World::new(config());
    world.start();
    world.launch_child();
    world.exits(failure(FailureClass::Configuration));
    world.answer(
        |effect| matches!(effect, Effect::Repair { .. }),
        Observation::RepairFailed(failure(FailureClass::Configuration)),
    );
    assert_eq!((world.status().phase, world.launches), (Phase::Failed, 1));

    let mut world = World::new(LifecycleConfig {
        repair: false,
        ..config()
    });
    world.start();
    world.launch_child();
    world.exits(failure(FailureClass::Configuration));
    assert_eq!(world.status().phase, Phase::Failed);
}

#[test]
fn a_stop_during_a_repair_waits_for_its_end() {
    let mut world = World::new(config());
    world.start();
    world.launch_child();
    world.exits(failure(FailureClass::Configuration));
    let stop = world.stop();
    assert_eq!(world.outcome(stop), None);
    world.answer(
        |effect| matches!(effect, Effect::Repair { .. }),
        Observation::RepairFailed(temporary()),
    );
    assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
}

#[test]
fn every_class_takes_its_road_at_the_handshake() {
    use FailureClass as Class;
    let table = [
        (Class::PairingRequired, Phase::AwaitingApproval, true),
        (Class::Temporary, Phase::Listening, true),
        (Class::Unknown, Phase::Listening, true),
        (Class::NotAGateway, Phase::Listening, true),
        (Class::InvalidSettings, Phase::Draining, true),
        (Class::ProtocolVersion, Phase::Draining, true),
    ];
    for (class, phase, child_lives) in table {
        let mut world = World::new(config());
        world.start();
        world.launch_child();
        world.connect_failed(failure(class));
        assert_eq!(
            (world.status().phase, world.child.is_some()),
            (phase, child_lives),
            "{class}"
        );
    }
}

#[test]
fn refused_credentials_are_tried_once_with_the_other_one() {
    let mut world = World::new(config());
    let start = world.start();
    world.launch_child();
    world.connect_failed(failure(FailureClass::Credentials));
    assert!(
        matches!(&world.open[..], [Effect::Connect { plan, .. }] if plan.credential == CredentialChoice::Alternative)
    );
    world.connect_failed(failure(FailureClass::Credentials));
    world.terminated();
    assert_eq!(world.status().phase, Phase::Failed);
    assert!(
        matches!(world.outcome(start), Some(TicketOutcome::Failed(failure)) if failure.class == FailureClass::Credentials)
    );
}

#[test]
fn a_refused_protocol_range_is_narrowed_once_to_what_the_gateway_expects() {
    for (expected, phase) in [
        (Some(3), Phase::Listening),
        (Some(9), Phase::Draining),
        (None, Phase::Draining),
    ] {
        let mut world = World::new(config());
        world.start();
        world.launch_child();
        world.connect_failed(failure(FailureClass::ProtocolVersion).expected_protocol(expected));
        assert_eq!(world.status().phase, phase, "{expected:?}");
        if expected == Some(3) {
            assert!(
                matches!(&world.open[..], [Effect::Connect { plan, .. }] if plan.protocols == (3, 3))
            );
            world
                .connect_failed(failure(FailureClass::ProtocolVersion).expected_protocol(expected));
            world.terminated();
            assert_eq!(world.status().phase, Phase::Failed, "once is enough");
        }
    }
}

#[test]
fn approval_is_waited_for_however_long_it_takes() {
    let mut world = World::new(config());
    let start = world.start();
    world.launch_child();
    world.connect_failed(failure(FailureClass::PairingRequired));
    assert!(
        matches!(world.outcome(start), Some(TicketOutcome::Failed(_))),
        "the caller is told, not kept waiting"
    );
    for _ in 0..10_000 {
        world.pass(seconds(5));
        world.connect_failed(failure(FailureClass::PairingRequired));
    }
    world.pass(seconds(5));
    world.connected();
    assert_eq!(
        (world.status().state, world.launches),
        (GatewayState::Running, 1)
    );
}

#[test]
fn a_held_port_is_waited_for_and_nobody_is_hurt() {
    let holder = PortHolder {
        pid: Some(7),
        program: Some("nginx".into()),
        ..PortHolder::default()
    };
    let mut world = World::new(config());
    let start = world.start();
    let foreign = Observation::ForeignFound(holder.clone());
    world.answer(|effect| matches!(effect, Effect::Discover { .. }), foreign);
    let Some(TicketOutcome::Failed(failure)) = world.outcome(start) else {
        panic!("not answered");
    };
    assert!(failure.message.contains("nginx (pid 7)"), "{failure}");
    assert_eq!(
        (world.status().phase, world.launches),
        (Phase::WaitingForHolder, 0)
    );
    world.pass(seconds(2));
    world.be_kind();
    assert_eq!(
        world.status().state,
        GatewayState::Running,
        "it goes on by itself when the port is free"
    );

    for (attach, phase) in [
        (AttachMode::Never, Phase::WaitingForHolder),
        (AttachMode::IfPresent, Phase::Ready),
        (AttachMode::Only, Phase::Ready),
    ] {
        let mut world = World::new(LifecycleConfig { attach, ..config() });
        world.start();
        world.answer(
            |effect| matches!(effect, Effect::Discover { .. }),
            Observation::GatewayFound(holder.clone()),
        );
        if phase == Phase::Ready {
            world.connected();
            assert!(world.status().attached);
        }
        assert_eq!(
            (world.status().phase, world.status().pid),
            (phase, None),
            "{attach:?}"
        );
        let stop = world.stop();
        world.be_kind();
        assert_eq!(
            (world.outcome(stop), world.launches),
            (Some(&TicketOutcome::Stopped), 0)
        );
    }
}

#[test]
fn attach_only_launches_nothing() {
    let mut world = World::new(LifecycleConfig {
        attach: AttachMode::Only,
        ..config()
    });
    let start = world.start();
    world.port_free();
    assert_eq!(
        (world.status().phase, world.launches),
        (Phase::BackingOff, 0)
    );
    assert!(
        matches!(world.outcome(start), Some(TicketOutcome::Failed(failure)) if failure.message.contains("No gateway listens"))
    );
}

#[test]
fn a_start_that_stands_still_is_ended_and_one_that_moves_is_not() {
    let mut world = World::new(config());
    world.start();
    world.launch_child();
    let child = world.child.expect("child");
    for _ in 0..4 {
        world.pass_failing(seconds(60));
        world.observe(child, Observation::Progress(Progress::Output));
    }
    assert_eq!(
        world.status().phase,
        Phase::Listening,
        "240 s with output is slow, not dead"
    );
    world.pass_failing(seconds(120));
    assert_eq!(world.status().phase, Phase::Draining);
    world.terminated();
    assert_eq!(
        (world.status().phase, world.status().attempts),
        (Phase::BackingOff, 1)
    );
}

impl World {
    /// Lets time pass while every connect finds nobody listening.
    fn pass_failing(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end && self.machine.status().phase != Phase::Draining {
            if self
                .open
                .iter()
                .any(|effect| matches!(effect, Effect::Connect { .. }))
            {
                self.connect_failed(failure(FailureClass::NotListening));
            }
            let due = self.machine.poll_timeout().unwrap_or(end).min(end);
            self.pass(due.since(self.now));
        }
    }
}

#[test]
fn silence_is_verified_before_it_is_believed() {
    let check: fn(&Effect) -> bool = |effect| matches!(effect, Effect::CheckSilence { .. });
    let verify: fn(&Effect) -> bool = |effect| matches!(effect, Effect::Verify { .. });
    let mut world = World::running(config());
    let pid = world.status().pid;
    world.pass(seconds(60));
    world.silence(check, seconds(60), Verification::NotAsked);
    world.silence(verify, seconds(61), Verification::Answered);
    assert_eq!(world.status().state, GatewayState::Running);
    world.pass(seconds(60));
    world.silence(check, seconds(60), Verification::NotAsked);
    world.silence(verify, seconds(65), Verification::Unanswered);
    world.disconnected();
    assert_eq!(
        (world.status().state, world.status().pid),
        (GatewayState::Reconnecting, pid),
        "the child lives on"
    );
    world.connected();
    assert_eq!(
        (world.status().state, world.launches),
        (GatewayState::Running, 1)
    );
}

#[test]
fn a_child_that_cannot_be_ended_blocks_the_next_launch() {
    let mut world = World::running(config());
    let stop = world.stop();
    world.disconnected();
    world.answer(
        |effect| matches!(effect, Effect::Terminate { .. }),
        Observation::TerminationFailed(temporary()),
    );
    assert!(
        matches!(world.outcome(stop), Some(TicketOutcome::Failed(failure)) if failure.class == FailureClass::Unkillable)
    );
    assert_eq!(
        (world.status().phase, world.status().pid),
        (Phase::Failed, Some(101))
    );
    world.start();
    assert!(
        matches!(&world.open[..], [Effect::Terminate { .. }]),
        "it is ended first: {:?}",
        world.open
    );
    world.terminated();
    world.be_kind();
    assert_eq!(
        (world.status().state, world.launches),
        (GatewayState::Running, 2)
    );
}

#[test]
fn a_restart_of_a_child_that_cannot_be_ended_fails_once() {
    let mut world = World::running(config());
    let restart = world.restart();
    world.disconnected();
    world.answer(
        |effect| matches!(effect, Effect::Terminate { .. }),
        Observation::TerminationFailed(temporary()),
    );
    assert!(
        matches!(world.outcome(restart), Some(TicketOutcome::Failed(failure)) if failure.class == FailureClass::Unkillable)
    );
    world.pass(seconds(86_400));
    assert!(
        world.open.is_empty(),
        "a permanent cause is never retried by itself: {:?}",
        world.open
    );
    assert_eq!(world.status().phase, Phase::Failed);
    let again = world.restart();
    world.be_kind();
    assert_eq!(
        (world.outcome(again), world.launches),
        (Some(&TicketOutcome::Running), 2)
    );
}

#[test]
fn a_stop_that_succeeds_late_leaves_a_fresh_machine() {
    let mut world = World::running(config());
    world.stop();
    world.disconnected();
    world.answer(
        |effect| matches!(effect, Effect::Terminate { .. }),
        Observation::TerminationFailed(temporary()),
    );
    world.exits(temporary());
    assert_eq!(world.status(), GatewayStatus::default());
    world.start();
    assert_eq!(
        world.status().state,
        GatewayState::Starting,
        "nothing ran before this start"
    );
}

#[test]
fn a_gateway_that_names_another_version_for_every_offer_is_not_asked_for_ever() {
    let mut world = World::new(config());
    let start = world.start();
    world.launch_child();
    for expected in [3, 4] {
        world.connect_failed(
            failure(FailureClass::ProtocolVersion).expected_protocol(Some(expected)),
        );
    }
    assert_eq!(world.status().phase, Phase::Draining);
    world.terminated();
    assert_eq!(world.status().phase, Phase::Failed);
    assert!(
        matches!(world.outcome(start), Some(TicketOutcome::Failed(failure)) if failure.class == FailureClass::ProtocolVersion)
    );
}

// Random histories.

#[derive(Clone, Debug)]
enum Act {
    Start,
    Stop,
    Restart,
    Debounced(u16),
    Time(u16),
    /// Answers the n-th open effect, in one of several ways.
    Answer(u8, u8),
    Exit(u8),
    SocketLost(bool),
    Stale(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        1 => Just(Act::Start),
        1 => Just(Act::Stop),
        1 => Just(Act::Restart),
        1 => any::<u16>().prop_map(Act::Debounced),
        3 => any::<u16>().prop_map(Act::Time),
        8 => (any::<u8>(), any::<u8>()).prop_map(|(n, how)| Act::Answer(n, how)),
        1 => any::<u8>().prop_map(Act::Exit),
        1 => any::<bool>().prop_map(Act::SocketLost),
        1 => any::<u8>().prop_map(Act::Stale),
    ]
}

const CLASSES: [FailureClass; 12] = [
    FailureClass::Configuration,
    FailureClass::UnsuitableRuntime,
    FailureClass::InvalidSettings,
    FailureClass::LockHeld,
    FailureClass::PortHeld,
    FailureClass::Credentials,
    FailureClass::PairingRequired,
    FailureClass::ProtocolVersion,
    FailureClass::StartingUp,
    FailureClass::NotListening,
    FailureClass::NotAGateway,
    FailureClass::Temporary,
];

fn some_failure(how: u8) -> Failure {
    failure(CLASSES[how as usize % CLASSES.len()]).expected_protocol((how > 128).then_some(3))
}

impl World {
    fn perform(&mut self, act: Act) {
        match act {
            Act::Start => drop(self.start()),
            Act::Stop => drop(self.stop()),
            Act::Restart => drop(self.restart()),
            Act::Debounced(delay) => drop(self.restart_debounced(u64::from(delay))),
            Act::Time(millis) => self.pass(Duration::from_millis(u64::from(millis) * 4)),
            Act::Exit(how) if self.child.is_some() => self.exits(some_failure(how)),
            Act::SocketLost(planned)
                if self.connection.is_some()
                    && !self
                        .open
                        .iter()
                        .any(|effect| matches!(effect, Effect::Disconnect { .. })) =>
            {
                self.open.retain(|effect| {
                    !matches!(effect, Effect::CheckSilence { .. } | Effect::Verify { .. })
                });
                self.socket_lost(planned.then_some(seconds(2)));
            }
            Act::Stale(how) => {
                let before = self.status();
                self.observe(
                    Epoch::from_number(1_000_000),
                    Observation::Exited(some_failure(how)),
                );
                assert_eq!(
                    self.status(),
                    before,
                    "a stranger's news changed the status"
                );
            }
            Act::Answer(n, how) if !self.open.is_empty() => {
                let at = n as usize % self.open.len();
                self.open.swap(0, at);
                self.answer_somehow(how);
            }
            Act::Exit(_) | Act::SocketLost(_) | Act::Answer(..) => {}
        }
    }

    fn answer_somehow(&mut self, how: u8) {
        let first = self.open[0].clone();
        let kind = how % 4;
        let bad = some_failure(how);
        let observation = match (&first, kind) {
            (Effect::Discover { .. }, 0 | 1) => Observation::PortFree,
            (Effect::Discover { .. }, 2) => Observation::GatewayFound(PortHolder::default()),
            (Effect::Discover { .. }, _) => Observation::ForeignFound(PortHolder::default()),
            (Effect::Prepare { .. }, 0..=2) => Observation::Prepared,
            (Effect::Prepare { .. }, _) => Observation::PreparationFailed(bad),
            (Effect::Spawn { .. }, 0..=2) => Observation::Spawned {
                pid: 100 + self.launches,
            },
            (Effect::Spawn { .. }, _) => Observation::SpawnFailed(bad),
            (Effect::Connect { .. }, 0 | 1) => {
                Observation::Connected(SessionFacts::new(3, "", None))
            }
            (Effect::Connect { .. }, _) => Observation::ConnectFailed(bad),
            (Effect::Disconnect { .. }, _) => Observation::Disconnected(loss(None)),
            (Effect::Terminate { .. }, 0..=2) => Observation::Exited(bad),
            (Effect::Terminate { .. }, _) => Observation::TerminationFailed(bad),
            (Effect::Repair { .. }, 0 | 1) => Observation::Repaired,
            (Effect::Repair { .. }, _) => Observation::RepairFailed(bad),
            (Effect::CheckSilence { .. }, _) => Observation::Silence {
                silence: Duration::from_secs(u64::from(how)),
                suspended: Duration::ZERO,
                verification: Verification::NotAsked,
            },
            (_, _) => Observation::Silence {
                silence: Duration::from_secs(u64::from(how)),
                suspended: Duration::ZERO,
                verification: if kind == 0 {
                    Verification::Unanswered
                } else {
                    Verification::Answered
                },
            },
        };
        // Answers to a watch over a connection that is being closed arrive too late; they are dropped with it.
        let watches =
            |effect: &Effect| matches!(effect, Effect::CheckSilence { .. } | Effect::Verify { .. });
        if matches!(observation, Observation::Disconnected(_)) {
            self.open.retain(|effect| !watches(effect));
        }
        let at = self
            .open
            .iter()
            .position(|effect| *effect == first)
            .expect("still open");
        self.open.swap(0, at);
        self.answer(|_| true, observation);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Whatever happens in whatever order: the invariants hold at every step; once the world is kind again a wanted gateway comes
    /// up, an unwanted one is gone, and every ticket has been answered exactly once.
    #[test]
    fn random_histories(acts in prop::collection::vec(act(), 0..120), attach in 0_u8..3, repair in any::<bool>()) {
        let attach = [AttachMode::Never, AttachMode::IfPresent, AttachMode::Only][attach as usize];
        let mut world = World::new(LifecycleConfig { attach, repair, ..config() });
        for act in acts {
            world.perform(act);
        }
        let wanted = world.machine.wants_running();
        world.be_kind();
        for _ in 0..40 {
            world.pass(seconds(61));
            world.be_kind();
        }
        let phase = world.status().phase;
        if !wanted {
            // A child that refused to end is the one thing that may be left; a person has been told.
            prop_assert!(phase == Phase::Stopped || (phase == Phase::Failed && world.child.is_some()), "{phase:?}");
        } else if attach != AttachMode::Only {
            prop_assert!(matches!(phase, Phase::Ready | Phase::Failed | Phase::GaveUp), "{phase:?}");
        }
        let stop = world.stop();
        world.be_kind();
        prop_assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
        prop_assert_eq!(world.status(), GatewayStatus::default());
        prop_assert_eq!(world.answers.len() as u64, world.tickets, "a ticket without an answer");
    }

    /// However often and however a gateway fails, the number of launches in an hour without a user is bounded.
    #[test]
    fn launches_are_bounded(hows in prop::collection::vec(any::<u8>(), 1..20)) {
        let mut world = World::new(LifecycleConfig { attach: AttachMode::Never, ..config() });
        world.start();
        let mut turn = 0;
        while world.now < Time::ZERO + seconds(3_600) && turn < 5_000 {
            let how = hows[turn % hows.len()];
            turn += 1;
            if world.open.is_empty() {
                world.pass(seconds(1));
            } else {
                world.answer_somehow(how);
            }
            if how % 7 == 0 && world.child.is_some() {
                world.exits(temporary());
            }
        }
        prop_assert!(world.launches <= 1 + 10 + 1 + 60, "{} launches", world.launches);
    }
}

#[test]
fn the_machine_can_be_stored_and_compared() {
    let machine = World::running(config()).machine;
    assert_eq!(machine, machine.clone());
    assert_eq!(vec![machine.clone()].len(), 1);
    assert_eq!(machine.ledger().attempts(), 0);
}
