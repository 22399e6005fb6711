//! What a manager costs that has nothing to do: wake-ups and memory.

use std::collections::VecDeque;
use std::time::Duration;

use gateway_manager::{GatewayManager, JOURNAL_BYTES, JOURNAL_ENTRIES};
use gateway_policy::lifecycle::{ConnectionLoss, Look, ShutdownNotice};
use gateway_policy::status::{Phase, SessionFacts, Ticket};
use gateway_policy::{
    Effect, Failure, FailureClass, Input, Journal, Lifecycle, LifecycleConfig, Observation, Time,
    Trigger,
};
use gateway_testkit::child::StartScript;

use crate::figure::{Figure, Limit, memory};
use crate::supervised::{Home, runtime};

const GATEWAYS: usize = 100;

/// How long nothing happens.
const QUIET: Duration = Duration::from_secs(4);

/// When the timers of a start are over.
const SETTLED_AFTER: Duration = Duration::from_secs(12);

/// A gateway whose ticks, and with them the looks of its manager, lie far apart.
fn quiet_gateway() -> Home {
    Home::new(StartScript {
        tick_interval_ms: 3_600_000,
        ..StartScript::default()
    })
}

pub(crate) fn run() {
    let runtime = runtime();
    runtime.block_on(async {
        // What one manager brings along for all of them.
        let first = quiet_gateway();
        let warm = first.manager();
        warm.start().await.expect("it starts");
        let homes: Vec<Home> = (0..GATEWAYS).map(|_| quiet_gateway()).collect();
        let (before, _) = memory();
        let mut managers: Vec<GatewayManager> = Vec::new();
        for home in &homes {
            let manager = home.manager();
            manager.start().await.expect("it starts");
            managers.push(manager);
        }
        tokio::time::sleep(SETTLED_AFTER).await;
        let (after, _) = memory();
        Figure {
            name: "memory-per-gateway",
            unit: "KiB",
            samples: vec![after.saturating_sub(before) as f64 / GATEWAYS as f64],
            limit: Some(Limit::AtMost(256.0)),
            robust: true,
            note: format!("resident memory with {GATEWAYS} gateways that serve {after} KiB, without them {before} KiB"),
        }
        .print();

        let mut samples = Vec::new();
        for _ in 0..3 {
            let before = switches();
            tokio::time::sleep(QUIET).await;
            // The end of the sleep itself wakes a thread or two.
            let woken = switches().saturating_sub(before);
            samples.push(woken as f64 / QUIET.as_secs_f64() / (GATEWAYS + 1) as f64);
        }
        Figure {
            name: "idle-wake-ups",
            unit: "/s per gateway",
            samples,
            limit: Some(Limit::AtMost(0.02)),
            robust: true,
            note: format!(
                "voluntary context switches of all threads in {} s with {} gateways that are silent for an hour",
                QUIET.as_secs(),
                GATEWAYS + 1
            ),
        }
        .print();
        for manager in managers {
            manager.stop().await.expect("it stops");
        }
        warm.stop().await.expect("it stops");
    });
}

/// Journals that are full, as that of every manager is some day.
pub(crate) fn journals() {
    let (before, _) = memory();
    let journals: Vec<Journal> = (0..GATEWAYS).map(|_| full_journal()).collect();
    let (after, _) = memory();
    let entries = journals
        .iter()
        .map(|journal| journal.entries().count())
        .min();
    Figure {
        name: "memory-of-a-full-journal",
        unit: "KiB",
        samples: vec![after.saturating_sub(before) as f64 / GATEWAYS as f64],
        limit: Some(Limit::AtMost(112.0)),
        robust: true,
        note: format!(
            "{} entries of crashes and recoveries",
            entries.unwrap_or_default()
        ),
    }
    .print();
}

/// The journal of a gateway that crashes whenever it serves, with a cause that takes some lines to tell.
fn full_journal() -> Journal {
    let crash = || {
        let cause = "Gateway process exited (exit code 1): Error: connect ECONNREFUSED 127.0.0.1:11434 at TCPConnectWrap; ";
        Observation::Exited(Failure::new(FailureClass::Temporary, cause.repeat(4)))
    };
    let mut machine = Lifecycle::new(LifecycleConfig::default());
    let mut journal = Journal::new(&machine, JOURNAL_ENTRIES).within(JOURNAL_BYTES);
    let (mut now, mut tickets, mut child) = (Time::ZERO, 0, None);
    let mut inputs: VecDeque<Input> = VecDeque::new();
    for _ in 0..4 * JOURNAL_ENTRIES {
        let serves = machine.status().phase == Phase::Ready;
        let trigger = if let Some(input) = inputs.pop_front() {
            Trigger::Input(input)
        } else if let (true, Some(epoch)) = (serves, child.take()) {
            let observation = crash();
            Trigger::Input(Input::Observed { epoch, observation })
        } else if let Some(due) = machine.poll_timeout() {
            now = now.max(due);
            Trigger::Timeout
        } else {
            tickets += 1;
            Trigger::Input(Input::Start(Ticket::from_number(tickets)))
        };
        for effect in journal.advance(&mut machine, now, trigger) {
            let (epoch, observation) = match effect {
                Effect::Discover { epoch } => (epoch, Observation::PortFree),
                Effect::Prepare { epoch } => (epoch, Observation::Prepared),
                Effect::Spawn { epoch } => {
                    child = Some(epoch);
                    (epoch, Observation::Spawned { pid: 4711 })
                }
                Effect::Connect { epoch, .. } => {
                    let version = "2026.9.6".to_owned();
                    let facts = SessionFacts::new(4, version, Some(Duration::from_secs(30)));
                    (epoch, Observation::Connected(facts))
                }
                Effect::Disconnect { connection, .. } => {
                    let failure =
                        Failure::new(FailureClass::Temporary, "Gateway connection closed");
                    let loss = ConnectionLoss {
                        failure,
                        notice: ShutdownNotice::None,
                    };
                    (connection, Observation::Disconnected(loss))
                }
                Effect::Terminate { child, .. } => (child, crash()),
                Effect::Look { connection } => (connection, Observation::Looked(Look::default())),
                _ => continue,
            };
            inputs.push_back(Input::Observed { epoch, observation });
        }
    }
    journal
}

/// How often the threads of this process have gone to sleep.
fn switches() -> u64 {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return 0;
    };
    let of_thread = |entry: std::fs::DirEntry| {
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    threads.flatten().filter_map(of_thread).sum()
}
