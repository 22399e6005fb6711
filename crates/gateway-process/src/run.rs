//! Running a program to its end under a deadline, with the same ending rules as a gateway.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::timeout;

use crate::env::Environment;
use crate::exit::{ChildExit, TerminationReason};
use crate::host::ProcessHost;
use crate::output::{OutputEvent, OutputLine, OutputSource};
use crate::spec::{LaunchSpec, SpawnError};
use crate::terminate::{TerminateError, Termination};

/// How many of the last lines of output a report keeps, both pipes together.
pub const REPORT_LINES: usize = 120;

/// How long a program whose time is over may take to end by itself, but never longer than the time it had.
const ASK_FOR: Duration = Duration::from_secs(5);

/// How long a program may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLimits {
    /// From its start to its end.
    pub overall: Duration,
    /// Without a line of output. `None` for a program that may be silent all the time; that is the default of a plain [`Duration`].
    pub silence: Option<Duration>,
}

impl From<Duration> for RunLimits {
    fn from(overall: Duration) -> Self {
        Self {
            overall,
            silence: None,
        }
    }
}

/// What a finished program left to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// How it ended.
    pub exit: ChildExit,
    /// The last [`REPORT_LINES`] lines of both pipes, in the order of arrival.
    pub output: Vec<OutputLine>,
    /// Earlier lines that were dropped.
    pub dropped_lines: u64,
}

impl RunReport {
    /// `true` for exit code 0, the only success there is.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit.code == Some(0)
    }

    /// The text of the lines that came from `source`.
    pub fn lines(&self, source: OutputSource) -> impl Iterator<Item = &str> {
        self.output
            .iter()
            .filter(move |line| line.stream == source)
            .map(|line| &*line.text)
    }
}

impl RunReport {
    /// For where the output goes into messages and is not read by a program.
    pub(crate) fn without_secrets_of(mut self, environment: &Environment) -> Self {
        let redactor = environment.redactor();
        for line in &mut self.output {
            line.text = redactor.clean(&line.text).into();
        }
        self
    }
}

/// A program could not be run to its end.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It never started.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// It did not finish in time; it is gone now.
    #[error("`{command}` did not finish within {deadline:?} and was ended: {}; its last line was {:?}; run it by hand to see what it waits for", .report.exit, .report.output.last().map_or("", |line| &*line.text))]
    TimedOut {
        /// The command line, redacted.
        command: String,
        /// The time it had.
        deadline: Duration,
        /// What it had printed by then, without the secrets of its environment: an error ends up in logs.
        report: Box<RunReport>,
    },
    /// It printed nothing for too long; it is gone now.
    #[error("`{command}` printed nothing for {silence:?} and was ended: {}; its last line was {:?}; run it by hand to see what it waits for", .report.exit, .report.output.last().map_or("", |line| &*line.text))]
    Silent {
        /// The command line, redacted.
        command: String,
        /// How long it may be silent.
        silence: Duration,
        /// What it had printed by then, without the secrets of its environment.
        report: Box<RunReport>,
    },
    /// It did not finish in time, and could not be ended either.
    #[error("`{command}` did not finish within {deadline:?} and could not be ended: {source}")]
    NotEnded {
        /// The command line, redacted.
        command: String,
        /// The time it had.
        deadline: Duration,
        /// Why it is still there.
        source: TerminateError,
    },
}

/// Runs `spec` on `host`: the body of [`ProcessHost::run`], usable by every implementation of the trait.
///
/// # Errors
/// As [`ProcessHost::run`].
pub async fn run_to_end<H: ProcessHost + ?Sized>(
    host: &H,
    spec: &LaunchSpec,
    limits: RunLimits,
) -> Result<RunReport, RunError> {
    let child = host.spawn(spec).await?;
    let mut stream = child.output();
    let mut tail = Tail::default();
    let finished = timeout(limits.overall, async {
        loop {
            let silence = limits.silence.unwrap_or(Duration::MAX);
            match timeout(silence, stream.next()).await {
                Ok(Some(event)) => tail.push(event),
                // Both pipes are closed; a program that goes on all the same is waited for without hearing from it.
                Ok(None) => return timeout(silence, child.wait()).await,
                Err(silent) => return Err(silent),
            }
        }
    })
    .await;
    if let Ok(Ok(exit)) = finished {
        return Ok(tail.report(exit));
    }
    // Whatever was waited for longer than the program may be silent: that limit has passed, and the other one has not.
    let silence = limits.silence.filter(|_| finished.is_ok());
    let deadline = silence.unwrap_or(limits.overall);
    let request =
        Termination::new(TerminationReason::DeadlineExceeded).ask_for(ASK_FOR.min(deadline));
    let ended = child.terminate(request).await;
    let command = spec.to_string();
    match ended {
        Ok(exit) => {
            // The pipes are closed by now, so this reads what is left and ends.
            while let Some(event) = stream.next().await {
                tail.push(event);
            }
            let report = Box::new(tail.report(exit).without_secrets_of(&spec.env));
            Err(match silence {
                Some(silence) => RunError::Silent {
                    command,
                    silence,
                    report,
                },
                None => RunError::TimedOut {
                    command,
                    deadline,
                    report,
                },
            })
        }
        Err(source) => Err(RunError::NotEnded {
            command,
            deadline,
            source,
        }),
    }
}

#[derive(Default)]
struct Tail {
    lines: VecDeque<OutputLine>,
    dropped: u64,
}

impl Tail {
    fn push(&mut self, event: OutputEvent) {
        match event {
            OutputEvent::Line(line) => {
                if self.lines.len() == REPORT_LINES {
                    self.lines.pop_front();
                    self.dropped += 1;
                }
                self.lines.push_back(line);
            }
            OutputEvent::Missed(missed) => self.dropped += missed,
        }
    }

    fn report(self, exit: ChildExit) -> RunReport {
        RunReport {
            exit,
            output: self.lines.into(),
            dropped_lines: self.dropped,
        }
    }
}
