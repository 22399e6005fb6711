//! Owning a process on Unix: its end seen before it is collected, and signals only in between.

use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop, ProcessGroup};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};
#[cfg(target_os = "linux")]
use rustix::process::{PidfdFlags, pidfd_open};
#[cfg(target_os = "linux")]
use tokio::io::{Interest, unix::AsyncFd};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::Birth;
#[cfg(target_os = "linux")]
use super::{
    lineage::{Lineage, Proved},
    linux::Proc,
    record::{OwnershipRecord, ProcessIdentity},
    table::{Kind, ProcessTable as _},
};

/// The right to signal one process and what descends from it. See the [module](super).
#[derive(Debug)]
pub struct Owned {
    pid: Pid,
    hold: Hold,
    #[cfg(target_os = "linux")]
    lineage: Lineage,
}

/// What makes sure that the number means the process.
#[derive(Debug)]
enum Hold {
    /// We are its parent. `None` once the exit status is collected: from then on the number may belong to anybody.
    Child(Mutex<Option<Box<dyn ChildWrapper>>>),
    /// It survived an earlier owner, and this handle means it for good.
    #[cfg(target_os = "linux")]
    Survivor(std::os::fd::OwnedFd),
}

/// What a start yields.
pub(crate) struct Started {
    pub(crate) owned: Arc<Owned>,
    pub(crate) watch: ExitWatch,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl Owned {
    /// Starts `command` as the leader of a new process group, or of a new session when it is to outlive us. To be called on the
    /// [spawner's thread](crate::spawner).
    pub(crate) fn start(mut command: Command, birth: &Birth) -> io::Result<Started> {
        if birth.survives {
            in_own_session(&mut command);
        } else {
            end_with_owner(&mut command);
        }
        let mut command = CommandWrap::from(command);
        if !birth.survives {
            command.wrap(ProcessGroup::leader());
        }
        // A safety net for the leader only; the rest is killed by our own guards.
        command.wrap(KillOnDrop);
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
            hold: Hold::Child(Mutex::new(Some(child))),
            #[cfg(target_os = "linux")]
            lineage: {
                let leader = pid.as_raw_pid().unsigned_abs();
                Lineage {
                    leader,
                    // Dead or alive it is there until it is collected.
                    started: Proc.look(leader).map_or(0, |seen| seen.started),
                    sign: birth.sign.clone(),
                }
            },
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

    /// The right to signal a process that was proved to be of the recorded launch.
    #[cfg(target_os = "linux")]
    pub(crate) fn of_survivor(
        proved: Proved<std::os::fd::OwnedFd>,
        record: &OwnershipRecord,
    ) -> io::Result<Started> {
        let leader = proved.identity.pid;
        let pid = i32::try_from(leader).ok().and_then(Pid::from_raw);
        let owned = Arc::new(Self {
            pid: pid.ok_or_else(|| io::Error::other("no such process"))?,
            hold: Hold::Survivor(proved.handle),
            lineage: Lineage::led_by(leader, record),
        });
        Ok(Started {
            watch: ExitWatch::new(Arc::clone(&owned))?,
            owned,
            stdout: None,
            stderr: None,
        })
    }

    /// The number of the process, for messages.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_pid().unsigned_abs()
    }

    /// What is written down about it.
    #[cfg(target_os = "linux")]
    pub(crate) fn identity(&self) -> Option<ProcessIdentity> {
        Some(ProcessIdentity {
            pid: self.pid(),
            started: self.lineage.started,
            executable: Proc.executable(self.pid()),
        })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn identity(&self) -> Option<super::record::ProcessIdentity> {
        None
    }

    fn lock(
        child: &Mutex<Option<Box<dyn ChildWrapper>>>,
    ) -> MutexGuard<'_, Option<Box<dyn ChildWrapper>>> {
        child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the process to end: `SIGTERM` to it alone. Nothing happens when it has ended.
    ///
    /// # Errors
    /// The operating system's answer, for example after the process changed its user.
    pub fn ask(&self) -> io::Result<()> {
        match &self.hold {
            Hold::Child(child) => match &*Self::lock(child) {
                Some(_) => Ok(kill_process(self.pid, Signal::TERM)?),
                None => Ok(()),
            },
            #[cfg(target_os = "linux")]
            Hold::Survivor(handle) => Proc.signal(handle, Kind::Ask),
        }
    }

    /// Kills the process, its group and (on Linux) what descends from it outside the group. Nothing happens to the process when it has
    /// ended.
    ///
    /// # Errors
    /// The operating system's answer.
    pub fn force(&self) -> io::Result<()> {
        match &self.hold {
            Hold::Child(child) => {
                let held = Self::lock(child);
                if held.is_some() {
                    // The leader first: the kernel serves a group one by one, and a leader that sees its children die may still
                    // come to an end of its own. It stays a zombie and so vouches for the group.
                    if let Err(error) = kill_process(self.pid, Signal::KILL) {
                        tracing::debug!(pid = self.pid(), %error, "killing the leader first failed");
                    }
                    self.kill_group()?;
                }
            }
            #[cfg(target_os = "linux")]
            Hold::Survivor(handle) => {
                // Found while the leader's life vouches for the group.
                let members = self.lineage.others(&Proc, || !Proc.has_exited(handle))?;
                Proc.signal(handle, Kind::Force)?;
                for member in &members {
                    Proc.signal(&member.handle, Kind::Force)?;
                }
            }
        }
        self.sweep().map(|_| ())
    }

    /// To be called while the leader is uncollected.
    fn kill_group(&self) -> io::Result<()> {
        match kill_process_group(self.pid, Signal::KILL) {
            // macOS answers EPERM for a group that consists of zombies.
            Err(rustix::io::Errno::PERM) if self.is_zombie() => Ok(()),
            result => Ok(result?),
        }
    }

    /// Kills what lives of its descendants, and leaves itself alone; gives those that it found. None found means that all are gone.
    /// Where the system has no list of processes (elsewhere than on Linux) the whole group is killed once the leader has ended, and
    /// nobody can be named.
    #[cfg(target_os = "linux")]
    pub(crate) fn sweep(&self) -> io::Result<Vec<u32>> {
        match &self.hold {
            Hold::Child(child) => {
                // Held, so that the leader is not collected while its number vouches for the group.
                let held = Self::lock(child);
                self.lineage.force_others(&Proc, || held.is_some())
            }
            Hold::Survivor(handle) => self
                .lineage
                .force_others(&Proc, || !Proc.has_exited(handle)),
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn sweep(&self) -> io::Result<Vec<u32>> {
        match &self.hold {
            Hold::Child(child) => match &*Self::lock(child) {
                Some(_) if self.is_zombie() => self.kill_group()?,
                _ => {}
            },
        }
        Ok(Vec::new())
    }

    /// A handle of the process for waiting. A child must not have been collected yet, so that the number still means it.
    #[cfg(target_os = "linux")]
    fn pidfd(&self) -> io::Result<std::os::fd::OwnedFd> {
        match &self.hold {
            Hold::Child(_) => Ok(pidfd_open(self.pid, PidfdFlags::empty())?),
            Hold::Survivor(handle) => handle.try_clone(),
        }
    }

    /// Whether the process has ended, collected or not.
    pub(crate) fn has_exited(&self) -> bool {
        match &self.hold {
            Hold::Child(child) => match &*Self::lock(child) {
                Some(_) => self.is_zombie(),
                None => true,
            },
            #[cfg(target_os = "linux")]
            Hold::Survivor(handle) => Proc.has_exited(handle),
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

    /// Collects the exit status if the process has ended. After that, the process itself is signalled no more.
    ///
    /// `Ok(None)` means that a child has not ended; the status of a survivor is its new parent's and never known. An error means that
    /// the status is lost, because somebody outside this crate took it; that counts as collected, too.
    pub(crate) fn collect(&self) -> io::Result<Option<ExitStatus>> {
        let mut held = match &self.hold {
            Hold::Child(child) => Self::lock(child),
            #[cfg(target_os = "linux")]
            Hold::Survivor(_) => return Ok(None),
        };
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
                Ok(None) if self.is_survivor() && self.has_exited() => return None,
                Ok(None) => std::thread::sleep(std::time::Duration::from_millis(1)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
        None
    }

    /// Whether somebody else collects it.
    fn is_survivor(&self) -> bool {
        !matches!(self.hold, Hold::Child(_))
    }

    /// Whether the group may still have members; meant for the time after the leader was collected, where nobody can be listed.
    /// Signals nobody.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn is_gone(&self) -> bool {
        matches!(
            rustix::process::test_kill_process_group(self.pid),
            Err(rustix::io::Errno::SRCH)
        )
    }

    /// Whether nothing is left that [`sweep`](Self::sweep) does not find.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_gone(&self) -> bool {
        true
    }
}

/// Ties the child's life to that of this thread, which is the program's: the kernel kills it when its owner is gone.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "the code between fork and exec")]
fn end_with_owner(command: &mut Command) {
    use rustix::process::{getpid, getppid, set_parent_process_death_signal};
    let owner = getpid();
    let tie = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // An owner that died before the line above sends no signal any more.
        if getppid() == Some(owner) {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(
                rustix::io::Errno::SRCH.raw_os_error(),
            ))
        }
    };
    // SAFETY: between fork and exec only what is safe in a signal handler may be done. These are two system calls, and nothing is
    // allocated.
    unsafe { command.pre_exec(tie) };
}

/// Nothing of the kind exists here; what is left is that the child loses its output.
#[cfg(not(target_os = "linux"))]
fn end_with_owner(_command: &mut Command) {}

/// Takes the child out of our session, so that neither our terminal nor its end reaches it.
#[allow(unsafe_code, reason = "the code between fork and exec")]
fn in_own_session(command: &mut Command) {
    let leave = || {
        rustix::process::setsid()?;
        Ok(())
    };
    // SAFETY: between fork and exec only what is safe in a signal handler may be done. This is one system call, and nothing is
    // allocated.
    unsafe { command.pre_exec(leave) };
}

/// Tells when a pidfd's process has exited.
#[cfg(target_os = "linux")]
#[allow(
    deprecated,
    reason = "unsound only for types whose descriptor changes or closes under them; the replacement is an unsafe function"
)]
pub(super) fn readable(pidfd: std::os::fd::OwnedFd) -> io::Result<AsyncFd<std::os::fd::OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
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
        if let Ok(pidfd) = owned.pidfd() {
            let source = Source::Pidfd(readable(pidfd)?);
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
    use super::super::record::LaunchSign;
    use super::*;

    fn birth() -> Birth {
        Birth {
            sign: LaunchSign::random().unwrap(),
            survives: false,
        }
    }

    /// The way without pidfds sees the same exit and leaves the status to be collected.
    #[tokio::test]
    async fn an_exit_is_seen_by_signal_and_waitid_too() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit 3"]);
        let started = Owned::start(command, &birth()).unwrap();
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
        let mut started = Owned::start(command, &birth()).unwrap();
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
