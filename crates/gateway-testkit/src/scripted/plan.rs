//! What a scripted process does, and when.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use gateway_process::LaunchSpec;

use crate::fake_gateway::{FakeGatewayConfig, Vintage};

/// How a child takes being asked to end (`SIGTERM`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskPlan {
    /// The gateway stops in order, and then the process ends. A gateway of 2026.9.6 first waits for agent runs.
    Obeys {
        /// Time from the end of the gateway, or from the request when it has none yet, to the exit.
        after: Duration,
        /// The exit code.
        code: i32,
    },
    /// It takes no notice; only force ends it.
    Ignores,
}

/// Why a start fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnFailure {
    /// There is no such program.
    ProgramNotFound,
    /// The operating system has no resources left.
    Refused,
}

/// One start of a child. Times count from the spawn unless they say otherwise.
#[derive(Clone, Debug)]
pub struct ChildPlan {
    /// The start itself fails.
    pub spawn_failure: Option<SpawnFailure>,
    /// Lines on stderr, with the time of each.
    pub stderr: Vec<(Duration, String)>,
    /// When the port is bound; `None` is never. Default at once.
    pub listen_after: Option<Duration>,
    /// The gateway that then serves. Port and, unless [`own_token`](Self::own_token) is set, token come from the launch.
    pub gateway: FakeGatewayConfig,
    /// Keep the token of [`gateway`](Self::gateway), as when the configuration file has one.
    pub own_token: bool,
    /// The child ends by itself: when, exit code, signal.
    pub exit: Option<(Duration, Option<i32>, Option<i32>)>,
    /// The gateway stops answering this long after the spawn; the process lives. A process that is wedged altogether
    /// also [`ignores`](AskPlan::Ignores) being asked to end.
    pub stall_after: Option<Duration>,
    /// It uses the processor all the time, as a gateway does whose event loop is blocked by work.
    pub busy: bool,
    /// How it takes being asked to end.
    pub ask: AskPlan,
    /// Not even force ends it, like a process stuck in the kernel.
    pub unkillable: bool,
    /// Processes of its group that were left over at the end.
    pub leftovers: Vec<u32>,
}

impl Default for ChildPlan {
    fn default() -> Self {
        Self {
            spawn_failure: None,
            stderr: Vec::new(),
            listen_after: Some(Duration::ZERO),
            gateway: FakeGatewayConfig::new(Vintage::default()),
            own_token: false,
            exit: None,
            stall_after: None,
            busy: false,
            ask: AskPlan::Obeys {
                after: Duration::from_millis(100),
                code: 0,
            },
            unkillable: false,
            leftovers: Vec::new(),
        }
    }
}

impl ChildPlan {
    /// Sets the release.
    #[must_use]
    pub fn vintage(mut self, vintage: Vintage) -> Self {
        self.gateway = FakeGatewayConfig::new(vintage);
        self
    }

    /// Ends by itself with that code.
    #[must_use]
    pub fn exits_after(mut self, after: Duration, code: i32) -> Self {
        self.exit = Some((after, Some(code), None));
        self
    }

    /// Is ended by that signal from outside.
    #[must_use]
    pub fn killed_after(mut self, after: Duration, signal: i32) -> Self {
        self.exit = Some((after, None, Some(signal)));
        self
    }

    /// Binds its port that long after the spawn.
    #[must_use]
    pub fn listens_after(mut self, after: Duration) -> Self {
        self.listen_after = Some(after);
        self
    }

    /// Says "starting" that long after it bound its port.
    #[must_use]
    pub fn ready_after(mut self, after: Duration) -> Self {
        self.gateway.ready_after = after;
        self
    }

    /// Never binds its port.
    #[must_use]
    pub fn never_listens(mut self) -> Self {
        self.listen_after = None;
        self
    }

    /// Takes no notice of being asked to end.
    #[must_use]
    pub fn ignores_ask(mut self) -> Self {
        self.ask = AskPlan::Ignores;
        self
    }

    /// Prints a line on stderr.
    #[must_use]
    pub fn says(mut self, after: Duration, line: impl Into<String>) -> Self {
        self.stderr.push((after, line.into()));
        self
    }
}

/// One run of a program that is not a gateway, for example the doctor.
#[derive(Clone, Default)]
pub struct RunPlan {
    /// How long it takes.
    pub takes: Duration,
    /// Its exit code.
    pub code: i32,
    /// Lines on stderr.
    pub stderr: Vec<String>,
    /// What it does just before it ends, for example to a configuration file.
    pub effect: Option<Arc<RunEffect>>,
}

/// What a planned run does to the world.
pub type RunEffect = dyn Fn(&LaunchSpec) + Send + Sync;

impl fmt::Debug for RunPlan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RunPlan")
            .field("takes", &self.takes)
            .field("code", &self.code)
            .field("stderr", &self.stderr)
            .field("effect", &self.effect.is_some())
            .finish()
    }
}
