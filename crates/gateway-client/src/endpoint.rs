//! Where a gateway listens.
//!
//! On a host that resolves `localhost` to `::1` first, dialling the name and testing 127.0.0.1 can reach two
//! different programs. An [`Endpoint`] therefore never asks a resolver
//! for the local machine: it holds the literal addresses, IPv4 first, because the gateway always serves IPv4 and
//! serves `::1` only when nobody else holds that port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use gateway_protocol::limits::DEFAULT_PORT;

/// The address of one gateway, as the pieces of a `ws://` URL.
///
/// Its text form leaves out the query, which is where people put secrets although the gateway ignores them there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: Host,
    port: u16,
    /// Path and query, always beginning with `/`.
    path: String,
}

/// The host part of an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// This machine: 127.0.0.1 is dialled first, `::1` only when nobody listens there.
    Loopback,
    /// A literal address.
    Address(IpAddr),
    /// A name that the system resolver turns into addresses.
    Name(String),
}

impl Endpoint {
    /// A gateway on this machine. Dials 127.0.0.1, then `::1`; never the name `localhost`.
    #[must_use]
    pub fn loopback(port: u16) -> Self {
        Self {
            host: Host::Loopback,
            port,
            path: "/".to_owned(),
        }
    }

    /// A gateway at a literal address.
    #[must_use]
    pub fn address(address: SocketAddr) -> Self {
        Self {
            host: Host::Address(address.ip()),
            port: address.port(),
            path: "/".to_owned(),
        }
    }

    /// Reads a `ws://host[:port][/path]` address. Without a port the gateway's default, 18789, is used.
    ///
    /// The host `localhost` means [`Endpoint::loopback`].
    ///
    /// # Errors
    /// Says which part is wrong. `wss://` gives [`EndpointError::TlsNotSupported`].
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(EndpointError::NoScheme);
        };
        match scheme.to_ascii_lowercase().as_str() {
            "ws" => {}
            "wss" => return Err(EndpointError::TlsNotSupported),
            other => {
                return Err(EndpointError::UnsupportedScheme {
                    scheme: other.to_owned(),
                });
            }
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = match rest.find(['/', '?']) {
            Some(at) if rest.as_bytes()[at] == b'/' => (&rest[..at], rest[at..].to_owned()),
            Some(at) => (&rest[..at], format!("/{}", &rest[at..])),
            None => (rest, "/".to_owned()),
        };
        if authority.contains('@') {
            return Err(EndpointError::Credentials);
        }
        // The path is copied into the request line of the upgrade.
        if path
            .bytes()
            .any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control() || !byte.is_ascii())
        {
            return Err(EndpointError::InvalidPath);
        }
        let (host, port) = split_authority(authority)?;
        Ok(Self { host, port, path })
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query as they are sent in the upgrade request. The gateway accepts any path.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the host is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Loopback => true,
            Host::Address(address) => address.is_loopback(),
            Host::Name(_) => false,
        }
    }

    /// The literal addresses to dial in order; `None` when the resolver has to be asked first.
    #[must_use]
    pub fn literal_addresses(&self) -> Option<Vec<SocketAddr>> {
        match &self.host {
            Host::Loopback => Some(vec![
                SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)),
                SocketAddr::from((Ipv6Addr::LOCALHOST, self.port)),
            ]),
            Host::Address(address) => Some(vec![SocketAddr::from((*address, self.port))]),
            Host::Name(_) => None,
        }
    }

    /// `host:port`, as the `Host` header of the upgrade wants it.
    #[must_use]
    pub fn authority(&self) -> String {
        match &self.host {
            Host::Loopback => format!("127.0.0.1:{}", self.port),
            Host::Address(address) => SocketAddr::from((*address, self.port)).to_string(),
            Host::Name(name) => format!("{name}:{}", self.port),
        }
    }
}

fn split_authority(authority: &str) -> Result<(Host, u16), EndpointError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return Err(EndpointError::InvalidHost {
                host: authority.to_owned(),
            });
        };
        let address: Ipv6Addr = address.parse().map_err(|_| EndpointError::InvalidHost {
            host: authority.to_owned(),
        })?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(port),
            None if after.is_empty() => None,
            None => {
                return Err(EndpointError::InvalidHost {
                    host: authority.to_owned(),
                });
            }
        };
        (Host::Address(IpAddr::V6(address)), port)
    } else {
        let (name, port) = match authority.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (authority, None),
        };
        (parse_name(name)?, port)
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(text) => match text.parse::<u16>() {
            Ok(port) if port != 0 => port,
            _ => {
                return Err(EndpointError::InvalidPort {
                    port: text.to_owned(),
                });
            }
        },
    };
    Ok((host, port))
}

fn parse_name(name: &str) -> Result<Host, EndpointError> {
    if name.is_empty() {
        return Err(EndpointError::NoHost);
    }
    if name.eq_ignore_ascii_case("localhost") {
        return Ok(Host::Loopback);
    }
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if !name.bytes().all(allowed) {
        return Err(EndpointError::InvalidHost {
            host: name.to_owned(),
        });
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        Self::parse(url)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.split('?').next().unwrap_or("/");
        write!(f, "ws://{}{path}", self.authority())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// Why an address is not one of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// There is no `scheme://`.
    #[error("the gateway address has no scheme; write it as ws://HOST:PORT")]
    NoScheme,
    /// The scheme is none of a WebSocket.
    #[error("the gateway address begins with {scheme}://; write it as ws://HOST:PORT")]
    UnsupportedScheme {
        /// The scheme found, in lower case.
        scheme: String,
    },
    /// `wss://` was asked for.
    #[error(
        "TLS (wss://) is not built yet; use ws:// on the gateway's own machine, or forward the port through a \
         tunnel such as `ssh -L` and connect to ws://127.0.0.1:PORT"
    )]
    TlsNotSupported,
    /// The address holds a user name or password.
    #[error(
        "the gateway address must not hold credentials; pass the token through the connect options instead"
    )]
    Credentials,
    /// There is no host.
    #[error("the gateway address names no host; write it as ws://HOST:PORT")]
    NoHost,
    /// The host is neither a name nor an address.
    #[error("`{host}` is no host name or address; put an IPv6 address in brackets")]
    InvalidHost {
        /// The host found.
        host: String,
    },
    /// The port is not a number from 1 to 65535.
    #[error("`{port}` is no port; it must be a number from 1 to 65535")]
    InvalidPort {
        /// The port found.
        port: String,
    },
    /// The path holds blanks, control characters or characters outside ASCII.
    #[error("the path of the gateway address must be percent-encoded ASCII without blanks")]
    InvalidPath,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_addresses() {
        let cases: &[(&str, &str, bool)] = &[
            ("ws://127.0.0.1:1234", "ws://127.0.0.1:1234/", true),
            ("ws://localhost:1234/ws", "ws://127.0.0.1:1234/ws", true),
            ("WS://LocalHost", "ws://127.0.0.1:18789/", true),
            ("ws://[::1]:9/", "ws://[::1]:9/", true),
            ("ws://[2001:db8::1]", "ws://[2001:db8::1]:18789/", false),
            (
                "ws://Gateway.example:80?x=1",
                "ws://gateway.example:80/",
                false,
            ),
            ("ws://h/a/b?token=secret#f", "ws://h:18789/a/b", false),
        ];
        for (url, shown, loopback) in cases {
            let endpoint = Endpoint::parse(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!(endpoint.to_string(), *shown, "{url}");
            assert_eq!(endpoint.is_loopback(), *loopback, "{url}");
            assert!(!format!("{endpoint:?}").contains("secret"), "{url}");
        }
    }

    #[test]
    fn refused_addresses() {
        let cases: &[(&str, EndpointError)] = &[
            ("127.0.0.1:1", EndpointError::NoScheme),
            ("wss://h", EndpointError::TlsNotSupported),
            (
                "http://h",
                EndpointError::UnsupportedScheme {
                    scheme: "http".to_owned(),
                },
            ),
            ("ws://user:pass@h", EndpointError::Credentials),
            ("ws://", EndpointError::NoHost),
            ("ws://:80", EndpointError::NoHost),
            (
                "ws://h:0",
                EndpointError::InvalidPort {
                    port: "0".to_owned(),
                },
            ),
            (
                "ws://h:65536",
                EndpointError::InvalidPort {
                    port: "65536".to_owned(),
                },
            ),
            (
                "ws://a b",
                EndpointError::InvalidHost {
                    host: "a b".to_owned(),
                },
            ),
            (
                "ws://[::1",
                EndpointError::InvalidHost {
                    host: "[::1".to_owned(),
                },
            ),
            ("ws://h/a b", EndpointError::InvalidPath),
            ("ws://h/a\r\nX: y", EndpointError::InvalidPath),
        ];
        for (url, error) in cases {
            assert_eq!(Endpoint::parse(url).as_ref(), Err(error), "{url}");
        }
    }

    #[test]
    fn the_local_machine_is_never_looked_up_by_name() {
        let literal = Endpoint::parse("ws://localhost:7").map(|e| e.literal_addresses());
        let expected: Vec<SocketAddr> = vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, 7)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, 7)),
        ];
        assert_eq!(literal, Ok(Some(expected)));
        assert_eq!(
            Endpoint::parse("ws://example.org").map(|e| e.literal_addresses()),
            Ok(None)
        );
    }
}
