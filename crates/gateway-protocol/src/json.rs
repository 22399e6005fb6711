//! Reading and writing of JSON objects that may have more fields than we know.
//!
//! The values of an object stay raw text while it is taken apart. That is what makes a wrong-typed field
//! harmless (it is simply not taken) and what lets everything unknown go back out as it came. serde's
//! `flatten`, `untagged` and internally tagged enums cannot do this: they rebuild every value first, which
//! breaks raw JSON and costs several times the time.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::fmt::{self, Write as _};

use bytes::Bytes;
use serde_json::{Number, value::RawValue};

use crate::{
    DecodeError, Extra, Payload, StateVersion,
    error::JsonKind,
    limits::MAX_OBJECT_FIELDS,
    scan::{Name, Scanner},
};

/// The bytes as text.
pub(crate) fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    core::str::from_utf8(bytes).map_err(|error| DecodeError::NotUtf8 {
        valid_up_to: error.valid_up_to(),
    })
}

/// Checks that the text is one JSON value, and cuts off the white space around it.
pub(crate) fn validate(text: &str) -> Result<&str, DecodeError> {
    let mut scanner = Scanner::new(text);
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

/// Hands every field of a JSON object to `take`, the value as raw text.
pub(crate) fn read_object<'a>(
    text: &'a str,
    mut take: impl FnMut(Cow<'a, str>, &'a str),
) -> Result<(), DecodeError> {
    let mut scanner = Scanner::new(text);
    scanner.space();
    if !scanner.take(b'{') {
        let value = validate(text)?;
        // What begins like no value is no JSON either, so there is always a kind here.
        let found = JsonKind::of(value).unwrap_or(JsonKind::Null);
        return Err(DecodeError::NotAnObject { found });
    }
    scanner.space();
    if scanner.take(b'}') {
        return Ok(scanner.end()?);
    }
    let mut count = 0_usize;
    loop {
        if count == MAX_OBJECT_FIELDS {
            return Err(DecodeError::TooManyFields {
                limit: MAX_OBJECT_FIELDS,
            });
        }
        count += 1;
        let name = match scanner.name()? {
            Name::Plain(name) => Cow::Borrowed(name),
            Name::Escaped(name) => self::text(name).unwrap_or_default(),
        };
        take(name, scanner.value()?);
        scanner.space();
        if !scanner.take(b',') {
            break;
        }
    }
    scanner.expect(b'}', "a comma or a closing brace")?;
    Ok(scanner.end()?)
}

/// The text of a raw JSON string, `None` for every other kind of value.
///
/// Half of a surrogate pair becomes U+FFFD rather than making the whole frame unreadable.
pub(crate) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.as_bytes().contains(&b'\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw)
        .or_else(|_| serde_json::from_str(&mend(raw)))
        .ok()
        .map(Cow::Owned)
}

/// The value of a raw JSON boolean.
pub(crate) fn boolean(raw: &str) -> Option<bool> {
    match raw {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The value of a raw JSON number that is a non-negative integer written as one.
pub(crate) fn unsigned(raw: &str) -> Option<u64> {
    // `parse` alone would accept a leading plus sign, which raw JSON never has.
    raw.parse().ok()
}

/// The value of any raw JSON number that `f64` can hold.
///
/// serde_json's own reading of fractions may be off in the last digit, which would make two ids differ.
pub(crate) fn number(raw: &str) -> Option<Number> {
    if JsonKind::of(raw) != Some(JsonKind::Number) {
        return None;
    }
    if let Ok(value) = raw.parse::<u64>() {
        return Some(value.into());
    }
    match raw.parse::<i64>() {
        // `-0` is the float, as in JavaScript.
        Ok(value) if value != 0 => Some(value.into()),
        _ => Number::from_f64(raw.parse().ok()?),
    }
}

/// Whether JavaScript takes the value for true in a condition.
pub(crate) fn truthy(raw: &str) -> bool {
    match JsonKind::of(raw) {
        Some(JsonKind::Null) | None => false,
        Some(JsonKind::Boolean) => raw == "true",
        Some(JsonKind::Text) => raw != "\"\"",
        Some(JsonKind::Number) => raw.parse::<f64>().is_ok_and(|value| value != 0.0),
        Some(JsonKind::Array | JsonKind::Object) => true,
    }
}

/// Rewrites valid JSON so that serde_json can hold it.
///
/// JavaScript strings may hold half of a surrogate pair, and `JSON.stringify` writes it as an escape; a
/// gateway that cuts a text in the middle of an emoji sends one. It becomes U+FFFD. A number beyond the
/// range of `f64` becomes the largest finite one.
pub(crate) fn mend(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    // Everything before `done` is written. Both indices only ever stand on ASCII characters, so the slices
    // below are whole characters.
    let mut done = 0;
    let mut at = 0;
    let mut in_string = false;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                in_string = !in_string;
                at += 1;
            }
            b'\\' if in_string => {
                let unit = code_unit(bytes, at);
                let next = code_unit(bytes, at + 6);
                match (unit, next) {
                    (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 12,
                    (Some(0xD800..=0xDFFF), _) => {
                        out.push_str(text.get(done..at).unwrap_or_default());
                        out.push('\u{FFFD}');
                        at += 6;
                        done = at;
                    }
                    (Some(_), _) => at += 6,
                    (None, _) => at += 2,
                }
            }
            b'-' | b'0'..=b'9' if !in_string => {
                let length = bytes[at..]
                    .iter()
                    .take_while(|byte| {
                        matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
                    })
                    .count();
                let digits = text.get(at..at + length).unwrap_or_default();
                match digits.parse::<f64>() {
                    Ok(value) if value.is_infinite() => {
                        out.push_str(text.get(done..at).unwrap_or_default());
                        out.push_str(if value > 0.0 {
                            "1.7976931348623157e308"
                        } else {
                            "-1.7976931348623157e308"
                        });
                        done = at + length;
                    }
                    _ => {}
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out
}

/// The UTF-16 code unit of an escape such as `\ud83d` at this place.
fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at..at + 6)?;
    let digits = escape.strip_prefix(b"\\u")?;
    u16::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()
}

/// The fields of one object while a type takes out what it knows.
///
/// The methods named after a kind of value take a field out only when it holds exactly that kind, so that
/// what stays behind can be written back as it came.
pub(crate) struct Fields<'a> {
    source: &'a Bytes,
    entries: Vec<(Cow<'a, str>, &'a str)>,
}

impl<'a> Fields<'a> {
    /// Takes apart `text`, which borrows from `source`.
    pub(crate) fn read(source: &'a Bytes, text: &'a str) -> Result<Self, DecodeError> {
        let mut entries = Vec::new();
        read_object(text, |name, raw| entries.push((name, raw)))?;
        Ok(Self { source, entries })
    }

    /// The raw value of a field, still inside.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a str> {
        self.entries
            .iter()
            .rev()
            .find(|(found, _)| found == name)
            .map(|(_, raw)| *raw)
    }

    /// Marks a field as understood.
    pub(crate) fn remove(&mut self, name: &str) {
        self.entries.retain(|(found, _)| found != name);
    }

    /// Takes a value through `read`; leaves the field inside when that finds nothing.
    pub(crate) fn take<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.raw(name)?)?;
        self.remove(name);
        Some(value)
    }

    /// A text.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.take(name, |raw| text(raw).map(Cow::into_owned))
    }

    /// A text that is not empty; an empty one stays inside.
    pub(crate) fn nonempty_text(&mut self, name: &str) -> Option<String> {
        self.take(name, |raw| {
            text(raw)
                .filter(|text| !text.is_empty())
                .map(Cow::into_owned)
        })
    }

    /// A boolean.
    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        self.take(name, boolean)
    }

    /// A non-negative integer.
    pub(crate) fn unsigned(&mut self, name: &str) -> Option<u64> {
        self.take(name, unsigned)
    }

    /// Any value, `null` included.
    pub(crate) fn payload(&mut self, name: &str) -> Option<Payload> {
        let source = self.source;
        self.take(name, |raw| Some(Payload::slice_of(source, raw)))
    }

    /// A list of texts. Members of another kind are left out, and then the list stays inside too.
    pub(crate) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let members: Vec<&RawValue> = serde_json::from_str(self.raw(name)?).ok()?;
        let texts: Vec<String> = members
            .iter()
            .filter_map(|member| text(member.get()).map(Cow::into_owned))
            .collect();
        if texts.len() == members.len() {
            self.remove(name);
        }
        Some(texts)
    }

    /// A list of texts for which "empty" and "absent" are the same: an empty one stays inside, so that it is
    /// written back.
    pub(crate) fn nonempty_texts(&mut self, name: &str) -> Vec<String> {
        match self.raw(name) {
            Some("[]") | None => Vec::new(),
            Some(_) => self.texts(name).unwrap_or_default(),
        }
    }

    /// The two counters of the state.
    pub(crate) fn state_version(&mut self, name: &str) -> Option<StateVersion> {
        let (version, whole) = StateVersion::from_raw(self.source, self.raw(name)?)?;
        if whole {
            self.remove(name);
        }
        Some(version)
    }

    /// An open object.
    pub(crate) fn object<T: OpenObject>(&mut self, name: &str) -> Option<T> {
        let source = self.source;
        self.take(name, |raw| read_open(source, raw).ok())
    }

    /// Everything that was not taken.
    pub(crate) fn rest(self) -> Extra {
        let mut extra = Extra::new();
        for (name, raw) in self.entries {
            extra.push(name.into_owned(), Payload::slice_of(self.source, raw));
        }
        extra
    }
}

/// A type that knows some fields of an object and carries the others along.
pub(crate) trait OpenObject: Sized {
    /// Takes the known fields out and keeps the rest.
    fn read(fields: Fields<'_>) -> Result<Self, DecodeError>;

    /// Fields that stand in place of the typed ones.
    fn extra(&self) -> &Extra;

    /// Writes the known fields; the rest is written by the caller.
    fn write(&self, object: &mut ObjectWriter<'_>);
}

/// Reads an open object out of raw text that borrows from `source`.
pub(crate) fn read_open<T: OpenObject>(source: &Bytes, text: &str) -> Result<T, DecodeError> {
    T::read(Fields::read(source, text)?)
}

/// Appends an open object to `out`.
pub(crate) fn write_open<T: OpenObject>(value: &T, out: &mut String) {
    let mut object = ObjectWriter::begin(out, value.extra());
    value.write(&mut object);
    object.finish();
}

/// Gives an [`OpenObject`] its public conversions.
macro_rules! open_object {
    ($name:ty, $what:literal) => {
        impl $name {
            #[doc = concat!("Reads ", $what, " without copying: unknown fields stay slices of the payload.")]
            ///
            /// # Errors
            ///
            /// [`DecodeError`](crate::DecodeError) when the payload is no object, or lacks a field that makes it
            /// what it is.
            pub fn from_payload(payload: &crate::Payload) -> Result<Self, crate::DecodeError> {
                let bytes = payload.clone().into_bytes();
                crate::json::read_open(&bytes, payload.as_str())
            }

            #[doc = concat!("Writes ", $what, " as JSON.")]
            pub fn to_payload(&self) -> crate::Payload {
                let mut out = alloc::string::String::new();
                crate::json::write_open(self, &mut out);
                crate::Payload::from_valid(out)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.to_payload().serialize(serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let payload = <crate::Payload as serde::Deserialize>::deserialize(deserializer)?;
                Self::from_payload(&payload).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use open_object;

/// Writes one object field by field. A field that stands in the extra list is written from there.
pub(crate) struct ObjectWriter<'w> {
    out: &'w mut String,
    extra: &'w Extra,
    empty: bool,
}

impl<'w> ObjectWriter<'w> {
    pub(crate) fn begin(out: &'w mut String, extra: &'w Extra) -> Self {
        out.push('{');
        Self {
            out,
            extra,
            empty: true,
        }
    }

    /// Starts a field; `None` when the extra list has it.
    fn field(&mut self, name: &str) -> Option<&mut String> {
        if !self.extra.is_empty() && self.extra.contains(name) {
            return None;
        }
        self.separate();
        write_text(self.out, name);
        self.out.push(':');
        Some(self.out)
    }

    fn separate(&mut self) {
        if self.empty {
            self.empty = false;
        } else {
            self.out.push(',');
        }
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        if let Some(out) = self.field(name) {
            write_text(out, value);
        }
    }

    pub(crate) fn optional_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A list of texts, left out when it is empty.
    pub(crate) fn nonempty_texts(&mut self, name: &str, values: &[String]) {
        if !values.is_empty() {
            self.texts(name, values);
        }
    }

    pub(crate) fn texts(&mut self, name: &str, values: &[String]) {
        if let Some(out) = self.field(name) {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(out, value);
            }
            out.push(']');
        }
    }

    /// A number, a boolean: anything whose `Display` is JSON.
    pub(crate) fn display(&mut self, name: &str, value: impl fmt::Display) {
        if let Some(out) = self.field(name) {
            // Writing into a String cannot fail.
            let _ = write!(out, "{value}");
        }
    }

    pub(crate) fn optional_display(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.display(name, value);
        }
    }

    pub(crate) fn payload(&mut self, name: &str, value: Option<&Payload>) {
        if let Some(value) = value
            && let Some(out) = self.field(name)
        {
            out.push_str(value.as_str());
        }
    }

    pub(crate) fn object<T: OpenObject>(&mut self, name: &str, value: &T) {
        if let Some(out) = self.field(name) {
            write_open(value, out);
        }
    }

    /// Writes a field with `write`.
    pub(crate) fn with(&mut self, name: &str, write: impl FnOnce(&mut String)) {
        if let Some(out) = self.field(name) {
            write(out);
        }
    }

    /// Writes the extra fields and closes the object.
    pub(crate) fn finish(mut self) {
        let extra = self.extra;
        for (name, value) in extra.iter() {
            self.separate();
            write_text(self.out, name);
            self.out.push(':');
            self.out.push_str(value.as_str());
        }
        self.out.push('}');
    }
}

/// Appends a JSON string.
pub(crate) fn write_text(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    let mut done = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1F => "",
            _ => continue,
        };
        // Only ASCII characters are escaped, so both ends are character boundaries.
        out.push_str(text.get(done..at).unwrap_or_default());
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        done = at + 1;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    out.push('"');
}
