#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod builder;
mod causes;
mod driver;
pub mod error;
pub mod events;
pub mod handle;
pub mod health;
pub mod hooks;
mod journal;
mod launch;
mod output;
mod services;

pub use builder::{GatewayManagerBuilder, PortChoice};
pub use error::{BuildError, ManagerError};
pub use events::{EventSubscription, GatewayEvent};
pub use gateway_client::{CallOptions, RpcError};
pub use gateway_policy::duplicates::Repeats;
pub use gateway_policy::lifecycle::{AttachMode, LifecycleConfig};
pub use gateway_policy::startup_trace::{StartupStep, StartupSummary};
pub use gateway_policy::status::{GatewayState, GatewayStatus, Phase};
pub use gateway_policy::{ConfigProblem, Failure, FailureClass, Journal, JournalEntry};
pub use gateway_process::terminate::EndingStage;
pub use gateway_process::{OpenClaw, OutputLogConfig, OwnerDeath, StopMode};
pub use handle::GatewayManager;
pub use health::Health;
pub use hooks::{HookError, LaunchContext, PreparationHook};
pub use journal::{JOURNAL_BYTES, JOURNAL_ENTRIES};
