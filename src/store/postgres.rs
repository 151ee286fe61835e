//! Durable jobs on a PostgreSQL server: operations in, rows of tables out.
//!
//! Several servers may use the same tables: each has partitions of its own (`cluster`). A commit is
//! one transaction in one session, `link`; another session watches the partitions, `members`. Knows
//! SQL, but no queues; blocks its thread.
//!
//! Invariant: a commit is applied if and only if the generation of each partition that it touches
//! is this server's, and no commit of an earlier session is applied after a later one has begun.

mod change;
mod commit;
mod conninfo;
#[cfg(test)]
mod dialect;
mod error;
mod expected;
mod home;
mod identity;
mod link;
mod load;
mod members;
mod opening;
mod partitions;
mod record;
mod schema;
mod session;
mod shared;
mod tables;
mod takeover;
mod tls;
mod words;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use tokio::runtime::Runtime;

use self::conninfo::Target;
use self::identity::Identity;
use self::link::Link;
pub use self::members::PostgresMembers;
use self::opening::Start;
use self::partitions::Owner;
use self::session::Session;
use self::shared::Shared;
use super::membership::Membership;
use super::namespace::Record;
use super::needs::Needs;
use super::{Committed, OpenError, Store, StoreError};
use crate::cluster::lease::{self, Lease};
use crate::cluster::partition::PartitionId;
use crate::engine::record::{DeadRow, Operation, Pause, Row};

/// What a store on a PostgreSQL server is opened with.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// A connection string as libpq reads it, completed from libpq's environment variables.
    pub conninfo: &'a str,
    /// gearmand's table whose jobs are imported, by default `queue`.
    pub table: Option<&'a str>,
    /// What other servers are told.
    pub membership: &'a Membership,
    /// The prefix of handles unless the tables have one.
    pub prefix: &'a [u8],
    /// Whether to wait while another server lives.
    pub is_standby: bool,
}

/// A store on a PostgreSQL server.
pub struct Postgres {
    link: Link,
    runtime: Runtime,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("place", &self.link.place)
            .field("owned", &self.link.owned)
            .field("connected", &self.link.ready.is_some())
            .field("over", &self.link.is_over)
            .finish_non_exhaustive()
    }
}

impl Postgres {
    /// Connects, creates the tables if there are none, takes partitions, and imports gearmand's
    /// jobs, numbered from `first_sequence` at least.
    ///
    /// While another server has what this one needs, `keep_waiting` is called a few times a second
    /// and decides whether to continue; after the first connection this also applies while
    /// PostgreSQL is unreachable.
    ///
    /// # Errors
    /// `OpenError` if another server has what this one needs, or the tables can't be used.
    pub fn open(
        opening: &Opening<'_>,
        first_sequence: &dyn Fn() -> u64,
        keep_waiting: &mut dyn FnMut() -> bool,
    ) -> Result<Self, OpenError> {
        let Opening { conninfo, table, membership, prefix, is_standby } = *opening;
        let targets = conninfo::targets(conninfo, |name| std::env::var(name).ok())?;
        let identity = Identity::new()?;
        let owner = Owner {
            token: identity.token().to_vec(),
            name: membership.name.clone(),
            address: membership.address.clone(),
        };
        let runtime = runtime()?;
        let terms = (membership.lease, membership.is_cluster);
        let mut link = Link::new(targets, owner, terms, Shared::default());
        let terms = (table, prefix, is_standby);
        let start = Start::new(&mut link, &identity, terms, first_sequence);
        runtime.block_on(start.run(keep_waiting))?;
        Ok(Self { link, runtime })
    }

    /// A session that watches all partitions, for a thread of its own.
    ///
    /// # Errors
    /// `StoreError` if the kernel gives no event loop.
    pub fn members(&self) -> Result<PostgresMembers, StoreError> {
        let Link { targets, owner, shared, .. } = &self.link;
        let limit = self.link.lock_limit();
        Ok(PostgresMembers::new(runtime()?, targets.clone(), owner.clone(), shared.clone(), limit))
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
    /// only the prefix. `None` if it can't be read or there is none.
    pub(super) fn peek(conninfo: &str) -> Option<Record> {
        let targets = conninfo::targets(conninfo, |name| std::env::var(name).ok()).ok()?;
        let limit = lease::DEFAULT / 6;
        runtime().ok()?.block_on(async {
            let session = Session::connect(&targets, limit).await.ok()?;
            Some(record::peek(&session).await)
        })
    }

    /// After an error: lets a dropped session close its socket, which ends its transaction and
    /// releases its locks. No task runs between calls, so this must be done before the call
    /// returns.
    fn close_dropped<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() {
            self.runtime.block_on(tokio::task::yield_now());
        }
        result
    }
}

/// An event loop for one thread.
fn runtime() -> Result<Runtime, StoreError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().map_err(|error| {
        StoreError::Unusable(format!("no event loop for PostgreSQL's connection: {error}"))
    })
}

impl Store for Postgres {
    fn record(&mut self) -> Result<Record, StoreError> {
        let result = self.runtime.block_on(self.link.record());
        self.close_dropped(result)
    }

    fn reserve(&mut self, prefix: &[u8], from: u64) -> Result<Range<u64>, StoreError> {
        let result = self.runtime.block_on(self.link.reserve(prefix, from));
        self.close_dropped(result)
    }

    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        let result = self.runtime.block_on(self.link.load(each));
        // The session that beat meanwhile is dropped in any case.
        self.runtime.block_on(tokio::task::yield_now());
        result
    }

    fn load_dead(&mut self, each: &mut dyn FnMut(DeadRow)) -> Result<(), StoreError> {
        let result = self.runtime.block_on(self.link.load_dead(each));
        // The session that beat meanwhile is dropped in any case.
        self.runtime.block_on(tokio::task::yield_now());
        result
    }

    fn load_pauses(&mut self, each: &mut dyn FnMut(Bytes, Pause)) -> Result<(), StoreError> {
        let result = self.runtime.block_on(self.link.load_pauses(each));
        self.close_dropped(result)
    }

    fn commit(&mut self, operations: &[Operation]) -> Result<Committed, StoreError> {
        let result = self.runtime.block_on(self.link.commit(operations));
        self.close_dropped(result)
    }

    fn check(&mut self) -> Result<Committed, StoreError> {
        match self.commit(&[]) {
            // Reconnects at once, as a beat is due.
            Err(StoreError::Unavailable(_)) => self.commit(&[]),
            checked => checked,
        }
    }

    fn check_interval(&self) -> std::time::Duration {
        self.link.lease.beat_interval()
    }

    fn lease(&self) -> Option<Lease> {
        Some(self.link.lease)
    }

    fn partition_of(&self, number: u64) -> PartitionId {
        self.link.partition_of(number)
    }

    fn own(&mut self, partition: PartitionId, generation: i64) -> Option<PartitionId> {
        self.link.own(partition, generation)
    }

    fn owns(&self, partition: PartitionId) -> bool {
        self.link.owned.contains_key(&partition)
    }

    fn note_loaded(&mut self, jobs: &[u64], dead: &[u64]) {
        self.link.note_loaded(jobs, dead);
    }

    fn take_home(&mut self, from: u64) -> Result<Range<u64>, StoreError> {
        let result = self.runtime.block_on(self.link.take_home(from));
        self.close_dropped(result)
    }

    fn leave(&mut self) -> Result<(), StoreError> {
        let result = self.runtime.block_on(self.link.leave());
        self.runtime.block_on(tokio::task::yield_now());
        result
    }

    fn take_missing(&mut self) -> Vec<u64> {
        self.link.take_missing()
    }
}
