//! The statements of a commit: operations in, the parameters of as few statements as possible out.
//!
//! Operations on the same job, dead or not, are folded into one change of each table, so that the
//! statements of a chunk may run in any order, and a job that is inserted and removed is never
//! written. Each statement changes one table once, for engines that refuse more. Knows the
//! statements' columns, not the connection.
//!
//! Invariant: applying all chunks has the effect of the operations in order, even if some or all of
//! them were applied before: a commit without an answer is repeated.

use std::collections::BTreeMap;

use tokio_postgres::types::{ToSql, Type};

use super::schema::columns;
use crate::cluster::partition::PartitionId;
use crate::engine::reason::Reason;
use crate::engine::record::{DeadRow, Operation, Pause, Row, Runs};

/// Payload bytes from which another statement is begun; limits the memory that a commit needs here
/// and at PostgreSQL. A larger payload gets a statement of its own.
const CHUNK_BYTES: usize = 16 << 20;
/// Size of a job in a statement, beside its texts.
const JOB_BYTES: usize = 64;

/// Replaces all columns of a job but its key.
macro_rules! replace_columns {
    () => {
        "ON CONFLICT (partition, number) DO UPDATE SET
    function = excluded.function, unique_key = excluded.unique_key,
    reducer = excluded.reducer, priority = excluded.priority, run_at = excluded.run_at,
    attempts = excluded.attempts, payload = excluded.payload,
    submitted_ms = excluded.submitted_ms, run_at_part_ms = excluded.run_at_part_ms,
    last_reason = excluded.last_reason, was_lost = excluded.was_lost"
    };
}

/// Removes rows by their keys. Any engine knows this; PostgreSQL may plan it as a filter of all
/// rows of the partition, if it believes that these are few.
macro_rules! remove_from {
    ($table:literal) => {
        concat!("DELETE FROM ", $table, " WHERE partition = $1 AND number = ANY ($2)")
    };
}

/// The place of the row of `$table` with a number, for PostgreSQL. `OFFSET 0` keeps the planner
/// from joining the table otherwise than by one look into the index for each number, whatever it
/// believes of the table's size. Only the partition's owner changes its rows, so the places hold.
macro_rules! place_of {
    ($table:literal, $number:literal) => {
        concat!(
            "LATERAL (SELECT kept.ctid AS place FROM ",
            $table,
            " AS kept WHERE kept.partition = $1 AND kept.number = ",
            $number,
            " OFFSET 0) AS found"
        )
    };
}

/// `remove_from!` for PostgreSQL.
macro_rules! remove_by_place {
    ($table:literal) => {
        concat!(
            "DELETE FROM ",
            $table,
            " WHERE ctid = ANY (ARRAY(SELECT found.place FROM unnest($2) AS gone (number), ",
            place_of!($table, "gone.number"),
            "))"
        )
    };
}

/// A statement of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Keep,
    Retry,
    Remove,
    Bury,
    Dig,
    Resume,
    Pause,
}

impl Change {
    /// All of them, in the order of `Change as usize`. `ringgear_pause` has no key, so rows of it
    /// are replaced by two statements, in this order.
    pub(super) const ALL: [Self; 7] =
        [Self::Keep, Self::Retry, Self::Remove, Self::Bury, Self::Dig, Self::Resume, Self::Pause];

    /// Its text for PostgreSQL, which looks each row up whatever the planner believes of the table.
    pub(super) fn sql_for_postgresql(self) -> &'static str {
        match self {
            Self::Retry => RETRY_BY_PLACE,
            Self::Remove => remove_by_place!("ringgear_job"),
            Self::Dig => remove_by_place!("ringgear_dead"),
            _ => self.sql(),
        }
    }

    /// Its text for any engine; `$1` is the partition, but for pauses, which have none.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Keep => KEEP,
            Self::Retry => RETRY,
            Self::Remove => remove_from!("ringgear_job"),
            Self::Bury => BURY,
            Self::Dig => remove_from!("ringgear_dead"),
            Self::Resume => "DELETE FROM ringgear_pause WHERE function = ANY ($1)",
            Self::Pause => PAUSE,
        }
    }

    /// Whether its first parameter is the partition.
    pub(super) fn is_of_partition(self) -> bool {
        !matches!(self, Self::Resume | Self::Pause)
    }

    /// Types of its parameters.
    pub(super) fn types(self) -> &'static [Type] {
        match self {
            Self::Keep => &KEEP_TYPES,
            Self::Retry => &RETRY_TYPES,
            Self::Remove | Self::Dig => &[Type::INT4, Type::INT8_ARRAY],
            Self::Bury => &BURY_TYPES,
            Self::Resume => &[Type::BYTEA_ARRAY],
            Self::Pause => &[Type::BYTEA_ARRAY, Type::INT8_ARRAY],
        }
    }
}

const KEEP: &str = concat!(
    "INSERT INTO ringgear_job (partition, ",
    columns!(),
    ")
SELECT $1, job.* FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS job
",
    replace_columns!()
);

/// What becomes of a job that is to be run again.
macro_rules! retry {
    () => {
        "\
UPDATE ringgear_job SET
    attempts = runs.attempts, run_at = runs.run_at, run_at_part_ms = runs.run_at_part_ms,
    last_reason = runs.last_reason, was_lost = runs.was_lost
FROM unnest($2, $3, $4, $5, $6, $7)
    AS runs (number, attempts, run_at, run_at_part_ms, last_reason, was_lost)"
    };
}

const RETRY: &str = concat!(
    retry!(),
    "
WHERE ringgear_job.partition = $1 AND ringgear_job.number = runs.number"
);

/// `RETRY` for PostgreSQL.
const RETRY_BY_PLACE: &str = concat!(
    retry!(),
    ",
    ",
    place_of!("ringgear_job", "runs.number"),
    "
WHERE ringgear_job.ctid = found.place"
);

const BURY: &str = concat!(
    "INSERT INTO ringgear_dead (partition, ",
    columns!(),
    ", reason, died_ms, worker, message)
SELECT $1, dead.* FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
    $17) AS dead
",
    replace_columns!(),
    ", reason = excluded.reason, died_ms = excluded.died_ms, worker = excluded.worker,
    message = excluded.message"
);

const PAUSE: &str = "\
INSERT INTO ringgear_pause (function, until_ms) SELECT pause.* FROM unnest($1, $2) AS pause";

const KEEP_TYPES: [Type; 13] = [
    Type::INT4,
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
];

const RETRY_TYPES: [Type; 7] = [
    Type::INT4,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::INT8_ARRAY,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::BOOL_ARRAY,
];

const BURY_TYPES: [Type; 17] = [
    Type::INT4,
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
struct Effect<'a> {
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
    fn parameters(&self) -> [Parameter<'_>; 12] {
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

/// Parameters of one statement of each kind, column by column.
#[derive(Debug, Default)]
pub(super) struct Chunk<'a> {
    /// The partition of all its jobs.
    pub(super) partition: PartitionId,
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
    /// Approximate size of the statements in bytes.
    pub(super) bytes: usize,
}

/// A parameter of a statement.
pub(super) type Parameter<'b> = &'b (dyn ToSql + Sync);

impl<'a> Chunk<'a> {
    /// The statements that it needs, with their parameters but for the partition.
    pub(super) fn statements(&self) -> Vec<(Change, Vec<Parameter<'_>>)> {
        let Self { retried, removed, removed_dead, resumed, paused, until_ms, .. } = self;
        let mut statements: Vec<(Change, Vec<Parameter<'_>>)> = Vec::new();
        if !self.kept.number.is_empty() {
            statements.push((Change::Keep, self.kept.parameters().into()));
        }
        if !retried.is_empty() {
            let RunsColumns { attempts, run_at_s, run_at_part_ms, last_reason, was_lost } =
                &self.runs;
            let parameters: [Parameter<'_>; 6] =
                [retried, attempts, run_at_s, run_at_part_ms, last_reason, was_lost];
            statements.push((Change::Retry, parameters.into()));
        }
        if !removed.is_empty() {
            statements.push((Change::Remove, vec![removed]));
        }
        if !self.buried.number.is_empty() {
            let mut parameters: Vec<Parameter<'_>> = self.buried.parameters().into();
            let more: [Parameter<'_>; 4] =
                [&self.reason, &self.died_ms, &self.worker, &self.message];
            parameters.extend(more);
            statements.push((Change::Bury, parameters));
        }
        if !removed_dead.is_empty() {
            statements.push((Change::Dig, vec![removed_dead]));
        }
        if !resumed.is_empty() {
            statements.push((Change::Resume, vec![resumed]));
        }
        if !paused.is_empty() {
            statements.push((Change::Pause, vec![paused, until_ms]));
        }
        statements
    }

    fn push(&mut self, number: u64, effect: &Effect<'a>) {
        let number = number.cast_signed();
        match effect.job {
            Some(JobChange::Insert { row, ref runs }) => self.kept.push(row, runs),
            Some(JobChange::Retry(ref runs)) => {
                self.retried.push(number);
                self.runs.push(runs);
            }
            Some(JobChange::Remove) => self.removed.push(number),
            None => {}
        }
        match effect.dead {
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

impl Effect<'_> {
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

/// The chunks that have the effect of operations, each with the partition of its job; pauses are
/// written along with the jobs of any partition.
pub(super) fn chunks<'a>(
    operations: impl IntoIterator<Item = (PartitionId, &'a Operation)>,
) -> Vec<Chunk<'a>> {
    // Ordered by key, so that rows that are adjacent on disk are written together.
    let mut effects: BTreeMap<(PartitionId, u64), Effect<'a>> = BTreeMap::new();
    let mut pauses: BTreeMap<&[u8], (PartitionId, Option<Pause>)> = BTreeMap::new();
    for (partition, operation) in operations {
        match operation {
            Operation::Insert { row, .. } => {
                let runs = runs_of(row);
                effect_on(&mut effects, partition, row.number).job =
                    Some(JobChange::Insert { row, runs });
            }
            Operation::Retry { number, runs } => {
                let job = &mut effect_on(&mut effects, partition, *number).job;
                match job {
                    Some(JobChange::Insert { runs: kept, .. }) => *kept = *runs,
                    Some(JobChange::Remove) => {}
                    Some(JobChange::Retry(_)) | None => *job = Some(JobChange::Retry(*runs)),
                }
            }
            // Also for a job that this commit inserts: an earlier attempt may have inserted it.
            Operation::Remove { number } => {
                effect_on(&mut effects, partition, *number).job = Some(JobChange::Remove)
            }
            Operation::Bury(dead) => {
                let (job, dead_row) = (Some(JobChange::Remove), Some(DeadChange::Insert(dead)));
                *effect_on(&mut effects, partition, dead.row.number) =
                    Effect { job, dead: dead_row };
            }
            Operation::Unbury(row) => {
                let runs = runs_of(row);
                let job = Some(JobChange::Insert { row, runs });
                *effect_on(&mut effects, partition, row.number) =
                    Effect { job, dead: Some(DeadChange::Remove) };
            }
            Operation::RemoveDead { number } => {
                effect_on(&mut effects, partition, *number).dead = Some(DeadChange::Remove)
            }
            Operation::Pause { function, pause } => {
                pauses.insert(function, (partition, *pause));
            }
        }
    }
    let mut chunks = Vec::new();
    for ((partition, number), effect) in &effects {
        let mut chunk = take_chunk(&mut chunks, *partition, effect.bytes());
        chunk.push(*number, effect);
        chunks.push(chunk);
    }
    for (function, (partition, pause)) in pauses {
        let mut chunk = take_chunk(&mut chunks, partition, JOB_BYTES + function.len());
        chunk.push_pause(function, pause);
        chunks.push(chunk);
    }
    chunks
}

/// The effect on one number so far.
fn effect_on<'a, 'b>(
    effects: &'b mut BTreeMap<(PartitionId, u64), Effect<'a>>,
    partition: PartitionId,
    number: u64,
) -> &'b mut Effect<'a> {
    effects.entry((partition, number)).or_default()
}

/// The last chunk, or a new one if it would be too large with a change of this size.
fn take_chunk<'a>(chunks: &mut Vec<Chunk<'a>>, partition: PartitionId, bytes: usize) -> Chunk<'a> {
    let last =
        chunks.pop_if(|last| last.partition == partition && last.bytes + bytes <= CHUNK_BYTES);
    let mut chunk = last.unwrap_or_else(|| Chunk { partition, ..Chunk::default() });
    chunk.bytes += bytes;
    chunk
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

    fn in_one_partition(operations: &[Operation]) -> Vec<Chunk<'_>> {
        chunks(operations.iter().map(|operation| (0, operation)))
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
        let chunks = in_one_partition(&operations);
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
        let chunks = in_one_partition(&operations);
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].kept.number, [2]);
        assert_eq!(chunks[0].kept.runs.attempts, [5]);
        assert_eq!(chunks[0].retried, [0; 0]);
        assert_eq!(chunks[0].removed, [1, 3, 4, 6]);
        assert_eq!(chunks[0].buried.number, [1, 6]);
        assert_eq!(chunks[0].removed_dead, [2, 3, 4, 5]);
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
        let chunks = in_one_partition(&operations);
        assert_eq!(chunks.len(), 1);
        assert_eq!(chunks[0].resumed, [b"a", b"b", b"c"]);
        assert_eq!(chunks[0].paused, [b"b", b"c"]);
        assert_eq!(chunks[0].until_ms, [Some(7), None]);
    }

    #[test]
    fn each_partition_has_chunks_of_its_own_and_pauses_share_them() {
        let pause = Operation::Pause { function: Bytes::from_static(b"f"), pause: None };
        let operations =
            [(7, insert(1)), (3, insert(2)), (7, Operation::Remove { number: 3 }), (7, pause)];
        let chunks = chunks(operations.iter().map(|(partition, it)| (*partition, it)));
        let changes = |chunk: &Chunk<'_>| -> Vec<Change> {
            chunk.statements().into_iter().map(|(change, _)| change).collect()
        };
        assert_eq!(chunks.len(), 2);
        assert_eq!((chunks[0].partition, chunks[1].partition), (3, 7));
        assert_eq!(changes(&chunks[0]), [Change::Keep]);
        assert_eq!(changes(&chunks[1]), [Change::Keep, Change::Remove, Change::Resume]);
    }

    #[test]
    fn each_statement_has_as_many_parameters_as_types() {
        for change in Change::ALL {
            let count = change.types().len();
            for sql in [change.sql(), change.sql_for_postgresql()] {
                assert!(sql.contains(&format!("${count}")), "{sql}");
                assert!(!sql.contains(&format!("${}", count + 1)), "{sql}");
            }
        }
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
        assert_eq!(in_one_partition(&[bury(1), bury(2), unbury]).len(), 3);
    }

    #[test]
    fn large_payloads_are_spread_over_statements() {
        let operations: Vec<Operation> = [CHUNK_BYTES / 2, 10, CHUNK_BYTES / 2, CHUNK_BYTES * 2, 1]
            .into_iter()
            .zip(1..)
            .map(|(bytes, number)| Operation::Insert { row: row(number, bytes), answered: false })
            .collect();
        let chunks = in_one_partition(&operations);
        let numbers: Vec<&[i64]> = chunks.iter().map(|chunk| &*chunk.kept.number).collect();
        assert_eq!(numbers, [&[1, 2][..], &[3], &[4], &[5]]);
        assert!(in_one_partition(&[]).is_empty());
    }
}
