#![no_std]
#![doc = include_str!("../README.md")]
//!
//! # Map of the crate
//!
//! | module | what it holds |
//! |---|---|
//! | [`frame`] | the envelope: [`Frame`], [`Request`], [`Response`], [`EventFrame`], and the [`Payload`] kept as raw JSON |
//! | [`handshake`] | [`Challenge`], [`ConnectParams`] and the closed lists they use |
//! | [`hello`] | [`HelloOk`], the answer that ends the handshake |
//! | [`event`] | names of events, and the payloads a client must understand itself |
//! | [`error`] | [`ErrorShape`] sent by a gateway, [`DecodeError`] and [`EncodeError`] of this crate |
//! | [`device`] | the text a device signs |
//! | [`close`] | WebSocket close codes |
//! | [`limits`] | numbers both sides agree on |
//! | [`jsonrpc`] | the JSON-RPC 2.0 messages of older gateways and plug-ins |

extern crate alloc;

pub mod close;
pub mod device;
pub mod error;
pub mod event;
mod extra;
pub mod frame;
pub mod handshake;
pub mod hello;
mod json;
pub mod jsonrpc;
pub mod limits;
mod payload;
mod request_id;
mod scan;
mod sensitive;

pub use close::CloseCode;
pub use device::{DeviceAuthPayload, DevicePayloadVersion};
pub use error::{DecodeError, EncodeError, ErrorCode, ErrorShape};
pub use event::{Shutdown, StateVersion, Tick};
pub use extra::Extra;
pub use frame::{EventFrame, Frame, Request, Response, ResponseOutcome};
pub use handshake::{
    Challenge, ClientId, ClientInfo, ClientMode, ConnectAuth, ConnectParams, DeviceProof,
    ProtocolRange, Role, scope,
};
pub use hello::{Features, HelloAuth, HelloOk, Policy, ServerInfo, Snapshot};
pub use payload::Payload;
pub use request_id::RequestId;
pub use sensitive::Sensitive;
