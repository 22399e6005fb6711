//! A lock between processes, so that two runs of this program do not work on the same folder below `target/`.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::command;
use crate::interrupt::Interrupt;

/// Keeps other processes out for as long as the file is held. The operating system lets go of the lock when this
/// process ends, however it ends.
pub(crate) fn hold(path: &Path, interrupt: &Interrupt) -> Result<File, String> {
    let failed = |error: io::Error| format!("cannot lock {}: {error}", path.display());
    let file = File::create(path).map_err(failed)?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) => {}
        }
        if interrupt.requested() {
            return Err("interrupted".to_owned());
        }
        if !told {
            eprintln!("another process holds {}; waiting for it", path.display());
            told = true;
        }
        command::pause(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_held_is_waited_for_until_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = hold(&path, &Interrupt::default()).unwrap();
        let interrupt = Interrupt::default();
        interrupt.raise();
        let refused = hold(&path, &interrupt).unwrap_err();
        assert_eq!(refused, "interrupted");
        drop(held);
        assert!(hold(&path, &interrupt).is_ok());
    }
}
