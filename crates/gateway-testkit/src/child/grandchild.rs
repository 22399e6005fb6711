//! A process beside the gateway, or one that got away from it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::arguments::GRANDCHILD;
use super::script::GrandchildScript;

/// What the process is told on its command line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    script: GrandchildScript,
    port: u16,
}

/// Starts it; gives its process id.
pub(super) fn spawn(script: &GrandchildScript, port: u16) -> io::Result<u32> {
    let stdio = || {
        if script.holds_output {
            Stdio::inherit()
        } else {
            Stdio::null()
        }
    };
    let told = Told {
        script: script.clone(),
        port,
    };
    Command::new(std::env::current_exe()?)
        .args([GRANDCHILD, &serde_json::to_string(&told)?])
        .stdin(Stdio::null())
        .stdout(stdio())
        .stderr(stdio())
        .spawn()
        .map(|child| child.id())
}

/// What it does.
pub(super) fn live(told: &Told) -> ExitCode {
    let end = Instant::now() + Duration::from_millis(told.script.lifetime_ms);
    #[cfg(unix)]
    if told.script.daemon
        && let Err(error) = rustix::process::setsid()
    {
        eprintln!("no session of its own: {error}");
        return ExitCode::FAILURE;
    }
    let left = || end.saturating_duration_since(Instant::now());
    let _listener = told
        .script
        .takes_port
        .then(|| take(told.port, || !left().is_zero()));
    std::thread::sleep(left());
    ExitCode::SUCCESS
}

/// Waits for the gateway to have the port, and then for its end.
fn take(port: u16, mut goes_on: impl FnMut() -> bool) -> Option<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut seen = false;
    while goes_on() {
        seen = seen || TcpStream::connect(address).is_ok();
        if seen && let Ok(listener) = TcpListener::bind(address) {
            return Some(listener);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}
