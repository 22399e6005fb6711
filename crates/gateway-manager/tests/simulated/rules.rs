//! What must hold in every story, seen from outside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gateway_manager::{GatewayManager, GatewayState, GatewayStatus, JournalEntry, Phase};
use gateway_policy::lifecycle::Rule;
use gateway_policy::{Effect, Input, Time, Trigger};
use gateway_testkit::scripted::{Happening, Machine, Record};

use crate::play::Account;

/// How many automatic launches may lie in one window, and how long that is: the defaults of the budget.
const BURST: usize = 5;
const WINDOW: Duration = Duration::from_secs(300);

/// How long the manager may not know yet that a child has ended: it waits for the last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The rules of the lifecycle machine that a few hundred stories lead to at the least.
pub(crate) const REACHED: &[&str] = &[
    "ask",
    "ask-again",
    "attach",
    "attaching-not-allowed",
    "back-off",
    "child-ended",
    "child-refuses-to-end",
    "close-first",
    "conclude",
    "connect",
    "end-child",
    "end-unusable",
    "give-up",
    "halt",
    "launch",
    "look-at-port",
    "not-ready",
    "nothing-to-attach-to",
    "nothing-to-reload",
    "other-credential",
    "port-held-by-stranger",
    "prepare-launch",
    "reconnect-to-child",
    "relaunch-after-repair",
    "repair-once",
    "restart-delayed",
    "restart-due",
    "restart-matured",
    "restart-wanted",
    "retry-handshake",
    "serve",
    "session-proved-stable",
    "start-wanted",
    "stop-wanted",
    "taken-down",
    "user-takes-over",
    "wait-for-gateway",
];

/// All rules that a whole story can be held against.
pub(crate) fn hold(account: &Account) {
    let Account { records, moves, .. } = account;
    signals_go_to_living_children(records);
    every_launch_is_in_the_journal(records, moves);
    automatic_launches_stay_within_the_budget(records, moves);
    recovery_launches_what_recovery_decided_on(moves);
    every_ticket_is_answered_once(moves);
    for (at, status) in published(moves) {
        status_agrees_with_itself(status);
        pid_is_that_of_a_child(records, at, status);
    }
}

/// The status is derived from one machine, so its parts agree.
pub(crate) fn status_agrees_with_itself(status: &GatewayStatus) {
    let calm = matches!(status.state, GatewayState::Running | GatewayState::Stopped);
    assert!(!calm || status.failure.is_none(), "{status:?}");
    let connected = status.session.is_some();
    assert_eq!(status.connected_at.is_some(), connected, "{status:?}");
    assert_eq!(status.liveness.is_some(), connected, "{status:?}");
    let gave_up = status.phase == Phase::GaveUp;
    assert_eq!(status.gave_up.is_some(), gave_up, "{status:?}");
}

/// After time has passed there is no child that the status does not know.
pub(crate) fn living_child_is_in_the_status(machine: &Machine, manager: &GatewayManager) {
    let status = manager.status().borrow().clone();
    for pid in machine.living() {
        assert_eq!(status.pid, Some(pid), "{status:?}");
    }
}

fn published(moves: &[JournalEntry]) -> impl Iterator<Item = (Duration, &GatewayStatus)> {
    let statuses = |entry: &JournalEntry| {
        let statuses = entry.effects.iter().enumerate();
        let at = |(index, effect): (usize, &Effect)| {
            matches!(effect, Effect::PublishStatus(_)).then_some(index)
        };
        statuses.filter_map(at).collect::<Vec<_>>()
    };
    moves.iter().flat_map(move |entry| {
        statuses(entry)
            .into_iter()
            .filter_map(|index| match &entry.effects[index] {
                Effect::PublishStatus(status) => Some((since_origin(entry.at), status)),
                _ => None,
            })
    })
}

fn since_origin(time: Time) -> Duration {
    time.elapsed_from_origin()
}

fn pid_is_that_of_a_child(records: &[Record], at: Duration, status: &GatewayStatus) {
    let Some(shown) = status.pid else { return };
    let lived = |record: &Record| match record.happening {
        Happening::Spawned { pid, .. } => pid == shown && record.at <= at,
        _ => false,
    };
    assert!(records.iter().any(lived), "never spawned: {status:?}");
    let long_gone = |record: &Record| match record.happening {
        Happening::Exited { pid, .. } => pid == shown && record.at + LAST_WORDS < at,
        _ => false,
    };
    assert!(!records.iter().any(long_gone), "long gone: {status:?}");
}

/// No signal to anything that was not spawned here, or that has ended.
fn signals_go_to_living_children(records: &[Record]) {
    let mut living = BTreeSet::new();
    for record in records {
        match record.happening {
            Happening::Spawned { pid, .. } => {
                assert!(living.insert(pid), "{record:?}");
            }
            Happening::Asked { pid, .. } | Happening::Killed { pid } => {
                assert!(living.contains(&pid), "{record:?}");
            }
            Happening::Exited { pid, .. } => assert!(living.remove(&pid), "{record:?}"),
            _ => {}
        }
    }
}

/// When the journal says that something was launched, and for whom.
fn launches(moves: &[JournalEntry]) -> impl Iterator<Item = (usize, Duration, bool)> {
    moves.iter().enumerate().flat_map(|(index, entry)| {
        let launches = entry.rules.iter().filter_map(|rule| match rule {
            Rule::Launch { recovering, .. } => Some(recovering.is_some()),
            _ => None,
        });
        launches.map(move |automatic| (index, since_origin(entry.at), automatic))
    })
}

/// What the machine saw and what the journal says is the same.
fn every_launch_is_in_the_journal(records: &[Record], moves: &[JournalEntry]) {
    let seen = records.iter().filter_map(|record| match record.happening {
        Happening::Spawned { .. } | Happening::SpawnFailed { .. } => Some(record.at),
        _ => None,
    });
    let said = launches(moves).map(|(_, at, _)| at);
    assert_eq!(seen.collect::<Vec<_>>(), said.collect::<Vec<_>>());
}

/// Whether a user had his say in this move; what he asks for empties the account.
fn is_by_user(entry: &JournalEntry) -> bool {
    let by_command = matches!(
        entry.trigger,
        Trigger::Input(
            Input::Start(_) | Input::Stop(_) | Input::Restart(_) | Input::RestartDebounced { .. }
        )
    );
    let by_delay = |rule: &Rule| {
        matches!(
            rule,
            Rule::RestartMatured { .. } | Rule::RestartDue { .. } | Rule::UserTakesOver
        )
    };
    by_command || entry.rules.iter().any(by_delay)
}

fn automatic_launches_stay_within_the_budget(records: &[Record], moves: &[JournalEntry]) {
    let in_window = |times: &[Duration], at: Duration| {
        let recent = |time: &&Duration| **time + WINDOW > at && **time <= at;
        times.iter().filter(recent).count()
    };
    // By the journal: exactly the automatic ones.
    let (mut launched, mut automatic, mut by_user) = (launches(moves).peekable(), Vec::new(), 0);
    let mut wishes = 0;
    for (index, entry) in moves.iter().enumerate() {
        if is_by_user(entry) {
            automatic.clear();
            wishes += 1;
        }
        while let Some((_, at, is_automatic)) = launched.next_if(|(of, ..)| *of == index) {
            if is_automatic {
                automatic.push(at);
                let recent = in_window(&automatic, at);
                assert!(recent <= BURST, "{recent} automatic launches at {at:?}");
            } else {
                by_user += 1;
                assert!(by_user <= wishes, "nobody asked for the launch at {at:?}");
            }
        }
    }
    // By what the machine saw: between two moves of users, what they asked for and what recovery may do.
    let spawned = records.iter().filter_map(|record| match record.happening {
        Happening::Spawned { .. } => Some(record.at),
        _ => None,
    });
    let spawned: Vec<Duration> = spawned.collect();
    let moved = moves.iter().filter(|entry| is_by_user(entry));
    let moved: Vec<Duration> = moved.map(|entry| since_origin(entry.at)).collect();
    for at in &spawned {
        let last = moved.iter().rev().find(|time| *time <= at);
        let since = spawned
            .iter()
            .filter(|time| last.is_none_or(|last| *time > last));
        let since: Vec<Duration> = since.copied().collect();
        let recent = in_window(&since, *at);
        assert!(recent <= BURST + 1, "{recent} launches at {at:?}");
    }
}

/// A launch is automatic if and only if recovery decided on it and no user has had his say since.
fn recovery_launches_what_recovery_decided_on(moves: &[JournalEntry]) {
    let mut decided = false;
    for entry in moves {
        for rule in &entry.rules {
            match rule {
                Rule::BackOff { .. }
                | Rule::RelaunchAfterRepair { .. }
                | Rule::AttachedLost { .. } => {
                    decided = true;
                }
                Rule::UserTakesOver
                | Rule::StopWanted
                | Rule::RestartDue { .. }
                | Rule::EndLeftover => {
                    decided = false;
                }
                Rule::Launch { recovering, .. } => {
                    let decided = std::mem::take(&mut decided);
                    assert_eq!(recovering.is_some(), decided, "{entry}");
                }
                _ => {}
            }
        }
    }
}

fn every_ticket_is_answered_once(moves: &[JournalEntry]) {
    let mut answers = BTreeMap::new();
    for entry in moves {
        if let Trigger::Input(
            Input::Start(ticket)
            | Input::Stop(ticket)
            | Input::Restart(ticket)
            | Input::RestartDebounced { ticket, .. },
        ) = &entry.trigger
        {
            answers.insert(*ticket, 0);
        }
        for effect in &entry.effects {
            if let Effect::Answer { ticket, .. } = effect {
                *answers.get_mut(ticket).expect("somebody asked") += 1;
            }
        }
    }
    let wrong: Vec<_> = answers.iter().filter(|(_, times)| **times != 1).collect();
    assert!(wrong.is_empty(), "not answered once: {wrong:?}");
}
