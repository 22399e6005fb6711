//! Scripts as children, and questions to the operating system about them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gateway_process::{
    Environment, LaunchSpec, ManagedChild, OsProcessHost, OutputEvent, OutputStream, ProcessHost,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::time::timeout;

/// No test waits longer than this for anything. It is far beyond what a loaded machine needs, and no test waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A shell script as a child.
pub(crate) fn script(text: &str) -> LaunchSpec {
    LaunchSpec::new("sh", Environment::from_parent()).args(["-c", text])
}

pub(crate) async fn spawn(text: &str) -> Arc<dyn ManagedChild> {
    OsProcessHost::new().spawn(&script(text)).await.unwrap()
}

/// Awaits with patience, so that a hang is a failure.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .expect("this takes far too long")
}

/// The text of the next line, whichever pipe it comes from.
pub(crate) async fn next_line(stream: &mut OutputStream) -> String {
    match soon(stream.next()).await {
        Some(OutputEvent::Line(line)) => line.text.to_string(),
        other => panic!("no line but {other:?}"),
    }
}

/// The next line as a process id.
pub(crate) async fn next_pid(stream: &mut OutputStream) -> u32 {
    next_line(stream).await.parse().unwrap()
}

/// Whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let raw = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    if test_kill_process(raw).is_err() {
        return false;
    }
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        // Without /proc a zombie cannot be told from a living process here; gone in between on Linux.
        Err(_) => !Path::new("/proc/self").exists(),
    }
}

/// Which of these descendants of a test are alive. They are not afterwards, so that a test that fails leaves none behind.
pub(crate) fn survivors(pids: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let alive: Vec<u32> = pids.into_iter().filter(|pid| is_alive(*pid)).collect();
    for pid in &alive {
        let raw = Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        // It may have gone in this moment.
        let _ = kill_process(raw, Signal::KILL);
    }
    alive
}

/// Waits, blocking, until a condition holds that the kernel brings about by itself.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    const WITHIN: Duration = Duration::from_secs(15);
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < WITHIN, "{what} never came true");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Writes an executable script.
pub(crate) fn executable(path: &Path, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    // A process forked by another test at the wrong moment would still hold a freshly written file open for writing, and the
    // kernel would refuse to run it; a file that appears under its name complete has no writer.
    let draft = path.with_extension("draft");
    std::fs::write(&draft, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
    let status = std::process::Command::new("cp")
        .arg("-p")
        .arg(&draft)
        .arg(path)
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::remove_file(&draft).unwrap();
    path.to_owned()
}
