//! The start of a server with a database: a session in, partitions that this server has out.
//!
//! With `--cluster` a server takes a home and nothing else. Without, it needs all partitions: it is
//! refused, or stands by, while another server owns one.
//!
//! Invariant: a partition is taken from an owner only if that has left, has ended, or has had no
//! beat for the lease (`cluster::watch`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::{info, warn};

use super::error::SessionError;
use super::home::{self, Taken};
use super::identity::Identity;
use super::link::Link;
use super::partitions::{self, Tenure};
use super::record;
use super::session::Session;
use super::tables::{self, Tables};
use super::takeover::take_over;
use crate::cluster::partition::{Partition, PartitionId, Reading, Seen, State};
use crate::cluster::watch::Watch;
use crate::store::{OpenError, StoreError};

/// Longest time between two looks at the partitions.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long PostgreSQL may take to release the lock of an older server that has ended.
const OLD_LOCK_GRACE: Duration = Duration::from_secs(2);

/// What a look has found.
enum Look {
    /// This server has what it needs.
    Taken,
    /// Another server may live.
    Unknown,
    /// Another server lives, as this text says.
    Living(String),
}

/// The opening of a store.
pub(super) struct Start<'a> {
    pub(super) link: &'a mut Link,
    pub(super) identity: &'a Identity,
    /// gearmand's table.
    pub(super) table: Option<&'a str>,
    /// The prefix of handles unless there is one.
    pub(super) prefix: &'a [u8],
    pub(super) is_standby: bool,
    /// First sequence number by the clock.
    pub(super) first_sequence: &'a dyn Fn() -> u64,
    watch: Watch,
    /// Generation and beat of each partition when it was read first.
    first_seen: BTreeMap<PartitionId, Seen>,
    sessions: u64,
    started: Instant,
}

impl<'a> Start<'a> {
    pub(super) fn new(
        link: &'a mut Link,
        identity: &'a Identity,
        (table, prefix, is_standby): (Option<&'a str>, &'a [u8], bool),
        first_sequence: &'a dyn Fn() -> u64,
    ) -> Self {
        let watch = Watch::new(link.lease);
        let (first_seen, started) = (BTreeMap::new(), Instant::now());
        Self {
            link,
            identity,
            table,
            prefix,
            is_standby,
            first_sequence,
            watch,
            first_seen,
            sessions: 0,
            started,
        }
    }

    /// Connects, and waits for the partitions while `keep_waiting` returns `true`.
    pub(super) async fn run(
        mut self,
        keep_waiting: &mut dyn FnMut() -> bool,
    ) -> Result<(), OpenError> {
        let session = self.wait(keep_waiting).await?;
        let opened = self.finish(session).await;
        let place = &self.link.place;
        Ok(opened.map_err(|error| error.at_start(place))?)
    }

    async fn finish(&mut self, session: Session) -> Result<(), SessionError> {
        record::set_prefix(&session, self.prefix).await?;
        let blocks = record::blocks(&session, None).await?;
        for (block, partition) in blocks {
            self.link.shared.lock().blocks.insert(block, partition);
        }
        self.link.prefix = record::read(&session).await?.prefix;
        if let Some(home) = self.link.home {
            let generation = self.link.generation();
            let taken =
                take_over(&session, (home, generation), self.table, (self.first_sequence)());
            for block in record::blocks_of(&taken.await?) {
                self.link.shared.lock().blocks.insert(block, home);
            }
        }
        self.link.warn_of_asynchrony(&session);
        self.link.begin(session).await?;
        let generation = self.link.generation();
        info!(generation, partition = self.link.home, "jobs are kept in {}", self.link.place);
        Ok(())
    }

    /// Looks until this server has what it needs.
    async fn wait(&mut self, keep_waiting: &mut dyn FnMut() -> bool) -> Result<Session, OpenError> {
        let connected = self.link.connect().await;
        let mut session = connected.map_err(|error| error.at_start(&self.link.place))?;
        let interval = LOOK_AGAIN.min(self.link.lease.read_interval());
        loop {
            match self.look(&session).await {
                Ok(Look::Taken) => return Ok(session),
                Ok(Look::Living(owner)) => {
                    if !keep_waiting() {
                        return Err(self.owned(&owner));
                    }
                }
                Ok(Look::Unknown) => {
                    // A server that doesn't stand by waits until it is known.
                    if !keep_waiting() && self.is_standby {
                        return Err(self.owned("another one"));
                    }
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => {
                    self.watch.failed();
                    let error = error.at_start(&self.link.place);
                    if !matches!(error, StoreError::Unavailable(_)) || !keep_waiting() {
                        return Err(error.into());
                    }
                    warn!("{error}");
                    session = self.connect_again(keep_waiting).await?;
                    info!("connected to {} again, still standing by", self.link.place);
                }
            }
            sleep(interval).await;
        }
    }

    /// Reconnects a standby.
    async fn connect_again(
        &mut self,
        keep_waiting: &mut dyn FnMut() -> bool,
    ) -> Result<Session, OpenError> {
        self.sessions += 1;
        loop {
            sleep(LOOK_AGAIN).await;
            match self.link.connect().await {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    let error = error.at_start(&self.link.place);
                    // Waiting helps against `Unavailable` only.
                    if !matches!(error, StoreError::Unavailable(_)) || !keep_waiting() {
                        return Err(error.into());
                    }
                }
            }
        }
    }

    /// Takes what this server needs, if it can be had.
    async fn look(&mut self, session: &Session) -> Result<Look, SessionError> {
        if let Tables::Owned(host) = tables::ensure(session).await? {
            let is_sure = self.started.elapsed() >= OLD_LOCK_GRACE;
            let owner = format!("the one at {host}");
            return Ok(if is_sure { Look::Living(owner) } else { Look::Unknown });
        }
        if self.link.is_cluster {
            let taken = home::take(session, &self.link.owner).await?;
            self.link.home = Some(taken.partition);
            self.link.add(taken, Instant::now());
            return Ok(Look::Taken);
        }
        let readings = partitions::read(session, &mut true).await?;
        let now = self.started.elapsed();
        self.watch.read(now, self.sessions, &readings);
        let orphans = self.watch.orphans(now, 0);
        let is_free = |partition: &Partition| {
            partition.state != State::Owned
                || orphans.contains(&partition.seen())
                || self.identity.is_dead(&partition.owner)
        };
        let owned: Vec<&Reading> =
            readings.iter().filter(|reading| !is_free(&reading.partition)).collect();
        if owned.is_empty() {
            return self.take_all(session, &readings).await;
        }
        for reading in owned {
            let seen = reading.partition.seen();
            let first = *self.first_seen.entry(seen.id).or_insert(seen);
            if first != seen {
                return Ok(Look::Living(described(&reading.partition)));
            }
        }
        Ok(Look::Unknown)
    }

    /// Takes all partitions that have jobs, or else one that is free.
    async fn take_all(
        &mut self,
        session: &Session,
        readings: &[Reading],
    ) -> Result<Look, SessionError> {
        let partitions = readings.iter().map(|reading| &reading.partition);
        let mut wanted: Vec<&Partition> =
            partitions.clone().filter(|it| it.state != State::Free).collect();
        if wanted.is_empty() {
            wanted.extend(partitions.clone().next());
        }
        if wanted.is_empty() {
            let taken = home::take(session, &self.link.owner).await?;
            self.link.home = Some(taken.partition);
            self.link.add(taken, Instant::now());
            return Ok(Look::Taken);
        }
        let mut all = Vec::new();
        // In the order of numbers, so that of several servers one gets the first.
        for partition in wanted {
            let Some(generation) = partitions::adopt(session, partition, &self.link.owner).await?
            else {
                for Taken { partition, generation, .. } in all {
                    partitions::leave(session, partition, generation, None).await?;
                }
                return Ok(Look::Unknown);
            };
            all.push(Taken { partition: partition.id, generation, before: Tenure::of(partition) });
        }
        self.link.home = all.first().map(|taken| taken.partition);
        // They count as loaded once they are.
        let loaded_at = Instant::now() + Duration::from_secs(86_400);
        all.into_iter().for_each(|taken| self.link.add(taken, loaded_at));
        Ok(Look::Taken)
    }

    /// The error if another server owns what this one needs.
    fn owned(&self, owner: &str) -> OpenError {
        OpenError::Owned(format!(
            "the jobs in {} are served by {owner}: stop that server, wait for its end with \
             --standby, or join it with --cluster",
            self.link.place
        ))
    }
}

/// The owner of a partition, for people.
fn described(partition: &Partition) -> String {
    match (&*partition.name, &*partition.address) {
        ("", "") => "another one".to_owned(),
        ("", place) | (place, "") => format!("the one at {place}"),
        (name, address) => format!("the one at {name} ({address})"),
    }
}
