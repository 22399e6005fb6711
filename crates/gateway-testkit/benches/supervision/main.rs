//! What supervision costs, each figure next to what it is compared with in the same run. `cargo xtask bench` runs it and reads what it
//! prints: one JSON object per line, in the form of [`Figure`](figure::Figure).
//!
//! ```text
//! cargo bench -p gateway-testkit --bench supervision -- [NAME…]
//! ```
//!
//! Each group of figures runs in a process of its own, so that the memory of one is not counted for another.

#[cfg(target_os = "linux")]
mod crash;
#[cfg(target_os = "linux")]
mod figure;
#[cfg(target_os = "linux")]
mod idle;
#[cfg(target_os = "linux")]
mod intake;
#[cfg(target_os = "linux")]
mod start;
#[cfg(target_os = "linux")]
mod stop;
#[cfg(target_os = "linux")]
mod supervised;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("these figures are measured on Linux only");
}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::process::{Command, ExitCode};

    use crate::{crash, figure, idle, intake, start, stop};

    /// A group of figures by its name.
    type Group = (&'static str, fn());

    const GROUPS: &[Group] = &[
        ("stderr-intake", intake::run),
        ("crash", crash::run),
        ("stop", stop::run),
        ("start", start::run),
        ("idle", idle::run),
        ("journal", idle::journals),
    ];

    /// The first argument of the process that measures one group.
    const MEASURE: &str = "measure";

    pub(crate) fn main() -> ExitCode {
        // Cargo says what kind of run this is, which is known.
        let arguments: Vec<String> = std::env::args()
            .skip(1)
            .filter(|a| a != "--bench")
            .collect();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match words.as_slice() {
            [intake::WRITER, bytes] => intake::write(bytes),
            [MEASURE, name] => match GROUPS.iter().find(|(known, _)| known == name) {
                Some((_, run)) => {
                    run();
                    ExitCode::SUCCESS
                }
                None => ExitCode::FAILURE,
            },
            names => measure(names),
        }
    }

    fn measure(names: &[&str]) -> ExitCode {
        if let Some(unknown) = names
            .iter()
            .find(|name| !GROUPS.iter().any(|(known, _)| known == *name))
        {
            let known: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
            eprintln!(
                "there is no figure called {unknown:?}; there are {}",
                known.join(", ")
            );
            return ExitCode::FAILURE;
        }
        let wanted = |name: &str| names.is_empty() || names.contains(&name);
        for (name, _) in GROUPS.iter().filter(|(name, _)| wanted(name)) {
            let status = Command::new(figure::own_program())
                .args([MEASURE, name])
                .status();
            if !status.expect("this program can be started").success() {
                eprintln!("measuring {name} failed");
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    }
}
