//! Finding OpenClaw and Node as npm leaves them on Windows, where a command is a script.

use std::fs;
use std::path::Path;

use gateway_process::OpenClaw;

use crate::child::{PATIENCE, soon};

const PACKAGE: &str =
    r#"{"name":"openclaw","version":"2026.9.6","engines":{"node":">=24"},"bin":"openclaw.mjs"}"#;

fn install(modules: &Path, commands: &Path) {
    let package = modules.join("openclaw");
    fs::create_dir_all(&package).unwrap();
    fs::create_dir_all(commands).unwrap();
    fs::write(package.join("package.json"), PACKAGE).unwrap();
    fs::write(package.join("openclaw.mjs"), "").unwrap();
    fs::write(commands.join("openclaw.cmd"), "@exit /b 1\r\n").unwrap();
}

#[tokio::test]
async fn the_script_that_npm_makes_leads_to_the_package_and_a_suitable_node() {
    let root = tempfile::tempdir().unwrap();
    let root = std::path::absolute(root.path()).unwrap();
    let (old, good) = (root.join("old"), root.join("good"));
    for (folder, version) in [(&old, "v22.1.0"), (&good, "v24.21.0")] {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("node.cmd"), format!("@echo {version}\r\n")).unwrap();
    }
    let everybody = root.join("npm");
    install(&everybody.join("node_modules"), &everybody);
    let modules = root.join("project").join("node_modules");
    let of_a_project = modules.join(".bin");
    install(&modules, &of_a_project);
    for (commands, modules) in [
        (&everybody, everybody.join("node_modules")),
        (&of_a_project, modules),
    ] {
        let path = std::env::join_paths([commands, &old, &good]).unwrap();
        let openclaw = soon(OpenClaw::locate_in(&path, PATIENCE)).await.unwrap();
        let OpenClaw::Package { node, package } = &openclaw else {
            panic!("{openclaw}");
        };
        assert_eq!(package.directory(), modules.join("openclaw"));
        assert_eq!(node.version().to_string(), "24.21.0");
        assert_eq!(node.program().parent(), Some(good.as_path()));
    }

    // A command that somebody else made is taken at its word.
    let own = root.join("own");
    fs::create_dir_all(&own).unwrap();
    fs::write(own.join("openclaw.cmd"), "@exit /b 1\r\n").unwrap();
    let path = std::env::join_paths([&own, &good]).unwrap();
    let openclaw = soon(OpenClaw::locate_in(&path, PATIENCE)).await.unwrap();
    assert!(matches!(openclaw, OpenClaw::Command { .. }), "{openclaw}");
}
