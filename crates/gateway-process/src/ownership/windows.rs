//! Owning a child on Windows: a job object that ends with its last handle.

use std::io;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use process_wrap::tokio::{ChildWrapper, CommandWrap, CreationFlags, JobObject, KillOnDrop};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::sync::Notify;

/// `CREATE_NO_WINDOW` of the Windows API: no console window flashes up.
const CREATE_NO_WINDOW: u32 = 0x0800_0000;

#[derive(Clone, Copy, Debug)]
enum State {
    Running,
    Exited(ExitStatus),
    Lost,
    Collected,
}

/// A child in a job object of its own. The job's handle lives in [`ExitWatch`]; closing it kills the job, also when this process
/// crashes.
#[derive(Debug)]
pub(crate) struct Owned {
    pid: u32,
    state: Mutex<State>,
    force: Notify,
}

/// What a start yields.
pub(crate) struct Started {
    pub(crate) owned: Arc<Owned>,
    pub(crate) watch: ExitWatch,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl Owned {
    /// Starts `command` in a new job object, without a window.
    pub(crate) fn start(command: Command) -> io::Result<Started> {
        let mut command = CommandWrap::from(command);
        let mut flags = CreationFlags(Default::default());
        flags.0.0 = CREATE_NO_WINDOW;
        // With KillOnDrop the job is set to die with its handle.
        command.wrap(flags).wrap(JobObject).wrap(KillOnDrop);
        let mut child = command.spawn()?;
        let stdout = child.stdout().take();
        let stderr = child.stderr().take();
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("the new process has no id"))?;
        let owned = Arc::new(Self {
            pid,
            state: Mutex::new(State::Running),
            force: Notify::new(),
        });
        let watch = ExitWatch {
            owned: Arc::clone(&owned),
            child,
        };
        Ok(Started {
            owned,
            watch,
            stdout,
            stderr,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// There is no polite signal for a process without a console, so asking is forcing.
    pub(crate) fn ask(&self) -> io::Result<()> {
        self.force()
    }

    /// Has the owner of the job's handle end the job.
    pub(crate) fn force(&self) -> io::Result<()> {
        self.force.notify_one();
        Ok(())
    }

    pub(crate) fn has_exited(&self) -> bool {
        !matches!(self.state(), State::Running)
    }

    pub(crate) fn collect(&self) -> io::Result<Option<ExitStatus>> {
        match self.state() {
            State::Running => Ok(None),
            State::Exited(status) => {
                self.set(State::Collected);
                Ok(Some(status))
            }
            State::Lost | State::Collected => {
                Err(io::Error::other("the exit status is not available"))
            }
        }
    }

    /// Closing the job's handle, which the caller is about to do, kills the job.
    pub(crate) fn abandon(&self) -> Option<ExitStatus> {
        self.collect().ok().flatten()
    }

    /// The job takes its members along; there is no list to look at.
    pub(crate) fn members(&self) -> Option<Vec<u32>> {
        None
    }

    /// A closed job has no members.
    pub(crate) fn group_is_gone(&self) -> bool {
        true
    }
}

/// Holds the job and waits for its first process.
pub(crate) struct ExitWatch {
    owned: Arc<Owned>,
    child: Box<dyn ChildWrapper>,
}

impl ExitWatch {
    /// Returns when the child has exited, and ends the rest of the job then. Cancel safe.
    pub(crate) async fn exited(&mut self) {
        while !self.owned.has_exited() {
            tokio::select! {
                // The inner child: the job's own wait lasts until every member is gone.
                status = self.child.inner_mut().wait() => {
                    self.owned.set(status.map_or(State::Lost, State::Exited));
                }
                () = self.owned.force.notified() => {}
            }
            if let Err(error) = self.child.start_kill() {
                tracing::debug!(pid = self.owned.pid, %error, "ending the job failed; it may be over already");
            }
        }
    }
}
