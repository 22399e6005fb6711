//! A scripted OpenClaw Gateway, process host and transport to test supervisors and clients against.

pub mod child;
pub mod fake_gateway;
pub mod fault_proxy;
pub mod scripted;

pub use fake_gateway::{FakeGateway, FakeGatewayConfig, FakeGatewayFaults, Vintage};
pub use fault_proxy::FaultProxy;
