//! The layers, proved from the dependency graph: who may depend on whom, and what the pure crates may reach.

use std::collections::BTreeMap;
use std::fs;

use crate::workspace::Workspace;

/// The crates that hold decisions and wire types, with every crate that their code may reach. What is on these lists
/// does no I/O, has no clock and no randomness, and is built without `std`.
const PURE: &[(&str, &[&str])] = &[
    ("gateway-policy", &["thiserror"]),
    (
        "gateway-protocol",
        &[
            "bytes",
            "itoa",
            "memchr",
            "ryu",
            "serde",
            "serde_core",
            "serde_json",
            "thiserror",
            "zmij",
        ],
    ),
];

/// The layer of each crate, the lowest first. A crate may depend on crates of lower layers only, which also keeps the
/// crates of one layer apart: a client pulls no process code, and wire types know no decisions.
const LAYERS: &[&[&str]] = &[
    &["gateway-policy", "gateway-protocol"],
    &["gateway-process", "gateway-client"],
    &["gateway-manager", "gateway-testkit"],
    &["gateway-cli"],
];

fn workspace() -> Workspace {
    Workspace::load().unwrap()
}

/// What `cargo tree` says about `package` when it is built alone with all its features: each crate that its code
/// reaches, with the features of that crate. Procedural macros run in the compiler, so they may do as they like.
fn reach(workspace: &Workspace, package: &str) -> BTreeMap<String, Vec<String>> {
    let output = workspace
        .cargo()
        .args([
            "tree",
            "--package",
            package,
            "--all-features",
            "--target",
            "all",
        ])
        .args([
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p}|{f}",
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let (name_and_version, features) = line.split_once('|').unwrap();
            let name = name_and_version.split_whitespace().next().unwrap();
            (
                name.to_owned(),
                features.split(',').map(str::to_owned).collect(),
            )
        })
        .collect()
}

#[test]
fn pure_crates_reach_only_what_is_allowed() {
    let workspace = workspace();
    for (package, allowed) in PURE {
        let reach = reach(&workspace, package);
        assert!(
            reach.contains_key(*package),
            "cargo tree does not show {package} itself: {reach:?}"
        );
        for (name, features) in &reach {
            assert!(
                name == package || allowed.contains(&name.as_str()),
                "{package} reaches {name}"
            );
            assert!(
                !features.iter().any(|feature| feature == "std"),
                "{package} builds {name} with std"
            );
        }
    }
}

#[test]
fn pure_crates_are_no_std_in_every_build() {
    let workspace = workspace();
    for (package, _) in PURE {
        let folder = workspace.member(package).unwrap().folder().join("src");
        let root = fs::read_to_string(folder.join("lib.rs")).unwrap();
        assert!(
            root.lines().any(|line| line == "#![no_std]"),
            "{package} has no #![no_std] of its own"
        );

        // Tests may use std; the code that they test may not get it through the same door.
        for file in fs::read_dir(&folder).unwrap() {
            let path = file.unwrap().path();
            if !path.is_file() {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            for (number, line) in lines.iter().enumerate() {
                let only_tests = number > 0 && lines[number - 1] == "#[cfg(test)]"
                    || is_within_tests(&lines[..number]);
                assert!(
                    !line.starts_with("extern crate std") || only_tests,
                    "{}:{}: std outside of tests",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

/// Test modules stand at the end of a file.
fn is_within_tests(lines_before: &[&str]) -> bool {
    lines_before.windows(2).any(|pair| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    })
}

#[test]
fn arrows_between_layers_point_down() {
    let workspace = workspace();
    let layer = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    for member in workspace.members() {
        let own = layer(&member.name);
        for dependency in member
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
        {
            if workspace.member(&dependency.name).is_none() {
                continue;
            }
            let below = layer(&dependency.name);
            assert!(
                matches!((own, below), (Some(own), Some(below)) if below < own),
                "{} must not depend on {}",
                member.name,
                dependency.name
            );
        }
    }
}

#[test]
fn every_crate_has_a_layer() {
    let workspace = workspace();
    let mut placed: Vec<&str> = LAYERS.concat();
    placed.sort_unstable();
    let members: Vec<&str> = workspace
        .members()
        .iter()
        .map(|member| member.name.as_str())
        .filter(|name| *name != "xtask")
        .collect();
    assert_eq!(placed, members);
}
