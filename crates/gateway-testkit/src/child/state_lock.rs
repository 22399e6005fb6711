//! The lock that keeps two gateways off one state directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::fake_gateway::Vintage;

/// Held while the gateway runs; the operating system releases it with the process.
#[derive(Debug)]
pub(super) struct StateLock {
    _file: File,
}

/// Why the lock is not ours.
#[derive(Debug)]
pub(super) enum LockFailure {
    /// Another process holds it.
    Held { pid: String },
    /// The file cannot be used.
    Io {
        path: PathBuf,
        error: std::io::Error,
    },
}

impl StateLock {
    /// 2026.3.2 locks the port within the state directory, 2026.9.6 the whole directory.
    pub(super) fn path(vintage: Vintage, state_dir: &Path, port: u16) -> PathBuf {
        state_dir.join(match vintage {
            Vintage::V2026_3_2 => format!("gateway.{port}.lock"),
            Vintage::V2026_9_6 => "gateway-lifecycle.lock".to_owned(),
        })
    }

    /// Takes the lock, trying again until `wait` is over.
    pub(super) fn take(path: &Path, wait: Duration) -> Result<Self, LockFailure> {
        const PAUSE: Duration = Duration::from_millis(5);
        let io = |error| LockFailure::Io {
            path: path.to_path_buf(),
            error,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        let deadline = Instant::now() + wait;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(io(error)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(PAUSE)
                }
                Err(TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    // Only for the message; a lock that cannot be read is held all the same.
                    let _ = file.read_to_string(&mut pid);
                    return Err(LockFailure::Held { pid });
                }
            }
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(std::process::id().to_string().as_bytes())
        };
        write(&mut file).map_err(io)?;
        Ok(Self { _file: file })
    }
}
