//! Runs the benches of the workspace and judges what they measured. The limits stand beside what is measured, in the benches.
//!
//! A bench is a program of a package below `benches/` that prints one JSON object per line, in the form of [`Figure`]. To add one: write it,
//! name it in [`GROUPS`], and, when its limits hold on a busy machine as well, say so in its figures.

use std::fmt;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::job::{Echo, Job};
use crate::pins::DEFAULT_PIN;
use crate::workspace::Workspace;

/// Figures that are measured together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    package: &'static str,
    program: &'static str,
    /// Whether all its limits hold on a machine that does other things as well.
    pub(crate) robust: bool,
}

const fn supervision(name: &'static str, robust: bool) -> Group {
    Group {
        name,
        package: "gateway-testkit",
        program: "supervision",
        robust,
    }
}

/// All groups, in the order in which they run.
pub(crate) const GROUPS: &[Group] = &[
    supervision("crash", false),
    supervision("stop", false),
    supervision("start", false),
    supervision("stderr-intake", true),
    supervision("idle", true),
    supervision("journal", true),
];

/// What to measure, and how to tell it.
#[derive(Args)]
pub(crate) struct BenchArguments {
    /// Measure this group of figures only; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = parse_group)]
    only: Vec<&'static Group>,
    /// Print one JSON object per figure, with all samples.
    #[arg(long)]
    json: bool,
    /// Fail when a limit does not hold that should hold on every machine.
    #[arg(long)]
    pub(crate) check: bool,
}

fn parse_group(text: &str) -> Result<&'static Group, String> {
    GROUPS
        .iter()
        .find(|group| group.name == text)
        .ok_or_else(|| {
            let known: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
            format!("there is no such group; choose one of {}", known.join(", "))
        })
}

impl BenchArguments {
    /// The groups to measure.
    pub(crate) fn groups(&self) -> Vec<&'static Group> {
        let wanted = |group: &&Group| self.only.is_empty() || self.only.contains(group);
        GROUPS.iter().filter(wanted).collect()
    }

    /// Prints a figure in the wanted form.
    pub(crate) fn show(&self, figure: &Figure) {
        if self.json {
            let told = Told {
                median: figure.median(),
                holds: figure.holds(),
                figure,
            };
            println!("{}", serde_json::to_string(&told).unwrap_or_default());
        } else {
            println!("{figure}");
        }
    }
}

/// A figure as `--json` tells it.
#[derive(Serialize)]
struct Told<'a> {
    median: f64,
    holds: Option<bool>,
    #[serde(flatten)]
    figure: &'a Figure,
}

/// What a bench has measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) name: String,
    unit: String,
    samples: Vec<f64>,
    limit: Option<Limit>,
    /// Whether the limit holds on a machine that does other things as well.
    pub(crate) robust: bool,
    note: String,
}

/// What the median may be.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    /// The figure on a line of output, when there is one on it.
    fn parse(line: &str) -> Option<Result<Self, String>> {
        let line = line.trim();
        line.starts_with('{').then(|| {
            let figure: Self =
                serde_json::from_str(line).map_err(|error| format!("{error} in {line}"))?;
            if figure.samples.is_empty() {
                return Err(format!("no samples in {line}"));
            }
            Ok(figure)
        })
    }

    fn sorted(&self) -> Vec<f64> {
        let mut samples = self.samples.clone();
        samples.sort_by(f64::total_cmp);
        samples
    }

    pub(crate) fn median(&self) -> f64 {
        let samples = self.sorted();
        samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Whether its limit holds; `None` without one.
    pub(crate) fn holds(&self) -> Option<bool> {
        self.limit.map(|limit| match limit {
            Limit::AtMost(most) => self.median() <= most,
            Limit::AtLeast(least) => self.median() >= least,
        })
    }
}

/// How much of a rate has to be left when others use the machine as well.
const BUSY_SHARE: f64 = 1.0 / 3.0;

impl Figure {
    /// Whether its limit holds as far as a busy machine can tell; `None` without one. What others take only makes a figure worse, so the
    /// best sample counts, and of a rate a part is enough.
    pub(crate) fn holds_when_busy(&self) -> Option<bool> {
        let samples = self.sorted();
        self.limit.map(|limit| match limit {
            Limit::AtMost(most) => samples.first().is_some_and(|best| *best <= most),
            Limit::AtLeast(least) => samples
                .last()
                .is_some_and(|best| *best >= least * BUSY_SHARE),
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = self.sorted();
        let (least, most) = (samples.first(), samples.last());
        write!(
            formatter,
            "{:<36} {:>8.2} {}  ({:.2} to {:.2})",
            self.name,
            self.median(),
            self.unit,
            least.copied().unwrap_or(f64::NAN),
            most.copied().unwrap_or(f64::NAN),
        )?;
        let holds = if self.holds() == Some(true) {
            "holds"
        } else {
            "does not hold"
        };
        match self.limit {
            Some(Limit::AtMost(limit)) => write!(formatter, "  at most {limit}: {holds}")?,
            Some(Limit::AtLeast(limit)) => write!(formatter, "  at least {limit}: {holds}")?,
            None => {}
        }
        write!(formatter, "  [{}]", self.note)
    }
}

/// Builds and measures one group.
///
/// # Errors
/// When it cannot be built or run, or prints no figure, or one that cannot be read.
pub(crate) fn measure(
    workspace: &Workspace,
    group: &Group,
    limit: Duration,
    job: &mut Job<'_>,
) -> Result<Vec<Figure>, String> {
    let mut cargo = workspace.cargo();
    cargo.args(["bench", "--quiet", "--package", group.package]);
    cargo.args(["--bench", group.program, "--", group.name]);
    let project = workspace.target.join("openclaw").join(DEFAULT_PIN.openclaw);
    if project.join("installed.json").is_file() {
        cargo.env("OPENCLAW_TEST_PROJECT", project);
    }
    let finished = job.run(cargo, limit, Echo::Nothing)?;
    if let Some(failure) = finished.failure() {
        let last = finished.output.lines().next_back().unwrap_or_default();
        return Err(format!(
            "measuring {} failed: {failure}; {last}",
            group.name
        ));
    }
    let figures = finished.output.lines().filter_map(Figure::parse);
    let figures: Vec<Figure> = figures.collect::<Result<_, _>>()?;
    if figures.is_empty() && cfg!(target_os = "linux") {
        return Err(format!("{} measured nothing", group.name));
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(samples: &str, limit: &str) -> Option<Result<Figure, String>> {
        Figure::parse(&format!(
            r#"{{"name":"n","unit":"ms","samples":{samples},"limit":{limit},"robust":true,"note":"of 3"}}"#
        ))
    }

    #[test]
    fn the_median_is_judged() {
        for (samples, limit, holds) in [
            ("[9.0, 1.0, 2.0]", r#"{"at_most":2.0}"#, Some(true)),
            ("[9.0, 1.0, 2.0]", r#"{"at_most":1.9}"#, Some(false)),
            ("[9.0, 1.0, 2.0]", r#"{"at_least":2.0}"#, Some(true)),
            ("[9.0, 1.0, 2.0]", r#"{"at_least":2.1}"#, Some(false)),
            ("[9.0, 1.0, 2.0]", "null", None),
        ] {
            let figure = figure(samples, limit).unwrap().unwrap();
            assert_eq!(figure.holds(), holds, "{figure}");
            assert!(
                figure.to_string().contains("2.00 ms  (1.00 to 9.00)"),
                "{figure}"
            );
        }
    }

    #[test]
    fn a_busy_machine_is_given_the_best_sample_and_a_part_of_a_rate() {
        for (samples, limit, holds) in [
            ("[9.0, 1.0, 2.0]", r#"{"at_most":1.0}"#, Some(true)),
            ("[9.0, 1.0, 2.0]", r#"{"at_most":0.9}"#, Some(false)),
            ("[9.0, 1.0, 2.0]", r#"{"at_least":27.0}"#, Some(true)),
            ("[9.0, 1.0, 2.0]", r#"{"at_least":27.5}"#, Some(false)),
            ("[9.0, 1.0, 2.0]", "null", None),
        ] {
            let figure = figure(samples, limit).unwrap().unwrap();
            assert_eq!(figure.holds_when_busy(), holds, "{figure}");
        }
    }

    #[test]
    fn what_is_no_figure_is_passed_over_and_a_damaged_one_is_not() {
        assert!(Figure::parse("     Running benches/supervision/main.rs").is_none());
        assert!(Figure::parse(r#"{"name":"n"}"#).unwrap().is_err());
        assert!(figure("[]", "null").unwrap().is_err());
    }

    #[test]
    fn groups_have_names_of_their_own() {
        for group in GROUPS {
            assert_eq!(parse_group(group.name), Ok(group));
        }
        assert!(parse_group("crush").is_err_and(|error| error.contains("crash")));
    }
}
