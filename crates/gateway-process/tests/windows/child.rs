//! The parts that this test program plays when a test starts it as a child.

use std::io::{Read as _, Write as _};
use std::os::windows::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gateway_process::{
    Environment, LaunchSpec, ManagedChild, OsProcessHost, OutputEvent, OutputStream, ProcessHost,
};

use crate::processes;

/// Names the part.
const PART: &str = "TEST_CHILD_PART";

/// Leaves the test harness's own words behind.
const SAID: &str = "said ";

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// `CREATE_BREAKAWAY_FROM_JOB`: the way out of a job, for a job that allows it.
const BREAK_AWAY: u32 = 0x0100_0000;

/// This program as a child that plays `part`.
pub(crate) fn part(part: &str) -> LaunchSpec {
    let mut environment = Environment::from_parent();
    environment.set(PART, part);
    LaunchSpec::new(std::env::current_exe().unwrap(), environment).args(ARGUMENTS)
}

const ARGUMENTS: [&str; 3] = ["--exact", "child::play", "--nocapture"];

pub(crate) async fn spawn(part_to_play: &str) -> Arc<dyn ManagedChild> {
    OsProcessHost::new()
        .spawn(&part(part_to_play))
        .await
        .unwrap()
}

/// Awaits with patience, so that a hang is a failure.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("this takes far too long")
}

/// What the child says next.
pub(crate) async fn next_said(stream: &mut OutputStream) -> String {
    loop {
        match soon(stream.next()).await {
            Some(OutputEvent::Line(line)) => {
                if let Some(said) = line.text.strip_prefix(SAID) {
                    return said.to_owned();
                }
            }
            other => panic!("no line but {other:?}"),
        }
    }
}

pub(crate) async fn next_pid(stream: &mut OutputStream) -> u32 {
    next_said(stream).await.parse().unwrap()
}

/// Begins a line of its own: the harness does not end the one it is at.
fn say(text: impl std::fmt::Display) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "\n{SAID}{text}").unwrap();
    stdout.flush().unwrap();
}

/// This program in a part, outside of anything that this crate does.
pub(crate) fn command(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(ARGUMENTS)
        .env(PART, part)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn for_ever() -> ! {
    loop {
        std::thread::sleep(PATIENCE);
    }
}

fn in_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work);
}

/// What a child does. Run as a test like the others there is nothing to do.
#[test]
fn play() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    match part.as_str() {
        "wait" => {
            say(std::process::id());
            for_ever();
        }
        // Says three process ids: its own, that of a child, and that of its child.
        "family" => {
            say(std::process::id());
            command("parent").spawn().unwrap();
            for_ever();
        }
        "parent" => {
            say(std::process::id());
            command("wait").spawn().unwrap();
            for_ever();
        }
        // Starts somebody, and ends without waiting for them.
        "crash" => {
            let child = command("quiet").spawn().unwrap();
            say(child.id());
            std::process::exit(70);
        }
        "quiet" => for_ever(),
        // Says whether its child came away, and how it is itself.
        "break away" => {
            match command("quiet").creation_flags(BREAK_AWAY).spawn() {
                Ok(child) => say(child.id()),
                Err(_) => say("refused"),
            }
            for_ever();
        }
        "facts" => {
            say(format!("in a job: {}", processes::in_a_job()));
            say(format!("consoles: {:?}", processes::sharing_my_console()));
            let mut input = String::new();
            let read = std::io::stdin().read_to_string(&mut input);
            say(format!("input: {read:?}"));
            say(format!(
                "folder: {}",
                std::env::current_dir().unwrap().display()
            ));
            for (name, value) in std::env::vars() {
                say(format!("{}={value}", name.to_uppercase()));
            }
            say("end");
        }
        "socket" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            say(listener.local_addr().unwrap());
        }
        "shout" => {
            say("to all");
            eprintln!("oops");
            std::process::exit(78);
        }
        // An owner that has a console, and says who is at the console of its child.
        "console" => {
            processes::have_a_console();
            say(std::process::id());
            in_runtime(async {
                let child = spawn("facts").await;
                let mut output = child.output();
                next_said(&mut output).await;
                say(next_said(&mut output).await);
                child.wait().await;
            });
        }
        // An owner with a family, to be killed.
        "owner" => {
            in_runtime(async {
                let child = spawn("family").await;
                let mut output = child.output();
                for _ in 0..3 {
                    say(next_pid(&mut output).await);
                }
                std::future::pending::<()>().await;
            });
        }
        other => panic!("no such part: {other}"),
    }
}
