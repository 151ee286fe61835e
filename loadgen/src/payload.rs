//! Payloads and results that prove which job they belong to and that no byte of them changed.
//!
//! In: a stamp (job, client, slot) and a size. Out: bytes; and back. A stamp opens every payload
//! and every result, with a sum over itself, the seed and the kind; the rest is a stretch of a pool
//! of random bytes that the job's number chooses. Knows no packets. Invariant: a result never
//! equals its payload, nor another job's result, nor one of another run.

use std::ops::Range;

/// Bytes of the stamp that opens every payload.
pub const STAMP_BYTES: usize = 32;

/// A power of two, and small enough to stay in the cache.
const POOL_BYTES: usize = 64 << 10;

/// Which way the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From client to worker.
    Job = 1,
    /// From worker to client.
    Result = 2,
}

/// Names one job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The job, unique in the run.
    pub id: u64,
    /// The client that submitted it.
    pub client: u32,
    /// Where that client keeps it.
    pub slot: u32,
}

/// Writes and reads payloads.
#[derive(Debug)]
pub struct Pool {
    /// Differs from run to run: jobs that an earlier run left in the queue are not taken for ours.
    seed: u64,
    bytes: Vec<u8>,
}

impl Pool {
    /// The pool of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut bytes = vec![0; POOL_BYTES];
        fastrand::Rng::with_seed(seed ^ 0x706f_6f6c).fill(&mut bytes);
        Self { seed, bytes }
    }

    /// Appends `bytes` bytes (at least a stamp's) to `out`.
    pub fn write(&self, out: &mut Vec<u8>, kind: Kind, stamp: Stamp, bytes: usize) {
        debug_assert!(bytes >= STAMP_BYTES);
        let Stamp { id, client, slot } = stamp;
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&client.to_le_bytes());
        out.extend_from_slice(&slot.to_le_bytes());
        out.extend_from_slice(&(bytes as u64).to_le_bytes());
        out.extend_from_slice(&self.sum(kind, stamp, bytes).to_le_bytes());
        for stretch in self.stretches(kind, id, bytes - STAMP_BYTES) {
            out.extend_from_slice(self.bytes.get(stretch).unwrap_or_default());
        }
    }

    /// The stamp of a payload, if every byte of it is as `write` wrote it.
    #[must_use]
    pub fn read(&self, kind: Kind, payload: &[u8]) -> Option<Stamp> {
        let (id, rest) = payload.split_first_chunk()?;
        let (client, rest) = rest.split_first_chunk()?;
        let (slot, rest) = rest.split_first_chunk()?;
        let (bytes, rest) = rest.split_first_chunk()?;
        let (sum, body) = rest.split_first_chunk()?;
        let stamp = Stamp {
            id: u64::from_le_bytes(*id),
            client: u32::from_le_bytes(*client),
            slot: u32::from_le_bytes(*slot),
        };
        let whole = u64::from_le_bytes(*bytes) == payload.len() as u64
            && u64::from_le_bytes(*sum) == self.sum(kind, stamp, payload.len())
            && self.matches(kind, stamp.id, body);
        whole.then_some(stamp)
    }

    fn matches(&self, kind: Kind, id: u64, body: &[u8]) -> bool {
        let mut rest = body;
        self.stretches(kind, id, body.len()).all(|stretch| {
            let Some((part, behind)) = rest.split_at_checked(stretch.len()) else { return false };
            rest = behind;
            Some(part) == self.bytes.get(stretch)
        })
    }

    /// The parts of the pool that make up a body.
    fn stretches(&self, kind: Kind, id: u64, bytes: usize) -> impl Iterator<Item = Range<usize>> {
        let start = self.mix(id ^ kind as u64) & (POOL_BYTES as u64 - 1);
        let mut at = usize::try_from(start).unwrap_or_default();
        let mut left = bytes;
        std::iter::from_fn(move || {
            let length = left.min(POOL_BYTES - at);
            let stretch = at..at + length;
            left -= length;
            at = 0;
            (length > 0).then_some(stretch)
        })
    }

    fn sum(&self, kind: Kind, stamp: Stamp, bytes: usize) -> u64 {
        let place = u64::from(stamp.client) << 32 | u64::from(stamp.slot);
        self.mix(self.mix(self.mix(stamp.id) ^ place) ^ (bytes as u64) << 2 ^ kind as u64)
    }

    /// The finisher of splitmix64, keyed with the seed.
    fn mix(&self, value: u64) -> u64 {
        let mut z = value ^ self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { id: 77, client: 3, slot: 1 };

    fn written(pool: &Pool, kind: Kind, stamp: Stamp, bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        pool.write(&mut out, kind, stamp, bytes);
        out
    }

    #[test]
    fn what_is_written_is_read_at_every_size() {
        let pool = Pool::new(1);
        for bytes in [STAMP_BYTES, STAMP_BYTES + 1, 64, 1000, POOL_BYTES, 3 * POOL_BYTES + 17] {
            let payload = written(&pool, Kind::Job, STAMP, bytes);
            assert_eq!(payload.len(), bytes);
            assert_eq!(pool.read(Kind::Job, &payload), Some(STAMP));
            assert_eq!(pool.read(Kind::Result, &payload), None);
        }
    }

    #[test]
    fn a_change_of_any_byte_is_noticed() {
        let pool = Pool::new(1);
        let payload = written(&pool, Kind::Result, STAMP, 200);
        for at in 0..payload.len() {
            let mut changed = payload.clone();
            changed[at] ^= 1;
            assert_eq!(pool.read(Kind::Result, &changed), None, "{at}");
            assert_eq!(pool.read(Kind::Result, &payload[..at]), None, "{at}");
        }
    }

    #[test]
    fn another_runs_payload_is_not_ours() {
        let payload = written(&Pool::new(1), Kind::Job, STAMP, 64);
        assert_eq!(Pool::new(2).read(Kind::Job, &payload), None);
    }
}
