//! Reads the counts out of what `cargo test` prints.

use std::fmt;
use std::ops::AddAssign;

/// How many tests did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    pub(crate) const PASSED: Self = Self {
        passed: 1,
        failed: 0,
        skipped: 0,
    };
    pub(crate) const FAILED: Self = Self {
        passed: 0,
        failed: 1,
        skipped: 0,
    };
    pub(crate) const SKIPPED: Self = Self {
        passed: 0,
        failed: 0,
        skipped: 1,
    };
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// Sums the summary lines of all test programs in `output`; one `cargo test` runs several.
pub(crate) fn sum(output: &str) -> Counts {
    let mut total = Counts::default();
    for counts in output.lines().filter_map(summary) {
        total += counts;
    }
    total
}

/// Understands `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`.
fn summary(line: &str) -> Option<Counts> {
    let (_verdict, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split("; ") {
        let Some((number, what)) = part.split_once(' ') else {
            continue;
        };
        let target = match what {
            "passed" => &mut counts.passed,
            "failed" => &mut counts.failed,
            "ignored" => &mut counts.skipped,
            _ => continue,
        };
        *target = number.parse().ok()?;
    }
    Some(counts)
}

/// What did not run, each with the reason: test programs without a test for the system they ran on, and tests that are ignored.
pub(crate) fn left_out(output: &str) -> Vec<String> {
    // Cargo names the programs in one stream, and they count their tests in the other, so only the order tells which is whose.
    let programs = output
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("Running "))
        .map(|running| running.split(" (").next().unwrap_or(running));
    let counted = output.lines().filter(|line| {
        line.starts_with("running ") && (line.ends_with(" test") || line.ends_with(" tests"))
    });
    let empty = programs
        .zip(counted)
        .filter(|(program, count)| program.starts_with("tests") && *count == "running 0 tests")
        .map(|(program, _)| format!("no test of {program} is for this system"));
    let ignored = output
        .lines()
        .filter_map(|line| line.strip_prefix("test ")?.split_once(" ... ignored, "))
        .map(|(name, reason)| format!("{name}: {reason}"));
    empty.chain(ignored).collect()
}

/// What the row counts when the command itself ended with or without `failure`.
///
/// Not every failure is in the summaries: code that does not compile and a test program that crashed have none. And a
/// success without a single test means that the tests were not found.
pub(crate) fn judge(output: &str, failure: Option<String>) -> (Counts, Option<String>) {
    let mut counts = sum(output);
    let reason = match failure {
        Some(failure) if counts.failed > 0 => {
            Some(format!("{} test(s) failed; {failure}", counts.failed))
        }
        Some(failure) => {
            counts += Counts::FAILED;
            Some(failure)
        }
        None if counts.failed > 0 => {
            Some("tests failed, yet the command ended with success".to_owned())
        }
        None if counts.passed == 0 => {
            counts += Counts::FAILED;
            Some("no test ran".to_owned())
        }
        None => None,
    };
    (counts, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_PROGRAMS: &str = "\
     Running unittests src/lib.rs (target/debug/deps/gateway_policy-0)
running 3 tests
test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s
   Doc-tests gateway_policy
test result: FAILED. 4 passed; 5 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s; merged doctests compilation took 0.8s
";

    #[test]
    fn the_summaries_of_all_programs_are_added() {
        assert_eq!(
            sum(TWO_PROGRAMS),
            Counts {
                passed: 6,
                failed: 5,
                skipped: 1
            }
        );
    }

    #[test]
    fn what_did_not_run_is_named_with_its_reason() {
        let output = "\
     Running unittests src/main.rs (target/x/deps/gatewayctl-0.exe)
running 0 tests
     Running tests/it/main.rs (target/x/deps/it-0.exe)
running 2 tests
test ports::owner ... ignored, nobody tells
     Running tests/life.rs (target/x/deps/life-0.exe)
     Running tests/one.rs (target/x/deps/one-0.exe)
test ports::free ... ok
running 0 tests
running 1 test
";
        assert_eq!(
            left_out(output),
            [
                "no test of tests/life.rs is for this system",
                "ports::owner: nobody tells"
            ]
        );
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in [
            "",
            "test result:",
            "test result: ok.",
            "test result: ok. x passed; 0 failed",
            "a test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "error: could not compile `gateway-policy` (lib test) due to 1 previous error",
        ] {
            assert_eq!(sum(line), Counts::default(), "{line}");
        }
    }

    #[test]
    fn every_way_to_fail_counts_as_failed() {
        let passed = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n";
        let none = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s\n";
        let cases: [(&str, Option<&str>, Counts, bool); 6] = [
            (
                passed,
                None,
                Counts {
                    passed: 2,
                    failed: 0,
                    skipped: 0,
                },
                true,
            ),
            (
                passed,
                Some("exit status: 101"),
                Counts {
                    passed: 2,
                    failed: 1,
                    skipped: 0,
                },
                false,
            ),
            (none, None, Counts::FAILED, false),
            ("", None, Counts::FAILED, false),
            (
                "error: could not compile",
                Some("exit status: 101"),
                Counts::FAILED,
                false,
            ),
            (
                TWO_PROGRAMS,
                Some("exit status: 101"),
                Counts {
                    passed: 6,
                    failed: 5,
                    skipped: 1,
                },
                false,
            ),
        ];
        for (output, failure, expected, good) in cases {
            let (counts, reason) = judge(output, failure.map(str::to_owned));
            assert_eq!(
                (counts, reason.is_none()),
                (expected, good),
                "{output:?} {failure:?}"
            );
        }
    }
}
