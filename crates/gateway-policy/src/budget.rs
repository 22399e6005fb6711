//! The one account from which every automatic restart is paid.
//!
//! Two limits, for two kinds of loop. Back-off counts the attempts of one *episode*, which ends when a session proves stable
//! ([`crate::backoff`]). The budget counts *launches* in a sliding window, whatever happened in between, so that a gateway
//! that always lives just long enough to be called stable is not launched for ever at full speed. When the window is full, a few
//! tries follow that lie far apart; then recovery gives up and says why. What a user or a changed setting asks for is never
//! charged: it empties the account instead.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::Time;
use crate::failure::{Failure, FailureClass};

/// How many automatic attempts a ledger remembers for the story it tells when recovery gives up.
pub const LEDGER_HISTORY: usize = 32;

/// How many automatic launches there may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RestartBudget {
    /// How many automatic launches may fall into one [`window`](Self::window). Default 5.
    pub burst: u32,
    /// The length of the sliding window. Default 300 s.
    pub window: Duration,
    /// How long to wait before each of the tries that follow once the window was full. None of them is shorter than the
    /// window, whatever is set here. Default 5, 15 and 45 min.
    pub spaced: Vec<Duration>,
}

impl Default for RestartBudget {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            burst: 5,
            window: minutes(5),
            spaced: [5, 15, 45].map(minutes).to_vec(),
        }
    }
}

impl RestartBudget {
    /// Whether a launch lies in the window that ends now.
    fn counts(&self, launched: Time, now: Time) -> bool {
        launched + self.window > now
    }
}

/// When the budget allows the next automatic launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Allowance {
    /// Now, as far as the budget is concerned.
    Now,
    /// The window was full; this is one of the tries that lie far apart.
    Spaced {
        /// The number of this try, counted from 1.
        number: u32,
        /// Not before this time.
        not_before: Time,
    },
    /// Never, until a user takes over.
    Exhausted,
}

impl core::fmt::Display for Allowance {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Now => formatter.write_str("within the budget"),
            Self::Spaced { number, not_before } => {
                write!(formatter, "spaced try {number}, not before {not_before}")
            }
            Self::Exhausted => formatter.write_str("the budget is used up"),
        }
    }
}

/// One automatic attempt and why it was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LedgerEntry {
    /// When the attempt was decided on.
    pub decided: Time,
    /// What had failed before.
    pub cause: FailureClass,
    /// When it got as far as launching a process, if it did.
    pub launched: Option<Time>,
}

/// Which limit ended recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// All attempts of the episode were used up.
    Attempts,
    /// The launches of the window and the spaced tries after it were used up.
    Budget,
}

/// Recovery has given up. It begins again, with a full account, when a user starts or restarts the gateway or when a changed
/// setting asks for a restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct GaveUp {
    /// Which limit was reached.
    pub limit: Limit,
    /// How many automatic attempts the episode has seen.
    pub attempts: u32,
    /// How long it took.
    pub lasted: Duration,
    /// The newest attempts and their causes, oldest first, at most [`LEDGER_HISTORY`].
    pub history: Vec<LedgerEntry>,
}

impl GaveUp {
    /// The last cause, told as a failure of its class that names the limit and the way out.
    #[must_use]
    pub(crate) fn tell(&self, cause: Failure) -> Failure {
        let limit = match self.limit {
            Limit::Attempts => "that is the limit of one episode",
            Limit::Budget => "the restart budget is used up",
        };
        let message = alloc::format!(
            "Gave up after {} attempts in {} s ({limit}). Last cause: {cause} Start or restart the gateway to try again once the cause is gone.",
            self.attempts,
            self.lasted.as_secs(),
        );
        Failure { message, ..cause }
    }
}

/// Counts what recovery does by itself.
///
/// An episode begins with the first failure and ends when a session proves stable ([`forgive`](Self::forgive)) or a user takes
/// over ([`clear`](Self::clear)). Nothing else resets anything: a launch, a connection that lasted a second, or an ignored
/// command do not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RestartLedger {
    attempts: u32,
    began: Option<Time>,
    /// The newest automatic launches, at most as many as one window may hold.
    launches: VecDeque<Time>,
    /// How many spaced tries were granted since the window was full.
    spaced: u32,
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

    /// How many automatic launches lie in the window that ends now.
    #[must_use]
    pub fn launches_in_window(&self, now: Time, budget: &RestartBudget) -> u32 {
        let recent = self
            .launches
            .iter()
            .filter(|at| budget.counts(**at, now))
            .count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }

    /// Books one automatic attempt.
    pub fn attempt(&mut self, now: Time, cause: FailureClass) {
        self.attempts = self.attempts.saturating_add(1);
        self.began.get_or_insert(now);
        if self.history.len() == LEDGER_HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(LedgerEntry {
            decided: now,
            cause,
            launched: None,
        });
    }

    /// When the next automatic launch may be. A spaced try that is granted is used up by asking.
    pub fn grant(&mut self, now: Time, budget: &RestartBudget) -> Allowance {
        if self.spaced == 0 && self.launches_in_window(now, budget) < budget.burst {
            return Allowance::Now;
        }
        let Some(gap) = budget.spaced.get(self.spaced as usize) else {
            return Allowance::Exhausted;
        };
        self.spaced += 1;
        Allowance::Spaced {
            number: self.spaced,
            not_before: now + (*gap).max(budget.window),
        }
    }

    /// Charges an automatic launch that begins now.
    pub fn charge(&mut self, now: Time, budget: &RestartBudget) {
        self.launches.push_back(now);
        while self.launches.len() > budget.burst as usize {
            self.launches.pop_front();
        }
        if let Some(entry) = self.history.back_mut() {
            entry.launched.get_or_insert(now);
        }
    }

    /// Ends the episode: a session proved stable. What was launched in the window stays charged.
    pub fn forgive(&mut self) {
        *self = Self {
            launches: core::mem::take(&mut self.launches),
            ..Self::default()
        };
    }

    /// Empties the account: a user took over.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The story of an episode that ends now because this limit was reached.
    #[must_use]
    pub fn give_up(&self, now: Time, limit: Limit) -> GaveUp {
        GaveUp {
            limit,
            attempts: self.attempts,
            lasted: self.lasted(now),
            history: self.history.iter().copied().collect(),
        }
    }

    /// The same account with the same consequences, for comparing: see [`crate::lifecycle::Lifecycle::normal_form`].
    pub(crate) fn normalize(&mut self, budget: &RestartBudget, now: Time, origin: Time) {
        self.launches.retain(|at| budget.counts(*at, now));
        for at in &mut self.launches {
            *at = at.rebase(now, origin);
        }
        // What is only told, never compared.
        self.history.clear();
        self.began = self.began.map(|_| origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    /// Launches whenever the budget allows, failing at once each time; gives the times of the launches.
    fn crash_for_ever(
        ledger: &mut RestartLedger,
        budget: &RestartBudget,
        mut now: Time,
    ) -> Vec<Time> {
        let mut launches = Vec::new();
        for _ in 0..100 {
            match ledger.grant(now, budget) {
                Allowance::Now => {}
                Allowance::Spaced { not_before, .. } => now = not_before,
                Allowance::Exhausted => break,
            }
            ledger.attempt(now, FailureClass::Temporary);
            ledger.charge(now, budget);
            launches.push(now);
            now = now + Duration::from_secs(1);
        }
        launches
    }

    #[test]
    fn allowances_are_told() {
        let table = [
            (Allowance::Now, "within the budget"),
            (
                Allowance::Spaced {
                    number: 2,
                    not_before: at(7),
                },
                "spaced try 2, not before 7.000 s",
            ),
            (Allowance::Exhausted, "the budget is used up"),
        ];
        for (allowance, text) in table {
            assert_eq!(alloc::format!("{allowance}"), text);
        }
    }

    #[test]
    fn five_in_a_window_then_three_far_apart_then_never() {
        let budget = RestartBudget::default();
        let mut ledger = RestartLedger::default();
        let launches = crash_for_ever(&mut ledger, &budget, Time::ZERO);
        let expected = [0, 1, 2, 3, 4, 305, 305 + 901, 305 + 901 + 2_701];
        assert_eq!(launches, expected.map(at));
        assert_eq!(
            ledger.grant(at(1_000_000), &budget),
            Allowance::Exhausted,
            "time alone does not clear it"
        );
        assert_eq!(ledger.attempts(), 8);

        let gave_up = ledger.give_up(at(4_000), Limit::Budget);
        assert_eq!(
            (gave_up.attempts, gave_up.lasted, gave_up.history.len()),
            (8, Duration::from_secs(4_000), 8)
        );
        assert_eq!(gave_up.history[5].launched, Some(at(305)));
        let told = gave_up.tell(Failure::new(FailureClass::Temporary, "It crashed."));
        for part in [
            "8 attempts in 4000 s",
            "budget",
            "It crashed.",
            "restart the gateway",
        ] {
            assert!(told.message.contains(part), "{told}");
        }
        assert_eq!(told.class, FailureClass::Temporary);
        let by_attempts = ledger.give_up(at(4_000), Limit::Attempts);
        assert!(
            by_attempts
                .tell(Failure::new(FailureClass::Unknown, "?"))
                .message
                .contains("limit of one episode")
        );

        ledger.clear();
        assert_eq!(ledger, RestartLedger::default());
    }

    #[test]
    fn a_stable_session_ends_the_episode_and_not_the_window() {
        let budget = RestartBudget::default();
        let mut ledger = RestartLedger::default();
        for second in 0..5 {
            ledger.attempt(at(second), FailureClass::Temporary);
            ledger.charge(at(second), &budget);
        }
        ledger.forgive();
        assert_eq!(
            (
                ledger.attempts(),
                ledger.history().count(),
                ledger.lasted(at(9))
            ),
            (0, 0, Duration::ZERO)
        );
        assert_eq!(ledger.launches_in_window(at(100), &budget), 5);
        let spaced = Allowance::Spaced {
            number: 1,
            not_before: at(400),
        };
        assert_eq!(ledger.grant(at(100), &budget), spaced);
        ledger.forgive();
        // The oldest launch leaves the window: the moment at its end no longer counts.
        assert_eq!(ledger.launches_in_window(at(299), &budget), 5);
        assert_eq!(ledger.launches_in_window(at(300), &budget), 4);
        assert_eq!(ledger.grant(at(300), &budget), Allowance::Now);
    }

    #[test]
    fn spaced_tries_are_never_closer_than_the_window() {
        let budget = RestartBudget {
            burst: 0,
            spaced: [Duration::ZERO].to_vec(),
            ..RestartBudget::default()
        };
        let mut ledger = RestartLedger::default();
        let spaced = Allowance::Spaced {
            number: 1,
            not_before: at(300),
        };
        assert_eq!(ledger.grant(Time::ZERO, &budget), spaced);
        ledger.charge(at(300), &budget);
        assert_eq!(
            ledger.launches_in_window(at(300), &budget),
            0,
            "nothing is kept beyond the burst"
        );
        assert_eq!(ledger.grant(at(300), &budget), Allowance::Exhausted);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Launch,
        Forgive,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u64..200_000).prop_map(Step::Pass),
            4 => Just(Step::Launch),
            1 => Just(Step::Forgive),
        ]
    }

    proptest! {
        /// Whatever happens and however often it is forgiven: no window ever holds more launches than it may.
        #[test]
        fn no_window_holds_more_than_the_burst(
            steps in prop::collection::vec(step(), 0..200), burst in 0_u32..7, window in 1_u64..400, gaps in prop::collection::vec(0_u64..900, 0..4),
        ) {
            let budget = RestartBudget {
                burst, window: Duration::from_secs(window), spaced: gaps.into_iter().map(Duration::from_secs).collect(),
            };
            let (mut ledger, mut now, mut launches) = (RestartLedger::default(), Time::ZERO, Vec::new());
            for step in steps {
                match step {
                    Step::Pass(millis) => now = now + Duration::from_millis(millis),
                    Step::Forgive => ledger.forgive(),
                    Step::Launch => {
                        match ledger.grant(now, &budget) {
                            Allowance::Now => {}
                            Allowance::Spaced { not_before, .. } => {
                                prop_assert!(not_before >= now + budget.window);
                                now = not_before;
                            }
                            Allowance::Exhausted => continue,
                        }
                        ledger.charge(now, &budget);
                        launches.push(now);
                        let in_window = launches.iter().filter(|at| **at + budget.window > now).count();
                        prop_assert!(in_window <= burst.max(1) as usize, "{in_window}");
                    }
                }
            }
        }

        #[test]
        fn counts_everything_and_remembers_a_bounded_part(times in prop::collection::vec(0_u64..1_000_000, 0..100)) {
            let budget = RestartBudget::default();
            let mut ledger = RestartLedger::default();
            for at in &times {
                ledger.attempt(Time::from_millis(*at), FailureClass::Temporary);
            }
            prop_assert_eq!(ledger.attempts() as usize, times.len());
            prop_assert_eq!(ledger.history().count(), times.len().min(LEDGER_HISTORY));
            if let (Some(first), Some(last)) = (times.first(), times.last()) {
                prop_assert_eq!(ledger.history().last().map(|entry| entry.decided), Some(Time::from_millis(*last)));
                let now = Time::from_millis(2_000_000);
                prop_assert_eq!(ledger.lasted(now), now.since(Time::from_millis(*first)));
                ledger.charge(now, &budget);
                prop_assert_eq!(ledger.history().last().and_then(|entry| entry.launched), Some(now));
            }
        }
    }
}
