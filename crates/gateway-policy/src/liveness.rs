//! From evidence to a verdict: is the gateway behind an open connection still there?
//!
//! Evidence is never wired to an action. Any inbound byte is life. Silence leads to one cheap request on the same socket; only
//! when that stays unanswered is the connection given up, and what happens to the process is decided by the fresh
//! handshake that follows, not here.

use core::time::Duration;

/// Limits of the watch over an open connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LivenessConfig {
    /// How many of the gateway's own tick intervals may pass in silence. Default 2, as OpenClaw asks of its clients; values
    /// below 1 count as 1.
    pub silent_ticks: u32,
    /// The tick interval assumed when the gateway advertises none. Default 30 s.
    pub default_tick: Duration,
    /// The silence limit is never shorter than this, whatever the gateway advertises. Default 10 s.
    pub least_silence: Duration,
    /// How long the verifying request may take. Default 5 s.
    pub verify_within: Duration,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        Self {
            silent_ticks: 2,
            default_tick: Duration::from_secs(30),
            least_silence: Duration::from_secs(10),
            verify_within: Duration::from_secs(5),
        }
    }
}

impl LivenessConfig {
    /// How much silence is normal for a gateway that advertises this tick interval.
    #[must_use]
    pub fn silence_limit(&self, tick: Option<Duration>) -> Duration {
        let tick = tick
            .filter(|tick| !tick.is_zero())
            .unwrap_or(self.default_tick);
        tick.saturating_mul(self.silent_ticks.max(1))
            .max(self.least_silence)
    }
}

/// What is known about an open connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// How long nothing has arrived, on the monotonic clock.
    pub silence: Duration,
    /// For how much of that time this machine was asleep.
    pub suspended: Duration,
    /// What became of the verifying request, when one was made.
    pub verification: Verification,
}

/// What became of the verifying request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verification {
    /// None was made.
    NotAsked,
    /// It was answered; even an error is an answer.
    Answered,
    /// It was not answered in time.
    Unanswered,
}

/// What the evidence amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Something arrived recently enough, or the verifying request came back.
    Alive {
        /// Silence that is still normal from here on.
        look_again_in: Duration,
    },
    /// The machine slept; the silence says nothing, and the deadline starts anew.
    Suspended,
    /// Too much silence; ask before believing it.
    Silent,
    /// Silent, and the verifying request was not answered either: this connection is of no use.
    Unresponsive,
}

/// Weighs the evidence against the limit from [`LivenessConfig::silence_limit`].
///
/// ```
/// use core::time::Duration;
/// use gateway_policy::liveness::{assess, Evidence, Verdict, Verification};
/// let quiet = Evidence { silence: Duration::from_secs(70), suspended: Duration::ZERO, verification: Verification::NotAsked };
/// assert_eq!(assess(quiet, Duration::from_secs(60)), Verdict::Silent);
/// ```
#[must_use]
pub fn assess(evidence: Evidence, limit: Duration) -> Verdict {
    match evidence.verification {
        Verification::Answered => Verdict::Alive {
            look_again_in: limit,
        },
        Verification::Unanswered => Verdict::Unresponsive,
        Verification::NotAsked if evidence.silence < limit => Verdict::Alive {
            look_again_in: limit - evidence.silence,
        },
        Verification::NotAsked if evidence.silence.saturating_sub(evidence.suspended) < limit => {
            Verdict::Suspended
        }
        Verification::NotAsked => Verdict::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn evidence(silence: u64, suspended: u64, verification: Verification) -> Evidence {
        Evidence {
            silence: Duration::from_secs(silence),
            suspended: Duration::from_secs(suspended),
            verification,
        }
    }

    #[test]
    fn table() {
        use Verification::{Answered, NotAsked, Unanswered};
        let seconds = Duration::from_secs;
        let table = [
            (
                "fresh",
                evidence(0, 0, NotAsked),
                Verdict::Alive {
                    look_again_in: LIMIT,
                },
            ),
            (
                "one tick",
                evidence(30, 0, NotAsked),
                Verdict::Alive {
                    look_again_in: seconds(30),
                },
            ),
            ("at the limit", evidence(60, 0, NotAsked), Verdict::Silent),
            (
                "ten minutes asleep",
                evidence(600, 595, NotAsked),
                Verdict::Suspended,
            ),
            (
                "asleep, then silent",
                evidence(700, 600, NotAsked),
                Verdict::Silent,
            ),
            (
                "silent but answering",
                evidence(100, 0, Answered),
                Verdict::Alive {
                    look_again_in: LIMIT,
                },
            ),
            (
                "silent and mute",
                evidence(65, 0, Unanswered),
                Verdict::Unresponsive,
            ),
        ];
        for (name, evidence, verdict) in table {
            assert_eq!(assess(evidence, LIMIT), verdict, "{name}");
        }
    }

    #[test]
    fn the_limit_follows_the_advertised_tick() {
        let config = LivenessConfig::default();
        let seconds = Duration::from_secs;
        let table = [
            (None, 60),
            (Some(0), 60),
            (Some(1), 10),
            (Some(30), 60),
            (Some(45), 90),
        ];
        for (tick, limit) in table {
            assert_eq!(
                config.silence_limit(tick.map(seconds)),
                seconds(limit),
                "{tick:?}"
            );
        }
    }

    proptest! {
        /// Nothing is called unresponsive without having been asked, and no sleep is held against the gateway.
        #[test]
        fn never_condemned_unheard(silence in 0_u64..100_000, suspended in 0_u64..100_000) {
            let verdict = assess(evidence(silence, suspended, Verification::NotAsked), LIMIT);
            prop_assert_ne!(verdict, Verdict::Unresponsive);
            if silence.saturating_sub(suspended) < 60 {
                prop_assert_ne!(verdict, Verdict::Silent);
            }
        }
    }
}
