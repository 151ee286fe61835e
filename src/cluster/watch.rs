//! Finds partitions whose owner is gone: reads of the database in, orphans out.
//!
//! Sans-IO: the caller reads once every `Lease::read_interval` and says when. No clock of another
//! host is ever compared.
//!
//! Invariant: a partition is an orphan only if its generation and beat were the same in every read
//! of one unbroken session, over the lease at least, and in five reads at least. The lock that its
//! owner holds only shortens that, and only if it was seen held and then free in this session.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lease::Lease;
use super::partition::{HintLock, PartitionId, Reading, Seen, State};

/// Reads in which a beat must stand still, so that a watcher which was stopped itself, or whose
/// reads were held up, is not the first to notice.
const READS_MIN: u32 = 5;
/// The same once the owner's lock was seen to be released.
const READS_AFTER_RELEASE_MIN: u32 = 3;
/// How much later a server adopts an orphan for each living server that has fewer jobs.
const RANK_DELAY: Duration = Duration::from_millis(200);

/// Watches the partitions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Watch {
    lease: Lease,
    /// Number of the session of the last read, if that succeeded.
    session: Option<u64>,
    /// The partitions of the last read that succeeded.
    watched: BTreeMap<PartitionId, Watched>,
}

/// What the reads have shown of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Watched {
    seen: Seen,
    state: State,
    /// When its beat was seen to change, over all sessions.
    beat_at: Duration,
    /// Since when nothing has changed; `None` if no read of this session has shown it.
    still: Option<Stillness>,
    /// Its owner's lock in this session.
    lock: Lock,
}

/// Reads of one session in which a partition was the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Stillness {
    /// When the first of them was answered, which is after what they show was written.
    first: Duration,
    /// When the last of them was answered.
    last: Duration,
    /// Their number.
    reads: u32,
}

impl Stillness {
    fn new(at: Duration) -> Self {
        Self { first: at, last: at, reads: 1 }
    }

    fn extend(self, at: Duration) -> Self {
        Self { last: at, reads: self.reads + 1, ..self }
    }

    /// Whether it has lasted long enough at `at`.
    fn has_lasted(self, length: Duration, reads: u32, delay: Duration, at: Duration) -> bool {
        // The last read counts, so that the caller's own pauses prove nothing.
        let seen = self.last.saturating_sub(self.first);
        let passed = at.saturating_sub(self.first);
        self.reads >= reads && seen >= length && passed >= length + delay
    }
}

/// The lock of a partition's owner, as the reads of a session have shown it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Lock {
    /// It was not seen held, so that it proves nothing.
    #[default]
    Unseen,
    Held,
    /// It was held before; nothing has changed in these reads in which it was free.
    Released(Stillness),
}

impl Lock {
    /// What a further read makes of it. `has_changed` = the owner has written since the last one.
    fn next(self, lock: HintLock, has_changed: bool, at: Duration) -> Self {
        match (lock, self) {
            (HintLock::Held, _) => Self::Held,
            // The last commit before the owner's end may be seen together with the release of its
            // lock.
            (HintLock::Free, Self::Held) => Self::Released(Stillness::new(at)),
            (HintLock::Free, Self::Released(still)) if !has_changed => {
                Self::Released(still.extend(at))
            }
            // An owner that writes without its lock is alive: the lock tells nothing of it.
            (HintLock::Free, Self::Released(_) | Self::Unseen) | (HintLock::Unknown, _) => {
                Self::Unseen
            }
        }
    }
}

impl Watched {
    fn new(reading: &Reading, at: Duration) -> Self {
        Self {
            seen: reading.partition.seen(),
            state: reading.partition.state,
            beat_at: at,
            still: Some(Stillness::new(at)),
            lock: Lock::default().next(reading.lock, false, at),
        }
    }

    fn next(self, reading: &Reading, at: Duration) -> Self {
        let (seen, state) = (reading.partition.seen(), reading.partition.state);
        let is_same = (seen, state) == (self.seen, self.state);
        // Another owner, or the same one in another session, has another lock.
        let lock = if seen.generation == self.seen.generation { self.lock } else { Lock::Unseen };
        Self {
            seen,
            state,
            beat_at: if seen == self.seen { self.beat_at } else { at },
            still: Some(match self.still {
                Some(still) if is_same => still.extend(at),
                _ => Stillness::new(at),
            }),
            lock: lock.next(reading.lock, !is_same, at),
        }
    }

    /// Forgets what the reads of a session have shown.
    fn begin_anew(&mut self) {
        (self.still, self.lock) = (None, Lock::Unseen);
    }

    fn may_be_adopted(&self, lease: Lease, delay: Duration, at: Duration) -> bool {
        let Some(still) = self.still else { return false };
        match self.state {
            State::Free => false,
            State::Offered => true,
            State::Owned => {
                still.has_lasted(lease.length(), READS_MIN, delay, at)
                    || matches!(self.lock, Lock::Released(still) if still.has_lasted(
                        lease.after_release(), READS_AFTER_RELEASE_MIN, delay, at,
                    ))
            }
        }
    }
}

impl Watch {
    /// Has seen nothing yet.
    #[must_use]
    pub fn new(lease: Lease) -> Self {
        Self { lease, session: None, watched: BTreeMap::new() }
    }

    /// Notes a read that was answered at `at` (monotonic) in session number `session`.
    pub fn read(&mut self, at: Duration, session: u64, readings: &[Reading]) {
        if self.session != Some(session) {
            self.failed();
            self.session = Some(session);
        }
        let earlier = std::mem::take(&mut self.watched);
        self.watched.extend(readings.iter().map(|reading| {
            let id = reading.partition.id;
            let watched = match earlier.get(&id) {
                Some(watched) => watched.next(reading, at),
                None => Watched::new(reading, at),
            };
            (id, watched)
        }));
    }

    /// A read has failed: all watching begins anew.
    pub fn failed(&mut self) {
        self.session = None;
        self.watched.values_mut().for_each(Watched::begin_anew);
    }

    /// The partitions that may be adopted at `at`: offered ones at once, orphaned ones once `rank`
    /// (number of living servers with fewer jobs than this one) times 200 ms have passed. A
    /// server's own partitions are not told apart.
    #[must_use]
    pub fn orphans(&self, at: Duration, rank: u32) -> Vec<Seen> {
        let delay = RANK_DELAY * rank;
        let watched = self.watched.values();
        watched.filter(|it| it.may_be_adopted(self.lease, delay, at)).map(|it| it.seen).collect()
    }

    /// When the beat of a partition was last seen to change.
    #[must_use]
    pub fn beat_at(&self, id: PartitionId) -> Option<Duration> {
        self.watched.get(&id).map(|watched| watched.beat_at)
    }
}

#[cfg(test)]
mod tests;
