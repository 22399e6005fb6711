//! A machine that exists only in memory: processes, ports and sockets under a clock that the test moves.
//!
//! [`Machine`] is the world. [`Machine::host`] gives a [`ProcessHost`](gateway_process::ProcessHost) whose children follow
//! a [`ChildPlan`], [`Machine::transport`] a [`Transport`](gateway_client::Transport) that reaches what these children
//! (or foreign programs) have on their ports. A planned gateway is a [`FakeGateway`](crate::FakeGateway) in memory, so
//! handshake, methods, events, shutdown notices and faults are those of the releases.
//!
//! Under tokio's paused clock a run takes no real time and happens in the same order every time.
//!
//! Everything that happens is recorded ([`Machine::records`]), and some things must never happen
//! ([`Machine::violations`]): more living children than allowed, or a repair beside a living gateway.
//!
//! ```
//! use std::time::Duration;
//! use gateway_process::{Environment, LaunchSpec, ProcessHost, Termination, TerminationReason};
//! use gateway_testkit::scripted::{ChildPlan, Machine};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let machine = Machine::new();
//! machine.plan(ChildPlan::default().exits_after(Duration::from_secs(5), 1)); // the first start crashes
//! machine.plan(ChildPlan::default());                                        // every later one works
//!
//! let spec = LaunchSpec::new("openclaw", Environment::empty()).args(["gateway", "run", "--port", "18789"]);
//! let host = machine.host();
//! let first = host.spawn(&spec).await?;
//! assert_eq!(first.wait().await.code, Some(1));
//!
//! let second = host.spawn(&spec).await?;
//! let exit = second.terminate(Termination::new(TerminationReason::UserStop)).await?;
//! assert_eq!(exit.code, Some(0));
//! machine.assert_no_violations();
//! # Ok(())
//! # }
//! ```

mod child;
mod host;
mod machine;
mod plan;
mod record;
mod transport;

pub use host::ScriptedHost;
pub use machine::{Foreign, ForeignKind, Machine};
pub use plan::{AskPlan, ChildPlan, RunEffect, RunPlan, SpawnFailure};
pub use record::{Happening, Record};
pub use transport::ScriptedTransport;
