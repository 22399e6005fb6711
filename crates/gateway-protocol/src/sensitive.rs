//! Text that must not reach a log.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A token or password: `Debug` shows nothing of it, and there is no `Display`.
///
/// Serialising writes the real text, because the wire needs it. The type hides; it does not wipe memory,
/// which a crate without unsafe code and without operating system cannot promise.
///
/// ```
/// let token = gateway_protocol::Sensitive::new("hush");
/// assert_eq!(format!("{token:?}"), "[redacted]");
/// assert_eq!(token.expose(), "hush");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Sensitive(String);

impl Sensitive {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True when there is no text at all. An empty secret counts as none in every gateway version.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<String> for Sensitive {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Sensitive {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Serialize for Sensitive {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Sensitive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SensitiveVisitor)
    }
}

/// Refuses anything but text without repeating it: serde's own message would quote the value.
struct SensitiveVisitor;

impl<'de> de::Visitor<'de> for SensitiveVisitor {
    type Value = Sensitive;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a secret text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Sensitive, E> {
        Ok(Sensitive(text.into()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Sensitive, E> {
        Ok(Sensitive(text))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Sensitive, E> {
        Err(E::custom("a secret must be text, not a boolean"))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Sensitive, E> {
        Err(E::custom("a secret must be text, not a number"))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Sensitive, E> {
        Err(E::custom("a secret must be text, not a number"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Sensitive, E> {
        Err(E::custom("a secret must be text, not a number"))
    }
}
