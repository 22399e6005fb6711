#![doc = include_str!("../README.md")]

mod civil_time;
pub mod embedding;
pub mod env;
pub mod exit;
mod follow;
pub mod host;
pub mod lines;
pub mod node;
pub mod node_options;
pub mod openclaw;
pub mod os;
pub mod output;
pub mod output_log;
pub mod ownership;
pub mod ports;
pub mod preload;
pub mod provider_keys;
pub mod proxy;
pub mod pump;
mod redact;
pub mod repair;
pub mod run;
pub mod service;
mod spawner;
pub mod spec;
pub mod state_dir;
pub mod terminate;
mod vitals;

pub use env::Environment;
pub use exit::{ChildExit, ExitReason, TerminationReason};
pub use gateway_policy::liveness::ProcessSample;
pub use gateway_policy::stderr::StderrLevel;
pub use host::{BlockingWork, ManagedChild, ProcessHost, Survivor};
#[cfg(feature = "mock")]
pub use host::{MockManagedChild, MockProcessHost};
pub use node::{NodeRange, NodeRuntime, NodeVersion};
pub use node_options::{NodeOptions, NodeOptionsError};
pub use openclaw::{GatewayLaunch, OpenClaw, OpenClawError, OpenClawPackage};
pub use os::OsProcessHost;
pub use output::{OutputCounts, OutputEvent, OutputLine, OutputSender, OutputSource, OutputStream};
pub use output_log::{OutputLog, OutputLogConfig, OutputLogError};
pub use ownership::{Claim, ClaimError, LaunchFingerprint, Owned};
pub use ports::{PortError, PortOwner};
pub use preload::{Preload, PreloadError};
pub use provider_keys::{ProviderKeyError, ProviderKeys};
pub use proxy::{ProxyError, ProxySettings};
pub use redact::Redactor;
pub use repair::{
    Aftermath, AttemptResult, ConfigChange, ConfigDiff, ConfigRepair, RefusalReason, RepairError,
    RepairOutcome, RepairVerdict,
};
pub use run::{RunError, RunLimits, RunReport};
pub use service::{CompetingService, Consent, Disabled, ServiceSearch};
pub use spec::{LaunchSpec, OwnerDeath, SpawnError};
pub use terminate::{Ending, EndingStage, StopMode, TerminateError, Termination};
