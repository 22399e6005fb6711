//! The crate against real processes: small shell scripts with known behaviour.
#![cfg(unix)]

mod endings;
mod launching;
#[cfg(feature = "mock")]
mod mock;
mod openclaw;
mod output;
mod repair;
mod support;
