//! Says on stderr that something is going on: one line that is redrawn on a terminal, a plain line now and then
//! elsewhere.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

/// Redraw interval on a terminal.
const REDRAW: Duration = Duration::from_millis(200);
/// Columns that a redrawn line may take; a longer one would wrap and could not be redrawn.
const WIDTH: usize = 79;
/// Characters of a plain line; the latest output of a command may be of any length.
const LONGEST: usize = 200;

/// The progress line of one piece of work.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    latest: String,
    started: Instant,
    printed: Instant,
    plain_interval: Duration,
    terminal: bool,
}

impl Progress {
    /// Starts the clock. Off a terminal a line is printed now and then every `plain_interval`.
    pub(crate) fn start(label: &str, plain_interval: Duration) -> Self {
        let now = Instant::now();
        let terminal = stderr().is_terminal();
        if !terminal {
            eprintln!("{label}: started");
        }
        Self {
            label: label.to_owned(),
            latest: String::new(),
            started: now,
            printed: now,
            plain_interval,
            terminal,
        }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Remembers what to show next.
    pub(crate) fn set(&mut self, latest: &str) {
        let latest = latest.trim();
        if !latest.is_empty() {
            latest.clone_into(&mut self.latest);
        }
        self.tick();
    }

    /// Shows the line when it is due.
    pub(crate) fn tick(&mut self) {
        let interval = if self.terminal {
            REDRAW
        } else {
            self.plain_interval
        };
        if self.printed.elapsed() < interval {
            return;
        }
        self.printed = Instant::now();
        let line = line(&self.label, self.elapsed(), &self.latest);
        if self.terminal {
            let line: String = line.chars().take(WIDTH).collect();
            eprint!("\r\x1b[2K{line}");
            // Nothing depends on the line being seen.
            let _ = stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Removes the line, so that other output can be printed.
    pub(crate) fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
            let _ = stderr().flush();
        }
    }
}

fn line(label: &str, elapsed: Duration, latest: &str) -> String {
    let line = format!(
        "{label}: {} s  {}",
        elapsed.as_secs(),
        latest.replace(char::is_control, " ")
    );
    line.trim_end().chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_bounded_and_holds_no_control_characters() {
        let shown = line(
            "row",
            Duration::from_millis(12_900),
            &"a\tb\x1b[1m".repeat(60),
        );
        assert_eq!(shown.chars().count(), LONGEST);
        assert!(shown.starts_with("row: 12 s  a b"), "{shown}");
        assert!(!shown.contains(char::is_control));
        assert_eq!(line("row", Duration::ZERO, ""), "row: 0 s");
    }
}
