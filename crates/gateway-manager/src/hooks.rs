//! Work that has to be done before a launch: synchronise a configuration file, warm up a tool, fetch a key.

mod config_edit;
mod config_sync;
mod preload;
mod python;
mod region;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use gateway_policy::FailureClass;
use gateway_process::{Environment, GatewayLaunch};

pub use config_sync::ConfigSync;
pub use preload::PreloadScript;
pub use python::{MirrorUse, PythonMirror, PythonWarmUp, WarmUpError, WarmUpOutcome};
pub use region::Region;

/// How long a hook may take unless it says otherwise: 10 s. A launch waits for it.
pub const DEFAULT_HOOK_DEADLINE: Duration = Duration::from_secs(10);

/// Something to be done before each launch of our own gateway, after the port was found free and before the process is created.
///
/// A hook sees what the launch will use and may add to its environment and arguments. It runs in a task of its own, which is dropped
/// when its deadline passes or when a stop overtakes the launch, so it has to be cancel safe. What a hook that failed had changed in the
/// launch is undone.
#[async_trait]
pub trait PreparationHook: Send + Sync + 'static {
    /// Its name, for errors and logs.
    fn name(&self) -> &str;

    /// How long it may take. Default [`DEFAULT_HOOK_DEADLINE`]. Taking longer counts as a temporary failure.
    fn deadline(&self) -> Duration {
        DEFAULT_HOOK_DEADLINE
    }

    /// Whether the launch is pointless when it fails. Default yes; otherwise the failure is reported as an event and the launch goes
    /// on.
    fn is_required(&self) -> bool {
        true
    }

    /// Does the work.
    ///
    /// # Errors
    /// [`HookError`] with a text that says what is wrong and what to do. Never put a secret into it.
    async fn prepare(&self, context: &mut LaunchContext) -> Result<(), HookError>;
}

/// A hook failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HookError {
    message: String,
    class: FailureClass,
}

impl HookError {
    /// A failure that only a person can change: a launch that needs this hook is given up.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            class: FailureClass::InvalidSettings,
        }
    }

    /// A failure that may pass by itself, such as a server that does not answer: a launch that needs this hook is tried again with
    /// the usual back-off.
    pub fn temporary(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            class: FailureClass::Temporary,
        }
    }

    /// What a launch that needs the hook makes of it.
    pub(crate) fn class(&self) -> FailureClass {
        self.class
    }
}

/// What the coming launch will use.
#[derive(Debug)]
pub struct LaunchContext {
    pub(crate) launch: GatewayLaunch,
}

impl LaunchContext {
    /// The port the gateway will listen on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.launch.port
    }

    /// The state directory, where it is known.
    #[must_use]
    pub fn state_dir(&self) -> Option<PathBuf> {
        self.launch.resolved_state_dir()
    }

    /// The configuration file that the gateway will read, where it is known. It is JSON5: what cannot be parsed must not be
    /// overwritten.
    #[must_use]
    pub fn config_path(&self) -> Option<PathBuf> {
        self.launch.config_path()
    }

    /// The environment of the gateway and of the doctor. What OpenClaw needs to be supervised is set after the hooks and wins.
    pub fn environment(&mut self) -> &mut Environment {
        &mut self.launch.environment
    }

    /// Adds an argument to the gateway's command line. Secrets do not belong there: every local user can read it.
    pub fn add_argument(&mut self, argument: impl Into<OsString>) {
        self.launch.extra_args.push(argument.into());
    }
}
