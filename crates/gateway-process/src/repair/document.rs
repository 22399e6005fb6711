//! Reading a configuration: strictly, as the gateway does, and as far as one gets where that fails.
//!
//! What was broken has to be compared with what a repair makes of it, so a text that does not parse is searched for what it still says.
//! Whatever such a search finds can only make a repair be refused, never accepted.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Containers nested deeper than this are no configuration. The reader calls itself for each of them, and the stack is not endless.
const MAX_DEPTH: usize = 128;

/// A text, read.
#[derive(Clone, Debug)]
pub(super) enum Document {
    /// It is JSON5, and an object as a configuration has to be.
    Whole(Value),
    /// It is not; this much could be found in it all the same.
    Damaged { found: Value, problem: String },
}

impl Document {
    pub(super) fn read(bytes: &[u8]) -> Self {
        match strictly(bytes) {
            Ok(value @ Value::Object(_)) => Self::Whole(value),
            Ok(_) => Self::Damaged {
                found: Value::Object(Map::new()),
                problem: "it is no object".to_owned(),
            },
            Err(problem) => Self::Damaged {
                found: Value::Object(Salvage::new(&decoded(bytes)).document()),
                problem,
            },
        }
    }

    pub(super) fn value(&self) -> &Value {
        match self {
            Self::Whole(value) | Self::Damaged { found: value, .. } => value,
        }
    }

    pub(super) fn problem(&self) -> Option<&str> {
        match self {
            Self::Whole(_) => None,
            Self::Damaged { problem, .. } => Some(problem),
        }
    }
}

fn strictly(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    json5::from_str::<Tree>(text)
        .map(|tree| tree.0)
        .map_err(|error| match error.position() {
            // Lines are counted from zero there. The reader's own words may quote the text, and so a secret.
            Some(position) => format!(
                "it does not parse at line {}, column {}",
                position.line + 1,
                position.column + 1
            ),
            None => "it does not parse: it ends too early, or nests too deep".to_owned(),
        })
}

/// Text in UTF-16, which editors on Windows write, with its mark; else UTF-8 with whatever is wrong in it replaced.
fn decoded(bytes: &[u8]) -> String {
    let wide = |from: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..]
            .chunks_exact(2)
            .map(|pair| from([pair[0], pair[1]]))
            .collect();
        String::from_utf16_lossy(&units)
    };
    match bytes {
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        _ => String::from_utf8_lossy(bytes)
            .trim_start_matches('\u{feff}')
            .to_owned(),
    }
}

/// A value of limited depth.
struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Depth(MAX_DEPTH).deserialize(deserializer).map(Self)
    }
}

/// How many containers may still be opened.
struct Depth(usize);

impl Depth {
    fn deeper<E: de::Error>(&self) -> Result<usize, E> {
        self.0
            .checked_sub(1)
            .ok_or_else(|| E::custom("too many containers inside each other"))
    }
}

impl<'de> DeserializeSeed<'de> for Depth {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Depth {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = sequence.next_element_seed(Self(depth))? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            map.insert(key, members.next_value_seed(Self(depth))?);
        }
        Ok(Value::Object(map))
    }
}

/// `1.0` and `1` are the same number, and whoever writes JSON writes the latter. JSON has no infinity; its name stands for it.
fn number(value: f64) -> Value {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked before"
    )]
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return (value as i64).into();
    }
    serde_json::Number::from_f64(value)
        .map_or_else(|| Value::String(value.to_string()), Value::Number)
}

/// Finds members in a damaged text. Every step consumes a character or ends a container, so the work is linear.
struct Salvage<'a> {
    rest: Peekable<Chars<'a>>,
    /// Containers that are open, to tell a bracket that closes one of them from one that closes nothing.
    objects: usize,
    arrays: usize,
}

impl<'a> Salvage<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text.chars().peekable(),
            objects: 0,
            arrays: 0,
        }
    }

    /// Brackets at the top mean nothing: one too many of them must not hide what follows it.
    fn document(mut self) -> Map<String, Value> {
        let mut root = Map::new();
        loop {
            self.skip_space();
            match self.rest.peek() {
                None => return root,
                Some('{' | '}' | '[' | ']' | ',' | ':') => {
                    self.rest.next();
                }
                Some(_) => self.member(&mut root, MAX_DEPTH),
            }
        }
    }

    fn member(&mut self, map: &mut Map<String, Value>, depth: usize) {
        let key = match self.rest.peek() {
            Some('"' | '\'') => self.string(),
            _ => self.word(),
        };
        self.skip_space();
        if self.rest.next_if_eq(&':').is_some() {
            let value = self.value(depth);
            merge(map, key, value);
        }
    }

    fn value(&mut self, depth: usize) -> Value {
        self.skip_space();
        match self.rest.peek() {
            None | Some('}' | ']' | ',') => Value::Null,
            Some('"' | '\'') => Value::String(self.string()),
            Some('{' | '[') if depth == 0 => {
                self.rest.next();
                Value::Null
            }
            Some('{') => self.object(depth - 1),
            Some('[') => self.array(depth - 1),
            Some(_) => scalar(&self.word()),
        }
    }

    fn object(&mut self, depth: usize) -> Value {
        let mut map = Map::new();
        self.rest.next();
        self.objects += 1;
        loop {
            self.skip_space();
            match self.rest.peek() {
                None => break,
                Some('}') => {
                    self.rest.next();
                    break;
                }
                Some(']') if self.arrays > 0 => break,
                Some('{' | '[' | ']' | ',' | ':') => {
                    self.rest.next();
                }
                Some(_) => self.member(&mut map, depth),
            }
        }
        self.objects -= 1;
        Value::Object(map)
    }

    fn array(&mut self, depth: usize) -> Value {
        let mut values = Vec::new();
        self.rest.next();
        self.arrays += 1;
        loop {
            self.skip_space();
            match self.rest.peek() {
                None => break,
                Some(']') => {
                    self.rest.next();
                    break;
                }
                Some('}') if self.objects > 0 => break,
                Some('}' | ',' | ':') => {
                    self.rest.next();
                }
                Some(_) => values.push(self.value(depth)),
            }
        }
        self.arrays -= 1;
        Value::Array(values)
    }

    /// A string ends at its quote, or at the end of the line when that is missing.
    fn string(&mut self) -> String {
        let quote = self.rest.next();
        let mut text = String::new();
        while let Some(c) = self.rest.next() {
            match c {
                '\\' => match self.rest.next() {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some('u') => {
                        let digits: String = (0..4)
                            .map_while(|_| self.rest.next_if(char::is_ascii_hexdigit))
                            .collect();
                        text.extend(
                            u32::from_str_radix(&digits, 16)
                                .ok()
                                .and_then(char::from_u32),
                        );
                    }
                    Some('\n') | None => {}
                    Some(other) => text.push(other),
                },
                '\n' => break,
                c if Some(c) == quote => break,
                c => text.push(c),
            }
        }
        text
    }

    /// At least one character, up to a blank or to what separates words.
    fn word(&mut self) -> String {
        let mut word: String = self.rest.next().into_iter().collect();
        let ends = |c: &char| c.is_whitespace() || "{}[],:\"'".contains(*c);
        while let Some(c) = self.rest.next_if(|c| !ends(c)) {
            word.push(c);
        }
        word
    }

    fn skip_space(&mut self) {
        loop {
            while self.rest.next_if(|c| c.is_whitespace()).is_some() {}
            let mut ahead = self.rest.clone();
            match (ahead.next(), ahead.next()) {
                (Some('/'), Some('/')) => while self.rest.next_if(|c| *c != '\n').is_some() {},
                (Some('/'), Some('*')) => {
                    self.rest = ahead;
                    let mut before = ' ';
                    for c in self.rest.by_ref() {
                        if (before, c) == ('*', '/') {
                            break;
                        }
                        before = c;
                    }
                }
                _ => return,
            }
        }
    }
}

/// A key that comes twice, as both halves of a merge conflict have it, keeps what either says.
fn merge(map: &mut Map<String, Value>, key: String, value: Value) {
    match (map.get_mut(&key), value) {
        (Some(Value::Object(known)), Value::Object(new)) => {
            for (key, value) in new {
                merge(known, key, value);
            }
        }
        (_, value) => {
            map.insert(key, value);
        }
    }
}

fn scalar(word: &str) -> Value {
    match word {
        "null" => Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        _ => word
            .parse()
            .map_or_else(|_| Value::String(word.to_owned()), number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn whole_texts() {
        let table = [
            ("{}", json!({})),
            ("\u{feff}{a: 1}", json!({"a": 1})),
            (
                "// c\n{a: [1.0, .5, 0x10, 'x', null, true,],}",
                json!({"a": [1, 0.5, 16, "x", null, true]}),
            ),
            ("{a: Infinity}", json!({"a": "inf"})),
            ("{a: {b: {}}}", json!({"a": {"b": {}}})),
        ];
        for (text, expected) in table {
            let document = Document::read(text.as_bytes());
            assert_eq!(
                (document.problem(), document.value()),
                (None, &expected),
                "{text}"
            );
        }
    }

    #[test]
    fn damaged_texts() {
        let whole = json!({"gateway": {"mode": "local", "port": 1}, "channels": {"x": {"list": ["a", "b"]}}});
        let table = [
            ("", json!({}), "empty"),
            (" \n", json!({}), "empty"),
            ("[1]", json!({}), "no object"),
            ("{\n  a: }", json!({"a": null}), "line 2"),
            // Cut off.
            (
                "{gateway: {mode: 'local', port: 1}, channels: {x: {list: ['a', 'b'",
                whole.clone(),
                "does not parse",
            ),
            // A brace too many, in the middle.
            (
                "{gateway: {mode: 'local', port: 1}}, channels: {x: {list: ['a', 'b']}}}",
                whole.clone(),
                "line 1",
            ),
            // A bracket that closes nothing, and a missing comma.
            (
                "{gateway: {mode: 'local'] port: 1}, channels: {x: {list: ['a' 'b']}}}",
                whole.clone(),
                "line 1",
            ),
            // An array that is not closed.
            (
                "{gateway: {mode: 'local', port: 1}, channels: {x: {list: ['a', 'b'}}}",
                whole.clone(),
                "line 1",
            ),
            // Two halves of a merge.
            (
                "{\n<<<<<<< HEAD\ngateway: {mode: 'local'},\n=======\ngateway: {port: 1},\n>>>>>>> other\nchannels: {x: {list: ['a', 'b']}}}",
                whole.clone(),
                "line 2",
            ),
            // A string without its end.
            (
                "{gateway: {port: 1, mode: \"local\n}, channels: {x: {list: ['a', 'b']}}}",
                whole.clone(),
                "line 1",
            ),
            // What was left of a longer text that was written before.
            (
                "{gateway: {mode: 'local', port: 1}, channels: {x: {list: ['a', 'b']}}}b']}}}",
                whole,
                "line 1",
            ),
            (
                "{a: 'x\\u0041\\n' /* c",
                json!({"a": "xA\n"}),
                "does not parse",
            ),
        ];
        for (text, expected, problem) in table {
            let document = Document::read(text.as_bytes());
            assert!(
                document
                    .problem()
                    .is_some_and(|found| found.contains(problem)),
                "{text}: {document:?}"
            );
            assert_eq!(document.value(), &expected, "{text}");
        }
    }

    #[test]
    fn other_encodings() {
        let text = "{gateway: {mode: 'local'}}";
        let little: Vec<u8> = [0xff, 0xfe]
            .into_iter()
            .chain(text.encode_utf16().flat_map(u16::to_le_bytes))
            .collect();
        let big: Vec<u8> = [0xfe, 0xff]
            .into_iter()
            .chain(text.encode_utf16().flat_map(u16::to_be_bytes))
            .collect();
        for bytes in [little, big] {
            let document = Document::read(&bytes);
            assert_eq!(document.problem(), Some("it is not UTF-8"));
            assert_eq!(document.value(), &json!({"gateway": {"mode": "local"}}));
        }
    }

    #[test]
    fn depth_is_limited() {
        let nested = |depth: usize| format!("{{a: {}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(
            Document::read(nested(MAX_DEPTH - 1).as_bytes())
                .problem()
                .is_none()
        );
        for text in [
            nested(MAX_DEPTH),
            "[".repeat(1_000_000),
            "{a:".repeat(1_000_000),
            nested(1_000_000),
        ] {
            assert!(Document::read(text.as_bytes()).problem().is_some());
        }
    }

    /// A problem ends up in messages.
    #[test]
    fn no_problem_quotes_the_text() {
        let document = Document::read(b"{token: 's3cret-value' s3cret-value}");
        assert!(
            !document.problem().unwrap().contains("s3cret"),
            "{document:?}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Document::read(&bytes);
        }

        /// Text of the characters that matter, in any order.
        #[test]
        fn any_structure_is_survived(text in "[{}\\[\\],:\"'a1/* \n\\\\]{0,80}") {
            let _ = Document::read(text.as_bytes());
        }
    }
}
