//! A script of ours that Node loads into the gateway before the gateway's own code. Off unless a caller asks for it.
//!
//! It does two things that no setting of OpenClaw does: requests to chosen hosts carry headers that name the application behind them, as some
//! model providers want it, and on Windows the programs that the gateway starts do not open console windows.
//!
//! The script is written to a file and named in `NODE_OPTIONS`. What it is to do stands in an environment variable of its own as JSON, so
//! nothing is ever put together into code. It adds and never replaces: headers that the gateway sets itself win, and so does a
//! `windowsHide` that the caller of a child process has set. A variable that the script cannot read makes it do nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::env::Environment;
use crate::node_options::{NodeOptions, NodeOptionsError};

const SCRIPT: &str = include_str!("preload/preload.cjs");

/// What the script is to do; read by `preload.cjs`.
const VARIABLE: &str = "GATEWAY_MANAGER_PRELOAD";

/// Headers that decide where a request goes, how it is cut up, or who asks.
const RESERVED: [&str; 9] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "proxy-authorization",
    "transfer-encoding",
    "upgrade",
];

/// The script cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreloadError {
    /// A host that is none.
    #[error(
        "{host:?} is no host name; write it without scheme, port and path, such as openrouter.ai"
    )]
    Host {
        /// The host.
        host: String,
    },
    /// A header that may not be added, or is none.
    #[error("{name:?} cannot be added as a header: {problem}")]
    Header {
        /// The header's name.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The file could not be written.
    #[error("the script for Node cannot be written to {} ({source}); choose a directory that is writable", .file.display())]
    NotWritten {
        /// The file.
        file: PathBuf,
        /// The operating system's answer.
        source: Arc<io::Error>,
    },
    /// Node cannot be told to load it.
    #[error(transparent)]
    Options(#[from] NodeOptionsError),
}

/// Headers for the requests to one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Attribution {
    host: String,
    subdomains: bool,
    headers: BTreeMap<String, String>,
}

/// What the script is to do in a gateway. Nothing, to begin with.
///
/// ```
/// use gateway_process::{Environment, preload::{Hosts, Preload}};
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let mut preload = Preload::new();
/// preload
///     .attribute(Hosts::Exactly("openrouter.ai"), [("HTTP-Referer", "https://app.example"), ("X-Title", "App")])?
///     .hide_windows(true);
/// let mut environment = Environment::from_parent();
/// preload.apply(&mut environment, directory)?;
/// assert!(environment.get("NODE_OPTIONS").unwrap().to_string_lossy().contains("--require="));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Preload {
    attribution: Vec<Attribution>,
    hide_windows: bool,
}

/// Which hosts are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hosts<'a> {
    /// This one.
    Exactly(&'a str),
    /// This one and all below it.
    WithSubdomains(&'a str),
}

impl Preload {
    /// A script that does nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds headers to what the gateway requests through `fetch` from these hosts, on any port. Those that the request has already stay as
    /// they are. They are no place for secrets. When a host answers with a redirection they go along with it.
    ///
    /// # Errors
    /// [`PreloadError::Host`] and [`PreloadError::Header`] for what cannot be one.
    pub fn attribute<N: Into<String>, V: Into<String>>(
        &mut self,
        hosts: Hosts<'_>,
        headers: impl IntoIterator<Item = (N, V)>,
    ) -> Result<&mut Self, PreloadError> {
        let (host, subdomains) = match hosts {
            Hosts::Exactly(host) => (host, false),
            Hosts::WithSubdomains(host) => (host, true),
        };
        let host = host.trim_end_matches('.').to_lowercase();
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .chars()
                    .all(|c| c.is_alphanumeric() || "-_".contains(c))
        };
        if !host.split('.').all(is_label) {
            return Err(PreloadError::Host { host });
        }
        let headers = headers
            .into_iter()
            .map(|(name, value)| checked_header(name.into(), value.into()))
            .collect::<Result<_, _>>()?;
        self.attribution.push(Attribution {
            host,
            subdomains,
            headers,
        });
        Ok(self)
    }

    /// Whether programs that the gateway starts get no console window on Windows, unless the gateway says otherwise itself. Elsewhere this
    /// has no effect.
    pub fn hide_windows(&mut self, hide: bool) -> &mut Self {
        self.hide_windows = hide;
        self
    }

    /// Whether there is nothing to do, so that the script is not loaded at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.hide_windows && self.attribution.iter().all(|rule| rule.headers.is_empty())
    }

    /// Writes the script to `directory`, which is created when it is missing, and makes a gateway of this environment load it. Node options
    /// that are in the environment already are kept. With [nothing to do](Self::is_empty), nothing is written or changed.
    ///
    /// The file's name tells its content, so launches of several versions of this crate do not disturb each other; one that is
    /// there already stays. Only its owner can read it. Blocks on the file system.
    ///
    /// # Errors
    /// [`PreloadError`] when the script cannot be written or Node cannot be told to load it; the environment is as it was then.
    pub fn apply(
        &self,
        environment: &mut Environment,
        directory: impl AsRef<Path>,
    ) -> Result<(), PreloadError> {
        if self.is_empty() {
            return Ok(());
        }
        let mut options = NodeOptions::of(environment)?;
        let file = file_in(directory.as_ref());
        options.require_file(&file)?;
        write(&file).map_err(|source| PreloadError::NotWritten {
            file: file.clone(),
            source: Arc::new(source),
        })?;
        options.apply(environment);
        // A value of strings, lists and flags always has a JSON text.
        let settings = serde_json::to_string(self).unwrap_or_default();
        environment.set(VARIABLE, settings);
        Ok(())
    }
}

fn checked_header(name: String, value: String) -> Result<(String, String), PreloadError> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let problem = if name.is_empty() || !name.chars().all(is_token) {
        "that is no name of a header"
    } else if RESERVED
        .iter()
        .any(|reserved| reserved.eq_ignore_ascii_case(&name))
    {
        "it decides where a request goes or who asks"
    } else if !value
        .chars()
        .all(|c| c == '\t' || (' '..='\u{ff}').contains(&c) && c != '\u{7f}')
    {
        "its value holds a line end, a control character, or one beyond Latin-1"
    } else {
        return Ok((name, value));
    };
    Err(PreloadError::Header { name, problem })
}

/// Where the script is below `directory`.
fn file_in(directory: &Path) -> PathBuf {
    let hash = Sha256::digest(SCRIPT);
    let digits: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    directory.join(format!("gateway-preload-{digits}.cjs"))
}

/// Complete or not at all: another gateway may be loading it in this moment.
fn write(file: &Path) -> io::Result<()> {
    if fs::read(file).is_ok_and(|content| content == SCRIPT.as_bytes()) {
        return Ok(());
    }
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".gateway-preload-")
        .tempfile_in(directory)?;
    temporary.write_all(SCRIPT.as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_host_or_a_header_is_refused() {
        for host in [
            "", ".", "a..b", "http://a", "a:80", "a/b", "a b", "u@a", "a\"b", "*.a",
        ] {
            let error = Preload::new()
                .attribute(Hosts::Exactly(host), [("A", "b")])
                .unwrap_err();
            assert!(
                matches!(error, PreloadError::Host { .. }),
                "{host}: {error}"
            );
        }
        for (name, value) in [
            ("", "x"),
            ("A B", "x"),
            ("A:", "x"),
            ("Authorization", "x"),
            ("COOKIE", "x"),
            ("Host", "x"),
            ("X-Title", "a\r\nB: c"),
            ("X-Title", "\0"),
            ("X-Title", "漢"),
        ] {
            let error = Preload::new()
                .attribute(Hosts::Exactly("a"), [(name, value)])
                .unwrap_err();
            assert!(
                matches!(error, PreloadError::Header { .. }),
                "{name}: {error}"
            );
        }
        Preload::new()
            .attribute(
                Hosts::WithSubdomains("Bücher.Example."),
                [("X-Title", "Bücher\tä")],
            )
            .unwrap();
    }

    #[test]
    fn nothing_to_do_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut preload = Preload::new();
        preload
            .attribute(Hosts::Exactly("a"), [("", ""); 0])
            .unwrap();
        let mut environment = Environment::empty();
        preload
            .apply(&mut environment, folder.path().join("new"))
            .unwrap();
        assert_eq!(environment.names().count(), 0);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_script_is_written_once_and_mended_when_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("a").join("b");
        let mut preload = Preload::new();
        preload.hide_windows(true);
        let apply = || {
            let mut environment = Environment::empty();
            environment.set("NODE_OPTIONS", "--no-warnings");
            preload.apply(&mut environment, &directory).unwrap();
            environment
        };
        let environment = apply();
        let file = file_in(&directory);
        let options = NodeOptions::of(&environment).unwrap();
        let expected = [
            "--no-warnings".to_owned(),
            format!("--require={}", file.display()),
        ];
        assert_eq!(options.arguments(), expected);
        let value = environment.get(VARIABLE).unwrap().to_str().unwrap();
        assert_eq!(value, r#"{"attribution":[],"hideWindows":true}"#);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, PermissionsExt};
            let facts = || fs::metadata(&file).unwrap();
            assert_eq!(facts().permissions().mode() & 0o777, 0o600);
            let before = facts().ino();
            apply();
            assert_eq!(facts().ino(), before, "it was written again");
        }
        fs::write(&file, "process.exit(1)").unwrap();
        apply();
        assert_eq!(fs::read_to_string(&file).unwrap(), SCRIPT);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_named_and_the_environment_stays() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::write(&taken, "").unwrap();
        let mut environment = Environment::empty();
        let mut preload = Preload::new();
        preload.hide_windows(true);
        let error = preload.apply(&mut environment, &taken).unwrap_err();
        assert!(matches!(error, PreloadError::NotWritten { .. }), "{error}");
        assert!(
            error.to_string().contains(taken.to_str().unwrap()),
            "{error}"
        );
        environment.set("NODE_OPTIONS", "\"open");
        let error = preload.apply(&mut environment, folder.path()).unwrap_err();
        assert!(matches!(error, PreloadError::Options(_)), "{error}");
        assert_eq!(environment.names().collect::<Vec<_>>(), ["NODE_OPTIONS"]);
    }
}
