//! Draining a child's pipes, each by a task of its own, for as long as the pipe is open.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gateway_policy::stderr::{StderrLevel, classify};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

use crate::lines::{Line, LineAssembler};
use crate::output::{OutputCounts, OutputLine, OutputSender, OutputSource};

/// How many of the last lines of stderr are kept for the diagnosis of a failure.
pub const RECENT_STDERR_LINES: usize = 120;

/// How many of the first lines of stderr are kept beside them: what is wrong is often said once, before a flood of what follows from it.
pub const FIRST_STDERR_LINES: usize = 8;

/// How much text is kept of the last lines, in bytes; long ones leave room for fewer.
pub const RECENT_STDERR_BYTES: usize = 64 * 1024;

/// How much one read takes: little while little comes, up to what a pipe holds during a flood.
const READ_BYTES: std::ops::RangeInclusive<usize> = 4 * 1024..=64 * 1024;

/// How many lines are handed over before the readers get a turn: a part of the queue of one, so that on a runtime with one thread those
/// that keep reading miss nothing.
const LINES_PER_TURN: usize = 256;

/// What is kept of the output of a child: the first and the last lines of stderr, and the numbers. Blank lines are not recorded.
#[derive(Debug, Default)]
pub(crate) struct RecentLines(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    first: Vec<String>,
    /// The text of the last lines, one behind the other, and the length of each. A flood passes through without an allocation.
    text: VecDeque<u8>,
    lengths: VecDeque<usize>,
    counts: OutputCounts,
}

impl RecentLines {
    /// The first lines and the last ones, each once.
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let kept = self.kept();
        let mut lines = kept.first.clone();
        let mut start = 0;
        for length in &kept.lengths {
            let bytes: Vec<u8> = kept.text.range(start..start + length).copied().collect();
            lines.push(String::from_utf8_lossy(&bytes).into_owned());
            start += length;
        }
        lines
    }

    pub(crate) fn counts(&self) -> OutputCounts {
        self.kept().counts
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn record(&mut self, text: &str) {
        if self.first.len() < FIRST_STDERR_LINES {
            self.first.push(text.to_owned());
            return;
        }
        self.text.extend(text.as_bytes());
        self.lengths.push_back(text.len());
        while self.lengths.len() > RECENT_STDERR_LINES || self.text.len() > RECENT_STDERR_BYTES {
            let Some(length) = self.lengths.pop_front() else {
                return;
            };
            self.text.drain(..length);
        }
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
    let mut buffer = vec![0; *READ_BYTES.start()];
    let mut batch = Vec::new();
    loop {
        let read = match pipe.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(?source, %error, "reading a child's output failed");
                break;
            }
        };
        recent.kept().counts.bytes += read as u64;
        let mut chunk = &buffer[..read];
        while !chunk.is_empty() {
            let readers = output.has_readers();
            let most = if readers { LINES_PER_TURN } else { usize::MAX };
            let mut lines = 0;
            {
                // Once for many lines, as is everything else that costs a lock.
                let mut kept = recent.kept();
                chunk = assembler.push_lines(chunk, most, |line| {
                    lines += 1;
                    batch.extend(take(&mut kept, source, &line, readers));
                });
            }
            output.send_all(batch.drain(..));
            if lines > 0 {
                progress.send_modify(|total| *total += lines);
            }
            // A flood keeps the pipe ready for ever, and readers keep up only when they get their turns.
            tokio::task::yield_now().await;
        }
        // Most children are quiet, and there may be many of them.
        let size = if read == buffer.len() {
            read * 2
        } else if read < buffer.len() / 4 {
            buffer.len() / 2
        } else {
            buffer.len()
        };
        let size = size.clamp(*READ_BYTES.start(), *READ_BYTES.end());
        if size != buffer.len() {
            buffer = vec![0; size];
        }
    }
    let readers = output.has_readers();
    assembler.finish(|line| {
        batch.extend(take(&mut recent.kept(), source, &line, readers));
        progress.send_modify(|total| *total += 1);
    });
    output.send_all(batch);
}

/// Classifies, counts and records a line. Gives it in the form for readers when there are any.
fn take(
    kept: &mut Kept,
    source: OutputSource,
    line: &Line<'_>,
    readers: bool,
) -> Option<OutputLine> {
    let level = match source {
        OutputSource::Stdout => StderrLevel::Quiet,
        OutputSource::Stderr => classify(&line.text),
    };
    kept.counts.add(source, level);
    if source == OutputSource::Stderr && !line.text.trim_start().is_empty() {
        kept.record(&line.text);
    }
    readers.then(|| OutputLine {
        stream: source,
        text: (*line.text).into(),
        level,
        truncated: line.truncated,
    })
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
        assert_eq!(recent.counts().lines(), count);
        assert_eq!(recent.counts().bytes, bytes.len() as u64);
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
            (&*lines[0].text, lines[0].level, count),
            ("ready", StderrLevel::Quiet, 1)
        );
    }

    #[tokio::test]
    async fn only_the_first_and_the_last_lines_are_kept() {
        let text: String = (0..RECENT_STDERR_LINES + 30)
            .map(|n| format!("line {n}\n"))
            .collect();
        let (recent, ..) = drained(text.as_bytes(), OutputSource::Stderr).await;
        let expected = (0..FIRST_STDERR_LINES).chain(30..RECENT_STDERR_LINES + 30);
        let expected: Vec<String> = expected.map(|n| format!("line {n}")).collect();
        assert_eq!(recent, expected);
    }

    #[tokio::test]
    async fn long_lines_are_kept_as_far_as_there_is_room() {
        let long = "x".repeat(RECENT_STDERR_BYTES / 8);
        let text = format!("{long}\n").repeat(100);
        let (recent, ..) = drained(text.as_bytes(), OutputSource::Stderr).await;
        assert_eq!(recent.len(), FIRST_STDERR_LINES + 8);
        assert!(recent.iter().all(|line| *line == long));
    }
}
