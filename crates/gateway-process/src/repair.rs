//! Repairing a gateway's configuration with OpenClaw's own doctor.
//!
//! The doctor rewrites the file in place, adds keys that nobody asked for, and has replaced a file it could not parse by a fresh one. So a
//! copy is made first, and a repair without a copy does not happen. Its exit code says less than one would like: some
//! releases end with 0 and repair nothing. Therefore the outcome has both, the code and whether the file's content is another one now.
//!
//! The gateway must be gone before the doctor runs; and whether a repair is worth trying is decided elsewhere.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::exit::ChildExit;
use crate::host::{BlockingWork, ProcessHost};
use crate::openclaw::{GatewayLaunch, OpenClaw};
use crate::output::OutputLine;
use crate::run::RunError;
use crate::spec::LaunchSpec;

/// How long the doctor may take. It was seen to need 2 to 12 s.
pub const DOCTOR_DEADLINE: Duration = Duration::from_secs(120);

/// A configuration is a few KiB. What is larger than this is not copied, and so not repaired.
const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;

/// One run of the doctor, prepared.
#[derive(Clone, Debug)]
pub struct ConfigRepair {
    doctor: LaunchSpec,
    config: PathBuf,
    deadline: Duration,
}

impl ConfigRepair {
    /// A repair by the given command of the given file, within [`DOCTOR_DEADLINE`].
    pub fn new(doctor: LaunchSpec, config: impl Into<PathBuf>) -> Self {
        Self {
            doctor,
            config: config.into(),
            deadline: DOCTOR_DEADLINE,
        }
    }

    /// The repair for a launch: the doctor in the same environment as the gateway, on the configuration that gateway reads.
    ///
    /// # Errors
    /// [`RepairError::UnknownConfig`] when neither a configuration path, nor a state directory, nor a home directory is known.
    pub fn for_launch(openclaw: &OpenClaw, launch: &GatewayLaunch) -> Result<Self, RepairError> {
        let config = launch.config_path().ok_or(RepairError::UnknownConfig)?;
        Ok(Self::new(openclaw.doctor_spec(launch), config))
    }

    /// Sets how long the doctor may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The file that is to be repaired.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Copies the configuration and runs the doctor. When it returns, the doctor is gone, also after its deadline. Dropping the future
    /// kills the doctor.
    ///
    /// # Errors
    /// [`RepairError`] when the file cannot be read or copied (the doctor is not run then), or when the doctor could not be run to
    /// its end. A doctor that ends with another code than zero is an outcome, not an error.
    pub async fn run<H: ProcessHost + ?Sized>(
        &self,
        host: &H,
    ) -> Result<RepairOutcome, RepairError> {
        let config = self.config.clone();
        let before = blocking(host, move || Snapshot::take_and_copy(&config)).await?;
        let finished = host
            .run(&self.doctor, self.deadline)
            .await
            .map(|report| report.without_secrets_of(&self.doctor.env));
        let config = self.config.clone();
        let after = blocking(host, move || {
            Snapshot::read(&config).map(|(snapshot, _)| snapshot)
        })
        .await;
        // A file that was readable and is not any more has certainly changed.
        let changed = after.map_or(true, |after| after != before.snapshot);
        let backup = before.copy;
        match finished {
            Ok(report) => Ok(RepairOutcome {
                exit: report.exit,
                output: report.output,
                changed,
                backup,
                config: self.config.clone(),
            }),
            Err(source) => Err(RepairError::Doctor {
                source,
                changed,
                backup,
            }),
        }
    }
}

/// What a finished doctor has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairOutcome {
    /// How the doctor ended.
    pub exit: ChildExit,
    /// The last lines it printed, without the secrets of its environment.
    pub output: Vec<OutputLine>,
    /// The configuration file has another content than before, or exists now and did not before.
    pub changed: bool,
    /// The copy of the file as it was; `None` when there was no file.
    pub backup: Option<PathBuf>,
    /// The configuration file.
    pub config: PathBuf,
}

impl RepairOutcome {
    /// `true` when the doctor says that it succeeded: exit code 0 and nothing else.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.exit.code == Some(0)
    }
}

impl std::fmt::Display for RepairOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = match (self.succeeded(), self.changed) {
            (true, true) => "repaired",
            (true, false) => "left unchanged (the doctor saw nothing to repair)",
            (false, true) => "changed, but the doctor failed",
            (false, false) => "not repaired",
        };
        write!(f, "{} was {verdict}: {}", self.config.display(), self.exit)?;
        match &self.backup {
            Some(backup) => write!(f, "; the file as it was: {}", backup.display()),
            None => f.write_str("; there was no file before"),
        }
    }
}

/// A repair could not be carried out.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// Nobody said where the configuration is.
    #[error(
        "the configuration file of the gateway is not known; set a state directory, HOME or OPENCLAW_CONFIG_PATH"
    )]
    UnknownConfig,
    /// The file is there and cannot be read.
    #[error("the configuration {} cannot be read ({source}); it was not touched: correct its permissions and try again", .config.display())]
    Unreadable {
        /// The file.
        config: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// No copy could be made, so the doctor was not run.
    #[error("no copy of the configuration {} could be made beside it ({source}), so the doctor was not run; make the folder writable or repair the file by hand", .config.display())]
    NoBackup {
        /// The file.
        config: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// The doctor did not run to its end.
    #[error("the doctor did not finish: {source}; the configuration was {}{}", if *.changed { "changed" } else { "not changed" }, .backup.as_ref().map(|backup| format!(", the file as it was: {}", backup.display())).unwrap_or_default())]
    Doctor {
        /// What happened to it.
        source: RunError,
        /// Whether the file's content is another one now.
        changed: bool,
        /// The copy of the file as it was; `None` when there was no file.
        backup: Option<PathBuf>,
    },
}

/// A file's content, by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Snapshot {
    Missing,
    Content([u8; 32]),
}

struct Copied {
    snapshot: Snapshot,
    copy: Option<PathBuf>,
}

impl Snapshot {
    fn read(config: &Path) -> Result<(Self, Vec<u8>), RepairError> {
        let unreadable = |source| RepairError::Unreadable {
            config: config.to_owned(),
            source: Arc::new(source),
        };
        let file = match fs::File::open(config) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((Self::Missing, Vec::new()));
            }
            Err(error) => return Err(unreadable(error)),
        };
        let mut content = Vec::new();
        file.take(MAX_CONFIG_BYTES + 1)
            .read_to_end(&mut content)
            .map_err(unreadable)?;
        if content.len() as u64 > MAX_CONFIG_BYTES {
            let message = format!("it is larger than {MAX_CONFIG_BYTES} bytes");
            return Err(unreadable(io::Error::new(
                io::ErrorKind::FileTooLarge,
                message,
            )));
        }
        Ok((Self::Content(Sha256::digest(&content).into()), content))
    }

    fn take_and_copy(config: &Path) -> Result<Copied, RepairError> {
        let (snapshot, content) = Self::read(config)?;
        let copy = match snapshot {
            Self::Missing => None,
            Self::Content(hash) => {
                let copy = copy_beside(config, &hash, &content).map_err(|source| {
                    RepairError::NoBackup {
                        config: config.to_owned(),
                        source: Arc::new(source),
                    }
                })?;
                Some(copy)
            }
        };
        Ok(Copied { snapshot, copy })
    }
}

/// Writes `<name>.before-repair-<hash>` beside the file, readable for its owner only. The name follows from the content, so repairing the
/// same broken file a hundred times makes one copy, and no copy is ever overwritten.
fn copy_beside(config: &Path, hash: &[u8; 32], content: &[u8]) -> io::Result<PathBuf> {
    let folder = config
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut name = config.file_name().unwrap_or_default().to_owned();
    name.push(".before-repair-");
    for byte in &hash[..8] {
        name.push(format!("{byte:02x}"));
    }
    let target = folder.join(&name);
    for attempt in 1..=16_u32 {
        let target = if attempt == 1 {
            target.clone()
        } else {
            // Something else has the name: a copy that somebody edited.
            let mut numbered = name.clone();
            numbered.push(format!("-{attempt}"));
            folder.join(numbered)
        };
        // Complete or absent: written under another name, and only then given its own, unless that is taken.
        let mut file = tempfile::Builder::new()
            .prefix(".before-repair-")
            .tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(&target) {
            Ok(_) => return Ok(target),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read(&target).is_ok_and(|existing| existing == content) {
                    return Ok(target);
                }
            }
            Err(error) => return Err(error.error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        format!("{} and its numbered names are taken", target.display()),
    ))
}

async fn blocking<T: Send + 'static, H: ProcessHost + ?Sized>(
    host: &H,
    work: impl FnOnce() -> Result<T, RepairError> + Send + 'static,
) -> Result<T, RepairError> {
    let (report, reported) = oneshot::channel();
    let work = BlockingWork::new(move || {
        // Nobody waits for it any more when the repair was called off.
        let _ = report.send(work());
    });
    host.do_blocking(work).await;
    match reported.await {
        Ok(result) => result,
        // A host that drops the work instead of doing it ends here, and so does a runtime that shuts down.
        Err(_) => std::future::pending().await,
    }
}
