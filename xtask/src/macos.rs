//! The workspace as macOS would compile it. Nothing runs: there is no macOS here, and no linker for it.

use std::process::Command;

use crate::debian::{self, Toolchain};
use crate::workspace::Workspace;

const TARGET: &str = "aarch64-apple-darwin";

/// A command that type-checks every crate, program and test for macOS.
pub(crate) fn check(workspace: &Workspace, toolchain: &Toolchain) -> Command {
    let folder = debian::folder(workspace, "macos");
    let mut cargo = toolchain.cargo(workspace, "check", TARGET, &folder);
    cargo.args(["--workspace", "--all-targets", "--all-features"]);
    cargo
}
