//! The generated mocks, used as a consumer would use them.

use std::sync::Arc;
use std::time::Duration;

use gateway_process::run::run_to_end;
use gateway_process::{
    ChildExit, ConfigRepair, Environment, ExitReason, LaunchSpec, ManagedChild, MockManagedChild,
    MockProcessHost, OutputLine, OutputSender, OutputSource, ProcessHost, RunLimits, RunReport,
    StderrLevel, Termination, TerminationReason,
};

fn exit(code: i32, reason: ExitReason) -> ChildExit {
    ChildExit {
        pid: 4711,
        code: Some(code),
        signal: None,
        reason,
        ran_for: Duration::from_secs(1),
        leftovers: Vec::new(),
    }
}

#[tokio::test]
async fn a_repair_runs_on_a_mocked_host() {
    let mut host = MockProcessHost::new();
    host.expect_do_blocking()
        .times(3)
        .returning(|work| work.run());
    host.expect_run()
        .withf(|spec, limits| {
            let expected = RunLimits {
                overall: Duration::from_secs(600),
                silence: Some(Duration::from_secs(240)),
            };
            spec.has_arg("doctor") && *limits == expected
        })
        .times(1)
        .returning(|_, _| {
            Ok(RunReport {
                exit: exit(0, ExitReason::Unexpected),
                output: Vec::new(),
                dropped_lines: 0,
            })
        });
    let folder = tempfile::tempdir().unwrap();
    let doctor = LaunchSpec::new("openclaw", Environment::empty()).args(["doctor"]);
    let outcome = ConfigRepair::new(doctor, folder.path().join("openclaw.json"))
        .run(&host)
        .await
        .unwrap();
    assert!(outcome.succeeded() && !outcome.changed());
}

#[tokio::test]
async fn a_mocked_host_hands_out_mocked_children() {
    let mut host = MockProcessHost::new();
    host.expect_spawn().returning(|_| {
        let mut child = MockManagedChild::new();
        child.expect_pid().return_const(4711_u32);
        child
            .expect_terminate()
            .withf(|request| request.reason == TerminationReason::Restart)
            .returning(|request| Ok(exit(0, ExitReason::Requested(request.reason))));
        Ok(Arc::new(child) as Arc<dyn ManagedChild>)
    });
    let host: Arc<dyn ProcessHost> = Arc::new(host);
    let child = host
        .spawn(&LaunchSpec::new("gateway", Environment::empty()))
        .await
        .unwrap();
    let ended = child
        .terminate(Termination::new(TerminationReason::Restart))
        .await
        .unwrap();
    assert_eq!(
        (child.pid(), ended.reason),
        (4711, ExitReason::Requested(TerminationReason::Restart))
    );
}

/// Its output is what keeps it going, not the time since its start.
#[tokio::test(start_paused = true)]
async fn a_program_that_talks_may_take_longer_than_it_may_be_silent() {
    let limits = RunLimits {
        overall: Duration::from_secs(300),
        silence: Some(Duration::from_secs(60)),
    };
    // Seconds between the lines, and after the last one; what ends the run, and when.
    let table = [
        (vec![59, 59, 59, 59, 59], Ok(()), 295),
        (vec![59, 59, 61], Err("printed nothing for 60s"), 178),
        (vec![61], Err("printed nothing for 60s"), 60),
        (vec![50; 7], Err("within 300s"), 300),
    ];
    for (pauses, expected, seconds) in table {
        let mut host = MockProcessHost::new();
        let talks = pauses.clone();
        host.expect_spawn().returning(move |_| {
            let (sender, stream) = OutputSender::channel(16);
            let talks = talks.clone();
            let talking = tokio::spawn(async move {
                for pause in talks {
                    tokio::time::sleep(Duration::from_secs(pause)).await;
                    sender.send(OutputLine {
                        stream: OutputSource::Stdout,
                        level: StderrLevel::Quiet,
                        truncated: false,
                        text: "still here".into(),
                    });
                }
            });
            let mut child = MockManagedChild::new();
            let stream = std::sync::Mutex::new(Some(stream));
            child
                .expect_output()
                .returning(move || stream.lock().unwrap().take().unwrap());
            child
                .expect_wait()
                .returning(|| exit(0, ExitReason::Unexpected));
            child.expect_terminate().returning(move |request| {
                talking.abort();
                Ok(exit(1, ExitReason::Requested(request.reason)))
            });
            Ok(Arc::new(child) as Arc<dyn ManagedChild>)
        });
        let began = tokio::time::Instant::now();
        let spec = LaunchSpec::new("openclaw", Environment::empty());
        let result = run_to_end(&host, &spec, limits).await;
        assert_eq!(began.elapsed().as_secs(), seconds, "{pauses:?}: {result:?}");
        match (result, expected) {
            (Ok(report), Ok(())) => assert_eq!(report.output.len(), pauses.len()),
            (Err(error), Err(says)) => assert!(error.to_string().contains(says), "{error}"),
            (result, _) => panic!("{pauses:?}: {result:?}"),
        }
    }
}
