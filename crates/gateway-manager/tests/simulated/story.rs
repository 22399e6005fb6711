//! What a random story is made of: what users do, what befalls the machine, and how each child turns out.

use std::time::Duration;

use gateway_manager::AttachMode;
use gateway_testkit::Vintage;
use gateway_testkit::scripted::{AskPlan, ChildPlan, RunPlan, SpawnFailure};
use proptest::prelude::*;

/// A command of a user.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verb {
    Start,
    Stop,
    Restart,
    Debounced { milliseconds: u32 },
}

/// A method of the fake gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Method {
    /// Answers at once.
    Health,
    /// Answers after a while.
    Slow { milliseconds: u32 },
    /// Never answers.
    Silent,
    /// Cuts the connection.
    Drop,
}

/// A program that somebody else puts on the port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stranger {
    /// A gateway, which knows our token or does not.
    Gateway {
        ours: bool,
        /// How long its restarts in place take.
        restart: u32,
    },
    Silent,
    WebServer,
}

/// One thing that happens. Nothing waits for a command or a call; they are on their way while the story goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// A command of one of the two users.
    Command {
        user: usize,
        verb: Verb,
    },
    /// Both users in the same moment.
    Together(Verb, Verb),
    /// A command whose future is dropped after a while.
    Forgotten {
        verb: Verb,
        milliseconds: u32,
    },
    Call(Method),
    CheckHealth,
    Pass {
        milliseconds: u32,
    },
    /// Time passes until the gateway serves, at most this long.
    AwaitRunning {
        milliseconds: u32,
    },
    /// Others get so many turns, in no time.
    Yield {
        turns: u8,
    },
    /// Every socket of the gateway on the port breaks.
    DropSockets,
    /// The gateway closes every socket, with a code.
    CloseSockets {
        code: u16,
    },
    /// The gateway announces a restart in place and does it.
    RestartInPlace,
    /// The gateway announces that it stops; its process may live on.
    AnnounceStop,
    Stall,
    Resume,
    /// The gateway stalls, and goes on by itself.
    Freeze {
        milliseconds: u32,
    },
    /// The listener is gone; its process lives on.
    LoseListener,
    /// The machine sleeps.
    Sleep {
        seconds: u32,
    },
    /// Somebody else takes the port, if it is free.
    Occupy(Stranger),
    /// And gives it back.
    Vacate,
}

/// How a child takes a request to end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manners {
    Obeys {
        milliseconds: u32,
    },
    Ignores,
    /// Not even force ends it.
    Unkillable,
}

/// How a child ends by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Lives,
    Exits {
        after: u32,
        code: i32,
    },
    Killed {
        after: u32,
        signal: i32,
    },
    /// It does not accept its configuration.
    Configuration {
        after: u32,
    },
}

/// How one launch turns out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Birth {
    NoProgram,
    NoResources,
    Child(Child),
}

/// How a child turns out. Times are milliseconds since the spawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child {
    /// When it listens; `None` is never.
    listens: Option<u32>,
    /// How long it then says that it is starting.
    ready: u32,
    /// How many lines it prints, ten seconds apart.
    lines: u8,
    /// How long a restart in place takes.
    restart: u32,
    stalls: Option<u32>,
    busy: bool,
    fate: Fate,
    manners: Manners,
    old: bool,
    other_token: bool,
}

/// Everything that a story depends on.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) attach: AttachMode,
    /// Whether the launch knows where its configuration is; without that the doctor is not asked.
    pub(crate) configured: bool,
    /// How the runs of the doctor turn out: milliseconds and exit code.
    pub(crate) doctors: Vec<(u32, i32)>,
    pub(crate) births: Vec<Birth>,
    pub(crate) acts: Vec<Act>,
    /// Whether hours pass before the last stop, so that every command finds its own end.
    pub(crate) patient: bool,
}

impl Story {
    /// Whether a child may be born that cannot be ended.
    pub(crate) fn has_unkillable(&self) -> bool {
        let unkillable = |birth: &Birth| matches!(birth, Birth::Child(child) if matches!(child.manners, Manners::Unkillable));
        self.births.iter().any(unkillable)
    }

    pub(crate) fn plans(&self) -> Vec<ChildPlan> {
        let plans = self.births.iter().map(|birth| birth.plan(self.configured));
        plans.collect()
    }

    pub(crate) fn run_plans(&self) -> impl Iterator<Item = RunPlan> {
        self.doctors.iter().map(|(takes, code)| RunPlan {
            takes: milliseconds(*takes),
            code: *code,
            ..RunPlan::default()
        })
    }
}

fn milliseconds(number: u32) -> Duration {
    Duration::from_millis(u64::from(number))
}

impl Birth {
    fn plan(self, configured: bool) -> ChildPlan {
        let failed = |failure| ChildPlan {
            spawn_failure: Some(failure),
            ..ChildPlan::default()
        };
        match self {
            Self::NoProgram => failed(SpawnFailure::ProgramNotFound),
            Self::NoResources => failed(SpawnFailure::Refused),
            Self::Child(child) => child.plan(configured),
        }
    }
}

impl Child {
    fn plan(self, configured: bool) -> ChildPlan {
        let mut plan = ChildPlan::default();
        if self.old {
            plan = plan.vintage(Vintage::V2026_3_2);
        }
        plan = plan.ready_after(milliseconds(self.ready));
        plan.listen_after = self.listens.map(milliseconds);
        plan.gateway.restart_gap = milliseconds(self.restart);
        plan.stall_after = self.stalls.map(milliseconds);
        plan.busy = self.busy;
        for line in 0..u32::from(self.lines) {
            plan = plan.says(milliseconds(line * 10_000), "still unpacking");
        }
        // A refused token sends the manager to the configuration, where there is one, to look for another; it does so on a real file.
        if self.other_token && !configured {
            plan.own_token = true;
            plan.gateway.token = Some("somebody else's token".into());
        }
        plan.exit = match self.fate {
            Fate::Lives => None,
            Fate::Exits { after, code } => Some((milliseconds(after), Some(code), None)),
            Fate::Killed { after, signal } => Some((milliseconds(after), None, Some(signal))),
            Fate::Configuration { after } => {
                plan = plan.says(milliseconds(after), "Invalid config");
                Some((milliseconds(after), Some(78), None))
            }
        };
        plan.ask = match self.manners {
            Manners::Obeys {
                milliseconds: after,
            } => AskPlan::Obeys {
                after: milliseconds(after),
                code: 0,
            },
            Manners::Ignores | Manners::Unkillable => AskPlan::Ignores,
        };
        plan.unkillable = matches!(self.manners, Manners::Unkillable);
        plan
    }
}

/// A time in milliseconds: often none at all or next to none, seldom minutes.
fn time(most: u32) -> impl Strategy<Value = u32> {
    prop_oneof![
        2 => Just(0),
        2 => 0..100_u32,
        4 => 0..5_000_u32.min(most),
        2 => 0..most,
    ]
}

fn verb() -> impl Strategy<Value = Verb> {
    prop_oneof![
        3 => Just(Verb::Start),
        2 => Just(Verb::Stop),
        2 => Just(Verb::Restart),
        1 => time(20_000).prop_map(|milliseconds| Verb::Debounced { milliseconds }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let method = prop_oneof![
        3 => Just(Method::Health),
        2 => time(60_000).prop_map(|milliseconds| Method::Slow { milliseconds }),
        1 => Just(Method::Silent),
        1 => Just(Method::Drop),
    ];
    let stranger = prop_oneof![
        3 => (any::<bool>(), time(60_000))
            .prop_map(|(ours, restart)| Stranger::Gateway { ours, restart }),
        1 => Just(Stranger::Silent),
        1 => Just(Stranger::WebServer),
    ];
    prop_oneof![
        8 => (0..2_usize, verb()).prop_map(|(user, verb)| Act::Command { user, verb }),
        2 => (verb(), verb()).prop_map(|(first, second)| Act::Together(first, second)),
        1 => (verb(), time(20_000))
            .prop_map(|(verb, milliseconds)| Act::Forgotten { verb, milliseconds }),
        2 => method.prop_map(Act::Call),
        1 => Just(Act::CheckHealth),
        12 => time(130_000).prop_map(|milliseconds| Act::Pass { milliseconds }),
        2 => (130_000..1_200_000_u32).prop_map(|milliseconds| Act::Pass { milliseconds }),
        5 => (0..600_000_u32).prop_map(|milliseconds| Act::AwaitRunning { milliseconds }),
        2 => (0..12_u8).prop_map(|turns| Act::Yield { turns }),
        2 => Just(Act::DropSockets),
        1 => prop_oneof![Just(1000), Just(1008), Just(1012), Just(1013)]
            .prop_map(|code| Act::CloseSockets { code }),
        2 => Just(Act::RestartInPlace),
        1 => Just(Act::AnnounceStop),
        2 => Just(Act::Stall),
        1 => Just(Act::Resume),
        2 => (0..700_000_u32).prop_map(|milliseconds| Act::Freeze { milliseconds }),
        2 => (55_000..75_000_u32).prop_map(|milliseconds| Act::Freeze { milliseconds }),
        1 => Just(Act::LoseListener),
        1 => (0..100_000_u32).prop_map(|seconds| Act::Sleep { seconds }),
        2 => stranger.prop_map(Act::Occupy),
        2 => Just(Act::Vacate),
    ]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        8 => Just(Fate::Lives),
        4 => (time(200_000), 0..90_i32).prop_map(|(after, code)| Fate::Exits { after, code }),
        2 => (time(200_000), prop_oneof![Just(9), Just(11), Just(15)])
            .prop_map(|(after, signal)| Fate::Killed { after, signal }),
        2 => time(5_000).prop_map(|after| Fate::Configuration { after }),
    ]
}

fn manners() -> impl Strategy<Value = Manners> {
    prop_oneof![
        24 => time(12_000).prop_map(|milliseconds| Manners::Obeys { milliseconds }),
        7 => Just(Manners::Ignores),
        1 => Just(Manners::Unkillable),
    ]
}

fn birth() -> impl Strategy<Value = Birth> {
    let listens = prop_oneof![
        18 => time(15_000).prop_map(Some),
        1 => (15_000..240_000_u32).prop_map(Some),
        1 => Just(None),
    ];
    let stalls = prop_oneof![
        6 => Just(None),
        1 => time(200_000).prop_map(Some),
    ];
    let seldom = || prop::bool::weighted(0.12);
    let child = (
        listens,
        time(30_000),
        prop_oneof![4 => Just(0), 1 => 0..30_u8],
        time(60_000),
        stalls,
        seldom(),
        fate(),
        manners(),
        seldom(),
        prop::bool::weighted(0.05),
    );
    let child = child.prop_map(
        |(listens, ready, lines, restart, stalls, busy, fate, manners, old, other_token)| Child {
            listens,
            ready,
            lines,
            restart,
            stalls,
            busy,
            fate,
            manners,
            old,
            other_token,
        },
    );
    prop_oneof![
        1 => Just(Birth::NoProgram),
        1 => Just(Birth::NoResources),
        28 => child.prop_map(Birth::Child),
    ]
}

pub(crate) fn story() -> impl Strategy<Value = Story> {
    let attach = prop_oneof![
        4 => Just(AttachMode::Never),
        3 => Just(AttachMode::IfPresent),
        1 => Just(AttachMode::Only),
    ];
    let doctor = (1..150_000_u32, prop_oneof![Just(0), Just(0), Just(1)]);
    let story = (
        attach,
        any::<bool>(),
        prop::collection::vec(doctor, 0..4),
        prop::collection::vec(birth(), 0..12),
        // Little happens to a gateway that nobody starts.
        prop::bool::weighted(0.7),
        prop::collection::vec(act(), 0..40),
        prop::bool::weighted(0.05),
    );
    story.prop_map(
        |(attach, configured, doctors, births, started, acts, patient)| {
            let verb = Verb::Start;
            let first = started.then_some(Act::Command { user: 0, verb });
            Story {
                attach,
                configured,
                doctors,
                births,
                acts: first.into_iter().chain(acts).collect(),
                patient,
            }
        },
    )
}
