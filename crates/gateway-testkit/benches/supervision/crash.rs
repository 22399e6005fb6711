//! How long a gateway is away when its process crashes, as a multiple of what its start alone takes.

use std::time::{Duration, Instant};

use gateway_testkit::child::StartScript;
use rustix::process::Signal;

use crate::figure::{Figure, Limit, median};
use crate::supervised::{Home, milliseconds, runtime, serving, signal};

const SAMPLES: usize = 15;

/// How long a session lasts before it crashes, and what the manager is told to call stable.
const STABLE_AFTER: Duration = Duration::from_millis(50);

pub(crate) fn run() {
    let mut home = Home::new(StartScript::default());
    home.lifecycle.reconnect.stable_after = STABLE_AFTER;
    crash("crash-to-running", &home, Some(Limit::AtMost(3.0)));
    home.lifecycle.reconnect.base_delay = Duration::ZERO;
    crash(
        "crash-to-running-without-back-off",
        &home,
        Some(Limit::AtMost(3.0)),
    );
}

fn crash(name: &'static str, home: &Home, limit: Option<Limit>) {
    let runtime = runtime();
    let (mut floors, mut times) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let (mut bare, floor) = home.bare();
        bare.kill().expect("it can be killed");
        bare.wait().expect("it ends");
        floors.push(milliseconds(floor));
        times.push(milliseconds(runtime.block_on(one_crash(home))));
    }
    let floor = median(&floors);
    Figure {
        name,
        unit: "x",
        samples: times.iter().map(|time| time / floor).collect(),
        limit,
        robust: false,
        note: format!(
            "from the kill to the next authenticated session {:.1} ms; from the bare start to an open port {floor:.1} ms",
            median(&times)
        ),
    }
    .print();
}

async fn one_crash(home: &Home) -> Duration {
    let manager = home.manager();
    manager.start().await.expect("it starts");
    let pid = serving(&manager, None).await;
    tokio::time::sleep(3 * STABLE_AFTER).await;
    let begin = Instant::now();
    signal(pid, Signal::KILL);
    serving(&manager, Some(pid)).await;
    let took = begin.elapsed();
    manager.stop().await.expect("it stops");
    took
}
