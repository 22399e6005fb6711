//! Puts known defects back, one at a time, and demands that the tests which are named for each of them fail.
//!
//! This happens in a copy of the workspace below `target/defects/`. The patches are in `defects/`.

pub(crate) mod patch;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;

use crate::command::{Ending, Finished};
use crate::job::{Echo, Job};
use crate::libtest::{self, Counts};
use crate::lock;
use crate::workspace::Workspace;
use patch::{NamedTest, Patch, Program};
use tree::Tree;

pub(crate) use tree::impossible;

/// The folder of the patches, below the root.
pub(crate) const FOLDER: &str = "defects";

/// How long a test may take before it counts as failed: with the defect it may wait for something that never comes.
const TEST_LIMIT: Duration = Duration::from_secs(120);

/// Which defects to put back.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Choice {
    /// Put back this defect only: the name of its file without `.patch`, or its row; may be given several times.
    #[arg(long = "only", value_name = "NAME")]
    only: Vec<String>,
}

impl Choice {
    fn select(&self, patches: Vec<Patch>) -> Result<Vec<Patch>, String> {
        let fits = |name: &String, patch: &Patch| patch.name == *name || patch.rows.contains(name);
        if let Some(unknown) = self
            .only
            .iter()
            .find(|name| !patches.iter().any(|patch| fits(name, patch)))
        {
            let known: Vec<&str> = patches.iter().map(|patch| patch.name.as_str()).collect();
            return Err(format!(
                "there is no defect called {unknown:?}; there are {}",
                known.join(", ")
            ));
        }
        Ok(patches
            .into_iter()
            .filter(|patch| self.only.is_empty() || self.only.iter().any(|name| fits(name, patch)))
            .collect())
    }
}

/// What became of a defect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every test that is named for it failed.
    Noticed,
    /// These tests passed all the same.
    Survived(Vec<String>),
    /// The code has changed since the patch was made.
    DoesNotApply,
    /// With the defect these test programs do not build.
    DoesNotBuild(Vec<String>),
    /// These tests do not exist.
    NoSuchTest(Vec<String>),
    /// These tests fail without the defect too, and so tell nothing.
    FailsAnyway(Vec<String>),
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (words, names) = match self {
            Self::Noticed => return formatter.write_str("noticed"),
            Self::DoesNotApply => return formatter.write_str("does not apply"),
            Self::Survived(tests) => ("survived", tests),
            Self::DoesNotBuild(programs) => ("does not build", programs),
            Self::NoSuchTest(tests) => ("no such test", tests),
            Self::FailsAnyway(tests) => ("fails without the defect too", tests),
        };
        write!(formatter, "{words}: {}", names.join(", "))
    }
}

/// A defect that has been put back.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) patch: Patch,
    pub(crate) outcome: Outcome,
    took: Duration,
}

impl Judged {
    /// As one check.
    pub(crate) fn counts(&self) -> Counts {
        if self.outcome == Outcome::Noticed {
            Counts::PASSED
        } else {
            Counts::FAILED
        }
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            patch,
            outcome,
            took,
        } = self;
        write!(
            formatter,
            "{:<40} {outcome}  {:.1} s",
            patch.name,
            took.as_secs_f32()
        )
    }
}

/// How often which outcome came, for the last line.
pub(crate) fn totals(judged: &[Judged]) -> String {
    let noticed = judged
        .iter()
        .filter(|judged| judged.outcome == Outcome::Noticed)
        .count();
    format!(
        "{noticed} of {} defects noticed by every test named for them",
        judged.len()
    )
}

/// Puts the chosen defects back, all within `limit`, and tells of each as soon as it is judged.
///
/// # Errors
/// When the work could not be finished. That a defect was not noticed is no error.
pub(crate) fn run(
    workspace: &Workspace,
    choice: &Choice,
    limit: Duration,
    job: &mut Job<'_>,
    mut tell: impl FnMut(&Judged),
) -> Result<Vec<Judged>, String> {
    let deadline = Instant::now() + limit;
    let patches = choice.select(patch::load(&workspace.root.join(FOLDER))?)?;
    if patches.is_empty() {
        return Err(format!("there is no patch in {FOLDER}/"));
    }
    let folder = workspace.target.join("defects");
    fs::create_dir_all(&folder)
        .map_err(|error| format!("cannot create {}: {error}", folder.display()))?;
    let _lock = lock::hold(&folder.join("lock"), job.interrupt)?;
    let mut bench = Bench {
        workspace,
        tree: Tree::copy(workspace, &folder)?,
        limit,
        deadline,
        job,
    };
    let sound = bench.untouched(&patches)?;

    let mut all = Vec::new();
    for patch in patches {
        let started = Instant::now();
        let outcome = match unsound(&patch, &sound) {
            Some(outcome) => outcome,
            None => {
                let outcome = bench.with_defect(&patch);
                bench.tree.restore()?;
                outcome?
            }
        };
        let judged = Judged {
            patch,
            outcome,
            took: started.elapsed(),
        };
        tell(&judged);
        all.push(judged);
    }
    Ok(all)
}

/// What a test says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    /// There is no such test, or nothing to look for it in.
    Absent,
}

/// The outcome of a patch whose tests would prove nothing.
fn unsound(patch: &Patch, sound: &BTreeMap<NamedTest, Verdict>) -> Option<Outcome> {
    let those = |verdict| -> Vec<String> {
        patch
            .tests
            .iter()
            .filter(|test| sound.get(test) == Some(&verdict))
            .map(|test| test.name.clone())
            .collect()
    };
    let (absent, failed) = (those(Verdict::Absent), those(Verdict::Failed));
    if !absent.is_empty() {
        Some(Outcome::NoSuchTest(absent))
    } else if !failed.is_empty() {
        Some(Outcome::FailsAnyway(failed))
    } else {
        None
    }
}

/// Where defects are put back.
struct Bench<'a, 'b> {
    workspace: &'a Workspace,
    tree: Tree,
    limit: Duration,
    deadline: Instant,
    job: &'a mut Job<'b>,
}

impl Bench<'_, '_> {
    /// What the named tests say about the code as it is.
    fn untouched(&mut self, patches: &[Patch]) -> Result<BTreeMap<NamedTest, Verdict>, String> {
        let tests: BTreeSet<&NamedTest> = patches.iter().flat_map(|patch| &patch.tests).collect();
        let mut programs: BTreeMap<&Program, Vec<&NamedTest>> = BTreeMap::new();
        for test in tests {
            programs.entry(&test.program).or_default().push(test);
        }
        let mut sound = BTreeMap::new();
        for (program, tests) in programs {
            let mut verdicts = vec![Verdict::Absent; tests.len()];
            if self.build(program)? {
                verdicts = self.all_or_each(program, &tests)?;
            }
            sound.extend(tests.into_iter().cloned().zip(verdicts));
        }
        Ok(sound)
    }

    /// Runs `tests` together, and one by one only when not all of them passed.
    fn all_or_each(
        &mut self,
        program: &Program,
        tests: &[&NamedTest],
    ) -> Result<Vec<Verdict>, String> {
        let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
        let patience = TEST_LIMIT * u32::try_from(names.len()).unwrap_or(u32::MAX);
        let finished = self.run(self.test(program, &names), patience)?;
        let passed = usize::try_from(libtest::sum(&finished.output).passed);
        if finished.failure().is_none() && passed == Ok(names.len()) {
            return Ok(vec![Verdict::Passed; names.len()]);
        }
        tests.iter().map(|test| self.one(test)).collect()
    }

    /// What becomes of the defect in `patch`. The copy is left with the defect in it.
    fn with_defect(&mut self, patch: &Patch) -> Result<Outcome, String> {
        let applied = self.run(self.tree.apply(&patch.path), TEST_LIMIT)?;
        if applied.failure().is_some() {
            return Ok(Outcome::DoesNotApply);
        }
        let programs: BTreeSet<&Program> = patch.tests.iter().map(|test| &test.program).collect();
        let mut broken = Vec::new();
        for program in programs {
            if !self.build(program)? {
                broken.push(format!(
                    "{} {}",
                    program.package,
                    program.selection.join(" ")
                ));
            }
        }
        if !broken.is_empty() {
            return Ok(Outcome::DoesNotBuild(broken));
        }
        let (mut passed, mut absent) = (Vec::new(), Vec::new());
        for test in &patch.tests {
            match self.one(test)? {
                Verdict::Failed => {}
                Verdict::Passed => passed.push(test.name.clone()),
                Verdict::Absent => absent.push(test.name.clone()),
            }
        }
        Ok(if !absent.is_empty() {
            Outcome::NoSuchTest(absent)
        } else if !passed.is_empty() {
            Outcome::Survived(passed)
        } else {
            Outcome::Noticed
        })
    }

    /// Whether the test program builds.
    fn build(&mut self, program: &Program) -> Result<bool, String> {
        let mut cargo = self.cargo_test(program);
        cargo.arg("--no-run");
        // Only the limit of the whole work bounds it: the first build has everything to do.
        let finished = self.run(cargo, self.limit)?;
        Ok(finished.failure().is_none())
    }

    /// What one test says. The program that it is in has been built.
    fn one(&mut self, test: &NamedTest) -> Result<Verdict, String> {
        let finished = self.run(self.test(&test.program, &[&test.name]), TEST_LIMIT)?;
        verdict(&finished).ok_or_else(|| {
            format!(
                "cargo ended before it ran {}:\n{}",
                test.name,
                finished.output.trim_end()
            )
        })
    }

    /// The command that builds and runs a test program, still without arguments for the program itself.
    fn cargo_test(&self, program: &Program) -> Command {
        let mut cargo = self.tree.cargo();
        cargo
            .args(["test", "--package", &program.package])
            .args(&program.selection);
        let features = self
            .workspace
            .member(&program.package)
            .map(crate::features::for_tests)
            .unwrap_or_default();
        if !features.is_empty() {
            cargo.args(["--features", &features.join(",")]);
        }
        cargo
    }

    fn test(&self, program: &Program, names: &[&str]) -> Command {
        let mut cargo = self.cargo_test(program);
        cargo.args(["--", "--exact"]).args(names);
        cargo
    }

    /// Runs a command until its end, for `patience`, or until the time for the whole work is over, which is an error.
    fn run(&mut self, command: Command, patience: Duration) -> Result<Finished, String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let finished = self.job.run(command, patience.min(left), Echo::Nothing)?;
        match finished.ending {
            Ending::Interrupted => Err("interrupted".to_owned()),
            Ending::TimedOut(_) if left <= patience => Err(format!(
                "not finished within the time limit of {} s",
                self.limit.as_secs()
            )),
            _ => Ok(finished),
        }
    }
}

/// What the run of one test means; `None` when the test program never came to run it.
fn verdict(finished: &Finished) -> Option<Verdict> {
    let Ending::Exited(status) = &finished.ending else {
        return Some(Verdict::Failed);
    };
    if status.success() {
        let passed = libtest::sum(&finished.output).passed > 0;
        return Some(if passed {
            Verdict::Passed
        } else {
            Verdict::Absent
        });
    }
    // A test that takes its whole program down leaves no summary behind.
    let began = finished.output.lines().any(|line| line == "running 1 test");
    began.then_some(Verdict::Failed)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn patch(name: &str, row: &str, tests: &[&str]) -> Patch {
        let tests = tests.iter().map(|name| test(name)).collect();
        Patch {
            name: name.to_owned(),
            rows: vec![row.to_owned()],
            defect: "It goes wrong.".to_owned(),
            tests,
            path: PathBuf::from(format!("defects/{name}.patch")),
        }
    }

    fn test(name: &str) -> NamedTest {
        NamedTest {
            program: Program {
                package: "gateway-policy".to_owned(),
                selection: vec!["--lib".to_owned()],
            },
            name: name.to_owned(),
        }
    }

    #[test]
    fn defects_are_chosen_by_file_or_row() {
        let patches = || {
            vec![
                patch("B01-one", "B1", &["a"]),
                patch("B02-two", "B2", &["a"]),
            ]
        };
        let names = |only: &[&str]| {
            let only = only.iter().map(|name| (*name).to_owned()).collect();
            let chosen = Choice { only }.select(patches())?;
            Ok(chosen.into_iter().map(|patch| patch.name).collect())
        };
        let all: Result<Vec<String>, String> = names(&[]);
        assert_eq!(all.unwrap(), ["B01-one", "B02-two"]);
        assert_eq!(names(&["B2"]).unwrap(), ["B02-two"]);
        assert_eq!(names(&["B01-one", "B1"]).unwrap(), ["B01-one"]);
        let error = names(&["B3"]).unwrap_err();
        assert!(
            error.contains("\"B3\"") && error.contains("B01-one"),
            "{error}"
        );
    }

    #[test]
    fn tests_that_prove_nothing_are_named() {
        let sound = BTreeMap::from([
            (test("good"), Verdict::Passed),
            (test("red"), Verdict::Failed),
            (test("gone"), Verdict::Absent),
        ]);
        let cases: [(&[&str], Option<Outcome>); 3] = [
            (&["good"], None),
            (
                &["good", "red"],
                Some(Outcome::FailsAnyway(vec!["red".to_owned()])),
            ),
            (
                &["red", "gone"],
                Some(Outcome::NoSuchTest(vec!["gone".to_owned()])),
            ),
        ];
        for (tests, expected) in cases {
            assert_eq!(unsound(&patch("B01-one", "B1", tests), &sound), expected);
        }
    }

    #[test]
    fn only_a_noticed_defect_is_a_passed_check() {
        let outcomes = [
            Outcome::Noticed,
            Outcome::Survived(vec!["a".to_owned()]),
            Outcome::DoesNotApply,
        ];
        let judged: Vec<Judged> = outcomes
            .into_iter()
            .map(|outcome| Judged {
                patch: patch("B01-one", "B1", &["a"]),
                outcome,
                took: Duration::ZERO,
            })
            .collect();
        let counts: Vec<Counts> = judged.iter().map(Judged::counts).collect();
        assert_eq!(counts, [Counts::PASSED, Counts::FAILED, Counts::FAILED]);
        assert_eq!(
            totals(&judged),
            "1 of 3 defects noticed by every test named for them"
        );
        assert!(judged[1].to_string().contains("survived: a"));
    }

    #[cfg(unix)]
    #[test]
    fn a_test_says_more_than_its_exit_code() {
        use std::os::unix::process::ExitStatusExt as _;
        use std::process::ExitStatus;

        let one = "running 1 test\n";
        let passed = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.01s\n";
        let none = "running 0 tests\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s\n";
        let exited = |code: i32| Ending::Exited(ExitStatus::from_raw(code << 8));
        let cases = [
            (exited(0), format!("{one}{passed}"), Some(Verdict::Passed)),
            (exited(0), none.to_owned(), Some(Verdict::Absent)),
            (exited(101), one.to_owned(), Some(Verdict::Failed)),
            (exited(101), "error: no space left".to_owned(), None),
            (
                Ending::TimedOut(TEST_LIMIT),
                one.to_owned(),
                Some(Verdict::Failed),
            ),
        ];
        for (ending, output, expected) in cases {
            let finished = Finished {
                ending,
                output,
                leftovers: Vec::new(),
            };
            assert_eq!(verdict(&finished), expected, "{finished:?}");
        }
    }
}
