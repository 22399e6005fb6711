//! `gatewayctl` is killed, and what becomes of its gateway.
#![cfg(target_os = "linux")]

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Run, World, as_str, number, send};

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} never came true");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn kill(run: Run) {
    run.signal(Signal::KILL);
    run.finish();
}

fn lives(world: &World, pid: u32) -> bool {
    world.processes().iter().any(|(living, _)| *living == pid)
}

#[test]
fn the_gateway_of_a_killed_gatewayctl_is_killed_with_it() {
    let world = World::new();
    let state_dir = world.path("state");
    let args = [
        "up",
        "--json",
        "--embedded",
        "--state-dir",
        as_str(&state_dir),
    ];
    let mut first = world.start(args);
    let pid = number(&first.event("ready"), "pid");
    kill(first);
    wait_until("the end of the gateway", || !lives(&world, pid));
    let mut second = world.start(args);
    assert_ne!(number(&second.event("ready"), "pid"), pid);
    second.interrupt_and_finish().assert_code(0);
    assert_eq!(world.processes(), []);
}

#[test]
fn a_gateway_that_is_to_survive_is_taken_over_by_the_next_gatewayctl() {
    let world = World::new();
    let state_dir = world.path("state");
    let up = [
        "up",
        "--json",
        "--embedded",
        "--survive",
        "--state-dir",
        as_str(&state_dir),
    ];
    let mut first = world.start(up);
    let ready = first.event("ready");
    let (pid, port) = (number(&ready, "pid"), number(&ready, "port"));
    // Somebody else is connected all the while.
    let bystander = TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    bystander
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    kill(first);

    let mut second = world.start(up.into_iter().chain(["--why"]));
    let began = Instant::now();
    let ready = second.event("ready");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert_eq!((number(&ready, "pid"), number(&ready, "port")), (pid, port));
    assert_eq!(ready["attached"], false);
    let undisturbed = bystander.peek(&mut [0]).unwrap_err().kind();
    assert!(
        matches!(
            undisturbed,
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        ),
        "{undisturbed:?}"
    );
    drop(bystander);
    // It is a child like any other: when it dies, the next one is launched.
    send(pid, Signal::KILL);
    wait_until("the end of the gateway", || !lives(&world, pid));
    second.event("lost");
    assert_ne!(number(&second.event("ready"), "pid"), pid);
    let finished = second.interrupt_and_finish();
    finished.assert_code(0);
    let rules: Vec<_> = finished.events();
    assert!(
        rules.iter().any(|event| event["rule"] == "adopt"),
        "{rules:#?}"
    );
    assert_eq!(world.processes(), []);
}

/// With other settings the survivor is not what would be launched: it is ended in order, and its successor is launched.
#[test]
fn a_survivor_of_other_settings_is_replaced() {
    let world = World::new();
    let state_dir = world.path("state");
    let up = [
        "up",
        "--json",
        "--embedded",
        "--survive",
        "--state-dir",
        as_str(&state_dir),
    ];
    let mut first = world.start(up);
    let pid = number(&first.event("ready"), "pid");
    kill(first);
    assert!(lives(&world, pid));
    let home = world.path("another-home");
    std::fs::create_dir(&home).unwrap();
    let mut second = world.start(up.into_iter().chain(["--home", as_str(&home)]));
    let ready = second.event("ready");
    assert_ne!(number(&ready, "pid"), pid);
    assert!(!lives(&world, pid));
    second.interrupt_and_finish().assert_code(0);
    assert_eq!(world.processes(), []);
}

#[test]
fn a_survivor_needs_a_place_that_lasts() {
    let world = World::new();
    world
        .finish(["up", "--embedded", "--survive"])
        .assert_error(2, &["temporary", "--state-dir"]);
    world.assert_nothing_is_left();
}
