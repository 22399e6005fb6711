//! What went wrong in other managers, one scenario each: named after what has to happen instead, with the row of the list of known
//! defects (B, H) or the complaint that it comes from. The folder `defects` at the root of the repository has a patch for each
//! row that puts the defect back and makes its scenario fail.

use alloc::vec::Vec;
use core::time::Duration;

use super::tests::pass_failing;
use super::world::{SESSION_TICK, World, config, failure, loss, seconds, temporary};
use super::*;
use crate::budget::Limit;
use crate::liveness::{Activity, HandshakeSign, RequestSign};
use crate::status::{Phase, TicketOutcome};

fn restarting(milliseconds: u64) -> ShutdownNotice {
    ShutdownNotice::Restart {
        expected: Duration::from_millis(milliseconds),
    }
}

fn attaching() -> LifecycleConfig {
    LifecycleConfig {
        attach: AttachMode::IfPresent,
        ..config()
    }
}

impl World {
    /// A child that crashes so long after each launch, served or not, until this much time is over.
    fn crash_for(&mut self, time: Duration, lives: Duration, serves: bool) {
        let end = self.now + time;
        while self.now < end && self.status().phase != Phase::GaveUp {
            if serves {
                self.launch();
            } else {
                self.launch_child();
            }
            let dies = self.now + lives;
            while self.now < dies {
                let due = self.machine.poll_timeout().unwrap_or(dies).min(dies);
                self.pass(due.since(self.now));
                if serves {
                    self.be_kind();
                }
            }
            self.exits(temporary());
            if serves {
                self.disconnected();
            }
            if let Some(due) = self.status().next_attempt_at {
                self.pass(due.since(self.now));
            }
        }
    }

    /// The connection is silent and a request is not answered.
    fn falls_silent(&mut self, silence: u64) {
        self.looks(silence, Activity::Idle);
        self.verified(RequestSign::Unanswered, silence + 5);
    }
}

/// B1, H8; ClawX#323, openclaw#27590, LobsterAI#859: 202 launches in 600 s were seen with a child that lives 0.4 s, 136 with one
/// that lives 3 s.
#[test]
fn a_crash_loop_is_slowed_down_and_given_up_however_long_the_child_lives() {
    // How long the child lives in milliseconds, whether it serves, and how often it may be launched.
    let table = [
        (400, false, 7),
        (400, true, 7),
        (3_000, false, 7),
        (3_000, true, 7),
        (30_000, true, 7),
        // So slow that the window never fills: the limit of attempts is next.
        (59_000, true, 9),
        // Long enough to be called stable each time: as often as the window allows, and no limit of attempts.
        (61_000, true, 10),
    ];
    for (lives, serves, launches) in table {
        let mut world = World::new(config());
        world.start();
        world.crash_for(seconds(600), Duration::from_millis(lives), serves);
        assert_eq!(
            world.launches, launches,
            "in 600 s with a child that lives {lives} ms"
        );
    }
}

/// B3.
#[test]
fn a_stop_during_preparation_leaves_no_child() {
    let mut world = World::new(config());
    let start = world.start();
    world.port_free();
    let stop = world.stop();
    assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
    assert_eq!(world.outcome(start), Some(&TicketOutcome::Superseded));
    // The hooks finish all the same; nobody launches for them.
    assert!(world.open.is_empty());
    assert_eq!(world.launches, 0);
}

/// B4, B15: the start is neither ignored nor does it run beside the stop.
#[test]
fn a_start_during_a_stop_waits_for_it_and_is_served() {
    let mut world = World::running(config());
    let stop = world.stop();
    let start = world.start();
    world.disconnected();
    assert_eq!(
        world.launches, 1,
        "the old child is still there, and stop has not returned"
    );
    world.terminated();
    assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
    assert_eq!(world.outcome(start), None);
    world.launch();
    assert_eq!(world.outcome(start), Some(&TicketOutcome::Running));
    assert_eq!(world.launches, 2);
}

/// B5, B8: facts about the replaced child and socket are not facts about the new ones.
#[test]
fn the_late_exit_of_an_old_child_does_not_disown_the_new_one() {
    let mut world = World::running(config());
    let old_child = world.child.expect("a child");
    let old_connection = world.connection.expect("a connection");
    world.exits(temporary());
    world.disconnected();
    world.pass(seconds(1));
    world.launch();
    let before = world.status();
    world.observe(old_child, Observation::Exited(temporary()));
    let notice = restarting(1_500);
    world.observe(old_connection, Observation::Disconnected(loss(notice)));
    assert_eq!(world.status(), before);
    let stop = world.stop();
    world.be_kind();
    assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
}

/// B9: nothing of a failure survives in the status of a gateway that runs, nothing of a session in that of one that does not.
#[test]
fn the_status_holds_nothing_that_is_over() {
    let mut world = World::running(config());
    world.socket_lost(ShutdownNotice::None);
    let lost = world.status();
    assert!(lost.failure.is_some());
    assert_eq!(
        (lost.connected_at, lost.session, lost.liveness),
        (None, None, None)
    );
    world.pass(Duration::from_millis(50));
    world.connected();
    let back = world.status();
    assert_eq!((back.failure, back.next_attempt_at), (None, None));
    assert_eq!(back.connected_at, Some(world.now));
    world.exits(temporary());
    assert_eq!(world.status().pid, None);
}

/// B10, C3: a handshake that fails while the child lives leads to another handshake, not to another child.
#[test]
fn a_failed_handshake_keeps_the_child_that_was_launched() {
    for class in [
        FailureClass::Temporary,
        FailureClass::Unknown,
        FailureClass::NotAGateway,
        FailureClass::StartingUp,
        FailureClass::NotListening,
    ] {
        let mut world = World::new(config());
        world.start();
        world.launch_child();
        for _ in 0..5 {
            world.connect_failed(failure(class));
            assert!(world.open.is_empty(), "{class}: not at once");
            assert_eq!(world.status().pid, Some(101), "{class}");
            world.pass(seconds(2));
        }
        world.connected();
        assert_eq!((world.launches, world.status().attempts), (1, 0), "{class}");
    }
}

/// B11; ClawX#446, #435: the class of a failure decides once, and nothing else has a say.
#[test]
fn a_doctor_that_fails_ends_the_start_and_one_that_does_not_help_is_not_asked_again() {
    let broken = || failure(FailureClass::Configuration);
    let repair: fn(&Effect) -> bool = |effect| matches!(effect, Effect::Repair { .. });
    for helps in [false, true] {
        let mut world = World::new(config());
        let start = world.start();
        world.launch_child();
        world.exits(broken());
        assert_eq!(
            world.child, None,
            "the child is gone before the doctor comes"
        );
        if helps {
            world.answer(repair, Observation::Repaired);
            world.launch_child();
            world.exits(broken());
        } else {
            world.answer(repair, Observation::RepairFailed(broken()));
        }
        assert_eq!(world.status().phase, Phase::Failed);
        assert!(matches!(
            world.outcome(start),
            Some(TicketOutcome::Failed(_))
        ));
        world.pass(seconds(86_400));
        assert!(world.open.is_empty());
        assert_eq!(world.launches, 1 + u32::from(helps));
    }
}

/// C7, C10: how soon a lost connection to a living child is made anew.
#[test]
fn a_connection_that_is_lost_again_and_again_is_slowed_down() {
    let waits = |world: &World| {
        let due = world.status().next_attempt_at.expect("a reconnect");
        due.since(world.now).as_millis()
    };
    let mut world = World::running(config());
    let mut delays = Vec::new();
    for _ in 0..7 {
        world.socket_lost(ShutdownNotice::None);
        delays.push(waits(&world));
        world.pass(seconds(30));
        world.connected();
    }
    assert_eq!(delays, [50, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
    // What is announced says when, and is no reason to slow down.
    for (notice, delay) in [
        (restarting(1_500), 50),
        (ShutdownNotice::Stop, 10_000),
        (restarting(0), 50),
    ] {
        let mut world = World::running(config());
        for _ in 0..3 {
            world.socket_lost(notice);
            assert_eq!(waits(&world), delay, "{notice}");
            world.pass(seconds(10));
            world.connected();
        }
        world.socket_lost(ShutdownNotice::None);
        assert_eq!(waits(&world), 50, "after {notice}");
    }
    // A session that proved stable earns a connection without delay.
    let mut world = World::running(config());
    world.pass(seconds(60));
    world.be_kind();
    world.socket_lost(ShutdownNotice::None);
    assert_eq!(waits(&world), 0);
}

/// C23: what was attached to is looked for again, at once when it had proved stable.
#[test]
fn a_lost_attached_gateway_is_looked_for() {
    for (lasted, delay) in [(59, Some(seconds(1))), (60, None)] {
        let mut world = World::new(attaching());
        world.start();
        world.gateway_found();
        world.connected();
        world.pass(seconds(lasted));
        world.be_kind();
        world.socket_lost(ShutdownNotice::None);
        let due = world.status().next_attempt_at;
        assert_eq!(due.map(|due| due.since(world.now)), delay);
        world.pass(delay.unwrap_or_default());
        // It is found and does not listen any more when it is connected to: a loss like any other.
        world.gateway_found();
        let attempts = world.status().attempts;
        world.connect_failed(failure(FailureClass::NotListening));
        let status = world.status();
        assert_eq!(
            (status.phase, status.attempts, status.attached),
            (Phase::BackingOff, attempts + 1, false)
        );
        assert_eq!(
            status.failure.map(|failure| failure.class),
            Some(FailureClass::Temporary)
        );
    }
}

/// C23: an attached gateway is not ours to repair, whatever it says.
#[test]
fn an_attached_gateway_is_never_repaired() {
    for class in [FailureClass::Configuration, FailureClass::UnsuitableRuntime] {
        let mut world = World::new(attaching());
        let start = world.start();
        world.gateway_found();
        world.connect_failed(failure(class));
        let status = world.status();
        assert_eq!((status.phase, status.attached), (Phase::Failed, false));
        assert!(world.open.is_empty(), "{:?}", world.open);
        assert!(matches!(
            world.outcome(start),
            Some(TicketOutcome::Failed(_))
        ));
        world.pass(seconds(86_400));
        assert_eq!(world.launches, 0);
    }
}

/// B12: whose gateway it is depends on who launched it, not on how the connection was found.
#[test]
fn after_a_restart_in_place_the_child_is_still_ours() {
    let mut world = World::running(config());
    world.socket_lost(restarting(1_500));
    world.pass(Duration::from_millis(50));
    assert!(
        matches!(&world.open[..], [Effect::Connect { plan, .. }] if !plan.attached),
        "{:?}",
        world.open
    );
    world.connected();
    assert_eq!(
        (world.status().attached, world.status().pid),
        (false, Some(101))
    );
    let stop = world.stop();
    world.disconnected();
    world.terminated();
    assert_eq!(world.outcome(stop), Some(&TicketOutcome::Stopped));
}

/// B17, C13; ClawFleet#20: starting is attempt zero of recovery.
#[test]
fn a_first_start_that_fails_for_a_passing_reason_recovers_by_itself() {
    let failures: [fn(&mut World); 3] = [
        |world| {
            world.answer(
                |effect| matches!(effect, Effect::Discover { .. }),
                Observation::DiscoveryFailed(temporary()),
            )
        },
        |world| {
            world.port_free();
            world.prepared();
            world.answer(
                |effect| matches!(effect, Effect::Spawn { .. }),
                Observation::SpawnFailed(failure(FailureClass::Unknown)),
            );
        },
        |world| {
            world.launch_child();
            world.exits(temporary());
        },
    ];
    for fail in failures {
        let mut world = World::new(config());
        let start = world.start();
        fail(&mut world);
        assert_eq!(world.status().phase, Phase::BackingOff);
        world.pass(seconds(30));
        world.launch();
        assert_eq!(world.outcome(start), Some(&TicketOutcome::Running));
    }
}

/// C16: what nobody understands is tried again slowly, and never dropped silently.
#[test]
fn an_unknown_failure_is_retried_with_the_longest_delay() {
    let mut world = World::new(config());
    world.start();
    world.launch_child();
    world.exits(failure(FailureClass::Unknown));
    let due = world.status().next_attempt_at.expect("another attempt");
    assert_eq!(due.since(world.now), seconds(30));
}

/// H1, H2, H4, C5: a restart is neither dropped because the last one was just now, nor because a clock went back.
#[test]
fn a_restart_right_after_a_restart_is_served() {
    let mut world = World::running(config());
    for launches in 2..=6 {
        let restart = world.restart();
        world.be_kind();
        assert_eq!(world.outcome(restart), Some(&TicketOutcome::Running));
        assert_eq!(world.launches, launches, "a launch for each request");
    }
    // The last launch was an hour later than what the clock says now.
    world.pass(seconds(7_200));
    world.be_kind();
    world.restart();
    world.be_kind();
    world.now = Time::ZERO + seconds(3_600);
    let restart = world.restart();
    world.be_kind();
    assert_eq!(world.outcome(restart), Some(&TicketOutcome::Running));
    assert_eq!(world.launches, 8);
}

/// C5: user and configuration requests are merged and delayed; they are neither dropped nor charged.
#[test]
fn what_users_ask_for_is_not_charged() {
    let mut world = World::running(config());
    for _ in 0..20 {
        let restart = world.restart_debounced(2_000);
        world.pass(seconds(2));
        world.be_kind();
        assert_eq!(world.outcome(restart), Some(&TicketOutcome::Running));
    }
    assert_eq!(world.launches, 21);
    assert!(world.launched.iter().all(|(_, automatic)| !automatic));
    let budget = config().budget;
    assert_eq!(
        world
            .machine
            .ledger()
            .launches_in_window(world.now, &budget),
        0
    );
    // Nor do they use up what a crash needs.
    world.exits(temporary());
    world.disconnected();
    assert_eq!(world.status().next_attempt_at, Some(world.now + seconds(1)));
}

/// H5: the next look cannot overwrite a question that has not been answered.
#[test]
fn a_question_that_takes_long_still_counts() {
    let mut world = World::running(config());
    world.pass(seconds(60));
    world.looks(60, Activity::Idle);
    world.pass(seconds(300));
    assert!(
        matches!(&world.open[..], [Effect::Verify { .. }]),
        "nothing else is asked meanwhile: {:?}",
        world.open
    );
    world.verified(RequestSign::Unanswered, 360);
    assert!(matches!(&world.open[..], [Effect::Knock { .. }]));
}

/// H6: the announcement tells a restart from a stop; the close code, 1012 for both, tells nothing.
#[test]
fn a_gateway_that_announced_its_end_is_not_knocked_at_while_it_ends() {
    let mut world = World::running(config());
    world.socket_lost(ShutdownNotice::Stop);
    world.pass(seconds(9));
    assert!(world.open.is_empty(), "{:?}", world.open);
    world.exits(temporary());
    assert_eq!(
        world.status().phase,
        Phase::BackingOff,
        "nobody here had asked it to stop"
    );

    // It said so and does not end: then it is asked how it is.
    let mut world = World::running(config());
    world.socket_lost(ShutdownNotice::Stop);
    world.pass(seconds(10));
    world.connected();
    assert_eq!(
        (world.status().state, world.launches),
        (GatewayState::Running, 1)
    );
}

/// H9: the class decides in one place; a restart does not know better.
#[test]
fn a_restart_that_fails_for_good_stays_failed() {
    let mut world = World::running(config());
    let restart = world.restart();
    world.disconnected();
    world.terminated();
    world.launch_child();
    world.exits(failure(FailureClass::UnsuitableRuntime));
    assert!(
        matches!(world.outcome(restart), Some(TicketOutcome::Failed(failure)) if failure.class == FailureClass::UnsuitableRuntime)
    );
    world.pass(seconds(86_400));
    assert_eq!((world.status().phase, world.launches), (Phase::Failed, 2));
    assert!(world.open.is_empty());
}

/// H10, C10: the loss of the socket alone means a new socket to the same child, whatever the gateway announced.
#[test]
fn a_lost_socket_with_a_living_child_is_always_replaced() {
    for notice in [
        ShutdownNotice::None,
        ShutdownNotice::Stop,
        restarting(0),
        restarting(1_500),
    ] {
        let mut world = World::running(config());
        world.socket_lost(notice);
        assert!(world.machine.poll_timeout().is_some(), "{notice}");
        world.pass(seconds(10));
        world.connected();
        assert_eq!(
            (world.status().state, world.status().pid, world.launches),
            (GatewayState::Running, Some(101), 1),
            "{notice}"
        );
    }
}

/// H11: a start that needs several attempts is one way up, not a flicker.
#[test]
fn states_do_not_flicker_during_a_start() {
    let mut world = World::new(config());
    world.start();
    for _ in 0..3 {
        world.launch_child();
        world.exits(temporary());
        world.pass(seconds(30));
    }
    world.launch_child();
    world.connect_failed(failure(FailureClass::StartingUp));
    world.pass(seconds(1));
    world.connected();
    use GatewayState::{Reconnecting, Running, Starting};
    assert_eq!(world.states, [Starting, Reconnecting, Running]);
}

/// H12; openclaw#116177: a user's command always begins with a full account, whatever was ignored or joined before.
#[test]
fn a_users_start_begins_a_new_episode() {
    let mut world = World::running(config());
    // Joins: it is running already.
    world.start();
    world.exits(temporary());
    world.disconnected();
    world.pass(seconds(1));
    world.crash_for(seconds(86_400), Duration::ZERO, false);
    let gave_up = world.status().gave_up.expect("it gave up");
    assert_eq!(gave_up.limit, Limit::Budget);
    world.start();
    assert_eq!((world.status().attempts, world.status().gave_up), (0, None));
    // Five launches in a moment, and then a user: nothing is left of them.
    for _ in 0..5 {
        world.launch_child();
        world.exits(temporary());
        world.pass(seconds(16));
    }
    world.launch_child();
    world.exits(temporary());
    assert_eq!(
        world.status().next_attempt_at,
        Some(world.now + seconds(300))
    );
    world.start();
    world.launch_child();
    world.exits(temporary());
    assert_eq!(
        (world.status().attempts, world.status().next_attempt_at),
        (1, Some(world.now + seconds(1)))
    );
}

/// H13; ClawX#616, #816: whoever finds a gateway blocked looks again, until it answers or is wedged.
#[test]
fn a_blocked_gateway_is_looked_at_until_it_answers_or_is_wedged() {
    let blocked_for_two_minutes = || {
        let mut world = World::running(config());
        world.pass(seconds(60));
        for silence in (60..=160).step_by(20) {
            world.falls_silent(silence);
            world.knocked(HandshakeSign::Stalled, silence + 10);
            let status = world.status();
            assert_eq!(
                (status.liveness, status.state),
                (Some(Verdict::Blocked), GatewayState::Running)
            );
            world.pass(seconds(10));
        }
        world
    };
    let mut world = blocked_for_two_minutes();
    world.looks(1, Activity::Working);
    assert_eq!(world.status().liveness, Some(Verdict::Alive));
    assert_eq!(world.launches, 1);

    let mut world = blocked_for_two_minutes();
    world.falls_silent(180);
    world.knocked(HandshakeSign::Stalled, 190);
    assert_eq!(
        (world.status().state, world.status().phase),
        (GatewayState::Reconnecting, Phase::Draining)
    );
    world.disconnected();
    assert!(matches!(
        &world.open[..],
        [Effect::Terminate {
            reason: EndReason::Wedged,
            ..
        }]
    ));
    world.terminated();
    world.pass(seconds(30));
    world.be_kind();
    assert_eq!(
        (world.status().state, world.launches),
        (GatewayState::Running, 2)
    );
}

/// ClawX#538, #721, #682; openclaw#82689: a gateway that works, or that only this connection cannot reach, is not restarted.
#[test]
fn a_busy_gateway_and_a_dead_link_cost_no_process() {
    let mut world = World::running(config());
    world.pass(seconds(60));
    for silence in [60, 200, 400, 580] {
        world.looks(silence, Activity::Working);
        let look = Look {
            silence: seconds(silence + 5),
            suspended: Duration::ZERO,
            activity: Activity::Working,
        };
        let sign = RequestSign::Unanswered;
        world.answer(
            |effect| matches!(effect, Effect::Verify { .. }),
            Observation::RequestMade { sign, look },
        );
        let sign = HandshakeSign::Stalled;
        world.answer(
            |effect| matches!(effect, Effect::Knock { .. }),
            Observation::HandshakeTried { sign, look },
        );
        assert_eq!(world.status().liveness, Some(Verdict::Blocked), "{silence}");
        world.pass(seconds(10));
    }
    world.falls_silent(600);
    world.knocked(HandshakeSign::Answered, 605);
    world.disconnected();
    world.connected();
    assert_eq!(
        (world.status().state, world.launches),
        (GatewayState::Running, 1)
    );
}

/// openclaw#140010: after sleep the link is asked at once, and the sleep is held against nobody.
#[test]
fn a_night_of_sleep_costs_neither_a_minute_nor_a_process() {
    let mut world = World::running(config());
    world.pass(seconds(60));
    let slept = Look {
        silence: seconds(2),
        suspended: seconds(8 * 3_600),
        activity: Activity::Idle,
    };
    let look: fn(&Effect) -> bool = |effect| matches!(effect, Effect::Look { .. });
    world.answer(look, Observation::Looked(slept));
    world.verified(RequestSign::Unanswered, 7);
    world.knocked(HandshakeSign::Stalled, 12);
    assert_eq!(world.status().liveness, Some(Verdict::Suspended));
    world.pass(SESSION_TICK * 2);
    world.looks(72, Activity::Idle);
    world.verified(RequestSign::Unanswered, 77);
    world.knocked(HandshakeSign::Answered, 77);
    world.disconnected();
    world.connected();
    assert_eq!(
        (world.status().state, world.launches),
        (GatewayState::Running, 1)
    );
}

/// ClawX#818, #131: somebody else's gateway, 163 rounds of mutual killing: it is left alone and waited for, with a limit.
#[test]
fn a_gateway_of_somebody_else_is_left_alone() {
    let mut world = World::new(config());
    let start = world.start();
    let mut looks = 0;
    while world.status().phase != Phase::GaveUp {
        looks += 1;
        world.gateway_found();
        world.pass(seconds(60));
    }
    assert_eq!((looks, world.launches), (11, 0));
    assert!(matches!(
        world.outcome(start),
        Some(TicketOutcome::Failed(failure)) if failure.class == FailureClass::PortHeld
    ));
}

/// openclaw#65668, #76239: it announced a restart and its process ended for that. It is launched again at once, without penalty,
/// and (openclaw#33459) not for ever.
#[test]
fn a_process_that_ends_for_its_announced_restart_is_launched_at_once() {
    let mut world = World::running(config());
    for _ in 0..5 {
        world.socket_lost(restarting(1_500));
        world.exits(temporary());
        world.pass(Duration::ZERO);
        world.launch();
        assert_eq!(world.status().state, GatewayState::Running);
    }
    world.socket_lost(restarting(1_500));
    world.exits(temporary());
    assert_eq!(
        world.status().next_attempt_at,
        Some(world.now + seconds(300)),
        "a loop of restarts is a loop"
    );

    // A restart that ends with a broken configuration is no restart.
    let mut world = World::running(config());
    world.socket_lost(restarting(1_500));
    world.exits(failure(FailureClass::Configuration));
    assert_eq!(world.status().phase, Phase::Repairing);
}

/// NemoClaw#5181: a restart in place that fails parks the process without a listener.
#[test]
fn a_restart_in_place_that_never_comes_back_is_ended() {
    let mut world = World::running(config());
    world.socket_lost(restarting(1_500));
    assert_eq!(world.status().phase, Phase::Restarting);
    pass_failing(&mut world, seconds(121));
    assert_eq!(
        world.status().phase,
        Phase::Restarting,
        "patience begins when it was meant to be back"
    );
    pass_failing(&mut world, seconds(1));
    assert_eq!(world.status().phase, Phase::Draining);
    world.terminated();
    world.pass(seconds(1));
    world.launch();
    assert_eq!(
        (world.status().state, world.launches),
        (GatewayState::Running, 2)
    );
}

/// C23: while an attached gateway restarts, its port is free for a moment; a launch there would be a second gateway.
#[test]
fn nothing_is_launched_in_place_of_an_attached_gateway_that_restarts() {
    let attached = || {
        let mut world = World::new(attaching());
        world.start();
        world.gateway_found();
        world.connected();
        world.socket_lost(restarting(1_500));
        assert_eq!(world.status().phase, Phase::Restarting);
        world.pass(Duration::from_millis(1_500));
        world
    };
    let mut world = attached();
    world.port_free();
    world.pass(Duration::from_millis(500));
    assert_eq!(
        (world.status().phase, world.launches),
        (Phase::Restarting, 0)
    );
    world.gateway_found();
    world.connected();
    assert!(world.status().attached);
    assert_eq!(world.status().attempts, 0);

    // It does not come back.
    let mut world = attached();
    while world.launches == 0 {
        world.port_free();
        world.pass(Duration::from_millis(500));
        if matches!(world.open[..], [Effect::Prepare { .. }]) {
            world.prepared();
        }
    }
    assert_eq!(
        world.now,
        Time::ZERO + seconds(6) + Duration::from_millis(500)
    );
    world.spawned();
    assert!(world.launched[0].1, "nobody asked for this launch");
}

/// C4, C5: whatever a launch failed with and however oddly, the next one is recovery's and is charged.
#[test]
fn no_failure_of_a_launch_is_a_way_around_the_budget() {
    use FailureClass as Class;
    for class in [
        Class::StartingUp,
        Class::NotListening,
        Class::PairingRequired,
        Class::LockHeld,
        Class::PlannedRestart,
        Class::Unknown,
    ] {
        let mut world = World::new(config());
        world.start();
        let end = world.now + seconds(600);
        while world.now < end && world.status().phase != Phase::GaveUp {
            world.port_free();
            world.prepared();
            world.answer(
                |effect| matches!(effect, Effect::Spawn { .. }),
                Observation::SpawnFailed(failure(class)),
            );
            let due = world.machine.poll_timeout().unwrap_or(end);
            world.pass(due.since(world.now));
        }
        let automatic = world.launched.iter().filter(|(_, automatic)| *automatic);
        assert_eq!(automatic.count(), world.launched.len() - 1, "{class}");
        assert!(world.launches <= 8, "{class}: {} launches", world.launches);
    }
}

/// A restart is not kept waiting by a gateway that is only being reconnected to; it is kept waiting by a launch.
#[test]
fn a_restart_during_a_reconnect_does_not_wait_for_it() {
    let mut world = World::running(config());
    world.socket_lost(ShutdownNotice::None);
    world.pass(Duration::from_millis(50));
    assert!(matches!(&world.open[..], [Effect::Connect { .. }]));
    let restart = world.restart();
    world.terminated();
    world.launch();
    assert_eq!(world.outcome(restart), Some(&TicketOutcome::Running));
    assert_eq!(world.launches, 2);
}

/// E9: attaching is all that is allowed, so the gateway is waited for as long as it is wanted.
#[test]
fn a_gateway_to_attach_to_is_waited_for_without_an_end() {
    let mut world = World::new(LifecycleConfig {
        attach: AttachMode::Only,
        ..config()
    });
    let start = world.start();
    for _ in 0..100 {
        world.port_free();
        assert_eq!(world.status().phase, Phase::BackingOff);
        world.pass(seconds(30));
    }
    assert!(world.outcome(start).is_some(), "the caller was told");
    world.gateway_found();
    world.connected();
    assert_eq!((world.status().attached, world.launches), (true, 0));
}

/// The relaunch after a repair is an automatic launch like any other.
#[test]
fn the_launch_after_a_repair_is_charged() {
    let mut config = config();
    config.budget.burst = 0;
    let mut world = World::new(config);
    let start = world.start();
    world.launch_child();
    world.exits(failure(FailureClass::Configuration));
    let repair: fn(&Effect) -> bool = |effect| matches!(effect, Effect::Repair { .. });
    world.answer(repair, Observation::Repaired);
    assert_eq!(
        world.status().next_attempt_at,
        Some(world.now + seconds(300))
    );
    assert!(world.outcome(start).is_some(), "nobody waits for that long");
    world.pass(seconds(300));
    world.launch();
    assert_eq!(world.launched[1], (world.now, true));

    // And when the account is empty, that is the end.
    let mut config = LifecycleConfig::default();
    config.budget.burst = 0;
    config.budget.spaced.clear();
    let mut world = World::new(config);
    world.start();
    world.launch_child();
    world.exits(failure(FailureClass::Configuration));
    world.answer(repair, Observation::Repaired);
    let status = world.status();
    assert_eq!(status.phase, Phase::GaveUp);
    assert_eq!(
        status.failure.map(|failure| failure.class),
        Some(FailureClass::Configuration)
    );
}
