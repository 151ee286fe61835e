//! The jobs that the table should have: commits in, jobs that a failover lost or restored out.
//!
//! A failover without synchronous replication loses the last commits. Knows numbers only, neither
//! rows nor connections; compared with the table after each reconnection.
//!
//! Invariant: `numbers` has the jobs that all successful commits left, except those reported as
//! missing until they are committed again. It needs about 20 bytes per job.

use std::collections::btree_set::Iter;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::iter::Peekable;

use crate::engine::record::Operation;

/// Number of removals that are remembered: more than a connected replica falls behind.
const REMOVED_MAX: usize = 1 << 17;

/// Numbers of the jobs that the table should have.
#[derive(Debug, Default)]
pub(super) struct ExpectedJobs {
    numbers: BTreeSet<u64>,
    /// The last removed jobs, the oldest first.
    removed: VecDeque<u64>,
}

impl ExpectedJobs {
    /// Adds a job that the table has.
    pub(super) fn insert(&mut self, number: u64) {
        self.numbers.insert(number);
    }

    /// Applies a successful commit.
    pub(super) fn committed(&mut self, operations: &[Operation]) {
        for operation in operations {
            match operation {
                Operation::Insert { row, .. } => self.insert(row.number),
                Operation::Remove { number } => {
                    if self.removed.len() == REMOVED_MAX {
                        self.removed.pop_front();
                    }
                    self.removed.push_back(*number);
                    self.numbers.remove(number);
                }
                _ => {}
            }
        }
    }

    /// Forgets the missing jobs, and returns those that are still to be stored: a commit since the
    /// comparison may have removed some.
    pub(super) fn take_missing(&mut self, mut missing: Vec<u64>) -> Vec<u64> {
        missing.retain(|number| self.numbers.remove(number));
        missing
    }

    /// Begins a comparison with the table.
    pub(super) fn compare(&self) -> Comparison<'_> {
        Comparison {
            expected: self.numbers.iter().peekable(),
            removed: self.removed.iter().copied().collect(),
            difference: Difference::default(),
        }
    }
}

/// How the table differs from what it should have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Jobs that the table has lost.
    pub(super) missing: Vec<u64>,
    /// Jobs that were removed and are in the table again.
    pub(super) restored: Vec<u64>,
}

/// A comparison in progress. Jobs that are neither expected nor known to be removed are left alone:
/// they may be of a commit without an answer, which will be repeated.
pub(super) struct Comparison<'a> {
    expected: Peekable<Iter<'a, u64>>,
    removed: HashSet<u64>,
    difference: Difference,
}

impl Comparison<'_> {
    /// Adds a job of the table. To be called in ascending order.
    pub(super) fn found(&mut self, number: u64) {
        while let Some(missing) = self.expected.next_if(|expected| **expected < number) {
            self.difference.missing.push(*missing);
        }
        if self.expected.next_if(|expected| **expected == number).is_none()
            && self.removed.contains(&number)
        {
            self.difference.restored.push(number);
        }
    }

    /// Ends the comparison after the last job of the table.
    pub(super) fn finish(mut self) -> Difference {
        self.difference.missing.extend(self.expected);
        self.difference
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::record::Row;
    use crate::wire::Priority;

    fn insert(number: u64) -> Operation {
        let text = Bytes::new;
        let (function, unique, reducer, payload) = (text(), text(), text(), text());
        let (priority, run_at_ms, attempts) = (Priority::Normal, 0, 0);
        let submitted_ms = 0;
        let row = Row {
            number,
            function,
            unique,
            reducer,
            payload,
            priority,
            run_at_ms,
            attempts,
            last_reason: None,
            was_lost: false,
            submitted_ms,
        };
        Operation::Insert { row, answered: false }
    }

    fn remove(number: u64) -> Operation {
        Operation::Remove { number }
    }

    fn compare(expected: &ExpectedJobs, table: &[u64]) -> Difference {
        let mut comparison = expected.compare();
        table.iter().for_each(|number| comparison.found(*number));
        comparison.finish()
    }

    #[test]
    fn what_a_failover_took_and_gave_back_is_found() {
        let mut expected = ExpectedJobs::default();
        expected.insert(1);
        expected.committed(&[insert(2), insert(4), insert(5), remove(2), insert(7), insert(9)]);
        assert_eq!(compare(&expected, &[1, 4, 5, 7, 9]), Difference::default());
        // 3 and 8 are of a commit whose answer got lost.
        let difference = compare(&expected, &[1, 2, 3, 5, 8]);
        assert_eq!(difference, Difference { missing: vec![4, 7, 9], restored: vec![2] });
        assert_eq!(compare(&expected, &[]).missing, [1, 4, 5, 7, 9]);

        // The commit that came first after it removed one of them.
        expected.committed(&[remove(7)]);
        assert_eq!(expected.take_missing(difference.missing), [4, 9]);
        assert_eq!(compare(&expected, &[1, 5]), Difference::default());
        expected.committed(&[insert(4)]);
        assert_eq!(compare(&expected, &[1, 5]).missing, [4]);
    }

    #[test]
    fn removals_are_remembered_up_to_a_bound() {
        let mut expected = ExpectedJobs::default();
        let count = REMOVED_MAX as u64 + 10;
        expected.committed(&(1..=count).map(remove).collect::<Vec<_>>());
        let table: Vec<u64> = (1..=count).collect();
        assert_eq!(compare(&expected, &table).restored, table[10..]);
    }
}
