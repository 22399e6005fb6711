//! Writing files that hold secrets: private from the first byte, complete or absent, never half.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Writes `contents` to a fresh file beside `path`, syncs it, and only then gives it the name.
///
/// With `replace` an existing file is exchanged in one step; without, an existing file is left alone and the error
/// is [`io::ErrorKind::AlreadyExists`]. The file is readable by its owner only (mode 0600) from its creation.
/// Missing directories are made with mode 0700.
pub(crate) fn write(path: &Path, contents: &[u8], replace: bool) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_directory(directory)?;
    // tempfile creates with mode 0600 on Unix.
    let mut file = tempfile::Builder::new()
        .prefix(".gateway-client-")
        .tempfile_in(directory)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    if replace {
        file.persist(path).map_err(|error| error.error)?;
    } else {
        file.persist_noclobber(path).map_err(|error| error.error)?;
    }
    sync_directory(directory);
    Ok(())
}

#[cfg(unix)]
fn make_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

#[cfg(not(unix))]
fn make_directory(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)
}

/// The new name survives a power failure only when the directory is synced too. Not every file system can.
#[cfg(unix)]
fn sync_directory(directory: &Path) {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    if let Err(error) = synced {
        tracing::debug!(directory = %directory.display(), %error, "the directory could not be synced");
    }
}

#[cfg(not(unix))]
fn sync_directory(_directory: &Path) {}

/// Takes away the access of group and others, if they have any. Returns whether anything was changed.
#[cfg(unix)]
pub(crate) fn tighten(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    let mut permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o077 == 0 {
        return Ok(false);
    }
    permissions.set_mode(permissions.mode() & 0o7700);
    file.set_permissions(permissions)?;
    Ok(true)
}

/// Elsewhere the profile directory's own access rules protect the file.
#[cfg(not(unix))]
pub(crate) fn tighten(_file: &File) -> io::Result<bool> {
    Ok(false)
}
