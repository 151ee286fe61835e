//! `src/io/cores/sleep_flag.rs` in every order in which threads and a weak memory bring its steps.
//!
//! A thread leaves work (the release store that a ring or a queue publishes with) and asks whether
//! to wake; the sleeper announces its sleep, looks, and sleeps. Either it sees the work or it is
//! woken. Without the fences or the second look that fails, so each test has a twin that panics.
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

/// One core: its flag, what others leave for it, and how often it was woken.
macro_rules! checks {
    () => {
        use self::sleep_flag::SleepFlag;
        use super::*;

        struct Core {
            flag: SleepFlag,
            left: AtomicUsize,
            wakeups: AtomicUsize,
        }

        impl Core {
            fn new() -> Arc<Self> {
                let (left, wakeups) = (AtomicUsize::new(0), AtomicUsize::new(0));
                Arc::new(Self { flag: SleepFlag::new(), left, wakeups })
            }

            /// Leaves one thing more; `space`: it is space in a ring, not a message.
            fn leave(&self, space: bool) {
                // What `rtrb` does to its index, but for two threads.
                self.left.fetch_add(1, Ordering::Release);
                let must_wake = if space {
                    self.flag.must_wake_for_space()
                } else {
                    self.flag.must_wake_for_work()
                };
                if must_wake {
                    self.wakeups.fetch_add(1, Ordering::Relaxed);
                }
            }
        }

        /// So many threads leave one thing each for a core that falls asleep meanwhile.
        pub(super) fn no_core_is_left_asleep(threads: usize, space: bool, looks_again: bool) {
            explore(move || {
                let core = Core::new();
                let leave = |_| {
                    let core = Arc::clone(&core);
                    thread::spawn(move || core.leave(space))
                };
                let threads: Vec<_> = (0..threads).map(leave).collect();
                let seen = core.left.load(Ordering::Acquire);
                core.flag.announce_sleep(space);
                let sleeps = !looks_again || core.left.load(Ordering::Acquire) == seen;
                if !sleeps {
                    core.flag.mark_awake();
                }
                let count = threads.len();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                let wakeups = core.wakeups.load(Ordering::Relaxed);
                assert!(wakeups <= 1, "one sleep, one wakeup");
                assert!(!sleeps || seen == count || wakeups == 1, "asleep, and no thread woke it");
            });
        }

        /// A core takes what there is and sleeps in between, until it has all.
        #[allow(dead_code, reason = "one of the two modules is enough for it")]
        pub(super) fn all_is_received(count: usize) {
            explore(move || {
                let core = Core::new();
                // The event descriptor: its count, and the thread that waits for it.
                let event = Arc::new((Mutex::new(0), Condvar::new()));
                let (sender, waker) = (Arc::clone(&core), Arc::clone(&event));
                let thread = thread::spawn(move || {
                    for _ in 0..count {
                        sender.left.fetch_add(1, Ordering::Release);
                        if sender.flag.must_wake_for_work() {
                            *waker.0.lock().unwrap() += 1;
                            waker.1.notify_one();
                        }
                    }
                });
                let mut seen = core.left.load(Ordering::Acquire);
                while seen < count {
                    core.flag.announce_sleep(false);
                    let left = core.left.load(Ordering::Acquire);
                    if left == seen {
                        let mut wakeups = event.0.lock().unwrap();
                        while *wakeups == 0 {
                            wakeups = event.1.wait(wakeups).unwrap();
                        }
                        *wakeups = 0;
                    }
                    core.flag.mark_awake();
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
    mod sleep_flag;
    checks!();
}

#[path = "."]
mod unfenced {
    mod atomic {
        pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};

        pub(crate) fn fence(_: Ordering) {}
    }
    #[path = "../../src/io/cores/sleep_flag.rs"]
    mod sleep_flag;
    checks!();
}

#[test]
fn a_message_is_seen_or_woken_for() {
    real::no_core_is_left_asleep(1, false, true);
    real::no_core_is_left_asleep(2, false, true);
}

#[test]
fn space_is_seen_or_woken_for() {
    real::no_core_is_left_asleep(1, true, true);
    real::no_core_is_left_asleep(2, true, true);
}

#[test]
fn a_core_that_sleeps_between_messages_gets_them_all() {
    real::all_is_received(2);
}

#[test]
#[should_panic(expected = "no thread woke it")]
fn a_message_is_missed_without_fences() {
    unfenced::no_core_is_left_asleep(1, false, true);
}

#[test]
#[should_panic(expected = "no thread woke it")]
fn space_is_missed_without_fences() {
    unfenced::no_core_is_left_asleep(1, true, true);
}

#[test]
#[should_panic(expected = "no thread woke it")]
fn a_message_is_missed_without_a_second_look() {
    real::no_core_is_left_asleep(1, false, false);
}
