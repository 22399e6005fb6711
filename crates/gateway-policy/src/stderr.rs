//! What a line on the gateway's stderr is worth.
//!
//! Classification is for logging and hints. Nothing is restarted or ended because of a line: decisions use exit codes
//! and protocol errors, and fall back on text only through [`crate::repair`] for versions that give no exit code.

/// How loudly a line deserves to be repeated in the host's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StderrLevel {
    /// Known noise that says nothing about this gateway; it is counted, not logged.
    Drop,
    /// Harmless remarks of the Node runtime; logged at debug level.
    Quiet,
    /// Everything else; logged as a warning.
    Warn,
}

/// All fragments of one rule must occur in a line, in any order, in exactly this spelling.
struct Rule {
    fragments: &'static [&'static str],
    level: StderrLevel,
}

const RULES: &[Rule] = &[
    // A browser tab left open with an old token keeps knocking; that is the tab's problem, not the gateway's.
    Rule {
        fragments: &["openclaw-control-ui", "token_mismatch"],
        level: StderrLevel::Drop,
    },
    Rule {
        fragments: &["closed before connect", "token mismatch"],
        level: StderrLevel::Drop,
    },
    Rule {
        fragments: &["ExperimentalWarning"],
        level: StderrLevel::Quiet,
    },
    Rule {
        fragments: &["DeprecationWarning"],
        level: StderrLevel::Quiet,
    },
    Rule {
        fragments: &["Debugger attached"],
        level: StderrLevel::Quiet,
    },
    Rule {
        fragments: &["node: --require is not allowed in NODE_OPTIONS"],
        level: StderrLevel::Quiet,
    },
    // Listed once per start by the gateway, and again by its own doctor; a remark, not a fault.
    Rule {
        fragments: &["Config warnings:"],
        level: StderrLevel::Quiet,
    },
];

/// Classifies one line whose colour codes have been removed. Matching is case-sensitive; the first rule that fits wins.
///
/// ```
/// use gateway_policy::stderr::{classify, StderrLevel};
/// assert_eq!(classify("(node:7) ExperimentalWarning: SQLite is experimental"), StderrLevel::Quiet);
/// assert_eq!(classify("EADDRINUSE: address already in use"), StderrLevel::Warn);
/// ```
#[must_use]
pub fn classify(line: &str) -> StderrLevel {
    RULES
        .iter()
        .find(|rule| {
            rule.fragments
                .iter()
                .all(|fragment| line.contains(fragment))
        })
        .map_or(StderrLevel::Warn, |rule| rule.level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    #[test]
    fn table() {
        use StderrLevel::{Drop, Quiet, Warn};
        let table = [
            ("[ws] openclaw-control-ui refused: token_mismatch", Drop),
            ("token_mismatch from openclaw-control-ui", Drop),
            ("closed before connect: token mismatch", Drop),
            // Both parts have to stand on one line, spelled as they are.
            ("openclaw-control-ui connected", Warn),
            ("token_mismatch", Warn),
            ("OpenClaw-Control-UI token_mismatch", Warn),
            ("closed before connect", Warn),
            ("closed before connect token_mismatch", Warn),
            ("(node:1) ExperimentalWarning: x", Quiet),
            ("(node:1) [DEP0040] DeprecationWarning: punycode", Quiet),
            ("Debugger attached.", Quiet),
            ("node: --require is not allowed in NODE_OPTIONS", Quiet),
            ("Config warnings: plugins.entries.x", Quiet),
            ("experimentalwarning", Warn),
            ("Error: listen EADDRINUSE", Warn),
            ("", Warn),
        ];
        for (line, level) in table {
            assert_eq!(classify(line), level, "{line:?}");
        }
    }

    proptest! {
        /// Text around a known remark never makes it louder.
        #[test]
        fn surroundings_do_not_matter(before in ".{0,40}", after in ".{0,40}") {
            let mut line = String::from(before.as_str());
            line.push_str("ExperimentalWarning");
            line.push_str(&after);
            prop_assert!(classify(&line) <= StderrLevel::Quiet);
        }
    }
}
