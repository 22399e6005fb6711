//! Tests that people run by hand to look further than the matrix does, with what they print shown as it comes.

use std::path::Path;
use std::process::{Command, ExitCode};

use crate::workspace;

/// A test program, and what tells it how far to look.
#[derive(Debug)]
pub(crate) struct Exploration {
    /// The package of the test program.
    pub(crate) package: &'static str,
    /// The test program.
    pub(crate) program: &'static str,
    /// The one test of it to run; `None` for all.
    pub(crate) test: Option<&'static str>,
    /// Whether it computes so much that building it with optimisation pays.
    pub(crate) release: bool,
    /// The variable that the test reads, and its value.
    pub(crate) setting: (&'static str, String),
    /// How the lines begin in which it says what it has seen.
    pub(crate) says: &'static str,
}

impl Exploration {
    /// Makes a command of cargo run it.
    pub(crate) fn prepare(&self, cargo: &mut Command) {
        let (variable, value) = &self.setting;
        cargo.args(self.arguments()).env(variable, value);
    }

    /// The arguments of cargo.
    fn arguments(&self) -> Vec<&'static str> {
        let mut arguments = vec!["test", "--quiet"];
        if self.release {
            arguments.push("--release");
        }
        arguments.extend(["--package", self.package, "--test", self.program]);
        arguments.extend(["--", "--nocapture"]);
        if let Some(test) = self.test {
            arguments.extend(["--exact", test]);
        }
        arguments
    }

    /// Runs it on the terminal of this program. It has no time limit: whoever started it may end it.
    pub(crate) fn run(&self) -> Result<ExitCode, String> {
        let mut cargo = workspace::cargo(Path::new(env!("CARGO_MANIFEST_DIR")));
        self.prepare(&mut cargo);
        let status = cargo
            .status()
            .map_err(|error| format!("cargo could not be run: {error}"))?;
        Ok(if status.success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// The story of the whole manager that belongs to `seed`, or without one the stories of the first `seeds` seeds.
pub(crate) fn stories(seed: Option<u64>, seeds: u64) -> Exploration {
    let (variable, number) = match seed {
        Some(seed) => ("GATEWAY_SIMULATION_SEED", seed),
        None => ("GATEWAY_SIMULATION_SEEDS", seeds),
    };
    Exploration {
        package: "gateway-manager",
        program: "simulated",
        test: Some("stories_by_seed"),
        release: false,
        setting: (variable, number.to_string()),
        says: "simulation: ",
    }
}

/// The model of the lifecycle machine, to `depth` steps or as deep as the test itself thinks worth while.
pub(crate) fn model(depth: Option<usize>) -> Exploration {
    explore_model(match depth {
        Some(depth) => ("GATEWAY_MODEL_DEPTH", depth.to_string()),
        None => ("GATEWAY_MODEL", "deep".to_owned()),
    })
}

/// The model of the lifecycle machine, as deep as a few minutes allow.
pub(crate) fn model_for_minutes() -> Exploration {
    explore_model(("GATEWAY_MODEL", "row".to_owned()))
}

fn explore_model(setting: (&'static str, String)) -> Exploration {
    Exploration {
        package: "gateway-policy",
        program: "model",
        test: None,
        release: true,
        setting,
        says: "model, ",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_choose_program_and_test() {
        let told = |exploration: Exploration| {
            let (variable, value) = &exploration.setting;
            format!("{variable}={value} {}", exploration.arguments().join(" "))
        };
        let stories_are = "test --quiet --package gateway-manager --test simulated -- --nocapture --exact stories_by_seed";
        let model_is =
            "test --quiet --release --package gateway-policy --test model -- --nocapture";
        let cases = [
            (
                stories(Some(7), 1_000),
                format!("GATEWAY_SIMULATION_SEED=7 {stories_are}"),
            ),
            (
                stories(None, 50),
                format!("GATEWAY_SIMULATION_SEEDS=50 {stories_are}"),
            ),
            (
                model(Some(17)),
                format!("GATEWAY_MODEL_DEPTH=17 {model_is}"),
            ),
            (model(None), format!("GATEWAY_MODEL=deep {model_is}")),
            (model_for_minutes(), format!("GATEWAY_MODEL=row {model_is}")),
        ];
        for (exploration, expected) in cases {
            assert_eq!(told(exploration), expected);
        }
    }
}
