//! Whether what the doctor made of a configuration may stay.
//!
//! It may, unless something is gone that nobody writes anew from memory: who may connect, how the gateway runs, a channel, a plugin, a
//! credential, or half of everything. A wrong refusal costs a look by a person; a wrong approval costs the configuration.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use super::files::{ConfigFile, Configuration, Content};
use super::tree::{Leaf, Leaves, is_hollow, leaves, push_key};
use crate::redact::Redactor;

/// Fewer values than this are no half of anything: a configuration that consists of one unknown key is repaired by removing it.
const FEW_LEAVES: usize = 3;

/// The same for the length of the values written as JSON without blanks, in bytes.
const FEW_BYTES: usize = 256;

/// Why the result of a doctor was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalReason {
    /// The doctor failed, and what it left is its work half done.
    DoctorFailed,
    /// A file is gone.
    FileRemoved {
        /// The file.
        file: PathBuf,
    },
    /// A file cannot be parsed any more, or still cannot.
    Unparseable {
        /// The file.
        file: PathBuf,
        /// Where it fails. Quotes nothing of the file.
        problem: String,
    },
    /// Nothing is left of what had been configured: the file was replaced by a fresh one.
    Replaced,
    /// A protected block or value is gone or empty: the authentication, the mode, a channel, a plugin.
    Vanished {
        /// Its path.
        path: String,
    },
    /// A protected value is another one now, or was set where there was none: who may connect, or the mode of the gateway.
    Altered {
        /// Its path.
        path: String,
    },
    /// A credential is gone and stands nowhere else.
    CredentialLost {
        /// Its path.
        path: String,
    },
    /// A placeholder for something redacted stands where a value was, or where nothing was.
    Placeholder {
        /// Its path.
        path: String,
    },
    /// More than half of the values are gone.
    ValuesLost {
        /// How many there were.
        before: usize,
        /// How many of them are still there.
        kept: usize,
    },
    /// The values take less than half of the space that they took, written as JSON without blanks and comments.
    Shrunk {
        /// Bytes before.
        before: usize,
        /// Bytes now.
        after: usize,
    },
    /// An older version of the file was put in place of the repaired one, which undoes every edit since.
    OlderVersion {
        /// The file that has the same values.
        file: PathBuf,
    },
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoctorFailed => f.write_str("the doctor failed half-way"),
            Self::FileRemoved { file } => write!(f, "{} was removed", file.display()),
            Self::Unparseable { file, problem } => {
                write!(f, "{} cannot be used: {problem}", file.display())
            }
            Self::Replaced => f.write_str("nothing is left of what had been configured"),
            Self::Vanished { path } => write!(f, "{path} is gone"),
            Self::Altered { path } => write!(f, "{path} was changed"),
            Self::CredentialLost { path } => write!(f, "the credential {path} is gone"),
            Self::Placeholder { path } => {
                write!(f, "{path} holds a placeholder instead of a value")
            }
            Self::ValuesLost { before, kept } => {
                write!(f, "only {kept} of {before} values are left")
            }
            Self::Shrunk { before, after } => {
                write!(f, "the values shrank from {before} to {after} bytes")
            }
            Self::OlderVersion { file } => {
                write!(f, "an older version was put back ({})", file.display())
            }
        }
    }
}

/// Compares the configuration before the doctor with the one after it. No reason means: it may stay.
///
/// `others` are versions of the file that were beside it before; `known` knows the secrets that the doctor was given.
pub(super) fn judge(
    before: &Configuration,
    after: &Configuration,
    others: &[(PathBuf, Value)],
    known: &Redactor,
) -> Vec<RefusalReason> {
    let mut reasons = of_files(before, after);
    if before.main.content.bytes().is_none() {
        // There was nothing that could be lost.
        reasons.extend(placeholders(&Leaves::new(), &leaves(&after.tree())));
        return reasons;
    }
    let whole = before.is_whole();
    let (before, after) = (before.tree(), after.tree());
    reasons.extend(of_trees(&before, whole, &after, known));
    reasons.extend(older_version(&before, &after, others));
    reasons
}

fn of_files(before: &Configuration, after: &Configuration) -> Vec<RefusalReason> {
    let reason = |was: &ConfigFile| {
        let file = was.path.clone();
        let is = after
            .file(&was.path)
            .filter(|is| is.content != was.content)?;
        if is.content == Content::Missing {
            return Some(RefusalReason::FileRemoved { file });
        }
        let problem = is.document.problem()?.to_owned();
        Some(RefusalReason::Unparseable { file, problem })
    };
    before.files().filter_map(reason).collect()
}

/// The rules about values.
fn of_trees(before: &Value, whole: bool, after: &Value, known: &Redactor) -> Vec<RefusalReason> {
    let (old, new) = (leaves(before), leaves(after));
    if old.is_empty() && !whole {
        // Nothing could be found in a damaged text, so nothing shows that the result has to do with it.
        return vec![RefusalReason::Replaced];
    }
    let mut reasons = Vec::new();
    reasons.extend(vanished(before, after));
    reasons.extend(altered(&old, &new, known));
    reasons.extend(credentials(&old, &new, after));
    reasons.extend(placeholders(&old, &new));
    reasons.extend(losses(before, after, &old, &new));
    reasons
}

/// Protected blocks that are gone or empty, and identifiers that were stripped from the lists of the plugins.
fn vanished(before: &Value, after: &Value) -> Vec<RefusalReason> {
    let mut reasons = Vec::new();
    let mut gone = |path: String| reasons.push(RefusalReason::Vanished { path });
    for keys in [["gateway", "auth"], ["gateway", "mode"]] {
        if !is_hollow(at(before, &keys)) && is_hollow(at(after, &keys)) {
            gone(path(&keys));
        }
    }
    for place in [&["channels"][..], &["plugins"], &["plugins", "entries"]] {
        for (key, block) in members(before, place) {
            let keys: Vec<&str> = place.iter().copied().chain([key.as_str()]).collect();
            if is_block(Some(block)) && !is_block(at(after, &keys)) {
                gone(path(&keys));
            }
        }
    }
    // `plugins.allow`, `plugins.deny`, `plugins.load.paths`: which plugins there are.
    let lists = members(before, &["plugins"]).filter(|(key, _)| *key != "entries");
    for (key, block) in lists {
        let mut compare = |keys: &[&str], list: &Value| {
            let now = at(after, keys).and_then(Value::as_array);
            let named = list
                .as_array()
                .into_iter()
                .flatten()
                .filter(|item| item.is_string());
            for item in named.filter(|item| now.is_none_or(|now| !now.contains(item))) {
                gone(format!("{}[{item}]", path(keys)));
            }
        };
        compare(&["plugins", key], block);
        for (below, list) in members(block, &[]) {
            compare(&["plugins", key, below], list);
        }
    }
    reasons
}

/// Who may connect and how the gateway runs are not the doctor's to decide.
fn altered(old: &Leaves<'_>, new: &Leaves<'_>, known: &Redactor) -> Vec<RefusalReason> {
    const MODE: &str = "gateway.mode";
    const AUTH: &str = "gateway.auth.";
    const AUTH_MODE: &str = "gateway.auth.mode";
    let differs = |path: &str| {
        let text = |leaves: &Leaves<'_>| leaves.get(path).map(|leaf| text_of(leaf.value));
        text(old) != text(new)
    };
    // A token that the doctor was given, that a damaged text has in another place, or that is a reference to a variable, lets in
    // nobody else.
    let is_stranger = |leaf: &Leaf<'_>| {
        leaf.credential().is_some_and(|text| {
            let moved = |was: &Leaf<'_>| was.name == leaf.name && was.credential() == Some(text);
            !known.is_known(text) && !text.starts_with("${") && !old.values().any(moved)
        })
    };
    let auth = |path: &&String| path.starts_with(AUTH);
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).filter(auth).collect();
    let mut changed: Vec<&str> = Vec::new();
    for path in paths.into_iter().filter(|path| differs(path)) {
        let guarded = |was: &Leaf<'_>| {
            let number = was.secret && was.value.is_number();
            path == AUTH_MODE || number || was.credential().is_some()
        };
        let opens = |is: &Leaf<'_>| path == AUTH_MODE && text_of(is.value) == "none";
        if old.get(path).is_some_and(guarded)
            || new.get(path).is_some_and(|is| opens(is) || is_stranger(is))
        {
            changed.push(path);
        }
    }
    // A mode that no gateway knows may be corrected, and one that is gone has been told.
    let is_mode = |was: &Leaf<'_>| matches!(was.value.as_str(), Some("local" | "remote"));
    if new.contains_key(MODE) && differs(MODE) && old.get(MODE).is_some_and(is_mode) {
        changed.push(MODE);
    }
    let reason = |path: &str| RefusalReason::Altered {
        path: path.to_owned(),
    };
    changed.into_iter().map(reason).collect()
}

/// Credentials that stand nowhere any more, although the section that they were in is still there.
///
/// A whole section that the gateway does not know may be removed with what is in it; half of everything may not.
fn credentials(old: &Leaves<'_>, new: &Leaves<'_>, after: &Value) -> Vec<RefusalReason> {
    let still: HashSet<&str> = new
        .values()
        .filter_map(|leaf| leaf.value.as_str())
        .collect();
    let lost = old.iter().filter(|(path, leaf)| {
        let section = path.split(['.', '[']).next().unwrap_or_default();
        let kept = after.get(section).is_some();
        // Another value is another credential; that is an edit, and the diff shows it.
        let replaced = new.get(*path).is_some_and(|now| now.credential().is_some());
        kept && !replaced && leaf.credential().is_some_and(|text| !still.contains(text))
    });
    lost.map(|(path, _)| RefusalReason::CredentialLost { path: path.clone() })
        .collect()
}

/// Placeholders that were not there before.
fn placeholders(old: &Leaves<'_>, new: &Leaves<'_>) -> Vec<RefusalReason> {
    let known: HashSet<&str> = old
        .values()
        .filter_map(|leaf| leaf.value.as_str())
        .filter(|text| is_placeholder(text, true))
        .collect();
    let appeared = new.iter().filter(|(path, leaf)| {
        let before = old.get(*path).and_then(|was| was.value.as_str());
        leaf.value.as_str().is_some_and(|text| {
            // What was there before is not the doctor's work, not even in another place: unless it took the place of something else.
            let moved = before.is_none() && known.contains(text);
            is_placeholder(text, leaf.secret) && before != Some(text) && !moved
        })
    });
    appeared
        .map(|(path, _)| RefusalReason::Placeholder { path: path.clone() })
        .collect()
}

/// What OpenClaw and others print in place of a secret. In the place of a secret, what merely looks shortened counts, too.
fn is_placeholder(text: &str, secret: bool) -> bool {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    let marked = [
        "_redacted__",
        "<redacted",
        "[redacted",
        "(redacted",
        "{redacted",
        "*redacted*",
    ]
    .iter()
    .any(|mark| lower.contains(mark));
    let masked = |least: usize| {
        let mut run = 0;
        text.chars().any(|c| {
            run = if matches!(c, '*' | '•' | '●') {
                run + 1
            } else {
                0
            };
            run == least
        })
    };
    let nothing_else =
        !text.is_empty() && text.chars().all(|c| matches!(c, '*' | '•' | '●')) && masked(3);
    let shortened = secret
        && (text.contains('…')
            || masked(3)
            || ["redacted", "hidden", "masked"].contains(&lower.as_str()));
    marked || masked(5) || nothing_else || shortened
}

/// Half of everything is too much, whatever it was.
fn losses(before: &Value, after: &Value, old: &Leaves<'_>, new: &Leaves<'_>) -> Vec<RefusalReason> {
    let mut reasons = Vec::new();
    let kept = kept(old, new);
    if kept == 0 && old.len() > 1 {
        return vec![RefusalReason::Replaced];
    }
    if old.len() - kept >= FEW_LEAVES && kept * 2 < old.len() {
        reasons.push(RefusalReason::ValuesLost {
            before: old.len(),
            kept,
        });
    }
    let (was, is) = (before.to_string().len(), after.to_string().len());
    if was.saturating_sub(is) >= FEW_BYTES && is * 2 < was {
        reasons.push(RefusalReason::Shrunk {
            before: was,
            after: is,
        });
    }
    reasons
}

/// How many of the old values are still there: at their path, whatever they are now, or under the same name in another place, as a
/// doctor leaves them that moves a section to where a newer release looks for it.
fn kept(old: &Leaves<'_>, new: &Leaves<'_>) -> usize {
    let mut elsewhere: HashMap<(&str, String), usize> = HashMap::new();
    for (_, leaf) in new.iter().filter(|(path, _)| !old.contains_key(*path)) {
        *elsewhere
            .entry((leaf.name, text_of(leaf.value)))
            .or_default() += 1;
    }
    let mut kept = 0;
    for (path, leaf) in old {
        let in_place = new.contains_key(path);
        let mut moved = || match elsewhere.get_mut(&(leaf.name, text_of(leaf.value))) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        };
        if in_place || moved() {
            kept += 1;
        }
    }
    kept
}

/// The result has the same values as a version that was there before, and that is more than taking one value away or correcting one: every
/// edit since then is undone.
fn older_version(
    before: &Value,
    after: &Value,
    others: &[(PathBuf, Value)],
) -> Option<RefusalReason> {
    let (before, after) = (without_stamp(before), without_stamp(after));
    let (old, new) = (leaves(&before), leaves(&after));
    let put = new
        .iter()
        .filter(|(path, leaf)| old.get(*path).is_none_or(|was| was.value != leaf.value))
        .count();
    let taken = old.keys().filter(|path| !new.contains_key(*path)).count();
    if put == 0 || put + taken < 2 {
        return None;
    }
    let same = others
        .iter()
        .find(|(_, other)| without_stamp(other) == after)?;
    Some(RefusalReason::OlderVersion {
        file: same.0.clone(),
    })
}

/// Without the section in which OpenClaw notes when it last wrote.
fn without_stamp(tree: &Value) -> Value {
    let mut tree = tree.clone();
    if let Value::Object(map) = &mut tree {
        map.remove("meta");
    }
    tree
}

fn at<'a>(tree: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().try_fold(tree, |value, key| value.get(*key))
}

fn members<'a>(tree: &'a Value, keys: &[&str]) -> impl Iterator<Item = (&'a String, &'a Value)> {
    at(tree, keys)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn is_block(value: Option<&Value>) -> bool {
    value.is_some_and(|value| value.is_object() || value.is_array()) && !is_hollow(value)
}

fn path(keys: &[&str]) -> String {
    let mut path = String::new();
    for key in keys {
        push_key(&mut path, key);
    }
    path
}

/// A number and the text of it are the same value in another type.
fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::destruction::{before, destroyed, harm};
    use super::*;
    use serde_json::json;

    fn reasons(before: &[u8], after: &[u8]) -> Vec<RefusalReason> {
        let known = Redactor::new(["given-token"], []);
        let path = PathBuf::from("nowhere/openclaw.json");
        let of = |bytes: &[u8]| {
            Configuration::of_contents(&path, [(path.clone(), bytes.to_vec())]).unwrap()
        };
        judge(&of(before), &of(after), &[], &known)
    }

    fn of(before: &Value, after: &Value) -> Vec<String> {
        let reasons = reasons(before.to_string().as_bytes(), after.to_string().as_bytes());
        reasons.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_thousand_destructive_edits_are_found_or_do_no_harm() {
        let original = before().to_string();
        let (mut found, mut harmless) = (0, 0);
        for seed in 0..1000 {
            let after = destroyed(seed);
            let harm = harm(&after);
            harmless += usize::from(harm.is_none());
            match reasons(original.as_bytes(), &after)[..] {
                [] => assert_eq!(
                    harm,
                    None,
                    "seed {seed} was let through: {}",
                    String::from_utf8_lossy(&after)
                ),
                _ => found += 1,
            }
        }
        // Neither everything nor nothing, and little that does no harm: where a credential was lost that its place does not protect.
        assert!((500..950).contains(&found), "{found}");
        assert!(
            (1000 - found) * 10 >= harmless * 8,
            "{found} found, {harmless} harmless"
        );
    }

    #[test]
    fn protected_values() {
        let auth = |value: Value| json!({"gateway": {"auth": value, "mode": "local"}, "a": 1});
        let key = "gateway.auth.token was changed";
        let table = [
            (
                auth(json!({"token": "a"})),
                auth(json!({"token": "a"})),
                vec![],
            ),
            (
                auth(json!({"token": "a"})),
                auth(json!({"token": "b"})),
                vec![key],
            ),
            // The same in another type.
            (
                auth(json!({"token": 123})),
                auth(json!({"token": "123"})),
                vec![],
            ),
            (
                auth(json!({"token": 123})),
                auth(json!({"token": "124"})),
                vec![key],
            ),
            // Set where none was, or an empty one.
            (
                auth(json!({"x": 1})),
                auth(json!({"x": 1, "token": "b"})),
                vec![key],
            ),
            (
                auth(json!({"token": ""})),
                auth(json!({"token": "b"})),
                vec![key],
            ),
            (
                auth(json!({"x": 1})),
                auth(json!({"x": 1, "token": "given-token"})),
                vec![],
            ),
            (
                auth(json!({"x": 1})),
                auth(json!({"x": 1, "token": "${VARIABLE}"})),
                vec![],
            ),
            (
                auth(json!({"x": 1})),
                auth(json!({"x": 1, "mode": "token"})),
                vec![],
            ),
            (
                auth(json!({"x": 1})),
                auth(json!({"x": 1, "mode": "none"})),
                vec!["gateway.auth.mode was changed"],
            ),
            (
                auth(json!({"mode": "password"})),
                auth(json!({"mode": "token"})),
                vec!["gateway.auth.mode was changed"],
            ),
            // What is no credential may be corrected.
            (
                auth(json!({"tokn": "a", "allowTailscale": "yes"})),
                auth(json!({"allowTailscale": true})),
                vec![],
            ),
            (
                auth(json!({"x": 1})),
                auth(json!({})),
                vec!["gateway.auth is gone"],
            ),
            (
                auth(json!({"token": "aaaa"})),
                json!({"gateway": {"mode": "local"}, "a": 1}),
                vec![
                    "gateway.auth is gone",
                    key,
                    "the credential gateway.auth.token is gone",
                ],
            ),
        ];
        for (before, after, expected) in table {
            assert_eq!(of(&before, &after), expected, "{before} -> {after}");
        }
    }

    #[test]
    fn the_mode() {
        let mode = |value: Value| json!({"gateway": {"mode": value, "port": 1}, "a": 1});
        let table = [
            (
                json!("local"),
                json!("remote"),
                vec!["gateway.mode was changed"],
            ),
            (
                json!("remote"),
                json!("local"),
                vec!["gateway.mode was changed"],
            ),
            (json!("lokal"), json!("local"), vec![]),
            (json!("lokal"), json!(null), vec!["gateway.mode is gone"]),
            (json!(null), json!("local"), vec![]),
        ];
        for (before, after, expected) in table {
            assert_eq!(
                of(&mode(before.clone()), &mode(after)),
                expected,
                "{before}"
            );
        }
    }

    #[test]
    fn blocks() {
        let table = [
            (
                json!({"channels": {"a": {"x": 1}}, "k": 1}),
                json!({"channels": {"b": {"x": 1}}, "k": 1}),
                vec!["channels.a is gone"],
            ),
            (
                json!({"channels": {"a": true}, "k": 1}),
                json!({"channels": {}, "k": 1}),
                vec![],
            ),
            (
                json!({"channels": {"a": {"x": 1}}, "k": 1}),
                json!({"channels": {"a": true}, "k": 1}),
                vec!["channels.a is gone"],
            ),
            (
                json!({"channels": {"a": {"x": 1, "y": 2}}, "k": 1}),
                json!({"channels": {"a": {"x": 1}}, "k": 1}),
                vec![],
            ),
            (
                json!({"plugins": {"entries": {"a.b": {"x": 1}}}, "k": 1}),
                json!({"plugins": {"entries": {"c": {"x": 1}}}, "k": 1}),
                vec!["plugins.entries[\"a.b\"] is gone"],
            ),
            (
                json!({"plugins": {"allow": ["a", "b"]}, "k": 1}),
                json!({"plugins": {"allow": ["b", "c"]}, "k": 1}),
                vec!["plugins.allow[\"a\"] is gone"],
            ),
            (
                json!({"plugins": {"enabled": true, "slots": {"m": "x"}}, "k": 1}),
                json!({"plugins": {"slots": {"m": "x"}}, "k": 1}),
                vec![],
            ),
        ];
        for (before, after, expected) in table {
            assert_eq!(of(&before, &after), expected, "{before} -> {after}");
        }
    }

    #[test]
    fn credentials_and_placeholders() {
        let lost = "the credential m.apiKey is gone";
        let held = "m.apiKey holds a placeholder instead of a value";
        let table = [
            (
                json!({"m": {"apiKey": "k1", "x": 1}}),
                json!({"m": {"x": 1}}),
                vec![lost],
            ),
            (
                json!({"m": {"apiKey": "k1", "x": 1}}),
                json!({"m": {"apiKey": "k2", "x": 1}}),
                vec![],
            ),
            (
                json!({"m": {"apiKey": "k1", "x": 1}}),
                json!({"m": {"x": 1}, "n": {"key": "k1"}}),
                vec![],
            ),
            // A section that is not known, with what is in it.
            (
                json!({"m": {"apiKey": "k1"}, "x": 1, "y": 1}),
                json!({"x": 1, "y": 1}),
                vec![],
            ),
            (
                json!({"m": {"apiKey": "k1"}}),
                json!({"m": {"apiKey": "__OPENCLAW_REDACTED__"}}),
                vec![held],
            ),
            (
                json!({"m": {"apiKey": "k1"}}),
                json!({"m": {"apiKey": "ab***yz"}}),
                vec![held],
            ),
            (
                json!({"m": {"apiKey": "k1"}}),
                json!({"m": {"apiKey": "••••••••"}}),
                vec![held],
            ),
            (
                json!({"m": {"apiKey": "k1"}}),
                json!({"m": {"apiKey": "REDACTED"}}),
                vec![held],
            ),
            (
                json!({"m": {"note": "k1"}}),
                json!({"m": {"note": "<Redacted>"}}),
                vec!["m.note holds a placeholder instead of a value"],
            ),
            // It was there before, in this place or in another.
            (
                json!({"m": {"apiKey": "***"}, "x": 1}),
                json!({"m": {"apiKey": "***"}}),
                vec![],
            ),
            (
                json!({"m": {"apiKey": "***", "x": 1}}),
                json!({"n": {"apiKey": "***"}, "m": {"x": 1}}),
                vec![],
            ),
            // Stars that mean something else.
            (
                json!({"cron": "0 * * * *"}),
                json!({"cron": "0 0 * * *", "glob": "**/*.ts", "from": "*", "text": "and so on…"}),
                vec![],
            ),
        ];
        for (before, after, expected) in table {
            assert_eq!(of(&before, &after), expected, "{before} -> {after}");
        }
    }

    #[test]
    fn size() {
        let many = |from: usize, to: usize| -> Value {
            (from..to)
                .map(|number| (format!("k{number}"), json!(number)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let table = [
            (many(0, 10), many(5, 10), vec![]),
            (
                many(0, 10),
                many(6, 10),
                vec!["only 4 of 10 values are left"],
            ),
            (many(0, 4), many(2, 4), vec![]),
            (many(0, 3), many(2, 3), vec![]),
            (
                many(0, 2),
                json!({"meta": 1}),
                vec!["nothing is left of what had been configured"],
            ),
            (many(0, 1), json!({"meta": 1}), vec![]),
            (json!({}), json!({"meta": 1}), vec![]),
            (
                json!({"a": "x".repeat(300), "b": 1}),
                json!({"a": "x", "b": 1}),
                vec!["the values shrank from 314 to 15 bytes"],
            ),
            (
                json!({"a": "x".repeat(200), "b": 1}),
                json!({"a": "x", "b": 1}),
                vec![],
            ),
            // Moved to where a newer release looks for it.
            (
                json!({"old": many(0, 10), "x": 1}),
                json!({"new": {"place": many(0, 10)}, "x": 1}),
                vec![],
            ),
        ];
        for (before, after, expected) in table {
            assert_eq!(of(&before, &after), expected, "{before} -> {after}");
        }
    }
}
