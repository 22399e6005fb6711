//! Runs the real binary in a world of its own. Nothing here waits without a limit.
#![allow(
    dead_code,
    reason = "each test program includes all of it and uses its part"
)]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The limit of every single wait. Far beyond what is needed, for machines with other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A home directory, a directory for temporary files, and an empty PATH.
pub(crate) struct World {
    root: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["home", "tmp", "bin"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        Self { root }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a file and the directories above it.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// Puts a program on PATH: a shell script.
    pub(crate) fn install(&self, name: &str, script: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.path("home"))
            .env("TMPDIR", self.path("tmp"))
            .env("PATH", self.path("bin"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn start<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Run {
        Run::start(self.command(args))
    }

    /// Runs to the end.
    pub(crate) fn finish<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Finished {
        self.start(args).finish()
    }

    /// Every process that was started in this world, told by its environment. Where the system does not show environments: none.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let mark = format!("TMPDIR={}", self.path("tmp").display());
        let Ok(entries) = fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let pid = path.file_name()?.to_str()?.parse().ok()?;
                let environment = fs::read(path.join("environ")).ok()?;
                environment
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == mark.as_bytes())
                    .then(|| (pid, command_line(pid)))
            })
            .collect()
    }

    pub(crate) fn assert_nothing_is_left(&self) {
        assert_eq!(self.processes(), [], "processes are left");
        let temporary: Vec<_> = fs::read_dir(self.path("tmp")).unwrap().collect();
        assert!(temporary.is_empty(), "files are left: {temporary:?}");
    }
}

pub(crate) fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn pid_of(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

pub(crate) fn send(pid: u32, signal: Signal) {
    kill_process(pid_of(pid), signal).unwrap();
}

pub(crate) fn is_alive(pid: u32) -> bool {
    test_kill_process(pid_of(pid)).is_ok()
}

/// The binary at work.
pub(crate) struct Run {
    child: Child,
    lines: Option<Receiver<String>>,
    seen: Vec<String>,
    stderr: Option<JoinHandle<String>>,
}

impl Run {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let (sender, lines) = sync_channel(4096);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self {
            child,
            lines: Some(lines),
            seen: Vec::new(),
            stderr: Some(stderr),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// The next line that the predicate accepts.
    pub(crate) fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.as_ref().unwrap().recv_timeout(left) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return line;
                    }
                }
                Err(error) => panic!(
                    "the line did not come ({error}); what came:\n{}",
                    self.seen.join("\n")
                ),
            }
        }
    }

    /// The next JSON event of that name.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        let line = self.line(|line| parse(line)["event"] == name);
        parse(&line)
    }

    /// Nobody reads its output any more, as after `| head -1`. The next line that is written finds that out.
    pub(crate) fn stop_reading(&mut self) {
        self.lines = None;
    }

    pub(crate) fn finish(mut self) -> Finished {
        let status = self.wait();
        if let Some(lines) = &self.lines {
            self.seen.extend(lines.iter());
        }
        Finished {
            status,
            stdout: std::mem::take(&mut self.seen),
            stderr: self.stderr.take().unwrap().join().unwrap(),
        }
    }

    pub(crate) fn interrupt_and_finish(self) -> Finished {
        self.signal(Signal::INT);
        self.finish()
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "it did not end; what came:\n{}",
                self.seen.join("\n")
            );
            // There is no wait with a deadline in the standard library.
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // A failed test must not leave a gateway behind, and only an orderly stop or a second signal takes it along.
        for _ in 0..2 {
            if matches!(self.child.try_wait(), Ok(None)) {
                let _ = kill_process(pid_of(self.child.id()), Signal::TERM);
                let deadline = Instant::now() + Duration::from_secs(3);
                while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<String>,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    #[track_caller]
    pub(crate) fn assert_code(&self, code: i32) -> &Self {
        assert_eq!(self.code(), code, "{self:#?}");
        self
    }

    /// It failed with this code, and its message names all of these.
    #[track_caller]
    pub(crate) fn assert_error(&self, code: i32, texts: &[&str]) {
        self.assert_code(code);
        for text in texts {
            assert!(
                self.stderr.contains(text),
                "{text:?} is missing in: {self:#?}"
            );
        }
    }

    /// Every line of standard output as JSON.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.stdout.iter().map(|line| parse(line)).collect()
    }
}

pub(crate) fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

pub(crate) fn number(event: &Value, field: &str) -> u32 {
    u32::try_from(
        event[field]
            .as_u64()
            .unwrap_or_else(|| panic!("{field} is no number in {event}")),
    )
    .unwrap()
}

pub(crate) fn as_str(path: &Path) -> &str {
    path.to_str().unwrap()
}
