//! Durable jobs on a PostgreSQL server: operations in, rows of tables out.
//!
//! A commit is one statement, or a transaction of several if payloads are large. One ringgear owns
//! the tables: it holds an advisory lock and the latest generation. A standby waits for the lock
//! and takes the jobs over. Knows SQL, but no queues; blocks its thread.
//!
//! Invariant: a commit is applied if and only if its generation is the latest, and no commit of an
//! earlier session is applied after a later session has begun.

mod change;
mod conninfo;
mod error;
mod expected;
mod load;
mod lock_delay;
mod record;
mod schema;
mod session;
mod takeover;
mod tls;
mod words;

use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tokio_postgres::types::ToSql;
use tracing::{info, warn};

use self::change::Chunk;
use self::conninfo::Target;
use self::error::SessionError;
use self::expected::{Expected, Pauses};
use self::lock_delay::LockDelay;
use self::schema::{SCHEMA, UPGRADES, VERSION};
use self::session::{ANSWER_TIMEOUT, Backend, Session, Statements, answer, limit};
use self::takeover::take_over;
use super::namespace::{Record, next_mark};
use super::needs::Needs;
use super::{Committed, OpenError, Store, StoreError};
use crate::engine::record::{DeadRow, Operation, Pause, Row};

/// Lock for the creation of tables; `ringgear` in ASCII.
const SCHEMA_LOCK: i64 = 0x7269_6e67_6765_6172;

/// Size above which a change is a transaction, which sets a longer time limit at the server.
const SINGLE_BYTES_MAX: usize = 1 << 20;
/// Time between two attempts to get the lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(200);
/// How long PostgreSQL may take to release the lock of an owner that has ended.
const LOCK_GRACE: Duration = Duration::from_secs(2);

/// A store on a PostgreSQL server.
pub struct Postgres {
    link: Link,
    runtime: Runtime,
    next_sequence: u64,
}

/// A session that owns the tables.
struct OwnerSession {
    session: Session,
    statements: Statements,
}

/// The session with PostgreSQL, or what is needed to open the next one.
struct Link {
    targets: Vec<Target>,
    /// Server and database of the last session, for messages.
    place: String,
    ready: Option<OwnerSession>,
    /// PostgreSQL's processes of own sessions that may hold the lock.
    backends: Vec<Backend>,
    /// Random token that identifies this process as the owner.
    token: Vec<u8>,
    generation: i64,
    /// The record that this process wrote: prefix and mark.
    reserved: Option<(Box<[u8]>, u64)>,
    /// Generation and token of the previous owner.
    previous: (i64, Vec<u8>),
    /// What the tables should have.
    expected: Expected,
    /// Expected jobs and dead letters that the tables didn't have when the last session began,
    /// until `take_missing`.
    missing: [Vec<u64>; 2],
    /// Another server owns the tables; never reset.
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
    /// Connects, creates the tables if there are none, becomes their owner, and imports the jobs of
    /// gearmand's `table` (by default `queue`), numbered from `first_sequence`.
    ///
    /// `conninfo` is a connection string as libpq reads it, completed from libpq's environment
    /// variables. While another server owns the tables, `keep_waiting` is called a few times a
    /// second and decides whether to continue; after the first connection this also applies while
    /// PostgreSQL is unreachable.
    ///
    /// # Errors
    /// `OpenError` if another server owns the tables, or they can't be used.
    pub fn open(
        conninfo: &str,
        table: Option<&str>,
        first_sequence: u64,
        keep_waiting: &mut dyn FnMut() -> bool,
    ) -> Result<Self, OpenError> {
        let targets = conninfo::targets(conninfo, |name| std::env::var(name).ok())?;
        let mut token = vec![0; 16];
        getrandom::fill(&mut token).map_err(|error| {
            StoreError::Unusable(format!("the kernel gives no random bytes: {error}"))
        })?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().map_err(|error| {
            StoreError::Unusable(format!("no event loop for PostgreSQL's connection: {error}"))
        })?;
        let mut link = Link {
            targets,
            place: String::new(),
            ready: None,
            backends: Vec::new(),
            token,
            generation: 0,
            previous: (0, Vec::new()),
            reserved: None,
            expected: Expected::default(),
            missing: Default::default(),
            lost: false,
        };
        let next_sequence = runtime.block_on(link.open(table, first_sequence, keep_waiting))?;
        Ok(Self { link, runtime, next_sequence })
    }

    /// What connections reach; nothing for words that can't be read, which `open` refuses.
    pub(super) fn needs(conninfo: &str) -> Needs {
        let targets = conninfo::targets(conninfo, |name| std::env::var(name).ok());
        let mut needs = Needs::default();
        targets.iter().flatten().for_each(|target| target.add_needs(&mut needs));
        needs
    }

    /// Checks a connection string and the files in it without connecting.
    pub(super) fn check_conninfo(conninfo: &str) -> Result<(), StoreError> {
        let targets = conninfo::targets(conninfo, |name| std::env::var(name).ok())?;
        targets.iter().try_for_each(Target::check_files)
    }

    /// The record in the tables, which another server may own, also in those of an earlier version;
    /// without the largest number. `None` if it can't be read or there is none.
    pub(super) fn peek(conninfo: &str) -> Option<Record> {
        let targets = conninfo::targets(conninfo, |name| std::env::var(name).ok()).ok()?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().ok()?;
        runtime.block_on(async { record::peek(&Session::connect(&targets).await.ok()?).await.ok() })
    }

    /// The first sequence number above those of all stored jobs, at least `first_sequence`.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// After an error: lets a dropped session close its socket, which releases the lock. No task
    /// runs between calls, so this must be done before the call returns.
    fn close_dropped<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.runtime.block_on(tokio::task::yield_now());
        }
        result
    }
}

impl Store for Postgres {
    fn record(&mut self) -> Result<Record, StoreError> {
        let result = self.runtime.block_on(self.link.record());
        self.close_dropped(result)
    }

    fn reserve(&mut self, prefix: &[u8], from: u64) -> Result<Range<u64>, StoreError> {
        let mark = next_mark(from);
        let result = self.runtime.block_on(self.link.reserve(prefix, mark));
        self.close_dropped(result).map(|()| from..mark)
    }

    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        let result = self.runtime.block_on(self.link.load(each));
        self.close_dropped(result)
    }

    fn load_dead(&mut self, each: &mut dyn FnMut(DeadRow)) -> Result<(), StoreError> {
        let result = self.runtime.block_on(self.link.load_dead(each));
        self.close_dropped(result)
    }

    fn load_pauses(&mut self, each: &mut dyn FnMut(Bytes, Pause)) -> Result<(), StoreError> {
        let result = self.runtime.block_on(self.link.load_pauses(each));
        self.close_dropped(result)
    }

    fn commit(&mut self, operations: &[Operation]) -> Result<Committed, StoreError> {
        let result = self.runtime.block_on(self.link.commit(operations));
        let changed = self.close_dropped(result)?;
        Ok(Committed { changed, ..Committed::default() })
    }

    fn check(&mut self) -> Result<Committed, StoreError> {
        match self.commit(&[]) {
            // Reconnects at once, as a standby that waits for the lock does.
            Err(StoreError::Unavailable(_)) => self.commit(&[]),
            checked => checked,
        }
    }

    fn take_missing(&mut self) -> Vec<u64> {
        let missing = std::mem::take(&mut self.link.missing);
        let place = &self.link.place;
        let missing = self.link.expected.take_missing(missing);
        if !missing.is_empty() {
            warn!(
                jobs = missing.len(),
                "{place} has lost jobs that were committed, as after a failover without \
                 synchronous replication: they are written again; set synchronous_standby_names \
                 there"
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
            let statements = session.prepare().await?;
            let sequence = take_over(&session, self.generation, table, first_sequence).await?;
            Ok((statements, sequence))
        };
        let opened: Result<_, SessionError> = opened.await;
        let (statements, sequence) = opened.map_err(|error| error.at_start(&self.place))?;
        info!(generation = self.generation, "jobs are kept in {}", self.place);
        self.warn_of_asynchrony(&session);
        self.backends = vec![session.backend];
        self.ready = Some(OwnerSession { session, statements });
        Ok(sequence)
    }

    /// Connects, and waits for the lock while `keep_waiting` returns `true`. Returns a session that
    /// holds the lock.
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

    /// Reconnects a standby.
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
                    // Waiting helps against `Unavailable` only.
                    if !matches!(error, StoreError::Unavailable(_)) || !keep_waiting() {
                        return Err(error.into());
                    }
                }
            }
        }
    }

    /// Connects; messages name this server from now on.
    async fn connect(&mut self) -> Result<Session, SessionError> {
        let session = Session::connect(&self.targets).await?;
        self.place.clone_from(&session.place);
        Ok(session)
    }

    /// Connects, creates the tables if there are none, and checks their version. Returns the
    /// session and the generation.
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

    /// Returns the version of the tables, if this server knows it.
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
                 or drop it, ringgear_job, ringgear_dead and ringgear_pause to start without jobs"
            ),
        };
        Err(SessionError::Explained(StoreError::Unusable(sentence)))
    }

    /// Brings the tables to this server's version.
    async fn upgrade(&self, session: &Session, lock: &str) -> Result<(), SessionError> {
        let version = self.check_version(session, lock).await?;
        let steps = usize::try_from(version - 1).ok().and_then(|done| UPGRADES.get(done..));
        for step in steps.unwrap_or_default() {
            session.run(ANSWER_TIMEOUT, step).await?;
        }
        Ok(())
    }

    /// Becomes the owner with the next generation; earlier generations can't commit from now on.
    async fn own(&mut self, session: &Session) -> Result<i64, SessionError> {
        session.forget_warning();
        session.run(ANSWER_TIMEOUT, "BEGIN").await?;
        self.upgrade(session, "FOR UPDATE").await?;
        let sql = "SELECT generation, owner FROM ringgear_owner";
        let before = answer(ANSWER_TIMEOUT, session.client.query_one(sql, &[])).await?;
        self.previous = (before.get(0), before.get(1));
        let sql = "UPDATE ringgear_owner SET generation = generation + 1, owner = $1 \
                   RETURNING generation";
        let generation =
            answer(ANSWER_TIMEOUT, session.client.query_one(sql, &[&self.token])).await?.get(0);
        session.commit(ANSWER_TIMEOUT).await?;
        Ok(generation)
    }

    /// The error if another server holds the lock.
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

    /// Takes the session out of `ready`, or opens a new one. The caller puts it back if it is still
    /// usable.
    async fn take(&mut self) -> Result<OwnerSession, StoreError> {
        if self.lost {
            return Err(self.lose());
        }
        match self.ready.take() {
            Some(ready) if !ready.session.is_closed() => Ok(ready),
            _ => self.reconnect().await.map_err(|error| error.in_service(&self.place)),
        }
    }

    /// Reconnects as the owner, provided that no other server has become it.
    async fn reconnect(&mut self) -> Result<OwnerSession, SessionError> {
        let session = self.connect().await?;
        let started = Instant::now();
        // Stays in the list after a timeout, as this session may have got the lock then.
        self.backends.push(session.backend);
        while !session.lock().await? {
            // An earlier session may still hold the lock: PostgreSQL hasn't noticed its end, or it
            // is about to commit what timed out here.
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
        // A failover may have undone that this server became the owner. Then the row still has the
        // previous owner, and no other server has been the owner since.
        let sql = "UPDATE ringgear_owner SET generation = generation + 1, owner = $1 \
                   WHERE owner = $1 OR generation = $2 AND owner = $3 RETURNING generation";
        let (generation, owner) = &self.previous;
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.token, generation, owner];
        let Some(row) = answer(ANSWER_TIMEOUT, session.client.query_opt(sql, &parameters)).await?
        else {
            return Err(SessionError::Explained(self.lose()));
        };
        self.generation = row.get(0);
        self.record_again(&session).await?;
        let statements = session.prepare().await?;
        info!(generation = self.generation, "connected to {} again", self.place);
        self.warn_of_asynchrony(&session);
        let ready = OwnerSession { session, statements };
        self.compare(&ready).await?;
        Ok(ready)
    }

    /// Writes again what a failover may have undone: the record, and the columns that `own` added.
    async fn record_again(&self, session: &Session) -> Result<(), SessionError> {
        self.upgrade(session, "").await?;
        let Some((prefix, mark)) = &self.reserved else { return Ok(()) };
        match record::write(session, self.generation, prefix, *mark).await {
            // The next commit that the replica confirms includes this one.
            Err(SessionError::Warned(_)) | Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Warns if several hosts are given, for failovers, and replication is asynchronous.
    fn warn_of_asynchrony(&self, session: &Session) {
        if self.targets.len() > 1 && !session.is_synchronous {
            warn!(
                "several PostgreSQL hosts are listed, and synchronous_standby_names is empty in \
                 {}: a failover to another one loses the last commits; name the standbys in it",
                self.place
            );
        }
    }

    /// Compares the tables with the commits of earlier sessions, as they may be those of a replica
    /// that was behind. Sets `missing`, and brings back what needs no core: removals and pauses.
    async fn compare(&mut self, ready: &OwnerSession) -> Result<(), SessionError> {
        let session = &ready.session;
        let mut jobs = self.expected.jobs.compare();
        load::numbers(session, "ringgear_job", &mut |number| jobs.found(number)).await?;
        let jobs = jobs.finish();
        let mut dead = self.expected.dead.compare();
        load::numbers(session, "ringgear_dead", &mut |number| dead.found(number)).await?;
        let dead = dead.finish();
        let mut pauses = Pauses::new();
        load::pauses(session, &mut |function, pause| {
            pauses.insert(function, pause);
        })
        .await?;
        let restored = jobs.restored.len() + dead.restored.len();
        if restored > 0 {
            warn!(
                jobs = restored,
                "{} has jobs again that are done, as after a failover without synchronous \
                 replication: they are removed; set synchronous_standby_names there",
                self.place
            );
        }
        let pauses = self.expected.lost_pauses(&pauses);
        if !pauses.is_empty() {
            warn!(
                functions = pauses.len(),
                "{} has lost which functions are paused, as after a failover without synchronous \
                 replication: that is written again; set synchronous_standby_names there",
                self.place
            );
        }
        let mut operations = self.expected.removals(&jobs, &dead);
        operations.extend(pauses);
        self.missing = [jobs.missing, dead.missing];
        if !operations.is_empty()
            && apply(ready, self.generation, &change::chunks(&operations)).await?.is_none()
        {
            return Err(SessionError::Explained(self.lose()));
        }
        Ok(())
    }

    /// Drops the session for good: another server owns the tables.
    fn lose(&mut self) -> StoreError {
        self.lost = true;
        self.ready = None;
        StoreError::Lost(format!(
            "another server has taken over the jobs in {}: stop one of the two, or start it with \
             --standby",
            self.place
        ))
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
            expected.jobs.insert(row.number);
            each(row);
        };
        let loaded = load::jobs(&ready.session, &mut each).await;
        self.loaded(ready, loaded)
    }

    async fn load_dead(&mut self, each: &mut dyn FnMut(DeadRow)) -> Result<(), StoreError> {
        let ready = self.take().await?;
        let expected = &mut self.expected;
        let mut each = |dead: DeadRow| {
            expected.dead.insert(dead.row.number);
            each(dead);
        };
        let loaded = load::dead(&ready.session, &mut each).await;
        self.loaded(ready, loaded)
    }

    async fn load_pauses(&mut self, each: &mut dyn FnMut(Bytes, Pause)) -> Result<(), StoreError> {
        let ready = self.take().await?;
        let mut pauses = Pauses::new();
        let mut each = |function: Bytes, pause| {
            pauses.insert(function.clone(), pause);
            each(function, pause);
        };
        let loaded = load::pauses(&ready.session, &mut each).await;
        self.loaded(ready, loaded)?;
        self.expected.pauses = Some(pauses);
        Ok(())
    }

    /// Puts the session back after a table was read.
    fn loaded(
        &mut self,
        ready: OwnerSession,
        loaded: Result<(), SessionError>,
    ) -> Result<(), StoreError> {
        loaded.map_err(|error| error.in_service(&self.place))?;
        self.ready = Some(ready);
        Ok(())
    }

    async fn commit(&mut self, operations: &[Operation]) -> Result<u64, StoreError> {
        let stale = self.expected.stale_among(operations);
        let mut chunks = change::chunks(stale.iter().chain(operations));
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
                    // A single statement is rolled back by its error.
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

/// Tries to get the lock, unless the delay leaves it to the previous owner.
async fn try_lock(session: &Session, delay: &mut LockDelay) -> Result<bool, SessionError> {
    let generation = session.generation().await?;
    Ok(delay.is_over(generation, Instant::now()) && session.lock().await?)
}

fn largest(chunks: &[Chunk<'_>]) -> usize {
    chunks.iter().map(|chunk| chunk.bytes).max().unwrap_or(0)
}

/// Whether chunks need an explicit transaction, which a single statement doesn't.
fn is_transaction(chunks: &[Chunk<'_>]) -> bool {
    chunks.len() > 1 || largest(chunks) > SINGLE_BYTES_MAX
}

/// Applies all chunks in one transaction and returns the number of changed rows; `None`, and
/// nothing applied, if `generation` is not the latest.
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
        let (statement, parameters) = if chunk.has_jobs_only() {
            (&ready.statements.jobs, &parameters[..change::JOBS_PARAMETERS])
        } else {
            (&ready.statements.any, &*parameters)
        };
        let row = answer(limit, session.client.query_one(statement, parameters)).await?;
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
