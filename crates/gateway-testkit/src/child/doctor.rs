//! `doctor --fix --yes --non-interactive`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::script::ChildScript;
use super::state_lock::{LockFailure, StateLock};
use super::surroundings::Surroundings;
use crate::fake_gateway::{ConfigProblem, ROOT_KEYS, Vintage, check_configuration};

pub(super) fn run(script: &ChildScript, surroundings: &Surroundings) -> ExitCode {
    std::thread::sleep(Duration::from_millis(script.doctor.takes_ms));
    if let Some(text) = &script.doctor.leaves {
        if let Err(error) = std::fs::write(&surroundings.config_path, text) {
            eprintln!(
                "cannot write {}: {error}",
                surroundings.config_path.display()
            );
            return ExitCode::FAILURE;
        }
        return ExitCode::from(script.doctor.exit_code.unwrap_or(0));
    }
    if let Some(code) = script.doctor.exit_code {
        return ExitCode::from(code);
    }
    let new = script.vintage == Vintage::V2026_9_6;
    let lock = StateLock::path(script.vintage, &surroundings.state_dir, 0);
    if new
        && matches!(
            StateLock::take(&lock, Duration::ZERO),
            Err(LockFailure::Held { .. })
        )
    {
        eprintln!("another OpenClaw process owns gateway-lifecycle; stop the gateway first");
        return ExitCode::FAILURE;
    }
    let path = &surroundings.config_path;
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("No config found at {}", path.display());
        return ExitCode::SUCCESS;
    };
    let Err(problems) = check_configuration(&text) else {
        println!("Config is valid: {}", path.display());
        return ExitCode::SUCCESS;
    };
    // Only unknown keys are ever repaired. 2026.3.2 reports success even when it could not repair.
    let repairable = problems
        .iter()
        .all(|problem| matches!(problem, ConfigProblem::UnknownKey { .. }));
    if !repairable {
        for problem in &problems {
            eprintln!("- {}: {}", problem.path(), problem.message());
        }
        return if new {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    match repair(path, &text, script.vintage) {
        Ok(()) => {
            println!(
                "Repaired {}; the old file is kept as openclaw.json.bak",
                path.display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot repair {}: {error}", path.display());
            ExitCode::FAILURE
        }
    }
}

/// Removes unknown keys, keeps the old file, and adds a key of its own, as the real one does.
fn repair(path: &PathBuf, text: &str, vintage: Vintage) -> std::io::Result<()> {
    let mut value: Value = serde_json::from_str(text)?;
    if let Value::Object(root) = &mut value {
        root.retain(|key, _| ROOT_KEYS.contains(&key.as_str()));
        root.insert(
            "meta".to_owned(),
            json!({"lastTouchedVersion": vintage.release()}),
        );
    }
    let mut backup = path.clone().into_os_string();
    backup.push(".bak");
    std::fs::write(backup, text)?;
    std::fs::write(path, format!("{value:#}\n"))
}
