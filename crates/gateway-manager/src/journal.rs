//! The newest inputs and effects of the lifecycle machine, with their times: the answer to "why did it do that?".
//!
//! The machine is deterministic, so feeding the inputs of a complete journal to a fresh machine reproduces its effects.

use std::collections::VecDeque;
use std::sync::Mutex;

use gateway_policy::{Effect, Input, Time};

/// How many entries are kept.
pub const JOURNAL_ENTRIES: usize = 512;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// When, since the manager was built.
    pub at: Time,
    /// What.
    pub occurrence: Occurrence,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occurrence {
    /// The machine was told something.
    Input(Input),
    /// A deadline of the machine passed.
    Timeout,
    /// The machine asked for something.
    Effect(Effect),
}

/// A bounded journal; the oldest entries make room.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: Mutex<VecDeque<JournalEntry>>,
}

impl Journal {
    pub(crate) fn record(&self, at: Time, occurrence: Occurrence) {
        let mut entries = self.lock();
        if entries.len() == JOURNAL_ENTRIES {
            entries.pop_front();
        }
        entries.push_back(JournalEntry { at, occurrence });
    }

    pub(crate) fn entries(&self) -> Vec<JournalEntry> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<JournalEntry>> {
        // A panic elsewhere cannot leave a queue of values half written.
        self.entries
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
