//! The configuration file: what the gateway takes, and how it is patched.

use std::path::{Path, PathBuf};

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::device::hex_sha256;
use super::methods::Failure;
use super::options::Vintage;

/// The keys that may stand at the top of `openclaw.json`.
pub(crate) const ROOT_KEYS: &[&str] = &[
    "$schema",
    "acp",
    "agents",
    "approvals",
    "audio",
    "auth",
    "bindings",
    "broadcast",
    "browser",
    "canvasHost",
    "channels",
    "cli",
    "commands",
    "cron",
    "diagnostics",
    "discovery",
    "env",
    "gateway",
    "hooks",
    "logging",
    "mcp",
    "media",
    "memory",
    "messages",
    "meta",
    "models",
    "nodeHost",
    "plugins",
    "secrets",
    "session",
    "skills",
    "talk",
    "tools",
    "ui",
    "update",
    "web",
    "wizard",
];

/// Places whose change makes 2026.9.6 restart.
const RESTART_PATHS: &[&str] = &["gateway.port", "gateway.bind"];

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigProblem {
    /// It is not JSON. Holds the reader's message.
    Syntax(String),
    /// The key is not known at this place. Holds the place (empty for the top) and the key.
    UnknownKey {
        /// Where, for example `gateway`; empty at the top.
        path: String,
        /// The key.
        key: String,
    },
    /// A value has the wrong type.
    WrongType {
        /// Where, for example `gateway.port`.
        path: String,
        /// What belongs there.
        expected: &'static str,
        /// What stands there.
        received: &'static str,
    },
}

impl ConfigProblem {
    /// The dotted place; `<root>` at the top.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::UnknownKey { path, .. } | Self::WrongType { path, .. } if !path.is_empty() => {
                path
            }
            _ => "<root>",
        }
    }

    /// The gateway's sentence.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Syntax(message) => format!("JSON5 parse failed: {message}"),
            Self::UnknownKey { key, .. } => format!("Unrecognized key: \"{key}\""),
            Self::WrongType {
                expected, received, ..
            } => {
                format!("Invalid input: expected {expected}, received {received}")
            }
        }
    }
}

/// Reads a configuration and checks the places a gateway cares about. An empty text is a syntax problem.
///
/// # Errors
///
/// Every problem that was found.
pub fn check_configuration(text: &str) -> Result<Value, Vec<ConfigProblem>> {
    let value = read_json5(text).map_err(|message| vec![ConfigProblem::Syntax(message)])?;
    let problems = problems(&value);
    if problems.is_empty() {
        Ok(value)
    } else {
        Err(problems)
    }
}

/// Configurations and patches are JSON5. The places in messages are those of the strict reader, whose positions agree with OpenClaw's.
fn read_json5(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .or_else(|error| json5::from_str(text).map_err(|_| syntax_message(&error)))
}

fn syntax_message(error: &serde_json::Error) -> String {
    let what = if error.is_eof() {
        "invalid end of input"
    } else {
        "invalid character"
    };
    format!(
        "SyntaxError: JSON5: {what} at {}:{}",
        error.line(),
        error.column()
    )
}

fn problems(value: &Value) -> Vec<ConfigProblem> {
    const TYPED: &[(&str, &str)] = &[
        ("gateway.port", "number"),
        ("gateway.bind", "string"),
        ("gateway.mode", "string"),
        ("gateway.auth", "object"),
        ("gateway.auth.mode", "string"),
        ("gateway.auth.token", "string"),
        ("gateway.auth.password", "string"),
        ("logging.level", "string"),
        ("ui.seamColor", "string"),
    ];
    let Value::Object(root) = value else {
        return vec![wrong("", "object", value)];
    };
    let mut found = Vec::new();
    for (key, value) in root {
        if !ROOT_KEYS.contains(&key.as_str()) {
            found.push(ConfigProblem::UnknownKey {
                path: String::new(),
                key: key.clone(),
            });
        } else if key == "bindings" && !value.is_array() {
            found.push(wrong(key, "array", value));
        } else if !matches!(key.as_str(), "bindings" | "$schema") && !value.is_object() {
            found.push(wrong(key, "object", value));
        }
    }
    for (path, expected) in TYPED {
        if let Some(value) = lookup(value, path)
            && type_name(value) != *expected
        {
            found.push(wrong(path, expected, value));
        }
    }
    found
}

fn wrong(path: &str, expected: &'static str, value: &Value) -> ConfigProblem {
    ConfigProblem::WrongType {
        path: path.to_owned(),
        expected,
        received: type_name(value),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

pub(crate) fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}

/// The configuration of a running gateway.
#[derive(Debug)]
pub(super) struct Configuration {
    path: PathBuf,
    /// Whether `path` is a file; otherwise everything stays in memory.
    on_disk: bool,
    raw: Option<String>,
    value: Value,
}

/// What a successful patch did.
pub(super) struct Patched {
    pub(super) reply: Value,
    pub(super) restart: bool,
    pub(super) new_token: Option<String>,
    /// Whether anything changed at all.
    pub(super) changed: bool,
}

impl Configuration {
    /// Reads the file if there is one. A file that cannot be used counts as absent: a running gateway ignores it.
    pub(super) fn load(path: Option<&Path>, state_dir: &Path) -> Self {
        let raw = path.and_then(|path| std::fs::read_to_string(path).ok());
        let value = raw.as_deref().and_then(|raw| check_configuration(raw).ok());
        Self {
            path: path.map_or_else(|| state_dir.join("openclaw.json"), Path::to_path_buf),
            on_disk: path.is_some(),
            raw: raw.filter(|_| value.is_some()),
            value: value.unwrap_or_else(|| Value::Object(Map::new())),
        }
    }

    pub(super) fn path(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn hash(&self, vintage: Vintage) -> String {
        let raw = self.raw.as_deref().unwrap_or_default();
        if vintage.is_new() {
            let digest = Sha256::digest([b"fake-gateway-key", raw.as_bytes()].concat());
            format!(
                "hmac-sha256:v1:{}",
                Base64UrlUnpadded::encode_string(&digest)
            )
        } else {
            hex_sha256(raw.as_bytes())
        }
    }

    /// The answer to `config.get`.
    pub(super) fn get(&self, vintage: Vintage) -> Value {
        let shown = redacted(&self.value);
        let mut answer = json!({
            "path": self.path(),
            "exists": self.raw.is_some(),
            "raw": self.raw.as_ref().map(|_| shown.to_string()),
            "parsed": shown,
            "resolved": shown,
            "valid": true,
            "config": shown,
            "hash": self.hash(vintage),
            "issues": [],
            "warnings": [],
            "legacyIssues": [],
        });
        if vintage.is_new() {
            answer["includedPaths"] = json!([]);
            answer["sourceConfig"] = shown.clone();
            answer["runtimeConfig"] = shown;
            answer["configRevisionHash"] = json!(self.hash(vintage));
            answer["appliedConfigHash"] = json!(self.hash(vintage));
        }
        answer
    }

    /// `config.patch`: an RFC 7396 merge guarded by the hash of the configuration it was made for.
    pub(super) fn patch(
        &mut self,
        vintage: Vintage,
        raw: &str,
        base_hash: Option<&str>,
        now_ms: u64,
    ) -> Result<Patched, Failure> {
        let new = vintage.is_new();
        let patch = read_json5(raw).map_err(Failure::invalid)?;
        let Value::Object(patch_map) = &patch else {
            return Err(Failure::invalid("config.patch raw must be an object"));
        };
        let mut value = self.value.clone();
        merge(&mut value, &patch);
        let changed = changed_paths(&self.value, &value);
        // 2026.9.6 compares only what the patch would change; 2026.3.2 compares as soon as there is a file.
        let guarded = if new {
            !changed.is_empty()
        } else {
            self.raw.is_some()
        };
        match base_hash {
            None if new => {
                let keys: Vec<&str> = patch_map.keys().map(String::as_str).collect();
                return Err(Failure::invalid(format!(
                    "config base hash required for {}; re-run config.get and retry with baseHash",
                    keys.join(", ")
                )));
            }
            None if guarded => {
                return Err(Failure::invalid(
                    "config base hash required; re-run config.get and retry",
                ));
            }
            Some(hash) if guarded && hash != self.hash(vintage) => {
                return Err(Failure::invalid(
                    "config changed since last load; re-run config.get and retry",
                ));
            }
            _ => {}
        }
        let problems = problems(&value);
        if let Some(first) = problems.first() {
            let message = if new {
                format!("invalid config: {}: {}", first.path(), first.message())
            } else {
                "invalid config".to_owned()
            };
            let issues: Vec<Value> = problems
                .iter()
                .map(|problem| json!({"path": problem.path(), "message": problem.message()}))
                .collect();
            return Err(Failure::invalid(message).with_details(json!({"issues": issues})));
        }
        let new_token = lookup(&value, "gateway.auth.token")
            .filter(|token| Some(*token) != lookup(&self.value, "gateway.auth.token"))
            .and_then(Value::as_str)
            .map(str::to_owned);
        let restart = !new
            || changed
                .iter()
                .any(|path| RESTART_PATHS.contains(&path.as_str()));
        self.store(value)?;
        let mut reply = json!({
            "ok": true,
            "path": self.path(),
            "config": redacted(&self.value),
            "sentinel": {"payload": {
                "kind": "config-patch",
                "status": "ok",
                "ts": now_ms,
                "message": null,
                "stats": {"mode": "config.patch", "root": self.path()},
            }},
        });
        if new {
            reply["hash"] = json!(self.hash(vintage));
            reply["changedPaths"] = json!(changed);
            reply["sentinel"]["payload"]["stats"]["requiresRestart"] = json!(restart);
        } else {
            reply["restart"] = json!({
                "ok": true,
                "pid": std::process::id(),
                "signal": "SIGUSR1",
                "delayMs": 2000,
                "reason": "config.patch",
                "mode": "emit",
                "coalesced": false,
                "cooldownMsApplied": 0,
            });
        }
        Ok(Patched {
            reply,
            restart,
            new_token,
            changed: !changed.is_empty(),
        })
    }

    fn store(&mut self, value: Value) -> Result<(), Failure> {
        let text = format!("{value:#}\n");
        if self.on_disk {
            std::fs::write(&self.path, &text).map_err(|error| {
                Failure::new(
                    "UNAVAILABLE",
                    format!("cannot write {}: {error}", self.path.display()),
                )
            })?;
        }
        self.raw = Some(text);
        self.value = value;
        Ok(())
    }
}

/// The answer to `config.schema.lookup`, for the few places it knows.
pub(super) fn schema_lookup(path: &str) -> Result<Value, Failure> {
    let (kind, reload) = match path {
        "gateway.port" => ("integer", "restart"),
        "gateway.bind" => ("string", "restart"),
        "gateway.auth.token" | "gateway.controlUi.enabled" => ("string", "hot"),
        "ui.seamColor" | "logging.level" => ("string", "none"),
        _ => return Err(Failure::invalid(format!("unknown config path: {path}"))),
    };
    Ok(
        json!({"path": path, "schema": {"type": kind}, "reloadKind": reload, "hintPath": path, "children": []}),
    )
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Value::Object(target) = target {
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

fn changed_paths(before: &Value, after: &Value) -> Vec<String> {
    fn walk(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
        match (before, after) {
            (Value::Object(old), Value::Object(new)) => {
                let mut keys: Vec<&String> = old
                    .keys()
                    .chain(new.keys().filter(|key| !old.contains_key(*key)))
                    .collect();
                keys.sort();
                for key in keys {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    match (old.get(key), new.get(key)) {
                        (Some(old), Some(new)) => walk(&path, old, new, found),
                        (None, Some(Value::Object(new))) if !new.is_empty() => {
                            walk(
                                &path,
                                &Value::Object(Map::new()),
                                &Value::Object(new.clone()),
                                found,
                            );
                        }
                        (None, Some(Value::Object(_))) => {}
                        _ => found.push(path),
                    }
                }
            }
            (before, after) if before != after => found.push(path.to_owned()),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk("", before, after, &mut found);
    found
}

/// The configuration as it is shown: secrets replaced.
fn redacted(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let secret =
                    matches!(key.as_str(), "token" | "password" | "apiKey") && value.is_string();
                (
                    key.clone(),
                    if secret {
                        json!("__OPENCLAW_REDACTED__")
                    } else {
                        redacted(value)
                    },
                )
            })
            .collect(),
        Value::Array(items) => items.iter().map(redacted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Configuration {
        Configuration::load(None, Path::new("/fake"))
    }

    #[test]
    fn problems_are_named_like_the_gateway_does() {
        for (text, path, message) in [
            ("{\"bogus\":1}", "<root>", "Unrecognized key: \"bogus\""),
            (
                "{\"gateway\":{\"port\":\"abc\"}}",
                "gateway.port",
                "Invalid input: expected number, received string",
            ),
            (
                "[]",
                "<root>",
                "Invalid input: expected object, received array",
            ),
            (
                "",
                "<root>",
                "JSON5 parse failed: SyntaxError: JSON5: invalid end of input at 1:0",
            ),
        ] {
            let problems = check_configuration(text).unwrap_err();
            assert_eq!(
                (problems[0].path(), problems[0].message().as_str()),
                (path, message),
                "{text:?}"
            );
        }
        assert!(
            check_configuration(r#"{"gateway":{"port":18789,"auth":{"token":"x"}},"ui":{}}"#)
                .is_ok()
        );
    }

    #[test]
    fn a_patch_needs_the_hash_of_what_it_changes() {
        let mut configuration = memory();
        let vintage = Vintage::V2026_9_6;
        let hash = configuration.hash(vintage);
        let patch = r##"{"ui":{"seamColor":"#00aa00"}}"##;
        let first = configuration
            .patch(vintage, patch, Some(&hash), 0)
            .ok()
            .unwrap();
        assert!(first.changed && !first.restart);
        assert_eq!(first.reply["changedPaths"], json!(["ui.seamColor"]));
        // The same again changes nothing, so the old hash does not matter.
        assert!(
            !configuration
                .patch(vintage, patch, Some(&hash), 0)
                .ok()
                .unwrap()
                .changed
        );
        let other = configuration
            .patch(vintage, r#"{"gateway":{"port":1}}"#, Some(&hash), 0)
            .err()
            .unwrap();
        assert_eq!(
            other.message,
            "config changed since last load; re-run config.get and retry"
        );
        let hash = configuration.hash(vintage);
        assert!(
            configuration
                .patch(vintage, r#"{"gateway":{"port":1}}"#, Some(&hash), 0)
                .ok()
                .unwrap()
                .restart
        );
    }

    #[test]
    fn a_shown_configuration_has_no_secret() {
        let mut configuration = memory();
        let vintage = Vintage::V2026_3_2;
        let patched = configuration
            .patch(
                vintage,
                r#"{"gateway":{"auth":{"token":"s3cret"}}}"#,
                None,
                0,
            )
            .ok()
            .unwrap();
        assert_eq!(patched.new_token.as_deref(), Some("s3cret"));
        assert!(
            patched.restart,
            "the old release restarts after every patch"
        );
        assert!(!configuration.get(vintage).to_string().contains("s3cret"));
        assert!(!patched.reply.to_string().contains("s3cret"));
    }
}
