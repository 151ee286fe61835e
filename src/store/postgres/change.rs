//! The statement of a commit: operations in, the parameters of as few statements as possible out.
//!
//! Operations on the same job are folded into one change, so that one statement inserts, updates
//! and deletes in any order, and a job that is inserted and removed is never written. Knows the
//! statement's columns, not the connection.
//!
//! Invariant: applying all chunks has the effect of the operations in order, even if some or all of
//! them were applied before: a commit without an answer is repeated.

use std::collections::BTreeMap;
use std::mem;

use tokio_postgres::types::{ToSql, Type};

use crate::engine::record::{Operation, Row, Runs};

/// Payload bytes from which another statement is begun; limits the memory that a commit needs here
/// and at PostgreSQL. A larger payload gets a statement of its own.
const CHUNK_BYTES: usize = 16 << 20;
/// Size of a job in a statement, beside its texts.
const JOB_BYTES: usize = 64;

/// Upgrades tables of version 2 to version 3.
pub(super) const UPGRADE: &str = "\
ALTER TABLE ringgear_job ADD COLUMN submitted_ms bigint NOT NULL DEFAULT 0;
UPDATE ringgear_owner SET version = 3;";

/// Applies one chunk if generation `$1` owns the tables. The row lock keeps another server from
/// taking them over before the transaction ends. Returns 1 or 0 for the ownership, and the number
/// of changed rows.
pub(super) const STATEMENT: &str = "\
WITH owner AS MATERIALIZED (
    SELECT 1 FROM ringgear_owner WHERE generation = $1 FOR SHARE
), kept AS (
    INSERT INTO ringgear_job
        (number, function, unique_key, reducer, priority, run_at, attempts, payload, submitted_ms)
    SELECT job.* FROM owner, unnest($2, $3, $4, $5, $6, $7, $8, $9, $10) AS job
    ON CONFLICT (number) DO UPDATE SET
        function = excluded.function, unique_key = excluded.unique_key,
        reducer = excluded.reducer, priority = excluded.priority, run_at = excluded.run_at,
        attempts = excluded.attempts, payload = excluded.payload,
        submitted_ms = excluded.submitted_ms
    RETURNING 1
), counted AS (
    UPDATE ringgear_job SET attempts = count.attempts
    FROM owner, unnest($11, $12) AS count (number, attempts)
    WHERE ringgear_job.number = count.number
    RETURNING 1
), removed AS (
    DELETE FROM ringgear_job USING owner WHERE number = ANY ($13)
    RETURNING 1
)
SELECT (SELECT count(*) FROM owner), (SELECT count(*) FROM kept) + (SELECT count(*) FROM counted)
    + (SELECT count(*) FROM removed)";

/// Types of the parameters.
pub(super) const TYPES: [Type; 13] = [
    Type::INT8,
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT2_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::INT8_ARRAY,
];

/// The effect of all operations on one job.
enum Change<'a> {
    Insert { row: &'a Row, attempts: u32 },
    SetAttempts(u32),
    Remove,
}

/// Parameters of one statement, column by column.
#[derive(Debug, Default)]
pub(super) struct Chunk<'a> {
    number: Vec<i64>,
    function: Vec<&'a [u8]>,
    unique: Vec<&'a [u8]>,
    reducer: Vec<&'a [u8]>,
    priority: Vec<i16>,
    run_at_s: Vec<i64>,
    attempts: Vec<i32>,
    payload: Vec<&'a [u8]>,
    submitted_ms: Vec<i64>,
    counted: Vec<i64>,
    counts: Vec<i32>,
    removed: Vec<i64>,
    /// Approximate size of the statement in bytes.
    pub(super) bytes: usize,
}

impl<'a> Chunk<'a> {
    /// Parameters of the statement, in order.
    pub(super) fn parameters<'b>(&'b self, generation: &'b i64) -> [&'b (dyn ToSql + Sync); 13] {
        [
            generation,
            &self.number,
            &self.function,
            &self.unique,
            &self.reducer,
            &self.priority,
            &self.run_at_s,
            &self.attempts,
            &self.payload,
            &self.submitted_ms,
            &self.counted,
            &self.counts,
            &self.removed,
        ]
    }

    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn push(&mut self, number: u64, change: &Change<'a>) {
        let number = number.cast_signed();
        self.bytes += change.bytes();
        match *change {
            Change::Insert { row, attempts } => {
                self.number.push(number);
                self.function.push(&row.function);
                self.unique.push(&row.unique);
                self.reducer.push(&row.reducer);
                self.priority.push(i16::from(row.priority as u8));
                self.run_at_s.push((row.run_at_ms / 1000).cast_signed());
                self.attempts.push(attempts.cast_signed());
                self.payload.push(&row.payload);
                self.submitted_ms.push(row.submitted_ms.cast_signed());
            }
            Change::SetAttempts(attempts) => {
                self.counted.push(number);
                self.counts.push(attempts.cast_signed());
            }
            Change::Remove => self.removed.push(number),
        }
    }
}

impl Change<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::Insert { row, .. } => {
                let texts = row.function.len() + row.unique.len() + row.reducer.len();
                JOB_BYTES + texts + row.payload.len()
            }
            Self::SetAttempts(_) | Self::Remove => JOB_BYTES,
        }
    }
}

/// The statements that have the effect of `operations`.
pub(super) fn chunks(operations: &[Operation]) -> Vec<Chunk<'_>> {
    // Ordered by number, so that rows that are adjacent on disk are written together.
    let mut changes = BTreeMap::new();
    for operation in operations {
        match *operation {
            Operation::Insert { ref row, .. } => {
                changes.insert(row.number, Change::Insert { row, attempts: row.attempts });
            }
            Operation::Retry { number, runs: Runs { attempts, .. } } => {
                match changes.get_mut(&number) {
                    Some(Change::Insert { attempts: kept, .. } | Change::SetAttempts(kept)) => {
                        *kept = attempts
                    }
                    Some(Change::Remove) => {}
                    None => {
                        changes.insert(number, Change::SetAttempts(attempts));
                    }
                }
            }
            Operation::Bury(_)
            | Operation::Unbury(_)
            | Operation::RemoveDead { .. }
            | Operation::Pause { .. } => {}
            // Also for a job that this commit inserts: an earlier attempt may have inserted it.
            Operation::Remove { number } => {
                changes.insert(number, Change::Remove);
            }
        }
    }
    let mut chunks = Vec::new();
    let mut chunk = Chunk::default();
    for (number, change) in &changes {
        if !chunk.is_empty() && chunk.bytes + change.bytes() > CHUNK_BYTES {
            chunks.push(mem::take(&mut chunk));
        }
        chunk.push(*number, change);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wire::Priority;

    fn row(number: u64, payload_bytes: usize) -> Row {
        Row {
            number,
            function: Bytes::from_static(b"f"),
            unique: Bytes::new(),
            reducer: Bytes::new(),
            payload: vec![0; payload_bytes].into(),
            priority: Priority::Normal,
            run_at_ms: 0,
            last_reason: None,
            was_lost: false,
            attempts: 0,
            submitted_ms: 0,
        }
    }

    fn insert(number: u64) -> Operation {
        Operation::Insert { row: row(number, 1), answered: false }
    }

    #[test]
    fn the_last_word_on_a_job_counts() {
        let operations = [
            insert(1),
            Operation::Retry { number: 1, runs: Runs { attempts: 2, ..Runs::default() } },
            insert(2),
            Operation::Retry { number: 2, runs: Runs { attempts: 1, ..Runs::default() } },
            Operation::Remove { number: 2 },
            Operation::Retry { number: 3, runs: Runs { attempts: 1, ..Runs::default() } },
            Operation::Retry { number: 3, runs: Runs { attempts: 4, ..Runs::default() } },
            Operation::Remove { number: 4 },
            Operation::Retry { number: 4, runs: Runs { attempts: 1, ..Runs::default() } },
        ];
        let chunks = chunks(&operations);
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].number, [1]);
        assert_eq!(chunks[0].attempts, [2]);
        assert_eq!(chunks[0].counted, [3]);
        assert_eq!(chunks[0].counts, [4]);
        assert_eq!(chunks[0].removed, [2, 4]);
    }

    #[test]
    fn large_payloads_are_spread_over_statements() {
        let operations: Vec<Operation> = [CHUNK_BYTES / 2, 10, CHUNK_BYTES / 2, CHUNK_BYTES * 2, 1]
            .into_iter()
            .zip(1..)
            .map(|(bytes, number)| Operation::Insert { row: row(number, bytes), answered: false })
            .collect();
        let chunks = chunks(&operations);
        let numbers: Vec<&[i64]> = chunks.iter().map(|chunk| &*chunk.number).collect();
        assert_eq!(numbers, [&[1, 2][..], &[3], &[4], &[5]]);
        assert!(super::chunks(&[]).is_empty());
    }
}
