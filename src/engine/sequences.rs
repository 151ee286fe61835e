//! Sequence numbers of jobs: reserved ranges in, numbers out.
//!
//! With a store, ranges of numbers are reserved on disk before any of them is used. All cores use
//! the same ranges; the slot in a job's number makes it unique (`handle::job_number`).
//!
//! Invariant: each number is taken once, and none that isn't in a reserved range.

use std::collections::VecDeque;
use std::ops::Range;

use super::Engine;
use super::handle::SEQUENCE_MAX;

/// The sequence numbers that are left to a core.
#[derive(Clone, Debug)]
pub(super) struct Sequences {
    next: u64,
    end: u64,
    /// Further ranges, the next one first.
    later: VecDeque<Range<u64>>,
}

impl Sequences {
    /// All numbers from `first` on.
    pub(super) fn from(first: u64) -> Self {
        Self { next: first, end: SEQUENCE_MAX, later: VecDeque::new() }
    }

    /// The next number; `None` if more must be reserved first.
    #[inline]
    pub(super) fn take(&mut self) -> Option<u64> {
        if self.next >= self.end {
            let Range { start, end } = self.later.pop_front()?;
            (self.next, self.end) = (start, end);
        }
        let sequence = self.next;
        let is_free = sequence < self.end;
        self.next += u64::from(is_free);
        is_free.then_some(sequence)
    }

    /// The number that `take` would return.
    pub(super) fn peek(&self) -> Option<u64> {
        let next = if self.next < self.end { Some(self.next) } else { None };
        next.or_else(|| self.later.front().map(|range| range.start))
    }

    /// Skips all numbers of the current range up to this one, which a recovered job has.
    pub(super) fn skip(&mut self, sequence: u64) {
        if (self.next..self.end).contains(&sequence) {
            self.next = sequence + 1;
        }
    }
}

impl Engine {
    /// Allows no sequence numbers but these.
    pub fn set_sequences(&mut self, Range { start, end }: Range<u64>) {
        self.sequences = Sequences { next: start, end, later: VecDeque::new() };
    }

    /// Allows these sequence numbers, too.
    pub fn allow_sequences(&mut self, range: Range<u64>) {
        let Sequences { end, later, .. } = &mut self.sequences;
        let last = later.back_mut().map_or(end, |range| &mut range.end);
        if *last == range.start {
            *last = range.end;
        } else {
            later.push_back(range);
        }
    }

    /// Number of sequence numbers left.
    #[must_use]
    pub fn sequences_left(&self) -> u64 {
        let Sequences { next, end, later } = &self.sequences;
        end.saturating_sub(*next) + later.iter().map(|range| range.end - range.start).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use crate::engine::SubmitError;
    use crate::engine::handle::SLOT_BITS;
    use crate::engine::tests::{Fixture, settings};
    use crate::wire::Command;

    #[test]
    fn a_job_without_a_reserved_number_is_refused_and_one_that_joins_needs_none() {
        let mut fixture = Fixture::new(settings());
        fixture.engine.set_sequences(1..3);
        let first = fixture.submit(0, Command::SubmitJobBg, "f\0u\0");
        assert_eq!(fixture.engine.sequences_left(), 1);
        fixture.background("f");
        for _ in 0..2 {
            let refused = fixture.try_submit(0, Command::SubmitJob, "f\0\0");
            assert_eq!(refused, Err(SubmitError::OutOfNumbers));
        }
        assert_eq!(fixture.submit(1, Command::SubmitJob, "f\0u\0"), first);
        fixture.engine.allow_sequences(3..4);
        let last = fixture.background("f");
        assert_eq!(last - first, 2 << SLOT_BITS, "none is left out");
        // Another server has taken what was between.
        fixture.engine.allow_sequences(9..10);
        assert_eq!(fixture.background("f") - first, 8 << SLOT_BITS);
        assert_eq!(fixture.engine.sequences_left(), 0);
    }
}
