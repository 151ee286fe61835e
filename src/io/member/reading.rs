//! A partition as this server finds it in a read, and the server's rank among the living.
//!
//! Readings in, rows of the view and a number out.
//!
//! Invariant: an owner counts as living as long as it may hand out jobs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cluster::lease::Lease;
use crate::cluster::partition::{Partition, State};
use crate::cluster::view::Known;

/// A partition in a read.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) partition: Partition,
    /// Whether this process owns it.
    pub(super) is_own: bool,
    /// When its beat was seen to change, since the start of the thread.
    pub(super) beat_at: Duration,
}

impl Standing {
    /// The row of the view, for a thread that began at `began`.
    pub(super) fn known(&self, began: Instant) -> Known {
        let Self { partition, is_own, beat_at } = self;
        Known { partition: partition.clone(), is_own: *is_own, beat_at: began + *beat_at }
    }
}

/// Number of living owners that have fewer jobs than this server.
pub(super) fn own_rank(standings: &[Standing], lease: Lease, at: Duration) -> u32 {
    let jobs = |it: &&Standing| it.partition.jobs;
    let own: u64 = standings.iter().filter(|it| it.is_own).map(|it| jobs(&it)).sum();
    let lives = |it: &&Standing| {
        let is_owned = it.partition.state == State::Owned && !it.is_own;
        is_owned && at.saturating_sub(it.beat_at) < lease.suspends_after()
    };
    let mut others: BTreeMap<&[u8], u64> = BTreeMap::new();
    for standing in standings.iter().filter(lives) {
        *others.entry(standing.partition.process()).or_default() += standing.partition.jobs;
    }
    u32::try_from(others.values().filter(|&&jobs| jobs < own).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn living_servers_with_fewer_jobs_go_first() {
        let standing = |owner: &[u8], jobs, state, beat_s| Standing {
            partition: Partition { owner: owner.to_vec(), jobs, state, ..Partition::default() },
            is_own: owner == b"own",
            beat_at: Duration::from_secs(beat_s),
        };
        let standings = [
            standing(b"own", 3, State::Owned, 10),
            standing(b"own", 4, State::Owned, 10),
            standing(b"fewer", 6, State::Owned, 10),
            standing(b"two", 4, State::Owned, 10),
            standing(b"two", 4, State::Owned, 10),
            standing(b"dead", 1, State::Owned, 5),
            standing(b"", 0, State::Free, 10),
            standing(b"", 1, State::Offered, 10),
        ];
        assert_eq!(own_rank(&standings, Lease::default(), Duration::from_secs(10)), 1);
    }
}
