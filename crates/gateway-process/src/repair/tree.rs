//! The leaves of a configuration by their paths.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use crate::redact::is_secret_name;

/// Below these, any value may be a secret, whatever its own name: they hold variables and headers that somebody chose the names of.
const SECRET_PLACES: [&str; 2] = ["env", "headers"];

/// A value that holds no others, or an empty container.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf<'a> {
    /// The nearest key above it; empty for a bare value.
    pub(super) name: &'a str,
    /// Something above it says that it is a secret.
    pub(super) secret: bool,
    pub(super) value: &'a Value,
}

impl Leaf<'_> {
    /// A string that proves who somebody is, by its name.
    pub(super) fn credential(&self) -> Option<&str> {
        let name = self.name.to_ascii_lowercase();
        let named = ["token", "secret", "password", "passwd", "key", "credential"]
            .iter()
            .any(|ending| name.ends_with(ending));
        self.value.as_str().filter(|text| named && !text.is_empty())
    }
}

/// All leaves, by path.
pub(super) type Leaves<'a> = BTreeMap<String, Leaf<'a>>;

pub(super) fn leaves(tree: &Value) -> Leaves<'_> {
    let mut found = Leaves::new();
    let top = Leaf {
        name: "",
        secret: false,
        value: tree,
    };
    collect(top, &mut String::new(), &mut found);
    found
}

fn collect<'a>(at: Leaf<'a>, path: &mut String, found: &mut Leaves<'a>) {
    let length = path.len();
    match at.value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                push_key(path, key);
                let secret =
                    at.secret || is_secret_name(key) || SECRET_PLACES.contains(&key.as_str());
                let below = Leaf {
                    name: key,
                    secret,
                    value,
                };
                collect(below, path, found);
                path.truncate(length);
            }
        }
        Value::Array(values) if !values.is_empty() => {
            for (index, value) in values.iter().enumerate() {
                // Writing to a string does not fail.
                let _ = write!(path, "[{index}]");
                collect(Leaf { value, ..at }, path, found);
                path.truncate(length);
            }
        }
        // An empty configuration has no leaf.
        Value::Object(_) if path.is_empty() => {}
        _ => {
            found.insert(path.clone(), at);
        }
    }
}

/// `a.b`, and `a["b.c"]` for a key that would be read as several.
pub(super) fn push_key(path: &mut String, key: &str) {
    let plain = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_alphanumeric() || "_-$".contains(c));
    if !plain {
        let _ = write!(path, "[{key:?}]");
    } else if path.is_empty() {
        path.push_str(key);
    } else {
        path.push('.');
        path.push_str(key);
    }
}

/// Whether nothing is in it.
pub(super) fn is_hollow(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(values)) => values.is_empty(),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths() {
        let tree = json!({"a": {"b": [1, {"c": null}], "d.e": {}, "": "x"}, "env": {"X": "1"}, "apiKeys": ["k"]});
        let leaves = leaves(&tree);
        let paths: Vec<_> = leaves
            .iter()
            .map(|(path, leaf)| (path.as_str(), leaf.name, leaf.secret))
            .collect();
        assert_eq!(
            paths,
            [
                "a.b[0] b",
                "a.b[1].c c",
                "a[\"\"] ",
                "a[\"d.e\"] d.e",
                "apiKeys[0] apiKeys",
                "env.X X"
            ]
            .map(|line| {
                let (path, name) = line.rsplit_once(' ').unwrap();
                (
                    path,
                    name,
                    path.starts_with("apiKeys") || path.starts_with("env"),
                )
            })
        );
        assert!(super::leaves(&json!({})).is_empty());
    }
}
