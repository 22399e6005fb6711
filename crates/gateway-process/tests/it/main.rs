//! The crate against real processes: small shell scripts with known behaviour.
#![cfg(unix)]

mod destruction;
mod endings;
mod environment;
mod incidents;
mod launching;
#[cfg(feature = "mock")]
mod mock;
mod node;
mod openclaw;
mod output;
#[cfg(target_os = "linux")]
mod ownership;
mod repair;
mod service;
mod support;
