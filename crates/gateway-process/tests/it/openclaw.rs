//! Finding OpenClaw and Node, and the command lines that come of it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use gateway_process::openclaw::{GatewayLaunch, OpenClaw, OpenClawError, OpenClawPackage};
use gateway_process::{Environment, NodeRuntime};
use tempfile::TempDir;

use crate::support::{PATIENCE, executable, soon};

const PACKAGE: &str = r#"{"name":"openclaw","version":"2026.9.6","engines":{"node":">=24.16.0 <25 || >=26.1.0"},"bin":{"openclaw":"openclaw.mjs"}}"#;

struct Project {
    root: TempDir,
}

impl Project {
    /// A project with OpenClaw installed, as npm leaves it.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let project = Self { root };
        fs::create_dir_all(project.package()).unwrap();
        fs::write(project.package().join("package.json"), PACKAGE).unwrap();
        fs::write(project.package().join("openclaw.mjs"), "").unwrap();
        fs::write(
            project.path().join("package.json"),
            r#"{"dependencies":{"openclaw":"2026.9.6"}}"#,
        )
        .unwrap();
        project
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn package(&self) -> PathBuf {
        self.path().join("node_modules/openclaw")
    }

    fn node(&self, place: &str, version: &str) -> PathBuf {
        executable(
            &self.path().join(place).join("node"),
            &format!("echo {version}"),
        )
    }
}

fn open_error(path: impl AsRef<Path>) -> OpenClawError {
    OpenClawPackage::open(path).unwrap_err()
}

#[test]
fn a_package_is_opened_directly_or_through_its_project() {
    let project = Project::new();
    let node = project.node("node_modules/.bin", "v24.21.0");
    for directory in [project.path().to_owned(), project.package()] {
        let package = OpenClawPackage::open(&directory).unwrap();
        assert_eq!(
            (package.name(), package.version()),
            ("openclaw", "2026.9.6")
        );
        assert_eq!(package.directory(), project.package());
        assert_eq!(package.entry(), project.package().join("openclaw.mjs"));
        assert_eq!(
            package.engines_node().unwrap().to_string(),
            ">=24.16.0 <25 || >=26.1.0"
        );
        assert_eq!(package.project_node(), Some(node.as_path()));
    }
    fs::remove_file(node).unwrap();
    assert_eq!(
        OpenClawPackage::open(project.path())
            .unwrap()
            .project_node(),
        None
    );
}

#[test]
fn descriptions_differ() {
    let project = Project::new();
    fs::write(project.package().join("cli.mjs"), "").unwrap();
    let table = [
        (
            r#"{"name":"openclaw","version":"1.2.3"}"#,
            "openclaw.mjs",
            None,
        ),
        (
            r#"{"name":"openclaw","version":"1.2.3","bin":"cli.mjs"}"#,
            "cli.mjs",
            None,
        ),
        (
            r#"{"name":"openclaw","version":"1.2.3","bin":{"other":"x"},"engines":{"npm":">=9"}}"#,
            "openclaw.mjs",
            None,
        ),
        (
            r#"{"name":"openclaw","version":"1.2.3","bin":{"openclaw":"./cli.mjs"},"engines":{"node":">=22"}}"#,
            "./cli.mjs",
            Some(">=22"),
        ),
        // A demand that is not understood is not a reason to refuse.
        (
            r#"{"name":"openclaw","version":"1.2.3","engines":{"node":"lts/iron"}}"#,
            "openclaw.mjs",
            None,
        ),
    ];
    for (description, entry, engines) in table {
        // Editors on Windows like to put a mark in front.
        fs::write(
            project.package().join("package.json"),
            format!("\u{feff}{description}"),
        )
        .unwrap();
        let package = OpenClawPackage::open(project.package()).unwrap();
        assert_eq!(
            package.entry(),
            project.package().join(entry),
            "{description}"
        );
        assert_eq!(
            package.engines_node().map(ToString::to_string).as_deref(),
            engines,
            "{description}"
        );
    }
}

#[test]
fn what_is_wrong_with_a_directory_is_said() {
    let project = Project::new();
    let missing = project.path().join("nowhere");
    let error = open_error(&missing);
    assert!(
        error.to_string().starts_with(&format!(
            "OpenClaw package not found at: {}",
            missing.display()
        )),
        "{error}"
    );

    let entry = project.package().join("openclaw.mjs");
    fs::remove_file(&entry).unwrap();
    let error = open_error(project.path());
    assert_eq!(
        error,
        OpenClawError::EntryNotFound {
            file: entry.clone()
        }
    );
    assert!(
        error.to_string().starts_with(&format!(
            "OpenClaw entry script not found at: {}",
            entry.display()
        )),
        "{error}"
    );

    for damaged in [
        "",
        "{",
        "[]",
        r#"{"name":"openclaw"}"#,
        r#"{"name":"openclaw","version":7}"#,
    ] {
        fs::write(project.package().join("package.json"), damaged).unwrap();
        let error = open_error(project.path());
        let file = project.package().join("package.json");
        assert!(
            matches!(&error, OpenClawError::DamagedPackage { file: named, .. } if *named == file),
            "{damaged:?}: {error}"
        );
    }
    fs::remove_file(project.package().join("package.json")).unwrap();
    let error = open_error(project.path());
    assert!(
        matches!(error, OpenClawError::DamagedPackage { .. }),
        "{error}"
    );

    fs::remove_dir_all(project.path().join("node_modules")).unwrap();
    fs::write(project.path().join("package.json"), r#"{"name":"my-app"}"#).unwrap();
    let error = open_error(project.path());
    assert!(
        error.to_string().contains(r#"describes "my-app""#),
        "{error}"
    );
    fs::remove_file(project.path().join("package.json")).unwrap();
    let error = open_error(project.path());
    assert!(error.to_string().contains("no package.json"), "{error}");
}

#[tokio::test]
async fn the_projects_own_node_comes_first() {
    let project = Project::new();
    let own = project.node("node_modules/.bin", "v24.21.0");
    let openclaw = soon(OpenClaw::from_directory(project.path(), PATIENCE))
        .await
        .unwrap();
    let OpenClaw::Package { node, .. } = &openclaw else {
        panic!("{openclaw}");
    };
    assert_eq!(
        (node.program(), node.version().to_string().as_str()),
        (own.as_path(), "24.21.0")
    );
    assert_eq!(openclaw.version(), Some("2026.9.6"));
}

#[tokio::test]
async fn the_command_on_the_search_path_leads_to_its_package_and_a_suitable_node() {
    let project = Project::new();
    project.node("old", "v22.23.3");
    let good = project.node("good", "v26.1.0");
    let commands = project.path().join("commands");
    fs::create_dir(&commands).unwrap();
    std::os::unix::fs::symlink(
        project.package().join("openclaw.mjs"),
        commands.join("openclaw"),
    )
    .unwrap();
    executable(&project.package().join("openclaw.mjs"), "exit 1");
    let search = |folders: &[&str]| {
        std::env::join_paths(folders.iter().map(|folder| project.path().join(folder))).unwrap()
    };

    let openclaw = soon(OpenClaw::locate_in(
        &search(&["commands", "old", "good"]),
        PATIENCE,
    ))
    .await
    .unwrap();
    let OpenClaw::Package { node, package } = openclaw else {
        panic!("{openclaw}");
    };
    assert_eq!(node.program(), good);
    assert_eq!(
        package.directory(),
        project.package().canonicalize().unwrap()
    );

    let error = soon(OpenClaw::locate_in(&search(&["commands", "old"]), PATIENCE))
        .await
        .unwrap_err();
    let text = error.to_string();
    for part in [
        "OpenClaw 2026.9.6",
        "needs Node >=24.16.0 <25 || >=26.1.0",
        "old/node is Node 22.23.3",
        "install a Node",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let error = soon(OpenClaw::locate_in(&search(&["commands"]), PATIENCE))
        .await
        .unwrap_err();
    assert!(
        matches!(error, OpenClawError::NodeMissing { .. }),
        "{error}"
    );
    let error = soon(OpenClaw::locate_in(&search(&["old"]), PATIENCE))
        .await
        .unwrap_err();
    assert_eq!(error, OpenClawError::NotOnPath);

    // A command of somebody's own making is taken at its word.
    let own = executable(&project.path().join("own/openclaw"), "exit 0");
    let openclaw = soon(OpenClaw::locate_in(&search(&["own"]), PATIENCE))
        .await
        .unwrap();
    assert_eq!(
        openclaw,
        OpenClaw::Command {
            program: own,
            args: vec![]
        }
    );
}

#[tokio::test]
async fn a_node_that_is_none_is_unusable() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let error = soon(NodeRuntime::inspect(&missing, PATIENCE))
        .await
        .unwrap_err();
    assert_eq!(
        error,
        OpenClawError::NodeMissing {
            looked_for: missing
        }
    );
    for (n, (text, evidence)) in [
        ("echo hello", "hello"),
        ("echo v24.1.0; exit 3", "code 3"),
        ("exit 0", "\"\""),
    ]
    .iter()
    .enumerate()
    {
        let program = executable(&folder.path().join(n.to_string()), text);
        let error = soon(NodeRuntime::inspect(&program, PATIENCE))
            .await
            .unwrap_err();
        assert!(
            matches!(error, OpenClawError::NodeUnusable { .. })
                && error.to_string().contains(evidence),
            "{error}"
        );
    }
    let hangs = executable(&folder.path().join("hangs"), "exec sleep 1000");
    let error = soon(NodeRuntime::inspect(
        hangs,
        std::time::Duration::from_millis(100),
    ))
    .await
    .unwrap_err();
    assert!(error.to_string().contains("100ms"), "{error}");
}

fn launch() -> GatewayLaunch {
    let environment = Environment::from_vars([
        ("PATH", "/usr/bin"),
        ("HOME", "/home/u"),
        ("FORCE_COLOR", "1"),
        ("OPENCLAW_NO_RESPAWN", "0"),
        ("INVOCATION_ID", "x"),
        ("NODE_OPTIONS", "--inspect"),
    ]);
    GatewayLaunch {
        token: Some("s3cret-value".into()),
        state_dir: Some("/srv/state".into()),
        home: Some("/srv/home".into()),
        extra_args: vec!["--verbose".into()],
        environment,
        ..GatewayLaunch::new(18789)
    }
}

fn listed(spec: &gateway_process::LaunchSpec) -> Vec<String> {
    let value = |name: &OsStr| {
        spec.env
            .expose(name)
            .unwrap()
            .to_string_lossy()
            .into_owned()
    };
    spec.env
        .names()
        .map(|name| format!("{}={}", name.to_string_lossy(), value(name)))
        .collect()
}

#[tokio::test]
async fn gateway_and_doctor_have_the_same_environment_and_no_secret_in_their_arguments() {
    let project = Project::new();
    let node = project.node("node_modules/.bin", "v24.21.0");
    let openclaw = soon(OpenClaw::from_directory(project.path(), PATIENCE))
        .await
        .unwrap();
    let gateway = openclaw.gateway_spec(&launch());
    let entry = project.package().join("openclaw.mjs");
    assert_eq!(
        gateway.to_string(),
        format!(
            "{} {} gateway run --allow-unconfigured --bind loopback --port 18789 --verbose",
            node.display(),
            entry.display()
        )
    );
    assert_eq!(
        gateway.current_dir.as_deref(),
        Some(project.package().as_path())
    );
    let path = format!("PATH={}:/usr/bin", node.parent().unwrap().display());
    assert_eq!(
        listed(&gateway),
        [
            "HOME=/srv/home",
            "NO_COLOR=1",
            "OPENCLAW_DISABLE_BONJOUR=1",
            "OPENCLAW_GATEWAY_TOKEN=s3cret-value",
            "OPENCLAW_NO_RESPAWN=1",
            "OPENCLAW_STATE_DIR=/srv/state",
            path.as_str(),
        ]
    );
    let tracing = GatewayLaunch {
        startup_trace: true,
        ..launch()
    };
    let trace = tracing.gateway_environment();
    assert_eq!(
        trace.expose("OPENCLAW_GATEWAY_STARTUP_TRACE"),
        Some(OsStr::new("1"))
    );
    assert!(
        !gateway
            .args
            .iter()
            .any(|argument| argument.to_string_lossy().contains("s3cret-value"))
    );
    for text in [format!("{gateway:?}"), format!("{:?}", launch())] {
        assert!(!text.contains("s3cret-value"), "{text}");
    }

    let doctor = openclaw.doctor_spec(&launch());
    assert_eq!(
        doctor.to_string(),
        format!(
            "{} {} doctor --fix --yes --non-interactive",
            node.display(),
            entry.display()
        )
    );
    assert_eq!(listed(&doctor), listed(&gateway));
}

/// Whoever launches connects with the same token afterwards, so nothing on the way may put another one in its place.
#[test]
fn the_token_of_the_launch_wins_over_one_in_the_environment() {
    let command = OpenClaw::Command {
        program: "openclaw".into(),
        args: vec![],
    };
    let (inherited, mut set) = (
        Environment::from_vars([("OPENCLAW_GATEWAY_TOKEN", "of-somebody-else")]),
        Environment::empty(),
    );
    set.set("OPENCLAW_GATEWAY_TOKEN", "of-somebody-else");
    for environment in [inherited, set] {
        let launch = GatewayLaunch {
            environment,
            ..launch()
        };
        for spec in [command.gateway_spec(&launch), command.doctor_spec(&launch)] {
            let token = spec.env.expose("OPENCLAW_GATEWAY_TOKEN");
            assert_eq!(token, Some(OsStr::new("s3cret-value")), "{spec}");
        }
    }
}

#[test]
fn a_command_keeps_its_own_arguments_in_front() {
    let command = OpenClaw::Command {
        program: "flatpak".into(),
        args: vec!["run".into(), "ai.openclaw".into()],
    };
    let spec = command.gateway_spec(&launch());
    assert_eq!(
        spec.to_string(),
        "flatpak run ai.openclaw gateway run --allow-unconfigured --bind loopback --port 18789 --verbose"
    );
    assert_eq!(
        (spec.current_dir.as_deref(), command.version()),
        (None, None)
    );
}

#[test]
fn where_the_configuration_is() {
    let launch =
        |state_dir: Option<&str>, home: Option<&str>, variables: &[(&str, &str)]| GatewayLaunch {
            state_dir: state_dir.map(PathBuf::from),
            home: home.map(PathBuf::from),
            environment: Environment::from_vars(variables.iter().copied()),
            ..GatewayLaunch::new(1)
        };
    let table = [
        (
            launch(
                Some("/s"),
                Some("/h"),
                &[("OPENCLAW_CONFIG_PATH", "/c.json5")],
            ),
            Some("/c.json5"),
        ),
        (
            launch(Some("/s"), Some("/h"), &[("OPENCLAW_STATE_DIR", "/t")]),
            Some("/s/openclaw.json"),
        ),
        (
            launch(None, Some("/h"), &[("OPENCLAW_STATE_DIR", "/t")]),
            Some("/t/openclaw.json"),
        ),
        (
            launch(
                None,
                Some("/h"),
                &[("HOME", "/i"), ("OPENCLAW_CONFIG_PATH", "")],
            ),
            Some("/h/.openclaw/openclaw.json"),
        ),
        (
            launch(None, None, &[("HOME", "/i")]),
            Some("/i/.openclaw/openclaw.json"),
        ),
        (launch(None, None, &[]), None),
    ];
    for (launch, expected) in table {
        assert_eq!(
            launch.config_path().as_deref(),
            expected.map(Path::new),
            "{launch:?}"
        );
    }
}
