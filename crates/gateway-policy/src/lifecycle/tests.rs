//! What the machine does, situation by situation.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::world::{World, config, epoch_of, failure, loss, seconds, temporary};
use super::*;
use crate::budget::Limit;
use crate::liveness::{Activity, HandshakeSign, RequestSign};
use crate::status::{GatewayStatus, Phase, TicketOutcome};

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
    assert_eq!(
        world.status().next_attempt_at,
        None,
        "the polls of a start are no attempts worth announcing"
    );
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

/// A line of output is a hint: it brings the next question forward, and changes nothing else.
#[test]
fn a_gateway_that_says_that_it_is_ready_is_asked_at_once() {
    let mut world = World::new(config());
    world.start();
    world.launch_child();
    let child = world.child.expect("a child");
    let says_ready = |world: &mut World| {
        world.observe(child, Observation::Progress(Progress::SaysReady));
    };
    // While it is being asked there is nothing to bring forward.
    says_ready(&mut world);
    assert_eq!(world.open.len(), 1);
    let starting = failure(FailureClass::StartingUp).retry_after(Some(Duration::from_millis(500)));
    world.connect_failed(starting.clone());
    assert!(world.open.is_empty());
    let due = world.machine.poll_timeout();
    world.observe(child, Observation::Progress(Progress::Output));
    assert!(
        world.open.is_empty(),
        "any other line says nothing about that"
    );
    assert_eq!(world.machine.poll_timeout(), due);
    says_ready(&mut world);
    assert!(world.rules.contains(&Rule::AskNow));
    assert_eq!(world.open.len(), 1, "asked at once");
    // It was too early: what it advises is waited for again.
    world.connect_failed(starting);
    assert!(world.open.is_empty());
    world.pass(Duration::from_millis(500));
    world.connected();
    assert_eq!(world.status().phase, Phase::Ready);
    says_ready(&mut world);
    assert_eq!(world.status().phase, Phase::Ready);
    // A wait that is no wait for its readiness is left alone.
    world.socket_lost(ShutdownNotice::None);
    let waiting = world.machine.poll_timeout();
    says_ready(&mut world);
    assert!(world.open.is_empty());
    assert_eq!(world.machine.poll_timeout(), waiting);
}

#[test]
fn a_survivor_that_is_what_would_be_launched_stays() {
    let mut world = World::new(config());
    let start = world.start();
    world.survivor_found();
    assert_eq!(
        (world.status().phase, world.status().pid),
        (Phase::Preparing, Some(77)),
        "it is ours as soon as it is found"
    );
    world.prepared_as_running();
    assert_eq!(world.status().phase, Phase::Listening);
    world.connected();
    assert_eq!(world.outcome(start), Some(&TicketOutcome::Running));
    assert_eq!((world.launches, world.status().attempts), (0, 0));
    assert!(!world.status().attached, "it is our own");
    assert!(world.rules.contains(&Rule::Adopt));
    // From here on it is a child like any other: a crash is recovered from, and the launch is paid for.
    world.exits(temporary());
    world.disconnected();
    world.pass(seconds(5));
    world.launch();
    assert_eq!(world.status().phase, Phase::Ready);
    assert_eq!((world.launches, world.machine.ledger().attempts()), (1, 1));
}

#[test]
fn a_survivor_that_is_out_of_date_is_replaced() {
    // How the start was asked for, and whether what is prepared is what runs.
    type Ask = fn(&mut World) -> Ticket;
    let table: [(Ask, bool); 3] = [
        (World::start, false),
        (World::restart, false),
        // Whoever asks for a restart wants a fresh one.
        (World::restart, true),
    ];
    for (ask, as_running) in table {
        let mut world = World::new(config());
        let ticket = ask(&mut world);
        world.survivor_found();
        if as_running {
            world.prepared_as_running();
        } else {
            world.prepared();
        }
        assert!(world.rules.contains(&Rule::ReplaceSurvivor));
        let Some(Effect::Terminate { reason, .. }) = world.open.last() else {
            panic!("not ended: {:?}", world.open);
        };
        assert_eq!(*reason, EndReason::Outdated);
        assert_eq!(
            (world.status().state, world.status().phase),
            (GatewayState::Starting, Phase::Draining)
        );
        world.terminated();
        world.launch();
        assert_eq!(world.outcome(ticket), Some(&TicketOutcome::Running));
        assert_eq!(
            (world.launches, world.machine.ledger().attempts()),
            (1, 0),
            "replacing is no attempt"
        );
    }
}

/// A gateway that lives is worth more than a launch that cannot be prepared.
#[test]
fn a_survivor_stays_when_nothing_can_be_prepared_in_its_place() {
    let mut world = World::new(config());
    world.start();
    world.survivor_found();
    world.answer(
        |effect| matches!(effect, Effect::Prepare { .. }),
        Observation::PreparationFailed(failure(FailureClass::InvalidSettings)),
    );
    let shown = world.status().failure.map(|failure| failure.class);
    assert_eq!(shown, Some(FailureClass::InvalidSettings));
    world.connected();
    assert_eq!(world.status().phase, Phase::Ready);
    assert!(world.rules.contains(&Rule::AdoptForWantOfAnother));
    assert_eq!(world.launches, 0);
}

#[test]
fn a_survivor_that_dies_meanwhile_is_no_loss() {
    for as_running in [true, false] {
        let mut world = World::new(config());
        world.start();
        world.survivor_found();
        world.exits(temporary());
        assert_eq!(world.status().phase, Phase::Preparing);
        if as_running {
            world.prepared_as_running();
        } else {
            world.prepared();
        }
        world.spawned();
        world.connected();
        assert_eq!((world.launches, world.status().attempts), (1, 0));
    }
}

#[test]
fn a_survivor_is_stopped_like_any_child() {
    let mut world = World::new(config());
    let start = world.start();
    world.survivor_found();
    let stop = world.stop();
    assert_eq!(world.outcome(start), Some(&TicketOutcome::Superseded));
    assert_eq!(world.outcome(stop), None, "it still lives");
    world.terminated();
    assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
    assert_eq!(world.status(), GatewayStatus::default());
}

/// An attached gateway that announced to be back is no reason to wait when one of our own lives.
#[test]
fn a_survivor_comes_before_a_gateway_that_is_waited_for() {
    let mut world = World::new(LifecycleConfig {
        attach: AttachMode::IfPresent,
        ..config()
    });
    world.start();
    world.gateway_found();
    world.connected();
    world.socket_lost(ShutdownNotice::Restart {
        expected: seconds(2),
    });
    world.pass(seconds(2));
    world.survivor_found();
    assert_eq!(world.status().phase, Phase::Preparing);
    world.prepared_as_running();
    assert_eq!(world.status().phase, Phase::Listening);
    // Gone again, nobody is waited for any more.
    world.exits(temporary());
    world.be_kind();
    world.pass(seconds(5));
    world.port_free();
    assert_eq!(world.status().phase, Phase::Preparing);
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
        (GatewayState::Running, Phase::Stopping)
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
                Some(again) => {
                    let running = Some(&TicketOutcome::Running);
                    assert_eq!(world.outcome(again), running, "at {point}");
                    assert!(world.status().is_running(), "at {point}");
                }
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
    world.observe(
        old_connection,
        Observation::Disconnected(loss(ShutdownNotice::None)),
    );
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
    world.socket_lost(ShutdownNotice::None);
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
            world.socket_lost(ShutdownNotice::None);
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
            let told = world.outcome(start).is_some();
            assert_eq!(told, delays.len() > 5, "nobody waits for the spaced tries");
            world.pass(due.since(world.now));
        }
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 300, 900, 2_700]);
    assert_eq!(world.launches, 9);
    let status = world.status();
    let failure = status.failure.expect("a cause");
    for part in ["8 attempts in 3931 s", "temporary", "restart the gateway"] {
        assert!(failure.message.contains(part), "{failure}");
    }
    let gave_up = status.gave_up.expect("a story");
    assert_eq!((gave_up.limit, gave_up.attempts), (Limit::Budget, 8));
    assert!(
        gave_up
            .history
            .iter()
            .all(|entry| entry.launched.is_some() && entry.cause == FailureClass::Temporary)
    );
    world.pass(seconds(86_400));
    assert!(world.open.is_empty());
    // A user's start is served at once, with a full budget.
    let again = world.start();
    world.be_kind();
    assert_eq!(world.outcome(again), Some(&TicketOutcome::Running));
    assert_eq!((world.status().attempts, world.status().gave_up), (0, None));
}

#[test]
fn a_slow_loop_of_crashes_meets_the_limit_of_attempts() {
    let mut config = config();
    config.reconnect.stable_after = seconds(120);
    let mut world = World::running(config);
    for attempt in 1..=10 {
        world.pass_quietly(seconds(100));
        world.exits(temporary());
        world.disconnected();
        assert_eq!(world.status().attempts, attempt);
        world.pass(seconds(30));
        world.launch();
    }
    world.pass_quietly(seconds(100));
    world.exits(temporary());
    world.disconnected();
    let gave_up = world.status().gave_up.expect("ten are enough");
    assert_eq!((gave_up.limit, gave_up.attempts), (Limit::Attempts, 10));
}

impl World {
    /// Lets time pass while everything goes well.
    fn pass_quietly(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let due = self.machine.poll_timeout().unwrap_or(end).min(end);
            self.pass(due.since(self.now));
            self.be_kind();
        }
    }
}

#[test]
fn short_sessions_do_not_reset_the_count_and_stable_ones_do() {
    let mut world = World::running(config());
    for attempts in 1..=3 {
        world.pass(seconds(5));
        world.be_kind();
        world.socket_lost(ShutdownNotice::None);
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
        assert_eq!(world.status().phase, Phase::Handshaking);
        world.connect_failed(failure(FailureClass::PairingRequired));
        let due = world.status().next_attempt_at;
        assert_eq!(due, Some(world.now + seconds(5)));
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
        pass_failing(&mut world, seconds(60));
        world.observe(child, Observation::Progress(Progress::Output));
    }
    assert_eq!(
        world.status().phase,
        Phase::Listening,
        "240 s with output is slow, not dead"
    );
    pass_failing(&mut world, seconds(120));
    assert_eq!(world.status().phase, Phase::Draining);
    world.terminated();
    assert_eq!(
        (world.status().phase, world.status().attempts),
        (Phase::BackingOff, 1)
    );
}

/// Lets time pass while every connect finds nobody listening.
pub(super) fn pass_failing(world: &mut World, time: Duration) {
    let end = world.now + time;
    while world.now < end && world.status().phase != Phase::Draining {
        let connects = |effect: &Effect| matches!(effect, Effect::Connect { .. });
        if world.open.iter().any(connects) {
            world.connect_failed(failure(FailureClass::NotListening));
        }
        let due = world.machine.poll_timeout().unwrap_or(end).min(end);
        world.pass(due.since(world.now));
    }
}

#[test]
fn silence_is_verified_before_it_is_believed() {
    let answered = RequestSign::Answered {
        after: Duration::ZERO,
    };
    let mut world = World::running(config());
    let pid = world.status().pid;
    assert_eq!(world.status().liveness, Some(Verdict::Alive));
    world.pass(seconds(60));
    world.looks(60, Activity::Idle);
    world.verified(answered, 61);
    assert_eq!(world.status().state, GatewayState::Running);
    world.pass(seconds(60));
    world.looks(60, Activity::Idle);
    world.verified(RequestSign::Unanswered, 65);
    assert_eq!(
        world.status().state,
        GatewayState::Running,
        "one sign is not enough, and the connection may still be good"
    );
    world.knocked(HandshakeSign::Answered, 65);
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

/// Waiting for recovery, a holder or a person ends with a user's command; waiting for a gateway that is on its way does not.
#[test]
fn a_user_does_not_wait_for_what_recovery_waits_for() {
    type Walk = fn(&mut World);
    let paths: [(Phase, Walk, bool); 5] = [
        (
            Phase::BackingOff,
            |world| {
                world.launch_child();
                world.exits(temporary());
            },
            true,
        ),
        (
            Phase::WaitingForHolder,
            |world| {
                world.answer(
                    |effect| matches!(effect, Effect::Discover { .. }),
                    Observation::ForeignFound(PortHolder::default()),
                )
            },
            true,
        ),
        (
            Phase::AwaitingApproval,
            |world| {
                world.launch_child();
                world.connect_failed(failure(FailureClass::PairingRequired));
            },
            true,
        ),
        (
            Phase::StartingUp,
            |world| {
                world.launch_child();
                world.connect_failed(failure(FailureClass::StartingUp));
            },
            false,
        ),
        (
            Phase::Restarting,
            |world| {
                world.launch();
                let expected = seconds(1);
                world.socket_lost(ShutdownNotice::Restart { expected });
            },
            false,
        ),
    ];
    for (phase, walk, cut_short) in paths {
        let mut world = World::new(config());
        world.start();
        walk(&mut world);
        assert_eq!(world.status().phase, phase);
        let waits = world.machine.poll_timeout();
        let took_over = |world: &World| world.rules.contains(&Rule::UserTakesOver);
        assert!(!took_over(&world));
        world.start();
        assert_eq!(took_over(&world), cut_short, "{phase}");
        assert_eq!(world.open.len(), usize::from(cut_short), "{phase}");
        assert_eq!(world.machine.poll_timeout() == waits, !cut_short, "{phase}");
        if cut_short {
            assert_eq!((world.status().failure, world.status().attempts), (None, 0));
        }
    }
}

/// A delayed restart that becomes due while recovery waits is served at once.
#[test]
fn a_changed_setting_does_not_wait_for_recovery() {
    let mut world = World::new(config());
    world.start();
    for _ in 0..4 {
        world.launch_child();
        world.exits(temporary());
        world.pass(seconds(8));
    }
    world.launch_child();
    world.exits(temporary());
    let restart = world.restart_debounced(2_000);
    world.pass(seconds(1));
    assert_eq!(world.status().phase, Phase::BackingOff);
    world.pass(seconds(1));
    world.launch();
    assert_eq!(world.outcome(restart), Some(&TicketOutcome::Running));
    assert_eq!(world.status().attempts, 0);
    // And one that becomes due after recovery has given up, or stopped for good.
    let mut world = World::new(config());
    world.start();
    world.launch_child();
    world.exits(failure(FailureClass::UnsuitableRuntime));
    let restart = world.restart_debounced(2_000);
    world.pass(seconds(2));
    world.launch();
    assert_eq!(world.outcome(restart), Some(&TicketOutcome::Running));
}

/// Calling early does nothing, and the same call at the deadline does what is due.
#[test]
fn a_deadline_that_has_not_passed_is_no_deadline() {
    let mut world = World::new(config());
    world.start();
    world.launch_child();
    world.exits(temporary());
    let due = world.machine.poll_timeout().expect("a retry");
    let before = world.machine.clone();
    world.machine.handle_timeout(due_before(due));
    assert_eq!(world.machine, before);
    world.machine.handle_timeout(due);
    assert_eq!(world.machine.status().phase, Phase::Discovering);

    let mut world = World::running(config());
    let due = world.machine.poll_timeout().expect("a look");
    let before = world.machine.clone();
    world.machine.handle_timeout(due_before(due));
    assert_eq!(world.machine, before);
}

fn due_before(due: Time) -> Time {
    Time::from_origin(due.elapsed_from_origin() - Duration::from_nanos(1))
}

/// A stop carries its own reason through, whatever was being taken down before and whatever comes after it.
#[test]
fn a_stop_is_carried_through_as_a_stop() {
    let mut world = World::running(config());
    world.restart();
    assert_eq!(world.status().phase, Phase::Draining);
    let stop = world.stop();
    assert_eq!(world.status().phase, Phase::Stopping);
    // The child dies meanwhile, with something that would have to be repaired.
    world.exits(failure(FailureClass::Configuration));
    world.disconnected();
    assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
    assert_eq!(world.status(), GatewayStatus::default());

    let mut world = World::running(config());
    let first = world.stop();
    let restart = world.restart();
    let second = world.stop();
    world.disconnected();
    assert!(matches!(
        &world.open[..],
        [Effect::Terminate {
            reason: EndReason::UserStop,
            ..
        }]
    ));
    world.terminated();
    for stop in [first, second] {
        assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
    }
    assert_eq!(world.outcome(restart), Some(&TicketOutcome::Superseded));
}

/// What is shown while something is taken down: a command leaves the old state, a failure of a running gateway shows as recovery,
/// one of a start as the start.
#[test]
fn the_state_while_taking_down() {
    use GatewayState::{Reconnecting, Running, Starting};
    let mut world = World::running(config());
    world.restart();
    assert_eq!(world.status().state, Running);

    let mut world = World::running(config());
    world.exits(temporary());
    assert_eq!(
        (world.status().state, world.status().phase),
        (Reconnecting, Phase::Draining)
    );
    assert!(world.status().failure.is_some());

    let mut world = World::new(config());
    world.start();
    world.launch_child();
    world.connect_failed(failure(FailureClass::InvalidSettings));
    assert_eq!(
        (world.status().state, world.status().phase),
        (Starting, Phase::Draining)
    );
}

/// A repair is called off once, however many stops come; a start that is not ready in time does not end what is being ended.
#[test]
fn nothing_is_called_off_twice() {
    let mut world = World::new(config());
    world.start();
    world.launch_child();
    world.exits(failure(FailureClass::Configuration));
    let called_off = |world: &World| {
        let is_repair = |effect: &&Effect| matches!(effect, Effect::Repair { .. });
        world.cancelled.iter().filter(is_repair).count()
    };
    let first = world.stop();
    assert_eq!(called_off(&world), 1);
    let second = world.stop();
    assert_eq!(called_off(&world), 1);
    world.answer(
        |effect| matches!(effect, Effect::Repair { .. }),
        Observation::Repaired,
    );
    for stop in [first, second] {
        assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
    }

    let mut world = World::new(config());
    world.start();
    world.launch_child();
    world.stop();
    assert_eq!(
        world.machine.poll_timeout(),
        None,
        "its readiness is nobody's concern any more"
    );
}

/// What was announced is told in the words of the rule.
#[test]
fn announcements_are_told() {
    let table = [
        (ShutdownNotice::None, "nothing announced"),
        (ShutdownNotice::Stop, "announced to stop"),
        (
            ShutdownNotice::Restart {
                expected: Duration::from_millis(1_500),
            },
            "announced to be back within 1.5s",
        ),
    ];
    for (notice, text) in table {
        assert_eq!(format!("{notice}"), text);
    }
}

#[test]
fn what_only_goes_on_is_told_apart_from_what_decides() {
    let mut world = World::running(config());
    world.pass(seconds(60));
    world.looks(60, Activity::Idle);
    world.verified(RequestSign::Answered { after: seconds(3) }, 61);
    let names = |routine: bool| {
        let rules = world.rules.iter();
        let rules = rules.filter(|rule| rule.is_routine() == routine);
        rules.map(Rule::name).collect::<Vec<_>>()
    };
    assert_eq!(names(true), ["connect", "ask", "conclude"]);
    assert_eq!(
        names(false),
        [
            "start-wanted",
            "look-at-port",
            "prepare-launch",
            "launch",
            "serve",
            "session-proved-stable"
        ]
    );
    let told: Vec<String> = world.rules.iter().map(|rule| format!("{rule}")).collect();
    for line in [
        "launch (asked for by a user; 0 automatic launches in the window)",
        "ask (Request; silent for 60s, asleep for 0ns, request NotMade, handshake NotTried, process Idle)",
        "conclude (slow: Keep; silent for 61s, asleep for 0ns, request Answered { after: 3s }, handshake NotTried, process Idle)",
    ] {
        assert!(
            told.iter().any(|told| told == line),
            "{line} is not in {told:#?}"
        );
    }
}
