//! When a standby may try to get the lock after a reconnection: generations and the time in, yes or
//! no out.
//!
//! A failover of the database ends the sessions of all servers at once, and the first to reconnect
//! would get the lock. The previous owner is probably healthy and has jobs in memory that no other
//! server knows, so it gets a head start. Knows no database.
//!
//! Invariant: a delay ends after `HEAD_START` at the latest, however often generations change.

use std::time::{Duration, Instant};

/// How long a standby that lost its session leaves the lock to the previous owner, which checks its
/// session once a second.
const HEAD_START: Duration = Duration::from_secs(3);

/// The delay of a standby.
#[derive(Debug)]
pub(super) struct LockDelay {
    /// The last generation read.
    known: i64,
    /// Until then the lock is left to the previous owner.
    left_until: Option<Instant>,
}

impl LockDelay {
    /// No delay, for a first session.
    pub(super) fn new(generation: i64) -> Self {
        Self { known: generation, left_until: None }
    }

    /// The delay after a reconnection, with the generation found then. An earlier generation is of
    /// no use: the owner may have reconnected just before the session ended, and a failover without
    /// synchronous replication may have undone generations.
    pub(super) fn reconnected(generation: i64, now: Instant) -> Self {
        Self { known: generation, left_until: Some(now + HEAD_START) }
    }

    /// Whether the standby may try to get the lock; `generation` is the current one.
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
