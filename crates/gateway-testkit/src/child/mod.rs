//! The fake gateway as a process: what a supervisor sees of `openclaw`.
//!
//! [`main`] is the body of the `fake-openclaw` binary; a program that wants to start itself as a gateway calls it too.
//! It understands
//!
//! ```text
//! gateway run --allow-unconfigured --bind loopback --port 18789 [--token T]
//! doctor --fix --yes --non-interactive
//! --version
//! ```
//!
//! and the environment `OPENCLAW_GATEWAY_TOKEN`, `OPENCLAW_STATE_DIR`, `HOME`, `OPENCLAW_CONFIG_PATH`,
//! `OPENCLAW_GATEWAY_PORT`. Boot phases, exit codes, the texts on stderr, the lock of the state directory, a taken port,
//! signals and the repair of a configuration follow the release of the script; so does what happens when nobody reads its
//! output any more. Waits are short unless the script makes them long.
//!
//! The environment variable [`SCRIPT_VARIABLE`] holds a [`ChildScript`] as JSON, which makes it fail on purpose:
//!
//! ```
//! use gateway_testkit::child::ChildScript;
//!
//! // Crashes 50 ms after its first start, then works.
//! let script: ChildScript = serde_json::from_str(
//!     r#"{"starts_file": "/tmp/starts", "first_starts": [{"crash_after_ms": 50, "crash_code": 3}]}"#,
//! )?;
//! assert_eq!(script.first_starts[0].crash_after_ms, Some(50));
//! # Ok::<(), serde_json::Error>(())
//! ```

mod arguments;
mod doctor;
mod grandchild;
mod launcher;
mod log;
mod run;
mod script;
mod signals;
mod state_lock;
mod surroundings;

use std::ffi::OsString;
use std::process::ExitCode;

pub use script::{
    ChildScript, DoctorScript, ExitAtStart, Flood, GrandchildScript, SCRIPT_VARIABLE, StartScript,
};

use arguments::Command;
use surroundings::Surroundings;

/// Runs the command line of a child. `args` are the arguments without the program's own name.
///
/// Blocks until the command has ended. Some ends leave the process at once, without coming back: a scripted crash, and a
/// gateway of 2026.9.6 whose output nobody reads.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let script = match ChildScript::from_environment() {
        Ok(script) => script,
        Err(error) => {
            eprintln!("{SCRIPT_VARIABLE} is not a script: {error}");
            return ExitCode::from(2);
        }
    };
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    match arguments::parse(&args) {
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
        Ok(Command::Version) => {
            println!("OpenClaw {} (fake)", script.vintage.release());
            ExitCode::SUCCESS
        }
        Ok(Command::Grandchild(script)) => grandchild::live(&script),
        Ok(Command::Doctor) => doctor::run(&script, &Surroundings::read()),
        Ok(Command::GatewayRun(options)) => run::run(&script, &options, &Surroundings::read()),
    }
}
