//! The tables: the version that a database has in, the statements that create or upgrade it out.
//!
//! Knows the columns, not what is stored in them, and no connection.
//!
//! Invariant: new tables and upgraded ones have the same columns.

/// Version of the tables.
///
/// 1. `ringgear_job` has a row for each job; `ringgear_owner` has one row with this version, the
///    generation (counts the sessions of owners) and the owner's token (random for each process).
/// 2. `ringgear_owner` also has the record about handles.
/// 3. `ringgear_job` also has the time of each job's submission, in milliseconds since 1970; 0 for
///    jobs from before.
/// 4. `ringgear_job` also has the milliseconds of `run_at`, which are beyond its seconds, how the
///    job's last run ended (NULL = not known), and whether it was run again at once after a worker
///    was lost. `ringgear_dead` has a row for each dead letter, `ringgear_pause` one for each
///    paused function (`until_ms` NULL = until it is resumed).
/// 5. Jobs and dead letters also have the partition that they belong to. `ringgear_partition` has a
///    row for each partition (`cluster::partition`; `state` 0 = free, 1 = owned, 2 = offered),
///    `ringgear_block` one for each block of sequence numbers, and `ringgear_cluster` one row with
///    this version, the prefix of handles and the next block. Of `ringgear_owner` only the version
///    still counts, which older servers read.
///
/// To change them: raise the number, say here what is new, change `SCHEMA` for new databases, and
/// add an upgrade, which is run in one transaction with those before it. Both versions are raised,
/// so that older servers refuse newer tables. Unsigned numbers are stored as signed ones with the
/// same bits; they reach 2^63 after a thousand years.
pub(super) const VERSION: i32 = 5;

/// Upgrade the tables by one version each, from the first on.
pub(super) const UPGRADES: [&str; 4] = [UPGRADE_2, UPGRADE_3, UPGRADE_4, UPGRADE_5];

/// The columns of a job, in `ringgear_job` and `ringgear_dead`.
macro_rules! columns {
    () => {
        "number, function, unique_key, reducer, priority, run_at, attempts, payload, submitted_ms, \
         run_at_part_ms, last_reason, was_lost"
    };
}
pub(super) use columns;

/// Upgrades tables of version 1 to version 2.
const UPGRADE_2: &str = "\
ALTER TABLE ringgear_owner ADD COLUMN handle_prefix bytea, ADD COLUMN next_sequence bigint;
UPDATE ringgear_owner SET version = 2;";

/// Upgrades tables of version 2 to version 3.
const UPGRADE_3: &str = "\
ALTER TABLE ringgear_job ADD COLUMN submitted_ms bigint NOT NULL DEFAULT 0;
UPDATE ringgear_owner SET version = 3;";

/// Upgrades tables of version 3 to version 4. A function's name may be too long for an index, so
/// `ringgear_pause` has none, and names its rows by all of their columns where they are replicated
/// logically.
const UPGRADE_4: &str = "\
ALTER TABLE ringgear_job ADD COLUMN run_at_part_ms smallint NOT NULL DEFAULT 0,
    ADD COLUMN last_reason text, ADD COLUMN was_lost boolean NOT NULL DEFAULT false;
CREATE TABLE ringgear_dead (
    number bigint PRIMARY KEY,
    function bytea NOT NULL,
    unique_key bytea NOT NULL,
    reducer bytea NOT NULL,
    priority smallint NOT NULL,
    run_at bigint NOT NULL,
    attempts integer NOT NULL,
    payload bytea NOT NULL,
    submitted_ms bigint NOT NULL,
    run_at_part_ms smallint NOT NULL,
    last_reason text,
    was_lost boolean NOT NULL,
    reason text NOT NULL,
    died_ms bigint NOT NULL,
    worker bytea NOT NULL,
    message bytea NOT NULL
);
ALTER TABLE ringgear_dead ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE ringgear_pause (function bytea NOT NULL, until_ms bigint);
ALTER TABLE ringgear_pause REPLICA IDENTITY FULL;
UPDATE ringgear_owner SET version = 4;";

/// The tables that version 5 adds.
macro_rules! tables_5 {
    () => {
        "\
CREATE TABLE ringgear_cluster (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version integer NOT NULL,
    prefix bytea,
    next_block bigint NOT NULL
);
CREATE TABLE ringgear_partition (
    partition integer PRIMARY KEY,
    generation bigint NOT NULL,
    beat bigint NOT NULL,
    state smallint NOT NULL,
    owner bytea NOT NULL,
    name text NOT NULL,
    address text NOT NULL,
    jobs bigint NOT NULL
);
CREATE TABLE ringgear_block (block bigint PRIMARY KEY, partition integer NOT NULL);
"
    };
}

/// Room in each page of `ringgear_partition` for the versions of rows that beats leave.
macro_rules! room_for_beats {
    () => {
        "ALTER TABLE ringgear_partition SET (fillfactor = 10);"
    };
}

/// Upgrades tables of version 4 to version 5. All rows are in partition 0, which is offered. The
/// next block is above the mark and above all jobs; 2^28 sequence numbers are in a block. Neither a
/// server of version 4 that lives on nor one that comes back can commit afterwards.
const UPGRADE_5: &str = concat!(
    tables_5!(),
    room_for_beats!(),
    "
INSERT INTO ringgear_cluster SELECT true, 5, handle_prefix, (greatest(coalesce(next_sequence, 0),
    (SELECT coalesce(max((number >> 8) & 72057594037927935), -1) + 1 FROM ringgear_job),
    (SELECT coalesce(max((number >> 8) & 72057594037927935), -1) + 1 FROM ringgear_dead))
    + 268435455) >> 28 FROM ringgear_owner;
INSERT INTO ringgear_partition SELECT 0, generation, 0, CASE WHEN EXISTS (SELECT FROM ringgear_job)
    OR EXISTS (SELECT FROM ringgear_dead) THEN 2 ELSE 0 END, '', '', '',
    (SELECT count(*) FROM ringgear_job) FROM ringgear_owner;
ALTER TABLE ringgear_job ADD COLUMN partition integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT ringgear_job_pkey, ADD PRIMARY KEY (partition, number);
ALTER TABLE ringgear_dead ADD COLUMN partition integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT ringgear_dead_pkey, ADD PRIMARY KEY (partition, number);
UPDATE ringgear_owner SET version = 5, generation = generation + 1, owner = '';"
);

/// Creates the tables. Nothing in it is PostgreSQL's own.
pub(super) const SCHEMA: &str = concat!(
    "\
CREATE TABLE ringgear_job (
    number bigint NOT NULL,
    function bytea NOT NULL,
    unique_key bytea NOT NULL,
    reducer bytea NOT NULL,
    priority smallint NOT NULL,
    run_at bigint NOT NULL,
    attempts integer NOT NULL,
    payload bytea NOT NULL,
    submitted_ms bigint NOT NULL DEFAULT 0,
    run_at_part_ms smallint NOT NULL DEFAULT 0,
    last_reason text,
    was_lost boolean NOT NULL DEFAULT false,
    partition integer NOT NULL DEFAULT 0,
    PRIMARY KEY (partition, number)
);
CREATE TABLE ringgear_dead (
    number bigint NOT NULL,
    function bytea NOT NULL,
    unique_key bytea NOT NULL,
    reducer bytea NOT NULL,
    priority smallint NOT NULL,
    run_at bigint NOT NULL,
    attempts integer NOT NULL,
    payload bytea NOT NULL,
    submitted_ms bigint NOT NULL,
    run_at_part_ms smallint NOT NULL,
    last_reason text,
    was_lost boolean NOT NULL,
    reason text NOT NULL,
    died_ms bigint NOT NULL,
    worker bytea NOT NULL,
    message bytea NOT NULL,
    partition integer NOT NULL DEFAULT 0,
    PRIMARY KEY (partition, number)
);
CREATE TABLE ringgear_pause (function bytea NOT NULL, until_ms bigint);
CREATE TABLE ringgear_owner (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version integer NOT NULL,
    generation bigint NOT NULL,
    owner bytea NOT NULL,
    handle_prefix bytea,
    next_sequence bigint
);
",
    tables_5!(),
    "
INSERT INTO ringgear_owner (only_row, version, generation, owner) VALUES (true, 5, 0, '');
INSERT INTO ringgear_cluster (only_row, version, next_block) VALUES (true, 5, 0);
INSERT INTO ringgear_partition VALUES (0, 0, 0, 0, '', '', '', 0);"
);

/// What `SCHEMA` leaves out, as other engines may refuse it. Payloads are stored uncompressed:
/// compression costs more than it saves. `ringgear_pause` is explained at version 4.
pub(super) const TUNING: [&str; 4] = [
    "ALTER TABLE ringgear_job ALTER payload SET STORAGE EXTERNAL;",
    "ALTER TABLE ringgear_dead ALTER payload SET STORAGE EXTERNAL;",
    "ALTER TABLE ringgear_pause REPLICA IDENTITY FULL;",
    room_for_beats!(),
];
