//! A gateway client for programs that talk to one gateway.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway_protocol::{ClientInfo, HelloOk, Payload, Sensitive};
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::{Connection, Disconnected};
use crate::credentials::{CredentialError, CredentialStore, Credentials, DeviceToken};
use crate::endpoint::Endpoint;
use crate::error::ConnectError;
use crate::events::EventStream;
use crate::identity::DeviceIdentity;
use crate::options::ConnectOptions;
use crate::rpc::{CallOptions, RpcError};
use crate::transport::Transport;
use crate::websocket::WebSocketTransport;

/// A connected client. Cheap to clone; the socket is closed when the last clone is dropped.
///
/// It does not reconnect: when [`GatewayClient::closed`] resolves, build another.
#[derive(Debug, Clone)]
pub struct GatewayClient {
    connection: Connection,
}

impl GatewayClient {
    /// Begins with the local gateway on its default port, without credentials.
    #[must_use]
    pub fn builder() -> GatewayClientBuilder {
        GatewayClientBuilder::default()
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The gateway's acceptance.
    #[must_use]
    pub fn hello(&self) -> &HelloOk {
        self.connection.hello()
    }

    /// Calls a method with typed parameters and result; see [`Connection::call`].
    ///
    /// # Errors
    /// See [`RpcError`].
    pub async fn call<P, R>(&self, method: &str, params: &P) -> Result<R, RpcError>
    where
        P: Serialize + ?Sized + Sync,
        R: DeserializeOwned,
    {
        self.connection.call(method, params).await
    }

    /// Calls a method with raw JSON; see [`Connection::call_raw`].
    ///
    /// # Errors
    /// See [`RpcError`].
    pub async fn call_raw(
        &self,
        method: &str,
        params: Option<Payload>,
        options: CallOptions,
    ) -> Result<Option<Payload>, RpcError> {
        self.connection.call_raw(method, params, options).await
    }

    /// Subscribes to events; see [`Connection::events`].
    #[must_use]
    pub fn events(&self) -> EventStream {
        self.connection.events()
    }

    /// Waits for the end of the connection; see [`Connection::closed`].
    pub async fn closed(&self) -> Disconnected {
        self.connection.closed().await
    }

    /// Closes the connection with code 1000; see [`Connection::close`].
    pub async fn close(&self) -> Disconnected {
        self.connection.close(1000_u16, "").await
    }
}

/// Builds a [`GatewayClient`].
#[derive(Clone)]
pub struct GatewayClientBuilder {
    endpoint: Endpoint,
    options: ConnectOptions,
    transport: Arc<dyn Transport>,
    identity_path: Option<PathBuf>,
    credential_store: Option<Arc<dyn CredentialStore>>,
}

impl Default for GatewayClientBuilder {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::loopback(gateway_protocol::limits::DEFAULT_PORT),
            options: ConnectOptions::default(),
            transport: Arc::new(WebSocketTransport::new()),
            identity_path: None,
            credential_store: None,
        }
    }
}

impl GatewayClientBuilder {
    /// Where the gateway listens. Default: port 18789 of this machine.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = endpoint;
        self
    }

    /// The gateway's shared token.
    #[must_use]
    pub fn token(mut self, token: impl Into<SecretString>) -> Self {
        self.options.credentials.token = Some(token.into());
        self
    }

    /// All secrets at once.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.options.credentials = credentials;
        self
    }

    /// The device's key.
    #[must_use]
    pub fn identity(mut self, identity: Arc<DeviceIdentity>) -> Self {
        self.options.identity = Some(identity);
        self
    }

    /// The file of the device's key; it is created when missing. [`GatewayClientBuilder::identity`] wins over it.
    #[must_use]
    pub fn identity_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.identity_path = Some(path.into());
        self
    }

    /// Where device tokens are kept. A kept token is used when no other secret is given; one that the gateway
    /// issues is saved. Works only together with an identity.
    #[must_use]
    pub fn credential_store(mut self, store: Arc<dyn CredentialStore>) -> Self {
        self.credential_store = Some(store);
        self
    }

    /// Who connects.
    #[must_use]
    pub fn client(mut self, client: ClientInfo) -> Self {
        self.options.client = client;
        self
    }

    /// What the client may do; see [`gateway_protocol::scope`].
    #[must_use]
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.options = self.options.with_scopes(scopes);
        self
    }

    /// Everything else. Replaces what was set before by the other methods.
    #[must_use]
    pub fn options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }

    /// Another transport, for tests and tunnels. Default: [`WebSocketTransport`].
    #[must_use]
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transport = transport;
        self
    }

    /// Connects. The limit of the handshake, [`ConnectOptions::handshake_timeout`], also holds for loading the identity, for reading
    /// the kept device token and for saving an issued one, each for itself.
    ///
    /// # Errors
    /// See [`ConnectError`]. That an issued device token could not be saved is only logged: the connection works.
    pub async fn connect(self) -> Result<GatewayClient, ConnectError> {
        let Self {
            endpoint,
            mut options,
            transport,
            identity_path,
            credential_store,
        } = self;
        let limit = options.handshake_timeout;
        if options.identity.is_none()
            && let Some(path) = identity_path
        {
            let loading =
                tokio::task::spawn_blocking(move || DeviceIdentity::load_or_create(&path));
            let loaded = in_time(limit, "loading the identity", loading).await?;
            let (identity, _) = loaded.map_err(|error| {
                CredentialError::source(format!("loading the identity failed: {error}"))
            })??;
            options.identity = Some(Arc::new(identity));
        }
        let kept = credential_store.zip(options.identity.clone());
        let role = options.role.as_str().to_owned();
        if let Some((store, identity)) = &kept
            && options.credentials.is_empty()
            && options.credential_source.is_none()
        {
            let loading = store.load(identity.device_id(), &role);
            if let Some(token) = in_time(limit, "reading the kept device token", loading).await?? {
                options.credentials.device_token = Some(token.token);
            }
        }
        let connection = Connection::open(&*transport, &endpoint, options).await?;
        if let Some((store, identity)) = &kept
            && let Some(token) = issued_token(connection.hello())
        {
            let saving = store.save(identity.device_id(), &role, &token);
            let saved = in_time(limit, "saving the device token", saving).await;
            if let Err(error) = saved.flatten() {
                tracing::warn!(%error, "the device token that the gateway issued could not be saved");
            }
        }
        Ok(GatewayClient { connection })
    }
}

/// Bounds what is outside of the handshake: a file on a dead network mount never answers, nor may a store of somebody's own making.
async fn in_time<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = T>,
) -> Result<T, CredentialError> {
    tokio::time::timeout(limit, work).await.map_err(|_| {
        CredentialError::source(format!(
            "{what} did not end within {} ms; check the disk or service that it is kept on",
            limit.as_millis()
        ))
    })
}

fn issued_token(hello: &HelloOk) -> Option<DeviceToken> {
    let auth = hello.auth.as_ref()?;
    let token = auth.device_token.as_ref().map(Sensitive::expose)?;
    Some(DeviceToken::new(token, auth.scopes.clone()).issued_at_ms(auth.issued_at_ms))
}

impl std::fmt::Debug for GatewayClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayClientBuilder")
            .field("endpoint", &self.endpoint)
            .field("options", &self.options)
            .field("identity_path", &self.identity_path)
            .field("credential_store", &self.credential_store.is_some())
            .finish_non_exhaustive()
    }
}
