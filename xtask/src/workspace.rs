//! Where the workspace lies and what it consists of, as cargo tells it.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// The workspace that this program was built from.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of the root manifest.
    pub(crate) root: PathBuf,
    /// The build folder; everything that this program writes goes below it.
    pub(crate) target: PathBuf,
    /// Every package of the dependency graph, the members included.
    pub(crate) packages: Vec<Package>,
    members: Vec<String>,
}

/// A package, as far as the rows need to know it, and in tests as far as the rules of the repository do.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    #[cfg(test)]
    pub(crate) version: String,
    #[cfg(test)]
    pub(crate) license: Option<String>,
    #[cfg(test)]
    pub(crate) manifest_path: PathBuf,
    #[cfg(test)]
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) features: BTreeMap<String, Vec<String>>,
    pub(crate) targets: Vec<Target>,
}

/// A dependency as the manifest declares it.
#[derive(Debug, Deserialize)]
#[cfg(test)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for an ordinary one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// A library, program or test of a package.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) kind: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self, String> {
        let output = cargo(Path::new(env!("CARGO_MANIFEST_DIR")))
            .args(["metadata", "--format-version", "1"])
            .output()
            .map_err(|error| format!("cannot run cargo: {error}; is it on PATH?"))?;
        if !output.status.success() {
            return Err(format!(
                "cargo metadata failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        let Metadata {
            packages,
            workspace_members,
            workspace_root,
            target_directory,
        } = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("cannot read the answer of cargo metadata: {error}"))?;
        Ok(Self {
            root: workspace_root,
            target: target_directory,
            packages,
            members: workspace_members,
        })
    }

    /// The packages of this workspace, in the order of their names.
    pub(crate) fn members(&self) -> Vec<&Package> {
        let mut members: Vec<&Package> = self
            .packages
            .iter()
            .filter(|package| self.members.contains(&package.id))
            .collect();
        members.sort_by_key(|package| &package.name);
        members
    }

    /// The member called `name`.
    pub(crate) fn member(&self, name: &str) -> Option<&Package> {
        self.members()
            .into_iter()
            .find(|package| package.name == name)
    }

    /// A cargo command that starts in the root.
    pub(crate) fn cargo(&self) -> Command {
        cargo(&self.root)
    }
}

impl Package {
    /// The folder of the package.
    #[cfg(test)]
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }

    /// Whether others can depend on it.
    pub(crate) fn is_library(&self) -> bool {
        self.targets
            .iter()
            .any(|target| target.kind.iter().any(|kind| kind == "lib"))
    }
}

/// A cargo command that starts in `folder`.
pub(crate) fn cargo(folder: &Path) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    as_from_a_prompt(&program, folder)
}

/// A program that is cargo or calls it, as somebody at a prompt would start it: `cargo run`, which started this program,
/// has put the variables of this package into the environment, and build scripts that look at them would be run again
/// for nothing.
pub(crate) fn as_from_a_prompt(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).env("CARGO_TERM_COLOR", "never");
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let from_cargo_run = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
        ];
        if from_cargo_run.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}
