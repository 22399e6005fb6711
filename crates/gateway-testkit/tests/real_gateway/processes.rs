//! Questions to the operating system: who descends from whom, who is still there, what waits to be read.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often a condition is looked at that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One process, told from a later one with the same number by its start time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    command: String,
    parent: u32,
    started: u64,
    zombie: bool,
}

impl Process {
    /// Reads `/proc/<pid>/stat`; the command, in parentheses, may hold anything.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.split_once('(')?;
        let (command, rest) = rest.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            command: command.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            zombie: matches!(*fields.first()?, "Z" | "X"),
        })
    }

    /// Whether it is still there. A zombie counts only when it is ours to collect.
    pub(crate) fn is_there(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| {
            now.started == self.started && (!now.zombie || now.parent == std::process::id())
        })
    }
}

/// Everything that descends from `root`, without it. A descendant in a session of its own is one all the same.
pub(crate) fn descendants(root: u32) -> Vec<Process> {
    let all: Vec<Process> = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(Process::read)
        .collect();
    let mut family = BTreeSet::from([root]);
    loop {
        let before = family.len();
        family.extend(
            all.iter()
                .filter(|process| family.contains(&process.parent))
                .map(|process| process.pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == before {
            break;
        }
    }
    all.into_iter()
        .filter(|process| process.pid != root && family.contains(&process.pid))
        .collect()
}

/// A process and everything that descends from it.
pub(crate) fn tree(root: u32) -> Vec<Process> {
    let mut tree = descendants(root);
    tree.extend(Process::read(root));
    tree
}

/// Waits until a condition holds; panics with `what` when it does not in time.
pub(crate) async fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "{what}: not within {} s",
            limit.as_secs()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until none of these processes is left. Helpers of a gateway may end by themselves a moment after it.
pub(crate) async fn gone(processes: &[Process]) {
    const HELPERS_END_WITHIN: Duration = Duration::from_secs(1);
    let left = || processes.iter().filter(|process| process.is_there());
    until(
        &format!("the end of all of {processes:?}"),
        HELPERS_END_WITHIN,
        || left().count() == 0,
    )
    .await;
}

/// Waits until this process has no descendants: no gateway, no doctor, no helper.
pub(crate) async fn nothing_runs() {
    gone(&descendants(std::process::id())).await;
    let left = descendants(std::process::id());
    assert!(left.is_empty(), "{left:?}");
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(raw.expect("a process id"), signal).expect("a process of ours");
}

/// How many bytes wait to be read by the owner of `port`, in all its open connections.
pub(crate) fn unread(port: u16) -> u64 {
    const ESTABLISHED: &str = "01";
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .skip(1)
                .filter_map(|line| {
                    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
                    let (_, local) = fields.get(1)?.rsplit_once(':')?;
                    let (_, waiting) = fields.get(4)?.split_once(':')?;
                    let ours = u16::from_str_radix(local, 16) == Ok(port)
                        && fields.get(3) == Some(&ESTABLISHED);
                    ours.then(|| u64::from_str_radix(waiting, 16).ok())
                        .flatten()
                })
                .collect::<Vec<_>>()
        })
        .sum()
}
