//! The whole stack, from the manager down to sockets and processes, against a real OpenClaw.
//!
//! `cargo xtask test --row real-gateway-2026.9.6` (or `…-2026.3.2`) installs OpenClaw and the Node it needs under `target/`, then runs this
//! program with the two environment variables that [`installation`] reads. Every step prints how long it took.
//!
//! Each scenario has a home, a state directory, a port and a token of its own, and nothing of the surrounding OpenClaw, if there is one,
//! shines through. Linux only: it looks for left-over processes in `/proc`.

#![cfg(target_os = "linux")]

mod installation;
mod processes;
mod report;
mod sandbox;
mod scenarios;
mod supervised;

/// No scenario: the manager that is killed in one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manager() {
    scenarios::survivor::manager().await;
}

/// One test for each scenario, and their number for the summary.
macro_rules! scenarios {
    ($($name:ident,)*) => {
        const SCENARIOS: usize = [$(stringify!($name)),*].len();
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                report::scenario(SCENARIOS, scenarios::$name::run()).await;
            }
        )*
    };
}

scenarios! {
    broken_configuration,
    cold_start,
    configured_token,
    crash_and_restart,
    drain,
    foreign_listener,
    halted,
    launcher,
    neighbours,
    old_node,
    prepared_launch,
    survivor,
    unparseable_configuration,
}
