//! The life of a gateway under `gatewayctl up`.
#![cfg(unix)]

mod support;

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;
use support::{World, command_line, is_alive, number, send};

#[test]
fn it_runs_until_interrupted_and_says_what_it_stopped() {
    let world = World::new();
    let mut run = world.start(["up"]);
    let first = run.line(|_| true);
    for text in [
        "No `openclaw` on PATH",
        "simulator",
        "npm install -g openclaw",
        "--openclaw",
    ] {
        assert!(first.contains(text), "{first}");
    }
    let field = |line: String| -> u32 { line.split_whitespace().last().unwrap().parse().unwrap() };
    let pid = field(run.line(|line| line.starts_with("  pid ")));
    let port = field(run.line(|line| line.starts_with("  port ")));
    run.line(|line| line.starts_with("  protocol  4"));
    run.line(|line| line.starts_with("  version   2026."));
    assert!(is_alive(pid));
    assert!(
        TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).is_err(),
        "nobody listens on {port}"
    );
    // The block is complete; only then is there nothing else to come.
    run.line(|line| line.starts_with("  state dir"));
    let finished = run.interrupt_and_finish();
    finished.assert_code(0);
    assert_eq!(finished.stderr, "");
    let last = finished.stdout.last().unwrap();
    for text in [
        format!("port {port}"),
        format!("process {pid}"),
        "exit code 0".to_owned(),
        "stopping took".to_owned(),
    ] {
        assert!(last.contains(&text), "{text}: {last}");
    }
    assert!(!is_alive(pid));
    TcpListener::bind(("127.0.0.1", u16::try_from(port).unwrap())).expect("the port is free");
    world.assert_nothing_is_left();
}

#[test]
fn json_is_one_object_per_line_with_the_phases_in_order() {
    let world = World::new();
    let finished = world.finish(["up", "--json", "--until-ready"]);
    finished.assert_code(0);
    assert_eq!(finished.stderr, "");
    let events = finished.events();
    let phases: Vec<_> = events
        .iter()
        .filter_map(|event| event["phase"].as_str())
        .collect();
    assert_eq!(
        phases,
        [
            "discovering",
            "preparing",
            "spawning",
            "listening",
            "handshaking",
            "ready",
            "stopping",
            "stopped"
        ]
    );
    let times: Vec<_> = events
        .iter()
        .map(|event| number(event, "elapsedMs"))
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    let named = |name: &str| -> Vec<_> {
        events
            .iter()
            .filter(|event| event["event"] == name)
            .collect()
    };
    assert_eq!(events[0]["event"], "gateway");
    assert_eq!(events[0]["kind"], "embedded");
    let [ready] = named("ready")[..] else {
        panic!("not once ready: {events:#?}")
    };
    assert_eq!(ready["state"], "running");
    assert_eq!(ready["protocol"], 4);
    assert_eq!(ready["attached"], false);
    let [exited] = named("exited")[..] else {
        panic!("not one exit: {events:#?}")
    };
    assert_eq!(exited["pid"], ready["pid"]);
    assert_eq!(exited["requested"], true);
    let summary = events.last().unwrap();
    assert_eq!(summary["event"], "summary");
    assert_eq!(summary["outcome"], "done");
    assert_eq!(summary["exitCode"], 0);
    assert_eq!(summary["sessions"], 1);
    assert_eq!(summary["exit"]["code"], 0);
    assert_eq!(summary["port"], ready["port"]);
    world.assert_nothing_is_left();
}

#[test]
fn a_killed_gateway_comes_back_with_a_new_pid() {
    let world = World::new();
    let mut run = world.start(["up", "--json"]);
    let first = run.event("ready");
    send(number(&first, "pid"), Signal::KILL);
    let exited = run.event("exited");
    assert_eq!(exited["signal"], 9);
    assert_eq!(exited["requested"], false);
    let second = run.event("ready");
    assert_eq!(second["session"], 2);
    assert_ne!(second["pid"], first["pid"]);
    assert_eq!(second["port"], first["port"]);
    assert!(second["lostForMs"].is_u64(), "{second}");
    run.signal(Signal::TERM);
    let finished = run.finish();
    finished.assert_code(0);
    let events = finished.events();
    assert!(
        events.iter().any(|event| event["event"] == "lost"),
        "{events:#?}"
    );
    assert!(
        events
            .iter()
            .any(|event| event["event"] == "stopping" && event["reason"] == "SIGTERM")
    );
    assert_eq!(events.last().unwrap()["exit"]["pid"], second["pid"]);
    world.assert_nothing_is_left();
}

#[test]
fn a_second_signal_kills_a_gateway_that_will_not_stop() {
    let world = World::new();
    let mut command = world.command(["up", "--json"]);
    command.env(
        "FAKE_OPENCLAW_SCRIPT",
        r#"{"start":{"ignore_sigterm":true}}"#,
    );
    let mut run = support::Run::start(command);
    let pid = number(&run.event("ready"), "pid");
    run.signal(Signal::INT);
    run.event("stopping");
    run.signal(Signal::INT);
    let finished = run.finish();
    finished.assert_code(130);
    let events = finished.events();
    let summary = events.last().unwrap();
    assert_eq!(summary["outcome"], "forced");
    assert_eq!(number(summary, "pid"), pid);
    assert!(!is_alive(pid));
    world.assert_nothing_is_left();
}

#[test]
fn an_interrupted_start_leaves_nothing() {
    let world = World::new();
    let mut command = world.command(["up", "--json"]);
    command.env("FAKE_OPENCLAW_SCRIPT", r#"{"start":{"never_listen":true}}"#);
    let mut run = support::Run::start(command);
    run.line(|line| line.contains(r#""phase":"listening""#));
    let finished = run.interrupt_and_finish();
    finished.assert_code(0);
    assert_eq!(finished.events().last().unwrap()["sessions"], 0);
    world.assert_nothing_is_left();
}

#[test]
fn interrupted_between_two_attempts_it_does_not_claim_to_have_stopped_anything() {
    let world = World::new();
    let mut command = world.command(["up"]);
    command.env(
        "FAKE_OPENCLAW_SCRIPT",
        r#"{"start":{"exit_at_start":{"code":3,"stderr":["boom"]}}}"#,
    );
    let mut run = support::Run::start(command);
    let waiting = run.line(|line| line.contains("backing-off"));
    assert!(
        waiting.contains("attempt 1 in") && waiting.contains("boom"),
        "{waiting}"
    );
    let finished = run.interrupt_and_finish();
    finished.assert_code(0);
    let last = finished.stdout.last().unwrap();
    assert!(
        last.contains("was not running any more") && last.contains("code 3"),
        "{last}"
    );
    world.assert_nothing_is_left();
}

#[test]
fn a_reader_that_goes_away_ends_it() {
    let world = World::new();
    let mut run = world.start(["up", "--json"]);
    let pid = number(&run.event("ready"), "pid");
    run.stop_reading();
    send(pid, Signal::KILL);
    let finished = run.finish();
    finished.assert_error(74, &["standard output is gone"]);
    // What the gateway went through did not lead to that.
    assert!(!finished.stderr.contains("How it came"), "{finished:?}");
    world.assert_nothing_is_left();
}

#[test]
fn a_broken_configuration_is_repaired_once() {
    let world = World::new();
    let config = world.write("state/openclaw.json", r#"{"unknownKey": 1}"#);
    let state_dir = world.path("state");
    let finished = world.finish([
        "up",
        "--json",
        "--until-ready",
        "--embedded",
        "--state-dir",
        support::as_str(&state_dir),
    ]);
    finished.assert_code(0);
    let events = finished.events();
    let repaired: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "repaired")
        .collect();
    let [repaired] = repaired[..] else {
        panic!("not repaired once: {events:#?}")
    };
    assert_eq!(repaired["succeeded"], true);
    assert_eq!(repaired["changed"], true);
    assert_eq!(repaired["verdict"], "repaired");
    let diff: Vec<_> = repaired["diff"].as_array().unwrap().iter().collect();
    assert!(
        diff.contains(&&serde_json::json!("- unknownKey: [redacted]")),
        "{diff:?}"
    );
    assert_eq!(repaired["reasons"], serde_json::json!([]));
    assert_eq!(repaired["config"], support::as_str(&config));
    let backup = fs::read_to_string(repaired["backup"].as_str().unwrap()).unwrap();
    assert_eq!(backup, r#"{"unknownKey": 1}"#);
    assert!(!fs::read_to_string(&config).unwrap().contains("unknownKey"));
    world.assert_nothing_is_left();
}

#[test]
fn settings_of_a_real_gateway_do_not_reach_the_embedded_one() {
    let world = World::new();
    let config = world.write("real/openclaw.json", r#"{"unknownKey": 1}"#);
    let mut command = world.command(["up", "--until-ready"]);
    command
        .env("OPENCLAW_CONFIG_PATH", &config)
        .env("OPENCLAW_STATE_DIR", world.path("real"))
        .env("OPENCLAW_GATEWAY_PORT", "1");
    support::Run::start(command).finish().assert_code(0);
    assert_eq!(fs::read_to_string(&config).unwrap(), r#"{"unknownKey": 1}"#);
    assert_eq!(fs::read_dir(world.path("real")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(world.path("home")).unwrap().count(), 0);
    world.assert_nothing_is_left();
}

#[test]
fn the_token_is_seen_nowhere() {
    const TOKEN: &str = "token-that-must-not-be-seen";
    let world = World::new();
    let file = world.write("token", &format!("{TOKEN}\n"));
    let mut command = world.command([
        "up",
        "--json",
        "--show-output",
        "--log",
        "trace",
        "--token-file",
        support::as_str(&file),
    ]);
    command.env(
        "FAKE_OPENCLAW_SCRIPT",
        format!(r#"{{"start":{{"stderr":["my token is {TOKEN}"]}}}}"#),
    );
    let mut run = support::Run::start(command);
    run.line(|line| line.contains("my token is [redacted]"));
    run.event("ready");
    let processes = world.processes();
    if cfg!(target_os = "linux") {
        assert_eq!(processes.len(), 2, "{processes:?}");
    }
    for (pid, _) in processes {
        assert!(!command_line(pid).contains(TOKEN));
    }
    let finished = run.interrupt_and_finish();
    finished.assert_code(0);
    assert!(!finished.stderr.is_empty(), "no log was written");
    assert!(!finished.stderr.contains(TOKEN), "{}", finished.stderr);
    assert!(!finished.stdout.concat().contains(TOKEN));
    world.assert_nothing_is_left();
}

#[test]
fn decisions_are_told_on_demand() {
    let world = World::new();
    let finished = world.finish(["up", "--why", "--json", "--until-ready"]);
    finished.assert_code(0);
    let events = finished.events();
    let place = |key: &str, value: &str| {
        let found = events.iter().position(|event| event[key] == value);
        found.unwrap_or_else(|| panic!("no {key} {value}: {events:#?}"))
    };
    // Each comes before what follows from it.
    for (rule, phase) in [
        ("look-at-port", "discovering"),
        ("launch", "spawning"),
        ("serve", "ready"),
        ("close-first", "stopping"),
        ("taken-down", "stopped"),
    ] {
        let (decided, done) = (place("rule", rule), place("phase", phase));
        assert!(decided < done, "{rule} at {decided}, {phase} at {done}");
        assert_eq!(events[decided]["event"], "decision");
    }
    let serve = &events[place("rule", "serve")];
    assert_eq!(serve["text"], "serve (protocol 4)");
    assert!(
        number(serve, "atMs") <= number(serve, "elapsedMs"),
        "{serve}"
    );

    let people = world.finish(["up", "--why", "--until-ready"]);
    people.assert_code(0);
    let told = people.stdout.join("\n");
    assert!(told.contains("s  why: serve (protocol 4)"), "{told}");
    assert!(!told.contains('\x1b'), "styles in a pipe: {told}");

    let quiet = world.finish(["up", "--json", "--until-ready"]);
    let is_decision = |event: &serde_json::Value| event["event"] == "decision";
    assert!(!quiet.events().iter().any(is_decision), "{quiet:#?}");
    world.assert_nothing_is_left();
}

#[test]
fn the_output_of_the_gateway_is_shown_on_demand() {
    let world = World::new();
    let count = |option: &[&str]| {
        let mut command = world.command(["up", "--json", "--until-ready"]);
        command.args(option).env(
            "FAKE_OPENCLAW_SCRIPT",
            r#"{"start":{"stderr":["something is wrong"]}}"#,
        );
        let finished = support::Run::start(command).finish();
        finished.assert_code(0);
        let events = finished.events();
        let outputs = |stream: &str| {
            events
                .iter()
                .filter(|event| event["event"] == "output" && event["stream"] == stream)
                .count()
        };
        (outputs("stdout") > 0, outputs("stderr") > 0)
    };
    assert_eq!(count(&["--show-output"]), (true, true));
    assert_eq!(count(&[]), (false, true));
    assert_eq!(count(&["--quiet-output"]), (false, false));
}
