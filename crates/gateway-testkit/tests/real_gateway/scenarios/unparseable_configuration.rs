//! A configuration that no doctor of these versions can read: an error that names it, the file as it was, nothing running.

use gateway_manager::{FailureClass, GatewayState, Phase};

use crate::processes;
use crate::report::REPAIR;
use crate::sandbox::Sandbox;
use crate::supervised::Supervised;

const BROKEN: &str = "{ \"gateway\": { this is not a configuration";

pub(crate) async fn run() {
    let sandbox = Sandbox::new();
    sandbox.write_config(BROKEN);
    let gateway = Supervised::new(sandbox.builder().await);
    let failure = gateway
        .start_fails("start with an unparseable configuration refused", REPAIR)
        .await;
    assert_eq!(failure.class, FailureClass::Configuration, "{failure}");
    let file = sandbox.config_file().display().to_string();
    assert!(failure.message.contains(&file), "{failure}");

    let status = gateway.status();
    assert_eq!(status.state, GatewayState::Error);
    assert_eq!(status.phase, Phase::Failed);
    assert_eq!(status.pid, None);
    assert_eq!(status.failure.as_ref(), Some(&failure));
    assert_eq!(String::from_utf8_lossy(&sandbox.read_config()), BROKEN);
    assert_eq!(gateway.times_in(Phase::Repairing).await, 1);
    processes::nothing_runs().await;
    gateway.stop("stop of a failed gateway").await;
}
