//! Keys of model providers on their way into a gateway's environment: secrets that are counted and never printed.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

use crate::env::Environment;

/// Keys under the variables that the gateway looks for, such as `ANTHROPIC_API_KEY`.
///
/// The first key of a variable wins, so add those of the default provider first. `Debug` and `Display` show how many there are.
///
/// ```
/// use gateway_process::{Environment, provider_keys::ProviderKeys};
/// let mut keys = ProviderKeys::new();
/// keys.add("OPENAI_API_KEY", "of the default account")?;
/// keys.add("OPENAI_API_KEY", "of another one")?;
/// let mut environment = Environment::empty();
/// assert_eq!(keys.apply(&mut environment), 1);
/// assert_eq!(environment.expose("OPENAI_API_KEY").unwrap(), "of the default account");
/// assert_eq!(keys.to_string(), "1 provider key");
/// # Ok::<(), gateway_process::provider_keys::ProviderKeyError>(())
/// ```
#[derive(Clone, Default)]
pub struct ProviderKeys {
    keys: Vec<(String, SecretString)>,
}

/// A key that cannot be put into an environment. The key itself is not in it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderKeyError {
    /// No operating system takes a variable of this name.
    #[error(
        "{name:?} is no name for a variable; use letters, digits and underscores, such as OPENAI_API_KEY"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The key holds a character that no key has, most often the end of a line that was copied along.
    #[error("the key for {name} holds a line end or another control character; enter it again")]
    Key {
        /// The variable.
        name: String,
    },
}

impl ProviderKeys {
    /// No keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key, unless its variable has one already. Blanks around it are dropped, and a blank key is no key.
    ///
    /// # Errors
    /// [`ProviderKeyError`] when the name or the key cannot be part of an environment. A caller that asks many places for keys goes on
    /// with the next one.
    pub fn add(
        &mut self,
        variable: &str,
        key: impl Into<SecretString>,
    ) -> Result<(), ProviderKeyError> {
        let name = variable.to_owned();
        let is_name = !variable.is_empty()
            && !variable.starts_with(|c: char| c.is_ascii_digit())
            && variable
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(ProviderKeyError::Name { name });
        }
        let key = key.into();
        let text = key.expose_secret().trim();
        if text.contains(char::is_control) {
            return Err(ProviderKeyError::Key { name });
        }
        if !text.is_empty() && !self.keys.iter().any(|(taken, _)| *taken == name) {
            self.keys.push((name, text.into()));
        }
        Ok(())
    }

    /// How many variables have a key.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Puts the keys into an environment, in place of inherited ones, and says how many there were.
    pub fn apply(&self, environment: &mut Environment) -> usize {
        for (name, key) in &self.keys {
            environment.set_secret(name, key.clone());
        }
        self.keys.len()
    }
}

impl fmt::Display for ProviderKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.keys.len() == 1 { "" } else { "s" };
        write!(f, "{} provider key{plural}", self.keys.len())
    }
}

impl fmt::Debug for ProviderKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProviderKeys({})", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_and_never_printed() {
        let mut keys = ProviderKeys::new();
        keys.add("ANTHROPIC_API_KEY", " sk-first-key\n").unwrap();
        keys.add("ANTHROPIC_API_KEY", "sk-second-key").unwrap();
        keys.add("EMPTY_API_KEY", "  ").unwrap();
        keys.add("MISTRAL_API_KEY", "sk-third-key").unwrap();
        let mut errors = String::new();
        for (name, key) in [
            ("", "sk-a"),
            ("A=B", "sk-a"),
            ("9A", "sk-a"),
            ("A_KEY", "sk-\na"),
            ("A_KEY", "sk-\0"),
        ] {
            errors += &keys.add(name, key).unwrap_err().to_string();
        }
        assert_eq!(keys.len(), 2);
        let mut environment = Environment::from_vars([("MISTRAL_API_KEY", "inherited")]);
        assert_eq!(keys.apply(&mut environment), 2);
        let exposed: Vec<_> = environment.iter_exposed().collect();
        let expected = [
            ("ANTHROPIC_API_KEY", "sk-first-key"),
            ("MISTRAL_API_KEY", "sk-third-key"),
        ];
        assert_eq!(exposed, expected.map(|(n, v)| (n.as_ref(), v.as_ref())));
        let texts = format!("{keys} {keys:?} {environment:?} {errors}");
        assert!(
            !texts.contains("sk-") && texts.starts_with("2 provider keys"),
            "{texts}"
        );
    }
}
