//! What to launch, in a form that can be logged.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::Environment;

/// A program with its arguments, its complete environment and its working directory.
///
/// `Display` is the command line fit for a log, `Debug` adds the environment; both hold no secret: values of
/// [`Environment::set_secret`] wherever they turn up, values of options and variables whose name says token, secret, password or
/// key, and passwords inside addresses.
///
/// ```
/// use gateway_process::{env::Environment, spec::LaunchSpec};
/// let mut env = Environment::empty();
/// env.set_secret("OPENCLAW_GATEWAY_TOKEN", "s3cret-value".into());
/// let spec = LaunchSpec::new("node", env).args(["openclaw.mjs", "--token", "other", "--note=s3cret-value"]);
/// assert_eq!(spec.to_string(), "node openclaw.mjs --token [redacted] --note=[redacted]");
/// ```
#[derive(Clone)]
pub struct LaunchSpec {
    /// The program: a path, or a name to look up on the search path of the *child's* environment.
    pub program: PathBuf,
    /// Its arguments. Every local user can read them while the process lives, so no secret belongs here.
    pub args: Vec<OsString>,
    /// Its complete environment.
    pub env: Environment,
    /// Its working directory; `None` means that of this process.
    pub current_dir: Option<PathBuf>,
}

impl LaunchSpec {
    /// A program without arguments.
    pub fn new(program: impl Into<PathBuf>, env: Environment) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env,
            current_dir: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(directory.into());
        self
    }

    /// `true` when an argument equals `text`.
    #[must_use]
    pub fn has_arg(&self, text: &str) -> bool {
        self.args
            .iter()
            .any(|argument| argument == OsStr::new(text))
    }
}

impl fmt::Display for LaunchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arguments: Vec<_> = self
            .args
            .iter()
            .map(|argument| argument.to_string_lossy())
            .collect();
        let program = self.program.to_string_lossy();
        let line = self
            .env
            .redactor()
            .command_line(&program, arguments.iter().map(AsRef::as_ref));
        f.write_str(&line)
    }
}

impl fmt::Debug for LaunchSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directory = self.current_dir.as_deref().map(Path::to_string_lossy);
        f.debug_struct("LaunchSpec")
            .field("command", &format_args!("{self}"))
            .field(
                "current_dir",
                &directory.map(|directory| self.env.redactor().clean(&directory)),
            )
            .field("env", &self.env)
            .finish()
    }
}

/// A child could not be started.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// There is no such program.
    #[error(
        "cannot start `{command}`: the program {program} does not exist; install it or correct the path"
    )]
    ProgramNotFound {
        /// The program as it was given.
        program: PathBuf,
        /// The command line, redacted.
        command: String,
    },
    /// The program may not be executed.
    #[error(
        "cannot start `{command}`: {program} may not be executed ({source}); check its permissions"
    )]
    NotExecutable {
        /// The program as it was given.
        program: PathBuf,
        /// The command line, redacted.
        command: String,
        /// The operating system's answer.
        source: Arc<std::io::Error>,
    },
    /// The working directory is missing or closed to us.
    #[error(
        "cannot start `{command}`: the working directory {directory} cannot be entered; create it or choose another"
    )]
    WorkingDirectory {
        /// The directory.
        directory: PathBuf,
        /// The command line, redacted.
        command: String,
    },
    /// The operating system refused.
    #[error(
        "cannot start `{command}`: {source}; if processes or memory are exhausted, free some and try again"
    )]
    Refused {
        /// The command line, redacted.
        command: String,
        /// The operating system's answer.
        source: Arc<std::io::Error>,
    },
    /// There is no tokio runtime to own the child.
    #[error(
        "cannot start `{command}`: no tokio runtime with I/O enabled is running here; call this from within one"
    )]
    NoRuntime {
        /// The command line, redacted.
        command: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn debug_is_redacted_too() {
        let mut env = Environment::empty();
        env.set_secret("TOKEN", "s3cret-value".into())
            .set("MODE", "dev");
        let spec = LaunchSpec::new("node", env)
            .args(["--x=s3cret-value"])
            .current_dir("/tmp/s3cret-value");
        assert_eq!(
            format!("{spec:?}"),
            r#"LaunchSpec { command: node --x=[redacted], current_dir: Some("/tmp/[redacted]"), env: {"MODE": "dev", "TOKEN": "[redacted]", "inherited": 0} }"#
        );
    }

    proptest! {
        #[test]
        fn a_secret_of_the_environment_is_in_no_text(
            secret in "[A-Za-z0-9_/+=-]{8,40}",
            arguments in proptest::collection::vec((".{0,12}", any::<bool>(), ".{0,12}"), 0..8),
        ) {
            let mut env = Environment::empty();
            env.set_secret("OPENCLAW_GATEWAY_TOKEN", secret.clone().into());
            env.set("NOTE", format!("<{secret}>"));
            let spec = LaunchSpec::new("node", env).args(
                arguments.iter().map(|(before, with, after)| format!("{before}{}{after}", if *with { &secret } else { "" })),
            );
            prop_assert!(!spec.to_string().contains(&secret));
            let debug = format!("{spec:?} {spec:#?}");
            prop_assert!(!debug.contains(&secret));
        }
    }
}
