//! What the operating system tells about a living process and about the machine's sleep, read in passing and never waited for.
//!
//! On Linux from `/proc` and from the two monotonic clocks, on Windows from the corresponding functions; elsewhere nothing is told yet,
//! and whoever asks has to do without.

#[cfg(windows)]
mod windows;

use std::time::Duration;

/// Processor time and run state of one process.
#[cfg_attr(
    not(any(target_os = "linux", windows)),
    allow(dead_code, reason = "nothing is told there yet")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vitals {
    /// Processor time of all its threads, in user and kernel mode.
    pub(crate) processor_time: Duration,
    /// Stopped by a signal or a debugger.
    pub(crate) halted: bool,
}

/// Looks at a process. The caller knows that the number still belongs to the process it means.
#[cfg(target_os = "linux")]
pub(crate) fn of_process(pid: u32) -> Option<Vitals> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&stat, rustix::param::clock_ticks_per_second())
}

#[cfg(windows)]
pub(crate) fn of_process(pid: u32) -> Option<Vitals> {
    windows::of_process(pid)
}

#[cfg(not(any(target_os = "linux", windows)))]
pub(crate) fn of_process(_pid: u32) -> Option<Vitals> {
    None
}

/// How long the machine has slept since it was switched on: one monotonic clock of Linux counts sleep, the other does not.
#[cfg(target_os = "linux")]
pub(crate) fn time_asleep() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    // In this order, so that the time between the two readings is not taken for sleep.
    let with_sleep = read(ClockId::Boottime);
    with_sleep.saturating_sub(read(ClockId::Monotonic))
}

#[cfg(windows)]
pub(crate) fn time_asleep() -> Duration {
    windows::time_asleep()
}

#[cfg(not(any(target_os = "linux", windows)))]
pub(crate) fn time_asleep() -> Duration {
    Duration::ZERO
}

/// Reads the fields 3 (state), 14 and 15 (processor time in ticks) of `/proc/<pid>/stat`, as proc_pid_stat(5) numbers them. The second
/// one is the program's name in parentheses and may hold anything, parentheses included.
#[cfg(any(target_os = "linux", test))]
fn parse_stat(stat: &str, ticks_per_second: u64) -> Option<Vitals> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    let mut ticks = fields.skip(10);
    let user: u64 = ticks.next()?.parse().ok()?;
    let kernel: u64 = ticks.next()?.parse().ok()?;
    let milliseconds = user.saturating_add(kernel).saturating_mul(1_000) / ticks_per_second.max(1);
    Some(Vitals {
        processor_time: Duration::from_millis(milliseconds),
        halted: matches!(state, "T" | "t"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let rest = "1 1 1 0 -1 4194560 2413 0 0 0 120 30 0 0 20 0 11 0 8021 1 2";
        let vitals = |milliseconds, halted| {
            Some(Vitals {
                processor_time: Duration::from_millis(milliseconds),
                halted,
            })
        };
        let table = [
            (format!("7 (node) S {rest}"), vitals(1_500, false)),
            (format!("7 (node) T {rest}"), vitals(1_500, true)),
            (format!("7 (node) t {rest}"), vitals(1_500, true)),
            (format!("7 (a) T (b) R {rest}"), vitals(1_500, false)),
            ("7 (node) S 1 1".to_owned(), None),
            ("7 (node) S 1 1 1 0 -1 0 0 0 0 0 x 30".to_owned(), None),
            (String::new(), None),
        ];
        for (line, expected) in table {
            assert_eq!(parse_stat(&line, 100), expected, "{line:?}");
        }
    }

    #[cfg(any(target_os = "linux", windows))]
    #[test]
    fn this_process_works_and_this_machine_does_not_sleep_meanwhile() {
        let pid = std::process::id();
        let before = of_process(pid).expect("this process is there");
        let slept = time_asleep();
        // Processor time is counted in hundredths of a second; this loop ends as soon as one has passed.
        let after = loop {
            let now = of_process(pid).expect("this process is there");
            if now.processor_time > before.processor_time {
                break now;
            }
        };
        assert!(!after.halted);
        assert!(time_asleep() - slept < Duration::from_secs(1));
        assert_eq!(of_process(u32::MAX), None);
    }
}
