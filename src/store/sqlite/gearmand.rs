//! Imports the table of C gearmand's sqlite queue: its rows in, rows of `ringgear_job` out.
//!
//! gearmand stores no numbers and no order but that of the rows, and writes NULL for empty values.
//! The emptied table stays, so that gearmand can use the file again. Knows nothing of files.
//!
//! Invariant: within the caller's transaction each row moves once, in the order of the rows.

use bytes::Bytes;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::rows::{INSERT, bytes_of, insert, integer_of, priority_of};
use crate::engine::handle::{job_number, slot};
use crate::engine::record::Row;

/// Columns of every version of gearmand's table. `when_to_run` was added later.
const COLUMNS: [&str; 4] = ["unique_key", "function_name", "priority", "data"];

/// A table that gearmand's queue created.
#[derive(Debug)]
pub(super) struct Table {
    quoted: String,
    delays: bool,
    /// The first of `COLUMNS` that this table doesn't have.
    pub(super) lacks: Option<&'static str>,
}

impl Table {
    /// Finds the table of this name; upper and lower case are equal, as in SQLite.
    pub(super) fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE";
        if connection.query_row(sql, [name], |_| Ok(())).optional()?.is_none() {
            return Ok(None);
        }
        let mut select = connection.prepare("SELECT lower(name) FROM pragma_table_info(?1)")?;
        let columns: Vec<String> =
            select.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let has = |column: &str| columns.iter().any(|name| name == column);
        Ok(Some(Self {
            quoted: format!("\"{}\"", name.replace('"', "\"\"")),
            delays: has("when_to_run"),
            lacks: COLUMNS.into_iter().find(|column| !has(column)),
        }))
    }

    /// Moves all rows, numbered from `sequence` on, and returns their number.
    pub(super) fn take_over(
        &self,
        transaction: &Transaction<'_>,
        mut sequence: u64,
    ) -> rusqlite::Result<u64> {
        let Self { quoted, delays, .. } = self;
        let when = if *delays { "when_to_run" } else { "0" };
        let mut select = transaction.prepare(&format!(
            "SELECT unique_key, function_name, priority, data, {when} FROM {quoted} ORDER BY rowid"
        ))?;
        let mut keep = transaction.prepare(INSERT)?;
        let mut rows = select.query([])?;
        let mut taken = 0;
        // gearmand doesn't store when a job was submitted.
        let now = "SELECT unixepoch() * 1000";
        let now_ms: i64 = transaction.query_row(now, [], |row| row.get(0))?;
        while let Some(row) = rows.next()? {
            let function = bytes_of(row.get_ref(1)?);
            insert(
                &mut keep,
                &Row {
                    number: job_number(sequence, slot(&function)),
                    function,
                    unique: bytes_of(row.get_ref(0)?),
                    reducer: Bytes::new(),
                    payload: bytes_of(row.get_ref(3)?),
                    priority: match row.get_ref(2)? {
                        ValueRef::Null => crate::wire::Priority::Normal,
                        value => priority_of(integer_of(value)),
                    },
                    run_at_ms: u64::try_from(integer_of(row.get_ref(4)?))
                        .unwrap_or(0)
                        .saturating_mul(1000),
                    last_reason: None,
                    was_lost: false,
                    attempts: 0,
                    submitted_ms: now_ms.cast_unsigned(),
                },
            )?;
            sequence += 1;
            taken += 1;
        }
        transaction.execute(&format!("DELETE FROM {quoted}"), [])?;
        Ok(taken)
    }
}
