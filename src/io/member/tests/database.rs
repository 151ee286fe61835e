//! Partitions in memory, which fail and change on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use bytes::Bytes;

use crate::cluster::partition::{Partition, PartitionId, Reading, Seen, State};
use crate::engine::record::{DeadRow, Pause, Row};
use crate::store::StoreError;
use crate::store::members::{Census, Extent, Members};

/// Rows of a batch.
pub(super) const BATCH: usize = 3;

/// What becomes of an adoption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Adopting {
    #[default]
    Answered,
    /// It succeeds, and the answer is lost.
    Unanswered,
    /// It fails, and the answer is lost.
    Refused,
    /// Another server has adopted it.
    TooLate,
}

#[derive(Debug, Default)]
struct Contents {
    partitions: BTreeMap<PartitionId, Partition>,
    jobs: BTreeMap<PartitionId, Vec<Row>>,
    dead: BTreeMap<PartitionId, Vec<DeadRow>>,
    blocks: Vec<(u64, PartitionId)>,
    pauses: BTreeMap<Bytes, Pause>,
    /// Numbers of jobs that lookups find.
    stored: BTreeSet<u64>,
    session: u64,
    reads: u64,
    loads: usize,
    extents: usize,
    adoptions: usize,
    adopting: Adopting,
    /// Loads before one fails, and how many fail then.
    failing_loads: (usize, usize),
    is_down: bool,
    are_reads_held: bool,
}

/// The database, and the handle by which a test controls and inspects it.
#[derive(Clone, Debug, Default)]
pub(super) struct Database(Arc<(Mutex<Contents>, Condvar)>);

impl Database {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.0.lock().unwrap()
    }

    /// The server under test owns a partition.
    pub(super) fn own(&self, id: PartitionId) {
        let owner = b"own".to_vec();
        let partition =
            Partition { id, generation: 1, state: State::Owned, owner, ..Partition::default() };
        let mut contents = self.contents();
        contents.partitions.insert(id, partition);
        // Once it is lost, it has no beat and may be adopted again.
        contents.jobs.entry(id).or_default();
        contents.dead.entry(id).or_default();
    }

    /// Another server leaves a partition.
    pub(super) fn offer(
        &self,
        id: PartitionId,
        jobs: impl IntoIterator<Item = Row>,
        dead: impl IntoIterator<Item = DeadRow>,
    ) {
        let mut contents = self.contents();
        let partition =
            Partition { id, generation: 3, state: State::Offered, ..Partition::default() };
        contents.partitions.insert(id, partition);
        contents.jobs.insert(id, jobs.into_iter().collect());
        contents.dead.insert(id, dead.into_iter().collect());
    }

    /// Another server takes a partition.
    pub(super) fn take(&self, id: PartitionId) {
        let mut contents = self.contents();
        let partition = contents.partitions.get_mut(&id).unwrap();
        partition.generation += 1;
        partition.owner = b"other".to_vec();
    }

    pub(super) fn set_state(&self, id: PartitionId, state: State) {
        self.contents().partitions.get_mut(&id).unwrap().state = state;
    }

    pub(super) fn add_block(&self, block: u64, id: PartitionId) {
        self.contents().blocks.push((block, id));
    }

    pub(super) fn pause(&self, function: Bytes, pause: Option<Pause>) {
        let pauses = &mut self.contents().pauses;
        match pause {
            Some(pause) => pauses.insert(function, pause),
            None => pauses.remove(&function),
        };
    }

    pub(super) fn store(&self, numbers: &[u64]) {
        self.contents().stored.extend(numbers);
    }

    pub(super) fn set_down(&self, is_down: bool) {
        self.contents().is_down = is_down;
    }

    /// Reads wait, or go on; one that waits sees what is there when it goes on.
    pub(super) fn hold_reads(&self, are_held: bool) {
        self.contents().are_reads_held = are_held;
        self.0.1.notify_all();
    }

    pub(super) fn set_adopting(&self, adopting: Adopting) {
        self.contents().adopting = adopting;
    }

    /// After so many loads so many fail.
    pub(super) fn fail_loads(&self, after: usize, count: usize) {
        self.contents().failing_loads = (after, count);
    }

    pub(super) fn reads(&self) -> u64 {
        self.contents().reads
    }

    pub(super) fn loads(&self) -> usize {
        self.contents().loads
    }

    pub(super) fn extents(&self) -> usize {
        self.contents().extents
    }

    pub(super) fn adoptions(&self) -> usize {
        self.contents().adoptions
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable("down".into())
}

impl Contents {
    fn check(&mut self) -> Result<(), StoreError> {
        let (after, count) = self.failing_loads;
        let fails = self.loads >= after && count > 0;
        if fails {
            self.failing_loads.1 -= 1;
            return Err(unavailable());
        }
        self.loads += 1;
        Ok(())
    }
}

/// The next of these below a number, the largest first.
fn batch<T: Clone>(rows: &[T], number: impl Fn(&T) -> u64, below: Option<u64>) -> Vec<T> {
    let mut rows: Vec<T> =
        rows.iter().filter(|row| below.is_none_or(|it| number(row) < it)).cloned().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(number(row)));
    rows.truncate(BATCH);
    rows
}

impl Members for Database {
    fn read(&mut self) -> Result<Census, StoreError> {
        let contents = self.contents();
        let mut contents = self.0.1.wait_while(contents, |it| it.are_reads_held).unwrap();
        contents.reads += 1;
        if contents.is_down {
            contents.session += 1;
            return Err(unavailable());
        }
        let partitions = contents.partitions.values().cloned();
        let readings =
            partitions.map(|partition| Reading { partition, ..Reading::default() }).collect();
        let pauses = contents.pauses.iter().map(|(name, &pause)| (name.clone(), pause)).collect();
        let blocks = contents.blocks.clone();
        Ok(Census { session: contents.session, readings, blocks, pauses })
    }

    fn is_own(&self, reading: &Reading) -> bool {
        reading.partition.owner == b"own"
    }

    fn extent(&mut self, partition: PartitionId) -> Result<Extent, StoreError> {
        let mut contents = self.contents();
        contents.extents += 1;
        let rows = contents.jobs[&partition].len() + contents.dead[&partition].len();
        Ok(Extent { rows: rows as u64, bytes: rows as u64 * 10 })
    }

    fn adopt(&mut self, seen: Seen) -> Result<Option<i64>, StoreError> {
        let mut contents = self.contents();
        contents.adoptions += 1;
        let adopting = contents.adopting;
        let partition = contents.partitions.get_mut(&seen.id).unwrap();
        if partition.seen() != seen {
            return Ok(None);
        }
        if adopting == Adopting::Refused {
            return Err(unavailable());
        }
        partition.generation += 1;
        partition.state = State::Owned;
        let generation = partition.generation;
        if adopting == Adopting::TooLate {
            partition.owner = b"other".to_vec();
            return Ok(None);
        }
        partition.owner = b"own".to_vec();
        if adopting == Adopting::Unanswered {
            return Err(unavailable());
        }
        Ok(Some(generation))
    }

    fn load(&mut self, partition: PartitionId, below: Option<u64>) -> Result<Vec<Row>, StoreError> {
        let mut contents = self.contents();
        contents.check()?;
        Ok(batch(&contents.jobs[&partition], |row| row.number, below))
    }

    fn load_dead(
        &mut self,
        partition: PartitionId,
        below: Option<u64>,
    ) -> Result<Vec<DeadRow>, StoreError> {
        let mut contents = self.contents();
        contents.check()?;
        Ok(batch(&contents.dead[&partition], |letter| letter.row.number, below))
    }

    fn find(&mut self, numbers: &[u64]) -> Result<Vec<u64>, StoreError> {
        let contents = self.contents();
        if contents.is_down {
            return Err(unavailable());
        }
        Ok(numbers.iter().copied().filter(|number| contents.stored.contains(number)).collect())
    }
}
