//! Which lines about peers may be written: at most one a second for each key, such as an address
//! and a reason, with the number of those left out since the line before.
//!
//! Keys in, leave to write out. Knows no lines.
//!
//! Invariant: each line that is left out is counted in exactly one that is written; what is kept
//! has a largest size.

use std::hash::Hash;

use foldhash::HashMap;

use crate::engine::Now;

/// Lines of one key are summed for so long before the next.
const PERIOD_MS: u64 = 1000;
/// Keys whose lines are told apart.
const KEYS_MAX: usize = 1024;

/// Lines of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// Left out since the last line.
    count: u64,
    /// When the next line may be written.
    next_ms: u64,
}

/// Lines by their keys.
#[derive(Clone, Debug)]
pub(crate) struct Throttle<K> {
    tallies: HashMap<K, Tally>,
    /// Lines whose keys have no tally of their own.
    others: Tally,
    /// When `report` has something to write.
    deadline_ms: Option<u64>,
}

impl<K> Default for Throttle<K> {
    fn default() -> Self {
        Self { tallies: HashMap::default(), others: Tally::default(), deadline_ms: None }
    }
}

impl<K: Eq + Hash> Throttle<K> {
    /// Whether a line may be written, and if so, how many were left out before it.
    pub(crate) fn note(&mut self, key: K, now: Now) -> Option<Option<u64>> {
        let is_known = self.tallies.contains_key(&key);
        if !is_known && self.tallies.len() >= KEYS_MAX {
            self.tallies.retain(|_, tally| tally.count > 0 || tally.next_ms > now.mono_ms);
        }
        let has_room = is_known || self.tallies.len() < KEYS_MAX;
        let tally = if has_room { self.tallies.entry(key).or_default() } else { &mut self.others };
        if now.mono_ms >= tally.next_ms {
            tally.next_ms = now.mono_ms + PERIOD_MS;
            let repeated = std::mem::take(&mut tally.count);
            Some((repeated > 0).then_some(repeated))
        } else {
            tally.count += 1;
            self.deadline_ms = self.deadline_ms.or(Some(tally.next_ms));
            None
        }
    }

    /// When `report` has something to write.
    #[inline]
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// Has `write` write how many lines of a key were left out, once its period is over; `None` are
    /// the keys that are beyond the largest number.
    pub(crate) fn report(&mut self, now: Now, mut write: impl FnMut(Option<&K>, u64)) {
        if self.deadline_ms.is_none_or(|at_ms| at_ms > now.mono_ms) {
            return;
        }
        let due = |tally: &mut Tally| {
            let is_due = tally.count > 0 && tally.next_ms <= now.mono_ms;
            if is_due {
                tally.next_ms = now.mono_ms + PERIOD_MS;
            }
            is_due.then(|| std::mem::take(&mut tally.count))
        };
        for (key, tally) in &mut self.tallies {
            if let Some(repeated) = due(tally) {
                write(Some(key), repeated);
            }
        }
        if let Some(repeated) = due(&mut self.others) {
            write(None, repeated);
        }
        self.tallies.retain(|_, tally| tally.count > 0 || tally.next_ms > now.mono_ms);
        let waiting = self.tallies.values().chain([&self.others]).filter(|tally| tally.count > 0);
        self.deadline_ms = waiting.map(|tally| tally.next_ms).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    #[test]
    fn lines_of_a_key_are_summed_for_a_second() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.note("a", at(10)), Some(None));
        assert_eq!(throttle.deadline_ms(), None, "it is written");
        assert_eq!(throttle.note("a", at(20)), None);
        assert_eq!(throttle.note("b", at(30)), Some(None));
        assert_eq!(throttle.deadline_ms(), Some(10 + PERIOD_MS));
        let mut reported = Vec::new();
        throttle.report(at(9 + PERIOD_MS), |key, count| reported.push((key.copied(), count)));
        assert!(reported.is_empty());
        throttle.report(at(10 + PERIOD_MS), |key, count| reported.push((key.copied(), count)));
        assert_eq!(reported, [(Some("a"), 1)]);
        assert_eq!(throttle.deadline_ms(), None);
        assert_eq!(throttle.note("a", at(20 + PERIOD_MS)), None, "a line was just written");
        assert_eq!(throttle.note("a", at(10 + 2 * PERIOD_MS)), Some(Some(1)));
    }

    #[test]
    fn keys_have_a_largest_number() {
        let mut throttle = Throttle::default();
        let written = (0..3 * KEYS_MAX).filter(|&key| throttle.note(key, at(10)).is_some());
        assert_eq!(written.count(), KEYS_MAX + 1);
        let mut reported = Vec::new();
        throttle.report(at(10 + PERIOD_MS), |key, count| reported.push((key.copied(), count)));
        assert_eq!(reported, [(None, 2 * KEYS_MAX as u64 - 1)]);
        assert_eq!((throttle.tallies.len(), throttle.deadline_ms()), (0, None));
    }
}
