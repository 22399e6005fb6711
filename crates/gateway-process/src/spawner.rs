//! The thread that children are started from.
//!
//! On Linux a child that is to end with its owner is tied to the *thread* that started it. A thread of a runtime's pool comes and goes;
//! this one lives as long as the program.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use tokio::sync::{mpsc, oneshot};

/// How many starts may wait for their turn; the next one waits for room.
const WAITING_STARTS: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

static JOBS: OnceLock<mpsc::Sender<Job>> = OnceLock::new();

/// Does `work` on the thread. When the returned future is dropped the work is done all the same, and its result is dropped there.
///
/// # Errors
/// When the thread cannot be started, or the work panicked.
pub(crate) async fn on_spawner<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (report, reported) = oneshot::channel();
    let job: Job = Box::new(move || {
        // Whoever asked may have stopped waiting; then the result cleans up after itself.
        let _ = report.send(work());
    });
    jobs()?
        .send(job)
        .await
        .map_err(|_| io::Error::other("the thread that starts processes is gone"))?;
    reported
        .await
        .map_err(|_| io::Error::other("starting the process panicked"))
}

fn jobs() -> io::Result<&'static mpsc::Sender<Job>> {
    if let Some(jobs) = JOBS.get() {
        return Ok(jobs);
    }
    let (sender, mut receiver) = mpsc::channel::<Job>(WAITING_STARTS);
    std::thread::Builder::new()
        .name("process-spawner".to_owned())
        .spawn(move || {
            while let Some(job) = receiver.blocking_recv() {
                // Children are tied to this thread: it must not end because of one job.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
    // When two callers come first at the same time, the loser's thread ends with its sender, having started nothing.
    Ok(JOBS.get_or_init(|| sender))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_work_is_done_by_one_thread_that_survives_a_panic() {
        let id = || std::thread::current().id();
        let first = on_spawner(id).await.unwrap();
        assert!(on_spawner(|| panic!("on purpose")).await.is_err());
        assert_eq!(on_spawner(id).await.unwrap(), first);
        assert_ne!(first, std::thread::current().id());
    }
}
