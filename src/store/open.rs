//! Opens a store: the choice of a database in, a store that this process owns out.
//!
//! Knows which databases there are, and how to wait for the end of another server that owns one.
//!
//! Invariant: an opened store belongs to this process alone.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tracing::info;

use super::lock::{Lock, LockError};
use super::members::Members;
pub use super::membership::Membership;
use super::namespace::{Namespace, Record, Wanted};
use super::needs::Needs;
use super::postgres::{Opening, Postgres};
use super::sqlite::Sqlite;
use super::{OpenError, Store, StoreError};

/// Time between two attempts of a standby to get the store.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Where background jobs are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    /// In a file.
    Sqlite {
        /// Its path.
        path: PathBuf,
        /// gearmand's table whose jobs are imported, if not its default.
        table: Option<String>,
    },
    /// On a PostgreSQL server.
    Postgres {
        /// A URL or libpq's `key=value` words.
        conninfo: String,
        /// gearmand's table whose jobs are imported, if not its default.
        table: Option<String>,
    },
}

impl StoreChoice {
    /// What kind of store it is.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite { .. } => "sqlite",
            Self::Postgres { .. } => "postgres",
        }
    }
}

/// A store that this process owns.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Box<dyn Store>,
    /// The view of all partitions, if the store has any.
    pub members: Option<Box<dyn Members>>,
    /// Prefix and first number of the handles of this run.
    pub namespace: Namespace,
}

/// Opens a store and determines prefix and first number of this run's handles. `first_sequence`
/// returns the first number by the clock; it is called once the store is owned. `keep_waiting`
/// makes this server a standby: while another server owns the store, it waits until `keep_waiting`
/// returns `false`, and then the result is `None`.
///
/// # Errors
/// `OpenError` if the store is owned by another server, or can't be used.
pub fn open(
    choice: &StoreChoice,
    wanted: &Wanted<'_>,
    membership: &Membership,
    first_sequence: impl Fn() -> u64,
    keep_waiting: Option<impl Fn() -> bool>,
) -> Result<Option<Opened>, OpenError> {
    let is_standby = keep_waiting.is_some();
    if is_standby && wanted.is_given {
        // A standby with a wrong prefix fails now, not at the failover.
        peek(choice).map_or(Ok(()), |record| wanted.check(&record))?;
    }
    let mut logged = false;
    let mut keep_waiting = || {
        let waits = keep_waiting.as_ref().is_some_and(|keep_waiting| keep_waiting());
        if waits && !std::mem::replace(&mut logged, true) {
            info!("standing by: another server owns the store");
        }
        waits
    };
    let opened = match choice {
        StoreChoice::Sqlite { path, table } => wait_for_lock(path, &mut keep_waiting)
            .and_then(|lock| Ok(Sqlite::open(lock, table.as_deref(), first_sequence())?))
            .map(|store| (Box::new(store) as Box<dyn Store>, None)),
        StoreChoice::Postgres { conninfo, table } => {
            let opening = Opening {
                conninfo,
                table: table.as_deref(),
                membership,
                prefix: wanted.prefix,
                is_standby,
            };
            Postgres::open(&opening, &first_sequence, &mut keep_waiting).and_then(|store| {
                let members = Box::new(store.members()?) as Box<dyn Members>;
                Ok((Box::new(store) as Box<dyn Store>, Some(members)))
            })
        }
    };
    let (mut store, members) = match opened {
        Err(OpenError::Owned(_)) if is_standby => return Ok(None),
        opened => opened?,
    };
    let namespace = wanted.resolve(&store.record()?, first_sequence())?;
    Ok(Some(Opened { store, members, namespace }))
}

/// Checks what can be checked of the choice without opening the store.
///
/// # Errors
/// `StoreError::Unusable` if PostgreSQL's connection string can't be used.
pub fn check(choice: &StoreChoice) -> Result<(), StoreError> {
    match choice {
        StoreChoice::Sqlite { .. } => Ok(()),
        StoreChoice::Postgres { conninfo, .. } => Postgres::check_conninfo(conninfo),
    }
}

/// What the store reaches outside of this process while it is open.
#[must_use]
pub fn needs(choice: &StoreChoice) -> Needs {
    match choice {
        StoreChoice::Sqlite { path, .. } => {
            Needs { written: vec![path.clone()], ..Needs::default() }
        }
        StoreChoice::Postgres { conninfo, .. } => Postgres::needs(conninfo),
    }
}

/// The record of a store that another server may own; `None` if it can't be read.
fn peek(choice: &StoreChoice) -> Option<Record> {
    match choice {
        StoreChoice::Sqlite { path, .. } => Sqlite::peek(path),
        StoreChoice::Postgres { conninfo, .. } => Postgres::peek(conninfo),
    }
}

fn wait_for_lock(path: &Path, keep_waiting: &mut dyn FnMut() -> bool) -> Result<Lock, OpenError> {
    loop {
        match Lock::try_acquire(path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Owned { .. }) if keep_waiting() => thread::park_timeout(LOOK_AGAIN),
            Err(error @ LockError::Owned { .. }) => {
                return Err(OpenError::Owned(error.to_string()));
            }
            Err(error) => return Err(StoreError::Unusable(error.to_string()).into()),
        }
    }
}
