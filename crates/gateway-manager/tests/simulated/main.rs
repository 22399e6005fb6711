//! The manager on a machine that exists only in memory, under a clock that stands still until everybody waits: hours pass in
//! milliseconds, in the same order every time.
//!
//! This file has the scenes, each of which shows one thing. The random stories are made in `story`, played in `play` by the rules of
//! `rules`, and chosen by their seeds in `seeds`.

mod endings;
mod owners;
mod play;
mod rules;
mod seeds;
mod story;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_manager::GatewayStatus;
use gateway_manager::{
    FailureClass, GatewayManager, GatewayManagerBuilder, GatewayState, HookError, LaunchContext,
    LifecycleConfig, ManagerError, OpenClaw, Phase, PortChoice, PreparationHook,
};
use gateway_policy::liveness::Verdict;
use gateway_policy::{Input, Trigger};
use gateway_process::Environment;
use gateway_testkit::FakeGateway;
use gateway_testkit::FakeGatewayConfig;
use gateway_testkit::Vintage;
use gateway_testkit::scripted::{ChildPlan, Foreign, ForeignKind, Happening, Machine};
use tempfile::TempDir;

const PORT: u16 = 18_789;

/// A machine with a manager on it.
struct Scene {
    machine: Machine,
    state: TempDir,
    lifecycle: LifecycleConfig,
}

impl Scene {
    fn new(plans: impl IntoIterator<Item = ChildPlan>) -> Self {
        let machine = Machine::new();
        for plan in plans {
            machine.plan(plan);
        }
        Self {
            machine,
            state: TempDir::new().unwrap(),
            lifecycle: LifecycleConfig::default(),
        }
    }

    fn builder(&self) -> GatewayManagerBuilder {
        GatewayManager::builder()
            .openclaw(OpenClaw::Command {
                program: "openclaw".into(),
                args: Vec::new(),
            })
            .environment(Environment::empty())
            .state_dir(self.state.path())
            .port(PortChoice::Fixed(PORT))
            .token("simulated-token")
            .lifecycle(self.lifecycle.clone())
            .process_host(Arc::new(self.machine.host()))
            .transport(Arc::new(self.machine.transport()))
    }

    fn manager(&self) -> GatewayManager {
        self.builder().build().unwrap()
    }

    /// When children were spawned, in whole seconds.
    fn spawned_at(&self) -> Vec<u64> {
        let spawns = self.machine.records().into_iter();
        let spawns = spawns.filter(|record| matches!(record.happening, Happening::Spawned { .. }));
        spawns.map(|record| record.at.as_secs()).collect()
    }

    fn finish(&self) {
        assert_eq!(
            self.machine.living(),
            Vec::<u32>::new(),
            "somebody outlived the stop"
        );
        self.machine.assert_no_violations();
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn until(manager: &GatewayManager, state: GatewayState) {
    let mut status = manager.status();
    status
        .wait_for(|status| status.state == state)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_start_of_four_minutes_that_moves_is_one_launch() {
    let plan = (0..6_u64).fold(
        ChildPlan::default()
            .listens_after(seconds(220))
            .ready_after(seconds(20)),
        |plan, minute| plan.says(seconds(minute * 60), "still unpacking"),
    );
    let scene = Scene::new([plan]);
    let manager = scene.manager();
    let began = tokio::time::Instant::now();
    manager.start().await.unwrap();
    assert!(
        began.elapsed() >= seconds(240) && began.elapsed() < seconds(242),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(scene.spawned_at(), [0]);
    // Waiting leaves room in the journal for what it waits for.
    let journal = manager.journal();
    let first = journal.entries().next().unwrap();
    assert!(
        matches!(first.trigger, Trigger::Input(Input::Start(_))),
        "{} entries",
        journal.entries().count()
    );
    manager.stop().await.unwrap();
    scene.finish();
}

#[tokio::test(start_paused = true)]
async fn a_start_that_stands_still_is_replaced() {
    let scene = Scene::new([
        ChildPlan::default().never_listens().ignores_ask(),
        ChildPlan::default(),
    ]);
    let manager = scene.manager();
    manager.start().await.unwrap();
    // Two minutes of quiet, ten seconds of asking, one of back-off.
    assert_eq!(scene.spawned_at(), [0, 131]);
    manager.stop().await.unwrap();
    scene.finish();
}

#[tokio::test(start_paused = true)]
async fn crashes_back_off_and_are_given_up_by_the_clock() {
    let crash = || {
        ChildPlan::default()
            .never_listens()
            .exits_after(Duration::ZERO, 1)
    };
    let scene = Scene::new((0..20).map(|_| crash()));
    let manager = scene.manager();
    let Err(ManagerError::Failed(failure)) = manager.start().await else {
        panic!("it never ran")
    };
    assert!(failure.message.contains("code=1"), "{failure}");
    assert_eq!(
        scene.spawned_at(),
        [0, 1, 3, 7, 15, 31],
        "the start is answered when the budget is used up; three tries follow that lie far apart"
    );
    tokio::time::sleep(seconds(86_400)).await;
    let launches = [0, 1, 3, 7, 15, 31, 331, 1_231, 3_931];
    assert_eq!(
        scene.spawned_at(),
        launches,
        "what was given up stays given up"
    );
    let status = manager.status().borrow().clone();
    assert_eq!(status.phase, Phase::GaveUp);
    let failure = status.failure.unwrap();
    assert!(
        failure.message.contains("8 attempts in 3931 s"),
        "{failure}"
    );
    manager.stop().await.unwrap();
    scene.finish();
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_a_stable_hour_is_retried_at_once_and_forgiven() {
    let scene = Scene::new([
        ChildPlan::default().killed_after(seconds(3_600), 9),
        ChildPlan::default(),
    ]);
    let manager = scene.manager();
    manager.start().await.unwrap();
    let first = manager.status().borrow().pid;
    let mut status = manager.status();
    status
        .wait_for(|status| status.is_running() && status.pid != first)
        .await
        .unwrap();
    assert_eq!(scene.spawned_at(), [0, 3_600]);
    tokio::time::sleep(seconds(61)).await;
    assert_eq!(
        manager.status().borrow().attempts,
        0,
        "a minute of stability closes the episode"
    );
    manager.stop().await.unwrap();
    scene.finish();
}

#[tokio::test(start_paused = true)]
async fn a_quiet_day_costs_nothing() {
    let scene = Scene::new([]);
    let manager = scene.manager();
    manager.start().await.unwrap();
    let dialled = |scene: &Scene| {
        scene
            .machine
            .count(|happening| matches!(happening, Happening::Dialled { .. }))
    };
    let before = (dialled(&scene), manager.status().borrow().clone());
    tokio::time::sleep(seconds(86_400)).await;
    assert_eq!(
        (dialled(&scene), manager.status().borrow().clone()),
        before,
        "ticks are enough to know that it lives"
    );
    manager.stop().await.unwrap();
    scene.finish();
}

#[tokio::test(start_paused = true)]
async fn a_wedged_gateway_is_noticed_verified_and_replaced() {
    let wedged = ChildPlan {
        stall_after: Some(seconds(300)),
        ..ChildPlan::default()
    }
    .ignores_ask();
    let scene = Scene::new([wedged, ChildPlan::default()]);
    let manager = scene.manager();
    let began = tokio::time::Instant::now();
    manager.start().await.unwrap();
    let mut status = manager.status();
    let blocked = |status: &GatewayStatus| status.liveness == Some(Verdict::Blocked);
    status.wait_for(blocked).await.unwrap();
    assert!(began.elapsed() < seconds(300 + 71), "{:?}", began.elapsed());
    assert!(
        manager.status().borrow().is_running(),
        "nobody is condemned at the first sign"
    );
    until(&manager, GatewayState::Reconnecting).await;
    // Three minutes after the last tick, which came up to half a minute before.
    let condemned = began.elapsed();
    assert!(
        condemned > seconds(300 + 150) && condemned < seconds(300 + 201),
        "{condemned:?}"
    );
    until(&manager, GatewayState::Running).await;
    assert_eq!(scene.spawned_at().len(), 2);
    manager.stop().await.unwrap();
    scene.finish();
}

#[tokio::test(start_paused = true)]
async fn a_foreign_gateway_that_goes_away_makes_room() {
    let scene = Scene::new([]);
    let gateway = FakeGateway::start_in_memory(FakeGatewayConfig::new(Vintage::V2026_9_6));
    scene.machine.occupy(
        PORT,
        Foreign {
            pid: Some(7),
            program: Some("node".into()),
            kind: ForeignKind::Gateway(Box::new(gateway)),
        },
    );
    let manager = scene.manager();
    let Err(ManagerError::Failed(failure)) = manager.start().await else {
        panic!("the port is held")
    };
    assert!(failure.message.contains("node (pid 7)"), "{failure}");
    assert_eq!(manager.status().borrow().phase, Phase::WaitingForHolder);
    scene.machine.vacate(PORT);
    until(&manager, GatewayState::Running).await;
    manager.stop().await.unwrap();
    scene.finish();
}

/// The stop comes in the very moment in which a silent connection is given up, before or after the verdict.
#[tokio::test(start_paused = true)]
async fn a_stop_that_meets_a_verdict_is_carried_out() {
    let scene = || {
        Scene::new([ChildPlan {
            stall_after: Some(seconds(30)),
            ..ChildPlan::default()
        }])
    };
    let first = scene();
    let manager = first.manager();
    let began = tokio::time::Instant::now();
    manager.start().await.unwrap();
    until(&manager, GatewayState::Reconnecting).await;
    let verdict = began.elapsed();
    manager.stop().await.unwrap();
    for _ in 0..16 {
        let scene = scene();
        let manager = scene.manager();
        let began = tokio::time::Instant::now();
        manager.start().await.unwrap();
        tokio::time::sleep_until(began + verdict).await;
        let stopped = tokio::time::timeout(seconds(60), manager.stop()).await;
        stopped.expect("the stop never ends").unwrap();
        scene.finish();
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_ever_is_no_overflow() {
    let mut scene = Scene::new([]);
    scene.lifecycle.readiness.quiet = Duration::MAX;
    scene.lifecycle.readiness.total = Duration::MAX;
    scene.lifecycle.reconnect.stable_after = Duration::MAX;
    let manager = scene.manager();
    manager.start().await.unwrap();
    let handle = manager.clone();
    let never = tokio::spawn(async move { handle.restart_debounced(Some(Duration::MAX)).await });
    tokio::time::sleep(seconds(3_600)).await;
    assert!(manager.check_health().await.is_healthy());
    manager.stop().await.unwrap();
    assert!(matches!(
        never.await.unwrap(),
        Err(ManagerError::Superseded)
    ));
    assert_eq!(scene.spawned_at(), [0]);
    scene.finish();
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_a_child_that_cannot_be_ended_fails_once() {
    let unkillable = ChildPlan {
        unkillable: true,
        ..ChildPlan::default()
    };
    let scene = Scene::new([unkillable.ignores_ask()]);
    let manager = scene.manager();
    manager.start().await.unwrap();
    let restarted = tokio::time::timeout(seconds(60), manager.restart()).await;
    let Err(ManagerError::Failed(failure)) = restarted.expect("the restart never ends") else {
        panic!("it cannot be ended")
    };
    assert_eq!(failure.class, FailureClass::Unkillable);
    let before = scene.machine.records().len();
    tokio::time::sleep(seconds(3_600)).await;
    assert_eq!(
        scene.machine.records().len(),
        before,
        "a person has been told; nothing more happens by itself"
    );
    assert_eq!(manager.status().borrow().phase, Phase::Failed);
    assert_eq!(scene.spawned_at(), [0]);
}

/// A preparation step that goes wrong in a way of its own.
#[derive(Clone, Copy)]
enum BadStep {
    Panics { required: bool },
    ChangesAndFails,
}

#[async_trait]
impl PreparationHook for BadStep {
    fn name(&self) -> &str {
        "bad step"
    }

    fn is_required(&self) -> bool {
        matches!(self, Self::Panics { required: true })
    }

    async fn prepare(&self, context: &mut LaunchContext) -> Result<(), HookError> {
        context.environment().set("HALF_DONE", "yes");
        context.add_argument("--half-done");
        match self {
            Self::Panics { .. } => panic!("on purpose"),
            Self::ChangesAndFails => Err(HookError::new("on purpose")),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_preparation_step_that_panics_is_an_error_and_no_hang() {
    let scene = Scene::new([]);
    let step = BadStep::Panics { required: true };
    let manager = scene.builder().hook(step).build().unwrap();
    let started = tokio::time::timeout(seconds(60), manager.start()).await;
    let Err(ManagerError::Failed(failure)) = started.expect("the start never ends") else {
        panic!("the step is required")
    };
    assert!(
        failure.message.contains("'bad step' failed: it panicked"),
        "{failure}"
    );
    assert_eq!(scene.spawned_at(), Vec::<u64>::new());
    manager.stop().await.unwrap();
    scene.finish();
}

#[tokio::test(start_paused = true)]
async fn a_launch_does_not_see_what_a_failed_step_had_begun() {
    for step in [
        BadStep::Panics { required: false },
        BadStep::ChangesAndFails,
    ] {
        let scene = Scene::new([]);
        let manager = scene.builder().hook(step).build().unwrap();
        let started = tokio::time::timeout(seconds(60), manager.start()).await;
        started.expect("the start never ends").unwrap();
        let launched = scene.machine.count(|happening| {
            matches!(happening, Happening::Spawned { command, .. } if !command.contains("half-done"))
        });
        assert_eq!(launched, 1);
        manager.stop().await.unwrap();
        scene.finish();
    }
}

// Random stories.

/// How many stories are played unless somebody asks for another number.
const DEFAULT_SEEDS: u64 = 250;

/// A number that somebody set in the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Whatever the children do and whatever the users ask for: never two of them, every command answered, nothing left.
///
/// `GATEWAY_SIMULATION_SEED` plays one seed and tells its story; `GATEWAY_SIMULATION_SEEDS` sets how many are played. The row
/// `simulation` of the test matrix plays thousands.
#[test]
fn stories_by_seed() {
    match number("GATEWAY_SIMULATION_SEED") {
        Some(seed) => seeds::tell(seed),
        None => {
            let seeds = number("GATEWAY_SIMULATION_SEEDS").unwrap_or(DEFAULT_SEEDS);
            let began = std::time::Instant::now();
            let reached = seeds::play_all(0..seeds);
            println!("simulation: {seeds} seeds in {:.1?}", began.elapsed());
            // Stories that lead nowhere would show nothing.
            let missed: Vec<_> = rules::REACHED
                .iter()
                .filter(|rule| !reached.contains(*rule))
                .collect();
            assert!(
                seeds < DEFAULT_SEEDS || missed.is_empty(),
                "no story led to {missed:?}"
            );
        }
    }
}

/// What a seed showed once it shows again: same events at the same times, same decisions, same answers.
#[test]
fn a_seed_is_the_same_story_every_time() {
    for seed in 0..number("GATEWAY_SIMULATION_TWICE").unwrap_or(50) {
        seeds::assert_repeats(seed);
    }
}
