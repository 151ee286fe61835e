//! Imports the jobs of gearmand's PostgreSQL table into ringgear's tables.
//!
//! The jobs are moved within PostgreSQL; only the names of functions are transferred, as a job's
//! number depends on its function. Knows gearmand's columns.
//!
//! Invariant: one transaction moves all jobs or none. A table with other columns than gearmand's is
//! not changed.

use std::ops::Range;
use std::time::Duration;

use tokio_postgres::types::Type;
use tracing::{debug, info};

use super::change::Parameter;
use super::commit::{Fence, Fenced, fenced, prepare_fence};
use super::error::SessionError;
use super::partitions::column;
use super::record;
use super::session::{ANSWER_TIMEOUT, Session, answer, statement_timeout};
use crate::cluster::partition::PartitionId;
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

/// Moves all jobs of `table` (by default `queue`) into the home, which is given with its
/// generation, numbered from `first_sequence` at least; returns the sequence numbers that it
/// reserved.
pub(super) async fn take_over(
    session: &Session,
    (home, generation): (PartitionId, i64),
    table: Option<&str>,
    first_sequence: u64,
) -> Result<Range<u64>, SessionError> {
    let client = &session.client;
    // gearmand's tables are on PostgreSQL itself.
    if !session.is_postgresql {
        return Ok(0..0);
    }
    let name = table.unwrap_or(TABLE);
    let Some(found) =
        answer(ANSWER_TIMEOUT, client.query_typed_opt(FIND, &[(&name, Type::TEXT)])).await?
    else {
        return Ok(0..0);
    };
    let table: String = found.get(0);
    if found.get::<_, Vec<String>>(1) != COLUMNS {
        debug!(table, "not a table of gearmand's: left as it is");
        return Ok(0..0);
    }
    let count = format!("SELECT count(*) FROM {table}");
    let count: i64 = answer(LIMIT, client.query_one(&count, &[])).await?.get(0);
    if count == 0 {
        return Ok(0..0);
    }
    // In a transaction of their own, before other servers' jobs are locked out. As many again may
    // come until the table is locked.
    let blocks = (2 * count.cast_unsigned()).div_ceil(record::first_of(1));
    let fence = Fence { partition: home, generation, jobs: None };
    let wanted = (None, first_sequence, blocks);
    let Fenced::Done(sequences) = record::reserve(session, &fence, wanted).await? else {
        return Err(lost());
    };

    let begin = format!(
        "BEGIN; {} SET LOCAL lock_timeout = '5s'; SET LOCAL enable_hashjoin = on; \
         LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
        statement_timeout("LOCAL", LIMIT)
    );
    session.forget_warning();
    session.run(ANSWER_TIMEOUT, &begin).await?;
    let fence_statement = prepare_fence(session).await?;
    let parameters = fence.parameters();
    let held = client.execute(&fence_statement, &parameters.references()).await;
    if fenced(&fence, Some(held))?.is_some() {
        return Err(lost());
    }
    let sql = format!("SELECT DISTINCT {FUNCTION} FROM {table}");
    let functions = answer(LIMIT, client.query(&sql, &[])).await?;
    let functions: Vec<&[u8]> = functions.iter().map(|row| row.get(0)).collect();
    let slots: Vec<i16> = functions.iter().map(|function| i16::from(slot(function))).collect();
    let first = job_number(sequences.start, 0);
    let step = job_number(1, 0);
    debug_assert_eq!(slot_of(first), 0);
    let sql = format!(
        "INSERT INTO ringgear_job
             (partition, number, function, unique_key, reducer, priority, run_at, attempts,
              payload, submitted_ms)
         SELECT $5, $1 + (row_number() OVER (ORDER BY old.ctid) - 1) * $2 + name.slot,
             name.function, convert_to(coalesce(unique_key, ''), getdatabaseencoding()), '',
             CASE WHEN priority IN (0, 2) THEN priority ELSE 1 END,
             greatest(coalesce(when_to_run, 0), 0), 0, coalesce(data, ''),
             trunc(extract(epoch FROM now()) * 1000)
         FROM {table} AS old JOIN unnest($3, $4) AS name (function, slot)
         ON {FUNCTION} = name.function"
    );
    let types = [Type::INT8, Type::INT8, Type::BYTEA_ARRAY, Type::INT2_ARRAY, Type::INT4];
    let insert = answer(ANSWER_TIMEOUT, client.prepare_typed(&sql, &types)).await?;
    let (first, step) = (first.cast_signed(), step.cast_signed());
    let parameters: [Parameter<'_>; 5] = [&first, &step, &functions, &slots, &column(home)];
    let moved = answer(LIMIT, client.execute(&insert, &parameters)).await?;
    let sql = format!("DELETE FROM {table}");
    let deleted = answer(LIMIT, client.execute(&sql, &[])).await?;
    if moved > sequences.end - sequences.start {
        return Err(SessionError::Explained(StoreError::Unusable(format!(
            "gearmand's table {table} got more jobs while this server started: stop gearmand, and \
             start this server again"
        ))));
    }
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
    Ok(sequences)
}

fn lost() -> SessionError {
    SessionError::Explained(StoreError::Lost(
        "another server took the jobs over while this one started: stop one of the two, or start \
         it with --standby"
            .to_owned(),
    ))
}
