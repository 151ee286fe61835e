//! The statement of a commit: operations in, the parameters of as few statements as possible out.
//!
//! Operations on the same job, dead or not, are folded into one change of each table, so that one
//! statement inserts, updates and deletes in any order, and a job that is inserted and removed is
//! never written. Knows the statement's columns, not the connection.
//!
//! Invariant: applying all chunks has the effect of the operations in order, even if some or all of
//! them were applied before: a commit without an answer is repeated.

use std::collections::BTreeMap;
use std::mem;

use tokio_postgres::types::{ToSql, Type};

use super::schema::columns;
use crate::engine::reason::Reason;
use crate::engine::record::{DeadRow, Operation, Pause, Row, Runs};

/// Payload bytes from which another statement is begun; limits the memory that a commit needs here
/// and at PostgreSQL. A larger payload gets a statement of its own.
const CHUNK_BYTES: usize = 16 << 20;
/// Size of a job in a statement, beside its texts.
const JOB_BYTES: usize = 64;

/// Replaces all columns of a job but its number.
macro_rules! replace_columns {
    () => {
        "ON CONFLICT (number) DO UPDATE SET
        function = excluded.function, unique_key = excluded.unique_key,
        reducer = excluded.reducer, priority = excluded.priority, run_at = excluded.run_at,
        attempts = excluded.attempts, payload = excluded.payload,
        submitted_ms = excluded.submitted_ms, run_at_part_ms = excluded.run_at_part_ms,
        last_reason = excluded.last_reason, was_lost = excluded.was_lost"
    };
}

/// Applies the jobs of a chunk if generation `$1` owns the tables. The row lock keeps another
/// server from taking them over before the transaction ends.
macro_rules! change_jobs {
    () => {
        concat!(
            "\
WITH owner AS MATERIALIZED (
    SELECT 1 FROM ringgear_owner WHERE generation = $1 FOR SHARE
), kept AS (
    INSERT INTO ringgear_job (",
            columns!(),
            ")
    SELECT job.*
    FROM owner, unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS job
    ",
            replace_columns!(),
            "
    RETURNING 1
), retried AS (
    UPDATE ringgear_job SET
        attempts = runs.attempts, run_at = runs.run_at, run_at_part_ms = runs.run_at_part_ms,
        last_reason = runs.last_reason, was_lost = runs.was_lost
    FROM owner, unnest($14, $15, $16, $17, $18, $19)
        AS runs (number, attempts, run_at, run_at_part_ms, last_reason, was_lost)
    WHERE ringgear_job.number = runs.number
    RETURNING 1
), removed AS (
    DELETE FROM ringgear_job USING owner WHERE number = ANY ($20)
    RETURNING 1
)"
        )
    };
}

/// What every statement returns: 1 or 0 for the ownership, and the number of changed rows.
macro_rules! count {
    () => {
        "
SELECT (SELECT count(*) FROM owner), (SELECT count(*) FROM kept) + (SELECT count(*) FROM retried)
    + (SELECT count(*) FROM removed)"
    };
}

/// Applies a chunk without dead letters and pauses, as nearly all are.
pub(super) const JOBS_STATEMENT: &str = concat!(change_jobs!(), count!());

/// Applies any chunk. `ringgear_pause` has no key, so rows of it are replaced by two commands.
pub(super) const STATEMENT: &str = concat!(
    change_jobs!(),
    ", buried AS (
    INSERT INTO ringgear_dead (",
    columns!(),
    ", reason, died_ms, worker, message)
    SELECT dead.* FROM owner, unnest($21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32,
        $33, $34, $35, $36) AS dead
    ",
    replace_columns!(),
    ", reason = excluded.reason, died_ms = excluded.died_ms, worker = excluded.worker,
        message = excluded.message
    RETURNING 1
), dug AS (
    DELETE FROM ringgear_dead USING owner WHERE number = ANY ($37)
    RETURNING 1
), resumed AS (
    DELETE FROM ringgear_pause USING owner WHERE function = ANY ($38)
    RETURNING 1
), paused AS (
    INSERT INTO ringgear_pause (function, until_ms)
    SELECT pause.* FROM owner, unnest($39, $40) AS pause
    RETURNING 1
)",
    count!(),
    " + (SELECT count(*) FROM buried) + (SELECT count(*) FROM dug)
    + (SELECT count(*) FROM resumed) + (SELECT count(*) FROM paused)"
);

/// Number of parameters of `JOBS_STATEMENT`; `STATEMENT` has them, too, and then its own.
pub(super) const JOBS_PARAMETERS: usize = 20;

/// Types of the parameters.
pub(super) const TYPES: [Type; 40] = [
    Type::INT8,
    // Kept.
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT2_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::BOOL_ARRAY,
    // Retried.
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::INT8_ARRAY,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::BOOL_ARRAY,
    // Removed.
    Type::INT8_ARRAY,
    // Buried.
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT2_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::BOOL_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    // Removed dead letters.
    Type::INT8_ARRAY,
    // Pauses that end, and those that begin.
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY,
];

/// The effect of all operations on the row of a job.
enum JobChange<'a> {
    Insert { row: &'a Row, runs: Runs },
    Retry(Runs),
    Remove,
}

/// The effect of all operations on the row of a dead letter.
enum DeadChange<'a> {
    Insert(&'a DeadRow),
    Remove,
}

/// The effect of all operations on one number.
#[derive(Default)]
struct Change<'a> {
    job: Option<JobChange<'a>>,
    dead: Option<DeadChange<'a>>,
}

/// What is known of jobs' runs, column by column.
#[derive(Debug, Default)]
struct RunsColumns {
    attempts: Vec<i32>,
    run_at_s: Vec<i64>,
    run_at_part_ms: Vec<i16>,
    last_reason: Vec<Option<&'static str>>,
    was_lost: Vec<bool>,
}

impl RunsColumns {
    fn push(&mut self, runs: &Runs) {
        self.attempts.push(runs.attempts.cast_signed());
        self.run_at_s.push((runs.run_at_ms / 1000).cast_signed());
        self.run_at_part_ms.push(i16::try_from(runs.run_at_ms % 1000).unwrap_or_default());
        self.last_reason.push(runs.last_reason.map(Reason::name));
        self.was_lost.push(runs.was_lost);
    }
}

/// Jobs, column by column.
#[derive(Debug, Default)]
struct JobColumns<'a> {
    number: Vec<i64>,
    function: Vec<&'a [u8]>,
    unique: Vec<&'a [u8]>,
    reducer: Vec<&'a [u8]>,
    priority: Vec<i16>,
    payload: Vec<&'a [u8]>,
    submitted_ms: Vec<i64>,
    runs: RunsColumns,
}

impl<'a> JobColumns<'a> {
    fn push(&mut self, row: &'a Row, runs: &Runs) {
        self.number.push(row.number.cast_signed());
        self.function.push(&row.function);
        self.unique.push(&row.unique);
        self.reducer.push(&row.reducer);
        self.priority.push(i16::from(row.priority as u8));
        self.payload.push(&row.payload);
        self.submitted_ms.push(row.submitted_ms.cast_signed());
        self.runs.push(runs);
    }

    /// Parameters for `columns!`.
    fn parameters(&self) -> [&(dyn ToSql + Sync); 12] {
        let RunsColumns { attempts, run_at_s, run_at_part_ms, last_reason, was_lost } = &self.runs;
        [
            &self.number,
            &self.function,
            &self.unique,
            &self.reducer,
            &self.priority,
            run_at_s,
            attempts,
            &self.payload,
            &self.submitted_ms,
            run_at_part_ms,
            last_reason,
            was_lost,
        ]
    }
}

/// Parameters of one statement, column by column.
#[derive(Debug, Default)]
pub(super) struct Chunk<'a> {
    kept: JobColumns<'a>,
    retried: Vec<i64>,
    runs: RunsColumns,
    removed: Vec<i64>,
    buried: JobColumns<'a>,
    reason: Vec<&'static str>,
    died_ms: Vec<i64>,
    worker: Vec<&'a [u8]>,
    message: Vec<&'a [u8]>,
    removed_dead: Vec<i64>,
    /// Functions whose pauses are replaced, or end.
    resumed: Vec<&'a [u8]>,
    paused: Vec<&'a [u8]>,
    until_ms: Vec<Option<i64>>,
    /// Approximate size of the statement in bytes.
    pub(super) bytes: usize,
}

impl<'a> Chunk<'a> {
    /// Parameters of `STATEMENT`, in order.
    pub(super) fn parameters<'b>(&'b self, generation: &'b i64) -> Vec<&'b (dyn ToSql + Sync)> {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![generation];
        parameters.extend(self.kept.parameters());
        let RunsColumns { attempts, run_at_s, run_at_part_ms, last_reason, was_lost } = &self.runs;
        let runs: [&(dyn ToSql + Sync); 7] = [
            &self.retried,
            attempts,
            run_at_s,
            run_at_part_ms,
            last_reason,
            was_lost,
            &self.removed,
        ];
        parameters.extend(runs);
        parameters.extend(self.buried.parameters());
        let others: [&(dyn ToSql + Sync); 8] = [
            &self.reason,
            &self.died_ms,
            &self.worker,
            &self.message,
            &self.removed_dead,
            &self.resumed,
            &self.paused,
            &self.until_ms,
        ];
        parameters.extend(others);
        parameters
    }

    /// Whether it changes nothing but jobs.
    pub(super) fn has_jobs_only(&self) -> bool {
        self.buried.number.is_empty() && self.removed_dead.is_empty() && self.resumed.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    fn push(&mut self, number: u64, change: &Change<'a>) {
        let number = number.cast_signed();
        match change.job {
            Some(JobChange::Insert { row, ref runs }) => self.kept.push(row, runs),
            Some(JobChange::Retry(ref runs)) => {
                self.retried.push(number);
                self.runs.push(runs);
            }
            Some(JobChange::Remove) => self.removed.push(number),
            None => {}
        }
        match change.dead {
            Some(DeadChange::Insert(dead)) => {
                self.buried.push(&dead.row, &runs_of(&dead.row));
                self.reason.push(dead.reason.name());
                self.died_ms.push(dead.died_ms.cast_signed());
                self.worker.push(&dead.worker);
                self.message.push(&dead.message);
            }
            Some(DeadChange::Remove) => self.removed_dead.push(number),
            None => {}
        }
    }

    fn push_pause(&mut self, function: &'a [u8], pause: Option<Pause>) {
        self.resumed.push(function);
        if let Some(pause) = pause {
            self.paused.push(function);
            self.until_ms.push(match pause {
                Pause::Unlimited => None,
                Pause::Until(ms) => Some(ms.cast_signed()),
            });
        }
    }
}

impl Change<'_> {
    fn bytes(&self) -> usize {
        let job = match &self.job {
            Some(JobChange::Insert { row, .. }) => row.bytes(),
            Some(JobChange::Retry(_) | JobChange::Remove) | None => 0,
        };
        let dead = match &self.dead {
            Some(DeadChange::Insert(dead)) => dead.bytes(),
            Some(DeadChange::Remove) | None => 0,
        };
        JOB_BYTES + job + dead
    }
}

fn runs_of(row: &Row) -> Runs {
    let Row { attempts, run_at_ms, last_reason, was_lost, .. } = *row;
    Runs { attempts, run_at_ms, last_reason, was_lost }
}

/// The statements that have the effect of `operations`.
pub(super) fn chunks<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> Vec<Chunk<'a>> {
    // Ordered by number, so that rows that are adjacent on disk are written together.
    let mut changes: BTreeMap<u64, Change<'a>> = BTreeMap::new();
    let mut pauses: BTreeMap<&[u8], Option<Pause>> = BTreeMap::new();
    for operation in operations {
        match operation {
            Operation::Insert { row, .. } => {
                let runs = runs_of(row);
                changes.entry(row.number).or_default().job = Some(JobChange::Insert { row, runs });
            }
            Operation::Retry { number, runs } => {
                let job = &mut changes.entry(*number).or_default().job;
                match job {
                    Some(JobChange::Insert { runs: kept, .. }) => *kept = *runs,
                    Some(JobChange::Remove) => {}
                    Some(JobChange::Retry(_)) | None => *job = Some(JobChange::Retry(*runs)),
                }
            }
            // Also for a job that this commit inserts: an earlier attempt may have inserted it.
            Operation::Remove { number } => {
                changes.entry(*number).or_default().job = Some(JobChange::Remove);
            }
            Operation::Bury(dead) => {
                let change =
                    Change { job: Some(JobChange::Remove), dead: Some(DeadChange::Insert(dead)) };
                changes.insert(dead.row.number, change);
            }
            Operation::Unbury(row) => {
                let runs = runs_of(row);
                let change = Change {
                    job: Some(JobChange::Insert { row, runs }),
                    dead: Some(DeadChange::Remove),
                };
                changes.insert(row.number, change);
            }
            Operation::RemoveDead { number } => {
                changes.entry(*number).or_default().dead = Some(DeadChange::Remove);
            }
            Operation::Pause { function, pause } => {
                pauses.insert(function, *pause);
            }
        }
    }
    let mut chunks = Vec::new();
    let mut chunk = Chunk::default();
    for (number, change) in &changes {
        make_room(&mut chunks, &mut chunk, change.bytes());
        chunk.push(*number, change);
    }
    for (function, pause) in pauses {
        make_room(&mut chunks, &mut chunk, JOB_BYTES + function.len());
        chunk.push_pause(function, pause);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

/// Counts a change of this size in `chunk`, which is a new one if it would be too large.
fn make_room<'a>(chunks: &mut Vec<Chunk<'a>>, chunk: &mut Chunk<'a>, bytes: usize) {
    if !chunk.is_empty() && chunk.bytes + bytes > CHUNK_BYTES {
        chunks.push(mem::take(chunk));
    }
    chunk.bytes += bytes;
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
        assert_eq!(chunks[0].kept.number, [1]);
        assert_eq!(chunks[0].kept.runs.attempts, [2]);
        assert_eq!(chunks[0].retried, [3]);
        assert_eq!(chunks[0].runs.attempts, [4]);
        assert_eq!(chunks[0].removed, [2, 4]);
    }

    #[test]
    fn the_last_word_on_a_dead_letter_and_on_its_job_counts() {
        let dead = |number| {
            let row = row(number, 1);
            let (worker, message) = (Bytes::new(), Bytes::new());
            let reason = Reason::Fail;
            Operation::Bury(Box::new(DeadRow { row, reason, died_ms: 9, worker, message }))
        };
        let unbury = |number| Operation::Unbury(Box::new(row(number, 1)));
        let runs = Runs { attempts: 5, ..Runs::default() };
        let operations = [
            insert(1),
            dead(1),
            dead(2),
            unbury(2),
            Operation::Retry { number: 2, runs },
            dead(3),
            Operation::RemoveDead { number: 3 },
            dead(4),
            unbury(4),
            Operation::Remove { number: 4 },
            Operation::RemoveDead { number: 5 },
            unbury(6),
            dead(6),
            Operation::Retry { number: 6, runs },
        ];
        let chunks = chunks(&operations);
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].kept.number, [2]);
        assert_eq!(chunks[0].kept.runs.attempts, [5]);
        assert_eq!(chunks[0].retried, [0; 0]);
        assert_eq!(chunks[0].removed, [1, 3, 4, 6]);
        assert_eq!(chunks[0].buried.number, [1, 6]);
        assert_eq!(chunks[0].removed_dead, [2, 3, 4, 5]);
        assert!(!chunks[0].has_jobs_only());
    }

    #[test]
    fn the_last_word_on_a_pause_counts() {
        let pause = |name: &'static str, pause| Operation::Pause {
            function: Bytes::from_static(name.as_bytes()),
            pause,
        };
        let operations = [
            pause("a", Some(Pause::Unlimited)),
            pause("b", Some(Pause::Until(7))),
            pause("a", None),
            pause("c", Some(Pause::Until(8))),
            pause("c", Some(Pause::Unlimited)),
        ];
        let chunks = chunks(&operations);
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].resumed, [b"a", b"b", b"c"]);
        assert_eq!(chunks[0].paused, [b"b", b"c"]);
        assert_eq!(chunks[0].until_ms, [Some(7), None]);
        assert!(!chunks[0].has_jobs_only());
    }

    #[test]
    fn a_job_that_moves_counts_its_payload() {
        let bury = |number| {
            let row = row(number, CHUNK_BYTES / 2);
            let (worker, message) = (Bytes::new(), Bytes::new());
            let reason = Reason::Lost;
            Operation::Bury(Box::new(DeadRow { row, reason, died_ms: 0, worker, message }))
        };
        let unbury = Operation::Unbury(Box::new(row(3, CHUNK_BYTES / 2)));
        assert_eq!(chunks(&[bury(1), bury(2), unbury]).len(), 3);
    }

    #[test]
    fn large_payloads_are_spread_over_statements() {
        let operations: Vec<Operation> = [CHUNK_BYTES / 2, 10, CHUNK_BYTES / 2, CHUNK_BYTES * 2, 1]
            .into_iter()
            .zip(1..)
            .map(|(bytes, number)| Operation::Insert { row: row(number, bytes), answered: false })
            .collect();
        let chunks = chunks(&operations);
        let numbers: Vec<&[i64]> = chunks.iter().map(|chunk| &*chunk.kept.number).collect();
        assert_eq!(numbers, [&[1, 2][..], &[3], &[4], &[5]]);
        assert!(super::chunks(&[]).is_empty());
    }
}
