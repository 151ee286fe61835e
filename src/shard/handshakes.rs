//! TLS handshakes of one core that aren't finished: how many there are, and until when each may
//! take; and how those that have ended did.
//!
//! Knows no records.
//!
//! Invariant: each handshake ends once, with one result.

use std::collections::VecDeque;

use crate::engine::{ConnId, Now};
use crate::wire::tls::HandshakeResult;

/// Number of results.
pub(super) const RESULTS: usize = HandshakeResult::ALL.len();

/// A handshake that has begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    /// When it must have ended, in milliseconds of `Now::mono_ms`.
    deadline_ms: u64,
    conn: ConnId,
    generation: u32,
}

/// One core's handshakes.
#[derive(Clone, Debug, Default)]
pub(super) struct Handshakes {
    open: usize,
    /// In the order of their deadlines; those that have ended since are among them.
    begun: VecDeque<Begun>,
    totals: [u64; RESULTS],
}

impl Handshakes {
    /// Handshakes that haven't ended.
    #[inline]
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// How many have ended with each result.
    pub(super) fn totals(&self) -> [u64; RESULTS] {
        self.totals
    }

    /// A handshake begins, and may take `timeout_ms`.
    pub(super) fn begin(&mut self, conn: ConnId, generation: u32, timeout_ms: u64, now: Now) {
        self.open += 1;
        let deadline_ms = now.mono_ms.saturating_add(timeout_ms);
        self.begun.push_back(Begun { deadline_ms, conn, generation });
    }

    /// A handshake has ended; without a result its peer left before it said anything.
    pub(super) fn end(&mut self, result: Option<HandshakeResult>) {
        self.open -= 1;
        if let Some(result) = result {
            self.totals[result as usize] += 1;
        }
        if self.open == 0 {
            self.begun.clear();
        }
    }

    /// When the next of them, if it is still open, has taken too long.
    #[inline]
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        self.begun.front().map(|begun| begun.deadline_ms)
    }

    /// The next connection whose handshake has taken too long, if that is still open, with its
    /// generation.
    pub(super) fn pop_late(&mut self, now: Now) -> Option<(ConnId, u32)> {
        self.begun.front().filter(|begun| begun.deadline_ms <= now.mono_ms)?;
        self.begun.pop_front().map(|late| (late.conn, late.generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, unix_ms: 0 }
    }

    #[test]
    fn each_has_its_time_from_its_beginning() {
        let mut handshakes = Handshakes::default();
        let [first, second] = [7, 9].map(ConnId::from_number);
        handshakes.begin(first, 1, 100, at(10));
        handshakes.begin(second, 2, 100, at(50));
        assert_eq!((handshakes.open(), handshakes.deadline_ms()), (2, Some(110)));
        assert_eq!(handshakes.pop_late(at(109)), None);
        assert_eq!(handshakes.pop_late(at(110)), Some((first, 1)));
        assert_eq!(handshakes.pop_late(at(110)), None);
        handshakes.end(Some(HandshakeResult::Timeout));
        handshakes.end(None);
        assert_eq!((handshakes.open(), handshakes.deadline_ms()), (0, None));
        assert_eq!(handshakes.totals().iter().sum::<u64>(), 1);
    }
}
