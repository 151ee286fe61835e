//! The flag between a thread that sleeps and the threads that leave work for it.
//!
//! The sleeper announces its sleep, looks once more at everything that others leave it, and only
//! then sleeps. The others leave their work first and then read the flag. A fence on either side
//! makes sure that one of the two sees the other. Knows no event descriptor and no ring. The parent
//! module chooses the atomics: `tests/loom` puts in those that try every order.
//!
//! Invariant: of all threads that leave work during one sleep, exactly one is told to wake.

use super::atomic::{AtomicU8, Ordering, fence};

const AWAKE: u8 = 0;
/// To be woken for work.
const ASLEEP: u8 = 1;
/// To be woken for work, and for space in a ring that the thread found full.
const ASLEEP_FOR_SPACE: u8 = 2;

/// The flag of one thread.
#[derive(Debug)]
pub(super) struct SleepFlag {
    state: AtomicU8,
}

impl SleepFlag {
    /// The thread is awake.
    pub(super) fn new() -> Self {
        Self { state: AtomicU8::new(AWAKE) }
    }

    /// The thread is about to sleep and looks for work once more after this; `for_space`: it waits
    /// for space in a ring, too.
    pub(super) fn announce_sleep(&self, for_space: bool) {
        self.state.store(if for_space { ASLEEP_FOR_SPACE } else { ASLEEP }, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The thread is awake, or doesn't sleep after all.
    pub(super) fn mark_awake(&self) {
        self.state.store(AWAKE, Ordering::Relaxed);
    }

    /// Called after work was left for the thread: returns whether the caller must wake it.
    pub(super) fn must_wake_for_work(&self) -> bool {
        fence(Ordering::SeqCst);
        self.state.load(Ordering::Relaxed) != AWAKE && self.claim_wake()
    }

    /// Called after messages were taken out of the thread's ring: returns whether the caller must
    /// wake it.
    pub(super) fn must_wake_for_space(&self) -> bool {
        fence(Ordering::SeqCst);
        self.state.load(Ordering::Relaxed) == ASLEEP_FOR_SPACE && self.claim_wake()
    }

    fn claim_wake(&self) -> bool {
        self.state.swap(AWAKE, Ordering::Relaxed) != AWAKE
    }
}
