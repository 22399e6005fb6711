//! The crate against real processes of Windows. The children are this very test program, started once more.
#![cfg(windows)]

mod child;
mod endings;
mod launching;
mod openclaw;
mod processes;
