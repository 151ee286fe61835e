//! Values of the table of jobs: rows in, parameters of statements out, and back.
//!
//! Knows the columns, but no transactions. Reads values of any type, as other programs may write to
//! the file.
//!
//! Invariant: `bytes_of` and `integer_of` read what `insert` wrote.

use bytes::Bytes;
use memchr::memchr;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Statement, ToSql, params};

use crate::engine::record::Row;
use crate::wire::Priority;

/// Replaces the row of a commit that is retried, as it may have reached the disk the first time.
pub(super) const INSERT: &str = "INSERT OR REPLACE INTO ringgear_job
    (number, function, unique_key, reducer, priority, run_at, attempts, payload,
    submitted_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

/// Runs `INSERT` for a row.
pub(super) fn insert(statement: &mut Statement<'_>, row: &Row) -> rusqlite::Result<usize> {
    statement.execute(params![
        row.number.cast_signed(),
        Name(&row.function),
        Name(&row.unique),
        Name(&row.reducer),
        row.priority as i64,
        (row.run_at_ms / 1000).cast_signed(),
        row.attempts,
        &*row.payload,
        row.submitted_ms.cast_signed(),
    ])
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
