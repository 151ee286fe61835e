//! Priorities of jobs, and sets of them.
//!
//! Values only. Knows neither packets nor queues.
//!
//! Invariant: a set has no bits but those of `Priority::ALL`, so equal sets have equal bits.

/// A job's urgency; a worker gets jobs of a higher one first, whatever their function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Priority {
    /// `SUBMIT_JOB_HIGH*`
    High = 0,
    /// `SUBMIT_JOB*`, and every delayed and every reduce job.
    Normal = 1,
    /// `SUBMIT_JOB_LOW*`
    Low = 2,
}

impl Priority {
    /// From the most to the least urgent.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];
}

/// A set of priorities: one bit each, the most urgent one the lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrioritySet(u8);

impl PrioritySet {
    /// No priority.
    pub const EMPTY: Self = Self(0);
    const ALL_BITS: u8 = (1 << Priority::ALL.len()) - 1;

    /// The set of these bits, as `bits` returns them; other bits are dropped.
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL_BITS)
    }

    /// The priorities whose flag is set, in the order of `Priority::ALL`.
    #[inline]
    #[must_use]
    pub const fn from_flags([high, normal, low]: [bool; 3]) -> Self {
        Self(high as u8 | (normal as u8) << 1 | (low as u8) << 2)
    }

    /// One bit for each priority, for atomics.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Adds a priority.
    #[inline]
    pub const fn insert(&mut self, priority: Priority) {
        self.0 |= 1 << priority as u8;
    }

    /// Whether a priority is in the set.
    #[inline]
    #[must_use]
    pub const fn contains(self, priority: Priority) -> bool {
        self.0 & 1 << priority as u8 != 0
    }

    /// Whether no priority is in the set.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The most urgent priority in the set.
    #[inline]
    #[must_use]
    pub fn most_urgent(self) -> Option<Priority> {
        self.iter().next()
    }

    /// The priorities in the set, the most urgent first.
    #[inline]
    pub fn iter(self) -> impl Iterator<Item = Priority> {
        Priority::ALL.into_iter().filter(move |&priority| self.contains(priority))
    }
}

impl FromIterator<Priority> for PrioritySet {
    #[inline]
    fn from_iter<I: IntoIterator<Item = Priority>>(priorities: I) -> Self {
        let mut set = Self::EMPTY;
        priorities.into_iter().for_each(|priority| set.insert(priority));
        set
    }
}

/// The priorities that are in either set.
impl std::ops::BitOr for PrioritySet {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_inserted_the_most_urgent_first() {
        for bits in 0..=PrioritySet::ALL_BITS {
            let set = PrioritySet::from_bits(bits);
            let members: Vec<Priority> = set.iter().collect();
            assert!(members.is_sorted(), "{members:?}");
            assert_eq!(members.into_iter().collect::<PrioritySet>(), set);
            assert_eq!(set.bits(), bits);
            assert_eq!(PrioritySet::from_flags(Priority::ALL.map(|p| set.contains(p))), set);
            assert_eq!(set.most_urgent(), set.iter().min());
            assert_eq!(
                (set.is_empty(), set.iter().count()),
                (bits == 0, bits.count_ones() as usize)
            );
        }
        let mut set = PrioritySet::EMPTY;
        set.insert(Priority::Low);
        assert!(set.contains(Priority::Low) && !set.contains(Priority::High));
        let both = set | PrioritySet::from_iter([Priority::High]);
        assert_eq!(both.iter().collect::<Vec<_>>(), [Priority::High, Priority::Low]);
        assert_eq!(PrioritySet::from_bits(u8::MAX).iter().count(), 3, "other bits mean nothing");
    }
}
