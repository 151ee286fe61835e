//! One connection to PostgreSQL: opened, configured, and watched for warnings.
//!
//! Each statement has a time limit on this side, too, as a stopped server can't enforce its own.
//! Statements may be sent together, so that they take one round trip. Knows no table.
//!
//! Invariant: a session with a statement in progress is never used again.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::Severity;
use tokio_postgres::tls::{MakeTlsConnect, TlsStream};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket};
use tracing::{info, warn};

use super::conninfo::Target;
use super::error::{SessionError, message, read_only};
use super::tls::{Attempt, Fault};
use crate::store::StoreError;

/// Time limit for an answer, plus a second for every `SLOW_BYTES` sent.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const SLOW_BYTES: usize = 1 << 20;
/// How much shorter PostgreSQL's own limit is: its error leaves the session usable.
const HEAD_START: Duration = Duration::from_secs(2);
/// Oldest PostgreSQL with `plan_cache_mode` and `tcp_user_timeout`.
const SERVER_VERSION_MIN: i32 = 12_00_00;

/// Settings of a session. Plans must suit tables of any size: the table may be empty when they are
/// made and have millions of rows a minute later. Disabled scans and joins make plans look
/// expensive, and compiling those would cost 100 ms per commit, so `jit` is off. PostgreSQL's
/// keepalives end the transaction of a server whose host is unreachable.
const SETTINGS: [&str; 12] = [
    "SET synchronous_commit = on;",
    "SET plan_cache_mode = force_generic_plan;",
    "SET enable_seqscan = off;",
    "SET enable_hashjoin = off;",
    "SET enable_mergejoin = off;",
    "SET jit = off;",
    "SET idle_in_transaction_session_timeout = '60s';",
    "SET tcp_keepalives_idle = 10;",
    "SET tcp_keepalives_interval = 5;",
    "SET tcp_keepalives_count = 3;",
    "SET tcp_user_timeout = '20s';",
    "SET client_min_messages = warning;",
];
/// One more for PostgreSQL itself: other engines have their reasons for what they default to.
const ISOLATION: &str = "SET default_transaction_isolation = 'read committed';";

/// What is asked of a server when a session begins. Other engines than PostgreSQL don't have all of
/// it.
const FACTS: &str = "\
SELECT current_setting('server_version_num')::int4, pg_is_in_recovery(),
    coalesce(current_setting('fsync', true), 'on'), pg_backend_pid(),
    (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()),
    coalesce(current_setting('synchronous_standby_names', true), '') <> '', version(),
    EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')";

/// Time limit for a statement of this size.
pub(super) fn limit(bytes: usize) -> Duration {
    ANSWER_TIMEOUT + Duration::from_secs((bytes / SLOW_BYTES) as u64)
}

/// The setting of PostgreSQL's own limit.
pub(super) fn statement_timeout(scope: &str, limit: Duration) -> String {
    format!("SET {scope} statement_timeout = {};", limit.saturating_sub(HEAD_START).as_millis())
}

/// Waits for an answer within the limit.
pub(super) async fn answer<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, SessionError> {
    match timeout(limit, question).await {
        Ok(answer) => answer.map_err(SessionError::Error),
        Err(_) => Err(SessionError::Timeout(limit)),
    }
}

/// One of several statements that are sent together.
pub(super) type Question<'a, T> =
    Pin<Box<dyn Future<Output = Result<T, tokio_postgres::Error>> + Send + 'a>>;

/// Sends statements together, in their order, and waits for all answers. Where one fails in a
/// transaction, all later ones fail.
pub(super) async fn answers<T>(
    limit: Duration,
    mut questions: Vec<Question<'_, T>>,
) -> Result<Vec<Result<T, tokio_postgres::Error>>, SessionError> {
    let mut answers: Vec<Option<Result<T, tokio_postgres::Error>>> = Vec::new();
    answers.resize_with(questions.len(), || None);
    // A statement is sent when it is polled first.
    let all = poll_fn(|cx| {
        let mut is_ready = true;
        for (question, answer) in questions.iter_mut().zip(&mut answers) {
            if answer.is_none() {
                match question.as_mut().poll(cx) {
                    Poll::Ready(answered) => *answer = Some(answered),
                    Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    });
    timeout(limit, all).await.map_err(|_| SessionError::Timeout(limit))?;
    Ok(answers.into_iter().flatten().collect())
}

/// The process of PostgreSQL that serves a session, with its start, as process ids are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) pid: i32,
    pub(super) started: Option<SystemTime>,
}

/// The task of a connection.
struct Driver {
    task: JoinHandle<()>,
    /// The last warning since the last `check_warning`.
    warning: Arc<Mutex<Option<String>>>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Cancels a statement in progress and closes the socket.
        self.task.abort();
    }
}

/// An open connection.
pub(super) struct Session {
    pub(super) client: Client,
    /// Server and database, for messages.
    pub(super) place: String,
    pub(super) backend: Backend,
    /// Whether commits wait for a replica.
    pub(super) is_synchronous: bool,
    /// Whether the engine is PostgreSQL, and not one that speaks its protocol.
    pub(super) is_postgresql: bool,
    driver: Driver,
}

impl Session {
    /// Connects to the first host that accepts writes. Statements wait for locks of others no
    /// longer than `lock_limit`.
    pub(super) async fn connect(
        targets: &[Target],
        lock_limit: Duration,
    ) -> Result<Self, SessionError> {
        let mut errors = Vec::new();
        for target in targets {
            match Self::connect_to(target, lock_limit).await {
                Ok(session) => return Ok(session),
                Err(error) => errors.push((target.place.clone(), error)),
            }
        }
        Err(SessionError::Hosts(errors))
    }

    async fn connect_to(target: &Target, lock_limit: Duration) -> Result<Self, SessionError> {
        let (client, driver) = open(target).await?;
        let facts = answer(ANSWER_TIMEOUT, client.query_one(FACTS, &[])).await?;
        let said: &str = facts.get(6);
        let session = Self {
            client,
            place: target.place.clone(),
            backend: Backend { pid: facts.get(3), started: facts.get(4) },
            is_synchronous: facts.get(5),
            // Yugabyte's version begins like that of PostgreSQL, whose code it has.
            is_postgresql: said.starts_with("PostgreSQL ")
                && !said.contains("-YB-")
                && !facts.get::<_, bool>(7),
            driver,
        };
        let place = &session.place;
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
            warn!(
                "{place} has fsync off: jobs are lost when its host stops; set fsync = on in its \
                 postgresql.conf"
            );
        }
        session.configure(lock_limit).await?;
        Ok(session)
    }

    /// Makes the settings; an engine that lacks some of them goes on without.
    async fn configure(&self, lock_limit: Duration) -> Result<(), SessionError> {
        let limits = [
            statement_timeout("SESSION", ANSWER_TIMEOUT),
            format!("SET lock_timeout = {};", lock_limit.as_millis()),
        ];
        let settings = SETTINGS.iter().copied().chain(limits.iter().map(String::as_str));
        if self.is_postgresql {
            let settings: Vec<&str> = settings.chain([ISOLATION]).collect();
            return self.run(ANSWER_TIMEOUT, &settings.concat()).await;
        }
        for setting in settings {
            match self.run(ANSWER_TIMEOUT, setting).await {
                Err(error) if !error.is_refusal() => return Err(error),
                _ => {}
            }
        }
        self.forget_warning();
        Ok(())
    }

    /// Whether PostgreSQL or the network closed the connection.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Ends PostgreSQL's process of an earlier session.
    pub(super) async fn terminate(&self, backend: Backend) -> Result<(), SessionError> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE pid = $1 AND backend_start = $2";
        answer(ANSWER_TIMEOUT, self.client.query(sql, &[&backend.pid, &backend.started]))
            .await
            .map(|_| ())
    }

    /// Commits a transaction; fails if there was a warning since `forget_warning`, as the commit
    /// may not survive a failover then.
    pub(super) async fn commit(&self, limit: Duration) -> Result<(), SessionError> {
        self.run(limit, "COMMIT").await?;
        self.check_warning()
    }

    /// Discards earlier warnings.
    pub(super) fn forget_warning(&self) {
        let _ = self.check_warning();
    }

    /// To be called after the answer to a commit. PostgreSQL reports success even if it gave up
    /// waiting for its replica, but sends a warning before.
    pub(super) fn check_warning(&self) -> Result<(), SessionError> {
        let warning = self.driver.warning.lock().unwrap_or_else(PoisonError::into_inner).take();
        warning.map_or(Ok(()), |warning| Err(SessionError::Warned(warning)))
    }

    /// Sends statements without parameters.
    pub(super) async fn run(&self, limit: Duration, sql: &str) -> Result<(), SessionError> {
        answer(limit, self.client.batch_execute(sql)).await
    }
}

/// Opens a connection in the first way that works, encrypted or not.
async fn open(target: &Target) -> Result<(Client, Driver), SessionError> {
    let mut errors = Vec::new();
    for attempt in target.tls.attempts() {
        let opened = match attempt {
            Attempt::Plain => open_with(target, SslMode::Disable, NoTls).await,
            Attempt::Encrypted => match target.tls.connector() {
                Ok(connector) => open_with(target, SslMode::Require, connector).await,
                Err(fault) => return Err(SessionError::Tls(fault)),
            },
        };
        let error = match opened {
            Ok(opened) => {
                if let Some(SessionError::Tls(Fault::Failed(sentence))) = errors.pop() {
                    let place = &target.place;
                    warn!("the connection to {place} isn't encrypted: {sentence}");
                }
                return Ok(opened);
            }
            Err(error) => error,
        };
        let is_final = !error.is_about_tls();
        errors.push(error);
        if is_final {
            break;
        }
    }
    // That there is no TLS is worth a word only where nothing else went wrong.
    if errors.len() > 1 {
        errors.retain(|error| !matches!(error, SessionError::Tls(Fault::Absent(_))));
    }
    let place = &target.place;
    Err(SessionError::Hosts(errors.into_iter().map(|error| (place.clone(), error)).collect()))
}

/// Opens a connection within the time limit, which covers the handshake.
async fn open_with<T>(
    target: &Target,
    mode: SslMode,
    connector: T,
) -> Result<(Client, Driver), SessionError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let mut config = target.config.clone();
    config.ssl_mode(mode);
    let opened = answer(target.connect_limit(), config.connect(connector)).await;
    let (client, connection) = opened.map_err(|error| match error {
        SessionError::Error(error) if mode == SslMode::Require => match target.tls.fault(&error) {
            Some(fault) => SessionError::Tls(fault),
            None => SessionError::Error(error),
        },
        error => error,
    })?;
    let warning = Arc::default();
    let task = tokio::spawn(drive(connection, Arc::clone(&warning)));
    Ok((client, Driver { task, warning }))
}

/// Reads and writes for a session until it ends. A warning is stored before the answer that follows
/// it is returned.
async fn drive<T: TlsStream + Unpin>(
    mut connection: Connection<Socket, T>,
    warning: Arc<Mutex<Option<String>>>,
) {
    // An error also ends the statement in progress.
    while let Some(Ok(said)) = poll_fn(|cx| connection.poll_message(cx)).await {
        let AsyncMessage::Notice(notice) = said else { continue };
        info!("PostgreSQL says {}: {}", notice.severity(), message(&notice));
        if notice.parsed_severity() == Some(Severity::Warning) {
            *warning.lock().unwrap_or_else(PoisonError::into_inner) = Some(message(&notice));
        }
    }
}
