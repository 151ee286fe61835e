//! The hash table of the engine, which grows and shrinks by one line at a time: hashes in, record
//! numbers out.
//!
//! Linear hashing (Litwin, 1980) with lines the size of a cache line: a search in a table of any
//! size reads one line, rarely two, and an insertion or removal moves the entries of at most one
//! chain. A table that doubles would stop the core while all entries move. Stores 4-byte record
//! numbers only; the keys are in the records, and the caller compares them.
//!
//! Invariant: an entry is in the chain of its home line, and all lines of a chain but the last are
//! full.

use std::marker::PhantomData;
use std::ops::{Index as At, IndexMut as AtMut};

use prefetch_index::prefetch_index;

use super::ids::Id;

/// Number of entries in a line.
const LINE_ENTRIES: usize = 12;
/// Entries per line from which a line is split; with less than half as many, two lines are merged.
/// A line that is still to be split has up to twice as many.
const LINE_LOAD: usize = 7;
/// Number of lines in an allocation.
const PAGE_LINES: usize = 256;

/// One line of a chain.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Line {
    /// A byte of each entry's hash; 0 for an empty slot.
    tags: [u8; LINE_ENTRIES],
    ids: [u32; LINE_ENTRIES],
    /// Number of the next line of the chain, a spill line, counted from 1; 0 = none.
    next: u32,
}

const _: () = assert!(size_of::<Line>() == 64);

impl Line {
    /// Slots with this tag, in no order.
    #[inline]
    fn slots_with(&self, tag: u8) -> impl Iterator<Item = usize> + use<> {
        let (low, high) = self.words();
        let tags = u64::from(tag) * EACH_BYTE;
        let zeros = zero_bytes(low ^ tags);
        let high_zeros = zero_bytes(high ^ (tags & u64::from(u32::MAX))) & u64::from(u32::MAX);
        // Bit 0 of byte n means slot n, bit 1 slot n + 8.
        let mut found = zeros >> 7 | high_zeros >> 6;
        std::iter::from_fn(move || {
            let bit = (found != 0).then(|| found.trailing_zeros() as usize)?;
            found &= found - 1;
            Some(bit / 8 + bit % 8 * 8)
        })
    }

    #[inline]
    fn slot_of(&self, tag: u8, id: u32) -> Option<usize> {
        self.slots_with(tag).find(|&slot| self.ids[slot] == id)
    }

    /// Number of filled slots, which are the first ones.
    #[inline]
    fn len(&self) -> usize {
        let (low, high) = self.words();
        let (words, empty) = match high {
            0 => (1, low.leading_zeros() / 8),
            high => (2, high.leading_zeros() / 8),
        };
        8 * words - empty as usize
    }

    /// The first 8 and the last 4 tags.
    #[inline]
    fn words(&self) -> (u64, u64) {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.tags;
        let low = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        (low, u32::from_le_bytes([i, j, k, l]).into())
    }

    #[inline]
    fn set(&mut self, slot: usize, (tag, id): (u8, u32)) {
        (self.tags[slot], self.ids[slot]) = (tag, id);
    }

    #[inline]
    fn pop(&mut self) -> (u8, u32) {
        let last = self.len() - 1;
        let entry = (self.tags[last], self.ids[last]);
        self.set(last, (0, 0));
        entry
    }
}

/// The value 1 in each byte.
const EACH_BYTE: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each byte that is zero.
#[inline]
fn zero_bytes(bytes: u64) -> u64 {
    // The sum sets the highest bit of a byte if any lower bit is set, without a carry into the
    // next.
    let low_bits = EACH_BYTE * 0x7f;
    !(((bytes & low_bits) + low_bits) | bytes | low_bits)
}

/// Lines in pages, so that growing moves no line.
#[derive(Clone, Debug, Default)]
struct Lines {
    pages: Vec<Box<[Line; PAGE_LINES]>>,
    len: usize,
}

impl Lines {
    /// Adds an empty line.
    fn push(&mut self) {
        if self.len == self.pages.len() * PAGE_LINES {
            self.pages.push(Box::new([Line::default(); PAGE_LINES]));
        }
        let last = self.len;
        self.len += 1;
        self[last] = Line::default();
    }

    /// Has a line brought into the cache.
    #[inline]
    fn prefetch(&self, at: usize) {
        if let Some(page) = self.pages.get(at / PAGE_LINES) {
            prefetch_index(page.as_slice(), at % PAGE_LINES);
        }
    }

    /// Removes all lines from `len` on. Keeps at least one page.
    fn truncate(&mut self, len: usize) {
        self.len = len;
        self.pages.truncate(len.div_ceil(PAGE_LINES).max(1));
    }
}

impl At<usize> for Lines {
    type Output = Line;

    #[inline]
    fn index(&self, at: usize) -> &Line {
        &self.pages[at / PAGE_LINES][at % PAGE_LINES]
    }
}

impl AtMut<usize> for Lines {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut Line {
        &mut self.pages[at / PAGE_LINES][at % PAGE_LINES]
    }
}

/// A set of the records of one kind that is searched by hash and comparison.
#[derive(Clone, Debug)]
pub struct Index<I> {
    entries: Entries,
    ids: PhantomData<I>,
}

impl<I> Default for Index<I> {
    fn default() -> Self {
        Self { entries: Entries::default(), ids: PhantomData }
    }
}

impl<I: Id> Index<I> {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.len == 0
    }

    /// Has what is read first for this hash brought into the cache, which takes as long as some
    /// hundred instructions if the set is large.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.entries.prefetch(hash);
    }

    /// The record with this hash for which `is_it` holds.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(I) -> bool) -> Option<I> {
        self.entries.find(hash, |number| is_it(I::from_number(number))).map(I::from_number)
    }

    /// Adds a record that isn't in the set. `hash_of` returns the hash of any record in the set.
    #[inline]
    pub fn insert(&mut self, hash: u64, id: I, hash_of: impl Fn(I) -> u64) {
        self.entries.insert(hash, id.number(), |number| hash_of(I::from_number(number)));
    }

    /// Removes a record that is in the set.
    #[inline]
    pub fn remove(&mut self, hash: u64, id: I) {
        self.entries.remove(hash, id.number());
    }
}

/// The numbers of an index: one code for records of all kinds. The lowest bits of a hash select
/// the line, the highest byte distinguishes the entries of a line.
#[derive(Clone, Debug, Default)]
struct Entries {
    len: usize,
    /// The first line of each chain.
    homes: Lines,
    /// The bits of a hash that number the home lines.
    mask: usize,
    /// The further lines of chains.
    spill: Lines,
    /// First of the free spill lines, which are chained, counted from 1.
    free_spill: u32,
    used_spill: usize,
}

/// Place of a line: a home line, or a spill line counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Home(usize),
    Spill(u32),
}

impl Entries {
    /// Has the home line of a hash brought into the cache.
    #[inline]
    fn prefetch(&self, hash: u64) {
        self.homes.prefetch(self.home(hash));
    }

    /// The record with this hash for which `is_it` holds.
    #[inline]
    fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        let mut line = &self.homes[self.home(hash)];
        loop {
            let mut ids = line.slots_with(tag(hash)).map(|slot| line.ids[slot]);
            if let Some(id) = ids.find(|&id| is_it(id)) {
                return Some(id);
            }
            line = &self.spill[line.next.checked_sub(1)? as usize];
        }
    }

    /// Adds a record that isn't in the set. `hash_of` returns the hash of any record in the set.
    #[inline]
    fn insert(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        if self.len >= self.homes.len * LINE_LOAD {
            self.split(hash_of);
        }
        self.len += 1;
        self.add(self.home(hash), (tag(hash), id));
    }

    /// Removes a record that is in the set.
    #[inline]
    fn remove(&mut self, hash: u64, id: u32) {
        let home = self.home(hash);
        let line = &mut self.homes[home];
        if line.next != 0 {
            self.remove_from_chain(home, tag(hash), id);
        } else if let Some(slot) = line.slot_of(tag(hash), id) {
            // The last entry fills the gap.
            let last = line.pop();
            if last.1 != id {
                line.set(slot, last);
            }
        } else {
            debug_assert!(false, "the record isn't in the set");
        }
        self.len -= 1;
        if self.len < self.homes.len * LINE_LOAD / 2 && self.homes.len > 1 {
            self.merge();
        }
    }

    fn remove_from_chain(&mut self, home: usize, tag: u8, id: u32) {
        let mut found = None;
        let (mut before, mut last) = (Place::Home(home), Place::Home(home));
        loop {
            let line = self.line(last);
            if found.is_none() {
                found = line.slot_of(tag, id).map(|slot| (last, slot));
            }
            match line.next {
                0 => break,
                next => (before, last) = (last, Place::Spill(next)),
            }
        }
        let Some((place, slot)) = found else {
            debug_assert!(false, "the record isn't in the set");
            return;
        };
        let entry = self.line_mut(last).pop();
        if entry.1 != id {
            self.line_mut(place).set(slot, entry);
        }
        if let Place::Spill(number) = last
            && self.line(last).len() == 0
        {
            self.line_mut(before).next = 0;
            self.free(number);
        }
    }

    /// The home line of a hash: numbered by the bits of `mask`, or by one bit less if that line
    /// doesn't exist yet.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
        let wide = hash as usize & self.mask;
        if wide < self.homes.len { wide } else { wide & (self.mask >> 1) }
    }

    fn set_mask(&mut self) {
        self.mask = self.homes.len.next_power_of_two() - 1;
    }

    /// The line that a line is split from and merged into.
    fn parent(line: usize) -> usize {
        line.checked_ilog2().map_or(0, |bit| line ^ 1 << bit)
    }

    /// Adds a line and moves entries of its parent to it.
    fn split(&mut self, hash_of: impl Fn(u32) -> u64) {
        let new = self.homes.len;
        self.homes.push();
        self.set_mask();
        if new > 0 {
            let chain = std::mem::take(&mut self.homes[Self::parent(new)]);
            self.scatter(chain, |index, id| index.home(hash_of(id)));
        }
    }

    /// Removes the last line and moves its entries to its parent.
    fn merge(&mut self) {
        let last = self.homes.len - 1;
        let chain = std::mem::take(&mut self.homes[last]);
        self.homes.truncate(last);
        self.set_mask();
        self.scatter(chain, |_, _| Self::parent(last));
    }

    /// Distributes the entries of a removed chain, and frees its spill lines.
    fn scatter(&mut self, mut line: Line, home_of: impl Fn(&Self, u32) -> usize) {
        loop {
            // First all homes, then all moves: the records of a large set are in no cache, and this
            // way the processor fetches them side by side.
            let (len, mut homes) = (line.len(), [0; LINE_ENTRIES]);
            for (home, &id) in homes.iter_mut().zip(&line.ids[..len]) {
                *home = home_of(self, id);
            }
            for ((&home, tag), id) in homes[..len].iter().zip(line.tags).zip(line.ids) {
                self.add(home, (tag, id));
            }
            if line.next == 0 {
                return;
            }
            let next = line.next;
            line = *self.line(Place::Spill(next));
            self.free(next);
        }
    }

    /// Adds an entry to the chain of a home line.
    #[inline]
    fn add(&mut self, home: usize, entry: (u8, u32)) {
        let line = &mut self.homes[home];
        let len = line.len();
        if len < LINE_ENTRIES { line.set(len, entry) } else { self.add_behind(home, entry) }
    }

    /// As `add`, for a full home line.
    fn add_behind(&mut self, home: usize, entry: (u8, u32)) {
        let mut place = Place::Home(home);
        loop {
            let next = match self.line(place).next {
                0 => self.take_spill(),
                next => next,
            };
            self.line_mut(place).next = next;
            place = Place::Spill(next);
            let line = self.line_mut(place);
            let len = line.len();
            if len < LINE_ENTRIES {
                return line.set(len, entry);
            }
        }
    }

    fn line(&self, place: Place) -> &Line {
        match place {
            Place::Home(at) => &self.homes[at],
            Place::Spill(number) => &self.spill[number as usize - 1],
        }
    }

    fn line_mut(&mut self, place: Place) -> &mut Line {
        match place {
            Place::Home(at) => &mut self.homes[at],
            Place::Spill(number) => &mut self.spill[number as usize - 1],
        }
    }

    /// An empty spill line.
    fn take_spill(&mut self) -> u32 {
        self.used_spill += 1;
        let number = self.free_spill;
        if number > 0 {
            self.free_spill = std::mem::take(&mut self.line_mut(Place::Spill(number)).next);
            return number;
        }
        self.spill.push();
        // There are fewer of them than records, which have 4-byte numbers.
        u32::try_from(self.spill.len).unwrap_or(u32::MAX)
    }

    fn free(&mut self, number: u32) {
        let next = std::mem::replace(&mut self.free_spill, number);
        *self.line_mut(Place::Spill(number)) = Line { next, ..Line::default() };
        self.used_spill -= 1;
        if self.used_spill == 0 {
            self.free_spill = 0;
            self.spill.truncate(0);
        }
    }
}

/// What tells an entry from others of its line.
#[inline]
fn tag(hash: u64) -> u8 {
    let [.., highest] = hash.to_le_bytes();
    highest.max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use foldhash::quality::FixedState;
    use proptest::prelude::*;

    use super::*;

    /// A bad hash on purpose: many records share one.
    fn hash_of(id: u32) -> u64 {
        u64::from(id / 3).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
    }

    /// Checks the invariant; answers with how many lines the longest chain has.
    fn check(index: &Entries) -> usize {
        let (mut entries, mut spilled, mut longest) = (0, 0, 0);
        for home in 0..index.homes.len {
            let (mut place, mut chain) = (Place::Home(home), 1);
            loop {
                let line = index.line(place);
                let filled = line.tags.iter().take_while(|&&tag| tag != 0).count();
                assert!(line.tags[filled..].iter().all(|&tag| tag == 0), "no gaps");
                assert!(filled > 0 || place == Place::Home(home), "no empty line in a chain");
                for &id in &line.ids[..filled] {
                    assert_eq!(index.home(hash_of(id)), home);
                }
                entries += filled;
                if line.next == 0 {
                    break;
                }
                assert_eq!(filled, LINE_ENTRIES, "room only at the end");
                place = Place::Spill(line.next);
                chain += 1;
            }
            spilled += chain - 1;
            longest = longest.max(chain);
        }
        assert_eq!((entries, spilled), (index.len, index.used_spill));
        longest
    }

    #[test]
    fn grows_and_shrinks_by_a_line_at_a_time() {
        let mut index = Entries::default();
        for id in 0..100_000 {
            let before = index.homes.len;
            index.insert(hash_of(id), id, hash_of);
            assert!(index.homes.len - before <= 1);
        }
        assert_eq!(index.len, 100_000);
        assert!(check(&index) <= 4, "{}", check(&index));
        for id in 0..99_990 {
            let before = index.homes.len;
            index.remove(hash_of(id), id);
            assert!(before - index.homes.len <= 1);
        }
        check(&index);
        let pages = index.homes.pages.len() + index.spill.pages.len();
        assert!(pages <= 2, "memory goes back after a drain");
        assert_eq!(index.find(hash_of(99_995), |id| id == 99_995), Some(99_995));
    }

    #[test]
    fn an_entry_takes_about_ten_bytes_at_any_size() {
        let mut index = Entries::default();
        let hash_of = |id: u32| FixedState::default().hash_one(id);
        for id in 0..300_000 {
            index.insert(hash_of(id), id, hash_of);
            if id > 20_000 {
                let lines = index.homes.len + index.spill.len;
                let bytes = lines * size_of::<Line>() / index.len;
                assert!((9..=10).contains(&bytes), "{bytes} bytes for each of {id}");
            }
        }
    }

    #[test]
    fn a_tag_is_found_in_each_slot_among_its_like() {
        for (slot, tag) in
            (0..LINE_ENTRIES).flat_map(|slot| [1, 0x7f, 0x80, 0xff].map(|t| (slot, t)))
        {
            for other in [0, tag ^ 1, tag ^ 0x80, !tag] {
                let mut line = Line { tags: [other; LINE_ENTRIES], ..Line::default() };
                line.tags[slot] = tag;
                assert!(line.slots_with(tag).eq([slot]), "{tag} among {other}");
                assert_eq!(line.slots_with(other).count(), LINE_ENTRIES - 1);
            }
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(
            changes in prop::collection::vec((0u32..600, any::<bool>()), 0..3000),
            shift in 0u32..64,
        ) {
            // Some of the shifts leave nearly all records the same home.
            let hash_of = |id| hash_of(id) << shift;
            let (mut index, mut model) = (Entries::default(), HashSet::new());
            for (id, add) in changes {
                // Changes nothing, and may be for a record that there isn't.
                index.prefetch(hash_of(id));
                if add && model.insert(id) {
                    index.insert(hash_of(id), id, hash_of);
                } else if !add && model.remove(&id) {
                    index.remove(hash_of(id), id);
                }
                prop_assert_eq!(index.len, model.len());
                let found = index.find(hash_of(id), |other| other == id);
                prop_assert_eq!(found.is_some(), model.contains(&id));
            }
            for id in 0..600 {
                let found = index.find(hash_of(id), |other| other == id);
                prop_assert_eq!(found.is_some(), model.contains(&id));
            }
        }
    }
}
