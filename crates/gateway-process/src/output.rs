//! The lines a child prints, and the bounded queues through which they are read.
//!
//! The pipes are drained by the child's own tasks whether or not anybody listens: a full pipe would block the child, and a
//! closed one makes some gateways exit. So a reader that cannot keep up loses lines, is told how many, and slows nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use gateway_policy::stderr::StderrLevel;
use tokio::sync::Notify;

/// Lines kept for a reader that is behind, by default.
pub const OUTPUT_QUEUE_LINES: usize = 1024;

/// How much text is kept for readers that are behind, in bytes. Lines are a hundred bytes long or so; this is for those that are not.
pub const OUTPUT_QUEUE_BYTES: usize = 1024 * 1024;

/// How many lines a reader takes at a time, so that a flood costs one lock for many lines.
const READ_AHEAD: usize = 64;

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
    /// The text; bytes that are not UTF-8 are replaced. All readers share it.
    pub text: Arc<str>,
    /// What the line is worth in a log. Lines from stdout are [`StderrLevel::Quiet`]: only stderr is classified.
    pub level: StderrLevel,
    /// The line was longer than [`MAX_LINE_BYTES`](crate::lines::MAX_LINE_BYTES) and its rest was dropped.
    pub truncated: bool,
}

/// What a child has printed so far, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputCounts {
    /// Lines of stdout.
    pub stdout: u64,
    /// Lines of stderr that are [`StderrLevel::Drop`].
    pub dropped: u64,
    /// Lines of stderr that are [`StderrLevel::Quiet`].
    pub quiet: u64,
    /// Lines of stderr that are [`StderrLevel::Warn`].
    pub warnings: u64,
    /// Bytes of both streams, line endings and escape sequences included.
    pub bytes: u64,
}

impl OutputCounts {
    /// Lines of both streams.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.stdout + self.dropped + self.quiet + self.warnings
    }

    pub(crate) fn add(&mut self, source: OutputSource, level: StderrLevel) {
        *match (source, level) {
            (OutputSource::Stdout, _) => &mut self.stdout,
            (OutputSource::Stderr, StderrLevel::Drop) => &mut self.dropped,
            (OutputSource::Stderr, StderrLevel::Quiet) => &mut self.quiet,
            (OutputSource::Stderr, StderrLevel::Warn) => &mut self.warnings,
        } += 1;
    }
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEvent {
    /// The next line.
    Line(OutputLine),
    /// The reader was too slow: this many lines were dropped before the next one.
    Missed(u64),
}

/// The lines that some reader has not taken yet, numbered in the order in which they came.
#[derive(Debug)]
struct Queue {
    lines: VecDeque<OutputLine>,
    /// The number of the line in front.
    first: u64,
    /// The text of all lines.
    bytes: usize,
    most_lines: usize,
    /// A few at most, so looking for one is no work.
    readers: Vec<Reader>,
    last_reader: u64,
    closed: bool,
}

/// How far a reader has come.
#[derive(Debug)]
struct Reader {
    number: u64,
    /// The number of the line that it takes next.
    next: u64,
}

impl Queue {
    fn push(&mut self, line: OutputLine) {
        self.bytes += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > self.most_lines
            || self.bytes > OUTPUT_QUEUE_BYTES && self.lines.len() > 1
        {
            self.drop_front();
        }
    }

    fn drop_front(&mut self) {
        if let Some(line) = self.lines.pop_front() {
            self.bytes -= line.text.len();
            self.first += 1;
        }
    }

    /// Forgets what everybody has.
    fn trim(&mut self) {
        let needed = self.readers.iter().map(|reader| reader.next).min();
        while !self.lines.is_empty() && needed.is_none_or(|needed| self.first < needed) {
            self.drop_front();
        }
    }

    /// Moves the next lines to a reader. Gives the number of those that it has missed before them.
    fn take(&mut self, number: u64, lines: &mut VecDeque<OutputLine>) -> u64 {
        let first = self.first;
        let Some(reader) = self
            .readers
            .iter_mut()
            .find(|reader| reader.number == number)
        else {
            return 0;
        };
        let missed = first.saturating_sub(reader.next);
        reader.next += missed;
        let from = usize::try_from(reader.next - first).unwrap_or(usize::MAX);
        let alone = self.readers.len() == 1;
        if alone && from == 0 {
            let most = READ_AHEAD.min(self.lines.len());
            lines.extend(self.lines.drain(..most));
            self.bytes -= lines.iter().map(|line| line.text.len()).sum::<usize>();
            self.first += most as u64;
        } else {
            lines.extend(self.lines.iter().skip(from).take(READ_AHEAD).cloned());
        }
        if let Some(reader) = self
            .readers
            .iter_mut()
            .find(|reader| reader.number == number)
        {
            reader.next += lines.len() as u64;
        }
        self.trim();
        missed
    }

    fn subscribe(&mut self) -> u64 {
        self.last_reader += 1;
        self.readers.push(Reader {
            number: self.last_reader,
            next: self.first + self.lines.len() as u64,
        });
        self.last_reader
    }
}

/// What senders and readers share.
#[derive(Debug)]
struct Channel {
    queue: Mutex<Queue>,
    news: Notify,
}

impl Channel {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere cannot leave a queue of values half written.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribe(self: &Arc<Self>) -> OutputStream {
        OutputStream {
            number: self.queue().subscribe(),
            channel: Arc::clone(self),
            taken: VecDeque::new(),
        }
    }
}

/// One reader's own view of a child's output.
#[derive(Debug)]
pub struct OutputStream {
    channel: Arc<Channel>,
    number: u64,
    /// Taken from the queue and not handed out yet.
    taken: VecDeque<OutputLine>,
}

impl OutputStream {
    /// The next line or the news that lines were missed; `None` after the last line, when both pipes are closed.
    ///
    /// Cancel safe: a line is either returned or still in the queue.
    pub async fn next(&mut self) -> Option<OutputEvent> {
        if let Some(line) = self.taken.pop_front() {
            return Some(OutputEvent::Line(line));
        }
        // Whoever reads a flood must leave the thread to others now and then.
        tokio::task::coop::consume_budget().await;
        loop {
            let news = self.channel.news.notified();
            tokio::pin!(news);
            // From here on no news is lost.
            news.as_mut().enable();
            {
                let mut queue = self.channel.queue();
                let missed = queue.take(self.number, &mut self.taken);
                if missed > 0 {
                    return Some(OutputEvent::Missed(missed));
                }
                if let Some(line) = self.taken.pop_front() {
                    return Some(OutputEvent::Line(line));
                }
                if queue.closed {
                    return None;
                }
            }
            news.await;
        }
    }
}

impl Drop for OutputStream {
    fn drop(&mut self) {
        let mut queue = self.channel.queue();
        queue.readers.retain(|reader| reader.number != self.number);
        queue.trim();
    }
}

/// The writing end of a child's output; for implementations of [`ManagedChild`](crate::host::ManagedChild), including fakes.
/// The streams end when the last clone of it is dropped.
#[derive(Clone, Debug)]
pub struct OutputSender {
    open: Arc<Open>,
}

/// Closes the streams when it is dropped.
#[derive(Debug)]
struct Open(Arc<Channel>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.queue().closed = true;
        self.0.news.notify_waiters();
    }
}

impl OutputSender {
    /// A sender whose readers may each be up to `capacity` lines behind (at least one), and [`OUTPUT_QUEUE_BYTES`], together with the
    /// first reader.
    #[must_use]
    pub fn channel(capacity: usize) -> (Self, OutputStream) {
        let channel = Arc::new(Channel {
            queue: Mutex::new(Queue {
                lines: VecDeque::new(),
                first: 0,
                bytes: 0,
                most_lines: capacity.max(1),
                readers: Vec::new(),
                last_reader: 0,
                closed: false,
            }),
            news: Notify::new(),
        });
        let first = channel.subscribe();
        let open = Arc::new(Open(channel));
        (Self { open }, first)
    }

    /// Hands a line to every reader there is. Never waits.
    pub fn send(&self, line: OutputLine) {
        self.send_all([line]);
    }

    /// Hands lines to every reader there is, at the price of one. Never waits.
    pub fn send_all(&self, lines: impl IntoIterator<Item = OutputLine>) {
        let channel = &self.open.0;
        let mut queue = channel.queue();
        // No reader is a normal state: the pipe is drained for the child's sake.
        if queue.readers.is_empty() {
            return;
        }
        for line in lines {
            queue.push(line);
        }
        drop(queue);
        channel.news.notify_waiters();
    }

    /// `true` when a line would reach somebody; saves making one when nobody listens.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        !self.open.0.queue().readers.is_empty()
    }

    pub(crate) fn downgrade(&self) -> WeakOutputSender {
        WeakOutputSender(Arc::downgrade(&self.open))
    }

    /// One more reader; it sees the lines sent from now on.
    #[must_use]
    pub fn subscribe(&self) -> OutputStream {
        self.open.0.subscribe()
    }
}

/// Makes readers without keeping the streams open.
#[derive(Debug)]
pub(crate) struct WeakOutputSender(Weak<Open>);

impl WeakOutputSender {
    /// One more reader; a stream that has ended, when the last sender is gone.
    pub(crate) fn subscribe(&self) -> OutputStream {
        match self.0.upgrade() {
            Some(open) => open.0.subscribe(),
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
            text: text.into(),
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
    /// Readers of different speed get the same lines, and nothing stays that all of them have.
    #[tokio::test]
    async fn what_everybody_has_is_forgotten() {
        let (sender, mut one) = OutputSender::channel(1000);
        let mut other = sender.subscribe();
        let text = |n: usize| line(&"x".repeat(n));
        sender.send_all((0..200).map(text));
        for n in 0..200 {
            assert_eq!(one.next().await, Some(OutputEvent::Line(text(n))));
        }
        let kept = |sender: &OutputSender| {
            let queue = sender.open.0.queue();
            let bytes = queue
                .lines
                .iter()
                .map(|line| line.text.len())
                .sum::<usize>();
            assert_eq!(queue.bytes, bytes);
            queue.lines.len()
        };
        assert_eq!(kept(&sender), 200);
        for n in 0..READ_AHEAD + 1 {
            assert_eq!(other.next().await, Some(OutputEvent::Line(text(n))));
        }
        assert_eq!(kept(&sender), 200 - 2 * READ_AHEAD);
        drop(other);
        assert_eq!(kept(&sender), 0);
        sender.send(text(7));
        assert_eq!(one.next().await, Some(OutputEvent::Line(text(7))));
        assert_eq!(kept(&sender), 0);
        drop(one);
        sender.send(text(8));
        assert_eq!((kept(&sender), sender.has_readers()), (0, false));
    }

    #[tokio::test]
    async fn long_lines_are_bounded_by_their_bytes() {
        let (sender, mut reader) = OutputSender::channel(1000);
        let long = "x".repeat(OUTPUT_QUEUE_BYTES / 8);
        sender.send_all((0..20).map(|_| line(&long)));
        assert_eq!(reader.next().await, Some(OutputEvent::Missed(12)));
        drop(sender);
        let mut kept = 0;
        while let Some(event) = reader.next().await {
            assert_eq!(event, OutputEvent::Line(line(&long)));
            kept += 1;
        }
        assert_eq!(kept, 8);
    }
}
