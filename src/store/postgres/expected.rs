//! What the tables should have: commits in, what a failover lost or restored out.
//!
//! A failover without synchronous replication loses the last commits. Knows numbers and pauses,
//! neither rows nor connections; compared with the tables after each reconnection.
//!
//! Invariant: `Numbers` has what all successful commits left, except what was reported as missing
//! until it is committed again. It needs about 20 bytes per job.

use std::collections::btree_set::Iter;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::iter::Peekable;

use bytes::Bytes;

use crate::engine::record::{Operation, Pause};

/// Number of removals that are remembered: more than a connected replica falls behind.
const REMOVED_MAX: usize = 1 << 17;

/// Paused functions.
pub(super) type Pauses = HashMap<Bytes, Pause>;

/// What the tables should have.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// Numbers of jobs.
    pub(super) jobs: Numbers,
    /// Numbers of dead letters.
    pub(super) dead: Numbers,
    /// `None` before the pauses are loaded.
    pub(super) pauses: Option<Pauses>,
    /// Operations that remove outdated rows, by number. Such a row is the only one of its job until
    /// the job is stored in the other table again.
    stale: BTreeMap<u64, Operation>,
}

impl Expected {
    /// Applies a successful commit.
    pub(super) fn committed(&mut self, operations: &[Operation]) {
        for operation in operations {
            match operation {
                Operation::Insert { row, .. } => self.jobs.insert(row.number),
                Operation::Remove { number } => self.jobs.remove(*number),
                Operation::Bury(dead) => {
                    self.jobs.remove(dead.row.number);
                    self.dead.insert(dead.row.number);
                }
                Operation::Unbury(row) => {
                    self.dead.remove(row.number);
                    self.jobs.insert(row.number);
                }
                Operation::RemoveDead { number } => self.dead.remove(*number),
                Operation::Retry { .. } => continue,
                Operation::Pause { function, pause } => {
                    let Some(pauses) = &mut self.pauses else { continue };
                    match pause {
                        Some(pause) => pauses.insert(function.clone(), *pause),
                        None => pauses.remove(function),
                    };
                }
            }
            if let Some(number) = operation.number() {
                self.stale.remove(&number);
            }
        }
    }

    /// Forgets missing jobs and dead letters, and returns those that are still to be stored: a
    /// commit since the comparison may have removed some.
    pub(super) fn take_missing(&mut self, [mut jobs, mut dead]: [Vec<u64>; 2]) -> Vec<u64> {
        jobs.retain(|number| self.jobs.numbers.remove(number));
        dead.retain(|number| self.dead.numbers.remove(number));
        [jobs, dead].concat()
    }

    /// The operations that remove what was restored, but for a row that is all that is left of its
    /// job: that is removed by the commit that stores the job again, or says that it is gone.
    pub(super) fn removals(&mut self, jobs: &Difference, dead: &Difference) -> Vec<Operation> {
        let remove_dead = |&number: &u64| (number, Operation::RemoveDead { number });
        let remove = |&number: &u64| (number, Operation::Remove { number });
        let restored = jobs.restored.iter().map(remove);
        let restored = restored.chain(dead.restored.iter().map(remove_dead));
        let missing: HashSet<&u64> = jobs.missing.iter().chain(&dead.missing).collect();
        let (stale, removed) = restored.partition::<Vec<_>, _>(|(number, _)| {
            missing.contains(number) || self.stale.contains_key(number)
        });
        self.stale = stale.into_iter().collect();
        removed.into_iter().map(|(_, removal)| removal).collect()
    }

    /// The operations that must precede `operations`, as these concern jobs with outdated rows.
    pub(super) fn stale_among(&self, operations: &[Operation]) -> Vec<Operation> {
        if self.stale.is_empty() {
            return Vec::new();
        }
        let changes = operations.iter().filter(|it| !matches!(it, Operation::Retry { .. }));
        let numbers: BTreeSet<u64> = changes.filter_map(Operation::number).collect();
        numbers.iter().filter_map(|number| self.stale.get(number).cloned()).collect()
    }

    /// The operations that make the table of pauses what it should be.
    pub(super) fn lost_pauses(&self, table: &Pauses) -> Vec<Operation> {
        let Some(expected) = &self.pauses else { return Vec::new() };
        let lost = expected.iter().filter(|(function, pause)| table.get(*function) != Some(*pause));
        let lost = lost.map(|(function, pause)| (function, Some(*pause)));
        let ended = table.keys().filter(|function| !expected.contains_key(*function));
        let all = lost.chain(ended.map(|function| (function, None)));
        all.map(|(function, pause)| Operation::Pause { function: function.clone(), pause })
            .collect()
    }
}

/// Numbers of the rows that a table should have.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    numbers: BTreeSet<u64>,
    /// The last removed ones, the oldest first.
    removed: VecDeque<u64>,
}

impl Numbers {
    /// Adds a row that the table has.
    pub(super) fn insert(&mut self, number: u64) {
        self.numbers.insert(number);
    }

    fn remove(&mut self, number: u64) {
        if self.removed.len() == REMOVED_MAX {
            self.removed.pop_front();
        }
        self.removed.push_back(number);
        self.numbers.remove(&number);
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

/// How a table differs from what it should have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Rows that the table has lost.
    pub(super) missing: Vec<u64>,
    /// Rows that were removed and are in the table again.
    pub(super) restored: Vec<u64>,
}

/// A comparison in progress. Rows that are neither expected nor known to be removed are left alone:
/// they may be of a commit without an answer, which will be repeated.
pub(super) struct Comparison<'a> {
    expected: Peekable<Iter<'a, u64>>,
    removed: HashSet<u64>,
    difference: Difference,
}

impl Comparison<'_> {
    /// Adds a row of the table. To be called in ascending order.
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

    /// Ends the comparison after the last row of the table.
    pub(super) fn finish(mut self) -> Difference {
        self.difference.missing.extend(self.expected);
        self.difference
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::engine::reason::Reason;
    use crate::engine::record::{DeadRow, Row, Runs};
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

    fn compare(expected: &Numbers, table: &[u64]) -> Difference {
        let mut comparison = expected.compare();
        table.iter().for_each(|number| comparison.found(*number));
        comparison.finish()
    }

    #[test]
    fn what_a_failover_took_and_gave_back_is_found() {
        let mut expected = Expected::default();
        expected.jobs.insert(1);
        expected.committed(&[insert(2), insert(4), insert(5), remove(2), insert(7), insert(9)]);
        assert_eq!(compare(&expected.jobs, &[1, 4, 5, 7, 9]), Difference::default());
        // 3 and 8 are of a commit whose answer got lost.
        let difference = compare(&expected.jobs, &[1, 2, 3, 5, 8]);
        assert_eq!(difference, Difference { missing: vec![4, 7, 9], restored: vec![2] });
        assert_eq!(compare(&expected.jobs, &[]).missing, [1, 4, 5, 7, 9]);

        // The commit that came first after it removed one of them.
        expected.committed(&[remove(7)]);
        assert_eq!(expected.take_missing([difference.missing, Vec::new()]), [4, 9]);
        assert_eq!(compare(&expected.jobs, &[1, 5]), Difference::default());
        expected.committed(&[insert(4)]);
        assert_eq!(compare(&expected.jobs, &[1, 5]).missing, [4]);
    }

    fn bury(number: u64) -> Operation {
        let Operation::Insert { row, .. } = insert(number) else { unreachable!() };
        let (worker, message) = (Bytes::new(), Bytes::new());
        Operation::Bury(Box::new(DeadRow {
            row,
            reason: Reason::Fail,
            died_ms: 0,
            worker,
            message,
        }))
    }

    fn unbury(number: u64) -> Operation {
        let Operation::Insert { row, .. } = insert(number) else { unreachable!() };
        Operation::Unbury(Box::new(row))
    }

    /// What is missing, and what is removed, if the tables have these numbers.
    fn differences(
        expected: &mut Expected,
        jobs: &[u64],
        dead: &[u64],
    ) -> (Vec<u64>, Vec<Operation>) {
        let jobs = compare(&expected.jobs, jobs);
        let dead = compare(&expected.dead, dead);
        let removals = expected.removals(&jobs, &dead);
        (expected.take_missing([jobs.missing, dead.missing]), removals)
    }

    #[test]
    fn a_job_that_died_is_expected_among_the_dead() {
        let mut expected = Expected::default();
        expected.committed(&[1, 2, 3].map(insert));
        expected.committed(&[bury(1), bury(2), bury(3), unbury(3)]);
        assert_eq!(differences(&mut expected, &[3], &[1, 2]), (vec![], vec![]));
        expected.committed(&[Operation::RemoveDead { number: 2 }]);
        let back = Operation::RemoveDead { number: 2 };
        assert_eq!(differences(&mut expected, &[3], &[1, 2]), (vec![], vec![back]));
        assert_eq!(differences(&mut expected, &[], &[]), (vec![3, 1], vec![]));
    }

    #[test]
    fn the_last_row_of_a_job_stays_until_the_job_is_stored_again() {
        let mut expected = Expected::default();
        expected.committed(&[
            insert(1),
            bury(1),
            insert(2),
            bury(2),
            unbury(2),
            insert(3),
            bury(3),
        ]);
        // As if 1, 2 and 3 had not moved.
        assert_eq!(differences(&mut expected, &[1, 3], &[2]), (vec![2, 1, 3], vec![]));
        // As if that had happened again before they were stored.
        assert_eq!(differences(&mut expected, &[1, 3], &[2]), (vec![], vec![]));
        let runs = Runs::default();
        assert_eq!(expected.stale_among(&[Operation::Retry { number: 2, runs }]), []);
        let again = [insert(2), bury(1), remove(9)];
        let stale = [remove(1), Operation::RemoveDead { number: 2 }];
        assert_eq!(expected.stale_among(&again), stale);
        expected.committed(&again);
        assert_eq!(expected.stale_among(&again), []);
        let dropped = Operation::RemoveDead { number: 3 };
        assert_eq!(expected.stale_among(std::slice::from_ref(&dropped)), [remove(3)]);
        expected.committed(&[dropped]);
        assert_eq!(differences(&mut expected, &[2], &[1]), (vec![], vec![]));
    }

    /// The commit that moved a job had no answer, and is repeated.
    #[test]
    fn a_job_that_moved_without_an_answer_is_not_missing() {
        let mut expected = Expected::default();
        expected.committed(&[insert(1), bury(1), unbury(1)]);
        let jobs = compare(&expected.jobs, &[]);
        let dead = compare(&expected.dead, &[1]);
        assert_eq!(expected.removals(&jobs, &dead), []);
        assert_eq!(expected.stale_among(&[bury(1)]), [Operation::RemoveDead { number: 1 }]);
        expected.committed(&[bury(1)]);
        assert_eq!(expected.take_missing([jobs.missing, dead.missing]), [0; 0]);
        assert_eq!(differences(&mut expected, &[], &[1]), (vec![], vec![]));
    }

    #[test]
    fn pauses_are_brought_back_as_they_were() {
        let name = |name: &'static str| Bytes::from_static(name.as_bytes());
        let set = |function, pause| Operation::Pause { function: name(function), pause };
        let table = |pauses: &[(&'static str, Pause)]| -> Pauses {
            pauses.iter().map(|&(function, pause)| (name(function), pause)).collect()
        };
        let mut expected = Expected::default();
        let found = table(&[("a", Pause::Unlimited)]);
        assert_eq!(expected.lost_pauses(&found), [], "none were loaded yet");
        expected.pauses = Some(found.clone());
        expected.committed(&[set("b", Some(Pause::Until(7))), set("a", None)]);
        let all = table(&[("b", Pause::Until(7))]);
        assert_eq!(expected.lost_pauses(&all), []);
        let mut lost = expected.lost_pauses(&found);
        lost.sort_by_key(|operation| matches!(operation, Operation::Pause { pause: None, .. }));
        assert_eq!(lost, [set("b", Some(Pause::Until(7))), set("a", None)]);
        let earlier = table(&[("b", Pause::Until(6))]);
        assert_eq!(expected.lost_pauses(&earlier), [set("b", Some(Pause::Until(7)))]);
    }

    #[test]
    fn removals_are_remembered_up_to_a_bound() {
        let mut expected = Expected::default();
        let count = REMOVED_MAX as u64 + 10;
        expected.committed(&(1..=count).map(remove).collect::<Vec<_>>());
        let table: Vec<u64> = (1..=count).collect();
        assert_eq!(compare(&expected.jobs, &table).restored, table[10..]);
    }
}
