//! From the manager's events to what is told, and when a run is over.

use std::time::{Duration, Instant};

use gateway_manager::events::Delivered;
use gateway_manager::{
    EndingStage, Failure, FailureClass, GatewayEvent, GatewayManager, GatewayStatus, Phase,
};
use gateway_process::{ChildExit, OutputLine, StderrLevel};

use crate::arguments::UpArguments;
use crate::printer::Printer;
use crate::report::{
    Cause, Exit, Kind, Outcome, Ready, Report, Summary, level_name, millis, stream_name,
};

/// What of the gateway's own output is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Everything,
    Warnings,
    Nothing,
}

impl From<&UpArguments> for Shown {
    fn from(arguments: &UpArguments) -> Self {
        match (arguments.show_output, arguments.quiet_output) {
            (true, _) => Self::Everything,
            (_, true) => Self::Nothing,
            _ => Self::Warnings,
        }
    }
}

/// What an event means for the run.
#[derive(Debug)]
pub(crate) enum News {
    /// Nothing.
    GoOn,
    /// The gateway serves.
    Ready,
    /// The manager will not try any further by itself.
    Over(Failure),
}

/// What is fixed for the whole run and repeated with every session.
#[derive(Clone, Debug)]
pub(crate) struct Fixed {
    pub(crate) kind: Kind,
    pub(crate) program: Option<String>,
    pub(crate) state_dir: Option<String>,
}

/// The run so far.
pub(crate) struct Session<'a> {
    printer: &'a mut Printer,
    manager: GatewayManager,
    fixed: Fixed,
    shown: Shown,
    /// Whether decisions are told.
    why: bool,
    /// The manager's clock began at this moment, give or take its construction.
    origin: Instant,
    status: GatewayStatus,
    port: Option<u16>,
    pid: Option<u32>,
    sessions: u32,
    lost_at: Option<Instant>,
    last_exit: Option<ChildExit>,
    stopping: bool,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        printer: &'a mut Printer,
        manager: GatewayManager,
        fixed: Fixed,
        shown: Shown,
        why: bool,
    ) -> Self {
        Self {
            printer,
            manager,
            fixed,
            shown,
            why,
            origin: Instant::now(),
            status: GatewayStatus::default(),
            port: None,
            pid: None,
            sessions: 0,
            lost_at: None,
            last_exit: None,
            stopping: false,
        }
    }

    pub(crate) fn printer(&mut self) -> &mut Printer {
        self.printer
    }

    pub(crate) fn manager(&self) -> &GatewayManager {
        &self.manager
    }

    /// Whether nothing runs any more.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.status.phase == Phase::Stopped
    }

    /// From now on an end of the gateway is what was asked for.
    pub(crate) fn begin_stopping(&mut self, reason: &'static str) {
        self.stopping = true;
        self.printer.show(&Report::Stopping { reason });
    }

    /// Takes an event and tells what is worth it.
    pub(crate) fn take(&mut self, delivered: Delivered) -> News {
        match delivered {
            Delivered::Event(GatewayEvent::Status(status)) => return self.on_status(status),
            Delivered::Event(GatewayEvent::Ending {
                stage,
                waited,
                force_in,
            }) => self.printer.show(&Report::Ending {
                stage: match stage {
                    EndingStage::Forced => "forced",
                    _ => "asked",
                },
                waited_ms: millis(waited),
                force_in_ms: force_in.map(millis),
            }),
            Delivered::Event(GatewayEvent::Exited(exit)) => {
                self.printer.show(&Report::Exited(Exit::from(&exit)));
                self.last_exit = Some(exit);
            }
            Delivered::Event(GatewayEvent::Repaired(outcome)) => {
                self.printer.show(&Report::repaired(&outcome));
            }
            Delivered::Event(GatewayEvent::Warning { message }) => self.warn(message),
            Delivered::Event(GatewayEvent::Output(line)) => self.on_output(line),
            Delivered::Event(GatewayEvent::OutputRepeated {
                stream,
                level,
                repeats,
            }) => {
                if self.shows(level) {
                    self.printer.show(&Report::OutputRepeated {
                        stream: stream_name(stream),
                        level: level_name(level),
                        text: repeats.line,
                        repeats: repeats.repeats,
                        total: repeats.total,
                    });
                }
            }
            Delivered::Event(GatewayEvent::Decision(entry)) => {
                if self.why {
                    for decision in Report::decisions(&entry) {
                        self.printer.show(&decision);
                    }
                }
            }
            // What the gateway tells its clients is not for the supervisor's screen.
            Delivered::Event(_) => {}
            Delivered::Lagged { missed } => {
                self.warn(format!(
                    "{missed} events were not shown because printing was too slow"
                ));
                let status = self.manager.status().borrow().clone();
                return self.on_status(status);
            }
        }
        News::GoOn
    }

    fn warn(&mut self, message: String) {
        self.printer.show(&Report::Warning { message });
    }

    fn shows(&self, level: StderrLevel) -> bool {
        match self.shown {
            Shown::Everything => true,
            Shown::Warnings => level == StderrLevel::Warn,
            Shown::Nothing => false,
        }
    }

    fn on_output(&mut self, line: OutputLine) {
        if self.shows(line.level) {
            self.printer.show(&Report::Output {
                stream: stream_name(line.stream),
                level: level_name(line.level),
                text: line.text.to_string(),
            });
        }
    }

    fn on_status(&mut self, status: GatewayStatus) -> News {
        let before = std::mem::replace(&mut self.status, status.clone());
        self.port = self.manager.port().or(self.port);
        if status.pid.is_some() && status.pid != self.pid {
            self.pid = status.pid;
            self.last_exit = None;
        }
        if before.phase == Phase::Ready && status.phase != Phase::Ready && !self.stopping {
            self.lost_at = Some(Instant::now());
            let failure = status.failure.as_ref().map(Cause::from);
            self.printer.show(&Report::Lost { failure });
        }
        if let Some(report) = liveness_changed(&before, &status) {
            self.printer.show(&report);
        }
        if status.phase != before.phase {
            let now = self.origin.elapsed();
            self.printer.show(&Report::phase(&status, now));
        }
        if status.phase == Phase::Ready
            && (before.phase != Phase::Ready || status.connected_at != before.connected_at)
        {
            return self.on_ready(&status);
        }
        match status.phase {
            Phase::GaveUp | Phase::Failed => News::Over(status.failure.unwrap_or_else(|| {
                Failure::new(
                    FailureClass::Unknown,
                    "The gateway failed and gave no reason.",
                )
            })),
            _ => News::GoOn,
        }
    }

    fn on_ready(&mut self, status: &GatewayStatus) -> News {
        self.sessions += 1;
        let facts = status.session.as_ref();
        self.printer.show(&Report::Ready(Ready {
            session: self.sessions,
            state: status.state.name(),
            pid: status.pid,
            port: self.port,
            protocol: facts.map(|facts| facts.protocol),
            server_version: facts.map(|facts| facts.server_version.clone()),
            attached: status.attached,
            kind: self.fixed.kind,
            program: self.fixed.program.clone(),
            state_dir: self.fixed.state_dir.clone(),
            lost_for_ms: self.lost_at.take().map(|since| millis(since.elapsed())),
        }));
        News::Ready
    }

    /// What is known at the end, as if it had gone well.
    pub(crate) fn facts(&self, stop_took: Duration) -> Summary {
        Summary {
            outcome: Outcome::Done,
            exit_code: 0,
            sessions: self.sessions,
            port: self.port,
            pid: self.pid,
            exit: self.last_exit.as_ref().map(Exit::from),
            // Once a process of ours was launched, the run is about that one.
            attached: self.sessions > 0 && self.pid.is_none(),
            stop_took_ms: Some(millis(stop_took)),
        }
    }
}

/// What a second look at the same connection has changed.
fn liveness_changed(before: &GatewayStatus, status: &GatewayStatus) -> Option<Report> {
    let (earlier, verdict) = (before.liveness?, status.liveness?);
    let verdict = (earlier != verdict).then(|| verdict.name())?;
    Some(Report::Liveness { verdict })
}

#[cfg(test)]
mod tests {
    use gateway_policy::liveness::Verdict;

    use super::*;

    #[test]
    fn only_a_change_of_the_same_connection_is_told() {
        let status = |liveness| {
            let mut status = GatewayStatus::default();
            status.liveness = liveness;
            status
        };
        let told = |before, after| {
            let report = liveness_changed(&status(before), &status(after))?;
            serde_json::to_value(report).ok()
        };
        use Verdict::{Alive, Blocked};
        let blocked = serde_json::json!({"event": "liveness", "verdict": "blocked"});
        assert_eq!(told(Some(Alive), Some(Blocked)), Some(blocked));
        assert_eq!(told(Some(Blocked), Some(Blocked)), None);
        assert_eq!(told(None, Some(Alive)), None, "a connection begins alive");
        assert_eq!(
            told(Some(Blocked), None),
            None,
            "it was lost, which is told"
        );
    }
}
