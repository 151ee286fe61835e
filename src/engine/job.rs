//! The record of one job and where all of them are kept: a job's number in the store in, the record
//! out.
//!
//! A job's unique, reducer and payload lie in one allocation, `Body`: for a small job a copy made
//! to measure, for a large one the very allocation that it was received into. Knows nothing of
//! queues and workers but the links and numbers it carries for them.
//!
//! Invariant: records never move while they live. They lie in pages of `PAGE_JOBS`, so a growing
//! store never copies itself, and a page without jobs gives its memory back.

use std::num::NonZero;
use std::ops::{Index, IndexMut};

use bytes::Bytes;
use slab::Slab;

use super::ids::UNIQUE_BYTES_MAX;
use super::list::{Linked, Links, Stack};
use super::record::Row;
use super::timer::TimerId;
use crate::wire::{Payload, Priority, SHARED_BYTES_MIN, Submit};

/// Where a job is kept; valid until the job is removed, then reused.
pub type JobId = u32;

const PAGE_BITS: u32 = 12;
const PAGE_JOBS: usize = 1 << PAGE_BITS;
/// Pages that may hold memory without a single job, so that a queue around a page's edge doesn't
/// allocate and free one over and over.
const SPARE_PAGES: usize = 2;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In its function's queue.
    Queued,
    /// Waits for its time, in no queue.
    Delayed,
    /// Waits to be on disk, in no queue.
    Storing,
    /// Assigned to a worker.
    Running,
    /// Left to the next server, in no queue; the store keeps it.
    Kept,
}

/// A job's unique, reducer and payload in a row, the first two ended by a NUL.
#[derive(Clone, Debug)]
enum Body {
    /// Less than `SHARED_BYTES_MIN`: nobody else ever shares it.
    Small(Box<[u8]>),
    /// Leaves the server from where it lies. Boxed, as few are large and all pay for the record.
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
    /// The number in its handle: never given to another job.
    pub number: u64,
    /// Unique, reducer and payload; see `unique`, `reducer`, `payload`.
    body: Body,
    /// Earliest start in seconds since 1970, the year 2106 at the latest; 0 = at once.
    pub run_at_s: u32,
    unique_bytes: u8,
    reducer_bytes: u8,
    payload_at: u16,
    /// Urgency.
    pub priority: Priority,
    /// Where it is in its life.
    pub state: State,
    /// Somebody wants it done, whether or not a client waits for the result.
    pub background: bool,
    /// Cancelled while it ran: what its worker still says goes nowhere.
    pub cancelled: bool,
    /// The store keeps it, or will.
    pub stored: bool,
    /// It isn't on disk yet, and somebody may wait for that.
    pub storing: bool,
    /// Workers that lost it, `u16::MAX` for more.
    pub attempts: u16,
    /// Progress as the worker last told it.
    pub numerator: u32,
    /// Progress as the worker last told it.
    pub denominator: u32,
    /// Hash of its function and unique under which it stands in the index of uniques; `None` if it
    /// doesn't.
    pub unique_hash: Option<NonZero<u32>>,
    /// Number of its function.
    pub function: u32,
    /// While it runs, the ability of its worker by which it does; else see `late`; else `u32::MAX`.
    pub ability: u32,
    /// Timer that starts it (`Delayed`) or takes it from its worker (`Running`).
    pub timer: Option<TimerId>,
    /// Attachments of the clients that wait for it, the latest first.
    pub clients: Stack,
    /// Attachments of the clients that wait for it to be on disk, the latest first.
    pub waiting: Stack,
    links: Links,
}

impl Linked for Job {
    #[inline]
    fn links(&self, _slot: usize) -> &Links {
        &self.links
    }
    #[inline]
    fn links_mut(&mut self, _slot: usize) -> &mut Links {
        &mut self.links
    }
}

impl Job {
    /// A job made of a submission. The lengths of unique and reducer have been checked.
    #[must_use]
    pub fn new(number: u64, function: u32, submit: &Submit<'_>) -> Self {
        let body = Body::of(submit.body.from(usize::from(submit.unique_at)));
        Self {
            unique_bytes: short(submit.unique),
            reducer_bytes: short(submit.reducer),
            payload_at: submit.payload_at - submit.unique_at,
            background: submit.background,
            ..Self::bare(number, function, submit.priority, body)
        }
    }

    /// A job that the store kept.
    #[must_use]
    pub fn restored(function: u32, row: &Row) -> Self {
        let Row { unique, reducer, payload, .. } = row;
        let (unique, reducer) = (cut(unique), cut(reducer));
        let body = [unique, b"\0", reducer, b"\0", &payload[..]].concat().into();
        Self {
            unique_bytes: short(unique),
            reducer_bytes: short(reducer),
            payload_at: u16::from(short(unique)) + u16::from(short(reducer)) + 2,
            run_at_s: start_s(row.run_at_s),
            background: true,
            stored: true,
            attempts: u16::try_from(row.attempts).unwrap_or(u16::MAX),
            ..Self::bare(row.number, function, row.priority, Body::of(Payload::shared(&body)))
        }
    }

    fn bare(number: u64, function: u32, priority: Priority, body: Body) -> Self {
        Self {
            number,
            run_at_s: 0,
            body,
            unique_bytes: 0,
            reducer_bytes: 0,
            payload_at: 0,
            priority,
            state: State::Queued,
            background: false,
            cancelled: false,
            stored: false,
            storing: false,
            attempts: 0,
            numerator: 0,
            denominator: 0,
            unique_hash: None,
            function,
            ability: u32::MAX,
            timer: None,
            clients: Stack::default(),
            waiting: Stack::default(),
            links: Links::LOOSE,
        }
    }

    /// Bytes that a submission takes beside its record: those that must be copied.
    #[must_use]
    pub fn copied_bytes(submit: &Submit<'_>) -> usize {
        let kept = submit.body.from(usize::from(submit.unique_at));
        let is_shared = kept.bytes().len() >= SHARED_BYTES_MIN && kept.share().is_some();
        if is_shared { 0 } else { kept.bytes().len() }
    }

    /// Serial number of the ability by which its last attempt was made, if that has timed out.
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
        // The reducer follows the unique's NUL.
        let at = usize::from(self.unique_bytes) + 1;
        let body = self.body.bytes().bytes();
        body.get(at..at + usize::from(self.reducer_bytes)).unwrap_or_default()
    }

    /// What the worker gets to work on.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> Payload<'_> {
        self.body.bytes().from(usize::from(self.payload_at))
    }

    /// The job as a store keeps it. Shares a large payload's allocation.
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
            run_at_s: self.run_at_s.into(),
            attempts: self.attempts.into(),
        }
    }

    /// When it may start, in milliseconds since 1970; 0 = at once.
    #[inline]
    #[must_use]
    pub fn run_at_ms(&self) -> u64 {
        u64::from(self.run_at_s) * 1000
    }

    /// Memory that the job takes.
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

/// Seconds since 1970, no later than a record can tell.
#[must_use]
pub fn start_s(run_at_s: u64) -> u32 {
    u32::try_from(run_at_s).unwrap_or(u32::MAX)
}

/// The lengths of unique and reducer are checked when they come in, and another program's database
/// is cut to fit: both are at most `UNIQUE_BYTES_MAX`.
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
    /// Pages with room, in no order.
    roomy: Vec<u32>,
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

    /// Keeps a job.
    #[inline]
    pub fn insert(&mut self, job: Job) -> JobId {
        let page_id = match self.roomy.last() {
            Some(&page_id) => page_id,
            None => self.add_page(),
        };
        let page = &mut self.pages[page_id as usize];
        if page.capacity() == 0 {
            page.reserve_exact(PAGE_JOBS);
        }
        let slot = page.insert(job);
        if page.len() == PAGE_JOBS {
            self.roomy.pop();
        }
        self.len += 1;
        page_id << PAGE_BITS | u32::try_from(slot).unwrap_or(0)
    }

    /// Gives a job up.
    #[inline]
    pub fn remove(&mut self, id: JobId) -> Job {
        let page_id = id >> PAGE_BITS;
        let page = &mut self.pages[page_id as usize];
        let was_full = page.len() == PAGE_JOBS;
        let job = page.remove(id as usize & (PAGE_JOBS - 1));
        self.len -= 1;
        if page.is_empty() && self.roomy.len() > SPARE_PAGES {
            *page = Slab::new();
        }
        if was_full {
            self.roomy.push(page_id);
        }
        job
    }

    /// The jobs in the order in which they are kept, from `id` on; with the number behind each.
    pub fn iter_from(&self, id: JobId) -> impl Iterator<Item = (JobId, &Job)> {
        let first_page = (id >> PAGE_BITS) as usize;
        let pages = self.pages.iter().enumerate().skip(first_page);
        let jobs = pages.flat_map(|(page_id, page)| {
            page.iter().map(move |(slot, job)| (page_id << PAGE_BITS | slot, job))
        });
        jobs.filter_map(move |(at, job)| Some((JobId::try_from(at).ok()?, job)))
            .skip_while(move |&(at, _)| at < id)
    }

    fn add_page(&mut self) -> u32 {
        // 2^32 jobs don't fit in memory: a record alone has over 100 bytes.
        let page_id = u32::try_from(self.pages.len()).unwrap_or(0);
        self.pages.push(Slab::new());
        self.roomy.push(page_id);
        page_id
    }
}

impl Index<usize> for Jobs {
    type Output = Job;

    #[inline]
    fn index(&self, id: usize) -> &Job {
        &self.pages[id >> PAGE_BITS][id & (PAGE_JOBS - 1)]
    }
}

impl IndexMut<usize> for Jobs {
    #[inline]
    fn index_mut(&mut self, id: usize) -> &mut Job {
        &mut self.pages[id >> PAGE_BITS][id & (PAGE_JOBS - 1)]
    }
}

// With 64 bytes of payload, a unique key and the tables, a queued job takes about 200 bytes.
const _: () = assert!(size_of::<Job>() == 80);
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
        Job::new(number, 0, &submit)
    }

    #[test]
    fn unique_reducer_and_payload_are_found_in_shared_and_in_copied_bodies() {
        let body = Bytes::from_static(b"fold\0key\0sum\0\0payload");
        let command = Command::SubmitReduceJob;
        let header = Header { magic: Magic::Request, command, body_bytes: 21 };
        for payload in [Payload::borrowed(&body), Payload::shared(&body)] {
            let Ok(Request::Submit(submit)) = Request::parse(header, payload) else { panic!() };
            let job = Job::new(1, 0, &submit);
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
        assert!(jobs.iter_from(0).map(|(id, _)| id).eq(ids.iter().copied()));
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
