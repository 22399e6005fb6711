//! A doctor that destroys, for tests: random edits of a configuration by the number of their seed, and whether one does harm.
//!
//! What harmless means is said here once more, in other words than in the code that is tested.

use std::collections::HashSet;

use serde_json::{Value, json};

/// SplitMix64: a seed is a story.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }
}

pub(crate) fn before() -> Value {
    let agents: Vec<Value> = (0..6)
        .map(|number| json!({"id": format!("agent-{number}"), "name": format!("Agent {number}"), "skills": ["read", "write"]}))
        .collect();
    json!({
        "gateway": {"mode": "local", "port": 18789, "prot": 1, "auth": {"mode": "token", "token": "s3cret-gateway"}},
        "channels": {
            "telegram": {"botToken": "s3cret-telegram", "allowFrom": ["tg:1", "tg:2"]},
            "discord": {"token": "s3cret-discord", "dmPolicy": "pairing"},
        },
        "plugins": {"allow": ["matrix", "calls"], "entries": {"matrix": {"enabled": true}, "calls": {"enabled": false}}},
        "agents": {"defaults": {"workspace": "~/agent"}, "list": agents},
        "models": {"providers": {"own": {"apiKey": "s3cret-provider", "baseUrl": "https://models.example.org"}}},
        "session": {"scope": "per-sender", "reset": {"mode": "daily", "atHour": 4}},
        "logging": {"level": "info", "redact": ["a", "b"]},
    })
}

/// A container somewhere in the tree; the deeper the fewer.
fn somewhere<'a>(tree: &'a mut Value, dice: &mut Dice) -> &'a mut Value {
    let below = match &*tree {
        Value::Object(map) => map.len(),
        Value::Array(values) => values.len(),
        _ => 0,
    };
    let at = dice.below(below);
    let enters = match &*tree {
        Value::Object(map) => map.values().nth(at),
        Value::Array(values) => values.get(at),
        _ => None,
    }
    .is_some_and(|value| value.is_object() || value.is_array())
        && dice.below(3) > 0;
    if !enters {
        return tree;
    }
    let next = match tree {
        Value::Object(map) => map.values_mut().nth(at),
        Value::Array(values) => values.get_mut(at),
        _ => None,
    };
    somewhere(next.unwrap(), dice)
}

/// One edit of the tree.
fn edit(tree: &mut Value, dice: &mut Dice) {
    let what = dice.below(8);
    let junk = [
        json!(null),
        json!({}),
        json!([]),
        json!(""),
        json!("__OPENCLAW_REDACTED__"),
        json!("***"),
        json!("<redacted>"),
        json!(7),
        json!("other"),
    ];
    let junk = junk[dice.below(junk.len())].clone();
    let pick = dice.next();
    match somewhere(tree, dice) {
        Value::Object(map) if !map.is_empty() => {
            let at = usize::try_from(pick % map.len() as u64).unwrap();
            let key = map.keys().nth(at).unwrap().clone();
            match what {
                0..=2 => {
                    map.remove(&key);
                }
                3 | 4 => {
                    map.insert(key, junk);
                }
                5 => {
                    let value = map.remove(&key).unwrap();
                    map.insert(format!("{key}2"), value);
                }
                6 => map.clear(),
                _ => {
                    map.insert("added".to_owned(), junk);
                }
            }
        }
        Value::Array(values) if !values.is_empty() => {
            let at = usize::try_from(pick % values.len() as u64).unwrap();
            match what {
                0..=3 => {
                    values.remove(at);
                }
                4 | 5 => values[at] = junk,
                6 => values.clear(),
                _ => values.push(junk),
            }
        }
        container => *container = junk,
    }
}

/// What the doctor of this seed leaves.
pub(crate) fn destroyed(seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut tree = before();
    if dice.below(4) > 0 {
        let most = if dice.below(3) == 0 { 30 } else { 3 };
        for _ in 0..=dice.below(most) {
            edit(&mut tree, &mut dice);
        }
        return format!("{tree:#}\n").into_bytes();
    }
    let mut bytes = format!("{tree:#}\n").into_bytes();
    let (from, to) = (dice.below(bytes.len()), dice.below(bytes.len()));
    let range = from.min(to)..from.max(to);
    match dice.below(5) {
        0 => bytes.truncate(from),
        1 => drop(bytes.drain(range)),
        2 => bytes[from] = u8::try_from(dice.below(256)).unwrap(),
        3 => {
            let copy = bytes[range].to_vec();
            bytes.splice(to..to, copy);
        }
        _ => bytes[range].fill(b' '),
    }
    bytes
}

/// Path, last name, and value of everything that is no container with something in it.
fn values(tree: &Value) -> Vec<(String, String, String)> {
    fn walk(path: &str, name: &str, value: &Value, found: &mut Vec<(String, String, String)>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    walk(&format!("{path}/{key}"), key, value, found);
                }
            }
            Value::Array(values) if !values.is_empty() => {
                for (index, value) in values.iter().enumerate() {
                    walk(&format!("{path}/{index}"), name, value, found);
                }
            }
            _ => found.push((path.to_owned(), name.to_owned(), value.to_string())),
        }
    }
    let mut found = Vec::new();
    walk("", "", tree, &mut found);
    found
}

/// Nothing protected is gone, no placeholder has come, it parses, and at least half of it is there.
pub(crate) fn harm(after: &[u8]) -> Option<String> {
    let before = before();
    let Some(after) = std::str::from_utf8(after)
        .ok()
        .and_then(|text| json5::from_str::<Value>(text).ok())
        .filter(Value::is_object)
    else {
        return Some("it does not parse".to_owned());
    };
    for place in ["/gateway/mode", "/gateway/auth/mode", "/gateway/auth/token"] {
        if before.pointer(place) != after.pointer(place) {
            return Some(format!("{place} is another one"));
        }
    }
    for place in ["/channels", "/plugins", "/plugins/entries"] {
        for key in before.pointer(place).unwrap().as_object().unwrap().keys() {
            let now = after.pointer(&format!("{place}/{key}"));
            let there = match now {
                Some(Value::Object(map)) => !map.is_empty(),
                Some(Value::Array(values)) => !values.is_empty(),
                _ => false,
            };
            if !there {
                return Some(format!("{place}/{key} is gone"));
            }
        }
    }
    let allowed = after.pointer("/plugins/allow").unwrap().to_string();
    if !["matrix", "calls"].iter().all(|id| allowed.contains(id)) {
        return Some("a plugin is not allowed any more".to_owned());
    }
    let text = after.to_string();
    if ["REDACTED", "***", "<redacted>"]
        .iter()
        .any(|mark| text.contains(mark))
    {
        return Some("a placeholder has come".to_owned());
    }
    let (old, new) = (values(&before), values(&after));
    let paths: HashSet<&str> = new.iter().map(|(path, ..)| path.as_str()).collect();
    let pairs: HashSet<_> = new.iter().map(|(_, name, value)| (name, value)).collect();
    let there = old.iter().filter(|(path, name, value)| {
        paths.contains(path.as_str()) || pairs.contains(&(name, value))
    });
    if there.count() * 2 < old.len() || text.len() * 2 < before.to_string().len() {
        return Some("half of it is gone".to_owned());
    }
    None
}
