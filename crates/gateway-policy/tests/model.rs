//! Every interleaving of a bounded world: two users with commands of their own, a child that may crash, hang, refuse to end and
//! exit late, a socket that may drop at any step, a gateway that announces what it does or does not, repairs that fail, ports that
//! others hold, timers that fire at their time or late.
//!
//! States that differ only in names, and in times that have no consequences, are one state, so the whole space of a bound can be
//! seen, however long its histories are. From every state the world is also played on with all faults over: then a wanted gateway
//! has to come up and every command has to be answered.
//!
//! `GATEWAY_MODEL=small|row|deep` chooses the bounds; `GATEWAY_MODEL_DEPTH` cuts histories off. What was seen is printed.

mod world;

use gateway_policy::lifecycle::{AttachMode, ShutdownNotice};
use gateway_policy::status::SessionFacts;
use gateway_policy::{
    Effect, Epoch, FailureClass, Input, JournalEntry, Observation, Phase, Trigger,
};
use stateright::{Checker, HasDiscoveries, Model, Property};

use world::{Act, Bounds, Reply, Verb, World, failure, lost, must};

impl World {
    /// Plays on without faults until nothing more has to happen.
    fn be_kind(&mut self) -> Option<&'static str> {
        for _ in 0..300 {
            let phase = self.machine.status().phase;
            let at_rest = matches!(
                phase,
                Phase::Ready | Phase::Stopped | Phase::Failed | Phase::GaveUp
            );
            if !self.open.is_empty() {
                self.answer(0, Reply::Good);
            } else if at_rest && self.all_answered() {
                return self.broken;
            } else {
                self.fire(false);
            }
        }
        Some("it does not come to rest although everything goes well")
    }

    /// With all faults over: a wanted gateway comes up or has told a person why not; whoever asks then gets one; whoever wants
    /// none gets that.
    fn kind_future(&self) -> Option<&'static str> {
        let mut world = self.clone();
        if let Some(broken) = world.be_kind() {
            return Some(broken);
        }
        let phase = world.machine.status().phase;
        let at_last = match (world.machine.wants_running(), phase) {
            (true, Phase::Ready | Phase::Failed | Phase::GaveUp) => None,
            (true, _) => Some("wanted, everything goes well, and it does not run"),
            // A child that refused to end is the one thing that may be left.
            (false, Phase::Failed) => must(world.child.is_some(), "failed, and nothing is left"),
            (false, _) => must(phase == Phase::Stopped, "not wanted, and not stopped"),
        };
        for (verb, phase) in [(Verb::Start, Phase::Ready), (Verb::Stop, Phase::Stopped)] {
            world.command(verb);
            if let Some(broken) = world.be_kind() {
                return Some(broken);
            }
            if world.machine.status().phase != phase {
                return Some("a user's command does not lead where it should");
            }
        }
        at_last
    }

    /// News of something that is gone change nothing.
    fn minds_stale_news(&self) -> bool {
        let stale = Epoch::from_number(u64::MAX);
        [
            Observation::Exited(failure(FailureClass::Configuration)),
            lost(ShutdownNotice::Stop),
            Observation::Connected(SessionFacts::new(3, "", None)),
            Observation::PortFree,
        ]
        .into_iter()
        .any(|observation| {
            let mut machine = self.machine.clone();
            let input = Input::Observed {
                epoch: stale,
                observation,
            };
            let entry = JournalEntry::of(&mut machine, self.now, Trigger::Input(input));
            entry.effects != [Effect::IgnoredStale { epoch: stale }] || machine != self.machine
        })
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        acts.extend(Self::actions(self, world));
    }

    fn next_state(&self, before: &World, act: Act) -> Option<World> {
        let mut world = before.clone().perform(act)?;
        // Millions of worlds wait for their turn, and nobody asks how they came about.
        world.newest = None;
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no invariant is broken", |_, world: &World| {
                world.broken.is_none()
            }),
            Property::always(
                "when faults cease, a wanted gateway comes up and every ticket is answered exactly once",
                |_, world: &World| world.kind_future().is_none(),
            ),
            Property::always("news of what is gone change nothing", |_, world: &World| {
                !world.minds_stale_news()
            }),
            Property::sometimes("it runs", |_, world: &World| {
                world.machine.status().is_running()
            }),
            Property::sometimes("it gives up", |_, world: &World| {
                world.machine.status().phase == Phase::GaveUp
            }),
            Property::sometimes("it fails for good", |_, world: &World| {
                world.machine.status().phase == Phase::Failed
            }),
            Property::sometimes("it is stopped again", |_, world: &World| {
                world.machine.status().phase == Phase::Stopped && world.tickets.len() > 1
            }),
            Property::sometimes("it restarts in place", |_, world: &World| {
                world.machine.status().phase == Phase::Restarting
            }),
        ]
    }
}

/// What is explored under a name: bounds, and where histories are cut off. Without a cut the whole space is seen.
fn explorations(name: &str) -> Vec<(Bounds, Option<usize>)> {
    // Commands of each user, faults, steps.
    let kinds: &[(u8, u8, Option<usize>)] = match name {
        "" | "small" => &[(1, 1, None)],
        "row" => &[(1, 2, None), (3, 3, Some(14))],
        "deep" => &[(1, 3, None), (3, 4, Some(14))],
        other => panic!("GATEWAY_MODEL is {other:?}; it may be small, row or deep"),
    };
    let modes = [AttachMode::Never, AttachMode::IfPresent, AttachMode::Only];
    let bounds = modes.into_iter().flat_map(|attach| {
        kinds.iter().map(move |&(commands, faults, depth)| {
            let bounds = Bounds {
                attach,
                commands,
                faults,
            };
            (bounds, depth)
        })
    });
    // One fault is not enough to give up on what may only be attached to.
    let tells = |bounds: &Bounds| bounds.attach != AttachMode::Only || bounds.faults > 1;
    bounds.filter(|(bounds, _)| tells(bounds)).collect()
}

#[test]
fn every_interleaving_keeps_the_invariants() {
    let variable = |name| std::env::var(name).ok();
    let cut: Option<usize> = variable("GATEWAY_MODEL_DEPTH").and_then(|text| text.parse().ok());
    for (bounds, depth) in explorations(&variable("GATEWAY_MODEL").unwrap_or_default()) {
        let began = std::time::Instant::now();
        let mut builder = bounds
            .checker()
            .threads(2)
            .finish_when(HasDiscoveries::AnyFailures);
        let depth = cut.or(depth);
        if let Some(depth) = depth {
            builder = builder.target_max_depth(depth);
        }
        let checker = builder.spawn_bfs().join();
        println!(
            "model, {bounds:?}: {} states, {} of them distinct, histories of up to {} steps{}, {:.1} s",
            checker.state_count(),
            checker.unique_state_count(),
            checker.max_depth(),
            if depth.is_none() { ", all of them" } else { "" },
            began.elapsed().as_secs_f64(),
        );
        for property in [
            "no invariant is broken",
            "when faults cease, a wanted gateway comes up and every ticket is answered exactly once",
        ] {
            if let Some(path) = checker.discovery(property) {
                let end = path.last_state().clone();
                panic!(
                    "{property}: {:?} / {:?}\nafter {:#?}",
                    end.broken,
                    end.kind_future(),
                    path.into_actions()
                );
            }
        }
        checker.assert_properties();
    }
}
