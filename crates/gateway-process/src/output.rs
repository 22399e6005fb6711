//! The lines a child prints, and the bounded queues through which they are read.
//!
//! The pipes are drained by the child's own tasks whether or not anybody listens: a full pipe would block the child, and a
//! closed one makes some gateways exit. So a reader that cannot keep up loses lines, is told how many, and slows nobody.

use gateway_policy::stderr::StderrLevel;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Lines kept for a reader that is behind, by default. With lines of the greatest length that is 16 MiB.
pub const OUTPUT_QUEUE_LINES: usize = 1024;

/// Which pipe a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputSource {
    /// Standard output, where gateways write what is informational.
    Stdout,
    /// Standard error, where they write warnings and errors.
    Stderr,
}

/// One line of output without its line ending and without escape sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputLine {
    /// The pipe it came from.
    pub stream: OutputSource,
    /// The text; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// What the line is worth in a log. Lines from stdout are [`StderrLevel::Quiet`]: only stderr is classified.
    pub level: StderrLevel,
    /// The line was longer than [`MAX_LINE_BYTES`](crate::lines::MAX_LINE_BYTES) and its rest was dropped.
    pub truncated: bool,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEvent {
    /// The next line.
    Line(OutputLine),
    /// The reader was too slow: this many lines were dropped before the next one.
    Missed(u64),
}

/// One reader's own view of a child's output.
#[derive(Debug)]
pub struct OutputStream {
    receiver: broadcast::Receiver<OutputLine>,
}

impl OutputStream {
    /// The next line or the news that lines were missed; `None` after the last line, when both pipes are closed.
    ///
    /// Cancel safe: a line is either returned or still in the queue.
    pub async fn next(&mut self) -> Option<OutputEvent> {
        match self.receiver.recv().await {
            Ok(line) => Some(OutputEvent::Line(line)),
            Err(RecvError::Lagged(missed)) => Some(OutputEvent::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// The writing end of a child's output; for implementations of [`ManagedChild`](crate::host::ManagedChild), including fakes.
/// The streams end when the last clone of it is dropped.
#[derive(Clone, Debug)]
pub struct OutputSender {
    sender: broadcast::Sender<OutputLine>,
}

impl OutputSender {
    /// A sender whose readers may each be up to `capacity` lines behind (at least one), together with the first reader.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, OutputStream) {
        let (sender, receiver) = broadcast::channel(capacity.max(1));
        (Self { sender }, OutputStream { receiver })
    }

    /// Hands a line to every reader there is. Never waits.
    pub fn send(&self, line: OutputLine) {
        // No reader is a normal state: the pipe is drained for the child's sake.
        let _ = self.sender.send(line);
    }

    /// `true` when a line would reach somebody; saves making one when nobody listens.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    pub(crate) fn downgrade(&self) -> WeakOutputSender {
        WeakOutputSender(self.sender.downgrade())
    }

    /// One more reader; it sees the lines sent from now on.
    #[must_use]
    pub fn subscribe(&self) -> OutputStream {
        OutputStream {
            receiver: self.sender.subscribe(),
        }
    }
}

/// Makes readers without keeping the streams open.
#[derive(Debug)]
pub(crate) struct WeakOutputSender(broadcast::WeakSender<OutputLine>);

impl WeakOutputSender {
    /// One more reader; a stream that has ended, when the last sender is gone.
    pub(crate) fn subscribe(&self) -> OutputStream {
        match self.0.upgrade() {
            Some(sender) => OutputSender { sender }.subscribe(),
            None => OutputSender::channel(1).1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> OutputLine {
        OutputLine {
            stream: OutputSource::Stderr,
            text: text.to_owned(),
            level: StderrLevel::Warn,
            truncated: false,
        }
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_missed_and_hurts_no_other() {
        let (sender, mut slow) = OutputSender::channel(4);
        let mut quick = sender.subscribe();
        for n in 0..8 {
            sender.send(line(&n.to_string()));
            assert_eq!(
                quick.next().await,
                Some(OutputEvent::Line(line(&n.to_string())))
            );
        }
        drop(sender);
        assert_eq!(slow.next().await, Some(OutputEvent::Missed(4)));
        for n in 4..8 {
            assert_eq!(
                slow.next().await,
                Some(OutputEvent::Line(line(&n.to_string())))
            );
        }
        assert_eq!(slow.next().await, None);
        assert_eq!(quick.next().await, None);
    }
}
