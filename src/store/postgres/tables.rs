//! Sees to it that the tables are there and of this server's version.
//!
//! A session in; tables that it can use out, created or upgraded if need be. Knows the lock with
//! which servers before version 5 said that they live, and nothing of partitions.
//!
//! Invariant: tables are upgraded in one transaction, and never while an older server has them.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::error::SessionError;
use super::schema::{SCHEMA, TUNING, UPGRADES, VERSION};
use super::session::{ANSWER_TIMEOUT, Session, answer, statement_timeout};
use crate::store::StoreError;

/// Time limit for an upgrade, which makes an index of all rows.
const UPGRADE_LIMIT: Duration = Duration::from_secs(600);
/// First half of the key of an older server's lock, `rngr` in ASCII; the other half is the table's
/// object id.
const OLD_LOCK_CLASS: i32 = 0x726e_6772;

/// Whether the tables can be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tables {
    /// They have this server's version.
    Ready,
    /// An older server has them; where it connects from.
    Owned(String),
}

/// Creates the tables if there are none, and upgrades them.
///
/// # Errors
/// `SessionError`, with a sentence for tables that this server doesn't know.
pub(super) async fn ensure(session: &Session) -> Result<Tables, SessionError> {
    let sql = "SELECT to_regclass('ringgear_owner') IS NOT NULL";
    let found: bool = answer(ANSWER_TIMEOUT, session.client.query_one(sql, &[])).await?.get(0);
    if !found {
        create(session).await?;
    }
    if version(session, "").await? == VERSION { Ok(Tables::Ready) } else { upgrade(session).await }
}

async fn create(session: &Session) -> Result<(), SessionError> {
    let tuning = if session.is_postgresql { TUNING.concat() } else { String::new() };
    let sql = format!("BEGIN; {SCHEMA} {tuning} COMMIT");
    session.forget_warning();
    match session.run(ANSWER_TIMEOUT, &sql).await {
        Ok(()) => session.check_warning()?,
        Err(error) => {
            if error.is_refusal() {
                session.run(ANSWER_TIMEOUT, "ROLLBACK").await?;
            }
            let found = [SqlState::DUPLICATE_TABLE, SqlState::UNIQUE_VIOLATION];
            // Another server that has just started was faster.
            return match error.code() {
                Some(code) if found.contains(code) => Ok(()),
                _ => Err(error),
            };
        }
    }
    for sql in TUNING.iter().filter(|_| !session.is_postgresql) {
        match session.run(ANSWER_TIMEOUT, sql).await {
            Err(error) if !error.is_refusal() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The version of the tables, if this server knows it.
async fn version(session: &Session, lock: &str) -> Result<i32, SessionError> {
    let sql = format!("SELECT version FROM ringgear_owner {lock}");
    let row = answer(ANSWER_TIMEOUT, session.client.query_opt(&sql, &[])).await?;
    let place = &session.place;
    let sentence = match row.map(|row| row.get::<_, i32>(0)) {
        Some(version @ 1..=VERSION) => return Ok(version),
        Some(version) if version > VERSION => format!(
            "the jobs in {place} are of version {version}, this ringgear knows versions up to \
             {VERSION}: start the newer ringgear, or another database"
        ),
        Some(version) => format!("the jobs in {place} have the unknown version {version}"),
        None => format!(
            "the table ringgear_owner in {place} has lost its row: restore it from a backup, or \
             drop all tables whose names begin with ringgear_ to start without jobs"
        ),
    };
    Err(SessionError::Explained(StoreError::Unusable(sentence)))
}

/// Brings the tables to this server's version, unless an older server has them.
async fn upgrade(session: &Session) -> Result<Tables, SessionError> {
    session.forget_warning();
    let begin =
        format!("BEGIN; SET LOCAL lock_timeout = 0; {}", statement_timeout("LOCAL", UPGRADE_LIMIT));
    session.run(ANSWER_TIMEOUT, &begin).await?;
    // Servers from before partitions ran on PostgreSQL only, which has it.
    let sql = "SELECT pg_try_advisory_xact_lock($1, 'ringgear_owner'::regclass::oid::int4)";
    let lock = answer(ANSWER_TIMEOUT, session.client.query_one(sql, &[&OLD_LOCK_CLASS]));
    if !lock.await?.get::<_, bool>(0) {
        session.run(ANSWER_TIMEOUT, "ROLLBACK").await?;
        return Ok(Tables::Owned(holder(session).await?));
    }
    let version = version(session, "FOR UPDATE").await?;
    let steps = usize::try_from(version - 1).ok().and_then(|done| UPGRADES.get(done..));
    for step in steps.unwrap_or_default() {
        session.run(UPGRADE_LIMIT, step).await?;
    }
    session.commit(ANSWER_TIMEOUT).await?;
    Ok(Tables::Ready)
}

/// Where the older server connects from.
async fn holder(session: &Session) -> Result<String, SessionError> {
    let sql = "SELECT coalesce(a.client_addr::text, 'the server''s own host'), l.pid \
               FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
               WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 \
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_catalog) \
               AND l.classid = $1 AND l.objid = 'ringgear_owner'::regclass";
    let class = OLD_LOCK_CLASS.unsigned_abs();
    let row = answer(ANSWER_TIMEOUT, session.client.query_opt(sql, &[&class])).await?;
    Ok(row.map_or_else(
        || "another host".to_owned(),
        |row| format!("{} (PostgreSQL process {})", row.get::<_, &str>(0), row.get::<_, i32>(1)),
    ))
}
