//! Large allocations that have served and will again soon: bodies in, their memory out for others.
//!
//! Fresh pages cost the kernel more than the bytes that are copied into them (a fault and a wiped
//! page for each 4 KiB), so the memory of a large body that is done with waits a moment for the
//! next one. Knows no packets. The cores share it: the last share of a body may be dropped by any
//! of them, and whoever does so is awake to see to its age.
//!
//! Invariant: at most `SPARE_BYTES_MAX` wait, none for longer than two rounds of `age`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Bodies from here on leave their memory behind.
pub const SPARE_BYTES_MIN: usize = 64 << 10;
/// Most memory that waits.
pub const SPARE_BYTES_MAX: usize = 256 << 20;
/// Memory for bodies waits at most this part of what bodies may take, beside which it comes.
const SPARES_SHARE: usize = 8;
/// How often what nobody used meanwhile goes back to the system.
const AGE_MS: u64 = 1000;
/// Memory that is larger than a body by more than this factor isn't given to it.
const WASTE_FACTOR_MAX: usize = 4;

/// Memory that waits for the next large bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct Spares(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Most bytes that wait.
    bytes_max: usize,
    /// The lock is taken for large bodies only.
    free: Mutex<Free>,
    /// Their capacities' sum, to be looked at without the lock.
    bytes: AtomicUsize,
    /// When the next round is due.
    round_ms: AtomicU64,
}

/// Allocations by capacity, and whether the last `age` saw each. Of equal ones the latest comes
/// first: taken in turns, all would stay young though a few do.
#[derive(Debug, Default)]
struct Free {
    by_capacity: BTreeMap<(usize, Reverse<u64>), (Vec<u8>, bool)>,
    /// How many have come.
    count: u64,
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
    /// Nothing yet, and never more than a part of what bodies may take, nor `SPARE_BYTES_MAX`.
    #[must_use]
    pub fn new(memory_bytes_max: usize) -> Self {
        Self(Arc::new(Shared {
            bytes_max: (memory_bytes_max / SPARES_SHARE).min(SPARE_BYTES_MAX),
            free: Mutex::default(),
            bytes: AtomicUsize::new(0),
            round_ms: AtomicU64::new(0),
        }))
    }

    /// Empty memory for a body of so many bytes, if some waits.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Option<Vec<u8>> {
        if bytes < SPARE_BYTES_MIN || self.bytes() < bytes {
            return None;
        }
        let by_capacity = &mut self.free().by_capacity;
        let bytes_max = bytes.saturating_mul(WASTE_FACTOR_MAX);
        let fits = (bytes, Reverse(u64::MAX))..=(bytes_max, Reverse(0));
        let (&key, _) = by_capacity.range(fits).next()?;
        let (memory, _) = by_capacity.remove(&key)?;
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

    /// When `age` is to be called next, in milliseconds of `Now::mono_ms`: never while none waits.
    #[inline]
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        (self.bytes() > 0).then(|| self.0.round_ms.load(Ordering::Relaxed))
    }

    /// Gives back to the system what has waited for a round, if the next is due.
    pub fn age(&self, mono_ms: u64) {
        let is_due = || self.deadline_ms().is_some_and(|round_ms| round_ms <= mono_ms);
        if !is_due() {
            return;
        }
        let mut free = self.free();
        // Another core may have come first: a second round at once would spare nothing.
        if !is_due() {
            return;
        }
        self.0.round_ms.store(mono_ms + AGE_MS, Ordering::Relaxed);
        let all = std::mem::take(&mut free.by_capacity).into_iter();
        let (old, young): (BTreeMap<_, _>, _) = all.partition(|(_, (_, seen))| *seen);
        free.by_capacity = young;
        free.by_capacity.values_mut().for_each(|(_, seen)| *seen = true);
        let bytes = free.by_capacity.keys().map(|(capacity, _)| capacity).sum();
        self.0.bytes.store(bytes, Ordering::Relaxed);
        drop(free);
        drop(old);
    }

    fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn put(&self, mut memory: Vec<u8>) {
        let mut free = self.free();
        if self.bytes() + memory.capacity() > self.0.bytes_max {
            return;
        }
        memory.clear();
        self.0.bytes.fetch_add(memory.capacity(), Ordering::Relaxed);
        free.count += 1;
        let key = (memory.capacity(), Reverse(free.count));
        free.by_capacity.insert(key, (memory, false));
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.0.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_serves_again_once_the_last_share_is_gone() {
        let spares = Spares::new(usize::MAX);
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
        let spares = Spares::new(usize::MAX);
        for factor in [8, 2, 1] {
            drop(spares.share(Vec::with_capacity(factor * SPARE_BYTES_MIN)));
        }
        let taken: Vec<usize> =
            std::iter::from_fn(|| spares.take(SPARE_BYTES_MIN)).map(|m| m.capacity()).collect();
        assert_eq!(taken, [SPARE_BYTES_MIN, 2 * SPARE_BYTES_MIN]);
        assert!(spares.take(9 * SPARE_BYTES_MIN).is_none(), "too small");
    }

    #[test]
    fn of_equal_ones_the_latest_serves_first() {
        let spares = Spares::new(usize::MAX);
        let bodies = [1, 2, 3].map(|byte| vec![byte; SPARE_BYTES_MIN]);
        let addresses = bodies.each_ref().map(|body| body.as_ptr());
        bodies.into_iter().for_each(|body| drop(spares.share(body)));
        let taken: Vec<_> =
            std::iter::from_fn(|| spares.take(SPARE_BYTES_MIN)).map(|m| m.as_ptr()).collect();
        assert_eq!(taken, [addresses[2], addresses[1], addresses[0]]);
    }

    #[test]
    fn what_lies_unused_goes_and_there_is_never_too_much() {
        let spares = Spares::new(usize::MAX);
        assert_eq!(spares.deadline_ms(), None);
        drop(spares.share(Vec::with_capacity(SPARE_BYTES_MIN)));
        assert_eq!(spares.deadline_ms(), Some(0));
        spares.age(0);
        spares.age(AGE_MS - 1);
        assert_eq!((spares.bytes(), spares.deadline_ms()), (SPARE_BYTES_MIN, Some(AGE_MS)));
        drop(spares.share(Vec::with_capacity(2 * SPARE_BYTES_MIN)));
        spares.age(AGE_MS);
        assert_eq!(spares.bytes(), 2 * SPARE_BYTES_MIN, "the older one is gone");
        spares.age(2 * AGE_MS);
        assert_eq!((spares.bytes(), spares.deadline_ms()), (0, None));
        let bodies: Vec<Bytes> =
            (0..5).map(|_| spares.share(Vec::with_capacity(SPARE_BYTES_MAX / 4))).collect();
        drop(bodies);
        assert!(spares.bytes() <= SPARE_BYTES_MAX);
        drop(spares.share(Vec::with_capacity(SPARE_BYTES_MIN - 1)));
        spares.age(3 * AGE_MS);
        spares.age(4 * AGE_MS);
        assert_eq!(spares.bytes(), 0);
    }
}
