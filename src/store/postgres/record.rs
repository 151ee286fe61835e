//! Reads and writes the record about handles in the row of `ringgear_owner`.
//!
//! Knows the columns that version 2 of the tables added, not the meaning of the record
//! (`namespace`).
//!
//! Invariant: only the generation that owns the tables changes the record.

use tokio_postgres::types::{ToSql, Type};

use super::error::SessionError;
use super::session::{ANSWER_TIMEOUT, Session, answer};
use crate::store::namespace::Record;

/// Numbers above 2^63 are negative in the tables, and larger than all others.
const SELECT: &str = "\
WITH number (number) AS (
    SELECT max(number) FROM ringgear_job UNION ALL SELECT max(number) FROM ringgear_dead UNION ALL
    SELECT max(number) FROM ringgear_job WHERE number < 0 UNION ALL
    SELECT max(number) FROM ringgear_dead WHERE number < 0)
SELECT handle_prefix, next_sequence, coalesce(
    (SELECT max(number) FROM number WHERE number < 0),
    (SELECT max(number) FROM number))
FROM ringgear_owner";

/// Tables of each version from the second on have these.
const SELECT_OWNER: &str = "SELECT handle_prefix, next_sequence, NULL::bigint FROM ringgear_owner";

/// The mark never decreases, even if this server's is older than the recorded one.
const UPDATE: &str = "\
UPDATE ringgear_owner SET handle_prefix = $2, next_sequence = greatest(next_sequence, $3)
WHERE generation = $1";

/// Reads the record.
pub(super) async fn read(session: &Session) -> Result<Record, SessionError> {
    select(session, SELECT).await
}

/// Reads the record without the largest number, also in tables of an earlier version.
pub(super) async fn peek(session: &Session) -> Result<Record, SessionError> {
    select(session, SELECT_OWNER).await
}

async fn select(session: &Session, sql: &str) -> Result<Record, SessionError> {
    let row = answer(ANSWER_TIMEOUT, session.client.query_one(sql, &[])).await?;
    let number = |column| row.get::<_, Option<i64>>(column).map(i64::cast_unsigned);
    Ok(Record { prefix: row.get(0), mark: number(1), last: number(2) })
}

/// Writes the record; `false`, and nothing changed, if `generation` is not the latest.
///
/// # Errors
/// `SessionError::Warned` if the change may not survive a failover.
pub(super) async fn write(
    session: &Session,
    generation: i64,
    prefix: &[u8],
    mark: u64,
) -> Result<bool, SessionError> {
    let types = [Type::INT8, Type::BYTEA, Type::INT8];
    let update = answer(ANSWER_TIMEOUT, session.client.prepare_typed(UPDATE, &types)).await?;
    let mark = mark.cast_signed();
    let parameters: [&(dyn ToSql + Sync); 3] = [&generation, &prefix, &mark];
    session.forget_warning();
    let rows = answer(ANSWER_TIMEOUT, session.client.execute(&update, &parameters)).await?;
    session.check_warning()?;
    Ok(rows > 0)
}
