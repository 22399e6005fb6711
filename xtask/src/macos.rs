//! The workspace as macOS would compile it. Nothing runs: there is no macOS here, and no linker for it.

use std::process::Command;

use crate::debian::Toolchain;
use crate::workspace::Workspace;

const TARGET: &str = "aarch64-apple-darwin";

/// A command that type-checks every crate, program and test for macOS.
pub(crate) fn check(workspace: &Workspace, toolchain: &Toolchain) -> Command {
    let mut cargo = toolchain.cargo(workspace, "check", TARGET);
    cargo.args(["--workspace", "--all-targets", "--all-features"]);
    cargo
}
