//! The answer to "why did it do that?": what went into a machine, which rules fired, what came out, and a proof that this is the
//! whole story.
//!
//! A machine is deterministic, so what went in explains what came out. The journal is bounded all the same: instead of
//! forgetting its oldest entries it lets a second machine live through them, and replays the rest from there
//! ([`Journal::replay`]).
//!
//! ```
//! use gateway_policy::status::Ticket;
//! use gateway_policy::{Input, Journal, Lifecycle, LifecycleConfig, Time, Trigger};
//!
//! let mut machine = Lifecycle::new(LifecycleConfig::default());
//! let mut journal = Journal::new(&machine, 512);
//! let start = Trigger::Input(Input::Start(Ticket::from_number(1)));
//! let effects = journal.advance(&mut machine, Time::ZERO, start);
//! assert!(!effects.is_empty());
//! assert!(journal.replay().is_ok());
//! ```

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use crate::Time;
use crate::lifecycle::{Effect, Input, Lifecycle, Observation, Rule};
use crate::status::TicketOutcome;

/// What makes a machine move.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// It was told something.
    Input(Input),
    /// One of its deadlines passed.
    Timeout,
}

/// One move of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JournalEntry {
    /// When.
    pub at: Time,
    /// What made it move.
    pub trigger: Trigger,
    /// Which rules fired, in order, each with the facts that it looked at.
    pub rules: Vec<Rule>,
    /// What it asked for, in order.
    pub effects: Vec<Effect>,
}

impl JournalEntry {
    /// Moves a machine and writes down what came of it.
    #[must_use]
    pub fn of(machine: &mut Lifecycle, at: Time, trigger: Trigger) -> Self {
        match trigger.clone() {
            Trigger::Input(input) => machine.handle(at, input),
            Trigger::Timeout => machine.handle_timeout(at),
        }
        Self {
            at,
            trigger,
            rules: exact(core::iter::from_fn(|| machine.poll_rule()).collect()),
            effects: exact(core::iter::from_fn(|| machine.poll_effect()).collect()),
        }
    }

    /// How much memory it takes, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>()
            + size_of_val(self.rules.as_slice())
            + size_of_val(self.effects.as_slice())
            + text_of_trigger(&self.trigger)
            + self.effects.iter().map(text_of_effect).sum::<usize>()
    }

    /// Whether it decided something that a short story should tell.
    #[must_use]
    pub fn is_routine(&self) -> bool {
        self.rules.iter().all(Rule::is_routine)
    }
}

/// The time and the rules, on one line.
impl core::fmt::Display for JournalEntry {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "{}: ", self.at)?;
        for (index, rule) in self.rules.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(formatter, "{comma}{rule}")?;
        }
        Ok(())
    }
}

/// The same list without room for more: it is kept for long and never grows again. Moved and not shrunk, so that no hole stays behind it.
fn exact<T>(mut list: Vec<T>) -> Vec<T> {
    let mut exact = Vec::with_capacity(list.len());
    exact.append(&mut list);
    exact
}

/// The bytes of the texts in a trigger.
fn text_of_trigger(trigger: &Trigger) -> usize {
    let Trigger::Input(Input::Observed { observation, .. }) = trigger else {
        return 0;
    };
    match observation {
        Observation::GatewayFound(holder) | Observation::ForeignFound(holder) => {
            holder.detail.len() + holder.program.as_ref().map_or(0, String::len)
        }
        Observation::Disconnected(loss) => loss.failure.message.len(),
        Observation::Connected(facts) => facts.server_version.len(),
        Observation::DiscoveryFailed(failure)
        | Observation::PreparationFailed(failure)
        | Observation::SpawnFailed(failure)
        | Observation::Exited(failure)
        | Observation::ConnectFailed(failure)
        | Observation::RepairFailed(failure)
        | Observation::TerminationFailed(failure) => failure.message.len(),
        _ => 0,
    }
}

/// The bytes of the texts and lists in an effect.
fn text_of_effect(effect: &Effect) -> usize {
    match effect {
        Effect::PublishStatus(status) => {
            let session = status.session.as_ref();
            let failure = status.failure.as_ref();
            let gave_up = status.gave_up.as_ref();
            failure.map_or(0, |failure| failure.message.len())
                + gave_up.map_or(0, |story| size_of_val(story.history.as_slice()))
                + session.map_or(0, |session| session.server_version.len())
        }
        Effect::Answer {
            outcome: TicketOutcome::Failed(failure),
            ..
        } => failure.message.len(),
        _ => 0,
    }
}

/// A machine that was given the recorded triggers did something else than was recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the machine does not do again what the journal says: recorded {recorded:?}, replayed {replayed:?}"
)]
pub struct Divergence {
    /// What the journal says.
    pub recorded: Box<JournalEntry>,
    /// What the machine did.
    pub replayed: Box<JournalEntry>,
}

/// The newest moves of a machine, and the machine as it was before them.
#[derive(Clone, Debug)]
pub struct Journal {
    /// As it was before the oldest entry.
    base: Lifecycle,
    /// Each by itself, because a queue has room for up to twice as many as are in it.
    entries: VecDeque<Box<JournalEntry>>,
    capacity: usize,
    /// What the entries take, and may take, in bytes.
    size: usize,
    most_size: usize,
}

impl Journal {
    /// An empty journal of this machine that keeps so many entries, at least one.
    #[must_use]
    pub fn new(machine: &Lifecycle, capacity: usize) -> Self {
        Self {
            base: machine.clone(),
            entries: VecDeque::new(),
            capacity: capacity.max(1),
            size: 0,
            most_size: usize::MAX,
        }
    }

    /// Keeps no more entries than take so many bytes, but at least one. Without it their number alone counts.
    #[must_use]
    pub fn within(mut self, bytes: usize) -> Self {
        self.most_size = bytes;
        self
    }

    /// Moves the machine that this is the journal of, and gives the effects to perform.
    pub fn advance(&mut self, machine: &mut Lifecycle, at: Time, trigger: Trigger) -> Vec<Effect> {
        let entry = JournalEntry::of(machine, at, trigger);
        let effects = entry.effects.clone();
        self.size += entry.size();
        self.entries.push_back(Box::new(entry));
        while self.entries.len() > self.capacity
            || self.size > self.most_size && self.entries.len() > 1
        {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.size -= oldest.size();
            // Deterministic, so what it does is known already.
            let JournalEntry { at, trigger, .. } = *oldest;
            let _ = JournalEntry::of(&mut self.base, at, trigger);
        }
        effects
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &JournalEntry> {
        self.entries.iter().map(Box::as_ref)
    }

    /// Lives through the recorded triggers once more and compares. Gives the machine as it is at the end.
    ///
    /// # Errors
    /// The first entry in which the machine does something else than is recorded; it would be a defect of this crate.
    pub fn replay(&self) -> Result<Lifecycle, Divergence> {
        let mut machine = self.base.clone();
        for recorded in &self.entries {
            let replayed = JournalEntry::of(&mut machine, recorded.at, recorded.trigger.clone());
            if replayed != **recorded {
                return Err(Divergence {
                    recorded: recorded.clone(),
                    replayed: Box::new(replayed),
                });
            }
        }
        Ok(machine)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::failure::{Failure, FailureClass};
    use crate::lifecycle::LifecycleConfig;
    use crate::status::Ticket;

    fn command(number: u64) -> Trigger {
        let ticket = Ticket::from_number(number);
        Trigger::Input(if number.is_multiple_of(2) {
            Input::Stop(ticket)
        } else {
            Input::Start(ticket)
        })
    }

    #[test]
    fn a_bounded_journal_replays_what_it_still_holds() {
        let mut machine = Lifecycle::new(LifecycleConfig::default());
        let mut journal = Journal::new(&machine, 3);
        for number in 1..=10 {
            let effects = journal.advance(&mut machine, Time::from_millis(number), command(number));
            assert!(!effects.is_empty());
            assert_eq!(journal.replay().as_ref(), Ok(&machine), "after {number}");
        }
        assert_eq!(journal.entries().count(), 3);
        let newest = journal.entries().next_back().map(ToString::to_string);
        assert_eq!(newest.as_deref(), Some("0.010 s: stop-wanted, taken-down"));
    }

    /// Long stories make few entries, short ones as many as there may be; either way it replays.
    #[test]
    fn a_journal_is_bounded_by_its_memory_as_well() {
        for (length, fewer) in [(0, false), (8_000, true)] {
            let mut machine = Lifecycle::new(LifecycleConfig::default());
            let mut journal = Journal::new(&machine, 32).within(64_000);
            let mut seen = 0;
            for number in 0..200 {
                let at = Time::from_millis(number);
                let newest = journal.entries().next_back();
                let asked = newest.into_iter().flat_map(|entry| &entry.effects);
                let mut asked = asked.filter_map(|effect| match effect {
                    Effect::Discover { epoch } => Some(*epoch),
                    _ => None,
                });
                let trigger = Trigger::Input(match asked.next_back() {
                    Some(epoch) => Input::Observed {
                        epoch,
                        observation: Observation::DiscoveryFailed(Failure::new(
                            FailureClass::InvalidSettings,
                            "x".repeat(length),
                        )),
                    },
                    None => Input::Start(Ticket::from_number(number + 1)),
                });
                journal.advance(&mut machine, at, trigger);
                let sizes: usize = journal.entries().map(JournalEntry::size).sum();
                assert_eq!(journal.size, sizes);
                assert!(sizes <= 64_000, "{sizes}");
                seen = journal.entries().count();
            }
            assert_eq!(journal.replay().as_ref(), Ok(&machine));
            assert_eq!((seen < 16, seen == 32), (fewer, !fewer), "{seen} entries");
        }
    }

    #[test]
    fn a_journal_that_was_tampered_with_is_found_out() {
        let mut machine = Lifecycle::new(LifecycleConfig::default());
        let mut journal = Journal::new(&machine, 0);
        journal.advance(&mut machine, Time::ZERO, command(1));
        assert_eq!(journal.entries().count(), 1, "at least one entry is kept");
        journal.entries[0].effects.clear();
        let divergence = journal.replay().expect_err("it was changed");
        assert_eq!(divergence.recorded, journal.entries[0]);
        assert_ne!(divergence.replayed, divergence.recorded);
    }

    #[test]
    fn what_only_goes_on_is_routine() {
        let mut machine = Lifecycle::new(LifecycleConfig::default());
        let start = JournalEntry::of(&mut machine, Time::ZERO, command(1));
        assert!(!start.is_routine());
        let early = JournalEntry::of(&mut machine, Time::ZERO, Trigger::Timeout);
        assert!(early.is_routine() && early.effects.is_empty(), "{early}");
    }
}
