//! What is kept from scrape to scrape.
//!
//! Set by connections and by scrapes, read by the next scrape.
//!
//! Invariant: a connection counts as long as its `CountedConnection` is there.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is kept from scrape to scrape.
#[derive(Debug, Default)]
pub(in crate::ops) struct MetricsState {
    /// Connections to HTTP ports.
    connections: AtomicU64,
    last_seconds: Mutex<f64>,
}

/// A connection to an HTTP port, which counts until this is dropped.
#[derive(Debug)]
pub(in crate::ops) struct CountedConnection(Arc<MetricsState>);

impl MetricsState {
    /// Connections to HTTP ports.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How long the last scrape took.
    pub(super) fn last_seconds(&self) -> f64 {
        *self.last_seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_last_seconds(&self, seconds: f64) {
        *self.last_seconds.lock().unwrap_or_else(PoisonError::into_inner) = seconds;
    }
}

impl CountedConnection {
    /// A connection has come.
    pub(in crate::ops) fn new(state: &Arc<MetricsState>) -> Self {
        state.connections.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(state))
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
