//! `gatewayctl` on Windows, with the gateway that is built in.
#![cfg(windows)]

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// The program in a home of its own, with nothing on its search path.
fn gatewayctl(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
    command
        .args(arguments)
        .env("HOME", home)
        .env("USERPROFILE", home)
        .env("APPDATA", home)
        .env("LOCALAPPDATA", home)
        .env("PATH", home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn events(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_gateway_is_started_used_and_stopped() {
    let home = tempfile::tempdir().unwrap();
    let output = gatewayctl(home.path(), &["up", "--json", "--until-ready"])
        .output()
        .unwrap();
    let events = events(&output);
    assert_eq!(output.status.code(), Some(0), "{events:#?}");
    let named = |name: &str| events.iter().find(|event| event["event"] == name);
    let (ready, exited) = (named("ready").unwrap(), named("exited").unwrap());
    assert_eq!(ready["state"], "running");
    assert_eq!(exited["pid"], ready["pid"]);
    assert_eq!(exited["requested"], true);
    assert_eq!(events.last().unwrap()["outcome"], "done");
}

#[test]
fn the_gateway_of_a_killed_gatewayctl_is_gone() {
    let home = tempfile::tempdir().unwrap();
    let mut run = gatewayctl(home.path(), &["up", "--json"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let ready = lines
        .map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap())
        .find(|event| event["event"] == "ready")
        .unwrap();
    let port = u16::try_from(ready["port"].as_u64().unwrap()).unwrap();
    TcpStream::connect(("127.0.0.1", port)).unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    let killed = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(killed.elapsed() < PATIENCE, "the gateway serves on");
    }
}

#[test]
fn mistakes_are_named() {
    let home = tempfile::tempdir().unwrap();
    let output = gatewayctl(home.path(), &["up", "--bogus"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("'--bogus'"));
    let missing = home.path().join("missing");
    let missing = missing.to_str().unwrap();
    let output = gatewayctl(home.path(), &["up", "--openclaw", missing])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains(missing) && said.contains("npm install openclaw"),
        "{said}"
    );
}
