//! How many requests are at work at a time, over all connections.
//!
//! A request that waits, for a job or for its own body, gives its permit back meanwhile. Knows no
//! endpoint.
//!
//! Invariant: a request gives its permit back at the latest when it is answered.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ops::listen::activity::Activity;

/// Most requests that are at work at a time.
pub(in crate::ops) const PERMITS: usize = 64;

/// A request's leave to be at work; an extension of the request.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Permit(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    permits: Arc<Semaphore>,
    /// None while the request waits, or is answered.
    held: Mutex<Option<OwnedSemaphorePermit>>,
    connection: Option<Arc<Activity>>,
}

impl Permit {
    /// A permit, unless all are taken.
    pub(in crate::ops) fn take(
        permits: &Arc<Semaphore>,
        connection: Option<Arc<Activity>>,
    ) -> Option<Self> {
        let held = Mutex::new(Some(Arc::clone(permits).try_acquire_owned().ok()?));
        Some(Self(Arc::new(Inner { permits: Arc::clone(permits), held, connection })))
    }

    /// Gives it back until the request's end: from now on the request only waits.
    pub(in crate::ops) fn give_back(&self) {
        self.put(None);
        if let Some(connection) = &self.0.connection {
            connection.wait();
        }
    }

    /// Gives it back until `waited` is done, and then waits for another.
    pub(in crate::ops) async fn without<T>(&self, waited: impl Future<Output = T>) -> T {
        self.give_back();
        let done = waited.await;
        let permit = Arc::clone(&self.0.permits).acquire_owned().await;
        self.put(permit.ok());
        if let Some(connection) = &self.0.connection {
            connection.begin();
        }
        done
    }

    fn put(&self, permit: Option<OwnedSemaphorePermit>) {
        *self.0.held.lock().unwrap_or_else(PoisonError::into_inner) = permit;
    }
}
