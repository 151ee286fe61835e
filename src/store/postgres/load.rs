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

use super::error::SessionError;
use super::schema::columns;
use super::session::{ANSWER_TIMEOUT, Session, answer};
use crate::engine::reason::Reason;
use crate::engine::record::{DeadRow, Pause, Row};
use crate::wire::Priority;

const JOBS: &str = concat!("SELECT ", columns!(), " FROM ringgear_job ORDER BY number");
const DEAD: &str = concat!(
    "SELECT ",
    columns!(),
    ", reason, died_ms, worker, message FROM ringgear_dead ORDER BY died_ms, number"
);
const PAUSES: &str = "SELECT function, until_ms FROM ringgear_pause";

/// No time limit for the statement: each row has its own, `ROW_TIMEOUT`.
const BEGIN_LONG_READ: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = 0";
/// Time limit for each row.
const ROW_TIMEOUT: Duration = Duration::from_secs(60);

/// Calls `each` for all jobs, by number.
pub(super) async fn jobs(session: &Session, each: &mut dyn FnMut(Row)) -> Result<(), SessionError> {
    read(session, JOBS, &mut |row| each(job_of(row))).await
}

/// Calls `each` for all dead letters, by the time of death and number.
pub(super) async fn dead(
    session: &Session,
    each: &mut dyn FnMut(DeadRow),
) -> Result<(), SessionError> {
    let dead_of = |row: &tokio_postgres::Row| DeadRow {
        row: job_of(row),
        reason: Reason::named(row.get(12)).unwrap_or(Reason::Fail),
        died_ms: row.get::<_, i64>(13).cast_unsigned(),
        worker: bytes_of(row, 14),
        message: bytes_of(row, 15),
    };
    read(session, DEAD, &mut |row| each(dead_of(row))).await
}

/// Calls `each` for all paused functions.
pub(super) async fn pauses(
    session: &Session,
    each: &mut dyn FnMut(Bytes, Pause),
) -> Result<(), SessionError> {
    read(session, PAUSES, &mut |row| {
        let until_ms = row.get::<_, Option<i64>>(1);
        let until = until_ms.map_or(Pause::Unlimited, |ms| Pause::Until(ms.cast_unsigned()));
        each(bytes_of(row, 0), until);
    })
    .await
}

/// Calls `each` for the numbers of the rows of `table`, in ascending order.
pub(super) async fn numbers(
    session: &Session,
    table: &str,
    each: &mut dyn FnMut(u64),
) -> Result<(), SessionError> {
    let sql = format!("SELECT number FROM {table} ORDER BY number");
    read(session, &sql, &mut |row| each(row.get::<_, i64>(0).cast_unsigned())).await
}

/// Calls `each` for all rows that a statement returns.
async fn read(
    session: &Session,
    sql: &str,
    each: &mut dyn FnMut(&tokio_postgres::Row),
) -> Result<(), SessionError> {
    session.run(ANSWER_TIMEOUT, BEGIN_LONG_READ).await?;
    let statement = answer(ANSWER_TIMEOUT, session.client.prepare(sql)).await?;
    let parameters: [i32; 0] = [];
    let rows = answer(ANSWER_TIMEOUT, session.client.query_raw(&statement, parameters)).await?;
    let mut rows = pin!(rows);
    while let Some(row) = answer(ROW_TIMEOUT, rows.try_next()).await? {
        each(&row);
    }
    session.run(ANSWER_TIMEOUT, "COMMIT").await
}

fn bytes_of(row: &tokio_postgres::Row, column: usize) -> Bytes {
    Bytes::copy_from_slice(row.get(column))
}

/// The job in `columns!`.
fn job_of(row: &tokio_postgres::Row) -> Row {
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
