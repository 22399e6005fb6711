//! A scripted OpenClaw Gateway, process host and transport to test supervisors and clients against.

pub mod fake_gateway;

pub use fake_gateway::{FakeGateway, FakeGatewayConfig, FakeGatewayFaults, Vintage};
