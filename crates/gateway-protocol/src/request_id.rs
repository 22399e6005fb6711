//! The id that ties a response to its request.

use alloc::{
    borrow::Cow,
    string::{String, ToString as _},
};
use core::{
    fmt::{self, Write as _},
    hash::{Hash, Hasher},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Number;

use crate::{Payload, json};

/// Id of a response: text, as the protocol wants it, or a number, as a gateway echoes it from a malformed request.
///
/// Equality is by kind and value: `7` equals `7.0` but not `"7"`. Use
/// [`matches_text`](Self::matches_text) where a number should also find the request of the same text.
#[derive(Clone, Debug)]
pub enum RequestId {
    /// A text, possibly empty.
    Text(String),
    /// A number.
    Number(Number),
}

/// A number in the form in which equal values are equal.
#[derive(PartialEq, Eq, Hash)]
enum NumberKey {
    Unsigned(u64),
    Negative(i64),
    Fraction(u64),
}

impl NumberKey {
    fn of(number: &Number) -> Self {
        if let Some(value) = number.as_u64() {
            return Self::Unsigned(value);
        }
        if let Some(value) = number.as_i64() {
            return Self::Negative(value);
        }
        let value = number.as_f64().unwrap_or(f64::NAN);
        // A float that is a whole number counts as that number. Both casts saturate, and the comparison with
        // the original finds out whether they did.
        let (unsigned, negative) = (value as u64, value as i64);
        if unsigned as f64 == value && unsigned != u64::MAX {
            Self::Unsigned(unsigned)
        } else if negative as f64 == value && negative != i64::MIN {
            Self::Negative(negative)
        } else {
            Self::Fraction(value.to_bits())
        }
    }
}

impl RequestId {
    /// Reads a raw JSON value; `None` unless it is text or a number.
    pub(crate) fn from_raw(raw: &str) -> Option<Self> {
        match json::text(raw) {
            Some(text) => Some(Self::Text(text.into_owned())),
            None => json::number(raw).map(Self::Number),
        }
    }

    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => json::write_text(out, text),
            Self::Number(number) => {
                // Writing into a String cannot fail.
                let _ = write!(out, "{number}");
            }
        }
    }

    /// The text of a text id.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) => None,
        }
    }

    /// Whether this is the answer to the request with the id `text`: the same text, or a number that reads so.
    pub fn matches_text(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::Number(number) => number.to_string() == text,
        }
    }

    /// The id as text, for a table whose keys are text.
    pub fn to_text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => Cow::Owned(number.to_string()),
        }
    }
}

impl PartialEq for RequestId {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(two)) => one == two,
            (Self::Number(one), Self::Number(two)) => NumberKey::of(one) == NumberKey::of(two),
            _ => false,
        }
    }
}

impl Eq for RequestId {}

impl Hash for RequestId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Text(text) => {
                state.write_u8(0);
                text.hash(state);
            }
            Self::Number(number) => {
                state.write_u8(1);
                NumberKey::of(number).hash(state);
            }
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

impl From<&str> for RequestId {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for RequestId {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for RequestId {
    fn from(number: u64) -> Self {
        Self::Number(number.into())
    }
}

impl From<i64> for RequestId {
    fn from(number: i64) -> Self {
        Self::Number(number.into())
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => number.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let payload = Payload::deserialize(deserializer)?;
        Self::from_raw(payload.as_str())
            .ok_or_else(|| de::Error::custom("an id must be text or a number"))
    }
}
