//! Everything that gatewayctl tells, in its machine-readable form.
//!
//! The field names are a promise to scripts; the README lists them. A field that has no value is null, never left out.

use std::path::PathBuf;
use std::time::Duration;

use gateway_manager::{Failure, GatewayStatus};
use gateway_policy::budget::{GaveUp, LedgerEntry, Limit};
use gateway_policy::{JournalEntry, Rule, Time};
use gateway_process::{ChildExit, OutputSource, RepairOutcome, StderrLevel};
use serde::Serialize;

use crate::exit_code::ExitCode;

/// One event. `elapsedMs`, the time since gatewayctl began, is added when it is printed.
#[derive(Debug, Serialize)]
#[serde(
    tag = "event",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub(crate) enum Report {
    /// Which gateway will be used; always the first event of a run that gets that far.
    Gateway {
        kind: Kind,
        program: Option<String>,
        version: Option<String>,
        node: Option<String>,
        state_dir: Option<String>,
        port: Option<u16>,
        attach: &'static str,
        /// The same for people.
        message: String,
    },
    /// The manager has entered a phase.
    Phase {
        phase: &'static str,
        state: &'static str,
        pid: Option<u32>,
        attempts: u32,
        next_attempt_in_ms: Option<u64>,
        failure: Option<Cause>,
        /// What was tried in vain; in the phase `gave-up` only.
        gave_up: Option<Story>,
    },
    /// The manager has decided something.
    Decision {
        /// The name of the rule that fired.
        rule: &'static str,
        /// The rule with the facts that it looked at.
        text: String,
        /// When, since the manager began.
        at_ms: u64,
    },
    /// The gateway serves.
    Ready(Ready),
    /// The gateway does not serve any more, and nobody had asked for that.
    Lost { failure: Option<Cause> },
    /// The open connection was looked at, and is not as it was before.
    Liveness {
        /// `alive`, `slow`, `blocked`, `wedged`, `suspended`, or what is gone.
        verdict: &'static str,
    },
    /// The gateway process is being ended.
    Ending {
        /// `asked`, or `forced`.
        stage: &'static str,
        waited_ms: u64,
        /// How long until it is forced.
        force_in_ms: Option<u64>,
    },
    /// The gateway process has ended.
    Exited(Exit),
    /// The doctor looked after the configuration.
    Repaired {
        succeeded: bool,
        changed: bool,
        /// `repaired`, `unchanged`, `not-repaired`, `refused` or `edited-meanwhile`.
        verdict: &'static str,
        config: String,
        backup: Option<String>,
        /// Why the doctor's work was taken back.
        reasons: Vec<String>,
        /// What the doctor had made of the files, where that was taken back.
        rejected: Vec<String>,
        /// What the doctor changed, one value a line, without secrets.
        diff: Vec<String>,
        message: String,
    },
    /// Something did not work that the gateway can do without.
    Warning { message: String },
    /// A line that the gateway printed.
    Output {
        stream: &'static str,
        level: &'static str,
        text: String,
    },
    /// A line that was printed came again.
    OutputRepeated {
        stream: &'static str,
        level: &'static str,
        text: String,
        repeats: u64,
        total: u64,
    },
    /// gatewayctl begins to stop.
    Stopping { reason: &'static str },
    /// What a probe found.
    Probe {
        port: u16,
        found: &'static str,
        holders: Vec<Holder>,
        message: String,
    },
    /// gatewayctl cannot go on.
    Error {
        message: String,
        class: Option<&'static str>,
        next_step: Option<String>,
        /// The newest launch in one line, without secrets.
        launch: Option<String>,
        /// The newest decisions that led to it, oldest first.
        why: Vec<String>,
        exit_code: u8,
    },
    /// The last event of every run.
    Summary(Summary),
}

/// What kind of gateway is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Embedded,
    Package,
    Command,
    AttachOnly,
}

/// The facts of a session.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ready {
    /// Counts the sessions of this run from 1.
    pub(crate) session: u32,
    pub(crate) state: &'static str,
    pub(crate) pid: Option<u32>,
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Option<u32>,
    pub(crate) server_version: Option<String>,
    pub(crate) attached: bool,
    pub(crate) kind: Kind,
    pub(crate) program: Option<String>,
    pub(crate) state_dir: Option<String>,
    /// How long there was no session before this one; null for the first.
    pub(crate) lost_for_ms: Option<u64>,
}

/// Why it is not running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cause {
    pub(crate) class: &'static str,
    pub(crate) message: String,
}

impl From<&Failure> for Cause {
    fn from(failure: &Failure) -> Self {
        Self {
            class: failure.class.name(),
            message: failure.message.clone(),
        }
    }
}

/// What recovery tried before it gave up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Story {
    /// Which limit was reached.
    pub(crate) limit: &'static str,
    pub(crate) attempts: u32,
    /// How long it took.
    pub(crate) lasted_ms: u64,
    /// The newest attempts, oldest first.
    pub(crate) history: Vec<Attempt>,
}

impl From<&GaveUp> for Story {
    fn from(gave_up: &GaveUp) -> Self {
        Self {
            limit: match gave_up.limit {
                Limit::Attempts => "attempts",
                Limit::Budget => "budget",
            },
            attempts: gave_up.attempts,
            lasted_ms: millis(gave_up.lasted),
            history: gave_up.history.iter().map(Attempt::from).collect(),
        }
    }
}

/// One automatic attempt. Times count from when the manager began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attempt {
    pub(crate) decided_at_ms: u64,
    /// The class of what had failed before.
    pub(crate) cause: &'static str,
    /// When a process was launched, if it got that far.
    pub(crate) launched_at_ms: Option<u64>,
}

impl From<&LedgerEntry> for Attempt {
    fn from(entry: &LedgerEntry) -> Self {
        Self {
            decided_at_ms: since_the_beginning(entry.decided),
            cause: entry.cause.name(),
            launched_at_ms: entry.launched.map(since_the_beginning),
        }
    }
}

/// The end of a process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Exit {
    pub(crate) pid: u32,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) ran_for_ms: u64,
    pub(crate) requested: bool,
    /// Other processes of its group, killed because they outlived it.
    pub(crate) leftovers: Vec<u32>,
    pub(crate) message: String,
}

impl From<&ChildExit> for Exit {
    fn from(exit: &ChildExit) -> Self {
        Self {
            pid: exit.pid,
            code: exit.code,
            signal: exit.signal,
            ran_for_ms: millis(exit.ran_for),
            requested: exit.reason.is_requested(),
            leftovers: exit.leftovers.clone(),
            message: exit.to_string(),
        }
    }
}

/// Who listens on a port.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Holder {
    pub(crate) pid: Option<u32>,
    pub(crate) program: Option<String>,
    pub(crate) address: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// As it was asked to.
    Done,
    /// By an error.
    Failed,
    /// By a second signal.
    Forced,
}

/// The last word.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) outcome: Outcome,
    pub(crate) exit_code: u8,
    pub(crate) sessions: u32,
    pub(crate) port: Option<u16>,
    /// The newest gateway process and its end.
    pub(crate) pid: Option<u32>,
    pub(crate) exit: Option<Exit>,
    /// Whether the gateway was not ours and goes on.
    pub(crate) attached: bool,
    /// How long stopping took.
    pub(crate) stop_took_ms: Option<u64>,
}

impl Report {
    /// The phase of a status, told at this time of the manager's clock.
    pub(crate) fn phase(status: &GatewayStatus, now: Duration) -> Self {
        Self::Phase {
            phase: status.phase.name(),
            state: status.state.name(),
            pid: status.pid,
            attempts: status.attempts,
            next_attempt_in_ms: status
                .next_attempt_at
                .map(|at| millis(at.elapsed_from_origin().saturating_sub(now))),
            failure: status.failure.as_ref().map(Cause::from),
            gave_up: status.gave_up.as_ref().map(Story::from),
        }
    }

    /// A run of the doctor.
    pub(crate) fn repaired(outcome: &RepairOutcome) -> Self {
        let aftermath = &outcome.aftermath;
        let shown = |path: &PathBuf| path.display().to_string();
        let differences = aftermath.diff.changes.iter().map(ToString::to_string);
        Self::Repaired {
            succeeded: outcome.succeeded(),
            changed: outcome.changed(),
            verdict: aftermath.verdict.name(),
            config: shown(&outcome.config),
            backup: aftermath.backup.as_ref().map(shown),
            reasons: aftermath
                .verdict
                .reasons()
                .iter()
                .map(ToString::to_string)
                .collect(),
            rejected: aftermath.rejected.iter().map(shown).collect(),
            diff: differences.collect(),
            message: format!("{outcome:#}"),
        }
    }

    /// A decision for each rule of an entry.
    pub(crate) fn decisions(entry: &JournalEntry) -> impl Iterator<Item = Self> {
        let at_ms = since_the_beginning(entry.at);
        entry.rules.iter().map(move |rule: &Rule| Self::Decision {
            rule: rule.name(),
            text: rule.to_string(),
            at_ms,
        })
    }

    /// The last word of a run in which no gateway took part.
    pub(crate) fn summary(outcome: Outcome, code: ExitCode) -> Self {
        Self::Summary(Summary {
            outcome,
            exit_code: code.number(),
            sessions: 0,
            port: None,
            pid: None,
            exit: None,
            attached: false,
            stop_took_ms: None,
        })
    }
}

pub(crate) fn stream_name(stream: OutputSource) -> &'static str {
    match stream {
        OutputSource::Stdout => "stdout",
        OutputSource::Stderr => "stderr",
    }
}

pub(crate) fn level_name(level: StderrLevel) -> &'static str {
    match level {
        StderrLevel::Drop => "drop",
        StderrLevel::Quiet => "quiet",
        StderrLevel::Warn => "warn",
    }
}

/// Milliseconds of the manager's clock.
fn since_the_beginning(time: Time) -> u64 {
    millis(time.elapsed_from_origin())
}

/// Whole milliseconds.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use gateway_manager::{FailureClass, Phase};
    use gateway_policy::budget::{RestartBudget, RestartLedger};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_phase_tells_what_was_tried_in_vain() {
        let at = Time::from_millis;
        let mut status = GatewayStatus::default();
        let phase = |status: &GatewayStatus| {
            let report = Report::phase(status, Duration::from_secs(4));
            serde_json::to_value(report).unwrap()
        };
        assert_eq!(phase(&status)["gaveUp"], json!(null));

        let mut ledger = RestartLedger::default();
        ledger.attempt(at(1_500), FailureClass::Temporary);
        ledger.charge(at(2_000), &RestartBudget::default());
        ledger.attempt(at(3_000), FailureClass::NotReady);
        status.phase = Phase::GaveUp;
        status.gave_up = Some(ledger.give_up(at(9_000), Limit::Budget));
        let told = phase(&status);
        assert_eq!(told["phase"], "gave-up");
        assert_eq!(
            told["gaveUp"],
            json!({
                "limit": "budget",
                "attempts": 2,
                "lastedMs": 7_500,
                "history": [
                    { "decidedAtMs": 1_500, "cause": "temporary", "launchedAtMs": 2_000 },
                    { "decidedAtMs": 3_000, "cause": "not-ready", "launchedAtMs": null },
                ],
            })
        );
    }
}
