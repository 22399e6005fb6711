//! What Windows tells about a living process and about the machine's sleep.

use std::os::windows::io::{AsRawHandle as _, FromRawHandle as _, OwnedHandle};
use std::time::Duration;

use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::System::SystemInformation::GetTickCount64;
use windows_sys::Win32::System::Threading::{
    GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION,
};
use windows_sys::Win32::System::WindowsProgramming::QueryUnbiasedInterruptTime;

use super::Vitals;

/// Looks at a process. The caller knows that the number still belongs to the process it means.
#[allow(unsafe_code, reason = "calls of the Windows API")]
pub(super) fn of_process(pid: u32) -> Option<Vitals> {
    // SAFETY: takes numbers.
    let process = unsafe { OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, pid) };
    if process.is_null() {
        return None;
    }
    // SAFETY: the handle is open, and nobody else has it.
    let process = unsafe { OwnedHandle::from_raw_handle(process) };
    let mut created = FILETIME::default();
    let mut exited = FILETIME::default();
    let mut kernel = FILETIME::default();
    let mut user = FILETIME::default();
    // SAFETY: the handle is open, and the four places outlive the call.
    let told = unsafe {
        GetProcessTimes(
            process.as_raw_handle(),
            &raw mut created,
            &raw mut exited,
            &raw mut kernel,
            &raw mut user,
        )
    };
    (told != 0).then(|| Vitals {
        processor_time: duration(kernel) + duration(user),
        // Windows has no state of this kind for a whole process.
        halted: false,
    })
}

fn duration(time: FILETIME) -> Duration {
    steps(u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime))
}

/// Windows counts in steps of 100 nanoseconds.
fn steps(steps: u64) -> Duration {
    Duration::from_micros(steps / 10) + Duration::from_nanos(steps % 10 * 100)
}

/// How long the machine has slept since it was switched on, to some hundredths of a second: one counter of Windows counts sleep, the
/// other does not.
#[allow(unsafe_code, reason = "calls of the Windows API")]
pub(super) fn time_asleep() -> Duration {
    // SAFETY: takes nothing.
    let with_sleep = unsafe { GetTickCount64() };
    let mut without_sleep = 0;
    // SAFETY: the place outlives the call.
    if unsafe { QueryUnbiasedInterruptTime(&raw mut without_sleep) } == 0 {
        return Duration::ZERO;
    }
    // Read in this order, so that the time between the two readings is not taken for sleep.
    Duration::from_millis(with_sleep).saturating_sub(steps(without_sleep))
}
