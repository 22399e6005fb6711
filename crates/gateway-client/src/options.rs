//! What a connection is opened with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gateway_protocol::{ClientInfo, DevicePayloadVersion, ProtocolRange, Role, scope};

use crate::credentials::{CredentialSource, Credentials};
use crate::events::DEFAULT_EVENT_QUEUE;
use crate::identity::DeviceIdentity;
use crate::rpc::DEFAULT_CALL_TIMEOUT;
use crate::transport::{DEFAULT_MAX_MESSAGE_BYTES, HandshakeProgress};

/// From dialling to hello: 20 s. A cold gateway on a loaded machine needs more than 10 s,
/// and the gateway itself gives up an unauthenticated socket after 15 s.
pub const DEFAULT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// From the upgrade to the challenge: 10 s. A gateway sends it within half a second even when it has just started.
pub const DEFAULT_CHALLENGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests that may wait for the socket: 256.
pub const DEFAULT_COMMAND_QUEUE: usize = 256;

/// Everything [`Connection::open`](crate::Connection::open) needs beside the address. Debug shows no secret.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// Who connects. Id and mode come from closed lists of the gateway. Default: `gateway-client` in mode
    /// `backend`, which keeps its scopes on every version with and without a device identity.
    pub client: ClientInfo,
    /// Default: operator.
    pub role: Role,
    /// What the client may do. Default: `operator.read` and `operator.write`. Without scopes almost everything is
    /// refused.
    pub scopes: Vec<String>,
    /// Capabilities, for example `tool-events`. Default: none.
    pub caps: Vec<String>,
    /// The secrets. Default: none.
    pub credentials: Credentials,
    /// Asked at every handshake in place of `credentials`. Default: none.
    pub credential_source: Option<Arc<dyn CredentialSource>>,
    /// The device's key. Without one the connect request carries no device block. Default: none.
    pub identity: Option<Arc<DeviceIdentity>>,
    /// Which text the device signs. Default: version 3, which every supported gateway accepts.
    pub device_payload: DevicePayloadVersion,
    /// The protocol versions offered. Default: 3 to 4.
    pub protocol: ProtocolRange,
    /// One limit over everything from dialling to hello. Default [`DEFAULT_HANDSHAKE_TIMEOUT`].
    pub handshake_timeout: Duration,
    /// How long to wait for the challenge after the upgrade, within `handshake_timeout`. Default
    /// [`DEFAULT_CHALLENGE_TIMEOUT`].
    pub challenge_timeout: Duration,
    /// How long a call may take unless it says otherwise. Default [`DEFAULT_CALL_TIMEOUT`].
    pub call_timeout: Duration,
    /// Frames kept for a subscriber that does not read; then the oldest are dropped and it is told. Default
    /// [`DEFAULT_EVENT_QUEUE`].
    pub event_queue: usize,
    /// Requests that may wait for the socket; further calls wait for room within their deadline. Default
    /// [`DEFAULT_COMMAND_QUEUE`].
    pub command_queue: usize,
    /// Largest inbound message in bytes. Default [`DEFAULT_MAX_MESSAGE_BYTES`]. A larger one ends the connection.
    pub max_message_bytes: usize,
    /// Called on the connecting task at each step; it must not block. Default: none.
    pub progress: Option<Arc<dyn Fn(HandshakeProgress) + Send + Sync>>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            client: default_client(),
            role: Role::Operator,
            scopes: vec![scope::READ.to_owned(), scope::WRITE.to_owned()],
            caps: Vec::new(),
            credentials: Credentials::none(),
            credential_source: None,
            identity: None,
            device_payload: DevicePayloadVersion::V3,
            protocol: ProtocolRange::SUPPORTED,
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
            challenge_timeout: DEFAULT_CHALLENGE_TIMEOUT,
            call_timeout: DEFAULT_CALL_TIMEOUT,
            event_queue: DEFAULT_EVENT_QUEUE,
            command_queue: DEFAULT_COMMAND_QUEUE,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            progress: None,
        }
    }
}

impl ConnectOptions {
    /// The defaults with these secrets.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            ..Self::default()
        }
    }

    /// Sets who connects.
    #[must_use]
    pub fn with_client(mut self, client: ClientInfo) -> Self {
        self.client = client;
        self
    }

    /// Sets the role.
    #[must_use]
    pub fn with_role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// Sets the scopes; see [`gateway_protocol::scope`].
    #[must_use]
    pub fn with_scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the capabilities.
    #[must_use]
    pub fn with_caps<S: Into<String>>(mut self, caps: impl IntoIterator<Item = S>) -> Self {
        self.caps = caps.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the secrets.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Sets where the secrets are read at each handshake.
    #[must_use]
    pub fn with_credential_source(mut self, source: Arc<dyn CredentialSource>) -> Self {
        self.credential_source = Some(source);
        self
    }

    /// Sets the device's key.
    #[must_use]
    pub fn with_identity(mut self, identity: Arc<DeviceIdentity>) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Sets which text the device signs.
    #[must_use]
    pub fn with_device_payload(mut self, version: DevicePayloadVersion) -> Self {
        self.device_payload = version;
        self
    }

    /// Sets the protocol versions offered.
    #[must_use]
    pub fn with_protocol(mut self, range: ProtocolRange) -> Self {
        self.protocol = range;
        self
    }

    /// Sets the limit over everything from dialling to hello.
    #[must_use]
    pub fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Sets how long to wait for the challenge.
    #[must_use]
    pub fn with_challenge_timeout(mut self, timeout: Duration) -> Self {
        self.challenge_timeout = timeout;
        self
    }

    /// Sets how long a call may take by default.
    #[must_use]
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Sets how many frames are kept for a subscriber that does not read.
    #[must_use]
    pub fn with_event_queue(mut self, frames: usize) -> Self {
        self.event_queue = frames;
        self
    }

    /// Sets how many requests may wait for the socket.
    #[must_use]
    pub fn with_command_queue(mut self, requests: usize) -> Self {
        self.command_queue = requests;
        self
    }

    /// Sets the largest inbound message in bytes.
    #[must_use]
    pub fn with_max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Sets the callback for the steps of the handshake.
    #[must_use]
    pub fn with_progress(
        mut self,
        progress: impl Fn(HandshakeProgress) + Send + Sync + 'static,
    ) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("client", &self.client)
            .field("role", &self.role)
            .field("scopes", &self.scopes)
            .field("caps", &self.caps)
            .field("credentials", &self.credentials)
            .field("credential_source", &self.credential_source.is_some())
            .field("identity", &self.identity)
            .field("device_payload", &self.device_payload)
            .field("protocol", &self.protocol)
            .field("handshake_timeout", &self.handshake_timeout)
            .field("challenge_timeout", &self.challenge_timeout)
            .field("call_timeout", &self.call_timeout)
            .field("event_queue", &self.event_queue)
            .field("command_queue", &self.command_queue)
            .field("max_message_bytes", &self.max_message_bytes)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}

fn default_client() -> ClientInfo {
    ClientInfo::new(env!("CARGO_PKG_VERSION"), std::env::consts::OS)
}
