//! The session that commits: the partitions that this server has, and what becomes of them.
//!
//! Operations in, outcomes out. Opens the next session when one ends, takes its partitions again,
//! and compares the tables with the commits of earlier sessions. Knows no queues.
//!
//! Invariant: a commit is applied if and only if the generation of each partition that it touches
//! is this server's, and no commit of an earlier session is applied after a later one has begun.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tracing::{info, warn};

use super::change;
use super::commit::{self, Fence, Fenced, Statements};
use super::conninfo::Target;
use super::error::SessionError;
use super::expected::{Expected, Missing, Pauses, Rows};
use super::home::{self, Taken};
use super::load;
use super::partitions::{self, Owner, Tenure};
use super::record;
use super::session::{Backend, Session};
use super::shared::Shared;
use super::tables::{self, Tables};
use crate::cluster::lease::Lease;
use crate::cluster::partition::PartitionId;
use crate::engine::record::{DeadRow, Operation, Pause, Row};
use crate::store::namespace::Record;
use crate::store::{Committed, StoreError};

/// How often a transaction that met another one is tried again at once.
const CONFLICTS_MAX: usize = 10;
/// How long after its last rows were read an adopted partition counts as loaded.
const LOADED_AFTER: Duration = Duration::from_secs(2);

/// A session that commits.
pub(super) struct Ready {
    pub(super) session: Session,
    pub(super) statements: Statements,
}

/// A partition that this server has.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) generation: i64,
    /// The owner before this server.
    pub(super) before: Tenure,
    /// Whether the session holds the lock that says so.
    has_lock: bool,
    /// When it counts as loaded, so that its jobs are counted.
    loaded_at: Instant,
}

/// The session with the database, or what is needed to open the next one.
pub(super) struct Link {
    pub(super) targets: Vec<Target>,
    /// Server and database of the last session, for messages.
    pub(super) place: String,
    pub(super) owner: Owner,
    pub(super) lease: Lease,
    /// Whether it goes on when another server has taken a partition.
    pub(super) is_cluster: bool,
    pub(super) shared: Shared,
    pub(super) ready: Option<Ready>,
    /// PostgreSQL's processes of own sessions that may not have ended.
    pub(super) backends: Vec<Backend>,
    pub(super) owned: BTreeMap<PartitionId, Own>,
    /// The partition of new jobs.
    pub(super) home: Option<PartitionId>,
    /// The prefix of handles, once it is known.
    pub(super) prefix: Option<Vec<u8>>,
    /// When all partitions had a beat.
    beat_at: Instant,
    /// What the tables should have.
    expected: Expected,
    /// What the tables didn't have when the last session began, until `take_missing`.
    missing: Vec<Missing>,
    /// Partitions that are lost, and whether the home is among them, until that is reported.
    lost: (BTreeSet<PartitionId>, bool),
    /// Nothing can be done any more: another server has taken over, or this one has left.
    pub(super) is_over: bool,
}

impl Link {
    pub(super) fn new(
        targets: Vec<Target>,
        owner: Owner,
        (lease, is_cluster): (Lease, bool),
        shared: Shared,
    ) -> Self {
        Self {
            targets,
            place: String::new(),
            owner,
            lease,
            is_cluster,
            shared,
            ready: None,
            backends: Vec::new(),
            owned: BTreeMap::new(),
            home: None,
            prefix: None,
            beat_at: Instant::now(),
            expected: Expected::default(),
            missing: Vec::new(),
            lost: Default::default(),
            is_over: false,
        }
    }

    /// How long statements wait for locks of other programs: shorter than what is left of the
    /// lease, so that a beat gets through meanwhile.
    pub(super) fn lock_limit(&self) -> Duration {
        self.lease.length() / 6
    }

    /// Connects; messages name this server from now on.
    pub(super) async fn connect(&mut self) -> Result<Session, SessionError> {
        let session = Session::connect(&self.targets, self.lock_limit()).await?;
        self.place.clone_from(&session.place);
        Ok(session)
    }

    /// The server has this partition now. Its jobs are counted once they are loaded.
    pub(super) fn add(&mut self, taken: Taken, loaded_at: Instant) {
        let Taken { partition, generation, before } = taken;
        self.expected.of(partition);
        self.owned.insert(partition, Own { generation, before, has_lock: false, loaded_at });
    }

    /// The partition of the job of this number.
    pub(super) fn partition_of(&self, number: u64) -> PartitionId {
        let known = self.shared.lock().blocks.partition_of(number);
        known.or(self.home).unwrap_or_default()
    }

    /// Begins to commit with a session.
    pub(super) async fn begin(&mut self, session: Session) -> Result<(), SessionError> {
        let statements = commit::prepare(&session).await?;
        self.backends = vec![session.backend];
        self.owned.values_mut().for_each(|own| own.has_lock = false);
        let ready = Ready { session, statements };
        self.tend(&ready.session).await?;
        self.ready = Some(ready);
        Ok(())
    }

    /// Takes the session out of `ready`, or opens a new one. The caller puts it back if it is still
    /// usable.
    async fn take(&mut self) -> Result<Ready, StoreError> {
        if self.is_over {
            return Err(self.lose());
        }
        match self.ready.take() {
            Some(ready) if !ready.session.is_closed() => Ok(ready),
            _ => self.reconnect().await.map_err(|error| error.in_service(&self.place)),
        }
    }

    /// Puts the session back if it is usable after this error.
    fn failed(&mut self, ready: Ready, error: SessionError) -> StoreError {
        if error.is_refusal() || matches!(error, SessionError::Warned(_)) {
            self.ready = Some(ready);
        }
        error.in_service(&self.place)
    }

    /// Reconnects, and becomes the owner of its partitions again, provided that no other server has
    /// become it.
    async fn reconnect(&mut self) -> Result<Ready, SessionError> {
        let session = self.connect().await?;
        // An earlier session may be about to commit what timed out here, and hold the row till
        // then.
        for backend in std::mem::take(&mut self.backends) {
            if let Err(error) = session.terminate(backend).await
                && !error.is_refusal()
            {
                return Err(error);
            }
            self.backends.push(backend);
        }
        if let Tables::Owned(_) = tables::ensure(&session).await? {
            return Err(SessionError::Explained(self.lose()));
        }
        let partitions: Vec<PartitionId> = self.owned.keys().copied().collect();
        for partition in partitions {
            self.reclaim(&session, partition).await?;
        }
        self.write_again(&session).await?;
        self.begin(session).await?;
        let generation = self.generation();
        info!(generation, "connected to {} again", self.place);
        let Some(ready) = self.ready.take() else {
            return Err(SessionError::Explained(self.lose()));
        };
        self.warn_of_asynchrony(&ready.session);
        self.compare(&ready).await?;
        Ok(ready)
    }

    /// The generation of the home, for messages.
    pub(super) fn generation(&self) -> i64 {
        let home = self.home.and_then(|home| self.owned.get(&home));
        home.map_or(0, |own| own.generation)
    }

    /// Becomes the owner of a partition again.
    async fn reclaim(
        &mut self,
        session: &Session,
        partition: PartitionId,
    ) -> Result<(), SessionError> {
        let Some(own) = self.owned.get_mut(&partition) else { return Ok(()) };
        let reclaimed = partitions::reclaim(session, partition, &self.owner, &own.before).await;
        let generation = match reclaimed {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Err(SessionError::Explained(StoreError::Unavailable(format!(
                    "{} has not ended this server's earlier session yet",
                    self.place
                ))));
            }
            // The next commit that the replica confirms includes this one.
            Err(SessionError::Warned(_)) => {
                partitions::generation(session, partition, &self.owner).await?
            }
            reclaimed => reclaimed?,
        };
        if let Some(generation) = generation {
            own.generation = generation;
            return Ok(());
        }
        // A failover may have undone that this server made it.
        let generation = own.generation + 1;
        if partitions::create(session, partition, generation, &self.owner).await? {
            own.generation = generation;
            return Ok(());
        }
        self.drop_partition(partition).map_err(SessionError::Explained)
    }

    /// Writes again what a failover may have undone of prefix and blocks.
    async fn write_again(&mut self, session: &Session) -> Result<(), SessionError> {
        let partitions: Vec<PartitionId> = self.owned.keys().copied().collect();
        for partition in partitions {
            let blocks: Vec<u64> = self.shared.lock().blocks.of(partition).collect();
            let prefix = self.prefix.as_deref();
            if !record::write_again(session, prefix, partition, &blocks).await? {
                warn!(
                    partition,
                    "{} has lost which numbers were given, and another server has given them \
                     again, as after a failover without synchronous replication: this server gives \
                     the partition up; set synchronous_standby_names there",
                    self.place
                );
                self.drop_partition(partition).map_err(SessionError::Explained)?;
            }
        }
        Ok(())
    }

    /// Warns if several hosts are given, for failovers, and replication is asynchronous.
    pub(super) fn warn_of_asynchrony(&self, session: &Session) {
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
    async fn compare(&mut self, ready: &Ready) -> Result<(), SessionError> {
        let session = &ready.session;
        let (mut operations, mut restored) = (Vec::new(), 0);
        self.missing.clear();
        for &partition in self.owned.keys() {
            let rows = self.expected.of(partition);
            let mut jobs = rows.jobs.compare();
            load::job_numbers(session, partition, &mut |number| jobs.found(number)).await?;
            let jobs = jobs.finish();
            let mut dead = rows.dead.compare();
            load::dead_numbers(session, partition, &mut |number| dead.found(number)).await?;
            let dead = dead.finish();
            restored += jobs.restored.len() + dead.restored.len();
            let removals = rows.removals(&jobs, &dead);
            operations.extend(removals.into_iter().map(|removal| (partition, removal)));
            self.missing.push(Missing { partition, jobs: jobs.missing, dead: dead.missing });
        }
        if restored > 0 {
            warn!(
                jobs = restored,
                "{} has jobs again that are done, as after a failover without synchronous \
                 replication: they are removed; set synchronous_standby_names there",
                self.place
            );
        }
        if let Some(home) = self.home.filter(|_| self.expected.pauses.is_some()) {
            let mut found = Pauses::new();
            load::pauses(session, &mut |function, pause| {
                found.insert(function, pause);
            })
            .await?;
            let pauses = self.expected.lost_pauses(&found);
            if !pauses.is_empty() {
                warn!(
                    functions = pauses.len(),
                    "{} has lost which functions are paused, as after a failover without \
                     synchronous replication: that is written again; set \
                     synchronous_standby_names there",
                    self.place
                );
            }
            operations.extend(pauses.into_iter().map(|pause| (home, pause)));
        }
        if operations.is_empty() {
            return Ok(());
        }
        let chunks = change::chunks(operations.iter().map(|(partition, it)| (*partition, it)));
        match commit::apply(session, &ready.statements, &self.fences(None), &chunks).await? {
            Fenced::Done(_) => Ok(()),
            Fenced::Lost(partition) => {
                self.drop_partition(partition).map_err(SessionError::Explained)?;
                Err(SessionError::Explained(StoreError::Unavailable(format!(
                    "another server has adopted jobs in {} while this one connected to it",
                    self.place
                ))))
            }
        }
    }

    /// Another server has become the owner of a partition.
    fn drop_partition(&mut self, partition: PartitionId) -> Result<(), StoreError> {
        if !self.is_cluster {
            return Err(self.lose());
        }
        self.owned.remove(&partition);
        self.expected.forget(partition);
        let is_home = self.home == Some(partition);
        if is_home {
            self.home = None;
        }
        let (lost, is_home_lost) = &mut self.lost;
        lost.insert(partition);
        *is_home_lost |= is_home;
        Ok(())
    }

    /// Drops the session for good.
    fn lose(&mut self) -> StoreError {
        self.is_over = true;
        self.ready = None;
        StoreError::Lost(format!(
            "another server has taken over the jobs in {}: stop one of the two, or start it with \
             --standby",
            self.place
        ))
    }

    /// The fences of these partitions, or of all that this server has.
    fn fences(&self, touched: Option<&BTreeSet<PartitionId>>) -> Vec<Fence> {
        let now = Instant::now();
        let owned = self.owned.iter();
        let touched = owned.filter(|(id, _)| touched.is_none_or(|touched| touched.contains(id)));
        touched
            .map(|(&partition, own)| {
                let is_loaded = own.loaded_at <= now;
                let count = self.expected.get(partition).map(Rows::count);
                let Own { generation, .. } = *own;
                Fence { partition, generation, jobs: count.filter(|_| is_loaded) }
            })
            .collect()
    }

    /// The outcome of a success.
    fn outcome(&mut self, changed: u64) -> Committed {
        let (lost, is_home_lost) = std::mem::take(&mut self.lost);
        Committed { changed, lost: lost.into_iter().collect(), is_home_lost }
    }

    /// The partition of each operation that can be applied; those of a partition that is lost are
    /// left out.
    fn assign<'a>(
        &self,
        operations: &'a [Operation],
    ) -> Result<Vec<(PartitionId, &'a Operation)>, StoreError> {
        let any = self.home.or_else(|| self.owned.keys().next().copied());
        let shared = self.shared.lock();
        let mut assigned = Vec::with_capacity(operations.len());
        for operation in operations {
            let partition = match operation.number() {
                Some(number) => shared.blocks.partition_of(number).or(any),
                None => any,
            };
            match partition {
                Some(id) if self.owned.contains_key(&id) => assigned.push((id, operation)),
                Some(id) if self.lost.0.contains(&id) => {}
                _ if matches!(operation, Operation::Insert { .. } | Operation::Pause { .. }) => {
                    return Err(StoreError::Unavailable(format!(
                        "this server has no partition for new jobs in {} at the moment",
                        self.place
                    )));
                }
                _ => {}
            }
        }
        Ok(assigned)
    }

    /// Applies operations; without any, all partitions have a beat.
    pub(super) async fn commit(
        &mut self,
        operations: &[Operation],
    ) -> Result<Committed, StoreError> {
        let mut conflicts = 0;
        loop {
            let ready = self.take().await?;
            let assigned = match self.assign(operations) {
                Ok(assigned) => assigned,
                Err(error) => {
                    self.ready = Some(ready);
                    return Err(error);
                }
            };
            let stale = self.expected.stale_among(assigned.iter().copied());
            let all = stale.iter().map(|(partition, it)| (*partition, it));
            let chunks = change::chunks(all.chain(assigned.iter().copied()));
            let beats = chunks.is_empty() || self.beat_at.elapsed() >= self.lease.beat_interval();
            let touched = chunks.iter().map(|chunk| chunk.partition).collect();
            let fences = self.fences(Some(&touched).filter(|_| !beats));
            if fences.is_empty() {
                self.ready = Some(ready);
                return Ok(self.outcome(0));
            }
            let started = Instant::now();
            let Ready { session, statements } = &ready;
            match commit::apply(session, statements, &fences, &chunks).await {
                Ok(Fenced::Done(changed)) => {
                    self.expected.committed(assigned);
                    let tended = if beats {
                        self.beat_at = started;
                        self.tend(session).await
                    } else {
                        Ok(())
                    };
                    // The next commit finds out what else is wrong.
                    self.ready = tended.is_ok().then_some(ready);
                    return Ok(self.outcome(changed));
                }
                Ok(Fenced::Lost(partition)) => {
                    self.ready = Some(ready);
                    self.drop_partition(partition)?;
                }
                Err(error) if error.is_conflict() && conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    self.ready = Some(ready);
                }
                Err(error) => return Err(self.failed(ready, error)),
            }
        }
    }

    /// Sees to the partitions, about once a second: gets the locks that are missing, and sets free
    /// what is empty and no home.
    async fn tend(&mut self, session: &Session) -> Result<(), SessionError> {
        for (&partition, own) in self.owned.iter_mut().filter(|(_, own)| !own.has_lock) {
            own.has_lock = partitions::lock(session, partition).await?;
        }
        let now = Instant::now();
        let is_empty = |id| self.expected.get(id).is_some_and(Rows::is_empty);
        let empty = self
            .owned
            .iter()
            .filter(|&(&id, own)| Some(id) != self.home && own.loaded_at <= now && is_empty(id));
        let empty: Vec<(PartitionId, i64)> = empty.map(|(&id, own)| (id, own.generation)).collect();
        for (partition, generation) in empty {
            match partitions::free(session, partition, generation).await {
                Ok(true) => {
                    self.owned.remove(&partition);
                    self.expected.forget(partition);
                    partitions::unlock(session, partition).await?;
                }
                Err(error) if !error.is_refusal() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) async fn record(&mut self) -> Result<Record, StoreError> {
        let ready = self.take().await?;
        match record::read(&ready.session).await {
            Ok(record) => {
                self.ready = Some(ready);
                Ok(record)
            }
            Err(error) => Err(self.failed(ready, error)),
        }
    }

    /// Reserves sequence numbers from `from` on for the home.
    pub(super) async fn reserve(
        &mut self,
        prefix: &[u8],
        from: u64,
    ) -> Result<std::ops::Range<u64>, StoreError> {
        let mut conflicts = 0;
        loop {
            let ready = self.take().await?;
            let Some(own) = self.home.and_then(|home| self.owned.get(&home)) else {
                self.ready = Some(ready);
                return Err(StoreError::Unavailable(format!(
                    "this server has no partition for new jobs in {} at the moment",
                    self.place
                )));
            };
            let fence = Fence {
                partition: self.home.unwrap_or_default(),
                generation: own.generation,
                jobs: None,
            };
            // Other servers' blocks that a failover has lost are not given again.
            let known = self.shared.lock().blocks.last().map_or(0, |block| block + 1);
            let from = from.max(record::first_of(known));
            let wanted = (Some(prefix), from, record::BLOCKS);
            match record::reserve(&ready.session, &fence, wanted).await {
                Ok(Fenced::Done(sequences)) => {
                    self.ready = Some(ready);
                    self.prefix = Some(prefix.into());
                    let blocks = &mut self.shared.lock().blocks;
                    for block in record::blocks_of(&sequences) {
                        blocks.insert(block, fence.partition);
                    }
                    return Ok(sequences);
                }
                Ok(Fenced::Lost(partition)) => {
                    self.ready = Some(ready);
                    self.drop_partition(partition)?;
                }
                Err(error) if error.is_conflict() && conflicts < CONFLICTS_MAX => {
                    conflicts += 1;
                    self.ready = Some(ready);
                }
                Err(error) => return Err(self.failed(ready, error)),
            }
        }
    }

    /// Takes a home in place of the one that is lost, and reserves sequence numbers in it.
    pub(super) async fn take_home(
        &mut self,
        from: u64,
    ) -> Result<std::ops::Range<u64>, StoreError> {
        if self.home.is_none() {
            let ready = self.take().await?;
            match home::take(&ready.session, &self.owner).await {
                Ok(taken) => {
                    info!(partition = taken.partition, "new jobs are kept in another partition");
                    self.home = Some(taken.partition);
                    self.add(taken, Instant::now());
                    self.ready = Some(ready);
                }
                Err(error) => return Err(self.failed(ready, error)),
            }
        }
        let prefix = self.prefix.clone().unwrap_or_default();
        self.reserve(&prefix, from).await
    }

    /// A partition that this server has adopted; returns it if the server had it before.
    pub(super) fn own(&mut self, partition: PartitionId, generation: i64) -> Option<PartitionId> {
        let before = self.shared.lock().before.remove(&partition).unwrap_or_default();
        let earlier = self.owned.remove(&partition);
        let was_lost = self.lost.0.remove(&partition);
        if self.home == Some(partition) {
            self.home = None;
            self.lost.1 = true;
        }
        self.expected.forget(partition);
        // A session that has begun since may have raised it.
        let generation = earlier.as_ref().map_or(generation, |own| own.generation.max(generation));
        let loaded_at = Instant::now() + LOADED_AFTER;
        self.add(Taken { partition, generation, before }, loaded_at);
        (earlier.is_some() || was_lost).then_some(partition)
    }

    /// Jobs and dead letters that were loaded from adopted partitions.
    pub(super) fn note_loaded(&mut self, jobs: &[u64], dead: &[u64]) {
        let loaded_at = Instant::now() + LOADED_AFTER;
        for (numbers, is_dead) in [(jobs, false), (dead, true)] {
            for &number in numbers {
                let partition = self.partition_of(number);
                let Some(own) = self.owned.get_mut(&partition) else { continue };
                own.loaded_at = own.loaded_at.max(loaded_at);
                let rows = self.expected.of(partition);
                let table = if is_dead { &mut rows.dead } else { &mut rows.jobs };
                table.insert(number);
            }
        }
        if jobs.is_empty() && dead.is_empty() {
            self.owned.values_mut().for_each(|own| own.loaded_at = Instant::now());
        }
    }

    /// Lets other servers have the partitions at once, and ends the session.
    pub(super) async fn leave(&mut self) -> Result<(), StoreError> {
        if self.is_over {
            return Ok(());
        }
        let ready = self.take().await?;
        let left = async {
            for Fence { partition, generation, jobs } in self.fences(None) {
                partitions::leave(&ready.session, partition, generation, jobs).await?;
            }
            Ok(())
        };
        let left: Result<(), SessionError> = left.await;
        self.is_over = true;
        left.map_err(|error| error.in_service(&self.place))
    }

    pub(super) async fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        let ready = self.take().await?;
        let partitions: Vec<PartitionId> = self.owned.keys().copied().collect();
        let beats = self.keep_beating();
        let expected = &mut self.expected;
        let mut each = |partition, row: Row| {
            expected.of(partition).jobs.insert(row.number);
            each(row);
        };
        let loaded = tokio::select! {
            biased;
            loaded = load::jobs(&ready.session, &partitions, &mut each) => loaded,
            never = beats => match never {},
        };
        self.loaded(ready, loaded)?;
        self.owned.values_mut().for_each(|own| own.loaded_at = Instant::now());
        Ok(())
    }

    pub(super) async fn load_dead(
        &mut self,
        each: &mut dyn FnMut(DeadRow),
    ) -> Result<(), StoreError> {
        let ready = self.take().await?;
        let partitions: Vec<PartitionId> = self.owned.keys().copied().collect();
        let beats = self.keep_beating();
        let expected = &mut self.expected;
        let mut each = |partition, dead: DeadRow| {
            expected.of(partition).dead.insert(dead.row.number);
            each(dead);
        };
        let loaded = tokio::select! {
            biased;
            loaded = load::dead(&ready.session, &partitions, &mut each) => loaded,
            never = beats => match never {},
        };
        self.loaded(ready, loaded)
    }

    pub(super) async fn load_pauses(
        &mut self,
        each: &mut dyn FnMut(Bytes, Pause),
    ) -> Result<(), StoreError> {
        let ready = self.take().await?;
        let mut pauses = Pauses::new();
        let mut each = |function: Bytes, pause| {
            pauses.insert(function.clone(), pause);
            each(function, pause);
        };
        let loaded = load::pauses(&ready.session, &mut each).await;
        self.loaded(ready, loaded)?;
        // Where other servers change them, too, this one can't tell what is lost.
        self.expected.pauses = Some(pauses).filter(|_| !self.is_cluster);
        Ok(())
    }

    /// Puts the session back after a table was read.
    fn loaded(&mut self, ready: Ready, loaded: Result<(), SessionError>) -> Result<(), StoreError> {
        loaded.map_err(|error| error.in_service(&self.place))?;
        self.ready = Some(ready);
        Ok(())
    }

    /// Beats in a session of its own, as long as it is polled, while this session reads a table.
    fn keep_beating(&self) -> impl Future<Output = std::convert::Infallible> + use<> {
        let (targets, limit) = (self.targets.clone(), self.lock_limit());
        let (fences, interval) = (self.fences(None), self.lease.beat_interval());
        async move {
            loop {
                sleep(interval).await;
                // A partition that is lost shows at the next commit.
                let Ok(session) = Session::connect(&targets, limit).await else { continue };
                let Ok(statements) = commit::prepare(&session).await else { continue };
                while commit::apply(&session, &statements, &fences, &[]).await.is_ok() {
                    sleep(interval).await;
                }
            }
        }
    }

    /// What the tables have lost; see `Store::take_missing`.
    pub(super) fn take_missing(&mut self) -> Vec<u64> {
        let missing = self.expected.take_missing(std::mem::take(&mut self.missing));
        if !missing.is_empty() {
            warn!(
                jobs = missing.len(),
                "{} has lost jobs that were committed, as after a failover without synchronous \
                 replication: they are written again; set synchronous_standby_names there",
                self.place
            );
        }
        missing
    }
}
