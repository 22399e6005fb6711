//! Puts a pinned OpenClaw under `target/openclaw/<version>/`, through npm, and checks what came.
//!
//! npm decides where the packages come from; nothing here names a registry. Install scripts stay off: neither
//! OpenClaw nor its Node needs them.

use std::env::consts;
use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{self, Notice};
use crate::installation::{self, Defect, Installation};
use crate::interrupt::Interrupt;
use crate::lock;
use crate::pins::{self, Pin};
use crate::progress::Progress;
use crate::workspace::Workspace;

/// A cold installation takes about a minute; the rest is for a slow network.
const NPM_LIMIT: Duration = Duration::from_secs(20 * 60);
/// How often the growth of the folder is measured.
const MEASURE_EVERY: Duration = Duration::from_secs(2);
/// Off a terminal, how often npm's progress is printed.
const PRINT_EVERY: Duration = Duration::from_secs(5);

/// An OpenClaw that can be used.
#[derive(Debug)]
pub(crate) struct Provisioned {
    /// The folder with `package.json` and `node_modules`.
    pub(crate) project: PathBuf,
    installation: Installation,
    how: How,
    took: Duration,
}

#[derive(Debug)]
enum How {
    InPlace,
    Installed,
}

impl fmt::Display for Provisioned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Installation {
            openclaw,
            node,
            engines_node,
            entry,
            node_program,
        } = &self.installation;
        let how = match self.how {
            How::InPlace => "was in place, checked",
            How::Installed => "installed and checked",
        };
        let took = self.took.as_secs_f32();
        writeln!(
            formatter,
            "OpenClaw {openclaw} {how} in {took:.1} s (Node {node}, accepts {engines_node})"
        )?;
        writeln!(formatter, "  entry  {}", self.project.join(entry).display())?;
        write!(
            formatter,
            "  node   {}",
            self.project.join(node_program).display()
        )
    }
}

/// Why there is no OpenClaw to use.
#[derive(Debug)]
pub(crate) enum ProvisionError {
    /// Nothing on this machine can install it. Tests that need it are skipped.
    Impossible(String),
    /// It should have worked.
    Failed(String),
}

impl fmt::Display for ProvisionError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impossible(why) | Self::Failed(why) => formatter.write_str(why),
        }
    }
}

impl Error for ProvisionError {}

/// Makes sure that `pin` is installed. Returns at once, after the check, when it is. Another process that installs
/// the same version is waited for.
pub(crate) fn ensure(
    workspace: &Workspace,
    pin: &Pin,
    interrupt: &Interrupt,
) -> Result<Provisioned, ProvisionError> {
    let node_package = pins::node_package(consts::OS, consts::ARCH).ok_or_else(|| {
        ProvisionError::Impossible(format!(
            "no Node package is known for {} on {}; install OpenClaw {} by hand and point the program at it",
            consts::OS,
            consts::ARCH,
            pin.openclaw
        ))
    })?;
    let folder = workspace.target.join("openclaw");
    let project = folder.join(pin.openclaw);
    let cannot = |what: &str, path: &Path, error: io::Error| {
        ProvisionError::Failed(format!("cannot {what} {}: {error}", path.display()))
    };
    fs::create_dir_all(&folder).map_err(|error| cannot("create", &folder, error))?;
    let _lock = lock::hold(&folder.join(format!("{}.lock", pin.openclaw)), interrupt)
        .map_err(ProvisionError::Failed)?;

    let started = Instant::now();
    let checked = installation::check(&project, pin, node_package);
    let defect = match checked {
        Ok(installation) => {
            if !installation::is_stamped(&project, &installation) {
                installation::stamp(&project, &installation)
                    .map_err(|error| cannot("write to", &project, error))?;
            }
            return Ok(Provisioned {
                project,
                installation,
                how: How::InPlace,
                took: started.elapsed(),
            });
        }
        Err(defect) => defect,
    };

    let npm = npm_version().map_err(|why| {
        ProvisionError::Impossible(format!(
            "{why}; npm is needed to install OpenClaw {}: install Node with npm, then run `cargo xtask gateway install`",
            pin.openclaw
        ))
    })?;
    if let Defect::Broken(what) = &defect {
        eprintln!(
            "{} is unusable, so it is installed again: {what}",
            project.display()
        );
        fs::remove_dir_all(&project).map_err(|error| cannot("remove", &project, error))?;
    }
    fs::create_dir_all(&project).map_err(|error| cannot("create", &project, error))?;
    let manifest = project.join("package.json");
    fs::write(&manifest, format!("{:#}\n", pin.project(node_package)))
        .map_err(|error| cannot("write", &manifest, error))?;
    install(&project, pin, &npm, interrupt)?;

    let installation = installation::check(&project, pin, node_package).map_err(|defect| {
        ProvisionError::Failed(format!(
            "npm ended with success, but {}: {defect}",
            project.display()
        ))
    })?;
    installation::stamp(&project, &installation)
        .map_err(|error| cannot("write to", &project, error))?;
    Ok(Provisioned {
        project,
        installation,
        how: How::Installed,
        took: started.elapsed(),
    })
}

fn npm() -> Command {
    Command::new(if cfg!(windows) { "npm.cmd" } else { "npm" })
}

fn npm_version() -> Result<String, String> {
    match npm().arg("--version").stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr);
            Err(format!(
                "npm is there but does not run ({}): {}",
                output.status,
                words.trim()
            ))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("npm is not on this machine".to_owned())
        }
        Err(error) => Err(format!("npm does not run: {error}")),
    }
}

fn install(
    project: &Path,
    pin: &Pin,
    npm_version: &str,
    interrupt: &Interrupt,
) -> Result<(), ProvisionError> {
    let mut npm = npm();
    npm.current_dir(project).args([
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-progress",
    ]);
    // Warnings are about npm's own Node, which will not run any of this, so a strict user setting must not stop it.
    npm.args([
        "--no-update-notifier",
        "--loglevel=error",
        "--engine-strict=false",
    ]);

    let label = format!("npm install openclaw@{}", pin.openclaw);
    let mut progress = Progress::start(&label, PRINT_EVERY);
    let mut measured = Instant::now();
    let finished = command::run(npm, NPM_LIMIT, interrupt, |notice| match notice {
        Notice::Line(_, line) => progress.set(line),
        Notice::Tick if measured.elapsed() >= MEASURE_EVERY => {
            progress.set(&match unpacked(&project.join("node_modules")) {
                0 => "fetching packages".to_owned(),
                count => format!("{count} packages unpacked"),
            });
            measured = Instant::now();
        }
        Notice::Tick => progress.tick(),
    })
    .map_err(|error| ProvisionError::Failed(format!("npm does not run: {error}")))?;
    progress.clear();

    match finished.failure() {
        None => Ok(()),
        Some(failure) => Err(ProvisionError::Failed(format!(
            "npm {npm_version} did not install OpenClaw {}: {failure}\n{}",
            pin.openclaw,
            finished.output.trim_end()
        ))),
    }
}

/// How many packages of the top level have their manifest. A rough measure, cheap enough to be taken all the time.
fn unpacked(modules: &Path) -> usize {
    let folders = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path)
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default()
    };
    let is_scope = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"@"))
    };
    folders(modules)
        .into_iter()
        .flat_map(|path| {
            if is_scope(&path) {
                folders(&path)
            } else {
                vec![path]
            }
        })
        .filter(|package| package.join("package.json").is_file())
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_counted_with_their_scopes() {
        let modules = tempfile::tempdir().unwrap();
        for package in ["ws", "@scope/one", "@scope/two", "unfinished"] {
            let package = modules.path().join(package);
            fs::create_dir_all(&package).unwrap();
            if !package.ends_with("unfinished") {
                fs::write(package.join("package.json"), "{}").unwrap();
            }
        }
        assert_eq!(unpacked(modules.path()), 3);
        assert_eq!(unpacked(&modules.path().join("nothing-here")), 0);
    }
}
