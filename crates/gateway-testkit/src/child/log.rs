//! Output in OpenClaw's form: `<ISO time> [<subsystem>] <message>`.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::fake_gateway::Vintage;

/// Writes lines. When nobody reads them any more, 2026.9.6 ends the process with code 0; 2026.3.2 goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    vintage: Vintage,
}

impl Log {
    pub(super) fn new(vintage: Vintage) -> Self {
        Self { vintage }
    }

    /// An informational line, to stdout.
    pub(super) fn info(self, subsystem: &str, message: &str) {
        self.written(print(
            io::stdout().lock(),
            &format!("{} [{subsystem}] {message}", timestamp()),
        ));
    }

    /// A line as it is, to stdout.
    pub(super) fn plain(self, line: &str) {
        self.written(print(io::stdout().lock(), line));
    }

    /// A line as it is, to stderr.
    pub(super) fn plain_error(self, line: &str) {
        self.written(print(io::stderr().lock(), line));
    }

    fn written(self, result: io::Result<()>) {
        if result.is_err() && self.vintage == Vintage::V2026_9_6 {
            std::process::exit(0);
        }
    }
}

fn print(mut stream: impl Write, line: &str) -> io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes())?;
    stream.flush()
}

fn timestamp() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    iso(now.as_secs(), now.subsec_millis())
}

/// `2026-11-23T14:24:47.123Z`.
fn iso(seconds: u64, millis: u32) -> String {
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    // The civil date of a day count: years begin in March, so that the leap day is the last one.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::iso;

    #[test]
    fn times_are_iso() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_795_402_436, "2026-11-23T02:53:56.007Z"),
            (4_107_542_399, "2100-02-28T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(iso(seconds, 7), text);
        }
    }
}
