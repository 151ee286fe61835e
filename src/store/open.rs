//! The choice of a store in, an open store that is this process's alone out.
//!
//! Knows which databases there are; what each does is its own file's.

use std::path::Path;
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tracing::info;

use super::lock::{Lock, LockError};
use super::postgres::Postgres;
use super::sqlite::Sqlite;
use super::{Store, StoreError};
use crate::config::StoreChoice;

/// How often a server that waits for the store looks whether it is free.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Why there is no store.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another server has it.
    #[error("{0}")]
    Owned(String),
    /// It can't be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens a store. `first_sequence` is where the numbers of jobs start that it takes over from
/// gearmand. While another server owns it, this one waits for as long as `patience` says so, if
/// there is any: then `None` means that it ran out.
///
/// # Errors
/// `OpenError`: see there.
pub fn open(
    choice: &StoreChoice,
    first_sequence: u64,
    patience: Option<impl Fn() -> bool>,
) -> Result<Option<Box<dyn Store>>, OpenError> {
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
            .and_then(|lock| Ok(Sqlite::open(lock, table.as_deref(), first_sequence)?))
            .map(|store| Box::new(store) as Box<dyn Store>),
        StoreChoice::Postgres { conninfo, table } => {
            Postgres::open(conninfo, table.as_deref(), first_sequence, &mut keep_waiting)
                .map(|store| Box::new(store) as Box<dyn Store>)
        }
    };
    match opened {
        Err(OpenError::Owned(_)) if patience.is_some() => Ok(None),
        opened => opened.map(Some),
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
