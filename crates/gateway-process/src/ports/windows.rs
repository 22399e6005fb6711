//! The listening TCP sockets of Windows, whoever holds them.
//!
//! The list with names leaves out sockets whose process it cannot name, and has no way to say that it could not be read.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use windows_sys::Win32::Foundation::{ERROR_INSUFFICIENT_BUFFER, ERROR_NOT_SUPPORTED, NO_ERROR};
use windows_sys::Win32::NetworkManagement::IpHelper::{
    GetExtendedTcpTable, MIB_TCP6ROW_OWNER_PID, MIB_TCPROW_OWNER_PID, TCP_TABLE_OWNER_PID_LISTENER,
};
use windows_sys::Win32::Networking::WinSock::{ADDRESS_FAMILY, AF_INET, AF_INET6};

/// A table may grow between the question for its size and the question for its rows; this often it is asked again.
const ATTEMPTS: usize = 5;

/// The addresses with a listening socket on `port`. Windows does not tell whose user each is.
///
/// # Errors
/// When the system does not give the table of either protocol; a machine without one of them has an empty table of it.
pub(super) fn listening_sockets(port: u16) -> io::Result<Vec<(SocketAddr, Option<u32>)>> {
    let version_4 = rows::<MIB_TCPROW_OWNER_PID>(AF_INET)?
        .into_iter()
        .map(|row| {
            let address = Ipv4Addr::from(row.dwLocalAddr.to_ne_bytes());
            SocketAddr::from((address, host_order(row.dwLocalPort)))
        });
    let version_6 = rows::<MIB_TCP6ROW_OWNER_PID>(AF_INET6)?
        .into_iter()
        .map(|row| {
            let address = Ipv6Addr::from(row.ucLocalAddr);
            SocketAddr::from((address, host_order(row.dwLocalPort)))
        });
    Ok(version_4
        .chain(version_6)
        .filter(|address| address.port() == port)
        .map(|address| (address, None))
        .collect())
}

/// The port stands in the lower half, in the order of the network; the upper half may hold anything.
fn host_order(port: u32) -> u16 {
    u16::from_be(port as u16)
}

/// A row of the tables, made of numbers only.
trait Row: Copy {}
impl Row for MIB_TCPROW_OWNER_PID {}
impl Row for MIB_TCP6ROW_OWNER_PID {}

/// The rows of one table: a counter, and the rows behind it.
#[allow(
    unsafe_code,
    reason = "a call of the Windows API and the reading of its answer"
)]
fn rows<R: Row>(family: ADDRESS_FAMILY) -> io::Result<Vec<R>> {
    const WORD: usize = size_of::<u32>();
    const {
        assert!(
            align_of::<R>() == WORD,
            "rows follow the counter without a gap"
        )
    };
    let mut table: Vec<u32> = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut bytes = (table.len() * WORD) as u32;
        // SAFETY: the buffer is as long as said and aligned for the table, which consists of 32-bit words.
        let answer = unsafe {
            GetExtendedTcpTable(
                table.as_mut_ptr().cast(),
                &raw mut bytes,
                0,
                family.into(),
                TCP_TABLE_OWNER_PID_LISTENER,
                0,
            )
        };
        match answer {
            NO_ERROR => {
                let listed = table.first().map_or(0, |count| *count as usize);
                let fitting = table.len().saturating_sub(1) * WORD / size_of::<R>();
                return Ok((0..listed.min(fitting))
                    .map(|index| {
                        // SAFETY: row `index` lies within the buffer by the line above, is aligned by the assertion, and any
                        // content is a valid one.
                        unsafe { *table.as_ptr().add(1).cast::<R>().add(index) }
                    })
                    .collect());
            }
            // Without the protocol there is no socket of it.
            ERROR_NOT_SUPPORTED => return Ok(Vec::new()),
            // Some rows more than it says now.
            ERROR_INSUFFICIENT_BUFFER => table = vec![0; bytes as usize / WORD + 64],
            error => return Err(io::Error::from_raw_os_error(error as i32)),
        }
    }
    Err(io::Error::other(
        "the table of listening sockets grows faster than it can be read",
    ))
}
