//! The `fake-openclaw` binary as a process: exit codes, texts, signals, locks and the doctor.

mod support;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use gateway_testkit::child::{
    ChildScript, ExitAtStart, Flood, GrandchildScript, SCRIPT_VARIABLE, StartScript,
};
use gateway_testkit::{FakeGateway, FakeGatewayConfig, Vintage};
use serde_json::json;
use support::client::Client;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

const TOKEN: &str = "child-token";
const PATIENCE: Duration = Duration::from_secs(20);

struct Home {
    dir: TempDir,
    vintage: Vintage,
}

impl Home {
    fn new(vintage: Vintage) -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            vintage,
        }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("openclaw.json")
    }

    fn script(&self, start: StartScript) -> ChildScript {
        ChildScript {
            vintage: self.vintage,
            start,
            ..ChildScript::default()
        }
    }

    fn command(&self, script: &ChildScript, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fake-openclaw"));
        command
            .args(args)
            .env_clear()
            .env("OPENCLAW_STATE_DIR", self.dir.path())
            .env("OPENCLAW_GATEWAY_TOKEN", TOKEN)
            .env(SCRIPT_VARIABLE, serde_json::to_string(script).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs the gateway to its end.
    async fn ends(&self, start: StartScript, port: u16) -> (Option<i32>, String) {
        let output = self.gateway(&self.script(start), port).output();
        report(timeout(PATIENCE, output).await.unwrap().unwrap())
    }

    async fn doctor(&self) -> (Option<i32>, String) {
        let script = self.script(StartScript::default());
        let output = self
            .command(&script, &["doctor", "--fix", "--yes", "--non-interactive"])
            .output();
        report(timeout(PATIENCE, output).await.unwrap().unwrap())
    }

    fn gateway(&self, script: &ChildScript, port: u16) -> Command {
        let port = port.to_string();
        self.command(
            script,
            &[
                "gateway",
                "run",
                "--allow-unconfigured",
                "--bind",
                "loopback",
                "--port",
                &port,
            ],
        )
    }
}

fn report(output: Output) -> (Option<i32>, String) {
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Reads stdout until a line holds `text`, then goes on draining.
async fn until_line(child: &mut Child, text: &str) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = timeout(PATIENCE, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(text) {
                return line;
            }
        }
        panic!("stdout ended without {text:?}");
    });
    let line = found.await.unwrap();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    line
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("still running").to_string();
    let status = std::process::Command::new("kill")
        .args(["-s", name, &pid])
        .status()
        .unwrap();
    assert!(status.success(), "kill -s {name}");
}

async fn exit_code(child: &mut Child) -> Option<i32> {
    timeout(PATIENCE, child.wait())
        .await
        .expect("the child ends")
        .unwrap()
        .code()
}

#[cfg_attr(windows, ignore = "Windows has no signals")]
#[tokio::test]
async fn sigterm_and_sigint_stop_in_order_with_code_0() {
    for vintage in Vintage::ALL {
        for name in ["TERM", "INT"] {
            let (home, port) = (Home::new(vintage), free_port());
            let mut child = home
                .gateway(&home.script(StartScript::default()), port)
                .spawn()
                .unwrap();
            until_line(&mut child, "ready").await;
            let (mut client, hello) = Client::connected(port, TOKEN).await;
            assert_eq!(hello["snapshot"]["stateDir"], json!(home.dir.path()));
            signal(&child, name);
            assert!(client.event("shutdown", PATIENCE).await.is_some());
            assert_eq!(
                client.until_close(PATIENCE).await["code"],
                1012,
                "{vintage:?} {name}"
            );
            assert_eq!(exit_code(&mut child).await, Some(0), "{vintage:?} {name}");
        }
    }
}

#[tokio::test]
async fn the_default_start_is_quick() {
    let (home, port) = (Home::new(Vintage::V2026_9_6), free_port());
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let begin = Instant::now();
        let mut child = home
            .gateway(&home.script(StartScript::default()), port)
            .spawn()
            .unwrap();
        until_line(&mut child, "ready").await;
        best = best.min(begin.elapsed());
        child.kill().await.unwrap();
    }
    assert!(best < Duration::from_millis(500), "{best:?}");
}

#[tokio::test]
async fn invalid_configurations_and_their_repair() {
    // text, doctor of 2026.3.2, doctor of 2026.9.6, repaired
    for (text, old, new, repaired) in [
        (r#"{"bogus": 1, "ui": {}}"#, 0, 0, true),
        (r#"{"gateway": {"port": "abc"}}"#, 0, 1, false),
        ("{nope", 0, 1, false),
        ("", 0, 1, false),
    ] {
        for (vintage, exit, doctor) in [(Vintage::V2026_3_2, 1, old), (Vintage::V2026_9_6, 78, new)]
        {
            let (home, port) = (Home::new(vintage), free_port());
            std::fs::write(home.config(), text).unwrap();
            let (code, stderr) = home.ends(StartScript::default(), port).await;
            assert_eq!(code, Some(exit), "{vintage:?} {text:?}");
            assert!(
                stderr.contains(&format!("Invalid config at {}", home.config().display())),
                "{stderr}"
            );
            assert!(stderr.contains("Run: openclaw doctor --fix"), "{stderr}");

            assert_eq!(home.doctor().await.0, Some(doctor), "{vintage:?} {text:?}");
            let backup = Path::new(home.dir.path()).join("openclaw.json.bak");
            assert_eq!(backup.exists(), repaired, "{vintage:?} {text:?}");
            if repaired {
                assert_eq!(std::fs::read_to_string(backup).unwrap(), text);
                let mut child = home
                    .gateway(&home.script(StartScript::default()), port)
                    .spawn()
                    .unwrap();
                until_line(&mut child, "ready").await;
            } else {
                assert_eq!(
                    std::fs::read_to_string(home.config()).unwrap(),
                    text,
                    "untouched"
                );
            }
        }
    }
}

#[tokio::test]
async fn command_line_mistakes_end_with_1() {
    let home = Home::new(Vintage::V2026_9_6);
    let script = home.script(StartScript::default());
    for (args, text) in [
        (
            &["gateway", "run", "--bogus"][..],
            "unknown option '--bogus'",
        ),
        (&["gateway", "run", "--port", "0"], "Invalid port"),
    ] {
        let (code, stderr) = report(home.command(&script, args).output().await.unwrap());
        assert_eq!(code, Some(1), "{args:?}");
        assert!(stderr.contains(text), "{stderr}");
    }
    let (code, stderr) = report(
        home.command(&script, &["gateway", "run", "--port", "19999"])
            .output()
            .await
            .unwrap(),
    );
    assert_eq!(code, Some(78));
    assert!(stderr.contains("Missing config."), "{stderr}");
    let version = home
        .command(&script, &["--version"])
        .output()
        .await
        .unwrap();
    assert!(
        String::from_utf8(version.stdout)
            .unwrap()
            .contains("2026.9.6")
    );
}

#[tokio::test]
async fn the_token_in_the_file_wins_over_the_environment_and_the_flag_over_both() {
    let (home, port) = (Home::new(Vintage::V2026_9_6), free_port());
    std::fs::write(home.config(), r#"{"gateway":{"auth":{"token":"in-file"}}}"#).unwrap();
    let mut child = home
        .gateway(&home.script(StartScript::default()), port)
        .spawn()
        .unwrap();
    until_line(&mut child, "ready").await;
    Client::connected(port, "in-file").await;
    child.kill().await.unwrap();

    let mut flagged = home.gateway(&home.script(StartScript::default()), port);
    let mut child = flagged.args(["--token", "flag"]).spawn().unwrap();
    until_line(&mut child, "ready").await;
    Client::connected(port, "flag").await;
}

#[tokio::test]
async fn a_taken_port_ends_with_1_and_says_so() {
    for vintage in Vintage::ALL {
        let home = Home::new(vintage);
        let other = FakeGateway::start(FakeGatewayConfig::default())
            .await
            .unwrap();
        let start = StartScript {
            bind_retries: 2,
            ..StartScript::default()
        };
        let (code, stderr) = home.ends(start, other.port()).await;
        assert_eq!(code, Some(1), "{vintage:?}");
        for text in [
            "another gateway instance is already listening on ws://",
            "EADDRINUSE",
            "is already in use.",
        ] {
            assert!(stderr.contains(text), "{vintage:?}: {stderr}");
        }
    }
}

#[tokio::test]
async fn a_port_that_becomes_free_during_the_retries_is_taken() {
    let home = Home::new(Vintage::V2026_9_6);
    let other = FakeGateway::start(FakeGatewayConfig::default())
        .await
        .unwrap();
    let start = StartScript {
        bind_retries: 2_000,
        ..StartScript::default()
    };
    let mut child = home
        .gateway(&home.script(start), other.port())
        .spawn()
        .unwrap();
    // The child holds its lock once it is past the checks, so it is about to bind, or trying.
    let lock = home.dir.path().join("gateway-lifecycle.lock");
    let deadline = Instant::now() + PATIENCE;
    while !lock.exists() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(other);
    until_line(&mut child, "ready").await;
}

#[tokio::test]
async fn a_second_gateway_on_one_state_directory() {
    let new = Home::new(Vintage::V2026_9_6);
    let port = free_port();
    let mut first = new
        .gateway(&new.script(StartScript::default()), port)
        .spawn()
        .unwrap();
    until_line(&mut first, "ready").await;
    let (code, stderr) = new.ends(StartScript::default(), free_port()).await;
    assert_eq!(code, Some(78));
    assert!(
        stderr.contains("another OpenClaw process owns gateway-lifecycle"),
        "{stderr}"
    );
    assert_eq!(
        new.doctor().await.0,
        Some(1),
        "the doctor does not touch a running gateway"
    );

    let old = Home::new(Vintage::V2026_3_2);
    let port = free_port();
    let mut first = old
        .gateway(&old.script(StartScript::default()), port)
        .spawn()
        .unwrap();
    until_line(&mut first, "ready").await;
    let (code, stderr) = old.ends(StartScript::default(), port).await;
    assert_eq!(code, Some(1));
    let pid = first.id().unwrap();
    assert!(
        stderr.contains(&format!(
            "gateway already running (pid {pid}); lock timeout"
        )),
        "{stderr}"
    );
    let mut second = old
        .gateway(&old.script(StartScript::default()), free_port())
        .spawn()
        .unwrap();
    until_line(&mut second, "ready").await;
}

#[cfg_attr(windows, ignore = "Windows has no signals")]
#[tokio::test]
async fn signals_that_differ_between_the_releases() {
    // 2026.3.2: SIGUSR1 restarts in place, SIGUSR2 kills.
    let (home, port) = (Home::new(Vintage::V2026_3_2), free_port());
    let mut child = home
        .gateway(&home.script(StartScript::default()), port)
        .spawn()
        .unwrap();
    until_line(&mut child, "ready").await;
    let (mut client, _) = Client::connected(port, TOKEN).await;
    signal(&child, "USR1");
    assert_eq!(
        client.event("shutdown", PATIENCE).await.unwrap()["payload"]["restartExpectedMs"],
        1500
    );
    client.until_close(PATIENCE).await;
    signal(&child, "USR2");
    assert_eq!(exit_code(&mut child).await, None);

    // 2026.9.6: SIGUSR1 opens the inspector, SIGUSR2 restarts in place.
    let (home, port) = (Home::new(Vintage::V2026_9_6), free_port());
    let mut child = home
        .gateway(&home.script(StartScript::default()), port)
        .spawn()
        .unwrap();
    until_line(&mut child, "ready").await;
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    let (mut client, _) = Client::connected(port, TOKEN).await;
    signal(&child, "USR1");
    let line = timeout(PATIENCE, errors.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(line.contains("Debugger listening"), "{line}");
    signal(&child, "USR2");
    assert_eq!(
        client.event("shutdown", PATIENCE).await.unwrap()["payload"]["restartExpectedMs"],
        1500
    );
}

#[tokio::test]
async fn scripts_make_it_fail_on_purpose() {
    let home = Home::new(Vintage::V2026_9_6);
    let port = free_port();
    let exit = ExitAtStart {
        code: 42,
        stderr: vec!["it hurts".to_owned()],
    };
    let (code, stderr) = home
        .ends(
            StartScript {
                exit_at_start: Some(exit),
                ..StartScript::default()
            },
            port,
        )
        .await;
    assert_eq!((code, stderr.as_str()), (Some(42), "it hurts\n"));

    let crash = StartScript {
        crash_after_ms: Some(20),
        crash_code: 3,
        ..StartScript::default()
    };
    assert_eq!(home.ends(crash.clone(), port).await.0, Some(3));
    let killed = StartScript {
        crash_after_ms: Some(1),
        crash_by_signal: true,
        ..StartScript::default()
    };
    let (code, _) = home.ends(killed, port).await;
    assert!(
        if cfg!(unix) {
            code.is_none()
        } else {
            code.is_some_and(|code| code != 0)
        },
        "{code:?}"
    );

    // Only the first start crashes.
    let script = ChildScript {
        starts_file: Some(home.dir.path().join("starts")),
        first_starts: vec![crash],
        ..home.script(StartScript::default())
    };
    let first = timeout(PATIENCE, home.gateway(&script, port).output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(first.status.code(), Some(3));
    let mut second = home.gateway(&script, port).spawn().unwrap();
    until_line(&mut second, "ready").await;
    Client::connected(port, TOKEN).await;
}

#[cfg_attr(windows, ignore = "Windows has no signals")]
#[tokio::test]
async fn a_child_that_ignores_sigterm_needs_sigkill() {
    let (home, port) = (Home::new(Vintage::V2026_9_6), free_port());
    let start = StartScript {
        ignore_sigterm: true,
        ..StartScript::default()
    };
    let mut child = home.gateway(&home.script(start), port).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = async |text: &str| {
        while let Some(line) = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap() {
            if line.contains(text) {
                return;
            }
        }
        panic!("stdout ended without {text:?}");
    };
    line("ready").await;
    signal(&child, "TERM");
    line("signal ignored").await;
    Client::connected(port, TOKEN).await;
    signal(&child, "KILL");
    assert_eq!(exit_code(&mut child).await, None);
}

#[cfg_attr(windows, ignore = "Windows has no signals")]
#[tokio::test]
async fn a_grandchild_outlives_the_gateway_and_keeps_its_pipes() {
    let (home, port) = (Home::new(Vintage::V2026_9_6), free_port());
    let grandchild = GrandchildScript {
        lifetime_ms: 60_000,
        holds_output: true,
        ..GrandchildScript::default()
    };
    let start = StartScript {
        grandchild: Some(grandchild),
        ..StartScript::default()
    };
    let mut child = home.gateway(&home.script(start), port).spawn().unwrap();
    let mut errors = child.stderr.take().unwrap();
    let line = until_line(&mut child, "grandchild pid").await;
    let pid = line.rsplit(' ').next().unwrap().to_owned();
    signal(&child, "TERM");
    assert_eq!(exit_code(&mut child).await, Some(0));
    let open = timeout(Duration::from_millis(50), errors.read(&mut [0; 64])).await;
    let ended = std::process::Command::new("kill")
        .arg(&pid)
        .status()
        .unwrap();
    assert!(ended.success(), "the grandchild {pid} was still there");
    assert!(
        open.is_err(),
        "stderr stays open as long as the grandchild has it"
    );
}

#[tokio::test]
async fn a_flood_does_not_stop_the_gateway() {
    let (home, port) = (Home::new(Vintage::V2026_9_6), free_port());
    let flood = Flood {
        lines: 20_000,
        line_bytes: 100,
    };
    let start = StartScript {
        stderr_flood: Some(flood),
        ..StartScript::default()
    };
    let mut child = home.gateway(&home.script(start), port).spawn().unwrap();
    until_line(&mut child, "ready").await;
    // Nobody has read stderr yet, so its pipe is full; the gateway serves all the same.
    Client::connected(port, TOKEN).await;
    let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
    for _ in 0..20_000 {
        assert_eq!(
            timeout(PATIENCE, errors.next_line())
                .await
                .unwrap()
                .unwrap()
                .unwrap()
                .len(),
            100
        );
    }
}

#[tokio::test]
async fn without_a_reader_the_new_release_ends_with_0_and_the_old_goes_on() {
    for (vintage, ends) in [(Vintage::V2026_9_6, true), (Vintage::V2026_3_2, false)] {
        let (home, port) = (Home::new(vintage), free_port());
        let mut child = home
            .gateway(&home.script(StartScript::default()), port)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert_ne!(
                timeout(PATIENCE, output.read_line(&mut line))
                    .await
                    .unwrap()
                    .unwrap(),
                0
            );
        }
        drop(output);
        // Connecting is logged, and that is the next line.
        if ends {
            let mut client = Client::open(port, "/", &[]).await.unwrap();
            let _ = client.connect(TOKEN).await;
            assert_eq!(exit_code(&mut child).await, Some(0));
        } else {
            Client::connected(port, TOKEN).await;
            Client::connected(port, TOKEN).await;
        }
    }
}
