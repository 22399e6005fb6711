//! A place for one gateway: home, state directory, port and token, seen by nobody else.

use std::path::PathBuf;
use std::sync::Arc;

use gateway_client::{
    ConnectError, ConnectOptions, Connection, Credentials, Endpoint, WebSocketTransport,
};
use gateway_manager::{GatewayManager, GatewayManagerBuilder, PortChoice};
use gateway_process::Environment;
use gateway_process::ports::reserve_free_port;
use tempfile::TempDir;

use crate::installation;

/// See the [module](self). The directories are deleted when it is dropped.
pub(crate) struct Sandbox {
    folder: TempDir,
    pub(crate) port: u16,
    pub(crate) token: String,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("real-gateway-")
            .tempdir()
            .expect("a temporary directory");
        for name in ["home", "state", "tmp"] {
            std::fs::create_dir(folder.path().join(name)).expect("a directory");
        }
        Self {
            folder,
            port: reserve_free_port().expect("a free port"),
            token: random_token(),
        }
    }

    /// Another place that wants the same port, with the same token.
    pub(crate) fn rival(&self) -> Self {
        Self {
            port: self.port,
            token: self.token.clone(),
            ..Self::new()
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file that the gateway reads.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.path("state").join("openclaw.json")
    }

    pub(crate) fn write_config(&self, text: &str) {
        std::fs::write(self.config_file(), text).expect("a writable state directory");
    }

    pub(crate) fn read_config(&self) -> Vec<u8> {
        std::fs::read(self.config_file()).expect("the configuration file")
    }

    /// Where a device identity can live.
    pub(crate) fn identity_file(&self) -> PathBuf {
        self.path("identity").join("device.json")
    }

    /// This process's environment without anything that speaks about an OpenClaw or a home elsewhere.
    fn environment(&self) -> Environment {
        let mut environment = Environment::from_parent();
        let foreign: Vec<_> = environment
            .names()
            .filter(|name| {
                let name = name.to_string_lossy();
                name.starts_with("OPENCLAW_") || name.starts_with("XDG_")
            })
            .map(ToOwned::to_owned)
            .collect();
        for name in foreign {
            environment.remove(name);
        }
        environment.set("TMPDIR", self.path("tmp"));
        environment
    }

    /// A manager for a gateway here, on this port.
    pub(crate) async fn builder(&self) -> GatewayManagerBuilder {
        GatewayManager::builder()
            .openclaw(installation::openclaw().await)
            .port(PortChoice::Fixed(self.port))
            .token(self.token.clone())
            .state_dir(self.path("state"))
            .home(self.path("home"))
            .environment(self.environment())
    }

    /// A connection of its own to the gateway here.
    pub(crate) async fn connect(
        &self,
        token: &str,
        options: impl FnOnce(ConnectOptions) -> ConnectOptions,
    ) -> Result<Connection, ConnectError> {
        let transport = Arc::new(WebSocketTransport::new());
        let credentials = Credentials::token(token.to_owned());
        Connection::open(
            transport.as_ref(),
            &Endpoint::loopback(self.port),
            options(ConnectOptions::new(credentials)),
        )
        .await
    }
}

pub(crate) fn random_token() -> String {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
