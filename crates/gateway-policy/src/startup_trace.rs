//! What a gateway tells about its own start when it is asked to: which steps it took, and how long each of them lasted.
//!
//! OpenClaw writes the lines when `OPENCLAW_GATEWAY_STARTUP_TRACE` is set (release 2026.9.6; earlier ones take no notice):
//!
//! ```text
//! [gateway] startup trace: cli.config-snapshot 1.1ms total=7053.6ms start=7052.5ms
//! 2026-11-25T07:13:30.684+00:00 [gateway] startup trace: ready 27.4ms total=15474.4ms eventLoopMax=0.0ms
//! 2026-11-25T07:13:30.684+00:00 [gateway] startup trace: sidecars.ready loadedPluginCount=14.0
//! ```
//!
//! `total` counts from the start of the process. They are for people and metrics: nothing is decided by them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

/// A step that takes so long is slow.
pub const SLOW_STEP: Duration = Duration::from_secs(10);

/// A start that takes so long is slow.
pub const SLOW_START: Duration = Duration::from_secs(30);

/// How many of the longest steps a summary names.
pub const LONGEST_STEPS: usize = 5;

/// What comes before a step on its line.
const MARK: &str = "startup trace: ";

/// A name is a few words; what is longer is something else.
const MAX_NAME: usize = 128;

/// Told again by the server what the launcher had told before.
const REPEATED: &str = "process.bootstrap.";

/// The step with which a gateway is ready.
const READY: &str = "ready";

/// One step of a start.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StartupStep {
    /// Its name, for example `plugins.bootstrap`.
    pub name: String,
    /// How long it took. Steps may contain others.
    pub took: Duration,
    /// How old the process was when it was done.
    pub total: Duration,
}

impl StartupStep {
    /// The step on a line without escape sequences; `None` when there is none on it.
    ///
    /// ```
    /// use gateway_policy::startup_trace::StartupStep;
    /// let step = StartupStep::parse("[gateway] startup trace: cli.auth-resolve 0.8ms total=7071.9ms start=7071.0ms").unwrap();
    /// assert_eq!((step.name.as_str(), step.took.as_micros(), step.total.as_micros()), ("cli.auth-resolve", 800, 7_071_900));
    /// ```
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (before, told) = line.split_once(MARK)?;
        // A message that only quotes one is none.
        if !(before.is_empty() || before.ends_with("[gateway] ")) {
            return None;
        }
        let mut words = told.split_ascii_whitespace();
        let name = words.next().filter(|name| name.len() <= MAX_NAME)?;
        let took = milliseconds(words.next()?)?;
        let total = words.find_map(|word| milliseconds(word.strip_prefix("total=")?))?;
        Some(Self {
            name: name.to_string(),
            took,
            total,
        })
    }

    /// Whether it took so long that somebody should look into it.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.took >= SLOW_STEP
    }
}

/// `27.4ms`
fn milliseconds(text: &str) -> Option<Duration> {
    let number: f64 = text.strip_suffix("ms")?.parse().ok()?;
    Duration::try_from_secs_f64(number / 1e3).ok()
}

/// A start, as far as it has been told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct StartupSummary {
    /// How many steps were told.
    pub steps: u32,
    /// The longest of them, the longest first, at most [`LONGEST_STEPS`].
    pub longest: Vec<StartupStep>,
    /// How old the process was when the newest of them was done.
    pub total: Duration,
    /// How old the process was when it was ready; `None` as long as it is not.
    pub ready: Option<Duration>,
}

impl StartupSummary {
    /// Whether it took, or takes, so long that somebody should look into it.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.ready.unwrap_or(self.total) >= SLOW_START
    }

    /// Takes the next line of output. Gives the step on it that is news; nothing is news once the gateway is ready.
    pub fn take(&mut self, line: &str) -> Option<StartupStep> {
        if self.ready.is_some() {
            return None;
        }
        let step = StartupStep::parse(line)?;
        if step.name.starts_with(REPEATED) {
            return None;
        }
        self.steps = self.steps.saturating_add(1);
        self.total = self.total.max(step.total);
        if step.name == READY {
            self.ready = Some(step.total);
        }
        let place = self
            .longest
            .partition_point(|longer| longer.took >= step.took);
        if place < LONGEST_STEPS {
            self.longest.truncate(LONGEST_STEPS - 1);
            self.longest.insert(place, step.clone());
        }
        Some(step)
    }
}

/// On one line: how long it took, and with what.
impl core::fmt::Display for StartupSummary {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.ready {
            Some(ready) => write!(formatter, "ready after {:.1} s", ready.as_secs_f64())?,
            None => write!(
                formatter,
                "not ready after {:.1} s",
                self.total.as_secs_f64()
            )?,
        }
        write!(formatter, ", {} steps", self.steps)?;
        for (index, step) in self.longest.iter().enumerate() {
            let before = if index == 0 { "; the longest: " } else { ", " };
            write!(
                formatter,
                "{before}{} {:.1} s",
                step.name,
                step.took.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;
    use proptest::prelude::*;

    /// Name, duration and total in microseconds.
    type Told = Option<(&'static str, u64, u64)>;

    #[test]
    fn lines_of_a_real_gateway() {
        let table: &[(&str, Told)] = &[
            (
                "[gateway] startup trace: entry.run-main-import 55.6ms total=1008.5ms start=952.9ms",
                Some(("entry.run-main-import", 55_600, 1_008_500)),
            ),
            (
                "2026-11-25T07:13:26.770+00:00 [gateway] startup trace: gateway.kernel-state 339.4ms total=11531.2ms eventLoopMax=0.0ms",
                Some(("gateway.kernel-state", 339_400, 11_531_200)),
            ),
            (
                "[gateway] startup trace: cli.bootstrap.admission.session-readiness 0.4ms total=6472.0ms start=6471.7ms targetCount=1",
                Some(("cli.bootstrap.admission.session-readiness", 400, 6_472_000)),
            ),
            (
                "startup trace: ready 27.4ms total=15474.4ms eventLoopMax=0.0ms bootstrapSteps=entry.imports:945.8ms/1",
                Some(("ready", 27_400, 15_474_400)),
            ),
            // Details have no duration.
            (
                "[gateway] startup trace: sidecars.ready loadedPluginCount=14.0 postReadySidecarCount=6.0",
                None,
            ),
            ("[gateway] startup trace: memory.ready rssMb=699.3", None),
            ("[gateway] startup outcomes: internal-hooks=skipped", None),
            ("[chat] he said: startup trace: x 1.0ms total=2.0ms", None),
            ("[gateway] startup trace: x -1.0ms total=2.0ms", None),
            ("[gateway] startup trace: x NaNms total=2.0ms", None),
            ("[gateway] startup trace: x 1e300ms total=2.0ms", None),
            ("[gateway] startup trace: x 1.0ms", None),
            ("[gateway] startup trace: ", None),
            ("", None),
        ];
        for (line, expected) in table {
            let step = StartupStep::parse(line);
            let step = step.as_ref().map(|step| {
                (
                    step.name.as_str(),
                    step.took.as_micros(),
                    step.total.as_micros(),
                )
            });
            let expected =
                expected.map(|(name, took, total)| (name, u128::from(took), u128::from(total)));
            assert_eq!(step, expected, "{line}");
        }
    }

    #[test]
    fn a_summary_names_the_longest_steps_and_ends_with_ready() {
        let mut summary = StartupSummary::default();
        let told = |name: &str, took: u64, total: u64| {
            format!("[gateway] startup trace: {name} {took}.0ms total={total}.0ms")
        };
        for (n, took) in [300, 12_000, 100, 500, 200, 400, 50]
            .into_iter()
            .enumerate()
        {
            let step = summary.take(&told(&format!("step-{n}"), took, 1_000 * (n as u64 + 1)));
            assert_eq!(step.map(|step| step.is_slow()), Some(took >= 10_000));
        }
        assert_eq!(
            summary.take(&told("process.bootstrap.step-1", 12_000, 2_000)),
            None
        );
        assert_eq!(
            (summary.steps, summary.ready, summary.is_slow()),
            (7, None, false)
        );
        assert_eq!(
            summary.to_string(),
            "not ready after 7.0 s, 7 steps; the longest: step-1 12.0 s, step-3 0.5 s, step-5 0.4 s, step-0 0.3 s, step-4 0.2 s"
        );
        assert!(summary.take(&told("ready", 1, 31_000)).is_some() && summary.is_slow());
        assert_eq!(
            summary.take(&told("post-ready.maintenance", 22, 60_000)),
            None
        );
        assert_eq!(summary.ready, Some(Duration::from_secs(31)));
    }

    proptest! {
        #[test]
        fn nothing_that_is_printed_makes_it_fail(words in proptest::collection::vec("[a-z.]{0,8}|-?[0-9.]{0,6}(e[0-9]{1,3})?ms|total=[0-9.]{0,8}ms?", 0..6)) {
            let line = format!("[gateway] startup trace: {}", words.join(" "));
            let mut summary = StartupSummary::default();
            let step = summary.take(&line);
            prop_assert_eq!(summary.steps, u32::from(step.is_some()));
        }
    }
}
