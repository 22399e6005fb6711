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
    /// The fragment that is looked for; at least [`WINDOW`] bytes long.
    key: &'static str,
    /// Those that must be on the same line.
    also: &'static [&'static str],
    level: StderrLevel,
}

const RULES: [Rule; 8] = [
    // A browser tab left open with an old token keeps knocking; that is the tab's problem, not the gateway's.
    Rule {
        key: "openclaw-control-ui",
        also: &["token_mismatch"],
        level: StderrLevel::Drop,
    },
    Rule {
        key: "closed before connect",
        also: &["token mismatch"],
        level: StderrLevel::Drop,
    },
    Rule {
        key: "ExperimentalWarning",
        also: &[],
        level: StderrLevel::Quiet,
    },
    Rule {
        key: "DeprecationWarning",
        also: &[],
        level: StderrLevel::Quiet,
    },
    Rule {
        key: "Debugger attached",
        also: &[],
        level: StderrLevel::Quiet,
    },
    Rule {
        key: "node: --require is not allowed in NODE_OPTIONS",
        also: &[],
        level: StderrLevel::Quiet,
    },
    // Asked for, and told as events of its own.
    Rule {
        key: "[gateway] startup trace: ",
        also: &[],
        level: StderrLevel::Quiet,
    },
    // Listed once per start by the gateway, and again by its own doctor; a remark, not a fault.
    Rule {
        key: "Config warnings:",
        also: &[],
        level: StderrLevel::Quiet,
    },
];

/// How much of each key is looked for: no more than the shortest of them has.
const WINDOW: usize = 16;

/// By how much the window may move when it ends with a pair of bytes: so far that no key can have begun in between. Zero says that a key
/// may stand in the window. All keys are looked for at once, and most bytes of a line are never touched (Wu and Manber, 1994).
const SHIFTS: [u8; PAIRS] = shifts();

/// Pairs of bytes that share an entry only make the window move more slowly.
const PAIRS: usize = 1 << 10;

const fn pair(before: u8, last: u8) -> usize {
    ((before as usize) << 3 ^ last as usize) % PAIRS
}

const fn shifts() -> [u8; PAIRS] {
    let mut shifts = [WINDOW as u8 - 1; PAIRS];
    let mut rule = 0;
    while rule < RULES.len() {
        let key = RULES[rule].key.as_bytes();
        assert!(key.len() >= WINDOW, "the window is longer than a key");
        let mut last = 1;
        while last < WINDOW {
            let shift = (WINDOW - 1 - last) as u8;
            let entry = pair(key[last - 1], key[last]);
            if shift < shifts[entry] {
                shifts[entry] = shift;
            }
            last += 1;
        }
        rule += 1;
    }
    shifts
}

/// Classifies one line whose colour codes have been removed. Matching is case-sensitive; the first rule that fits wins.
///
/// ```
/// use gateway_policy::stderr::{classify, StderrLevel};
/// assert_eq!(classify("(node:7) ExperimentalWarning: SQLite is experimental"), StderrLevel::Quiet);
/// assert_eq!(classify("EADDRINUSE: address already in use"), StderrLevel::Warn);
/// ```
#[must_use]
pub fn classify(line: &str) -> StderrLevel {
    let bytes = line.as_bytes();
    let mut fits = RULES.len();
    let mut end = WINDOW;
    while let Some(window) = end
        .checked_sub(WINDOW)
        .and_then(|start| bytes.get(start..end))
    {
        let shift = SHIFTS[pair(window[WINDOW - 2], window[WINDOW - 1])];
        if shift > 0 {
            end += usize::from(shift);
            continue;
        }
        let from_here = &bytes[end - WINDOW..];
        let found = RULES[..fits].iter().position(|rule| {
            from_here.starts_with(rule.key.as_bytes())
                && rule.also.iter().all(|fragment| line.contains(fragment))
        });
        fits = found.unwrap_or(fits);
        end += 1;
    }
    RULES.get(fits).map_or(StderrLevel::Warn, |rule| rule.level)
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
            (
                "[gateway] startup trace: entry.argv 2.0ms total=952.3ms",
                Quiet,
            ),
            ("experimentalwarning", Warn),
            ("Error: listen EADDRINUSE", Warn),
            ("", Warn),
        ];
        for (line, level) in table {
            assert_eq!(classify(line), level, "{line:?}");
        }
    }

    /// What is meant, without any haste.
    fn classify_plainly(line: &str) -> StderrLevel {
        let fits = |rule: &&Rule| {
            line.contains(rule.key) && rule.also.iter().all(|fragment| line.contains(fragment))
        };
        let rule = RULES.iter().find(fits);
        rule.map_or(StderrLevel::Warn, |rule| rule.level)
    }

    /// Whole fragments, their beginnings and ends, and text that has nothing to do with them.
    fn piece() -> impl Strategy<Value = String> {
        let fragments: alloc::vec::Vec<&str> = RULES
            .iter()
            .flat_map(|rule| core::iter::once(rule.key).chain(rule.also.iter().copied()))
            .collect();
        (
            proptest::sample::select(fragments),
            any::<(u8, u8)>(),
            ".{0,6}",
            0..4_u8,
        )
            .prop_map(|(fragment, (from, to), other, kind)| match kind {
                0 => other,
                1 => fragment[usize::from(from) % fragment.len()..].into(),
                2 => fragment[..usize::from(to) % fragment.len()].into(),
                _ => fragment.into(),
            })
    }

    proptest! {
        #[test]
        fn nothing_is_overlooked_and_nothing_made_up(pieces in proptest::collection::vec(piece(), 0..8)) {
            let line = pieces.concat();
            prop_assert_eq!(classify(&line), classify_plainly(&line), "{:?}", line);
        }

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
