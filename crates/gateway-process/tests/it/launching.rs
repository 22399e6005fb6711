//! What a child gets at its start, and what happens when there is none.

use std::task::{Context, Poll, Waker};

use gateway_process::ownership::LAUNCH_SIGN;
use gateway_process::{
    Environment, LaunchSpec, OsProcessHost, OutputSource, ProcessHost, SpawnError,
};

use crate::support::{PATIENCE, executable, next_line, script, soon};

async fn refused(spec: &LaunchSpec) -> SpawnError {
    match OsProcessHost::new().spawn(spec).await {
        Ok(child) => panic!("process {} was started", child.pid()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn the_environment_is_complete_and_only_the_sign_of_the_launch_is_added() {
    let mut env = Environment::from_vars([
        ("HOME", "/nowhere"),
        ("INVOCATION_ID", "x"),
        ("NODE_OPTIONS", "--inspect"),
    ]);
    env.set("OPENCLAW_NO_RESPAWN", "1")
        .set_secret("OPENCLAW_GATEWAY_TOKEN", "s3cret-value".into());
    let spec = LaunchSpec::new("/usr/bin/env", env);
    let report = soon(OsProcessHost::new().run(&spec, PATIENCE.into()))
        .await
        .unwrap();
    let mut lines: Vec<_> = report.lines(OutputSource::Stdout).collect();
    lines.sort_unstable();
    let sign = lines.remove(0);
    assert!(
        sign.strip_prefix(LAUNCH_SIGN)
            .is_some_and(|rest| rest.len() == 1 + 32),
        "{sign}"
    );
    assert_eq!(
        lines,
        [
            "HOME=/nowhere",
            "OPENCLAW_GATEWAY_TOKEN=s3cret-value",
            "OPENCLAW_NO_RESPAWN=1"
        ]
    );
}

#[tokio::test]
async fn stdin_is_empty_and_the_child_leads_its_own_group_in_its_own_folder() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap();
    // `cat` ends at once only when there is nothing to read.
    let child = OsProcessHost::new()
        .spawn(&script("cat; pwd; exec sleep 1000").current_dir(&real))
        .await
        .unwrap();
    assert_eq!(
        Some(next_line(&mut child.output()).await.as_str()),
        real.to_str()
    );
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.pid()).unwrap());
    assert_eq!(rustix::process::getpgid(pid).ok(), pid);
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named() {
    let spec =
        LaunchSpec::new("/no/such/openclaw", Environment::from_parent()).args(["--token", "abc"]);
    let error = refused(&spec).await;
    assert!(
        matches!(error, SpawnError::ProgramNotFound { .. }),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "cannot start `/no/such/openclaw --token [redacted]`: the program /no/such/openclaw does not exist; install it or correct the path"
    );
    let error = refused(&LaunchSpec::new(
        "no-such-openclaw",
        Environment::from_parent(),
    ))
    .await;
    assert!(
        matches!(error, SpawnError::ProgramNotFound { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_program_that_cannot_run_is_told_from_one_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let env = Environment::from_parent;
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "text").unwrap();
    let error = refused(&LaunchSpec::new(&plain, env())).await;
    assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error}");
    let interpreter = executable(&folder.path().join("script"), "exit 0");
    let text = std::fs::read_to_string(&interpreter)
        .unwrap()
        .replace("/bin/sh", "/no/such/sh");
    std::fs::write(&interpreter, text).unwrap();
    let error = refused(&LaunchSpec::new(&interpreter, env())).await;
    assert!(matches!(error, SpawnError::NotExecutable { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_working_directory_is_named() {
    let error = refused(&script("exit 0").current_dir("/no/such/folder")).await;
    assert!(
        matches!(error, SpawnError::WorkingDirectory { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}

#[test]
fn outside_a_runtime_there_is_an_error_and_no_child() {
    let spec = script("exit 0");
    let host = OsProcessHost::new();
    let mut spawning = host.spawn(&spec);
    match spawning
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(Err(error)) => {
            assert!(matches!(error, SpawnError::NoRuntime { .. }), "{error}")
        }
        Poll::Ready(Ok(_)) => panic!("started without a runtime"),
        Poll::Pending => panic!("waits for something"),
    }
}
