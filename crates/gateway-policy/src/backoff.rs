//! How long to wait before the next attempt, and when to stop attempting.

use core::time::Duration;

/// The back-off of automatic recovery.
///
/// The defaults are those of the best-known desktop embedder: ten attempts after 1, 2, 4, 8, 16, 30, 30 … seconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ReconnectConfig {
    /// How many attempts in a row may fail before recovery gives up. Default 10; 0 gives up at the first failure.
    pub max_attempts: u32,
    /// Delay before the first attempt. Default 1 s.
    pub base_delay: Duration,
    /// What the delay is multiplied by after each failed attempt. Default 2; values below 1 count as 1.
    pub factor: u32,
    /// No delay is longer than this. Default 30 s.
    pub max_delay: Duration,
    /// Up to this share of a delay is taken off at random, so that many managers do not come back in step. Per cent, at
    /// most 100. Default 0. The random part is a pure function of `seed` and the attempt.
    pub jitter_percent: u8,
    /// Seed of the jitter. Default 0.
    pub seed: u64,
    /// A session that lasted this long ends the episode: the attempts start from zero again. Default 60 s.
    pub stable_after: Duration,
}

impl Default for ReconnectConfig {
    fn default() -> Self {
        Self {
            max_attempts: 10,
            base_delay: Duration::from_secs(1),
            factor: 2,
            max_delay: Duration::from_secs(30),
            jitter_percent: 0,
            seed: 0,
            stable_after: Duration::from_secs(60),
        }
    }
}

/// What is known when a connection or a child was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReconnectFacts {
    /// Whether the user wants the gateway to run.
    pub wanted: bool,
    /// Whether an attempt is already scheduled.
    pub scheduled: bool,
    /// How many attempts of this episode were made already.
    pub attempts: u32,
}

/// What to do about a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReconnectDecision {
    /// Nobody wants a gateway: `auto-reconnect disabled`.
    Disabled,
    /// An attempt is on its way; a second one would race with it.
    AlreadyScheduled,
    /// All attempts of this episode are used up.
    GiveUp {
        /// How many were made.
        attempts: u32,
    },
    /// Try again.
    Schedule {
        /// The number of the coming attempt, counted from 1.
        attempt: u32,
        /// How long to wait before it.
        delay: Duration,
    },
}

impl ReconnectConfig {
    /// Decides about a loss. The tests are made in a fixed order: wanted, scheduled, limit.
    ///
    /// ```
    /// use core::time::Duration;
    /// use gateway_policy::backoff::{ReconnectConfig, ReconnectDecision, ReconnectFacts};
    /// let config = ReconnectConfig::default();
    /// let third = config.decide(ReconnectFacts { wanted: true, scheduled: false, attempts: 2 });
    /// assert_eq!(third, ReconnectDecision::Schedule { attempt: 3, delay: Duration::from_secs(4) });
    /// ```
    #[must_use]
    pub fn decide(&self, facts: ReconnectFacts) -> ReconnectDecision {
        if !facts.wanted {
            ReconnectDecision::Disabled
        } else if facts.scheduled {
            ReconnectDecision::AlreadyScheduled
        } else if facts.attempts >= self.max_attempts {
            ReconnectDecision::GiveUp {
                attempts: facts.attempts,
            }
        } else {
            ReconnectDecision::Schedule {
                attempt: facts.attempts + 1,
                delay: self.delay(facts.attempts),
            }
        }
    }

    /// The step after `step` on the way to the longest delay, which has no next one: counting stops where it changes nothing, so
    /// that whoever waits for ever does not count for ever.
    #[must_use]
    pub fn slower(&self, step: u32) -> u32 {
        let next = step.saturating_add(1);
        if self.grown(step) < self.grown(next) {
            next
        } else {
            step
        }
    }

    /// The delay without jitter.
    fn grown(&self, attempts: u32) -> Duration {
        let factor = self.factor.max(1).saturating_pow(attempts);
        self.base_delay.saturating_mul(factor).min(self.max_delay)
    }

    /// The delay after `attempts` failed attempts: `base × factor^attempts`, never above the cap, less the jitter.
    #[must_use]
    pub fn delay(&self, attempts: u32) -> Duration {
        let delay = self.grown(attempts);
        // Jitter only ever shortens, so the cap stays a cap.
        let share = u32::from(self.jitter_percent.min(100));
        let thousandths = u32::try_from(mix(self.seed, u64::from(attempts)) % 1_001).unwrap_or(0);
        let off = delay.saturating_mul(share) / 100;
        delay.saturating_sub(off.saturating_mul(thousandths) / 1_000)
    }
}

/// One round of SplitMix64 over two numbers (Steele, Lea, Flood 2014): good enough to spread attempts, and repeatable.
fn mix(seed: u64, value: u64) -> u64 {
    let mut z = seed
        .wrapping_add(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(value.wrapping_mul(0xbf58_476d_1ce4_e5b9));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn facts(wanted: bool, scheduled: bool, attempts: u32) -> ReconnectFacts {
        ReconnectFacts {
            wanted,
            scheduled,
            attempts,
        }
    }

    #[test]
    fn the_defaults_double_up_to_thirty_seconds() {
        let config = ReconnectConfig::default();
        let seconds: [u64; 10] = core::array::from_fn(|n| config.delay(n as u32).as_secs());
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]);
        assert_eq!(config.delay(u32::MAX), Duration::from_secs(30));
    }

    #[test]
    fn decisions_in_their_order() {
        use ReconnectDecision::{AlreadyScheduled, Disabled, GiveUp, Schedule};
        let config = ReconnectConfig::default();
        let second = Duration::from_secs(1);
        let table = [
            (
                facts(true, false, 0),
                Schedule {
                    attempt: 1,
                    delay: second,
                },
            ),
            (
                facts(true, false, 9),
                Schedule {
                    attempt: 10,
                    delay: 30 * second,
                },
            ),
            (facts(true, false, 10), GiveUp { attempts: 10 }),
            (facts(true, false, u32::MAX), GiveUp { attempts: u32::MAX }),
            (facts(true, true, 10), AlreadyScheduled),
            (facts(false, true, 10), Disabled),
            (facts(false, false, 0), Disabled),
        ];
        for (facts, decision) in table {
            assert_eq!(config.decide(facts), decision, "{facts:?}");
        }
        let none = ReconnectConfig {
            max_attempts: 0,
            ..ReconnectConfig::default()
        };
        assert_eq!(none.decide(facts(true, false, 0)), GiveUp { attempts: 0 });
    }

    #[test]
    fn counting_stops_at_the_longest_delay() {
        let count = |config: &ReconnectConfig| (0..100).fold(0, |step, _| config.slower(step));
        let defaults = ReconnectConfig::default();
        assert_eq!(count(&defaults), 5);
        assert_eq!(defaults.delay(5), defaults.max_delay);
        let constant = ReconnectConfig {
            factor: 1,
            ..defaults
        };
        assert_eq!(count(&constant), 0);
    }

    /// The jitter of a seed is part of what can be replayed, so it must not change unnoticed.
    #[test]
    fn jitter_is_a_function_of_seed_and_attempt() {
        let milliseconds = |seed| {
            let config = ReconnectConfig {
                jitter_percent: 50,
                seed,
                ..ReconnectConfig::default()
            };
            core::array::from_fn::<_, 6, _>(|n| config.delay(n as u32).as_millis())
        };
        assert_eq!(milliseconds(0), [950, 1_401, 3_684, 6_508, 11_400, 19_410]);
        assert_eq!(milliseconds(7), [845, 1_006, 2_532, 4_628, 12_536, 18_270]);
        let none = ReconnectConfig {
            jitter_percent: 200,
            ..ReconnectConfig::default()
        };
        assert!(
            none.delay(3) < Duration::from_secs(8),
            "more than all counts as all"
        );
    }

    proptest! {
        /// Whatever the settings: never above the cap, never less than the jitter allows, always the same for a seed.
        #[test]
        fn delays_stay_in_their_bounds(
            attempts in any::<u32>(), base in 0_u64..100_000, factor in any::<u32>(), cap in 0_u64..100_000,
            jitter_percent in any::<u8>(), seed in any::<u64>(),
        ) {
            let config = ReconnectConfig {
                base_delay: Duration::from_millis(base), factor, max_delay: Duration::from_millis(cap),
                jitter_percent, seed, ..ReconnectConfig::default()
            };
            let plain = ReconnectConfig { jitter_percent: 0, ..config.clone() }.delay(attempts);
            let delay = config.delay(attempts);
            prop_assert!(delay <= plain && plain <= config.max_delay);
            prop_assert!(delay >= plain.saturating_sub(plain * u32::from(jitter_percent.min(100)) / 100));
            prop_assert_eq!(delay, config.delay(attempts));
        }

        /// Without jitter a later attempt never comes sooner.
        #[test]
        fn delays_do_not_shrink(attempts in 0_u32..1_000, factor in 1_u32..10) {
            let config = ReconnectConfig { factor, ..ReconnectConfig::default() };
            prop_assert!(config.delay(attempts + 1) >= config.delay(attempts));
        }
    }
}
