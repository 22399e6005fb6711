//! A Node that the package does not accept: said before anything is launched.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use gateway_process::node::NODE_VERSION_DEADLINE;
use gateway_process::{NodeRuntime, OpenClaw, OpenClawError, OpenClawPackage};

use crate::installation;
use crate::processes;
use crate::report::{ANSWER, skipped, step};

const STEP: &str = "unsuitable Node refused";

pub(crate) async fn run() {
    let package = OpenClawPackage::open(installation::project()).expect("the package");
    let needed = package
        .engines_node()
        .expect("a demand on Node")
        .to_string();
    let (mut suitable, mut unsuitable) = (None, None);
    for program in nodes_on_path() {
        let Ok(node) = NodeRuntime::inspect(&program, NODE_VERSION_DEADLINE).await else {
            continue;
        };
        match package.check_node(&node) {
            Ok(()) => suitable.get_or_insert(node),
            Err(_) => unsuitable.get_or_insert(node),
        };
    }
    let old = match (suitable, unsuitable) {
        (None, Some(old)) => old,
        (None, None) => return skipped(STEP, "there is no Node on PATH"),
        (Some(node), _) => {
            let why = format!("Node {} on PATH would be taken instead", node.version());
            return skipped(STEP, &why);
        }
    };

    // A project that has the package, and the old Node where the suitable one should be.
    let project = tempfile::tempdir().expect("a temporary directory");
    let modules = project.path().join("node_modules");
    std::fs::create_dir_all(modules.join(".bin")).expect("a directory");
    symlink(package.directory(), modules.join("openclaw")).expect("a link");
    symlink(old.program(), modules.join(".bin").join("node")).expect("a link");
    let refused = step(
        STEP,
        ANSWER,
        OpenClaw::from_directory(project.path(), NODE_VERSION_DEADLINE),
    )
    .await;
    let error = refused.expect_err("an old Node");
    assert!(
        matches!(error, OpenClawError::NodeTooOld { .. }),
        "{error:?}"
    );
    let text = error.to_string();
    for part in [needed, old.version().to_string(), installation::version()] {
        assert!(text.contains(&part), "{text}");
    }
    processes::nothing_runs().await;
}

fn nodes_on_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("node"))
        .filter(|program| program.is_file())
        .collect()
}
