//! Random histories: whatever happens in whatever order, the invariants hold at every step. A history that fails is reduced.

extern crate std;

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use proptest::prelude::*;

use super::world::{World, config, failure, loss, seconds, temporary};
use super::*;
use crate::liveness::{Activity, HandshakeSign, RequestSign};
use crate::status::{GatewayStatus, Phase, TicketOutcome};

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
    SocketLost(ShutdownNotice),
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
        1 => notice().prop_map(Act::SocketLost),
        1 => any::<u8>().prop_map(Act::Stale),
    ]
}

const CLASSES: [FailureClass; 15] = [
    FailureClass::NewerState,
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
    FailureClass::PlannedRestart,
    FailureClass::Unknown,
    FailureClass::Temporary,
];

fn notice() -> impl Strategy<Value = ShutdownNotice> {
    prop_oneof![
        2 => Just(ShutdownNotice::None),
        1 => (0_u64..20).prop_map(|expected| ShutdownNotice::Restart { expected: seconds(expected) }),
        1 => Just(ShutdownNotice::Stop),
    ]
}

/// Silence of up to 21 minutes, sometimes with sleep.
fn some_look(how: u8) -> Look {
    Look {
        silence: seconds(u64::from(how) * 5),
        suspended: seconds(if how % 8 == 7 { 600 } else { 0 }),
        activity: [
            Activity::Unknown,
            Activity::Working,
            Activity::Idle,
            Activity::Halted,
        ][how as usize % 4],
    }
}

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
            Act::SocketLost(notice)
                if self.connection.is_some()
                    && !self
                        .open
                        .iter()
                        .any(|effect| matches!(effect, Effect::Disconnect { .. })) =>
            {
                self.socket_lost(notice);
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
            // Nothing of ours lives beside a child of ours.
            (Effect::Discover { .. }, 0) if how > 128 && self.child.is_none() => {
                Observation::SurvivorFound { pid: 77 }
            }
            (Effect::Discover { .. }, 0 | 1) => Observation::PortFree,
            (Effect::Discover { .. }, 2) => Observation::GatewayFound(PortHolder::default()),
            (Effect::Discover { .. }, _) => Observation::ForeignFound(PortHolder::default()),
            (Effect::Prepare { .. }, 0) => Observation::PreparedAsRunning,
            (Effect::Prepare { .. }, 1 | 2) => Observation::Prepared,
            (Effect::Prepare { .. }, _) => Observation::PreparationFailed(bad),
            (Effect::Spawn { .. }, 0..=2) => Observation::Spawned {
                pid: 100 + self.launches,
            },
            (Effect::Spawn { .. }, _) => Observation::SpawnFailed(bad),
            (Effect::Connect { .. }, 0 | 1) => {
                Observation::Connected(SessionFacts::new(3, "", None))
            }
            (Effect::Connect { .. }, _) => Observation::ConnectFailed(bad),
            (Effect::Disconnect { .. }, _) => Observation::Disconnected(loss(ShutdownNotice::None)),
            (Effect::Terminate { .. }, 0..=2) => Observation::Exited(bad),
            (Effect::Terminate { .. }, _) => Observation::TerminationFailed(bad),
            (Effect::Repair { .. }, 0 | 1) => Observation::Repaired,
            (Effect::Repair { .. }, _) => Observation::RepairFailed(bad),
            (Effect::Look { .. }, _) => Observation::Looked(some_look(how)),
            (Effect::Verify { .. }, _) => Observation::RequestMade {
                sign: if kind == 0 {
                    RequestSign::Unanswered
                } else {
                    RequestSign::Answered {
                        after: Duration::from_millis(u64::from(how) * 20),
                    }
                },
                look: some_look(how),
            },
            (_, _) => Observation::HandshakeTried {
                sign: [
                    HandshakeSign::Stalled,
                    HandshakeSign::Answered,
                    HandshakeSign::Refused,
                    HandshakeSign::Stalled,
                ][kind as usize],
                look: some_look(how),
            },
        };
        // Answers to a watch over a connection that is being closed arrive too late; they are dropped with it.
        let watches = |effect: &Effect| {
            matches!(
                effect,
                Effect::Look { .. } | Effect::Verify { .. } | Effect::Knock { .. }
            )
        };
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

/// Thousands, unless the environment asks for another number.
fn cases() -> u32 {
    let asked = std::env::var("PROPTEST_CASES").ok();
    asked.and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

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
        world.check_journal();
    }

    /// However often and however a gateway fails: no window holds more automatic launches than the budget allows, and the user's
    /// own launches are the only others.
    #[test]
    fn automatic_launches_are_bounded_in_every_window(
        hows in prop::collection::vec(any::<u8>(), 1..20), restarts in prop::collection::vec(0_u16..3_600, 0..3), stable in 1_u64..120,
        attach in any::<bool>(),
    ) {
        let mut config = config();
        config.attach = if attach { AttachMode::IfPresent } else { AttachMode::Never };
        config.reconnect.stable_after = seconds(stable);
        let budget = config.budget.clone();
        let mut world = World::new(config);
        world.start();
        let (mut turn, mut restarts) = (0, restarts);
        restarts.sort_unstable();
        while world.now < Time::ZERO + seconds(3_600) && turn < 5_000 {
            if restarts.first().is_some_and(|due| Time::ZERO + seconds(u64::from(*due)) <= world.now) {
                restarts.remove(0);
                world.restart();
                world.launched.push((world.now, false));
            }
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
        // A user's command empties the account, so windows are counted from there.
        let mut window: Vec<Time> = Vec::new();
        for (at, automatic) in &world.launched {
            if !automatic {
                window.clear();
                continue;
            }
            window.retain(|earlier| *earlier + budget.window > *at);
            window.push(*at);
            prop_assert!(window.len() <= budget.burst as usize, "{} launches in one window", window.len());
        }
    }
}

#[test]
fn the_machine_can_be_stored_and_compared() {
    let machine = World::running(config()).machine;
    assert_eq!(machine, machine.clone());
    assert_eq!(vec![machine.clone()].len(), 1);
    assert_eq!(machine.ledger().attempts(), 0);
}
