//! What a store has on record about handles in, the prefix and the first number of this run out.
//!
//! A store keeps a mark: numbers below it may have been given to jobs, of which it need not know
//! any more. A server moves the mark by a block before it gives the first number of the block out,
//! so the next server, which starts at the mark, gives no number out again. Knows no database.
//!
//! Invariant: all handles of a store start with one prefix, and no number comes twice.

use crate::engine::handle::{Handles, SEQUENCE_MAX, SLOT_BITS};

use super::StoreError;

/// Sequence numbers that a server reserves at once; a core that has used half of them asks for the
/// next block.
///
/// Large, so that the next block is there long before this one ends: half of it lasts a core for 35
/// minutes at a million jobs a second, which is what the store may be down for before submissions
/// are refused. Small enough for 16 million starts, each of which may leave most of a block unused.
pub const BLOCK: u64 = 1 << 32;

/// What a store has on record about the handles of its jobs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What they start with; `None` in a store that no server of this version has had yet.
    pub prefix: Option<Vec<u8>>,
    /// Sequence numbers from here on are free; `None` likewise.
    pub mark: Option<u64>,
    /// The largest number of a job that is kept.
    pub last: Option<u64>,
}

impl Record {
    /// The first sequence number that no job has been given yet.
    #[must_use]
    pub fn next(&self) -> u64 {
        let behind_last = self.last.map_or(0, |number| (number >> SLOT_BITS) + 1);
        behind_last.max(self.mark.unwrap_or(0))
    }
}

/// What a server would do without a record.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What handles start with.
    pub prefix: &'a [u8],
    /// Whether the user asked for that prefix.
    pub is_given: bool,
}

/// What the handles of this run are made of.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// With the store's prefix.
    pub handles: Handles,
    /// Where numbers start.
    pub first_sequence: u64,
}

impl Wanted<'_> {
    /// Refuses a prefix that the user gave beside another one on record.
    ///
    /// # Errors
    /// `StoreError::Unusable`: a sentence that names both.
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

    /// Decides on the prefix and where numbers start: not below `first_sequence`, which comes from
    /// the clock, for a store that was set back, to a backup or by a failover that lost commits,
    /// has lost the latest mark.
    ///
    /// # Errors
    /// `StoreError::Unusable`: the record contradicts the user, or can't be followed.
    pub fn settle(&self, record: &Record, first_sequence: u64) -> Result<Namespace, StoreError> {
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

/// Where the mark goes from here.
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
        let namespace = wanted.settle(record, first_sequence).unwrap();
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
        let sentence = given.settle(&record, 1).unwrap_err().to_string();
        assert!(sentence.contains("\"H:a\"") && sentence.contains("\"H:b\""), "{sentence}");
        let same = Wanted { prefix: b"H:a", ..given };
        assert_eq!(settle(same, &record, 1).0, "H:a");
    }

    #[test]
    fn a_record_that_cant_be_followed_is_refused() {
        let broken = Record { prefix: Some(b"a b".to_vec()), ..Record::default() };
        let refusal = |record: &Record| WANTED.settle(record, 1).unwrap_err().to_string();
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
