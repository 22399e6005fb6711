//! Machines that behave alike from now on, made equal: what a model checker needs to know that it has been here before.

use alloc::collections::BTreeMap;

use super::{Lifecycle, Rule, Step, Watch};
use crate::Time;
use crate::epoch::{Epoch, EpochCounter};
use crate::status::Ticket;

/// What `now` is called in a normal form: late enough for every age that matters, and for the same age always the same.
const ORIGIN: Time = Time::from_millis(1 << 40);

/// A machine without what does not matter for its future, and the new names of what it waits for.
///
/// Two machines with equal normal forms do the same from now on, names and texts of messages aside.
#[derive(Clone, Debug)]
pub struct NormalForm {
    /// The machine on a clock on which now is always the same time, with its epochs and tickets counted from one.
    pub machine: Lifecycle,
    /// The new number of each epoch that it would still hear; all others are stale.
    pub epochs: BTreeMap<Epoch, u64>,
    /// The new number of each ticket that it still has to answer.
    pub tickets: BTreeMap<Ticket, u64>,
}

impl Lifecycle {
    /// The machine with everything removed that has no consequences: where the clock stands, how many epochs and tickets there
    /// were before, which rules fired, the texts of failures, the history that is only told.
    ///
    /// Between two inputs only: effects that have not been polled are kept as they are.
    #[must_use]
    pub fn normal_form(&self, now: Time) -> NormalForm {
        let mut machine = self.clone();
        let (mut epochs, mut tickets) = (BTreeMap::new(), BTreeMap::new());
        {
            let mut rename = |epoch: &mut Epoch| {
                let next = epochs.len() as u64 + 1;
                *epoch = Epoch::from_number(*epochs.entry(*epoch).or_insert(next));
            };
            if let Some(child) = &mut machine.child {
                rename(&mut child.epoch);
            }
            match &mut machine.step {
                Step::Discovering(epoch)
                | Step::Preparing(epoch)
                | Step::Spawning(epoch)
                | Step::Connecting(epoch)
                | Step::Disconnecting(epoch)
                | Step::Repairing { epoch, .. } => rename(epoch),
                Step::Connected(session) => rename(&mut session.epoch),
                Step::Idle | Step::Terminating | Step::Waiting { .. } | Step::Halted(_) => {}
            }
        }
        machine.epochs = EpochCounter::continuing_after(epochs.len() as u64);
        {
            let mut rename = |ticket: &mut Ticket| {
                let next = tickets.len() as u64 + 1;
                *ticket = Ticket::from_number(*tickets.entry(*ticket).or_insert(next));
            };
            let waiting = machine.starts.iter_mut().chain(&mut machine.stops);
            waiting
                .chain(machine.restarts.tickets_mut())
                .for_each(&mut rename);
        }
        let shift = |time: &mut Time| *time = time.rebase(now, ORIGIN);
        match &mut machine.step {
            Step::Waiting { until, .. } => shift(until),
            Step::Connected(session) => {
                session.since = ORIGIN;
                if let Watch::LookAt(at) = &mut session.watch {
                    shift(at);
                }
                session.stable_at.iter_mut().for_each(shift);
            }
            Step::Halted(Some(gave_up)) => {
                gave_up.history.clear();
                gave_up.lasted = core::time::Duration::ZERO;
            }
            _ => {}
        }
        machine.attached_back_by.iter_mut().for_each(shift);
        if let Some(wait) = &mut machine.readiness {
            wait.rebase(now, ORIGIN);
        }
        machine.restarts.normalize(now, ORIGIN);
        let budget = machine.config.budget.clone();
        machine.ledger.normalize(&budget, now, ORIGIN);
        if let Some(failure) = &mut machine.failure {
            failure.message.clear();
        }
        if let Some(super::Teardown {
            then: super::Then::Fail(failure),
            ..
        }) = &mut machine.teardown
        {
            failure.message.clear();
        }
        machine.rules.retain(|_: &Rule| false);
        machine.published = machine.status();
        NormalForm {
            machine,
            epochs,
            tickets,
        }
    }
}
