//! When a server that waits for the lock may try to get it: generations and the time in, yes or no
//! out.
//!
//! A database that fails over ends the sessions of all servers at once, and the lock would go to
//! the first that connects again. The server that owned the jobs is likely to be healthy and has
//! jobs in memory that no other server knows: it gets some time to be the first. Knows no
//! database.
//!
//! Invariant: a wait ends after `HEAD_START` at the latest, however often generations change.

use std::time::{Duration, Instant};

/// How long a server that lost its own session leaves the lock to the one that owned the jobs. That
/// one looks after its session once a second.
const HEAD_START: Duration = Duration::from_secs(3);

/// What a server that waits knows about the owner.
#[derive(Debug)]
pub(super) struct LockDelay {
    /// The last generation that was seen.
    known: i64,
    /// Until then the lock is the earlier owner's to take.
    left_until: Option<Instant>,
}

impl LockDelay {
    /// A server with a first session.
    pub(super) fn new(generation: i64) -> Self {
        Self { known: generation, left_until: None }
    }

    /// The server lost its session and has another one, where it finds this generation. What it
    /// knew before counts for nothing: the owner may have connected again a moment before the end,
    /// and a failover without synchronous replication may have taken generations back.
    pub(super) fn reconnected(generation: i64, now: Instant) -> Self {
        Self { known: generation, left_until: Some(now + HEAD_START) }
    }

    /// Whether the lock may be tried, now that this generation was found.
    pub(super) fn is_over(&mut self, generation: i64, now: Instant) -> bool {
        let is_left = generation == self.known && self.left_until.is_some_and(|until| now < until);
        self.known = generation;
        if !is_left {
            self.left_until = None;
        }
        !is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_session_may_try_at_once() {
        let mut delay = LockDelay::new(3);
        assert!(delay.is_over(3, Instant::now()));
        assert!(delay.is_over(4, Instant::now()));
    }

    #[test]
    fn after_a_failover_the_owner_comes_first_and_not_for_ever() {
        let now = Instant::now();
        let mut delay = LockDelay::reconnected(3, now);
        assert!(!delay.is_over(3, now));
        assert!(!delay.is_over(3, now + HEAD_START / 2));
        assert!(delay.is_over(3, now + HEAD_START));
        assert!(delay.is_over(3, now));
    }

    #[test]
    fn once_the_owner_is_back_the_lock_itself_tells_who_is_next() {
        let now = Instant::now();
        let mut delay = LockDelay::reconnected(3, now);
        assert!(!delay.is_over(3, now));
        assert!(delay.is_over(4, now));
        assert!(delay.is_over(4, now));
    }
}
