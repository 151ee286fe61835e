//! The choice of a store in, an open store that is this process's alone out.
//!
//! Knows which databases there are; what each does is its own file's.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tracing::info;

use super::lock::{Lock, LockError};
use super::namespace::{Namespace, Record, Wanted};
use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::{OpenError, Store, StoreError};

/// How often a server that waits for the store looks whether it is free.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Where background jobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreChoice {
    /// In a file.
    Sqlite {
        /// Its path.
        path: PathBuf,
        /// gearmand's table whose jobs are taken over, if not its default.
        table: Option<String>,
    },
    /// On a PostgreSQL server.
    Postgres {
        /// A URL, or libpq's words.
        conninfo: String,
        /// gearmand's table whose jobs are taken over, if not its default.
        table: Option<String>,
    },
}

/// A store that is this process's.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Box<dyn Store>,
    /// For the handles of its jobs.
    pub namespace: Namespace,
}

/// Opens a store and decides what the handles of this run are made of. `first_sequence` is where
/// numbers of jobs start by the clock, asked when the store has come to be this server's. While
/// another server owns it, this one waits for as long as `patience` says so, if there is any: then
/// `None` means that it ran out.
///
/// # Errors
/// `OpenError`: see there.
pub fn open(
    choice: &StoreChoice,
    wanted: &Wanted<'_>,
    first_sequence: impl Fn() -> u64,
    patience: Option<impl Fn() -> bool>,
) -> Result<Option<Opened>, OpenError> {
    if patience.is_some() && wanted.is_given {
        // A standby with the wrong prefix is to hear of it now, not at the failover.
        peek(choice).map_or(Ok(()), |record| wanted.check(&record))?;
    }
    let mut told = false;
    let mut keep_waiting = || {
        let waits = patience.as_ref().is_some_and(|is_patient| is_patient());
        if waits && !std::mem::replace(&mut told, true) {
            info!("standing by: another server owns the store");
        }
        waits
    };
    let opened: Result<Box<dyn Store>, OpenError> = match choice {
        StoreChoice::Sqlite { path, table } => wait_for_lock(path, &mut keep_waiting)
            .and_then(|lock| Ok(Sqlite::open(lock, table.as_deref(), first_sequence())?))
            .map(|store| Box::new(store) as Box<dyn Store>),
        StoreChoice::Postgres { conninfo, table } => {
            Postgres::open(conninfo, table.as_deref(), first_sequence(), &mut keep_waiting)
                .map(|store| Box::new(store) as Box<dyn Store>)
        }
    };
    let mut store = match opened {
        Err(OpenError::Owned(_)) if patience.is_some() => return Ok(None),
        opened => opened?,
    };
    let namespace = wanted.settle(&store.record()?, first_sequence())?;
    Ok(Some(Opened { store, namespace }))
}

/// What is on record in a store that another server may own; `None` if that can't be found out.
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
