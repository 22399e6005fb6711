//! Helpers of the tests.
#![allow(dead_code, unreachable_pub, reason = "every test uses another part")]

pub mod client;
pub mod transcripts;
