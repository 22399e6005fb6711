//! Bytes in, lines out.
//!
//! A pipe cuts its data wherever it likes: in the middle of a line, of a colour code, of a character. The assembler joins lines
//! across chunks, and decodes and cleans each one once, when it is complete. However the same bytes are cut, the lines are the
//! same.

use memchr::memchr;

/// The longest line that is kept, in bytes before cleaning. The rest of a longer line is dropped, and the line is marked.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// A complete line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The text: UTF-8 with replacement characters where it was not, no escape sequences, no control characters but tabs, no
    /// blanks at the end.
    pub text: String,
    /// The line was longer than the limit and its rest is missing.
    pub truncated: bool,
}

/// Joins chunks into lines. Holds at most one line of the limit's length.
///
/// ```
/// use gateway_process::lines::LineAssembler;
/// let mut lines = Vec::new();
/// let mut assembler = LineAssembler::default();
/// assembler.push(b"\x1b[31mInvalid con", |line| lines.push(line.text));
/// assembler.push(b"fig\x1b[0m\r\nnext", |line| lines.push(line.text));
/// assembler.finish(|line| lines.push(line.text));
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
    pub fn push(&mut self, mut chunk: &[u8], mut line: impl FnMut(Line)) {
        while let Some(end) = memchr(b'\n', chunk) {
            let (rest_of_line, after) = chunk.split_at(end);
            chunk = &after[1..];
            if self.open {
                self.keep(rest_of_line);
                line(self.take());
            } else {
                // The common case: the whole line is in this chunk and needs no buffer.
                let kept = &rest_of_line[..rest_of_line.len().min(self.limit)];
                line(decode(kept, kept.len() < rest_of_line.len()));
            }
        }
        if !chunk.is_empty() {
            self.open = true;
            self.keep(chunk);
        }
    }

    /// The stream has ended: hands over what was begun and not completed.
    pub fn finish(&mut self, mut line: impl FnMut(Line)) {
        if self.open {
            line(self.take());
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.limit - self.partial.len();
        let kept = &bytes[..bytes.len().min(room)];
        self.partial.extend_from_slice(kept);
        self.truncated |= kept.len() < bytes.len();
    }

    fn take(&mut self) -> Line {
        let line = decode(&self.partial, self.truncated);
        self.partial.clear();
        self.truncated = false;
        self.open = false;
        line
    }
}

fn decode(bytes: &[u8], truncated: bool) -> Line {
    let bytes = if truncated {
        without_cut_character(bytes)
    } else {
        bytes
    };
    let text = String::from_utf8_lossy(bytes);
    // Most lines hold no escape sequence, and looking for one is much cheaper than parsing for one.
    let is_control = |byte: &u8| *byte < 0x20 && *byte != b'\t' || *byte == 0x7f;
    let mut text = if text.trim_end().bytes().any(|byte| is_control(&byte)) {
        // The parser drops control characters, the tab among them, which would glue two words together.
        let mut plain = strip_ansi_escapes::strip_str(text.replace('\t', " "));
        plain.retain(|character| !character.is_control());
        plain
    } else {
        text.into_owned()
    };
    text.truncate(text.trim_end().len());
    Line { text, truncated }
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

    fn assemble<'a>(limit: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut assembler = LineAssembler::new(limit);
        for chunk in chunks {
            assembler.push(chunk, |line| lines.push(line));
        }
        assembler.finish(|line| lines.push(line));
        lines
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
                .map(|line| (line.text.as_str(), line.truncated))
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
            lines.push((line.text.len(), line.truncated))
        });
        assert_eq!(lines, [(MAX_LINE_BYTES, true), (5, false)]);
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            4 => "[a-z ]{0,12}".prop_map(String::into_bytes),
            3 => Just(b"\n".to_vec()),
            1 => Just(b"\r\n".to_vec()),
            1 => Just(b"\x1b[38;5;9m".to_vec()),
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

        /// One line per line ending, plus an unfinished last one; nothing that would move a terminal's cursor is left.
        #[test]
        fn lines_are_counted_and_clean(bytes in bytes()) {
            let lines = assemble(MAX_LINE_BYTES, [bytes.as_slice()]);
            let endings = bytes.iter().filter(|byte| **byte == b'\n').count();
            let unfinished = usize::from(bytes.last().is_some_and(|last| *last != b'\n'));
            prop_assert_eq!(lines.len(), endings + unfinished);
            for line in lines {
                prop_assert!(!line.text.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f), "{:?}", line.text);
                prop_assert_eq!(line.text.trim_end(), line.text.as_str());
            }
        }
    }
}
