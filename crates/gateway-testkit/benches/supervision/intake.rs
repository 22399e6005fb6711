//! How fast the output of a child is taken in: read, cut into lines, decoded, classified, counted and recorded, on one thread.

use std::io::{Read as _, Write as _};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use gateway_process::{
    Environment, LaunchSpec, OsProcessHost, OutputEvent, OutputSource, ProcessHost as _,
};

use crate::figure::{Figure, Limit, median, memory, own_program};

/// The first argument of the process that writes.
pub(crate) const WRITER: &str = "write";

const BYTES: u64 = 256 * 1024 * 1024;

const SAMPLES: usize = 5;

/// What a gateway prints, more or less: plain and coloured lines, some of them noise, 100 bytes on average.
const LINES: &[&str] = &[
    "2026-11-25T07:13:22.294+00:00 [gateway] loading configuration from the state directory\u{2026}",
    "2026-11-25T07:13:23.234+00:00 [ws] closed before connect conn=4f2a9c71 remote=127.0.0.1 reason=token mismatch",
    "(node:12345) ExperimentalWarning: SQLite is an experimental feature and might change at any time",
    "2026-11-25T07:13:27.283+00:00 [health-monitor] started (interval: 300s, startup-grace: 60s, channel-connect-grace: 120s)",
    "    at async GatewayServer.handleUpgrade (file:///opt/openclaw/dist/gateway/server-ws-connection.js:412:18)",
    "2026-11-25T07:13:28.049+00:00 [telegram] getUpdates conflict: terminated by another long poll; retrying in 5s",
    "Error: connect ECONNREFUSED 127.0.0.1:11434",
];

/// The same with the colours that a gateway uses when it is told to.
const COLOURED: &[&str] = &[
    "\u{1b}[90m2026-11-25T07:13:22.294+00:00\u{1b}[39m \u{1b}[36m[gateway]\u{1b}[39m \u{1b}[36mloading configuration from the state directory\u{1b}[39m",
    "\u{1b}[90m2026-11-25T07:13:23.234+00:00\u{1b}[39m \u{1b}[33m[ws]\u{1b}[39m \u{1b}[33mclosed before connect conn=4f2a9c71 reason=token mismatch\u{1b}[39m",
];

/// The body of the child: writes so many bytes of lines to stderr, then says on stdout how long its longest write took.
pub(crate) fn write(arguments: &str) -> ExitCode {
    let (lines, bytes) = match arguments.split_once(':') {
        Some(("coloured", bytes)) => (COLOURED, bytes),
        Some((_, bytes)) => (LINES, bytes),
        None => (LINES, arguments),
    };
    let mut left: usize = bytes.parse().expect("a number of bytes");
    let mut text = String::new();
    while text.len() < 1024 * 1024 {
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
    }
    let mut stderr = std::io::stderr().lock();
    let mut longest = Duration::ZERO;
    while left > 0 {
        for piece in text.as_bytes().chunks(64 * 1024) {
            let piece = &piece[..piece.len().min(left)];
            let begin = Instant::now();
            if stderr.write_all(piece).is_err() {
                return ExitCode::FAILURE;
            }
            longest = longest.max(begin.elapsed());
            left -= piece.len();
        }
    }
    println!("{}", longest.as_micros());
    ExitCode::SUCCESS
}

pub(crate) fn run() {
    let bare: Vec<f64> = (0..SAMPLES).map(|_| bare_reader()).collect();
    let bare = median(&bare);
    for (name, lines, readers, limit) in [
        ("stderr-intake", "plain", 0, Some(Limit::AtLeast(300.0))),
        (
            "stderr-intake-with-a-reader",
            "plain",
            1,
            Some(Limit::AtLeast(300.0)),
        ),
        ("stderr-intake-coloured", "coloured", 0, None),
    ] {
        let (before, _) = memory();
        let taken: Vec<Taken> = (0..SAMPLES).map(|_| take_in(lines, readers)).collect();
        let (after, most) = memory();
        // Told on stdout, which only a reader sees.
        let longest = taken.iter().filter_map(|taken| taken.longest_write).max();
        let longest = longest.map_or(String::new(), |time| {
            format!("the child's longest write {time:?}; ")
        });
        let first = &taken[0];
        Figure {
            name,
            unit: "MB/s",
            samples: taken.iter().map(|taken| taken.rate).collect(),
            limit,
            robust: true,
            note: format!(
                "{} MiB and {} lines each time, {} of them warnings, {} delivered, {} missed; a reader that only throws away: {bare:.0} MB/s; \
                 {longest}memory {before} KiB before, {after} KiB after, {most} KiB at most",
                BYTES / 1024 / 1024,
                first.lines,
                first.warnings,
                first.delivered,
                first.missed,
            ),
        }
        .print();
    }
}

/// The speed of the pipe itself: a reader that throws away what it reads.
fn bare_reader() -> f64 {
    let begin = Instant::now();
    let mut child = Command::new(own_program())
        .args([WRITER, &format!("plain:{BYTES}")])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("this program can be started");
    let mut pipe = child.stderr.take().expect("a pipe");
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0_u64;
    while let Ok(read @ 1..) = pipe.read(&mut buffer) {
        total += read as u64;
    }
    assert_eq!(total, BYTES);
    child.wait().expect("it ends");
    rate(begin.elapsed())
}

fn rate(took: Duration) -> f64 {
    BYTES as f64 / 1e6 / took.as_secs_f64()
}

struct Taken {
    rate: f64,
    lines: u64,
    warnings: u64,
    delivered: u64,
    missed: u64,
    longest_write: Option<Duration>,
}

/// One flood, taken in by a runtime of one thread.
fn take_in(lines: &str, readers: usize) -> Taken {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let spec = LaunchSpec::new(own_program(), Environment::empty())
            .args([WRITER, &format!("{lines}:{BYTES}")]);
        let begin = Instant::now();
        let child = OsProcessHost::new().spawn(&spec).await.expect("it starts");
        let mut output = child.output();
        let (mut delivered, mut missed, mut last) = (0, 0, None);
        if readers == 0 {
            drop(output);
        } else {
            while let Some(event) = output.next().await {
                match event {
                    OutputEvent::Line(line) if line.stream == OutputSource::Stdout => {
                        last = Some(line)
                    }
                    OutputEvent::Line(_) => delivered += 1,
                    OutputEvent::Missed(lines) => missed += lines,
                }
            }
        }
        let exit = child.wait().await;
        let took = begin.elapsed();
        assert_eq!(exit.code, Some(0), "{exit}");
        let counts = child.output_counts();
        let longest = last.and_then(|line| line.text.parse().ok());
        Taken {
            rate: rate(took),
            lines: counts.lines() - 1,
            warnings: counts.warnings,
            delivered,
            missed,
            longest_write: longest.map(Duration::from_micros),
        }
    })
}
