//! Finding jobs: a job number or a unique key in, the job's id out.
//!
//! Every job is in the index of numbers. A job that submissions may join is also in the index of
//! unique keys, under a hash of its function and key, or of its function and payload. The indexes
//! hold hashes and ids only; the keys are compared in the jobs' records.
//!
//! Invariant: a job is in the index of unique keys exactly while `Job::unique_hash` is set.

use super::ids::{FunctionId, JobId};
use std::hash::{BuildHasher, Hasher};
use std::num::NonZero;

use super::function::spread;
use super::job::Job;
use super::{Engine, handle};

/// Unique key that means "the payload is the key".
const UNIQUE_BY_PAYLOAD: &[u8] = b"-";

/// Four jobs in a row have the same home line in the index of numbers; three such rows fill a line.
const HOME_BITS: u32 = 2;

impl Engine {
    /// Stores a new job and adds it to the indexes.
    pub(super) fn insert(&mut self, mut job: Job, unique_hash: Option<NonZero<u32>>) -> JobId {
        self.job_bytes += job.bytes();
        job.unique_hash = unique_hash;
        let number = job.number;
        let id = self.jobs.insert(job);
        let jobs = &self.jobs;
        let number_of = |id: JobId| jobs[id].number;
        self.by_number.insert(number_hash(number), id, |id| number_hash(number_of(id)));
        if let Some(hash) = unique_hash {
            self.enter_unique_index(id, hash);
        }
        id
    }

    fn enter_unique_index(&mut self, id: JobId, hash: NonZero<u32>) {
        let jobs = &self.jobs;
        let hash_of = |id: JobId| jobs[id].unique_hash.map_or(0, unique_spread);
        self.by_unique.insert(unique_spread(hash), id, hash_of);
    }

    /// Has submissions join a job again that has left the index of unique keys, unless there is
    /// another that they join.
    pub(super) fn reenter_unique_index(&mut self, id: JobId) {
        let job = &self.jobs[id];
        if job.unique_hash.is_none()
            && let Some(hash) = self.free_unique_hash(job)
        {
            self.jobs[id].unique_hash = Some(hash);
            self.enter_unique_index(id, hash);
        }
    }

    /// Hash by which submissions find a job; `None` if they join none, or another.
    pub(super) fn free_unique_hash(&self, job: &Job) -> Option<NonZero<u32>> {
        let (function, unique, payload) = (job.function, job.unique(), job.payload());
        let hash = self.unique_hash(function, unique, payload.bytes())?;
        let equal = self.find_equal(function, hash, unique, payload.bytes());
        equal.is_none().then_some(hash)
    }

    /// Gives a job another number.
    pub(super) fn renumber(&mut self, id: JobId, number: u64) {
        let before = std::mem::replace(&mut self.jobs[id].number, number);
        self.by_number.remove(number_hash(before), id);
        let jobs = &self.jobs;
        let number_of = |id: JobId| jobs[id].number;
        self.by_number.insert(number_hash(number), id, |id| number_hash(number_of(id)));
    }

    /// Takes a removed job out of the indexes.
    pub(super) fn leave_indexes(&mut self, id: JobId, job: &Job) {
        if let Some(hash) = job.unique_hash {
            self.by_unique.remove(unique_spread(hash), id);
        }
        self.by_number.remove(number_hash(job.number), id);
    }

    /// Takes a job out of the index of unique keys: no submission joins it any more.
    pub(super) fn leave_unique_index(&mut self, id: JobId) {
        if let Some(hash) = self.jobs[id].unique_hash.take() {
            self.by_unique.remove(unique_spread(hash), id);
        }
    }

    /// The job of this number.
    #[must_use]
    pub fn find(&self, number: u64) -> Option<JobId> {
        self.by_number.find(number_hash(number), |id| self.jobs[id].number == number)
    }

    /// Has the place of a hash in the index of unique keys brought into the cache.
    #[inline]
    pub(super) fn prefetch_unique(&self, hash: NonZero<u32>) {
        self.by_unique.prefetch(unique_spread(hash));
    }

    /// The job with this hash for which `is_it` holds.
    pub(super) fn find_unique(
        &self,
        hash: NonZero<u32>,
        mut is_it: impl FnMut(&Job) -> bool,
    ) -> Option<JobId> {
        self.by_unique.find(unique_spread(hash), |id| {
            let job = &self.jobs[id];
            job.unique_hash == Some(hash) && is_it(job)
        })
    }

    /// The job that a submission joins.
    pub(super) fn find_equal(
        &self,
        function: FunctionId,
        hash: NonZero<u32>,
        unique: &[u8],
        payload: &[u8],
    ) -> Option<JobId> {
        let by_payload = unique == UNIQUE_BY_PAYLOAD;
        self.find_unique(hash, |job| {
            job.function == function
                && job.unique() == unique
                && (!by_payload || job.payload().bytes() == payload)
        })
    }

    /// Hash by which a submission finds an equal job; `None` if it joins none.
    pub(super) fn unique_hash(
        &self,
        function: FunctionId,
        unique: &[u8],
        payload: &[u8],
    ) -> Option<NonZero<u32>> {
        match unique {
            [] => None,
            UNIQUE_BY_PAYLOAD if payload.is_empty() => None,
            UNIQUE_BY_PAYLOAD => Some(self.hash_unique(function, UNIQUE_BY_PAYLOAD, payload)),
            unique => Some(self.hash_unique(function, unique, &[])),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any 32 bits of a hash will do")]
    pub(super) fn hash_unique(
        &self,
        function: FunctionId,
        unique: &[u8],
        payload: &[u8],
    ) -> NonZero<u32> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u32(function.number());
        hasher.write(unique);
        hasher.write(payload);
        NonZero::new(hasher.finish() as u32).unwrap_or(NonZero::<u32>::MAX)
    }
}

/// Hash of a job number. Jobs created one after the other get the same line of the index or
/// neighbouring ones, so that a deep queue, which is filled and drained in that order, reads memory
/// in order. The server chooses the numbers, so clients can't crowd them into one line.
fn number_hash(number: u64) -> u64 {
    let sequence = number >> handle::SLOT_BITS;
    // The index tells the entries of a line apart by the highest byte, in which a sequence has no
    // bits: it is filled with spread ones.
    sequence >> HOME_BITS | spread(sequence) & u64::from(u8::MAX) << (u64::BITS - u8::BITS)
}

fn unique_spread(hash: NonZero<u32>) -> u64 {
    spread(hash.get().into())
}
