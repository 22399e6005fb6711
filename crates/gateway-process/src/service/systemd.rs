//! Units of systemd that run a gateway: what their files say, and the questions and commands for `systemctl`.

use std::collections::BTreeSet;
use std::path::Path;

use crate::run::RunReport;
use crate::service::{
    Disabled, Facts, Found, NAMES, ServiceManager, ServiceState, Step, content, entries,
    runs_a_gateway, stdout,
};

/// The units in the directories of one manager, of which one in front hides those of the same name behind it.
pub(super) fn scan(manager: ServiceManager, directories: &[&Path]) -> Vec<Found> {
    let mut wanted = BTreeSet::new();
    let mut files = Vec::new();
    for directory in directories {
        for (name, path) in entries(directory) {
            if name.ends_with(".wants") || name.ends_with(".requires") {
                wanted.extend(entries(&path).into_iter().map(|(unit, _)| unit));
            } else if has_our_name(&name) && !files.iter().any(|(known, _)| *known == name) {
                files.push((name, path));
            }
        }
    }
    let mut found = Vec::new();
    for (name, file) in files {
        // A masked unit leads to /dev/null and runs nothing.
        let Ok(text) = content(&file) else { continue };
        let text = String::from_utf8_lossy(&text);
        let commands = commands(&text);
        let says_so = commands
            .iter()
            .any(|line| runs_a_gateway(line.split_whitespace()));
        // The command may be a script; then the name tells.
        let is_called_so = name.contains("gateway") && !commands.is_empty();
        if !says_so && !is_called_so {
            continue;
        }
        // A template runs nothing itself; its instances do.
        let units: Vec<String> = match name.strip_suffix("@.service") {
            Some(template) => wanted
                .iter()
                .filter(|unit| is_instance(unit, template))
                .cloned()
                .collect(),
            None => vec![name],
        };
        found.extend(units.into_iter().map(|unit| Found {
            manager,
            enabled_by_file: wanted.contains(&unit),
            name: unit,
            file: file.clone(),
        }));
    }
    found
}

fn has_our_name(name: &str) -> bool {
    name.ends_with(".service") && NAMES.iter().any(|ours| name.starts_with(ours))
}

fn is_instance(unit: &str, template: &str) -> bool {
    unit.strip_prefix(template)
        .and_then(|rest| rest.strip_prefix('@'))
        .is_some_and(|instance| instance.ends_with(".service") && instance.len() > ".service".len())
}

/// The commands of a unit, one per `ExecStart`, with lines that end in a backslash joined.
fn commands(text: &str) -> Vec<String> {
    text.replace("\\\r\n", " ")
        .replace("\\\n", " ")
        .lines()
        .filter_map(|line| {
            Some(
                line.trim()
                    .strip_prefix("ExecStart")?
                    .trim_start()
                    .strip_prefix('=')?
                    .trim()
                    .to_owned(),
            )
        })
        .filter(|command| !command.is_empty())
        .collect()
}

fn scope(manager: ServiceManager) -> Option<String> {
    (manager == ServiceManager::SystemdUser).then(|| "--user".to_owned())
}

fn command<'a>(manager: ServiceManager, words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    scope(manager)
        .into_iter()
        .chain(words.into_iter().map(str::to_owned))
        .collect()
}

/// The arguments of `systemctl` that ask about a unit.
pub(super) fn question(manager: ServiceManager, unit: &str) -> Vec<String> {
    command(
        manager,
        [
            "show",
            "--no-pager",
            "--property=ActiveState,MainPID,UnitFileState",
            "--",
            unit,
        ],
    )
}

/// What `systemctl show` answered. It answers about units that it does not know, too, and fails only without a systemd to ask.
pub(super) fn facts(answer: Option<&RunReport>) -> Facts {
    let mut facts = Facts {
        state: ServiceState::Unknown,
        enabled: None,
    };
    let Some(answer) = answer.filter(|answer| answer.success()) else {
        return facts;
    };
    let value = |name: &str| {
        let mut lines = stdout(answer);
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    let pid = value("MainPID")
        .and_then(|pid| pid.parse().ok())
        .filter(|pid| *pid != 0);
    facts.state = match value("ActiveState") {
        Some("active" | "activating" | "deactivating" | "reloading" | "refreshing") => {
            ServiceState::Running { pid }
        }
        Some("inactive" | "failed") => ServiceState::Stopped,
        _ => ServiceState::Unknown,
    };
    facts.enabled = match value("UnitFileState") {
        Some("enabled" | "enabled-runtime") => Some(true),
        // The others ("static", "generated", "linked", none at all) do not tell whether something pulls it in.
        Some("disabled" | "masked" | "masked-runtime") => Some(false),
        _ => None,
    };
    facts
}

pub(super) fn turning_off(before: &Disabled) -> Vec<Step> {
    let mut steps = Vec::new();
    if before.was_enabled {
        steps.push(step(before.manager, "disable", &before.name));
    }
    if before.was_running {
        steps.push(step(before.manager, "stop", &before.name));
    }
    steps
}

pub(super) fn turning_on(disabled: &Disabled) -> Vec<Step> {
    let mut steps = Vec::new();
    if disabled.was_enabled {
        steps.push(step(disabled.manager, "enable", &disabled.name));
    }
    if disabled.was_running {
        steps.push(step(disabled.manager, "start", &disabled.name));
    }
    steps
}

/// A password dialog must not open, nor a wait for one begin: nobody may be there to answer.
fn step(manager: ServiceManager, verb: &str, unit: &str) -> Step {
    Step {
        arguments: command(manager, [verb, "--no-ask-password", "--", unit]),
        also_fine: &[],
    }
}

pub(super) fn by_hand_off(manager: ServiceManager, unit: &str) -> String {
    by_hand(manager, "disable --now", unit)
}

pub(super) fn by_hand_on(manager: ServiceManager, unit: &str) -> String {
    by_hand(manager, "enable --now", unit)
}

fn by_hand(manager: ServiceManager, verb: &str, unit: &str) -> String {
    if manager == ServiceManager::SystemdUser {
        format!("systemctl --user {verb} {unit}")
    } else {
        format!("sudo systemctl {verb} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_units() {
        let text = "[Service]\r\nExecStart = /usr/bin/node \\\r\n  /opt/openclaw/index.js \\\n gateway\nExecStartPre=/bin/true\n#ExecStart=x\nExecStart=\n ExecStart=-b";
        let words: Vec<Vec<String>> = commands(text)
            .iter()
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect();
        assert_eq!(
            words,
            [
                vec!["/usr/bin/node", "/opt/openclaw/index.js", "gateway"],
                vec!["-b"]
            ]
        );
    }

    #[test]
    fn instances_of_templates() {
        for (unit, expected) in [
            ("openclaw-gateway@work.service", true),
            ("openclaw-gateway@.service", false),
            ("openclaw-gateway.service", false),
            ("openclaw-gateway-two@work.service", false),
            ("openclaw-gateway@work.timer", false),
        ] {
            assert_eq!(is_instance(unit, "openclaw-gateway"), expected, "{unit}");
        }
    }
}
