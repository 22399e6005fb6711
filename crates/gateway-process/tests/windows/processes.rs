//! Questions to Windows about processes. A process is held by a handle, so that nobody who gets its number later is taken for it.
#![allow(unsafe_code, reason = "calls of the Windows API")]

use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle};
use std::ptr;
use std::time::Duration;

use windows_sys::Win32::Foundation::{WAIT_OBJECT_0, WAIT_TIMEOUT};
use windows_sys::Win32::System::Console::{
    AllocConsole, FreeConsole, GetConsoleProcessList, GetStdHandle, STD_ERROR_HANDLE,
    STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, SetStdHandle,
};
use windows_sys::Win32::System::JobObjects::IsProcessInJob;
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, OpenProcess, PROCESS_SYNCHRONIZE, WaitForSingleObject,
};

/// Far more than an end takes, and less than the minute after which the test harness of a child that was forgotten complains, finds its
/// output closed, and so ends it.
const END_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Process(OwnedHandle);

/// A process that is there.
pub(crate) fn held(pid: u32) -> Process {
    // SAFETY: takes numbers.
    let handle = unsafe { OpenProcess(PROCESS_SYNCHRONIZE, 0, pid) };
    assert!(!handle.is_null(), "{}", std::io::Error::last_os_error());
    // SAFETY: the handle is open, and nobody else has it.
    Process(unsafe { OwnedHandle::from_raw_handle(handle) })
}

impl Process {
    fn ends_within(&self, time: Duration) -> bool {
        // SAFETY: the handle is open and may be waited for.
        let answer =
            unsafe { WaitForSingleObject(self.0.as_raw_handle(), time.as_millis() as u32) };
        assert!(matches!(answer, WAIT_OBJECT_0 | WAIT_TIMEOUT), "{answer}");
        answer == WAIT_OBJECT_0
    }

    pub(crate) fn is_alive(&self) -> bool {
        !self.ends_within(Duration::ZERO)
    }

    /// Waits, blocking, for its end.
    pub(crate) fn ends(&self) -> bool {
        self.ends_within(END_WITHIN)
    }
}

/// Whether this process is in a job.
pub(crate) fn in_a_job() -> bool {
    let mut in_a_job = 0;
    // SAFETY: the first handle means this process, no job means any, and the place outlives the call.
    let told = unsafe { IsProcessInJob(GetCurrentProcess(), ptr::null_mut(), &raw mut in_a_job) };
    assert_ne!(told, 0, "{}", std::io::Error::last_os_error());
    in_a_job != 0
}

/// The processes of the console that this one belongs to; none without a console.
pub(crate) fn sharing_my_console() -> Vec<u32> {
    let mut list = vec![0; 64];
    // SAFETY: the list is as long as said.
    let listed = unsafe { GetConsoleProcessList(list.as_mut_ptr(), list.len() as u32) };
    list.truncate(listed as usize);
    list
}

/// Gives this process a console that can be shared; the one that it was started with may be none. Its output stays what it is.
pub(crate) fn have_a_console() {
    const STANDARD: [u32; 3] = [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE];
    // SAFETY: takes numbers.
    let handles = STANDARD.map(|which| unsafe { GetStdHandle(which) });
    // SAFETY: both take nothing. The first fails when there is none.
    let made = unsafe {
        FreeConsole();
        AllocConsole()
    };
    assert_ne!(made, 0, "{}", std::io::Error::last_os_error());
    for (which, handle) in STANDARD.into_iter().zip(handles) {
        // SAFETY: the handle is the one that was there before, and still open.
        unsafe { SetStdHandle(which, handle) };
    }
    assert!(sharing_my_console().contains(&std::process::id()));
}
