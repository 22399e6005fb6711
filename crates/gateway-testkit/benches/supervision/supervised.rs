//! A home with a script for the fake gateway in it, the manager of it, and the same gateway started by hand.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gateway_manager::{
    GatewayManager, GatewayManagerBuilder, GatewayState, LifecycleConfig, OpenClaw, PortChoice,
};
use gateway_process::Environment;
use gateway_process::ports::reserve_free_port;
use gateway_testkit::child::{ChildScript, SCRIPT_VARIABLE, StartScript};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const TOKEN: &str = "bench-token-0123456789";

/// For everything that is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A place for one gateway.
pub(crate) struct Home {
    dir: TempDir,
    script: String,
    pub(crate) lifecycle: LifecycleConfig,
}

impl Home {
    pub(crate) fn new(start: StartScript) -> Self {
        let script = ChildScript {
            start,
            ..ChildScript::default()
        };
        Self {
            dir: TempDir::new().expect("a temporary directory"),
            script: serde_json::to_string(&script).expect("a script"),
            lifecycle: LifecycleConfig::default(),
        }
    }

    pub(crate) fn builder(&self) -> GatewayManagerBuilder {
        let mut environment = Environment::empty();
        environment.set(SCRIPT_VARIABLE, &self.script);
        GatewayManager::builder()
            .openclaw(OpenClaw::Command {
                program: program(),
                args: Vec::new(),
            })
            .environment(environment)
            .state_dir(self.dir.path().join("state"))
            .port(PortChoice::Free)
            .token(TOKEN)
            .lifecycle(self.lifecycle.clone())
    }

    pub(crate) fn manager(&self) -> GatewayManager {
        self.builder().build().expect("settings that fit together")
    }

    /// The gateway without a supervisor: started, and waited for until its port accepts a connection. How long that took is the floor of
    /// every start.
    pub(crate) fn bare(&self) -> (Child, Duration) {
        let port = reserve_free_port().expect("a free port");
        let begin = Instant::now();
        let child = Command::new(program())
            .args([
                "gateway",
                "run",
                "--allow-unconfigured",
                "--bind",
                "loopback",
            ])
            .args(["--port", &port.to_string()])
            .env_clear()
            .env(SCRIPT_VARIABLE, &self.script)
            .env("OPENCLAW_STATE_DIR", self.dir.path().join("bare"))
            .env("OPENCLAW_GATEWAY_TOKEN", TOKEN)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the fake gateway can be started");
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                begin.elapsed() < PATIENCE,
                "the fake gateway never listened"
            );
            std::thread::yield_now();
        }
        (child, begin.elapsed())
    }
}

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_fake-openclaw"))
}

/// The runtime that a program with a supervisor in it usually has.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Waits until a process with another number than `before` serves, and gives its number.
pub(crate) async fn serving(manager: &GatewayManager, before: Option<u32>) -> u32 {
    let mut status = manager.status();
    let serving = status.wait_for(|status| {
        status.state == GatewayState::Running && status.pid.is_some() && status.pid != before
    });
    let serving = tokio::time::timeout(PATIENCE, serving).await;
    let status = serving
        .expect("it serves in time")
        .expect("the manager lives")
        .clone();
    status.pid.expect("it has a process")
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().expect("a process id")).expect("a process id");
    kill_process(pid, signal).expect("a signal can be sent");
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
