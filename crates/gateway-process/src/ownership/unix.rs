//! Owning a child on Unix: its process group, its exit seen before it is collected, and signals only in between.

use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop, ProcessGroup};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, test_kill_process_group,
    waitid,
};
#[cfg(target_os = "linux")]
use rustix::process::{PidfdFlags, pidfd_open};
#[cfg(target_os = "linux")]
use tokio::io::{Interest, unix::AsyncFd};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

/// A child whose exit status has not been collected, and with it its process group.
#[derive(Debug)]
pub(crate) struct Owned {
    pid: Pid,
    /// `None` once the exit status is collected: from then on the number may belong to anybody.
    child: Mutex<Option<Box<dyn ChildWrapper>>>,
}

/// What a start yields.
pub(crate) struct Started {
    pub(crate) owned: Arc<Owned>,
    pub(crate) watch: ExitWatch,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl Owned {
    /// Starts `command` as the leader of a new process group.
    pub(crate) fn start(command: Command) -> io::Result<Started> {
        let mut command = CommandWrap::from(command);
        // The second wrapper is a safety net for the leader only; the group is killed by our own guards.
        command.wrap(ProcessGroup::leader()).wrap(KillOnDrop);
        let mut child = command.spawn()?;
        let stdout = child.stdout().take();
        let stderr = child.stderr().take();
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the new process has no id"))?;
        let owned = Arc::new(Self {
            pid,
            child: Mutex::new(Some(child)),
        });
        match ExitWatch::new(Arc::clone(&owned)) {
            Ok(watch) => Ok(Started {
                owned,
                watch,
                stdout,
                stderr,
            }),
            Err(error) => {
                // A child that cannot be watched must not live. It is young, so this does not take long.
                owned.abandon();
                Err(error)
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn ChildWrapper>>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the leader to end. Nothing happens to a child that has been collected.
    pub(crate) fn ask(&self) -> io::Result<()> {
        match &*self.lock() {
            Some(_) => Ok(kill_process(self.pid, Signal::TERM)?),
            None => Ok(()),
        }
    }

    /// Kills every member of the group. Nothing happens once the leader has been collected.
    pub(crate) fn force(&self) -> io::Result<()> {
        match &*self.lock() {
            // macOS answers EPERM for a group that consists of zombies.
            Some(_) => match kill_process_group(self.pid, Signal::KILL) {
                Err(rustix::io::Errno::PERM) if self.is_zombie() => Ok(()),
                result => Ok(result?),
            },
            None => Ok(()),
        }
    }

    /// Whether the child has ended, collected or not.
    pub(crate) fn has_exited(&self) -> bool {
        match &*self.lock() {
            Some(_) => self.is_zombie(),
            None => true,
        }
    }

    /// Looks without collecting. An error means that there is no such child any more: somebody outside this crate collected it.
    fn is_zombie(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(
            waitid(WaitId::Pid(self.pid), options),
            Ok(None) | Err(rustix::io::Errno::INTR)
        )
    }

    /// Collects the exit status if the child has ended. After that, this value signals nobody.
    ///
    /// `Ok(None)` means it has not ended. An error means that the status is lost, because somebody outside this crate took it; that
    /// counts as collected, too.
    pub(crate) fn collect(&self) -> io::Result<Option<ExitStatus>> {
        let mut held = self.lock();
        let Some(child) = held.as_mut() else {
            return Err(io::Error::other("the exit status was collected before"));
        };
        // The inner child, because the group wrapper's own way to look reaps behind the runtime's back.
        let status = child.inner_mut().try_wait();
        if !matches!(status, Ok(None)) {
            *held = None;
        }
        status
    }

    /// Kills the group and collects the leader, blocking for a moment; for places where nothing can be awaited.
    pub(crate) fn abandon(&self) -> Option<ExitStatus> {
        if let Err(error) = self.force() {
            tracing::warn!(pid = self.pid(), %error, "killing an abandoned process group failed");
        }
        for _ in 0..500 {
            match self.collect() {
                Ok(None) => std::thread::sleep(std::time::Duration::from_millis(1)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
        None
    }

    /// The living members of the group without its leader; `None` where the system has no list.
    pub(crate) fn members(&self) -> Option<Vec<u32>> {
        members_of(self.pid)
    }

    /// Whether the group may still have members; meant for the time after the leader was collected. Signals nobody.
    pub(crate) fn group_is_gone(&self) -> bool {
        matches!(
            test_kill_process_group(self.pid),
            Err(rustix::io::Errno::SRCH)
        )
    }
}

#[cfg(target_os = "linux")]
fn members_of(group: Pid) -> Option<Vec<u32>> {
    let group = group.as_raw_pid();
    let entries = std::fs::read_dir("/proc").ok()?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let members = pids.filter(|pid| {
        *pid != group
            && std::fs::read(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| living_group(&stat) == Some(group))
    });
    Some(members.map(i32::unsigned_abs).collect())
}

#[cfg(not(target_os = "linux"))]
fn members_of(_group: Pid) -> Option<Vec<u32>> {
    None
}

/// The process group in a line of `/proc/<pid>/stat`, unless it is that of a dead process. The name before it is in parentheses
/// and may itself contain some.
#[cfg(target_os = "linux")]
fn living_group(stat: &[u8]) -> Option<i32> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[name_end + 1..])
        .ok()?
        .split_ascii_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    (state != "Z" && state != "X").then_some(group)
}

/// The child cannot have been collected yet, so the number still means it.
#[cfg(target_os = "linux")]
#[allow(
    deprecated,
    reason = "unsound only for types whose descriptor changes or closes under them; the replacement is an unsafe function"
)]
fn open_pidfd(pid: Pid) -> io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    AsyncFd::with_interest(pidfd_open(pid, PidfdFlags::empty())?, Interest::READABLE)
}

/// Waits for the child's exit and leaves the zombie in place.
pub(crate) struct ExitWatch {
    owned: Arc<Owned>,
    source: Source,
}

enum Source {
    #[cfg(target_os = "linux")]
    Pidfd(AsyncFd<std::os::fd::OwnedFd>),
    Signal(tokio::signal::unix::Signal),
}

impl ExitWatch {
    fn new(owned: Arc<Owned>) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Ok(pidfd) = open_pidfd(owned.pid) {
            let source = Source::Pidfd(pidfd);
            return Ok(Self { owned, source });
        }
        Self::by_signal(owned)
    }

    /// For systems without pidfds: macOS, BSD, Linux before 5.3 and some sandboxes.
    fn by_signal(owned: Arc<Owned>) -> io::Result<Self> {
        let source = Source::Signal(signal(SignalKind::child())?);
        Ok(Self { owned, source })
    }

    /// Returns when the child has exited. Cancel safe.
    pub(crate) async fn exited(&mut self) {
        while !self.owned.has_exited() {
            match &mut self.source {
                // Readable means exited, and stays so. An error means that the runtime shuts down.
                #[cfg(target_os = "linux")]
                Source::Pidfd(pidfd) => match pidfd.readable().await {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(_) => std::future::pending().await,
                },
                Source::Signal(child) => {
                    if child.recv().await.is_none() {
                        std::future::pending().await
                    }
                }
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let table: &[(&[u8], Option<i32>)] = &[
            (b"12 (sh) S 1 77 77 0 -1", Some(77)),
            (b"12 (a) b) (c)) R 1 77 77 0 -1", Some(77)),
            (b"12 (\xff) S 1 77 77", Some(77)),
            (b"12 (sh) Z 1 77 77 0", None),
            (b"12 (sh) S 1", None),
            (b"", None),
        ];
        for (line, expected) in table {
            assert_eq!(
                living_group(line),
                *expected,
                "{:?}",
                String::from_utf8_lossy(line)
            );
        }
    }

    /// The way without pidfds sees the same exit and leaves the status to be collected.
    #[tokio::test]
    async fn an_exit_is_seen_by_signal_and_waitid_too() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        let started = Owned::start(command).unwrap();
        let mut watch = ExitWatch::by_signal(Arc::clone(&started.owned)).unwrap();
        tokio::time::timeout(std::time::Duration::from_secs(20), watch.exited())
            .await
            .unwrap();
        assert!(started.owned.has_exited());
        assert_eq!(
            started
                .owned
                .collect()
                .unwrap()
                .and_then(|status| status.code()),
            Some(3)
        );
        assert!(started.owned.collect().is_err(), "collected only once");
    }

    /// After collecting, the right to signal is gone: both calls succeed and do nothing.
    #[tokio::test]
    async fn a_collected_child_is_never_signalled() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 0"]);
        let mut started = Owned::start(command).unwrap();
        started.watch.exited().await;
        // While the zombie is there its number cannot be given to anybody.
        assert!(kill_process(started.owned.pid, Signal::CONT).is_ok());
        started.owned.collect().unwrap();
        assert!(
            kill_process(started.owned.pid, Signal::CONT).is_err(),
            "the kernel knows the process no more"
        );
        started.owned.ask().unwrap();
        started.owned.force().unwrap();
    }
}
