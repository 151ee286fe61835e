//! `src/io/cores/sleep_flag.rs` in every order in which threads and a weak memory bring its steps.
//!
//! A thread leaves something (the release store that a ring or a queue publishes with) and asks
//! whether to ring; the sleeper announces, looks, and sleeps. Either it sees what was left or it is
//! rung. Without the fences or the second look that fails, so each test has a twin that panics.
#![cfg(test)]
#![allow(clippy::duplicate_mod, reason = "once with the fences, once without")]

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// Threads are interrupted where they needn't stop at most three times; without that bound it takes
/// minutes and finds the same.
fn explore(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

/// One core: its flag, what others leave for it, and how often its bell was struck.
macro_rules! checks {
    () => {
        use self::doze::Doze;
        use super::*;

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
            explore(move || {
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

        /// A core takes what there is and sleeps in between, until it has all.
        #[allow(dead_code, reason = "one of the two modules is enough for it")]
        pub(super) fn all_is_received(count: usize) {
            explore(move || {
                let core = Core::new();
                // The doorbell's descriptor: its count, and whoever waits for it.
                let event = Arc::new((Mutex::new(0), Condvar::new()));
                let (sender, bell) = (Arc::clone(&core), Arc::clone(&event));
                let thread = thread::spawn(move || {
                    for _ in 0..count {
                        sender.left.fetch_add(1, Ordering::Release);
                        if sender.doze.must_ring_for_work() {
                            *bell.0.lock().unwrap() += 1;
                            bell.1.notify_one();
                        }
                    }
                });
                let mut seen = core.left.load(Ordering::Acquire);
                while seen < count {
                    core.doze.announce(false);
                    let left = core.left.load(Ordering::Acquire);
                    if left == seen {
                        let mut strikes = event.0.lock().unwrap();
                        while *strikes == 0 {
                            strikes = event.1.wait(strikes).unwrap();
                        }
                        *strikes = 0;
                    }
                    core.doze.cancel();
                    seen = core.left.load(Ordering::Acquire);
                }
                thread.join().unwrap();
            });
        }
    };
}

#[path = "."]
mod real {
    mod atomic {
        pub(crate) use loom::sync::atomic::{AtomicU8, Ordering, fence};
    }
    #[path = "../../src/io/cores/sleep_flag.rs"]
    mod doze;
    checks!();
}

#[path = "."]
mod unfenced {
    mod atomic {
        pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};

        pub(crate) fn fence(_: Ordering) {}
    }
    #[path = "../../src/io/cores/sleep_flag.rs"]
    mod doze;
    checks!();
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
