//! How children end on Windows: by themselves, ended, dropped, and with their owner.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use gateway_process::{
    ExitReason, OsProcessHost, ProcessHost, RunError, Termination, TerminationReason,
};

use crate::child::{PATIENCE, command, next_pid, next_said, part, soon, spawn};
use crate::processes::{Process, held};

fn stop() -> Termination {
    Termination::new(TerminationReason::UserStop)
}

fn requested(reason: TerminationReason) -> ExitReason {
    ExitReason::Requested(reason)
}

/// A child with a child and its child.
async fn family() -> (Arc<dyn gateway_process::ManagedChild>, [Process; 3]) {
    let child = spawn("family").await;
    let mut output = child.output();
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(held(next_pid(&mut output).await));
    }
    let members: [Process; 3] = members.try_into().unwrap();
    assert!(members.iter().all(Process::is_alive));
    (child, members)
}

/// Nobody who was started outlives it, and as Windows has nothing to ask with, it takes no longer than that.
#[tokio::test]
async fn a_request_ends_the_whole_family_at_once() {
    for request in [stop(), Termination::force(TerminationReason::Restart)] {
        let (child, members) = family().await;
        let reason = request.reason.clone();
        let asked_for = Duration::from_secs(600);
        let exit = soon(child.terminate(Termination {
            ask_for: request.ask_for.min(asked_for),
            ..request
        }))
        .await
        .unwrap();
        assert!(
            members.iter().all(|member| !member.is_alive()),
            "the call returns after the end of all"
        );
        assert_eq!(
            (exit.pid, exit.code, exit.signal, exit.reason.clone()),
            (child.pid(), Some(1), None, requested(reason))
        );
        // The answer to a second request is the same exit.
        assert_eq!(soon(child.terminate(stop())).await, Ok(exit.clone()));
        assert_eq!(soon(child.wait()).await, exit);
        assert_eq!(child.sample(), None, "nothing is told of what is gone");
    }
}

#[tokio::test]
async fn what_a_crashed_child_leaves_behind_is_ended_and_named() {
    let child = spawn("crash").await;
    let pid = next_pid(&mut child.output()).await;
    let exit = soon(child.wait()).await;
    assert_eq!(
        (exit.code, exit.reason.clone()),
        (Some(70), ExitReason::Unexpected)
    );
    assert!(exit.leftovers.contains(&pid), "{exit:?}");
}

/// Leaving the job is what would make an orphan of a process that is started in the background.
#[tokio::test]
async fn nobody_leaves_the_job() {
    let child = spawn("break away").await;
    let said = next_said(&mut child.output()).await;
    // A system may refuse the start, or start it inside; outside it must not be.
    let starter = said.parse().ok().map(held);
    soon(child.terminate(stop())).await.unwrap();
    if let Some(started) = starter {
        assert!(started.ends(), "a process left the job");
    }
}

#[tokio::test]
async fn an_exit_that_nobody_asked_for_is_unexpected() {
    let child = spawn("shout").await;
    let exit = soon(child.wait()).await;
    assert_eq!(
        (exit.code, exit.reason.clone()),
        (Some(78), ExitReason::Unexpected)
    );
    assert!(
        child.recent_stderr().iter().any(|line| line == "oops"),
        "{:?}",
        child.recent_stderr()
    );
    assert_eq!(
        soon(child.terminate(Termination::force(TerminationReason::Restart))).await,
        Ok(exit)
    );
}

/// The owning task has had no chance to run yet, but the exit is a fact, and it came before the request.
#[tokio::test]
async fn an_exit_that_nobody_has_noticed_is_still_unexpected() {
    let child = spawn("shout").await;
    assert!(held(child.pid()).ends());
    let exit = soon(child.terminate(stop())).await.unwrap();
    assert_eq!((exit.code, exit.reason), (Some(78), ExitReason::Unexpected));
}

#[tokio::test]
async fn a_child_may_be_ended_in_the_moment_of_its_start() {
    let child = spawn("wait").await;
    let exit = soon(child.terminate(Termination::force(TerminationReason::Superseded)))
        .await
        .unwrap();
    assert_eq!(exit.reason, requested(TerminationReason::Superseded));
}

/// Synchronous: no task of this runtime runs between the drop and the look.
#[tokio::test]
async fn dropping_the_last_handle_ends_the_family() {
    let (child, members) = family().await;
    let other = Arc::clone(&child);
    drop(child);
    assert!(
        members.iter().all(Process::is_alive),
        "there is another handle"
    );
    drop(other);
    assert!(members.iter().all(Process::ends));
}

#[test]
fn the_end_of_the_runtime_is_the_end_of_the_family_and_its_waiters_are_told() {
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let (child, members) = first.block_on(family());
    drop(first);
    assert!(!members[0].is_alive() && members.iter().all(Process::ends));
    let exit = runtime().block_on(async { soon(child.wait()).await });
    assert_eq!(
        (exit.code, exit.reason),
        (Some(1), requested(TerminationReason::Superseded))
    );
}

/// Killed, an owner can do nothing any more; the system closes the handle of the job.
#[test]
fn a_killed_owner_takes_the_family_along() {
    let mut owner = command("owner").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let pids = lines.filter_map(|line| line.unwrap().strip_prefix("said ")?.parse().ok());
    let members: Vec<Process> = pids.take(3).map(held).collect();
    assert_eq!(members.len(), 3);
    assert!(members.iter().all(Process::is_alive));
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(members.iter().all(Process::ends));
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_over_when_the_call_returns() {
    let error = soon(OsProcessHost::new().run(&part("family"), Duration::from_secs(3).into()))
        .await
        .unwrap_err();
    let RunError::TimedOut { report, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(
        report.exit.reason,
        requested(TerminationReason::DeadlineExceeded)
    );
    assert!(error.to_string().contains("3s"), "{error}");
}

/// Two looks tell work from idleness, and they see this process's child and not another.
#[tokio::test(flavor = "multi_thread")]
async fn the_processor_time_of_a_child_is_told() {
    let child = spawn("wait").await;
    next_said(&mut child.output()).await;
    let sample = child.sample().expect("a living child");
    assert!(
        !sample.halted && sample.processor_time < PATIENCE,
        "{sample:?}"
    );
    soon(child.terminate(stop())).await.unwrap();
    assert_eq!(child.sample(), None);
}
