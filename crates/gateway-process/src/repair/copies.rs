//! Copies beside the configuration: named by their content, readable for their owner only, never overwritten, the newest ones kept.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::files::{Content, folder_of, hash_of};

/// How many copies of each kind are kept of a file. Older ones are removed when a new one is made.
pub const COPIES_KEPT: usize = 20;

/// Digits of the hash in a copy's name.
const DIGITS: usize = 16;

/// What a copy was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The file as it was before the doctor.
    Before,
    /// The file as the doctor left it, when that was taken back.
    After,
}

impl Kind {
    /// What stands between the file's own name and the hash.
    fn infix(self) -> &'static str {
        match self {
            Self::Before => ".before-repair-",
            Self::After => ".after-repair-",
        }
    }
}

/// Writes `<name>.before-repair-<hash>` into `folder`, readable for its owner only. The name follows from the content, so
/// repairing the same broken file a hundred times makes one copy, and no copy is ever overwritten.
pub(super) fn keep(folder: &Path, file: &Path, kind: Kind, content: &[u8]) -> io::Result<PathBuf> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(kind.infix());
    let stem = name.clone();
    name.push(&hash_of(content)[..DIGITS]);
    let copy = place(folder, &name, kind, content)?;
    prune(folder, &stem, &copy);
    Ok(copy)
}

fn place(folder: &Path, name: &OsStr, kind: Kind, content: &[u8]) -> io::Result<PathBuf> {
    let target = folder.join(name);
    for attempt in 1..=16_u32 {
        let target = if attempt == 1 {
            target.clone()
        } else {
            // Something else has the name: a copy that somebody edited.
            let mut numbered = name.to_owned();
            numbered.push(format!("-{attempt}"));
            folder.join(numbered)
        };
        // Complete or absent: written under another name, and only then given its own, unless that is taken.
        let mut file = tempfile::Builder::new()
            .prefix(kind.infix())
            .tempfile_in(folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(&target) {
            Ok(_) => {
                sync(folder);
                return Ok(target);
            }
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

/// Removes the oldest copies beyond the number that is kept. A copy whose content is not what its name says was edited by somebody, and
/// is not ours to remove. Failing is no reason not to repair.
fn prune(folder: &Path, stem: &OsStr, newest: &Path) {
    let mut copies: Vec<_> = siblings(folder, stem)
        .filter(|path| path != newest)
        .filter(|path| content_of(path).is_some())
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    copies.sort();
    let surplus = (copies.len() + 1).saturating_sub(COPIES_KEPT);
    for (_, path) in copies.into_iter().take(surplus) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::debug!(path = %path.display(), %error, "an old copy of the configuration could not be removed");
        }
    }
}

/// What a copy holds, unless somebody has edited it: then its name does not tell its content any more.
pub(super) fn content_of(copy: &Path) -> Option<Vec<u8>> {
    let name = copy.file_name()?.to_string_lossy();
    let hash = [Kind::Before, Kind::After]
        .iter()
        .find_map(|kind| name.rsplit_once(kind.infix())?.1.get(..DIGITS))?;
    match Content::now(copy) {
        Content::Bytes(content) if hash_of(&content)[..DIGITS] == *hash => Some(content),
        _ => None,
    }
}

/// The regular files in `folder` whose name begins with `stem`.
fn siblings(folder: &Path, stem: &OsStr) -> impl Iterator<Item = PathBuf> {
    let stem = stem.as_encoded_bytes().to_owned();
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(move |entry| entry.file_name().as_encoded_bytes().starts_with(&stem))
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
}

/// Other versions of a file that are kept beside it, by whomever: `openclaw.json.bak` and the like. At most 64, each once.
pub(super) fn other_versions(file: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut stem: OsString = file.file_name().unwrap_or_default().to_owned();
    stem.push(".");
    siblings(folder_of(file), &stem)
        .take(64)
        .filter_map(|path| match Content::read(&path) {
            Ok(Content::Bytes(content)) => Some((path, content)),
            _ => None,
        })
        .collect()
}

/// A new name survives a power failure only when the directory is synced too. Not every file system can.
#[cfg(unix)]
pub(super) fn sync(folder: &Path) {
    if let Err(error) = fs::File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::debug!(folder = %folder.display(), %error, "the folder could not be synced");
    }
}

#[cfg(not(unix))]
pub(super) fn sync(_folder: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn the_newest_copies_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("openclaw.json");
        let edited = keep(folder.path(), &file, Kind::Before, b"edited later").unwrap();
        fs::write(&edited, "by hand").unwrap();
        // As old as can be, so that only its content protects it.
        let old = |path: &Path, age: u64| {
            let then = SystemTime::now() - Duration::from_secs(age);
            fs::File::options()
                .append(true)
                .open(path)
                .unwrap()
                .set_modified(then)
                .unwrap();
        };
        old(&edited, 1_000_000);
        let after = keep(folder.path(), &file, Kind::After, b"of the doctor").unwrap();
        old(&after, 1_000_000);
        let copies: Vec<PathBuf> = (0..COPIES_KEPT as u64 + 5)
            .map(|number| {
                let copy = keep(
                    folder.path(),
                    &file,
                    Kind::Before,
                    number.to_string().as_bytes(),
                )
                .unwrap();
                old(&copy, 1000 - number);
                copy
            })
            .collect();
        // The first one again: it is the newest by use, though not by date.
        let first = keep(folder.path(), &file, Kind::Before, b"0").unwrap();
        assert!(first.exists() && edited.exists() && after.exists());
        let left: Vec<_> = copies.iter().map(|copy| copy.exists()).collect();
        assert_eq!(
            left.iter().filter(|exists| **exists).count(),
            COPIES_KEPT,
            "{left:?}"
        );
        assert!(left[6..].iter().all(|exists| *exists), "{left:?}");
        assert_eq!(other_versions(&file).len(), COPIES_KEPT + 2);
    }
}
