//! The commands of one piece of work: one progress line and one log for all of them, a time limit for each.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use crate::command::{self, Finished, Notice, Source};
use crate::interrupt::Interrupt;
use crate::progress::Progress;

/// Off a terminal, how often a command that is still running says so.
const STILL_RUNNING: Duration = Duration::from_secs(15);

/// Which output is shown as it comes, whatever the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    Nothing,
    Stdout,
}

/// A piece of work, such as a row of the matrix.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    label: String,
    pub(crate) interrupt: &'a Interrupt,
    /// There from the first command on.
    progress: Option<Progress>,
    /// What the commands printed, each after the line that started it.
    pub(crate) log: String,
}

impl<'a> Job<'a> {
    /// A job that has run nothing yet. Its progress line begins with `label`.
    pub(crate) fn new(label: &str, interrupt: &'a Interrupt) -> Self {
        Self {
            label: label.to_owned(),
            interrupt,
            progress: None,
            log: String::new(),
        }
    }

    /// Runs one command to its end, however it ends.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(crate) fn run(
        &mut self,
        command: Command,
        limit: Duration,
        echo: Echo,
    ) -> Result<Finished, String> {
        let shown = shown(&command);
        let _ = writeln!(self.log, "$ {shown}");
        let progress = self
            .progress
            .get_or_insert_with(|| Progress::start(&self.label, STILL_RUNNING));
        let finished = command::run(command, limit, self.interrupt, |notice| match notice {
            Notice::Line(Source::Stdout, line) if echo == Echo::Stdout => {
                progress.clear();
                println!("  {line}");
            }
            Notice::Line(_, line) => progress.set(line),
            Notice::Tick => progress.tick(),
        });
        progress.clear();
        let failure = match &finished {
            Ok(finished) => {
                self.log.push_str(&finished.output);
                finished.failure()
            }
            Err(error) => Some(format!("cannot be run: {error}")),
        };
        if let Some(failure) = failure {
            let _ = writeln!(self.log, "failed: {failure}");
        }
        finished.map_err(|error| format!("`{shown}` cannot be run: {error}"))
    }
}

/// The command as it could be typed, for the log.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_log_holds_commands_output_and_failures_in_order() {
        let interrupt = Interrupt::default();
        let mut job = Job::new("job", &interrupt);
        for script in ["echo good", "echo bad; exit 3"] {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            job.run(command, Duration::from_secs(60), Echo::Nothing)
                .unwrap();
        }
        let lines: Vec<&str> = job.log.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "$ sh -c echo good",
                "good",
                "$ sh -c echo bad; exit 3",
                "bad"
            ]
        );
        assert!(
            lines[4].starts_with("failed: ") && lines.len() == 5,
            "{lines:?}"
        );

        let missing = Command::new("no-such-program-here");
        let error = job
            .run(missing, Duration::from_secs(60), Echo::Nothing)
            .unwrap_err();
        assert!(error.contains("no-such-program-here"), "{error}");
    }
}
