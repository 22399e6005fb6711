//! What an installed OpenClaw consists of, and the check that all of it is there.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use semver::Version;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::command;
use crate::node_range;
use crate::pins::Pin;

/// The script that starts OpenClaw, inside its package.
const ENTRY: &str = "openclaw.mjs";
/// The stamp that is written after the check. A folder without it is a half-finished one or was filled by hand.
const STAMP: &str = "installed.json";
/// `node --version` takes 0.1 s; a program that does not answer is not a usable Node.
const NODE_ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// A checked installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Installation {
    /// The version of OpenClaw.
    pub(crate) openclaw: String,
    /// The version that the Node program reports.
    pub(crate) node: String,
    /// The versions of Node that the package accepts.
    pub(crate) engines_node: String,
    /// The script that starts OpenClaw, relative to the project folder.
    pub(crate) entry: PathBuf,
    /// The Node program, relative to the project folder.
    pub(crate) node_program: PathBuf,
}

/// Why a folder is no usable installation.
#[derive(Debug)]
pub(crate) enum Defect {
    /// Nothing has been installed yet.
    Absent,
    /// Something is missing or wrong; the text names it.
    Broken(String),
}

impl fmt::Display for Defect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => formatter.write_str("nothing is installed"),
            Self::Broken(what) => formatter.write_str(what),
        }
    }
}

#[derive(Deserialize)]
struct Manifest {
    version: String,
    #[serde(default)]
    engines: BTreeMap<String, String>,
    #[serde(default)]
    bin: BTreeMap<String, PathBuf>,
}

/// npm's own list of what it has put into `node_modules`, written when it has finished.
#[derive(Deserialize)]
struct HiddenLockfile {
    packages: BTreeMap<PathBuf, LockedPackage>,
}

#[derive(Deserialize)]
struct LockedPackage {
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    peer: bool,
}

/// Checks that `project` holds `pin` completely: every package that npm listed, the entry script, the right version,
/// and a Node that runs and suits it.
pub(crate) fn check(project: &Path, pin: &Pin, node_package: &str) -> Result<Installation, Defect> {
    let modules = project.join("node_modules");
    if !modules.is_dir() {
        return Err(Defect::Absent);
    }
    let lockfile: HiddenLockfile = read(&modules.join(".package-lock.json"))?;
    for (package, locked) in &lockfile.packages {
        if !locked.optional && !locked.peer && !project.join(package).is_dir() {
            return Err(Defect::Broken(format!("{} is missing", package.display())));
        }
    }

    let package = Path::new("node_modules").join("openclaw");
    let manifest: Manifest = read(&project.join(&package).join("package.json"))?;
    if manifest.version != pin.openclaw {
        return Err(Defect::Broken(format!(
            "it holds OpenClaw {} instead of {}",
            manifest.version, pin.openclaw
        )));
    }
    let entry = package.join(ENTRY);
    if !project.join(&entry).is_file() {
        return Err(Defect::Broken(format!("{} is missing", entry.display())));
    }

    let node_folder = Path::new("node_modules").join(node_package);
    let node_manifest: Manifest = read(&project.join(&node_folder).join("package.json"))?;
    let program = node_manifest.bin.get("node").ok_or_else(|| {
        Defect::Broken(format!(
            "{} names no program called node",
            node_folder.join("package.json").display()
        ))
    })?;
    let node_program = node_folder.join(program);
    let node = node_version(&project.join(&node_program))?;
    let engines_node = manifest.engines.get("node").cloned().unwrap_or_default();
    if !node_range::contains(&engines_node, &node).map_err(Defect::Broken)? {
        return Err(Defect::Broken(format!(
            "{} is Node {node}, but OpenClaw {} needs {engines_node}",
            node_program.display(),
            pin.openclaw
        )));
    }
    Ok(Installation {
        openclaw: manifest.version,
        node: node.to_string(),
        engines_node,
        entry,
        node_program,
    })
}

/// Whether `project` carries the stamp of exactly this installation.
pub(crate) fn is_stamped(project: &Path, installation: &Installation) -> bool {
    read::<Installation>(&project.join(STAMP)).is_ok_and(|stamp| stamp == *installation)
}

/// Writes the stamp, whole or not at all.
pub(crate) fn stamp(project: &Path, installation: &Installation) -> io::Result<()> {
    let text = serde_json::to_string_pretty(installation)?;
    let unfinished = project.join(format!("{STAMP}.new"));
    fs::write(&unfinished, text + "\n")?;
    fs::rename(unfinished, project.join(STAMP))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Defect> {
    let text = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Defect::Broken(format!("{} is missing", path.display())),
        _ => Defect::Broken(format!("{} cannot be read: {error}", path.display())),
    })?;
    serde_json::from_str(&text)
        .map_err(|error| Defect::Broken(format!("{} is damaged: {error}", path.display())))
}

fn node_version(program: &Path) -> Result<Version, Defect> {
    let broken = |why: String| Defect::Broken(format!("{} {why}", program.display()));
    let mut child = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| broken(format!("does not run: {error}")))?;
    let deadline = Instant::now() + NODE_ANSWERS_WITHIN;
    let in_time = loop {
        match child.try_wait() {
            Ok(Some(_)) => break true,
            Ok(None) if Instant::now() < deadline => command::pause(Duration::from_millis(5)),
            Ok(None) | Err(_) => break false,
        }
    };
    if !in_time {
        // Either it is gone already, or it is ended here; both make the wait below return.
        let _ = child.kill();
    }
    let output = child
        .wait_with_output()
        .map_err(|error| broken(format!("cannot be waited for: {error}")))?;
    if !in_time || !output.status.success() {
        return Err(broken(format!(
            "does not tell its version: {}",
            output.status
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Version::parse(text.trim().trim_start_matches('v'))
        .map_err(|error| broken(format!("is not Node: {error}")))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::pins::DEFAULT_PIN;

    const NODE_PACKAGE: &str = "node-test";

    fn write(path: &Path, content: &Value) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.to_string()).unwrap();
    }

    /// A project with everything that the check looks at; the program called node is a shell script.
    fn project() -> TempDir {
        let project = tempfile::tempdir().unwrap();
        let modules = project.path().join("node_modules");
        write(
            &modules.join(".package-lock.json"),
            &json!({"packages": {
                "node_modules/openclaw": {},
                "node_modules/node-test": {},
                "node_modules/other-system": {"optional": true},
            }}),
        );
        write(
            &modules.join("openclaw/package.json"),
            &json!({"version": DEFAULT_PIN.openclaw, "engines": {"node": ">=24.16.0 <25"}, "bin": {"openclaw": "openclaw.mjs"}}),
        );
        fs::write(modules.join("openclaw").join(ENTRY), "").unwrap();
        write(
            &modules.join("node-test/package.json"),
            &json!({"version": "24.21.0", "bin": {"node": "node"}}),
        );
        set_node(project.path(), "#!/bin/sh\necho v24.21.0\n");
        project
    }

    fn set_node(project: &Path, script: &str) {
        let program = project.join("node_modules/node-test/node");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn defect(project: &Path) -> String {
        check(project, DEFAULT_PIN, NODE_PACKAGE)
            .expect_err("the defect was not noticed")
            .to_string()
    }

    #[test]
    fn a_complete_project_passes_and_can_be_stamped() {
        let project = project();
        let installation = check(project.path(), DEFAULT_PIN, NODE_PACKAGE).unwrap();
        assert_eq!(installation.node, "24.21.0");
        assert!(!is_stamped(project.path(), &installation));
        stamp(project.path(), &installation).unwrap();
        assert!(is_stamped(project.path(), &installation));
        let other = Installation {
            node: "24.22.0".to_owned(),
            ..installation
        };
        assert!(!is_stamped(project.path(), &other));
    }

    #[test]
    fn an_empty_folder_is_absent_rather_than_broken() {
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            check(empty.path(), DEFAULT_PIN, NODE_PACKAGE),
            Err(Defect::Absent)
        ));
    }

    #[test]
    fn whatever_is_missing_is_named() {
        for missing in [
            "node_modules/.package-lock.json",
            "node_modules/openclaw/package.json",
            "node_modules/openclaw/openclaw.mjs",
            "node_modules/node-test/package.json",
            "node_modules/node-test/node",
        ] {
            let project = project();
            fs::remove_file(project.path().join(missing)).unwrap();
            let defect = defect(project.path());
            assert!(defect.contains(missing), "{missing}: {defect}");
        }
    }

    #[test]
    fn a_listed_package_without_a_folder_is_named() {
        let project = project();
        write(
            &project.path().join("node_modules/.package-lock.json"),
            &json!({"packages": {"node_modules/openclaw": {}, "node_modules/ws": {}}}),
        );
        assert_eq!(defect(project.path()), "node_modules/ws is missing");
    }

    #[test]
    fn another_version_is_refused() {
        let project = project();
        write(
            &project.path().join("node_modules/openclaw/package.json"),
            &json!({"version": "2026.1.1"}),
        );
        assert!(defect(project.path()).contains("2026.1.1"));
    }

    #[test]
    fn an_unsuitable_node_is_refused() {
        for (script, expected) in [
            ("#!/bin/sh\necho v22.1.0\n", "needs >=24.16.0 <25"),
            ("#!/bin/sh\nexit 1\n", "does not tell its version"),
            ("#!/bin/sh\necho hello\n", "is not Node"),
            ("#!/no/such/interpreter\n", "does not run"),
        ] {
            let project = project();
            set_node(project.path(), script);
            let defect = defect(project.path());
            assert!(defect.contains(expected), "{script:?}: {defect}");
        }
    }
}
