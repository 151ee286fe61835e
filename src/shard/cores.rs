//! The cores of a server, and which of them owns a function or a job.
//!
//! A name or a number in, a core out. This is the one place that says what is where. Knows no
//! connections.
//!
//! Invariant: a job's owner is its function's.

use crate::engine::handle;

/// Number of a core, from 0.
pub type Core = usize;

/// Which cores there are, and which one this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// This core.
    pub own: Core,
    /// How many there are; at most `CORES_MAX`.
    pub count: usize,
}

/// Most cores: a set of them fits 64 bits, and there are four slots for each.
pub const CORES_MAX: usize = 64;

const _: () = assert!(CORES_MAX <= 1 << handle::SLOT_BITS);

impl Default for Cores {
    /// One core only.
    fn default() -> Self {
        Self { own: 0, count: 1 }
    }
}

impl Cores {
    /// The core that owns a function.
    #[must_use]
    pub fn owner_of(&self, function: &[u8]) -> Core {
        usize::from(handle::slot(function)) % self.count
    }

    /// The core that owns a job.
    #[must_use]
    pub fn owner_of_job(&self, number: u64) -> Core {
        usize::from(handle::slot_of(number)) % self.count
    }

    /// All cores but this one.
    pub fn others(&self) -> impl Iterator<Item = Core> + use<> {
        let own = self.own;
        (0..self.count).filter(move |&core| core != own)
    }
}
