//! The manager over real processes and real sockets: every layer together, with the fake gateway as the child.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_manager::events::Delivered;
use gateway_manager::{
    AttachMode, BuildError, CallOptions, EventSubscription, FailureClass, GatewayEvent,
    GatewayManager, GatewayManagerBuilder, GatewayState, GatewayStatus, HookError, LaunchContext,
    LifecycleConfig, ManagerError, OpenClaw, Phase, PortChoice, PreparationHook,
};
use gateway_policy::liveness::{Activity, LivenessConfig, Verdict};
use gateway_policy::{JournalEntry, Lifecycle, Rule};
use gateway_process::Environment;
use gateway_testkit::Vintage;
use gateway_testkit::child::{
    ChildScript, DoctorScript, ExitAtStart, GrandchildScript, SCRIPT_VARIABLE, StartScript,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

const TOKEN: &str = "supervised-token-0123456789";
const PATIENCE: Duration = Duration::from_secs(30);

/// One home with its script.
struct Bench {
    dir: TempDir,
    script: ChildScript,
    lifecycle: LifecycleConfig,
    port: PortChoice,
}

impl Bench {
    fn new(start: StartScript) -> Self {
        let dir = TempDir::new().unwrap();
        let mut lifecycle = LifecycleConfig::default();
        lifecycle.reconnect.base_delay = Duration::from_millis(20);
        lifecycle.reconnect.max_delay = Duration::from_millis(40);
        lifecycle.reconnect.max_attempts = 4;
        Self {
            script: ChildScript {
                starts_file: Some(dir.path().join("starts")),
                start,
                ..ChildScript::default()
            },
            dir,
            lifecycle,
            port: PortChoice::Free,
        }
    }

    fn plain() -> Self {
        Self::new(StartScript::default())
    }

    fn builder(&self) -> GatewayManagerBuilder {
        let mut environment = Environment::empty();
        environment.set(
            SCRIPT_VARIABLE,
            serde_json::to_string(&self.script).unwrap(),
        );
        GatewayManager::builder()
            .openclaw(OpenClaw::Command {
                program: PathBuf::from(env!("CARGO_BIN_EXE_fake-openclaw")),
                args: Vec::new(),
            })
            .environment(environment)
            .state_dir(self.dir.path().join("state"))
            .port(self.port)
            .token(TOKEN)
            .lifecycle(self.lifecycle.clone())
            .stop_limits(Duration::from_secs(5), Duration::from_secs(5))
            .handshake_timeout(Duration::from_secs(5))
    }

    fn manager(&self) -> GatewayManager {
        self.builder().build().unwrap()
    }

    fn starts(&self) -> u32 {
        let text = std::fs::read_to_string(self.dir.path().join("starts")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Whether the gateway process is there.
    #[cfg(unix)]
    fn is_alive(&self, pid: u32) -> bool {
        is_alive(pid)
    }

    /// Whether the gateway process is there: as long as it lives it holds the lock in its state directory.
    #[cfg(not(unix))]
    fn is_alive(&self, _pid: u32) -> bool {
        let files = std::fs::read_dir(self.dir.path().join("state")).unwrap();
        let mut locks = files
            .map(|file| file.unwrap().path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "lock")
            })
            .map(|path| std::fs::File::options().write(true).open(path).unwrap())
            .peekable();
        assert!(locks.peek().is_some(), "every release makes a lock");
        locks.any(|lock| lock.try_lock().is_err())
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("state/openclaw.json")
    }

    fn write_config(&self, text: &str) {
        std::fs::create_dir_all(self.dir.path().join("state")).unwrap();
        std::fs::write(self.config(), text).unwrap();
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work)
        .await
        .expect("no answer within 30 s")
}

async fn status_is(manager: &GatewayManager, state: GatewayState) -> GatewayStatus {
    let mut status = manager.status();
    within(status.wait_for(|status| status.state == state))
        .await
        .unwrap()
        .clone()
}

/// The next event that the function makes something of.
async fn event<T>(
    events: &mut EventSubscription,
    wanted: impl Fn(&GatewayEvent) -> Option<T>,
) -> T {
    within(async {
        loop {
            match events.next().await.expect("the manager is there") {
                Delivered::Event(event) => {
                    if let Some(found) = wanted(&event) {
                        return found;
                    }
                }
                Delivered::Lagged { missed } => panic!("{missed} events missed"),
            }
        }
    })
    .await
}

#[cfg(unix)]
fn is_alive(pid: u32) -> bool {
    // A zombie is dead; it has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[cfg(unix)]
fn kill(pid: u32) {
    signal(pid, "-KILL");
}

#[cfg(windows)]
fn kill(pid: u32) {
    let status = std::process::Command::new("taskkill")
        .args(["/f", "/pid", &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

#[cfg(unix)]
fn signal(pid: u32, signal: &str) {
    let status = std::process::Command::new("kill")
        .args([signal, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

fn failed(result: Result<(), ManagerError>) -> gateway_manager::Failure {
    match result {
        Err(ManagerError::Failed(failure)) => failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}

fn port_is_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_start_to_stop() {
    for vintage in [Vintage::V2026_3_2, Vintage::V2026_9_6] {
        let mut bench = Bench::new(StartScript {
            listen_after_ms: 60,
            ready_after_ms: 200,
            ..StartScript::default()
        });
        bench.script.vintage = vintage;
        let manager = bench.manager();
        let mut events = manager.events();
        within(manager.start()).await.unwrap();
        let status = manager.status().borrow().clone();
        let pid = status.pid.unwrap();
        assert_eq!(
            (status.state, status.phase),
            (GatewayState::Running, Phase::Ready)
        );
        let session = status.session.unwrap();
        assert_eq!(
            session.protocol,
            if vintage == Vintage::V2026_3_2 { 3 } else { 4 }
        );
        assert_eq!(manager.hello().unwrap().protocol, session.protocol);

        let mut phases = Vec::new();
        while phases.last() != Some(&Phase::Ready) {
            let phase = event(&mut events, |event| match event {
                GatewayEvent::Status(status) => Some(status.phase),
                _ => None,
            })
            .await;
            if phases.last() != Some(&phase) {
                phases.push(phase);
            }
        }
        let mut expected = vec![
            Phase::Discovering,
            Phase::Preparing,
            Phase::Spawning,
            Phase::Listening,
            Phase::Handshaking,
        ];
        if vintage == Vintage::V2026_9_6 {
            expected.push(Phase::StartingUp);
        }
        expected.push(Phase::Ready);
        assert_eq!(phases[..4], expected[..4], "{vintage:?}");
        assert_eq!(phases.last(), expected.last());
        assert_eq!(
            phases.contains(&Phase::StartingUp),
            expected.contains(&Phase::StartingUp),
            "{phases:?}"
        );

        let health: Value = within(manager.call("health", &json!({}))).await.unwrap();
        assert!(health.is_object());
        let refused = within(manager.call::<_, Value>("no.such.method", &json!({}))).await;
        let Err(ManagerError::Call(error)) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            error
                .rejection()
                .unwrap()
                .message
                .contains("unknown method"),
            "{error}"
        );
        let reading = within(manager.check_health()).await;
        assert!(
            reading.is_healthy() && reading.round_trip.is_some() && reading.uptime.is_some(),
            "{reading:?}"
        );

        let port = manager.port().unwrap();
        within(manager.stop()).await.unwrap();
        assert!(
            !bench.is_alive(pid),
            "the process is gone when stop returns"
        );
        assert!(port_is_free(port));
        assert_eq!(manager.status().borrow().clone(), Default::default());
        let late = within(manager.call::<_, Value>("health", &json!({}))).await;
        assert!(
            matches!(
                late,
                Err(ManagerError::NotConnected {
                    state: GatewayState::Stopped
                })
            ),
            "{late:?}"
        );
        assert!(!within(manager.check_health()).await.is_healthy());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_comes_back_behind_the_same_handle() {
    let bench = Bench::plain();
    let manager = bench.manager();
    within(manager.start()).await.unwrap();
    let first = manager.status().borrow().pid.unwrap();
    let caller = manager.clone();
    let pending =
        tokio::spawn(async move { caller.call::<_, Value>("test.silent", &json!({})).await });
    // The call is on its way once a later one was answered on the same socket.
    within(manager.call::<_, Value>("health", &json!({})))
        .await
        .unwrap();
    let mut status = manager.status();
    kill(first);
    let second = within(status.wait_for(|status| status.is_running() && status.pid != Some(first)))
        .await
        .unwrap()
        .pid
        .unwrap();
    assert_ne!(first, second);
    let Err(ManagerError::Call(error)) = within(pending).await.unwrap() else {
        panic!("a lost call succeeded")
    };
    assert_eq!(
        error.outcome(),
        gateway_client::CallOutcome::Unknown,
        "{error}"
    );
    within(manager.call::<_, Value>("health", &json!({})))
        .await
        .unwrap();
    within(manager.stop()).await.unwrap();
    assert_eq!(bench.starts(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_dies_at_every_start_is_given_up() {
    let bench = Bench::new(StartScript {
        exit_at_start: Some(ExitAtStart {
            code: 1,
            stderr: vec![format!("TypeError: something about {TOKEN}")],
        }),
        ..StartScript::default()
    });
    let manager = bench.manager();
    let failure = failed(within(manager.start()).await);
    assert!(
        failure.message.contains("4 attempts") && failure.message.contains("code=1"),
        "{failure}"
    );
    assert!(
        failure.message.contains("TypeError") && !failure.message.contains(TOKEN),
        "{failure}"
    );
    assert_eq!(manager.status().borrow().phase, Phase::GaveUp);
    let launched = manager.last_launch().unwrap();
    assert!(
        launched.contains(&format!(
            "fake-openclaw{} gateway run",
            std::env::consts::EXE_SUFFIX
        )) && !launched.contains(TOKEN),
        "{launched}"
    );
    assert_eq!(bench.starts(), 5);
    within(manager.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_is_repaired_once() {
    for vintage in [Vintage::V2026_3_2, Vintage::V2026_9_6] {
        let mut bench = Bench::plain();
        bench.script.vintage = vintage;
        let broken = r#"{"nonsense": true}"#;
        bench.write_config(broken);
        let manager = bench.manager();
        let mut events = manager.events();
        within(manager.start()).await.unwrap();
        let exit = event(&mut events, |event| match event {
            GatewayEvent::Exited(exit) => Some(exit.clone()),
            _ => None,
        })
        .await;
        assert_eq!(
            exit.code,
            Some(if vintage == Vintage::V2026_3_2 { 1 } else { 78 })
        );
        let outcome = event(&mut events, |event| match event {
            GatewayEvent::Repaired(outcome) => Some(outcome.clone()),
            _ => None,
        })
        .await;
        assert!(outcome.succeeded() && outcome.changed(), "{outcome}");
        assert_eq!(
            std::fs::read_to_string(outcome.aftermath.backup.as_ref().unwrap()).unwrap(),
            broken
        );
        assert_eq!(bench.starts(), 2);
        within(manager.stop()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_beyond_repair_ends_the_start_with_its_cause() {
    let mut bench = Bench::plain();
    bench.script.doctor = DoctorScript {
        exit_code: Some(1),
        ..DoctorScript::default()
    };
    bench.write_config("{ not json");
    let manager = bench.manager();
    let failure = failed(within(manager.start()).await);
    assert_eq!(failure.class, FailureClass::Configuration);
    assert!(failure.message.contains("openclaw.json"), "{failure}");
    assert_eq!(
        (manager.status().borrow().phase, bench.starts()),
        (Phase::Failed, 1)
    );
    assert_eq!(
        std::fs::read_to_string(bench.config()).unwrap(),
        "{ not json"
    );
    within(manager.stop()).await.unwrap();

    bench.lifecycle.repair = false;
    let manager = bench.manager();
    assert_eq!(
        failed(within(manager.start()).await).class,
        FailureClass::Configuration
    );
    within(manager.stop()).await.unwrap();
}

/// The doctor ends with 0 and has thrown everything away: the file is as it was, the start has failed with the reasons, and neither a new
/// start nor a new manager lets the doctor try that again.
#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_that_makes_it_worse_is_undone_and_not_asked_again() {
    let mut bench = Bench::plain();
    bench.script.doctor.leaves = Some("{}".to_owned());
    let broken = r#"{"nonsense": true, "gateway": {"mode": "local"}, "channels": {"x": {"token": "s3cret-of-x"}}}"#;
    bench.write_config(broken);
    let manager = bench.manager();
    let mut events = manager.events();
    let failure = failed(within(manager.start()).await);
    assert_eq!(failure.class, FailureClass::Configuration);
    let outcome = event(&mut events, |event| match event {
        GatewayEvent::Repaired(outcome) => Some(outcome.clone()),
        _ => None,
    })
    .await;
    assert_eq!(outcome.exit.code, Some(0));
    assert!(!outcome.succeeded() && !outcome.changed(), "{outcome}");
    let told = format!("{outcome:#}");
    for part in [
        "gateway.mode is gone",
        "channels.x is gone",
        "- channels.x.token: [redacted]",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(failure.message.contains("channels.x is gone"), "{failure}");
    assert!(
        !format!("{failure} {outcome:?}").contains("s3cret"),
        "{outcome:?}"
    );
    assert_eq!(std::fs::read_to_string(bench.config()).unwrap(), broken);
    assert_eq!(
        (manager.status().borrow().phase, bench.starts()),
        (Phase::Failed, 1)
    );

    let again = failed(within(manager.start()).await);
    assert!(again.message.contains("already run"), "{again}");
    within(manager.stop()).await.unwrap();
    let other = bench.manager();
    let again = failed(within(other.start()).await);
    assert!(again.message.contains("already run"), "{again}");
    assert_eq!(bench.starts(), 3);
    within(other.stop()).await.unwrap();
    let state = bench.config().with_file_name("");
    let copies = std::fs::read_dir(state).unwrap();
    let names: Vec<String> = copies
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let of = |kind: &str| names.iter().filter(|name| name.contains(kind)).count();
    assert_eq!(
        (of(".before-repair-"), of(".after-repair-")),
        (1, 1),
        "{names:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_state_is_not_the_doctors_business() {
    let mut bench = Bench::new(StartScript {
        exit_at_start: Some(ExitAtStart {
            code: 78,
            stderr: vec![
                "the state was written by a newer OpenClaw build".to_owned(),
                "Run: openclaw doctor --fix".to_owned(),
            ],
        }),
        ..StartScript::default()
    });
    bench.script.doctor.leaves = Some("{}".to_owned());
    bench.write_config(r#"{"gateway": {"port": 1}}"#);
    let manager = bench.manager();
    let failure = failed(within(manager.start()).await);
    assert_eq!(failure.class, FailureClass::NewerState);
    assert_eq!(
        (manager.status().borrow().phase, bench.starts()),
        (Phase::Failed, 1)
    );
    let config = std::fs::read_to_string(bench.config()).unwrap();
    assert_eq!(config, r#"{"gateway": {"port": 1}}"#);
    within(manager.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stubborn_child_and_its_offspring_are_gone_after_the_stop() {
    let bench = Bench::new(StartScript {
        ignore_sigterm: true,
        grandchild: Some(GrandchildScript::default()),
        ..StartScript::default()
    });
    let manager = bench
        .builder()
        .stop_limits(Duration::from_millis(300), Duration::from_secs(5))
        .build()
        .unwrap();
    let mut events = manager.events();
    within(manager.start()).await.unwrap();
    let pid = manager.status().borrow().pid.unwrap();
    let grandchild: u32 = event(&mut events, |event| match event {
        GatewayEvent::Output(line) => line
            .text
            .strip_prefix("[fake] grandchild pid ")?
            .trim()
            .parse()
            .ok(),
        _ => None,
    })
    .await;
    assert!(bench.is_alive(pid));
    #[cfg(unix)]
    assert!(is_alive(grandchild));
    within(manager.stop()).await.unwrap();
    assert!(!bench.is_alive(pid));
    #[cfg(unix)]
    assert!(!is_alive(grandchild));
    // Elsewhere that is what the tests of jobs show.
    #[cfg(not(unix))]
    let _ = grandchild;
}

/// Whatever code a first process ends with, the second one is launched, and how it ended is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_process_that_ends_with_any_code_is_followed_by_a_second() {
    for code in [0, 1, 75, 78, 79, 143] {
        let mut bench = Bench::plain();
        bench.script.first_starts = vec![StartScript {
            exit_at_start: Some(ExitAtStart {
                code,
                stderr: vec![format!("ends with {code}")],
            }),
            ..StartScript::default()
        }];
        let manager = bench.manager();
        let mut events = manager.events();
        within(manager.start())
            .await
            .unwrap_or_else(|error| panic!("{code}: {error}"));
        assert_eq!(bench.starts(), 2, "{code}");
        let exit = event(&mut events, |event| match event {
            GatewayEvent::Exited(exit) => Some(exit.clone()),
            _ => None,
        })
        .await;
        assert_eq!(exit.code, Some(i32::from(code)));
        assert!(!exit.reason.is_requested(), "{exit}");
        within(manager.stop()).await.unwrap();
    }
}

/// What children do to whoever supervises them: each comes up, survives a crash of its serving process, and leaves nothing behind, neither
/// a process nor somebody on the port.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn hostile_children_come_up_come_back_and_leave_nothing() {
    let grandchild = |daemon, takes_port, holds_output| StartScript {
        grandchild: Some(GrandchildScript {
            daemon,
            takes_port,
            holds_output,
            ..GrandchildScript::default()
        }),
        ..StartScript::default()
    };
    let flood = Some(gateway_testkit::child::Flood {
        lines: 200_000,
        line_bytes: 200,
    });
    let table = [
        (
            "a launcher",
            StartScript {
                launcher: true,
                ..StartScript::default()
            },
        ),
        (
            "a launcher whose gateway ignores the request",
            StartScript {
                launcher: true,
                ignore_sigterm: true,
                ..StartScript::default()
            },
        ),
        ("a daemon", grandchild(true, false, false)),
        ("a daemon with our pipes", grandchild(true, false, true)),
        (
            "a neighbour that takes the port",
            grandchild(false, true, true),
        ),
        ("a daemon that takes the port", grandchild(true, true, true)),
        (
            "a flood on both pipes",
            StartScript {
                stderr_flood: flood.clone(),
                stdout_flood: flood,
                ..StartScript::default()
            },
        ),
        (
            "half of its output closed",
            StartScript {
                close_stdout_after_ms: Some(0),
                ..StartScript::default()
            },
        ),
        (
            "no wish to end",
            StartScript {
                ignore_sigterm: true,
                ..StartScript::default()
            },
        ),
    ];
    for (what, start) in table {
        let mut bench = Bench::new(start);
        bench.port = PortChoice::Fixed(gateway_process::ports::reserve_free_port().unwrap());
        let PortChoice::Fixed(port) = bench.port else {
            unreachable!()
        };
        let manager = bench
            .builder()
            .stop_limits(Duration::from_millis(300), Duration::from_secs(5))
            .build()
            .unwrap();
        within(manager.start())
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        let launched = manager.status().borrow().pid.unwrap();
        let first = of_bench(&bench);
        assert!(first.contains(&launched), "{what}");
        signal(launched, "-KILL");
        let mut status = manager.status();
        let back = |status: &GatewayStatus| status.is_running() && status.pid != Some(launched);
        within(status.wait_for(back)).await.unwrap();
        let second = of_bench(&bench);
        assert!(
            first.iter().all(|pid| !second.contains(pid)),
            "{what}: {first:?} {second:?}"
        );
        within(manager.stop()).await.unwrap();
        assert_eq!(of_bench(&bench), Vec::<u32>::new(), "{what}");
        gateway_process::ports::check_port_free(port)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

/// Every process that was started for a bench, told by the script in its environment.
#[cfg(target_os = "linux")]
fn of_bench(bench: &Bench) -> Vec<u32> {
    let mark = bench.dir.path().to_str().unwrap().as_bytes().to_vec();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let environment = std::fs::read(path.join("environ")).ok()?;
        environment
            .windows(mark.len())
            .any(|window| window == mark)
            .then_some(pid)
    });
    processes.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_are_merged_and_each_is_answered_by_a_launch_after_it() {
    let bench = Bench::plain();
    let manager = bench.manager();
    within(manager.start()).await.unwrap();
    let first = manager.status().borrow().pid;
    within(manager.restart()).await.unwrap();
    assert_ne!(manager.status().borrow().pid, first);
    let all = (0..8).map(|_| {
        let manager = manager.clone();
        tokio::spawn(async move { manager.restart().await })
    });
    let all: Vec<_> = all.collect();
    for one in all {
        within(one).await.unwrap().unwrap();
    }
    // One launch for the first of them, and one more for those that came while it was under way.
    assert!(
        (3..=4).contains(&bench.starts()),
        "{} starts",
        bench.starts()
    );
    let before = bench.starts();
    let delay = Some(Duration::from_millis(50));
    let (one, other) = within(async {
        tokio::join!(
            manager.restart_debounced(delay),
            manager.restart_debounced(delay)
        )
    })
    .await;
    one.unwrap();
    other.unwrap();
    assert_eq!(bench.starts(), before + 1);
    within(manager.stop()).await.unwrap();
    within(manager.restart_debounced(delay)).await.unwrap();
    assert_eq!(
        (bench.starts(), manager.status().borrow().state),
        (before + 1, GatewayState::Stopped)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_in_process_restart_keeps_the_process() {
    let bench = Bench::plain();
    let manager = bench.manager();
    within(manager.start()).await.unwrap();
    let pid = manager.status().borrow().pid;
    let boot = |manager: &GatewayManager| manager.hello().and_then(|hello| hello.server.boot_id);
    let before = boot(&manager);
    within(manager.call::<_, Value>("gateway.restart.request", &json!({})))
        .await
        .unwrap();
    let mut status = manager.status();
    within(status.wait_for(|status| !status.is_running()))
        .await
        .unwrap();
    status_is(&manager, GatewayState::Running).await;
    assert_eq!(manager.status().borrow().pid, pid);
    assert_ne!(boot(&manager), before);
    assert_eq!(bench.starts(), 1);
    within(manager.stop()).await.unwrap();
}

/// Limits of the watch that are met within a second.
fn impatient(liveness: &mut LivenessConfig) {
    liveness.default_tick = Duration::from_millis(100);
    liveness.least_silence = Duration::from_millis(300);
    liveness.verify_within = Duration::from_millis(300);
    liveness.handshake_within = Duration::from_millis(300);
    liveness.look_again = Duration::from_millis(100);
    liveness.wedged_after = Duration::from_millis(1_000);
}

/// The verdicts that a manager came to, each with what the process did.
fn verdicts(manager: &GatewayManager) -> Vec<(Verdict, Activity)> {
    let why = manager.why();
    let rules = why.iter().flat_map(|entry| &entry.rules);
    rules
        .filter_map(|rule| match rule {
            Rule::Conclude {
                verdict, evidence, ..
            } => Some((*verdict, evidence.activity)),
            _ => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_stops_answering_is_replaced() {
    let mut bench = Bench::plain();
    bench.script.first_starts = vec![StartScript {
        stall_after_ms: Some(400),
        tick_interval_ms: 100,
        ..StartScript::default()
    }];
    impatient(&mut bench.lifecycle.liveness);
    let manager = bench.manager();
    let mut events = manager.events();
    within(manager.start()).await.unwrap();
    let first = manager.status().borrow().pid;
    let exit = event(&mut events, |event| match event {
        GatewayEvent::Exited(exit) => Some(exit.clone()),
        _ => None,
    })
    .await;
    assert!(exit.reason.is_requested(), "{exit}");
    let status = status_is(&manager, GatewayState::Running).await;
    assert_ne!(status.pid, first);
    let verdicts: Vec<Verdict> = verdicts(&manager).into_iter().unzip::<_, _, _, Vec<_>>().0;
    assert!(
        verdicts.starts_with(&[Verdict::Blocked]) && verdicts.ends_with(&[Verdict::Wedged]),
        "{verdicts:?}"
    );
    within(manager.stop()).await.unwrap();
}

/// A process that somebody stopped is seen to be stopped; when it goes on in time nothing has happened, and when it does not it is
/// replaced, though it cannot even hear that it is asked to end.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_stopped_with_a_signal_is_told_apart_and_replaced() {
    for goes_on in [true, false] {
        let mut bench = Bench::plain();
        bench.script.start.tick_interval_ms = 100;
        impatient(&mut bench.lifecycle.liveness);
        if goes_on {
            bench.lifecycle.liveness.wedged_after = Duration::from_secs(60);
        }
        let manager = bench
            .builder()
            .stop_limits(Duration::from_millis(300), Duration::from_secs(5))
            .build()
            .unwrap();
        within(manager.start()).await.unwrap();
        let first = manager.status().borrow().pid.unwrap();
        signal(first, "-STOP");
        let mut status = manager.status();
        let blocked = |status: &GatewayStatus| status.liveness == Some(Verdict::Blocked);
        within(status.wait_for(blocked)).await.unwrap();
        let known = (Verdict::Blocked, Activity::Halted);
        assert_eq!(verdicts(&manager).last(), Some(&known));
        if goes_on {
            signal(first, "-CONT");
            let alive = |status: &GatewayStatus| status.liveness == Some(Verdict::Alive);
            within(status.wait_for(alive)).await.unwrap();
            assert_eq!(manager.status().borrow().pid, Some(first));
            assert_eq!(bench.starts(), 1);
        } else {
            let replaced =
                |status: &GatewayStatus| status.is_running() && status.pid != Some(first);
            within(status.wait_for(replaced)).await.unwrap();
            assert!(!is_alive(first));
            assert_eq!(bench.starts(), 2);
        }
        within(manager.stop()).await.unwrap();
    }
}

struct Hook {
    required: bool,
    takes: Duration,
    outcome: Result<(), HookError>,
}

#[async_trait]
impl PreparationHook for Hook {
    fn name(&self) -> &str {
        "test step"
    }

    fn deadline(&self) -> Duration {
        Duration::from_millis(200)
    }

    fn is_required(&self) -> bool {
        self.required
    }

    async fn prepare(&self, context: &mut LaunchContext) -> Result<(), HookError> {
        assert!(context.port() != 0 && context.config_path().is_some());
        tokio::time::sleep(self.takes).await;
        context.environment().set("FROM_THE_HOOK", "yes");
        self.outcome.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn preparation_steps_have_deadlines_and_a_say() {
    let fails = || Err(HookError::new("the key is missing; set it"));
    let refuses = || Err(HookError::temporary("the key server is busy"));
    let (settings, brief) = (FailureClass::InvalidSettings, FailureClass::Temporary);
    let late = "did not finish within 200 ms";
    let table = [
        (true, 0, Ok(()), None),
        (true, 0, fails(), Some((settings, "the key is missing"))),
        // What may pass by itself is tried again, until the attempts are used up.
        (
            true,
            0,
            refuses(),
            Some((brief, "Gave up after 4 attempts")),
        ),
        (true, 60_000, Ok(()), Some((brief, late))),
        (false, 0, fails(), None),
        (false, 60_000, Ok(()), None),
    ];
    for (required, takes, outcome, expected) in table {
        let bench = Bench::plain();
        let works = outcome.is_ok() && takes == 0;
        let hook = Hook {
            required,
            takes: Duration::from_millis(takes),
            outcome,
        };
        let manager = bench.builder().hook(hook).build().unwrap();
        let mut events = manager.events();
        let started = within(manager.start()).await;
        match expected {
            None => {
                started.unwrap();
                let pid = manager.status().borrow().pid.unwrap();
                if cfg!(target_os = "linux") {
                    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
                    let has = String::from_utf8_lossy(&environment).contains("FROM_THE_HOOK=yes");
                    assert!(has || !works, "what the hook set reaches the gateway");
                }
                if !works {
                    let warning = event(&mut events, |event| match event {
                        GatewayEvent::Warning { message } => Some(message.clone()),
                        _ => None,
                    })
                    .await;
                    assert!(warning.contains("test step"), "{warning}");
                }
            }
            Some((class, text)) => {
                let failure = failed(started);
                assert!(
                    failure.message.contains(text) && failure.message.contains("test step"),
                    "{failure}"
                );
                assert_eq!((failure.class, bench.starts()), (class, 0));
            }
        }
        within(manager.stop()).await.unwrap();
    }
}

struct KeyHook;

#[async_trait]
impl PreparationHook for KeyHook {
    fn name(&self) -> &str {
        "key"
    }

    async fn prepare(&self, context: &mut LaunchContext) -> Result<(), HookError> {
        let environment = context.environment();
        environment.set("PROVIDER_API_KEY", "provider-key-42");
        environment.set_secret("PLAIN_NAME", "declared-secret".into());
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_hold_no_secret_of_the_launch() {
    let mut bench = Bench::new(StartScript {
        exit_at_start: Some(ExitAtStart {
            code: 1,
            stderr: vec![format!(
                "no luck with {TOKEN}, provider-key-42, declared-secret"
            )],
        }),
        ..StartScript::default()
    });
    bench.lifecycle.reconnect.max_attempts = 0;
    let manager = bench.builder().hook(KeyHook).build().unwrap();
    let failure = failed(within(manager.start()).await);
    assert!(
        failure
            .message
            .contains("no luck with [redacted], [redacted], [redacted]"),
        "{failure}"
    );
    let shown = format!("{:?} {:?}", manager.journal(), manager.status().borrow());
    for secret in [TOKEN, "provider-key-42", "declared-secret"] {
        assert!(!shown.contains(secret), "{secret}");
    }
    within(manager.stop()).await.unwrap();
}

/// What a gateway prints reaches screens and logs as events, and as the cause when it fails.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_holds_a_secret_that_the_gateway_prints() {
    let words = format!("I was given {TOKEN}, provider-key-42, declared-secret");
    let serves = StartScript {
        stderr: vec![words.clone()],
        ..StartScript::default()
    };
    let ends = StartScript {
        exit_at_start: Some(ExitAtStart {
            code: 1,
            stderr: vec![words],
        }),
        ..StartScript::default()
    };
    for (script, starts) in [(serves, true), (ends, false)] {
        let mut bench = Bench::new(script);
        bench.lifecycle.reconnect.max_attempts = 0;
        let manager = bench.builder().hook(KeyHook).build().unwrap();
        let mut events = manager.events();
        let started = within(manager.start()).await;
        assert_eq!(started.is_ok(), starts, "{started:?}");
        within(manager.stop()).await.unwrap();
        drop(manager);
        let (mut lines, mut shown) = (Vec::new(), format!("{started:?}"));
        while let Some(delivered) = within(events.next()).await {
            shown += &format!("{delivered:?}\n");
            if let Delivered::Event(GatewayEvent::Output(line)) = delivered {
                lines.push(line.text);
            }
        }
        let expected = "I was given [redacted], [redacted], [redacted]";
        assert!(lines.iter().any(|line| **line == *expected), "{lines:#?}");
        for secret in [TOKEN, "provider-key-42", "declared-secret"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_handle_stops_the_gateway() {
    let bench = Bench::plain();
    let manager = bench.manager();
    let mut events = manager.events();
    within(manager.start()).await.unwrap();
    let pid = manager.status().borrow().pid.unwrap();
    drop(manager);
    within(async { while events.next().await.is_some() {} }).await;
    assert!(!bench.is_alive(pid));
}

#[test]
fn ending_the_runtime_kills_the_gateway() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let bench = Bench::plain();
    let (manager, pid) = runtime.block_on(async {
        let manager = bench.manager();
        within(manager.start()).await.unwrap();
        let pid = manager.status().borrow().pid.unwrap();
        (manager, pid)
    });
    drop(runtime);
    let began = std::time::Instant::now();
    while bench.is_alive(pid) {
        assert!(began.elapsed() < PATIENCE, "the child outlived its owner");
        std::thread::yield_now();
    }
    drop(manager);
}

#[cfg_attr(windows, ignore = "Wine does not tell which process holds a socket")]
#[tokio::test(flavor = "multi_thread")]
async fn a_second_manager_attaches_or_refuses_and_hurts_nobody() {
    let bench = Bench::plain();
    let owner = bench.manager();
    within(owner.start()).await.unwrap();
    let pid = owner.status().borrow().pid.unwrap();
    let mut second = Bench::plain();
    second.port = PortChoice::Fixed(owner.port().unwrap());

    let refusing = second.manager();
    let failure = failed(within(refusing.start()).await);
    assert_eq!(failure.class, FailureClass::PortHeld);
    assert!(
        failure.message.contains(&pid.to_string()) && failure.message.contains("OpenClaw Gateway"),
        "{failure}"
    );
    within(refusing.stop()).await.unwrap();

    for mode in [AttachMode::IfPresent, AttachMode::Only] {
        second.lifecycle.attach = mode;
        let guest = second.manager();
        within(guest.start()).await.unwrap();
        let status = guest.status().borrow().clone();
        assert!(status.attached && status.pid.is_none(), "{status:?}");
        within(guest.call::<_, Value>("status", &json!({})))
            .await
            .unwrap();
        within(guest.stop()).await.unwrap();
    }
    assert_eq!(second.starts(), 0);
    assert_eq!(owner.status().borrow().pid, Some(pid));
    assert!(owner.status().borrow().is_running());
    within(owner.stop()).await.unwrap();
}

#[cfg_attr(windows, ignore = "Wine does not tell which process holds a socket")]
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_on_the_port_is_named_and_left_alone() {
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bench = Bench::plain();
    bench.port = PortChoice::Fixed(stranger.local_addr().unwrap().port());
    let manager = bench.manager();
    let failure = failed(within(manager.start()).await);
    assert_eq!(failure.class, FailureClass::PortHeld);
    assert!(
        failure.message.contains(&std::process::id().to_string()),
        "{failure}"
    );
    within(manager.stop()).await.unwrap();
    let address = stranger.local_addr().unwrap();
    drop(std::net::TcpStream::connect(address).unwrap());
    assert_eq!(bench.starts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_configuration_file_is_named_as_the_cause() {
    let bench = Bench::plain();
    bench
        .write_config(r#"{ gateway: { auth: { mode: "token", token: "another" } }, /* JSON5 */ }"#);
    let manager = bench.manager();
    let failure = failed(within(manager.start()).await);
    assert_eq!(failure.class, FailureClass::Credentials);
    assert!(
        failure.message.contains("gateway.auth.token") && failure.message.contains("openclaw.json"),
        "{failure}"
    );
    assert!(!failure.message.contains(TOKEN));
    assert_eq!(
        manager.status().borrow().pid,
        None,
        "a gateway that nobody can use is not left running"
    );
    within(manager.stop()).await.unwrap();
}

#[cfg_attr(
    not(target_os = "linux"),
    ignore = "only Linux shows what other processes were started with"
)]
#[tokio::test(flavor = "multi_thread")]
async fn the_token_travels_in_the_environment_alone() {
    let bench = Bench::plain();
    let manager = bench.manager();
    within(manager.start()).await.unwrap();
    let pid = manager.status().borrow().pid.unwrap();
    let proc = |file: &str| {
        String::from_utf8_lossy(
            &std::fs::read(Path::new("/proc").join(pid.to_string()).join(file)).unwrap(),
        )
        .into_owned()
    };
    assert!(proc("environ").contains(TOKEN));
    assert!(!proc("cmdline").contains(TOKEN));
    within(manager.restart()).await.unwrap();
    let shown = format!("{manager:?} {:?} {:?}", manager.journal(), manager.hello());
    assert!(!shown.contains(TOKEN));
    within(manager.stop()).await.unwrap();
}

/// A preparation step that knows of another token.
struct OtherToken;

#[async_trait]
impl PreparationHook for OtherToken {
    fn name(&self) -> &str {
        "other token"
    }

    async fn prepare(&self, context: &mut LaunchContext) -> Result<(), HookError> {
        let environment = context.environment();
        environment.set("OPENCLAW_GATEWAY_TOKEN", "a-token-from-the-settings");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_launch_is_the_token_of_every_connection_to_it() {
    let bench = Bench::plain();
    let manager = bench.builder().hook(OtherToken).build().unwrap();
    within(manager.start()).await.unwrap();
    // The same process, another connection.
    let mut status = manager.status();
    within(manager.call::<_, Value>("gateway.restart.request", &json!({})))
        .await
        .unwrap();
    within(status.wait_for(|status| !status.is_running()))
        .await
        .unwrap();
    status_is(&manager, GatewayState::Running).await;
    assert_eq!(bench.starts(), 1);
    // Another process.
    within(manager.restart()).await.unwrap();
    within(manager.call::<_, Value>("health", &json!({})))
        .await
        .unwrap();
    within(manager.stop()).await.unwrap();
}

/// A step that cannot work fails at once and leaves nothing behind; each error names the thing.
#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_work() {
    let bench = Bench::plain();
    let occupied = bench.dir.path().join("occupied");
    std::fs::write(&occupied, "a file").unwrap();
    let missing = OpenClaw::Command {
        program: PathBuf::from("/nonexistent/openclaw"),
        args: Vec::new(),
    };
    let table = [
        (bench.builder().state_dir(&occupied), "occupied"),
        (bench.builder().openclaw(missing), "/nonexistent/openclaw"),
    ];
    for (builder, text) in table {
        let manager = builder.build().unwrap();
        let failure = failed(within(manager.start()).await);
        assert_eq!(failure.class, FailureClass::InvalidSettings);
        assert!(failure.message.contains(text), "{failure}");
        within(manager.stop()).await.unwrap();
    }
    assert!(
        GatewayManager::builder().build().is_err(),
        "nothing to launch"
    );
    for mode in [AttachMode::IfPresent, AttachMode::Only] {
        let built = bench.builder().attach(mode).build();
        assert!(
            matches!(built, Err(BuildError::AttachToFreePort)),
            "{built:?}"
        );
    }
}

/// Every odd peer ends in an error that says what was seen, within the readiness limits, and nothing is left running.
#[tokio::test(flavor = "multi_thread")]
async fn children_that_are_no_proper_gateways() {
    let table = [
        (
            "no challenge",
            json!({ "challenge": "missing" }),
            "connect.challenge",
        ),
        ("no nonce", json!({ "challenge": "without_nonce" }), "nonce"),
        (
            "silent",
            json!({ "silent_after_accept": true }),
            "did not answer the WebSocket upgrade",
        ),
        (
            "no answer to connect",
            json!({ "silent_after_connect": true }),
            "Connect handshake timeout",
        ),
        (
            "no hello",
            json!({ "hello_payload": { "type": "nonsense" } }),
            "hello",
        ),
        (
            "not found",
            json!({ "refuse_upgrade": [404, "no such page"] }),
            "HTTP 404",
        ),
    ];
    for (name, faults, text) in table {
        let mut bench = Bench::new(StartScript {
            faults: serde_json::from_value(faults).unwrap(),
            ..StartScript::default()
        });
        bench.lifecycle.readiness.quiet = Duration::from_millis(800);
        bench.lifecycle.reconnect.max_attempts = 1;
        let manager = bench
            .builder()
            .handshake_timeout(Duration::from_millis(300))
            .build()
            .unwrap();
        let failure = failed(within(manager.start()).await);
        assert!(failure.message.contains(text), "{name}: {failure}");
        let status = manager.status().borrow().clone();
        assert_eq!((status.phase, status.pid), (Phase::GaveUp, None), "{name}");
        within(manager.stop()).await.unwrap();
    }
}

/// Whoever hears of an exit has heard the last words before.
#[tokio::test(flavor = "multi_thread")]
async fn output_comes_before_the_exit() {
    let mut bench = Bench::new(StartScript {
        exit_at_start: Some(ExitAtStart {
            code: 1,
            stderr: (0..50).map(|number| format!("word {number}")).collect(),
        }),
        ..StartScript::default()
    });
    bench.lifecycle.reconnect.max_attempts = 0;
    let manager = bench.manager();
    let mut events = manager.events();
    failed(within(manager.start()).await);
    let mut words = Vec::new();
    while words.last().map(String::as_str) != Some("exit") {
        words.push(
            event(&mut events, |event| match event {
                GatewayEvent::Output(line) => Some(line.text.to_string()),
                GatewayEvent::Exited(_) => Some("exit".to_owned()),
                _ => None,
            })
            .await,
        );
    }
    assert_eq!(
        words
            .iter()
            .filter(|word| word.starts_with("word "))
            .count(),
        50,
        "{words:?}"
    );
    within(manager.stop()).await.unwrap();
}

/// Feeding the triggers of a journal to a fresh machine reproduces its decisions and effects.
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_replays() {
    let bench = Bench::plain();
    let manager = bench.manager();
    within(manager.start()).await.unwrap();
    within(manager.restart()).await.unwrap();
    within(manager.stop()).await.unwrap();
    let journal = manager.journal();
    assert_eq!(
        journal.replay().unwrap().status(),
        *manager.status().borrow()
    );
    let mut machine = Lifecycle::new(bench.lifecycle.clone());
    for recorded in journal.entries() {
        let replayed = JournalEntry::of(&mut machine, recorded.at, recorded.trigger.clone());
        assert_eq!(replayed, *recorded);
    }
    let why: Vec<&str> = journal
        .entries()
        .flat_map(|entry| &entry.rules)
        .map(Rule::name)
        .collect();
    let launch = ["prepare-launch", "launch", "connect", "serve"];
    let expected = [
        &["start-wanted", "look-at-port"][..],
        &launch,
        &["restart-wanted", "restart-due", "close-first", "end-child"],
        &["child-ended", "taken-down", "look-at-port"],
        &launch,
        &["stop-wanted", "close-first", "end-child"],
        &["child-ended", "taken-down"],
    ];
    assert_eq!(why, expected.concat());
    let told: Vec<String> = manager.why().iter().map(ToString::to_string).collect();
    assert!(
        told.len() > 10 && told[0].ends_with("start-wanted, look-at-port (asked for by a user)"),
        "{told:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_manager_do_not_disturb_each_other() {
    let bench = Bench::plain();
    let manager = Arc::new(bench.manager());
    within(manager.start()).await.unwrap();
    let calls = (0..100_u64).map(|number| {
        let manager = manager.clone();
        tokio::spawn(async move {
            let echoed: Value = manager
                .call("test.echo", &json!({ "number": number }))
                .await
                .unwrap();
            assert!(echoed.to_string().contains(&number.to_string()), "{echoed}");
        })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        within(call).await.unwrap();
    }
    let options = CallOptions::timeout(Duration::from_millis(50));
    let slow = within(manager.call_raw("test.silent", None, options)).await;
    assert!(matches!(slow, Err(ManagerError::Call(_))), "{slow:?}");
    within(manager.stop()).await.unwrap();
}
