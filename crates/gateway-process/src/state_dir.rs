//! Checking a gateway's state directory before a launch, when a clear message is still possible.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A state directory cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateDirError {
    /// The path leads to something else.
    #[error("the state directory {} is not a directory; move what is there away or choose another path", .path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// It is missing and cannot be created.
    #[error("the state directory {} cannot be created ({source}); create it yourself or choose another path", .path.display())]
    NotCreated {
        /// The path.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// It is there and takes no files.
    #[error("the state directory {} is not writable ({source}); correct its owner and permissions, free space, or choose another path", .path.display())]
    NotWritable {
        /// The path.
        path: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
}

/// Makes sure that `path` is a directory in which files can be created; creates it, on Unix for its owner only. Blocks on the file
/// system.
///
/// # Errors
/// [`StateDirError`] naming the path and what to do.
pub fn ensure_writable_dir(path: impl AsRef<Path>) -> Result<(), StateDirError> {
    let path = path.as_ref();
    let named = || path.to_owned();
    match fs::metadata(path) {
        Ok(facts) if !facts.is_dir() => return Err(StateDirError::NotADirectory { path: named() }),
        Ok(_) => {}
        Err(_) => create(path).map_err(|source| StateDirError::NotCreated {
            path: named(),
            source: Arc::new(source),
        })?,
    }
    // Permission bits do not tell about read-only mounts, quotas or a full disk; writing does.
    let probe = tempfile::Builder::new()
        .prefix(".write-test-")
        .tempfile_in(path);
    let written = probe.and_then(|mut file| io::Write::write_all(&mut file, b"test"));
    written.map_err(|source| StateDirError::NotWritable {
        path: named(),
        source: Arc::new(source),
    })
}

fn create(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_created_for_its_owner_and_left_empty() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        ensure_writable_dir(&path).unwrap();
        ensure_writable_dir(&path).unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o700
            );
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = ensure_writable_dir(&file).unwrap_err();
        assert!(
            matches!(error, StateDirError::NotADirectory { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(&file.display().to_string()));
        let error = ensure_writable_dir(file.join("below")).unwrap_err();
        assert!(matches!(error, StateDirError::NotCreated { .. }), "{error}");
    }

    /// Not even the administrator can create files there, so this holds whoever runs the test.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_that_takes_no_files_is_named() {
        let error = ensure_writable_dir("/proc/self").unwrap_err();
        assert!(
            matches!(error, StateDirError::NotWritable { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("/proc/self"));
    }
}
