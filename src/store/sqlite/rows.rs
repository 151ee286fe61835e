//! Values of the tables of jobs and dead letters: rows in, parameters of statements out, and back.
//!
//! Knows the columns, but no transactions. Reads values of any type, as other programs may write to
//! the file.
//!
//! Invariant: `job_of` and `dead_of` read what `insert` and `insert_dead` wrote.

use bytes::Bytes;
use memchr::memchr;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Statement, ToSql, params};

use crate::engine::reason::Reason;
use crate::engine::record::{DeadRow, Row, Runs};
use crate::wire::Priority;

/// The columns of a job, in both tables.
macro_rules! columns {
    () => {
        "number, function, unique_key, reducer, priority, run_at, attempts, payload, submitted_ms, \
         run_at_part_ms, last_reason, was_lost"
    };
}

/// Replaces the row of a commit that is retried, as it may have reached the disk the first time.
pub(super) const INSERT: &str = concat!(
    "INSERT OR REPLACE INTO ringgear_job (",
    columns!(),
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"
);
/// Likewise.
pub(super) const INSERT_DEAD: &str = concat!(
    "INSERT OR REPLACE INTO ringgear_dead (",
    columns!(),
    ", reason, died_ms, worker, message)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
);
/// The jobs with numbers between two.
pub(super) const SELECT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM ringgear_job WHERE number BETWEEN ?1 AND ?2 ORDER BY number"
);
/// The dead letter with a number.
pub(super) const SELECT_DEAD: &str = concat!(
    "SELECT ",
    columns!(),
    ", reason, died_ms, worker, message FROM ringgear_dead WHERE number = ?1"
);
/// Changes what is known of a job's runs.
pub(super) const RETRY: &str = "UPDATE ringgear_job SET attempts = ?2, run_at = ?3,
    run_at_part_ms = ?4, last_reason = ?5, was_lost = ?6 WHERE number = ?1";

/// Runs `INSERT` for a row.
pub(super) fn insert(statement: &mut Statement<'_>, row: &Row) -> rusqlite::Result<usize> {
    bind(statement, row)?;
    statement.raw_execute()
}

/// Runs `INSERT_DEAD` for a row.
pub(super) fn insert_dead(
    statement: &mut Statement<'_>,
    dead: &DeadRow,
) -> rusqlite::Result<usize> {
    bind(statement, &dead.row)?;
    statement.raw_bind_parameter(13, dead.reason.name())?;
    statement.raw_bind_parameter(14, dead.died_ms.cast_signed())?;
    statement.raw_bind_parameter(15, Name(&dead.worker))?;
    statement.raw_bind_parameter(16, Name(&dead.message))?;
    statement.raw_execute()
}

/// Sets the parameters for `columns!`.
fn bind(statement: &mut Statement<'_>, row: &Row) -> rusqlite::Result<()> {
    let (run_at_s, run_at_part_ms) = seconds_and_rest(row.run_at_ms);
    let parameters: [&dyn ToSql; 12] = [
        &row.number.cast_signed(),
        &Name(&row.function),
        &Name(&row.unique),
        &Name(&row.reducer),
        &(row.priority as i64),
        &run_at_s,
        &row.attempts,
        &&*row.payload,
        &row.submitted_ms.cast_signed(),
        &run_at_part_ms,
        &row.last_reason.map(Reason::name),
        &row.was_lost,
    ];
    for (parameter, index) in parameters.into_iter().zip(1_usize..) {
        statement.raw_bind_parameter(index, parameter)?;
    }
    Ok(())
}

/// Runs `RETRY` for a job.
pub(super) fn retry(
    statement: &mut Statement<'_>,
    number: u64,
    runs: &Runs,
) -> rusqlite::Result<usize> {
    let (run_at_s, run_at_part_ms) = seconds_and_rest(runs.run_at_ms);
    statement.execute(params![
        number.cast_signed(),
        runs.attempts,
        run_at_s,
        run_at_part_ms,
        runs.last_reason.map(Reason::name),
        runs.was_lost
    ])
}

fn seconds_and_rest(ms: u64) -> (i64, i64) {
    ((ms / 1000).cast_signed(), (ms % 1000).cast_signed())
}

/// The job in `columns!`.
pub(super) fn job_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let run_at_s = integer_of(row.get_ref(5)?).cast_unsigned();
    let run_at_part_ms = integer_of(row.get_ref(9)?).clamp(0, 999).cast_unsigned();
    Ok(Row {
        number: row.get::<_, i64>(0)?.cast_unsigned(),
        function: bytes_of(row.get_ref(1)?),
        unique: bytes_of(row.get_ref(2)?),
        reducer: bytes_of(row.get_ref(3)?),
        priority: priority_of(integer_of(row.get_ref(4)?)),
        run_at_ms: run_at_s.saturating_mul(1000).saturating_add(run_at_part_ms),
        attempts: integer_of(row.get_ref(6)?).try_into().unwrap_or(u32::MAX),
        last_reason: reason_of(row.get_ref(10)?),
        was_lost: integer_of(row.get_ref(11)?) != 0,
        payload: bytes_of(row.get_ref(7)?),
        submitted_ms: integer_of(row.get_ref(8)?).cast_unsigned(),
    })
}

/// The dead letter in the columns of `SELECT_DEAD`.
pub(super) fn dead_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<DeadRow> {
    Ok(DeadRow {
        row: job_of(row)?,
        reason: reason_of(row.get_ref(12)?).unwrap_or(Reason::Fail),
        died_ms: integer_of(row.get_ref(13)?).cast_unsigned(),
        worker: bytes_of(row.get_ref(14)?),
        message: bytes_of(row.get_ref(15)?),
    })
}

/// The reason of a name; `None` for anything else.
fn reason_of(value: ValueRef<'_>) -> Option<Reason> {
    value.as_str().ok().and_then(Reason::named)
}

/// Any bytes, stored as text if a shell can show them.
pub(super) struct Name<'a>(pub(super) &'a [u8]);

impl ToSql for Name<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let text = memchr(0, self.0).is_none() && str::from_utf8(self.0).is_ok();
        let value = if text { ValueRef::Text(self.0) } else { ValueRef::Blob(self.0) };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

/// A value of any type as bytes.
pub(super) fn bytes_of(value: ValueRef<'_>) -> Bytes {
    match value {
        ValueRef::Null => Bytes::new(),
        ValueRef::Integer(number) => number.to_string().into(),
        ValueRef::Real(number) => number.to_string().into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Bytes::copy_from_slice(bytes),
    }
}

/// A value of any type as a number; 0 if it is none.
pub(super) fn integer_of(value: ValueRef<'_>) -> i64 {
    match value {
        ValueRef::Integer(number) => number,
        ValueRef::Text(text) => {
            str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
        }
        _ => 0,
    }
}

/// The priority of a number, which is gearmand's, too; `Normal` for an unknown one.
pub(super) fn priority_of(number: i64) -> Priority {
    Priority::ALL
        .into_iter()
        .find(|&priority| priority as i64 == number)
        .unwrap_or(Priority::Normal)
}
