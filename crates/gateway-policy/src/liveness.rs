//! From evidence to a verdict to an action: is the gateway behind an open connection alive, slow, blocked, wedged or gone, or
//! was this machine asleep?
//!
//! The three are kept apart. *Evidence* is what was seen ([`Evidence`]). A *verdict* is what it amounts to ([`assess`]), and is
//! given only when enough is known; until then the next question is named, the cheap one first: one small request on the same
//! socket, then a second connection beside the first, up to the challenge. Neither costs the user anything: calls that are on
//! their way stay on their way. An *action* follows from the verdict and from whose gateway it is ([`Verdict::action`]).
//!
//! Any inbound byte is life. Nothing is condemned unheard, and nothing is ended that still works.
//!
//! ```
//! use core::time::Duration;
//! use gateway_policy::liveness::{Assessment, Evidence, LivenessConfig, Question, assess};
//! let config = LivenessConfig::default();
//! let limit = config.silence_limit(Some(Duration::from_secs(30)));
//! let quiet = Evidence { silence: Duration::from_secs(70), ..Evidence::default() };
//! assert_eq!(assess(&quiet, limit, &config), Assessment::Ask(Question::Request));
//! ```

use core::time::Duration;

use crate::readiness::{ReadinessConfig, ReadinessWait};
use crate::{Time, config::ConfigProblem};

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
    /// How long the second connection may take until the challenge. Default 5 s.
    pub handshake_within: Duration,
    /// A verifying request that takes longer than this is answered slowly. Default 2 s.
    pub slow_after: Duration,
    /// How soon to look again at a gateway that is blocked. Default 10 s.
    pub look_again: Duration,
    /// Silence after which a gateway that answers nothing, and of which no work can be seen, is wedged. Default 180 s, the
    /// patience at which the best-known embedder arrived after thirteen changes of mind.
    pub wedged_after: Duration,
    /// Silence after which a gateway that answers nothing is wedged even though its process works: a loop without an end works
    /// as well. Default 600 s.
    pub blocked_for_at_most: Duration,
    /// Sleep of the machine that is shorter than this is not worth mentioning. Default 5 s.
    pub least_sleep: Duration,
}

impl Default for LivenessConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            silent_ticks: 2,
            default_tick: seconds(30),
            least_silence: seconds(10),
            verify_within: seconds(5),
            handshake_within: seconds(5),
            slow_after: seconds(2),
            look_again: seconds(10),
            wedged_after: seconds(180),
            blocked_for_at_most: seconds(600),
            least_sleep: seconds(5),
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

    /// After how much silence the first verdict is there at the latest: the silence limit and both questions.
    #[must_use]
    pub fn verdict_within(&self, tick: Option<Duration>) -> Duration {
        self.silence_limit(tick)
            .saturating_add(self.verify_within)
            .saturating_add(self.handshake_within)
    }

    /// After how much silence a gateway with these signs of work is wedged. Never before both questions could be asked.
    #[must_use]
    fn patience(&self, silence_limit: Duration, activity: Activity) -> Duration {
        let questions = self.verify_within.saturating_add(self.handshake_within);
        let patience = match activity {
            Activity::Working => self.blocked_for_at_most.max(self.wedged_after),
            _ => self.wedged_after,
        };
        patience.max(silence_limit.saturating_add(questions))
    }

    /// Checks the limits against each other.
    ///
    /// # Errors
    /// The first limit that makes no sense, and why.
    pub fn validate(&self) -> Result<(), ConfigProblem> {
        let zero = [
            ("liveness.default_tick", self.default_tick),
            ("liveness.verify_within", self.verify_within),
            ("liveness.handshake_within", self.handshake_within),
            ("liveness.look_again", self.look_again),
        ];
        if let Some((setting, _)) = zero.into_iter().find(|(_, limit)| limit.is_zero()) {
            return Err(ConfigProblem::new(
                setting,
                "is zero; every wait needs time",
            ));
        }
        if self.wedged_after < self.verdict_within(None) {
            return Err(ConfigProblem::new(
                "liveness.wedged_after",
                "is over before the silence limit and both questions are; nothing may be condemned unheard",
            ));
        }
        if self.blocked_for_at_most < self.wedged_after {
            return Err(ConfigProblem::new(
                "liveness.blocked_for_at_most",
                "is shorter than liveness.wedged_after, so a working gateway would get less patience than an idle one",
            ));
        }
        Ok(())
    }
}

/// What is known about an open connection and the gateway behind it. The default: something arrived just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// How long nothing has arrived, on the monotonic clock, without the time during which this machine was asleep.
    pub silence: Duration,
    /// For how long this machine was asleep since the last look.
    pub suspended: Duration,
    /// What became of the verifying request.
    pub request: RequestSign,
    /// What became of the second connection.
    pub handshake: HandshakeSign,
    /// What the process does.
    pub activity: Activity,
}

impl core::fmt::Display for Evidence {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            silence,
            suspended,
            request,
            handshake,
            activity,
        } = self;
        write!(
            formatter,
            "silent for {silence:?}, asleep for {suspended:?}, request {request:?}, handshake {handshake:?}, process {activity:?}"
        )
    }
}

/// What became of the verifying request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RequestSign {
    /// None was made.
    #[default]
    NotMade,
    /// It was answered; even an error is an answer.
    Answered {
        /// How long that took.
        after: Duration,
    },
    /// It was not answered in time.
    Unanswered,
}

/// What became of a second connection beside the silent one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HandshakeSign {
    /// None was made.
    #[default]
    NotTried,
    /// It was answered: with a challenge, or with any answer to the upgrade. The gateway's event loop runs.
    Answered,
    /// It was accepted, which the operating system does by itself, and then nothing came.
    Stalled,
    /// Nobody listens on the port.
    Refused,
}

/// What a process does. Two looks are compared, since a single one says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Nothing can be told: the process is not ours, or the operating system does not say.
    #[default]
    Unknown,
    /// It used the processor or printed something.
    Working,
    /// It did neither.
    Idle,
    /// Somebody stopped it with a signal or holds it in a debugger.
    Halted,
    /// It has ended.
    Exited,
}

/// One look at a process; see [`Activity::between`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessSample {
    /// Processor time that it has used since it began.
    pub processor_time: Duration,
    /// How many lines it has printed since it began.
    pub lines: u64,
    /// Whether it was stopped by a signal or a debugger.
    pub halted: bool,
}

/// An idle Node process wakes up now and then; less than this share of the time between two looks is not work.
const IDLE_SHARE_PERCENT: u32 = 2;

impl Activity {
    /// What a process did between two looks that lie `elapsed` apart.
    #[must_use]
    pub fn between(before: &ProcessSample, after: &ProcessSample, elapsed: Duration) -> Self {
        let used = after.processor_time.saturating_sub(before.processor_time);
        if after.halted {
            Self::Halted
        } else if after.lines > before.lines
            || used.saturating_mul(100) > elapsed.saturating_mul(IDLE_SHARE_PERCENT)
        {
            Self::Working
        } else {
            Self::Idle
        }
    }
}

/// What the evidence amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Something arrived recently enough, or the verifying request came back.
    Alive,
    /// It answers, but takes its time.
    Slow,
    /// It does not answer now, and nothing says that it will not: a busy event loop looks like this.
    Blocked,
    /// It does not answer any more.
    Wedged,
    /// Something that is needed is not there any more.
    Gone(Part),
    /// This machine slept; the silence says nothing yet.
    Suspended,
}

/// What is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// This connection: the gateway answers others.
    Connection,
    /// The listener: nobody accepts connections on the port.
    Listener,
    /// The process.
    Process,
}

impl Verdict {
    /// A short name for logs and machine-readable output, in kebab case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Slow => "slow",
            Self::Blocked => "blocked",
            Self::Wedged => "wedged",
            Self::Gone(Part::Connection) => "connection-gone",
            Self::Gone(Part::Listener) => "listener-gone",
            Self::Gone(Part::Process) => "process-gone",
            Self::Suspended => "suspended",
        }
    }

    /// What is done about it. `owned`: the gateway is a child of ours.
    ///
    /// Only a wedged child is ended. A lost connection or listener costs the connection and nothing else: whether the child
    /// comes back is for the wait for readiness to find out.
    #[must_use]
    pub const fn action(self, owned: bool) -> Action {
        match self {
            Self::Alive | Self::Slow | Self::Blocked | Self::Suspended => Action::Keep,
            Self::Wedged if owned => Action::EndChild,
            Self::Wedged | Self::Gone(_) => Action::Reconnect,
        }
    }
}

impl core::fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What follows from a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing; look again later.
    Keep,
    /// Close the connection and make a new one.
    Reconnect,
    /// End the process and launch a new one.
    EndChild,
}

/// What has to be known before a verdict can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// Does a small request on the same socket come back?
    Request,
    /// Does a second connection get as far as the challenge?
    Handshake,
}

/// The result of weighing the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Assessment {
    /// A verdict, and how soon to look again.
    Conclusion {
        /// What it amounts to.
        verdict: Verdict,
        /// When to look again if nothing happens before.
        look_again_in: Duration,
    },
    /// Not enough is known.
    Ask(Question),
}

/// Weighs the evidence against the limit from [`LivenessConfig::silence_limit`].
#[must_use]
pub fn assess(evidence: &Evidence, silence_limit: Duration, config: &LivenessConfig) -> Assessment {
    let conclude = |verdict, look_again_in| Assessment::Conclusion {
        verdict,
        look_again_in,
    };
    let slept = evidence.suspended >= config.least_sleep.max(Duration::from_nanos(1));
    if evidence.activity == Activity::Exited {
        return conclude(Verdict::Gone(Part::Process), silence_limit);
    }
    match (evidence.request, evidence.handshake) {
        (RequestSign::Answered { after }, _) if after > config.slow_after => {
            conclude(Verdict::Slow, silence_limit)
        }
        (RequestSign::Answered { .. }, _) => conclude(Verdict::Alive, silence_limit),
        // After sleep the link may be dead without having been silent for long; asking finds out at once.
        (RequestSign::NotMade, _) if evidence.silence >= silence_limit || slept => {
            Assessment::Ask(Question::Request)
        }
        (RequestSign::NotMade, _) => conclude(Verdict::Alive, silence_limit - evidence.silence),
        // It was heard from while it was asked: requests are stuck, and it is not.
        (RequestSign::Unanswered, _) if evidence.silence < config.verify_within => {
            conclude(Verdict::Slow, silence_limit)
        }
        (RequestSign::Unanswered, HandshakeSign::NotTried) => Assessment::Ask(Question::Handshake),
        (RequestSign::Unanswered, HandshakeSign::Answered) => {
            conclude(Verdict::Gone(Part::Connection), silence_limit)
        }
        (RequestSign::Unanswered, HandshakeSign::Refused) => {
            conclude(Verdict::Gone(Part::Listener), silence_limit)
        }
        (RequestSign::Unanswered, HandshakeSign::Stalled) => {
            if slept {
                conclude(Verdict::Suspended, silence_limit)
            } else if evidence.silence < config.patience(silence_limit, evidence.activity) {
                conclude(Verdict::Blocked, config.look_again)
            } else {
                conclude(Verdict::Wedged, config.look_again)
            }
        }
    }
}

/// The same question about a child that has not served yet: a start that moves is slow, however long it takes within its limit;
/// one in which nothing moves any more is wedged.
#[must_use]
pub fn assess_start(wait: &ReadinessWait, now: Time, config: &ReadinessConfig) -> Verdict {
    if now >= wait.deadline(config) {
        Verdict::Wedged
    } else if now.since(wait.began()) > config.slow_after {
        Verdict::Slow
    } else {
        Verdict::Alive
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::readiness::ReadinessStage;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A gateway in some condition, of which the truth is known. Whoever asks gets an answer; whoever does not ask gets none.
    struct Situation {
        name: &'static str,
        silence: u64,
        asleep: u64,
        request: RequestSign,
        handshake: HandshakeSign,
        activity: Activity,
    }

    impl Situation {
        /// Goes from question to question until there is a verdict; gives the questions as well.
        fn judge(&self, config: &LivenessConfig) -> (Verdict, Duration, Vec<Question>) {
            let mut evidence = Evidence {
                silence: Duration::from_secs(self.silence),
                suspended: Duration::from_secs(self.asleep),
                activity: self.activity,
                ..Evidence::default()
            };
            let mut asked = Vec::new();
            loop {
                match assess(&evidence, LIMIT, config) {
                    Assessment::Conclusion {
                        verdict,
                        look_again_in,
                    } => return (verdict, look_again_in, asked),
                    Assessment::Ask(question) => {
                        assert!(!asked.contains(&question), "{}: asked twice", self.name);
                        asked.push(question);
                        match question {
                            Question::Request => evidence.request = self.request,
                            Question::Handshake => evidence.handshake = self.handshake,
                        }
                    }
                }
            }
        }
    }

    #[test]
    #[rustfmt::skip]
    fn situations() {
        use Activity::{Exited, Halted, Idle, Unknown, Working};
        use Action::{EndChild, Keep, Reconnect};
        use HandshakeSign::{Answered, NotTried, Refused, Stalled};
        use Part::{Connection, Listener, Process};
        use RequestSign::{NotMade, Unanswered};
        use Verdict::{Alive, Blocked, Gone, Slow, Suspended, Wedged};
        let quick = RequestSign::Answered { after: Duration::from_millis(3) };
        let late = RequestSign::Answered { after: Duration::from_secs(4) };
        // Seconds of silence and of sleep; what a request and a second connection would meet, if they were made; what the process does.
        type Facts = (u64, u64, RequestSign, HandshakeSign, Activity);
        // What follows for an own child, and for a stranger's gateway.
        type Actions = (Action, Action);
        let table: &[(&'static str, Facts, Verdict, Actions)] = &[
            ("a byte arrived just now",                                        (0,   0, NotMade,    NotTried, Unknown),  Alive,            (Keep, Keep)),
            ("between two ticks",                                             (30,   0, NotMade,    NotTried, Idle),     Alive,            (Keep, Keep)),
            ("one tick was lost",                                             (59,   0, NotMade,    NotTried, Idle),     Alive,            (Keep, Keep)),
            ("the clock was set back an hour: the difference is nothing",      (0,   0, NotMade,    NotTried, Idle),     Alive,            (Keep, Keep)),
            ("the clock was set forward an hour: monotonic time did not",     (12,   0, NotMade,    NotTried, Idle),     Alive,            (Keep, Keep)),
            ("no events for an hour, requests answered",                    (3600,   0, quick,      Answered, Idle),     Alive,            (Keep, Keep)),
            ("ticks switched off, requests answered",                         (60,   0, quick,      Answered, Unknown),  Alive,            (Keep, Keep)),
            ("unknown method: an error is an answer",                         (61,   0, quick,      NotTried, Idle),     Alive,            (Keep, Keep)),
            ("draining: every request refused, and so answered",             (300,   0, quick,      Answered, Working),  Alive,            (Keep, Keep)),
            ("loaded machine: answers after four seconds",                    (61,   0, late,       NotTried, Working),  Slow,             (Keep, Keep)),
            ("loaded machine, attached: answers after four seconds",          (61,   0, late,       NotTried, Unknown),  Slow,             (Keep, Keep)),
            ("a slow channel: requests still come back",                      (90,   0, late,       Answered, Idle),     Slow,             (Keep, Keep)),
            ("event loop blocked for 60 s by work",                           (70,   0, Unanswered, Stalled,  Working),  Blocked,          (Keep, Keep)),
            ("event loop blocked for 60 s, of which nothing can be seen",     (70,   0, Unanswered, Stalled,  Unknown),  Blocked,          (Keep, Keep)),
            ("event loop blocked for three minutes by work",                 (190,   0, Unanswered, Stalled,  Working),  Blocked,          (Keep, Keep)),
            ("a tool runs for nine minutes in the event loop",               (590,   0, Unanswered, Stalled,  Working),  Blocked,          (Keep, Keep)),
            ("garbage collection thrashes for two minutes",                  (120,   0, Unanswered, Stalled,  Working),  Blocked,          (Keep, Keep)),
            ("waits for a slow disk: no processor time",                      (90,   0, Unanswered, Stalled,  Idle),     Blocked,          (Keep, Keep)),
            ("prints, but answers nothing",                                  (100,   0, Unanswered, Stalled,  Working),  Blocked,          (Keep, Keep)),
            ("a loop without an end",                                        (600,   0, Unanswered, Stalled,  Working),  Wedged,           (EndChild, Reconnect)),
            ("deadlock: no work for three minutes",                          (180,   0, Unanswered, Stalled,  Idle),     Wedged,           (EndChild, Reconnect)),
            ("deadlock, one second earlier",                                 (179,   0, Unanswered, Stalled,  Idle),     Blocked,          (Keep, Keep)),
            ("accepts, then stalls, of which nothing can be seen",           (181,   0, Unanswered, Stalled,  Unknown),  Wedged,           (EndChild, Reconnect)),
            ("SIGSTOP, noticed at once",                                      (70,   0, Unanswered, Stalled,  Halted),   Blocked,          (Keep, Keep)),
            ("SIGSTOP for three minutes",                                    (180,   0, Unanswered, Stalled,  Halted),   Wedged,           (EndChild, Reconnect)),
            ("held in a debugger, attached to",                               (80,   0, Unanswered, Stalled,  Unknown),  Blocked,          (Keep, Keep)),
            ("half-open TCP: the gateway answers others",                     (65,   0, Unanswered, Answered, Idle),     Gone(Connection), (Reconnect, Reconnect)),
            ("half-open TCP and a busy gateway",                              (65,   0, Unanswered, Answered, Working),  Gone(Connection), (Reconnect, Reconnect)),
            ("a proxy dropped the connection without a word",                (300,   0, Unanswered, Answered, Unknown),  Gone(Connection), (Reconnect, Reconnect)),
            ("restarted beside us: this connection belongs to nobody",        (62,   0, Unanswered, Answered, Idle),     Gone(Connection), (Reconnect, Reconnect)),
            ("HTTP 503 to a new connection: it stops, but it runs",           (70,   0, Unanswered, Answered, Idle),     Gone(Connection), (Reconnect, Reconnect)),
            ("listener closed with a living process",                         (65,   0, Unanswered, Refused,  Idle),     Gone(Listener),   (Reconnect, Reconnect)),
            ("listener closed while it works",                                (65,   0, Unanswered, Refused,  Working),  Gone(Listener),   (Reconnect, Reconnect)),
            ("listener closed, ten minutes of silence",                      (600,   0, Unanswered, Refused,  Idle),     Gone(Listener),   (Reconnect, Reconnect)),
            ("the process ended, the socket has not noticed",                  (5,   0, NotMade,    NotTried, Exited),   Gone(Process),    (Reconnect, Reconnect)),
            ("the process ended long ago",                                   (400,   0, Unanswered, Refused,  Exited),   Gone(Process),    (Reconnect, Reconnect)),
            ("killed, another one listens on its port",                       (61,   0, Unanswered, Answered, Exited),   Gone(Process),    (Reconnect, Reconnect)),
            ("ten minutes of machine sleep, and it answers",                  (10, 600, quick,      Answered, Idle),     Alive,            (Keep, Keep)),
            ("ten minutes of machine sleep, and it answers slowly",           (10, 600, late,       Answered, Working),  Slow,             (Keep, Keep)),
            ("ten minutes of machine sleep, everything still thaws",          (10, 600, Unanswered, Stalled,  Working),  Suspended,        (Keep, Keep)),
            ("a night of machine sleep after three minutes of silence",      (180, 28_800, Unanswered, Stalled,  Idle),     Suspended,        (Keep, Keep)),
            ("machine sleep that killed the link",                            (10, 600, Unanswered, Answered, Idle),     Gone(Connection), (Reconnect, Reconnect)),
            ("machine sleep that killed the gateway",                         (10, 600, Unanswered, Refused,  Exited),   Gone(Process),    (Reconnect, Reconnect)),
            ("a sleep too short to mention, within the limit",                (20,   4, NotMade,    NotTried, Idle),     Alive,            (Keep, Keep)),
            ("a sleep too short to mention, and a deadlock",                 (180,   4, Unanswered, Stalled,  Idle),     Wedged,           (EndChild, Reconnect)),
        ];
        assert!(table.len() >= 40);
        let config = LivenessConfig::default();
        for &(name, facts, verdict, actions) in table {
            let (silence, asleep, request, handshake, activity) = facts;
            let situation = Situation { name, silence, asleep, request, handshake, activity };
            let (judged, look_again_in, _) = situation.judge(&config);
            assert_eq!(judged, verdict, "{name}");
            assert_eq!((judged.action(true), judged.action(false)), actions, "{name}");
            assert!(!look_again_in.is_zero(), "{name}");
        }
    }

    /// The start has a clock of its own: what counts is when something moved last.
    #[test]
    fn starts() {
        let config = ReadinessConfig::default();
        let at = |seconds: u64| Time::from_millis(seconds * 1_000);
        let begun = ReadinessWait::begin(Time::ZERO);
        let mut moving = begun.clone();
        for second in (0..=240).step_by(40) {
            moving.progress(at(second), Some(ReadinessStage::StartingUp));
        }
        let mut for_ever = begun.clone();
        for second in (0..1_000).step_by(40) {
            for_ever.progress(at(second), None);
        }
        let table = [
            ("just launched", &begun, 0, Verdict::Alive),
            ("at the threshold of slowness", &begun, 30, Verdict::Alive),
            ("43 s on a cold cache", &begun, 43, Verdict::Slow),
            ("nothing moves for 119 s", &begun, 119, Verdict::Slow),
            ("nothing moves for 120 s", &begun, 120, Verdict::Wedged),
            ("240 s with moving phases", &moving, 240, Verdict::Slow),
            (
                "240 s with moving phases, then nothing",
                &moving,
                360,
                Verdict::Wedged,
            ),
            (
                "a quarter of an hour, still moving",
                &for_ever,
                899,
                Verdict::Slow,
            ),
            (
                "no healthy start comes near this",
                &for_ever,
                900,
                Verdict::Wedged,
            ),
        ];
        for (name, wait, second, verdict) in table {
            assert_eq!(assess_start(wait, at(second), &config), verdict, "{name}");
        }
    }

    /// Requests are stuck, ticks are not: whoever was heard from while it was asked lives.
    #[test]
    fn a_byte_that_arrives_while_a_request_is_out_is_life() {
        let config = LivenessConfig::default();
        let heard = |silence| Evidence {
            silence: Duration::from_millis(silence),
            request: RequestSign::Unanswered,
            ..Evidence::default()
        };
        let slow = Assessment::Conclusion {
            verdict: Verdict::Slow,
            look_again_in: LIMIT,
        };
        assert_eq!(assess(&heard(4_999), LIMIT, &config), slow);
        assert_eq!(
            assess(&heard(5_000), LIMIT, &config),
            Assessment::Ask(Question::Handshake)
        );
    }

    #[test]
    fn questions_come_cheapest_first_and_only_when_needed() {
        use Question::{Handshake, Request};
        let situation = |silence, request| Situation {
            name: "questions",
            silence,
            asleep: 0,
            request,
            handshake: HandshakeSign::Stalled,
            activity: Activity::Idle,
        };
        let answered = RequestSign::Answered {
            after: Duration::from_secs(2),
        };
        let config = LivenessConfig::default();
        let table = [
            (situation(59, answered), Verdict::Alive, 1, Vec::new()),
            (
                situation(60, answered),
                Verdict::Alive,
                60,
                [Request].to_vec(),
            ),
            (
                situation(60, RequestSign::Unanswered),
                Verdict::Blocked,
                10,
                [Request, Handshake].to_vec(),
            ),
        ];
        for (situation, verdict, seconds, questions) in table {
            let judged = situation.judge(&config);
            assert_eq!(judged, (verdict, Duration::from_secs(seconds), questions));
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
        assert_eq!(config.verdict_within(Some(seconds(30))), seconds(70));
        let least = LivenessConfig {
            silent_ticks: 0,
            ..config
        };
        assert_eq!(least.silence_limit(Some(seconds(30))), seconds(30));
    }

    #[test]
    fn patience_is_never_shorter_than_the_questions_take() {
        // A gateway that ticks once in ten minutes is silent for longer than the patience with a wedged one.
        let config = LivenessConfig::default();
        let limit = config.silence_limit(Some(Duration::from_secs(600)));
        let evidence = Evidence {
            silence: limit + Duration::from_secs(9),
            request: RequestSign::Unanswered,
            handshake: HandshakeSign::Stalled,
            activity: Activity::Idle,
            ..Evidence::default()
        };
        let conclusion = |evidence| match assess(&evidence, limit, &config) {
            Assessment::Conclusion { verdict, .. } => verdict,
            Assessment::Ask(question) => panic!("{question:?}"),
        };
        assert_eq!(conclusion(evidence), Verdict::Blocked);
        assert_eq!(
            conclusion(Evidence {
                silence: limit + Duration::from_secs(10),
                ..evidence
            }),
            Verdict::Wedged
        );
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        let seconds = Duration::from_secs;
        let good = LivenessConfig::default();
        assert_eq!(good.validate(), Ok(()));
        let table = [
            (
                "liveness.default_tick",
                LivenessConfig {
                    default_tick: Duration::ZERO,
                    ..good.clone()
                },
            ),
            (
                "liveness.verify_within",
                LivenessConfig {
                    verify_within: Duration::ZERO,
                    ..good.clone()
                },
            ),
            (
                "liveness.handshake_within",
                LivenessConfig {
                    handshake_within: Duration::ZERO,
                    ..good.clone()
                },
            ),
            (
                "liveness.look_again",
                LivenessConfig {
                    look_again: Duration::ZERO,
                    ..good.clone()
                },
            ),
            (
                "liveness.wedged_after",
                LivenessConfig {
                    wedged_after: seconds(69),
                    ..good.clone()
                },
            ),
            (
                "liveness.blocked_for_at_most",
                LivenessConfig {
                    blocked_for_at_most: seconds(179),
                    ..good.clone()
                },
            ),
        ];
        for (setting, config) in table {
            assert_eq!(
                config.validate().map_err(|problem| problem.setting),
                Err(setting)
            );
        }
        let tight = LivenessConfig {
            wedged_after: seconds(70),
            blocked_for_at_most: seconds(70),
            ..good
        };
        assert_eq!(tight.validate(), Ok(()), "equal limits are sound");
    }

    #[test]
    fn two_looks_tell_work_from_idleness() {
        let sample = |milliseconds, lines, halted| ProcessSample {
            processor_time: Duration::from_millis(milliseconds),
            lines,
            halted,
        };
        let before = sample(1_000, 7, false);
        let elapsed = Duration::from_secs(10);
        let table = [
            (sample(1_000, 7, false), Activity::Idle),
            (sample(1_200, 7, false), Activity::Idle),
            (sample(1_201, 7, false), Activity::Working),
            (sample(1_000, 8, false), Activity::Working),
            (sample(9_000, 9, true), Activity::Halted),
            // Counters of another process: nothing is known to have happened.
            (sample(0, 0, false), Activity::Idle),
        ];
        for (after, activity) in table {
            assert_eq!(
                Activity::between(&before, &after, elapsed),
                activity,
                "{after:?}"
            );
        }
    }

    #[test]
    fn verdicts_have_names() {
        let verdicts = [
            Verdict::Alive,
            Verdict::Slow,
            Verdict::Blocked,
            Verdict::Wedged,
            Verdict::Suspended,
            Verdict::Gone(Part::Connection),
            Verdict::Gone(Part::Listener),
            Verdict::Gone(Part::Process),
        ];
        let names = verdicts.map(|verdict| alloc::format!("{verdict}"));
        let expected = [
            "alive",
            "slow",
            "blocked",
            "wedged",
            "suspended",
            "connection-gone",
            "listener-gone",
            "process-gone",
        ];
        assert_eq!(names, expected);
    }

    fn evidence() -> impl Strategy<Value = Evidence> {
        let milliseconds = |most: u64| (0..most).prop_map(Duration::from_millis);
        let request = prop_oneof![
            Just(RequestSign::NotMade),
            milliseconds(10_000).prop_map(|after| RequestSign::Answered { after }),
            Just(RequestSign::Unanswered),
        ];
        let handshake = prop::sample::select(
            [
                HandshakeSign::NotTried,
                HandshakeSign::Answered,
                HandshakeSign::Stalled,
                HandshakeSign::Refused,
            ]
            .to_vec(),
        );
        let activity = prop::sample::select(
            [
                Activity::Unknown,
                Activity::Working,
                Activity::Idle,
                Activity::Halted,
                Activity::Exited,
            ]
            .to_vec(),
        );
        (
            milliseconds(1_000_000),
            milliseconds(1_000_000),
            request,
            handshake,
            activity,
        )
            .prop_map(
                |(silence, suspended, request, handshake, activity)| Evidence {
                    silence,
                    suspended,
                    request,
                    handshake,
                    activity,
                },
            )
    }

    proptest! {
        /// Nothing is condemned without having been asked twice, nothing that answers is, and no sleep is held against a gateway.
        #[test]
        fn never_condemned_unheard(evidence in evidence()) {
            let config = LivenessConfig::default();
            if let Assessment::Conclusion { verdict, look_again_in } = assess(&evidence, LIMIT, &config) {
                prop_assert!(!look_again_in.is_zero(), "a look that comes at once would never end");
                if verdict == Verdict::Wedged {
                    prop_assert_eq!((evidence.request, evidence.handshake), (RequestSign::Unanswered, HandshakeSign::Stalled));
                    prop_assert!(evidence.suspended < config.least_sleep);
                    prop_assert!(evidence.silence >= config.wedged_after);
                }
                if verdict.action(true) == Action::EndChild {
                    prop_assert_eq!(verdict, Verdict::Wedged);
                }
                prop_assert_ne!(verdict.action(false), Action::EndChild, "what is not ours is not ended");
            }
        }

        /// A question that has been answered is not asked again.
        #[test]
        fn no_question_twice(evidence in evidence()) {
            match assess(&evidence, LIMIT, &LivenessConfig::default()) {
                Assessment::Ask(Question::Request) => prop_assert_eq!(evidence.request, RequestSign::NotMade),
                Assessment::Ask(Question::Handshake) => prop_assert_eq!(evidence.handshake, HandshakeSign::NotTried),
                Assessment::Conclusion { .. } => {}
            }
        }

        /// More silence never makes a gateway look better.
        #[test]
        fn silence_only_worsens(evidence in evidence(), more in 0_u64..1_000_000) {
            let rank = |assessment| match assessment {
                Assessment::Conclusion { verdict: Verdict::Alive, .. } => 0,
                Assessment::Conclusion { verdict: Verdict::Wedged, .. } => 2,
                _ => 1,
            };
            let config = LivenessConfig::default();
            let later = Evidence { silence: evidence.silence + Duration::from_millis(more), ..evidence };
            prop_assert!(rank(assess(&later, LIMIT, &config)) >= rank(assess(&evidence, LIMIT, &config)));
        }
    }
}
