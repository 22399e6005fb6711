//! The closed parameter schemas of the gateway, with its wording of what is wrong.

use serde_json::{Map, Value};

use super::options::Vintage;

pub(super) enum Kind {
    Text,
    NonEmptyText,
    Integer {
        min: u64,
    },
    Flag,
    List,
    TextList,
    Object(&'static [Field]),
    AnyObject,
    OneOf {
        common: &'static [&'static str],
        later: &'static [&'static str],
    },
    Any,
}

pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) kind: Kind,
}

const fn required(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        required: true,
        kind,
    }
}

const fn optional(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        required: false,
        kind,
    }
}

const CLIENT_IDS: &[&str] = &[
    "webchat-ui",
    "openclaw-control-ui",
    "webchat",
    "cli",
    "gateway-client",
    "openclaw-macos",
    "openclaw-ios",
    "openclaw-android",
    "node-host",
    "test",
    "fingerprint",
    "openclaw-probe",
];
const LATER_CLIENT_IDS: &[&str] = &[
    "openclaw-tui",
    "openclaw-linux",
    "openclaw-watchos",
    "openclaw-browser-copilot",
    "openclaw-worker",
];
const CLIENT_MODES: &[&str] = &["webchat", "cli", "ui", "backend", "node", "probe", "test"];
const LATER_CLIENT_MODES: &[&str] = &["worker"];

pub(super) const CONNECT: &[Field] = &[
    required("minProtocol", Kind::Integer { min: 1 }),
    required("maxProtocol", Kind::Integer { min: 1 }),
    required(
        "client",
        Kind::Object(&[
            required(
                "id",
                Kind::OneOf {
                    common: CLIENT_IDS,
                    later: LATER_CLIENT_IDS,
                },
            ),
            optional("displayName", Kind::NonEmptyText),
            required("version", Kind::NonEmptyText),
            required("platform", Kind::NonEmptyText),
            optional("deviceFamily", Kind::NonEmptyText),
            optional("modelIdentifier", Kind::NonEmptyText),
            required(
                "mode",
                Kind::OneOf {
                    common: CLIENT_MODES,
                    later: LATER_CLIENT_MODES,
                },
            ),
            optional("instanceId", Kind::NonEmptyText),
        ]),
    ),
    optional("caps", Kind::TextList),
    optional("commands", Kind::TextList),
    optional("permissions", Kind::AnyObject),
    optional("pathEnv", Kind::Text),
    optional("role", Kind::NonEmptyText),
    optional("scopes", Kind::TextList),
    optional(
        "device",
        Kind::Object(&[
            required("id", Kind::NonEmptyText),
            required("publicKey", Kind::NonEmptyText),
            required("signature", Kind::NonEmptyText),
            required("signedAt", Kind::Integer { min: 0 }),
            required("nonce", Kind::NonEmptyText),
        ]),
    ),
    optional(
        "auth",
        Kind::Object(&[
            optional("token", Kind::Text),
            optional("bootstrapToken", Kind::Text),
            optional("deviceToken", Kind::Text),
            optional("password", Kind::Text),
        ]),
    ),
    optional("locale", Kind::Text),
    optional("userAgent", Kind::Text),
];

pub(super) const REQUEST: &[Field] = &[
    required("type", Kind::Any),
    required("id", Kind::NonEmptyText),
    required("method", Kind::NonEmptyText),
    optional("params", Kind::Any),
];
const LATER_REQUEST_FIELDS: &[&str] = &["traceparent", "expectedProfileId"];

pub(super) const NO_PARAMS: &[Field] = &[];
pub(super) const CONFIG_PATCH: &[Field] = &[
    required("raw", Kind::NonEmptyText),
    optional("baseHash", Kind::NonEmptyText),
    optional("sessionKey", Kind::Text),
    optional("note", Kind::Text),
    optional("restartDelayMs", Kind::Integer { min: 0 }),
    optional("replacePaths", Kind::TextList),
];
pub(super) const CONFIG_SCHEMA_LOOKUP: &[Field] = &[required("path", Kind::NonEmptyText)];
pub(super) const RESTART_REQUEST: &[Field] = &[
    optional("reason", Kind::Text),
    optional("sessionKey", Kind::Text),
    optional("note", Kind::Text),
    optional("delayMs", Kind::Integer { min: 0 }),
];
pub(super) const SESSIONS_LIST: &[Field] = &[
    optional("limit", Kind::Integer { min: 1 }),
    optional("activeMinutes", Kind::Integer { min: 1 }),
    optional("includeGlobal", Kind::Flag),
    optional("includeUnknown", Kind::Flag),
    optional("includeDerivedTitles", Kind::Flag),
    optional("includeLastMessage", Kind::Flag),
    optional("label", Kind::NonEmptyText),
    optional("spawnedBy", Kind::NonEmptyText),
    optional("agentId", Kind::NonEmptyText),
    optional("search", Kind::Text),
];
pub(super) const CHAT_HISTORY: &[Field] = &[
    required("sessionKey", Kind::NonEmptyText),
    optional("limit", Kind::Integer { min: 1 }),
];
pub(super) const CHAT_SEND: &[Field] = &[
    required("sessionKey", Kind::NonEmptyText),
    required("message", Kind::Text),
    optional("thinking", Kind::Text),
    optional("deliver", Kind::Flag),
    optional("attachments", Kind::List),
    optional("timeoutMs", Kind::Integer { min: 0 }),
    required("idempotencyKey", Kind::NonEmptyText),
];
pub(super) const CHAT_ABORT: &[Field] = &[
    required("sessionKey", Kind::NonEmptyText),
    optional("runId", Kind::NonEmptyText),
];

/// What is wrong with `value`, as the gateway says it; `None` when nothing is.
///
/// 2026.3.2 lists every problem, 2026.9.6 stops at the first.
pub(super) fn problem(value: Option<&Value>, fields: &[Field], vintage: Vintage) -> Option<String> {
    let empty = Value::Object(Map::new());
    let value = match value {
        None | Some(Value::Null) => &empty,
        Some(value) => value,
    };
    let mut problems = Vec::new();
    object(value, fields, "", vintage, &mut problems);
    join(problems, vintage)
}

/// What is wrong with a request frame after the handshake. Both releases list every problem here.
pub(super) fn request_problem(frame: &Value, vintage: Vintage) -> Option<String> {
    let Value::Object(map) = frame else {
        return Some("must be object".to_owned());
    };
    let mut map = map.clone();
    if vintage.is_new() {
        for name in LATER_REQUEST_FIELDS {
            map.remove(*name);
        }
    }
    let kind_is_wrong = map.get("type").is_some_and(|kind| kind != "req");
    let mut problems = Vec::new();
    object(&Value::Object(map), REQUEST, "", vintage, &mut problems);
    if kind_is_wrong {
        problems.push("at /type: must be equal to constant".to_owned());
    }
    (!problems.is_empty()).then(|| problems.join("; "))
}

fn join(mut problems: Vec<String>, vintage: Vintage) -> Option<String> {
    if vintage.is_new() {
        problems.truncate(1);
    }
    (!problems.is_empty()).then(|| problems.join("; "))
}

fn at(path: &str, what: &str) -> String {
    if path.is_empty() {
        what.to_owned()
    } else {
        format!("at {path}: {what}")
    }
}

fn object(
    value: &Value,
    fields: &[Field],
    path: &str,
    vintage: Vintage,
    problems: &mut Vec<String>,
) {
    let Value::Object(map) = value else {
        problems.push(at(path, "must be object"));
        return;
    };
    for field in fields {
        if field.required && !map.contains_key(field.name) {
            problems.push(at(
                path,
                &format!("must have required property '{}'", field.name),
            ));
        }
    }
    for name in map.keys() {
        if !fields.iter().any(|field| field.name == name) {
            let place = if path.is_empty() { "root" } else { path };
            problems.push(format!("at {place}: unexpected property '{name}'"));
        }
    }
    for field in fields {
        if let Some(value) = map.get(field.name) {
            single(
                value,
                &field.kind,
                &format!("{path}/{}", field.name),
                vintage,
                problems,
            );
        }
    }
}

fn single(value: &Value, kind: &Kind, path: &str, vintage: Vintage, problems: &mut Vec<String>) {
    match kind {
        Kind::Any => {}
        Kind::Text | Kind::NonEmptyText => match value.as_str() {
            None => problems.push(at(path, "must be string")),
            Some("") if matches!(kind, Kind::NonEmptyText) => {
                problems.push(at(path, "must NOT have fewer than 1 characters"));
            }
            Some(_) => {}
        },
        Kind::Integer { min } => match value.as_i64() {
            None => problems.push(at(path, "must be integer")),
            Some(number) if u64::try_from(number).map_or(true, |number| number < *min) => {
                problems.push(at(path, &format!("must be >= {min}")));
            }
            Some(_) => {}
        },
        Kind::Flag if !value.is_boolean() => problems.push(at(path, "must be boolean")),
        Kind::List if !value.is_array() => problems.push(at(path, "must be array")),
        Kind::AnyObject if !value.is_object() => problems.push(at(path, "must be object")),
        Kind::Flag | Kind::List | Kind::AnyObject => {}
        Kind::TextList => match value.as_array() {
            None => problems.push(at(path, "must be array")),
            Some(items) => {
                for (index, item) in items.iter().enumerate() {
                    single(
                        item,
                        &Kind::NonEmptyText,
                        &format!("{path}/{index}"),
                        vintage,
                        problems,
                    );
                }
            }
        },
        Kind::Object(fields) => object(value, fields, path, vintage, problems),
        Kind::OneOf { common, later } => {
            let known = value.as_str().is_some_and(|text| {
                common.contains(&text) || (vintage.is_new() && later.contains(&text))
            });
            if known {
            } else if vintage.is_new() {
                problems.push(at(path, "must be equal to one of the allowed values"));
            } else {
                problems.push(at(path, "must be equal to constant"));
                problems.push(at(path, "must match a schema in anyOf"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_old_release_lists_everything_and_the_new_one_the_first() {
        let empty = json!({});
        assert_eq!(
            problem(Some(&empty), CONNECT, Vintage::V2026_3_2).as_deref(),
            Some(
                "must have required property 'minProtocol'; must have required property 'maxProtocol'; \
                 must have required property 'client'"
            )
        );
        assert_eq!(
            problem(Some(&empty), CONNECT, Vintage::V2026_9_6).as_deref(),
            Some("must have required property 'minProtocol'")
        );
    }

    #[test]
    fn nested_places_are_named() {
        let params = json!({
            "minProtocol": 3, "maxProtocol": 4,
            "client": {"id": "cli", "version": "", "platform": "linux", "mode": "cli"},
            "scopes": ["operator.read", 3],
        });
        assert_eq!(
            problem(Some(&params), CONNECT, Vintage::V2026_3_2).as_deref(),
            Some(
                "at /client/version: must NOT have fewer than 1 characters; at /scopes/1: must be string"
            )
        );
    }

    #[test]
    fn request_frames_are_closed() {
        for (frame, expected) in [
            (json!({"type": "req", "id": "1", "method": "health"}), None),
            (
                json!({"type": "req", "method": "health"}),
                Some("must have required property 'id'"),
            ),
            (
                json!({"type": "req", "id": 7, "method": "health"}),
                Some("at /id: must be string"),
            ),
            (
                json!({"type": "hello", "id": "q"}),
                Some("must have required property 'method'; at /type: must be equal to constant"),
            ),
            (
                json!({"type": "req", "id": "e", "method": "health", "extra": 1}),
                Some("at root: unexpected property 'extra'"),
            ),
        ] {
            assert_eq!(
                request_problem(&frame, Vintage::V2026_9_6).as_deref(),
                expected,
                "{frame}"
            );
        }
    }
}
