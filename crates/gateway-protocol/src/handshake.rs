//! Challenge and connect: the first two frames of a connection.
//!
//! The gateway sends an event with a [`Challenge`]; the client answers with the request `connect` whose
//! parameters are [`ConnectParams`]; the gateway answers with a [`HelloOk`](crate::HelloOk) or refuses.

use alloc::{borrow::Cow, collections::BTreeMap, string::String, vec::Vec};
use core::{convert::Infallible, fmt, hash, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    DecodeError, Extra, Sensitive,
    json::{Fields, ObjectWriter, OpenObject, open_object},
};

/// Method name of the request that carries [`ConnectParams`].
pub const CONNECT_METHOD: &str = "connect";

/// Scopes of role `operator`.
pub mod scope {
    /// Change the configuration, restart, and everything else.
    pub const ADMIN: &str = "operator.admin";
    /// Read status, sessions, configuration, logs.
    pub const READ: &str = "operator.read";
    /// Send messages, start and abort runs.
    pub const WRITE: &str = "operator.write";
    /// Decide approvals.
    pub const APPROVALS: &str = "operator.approvals";
    /// Decide which devices and nodes may connect.
    pub const PAIRING: &str = "operator.pairing";
    /// All of them, in the order in which clients usually send them.
    pub const ALL: [&str; 5] = [ADMIN, READ, WRITE, APPROVALS, PAIRING];
}

/// Payload of the event `connect.challenge`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Challenge {
    /// Text that the device has to sign; read it through [`nonce`](Self::nonce).
    pub nonce: Option<String>,
    /// The gateway's clock in milliseconds since 1970; the best value for `signedAt`.
    pub ts: Option<u64>,
    /// What the gateway can do before the handshake (protocol 4).
    pub capabilities: Vec<String>,
    /// Further fields.
    pub extra: Extra,
}

/// The challenge has no nonce, or an empty one: nothing can be signed, so the peer is no usable gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Gateway connect.challenge missing nonce")]
pub struct MissingNonce;

impl Challenge {
    /// A challenge as protocol 3 sends it.
    pub fn new(nonce: impl Into<String>, ts: u64) -> Self {
        Self {
            nonce: Some(nonce.into()),
            ts: Some(ts),
            ..Self::default()
        }
    }

    /// The nonce.
    ///
    /// # Errors
    ///
    /// [`MissingNonce`] when there is none; an empty one counts as none.
    pub fn nonce(&self) -> Result<&str, MissingNonce> {
        match self.nonce.as_deref() {
            None | Some("") => Err(MissingNonce),
            Some(nonce) => Ok(nonce),
        }
    }
}

impl OpenObject for Challenge {
    fn read(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            nonce: fields.text("nonce"),
            ts: fields.unsigned("ts"),
            capabilities: fields.nonempty_texts("capabilities"),
            extra: fields.rest(),
        })
    }

    fn extra(&self) -> &Extra {
        &self.extra
    }

    fn write(&self, object: &mut ObjectWriter<'_>) {
        object.optional_text("nonce", self.nonce.as_deref());
        object.optional_display("ts", self.ts);
        object.nonempty_texts("capabilities", &self.capabilities);
    }
}

open_object!(Challenge, "the payload of a challenge");

/// Versions of the protocol, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProtocolRange {
    /// Lowest version.
    pub min: u32,
    /// Highest version.
    pub max: u32,
}

impl ProtocolRange {
    /// What this crate was tested with. Every gateway version seen accepts the range 3 to 4 and says in its hello
    /// which one is in use.
    pub const SUPPORTED: Self = Self { min: 3, max: 4 };

    /// A range of one version.
    pub const fn only(version: u32) -> Self {
        Self {
            min: version,
            max: version,
        }
    }

    /// Whether a version lies in the range.
    pub const fn contains(self, version: u32) -> bool {
        self.min <= version && version <= self.max
    }
}

impl Default for ProtocolRange {
    fn default() -> Self {
        Self::SUPPORTED
    }
}

impl From<RangeInclusive<u32>> for ProtocolRange {
    fn from(range: RangeInclusive<u32>) -> Self {
        Self {
            min: *range.start(),
            max: *range.end(),
        }
    }
}

impl fmt::Display for ProtocolRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{}..{}", self.min, self.max)
        }
    }
}

/// Declares a list of names that gateways know, with room for names they may learn.
macro_rules! names {
    (
        $(#[$meta:meta])*
        $type:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $name:literal,)*
        }
    ) => {
        $(#[$meta])*
        ///
        /// Comparison is by name, so [`Other`](Self::Other) with a listed name equals that variant.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub enum $type {
            $(
                $(#[$variant_meta])*
                #[doc = concat!("`", $name, "`.")]
                $variant,
            )*
            /// A name that is not in the list.
            Other(String),
        }

        impl $type {
            /// Every listed value.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),*];

            /// The name on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Other(name) => name,
                }
            }
        }

        impl From<&str> for $type {
            fn from(name: &str) -> Self {
                match name {
                    $($name => Self::$variant,)*
                    other => Self::Other(other.into()),
                }
            }
        }

        impl From<String> for $type {
            fn from(name: String) -> Self {
                Self::from(name.as_str())
            }
        }

        impl FromStr for $type {
            type Err = Infallible;

            fn from_str(name: &str) -> Result<Self, Infallible> {
                Ok(Self::from(name))
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }

        impl Eq for $type {}

        impl hash::Hash for $type {
            fn hash<H: hash::Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = Cow::<str>::deserialize(deserializer)?;
                Ok(Self::from(&*name))
            }
        }
    };
}

names! {
    /// `client.id`: which program connects. Gateways refuse names outside their list.
    ClientId {
        /// A program of one's own; keeps its scopes without a device identity. Also the default.
        GatewayClient = "gateway-client",
        /// Command line.
        Cli = "cli",
        /// Web chat embedded in the gateway's pages.
        WebchatUi = "webchat-ui",
        /// The gateway's own web interface.
        ControlUi = "openclaw-control-ui",
        /// Web chat.
        Webchat = "webchat",
        /// macOS application.
        MacOs = "openclaw-macos",
        /// iOS application.
        Ios = "openclaw-ios",
        /// Android application.
        Android = "openclaw-android",
        /// A machine that runs commands for the gateway.
        NodeHost = "node-host",
        /// Tests.
        Test = "test",
        /// Fingerprinting.
        Fingerprint = "fingerprint",
        /// Probes.
        Probe = "openclaw-probe",
        /// Terminal interface (from 2026.6.11).
        Tui = "openclaw-tui",
        /// Linux application (later than 2026.6.11).
        Linux = "openclaw-linux",
        /// watchOS application (later than 2026.6.11).
        WatchOs = "openclaw-watchos",
        /// Browser extension (later than 2026.6.11).
        BrowserCopilot = "openclaw-browser-copilot",
        /// Worker process (later than 2026.6.11).
        Worker = "openclaw-worker",
    }
}

names! {
    /// `client.mode`: how the program uses the gateway. Gateways refuse names outside their list.
    ClientMode {
        /// Program without a person in front of it; the default.
        Backend = "backend",
        /// Command line.
        Cli = "cli",
        /// User interface; needs a device identity to keep its scopes in protocol 4.
        Ui = "ui",
        /// Web chat.
        Webchat = "webchat",
        /// Machine that runs commands for the gateway.
        Node = "node",
        /// Probe; protocol 4 lets it connect with protocol 3.
        Probe = "probe",
        /// Tests.
        Test = "test",
        /// Worker process (protocol 4).
        Worker = "worker",
    }
}

names! {
    /// `role`: which set of methods the connection may use.
    Role {
        /// Controls the gateway; the default.
        Operator = "operator",
        /// Runs commands for the gateway.
        Node = "node",
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the derive would need an attribute inside the list of names"
)]
impl Default for ClientId {
    fn default() -> Self {
        Self::GatewayClient
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the derive would need an attribute inside the list of names"
)]
impl Default for ClientMode {
    fn default() -> Self {
        Self::Backend
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the derive would need an attribute inside the list of names"
)]
impl Default for Role {
    fn default() -> Self {
        Self::Operator
    }
}

/// Parameters of the request `connect`.
///
/// The gateway refuses unknown fields here, so the type has no room for any; reading ignores them.
///
/// ```
/// use gateway_protocol::{ClientInfo, ConnectAuth, ConnectParams, Payload, scope};
///
/// let params = ConnectParams {
///     scopes: vec![scope::READ.into()],
///     auth: Some(ConnectAuth::token("probe-token")),
///     ..ConnectParams::new(ClientInfo::new("0.1.0", "linux"))
/// };
/// let json = Payload::from_serialize(&params)?;
/// assert_eq!(
///     json.as_str(),
///     concat!(
///         r#"{"minProtocol":3,"maxProtocol":4,"#,
///         r#""client":{"id":"gateway-client","version":"0.1.0","platform":"linux","mode":"backend"},"#,
///         r#""role":"operator","scopes":["operator.read"],"caps":[],"auth":{"token":"probe-token"}}"#,
///     ),
/// );
/// # Ok::<(), gateway_protocol::EncodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectParams {
    /// Lowest protocol version the client speaks, at least 1.
    pub min_protocol: u32,
    /// Highest protocol version the client speaks.
    pub max_protocol: u32,
    /// Which program connects.
    pub client: ClientInfo,
    /// Which set of methods it wants.
    #[serde(default)]
    pub role: Role,
    /// What it wants to be allowed; see [`scope`]. Without any, almost nothing is.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// What it understands; `tool-events` turns on live tool events.
    #[serde(default)]
    pub caps: Vec<String>,
    /// Commands that a node offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<String>>,
    /// Permissions that a node has, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<BTreeMap<String, bool>>,
    /// Search path of a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_env: Option<String>,
    /// Language of the user, for example `de-CH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Name and version of the program for logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ConnectAuth>,
    /// Proof that the client owns a device key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceProof>,
}

impl ConnectParams {
    /// Parameters for the range [`ProtocolRange::SUPPORTED`], role `operator`, without scopes and secrets.
    pub fn new(client: ClientInfo) -> Self {
        Self {
            min_protocol: ProtocolRange::SUPPORTED.min,
            max_protocol: ProtocolRange::SUPPORTED.max,
            client,
            role: Role::default(),
            scopes: Vec::new(),
            caps: Vec::new(),
            commands: None,
            permissions: None,
            path_env: None,
            locale: None,
            user_agent: None,
            auth: None,
            device: None,
        }
    }

    /// The range of versions offered.
    pub const fn protocol_range(&self) -> ProtocolRange {
        ProtocolRange {
            min: self.min_protocol,
            max: self.max_protocol,
        }
    }
}

/// Which program connects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientInfo {
    /// Name from the gateway's list.
    pub id: ClientId,
    /// Version of the program; not empty.
    pub version: String,
    /// Operating system; not empty. It is part of what a paired device promised: keep it constant for one key.
    pub platform: String,
    /// How the program uses the gateway.
    pub mode: ClientMode,
    /// Name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Kind of device; like `platform`, constant for one key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_family: Option<String>,
    /// Model of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_identifier: Option<String>,
    /// Tells several running instances apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
}

impl ClientInfo {
    /// A `gateway-client` in mode `backend`, the combination that keeps its scopes in every version.
    pub fn new(version: impl Into<String>, platform: impl Into<String>) -> Self {
        Self {
            id: ClientId::default(),
            version: version.into(),
            platform: platform.into(),
            mode: ClientMode::default(),
            display_name: None,
            device_family: None,
            model_identifier: None,
            instance_id: None,
        }
    }
}

/// Secrets of a connect request. If several are given, the shared token decides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectAuth {
    /// The gateway's shared token, or a device token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Sensitive>,
    /// Token that an earlier hello issued to this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_token: Option<Sensitive>,
    /// Token for the first connect of a device (protocol 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_token: Option<Sensitive>,
    /// The gateway's shared password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Sensitive>,
}

impl ConnectAuth {
    /// A shared token alone.
    pub fn token(token: impl Into<Sensitive>) -> Self {
        Self {
            token: Some(token.into()),
            ..Self::default()
        }
    }

    /// The secret that is part of the signed text: token, else device token, else bootstrap token. A password is
    /// never part of it.
    pub fn signed_token(&self) -> Option<&Sensitive> {
        self.token
            .as_ref()
            .or(self.device_token.as_ref())
            .or(self.bootstrap_token.as_ref())
    }
}

/// Proof that the client owns a device key; see [`DeviceAuthPayload`](crate::DeviceAuthPayload).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceProof {
    /// Lower-case hexadecimal SHA-256 of the raw public key.
    pub id: String,
    /// The 32 raw bytes of the Ed25519 public key in base64url without padding.
    pub public_key: String,
    /// The 64 bytes of the signature in base64url without padding.
    pub signature: String,
    /// The time that was signed, in milliseconds since 1970; within two minutes of the gateway's clock.
    pub signed_at: u64,
    /// The nonce of the challenge.
    pub nonce: String,
}
