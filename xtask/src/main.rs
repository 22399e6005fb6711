//! Automation of this workspace, started as `cargo xtask …`.
//!
//! `cargo xtask test` decides whether a change is good: it runs the test matrix of `rows`, row by row, and counts
//! what really ran. `cargo xtask gateway install` puts a pinned OpenClaw and a Node that suits it under `target/`.
//! `cargo xtask bench` measures what supervision costs. `cargo xtask mutants` and `cargo xtask defects` test the tests: they break the code and look who notices.
//! The rules that the repository keeps (`tidy`, `purity`) are ordinary tests of this crate and run as matrix rows.
//!
//! This crate is built before anything else can run, so it stays on a few small dependencies: no async runtime, and
//! none of the crates that it tests.

mod bench;
mod command;
mod debian;
mod defects;
mod explore;
mod features;
mod installation;
mod interrupt;
mod job;
mod leftovers;
mod libtest;
mod lock;
mod macos;
mod matrix;
mod mutants;
mod node_range;
mod pins;
mod progress;
mod provision;
#[cfg(test)]
mod purity;
mod rows;
#[cfg(test)]
mod spdx;
#[cfg(test)]
mod tidy;
mod tools;
mod windows;
mod workspace;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::bench::BenchArguments;
use crate::defects::Choice;
use crate::interrupt::Interrupt;
use crate::job::{Echo, Job};
use crate::mutants::{Judgement, Selection};
use crate::pins::{DEFAULT_PIN, PINS, Pin};
use crate::workspace::Workspace;

/// The limit of what somebody has started by hand, may have chosen as large as they like, and may end at any time.
const BY_HAND: Duration = Duration::from_secs(24 * 60 * 60);

/// Automation of the workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the test matrix: one line per row, the totals at the end.
    Test(TestArguments),
    /// Play stories of the whole manager in virtual time: one by its seed, told line by line, or many.
    Sim(SimArguments),
    /// Check every interleaving of the lifecycle machine, deeper than the matrix does.
    Model(ModelArguments),
    /// Change the decisions in small ways, one at a time, and list the changes that no test notices.
    Mutants(Selection),
    /// Put known defects back, one at a time, and demand that the tests named for each of them fail.
    Defects(Choice),
    /// Measure what supervision costs, next to what it is compared with, and say which limits hold.
    Bench(BenchArguments),
    /// Provision real gateways for tests.
    #[command(subcommand)]
    Gateway(GatewayTask),
}

#[derive(Args)]
struct TestArguments {
    /// What to run; the matrix is the only thing there is, so the word may be left out.
    #[arg(value_enum)]
    what: Option<TestSet>,
    /// Name the rows and stop.
    #[arg(long)]
    list: bool,
    /// Run this row only; may be given several times.
    #[arg(long = "row", value_name = "NAME")]
    rows: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum TestSet {
    Matrix,
}

#[derive(Args)]
struct SimArguments {
    /// Play the story of this seed and tell it.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Play the seeds from 0 to this one, without it.
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "seed",
        default_value_t = 1_000
    )]
    seeds: u64,
}

#[derive(Args)]
struct ModelArguments {
    /// How many steps deep; without it, as deep as the test thinks worth while.
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
}

#[derive(Subcommand)]
enum GatewayTask {
    /// Install a pinned OpenClaw and its Node under target/openclaw, or confirm that they are there.
    Install(InstallArguments),
}

#[derive(Args)]
struct InstallArguments {
    /// The OpenClaw version, one of the pinned ones.
    #[arg(long, value_name = "V", default_value = DEFAULT_PIN.openclaw, value_parser = parse_pin)]
    version: &'static Pin,
    /// Install every pinned version.
    #[arg(long, conflicts_with = "version")]
    all: bool,
}

fn parse_pin(text: &str) -> Result<&'static Pin, String> {
    pins::find(text).ok_or_else(|| {
        let known: Vec<&str> = PINS.iter().map(|pin| pin.openclaw).collect();
        format!(
            "this version is not pinned; choose one of {}",
            known.join(", ")
        )
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.task) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode, String> {
    match task {
        Task::Test(TestArguments {
            what: None | Some(TestSet::Matrix),
            list: true,
            rows,
        }) => {
            print!("{}", matrix::list(&rows::select(&rows)?));
            Ok(ExitCode::SUCCESS)
        }
        Task::Test(TestArguments {
            what: None | Some(TestSet::Matrix),
            list: false,
            rows,
        }) => {
            let rows = rows::select(&rows)?;
            let interrupt = Interrupt::install()?;
            matrix::run(&Workspace::load()?, &rows, &interrupt)
        }
        Task::Sim(SimArguments { seed, seeds }) => explore::stories(seed, seeds).run(),
        Task::Model(ModelArguments { depth }) => explore::model(depth).run(),
        Task::Mutants(selection) => {
            let interrupt = Interrupt::install()?;
            let mut job = Job::new("mutants", &interrupt);
            let Judgement { tally, failure } = mutants::run(
                &Workspace::load()?,
                &selection,
                BY_HAND,
                &mut job,
                Echo::Stdout,
            )?;
            print!("{}", tally.findings());
            println!("{tally}");
            match failure {
                Some(failure) => Err(failure),
                None if tally.counts().failed > 0 => Ok(ExitCode::FAILURE),
                None => Ok(ExitCode::SUCCESS),
            }
        }
        Task::Defects(choice) => {
            if let Some(why) = defects::impossible() {
                return Err(why);
            }
            let interrupt = Interrupt::install()?;
            let workspace = Workspace::load()?;
            let mut job = Job::new("defects", &interrupt);
            let judged = defects::run(&workspace, &choice, BY_HAND, &mut job, |judged| {
                println!("{judged}");
            });
            let log = workspace.target.join("defects").join("log");
            fs::write(&log, &job.log)
                .map_err(|error| format!("cannot write {}: {error}", log.display()))?;
            let judged = judged?;
            println!("{}", defects::totals(&judged));
            if judged.iter().all(|judged| judged.counts().failed == 0) {
                Ok(ExitCode::SUCCESS)
            } else {
                println!("what the commands printed is in {}", log.display());
                Ok(ExitCode::FAILURE)
            }
        }
        Task::Bench(arguments) => {
            let interrupt = Interrupt::install()?;
            let workspace = Workspace::load()?;
            let mut job = Job::new("bench", &interrupt);
            let mut broken = false;
            for group in arguments.groups() {
                for figure in bench::measure(&workspace, group, BY_HAND, &mut job)? {
                    arguments.show(&figure);
                    broken |= figure.robust && figure.holds() == Some(false);
                }
            }
            Ok(if arguments.check && broken {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
        Task::Gateway(GatewayTask::Install(InstallArguments { version, all })) => {
            let interrupt = Interrupt::install()?;
            let workspace = Workspace::load()?;
            let pins: Vec<&Pin> = if all {
                PINS.iter().collect()
            } else {
                vec![version]
            };
            for pin in pins {
                let installed = provision::ensure(&workspace, pin, &interrupt)
                    .map_err(|error| error.to_string())?;
                println!("{installed}");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_matrix_may_be_named_or_left_out() {
        for line in [
            &["xtask", "test"][..],
            &["xtask", "test", "matrix"],
            &["xtask", "test", "--row", "a", "--row", "b"],
        ] {
            assert!(Arguments::try_parse_from(line).is_ok(), "{line:?}");
        }
        assert!(Arguments::try_parse_from(["xtask", "test", "everything"]).is_err());
        assert!(Arguments::try_parse_from(["xtask", "no-such-task"]).is_err());
    }

    #[test]
    fn only_pinned_versions_can_be_installed() {
        assert!(Arguments::try_parse_from(["xtask", "gateway", "install"]).is_ok());
        for pin in PINS {
            assert!(
                Arguments::try_parse_from([
                    "xtask",
                    "gateway",
                    "install",
                    "--version",
                    pin.openclaw
                ])
                .is_ok()
            );
        }
        let Err(error) =
            Arguments::try_parse_from(["xtask", "gateway", "install", "--version", "1.0.0"])
        else {
            panic!("1.0.0 is not pinned");
        };
        assert!(error.to_string().contains(DEFAULT_PIN.openclaw), "{error}");
    }
}
