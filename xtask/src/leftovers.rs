//! Finds processes that a finished command left running.
//!
//! A test that starts a gateway in a process group of its own escapes the group of its row. Every command that this
//! program runs therefore carries a mark in its environment, which children inherit; whoever still shows the mark
//! when the command is over was left behind. Linux only: other systems do not show the environment of a process.

#[cfg(target_os = "linux")]
use std::ffi::OsStr;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable that carries the mark.
pub(crate) const MARK_VARIABLE: &str = "XTASK_COMMAND_MARK";

/// Programs that are meant to outlive the build that started them.
#[cfg(target_os = "linux")]
const DAEMONS: &[&str] = &["sccache"];

/// A value no other command of this or another run of this program has.
pub(crate) fn new_mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A process that outlived the command that started it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    pid: u32,
    command: String,
}

impl fmt::Display for Leftover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "pid {} ({})", self.pid, self.command)
    }
}

/// The living processes whose environment carries `mark`.
#[cfg(target_os = "linux")]
pub(crate) fn find(mark: &str) -> Vec<Leftover> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id();
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| inspect(pid, mark))
        .collect()
}

/// Elsewhere nothing can be found.
#[cfg(not(target_os = "linux"))]
pub(crate) fn find(_mark: &str) -> Vec<Leftover> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn inspect(pid: u32, mark: &str) -> Option<Leftover> {
    use std::os::unix::ffi::OsStrExt as _;

    // A zombie has an empty environment and so does not count: it is its parent's to reap.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let wanted = format!("{MARK_VARIABLE}={mark}");
    if !environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == wanted.as_bytes())
    {
        return None;
    }
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let program = arguments
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default();
    let program_name = std::path::Path::new(OsStr::from_bytes(program))
        .file_name()
        .unwrap_or_default();
    if DAEMONS
        .iter()
        .any(|daemon| program_name == OsStr::new(daemon))
    {
        return None;
    }
    let mut command = String::from_utf8_lossy(&arguments)
        .replace('\0', " ")
        .trim()
        .to_owned();
    if let Some((end, _)) = command.char_indices().nth(120) {
        command.truncate(end);
        command.push('…');
    }
    Some(Leftover { pid, command })
}

/// Ends the given processes at once.
#[cfg(unix)]
pub(crate) fn kill(leftovers: &[Leftover]) {
    for leftover in leftovers {
        let pid = i32::try_from(leftover.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // Nothing is lost when the process is gone already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Elsewhere nothing is ever found, so there is nothing to end.
#[cfg(not(unix))]
pub(crate) fn kill(_leftovers: &[Leftover]) {}
