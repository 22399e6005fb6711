//! Owning a process on Windows: a job object that holds it with all its descendants and ends them with its last handle.
//!
//! The child is created suspended, put into the job, and only then runs, so that nothing it starts can be outside. The job allows no
//! breaking away. Its one handle is ours and is not inherited: when this process ends, however it ends, the system closes the handle,
//! and the job's members with it.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use windows_sys::Win32::System::Threading::{CREATE_NO_WINDOW, CREATE_SUSPENDED};

use super::Birth;
use job::Job;

/// What must be in an environment for sockets to work: without it Windows does not find its own libraries.
const SYSTEM_ROOT: &str = "SystemRoot";

/// The right to end one process and what descends from it. See the [module](super).
#[derive(Debug)]
pub struct Owned {
    pid: u32,
    job: Job,
    /// `None` once the exit status is collected.
    child: Mutex<Option<Child>>,
}

/// What a start yields.
pub(crate) struct Started {
    pub(crate) owned: Arc<Owned>,
    pub(crate) watch: ExitWatch,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
}

impl Owned {
    /// Starts `command` in a new job object, without a window.
    pub(crate) fn start(mut command: Command, birth: &Birth) -> io::Result<Started> {
        if birth.survives {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "on Windows a child cannot outlive its owner, because the next owner could not prove that it is its own; let it end with its owner",
            ));
        }
        let job = Job::new()?;
        let complete = command
            .as_std()
            .get_envs()
            .any(|(name, _)| name.eq_ignore_ascii_case(SYSTEM_ROOT));
        if !complete && let Some(root) = std::env::var_os(SYSTEM_ROOT) {
            command.env(SYSTEM_ROOT, root);
        }
        command
            .creation_flags(CREATE_NO_WINDOW | CREATE_SUSPENDED)
            // Until it is in the job nothing else ends it.
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(pid), Some(handle)) = (child.id(), child.raw_handle()) else {
            return Err(io::Error::other("the new process has no id"));
        };
        job.assign(handle)?;
        job::resume(pid)?;
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let owned = Arc::new(Self {
            pid,
            job,
            child: Mutex::new(Some(child)),
        });
        Ok(Started {
            watch: ExitWatch {
                owned: Arc::clone(&owned),
            },
            owned,
            stdout,
            stderr,
        })
    }

    /// The number of the process, for messages.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What is written down about it: nothing, because nothing of it can be there when the record is read.
    pub(crate) fn identity(&self) -> Option<super::record::ProcessIdentity> {
        None
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the process, as [`force`](Self::force) does: Windows has no signal that asks a process without a console to end.
    ///
    /// # Errors
    /// The operating system's answer.
    pub fn ask(&self) -> io::Result<()> {
        self.force()
    }

    /// Ends the process and everything that descends from it; their exit code is 1. Nothing happens when they have ended.
    ///
    /// # Errors
    /// The operating system's answer.
    pub fn force(&self) -> io::Result<()> {
        self.job.terminate()
    }

    /// Once the process has ended, ends what is left of its descendants, and gives those that it found. None found means that all are
    /// gone.
    pub(crate) fn sweep(&self) -> io::Result<Vec<u32>> {
        if !self.has_exited() {
            return Ok(Vec::new());
        }
        let members = self.job.members()?;
        if !members.is_empty() {
            self.job.terminate()?;
        }
        Ok(members)
    }

    /// Whether the process has ended, collected or not.
    pub(crate) fn has_exited(&self) -> bool {
        match self.lock().as_mut() {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => true,
        }
    }

    /// Collects the exit status if the process has ended; `Ok(None)` means that it has not.
    pub(crate) fn collect(&self) -> io::Result<Option<ExitStatus>> {
        let mut held = self.lock();
        let Some(child) = held.as_mut() else {
            return Err(io::Error::other("the exit status was collected before"));
        };
        let status = child.try_wait();
        if !matches!(status, Ok(None)) {
            *held = None;
        }
        status
    }

    /// Ends the job and collects its first process, blocking for a moment; for places where nothing can be awaited.
    pub(crate) fn abandon(&self) -> Option<ExitStatus> {
        if let Err(error) = self.force() {
            tracing::warn!(pid = self.pid, %error, "ending an abandoned job failed");
        }
        for _ in 0..500 {
            match self.collect() {
                Ok(None) => std::thread::sleep(std::time::Duration::from_millis(1)),
                Ok(status) => return status,
                Err(_) => return None,
            }
        }
        None
    }

    /// Whether nothing is left that [`sweep`](Self::sweep) does not find: nothing leaves a job.
    pub(crate) fn is_gone(&self) -> bool {
        true
    }
}

/// Waits for the end of the job's first process.
pub(crate) struct ExitWatch {
    owned: Arc<Owned>,
}

impl ExitWatch {
    /// Returns when the child has exited. Cancel safe.
    pub(crate) async fn exited(&mut self) {
        // What has been waited for so far is kept in the child and not in the future, so that a new future each time loses nothing.
        // An error means that the status is lost, which whoever collects it will be told.
        poll_fn(|context| match self.owned.lock().as_mut() {
            Some(child) => pin!(child.wait()).poll(context).map(|_| ()),
            None => Poll::Ready(()),
        })
        .await;
    }
}

/// The job object itself. All calls of the Windows API are here.
#[allow(unsafe_code, reason = "calls of the Windows API")]
mod job {
    use std::io;
    use std::mem::{offset_of, size_of, zeroed};
    use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle, RawHandle};
    use std::ptr;

    use windows_sys::Win32::Foundation::{ERROR_MORE_DATA, INVALID_HANDLE_VALUE};
    use windows_sys::Win32::System::Diagnostics::ToolHelp::{
        CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
    };
    use windows_sys::Win32::System::JobObjects::{
        AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
        JOBOBJECT_BASIC_PROCESS_ID_LIST, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
        JobObjectBasicProcessIdList, JobObjectExtendedLimitInformation, QueryInformationJobObject,
        SetInformationJobObject, TerminateJobObject,
    };
    use windows_sys::Win32::System::Threading::{OpenThread, ResumeThread, THREAD_SUSPEND_RESUME};

    /// The exit code of what is ended by force, as the task manager gives it.
    const FORCED: u32 = 1;

    /// More members than this are counted once more after the first ones have gone.
    const LISTED_MEMBERS: usize = 512;

    /// A job object that ends its members when this value, its only handle, goes away.
    #[derive(Debug)]
    pub(super) struct Job(OwnedHandle);

    fn succeeded(result: i32) -> io::Result<()> {
        if result == 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    impl Job {
        pub(super) fn new() -> io::Result<Self> {
            // SAFETY: both pointers may be null: no name, and a handle that is not inherited.
            let handle = unsafe { CreateJobObjectW(ptr::null(), ptr::null()) };
            if handle.is_null() {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the handle is open, and nobody else has it.
            let job = Self(unsafe { OwnedHandle::from_raw_handle(handle) });
            // SAFETY: numbers and a nested structure of numbers, for which zero means "no limit".
            let mut limits: JOBOBJECT_EXTENDED_LIMIT_INFORMATION = unsafe { zeroed() };
            limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
            // SAFETY: the structure is the one that belongs to the class, with its size, and is only read.
            succeeded(unsafe {
                SetInformationJobObject(
                    job.0.as_raw_handle(),
                    JobObjectExtendedLimitInformation,
                    (&raw const limits).cast(),
                    size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>() as u32,
                )
            })?;
            Ok(job)
        }

        /// Puts a process into the job; what it starts from now on is in it too.
        pub(super) fn assign(&self, process: RawHandle) -> io::Result<()> {
            // SAFETY: both handles are open: ours, and that of a child that the caller holds.
            succeeded(unsafe { AssignProcessToJobObject(self.0.as_raw_handle(), process) })
        }

        /// Ends all members.
        pub(super) fn terminate(&self) -> io::Result<()> {
            // SAFETY: the handle is open.
            succeeded(unsafe { TerminateJobObject(self.0.as_raw_handle(), FORCED) })
        }

        /// The members that have not ended; no more than [`LISTED_MEMBERS`] of them.
        pub(super) fn members(&self) -> io::Result<Vec<u32>> {
            // Two counters and the numbers behind them, in words of the size and alignment that the structure has.
            const COUNTERS: usize =
                offset_of!(JOBOBJECT_BASIC_PROCESS_ID_LIST, ProcessIdList) / size_of::<usize>();
            let mut list = vec![0_usize; COUNTERS + LISTED_MEMBERS];
            // SAFETY: the list is as long as said, and aligned for the structure that belongs to the class.
            let answered = unsafe {
                QueryInformationJobObject(
                    self.0.as_raw_handle(),
                    JobObjectBasicProcessIdList,
                    list.as_mut_ptr().cast(),
                    (list.len() * size_of::<usize>()) as u32,
                    ptr::null_mut(),
                )
            };
            match succeeded(answered) {
                Err(error) if error.raw_os_error() != Some(ERROR_MORE_DATA as i32) => {
                    return Err(error);
                }
                // A list that is too short is filled as far as it goes.
                _ => {}
            }
            // SAFETY: the list begins with the structure, which the call has filled.
            let listed = unsafe {
                (*list.as_ptr().cast::<JOBOBJECT_BASIC_PROCESS_ID_LIST>()).NumberOfProcessIdsInList
            };
            let numbers = list.into_iter().skip(COUNTERS).take(listed as usize);
            // Windows gives process ids of 32 bits in words of the machine's size.
            Ok(numbers
                .filter_map(|number| u32::try_from(number).ok())
                .collect())
        }
    }

    /// Lets a process run that was created suspended: all its threads, of which it has one.
    pub(super) fn resume(pid: u32) -> io::Result<()> {
        // SAFETY: takes two numbers; the second means nothing for threads.
        let snapshot = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) };
        if snapshot == INVALID_HANDLE_VALUE {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle is open, and nobody else has it.
        let snapshot = unsafe { OwnedHandle::from_raw_handle(snapshot) };
        let mut entry = THREADENTRY32 {
            dwSize: size_of::<THREADENTRY32>() as u32,
            ..THREADENTRY32::default()
        };
        let mut resumed = false;
        // SAFETY: the entry says its own size, and outlives the call; so below.
        let mut more = unsafe { Thread32First(snapshot.as_raw_handle(), &raw mut entry) };
        while more != 0 {
            if entry.th32OwnerProcessID == pid {
                resume_thread(entry.th32ThreadID)?;
                resumed = true;
            }
            // SAFETY: as above.
            more = unsafe { Thread32Next(snapshot.as_raw_handle(), &raw mut entry) };
        }
        if resumed {
            Ok(())
        } else {
            Err(io::Error::other("the new process has no thread to run"))
        }
    }

    fn resume_thread(id: u32) -> io::Result<()> {
        // SAFETY: takes numbers. The process is suspended and held by the caller, so the number is that of its thread.
        let thread = unsafe { OpenThread(THREAD_SUSPEND_RESUME, 0, id) };
        if thread.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the handle is open, and nobody else has it.
        let thread = unsafe { OwnedHandle::from_raw_handle(thread) };
        // SAFETY: the handle is open and has the right to resume.
        if unsafe { ResumeThread(thread.as_raw_handle()) } == u32::MAX {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}
