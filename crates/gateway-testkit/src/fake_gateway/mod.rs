//! A gateway without the gateway: a real server on a real port that answers like OpenClaw does.
//!
//! The fake follows recorded sessions of two OpenClaw releases, chosen with [`Vintage`]: the order of the handshake
//! checks, error codes, messages, details, close codes, the shape of the first answer, the events and the way a stop
//! looks from outside. `tests/conformance.rs` replays the recordings and compares.
//!
//! It deliberately shares no encoding code with the client crates: a mistake in shared code would cancel itself out.
//!
//! Methods whose name begins with `test.` do not exist in OpenClaw. They let a test ask for a particular answer:
//!
//! | method | answer |
//! |---|---|
//! | `test.echo` | the params, unchanged |
//! | `test.large {bytes}` | an object whose `data` has that many bytes |
//! | `test.delay {ms, payload?}` | `payload`, after that many milliseconds; other calls overtake it |
//! | `test.silent` | none |
//! | `test.events {count, bytes?}` | `count` events `test.event`, each with about `bytes` bytes, then `{"count":…}` |
//! | `test.fail {code, message, details?, retryable?, retryAfterMs?}` | that error |
//! | `test.raw {text}` | the text as a frame of its own, then `{}` |
//! | `test.close {code, reason?}` | no answer; the socket is closed with that code |
//! | `test.drop` | no answer; the TCP connection is cut without a close frame |
//!
//! # Limits
//!
//! One agent, no channels, no plugins. The configuration file is read as strict JSON. `--auth none`, TLS and the web UI
//! are not there.

mod admission;
mod configuration;
mod content;
mod device;
mod event;
mod http;
mod methods;
mod options;
mod schema;
mod server;
mod session;
mod state;
mod wire;

pub use configuration::{ConfigProblem, check_configuration};
pub(crate) use configuration::{ROOT_KEYS, lookup};
pub use options::{
    ChallengeFault, FakeGatewayConfig, FakeGatewayError, FakeGatewayFaults, FixedChallenge,
    LogHook, PairedDevice, Refusal, Vintage,
};
pub use server::{FakeGateway, StopOutcome};
pub(crate) use state::random_token;
pub use state::{FakeGatewayStatistics, Phase};
