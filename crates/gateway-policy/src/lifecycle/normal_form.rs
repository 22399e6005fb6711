//! Machines that behave alike from now on, made equal: what a model checker needs to know that it has been here before.

use alloc::collections::BTreeMap;

use super::{Lifecycle, Rule, Step, Watch};
use crate::Time;
use crate::epoch::{Epoch, EpochCounter};
use crate::status::Ticket;

/// What `now` is called in a normal form: late enough for every age that matters, and for the same age always the same.
const ORIGIN: Time = Time::from_millis(1 << 40);

/// A machine without what does not matter for its future, and the new names of what it waits for.
///
/// Two machines with equal normal forms do the same from now on, names and texts of messages aside.
#[derive(Clone, Debug)]
pub struct NormalForm {
    /// The machine on a clock on which now is always the same time, with its epochs and tickets counted from one.
    pub machine: Lifecycle,
    /// The new number of each epoch that it would still hear; all others are stale.
    pub epochs: BTreeMap<Epoch, u64>,
    /// The new number of each ticket that it still has to answer.
    pub tickets: BTreeMap<Ticket, u64>,
}

impl Lifecycle {
    /// The machine with everything removed that has no consequences: where the clock stands, how many epochs, tickets and processes
    /// there were before, which rules fired, the texts of failures, the history that is only told.
    ///
    /// Between two inputs only: effects that have not been polled are kept as they are.
    #[must_use]
    pub fn normal_form(&self, now: Time) -> NormalForm {
        let mut machine = self.clone();
        let (mut epochs, mut tickets) = (BTreeMap::new(), BTreeMap::new());
        {
            let mut rename = |epoch: &mut Epoch| {
                let next = epochs.len() as u64 + 1;
                *epoch = Epoch::from_number(*epochs.entry(*epoch).or_insert(next));
            };
            if let Some(child) = &mut machine.child {
                rename(&mut child.epoch);
                child.pid = 1;
            }
            match &mut machine.step {
                Step::Discovering(epoch)
                | Step::Preparing(epoch)
                | Step::Spawning(epoch)
                | Step::Connecting(epoch)
                | Step::Disconnecting(epoch)
                | Step::Repairing { epoch, .. } => rename(epoch),
                Step::Connected(session) => rename(&mut session.epoch),
                Step::Idle | Step::Terminating | Step::Waiting { .. } | Step::Halted(_) => {}
            }
        }
        machine.epochs = EpochCounter::continuing_after(epochs.len() as u64);
        {
            let mut rename = |ticket: &mut Ticket| {
                let next = tickets.len() as u64 + 1;
                *ticket = Ticket::from_number(*tickets.entry(*ticket).or_insert(next));
            };
            let waiting = machine.starts.iter_mut().chain(&mut machine.stops);
            waiting
                .chain(machine.restarts.tickets_mut())
                .for_each(&mut rename);
        }
        let shift = |time: &mut Time| *time = time.rebase(now, ORIGIN);
        match &mut machine.step {
            Step::Waiting { until, .. } => shift(until),
            Step::Connected(session) => {
                session.since = ORIGIN;
                if let Watch::LookAt(at) = &mut session.watch {
                    shift(at);
                }
                session.stable_at.iter_mut().for_each(shift);
            }
            Step::Halted(Some(gave_up)) => {
                gave_up.history.clear();
                gave_up.lasted = core::time::Duration::ZERO;
            }
            _ => {}
        }
        machine.attached_back_by.iter_mut().for_each(shift);
        if let Some(wait) = &mut machine.readiness {
            wait.rebase(now, ORIGIN);
        }
        machine.restarts.normalize(now, ORIGIN);
        let budget = machine.config.budget.clone();
        machine.ledger.normalize(&budget, now, ORIGIN);
        if let Some(failure) = &mut machine.failure {
            failure.message.clear();
        }
        if let Some(super::Teardown {
            then: super::Then::Fail(failure),
            ..
        }) = &mut machine.teardown
        {
            failure.message.clear();
        }
        machine.rules.retain(|_: &Rule| false);
        machine.published = machine.status();
        NormalForm {
            machine,
            epochs,
            tickets,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::super::world::{World, config, failure, loss, seconds, temporary};
    use super::super::{Lifecycle, LifecycleConfig, Observation, ShutdownNotice};
    use super::*;
    use crate::failure::FailureClass;
    use crate::status::Phase;

    fn form(world: &World) -> Lifecycle {
        world.machine.normal_form(world.now).machine
    }

    /// A world in which much has happened that has no consequences any more.
    fn with_a_past() -> World {
        let mut world = World::running(config());
        world.pass(seconds(3_600));
        world.be_kind();
        world.restart();
        world.be_kind();
        world.stop();
        world.be_kind();
        world.pass(seconds(10_000));
        world
    }

    type Walk = fn(&mut World);

    /// What leads to each kind of state.
    const PATHS: &[(Phase, Walk)] = &[
        (Phase::Stopped, |_| {}),
        (Phase::Discovering, |world| {
            world.start();
        }),
        (Phase::Preparing, |world| {
            world.start();
            world.port_free();
        }),
        (Phase::Listening, |world| {
            world.start();
            world.launch_child();
        }),
        (Phase::Ready, |world| {
            world.start();
            world.launch();
            world.restart_debounced(60_000);
            world.pass(seconds(20));
        }),
        (Phase::Stopping, |world| {
            world.start();
            world.launch();
            world.stop();
            world.start();
        }),
        (Phase::BackingOff, |world| {
            world.start();
            world.launch_child();
            world.exits(temporary());
            world.pass(Duration::from_millis(300));
        }),
        (Phase::Repairing, |world| {
            world.start();
            world.launch_child();
            world.exits(failure(FailureClass::Configuration));
        }),
        (Phase::Restarting, |world| {
            world.start();
            world.launch();
            let expected = seconds(2);
            world.socket_lost(ShutdownNotice::Restart { expected });
        }),
        (Phase::Failed, |world| {
            world.start();
            world.launch_child();
            world.exits(failure(FailureClass::InvalidSettings));
        }),
        (Phase::GaveUp, |world| {
            world.start();
            while world.status().phase != Phase::GaveUp {
                world.launch_child();
                world.exits(temporary());
                world.pass(seconds(2_700));
            }
        }),
    ];

    #[test]
    fn a_past_without_consequences_makes_no_difference() {
        for (phase, walk) in PATHS {
            let (mut young, mut old) = (World::new(config()), with_a_past());
            walk(&mut young);
            walk(&mut old);
            assert_eq!(young.status().phase, *phase);
            assert_ne!(young.machine, old.machine, "{phase}");
            assert_eq!(form(&young), form(&old), "{phase}");
            // The names of what is waited for fit.
            let (young, old) = (
                young.machine.normal_form(young.now),
                old.machine.normal_form(old.now),
            );
            assert!(young.epochs.values().eq(old.epochs.values()), "{phase}");
            assert!(young.tickets.values().eq(old.tickets.values()), "{phase}");
            assert_eq!(
                young.tickets.len(),
                young.tickets.values().copied().max().unwrap_or(0) as usize
            );
            assert!(
                young
                    .epochs
                    .values()
                    .copied()
                    .min()
                    .is_none_or(|first| first == 1)
            );
            let hears = |epoch: &Epoch| {
                young
                    .machine
                    .expects(Epoch::from_number(young.epochs[epoch]))
            };
            assert!(young.epochs.keys().all(hears), "{phase}");
        }
    }

    #[test]
    fn what_has_consequences_makes_a_difference() {
        let after = |walk: &dyn Fn(&mut World)| {
            let mut world = World::new(LifecycleConfig::default());
            walk(&mut world);
            form(&world)
        };
        let crashed = |passed: u64| {
            move |world: &mut World| {
                world.start();
                world.launch_child();
                world.exits(temporary());
                world.pass(Duration::from_millis(passed));
            }
        };
        let running = |passed: u64| {
            move |world: &mut World| {
                world.start();
                world.launch();
                world.pass(Duration::from_millis(passed));
            }
        };
        let starting = |passed: u64| {
            move |world: &mut World| {
                world.start();
                world.launch_child();
                world.pass(Duration::from_millis(passed));
            }
        };
        let launched_again = |passed: u64| {
            move |world: &mut World| {
                crashed(1_000)(world);
                world.launch();
                world.pass(seconds(60));
                world.be_kind();
                world.pass(seconds(passed));
                world.be_kind();
            }
        };
        let delayed = |delay: u64| {
            move |world: &mut World| {
                running(0)(world);
                world.restart_debounced(delay);
            }
        };
        let pairs = [
            (
                after(&crashed(1)),
                after(&crashed(2)),
                "time to the next attempt",
            ),
            (
                after(&running(1)),
                after(&running(2)),
                "time to the next look",
            ),
            (
                after(&starting(1)),
                after(&starting(2)),
                "patience with a start",
            ),
            (
                after(&delayed(1)),
                after(&delayed(2)),
                "time to a delayed restart",
            ),
            (
                after(&launched_again(0)),
                after(&launched_again(300)),
                "a launch in the window",
            ),
            (
                after(&|world: &mut World| {
                    running(0)(world);
                    world.restart();
                }),
                after(&|world: &mut World| {
                    running(0)(world);
                    world.restart();
                    world.restart();
                }),
                "a ticket that waits",
            ),
        ];
        for (one, other, what) in pairs {
            assert_ne!(one, other, "{what}");
        }
        // What is over is over: the look that was answered, the launch that left the window.
        assert_eq!(
            after(&launched_again(300)),
            after(&launched_again(360)),
            "a launch that left the window"
        );
    }

    #[test]
    fn texts_make_no_difference() {
        let lost = |message: &str| {
            let mut world = World::running(config());
            let connection = world.connection.take().expect("a connection");
            let mut loss = loss(ShutdownNotice::None);
            loss.failure.message = message.into();
            world.observe(connection, Observation::Disconnected(loss));
            world
        };
        assert_ne!(lost("one").machine, lost("other").machine);
        assert_eq!(form(&lost("one")), form(&lost("other")));
        let ending = |message: &str| {
            let mut world = World::running(config());
            let mut failure = temporary();
            failure.message = message.into();
            world.exits(failure);
            world
        };
        assert_eq!(form(&ending("one")), form(&ending("other")));
    }
}
