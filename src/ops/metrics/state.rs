//! What is kept from scrape to scrape.
//!
//! Set by a scrape, read by the next. Knows no metric.

use std::sync::{Mutex, PoisonError};

/// What is kept from scrape to scrape.
#[derive(Debug, Default)]
pub(in crate::ops) struct MetricsState {
    last_seconds: Mutex<f64>,
}

impl MetricsState {
    /// How long the last scrape took.
    pub(super) fn last_seconds(&self) -> f64 {
        *self.last_seconds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_last_seconds(&self, seconds: f64) {
        *self.last_seconds.lock().unwrap_or_else(PoisonError::into_inner) = seconds;
    }
}
