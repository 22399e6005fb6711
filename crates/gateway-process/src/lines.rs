//! Bytes in, lines out.
//!
//! A pipe cuts its data wherever it likes: in the middle of a line, of a colour code, of a character. The assembler joins lines
//! across chunks, and decodes and cleans each one once, when it is complete. However the same bytes are cut, the lines are the
//! same.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter};

/// The longest line that is kept, in bytes before cleaning. The rest of a longer line is dropped, and the line is marked.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// What the buffer for an unfinished line may keep between lines.
const PARTIAL_KEPT: usize = 1024;

/// A complete line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The text: UTF-8 with replacement characters where it was not, no escape sequences, no control characters but tabs, no
    /// blanks at the end. Borrowed from the chunk when it stands there as it is.
    pub text: Cow<'a, str>,
    /// The line was longer than the limit and its rest is missing.
    pub truncated: bool,
}

/// Joins chunks into lines. Holds at most one line of the limit's length.
///
/// ```
/// use gateway_process::lines::LineAssembler;
/// let mut lines = Vec::new();
/// let mut assembler = LineAssembler::default();
/// assembler.push(b"\x1b[31mInvalid con", |line| lines.push(line.text.into_owned()));
/// assembler.push(b"fig\x1b[0m\r\nnext", |line| lines.push(line.text.into_owned()));
/// assembler.finish(|line| lines.push(line.text.into_owned()));
/// assert_eq!(lines, ["Invalid config", "next"]);
/// ```
#[derive(Debug)]
pub struct LineAssembler {
    limit: usize,
    partial: Vec<u8>,
    truncated: bool,
    /// A line has begun, even if all its bytes so far are its beginning of zero length.
    open: bool,
}

impl Default for LineAssembler {
    /// With [`MAX_LINE_BYTES`].
    fn default() -> Self {
        Self::new(MAX_LINE_BYTES)
    }
}

impl LineAssembler {
    /// An assembler that keeps up to `limit` bytes of a line, at least one.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            partial: Vec::new(),
            truncated: false,
            open: false,
        }
    }

    /// Takes a chunk and hands over every line that it completes.
    pub fn push(&mut self, chunk: &[u8], line: impl FnMut(Line<'_>)) {
        self.push_lines(chunk, usize::MAX, line);
    }

    /// Takes a chunk up to the end of so many lines, at least one, hands those over, and gives what is left of the chunk.
    pub(crate) fn push_lines<'a>(
        &mut self,
        mut chunk: &'a [u8],
        most: usize,
        mut line: impl FnMut(Line<'_>),
    ) -> &'a [u8] {
        let mut room = most.max(1);
        if self.open
            && let Some(end) = memchr(b'\n', chunk)
        {
            self.keep(&chunk[..end]);
            self.take(&mut line);
            chunk = &chunk[end + 1..];
            room -= 1;
        }
        // The common case: whole lines in this chunk, which need no buffer.
        if !self.open
            && let Some(last) = memchr_iter(b'\n', chunk).take(room).last()
        {
            let (lines, rest) = chunk.split_at(last + 1);
            self.whole_lines(lines, &mut line);
            if !rest.is_empty() && memchr(b'\n', rest).is_some() {
                return rest;
            }
            chunk = rest;
        } else if room == 0 {
            return chunk;
        }
        if !chunk.is_empty() {
            self.open = true;
            self.keep(chunk);
        }
        &[]
    }

    /// Hands over lines that are all there. What holds for all of them is found out once.
    fn whole_lines(&self, lines: &[u8], line: &mut impl FnMut(Line<'_>)) {
        let text = std::str::from_utf8(lines).ok();
        let clean = !has_control(lines);
        let mut start = 0;
        for end in memchr_iter(b'\n', lines) {
            let bytes = &lines[start..end];
            let kept = &bytes[..bytes.len().min(self.limit)];
            let truncated = kept.len() < bytes.len();
            line(match text {
                Some(text) if clean && !truncated => Line {
                    text: Cow::Borrowed(text[start..end].trim_end()),
                    truncated,
                },
                _ => decode(kept, truncated),
            });
            start = end + 1;
        }
    }

    /// The stream has ended: hands over what was begun and not completed.
    pub fn finish(&mut self, mut line: impl FnMut(Line<'_>)) {
        if self.open {
            self.take(&mut line);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.limit - self.partial.len();
        let kept = &bytes[..bytes.len().min(room)];
        self.partial.extend_from_slice(kept);
        self.truncated |= kept.len() < bytes.len();
    }

    fn take(&mut self, line: &mut impl FnMut(Line<'_>)) {
        line(decode(&self.partial, self.truncated));
        self.partial.clear();
        self.partial.shrink_to(PARTIAL_KEPT);
        self.truncated = false;
        self.open = false;
    }
}

/// Whether there is anything but text, tabs and line endings. Looks at all of it: without an early end, many bytes are looked at in
/// one step.
fn has_control(bytes: &[u8]) -> bool {
    let is_control = |byte: u8| (byte < 0x20) & (byte != b'\t') & (byte != b'\n') | (byte == 0x7f);
    bytes
        .iter()
        .fold(false, |found, byte| found | is_control(*byte))
}

fn decode(bytes: &[u8], truncated: bool) -> Line<'_> {
    let bytes = if truncated {
        without_cut_character(bytes)
    } else {
        bytes
    };
    let text = match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => clean(text),
        Cow::Owned(text) => Cow::Owned(clean(&text).into_owned()),
    };
    Line { text, truncated }
}

/// Without escape sequences, control characters and blanks at the end.
fn clean(text: &str) -> Cow<'_, str> {
    let trimmed = text.trim_end();
    // Most lines hold no escape sequence, and looking for one is much cheaper than parsing for one.
    if !has_control(trimmed.as_bytes()) {
        return Cow::Borrowed(trimmed);
    }
    let mut plain = without_colours(trimmed).unwrap_or_else(|| {
        // The parser drops control characters, the tab among them, which would glue two words together.
        let mut plain = strip_ansi_escapes::strip_str(text.replace('\t', " "));
        plain.retain(|character| !character.is_control());
        plain
    });
    plain.truncate(plain.trim_end().len());
    Cow::Owned(plain)
}

/// The text without colours, when those are all that is special about it. Gateways that were told to use colours put several into each
/// line, and this takes a tenth of the time of a parser that knows everything.
fn without_colours(text: &str) -> Option<String> {
    const ESCAPE: u8 = 0x1b;
    /// The first byte of control characters beyond ASCII.
    const C1_LEAD: u8 = 0xc2;
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let escape = memchr(ESCAPE, rest.as_bytes());
        let (before, after) = rest.split_at(escape.unwrap_or(rest.len()));
        if has_control(before.as_bytes()) || memchr(C1_LEAD, before.as_bytes()).is_some() {
            return None;
        }
        plain.push_str(before);
        let Some(sequence) = after.strip_prefix("\x1b[") else {
            if after.is_empty() {
                break;
            }
            return None;
        };
        let end = sequence
            .bytes()
            .position(|byte| !(byte.is_ascii_digit() || byte == b';'))?;
        rest = sequence[end..].strip_prefix('m')?;
    }
    // As the parser would have it.
    if memchr(b'\t', plain.as_bytes()).is_some() {
        plain = plain.replace('\t', " ");
    }
    Some(plain)
}

/// The limit may fall into the middle of a character; half a character is not worth a replacement mark.
fn without_cut_character(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assemble<'a>(
        limit: usize,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        let mut assembler = LineAssembler::new(limit);
        for chunk in chunks {
            assembler.push(chunk, |line| lines.push(owned(line)));
        }
        assembler.finish(|line| lines.push(owned(line)));
        lines
    }

    fn owned(line: Line<'_>) -> Line<'static> {
        Line {
            text: line.text.into_owned().into(),
            truncated: line.truncated,
        }
    }

    /// Bytes, and the lines in them with the mark of those that were cut.
    type Case = (&'static [u8], &'static [(&'static str, bool)]);

    #[test]
    fn table() {
        let table: &[Case] = &[
            (b"", &[]),
            (b"\n", &[("", false)]),
            (b"a", &[("a", false)]),
            (b"a\n", &[("a", false)]),
            (b"a\r\n\r\nb", &[("a", false), ("", false), ("b", false)]),
            (b"  indented \t\n", &[("  indented", false)]),
            (b"a\tb\n", &[("a\tb", false)]),
            (b"\x1b[1mBad\x1b[0m\tkey\n", &[("Bad key", false)]),
            (b"\x1b]0;a\x07text\n", &[("text", false)]),
            (b"bell\x07 \x08back\x7f\n", &[("bell back", false)]),
            (
                "gr\u{fc}n \u{1f99e}\n".as_bytes(),
                &[("gr\u{fc}n \u{1f99e}", false)],
            ),
            (b"bad \xff byte\n", &[("bad \u{fffd} byte", false)]),
            (b"0123456789abcdef\n", &[("0123456789abcdef", false)]),
            (
                b"0123456789abcdefg\nx\n",
                &[("0123456789abcdef", true), ("x", false)],
            ),
            // The sixteenth byte is the first of two.
            (
                "0123456789abcde\u{fc}\n".as_bytes(),
                &[("0123456789abcde", true)],
            ),
            (b"\x1b[31m0123456789abcdef", &[("0123456789a", true)]),
        ];
        for (bytes, expected) in table {
            let lines = assemble(16, [*bytes]);
            let lines: Vec<_> = lines
                .iter()
                .map(|line| (&*line.text, line.truncated))
                .collect();
            assert_eq!(lines, *expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn an_endless_line_takes_no_more_memory_than_the_limit() {
        let mut assembler = LineAssembler::default();
        for _ in 0..1000 {
            assembler.push(&[b'x'; 4096], |_| panic!("no line was completed"));
        }
        assert!(assembler.partial.capacity() <= 2 * MAX_LINE_BYTES);
        let mut lines = Vec::new();
        assembler.push(b"\nshort\n", |line| {
            lines.push((line.text.len(), line.truncated));
        });
        assert_eq!(lines, [(MAX_LINE_BYTES, true), (5, false)]);
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => "[a-z ]{0,12}".prop_map(String::into_bytes),
            3 => Just(b"\n".to_vec()),
            1 => Just(b"\r\n".to_vec()),
            1 => Just(b"\x1b[38;5;9m".to_vec()),
            1 => Just(b"\t".to_vec()),
            1 => Just(b"\x1b[".to_vec()),
            1 => Just(b"\x1b[2K\xc2\x9b".to_vec()),
            1 => "\\PC{0,6}".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..8),
        ];
        proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// However the bytes are cut, the lines are the same.
        #[test]
        fn chunks_do_not_matter(
            bytes in bytes(),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
            limit in 1_usize..64,
        ) {
            let whole = assemble(limit, [bytes.as_slice()]);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.push(0);
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let chunks = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
            prop_assert_eq!(&assemble(limit, chunks), &whole);
            prop_assert_eq!(&assemble(limit, bytes.chunks(1)), &whole);
        }

        /// A few lines at a time are the same lines, and no call gives more than it was asked for.
        #[test]
        fn the_number_of_lines_at_a_time_does_not_matter(bytes in bytes(), cut in any::<proptest::sample::Index>(), most in 1_usize..5) {
            let whole = assemble(MAX_LINE_BYTES, [bytes.as_slice()]);
            let (mut lines, mut assembler) = (Vec::new(), LineAssembler::default());
            let (one, other) = bytes.split_at(cut.index(bytes.len() + 1));
            for mut chunk in [one, other] {
                while !chunk.is_empty() {
                    let before = lines.len();
                    chunk = assembler.push_lines(chunk, most, |line| lines.push(owned(line)));
                    prop_assert!(lines.len() <= before + most);
                }
            }
            assembler.finish(|line| lines.push(owned(line)));
            prop_assert_eq!(lines, whole);
        }

        /// The quick way to take colours off gives what the parser would give.
        #[test]
        fn colours_come_off_as_the_parser_takes_them_off(bytes in bytes()) {
            for line in bytes.split(|byte| *byte == b'\n') {
                let text = String::from_utf8_lossy(line);
                let mut parsed = strip_ansi_escapes::strip_str(text.replace('\t', " "));
                parsed.retain(|character| !character.is_control());
                if let Some(quick) = without_colours(text.trim_end()) {
                    prop_assert_eq!(quick.trim_end(), parsed.trim_end(), "{:?}", text);
                }
            }
        }

        /// One line per line ending, plus an unfinished last one; nothing that would move a terminal's cursor is left.
        #[test]
        fn lines_are_counted_and_clean(bytes in bytes()) {
            let lines = assemble(MAX_LINE_BYTES, [bytes.as_slice()]);
            let endings = bytes.iter().filter(|byte| **byte == b'\n').count();
            let unfinished = usize::from(bytes.last().is_some_and(|last| *last != b'\n'));
            prop_assert_eq!(lines.len(), endings + unfinished);
            for line in lines {
                prop_assert!(!line.text.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f), "{:?}", line.text);
                prop_assert_eq!(line.text.trim_end(), &*line.text);
            }
        }
    }
}
