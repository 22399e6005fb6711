//! The environment of an embedded gateway as one named profile: what it may inherit, and what is set for it.
//!
//! The settings are those of OpenClaw's own guide for embedding hosts (docs.openclaw.ai, "Embedding OpenClaw") and what releases 2026.3.2 to
//! 2026.9.6 were seen to need on top.

use crate::env::Environment;

/// Whether the gateway starts its channels.
const SKIP_CHANNELS: [&str; 2] = ["OPENCLAW_SKIP_CHANNELS", "CLAWDBOT_SKIP_CHANNELS"];

/// One setting of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// The variable.
    pub name: &'static str,
    /// What it is set to; `None` takes it out.
    pub value: Option<&'static str>,
    /// Why.
    pub reason: &'static str,
}

/// What every gateway that is launched here gets, whatever its environment held before, in this order.
pub const SUPERVISED: &[Setting] = &[
    Setting {
        name: "OPENCLAW_NO_RESPAWN",
        value: Some("1"),
        reason: "one process instead of a launcher and its child, and restarts that stay in it: 2026.3.2 would otherwise hand over to a \
                 successor outside of our process group",
    },
    Setting {
        name: "NODE_COMPILE_CACHE",
        value: None,
        reason: "it puts a launcher process between us and the gateway, also with OPENCLAW_NO_RESPAWN",
    },
    Setting {
        name: "NO_COLOR",
        value: Some("1"),
        reason: "colour is on by TERM even into a pipe",
    },
    Setting {
        name: "FORCE_COLOR",
        value: None,
        reason: "it would win over NO_COLOR",
    },
    Setting {
        name: "OPENCLAW_DISABLE_BONJOUR",
        value: Some("1"),
        reason: "a supervised gateway is private; it need not announce itself on the network",
    },
];

/// What the embedded profile sets in addition.
pub const EMBEDDED: &[Setting] = &[Setting {
    name: "OPENCLAW_EXEC_SHELL_SNAPSHOT",
    value: Some("0"),
    reason: "commands of the agent do not run the user's login shell first to copy its settings",
}];

/// What the embedded profile inherits: who and where the user is, languages, folders for temporary files, certificates and proxies,
/// and what Windows programs do not start without. `*` at the end stands for any ending.
pub const INHERITED_WHEN_EMBEDDED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TERM",
    "TMPDIR",
    "TMP",
    "TEMP",
    "XDG_*",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_EXTRA_CA_CERTS",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "__CF_USER_TEXT_ENCODING",
    "SystemRoot",
    "SystemDrive",
    "windir",
    "ComSpec",
    "PATHEXT",
    "USERNAME",
    "USERDOMAIN",
    "USERPROFILE",
    "HOMEDRIVE",
    "HOMEPATH",
    "COMPUTERNAME",
    "APPDATA",
    "LOCALAPPDATA",
    "ALLUSERSPROFILE",
    "ProgramData",
    "ProgramFiles*",
    "CommonProgramFiles*",
    "OS",
    "NUMBER_OF_PROCESSORS",
    "PROCESSOR_*",
];

impl Environment {
    /// The embedded profile: of this process's variables only [`INHERITED_WHEN_EMBEDDED`], and [`EMBEDDED`] set. For applications
    /// whose gateway must not depend on the shell that they happened to be started from; keys and settings that the gateway needs are to be
    /// set one by one. [`from_parent`](Self::from_parent) is the other profile: everything but what misleads a gateway.
    #[must_use]
    pub fn embedded() -> Self {
        Self::from_parent().into_embedded()
    }

    /// The embedded profile of any environment; what was set in it stays unless the profile sets it too.
    #[must_use]
    pub fn into_embedded(mut self) -> Self {
        self.keep_only(INHERITED_WHEN_EMBEDDED.iter().copied());
        apply(&mut self, EMBEDDED);
        self
    }

    /// Lets the gateway leave its channels alone (`true`), or start those that are configured (`false`), under the variable's present and its
    /// former name. Skip only when you know that none is configured: when asking failed, they are not to be skipped.
    pub fn skip_channels(&mut self, skip: bool) -> &mut Self {
        for name in SKIP_CHANNELS {
            if skip {
                self.set(name, "1");
            } else {
                self.remove(name);
            }
        }
        self
    }
}

/// Makes an environment hold what a profile sets.
pub(crate) fn apply(environment: &mut Environment, settings: &[Setting]) {
    for setting in settings {
        match setting.value {
            Some(value) => environment.set(setting.name, value),
            None => environment.remove(setting.name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_profile_is_a_list_and_a_preset() {
        let mut before = Environment::from_vars([
            ("PATH", "/bin"),
            ("HOME", "/home/u"),
            ("LC_TIME", "C"),
            ("https_proxy", "http://proxy"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("OPENCLAW_GATEWAY_PORT", "1"),
            ("OPENCLAW_EXEC_SHELL_SNAPSHOT", "1"),
            ("npm_config_cache", "/c"),
            ("INVOCATION_ID", "x"),
        ]);
        before.set("OPENCLAW_CONFIG_PATH", "/etc/c.json");
        let after = before.into_embedded();
        let mut pairs: Vec<_> = after
            .iter_exposed()
            .map(|(n, v)| (n.to_str(), v.to_str()))
            .collect();
        pairs.sort_unstable();
        let expected = [
            ("HOME", "/home/u"),
            ("LC_TIME", "C"),
            ("OPENCLAW_CONFIG_PATH", "/etc/c.json"),
            ("OPENCLAW_EXEC_SHELL_SNAPSHOT", "0"),
            ("PATH", "/bin"),
            ("https_proxy", "http://proxy"),
        ];
        assert_eq!(pairs, expected.map(|(n, v)| (Some(n), Some(v))));
    }

    #[test]
    fn channels_are_skipped_under_both_names_or_under_none() {
        let mut environment = Environment::from_vars([("CLAWDBOT_SKIP_CHANNELS", "")]);
        environment.skip_channels(true);
        for name in SKIP_CHANNELS {
            assert_eq!(environment.get(name).and_then(|v| v.to_str()), Some("1"));
        }
        environment.skip_channels(false);
        assert_eq!(environment.names().count(), 0);
    }

    #[test]
    fn every_setting_says_why() {
        for setting in SUPERVISED.iter().chain(EMBEDDED) {
            assert!(setting.reason.len() > 20, "{}", setting.name);
        }
    }
}
