//! The rows of `ringgear_partition`: read, taken over, left.
//!
//! Knows the table's columns and the locks that owners hold as hints, not which server may take
//! over (`cluster::watch`).
//!
//! Invariant: each change of the owner raises the generation, and is made only to a row that is
//! still as it was seen.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::error::SessionError;
use super::identity::Identity;
use super::session::{ANSWER_TIMEOUT, Backend, Question, Session, answer, answers};
use crate::cluster::partition::{
    HintLock, OWNER_PROCESS_BYTES, Partition, PartitionId, Reading, State,
};

/// All partitions.
const READ: &str = "\
SELECT partition, generation, beat, state, owner, name, address, jobs
FROM ringgear_partition ORDER BY partition";

/// Partitions whose owners hold their locks.
const LOCKED: &str = "\
SELECT objid::int8 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
AND database = (SELECT oid FROM pg_database WHERE datname = current_catalog)
AND classid = 'ringgear_partition'::regclass";

/// The sessions that hold a partition's lock: process, start, and what it waits for.
const HOLDERS: &str = "\
SELECT a.pid, a.backend_start, coalesce(a.wait_event, '')
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_catalog)
AND l.classid = 'ringgear_partition'::regclass AND l.objid = $1 AND a.pid <> pg_backend_pid()";

/// What a session waits for whose commit is to reach a replica.
const WAITS_FOR_REPLICA: &str = "SyncRep";

const ADOPT: &str = "\
UPDATE ringgear_partition SET generation = generation + 1, beat = beat + 1, state = 1,
    owner = $4, name = $5, address = $6
WHERE partition = $1 AND generation = $2 AND beat = $3 RETURNING generation";

/// An owner that lost its session begins the next generation; also where a failover has brought the
/// row back as it was before this process became the owner.
const RECLAIM: &str = "\
UPDATE ringgear_partition SET generation = generation + 1, beat = beat + 1, state = 1,
    owner = $2, name = $3, address = $4
WHERE partition = $1 AND (substr(owner, 1, 8) = $7 OR generation = $5 AND owner = $6)
RETURNING generation";

const GENERATION: &str = "\
SELECT generation FROM ringgear_partition WHERE partition = $1 AND substr(owner, 1, 8) = $2";

const CREATE: &str = "\
INSERT INTO ringgear_partition (partition, generation, beat, state, owner, name, address, jobs)
VALUES ($1, $2, 0, 1, $3, $4, $5, 0)";

/// The end of a partition that has neither jobs nor dead letters.
const FREE: &str = "\
UPDATE ringgear_partition SET generation = generation + 1, beat = beat + 1, state = 0,
    owner = '', name = '', address = '', jobs = 0
WHERE partition = $1 AND generation = $2
AND NOT EXISTS (SELECT 1 FROM ringgear_job WHERE partition = $1)
AND NOT EXISTS (SELECT 1 FROM ringgear_dead WHERE partition = $1)";

const OFFER: &str = "\
UPDATE ringgear_partition SET generation = generation + 1, beat = beat + 1, state = 2,
    owner = '', name = '', address = '', jobs = coalesce($3, jobs)
WHERE partition = $1 AND generation = $2";

/// All statements, for the test of what they must not have.
#[cfg(test)]
pub(super) const STATEMENTS: [&str; 9] =
    [READ, LOCKED, HOLDERS, ADOPT, RECLAIM, GENERATION, CREATE, FREE, OFFER];

/// What a server writes of itself into the rows that it owns.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// Identifies the process; rows have it renewed.
    pub(super) token: Vec<u8>,
    /// Name of the host.
    pub(super) name: String,
    /// Where it takes connections.
    pub(super) address: String,
}

impl Owner {
    /// The part of its tokens that stays the same.
    fn process(&self) -> &[u8] {
        self.token.get(..OWNER_PROCESS_BYTES).unwrap_or_default()
    }
}

/// An owner, and the generation that it was the owner with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tenure {
    pub(super) generation: i64,
    pub(super) token: Vec<u8>,
}

impl Tenure {
    /// The owner that a partition has.
    pub(super) fn of(partition: &Partition) -> Self {
        Self { generation: partition.generation, token: partition.owner.clone() }
    }
}

/// Number of a partition as the column has it.
pub(super) fn column(partition: PartitionId) -> i32 {
    partition.cast_signed()
}

/// Reads all partitions; `tells_locks` becomes `false` on engines without such locks.
pub(super) async fn read(
    session: &Session,
    tells_locks: &mut bool,
) -> Result<Vec<Reading>, SessionError> {
    let mut questions: Vec<Question<'_, Vec<tokio_postgres::Row>>> =
        vec![Box::pin(session.client.query_typed(READ, &[]))];
    if *tells_locks {
        questions.push(Box::pin(session.client.query_typed(LOCKED, &[])));
    }
    let mut answers = answers(ANSWER_TIMEOUT, questions).await?.into_iter();
    let rows = answers.next().unwrap_or_else(|| Ok(Vec::new())).map_err(SessionError::Error)?;
    let locked = match answers.next() {
        Some(Ok(rows)) => Some(rows),
        Some(Err(error)) if !error.is_closed() => {
            *tells_locks = false;
            None
        }
        Some(Err(error)) => return Err(SessionError::Error(error)),
        None => None,
    };
    let locked: Option<Vec<i64>> = locked.map(|rows| rows.iter().map(|row| row.get(0)).collect());
    let lock_of = |id: PartitionId| match &locked {
        None => HintLock::Unknown,
        Some(locked) if locked.contains(&id.into()) => HintLock::Held,
        Some(_) => HintLock::Free,
    };
    Ok(rows
        .iter()
        .map(|row| {
            let partition = partition_of(row);
            Reading { lock: lock_of(partition.id), partition }
        })
        .collect())
}

fn partition_of(row: &tokio_postgres::Row) -> Partition {
    Partition {
        id: row.get::<_, i32>(0).cast_unsigned(),
        generation: row.get(1),
        beat: row.get(2),
        state: match row.get::<_, i16>(3) {
            0 => State::Free,
            2 => State::Offered,
            _ => State::Owned,
        },
        owner: row.get(4),
        name: row.get(5),
        address: row.get(6),
        jobs: u64::try_from(row.get::<_, i64>(7)).unwrap_or_default(),
    }
}

/// Makes `owner` the owner, if the partition is still as it was seen; returns the new generation.
///
/// # Errors
/// `SessionError`: `owner` may be the owner or not.
pub(super) async fn adopt(
    session: &Session,
    seen: &Partition,
    owner: &Owner,
) -> Result<Option<i64>, SessionError> {
    if seen.state == State::Owned && !end_holders(session, seen.id).await? {
        return Ok(None);
    }
    let token = Identity::renew(&owner.token);
    let parameters: [&(dyn ToSql + Sync); 6] =
        [&column(seen.id), &seen.generation, &seen.beat, &token, &owner.name, &owner.address];
    change(session, ADOPT, &parameters).await
}

/// Ends the session that holds the lock, which may be in a transaction that holds the row.
/// `false`: it waits for a replica, which no other session could do without, and the partition is
/// left alone.
async fn end_holders(session: &Session, partition: PartitionId) -> Result<bool, SessionError> {
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&partition, Type::OID)];
    let rows = match answer(ANSWER_TIMEOUT, session.client.query_typed(HOLDERS, &parameters)).await
    {
        Ok(rows) => rows,
        Err(error) if error.is_refusal() => return Ok(true),
        Err(error) => return Err(error),
    };
    if rows.iter().any(|row| row.get::<_, &str>(2) == WAITS_FOR_REPLICA) {
        return Ok(false);
    }
    for row in rows {
        session.terminate(Backend { pid: row.get(0), started: row.get(1) }).await?;
    }
    Ok(true)
}

/// Becomes the owner again in a new session; `None` if another server has become it since.
pub(super) async fn reclaim(
    session: &Session,
    partition: PartitionId,
    owner: &Owner,
    before: &Tenure,
) -> Result<Option<i64>, SessionError> {
    let parameters: [&(dyn ToSql + Sync); 7] = [
        &column(partition),
        &Identity::renew(&owner.token),
        &owner.name,
        &owner.address,
        &before.generation,
        &before.token,
        &owner.process(),
    ];
    change(session, RECLAIM, &parameters).await
}

/// The generation of a partition that `owner` has.
pub(super) async fn generation(
    session: &Session,
    partition: PartitionId,
    owner: &Owner,
) -> Result<Option<i64>, SessionError> {
    let parameters: [&(dyn ToSql + Sync); 2] = [&column(partition), &owner.process()];
    let row = answer(ANSWER_TIMEOUT, session.client.query_opt(GENERATION, &parameters)).await?;
    Ok(row.map(|row| row.get(0)))
}

/// Makes a new partition; `false` if there is one of this number.
pub(super) async fn create(
    session: &Session,
    partition: PartitionId,
    generation: i64,
    owner: &Owner,
) -> Result<bool, SessionError> {
    let token = Identity::renew(&owner.token);
    let parameters: [&(dyn ToSql + Sync); 5] =
        [&column(partition), &generation, &token, &owner.name, &owner.address];
    session.forget_warning();
    match answer(ANSWER_TIMEOUT, session.client.execute(CREATE, &parameters)).await {
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => Ok(false),
        Err(error) => Err(error),
        Ok(_) => session.check_warning().map(|()| true),
    }
}

/// Leaves a partition, which has so many jobs if that is known; `false` if another server has
/// become the owner.
pub(super) async fn leave(
    session: &Session,
    partition: PartitionId,
    generation: i64,
    jobs: Option<u64>,
) -> Result<bool, SessionError> {
    if free(session, partition, generation).await? {
        return Ok(true);
    }
    let jobs = jobs.map(u64::cast_signed);
    let parameters: [&(dyn ToSql + Sync); 3] = [&column(partition), &generation, &jobs];
    session.forget_warning();
    let rows = answer(ANSWER_TIMEOUT, session.client.execute(OFFER, &parameters)).await?;
    session.check_warning()?;
    Ok(rows > 0)
}

/// Sets a partition free if it is empty; `false` if it isn't, or another server's.
pub(super) async fn free(
    session: &Session,
    partition: PartitionId,
    generation: i64,
) -> Result<bool, SessionError> {
    let parameters: [&(dyn ToSql + Sync); 2] = [&column(partition), &generation];
    session.forget_warning();
    let rows = answer(ANSWER_TIMEOUT, session.client.execute(FREE, &parameters)).await?;
    session.check_warning()?;
    Ok(rows > 0)
}

/// Tries to get the lock that says that this session owns the partition; `false` if there is none.
pub(super) async fn lock(session: &Session, partition: PartitionId) -> Result<bool, SessionError> {
    let sql = "SELECT pg_try_advisory_lock('ringgear_partition'::regclass::oid::int4, $1)";
    hint(session, sql, partition).await
}

/// Lets go of the lock.
pub(super) async fn unlock(session: &Session, partition: PartitionId) -> Result<(), SessionError> {
    let sql = "SELECT pg_advisory_unlock('ringgear_partition'::regclass::oid::int4, $1)";
    hint(session, sql, partition).await.map(drop)
}

async fn hint(session: &Session, sql: &str, partition: PartitionId) -> Result<bool, SessionError> {
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&column(partition), Type::INT4)];
    let answered = answer(ANSWER_TIMEOUT, session.client.query_typed(sql, &parameters)).await;
    match answered {
        Ok(rows) => Ok(rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or(false)),
        Err(error) if error.is_refusal() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs a change of the owner; returns the new generation.
async fn change(
    session: &Session,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Option<i64>, SessionError> {
    session.forget_warning();
    let row = answer(ANSWER_TIMEOUT, session.client.query_opt(sql, parameters)).await?;
    session.check_warning()?;
    Ok(row.map(|row| row.get(0)))
}
