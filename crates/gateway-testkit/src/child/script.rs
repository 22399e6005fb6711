//! What a test asks of a child beyond the usual.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fake_gateway::{FakeGatewayFaults, Vintage};

/// The environment variable that holds a [`ChildScript`] as JSON.
pub const SCRIPT_VARIABLE: &str = "FAKE_OPENCLAW_SCRIPT";

/// How a child behaves. Everything has a default: a well gateway of the newest release.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChildScript {
    /// The release to copy.
    pub vintage: Vintage,
    /// Counts the starts of `gateway run` in this file. Without it every start counts as the first.
    pub starts_file: Option<PathBuf>,
    /// The first start follows the first of these, the second the second, and so on.
    pub first_starts: Vec<StartScript>,
    /// What later starts follow.
    pub start: StartScript,
    /// What `doctor` does.
    pub doctor: DoctorScript,
}

/// One start of the gateway. Times are milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StartScript {
    /// End at once.
    pub exit_at_start: Option<ExitAtStart>,
    /// Wait before the port is bound. Default 0.
    pub listen_after_ms: u64,
    /// Never bind the port.
    pub never_listen: bool,
    /// Say "starting" for this long after the port is bound; 2026.9.6 only. Default 0.
    pub ready_after_ms: u64,
    /// Take no notice of `SIGTERM` and `SIGINT`.
    pub ignore_sigterm: bool,
    /// Wait between the signal and the stop. Default 0.
    pub stop_delay_ms: u64,
    /// End abruptly this long after the port is bound.
    pub crash_after_ms: Option<u64>,
    /// With this exit code. Default 1.
    pub crash_code: i32,
    /// By `SIGABRT` and not by an exit code.
    pub crash_by_signal: bool,
    /// Stop answering this long after the port is bound; the process lives on.
    pub stall_after_ms: Option<u64>,
    /// Start the real gateway as a process of its own and stay in front of it: pass on the request to end, and end with its code.
    /// Killing the launcher leaves the gateway running.
    pub launcher: bool,
    /// Close stdout this long after the port is bound, and live on.
    pub close_stdout_after_ms: Option<u64>,
    /// Start a process beside the gateway, in the same group.
    pub grandchild: Option<GrandchildScript>,
    /// Lines for stderr before anything else.
    pub stderr: Vec<String>,
    /// Much text on stderr once the port is bound.
    pub stderr_flood: Option<Flood>,
    /// Much text on stdout once the port is bound.
    pub stdout_flood: Option<Flood>,
    /// The tick interval. Default 30 000.
    pub tick_interval_ms: u64,
    /// How long an agent run lasts. Default 0.
    pub run_duration_ms: u64,
    /// How long the port stays closed during an in-process restart. Default 20 (OpenClaw: 200 to 3000).
    pub restart_gap_ms: u64,
    /// Attempts to bind a taken port beyond the first; 2026.9.6 only. Default 20.
    pub bind_retries: u32,
    /// Wait between these attempts. Default 10 (OpenClaw: 500).
    pub bind_retry_ms: u64,
    /// How long another gateway's lock is waited for. Default 50 (OpenClaw: 5000 and 1000).
    pub lock_wait_ms: u64,
    /// Faults of the socket side.
    pub faults: FakeGatewayFaults,
}

impl Default for StartScript {
    fn default() -> Self {
        Self {
            exit_at_start: None,
            listen_after_ms: 0,
            never_listen: false,
            ready_after_ms: 0,
            ignore_sigterm: false,
            stop_delay_ms: 0,
            crash_after_ms: None,
            crash_code: 1,
            crash_by_signal: false,
            stall_after_ms: None,
            launcher: false,
            close_stdout_after_ms: None,
            grandchild: None,
            stderr: Vec::new(),
            stderr_flood: None,
            stdout_flood: None,
            tick_interval_ms: 30_000,
            run_duration_ms: 0,
            restart_gap_ms: 20,
            bind_retries: 20,
            bind_retry_ms: 10,
            lock_wait_ms: 50,
            faults: FakeGatewayFaults::default(),
        }
    }
}

/// An end before anything else happens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExitAtStart {
    /// The exit code.
    pub code: u8,
    /// Lines for stderr.
    pub stderr: Vec<String>,
}

/// A process beside the gateway. Its pid is announced on stdout as `[fake] grandchild pid <n>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrandchildScript {
    /// How long it lives. Default one minute.
    pub lifetime_ms: u64,
    /// Whether it keeps the gateway's stdout and stderr open. Default true.
    pub holds_output: bool,
    /// Whether it is a daemon: in a session of its own, out of the gateway's group. Default false. Unix only.
    pub daemon: bool,
    /// Whether it takes the gateway's port as soon as that is free, and keeps it. Default false.
    pub takes_port: bool,
}

impl Default for GrandchildScript {
    fn default() -> Self {
        Self {
            lifetime_ms: 60_000,
            holds_output: true,
            daemon: false,
            takes_port: false,
        }
    }
}

/// Much text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flood {
    /// How many lines.
    pub lines: u64,
    /// How long each is, in bytes.
    pub line_bytes: usize,
}

/// What `doctor` does beyond the usual.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoctorScript {
    /// How long it takes, in milliseconds.
    pub takes_ms: u64,
    /// Write this into the configuration, whatever is in it, and end with `exit_code`, or 0: a doctor that makes it worse.
    pub leaves: Option<String>,
    /// End with this code without looking at the configuration.
    pub exit_code: Option<u8>,
}

impl ChildScript {
    pub(super) fn from_environment() -> Result<Self, serde_json::Error> {
        match std::env::var(SCRIPT_VARIABLE) {
            Ok(text) => serde_json::from_str(&text),
            Err(_) => Ok(Self::default()),
        }
    }

    /// Whether any start wants one. Asked before the start is counted, for the launcher is none.
    pub(super) fn has_launcher(&self) -> bool {
        self.start.launcher || self.first_starts.iter().any(|start| start.launcher)
    }

    /// Counts this start and gives what it follows.
    pub(super) fn next_start(&self) -> io::Result<&StartScript> {
        let before = match &self.starts_file {
            Some(file) => count_start(file)?,
            None => 0,
        };
        Ok(usize::try_from(before)
            .ok()
            .and_then(|before| self.first_starts.get(before))
            .unwrap_or(&self.start))
    }
}

/// Adds one to the number in the file; gives the number before.
fn count_start(file: &Path) -> io::Result<u64> {
    let before = match std::fs::read_to_string(file) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    std::fs::write(file, (before + 1).to_string())?;
    Ok(before)
}
