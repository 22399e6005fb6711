//! Draining a child's pipes, each by a task of its own, for as long as the pipe is open.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use gateway_policy::stderr::{StderrLevel, classify};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

use crate::lines::{Line, LineAssembler};
use crate::output::{OutputLine, OutputSender, OutputSource};

/// How many of the last lines of stderr are kept for the diagnosis of a failure.
pub const RECENT_STDERR_LINES: usize = 120;

/// How much one read takes. With lines of 32 bytes and more, one read of each pipe fits into a reader's queue.
const READ_BYTES: usize = 16 * 1024;

/// Half of what the runtime lets a task receive in one turn.
const LINES_PER_TURN: u64 = 64;

/// The last lines of stderr. Blank lines are not recorded.
#[derive(Debug, Default)]
pub(crate) struct RecentLines(Mutex<VecDeque<String>>);

impl RecentLines {
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }

    fn record(&self, text: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == RECENT_STDERR_LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

/// Reads `pipe` to its end. A read error ends it too: it means that nothing more will come.
pub(crate) async fn drain(
    mut pipe: impl AsyncRead + Unpin,
    source: OutputSource,
    recent: &RecentLines,
    output: OutputSender,
    progress: &watch::Sender<u64>,
) {
    let mut assembler = LineAssembler::default();
    let mut buffer = vec![0; READ_BYTES];
    let deliver = |line: Line| {
        let record = source == OutputSource::Stderr && !line.text.trim_start().is_empty();
        if output.has_readers() {
            // The dearest step per line, so only for somebody who wants to know.
            let level = match source {
                OutputSource::Stdout => StderrLevel::Quiet,
                OutputSource::Stderr => classify(&line.text),
            };
            output.send(OutputLine {
                stream: source,
                text: line.text.clone(),
                level,
                truncated: line.truncated,
            });
        }
        if record {
            recent.record(line.text);
        }
    };
    loop {
        let read = match pipe.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(?source, %error, "reading a child's output failed");
                break;
            }
        };
        let mut lines = 0;
        assembler.push(&buffer[..read], |line| {
            lines += 1;
            deliver(line);
        });
        // Once per chunk: a watch costs a lock, and nobody needs to know about each line of a flood.
        if lines > 0 {
            progress.send_modify(|total| *total += lines);
        }
        // A flood keeps the pipe ready for ever, and a task may take only so many lines per turn before the runtime makes it
        // wait. On a runtime with one thread readers keep up only when they get that many turns.
        if output.has_readers() {
            for _ in 0..=lines / LINES_PER_TURN {
                tokio::task::yield_now().await;
            }
        }
    }
    assembler.finish(|line| {
        deliver(line);
        progress.send_modify(|total| *total += 1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::OutputEvent;
    use crate::output::OutputSender;

    async fn drained(bytes: &[u8], source: OutputSource) -> (Vec<String>, Vec<OutputLine>, u64) {
        let recent = RecentLines::default();
        let (sender, mut stream) = OutputSender::channel(1024);
        let (progress, progressed) = watch::channel(0);
        drain(bytes, source, &recent, sender, &progress).await;
        let mut lines = Vec::new();
        while let Some(event) = stream.next().await {
            match event {
                OutputEvent::Line(line) => lines.push(line),
                OutputEvent::Missed(missed) => panic!("missed {missed}"),
            }
        }
        let count = *progressed.borrow();
        (recent.snapshot(), lines, count)
    }

    #[tokio::test]
    async fn stderr_is_classified_and_recorded_without_blank_lines() {
        let text = b"\x1b[33m(node:1) Experimental\x1b[0mWarning: x\n\n   \nclosed before connect: token mismatch\nboom";
        let (recent, lines, count) = drained(text, OutputSource::Stderr).await;
        assert_eq!(
            recent,
            [
                "(node:1) ExperimentalWarning: x",
                "closed before connect: token mismatch",
                "boom"
            ]
        );
        let levels: Vec<_> = lines.iter().map(|line| line.level).collect();
        use StderrLevel::{Drop, Quiet, Warn};
        assert_eq!(levels, [Quiet, Warn, Warn, Drop, Warn]);
        assert_eq!(count, 5);
    }

    #[tokio::test]
    async fn stdout_is_neither_recorded_nor_classified() {
        let (recent, lines, count) = drained(b"ready\n", OutputSource::Stdout).await;
        assert_eq!(recent, Vec::<String>::new());
        assert_eq!(
            (lines[0].text.as_str(), lines[0].level, count),
            ("ready", StderrLevel::Quiet, 1)
        );
    }

    #[tokio::test]
    async fn only_the_last_lines_are_kept() {
        let text: String = (0..RECENT_STDERR_LINES + 30)
            .map(|n| format!("line {n}\n"))
            .collect();
        let (recent, ..) = drained(text.as_bytes(), OutputSource::Stderr).await;
        assert_eq!(recent.len(), RECENT_STDERR_LINES);
        assert_eq!(
            (recent[0].as_str(), recent[119].as_str()),
            ("line 30", "line 149")
        );
    }
}
