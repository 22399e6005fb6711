//! What a stop takes beyond the time that the gateway itself needs to end.

use std::time::Instant;

use gateway_testkit::child::StartScript;
use rustix::process::Signal;

use crate::figure::{Figure, Limit, median};
use crate::supervised::{Home, milliseconds, runtime, signal};

const SAMPLES: usize = 15;

pub(crate) fn run() {
    let home = Home::new(StartScript {
        stop_delay_ms: 50,
        ..StartScript::default()
    });
    let runtime = runtime();
    let (mut bare_times, mut times) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let (mut bare, _) = home.bare();
        let begin = Instant::now();
        signal(bare.id(), Signal::TERM);
        bare.wait().expect("it ends");
        bare_times.push(milliseconds(begin.elapsed()));
        times.push(runtime.block_on(async {
            let manager = home.manager();
            manager.start().await.expect("it starts");
            let begin = Instant::now();
            manager.stop().await.expect("it stops");
            milliseconds(begin.elapsed())
        }));
    }
    let own = median(&bare_times);
    Figure {
        name: "stop-over-own-exit",
        unit: "ms",
        samples: times.iter().map(|time| time - own).collect(),
        limit: Some(Limit::AtMost(5.0)),
        robust: false,
        note: format!(
            "a stop with an open connection {:.1} ms; from SIGTERM to the collected exit without a supervisor {own:.1} ms",
            median(&times)
        ),
    }
    .print();
}
