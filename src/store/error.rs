//! Errors of stores: why an operation failed, and why a store can't be opened.
//!
//! Each text is one sentence with cause and remedy. Knows no database.

use thiserror::Error;

/// Why an operation of a store failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It may succeed later: disk full, database locked, server unreachable. All or none of the
    /// commit may be on disk.
    #[error("{0}")]
    Unavailable(String),
    /// Another server owns the store: this one must stop accepting jobs at once.
    #[error("{0}")]
    Lost(String),
    /// The store can't be used: corrupt, of another program, or of a newer version.
    #[error("{0}")]
    Unusable(String),
}

/// Why a store can't be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another server owns it.
    #[error("{0}")]
    Owned(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
