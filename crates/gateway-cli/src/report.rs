//! Everything that gatewayctl tells, in its machine-readable form.
//!
//! The field names are a promise to scripts; the README lists them. A field that has no value is null, never left out.

use gateway_manager::Failure;
use gateway_process::{ChildExit, OutputSource, StderrLevel};
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
    },
    /// The gateway serves.
    Ready(Ready),
    /// The gateway does not serve any more, and nobody had asked for that.
    Lost { failure: Option<Cause> },
    /// The gateway process has ended.
    Exited(Exit),
    /// The doctor looked after the configuration.
    Repaired {
        succeeded: bool,
        changed: bool,
        config: String,
        backup: Option<String>,
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

/// Whole milliseconds.
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
