//! A doctor that destroys: each of its random edits is taken back or was harmless, with files and processes that are real.
//!
//! A thousand of them are compared without files where the comparing is tested.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_process::{
    ChildExit, ConfigRepair, Environment, ExitReason, LaunchSpec, ManagedChild, OsProcessHost,
    PortError, PortOwner, ProcessHost, RepairVerdict, RunError, RunLimits, RunReport, SpawnError,
};

use self::edits::{before, destroyed, harm};
use crate::support::{executable, soon};

#[path = "../../src/repair/destruction.rs"]
mod edits;

/// A doctor without a process of its own.
struct InPlace {
    config: PathBuf,
    leaves: Vec<u8>,
}

#[async_trait]
impl ProcessHost for InPlace {
    async fn spawn(&self, spec: &LaunchSpec) -> Result<Arc<dyn ManagedChild>, SpawnError> {
        OsProcessHost::new().spawn(spec).await
    }

    async fn port_owners(&self, port: u16) -> Result<Vec<PortOwner>, PortError> {
        OsProcessHost::new().port_owners(port).await
    }

    async fn run(&self, _: &LaunchSpec, _: RunLimits) -> Result<RunReport, RunError> {
        fs::write(&self.config, &self.leaves).unwrap();
        Ok(RunReport {
            exit: ChildExit {
                pid: 1,
                code: Some(0),
                signal: None,
                reason: ExitReason::Unexpected,
                ran_for: Duration::ZERO,
                leftovers: Vec::new(),
            },
            output: Vec::new(),
            dropped_lines: 0,
        })
    }

    fn time_asleep(&self) -> Duration {
        Duration::ZERO
    }
}

/// `true` when the doctor's work was taken back.
async fn survives(seed: u64, real_process: bool) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("openclaw.json");
    let original = format!("// by hand\n{:#}\n", before());
    fs::write(&config, &original).unwrap();
    let result = destroyed(seed);
    let environment = Environment::from_parent();
    let outcome = if real_process {
        let prepared = folder.path().join("result");
        fs::write(&prepared, &result).unwrap();
        let script = format!("cat '{}' > '{}'", prepared.display(), config.display());
        let doctor = executable(&folder.path().join("doctor"), &script);
        let repair = ConfigRepair::new(LaunchSpec::new(doctor, environment), &config);
        soon(repair.run(&OsProcessHost::new())).await
    } else {
        let host = InPlace {
            config: config.clone(),
            leaves: result.clone(),
        };
        let repair = ConfigRepair::new(LaunchSpec::new("doctor", environment), &config);
        soon(repair.run(&host)).await
    };
    let outcome = outcome.unwrap();
    let shown = format!("{outcome:#} {outcome:?}");
    assert!(!shown.contains("s3cret"), "seed {seed}: {shown}");
    let now = fs::read(&config).unwrap();
    match &outcome.aftermath.verdict {
        RepairVerdict::Refused { reasons } => {
            assert!(!reasons.is_empty());
            assert_eq!(now, original.as_bytes(), "seed {seed}");
            let [rejected] = &outcome.aftermath.rejected[..] else {
                panic!("seed {seed}: {outcome}")
            };
            assert_eq!(fs::read(rejected).unwrap(), result, "seed {seed}");
            true
        }
        RepairVerdict::Repaired => {
            assert_eq!(now, result, "seed {seed}");
            assert_eq!(
                harm(&result),
                None,
                "seed {seed} was let through:\n{outcome:#}"
            );
            false
        }
        other => panic!("seed {seed}: {other:?}"),
    }
}

/// Plays the seeds on two threads, and counts what was taken back.
async fn play(seeds: std::ops::Range<u64>, real_process: bool) -> usize {
    let half = async |parity: u64| {
        let seeds = seeds.clone().filter(move |seed| seed % 2 == parity);
        tokio::spawn(async move {
            let mut taken_back = 0;
            for seed in seeds {
                taken_back += usize::from(survives(seed, real_process).await);
            }
            taken_back
        })
        .await
        .unwrap()
    };
    let (even, odd) = tokio::join!(half(0), half(1));
    even + odd
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn destructive_doctors_do_no_harm() {
    let taken_back = play(0..100, false).await;
    assert!((50..95).contains(&taken_back), "{taken_back}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_do_those_that_are_processes() {
    let taken_back = play(5000..5040, true).await;
    assert!((15..40).contains(&taken_back), "{taken_back}");
}
