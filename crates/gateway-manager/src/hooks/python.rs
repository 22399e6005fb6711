//! A ready step that has a Python at hand before the gateway's skills ask for one.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use gateway_process::embedding::INHERITED_WHEN_EMBEDDED;
use gateway_process::{
    Environment, LaunchSpec, OsProcessHost, OutputSource, ProcessHost, RunError, RunReport,
    SpawnError,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{HookError, LaunchContext, PreparationHook, Region};

/// The Python that is looked for unless another is asked for.
const DEFAULT_VERSION: &str = "3.12";

/// Looking for a Python and, when there is none, downloading 30 MB.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(10 * 60);

/// Looking alone takes milliseconds.
const FIND_DEADLINE: Duration = Duration::from_secs(30);

/// After a failure the next launches within this time do not try again.
const RETRY_AFTER: Duration = Duration::from_secs(10 * 60);

/// Where uv downloads Python from.
const INSTALL_MIRROR: &str = "UV_PYTHON_INSTALL_MIRROR";

/// Where uv and what it starts download packages from: under the present name of the variable and its former one.
const PACKAGE_INDEX: [&str; 2] = ["UV_DEFAULT_INDEX", "UV_INDEX_URL"];

/// Another place to download from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonMirror {
    /// The address below which Python builds are, as uv's `UV_PYTHON_INSTALL_MIRROR` wants it.
    pub python: String,
    /// The address of a package index, for the gateway's own use of uv.
    pub packages: Option<String>,
}

/// When a mirror is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MirrorUse {
    /// Always.
    Always,
    /// When the settings of the machine say that it is in mainland China; see [`Region`].
    #[default]
    InMainlandChina,
}

/// Why there is no Python.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WarmUpError {
    /// There is no uv.
    #[error("there is no uv ({}); install it, or name the one that comes with the application", .looked_for.display())]
    NoUv {
        /// What was looked for.
        looked_for: PathBuf,
    },
    /// uv did not install it.
    #[error(
        "uv did not install Python {version}: {evidence}; run `uv python install {version}` to see more"
    )]
    NotInstalled {
        /// The version.
        version: String,
        /// What happened.
        evidence: String,
    },
}

/// A Python's path, or why there is none.
pub type WarmUpOutcome = Result<PathBuf, WarmUpError>;

/// Finds a Python through [uv](https://docs.astral.sh/uv/), or has uv install one.
///
/// The launch does not wait for it. Once per process it runs `uv python find`, and when that finds nothing `uv python install`: from
/// the mirror if one is to be used, and from the usual place when that fails. All managers of the process share what was found; after a
/// failure, launches within ten minutes do not try again. uv runs as a child of this process and ends with the manager. It gets the
/// gateway's way to the network and none of its keys.
///
/// ```
/// # async fn example(openclaw: gateway_manager::OpenClaw) -> Result<(), gateway_manager::BuildError> {
/// use gateway_manager::{GatewayManager, hooks::PythonWarmUp};
/// let warm_up = PythonWarmUp::new().bundled_uv("/opt/app/bin/uv");
/// let outcome = warm_up.outcome();
/// let manager = GatewayManager::builder().openclaw(openclaw).hook(warm_up).build()?;
/// # Ok(()) }
/// ```
pub struct PythonWarmUp {
    work: Work,
    mirror: Option<(PythonMirror, MirrorUse)>,
    region: Option<Region>,
    outcome: watch::Sender<Option<WarmUpOutcome>>,
    /// The one task; dropping it ends uv.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What the task needs.
#[derive(Clone)]
struct Work {
    bundled_uv: Option<PathBuf>,
    version: String,
    time_limit: Duration,
    host: Arc<dyn ProcessHost>,
}

/// What is known of one Python in this process. Its lock is held while uv runs, so that two managers do not install it twice.
type Known = Arc<tokio::sync::Mutex<Option<(Instant, WarmUpOutcome)>>>;

/// Which uv was asked for which version.
type Asked = (Option<PathBuf>, String);

static KNOWN: LazyLock<Mutex<HashMap<Asked, Known>>> = LazyLock::new(Mutex::default);

impl PythonWarmUp {
    /// Python 3.12 by the `uv` on the gateway's search path, without a mirror, within ten minutes.
    #[must_use]
    pub fn new() -> Self {
        Self {
            work: Work {
                bundled_uv: None,
                version: DEFAULT_VERSION.to_owned(),
                time_limit: DEFAULT_TIME_LIMIT,
                host: Arc::new(OsProcessHost::new()),
            },
            mirror: None,
            region: None,
            outcome: watch::Sender::new(None),
            task: Mutex::new(None),
        }
    }

    /// The uv that comes with the application. It is taken when it is there, else the one on the search path.
    #[must_use]
    pub fn bundled_uv(mut self, program: impl Into<PathBuf>) -> Self {
        self.work.bundled_uv = Some(program.into());
        self
    }

    /// Another version, as uv takes it.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.work.version = version.into();
        self
    }

    /// A mirror, and when it is used. It is also put into the gateway's environment, unless something is set there.
    #[must_use]
    pub fn mirror(mut self, mirror: PythonMirror, when: MirrorUse) -> Self {
        self.mirror = Some((mirror, when));
        self
    }

    /// Where the machine is, in place of what its settings say.
    #[must_use]
    pub fn region(mut self, region: Region) -> Self {
        self.region = Some(region);
        self
    }

    /// How long all of it may take. Default 10 min; with a mirror, half of it is kept for going on without.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.work.time_limit = limit;
        self
    }

    /// Another way to run processes, for tests.
    #[must_use]
    pub fn process_host(mut self, host: Arc<dyn ProcessHost>) -> Self {
        self.work.host = host;
        self
    }

    /// What has come of it; `None` until that is known.
    #[must_use]
    pub fn outcome(&self) -> watch::Receiver<Option<WarmUpOutcome>> {
        self.outcome.subscribe()
    }

    fn chosen_mirror(&self) -> Option<&PythonMirror> {
        let (mirror, when) = self.mirror.as_ref()?;
        let is_wanted = match when {
            MirrorUse::Always => true,
            MirrorUse::InMainlandChina => match &self.region {
                Some(region) => region.is_mainland_china(),
                None => Region::of_this_machine().is_mainland_china(),
            },
        };
        is_wanted.then_some(mirror)
    }
}

impl Default for PythonWarmUp {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PythonWarmUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonWarmUp")
            .field("bundled_uv", &self.work.bundled_uv)
            .field("version", &self.work.version)
            .field("time_limit", &self.work.time_limit)
            .field("mirror", &self.mirror)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl PreparationHook for PythonWarmUp {
    fn name(&self) -> &str {
        "Python warm-up"
    }

    fn is_required(&self) -> bool {
        false
    }

    async fn prepare(&self, context: &mut LaunchContext) -> Result<(), HookError> {
        if let Some(mirror) = self.chosen_mirror() {
            let environment = context.environment();
            if environment.expose(INSTALL_MIRROR).is_none() {
                environment.set(INSTALL_MIRROR, &mirror.python);
            }
            let is_set = PACKAGE_INDEX
                .iter()
                .any(|name| environment.expose(name).is_some());
            if let Some(packages) = mirror.packages.as_ref().filter(|_| !is_set) {
                for name in PACKAGE_INDEX {
                    environment.set(name, packages);
                }
            }
        }
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_some_and(|task| !task.is_finished()) {
            return Ok(());
        }
        let environment = context
            .environment()
            .reduced_to(INHERITED_WHEN_EMBEDDED.iter().copied().chain(["UV_*"]));
        let (work, outcome) = (self.work.clone(), self.outcome.clone());
        *task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let result = work.once_per_process(&environment).await;
            outcome.send_replace(Some(result));
        })));
        Ok(())
    }
}

impl Work {
    async fn once_per_process(&self, environment: &Environment) -> WarmUpOutcome {
        let asked = (self.bundled_uv.clone(), self.version.clone());
        let known = {
            let mut all = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(asked).or_default().clone()
        };
        let mut known = known.lock().await;
        if let Some((at, outcome)) = &*known
            && (outcome.is_ok() || at.elapsed() < RETRY_AFTER)
        {
            return outcome.clone();
        }
        let outcome = self.warm_up(environment).await;
        match &outcome {
            Ok(python) => tracing::info!(python = %python.display(), "Python is at hand"),
            Err(error) => tracing::warn!("Python is not at hand: {error}"),
        }
        *known = Some((Instant::now(), outcome.clone()));
        outcome
    }

    async fn warm_up(&self, environment: &Environment) -> WarmUpOutcome {
        let until = Instant::now() + self.time_limit;
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let find = |uv: &PathBuf, environment: &Environment| {
            let spec =
                LaunchSpec::new(uv, environment.clone()).args(["python", "find", &self.version]);
            async move {
                self.host
                    .run(&spec, FIND_DEADLINE.min(left(until)).into())
                    .await
            }
        };
        let on_path = PathBuf::from("uv");
        let mut uv = self.bundled_uv.as_ref().unwrap_or(&on_path);
        let mut answer = find(uv, environment).await;
        if matches!(answer, Err(RunError::Spawn(_))) && *uv != on_path {
            uv = &on_path;
            answer = find(uv, environment).await;
        }
        match answer {
            Ok(report) => {
                if let Some(python) = found(&report) {
                    return Ok(python);
                }
            }
            Err(RunError::Spawn(SpawnError::ProgramNotFound { program, .. })) => {
                return Err(WarmUpError::NoUv {
                    looked_for: program,
                });
            }
            Err(error) => tracing::debug!(%error, "uv did not say whether there is a Python"),
        }
        let mut places = vec![(environment.clone(), self.time_limit)];
        if environment.expose(INSTALL_MIRROR).is_some() {
            places[0].1 = self.time_limit / 2;
            let mut without_mirror = environment.clone();
            without_mirror.remove(INSTALL_MIRROR);
            places.push((without_mirror, self.time_limit));
        }
        let mut evidence = String::new();
        for (environment, limit) in places {
            let spec =
                LaunchSpec::new(uv, environment.clone()).args(["python", "install", &self.version]);
            match self.host.run(&spec, limit.min(left(until)).into()).await {
                Ok(report) if report.success() => {
                    let answer = find(uv, &environment).await;
                    if let Some(python) = answer.ok().as_ref().and_then(found) {
                        return Ok(python);
                    }
                    evidence = "it says that it did, and does not find it afterwards".to_owned();
                }
                Ok(report) => {
                    let last = report.output.last().map_or("", |line| line.text.trim());
                    let text = environment.redact(last);
                    evidence = format!("{} ({text:?})", report.exit);
                }
                Err(error) => evidence = error.to_string(),
            }
            tracing::debug!(%evidence, "uv did not install Python");
        }
        Err(WarmUpError::NotInstalled {
            version: self.version.clone(),
            evidence,
        })
    }
}

/// The path that `uv python find` printed.
fn found(report: &RunReport) -> Option<PathBuf> {
    let path = report.lines(OutputSource::Stdout).map(str::trim);
    let path = path.into_iter().find(|line| !line.is_empty())?;
    report.success().then(|| PathBuf::from(path))
}
