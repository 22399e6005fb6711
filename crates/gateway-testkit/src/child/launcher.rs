//! A process in front of the gateway, as `openclaw.mjs` puts one there when it starts itself once more.

use std::io;
use std::process::ExitCode;

use super::log::Log;
use super::signals::{Received, Signals};
use crate::fake_gateway::Vintage;

/// Set for the gateway behind a launcher.
const BEHIND_LAUNCHER: &str = "FAKE_OPENCLAW_BEHIND_LAUNCHER";

/// Whether this process is the one behind the launcher.
pub(super) fn is_behind() -> bool {
    std::env::var_os(BEHIND_LAUNCHER).is_some()
}

/// Starts the gateway with the same arguments, passes on requests to end, and ends with its code.
pub(super) async fn run(vintage: Vintage, log: Log) -> io::Result<ExitCode> {
    let mut signals = Signals::install(vintage)?;
    let mut gateway = tokio::process::Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(BEHIND_LAUNCHER, "1")
        .spawn()?;
    if let Some(pid) = gateway.id() {
        log.plain(&format!("[fake] gateway behind the launcher pid {pid}"));
    }
    loop {
        tokio::select! {
            status = gateway.wait() => {
                let code = status?.code().and_then(|code| u8::try_from(code).ok());
                return Ok(ExitCode::from(code.unwrap_or(1)));
            }
            received = signals.next() => {
                if matches!(received, Received::Stop) {
                    pass_on(&gateway);
                }
            }
        }
    }
}

#[cfg(unix)]
fn pass_on(gateway: &tokio::process::Child) {
    use rustix::process::{Pid, Signal, kill_process};
    // Not collected yet, so the number is its own; should it have ended, there is nobody to ask.
    let pid = gateway.id().and_then(|pid| i32::try_from(pid).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::TERM);
    }
}

#[cfg(not(unix))]
fn pass_on(_gateway: &tokio::process::Child) {}
