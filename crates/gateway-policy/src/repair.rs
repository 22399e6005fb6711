//! When a configuration is worth one repair, and when a second one would only make it worse.
//!
//! The gateway's exit code decides where it can ([`crate::failure`]). Older gateways end with code 1 whatever is wrong
//! with their configuration; for them the text of their stderr is the only evidence, and [`config_invalid_signal`] reads it.

use crate::failure::Failure;

/// The phrases by which gateways older than exit code 78 say that their configuration is at fault. The last one allows
/// any number of blanks after its colon.
const PHRASES: [&str; 3] = ["invalid config", "config invalid", "unrecognized key"];
const DOCTOR_HINT: (&str, &str) = ("run:", "openclaw doctor --fix");

/// Tells whether a line names an invalid configuration: one of the known phrases, in any case, standing as whole words.
///
/// "Invalid configuration" is no signal: it ends in the middle of a word, and gateways use it for other things.
///
/// ```
/// use gateway_policy::repair::config_invalid_signal;
/// assert!(config_invalid_signal("Invalid config at /tmp/openclaw.json"));
/// assert!(!config_invalid_signal("invalid configuration of the channel"));
/// ```
#[must_use]
pub fn config_invalid_signal(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    PHRASES
        .iter()
        .any(|phrase| stands_as_words(&line, phrase.len(), line.match_indices(phrase)))
        || names_the_doctor(&line)
}

/// The same question over all lines that a failed start left behind.
pub fn any_config_invalid_signal<'a>(lines: impl IntoIterator<Item = &'a str>) -> bool {
    lines.into_iter().any(config_invalid_signal)
}

fn stands_as_words<'a>(
    line: &str,
    length: usize,
    mut matches: impl Iterator<Item = (usize, &'a str)>,
) -> bool {
    matches.any(|(start, _)| is_boundary(line, start) && is_boundary(line, start + length))
}

fn names_the_doctor(line: &str) -> bool {
    let (run, doctor) = DOCTOR_HINT;
    line.match_indices(run).any(|(start, _)| {
        let rest = &line[start + run.len()..];
        let command = rest.trim_start();
        let end = line.len() - command.len() + doctor.len();
        is_boundary(line, start) && command.starts_with(doctor) && is_boundary(line, end)
    })
}

/// A place between a word character and something else, as `\b` means it in a regular expression. Every phrase begins and
/// ends with a word character, so only the outside has to be looked at.
fn is_boundary(line: &str, at: usize) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let before = line[..at].chars().next_back().is_some_and(is_word);
    let after = line[at..].chars().next().is_some_and(is_word);
    before != after
}

/// The repair budget of one recovery episode: one repair, then one relaunch, then the cause is reported to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RepairBudget {
    /// No repair was tried in this episode.
    #[default]
    Unused,
    /// The one repair was spent; a second configuration failure is final.
    Spent,
    /// The operator switched repairs off.
    Disabled,
}

impl RepairBudget {
    /// A fresh budget under the given switch.
    #[must_use]
    pub fn new(enabled: bool) -> Self {
        if enabled {
            Self::Unused
        } else {
            Self::Disabled
        }
    }

    /// Takes the one repair when it is there; `true` means: run it now.
    pub fn take(&mut self) -> bool {
        let granted = *self == Self::Unused;
        if granted {
            *self = Self::Spent;
        }
        granted
    }

    /// Adds to a failure what this budget has to do with it.
    #[must_use]
    pub fn remark(self, mut failure: Failure) -> Failure {
        failure.message.push_str(match self {
            Self::Unused => "",
            Self::Spent => " A repair was run before this launch and did not help.",
            Self::Disabled => " Repairs are switched off.",
        });
        failure
    }

    /// A session that proved stable, or a user's own start, earns the next repair.
    pub fn refill(&mut self) {
        if *self == Self::Spent {
            *self = Self::Unused;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::String};
    use proptest::prelude::*;

    #[test]
    fn table() {
        let table = [
            ("Invalid config at /home/u/.openclaw/openclaw.json:", true),
            ("INVALID CONFIG", true),
            ("the config invalid: see above", true),
            ("- gateway: Unrecognized key: \"prot\"", true),
            ("Run: openclaw doctor --fix", true),
            ("Run:openclaw doctor --fix", true),
            ("run:   OpenClaw Doctor --FIX now", true),
            ("Invalid configuration", false),
            ("reconfig invalid", false),
            ("Unrecognized keys: a, b", false),
            ("openclaw doctor --fix", false),
            ("run: openclaw doctor --fixes", false),
            ("prerun: openclaw doctor --fix", false),
            ("run: openclaw doctor", false),
            ("invalid  config", false),
            ("", false),
        ];
        for (line, expected) in table {
            assert_eq!(config_invalid_signal(line), expected, "{line:?}");
        }
    }

    #[test]
    fn one_repair_per_episode() {
        let mut budget = RepairBudget::new(true);
        assert_eq!(
            [budget.take(), budget.take(), budget.take()],
            [true, false, false]
        );
        budget.refill();
        assert!(budget.take());
        let mut off = RepairBudget::new(false);
        off.refill();
        assert!(!off.take());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(line in any::<String>()) {
            let _ = config_invalid_signal(&line);
        }

        /// A phrase between blanks is found whatever stands around it, and never when a letter is glued to it.
        #[test]
        fn word_boundaries(before in ".{0,20}", after in ".{0,20}", glue in "[a-z0-9_]") {
            let apart = format!("{before} invalid config {after}");
            prop_assert!(config_invalid_signal(&apart));
            let glued = format!("invalid config{glue}");
            prop_assert!(!config_invalid_signal(&glued));
        }
    }
}
