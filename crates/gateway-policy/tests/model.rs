//! Every interleaving, up to a depth: a user with commands, a child that may crash or refuse to end, a socket that may drop,
//! answers that may be good or bad, and timers that fire whenever they may.
//!
//! The depth is `GATEWAY_MODEL_DEPTH`; its default takes seconds in a test build. The number of states is printed.

use core::time::Duration;
use std::collections::BTreeMap;

use gateway_policy::lifecycle::{AttachMode, ConnectionLoss, PortHolder};
use gateway_policy::status::{SessionFacts, Ticket, TicketOutcome};
use gateway_policy::{
    Effect, Epoch, Failure, FailureClass, GatewayState, Input, Lifecycle, LifecycleConfig,
    Observation, Phase, Time,
};
use stateright::{Checker, HasDiscoveries, Model, Property};

const DEFAULT_DEPTH: usize = 12;

/// What a user can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Verb {
    Start,
    Stop,
    Restart,
    Debounced,
}

/// One step of the world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Act {
    Command(Verb),
    /// The n-th open effect is answered, well or in one of the bad ways.
    Answer(usize, Reply),
    Crash(FailureClass),
    SocketLost,
    Timer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reply {
    Good,
    Bad(FailureClass),
    ForeignPort,
}

/// The machine and the world around it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    machine: Lifecycle,
    now: Time,
    /// Effects that wait for an answer, with their epochs.
    open: Vec<(Epoch, Effect)>,
    child: Option<Epoch>,
    connection: Option<Epoch>,
    commands_left: u8,
    faults_left: u8,
    /// Which tickets have been answered.
    tickets: BTreeMap<Ticket, bool>,
    /// The first invariant that was broken, in words.
    broken: Option<&'static str>,
}

/// The words, when the invariant does not hold.
fn must(holds: bool, what: &'static str) -> Option<&'static str> {
    (!holds).then_some(what)
}

fn lost(failure: Failure) -> Observation {
    Observation::Disconnected(ConnectionLoss {
        failure,
        back_within: None,
    })
}

impl World {
    fn feed(&mut self, input: Input) {
        self.machine.handle(self.now, input);
        self.drain();
    }

    fn observe(&mut self, epoch: Epoch, observation: Observation) {
        self.feed(Input::Observed { epoch, observation });
    }

    fn drain(&mut self) {
        while let Some(effect) = self.machine.poll_effect() {
            self.accept(effect);
        }
        let status = self.machine.status();
        let nothing_left = self.child.is_none() && self.connection.is_none();
        let quiet = self.open.is_empty() && self.machine.poll_timeout().is_none();
        let calm = matches!(status.state, GatewayState::Running | GatewayState::Stopped);
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
                status.phase != Phase::Stopped || (nothing_left && quiet),
                "stopped, and something is left",
            ),
            must(
                !calm || status.failure.is_none(),
                "a failure beside running or stopped",
            ),
        ];
        self.broken = self.broken.or(invariants.into_iter().flatten().next());
    }

    fn accept(&mut self, effect: Effect) {
        let is = |kind: fn(&Effect) -> bool| self.open.iter().any(|(_, open)| kind(open));
        let nothing_left = self.child.is_none() && self.connection.is_none();
        let (epoch, broken) = match &effect {
            Effect::PublishStatus(_) | Effect::IgnoredStale { .. } => return,
            Effect::Answer { ticket, outcome } => {
                let broken = match self.tickets.insert(*ticket, true) {
                    Some(false) => must(
                        *outcome != TicketOutcome::Stopped || nothing_left,
                        "answered as stopped, and something is left",
                    ),
                    Some(true) => Some("a ticket was answered twice"),
                    None => Some("an answer without a ticket"),
                };
                self.broken = self.broken.or(broken);
                return;
            }
            Effect::Cancel { epoch } => {
                // A repair that is called off still ends with an answer.
                let stays = |effect: &Effect| matches!(effect, Effect::Repair { .. });
                self.open
                    .retain(|(open, effect)| open != epoch || stays(effect));
                return;
            }
            Effect::Discover { epoch } | Effect::Prepare { epoch } => (*epoch, None),
            Effect::Spawn { epoch } => {
                let busy = is(|open| matches!(open, Effect::Spawn { .. } | Effect::Repair { .. }));
                let alone = self.child.is_none() && !busy;
                (
                    *epoch,
                    must(alone, "a launch beside a child, a launch or a repair"),
                )
            }
            Effect::Repair { epoch } => (
                *epoch,
                must(self.child.is_none(), "a repair beside a child"),
            ),
            Effect::Connect { epoch, .. } => {
                let busy = is(|open| matches!(open, Effect::Connect { .. }));
                let alone = self.connection.is_none() && !busy;
                (*epoch, must(alone, "a second connection"))
            }
            Effect::Disconnect { connection, .. }
            | Effect::CheckSilence { connection }
            | Effect::Verify { connection, .. } => (
                *connection,
                must(
                    self.connection == Some(*connection),
                    "about a connection that is not there",
                ),
            ),
            Effect::Terminate { child, .. } => {
                let fits = self.child == Some(*child) && self.connection.is_none();
                (
                    *child,
                    must(
                        fits,
                        "a signal to nobody, or to a child with its socket open",
                    ),
                )
            }
        };
        self.broken = self.broken.or(broken);
        self.open.push((epoch, effect));
    }

    fn answer(&mut self, at: usize, reply: Reply) {
        let (epoch, effect) = self.open.remove(at);
        let good = reply == Reply::Good;
        let failure = match reply {
            Reply::Bad(class) => Failure::new(class, class.name()),
            Reply::Good | Reply::ForeignPort => Failure::new(FailureClass::Temporary, "lost"),
        };
        let observation = match (effect, reply) {
            (Effect::Discover { .. }, Reply::ForeignPort) => {
                Observation::ForeignFound(PortHolder::default())
            }
            (Effect::Discover { .. }, Reply::Good) => Observation::PortFree,
            (Effect::Discover { .. }, Reply::Bad(_)) => {
                Observation::GatewayFound(PortHolder::default())
            }
            (Effect::Prepare { .. }, _) if good => Observation::Prepared,
            (Effect::Prepare { .. }, _) => Observation::PreparationFailed(failure),
            (Effect::Spawn { .. }, _) if good => {
                self.child = Some(epoch);
                Observation::Spawned { pid: 7 }
            }
            (Effect::Spawn { .. }, _) => Observation::SpawnFailed(failure),
            (Effect::Connect { .. }, _) if good => {
                self.connection = Some(epoch);
                Observation::Connected(SessionFacts::new(4, "", None))
            }
            (Effect::Connect { .. }, _) => Observation::ConnectFailed(failure),
            (Effect::Terminate { .. }, _) if good => {
                self.child = None;
                Observation::Exited(failure)
            }
            (Effect::Terminate { .. }, _) => Observation::TerminationFailed(failure),
            (Effect::Repair { .. }, _) if good => Observation::Repaired,
            (Effect::Repair { .. }, _) => Observation::RepairFailed(failure),
            // A close always comes to its end, and with it the watch over that connection.
            _ => {
                self.lose_connection(epoch);
                lost(failure)
            }
        };
        self.observe(epoch, observation);
    }

    fn lose_connection(&mut self, epoch: Epoch) {
        self.connection = None;
        self.open.retain(|(open, _)| *open != epoch);
    }
}

/// The bounds of one exploration.
struct Bounds {
    attach: AttachMode,
    commands: u8,
    faults: u8,
}

/// Failures of a handshake, one for each road.
const ROADS: [FailureClass; 6] = [
    FailureClass::Configuration,
    FailureClass::InvalidSettings,
    FailureClass::Credentials,
    FailureClass::PairingRequired,
    FailureClass::NotListening,
    FailureClass::Temporary,
];

/// What a crash can amount to, one for each road.
const CRASHES: [FailureClass; 3] = [
    FailureClass::Configuration,
    FailureClass::PortHeld,
    FailureClass::Temporary,
];

impl Model for Bounds {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        let mut config = LifecycleConfig::default();
        config.attach = self.attach;
        config.reconnect.max_attempts = 2;
        config.holder.max_attempts = 1;
        vec![World {
            machine: Lifecycle::new(config),
            now: Time::ZERO,
            open: Vec::new(),
            child: None,
            connection: None,
            commands_left: self.commands,
            faults_left: self.faults,
            tickets: BTreeMap::new(),
            broken: None,
        }]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        if world.commands_left > 0 {
            let verbs = [Verb::Start, Verb::Stop, Verb::Restart, Verb::Debounced];
            acts.extend(verbs.map(Act::Command));
        }
        if world.machine.poll_timeout().is_some() {
            acts.push(Act::Timer);
        }
        let faulty = world.faults_left > 0;
        for (at, (_, effect)) in world.open.iter().enumerate() {
            let bad: &[Reply] = match effect {
                // What an open connection says about itself is covered by its loss.
                Effect::CheckSilence { .. } | Effect::Verify { .. } => continue,
                Effect::Disconnect { .. } => &[],
                Effect::Discover { .. } => {
                    &[Reply::ForeignPort, Reply::Bad(FailureClass::Temporary)]
                }
                Effect::Connect { .. } => &ROADS.map(Reply::Bad),
                _ => &[Reply::Bad(FailureClass::Temporary)],
            };
            acts.push(Act::Answer(at, Reply::Good));
            acts.extend(
                bad.iter()
                    .filter(|_| faulty)
                    .map(|reply| Act::Answer(at, *reply)),
            );
        }
        if faulty && world.child.is_some() {
            acts.extend(CRASHES.map(Act::Crash));
        }
        let is_close = |effect: &Effect| matches!(effect, Effect::Disconnect { .. });
        let closing = world.open.iter().any(|(_, effect)| is_close(effect));
        if faulty && world.connection.is_some() && !closing {
            acts.push(Act::SocketLost);
        }
    }

    fn next_state(&self, before: &World, act: Act) -> Option<World> {
        let mut world = before.clone();
        match act {
            Act::Command(verb) => {
                world.commands_left -= 1;
                let ticket = Ticket::from_number(u64::from(world.commands_left));
                world.tickets.insert(ticket, false);
                world.feed(match verb {
                    Verb::Start => Input::Start(ticket),
                    Verb::Stop => Input::Stop(ticket),
                    Verb::Restart => Input::Restart(ticket),
                    Verb::Debounced => Input::RestartDebounced {
                        ticket,
                        delay: Duration::from_secs(2),
                    },
                });
            }
            Act::Answer(at, reply) => {
                world.faults_left -= u8::from(reply != Reply::Good);
                world.answer(at, reply);
            }
            Act::Crash(class) => {
                world.faults_left -= 1;
                let epoch = world.child.take()?;
                let is_end = |effect: &Effect| matches!(effect, Effect::Terminate { .. });
                world.open.retain(|(_, effect)| !is_end(effect));
                world.observe(
                    epoch,
                    Observation::Exited(Failure::new(class, class.name())),
                );
            }
            Act::SocketLost => {
                world.faults_left -= 1;
                let epoch = world.connection?;
                world.lose_connection(epoch);
                world.observe(epoch, lost(Failure::new(FailureClass::Temporary, "lost")));
            }
            Act::Timer => {
                world.now = world.machine.poll_timeout()?.max(world.now);
                world.machine.handle_timeout(world.now);
                world.drain();
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no invariant is broken", |_, world: &World| {
                world.broken.is_none()
            }),
            Property::always(
                "when nothing is under way, every ticket was answered",
                |_, world: &World| {
                    let settled = world.open.is_empty() && world.machine.poll_timeout().is_none();
                    !settled || world.tickets.values().all(|answered| *answered)
                },
            ),
            Property::sometimes("it runs", |_, world: &World| {
                world.machine.status().is_running()
            }),
            Property::sometimes("it gives up or fails", |_, world: &World| {
                world.machine.status().state == GatewayState::Error
            }),
            Property::sometimes("it is stopped again", |_, world: &World| {
                world.machine.status().phase == Phase::Stopped && world.tickets.len() > 1
            }),
        ]
    }
}

#[test]
fn every_interleaving_keeps_the_invariants() {
    let depth = std::env::var("GATEWAY_MODEL_DEPTH")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(DEFAULT_DEPTH);
    for attach in [AttachMode::Never, AttachMode::IfPresent] {
        let bounds = Bounds {
            attach,
            commands: 3,
            faults: 3,
        };
        let began = std::time::Instant::now();
        let checker = bounds
            .checker()
            .target_max_depth(depth)
            .threads(2)
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        println!(
            "model, attach {attach:?}: {} states, {} of them distinct, depth {}, {:.1} s",
            checker.state_count(),
            checker.unique_state_count(),
            checker.max_depth(),
            began.elapsed().as_secs_f64(),
        );
        checker.assert_properties();
    }
}
