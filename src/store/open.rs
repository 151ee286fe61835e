//! The choice of a store in, an open store that is this process's alone out.
//!
//! Knows which databases there are; what each does is its own file's.

use std::thread;
use std::time::Duration;

use thiserror::Error;
use tracing::info;

use super::lock::{Lock, LockError};
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
    loop {
        match (try_open(choice, first_sequence), &patience) {
            (Err(OpenError::Owned(_)), Some(is_patient)) if !is_patient() => return Ok(None),
            (Err(OpenError::Owned(why)), Some(_)) => {
                if !std::mem::replace(&mut told, true) {
                    info!("standing by: {why}");
                }
                thread::sleep(LOOK_AGAIN);
            }
            (opened, _) => return opened.map(Some),
        }
    }
}

fn try_open(choice: &StoreChoice, first_sequence: u64) -> Result<Box<dyn Store>, OpenError> {
    match choice {
        StoreChoice::Sqlite { path, table } => {
            let lock = Lock::try_acquire(path).map_err(|error| match error {
                LockError::Owned { .. } => OpenError::Owned(error.to_string()),
                LockError::Failed { .. } => StoreError::Unusable(error.to_string()).into(),
            })?;
            Ok(Box::new(Sqlite::open(lock, table.as_deref(), first_sequence)?))
        }
        StoreChoice::Postgres { .. } => {
            Err(StoreError::Unusable("this build has no PostgreSQL".to_owned()).into())
        }
    }
}
