//! JSON that stays text until somebody asks for a type.

use alloc::{boxed::Box, string::String};
use core::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, ser};
use serde_json::{Value, value::RawValue};

use crate::{
    error::{DecodeError, EncodeError},
    json,
};

/// One valid JSON text, usually a slice of the frame it arrived in.
///
/// Cloning is cheap and shares the memory of the frame; a 20 MB response is in memory once. Two payloads
/// are equal when their bytes are, so `{"a":1}` and `{ "a": 1 }` differ. `Debug` shows the length only,
/// because payloads hold tokens.
///
/// ```
/// use gateway_protocol::Payload;
///
/// let payload = Payload::from_json(r#" {"hash":"abc","rows":[1,2]} "#)?;
/// assert_eq!(payload.as_str(), r#"{"hash":"abc","rows":[1,2]}"#);
///
/// #[derive(serde::Deserialize)]
/// struct Config<'a> { hash: &'a str }
/// assert_eq!(payload.parse::<Config>()?.hash, "abc");
/// # Ok::<(), gateway_protocol::DecodeError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Payload(Bytes);

impl Payload {
    /// Takes over a JSON text. White space around it is cut off.
    ///
    /// # Errors
    ///
    /// [`DecodeError::NotUtf8`] or [`DecodeError::InvalidJson`].
    pub fn from_json(json: impl Into<Bytes>) -> Result<Self, DecodeError> {
        let bytes = json.into();
        let text = json::utf8(&bytes)?;
        let raw = json::validate(text)?;
        Ok(Self::slice_of(&bytes, raw))
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the value's own `Serialize` fails or a map has keys that JSON cannot hold.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self, EncodeError> {
        match serde_json::to_string(value) {
            Ok(text) => Ok(Self::from_valid(text)),
            Err(error) => Err(EncodeError::new(&error)),
        }
    }

    /// The JSON value `null`.
    pub const fn null() -> Self {
        Self(Bytes::from_static(b"null"))
    }

    /// Text that this crate wrote itself.
    pub(crate) fn from_valid(text: String) -> Self {
        Self(Bytes::from(text))
    }

    /// The part of `source` that `raw` borrows from it, without copying.
    ///
    /// A `raw` from elsewhere is copied instead, so the function is total.
    pub(crate) fn slice_of(source: &Bytes, raw: &str) -> Self {
        let start = (raw.as_ptr() as usize).wrapping_sub(source.as_ptr() as usize);
        match start.checked_add(raw.len()) {
            Some(end) if end <= source.len() => Self(source.slice(start..end)),
            _ => Self(Bytes::copy_from_slice(raw.as_bytes())),
        }
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        // Every constructor checked the bytes, so the other branch is never taken; checking again costs
        // little and spares an unsafe conversion.
        core::str::from_utf8(&self.0).unwrap_or("null")
    }

    /// The JSON text as bytes (UTF-8).
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The JSON text as bytes that share memory with this payload.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Length of the JSON text in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Always false: no JSON text is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True for the JSON value `null`.
    pub fn is_null(&self) -> bool {
        &*self.0 == b"null"
    }

    /// Reads the text as a type, which may borrow from it.
    ///
    /// A text with half of a surrogate pair in it (`"\ud83d"`, which JavaScript writes when it cuts an emoji
    /// in two) cannot become Rust text: see [`parse_lossy`](Self::parse_lossy).
    ///
    /// # Errors
    ///
    /// [`DecodeError::Mismatch`] when the JSON has another shape. The message may quote the offending value.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, DecodeError> {
        serde_json::from_slice(&self.0).map_err(|error| DecodeError::from_json(&error))
    }

    /// Reads the text as a type that owns its parts, mending what JavaScript may write and Rust cannot hold.
    ///
    /// Half of a surrogate pair becomes U+FFFD, and a number beyond the range of `f64` becomes the largest one.
    ///
    /// # Errors
    ///
    /// As for [`parse`](Self::parse).
    pub fn parse_lossy<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        match serde_json::from_slice(&self.0) {
            Ok(value) => Ok(value),
            Err(_) => serde_json::from_str(&json::mend(self.as_str()))
                .map_err(|error| DecodeError::from_json(&error)),
        }
    }

    /// Reads the text as a tree, mending it as [`parse_lossy`](Self::parse_lossy) does.
    ///
    /// A text nested deeper than 128 levels has no tree (building one would risk the stack); it comes back as
    /// a single string that holds the JSON text.
    pub fn to_value(&self) -> Value {
        self.parse_lossy()
            .unwrap_or_else(|_| Value::String(self.as_str().into()))
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::null()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl From<&Value> for Payload {
    fn from(value: &Value) -> Self {
        Self::from_valid(alloc::format!("{value}"))
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(self.as_str()).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text: Box<str> = raw.into();
        Ok(Self::from_valid(text.into()))
    }
}
