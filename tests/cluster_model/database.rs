//! The table of partitions and the rows of jobs: transactions in, what became of them out.
//!
//! Knows the statements of docs/cluster.md as functions, each of which happens at one moment.
//!
//! Invariant: each change of the owner raises the generation, and a transaction changes a partition
//! only in the generation that its fence names (unless `Fault::NoFence` says otherwise).

use std::collections::BTreeSet;

use ringgear::cluster::blocks::{Blocks, sequences};
use ringgear::cluster::partition::{HintLock, Partition, PartitionId, Reading, Seen, State};
use ringgear::engine::handle::job_number;

use crate::scenario::Fault;

/// Number of a server.
pub(crate) type ServerId = usize;

/// Number of partitions at the start.
pub(crate) const PARTITIONS: u32 = 2;

/// A partition and its jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) generation: i64,
    pub(crate) beat: i64,
    pub(crate) state: State,
    pub(crate) owner: Option<ServerId>,
    pub(crate) jobs: BTreeSet<u64>,
}

/// What a server sends to be committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Transaction {
    /// The partitions that it touches, with the sender's generations.
    pub(crate) fences: Vec<(PartitionId, i64)>,
    pub(crate) inserts: Vec<u64>,
    pub(crate) removes: Vec<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Database {
    pub(crate) rows: Vec<Row>,
    pub(crate) blocks: Blocks,
    /// Numbers whose removal is committed.
    pub(crate) removed: BTreeSet<u64>,
}

impl Database {
    /// One partition for each of the servers, with a job in it, and its first free number.
    pub(crate) fn start() -> Self {
        let mut database = Self::default();
        for id in 0..PARTITIONS {
            let row = Row { generation: 1, beat: 1, state: State::Owned, ..Row::default() };
            database.rows.push(Row { owner: usize::try_from(id).ok(), ..row });
            let number = database.take_block(id);
            database.row(id).jobs.insert(number);
        }
        database
    }

    pub(crate) fn row(&mut self, id: PartitionId) -> &mut Row {
        &mut self.rows[id as usize]
    }

    /// The first number of a new block.
    pub(crate) fn take_block(&mut self, id: PartitionId) -> u64 {
        let block = self.blocks.last().map_or(7, |last| last + 1);
        self.blocks.insert(block, id);
        job_number(sequences(block..block + 1).start, 0)
    }

    /// `holds_locks` says of a server whether its session does, if the database tells.
    pub(crate) fn readings(&self, holds_locks: impl Fn(ServerId) -> Option<bool>) -> Vec<Reading> {
        let reading = |(id, row): (u32, &Row)| Reading {
            partition: Partition {
                id,
                generation: row.generation,
                beat: row.beat,
                state: row.state,
                ..Partition::default()
            },
            lock: match row.owner.map(&holds_locks) {
                Some(None) => HintLock::Unknown,
                Some(Some(true)) => HintLock::Held,
                Some(Some(false)) | None => HintLock::Free,
            },
        };
        (0..).zip(&self.rows).map(reading).collect()
    }

    /// Applies all of it, or nothing and returns the partitions that are another server's.
    pub(crate) fn commit(
        &mut self,
        transaction: &Transaction,
        fault: Option<Fault>,
    ) -> Vec<PartitionId> {
        let Transaction { fences, inserts, removes } = transaction;
        let is_lost = |&&(id, generation): &&(PartitionId, i64)| {
            self.rows[id as usize].generation != generation && fault != Some(Fault::NoFence)
        };
        let lost: Vec<_> = fences.iter().filter(is_lost).map(|&(id, _)| id).collect();
        if !lost.is_empty() {
            return lost;
        }
        for &(id, _) in fences {
            self.row(id).beat += 1;
        }
        for &number in inserts {
            let Some(id) = self.blocks.partition_of(number) else { panic!("a number of no block") };
            // A server whose fault is to insert it elsewhere has no fence for its partition.
            let id = fences
                .iter()
                .find(|fence| fence.0 == id)
                .or_else(|| fences.first())
                .map_or(id, |it| it.0);
            self.row(id).jobs.insert(number);
        }
        for &number in removes {
            self.rows.iter_mut().for_each(|row| row.jobs.retain(|&job| job != number));
            self.removed.insert(number);
        }
        Vec::new()
    }

    /// A new partition, which is free.
    pub(crate) fn make_partition(&mut self) -> PartitionId {
        self.rows.push(Row::default());
        u32::try_from(self.rows.len() - 1).unwrap_or_default()
    }

    /// The compare-and-swap by which a server becomes the owner.
    pub(crate) fn adopt(&mut self, seen: Seen, owner: ServerId) -> Option<i64> {
        let row = self.row(seen.id);
        if (row.generation, row.beat) != (seen.generation, seen.beat) {
            return None;
        }
        Some(row.become_owned(owner))
    }

    /// The owner comes with a new session.
    pub(crate) fn reclaim(&mut self, id: PartitionId, owner: ServerId) -> Option<i64> {
        let row = self.row(id);
        (row.owner == Some(owner)).then(|| row.become_owned(owner))
    }

    /// The owner gives an adopted partition up, if it is empty; returns whether it does.
    pub(crate) fn free(&mut self, id: PartitionId, generation: i64) -> bool {
        let row = self.row(id);
        let is_free = row.generation == generation && row.jobs.is_empty();
        if is_free {
            row.leave(State::Free);
        }
        is_free
    }

    /// The owner offers a partition.
    pub(crate) fn offer(&mut self, id: PartitionId, generation: i64) {
        if self.row(id).generation == generation {
            self.row(id).leave(State::Offered);
        }
    }
}

impl Row {
    fn become_owned(&mut self, owner: ServerId) -> i64 {
        self.generation += 1;
        self.beat += 1;
        (self.state, self.owner) = (State::Owned, Some(owner));
        self.generation
    }

    fn leave(&mut self, state: State) {
        self.generation += 1;
        self.beat += 1;
        (self.state, self.owner) = (state, None);
    }
}
