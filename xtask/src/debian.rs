//! A second Rust toolchain, with the sources of its standard library, out of Debian's packages.
//!
//! The toolchain that builds this program usually has a standard library for this machine only, and no way to get another. Debian has
//! one whose sources are packaged too; with them cargo builds the standard library for any target. What is installed stays installed,
//! on the system and not below `target/`: that is how Debian's packages work.

use std::env::consts;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use semver::Version;

use crate::job::{Echo, Job};
use crate::lock;
use crate::provision::ProvisionError;
use crate::workspace::{Workspace, as_from_a_prompt};

/// The compiler, cargo, and the sources of the standard library.
pub(crate) const RUST: &[&str] = &["cargo-web", "rust-web-src", "rustc-web"];

const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";

/// Less than a minute on a fast line for 350 MB; the rest is for a slow one.
const INSTALL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// How long apt waits for another apt.
const APT_WAIT: &str = "DPkg::Lock::Timeout=300";

/// The toolchain, there and new enough.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) version: Version,
}

impl Toolchain {
    /// A command of cargo for `target`, whose standard library is built along. It uses the lock file of the workspace as it is. All
    /// targets share one build folder, because what runs while building (build scripts, procedural macros) is the same for all.
    pub(crate) fn cargo(&self, workspace: &Workspace, command: &str, target: &str) -> Command {
        let mut cargo = as_from_a_prompt(CARGO, &workspace.root);
        cargo
            .args([command, "--locked", "-Zbuild-std=std,panic_unwind"])
            .args(["--target", target, "--target-dir"])
            .arg(workspace.target.join("debian"))
            .env("RUSTC", RUSTC)
            // Building the standard library is not stable in any release; everything else that is used is.
            .env("RUSTC_BOOTSTRAP", "1");
        // What the toolchain that runs this program has put there is about itself.
        for about_another in ["CARGO", "LD_LIBRARY_PATH", "RUSTUP_TOOLCHAIN"] {
            cargo.env_remove(about_another);
        }
        cargo
    }
}

/// Makes sure that the packages of [`RUST`] and `more` are installed, which takes root when they are not.
pub(crate) fn ensure(
    workspace: &Workspace,
    more: &[&str],
    job: &mut Job<'_>,
) -> Result<Toolchain, ProvisionError> {
    let impossible = |why: String| Err(ProvisionError::Impossible(why));
    if (consts::OS, consts::ARCH) != ("linux", "x86_64") || !is_debian() {
        return impossible(format!(
            "the toolchain for it comes from packages of Debian on x86_64, and this is another system ({} on {})",
            consts::OS,
            consts::ARCH
        ));
    }
    let wanted: Vec<&str> = RUST.iter().chain(more).copied().collect();
    fs::create_dir_all(&workspace.target).map_err(|error| {
        ProvisionError::Failed(format!(
            "cannot create {}: {error}",
            workspace.target.display()
        ))
    })?;
    let lock = workspace.target.join("debian.lock");
    let _lock = lock::hold(&lock, job.interrupt).map_err(ProvisionError::Failed)?;
    let missing = missing(&wanted)?;
    if !missing.is_empty() {
        if !is_root() {
            return impossible(format!(
                "only root can install {}: run `apt-get install {0}` as root",
                missing.join(" ")
            ));
        }
        install(&missing, job)?;
    }

    let version = compiler_version(RUSTC).map_err(ProvisionError::Failed)?;
    let needed = needed();
    if version < needed {
        return impossible(format!(
            "Debian's {RUSTC} is {version}, and this workspace needs {needed}: update the package rustc-web"
        ));
    }
    Ok(Toolchain { version })
}

fn install(missing: &[&str], job: &mut Job<'_>) -> Result<(), ProvisionError> {
    eprintln!("installing Debian packages: {}", missing.join(" "));
    let mut apt = |arguments: &[&str]| -> Result<Option<String>, ProvisionError> {
        let mut command = Command::new("apt-get");
        command
            .args(["--quiet", "--option", APT_WAIT])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        let finished = job
            .run(command, INSTALL_LIMIT, Echo::Nothing)
            .map_err(ProvisionError::Failed)?;
        Ok(finished
            .failure()
            .map(|failure| format!("{failure}\n{}", finished.output.trim_end())))
    };
    // An old list may do, so only the installation decides.
    let updated = apt(&["update"])?;
    if let Some(unknown) = missing.iter().find(|package| !is_offered(package)) {
        let why = updated.map_or(String::new(), |failure| format!(": {failure}"));
        return Err(ProvisionError::Impossible(format!(
            "the package sources of this machine do not offer {unknown}{why}"
        )));
    }
    // Another toolchain that was installed on purpose is not to be removed for this.
    let mut arguments = vec!["install", "--yes", "--no-install-recommends", "--no-remove"];
    arguments.extend(missing);
    match apt(&arguments)? {
        None => Ok(()),
        Some(failure) => Err(ProvisionError::Failed(format!(
            "apt-get did not install {}: {failure}",
            missing.join(" ")
        ))),
    }
}

fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| names_debian(&text))
}

fn names_debian(os_release: &str) -> bool {
    os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID="))
        .any(|id| id.trim_matches('"') == "debian")
}

#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}

/// Those of `wanted` that are not installed.
fn missing<'a>(wanted: &[&'a str]) -> Result<Vec<&'a str>, ProvisionError> {
    // It ends with failure when it knows nothing of one of them, and lists the others all the same.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(wanted)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| ProvisionError::Impossible(format!("dpkg-query does not run: {error}")))?;
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(not_installed(wanted, &listed))
}

fn not_installed<'a>(wanted: &[&'a str], listed: &str) -> Vec<&'a str> {
    wanted
        .iter()
        .filter(|package| {
            !listed
                .lines()
                .any(|line| line == format!("{package} installed"))
        })
        .copied()
        .collect()
}

fn is_offered(package: &str) -> bool {
    Command::new("apt-cache")
        .args(["show", "--quiet", "--no-all-versions", package])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
}

fn compiler_version(rustc: &str) -> Result<Version, String> {
    let output = Command::new(rustc)
        .arg("--version")
        .env_remove("LD_LIBRARY_PATH")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{rustc} does not run: {error}; reinstall rustc-web"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| {
        format!(
            "{rustc} does not say its version ({}): {text}{}; reinstall rustc-web",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// Understands `rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)`.
fn parse_version(text: &str) -> Option<Version> {
    Version::parse(text.strip_prefix("rustc ")?.split_whitespace().next()?).ok()
}

/// The oldest compiler that works, which this package says of itself and of all of the workspace.
fn needed() -> Version {
    let said = env!("CARGO_PKG_RUST_VERSION");
    // Manifests usually leave out the last part.
    Version::parse(said)
        .or_else(|_| Version::parse(&format!("{said}.0")))
        .unwrap_or(Version::new(0, 0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_that_are_wholly_installed_count() {
        let listed = "rustc-web installed\nwine64 config-files\ncargo-web-doc installed\n";
        assert_eq!(
            not_installed(&["rustc-web", "wine64", "cargo-web"], listed),
            ["wine64", "cargo-web"]
        );
        assert_eq!(not_installed(&["rustc-web"], listed), [""; 0]);
    }

    #[test]
    fn versions_are_understood() {
        let line = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n";
        assert_eq!(parse_version(line), Some(Version::new(1, 96, 0)));
        for other in ["", "rustc", "cargo 1.96.0", "rustc one"] {
            assert_eq!(parse_version(other), None, "{other}");
        }
        assert!(needed() >= Version::new(1, 89, 0));
    }

    #[test]
    fn debian_is_told_from_its_relatives() {
        assert!(names_debian("NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(names_debian("ID=\"debian\"\n"));
        assert!(!names_debian("ID=ubuntu\nID_LIKE=debian\n"));
        assert!(!names_debian("VERSION_ID=\"12\"\n"));
    }
}
