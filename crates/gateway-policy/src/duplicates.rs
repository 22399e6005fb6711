//! Lines that repeat: said once, then counted.
//!
//! A gateway in trouble says the same thing over and over, and a log full of it hides everything else. [`Duplicates`] lets the first of
//! equal lines through, and tells how often it came again: after every [`NOTE_EVERY`] repeats, at the latest [`NOTE_WITHIN`] after a repeat, and at
//! the end. Lines are equal when they are after the timestamp that they begin with. The table is bounded; nothing is ever left out
//! without being counted in a note.
//!
//! ```
//! use gateway_policy::Time;
//! use gateway_policy::duplicates::{Duplicates, Seen};
//!
//! let mut duplicates = Duplicates::default();
//! assert_eq!(duplicates.see(Time::ZERO, "10:00:01 cannot reach the model").0, Seen::New);
//! assert_eq!(duplicates.see(Time::ZERO, "10:00:02 cannot reach the model").0, Seen::Repeat);
//! let notes = duplicates.finish();
//! assert_eq!((notes[0].line.as_str(), notes[0].repeats), ("cannot reach the model", 1));
//! ```

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::Time;

/// How many different lines are remembered: those that were seen last.
pub const REMEMBERED_LINES: usize = 64;

/// How many repeats there are from one note to the next at most.
pub const NOTE_EVERY: u64 = 50;

/// How long a repeat remains untold at most.
pub const NOTE_WITHIN: Duration = Duration::from_secs(30);

/// A line that was not seen for so long is news again.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// How much of a line is compared and remembered, in bytes, together with its whole length. Long lines that differ further behind are equal
/// when they are of the same length.
pub const COMPARED_BYTES: usize = 256;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Seen {
    /// It has not been seen lately: show it.
    New,
    /// It has: it is counted, and a note tells of it.
    Repeat,
}

/// How often a line came again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Repeats {
    /// The line without its timestamp, as far as it is remembered.
    pub line: String,
    /// How often since the last note about it, or since it was shown.
    pub repeats: u64,
    /// How often since it was shown.
    pub total: u64,
}

/// A line in the table.
#[derive(Clone, Debug)]
struct Entry {
    line: String,
    length: usize,
    last_seen: Time,
    untold: u64,
    /// When the first of the untold ones came.
    untold_since: Time,
    total: u64,
}

impl Entry {
    fn note(&mut self) -> Option<Repeats> {
        let repeats = core::mem::take(&mut self.untold);
        (repeats > 0).then(|| Repeats {
            line: self.line.clone(),
            repeats,
            total: self.total,
        })
    }
}

/// The lines that were seen last, and how often.
#[derive(Clone, Debug, Default)]
pub struct Duplicates {
    /// The one that was seen last is the last.
    entries: VecDeque<Entry>,
}

impl Duplicates {
    /// Takes the next line: what it is, and the note that is due with it, about this line or about one that had to make room.
    pub fn see(&mut self, now: Time, line: &str) -> (Seen, Option<Repeats>) {
        let line = without_timestamp(line);
        let compared = beginning(line);
        let known = self
            .entries
            .iter()
            .rposition(|entry| entry.length == line.len() && entry.line == compared);
        let mut note = None;
        if let Some(mut entry) = known.and_then(|index| self.entries.remove(index)) {
            if now.since(entry.last_seen) < FORGOTTEN_AFTER {
                entry.last_seen = now;
                entry.total += 1;
                if entry.untold == 0 {
                    entry.untold_since = now;
                }
                entry.untold += 1;
                let due =
                    entry.untold >= NOTE_EVERY || now.since(entry.untold_since) >= NOTE_WITHIN;
                let note = if due { entry.note() } else { None };
                self.entries.push_back(entry);
                return (Seen::Repeat, note);
            }
            note = entry.note();
        }
        if self.entries.len() == REMEMBERED_LINES {
            note = self.entries.pop_front().and_then(|mut entry| entry.note());
        }
        self.entries.push_back(Entry {
            line: compared.into(),
            length: line.len(),
            last_seen: now,
            untold: 0,
            untold_since: now,
            total: 0,
        });
        (Seen::New, note)
    }

    /// When the next note is due; `None` when every repeat is told.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let untold = self.entries.iter().filter(|entry| entry.untold > 0);
        untold.map(|entry| entry.untold_since + NOTE_WITHIN).min()
    }

    /// The notes that are due.
    pub fn handle_timeout(&mut self, now: Time) -> Vec<Repeats> {
        let due = |entry: &&mut Entry| now.since(entry.untold_since) >= NOTE_WITHIN;
        let due = self.entries.iter_mut().filter(due);
        due.filter_map(Entry::note).collect()
    }

    /// The output has ended: all notes that are left. The next line is a new one.
    pub fn finish(&mut self) -> Vec<Repeats> {
        let mut entries = core::mem::take(&mut self.entries);
        entries.iter_mut().filter_map(Entry::note).collect()
    }
}

/// The part of a line that is compared.
fn beginning(line: &str) -> &str {
    let mut end = line.len().min(COMPARED_BYTES);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

/// How much of a line can be a timestamp, in bytes.
const TIMESTAMP_BYTES: usize = 48;

/// A line without the timestamp at its beginning: a date, a time or both as ISO 8601 writes them, perhaps in brackets.
///
/// ```
/// use gateway_policy::duplicates::without_timestamp;
/// assert_eq!(without_timestamp("2026-11-25T07:13:22.294+00:00 [gateway] ready"), "[gateway] ready");
/// assert_eq!(without_timestamp("[07:13:22] ready"), "ready");
/// assert_eq!(without_timestamp("18789 is taken"), "18789 is taken");
/// ```
#[must_use]
pub fn without_timestamp(line: &str) -> &str {
    let line = line.trim_start();
    let (inner, bracket) = match line.strip_prefix('[') {
        Some(inner) => (inner, true),
        None => (line, false),
    };
    let window = &inner.as_bytes()[..inner.len().min(TIMESTAMP_BYTES)];
    let is_part = |byte: &u8| byte.is_ascii_digit() || b"-:.,+TZ/".contains(byte);
    let mut end = window.iter().take_while(|byte| is_part(byte)).count();
    // A date and a time may be apart.
    if let Some(rest) = window.get(end + 1..)
        && window[end] == b' '
        && is_time(rest.get(..5).unwrap_or_default())
    {
        end += 1 + rest.iter().take_while(|byte| is_part(byte)).count();
    }
    let stamp = &window[..end];
    let looks_like_one =
        is_time(&stamp[..stamp.len().min(5)]) || stamp.len() >= 10 && is_date(&stamp[..10]);
    let rest = &inner[end..];
    let rest = match (looks_like_one, bracket) {
        (false, _) => return line,
        (true, false) => rest,
        (true, true) => match rest.strip_prefix(']') {
            Some(rest) => rest,
            None => return line,
        },
    };
    // What follows directly belongs to it, so it was none.
    if rest.is_empty() || rest.starts_with([' ', '\t', ':']) || bracket {
        rest.trim_start_matches([' ', '\t', ':'])
    } else {
        line
    }
}

/// `07:13`
fn is_time(bytes: &[u8]) -> bool {
    matches!(bytes, [a, b, b':', c, d] if [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()))
}

/// `2026-11-25` or `2026/11/25`
fn is_date(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(index, byte)| match index {
        4 | 7 => matches!(byte, b'-' | b'/'),
        _ => byte.is_ascii_digit(),
    })
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::format;
    use alloc::string::ToString;

    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn timestamps() {
        for (line, expected) in [
            (
                "2026-11-25T07:13:22.294+00:00 [gateway] ready",
                "[gateway] ready",
            ),
            ("2026-11-25T07:13:22Z ready", "ready"),
            ("2026-11-25 07:13:22,294 ready", "ready"),
            ("2026/11/25 ready", "ready"),
            ("[2026-11-25 07:13:22] ready", "ready"),
            ("07:13:22 ready", "ready"),
            ("07:13:22: ready", "ready"),
            ("  ready ", "ready "),
            ("18789 is taken", "18789 is taken"),
            ("2026 was a year", "2026 was a year"),
            ("127.0.0.1:11434 refused", "127.0.0.1:11434 refused"),
            ("12:30pm ready", "12:30pm ready"),
            ("[ws] ready", "[ws] ready"),
            ("[07:13:22 ready", "[07:13:22 ready"),
            ("-- ready", "-- ready"),
            ("", ""),
            ("07:13", ""),
        ] {
            assert_eq!(without_timestamp(line), expected, "{line:?}");
        }
    }

    #[test]
    fn the_first_is_shown_and_the_others_are_told_in_fifties() {
        let mut duplicates = Duplicates::default();
        let mut notes = Vec::new();
        for n in 0..=120 {
            let (seen, note) = duplicates.see(Time::ZERO, &format!("10:00:{:02} again", n % 60));
            assert_eq!(seen == Seen::New, n == 0);
            notes.extend(note.map(|note| (n, note.repeats, note.total)));
        }
        assert_eq!(notes, [(50, 50, 50), (100, 50, 100)]);
        let left = duplicates.finish();
        assert_eq!((left.len(), left[0].repeats, left[0].total), (1, 20, 120));
        assert_eq!(duplicates.see(Time::ZERO, "again").0, Seen::New);
    }

    #[test]
    fn a_repeat_is_told_in_time_and_forgotten_one_day() {
        let mut duplicates = Duplicates::default();
        duplicates.see(at(0), "x");
        assert_eq!(duplicates.poll_timeout(), None);
        duplicates.see(at(5), "x");
        duplicates.see(at(20), "x");
        assert_eq!(duplicates.poll_timeout(), Some(at(35)));
        assert_eq!(duplicates.handle_timeout(at(34)), []);
        assert_eq!(duplicates.handle_timeout(at(35))[0].repeats, 2);
        assert_eq!(
            (
                duplicates.poll_timeout(),
                duplicates.handle_timeout(at(99)).len()
            ),
            (None, 0)
        );
        assert_eq!(duplicates.see(at(619), "x").0, Seen::Repeat);
        assert_eq!(duplicates.see(at(1219), "x").0, Seen::New);
    }

    proptest! {
        /// Every line is shown or told of, once, and the table never grows beyond its size.
        #[test]
        fn nothing_is_lost(lines in proptest::collection::vec((0_u32..200, 0_u64..20), 0..600)) {
            let mut duplicates = Duplicates::default();
            let (mut now, mut shown, mut told) = (0, BTreeMap::new(), BTreeMap::new());
            let mut came = BTreeMap::new();
            let mut tell = |note: Repeats| *told.entry(note.line).or_insert(0) += note.repeats;
            for (line, pause) in lines {
                // Some come often, most seldom.
                let line = (line % (1 + line / 3)).to_string();
                now += pause;
                duplicates.handle_timeout(at(now)).into_iter().for_each(&mut tell);
                prop_assert!(duplicates.poll_timeout().is_none_or(|due| due > at(now)));
                let (seen, note) = duplicates.see(at(now), &line);
                note.into_iter().for_each(&mut tell);
                *came.entry(line.clone()).or_insert(0) += 1;
                if seen == Seen::New {
                    *shown.entry(line).or_insert(0) += 1;
                }
                prop_assert!(duplicates.entries.len() <= REMEMBERED_LINES);
            }
            duplicates.finish().into_iter().for_each(&mut tell);
            for (line, times) in came {
                let known = shown.get(&line).copied().unwrap_or(0) + told.get(&line).copied().unwrap_or(0);
                prop_assert_eq!(known, times, "{}", line);
            }
        }

        /// Whatever a line is, looking for a timestamp takes nothing from its end and does not fail.
        #[test]
        fn a_timestamp_is_a_beginning(line in "[0-9TZ:. \\[\\]-]{0,30}.{0,20}") {
            prop_assert!(line.ends_with(without_timestamp(&line)));
        }
    }
}
