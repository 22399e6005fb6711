//! The real processes of this machine.
//!
//! One task owns each child from its start to the moment its exit status is collected. It performs the steps of an ending, so
//! that nobody's dropped future can interrupt one, and publishes the exit to any number of waiters. The handle holds no more than
//! the right to signal. Whichever goes first, the handle or the runtime with the task, kills the group on its way out.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gateway_policy::liveness::ProcessSample;
use tokio::io::AsyncRead;
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::exit::{ChildExit, ExitReason, TerminationReason};
use crate::follow::follow;
use crate::host::{ManagedChild, ProcessHost, Survivor};
use crate::output::{
    OUTPUT_QUEUE_LINES, OutputCounts, OutputSender, OutputSource, OutputStream, WeakOutputSender,
};
use crate::ownership::{
    Birth, Claim, ClaimError, ExitWatch, LAUNCH_SIGN, LaunchSign, Owned, OwnershipRecord,
    RECORD_VERSION, Started, private,
};
use crate::ports::{PORT_TABLE_DEADLINE, PortError, PortOwner, port_owners};
use crate::pump::{RecentLines, drain};
use crate::run::{RunError, RunLimits, RunReport, run_to_end};
use crate::spawner::on_spawner;
use crate::spec::{LaunchSpec, OwnerDeath, SpawnError};
use crate::terminate::{Ending, EndingStage, TerminateError, Termination};
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
/// let report = OsProcessHost::new().run(&spec, Duration::from_secs(10).into()).await?;
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
        let Ok(runtime) = Handle::try_current() else {
            return Err(SpawnError::NoRuntime {
                command: spec.to_string(),
            });
        };
        let own = spec.clone();
        match on_spawner(move || OsChild::start(&own, &runtime)).await {
            Ok(child) => Ok(Arc::new(child?)),
            Err(error) => Err(spawn_error(spec, error)),
        }
    }

    async fn survivor(&self, claim: &Claim) -> Result<Option<Survivor>, ClaimError> {
        survivor(claim).await
    }

    async fn port_owners(&self, port: u16) -> Result<Vec<PortOwner>, PortError> {
        port_owners(port, PORT_TABLE_DEADLINE).await
    }

    async fn run(&self, spec: &LaunchSpec, limits: RunLimits) -> Result<RunReport, RunError> {
        run_to_end(self, spec, limits).await
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
    ending: watch::Sender<Ending>,
    reason: OnceLock<TerminationReason>,
    signal_error: Mutex<Option<String>>,
    /// Where the launch is written down, and what stands there, until the child is gone. Whoever has seen its end may claim the instance.
    written: Mutex<Option<(Claim, OwnershipRecord)>>,
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

    /// The end was asked for, or is to come sooner.
    fn will_be_forced(&self, force_at: Option<Instant>) {
        if force_at.is_none() {
            return;
        }
        self.ending.send_modify(|ending| {
            ending.stage = EndingStage::Asked;
            ending.since.get_or_insert_with(Instant::now);
            ending.force_at = force_at;
        });
    }

    fn reached(&self, stage: EndingStage) {
        self.ending.send_modify(|ending| {
            ending.stage = stage;
            ending.force_at = None;
            if stage == EndingStage::Forced {
                ending.forced_at = Some(Instant::now());
            }
        });
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
    /// Starts a child. To be called on the [spawner's thread](crate::spawner).
    fn start(spec: &LaunchSpec, runtime: &Handle) -> Result<Self, SpawnError> {
        let _context = runtime.enter();
        let survives = spec.owner_death == OwnerDeath::ChildSurvives;
        let birth = Birth {
            sign: LaunchSign::random().map_err(|error| spawn_error(spec, error))?,
            survives,
        };
        let mut command = Command::new(&spec.program);
        command
            .args(&spec.args)
            .env_clear()
            .envs(spec.env.iter_exposed())
            .env(LAUNCH_SIGN, birth.sign.as_str())
            .stdin(Stdio::null());
        let files = match (&spec.claim, survives) {
            (Some(claim), true) => {
                Some(OutputFiles::make(claim.directory()).map_err(not_recorded(spec, claim))?)
            }
            (None, true) => {
                return Err(SpawnError::CannotSurvive {
                    command: spec.to_string(),
                    why: "there is no claim under which the next owner would find it; claim a directory for it first",
                });
            }
            (_, false) => None,
        };
        match &files {
            Some(files) => {
                command.stdout(
                    files
                        .stdout
                        .try_clone()
                        .map_err(|error| spawn_error(spec, error))?,
                );
                command.stderr(
                    files
                        .stderr
                        .try_clone()
                        .map_err(|error| spawn_error(spec, error))?,
                );
            }
            None => {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        if let Some(directory) = &spec.current_dir {
            command.current_dir(directory);
        }
        // Written before there is anything to lose: whoever comes after us knows the sign to look for.
        let written = match &spec.claim {
            Some(claim) => {
                let record = new_record(spec, &birth).map_err(not_recorded(spec, claim))?;
                claim.save(&record).map_err(not_recorded(spec, claim))?;
                Some((claim.clone(), record))
            }
            None => None,
        };
        let started = match Owned::start(command, &birth) {
            Ok(started) => started,
            Err(error) => {
                if let Some((claim, record)) = &written {
                    claim.forget(record);
                }
                return Err(spawn_error(spec, error));
            }
        };
        tracing::debug!(pid = started.owned.pid(), command = %spec, "started");
        let written = match written {
            Some((claim, mut record)) => {
                record.leader = started.owned.identity();
                if let Err(error) = claim.save(&record) {
                    started.owned.abandon();
                    claim.forget(&record);
                    return Err(not_recorded(spec, &claim)(error));
                }
                Some((claim, record))
            }
            None => None,
        };
        Self::own(started, written, files, runtime).map_err(|error| spawn_error(spec, error))
    }

    /// Starts the tasks that own a process.
    fn own(
        started: Started,
        written: Option<(Claim, OwnershipRecord)>,
        files: Option<OutputFiles>,
        runtime: &Handle,
    ) -> io::Result<Self> {
        let Started {
            owned,
            watch: exit_watch,
            stdout,
            stderr,
        } = started;
        let (sender, first_reader) = OutputSender::channel(OUTPUT_QUEUE_LINES);
        let output = sender.downgrade();
        let shared = Arc::new(Shared {
            owned,
            started: Instant::now(),
            stage: watch::Sender::new(Stage::Running),
            force_at: watch::Sender::new(None),
            ending: watch::Sender::default(),
            reason: OnceLock::new(),
            signal_error: Mutex::new(None),
            written: Mutex::new(written),
            recent: RecentLines::default(),
            progress: watch::Sender::new(0),
        });
        let mut pumps = JoinSet::new();
        let over = watch::Sender::new(false);
        if let Some(files) = files {
            let pipes = files.follow(&over);
            let (stdout, stderr) = match pipes {
                Ok(pipes) => pipes,
                Err(error) => {
                    shared.owned.abandon();
                    return Err(error);
                }
            };
            pump(
                &mut pumps,
                runtime,
                stdout,
                OutputSource::Stdout,
                &shared,
                &sender,
            );
            pump(
                &mut pumps,
                runtime,
                stderr,
                OutputSource::Stderr,
                &shared,
                &sender,
            );
        }
        if let Some(pipe) = stdout {
            pump(
                &mut pumps,
                runtime,
                pipe,
                OutputSource::Stdout,
                &shared,
                &sender,
            );
        }
        if let Some(pipe) = stderr {
            pump(
                &mut pumps,
                runtime,
                pipe,
                OutputSource::Stderr,
                &shared,
                &sender,
            );
        }
        let owner = Owner {
            shared: Arc::clone(&shared),
            pumps,
            over,
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

    fn output_counts(&self) -> OutputCounts {
        self.shared.recent.counts()
    }

    fn sample(&self) -> Option<ProcessSample> {
        // Until the exit status is collected the number is the child's, dead or alive.
        let stage = self.shared.stage.borrow();
        let vitals = match *stage {
            Stage::Running => vitals::of_process(self.pid())?,
            Stage::Collected | Stage::Ended(_) => return None,
        };
        // A survivor is collected by somebody else, and its number may be anybody's after that.
        if self.shared.owned.has_exited() {
            return None;
        }
        Some(ProcessSample {
            processor_time: vitals.processor_time,
            lines: *self.shared.progress.borrow(),
            halted: vitals.halted,
        })
    }

    fn ending(&self) -> watch::Receiver<Ending> {
        self.shared.ending.subscribe()
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

/// Reads a pipe in a task of its own.
fn pump(
    pumps: &mut JoinSet<()>,
    runtime: &Handle,
    pipe: impl AsyncRead + Unpin + Send + 'static,
    source: OutputSource,
    shared: &Arc<Shared>,
    sender: &OutputSender,
) {
    let (shared, sender) = (Arc::clone(shared), sender.clone());
    let reading = async move {
        drain(pipe, source, &shared.recent, sender, &shared.progress).await;
    };
    pumps.spawn_on(reading, runtime);
}

/// The files that a child writes to when it is to outlive its owner.
struct OutputFiles {
    directory: PathBuf,
    stdout: File,
    stderr: File,
}

impl OutputFiles {
    const STDOUT: &str = "stdout.log";
    const STDERR: &str = "stderr.log";

    /// New ones; those of the launch before keep another name until the next one.
    fn make(directory: &Path) -> io::Result<Self> {
        let new = |name: &str| {
            let path = directory.join(name);
            match std::fs::rename(&path, directory.join(format!("{name}.old"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = File::options();
            private(options.append(true).create_new(true));
            options.open(path)
        };
        Ok(Self {
            directory: directory.to_owned(),
            stdout: new(Self::STDOUT)?,
            stderr: new(Self::STDERR)?,
        })
    }

    /// Those that a survivor writes to.
    #[cfg(target_os = "linux")]
    fn of_survivor(directory: &Path) -> io::Result<Self> {
        let open = |name: &str| File::options().append(true).open(directory.join(name));
        Ok(Self {
            directory: directory.to_owned(),
            stdout: open(Self::STDOUT)?,
            stderr: open(Self::STDERR)?,
        })
    }

    fn follow(
        &self,
        over: &watch::Sender<bool>,
    ) -> io::Result<(
        impl AsyncRead + Unpin + Send + use<>,
        impl AsyncRead + Unpin + Send + use<>,
    )> {
        Ok((
            follow(&self.directory.join(Self::STDOUT), over.subscribe())?,
            follow(&self.directory.join(Self::STDERR), over.subscribe())?,
        ))
    }
}

fn new_record(spec: &LaunchSpec, birth: &Birth) -> io::Result<OwnershipRecord> {
    #[cfg(target_os = "linux")]
    let boot = crate::ownership::linux::boot()?;
    // Start times are told on Linux only, and nothing is proved by a record elsewhere.
    #[cfg(not(target_os = "linux"))]
    let boot = String::new();
    Ok(OwnershipRecord {
        version: RECORD_VERSION,
        sign: birth.sign.clone(),
        boot,
        leader: None,
        fingerprint: spec.fingerprint(),
        port: spec.port,
        survives: birth.survives,
    })
}

fn not_recorded(spec: &LaunchSpec, claim: &Claim) -> impl FnOnce(io::Error) -> SpawnError + use<> {
    let (command, directory) = (spec.to_string(), claim.directory().to_owned());
    move |error| SpawnError::NotRecorded {
        command,
        directory,
        source: Arc::new(error),
    }
}

/// What is left of the launch that is written down under a claim: adopted when it serves, ended when it is only leftovers.
#[cfg(target_os = "linux")]
async fn survivor(claim: &Claim) -> Result<Option<Survivor>, ClaimError> {
    use crate::ownership::lineage::{Remains, remains_of};
    use crate::ownership::linux::{Proc, boot};
    use crate::ownership::table::{Kind, ProcessTable as _};

    let Some(record) = claim.record()? else {
        return Ok(None);
    };
    let unusable = |source: io::Error| ClaimError::Directory {
        directory: claim.directory().to_owned(),
        source: Arc::new(source),
    };
    // An unreadable table only costs the hint who serves in the place of a launcher that is gone.
    let owners = match record.port {
        Some(port) => port_owners(port, PORT_TABLE_DEADLINE)
            .await
            .unwrap_or_default(),
        None => Vec::new(),
    };
    let serving = owners.iter().find_map(|owner| owner.pid);
    let (looked_for, looking) = (record.clone(), Handle::current());
    let found = tokio::task::spawn_blocking(move || {
        let _context = looking.enter();
        match remains_of(&Proc, &looked_for, &boot()?, serving)? {
            Remains::Leader(proved) => Owned::of_survivor(proved, &looked_for).map(Some),
            Remains::Leftovers(members) => {
                let pids: Vec<u32> = members.iter().map(|member| member.pid).collect();
                tracing::warn!(?pids, "killing what an earlier launch left behind");
                for member in members {
                    Proc.signal(&member.handle, Kind::Force)?;
                }
                Ok(None)
            }
            Remains::Doubtful(identity) => {
                tracing::warn!(
                    pid = identity.pid,
                    executable = ?identity.executable,
                    "a process of an earlier launch does not carry the sign of it any more; it is left alone"
                );
                Ok(None)
            }
            Remains::Nothing => Ok(None),
        }
    })
    .await
    .map_err(|error| unusable(io::Error::other(error)))?
    .map_err(unusable)?;
    let Some(started) = found else {
        claim.forget(&record);
        return Ok(None);
    };
    let files = if record.survives {
        match OutputFiles::of_survivor(claim.directory()) {
            Ok(files) => Some(files),
            Err(error) => {
                tracing::warn!(%error, "the output of a survivor cannot be read");
                None
            }
        }
    } else {
        None
    };
    let pid = started.owned.pid();
    let (fingerprint, port) = (record.fingerprint.clone(), record.port);
    let child = OsChild::own(
        started,
        Some((claim.clone(), record)),
        files,
        &Handle::current(),
    )
    .map_err(unusable)?;
    tracing::info!(pid, "took over a process that survived its owner");
    Ok(Some(Survivor {
        child: Arc::new(child),
        fingerprint,
        port,
    }))
}

/// Nothing can be proved here, so nothing is taken over.
#[cfg(not(target_os = "linux"))]
async fn survivor(claim: &Claim) -> Result<Option<Survivor>, ClaimError> {
    if let Some(record) = claim.record()? {
        claim.forget(&record);
    }
    Ok(None)
}

/// The task that owns a child.
struct Owner {
    shared: Arc<Shared>,
    pumps: JoinSet<()>,
    /// Tells those that read files that nobody writes to them any more.
    over: watch::Sender<bool>,
    exit_watch: ExitWatch,
}

impl Owner {
    async fn run(mut self) {
        self.until_exit().await;
        let ran_for = self.shared.started.elapsed();
        let owned = Arc::clone(&self.shared.owned);
        // A child is a zombie now and still holds the group's number, so this cannot meet a stranger.
        let leftovers = self.sweep();
        let status = owned.collect().unwrap_or_else(|error| {
            tracing::warn!(pid = owned.pid(), %error, "the exit status of a child is lost");
            None
        });
        let exit = self.shared.exit(status, ran_for, leftovers);
        self.shared.stage.send_replace(Stage::Collected);
        self.over.send_replace(true);
        let survivors = self.survivors().await;
        self.drain_rest().await;
        let written = self.shared.written.lock();
        let written = written.unwrap_or_else(PoisonError::into_inner).take();
        if survivors.is_empty()
            && let Some((claim, record)) = &written
        {
            claim.forget(record);
        }
        drop(written);
        tracing::debug!(%exit, "ended");
        self.shared.reached(EndingStage::Gone);
        self.shared
            .stage
            .send_replace(Stage::Ended(Ended { exit, survivors }));
    }

    /// Kills what the child has left behind.
    fn sweep(&self) -> Vec<u32> {
        let swept = self.shared.owned.sweep();
        if let Err(error) = &swept {
            tracing::warn!(pid = self.shared.owned.pid(), %error, "killing what a child left behind failed");
        }
        swept.unwrap_or_default()
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
                    shared.will_be_forced(force_at);
                    if !asked && force_at.is_some_and(|at| at > Instant::now()) {
                        asked = true;
                        shared.signalled("asking a child to end", shared.owned.ask());
                    }
                }
                () = sleep_until(force_at.unwrap_or(shared.started)), if force_at.is_some() && !forced => {
                    forced = true;
                    shared.reached(EndingStage::Forced);
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

    /// What does not disappear although it was killed, and what appeared while the rest was being killed.
    async fn survivors(&self) -> Vec<u32> {
        let owned = &self.shared.owned;
        let deadline = Instant::now() + GROUP_GONE_WITHIN;
        loop {
            let left = self.sweep();
            if left.is_empty() && owned.is_gone() {
                return left;
            }
            if Instant::now() >= deadline {
                let survivors = if left.is_empty() {
                    vec![owned.pid()]
                } else {
                    left
                };
                tracing::warn!(
                    pid = owned.pid(),
                    ?survivors,
                    "what a child left behind survived SIGKILL"
                );
                return survivors;
            }
            sleep(Duration::from_millis(2)).await;
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
