//! Which attempt an observation belongs to.

/// The number of one effect. Every observation carries the epoch of the effect that caused it, so whatever arrives late
/// from a replaced child, an abandoned handshake or a closed socket is recognised at the door and changes nothing.
///
/// Epochs are never reused within one machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The epoch with this number; useful in tests and in records that outlive the machine.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number, for logs.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl core::fmt::Display for Epoch {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "#{}", self.0)
    }
}

/// Hands out epochs, each greater than all before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EpochCounter {
    last: u64,
}

impl EpochCounter {
    /// A counter whose next epoch follows this number.
    pub(crate) const fn continuing_after(last: u64) -> Self {
        Self { last }
    }

    /// The next epoch.
    pub fn next_epoch(&mut self) -> Epoch {
        self.last = self.last.saturating_add(1);
        Epoch(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_only_grow() {
        let mut counter = EpochCounter::default();
        let mut last = Epoch::default();
        for _ in 0..100 {
            let next = counter.next_epoch();
            assert!(next > last);
            last = next;
        }
    }
}
