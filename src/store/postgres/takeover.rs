//! Imports the jobs of gearmand's PostgreSQL table into ringgear's tables.
//!
//! The jobs are moved within PostgreSQL; only the names of functions are transferred, as a job's
//! number depends on its function. Knows gearmand's columns.
//!
//! Invariant: one transaction moves all jobs or none. A table with other columns than gearmand's is
//! not changed.

use std::time::Duration;

use tokio_postgres::types::Type;
use tracing::{debug, info};

use super::error::SessionError;
use super::record;
use super::session::{ANSWER_TIMEOUT, Session, answer, statement_timeout};
use crate::engine::handle::{job_number, slot, slot_of};
use crate::store::StoreError;

/// gearmand's default for `--libpq-table`.
const TABLE: &str = "queue";
/// Time limit for each statement that moves jobs.
const LIMIT: Duration = Duration::from_secs(600);

/// The columns of gearmand's table, by name.
const COLUMNS: [&str; 5] = [
    "data bytea",
    "function_name character varying",
    "priority integer",
    "unique_key character varying",
    "when_to_run integer",
];

/// Finds a table by its name, as an unquoted name in SQL is found, and lists its columns.
const FIND: &str = "\
SELECT format('%I.%I', n.nspname, c.relname), ARRAY(
    SELECT a.attname || ' ' || format_type(a.atttypid, NULL) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r'
AND c.oid = coalesce(to_regclass(quote_ident($1)), to_regclass(quote_ident(lower($1))))";

/// The function's name, with the bytes that gearmand sent.
const FUNCTION: &str = "convert_to(coalesce(function_name, ''), getdatabaseencoding())";

/// Moves all jobs of `table` (by default `queue`), numbered from `first_sequence` or above the
/// stored jobs; returns the sequence number after the last one.
pub(super) async fn take_over(
    session: &Session,
    generation: i64,
    table: Option<&str>,
    first_sequence: u64,
) -> Result<u64, SessionError> {
    let client = &session.client;
    let sequence = first_sequence.max(record::read(session).await?.next());
    let name = table.unwrap_or(TABLE);
    let Some(found) =
        answer(ANSWER_TIMEOUT, client.query_typed_opt(FIND, &[(&name, Type::TEXT)])).await?
    else {
        return Ok(sequence);
    };
    let table: String = found.get(0);
    if found.get::<_, Vec<String>>(1) != COLUMNS {
        debug!(table, "not a table of gearmand's: left as it is");
        return Ok(sequence);
    }

    let begin = format!(
        "BEGIN; {} SET LOCAL lock_timeout = '5s'; SET LOCAL enable_hashjoin = on; \
         LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
        statement_timeout("LOCAL", LIMIT)
    );
    session.forget_warning();
    session.run(ANSWER_TIMEOUT, &begin).await?;
    let owner = "SELECT 1 FROM ringgear_owner WHERE generation = $1 FOR SHARE";
    if answer(ANSWER_TIMEOUT, client.query_opt(owner, &[&generation])).await?.is_none() {
        return Err(SessionError::Explained(StoreError::Lost(
            "another server took the jobs over while this one started: stop one of the two, or \
             start it with --standby"
                .to_owned(),
        )));
    }
    let sql = format!("SELECT DISTINCT {FUNCTION} FROM {table}");
    let functions = answer(LIMIT, client.query(&sql, &[])).await?;
    let functions: Vec<&[u8]> = functions.iter().map(|row| row.get(0)).collect();
    let slots: Vec<i16> = functions.iter().map(|function| i16::from(slot(function))).collect();
    let first = job_number(sequence, 0);
    let step = job_number(1, 0);
    debug_assert_eq!(slot_of(first), 0);
    let sql = format!(
        "INSERT INTO ringgear_job
             (number, function, unique_key, reducer, priority, run_at, attempts, payload,
              submitted_ms)
         SELECT $1 + (row_number() OVER (ORDER BY old.ctid) - 1) * $2 + name.slot,
             name.function, convert_to(coalesce(unique_key, ''), getdatabaseencoding()), '',
             CASE WHEN priority IN (0, 2) THEN priority ELSE 1 END,
             greatest(coalesce(when_to_run, 0), 0), 0, coalesce(data, ''),
             trunc(extract(epoch FROM now()) * 1000)
         FROM {table} AS old JOIN unnest($3, $4) AS name (function, slot)
         ON {FUNCTION} = name.function"
    );
    let types = [Type::INT8, Type::INT8, Type::BYTEA_ARRAY, Type::INT2_ARRAY];
    let insert = answer(ANSWER_TIMEOUT, client.prepare_typed(&sql, &types)).await?;
    let (first, step) = (first.cast_signed(), step.cast_signed());
    let moved =
        answer(LIMIT, client.execute(&insert, &[&first, &step, &functions, &slots])).await?;
    let sql = format!("DELETE FROM {table}");
    let deleted = answer(LIMIT, client.execute(&sql, &[])).await?;
    if moved != deleted {
        return Err(SessionError::Explained(StoreError::Unusable(format!(
            "{moved} of {deleted} jobs of gearmand's table {table} could be moved: none was; name \
             another table to start without them"
        ))));
    }
    session.commit(ANSWER_TIMEOUT).await?;
    if moved > 0 {
        info!(jobs = moved, table, "took over the jobs of gearmand");
    }
    Ok(sequence + moved)
}
