//! Finding the end of a JSON value, and that it is one.
//!
//! Every byte a gateway sends goes through here once, and nearly all of them are skipped: what the envelope does
//! not name stays text. Skipping is several times faster than parsing when it takes eight bytes of a string at a
//! time. It accepts exactly what serde_json accepts as raw JSON (a property test compares the two), in constant
//! stack space whatever the nesting.

use alloc::vec::Vec;

/// Where a text stops being JSON, and what belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unexpected {
    pub(crate) at: usize,
    pub(crate) expected: &'static str,
}

/// A field name.
pub(crate) enum Name<'a> {
    /// As it is.
    Plain(&'a str),
    /// A JSON string with escapes, quotes included.
    Escaped(&'a str),
}

/// A position in a text.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

/// Open objects and arrays, innermost last: one bit each, set for an object.
#[derive(Default)]
struct Nesting {
    innermost: u64,
    depth: usize,
    outer: Vec<u64>,
}

impl Nesting {
    fn open(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.innermost);
        }
        self.innermost = (self.innermost << 1) | u64::from(object);
        self.depth += 1;
    }

    fn close(&mut self) {
        self.innermost >>= 1;
        self.depth -= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.innermost = self.outer.pop().unwrap_or_default();
        }
    }

    /// Whether the innermost one is an object; `None` when nothing is open.
    fn in_object(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.innermost & 1 == 1)
    }
}

impl<'a> Scanner<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    const fn unexpected(&self, expected: &'static str) -> Unexpected {
        Unexpected {
            at: self.at,
            expected,
        }
    }

    /// The text from `start` to here. Both are next to ASCII characters, so the slice always exists.
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    pub(crate) fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Whether only white space is left.
    pub(crate) fn end(&mut self) -> Result<(), Unexpected> {
        self.space();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end of the text")),
        }
    }

    /// Takes one certain byte if it comes next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    pub(crate) fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Unexpected> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.unexpected(expected))
        }
    }

    /// A field name with the colon behind it. The name is without its quotes, unless it has escapes.
    pub(crate) fn name(&mut self) -> Result<Name<'a>, Unexpected> {
        self.space();
        let start = self.at;
        self.expect(b'"', "a field name")?;
        let escaped = self.rest_of_string()?;
        let name = if escaped {
            Name::Escaped(self.since(start))
        } else {
            Name::Plain(self.text.get(start + 1..self.at - 1).unwrap_or_default())
        };
        self.space();
        self.expect(b':', "a colon")?;
        Ok(name)
    }

    /// A value of any kind, without the white space around it.
    pub(crate) fn value(&mut self) -> Result<&'a str, Unexpected> {
        self.space();
        let start = self.at;
        let mut nesting = Nesting::default();
        'value: loop {
            self.space();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    self.rest_of_string()?;
                }
                Some(b'{') => {
                    self.at += 1;
                    self.space();
                    if !self.take(b'}') {
                        self.name()?;
                        nesting.open(true);
                        continue 'value;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    self.space();
                    if !self.take(b']') {
                        nesting.open(false);
                        continue 'value;
                    }
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                _ => return Err(self.unexpected("a value")),
            }
            // A value is complete; so are the objects and arrays that end right behind it.
            while let Some(in_object) = nesting.in_object() {
                self.space();
                match (self.peek(), in_object) {
                    (Some(b','), _) => {
                        self.at += 1;
                        if in_object {
                            self.name()?;
                        }
                        continue 'value;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.at += 1;
                        nesting.close();
                    }
                    (_, true) => return Err(self.unexpected("a comma or a closing brace")),
                    (_, false) => return Err(self.unexpected("a comma or a closing bracket")),
                }
            }
            return Ok(self.since(start));
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Unexpected> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(self.unexpected(word))
        }
    }

    fn digits(&mut self) -> Result<(), Unexpected> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.unexpected("a digit"));
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Unexpected> {
        self.take(b'-');
        if self.take(b'0') {
            if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err(self.unexpected("no digit after a leading zero"));
            }
        } else {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// What follows the opening quote, to the closing one. Tells whether there were escapes.
    fn rest_of_string(&mut self) -> Result<bool, Unexpected> {
        let mut escaped = false;
        loop {
            self.plain_text();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape()?;
                    escaped = true;
                }
                Some(_) => return Err(self.unexpected("no control character inside a string")),
                None => return Err(self.unexpected("the end of a string")),
            }
        }
    }

    /// Moves to the next quote, backslash or control character.
    fn plain_text(&mut self) {
        const ONES: u64 = u64::MAX / 255;
        const HIGH: u64 = ONES * 128;
        while let Some(chunk) = self.bytes[self.at..].first_chunk::<8>() {
            let chunk = u64::from_le_bytes(*chunk);
            // Sets the high bit of every byte that is zero. A borrow may set more of them above the first one, and
            // only the first one counts.
            let zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes & HIGH;
            let quote = zero(chunk ^ (ONES * 0x22));
            let backslash = zero(chunk ^ (ONES * 0x5C));
            // The same for every byte below 0x20.
            let control = chunk.wrapping_sub(ONES * 0x20) & !chunk & HIGH;
            let found = quote | backslash | control;
            if found != 0 {
                self.at += (found.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while let Some(byte) = self.peek() {
            if byte < 0x20 || byte == b'"' || byte == b'\\' {
                return;
            }
            self.at += 1;
        }
    }

    /// What follows a backslash. Halves of surrogate pairs are let through, as JSON does.
    fn escape(&mut self) -> Result<(), Unexpected> {
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
                        return Err(self.unexpected("a hexadecimal digit"));
                    }
                    self.at += 1;
                }
                Ok(())
            }
            _ => Err(self.unexpected("an escape")),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use alloc::{format, string::String};

    use proptest::{collection::vec, prelude::*};
    use serde_json::value::RawValue;

    use super::*;
    use crate::json::validate;

    /// Both accept the same texts, and take the same part of them.
    fn agrees(text: &str) -> Result<(), String> {
        let theirs = serde_json::from_str::<&RawValue>(text).map(RawValue::get);
        match (validate(text), theirs) {
            (Ok(one), Ok(two)) if one == two => Ok(()),
            (Err(_), Err(_)) => Ok(()),
            (ours, theirs) => Err(format!("{text:?}: {ours:?}, serde_json: {theirs:?}")),
        }
    }

    #[test]
    fn every_short_number_and_literal() {
        let alphabet = b"-+019.eEtn x";
        let mut texts = std::vec![String::new()];
        for _ in 0..4 {
            texts = texts
                .iter()
                .flat_map(|text| {
                    alphabet
                        .iter()
                        .map(move |&byte| format!("{text}{}", byte as char))
                })
                .chain(texts.iter().cloned())
                .collect();
        }
        for text in texts {
            agrees(&text).unwrap();
        }
    }

    #[test]
    fn every_byte_at_every_place_of_a_string() {
        for length in 0..20 {
            for place in 0..=length {
                for byte in 0..128_u8 {
                    let mut inner = "é".repeat(place / 2);
                    inner.push(byte as char);
                    inner.push_str(&"x".repeat(length - place));
                    agrees(&format!("\"{inner}\"")).unwrap();
                }
            }
        }
    }

    #[test]
    fn nesting_of_any_depth() {
        for depth in (0..300).chain([10_000]) {
            let open: String = (0..depth)
                .map(|level| if level % 3 == 0 { "{\"a\":" } else { "[" })
                .collect();
            let close: String = (0..depth)
                .rev()
                .map(|level| if level % 3 == 0 { "}" } else { "]" })
                .collect();
            let text = format!("{open}0{close}");
            assert_eq!(Scanner::new(&text).value(), Ok(text.as_str()));
            // Any one of the closing ones replaced by its sibling is an error.
            if depth > 0 {
                for place in [0, depth / 2, depth - 1] {
                    let mut wrong = text.clone().into_bytes();
                    let at = open.len() + 1 + place;
                    wrong[at] = if wrong[at] == b'}' { b']' } else { b'}' };
                    let wrong = String::from_utf8(wrong).unwrap();
                    assert_eq!(Scanner::new(&wrong).value().unwrap_err().at, at);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn tokens(tokens in vec(prop::sample::select(std::vec![
            "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"a\":", "true", "false", "null", "nul", "-", "0", "12", ".", "e",
            "E+", "1.5e-3", "\\", "\\\"", "\\u", "00e9", "\\ud83d", "\\x", " ", "\n", "\t", "\u{0}", "\u{1f}", "\u{7f}", "é", "🦞",
            "abcdefgh",
        ]), 0..14)) {
            agrees(&tokens.concat()).map_err(TestCaseError::fail)?;
        }

        #[test]
        fn valid_text_with_one_change(
            number: f64, name: String, member: String, at: prop::sample::Index, put: char, replace: bool,
        ) {
            let value = serde_json::json!({ name: [number, {"member": member, "list": [null, true, [], {}]}] });
            let text = serde_json::to_string_pretty(&value).unwrap();
            agrees(&text).map_err(TestCaseError::fail)?;
            let mut characters: Vec<char> = text.chars().collect();
            let at = at.index(characters.len());
            if replace {
                characters[at] = put;
            } else {
                characters.remove(at);
            }
            let text: String = characters.into_iter().collect();
            agrees(&text).map_err(TestCaseError::fail)?;
        }
    }
}
