//! The environment variables that OpenClaw reads.

use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) state_dir: PathBuf,
    pub(super) config_path: PathBuf,
    pub(super) token: Option<String>,
    pub(super) port: Option<String>,
}

impl Surroundings {
    pub(super) fn read() -> Self {
        Self::from(|name| std::env::var_os(name))
    }

    fn from(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let home = || {
            set("HOME")
                .or_else(|| set("USERPROFILE"))
                .map_or_else(std::env::temp_dir, PathBuf::from)
        };
        let state_dir =
            set("OPENCLAW_STATE_DIR").map_or_else(|| home().join(".openclaw"), PathBuf::from);
        Self {
            config_path: set("OPENCLAW_CONFIG_PATH")
                .map_or_else(|| state_dir.join("openclaw.json"), PathBuf::from),
            state_dir,
            token: text("OPENCLAW_GATEWAY_TOKEN"),
            port: text("OPENCLAW_GATEWAY_PORT"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_is_below_home_unless_named() {
        let from = |pairs: &'static [(&str, &str)]| {
            Surroundings::from(move |name| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value.into())
            })
        };
        let home = from(&[("HOME", "/home/u"), ("OPENCLAW_STATE_DIR", "")]);
        assert_eq!(
            home.config_path,
            PathBuf::from("/home/u/.openclaw/openclaw.json")
        );
        let named = from(&[
            ("HOME", "/home/u"),
            ("OPENCLAW_STATE_DIR", "/state"),
            ("OPENCLAW_CONFIG_PATH", "/c.json"),
        ]);
        assert_eq!(
            (named.state_dir, named.config_path),
            (PathBuf::from("/state"), PathBuf::from("/c.json"))
        );
    }
}
