//! A token in the configuration file that is not ours: OpenClaw prefers it, and the error says where it stands.

use gateway_manager::{FailureClass, Phase};
use serde_json::json;

use crate::processes;
use crate::report::BOOT;
use crate::sandbox::{Sandbox, random_token};
use crate::supervised::Supervised;

pub(crate) async fn run() {
    let sandbox = Sandbox::new();
    let config = json!({ "gateway": { "auth": { "token": random_token() } } }).to_string();
    sandbox.write_config(&config);
    let gateway = Supervised::new(sandbox.builder().await);
    let failure = gateway
        .start_fails("start with another configured token refused", BOOT)
        .await;
    assert_eq!(failure.class, FailureClass::Credentials, "{failure}");
    let file = sandbox.config_file().display().to_string();
    for part in [file.as_str(), "gateway.auth.token"] {
        assert!(failure.message.contains(part), "{failure}");
    }
    assert!(!failure.message.contains(&sandbox.token), "{failure}");

    let status = gateway.status();
    assert_eq!((status.phase, status.pid), (Phase::Failed, None));
    processes::nothing_runs().await;
    gateway.stop("stop of a refused gateway").await;
}
