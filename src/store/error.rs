//! Errors of stores: why an operation failed, and why a store can't be opened.
//!
//! Each text is one sentence with cause and remedy. Knows no database.

use thiserror::Error;

/// Why a store didn't do what it was asked for.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It may work when tried again: disk full, database locked, server gone. Nothing of the commit
    /// is kept, or all of it.
    #[error("{0}")]
    Unavailable(String),
    /// Another server owns the store now: this one must stop acknowledging at once.
    #[error("{0}")]
    Lost(String),
    /// It can't be used at all: corrupt, of another program, of a newer version. One sentence with
    /// cause and remedy.
    #[error("{0}")]
    Unusable(String),
}

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
