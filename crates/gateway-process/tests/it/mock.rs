//! The generated mocks, used as a consumer would use them.

use std::sync::Arc;
use std::time::Duration;

use gateway_process::{
    ChildExit, ConfigRepair, Environment, ExitReason, LaunchSpec, ManagedChild, MockManagedChild,
    MockProcessHost, ProcessHost, RunReport, Termination, TerminationReason,
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
        .times(2)
        .returning(|work| work.run());
    host.expect_run()
        .withf(|spec, deadline| spec.has_arg("doctor") && *deadline == Duration::from_secs(120))
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
    assert!(outcome.succeeded() && !outcome.changed);
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
