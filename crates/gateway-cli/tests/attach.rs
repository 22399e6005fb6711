//! A gateway that is already there, and looking for one.
#![cfg(unix)]

mod support;

use std::net::TcpListener;

use support::{Run, World, free_port, is_alive, number};

const TOKEN: &str = "a-shared-token";

/// A gateway that belongs to somebody else.
fn somebody_elses(world: &World) -> (Run, u32, String) {
    let mut command = world.command(["up", "--json", "--embedded"]);
    command.env("OPENCLAW_GATEWAY_TOKEN", TOKEN);
    let mut run = Run::start(command);
    let ready = run.event("ready");
    (
        run,
        number(&ready, "pid"),
        number(&ready, "port").to_string(),
    )
}

fn with_token(world: &World, token: &str, args: &[&str]) -> Run {
    let mut command = world.command(args);
    command.env("OPENCLAW_GATEWAY_TOKEN", token);
    Run::start(command)
}

#[test]
fn an_attached_gateway_is_used_and_left_running() {
    let (theirs, ours) = (World::new(), World::new());
    let (owner, pid, port) = somebody_elses(&theirs);
    for mode in [
        &["--attach", "only"][..],
        &["--attach", "if-present", "--embedded"],
    ] {
        let mut args = vec!["up", "--json", "--until-ready", "--port", &port];
        args.extend(mode);
        let finished = with_token(&ours, TOKEN, &args).finish();
        finished.assert_code(0);
        let events = finished.events();
        let ready = events
            .iter()
            .find(|event| event["event"] == "ready")
            .unwrap();
        assert_eq!(ready["attached"], true);
        assert!(ready["pid"].is_null());
        let summary = events.last().unwrap();
        assert_eq!(summary["attached"], true);
        assert!(summary["exit"].is_null());
        assert!(is_alive(pid), "somebody else's gateway was stopped");
        ours.assert_nothing_is_left();
    }
    owner.interrupt_and_finish().assert_code(0);
    theirs.assert_nothing_is_left();
}

#[test]
fn a_wrong_token_is_an_error_that_names_the_remedy() {
    let (theirs, ours) = (World::new(), World::new());
    let (owner, pid, port) = somebody_elses(&theirs);
    let args = ["up", "--attach", "only", "--port", &port];
    let finished = with_token(&ours, "another-token", &args).finish();
    finished.assert_error(77, &["OPENCLAW_GATEWAY_TOKEN", "--token-file"]);
    assert!(!finished.stderr.contains("another-token"));
    assert!(is_alive(pid));
    owner.interrupt_and_finish().assert_code(0);
}

#[test]
fn without_attaching_a_gateway_on_the_port_is_an_error_and_left_alone() {
    let (theirs, ours) = (World::new(), World::new());
    let (owner, pid, port) = somebody_elses(&theirs);
    let finished = ours.finish(["up", "--embedded", "--port", &port]);
    finished.assert_error(
        69,
        &[
            &format!("pid {pid}"),
            "gatewayctl",
            "--port free",
            "--attach if-present",
        ],
    );
    assert!(is_alive(pid));
    ours.assert_nothing_is_left();
    owner.interrupt_and_finish().assert_code(0);
}

#[test]
fn a_missing_gateway_is_an_error_when_none_may_be_launched() {
    let world = World::new();
    let port = free_port().to_string();
    let finished = world.finish(["up", "--attach", "only", "--port", &port]);
    finished.assert_error(
        69,
        &[
            "No gateway listens",
            "Start the gateway, or allow launching",
        ],
    );
    world.assert_nothing_is_left();
}

#[test]
fn a_probe_tells_a_gateway_from_a_stranger_from_nobody() {
    let world = World::new();
    let (owner, pid, port) = somebody_elses(&world);
    let finished = world.finish(["probe", "--json", "--port", &port]);
    finished.assert_code(0);
    let found = &finished.events()[0];
    assert_eq!(found["found"], "gateway");
    assert_eq!(number(&found["holders"][0], "pid"), pid);
    owner.interrupt_and_finish().assert_code(0);

    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = stranger.local_addr().unwrap().port().to_string();
    let finished = world.finish(["probe", "--port", &port]);
    finished.assert_code(76);
    let said = finished.stdout.concat();
    assert!(
        said.contains(&format!("process {}", std::process::id())),
        "{said}"
    );

    let nobody = free_port().to_string();
    let finished = world.finish(["probe", "--port", &nobody]);
    finished.assert_code(69);
    assert!(
        finished.stdout[0].contains(&format!("Nobody listens on port {nobody}")),
        "{finished:?}"
    );
}
