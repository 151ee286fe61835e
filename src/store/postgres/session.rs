//! One connection to PostgreSQL: opened, set up and watched, its errors put into sentences.
//!
//! Every question has a limit on this side, too: a server that has stopped can't keep its own.
//! Knows the lock that makes one server the owner, not the jobs.
//!
//! Invariant: a session that may have a question in flight is never used again. The lock belongs
//! to the session and goes with it.

use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::Severity;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket, Statement};
use tracing::{info, warn};

use super::change;
use super::conninfo::Target;
use super::error::{SessionError, message, read_only};
use crate::store::StoreError;

/// How long the server may take to answer, plus a second for every `SLOW_BYTES` sent.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const SLOW_BYTES: usize = 1 << 20;
/// How much earlier the server itself gives up: its own refusal leaves the session usable.
const HEAD_START: Duration = Duration::from_secs(2);
/// Oldest server with all that is used: `plan_cache_mode`, `tcp_user_timeout`.
const SERVER_VERSION_MIN: i32 = 12_00_00;
/// First half of the lock's key, `rngr` in ASCII; the other half is the table's object id.
const LOCK_CLASS: i32 = 0x726e_6772;

/// What a session is told once. Plans are made for tables of any size: this one is empty when they
/// are made and may have millions of rows a minute later. What is switched off makes plans look
/// expensive, and compiling them would cost 100 ms a commit. The server's side of the keepalives
/// frees
/// the lock of an owner whose host is gone.
const SETTINGS: &str = "\
SET synchronous_commit = on;
SET default_transaction_isolation = 'read committed';
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = '60s';
SET tcp_keepalives_idle = 10;
SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3;
SET tcp_user_timeout = '20s';
SET client_min_messages = warning;";

/// How long a statement with so many bytes may take.
pub(super) fn limit(bytes: usize) -> Duration {
    ANSWER_TIMEOUT + Duration::from_secs((bytes / SLOW_BYTES) as u64)
}

/// Sets the limit that the server keeps itself.
pub(super) fn statement_timeout(scope: &str, limit: Duration) -> String {
    format!("SET {scope} statement_timeout = {};", limit.saturating_sub(HEAD_START).as_millis())
}

/// Waits for an answer, but not for ever.
pub(super) async fn answer<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, SessionError> {
    match timeout(limit, question).await {
        Ok(answer) => answer.map_err(SessionError::Error),
        Err(_) => Err(SessionError::Timeout(limit)),
    }
}

/// A server process that serves a session; its number alone may be given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pid: i32,
    started: Option<SystemTime>,
}

/// An open connection.
pub(super) struct Session {
    pub(super) client: Client,
    /// Where it leads, for messages.
    pub(super) place: String,
    pub(super) backend: Backend,
    /// Whether commits wait for a standby.
    pub(super) is_synchronous: bool,
    connection: JoinHandle<()>,
    /// What the server warned of last, since it was last asked for.
    warning: Arc<Mutex<Option<String>>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whatever is in flight is given up; the socket closes.
        self.connection.abort();
    }
}

impl Session {
    /// Connects to the first host that can be written to.
    pub(super) async fn connect(targets: &[Target]) -> Result<Self, SessionError> {
        let mut errors = Vec::new();
        for target in targets {
            match Self::connect_to(target).await {
                Ok(session) => return Ok(session),
                Err(error) => errors.push((target.place.clone(), error)),
            }
        }
        Err(SessionError::Hosts(errors))
    }

    async fn connect_to(target: &Target) -> Result<Self, SessionError> {
        let (limit, place) = (target.connect_limit(), &target.place);
        let (client, connection) = answer(limit, target.config.connect(NoTls)).await?;
        let warning = Arc::default();
        let connection = tokio::spawn(drive(connection, Arc::clone(&warning)));
        let backend = Backend { pid: 0, started: None };
        let place = place.clone();
        let mut session =
            Self { client, place, backend, is_synchronous: false, connection, warning };
        let place = &session.place;
        let facts = "SELECT current_setting('server_version_num')::int4, pg_is_in_recovery(), \
                     current_setting('fsync'), pid, backend_start, \
                     current_setting('synchronous_standby_names') <> '' \
                     FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let facts = answer(ANSWER_TIMEOUT, session.client.query_one(facts, &[])).await?;
        let version: i32 = facts.get(0);
        if version < SERVER_VERSION_MIN {
            return Err(SessionError::Explained(StoreError::Unusable(format!(
                "{place} is version {}: ringgear needs {} or newer",
                version / 10_000,
                SERVER_VERSION_MIN / 10_000
            ))));
        }
        if facts.get(1) {
            return Err(SessionError::Explained(StoreError::Unavailable(read_only(place))));
        }
        if facts.get::<_, &str>(2) != "on" {
            warn!("{place} has fsync off: jobs are lost when its host stops");
        }
        session.backend = Backend { pid: facts.get(3), started: facts.get(4) };
        session.is_synchronous = facts.get(5);
        let settings = format!("{SETTINGS}{}", statement_timeout("SESSION", ANSWER_TIMEOUT));
        answer(ANSWER_TIMEOUT, session.client.batch_execute(&settings)).await?;
        Ok(session)
    }

    /// Whether the server or the network ended it.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Tries to become the owner of the tables.
    pub(super) async fn lock(&self) -> Result<bool, SessionError> {
        let sql = "SELECT pg_try_advisory_lock($1, 'ringgear_owner'::regclass::oid::int4)";
        Ok(answer(ANSWER_TIMEOUT, self.client.query_one(sql, &[&LOCK_CLASS])).await?.get(0))
    }

    /// The generation of the last owner.
    pub(super) async fn generation(&self) -> Result<i64, SessionError> {
        let sql = "SELECT generation FROM ringgear_owner";
        Ok(answer(ANSWER_TIMEOUT, self.client.query_one(sql, &[])).await?.get(0))
    }

    /// Who has the lock, and where from.
    pub(super) async fn holder(&self) -> Result<Option<(Backend, String)>, SessionError> {
        let sql = "SELECT l.pid, a.backend_start, \
                   coalesce(a.client_addr::text, 'the server''s own host') \
                   FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
                   WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 \
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_catalog) \
                   AND l.classid = $1 AND l.objid = 'ringgear_owner'::regclass";
        let class = LOCK_CLASS.unsigned_abs();
        Ok(answer(ANSWER_TIMEOUT, self.client.query_opt(sql, &[&class]))
            .await?
            .map(|row| (Backend { pid: row.get(0), started: row.get(1) }, row.get(2))))
    }

    /// Ends the server process of a session that was given up.
    pub(super) async fn terminate(&self, backend: Backend) -> Result<(), SessionError> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE pid = $1 AND backend_start = $2";
        answer(ANSWER_TIMEOUT, self.client.query(sql, &[&backend.pid, &backend.started]))
            .await
            .map(|_| ())
    }

    /// Plans the statement that every commit runs.
    pub(super) async fn prepare(&self) -> Result<Statement, SessionError> {
        answer(ANSWER_TIMEOUT, self.client.prepare_typed(change::STATEMENT, &change::TYPES)).await
    }

    /// Ends a transaction, which is certain to be kept if no warning came since
    /// `forget_warning`.
    pub(super) async fn commit(&self, limit: Duration) -> Result<(), SessionError> {
        self.run(limit, "COMMIT").await?;
        self.check_warning()
    }

    /// What the server has said so far is of no concern.
    pub(super) fn forget_warning(&self) {
        let _ = self.check_warning();
    }

    /// Asked when a commit was answered. The server answers that it has committed when it gives up
    /// waiting for its standby, and warns beforehand.
    pub(super) fn check_warning(&self) -> Result<(), SessionError> {
        let warning = self.warning.lock().unwrap_or_else(PoisonError::into_inner).take();
        warning.map_or(Ok(()), |warning| Err(SessionError::Warned(warning)))
    }

    /// Sends statements without parameters.
    pub(super) async fn run(&self, limit: Duration, sql: &str) -> Result<(), SessionError> {
        answer(limit, self.client.batch_execute(sql)).await
    }
}

/// Reads and writes for a session until it ends. A notice is here before the end of the answer that
/// it came with.
async fn drive(
    mut connection: Connection<Socket, NoTlsStream>,
    warning: Arc<Mutex<Option<String>>>,
) {
    // An error also ends the question that is being asked.
    while let Some(Ok(said)) = poll_fn(|cx| connection.poll_message(cx)).await {
        let AsyncMessage::Notice(notice) = said else { continue };
        info!("PostgreSQL says {}: {}", notice.severity(), message(&notice));
        if notice.parsed_severity() == Some(Severity::Warning) {
            *warning.lock().unwrap_or_else(PoisonError::into_inner) = Some(message(&notice));
        }
    }
}
