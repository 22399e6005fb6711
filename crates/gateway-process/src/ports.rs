//! Who listens on a port, whether it can be bound, and finding a free one.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How long reading the operating system's socket table may take.
pub const PORT_TABLE_DEADLINE: Duration = Duration::from_secs(5);

/// A listening TCP socket and the process that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOwner {
    /// The process; `None` when the operating system does not tell us, as for a process of another user.
    pub pid: Option<u32>,
    /// Its executable's path, or its name when the path is hidden.
    pub program: Option<String>,
    /// The address it listens on.
    pub address: SocketAddr,
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.program, self.pid) {
            (Some(program), Some(pid)) => write!(f, "{program} (process {pid})")?,
            (None, Some(pid)) => write!(f, "process {pid}")?,
            (Some(program), None) => f.write_str(program)?,
            (None, None) => {
                f.write_str("a process that the system does not name (probably of another user)")?
            }
        }
        write!(f, " on {}", self.address)
    }
}

/// A question about a port has no answer. Never read this as "nobody is there".
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortError {
    /// The socket table could not be read.
    #[error(
        "cannot read who listens on port {port}: {message}; check that the socket table is readable (on Linux: /proc is mounted)"
    )]
    Unreadable {
        /// The port asked for.
        port: u16,
        /// The operating system's answer.
        message: String,
    },
    /// Reading the table took too long.
    #[error(
        "reading who listens on port {port} took longer than {deadline:?}; try again when the machine is less busy"
    )]
    TimedOut {
        /// The port asked for.
        port: u16,
        /// The time there was.
        deadline: Duration,
    },
}
