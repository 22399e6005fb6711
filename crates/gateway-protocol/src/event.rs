//! Names of events, and the events a client acts on itself.

use alloc::string::String;
use core::{fmt::Write as _, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    DecodeError, Extra,
    json::{self, Fields, ObjectWriter, OpenObject, open_object},
};

/// Names of events, as recorded from gateways of protocol 3 and 4.
///
/// The list is not closed: plug-ins and newer versions send others, and those pass through like these.
pub mod name {
    /// First frame of every connection; its payload is a [`Challenge`](crate::Challenge).
    pub const CONNECT_CHALLENGE: &str = "connect.challenge";
    /// Sign of life of the whole process; its payload is a [`Tick`](super::Tick).
    pub const TICK: &str = "tick";
    /// The gateway is about to stop or restart; its payload is a [`Shutdown`](super::Shutdown).
    pub const SHUTDOWN: &str = "shutdown";
    /// Health snapshot, every 60 s and on change.
    pub const HEALTH: &str = "health";
    /// Who is connected, on every connect and disconnect.
    pub const PRESENCE: &str = "presence";
    /// An agent's heartbeat run.
    pub const HEARTBEAT: &str = "heartbeat";
    /// Progress of an agent run.
    pub const AGENT: &str = "agent";
    /// Text of a chat as it is written, and its end.
    pub const CHAT: &str = "chat";
    /// Title or other facts of a chat changed.
    pub const CHAT_METADATA_CHANGED: &str = "chat.metadata.changed";
    /// A scheduled job was added, changed or run.
    pub const CRON: &str = "cron";
    /// The configuration was changed (protocol 4).
    pub const CONFIG_CHANGED: &str = "config.changed";
    /// A device asks to be paired.
    pub const DEVICE_PAIR_REQUESTED: &str = "device.pair.requested";
    /// A device's request to be paired was decided.
    pub const DEVICE_PAIR_RESOLVED: &str = "device.pair.resolved";
    /// A node asks to be paired.
    pub const NODE_PAIR_REQUESTED: &str = "node.pair.requested";
    /// A node's request to be paired was decided.
    pub const NODE_PAIR_RESOLVED: &str = "node.pair.resolved";
    /// A node is asked to run something.
    pub const NODE_INVOKE_REQUEST: &str = "node.invoke.request";
    /// A command waits for approval.
    pub const EXEC_APPROVAL_REQUESTED: &str = "exec.approval.requested";
    /// A command's approval was decided.
    pub const EXEC_APPROVAL_RESOLVED: &str = "exec.approval.resolved";
    /// The gateway is being suspended or resumed (protocol 4).
    pub const GATEWAY_SUSPENSION: &str = "gateway.suspension";
    /// Plug-ins were added, removed or changed.
    pub const PLUGINS_CHANGED: &str = "plugins.changed";
    /// The list of sessions changed.
    pub const SESSIONS_CHANGED: &str = "sessions.changed";
    /// Skills were added, removed or changed.
    pub const SKILLS_CHANGED: &str = "skills.changed";
    /// Change of a background task (protocol 4).
    pub const TASK: &str = "task";
    /// A newer version is available.
    pub const UPDATE_AVAILABLE: &str = "update.available";
    /// The words that wake the voice input changed.
    pub const VOICEWAKE_CHANGED: &str = "voicewake.changed";
    /// Where voice input goes changed.
    pub const VOICEWAKE_ROUTING_CHANGED: &str = "voicewake.routing.changed";
    /// Change of the talk mode.
    pub const TALK_MODE: &str = "talk.mode";
}

/// Counters of the state that events change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StateVersion {
    /// Changes of the presence list so far.
    pub presence: u64,
    /// Changes of the health snapshot so far.
    pub health: u64,
}

impl StateVersion {
    /// Reads raw JSON. The flag tells whether the value holds everything that was there.
    pub(crate) fn from_raw(source: &Bytes, raw: &str) -> Option<(Self, bool)> {
        // Nearly every event carries one, always written like this; the general way costs as much as the rest of
        // the frame.
        if let Some(counters) = raw.strip_prefix("{\"presence\":")
            && let Some((presence, rest)) = counters.split_once(',')
            && let Some(health) = rest.strip_prefix("\"health\":")
            && let Some(health) = health.strip_suffix('}')
            && let (Some(presence), Some(health)) =
                (json::unsigned(presence), json::unsigned(health))
        {
            return Some((Self { presence, health }, true));
        }
        let mut fields = Fields::read(source, raw).ok()?;
        let version = Self {
            presence: fields.unsigned("presence")?,
            health: fields.unsigned("health")?,
        };
        Some((version, fields.rest().is_empty()))
    }

    pub(crate) fn write(self, out: &mut String) {
        // Writing into a String cannot fail.
        let _ = write!(
            out,
            "{{\"presence\":{},\"health\":{}}}",
            self.presence, self.health
        );
    }
}

/// Payload of [`name::TICK`].
///
/// The timer belongs to the process, not to the connection, so the first tick comes at any time within the interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tick {
    /// The gateway's clock, in milliseconds since 1970.
    pub ts: Option<u64>,
    /// Further fields.
    pub extra: Extra,
}

impl Tick {
    /// A tick at `ts` milliseconds since 1970.
    pub const fn new(ts: u64) -> Self {
        Self {
            ts: Some(ts),
            extra: Extra::new(),
        }
    }
}

impl OpenObject for Tick {
    fn read(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            ts: fields.unsigned("ts"),
            extra: fields.rest(),
        })
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        object.optional_display("ts", self.ts);
    }
}

open_object!(Tick, "the payload of a tick");

/// Payload of [`name::SHUTDOWN`], sent right before close 1012.
///
/// A stop and a restart look the same but for one thing: a restart tells when the gateway expects to be back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shutdown {
    /// Text for people, `gateway stopping` or `gateway restarting`; empty when there is none.
    pub reason: String,
    /// Milliseconds until the gateway expects to be back; `None` when it stops for good.
    pub restart_expected_ms: Option<u64>,
    /// Further fields. Protocol 3 writes `restartExpectedMs: null` for a stop, which is kept here.
    pub extra: Extra,
}

impl Shutdown {
    /// A shutdown notice.
    pub fn new(reason: impl Into<String>, restart_expected_ms: Option<u64>) -> Self {
        Self {
            reason: reason.into(),
            restart_expected_ms,
            extra: Extra::new(),
        }
    }

    /// How long the gateway expects to be away; `None` when it stops for good.
    pub fn restart_expected(&self) -> Option<Duration> {
        self.restart_expected_ms.map(Duration::from_millis)
    }
}

impl OpenObject for Shutdown {
    fn read(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        let restart_expected_ms = match fields.unsigned("restartExpectedMs") {
            Some(delay) => Some(delay),
            // Any number means a restart. One that is no whole number is rounded here and kept as it came; the
            // cast saturates, so a negative one means "at once".
            None => fields
                .raw("restartExpectedMs")
                .and_then(json::number)
                .and_then(|number| number.as_f64())
                .map(|delay| delay as u64),
        };
        Ok(Self {
            reason: fields.nonempty_text("reason").unwrap_or_default(),
            restart_expected_ms,
            extra: fields.rest(),
        })
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        if !self.reason.is_empty() {
            object.text("reason", &self.reason);
        }
        object.optional_display("restartExpectedMs", self.restart_expected_ms);
    }
}

open_object!(Shutdown, "the payload of a shutdown notice");
