//! Numbers of the protocol: sizes, deadlines and intervals.
//!
//! The values were read from running gateways of the versions 2026.3.2 (protocol 3), 2026.6.11 and
//! 2026.9.6 (protocol 4). A gateway announces its own values in [`Policy`](crate::Policy); the constants
//! here serve before that announcement and where it is missing.

/// TCP port a gateway listens on when nobody says otherwise.
pub const DEFAULT_PORT: u16 = 18_789;

/// Largest frame, in bytes, that protocol 4 accepts before the handshake is finished.
///
/// One byte more is answered with close 1009 and no reply. Gateways of protocol 3 have no such limit.
pub const PRE_AUTH_MAX_BYTES: usize = 65_536;

/// Largest frame, in bytes, after the handshake: `policy.maxPayload` of every version seen (25 MiB).
///
/// It is valid in both directions: a client whose own limit is lower loses its connection on a large reply.
pub const DEFAULT_MAX_PAYLOAD: u64 = 26_214_400;

/// Bytes a gateway buffers for a slow reader before it drops the connection:
/// `policy.maxBufferedBytes` of every version seen (50 MiB).
pub const DEFAULT_MAX_BUFFERED: u64 = 52_428_800;

/// Milliseconds between two `tick` events: `policy.tickIntervalMs` of every version seen.
pub const DEFAULT_TICK_INTERVAL_MS: u64 = 30_000;

/// Milliseconds after which a gateway of protocol 4 closes a socket without a good `connect`.
pub const SERVER_HANDSHAKE_TIMEOUT_MS: u64 = 15_000;

/// The same deadline in gateways of protocol 3.
pub const SERVER_HANDSHAKE_TIMEOUT_V3_MS: u64 = 10_000;

/// Milliseconds that `device.signedAt` may differ from the gateway's clock, either way.
pub const SIGNED_AT_TOLERANCE_MS: u64 = 120_000;

/// Unauthenticated sockets that a gateway of protocol 4 keeps for one address; the next upgrade gets HTTP 503.
pub const MAX_UNAUTHENTICATED_SOCKETS: usize = 32;

/// Milliseconds between two WebSocket pings sent by a gateway of protocol 4. Protocol 3 sends none.
pub const SERVER_PING_INTERVAL_MS: u64 = 25_000;

/// Characters that the `traceparent` field of a request may have.
pub const MAX_TRACEPARENT: usize = 128;

/// Bytes of the reason in a WebSocket close frame (RFC 6455, section 5.5: 125 less the code).
pub const MAX_CLOSE_REASON_BYTES: usize = 123;

/// Fields that one open JSON object (a frame, a hello, an error) may have before decoding refuses it.
///
/// The widest object of the protocol has about twenty. The bound keeps a frame of nothing but field names
/// from taking many times its size in memory.
pub const MAX_OBJECT_FIELDS: usize = 1_024;
