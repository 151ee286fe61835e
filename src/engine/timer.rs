//! A hierarchical timer wheel of one-millisecond ticks: deadlines in, keys of expired timers out.
//!
//! Setting and clearing a timer take constant time; a timer moves at most once per level before it
//! expires. Knows no clock: the time is an argument, in milliseconds of the monotonic clock.
//!
//! Invariant: a timer is in the slot of the highest digit (base 64) in which its deadline differs
//! from `elapsed_ms`, so the current slot of a level above 0 is empty. A call returns and moves at
//! most as many timers as its budget allows; the rest stays due.

use std::num::NonZero;

use super::ids::id;
use super::list::{Linked, Links, List};
use super::table::Table;

const DIGIT_BITS: u32 = 6;
const SLOTS: usize = 1 << DIGIT_BITS;
const LEVELS: u32 = 7;
/// Longest time until a timer expires (139 years).
const SPAN_MS: u64 = 1 << (DIGIT_BITS * LEVELS);
/// Index of the list of due timers, after all slots.
const DUE: usize = LEVELS as usize * SLOTS;

id! {
    /// Number of a timer.
    struct RecordId
}

/// Number of a timer, counted from 1, so that an `Option` of it needs no extra space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(NonZero<u32>);

#[derive(Clone, Debug)]
struct Timer<K> {
    deadline_ms: u64,
    key: K,
    place: u16,
    links: Links<RecordId>,
}

impl<K> Linked for Timer<K> {
    type Id = RecordId;
    fn links(&self, _slot: usize) -> &Links<RecordId> {
        &self.links
    }
    fn links_mut(&mut self, _slot: usize) -> &mut Links<RecordId> {
        &mut self.links
    }
}

/// All timers of one core, each with a key.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    timers: Table<RecordId, Timer<K>>,
    /// The lists of all slots, `SLOTS` for each level, and that of the due timers.
    places: Box<[List<RecordId>]>,
    /// For each level, a bit for each slot with timers.
    occupied: [u64; LEVELS as usize],
    /// A slot whose time has come and that isn't emptied yet.
    moving: Option<usize>,
    elapsed_ms: u64,
}

impl<K: Copy> Timers<K> {
    /// A wheel without timers at the time `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self {
            timers: Table::default(),
            places: vec![List::default(); DUE + 1].into_boxed_slice(),
            occupied: [0; LEVELS as usize],
            moving: None,
            elapsed_ms: now_ms,
        }
    }

    /// Number of timers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether there are no timers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// Places of timers, some of them empty, for `key_at`.
    #[must_use]
    pub fn places(&self) -> u32 {
        self.timers.places()
    }

    /// The key of the timer at a place, if there is one.
    #[must_use]
    pub fn key_at(&self, place: u32) -> Option<K> {
        self.timers.get(RecordId::from_number(place)).map(|timer| timer.key)
    }

    /// Sets a timer; a deadline in the past is due at once.
    pub fn insert(&mut self, deadline_ms: u64, key: K) -> TimerId {
        let timer = Timer { deadline_ms, key, place: 0, links: Links::LOOSE };
        let id = self.timers.insert(timer);
        self.place(id);
        TimerId(NonZero::<u32>::MIN.saturating_add(id.number()))
    }

    /// Clears a timer that has not expired.
    pub fn remove(&mut self, TimerId(number): TimerId) {
        let id = RecordId::from_number(number.get() - 1);
        let place = usize::from(self.timers[id].place);
        self.places[place].remove(&mut self.timers, 0, id);
        self.mark(place);
        self.timers.remove(id);
    }

    /// When to call `expire` next. That call may only move timers and return none.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        if self.moving.is_some() || !self.places[DUE].is_empty() {
            return Some(self.elapsed_ms);
        }
        self.next_slot().map(|(_, at_ms)| at_ms)
    }

    /// Removes the next timer with a deadline of at most `now_ms`; `None` if there is none or
    /// `budget` is used up.
    pub fn expire(&mut self, now_ms: u64, budget: &mut usize) -> Option<K> {
        while *budget > 0 {
            if let Some(id) = self.places[DUE].pop_front(&mut self.timers, 0) {
                *budget -= 1;
                return Some(self.timers.remove(id).key);
            }
            if let Some(place) = self.moving {
                match self.places[place].pop_front(&mut self.timers, 0) {
                    Some(id) => {
                        *budget -= 1;
                        self.place(id);
                    }
                    None => {
                        self.mark(place);
                        self.moving = None;
                    }
                }
                continue;
            }
            match self.next_slot() {
                Some((place, at_ms)) if at_ms <= now_ms => {
                    self.elapsed_ms = at_ms;
                    self.moving = Some(place);
                }
                _ => {
                    self.elapsed_ms = self.elapsed_ms.max(now_ms);
                    return None;
                }
            }
        }
        None
    }

    /// The occupied slot with the earliest time, and that time.
    fn next_slot(&self) -> Option<(usize, u64)> {
        for (level, &occupied) in (0..LEVELS).zip(&self.occupied) {
            if occupied == 0 {
                continue;
            }
            let shift = DIGIT_BITS * level;
            let position = (self.elapsed_ms >> shift) & (SLOTS as u64 - 1);
            // Occupied slots are at or after the current one: with a smaller digit, a higher digit
            // of the deadline would differ, too.
            let slot = u64::from((occupied >> position).trailing_zeros()) + position;
            debug_assert!(slot < SLOTS as u64, "a timer in the past of the wheel");
            let span = SLOTS as u64 * (1 << shift);
            let start_ms = self.elapsed_ms / span * span + (slot << shift);
            let place = level as usize * SLOTS + usize::try_from(slot).unwrap_or(0);
            return Some((place, start_ms.max(self.elapsed_ms)));
        }
        None
    }

    /// Puts a timer that is in no list into the slot of its deadline.
    fn place(&mut self, id: RecordId) {
        let farthest_ms = (self.elapsed_ms | (SPAN_MS - 1)).max(self.elapsed_ms);
        let timer = &mut self.timers[id];
        let deadline_ms = timer.deadline_ms.min(farthest_ms);
        let place = if deadline_ms <= self.elapsed_ms {
            DUE
        } else {
            let digit = (deadline_ms ^ self.elapsed_ms).ilog2() / DIGIT_BITS;
            let slot = (deadline_ms >> (digit * DIGIT_BITS)) & (SLOTS as u64 - 1);
            digit as usize * SLOTS + usize::try_from(slot).unwrap_or(0)
        };
        timer.place = u16::try_from(place).unwrap_or(0);
        self.places[place].push_back(&mut self.timers, 0, id);
        self.mark(place);
    }

    /// Sets or clears a slot's bit in `occupied`.
    fn mark(&mut self, place: usize) {
        if let Some(bits) = self.occupied.get_mut(place / SLOTS) {
            let bit = 1 << (place % SLOTS);
            *bits = if self.places[place].is_empty() { *bits & !bit } else { *bits | bit };
        }
    }
}

const _: () = assert!(DUE < u16::MAX as usize);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn drain(timers: &mut Timers<u32>, now_ms: u64) -> Vec<u32> {
        let mut budget = usize::MAX;
        std::iter::from_fn(|| timers.expire(now_ms, &mut budget)).collect()
    }

    #[test]
    fn fires_at_its_millisecond_and_not_before() {
        let mut timers = Timers::new(1_000_000);
        for (key, delay_ms) in (0..).zip([1, 63, 64, 65, 4095, 4096, 300_000, 90_000_000]) {
            timers.insert(1_000_000 + delay_ms, key);
            assert_eq!(drain(&mut timers, 1_000_000), [0; 0]);
        }
        for (key, delay_ms) in (0..).zip([1, 63, 64, 65, 4095, 4096, 300_000, 90_000_000]) {
            assert_eq!(drain(&mut timers, 1_000_000 + delay_ms - 1), [0; 0]);
            assert_eq!(drain(&mut timers, 1_000_000 + delay_ms), [key]);
        }
        assert_eq!(timers.deadline_ms(), None);
    }

    #[test]
    fn one_call_does_no_more_than_its_budget() {
        let mut timers = Timers::new(0);
        for key in 0..1000 {
            timers.insert(100_000, key);
        }
        let mut calls = 0;
        let mut fired = Vec::new();
        while fired.len() < 1000 {
            let mut budget = 10;
            fired.extend(std::iter::from_fn(|| timers.expire(200_000, &mut budget)));
            calls += 1;
            assert!(timers.is_empty() || timers.deadline_ms().unwrap() <= 200_000);
        }
        assert!(calls > 200, "{calls}: moving between levels counts too");
    }

    proptest! {
        #[test]
        fn behaves_like_a_sorted_map(
            start_ms in 0u64..1 << 41,
            moves in prop::collection::vec((0u8..4, 0u64..1 << 22, 0usize..64), 0..300),
        ) {
            let mut timers = Timers::new(start_ms);
            let (mut now_ms, mut key) = (start_ms, 0);
            let mut model: BTreeMap<(u64, u32), TimerId> = BTreeMap::new();
            for (what, ms, which) in moves {
                match what {
                    0 | 1 => {
                        let deadline_ms = now_ms + (ms >> (which % 23));
                        model.insert((deadline_ms, key), timers.insert(deadline_ms, key));
                        key += 1;
                    }
                    2 => {
                        if let Some((&at, &id)) = model.iter().nth(which) {
                            timers.remove(id);
                            model.remove(&at);
                        }
                    }
                    _ => {
                        now_ms += ms >> (which % 23);
                        let later = model.split_off(&(now_ms + 1, 0));
                        let due: Vec<u32> = model.keys().map(|&(_, key)| key).collect();
                        let mut fired = drain(&mut timers, now_ms);
                        // Timers of one call come in the order of their deadlines.
                        let place = |key| model.keys().position(|&(_, other)| other == key);
                        let deadlines: Vec<_> = fired.iter()
                            .filter_map(|&key| model.keys().nth(place(key)?))
                            .map(|at| at.0)
                            .collect();
                        prop_assert!(deadlines.is_sorted());
                        fired.sort_unstable();
                        let mut due = due;
                        due.sort_unstable();
                        prop_assert_eq!(fired, due);
                        model = later;
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                let next = model.keys().next().map(|at| at.0);
                prop_assert_eq!(timers.deadline_ms().is_some(), next.is_some());
                if let (Some(at), Some(next)) = (timers.deadline_ms(), next) {
                    prop_assert!(at <= next.max(now_ms));
                }
            }
        }
    }
}
