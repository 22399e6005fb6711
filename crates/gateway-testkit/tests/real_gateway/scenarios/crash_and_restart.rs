//! A restart that the user asks for, and a gateway that is killed: the same handle and port, another process.

use std::time::Instant;

use gateway_client::CallOutcome;
use gateway_manager::{FailureClass, ManagerError, Phase, PortChoice};
use gateway_process::{ExitReason, TerminationReason};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::processes;
use crate::report::{ANSWER, BOOT, step, took};
use crate::sandbox::Sandbox;
use crate::supervised::{Supervised, status_of};

pub(crate) async fn run() {
    let sandbox = Sandbox::new();
    // The port that the manager finds has to stay.
    let gateway = Supervised::new(sandbox.builder().await.port(PortChoice::Free));
    let first = gateway.start("start on a free port").await;
    let port = gateway.manager.port().expect("a port");

    let second = restart(&gateway, first).await;
    assert_eq!(gateway.manager.port(), Some(port));
    let third = survive_a_kill(&gateway, second, port).await;
    assert_eq!(gateway.manager.port(), Some(port));
    assert!(
        first != second && second != third,
        "{first} {second} {third}"
    );

    gateway.stop("stop").await;
    gateway.no_warnings().await;
}

async fn restart(gateway: &Supervised, old: u32) -> u32 {
    let (mark, tree) = (gateway.mark(), gateway.tree());
    step("restart by the user", BOOT, gateway.manager.restart())
        .await
        .expect("a restart");
    // The answer comes when the successor serves, not before.
    let new = gateway.running_pid();
    assert_ne!(new, old);
    processes::gone(&tree).await;
    gateway.serves().await;

    let exits = gateway.exits(mark).await;
    assert_eq!(exits.len(), 1, "{exits:?}");
    assert_eq!((exits[0].pid, exits[0].code), (old, Some(0)));
    assert_eq!(
        exits[0].reason,
        ExitReason::Requested(TerminationReason::Restart)
    );
    new
}

async fn survive_a_kill(gateway: &Supervised, victim: u32, port: u16) -> u32 {
    let (mark, tree) = (gateway.mark(), gateway.tree());
    let mut status = gateway.manager.status();

    // A stopped process still receives: the call is in flight as soon as its bytes wait to be read.
    processes::send(victim, Signal::STOP);
    let manager = gateway.manager.clone();
    let call = tokio::spawn(async move { manager.call::<_, Value>("health", &json!({})).await });
    step(
        "call in flight",
        ANSWER,
        processes::until("bytes at the gateway", ANSWER, || {
            processes::unread(port) > 0
        }),
    )
    .await;

    let killed = Instant::now();
    processes::send(victim, Signal::KILL);
    let outcome = step("call in flight settled after SIGKILL", ANSWER, call)
        .await
        .expect("a task that does not panic");
    match &outcome {
        Err(ManagerError::Call(error)) => {
            assert_eq!(error.outcome(), CallOutcome::Unknown, "{error}")
        }
        other => panic!("{other:?}"),
    }

    let running = step("SIGKILL to running again", BOOT, async {
        let new = status
            .wait_for(|status| status.is_running() && status.pid.is_some_and(|pid| pid != victim))
            .await;
        new.expect("a manager that lives").clone()
    })
    .await;
    let exits = gateway.exits(mark).await;
    assert_eq!(exits.len(), 1, "{exits:?}");
    assert_eq!((exits[0].pid, exits[0].signal), (victim, Some(9)));
    assert_eq!(exits[0].reason, ExitReason::Unexpected);
    let lost = gateway
        .picked(mark, |event| {
            let status = status_of(event).filter(|status| status.phase == Phase::BackingOff)?;
            Some(status.failure?.class)
        })
        .await;
    assert_eq!(lost, [FailureClass::Temporary]);
    assert_eq!(running.attempts, 1);
    processes::gone(&tree).await;
    gateway.serves().await;
    took("SIGKILL to the next answer", killed.elapsed());
    gateway.running_pid()
}
