//! Whether a thread may be asleep: the flag between one that sleeps and those that leave it work.
//!
//! The sleeper announces, looks once more at everything that others leave it, and only then sleeps.
//! The others leave their work first and then look at the flag. A fence on either side makes sure
//! that one of them sees the other. Knows no doorbell and no ring. The parent module says whose
//! atomics these are: `tests/loom` puts in ones that try every order.
//!
//! Invariant: of all who leave something during one sleep, exactly one is told to ring.

use super::atomic::{AtomicU8, Ordering, fence};

const AWAKE: u8 = 0;
/// Wants to know of work.
const ASLEEP: u8 = 1;
/// Wants to know of work, and of room in a ring that it found full.
const CRAMPED: u8 = 2;

/// The flag of one thread.
#[derive(Debug)]
pub(crate) struct Doze {
    state: AtomicU8,
}

impl Doze {
    /// The thread is awake.
    pub(crate) fn new() -> Self {
        Self { state: AtomicU8::new(AWAKE) }
    }

    /// The thread is about to sleep, and after this looks for work again; `cramped`: it waits for
    /// room in somebody's ring, too.
    pub(crate) fn announce(&self, cramped: bool) {
        self.state.store(if cramped { CRAMPED } else { ASLEEP }, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The thread is awake, or stays so.
    pub(crate) fn cancel(&self) {
        self.state.store(AWAKE, Ordering::Relaxed);
    }

    /// To be asked after work was left for the thread: whether to ring.
    pub(crate) fn must_ring_for_work(&self) -> bool {
        fence(Ordering::SeqCst);
        self.state.load(Ordering::Relaxed) != AWAKE && self.wake()
    }

    /// To be asked after letters were taken out of the thread's ring: whether to ring.
    pub(crate) fn must_ring_for_room(&self) -> bool {
        fence(Ordering::SeqCst);
        self.state.load(Ordering::Relaxed) == CRAMPED && self.wake()
    }

    fn wake(&self) -> bool {
        self.state.swap(AWAKE, Ordering::Relaxed) != AWAKE
    }
}
