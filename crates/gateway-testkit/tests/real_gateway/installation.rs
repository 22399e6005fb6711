//! The OpenClaw under test, and what is known about its version.

use std::path::PathBuf;

use gateway_process::OpenClaw;
use gateway_process::node::NODE_VERSION_DEADLINE;
use gateway_protocol::ErrorCode;

/// The npm project that has OpenClaw and its Node installed.
pub(crate) fn project() -> PathBuf {
    PathBuf::from(variable("OPENCLAW_TEST_PROJECT"))
}

/// The version that is installed there.
pub(crate) fn version() -> String {
    variable("OPENCLAW_TEST_VERSION")
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set; run `cargo xtask test --row real-gateway-2026.9.6`, which installs OpenClaw and sets it")
    })
}

/// The OpenClaw under test, by the road that a host application takes.
pub(crate) async fn openclaw() -> OpenClaw {
    let found = OpenClaw::from_directory(project(), NODE_VERSION_DEADLINE)
        .await
        .expect("an installed OpenClaw with a suitable Node");
    assert_eq!(found.version(), Some(version().as_str()));
    found
}

/// What this version does differently.
#[derive(Debug)]
pub(crate) struct Traits {
    pub(crate) protocol: u32,
    /// What it calls itself in its hello.
    pub(crate) server_version: &'static str,
    /// With which code it refuses an unusable configuration.
    pub(crate) configuration_exit: i32,
    /// With which code it refuses a call without the scope for it.
    pub(crate) missing_scope: ErrorCode,
    /// Whether it takes connections, and answers that it is starting, before it is ready.
    pub(crate) announces_start: bool,
    /// Whether it has helper processes for as long as it runs, one of them in a session of its own.
    pub(crate) has_helpers: bool,
}

pub(crate) fn traits() -> Traits {
    match version().as_str() {
        "2026.3.2" => Traits {
            protocol: 3,
            server_version: "dev",
            configuration_exit: 1,
            missing_scope: ErrorCode::InvalidRequest,
            announces_start: false,
            has_helpers: false,
        },
        "2026.9.6" => Traits {
            protocol: 4,
            server_version: "2026.9.6",
            configuration_exit: 78,
            missing_scope: ErrorCode::Forbidden,
            announces_start: true,
            has_helpers: true,
        },
        other => panic!("nothing is written down about OpenClaw {other}; add its traits here"),
    }
}
