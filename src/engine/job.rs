//! The record of a job, and the storage of all records: a job's id in, its record out.
//!
//! Unique key, reducer and payload share one allocation, `Body`: an exact copy for a small job, the
//! allocation that it was received into for a large one. Knows queues and workers only as links and
//! numbers in the record.
//!
//! Invariant: a record never moves. Records are in pages of `PAGE_JOBS`, so that growing copies
//! nothing, and an empty page is freed.

use std::num::NonZero;
use std::ops::{Index, IndexMut};

use bytes::Bytes;
use prefetch_index::prefetch_index;
use slab::Slab;

use super::ids::{AbilityId, AttachmentId, FunctionId, JobId, Now, UNIQUE_BYTES_MAX};
use super::list::{Linked, Links, Stack};
use super::reason::Reason;
use super::record::{Row, Runs};
use super::timer::TimerId;
use crate::wire::{Payload, Priority, SHARED_BYTES_MIN, Submit};

const PAGE_BITS: u32 = 12;
const PAGE_JOBS: usize = 1 << PAGE_BITS;
/// Empty pages that keep their memory, so that a number of jobs that varies around a page's end
/// doesn't allocate and free one repeatedly.
const SPARE_PAGES: usize = 2;

/// What the processor moves between memory and cache at once; most have lines of this size.
const CACHE_LINE_BYTES: usize = 64;

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In its function's queue.
    Queued,
    /// Waiting for its start time, in no queue.
    Delayed,
    /// Waiting to be on disk, in no queue.
    Storing,
    /// Assigned to a worker.
    Running,
    /// Stored and left to the next server, in no queue.
    Kept,
}

/// For whom a job is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// For the clients that wait for its outcome.
    Clients,
    /// The job is run even if no client waits: a background job.
    Always,
    /// It was cancelled while running: its worker's packets are not forwarded.
    Cancelled,
    /// It is another server's: its worker's packets are not forwarded.
    HandedOver,
}

/// Whether a job is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Memory alone has it.
    Memory,
    /// Its insertion was requested and isn't on disk yet, and submissions may wait for it.
    Awaited,
    /// It is in the store, or its insertion was requested and no submission waits for it.
    Stored,
}

/// A job's unique key, reducer and payload in this order, the first two terminated by NUL.
#[derive(Clone, Debug)]
enum Body {
    /// Less than `SHARED_BYTES_MIN`; never shared.
    Small(Box<[u8]>),
    /// Sent without a copy. Boxed to keep the record small, as few bodies are large.
    Large(Box<Bytes>),
}

impl Body {
    fn of(body: Payload<'_>) -> Self {
        if body.bytes().len() < SHARED_BYTES_MIN {
            Self::Small(body.bytes().into())
        } else {
            let owned = body.share().unwrap_or_else(|| Bytes::copy_from_slice(body.bytes()));
            Self::Large(Box::new(owned))
        }
    }

    #[inline]
    fn bytes(&self) -> Payload<'_> {
        match self {
            Self::Small(bytes) => Payload::borrowed(bytes),
            Self::Large(bytes) => Payload::shared(bytes),
        }
    }
}

/// One job.
#[derive(Clone, Debug)]
pub struct Job {
    /// Number in the job's handle; never reused.
    pub number: u64,
    /// Unique key, reducer and payload; see `unique`, `reducer`, `payload`.
    body: Body,
    /// Earliest start in seconds since 1970, the year 2106 at the latest; 0 = at once.
    pub run_at_s: u32,
    /// Milliseconds of the earliest start beyond `run_at_s`.
    run_at_rest_ms: u16,
    /// How the last run ended, if it did without WORK_COMPLETE.
    pub last_reason: Option<Reason>,
    /// Whether the job was run again at once after a worker was lost.
    pub was_lost: bool,
    unique_bytes: u8,
    reducer_bytes: u8,
    payload_at: u16,
    /// Urgency.
    pub priority: Priority,
    /// State.
    pub state: State,
    /// For whom it is run.
    pub demand: Demand,
    /// Whether it is in the store.
    pub storage: Storage,
    /// The high bits of `submitted_ms`.
    submitted_high: u16,
    /// Runs that ended without WORK_COMPLETE, at most `u16::MAX`.
    pub attempts: u16,
    /// Numerator of the worker's last WORK_STATUS.
    pub numerator: u32,
    /// Denominator of the worker's last WORK_STATUS.
    pub denominator: u32,
    /// The low bits of `submitted_ms`.
    submitted_low: u32,
    /// When the job was assigned to its worker, the low bits of `Now::mono_ms`; see `run_ms`.
    started_ms: u32,
    /// Hash in the index of unique keys; `None` if the job isn't in it.
    pub unique_hash: Option<NonZero<u32>>,
    /// Id of the function.
    pub function: FunctionId,
    /// The ability of its worker while the job runs; otherwise see `late`; otherwise `u32::MAX`.
    ability: u32,
    /// Number of the suspension in which it is held, while it is queued; otherwise 0. See
    /// `Queue::held`.
    pub held_in: u32,
    /// Timer of the start (`Delayed`) or of the timeout (`Running`).
    pub timer: Option<TimerId>,
    /// Attachments of clients that wait for the outcome, the latest first.
    pub clients: Stack<AttachmentId>,
    /// Attachments of clients that wait for the job to be on disk, the latest first.
    pub waiting: Stack<AttachmentId>,
    links: Links<JobId>,
}

impl Linked for Job {
    type Id = JobId;
    #[inline]
    fn links(&self, _slot: usize) -> &Links<JobId> {
        &self.links
    }
    #[inline]
    fn links_mut(&mut self, _slot: usize) -> &mut Links<JobId> {
        &mut self.links
    }
}

#[expect(clippy::cast_possible_truncation, reason = "times are kept in 48 and in 32 bits")]
impl Job {
    /// The job of a submission. The lengths of unique key and reducer have been checked.
    #[must_use]
    pub fn new(number: u64, function: FunctionId, submit: &Submit<'_>, now: Now) -> Self {
        let body = Body::of(submit.body.from(usize::from(submit.unique_at)));
        Self {
            unique_bytes: short(submit.unique),
            reducer_bytes: short(submit.reducer),
            payload_at: submit.payload_at - submit.unique_at,
            demand: if submit.background { Demand::Always } else { Demand::Clients },
            ..Self::bare(number, function, submit.priority, body, now.unix_ms)
        }
    }

    /// A job recovered from the store. It counts as submitted now if the store doesn't know when it
    /// was.
    #[must_use]
    pub fn restored(function: FunctionId, row: &Row, now: Now) -> Self {
        let Row { unique, reducer, payload, .. } = row;
        let (unique, reducer) = (cut(unique), cut(reducer));
        let body = Bytes::from([unique, b"\0", reducer, b"\0", &payload[..]].concat());
        let body = Body::of(Payload::shared(&body));
        let submitted_ms = if row.submitted_ms == 0 { now.unix_ms } else { row.submitted_ms };
        let mut job = Self {
            unique_bytes: short(unique),
            reducer_bytes: short(reducer),
            payload_at: u16::from(short(unique)) + u16::from(short(reducer)) + 2,
            last_reason: row.last_reason,
            was_lost: row.was_lost,
            demand: Demand::Always,
            storage: Storage::Stored,
            attempts: u16::try_from(row.attempts).unwrap_or(u16::MAX),
            ..Self::bare(row.number, function, row.priority, body, submitted_ms)
        };
        job.set_run_at_ms(row.run_at_ms);
        job
    }

    fn bare(
        number: u64,
        function: FunctionId,
        priority: Priority,
        body: Body,
        submitted_ms: u64,
    ) -> Self {
        Self {
            number,
            run_at_s: 0,
            run_at_rest_ms: 0,
            last_reason: None,
            was_lost: false,
            body,
            unique_bytes: 0,
            reducer_bytes: 0,
            payload_at: 0,
            priority,
            state: State::Queued,
            demand: Demand::Clients,
            storage: Storage::Memory,
            submitted_high: (submitted_ms >> 32) as u16,
            submitted_low: submitted_ms as u32,
            started_ms: 0,
            attempts: 0,
            numerator: 0,
            denominator: 0,
            unique_hash: None,
            function,
            ability: u32::MAX,
            held_in: 0,
            timer: None,
            clients: Stack::default(),
            waiting: Stack::default(),
            links: Links::LOOSE,
        }
    }

    /// Bytes of a submission that a job must copy: none of a large body that can be shared.
    #[must_use]
    pub fn copied_bytes(submit: &Submit<'_>) -> usize {
        let kept = submit.body.from(usize::from(submit.unique_at));
        let is_shared = kept.bytes().len() >= SHARED_BYTES_MIN && kept.share().is_some();
        if is_shared { 0 } else { kept.bytes().len() }
    }

    /// The ability of the job's worker; the job must be running.
    #[inline]
    #[must_use]
    pub fn ability(&self) -> AbilityId {
        debug_assert_eq!(self.state, State::Running);
        AbilityId::from_number(self.ability)
    }

    /// The job runs by this ability from now on.
    #[inline]
    pub fn run_by(&mut self, ability: AbilityId, now: Now) {
        self.state = State::Running;
        self.ability = ability.number();
        self.started_ms = now.mono_ms as u32;
    }

    /// How long the job's worker has had it, in milliseconds; the job must be running. Wrong beyond
    /// 49 days.
    #[inline]
    #[must_use]
    pub fn run_ms(&self, now: Now) -> u32 {
        debug_assert_eq!(self.state, State::Running);
        (now.mono_ms as u32).wrapping_sub(self.started_ms)
    }

    /// When the job was submitted, in milliseconds since 1970.
    #[inline]
    #[must_use]
    pub fn submitted_ms(&self) -> u64 {
        u64::from(self.submitted_high) << 32 | u64::from(self.submitted_low)
    }

    /// How long the job could have been started, in milliseconds.
    #[inline]
    #[must_use]
    pub fn waited_ms(&self, now: Now) -> u64 {
        // Most jobs have no start time.
        let since_ms = if self.run_at_s == 0 { self.submitted_ms() } else { self.ready_since_ms() };
        now.unix_ms.saturating_sub(since_ms)
    }

    /// Since when the job could have been started, in milliseconds since 1970.
    #[must_use]
    pub fn ready_since_ms(&self) -> u64 {
        self.submitted_ms().max(self.run_at_ms())
    }

    /// Whether the job is in the store, or its insertion was requested.
    #[inline]
    #[must_use]
    pub fn is_stored(&self) -> bool {
        self.storage != Storage::Memory
    }

    /// Whether the job is run without clients that wait for it.
    #[inline]
    #[must_use]
    pub fn is_background(&self) -> bool {
        self.demand == Demand::Always
    }

    /// The job's worker doesn't run it any more. Returns the ability by which it did.
    #[inline]
    pub fn take_ability(&mut self) -> AbilityId {
        let ability = self.ability();
        self.ability = u32::MAX;
        ability
    }

    /// The last attempt timed out: `serial` is the serial number of its ability.
    pub fn set_late(&mut self, serial: u32) {
        debug_assert_ne!(self.state, State::Running);
        self.ability = serial;
    }

    /// Serial number of the ability of the last attempt, if that timed out.
    #[must_use]
    pub fn late(&self) -> Option<u32> {
        (self.state != State::Running && self.ability != u32::MAX).then_some(self.ability)
    }

    /// The unique key; may be empty.
    #[inline]
    #[must_use]
    pub fn unique(&self) -> &[u8] {
        self.body.bytes().bytes().get(..usize::from(self.unique_bytes)).unwrap_or_default()
    }

    /// The function that gathers the results; empty for most jobs.
    #[inline]
    #[must_use]
    pub fn reducer(&self) -> &[u8] {
        // The reducer follows the unique key's NUL.
        let at = usize::from(self.unique_bytes) + 1;
        let body = self.body.bytes().bytes();
        body.get(at..at + usize::from(self.reducer_bytes)).unwrap_or_default()
    }

    /// Input of the worker.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> Payload<'_> {
        self.body.bytes().from(usize::from(self.payload_at))
    }

    /// Has a small body brought into the cache; of a large one, nothing.
    #[inline]
    pub fn prefetch_body(&self) {
        if let Body::Small(bytes) = &self.body {
            prefetch_index(bytes, 0);
            prefetch_index(bytes, CACHE_LINE_BYTES);
        }
    }

    /// The stored form of the job. Shares a large payload's allocation.
    #[must_use]
    pub fn row(&self, function: &[u8]) -> Row {
        let body = match &self.body {
            Body::Small(bytes) => Bytes::copy_from_slice(bytes),
            Body::Large(bytes) => Bytes::clone(bytes),
        };
        let reducer_at = usize::from(self.unique_bytes) + 1;
        let reducer_end = reducer_at + usize::from(self.reducer_bytes);
        Row {
            number: self.number,
            function: Bytes::copy_from_slice(function),
            unique: body.slice(..usize::from(self.unique_bytes)),
            reducer: match self.reducer_bytes {
                0 => Bytes::new(),
                _ => body.slice(reducer_at..reducer_end),
            },
            payload: body.slice(usize::from(self.payload_at)..),
            priority: self.priority,
            run_at_ms: self.run_at_ms(),
            attempts: self.attempts.into(),
            last_reason: self.last_reason,
            was_lost: self.was_lost,
            submitted_ms: self.submitted_ms(),
        }
    }

    /// Earliest start in milliseconds since 1970; 0 = at once.
    #[inline]
    #[must_use]
    pub fn run_at_ms(&self) -> u64 {
        u64::from(self.run_at_s) * 1000 + u64::from(self.run_at_rest_ms)
    }

    /// Sets the earliest start in milliseconds since 1970; 0 = at once.
    pub fn set_run_at_ms(&mut self, run_at_ms: u64) {
        self.run_at_s = start_s(run_at_ms / 1000);
        self.run_at_rest_ms = (run_at_ms % 1000) as u16;
    }

    /// What a store keeps of the job's runs.
    #[must_use]
    pub fn runs(&self) -> Runs {
        Runs {
            attempts: self.attempts.into(),
            run_at_ms: self.run_at_ms(),
            last_reason: self.last_reason,
            was_lost: self.was_lost,
        }
    }

    /// Memory of the job in bytes.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        let beside = match self.body {
            Body::Small(_) => 0,
            Body::Large(_) => size_of::<Bytes>(),
        };
        size_of::<Self>() + beside + self.body.bytes().bytes().len()
    }
}

/// Seconds since 1970 as a record stores them, which ends in 2106.
#[must_use]
pub fn start_s(run_at_s: u64) -> u32 {
    u32::try_from(run_at_s).unwrap_or(u32::MAX)
}

/// Length of a unique key or reducer: at most `UNIQUE_BYTES_MAX`, as submissions are checked and
/// the rows of a store are cut.
fn short(bytes: &[u8]) -> u8 {
    u8::try_from(bytes.len()).unwrap_or(u8::MAX)
}

fn cut(bytes: &[u8]) -> &[u8] {
    bytes.get(..UNIQUE_BYTES_MAX).unwrap_or(bytes)
}

/// All jobs of one core.
#[derive(Clone, Debug, Default)]
pub struct Jobs {
    pages: Vec<Slab<Job>>,
    /// Pages that aren't full, in no order.
    not_full: Vec<u32>,
    len: usize,
}

impl Jobs {
    /// Number of jobs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stores a job.
    #[inline]
    pub fn insert(&mut self, job: Job) -> JobId {
        let page_id = match self.not_full.last() {
            Some(&page_id) => page_id,
            None => self.add_page(),
        };
        let page = &mut self.pages[page_id as usize];
        if page.capacity() == 0 {
            page.reserve_exact(PAGE_JOBS);
        }
        let slot = page.insert(job);
        if page.len() == PAGE_JOBS {
            self.not_full.pop();
        }
        self.len += 1;
        JobId::from_number(page_id << PAGE_BITS | u32::try_from(slot).unwrap_or(0))
    }

    /// Removes a job.
    // Always: of the two callers, one is on the way of every job.
    #[inline(always)]
    pub fn remove(&mut self, id: JobId) -> Job {
        let page_id = id.number() >> PAGE_BITS;
        let page = &mut self.pages[page_id as usize];
        let was_full = page.len() == PAGE_JOBS;
        let job = page.remove(id.index() & (PAGE_JOBS - 1));
        self.len -= 1;
        if page.is_empty() && self.not_full.len() > SPARE_PAGES {
            *page = Slab::new();
        }
        if was_full {
            self.not_full.push(page_id);
        }
        job
    }

    /// All jobs from `id` on, in the order of their ids.
    pub fn iter_from(&self, id: JobId) -> impl Iterator<Item = (JobId, &Job)> {
        let first_page = id.index() >> PAGE_BITS;
        let pages = self.pages.iter().enumerate().skip(first_page);
        let jobs = pages.flat_map(|(page_id, page)| {
            page.iter().map(move |(slot, job)| (page_id << PAGE_BITS | slot, job))
        });
        jobs.map(|(at, job)| (JobId::from_index(at), job)).skip_while(move |&(at, _)| at < id)
    }

    fn add_page(&mut self) -> u32 {
        // 2^32 jobs don't fit in memory: a record alone has over 100 bytes.
        let page_id = u32::try_from(self.pages.len()).unwrap_or(0);
        self.pages.push(Slab::new());
        self.not_full.push(page_id);
        page_id
    }
}

impl Index<JobId> for Jobs {
    type Output = Job;

    #[inline]
    fn index(&self, id: JobId) -> &Job {
        &self.pages[id.index() >> PAGE_BITS][id.index() & (PAGE_JOBS - 1)]
    }
}

impl IndexMut<JobId> for Jobs {
    #[inline]
    fn index_mut(&mut self, id: JobId) -> &mut Job {
        &mut self.pages[id.index() >> PAGE_BITS][id.index() & (PAGE_JOBS - 1)]
    }
}

// With 64 bytes of payload, a unique key and the tables, a queued job takes about 200 bytes.
const _: () = assert!(size_of::<Job>() == 96);
const _: () = assert!(size_of::<Slab<Job>>() == 40 && size_of::<Body>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Command, Header, Magic, Request};

    fn job(number: u64) -> Job {
        let body = b"resize\0key\0payload";
        let header = Header { magic: Magic::Request, command: Command::SubmitJob, body_bytes: 18 };
        let request = Request::parse(header, Payload::borrowed(body));
        let Ok(Request::Submit(submit)) = request else { panic!("{request:?}") };
        Job::new(number, FunctionId::FIRST, &submit, Now::default())
    }

    #[test]
    fn unique_reducer_and_payload_are_found_in_shared_and_in_copied_bodies() {
        let body = Bytes::from_static(b"fold\0key\0sum\0\0payload");
        let command = Command::SubmitReduceJob;
        let header = Header { magic: Magic::Request, command, body_bytes: 21 };
        for payload in [Payload::borrowed(&body), Payload::shared(&body)] {
            let Ok(Request::Submit(submit)) = Request::parse(header, payload) else { panic!() };
            let job = Job::new(1, FunctionId::FIRST, &submit, Now::default());
            assert_eq!(job.unique(), b"key");
            assert_eq!(job.reducer(), b"sum");
            assert_eq!(job.payload().bytes(), b"payload");
        }
    }

    #[test]
    fn pages_without_jobs_give_their_memory_back() {
        let mut jobs = Jobs::default();
        let ids: Vec<JobId> = (0..10 * PAGE_JOBS as u64).map(|n| jobs.insert(job(n))).collect();
        assert_eq!((jobs.len(), jobs.pages.len()), (10 * PAGE_JOBS, 10));
        assert!(jobs.iter_from(JobId::FIRST).map(|(id, _)| id).eq(ids.iter().copied()));
        for &id in &ids[..ids.len() - 1] {
            jobs.remove(id);
        }
        let held: usize = jobs.pages.iter().map(Slab::capacity).sum();
        assert!(held <= (SPARE_PAGES + 2) * PAGE_JOBS, "{held}");
        let last = ids[ids.len() - 1];
        assert!(jobs.iter_from(last).map(|(id, _)| id).eq([last]));
        for number in 0..10 * PAGE_JOBS as u64 {
            jobs.insert(job(number));
        }
        assert_eq!(jobs.pages.len(), 11, "freed pages serve again");
    }
}
