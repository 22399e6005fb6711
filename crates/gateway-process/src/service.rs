//! Services of the operating system that run an OpenClaw gateway of their own: finding them, and turning them off for a user who wants that.
//!
//! Two supervisors that do not know of each other fight about the port and about the state directory. So whoever launches a gateway wants to
//! know of a systemd unit or a launchd job that would do the same. Knowing is all that happens by itself: a service belongs to the
//! person who installed it. It is turned off only with a [`Consent`], its file is never touched, and the [`Disabled`] that comes of it puts
//! everything back.

mod launchd;
mod systemd;

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::env::Environment;
use crate::host::{BlockingWork, ProcessHost};
use crate::output::OutputSource;
use crate::run::{RunError, RunReport};
use crate::spec::LaunchSpec;

/// How long a question to a service manager may take.
pub const QUESTION_DEADLINE: Duration = Duration::from_secs(5);

/// How long turning a service off or on may take. A gateway that drains its work was seen to need minutes, and systemd waits 90 s by default.
pub const CHANGE_DEADLINE: Duration = Duration::from_secs(120);

/// Unit files and job descriptions are a few KiB; what is larger is none.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// How many services are asked about. A machine has one or two.
const MAX_SERVICES: usize = 16;

/// Beginnings of the names under which OpenClaw and its predecessors install their services.
const NAMES: [&str; 3] = ["openclaw", "clawdbot", "moltbot"];

/// Who runs a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceManager {
    /// The systemd of the user's login.
    SystemdUser,
    /// The systemd of the machine. Changing it needs an administrator.
    SystemdSystem,
    /// launchd in the user's graphical login.
    LaunchdAgent,
    /// launchd for the machine. Changing it needs an administrator.
    LaunchdDaemon,
}

impl fmt::Display for ServiceManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SystemdUser => "systemd (user)",
            Self::SystemdSystem => "systemd (system)",
            Self::LaunchdAgent => "launchd (user agent)",
            Self::LaunchdDaemon => "launchd (system daemon)",
        })
    }
}

/// What a service does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// It runs, or is being started or stopped.
    Running {
        /// Its main process, where the manager names one.
        pid: Option<u32>,
    },
    /// It does not run.
    Stopped,
    /// The manager could not be asked.
    Unknown,
}

/// A service that runs an OpenClaw gateway, or will by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompetingService {
    /// Who runs it.
    pub manager: ServiceManager,
    /// Its unit or label.
    pub name: String,
    /// The file that describes it.
    pub file: PathBuf,
    /// Whether it starts by itself, at login or with the machine.
    pub enabled: bool,
    /// What it does at the moment.
    pub state: ServiceState,
    /// The commands by which a person turns it off, in one line for a shell.
    pub turn_off: String,
}

impl fmt::Display for CompetingService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "The service {} of {} ({}) ",
            self.name,
            self.manager,
            self.file.display()
        )?;
        match self.state {
            ServiceState::Running { pid: Some(pid) } => {
                write!(f, "runs an OpenClaw gateway as process {pid}")?
            }
            ServiceState::Running { pid: None } => f.write_str("runs an OpenClaw gateway")?,
            ServiceState::Stopped | ServiceState::Unknown => {
                f.write_str("starts an OpenClaw gateway by itself")?
            }
        }
        write!(
            f,
            "; two supervisors disturb each other: attach to that gateway, or turn the service off with `{}`",
            self.turn_off
        )
    }
}

/// A user's permission to turn one service off.
///
/// Nothing makes one but a call of [`given_by_user`](Self::given_by_user), and turning off uses it up. Call it where a person has said yes,
/// and nowhere else.
///
/// ```compile_fail
/// let consent = gateway_process::service::Consent { reason: "nobody was asked".to_owned() };
/// ```
#[derive(Debug)]
#[must_use]
pub struct Consent {
    reason: String,
}

impl Consent {
    /// Records that a person agreed, and to what; the text is kept in the [`Disabled`].
    pub fn given_by_user(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
        }
    }
}

/// A service that was turned off, with what is needed to put it back. Keep it somewhere, for it is the only way back that knows how things
/// were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "without it the service cannot be put back as it was"]
pub struct Disabled {
    /// Who runs the service.
    pub manager: ServiceManager,
    /// Its unit or label.
    pub name: String,
    /// The file that describes it, which was not touched.
    pub file: PathBuf,
    /// Whether it started by itself before.
    pub was_enabled: bool,
    /// Whether it ran before.
    pub was_running: bool,
    /// What the user agreed to.
    pub reason: String,
}

/// A service could not be turned off or put back.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The program that changes services could not be run to its end.
    #[error("the service {name} could not be changed: {source}")]
    NotRun {
        /// The service.
        name: String,
        /// Why.
        source: RunError,
    },
    /// It ran and refused.
    #[error("`{command}` failed ({exit}): {answer}; run `{by_hand}` yourself{}", if *.needs_administrator { ", as an administrator" } else { "" })]
    Refused {
        /// The command.
        command: String,
        /// How it ended.
        exit: String,
        /// The last of what it printed.
        answer: String,
        /// What a person can do instead.
        by_hand: String,
        /// Whether an administrator has to do it.
        needs_administrator: bool,
    },
    /// Everything went well, and the service is not what it should be.
    #[error(
        "the service {name} was turned off and still {what}; look at it with the tools of {manager}"
    )]
    StillThere {
        /// The service.
        name: String,
        /// What it does.
        what: &'static str,
        /// Who runs it.
        manager: ServiceManager,
    },
    /// What is to be put back is not there any more.
    #[error("the service {name} cannot be put back: its file {} is gone; install the service again", .file.display())]
    FileGone {
        /// The service.
        name: String,
        /// Its file.
        file: PathBuf,
    },
}

/// A service was not turned off, or not completely.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{source}")]
pub struct DisableError {
    /// What went wrong.
    pub source: ServiceError,
    /// How things were before: [`restore`](ServiceSearch::restore) puts back whatever was changed.
    pub before: Box<Disabled>,
}

/// Where service descriptions are, and the programs that know what has become of them.
#[derive(Clone, Debug)]
pub struct ServiceSearch {
    directories: Vec<(ServiceManager, PathBuf)>,
    systemctl: PathBuf,
    launchctl: PathBuf,
    /// The user whose launchd is meant.
    uid: u32,
    environment: Environment,
    /// What tells that this process is itself part of a service.
    own: OwnService,
}

/// The service that this process runs in, which competes with nobody.
#[derive(Clone, Debug, Default)]
struct OwnService {
    /// The control groups of this process; the units it belongs to are parts of their paths.
    cgroups: String,
    /// The label under which launchd runs it.
    label: Option<String>,
}

impl OwnService {
    fn of_this_process() -> Self {
        Self {
            cgroups: std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
            label: std::env::var("XPC_SERVICE_NAME").ok(),
        }
    }

    fn is(&self, name: &str, pid: Option<u32>) -> bool {
        pid == Some(std::process::id())
            || self.label.as_deref() == Some(name)
            || self
                .cgroups
                .lines()
                .any(|line| line.split('/').any(|part| part == name))
    }
}

impl ServiceSearch {
    /// The places of this machine: those of systemd on Linux, those of launchd on macOS, none elsewhere.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let home = std::env::var_os("HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from);
        let mut search = if cfg!(target_os = "linux") {
            Self::systemd_below(Path::new("/"), home.as_deref())
        } else if cfg!(target_os = "macos") {
            Self::launchd_below(Path::new("/"), home.as_deref())
        } else {
            Self::nowhere()
        };
        if cfg!(target_os = "linux")
            && let Some(config) = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from)
            && config.is_absolute()
        {
            search.directories.insert(
                0,
                (ServiceManager::SystemdUser, config.join("systemd/user")),
            );
        }
        search.own = OwnService::of_this_process();
        search
    }

    /// The places of systemd (`man systemd.unit`) below another root, where one in front hides those behind it.
    #[must_use]
    pub fn systemd_below(root: &Path, home: Option<&Path>) -> Self {
        let mut search = Self::nowhere();
        let mut add = |manager, directory| search.directories.push((manager, directory));
        if let Some(home) = home {
            add(
                ServiceManager::SystemdUser,
                home.join(".config/systemd/user"),
            );
        }
        for directory in ["etc/systemd/user", "run/systemd/user"] {
            add(ServiceManager::SystemdUser, root.join(directory));
        }
        if let Some(home) = home {
            add(
                ServiceManager::SystemdUser,
                home.join(".local/share/systemd/user"),
            );
        }
        for directory in ["usr/local/lib/systemd/user", "usr/lib/systemd/user"] {
            add(ServiceManager::SystemdUser, root.join(directory));
        }
        for directory in [
            "etc/systemd/system",
            "run/systemd/system",
            "usr/local/lib/systemd/system",
            "usr/lib/systemd/system",
            "lib/systemd/system",
        ] {
            add(ServiceManager::SystemdSystem, root.join(directory));
        }
        search
    }

    /// The places of launchd (`man launchd`) below another root.
    #[must_use]
    pub fn launchd_below(root: &Path, home: Option<&Path>) -> Self {
        let mut search = Self::nowhere();
        if let Some(home) = home {
            search.directories.push((
                ServiceManager::LaunchdAgent,
                home.join("Library/LaunchAgents"),
            ));
        }
        search.directories.push((
            ServiceManager::LaunchdAgent,
            root.join("Library/LaunchAgents"),
        ));
        search.directories.push((
            ServiceManager::LaunchdDaemon,
            root.join("Library/LaunchDaemons"),
        ));
        search
    }

    fn nowhere() -> Self {
        #[cfg(unix)]
        let uid = rustix::process::getuid().as_raw();
        #[cfg(not(unix))]
        let uid = 0;
        let mut environment = Environment::from_parent();
        // The user's systemd is found by it, and a process that was not started by a login does not have it.
        let runtime = PathBuf::from(format!("/run/user/{uid}"));
        if environment.get("XDG_RUNTIME_DIR").is_none()
            && cfg!(target_os = "linux")
            && runtime.is_dir()
        {
            environment.set("XDG_RUNTIME_DIR", runtime);
        }
        environment.set("LC_ALL", "C");
        Self {
            directories: Vec::new(),
            systemctl: "systemctl".into(),
            launchctl: "launchctl".into(),
            uid,
            environment,
            own: OwnService::default(),
        }
    }

    /// Another program in place of the `systemctl` on the search path.
    #[must_use]
    pub fn systemctl(mut self, program: impl Into<PathBuf>) -> Self {
        self.systemctl = program.into();
        self
    }

    /// Another program in place of the `launchctl` on the search path.
    #[must_use]
    pub fn launchctl(mut self, program: impl Into<PathBuf>) -> Self {
        self.launchctl = program.into();
        self
    }

    /// The services that run an OpenClaw gateway or start one by themselves, except one that this process is part of.
    ///
    /// Looks at file names first, and asks the service manager only when there is something to ask about; then it takes up to
    /// [`QUESTION_DEADLINE`] for each service. What cannot be read is left out, and a manager that does not answer leaves the state unknown:
    /// this is a look around, and nothing depends on it. Cancel safe.
    pub async fn find<H: ProcessHost + ?Sized>(&self, host: &H) -> Vec<CompetingService> {
        let (report, reported) = oneshot::channel();
        let directories = self.directories.clone();
        host.do_blocking(BlockingWork::new(move || {
            // Nobody waits for it any more when the search was called off.
            let _ = report.send(scan(&directories));
        }))
        .await;
        let mut services = Vec::new();
        for found in reported.await.unwrap_or_default() {
            let facts = self.ask(host, &found).await;
            let enabled = facts.enabled.unwrap_or(found.enabled_by_file);
            let pid = match facts.state {
                ServiceState::Running { pid } => pid,
                ServiceState::Stopped | ServiceState::Unknown => None,
            };
            let competes = enabled || matches!(facts.state, ServiceState::Running { .. });
            if competes && !self.own.is(&found.name, pid) {
                services.push(CompetingService {
                    turn_off: self.by_hand(found.manager, &found.name),
                    manager: found.manager,
                    name: found.name,
                    file: found.file,
                    enabled,
                    state: facts.state,
                });
            }
        }
        services
    }

    /// Turns a service off: it does not start by itself any more, and it is stopped. Its file stays where it is.
    ///
    /// Dropping the future can leave the service half turned off; [`restore`](Self::restore) of a [`Disabled`] with the same facts puts it back.
    ///
    /// # Errors
    /// [`DisableError`], which holds what is needed to put back what was changed.
    pub async fn disable<H: ProcessHost + ?Sized>(
        &self,
        host: &H,
        service: &CompetingService,
        consent: Consent,
    ) -> Result<Disabled, DisableError> {
        let before = Disabled {
            manager: service.manager,
            name: service.name.clone(),
            file: service.file.clone(),
            was_enabled: service.enabled,
            was_running: matches!(service.state, ServiceState::Running { .. }),
            reason: consent.reason,
        };
        let failed = |source| DisableError {
            source,
            before: Box::new(before.clone()),
        };
        let steps = match before.manager {
            ServiceManager::SystemdUser | ServiceManager::SystemdSystem => {
                systemd::turning_off(&before)
            }
            ServiceManager::LaunchdAgent | ServiceManager::LaunchdDaemon => {
                launchd::turning_off(&before, self.uid)
            }
        };
        for step in steps {
            self.change(
                host,
                before.manager,
                &before.name,
                step,
                self.by_hand(before.manager, &before.name),
            )
            .await
            .map_err(failed)?;
        }
        let facts = self.ask(host, &Found::of(&before)).await;
        let still = match facts {
            Facts {
                state: ServiceState::Running { .. },
                ..
            } => "runs",
            Facts {
                enabled: Some(true),
                ..
            } => "starts by itself",
            _ => return Ok(before),
        };
        Err(failed(ServiceError::StillThere {
            name: before.name.clone(),
            what: still,
            manager: before.manager,
        }))
    }

    /// Puts a service back as it was before it was turned off: it starts by itself again if it did, and runs if it did. Doing so twice does no
    /// harm.
    ///
    /// # Errors
    /// [`ServiceError`] when the service is gone or its manager refuses.
    pub async fn restore<H: ProcessHost + ?Sized>(
        &self,
        host: &H,
        disabled: &Disabled,
    ) -> Result<(), ServiceError> {
        let file = disabled.file.clone();
        let (report, reported) = oneshot::channel();
        host.do_blocking(BlockingWork::new(move || {
            let _ = report.send(file.exists());
        }))
        .await;
        if !reported.await.unwrap_or(true) {
            return Err(ServiceError::FileGone {
                name: disabled.name.clone(),
                file: disabled.file.clone(),
            });
        }
        let is_loaded = matches!(
            self.ask(host, &Found::of(disabled)).await.state,
            ServiceState::Running { .. }
        );
        let (steps, by_hand) = match disabled.manager {
            ServiceManager::SystemdUser | ServiceManager::SystemdSystem => (
                systemd::turning_on(disabled),
                systemd::by_hand_on(disabled.manager, &disabled.name),
            ),
            ServiceManager::LaunchdAgent | ServiceManager::LaunchdDaemon => (
                launchd::turning_on(disabled, self.uid, is_loaded),
                launchd::by_hand_on(disabled, self.uid),
            ),
        };
        for step in steps {
            self.change(
                host,
                disabled.manager,
                &disabled.name,
                step,
                by_hand.clone(),
            )
            .await?;
        }
        Ok(())
    }

    fn program(&self, manager: ServiceManager) -> &Path {
        match manager {
            ServiceManager::SystemdUser | ServiceManager::SystemdSystem => &self.systemctl,
            ServiceManager::LaunchdAgent | ServiceManager::LaunchdDaemon => &self.launchctl,
        }
    }

    fn by_hand(&self, manager: ServiceManager, name: &str) -> String {
        match manager {
            ServiceManager::SystemdUser | ServiceManager::SystemdSystem => {
                systemd::by_hand_off(manager, name)
            }
            ServiceManager::LaunchdAgent | ServiceManager::LaunchdDaemon => {
                launchd::by_hand_off(manager, name, self.uid)
            }
        }
    }

    /// What a service manager says about a service.
    async fn ask<H: ProcessHost + ?Sized>(&self, host: &H, found: &Found) -> Facts {
        let questions = match found.manager {
            ServiceManager::SystemdUser | ServiceManager::SystemdSystem => {
                vec![systemd::question(found.manager, &found.name)]
            }
            ServiceManager::LaunchdAgent | ServiceManager::LaunchdDaemon => {
                launchd::questions(found.manager, &found.name, self.uid)
            }
        };
        let mut answers = Vec::new();
        for question in questions {
            let spec = LaunchSpec::new(self.program(found.manager), self.environment.clone())
                .args(question);
            answers.push(match host.run(&spec, QUESTION_DEADLINE.into()).await {
                Ok(report) => Some(report),
                Err(error) => {
                    tracing::debug!(service = %found.name, %error, "the service manager could not be asked");
                    None
                }
            });
        }
        match found.manager {
            ServiceManager::SystemdUser | ServiceManager::SystemdSystem => {
                systemd::facts(answers.first().and_then(Option::as_ref))
            }
            ServiceManager::LaunchdAgent | ServiceManager::LaunchdDaemon => launchd::facts(
                &found.name,
                answers.first().and_then(Option::as_ref),
                answers.get(1).and_then(Option::as_ref),
            ),
        }
    }

    /// Runs one step of turning a service off or on.
    async fn change<H: ProcessHost + ?Sized>(
        &self,
        host: &H,
        manager: ServiceManager,
        name: &str,
        step: Step,
        by_hand: String,
    ) -> Result<(), ServiceError> {
        let spec =
            LaunchSpec::new(self.program(manager), self.environment.clone()).args(step.arguments);
        tracing::info!(%manager, service = name, "running {spec}");
        let report = host
            .run(&spec, CHANGE_DEADLINE.into())
            .await
            .map_err(|source| ServiceError::NotRun {
                name: name.to_owned(),
                source,
            })?;
        if report.success()
            || report
                .exit
                .code
                .is_some_and(|code| step.also_fine.contains(&code))
        {
            return Ok(());
        }
        let last = report.output.iter().rev().map(|line| line.text.trim());
        Err(ServiceError::Refused {
            command: spec.to_string(),
            exit: report.exit.to_string(),
            answer: last
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or("it said nothing")
                .to_owned(),
            by_hand,
            needs_administrator: matches!(
                manager,
                ServiceManager::SystemdSystem | ServiceManager::LaunchdDaemon
            ),
        })
    }
}

/// One command of several, and the exit codes that are as good as success.
struct Step {
    arguments: Vec<String>,
    also_fine: &'static [i32],
}

/// A service that a file describes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    manager: ServiceManager,
    name: String,
    file: PathBuf,
    /// As far as files tell.
    enabled_by_file: bool,
}

impl Found {
    fn of(disabled: &Disabled) -> Self {
        Self {
            manager: disabled.manager,
            name: disabled.name.clone(),
            file: disabled.file.clone(),
            enabled_by_file: disabled.was_enabled,
        }
    }
}

/// What a service manager says; `None` when it does not say whether the service is enabled.
struct Facts {
    state: ServiceState,
    enabled: Option<bool>,
}

/// All services that files describe, at most [`MAX_SERVICES`].
fn scan(directories: &[(ServiceManager, PathBuf)]) -> Vec<Found> {
    let mut found = Vec::new();
    for manager in [ServiceManager::SystemdUser, ServiceManager::SystemdSystem] {
        found.extend(systemd::scan(manager, &of(directories, manager)));
    }
    for manager in [ServiceManager::LaunchdAgent, ServiceManager::LaunchdDaemon] {
        found.extend(launchd::scan(manager, &of(directories, manager)));
    }
    found.truncate(MAX_SERVICES);
    found
}

fn of(directories: &[(ServiceManager, PathBuf)], wanted: ServiceManager) -> Vec<&Path> {
    let matching = directories.iter().filter(|(manager, _)| *manager == wanted);
    matching.map(|(_, directory)| directory.as_path()).collect()
}

/// The entries of a directory by name, sorted; none when it cannot be read.
fn entries(directory: &Path) -> Vec<(String, PathBuf)> {
    let Ok(listing) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut entries: Vec<_> = listing
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect();
    entries.sort_unstable();
    entries
}

/// A file's content, unless it is none that is meant here.
fn content(file: &Path) -> io::Result<Vec<u8>> {
    let opened = std::fs::File::open(file)?;
    if !opened.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut content = Vec::new();
    opened.take(MAX_FILE_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

/// Whether words of a command line run OpenClaw's gateway: `openclaw gateway run`, or a Node with the entry script.
fn runs_a_gateway<'a>(words: impl IntoIterator<Item = &'a str>) -> bool {
    let (mut openclaw, mut gateway) = (false, false);
    for word in words {
        let word = word.trim_matches(['"', '\'']);
        openclaw |= NAMES.iter().any(|name| word.contains(name));
        gateway |= word == "gateway" || word.ends_with("openclaw-gateway");
    }
    openclaw && gateway
}

fn stdout(report: &RunReport) -> impl Iterator<Item = &str> {
    report.lines(OutputSource::Stdout).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_of_gateways() {
        let table = [
            (
                "/usr/bin/node /opt/openclaw/dist/index.js gateway --port 18789",
                true,
            ),
            ("openclaw gateway run", true),
            ("/usr/bin/env \"openclaw\" 'gateway'", true),
            ("/usr/local/bin/openclaw-gateway", true),
            ("openclaw node run", false),
            ("nginx -c gateway", false),
            ("gatewayctl run --openclaw /opt/openclaw", false),
            ("", false),
        ];
        for (line, expected) in table {
            assert_eq!(runs_a_gateway(line.split_whitespace()), expected, "{line}");
        }
    }

    #[test]
    fn the_service_that_this_process_is_part_of() {
        let own = OwnService {
            cgroups: "0::/user.slice/user-1000.slice/user@1000.service/app.slice/openclaw-gateway.service\n".to_owned(),
            label: Some("ai.openclaw.gateway".to_owned()),
        };
        assert!(own.is("openclaw-gateway.service", None));
        assert!(own.is("ai.openclaw.gateway", None));
        assert!(own.is("other.service", Some(std::process::id())));
        assert!(!own.is("openclaw-gateway-two.service", Some(1)));
        assert!(!own.is("gateway.service", None));
    }
}
