//! Hashes in, record numbers out: the hash tables of the engine, which grow and shrink by a line at
//! a time.
//!
//! Linear hashing (Litwin, 1980), with lines that fill a cache line each: a search in a table of
//! any size reads one line, seldom two, and no insertion or removal moves more than a line's
//! entries, where a table that doubles would stop the core for as long as all take to move. Stores
//! 4-byte record numbers only; the keys stay in the records, and the caller compares them.
//!
//! Invariant: an entry stands in the chain of its home line, and only the last line of a chain may
//! have room.

use std::ops::{Index as At, IndexMut as AtMut};

/// Entries of one line.
const LINE_ENTRIES: usize = 12;
/// With more entries than this for each line, one line becomes two; with less than half as many,
/// two become one. Lines still to be split get up to twice as many.
const LINE_LOAD: usize = 7;
/// Lines of one allocation.
const PAGE_LINES: usize = 256;

/// A part of a chain.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Line {
    /// A byte of each entry's hash; 0 where there is none.
    tags: [u8; LINE_ENTRIES],
    ids: [u32; LINE_ENTRIES],
    /// The spill line that goes on with the chain, counted from 1; 0 if it ends here.
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
        // Bit 1 of a byte stands for the slot eight further on.
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

/// A one in each byte.
const EACH_BYTE: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each byte that is zero.
#[inline]
fn zero_bytes(bytes: u64) -> u64 {
    // The sum sets it if any lower bit is one, and carries nothing into the next byte.
    let low_bits = EACH_BYTE * 0x7f;
    !(((bytes & low_bits) + low_bits) | bytes | low_bits)
}

/// Lines in pages, so that more of them move none.
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

    /// Leaves the first so many lines. One page is kept for the next ones.
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

/// A set of record numbers that is searched by hash and comparison. The lowest bits of a hash say
/// in which line its record stands, the highest byte tells it from its neighbours there.
#[derive(Clone, Debug, Default)]
pub struct Index {
    len: usize,
    /// Where each chain starts.
    homes: Lines,
    /// As many bits of a hash as it takes to number the home lines.
    mask: usize,
    /// Where full lines go on.
    spill: Lines,
    /// Spill lines that are free, chained, counted from 1.
    free_spill: u32,
    used_spill: usize,
}

/// One line of a chain: its home's number, or a spill line counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Home(usize),
    Spill(u32),
}

impl Index {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The record with this hash for which `is_it` holds.
    #[inline]
    pub fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
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

    /// Adds a record that isn't in yet. `hash_of` gives the hash of any record that is in.
    #[inline]
    pub fn insert(&mut self, hash: u64, id: u32, hash_of: impl Fn(u32) -> u64) {
        if self.len >= self.homes.len * LINE_LOAD {
            self.split(hash_of);
        }
        self.len += 1;
        self.add(self.home(hash), (tag(hash), id));
    }

    /// Takes a record out that is in.
    #[inline]
    pub fn remove(&mut self, hash: u64, id: u32) {
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
            debug_assert!(false, "removed a record that isn't in");
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
            debug_assert!(false, "removed a record that isn't in");
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

    /// The line where the chain of a hash starts: as many bits of it as there are lines, one less
    /// where the line with all of them isn't there yet.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are those that count")]
        let wide = hash as usize & self.mask;
        if wide < self.homes.len { wide } else { wide & (self.mask >> 1) }
    }

    fn set_mask(&mut self) {
        self.mask = self.homes.len.next_power_of_two() - 1;
    }

    /// The line that a line's entries came from and go back to.
    fn parent(line: usize) -> usize {
        line.checked_ilog2().map_or(0, |bit| line ^ 1 << bit)
    }

    /// Adds a line, and moves those entries there that belong there.
    fn split(&mut self, hash_of: impl Fn(u32) -> u64) {
        let new = self.homes.len;
        self.homes.push();
        self.set_mask();
        if new > 0 {
            let chain = std::mem::take(&mut self.homes[Self::parent(new)]);
            self.scatter(chain, |index, id| index.home(hash_of(id)));
        }
    }

    /// Takes the last line away; its entries go back to where they came from.
    fn merge(&mut self) {
        let last = self.homes.len - 1;
        let chain = std::mem::take(&mut self.homes[last]);
        self.homes.truncate(last);
        self.set_mask();
        self.scatter(chain, |_, _| Self::parent(last));
    }

    /// Adds the entries of a chain that stands nowhere any more to other ones.
    fn scatter(&mut self, mut line: Line, home_of: impl Fn(&Self, u32) -> usize) {
        loop {
            let filled = line.tags.into_iter().zip(line.ids).filter(|&(tag, _)| tag != 0);
            for (tag, id) in filled {
                self.add(home_of(self, id), (tag, id));
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

    /// The same where the home line is full.
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
    fn check(index: &Index) -> usize {
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
        let mut index = Index::default();
        for id in 0..100_000 {
            let before = index.homes.len;
            index.insert(hash_of(id), id, hash_of);
            assert!(index.homes.len - before <= 1);
        }
        assert_eq!(index.len(), 100_000);
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
        let mut index = Index::default();
        let hash_of = |id: u32| FixedState::default().hash_one(id);
        for id in 0..300_000 {
            index.insert(hash_of(id), id, hash_of);
            if id > 20_000 {
                let lines = index.homes.len + index.spill.len;
                let bytes = lines * size_of::<Line>() / index.len();
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
            let (mut index, mut model) = (Index::default(), HashSet::new());
            for (id, add) in changes {
                if add && model.insert(id) {
                    index.insert(hash_of(id), id, hash_of);
                } else if !add && model.remove(&id) {
                    index.remove(hash_of(id), id);
                }
                prop_assert_eq!(index.len(), model.len());
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
