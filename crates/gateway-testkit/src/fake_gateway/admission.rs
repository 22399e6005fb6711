//! Who may connect, and as what. The order of the checks is the gateway's.

use std::time::Duration;

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::device::{self, Claim};
use super::options::{PairedDevice, Refusal};
use super::schema;
use super::state::{Phase, Shared, random_token, random_uuid};

/// Facts about the socket that the checks need.
pub(super) struct Upgrade {
    pub(super) nonce: String,
    /// The time of the challenge; `None` is when it is sent.
    pub(super) ts: Option<u64>,
    /// The `Origin` header names another host than this gateway.
    pub(super) foreign_origin: bool,
    /// The `Host` header names another host than this gateway.
    pub(super) foreign_host: bool,
}

/// A client that was let in.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    pub(super) role: String,
    pub(super) scopes: Vec<String>,
    pub(super) client: Value,
    pub(super) device_id: Option<String>,
    pub(super) device_token: Option<String>,
    pub(super) method: &'static str,
}

/// A refusal, and how long the gateway holds it back.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) after: Duration,
}

impl From<Refusal> for Box<Refused> {
    fn from(refusal: Refusal) -> Self {
        Self::new(Refused {
            refusal,
            after: Duration::ZERO,
        })
    }
}

impl From<Box<Refusal>> for Box<Refused> {
    fn from(refusal: Box<Refusal>) -> Self {
        (*refusal).into()
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new("INVALID_REQUEST", message)
}

pub(super) fn admit(
    shared: &Shared,
    params: Option<&Value>,
    upgrade: &Upgrade,
) -> Result<Admission, Box<Refused>> {
    let vintage = shared.config.vintage;
    let new = vintage.is_new();

    if new && shared.phase() == Phase::Starting {
        return Err(
            Refusal::new("UNAVAILABLE", "gateway starting; retry shortly")
                .details(json!({"reason": "startup-sidecars"}))
                .retry_after(Duration::from_millis(500))
                .close(1013, "gateway starting")
                .into(),
        );
    }
    let role = params
        .and_then(|params| params["role"].as_str())
        .unwrap_or("operator");
    if new && role == "worker" {
        let mut refusal = invalid("invalid-handshake");
        refusal.answered = false;
        return Err(refusal.into());
    }
    if let Some(problem) = schema::problem(params, schema::CONNECT, vintage) {
        return Err(invalid(format!("invalid connect params: {problem}")).into());
    }
    let nothing = Value::Null;
    let params = params.unwrap_or(&nothing);
    let client = &params["client"];
    check_protocol(shared, params, client, role)?;
    if !matches!(role, "operator" | "node") {
        return Err(invalid("invalid role").into());
    }
    if upgrade.foreign_origin {
        return Err(foreign_origin(new).into());
    }

    let scopes = text_list(&params["scopes"]);
    let auth = Secrets::read(params);
    let shared_ok = auth.is_shared_secret(shared);
    let device = params.get("device");
    if let Some(device) = device {
        let claim = Claim {
            client,
            role,
            scopes: &scopes,
            token: auth.signed(new),
        };
        device::verify(device, &claim, &upgrade.nonce, shared.now_ms())?;
    } else if !(shared_ok && role == "operator") {
        if !shared_ok && auth.tried() {
            return Err(unauthorized(shared, &auth, false));
        }
        return Err(Refusal::new("NOT_PAIRED", "device identity required")
            .details(json!({"code": "DEVICE_IDENTITY_REQUIRED"}))
            .into());
    }

    let device_id = device
        .and_then(|device| device["id"].as_str())
        .map(str::to_owned);
    let mut method = "token";
    if !shared_ok {
        match &device_id {
            Some(id) if shared.knows_device_token(id, role, &auth) => method = "device-token",
            _ => return Err(unauthorized(shared, &auth, device_id.is_some())),
        }
    }

    let backend = client["id"] == "gateway-client" && client["mode"] == "backend";
    let (scopes, device_token) = match &device_id {
        None if new && !backend && !(client["id"] == "cli" && client["mode"] == "cli") => {
            (Vec::new(), None)
        }
        None => (scopes, None),
        Some(_) if backend => (scopes, None),
        Some(id) => {
            let token = pair(shared, id, role, &scopes, client, upgrade)?;
            (scopes, Some(token))
        }
    };
    Ok(Admission {
        role: role.to_owned(),
        scopes,
        client: client.clone(),
        device_id,
        device_token,
        method,
    })
}

fn check_protocol(
    shared: &Shared,
    params: &Value,
    client: &Value,
    role: &str,
) -> Result<(), Box<Refused>> {
    let vintage = shared.config.vintage;
    let (min, max) = (
        params["minProtocol"].as_u64().unwrap_or(0),
        params["maxProtocol"].as_u64().unwrap_or(0),
    );
    let offered = min..=max;
    let own = u64::from(vintage.protocol());
    let probe = client["mode"] == "probe" || (client["mode"] == "node" && role == "node");
    if offered.contains(&own) || (vintage.is_new() && probe && offered.contains(&3)) {
        return Ok(());
    }
    let details = if vintage.is_new() {
        json!({
            "code": "PROTOCOL_MISMATCH",
            "clientMinProtocol": min,
            "clientMaxProtocol": max,
            "expectedProtocol": own,
            "minimumProbeProtocol": 3,
        })
    } else {
        json!({"expectedProtocol": own})
    };
    Err(invalid("protocol mismatch")
        .details(details)
        .close(1002, "protocol mismatch")
        .into())
}

fn foreign_origin(new: bool) -> Refusal {
    let refusal = invalid(
        "origin not allowed (open the Control UI from the gateway host or allow it in \
         gateway.controlUi.allowedOrigins)",
    );
    if new {
        refusal.details(
            json!({"code": "CONTROL_UI_ORIGIN_NOT_ALLOWED", "reason": "origin not allowed"}),
        )
    } else {
        refusal
    }
}

/// The secrets of `connect.auth`; absent ones are empty.
pub(super) struct Secrets<'a> {
    token: &'a str,
    password: &'a str,
    device_token: &'a str,
    bootstrap_token: &'a str,
}

impl<'a> Secrets<'a> {
    fn read(params: &'a Value) -> Self {
        let text = |name: &str| params["auth"][name].as_str().unwrap_or_default();
        Self {
            token: text("token"),
            password: text("password"),
            device_token: text("deviceToken"),
            bootstrap_token: text("bootstrapToken"),
        }
    }

    fn tried(&self) -> bool {
        !self.token.is_empty() || !self.password.is_empty()
    }

    fn signed(&self, new: bool) -> &'a str {
        let bootstrap = if new { self.bootstrap_token } else { "" };
        [self.token, self.device_token, bootstrap]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_default()
    }

    fn is_shared_secret(&self, shared: &Shared) -> bool {
        let Some(token) = shared.token() else {
            return false;
        };
        let token = token.expose_secret();
        !token.is_empty()
            && (self.token == token || (shared.config.vintage.is_new() && self.password == token))
    }

    pub(super) fn matches_device_token(&self, token: &str) -> bool {
        if self.device_token.is_empty() {
            self.token == token
        } else {
            self.device_token == token
        }
    }
}

fn unauthorized(shared: &Shared, auth: &Secrets<'_>, device: bool) -> Box<Refused> {
    let new = shared.config.vintage.is_new();
    let password_counts = new && !auth.password.is_empty();
    if new && auth.token.is_empty() && !auth.device_token.is_empty() {
        let message = "unauthorized: device token mismatch (rotate/reissue device token)";
        return invalid(message)
            .details(json!({
                "code": "AUTH_DEVICE_TOKEN_MISMATCH",
                "authReason": "device_token_mismatch",
                "canRetryWithDeviceToken": false,
                "recommendedNextStep": "update_auth_credentials",
            }))
            .into();
    }
    if auth.token.is_empty() && !password_counts {
        let mut details = json!({"code": "AUTH_TOKEN_MISSING", "authReason": "token_missing"});
        if new {
            details["canRetryWithDeviceToken"] = json!(false);
            details["recommendedNextStep"] = json!("update_auth_configuration");
        }
        return invalid("unauthorized: gateway token missing (provide gateway auth token)")
            .details(details)
            .into();
    }
    let mut details = json!({"code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch"});
    if new {
        let retry = device && auth.device_token.is_empty();
        details["canRetryWithDeviceToken"] = json!(retry);
        details["recommendedNextStep"] = json!(if retry {
            "retry_with_device_token"
        } else {
            "update_auth_credentials"
        });
    }
    let refusal = invalid("unauthorized: gateway token mismatch (provide gateway auth token)")
        .details(details);
    Box::new(Refused {
        refusal,
        after: shared.next_wrong_token_delay(),
    })
}

/// Finds or makes the pairing of a device; gives the device token.
fn pair(
    shared: &Shared,
    id: &str,
    role: &str,
    scopes: &[String],
    client: &Value,
    upgrade: &Upgrade,
) -> Result<String, Box<Refused>> {
    let new = shared.config.vintage.is_new();
    let normal = |name: &str| {
        client[name]
            .as_str()
            .map(|text| text.trim().to_ascii_lowercase())
    };
    let (platform, family) = (normal("platform"), normal("deviceFamily"));
    let mut paired = shared.paired();
    let Some(known) = paired.iter_mut().find(|device| device.id == id) else {
        if upgrade.foreign_host && !new {
            return Err(pairing_required("not-paired", id, role, scopes, None, new).into());
        }
        let token = random_token();
        paired.push(PairedDevice {
            id: id.to_owned(),
            token: token.clone().into(),
            role: role.to_owned(),
            scopes: scopes.to_vec(),
            platform,
            device_family: family,
        });
        return Ok(token);
    };
    let moved = |pinned: &Option<String>, claimed: &Option<String>| {
        pinned
            .as_ref()
            .is_some_and(|pinned| claimed.as_ref() != Some(&pinned.trim().to_ascii_lowercase()))
    };
    if moved(&known.platform, &platform) || moved(&known.device_family, &family) {
        return Err(
            pairing_required("metadata-upgrade", id, role, scopes, Some(known), new).into(),
        );
    }
    known.platform = known.platform.take().or(platform);
    let wider = scopes.iter().any(|scope| !known.scopes.contains(scope)) || known.role != role;
    if wider {
        known.scopes = scopes.to_vec();
        role.clone_into(&mut known.role);
        known.token = random_token().into();
    }
    Ok(known.token.expose_secret().to_owned())
}

fn pairing_required(
    reason: &str,
    id: &str,
    role: &str,
    scopes: &[String],
    known: Option<&PairedDevice>,
    new: bool,
) -> Refusal {
    let request = random_uuid();
    if !new {
        return Refusal::new("NOT_PAIRED", "pairing required")
            .details(json!({"code": "PAIRING_REQUIRED", "requestId": request, "reason": reason}));
    }
    let (message, hint) = match reason {
        "metadata-upgrade" => (
            "pairing required: device identity changed and must be re-approved",
            "Review the refreshed device details, then approve the pending request.",
        ),
        _ => (
            "pairing required: device is not approved yet",
            "Approve the pending request.",
        ),
    };
    let mut details = json!({
        "code": "PAIRING_REQUIRED",
        "reason": reason,
        "requestId": request,
        "remediationHint": hint,
        "deviceId": id,
        "requestedRole": role,
        "requestedScopes": scopes,
    });
    if let Some(known) = known {
        details["approvedRoles"] = json!([known.role]);
        let mut approved = known.scopes.clone();
        approved.sort();
        details["approvedScopes"] = json!(approved);
    }
    Refusal::new("NOT_PAIRED", message)
        .details(details)
        .close(1008, format!("{message} (requestId: {request})"))
}

fn text_list(value: &Value) -> Vec<String> {
    value
        .as_array()
        .map(|items| {
            items
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default()
}
