//! The session that watches all partitions: reads in, adoptions out.
//!
//! Knows the tables, and decides nothing: `cluster::watch` does. Blocks its thread.
//!
//! Invariant: a partition that this session adopts has its blocks known before the session that
//! commits learns of it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio_postgres::types::{ToSql, Type};

use super::conninfo::Target;
use super::error::SessionError;
use super::identity::Identity;
use super::load::{self, dead_of, job_of, pause_of};
use super::partitions::{self, Owner, Tenure, column};
use super::record;
use super::schema::columns;
use super::session::{ANSWER_TIMEOUT, Session, answer, limit};
use super::shared::Shared;
use crate::cluster::partition::{Partition, PartitionId, Reading, Seen};
use crate::engine::record::{DeadRow, Pause, Row};
use crate::store::StoreError;
use crate::store::members::{Census, Extent, Members};

/// Reads after which all blocks are read again: a failover may have brought back earlier ones.
const READS_OF_NEW_BLOCKS: u32 = 60;
/// Largest number of rows that are loaded at once.
const LOAD_ROWS: i64 = 4096;
/// Size of texts in bytes from which no further row is loaded at once.
const LOAD_BYTES: i64 = 4 << 20;
/// Rows whose size is looked at to estimate that of all.
const SAMPLE_ROWS: i64 = 1000;

/// Size of a job's texts in bytes.
macro_rules! job_bytes {
    () => {
        "octet_length(function) + octet_length(unique_key) + octet_length(reducer) + \
         octet_length(payload)"
    };
}

const JOB_SIZES: &str = concat!(
    "SELECT number, (",
    job_bytes!(),
    ")::int8 FROM ringgear_job WHERE partition = $1 AND number <= $2 ORDER BY number DESC LIMIT $3"
);
const DEAD_SIZES: &str = concat!(
    "SELECT number, (",
    job_bytes!(),
    " + octet_length(worker) + octet_length(message))::int8 FROM ringgear_dead
WHERE partition = $1 AND number <= $2 ORDER BY number DESC LIMIT $3"
);
const JOBS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM ringgear_job WHERE partition = $1 AND number <= $2 AND number >= $3 ORDER BY number DESC"
);
const DEAD: &str = concat!(
    "SELECT ",
    columns!(),
    ", partition, reason, died_ms, worker, message FROM ringgear_dead
WHERE partition = $1 AND number <= $2 AND number >= $3 ORDER BY number DESC"
);
const JOB_COUNT: &str = "SELECT jobs FROM ringgear_partition WHERE partition = $1";
const DEAD_COUNT: &str = "SELECT count(*) FROM ringgear_dead WHERE partition = $1";
const FIND: &str = "SELECT number FROM ringgear_job WHERE partition = $1 AND number = ANY ($2)";

/// All statements, for the test of what they must not have.
#[cfg(test)]
pub(super) const STATEMENTS: [&str; 7] =
    [JOB_SIZES, DEAD_SIZES, JOBS, DEAD, JOB_COUNT, DEAD_COUNT, FIND];

/// A session that watches all partitions on a PostgreSQL server.
pub struct PostgresMembers {
    runtime: Runtime,
    watch: WatchSession,
}

/// The session, or what is needed to open the next one.
struct WatchSession {
    targets: Vec<Target>,
    place: String,
    owner: Owner,
    shared: Shared,
    lock_limit: Duration,
    session: Option<Session>,
    /// Number of the session.
    number: u64,
    /// Whether the session tells which partitions' locks are held.
    tells_locks: bool,
    /// The last reading of each partition.
    partitions: Vec<Partition>,
    /// Reads until all blocks are read again.
    reads_left: u32,
}

impl fmt::Debug for PostgresMembers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresMembers")
            .field("place", &self.watch.place)
            .field("session", &self.watch.number)
            .finish_non_exhaustive()
    }
}

impl PostgresMembers {
    pub(super) fn new(
        runtime: Runtime,
        targets: Vec<Target>,
        owner: Owner,
        shared: Shared,
        lock_limit: Duration,
    ) -> Self {
        let watch = WatchSession {
            targets,
            place: String::new(),
            owner,
            shared,
            lock_limit,
            session: None,
            number: 0,
            tells_locks: true,
            partitions: Vec::new(),
            reads_left: 0,
        };
        Self { runtime, watch }
    }

    /// Waits for an answer. After an error the next call is in another session.
    fn finish<T>(&mut self, result: Result<T, SessionError>) -> Result<T, StoreError> {
        result.map_err(|error| {
            self.watch.session = None;
            // Lets the session close its socket.
            self.runtime.block_on(tokio::task::yield_now());
            error.in_service(&self.watch.place)
        })
    }
}

impl Members for PostgresMembers {
    fn read(&mut self) -> Result<Census, StoreError> {
        let result = self.runtime.block_on(self.watch.read());
        self.finish(result)
    }

    fn is_own(&self, reading: &Reading) -> bool {
        Identity::are_of_one_process(&reading.partition.owner, &self.watch.owner.token)
    }

    fn extent(&mut self, partition: PartitionId) -> Result<Extent, StoreError> {
        let result = self.runtime.block_on(self.watch.extent(partition));
        self.finish(result)
    }

    fn adopt(&mut self, seen: Seen) -> Result<Option<i64>, StoreError> {
        let result = self.runtime.block_on(self.watch.adopt(seen));
        self.finish(result)
    }

    fn load(&mut self, partition: PartitionId, below: Option<u64>) -> Result<Vec<Row>, StoreError> {
        let statements = (JOB_SIZES, JOBS);
        let result = self.runtime.block_on(self.watch.load(statements, partition, below));
        self.finish(result).map(|rows| rows.iter().map(job_of).collect())
    }

    fn load_dead(
        &mut self,
        partition: PartitionId,
        below: Option<u64>,
    ) -> Result<Vec<DeadRow>, StoreError> {
        let statements = (DEAD_SIZES, DEAD);
        let result = self.runtime.block_on(self.watch.load(statements, partition, below));
        self.finish(result).map(|rows| rows.iter().map(dead_of).collect())
    }

    fn find(&mut self, numbers: &[u64]) -> Result<Vec<u64>, StoreError> {
        let result = self.runtime.block_on(self.watch.find(numbers));
        self.finish(result)
    }
}

impl WatchSession {
    /// Connects unless there is a session.
    async fn session(&mut self) -> Result<&Session, SessionError> {
        let session = match self.session.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => {
                let session = Session::connect(&self.targets, self.lock_limit).await?;
                self.place.clone_from(&session.place);
                self.number += 1;
                (self.tells_locks, self.reads_left) = (true, 0);
                session
            }
        };
        Ok(self.session.insert(session))
    }

    async fn read(&mut self) -> Result<Census, SessionError> {
        self.session().await?;
        let Some(session) = &self.session else { return Ok(Census::default()) };
        let known = self.shared.lock().blocks.last();
        let above = known.filter(|_| self.reads_left > 0);
        self.reads_left = self.reads_left.checked_sub(1).unwrap_or(READS_OF_NEW_BLOCKS);
        let pauses = answer(ANSWER_TIMEOUT, session.client.query_typed(load::PAUSES, &[]));
        let (readings, blocks, pauses) = tokio::join!(
            partitions::read(session, &mut self.tells_locks),
            record::blocks(session, above),
            pauses
        );
        let (readings, blocks) = (readings?, blocks?);
        let mut pauses: Vec<(Bytes, Pause)> = pauses?.iter().map(pause_of).collect();
        pauses.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.partitions = readings.iter().map(|reading| reading.partition.clone()).collect();
        let mut shared = self.shared.lock();
        blocks.iter().for_each(|&(block, partition)| shared.blocks.insert(block, partition));
        Ok(Census { session: self.number, readings, blocks, pauses })
    }

    async fn extent(&mut self, partition: PartitionId) -> Result<Extent, SessionError> {
        let session = self.session().await?;
        let id = column(partition);
        let of_partition: [(&(dyn ToSql + Sync), Type); 1] = [(&id, Type::INT4)];
        let sample: [(&(dyn ToSql + Sync), Type); 3] =
            [(&id, Type::INT4), (&i64::MAX, Type::INT8), (&SAMPLE_ROWS, Type::INT8)];
        let client = &session.client;
        let (jobs, dead, job_sample, dead_sample) = answer(limit(0), async {
            tokio::try_join!(
                client.query_typed(JOB_COUNT, &of_partition),
                client.query_typed(DEAD_COUNT, &of_partition),
                client.query_typed(JOB_SIZES, &sample),
                client.query_typed(DEAD_SIZES, &sample),
            )
        })
        .await?;
        let count = |rows: &[tokio_postgres::Row]| {
            rows.first().map_or(0, |row| row.get::<_, i64>(0).cast_unsigned())
        };
        let (mut rows, mut bytes) = (0, 0);
        for (count, sample) in [(count(&jobs), job_sample), (count(&dead), dead_sample)] {
            let sampled = sample.len() as u64;
            let size: i64 = sample.iter().map(|row| row.get::<_, i64>(1)).sum();
            // The count of jobs may be that of before the last commit.
            let count = count.max(sampled);
            rows += count;
            bytes += (size.cast_unsigned()).saturating_mul(count) / sampled.max(1);
        }
        Ok(Extent { rows, bytes })
    }

    async fn adopt(&mut self, seen: Seen) -> Result<Option<i64>, SessionError> {
        let Some(partition) = self.partitions.iter().find(|it| it.seen() == seen).cloned() else {
            return Ok(None);
        };
        let (owner, shared) = (self.owner.clone(), self.shared.clone());
        let session = self.session().await?;
        let adopted = match partitions::adopt(session, &partition, &owner).await {
            // Its owner or another server has just written.
            Err(error) if error.is_conflict() => None,
            adopted => adopted?,
        };
        if adopted.is_some() {
            // The owner may have taken some since the last read.
            let blocks = record::blocks(session, None).await?;
            let mut shared = shared.lock();
            blocks.iter().for_each(|&(block, partition)| shared.blocks.insert(block, partition));
            shared.before.insert(partition.id, Tenure::of(&partition));
        }
        Ok(adopted)
    }

    /// The next rows of a partition, as many as suit a batch.
    async fn load(
        &mut self,
        (sizes, rows): (&str, &str),
        partition: PartitionId,
        below: Option<u64>,
    ) -> Result<Vec<tokio_postgres::Row>, SessionError> {
        // Numbers begin at 1, and reach 2^63 after a thousand years.
        let most = below.map_or(i64::MAX, |below| below.cast_signed() - 1);
        let id = column(partition);
        let session = self.session().await?;
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&id, Type::INT4), (&most, Type::INT8), (&LOAD_ROWS, Type::INT8)];
        let found = answer(ANSWER_TIMEOUT, session.client.query_typed(sizes, &parameters)).await?;
        let mut bytes = 0_i64;
        let mut least = None;
        for row in &found {
            let size: i64 = row.get(1);
            if least.is_some() && bytes + size > LOAD_BYTES {
                break;
            }
            bytes += size;
            least = Some(row.get::<_, i64>(0));
        }
        let Some(least) = least else { return Ok(Vec::new()) };
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&id, Type::INT4), (&most, Type::INT8), (&least, Type::INT8)];
        let limit = limit(usize::try_from(bytes).unwrap_or_default());
        answer(limit, session.client.query_typed(rows, &parameters)).await
    }

    async fn find(&mut self, numbers: &[u64]) -> Result<Vec<u64>, SessionError> {
        let shared = self.shared.clone();
        let session = self.session().await?;
        let partitions_of = |numbers: &[u64]| -> Vec<Option<PartitionId>> {
            let blocks = &shared.lock().blocks;
            numbers.iter().map(|&number| blocks.partition_of(number)).collect()
        };
        let mut partitions = partitions_of(numbers);
        if partitions.contains(&None) {
            let blocks = record::blocks(session, None).await?;
            blocks.iter().for_each(|&(block, id)| shared.lock().blocks.insert(block, id));
            partitions = partitions_of(numbers);
        }
        let mut asked: Vec<PartitionId> = partitions.iter().flatten().copied().collect();
        asked.sort_unstable();
        asked.dedup();
        let mut found = Vec::new();
        for partition in asked {
            let there = numbers.iter().zip(&partitions).filter(|(_, it)| **it == Some(partition));
            let there: Vec<i64> = there.map(|(number, _)| number.cast_signed()).collect();
            let parameters: [(&(dyn ToSql + Sync), Type); 2] =
                [(&column(partition), Type::INT4), (&there, Type::INT8_ARRAY)];
            let rows =
                answer(ANSWER_TIMEOUT, session.client.query_typed(FIND, &parameters)).await?;
            found.extend(rows.iter().map(|row| row.get::<_, i64>(0).cast_unsigned()));
        }
        Ok(found)
    }
}
