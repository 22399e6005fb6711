//! The process table of Linux: `/proc` and pidfds.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::record::{LAUNCH_SIGN, LaunchSign};
use super::table::{Kind, ProcessTable, Sighting};

/// This machine's processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proc;

impl ProcessTable for Proc {
    type Handle = OwnedFd;

    fn pids(&self) -> io::Result<Vec<u32>> {
        let entries = std::fs::read_dir("/proc")?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect())
    }

    fn open(&self, pid: u32) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Ok(Some(handle)),
            // INVAL: the number is that of a thread now.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn look(&self, pid: u32) -> Option<Sighting> {
        parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn bears(&self, pid: u32, sign: &LaunchSign) -> bool {
        std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
            environment.split(|byte| *byte == 0).any(|variable| {
                variable
                    .strip_prefix(LAUNCH_SIGN.as_bytes())
                    .and_then(|rest| rest.strip_prefix(b"="))
                    .is_some_and(|value| value == sign.as_str().as_bytes())
            })
        })
    }

    fn executable(&self, pid: u32) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{pid}/exe")).ok()
    }

    fn has_exited(&self, handle: &OwnedFd) -> bool {
        let mut waited = [PollFd::new(handle, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut waited, Some(&at_once)).is_ok_and(|ready| ready > 0)
    }

    fn signal(&self, handle: &OwnedFd, kind: Kind) -> io::Result<()> {
        let signal = match kind {
            Kind::Ask => Signal::TERM,
            Kind::Force => Signal::KILL,
        };
        match pidfd_send_signal(handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns when whoever has the number now has ended.
///
/// # Errors
/// When the operating system does not tell of that.
pub(crate) async fn ended(pid: u32) -> io::Result<()> {
    let Some(handle) = Proc.open(pid)? else {
        return Ok(());
    };
    let handle = super::unix::readable(handle)?;
    let _ready = handle.readable().await?;
    Ok(())
}

/// Identifies the time since the machine was switched on: start times of processes mean nothing beyond it.
pub(crate) fn boot() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}

/// Reads the fields 3 (state), 5 (process group) and 22 (start time in ticks) of `/proc/<pid>/stat`, as proc_pid_stat(5) numbers them.
/// The second one is the program's name in parentheses and may hold anything, parentheses included.
fn parse_stat(stat: &[u8]) -> Option<Sighting> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[name_end + 1..])
        .ok()?
        .split_ascii_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(16)?.parse().ok()?;
    Some(Sighting {
        started,
        group,
        zombie: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let rest = "1 77 77 0 -1 4194560 2413 0 0 0 120 30 0 0 20 0 11 0 8021 1 2";
        let seen = |zombie| {
            Some(Sighting {
                started: 8021,
                group: 77,
                zombie,
            })
        };
        let table: [(Vec<u8>, Option<Sighting>); 7] = [
            (format!("12 (sh) S {rest}").into_bytes(), seen(false)),
            (format!("12 (a) b) (c)) R {rest}").into_bytes(), seen(false)),
            ([b"12 (\xff) S ", rest.as_bytes()].concat(), seen(false)),
            (format!("12 (sh) Z {rest}").into_bytes(), seen(true)),
            (format!("12 (sh) X {rest}").into_bytes(), seen(true)),
            (b"12 (sh) S 1 77 77".to_vec(), None),
            (Vec::new(), None),
        ];
        for (line, expected) in table {
            assert_eq!(
                parse_stat(&line),
                expected,
                "{:?}",
                String::from_utf8_lossy(&line)
            );
        }
    }

    #[test]
    fn this_process_is_seen_as_it_is() {
        let pid = std::process::id();
        let handle = Proc.open(pid).unwrap().expect("this process is there");
        let seen = Proc.look(pid).expect("this process is there");
        assert!(!seen.zombie && !Proc.has_exited(&handle));
        assert_eq!(Proc.executable(pid), std::env::current_exe().ok());
        assert!(Proc.pids().unwrap().contains(&pid));
        assert!(!Proc.bears(pid, &LaunchSign::random().unwrap()));
        assert!(Proc.open(u32::MAX).unwrap().is_none() && Proc.look(u32::MAX).is_none());
        assert_eq!(boot().unwrap().len(), 36);
    }
}
