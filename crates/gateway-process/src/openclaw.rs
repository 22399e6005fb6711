//! OpenClaw on this machine: the package, the Node that suits it, and the command lines of its gateway and its doctor.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::embedding;
use crate::env::Environment;
use crate::node::{NodeRange, NodeRuntime, NodeVersion};
use crate::spec::LaunchSpec;

/// The name of the npm package and of its command.
const PACKAGE_NAME: &str = "openclaw";

/// The entry script of every release seen, for a package description that does not name one.
const DEFAULT_ENTRY: &str = "openclaw.mjs";

/// A package description is a few KiB; anything beyond this is not one.
const MAX_PACKAGE_JSON: u64 = 4 * 1024 * 1024;

/// OpenClaw, or the Node it needs, is missing or unsuitable.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenClawError {
    /// The directory does not exist.
    #[error("OpenClaw package not found at: {}; check the path, or install it with `npm install openclaw`", .directory.display())]
    PackageNotFound {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// The directory is neither the package nor a project that has it installed.
    #[error(
        "{} is neither the OpenClaw package nor a project with node_modules/openclaw ({found}); point to one of them, or run `npm install openclaw` there",
        .directory.display()
    )]
    NotAPackage {
        /// The directory.
        directory: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// The package description cannot be used.
    #[error("the package description {} is damaged ({message}); reinstall OpenClaw", .file.display())]
    DamagedPackage {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The package is there without its program.
    #[error("OpenClaw entry script not found at: {}; the installation is incomplete: reinstall OpenClaw", .file.display())]
    EntryNotFound {
        /// The file that should exist.
        file: PathBuf,
    },
    /// There is no Node.
    #[error("Node was not found ({}); install Node, or put it on PATH or into the project's node_modules/.bin", .looked_for.display())]
    NodeMissing {
        /// The program that was looked for.
        looked_for: PathBuf,
    },
    /// There is a Node, and it does not work.
    #[error("{} cannot be used as Node: {evidence}; reinstall it or choose another", .program.display())]
    NodeUnusable {
        /// The program.
        program: PathBuf,
        /// What happened.
        evidence: String,
    },
    /// There is a Node, and the package does not accept it.
    #[error(
        "OpenClaw {package_version} needs Node {needed}, but {} is Node {found}; install a Node in that range and put it first on PATH or into the project's node_modules/.bin",
        .program.display()
    )]
    NodeTooOld {
        /// The Node that was found.
        program: PathBuf,
        /// Its version.
        found: NodeVersion,
        /// The range that the package asks for.
        needed: String,
        /// The package's version.
        package_version: String,
    },
    /// There is no `openclaw` command.
    #[error(
        "no `openclaw` command is on PATH; install it with `npm install -g openclaw`, or point to the package directory"
    )]
    NotOnPath,
}

/// The part of `package.json` that matters here.
#[derive(Deserialize)]
struct PackageJson {
    name: Option<String>,
    version: Option<String>,
    #[serde(default)]
    engines: Engines,
    bin: Option<Bin>,
}

#[derive(Deserialize, Default)]
struct Engines {
    node: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Bin {
    One(PathBuf),
    Named(std::collections::BTreeMap<String, PathBuf>),
}

impl PackageJson {
    fn read(file: &Path) -> Result<Option<Self>, OpenClawError> {
        let damaged = |message: String| OpenClawError::DamagedPackage {
            file: file.to_owned(),
            message,
        };
        let text = match fs::metadata(file) {
            Ok(facts) if facts.len() > MAX_PACKAGE_JSON => {
                return Err(damaged(format!("{} bytes long", facts.len())));
            }
            _ => fs::read_to_string(file),
        };
        match text {
            Ok(text) => {
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                serde_json::from_str(text)
                    .map(Some)
                    .map_err(|error| damaged(error.to_string()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(damaged(error.to_string())),
        }
    }

    fn entry(&self) -> &Path {
        match &self.bin {
            Some(Bin::One(entry)) => entry,
            Some(Bin::Named(commands)) => commands
                .get(PACKAGE_NAME)
                .map_or(Path::new(DEFAULT_ENTRY), PathBuf::as_path),
            None => Path::new(DEFAULT_ENTRY),
        }
    }
}

/// An installed OpenClaw package whose entry script exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenClawPackage {
    directory: PathBuf,
    version: String,
    engines_node: Option<NodeRange>,
    entry: PathBuf,
    project_node: Option<PathBuf>,
}

impl OpenClawPackage {
    /// Opens the package at `directory`: either the package itself, or a project that has it in `node_modules`. A Node that is
    /// installed in the same project (`node_modules/.bin/node`) is remembered as the preferred one.
    ///
    /// # Errors
    /// [`OpenClawError`] when the directory, the package description or the entry script is missing or damaged.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenClawError> {
        let directory = directory.as_ref();
        if !directory.is_dir() {
            return Err(OpenClawError::PackageNotFound {
                directory: directory.to_owned(),
            });
        }
        // Absolute, because the gateway runs in a directory of its own.
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        let installed = directory.join("node_modules").join(PACKAGE_NAME);
        let own = PackageJson::read(&directory.join("package.json"));
        if let Ok(Some(description)) = &own
            && description.name.as_deref() == Some(PACKAGE_NAME)
        {
            // `<project>/node_modules/openclaw` is the usual place of a package.
            let modules = directory
                .parent()
                .filter(|parent| parent.ends_with("node_modules"));
            let node = modules.and_then(node_in);
            return Self::from_description(description, directory, node);
        }
        if installed.is_dir() {
            let file = installed.join("package.json");
            return match PackageJson::read(&file)? {
                Some(description) => {
                    let node = node_in(&directory.join("node_modules"));
                    Self::from_description(&description, installed, node)
                }
                None => Err(OpenClawError::DamagedPackage {
                    file,
                    message: "the file is missing".to_owned(),
                }),
            };
        }
        let found = match own? {
            Some(PackageJson {
                name: Some(name), ..
            }) => format!("its package.json describes {name:?}"),
            Some(_) => "its package.json names no package".to_owned(),
            None => "there is no package.json".to_owned(),
        };
        Err(OpenClawError::NotAPackage { directory, found })
    }

    fn from_description(
        description: &PackageJson,
        directory: PathBuf,
        project_node: Option<PathBuf>,
    ) -> Result<Self, OpenClawError> {
        let Some(version) = description.version.clone() else {
            return Err(OpenClawError::DamagedPackage {
                file: directory.join("package.json"),
                message: "it names no version".to_owned(),
            });
        };
        let entry = directory.join(description.entry());
        if !entry.is_file() {
            return Err(OpenClawError::EntryNotFound { file: entry });
        }
        let engines_node = description.engines.node.as_deref().and_then(|range| match range.parse() {
            Ok(range) => Some(range),
            Err(error) => {
                // A range that npm understands and this crate does not must not keep a working gateway from starting.
                tracing::warn!(%error, %version, "the package's demand on Node is not understood and not checked");
                None
            }
        });
        Ok(Self {
            directory,
            version,
            engines_node,
            entry,
            project_node,
        })
    }

    /// The package directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The name of the npm package.
    #[must_use]
    pub fn name(&self) -> &str {
        PACKAGE_NAME
    }

    /// The package's version, as it stands in its description.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The versions of Node it accepts; `None` when it does not say.
    #[must_use]
    pub fn engines_node(&self) -> Option<&NodeRange> {
        self.engines_node.as_ref()
    }

    /// The script that Node runs.
    #[must_use]
    pub fn entry(&self) -> &Path {
        &self.entry
    }

    /// The Node installed beside the package in the same project.
    #[must_use]
    pub fn project_node(&self) -> Option<&Path> {
        self.project_node.as_deref()
    }

    /// Checks a Node against what the package accepts.
    ///
    /// # Errors
    /// [`OpenClawError::NodeTooOld`], which is also the answer to one that is too new.
    pub fn check_node(&self, node: &NodeRuntime) -> Result<(), OpenClawError> {
        match &self.engines_node {
            Some(needed) if !needed.accepts(node.version()) => Err(OpenClawError::NodeTooOld {
                program: node.program().to_owned(),
                found: node.version().clone(),
                needed: needed.to_string(),
                package_version: self.version.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Finds the Node for this package: the project's own first, then every one on the search path. The first that the package
    /// accepts is taken; `deadline` holds for each.
    ///
    /// # Errors
    /// What was wrong with the first Node there was, or [`OpenClawError::NodeMissing`] when there was none.
    pub async fn find_node(&self, deadline: Duration) -> Result<NodeRuntime, OpenClawError> {
        let path = env::var_os("PATH").unwrap_or_default();
        self.find_node_in(&path, deadline).await
    }

    async fn find_node_in(
        &self,
        path: &OsStr,
        deadline: Duration,
    ) -> Result<NodeRuntime, OpenClawError> {
        let mut candidates: Vec<_> = self.project_node.iter().cloned().collect();
        if let Ok(found) = which::which_in_all("node", Some(path), "") {
            candidates.extend(found);
        }
        candidates.dedup();
        let mut first_error = None;
        for candidate in candidates {
            let checked = match NodeRuntime::inspect(&candidate, deadline).await {
                Ok(node) => self.check_node(&node).map(|()| node),
                Err(error) => Err(error),
            };
            match checked {
                Ok(node) => return Ok(node),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        Err(first_error.unwrap_or_else(|| OpenClawError::NodeMissing {
            looked_for: PathBuf::from("node"),
        }))
    }
}

/// Where the package of a command may be that is no link to it: on Windows npm makes a script, beside the folder of the packages when it
/// installs for everybody, and in a folder within it when it installs into a project.
fn packages_beside(command: &Path) -> Vec<PathBuf> {
    let is_script = command
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("cmd"));
    let Some(directory) = command.parent().filter(|_| cfg!(windows) && is_script) else {
        return Vec::new();
    };
    let within = directory.parent().filter(|_| directory.ends_with(".bin"));
    std::iter::once(directory.join("node_modules"))
        .chain(within.map(Path::to_owned))
        .map(|modules| modules.join(PACKAGE_NAME))
        .collect()
}

/// `node_modules/.bin/node`, when it is there.
fn node_in(modules: &Path) -> Option<PathBuf> {
    let node = modules
        .join(".bin")
        .join(format!("node{}", env::consts::EXE_SUFFIX));
    node.is_file().then_some(node)
}

/// A way to run OpenClaw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenClaw {
    /// A package and the Node that runs it, both checked.
    Package {
        /// The Node.
        node: NodeRuntime,
        /// The package.
        package: OpenClawPackage,
    },
    /// A command that takes OpenClaw's arguments, taken at its word.
    Command {
        /// The program.
        program: PathBuf,
        /// Arguments before OpenClaw's own.
        args: Vec<OsString>,
    },
}

impl OpenClaw {
    /// The package at `directory` with the Node that suits it; see [`OpenClawPackage::open`] and [`OpenClawPackage::find_node`].
    ///
    /// # Errors
    /// [`OpenClawError`] naming what is missing or unsuitable.
    pub async fn from_directory(
        directory: impl AsRef<Path>,
        deadline: Duration,
    ) -> Result<Self, OpenClawError> {
        let package = OpenClawPackage::open(directory)?;
        let node = package.find_node(deadline).await?;
        Ok(Self::Package { node, package })
    }

    /// The `openclaw` on the search path of this process. When the command leads to its package, as npm installs it, the package
    /// is run directly with a Node that it accepts; any other command is taken at its word.
    ///
    /// # Errors
    /// [`OpenClawError::NotOnPath`], or what is wrong with the package or with every Node there is.
    pub async fn locate_on_path(deadline: Duration) -> Result<Self, OpenClawError> {
        Self::locate_in(&env::var_os("PATH").unwrap_or_default(), deadline).await
    }

    /// The same for a given search path.
    ///
    /// # Errors
    /// As [`locate_on_path`](Self::locate_on_path).
    pub async fn locate_in(path: &OsStr, deadline: Duration) -> Result<Self, OpenClawError> {
        let Ok(command) = which::which_in(PACKAGE_NAME, Some(path), "") else {
            return Err(OpenClawError::NotOnPath);
        };
        // npm's command is a link to the entry script inside the package, where there are links.
        let target = fs::canonicalize(&command).unwrap_or_else(|_| command.clone());
        let beside = packages_beside(&command);
        let candidates = target.ancestors().skip(1);
        let home = candidates
            .chain(beside.iter().map(PathBuf::as_path))
            .find(|directory| {
                matches!(
                    PackageJson::read(&directory.join("package.json")),
                    Ok(Some(PackageJson { name: Some(name), .. })) if name == PACKAGE_NAME
                )
            });
        match home {
            Some(directory) => {
                let package = OpenClawPackage::open(directory)?;
                let node = package.find_node_in(path, deadline).await?;
                Ok(Self::Package { node, package })
            }
            None => Ok(Self::Command {
                program: command,
                args: Vec::new(),
            }),
        }
    }

    /// The version, where it is known without running anything.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Package { package, .. } => Some(package.version()),
            Self::Command { .. } => None,
        }
    }

    /// The command line and environment of the gateway.
    ///
    /// The token travels in the environment, never among the arguments, which every local user can read. A token in the
    /// gateway's configuration file wins over it.
    #[must_use]
    pub fn gateway_spec(&self, launch: &GatewayLaunch) -> LaunchSpec {
        let port = launch.port.to_string();
        let arguments = [
            "gateway",
            "run",
            "--allow-unconfigured",
            "--bind",
            "loopback",
            "--port",
            &port,
        ];
        self.spec(launch, &arguments)
            .args(launch.extra_args.iter().cloned())
            .port(launch.port)
    }

    /// The command line of the doctor, in exactly the environment of the gateway whose configuration it is to repair.
    #[must_use]
    pub fn doctor_spec(&self, launch: &GatewayLaunch) -> LaunchSpec {
        self.spec(launch, &["doctor", "--fix", "--yes", "--non-interactive"])
    }

    fn spec(&self, launch: &GatewayLaunch, arguments: &[&str]) -> LaunchSpec {
        let mut environment = launch.gateway_environment();
        let spec = match self {
            Self::Package { node, package } => {
                // Whatever the gateway starts finds the same Node as the gateway itself.
                if let Some(folder) = node
                    .program()
                    .parent()
                    .filter(|folder| folder.is_absolute())
                {
                    environment.prepend_path(folder);
                }
                // The package's own folder, because a `.env` file in the working directory becomes part of the environment.
                LaunchSpec::new(node.program(), environment)
                    .args([package.entry()])
                    .current_dir(package.directory())
            }
            Self::Command { program, args } => {
                LaunchSpec::new(program, environment).args(args.iter().cloned())
            }
        };
        spec.args(arguments.iter().copied())
    }
}

impl fmt::Display for OpenClaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package { node, package } => write!(
                f,
                "OpenClaw {} at {} on Node {}",
                package.version(),
                package.directory().display(),
                node.version()
            ),
            Self::Command { program, .. } => write!(f, "the command {}", program.display()),
        }
    }
}

/// Everything a launch of the gateway depends on. Made once per launch: the doctor and every connection use the same one.
#[derive(Clone)]
pub struct GatewayLaunch {
    /// The TCP port on the loopback address.
    pub port: u16,
    /// The shared token. `None` leaves the decision to the gateway's configuration and inherited environment.
    pub token: Option<SecretString>,
    /// The state directory (`OPENCLAW_STATE_DIR`). `None` means the gateway's default.
    pub state_dir: Option<PathBuf>,
    /// The home directory. `None` means the inherited one.
    pub home: Option<PathBuf>,
    /// Arguments after the ones that this crate sets.
    pub extra_args: Vec<OsString>,
    /// Whether the gateway prints how long the steps of its start take; [`gateway_policy::startup_trace`] reads that. Default no. Releases
    /// before 2026.9.6 take no notice.
    pub startup_trace: bool,
    /// The environment to start from; [`Environment::from_parent`] by default. What this crate sets wins over it.
    pub environment: Environment,
}

impl GatewayLaunch {
    /// A launch on `port` with everything else inherited.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self {
            port,
            token: None,
            state_dir: None,
            home: None,
            extra_args: Vec::new(),
            startup_trace: false,
            environment: Environment::from_parent(),
        }
    }

    /// The environment of the gateway and of the doctor.
    #[must_use]
    pub fn gateway_environment(&self) -> Environment {
        let mut environment = self.environment.clone();
        if let Some(home) = &self.home {
            environment.set("HOME", home);
            if cfg!(windows) {
                environment.set("USERPROFILE", home);
            }
        }
        if let Some(state_dir) = &self.state_dir {
            environment.set("OPENCLAW_STATE_DIR", state_dir);
        }
        if let Some(token) = &self.token {
            environment.set_secret("OPENCLAW_GATEWAY_TOKEN", token.clone());
        }
        environment.keep_loopback_direct();
        if self.startup_trace {
            environment.set("OPENCLAW_GATEWAY_STARTUP_TRACE", "1");
        }
        // Last, so that nothing overrides what supervision rests on.
        embedding::apply(&mut environment, embedding::SUPERVISED);
        environment
    }

    /// The state directory the gateway will use; `None` when neither it nor a home directory is known.
    #[must_use]
    pub fn resolved_state_dir(&self) -> Option<PathBuf> {
        let environment = self.gateway_environment();
        let set = |name| environment.expose(name).filter(|value| !value.is_empty());
        match set("OPENCLAW_STATE_DIR") {
            Some(directory) => Some(PathBuf::from(directory)),
            None => set("HOME")
                .or_else(|| set("USERPROFILE"))
                .map(|home| Path::new(home).join(".openclaw")),
        }
    }

    /// The configuration file the gateway will read: `OPENCLAW_CONFIG_PATH`, or `openclaw.json` in the state directory.
    #[must_use]
    pub fn config_path(&self) -> Option<PathBuf> {
        match self
            .environment
            .expose("OPENCLAW_CONFIG_PATH")
            .filter(|path| !path.is_empty())
        {
            Some(path) => Some(PathBuf::from(path)),
            None => Some(self.resolved_state_dir()?.join("openclaw.json")),
        }
    }
}

impl fmt::Debug for GatewayLaunch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra_args: Vec<_> = self
            .extra_args
            .iter()
            .map(|argument| argument.to_string_lossy())
            .collect();
        let redactor = self.gateway_environment().redactor();
        f.debug_struct("GatewayLaunch")
            .field("port", &self.port)
            .field(
                "token",
                &self.token.as_ref().map(|_| crate::redact::REDACTED),
            )
            .field("state_dir", &self.state_dir)
            .field("home", &self.home)
            .field("startup_trace", &self.startup_trace)
            .field(
                "extra_args",
                &redactor.command_line("", extra_args.iter().map(AsRef::as_ref)),
            )
            .field("environment", &self.environment)
            .finish()
    }
}
