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
///
/// To change them: raise the number, say here what is new, change `SCHEMA` for new databases, and
/// let `Link::own` alter tables of each older version before it takes the next generation, in the
/// same transaction. Older servers refuse newer tables. Unsigned numbers are stored as signed ones
/// with the same bits; they reach 2^63 after a thousand years.
pub(super) const VERSION: i32 = 4;

/// Upgrade the tables by one version each, from the first on.
pub(super) const UPGRADES: [&str; 3] = [UPGRADE_2, UPGRADE_3, UPGRADE_4];

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

/// The tables of version 4. A function's name may be too long for an index, so `ringgear_pause`
/// has none, and names its rows by all of their columns where they are replicated logically.
macro_rules! tables_4 {
    () => {
        "\
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
ALTER TABLE ringgear_pause REPLICA IDENTITY FULL;"
    };
}

/// Upgrades tables of version 3 to version 4.
const UPGRADE_4: &str = concat!(
    "\
ALTER TABLE ringgear_job ADD COLUMN run_at_part_ms smallint NOT NULL DEFAULT 0,
    ADD COLUMN last_reason text, ADD COLUMN was_lost boolean NOT NULL DEFAULT false;
",
    tables_4!(),
    "UPDATE ringgear_owner SET version = 4;"
);

/// Creates the tables. Payloads are stored uncompressed: compression costs more than it saves.
pub(super) const SCHEMA: &str = concat!(
    "\
CREATE TABLE ringgear_job (
    number bigint PRIMARY KEY,
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
    was_lost boolean NOT NULL DEFAULT false
);
ALTER TABLE ringgear_job ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE ringgear_owner (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version integer NOT NULL,
    generation bigint NOT NULL,
    owner bytea NOT NULL,
    handle_prefix bytea,
    next_sequence bigint
);
",
    tables_4!()
);
