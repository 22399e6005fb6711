//! Requests to restart: numbered, merged, never lost.
//!
//! Every request takes the next number. A launch covers all numbers up to the newest one at the moment when its launch
//! context is built, for only what was there then can have reached the new process. As long as a number is left uncovered,
//! one more launch is due. No clock is compared, so no request can fall between two moments.

use alloc::vec::Vec;
use core::time::Duration;

use crate::Time;
use crate::status::Ticket;

/// The default delay of a debounced restart: 2 s, in which a burst of saved settings becomes one restart.
pub const DEFAULT_DEBOUNCE: Duration = Duration::from_secs(2);

/// The number of a restart request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RestartNumber(u64);

impl core::fmt::Display for RestartNumber {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Debounce {
    due: Time,
    tickets: Vec<Ticket>,
}

/// All restart requests that wait for their launch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RestartQueue {
    newest: RestartNumber,
    covered: RestartNumber,
    waiting: Vec<(RestartNumber, Ticket)>,
    debounce: Option<Debounce>,
}

impl RestartQueue {
    /// A request that wants to be served as soon as possible; gives its number.
    pub fn request(&mut self, ticket: Ticket) -> RestartNumber {
        self.newest.0 = self.newest.0.saturating_add(1);
        self.waiting.push((self.newest, ticket));
        self.newest
    }

    /// The newest request.
    #[must_use]
    pub fn newest(&self) -> RestartNumber {
        self.newest
    }

    /// The newest request that a launch covers.
    #[must_use]
    pub fn covered(&self) -> RestartNumber {
        self.covered
    }

    /// A request that may wait for others: each call replaces the timer and its delay (trailing edge).
    pub fn request_debounced(&mut self, now: Time, delay: Duration, ticket: Ticket) {
        let mut tickets = self
            .debounce
            .take()
            .map_or_else(Vec::new, |debounce| debounce.tickets);
        tickets.push(ticket);
        self.debounce = Some(Debounce {
            due: now + delay,
            tickets,
        });
    }

    /// When the debounced requests become due.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.debounce.as_ref().map(|debounce| debounce.due)
    }

    /// Turns debounced requests that are due into one numbered request; gives its number when there were any.
    pub fn mature(&mut self, now: Time) -> Option<RestartNumber> {
        let debounce = self.debounce.take_if(|debounce| debounce.due <= now)?;
        self.newest.0 = self.newest.0.saturating_add(1);
        let number = self.newest;
        self.waiting
            .extend(debounce.tickets.into_iter().map(|ticket| (number, ticket)));
        Some(number)
    }

    /// Whether a launch is due for requests that none has covered.
    #[must_use]
    pub fn is_uncovered(&self) -> bool {
        self.newest > self.covered
    }

    /// Whether somebody waits for a fresh process, be the request covered or not.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// A launch context is built now: it covers everything requested so far.
    pub fn cover(&mut self) {
        self.covered = self.newest;
    }

    /// The tickets whose requests the newest launch covers; they are answered by its outcome.
    pub fn take_covered(&mut self) -> Vec<Ticket> {
        let covered = self.covered;
        let taken = self
            .waiting
            .extract_if(.., |(number, _)| *number <= covered);
        taken.map(|(_, ticket)| ticket).collect()
    }

    /// Forgets every request, debounced ones included, and hands back their tickets: the user wants no gateway any more.
    pub fn clear(&mut self) -> Vec<Ticket> {
        self.covered = self.newest;
        let debounced = self
            .debounce
            .take()
            .map_or_else(Vec::new, |debounce| debounce.tickets);
        let waiting = core::mem::take(&mut self.waiting);
        waiting
            .into_iter()
            .map(|(_, ticket)| ticket)
            .chain(debounced)
            .collect()
    }

    /// All tickets that wait, in their order.
    pub(crate) fn tickets_mut(&mut self) -> impl Iterator<Item = &mut Ticket> {
        let waiting = self.waiting.iter_mut().map(|(_, ticket)| ticket);
        let debounced = self
            .debounce
            .iter_mut()
            .flat_map(|debounce| &mut debounce.tickets);
        waiting.chain(debounced)
    }

    /// The same queue, with numbers counted from what is covered and times on a clock on which `now` is called `origin`.
    pub(crate) fn normalize(&mut self, now: Time, origin: Time) {
        let covered = self.covered.0;
        let shift = |number: &mut RestartNumber| number.0 = number.0.saturating_sub(covered);
        for (number, _) in &mut self.waiting {
            shift(number);
        }
        shift(&mut self.newest);
        shift(&mut self.covered);
        if let Some(debounce) = &mut self.debounce {
            debounce.due = debounce.due.rebase(now, origin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ticket(number: u64) -> Ticket {
        Ticket::from_number(number)
    }

    #[test]
    fn a_request_during_a_launch_is_not_covered_by_it() {
        let mut queue = RestartQueue::default();
        queue.request(ticket(1));
        queue.cover();
        queue.request(ticket(2));
        assert_eq!(queue.take_covered(), [ticket(1)]);
        assert!(queue.is_uncovered());
        queue.cover();
        assert_eq!(queue.take_covered(), [ticket(2)]);
        assert!(!queue.is_uncovered());
    }

    #[test]
    fn requests_are_numbered() {
        let mut queue = RestartQueue::default();
        let first = queue.request(ticket(1));
        queue.request_debounced(Time::ZERO, Duration::ZERO, ticket(2));
        let second = queue.mature(Time::ZERO);
        assert_eq!(
            (Some(queue.newest()), queue.covered()),
            (second, RestartNumber(0))
        );
        queue.cover();
        assert_eq!(queue.covered(), queue.newest());
        let told = alloc::format!("{first} {}", queue.newest());
        assert_eq!(told, "1 2");
    }

    #[test]
    fn the_debounce_has_a_trailing_edge() {
        let mut queue = RestartQueue::default();
        let at = Time::from_millis;
        queue.request_debounced(at(0), Duration::from_millis(2_000), ticket(1));
        queue.request_debounced(at(1_500), Duration::from_millis(8_000), ticket(2));
        assert!(
            queue.mature(at(2_000)).is_none(),
            "the second call replaced the timer and its delay"
        );
        assert!(!queue.is_uncovered());
        assert_eq!(queue.due(), Some(at(9_500)));
        assert!(queue.mature(at(9_500)).is_some());
        assert!(queue.is_uncovered());
        queue.cover();
        assert_eq!(queue.take_covered(), [ticket(1), ticket(2)]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Request,
        Debounced(u64),
        Mature(u64),
        Launch,
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Request),
            (0_u64..5_000).prop_map(Step::Debounced),
            (0_u64..5_000).prop_map(Step::Mature),
            Just(Step::Launch),
            Just(Step::Clear),
        ]
    }

    proptest! {
        /// Every ticket is handed back exactly once, and never before a launch that began after its request.
        #[test]
        fn every_ticket_is_answered_once(steps in prop::collection::vec(step(), 0..60)) {
            let mut queue = RestartQueue::default();
            let (mut now, mut issued, mut answered) = (Time::ZERO, 0, Vec::new());
            for step in steps {
                match step {
                    Step::Request => { issued += 1; queue.request(ticket(issued)); prop_assert!(queue.is_uncovered()); }
                    Step::Debounced(delay) => { issued += 1; queue.request_debounced(now, Duration::from_millis(delay), ticket(issued)); }
                    Step::Mature(later) => { now = now + Duration::from_millis(later); queue.mature(now); }
                    Step::Launch => { queue.cover(); prop_assert!(!queue.is_uncovered()); answered.extend(queue.take_covered()); }
                    Step::Clear => { answered.extend(queue.clear()); prop_assert_eq!(queue.due(), None); }
                }
                prop_assert!(queue.take_covered().is_empty() || queue.is_uncovered() || !answered.is_empty());
            }
            answered.extend(queue.clear());
            answered.sort();
            prop_assert_eq!(answered, (1..=issued).map(ticket).collect::<Vec<_>>());
        }
    }
}
