//! What the answers hold: shortened from recorded sessions, with the same shape.

use serde_json::{Value, json};

use super::admission::Admission;
use super::methods;
use super::options::Vintage;
use super::state::Shared;

const OLD_EVENTS: &[&str] = &[
    "connect.challenge",
    "agent",
    "chat",
    "presence",
    "tick",
    "talk.mode",
    "shutdown",
    "health",
    "heartbeat",
    "cron",
    "node.pair.requested",
    "node.pair.resolved",
    "node.invoke.request",
    "device.pair.requested",
    "device.pair.resolved",
    "voicewake.changed",
    "exec.approval.requested",
    "exec.approval.resolved",
    "update.available",
];

const NEW_EVENTS: &[&str] = &[
    "connect.challenge",
    "agent",
    "chat",
    "chat.metadata.changed",
    "session.message",
    "sessions.changed",
    "presence",
    "tick",
    "talk.mode",
    "shutdown",
    "gateway.suspension",
    "health",
    "heartbeat",
    "cron",
    "task",
    "node.pair.requested",
    "node.pair.resolved",
    "node.invoke.request",
    "device.pair.changed",
    "device.pair.requested",
    "device.pair.resolved",
    "skills.changed",
    "plugins.changed",
    "voicewake.changed",
    "voicewake.routing.changed",
    "exec.approval.requested",
    "exec.approval.resolved",
    "update.available",
];

const CAPABILITIES: &[&str] = &[
    "chat-send-routing-contract",
    "gateway-restart-target-safe-v1",
    "model-catalog-snapshot",
    "published-model-catalog",
];

/// Payload of `connect.challenge`.
pub(super) fn challenge(vintage: Vintage, nonce: Option<&str>, ts: u64) -> Value {
    let mut payload = json!({"ts": ts});
    if let Some(nonce) = nonce {
        payload["nonce"] = json!(nonce);
    }
    if vintage.is_new() {
        payload["capabilities"] = json!(["model-catalog-snapshot"]);
    }
    payload
}

/// Payload of `hello-ok`.
pub(super) fn hello(shared: &Shared, admission: &Admission, connection_id: &str) -> Value {
    let vintage = shared.config.vintage;
    let new = vintage.is_new();
    let port = shared.port();
    let version = shared.state_version();
    let admin = admission
        .scopes
        .iter()
        .any(|scope| scope == "operator.admin");
    let mut server = json!({
        "version": if new { vintage.release() } else { "dev" },
        "connId": connection_id,
    });
    let mut features = json!({
        "methods": methods::names(vintage),
        "events": if new { NEW_EVENTS } else { OLD_EVENTS },
    });
    let mut snapshot = json!({
        "presence": shared.presence(),
        "health": if new && !shared.has_health() { json!({}) } else { health(shared) },
        "stateVersion": {"presence": version.presence, "health": version.health},
        "uptimeMs": shared.uptime_ms(),
        "sessionDefaults": {
            "defaultAgentId": "main",
            "mainKey": "main",
            "mainSessionKey": "agent:main:main",
            "scope": "per-sender",
        },
    });
    let mut policy = json!({
        "maxPayload": shared.config.max_payload,
        "maxBufferedBytes": 52_428_800,
        "tickIntervalMs": millis(shared.config.tick_interval),
    });
    // 2026.3.2 tells everybody.
    if admin || !new {
        snapshot["configPath"] = json!(shared.configuration().path());
        snapshot["stateDir"] = json!(shared.config.state_dir);
        snapshot["authMode"] = json!("token");
    }
    if new {
        server["buildId"] = json!(format!("{}-release-fake", vintage.release()));
        server["bootId"] = json!(shared.boot_id());
        server["controlUiBuildSource"] = json!("bundled");
        features["capabilities"] = json!(CAPABILITIES);
        snapshot["suspension"] = json!({"phase": "accepting"});
        snapshot["appliedConfigHash"] = json!(shared.configuration().hash(vintage));
        if !admission.scopes.is_empty() {
            snapshot["updateSchedule"] =
                json!({"channel": "stable", "autoEnabled": false, "install": {"kind": "package"}});
        }
        policy["attachments"] = json!({"maxBytes": 19_464_192, "maxImageBytes": 6_291_456});
        policy["allowedSessionVisibilities"] = json!(["shared", "read-only", "suggest", "draft"]);
        policy["hasMultipleSessionSharingIdentities"] = json!(false);
    }
    let mut payload = json!({
        "type": "hello-ok",
        "protocol": vintage.protocol(),
        "server": server,
        "features": features,
        "snapshot": snapshot,
        "policy": policy,
    });
    if !new {
        payload["canvasHostUrl"] = json!(format!("http://127.0.0.1:{port}"));
    } else if admission.role == "operator" {
        payload["pluginSurfaceUrls"] =
            json!({"canvas": format!("http://127.0.0.1:{port}/__openclaw__/cap/fake")});
    }
    if let Some(auth) = auth(shared, admission) {
        payload["auth"] = auth;
    }
    payload
}

fn auth(shared: &Shared, admission: &Admission) -> Option<Value> {
    let new = shared.config.vintage.is_new();
    if !new && admission.device_token.is_none() {
        return None;
    }
    let mut scopes = admission.scopes.clone();
    if !new {
        scopes.sort();
    }
    let mut auth = json!({"role": admission.role, "scopes": scopes});
    if let Some(token) = &admission.device_token {
        auth["deviceToken"] = json!(token);
        auth["issuedAtMs"] = json!(shared.now_ms());
    }
    if new {
        auth["method"] = json!(admission.method);
        if admission.role == "operator" {
            auth["recoveryScope"] = json!("ZmFrZS1yZWNvdmVyeS1zY29wZS1mYWtlLXJlY292ZXI");
        }
        if admission.device_token.is_some() && admission.role == "operator" {
            auth["recoveryMigrationAllowed"] = json!(true);
        }
    }
    Some(auth)
}

/// The answer to `health`, also the payload of the event.
pub(super) fn health(shared: &Shared) -> Value {
    let new = shared.config.vintage.is_new();
    let path = sessions_path(shared);
    let sessions = json!({"path": path, "count": 0, "recent": []});
    let mut health = json!({
        "ok": true,
        "ts": shared.now_ms(),
        "durationMs": 0,
        "channels": {},
        "channelOrder": [],
        "channelLabels": {},
        "heartbeatSeconds": 1800,
        "defaultAgentId": "main",
        "agents": [{
            "agentId": "main",
            "isDefault": true,
            "heartbeat": {"enabled": true, "every": "30m", "everyMs": 1_800_000, "target": "none"},
            "sessions": sessions,
        }],
        "sessions": sessions,
    });
    if new {
        health["plugins"] = json!({"loaded": [], "errors": [], "unavailable": []});
        health["configReload"] = json!({"hotReloadStatus": "active"});
        health["modelRuntime"] = json!({"degraded": false, "pendingAgents": []});
        health["eventLoop"] = event_loop();
    }
    health
}

/// The answer to `status`.
pub(super) fn status(shared: &Shared) -> Value {
    let new = shared.config.vintage.is_new();
    let path = sessions_path(shared);
    let mut status = json!({
        "heartbeat": {
            "defaultAgentId": "main",
            "agents": [{"agentId": "main", "enabled": true, "every": "30m", "everyMs": 1_800_000}],
        },
        "channelSummary": [],
        "queuedSystemEvents": [],
        "sessions": {
            "paths": [path],
            "count": 0,
            "defaults": {"model": "fake-model", "contextTokens": 200_000},
            "recent": [],
            "byAgent": [{"agentId": "main", "path": path, "count": 0, "recent": []}],
        },
    });
    if new {
        status["runtimeVersion"] = json!(shared.config.vintage.release());
        status["degradedPlugins"] = json!([]);
        status["degradedSecretOwners"] = json!([]);
        status["modelRuntime"] = json!({"degraded": false, "pendingAgents": []});
        status["eventLoop"] = event_loop();
    }
    status
}

/// The answer to `sessions.list`.
pub(super) fn sessions(shared: &Shared) -> Value {
    let mut sessions = json!({
        "ts": shared.now_ms(),
        "path": "(multiple)",
        "count": 0,
        "defaults": {"modelProvider": "fake", "model": "fake-model", "contextTokens": 200_000},
        "sessions": [],
    });
    if shared.config.vintage.is_new() {
        sessions["totalCount"] = json!(0);
        sessions["limitApplied"] = json!(100);
        sessions["nextOffset"] = json!(null);
        sessions["hasMore"] = json!(false);
        sessions["owners"] = json!([]);
    }
    sessions
}

/// The answer to `gateway.restart.preflight`; part of the one to `gateway.restart.request`.
pub(super) fn restart_preflight(active_runs: usize) -> Value {
    let blockers = if active_runs == 0 {
        json!([])
    } else {
        json!([{"kind": "embedded-run", "count": active_runs, "message": format!("{active_runs} active agent run(s)")}])
    };
    json!({
        "safe": active_runs == 0,
        "counts": {
            "queueSize": 0,
            "pendingReplies": 0,
            "embeddedRuns": active_runs,
            "cronRuns": 0,
            "backgroundExecSessions": 0,
            "rootRequests": 0,
            "activeTasks": 0,
            "totalActive": active_runs,
        },
        "blockers": blockers,
        "summary": if active_runs == 0 { "safe to restart now" } else { "restart deferred: active agent runs" },
    })
}

/// The gateway's own entry in the presence list.
pub(super) fn own_presence(vintage: Vintage, boot_id: &str, ts: u64) -> Value {
    let version = if vintage.is_new() {
        vintage.release()
    } else {
        "unknown"
    };
    let mut entry = json!({
        "host": "fake",
        "ip": "127.0.0.1",
        "version": version,
        "platform": std::env::consts::OS,
        "mode": "gateway",
        "reason": "self",
        "text": format!("Gateway: fake (127.0.0.1) · app {version} · mode gateway · reason self"),
        "ts": ts,
    });
    if vintage.is_new() {
        entry["instanceId"] = json!(boot_id);
    }
    entry
}

/// The entry of one client in the presence list.
pub(super) fn client_presence(
    vintage: Vintage,
    admission: &Admission,
    reason: &str,
    ts: u64,
) -> Value {
    let client = &admission.client;
    let mut entry = json!({
        "host": client["id"],
        "version": client["version"],
        "platform": client["platform"],
        "mode": client["mode"],
        "roles": [admission.role],
        "scopes": admission.scopes,
        "reason": reason,
        "ts": ts,
        "text": format!("Node: {} · mode {}", client["id"].as_str().unwrap_or_default(), client["mode"].as_str().unwrap_or_default()),
    });
    if let Some(id) = &admission.device_id {
        entry["deviceId"] = json!(id);
    }
    if vintage.is_new() {
        entry["clientId"] = client["id"].clone();
        entry["onlineSince"] = json!(ts);
    }
    entry
}

fn event_loop() -> Value {
    json!({
        "degraded": false,
        "degradedSinceMs": null,
        "reasons": [],
        "intervalMs": 1000.0,
        "delayP99Ms": 1.0,
        "delayMaxMs": 1.0,
        "utilization": 0.01,
    })
}

fn sessions_path(shared: &Shared) -> String {
    let last = if shared.config.vintage.is_new() {
        "agents/main/agent/openclaw-agent.sqlite"
    } else {
        "agents/main/sessions/sessions.json"
    };
    shared.config.state_dir.join(last).display().to_string()
}

pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
