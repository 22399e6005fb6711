//! A Windows to run tests on: Wine, with its own folder below `target/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::debian::Toolchain;
use crate::features;
use crate::job::{Echo, Job};
use crate::workspace::Workspace;

/// A linker for Windows, and Wine for programs of 64 bits.
pub(crate) const PACKAGES: &[&str] = &["gcc-mingw-w64-x86-64", "wine64"];

/// The crates whose tests run there. What is left out is xtask, which is no part of the product.
const CRATES: &[&str] = &[
    "gateway-protocol",
    "gateway-policy",
    "gateway-process",
    "gateway-client",
    "gateway-manager",
    "gateway-testkit",
    "gateway-cli",
];

const TARGET: &str = "x86_64-pc-windows-gnu";
const COMPILER: &str = "x86_64-w64-mingw32-gcc";
const WINE: &str = "/usr/lib/wine/wine64";
const WINE_SERVER: &str = "/usr/lib/wine/wineserver";

/// Wine fills its folder in ten seconds.
const PREPARE_LIMIT: Duration = Duration::from_secs(3 * 60);

/// After the last test, how long Wine's own processes may take to notice that nobody needs them. Whoever is still there then was left
/// behind by a test, and found by the look that follows every command.
const WINE_ENDS_WITHIN: u32 = 20;

/// Rust's standard library takes its random numbers from this library, which Wine 8 does not have yet.
const RANDOM_LIBRARY: &str = "bcryptprimitives.dll";
const RANDOM_SOURCE: &str = r"/* Random numbers for Rust programs on a Wine that has no bcryptprimitives.dll, out of the generator that it has. */
#include <windows.h>

/* RtlGenRandom, under the name by which advapi32.dll exports it. */
BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length) {
    while (length > 0) {
        ULONG part = length > 0x10000000 ? 0x10000000 : (ULONG)length;
        if (!SystemFunction036(buffer, part))
            return FALSE;
        buffer += part;
        length -= part;
    }
    return TRUE;
}
";

/// A Wine that can run Rust's programs.
#[derive(Debug)]
pub(crate) struct Wine {
    /// Its `C:` and its registry.
    prefix: PathBuf,
}

impl Wine {
    /// Fills Wine's folder unless it is filled.
    pub(crate) fn ensure(workspace: &Workspace, job: &mut Job<'_>) -> Result<Self, String> {
        let wine = Self {
            prefix: workspace.target.join("wine"),
        };
        // Written last: a folder without it, or with another one, was not filled to the end, or by another Wine.
        let stamp = wine.prefix.join("filled-by");
        let mark = format!("{}\n{RANDOM_SOURCE}", version()?);
        if fs::read_to_string(&stamp).is_ok_and(|text| text == mark) {
            return Ok(wine);
        }
        let cannot = |what: &str, path: &Path, error: std::io::Error| {
            format!("cannot {what} {}: {error}", path.display())
        };
        if wine.prefix.exists() {
            fs::remove_dir_all(&wine.prefix)
                .map_err(|error| cannot("remove", &wine.prefix, error))?;
        }
        fs::create_dir_all(&wine.prefix).map_err(|error| cannot("create", &wine.prefix, error))?;
        let mut boot = Command::new(WINE);
        boot.args(["wineboot", "--init"]);
        must(job, wine.on_wine(&boot))?;

        let source = wine.prefix.join("bcryptprimitives.c");
        fs::write(&source, RANDOM_SOURCE).map_err(|error| cannot("write", &source, error))?;
        let system = wine.prefix.join("drive_c/windows/system32");
        let mut compiler = Command::new(COMPILER);
        compiler
            .args(["-O2", "-Wall", "-Werror", "-shared", "-o"])
            .arg(system.join(RANDOM_LIBRARY))
            .arg(&source)
            .arg("-ladvapi32");
        must(job, compiler)?;
        fs::write(&stamp, mark).map_err(|error| cannot("write", &stamp, error))?;
        Ok(wine)
    }

    /// `command` on this Wine. It does not end before Wine's own processes have ended, too.
    fn on_wine(&self, command: &Command) -> Command {
        let mut whole = Command::new("sh");
        whole
            .args([
                "-c",
                "\"$@\"; code=$?; timeout \"$WINE_ENDS_WITHIN\" \"$WINE_SERVER\" --wait; exit $code",
                "on-wine",
            ])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => whole.env(name, value),
                None => whole.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            whole.current_dir(folder);
        }
        whole
            .env("WINEPREFIX", &self.prefix)
            .env("WINE_SERVER", WINE_SERVER)
            .env("WINE_ENDS_WITHIN", WINE_ENDS_WITHIN.to_string())
            // What Wine does not have is found by tests, not in its log; and nobody needs menus and browsers here.
            .env("WINEDEBUG", "-all")
            .env("WINEDLLOVERRIDES", "mscoree,mshtml,winemenubuilder.exe=")
            .env_remove("DISPLAY");
        whole
    }

    /// A command that builds the tests of the product for Windows and runs them.
    pub(crate) fn tests(&self, workspace: &Workspace, toolchain: &Toolchain) -> Command {
        let mut cargo = toolchain.cargo(workspace, "test", TARGET);
        cargo
            .env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER", COMPILER)
            .env("CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER", WINE);
        for name in CRATES {
            cargo.args(["--package", name]);
            let features = workspace.member(name).map(features::for_tests);
            for feature in features.unwrap_or_default() {
                cargo.args(["--features", &format!("{name}/{feature}")]);
            }
        }
        // Examples in the documentation are not programs that cargo hands to Wine.
        cargo.args(["--lib", "--bins", "--tests", "--no-fail-fast"]);
        self.on_wine(&cargo)
    }
}

fn must(job: &mut Job<'_>, command: Command) -> Result<(), String> {
    let finished = job.run(command, PREPARE_LIMIT, Echo::Nothing)?;
    match finished.failure() {
        None => Ok(()),
        Some(failure) => Err(format!(
            "Wine cannot be prepared: {failure}\n{}",
            finished.output.trim_end()
        )),
    }
}

fn version() -> Result<String, String> {
    let output = Command::new(WINE)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{WINE} does not run: {error}; reinstall wine64"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_of_the_product_is_tested() {
        let workspace = Workspace::load().unwrap();
        let mut members: Vec<&str> = workspace
            .members()
            .iter()
            .map(|package| package.name.as_str())
            .filter(|name| *name != "xtask")
            .collect();
        members.sort_unstable();
        let mut crates = CRATES.to_vec();
        crates.sort_unstable();
        assert_eq!(crates, members);
    }
}
