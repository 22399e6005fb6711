//! Putting a file back as it was, in one step, without losing what somebody else wrote meanwhile.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::copies::sync;
use super::files::{ConfigFile, Content, folder_of};

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PutBack {
    /// The file is as it was. What was there could not be read and so not be copied; when it was a file, this is its new name.
    Done { moved: Option<PathBuf> },
    /// The file was neither as it had been nor as it was expected, so it was left alone.
    EditedMeanwhile,
}

/// Gives `file` its former content back, where `doctored` is still what is there.
///
/// The file is exchanged by renaming, so it is complete at every moment. What the exchange takes away is looked at once more afterwards,
/// under another name: when somebody wrote in the last moment it is their version, and it gets its name back.
pub(super) fn put_back(file: &ConfigFile, doctored: &Content) -> io::Result<PutBack> {
    if Content::now(&file.path) != *doctored {
        return Ok(PutBack::EditedMeanwhile);
    }
    let Some(content) = file.content.bytes() else {
        // There was no file. What the doctor made has been copied.
        return match fs::remove_file(&file.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(PutBack::Done { moved: None }),
        };
    };
    match &file.access.link {
        None => write(&file.path, doctored, file, content),
        // The doctor wrote through the link.
        Some((link, target)) if fs::read_link(&file.path).is_ok_and(|now| now == *link) => {
            write(target, doctored, file, content)
        }
        // The doctor put a file in the place of the link. Where the link leads is as it was, or else it is put right first.
        Some((link, target)) => {
            let there = Content::now(target);
            if there != file.content {
                write(target, &there, file, content)?;
            }
            exchange(&file.path, doctored, linked(link, folder_of(&file.path))?)
        }
    }
}

fn write(
    path: &Path,
    expected: &Content,
    file: &ConfigFile,
    content: &[u8],
) -> io::Result<PutBack> {
    let mut draft = tempfile::Builder::new()
        .prefix(".repair-")
        .tempfile_in(folder_of(path))?;
    draft.write_all(content)?;
    if let Some(permissions) = &file.access.permissions {
        draft.as_file().set_permissions(permissions.clone())?;
    }
    draft.as_file().sync_all()?;
    exchange(path, expected, draft)
}

#[cfg(unix)]
fn linked(link: &Path, folder: &Path) -> io::Result<NamedTempFile<()>> {
    tempfile::Builder::new()
        .prefix(".repair-")
        .make_in(folder, |path| std::os::unix::fs::symlink(link, path))
}

#[cfg(windows)]
fn linked(link: &Path, folder: &Path) -> io::Result<NamedTempFile<()>> {
    tempfile::Builder::new()
        .prefix(".repair-")
        .make_in(folder, |path| {
            std::os::windows::fs::symlink_file(link, path)
        })
}

/// Gives `draft` the name `path`, unless something other than `expected` turns out to have had it.
fn exchange<F>(path: &Path, expected: &Content, draft: NamedTempFile<F>) -> io::Result<PutBack> {
    let folder = folder_of(path);
    if *expected == Content::Missing {
        return match draft.persist_noclobber(path) {
            Ok(_) => {
                sync(folder);
                Ok(PutBack::Done { moved: None })
            }
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(PutBack::EditedMeanwhile)
            }
            Err(error) => Err(error.error),
        };
    }
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".after-repair-unread-");
    // Not every file system gives a file two names; there the look before has to do.
    let taken = tempfile::Builder::new()
        .prefix(&prefix)
        .make_in(folder, |name| fs::hard_link(path, name))
        .ok();
    draft.persist(path).map_err(|error| error.error)?;
    let mut moved = None;
    if let Some(taken) = taken {
        if Content::now(taken.path()) != *expected {
            taken.persist(path).map_err(|error| error.error)?;
            return Ok(PutBack::EditedMeanwhile);
        }
        if matches!(expected, Content::Unreadable(_)) {
            moved = Some(taken.keep().map_err(|error| error.error)?.1);
        }
    }
    sync(folder);
    Ok(PutBack::Done { moved })
}

#[cfg(test)]
mod tests {
    use super::super::files::{Configuration, MAX_CONFIG_BYTES};
    use super::*;

    fn file(name: &Path, content: &str) -> ConfigFile {
        fs::write(name, content).unwrap();
        Configuration::read(name).unwrap().main
    }

    #[test]
    fn what_somebody_else_wrote_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        let before = file(&path, "before");
        let doctored = Content::Bytes(b"doctored".to_vec());
        fs::write(&path, "edited").unwrap();
        assert_eq!(
            put_back(&before, &doctored).unwrap(),
            PutBack::EditedMeanwhile
        );
        assert_eq!(fs::read(&path).unwrap(), b"edited");
        // In the moment after the look: the exchange itself finds it.
        let draft = || {
            let mut draft = NamedTempFile::new_in(folder.path()).unwrap();
            draft.write_all(b"before").unwrap();
            draft
        };
        assert_eq!(
            exchange(&path, &doctored, draft()).unwrap(),
            PutBack::EditedMeanwhile
        );
        assert_eq!(fs::read(&path).unwrap(), b"edited");
        assert_eq!(
            exchange(&path, &Content::Missing, draft()).unwrap(),
            PutBack::EditedMeanwhile
        );
        assert_eq!(fs::read(&path).unwrap(), b"edited");
        fs::write(&path, "doctored").unwrap();
        assert_eq!(
            put_back(&before, &doctored).unwrap(),
            PutBack::Done { moved: None }
        );
        assert_eq!(fs::read(&path).unwrap(), b"before");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_copied_keeps_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        let before = file(&path, "before");
        fs::File::create(&path)
            .unwrap()
            .set_len(MAX_CONFIG_BYTES + 1)
            .unwrap();
        let PutBack::Done { moved: Some(moved) } = put_back(&before, &Content::now(&path)).unwrap()
        else {
            panic!("not moved");
        };
        assert_eq!(fs::metadata(moved).unwrap().len(), MAX_CONFIG_BYTES + 1);
        assert_eq!(fs::read(&path).unwrap(), b"before");
    }

    #[test]
    fn a_missing_file_is_missing_again_and_a_deleted_one_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        let missing = Configuration::read(&path).unwrap().main;
        let before = file(&path, "before");
        fs::remove_file(&path).unwrap();
        assert_eq!(
            put_back(&before, &Content::Missing).unwrap(),
            PutBack::Done { moved: None }
        );
        assert_eq!(fs::read(&path).unwrap(), b"before");
        let now = Content::now(&path);
        assert_eq!(
            put_back(&missing, &now).unwrap(),
            PutBack::Done { moved: None }
        );
        assert!(!path.exists());
    }
}
