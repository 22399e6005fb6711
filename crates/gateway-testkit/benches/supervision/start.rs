//! How long after a gateway would first have said hello the manager has a session.

use std::time::{Duration, Instant};

use gateway_client::{ConnectOptions, Connection, Credentials, Endpoint, WebSocketTransport};
use gateway_manager::{GatewayManager, GatewayManagerBuilder, OpenClaw, PortChoice};
use gateway_process::Environment;
use gateway_process::node::NODE_VERSION_DEADLINE;
use gateway_testkit::child::StartScript;
use tempfile::TempDir;

use crate::figure::{Figure, Limit, median};
use crate::supervised::{Home, PATIENCE, TOKEN, milliseconds, runtime};

const SAMPLES: usize = 9;
const SAMPLES_OF_A_REAL_GATEWAY: usize = 3;

/// An installed OpenClaw, for the figure that needs one. `cargo xtask bench` sets it when there is one.
const PROJECT_VARIABLE: &str = "OPENCLAW_TEST_PROJECT";

/// How often the second client asks.
const ASK_EVERY: Duration = Duration::from_millis(2);

pub(crate) fn run() {
    let runtime = runtime();
    // Times that no poll divides evenly.
    let homes = (0..SAMPLES as u64).map(|n| {
        Home::new(StartScript {
            listen_after_ms: 150 + 13 * n,
            ..StartScript::default()
        })
    });
    let homes: Vec<Home> = homes.collect();
    let builders = homes.iter().map(Home::builder);
    report(
        "start-over-own-readiness",
        runtime.block_on(measure(builders)),
    );

    let announcing = (0..SAMPLES as u64).map(|n| {
        Home::new(StartScript {
            ready_after_ms: 150 + 137 * n,
            ..StartScript::default()
        })
    });
    let homes: Vec<Home> = announcing.collect();
    let builders = homes.iter().map(Home::builder);
    report(
        "announced-start-over-own-readiness",
        runtime.block_on(measure(builders)),
    );

    if let Some(project) = std::env::var_os(PROJECT_VARIABLE) {
        let times = runtime.block_on(async {
            let found = OpenClaw::from_directory(&project, NODE_VERSION_DEADLINE).await;
            let openclaw = found.expect("an installed OpenClaw with a suitable Node");
            let dirs: Vec<TempDir> = (0..SAMPLES_OF_A_REAL_GATEWAY)
                .map(|_| TempDir::new().expect("a temporary directory"))
                .collect();
            let builders = dirs.iter().map(|dir| {
                let mut environment = Environment::empty();
                for name in ["PATH", "TMPDIR", "LANG"] {
                    if let Some(value) = std::env::var_os(name) {
                        environment.set(name, value);
                    }
                }
                GatewayManager::builder()
                    .openclaw(openclaw.clone())
                    .environment(environment)
                    .home(dir.path())
                    .state_dir(dir.path().join("state"))
                    .port(PortChoice::Free)
                    .token(TOKEN)
            });
            measure(builders).await
        });
        report("real-start-over-own-readiness", times);
    }
}

/// When the manager had its session and when the second client was first let in, from the start in milliseconds.
async fn measure(builders: impl Iterator<Item = GatewayManagerBuilder>) -> Vec<(f64, f64)> {
    let mut times = Vec::new();
    for builder in builders {
        let manager = builder.build().expect("settings that fit together");
        let begin = Instant::now();
        let asking = tokio::spawn(first_hello(manager.clone(), begin));
        let started = tokio::time::timeout(PATIENCE, manager.start()).await;
        let managed = milliseconds(begin.elapsed());
        started.expect("it starts in time").expect("it starts");
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        let asked = asked
            .expect("somebody is let in")
            .expect("it does not panic");
        times.push((managed, milliseconds(asked)));
        manager.stop().await.expect("it stops");
    }
    times
}

/// Asks again and again until the gateway says hello.
async fn first_hello(manager: GatewayManager, begin: Instant) -> Duration {
    let transport = WebSocketTransport::new();
    loop {
        if let Some(port) = manager.port() {
            let options = ConnectOptions::new(Credentials::token(TOKEN));
            if Connection::open(&transport, &Endpoint::loopback(port), options)
                .await
                .is_ok()
            {
                return begin.elapsed();
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn report(name: &'static str, times: Vec<(f64, f64)>) {
    let (managed, asked): (Vec<f64>, Vec<f64>) = times.iter().copied().unzip();
    Figure {
        name,
        unit: "ms",
        samples: times.iter().map(|(managed, asked)| managed - asked).collect(),
        limit: Some(Limit::AtMost(60.0)),
        robust: false,
        note: format!(
            "from start() to the session {:.0} ms; until a client that asks every {} ms was let in {:.0} ms",
            median(&managed),
            ASK_EVERY.as_millis(),
            median(&asked)
        ),
    }
    .print();
}
