//! What must hold of a run: every job answered once, with its own result, and run by a worker.
//!
//! In: job numbers as they are accepted, run and given up, from any thread. Out: counts of
//! faults. Three bits a job, set without locks, in segments that appear as numbers reach them.
//! Knows neither packets nor time. Invariant: a job's number is `thread << 40 | serial`, so every
//! thread numbers its own jobs; jobs with a shared key have no bits, as they may run many times.

use std::ops::AddAssign;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Set in the number of a job that shares its key with others.
pub const KEYED: u64 = 1 << 63;

const SERIAL_BITS: u32 = 40;
const SEGMENT_BITS: u64 = 1 << 20;
/// 4 G jobs per thread are followed; those beyond are still matched with their answers.
const SEGMENTS: usize = 1 << 12;

/// The number of a thread's job.
#[must_use]
pub fn number(thread: usize, serial: u64) -> u64 {
    (thread as u64) << SERIAL_BITS | serial
}

/// Answers that a server must not give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Jobs that were never answered, or accepted and never run.
    pub lost: u64,
    /// Answers or runs beyond a job's first.
    pub duplicated: u64,
    /// Answers with another job's bytes or changed ones, or to nothing that was asked.
    pub foreign: u64,
    /// ERROR, WORK_FAIL and WORK_EXCEPTION packets, and connections that the server closed.
    pub failed: u64,
}

impl Faults {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.lost + self.duplicated + self.foreign + self.failed
    }
}

impl AddAssign for Faults {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.foreign += other.foreign;
        self.failed += other.failed;
    }
}

#[derive(Debug)]
struct Bits {
    segments: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Bits {
    fn new() -> Self {
        Self { segments: (0..SEGMENTS).map(|_| OnceLock::new()).collect() }
    }

    fn word(&self, serial: u64) -> Option<(&AtomicU64, u64)> {
        let segment = self.segments.get(usize::try_from(serial / SEGMENT_BITS).ok()?)?;
        let words = segment.get_or_init(|| (0..SEGMENT_BITS / 64).map(|_| 0.into()).collect());
        let word = words.get(usize::try_from(serial % SEGMENT_BITS / 64).ok()?)?;
        Some((word, 1 << (serial % 64)))
    }

    /// Sets a bit; whether it was set before.
    fn set(&self, serial: u64) -> bool {
        let Some((word, bit)) = self.word(serial) else { return false };
        word.fetch_or(bit, Ordering::Relaxed) & bit != 0
    }

    /// Clears a bit; whether it was set before.
    fn clear(&self, serial: u64) -> bool {
        let Some((word, bit)) = self.word(serial) else { return false };
        word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    /// How many bits are set here and not in `other`.
    fn without(&self, other: &Self) -> u64 {
        let zero = AtomicU64::new(0);
        let mut count = 0;
        for (mine, theirs) in self.segments.iter().zip(&other.segments) {
            let Some(words) = mine.get() else { continue };
            for (index, word) in words.iter().enumerate() {
                let other = theirs.get().and_then(|words| words.get(index)).unwrap_or(&zero);
                let left = word.load(Ordering::Relaxed) & !other.load(Ordering::Relaxed);
                count += u64::from(left.count_ones());
            }
        }
        count
    }
}

#[derive(Debug)]
struct Book {
    accepted: Bits,
    ran: Bits,
    given_up: Bits,
}

/// The books of a run, one per submitting thread, written by all.
#[derive(Debug)]
pub struct Ledger {
    books: Vec<Book>,
}

/// What a worker's answer means for the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// As it should be.
    First,
    /// The job has been answered by a worker before.
    Again,
    /// Not followed: it shares its key with others.
    Keyed,
    /// No thread of this run has that number.
    Unknown,
}

impl Ledger {
    /// Empty books for so many threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let book = |_| Book { accepted: Bits::new(), ran: Bits::new(), given_up: Bits::new() };
        Self { books: (0..threads).map(book).collect() }
    }

    fn book(&self, id: u64) -> Option<(&Book, u64)> {
        let thread = usize::try_from(id >> SERIAL_BITS).ok()?;
        Some((self.books.get(thread)?, id & ((1 << SERIAL_BITS) - 1)))
    }

    /// The server took a background job: it must run. Whether it is followed.
    pub fn accept(&self, id: u64) -> bool {
        let book = self.book(id);
        if let Some((book, serial)) = book {
            book.accepted.set(serial);
        }
        book.is_some()
    }

    /// A worker answers a job.
    pub fn run(&self, id: u64) -> Ran {
        if id & KEYED != 0 {
            return Ran::Keyed;
        }
        match self.book(id) {
            Some((book, serial)) if book.ran.set(serial) => Ran::Again,
            Some(_) => Ran::First,
            None => Ran::Unknown,
        }
    }

    /// A worker leaves a job unanswered.
    pub fn give_up(&self, id: u64) {
        if let Some((book, serial)) = self.book(id) {
            book.given_up.set(serial);
        }
    }

    /// A job is assigned: whether a worker had given it up before.
    pub fn is_rerun(&self, id: u64) -> bool {
        self.book(id).is_some_and(|(book, serial)| book.given_up.clear(serial))
    }

    /// Background jobs that were accepted and never run.
    #[must_use]
    pub fn accepted_not_run(&self) -> u64 {
        self.books.iter().map(|book| book.accepted.without(&book.ran)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_jobs_that_did_not_run_are_counted() {
        let ledger = Ledger::new(2);
        for serial in [0, 1, 63, 64, SEGMENT_BITS, 5 * SEGMENT_BITS + 3] {
            assert!(ledger.accept(number(1, serial)));
        }
        assert_eq!(ledger.accepted_not_run(), 6);
        assert_eq!(ledger.run(number(1, 63)), Ran::First);
        assert_eq!(ledger.run(number(1, SEGMENT_BITS)), Ran::First);
        assert_eq!(ledger.run(number(0, 64)), Ran::First);
        assert_eq!(ledger.accepted_not_run(), 4);
    }

    #[test]
    fn a_second_run_is_noticed_and_a_strange_number_too() {
        let ledger = Ledger::new(1);
        assert_eq!(ledger.run(number(0, 9)), Ran::First);
        assert_eq!(ledger.run(number(0, 9)), Ran::Again);
        assert_eq!(ledger.run(number(1, 9)), Ran::Unknown);
        assert_eq!(ledger.run(KEYED | 9), Ran::Keyed);
        assert_eq!(ledger.run(KEYED | 9), Ran::Keyed);
    }

    #[test]
    fn a_rerun_is_one_per_time_a_worker_gave_up() {
        let ledger = Ledger::new(1);
        assert!(!ledger.is_rerun(5));
        ledger.give_up(5);
        assert!(ledger.is_rerun(5));
        assert!(!ledger.is_rerun(5));
    }
}
