//! What the tables should have: commits in, what a failover lost or restored out.
//!
//! A failover without synchronous replication loses the last commits. Knows numbers and pauses,
//! neither rows nor connections; compared with the tables after each reconnection.
//!
//! Invariant: `Numbers` has what all successful commits left, except what was reported as missing
//! until it is committed again, in the partitions that this server has. It needs about 20 bytes
//! per job.

use std::collections::btree_set::Iter;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::iter::Peekable;

use bytes::Bytes;

use crate::cluster::partition::PartitionId;
use crate::engine::record::{Operation, Pause};

/// Number of removals that are remembered: more than a connected replica falls behind.
const REMOVED_MAX: usize = 1 << 17;

/// Paused functions.
pub(super) type Pauses = HashMap<Bytes, Pause>;

/// What the tables should have of each partition, and of pauses.
#[derive(Debug, Default)]
pub(super) struct Expected {
    /// The partitions that this server has.
    partitions: BTreeMap<PartitionId, Rows>,
    /// `None` before the pauses are loaded, and where other servers change them, too.
    pub(super) pauses: Option<Pauses>,
}

/// What the tables should have of a partition.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Numbers of jobs.
    pub(super) jobs: Numbers,
    /// Numbers of dead letters.
    pub(super) dead: Numbers,
    /// Operations that remove outdated rows, by number. Such a row is the only one of its job until
    /// the job is stored in the other table again.
    stale: BTreeMap<u64, Operation>,
}

impl Rows {
    /// Applies an operation of a successful commit.
    fn committed(&mut self, operation: &Operation) {
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
            Operation::Retry { .. } | Operation::Pause { .. } => return,
        }
        if let Some(number) = operation.number() {
            self.stale.remove(&number);
        }
    }

    /// Number of jobs.
    pub(super) fn count(&self) -> u64 {
        self.jobs.numbers.len() as u64
    }

    /// Whether there are neither jobs nor dead letters.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.numbers.is_empty() && self.dead.numbers.is_empty() && self.stale.is_empty()
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
}

/// Jobs and dead letters of a partition that the tables have lost.
#[derive(Debug, Default)]
pub(super) struct Missing {
    pub(super) partition: PartitionId,
    pub(super) jobs: Vec<u64>,
    pub(super) dead: Vec<u64>,
}

impl Expected {
    /// What the tables should have of a partition, which this server has from now on.
    pub(super) fn of(&mut self, partition: PartitionId) -> &mut Rows {
        self.partitions.entry(partition).or_default()
    }

    /// What the tables should have of a partition that this server has.
    pub(super) fn get(&self, partition: PartitionId) -> Option<&Rows> {
        self.partitions.get(&partition)
    }

    /// Forgets a partition that this server has no longer.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.partitions.remove(&partition);
    }

    /// Applies a successful commit.
    pub(super) fn committed<'a>(
        &mut self,
        operations: impl IntoIterator<Item = (PartitionId, &'a Operation)>,
    ) {
        for (partition, operation) in operations {
            if let Operation::Pause { function, pause } = operation {
                let Some(pauses) = &mut self.pauses else { continue };
                match pause {
                    Some(pause) => pauses.insert(function.clone(), *pause),
                    None => pauses.remove(function),
                };
            } else if let Some(rows) = self.partitions.get_mut(&partition) {
                rows.committed(operation);
            }
        }
    }

    /// Forgets missing jobs and dead letters, and returns those that are still to be stored: a
    /// commit since the comparison may have removed some.
    pub(super) fn take_missing(&mut self, missing: Vec<Missing>) -> Vec<u64> {
        let mut all = Vec::new();
        for Missing { partition, mut jobs, mut dead } in missing {
            let Some(rows) = self.partitions.get_mut(&partition) else { continue };
            jobs.retain(|number| rows.jobs.numbers.remove(number));
            dead.retain(|number| rows.dead.numbers.remove(number));
            all.extend(jobs.into_iter().chain(dead));
        }
        all
    }

    /// The operations that must precede these, as these concern jobs with outdated rows.
    pub(super) fn stale_among<'a>(
        &self,
        operations: impl IntoIterator<Item = (PartitionId, &'a Operation)>,
    ) -> Vec<(PartitionId, Operation)> {
        if self.partitions.values().all(|rows| rows.stale.is_empty()) {
            return Vec::new();
        }
        let changes =
            operations.into_iter().filter(|(_, it)| !matches!(it, Operation::Retry { .. }));
        let numbers: BTreeSet<(PartitionId, u64)> =
            changes.filter_map(|(partition, it)| Some((partition, it.number()?))).collect();
        let stale = |&(partition, number): &(PartitionId, u64)| {
            let stale = self.partitions.get(&partition)?.stale.get(&number)?;
            Some((partition, stale.clone()))
        };
        numbers.iter().filter_map(stale).collect()
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

    /// All is in partition 0.
    fn commit(expected: &mut Expected, operations: &[Operation]) {
        expected.of(0);
        expected.committed(operations.iter().map(|operation| (0, operation)));
    }

    fn stale_among(expected: &Expected, operations: &[Operation]) -> Vec<Operation> {
        let stale = expected.stale_among(operations.iter().map(|operation| (0, operation)));
        stale.into_iter().map(|(_, operation)| operation).collect()
    }

    fn take_missing(expected: &mut Expected, jobs: Vec<u64>, dead: Vec<u64>) -> Vec<u64> {
        expected.take_missing(vec![Missing { partition: 0, jobs, dead }])
    }

    #[test]
    fn a_partition_that_is_gone_is_neither_counted_nor_missed() {
        let mut expected = Expected::default();
        expected.of(3);
        expected.of(4);
        let (first, second) = (insert(1), insert(2));
        expected.committed([(3, &first), (4, &second), (5, &second)]);
        assert_eq!(expected.get(3).map(Rows::count), Some(1));
        assert!(expected.get(5).is_none());
        expected.forget(3);
        let missing = |partition, number| Missing { partition, jobs: vec![number], dead: vec![] };
        assert_eq!(expected.take_missing(vec![missing(3, 1), missing(4, 2)]), [2]);
        assert!(expected.get(4).is_some_and(Rows::is_empty));
    }

    #[test]
    fn what_a_failover_took_and_gave_back_is_found() {
        let mut expected = Expected::default();
        expected.of(0).jobs.insert(1);
        commit(&mut expected, &[insert(2), insert(4), insert(5), remove(2), insert(7), insert(9)]);
        assert_eq!(compare(&expected.of(0).jobs, &[1, 4, 5, 7, 9]), Difference::default());
        // 3 and 8 are of a commit whose answer got lost.
        let difference = compare(&expected.of(0).jobs, &[1, 2, 3, 5, 8]);
        assert_eq!(difference, Difference { missing: vec![4, 7, 9], restored: vec![2] });
        assert_eq!(compare(&expected.of(0).jobs, &[]).missing, [1, 4, 5, 7, 9]);

        // The commit that came first after it removed one of them.
        commit(&mut expected, &[remove(7)]);
        assert_eq!(take_missing(&mut expected, difference.missing, Vec::new()), [4, 9]);
        assert_eq!(compare(&expected.of(0).jobs, &[1, 5]), Difference::default());
        commit(&mut expected, &[insert(4)]);
        assert_eq!(compare(&expected.of(0).jobs, &[1, 5]).missing, [4]);
    }

    /// A failover had brought the row back before its partition was adopted and loaded.
    #[test]
    fn a_removed_job_that_is_loaded_is_expected() {
        let mut expected = Expected::default();
        commit(&mut expected, &[insert(1), remove(1)]);
        assert_eq!(differences(&mut expected, &[1], &[]), (vec![], vec![remove(1)]));
        expected.of(0).jobs.insert(1);
        assert_eq!(differences(&mut expected, &[1], &[]), (vec![], vec![]));
        // The next owner of a partition that was set free may have the row.
        commit(&mut expected, &[remove(1)]);
        expected.forget(0);
        expected.of(0);
        assert_eq!(differences(&mut expected, &[1], &[]), (vec![], vec![]));
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
        let jobs = compare(&expected.of(0).jobs, jobs);
        let dead = compare(&expected.of(0).dead, dead);
        let removals = expected.of(0).removals(&jobs, &dead);
        (take_missing(expected, jobs.missing, dead.missing), removals)
    }

    #[test]
    fn a_job_that_died_is_expected_among_the_dead() {
        let mut expected = Expected::default();
        commit(&mut expected, &[1, 2, 3].map(insert));
        commit(&mut expected, &[bury(1), bury(2), bury(3), unbury(3)]);
        assert_eq!(differences(&mut expected, &[3], &[1, 2]), (vec![], vec![]));
        commit(&mut expected, &[Operation::RemoveDead { number: 2 }]);
        let back = Operation::RemoveDead { number: 2 };
        assert_eq!(differences(&mut expected, &[3], &[1, 2]), (vec![], vec![back]));
        assert_eq!(differences(&mut expected, &[], &[]), (vec![3, 1], vec![]));
    }

    #[test]
    fn the_last_row_of_a_job_stays_until_the_job_is_stored_again() {
        let mut expected = Expected::default();
        commit(
            &mut expected,
            &[insert(1), bury(1), insert(2), bury(2), unbury(2), insert(3), bury(3)],
        );
        // As if 1, 2 and 3 had not moved.
        assert_eq!(differences(&mut expected, &[1, 3], &[2]), (vec![2, 1, 3], vec![]));
        // As if that had happened again before they were stored.
        assert_eq!(differences(&mut expected, &[1, 3], &[2]), (vec![], vec![]));
        let runs = Runs::default();
        assert_eq!(stale_among(&expected, &[Operation::Retry { number: 2, runs }]), []);
        let again = [insert(2), bury(1), remove(9)];
        let stale = [remove(1), Operation::RemoveDead { number: 2 }];
        assert_eq!(stale_among(&expected, &again), stale);
        commit(&mut expected, &again);
        assert_eq!(stale_among(&expected, &again), []);
        let dropped = Operation::RemoveDead { number: 3 };
        assert_eq!(stale_among(&expected, std::slice::from_ref(&dropped)), [remove(3)]);
        commit(&mut expected, &[dropped]);
        assert_eq!(differences(&mut expected, &[2], &[1]), (vec![], vec![]));
    }

    /// The commit that moved a job had no answer, and is repeated.
    #[test]
    fn a_job_that_moved_without_an_answer_is_not_missing() {
        let mut expected = Expected::default();
        commit(&mut expected, &[insert(1), bury(1), unbury(1)]);
        let jobs = compare(&expected.of(0).jobs, &[]);
        let dead = compare(&expected.of(0).dead, &[1]);
        assert_eq!(expected.of(0).removals(&jobs, &dead), []);
        assert_eq!(stale_among(&expected, &[bury(1)]), [Operation::RemoveDead { number: 1 }]);
        commit(&mut expected, &[bury(1)]);
        assert_eq!(take_missing(&mut expected, jobs.missing, dead.missing), [0; 0]);
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
        commit(&mut expected, &[set("b", Some(Pause::Until(7))), set("a", None)]);
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
        commit(&mut expected, &(1..=count).map(remove).collect::<Vec<_>>());
        let table: Vec<u64> = (1..=count).collect();
        assert_eq!(compare(&expected.of(0).jobs, &table).restored, table[10..]);
    }
}
