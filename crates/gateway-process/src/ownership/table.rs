//! The process table as ownership sees it: looks by number, which may be of anybody, and handles, which are of one process for good.

use std::io;
use std::path::PathBuf;

use super::record::LaunchSign;

/// What one look at a process id shows. The number may have changed hands since; a [`ProcessTable::Handle`] that was opened before the
/// look and has not exited after it proves that it had not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// When it started, in the kernel's ticks since the machine was switched on.
    pub(crate) started: u64,
    /// The process group that it is in.
    pub(crate) group: u32,
    /// Dead, and only its number is still there.
    pub(crate) zombie: bool,
}

/// A signal of the two that this crate sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `SIGTERM`.
    Ask,
    /// `SIGKILL`.
    Force,
}

/// A list of processes that changes while it is read.
pub(crate) trait ProcessTable {
    /// Means one process from the moment it is opened, also after its number has gone to somebody else.
    type Handle;

    /// The numbers in use.
    fn pids(&self) -> io::Result<Vec<u32>>;

    /// A handle of whoever has the number now; `None` when nobody has it.
    fn open(&self, pid: u32) -> io::Result<Option<Self::Handle>>;

    /// How whoever has the number now looks; `None` when nobody has it.
    fn look(&self, pid: u32) -> Option<Sighting>;

    /// Whether whoever has the number now was started with this sign in its environment. What may not be read is no yes.
    fn bears(&self, pid: u32, sign: &LaunchSign) -> bool;

    /// The program that whoever has the number now runs.
    fn executable(&self, pid: u32) -> Option<PathBuf>;

    /// Whether the process has ended, collected or not.
    fn has_exited(&self, handle: &Self::Handle) -> bool;

    /// Signals the process; nothing happens when it has ended.
    fn signal(&self, handle: &Self::Handle, kind: Kind) -> io::Result<()>;
}
