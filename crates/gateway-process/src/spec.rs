//! What to launch, in a form that can be logged.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::env::Environment;
use crate::ownership::{Claim, LaunchFingerprint};

/// What becomes of a child whose owner dies without having ended it: killed, crashed, out of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OwnerDeath {
    /// It is killed with its owner: by the kernel on Linux, by the job object on Windows. macOS has no such thing; there a gateway ends
    /// at the next line that it logs, because nobody reads it any more. What it had started besides is ended by the next owner of
    /// the same [`Claim`].
    #[default]
    EndsChild,
    /// It lives on, and the next owner of the same [`Claim`] takes it over. It runs in a session of its own and writes its output into files
    /// beside the record, where its owner reads it. Linux only.
    ChildSurvives,
}

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
    /// The TCP port that it is to serve; tells who serves in its place when it was only a launcher. `None` when it serves none.
    pub port: Option<u16>,
    /// The instance that it is launched for, where the launch is written down; `None` for a child that nobody has to find again.
    pub claim: Option<Claim>,
    /// What becomes of it when this process dies. Default: it is killed.
    pub owner_death: OwnerDeath,
}

impl LaunchSpec {
    /// A program without arguments.
    pub fn new(program: impl Into<PathBuf>, env: Environment) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env,
            current_dir: None,
            port: None,
            claim: None,
            owner_death: OwnerDeath::default(),
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

    /// Says which TCP port it is to serve.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Writes the launch down under this claim, so that a later owner can prove that what is left of it is ours.
    #[must_use]
    pub fn claimed(mut self, claim: Claim) -> Self {
        self.claim = Some(claim);
        self
    }

    /// Sets what becomes of the child when this process dies.
    #[must_use]
    pub fn owner_death(mut self, owner_death: OwnerDeath) -> Self {
        self.owner_death = owner_death;
        self
    }

    /// What this launch would start, in a form that can be compared and says nothing: see [`LaunchFingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> LaunchFingerprint {
        let mut hash = Sha256::new();
        // Each part with its length, so that no two lists of parts look the same.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(self.program.as_os_str().as_encoded_bytes());
        part(
            self.current_dir
                .as_deref()
                .unwrap_or(Path::new(""))
                .as_os_str()
                .as_encoded_bytes(),
        );
        part(&[u8::from(self.owner_death == OwnerDeath::ChildSurvives)]);
        part(&(self.args.len() as u64).to_le_bytes());
        for argument in &self.args {
            part(argument.as_encoded_bytes());
        }
        for (name, value) in self.env.iter_set() {
            // Made of what was inherited and a folder that the program's path tells as well.
            if !name.eq_ignore_ascii_case("PATH") {
                part(name.as_encoded_bytes());
                part(value.as_encoded_bytes());
            }
        }
        let digits = hash.finalize();
        LaunchFingerprint(digits.iter().map(|byte| format!("{byte:02x}")).collect())
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
    /// The launch could not be written down, and a child that nobody can prove to be ours must not be started.
    #[error(
        "cannot start `{command}`: the launch cannot be recorded in {} ({source}); make the directory writable", .directory.display()
    )]
    NotRecorded {
        /// The command line, redacted.
        command: String,
        /// The instance's directory.
        directory: PathBuf,
        /// The operating system's answer.
        source: Arc<std::io::Error>,
    },
    /// A child that outlives its owner needs a claim under which the next one finds it, and an operating system that lets it be proved.
    #[error("cannot start `{command}` so that it outlives this process: {why}")]
    CannotSurvive {
        /// The command line, redacted.
        command: String,
        /// What is missing.
        why: &'static str,
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

    #[test]
    fn fingerprints_tell_launches_apart_and_logins_not() {
        let spec = |token: &str, args: &[&str]| {
            let mut env = Environment::from_vars([("SSH_TTY", token), ("PATH", token)]);
            env.set_secret("TOKEN", token.to_owned().into());
            LaunchSpec::new("node", env).args(args.iter().copied())
        };
        let of = |spec: LaunchSpec| spec.fingerprint();
        let one = of(spec("t", &["a", "b"]));
        assert_eq!(one, of(spec("t", &["a", "b"])));
        let mut elsewhere = spec("t", &["a", "b"]);
        elsewhere.env.prepend_path("/somewhere");
        assert_eq!(one, of(elsewhere), "another login");
        for other in [
            spec("u", &["a", "b"]),
            spec("t", &["ab"]),
            spec("t", &["a", "b", ""]),
            spec("t", &["a", "b"]).current_dir("/"),
            spec("t", &["a", "b"]).owner_death(OwnerDeath::ChildSurvives),
        ] {
            assert_ne!(one, of(other));
        }
        assert!(!one.to_string().contains('t') && one.to_string().len() == 12);
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
