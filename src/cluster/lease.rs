//! The lease: how long a partition's owner may go without a beat, and what follows from that.
//!
//! Invariant: an owner suspends itself before any other server may adopt its partition: the time
//! from the sending of its last beat that succeeded until it suspends itself is shorter than the
//! lease, which a watcher counts from a later moment.

use std::time::Duration;

/// How long an owner may go without a beat; the option `--lease`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease(Duration);

/// What `--lease` is by default.
pub const DEFAULT: Duration = Duration::from_secs(6);

impl Default for Lease {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl Lease {
    /// A lease of this length, which must not be zero.
    #[must_use]
    pub fn new(length: Duration) -> Self {
        Self(length)
    }

    /// Its length: a partition is orphaned once its beat has stood still for so long.
    #[must_use]
    pub fn length(self) -> Duration {
        self.0
    }

    /// How long after the sending of its last good beat an owner suspends itself: 2 s before the
    /// end of the lease, and a third of it where it is short.
    #[must_use]
    pub fn suspends_after(self) -> Duration {
        self.0 - Duration::from_secs(2).min(self.0 / 3)
    }

    /// Time between two beats of an idle owner.
    #[must_use]
    pub fn beat_interval(self) -> Duration {
        Duration::from_secs(1).min(self.0 / 6)
    }

    /// Time between two reads of a watcher: half a second, so that what a server offers when it
    /// leaves is served elsewhere within a second.
    #[must_use]
    pub fn read_interval(self) -> Duration {
        Duration::from_millis(500).min(self.0 / 6)
    }

    /// How long a core may take for a turn of its loop while the owner goes on to beat.
    #[must_use]
    pub fn turn_max(self) -> Duration {
        Duration::from_secs(2).min(self.0 / 3)
    }

    /// How long the beat must stand still if the owner's lock was seen to be released.
    #[must_use]
    pub fn after_release(self) -> Duration {
        Duration::from_millis(1500).min(self.0 / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::{DEFAULT, Lease};
    use std::time::Duration;

    #[test]
    fn the_default_is_what_the_documentation_says() {
        let lease = Lease::default();
        assert_eq!(lease.length(), DEFAULT);
        assert_eq!(lease.suspends_after(), Duration::from_secs(4));
        assert_eq!(lease.beat_interval(), Duration::from_secs(1));
        assert_eq!(lease.read_interval(), Duration::from_millis(500));
        assert_eq!(lease.turn_max(), Duration::from_secs(2));
        assert_eq!(lease.after_release(), Duration::from_millis(1500));
    }

    #[test]
    fn an_owner_is_suspended_for_all_of_a_turn_before_its_lease_ends() {
        for ms in [1, 7, 100, 1000, 3000, 6000, 60_000] {
            let lease = Lease::new(Duration::from_millis(ms));
            // A turn that began a moment before may still hand out jobs.
            assert!(lease.suspends_after() + lease.turn_max() <= lease.length(), "{ms} ms");
            // Two beats may fail without a suspension.
            assert!(lease.beat_interval() * 3 < lease.suspends_after(), "{ms} ms");
            assert!(lease.read_interval() * 5 < lease.length(), "{ms} ms");
            assert!(lease.after_release() < lease.length(), "{ms} ms");
        }
    }
}
