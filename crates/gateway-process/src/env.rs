//! The complete environment of a child, built before the launch and never patched afterwards.
//!
//! Three things go wrong when a gateway simply inherits its parent's variables. Markers of a service manager make it believe
//! that *it* is the service: it exits on a restart request instead of restarting, and retries a taken port for minutes.
//! `NODE_COMPILE_CACHE` and `NODE_OPTIONS` change how the runtime starts, the former by putting a launcher process between us and
//! the gateway. And on Windows `PATH` and `Path` can both exist, with the child free to read either.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use crate::redact::{REDACTED, Redactor, is_secret_name};

/// Variables of the parent that no child inherits.
///
/// The first group makes OpenClaw 2026.9.6 believe that a service manager owns it; the second belongs to the parent's own
/// conversation with systemd, launchd, supervisord or pm2; the third is the parent's end of a channel between two Node processes, whose
/// descriptor means something else in the child; the last changes how Node starts.
pub const NOT_INHERITED: &[&str] = &[
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "OPENCLAW_SYSTEMD_UNIT",
    "OPENCLAW_LAUNCHD_LABEL",
    "LAUNCH_JOB_LABEL",
    "LAUNCH_JOB_NAME",
    "XPC_SERVICE_NAME",
    "OPENCLAW_SUPERVISOR_MODE",
    "OPENCLAW_SERVICE_MARKER",
    "OPENCLAW_SERVICE_KIND",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "MANAGERPID",
    "LAUNCHD_SOCKET",
    "XPC_FLAGS",
    "SUPERVISOR_ENABLED",
    "SUPERVISOR_GROUP_NAME",
    "SUPERVISOR_PROCESS_NAME",
    "SUPERVISOR_SERVER_URL",
    "pm_id",
    "NODE_APP_INSTANCE",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "NODE_OPTIONS",
    "NODE_COMPILE_CACHE",
];

/// How names are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Unix: `PATH` and `Path` are two variables.
    Exact,
    /// Windows: one variable, whose existing spelling is kept.
    IgnoreCase,
}

impl Names {
    const NATIVE: Self = if cfg!(windows) {
        Self::IgnoreCase
    } else {
        Self::Exact
    };

    fn key(self, name: &OsStr) -> OsString {
        match self {
            Self::Exact => name.to_owned(),
            Self::IgnoreCase => name.to_ascii_uppercase(),
        }
    }
}

#[derive(Clone)]
enum Value {
    /// From the parent. Nobody looked at it, so it is never printed.
    Inherited(OsString),
    /// Set by the caller.
    Plain(OsString),
    Secret(SecretString),
}

impl Value {
    fn expose(&self) -> &OsStr {
        match self {
            Self::Inherited(value) | Self::Plain(value) => value,
            Self::Secret(value) => OsStr::new(value.expose_secret()),
        }
    }
}

#[derive(Clone)]
struct Variable {
    name: OsString,
    value: Value,
}

/// A complete environment: what is in it is all the child gets.
///
/// `Debug` prints the names the caller set, values only where neither the type nor the name says secret, and of the inherited
/// variables only their number.
#[derive(Clone)]
pub struct Environment {
    names: Names,
    variables: BTreeMap<OsString, Variable>,
}

impl Environment {
    /// No variables at all.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            names: Names::NATIVE,
            variables: BTreeMap::new(),
        }
    }

    /// The variables of this process without [`NOT_INHERITED`].
    #[must_use]
    pub fn from_parent() -> Self {
        Self::inherit(Names::NATIVE, env::vars_os())
    }

    /// The same from any list of variables: what [`from_parent`](Self::from_parent) would make of it. Where names differ in
    /// case only and the platform does not care about case, the first spelling and the last value win.
    pub fn from_vars<N: Into<OsString>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        Self::inherit(
            Names::NATIVE,
            variables.into_iter().map(|(n, v)| (n.into(), v.into())),
        )
    }

    fn inherit(names: Names, variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self {
            names,
            variables: BTreeMap::new(),
        };
        for (name, value) in variables {
            environment.insert(name, Value::Inherited(value));
        }
        for name in NOT_INHERITED {
            environment.remove(name);
        }
        environment
    }

    fn insert(&mut self, name: OsString, value: Value) {
        let key = self.names.key(&name);
        match self.variables.get_mut(&key) {
            Some(variable) => variable.value = value,
            None => {
                self.variables.insert(key, Variable { name, value });
            }
        }
    }

    /// Sets a variable that may be seen in logs. Use [`set_secret`](Self::set_secret) for anything else.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> &mut Self {
        self.insert(name.into(), Value::Plain(value.into()));
        self
    }

    /// Sets a variable whose value is redacted wherever this crate prints something, also where it turns up in an argument.
    pub fn set_secret(&mut self, name: impl Into<OsString>, value: SecretString) -> &mut Self {
        self.insert(name.into(), Value::Secret(value));
        self
    }

    /// Takes a variable out.
    pub fn remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.variables.remove(&self.names.key(name.as_ref()));
        self
    }

    /// Takes every inherited variable out that is not on the list. A name that ends with `*` stands for all that begin with what is before
    /// it. What was set here stays.
    ///
    /// ```
    /// use gateway_process::Environment;
    /// let mut environment = Environment::from_vars([("HOME", "/home/u"), ("LC_ALL", "C"), ("AWS_PROFILE", "work")]);
    /// environment.set("MODE", "test").keep_only(["HOME", "LC_*"]);
    /// assert_eq!(environment.names().collect::<Vec<_>>(), ["HOME", "LC_ALL", "MODE"]);
    /// ```
    pub fn keep_only<'a>(&mut self, allowed: impl IntoIterator<Item = &'a str>) -> &mut Self {
        let allowed = NameList::new(self.names, allowed);
        self.variables.retain(|key, variable| {
            !matches!(variable.value, Value::Inherited(_)) || allowed.has(key)
        });
        self
    }

    /// A copy with nothing in it but what is on the list, wherever it comes from: for another program than the gateway, which needs the way
    /// to the network and none of the keys. Names are written as for [`keep_only`](Self::keep_only).
    #[must_use]
    pub fn reduced_to<'a>(&self, allowed: impl IntoIterator<Item = &'a str>) -> Self {
        let allowed = NameList::new(self.names, allowed);
        let mut reduced = self.clone();
        reduced.variables.retain(|key, _| allowed.has(key));
        reduced
    }

    /// Puts a folder in front of the search path, so that programs in it win; creates the variable when it is missing. A folder
    /// already at the front is not repeated. A folder whose name cannot be part of a search path (it holds the separator) is
    /// left out.
    pub fn prepend_path(&mut self, folder: impl AsRef<Path>) -> &mut Self {
        self.prepend_paths([folder])
    }

    /// The same for several folders, of which the first wins.
    pub fn prepend_paths<F: AsRef<Path>>(
        &mut self,
        folders: impl IntoIterator<Item = F>,
    ) -> &mut Self {
        let mut path = usable_folders(folders);
        let old = self.search_path();
        if old.starts_with(&path) {
            return self;
        }
        path.extend(old);
        self.set_search_path(path)
    }

    /// Adds a folder at the end of the search path, for programs that are found nowhere else; creates the variable when it is missing.
    /// A folder that is in the path already is not repeated, and one whose name cannot be part of a search path is left out.
    pub fn append_path(&mut self, folder: impl AsRef<Path>) -> &mut Self {
        let mut path = self.search_path();
        let known = path.len();
        for folder in usable_folders([folder]) {
            if !path.contains(&folder) {
                path.push(folder);
            }
        }
        if path.len() == known {
            return self;
        }
        self.set_search_path(path)
    }

    /// The folders of the search path in their order. Empty entries, which would mean the working directory, are left out.
    fn search_path(&self) -> Vec<PathBuf> {
        let path = self.expose("PATH").unwrap_or_default();
        env::split_paths(path)
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect()
    }

    fn set_search_path(&mut self, folders: Vec<PathBuf>) -> &mut Self {
        if let Ok(joined) = env::join_paths(folders) {
            self.insert("PATH".into(), Value::Plain(joined));
        }
        self
    }

    /// The value of a variable that is not secret.
    #[must_use]
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        match &self.variables.get(&self.names.key(name.as_ref()))?.value {
            Value::Secret(_) => None,
            value => Some(value.expose()),
        }
    }

    /// The value of a variable, secret or not. Do not print it.
    #[must_use]
    pub fn expose(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        Some(
            self.variables
                .get(&self.names.key(name.as_ref()))?
                .value
                .expose(),
        )
    }

    /// The names of all variables, sorted.
    pub fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.variables
            .values()
            .map(|variable| variable.name.as_os_str())
    }

    /// Everything, in the clear, for the operating system.
    pub(crate) fn iter_exposed(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables
            .values()
            .map(|v| (v.name.as_os_str(), v.value.expose()))
    }

    /// What was set here, in the clear; not what was inherited.
    pub(crate) fn iter_set(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables
            .values()
            .filter(|variable| !matches!(variable.value, Value::Inherited(_)))
            .map(|v| (v.name.as_os_str(), v.value.expose()))
    }

    /// `text` as it may be shown: without the values that are secret here by their type or by their name, and without passwords in
    /// addresses. For what a child of this environment has printed; for more than one text make a [`redactor`](Self::redactor).
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        self.redactor().clean(text)
    }

    /// What [`redact`](Self::redact) does, with the values looked up once: for everything that a child of this environment prints.
    #[must_use]
    pub fn redactor(&self) -> Redactor {
        let declared = self
            .variables
            .values()
            .filter_map(|variable| match &variable.value {
                Value::Secret(secret) => Some(secret.expose_secret()),
                Value::Plain(_) | Value::Inherited(_) => None,
            });
        // A key that came with the parent's environment is as secret as one that was set here.
        let guessed = self
            .variables
            .values()
            .filter_map(|variable| match &variable.value {
                Value::Plain(value) | Value::Inherited(value)
                    if is_secret_name(&variable.name.to_string_lossy()) =>
                {
                    value.to_str()
                }
                _ => None,
            });
        Redactor::new(declared, guessed)
    }
}

/// Names of variables, some of which stand for all with the same beginning.
struct NameList(Vec<(OsString, bool)>);

impl NameList {
    fn new<'a>(names: Names, list: impl IntoIterator<Item = &'a str>) -> Self {
        let entry = |name: &'a str| {
            let prefix = name.strip_suffix('*');
            let key = names.key(OsStr::new(prefix.unwrap_or(name)));
            (key, prefix.is_some())
        };
        Self(list.into_iter().map(entry).collect())
    }

    fn has(&self, key: &OsStr) -> bool {
        self.0.iter().any(|(name, is_prefix)| {
            if *is_prefix {
                key.as_encoded_bytes().starts_with(name.as_encoded_bytes())
            } else {
                key == name
            }
        })
    }
}

/// The folders that can be part of a search path.
fn usable_folders<F: AsRef<Path>>(folders: impl IntoIterator<Item = F>) -> Vec<PathBuf> {
    folders
        .into_iter()
        .map(|folder| folder.as_ref().to_owned())
        .filter(|folder| !folder.as_os_str().is_empty() && env::join_paths([folder]).is_ok())
        .collect()
}

impl Default for Environment {
    /// [`from_parent`](Self::from_parent).
    fn default() -> Self {
        Self::from_parent()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redactor = self.redactor();
        let mut inherited = 0_usize;
        let mut map = f.debug_map();
        for variable in self.variables.values() {
            let name = variable.name.to_string_lossy();
            match &variable.value {
                Value::Inherited(_) => inherited += 1,
                Value::Plain(value) if !is_secret_name(&name) => {
                    map.entry(
                        &redactor.clean(&name),
                        &redactor.clean(&value.to_string_lossy()),
                    );
                }
                Value::Plain(_) | Value::Secret(_) => {
                    map.entry(&redactor.clean(&name), &REDACTED);
                }
            }
        }
        map.entry(&"inherited", &inherited).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inherit(names: Names, variables: &[(&str, &str)]) -> Environment {
        Environment::inherit(
            names,
            variables.iter().map(|(n, v)| ((*n).into(), (*v).into())),
        )
    }

    fn listed(environment: &Environment) -> Vec<(String, String)> {
        environment
            .iter_exposed()
            .map(|(n, v)| {
                (
                    n.to_string_lossy().into_owned(),
                    v.to_string_lossy().into_owned(),
                )
            })
            .collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn markers_of_a_service_manager_are_not_inherited() {
        let mut variables: Vec<_> = NOT_INHERITED.iter().map(|name| (*name, "1")).collect();
        variables.extend([
            ("HOME", "/home/u"),
            ("https_proxy", "http://proxy"),
            ("NODE_EXTRA_CA_CERTS", "/ca.pem"),
        ]);
        let environment = inherit(Names::Exact, &variables);
        assert_eq!(
            listed(&environment),
            pairs(&[
                ("HOME", "/home/u"),
                ("NODE_EXTRA_CA_CERTS", "/ca.pem"),
                ("https_proxy", "http://proxy")
            ])
        );
        // What the caller sets afterwards is the caller's business.
        let mut environment = environment;
        environment.set("NODE_OPTIONS", "--max-old-space-size=512");
        assert_eq!(
            environment.get("NODE_OPTIONS"),
            Some(OsStr::new("--max-old-space-size=512"))
        );
    }

    #[test]
    fn names_that_differ_in_case_are_one_variable_where_the_platform_says_so() {
        let variables = [
            ("Path", "a"),
            ("PATH", "b"),
            ("node_options", "x"),
            ("Home", "h"),
        ];
        let mut environment = inherit(Names::IgnoreCase, &variables);
        environment.set("HOME", "g");
        assert_eq!(listed(&environment), pairs(&[("Home", "g"), ("Path", "b")]));
        environment.prepend_path("first");
        assert_eq!(environment.names().collect::<Vec<_>>(), ["Home", "Path"]);
        assert_eq!(environment.get("path"), environment.get("PATH"));

        let environment = inherit(Names::Exact, &variables);
        assert_eq!(
            listed(&environment),
            pairs(&[
                ("Home", "h"),
                ("PATH", "b"),
                ("Path", "a"),
                ("node_options", "x")
            ])
        );
    }

    /// Which markers there are is a fact about others, so it is written down here once more.
    #[test]
    fn the_markers_of_other_supervisors() {
        let mut markers = NOT_INHERITED.to_vec();
        markers.sort_unstable();
        let expected = "INVOCATION_ID JOURNAL_STREAM LAUNCHD_SOCKET LAUNCH_JOB_LABEL LAUNCH_JOB_NAME LISTEN_FDNAMES LISTEN_FDS \
             LISTEN_PID MANAGERPID NODE_APP_INSTANCE NODE_CHANNEL_FD NODE_CHANNEL_SERIALIZATION_MODE NODE_COMPILE_CACHE \
             NODE_OPTIONS NODE_UNIQUE_ID NOTIFY_SOCKET OPENCLAW_LAUNCHD_LABEL OPENCLAW_SERVICE_KIND OPENCLAW_SERVICE_MARKER \
             OPENCLAW_SUPERVISOR_MODE OPENCLAW_SYSTEMD_UNIT SUPERVISOR_ENABLED SUPERVISOR_GROUP_NAME SUPERVISOR_PROCESS_NAME \
             SUPERVISOR_SERVER_URL SYSTEMD_EXEC_PID WATCHDOG_PID WATCHDOG_USEC XPC_FLAGS XPC_SERVICE_NAME pm_id";
        assert_eq!(markers.join(" "), expected);
    }

    #[test]
    fn a_list_of_what_may_be_inherited() {
        let variables = [
            ("PATH", "/bin"),
            ("Path", "/odd"),
            ("LC_ALL", "C"),
            ("lc_time", "C"),
            ("PATHEXT", ".EXE"),
            ("INVOCATION_ID", "x"),
            ("AWS_SECRET", "x"),
        ];
        let allowed = ["PATH", "LC_*", "INVOCATION_ID", "MISSING"];
        let mut environment = inherit(Names::Exact, &variables);
        environment.set("AWS_REGION", "eu").keep_only(allowed);
        assert_eq!(
            listed(&environment),
            pairs(&[("AWS_REGION", "eu"), ("LC_ALL", "C"), ("PATH", "/bin")])
        );
        let mut environment = inherit(Names::IgnoreCase, &variables);
        environment.keep_only(allowed);
        assert_eq!(
            listed(&environment),
            pairs(&[("LC_ALL", "C"), ("lc_time", "C"), ("PATH", "/odd")])
        );
        let reduced = environment.reduced_to(["lc_*"]);
        assert_eq!(
            listed(&reduced),
            pairs(&[("LC_ALL", "C"), ("lc_time", "C")])
        );
        // What is set again under an allowed name does not become inherited by it.
        environment.set("PATH", "/set").keep_only([]);
        assert_eq!(listed(&environment), pairs(&[("PATH", "/set")]));
        assert_eq!(listed(&environment.reduced_to(["HOME"])), []);
    }

    #[cfg(unix)]
    #[test]
    fn several_folders_in_front_and_one_at_the_end() {
        let table: [(&str, &[&str], &str); 6] = [
            ("/bin", &["/a", "/b"], "/a:/b:/bin"),
            ("/a:/b:/bin", &["/a", "/b"], "/a:/b:/bin"),
            ("/a:/bin", &["/a", "/b"], "/a:/b:/a:/bin"),
            ("/bin", &["/odd:name", "/b"], "/b:/bin"),
            ("/bin", &[], "/bin"),
            ("/bin::/usr/bin", &["", "/a"], "/a:/bin:/usr/bin"),
        ];
        for (old, folders, expected) in table {
            let mut environment = Environment::from_vars([("PATH", old)]);
            environment.prepend_paths(folders);
            assert_eq!(environment.get("PATH"), Some(OsStr::new(expected)), "{old}");
        }
        let table = [
            (None, "/a", Some("/a")),
            (Some("/bin"), "/a", Some("/bin:/a")),
            (Some("/a:/bin"), "/a", Some("/a:/bin")),
            (Some("/bin"), "/odd:name", Some("/bin")),
            (None, "/odd:name", None),
        ];
        for (old, folder, expected) in table {
            let mut environment = Environment::from_vars(old.map(|old| ("PATH", old)));
            environment.append_path(folder);
            assert_eq!(environment.get("PATH"), expected.map(OsStr::new), "{old:?}");
        }
        let mut environment = inherit(Names::IgnoreCase, &[("Path", "/bin")]);
        environment.prepend_paths(["/a", "/b"]).append_path("/z");
        assert_eq!(listed(&environment), pairs(&[("Path", "/a:/b:/bin:/z")]));
    }

    #[cfg(unix)]
    #[test]
    fn search_path() {
        let table = [
            (None, "/node/bin", "/node/bin"),
            (Some(""), "/node/bin", "/node/bin"),
            (
                Some("/usr/bin:/bin"),
                "/node/bin",
                "/node/bin:/usr/bin:/bin",
            ),
            (Some("/node/bin:/bin"), "/node/bin", "/node/bin:/bin"),
            (
                Some("/bin:/node/bin"),
                "/node/bin",
                "/node/bin:/bin:/node/bin",
            ),
            (Some("/bin"), "/odd:name", "/bin"),
        ];
        for (old, folder, expected) in table {
            let mut environment = Environment::from_vars(old.map(|old| ("PATH", old)));
            environment.prepend_path(folder);
            assert_eq!(
                environment.get("PATH"),
                Some(OsStr::new(expected)),
                "{old:?} {folder}"
            );
        }
    }

    #[test]
    fn debug_shows_no_secret_and_nothing_inherited() {
        let mut environment = inherit(
            Names::Exact,
            &[("OPENAI_API_KEY", "inherited-key"), ("HOME", "/home/u")],
        );
        environment
            .set("OPENCLAW_NO_RESPAWN", "1")
            .set("SOME_PASSWORD", "plain-password")
            .set("LINK", "http://x/?t=token-value")
            .set_secret("OPENCLAW_GATEWAY_TOKEN", "token-value".into());
        assert_eq!(
            format!("{environment:?}"),
            r#"{"LINK": "http://x/?t=[redacted]", "OPENCLAW_GATEWAY_TOKEN": "[redacted]", "OPENCLAW_NO_RESPAWN": "1", "SOME_PASSWORD": "[redacted]", "inherited": 2}"#
        );
        assert_eq!(environment.get("OPENCLAW_GATEWAY_TOKEN"), None);
        assert_eq!(
            environment.expose("OPENCLAW_GATEWAY_TOKEN"),
            Some(OsStr::new("token-value"))
        );
    }

    #[test]
    fn what_is_removed_is_gone() {
        let mut environment = Environment::empty();
        environment
            .set("A", "1")
            .set("B", "2")
            .remove("A")
            .remove("C");
        assert_eq!(listed(&environment), pairs(&[("B", "2")]));
    }
}
