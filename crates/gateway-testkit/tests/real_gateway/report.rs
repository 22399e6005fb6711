//! What is printed: one line for each step, and a summary when all scenarios have passed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::installation;

/// From the launch of a gateway to its hello. The slowest cold start seen took 43 s; this one shares its machine with a compiler.
pub(crate) const BOOT: Duration = Duration::from_secs(120);

/// A failed launch, a doctor and a second launch.
pub(crate) const REPAIR: Duration = Duration::from_secs(300);

/// Anything that a running gateway answers.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);

/// The end of a gateway that was asked to end, or forced.
pub(crate) const STOP: Duration = Duration::from_secs(30);

/// The longest scenario is far shorter.
const SCENARIO: Duration = Duration::from_secs(600);

/// Runs a step within its limit and prints how long it took.
pub(crate) async fn step<T>(name: &str, limit: Duration, work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let Ok(result) = timeout(limit, work).await else {
        panic!("{name}: not done within {} s", limit.as_secs());
    };
    took(name, started.elapsed());
    result
}

/// Prints a time that somebody else measured.
pub(crate) fn took(what: &str, time: Duration) {
    line(what, &format!("{:.3} s", time.as_secs_f64()));
}

/// Prints that a step cannot be made on this machine, and why.
pub(crate) fn skipped(what: &str, why: &str) {
    line(what, &format!("skipped: {why}"));
}

fn line(what: &str, result: &str) {
    println!("real-gateway {}: {what}: {result}", installation::version());
}

/// Runs a scenario; the last of `all` to pass prints the summary.
pub(crate) async fn scenario(all: usize, work: impl Future<Output = ()>) {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    static PASSED: AtomicUsize = AtomicUsize::new(0);
    let began = *BEGAN.get_or_init(Instant::now);
    // The test harness has printed the name of the test and no line break.
    println!();
    let Ok(()) = timeout(SCENARIO, work).await else {
        panic!("not done within {} s", SCENARIO.as_secs());
    };
    if PASSED.fetch_add(1, Ordering::SeqCst) + 1 == all {
        took(&format!("all {all} scenarios"), began.elapsed());
    }
}
