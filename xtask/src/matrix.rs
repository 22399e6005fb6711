//! Runs rows and reports on them.
//!
//! Stdout carries the report: the output of rows that failed, a line per row, the totals. Stderr carries what is
//! going on meanwhile. The complete output of each row is kept in `target/xtask/<row>.log`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::bench;
use crate::debian::{self, Toolchain};
use crate::defects::{self, Choice, Outcome};
use crate::features;
use crate::interrupt::Interrupt;
use crate::job::{Echo, Job};
use crate::libtest::{self, Counts};
use crate::macos;
use crate::mutants::{self, Judgement, Selection};
use crate::pins::Pin;
use crate::provision::{self, ProvisionError};
use crate::rows::{Row, Work};
use crate::windows::{self, Wine};
use crate::workspace::{Package, Workspace};

/// The text of `--list`.
pub(crate) fn list(rows: &[Row]) -> String {
    rows.iter().fold(String::new(), |mut text, row| {
        let not_built = if let Work::NotBuilt = row.work {
            " (not built yet)"
        } else {
            ""
        };
        let _ = writeln!(text, "{:<24} {}{not_built}", row.name, row.about);
        text
    })
}

/// Runs `rows` one after the other. The exit code tells whether none failed.
pub(crate) fn run(
    workspace: &Workspace,
    rows: &[Row],
    interrupt: &Interrupt,
) -> Result<ExitCode, String> {
    let logs = workspace.target.join("xtask");
    fs::create_dir_all(&logs)
        .map_err(|error| format!("cannot create {}: {error}", logs.display()))?;
    let mut total = Counts::default();
    let mut failed: Vec<String> = Vec::new();
    for row in rows {
        let started = Instant::now();
        let mut runner = Runner {
            workspace,
            row,
            job: Job::new(&row.name, interrupt),
            report: Report::default(),
        };
        runner.work();
        let Runner { report, job, .. } = runner;

        let log = logs.join(format!("{}.log", row.name));
        fs::write(&log, &job.log)
            .map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        if report.counts.failed > 0 {
            println!(
                "---- {} ----\n{}---- end of {} ----",
                row.name, job.log, row.name
            );
            failed.push(format!("{} ({})", row.name, relative(workspace, log)));
        }
        println!("{}", line(&row.name, &report, started.elapsed()));
        total += report.counts;
        if interrupt.requested() {
            println!("interrupted; the rows after {} did not run", row.name);
            break;
        }
    }
    if !failed.is_empty() {
        println!("failed rows: {}", failed.join(", "));
    }
    println!("{total}");
    let good = failed.is_empty() && !interrupt.requested();
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn relative(workspace: &Workspace, path: PathBuf) -> String {
    path.strip_prefix(&workspace.root)
        .unwrap_or(&path)
        .display()
        .to_string()
}

fn line(name: &str, report: &Report, took: Duration) -> String {
    let notes = if report.notes.is_empty() {
        String::new()
    } else {
        format!("  {}", report.notes.join("; "))
    };
    format!(
        "{name:<24} {}  {:.1} s{notes}",
        report.counts,
        took.as_secs_f32()
    )
}

/// What is known about a row when it is over.
#[derive(Default)]
struct Report {
    counts: Counts,
    /// Why something was skipped or failed.
    notes: Vec<String>,
}

impl Report {
    fn add(&mut self, counts: Counts, note: Option<String>) {
        self.counts += counts;
        self.notes.extend(note);
    }
}

struct Runner<'a> {
    workspace: &'a Workspace,
    row: &'a Row,
    job: Job<'a>,
    report: Report,
}

impl Runner<'_> {
    fn work(&mut self) {
        match &self.row.work {
            Work::Cargo {
                arguments,
                environment,
                limit,
            } => {
                let mut cargo = self.workspace.cargo();
                cargo.args(*arguments).envs(environment.iter().copied());
                let failure = self.command(cargo, *limit, Echo::Nothing).1;
                self.report.add(
                    if failure.is_none() {
                        Counts::PASSED
                    } else {
                        Counts::FAILED
                    },
                    failure,
                );
            }
            Work::Tests {
                package,
                arguments,
                limit,
            } => self.tests(package, arguments, *limit),
            Work::Explore { what, limit } => {
                let mut cargo = self.workspace.cargo();
                what.prepare(&mut cargo);
                let output = self.count_tests(cargo, *limit, Echo::Nothing);
                let said = output.lines().filter(|line| line.starts_with(what.says));
                self.report.notes.extend(said.map(str::to_owned));
            }
            Work::FeatureCombinations { limit } => self.feature_combinations(*limit),
            Work::RealGateway { pin, limit } => self.real_gateway(pin, *limit),
            Work::Mutants { limit } => self.mutants(*limit),
            Work::Defects { limit } => self.defects(*limit),
            Work::Bench { limit } => self.bench(*limit),
            Work::Windows { limit } => self.windows(*limit),
            Work::MacOs { limit } => self.macos(*limit),
            Work::NotBuilt => self
                .report
                .add(Counts::SKIPPED, Some("not built yet".to_owned())),
        }
    }

    fn tests(&mut self, package: &str, arguments: &[&str], limit: Duration) {
        let mut cargo = self.workspace.cargo();
        cargo.args(["test", "--package", package, "--no-fail-fast"]);
        let features = self
            .workspace
            .member(package)
            .map(features::for_tests)
            .unwrap_or_default();
        if !features.is_empty() {
            cargo.args(["--features", &features.join(",")]);
        }
        cargo.arg("--").args(arguments);
        self.count_tests(cargo, limit, Echo::Nothing);
    }

    /// Runs tests and counts them; gives what was printed.
    fn count_tests(&mut self, cargo: Command, limit: Duration, echo: Echo) -> String {
        let (output, failure) = self.command(cargo, limit, echo);
        let (counts, failure) = libtest::judge(&output, failure);
        let ignored =
            (counts.skipped > 0).then(|| format!("{} ignored by their attribute", counts.skipped));
        self.report.add(counts, failure);
        self.report.notes.extend(ignored);
        output
    }

    fn feature_combinations(&mut self, limit: Duration) {
        let libraries: Vec<&Package> = self
            .workspace
            .members()
            .into_iter()
            .filter(|package| package.is_library())
            .collect();
        for package in libraries {
            for features in features::combinations(package) {
                if self.job.interrupt.requested() {
                    return;
                }
                let features = features.join(",");
                let mut cargo = self.workspace.cargo();
                cargo.args([
                    "check",
                    "--package",
                    &package.name,
                    "--lib",
                    "--no-default-features",
                ]);
                cargo.args(["--features", &features]);
                let (output, failure) = self.command(cargo, limit, Echo::Nothing);
                let failure =
                    failure.or_else(|| has_warnings(&output).then(|| "warnings".to_owned()));
                let counts = if failure.is_none() {
                    Counts::PASSED
                } else {
                    Counts::FAILED
                };
                let note =
                    failure.map(|failure| format!("{} with [{features}]: {failure}", package.name));
                self.report.add(counts, note);
            }
        }
    }

    fn real_gateway(&mut self, pin: &Pin, limit: Duration) {
        let provisioned = match provision::ensure(self.workspace, pin, self.job.interrupt) {
            Ok(provisioned) => provisioned,
            Err(ProvisionError::Impossible(why)) => {
                return self.report.add(Counts::SKIPPED, Some(why));
            }
            Err(ProvisionError::Failed(why)) => return self.fail(&why),
        };
        let _ = writeln!(self.job.log, "{provisioned}");
        println!("{provisioned}");
        let mut cargo = self.workspace.cargo();
        cargo.args([
            "test",
            "--package",
            "gateway-testkit",
            "--features",
            "real-gateway",
            "--test",
            "real_gateway",
        ]);
        // One test at a time: each has a gateway of its own, and their times are to be compared.
        cargo.args(["--", "--nocapture", "--test-threads=1"]);
        cargo
            .env("OPENCLAW_TEST_PROJECT", &provisioned.project)
            .env("OPENCLAW_TEST_VERSION", pin.openclaw);
        self.count_tests(cargo, limit, Echo::Stdout);
    }

    fn mutants(&mut self, limit: Duration) {
        let selection = Selection::default();
        let judged = mutants::run(
            self.workspace,
            &selection,
            limit,
            &mut self.job,
            Echo::Nothing,
        );
        match judged {
            Ok(Judgement { tally, failure }) => {
                self.report.add(tally.counts(), Some(tally.to_string()));
                if let Some(failure) = failure {
                    self.report.add(Counts::FAILED, Some(failure));
                }
            }
            Err(why) => self.fail(&why),
        }
    }

    fn defects(&mut self, limit: Duration) {
        if let Some(why) = defects::impossible() {
            return self.report.add(Counts::SKIPPED, Some(why));
        }
        let report = &mut self.report;
        let judged = defects::run(
            self.workspace,
            &Choice::default(),
            limit,
            &mut self.job,
            |judged| {
                let unnoticed = judged.outcome != Outcome::Noticed;
                let note = format!("{}: {}", judged.patch.name, judged.outcome);
                report.add(judged.counts(), unnoticed.then_some(note));
            },
        );
        if let Err(why) = judged {
            self.fail(&why);
        }
    }

    fn bench(&mut self, limit: Duration) {
        for group in bench::GROUPS.iter().filter(|group| group.robust) {
            match bench::measure(self.workspace, group, limit, &mut self.job) {
                Ok(figures) => {
                    for figure in figures.into_iter().filter(|figure| figure.robust) {
                        let (counts, note) = match figure.holds_when_busy() {
                            None => continue,
                            Some(true) => (Counts::PASSED, None),
                            Some(false) => (Counts::FAILED, Some(figure.to_string())),
                        };
                        self.report.add(counts, note);
                    }
                }
                Err(why) => self.fail(&why),
            }
        }
    }

    fn windows(&mut self, limit: Duration) {
        let Some(toolchain) = self.debian(windows::PACKAGES) else {
            return;
        };
        let wine = match Wine::ensure(self.workspace, &mut self.job) {
            Ok(wine) => wine,
            Err(why) => return self.fail(&why),
        };
        let tests = wine.tests(self.workspace, &toolchain);
        let output = self.count_tests(tests, limit, Echo::Nothing);
        if has_warnings(&output) {
            self.report
                .add(Counts::FAILED, Some("warnings for Windows".to_owned()));
        }
        self.report.notes.extend(libtest::left_out(&output));
    }

    fn macos(&mut self, limit: Duration) {
        let Some(toolchain) = self.debian(&[]) else {
            return;
        };
        let check = macos::check(self.workspace, &toolchain);
        let (output, failure) = self.command(check, limit, Echo::Nothing);
        let failure = failure.or_else(|| has_warnings(&output).then(|| "warnings".to_owned()));
        let counts = if failure.is_none() {
            Counts::PASSED
        } else {
            Counts::FAILED
        };
        self.report.add(counts, failure);
    }

    /// The toolchain from Debian's packages, with `more` of them. Without one the report says why.
    fn debian(&mut self, more: &[&str]) -> Option<Toolchain> {
        match debian::ensure(self.workspace, more, &mut self.job) {
            Ok(toolchain) => {
                let _ = writeln!(self.job.log, "Debian's rustc {}", toolchain.version);
                Some(toolchain)
            }
            Err(ProvisionError::Impossible(why)) => {
                self.report.add(Counts::SKIPPED, Some(why));
                None
            }
            Err(ProvisionError::Failed(why)) => {
                self.fail(&why);
                None
            }
        }
    }

    /// Counts a failure whose first line says enough for the report.
    fn fail(&mut self, why: &str) {
        let _ = writeln!(self.job.log, "{why}");
        let first = why.lines().next().unwrap_or_default().to_owned();
        self.report.add(Counts::FAILED, Some(first));
    }

    /// Runs one command of the row. Returns its output and why it failed.
    fn command(
        &mut self,
        command: Command,
        limit: Duration,
        echo: Echo,
    ) -> (String, Option<String>) {
        match self.job.run(command, limit, echo) {
            Ok(finished) => {
                let failure = finished.failure();
                (finished.output, failure)
            }
            Err(why) => (String::new(), Some(why)),
        }
    }
}

/// Whether cargo summed up warnings of a crate. They are not turned into errors through `RUSTFLAGS`, because that
/// would build every dependency a second time.
fn has_warnings(output: &str) -> bool {
    output
        .lines()
        .any(|line| line.starts_with("warning: `") && line.contains(" generated "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows;

    #[test]
    fn a_line_holds_name_counts_time_and_reasons() {
        let mut report = Report::default();
        report.add(
            Counts {
                passed: 12,
                failed: 0,
                skipped: 0,
            },
            None,
        );
        assert_eq!(
            line("policy", &report, Duration::from_millis(1_260)),
            "policy                   12 passed, 0 failed, 0 skipped  1.3 s"
        );
        report.add(
            Counts::SKIPPED,
            Some("npm is not on this machine".to_owned()),
        );
        report.add(Counts::FAILED, Some("no test ran".to_owned()));
        assert_eq!(
            line("policy", &report, Duration::ZERO),
            "policy                   12 passed, 1 failed, 1 skipped  0.0 s  npm is not on this machine; no test ran"
        );
    }

    #[test]
    fn what_is_not_built_is_listed_as_such_and_counts_as_skipped() {
        let rows = rows::all();
        let listed = list(&rows);
        assert_eq!(listed.lines().count(), rows.len());
        assert!(
            listed
                .lines()
                .any(|line| line.starts_with("fuzz ") && line.ends_with("(not built yet)")),
            "{listed}"
        );

        let row = rows
            .iter()
            .find(|row| matches!(row.work, Work::NotBuilt))
            .unwrap();
        let workspace = Workspace::load().unwrap();
        let interrupt = Interrupt::default();
        let mut runner = Runner {
            workspace: &workspace,
            row,
            job: Job::new(&row.name, &interrupt),
            report: Report::default(),
        };
        runner.work();
        assert_eq!(runner.report.counts, Counts::SKIPPED);
    }

    #[test]
    fn warnings_of_the_compiler_are_noticed() {
        assert!(has_warnings(
            "    Checking x\nwarning: `gateway-policy` (lib) generated 1 warning\n"
        ));
        assert!(!has_warnings(
            "    Checking x\nwarning: unused config key `build.x`\n    Finished\n"
        ));
    }
}
