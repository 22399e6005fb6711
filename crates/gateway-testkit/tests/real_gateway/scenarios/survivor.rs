//! Managers that are killed: a gateway that dies with its manager, and one that survives and is taken over without a restart while
//! others stay connected.

use std::process::Stdio;
use std::time::Instant;

use gateway_manager::{GatewayManager, OwnerDeath};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::installation::traits;
use crate::processes::{self, Process};
use crate::report::{ANSWER, BOOT, step, took};
use crate::sandbox::Sandbox;
use crate::supervised::Supervised;

/// Tells this program to be a manager that waits to be killed; holds what [`Sandbox::told`] says.
const MANAGER_AT: &str = "REAL_GATEWAY_MANAGER_AT";
const SURVIVES: &str = "REAL_GATEWAY_SURVIVES";

pub(crate) async fn run() {
    let sandbox = Sandbox::new();
    dies_with_its_manager(&sandbox).await;
    survives_its_manager(&sandbox).await;
}

/// The manager that is killed. Run as a test like the others there is nothing to do.
pub(crate) async fn manager() {
    let Ok(told) = std::env::var(MANAGER_AT) else {
        return;
    };
    let sandbox = Sandbox::visited(&told);
    let mut builder = sandbox.builder().await;
    if std::env::var_os(SURVIVES).is_some() {
        builder = builder.owner_death(OwnerDeath::ChildSurvives);
    }
    let manager = builder.build().expect("settings that fit together");
    manager.start().await.expect("a gateway");
    println!("\nserves {} {}", pid(&manager), boot_id(&manager));
    std::future::pending::<()>().await;
}

fn pid(manager: &GatewayManager) -> u32 {
    let pid = manager.status().borrow().pid;
    pid.expect("a gateway of ours")
}

fn boot_id(manager: &GatewayManager) -> String {
    let hello = manager.hello().expect("a session");
    hello.server.boot_id.clone().unwrap_or_default()
}

/// Starts a manager in a process of its own; gives it, its gateway's process id, and the gateway's boot id.
async fn start_elsewhere(sandbox: &Sandbox, survives: bool) -> (Child, u32, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["--exact", "manager", "--nocapture"])
        .env(MANAGER_AT, sandbox.told())
        .env_remove(SURVIVES)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    if survives {
        command.env(SURVIVES, "1");
    }
    let mut child = command.spawn().expect("this program once more");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    loop {
        let line = lines.next_line().await.expect("a line");
        let line = line.expect("a manager that starts");
        if let Some(serves) = line.strip_prefix("serves ") {
            let (pid, boot_id) = serves.split_once(' ').expect("two words");
            return (child, pid.parse().expect("a number"), boot_id.to_owned());
        }
    }
}

async fn kill(mut manager: Child) {
    manager.kill().await.expect("a manager of ours");
}

async fn dies_with_its_manager(sandbox: &Sandbox) {
    let started = start_elsewhere(sandbox, false);
    let (manager, pid, _) = step("manager in a process of its own", BOOT, started).await;
    let tree = processes::tree(pid);
    kill(manager).await;
    // The kernel kills the gateway; its helpers notice within 0.2 s.
    step(
        "end of a gateway whose manager was killed",
        ANSWER,
        processes::gone(&tree),
    )
    .await;
}

async fn survives_its_manager(sandbox: &Sandbox) {
    let started = start_elsewhere(sandbox, true);
    let (manager, pid, boot_id) = step("manager whose gateway survives", BOOT, started).await;
    let helpers: Vec<Process> = processes::tree(pid);
    let client = sandbox
        .connect(&sandbox.token, |options| options)
        .await
        .expect("a second client");
    kill(manager).await;

    let began = Instant::now();
    let builder = sandbox
        .builder()
        .await
        .owner_death(OwnerDeath::ChildSurvives);
    let next = Supervised::new(builder);
    let running = next.start("take-over of the survivor").await;
    assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
    took("killed manager to the next one running", began.elapsed());
    assert_eq!(running, pid, "the same process");
    assert_eq!(
        self::boot_id(&next.manager),
        boot_id,
        "that was not restarted in between"
    );
    assert_eq!(boot_id.is_empty(), traits().protocol == 3);
    assert!(helpers.iter().all(Process::is_there));
    assert!(next.exits(0).await.is_empty());
    next.serves().await;
    client
        .verify(ANSWER)
        .await
        .expect("a connection that never broke");
    drop(client);

    // From now on it is a child like any other.
    let mark = next.mark();
    processes::send(pid, Signal::KILL);
    let mut status = next.manager.status();
    let again = status.wait_for(|status| status.is_running() && status.pid != Some(pid));
    step("survivor killed to running again", BOOT, again)
        .await
        .expect("a manager that lives");
    assert_eq!(next.exits(mark).await.len(), 1);
    next.serves().await;
    next.stop("stop after a take-over").await;
    processes::gone(&helpers).await;
}
