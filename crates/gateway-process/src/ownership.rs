//! The right to signal a process, and the proof that it takes.
//!
//! A process id is a number that the operating system gives away again. So this crate sends signals through an [`Owned`] value only, and
//! two things make one: the handle of a child that we started ourselves, and the proof that a survivor of an earlier start is ours.
//! There is no other way to get one, and no function that takes a number:
//!
//! ```compile_fail
//! use gateway_process::ownership::Owned;
//! fn end(pid: u32) -> std::io::Result<()> {
//!     Owned { pid }.ask()
//! }
//! ```
//! ```compile_fail
//! use gateway_process::ownership::Owned;
//! fn end(pid: u32) -> std::io::Result<()> {
//!     Owned::from(pid).ask()
//! }
//! ```
//! With one in hand it is as short as that:
//! ```
//! use gateway_process::ownership::Owned;
//! fn end(process: &Owned) -> std::io::Result<()> {
//!     process.ask()
//! }
//! ```
//!
//! # Why no signal can reach a stranger (Unix)
//!
//! *Our child.* A process id, and the id of a process group, stays taken as long as a process or zombie carries it. Our child leads its
//! group, and it is a zombie from its exit until we collect its status. Nobody collects it behind our back: [`Owned`] holds the only
//! handle, and it is never waited for in a way that collects. The exit is learned through a pidfd (elsewhere through `SIGCHLD` and
//! `waitid` with `WNOWAIT`), which leaves the zombie in place. Then the rest of the group is killed, *while the zombie still holds the
//! number*, and only then the status is collected. Signalling and collecting exclude each other by a lock, and after collecting every
//! signal to it is a no-op.
//!
//! *Its descendants.* `SIGKILL` to a group reaches every member at once. A descendant may leave the group by making a session of its own
//! (a daemon does). On Linux every process of a launch carries the [`LaunchSign`] of the launch in its environment; those that do are
//! found, and each is signalled through a pidfd that was opened *before* it was looked at.
//!
//! *A survivor.* A [`Claim`] keeps a record of the launch on disk, under a lock that the kernel releases with its owner's death. Whoever
//! claims the same instance next compares three things: the record, the operating system's view of the process (number, start time,
//! this run of the machine), and the sign in the process's own environment. All of them fit, or the process is somebody else's.
//! (Linux. Elsewhere a child ends with its owner, or is left alone.)
//!
//! On Windows the job object plays the part of the group, and its handle that of the zombie.

mod claim;
#[cfg(target_os = "linux")]
pub(crate) mod lineage;
#[cfg(target_os = "linux")]
pub(crate) mod linux;
mod record;
#[cfg(all(test, target_os = "linux"))]
mod simulated;

#[cfg(target_os = "linux")]
pub(crate) mod table;

pub(crate) use claim::private;
pub use claim::{Claim, ClaimError, ClaimStore};
pub(crate) use record::RECORD_VERSION;
pub use record::{LAUNCH_SIGN, LaunchFingerprint, LaunchSign, OwnershipRecord, ProcessIdentity};

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::Owned;
#[cfg(unix)]
pub(crate) use unix::{ExitWatch, Started};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::Owned;
#[cfg(windows)]
pub(crate) use windows::{ExitWatch, Started};

/// How a child comes into the world.
#[derive(Clone, Debug)]
pub(crate) struct Birth {
    /// What it and all its descendants carry.
    pub(crate) sign: LaunchSign,
    /// Whether it is to outlive its owner.
    pub(crate) survives: bool,
}
