//! Handles over restarts: a store's record in, the prefix and the first number of this run out.
//!
//! A store records a mark: numbers below it may have been used, even if no stored job has them. A
//! server raises the mark by a block before it uses the first number of the block, and the next
//! server starts at the mark, so no number is used twice. Knows no database.
//!
//! Invariant: all handles of a store have one prefix, and no number is used twice.

use crate::engine::handle::{Handles, SEQUENCE_MAX, SLOT_BITS};

use super::StoreError;

/// Number of sequence numbers in a block; a core that has used half of a block requests the next.
///
/// Large enough that the next block is reserved long before this one is used up: half of it lasts
/// for 35 minutes at a million jobs a second on a core, so the store may be down that long before
/// submissions are refused. Small enough for 16 million starts, each of which may leave most of a
/// block unused.
pub const BLOCK: u64 = 1 << 32;

/// A store's record about the handles of its jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Prefix of all handles; `None` before the first server that recorded one.
    pub prefix: Option<Vec<u8>>,
    /// Sequence numbers from here on are unused; `None` as for the prefix.
    pub mark: Option<u64>,
    /// Largest number of a stored job or dead letter.
    pub last: Option<u64>,
}

impl Record {
    /// The first unused sequence number.
    #[must_use]
    pub fn next(&self) -> u64 {
        let behind_last = self.last.map_or(0, |number| (number >> SLOT_BITS) + 1);
        behind_last.max(self.mark.unwrap_or(0))
    }
}

/// The options of a server about handles.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Prefix of handles.
    pub prefix: &'a [u8],
    /// Whether the prefix was given as an option.
    pub is_given: bool,
}

/// Prefix and first number of this run's handles.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Converts numbers to handles with the store's prefix.
    pub handles: Handles,
    /// First sequence number.
    pub first_sequence: u64,
}

impl Wanted<'_> {
    /// Refuses a given prefix that differs from the recorded one.
    ///
    /// # Errors
    /// `StoreError::Unusable` with a sentence that names both.
    pub fn check(&self, record: &Record) -> Result<(), StoreError> {
        match &record.prefix {
            Some(prefix) if self.is_given && prefix != self.prefix => {
                Err(StoreError::Unusable(format!(
                    "handles of the jobs in the store start with \"{}\" and --job-handle-prefix \
                     asks for \"{}\": give the store's, or leave the option out",
                    prefix.escape_ascii(),
                    self.prefix.escape_ascii()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Determines prefix and first number. Numbers start at `first_sequence` at least, which comes
    /// from the clock: a store that was restored from a backup, or that lost commits in a failover,
    /// has an outdated mark.
    ///
    /// # Errors
    /// `StoreError::Unusable` if the record contradicts the options, or is invalid.
    pub fn resolve(&self, record: &Record, first_sequence: u64) -> Result<Namespace, StoreError> {
        self.check(record)?;
        let prefix = record.prefix.as_deref().unwrap_or(self.prefix);
        let handles = Handles::new(prefix).map_err(|error| {
            StoreError::Unusable(format!(
                "the store says that handles start with \"{}\", but {error}: correct handle_prefix \
                 in its table ringgear_owner",
                prefix.escape_ascii()
            ))
        })?;
        let first_sequence = first_sequence.max(record.next());
        if first_sequence > SEQUENCE_MAX - BLOCK {
            return Err(StoreError::Unusable(format!(
                "the store has no job numbers left: its mark is {:?} and the largest number of a \
                 job {:?}; move the jobs to a new store",
                record.mark, record.last
            )));
        }
        Ok(Namespace { handles, first_sequence })
    }
}

/// The mark after one more block.
#[must_use]
pub fn next_mark(mark: u64) -> u64 {
    mark.saturating_add(BLOCK).min(SEQUENCE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::handle::job_number;

    const WANTED: Wanted<'_> = Wanted { prefix: b"H:b", is_given: false };

    fn settle(wanted: Wanted<'_>, record: &Record, first_sequence: u64) -> (String, u64) {
        let namespace = wanted.resolve(record, first_sequence).unwrap();
        let prefix = String::from_utf8(namespace.handles.prefix().to_vec()).unwrap();
        (prefix, namespace.first_sequence)
    }

    #[test]
    fn a_store_without_a_record_takes_the_servers_prefix_and_starts_behind_its_jobs() {
        let record = |last| Record { last, ..Record::default() };
        assert_eq!(settle(WANTED, &record(None), 100), ("H:b".into(), 100));
        assert_eq!(settle(WANTED, &record(Some(job_number(99, 255))), 100), ("H:b".into(), 100));
        assert_eq!(settle(WANTED, &record(Some(job_number(100, 0))), 100), ("H:b".into(), 101));
    }

    #[test]
    fn numbers_start_at_the_mark_unless_the_clock_or_a_job_is_beyond() {
        let record = |mark| Record {
            prefix: Some(b"H:a".to_vec()),
            mark: Some(mark),
            last: Some(job_number(150, 7)),
        };
        assert_eq!(settle(WANTED, &record(7000), 100), ("H:a".into(), 7000));
        assert_eq!(settle(WANTED, &record(7), 100), ("H:a".into(), 151));
        assert_eq!(settle(WANTED, &record(7000), 9000), ("H:a".into(), 9000));
    }

    #[test]
    fn another_prefix_than_the_stores_is_refused_if_it_was_asked_for() {
        let record = Record { prefix: Some(b"H:a".to_vec()), ..Record::default() };
        let given = Wanted { is_given: true, ..WANTED };
        let sentence = given.resolve(&record, 1).unwrap_err().to_string();
        assert!(sentence.contains("\"H:a\"") && sentence.contains("\"H:b\""), "{sentence}");
        let same = Wanted { prefix: b"H:a", ..given };
        assert_eq!(settle(same, &record, 1).0, "H:a");
    }

    #[test]
    fn a_record_that_cant_be_followed_is_refused() {
        let broken = Record { prefix: Some(b"a b".to_vec()), ..Record::default() };
        let refusal = |record: &Record| WANTED.resolve(record, 1).unwrap_err().to_string();
        assert!(refusal(&broken).contains("handle_prefix"));
        for full in [
            Record { last: Some(u64::MAX), ..Record::default() },
            Record { mark: Some(SEQUENCE_MAX), ..Record::default() },
        ] {
            assert!(refusal(&full).contains("no job numbers left"), "{full:?}");
        }
        assert_eq!(next_mark(SEQUENCE_MAX - 1), SEQUENCE_MAX);
    }
}
