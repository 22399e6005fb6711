//! Changes the decisions of gateway-policy in small ways, one at a time, and finds out whether a test notices each.
//!
//! cargo-mutants does the work, in copies of the workspace below `target/mutants/`; this module starts it and judges what
//! it found. How it builds and tests stands in `.cargo/mutants.toml`.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Deserialize;

use crate::command::Ending;
use crate::job::{Echo, Job};
use crate::libtest::Counts;
use crate::lock;
use crate::tools::{self, CARGO_MUTANTS};
use crate::workspace::{self, Workspace};

/// The package whose code is changed.
const PACKAGE: &str = "gateway-policy";

/// The files that hold the decisions.
const DECISIONS: &[&str] = &[
    "crates/gateway-policy/src/lifecycle.rs",
    "crates/gateway-policy/src/lifecycle/**",
    "crates/gateway-policy/src/restart.rs",
    "crates/gateway-policy/src/budget.rs",
    "crates/gateway-policy/src/backoff.rs",
    "crates/gateway-policy/src/failure.rs",
    "crates/gateway-policy/src/liveness.rs",
];

/// What the tests of a mutant find in their environment. Every mutant is to be judged alike and within seconds: the
/// same few cases each time, no search for the smallest one that fails, and nothing remembered from the mutant before.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("PROPTEST_CASES", "256"),
    ("PROPTEST_RNG_SEED", "1"),
    ("PROPTEST_MAX_SHRINK_ITERS", "0"),
    ("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1"),
];

/// With `--model`: deep enough to walk through every phase, shallow enough for hundreds of runs.
const MODEL_DEPTH: &str = "10";

/// What to change, and with how many builds at a time.
#[derive(Args, Clone, Debug)]
pub(crate) struct Selection {
    /// Change all files of the package, not only those that hold decisions.
    #[arg(long, conflicts_with = "files")]
    all: bool,
    /// Change the files that this glob fits, instead of those that hold decisions; may be given several times.
    #[arg(long = "file", value_name = "GLOB")]
    files: Vec<String>,
    /// Test only the K-th of N equal parts of the mutants, counted from 0.
    #[arg(long, value_name = "K/N", value_parser = parse_shard)]
    shard: Option<String>,
    /// How many mutants are built and tested at a time.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_JOBS, value_parser = clap::value_parser!(u8).range(1..))]
    jobs: u8,
    /// Let the model checker look at each mutant too, which takes longer.
    #[arg(long)]
    model: bool,
}

const DEFAULT_JOBS: u8 = 2;

impl Default for Selection {
    fn default() -> Self {
        Self {
            all: false,
            files: Vec::new(),
            shard: None,
            jobs: DEFAULT_JOBS,
            model: false,
        }
    }
}

fn parse_shard(text: &str) -> Result<String, String> {
    let numbers = text
        .split_once('/')
        .and_then(|(part, parts)| Some((part.parse::<u32>().ok()?, parts.parse::<u32>().ok()?)));
    match numbers {
        Some((part, parts)) if part < parts => Ok(text.to_owned()),
        _ => Err("a part is written as K/N, with K from 0 to N - 1".to_owned()),
    }
}

impl Selection {
    /// The arguments of cargo-mutants that say what to change and what to test it with.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--package".to_owned(), PACKAGE.to_owned()];
        let files: Vec<&str> = if self.all {
            Vec::new()
        } else if self.files.is_empty() {
            DECISIONS.to_vec()
        } else {
            self.files.iter().map(String::as_str).collect()
        };
        for file in files {
            arguments.extend(["--file".to_owned(), file.to_owned()]);
        }
        if let Some(shard) = &self.shard {
            arguments.extend(["--shard".to_owned(), shard.clone()]);
        }
        arguments.extend(["--jobs".to_owned(), self.jobs.to_string()]);
        if self.model {
            arguments.push("--cargo-arg=--test=model".to_owned());
        }
        arguments
    }
}

/// What a run found out, and why it is not to be trusted when it is not.
#[derive(Debug)]
pub(crate) struct Judgement {
    pub(crate) tally: Tally,
    pub(crate) failure: Option<String>,
}

/// The mutants by what became of them. The lists hold place and description of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    caught: usize,
    missed: Vec<String>,
    timed_out: Vec<String>,
    unviable: usize,
}

impl Tally {
    /// As checks: tests that never end have noticed the mutant as well, and one that does not compile says nothing.
    pub(crate) fn counts(&self) -> Counts {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Counts {
            passed: number(self.caught + self.timed_out.len()),
            failed: number(self.missed.len()),
            skipped: 0,
        }
    }

    /// How many mutants were tested.
    fn tested(&self) -> usize {
        self.caught + self.missed.len() + self.timed_out.len() + self.unviable
    }

    /// A line for each mutant that somebody has to look at.
    pub(crate) fn findings(&self) -> String {
        let lists = [("missed", &self.missed), ("timeout", &self.timed_out)];
        let mut text = String::new();
        for (word, mutants) in lists {
            for mutant in mutants {
                let _ = writeln!(text, "{word:<8} {mutant}");
            }
        }
        text
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} caught, {} missed, {} timeout, {} unviable",
            self.caught,
            self.missed.len(),
            self.timed_out.len(),
            self.unviable
        )
    }
}

/// Tests the chosen mutants within `limit`, for which cargo-mutants is installed first where it is missing.
///
/// # Errors
/// When nothing was tested at all. What the run itself has to complain about is in the judgement.
pub(crate) fn run(
    workspace: &Workspace,
    selection: &Selection,
    limit: Duration,
    job: &mut Job<'_>,
    echo: Echo,
) -> Result<Judgement, String> {
    let program = tools::ensure(workspace, CARGO_MUTANTS, job)?;
    let folder = workspace.target.join("mutants");
    let copies = folder.join("copies");
    let found = folder.join("mutants.out");
    fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    let _lock = lock::hold(&folder.join("lock"), job.interrupt)?;
    // What an earlier run found must not be taken for the findings of this one, and one that was ended by force has
    // left its copies behind.
    for leftover in [&found, &copies] {
        remove(leftover)?;
    }
    fs::create_dir_all(&copies)
        .map_err(|error| format!("cannot create {}: {error}", copies.display()))?;

    let mut mutants = workspace::as_from_a_prompt(program, &workspace.root);
    mutants
        .args(["mutants", "--output"])
        .arg(&folder)
        .args(selection.arguments())
        .envs(ENVIRONMENT.iter().copied())
        .env("GATEWAY_MODEL_DEPTH", MODEL_DEPTH)
        .envs(["TMPDIR", "TMP", "TEMP"].map(|variable| (variable, &copies)))
        // Each copy has a build folder of its own; in a common one they would wait for each other.
        .env_remove("CARGO_TARGET_DIR");
    let started = Instant::now();
    let finished = job.run(mutants, limit, echo)?;
    let took = started.elapsed();
    remove(&copies)?;

    let judged = match &finished.ending {
        // Every mutant was caught, some were missed, or some timed out.
        Ending::Exited(status) if matches!(status.code(), Some(0 | 2 | 3)) => None,
        Ending::Exited(status) if status.code() == Some(4) => Some(
            "the tests fail without any mutant; see target/mutants/mutants.out/log/baseline.log"
                .to_owned(),
        ),
        _ => finished.failure(),
    };
    let file = found.join("outcomes.json");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) => {
            let why = judged.unwrap_or_else(|| format!("cannot read {}: {error}", file.display()));
            return Err(format!("nothing was tested: {why}"));
        }
    };
    let tally = tally(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let failure =
        judged.or_else(|| (tally.tested() == 0).then(|| "no mutant was tested".to_owned()));
    let _ = write!(job.log, "{}", tally.findings());
    if let Some(each) = u32::try_from(tally.tested())
        .ok()
        .and_then(|tested| took.checked_div(tested))
    {
        let _ = writeln!(
            job.log,
            "{} mutants in {:.0} s, {:.1} s each",
            tally.tested(),
            took.as_secs_f32(),
            each.as_secs_f32()
        );
    }
    Ok(Judgement { tally, failure })
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The file `outcomes.json` of cargo-mutants, as far as it matters here.
#[derive(Deserialize)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    scenario: Scenario,
    summary: Summary,
}

#[derive(Deserialize)]
enum Scenario {
    /// The code as it is.
    Baseline,
    Mutant(Mutant),
}

#[derive(Deserialize)]
struct Mutant {
    /// `file:line:column: description`.
    name: String,
}

#[derive(Clone, Copy, Deserialize)]
enum Summary {
    Success,
    CaughtMutant,
    MissedMutant,
    Unviable,
    Failure,
    Timeout,
}

fn tally(text: &str) -> Result<Tally, String> {
    let Outcomes { outcomes } = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut tally = Tally::default();
    for Outcome { scenario, summary } in outcomes {
        let Scenario::Mutant(Mutant { name }) = scenario else {
            continue;
        };
        match summary {
            Summary::CaughtMutant => tally.caught += 1,
            Summary::Unviable => tally.unviable += 1,
            Summary::Timeout => tally.timed_out.push(name),
            // The last two are not expected of a mutant; at least nothing says that it was caught.
            Summary::MissedMutant | Summary::Success | Summary::Failure => tally.missed.push(name),
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(mutants: &[(&str, &str)]) -> String {
        let mut outcomes = vec![serde_json::json!({
            "scenario": "Baseline", "summary": "Success", "log_path": "log/baseline.log", "phase_results": [],
        })];
        outcomes.extend(mutants.iter().map(|(name, summary)| {
            serde_json::json!({
                "scenario": {"Mutant": {"name": name, "package": PACKAGE, "genre": "FnValue"}},
                "summary": summary,
            })
        }));
        serde_json::json!({"outcomes": outcomes, "total_mutants": mutants.len()}).to_string()
    }

    #[test]
    fn mutants_are_told_apart_by_what_became_of_them() {
        let text = outcomes(&[
            ("a.rs:1:1: one", "CaughtMutant"),
            ("a.rs:2:1: two", "MissedMutant"),
            ("a.rs:3:1: three", "Timeout"),
            ("a.rs:4:1: four", "Unviable"),
            ("a.rs:5:1: five", "CaughtMutant"),
        ]);
        let tally = tally(&text).unwrap();
        assert_eq!(
            tally.to_string(),
            "2 caught, 1 missed, 1 timeout, 1 unviable"
        );
        assert_eq!(
            tally.counts(),
            Counts {
                passed: 3,
                failed: 1,
                skipped: 0
            }
        );
        assert_eq!(
            tally.findings(),
            "missed   a.rs:2:1: two\ntimeout  a.rs:3:1: three\n"
        );
        assert_eq!(tally.tested(), 5);
    }

    #[test]
    fn what_is_not_clearly_caught_is_missed() {
        for summary in ["Success", "Failure"] {
            let tally = tally(&outcomes(&[("a.rs:1:1: one", summary)])).unwrap();
            assert_eq!(tally.counts(), Counts::FAILED);
        }
        assert_eq!(tally(&outcomes(&[])).unwrap(), Tally::default());
        for bad in ["", "{}", "{\"outcomes\": [{}]}"] {
            assert!(tally(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_are_those_of_the_decisions_unless_others_are_named() {
        let files = |selection: &Selection| {
            let arguments = selection.arguments();
            let pairs = arguments.windows(2);
            pairs
                .filter(|pair| pair[0] == "--file")
                .map(|pair| pair[1].clone())
                .collect::<Vec<_>>()
        };
        let default = Selection::default();
        assert_eq!(files(&default), DECISIONS);
        let all = Selection {
            all: true,
            ..default.clone()
        };
        assert!(files(&all).is_empty());
        let one = Selection {
            files: vec!["restart.rs".to_owned()],
            ..default
        };
        assert_eq!(files(&one), ["restart.rs"]);
    }

    #[test]
    fn the_files_of_the_decisions_exist() {
        let root = Workspace::load().unwrap().root;
        for glob in DECISIONS {
            let path = root.join(glob.trim_end_matches("/**"));
            assert!(path.exists(), "{}", path.display());
        }
    }

    #[test]
    fn parts_are_counted_from_zero() {
        for good in ["0/1", "3/4"] {
            assert_eq!(parse_shard(good).as_deref(), Ok(good));
        }
        for bad in ["", "1", "1/1", "4/4", "-1/4", "a/b", "0/0"] {
            assert!(parse_shard(bad).is_err(), "{bad}");
        }
    }
}
