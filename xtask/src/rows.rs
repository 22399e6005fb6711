//! The rows of the test matrix, fast ones first.

use std::time::Duration;

use crate::explore::{self, Exploration};
use crate::pins::{PINS, Pin};

/// A row of the matrix.
#[derive(Debug)]
pub(crate) struct Row {
    /// What it is called on the command line and in the report.
    pub(crate) name: String,
    /// What it shows, for `--list`.
    pub(crate) about: &'static str,
    /// What is run.
    pub(crate) work: Work,
}

/// What a row runs. Limits are for each command on a slow machine that has built nothing yet.
#[derive(Debug)]
pub(crate) enum Work {
    /// A cargo command that counts as one check.
    Cargo {
        arguments: &'static [&'static str],
        environment: &'static [(&'static str, &'static str)],
        limit: Duration,
    },
    /// The tests of a package, documentation examples included, perhaps narrowed by arguments to its test programs.
    Tests {
        package: &'static str,
        arguments: &'static [&'static str],
        limit: Duration,
    },
    /// A test that looks far, and says how far.
    Explore { what: Exploration, limit: Duration },
    /// `cargo check` of every library crate alone with every combination of its features; each counts as one check.
    FeatureCombinations { limit: Duration },
    /// The tests against a real gateway, which is provisioned first.
    RealGateway { pin: &'static Pin, limit: Duration },
    /// Small changes of the decisions, each of which a test has to notice; each counts as one check.
    Mutants { limit: Duration },
    /// Known defects put back one at a time, each of which the tests named for it have to notice; each counts as one check.
    Defects { limit: Duration },
    /// Figures whose limits hold on a busy machine as well; each counts as one check.
    Bench { limit: Duration },
    /// The tests on Wine, with a toolchain from Debian's packages.
    Windows { limit: Duration },
    /// A type check for macOS with the same toolchain, which counts as one check.
    MacOs { limit: Duration },
    /// A kind of test that this repository does not have yet.
    NotBuilt,
}

/// All rows, in the order in which they run.
pub(crate) fn all() -> Vec<Row> {
    let row = |name: &str, about, work| Row {
        name: name.to_owned(),
        about,
        work,
    };
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let cargo = |arguments, environment| Work::Cargo {
        arguments,
        environment,
        limit: minutes(15),
    };
    let explore = |what| Work::Explore {
        what,
        limit: minutes(15),
    };
    let tests = |package, arguments| Work::Tests {
        package,
        arguments,
        limit: minutes(8),
    };

    let mut rows = vec![
        row(
            "format",
            "every file is formatted",
            cargo(&["fmt", "--all", "--check"], &[]),
        ),
        row(
            "tidy",
            "rules of the repository: documentation, manifests, licences; and the tests of xtask itself",
            tests("xtask", &["--skip", "purity::"]),
        ),
        row(
            "purity",
            "the pure crates reach no I/O, clock or randomness; arrows between layers point down",
            tests("xtask", &["purity::"]),
        ),
        row(
            "lint",
            "clippy has nothing to say, with all features and for all targets",
            cargo(
                &[
                    "clippy",
                    "--workspace",
                    "--all-targets",
                    "--all-features",
                    "--",
                    "-D",
                    "warnings",
                ],
                &[],
            ),
        ),
        row(
            "docs",
            "the documentation builds without a warning",
            cargo(
                &["doc", "--workspace", "--no-deps", "--all-features"],
                &[("RUSTDOCFLAGS", "-D warnings")],
            ),
        ),
        row(
            "features",
            "every library crate builds alone with every combination of its features",
            Work::FeatureCombinations { limit: minutes(10) },
        ),
        row(
            "protocol",
            "wire types: tables, properties, recorded conversations",
            tests("gateway-protocol", &[]),
        ),
        row(
            "policy",
            "decisions: tables and properties",
            tests("gateway-policy", &[]),
        ),
        row(
            "process",
            "child processes: real ones, launched and ended",
            tests("gateway-process", &[]),
        ),
        row(
            "client",
            "connections over real sockets",
            tests("gateway-client", &[]),
        ),
        row(
            "testkit",
            "the fake gateway, in process and as a child",
            tests("gateway-testkit", &[]),
        ),
        row(
            "manager",
            "supervision of a real child over real sockets",
            tests("gateway-manager", &[]),
        ),
        row("cli", "gatewayctl as a program", tests("gateway-cli", &[])),
        row(
            "model",
            "every interleaving of the lifecycle in a bounded world, by model checking",
            explore(explore::model_for_minutes()),
        ),
        row(
            "simulation",
            "the whole manager in virtual time, over thousands of random stories",
            explore(explore::stories(None, 10_000)),
        ),
        row(
            "defects",
            "known defects put back, one at a time: the tests named for each of them fail",
            Work::Defects { limit: minutes(30) },
        ),
    ];
    rows.push(row(
        "bench",
        "what supervision costs, where a busy machine cannot spoil it: intake of output, memory, wake-ups",
        Work::Bench { limit: minutes(10) },
    ));
    rows.extend(PINS.iter().map(|pin| Row {
        name: format!("real-gateway-{}", pin.openclaw),
        about: "supervision of the real OpenClaw, installed through npm",
        work: Work::RealGateway {
            pin,
            limit: minutes(20),
        },
    }));
    rows.extend([
        row(
            "mutants",
            "small changes of the decisions, one at a time: a test notices each of them",
            Work::Mutants { limit: minutes(25) },
        ),
        row(
            "fuzz",
            "everything that parses bytes, on made-up input",
            Work::NotBuilt,
        ),
        row(
            "windows",
            "the tests of the product, built for Windows and run by Wine",
            Work::Windows { limit: minutes(25) },
        ),
        row(
            "macos",
            "every crate, program and test type-checked for macOS",
            Work::MacOs { limit: minutes(15) },
        ),
    ]);
    rows
}

/// The rows of the given names in the order of the matrix; all of them when no name is given.
pub(crate) fn select(names: &[String]) -> Result<Vec<Row>, String> {
    let rows = all();
    if let Some(unknown) = names
        .iter()
        .find(|name| !rows.iter().any(|row| row.name == **name))
    {
        let known: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        return Err(format!(
            "there is no row called {unknown:?}; the rows are {}",
            known.join(", ")
        ));
    }
    Ok(rows
        .into_iter()
        .filter(|row| names.is_empty() || names.contains(&row.name))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::workspace::Workspace;

    fn names(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn names_are_unique_and_fit_a_command_line() {
        let rows = all();
        let unique: BTreeSet<&str> = names(&rows).into_iter().collect();
        assert_eq!(unique.len(), rows.len());
        for name in unique {
            assert!(
                name.chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c)),
                "{name}"
            );
        }
    }

    #[test]
    fn every_crate_has_a_row() {
        let tested: Vec<&str> = all()
            .iter()
            .filter_map(|row| match row.work {
                Work::Tests { package, .. } => Some(package),
                _ => None,
            })
            .collect();
        for member in Workspace::load().unwrap().members() {
            assert!(
                tested.contains(&member.name.as_str()),
                "no row tests {}",
                member.name
            );
        }
    }

    #[test]
    fn rows_are_selected_in_the_order_of_the_matrix() {
        let chosen = select(&[
            "policy".to_owned(),
            "format".to_owned(),
            "policy".to_owned(),
        ])
        .unwrap();
        assert_eq!(names(&chosen), ["format", "policy"]);
        assert_eq!(select(&[]).unwrap().len(), all().len());
        let error = select(&["polcy".to_owned()]).unwrap_err();
        assert!(
            error.contains("\"polcy\"") && error.contains("policy"),
            "{error}"
        );
    }
}
