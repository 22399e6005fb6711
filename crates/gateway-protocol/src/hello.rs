//! The answer that ends the handshake.
//!
//! The versions differ a lot here, so the types name what a client acts on and carry everything else along in
//! `extra`. Only `type` and `protocol` must be there. Fields that every version sends (server version,
//! connection id, methods, events, the three limits of the policy, role and scopes) are always written; for the
//! others absence is kept.

use alloc::{string::String, vec::Vec};
use core::time::Duration;

use crate::{
    DecodeError, Extra, Payload, Role, Sensitive, StateVersion,
    json::{Fields, ObjectWriter, OpenObject, open_object},
    limits,
};

/// `type` of the payload.
pub const HELLO_OK: &str = "hello-ok";

/// Payload of the successful answer to `connect`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HelloOk {
    /// Protocol version in use. A gateway of protocol 4 says 4 even to probes that asked for 3.
    pub protocol: u32,
    /// Which gateway this is.
    pub server: ServerInfo,
    /// What it can do.
    pub features: Features,
    /// State at the time of the handshake.
    pub snapshot: Snapshot,
    /// What the connection may do. Protocol 3 sends it to clients with a device identity only.
    pub auth: Option<HelloAuth>,
    /// Limits and intervals.
    pub policy: Policy,
    /// Further fields, for example `canvasHostUrl` (protocol 3) or `pluginSurfaceUrls` (protocol 4).
    pub extra: Extra,
}

impl HelloOk {
    /// Whether the gateway announced a method. An old one may have methods that it does not announce.
    pub fn has_method(&self, method: &str) -> bool {
        self.features.methods.iter().any(|known| known == method)
    }
}

impl OpenObject for HelloOk {
    fn read(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        const WHAT: &str = "hello-ok";
        if fields.text("type").as_deref() != Some(HELLO_OK) {
            return Err(DecodeError::Field {
                what: WHAT,
                field: "type",
                expected: "the text \"hello-ok\"",
            });
        }
        let protocol = fields
            .unsigned("protocol")
            .and_then(|version| version.try_into().ok())
            .ok_or(DecodeError::Field {
                what: WHAT,
                field: "protocol",
                expected: "a protocol version",
            })?;
        Ok(Self {
            protocol,
            server: fields.object("server").unwrap_or_default(),
            features: fields.object("features").unwrap_or_default(),
            snapshot: fields.object("snapshot").unwrap_or_default(),
            auth: fields.object("auth"),
            policy: fields.object("policy").unwrap_or_default(),
            extra: fields.rest(),
        })
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        object.text("type", HELLO_OK);
        object.display("protocol", self.protocol);
        object.object("server", &self.server);
        object.object("features", &self.features);
        object.object("snapshot", &self.snapshot);
        if let Some(auth) = &self.auth {
            object.object("auth", auth);
        }
        object.object("policy", &self.policy);
    }
}

open_object!(HelloOk, "a hello");

/// Which gateway answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerInfo {
    /// Version of OpenClaw. An installation of 2026.3.2 from the npm registry says `dev`.
    pub version: String,
    /// Id of this connection.
    pub conn_id: String,
    /// Id of the build (protocol 4).
    pub build_id: Option<String>,
    /// Changes at every start of the gateway, also when it restarts within its process (2026.9.6).
    pub boot_id: Option<String>,
    /// Further fields.
    pub extra: Extra,
}

impl OpenObject for ServerInfo {
    fn read(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: fields.text("version").unwrap_or_default(),
            conn_id: fields.text("connId").unwrap_or_default(),
            build_id: fields.text("buildId"),
            boot_id: fields.text("bootId"),
            extra: fields.rest(),
        })
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        object.text("version", &self.version);
        object.optional_text("buildId", self.build_id.as_deref());
        object.optional_text("bootId", self.boot_id.as_deref());
        object.text("connId", &self.conn_id);
    }
}

open_object!(ServerInfo, "the server part of a hello");

/// What a gateway can do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Features {
    /// Names of methods.
    pub methods: Vec<String>,
    /// Names of events.
    pub events: Vec<String>,
    /// Further abilities (protocol 4).
    pub capabilities: Vec<String>,
    /// Further fields.
    pub extra: Extra,
}

impl OpenObject for Features {
    fn read(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            methods: fields.texts("methods").unwrap_or_default(),
            events: fields.texts("events").unwrap_or_default(),
            capabilities: fields.nonempty_texts("capabilities"),
            extra: fields.rest(),
        })
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        object.texts("methods", &self.methods);
        object.texts("events", &self.events);
        object.nonempty_texts("capabilities", &self.capabilities);
    }
}

open_object!(Features, "the features of a hello");

/// State of a gateway at the time of the handshake.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Who is connected: an array.
    pub presence: Option<Payload>,
    /// Health: an object, `{}` right after the start in protocol 4.
    pub health: Option<Payload>,
    /// Versions of the two above.
    pub state_version: Option<StateVersion>,
    /// Milliseconds since the start of the process; an in-process restart does not reset it.
    pub uptime_ms: Option<u64>,
    /// Default agent and session keys: an object.
    pub session_defaults: Option<Payload>,
    /// Path of the configuration file (scope `operator.admin` only).
    pub config_path: Option<String>,
    /// Path of the state directory (scope `operator.admin` only).
    pub state_dir: Option<String>,
    /// How clients authenticate, for example `token` (scope `operator.admin` only).
    pub auth_mode: Option<String>,
    /// Further fields.
    pub extra: Extra,
}

impl OpenObject for Snapshot {
    fn read(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            presence: fields.payload("presence"),
            health: fields.payload("health"),
            state_version: fields.state_version("stateVersion"),
            uptime_ms: fields.unsigned("uptimeMs"),
            session_defaults: fields.payload("sessionDefaults"),
            config_path: fields.text("configPath"),
            state_dir: fields.text("stateDir"),
            auth_mode: fields.text("authMode"),
            extra: fields.rest(),
        })
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        object.payload("presence", self.presence.as_ref());
        object.payload("health", self.health.as_ref());
        if let Some(version) = self.state_version {
            object.with("stateVersion", |out| version.write(out));
        }
        object.optional_display("uptimeMs", self.uptime_ms);
        object.optional_text("configPath", self.config_path.as_deref());
        object.optional_text("stateDir", self.state_dir.as_deref());
        object.payload("sessionDefaults", self.session_defaults.as_ref());
        object.optional_text("authMode", self.auth_mode.as_deref());
    }
}

open_object!(Snapshot, "the snapshot of a hello");

/// What a connection may do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HelloAuth {
    /// Token for later connects of the same device key; useless without that key.
    pub device_token: Option<Sensitive>,
    /// Role granted.
    pub role: Role,
    /// Scopes granted. An empty list means that the gateway took away what was asked for.
    pub scopes: Vec<String>,
    /// When the device token was issued, in milliseconds since 1970.
    pub issued_at_ms: Option<u64>,
    /// What the gateway accepted, for example `token` or `device-token` (2026.9.6).
    pub method: Option<String>,
    /// Further fields.
    pub extra: Extra,
}

impl OpenObject for HelloAuth {
    fn read(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            device_token: fields.text("deviceToken").map(Sensitive::from),
            role: fields.text("role").map(Role::from).unwrap_or_default(),
            scopes: fields.texts("scopes").unwrap_or_default(),
            issued_at_ms: fields.unsigned("issuedAtMs"),
            method: fields.text("method"),
            extra: fields.rest(),
        })
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        object.optional_text("method", self.method.as_deref());
        object.optional_text(
            "deviceToken",
            self.device_token.as_ref().map(Sensitive::expose),
        );
        object.text("role", self.role.as_str());
        object.texts("scopes", &self.scopes);
        object.optional_display("issuedAtMs", self.issued_at_ms);
    }
}

open_object!(HelloAuth, "the auth part of a hello");

/// Limits and intervals of a gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Largest frame in bytes, in both directions.
    /// Default [`DEFAULT_MAX_PAYLOAD`](limits::DEFAULT_MAX_PAYLOAD).
    pub max_payload: u64,
    /// Bytes the gateway buffers for a slow reader before it drops the connection.
    /// Default [`DEFAULT_MAX_BUFFERED`](limits::DEFAULT_MAX_BUFFERED).
    pub max_buffered_bytes: u64,
    /// Milliseconds between two ticks.
    /// Default [`DEFAULT_TICK_INTERVAL_MS`](limits::DEFAULT_TICK_INTERVAL_MS).
    pub tick_interval_ms: u64,
    /// Further fields.
    pub extra: Extra,
}

impl Policy {
    /// Time between two ticks. An interval of zero, which no gateway sends, gives the default.
    pub const fn tick_interval(&self) -> Duration {
        match self.tick_interval_ms {
            0 => Duration::from_millis(limits::DEFAULT_TICK_INTERVAL_MS),
            interval => Duration::from_millis(interval),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_payload: limits::DEFAULT_MAX_PAYLOAD,
            max_buffered_bytes: limits::DEFAULT_MAX_BUFFERED,
            tick_interval_ms: limits::DEFAULT_TICK_INTERVAL_MS,
            extra: Extra::new(),
        }
    }
}

impl OpenObject for Policy {
    fn read(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            max_payload: fields
                .unsigned("maxPayload")
                .unwrap_or(limits::DEFAULT_MAX_PAYLOAD),
            max_buffered_bytes: fields
                .unsigned("maxBufferedBytes")
                .unwrap_or(limits::DEFAULT_MAX_BUFFERED),
            tick_interval_ms: fields
                .unsigned("tickIntervalMs")
                .unwrap_or(limits::DEFAULT_TICK_INTERVAL_MS),
            extra: fields.rest(),
        })
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        object.display("maxPayload", self.max_payload);
        object.display("maxBufferedBytes", self.max_buffered_bytes);
        object.display("tickIntervalMs", self.tick_interval_ms);
    }
}

open_object!(Policy, "the policy of a hello");
