//! A pool of large buffers: the memory of dropped bodies in, buffers for the next bodies out.
//!
//! Fresh pages cost the kernel more than the bytes that are copied into them (a page fault and a
//! cleared page for each 4 KiB), so the memory of a large body is kept for a moment after its last
//! share is dropped. The cores share one pool, as any core may drop the last share; a core that
//! drops one is awake and calls `age` later. Knows no packets.
//!
//! Invariant: the pool holds at most `POOL_BYTES_MAX`, and no buffer for longer than two rounds of
//! `age`.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Smallest body whose memory returns to the pool.
pub const POOLED_BYTES_MIN: usize = 64 << 10;
/// Largest size of a pool.
pub const POOL_BYTES_MAX: usize = 256 << 20;
/// The pool holds at most this part of `--memory-max`, in addition to what bodies take.
const POOL_SHARE: usize = 8;
/// Length of a round, after which unused buffers are freed.
const AGE_MS: u64 = 1000;
/// Largest ratio of a buffer's capacity to the body that it is used for.
const WASTE_FACTOR_MAX: usize = 4;

/// Buffers for the next large bodies. Clones share one pool.
#[derive(Clone, Debug)]
pub struct BufferPool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Largest sum of capacities.
    bytes_max: usize,
    /// The lock is taken for large bodies only.
    free: Mutex<Free>,
    /// Sum of capacities, to be read without the lock.
    bytes: AtomicUsize,
    /// When the current round ends, in milliseconds of `Now::mono_ms`.
    round_ms: AtomicU64,
}

/// Buffers by capacity and age, each with whether it was there at the end of the last round. Of
/// equal capacities the latest is taken first: in rotation all of them would stay in use, even if a
/// few are enough.
#[derive(Debug, Default)]
struct Free {
    by_capacity: BTreeMap<(usize, Reverse<u64>), (Vec<u8>, bool)>,
    /// Buffers returned so far.
    count: u64,
}

/// A body whose memory returns to the pool.
struct PooledBody {
    body: Vec<u8>,
    pool: BufferPool,
}

impl AsRef<[u8]> for PooledBody {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for PooledBody {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.body));
    }
}

impl BufferPool {
    /// An empty pool for a server that may use `memory_bytes_max` bytes.
    #[must_use]
    pub fn new(memory_bytes_max: usize) -> Self {
        Self(Arc::new(Shared {
            bytes_max: (memory_bytes_max / POOL_SHARE).min(POOL_BYTES_MAX),
            free: Mutex::default(),
            bytes: AtomicUsize::new(0),
            round_ms: AtomicU64::new(0),
        }))
    }

    /// An empty buffer for a body of `bytes` bytes, if the pool has a suitable one.
    #[must_use]
    pub fn take(&self, bytes: usize) -> Option<Vec<u8>> {
        if bytes < POOLED_BYTES_MIN || self.bytes() < bytes {
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

    /// Makes a body shareable; its memory returns to the pool when the last share is dropped.
    #[must_use]
    pub fn share(&self, body: Vec<u8>) -> Bytes {
        if body.capacity() < POOLED_BYTES_MIN {
            return Bytes::from(body);
        }
        Bytes::from_owner(PooledBody { body, pool: self.clone() })
    }

    /// When to call `age` next, in milliseconds of `Now::mono_ms`; `None` while the pool is empty.
    #[inline]
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        (self.bytes() > 0).then(|| self.0.round_ms.load(Ordering::Relaxed))
    }

    /// Ends the round if it is over, and frees the buffers that stayed in the pool throughout it.
    pub fn age(&self, mono_ms: u64) {
        let is_due = || self.deadline_ms().is_some_and(|round_ms| round_ms <= mono_ms);
        if !is_due() {
            return;
        }
        let mut free = self.free();
        // Another core may have ended the round: ending a second one at once would free everything.
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
        let pool = BufferPool::new(usize::MAX);
        let body = vec![b'x'; POOLED_BYTES_MIN];
        let at = body.as_ptr();
        let shared = pool.share(body);
        let part = shared.slice(10..);
        drop(shared);
        assert!(pool.take(POOLED_BYTES_MIN).is_none(), "a share is left");
        drop(part);
        let memory = pool.take(POOLED_BYTES_MIN).unwrap();
        assert_eq!((memory.as_ptr(), memory.len()), (at, 0));
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn the_smallest_that_fits_is_taken_and_none_that_is_far_too_large() {
        let pool = BufferPool::new(usize::MAX);
        for factor in [8, 2, 1] {
            drop(pool.share(Vec::with_capacity(factor * POOLED_BYTES_MIN)));
        }
        let taken: Vec<usize> =
            std::iter::from_fn(|| pool.take(POOLED_BYTES_MIN)).map(|m| m.capacity()).collect();
        assert_eq!(taken, [POOLED_BYTES_MIN, 2 * POOLED_BYTES_MIN]);
        assert!(pool.take(9 * POOLED_BYTES_MIN).is_none(), "too small");
    }

    #[test]
    fn of_equal_ones_the_latest_serves_first() {
        let pool = BufferPool::new(usize::MAX);
        let bodies = [1, 2, 3].map(|byte| vec![byte; POOLED_BYTES_MIN]);
        let addresses = bodies.each_ref().map(|body| body.as_ptr());
        bodies.into_iter().for_each(|body| drop(pool.share(body)));
        let taken: Vec<_> =
            std::iter::from_fn(|| pool.take(POOLED_BYTES_MIN)).map(|m| m.as_ptr()).collect();
        assert_eq!(taken, [addresses[2], addresses[1], addresses[0]]);
    }

    #[test]
    fn what_lies_unused_goes_and_there_is_never_too_much() {
        let pool = BufferPool::new(usize::MAX);
        assert_eq!(pool.deadline_ms(), None);
        drop(pool.share(Vec::with_capacity(POOLED_BYTES_MIN)));
        assert_eq!(pool.deadline_ms(), Some(0));
        pool.age(0);
        pool.age(AGE_MS - 1);
        assert_eq!((pool.bytes(), pool.deadline_ms()), (POOLED_BYTES_MIN, Some(AGE_MS)));
        drop(pool.share(Vec::with_capacity(2 * POOLED_BYTES_MIN)));
        pool.age(AGE_MS);
        assert_eq!(pool.bytes(), 2 * POOLED_BYTES_MIN, "the older one is gone");
        pool.age(2 * AGE_MS);
        assert_eq!((pool.bytes(), pool.deadline_ms()), (0, None));
        let bodies: Vec<Bytes> =
            (0..5).map(|_| pool.share(Vec::with_capacity(POOL_BYTES_MAX / 4))).collect();
        drop(bodies);
        assert!(pool.bytes() <= POOL_BYTES_MAX);
        drop(pool.share(Vec::with_capacity(POOLED_BYTES_MIN - 1)));
        pool.age(3 * AGE_MS);
        pool.age(4 * AGE_MS);
        assert_eq!(pool.bytes(), 0);
    }
}
