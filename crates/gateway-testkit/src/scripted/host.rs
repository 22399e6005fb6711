//! The process host of a [`Machine`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_process::ownership::ClaimStore;
use gateway_process::{
    BlockingWork, ChildExit, Claim, ClaimError, ExitReason, LaunchSpec, ManagedChild, OutputLine,
    PortError, PortOwner, ProcessHost, RunError, RunLimits, RunReport, SpawnError, Survivor,
    TerminationReason,
};
use tokio::time::timeout;

use super::child::{ScriptedChild, stderr_line};
use super::machine::Machine;
use super::plan::SpawnFailure;
use super::record::Happening;

/// Starts scripted children. Made by [`Machine::host`].
#[derive(Clone, Debug)]
pub struct ScriptedHost {
    machine: Machine,
}

impl ScriptedHost {
    pub(super) fn new(machine: Machine) -> Self {
        Self { machine }
    }

    /// The machine it belongs to.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }
}

/// Keeps what has to outlast its owner in the machine.
struct ClaimInMemory {
    machine: Machine,
    directory: PathBuf,
    owner: u64,
}

impl ClaimStore for ClaimInMemory {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn read(&self, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        Ok(self.machine.kept(&self.directory, name))
    }

    fn write(&self, name: &str, content: &[u8]) -> std::io::Result<()> {
        self.machine
            .keep(&self.directory, name, Some(content.to_vec()));
        Ok(())
    }

    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.machine.keep(&self.directory, name, None);
        Ok(())
    }
}

impl Drop for ClaimInMemory {
    fn drop(&mut self) {
        self.machine.release(&self.directory, self.owner);
    }
}

#[async_trait]
impl ProcessHost for ScriptedHost {
    async fn spawn(&self, spec: &LaunchSpec) -> Result<Arc<dyn ManagedChild>, SpawnError> {
        let plan = self.machine.next_plan();
        let command = spec.to_string();
        if let Some(failure) = plan.spawn_failure {
            self.machine.record(Happening::SpawnFailed {
                command: command.clone(),
            });
            return Err(match failure {
                SpawnFailure::ProgramNotFound => SpawnError::ProgramNotFound {
                    program: spec.program.clone(),
                    command,
                },
                SpawnFailure::Refused => SpawnError::Refused {
                    command,
                    source: Arc::new(std::io::Error::from(std::io::ErrorKind::OutOfMemory)),
                },
            });
        }
        let child = ScriptedChild::start(&self.machine, spec, plan);
        if let Some(claim) = &spec.claim {
            self.machine
                .note_launch(claim.directory(), child.launched(spec));
        }
        Ok(Arc::new(child))
    }

    async fn claim(&self, directory: &Path) -> Result<Claim, ClaimError> {
        if !self.machine.claim(directory) {
            return Err(ClaimError::Held {
                directory: directory.to_owned(),
                holder: None,
            });
        }
        Ok(Claim::from_store(ClaimInMemory {
            machine: self.machine.clone(),
            directory: directory.to_owned(),
            owner: self.machine.owner(),
        }))
    }

    async fn survivor(&self, claim: &Claim) -> Result<Option<Survivor>, ClaimError> {
        let launched = self.machine.launched(claim.directory());
        Ok(launched.map(|launched| {
            let (child, fingerprint, port) = launched.adopt();
            Survivor {
                child: Arc::new(child),
                fingerprint,
                port,
            }
        }))
    }

    async fn port_owners(&self, port: u16) -> Result<Vec<PortOwner>, PortError> {
        Ok(self.machine.owners(port))
    }

    async fn do_blocking(&self, work: BlockingWork) {
        work.run();
    }

    fn time_asleep(&self) -> Duration {
        self.machine.time_asleep()
    }

    async fn run(&self, spec: &LaunchSpec, limits: RunLimits) -> Result<RunReport, RunError> {
        let plan = self.machine.next_run_plan();
        self.machine.begin_run(spec.to_string());
        // It prints what it prints at its end, and is silent until then.
        let silence = limits.silence.filter(|silence| *silence < limits.overall);
        let deadline = silence.unwrap_or(limits.overall);
        let in_time = timeout(deadline, tokio::time::sleep(plan.takes))
            .await
            .is_ok();
        let output: Vec<OutputLine> = plan.stderr.iter().map(|line| stderr_line(line)).collect();
        let report = |code, signal, reason, ran_for| RunReport {
            exit: ChildExit {
                pid: 0,
                code,
                signal,
                reason,
                ran_for,
                leftovers: Vec::new(),
            },
            output: output.clone(),
            dropped_lines: 0,
        };
        if !in_time {
            self.machine.record(Happening::RunEnded { code: None });
            let reason = ExitReason::Requested(TerminationReason::DeadlineExceeded);
            let report = Box::new(report(None, Some(15), reason, deadline));
            let command = spec.to_string();
            return Err(match silence {
                Some(silence) => RunError::Silent {
                    command,
                    silence,
                    report,
                },
                None => RunError::TimedOut {
                    command,
                    deadline,
                    report,
                },
            });
        }
        if let Some(effect) = &plan.effect {
            effect(spec);
        }
        self.machine.record(Happening::RunEnded {
            code: Some(plan.code),
        });
        Ok(report(
            Some(plan.code),
            None,
            ExitReason::Unexpected,
            plan.takes,
        ))
    }
}
