//! The record of what recovery did by itself.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::Time;
use crate::failure::FailureClass;

/// How many automatic attempts a ledger remembers for the story it tells when recovery gives up.
pub const LEDGER_HISTORY: usize = 32;

/// One automatic attempt and why it was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LedgerEntry {
    /// When the attempt was decided on.
    pub at: Time,
    /// What had failed before.
    pub cause: FailureClass,
}

/// Counts the automatic attempts of one recovery episode and keeps the newest of them.
///
/// An episode begins with the first failure and ends when a session proves stable or a user takes over. Nothing else resets
/// the count: a launch, a connection that lasted a second, or an ignored command do not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RestartLedger {
    attempts: u32,
    began: Option<Time>,
    history: VecDeque<LedgerEntry>,
}

impl RestartLedger {
    /// How many automatic attempts this episode has seen.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How long the episode has lasted; zero when none is open.
    #[must_use]
    pub fn lasted(&self, now: Time) -> Duration {
        self.began.map_or(Duration::ZERO, |began| now.since(began))
    }

    /// The newest attempts, oldest first, at most [`LEDGER_HISTORY`].
    pub fn history(&self) -> impl Iterator<Item = &LedgerEntry> {
        self.history.iter()
    }

    /// Books one automatic attempt.
    pub fn charge(&mut self, at: Time, cause: FailureClass) {
        self.attempts = self.attempts.saturating_add(1);
        self.began.get_or_insert(at);
        if self.history.len() == LEDGER_HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(LedgerEntry { at, cause });
    }

    /// Ends the episode.
    pub fn close(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_everything_and_remembers_a_bounded_part(times in prop::collection::vec(0_u64..1_000_000, 0..100)) {
            let mut ledger = RestartLedger::default();
            for at in &times {
                ledger.charge(Time::from_millis(*at), FailureClass::Temporary);
            }
            prop_assert_eq!(ledger.attempts() as usize, times.len());
            prop_assert_eq!(ledger.history().count(), times.len().min(LEDGER_HISTORY));
            if let (Some(first), Some(last)) = (times.first(), times.last()) {
                prop_assert_eq!(ledger.history().last().map(|entry| entry.at), Some(Time::from_millis(*last)));
                let now = Time::from_millis(2_000_000);
                prop_assert_eq!(ledger.lasted(now), now.since(Time::from_millis(*first)));
            }
            ledger.close();
            prop_assert_eq!(ledger, RestartLedger::default());
        }
    }
}
