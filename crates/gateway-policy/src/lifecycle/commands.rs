//! What users ask for.

use core::time::Duration;

use super::{CredentialChoice, Desired, DisconnectReason, EndReason, Lifecycle, Rule, Step, Then};
use crate::Time;
use crate::status::{Ticket, TicketOutcome};

impl Lifecycle {
    pub(super) fn on_start(&mut self, ticket: Ticket) {
        self.fired(Rule::StartWanted);
        self.desired = Desired::Running;
        self.starts.push(ticket);
        self.resume_by_user();
    }

    pub(super) fn on_stop(&mut self, ticket: Ticket) {
        self.fired(Rule::StopWanted);
        // The stop is carried through even when a start follows on its heels: only then does the start mean a fresh gateway.
        self.begin_teardown(
            DisconnectReason::UserStop,
            EndReason::UserStop,
            Then::Proceed,
        );
        self.desired = Desired::Stopped;
        self.stops.push(ticket);
        let starts = core::mem::take(&mut self.starts);
        for ticket in starts.into_iter().chain(self.restarts.clear()) {
            self.answer(ticket, TicketOutcome::Superseded);
        }
    }

    pub(super) fn on_restart(&mut self, ticket: Ticket) {
        self.desired = Desired::Running;
        let number = self.restarts.request(ticket);
        self.fired(Rule::RestartWanted { number });
        self.resume_by_user();
    }

    pub(super) fn on_restart_debounced(&mut self, now: Time, ticket: Ticket, delay: Duration) {
        match self.desired {
            Desired::Stopped => {
                self.fired(Rule::NothingToReload);
                self.answer(ticket, TicketOutcome::NothingToDo);
            }
            Desired::Running => {
                self.fired(Rule::RestartDelayed { until: now + delay });
                self.restarts.request_debounced(now, delay, ticket);
            }
        }
    }

    /// A user's command ends whatever the machine had resigned itself to, with a full account.
    fn resume_by_user(&mut self) {
        let resigned = match &self.step {
            Step::Halted(_) => true,
            Step::Waiting { reason, .. } => reason.can_be_cut_short(),
            _ => false,
        };
        if resigned {
            self.fired(Rule::UserTakesOver);
            self.step = Step::Idle;
            self.start_over();
        }
    }

    /// Whatever comes next is a first start again.
    pub(super) fn begin_anew(&mut self) {
        self.served = false;
        self.start_over();
    }

    fn start_over(&mut self) {
        self.earned_retry = false;
        self.recovering = None;
        self.attached_back_by = None;
        self.failure = None;
        self.ledger.clear();
        self.forgive();
    }

    /// Nothing is held against the gateway any more, except what the budget's window holds.
    pub(super) fn forgive(&mut self) {
        self.ledger.forgive();
        self.slowness = 0;
        self.repair.refill();
        self.credential = CredentialChoice::default();
        self.protocols = self.config.protocols;
    }
}
