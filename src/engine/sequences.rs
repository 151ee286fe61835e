//! Sequence numbers of jobs: reserved ranges in, numbers out in ascending order.
//!
//! With a store, a block of numbers is reserved on disk before any of it is used. All cores use the
//! same block; the slot in a job's number makes it unique (`handle::job_number`).
//!
//! Invariant: each number is taken once, and none at or above `end`.

use super::Engine;
use super::handle::SEQUENCE_MAX;

/// The sequence numbers that are left to a core.
#[derive(Clone, Debug)]
pub(super) struct Sequences {
    next: u64,
    end: u64,
}

impl Sequences {
    /// All numbers from `first` on.
    pub(super) fn from(first: u64) -> Self {
        Self { next: first, end: SEQUENCE_MAX }
    }

    /// The next number; `None` if more must be reserved first.
    #[inline]
    pub(super) fn take(&mut self) -> Option<u64> {
        let sequence = self.next;
        let is_free = sequence < self.end;
        self.next += u64::from(is_free);
        is_free.then_some(sequence)
    }

    /// Skips all numbers up to this one, which a recovered job has.
    pub(super) fn skip(&mut self, sequence: u64) {
        self.next = self.next.max(sequence + 1);
    }
}

impl Engine {
    /// Allows sequence numbers below `end`.
    pub fn allow_sequences(&mut self, end: u64) {
        self.sequences.end = end;
    }

    /// Number of sequence numbers left.
    #[must_use]
    pub fn sequences_left(&self) -> u64 {
        self.sequences.end.saturating_sub(self.sequences.next)
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::SubmitError;
    use crate::engine::tests::{Fixture, settings};
    use crate::wire::Command;

    #[test]
    fn a_job_without_a_reserved_number_is_refused_and_one_that_joins_needs_none() {
        let mut fixture = Fixture::new(settings());
        fixture.engine.allow_sequences(3);
        let first = fixture.submit(0, Command::SubmitJobBg, "f\0u\0");
        assert_eq!(fixture.engine.sequences_left(), 1);
        fixture.background("f");
        for _ in 0..2 {
            let refused = fixture.try_submit(0, Command::SubmitJob, "f\0\0");
            assert_eq!(refused, Err(SubmitError::OutOfNumbers));
        }
        assert_eq!(fixture.submit(1, Command::SubmitJob, "f\0u\0"), first);
        fixture.engine.allow_sequences(4);
        let last = fixture.background("f");
        assert_eq!(last - first, 2 << crate::engine::handle::SLOT_BITS, "none is left out");
        assert_eq!(fixture.engine.sequences_left(), 0);
    }
}
