#![doc = include_str!("../README.md")]

pub mod child;
pub mod fake_gateway;
pub mod fault_proxy;
pub mod scripted;

pub use fake_gateway::{FakeGateway, FakeGatewayConfig, FakeGatewayFaults, Vintage};
pub use fault_proxy::FaultProxy;

/// The examples of the workspace's README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct WorkspaceReadme;
