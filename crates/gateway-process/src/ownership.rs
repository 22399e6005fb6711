//! The right to signal a process.
//!
//! A process id is a number that the operating system gives away again. So this crate sends signals through an [`Owned`] value
//! only, and the only thing that makes one is the handle of a child that we started ourselves.
//!
//! # Why no signal can reach a stranger (Unix)
//!
//! A process id, and the id of a process group, stays taken as long as a process or zombie carries it. Our child leads its
//! group, and it is a zombie from its exit until we collect its status. Nobody collects it behind our back: [`Owned`] holds the only
//! handle, and it is never waited for in a way that collects. [`ExitWatch`] learns of the exit through a pidfd (elsewhere through
//! `SIGCHLD` and `waitid` with `WNOWAIT`), which leaves the zombie in place. Then the rest of the group is killed, *while the
//! zombie still holds the number*, and only then the status is collected. Signalling and collecting exclude each other by a lock,
//! and after collecting every signal is a no-op.
//!
//! `SIGKILL` to a group reaches every member at once, and a member that is just forking cannot slip away: the kernel starts no
//! child of a process with a pending signal. What can leave the group is a descendant that makes a session of its own; that is
//! beyond this mechanism, and such a process is no longer signalled by it.
//!
//! On Windows the job object plays the part of the group, and its handle that of the zombie.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::{ExitWatch, Owned, Started};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::{ExitWatch, Owned, Started};
