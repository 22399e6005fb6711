//! Following a file that a process writes to, as if it were a pipe.
//!
//! A child that is to outlive its owner cannot write into a pipe, because a gateway that loses the reader of its output ends. It writes into
//! files, and whoever owns it reads behind it. What has been read is given back to the disk, so that the file stays small however long
//! the child lives.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tokio::sync::watch;

/// How much of a survivor's output is read again, for the diagnosis of what comes.
const REREAD_BYTES: u64 = 64 * 1024;

/// How often a file is looked at where the operating system does not tell that it has grown.
#[cfg_attr(target_os = "linux", allow(dead_code))]
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How much is read before it is given back to the disk.
const GIVE_BACK_AFTER: u64 = 1024 * 1024;

/// A reader of what is in `path` and of all that will be written to it, until `ended` says that nobody writes to it any more.
///
/// # Errors
/// When the file cannot be opened or watched.
pub(crate) fn follow(
    path: &Path,
    ended: watch::Receiver<bool>,
) -> io::Result<impl AsyncRead + Unpin + use<>> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)?;
    let growth = Growth::of(path)?;
    let start = file.metadata()?.len().saturating_sub(REREAD_BYTES);
    let (reader, writer) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        // The reader going away is a reason to stop, not an error.
        if let Err(error) = copy(file, start, growth, ended, writer).await
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            tracing::warn!(%error, "following a child's output failed");
        }
    });
    Ok(reader)
}

async fn copy(
    file: File,
    start: u64,
    mut growth: Growth,
    mut ended: watch::Receiver<bool>,
    mut writer: tokio::io::DuplexStream,
) -> io::Result<()> {
    let mut read_to = start;
    let mut given_back_to = 0;
    let mut tokio_file = tokio::fs::File::from_std(file.try_clone()?);
    tokio_file.seek(io::SeekFrom::Start(start)).await?;
    let mut buffer = vec![0; 64 * 1024];
    // A place that was given back reads as zeros.
    let mut in_hole = start > 0;
    loop {
        // Before reading: what is written before the end is read after it.
        let over = *ended.borrow_and_update();
        let read = tokio_file.read(&mut buffer).await?;
        if read > 0 {
            read_to += read as u64;
            let mut bytes = &buffer[..read];
            if in_hole {
                let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                bytes = &bytes[zeros..];
                in_hole = bytes.is_empty();
            }
            writer.write_all(bytes).await?;
            // The last part stays, for whoever follows next.
            let keep_from = read_to.saturating_sub(REREAD_BYTES);
            if keep_from >= given_back_to + GIVE_BACK_AFTER {
                give_back(&file, given_back_to, keep_from);
                given_back_to = keep_from;
            }
            continue;
        }
        if over {
            return Ok(());
        }
        tokio::select! {
            changed = ended.changed() => {
                // Whoever owned the child is gone without a word.
                if changed.is_err() {
                    return Ok(());
                }
            }
            grown = growth.next() => grown?,
            () = writer_closed(&mut writer) => return Ok(()),
        }
    }
}

/// Ends when the reading end is gone.
async fn writer_closed(writer: &mut tokio::io::DuplexStream) {
    // The reader never writes; its end is all that can be read here.
    let mut nothing = [0];
    let _ = writer.read(&mut nothing).await;
}

/// Frees the space of a part that has been read. Only a saving: where the file system cannot do it, nothing is lost.
#[cfg(target_os = "linux")]
fn give_back(file: &File, from: u64, to: u64) {
    use rustix::fs::{FallocateFlags, fallocate};
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    if let Err(error) = fallocate(file, flags, from, to - from) {
        tracing::debug!(%error, "space of a child's output could not be freed");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_back(_file: &File, _from: u64, _to: u64) {}

/// Tells when a file has grown.
#[cfg(target_os = "linux")]
struct Growth(tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Growth {
    #[allow(
        deprecated,
        reason = "unsound only for types whose descriptor changes or closes under them; the replacement is an unsafe function"
    )]
    fn of(path: &Path) -> io::Result<Self> {
        use rustix::fs::inotify;
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        inotify::add_watch(&watch, path, inotify::WatchFlags::MODIFY)?;
        let interest = tokio::io::Interest::READABLE;
        Ok(Self(tokio::io::unix::AsyncFd::with_interest(
            watch, interest,
        )?))
    }

    async fn next(&mut self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        // What it says does not matter: there is one file.
        let mut events = [0_u8; 4096];
        match rustix::io::read(self.0.get_ref(), &mut events) {
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

#[cfg(not(target_os = "linux"))]
struct Growth;

#[cfg(not(target_os = "linux"))]
impl Growth {
    fn of(_path: &Path) -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> io::Result<()> {
        tokio::time::sleep(LOOK_EVERY).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// What is there is read, then what is added, and after the end what was added last; then it is over.
    #[tokio::test]
    async fn a_file_is_read_like_a_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        file.write_all(b"one ").unwrap();
        let (end, ended) = watch::channel(false);
        let mut reader = follow(&path, ended).unwrap();
        let mut text = [0; 4];
        let mut next = async || {
            tokio::time::timeout(SOON, reader.read_exact(&mut text))
                .await
                .expect("in time")
                .unwrap();
            text
        };
        assert_eq!(&next().await, b"one ");
        file.write_all(b"two ").unwrap();
        assert_eq!(&next().await, b"two ");
        file.write_all(b"last").unwrap();
        end.send_replace(true);
        let mut rest = Vec::new();
        tokio::time::timeout(SOON, reader.read_to_end(&mut rest))
            .await
            .expect("in time")
            .unwrap();
        assert_eq!(rest, b"last");
    }

    /// Ten megabytes go through, a few blocks stay on the disk, and who follows next begins with the last words.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_was_read_is_given_back() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap();
        let (end, ended) = watch::channel(false);
        let mut reader = follow(&path, ended).unwrap();
        let line = [b'x'; 1024];
        let mut buffer = vec![0; 1024 * 1024];
        for _ in 0..10 {
            for _ in 0..1024 {
                file.write_all(&line).unwrap();
            }
            tokio::time::timeout(SOON, reader.read_exact(&mut buffer))
                .await
                .expect("in time")
                .unwrap();
            assert!(buffer.iter().all(|byte| *byte == b'x'));
        }
        end.send_replace(true);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        let kept = std::fs::metadata(&path).unwrap();
        assert_eq!(kept.len(), 10 * 1024 * 1024);
        assert!(
            kept.blocks() * 512 <= 3 * GIVE_BACK_AFTER,
            "{} blocks",
            kept.blocks()
        );

        file.write_all(b"the end").unwrap();
        let (end, ended) = watch::channel(false);
        let mut next = follow(&path, ended).unwrap();
        end.send_replace(true);
        let mut again = Vec::new();
        next.read_to_end(&mut again).await.unwrap();
        assert_eq!(again.len() as u64, REREAD_BYTES);
        assert!(again.ends_with(b"xthe end") && !again.contains(&0));
    }
}
