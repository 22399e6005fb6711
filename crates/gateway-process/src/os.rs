//! The real processes of this machine.
//!
//! One task owns each child from its start to the moment its exit status is collected. It performs the steps of an ending, so
//! that nobody's dropped future can interrupt one, and publishes the exit to any number of waiters. The handle holds no more than
//! the right to signal. Whichever goes first, the handle or the runtime with the task, kills the group on its way out.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gateway_policy::liveness::ProcessSample;
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::exit::{ChildExit, ExitReason, TerminationReason};
use crate::host::{ManagedChild, ProcessHost};
use crate::output::{
    OUTPUT_QUEUE_LINES, OutputSender, OutputSource, OutputStream, WeakOutputSender,
};
use crate::ownership::{ExitWatch, Owned, Started};
use crate::ports::{PORT_TABLE_DEADLINE, PortError, PortOwner, port_owners};
use crate::pump::{RecentLines, drain};
use crate::run::{RunError, RunReport, run_to_end};
use crate::spec::{LaunchSpec, SpawnError};
use crate::terminate::{TerminateError, Termination};
use crate::vitals;

/// After the exit, how long the pipes may stay open before they are closed from our side. They close at once unless a process
/// outside the group inherited them.
const DRAIN_AFTER_EXIT: Duration = Duration::from_millis(250);

/// How long killed members of the group may take to disappear.
const GROUP_GONE_WITHIN: Duration = Duration::from_secs(1);

/// Stands in for a time that the clock cannot represent: 30 years.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Starts real processes. Needs a tokio runtime with I/O and time enabled; use real time, because a paused clock runs ahead of real
/// pipes.
///
/// ```
/// # #[cfg(unix)]
/// # tokio_test().unwrap();
/// # #[cfg(unix)]
/// # fn tokio_test() -> Result<(), Box<dyn std::error::Error>> {
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// use std::time::Duration;
/// use gateway_process::{Environment, LaunchSpec, OsProcessHost, ProcessHost};
///
/// let spec = LaunchSpec::new("sh", Environment::from_parent()).args(["-c", "echo done"]);
/// let report = OsProcessHost::new().run(&spec, Duration::from_secs(10)).await?;
/// assert!(report.success());
/// # Ok(()) })
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct OsProcessHost(());

impl OsProcessHost {
    /// The processes of this machine.
    #[must_use]
    pub fn new() -> Self {
        Self(())
    }
}

#[async_trait]
impl ProcessHost for OsProcessHost {
    async fn spawn(&self, spec: &LaunchSpec) -> Result<Arc<dyn ManagedChild>, SpawnError> {
        Ok(Arc::new(OsChild::start(spec)?))
    }

    async fn port_owners(&self, port: u16) -> Result<Vec<PortOwner>, PortError> {
        port_owners(port, PORT_TABLE_DEADLINE).await
    }

    async fn run(&self, spec: &LaunchSpec, deadline: Duration) -> Result<RunReport, RunError> {
        run_to_end(self, spec, deadline).await
    }

    fn time_asleep(&self) -> Duration {
        vitals::time_asleep()
    }
}

/// How far a child has come.
#[derive(Clone, Debug)]
enum Stage {
    Running,
    /// The exit status is collected; the pipes and the rest of the group are being seen to.
    Collected,
    Ended(Ended),
}

#[derive(Clone, Debug)]
struct Ended {
    exit: ChildExit,
    survivors: Vec<u32>,
}

/// What the handle and the owning task share.
struct Shared {
    owned: Arc<Owned>,
    started: Instant,
    stage: watch::Sender<Stage>,
    /// When the group is to be forced; set by the first request to end, moved forward by later ones.
    force_at: watch::Sender<Option<Instant>>,
    reason: OnceLock<TerminationReason>,
    signal_error: Mutex<Option<String>>,
    recent: RecentLines,
    progress: watch::Sender<u64>,
}

impl Shared {
    fn signalled(&self, what: &str, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::warn!(pid = self.owned.pid(), %error, "{what} failed");
            *self
                .signal_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }
    }

    fn exit(
        &self,
        status: Option<ExitStatus>,
        ran_for: Duration,
        leftovers: Vec<u32>,
    ) -> ChildExit {
        #[cfg(unix)]
        let signal = status
            .as_ref()
            .and_then(std::os::unix::process::ExitStatusExt::signal);
        #[cfg(not(unix))]
        let signal = None;
        ChildExit {
            pid: self.owned.pid(),
            code: status.and_then(|status| status.code()),
            signal,
            reason: match self.reason.get() {
                Some(reason) => ExitReason::Requested(reason.clone()),
                None => ExitReason::Unexpected,
            },
            ran_for,
            leftovers,
        }
    }
}

/// The handle of a real child.
struct OsChild {
    shared: Arc<Shared>,
    output: WeakOutputSender,
    /// The queue that exists from the start, so that the first reader misses nothing.
    first_reader: Mutex<Option<OutputStream>>,
}

impl OsChild {
    fn start(spec: &LaunchSpec) -> Result<Self, SpawnError> {
        let Ok(runtime) = Handle::try_current() else {
            return Err(SpawnError::NoRuntime {
                command: spec.to_string(),
            });
        };
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.args)
            .env_clear()
            .envs(spec.env.iter_exposed());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(directory) = &spec.current_dir {
            command.current_dir(directory);
        }
        let Started {
            owned,
            watch: exit_watch,
            stdout,
            stderr,
        } = Owned::start(command).map_err(|error| spawn_error(spec, error))?;
        tracing::debug!(pid = owned.pid(), command = %spec, "started");

        let (sender, first_reader) = OutputSender::channel(OUTPUT_QUEUE_LINES);
        let output = sender.downgrade();
        let shared = Arc::new(Shared {
            owned,
            started: Instant::now(),
            stage: watch::Sender::new(Stage::Running),
            force_at: watch::Sender::new(None),
            reason: OnceLock::new(),
            signal_error: Mutex::new(None),
            recent: RecentLines::default(),
            progress: watch::Sender::new(0),
        });
        let mut pumps = JoinSet::new();
        if let Some(pipe) = stdout {
            let (shared, sender) = (Arc::clone(&shared), sender.clone());
            pumps.spawn_on(
                async move {
                    drain(
                        pipe,
                        OutputSource::Stdout,
                        &shared.recent,
                        sender,
                        &shared.progress,
                    )
                    .await
                },
                &runtime,
            );
        }
        if let Some(pipe) = stderr {
            let shared = Arc::clone(&shared);
            pumps.spawn_on(
                async move {
                    drain(
                        pipe,
                        OutputSource::Stderr,
                        &shared.recent,
                        sender,
                        &shared.progress,
                    )
                    .await
                },
                &runtime,
            );
        }
        let owner = Owner {
            shared: Arc::clone(&shared),
            pumps,
            exit_watch,
        };
        runtime.spawn(owner.run());
        Ok(Self {
            shared,
            output,
            first_reader: Mutex::new(Some(first_reader)),
        })
    }

    async fn ended(&self) -> Ended {
        let mut stage = self.shared.stage.subscribe();
        loop {
            if let Stage::Ended(ended) = &*stage.borrow_and_update() {
                return ended.clone();
            }
            // The sender lives in `shared`, so the channel is open as long as we are.
            let _ = stage.changed().await;
        }
    }
}

#[async_trait]
impl ManagedChild for OsChild {
    fn pid(&self) -> u32 {
        self.shared.owned.pid()
    }

    fn recent_stderr(&self) -> Vec<String> {
        self.shared.recent.snapshot()
    }

    fn output(&self) -> OutputStream {
        let first = self
            .first_reader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        first.unwrap_or_else(|| self.output.subscribe())
    }

    fn progress(&self) -> watch::Receiver<u64> {
        self.shared.progress.subscribe()
    }

    fn sample(&self) -> Option<ProcessSample> {
        // Until the exit status is collected the number is the child's, dead or alive.
        let stage = self.shared.stage.borrow();
        let vitals = match *stage {
            Stage::Running => vitals::of_process(self.pid())?,
            Stage::Collected | Stage::Ended(_) => return None,
        };
        Some(ProcessSample {
            processor_time: vitals.processor_time,
            lines: *self.shared.progress.borrow(),
            halted: vitals.halted,
        })
    }

    async fn wait(&self) -> ChildExit {
        self.ended().await.exit
    }

    async fn terminate(&self, request: Termination) -> Result<ChildExit, TerminateError> {
        let asked_at = Instant::now();
        let shared = &self.shared;
        // An exit that has happened was not requested, even when nobody has noticed it yet.
        if !shared.owned.has_exited() {
            let _ = shared.reason.set(request.reason);
            // Whoever says "as long as it takes" means it.
            let wanted = asked_at
                .checked_add(request.ask_for)
                .unwrap_or_else(|| asked_at + FOR_EVER);
            shared.force_at.send_if_modified(|force_at| {
                let sooner = force_at.is_none_or(|at| wanted < at);
                if sooner {
                    *force_at = Some(wanted);
                }
                sooner
            });
        }
        let mut stage = shared.stage.subscribe();
        let collected = stage.wait_for(|stage| !matches!(stage, Stage::Running));
        if timeout(
            request.ask_for.saturating_add(request.reap_within),
            collected,
        )
        .await
        .is_err()
        {
            return Err(TerminateError::StillAlive {
                pid: self.pid(),
                waited: asked_at.elapsed(),
                signal_error: shared
                    .signal_error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone(),
            });
        }
        // What follows the collecting has bounds of its own.
        let Ended { exit, survivors } = self.ended().await;
        if survivors.is_empty() {
            Ok(exit)
        } else {
            Err(TerminateError::GroupAlive {
                pid: exit.pid,
                survivors,
            })
        }
    }
}

impl Drop for OsChild {
    fn drop(&mut self) {
        if matches!(*self.shared.stage.borrow(), Stage::Running) && !self.shared.owned.has_exited()
        {
            let _ = self.shared.reason.set(TerminationReason::Superseded);
            self.shared.signalled(
                "killing the group of a dropped child",
                self.shared.owned.force(),
            );
        }
    }
}

/// The task that owns a child.
struct Owner {
    shared: Arc<Shared>,
    pumps: JoinSet<()>,
    exit_watch: ExitWatch,
}

impl Owner {
    async fn run(mut self) {
        self.until_exit().await;
        let ran_for = self.shared.started.elapsed();
        let owned = Arc::clone(&self.shared.owned);
        // The leader is a zombie now and still holds the group's number, so this cannot meet a stranger.
        let members = owned.members();
        if members.as_ref().is_none_or(|members| !members.is_empty()) {
            self.shared
                .signalled("killing what a child left behind", owned.force());
        }
        let leftovers = members.unwrap_or_default();
        let status = owned.collect().unwrap_or_else(|error| {
            tracing::warn!(pid = owned.pid(), %error, "the exit status of a child is lost");
            None
        });
        let exit = self.shared.exit(status, ran_for, leftovers);
        self.shared.stage.send_replace(Stage::Collected);
        self.drain_rest().await;
        let survivors = self.survivors(&exit.leftovers).await;
        tracing::debug!(%exit, "ended");
        self.shared
            .stage
            .send_replace(Stage::Ended(Ended { exit, survivors }));
    }

    /// Watches the child, and performs the steps of an ending once one is requested.
    async fn until_exit(&mut self) {
        let shared = &self.shared;
        let mut requested = shared.force_at.subscribe();
        // A request may have come before this task had its first turn.
        requested.mark_changed();
        let mut force_at = None;
        let mut asked = false;
        let mut forced = false;
        loop {
            tokio::select! {
                biased;
                () = self.exit_watch.exited() => return,
                // The sender lives in `shared`: the channel does not close while we are here.
                Ok(()) = requested.changed() => {
                    force_at = *requested.borrow_and_update();
                    if !asked && force_at.is_some_and(|at| at > Instant::now()) {
                        asked = true;
                        shared.signalled("asking a child to end", shared.owned.ask());
                    }
                }
                () = sleep_until(force_at.unwrap_or(shared.started)), if force_at.is_some() && !forced => {
                    forced = true;
                    shared.signalled("killing a child's group", shared.owned.force());
                }
            }
        }
    }

    /// Reads what is left in the pipes. A process that left the group may hold them open for ever; it does not hold us.
    async fn drain_rest(&mut self) {
        let pumps = &mut self.pumps;
        let drained = timeout(DRAIN_AFTER_EXIT, async {
            while pumps.join_next().await.is_some() {}
        })
        .await;
        if drained.is_err() {
            tracing::warn!(
                pid = self.shared.owned.pid(),
                "a process outside the child's group still holds its output open; closing our end"
            );
            self.pumps.shutdown().await;
        }
    }

    /// The killed members of the group that do not disappear.
    async fn survivors(&self, leftovers: &[u32]) -> Vec<u32> {
        let owned = &self.shared.owned;
        let deadline = Instant::now() + GROUP_GONE_WITHIN;
        loop {
            if owned.group_is_gone() {
                return Vec::new();
            }
            let survivors = match owned.members() {
                // Zombies whose parent does not care are no members, but they keep the group's number.
                Some(mut members) => {
                    members.retain(|pid| leftovers.contains(pid));
                    if members.is_empty() {
                        return members;
                    }
                    members
                }
                None => vec![owned.pid()],
            };
            if Instant::now() >= deadline {
                tracing::warn!(
                    pid = owned.pid(),
                    ?survivors,
                    "members of a child's group survived SIGKILL"
                );
                return survivors;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Only when the runtime goes away under us is there no end published yet.
        let shared = &self.shared;
        if !matches!(*shared.stage.borrow(), Stage::Ended(_)) {
            let exited = shared.owned.has_exited();
            if !exited {
                let _ = shared.reason.set(TerminationReason::Superseded);
            }
            let status = shared.owned.abandon();
            let exit = shared.exit(status, shared.started.elapsed(), Vec::new());
            shared.stage.send_replace(Stage::Ended(Ended {
                exit,
                survivors: Vec::new(),
            }));
        }
    }
}

fn spawn_error(spec: &LaunchSpec, error: io::Error) -> SpawnError {
    let command = spec.to_string();
    if let Some(directory) = spec
        .current_dir
        .as_ref()
        .filter(|directory| !directory.is_dir())
    {
        return SpawnError::WorkingDirectory {
            directory: directory.clone(),
            command,
        };
    }
    let program = spec.program.clone();
    let source = Arc::new(error);
    match source.kind() {
        // The file is there, so what is missing is the interpreter that its first line names.
        io::ErrorKind::NotFound if !program.is_file() => {
            SpawnError::ProgramNotFound { program, command }
        }
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => SpawnError::NotExecutable {
            program,
            command,
            source,
        },
        // ENOEXEC has no kind of its own.
        _ if cfg!(unix) && source.raw_os_error() == Some(8) => SpawnError::NotExecutable {
            program,
            command,
            source,
        },
        _ => SpawnError::Refused { command, source },
    }
}
