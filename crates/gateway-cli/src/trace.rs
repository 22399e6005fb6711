//! gatewayctl's own log, on standard error and only on demand.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Whether a filter can be used.
pub(crate) fn check(filter: &str) -> Result<(), &'static str> {
    match EnvFilter::try_new(filter) {
        Ok(_) => Ok(()),
        Err(_) => Err(
            "the filter of '--log' is not understood; use a level (error, warn, info, debug, trace) or target=level pairs such as gateway_manager=debug",
        ),
    }
}

/// Begins to log. The filter has been checked.
pub(crate) fn begin(filter: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
