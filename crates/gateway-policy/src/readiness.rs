//! How long a gateway may take until it serves.
//!
//! A slow start is not a dead one: the wait ends only when nothing has moved for a while, or when an upper limit is reached
//! that no healthy start comes near. Real gateways were seen to need 43 s on a cold cache and up to 240 s on small machines.

use core::time::Duration;

use crate::Time;

/// Limits of the wait for readiness.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ReadinessConfig {
    /// The wait ends when nothing has moved for this long: no output, no change of phase. Default 120 s.
    pub quiet: Duration,
    /// The wait ends after this long even if something keeps moving. Default 15 min.
    pub total: Duration,
    /// A start that takes longer than this is called slow. Default 30 s.
    pub slow_after: Duration,
    /// How often the port is tried while nobody listens on it. Default 50 ms.
    pub poll: Duration,
    /// How long to wait when a starting gateway advises no delay itself. Default 500 ms, what OpenClaw 2026.9.6 advises.
    pub starting_delay: Duration,
    /// An advised delay is kept within these bounds. Default 100 ms to 2 s, as OpenClaw's own client does.
    pub advised_bounds: (Duration, Duration),
}

impl Default for ReadinessConfig {
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(120),
            total: Duration::from_secs(900),
            slow_after: Duration::from_secs(30),
            poll: Duration::from_millis(50),
            starting_delay: Duration::from_millis(500),
            advised_bounds: (Duration::from_millis(100), Duration::from_secs(2)),
        }
    }
}

impl ReadinessConfig {
    /// The delay before a starting gateway is asked again.
    #[must_use]
    pub fn advised(&self, advised: Option<Duration>) -> Duration {
        let (least, most) = self.advised_bounds;
        advised.unwrap_or(self.starting_delay).max(least).min(most)
    }
}

/// How far a wait has come. Later stages are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadinessStage {
    /// Nothing has answered on the port.
    Launched,
    /// Something accepts connections.
    Listening,
    /// The gateway itself says that it is still starting.
    StartingUp,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadinessPurpose {
    /// A child that was launched, or a gateway that was found, has not served yet.
    Launch,
    /// A gateway that has served lost its connection.
    Reconnect,
    /// A gateway that has served announced that it restarts in place.
    AnnouncedRestart,
}

/// One running wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReadinessWait {
    began: Time,
    moved: Time,
    stage: ReadinessStage,
    purpose: ReadinessPurpose,
}

impl ReadinessWait {
    /// Begins the wait of a launch.
    #[must_use]
    pub fn begin(now: Time) -> Self {
        Self::begin_for(ReadinessPurpose::Launch, now)
    }

    /// Begins a wait.
    #[must_use]
    pub fn begin_for(purpose: ReadinessPurpose, now: Time) -> Self {
        Self {
            began: now,
            moved: now,
            stage: ReadinessStage::Launched,
            purpose,
        }
    }

    /// What is waited for.
    #[must_use]
    pub fn purpose(&self) -> ReadinessPurpose {
        self.purpose
    }

    /// When the wait began.
    #[must_use]
    pub fn began(&self) -> Time {
        self.began
    }

    /// How far it has come.
    #[must_use]
    pub fn stage(&self) -> ReadinessStage {
        self.stage
    }

    /// Something was seen; where it is progress, the quiet limit starts anew. A stage never goes back.
    ///
    /// Output is progress whenever it comes, and so is a gateway that says it is starting. A port that accepts connections is
    /// progress once: a process that is stopped or wedged goes on accepting for ever.
    pub fn progress(&mut self, now: Time, stage: Option<ReadinessStage>) {
        let reached = stage.unwrap_or(self.stage);
        let is_progress = match stage {
            None | Some(ReadinessStage::StartingUp) => true,
            Some(ReadinessStage::Launched | ReadinessStage::Listening) => reached > self.stage,
        };
        if is_progress {
            self.moved = self.moved.max(now);
        }
        self.stage = self.stage.max(reached);
    }

    /// When the wait ends if nothing moves from here on.
    #[must_use]
    pub fn deadline(&self, config: &ReadinessConfig) -> Time {
        (self.moved + config.quiet).min(self.began + config.total)
    }

    /// The same wait on a clock on which `now` is called `origin`.
    pub(crate) fn rebase(&mut self, now: Time, origin: Time) {
        self.began = self.began.rebase(now, origin);
        self.moved = self.moved.rebase(now, origin);
    }
}

/// Whether a line that a gateway printed says that it is ready now. A hint that may bring the next question forward, never a verdict: only
/// hello means ready. OpenClaw prints it as `<time> [gateway] ready`, and may add to it.
///
/// ```
/// use gateway_policy::readiness::says_ready;
/// assert!(says_ready("2026-01-01T00:00:00.000Z [gateway] ready (3 plugins)"));
/// assert!(!says_ready("[gateway] readiness is being looked at"));
/// ```
#[must_use]
pub fn says_ready(line: &str) -> bool {
    const MARK: &str = "[gateway] ready";
    line.split_once(MARK).is_some_and(|(_, rest)| {
        !rest.starts_with(|next: char| next.is_alphanumeric() || next == '-' || next == '_')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_slow_start_with_moving_phases_is_not_dead() {
        let config = ReadinessConfig::default();
        let mut wait = ReadinessWait::begin(Time::ZERO);
        for second in (0..=240).step_by(60) {
            let now = Time::from_millis(second * 1_000);
            assert!(now < wait.deadline(&config), "{second} s");
            wait.progress(now, None);
        }
        assert_eq!(wait.deadline(&config), Time::from_millis(360_000));
    }

    #[test]
    fn a_port_that_goes_on_accepting_is_progress_once() {
        let config = ReadinessConfig::default();
        let mut wait = ReadinessWait::begin(Time::ZERO);
        for second in 1..=100 {
            wait.progress(
                Time::from_millis(second * 1_000),
                Some(ReadinessStage::Listening),
            );
        }
        assert_eq!(wait.deadline(&config), Time::from_millis(121_000));
        wait.progress(Time::from_millis(110_000), Some(ReadinessStage::StartingUp));
        wait.progress(Time::from_millis(120_000), Some(ReadinessStage::Listening));
        assert_eq!(wait.deadline(&config), Time::from_millis(230_000));
        wait.progress(Time::from_millis(150_000), Some(ReadinessStage::StartingUp));
        assert_eq!(wait.deadline(&config), Time::from_millis(270_000));
    }

    #[test]
    fn advice_is_kept_in_bounds() {
        let config = ReadinessConfig::default();
        let millis = Duration::from_millis;
        let table = [
            (None, 500),
            (Some(500), 500),
            (Some(0), 100),
            (Some(60_000), 2_000),
        ];
        for (advised, expected) in table {
            assert_eq!(config.advised(advised.map(millis)), millis(expected));
        }
    }

    proptest! {
        /// Progress only ever extends the wait, the total limit holds, and stages never go back.
        #[test]
        fn deadlines_move_forward(steps in prop::collection::vec((0_u64..2_000_000, 0_u8..4), 0..50)) {
            let config = ReadinessConfig::default();
            let mut wait = ReadinessWait::begin(Time::ZERO);
            for (at, stage) in steps {
                let before = wait.clone();
                let stage = [None, Some(ReadinessStage::Launched), Some(ReadinessStage::Listening), Some(ReadinessStage::StartingUp)][stage as usize];
                wait.progress(Time::from_millis(at), stage);
                prop_assert!(wait.deadline(&config) >= before.deadline(&config));
                prop_assert!(wait.deadline(&config) <= Time::ZERO + config.total);
                prop_assert!(wait.stage() >= before.stage());
            }
        }
    }
}
