//! Runs one command to its end: output collected line by line, a time limit that ends the whole process group, and a
//! look at what was left running.

use std::io::{self, BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::interrupt::Interrupt;
use crate::leftovers::{self, Leftover};

/// How often the loop looks at the child, the time limit and the interrupt.
const POLL: Duration = Duration::from_millis(50);
/// Between asking a group to end and forcing it.
const ASK_FOR: Duration = Duration::from_secs(4);
/// How long the output may stay open after the leader has ended. Then somebody else holds it.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// How long processes that the command started may take to follow it.
const LEFTOVERS_WITHIN: Duration = Duration::from_secs(2);

/// Where a line of output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Stdout,
    Stderr,
}

/// What the caller hears while the command runs.
#[derive(Debug)]
pub(crate) enum Notice<'a> {
    /// A line of output, without its line end.
    Line(Source, &'a str),
    /// Some time has passed.
    Tick,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// By itself.
    Exited(ExitStatus),
    /// It was ended because its time was up.
    TimedOut(Duration),
    /// It was ended because this program was asked to stop.
    Interrupted,
}

/// What is known about a command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) ending: Ending,
    /// Both streams, in the order in which the lines arrived.
    pub(crate) output: String,
    /// What it left running; ended by now.
    pub(crate) leftovers: Vec<Leftover>,
}

impl Finished {
    /// Why the command failed; `None` when it ended by itself with success and left nothing behind.
    pub(crate) fn failure(&self) -> Option<String> {
        match &self.ending {
            Ending::TimedOut(limit) => Some(format!(
                "ended after its time limit of {} s",
                limit.as_secs()
            )),
            Ending::Interrupted => Some("interrupted".to_owned()),
            Ending::Exited(status) if !status.success() => Some(status.to_string()),
            Ending::Exited(_) if !self.leftovers.is_empty() => {
                let names: Vec<String> = self.leftovers.iter().map(ToString::to_string).collect();
                Some(format!("left running (ended now): {}", names.join(", ")))
            }
            Ending::Exited(_) => None,
        }
    }
}

/// Runs `command` with nothing on its input until it ends, its `limit` is over, or `interrupt` is raised.
///
/// # Errors
/// When the program cannot be started or waited for.
pub(crate) fn run(
    mut command: Command,
    limit: Duration,
    interrupt: &Interrupt,
    notify: impl FnMut(Notice<'_>),
) -> io::Result<Finished> {
    let mark = leftovers::new_mark();
    command
        .env(leftovers::MARK_VARIABLE, &mark)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);

    let mut child = command.spawn()?;
    let mut output = Output {
        lines: read_lines(&mut child),
        open: true,
        text: String::new(),
        notify,
    };
    let deadline = Instant::now() + limit;
    let ending = loop {
        if interrupt.requested() {
            break Ending::Interrupted;
        }
        if Instant::now() >= deadline {
            break Ending::TimedOut(limit);
        }
        if output.take_one(POLL) {
            continue;
        }
        if let Some(status) = child.try_wait()? {
            break Ending::Exited(status);
        }
    };
    if matches!(ending, Ending::Exited(_)) {
        output.drain(DRAIN_WITHIN);
    } else {
        end(&mut child, &mut output)?;
    }
    let left = wait_for_leftovers(&mark, matches!(ending, Ending::Exited(_)));
    leftovers::kill(&left);
    // Whoever held the output open is gone now, unless it shed its mark; then its lines are not waited for.
    output.drain(Duration::from_secs(1));
    Ok(Finished {
        ending,
        output: output.text,
        leftovers: left,
    })
}

/// The two output streams of a child, merged.
struct Output<F> {
    lines: Receiver<(Source, String)>,
    open: bool,
    text: String,
    notify: F,
}

impl<F: FnMut(Notice<'_>)> Output<F> {
    /// Waits up to `timeout` for a line. False when none came.
    fn take_one(&mut self, timeout: Duration) -> bool {
        if !self.open {
            pause(timeout);
            (self.notify)(Notice::Tick);
            return false;
        }
        match self.lines.recv_timeout(timeout) {
            Ok((source, line)) => {
                self.text.push_str(&line);
                self.text.push('\n');
                (self.notify)(Notice::Line(source, &line));
                true
            }
            Err(RecvTimeoutError::Timeout) => {
                (self.notify)(Notice::Tick);
                false
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.open = false;
                false
            }
        }
    }

    /// Takes lines until both streams are closed, at most `within`.
    fn drain(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        while self.open && Instant::now() < deadline {
            self.take_one(POLL);
        }
    }
}

/// One thread per stream, because either pipe may fill while the other is silent. The channel is bounded: a command
/// that writes faster than this program reads is slowed, not buffered.
fn read_lines(child: &mut Child) -> Receiver<(Source, String)> {
    let (sender, lines) = sync_channel(1024);
    if let Some(stdout) = child.stdout.take() {
        forward(Source::Stdout, stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        forward(Source::Stderr, stderr, sender);
    }
    lines
}

fn forward(
    source: Source,
    stream: impl Read + Send + 'static,
    lines: SyncSender<(Source, String)>,
) {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(stream.read_until(b'\n', &mut bytes), Ok(1..)) {
            let line = String::from_utf8_lossy(&bytes);
            if lines
                .send((source, line.trim_end_matches(['\n', '\r']).to_owned()))
                .is_err()
            {
                return;
            }
            bytes.clear();
        }
    });
}

/// Ask, wait, force, reap. The output is read meanwhile, so that the child can say its last words.
fn end(child: &mut Child, output: &mut Output<impl FnMut(Notice<'_>)>) -> io::Result<()> {
    signal_group(child, Strength::Ask);
    let deadline = Instant::now() + ASK_FOR;
    while child.try_wait()?.is_none() && Instant::now() < deadline {
        output.take_one(POLL);
    }
    signal_group(child, Strength::Force);
    child.wait()?;
    Ok(())
}

#[derive(Clone, Copy)]
enum Strength {
    Ask,
    Force,
}

#[cfg(unix)]
fn signal_group(child: &mut Child, strength: Strength) {
    use rustix::process::{Pid, Signal, kill_process_group};

    // Asking comes before the leader is reaped; forcing may find the group empty, which is the wish.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let signal = match strength {
            Strength::Ask => Signal::TERM,
            Strength::Force => Signal::KILL,
        };
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(not(unix))]
fn signal_group(child: &mut Child, strength: Strength) {
    if let Strength::Force = strength {
        let _ = child.kill();
    }
}

/// What carries `mark` after the command has ended. With `patience` a process that is just ending is not reported.
fn wait_for_leftovers(mark: &str, patience: bool) -> Vec<Leftover> {
    let deadline = Instant::now() + LEFTOVERS_WITHIN;
    loop {
        let left = leftovers::find(mark);
        if left.is_empty() || !patience || Instant::now() >= deadline {
            return left;
        }
        pause(POLL);
    }
}

/// Lets some time pass between two looks at a condition. There is no async runtime here that this could hold up.
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const PLENTY: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_of_both_streams_is_collected_and_announced() {
        let mut lines = Vec::new();
        let finished = run(
            shell("echo out; echo err >&2; printf last"),
            PLENTY,
            &Interrupt::default(),
            |notice| {
                if let Notice::Line(source, line) = notice {
                    lines.push((source, line.to_owned()));
                }
            },
        )
        .unwrap();
        assert_eq!(finished.failure(), None);
        lines.sort_by_key(|(_, line)| line.clone());
        let expected = [
            (Source::Stderr, "err"),
            (Source::Stdout, "last"),
            (Source::Stdout, "out"),
        ];
        assert_eq!(
            lines,
            expected.map(|(source, line)| (source, line.to_owned()))
        );
        assert_eq!(finished.output.lines().count(), 3);
    }

    #[test]
    fn an_exit_code_other_than_zero_is_a_failure() {
        let finished = run(shell("exit 3"), PLENTY, &Interrupt::default(), |_| {}).unwrap();
        assert!(finished.failure().unwrap().contains('3'));
    }

    #[test]
    fn the_time_limit_ends_the_group_even_when_it_ignores_the_request() {
        let script = "trap '' TERM; sh -c \"trap '' TERM; while :; do sleep 1; done\" & while :; do sleep 1; done";
        let started = Instant::now();
        let finished = run(
            shell(script),
            Duration::from_millis(200),
            &Interrupt::default(),
            |_| {},
        )
        .unwrap();
        assert!(
            matches!(finished.ending, Ending::TimedOut(_)),
            "{finished:?}"
        );
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{:?}",
            started.elapsed()
        );
    }

    #[test]
    fn an_interrupt_ends_the_command() {
        let interrupt = Interrupt::default();
        let raised = interrupt.clone();
        let finished = run(
            shell("echo up; while :; do sleep 1; done"),
            PLENTY,
            &interrupt,
            |notice| {
                if let Notice::Line(_, "up") = notice {
                    raised.raise();
                }
            },
        )
        .unwrap();
        assert_eq!(finished.failure().as_deref(), Some("interrupted"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_left_behind_in_a_group_of_its_own_is_found_and_ended() {
        // `setsid` leaves the group and the session; only the mark in its environment still tells whose it is.
        let finished = run(
            shell("setsid sleep 300 >/dev/null 2>&1 & sleep 0.2; exit 0"),
            PLENTY,
            &Interrupt::default(),
            |_| {},
        )
        .unwrap();
        let failure = finished
            .failure()
            .expect("the sleeping process was not noticed");
        assert!(failure.contains("sleep 300"), "{failure}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_holds_the_output_open_does_not_hang_the_run() {
        let started = Instant::now();
        let finished = run(
            shell("setsid sleep 300 & echo done"),
            PLENTY,
            &Interrupt::default(),
            |_| {},
        )
        .unwrap();
        assert_eq!(finished.output, "done\n");
        assert_eq!(finished.leftovers.len(), 1, "{finished:?}");
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{:?}",
            started.elapsed()
        );
    }

    #[test]
    fn a_program_that_does_not_exist_is_an_error() {
        let error = run(
            Command::new("no-such-program-here"),
            PLENTY,
            &Interrupt::default(),
            |_| {},
        )
        .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
