//! `src/io/doze.rs` in every order in which threads and a weak memory can bring its steps.
//!
//! A thread leaves something (the release store that a ring or a queue publishes with) and asks
//! whether to ring; the sleeper announces, looks, and sleeps. Either it sees what was left or it is
//! rung. Without the fences or the second look that fails, so each test has a twin that panics.
#![cfg(test)]

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU8, Ordering, fence};
}

#[path = "../../src/io/doze.rs"]
mod doze;

#[path = "."]
mod without_fences {
    mod atomic {
        pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};

        pub(crate) fn fence(_: Ordering) {}
    }

    #[path = "../../src/io/doze.rs"]
    pub(crate) mod doze;
}

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// One core: its flag, what others leave for it, and how often its bell was struck.
macro_rules! checks {
    ($doze:path) => {
        use super::*;
        use $doze as Doze;

        struct Core {
            doze: Doze,
            left: AtomicUsize,
            strikes: AtomicUsize,
        }

        impl Core {
            fn new() -> Arc<Self> {
                let (left, strikes) = (AtomicUsize::new(0), AtomicUsize::new(0));
                Arc::new(Self { doze: Doze::new(), left, strikes })
            }

            /// Leaves one thing more; `room`: it is room in a ring, not a letter.
            fn leave(&self, room: bool) {
                // What `rtrb` does to its index, but for two threads.
                self.left.fetch_add(1, Ordering::Release);
                let must_ring = if room {
                    self.doze.must_ring_for_room()
                } else {
                    self.doze.must_ring_for_work()
                };
                if must_ring {
                    self.strikes.fetch_add(1, Ordering::Relaxed);
                }
            }
        }

        /// So many threads leave one thing each for a core that falls asleep meanwhile.
        pub(super) fn nobody_is_left_asleep(threads: usize, room: bool, looks_again: bool) {
            loom::model(move || {
                let core = Core::new();
                let leave = |_| {
                    let core = Arc::clone(&core);
                    thread::spawn(move || core.leave(room))
                };
                let threads: Vec<_> = (0..threads).map(leave).collect();
                let seen = core.left.load(Ordering::Acquire);
                core.doze.announce(room);
                let sleeps = !looks_again || core.left.load(Ordering::Acquire) == seen;
                if !sleeps {
                    core.doze.cancel();
                }
                let count = threads.len();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                let strikes = core.strikes.load(Ordering::Relaxed);
                assert!(strikes <= 1, "one sleep, one stroke");
                assert!(!sleeps || seen == count || strikes == 1, "asleep, and nobody rang");
            });
        }

        /// A core takes one thing at a time and sleeps in between, until it has all.
        pub(super) fn all_is_received(count: usize) {
            loom::model(move || {
                let core = Core::new();
                let sender = Arc::clone(&core);
                let thread = thread::spawn(move || (0..count).for_each(|_| sender.leave(false)));
                let (mut seen, mut heard) = (0, 0);
                while seen < count {
                    let left = core.left.load(Ordering::Acquire);
                    if left > seen {
                        seen = left;
                        continue;
                    }
                    core.doze.announce(false);
                    if core.left.load(Ordering::Acquire) == seen {
                        // Sleeps: only a stroke goes on from here.
                        while core.strikes.load(Ordering::Relaxed) == heard {
                            thread::yield_now();
                        }
                        heard = core.strikes.load(Ordering::Relaxed);
                    }
                    core.doze.cancel();
                }
                thread.join().unwrap();
            });
        }
    };
}

mod real {
    checks!(crate::doze::Doze);
}

mod unfenced {
    checks!(crate::without_fences::doze::Doze);
}

#[test]
fn a_letter_is_seen_or_rung_for() {
    real::nobody_is_left_asleep(1, false, true);
    real::nobody_is_left_asleep(2, false, true);
}

#[test]
fn room_is_seen_or_rung_for() {
    real::nobody_is_left_asleep(1, true, true);
    real::nobody_is_left_asleep(2, true, true);
}

#[test]
fn a_core_that_sleeps_between_letters_gets_them_all() {
    real::all_is_received(2);
}

#[test]
#[should_panic(expected = "nobody rang")]
fn a_letter_is_missed_without_fences() {
    unfenced::nobody_is_left_asleep(1, false, true);
}

#[test]
#[should_panic(expected = "nobody rang")]
fn room_is_missed_without_fences() {
    unfenced::nobody_is_left_asleep(1, true, true);
}

#[test]
#[should_panic(expected = "nobody rang")]
fn a_letter_is_missed_without_a_second_look() {
    real::nobody_is_left_asleep(1, false, false);
}
