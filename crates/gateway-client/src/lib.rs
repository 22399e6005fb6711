#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! From the wire up: `endpoint`, `transport` (the traits) with `upgrade` and `websocket` (the real one),
//! `handshake`, `requests` (the table of pending calls), `socket` (the task that owns a connection), `connection`,
//! `events`, `rpc`; beside them `identity`, `credentials`, `probe`, and `client` on top.

mod client;
mod connection;
mod credentials;
mod endpoint;
mod error;
mod events;
mod handshake;
mod identity;
mod options;
mod private_file;
mod probe;
mod requests;
mod rpc;
mod socket;
mod transport;
mod upgrade;
mod websocket;

pub use client::{GatewayClient, GatewayClientBuilder};
pub use connection::{Connection, ConnectionStatistics, DisconnectCause, Disconnected};
pub use credentials::{
    CredentialError, CredentialSource, CredentialStore, Credentials, DeviceToken,
    FileCredentialStore,
};
pub use endpoint::{Endpoint, EndpointError, Host};
pub use error::{ConnectError, HandshakeStage};
pub use events::{DEFAULT_EVENT_QUEUE, Delivery, EventStream, IncomingFrame};
pub use identity::{DeviceIdentity, IdentityError, IdentityOrigin};
pub use options::{
    ConnectOptions, DEFAULT_CHALLENGE_TIMEOUT, DEFAULT_COMMAND_QUEUE, DEFAULT_HANDSHAKE_TIMEOUT,
};
pub use probe::{PROBE_DEADLINE, ProbeOutcome, probe_challenge};
pub use rpc::{CallOptions, CallOutcome, DEFAULT_CALL_TIMEOUT, RpcError};
pub use transport::{
    DEFAULT_MAX_MESSAGE_BYTES, FrameSink, FrameStream, HandshakeProgress, ProgressListener,
    Transport, TransportError, TransportErrorKind, TransportMessage, TransportOptions,
    TransportPair,
};
pub use websocket::WebSocketTransport;

#[cfg(feature = "mock")]
pub use credentials::{MockCredentialSource, MockCredentialStore};
#[cfg(feature = "mock")]
pub use transport::{MockFrameSink, MockFrameStream, MockTransport};
