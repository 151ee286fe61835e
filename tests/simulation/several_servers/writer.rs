//! A server's writer over the fenced database: operations in, outcomes out, in their order.
//!
//! Keeps the rules of the server's own: what fails is tried again as a whole, what is lost leaves
//! queue and attempt, and inserts that wait for a lost home are left to their shards.
//!
//! Invariant: what a shard sent before it heard of a loss is never written into what the server has
//! since.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use ringgear::cluster::partition::PartitionId;
use ringgear::engine::record::{Operation, Row};

use super::database::{Database, Tenure, Token};

/// What the shards are to be told.
#[derive(Debug)]
pub(super) enum Outcome {
    Stored(Vec<u64>),
    Failed(Vec<u64>),
    Missing(Vec<u64>),
    Dropped(PartitionId),
    Home(Range<u64>),
    Adopted(Vec<Row>),
}

/// A partition that the server takes for its own.
#[derive(Clone, Debug)]
struct Own {
    generation: i64,
    /// The owner before this server.
    before: Tenure,
    /// The generation in which the server became the owner.
    first: i64,
}

/// A transaction whose sender doesn't wait for it any more.
#[derive(Debug)]
pub(super) struct Late {
    fences: BTreeMap<PartitionId, i64>,
    operations: Vec<Operation>,
}

impl Late {
    pub(super) fn arrive(self, database: &mut Database) {
        // Nothing is applied if the partition is another's, or the sender's in a new session.
        let _ = database.commit(&self.fences, &self.operations);
    }
}

#[derive(Debug, Default)]
pub(super) struct Writer {
    pub(super) token: Token,
    own: BTreeMap<PartitionId, Own>,
    pub(super) home: Option<PartitionId>,
    /// What is to be done, the oldest first, with the number of moves that its shard knew of.
    queue: VecDeque<(u64, Operation)>,
    /// The commit that failed last is tried again as a whole.
    again: usize,
    /// Whether inserts fail with their commits.
    pub(super) is_impatient: bool,
    pub(super) outcomes: VecDeque<Outcome>,
    /// Numbers of jobs that the database has, and of those whose removal is committed.
    kept: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    /// Reports of losses and homes so far; the same when each partition was lost, and when the home
    /// was taken.
    moves: u64,
    lost_at: BTreeMap<PartitionId, u64>,
    home_taken: u64,
    /// The last session ended without an answer, or with a failover.
    is_unsure: bool,
    failovers: u64,
    /// When the last beat was sent that succeeded.
    pub(super) good_at: Duration,
}

impl Writer {
    /// A writer of a server that has just started: it takes a home.
    pub(super) fn start(token: Token, database: &mut Database, now: Duration) -> Self {
        let mut writer =
            Self { token, failovers: database.failovers, good_at: now, ..Self::default() };
        writer.take_home(database);
        writer
    }

    pub(super) fn owns(&self, id: PartitionId) -> bool {
        self.own.contains_key(&id)
    }

    /// Whether nothing is to be done or told.
    pub(super) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.outcomes.is_empty() && self.home.is_some()
    }

    /// Operations of the shards, which had heard of so many moves.
    pub(super) fn push(&mut self, moves: u64, operations: Vec<Operation>, database: &Database) {
        for operation in operations {
            if !self.is_stale(&operation, moves, database) {
                self.queue.push_back((moves, operation));
            }
        }
    }

    fn is_stale(&self, operation: &Operation, moves: u64, database: &Database) -> bool {
        let is_awaited = is_awaited(operation);
        if is_awaited && (moves < self.home_taken || self.home.is_none()) {
            return true;
        }
        let id = operation.number().and_then(|number| database.partition_of(number)).unwrap();
        let lost_at = self.lost_at.get(&id);
        lost_at.is_some_and(|&at| moves < at) || !self.owns(id)
    }

    /// Numbers a new session's generations and compares what the database has, if it must.
    fn reconnect(&mut self, database: &mut Database) {
        let had_failover = self.failovers != database.failovers;
        if !std::mem::take(&mut self.is_unsure) && !had_failover {
            return;
        }
        self.failovers = database.failovers;
        for (id, own) in self.own.clone() {
            let Some(generation) = database.reclaim(id, self.token, &own.before) else {
                self.lose(id, database);
                continue;
            };
            self.own.insert(id, Own { generation, ..own });
            if had_failover {
                self.reconcile(id, generation, database);
            }
        }
    }

    /// Writes again what a failover has lost, and removes what it has brought back.
    fn reconcile(&mut self, id: PartitionId, generation: i64, database: &mut Database) {
        let there: BTreeSet<u64> = database.jobs_of(id, None).map(|row| row.number).collect();
        let own = self.kept.iter().filter(|&&it| database.partition_of(it) == Some(id));
        let missing: Vec<u64> = own.filter(|number| !there.contains(number)).copied().collect();
        if !missing.is_empty() {
            self.outcomes.push_back(Outcome::Missing(missing));
        }
        // A job that was removed is loaded with an adopted partition if a failover had brought it
        // back: then it is a job again.
        let removes =
            there.intersection(&self.removed).filter(|number| !self.kept.contains(number));
        let removes: Vec<_> = removes.map(|&number| Operation::Remove { number }).collect();
        let fence = BTreeMap::from([(id, generation)]);
        assert_eq!(database.commit(&fence, &removes), Ok(()), "it was reclaimed just now");
    }

    /// A beat of all partitions.
    pub(super) fn beat(&mut self, database: &mut Database, now: Duration) {
        self.reconnect(database);
        let fences = self.own.iter().map(|(&id, own)| (id, own.generation)).collect();
        match database.commit(&fences, &[]) {
            Ok(()) => self.good_at = now,
            Err(lost) => lost.into_iter().for_each(|id| self.lose(id, database)),
        }
        if self.home.is_none() {
            self.take_home(database);
        }
    }

    fn take_home(&mut self, database: &mut Database) {
        let (id, generation, sequences) = database.take_home(self.token);
        self.own.insert(id, Own { generation, before: Tenure::default(), first: generation });
        self.home = Some(id);
        self.moves += 1;
        self.home_taken = self.moves;
        self.outcomes.push_back(Outcome::Home(sequences));
    }

    /// The first operations, and what they need to be let through.
    fn attempt(&self, count: usize, database: &Database) -> Late {
        let operations: Vec<_> =
            self.queue.iter().take(count).map(|(_, operation)| operation.clone()).collect();
        let ids = operations.iter().filter_map(Operation::number);
        let ids = ids.filter_map(|number| database.partition_of(number));
        let fences = ids.map(|id| (id, self.own[&id].generation)).collect();
        Late { fences, operations }
    }

    /// A commit of so many operations.
    pub(super) fn commit(&mut self, count: usize, database: &mut Database) {
        self.reconnect(database);
        let count = count.max(self.again).min(self.queue.len());
        let Late { fences, operations } = self.attempt(count, database);
        if let Err(lost) = database.commit(&fences, &operations) {
            return lost.into_iter().for_each(|id| self.lose(id, database));
        }
        self.again = 0;
        self.queue.drain(..count);
        let stored = operations.iter().filter(|it| is_awaited(it)).filter_map(Operation::number);
        let stored: Vec<u64> = stored.collect();
        if !stored.is_empty() {
            self.outcomes.push_back(Outcome::Stored(stored));
        }
        for operation in operations {
            match operation {
                Operation::Insert { row, .. } => drop(self.kept.insert(row.number)),
                Operation::Remove { number } => {
                    self.kept.remove(&number);
                    self.removed.insert(number);
                }
                _ => {}
            }
        }
    }

    /// A commit of so many operations whose answer is lost; it may still arrive.
    pub(super) fn lose_answer(&mut self, count: usize, database: &mut Database) -> Option<Late> {
        self.reconnect(database);
        let count = count.max(self.again).min(self.queue.len());
        let late = self.attempt(count, database);
        (self.again, self.is_unsure) = (count, true);
        if self.is_impatient {
            let awaited = late.operations.iter().filter(|it| is_awaited(it));
            let failed: Vec<u64> = awaited.filter_map(Operation::number).collect();
            self.outcomes.push_back(Outcome::Failed(failed));
            for (_, operation) in self.queue.iter_mut().take(count) {
                if let Operation::Insert { row, answered: false } = operation {
                    *operation = Operation::Remove { number: row.number };
                }
            }
        }
        Some(late)
    }

    fn lose(&mut self, id: PartitionId, database: &Database) {
        if self.own.remove(&id).is_none() {
            return;
        }
        self.moves += 1;
        self.lost_at.insert(id, self.moves);
        let is_lost = |number: u64| database.partition_of(number) == Some(id);
        let before = self.queue.iter().take(self.again);
        let stays = |(_, it): &(u64, Operation)| !it.number().is_some_and(is_lost);
        self.again = before.filter(|it| stays(it)).count();
        self.queue.retain(stays);
        self.kept.retain(|&number| !is_lost(number));
        self.removed.retain(|&number| !is_lost(number));
        self.outcomes.push_back(Outcome::Dropped(id));
        self.home = self.home.filter(|&home| home != id);
    }

    /// The server has adopted a partition.
    pub(super) fn adopt(
        &mut self,
        id: PartitionId,
        generation: i64,
        before: Tenure,
        database: &Database,
    ) {
        self.lose(id, database);
        self.own.insert(id, Own { generation, before, first: generation });
    }

    /// Jobs of an adopted partition; returns whether the server still has it.
    pub(super) fn load(&mut self, id: PartitionId, generation: i64, rows: Vec<Row>) -> bool {
        let has_it = self.own.get(&id).is_some_and(|own| own.first == generation);
        if has_it && !rows.is_empty() {
            self.kept.extend(rows.iter().map(|row| row.number));
            self.outcomes.push_back(Outcome::Adopted(rows));
        }
        has_it
    }

    /// Gives adopted partitions up that are empty.
    pub(super) fn free_empty(&mut self, loading: &[PartitionId], database: &mut Database) {
        for (id, own) in self.own.clone() {
            let numbers = self.queue.iter().filter_map(|(_, it)| it.number());
            let mut numbers = numbers.chain(self.kept.iter().copied());
            let is_used = numbers.any(|number| database.partition_of(number) == Some(id));
            let is_left = self.home == Some(id) || loading.contains(&id) || is_used;
            if !is_left && database.free(id, own.generation) {
                self.own.remove(&id);
                self.removed.retain(|&number| database.partition_of(number) != Some(id));
            }
        }
    }

    /// The server ends, with nothing left to commit.
    pub(super) fn leave(&mut self, database: &mut Database) {
        self.reconnect(database);
        for (id, own) in std::mem::take(&mut self.own) {
            database.leave(id, own.generation);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.queue.len()
    }
}

/// Whether a client waits for an operation.
fn is_awaited(operation: &Operation) -> bool {
    matches!(operation, Operation::Insert { answered: false, .. })
}
