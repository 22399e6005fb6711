//! A compile cache makes OpenClaw start itself once more: the process that was launched is only a launcher, and killing it leaves the
//! gateway running with the port.

use gateway_manager::OpenClaw;
use gateway_process::ExitReason;
use rustix::process::Signal;

use crate::installation::{self, traits};
use crate::processes;
use crate::report::{BOOT, step};
use crate::sandbox::Sandbox;
use crate::supervised::Supervised;

pub(crate) async fn run() {
    let sandbox = Sandbox::new();
    let cache = sandbox.compile_cache();
    let OpenClaw::Package { node, package } = installation::openclaw().await else {
        panic!("an installed package");
    };
    // The variable is taken out of the environment of every gateway, so it is put in behind our back, as a wrapper script does.
    let wrapped = OpenClaw::Command {
        program: "/usr/bin/env".into(),
        args: vec![
            format!("NODE_COMPILE_CACHE={}", cache.display()).into(),
            node.program().into(),
            package.entry().into(),
        ],
    };
    let gateway = Supervised::new(sandbox.builder().await.openclaw(wrapped));
    let launched = gateway.start("start through a launcher").await;
    let owners = gateway_process::ports::port_owners(
        sandbox.port,
        gateway_process::ports::PORT_TABLE_DEADLINE,
    )
    .await
    .expect("the table of ports");
    let serving = owners
        .iter()
        .find_map(|owner| owner.pid)
        .expect("a listener");
    assert_eq!(serving != launched, traits().has_helpers, "{owners:?}");
    let tree = gateway.tree();

    // Only the launcher is killed. What it leaves behind holds the port, and goes before the next launch.
    let mark = gateway.mark();
    processes::send(launched, Signal::KILL);
    let mut status = gateway.manager.status();
    let again = status.wait_for(|status| status.is_running() && status.pid != Some(launched));
    step("launcher killed to running again", BOOT, again)
        .await
        .expect("a manager that lives");
    processes::gone(&tree).await;
    let exits = gateway.exits(mark).await;
    assert_eq!(exits.len(), 1, "{exits:?}");
    assert_eq!(exits[0].reason, ExitReason::Unexpected);
    assert_eq!(
        exits[0].leftovers.contains(&serving),
        serving != launched,
        "{exits:?}"
    );
    gateway.serves().await;

    // Asked to end, the launcher passes the request on; in the end nothing of both is left.
    gateway.stop("stop through a launcher").await;
    let exits = gateway.exits(mark).await;
    assert_eq!(exits[1].code, Some(0), "{exits:?}");
}
