#![doc = include_str!("../README.md")]

pub mod env;
pub mod exit;
pub mod host;
pub mod lines;
pub mod output;
pub mod ports;
pub mod pump;
mod redact;
pub mod run;
pub mod spec;
pub mod terminate;

pub use env::Environment;
pub use exit::{ChildExit, ExitReason, TerminationReason};
pub use gateway_policy::stderr::StderrLevel;
pub use host::{ManagedChild, ProcessHost};
#[cfg(feature = "mock")]
pub use host::{MockManagedChild, MockProcessHost};
pub use output::{OutputEvent, OutputLine, OutputSender, OutputSource, OutputStream};
pub use ports::{PortError, PortOwner};
pub use run::{RunError, RunReport};
pub use spec::{LaunchSpec, SpawnError};
pub use terminate::{TerminateError, Termination};
