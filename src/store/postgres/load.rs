//! Reads the tables: a session in, jobs, dead letters and pauses out.
//!
//! Rows are read as they arrive, so that a table may be larger than memory. Knows the columns, not
//! what the server does with the rows.
//!
//! Invariant: each row is read once, in a transaction that ends with the last one.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::change::Parameter;
use super::error::SessionError;
use super::partitions::column;
use super::schema::columns;
use super::session::{ANSWER_TIMEOUT, Session, answer};
use crate::cluster::partition::PartitionId;
use crate::engine::reason::Reason;
use crate::engine::record::{DeadRow, Pause, Row};
use crate::wire::Priority;

/// The order of the index needs no sorting.
const JOBS_OF_ONE: &str = concat!(
    "SELECT ",
    columns!(),
    ", partition FROM ringgear_job WHERE partition = $1 ORDER BY number"
);
const JOBS: &str = concat!(
    "SELECT ",
    columns!(),
    ", partition FROM ringgear_job WHERE partition = ANY ($1) ORDER BY number"
);
const DEAD: &str = concat!(
    "SELECT ",
    columns!(),
    ", partition, reason, died_ms, worker, message FROM ringgear_dead
WHERE partition = ANY ($1) ORDER BY died_ms, number"
);
const JOB_NUMBERS: &str = "SELECT number FROM ringgear_job WHERE partition = $1 ORDER BY number";
const DEAD_NUMBERS: &str = "SELECT number FROM ringgear_dead WHERE partition = $1 ORDER BY number";
pub(super) const PAUSES: &str = "SELECT function, until_ms FROM ringgear_pause";

/// All statements, for the test of what they must not have.
#[cfg(test)]
pub(super) const STATEMENTS: [&str; 6] =
    [JOBS_OF_ONE, JOBS, DEAD, JOB_NUMBERS, DEAD_NUMBERS, PAUSES];

/// No time limit for the statement: each row has its own, `ROW_TIMEOUT`.
const BEGIN_LONG_READ: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = 0";
/// Time limit for each row.
const ROW_TIMEOUT: Duration = Duration::from_secs(60);

/// Calls `each` for all jobs of these partitions and with their partition, by number.
pub(super) async fn jobs(
    session: &Session,
    partitions: &[PartitionId],
    each: &mut dyn FnMut(PartitionId, Row),
) -> Result<(), SessionError> {
    let mut each = |row: &tokio_postgres::Row| each(partition_of(row), job_of(row));
    if let [partition] = partitions {
        return read(session, JOBS_OF_ONE, &[&column(*partition)], &mut each).await;
    }
    let partitions: Vec<i32> = partitions.iter().copied().map(column).collect();
    read(session, JOBS, &[&partitions], &mut each).await
}

/// Calls `each` for all dead letters of these partitions and with their partition, by the time of
/// death and number.
pub(super) async fn dead(
    session: &Session,
    partitions: &[PartitionId],
    each: &mut dyn FnMut(PartitionId, DeadRow),
) -> Result<(), SessionError> {
    let partitions: Vec<i32> = partitions.iter().copied().map(column).collect();
    read(session, DEAD, &[&partitions], &mut |row| each(partition_of(row), dead_of(row))).await
}

/// Calls `each` for all paused functions.
pub(super) async fn pauses(
    session: &Session,
    each: &mut dyn FnMut(Bytes, Pause),
) -> Result<(), SessionError> {
    read(session, PAUSES, &[], &mut |row| {
        let (function, pause) = pause_of(row);
        each(function, pause);
    })
    .await
}

/// Calls `each` for the numbers of a partition's jobs, in ascending order.
pub(super) async fn job_numbers(
    session: &Session,
    partition: PartitionId,
    each: &mut dyn FnMut(u64),
) -> Result<(), SessionError> {
    numbers(session, JOB_NUMBERS, partition, each).await
}

/// Calls `each` for the numbers of a partition's dead letters, in ascending order.
pub(super) async fn dead_numbers(
    session: &Session,
    partition: PartitionId,
    each: &mut dyn FnMut(u64),
) -> Result<(), SessionError> {
    numbers(session, DEAD_NUMBERS, partition, each).await
}

async fn numbers(
    session: &Session,
    sql: &str,
    partition: PartitionId,
    each: &mut dyn FnMut(u64),
) -> Result<(), SessionError> {
    let mut each = |row: &tokio_postgres::Row| each(row.get::<_, i64>(0).cast_unsigned());
    read(session, sql, &[&column(partition)], &mut each).await
}

/// Calls `each` for all rows that a statement returns.
async fn read(
    session: &Session,
    sql: &str,
    parameters: &[Parameter<'_>],
    each: &mut dyn FnMut(&tokio_postgres::Row),
) -> Result<(), SessionError> {
    session.run(ANSWER_TIMEOUT, BEGIN_LONG_READ).await?;
    let statement = answer(ANSWER_TIMEOUT, session.client.prepare(sql)).await?;
    let parameters = parameters.iter().copied();
    let rows = answer(ANSWER_TIMEOUT, session.client.query_raw(&statement, parameters)).await?;
    let mut rows = pin!(rows);
    while let Some(row) = answer(ROW_TIMEOUT, rows.try_next()).await? {
        each(&row);
    }
    session.run(ANSWER_TIMEOUT, "COMMIT").await
}

fn partition_of(row: &tokio_postgres::Row) -> PartitionId {
    row.get::<_, i32>(12).cast_unsigned()
}

fn bytes_of(row: &tokio_postgres::Row, column: usize) -> Bytes {
    Bytes::copy_from_slice(row.get(column))
}

/// Function and pause in `PAUSES`.
pub(super) fn pause_of(row: &tokio_postgres::Row) -> (Bytes, Pause) {
    let until_ms = row.get::<_, Option<i64>>(1);
    let pause = until_ms.map_or(Pause::Unlimited, |ms| Pause::Until(ms.cast_unsigned()));
    (bytes_of(row, 0), pause)
}

/// The dead letter in `columns!`, its partition, and the four columns of dead letters alone.
pub(super) fn dead_of(row: &tokio_postgres::Row) -> DeadRow {
    DeadRow {
        row: job_of(row),
        reason: Reason::named(row.get(13)).unwrap_or(Reason::Fail),
        died_ms: row.get::<_, i64>(14).cast_unsigned(),
        worker: bytes_of(row, 15),
        message: bytes_of(row, 16),
    }
}

/// The job in `columns!`.
pub(super) fn job_of(row: &tokio_postgres::Row) -> Row {
    let run_at_s = row.get::<_, i64>(5).cast_unsigned();
    let run_at_part_ms = row.get::<_, i16>(9).clamp(0, 999).cast_unsigned();
    Row {
        number: row.get::<_, i64>(0).cast_unsigned(),
        function: bytes_of(row, 1),
        unique: bytes_of(row, 2),
        reducer: bytes_of(row, 3),
        payload: bytes_of(row, 7),
        priority: match row.get::<_, i16>(4) {
            0 => Priority::High,
            2 => Priority::Low,
            _ => Priority::Normal,
        },
        run_at_ms: run_at_s.saturating_mul(1000).saturating_add(run_at_part_ms.into()),
        attempts: row.get::<_, i32>(6).cast_unsigned(),
        last_reason: row.get::<_, Option<&str>>(10).and_then(Reason::named),
        was_lost: row.get(11),
        submitted_ms: row.get::<_, i64>(8).cast_unsigned(),
    }
}
