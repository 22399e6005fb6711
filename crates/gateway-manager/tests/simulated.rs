//! The manager on a machine that exists only in memory, under a clock that stands still until everybody waits: hours pass in
//! milliseconds, in the same order every time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_manager::GatewayStatus;
use gateway_manager::{
    AttachMode, FailureClass, GatewayManager, GatewayManagerBuilder, GatewayState, HookError,
    LaunchContext, LifecycleConfig, ManagerError, OpenClaw, Phase, PortChoice, PreparationHook,
};
use gateway_policy::liveness::Verdict;
use gateway_policy::{Input, Trigger};
use gateway_process::Environment;
use gateway_testkit::FakeGateway;
use gateway_testkit::FakeGatewayConfig;
use gateway_testkit::Vintage;
use gateway_testkit::scripted::{ChildPlan, Foreign, ForeignKind, Happening, Machine, Record};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
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

#[derive(Clone, Debug)]
enum Act {
    Start,
    Stop,
    Restart,
    Debounced(u8),
    Pass(u16),
    DropSockets,
    RestartInProcess,
    Stall,
    Call,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Start),
        1 => Just(Act::Stop),
        1 => Just(Act::Restart),
        1 => any::<u8>().prop_map(Act::Debounced),
        4 => any::<u16>().prop_map(Act::Pass),
        1 => Just(Act::DropSockets),
        1 => Just(Act::RestartInProcess),
        1 => Just(Act::Stall),
        1 => Just(Act::Call),
    ]
}

fn plan() -> impl Strategy<Value = ChildPlan> {
    let milliseconds = |most: u64| (0..most).prop_map(Duration::from_millis);
    let kinds = (
        milliseconds(5_000),
        milliseconds(3_000),
        milliseconds(200_000),
        any::<i32>(),
    );
    (0_u8..8, kinds).prop_map(|(kind, (listen, ready, end, code))| {
        let plan = ChildPlan::default()
            .listens_after(listen)
            .ready_after(ready);
        match kind {
            0 => plan.exits_after(end, code % 90),
            1 => plan.killed_after(end, 9),
            2 => plan.never_listens().exits_after(end, 1),
            3 => plan.ignores_ask(),
            4 => plan.vintage(Vintage::V2026_3_2),
            _ => plan,
        }
    })
}

/// Everything that a story depends on.
#[derive(Clone, Debug)]
struct Story {
    acts: Vec<Act>,
    plans: Vec<ChildPlan>,
    attach: AttachMode,
}

fn story() -> impl Strategy<Value = Story> {
    let acts = prop::collection::vec(act(), 0..40);
    let plans = prop::collection::vec(plan(), 0..12);
    let attach = prop_oneof![Just(AttachMode::Never), Just(AttachMode::IfPresent)];
    (acts, plans, attach).prop_map(|(acts, plans, attach)| Story {
        acts,
        plans,
        attach,
    })
}

/// Plays a story to its end; gives what happened on the machine.
async fn play(story: Story) -> Vec<Record> {
    let mut scene = Scene::new(story.plans);
    scene.lifecycle.attach = story.attach;
    let manager = scene.manager();
    let mut commands = Vec::new();
    for act in story.acts {
        let handle = manager.clone();
        match act {
            Act::Start => commands.push(tokio::spawn(async move { handle.start().await })),
            Act::Stop => commands.push(tokio::spawn(async move { handle.stop().await })),
            Act::Restart => commands.push(tokio::spawn(async move { handle.restart().await })),
            Act::Debounced(delay) => {
                let delay = Some(Duration::from_millis(u64::from(delay) * 40));
                commands.push(tokio::spawn(async move {
                    handle.restart_debounced(delay).await
                }));
            }
            Act::Pass(milliseconds) => {
                tokio::time::sleep(Duration::from_millis(u64::from(milliseconds) * 2)).await
            }
            Act::Call => {
                commands.push(tokio::spawn(async move {
                    handle
                        .call::<_, Value>("health", &json!({}))
                        .await
                        .map(drop)
                }));
            }
            Act::DropSockets => {
                if let Some(gateway) = scene.machine.gateway(PORT) {
                    gateway.drop_connections();
                }
            }
            Act::RestartInProcess => {
                if let Some(gateway) = scene.machine.gateway(PORT) {
                    gateway.begin_restart();
                }
            }
            Act::Stall => {
                if let Some(gateway) = scene.machine.gateway(PORT) {
                    gateway.stall();
                }
            }
        }
        // The command is on its way before the next act.
        tokio::task::yield_now().await;
        let status = manager.status().borrow().clone();
        assert!(
            !status.is_running() || status.failure.is_none(),
            "{status:?}"
        );
        assert!(status.pid.is_none() || scene.machine.living().len() <= 1);
    }
    let stopped = manager.stop().await;
    assert!(stopped.is_ok(), "{stopped:?}");
    for command in commands {
        // Every command has its answer by the time the last stop has its own.
        let answered = tokio::time::timeout(seconds(60), command).await;
        assert!(answered.is_ok(), "a command was never answered");
    }
    assert_eq!(manager.status().borrow().clone(), Default::default());
    scene.finish();
    let before = scene.machine.records().len();
    tokio::time::sleep(seconds(3_600)).await;
    assert_eq!(
        scene.machine.records().len(),
        before,
        "something went on after the stop"
    );
    scene.machine.records()
}

/// A machine of its own, whose clock the story moves.
fn play_alone(story: Story) -> Vec<Record> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(play(story))
}

/// The story of a seed, with what is needed to reduce it.
fn story_of(seed: u64) -> (TestRunner, impl ValueTree<Value = Story>) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tree = story().new_tree(&mut runner).expect("no story is rejected");
    (runner, tree)
}

/// Plays the story of a seed; one that fails is reduced to a short one that fails as well.
fn play_seed(seed: u64, tell: bool) {
    let (mut runner, tree) = story_of(seed);
    if tell {
        println!("{:#?}", tree.current());
    }
    let outcome = runner.run_one(tree, |story| {
        let records = play_alone(story);
        for record in records.iter().filter(|_| tell) {
            println!(
                "{:>12.3} s  {:?}",
                record.at.as_secs_f64(),
                record.happening
            );
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("seed {seed}: {error}\nreplay it with: cargo xtask sim --seed {seed}");
    }
}

/// Whatever the children do and whatever the users ask for: never two of them, every command answered, nothing left.
///
/// `GATEWAY_SIMULATION_SEED` plays one seed and tells its story; `GATEWAY_SIMULATION_SEEDS` sets how many are played. The row
/// `simulation` of the test matrix plays thousands.
#[test]
fn stories_by_seed() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("GATEWAY_SIMULATION_SEED") {
        Some(seed) => play_seed(seed, true),
        None => {
            let seeds = number("GATEWAY_SIMULATION_SEEDS").unwrap_or(200);
            (0..seeds).for_each(|seed| play_seed(seed, false));
            println!("simulation: {seeds} seeds");
        }
    }
}
