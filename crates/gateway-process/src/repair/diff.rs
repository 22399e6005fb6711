//! What a repair changed, path by path, for people and for programs, without the secrets that a configuration is full of.

use std::fmt;

use serde_json::Value;

use super::tree::{Leaf, Leaves, leaves};
use crate::redact::{REDACTED, Redactor};

/// Lines that `Display` prints. All of them are in [`ConfigDiff::changes`].
const LINES_SHOWN: usize = 40;

/// Changes that are kept. A configuration has hundreds of values, not thousands.
const CHANGES_KEPT: usize = 2000;

/// Characters shown of a value.
const SHOWN: usize = 80;

/// The differences between two versions of a configuration. It holds no secret: values below a key that is named like one, or that
/// are known to be one, are replaced before they get here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigDiff {
    /// The values that differ, sorted by path, at most 2000 of them.
    pub changes: Vec<ConfigChange>,
    /// How many more there are.
    pub omitted: usize,
    /// One of the versions could not be parsed, and only what could be read of it was compared.
    pub partial: bool,
}

/// A value that is another one now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigChange {
    /// Where, for example `channels.telegram.allowFrom[0]`.
    pub path: String,
    /// The value as it was, as JSON; `None` where there was none.
    pub before: Option<String>,
    /// The value as it is now, as JSON; `None` where there is none any more.
    pub after: Option<String>,
}

impl ConfigDiff {
    /// Compares value by value. `known` knows the secrets that the doctor was given.
    pub(super) fn between(before: &Value, after: &Value, partial: bool, known: &Redactor) -> Self {
        let (before, after) = (leaves(before), leaves(after));
        // A secret that turns up below another key is still one.
        let secrets = before.values().chain(after.values());
        let secrets: Vec<&str> = secrets
            .filter(|leaf| leaf.secret)
            .filter_map(|leaf| leaf.value.as_str())
            .collect();
        let known = known.and(secrets);
        let mut changes: Vec<ConfigChange> = Vec::new();
        let mut omitted = 0;
        let mut add = |path: &String, was: Option<&Leaf<'_>>, is: Option<&Leaf<'_>>| {
            if was.map(|leaf| leaf.value) == is.map(|leaf| leaf.value) {
                return;
            }
            if changes.len() == CHANGES_KEPT {
                omitted += 1;
                return;
            }
            let shown = |leaf: &Leaf<'_>| shown(leaf, &known);
            changes.push(ConfigChange {
                path: known.clean(path),
                before: was.map(shown),
                after: is.map(shown),
            });
        };
        for path in merged(&before, &after) {
            add(path, before.get(path), after.get(path));
        }
        Self {
            changes,
            omitted,
            partial,
        }
    }

    /// Whether no value differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// The paths of both, each once, in order.
fn merged<'a>(before: &'a Leaves<'_>, after: &'a Leaves<'_>) -> Vec<&'a String> {
    let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

fn shown(leaf: &Leaf<'_>, known: &Redactor) -> String {
    let hidden = leaf.secret && (leaf.value.is_string() || leaf.value.is_number());
    if hidden {
        return REDACTED.to_owned();
    }
    let text = match leaf.value.as_str() {
        // Before the quotes: a secret with a quote in it would be written otherwise.
        Some(text) => Value::String(known.clean(text)).to_string(),
        None => known.clean(&leaf.value.to_string()),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl fmt::Display for ConfigChange {
    /// `+ path: new`, `- path: old`, or `~ path: old -> new`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match (&self.before, &self.after) {
            (None, Some(after)) => write!(f, "+ {path}: {after}"),
            (Some(before), None) => write!(f, "- {path}: {before}"),
            (Some(before), Some(after)) => write!(f, "~ {path}: {before} -> {after}"),
            (None, None) => write!(f, "  {path}"),
        }
    }
}

impl fmt::Display for ConfigDiff {
    /// One line per change, the first 40 of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.partial {
            writeln!(
                f,
                "(one version cannot be parsed; this is what could be read of it)"
            )?;
        }
        if self.is_empty() {
            return f.write_str("no value differs");
        }
        for (index, change) in self.changes.iter().take(LINES_SHOWN).enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{change}")?;
        }
        match (self.changes.len() + self.omitted).saturating_sub(LINES_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn diff(before: &Value, after: &Value) -> ConfigDiff {
        ConfigDiff::between(before, after, false, &Redactor::new(["given-token"], []))
    }

    #[test]
    fn lines() {
        let before = json!({
            "gateway": {"mode": "local", "auth": {"token": "s3cret-1", "mode": "token"}, "port": 1},
            "wrong": {"a": [1, 2]},
            "note": "the s3cret-1 of http://user:pw@host",
            "passwords": [1234, true],
            "mcp": {"env": {"HOOK": "https://h/s3cret-2"}},
        });
        let after = json!({
            "gateway": {"mode": "local", "auth": {"token": "given-token", "mode": "token"}, "port": "1"},
            "wrong": {"a": []},
            "copy": "given-token",
            "meta": {"x.y": "é".repeat(100)},
        });
        let expected = format!(
            "+ copy: \"[redacted]\"\n\
             ~ gateway.auth.token: [redacted] -> [redacted]\n\
             ~ gateway.port: 1 -> \"1\"\n\
             - mcp.env.HOOK: [redacted]\n\
             + meta[\"x.y\"]: \"{}…\n\
             - note: \"the [redacted] of http://[redacted]@host\"\n\
             - passwords[0]: [redacted]\n\
             - passwords[1]: true\n\
             + wrong.a: []\n\
             - wrong.a[0]: 1\n\
             - wrong.a[1]: 2",
            "é".repeat(79)
        );
        let diff = diff(&before, &after);
        assert_eq!(diff.to_string(), expected);
        assert!(!format!("{diff:?}").contains("s3cret"));
    }

    #[test]
    fn long_ones_are_cut() {
        let many: Value = (0..2500)
            .map(|number| (format!("k{number:04}"), json!(number)))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let diff = diff(&json!({}), &many);
        assert_eq!((diff.changes.len(), diff.omitted), (2000, 500));
        let text = diff.to_string();
        assert_eq!(
            (text.lines().count(), text.lines().last()),
            (41, Some("and 2460 more"))
        );
        assert_eq!(
            ConfigDiff {
                partial: true,
                ..Default::default()
            }
            .to_string()
            .lines()
            .count(),
            2
        );
    }

    proptest! {
        /// Whatever happens to a secret (removed, changed, moved), it is not shown.
        #[test]
        fn no_secret_is_shown(
            name in "(bot|api)?(Token|Secret|password|Key)s?",
            secret in "[A-Z]{12,20}",
            other in "[A-Z]{12,20}",
            fate in 0..5,
        ) {
            let before = json!({"channels": {"x": {&name: secret, "a": 1}}});
            let after = match fate {
                0 => json!({}),
                1 => json!({"channels": {"x": {&name: other, "a": 1}}}),
                2 => json!({"channels": {"x": {"a": 1, "note": format!("was {secret}")}}}),
                3 => json!({"channels": {"x": {&name: [secret], "a": 2}}}),
                _ => json!({"channels": {"x": {&name: {"source": other}}}}),
            };
            let diff = diff(&before, &after);
            prop_assert!(!diff.is_empty());
            for text in [diff.to_string(), format!("{diff:?}")] {
                prop_assert!(!text.contains(&secret) && !text.contains(&other), "{}", text);
            }
        }
    }
}
