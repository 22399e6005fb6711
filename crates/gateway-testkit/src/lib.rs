#![doc = include_str!("../README.md")]

pub mod child;
pub mod fake_gateway;
pub mod fault_proxy;
pub mod scripted;

pub use fake_gateway::{FakeGateway, FakeGatewayConfig, FakeGatewayFaults, Vintage};
pub use fault_proxy::FaultProxy;
