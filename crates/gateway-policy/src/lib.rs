#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod backoff;
pub mod budget;
mod config;
pub mod duplicates;
pub mod epoch;
pub mod failure;
pub mod journal;
pub mod lifecycle;
pub mod liveness;
pub mod readiness;
pub mod repair;
pub mod restart;
pub mod startup_trace;
pub mod status;
pub mod stderr;
mod time;

pub use backoff::{ReconnectConfig, ReconnectDecision};
pub use config::ConfigProblem;
pub use epoch::Epoch;
pub use failure::{Failure, FailureClass};
pub use journal::{Journal, JournalEntry, Trigger};
pub use lifecycle::{Effect, Input, Lifecycle, LifecycleConfig, Observation, Rule};
pub use status::{GatewayState, GatewayStatus, Phase};
pub use stderr::StderrLevel;
pub use time::Time;
