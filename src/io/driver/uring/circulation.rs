//! How many of a ring's buffers circulate between the kernel and the driver: what turns use goes
//! in, a number comes out. Knows no ring and no memory.
//!
//! A receive that finds no buffer doubles the number at the end of its turn. `SPAN_TURNS` turns of
//! which none used more than a quarter halve it.
//!
//! Invariant: the number lies between the least and the most.

/// Turns after which fewer buffers may circulate: a burst that comes back sooner finds what it
/// needed the last time.
const SPAN_TURNS: u16 = 4096;

/// Decides how many buffers circulate.
#[derive(Debug)]
pub(super) struct Circulation {
    least: u16,
    most: u16,
    wanted: u16,
    /// A receive of this turn found no buffer.
    is_starved: bool,
    /// Most buffers that a turn of this span has used.
    used_max: u16,
    turns: u16,
}

impl Circulation {
    pub(super) fn new(least: u16, most: u16) -> Self {
        debug_assert!(least <= most);
        Self { least, most, wanted: least, is_starved: false, used_max: 0, turns: 0 }
    }

    /// How many buffers are to circulate.
    #[inline]
    pub(super) fn wanted(&self) -> u16 {
        self.wanted
    }

    /// A receive found no buffer.
    pub(super) fn starved(&mut self) {
        self.is_starved = true;
    }

    /// A turn has used so many buffers. Returns how many are to circulate.
    #[inline]
    pub(super) fn end_turn(&mut self, used: u16) -> u16 {
        self.used_max = self.used_max.max(used);
        self.turns += 1;
        if self.is_starved {
            self.begin_span(self.wanted.saturating_mul(2).min(self.most));
        } else if self.turns == SPAN_TURNS {
            let is_idle = self.used_max <= self.wanted / 4;
            let wanted = if is_idle { (self.wanted / 2).max(self.least) } else { self.wanted };
            self.begin_span(wanted);
        }
        self.wanted
    }

    fn begin_span(&mut self, wanted: u16) {
        (self.wanted, self.is_starved, self.used_max, self.turns) = (wanted, false, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_span(circulation: &mut Circulation, used: u16) -> u16 {
        (0..SPAN_TURNS).map(|_| circulation.end_turn(used)).last().unwrap()
    }

    #[test]
    fn a_starved_turn_doubles_them_once_up_to_the_most() {
        let mut circulation = Circulation::new(3, 16);
        assert_eq!(circulation.end_turn(3), 3);
        let numbers = [0; 4].map(|_| {
            circulation.starved();
            circulation.starved();
            circulation.end_turn(3)
        });
        assert_eq!(numbers, [6, 12, 16, 16]);
        assert_eq!(circulation.end_turn(3), 16);
    }

    #[test]
    fn a_span_of_little_use_halves_them_down_to_the_least() {
        let mut circulation = Circulation::new(3, 16);
        (0..3).for_each(|_| {
            circulation.starved();
            circulation.end_turn(3);
        });
        assert_eq!(after_span(&mut circulation, 5), 16, "more than a quarter");
        assert_eq!([4, 1, 0].map(|used| after_span(&mut circulation, used)), [8, 4, 3]);
        assert_eq!(after_span(&mut circulation, 0), 3);
    }

    #[test]
    fn one_busy_turn_of_a_span_keeps_them() {
        let mut circulation = Circulation::new(2, 8);
        (0..2).for_each(|_| {
            circulation.starved();
            circulation.end_turn(2);
        });
        circulation.end_turn(3);
        let numbers: Vec<u16> = (1..SPAN_TURNS).map(|_| circulation.end_turn(0)).collect();
        assert!(numbers.iter().all(|&number| number == 8));
        assert_eq!(after_span(&mut circulation, 0), 4, "it counts in its own span only");
    }
}
