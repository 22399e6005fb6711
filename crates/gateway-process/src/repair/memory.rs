//! What was tried on which content, remembered beside the configuration: the doctor runs once per content, whichever process asks.

use crate::civil_time::CivilTime;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::copies::sync;
use super::files::{Content, folder_of};

/// Attempts that are remembered; the oldest are forgotten first.
const REMEMBERED: usize = 200;

/// A memory that cannot be read is left as it is, and another one is begun beside it.
const FILES: usize = 8;

/// How an earlier attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AttemptResult {
    /// It has begun, and nobody has written down how it ended: the program or the machine ended first.
    Unfinished,
    /// The configuration was changed, and the change stayed.
    Repaired,
    /// The doctor saw nothing to repair, or could not.
    Unchanged,
    /// What the doctor made of it was taken back.
    Refused,
    /// Somebody else edited the configuration meanwhile.
    EditedMeanwhile,
    /// The doctor could not be run to its end.
    DoctorFailed,
    /// A result that a newer release has written.
    #[serde(other)]
    Other,
}

impl fmt::Display for AttemptResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unfinished => "it was never finished",
            Self::Repaired => "the file was changed",
            Self::Unchanged => "the file was left unchanged",
            Self::Refused => "its result was taken back",
            Self::EditedMeanwhile => "somebody edited the file meanwhile",
            Self::DoctorFailed => "the doctor could not be run to its end",
            Self::Other => "with a result that this version does not know",
        })
    }
}

/// One attempt to repair one content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attempt {
    /// The hash over all files of the configuration.
    pub(super) content: String,
    /// The version of OpenClaw, where it is known. Another one has another doctor.
    #[serde(default)]
    pub(super) doctor: Option<String>,
    /// Seconds since 1970, UTC.
    pub(super) at: u64,
    pub(super) result: AttemptResult,
    /// The files as they were and their copies, so that whoever finds an attempt that was never finished can finish it.
    #[serde(default)]
    pub(super) copies: Vec<Copied>,
}

/// A file and its copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Copied {
    pub(super) file: String,
    pub(super) copy: String,
}

impl Attempt {
    pub(super) fn begun(content: String, doctor: Option<String>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            content,
            doctor,
            at: since.unwrap_or_default().as_secs(),
            result: AttemptResult::Unfinished,
            copies: Vec::new(),
        }
    }

    pub(super) fn when(&self) -> SystemTime {
        UNIX_EPOCH
            .checked_add(Duration::from_secs(self.at))
            .unwrap_or(UNIX_EPOCH)
    }

    fn is_about(&self, other: &Self) -> bool {
        self.content == other.content && self.doctor == other.doctor
    }
}

/// The attempts on one configuration. Whoever holds it must hold its lock as well.
#[derive(Debug)]
pub(super) struct Memory {
    /// Where it is written to.
    pub(super) path: PathBuf,
    /// The file as it is, with whatever others have put into it.
    document: Map<String, Value>,
    /// From memories that are only read.
    elsewhere: Vec<Attempt>,
}

const ATTEMPTS: &str = "attempts";

impl Memory {
    /// Reads `<name>.repairs.json`, and what was begun beside it when that could not be read.
    pub(super) fn of(config: &Path) -> io::Result<Self> {
        let mut elsewhere = Vec::new();
        for number in 1..=FILES {
            let path = file(config, number);
            let document = match Content::now(&path) {
                Content::Missing => Map::new(),
                Content::Bytes(bytes) => match serde_json::from_slice(&bytes) {
                    Ok(Value::Object(document)) if has_attempts(&document) => document,
                    _ => continue,
                },
                Content::Unreadable(_) => continue,
            };
            // What was begun later is full of what happened since then.
            for later in number + 1..=FILES {
                if let Content::Bytes(bytes) = Content::now(&file(config, later))
                    && let Ok(Value::Object(document)) = serde_json::from_slice(&bytes)
                {
                    elsewhere.extend(attempts(&document));
                }
            }
            return Ok(Self {
                path,
                document,
                elsewhere,
            });
        }
        Err(io::Error::other(format!(
            "{} and its numbered names hold something else",
            file(config, 1).display()
        )))
    }

    /// The earlier attempt on the same content with the same doctor.
    pub(super) fn earlier(&self, attempt: &Attempt) -> Option<Attempt> {
        let known = attempts(&self.document).chain(self.elsewhere.iter().cloned());
        known.filter(|known| known.is_about(attempt)).last()
    }

    /// Attempts that nobody has finished. Whoever has the lock knows that nobody is about to.
    pub(super) fn unfinished(&self) -> Vec<Attempt> {
        attempts(&self.document)
            .filter(|known| known.result == AttemptResult::Unfinished)
            .collect()
    }

    /// Writes an attempt down in place of what was known of it.
    pub(super) fn note(&mut self, attempt: &Attempt) -> io::Result<()> {
        self.drop_known(attempt);
        let Ok(value) = serde_json::to_value(attempt) else {
            return Err(io::Error::other("an attempt cannot be written as JSON"));
        };
        let list = self
            .document
            .entry(ATTEMPTS)
            .or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(value);
            let surplus = list.len().saturating_sub(REMEMBERED);
            list.drain(..surplus);
        }
        self.write()
    }

    /// As if it had not been tried.
    pub(super) fn forget(&mut self, attempt: &Attempt) -> io::Result<()> {
        self.drop_known(attempt);
        self.write()
    }

    fn drop_known(&mut self, attempt: &Attempt) {
        if let Some(Value::Array(list)) = self.document.get_mut(ATTEMPTS) {
            // What cannot be read is somebody else's, and stays.
            list.retain(|value| {
                !Attempt::deserialize(value).is_ok_and(|known| known.is_about(attempt))
            });
        }
    }

    fn write(&self) -> io::Result<()> {
        let folder = folder_of(&self.path);
        let mut draft = tempfile::Builder::new()
            .prefix(".repairs-")
            .tempfile_in(folder)?;
        let text = serde_json::to_vec_pretty(&self.document).map_err(io::Error::other)?;
        draft.write_all(&text)?;
        draft.as_file().sync_all()?;
        draft.persist(&self.path).map_err(|error| error.error)?;
        sync(folder);
        Ok(())
    }
}

fn has_attempts(document: &Map<String, Value>) -> bool {
    document.get(ATTEMPTS).is_none_or(Value::is_array)
}

fn attempts(document: &Map<String, Value>) -> impl Iterator<Item = Attempt> {
    let list = document.get(ATTEMPTS).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|value| Attempt::deserialize(value).ok())
}

fn file(config: &Path, number: usize) -> PathBuf {
    let mut name = config.file_name().unwrap_or_default().to_owned();
    match number {
        1 => name.push(".repairs.json"),
        _ => name.push(format!(".repairs-{number}.json")),
    }
    folder_of(config).join(name)
}

/// The right to repair a configuration, held by one process at a time; the operating system takes it back from one that ends.
#[derive(Debug)]
pub(super) struct Lock(fs::File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave the lock to a process that was forked in this moment and has not yet begun its own program.
        let _ = self.0.unlock();
    }
}

impl Lock {
    /// `None` when somebody else has it.
    pub(super) fn take(config: &Path) -> io::Result<Option<Self>> {
        let mut name = config.file_name().unwrap_or_default().to_owned();
        name.push(".repair-lock");
        let mut options = fs::File::options();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(folder_of(config).join(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            // Without locks on this file system two at a time are possible, each with its own copy.
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                Ok(Some(Self(file)))
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// `2026-02-28 23:59:01 UTC`.
pub(super) fn utc(time: SystemTime) -> String {
    let time = CivilTime::of(time);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
        time.year, time.month, time.day, time.hour, time.minute, time.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attempt(content: &str) -> Attempt {
        Attempt::begun(content.to_owned(), None)
    }

    #[test]
    fn what_was_noted_is_known_and_can_be_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("c.json");
        let mut memory = Memory::of(&config).unwrap();
        assert_eq!(memory.earlier(&attempt("a")), None);
        memory.note(&attempt("a")).unwrap();
        let ended = Attempt {
            result: AttemptResult::Refused,
            ..attempt("a")
        };
        memory.note(&ended).unwrap();
        let mut again = Memory::of(&config).unwrap();
        assert_eq!(
            again.earlier(&attempt("a")).unwrap().result,
            AttemptResult::Refused
        );
        assert_eq!(again.earlier(&attempt("b")), None);
        let newer = Attempt {
            doctor: Some("2026.9.6".to_owned()),
            ..attempt("a")
        };
        assert_eq!(
            again.earlier(&newer),
            None,
            "another doctor may be able to do it"
        );
        again.forget(&attempt("a")).unwrap();
        assert_eq!(Memory::of(&config).unwrap().earlier(&attempt("a")), None);
    }

    #[test]
    fn what_others_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("c.json");
        let path = folder.path().join("c.json.repairs.json");
        let document = json!({"note": "mine", "attempts": [
            {"content": "a", "at": 5, "result": "blessed", "extra": 1}, "odd", {"content": 7},
        ]});
        fs::write(&path, document.to_string()).unwrap();
        let mut memory = Memory::of(&config).unwrap();
        assert_eq!(
            memory.earlier(&attempt("a")).unwrap().result,
            AttemptResult::Other
        );
        memory.note(&attempt("b")).unwrap();
        let now: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(now["note"], "mine");
        assert_eq!(
            now["attempts"].as_array().unwrap()[..3],
            document["attempts"].as_array().unwrap()[..]
        );
        for number in 0..REMEMBERED + 3 {
            memory.note(&attempt(&number.to_string())).unwrap();
        }
        let memory = Memory::of(&config).unwrap();
        assert_eq!(memory.earlier(&attempt("2")), None);
        assert!(memory.earlier(&attempt("3")).is_some());
    }

    #[test]
    fn an_unreadable_memory_is_not_overwritten_and_another_one_begun() {
        for text in ["{", "[]", "{\"attempts\": 1}"] {
            let folder = tempfile::tempdir().unwrap();
            let config = folder.path().join("c.json");
            let path = folder.path().join("c.json.repairs.json");
            fs::write(&path, text).unwrap();
            let mut memory = Memory::of(&config).unwrap();
            memory.note(&attempt("a")).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert!(
                Memory::of(&config)
                    .unwrap()
                    .earlier(&attempt("a"))
                    .is_some()
            );
            // When it is removed or mended, the other one still counts.
            fs::remove_file(&path).unwrap();
            assert!(
                Memory::of(&config)
                    .unwrap()
                    .earlier(&attempt("a"))
                    .is_some()
            );
            for number in 1..=FILES {
                fs::write(file(&config, number), text).unwrap();
            }
            assert!(Memory::of(&config).is_err());
        }
    }

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("c.json");
        let lock = Lock::take(&config).unwrap();
        assert!(lock.is_some());
        assert!(Lock::take(&config).unwrap().is_none());
        drop(lock);
        assert!(Lock::take(&config).unwrap().is_some());
    }

    #[test]
    fn dates() {
        let table = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ];
        for (seconds, expected) in table {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
