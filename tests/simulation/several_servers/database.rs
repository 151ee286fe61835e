//! One database of several servers: transactions in, what became of them out.
//!
//! The tables of docs/cluster.md as maps. A failover may bring them back to an earlier state.
//!
//! Invariant: a transaction is applied as a whole, and only if each of its fences names the
//! generation that the partition has.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use ringgear::cluster::blocks::{Blocks, sequences};
use ringgear::cluster::partition::{HintLock, Partition, PartitionId, Reading, Seen, State};
use ringgear::engine::record::{Operation, Row};

/// Identifies a server's process; 0 is none.
pub(super) type Token = u64;

/// What has become of a transaction.
pub(super) type Fenced = Result<(), Vec<PartitionId>>;

#[derive(Clone, Debug, Default)]
struct Tables {
    partitions: Vec<(Partition, Token)>,
    blocks: Blocks,
    next_block: u64,
    jobs: BTreeMap<u64, Row>,
}

#[derive(Debug, Default)]
pub(super) struct Database {
    tables: Tables,
    /// An earlier state, to which a failover may bring it back.
    replica: Tables,
    /// Numbers of jobs that have been removed since the last failover.
    pub(super) removed: BTreeSet<u64>,
    /// Jobs that failovers have brought back after their end. A server that adopted their partition
    /// since doesn't know of them: they stay until another one loads them.
    pub(super) restored: BTreeSet<u64>,
    /// Number of failovers so far; sessions end with each.
    pub(super) failovers: u64,
}

impl Database {
    pub(super) fn new() -> Self {
        let tables = Tables { next_block: 3, ..Tables::default() };
        Self { replica: tables.clone(), tables, ..Self::default() }
    }

    pub(super) fn partition_of(&self, number: u64) -> Option<PartitionId> {
        self.tables.blocks.partition_of(number)
    }

    /// The owner of a partition.
    pub(super) fn owner(&self, id: PartitionId) -> Token {
        self.tables.partitions[id as usize].1
    }

    /// The owner of the job of this number.
    pub(super) fn owner_of(&self, number: u64) -> Token {
        let id = self.partition_of(number);
        id.map_or(0, |id| self.tables.partitions[id as usize].1)
    }

    pub(super) fn jobs(&self) -> &BTreeMap<u64, Row> {
        &self.tables.jobs
    }

    /// All partitions. `lock` says of an owner whether it holds its lock.
    pub(super) fn readings(&self, lock: impl Fn(Token) -> HintLock) -> Vec<Reading> {
        let partitions = self.tables.partitions.iter();
        let reading = |(partition, token): &(Partition, Token)| Reading {
            partition: partition.clone(),
            lock: lock(*token),
        };
        partitions.map(reading).collect()
    }

    fn row(&mut self, id: PartitionId) -> &mut (Partition, Token) {
        &mut self.tables.partitions[id as usize]
    }

    /// Applies all operations, or none if a fence fails: then the partitions are returned that are
    /// another server's.
    pub(super) fn commit(
        &mut self,
        fences: &BTreeMap<PartitionId, i64>,
        operations: &[Operation],
    ) -> Fenced {
        let fails = |&(&id, &generation): &(&PartitionId, &i64)| {
            let partition = self.tables.partitions.get(id as usize);
            partition.is_none_or(|(partition, _)| partition.generation != generation)
        };
        let lost: Vec<PartitionId> = fences.iter().filter(fails).map(|(&id, _)| id).collect();
        if !lost.is_empty() {
            return Err(lost);
        }
        for &id in fences.keys() {
            self.row(id).0.beat += 1;
        }
        operations.iter().for_each(|operation| self.apply(operation));
        // A transaction that is tried again inserts and removes it once more.
        for number in operations.iter().filter_map(Operation::number) {
            let is_back = self.tables.jobs.contains_key(&number) && self.removed.contains(&number);
            assert!(!is_back, "job {number} was removed and is there again");
        }
        Ok(())
    }

    fn apply(&mut self, operation: &Operation) {
        let jobs = &mut self.tables.jobs;
        match operation {
            Operation::Insert { row, .. } => {
                // One that is tried again may be there.
                let old = jobs.insert(row.number, row.clone());
                let is_same = old.is_none_or(|old| old.payload == row.payload);
                assert!(is_same, "the number {} is taken", row.number);
            }
            Operation::Retry { number, runs } => {
                if let Some(row) = jobs.get_mut(number) {
                    (row.attempts, row.run_at_ms) = (runs.attempts, runs.run_at_ms);
                    (row.last_reason, row.was_lost) = (runs.last_reason, runs.was_lost);
                }
            }
            Operation::Remove { number } => {
                if jobs.remove(number).is_some() {
                    self.removed.insert(*number);
                }
            }
            Operation::Bury(_)
            | Operation::Unbury(_)
            | Operation::RemoveDead { .. }
            | Operation::Pause { .. } => panic!("{operation:?} without reason"),
        }
    }

    /// The compare-and-swap by which a server becomes the owner; returns the generation.
    pub(super) fn adopt(&mut self, seen: Seen, token: Token) -> Option<i64> {
        let row = self.row(seen.id);
        (row.0.seen() == seen).then(|| become_owned(row, token))
    }

    /// An owner comes with a new session. `before` is what it was the owner of before its last
    /// adoption: a failover may have brought that back.
    pub(super) fn reclaim(
        &mut self,
        id: PartitionId,
        token: Token,
        before: (i64, Token),
    ) -> Option<i64> {
        let row = self.tables.partitions.get_mut(id as usize)?;
        let is_own = row.1 == token || (row.0.generation, row.1) == before;
        is_own.then(|| become_owned(row, token))
    }

    /// A free partition or a new one becomes the home of a server: its generation and numbers.
    pub(super) fn take_home(&mut self, token: Token) -> (PartitionId, i64, Range<u64>) {
        let is_free = |row: &(Partition, Token)| row.0.state == State::Free;
        let at = self.tables.partitions.iter().position(is_free).unwrap_or_else(|| {
            let id = u32::try_from(self.tables.partitions.len()).unwrap();
            self.tables.partitions.push((Partition { id, ..Partition::default() }, 0));
            id as usize
        });
        let id = u32::try_from(at).unwrap();
        let generation = become_owned(&mut self.tables.partitions[at], token);
        let sequences = self.take_block(id);
        // The replica has it at once.
        self.replica.partitions.resize(self.tables.partitions.len(), (Partition::default(), 0));
        self.replica.partitions[at] = self.tables.partitions[at].clone();
        (id, generation, sequences)
    }

    fn take_block(&mut self, id: PartitionId) -> Range<u64> {
        let block = self.tables.next_block;
        self.tables.next_block += 1;
        self.tables.blocks.insert(block, id);
        sequences(block..block + 1)
    }

    /// An owner leaves a partition: it is free if it is empty, else it is offered.
    pub(super) fn leave(&mut self, id: PartitionId, generation: i64) {
        let is_empty = self.jobs_of(id, None).next().is_none();
        let row = self.row(id);
        if row.0.generation == generation {
            row.0.generation += 1;
            row.0.beat += 1;
            row.0.state = if is_empty { State::Free } else { State::Offered };
            row.1 = 0;
        }
    }

    /// An owner sets a partition free if it is empty; returns whether it does.
    pub(super) fn free(&mut self, id: PartitionId, generation: i64) -> bool {
        let is_empty = self.jobs_of(id, None).next().is_none();
        let is_free = is_empty && self.row(id).0.generation == generation;
        if is_free {
            self.leave(id, generation);
        }
        is_free
    }

    /// The jobs of a partition below a number, the largest number first.
    pub(super) fn jobs_of(
        &self,
        id: PartitionId,
        below: Option<u64>,
    ) -> impl Iterator<Item = &Row> {
        let jobs = self.tables.jobs.range(..below.unwrap_or(u64::MAX)).rev();
        jobs.map(|(_, row)| row).filter(move |row| self.partition_of(row.number) == Some(id))
    }

    /// The replica has all.
    pub(super) fn replicate(&mut self) {
        self.replica = self.tables.clone();
    }

    /// The replica takes over, without what it hasn't got; returns the jobs that are lost with
    /// that. Blocks are not among what is lost.
    pub(super) fn fail_over(&mut self) -> BTreeSet<u64> {
        self.failovers += 1;
        let Tables { blocks, next_block, jobs, .. } =
            std::mem::replace(&mut self.tables, self.replica.clone());
        (self.tables.blocks, self.tables.next_block) = (blocks, next_block);
        let now = &self.tables.jobs;
        self.restored.extend(now.keys().filter(|number| !jobs.contains_key(number)));
        // An owner of that time, which may have been stopped since, writes again what it knew.
        self.removed.clear();
        jobs.into_keys().filter(|number| !self.tables.jobs.contains_key(number)).collect()
    }
}

fn become_owned((partition, owner): &mut (Partition, Token), token: Token) -> i64 {
    partition.generation += 1;
    partition.beat += 1;
    partition.state = State::Owned;
    *owner = token;
    partition.generation
}
