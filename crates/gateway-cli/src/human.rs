//! Everything that gatewayctl tells, for people.

use std::fmt::Write as _;
use std::time::Duration;

use crate::report::{Kind, Outcome, Ready, Report, Summary};

/// The text of an event with its line ends; `None` when people need not know.
pub(crate) fn text(report: &Report, elapsed: Duration) -> Option<String> {
    let timed = |text: &str| Some(format!("{:>9.3} s  {text}\n", elapsed.as_secs_f64()));
    match report {
        Report::Gateway { message, .. } => Some(format!("{message}\n")),
        // The end of a run has a line of its own.
        Report::Phase { phase, .. } if matches!(*phase, "stopped" | "ready") => None,
        Report::Phase {
            phase,
            pid,
            attempts,
            next_attempt_in_ms,
            failure,
            ..
        } => {
            let mut line = (*phase).to_owned();
            // Writing to a string cannot fail.
            if *phase == "listening"
                && let Some(pid) = pid
            {
                let _ = write!(line, " (pid {pid})");
            }
            if matches!(*phase, "backing-off" | "waiting-for-holder")
                && let Some(wait) = next_attempt_in_ms
            {
                let wait = Duration::from_millis(*wait).as_secs_f64();
                let _ = write!(line, ": attempt {attempts} in {wait:.1} s");
            }
            let is_cause = |class: &str| match *phase {
                "backing-off" | "repairing" | "awaiting-approval" | "waiting-for-holder" => true,
                // What was wrong before it began to answer is no news any more.
                "starting-up" => class == "starting-up",
                _ => false,
            };
            if let Some(failure) = failure.as_ref().filter(|failure| is_cause(failure.class)) {
                let _ = write!(line, ": {}", failure.message);
            }
            timed(&line)
        }
        Report::Decision { text, .. } => timed(&format!("why: {text}")),
        Report::Ready(ready) if ready.session == 1 => {
            timed("ready").map(|line| line + &block(ready))
        }
        Report::Ready(ready) => timed(&again(ready)),
        // Without a cause the end of the process is the cause, and has been told.
        Report::Lost { failure } => timed(&format!("lost: {}", failure.as_ref()?.message)),
        // The first word of it is the announcement of the stop.
        Report::Ending {
            waited_ms: 0..1_000,
            stage: "asked",
            ..
        } => None,
        Report::Ending {
            stage: "asked",
            force_in_ms: Some(left),
            ..
        } => timed(&format!(
            "the gateway is finishing its work; it is forced in {} s",
            left.div_ceil(1_000)
        )),
        Report::Ending { .. } => timed("the gateway did not end in time and is forced"),
        Report::Exited(exit) => timed(&exit.message),
        Report::Liveness { verdict } => timed(&format!("liveness: {verdict}")),
        Report::Repaired { message, .. } => timed(&format!("configuration: {message}")),
        Report::Warning { message } => timed(&format!("warning: {message}")),
        Report::Output { text, .. } => timed(&format!("| {text}")),
        Report::OutputRepeated { text, repeats, .. } => {
            timed(&format!("| {text} [{repeats} more]"))
        }
        Report::Stopping { reason } => timed(&match *reason {
            "until-ready" => "stopping".to_owned(),
            "failure" => return None,
            signal => format!("stopping ({signal}; again to force)"),
        }),
        Report::Probe { message, .. } => Some(format!("{message}\n")),
        Report::Error {
            message,
            next_step,
            launch,
            why,
            ..
        } => {
            let remarks = [("next", next_step), ("launched", launch)];
            let remarks = remarks
                .into_iter()
                .filter_map(|(name, remark)| Some(format!("  {name}: {}\n", remark.as_ref()?)));
            let mut text = format!("error: {message}\n{}", remarks.collect::<String>());
            if !why.is_empty() {
                text.push_str("How it came to that:\n");
            }
            for line in why {
                let _ = writeln!(text, "  {line}");
            }
            Some(text)
        }
        Report::Summary(summary) => timed(&end(summary)?),
    }
}

fn block(ready: &Ready) -> String {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let what = match (ready.attached, ready.kind) {
        (true, _) => "found on the port, not ours",
        (false, Kind::Embedded) => "embedded (a simulator)",
        (false, Kind::Package) => "OpenClaw package",
        (false, Kind::Command) => "command",
        (false, Kind::AttachOnly) => "-",
    };
    let program = ready.program.clone().filter(|_| !ready.attached);
    let rows = [
        ("state", ready.state.to_owned()),
        ("pid", or_dash(ready.pid.map(|pid| pid.to_string()))),
        ("port", or_dash(ready.port.map(|port| port.to_string()))),
        (
            "protocol",
            or_dash(ready.protocol.map(|version| version.to_string())),
        ),
        ("version", or_dash(ready.server_version.clone())),
        ("gateway", what.to_owned()),
        ("path", or_dash(program)),
        (
            "state dir",
            or_dash(ready.state_dir.clone().filter(|_| !ready.attached)),
        ),
    ];
    let mut text = "\n".to_owned();
    for (name, value) in rows {
        if value != "-" || matches!(name, "pid" | "port") {
            let _ = writeln!(text, "  {name:<10}{value}");
        }
    }
    text + "\n"
}

fn again(ready: &Ready) -> String {
    let mut line = "running again".to_owned();
    if let Some(pid) = ready.pid {
        let _ = write!(line, " (pid {pid})");
    }
    if let Some(lost) = ready.lost_for_ms {
        let _ = write!(
            line,
            " after {:.1} s",
            Duration::from_millis(lost).as_secs_f64()
        );
    }
    line
}

fn end(summary: &Summary) -> Option<String> {
    let port = summary
        .port
        .map(|port| format!(" on port {port}"))
        .unwrap_or_default();
    let took = summary
        .stop_took_ms
        .map(|took| format!("; stopping took {:.2} s", took as f64 / 1000.0))
        .unwrap_or_default();
    match (summary.outcome, &summary.exit, summary.pid) {
        (Outcome::Forced, _, Some(pid)) => Some(format!("killed process {pid}{port}")),
        (Outcome::Forced, _, None) => Some("stopped by force".to_owned()),
        // The error has been told, and so has the end of the process.
        (Outcome::Failed, ..) => None,
        (Outcome::Done, ..) if summary.attached => Some(format!(
            "disconnected from the gateway{port}, which is not ours and goes on"
        )),
        (Outcome::Done, Some(exit), _) if !exit.requested => Some(format!(
            "stopped; the gateway was not running any more: {}",
            exit.message
        )),
        (Outcome::Done, Some(exit), _) => {
            let how = match (exit.code, exit.signal) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "exit status unknown".to_owned(),
            };
            let ran = Duration::from_millis(exit.ran_for_ms).as_secs_f64();
            Some(format!(
                "stopped the gateway{port}: process {} ran {ran:.1} s, {how}{took}",
                exit.pid
            ))
        }
        (Outcome::Done, None, _) if summary.sessions == 0 && summary.stop_took_ms.is_some() => {
            Some("stopped before the gateway was launched".to_owned())
        }
        (Outcome::Done, None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Cause, Exit};

    fn line(report: &Report) -> String {
        text(report, Duration::from_millis(1_234)).unwrap_or_default()
    }

    #[test]
    fn phases_tell_what_is_needed_and_no_more() {
        let phase = |phase, next_attempt_in_ms| {
            line(&Report::Phase {
                phase,
                state: "starting",
                pid: Some(7),
                attempts: 2,
                next_attempt_in_ms,
                failure: Some(Cause {
                    class: "temporary",
                    message: "It crashed.".to_owned(),
                }),
                gave_up: None,
            })
        };
        assert_eq!(phase("listening", None), "    1.234 s  listening (pid 7)\n");
        assert_eq!(
            phase("backing-off", Some(2_000)),
            "    1.234 s  backing-off: attempt 2 in 2.0 s: It crashed.\n"
        );
        assert_eq!(phase("handshaking", None), "    1.234 s  handshaking\n");
        assert_eq!(phase("starting-up", None), "    1.234 s  starting-up\n");
        assert_eq!(phase("stopped", None), "");
        let blocked = Report::Liveness { verdict: "blocked" };
        assert_eq!(line(&blocked), "    1.234 s  liveness: blocked\n");
    }

    #[test]
    fn an_error_says_how_it_came_to_that() {
        let error = |why: &[&str]| {
            line(&Report::Error {
                message: "It crashed.".to_owned(),
                class: Some("temporary"),
                next_step: Some("look".to_owned()),
                launch: Some("openclaw gateway run".to_owned()),
                why: why.iter().map(|line| (*line).to_owned()).collect(),
                exit_code: 1,
            })
        };
        let told = "error: It crashed.\n  next: look\n  launched: openclaw gateway run\n";
        assert_eq!(error(&[]), told);
        assert_eq!(
            error(&["0.001 s: start-wanted", "2.500 s: halt (temporary)"]),
            format!(
                "{told}How it came to that:\n  0.001 s: start-wanted\n  2.500 s: halt (temporary)\n"
            )
        );
    }

    #[test]
    fn the_last_line_says_what_was_stopped() {
        let exit = |requested| Exit {
            pid: 7,
            code: Some(0),
            signal: None,
            ran_for_ms: 20_100,
            requested,
            leftovers: Vec::new(),
            message: "process 7 ended".to_owned(),
        };
        let summary = |outcome, exit, attached| {
            line(&Report::Summary(Summary {
                outcome,
                exit_code: 0,
                sessions: 1,
                port: Some(18_789),
                pid: Some(7),
                exit,
                attached,
                stop_took_ms: Some(40),
            }))
        };
        for (said, expected) in [
            (
                summary(Outcome::Done, Some(exit(true)), false),
                "stopped the gateway on port 18789: process 7 ran 20.1 s, exit code 0; stopping took 0.04 s",
            ),
            (
                summary(Outcome::Done, Some(exit(false)), false),
                "stopped; the gateway was not running any more: process 7 ended",
            ),
            (
                summary(Outcome::Done, None, true),
                "disconnected from the gateway on port 18789, which is not ours and goes on",
            ),
            (
                summary(Outcome::Forced, None, false),
                "killed process 7 on port 18789",
            ),
        ] {
            assert_eq!(said, format!("    1.234 s  {expected}\n"));
        }
    }
}
