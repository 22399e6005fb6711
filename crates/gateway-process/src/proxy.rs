//! Proxies of a child: one choice of the user turned into the variables that programs look for, and the loopback kept out of all of them.
//!
//! Programs disagree about the spelling (`HTTPS_PROXY` or `https_proxy`) and about which one wins, so both are always set to the same. A
//! gateway talks to itself over the loopback address; a proxy in between breaks it.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use crate::env::Environment;

/// Never reached through a proxy. The last spelling is that of an address with a port, which some programs compare as it stands.
const LOOPBACK: [&str; 4] = ["localhost", "127.0.0.1", "::1", "[::1]"];

/// Kinds of proxies that the programs around Node understand.
const SCHEMES: [&str; 7] = [
    "http", "https", "socks", "socks4", "socks4a", "socks5", "socks5h",
];

/// Both spellings of a variable.
struct Spellings([&'static str; 2]);

const HTTP: Spellings = Spellings(["HTTP_PROXY", "http_proxy"]);
const HTTPS: Spellings = Spellings(["HTTPS_PROXY", "https_proxy"]);
const ALL: Spellings = Spellings(["ALL_PROXY", "all_proxy"]);
const NONE: Spellings = Spellings(["NO_PROXY", "no_proxy"]);

/// A proxy's address cannot be used. No variant holds the password that may stand in it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// It is no address.
    #[error("the {kind} proxy has no usable address ({problem}); write it as http://host:port")]
    Address {
        /// Which of the settings.
        kind: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A kind of proxy that programs do not know.
    #[error(
        "the {kind} proxy has the unknown scheme {scheme:?}; use one of http, https, socks4, socks4a, socks5, socks5h"
    )]
    Scheme {
        /// Which of the settings.
        kind: &'static str,
        /// The scheme.
        scheme: String,
    },
    /// No server at all.
    #[error("proxies are to be used and no server is named; name one, or use no proxy settings")]
    NoServer,
}

/// The user's choice of proxies.
///
/// Having none is expressed by not applying any: what the user's own environment says about proxies then reaches the child as it is.
/// Whoever wants it gone says so with [`remove_proxies`](Environment::remove_proxies). `Debug` shows no password.
///
/// ```
/// use gateway_process::{Environment, proxy::ProxySettings};
/// let mut environment = Environment::empty();
/// ProxySettings::new()
///     .general("proxy.example:8080")
///     .https("http://secure.example:8443")
///     .bypass("*.internal; 10.0.0.1")
///     .apply(&mut environment)?;
/// assert_eq!(environment.get("http_proxy").unwrap(), "http://proxy.example:8080");
/// assert_eq!(environment.get("HTTPS_PROXY").unwrap(), "http://secure.example:8443");
/// assert_eq!(environment.get("NO_PROXY").unwrap(), "*.internal,10.0.0.1,localhost,127.0.0.1,::1,[::1]");
/// # Ok::<(), gateway_process::proxy::ProxyError>(())
/// ```
#[derive(Clone, Default)]
pub struct ProxySettings {
    general: Option<SecretString>,
    http: Option<SecretString>,
    https: Option<SecretString>,
    all: Option<SecretString>,
    bypass: String,
}

impl ProxySettings {
    /// Nothing chosen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The proxy for whatever has none of its own. An address without a scheme means `http://`; a blank one means none, here and below.
    #[must_use]
    pub fn general(mut self, address: impl Into<SecretString>) -> Self {
        self.general = Some(address.into());
        self
    }

    /// The proxy for `http:` addresses.
    #[must_use]
    pub fn http(mut self, address: impl Into<SecretString>) -> Self {
        self.http = Some(address.into());
        self
    }

    /// The proxy for `https:` addresses.
    #[must_use]
    pub fn https(mut self, address: impl Into<SecretString>) -> Self {
        self.https = Some(address.into());
        self
    }

    /// The proxy for all protocols, often a SOCKS one.
    #[must_use]
    pub fn all(mut self, address: impl Into<SecretString>) -> Self {
        self.all = Some(address.into());
        self
    }

    /// Hosts to reach without a proxy, separated by commas, semicolons or line ends. The loopback addresses need not be among them.
    #[must_use]
    pub fn bypass(mut self, rules: impl Into<String>) -> Self {
        self.bypass = rules.into();
        self
    }

    /// Sets the eight variables. One for which there is no server is taken out, because the settings are the user's whole word.
    /// Where there is no specific server the general one is taken, else the one for all protocols.
    ///
    /// # Errors
    /// [`ProxyError`] when an address cannot be used or there is none; the environment is as it was then.
    pub fn apply(&self, environment: &mut Environment) -> Result<(), ProxyError> {
        let general = server("general", self.general.as_ref())?;
        let all = server("all-protocol", self.all.as_ref())?;
        let http = server("HTTP", self.http.as_ref())?;
        let https = server("HTTPS", self.https.as_ref())?;
        let fallback = general.clone().or_else(|| all.clone());
        let chosen = [
            (HTTP, http.or_else(|| fallback.clone())),
            (HTTPS, https.or(fallback)),
            (ALL, all.or(general)),
        ];
        if chosen.iter().all(|(_, server)| server.is_none()) {
            return Err(ProxyError::NoServer);
        }
        for (Spellings(names), server) in chosen {
            for name in names {
                match &server {
                    // With a password in it the whole address is a secret.
                    Some(address) if address.contains('@') => {
                        environment.set_secret(name, address.clone().into());
                    }
                    Some(address) => {
                        environment.set(name, address);
                    }
                    None => {
                        environment.remove(name);
                    }
                }
            }
        }
        let rules = with_loopback(&self.bypass);
        for name in NONE.0 {
            environment.set(name, &rules);
        }
        Ok(())
    }
}

/// Whether the text before `://` could be a scheme (RFC 3986), known or not.
fn is_scheme(text: &str) -> bool {
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redactor = Environment::empty().redactor();
        let shown = |address: &Option<SecretString>| {
            let address = address.as_ref()?.expose_secret().trim();
            Some(match address.split_once("://") {
                Some((scheme, _)) if is_scheme(scheme) => redactor.clean(address),
                // What stands there may be anything, also a password.
                Some(_) => crate::redact::REDACTED.to_owned(),
                // Without a scheme the password would not be recognised as one.
                None => redactor.clean(&format!("http://{address}")),
            })
        };
        f.debug_struct("ProxySettings")
            .field("general", &shown(&self.general))
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("all", &shown(&self.all))
            .field("bypass", &self.bypass)
            .finish()
    }
}

impl Environment {
    /// Takes all variables out that name a proxy, for a user who wants none although the system has one.
    pub fn remove_proxies(&mut self) -> &mut Self {
        for Spellings(names) in [HTTP, HTTPS, ALL, NONE] {
            for name in names {
                self.remove(name);
            }
        }
        self
    }

    /// Where a proxy is named, adds the loopback addresses to what is reached without one. Does nothing where none is.
    pub(crate) fn keep_loopback_direct(&mut self) {
        let is_set = |name: &str| self.expose(name).is_some_and(|value| !value.is_empty());
        if ![HTTP, HTTPS, ALL]
            .iter()
            .any(|s| s.0.iter().any(|name| is_set(name)))
        {
            return;
        }
        // A program that knows both spellings reads one of them only, so a missing one must not come to hold less than the other.
        let rules = |name: &str| Some(self.expose(name)?.to_string_lossy().into_owned());
        let [upper, lower] = NONE.0.map(rules);
        let either = lower.clone().or_else(|| upper.clone()).unwrap_or_default();
        for (name, own) in NONE.0.into_iter().zip([upper, lower]) {
            let old = own.unwrap_or_else(|| either.clone());
            let new = with_loopback(&old);
            if self.expose(name).is_none_or(|value| value != new.as_str()) {
                self.set(name, new);
            }
        }
    }
}

/// The rules, separated by commas, with the loopback addresses among them. `*` alone means no proxy at all and only works alone.
fn with_loopback(rules: &str) -> String {
    let mut list: Vec<&str> = rules
        .split([',', ';', '\n', '\r'])
        .map(str::trim)
        .filter(|rule| !rule.is_empty())
        .collect();
    if list.contains(&"*") {
        return "*".to_owned();
    }
    for address in LOOPBACK {
        if !list.iter().any(|rule| rule.eq_ignore_ascii_case(address)) {
            list.push(address);
        }
    }
    list.join(",")
}

/// A checked address with its scheme; `None` for a blank one.
fn server(
    kind: &'static str,
    address: Option<&SecretString>,
) -> Result<Option<String>, ProxyError> {
    let Some(address) = address
        .map(|address| address.expose_secret().trim())
        .filter(|address| !address.is_empty())
    else {
        return Ok(None);
    };
    let wrong = |problem| Err(ProxyError::Address { kind, problem });
    if address.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return wrong("there is a blank in it");
    }
    let (scheme, rest) = address.split_once("://").unwrap_or(("http", address));
    if !SCHEMES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(scheme))
    {
        // What stands there may be anything, also a password.
        return if is_scheme(scheme) {
            Err(ProxyError::Scheme {
                kind,
                scheme: scheme.to_owned(),
            })
        } else {
            wrong("what stands before :// is no scheme")
        };
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let place = authority
        .rsplit_once('@')
        .map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((host, after)) if after.is_empty() || after.starts_with(':') => {
                (host, after.strip_prefix(':'))
            }
            _ => return wrong("the brackets around its IPv6 address do not close"),
        },
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return wrong("it names no host");
    }
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return wrong("its port is not a number from 1 to 65535; an IPv6 address needs brackets");
    }
    Ok(Some(format!("{scheme}://{rest}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listed(environment: &Environment) -> String {
        let pairs = environment.iter_exposed();
        let texts = pairs.map(|(n, v)| format!("{}={}", n.display(), v.display()));
        texts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_most_specific_server_wins() {
        let none = "localhost,127.0.0.1,::1,[::1]";
        let settings = ProxySettings::new;
        let table = [
            (
                settings().general("p:1"),
                ["http://p:1", "http://p:1", "http://p:1"],
            ),
            (
                settings().all("socks5://a:2"),
                ["socks5://a:2", "socks5://a:2", "socks5://a:2"],
            ),
            (
                settings().general("p:1").all("socks5://a:2"),
                ["socks5://a:2", "http://p:1", "http://p:1"],
            ),
            (
                settings().general("p:1").http("h:3").https("https://s:4"),
                ["http://p:1", "http://h:3", "https://s:4"],
            ),
            (
                settings().general("  ").https("s:4"),
                ["", "", "http://s:4"],
            ),
        ];
        for (settings, [all, http, https]) in table {
            let mut environment =
                Environment::from_vars([("HTTP_PROXY", "http://old"), ("A", "b")]);
            settings.apply(&mut environment).unwrap();
            let read = |name: &str| {
                let value = environment.expose(name).unwrap_or_default();
                value.to_str().unwrap().to_owned()
            };
            for (upper, lower, expected) in [
                ("ALL_PROXY", "all_proxy", all),
                ("HTTP_PROXY", "http_proxy", http),
                ("HTTPS_PROXY", "https_proxy", https),
                ("NO_PROXY", "no_proxy", none),
            ] {
                let both = (read(upper), read(lower));
                assert_eq!(
                    both,
                    (expected.to_owned(), expected.to_owned()),
                    "{settings:?}"
                );
            }
        }
    }

    #[test]
    fn addresses_that_cannot_be_used_are_refused_and_change_nothing() {
        let table = [
            ("", "no server is named"),
            ("ftp://p:1", "unknown scheme \"ftp\""),
            ("user:secret@x://p", "no scheme"),
            ("http://", "names no host"),
            ("http://:80", "names no host"),
            ("http://user:secret@/x", "names no host"),
            ("p:port", "its port"),
            ("p:0", "its port"),
            ("p:65536", "its port"),
            ("fe80::1", "needs brackets"),
            ("http://[::1", "brackets"),
            ("p p:1", "blank"),
        ];
        for (address, expected) in table {
            let mut environment = Environment::from_vars([("HTTP_PROXY", "http://old")]);
            let error = ProxySettings::new().http(address).apply(&mut environment);
            let text = error.unwrap_err().to_string();
            assert!(
                text.contains(expected) && !text.contains("secret"),
                "{address}: {text}"
            );
            assert_eq!(listed(&environment), "HTTP_PROXY=http://old");
        }
        for good in ["[::1]:8080", "http://[fe80::1]", "SOCKS5H://u:p@h:1/x", "h"] {
            ProxySettings::new()
                .http(good)
                .apply(&mut Environment::empty())
                .unwrap();
        }
    }

    #[test]
    fn no_password_is_shown() {
        let settings = ProxySettings::new()
            .general("user:hunter2@p:1")
            .https("http://user:hunter2@s:2");
        let mut environment = Environment::empty();
        settings.apply(&mut environment).unwrap();
        let text = format!("{settings:?} {environment:?}");
        assert!(!text.contains("hunter2") && text.contains("@s:2"), "{text}");
        assert_eq!(
            environment.redact("via http://user:hunter2@p:1 now"),
            "via [redacted] now"
        );
    }

    #[cfg(unix)]
    #[test]
    fn an_inherited_proxy_stays_and_the_loopback_is_reached_without_it() {
        let loopback = "localhost,127.0.0.1,::1,[::1]";
        let table = [
            (vec![("A", "b")], "A=b".to_owned()),
            (vec![("NO_PROXY", "x"), ("http_proxy", "")], "NO_PROXY=x http_proxy=".to_owned()),
            (
                vec![("https_proxy", "http://p")],
                format!("NO_PROXY={loopback} https_proxy=http://p no_proxy={loopback}"),
            ),
            (
                vec![("ALL_PROXY", "socks5://p"), ("NO_PROXY", "a; LOCALHOST\n::1")],
                "ALL_PROXY=socks5://p NO_PROXY=a,LOCALHOST,::1,127.0.0.1,[::1] no_proxy=a,LOCALHOST,::1,127.0.0.1,[::1]".to_owned(),
            ),
            (
                vec![("HTTP_PROXY", "http://p"), ("NO_PROXY", "a"), ("no_proxy", "b")],
                format!("HTTP_PROXY=http://p NO_PROXY=a,{loopback} no_proxy=b,{loopback}"),
            ),
            (
                vec![("HTTP_PROXY", "http://p"), ("no_proxy", "*")],
                "HTTP_PROXY=http://p NO_PROXY=* no_proxy=*".to_owned(),
            ),
        ];
        for (variables, expected) in table {
            let mut environment = Environment::from_vars(variables);
            environment.keep_loopback_direct();
            assert_eq!(listed(&environment), expected);
            environment.keep_loopback_direct();
            assert_eq!(listed(&environment), expected, "once more");
        }
        let mut environment =
            Environment::from_vars([("HTTP_PROXY", "p"), ("no_proxy", "a"), ("A", "b")]);
        environment.remove_proxies();
        assert_eq!(listed(&environment), "A=b");
    }

    #[test]
    fn a_password_before_the_slashes_is_not_shown() {
        for address in ["u:hunter2@://", "u:hunter2@x://h", "hunter2 ://h:1"] {
            let shown = format!("{:?}", ProxySettings::new().http(address));
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn any_address_is_checked_without_showing_it(address in "[a-z0-9:/@\\[\\]#? .]{0,20}") {
            let settings = ProxySettings::new().http(format!("u:hunter2@{address}"));
            let mut environment = Environment::empty();
            let outcome = settings.apply(&mut environment);
            let text = format!("{settings:?} {environment:?} {outcome:?}");
            prop_assert!(!text.contains("hunter2"), "{}", text);
        }
    }
}
