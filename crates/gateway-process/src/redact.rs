//! Keeping secrets out of everything that is printed: by known value, by the name in front of a value, and inside addresses.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// What stands in place of a secret.
pub(crate) const REDACTED: &str = "[redacted]";

/// A value that is only guessed to be a secret, by its variable's name, is searched for in text from this length on: a setting like
/// `KEY_MODE=1` must not make every log unreadable.
const MIN_GUESSED: usize = 6;

/// Parts of a variable's or option's name that announce a secret.
const SECRET_WORDS: [&str; 7] = [
    "token",
    "secret",
    "password",
    "passwd",
    "key",
    "credential",
    "authorization",
];

/// Tells by its name that an option or variable holds a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// Replaces known secret values in text. Made once by [`Environment::redactor`](crate::Environment::redactor) and used for any number
/// of texts. Its own `Debug` shows none of the values.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a secret inside a longer one does not break the longer one up.
    secrets: Vec<SecretString>,
}

impl Redactor {
    /// `declared` values are secrets by their type and searched for whatever their length, `guessed` ones by the name of their variable.
    pub(crate) fn new<'a>(
        declared: impl IntoIterator<Item = &'a str>,
        guessed: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let guessed = guessed
            .into_iter()
            .filter(|value| value.chars().count() >= MIN_GUESSED);
        let whole: Vec<&str> = declared
            .into_iter()
            .filter(|value| !value.is_empty())
            .chain(guessed)
            .collect();
        // A key of several lines is printed line by line, and no line holds all of it.
        let parts = whole
            .iter()
            .filter(|value| value.contains('\n'))
            .flat_map(|value| value.lines())
            .filter(|line| line.chars().count() >= MIN_GUESSED);
        let mut secrets: Vec<&str> = parts.chain(whole.iter().copied()).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self {
            secrets: secrets.into_iter().map(SecretString::from).collect(),
        }
    }

    /// A redactor that knows these values, too. They are guessed to be secrets, so short ones are left out.
    pub(crate) fn and<'a>(&'a self, guessed: impl IntoIterator<Item = &'a str>) -> Self {
        let known = self.secrets.iter().map(ExposeSecret::expose_secret);
        Self::new(known, guessed)
    }

    /// Whether the whole of `text` is one known secret.
    pub(crate) fn is_known(&self, text: &str) -> bool {
        self.secrets
            .iter()
            .any(|secret| secret.expose_secret() == text)
    }

    /// `text` without any known secret and without passwords in addresses.
    #[must_use]
    pub fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            let secret = secret.expose_secret();
            if text.contains(secret) {
                text = text.replace(secret, REDACTED);
            }
        }
        without_address_password(&text)
    }

    /// A command line fit for a log: known secrets, the values of options named like secrets, and passwords in addresses are
    /// replaced; words that would not survive a shell are quoted.
    pub(crate) fn command_line<'a>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> String {
        let mut line = quoted(&self.clean(program));
        let mut value_is_secret = false;
        for argument in arguments {
            line.push(' ');
            if value_is_secret {
                line.push_str(REDACTED);
                value_is_secret = false;
                continue;
            }
            match argument.split_once('=') {
                Some((name, _)) if is_secret_name(name) => {
                    line.push_str(&quoted(&self.clean(name)));
                    line.push('=');
                    line.push_str(REDACTED);
                }
                Some(_) => line.push_str(&quoted(&self.clean(argument))),
                None => {
                    value_is_secret = argument.starts_with('-') && is_secret_name(argument);
                    line.push_str(&quoted(&self.clean(argument)));
                }
            }
        }
        // Once more over the whole line: a secret may span two arguments.
        self.clean(&line)
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

/// `http://user:password@host` becomes `http://[redacted]@host`.
fn without_address_password(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        clean.push_str(before);
        let end = after
            .find(|c: char| {
                c == '/' || c == '?' || c == '#' || c.is_whitespace() || c == '\'' || c == '"'
            })
            .unwrap_or(after.len());
        let (authority, tail) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                clean.push_str(REDACTED);
                clean.push('@');
                clean.push_str(host);
            }
            None => clean.push_str(authority),
        }
        rest = tail;
    }
    clean.push_str(rest);
    clean
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%[]\\".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("{word:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn command_lines() {
        let redactor = Redactor::new(["hunter22", "", "pw!"], ["hunter2", "dev"]);
        let table: &[(&[&str], &str)] = &[
            (&[], "node"),
            (
                &["--token", "abc", "--port", "1"],
                "node --token [redacted] --port 1",
            ),
            (&["--token=abc", "x"], "node --token=[redacted] x"),
            (
                &["--token", "a", "--token", "b", "--token=c"],
                "node --token [redacted] --token [redacted] --token=[redacted]",
            ),
            (&["--token"], "node --token"),
            (
                &["--Api-Key", "k", "--auth-PASSWORD=p"],
                "node --Api-Key [redacted] --auth-PASSWORD=[redacted]",
            ),
            (
                &["OPENAI_API_KEY=sk-1", "MODE=dev"],
                "node OPENAI_API_KEY=[redacted] MODE=dev",
            ),
            (&["token", "abc"], "node token abc"),
            (&["xhunter22y", "hunter2"], "node x[redacted]y [redacted]"),
            (
                &["--url=hunter2", "xpw!x"],
                "node --url=[redacted] x[redacted]x",
            ),
            (
                &["http://u:p@h:1/x?y@z", "ws://u@h", "ws://h/a@b"],
                "node http://[redacted]@h:1/x?y@z\" ws://[redacted]@h ws://h/a@b",
            ),
            (&["two words", "", "a\nb"], r#"node "two words" "" "a\nb""#),
        ];
        for (arguments, expected) in table {
            let line = redactor.command_line("node", arguments.iter().copied());
            // The question mark makes the whole word quoted; compare without quotes to keep the table readable.
            assert_eq!(
                line.replace('"', ""),
                expected.replace('"', ""),
                "{arguments:?}"
            );
        }
        assert_eq!(redactor.command_line("node", ["a b"]), r#"node "a b""#);
        assert_eq!(format!("{redactor:?}"), "Redactor(3 secrets)");
    }

    #[test]
    fn a_secret_of_several_lines_is_found_in_each_of_them() {
        let redactor = Redactor::new(["first-part\nx\r\nlast-part"], []);
        for (text, expected) in [
            ("first-part", REDACTED),
            ("| last-part", "| [redacted]"),
            ("first-part\nx\r\nlast-part", REDACTED),
            ("x", "x"),
        ] {
            assert_eq!(redactor.clean(text), expected, "{text:?}");
        }
    }

    #[test]
    fn names() {
        for name in [
            "OPENCLAW_GATEWAY_TOKEN",
            "--token",
            "ANTHROPIC_API_KEY",
            "proxy-Authorization",
            "--passwd",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["PATH", "--port", "OPENCLAW_STATE_DIR", "--bind"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    proptest! {
        /// Whatever stands around a known secret, whichever arguments it is spread over: it is not in the command line.
        #[test]
        fn a_known_secret_never_appears(
            secret in "[A-Za-z0-9_/+=-]{8,40}",
            arguments in proptest::collection::vec((".{0,12}", any::<bool>(), ".{0,12}"), 0..8),
            split in any::<proptest::sample::Index>(),
        ) {
            let mut words: Vec<String> = arguments
                .iter()
                .map(|(before, with, after)| format!("{before}{}{after}", if *with { secret.as_str() } else { "" }))
                .collect();
            words.push(secret.clone());
            let at = split.index(words.len());
            words.insert(at, format!("--header=Bearer {secret}"));
            let redactor = Redactor::new([secret.as_str()], []);
            let line = redactor.command_line(&format!("/opt/{secret}/node"), words.iter().map(String::as_str));
            prop_assert!(!line.contains(&secret), "{line}");
        }

        /// The value behind an option named like a secret is unknown to us and still does not appear.
        #[test]
        fn the_value_of_a_secret_option_never_appears(
            name in "--[a-z]{0,6}(token|Secret|PASSWORD|key)[a-z-]{0,6}",
            value in "[A-Z0-9]{12,30}",
            joined in any::<bool>(),
            before in proptest::collection::vec("[a-z ]{0,8}", 0..4),
        ) {
            let mut words = before;
            if joined {
                words.push(format!("{name}={value}"));
            } else {
                words.push(name);
                words.push(value.clone());
            }
            let line = Redactor::default().command_line("node", words.iter().map(String::as_str));
            prop_assert!(!line.contains(&value), "{line}");
        }
    }
}
