//! The machine in memory, under a paused clock, with the real client on its sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway_client::{
    ConnectError, ConnectOptions, Connection, Credentials, Endpoint, RpcError, TransportErrorKind,
};
use gateway_process::{
    BlockingWork, Environment, ExitReason, LaunchSpec, ManagedChild, ProcessHost, RunError,
    RunLimits, SpawnError, TerminateError, Termination, TerminationReason,
};
use gateway_testkit::fake_gateway::Refusal;
use gateway_testkit::scripted::{
    ChildPlan, Foreign, ForeignKind, Happening, Machine, RunPlan, SpawnFailure,
};
use gateway_testkit::{FakeGateway, FakeGatewayConfig, Vintage};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const PORT: u16 = 19_500;
const TOKEN: &str = "scripted-token";

fn launch() -> LaunchSpec {
    let mut env = Environment::empty();
    env.set_secret("OPENCLAW_GATEWAY_TOKEN", TOKEN.into());
    LaunchSpec::new("openclaw", env).args(["gateway", "run", "--port", "19500"])
}

async fn connect(machine: &Machine) -> Result<Connection, ConnectError> {
    let options = ConnectOptions::new(Credentials::token(TOKEN)).with_scopes(["operator.admin"]);
    Connection::open(&machine.transport(), &Endpoint::loopback(PORT), options).await
}

async fn started(machine: &Machine, plan: ChildPlan) -> (Arc<dyn ManagedChild>, Connection) {
    machine.plan(plan);
    let child = machine.host().spawn(&launch()).await.unwrap();
    sleep(Duration::from_millis(1)).await;
    let connection = connect(machine).await.unwrap();
    (child, connection)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn the_real_client_talks_to_a_scripted_gateway_of_both_releases() {
    for vintage in Vintage::ALL {
        let machine = Machine::new();
        let (child, connection) = started(&machine, ChildPlan::default().vintage(vintage)).await;
        assert_eq!(connection.hello().protocol, vintage.protocol());
        let echoed: Value = connection
            .call("test.echo", &json!({"n": 1}))
            .await
            .unwrap();
        assert_eq!(echoed, json!({"n": 1}));

        let exit = child
            .terminate(Termination::new(TerminationReason::UserStop))
            .await
            .unwrap();
        assert_eq!(exit.code, Some(0));
        assert_eq!(
            exit.reason,
            ExitReason::Requested(TerminationReason::UserStop)
        );
        let gone = connection.closed().await;
        assert_eq!(gone.code, Some(1012));
        assert_eq!(
            gone.shutdown
                .as_ref()
                .and_then(|shutdown| shutdown.restart_expected()),
            None
        );
        assert!(gone.shutdown.is_some());
        assert!(machine.living().is_empty());
        machine.assert_no_violations();
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_cuts_the_connection_and_frees_the_port() {
    let machine = Machine::new();
    let (child, connection) =
        started(&machine, ChildPlan::default().exits_after(secs(60), 3)).await;
    let begin = Instant::now();
    let exit = child.wait().await;
    assert_eq!(
        (exit.code, exit.reason, exit.ran_for),
        (Some(3), ExitReason::Unexpected, secs(60))
    );
    assert!(begin.elapsed() >= secs(59), "in virtual time");
    assert_eq!(connection.closed().await.code, None);
    assert!(machine.host().port_owners(PORT).await.unwrap().is_empty());
    let refused = connect(&machine).await.unwrap_err();
    assert!(
        matches!(&refused, ConnectError::Transport { error, .. } if error.kind == TransportErrorKind::Refused),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn ending_asks_then_forces_then_gives_up() {
    let request = || {
        Termination::new(TerminationReason::Restart)
            .ask_for(secs(4))
            .reap_within(secs(2))
    };

    let machine = Machine::new();
    let (child, _connection) = started(&machine, ChildPlan::default().ignores_ask()).await;
    let begin = Instant::now();
    let exit = child.terminate(request()).await.unwrap();
    assert_eq!(
        (exit.code, exit.signal, begin.elapsed()),
        (None, Some(9), secs(4))
    );
    // Asked again after the end: no further signal.
    assert_eq!(child.terminate(request()).await.unwrap(), exit);
    assert_eq!(
        machine.count(|what| matches!(what, Happening::Asked { .. })),
        1
    );
    assert_eq!(
        machine.count(|what| matches!(what, Happening::Killed { .. })),
        1
    );

    let machine = Machine::new();
    let stuck = ChildPlan {
        unkillable: true,
        ..ChildPlan::default().ignores_ask()
    };
    let (child, _connection) = started(&machine, stuck).await;
    let begin = Instant::now();
    let error = child.terminate(request()).await.unwrap_err();
    assert!(matches!(error, TerminateError::StillAlive { .. }));
    assert_eq!(begin.elapsed(), secs(6));
    assert_eq!(machine.living().len(), 1);

    let machine = Machine::new();
    let (child, _connection) = started(&machine, ChildPlan::default()).await;
    let begin = Instant::now();
    let exit = child
        .terminate(Termination::force(TerminationReason::Unresponsive))
        .await
        .unwrap();
    assert_eq!((exit.signal, begin.elapsed()), (Some(9), Duration::ZERO));
    assert_eq!(
        machine.count(|what| matches!(what, Happening::Asked { .. })),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_kills_on_the_spot() {
    let machine = Machine::new();
    let (child, connection) = started(&machine, ChildPlan::default()).await;
    let other = Arc::clone(&child);
    drop(child);
    assert_eq!(machine.living().len(), 1);
    drop(other);
    assert!(machine.living().is_empty());
    assert_eq!(connection.closed().await.code, None);
}

#[tokio::test(start_paused = true)]
async fn an_agent_run_delays_the_end_and_a_successor_finds_the_port_taken() {
    let machine = Machine::new();
    let mut plan = ChildPlan::default();
    plan.gateway.run_duration = secs(40);
    let (child, connection) = started(&machine, plan).await;
    let send = json!({"sessionKey": "main", "message": "hi", "idempotencyKey": "k"});
    let _: Value = connection.call("chat.send", &send).await.unwrap();
    let begin = Instant::now();
    let request = Termination::new(TerminationReason::UserStop).ask_for(secs(400));
    let exit = child.terminate(request).await.unwrap();
    assert_eq!(exit.code, Some(0));
    assert!(begin.elapsed() >= secs(40), "{:?}", begin.elapsed());

    let (first, _connection) = started(&machine, ChildPlan::default()).await;
    machine.allow_living(2);
    let second = machine.host().spawn(&launch()).await.unwrap();
    let exit = second.wait().await;
    assert_eq!(exit.code, Some(1));
    assert!(second.recent_stderr()[0].contains("EADDRINUSE"));
    assert_eq!(machine.living(), [first.pid()]);
}

#[tokio::test(start_paused = true)]
async fn boot_phases_take_their_time() {
    let machine = Machine::new();
    machine.plan(
        ChildPlan::default()
            .listens_after(secs(5))
            .ready_after(secs(2))
            .says(secs(1), "loading"),
    );
    let child = machine.host().spawn(&launch()).await.unwrap();
    let mut output = child.output();
    output.next().await.unwrap();
    assert_eq!(child.recent_stderr(), ["loading"]);
    assert_eq!(*child.progress().borrow(), 1);
    assert!(connect(&machine).await.is_err(), "nothing listens yet");
    sleep(secs(5)).await;
    let starting = connect(&machine).await.unwrap_err();
    let ConnectError::Refused { error, .. } = &starting else {
        panic!("{starting:?}")
    };
    assert_eq!(error.retry_after_ms, Some(500));
    sleep(secs(2)).await;
    connect(&machine).await.unwrap();

    let machine = Machine::new();
    machine.plan(ChildPlan::default().never_listens());
    let _child = machine.host().spawn(&launch()).await.unwrap();
    sleep(secs(3600)).await;
    assert!(connect(&machine).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_can_be_made_to_misbehave_while_it_runs() {
    let machine = Machine::new();
    let (child, connection) = started(&machine, ChildPlan::default()).await;
    let gateway = machine.gateway(PORT).unwrap();
    gateway.stall();
    let begin = Instant::now();
    let error = connection
        .call::<_, Value>("health", &json!({}))
        .await
        .unwrap_err();
    assert!(matches!(error, RpcError::Timeout { .. }), "{error:?}");
    assert!(begin.elapsed() >= secs(30));
    gateway.resume();
    gateway.begin_restart();
    let gone = connection.closed().await;
    assert_eq!(
        gone.shutdown
            .and_then(|shutdown| shutdown.restart_expected()),
        Some(Duration::from_millis(1500))
    );
    sleep(secs(1)).await;
    connect(&machine).await.unwrap();
    // A test that holds the gateway does not keep it alive.
    child
        .terminate(Termination::force(TerminationReason::UserStop))
        .await
        .unwrap();
    assert!(gateway.connect_in_memory().is_none());
}

/// Also a socket that nobody answers, and one whose other end does not notice that it is gone.
#[tokio::test(start_paused = true)]
async fn sockets_count_as_long_as_the_client_holds_them() {
    let machine = Machine::new();
    assert!(!machine.is_taken(PORT));
    let (child, connection) = started(&machine, ChildPlan::default()).await;
    assert!(machine.is_taken(PORT));
    assert_eq!((machine.open_sockets(), machine.open_connections()), (1, 1));
    let gateway = machine.gateway(PORT).expect("it listens");
    gateway.stall();
    let other = machine.clone();
    let dialling = tokio::spawn(async move { connect(&other).await.map(drop) });
    sleep(secs(1)).await;
    assert_eq!(machine.open_sockets(), 2);
    dialling.abort();
    connection.close(1000, "").await;
    assert_eq!((machine.open_sockets(), machine.open_connections()), (0, 1));
    gateway.resume();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(machine.open_connections(), 0);
    let request = Termination::new(TerminationReason::UserStop);
    child.terminate(request).await.unwrap();

    machine.occupy(
        PORT,
        Foreign {
            pid: None,
            program: None,
            kind: ForeignKind::Silent,
        },
    );
    let other = machine.clone();
    let dialling = tokio::spawn(async move { connect(&other).await.map(drop) });
    sleep(secs(1)).await;
    assert_eq!(machine.open_sockets(), 1);
    dialling.await.unwrap().unwrap_err();
    assert_eq!(machine.open_sockets(), 0);
}

/// Another thread would have its own time.
#[tokio::test(start_paused = true)]
async fn blocking_work_is_done_on_the_spot() {
    let here = std::thread::current().id();
    let (report, reported) = std::sync::mpsc::sync_channel(1);
    let work = BlockingWork::new(move || report.send(std::thread::current().id()).unwrap());
    Machine::new().host().do_blocking(work).await;
    assert_eq!(reported.try_recv(), Ok(here));
}

#[tokio::test(start_paused = true)]
async fn foreign_programs_on_the_port() {
    let machine = Machine::new();
    let mut config = FakeGatewayConfig::default().with_token(TOKEN);
    config.faults.refuse = Some(Refusal::new("NOT_PAIRED", "pairing required"));
    let kind = ForeignKind::Gateway(Box::new(FakeGateway::start_in_memory(config)));
    machine.occupy(
        PORT,
        Foreign {
            pid: Some(7),
            program: Some("openclaw".to_owned()),
            kind,
        },
    );
    assert_eq!(
        machine.host().port_owners(PORT).await.unwrap()[0].pid,
        Some(7)
    );
    assert!(matches!(
        connect(&machine).await.unwrap_err(),
        ConnectError::Refused { .. }
    ));

    machine.occupy(
        PORT,
        Foreign {
            pid: None,
            program: None,
            kind: ForeignKind::Silent,
        },
    );
    let begin = Instant::now();
    connect(&machine).await.unwrap_err();
    assert!(begin.elapsed() >= secs(1), "it waited for an answer");

    machine.occupy(
        PORT,
        Foreign {
            pid: None,
            program: None,
            kind: ForeignKind::WebServer,
        },
    );
    connect(&machine).await.unwrap_err();
    machine.vacate(PORT);
    assert!(machine.host().port_owners(PORT).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn runs_end_in_time_or_are_ended() {
    let machine = Machine::new();
    let repaired = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&repaired);
    machine.plan_run(RunPlan {
        takes: secs(12),
        effect: Some(Arc::new(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        })),
        ..RunPlan::default()
    });
    machine.plan_run(RunPlan {
        takes: secs(500),
        ..RunPlan::default()
    });
    let doctor = LaunchSpec::new("openclaw", Environment::empty()).args(["doctor", "--fix"]);
    let report = machine.host().run(&doctor, secs(120).into()).await.unwrap();
    assert!(report.success());
    let error = machine
        .host()
        .run(&doctor, secs(120).into())
        .await
        .unwrap_err();
    assert!(matches!(error, RunError::TimedOut { .. }));
    machine.plan_run(RunPlan {
        takes: secs(61),
        ..RunPlan::default()
    });
    let limits = RunLimits {
        overall: secs(120),
        silence: Some(secs(60)),
    };
    let error = machine.host().run(&doctor, limits).await.unwrap_err();
    assert!(matches!(error, RunError::Silent { .. }));
    assert_eq!(
        repaired.load(Ordering::Relaxed),
        1,
        "one that is ended has no effect"
    );
}

#[tokio::test(start_paused = true)]
async fn what_must_never_happen_is_noticed() {
    let machine = Machine::new();
    let _first = machine.host().spawn(&launch()).await.unwrap();
    assert!(machine.violations().is_empty());
    let _second = machine.host().spawn(&launch()).await.unwrap();
    assert_eq!(machine.violations().len(), 1, "two living children");
    machine.host().run(&launch(), secs(1).into()).await.unwrap();
    assert_eq!(machine.violations().len(), 2, "a program beside them");
    let panicked = std::panic::catch_unwind(|| machine.assert_no_violations());
    assert!(panicked.is_err());
}

#[tokio::test(start_paused = true)]
async fn starts_that_fail() {
    let machine = Machine::new();
    machine.plan(ChildPlan {
        spawn_failure: Some(SpawnFailure::ProgramNotFound),
        ..ChildPlan::default()
    });
    machine.plan(ChildPlan::default());
    let error = machine.host().spawn(&launch()).await.err().unwrap();
    assert!(matches!(error, SpawnError::ProgramNotFound { .. }));
    assert!(!format!("{:?}", machine.records()).contains(TOKEN));
    machine.host().spawn(&launch()).await.unwrap();
}

/// Two runs of the same story write the same diary, to the millisecond.
#[test]
fn a_story_is_the_same_every_time() {
    let story = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let machine = Machine::new();
            machine.plan(
                ChildPlan::default()
                    .listens_after(Duration::from_millis(700))
                    .exits_after(secs(9), 1),
            );
            machine.plan(
                ChildPlan::default()
                    .listens_after(secs(2))
                    .ready_after(secs(1)),
            );
            for _ in 0..2 {
                let child = machine.host().spawn(&launch()).await.unwrap();
                let connection = loop {
                    match connect(&machine).await {
                        Ok(connection) => break connection,
                        Err(_) => sleep(Duration::from_millis(250)).await,
                    }
                };
                tokio::select! {
                    _ = child.wait() => {}
                    () = sleep(secs(30)) => {}
                }
                let request = Termination::new(TerminationReason::Restart);
                child.terminate(request).await.unwrap();
                connection.closed().await;
            }
            machine.assert_no_violations();
            machine.records()
        })
    };
    let first = story();
    assert!(first.len() > 10, "{first:#?}");
    for _ in 0..20 {
        assert_eq!(story(), first);
    }
}
