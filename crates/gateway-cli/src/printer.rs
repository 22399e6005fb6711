//! Where events go: to standard output, and errors for people to standard error.

use std::env;
use std::io::{self, IsTerminal as _, Write};
use std::time::Instant;

use serde::Serialize;

use crate::human;
use crate::report::{Report, millis};

/// For whom to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Human,
    Json,
}

impl Format {
    pub(crate) fn json_if(json: bool) -> Self {
        if json { Self::Json } else { Self::Human }
    }
}

/// Prints events with the time since it was made.
pub(crate) struct Printer {
    format: Format,
    /// Whether standard output shows text dimly when it is asked to.
    dims: bool,
    started: Instant,
    lost: Option<io::Error>,
}

/// An event as one line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    report: &'a Report,
    #[serde(rename = "elapsedMs")]
    elapsed_ms: u64,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            dims: cfg!(unix) && io::stdout().is_terminal() && wants_styles(),
            started: Instant::now(),
            lost: None,
        }
    }

    /// Prints an event at once. Once standard output is gone, nothing is printed there any more.
    pub(crate) fn show(&mut self, report: &Report) {
        let elapsed = self.started.elapsed();
        // Errors for people have a stream of their own, and everybody's have once there is no other.
        let on_stderr = matches!(report, Report::Error { .. })
            && (self.format == Format::Human || self.lost.is_some());
        let text = match self.format {
            _ if on_stderr => human::text(report, elapsed).map(String::into_bytes),
            Format::Human => human::text(report, elapsed)
                .map(|text| match report {
                    Report::Decision { .. } if self.dims => dim(&text),
                    _ => text,
                })
                .map(String::into_bytes),
            Format::Json => json(report, millis(elapsed)),
        };
        let Some(text) = text else { return };
        if on_stderr {
            // There is no further place to complain to.
            let _ = io::stderr().lock().write_all(&text);
        } else if self.lost.is_none() {
            let mut output = io::stdout().lock();
            self.lost = output.write_all(&text).and_then(|()| output.flush()).err();
        }
    }

    /// The error by which standard output was lost, once.
    pub(crate) fn take_loss(&mut self) -> Option<io::Error> {
        self.lost
            .as_mut()
            .map(|error| std::mem::replace(error, error.kind().into()))
    }
}

/// By the conventions that terminal programs share: `NO_COLOR` (<https://no-color.org>), and a `TERM` that can do nothing.
fn wants_styles() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// A line of less weight than those around it.
fn dim(line: &str) -> String {
    format!("\x1b[2m{}\x1b[22m\n", line.trim_end_matches('\n'))
}

fn json(report: &Report, elapsed_ms: u64) -> Option<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line { report, elapsed_ms }).ok()?;
    line.push(b'\n');
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit_code::ExitCode;
    use crate::report::Outcome;

    #[test]
    fn what_is_dimmed_ends_with_its_line() {
        assert_eq!(
            dim("    0.001 s  why\n"),
            "\x1b[2m    0.001 s  why\x1b[22m\n"
        );
    }

    #[test]
    fn json_lines_begin_with_the_event_and_keep_nulls() {
        let line = json(&Report::summary(Outcome::Failed, ExitCode::Usage), 7).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"event\":\"summary\",\"outcome\":\"failed\",\"exitCode\":2,\"sessions\":0,\"port\":null,\"pid\":null,\"exit\":null,\"attached\":false,\"stopTookMs\":null,\"elapsedMs\":7}\n"
        );
    }
}
