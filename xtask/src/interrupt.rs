//! Ctrl-C and SIGTERM as a flag that the loops of this program look at.
//!
//! Children run in process groups of their own, so that a row can be ended as a whole; the terminal's Ctrl-C
//! therefore does not reach them. The flag lets the loop that waits for the child end it first. A second Ctrl-C ends
//! this program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether somebody asked this program to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over SIGINT and SIGTERM.
    pub(crate) fn install() -> Result<Self, String> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // Registered first and conditional on the flag: it acts from the second signal on.
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupt.0))
                .and_then(|_| flag::register(signal, Arc::clone(&interrupt.0)))
                .map_err(|error| format!("cannot watch for signal {signal}: {error}"))?;
        }
        Ok(interrupt)
    }

    /// True once the first signal has arrived.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An interrupt that a test raises itself.
    #[cfg(test)]
    pub(crate) fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
