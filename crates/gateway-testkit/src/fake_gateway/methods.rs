//! The methods: who may call them and what they answer.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::configuration;
use super::content;
use super::options::Vintage;
use super::schema::{self, Field};
use super::state::{Command, Phase, Shared, random_uuid};

/// An error answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) details: Option<Value>,
    pub(super) retryable: Option<bool>,
    pub(super) retry_after_ms: Option<u64>,
}

impl Failure {
    pub(super) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            details: None,
            retryable: None,
            retry_after_ms: None,
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new("INVALID_REQUEST", message)
    }

    pub(super) fn with_details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    pub(super) fn to_json(&self) -> Value {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(details) = &self.details {
            error["details"] = details.clone();
        }
        if let Some(retryable) = self.retryable {
            error["retryable"] = json!(retryable);
        }
        if let Some(after) = self.retry_after_ms {
            error["retryAfterMs"] = json!(after);
        }
        error
    }
}

/// What to do about a request.
pub(super) enum Reply {
    Payload(String),
    Failure(Failure),
    Later { payload: String, after: Duration },
    Silent,
    Events { count: u64, bytes: usize },
    Raw(String),
    Close { code: u16, reason: String },
    Drop,
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self::Payload(value.to_string())
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    None,
    Read,
    Write,
    Admin,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Read => "operator.read",
            Self::Write => "operator.write",
            Self::Admin => "operator.admin",
        }
    }

    fn granted_by(self, scopes: &[String]) -> bool {
        scopes.iter().any(|scope| match scope.as_str() {
            "operator.admin" => true,
            "operator.write" => matches!(self, Self::Read | Self::Write),
            "operator.read" => self == Self::Read,
            _ => false,
        }) || self == Self::None
    }
}

struct Method {
    name: &'static str,
    scope: Scope,
    /// Only for clients of role `node`.
    node: bool,
    /// Not in 2026.3.2.
    later: bool,
    params: Option<&'static [Field]>,
}

const fn method(name: &'static str, scope: Scope) -> Method {
    Method {
        name,
        scope,
        node: false,
        later: false,
        params: None,
    }
}

const fn checked(name: &'static str, scope: Scope, params: &'static [Field]) -> Method {
    Method {
        name,
        scope,
        node: false,
        later: false,
        params: Some(params),
    }
}

const fn later(method: Method) -> Method {
    Method {
        later: true,
        ..method
    }
}

const METHODS: &[Method] = &[
    method("health", Scope::None),
    method("status", Scope::Read),
    method("system-presence", Scope::Read),
    method("system-event", Scope::Admin),
    checked("sessions.list", Scope::Read, schema::SESSIONS_LIST),
    method("agents.list", Scope::Read),
    method("models.list", Scope::Read),
    method("channels.status", Scope::Read),
    method("cron.status", Scope::Read),
    method("node.list", Scope::Read),
    method("device.pair.list", Scope::Read),
    method("usage.status", Scope::Read),
    method("logs.tail", Scope::Read),
    method("last-heartbeat", Scope::Read),
    method("set-heartbeats", Scope::Admin),
    method("wake", Scope::Write),
    checked("config.get", Scope::Read, schema::NO_PARAMS),
    checked("config.patch", Scope::Admin, schema::CONFIG_PATCH),
    later(checked(
        "config.schema.lookup",
        Scope::Read,
        schema::CONFIG_SCHEMA_LOOKUP,
    )),
    checked("chat.history", Scope::Read, schema::CHAT_HISTORY),
    checked("chat.send", Scope::Write, schema::CHAT_SEND),
    checked("chat.abort", Scope::Write, schema::CHAT_ABORT),
    later(checked(
        "gateway.restart.preflight",
        Scope::Read,
        schema::NO_PARAMS,
    )),
    later(checked(
        "gateway.restart.request",
        Scope::Admin,
        schema::RESTART_REQUEST,
    )),
    later(method("sessions.subscribe", Scope::Read)),
    later(method("system.info", Scope::Read)),
    later(method("update.status", Scope::Read)),
    Method {
        name: "node.event",
        scope: Scope::None,
        node: true,
        later: false,
        params: None,
    },
];

/// `features.methods`.
pub(super) fn names(vintage: Vintage) -> Vec<&'static str> {
    METHODS
        .iter()
        .filter(|method| vintage.is_new() || !method.later)
        .map(|method| method.name)
        .collect()
}

/// The caller of a method.
pub(super) struct Caller<'a> {
    pub(super) role: &'a str,
    pub(super) scopes: &'a [String],
}

pub(super) fn call(
    shared: &Arc<Shared>,
    caller: &Caller<'_>,
    name: &str,
    params: Option<&RawValue>,
) -> Reply {
    if let Some(name) = name.strip_prefix("test.") {
        return test_method(name, params);
    }
    let vintage = shared.config.vintage;
    let known = METHODS
        .iter()
        .find(|method| method.name == name && (vintage.is_new() || !method.later));
    if caller.role == "node" {
        if !known.is_some_and(|method| method.node || method.name == "health") {
            return Failure::invalid("unauthorized role: node").into();
        }
    } else if known.is_some_and(|method| method.node) {
        return Failure::invalid(format!("unauthorized role: {}", caller.role)).into();
    }
    // A method nobody knows needs the highest scope.
    let scope = known.map_or(Scope::Admin, |method| method.scope);
    if caller.role != "node" && !scope.granted_by(caller.scopes) {
        return missing_scope(vintage, scope.name()).into();
    }
    let Some(known) = known else {
        return Failure::invalid(format!("unknown method: {name}")).into();
    };
    if shared.phase() == Phase::Draining {
        return draining(name).into();
    }
    let params: Option<Value> = params.and_then(|raw| serde_json::from_str(raw.get()).ok());
    if let Some(fields) = known.params
        && let Some(problem) = schema::problem(params.as_ref(), fields, vintage)
    {
        return Failure::invalid(format!("invalid {name} params: {problem}")).into();
    }
    answer(shared, name, params.as_ref().unwrap_or(&Value::Null))
}

fn missing_scope(vintage: Vintage, scope: &str) -> Failure {
    let message = format!("missing scope: {scope}");
    if vintage.is_new() {
        Failure::new("FORBIDDEN", message).with_details(
            json!({"code": "MISSING_SCOPE", "missingScope": scope, "requiredScopes": [scope]}),
        )
    } else {
        Failure::invalid(message)
    }
}

fn draining(method: &str) -> Failure {
    Failure {
        code: "UNAVAILABLE".to_owned(),
        message: "gateway is draining; retry shortly".to_owned(),
        details: Some(
            json!({"method": method, "reason": "gateway-restarting", "phase": "draining"}),
        ),
        retryable: Some(true),
        retry_after_ms: Some(1000),
    }
}

fn answer(shared: &Arc<Shared>, name: &str, params: &Value) -> Reply {
    let now = shared.now_ms();
    match name {
        "health" => content::health(shared).into(),
        "status" => content::status(shared).into(),
        "system-presence" => Value::from(shared.presence()).into(),
        "system-event" => {
            shared.broadcast_presence(None);
            json!({"ok": true}).into()
        }
        "sessions.list" => content::sessions(shared).into(),
        "agents.list" => {
            json!({"defaultId": "main", "mainKey": "main", "scope": "per-sender", "agents": [{"id": "main"}]}).into()
        }
        "models.list" => json!({"models": []}).into(),
        "channels.status" => json!({
            "ts": now,
            "channelOrder": [],
            "channelLabels": {},
            "channels": {},
            "channelAccounts": {},
            "channelDefaultAccountId": {},
        })
        .into(),
        "cron.status" => json!({"enabled": true, "jobs": 0, "nextWakeAtMs": null}).into(),
        "node.list" => json!({"ts": now, "nodes": []}).into(),
        "device.pair.list" => json!({"pending": [], "paired": []}).into(),
        "usage.status" => json!({"updatedAt": now, "providers": []}).into(),
        "logs.tail" => json!({"cursor": 0, "size": 0, "lines": [], "truncated": false, "reset": false}).into(),
        "last-heartbeat" => Value::Null.into(),
        "set-heartbeats" => json!({"ok": true, "enabled": params["enabled"]}).into(),
        "wake" | "node.event" => json!({"ok": true}).into(),
        "config.get" => shared.configuration().get(shared.config.vintage).into(),
        "config.patch" => patch(shared, params),
        "config.schema.lookup" => {
            match configuration::schema_lookup(params["path"].as_str().unwrap_or_default()) {
                Ok(found) => found.into(),
                Err(failure) => failure.into(),
            }
        }
        "chat.history" => json!({"sessionKey": params["sessionKey"], "messages": []}).into(),
        "chat.send" => chat_send(shared, params),
        "chat.abort" => {
            let aborted = *shared.runs.borrow() > 0;
            shared.runs.send_replace(0);
            json!({"ok": true, "aborted": aborted, "runIds": []}).into()
        }
        "gateway.restart.preflight" => content::restart_preflight(*shared.runs.borrow()).into(),
        "gateway.restart.request" => restart(shared, params),
        "sessions.subscribe" => json!({"subscribed": true}).into(),
        "system.info" => json!({"machineName": "fake", "platform": std::env::consts::OS}).into(),
        "update.status" => json!({"sentinel": null, "updateAvailable": null, "effectiveChannel": "stable"}).into(),
        _ => Failure::invalid(format!("unknown method: {name}")).into(),
    }
}

/// Hands a command to the server task. A full queue means that it is stopping anyway.
fn command(shared: &Shared, command: Command) {
    let _ = shared.commands.try_send(command);
}

fn patch(shared: &Arc<Shared>, params: &Value) -> Reply {
    let vintage = shared.config.vintage;
    let raw = params["raw"].as_str().unwrap_or_default();
    let (now, hash) = (shared.now_ms(), params["baseHash"].as_str());
    let mut configuration = shared.configuration();
    let patched = match configuration.patch(vintage, raw, hash, now) {
        Ok(patched) => patched,
        Err(failure) => return failure.into(),
    };
    let (path, hash) = (configuration.path(), configuration.hash(vintage));
    drop(configuration);
    if vintage.is_new() && patched.changed {
        let payload = json!({"path": path, "hash": hash, "ts": now});
        shared.broadcast("config.changed", payload.to_string(), false);
    }
    if let Some(token) = patched.new_token {
        shared.set_token(token);
        if vintage.is_new() {
            let delay = shared.config.restart_delay;
            command(
                shared,
                Command::CloseAll {
                    code: 4001,
                    reason: "gateway auth changed".to_owned(),
                    delay,
                },
            );
        }
    }
    if patched.restart {
        command(
            shared,
            Command::StopAfter {
                restart: true,
                delay: shared.config.restart_delay,
            },
        );
    }
    patched.reply.into()
}

fn restart(shared: &Arc<Shared>, params: &Value) -> Reply {
    let runs = *shared.runs.borrow();
    command(
        shared,
        Command::StopAfter {
            restart: true,
            delay: shared.config.restart_delay,
        },
    );
    json!({
        "ok": true,
        "status": if runs == 0 { "scheduled" } else { "deferred" },
        "preflight": content::restart_preflight(runs),
        "restart": {
            "ok": true,
            "pid": std::process::id(),
            "signal": "SIGUSR2",
            "reason": params["reason"],
            "mode": "emit",
            "cooldownMsApplied": 0,
            "delayMs": 0,
            "coalesced": false,
            "emitHooksQueued": false,
        },
    })
    .into()
}

fn chat_send(shared: &Arc<Shared>, params: &Value) -> Reply {
    let run = params["idempotencyKey"]
        .as_str()
        .map_or_else(random_uuid, str::to_owned);
    let duration = shared.config.run_duration;
    if !duration.is_zero() {
        shared.runs.send_modify(|runs| *runs += 1);
        let shared = Arc::clone(shared);
        // Ends by itself after `run_duration`, whatever happens to the connection: so does an agent run.
        tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            shared
                .runs
                .send_modify(|runs| *runs = runs.saturating_sub(1));
        });
    }
    json!({"runId": run, "status": "started"}).into()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TestParams<'a> {
    #[serde(default)]
    bytes: usize,
    #[serde(default)]
    count: u64,
    #[serde(default)]
    ms: u64,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    text: Option<String>,
    code: Option<Value>,
    message: Option<String>,
    reason: Option<String>,
    details: Option<Value>,
    retryable: Option<bool>,
    retry_after_ms: Option<u64>,
}

fn test_method(name: &str, params: Option<&RawValue>) -> Reply {
    let text = params.map_or("null", RawValue::get);
    if name == "echo" {
        return Reply::Payload(text.to_owned());
    }
    let params: TestParams<'_> =
        match serde_json::from_str(if text == "null" { "{}" } else { text }) {
            Ok(params) => params,
            Err(error) => {
                return Failure::invalid(format!("invalid test.{name} params: {error}")).into();
            }
        };
    match name {
        "large" => Reply::Payload(format!(r#"{{"data":"{}"}}"#, "x".repeat(params.bytes))),
        "delay" => Reply::Later {
            payload: params.payload.map_or("{}", RawValue::get).to_owned(),
            after: Duration::from_millis(params.ms),
        },
        "silent" => Reply::Silent,
        "events" => Reply::Events {
            count: params.count,
            bytes: params.bytes,
        },
        "fail" => {
            let code = params
                .code
                .as_ref()
                .and_then(Value::as_str)
                .unwrap_or("UNAVAILABLE");
            let mut failure = Failure::new(
                code,
                params.message.unwrap_or_else(|| "asked to fail".to_owned()),
            );
            failure.details = params.details;
            failure.retryable = params.retryable;
            failure.retry_after_ms = params.retry_after_ms;
            failure.into()
        }
        "raw" => Reply::Raw(params.text.unwrap_or_default()),
        "close" => Reply::Close {
            code: params
                .code
                .as_ref()
                .and_then(Value::as_u64)
                .and_then(|code| u16::try_from(code).ok())
                .unwrap_or(1000),
            reason: params.reason.unwrap_or_default(),
        },
        "drop" => Reply::Drop,
        _ => Failure::invalid(format!("unknown method: test.{name}")).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_scope_includes_the_lower_ones() {
        let only = |scope: &str| vec![scope.to_owned()];
        for (granted, needed, expected) in [
            ("operator.admin", Scope::Write, true),
            ("operator.write", Scope::Read, true),
            ("operator.write", Scope::Admin, false),
            ("operator.read", Scope::Write, false),
            ("operator.read", Scope::None, true),
            ("operator.approvals", Scope::Read, false),
        ] {
            assert_eq!(
                needed.granted_by(&only(granted)),
                expected,
                "{granted} for {}",
                needed.name()
            );
        }
        assert!(Scope::None.granted_by(&[]));
    }

    #[test]
    fn the_old_release_lists_no_later_methods() {
        assert!(!names(Vintage::V2026_3_2).contains(&"gateway.restart.request"));
        assert!(names(Vintage::V2026_9_6).contains(&"gateway.restart.request"));
        assert!(
            names(Vintage::V2026_9_6)
                .iter()
                .all(|name| !name.starts_with("test."))
        );
    }
}
