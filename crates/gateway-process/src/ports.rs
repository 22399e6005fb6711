//! Who listens on a port, whether it can be bound, and finding a free one.

use std::fmt;
use std::io;
#[cfg(target_os = "linux")]
use std::net::IpAddr;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows::listening_sockets;

/// How long reading the operating system's socket table may take.
pub const PORT_TABLE_DEADLINE: Duration = Duration::from_secs(5);

/// How often a port that is waited for is looked at, whatever the operating system tells.
pub const PORT_LOOK_AGAIN: Duration = Duration::from_millis(250);

/// A listening TCP socket and the process that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOwner {
    /// The process; `None` when the operating system does not tell us, as for a process of another user.
    pub pid: Option<u32>,
    /// Its executable's path, or its name when the path is hidden.
    pub program: Option<String>,
    /// The user it belongs to: the name, or the number of one without a name. `None` where the operating system does not tell.
    pub user: Option<String>,
    /// The address it listens on.
    pub address: SocketAddr,
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.program, self.pid) {
            (Some(program), Some(pid)) => write!(f, "{program} (process {pid})")?,
            (None, Some(pid)) => write!(f, "process {pid}")?,
            (Some(program), None) => f.write_str(program)?,
            (None, None) => {
                f.write_str("a process that the system does not name (probably of another user)")?
            }
        }
        if let Some(user) = &self.user {
            write!(f, " of user {user}")?;
        }
        write!(f, " on {}", self.address)
    }
}

/// A question about a port has no answer. Never read this as "nobody is there".
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortError {
    /// The socket table could not be read.
    #[error(
        "cannot read who listens on port {port}: {message}; check that the socket table is readable (on Linux: /proc is mounted)"
    )]
    Unreadable {
        /// The port asked for.
        port: u16,
        /// The operating system's answer.
        message: String,
    },
    /// Somebody still had the port when the time was over.
    #[error(
        "port {port} was still held after {waited:?} by {}; stop that program or choose another port",
        holders(.owners)
    )]
    StillHeld {
        /// The port.
        port: u16,
        /// How long it was waited for.
        waited: Duration,
        /// Who had it at last; empty when the operating system does not tell.
        owners: Vec<PortOwner>,
    },
    /// Reading the table took too long.
    #[error(
        "reading who listens on port {port} took longer than {deadline:?}; try again when the machine is less busy"
    )]
    TimedOut {
        /// The port asked for.
        port: u16,
        /// The time there was.
        deadline: Duration,
    },
}

fn holders(owners: &[PortOwner]) -> String {
    if owners.is_empty() {
        return "a process that the system does not name".to_owned();
    }
    let names: Vec<String> = owners.iter().map(ToString::to_string).collect();
    names.join(" and ")
}

/// Waits until a gateway could listen on `port`: until the process that holds it ends, where the operating system tells of that
/// (Linux), and looking again every [`PORT_LOOK_AGAIN`] in any case.
///
/// Cancel safe.
///
/// # Errors
/// [`PortError::StillHeld`] when the time is over, [`PortError::Unreadable`] when the port cannot be bound for another reason than that
/// somebody has it.
pub async fn wait_until_free(port: u16, deadline: Duration) -> Result<(), PortError> {
    let began = Instant::now();
    let mut owners = Vec::new();
    loop {
        match check_port_free(port) {
            Ok(()) => return Ok(()),
            Err(BindError::InUse { .. }) => {}
            Err(BindError::Refused { source, .. }) => {
                return Err(PortError::Unreadable {
                    port,
                    message: source.to_string(),
                });
            }
        }
        let left = deadline.saturating_sub(began.elapsed());
        // A table that cannot be read costs the name of the holder and nothing else.
        if let Ok(seen) = port_owners(port, left.min(PORT_TABLE_DEADLINE)).await {
            owners = seen;
        }
        let left = deadline.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(PortError::StillHeld {
                port,
                waited: began.elapsed(),
                owners,
            });
        }
        let holder = owners.iter().find_map(|owner| owner.pid);
        let _ = timeout(left.min(PORT_LOOK_AGAIN), end_of(holder)).await;
    }
}

/// Returns when the process has ended; never when that cannot be told. Whoever gets the number afterwards only costs a look.
async fn end_of(holder: Option<u32>) {
    #[cfg(target_os = "linux")]
    if let Some(holder) = holder
        && let Ok(()) = crate::ownership::linux::ended(holder).await
    {
        return;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = holder;
    std::future::pending().await
}

/// Who listens on `port`, on any address, IPv4 and IPv6. Reads the operating system's tables; starts no program.
///
/// On Linux and Windows a socket whose process cannot be seen (another user's) is listed without pid, so that an occupied port never
/// looks free.
///
/// # Errors
/// [`PortError`] when the tables cannot be read within `deadline`.
pub async fn port_owners(port: u16, deadline: Duration) -> Result<Vec<PortOwner>, PortError> {
    match timeout(deadline, spawn_blocking(move || read_owners(port))).await {
        Ok(Ok(owners)) => owners,
        Ok(Err(error)) => Err(PortError::Unreadable {
            port,
            message: error.to_string(),
        }),
        Err(_) => Err(PortError::TimedOut { port, deadline }),
    }
}

fn read_owners(port: u16) -> Result<Vec<PortOwner>, PortError> {
    let mut owners = named_owners(port)?;
    let read_sockets = || {
        listening_sockets(port).map_err(|error| PortError::Unreadable {
            port,
            message: error.to_string(),
        })
    };
    let mut sockets = read_sockets()?;
    let is_nameless = |owners: &[PortOwner], address: &SocketAddr| {
        owners.iter().all(|owner| owner.address != *address)
    };
    // The two tables are read one after the other. A socket that was opened in between has a process all right.
    for _ in 0..2 {
        if !sockets
            .iter()
            .any(|(address, _)| is_nameless(&owners, address))
        {
            break;
        }
        owners = named_owners(port)?;
        sockets = read_sockets()?;
    }
    let nameless = sockets
        .iter()
        .filter(|(address, _)| is_nameless(&owners, address))
        .map(|(address, _)| PortOwner {
            pid: None,
            program: None,
            user: None,
            address: *address,
        });
    owners.extend(nameless.collect::<Vec<_>>());
    for owner in &mut owners {
        let socket = sockets
            .iter()
            .find(|(address, _)| *address == owner.address);
        owner.user = socket.and_then(|(_, user)| Some(user_name((*user)?)));
    }
    owners.sort_by_key(|owner| (owner.address, owner.pid));
    Ok(owners)
}

fn named_owners(port: u16) -> Result<Vec<PortOwner>, PortError> {
    let all = listeners::get_all().map_err(|error| PortError::Unreadable {
        port,
        message: error.to_string(),
    })?;
    // A look-up by port alone would also match connected sockets.
    Ok(all
        .into_iter()
        .filter(|listener| {
            listener.protocol == listeners::Protocol::TCP
                && listener.state == listeners::SocketState::Listen
                && listener.socket.port() == port
        })
        .map(|listener| PortOwner {
            pid: Some(listener.process.pid),
            program: [listener.process.path, listener.process.name]
                .into_iter()
                .find(|text| !text.is_empty()),
            user: None,
            address: listener.socket,
        })
        .collect())
}

/// The addresses with a listening socket on `port`, and the number of the user that opened each, where the system tells.
#[cfg(target_os = "linux")]
fn listening_sockets(port: u16) -> io::Result<Vec<(SocketAddr, Option<u32>)>> {
    // One of the two may be missing on a machine without that protocol.
    Ok(["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .filter_map(listening_socket)
                .collect::<Vec<_>>()
        })
        .filter(|(address, _)| address.port() == port)
        .map(|(address, user)| (address, Some(user)))
        .collect())
}

#[cfg(not(any(target_os = "linux", windows)))]
fn listening_sockets(_port: u16) -> io::Result<Vec<(SocketAddr, Option<u32>)>> {
    Ok(Vec::new())
}

/// The name of a user. From the local list only: a directory server that does not answer must not delay a question about a port.
fn user_name(number: u32) -> String {
    let listed = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    listed
        .lines()
        .find_map(|line| name_in_passwd(line, number))
        .unwrap_or_else(|| number.to_string())
}

/// `name:password:number:…`, as passwd(5) has it.
fn name_in_passwd(line: &str, number: u32) -> Option<String> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let its_number: u32 = fields.nth(1)?.parse().ok()?;
    (its_number == number && !name.is_empty()).then(|| name.to_owned())
}

/// The local address and the user in a line of `/proc/net/tcp` or `tcp6` whose state is "listening". Each group of eight digits of an
/// address is a 32-bit word in the machine's byte order.
#[cfg(target_os = "linux")]
fn listening_socket(line: &str) -> Option<(SocketAddr, u32)> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let user = fields.nth(3)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut words = [0_u8; 16];
    if !address.is_ascii() || !matches!(address.len(), 8 | 32) {
        return None;
    }
    for (index, bytes) in words
        .chunks_exact_mut(4)
        .take(address.len() / 8)
        .enumerate()
    {
        let word = u32::from_str_radix(&address[index * 8..index * 8 + 8], 16).ok()?;
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let ip: IpAddr = match address.len() {
        8 => <[u8; 4]>::try_from(&words[..4]).ok()?.into(),
        _ => words.into(),
    };
    Some((SocketAddr::new(ip, port), user))
}

/// A port could not be bound.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Somebody has it. Ask [`port_owners`] who.
    #[error("port {} is already in use on {}; stop its holder or choose another port", .address.port(), .address.ip())]
    InUse {
        /// The address that could not be bound.
        address: SocketAddr,
    },
    /// The operating system refused for another reason.
    #[error("cannot bind {address}: {source}; choose another port")]
    Refused {
        /// The address that could not be bound.
        address: SocketAddr,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
}

/// Tries whether a gateway could listen on `port`: binds the IPv4 loopback address, and the IPv6 one where there is one, and lets go.
///
/// # Errors
/// [`BindError`] naming the address that is taken. Success is a snapshot: somebody may take the port a moment later.
pub fn check_port_free(port: u16) -> Result<(), BindError> {
    for address in loopback(port) {
        match TcpListener::bind(address) {
            Ok(_) => {}
            // No IPv6 here, so no conflict on it.
            Err(error) if address.is_ipv6() && error.kind() != io::ErrorKind::AddrInUse => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(BindError::InUse { address });
            }
            Err(source) => {
                return Err(BindError::Refused {
                    address,
                    source: Arc::new(source),
                });
            }
        }
    }
    Ok(())
}

/// A port that is free on the loopback addresses right now, chosen by the operating system. It is not held: start the gateway soon,
/// and treat "port in use" as a reason to ask again.
///
/// # Errors
/// [`BindError`] when the operating system gives none that is free on both addresses.
pub fn reserve_free_port() -> Result<u16, BindError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let refused = |source| BindError::Refused {
        address: any,
        source: Arc::new(source),
    };
    let mut last = BindError::InUse { address: any };
    for _ in 0..16 {
        let listener = TcpListener::bind(any).map_err(refused)?;
        let port = listener.local_addr().map_err(refused)?.port();
        drop(listener);
        match check_port_free(port) {
            Ok(()) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn loopback(port: u16) -> [SocketAddr; 2] {
    [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far more than a busy machine needs.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[cfg(target_os = "linux")]
    #[test]
    fn socket_table_lines() {
        let rest = "00000000:00000000 00:00000000 00000000";
        let none = "00000000000000000000000000000000:0000";
        let table = [
            (
                format!("0: 0100007F:4965 00000000:0000 0A {rest} 1000 0 41"),
                Some(("127.0.0.1:18789", 1000)),
            ),
            (
                format!("1: 00000000:0050 00000000:0000 0A {rest} 0 0 42"),
                Some(("0.0.0.0:80", 0)),
            ),
            (
                format!("2: 0100007F:4965 0100007F:1234 01 {rest} 0 0 43"),
                None,
            ),
            (
                format!("3: 00000000000000000000000001000000:4965 {none} 0A {rest} 7 0 44"),
                Some(("[::1]:18789", 7)),
            ),
            (
                "  sl  local_address rem_address   st tx_queue".to_owned(),
                None,
            ),
            (format!("4: 0100007F 00000000:0000 0A {rest} 0 0 45"), None),
            (
                format!("5: 01\u{fc}00007F:4965 00000000:0000 0A {rest} 0 0 46"),
                None,
            ),
            ("6: 0100007F:4965 00000000:0000 0A 0 0".to_owned(), None),
            (String::new(), None),
        ];
        if cfg!(target_endian = "little") {
            for (line, expected) in table {
                let expected = expected.map(|(address, user)| (address.parse().unwrap(), user));
                assert_eq!(listening_socket(&line), expected, "{line:?}");
            }
        }
    }

    #[test]
    fn users_have_names() {
        let table = [
            ("root:x:0:0:root:/root:/bin/sh", 0, Some("root")),
            ("root:x:0:0:root:/root:/bin/sh", 1, None),
            ("nobody:x:65534:", 65534, Some("nobody")),
            (":x:5:", 5, None),
            ("broken", 0, None),
            ("a:b:c", 0, None),
        ];
        for (line, number, expected) in table {
            assert_eq!(name_in_passwd(line, number).as_deref(), expected, "{line}");
        }
        assert_eq!(user_name(4_000_000_000), "4000000000");
    }

    /// The holder is another process, so that its end is what frees the port.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_port_is_waited_for_until_its_holder_ends() {
        let port = reserve_free_port().unwrap();
        let program = format!(
            "import socket,time; s=socket.socket(); s.bind(('127.0.0.1',{port})); s.listen(); print('there', flush=True); time.sleep(1000)"
        );
        /// Leaves nobody behind, also when the test fails.
        struct Holder(std::process::Child);
        impl Drop for Holder {
            fn drop(&mut self) {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }
        let mut holder = std::process::Command::new("python3");
        holder
            .args(["-c", &program])
            .stdout(std::process::Stdio::piped());
        let mut holder = Holder(holder.spawn().unwrap());
        let mut there = [0; 5];
        io::Read::read_exact(holder.0.stdout.as_mut().unwrap(), &mut there).unwrap();

        let patience = Duration::from_secs(1);
        let refused = wait_until_free(port, patience).await.unwrap_err();
        let PortError::StillHeld { waited, owners, .. } = &refused else {
            panic!("{refused}");
        };
        assert!(*waited >= patience, "{waited:?}");
        assert_eq!(owners[0].pid, Some(holder.0.id()));
        assert!(refused.to_string().contains("python"), "{refused}");
        let user = owners[0].user.clone().unwrap();
        assert!(
            refused.to_string().contains(&format!("of user {user}")),
            "{refused}"
        );

        let waiting = tokio::spawn(wait_until_free(port, Duration::from_secs(60)));
        tokio::task::yield_now().await;
        drop(holder);
        waiting.await.unwrap().unwrap();
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }

    /// Ask for both a listening and a connected socket on the port: only the listening one counts.
    #[cfg_attr(windows, ignore = "Wine does not tell which process holds a socket")]
    #[tokio::test]
    async fn the_owner_of_a_port_is_the_process_that_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let _accepted = listener.accept().unwrap();
        let owners = port_owners(address.port(), PORT_TABLE_DEADLINE)
            .await
            .unwrap();
        assert_eq!(owners.len(), 1, "{owners:?}");
        assert_eq!(
            (owners[0].pid, owners[0].address),
            (Some(std::process::id()), address)
        );
        let program = owners[0].program.as_deref().unwrap();
        let own = std::env::current_exe().unwrap();
        assert_eq!(std::path::Path::new(program).file_name(), own.file_name());
        let text = owners[0].to_string();
        assert!(
            text.contains(program) && text.contains(&std::process::id().to_string()),
            "{text}"
        );

        drop((listener, _client, _accepted));
        assert_eq!(
            port_owners(address.port(), PORT_TABLE_DEADLINE)
                .await
                .unwrap(),
            []
        );
    }

    /// Whoever holds it, and whether the system tells who, the port is not free, on either protocol.
    #[tokio::test]
    async fn a_listening_socket_is_never_left_out() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(loopback) else {
                continue;
            };
            let address = listener.local_addr().unwrap();
            let client = std::net::TcpStream::connect(address).unwrap();
            let accepted = listener.accept().unwrap();
            let owners = port_owners(address.port(), PATIENCE).await.unwrap();
            let addresses: Vec<_> = owners.iter().map(|owner| owner.address).collect();
            assert_eq!(addresses, [address]);
            drop((listener, client, accepted));
            let owners = port_owners(address.port(), PATIENCE).await.unwrap();
            assert_eq!(owners, []);
        }
    }

    /// 18789 must not be found by who asks for 1878.
    #[tokio::test]
    async fn a_port_is_not_found_by_the_beginning_of_its_number() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let owners = port_owners(address.port() / 10, PORT_TABLE_DEADLINE)
            .await
            .unwrap();
        assert!(
            owners.iter().all(|owner| owner.address != address),
            "{owners:?}"
        );
    }

    #[test]
    fn a_taken_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let error = check_port_free(address.port()).unwrap_err();
        assert!(
            matches!(&error, BindError::InUse { address: taken } if *taken == address),
            "{error}"
        );
        assert!(error.to_string().contains(&address.port().to_string()));
        drop(listener);
        check_port_free(address.port()).unwrap();
    }

    #[test]
    fn a_free_port_can_be_bound() {
        let port = reserve_free_port().unwrap();
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }
}
