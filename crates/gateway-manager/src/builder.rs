//! Settings of a manager. All have defaults; wrong combinations fail in [`GatewayManagerBuilder::build`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway_client::{Transport, WebSocketTransport};
use gateway_policy::lifecycle::{AttachMode, LifecycleConfig};
use gateway_policy::status::DEFAULT_PORT;
use gateway_process::terminate::{DEFAULT_ASK_FOR, DEFAULT_REAP_WITHIN};
use gateway_process::{
    Environment, OpenClaw, OsProcessHost, OutputLog, OutputLogConfig, OwnerDeath, ProcessHost,
    ServiceSearch,
};
use gateway_protocol::handshake::{ClientInfo, scope};
use secrecy::SecretString;

use crate::error::BuildError;
use crate::events::EVENT_QUEUE;
use crate::handle::GatewayManager;
use crate::hooks::PreparationHook;

/// Which TCP port on the loopback address the gateway uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// This one.
    Fixed(u16),
    /// One that the operating system says is free, chosen at the first launch and kept.
    Free,
}

impl Default for PortChoice {
    /// OpenClaw's own default, 18789.
    fn default() -> Self {
        Self::Fixed(DEFAULT_PORT)
    }
}

/// The settings of a [`GatewayManager`]. Made by [`GatewayManager::builder`].
#[must_use]
pub struct GatewayManagerBuilder {
    pub(crate) settings: Settings,
}

/// What the builder collects.
pub(crate) struct Settings {
    pub(crate) openclaw: Option<OpenClaw>,
    pub(crate) port: PortChoice,
    pub(crate) token: Option<SecretString>,
    /// Nobody chose the token; when one is kept for the instance, that one counts.
    pub(crate) token_is_random: bool,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) home: Option<PathBuf>,
    pub(crate) extra_args: Vec<OsString>,
    pub(crate) startup_trace: bool,
    pub(crate) output_log_config: Option<OutputLogConfig>,
    /// Opened when the manager is built.
    pub(crate) output_log: Option<OutputLog>,
    pub(crate) environment: Option<Environment>,
    pub(crate) instance_dir: Option<PathBuf>,
    pub(crate) owner_death: OwnerDeath,
    pub(crate) identity_file: Option<PathBuf>,
    pub(crate) client: Option<ClientInfo>,
    pub(crate) scopes: Vec<String>,
    pub(crate) caps: Vec<String>,
    pub(crate) lifecycle: LifecycleConfig,
    pub(crate) hooks: Vec<Arc<dyn PreparationHook>>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) call_timeout: Duration,
    pub(crate) ask_for: Duration,
    pub(crate) reap_within: Duration,
    pub(crate) event_queue: usize,
    /// Where to look for services that run a gateway of their own; `None` means not to look.
    pub(crate) services: Option<ServiceSearch>,
    pub(crate) host: Arc<dyn ProcessHost>,
    pub(crate) transport: Arc<dyn Transport>,
}

impl Default for GatewayManagerBuilder {
    fn default() -> Self {
        Self {
            settings: Settings {
                openclaw: None,
                port: PortChoice::default(),
                token: None,
                token_is_random: false,
                state_dir: None,
                home: None,
                extra_args: Vec::new(),
                startup_trace: false,
                output_log_config: None,
                output_log: None,
                environment: None,
                instance_dir: None,
                owner_death: OwnerDeath::default(),
                identity_file: None,
                client: None,
                scopes: scope::ALL.map(str::to_owned).to_vec(),
                caps: Vec::new(),
                lifecycle: LifecycleConfig::default(),
                hooks: Vec::new(),
                handshake_timeout: gateway_client::DEFAULT_HANDSHAKE_TIMEOUT,
                call_timeout: gateway_client::DEFAULT_CALL_TIMEOUT,
                ask_for: DEFAULT_ASK_FOR,
                reap_within: DEFAULT_REAP_WITHIN,
                event_queue: EVENT_QUEUE,
                services: Some(ServiceSearch::of_this_machine()),
                host: Arc::new(OsProcessHost::new()),
                transport: Arc::new(WebSocketTransport::new()),
            },
        }
    }
}

impl GatewayManagerBuilder {
    /// What to launch. Required unless the manager only attaches.
    pub fn openclaw(mut self, openclaw: OpenClaw) -> Self {
        self.settings.openclaw = Some(openclaw);
        self
    }

    /// The port. Default 18789.
    pub fn port(mut self, port: PortChoice) -> Self {
        self.settings.port = port;
        self
    }

    /// The shared token of the gateway. It travels in the child's environment and in the handshake, nowhere else. Default: a random
    /// one of this manager.
    pub fn token(mut self, token: impl Into<SecretString>) -> Self {
        self.settings.token = Some(token.into());
        self
    }

    /// The gateway's state directory. Default: what the environment says, else `.openclaw` in the home directory.
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.state_dir = Some(directory.into());
        self
    }

    /// The gateway's home directory. Default: the inherited one.
    pub fn home(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.home = Some(directory.into());
        self
    }

    /// Adds an argument to the gateway's command line. Secrets do not belong there.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.settings.extra_args.push(argument.into());
        self
    }

    /// Keeps the gateway's output in files as well, without its secrets, over restarts of the gateway and of this program. Default: no files.
    pub fn output_log(mut self, config: OutputLogConfig) -> Self {
        self.settings.output_log_config = Some(config);
        self
    }

    /// Whether the gateway is asked to tell how long the steps of its start take
    /// ([`GatewayEvent::StartupStep`](crate::GatewayEvent::StartupStep), [`GatewayManager::last_startup`]). Default no: it costs the gateway some two
    /// hundred lines per start.
    pub fn startup_trace(mut self, trace: bool) -> Self {
        self.settings.startup_trace = trace;
        self
    }

    /// The environment to start from. Default: this process's own, without what would mislead a gateway
    /// ([`Environment::from_parent`], taken at each launch).
    pub fn environment(mut self, environment: Environment) -> Self {
        self.settings.environment = Some(environment);
        self
    }

    /// Where this manager writes down what it has launched, so that the next one knows what is left of it when this one is killed. One
    /// directory for each gateway; a second manager for the same one is refused, or attaches. Default: `gateway-manager` in the
    /// gateway's state directory.
    pub fn instance_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.instance_dir = Some(directory.into());
        self
    }

    /// What becomes of the gateway when this process is killed. Default: it is killed as well. When it is to survive, the next manager of the
    /// same instance takes it over without a restart, provided that it would launch the same; and a token that nobody chose is kept
    /// in the instance's directory.
    pub fn owner_death(mut self, owner_death: OwnerDeath) -> Self {
        self.settings.owner_death = owner_death;
        self
    }

    /// Where the device identity lives; created when it is missing, never replaced when it is damaged. Default: no identity, which a
    /// gateway on this machine accepts.
    pub fn identity_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.identity_file = Some(path.into());
        self
    }

    /// How this client introduces itself. Default: `gateway-client` in mode `backend`.
    pub fn client(mut self, client: ClientInfo) -> Self {
        self.settings.client = Some(client);
        self
    }

    /// The scopes to ask for. Default: all operator scopes, for this is the gateway's own manager.
    pub fn scopes<S: Into<String>>(mut self, scopes: impl IntoIterator<Item = S>) -> Self {
        self.settings.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// The capabilities to announce, for example `tool-events`. Default: none.
    pub fn caps<S: Into<String>>(mut self, caps: impl IntoIterator<Item = S>) -> Self {
        self.settings.caps = caps.into_iter().map(Into::into).collect();
        self
    }

    /// What to do about a gateway that is already there. Default: leave it alone and say who holds the port.
    pub fn attach(mut self, attach: AttachMode) -> Self {
        self.settings.lifecycle.attach = attach;
        self
    }

    /// All limits and policies of the lifecycle at once; replaces what [`attach`](Self::attach) set.
    pub fn lifecycle(mut self, config: LifecycleConfig) -> Self {
        self.settings.lifecycle = config;
        self
    }

    /// Adds a step before each launch. Steps run in the order in which they were added.
    pub fn hook(mut self, hook: impl PreparationHook) -> Self {
        self.settings.hooks.push(Arc::new(hook));
        self
    }

    /// One limit over everything from dialling to hello. Default 20 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.settings.handshake_timeout = timeout;
        self
    }

    /// How long a call may take unless it says otherwise. Default 30 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.settings.call_timeout = timeout;
        self
    }

    /// How long the gateway may take to end when asked, and how long to wait after it was forced. Defaults 10 s and 5 s.
    pub fn stop_limits(mut self, ask_for: Duration, reap_within: Duration) -> Self {
        self.settings.ask_for = ask_for;
        self.settings.reap_within = reap_within;
        self
    }

    /// How many events are kept for a subscriber that does not read. Default 1024.
    pub fn event_queue(mut self, events: usize) -> Self {
        self.settings.event_queue = events;
        self
    }

    /// Whether to look, beside the first launch, for a systemd unit or a launchd job that runs a gateway of its own. Each that is found is
    /// told of in a [`GatewayEvent::Warning`](crate::GatewayEvent::Warning) and left alone. No launch waits for it. Default: yes, on the
    /// real process host.
    pub fn detect_services(mut self, detect: bool) -> Self {
        self.settings.services = detect.then(ServiceSearch::of_this_machine);
        self
    }

    /// The same in other places than those of this machine.
    pub fn service_search(mut self, search: ServiceSearch) -> Self {
        self.settings.services = Some(search);
        self
    }

    /// Another way to run processes, for tests. Services of the real machine are not looked for then, unless that is asked for afterwards.
    pub fn process_host(mut self, host: Arc<dyn ProcessHost>) -> Self {
        self.settings.host = host;
        self.settings.services = None;
        self
    }

    /// Another way to connect, for tests.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.settings.transport = transport;
        self
    }

    /// Makes the manager, stopped. Its loop runs on the current tokio runtime until the last handle is dropped; then it stops the
    /// gateway and ends.
    ///
    /// # Errors
    /// [`BuildError`] when the settings do not fit together, or outside of a runtime.
    pub fn build(self) -> Result<GatewayManager, BuildError> {
        let mut settings = self.settings;
        let attach = settings.lifecycle.attach;
        if settings.openclaw.is_none() && attach != AttachMode::Only {
            return Err(BuildError::NoOpenClaw);
        }
        if attach != AttachMode::Never && settings.port == PortChoice::Free {
            return Err(BuildError::AttachToFreePort);
        }
        let limits = [
            ("handshake_timeout", settings.handshake_timeout),
            ("call_timeout", settings.call_timeout),
        ];
        if let Some((name, _)) = limits.into_iter().find(|(_, limit)| limit.is_zero()) {
            return Err(BuildError::ZeroLimit { name });
        }
        settings.lifecycle.validate()?;
        if settings.token.is_none() && attach != AttachMode::Only {
            settings.token = Some(random_token()?);
            settings.token_is_random = true;
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BuildError::NoRuntime)?;
        if let Some(config) = settings.output_log_config.take() {
            settings.output_log = Some(OutputLog::open(config)?);
        }
        Ok(GatewayManager::spawn(settings, &runtime))
    }
}

/// 32 hexadecimal digits from the operating system.
fn random_token() -> Result<SecretString, BuildError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| BuildError::NoRandomness(error.to_string()))?;
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(digits.into())
}
