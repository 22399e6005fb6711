//! What is written down about a launch, so that a later process can prove that a survivor of it is ours.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The environment variable in which every child, and whatever it starts, carries the [`LaunchSign`] of its launch.
pub const LAUNCH_SIGN: &str = "GATEWAY_PROCESS_LAUNCH";

/// The version of the record that this crate writes, and the newest that it reads.
pub(crate) const RECORD_VERSION: u32 = 1;

/// Tells the processes of one launch from all others: 128 random bits in hexadecimal. It is no secret, but nobody can guess it, and it
/// stands in the environment of the child and so in that of all its descendants, whatever groups and sessions they make.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaunchSign(String);

impl LaunchSign {
    /// A new one, from the operating system's randomness.
    pub(crate) fn random() -> std::io::Result<Self> {
        let mut bytes = [0_u8; 16];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    /// The text in the environment.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// One process, told apart from all that had its number before and will have it after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessIdentity {
    /// Its number.
    pub pid: u32,
    /// When it started, in the kernel's ticks since the machine was switched on.
    pub started: u64,
    /// The program it ran when it was launched.
    pub executable: Option<PathBuf>,
}

/// Two launches with equal fingerprints start the same thing: SHA-256 in hexadecimal over the program, its arguments, its working
/// directory and what was set in its environment. What the environment merely inherited is left out, for it differs from one login to
/// the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LaunchFingerprint(pub(crate) String);

impl fmt::Display for LaunchFingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.get(..12).unwrap_or(&self.0))
    }
}

/// What is known about a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnershipRecord {
    pub(crate) version: u32,
    /// The sign that every process of the launch carries.
    pub sign: LaunchSign,
    /// Which run of the machine the start times are about.
    pub boot: String,
    /// The process that was started; `None` when whoever wrote this died before it could say which.
    pub leader: Option<ProcessIdentity>,
    /// What was launched.
    pub fingerprint: LaunchFingerprint,
    /// The TCP port that it is to serve.
    pub port: Option<u16>,
    /// Whether the child was started so that it outlives its owner, with its output in files.
    pub survives: bool,
}
