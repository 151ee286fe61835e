//! Durable jobs on a PostgreSQL server that others may share.
//!
//! A commit is one statement, or one transaction of several when payloads are large. One server
//! owns the tables: it holds an advisory lock and the latest generation. Another one may wait for
//! the lock and go on with the jobs. Knows SQL, and nothing of queues; it blocks its thread.
//!
//! Invariant: a commit is applied if and only if its generation is still the latest one, and none
//! of an earlier session is applied after a later session has begun.

mod change;
mod conninfo;
mod error;
mod expected;
mod lock_delay;
mod record;
mod session;
mod takeover;

use std::fmt;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;
use tracing::{info, warn};

use self::change::Chunk;
use self::conninfo::Target;
use self::error::SessionError;
use self::expected::ExpectedJobs;
use self::lock_delay::LockDelay;
use self::session::{ANSWER_TIMEOUT, Backend, Session, answer, limit};
use self::takeover::take_over;
use super::namespace::Record;
use super::{OpenError, Store, StoreError};
use crate::engine::record::{Operation, Row};
use crate::wire::Priority;

/// Version of the tables.
///
/// 1. `ringgear_job` has a row for each job; `ringgear_owner` has one row with this version, the
///    generation (counts the sessions of owners) and the owner's token (random for each process).
/// 2. `ringgear_owner` also has what is on record about handles.
///
/// To change them: raise the number, say here what is new, change `SCHEMA` for new databases, and
/// let `Link::own` alter tables of each older version before it takes the next generation, in the
/// same transaction. Older servers refuse newer tables. Numbers are unsigned here and signed there,
/// bit for bit; they reach 2^63 after a thousand years.
const VERSION: i32 = 2;

/// The tables, made by whoever finds none. Payloads are kept as they are: trying to compress them
/// costs more than it saves.
const SCHEMA: &str = "\
CREATE TABLE ringgear_job (
    number bigint PRIMARY KEY,
    function bytea NOT NULL,
    unique_key bytea NOT NULL,
    reducer bytea NOT NULL,
    priority smallint NOT NULL,
    run_at bigint NOT NULL,
    attempts integer NOT NULL,
    payload bytea NOT NULL
);
ALTER TABLE ringgear_job ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE ringgear_owner (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    version integer NOT NULL,
    generation bigint NOT NULL,
    owner bytea NOT NULL,
    handle_prefix bytea,
    next_sequence bigint
);";

/// Serializes the making of tables; `ringgear` in ASCII.
const SCHEMA_LOCK: i64 = 0x7269_6e67_6765_6172;

const LOAD: &str = "\
SELECT number, function, unique_key, reducer, payload, priority, run_at, attempts
FROM ringgear_job ORDER BY number";

/// Each row has a limit of its own.
const BEGIN_LONG_READ: &str = "BEGIN READ ONLY; SET LOCAL statement_timeout = 0";

const NUMBERS: &str = "SELECT number FROM ringgear_job ORDER BY number";

/// Changes above this size are a transaction with a longer limit at the server.
const SINGLE_BYTES_MAX: usize = 1 << 20;
/// How long a row may take to arrive while jobs are loaded.
const ROW_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the lock is tried while another server has it.
const LOCK_INTERVAL: Duration = Duration::from_millis(200);
/// How long an owner that has just ended may take to vanish from the server.
const LOCK_GRACE: Duration = Duration::from_secs(2);

/// Jobs on a PostgreSQL server.
pub struct Postgres {
    link: Link,
    runtime: Runtime,
    next_sequence: u64,
}

/// A session that owns the tables.
struct OwnerSession {
    session: Session,
    /// `change::STATEMENT`.
    change: Statement,
}

/// The way to the server and what is known about it.
struct Link {
    targets: Vec<Target>,
    /// Where the last session led, for messages.
    place: String,
    ready: Option<OwnerSession>,
    /// The server's sides of sessions that may have the lock.
    backends: Vec<Backend>,
    /// Says that the owner is this process.
    token: Vec<u8>,
    generation: i64,
    /// What this process has put on record: prefix and mark.
    reserved: Option<(Box<[u8]>, u64)>,
    /// Generation and token of the owner before.
    before: (i64, Vec<u8>),
    /// The jobs that the table should have.
    expected: ExpectedJobs,
    /// Those that it didn't have when the last session began, until they are asked for.
    missing: Vec<u64>,
    /// Set for good once another server owns the jobs.
    lost: bool,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("place", &self.link.place)
            .field("generation", &self.link.generation)
            .field("connected", &self.link.ready.is_some())
            .field("lost", &self.link.lost)
            .finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects, makes the tables if there are none, becomes their owner, and takes over the jobs
    /// of a gearmand that kept them in `table` (gearmand's `queue` unless named), numbered from
    /// `first_sequence`.
    ///
    /// `conninfo` is a connection string as libpq reads it, completed from libpq's environment
    /// variables. While another server owns the tables, `keep_waiting` is asked some times a second
    /// whether to go on waiting; once it was connected, a server that goes away is waited for, too.
    ///
    /// # Errors
    /// `OpenError`: see there.
    pub fn open(
        conninfo: &str,
        table: Option<&str>,
        first_sequence: u64,
        keep_waiting: &mut dyn FnMut() -> bool,
    ) -> Result<Self, OpenError> {
        let config = conninfo::config(conninfo, |name| std::env::var(name).ok())?;
        let mut token = vec![0; 16];
        getrandom::fill(&mut token).map_err(|error| {
            StoreError::Unusable(format!("the kernel gives no random bytes: {error}"))
        })?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().map_err(|error| {
            StoreError::Unusable(format!("no event loop for PostgreSQL's connection: {error}"))
        })?;
        let mut link = Link {
            targets: conninfo::targets(&config),
            place: String::new(),
            ready: None,
            backends: Vec::new(),
            token,
            generation: 0,
            before: (0, Vec::new()),
            reserved: None,
            expected: ExpectedJobs::default(),
            missing: Vec::new(),
            lost: false,
        };
        let next_sequence = runtime.block_on(link.open(table, first_sequence, keep_waiting))?;
        Ok(Self { link, runtime, next_sequence })
    }

    /// What is on record in the tables, which may be another server's; `None` if they can't be read
    /// or have none.
    pub(super) fn peek(conninfo: &str) -> Option<Record> {
        let config = conninfo::config(conninfo, |name| std::env::var(name).ok()).ok()?;
        let targets = conninfo::targets(&config);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().ok()?;
        runtime.block_on(async { record::read(&Session::connect(&targets).await.ok()?).await.ok() })
    }

    /// The first sequence above those of all jobs that are kept, and not below `first_sequence`.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Lets a session that was given up close its socket, and with it give the lock back, now:
    /// nothing runs here between calls.
    fn settle<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.runtime.block_on(tokio::task::yield_now());
        }
        result
    }
}

impl Store for Postgres {
    fn record(&mut self) -> Result<Record, StoreError> {
        let result = self.runtime.block_on(self.link.record());
        self.settle(result)
    }

    fn reserve(&mut self, prefix: &[u8], mark: u64) -> Result<(), StoreError> {
        let result = self.runtime.block_on(self.link.reserve(prefix, mark));
        self.settle(result)
    }

    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        let result = self.runtime.block_on(self.link.load(each));
        self.settle(result)
    }

    fn commit(&mut self, operations: &[Operation]) -> Result<u64, StoreError> {
        let result = self.runtime.block_on(self.link.commit(operations));
        self.settle(result)
    }

    fn check(&mut self) -> Result<(), StoreError> {
        match self.commit(&[]) {
            // Connects again at once: a server that waits for the lock does so, too.
            Err(StoreError::Unavailable(_)) => self.commit(&[]),
            checked => checked,
        }
        .map(drop)
    }

    fn take_missing(&mut self) -> Vec<u64> {
        let missing = std::mem::take(&mut self.link.missing);
        let place = &self.link.place;
        let missing = self.link.expected.take_missing(missing);
        if !missing.is_empty() {
            warn!(
                jobs = missing.len(),
                "{place} has lost jobs that were committed, as after a failover without \
                 synchronous replication: they are written again"
            );
        }
        missing
    }
}

impl Link {
    async fn open(
        &mut self,
        table: Option<&str>,
        first_sequence: u64,
        keep_waiting: &mut dyn FnMut() -> bool,
    ) -> Result<u64, OpenError> {
        let session = self.wait_for_lock(keep_waiting).await?;
        let opened = async {
            self.generation = self.own(&session).await?;
            let change = session.prepare().await?;
            let sequence = take_over(&session, self.generation, table, first_sequence).await?;
            Ok((change, sequence))
        };
        let opened: Result<_, SessionError> = opened.await;
        let (change, sequence) = opened.map_err(|error| error.at_start(&self.place))?;
        info!(generation = self.generation, "jobs are kept in {}", self.place);
        self.warn_of_asynchrony(&session);
        self.backends = vec![session.backend];
        self.ready = Some(OwnerSession { session, change });
        Ok(sequence)
    }

    /// Waits for as long as `keep_waiting` says; gives a session that has the lock.
    async fn wait_for_lock(
        &mut self,
        keep_waiting: &mut dyn FnMut() -> bool,
    ) -> Result<Session, OpenError> {
        let (mut session, generation) =
            self.connect_first().await.map_err(|error| error.at_start(&self.place))?;
        let mut delay = LockDelay::new(generation);
        let asked = Instant::now();
        loop {
            match try_lock(&session, &mut delay).await {
                Ok(true) => return Ok(session),
                Ok(false) => {
                    let waits = keep_waiting();
                    if !waits && asked.elapsed() >= LOCK_GRACE {
                        return Err(self.owned(&session).await);
                    }
                }
                Err(error) => {
                    let error = error.at_start(&self.place);
                    if !matches!(error, StoreError::Unavailable(_)) || !keep_waiting() {
                        return Err(error.into());
                    }
                    warn!("{error}");
                    let generation;
                    (session, generation) = self.connect_again(keep_waiting).await?;
                    delay = LockDelay::reconnected(generation, Instant::now());
                    info!(generation, "connected to {} again, still standing by", self.place);
                }
            }
            sleep(LOCK_INTERVAL).await;
        }
    }

    /// Connects a server that waits and has lost its session.
    async fn connect_again(
        &mut self,
        keep_waiting: &mut dyn FnMut() -> bool,
    ) -> Result<(Session, i64), OpenError> {
        loop {
            sleep(LOCK_INTERVAL).await;
            match self.connect_first().await {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    let error = error.at_start(&self.place);
                    // Waiting mends what is unavailable, and nothing else.
                    if !matches!(error, StoreError::Unavailable(_)) || !keep_waiting() {
                        return Err(error.into());
                    }
                }
            }
        }
    }

    /// Connects; messages name that place from here on.
    async fn connect(&mut self) -> Result<Session, SessionError> {
        let session = Session::connect(&self.targets).await?;
        self.place.clone_from(&session.place);
        Ok(session)
    }

    /// Connects and sees to it that there are tables of this version; gives their generation, too.
    async fn connect_first(&mut self) -> Result<(Session, i64), SessionError> {
        let session = self.connect().await?;
        let sql = "SELECT to_regclass('ringgear_owner') IS NOT NULL";
        let found: bool = answer(ANSWER_TIMEOUT, session.client.query_one(sql, &[])).await?.get(0);
        if !found {
            let lock = format!("BEGIN; SELECT pg_advisory_xact_lock({SCHEMA_LOCK})");
            session.run(ANSWER_TIMEOUT, &lock).await?;
            let found: bool =
                answer(ANSWER_TIMEOUT, session.client.query_one(sql, &[])).await?.get(0);
            if !found {
                let row = format!("INSERT INTO ringgear_owner VALUES (true, {VERSION}, 0, '');");
                session.run(ANSWER_TIMEOUT, &format!("{SCHEMA}{row}")).await?;
            }
            session.run(ANSWER_TIMEOUT, "COMMIT").await?;
        }
        self.check_version(&session, "").await?;
        let generation = session.generation().await?;
        Ok((session, generation))
    }

    /// Gives the version of the tables, which need not be the latest.
    async fn check_version(&self, session: &Session, lock: &str) -> Result<i32, SessionError> {
        let sql = format!("SELECT version FROM ringgear_owner {lock}");
        let row = answer(ANSWER_TIMEOUT, session.client.query_opt(&sql, &[])).await?;
        let place = &self.place;
        let sentence = match row.map(|row| row.get::<_, i32>(0)) {
            Some(version @ 1..=VERSION) => return Ok(version),
            Some(version) if version > VERSION => format!(
                "the jobs in {place} are of version {version}, this ringgear knows versions up to \
                 {VERSION}: start the newer ringgear, or another database"
            ),
            Some(version) => format!("the jobs in {place} have the unknown version {version}"),
            None => format!(
                "the table ringgear_owner in {place} has lost its row: restore it from a backup, \
                 or drop it and ringgear_job to start without jobs"
            ),
        };
        Err(SessionError::Explained(StoreError::Unusable(sentence)))
    }

    /// Takes the next generation; earlier ones can't commit from here on.
    async fn own(&mut self, session: &Session) -> Result<i64, SessionError> {
        session.forget_warning();
        session.run(ANSWER_TIMEOUT, "BEGIN").await?;
        if self.check_version(session, "FOR UPDATE").await? < 2 {
            session.run(ANSWER_TIMEOUT, record::UPGRADE).await?;
        }
        let sql = "SELECT generation, owner FROM ringgear_owner";
        let before = answer(ANSWER_TIMEOUT, session.client.query_one(sql, &[])).await?;
        self.before = (before.get(0), before.get(1));
        let sql = "UPDATE ringgear_owner SET generation = generation + 1, owner = $1 \
                   RETURNING generation";
        let generation =
            answer(ANSWER_TIMEOUT, session.client.query_one(sql, &[&self.token])).await?.get(0);
        session.commit(ANSWER_TIMEOUT).await?;
        Ok(generation)
    }

    /// What to say when another server has the lock and nobody waits.
    async fn owned(&self, session: &Session) -> OpenError {
        let holder = match session.holder().await {
            Ok(Some((backend, host))) => {
                format!("by the one at {host} (PostgreSQL process {})", backend.pid)
            }
            _ => "by another one".to_owned(),
        };
        OpenError::Owned(format!(
            "the jobs in {} are served {holder}: stop that server, or wait for its end with \
             --standby",
            self.place
        ))
    }

    /// Takes the session out, a new one if need be; whoever finds it in good order puts it back.
    async fn take(&mut self) -> Result<OwnerSession, StoreError> {
        if self.lost {
            return Err(self.lose());
        }
        match self.ready.take() {
            Some(ready) if !ready.session.is_closed() => Ok(ready),
            _ => self.reconnect().await.map_err(|error| error.in_service(&self.place)),
        }
    }

    /// Connects again and goes on as the owner, provided that nobody else was it meanwhile.
    async fn reconnect(&mut self) -> Result<OwnerSession, SessionError> {
        let session = self.connect().await?;
        let started = Instant::now();
        // It stays among them if it falls silent: then it may have got the lock.
        self.backends.push(session.backend);
        while !session.lock().await? {
            // The lock may still be with an earlier session: its end is not known to the server,
            // or it is about to commit what was given up here.
            match session.holder().await? {
                Some((backend, _)) if self.backends.contains(&backend) => {
                    session.terminate(backend).await?;
                }
                Some(_) => return Err(SessionError::Explained(self.lose())),
                None => {}
            }
            if started.elapsed() > LOCK_GRACE {
                self.backends.pop();
                return Err(SessionError::Explained(StoreError::Unavailable(format!(
                    "{} has not ended this server's earlier session yet",
                    self.place
                ))));
            }
            sleep(LOCK_INTERVAL).await;
        }
        self.backends = vec![session.backend];
        // A failover may have taken back that this server became the owner; then the one before is
        // there as it was left, and no other server has been the owner since.
        let sql = "UPDATE ringgear_owner SET generation = generation + 1, owner = $1 \
                   WHERE owner = $1 OR generation = $2 AND owner = $3 RETURNING generation";
        let (generation, owner) = &self.before;
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.token, generation, owner];
        let Some(row) = answer(ANSWER_TIMEOUT, session.client.query_opt(sql, &parameters)).await?
        else {
            return Err(SessionError::Explained(self.lose()));
        };
        self.generation = row.get(0);
        self.record_again(&session).await?;
        let change = session.prepare().await?;
        info!(generation = self.generation, "connected to {} again", self.place);
        self.warn_of_asynchrony(&session);
        let ready = OwnerSession { session, change };
        self.compare(&ready).await?;
        Ok(ready)
    }

    /// Writes what a failover may have taken: the record, and the columns that `own` added for it.
    async fn record_again(&self, session: &Session) -> Result<(), SessionError> {
        if self.check_version(session, "").await? < 2 {
            session.run(ANSWER_TIMEOUT, record::UPGRADE).await?;
        }
        let Some((prefix, mark)) = &self.reserved else { return Ok(()) };
        match record::write(session, self.generation, prefix, *mark).await {
            // What a standby acknowledges next includes this, so the session need not end.
            Err(SessionError::Warned(_)) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Several hosts are there for failovers, and those lose what no standby has.
    fn warn_of_asynchrony(&self, session: &Session) {
        if self.targets.len() > 1 && !session.is_synchronous {
            warn!(
                "several PostgreSQL hosts are listed, and synchronous_standby_names is empty in \
                 {}: a failover to another one loses the last commits",
                self.place
            );
        }
    }

    /// Finds out whether the table still has what was committed in earlier sessions: it may be the
    /// one of a standby that was behind. Removes again what was removed.
    async fn compare(&mut self, ready: &OwnerSession) -> Result<(), SessionError> {
        let session = &ready.session;
        session.run(ANSWER_TIMEOUT, BEGIN_LONG_READ).await?;
        let parameters: [i32; 0] = [];
        let rows = answer(ANSWER_TIMEOUT, session.client.query_raw(NUMBERS, parameters)).await?;
        let mut rows = pin!(rows);
        let mut comparison = self.expected.compare();
        while let Some(row) = answer(ROW_TIMEOUT, rows.try_next()).await? {
            comparison.found(row.get::<_, i64>(0).cast_unsigned());
        }
        let difference = comparison.finish();
        session.run(ANSWER_TIMEOUT, "COMMIT").await?;
        self.missing = difference.missing;
        if difference.back.is_empty() {
            return Ok(());
        }
        let jobs = difference.back.len();
        warn!(jobs, "{} has jobs again that are done: they are removed", self.place);
        let operations: Vec<Operation> =
            difference.back.into_iter().map(|number| Operation::Remove { number }).collect();
        if apply(ready, self.generation, &change::chunks(&operations)).await?.is_none() {
            return Err(SessionError::Explained(self.lose()));
        }
        Ok(())
    }

    /// Gives everything up for good.
    fn lose(&mut self) -> StoreError {
        self.lost = true;
        self.ready = None;
        StoreError::Lost(format!("another server has taken over the jobs in {}", self.place))
    }

    async fn record(&mut self) -> Result<Record, StoreError> {
        let ready = self.take().await?;
        let read = record::read(&ready.session).await;
        let record = read.map_err(|error| error.in_service(&self.place))?;
        self.ready = Some(ready);
        Ok(record)
    }

    async fn reserve(&mut self, prefix: &[u8], mark: u64) -> Result<(), StoreError> {
        let ready = self.take().await?;
        match record::write(&ready.session, self.generation, prefix, mark).await {
            Ok(true) => {
                self.reserved = Some((prefix.into(), mark));
                self.ready = Some(ready);
                Ok(())
            }
            Ok(false) => Err(self.lose()),
            Err(error) => {
                if error.is_refusal() || matches!(error, SessionError::Warned(_)) {
                    self.ready = Some(ready);
                }
                Err(error.in_service(&self.place))
            }
        }
    }

    async fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        let ready = self.take().await?;
        let expected = &mut self.expected;
        let mut each = |row: Row| {
            expected.insert(row.number);
            each(row);
        };
        read(&ready.session, &mut each).await.map_err(|error| error.in_service(&self.place))?;
        self.ready = Some(ready);
        Ok(())
    }

    async fn commit(&mut self, operations: &[Operation]) -> Result<u64, StoreError> {
        let mut chunks = change::chunks(operations);
        if chunks.is_empty() {
            chunks.push(Chunk::default());
        }
        let ready = self.take().await?;
        let several = is_transaction(&chunks);
        match apply(&ready, self.generation, &chunks).await {
            Ok(Some(changed)) => {
                self.ready = Some(ready);
                self.expected.committed(operations);
                Ok(changed)
            }
            Ok(None) => Err(self.lose()),
            Err(error) => {
                let usable = match &error {
                    SessionError::Warned(_) => true,
                    // A statement alone was rolled back by its refusal.
                    error if error.is_refusal() => {
                        !several || ready.session.run(ANSWER_TIMEOUT, "ROLLBACK").await.is_ok()
                    }
                    _ => false,
                };
                if usable {
                    self.ready = Some(ready);
                }
                Err(error.in_service(&self.place))
            }
        }
    }
}

/// Tries to become the owner, if this server may.
async fn try_lock(session: &Session, delay: &mut LockDelay) -> Result<bool, SessionError> {
    let generation = session.generation().await?;
    Ok(delay.is_over(generation, Instant::now()) && session.lock().await?)
}

fn largest(chunks: &[Chunk<'_>]) -> usize {
    chunks.iter().map(|chunk| chunk.bytes).max().unwrap_or(0)
}

/// Whether chunks need a transaction: a statement alone is one of its own.
fn is_transaction(chunks: &[Chunk<'_>]) -> bool {
    chunks.len() > 1 || largest(chunks) > SINGLE_BYTES_MAX
}

/// Applies all chunks in one transaction and gives the number of rows that are changed; `None`, and
/// nothing applied, if `generation` is over.
async fn apply(
    ready: &OwnerSession,
    generation: i64,
    chunks: &[Chunk<'_>],
) -> Result<Option<u64>, SessionError> {
    let session = &ready.session;
    let limit = limit(largest(chunks));
    let several = is_transaction(chunks);
    session.forget_warning();
    if several {
        let begin = format!("BEGIN; {}", session::statement_timeout("LOCAL", limit));
        session.run(ANSWER_TIMEOUT, &begin).await?;
    }
    let mut changed = 0;
    for chunk in chunks {
        let parameters = chunk.parameters(&generation);
        let row = answer(limit, session.client.query_one(&ready.change, &parameters)).await?;
        if row.get::<_, i64>(0) == 0 {
            return Ok(None);
        }
        changed += row.get::<_, i64>(1).cast_unsigned();
    }
    if several {
        session.commit(limit).await?;
    }
    session.check_warning()?;
    Ok(Some(changed))
}

/// Streams the table.
async fn read(session: &Session, each: &mut dyn FnMut(Row)) -> Result<(), SessionError> {
    session.run(ANSWER_TIMEOUT, BEGIN_LONG_READ).await?;
    let statement = answer(ANSWER_TIMEOUT, session.client.prepare(LOAD)).await?;
    let parameters: [i32; 0] = [];
    let rows = answer(ANSWER_TIMEOUT, session.client.query_raw(&statement, parameters)).await?;
    let mut rows = pin!(rows);
    while let Some(row) = answer(ROW_TIMEOUT, rows.try_next()).await? {
        let bytes = |column: usize| Bytes::copy_from_slice(row.get(column));
        let priority = row.get::<_, i16>(5);
        each(Row {
            number: row.get::<_, i64>(0).cast_unsigned(),
            function: bytes(1),
            unique: bytes(2),
            reducer: bytes(3),
            payload: bytes(4),
            priority: match priority {
                0 => Priority::High,
                2 => Priority::Low,
                _ => Priority::Normal,
            },
            run_at_s: row.get::<_, i64>(6).cast_unsigned(),
            attempts: row.get::<_, i32>(7).cast_unsigned(),
        });
    }
    session.run(ANSWER_TIMEOUT, "COMMIT").await
}
