//! Puts cargo tools of a pinned version under `target/tools/`, built by cargo from their own lock file.

use std::env::consts;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::job::{Echo, Job};
use crate::lock;
use crate::workspace::Workspace;

/// Two or three minutes on two processors; the rest is for a slow machine and a slow network.
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// A program that is published as a crate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// The crate, and the program in it.
    pub(crate) name: &'static str,
    /// The one version that is used.
    pub(crate) version: &'static str,
}

/// Changes the code in small ways and looks whether a test notices.
pub(crate) const CARGO_MUTANTS: Tool = Tool {
    name: "cargo-mutants",
    version: "27.1.0",
};

/// The path of the program, which is installed first when the folder does not hold this version. Another process that
/// installs it is waited for.
pub(crate) fn ensure(
    workspace: &Workspace,
    tool: Tool,
    job: &mut Job<'_>,
) -> Result<PathBuf, String> {
    let folder = workspace.target.join("tools");
    fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    let _lock = lock::hold(&folder.join(format!("{}.lock", tool.name)), job.interrupt)?;
    let program = folder
        .join("bin")
        .join(format!("{}{}", tool.name, consts::EXE_SUFFIX));
    if program.is_file() && installed(workspace, &folder)?.contains(&listed(tool)) {
        return Ok(program);
    }

    let Tool { name, version } = tool;
    eprintln!(
        "{name} {version} is not in {} yet; cargo installs it there now",
        folder.display()
    );
    let mut cargo = workspace.cargo();
    cargo
        .args(["install", "--locked", "--root"])
        .arg(&folder)
        // Cargo's records may name a program that somebody removed.
        .args(["--force", "--version", &format!("={version}"), name]);
    let finished = job.run(cargo, INSTALL_LIMIT, Echo::Nothing)?;
    if let Some(failure) = finished.failure() {
        return Err(format!(
            "cargo did not install {name} {version}: {failure}\n{}",
            finished.output.trim_end()
        ));
    }
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!(
            "cargo installed {name} {version}, but there is no {}",
            program.display()
        ))
    }
}

/// The lines in which cargo names what it has installed into `folder`.
fn installed(workspace: &Workspace, folder: &Path) -> Result<Vec<String>, String> {
    let output = workspace
        .cargo()
        .args(["install", "--list", "--root"])
        .arg(folder)
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

fn listed(tool: Tool) -> String {
    format!("{} v{}:", tool.name, tool.version)
}

#[cfg(test)]
mod tests {
    use semver::Version;

    use super::*;

    #[test]
    fn the_pinned_version_is_exact() {
        assert!(Version::parse(CARGO_MUTANTS.version).is_ok());
        assert_eq!(
            listed(CARGO_MUTANTS),
            format!("cargo-mutants v{}:", CARGO_MUTANTS.version)
        );
    }

    #[test]
    fn an_empty_folder_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Workspace::load().unwrap();
        assert_eq!(
            installed(&workspace, folder.path()).unwrap(),
            Vec::<String>::new()
        );
    }
}
