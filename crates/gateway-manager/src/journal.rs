//! The journal of the one machine, shared between the loop that writes it and the handles that read it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_policy::{Effect, Journal, JournalEntry, Lifecycle, Time, Trigger};

/// How many entries are kept at most.
pub const JOURNAL_ENTRIES: usize = 512;

/// How much memory they may take, in bytes. Entries that tell of failures with long causes take more, and so fewer of them are kept.
pub const JOURNAL_BYTES: usize = 80 * 1024;

/// A journal with one writer and any number of readers.
#[derive(Debug)]
pub(crate) struct SharedJournal(Mutex<Journal>);

impl SharedJournal {
    pub(crate) fn new(machine: &Lifecycle) -> Self {
        Self(Mutex::new(
            Journal::new(machine, JOURNAL_ENTRIES).within(JOURNAL_BYTES),
        ))
    }

    /// Moves the machine and writes down what came of it. Gives the entry as well when it decided something.
    pub(crate) fn advance(
        &self,
        machine: &mut Lifecycle,
        at: Time,
        trigger: Trigger,
    ) -> (Vec<Effect>, Option<Arc<JournalEntry>>) {
        let mut journal = self.lock();
        let effects = journal.advance(machine, at, trigger);
        let newest = journal.entries().next_back();
        let decision = newest.filter(|entry| !entry.is_routine());
        (effects, decision.cloned().map(Arc::new))
    }

    pub(crate) fn snapshot(&self) -> Journal {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Journal> {
        // A panic elsewhere cannot leave a queue of values half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
