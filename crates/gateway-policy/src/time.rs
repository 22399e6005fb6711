//! Logical time: how long ago the owner of a machine started counting.

use core::time::Duration;

/// A moment on a monotonic clock, counted from an origin that the caller chooses once.
///
/// The crate never reads a clock. Whoever drives a machine passes in the time since its own origin, so the same history
/// can be replayed, simulated and model-checked. Wall-clock time does not belong here: it jumps.
///
/// ```
/// use core::time::Duration;
/// use gateway_policy::Time;
/// let now = Time::from_millis(1_500);
/// assert_eq!(now + Duration::from_millis(500), Time::from_millis(2_000));
/// assert_eq!(now.since(Time::from_millis(2_000)), Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// The origin.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The moment this long after the origin.
    #[must_use]
    pub const fn from_origin(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The moment this many milliseconds after the origin.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// How long after the origin this moment is.
    #[must_use]
    pub const fn elapsed_from_origin(self) -> Duration {
        self.0
    }

    /// How long after `earlier` this moment is; zero when `earlier` is in fact later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The same moment on a clock on which `now` is called `origin`.
    #[must_use]
    pub(crate) fn rebase(self, now: Self, origin: Self) -> Self {
        Self((origin.0 + self.0).saturating_sub(now.0))
    }
}

/// Seconds after the origin.
impl core::fmt::Display for Time {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "{:.3} s", self.0.as_secs_f64())
    }
}

impl core::ops::Add<Duration> for Time {
    type Output = Self;

    /// Saturates at the end of time instead of overflowing.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}
