//! A place for one gateway: home, state directory, port and token, seen by nobody else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_client::{
    ConnectError, ConnectOptions, Connection, Credentials, Endpoint, WebSocketTransport,
};
use gateway_manager::{GatewayManager, GatewayManagerBuilder, PortChoice};
use gateway_process::Environment;
use gateway_process::ports::reserve_free_port;
use tempfile::TempDir;

use crate::installation;

/// See the [module](self). Its folder is deleted when it is dropped.
pub(crate) struct Sandbox {
    folder: PathBuf,
    /// Deletes the folder; absent for a visitor.
    _deletion: Option<TempDir>,
    /// Where OpenClaw keeps its compiled code and its log.
    temporary: PathBuf,
    pub(crate) port: u16,
    pub(crate) token: String,
}

impl Sandbox {
    /// A place for a gateway that finds its code compiled by an earlier one, which saves it most of a minute.
    pub(crate) fn new() -> Self {
        let shared = format!("real-gateway-{}", installation::version());
        Self::with_temporary(|_| Path::new(env!("CARGO_TARGET_TMPDIR")).join(shared))
    }

    /// A place for a gateway that has never run on this machine.
    pub(crate) fn cold() -> Self {
        Self::with_temporary(|folder| folder.join("tmp"))
    }

    fn with_temporary(temporary: impl FnOnce(&Path) -> PathBuf) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("real-gateway-")
            .tempdir()
            .expect("a temporary directory");
        let temporary = temporary(folder.path());
        for path in [
            &folder.path().join("home"),
            &folder.path().join("state"),
            &temporary,
        ] {
            std::fs::create_dir_all(path).expect("a directory");
        }
        Self {
            folder: folder.path().to_owned(),
            _deletion: Some(folder),
            temporary,
            port: reserve_free_port().expect("a free port"),
            token: random_token(),
        }
    }

    /// What another process needs to know to work in the same place.
    pub(crate) fn told(&self) -> String {
        let path = |path: &Path| path.to_str().expect("a path of ours").to_owned();
        serde_json::json!([
            path(&self.folder),
            path(&self.temporary),
            self.port,
            self.token
        ])
        .to_string()
    }

    /// The place that another process told of, and owns.
    pub(crate) fn visited(told: &str) -> Self {
        let (folder, temporary, port, token) = serde_json::from_str(told).expect("what was told");
        Self {
            folder,
            _deletion: None,
            temporary,
            port,
            token,
        }
    }

    /// A place for code that Node has compiled.
    pub(crate) fn compile_cache(&self) -> PathBuf {
        self.path("compile-cache")
    }

    /// Another place that wants the same port.
    pub(crate) fn rival(&self, token: impl Into<String>) -> Self {
        Self {
            port: self.port,
            token: token.into(),
            ..Self::new()
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
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
    pub(crate) fn environment(&self) -> Environment {
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
        environment.set("TMPDIR", &self.temporary);
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
            .detect_services(false)
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
