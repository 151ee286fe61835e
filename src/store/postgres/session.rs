//! One connection to PostgreSQL: opened, set up and watched, its errors put into sentences.
//!
//! Every question has a limit on this side, too: a server that has stopped can't keep its own.
//! Knows the lock that makes one server the owner, not the jobs.
//!
//! Invariant: a session that may have a question in flight is never used again. The lock belongs
//! to the session and goes with it.

use std::error::Error as _;
use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket, Statement};
use tracing::{info, warn};

use super::change;
use super::conninfo::Target;
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

/// What came instead of an answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Nothing, for so long.
    Silence(Duration),
    /// A refusal, or the end of the connection.
    Error(tokio_postgres::Error),
    /// A warning with the answer to a commit: it may not outlive a failover.
    Warned(String),
    /// Something that a sentence was found for.
    Told(StoreError),
    /// None of several hosts could be used: for each its place and what came from there.
    Hosts(Vec<(String, Self)>),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Told(error)
    }
}

impl Trouble {
    /// Whether the server refused a statement and the session goes on.
    pub(super) fn is_refusal(&self) -> bool {
        let Self::Error(error) = self else { return false };
        error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
    }

    /// What to say while jobs are being served: everything may still turn out well.
    pub(super) fn in_service(self, place: &str) -> StoreError {
        let error = match self {
            Self::Told(error) => return error,
            Self::Hosts(hosts) => return of_each(hosts, Self::in_service),
            Self::Warned(warning) => {
                return StoreError::Unavailable(format!(
                    "{place} warned as it committed, which therefore counts as not done: {warning}"
                ));
            }
            Self::Silence(limit) => {
                let limit_s = limit.as_secs();
                return StoreError::Unavailable(format!("{place} didn't answer for {limit_s} s"));
            }
            Self::Error(error) => error,
        };
        StoreError::Unavailable(match error.code() {
            Some(&SqlState::DATA_CORRUPTED | &SqlState::INDEX_CORRUPTED) => {
                let causes = with_causes(&error);
                return StoreError::Unusable(format!(
                    "{place} is damaged: {causes}; restore it from a backup"
                ));
            }
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => read_only(place),
            Some(&SqlState::DISK_FULL) => {
                format!("{place} has no space left on its disk: free some there")
            }
            Some(&SqlState::QUERY_CANCELED) => {
                format!(
                    "{place} gave up on a statement that took too long: see who holds locks \
                         there, and whether its disk keeps up"
                )
            }
            Some(_) => format!("{place} refused a statement: {}", with_causes(&error)),
            None => format!("no connection to {place}: {}", with_causes(&error)),
        })
    }

    /// What to say at the start: what won't mend itself is for the user to mend.
    pub(super) fn at_start(self, place: &str) -> StoreError {
        let error = match self {
            Self::Error(error) => error,
            Self::Hosts(hosts) => return of_each(hosts, Self::at_start),
            other => return other.in_service(place),
        };
        let causes = with_causes(&error);
        let remedy = match error.code() {
            Some(&SqlState::INVALID_PASSWORD | &SqlState::INVALID_AUTHORIZATION_SPECIFICATION) => {
                "check the user, the password and the server's pg_hba.conf"
            }
            Some(&SqlState::INVALID_CATALOG_NAME) => {
                "create the database (createdb) or name another one"
            }
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                "grant the user CREATE and USAGE on the schema and all rights on the tables in it \
                 that it didn't create"
            }
            Some(&SqlState::INVALID_SCHEMA_NAME) => {
                "create a schema that is in the user's search_path"
            }
            Some(
                &SqlState::UNDEFINED_TABLE
                | &SqlState::UNDEFINED_COLUMN
                | &SqlState::UNDEFINED_FUNCTION,
            ) => {
                "ringgear_job and ringgear_owner aren't what ringgear made: restore them from a \
                 backup, or drop both to start without jobs"
            }
            // Neither the server nor the kernel said it, so it is about what was configured.
            None if !is_broken_connection(&error) => {
                "check the connection string and what the server asks for"
            }
            _ => return Self::Error(error).in_service(place),
        };
        StoreError::Unusable(format!("can't use {place}: {causes}; {remedy}"))
    }
}

/// What to say about several hosts. Waiting mends it if it mends one of them.
fn of_each(hosts: Vec<(String, Trouble)>, say: impl Fn(Trouble, &str) -> StoreError) -> StoreError {
    let errors: Vec<StoreError> =
        hosts.into_iter().map(|(place, trouble)| say(trouble, &place)).collect();
    let sentences: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let sentence = sentences.join("; ");
    if errors.iter().any(|error| matches!(error, StoreError::Unavailable(_))) {
        StoreError::Unavailable(sentence)
    } else {
        StoreError::Unusable(sentence)
    }
}

fn read_only(place: &str) -> String {
    format!("{place} is read-only: connect to the primary server")
}

fn is_broken_connection(error: &tokio_postgres::Error) -> bool {
    error.is_closed() || error.source().is_some_and(|cause| cause.is::<std::io::Error>())
}

/// An error with everything that led to it. What a server says stands by itself.
pub(super) fn with_causes(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return message(error);
    }
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let _ = write!(text, ": {cause}");
        next = cause.source();
    }
    text
}

/// All that the server says.
fn message(said: &DbError) -> String {
    let mut text = said.message().to_owned();
    for more in [said.detail(), said.hint()].into_iter().flatten() {
        let _ = write!(text, " ({more})");
    }
    text
}

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
) -> Result<T, Trouble> {
    match timeout(limit, question).await {
        Ok(answer) => answer.map_err(Trouble::Error),
        Err(_) => Err(Trouble::Silence(limit)),
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
    pub(super) async fn connect(targets: &[Target]) -> Result<Self, Trouble> {
        let mut troubles = Vec::new();
        for target in targets {
            match Self::connect_to(target).await {
                Ok(session) => return Ok(session),
                Err(trouble) => troubles.push((target.place.clone(), trouble)),
            }
        }
        Err(Trouble::Hosts(troubles))
    }

    async fn connect_to(target: &Target) -> Result<Self, Trouble> {
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
            return Err(Trouble::Told(StoreError::Unusable(format!(
                "{place} is version {}: ringgear needs {} or newer",
                version / 10_000,
                SERVER_VERSION_MIN / 10_000
            ))));
        }
        if facts.get(1) {
            return Err(Trouble::Told(StoreError::Unavailable(read_only(place))));
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
    pub(super) async fn lock(&self) -> Result<bool, Trouble> {
        let sql = "SELECT pg_try_advisory_lock($1, 'ringgear_owner'::regclass::oid::int4)";
        Ok(answer(ANSWER_TIMEOUT, self.client.query_one(sql, &[&LOCK_CLASS])).await?.get(0))
    }

    /// The generation of the last owner.
    pub(super) async fn generation(&self) -> Result<i64, Trouble> {
        let sql = "SELECT generation FROM ringgear_owner";
        Ok(answer(ANSWER_TIMEOUT, self.client.query_one(sql, &[])).await?.get(0))
    }

    /// Who has the lock, and where from.
    pub(super) async fn holder(&self) -> Result<Option<(Backend, String)>, Trouble> {
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
    pub(super) async fn terminate(&self, backend: Backend) -> Result<(), Trouble> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE pid = $1 AND backend_start = $2";
        answer(ANSWER_TIMEOUT, self.client.query(sql, &[&backend.pid, &backend.started]))
            .await
            .map(|_| ())
    }

    /// Plans the statement that every commit runs.
    pub(super) async fn prepare(&self) -> Result<Statement, Trouble> {
        answer(ANSWER_TIMEOUT, self.client.prepare_typed(change::STATEMENT, &change::TYPES)).await
    }

    /// Ends a transaction, which is certain to be kept if no warning came since
    /// `forget_warning`.
    pub(super) async fn commit(&self, limit: Duration) -> Result<(), Trouble> {
        self.run(limit, "COMMIT").await?;
        self.check_warning()
    }

    /// What the server has said so far is of no concern.
    pub(super) fn forget_warning(&self) {
        let _ = self.check_warning();
    }

    /// Asked when a commit was answered. The server answers that it has committed when it gives up
    /// waiting for its standby, and warns beforehand.
    pub(super) fn check_warning(&self) -> Result<(), Trouble> {
        let warning = self.warning.lock().unwrap_or_else(PoisonError::into_inner).take();
        warning.map_or(Ok(()), |warning| Err(Trouble::Warned(warning)))
    }

    /// Sends statements without parameters.
    pub(super) async fn run(&self, limit: Duration, sql: &str) -> Result<(), Trouble> {
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
