//! What is wrong is named together with the next step; nothing hangs and nothing is left.
#![cfg(unix)]

mod support;

use std::net::{TcpListener, TcpStream};

use support::{Run, World, as_str, free_port, parse};

#[test]
fn unknown_options_and_commands() {
    let world = World::new();
    world
        .finish(["up", "--bogus"])
        .assert_error(2, &["'--bogus'", "--help"]);
    world
        .finish(["dance"])
        .assert_error(2, &["'dance'", "--help"]);
    world.finish(Vec::<&str>::new()).assert_error(2, &["Usage"]);
    let json = world.finish(["up", "--json", "--bogus"]);
    json.assert_code(2);
    assert_eq!(json.stderr, "");
    let events = json.events();
    assert_eq!(events[0]["event"], "error");
    assert!(
        events[0]["message"]
            .as_str()
            .unwrap()
            .starts_with("unexpected argument '--bogus'"),
        "{events:?}"
    );
    assert_eq!(events[0]["why"], serde_json::json!([]));
    assert_eq!(events[1]["event"], "summary");
    assert_eq!(events[1]["exitCode"], 2);
}

#[test]
fn openclaw_that_is_not_there() {
    let world = World::new();
    let missing = world.path("missing");
    world
        .finish(["up", "--openclaw", as_str(&missing)])
        .assert_error(69, &["not found", as_str(&missing), "npm install openclaw"]);
    let other = world.write("other/package.json", r#"{"name":"leftpad"}"#);
    let other = other.parent().unwrap();
    world
        .finish(["up", "--openclaw", as_str(other)])
        .assert_error(69, &[as_str(other), "leftpad"]);
}

#[test]
fn a_missing_entry_script() {
    let world = World::new();
    let package = world.write(
        "openclaw/package.json",
        r#"{"name":"openclaw","version":"2026.9.6"}"#,
    );
    let directory = package.parent().unwrap();
    let script = directory.join("openclaw.mjs");
    world
        .finish(["up", "--openclaw", as_str(directory)])
        .assert_error(69, &[as_str(&script), "reinstall"]);
}

/// A package that no Node is new enough for, and a Node.
fn package_of_the_future(world: &World) -> String {
    world.install("node", "echo v24.1.0");
    world.write(
        "lib/openclaw/package.json",
        r#"{"name":"openclaw","version":"2099.1.1","bin":"openclaw.mjs","engines":{"node":">=99"}}"#,
    );
    let entry = world.write("lib/openclaw/openclaw.mjs", "");
    as_str(entry.parent().unwrap()).to_owned()
}

#[test]
fn a_node_that_is_too_old() {
    let world = World::new();
    let directory = package_of_the_future(&world);
    world
        .finish(["up", "--openclaw", &directory])
        .assert_error(69, &["2099.1.1", ">=99", "24.1.0", "install a Node"]);
}

#[test]
fn no_node_at_all() {
    let world = World::new();
    let directory = package_of_the_future(&world);
    std::fs::remove_file(world.path("bin/node")).unwrap();
    world
        .finish(["up", "--openclaw", &directory])
        .assert_error(69, &["Node was not found", "install Node"]);
}

#[test]
fn an_unusable_openclaw_on_path_is_not_replaced_silently() {
    let world = World::new();
    let directory = package_of_the_future(&world);
    std::os::unix::fs::symlink(
        format!("{directory}/openclaw.mjs"),
        world.path("bin/openclaw"),
    )
    .unwrap();
    make_executable(&format!("{directory}/openclaw.mjs"));
    let finished = world.finish(["up"]);
    finished.assert_error(69, &["on PATH", ">=99", "--openclaw", "--embedded"]);
    assert!(finished.stdout.is_empty(), "{finished:?}");
    world
        .finish(["up", "--embedded", "--until-ready"])
        .assert_code(0);
    world.assert_nothing_is_left();
}

fn make_executable(path: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_command_that_is_not_there() {
    let world = World::new();
    let port = free_port().to_string();
    let program = world.path("no-such-program");
    world
        .finish(["up", "--port", &port, "--command", as_str(&program)])
        .assert_error(78, &[as_str(&program), "--command"]);
    // A command with its arguments in one string is a program of that name, and there is none.
    world
        .finish(["up", "--port", &port, "--command", "node openclaw.mjs"])
        .assert_error(78, &["node openclaw.mjs", "--command-arg"]);
    world.assert_nothing_is_left();
}

#[test]
fn a_port_that_a_stranger_holds() {
    let world = World::new();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap();
    let port = address.port().to_string();
    let program = std::env::current_exe().unwrap();
    let finished = world.finish(["up", "--embedded", "--port", &port]);
    finished.assert_error(
        69,
        &[
            &format!("pid {}", std::process::id()),
            as_str(&program),
            "--port free",
        ],
    );
    // The stranger was asked what it is, and still serves.
    let client = TcpStream::connect(address).unwrap();
    let ours = client.local_addr().unwrap();
    let served = std::iter::repeat_with(|| stranger.accept().unwrap().1).find(|peer| *peer == ours);
    assert_eq!(served, Some(ours));
    world.assert_nothing_is_left();
}

#[test]
fn a_state_directory_that_cannot_be_used() {
    let world = World::new();
    let file = world.write("a-file", "");
    let missing_in_file = file.join("state");
    for (path, texts) in [
        (&file, ["is not a directory", "choose another path"]),
        (
            &missing_in_file,
            ["cannot be created", "choose another path"],
        ),
    ] {
        let finished = world.finish(["up", "--embedded", "--state-dir", as_str(path)]);
        finished.assert_error(78, &texts);
        assert!(finished.stderr.contains(as_str(path)), "{finished:?}");
    }
    world.assert_nothing_is_left();
}

#[cfg(target_os = "linux")]
#[test]
fn a_state_directory_that_takes_no_files() {
    let world = World::new();
    // Not even the superuser can create files there.
    world
        .finish(["up", "--embedded", "--state-dir", "/proc"])
        .assert_error(78, &["/proc", "is not writable", "choose another path"]);
    world.assert_nothing_is_left();
}

#[test]
fn tokens_that_cannot_be_had() {
    let world = World::new();
    let missing = world.path("no-token");
    world
        .finish(["up", "--embedded", "--token-file", as_str(&missing)])
        .assert_error(66, &[as_str(&missing), "--token-file"]);
    let finished = world.finish(["up", "--token", "s3cret"]);
    finished.assert_error(2, &["OPENCLAW_GATEWAY_TOKEN", "--token-file"]);
    assert!(!finished.stderr.contains("s3cret"));
    world.assert_nothing_is_left();
}

#[test]
fn a_broken_configuration_that_may_not_be_repaired() {
    let world = World::new();
    let config = world.write("state/openclaw.json", r#"{"unknownKey": 1}"#);
    let state_dir = world.path("state");
    let base = ["up", "--embedded", "--state-dir", as_str(&state_dir)];
    let mut args = base.to_vec();
    args.push("--no-repair");
    world
        .finish(&args)
        .assert_error(78, &[as_str(&config), "--no-repair"]);
    args.push("--json");
    let finished = world.finish(&args);
    finished.assert_code(78);
    assert_eq!(finished.stderr, "");
    let error = finished
        .stdout
        .iter()
        .map(|line| parse(line))
        .find(|event| event["event"] == "error")
        .unwrap();
    assert_eq!(error["class"], "configuration");
    assert_eq!(error["exitCode"], 78);
    let why: Vec<&str> = error["why"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect();
    // From the command to the decision that ended it, without the stop that followed.
    assert!((2..=12).contains(&why.len()), "{why:#?}");
    assert!(why[0].contains(" s: start-wanted"), "{why:#?}");
    assert!(
        why[why.len() - 1].contains("halt (configuration)"),
        "{why:#?}"
    );
    let phases = finished.events();
    let failed = phases.iter().find(|event| event["phase"] == "failed");
    assert!(failed.unwrap()["gaveUp"].is_null(), "{failed:?}");
    assert_eq!(
        std::fs::read_to_string(&config).unwrap(),
        r#"{"unknownKey": 1}"#
    );
    world.assert_nothing_is_left();
}

#[test]
fn a_configuration_beyond_repair() {
    let world = World::new();
    let config = world.write("state/openclaw.json", "this is no JSON");
    let state_dir = world.path("state");
    world
        .finish(["up", "--embedded", "--state-dir", as_str(&state_dir)])
        .assert_error(
            78,
            &[
                as_str(&config),
                "by hand",
                "launched: ",
                "gateway run",
                "How it came to that:\n  0.",
                "repair-once",
                "halt (configuration)",
            ],
        );
    assert_eq!(std::fs::read_to_string(&config).unwrap(), "this is no JSON");
    world.assert_nothing_is_left();
}

#[test]
fn two_gateways_on_one_state_directory() {
    let world = World::new();
    let state_dir = world.path("state");
    let args = [
        "up",
        "--json",
        "--embedded",
        "--state-dir",
        as_str(&state_dir),
    ];
    let mut first: Run = world.start(args);
    first.event("ready");
    world
        .finish(["up", "--embedded", "--state-dir", as_str(&state_dir)])
        .assert_error(75, &["is managed by another process", "--state-dir"]);
    first.interrupt_and_finish().assert_code(0);
    world.assert_nothing_is_left();
}

#[test]
fn a_device_that_is_not_approved() {
    const UNAPPROVED: &str = r#"{"start":{"faults":{"refuse":{"code":"NOT_PAIRED","message":"pairing required","details":{"code":"PAIRING_REQUIRED","requestId":"request-7"},"close_code":1008,"close_reason":"pairing required"}}}}"#;
    let world = World::new();
    let start = |args: &[&str]| {
        let mut command = world.command(args);
        command.env("FAKE_OPENCLAW_SCRIPT", UNAPPROVED);
        Run::start(command)
    };
    // A script cannot wait for a person.
    start(&["up", "--until-ready"])
        .finish()
        .assert_error(77, &["pairing required", "openclaw devices approve"]);
    // A person can be waited for.
    let mut waiting = start(&["up"]);
    waiting.line(|line| line.contains("awaiting-approval"));
    waiting.line(|line| line.contains("openclaw devices approve"));
    waiting.interrupt_and_finish().assert_code(0);
    world.assert_nothing_is_left();
}
