//! Large allocations that have served and will again soon: bodies in, their memory out for others.
//!
//! Fresh pages cost the kernel more than the bytes that are copied into them (a fault and a wiped
//! page for each 4 KiB), so the memory of a large body that is done with waits a moment for the
//! next one. Knows no packets; any thread may drop the last share of a body.
//!
//! Invariant: at most `SPARE_BYTES_MAX` wait, none for longer than two calls of `age`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Bodies from here on leave their memory behind.
pub const SPARE_BYTES_MIN: usize = 256 << 10;
/// Most memory that waits.
pub const SPARE_BYTES_MAX: usize = 256 << 20;
/// Memory that is larger than a body by more than this factor isn't given to it.
const WASTE_FACTOR_MAX: usize = 4;

/// Memory that waits for the next large bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct Spares(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Most bytes that wait.
    bytes_max: usize,
    /// Allocations, and whether the last `age` saw each; in no order, as they are few. The lock is
    /// taken for large bodies only.
    free: Mutex<Vec<(Vec<u8>, bool)>>,
    /// Their capacities' sum, to be looked at without the lock.
    bytes: AtomicUsize,
}

/// The memory of one body.
struct Used {
    body: Vec<u8>,
    spares: Spares,
}

impl AsRef<[u8]> for Used {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.spares.put(std::mem::take(&mut self.body));
    }
}

impl Spares {
    /// Nothing yet, and never more than `bytes_max`, nor `SPARE_BYTES_MAX`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(SPARE_BYTES_MAX);
        Self(Arc::new(Shared { bytes_max, free: Mutex::default(), bytes: AtomicUsize::new(0) }))
    }

    /// Empty memory for a body of so many bytes, if some waits.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Option<Vec<u8>> {
        if bytes < SPARE_BYTES_MIN || self.bytes() < bytes {
            return None;
        }
        let mut free = self.free();
        let fits = free.iter().enumerate().filter(|(_, (memory, _))| {
            (bytes..=bytes.saturating_mul(WASTE_FACTOR_MAX)).contains(&memory.capacity())
        });
        let (at, _) = fits.min_by_key(|(_, (memory, _))| memory.capacity())?;
        let (memory, _) = free.swap_remove(at);
        self.0.bytes.fetch_sub(memory.capacity(), Ordering::Relaxed);
        Some(memory)
    }

    /// A body to be shared; its memory comes back here when the last share is dropped.
    #[must_use]
    pub fn share(&self, body: Vec<u8>) -> Bytes {
        if body.capacity() < SPARE_BYTES_MIN {
            return Bytes::from(body);
        }
        Bytes::from_owner(Used { body, spares: self.clone() })
    }

    /// Bytes that wait.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Gives back to the system what has waited since the last call.
    pub fn age(&self) {
        let mut free = self.free();
        let (old, young) = std::mem::take(&mut *free).into_iter().partition(|(_, seen)| *seen);
        *free = young;
        free.iter_mut().for_each(|(_, seen)| *seen = true);
        let bytes = free.iter().map(|(memory, _)| memory.capacity()).sum();
        self.0.bytes.store(bytes, Ordering::Relaxed);
        drop(free);
        drop::<Vec<(Vec<u8>, bool)>>(old);
    }

    fn put(&self, mut memory: Vec<u8>) {
        if self.bytes() + memory.capacity() > self.0.bytes_max {
            return;
        }
        memory.clear();
        let mut free = self.free();
        self.0.bytes.fetch_add(memory.capacity(), Ordering::Relaxed);
        free.push((memory, false));
    }

    fn free(&self) -> MutexGuard<'_, Vec<(Vec<u8>, bool)>> {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_serves_again_once_the_last_share_is_gone() {
        let spares = Spares::new(SPARE_BYTES_MAX);
        let body = vec![b'x'; SPARE_BYTES_MIN];
        let at = body.as_ptr();
        let shared = spares.share(body);
        let part = shared.slice(10..);
        drop(shared);
        assert!(spares.take(SPARE_BYTES_MIN).is_none(), "somebody reads it");
        drop(part);
        let memory = spares.take(SPARE_BYTES_MIN).unwrap();
        assert_eq!((memory.as_ptr(), memory.len()), (at, 0));
        assert_eq!(spares.bytes(), 0);
    }

    #[test]
    fn the_smallest_that_fits_is_taken_and_none_that_is_far_too_large() {
        let spares = Spares::new(SPARE_BYTES_MAX);
        for factor in [8, 2, 1] {
            drop(spares.share(Vec::with_capacity(factor * SPARE_BYTES_MIN)));
        }
        let taken: Vec<usize> =
            std::iter::from_fn(|| spares.take(SPARE_BYTES_MIN)).map(|m| m.capacity()).collect();
        assert_eq!(taken, [SPARE_BYTES_MIN, 2 * SPARE_BYTES_MIN]);
        assert!(spares.take(9 * SPARE_BYTES_MIN).is_none(), "too small");
    }

    #[test]
    fn what_lies_unused_goes_and_there_is_never_too_much() {
        let spares = Spares::new(SPARE_BYTES_MAX);
        drop(spares.share(Vec::with_capacity(SPARE_BYTES_MIN)));
        spares.age();
        assert_eq!(spares.bytes(), SPARE_BYTES_MIN);
        drop(spares.share(Vec::with_capacity(2 * SPARE_BYTES_MIN)));
        spares.age();
        assert_eq!(spares.bytes(), 2 * SPARE_BYTES_MIN, "the older one is gone");
        spares.age();
        assert_eq!(spares.bytes(), 0);
        let bodies: Vec<Bytes> =
            (0..5).map(|_| spares.share(Vec::with_capacity(SPARE_BYTES_MAX / 4))).collect();
        drop(bodies);
        assert!(spares.bytes() <= SPARE_BYTES_MAX);
        drop(spares.share(Vec::with_capacity(SPARE_BYTES_MIN - 1)));
        spares.age();
        spares.age();
        assert_eq!(spares.bytes(), 0);
    }
}
