//! The table of pending requests: plain bookkeeping without a socket, a clock or a lock.
//!
//! Each connection owns one table, so an answer can never reach a request of an earlier connection. Ids are one
//! counter on top of a random prefix of the connection: unique, cheap to look up, and recognisable as ours when an
//! answer arrives after its request was given up.

use std::collections::BTreeMap;
use std::fmt;

use gateway_protocol::RequestId;

/// How many ids one prefix covers before the counter runs into the next prefix (which is still unique).
const IDS_PER_PREFIX: u64 = 1_000_000_000;

/// Prefixes stay below this, so that every id is exact in the double-precision numbers of JavaScript.
const PREFIX_LIMIT: u64 = 9_000_000;

/// The id of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallId(u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What an answer's id belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Match<W> {
    /// A request that waits for it.
    Waiting(W),
    /// A request of this connection that was answered or given up before.
    Late,
    /// Nothing that this connection ever asked.
    Unknown,
}

struct Pending<W> {
    waiter: W,
    sent: bool,
}

/// Pending requests with their waiters. Every waiter leaves the table exactly once.
pub(crate) struct RequestTable<W> {
    base: u64,
    next: u64,
    /// In the order in which they were made, which is also the order in which [`drain`](Self::drain) tells them.
    pending: BTreeMap<u64, Pending<W>>,
    late: u64,
    unknown: u64,
}

impl<W> RequestTable<W> {
    /// An empty table whose ids carry a prefix made of `random`.
    pub(crate) fn new(random: u32) -> Self {
        let base = (u64::from(random) % PREFIX_LIMIT + 1) * IDS_PER_PREFIX;
        Self {
            base,
            next: base,
            pending: BTreeMap::new(),
            late: 0,
            unknown: 0,
        }
    }

    /// An id without a waiter, for the connect request, whose answer the handshake itself awaits.
    pub(crate) fn reserve(&mut self) -> CallId {
        self.next += 1;
        CallId(self.next)
    }

    /// Adds a request that has not been sent.
    pub(crate) fn register(&mut self, waiter: W) -> CallId {
        let id = self.reserve();
        let pending = Pending {
            waiter,
            sent: false,
        };
        self.pending.insert(id.0, pending);
        id
    }

    /// Notes that the frame is about to go out. `false`: the caller has given up, do not send it.
    #[must_use]
    pub(crate) fn mark_sent(&mut self, id: CallId) -> bool {
        match self.pending.get_mut(&id.0) {
            Some(pending) => {
                pending.sent = true;
                true
            }
            None => false,
        }
    }

    /// Takes the waiter that an answer belongs to and counts answers without one.
    pub(crate) fn answer(&mut self, id: &RequestId) -> Match<W> {
        let Some(number) = number_of(id) else {
            self.unknown += 1;
            return Match::Unknown;
        };
        if let Some(pending) = self.pending.remove(&number) {
            return Match::Waiting(pending.waiter);
        }
        if number > self.base && number <= self.next {
            self.late += 1;
            Match::Late
        } else {
            self.unknown += 1;
            Match::Unknown
        }
    }

    /// Removes a request and tells whether its frame had gone out; `None` when it was settled already.
    pub(crate) fn remove(&mut self, id: CallId) -> Option<(W, bool)> {
        let pending = self.pending.remove(&id.0)?;
        Some((pending.waiter, pending.sent))
    }

    /// Empties the table, oldest request first; each waiter comes with whether its frame had gone out.
    pub(crate) fn drain(&mut self) -> Vec<(W, bool)> {
        let pending = std::mem::take(&mut self.pending);
        pending
            .into_values()
            .map(|pending| (pending.waiter, pending.sent))
            .collect()
    }

    /// Requests without an answer.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Answers that came after their request was settled.
    pub(crate) fn late_answers(&self) -> u64 {
        self.late
    }

    /// Answers to nothing that was asked.
    pub(crate) fn unknown_answers(&self) -> u64 {
        self.unknown
    }
}

/// The number in an id: text as we sent it, or the same digits as a JSON number from a peer that converted them.
fn number_of(id: &RequestId) -> Option<u64> {
    match id {
        RequestId::Text(text) => {
            let canonical =
                !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
            canonical.then(|| text.parse().ok()).flatten()
        }
        RequestId::Number(number) => number.as_u64(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn text(id: CallId) -> RequestId {
        RequestId::Text(id.to_string())
    }

    #[test]
    fn an_answer_is_matched_once_and_late_answers_are_counted() {
        let mut table = RequestTable::new(7);
        let first = table.register("first");
        let second = table.register("second");
        assert_ne!(first, second);
        assert!(table.mark_sent(first));
        assert_eq!(table.answer(&text(first)), Match::Waiting("first"));
        assert_eq!(table.answer(&text(first)), Match::Late);
        assert_eq!(table.remove(second), Some(("second", false)));
        assert_eq!(table.remove(second), None);
        assert!(
            !table.mark_sent(second),
            "a frame given up must not be sent"
        );
        assert_eq!(table.answer(&text(second)), Match::Late);
        assert_eq!((table.late_answers(), table.unknown_answers()), (2, 0));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn only_ids_of_this_connection_match() {
        let mut table = RequestTable::new(u32::MAX);
        let id = table.register(());
        let other = RequestTable::new(1).register(());
        let number = |n: u64| RequestId::Number(n.into());
        let strangers = [
            text(other),
            RequestId::Text("invalid".to_owned()),
            RequestId::Text(String::new()),
            RequestId::Text("0".to_owned()),
            RequestId::Text(format!("0{id}")),
            RequestId::Text(format!("+{id}")),
            RequestId::Text(format!(" {id}")),
            number(0),
            number(u64::MAX),
        ];
        for stranger in &strangers {
            assert_eq!(table.answer(stranger), Match::Unknown, "{stranger:?}");
        }
        assert_eq!(table.unknown_answers(), strangers.len() as u64);
        assert_eq!(
            table.answer(&number(id.0)),
            Match::Waiting(()),
            "same digits as a number"
        );
    }

    #[test]
    fn ids_survive_a_trip_through_a_double() {
        for random in [0, 1, 8_999_999, 9_000_000, u32::MAX] {
            let id = RequestTable::new(random).register(()).0;
            assert!(id < (1 << 53), "{id}");
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Register,
        Send(usize),
        Answer(usize),
        Foreign(u64),
        GiveUp(usize),
        Lose,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => Just(Op::Register),
            3 => any::<usize>().prop_map(Op::Send),
            3 => any::<usize>().prop_map(Op::Answer),
            1 => any::<u64>().prop_map(Op::Foreign),
            2 => any::<usize>().prop_map(Op::GiveUp),
            1 => Just(Op::Lose),
        ];
        proptest::collection::vec(op, 0..200)
    }

    proptest! {
        /// Against a model of plain sets: every request leaves the table exactly once, and what the table says
        /// about it (sent or not, late or not) is what happened.
        #[test]
        fn every_request_is_settled_exactly_once(random in any::<u32>(), ops in ops()) {
            let mut table = RequestTable::new(random);
            let mut issued: Vec<CallId> = Vec::new();
            let mut open: BTreeMap<CallId, bool> = BTreeMap::new();
            let mut settled: BTreeSet<CallId> = BTreeSet::new();
            let (mut late, mut unknown) = (0, 0);
            for op in ops {
                let pick = |n: usize| issued.get(n % issued.len().max(1)).copied();
                match op {
                    Op::Register => {
                        let waiter = issued.len();
                        let id = table.register(waiter);
                        prop_assert!(!issued.contains(&id), "ids repeat");
                        issued.push(id);
                        open.insert(id, false);
                    }
                    Op::Send(n) => if let Some(id) = pick(n) {
                        let known = open.contains_key(&id);
                        prop_assert_eq!(table.mark_sent(id), known);
                        if known { open.insert(id, true); }
                    },
                    Op::Answer(n) => if let Some(id) = pick(n) {
                        let expected = if open.remove(&id).is_some() {
                            prop_assert!(settled.insert(id));
                            Match::Waiting(issued.iter().position(|i| *i == id).unwrap_or_default())
                        } else {
                            late += 1;
                            Match::Late
                        };
                        prop_assert_eq!(table.answer(&text(id)), expected);
                    },
                    Op::Foreign(n) => {
                        if !issued.iter().any(|id| id.0 == n) {
                            unknown += 1;
                            prop_assert_eq!(table.answer(&RequestId::Number(n.into())), Match::Unknown);
                        }
                    }
                    Op::GiveUp(n) => if let Some(id) = pick(n) {
                        let expected = open.remove(&id);
                        if expected.is_some() { prop_assert!(settled.insert(id)); }
                        prop_assert_eq!(table.remove(id).map(|(_, sent)| sent), expected);
                    },
                    Op::Lose => {
                        // Oldest first, always: the loss of a connection is told in the same order every time.
                        let drained: Vec<(usize, bool)> = table.drain();
                        let expected: Vec<(usize, bool)> = issued.iter().enumerate()
                            .filter_map(|(n, id)| open.get(id).map(|sent| (n, *sent)))
                            .collect();
                        prop_assert_eq!(drained, expected);
                        for id in std::mem::take(&mut open).into_keys() {
                            prop_assert!(settled.insert(id));
                        }
                    }
                }
                prop_assert_eq!(table.len(), open.len());
            }
            prop_assert_eq!(settled.len() + open.len(), issued.len());
            prop_assert_eq!((table.late_answers(), table.unknown_answers()), (late, unknown));
        }
    }
}
