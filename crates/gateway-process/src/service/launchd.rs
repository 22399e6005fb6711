//! Jobs of launchd that run a gateway: what their descriptions say, and the questions and commands for `launchctl`.

use std::path::Path;

use plist::{Dictionary, Value};

use crate::run::RunReport;
use crate::service::{
    Disabled, Facts, Found, ServiceManager, ServiceState, Step, content, entries, runs_a_gateway,
    stdout,
};

/// Beginnings of the labels under which OpenClaw and its predecessors install their jobs.
const LABELS: [&str; 5] = [
    "ai.openclaw.",
    "com.openclaw.",
    "bot.molt.",
    "com.clawdbot.",
    "com.steipete.clawdbot.",
];

/// `launchctl bootout` and `print` of a job that is not loaded (`ESRCH` and launchd's "could not find service").
const NOT_LOADED: &[i32] = &[3, 113];

/// The jobs that the files of these directories describe.
pub(super) fn scan(manager: ServiceManager, directories: &[&Path]) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (name, file) in directories.iter().flat_map(|directory| entries(directory)) {
        if !name.ends_with(".plist") {
            continue;
        }
        let Some(job) = content(&file)
            .ok()
            .and_then(|content| description(&content))
        else {
            continue;
        };
        let Some(label) = job.get("Label").and_then(Value::as_string) else {
            continue;
        };
        let is_ours = LABELS.iter().any(|ours| label.starts_with(ours));
        if is_ours
            && (label.ends_with(".gateway") || runs_a_gateway(command(&job)))
            && !found.iter().any(|known| known.name == label)
        {
            found.push(Found {
                manager,
                name: label.to_owned(),
                enabled_by_file: job.get("Disabled").and_then(Value::as_boolean) != Some(true),
                file,
            });
        }
    }
    found
}

/// A description in any of the forms that launchd reads; `None` for what is none.
fn description(content: &[u8]) -> Option<Dictionary> {
    Value::from_reader(std::io::Cursor::new(content))
        .ok()?
        .into_dictionary()
}

/// The words of a job's command. A job of OpenClaw itself names it by its label when the words do not.
fn command(job: &Dictionary) -> Vec<&str> {
    let arguments = job.get("ProgramArguments").and_then(Value::as_array);
    let program = job.get("Program").and_then(Value::as_string);
    let words = arguments.into_iter().flatten().filter_map(Value::as_string);
    program.into_iter().chain(words).collect()
}

/// Where launchd keeps the job: the machine's domain, or that of the user's login.
fn domain(manager: ServiceManager, uid: u32) -> String {
    if manager == ServiceManager::LaunchdDaemon {
        "system".to_owned()
    } else {
        format!("gui/{uid}")
    }
}

fn target(manager: ServiceManager, label: &str, uid: u32) -> String {
    format!("{}/{label}", domain(manager, uid))
}

/// The arguments of `launchctl` that ask about a job: first what it does, then which jobs were turned off.
pub(super) fn questions(manager: ServiceManager, label: &str, uid: u32) -> Vec<Vec<String>> {
    vec![
        vec!["print".to_owned(), target(manager, label, uid)],
        vec!["print-disabled".to_owned(), domain(manager, uid)],
    ]
}

pub(super) fn facts(label: &str, job: Option<&RunReport>, disabled: Option<&RunReport>) -> Facts {
    let state = match job {
        Some(answer) if answer.success() => {
            let value = |name: &str| {
                let mut lines = stdout(answer);
                lines.find_map(|line| {
                    line.strip_prefix(name)?
                        .trim_start()
                        .strip_prefix('=')
                        .map(str::trim)
                })
            };
            // A job that is loaded and waits for its next start is about to run one.
            ServiceState::Running {
                pid: value("pid").and_then(|pid| pid.parse().ok()),
            }
        }
        Some(answer)
            if answer
                .exit
                .code
                .is_some_and(|code| NOT_LOADED.contains(&code)) =>
        {
            ServiceState::Stopped
        }
        _ => ServiceState::Unknown,
    };
    // `"label" => disabled`, and `=> true` before macOS 13.
    let quoted = format!("\"{label}\"");
    let enabled = disabled
        .filter(|answer| answer.success())
        .and_then(|answer| {
            let mut lines = stdout(answer);
            let said = lines
                .find_map(|line| line.strip_prefix(&quoted)?.trim_start().strip_prefix("=>"))?;
            Some(!matches!(said.trim(), "disabled" | "true"))
        });
    Facts { state, enabled }
}

pub(super) fn turning_off(before: &Disabled, uid: u32) -> Vec<Step> {
    let target = target(before.manager, &before.name, uid);
    let mut steps = Vec::new();
    if before.was_enabled {
        steps.push(step(["disable", &target]));
    }
    if before.was_running {
        steps.push(Step {
            // It may have ended in between.
            also_fine: NOT_LOADED,
            ..step(["bootout", &target])
        });
    }
    steps
}

/// A job that is loaded cannot be loaded again.
pub(super) fn turning_on(disabled: &Disabled, uid: u32, is_loaded: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    if disabled.was_enabled {
        steps.push(step([
            "enable",
            &target(disabled.manager, &disabled.name, uid),
        ]));
    }
    if disabled.was_running && !is_loaded {
        steps.push(step([
            "bootstrap",
            &domain(disabled.manager, uid),
            &disabled.file.to_string_lossy(),
        ]));
    }
    steps
}

fn step<const N: usize>(words: [&str; N]) -> Step {
    Step {
        arguments: words.map(str::to_owned).to_vec(),
        also_fine: &[],
    }
}

pub(super) fn by_hand_off(manager: ServiceManager, label: &str, uid: u32) -> String {
    let (sudo, target) = (sudo(manager), target(manager, label, uid));
    format!("{sudo}launchctl disable {target}; {sudo}launchctl bootout {target}")
}

pub(super) fn by_hand_on(disabled: &Disabled, uid: u32) -> String {
    let (sudo, domain) = (sudo(disabled.manager), domain(disabled.manager, uid));
    let target = target(disabled.manager, &disabled.name, uid);
    format!(
        "{sudo}launchctl enable {target}; {sudo}launchctl bootstrap {domain} '{}'",
        disabled.file.display()
    )
}

fn sudo(manager: ServiceManager) -> &'static str {
    if manager == ServiceManager::LaunchdDaemon {
        "sudo "
    } else {
        ""
    }
}
