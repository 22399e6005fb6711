//! The process host of a [`Machine`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_process::{
    BlockingWork, ChildExit, ExitReason, LaunchSpec, ManagedChild, OutputLine, PortError,
    PortOwner, ProcessHost, RunError, RunReport, SpawnError, TerminationReason,
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
        Ok(Arc::new(ScriptedChild::start(&self.machine, spec, plan)))
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

    async fn run(&self, spec: &LaunchSpec, deadline: Duration) -> Result<RunReport, RunError> {
        let plan = self.machine.next_run_plan();
        self.machine.begin_run(spec.to_string());
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
            return Err(RunError::TimedOut {
                command: spec.to_string(),
                deadline,
                report,
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
