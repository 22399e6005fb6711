//! The output of a gateway in files: appended to over restarts of the child and of its manager, rotated by size, and never in anybody's way.
//!
//! A thread of its own writes. What is handed to it waits in a bounded queue; what finds no room there is counted, and the file says how
//! many lines are missing. A full or broken disk costs lines of this file and nothing else.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant, SystemTime};

use crate::civil_time::CivilTime;
use crate::output::{OutputEvent, OutputLine, OutputSource, OutputStream};
use crate::ownership::private;
use crate::redact::Redactor;

/// How many lines may wait for the disk.
const WAITING_LINES: usize = 4096;

/// How much is written at a time, in bytes, when much waits.
const WRITE_BYTES: usize = 64 * 1024;

/// After a failure, how long the disk is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long the last handle waits for what is still to be written.
const FLUSH_WITHIN: Duration = Duration::from_secs(1);

/// Where the files are, and how many of which size.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OutputLogConfig {
    /// The directory; made when it is missing.
    pub directory: PathBuf,
    /// What the files are called: `gateway` makes `gateway.log`, and `gateway.log.1` of what was there before. Default `gateway`. Managers that
    /// share a directory need different names.
    pub name: String,
    /// How large a file may become, in bytes. Default 10 MiB.
    pub max_bytes: u64,
    /// How many files there may be, with the one that is written to; at least one. Default 5.
    pub files: u32,
}

impl OutputLogConfig {
    /// The defaults in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            name: "gateway".to_owned(),
            max_bytes: 10 * 1024 * 1024,
            files: 5,
        }
    }

    /// Sets what the files are called.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets how large a file may become, in bytes, and how many there may be.
    #[must_use]
    pub fn limits(mut self, max_bytes: u64, files: u32) -> Self {
        self.max_bytes = max_bytes;
        self.files = files;
        self
    }

    /// The file that is written to, for number 0, and the older ones.
    fn path(&self, number: u32) -> PathBuf {
        let name = match number {
            0 => format!("{}.log", self.name),
            number => format!("{}.log.{number}", self.name),
        };
        self.directory.join(name)
    }
}

/// An output log could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputLogError {
    /// The name is no name of a file.
    #[error("{name:?} cannot be the name of an output log; choose one without separators")]
    BadName {
        /// The name.
        name: String,
    },
    /// Somebody else writes to it.
    #[error("another process, or another log of this one, writes to {}; give each a name or a directory of its own", .file.display())]
    InUse {
        /// The file.
        file: PathBuf,
    },
    /// The file system says no.
    #[error("the output log {} cannot be written ({source}); choose another directory, or correct its permissions", .file.display())]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
}

/// An open log. Clones write to the same files; the last one to be dropped waits up to a second for what is still to be written.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use gateway_process::output_log::{OutputLog, OutputLogConfig};
/// use gateway_process::{OutputLine, OutputSource, StderrLevel};
///
/// let directory = tempfile::tempdir()?;
/// let log = OutputLog::open(OutputLogConfig::new(directory.path()))?;
/// log.write(&OutputLine { stream: OutputSource::Stderr, text: "hello".into(), level: StderrLevel::Warn, truncated: false });
/// drop(log);
/// let text = std::fs::read_to_string(directory.path().join("gateway.log"))?;
/// assert!(text.ends_with(" stderr hello\n"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct OutputLog(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    /// Taken when it is dropped.
    entries: Option<SyncSender<Entry>>,
    missing: Arc<AtomicU64>,
    finished: std::sync::Mutex<Receiver<()>>,
}

/// A line on its way.
#[derive(Debug)]
struct Entry {
    at: SystemTime,
    line: OutputLine,
}

impl OutputLog {
    /// Opens the log: makes the directory, looks whether the file can be appended to, and starts the thread. A few system calls, which may
    /// block on a network mount.
    ///
    /// # Errors
    /// [`OutputLogError`] when it cannot be written to, or somebody else does.
    pub fn open(config: OutputLogConfig) -> Result<Self, OutputLogError> {
        let is_name = Path::new(&config.name).file_name() == Some(config.name.as_ref());
        if !is_name {
            return Err(OutputLogError::BadName { name: config.name });
        }
        let file = config.path(0);
        let unwritable = |source: io::Error| OutputLogError::Unwritable {
            file: file.clone(),
            source: Arc::new(source),
        };
        fs::create_dir_all(&config.directory).map_err(unwritable)?;
        let lock = config.directory.join(format!("{}.lock", config.name));
        let lock = append_to(&lock).map_err(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(OutputLogError::InUse { file }),
            Err(fs::TryLockError::Error(error)) => return Err(unwritable(error)),
        }
        let mut files = Files {
            config,
            current: None,
            lock,
        };
        files.open().map_err(unwritable)?;
        let (entries, received) = mpsc::sync_channel(WAITING_LINES);
        let (finish, finished) = mpsc::sync_channel(1);
        let missing = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            files,
            missing: Arc::clone(&missing),
            failed_at: None,
        };
        std::thread::Builder::new()
            .name("output-log".to_owned())
            .spawn(move || {
                writer.run(&received);
                let _ = finish.send(());
            })
            .map_err(unwritable)?;
        Ok(Self(Arc::new(Handle {
            entries: Some(entries),
            missing,
            finished: std::sync::Mutex::new(finished),
        })))
    }

    /// Hands over a line as it is; whoever has secrets removes them first. Never waits: without room the line is counted as missing.
    pub fn write(&self, line: &OutputLine) {
        let entry = Entry {
            at: SystemTime::now(),
            line: line.clone(),
        };
        let sent = self
            .0
            .entries
            .as_ref()
            .map(|entries| entries.try_send(entry));
        if !matches!(sent, Some(Ok(()))) {
            self.missed(1);
        }
    }

    /// Counts lines that did not even get here.
    pub fn missed(&self, lines: u64) {
        self.0.missing.fetch_add(lines, Ordering::Relaxed);
    }

    /// Writes all that comes, without the secrets that the redactor knows, until the stream ends.
    pub async fn record(&self, mut output: OutputStream, redactor: &Redactor) {
        while let Some(event) = output.next().await {
            match event {
                OutputEvent::Line(mut line) => {
                    line.text = redactor.clean(&line.text).into();
                    self.write(&line);
                }
                OutputEvent::Missed(lines) => self.missed(lines),
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.entries = None;
        let finished = self
            .finished
            .get_mut()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        // A disk that hangs must not hang whoever lets go of the log.
        let _ = finished.recv_timeout(FLUSH_WITHIN);
    }
}

/// The files, the newest of which is open unless something is wrong with it.
struct Files {
    config: OutputLogConfig,
    current: Option<(File, u64)>,
    /// Held as long as this is here.
    lock: File,
}

impl Drop for Files {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a process that was forked in this moment and has not yet begun its own program.
        let _ = self.lock.unlock();
    }
}

impl Files {
    fn open(&mut self) -> io::Result<()> {
        let file = append_to(&self.config.path(0))?;
        let length = file.metadata()?.len();
        self.current = Some((file, length));
        Ok(())
    }

    fn append(&mut self, text: &str) -> io::Result<()> {
        let length = text.len() as u64;
        if self.current.is_none() {
            self.open()?;
        }
        let fits = |size: u64| size == 0 || size + length <= self.config.max_bytes;
        if !self.current.as_ref().is_some_and(|(_, size)| fits(*size)) {
            self.rotate()?;
            self.open()?;
        }
        let Some((file, size)) = &mut self.current else {
            return Err(io::Error::other("the file is not open"));
        };
        file.write_all(text.as_bytes())?;
        *size += length;
        Ok(())
    }

    /// Every file becomes the next older one; the oldest is gone.
    fn rotate(&mut self) -> io::Result<()> {
        // Windows renames no open file.
        self.current = None;
        let files = self.config.files.max(1);
        if files == 1 {
            return remove(&self.config.path(0));
        }
        for number in (0..files - 1).rev() {
            match fs::rename(self.config.path(number), self.config.path(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Opens a file, perhaps a new one that only its owner can read.
fn append_to(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    private(options.create(true).append(true));
    options.open(path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the thread does.
struct Writer {
    files: Files,
    missing: Arc<AtomicU64>,
    failed_at: Option<Instant>,
}

impl Writer {
    /// Ends when the last handle is gone and everything is written.
    fn run(mut self, entries: &Receiver<Entry>) {
        let mut text = String::new();
        while let Ok(first) = entries.recv() {
            text.clear();
            let mut lines = 0;
            let mut next = Some(first);
            while let Some(entry) = next {
                lines += 1;
                write_entry(&mut text, &entry);
                let room = text.len()
                    < WRITE_BYTES
                        .min(usize::try_from(self.files.config.max_bytes).unwrap_or(usize::MAX));
                next = if room { entries.try_recv().ok() } else { None };
            }
            self.write(&mut text, lines);
        }
        // What did not fit in at the end is told as well.
        text.clear();
        self.write(&mut text, 0);
    }

    fn write(&mut self, text: &mut String, lines: u64) {
        if self.failed_at.is_some_and(|at| at.elapsed() < RETRY_AFTER) && lines > 0 {
            self.missing.fetch_add(lines, Ordering::Relaxed);
            return;
        }
        let missing = self.missing.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let _ = writeln!(
                text,
                "{} - [{missing} lines are missing here]",
                Timestamp(SystemTime::now())
            );
        }
        if text.is_empty() {
            return;
        }
        match self.files.append(text) {
            Ok(()) => self.failed_at = None,
            Err(error) => {
                if self.failed_at.is_none() {
                    tracing::warn!(file = %self.files.config.path(0).display(), %error, "the output of the gateway cannot be written to its file; lines will be missing there");
                }
                self.failed_at = Some(Instant::now());
                self.files.current = None;
                self.missing.fetch_add(lines + missing, Ordering::Relaxed);
            }
        }
    }
}

fn write_entry(text: &mut String, entry: &Entry) {
    let stream = match entry.line.stream {
        OutputSource::Stdout => "stdout",
        OutputSource::Stderr => "stderr",
    };
    let cut = if entry.line.truncated { " [cut]" } else { "" };
    let _ = writeln!(
        text,
        "{} {stream} {}{cut}",
        Timestamp(entry.at),
        entry.line.text
    );
}

/// A moment as RFC 3339 writes it, in UTC, with milliseconds.
struct Timestamp(SystemTime);

impl std::fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let CivilTime {
            year,
            month,
            day,
            hour,
            minute,
            second,
            millisecond,
        } = CivilTime::of(self.0);
        write!(
            formatter,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use gateway_policy::stderr::StderrLevel;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::output::OutputSender;

    fn line(text: &str) -> OutputLine {
        OutputLine {
            stream: OutputSource::Stderr,
            text: text.into(),
            level: StderrLevel::Warn,
            truncated: false,
        }
    }

    /// The texts in the files, the oldest first, without the times.
    fn texts(config: &OutputLogConfig) -> Vec<String> {
        let files = (0..config.files + 2)
            .rev()
            .filter_map(|number| fs::read_to_string(config.path(number)).ok());
        let lines = files.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines
            .map(|line| {
                line.split_once(' ')
                    .map(|(_, rest)| rest.to_owned())
                    .unwrap_or_default()
            })
            .collect()
    }

    #[test]
    fn times() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_764_054_802, "2025-11-25T07:13:22.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            let time =
                SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(7);
            assert_eq!(Timestamp(time).to_string(), expected);
        }
    }

    #[test]
    fn a_log_goes_on_where_the_last_one_ended_and_belongs_to_one_at_a_time() {
        let directory = TempDir::new().unwrap();
        let config = OutputLogConfig::new(directory.path().join("logs"));
        let log = OutputLog::open(config.clone()).unwrap();
        log.write(&line("one"));
        let second = OutputLog::open(config.clone());
        assert!(
            matches!(second, Err(OutputLogError::InUse { .. })),
            "{second:?}"
        );
        drop(log);
        let log = OutputLog::open(config.clone()).unwrap();
        log.write(&OutputLine {
            truncated: true,
            stream: OutputSource::Stdout,
            ..line("two")
        });
        log.missed(3);
        drop(log);
        assert_eq!(
            texts(&config),
            [
                "stderr one",
                "stdout two [cut]",
                "- [3 lines are missing here]"
            ]
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(config.path(0)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn what_cannot_be_a_log_is_refused() {
        let directory = TempDir::new().unwrap();
        for name in ["", "..", "a/b"] {
            let opened = OutputLog::open(OutputLogConfig::new(directory.path()).name(name));
            assert!(
                matches!(opened, Err(OutputLogError::BadName { .. })),
                "{name:?}: {opened:?}"
            );
        }
        fs::write(directory.path().join("file"), "").unwrap();
        let opened = OutputLog::open(OutputLogConfig::new(directory.path().join("file")));
        assert!(
            matches!(opened, Err(OutputLogError::Unwritable { .. })),
            "{opened:?}"
        );
    }

    /// The file is taken away and a directory put in its place: that costs lines and nothing else, and once it works again they are
    /// told of.
    #[test]
    fn a_broken_disk_costs_lines_which_are_counted() {
        let directory = TempDir::new().unwrap();
        let config = OutputLogConfig::new(directory.path()).limits(100, 2);
        let mut files = Files {
            config: config.clone(),
            current: None,
            lock: tempfile::tempfile().unwrap(),
        };
        files.open().unwrap();
        let mut writer = Writer {
            files,
            missing: Arc::default(),
            failed_at: None,
        };
        writer.write(&mut format!("{}\n", "x".repeat(90)), 1);
        // Not even empty, so that nothing can be renamed to it.
        fs::create_dir_all(config.path(1).join("in the way")).unwrap();
        writer.write(&mut format!("{}\n", "y".repeat(90)), 1);
        assert!(writer.failed_at.is_some());
        assert_eq!(writer.missing.load(Ordering::Relaxed), 1);
        writer.write(&mut "z\n".to_owned(), 1);
        assert_eq!(writer.missing.load(Ordering::Relaxed), 2);
        fs::remove_dir_all(config.path(1)).unwrap();
        writer.failed_at = writer.failed_at.and_then(|at| at.checked_sub(RETRY_AFTER));
        writer.write(&mut "back\n".to_owned(), 1);
        assert_eq!(
            (writer.failed_at, writer.missing.load(Ordering::Relaxed)),
            (None, 0)
        );
        let text = fs::read_to_string(config.path(0)).unwrap()
            + &fs::read_to_string(config.path(1)).unwrap();
        assert!(
            text.contains("back\n") && text.contains("[2 lines are missing here]"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_stream_is_recorded_without_secrets() {
        let directory = TempDir::new().unwrap();
        let config = OutputLogConfig::new(directory.path());
        let log = OutputLog::open(config.clone()).unwrap();
        let (sender, output) = OutputSender::channel(2);
        for text in ["lost", "the token is s3cret-value", "bye"] {
            sender.send(line(text));
        }
        drop(sender);
        log.record(output, &Redactor::new(["s3cret-value"], []))
            .await;
        drop(log);
        let mut texts = texts(&config);
        texts.sort();
        assert_eq!(
            texts,
            [
                "- [1 lines are missing here]",
                "stderr bye",
                "stderr the token is [redacted]"
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever is written, the newest lines are there in their order, no file is too large, and there are not too many.
        #[test]
        fn files_are_bounded_and_hold_the_newest_lines(
            lengths in proptest::collection::vec(0_usize..300, 1..60),
            max_bytes in 200_u64..1000,
            files in 1_u32..4,
        ) {
            let directory = TempDir::new().unwrap();
            let config = OutputLogConfig::new(directory.path()).limits(max_bytes, files);
            let mut written = Vec::new();
            // A new log every now and then, as by a manager that is started again.
            for (part, lengths) in lengths.chunks(20).enumerate() {
                let log = loop {
                    match OutputLog::open(config.clone()) {
                        // On a slow disk the one before may still be writing; it was let go of all the same.
                        Err(OutputLogError::InUse { .. }) => std::thread::yield_now(),
                        opened => break opened.unwrap(),
                    }
                };
                for (number, length) in lengths.iter().enumerate() {
                    let text = format!("{part}-{number}{}", "x".repeat(*length));
                    log.write(&line(&text));
                    written.push(format!("stderr {text}"));
                }
            }
            let kept = texts(&config);
            prop_assert!(!kept.is_empty() && written.ends_with(&kept), "{:?}", kept);
            let there = (0..files + 2).filter(|number| config.path(*number).exists()).count();
            prop_assert!(there <= files as usize);
            for number in 0..files {
                // One write is never torn apart: a file is as large as it may be, or as one write.
                let length = fs::metadata(config.path(number)).map_or(0, |facts| facts.len());
                prop_assert!(length <= 2 * max_bytes + 400, "{}", length);
            }
        }
    }
}
