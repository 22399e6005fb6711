//! The claim on an instance: a directory with a lock that the kernel releases, and the record of what was launched.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;

use super::record::{OwnershipRecord, RECORD_VERSION};

const LOCK: &str = "lock";
const RECORD: &str = "launch.json";
const TOKEN: &str = "token";
/// What is kept is a few hundred bytes; anything beyond this is something else.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The exclusive right to run one instance, for as long as this value, or a clone of it, lives. The kernel releases it when the process
/// ends, however it ends.
///
/// It is a directory of its own with the lock, the record of the living launch, and what has to outlast the owner. Its files are
/// readable for their owner only.
#[derive(Clone)]
pub struct Claim(Arc<dyn ClaimStore>);

/// Where a claim keeps what has to outlast its owner: small files with fixed names. [`Claim::on_directory`] makes the one on disk; test hosts
/// bring their own.
pub trait ClaimStore: Send + Sync + 'static {
    /// What names the instance in messages.
    fn directory(&self) -> &Path;

    /// The content of a file; `None` when there is none.
    ///
    /// # Errors
    /// The operating system's answer.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces a file, at once and whole.
    ///
    /// # Errors
    /// The operating system's answer.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Takes a file away; there need not be one.
    ///
    /// # Errors
    /// The operating system's answer.
    fn remove(&self, name: &str) -> io::Result<()>;
}

impl Claim {
    /// Claims the instance of this directory, which is created when it is missing. Blocks for a moment.
    ///
    /// # Errors
    /// [`ClaimError::Held`] when another process has it, [`ClaimError::Directory`] when it cannot be used.
    pub fn on_directory(directory: impl Into<PathBuf>) -> Result<Self, ClaimError> {
        Ok(Self(Arc::new(ClaimedDirectory::claim(directory.into())?)))
    }

    /// A claim whose record is kept elsewhere.
    pub fn from_store(store: impl ClaimStore) -> Self {
        Self(Arc::new(store))
    }

    /// The instance's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.0.directory()
    }

    /// The record of the newest launch that has not been seen to end.
    ///
    /// # Errors
    /// [`ClaimError`] when there is one that cannot be read. It is left as it is.
    pub fn record(&self) -> Result<Option<OwnershipRecord>, ClaimError> {
        let unusable = |message: String| ClaimError::Record {
            file: self.directory().join(RECORD),
            message,
        };
        let content = self.0.read(RECORD);
        let Some(content) = content.map_err(|error| unusable(error.to_string()))? else {
            return Ok(None);
        };
        #[derive(serde::Deserialize)]
        struct Version {
            version: u32,
        }
        match (
            serde_json::from_slice(&content),
            serde_json::from_slice::<OwnershipRecord>(&content),
        ) {
            (Ok(Version { version }), _) if version > RECORD_VERSION => Err(unusable(format!(
                "it is of version {version}, written by a newer program"
            ))),
            (_, Ok(record)) => Ok(Some(record)),
            (_, Err(error)) => Err(unusable(error.to_string())),
        }
    }

    /// Not synchronised to the disk: after a power cut the launch is gone as well.
    pub(crate) fn save(&self, record: &OwnershipRecord) -> io::Result<()> {
        self.0.write(RECORD, &serde_json::to_vec_pretty(record)?)
    }

    /// Takes the record away, unless it is that of another launch by now.
    pub(crate) fn forget(&self, record: &OwnershipRecord) {
        let current = self.record();
        if matches!(current, Ok(Some(current)) if current.sign == record.sign)
            && let Err(error) = self.0.remove(RECORD)
        {
            tracing::warn!(directory = %self.directory().display(), %error, "the record of a launch that has ended could not be removed");
        }
    }

    /// The token that belongs to the instance and outlasts its owner, so that a survivor can be connected to. `make` is asked once,
    /// when there is none yet.
    ///
    /// # Errors
    /// [`ClaimError::Directory`] when it can be neither read nor written. A file that cannot be read is left as it is.
    pub fn kept_token(
        &self,
        make: impl FnOnce() -> SecretString,
    ) -> Result<SecretString, ClaimError> {
        use secrecy::ExposeSecret as _;
        let unusable = |source| ClaimError::Directory {
            directory: self.directory().to_owned(),
            source: Arc::new(source),
        };
        if let Some(content) = self.0.read(TOKEN).map_err(unusable)? {
            let text = String::from_utf8(content)
                .map_err(|_| unusable(io::Error::other("the token in it is no text")))?;
            if !text.trim().is_empty() {
                return Ok(text.trim().to_owned().into());
            }
        }
        let token = make();
        self.0
            .write(TOKEN, token.expose_secret().as_bytes())
            .map_err(unusable)?;
        Ok(token)
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Claim")
            .field(&self.directory())
            .finish()
    }
}

/// An instance cannot be claimed, or its record cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// Another process has it.
    #[error("the instance at {} is managed by another process{}; stop that one, or use another directory", .directory.display(), .holder.map(|pid| format!(" ({pid})")).unwrap_or_default())]
    Held {
        /// The instance's directory.
        directory: PathBuf,
        /// The process that has it, by its own word.
        holder: Option<u32>,
    },
    /// The directory, or the lock in it, cannot be used.
    #[error("the instance directory {} cannot be used ({source}); make it writable for this user, or use another", .directory.display())]
    Directory {
        /// The instance's directory.
        directory: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// The record cannot be read. It was left as it is.
    #[error("the record of the last launch, {}, cannot be used ({message}); make sure that nothing of that launch still runs, then remove the file", .file.display())]
    Record {
        /// The record.
        file: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

struct ClaimedDirectory {
    directory: PathBuf,
    lock: File,
}

impl Drop for ClaimedDirectory {
    /// Closing the file would not do: a process that this one is just starting has a copy of it until its program begins, and the lock
    /// lives as long as the last copy.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(directory = %self.directory.display(), %error, "a claim could not be given back");
        }
    }
}

impl ClaimedDirectory {
    fn claim(directory: PathBuf) -> Result<Self, ClaimError> {
        let unusable = |source| ClaimError::Directory {
            directory: directory.clone(),
            source: Arc::new(source),
        };
        create_private(&directory).map_err(unusable)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        private(&mut options);
        let mut lock = options.open(directory.join(LOCK)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // What stands in it is for people only: the lock itself is the kernel's.
                let holder = (&mut lock).take(32).read_to_string(&mut text);
                let holder = holder.ok().and_then(|_| text.trim().parse().ok());
                return Err(ClaimError::Held { directory, holder });
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        let noted = lock
            .set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(lock, "{}", std::process::id()));
        noted.map_err(unusable)?;
        Ok(Self { directory, lock })
    }
}

impl ClaimStore for ClaimedDirectory {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut content = Vec::new();
        match File::open(self.directory.join(name)) {
            Ok(open) => open.take(MAX_FILE_BYTES).read_to_end(&mut content)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(content))
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        // Complete or absent.
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .tempfile_in(&self.directory)?;
        file.write_all(content)?;
        file.persist(self.directory.join(name))
            .map_err(|error| error.error)?;
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Readable and writable for the owner only, where the operating system has such a thing.
pub(crate) fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

#[cfg(test)]
mod tests {
    use super::super::record::{LaunchFingerprint, LaunchSign, ProcessIdentity};
    use super::*;

    fn record(sign: &str) -> OwnershipRecord {
        OwnershipRecord {
            version: RECORD_VERSION,
            sign: LaunchSign::of(sign),
            boot: "boot".to_owned(),
            leader: Some(ProcessIdentity {
                pid: 7,
                started: 70,
                executable: Some("/usr/bin/node".into()),
            }),
            fingerprint: LaunchFingerprint("f".to_owned()),
            port: Some(18_789),
            survives: true,
        }
    }

    #[test]
    fn one_claim_at_a_time_and_a_record_that_outlasts_it() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("deep/instance");
        let claim = Claim::on_directory(&place).unwrap();
        let refused = Claim::on_directory(&place).unwrap_err();
        assert!(
            matches!(&refused, ClaimError::Held { holder, .. } if *holder == Some(std::process::id())),
            "{refused}"
        );
        assert_eq!(claim.record().unwrap(), None);
        claim.save(&record("one")).unwrap();
        let clone = claim.clone();
        drop(claim);
        assert!(
            Claim::on_directory(&place).is_err(),
            "a clone still holds it"
        );
        drop(clone);

        let claim = Claim::on_directory(&place).unwrap();
        assert_eq!(claim.record().unwrap(), Some(record("one")));
        // Only the launch that the record is about may take it away.
        claim.forget(&record("two"));
        assert_eq!(claim.record().unwrap(), Some(record("one")));
        claim.forget(&record("one"));
        assert_eq!(claim.record().unwrap(), None);
        claim.forget(&record("one"));
    }

    /// As a process does that is being started at this moment: it has a copy of every file until its program begins.
    #[test]
    fn a_claim_that_was_given_back_is_free_whoever_still_has_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let claimed = ClaimedDirectory::claim(folder.path().to_owned()).unwrap();
        let _copy = claimed.lock.try_clone().unwrap();
        drop(claimed);
        Claim::on_directory(folder.path()).unwrap();
    }

    #[test]
    fn what_cannot_be_read_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let claim = Claim::on_directory(folder.path()).unwrap();
        let newer = serde_json::json!({ "version": 2, "sign": 5 }).to_string();
        let table: [(&[u8], &str); 4] = [
            (b"{", "EOF"),
            (b"\xff\xfe", "expected value"),
            (newer.as_bytes(), "newer program"),
            (b"{}", "missing field"),
        ];
        for (content, expected) in table {
            let file = folder.path().join(RECORD);
            fs::write(&file, content).unwrap();
            let error = claim.record().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            claim.forget(&record("one"));
            assert_eq!(fs::read(&file).unwrap(), content);
        }
    }

    #[test]
    fn a_token_is_made_once() {
        use secrecy::ExposeSecret as _;
        let folder = tempfile::tempdir().unwrap();
        let claim = Claim::on_directory(folder.path()).unwrap();
        let first = claim.kept_token(|| "first".into()).unwrap();
        let second = claim.kept_token(|| "second".into()).unwrap();
        assert_eq!(first.expose_secret(), "first");
        assert_eq!(second.expose_secret(), "first");
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_what_is_kept() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("instance");
        let claim = Claim::on_directory(&place).unwrap();
        claim.save(&record("one")).unwrap();
        claim.kept_token(|| "secret".into()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&place), 0o700);
        for name in [LOCK, RECORD, TOKEN] {
            assert_eq!(mode(&place.join(name)), 0o600, "{name}");
        }
    }
}
