//! How children end: by themselves, asked, forced, dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_process::terminate::{DRAIN_FOR, EndingStage, StopMode};
use gateway_process::{
    ExitReason, LaunchSpec, OsProcessHost, ProcessHost, RunError, TerminateError, Termination,
    TerminationReason,
};
use tokio::task::JoinSet;

#[cfg(target_os = "linux")]
use crate::support::executable;
use crate::support::{
    PATIENCE, eventually, is_alive, next_line, next_pid, script, soon, spawn, survivors,
};

/// Takes note of the request, and ends within a moment with a code of its own.
const COOPERATIVE: &str =
    "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.02; done";
/// Does not care. The signal is ignored by its children, too.
const STUBBORN: &str = "trap '' TERM; echo ready; while :; do sleep 1000; done";

const LONG: Duration = Duration::from_secs(600);

fn stop() -> Termination {
    Termination::new(TerminationReason::UserStop).ask_for(PATIENCE)
}

fn requested(reason: TerminationReason) -> ExitReason {
    ExitReason::Requested(reason)
}

#[tokio::test]
async fn a_cooperative_child_ends_by_itself() {
    let child = spawn(COOPERATIVE).await;
    let mut output = child.output();
    assert_eq!(next_line(&mut output).await, "ready");
    let exit = soon(child.terminate(stop())).await.unwrap();
    assert_eq!(
        (exit.pid, exit.code, exit.signal),
        (child.pid(), Some(5), None)
    );
    assert_eq!(exit.reason, requested(TerminationReason::UserStop));
    assert_eq!(next_line(&mut output).await, "asked");
    assert_eq!(soon(output.next()).await, None);
    assert!(!is_alive(exit.pid));
}

#[tokio::test]
async fn a_child_that_ignores_the_request_is_forced_when_its_time_is_over() {
    let child = spawn(STUBBORN).await;
    next_line(&mut child.output()).await;
    let ask_for = Duration::from_millis(150);
    let start = Instant::now();
    let exit = soon(child.terminate(stop().ask_for(ask_for)))
        .await
        .unwrap();
    assert!(start.elapsed() >= ask_for);
    assert!(!is_alive(exit.pid), "the call returns after the exit");
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    assert_eq!(exit.reason, requested(TerminationReason::UserStop));
}

/// A stopped process does not even see the request.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_stopped_child_is_forced() {
    let child = spawn("trap 'exit 0' TERM; kill -STOP $$; exit 1").await;
    let stat = format!("/proc/{}/stat", child.pid());
    eventually("the stop", || {
        std::fs::read_to_string(&stat).unwrap().contains(") T ")
    });
    assert!(child.sample().is_some_and(|sample| sample.halted));
    let request = stop().ask_for(Duration::from_millis(100));
    let exit = soon(child.terminate(request)).await.unwrap();
    assert_eq!(exit.signal, Some(9));
    assert_eq!(child.sample(), None, "nothing is told of what is gone");
}

/// Two looks tell work from idleness.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_child_can_be_seen() {
    use gateway_policy::liveness::Activity;
    const BUSY: &str = "echo ready; while :; do :; done";
    const IDLE: &str = "echo ready; exec sleep 1000";
    const TALKATIVE: &str = "echo ready; while :; do sleep 0.02; echo more; done";
    for (script, activity) in [
        (BUSY, Activity::Working),
        (IDLE, Activity::Idle),
        (TALKATIVE, Activity::Working),
    ] {
        let child = spawn(script).await;
        let mut output = child.output();
        next_line(&mut output).await;
        // The first look may still see how it began.
        eventually("what it does", || {
            let (before, begun) = (child.sample().unwrap(), Instant::now());
            // Long enough for the clock by which processor time is counted, whose steps are hundredths of a second.
            std::thread::sleep(Duration::from_millis(200));
            let after = child.sample().unwrap();
            Activity::between(&before, &after, begun.elapsed()) == activity
        });
        soon(child.terminate(stop())).await.unwrap();
    }
}

#[tokio::test]
async fn no_grandchild_outlives_a_terminated_child() {
    let child = spawn(
        "trap 'exit 0' TERM; sleep 1000 & echo $!; (sleep 1000 & echo $!; wait) & echo $!; wait",
    )
    .await;
    let mut output = child.output();
    let grandchildren = [
        next_pid(&mut output).await,
        next_pid(&mut output).await,
        next_pid(&mut output).await,
    ];
    assert!(grandchildren.iter().all(|pid| is_alive(*pid)));
    let exit = soon(child.terminate(stop())).await;
    assert_eq!(survivors(grandchildren), Vec::<u32>::new());
    let exit = exit.unwrap();
    assert_eq!(exit.code, Some(0), "the leader was asked, not forced");
    if cfg!(target_os = "linux") {
        for pid in grandchildren {
            assert!(exit.leftovers.contains(&pid), "{exit}");
        }
    }
}

#[tokio::test]
async fn what_a_crashed_child_leaves_behind_is_killed() {
    let child = spawn("sleep 1000 & echo $!; exit 70").await;
    let grandchild = next_pid(&mut child.output()).await;
    let exit = soon(child.wait()).await;
    assert_eq!(
        (exit.code, exit.reason.clone()),
        (Some(70), ExitReason::Unexpected)
    );
    assert_eq!(survivors([grandchild]), Vec::<u32>::new());
    if cfg!(target_os = "linux") {
        assert_eq!(exit.leftovers, [grandchild]);
    }
}

/// Nothing ties a descendant to us that has a session of its own and a clean environment. It is not touched, and its hold on our pipe
/// does not stop us.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_process_that_shed_every_tie_holds_the_pipe_and_delays_nobody() {
    let child = spawn(
        "echo before; setsid env -i PATH=\"$PATH\" sh -c 'echo $$; exec sleep 1000' & sleep 0.2; exit 3",
    )
    .await;
    let mut output = child.output();
    assert_eq!(next_line(&mut output).await, "before");
    let outsider = next_pid(&mut output).await;
    let exit = soon(child.wait()).await;
    assert_eq!(survivors([outsider]), [outsider], "it was not touched");
    assert_eq!(
        (exit.code, exit.leftovers.as_slice()),
        (Some(3), [].as_slice())
    );
    assert_eq!(
        soon(output.next()).await,
        None,
        "the stream ends with the child"
    );
}

/// Whoever watches sees that it was asked, that its time was cut short, that it was forced, and that it is gone.
#[tokio::test]
async fn an_ending_can_be_watched_and_made_quicker() {
    let child = spawn(STUBBORN).await;
    assert_eq!(next_line(&mut child.output()).await, "ready");
    let mut ending = child.ending();
    assert_eq!(ending.borrow_and_update().stage, EndingStage::NotAsked);
    let draining = tokio::spawn({
        let child = Arc::clone(&child);
        async move {
            let request = Termination::in_mode(TerminationReason::UserStop, StopMode::Drain);
            child.terminate(request).await
        }
    });
    soon(ending.changed()).await.unwrap();
    let asked = *ending.borrow_and_update();
    let left = asked.force_at.unwrap() - asked.since.unwrap();
    assert_eq!(asked.stage, EndingStage::Asked);
    assert!(left > DRAIN_FOR - PATIENCE && left <= DRAIN_FOR, "{left:?}");
    let bounded = StopMode::Bounded(Duration::from_millis(50));
    let request = Termination::in_mode(TerminationReason::Restart, bounded);
    let exit = soon(child.terminate(request)).await.unwrap();
    assert_eq!(
        (exit.signal, exit.reason),
        (Some(9), requested(TerminationReason::UserStop)),
        "the first reason stays"
    );
    soon(draining).await.unwrap().unwrap();
    let gone = *ending.borrow_and_update();
    assert_eq!(
        (gone.stage, gone.since, gone.force_at),
        (EndingStage::Gone, asked.since, None)
    );
}

/// Three levels, the last of them a daemon: in another session, its parent gone, its output closed.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_daemon_three_levels_down_goes_with_the_child() {
    let folder = tempfile::tempdir().unwrap();
    let level = |name: &str, text: &str| executable(&folder.path().join(name), text);
    let daemon = level("daemon", "echo $$; exec sleep 1000 >/dev/null 2>&1");
    let daemon = format!("echo $$; (setsid {} &); exec sleep 1000", daemon.display());
    let second = level("second", &daemon);
    let second = format!("echo $$; {} & exec sleep 1000", second.display());
    let first = level("first", &second);
    for (then, code) in [
        ("trap '' TERM; sleep 1000", None),
        ("sleep 0.3; exit 7", Some(7)),
    ] {
        let child = spawn(&format!("{} & {then}", first.display())).await;
        let mut output = child.output();
        let mut tree = Vec::new();
        for _ in 0..3 {
            tree.push(next_pid(&mut output).await);
        }
        let exit = if code.is_none() {
            let request =
                Termination::new(TerminationReason::UserStop).ask_for(Duration::from_millis(100));
            soon(child.terminate(request)).await.unwrap()
        } else {
            soon(child.wait()).await
        };
        assert_eq!(survivors(tree), Vec::<u32>::new(), "{exit}");
        assert_eq!(exit.code, code);
    }
}

#[tokio::test]
async fn an_exit_nobody_asked_for_is_unexpected_and_a_late_request_sends_nothing() {
    let child = spawn("echo oops >&2; exit 78").await;
    let exit = soon(child.wait()).await;
    assert_eq!(
        (exit.code, exit.reason.clone()),
        (Some(78), ExitReason::Unexpected)
    );
    assert_eq!(child.recent_stderr(), ["oops"]);
    // The number is free by now; whoever gets it must not be hurt. The answer is the exit as it was.
    assert_eq!(
        soon(child.terminate(Termination::force(TerminationReason::Restart))).await,
        Ok(exit.clone())
    );
    assert_eq!(soon(child.wait()).await, exit);
}

/// The owning task has had no chance to run yet, but the exit is a fact, and it came before the request.
#[tokio::test]
async fn an_exit_that_nobody_has_noticed_is_still_unexpected() {
    let child = spawn("exit 4").await;
    let pid = child.pid();
    eventually("the exit", || !is_alive(pid));
    let exit = soon(child.terminate(stop())).await.unwrap();
    assert_eq!((exit.code, exit.reason), (Some(4), ExitReason::Unexpected));
}

#[tokio::test]
async fn all_waiters_get_the_same_exit_and_may_leave_early() {
    let child = spawn(COOPERATIVE).await;
    next_line(&mut child.output()).await;
    let mut waiters = JoinSet::new();
    for n in 0..50 {
        let child = Arc::clone(&child);
        waiters.spawn(async move {
            if n % 5 == 0 {
                // Leaves without having seen anything.
                return tokio::time::timeout(Duration::from_millis(1), child.wait())
                    .await
                    .ok();
            }
            Some(child.wait().await)
        });
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let exit = soon(child.terminate(stop())).await.unwrap();
    let mut seen = 0;
    while let Some(waiter) = soon(waiters.join_next()).await {
        if let Some(other) = waiter.unwrap() {
            assert_eq!(other, exit);
            seen += 1;
        }
    }
    assert_eq!(seen, 40);
}

#[tokio::test]
async fn a_second_request_can_only_make_it_quicker() {
    let child = spawn(STUBBORN).await;
    next_line(&mut child.output()).await;
    let patient = {
        let child = Arc::clone(&child);
        tokio::spawn(async move { child.terminate(stop().ask_for(LONG)).await })
    };
    // Give the first request its turn.
    while !patient.is_finished() && Arc::strong_count(&child) < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    let later = {
        let child = Arc::clone(&child);
        tokio::spawn(async move {
            child
                .terminate(Termination::new(TerminationReason::Restart).ask_for(LONG))
                .await
        })
    };
    let impatient = soon(child.terminate(Termination::force(TerminationReason::Unresponsive)))
        .await
        .unwrap();
    assert_eq!(impatient.signal, Some(9));
    assert_eq!(
        impatient.reason,
        requested(TerminationReason::UserStop),
        "the first reason stays"
    );
    assert_eq!(soon(patient).await.unwrap().unwrap(), impatient);
    assert_eq!(soon(later).await.unwrap().unwrap(), impatient);
}

#[tokio::test]
async fn a_dropped_request_is_carried_out_all_the_same() {
    let child = spawn(STUBBORN).await;
    next_line(&mut child.output()).await;
    let request = stop().ask_for(Duration::from_millis(100));
    let cut_short = tokio::time::timeout(Duration::from_millis(5), child.terminate(request)).await;
    assert!(cut_short.is_err());
    let exit = soon(child.wait()).await;
    assert_eq!(
        (exit.signal, exit.reason),
        (Some(9), requested(TerminationReason::UserStop))
    );
}

#[tokio::test]
async fn who_gives_up_too_early_is_told_so_and_the_child_is_still_collected() {
    let child = spawn(STUBBORN).await;
    next_line(&mut child.output()).await;
    // Zero time to see the exit of a child that is only asked.
    let first = stop().ask_for(Duration::from_millis(50));
    let waiting = {
        let child = Arc::clone(&child);
        tokio::spawn(async move { child.terminate(first.reap_within(PATIENCE)).await })
    };
    let hasty = Termination::new(TerminationReason::Restart)
        .ask_for(Duration::from_millis(1))
        .reap_within(Duration::ZERO);
    match child.terminate(hasty).await {
        Err(TerminateError::StillAlive {
            pid, signal_error, ..
        }) => {
            assert_eq!((pid, signal_error), (child.pid(), None));
        }
        // The forced process may be gone within the same millisecond.
        Ok(exit) => assert_eq!(exit.signal, Some(9)),
        Err(other) => panic!("{other}"),
    }
    assert_eq!(soon(waiting).await.unwrap().unwrap().signal, Some(9));
}

#[tokio::test]
async fn dropping_the_last_handle_kills_the_group() {
    let child = spawn("sleep 1000 & echo $!; trap '' TERM; wait").await;
    let grandchild = next_pid(&mut child.output()).await;
    let pid = child.pid();
    let other = Arc::clone(&child);
    drop(child);
    assert!(
        is_alive(pid) && is_alive(grandchild),
        "there is another handle"
    );
    drop(other);
    // Synchronous: no task of this runtime has run since.
    eventually("the end of the group", || {
        !is_alive(pid) && !is_alive(grandchild)
    });
}

#[test]
fn dropping_the_handle_outside_a_runtime_kills_the_group() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (child, grandchild) = runtime.block_on(async {
        let child = spawn("sleep 1000 & echo $!; wait").await;
        let grandchild = next_pid(&mut child.output()).await;
        (child, grandchild)
    });
    let pid = child.pid();
    drop(child);
    eventually("the end of the group", || {
        !is_alive(pid) && !is_alive(grandchild)
    });
    drop(runtime);
    assert!(
        !std::path::Path::new(&format!("/proc/{pid}")).exists(),
        "and nothing is left of it"
    );
}

#[test]
fn the_end_of_the_runtime_is_the_end_of_the_child_and_its_waiters_are_told() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (child, grandchild) = runtime.block_on(async {
        let child = spawn("sleep 1000 & echo $!; wait").await;
        let grandchild = next_pid(&mut child.output()).await;
        (child, grandchild)
    });
    drop(runtime);
    assert!(!is_alive(child.pid()));
    eventually("the end of the grandchild", || !is_alive(grandchild));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let exit = runtime.block_on(async { soon(child.wait()).await });
    assert_eq!(
        (exit.signal, exit.reason),
        (Some(9), requested(TerminationReason::Superseded))
    );
    let again = runtime.block_on(async { soon(child.terminate(stop())).await.unwrap() });
    assert_eq!(again.signal, Some(9));
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_over_when_the_call_returns() {
    let spec: LaunchSpec = script("trap '' TERM; sleep 1000 & echo $$ $!; wait; wait");
    let error = soon(OsProcessHost::new().run(&spec, Duration::from_millis(300).into()))
        .await
        .unwrap_err();
    let RunError::TimedOut {
        command, report, ..
    } = &error
    else {
        panic!("{error}");
    };
    assert!(command.starts_with("sh -c"));
    assert_eq!(
        report.exit.reason,
        requested(TerminationReason::DeadlineExceeded)
    );
    for pid in report.output[0].text.split(' ') {
        assert!(!is_alive(pid.parse().unwrap()), "{error}");
    }
    assert!(error.to_string().contains("300ms"), "{error}");
}

/// A doctor that prints its environment and then hangs must not put the token into the error.
#[tokio::test]
async fn the_last_words_of_a_run_that_takes_too_long_hold_no_secret() {
    let mut spec = script("echo \"it is $OPENCLAW_GATEWAY_TOKEN, $KEY\"; exec sleep 1000");
    spec.env
        .set_secret("OPENCLAW_GATEWAY_TOKEN", "s3cret-value".into())
        .set("KEY", "another-secret");
    let error = soon(OsProcessHost::new().run(&spec, Duration::from_secs(1).into()))
        .await
        .unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("it is [redacted], [redacted]"), "{text}");
    for secret in ["s3cret-value", "another-secret"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// The same in the other order: whoever drops the future of a run leaves nothing behind.
#[tokio::test]
async fn a_dropped_run_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let spec = script(&format!(
        "echo $$ > {0}.new; mv {0}.new {0}; sleep 1000",
        file.display()
    ));
    let host = OsProcessHost::new();
    let run = host.run(&spec, PATIENCE.into());
    let started = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        result = run => panic!("{result:?}"),
        () = soon(started) => {}
    }
    let pid = std::fs::read_to_string(&file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    eventually("the end of the run", || !is_alive(pid));
}

#[tokio::test]
async fn the_exit_is_described() {
    let child = spawn("exit 78").await;
    let exit = soon(child.wait()).await;
    let text = exit.to_string();
    assert!(
        text.contains(&format!("process {} exited with code 78", child.pid())),
        "{text}"
    );
    assert!(exit.ran_for < PATIENCE);
}

/// The request comes before the task that carries it out had its first turn.
#[tokio::test]
async fn a_child_may_be_ended_in_the_moment_of_its_start() {
    let child = spawn("exec sleep 1000").await;
    let exit = soon(child.terminate(Termination::force(TerminationReason::Superseded)))
        .await
        .unwrap();
    assert_eq!(
        (exit.signal, exit.reason),
        (Some(9), requested(TerminationReason::Superseded))
    );
    let child = spawn("exec sleep 1000").await;
    let exit = soon(child.terminate(stop())).await.unwrap();
    assert_eq!(exit.signal, Some(15));
}
