//! A gateway that is stopped with a signal: told from a dead one, taken back when it goes on, replaced when it never does.

use std::time::Duration;

use gateway_manager::{GatewayStatus, LifecycleConfig};
use gateway_policy::liveness::Verdict;
use rustix::process::Signal;

use crate::installation::traits;
use crate::processes;
use crate::report::{BOOT, skipped, step};
use crate::sandbox::Sandbox;
use crate::supervised::Supervised;

/// Gateways tick every 30 s, and one tick of silence has to pass before anybody asks.
const NOTICED: Duration = Duration::from_secs(60);

pub(crate) async fn run() {
    if !traits().has_helpers {
        return skipped(
            "halted",
            "what a signal does to it does not depend on the release, and takes minutes to show",
        );
    }
    let sandbox = Sandbox::new();
    let mut lifecycle = LifecycleConfig::default();
    let second = Duration::from_secs(1);
    lifecycle.liveness.silent_ticks = 1;
    lifecycle.liveness.verify_within = second;
    lifecycle.liveness.handshake_within = second;
    lifecycle.liveness.look_again = second;
    lifecycle.liveness.wedged_after = 45 * second;
    let builder = sandbox.builder().await.lifecycle(lifecycle);
    let gateway = Supervised::new(builder.stop_limits(second, 5 * second));
    let pid = gateway.start("start").await;
    let tree = gateway.tree();
    let mut status = gateway.manager.status();

    processes::send(pid, Signal::STOP);
    let blocked = |status: &GatewayStatus| status.liveness == Some(Verdict::Blocked);
    step("SIGSTOP noticed", NOTICED, status.wait_for(blocked))
        .await
        .expect("a manager that lives");
    processes::send(pid, Signal::CONT);
    let alive = |status: &GatewayStatus| status.liveness == Some(Verdict::Alive);
    step("SIGCONT noticed", NOTICED, status.wait_for(alive))
        .await
        .expect("a manager that lives");
    assert_eq!(gateway.running_pid(), pid);
    gateway.serves().await;
    assert!(gateway.exits(0).await.is_empty());

    processes::send(pid, Signal::STOP);
    let replaced = |status: &GatewayStatus| status.is_running() && status.pid != Some(pid);
    step("SIGSTOP to running again", BOOT, status.wait_for(replaced))
        .await
        .expect("a manager that lives");
    processes::gone(&tree).await;
    gateway.serves().await;
    gateway.stop("stop").await;
}
