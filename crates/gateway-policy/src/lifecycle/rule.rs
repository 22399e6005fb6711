//! Why the machine did what it did: each decision names its rule and the facts that the rule looked at.

use core::time::Duration;

use crate::Time;
use crate::budget::{Allowance, Limit};
use crate::epoch::Epoch;
use crate::failure::FailureClass;
use crate::liveness::{Action, Evidence, Question, Verdict};
use crate::readiness::ReadinessPurpose;
use crate::restart::RestartNumber;

use super::config::AttachMode;
use super::effect::EndReason;
use super::input::ShutdownNotice;

/// A rule that fired, with the facts it looked at. What followed is in the effects of the same journal entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    // Commands.
    /// A start: from now on a gateway is wanted.
    StartWanted,
    /// A stop: from now on none is wanted; starts and restarts that wait are superseded.
    StopWanted,
    /// A restart was requested and has this number.
    RestartWanted {
        /// The number that a launch has to cover.
        number: RestartNumber,
    },
    /// A restart was requested that waits for others of its kind.
    RestartDelayed {
        /// Until then, unless another one comes.
        until: Time,
    },
    /// The delay of a restart is over.
    RestartMatured {
        /// The number that a launch has to cover.
        number: RestartNumber,
    },
    /// A changed setting means nothing while no gateway is wanted.
    NothingToReload,
    /// A user's command ends whatever recovery was doing or had given up, and empties its account.
    UserTakesOver,

    // Starting.
    /// Nothing is known about the port; look.
    LookAtPort {
        /// The failure that recovery is at work on; `None` when a user asked.
        recovering: Option<FailureClass>,
    },
    /// The port is free and there may be a launch.
    PrepareLaunch {
        /// Restart requests up to this one are covered by it.
        covers: RestartNumber,
    },
    /// The launch context is there.
    Launch {
        /// What recovery launches it for; `None` when a user asked.
        recovering: Option<FailureClass>,
        /// How many automatic launches the budget's window holds with this one.
        in_window: u32,
    },
    /// A process of ours survived an earlier owner; what would be launched now has to tell whether it may stay.
    SurvivorFound,
    /// The survivor is what would be launched now, so it stays.
    Adopt,
    /// Nothing could be prepared in place of the survivor, so it stays.
    AdoptForWantOfAnother,
    /// The survivor is not what would be launched now, or somebody asked for a fresh one.
    ReplaceSurvivor,
    /// The port is free, and only attaching is allowed.
    NothingToAttachTo,
    /// The port is free, and the gateway that was attached to had announced to be back.
    WaitForAttached {
        /// It is waited for until then.
        until: Time,
    },
    /// A gateway was found and may be used.
    Attach,
    /// A gateway was found and may not be used.
    AttachingNotAllowed {
        /// What the settings say.
        mode: AttachMode,
    },
    /// Something else holds the port.
    PortHeldByStranger,
    /// There is a gateway to connect to.
    Connect,
    /// Hello received.
    Serve {
        /// The protocol version of the session.
        protocol: u32,
    },

    // A gateway that does not serve yet.
    /// It says that it is starting; it is asked again.
    AskAgain {
        /// The delay it advised, kept within bounds.
        delay: Duration,
    },
    /// It printed that it is ready, so it is asked now and not when it had advised.
    AskNow,
    /// The handshake failed while the gateway lives; another one is tried.
    RetryHandshake {
        /// What the failure was.
        class: FailureClass,
        /// How long to wait.
        delay: Duration,
    },
    /// The credential was refused, and there is another one.
    OtherCredential,
    /// The protocol range was refused, and the gateway names a version that suits.
    StepDown {
        /// That version.
        protocol: u32,
    },
    /// A person has to approve this device.
    AwaitApproval,
    /// Connecting to the own child cannot succeed, so it is ended.
    EndUnusable {
        /// Why.
        class: FailureClass,
    },
    /// Nothing has moved for too long.
    NotReady {
        /// What was waited for.
        purpose: ReadinessPurpose,
        /// How long.
        waited: Duration,
    },

    // Losses.
    /// The connection to the own child was lost, and the child lives: a new connection, no new child.
    ReconnectToChild {
        /// What the gateway had announced.
        notice: ShutdownNotice,
        /// How long to wait.
        delay: Duration,
    },
    /// The connection to an attached gateway was lost: the port has to tell whether it is still there.
    AttachedLost {
        /// What it had announced.
        notice: ShutdownNotice,
    },
    /// The child ended.
    ChildEnded {
        /// Whether we had asked for it.
        asked: bool,
        /// What its end amounts to.
        class: FailureClass,
    },
    /// The child could not be ended.
    ChildRefusesToEnd,
    /// Not enough is known about a silent connection.
    Ask {
        /// What has to be known.
        question: Question,
        /// What is known.
        evidence: Evidence,
    },
    /// Enough is known about an open connection.
    Conclude {
        /// What it amounts to.
        verdict: Verdict,
        /// From what.
        evidence: Evidence,
        /// What follows, with regard to whose gateway it is.
        action: Action,
    },
    /// The session lasted long enough: nothing is held against the gateway any more.
    SessionProvedStable,

    // Recovery.
    /// The configuration is broken and has not been repaired in this episode.
    RepairOnce,
    /// The repair helped; one launch may show it.
    RelaunchAfterRepair {
        /// When the budget allows that.
        allowance: Allowance,
    },
    /// Another attempt will be made.
    BackOff {
        /// What had failed.
        class: FailureClass,
        /// The number of the coming attempt.
        attempt: u32,
        /// Whether a stable session had earned an attempt without delay.
        earned: bool,
        /// What the back-off says.
        delay: Duration,
        /// What the budget says.
        allowance: Allowance,
    },
    /// Attaching is all that is allowed, so the gateway is waited for as long as it is wanted.
    WaitForGateway {
        /// How long until the next look.
        delay: Duration,
    },
    /// A limit was reached.
    GiveUp {
        /// Which one.
        limit: Limit,
        /// After how many attempts.
        attempts: u32,
        /// What had failed last.
        class: FailureClass,
    },
    /// No attempt can help; only a person can change the cause.
    Halt {
        /// What had failed.
        class: FailureClass,
    },

    // Taking down.
    /// A restart request is not covered, and nothing is under way that must not be disturbed.
    RestartDue {
        /// The newest number.
        newest: RestartNumber,
        /// What is covered.
        covered: RestartNumber,
    },
    /// A child that refused to end stands in the way of the next launch.
    EndLeftover,
    /// The socket is closed first.
    CloseFirst {
        /// Why it is taken down.
        reason: EndReason,
    },
    /// The socket is closed; now the child is ended.
    EndChild {
        /// Why.
        reason: EndReason,
    },
    /// Nothing is left.
    TakenDown,
    /// The news came from something that is no longer there, or did not fit.
    Stale {
        /// The epoch it carried.
        epoch: Epoch,
    },
}

impl Rule {
    /// Its name, in kebab case, for logs and machine-readable output.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::StartWanted => "start-wanted",
            Self::StopWanted => "stop-wanted",
            Self::RestartWanted { .. } => "restart-wanted",
            Self::RestartDelayed { .. } => "restart-delayed",
            Self::RestartMatured { .. } => "restart-matured",
            Self::NothingToReload => "nothing-to-reload",
            Self::UserTakesOver => "user-takes-over",
            Self::LookAtPort { .. } => "look-at-port",
            Self::PrepareLaunch { .. } => "prepare-launch",
            Self::Launch { .. } => "launch",
            Self::SurvivorFound => "survivor-found",
            Self::Adopt => "adopt",
            Self::AdoptForWantOfAnother => "adopt-for-want-of-another",
            Self::ReplaceSurvivor => "replace-survivor",
            Self::NothingToAttachTo => "nothing-to-attach-to",
            Self::WaitForAttached { .. } => "wait-for-attached",
            Self::Attach => "attach",
            Self::AttachingNotAllowed { .. } => "attaching-not-allowed",
            Self::PortHeldByStranger => "port-held-by-stranger",
            Self::Connect => "connect",
            Self::Serve { .. } => "serve",
            Self::AskAgain { .. } => "ask-again",
            Self::AskNow => "ask-now",
            Self::RetryHandshake { .. } => "retry-handshake",
            Self::OtherCredential => "other-credential",
            Self::StepDown { .. } => "step-down",
            Self::AwaitApproval => "await-approval",
            Self::EndUnusable { .. } => "end-unusable",
            Self::NotReady { .. } => "not-ready",
            Self::ReconnectToChild { .. } => "reconnect-to-child",
            Self::AttachedLost { .. } => "attached-lost",
            Self::ChildEnded { .. } => "child-ended",
            Self::ChildRefusesToEnd => "child-refuses-to-end",
            Self::Ask { .. } => "ask",
            Self::Conclude { .. } => "conclude",
            Self::SessionProvedStable => "session-proved-stable",
            Self::RepairOnce => "repair-once",
            Self::RelaunchAfterRepair { .. } => "relaunch-after-repair",
            Self::BackOff { .. } => "back-off",
            Self::WaitForGateway { .. } => "wait-for-gateway",
            Self::GiveUp { .. } => "give-up",
            Self::Halt { .. } => "halt",
            Self::RestartDue { .. } => "restart-due",
            Self::EndLeftover => "end-leftover",
            Self::CloseFirst { .. } => "close-first",
            Self::EndChild { .. } => "end-child",
            Self::TakenDown => "taken-down",
            Self::Stale { .. } => "stale",
        }
    }

    /// Whether it only goes on with what was decided before, like asking a starting gateway once more or finding a quiet one
    /// alive. A story that has to be short leaves these out.
    #[must_use]
    pub const fn is_routine(&self) -> bool {
        matches!(
            self,
            Self::Connect
                | Self::AskAgain { .. }
                | Self::AskNow
                | Self::RetryHandshake { .. }
                | Self::AwaitApproval
                | Self::WaitForGateway { .. }
                | Self::WaitForAttached { .. }
                | Self::Ask { .. }
                | Self::Conclude {
                    verdict: Verdict::Alive | Verdict::Slow,
                    ..
                }
        )
    }
}

/// The name and, where there are any, the facts.
impl core::fmt::Display for Rule {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let cause = |recovering: &Option<FailureClass>| {
            recovering.map_or("asked for by a user", FailureClass::name)
        };
        formatter.write_str(self.name())?;
        match self {
            Self::RestartWanted { number } | Self::RestartMatured { number } => {
                write!(formatter, " (request {number})")
            }
            Self::RestartDelayed { until } => write!(formatter, " (until {until})"),
            Self::LookAtPort { recovering } => write!(formatter, " ({})", cause(recovering)),
            Self::PrepareLaunch { covers } => {
                write!(formatter, " (covers requests up to {covers})")
            }
            Self::Launch {
                recovering,
                in_window,
            } => write!(
                formatter,
                " ({}; {in_window} automatic launches in the window)",
                cause(recovering)
            ),
            Self::WaitForAttached { until } => write!(formatter, " (until {until})"),
            Self::AttachingNotAllowed { mode } => write!(formatter, " (mode {mode:?})"),
            Self::Serve { protocol } | Self::StepDown { protocol } => {
                write!(formatter, " (protocol {protocol})")
            }
            Self::AskAgain { delay } | Self::WaitForGateway { delay } => {
                write!(formatter, " (in {delay:?})")
            }
            Self::RetryHandshake { class, delay } => {
                write!(formatter, " ({class}; in {delay:?})")
            }
            Self::EndUnusable { class } | Self::Halt { class } => write!(formatter, " ({class})"),
            Self::NotReady { purpose, waited } => {
                write!(formatter, " ({purpose:?}; waited {waited:?})")
            }
            Self::ReconnectToChild { notice, delay } => {
                write!(formatter, " ({notice}; in {delay:?})")
            }
            Self::AttachedLost { notice } => write!(formatter, " ({notice})"),
            Self::ChildEnded { asked, class } => {
                let whose = if *asked { "asked for" } else { "not asked for" };
                write!(formatter, " ({whose}; {class})")
            }
            Self::Ask { question, evidence } => write!(formatter, " ({question:?}; {evidence})"),
            Self::Conclude {
                verdict,
                evidence,
                action,
            } => write!(formatter, " ({verdict}: {action:?}; {evidence})"),
            Self::RelaunchAfterRepair { allowance } => write!(formatter, " ({allowance})"),
            Self::BackOff {
                class,
                attempt,
                earned,
                delay,
                allowance,
            } => {
                let earned = if *earned { "; earned" } else { "" };
                write!(
                    formatter,
                    " ({class}; attempt {attempt}; in {delay:?}{earned}; {allowance})"
                )
            }
            Self::GiveUp {
                limit,
                attempts,
                class,
            } => write!(formatter, " ({limit:?} after {attempts} attempts; {class})"),
            Self::RestartDue { newest, covered } => write!(
                formatter,
                " (requested up to {newest}, covered up to {covered})"
            ),
            Self::CloseFirst { reason } | Self::EndChild { reason } => {
                write!(formatter, " ({reason:?})")
            }
            Self::Stale { epoch } => write!(formatter, " ({epoch})"),
            Self::StartWanted
            | Self::StopWanted
            | Self::NothingToReload
            | Self::UserTakesOver
            | Self::AskNow
            | Self::SurvivorFound
            | Self::Adopt
            | Self::AdoptForWantOfAnother
            | Self::ReplaceSurvivor
            | Self::NothingToAttachTo
            | Self::Attach
            | Self::PortHeldByStranger
            | Self::Connect
            | Self::OtherCredential
            | Self::AwaitApproval
            | Self::ChildRefusesToEnd
            | Self::SessionProvedStable
            | Self::RepairOnce
            | Self::EndLeftover
            | Self::TakenDown => Ok(()),
        }
    }
}
