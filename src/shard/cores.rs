//! The cores of a server, and which of them owns a function or a job.
//!
//! A name or a number in, a core out: no other place decides what is where. Knows no connections.
//!
//! Invariant: a job's owner is its function's.

use crate::engine::handle;

/// Number of a core, from 0.
pub type Core = usize;

/// The number of cores, and which of them this is.
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

    /// What messages call the HTTP thread: one more core, which owns no functions.
    #[must_use]
    pub fn http(&self) -> Core {
        self.count
    }

    /// All cores but this one.
    pub fn others(&self) -> impl Iterator<Item = Core> + use<> {
        let own = self.own;
        (0..self.count).filter(move |&core| core != own)
    }
}

/// A set of cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CoreSet(u64);

impl CoreSet {
    /// Every core that there may be.
    pub const ALL: Self = Self(u64::MAX);

    /// The set whose bit `n` stands for core `n`.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// A set of one core.
    #[inline]
    #[must_use]
    pub fn of(core: Core) -> Self {
        Self(1 << core)
    }

    /// Adds a core. Returns whether it is new.
    #[inline]
    pub fn insert(&mut self, core: Core) -> bool {
        let is_new = !self.contains(core);
        self.0 |= 1 << core;
        is_new
    }

    /// Takes a core out. Returns whether it was in.
    #[inline]
    pub fn remove(&mut self, core: Core) -> bool {
        let was_in = self.contains(core);
        self.0 &= !(1 << core);
        was_in
    }

    /// Takes all cores out.
    #[inline]
    pub fn clear(&mut self) {
        self.0 = 0;
    }

    /// Whether a core is in.
    #[inline]
    #[must_use]
    pub fn contains(self, core: Core) -> bool {
        self.0 >> core & 1 == 1
    }

    /// Whether no core is in.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The core of a set that has no other.
    #[inline]
    #[must_use]
    pub fn only(self) -> Option<Core> {
        (self.0.count_ones() == 1).then_some(self.0.trailing_zeros() as Core)
    }

    /// The cores from the first to the last.
    pub fn iter(self) -> impl Iterator<Item = Core> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let core = (left != 0).then_some(left.trailing_zeros() as Core)?;
            left &= left - 1;
            Some(core)
        })
    }
}

/// The cores that are in both.
impl std::ops::BitAnd for CoreSet {
    type Output = Self;

    #[inline]
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The cores that are in either.
impl std::ops::BitOr for CoreSet {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Core> for CoreSet {
    fn from_iter<I: IntoIterator<Item = Core>>(cores: I) -> Self {
        cores.into_iter().fold(Self::default(), |mut set, core| {
            set.insert(core);
            set
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_the_cores_that_were_inserted() {
        let mut set: CoreSet = [0, 63, 5].into_iter().collect();
        assert!(!set.insert(5) && set.insert(6) && set.remove(0) && !set.remove(0));
        assert_eq!(set.iter().collect::<Vec<Core>>(), [5, 6, 63]);
        assert!(set.contains(63) && !set.contains(62) && set.only().is_none());
        assert_eq!((set & CoreSet::of(6)).only(), Some(6));
        assert_eq!((CoreSet::of(6) | CoreSet::of(5)).iter().count(), 2);
        set.clear();
        assert!(set.is_empty() && set.iter().next().is_none());
    }
}
