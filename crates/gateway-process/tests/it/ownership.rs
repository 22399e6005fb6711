//! Owners that are killed, and what becomes of their children. The owner is this very test program, started once more.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gateway_process::ownership::{ClaimStore, LAUNCH_SIGN};
use gateway_process::{
    Claim, ClaimError, LaunchSpec, OsProcessHost, OwnerDeath, ProcessHost, SpawnError, Termination,
    TerminationReason,
};

use crate::support::{eventually, executable, is_alive, next_line, script, soon, survivors};

/// Tells the test program to be an owner: where its claim is, and what it starts.
const OWNER_CLAIM: &str = "TEST_OWNER_CLAIM";
const OWNER_SCRIPT: &str = "TEST_OWNER_SCRIPT";
const OWNER_LEAVES: &str = "TEST_OWNER_LEAVES";
const OWNER_PORT: &str = "TEST_OWNER_PORT";

fn launch(text: &str, leaves: bool) -> LaunchSpec {
    script(text).owner_death(if leaves {
        OwnerDeath::ChildSurvives
    } else {
        OwnerDeath::EndsChild
    })
}

/// The owner: starts its child, repeats what it prints, and waits to be killed.
#[tokio::test]
async fn owner() {
    let (Ok(place), Ok(text)) = (std::env::var(OWNER_CLAIM), std::env::var(OWNER_SCRIPT)) else {
        // Run as a test like the others: then there is nothing to do.
        return;
    };
    let host = OsProcessHost::new();
    let claim = host.claim(Path::new(&place)).await.unwrap();
    let mut spec = launch(&text, std::env::var_os(OWNER_LEAVES).is_some()).claimed(claim);
    spec.port = std::env::var(OWNER_PORT)
        .ok()
        .map(|port| port.parse().unwrap());
    let child = host.spawn(&spec).await.unwrap();
    println!("\nchild {}", child.pid());
    let mut output = child.output();
    loop {
        println!("\nsaid {}", next_line(&mut output).await);
    }
}

struct Owner {
    process: Child,
    child: u32,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Owner {
    fn start(claim: &Path, text: &str, leaves: bool) -> Self {
        Self::start_serving(claim, text, leaves, None)
    }

    fn start_serving(claim: &Path, text: &str, leaves: bool, port: Option<u16>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "ownership::owner", "--nocapture"])
            .env(OWNER_CLAIM, claim)
            .env(OWNER_SCRIPT, text)
            .env_remove(OWNER_LEAVES)
            .stdout(Stdio::piped());
        if leaves {
            command.env(OWNER_LEAVES, "1");
        }
        if let Some(port) = port {
            command.env(OWNER_PORT, port.to_string());
        }
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut owner = Self {
            process,
            child: 0,
            lines,
        };
        owner.child = owner.next("child ").parse().unwrap();
        owner
    }

    fn next(&mut self, prefix: &str) -> String {
        loop {
            let line = self.lines.next().expect("the owner lives").unwrap();
            if let Some(rest) = line.strip_prefix(prefix) {
                return rest.to_owned();
            }
        }
    }

    fn said(&mut self) -> String {
        self.next("said ")
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Only when a test fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn a_child_dies_with_its_owner_and_the_next_owner_finds_what_it_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("instance");
    let text = "trap '' TERM HUP; setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' & while :; do sleep 0.05; done";
    let mut owner = Owner::start(&place, text, false);
    let daemon: u32 = owner.said().parse().unwrap();
    let child = owner.child;

    let host = OsProcessHost::new();
    let refused = host.claim(&place).await.unwrap_err();
    assert!(
        matches!(&refused, ClaimError::Held { holder, .. } if *holder == Some(owner.process.id())),
        "{refused}"
    );

    owner.kill();
    eventually("the end of the child", || !is_alive(child));
    assert!(is_alive(daemon), "nothing ties it to its owner");

    let claim = host.claim(&place).await.unwrap();
    assert!(claim.record().unwrap().is_some());
    assert!(soon(host.survivor(&claim)).await.unwrap().is_none());
    eventually("the end of the daemon", || !is_alive(daemon));
    assert_eq!(claim.record().unwrap(), None);
}

#[tokio::test]
async fn a_child_that_is_to_survive_is_taken_over_with_its_output() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("instance");
    let text = "trap 'echo asked; exit 5' TERM; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.02; done";
    let mut owner = Owner::start(&place, text, true);
    assert_eq!(owner.said(), "line 1");
    let pid = owner.child;
    owner.kill();

    let host = OsProcessHost::new();
    let claim = host.claim(&place).await.unwrap();
    let survivor = soon(host.survivor(&claim))
        .await
        .unwrap()
        .expect("it lives");
    assert_eq!(survivor.child.pid(), pid);
    assert_eq!(survivor.fingerprint, launch(text, true).fingerprint());
    assert_ne!(survivor.fingerprint, launch("other", true).fingerprint());
    assert!(survivor.child.sample().is_some());

    // What it has printed lately, and what it prints from now on.
    let mut output = survivor.child.output();
    assert_eq!(next_line(&mut output).await, "line 1");
    let number = |line: String| -> u64 { line.strip_prefix("line ").unwrap().parse().unwrap() };
    let mut newest = 1;
    while newest < 40 {
        let next = number(next_line(&mut output).await);
        assert_eq!(next, newest + 1, "no line is lost");
        newest = next;
    }
    let request = Termination::new(TerminationReason::UserStop);
    let exit = soon(survivor.child.terminate(request)).await.unwrap();
    assert!(!is_alive(pid));
    assert_eq!((exit.pid, exit.code, exit.signal), (pid, None, None));
    assert!(exit.reason.is_requested());
    let mut last = String::new();
    while let Some(gateway_process::OutputEvent::Line(line)) = soon(output.next()).await {
        last = line.text.to_string();
    }
    assert_eq!(last, "asked");
    assert_eq!(claim.record().unwrap(), None);
}

/// The handle of a survivor is as good as that of a child.
#[tokio::test]
async fn a_survivor_that_is_dropped_or_forced_takes_everything_along() {
    for force in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("instance");
        let text = "trap '' TERM; setsid sh -c 'echo $$; exec sleep 1000' & sleep 1000 & echo $!; while :; do sleep 0.05; done";
        let mut owner = Owner::start(&place, text, true);
        let mut all: Vec<u32> = vec![owner.child];
        all.extend([owner.said(), owner.said()].map(|line| line.parse::<u32>().unwrap()));
        owner.kill();
        assert!(all.iter().all(|pid| is_alive(*pid)));
        let host = OsProcessHost::new();
        let claim = host.claim(&place).await.unwrap();
        let survivor = soon(host.survivor(&claim))
            .await
            .unwrap()
            .expect("it lives");
        if force {
            let request = Termination::force(TerminationReason::Restart);
            let exit = soon(survivor.child.terminate(request)).await.unwrap();
            assert!(exit.reason.is_requested(), "{exit}");
        } else {
            drop(survivor);
        }
        eventually("the end of all", || all.iter().all(|pid| !is_alive(*pid)));
    }
}

/// The number of a recorded process belongs to somebody else, or to nobody who shows our sign: neither is touched.
#[tokio::test]
async fn what_cannot_be_proved_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("instance");
    let host = OsProcessHost::new();
    let claim = host.claim(&place).await.unwrap();
    // A launch of ours, so that the record is a real one.
    let child = host
        .spawn(&script("exec sleep 1000").claimed(claim.clone()))
        .await
        .unwrap();
    let record = serde_json::to_value(claim.record().unwrap().unwrap()).unwrap();
    soon(child.terminate(Termination::force(TerminationReason::UserStop)))
        .await
        .unwrap();
    assert_eq!(claim.record().unwrap(), None);

    let mut stranger = Command::new("sleep")
        .arg("1000")
        .env(LAUNCH_SIGN, "somebody else's")
        .spawn()
        .unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", stranger.id())).unwrap();
    let started: u64 = stat
        .rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .nth(19)
        .unwrap()
        .parse()
        .unwrap();
    let write = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut record = record.clone();
        record["leader"]["pid"] = stranger.id().into();
        change(&mut record);
        std::fs::write(place.join("launch.json"), record.to_string()).unwrap();
    };
    type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
    let changes: [(&str, Change<'_>); 3] = [
        ("the number was given again", &|_| {}),
        ("no sign", &|record| {
            record["leader"]["started"] = started.into()
        }),
        ("another run of the machine", &|record| {
            record["leader"]["started"] = started.into();
            record["boot"] = "another".into();
        }),
    ];
    for (what, change) in changes {
        write(change);
        assert!(
            soon(host.survivor(&claim)).await.unwrap().is_none(),
            "{what}"
        );
        assert!(is_alive(stranger.id()), "{what}");
    }
    // A record that cannot be read says nothing about anybody, and is kept.
    std::fs::write(place.join("launch.json"), "{").unwrap();
    assert!(matches!(
        host.survivor(&claim).await,
        Err(ClaimError::Record { .. })
    ));
    assert_eq!(std::fs::read(place.join("launch.json")).unwrap(), b"{");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

/// A launcher that starts the real server and dies with its owner: the server carries the sign of the launch and holds the port.
#[tokio::test]
async fn the_server_behind_a_launcher_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("instance");
    let port = gateway_process::ports::reserve_free_port().unwrap();
    let server = executable(
        &folder.path().join("server"),
        &format!("echo $$; exec python3 -m http.server --bind 127.0.0.1 {port}"),
    );
    let text = format!("setsid {} & wait", server.display());
    let mut owner = Owner::start_serving(&place, &text, true, Some(port));
    let served: u32 = owner.said().parse().unwrap();
    let launcher = owner.child;
    eventually("a server", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    owner.kill();
    let raw = rustix::process::Pid::from_raw(i32::try_from(launcher).unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    eventually("the end of the launcher", || !is_alive(launcher));
    assert!(is_alive(served));

    let host = OsProcessHost::new();
    let claim = host.claim(&place).await.unwrap();
    let survivor = soon(host.survivor(&claim))
        .await
        .unwrap()
        .expect("it serves");
    assert_eq!(survivor.child.pid(), served);
    soon(
        survivor
            .child
            .terminate(Termination::new(TerminationReason::UserStop)),
    )
    .await
    .unwrap();
    assert_eq!(survivors([served]), Vec::<u32>::new());
}

/// Notes everything that is written down.
#[derive(Default)]
struct Notes(std::sync::Mutex<Vec<serde_json::Value>>);

struct NotingStore(std::sync::Arc<Notes>);

impl ClaimStore for NotingStore {
    fn directory(&self) -> &Path {
        Path::new("/nowhere")
    }

    fn read(&self, _name: &str) -> std::io::Result<Option<Vec<u8>>> {
        let notes = self.0.0.lock().unwrap();
        Ok(notes.last().map(|note| note.to_string().into_bytes()))
    }

    fn write(&self, _name: &str, content: &[u8]) -> std::io::Result<()> {
        let note = serde_json::from_slice(content).unwrap();
        self.0.0.lock().unwrap().push(note);
        Ok(())
    }

    fn remove(&self, _name: &str) -> std::io::Result<()> {
        self.0.0.lock().unwrap().push(serde_json::Value::Null);
        Ok(())
    }
}

/// First what will be looked for, then who it is, and at the end nothing: whenever the owner dies, the next one can find the child.
#[tokio::test]
async fn a_launch_is_written_down_before_there_is_anything_to_lose() {
    let notes = std::sync::Arc::new(Notes::default());
    let claim = Claim::from_store(NotingStore(notes.clone()));
    let spec = script("env; exec sleep 1000").claimed(claim);
    let child = OsProcessHost::new().spawn(&spec).await.unwrap();
    let mut output = child.output();
    let sign = loop {
        let line = next_line(&mut output).await;
        if let Some(sign) = line.strip_prefix(LAUNCH_SIGN) {
            break sign[1..].to_owned();
        }
    };
    soon(child.terminate(Termination::force(TerminationReason::UserStop)))
        .await
        .unwrap();
    let notes = notes.0.lock().unwrap();
    let [before, after, gone] = notes.as_slice() else {
        panic!("{notes:?}");
    };
    assert!(before["leader"].is_null(), "{before}");
    assert_eq!(before["sign"], sign);
    assert_eq!(after["leader"]["pid"], child.pid());
    assert_eq!(after["sign"], sign);
    assert!(gone.is_null());
}

#[tokio::test]
async fn a_launch_that_cannot_be_found_again_is_not_begun() {
    let host = OsProcessHost::new();
    let error = host
        .spawn(&launch("exit 0", true))
        .await
        .err()
        .expect("no claim");
    assert!(matches!(error, SpawnError::CannotSurvive { .. }), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("instance");
    let claim: Claim = host.claim(&place).await.unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    let marker = folder.path().join("ran");
    let text = format!("touch {}", marker.display());
    let error = host
        .spawn(&script(&text).claimed(claim))
        .await
        .err()
        .expect("no record");
    assert!(matches!(error, SpawnError::NotRecorded { .. }), "{error}");
    assert!(!marker.exists());
}
