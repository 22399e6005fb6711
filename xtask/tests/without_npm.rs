//! On a machine without npm: what needs it says so, and nothing is counted as passed.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs xtask with a search path on which the Rust toolchain is and nothing else, and with nothing installed.
fn xtask(machine: &Path, arguments: &[&str]) -> Output {
    let programs = machine.join("bin");
    std::fs::create_dir_all(&programs).unwrap();
    let cargo = PathBuf::from(env!("CARGO"));
    for program in ["cargo", "rustc"] {
        let link = programs.join(program);
        if !link.exists() {
            std::os::unix::fs::symlink(cargo.with_file_name(program), link).unwrap();
        }
    }
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PATH", programs)
        .env("CARGO_TARGET_DIR", machine.join("target"))
        .output()
        .unwrap()
}

#[test]
fn the_real_gateway_is_skipped_with_the_reason_and_not_installed() {
    let machine = tempfile::tempdir().unwrap();
    let row = xtask(machine.path(), &["test", "--row", "real-gateway-2026.9.6"]);
    let told = String::from_utf8_lossy(&row.stdout).into_owned();
    assert!(row.status.success(), "{row:?}");
    let skipped = told.lines().next().unwrap_or_default();
    assert!(
        skipped.contains("0 passed, 0 failed, 1 skipped") && skipped.contains("npm"),
        "{told}"
    );
    assert!(told.ends_with("0 passed, 0 failed, 1 skipped\n"), "{told}");

    let install = xtask(machine.path(), &["gateway", "install"]);
    let error = String::from_utf8_lossy(&install.stderr).into_owned();
    assert!(
        !install.status.success() && error.contains("npm"),
        "{install:?}"
    );
}
