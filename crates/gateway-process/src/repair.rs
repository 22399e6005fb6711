//! Repairing a gateway's configuration with OpenClaw's own doctor, so that it can be undone and makes nothing worse.
//!
//! The doctor rewrites the file in place, adds keys that nobody asked for, and has replaced a file it could not parse by a fresh one, put
//! placeholders where secrets were, and gone back to an older version. So a copy is made first, and a repair without a copy does not
//! happen; what the doctor made is compared with what was there, value by value; and when something is gone that must not go, the copy is
//! put back and the doctor's version is kept beside it. Its exit code says less than one would like: some releases end with 0 and repair
//! nothing.
//!
//! One content is given to the doctor once. What was tried is written down beside the configuration, so that neither a restart of the
//! manager nor a second one tries it again.
//!
//! | file beside `openclaw.json` | what it is |
//! |---|---|
//! | `openclaw.json.before-repair-<hash>` | the file, or one that it includes, as it was; the newest 20 |
//! | `openclaw.json.after-repair-<hash>` | what a doctor had made of it, where that was taken back; the newest 20 |
//! | `openclaw.json.repairs.json` | which contents were tried, when, and how it ended |
//! | `openclaw.json.repair-lock` | empty; locked while a repair runs |
//!
//! The gateway must be gone before the doctor runs; and whether a repair is worth trying is decided elsewhere.

mod compare;
mod copies;
#[cfg(test)]
mod destruction;
mod diff;
mod document;
mod files;
mod memory;
mod restore;
mod tree;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use self::compare::judge;
use self::copies::Kind;
use self::document::Document;
use self::files::{Configuration, Content, folder_of};
use self::memory::{Attempt, Copied, Lock, Memory, utc};
use self::restore::{PutBack, put_back};
use crate::exit::ChildExit;
use crate::host::{ProcessHost, blocking};
use crate::openclaw::{GatewayLaunch, OpenClaw};
use crate::output::OutputLine;
use crate::redact::Redactor;
use crate::run::{RunError, RunLimits, RunReport};
use crate::spec::LaunchSpec;

pub use self::compare::RefusalReason;
pub use self::copies::COPIES_KEPT;
pub use self::diff::{ConfigChange, ConfigDiff};
pub use self::memory::AttemptResult;

/// How long the doctor may take. Most runs take 2 to 18 s; but it also installs what the configured channels need, and OpenClaw 2026.9.6
/// was seen to come to its end after 296 s where the package registry could not be reached.
pub const DOCTOR_DEADLINE: Duration = Duration::from_secs(600);

/// How long the doctor may print nothing. In that run it was silent for 148 s.
pub const DOCTOR_SILENCE: Duration = Duration::from_secs(240);

/// One run of the doctor, prepared.
#[derive(Clone, Debug)]
pub struct ConfigRepair {
    doctor: LaunchSpec,
    version: Option<String>,
    config: PathBuf,
    limits: RunLimits,
    again: bool,
}

impl ConfigRepair {
    /// A repair by the given command of the given file, within [`DOCTOR_DEADLINE`] and [`DOCTOR_SILENCE`].
    pub fn new(doctor: LaunchSpec, config: impl Into<PathBuf>) -> Self {
        Self {
            doctor,
            version: None,
            config: config.into(),
            limits: RunLimits {
                overall: DOCTOR_DEADLINE,
                silence: Some(DOCTOR_SILENCE),
            },
            again: false,
        }
    }

    /// The repair for a launch: the doctor in the same environment as the gateway, on the configuration that gateway reads.
    ///
    /// # Errors
    /// [`RepairError::UnknownConfig`] when neither a configuration path, nor a state directory, nor a home directory is known.
    pub fn for_launch(openclaw: &OpenClaw, launch: &GatewayLaunch) -> Result<Self, RepairError> {
        let config = launch.config_path().ok_or(RepairError::UnknownConfig)?;
        Ok(Self {
            version: openclaw.version().map(str::to_owned),
            ..Self::new(openclaw.doctor_spec(launch), config)
        })
    }

    /// Sets how long the doctor may take, and how long it may be silent.
    #[must_use]
    pub fn limits(mut self, limits: impl Into<RunLimits>) -> Self {
        self.limits = limits.into();
        self
    }

    /// Runs the doctor also on a content that it was run on before: for a person who knows that something else has changed since.
    /// Default no.
    #[must_use]
    pub fn again(mut self, again: bool) -> Self {
        self.again = again;
        self
    }

    /// The file that is to be repaired.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Copies the configuration, runs the doctor, and puts the copy back when the doctor made it worse. When it returns, the doctor is
    /// gone, also after its deadline.
    ///
    /// Dropping the future kills the doctor, puts back what it changed, and counts as not tried; it blocks on the file system for
    /// that, because nothing else may touch the file before.
    ///
    /// # Errors
    /// [`RepairError`] when the file cannot be read or copied, was tried before, or is being repaired by another process (the
    /// doctor is not run then), or when the doctor could not be run to its end. A doctor that ends with another code than zero, or whose
    /// result is taken back, is an outcome, not an error.
    pub async fn run<H: ProcessHost + ?Sized>(
        &self,
        host: &H,
    ) -> Result<RepairOutcome, RepairError> {
        let repair = self.clone();
        let prepared = blocking(host, move || repair.prepare()).await?;
        let guard = Guard::over(prepared);
        let finished = host
            .run(&self.doctor, self.limits)
            .await
            .map(|report| report.without_secrets_of(&self.doctor.env));
        let doctor = DoctorEnd::of(&finished);
        let prepared = Arc::clone(&guard.prepared);
        let review = blocking(host, move || prepared.review()).await;
        // By then somebody else may have edited the file.
        let settling = blocking(host, move || guard.disarm().settle(review, doctor));
        let aftermath = settling.await?;
        match finished {
            Ok(report) => Ok(RepairOutcome {
                exit: report.exit,
                output: report.output,
                config: self.config.clone(),
                aftermath,
            }),
            Err(source) => Err(RepairError::Doctor {
                source,
                aftermath: Box::new(aftermath),
            }),
        }
    }

    fn prepare(&self) -> Result<Prepared, RepairError> {
        let config = || self.config.clone();
        let no_backup = |source| RepairError::NoBackup {
            config: config(),
            source: Arc::new(source),
        };
        let read = || {
            Configuration::read(&self.config).map_err(|(config, source)| RepairError::Unreadable {
                config,
                source: Arc::new(source),
            })
        };
        let mut prepared = Prepared {
            before: read()?,
            backup: None,
            others: Vec::new(),
            attempt: None,
            known: self.doctor.env.redactor(),
            _lock: None,
        };
        if prepared.before.main.content == Content::Missing {
            // Nothing to copy, and nothing to remember it by.
            return Ok(prepared);
        }
        let lock = Lock::take(&self.config).map_err(no_backup)?;
        prepared._lock = Some(lock.ok_or_else(|| RepairError::InProgress { config: config() })?);
        self.finish_what_was_begun();
        // Whoever had the lock before may have changed it.
        prepared.before = read()?;
        let mut attempt = Attempt::begun(prepared.before.hash(), self.version.clone());
        let no_memory = |source| RepairError::NoMemory {
            config: config(),
            source: Arc::new(source),
        };
        let mut memory = Memory::of(&self.config).map_err(no_memory)?;
        if let Some(earlier) = memory.earlier(&attempt).filter(|_| !self.again) {
            return Err(RepairError::AlreadyTried {
                config: config(),
                at: earlier.when(),
                result: earlier.result,
                memory: memory.path,
            });
        }
        let folder = folder_of(&self.config);
        prepared.others = copies::other_versions(&self.config)
            .into_iter()
            .filter_map(|(path, content)| match Document::read(&content) {
                Document::Whole(tree) => Some((path, tree)),
                Document::Damaged { .. } => None,
            })
            .collect();
        for file in prepared.before.files() {
            let Some(content) = file.content.bytes() else {
                continue;
            };
            let copy =
                copies::keep(folder, &file.path, Kind::Before, content).map_err(no_backup)?;
            attempt.copies.push(Copied {
                file: file.path.to_string_lossy().into_owned(),
                copy: copy.to_string_lossy().into_owned(),
            });
            prepared.backup.get_or_insert(copy);
        }
        memory.note(&attempt).map_err(no_memory)?;
        prepared.attempt = Some(attempt);
        Ok(prepared)
    }

    /// A repair whose program or machine ended in the middle of it is finished by the next one: what its doctor has made worse is taken
    /// back. Files that were written after that doctor's time are somebody else's work and left alone.
    fn finish_what_was_begun(&self) {
        let unfinished =
            Memory::of(&self.config).map_or_else(|_| Vec::new(), |memory| memory.unfinished());
        for attempt in unfinished {
            let over = attempt.when() + self.limits.overall;
            let contents = attempt.copies.iter().filter_map(|copied| {
                let content = copies::content_of(Path::new(&copied.copy))?;
                Some((PathBuf::from(&copied.file), content))
            });
            let Some(before) = Configuration::of_contents(&self.config, contents) else {
                continue;
            };
            let is_later = |file: &files::ConfigFile| {
                let facts = std::fs::metadata(&file.path);
                facts
                    .and_then(|facts| facts.modified())
                    .is_ok_and(|written| written > over)
            };
            if before.files().any(is_later) {
                continue;
            }
            let backup = attempt
                .copies
                .first()
                .map(|copied| PathBuf::from(&copied.copy));
            let prepared = Prepared {
                before,
                backup,
                others: Vec::new(),
                attempt: Some(attempt),
                known: self.doctor.env.redactor(),
                _lock: None,
            };
            let review = prepared.review();
            let doctor = if review.reasons.is_empty() {
                DoctorEnd::Succeeded
            } else {
                DoctorEnd::Ended
            };
            match prepared.settle(review, doctor) {
                Ok(aftermath) => tracing::warn!(
                    "finished a repair of {} that had been interrupted: it was {aftermath:#}",
                    self.config.display()
                ),
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }
}

/// How it went for the doctor, as far as its work is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DoctorEnd {
    Succeeded,
    Failed,
    /// We ended it.
    Ended,
    /// It did not begin.
    NeverRan,
    /// Nobody wants the repair any more.
    CalledOff,
}

impl DoctorEnd {
    fn of(finished: &Result<RunReport, RunError>) -> Self {
        match finished {
            Ok(report) if report.success() => Self::Succeeded,
            Ok(_) => Self::Failed,
            Err(RunError::Spawn(_)) => Self::NeverRan,
            Err(_) => Self::Ended,
        }
    }
}

/// A configuration with its copies made, ready for the doctor.
#[derive(Debug)]
struct Prepared {
    before: Configuration,
    /// The copy of the file itself.
    backup: Option<PathBuf>,
    /// Other versions of the file that were beside it.
    others: Vec<(PathBuf, Value)>,
    attempt: Option<Attempt>,
    /// The secrets that the doctor is given.
    known: Redactor,
    _lock: Option<Lock>,
}

/// What the doctor made of it.
struct Review {
    after: Configuration,
    reasons: Vec<RefusalReason>,
    diff: ConfigDiff,
}

impl Prepared {
    fn review(&self) -> Review {
        let after = self.before.again();
        let partial = !self.before.is_whole() || !after.is_whole();
        Review {
            reasons: judge(&self.before, &after, &self.others, &self.known),
            diff: ConfigDiff::between(&self.before.tree(), &after.tree(), partial, &self.known),
            after,
        }
    }

    /// Lets the doctor's work stay, or takes it back.
    fn settle(&self, review: Review, doctor: DoctorEnd) -> Result<Aftermath, RepairError> {
        let mut aftermath = Aftermath {
            verdict: RepairVerdict::NotRepaired,
            diff: review.diff,
            backup: self.backup.clone(),
            rejected: Vec::new(),
        };
        let changed: Vec<_> = self
            .before
            .files()
            .filter_map(|was| Some((was, &review.after.file(&was.path)?.content)))
            .filter(|(was, is)| was.content != **is)
            .collect();
        let succeeded = doctor == DoctorEnd::Succeeded;
        if changed.is_empty() {
            if succeeded {
                aftermath.verdict = RepairVerdict::Unchanged;
            }
        } else if succeeded && review.reasons.is_empty() {
            aftermath.verdict = RepairVerdict::Repaired;
        } else {
            let mut reasons = review.reasons;
            if !succeeded {
                reasons.insert(0, RefusalReason::DoctorFailed);
            }
            let mut edited = false;
            for (was, is) in changed {
                let put_back = self.take_back(was, is, &mut aftermath.rejected);
                edited |= put_back.map_err(|source| RepairError::NotPutBack {
                    config: was.path.clone(),
                    backup: self.backup.clone(),
                    source: Arc::new(source),
                })?;
            }
            aftermath.verdict = if edited {
                RepairVerdict::EditedMeanwhile { reasons }
            } else {
                RepairVerdict::Refused { reasons }
            };
        }
        self.remember(doctor, &aftermath.verdict);
        Ok(aftermath)
    }

    /// Keeps what the doctor made of a file, and puts the file back. `true` when somebody else has edited it, so that it stays.
    fn take_back(
        &self,
        was: &files::ConfigFile,
        is: &Content,
        rejected: &mut Vec<PathBuf>,
    ) -> io::Result<bool> {
        if let Content::Bytes(content) = is {
            let folder = folder_of(&self.before.main.path);
            rejected.push(copies::keep(folder, &was.path, Kind::After, content)?);
        }
        match put_back(was, is)? {
            PutBack::Done { moved } => {
                rejected.extend(moved);
                Ok(false)
            }
            PutBack::EditedMeanwhile => Ok(true),
        }
    }

    fn remember(&self, doctor: DoctorEnd, verdict: &RepairVerdict) {
        let Some(attempt) = &self.attempt else {
            return;
        };
        let result = match (doctor, verdict) {
            (DoctorEnd::NeverRan | DoctorEnd::CalledOff, _) => None,
            (_, RepairVerdict::Repaired) => Some(AttemptResult::Repaired),
            (_, RepairVerdict::Refused { .. }) => Some(AttemptResult::Refused),
            (_, RepairVerdict::EditedMeanwhile { .. }) => Some(AttemptResult::EditedMeanwhile),
            (DoctorEnd::Ended, _) => Some(AttemptResult::DoctorFailed),
            (_, RepairVerdict::Unchanged | RepairVerdict::NotRepaired) => {
                Some(AttemptResult::Unchanged)
            }
        };
        let written = Memory::of(&self.before.main.path).and_then(|mut memory| match result {
            Some(result) => memory.note(&Attempt {
                result,
                ..attempt.clone()
            }),
            None => memory.forget(attempt),
        });
        if let Err(error) = written {
            // It stays written down as begun, and so is not tried again.
            tracing::warn!(%error, "how the repair of the configuration ended could not be written down");
        }
    }
}

/// Undoes a repair that nobody waits for any more. The doctor is killed by whoever drops its run, which comes first.
struct Guard {
    prepared: Arc<Prepared>,
    armed: bool,
}

impl Guard {
    fn over(prepared: Prepared) -> Self {
        Self {
            prepared: Arc::new(prepared),
            armed: true,
        }
    }

    fn disarm(mut self) -> Arc<Prepared> {
        self.armed = false;
        Arc::clone(&self.prepared)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let review = self.prepared.review();
        if let Err(error) = self.prepared.settle(review, DoctorEnd::CalledOff) {
            tracing::warn!("{error}");
        }
    }
}

/// What became of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepairVerdict {
    /// The doctor succeeded and changed the file, and nothing that matters is gone.
    Repaired,
    /// The doctor succeeded and left the file as it was.
    Unchanged,
    /// The doctor failed and left the file as it was.
    NotRepaired,
    /// The doctor changed the file, and that was taken back: the file is as it was.
    Refused {
        /// Why; at least one.
        reasons: Vec<RefusalReason>,
    },
    /// The doctor's change was to be taken back, but somebody else has edited the file since, so it was left alone.
    EditedMeanwhile {
        /// What was wrong with the doctor's change; at least one.
        reasons: Vec<RefusalReason>,
    },
}

impl RepairVerdict {
    /// A short name for logs and machine-readable output, in kebab case.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Repaired => "repaired",
            Self::Unchanged => "unchanged",
            Self::NotRepaired => "not-repaired",
            Self::Refused { .. } => "refused",
            Self::EditedMeanwhile { .. } => "edited-meanwhile",
        }
    }

    /// What was wrong with the doctor's work; empty when nothing was.
    #[must_use]
    pub fn reasons(&self) -> &[RefusalReason] {
        match self {
            Self::Refused { reasons } | Self::EditedMeanwhile { reasons } => reasons,
            Self::Repaired | Self::Unchanged | Self::NotRepaired => &[],
        }
    }
}

/// What a run of the doctor left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Aftermath {
    /// What became of the configuration.
    pub verdict: RepairVerdict,
    /// What the doctor did to it, whether or not that stayed.
    pub diff: ConfigDiff,
    /// The copy of the file as it was; `None` when there was no file. Copies of included files are beside it.
    pub backup: Option<PathBuf>,
    /// What the doctor made of the files, where that was taken back.
    pub rejected: Vec<PathBuf>,
}

impl fmt::Display for Aftermath {
    /// One line; with `{:#}` the differences follow, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = |f: &mut fmt::Formatter<'_>, reasons: &[RefusalReason]| {
            for (index, reason) in reasons.iter().take(5).enumerate() {
                f.write_str(if index == 0 { ": " } else { ", " })?;
                write!(f, "{reason}")?;
            }
            match reasons.len().saturating_sub(5) {
                0 => Ok(()),
                more => write!(f, ", and {more} more"),
            }
        };
        match &self.verdict {
            RepairVerdict::Repaired => f.write_str("repaired")?,
            RepairVerdict::Unchanged => {
                f.write_str("left unchanged (the doctor saw nothing to repair)")?;
            }
            RepairVerdict::NotRepaired => f.write_str("not repaired")?,
            RepairVerdict::Refused { reasons } => {
                f.write_str("put back, because the doctor made it worse")?;
                because(f, reasons)?;
            }
            RepairVerdict::EditedMeanwhile { reasons } => {
                f.write_str("edited by somebody else while the doctor ran, and left alone; the doctor made it worse")?;
                because(f, reasons)?;
            }
        }
        match &self.backup {
            Some(backup) => write!(f, "; the file as it was: {}", backup.display())?,
            None => f.write_str("; there was no file before")?,
        }
        for rejected in &self.rejected {
            write!(f, "; what the doctor made of it: {}", rejected.display())?;
        }
        if f.alternate() && !self.diff.is_empty() {
            for line in self.diff.to_string().lines() {
                write!(f, "\n  {line}")?;
            }
        }
        Ok(())
    }
}

/// What a finished doctor has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairOutcome {
    /// How the doctor ended.
    pub exit: ChildExit,
    /// The last lines it printed, without the secrets of its environment.
    pub output: Vec<OutputLine>,
    /// The configuration file.
    pub config: PathBuf,
    /// What became of it.
    pub aftermath: Aftermath,
}

impl RepairOutcome {
    /// `true` when the doctor ended with code 0, its only success, and its work was not taken back.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(
            self.aftermath.verdict,
            RepairVerdict::Repaired | RepairVerdict::Unchanged
        )
    }

    /// `true` when the configuration is another one than before, by the work of the doctor.
    #[must_use]
    pub fn changed(&self) -> bool {
        self.aftermath.verdict == RepairVerdict::Repaired
    }
}

impl fmt::Display for RepairOutcome {
    /// One line; with `{:#}` the differences follow, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: doctor {}; it was ",
            self.config.display(),
            self.exit
        )?;
        self.aftermath.fmt(f)
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
    /// The file, or one that it includes, is there and cannot be read.
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
    /// It could not be found out or written down what was tried, so the doctor was not run.
    #[error("the attempts to repair {} could not be written down beside it ({source}), so the doctor was not run; repair the file by hand", .config.display())]
    NoMemory {
        /// The file.
        config: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// Another process is repairing it at this moment.
    #[error("the configuration {} is being repaired by another process; wait until that has finished", .config.display())]
    InProgress {
        /// The file.
        config: PathBuf,
    },
    /// The doctor was run on exactly this content before.
    #[error("the doctor was already run on this content of {} at {}: {result}; correct the file by hand (any change of it, or another version of OpenClaw, makes a new attempt possible; attempts are written down in {})", .config.display(), utc(*.at), .memory.display())]
    AlreadyTried {
        /// The file.
        config: PathBuf,
        /// When that was.
        at: SystemTime,
        /// How it ended.
        result: AttemptResult,
        /// Where it is written down.
        memory: PathBuf,
    },
    /// The doctor did not run to its end. What it had changed by then was put back.
    #[error("the doctor did not finish: {source}; the configuration was {aftermath}")]
    Doctor {
        /// What happened to it.
        source: RunError,
        /// What became of the configuration.
        aftermath: Box<Aftermath>,
    },
    /// The doctor made it worse, and the file could not be put back.
    #[error("the doctor made {} worse, and it could not be put back ({source}){}", .config.display(), .backup.as_ref().map(|backup| format!("; do so by hand: the file as it was is {}", backup.display())).unwrap_or_default())]
    NotPutBack {
        /// The file.
        config: PathBuf,
        /// The copy of the configuration as it was.
        backup: Option<PathBuf>,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
}
