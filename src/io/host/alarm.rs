//! When a core's timers may fire: a deadline and the time in, "now" or "not yet" out.
//!
//! A core that was stopped (SIGSTOP, a suspended machine) or had no processor finds a timer overdue
//! before it has read what came in time, a result for example. So a timer fires in the turn after
//! the one that found it due, which looked at the kernel after the deadline. When the core is late
//! it fires some turns later, so that other cores, stopped with it, can read and pass on what came
//! to them. Knows no clock and no shard.
//!
//! Invariant: a timer that stays due fires at most `GRACE_MS` and one turn after it was found.

/// A core that finds a timer overdue for longer than this was stopped or had no processor.
const LATE_MS: u64 = 20;
/// How long such a core reads and receives messages before its timers fire.
const GRACE_MS: u64 = 20;

/// The state between the turn that finds a timer due and the one in which it fires.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    fires_at_ms: Option<u64>,
    /// Timers that were due by then have been waited for. A shard fires them some at a time.
    waited_for_ms: u64,
}

impl Alarm {
    /// Returns whether timers may fire in this turn, of which the first is due at `deadline_ms`.
    /// Called once a turn, after its reads.
    #[inline]
    pub(crate) fn poll_due(&mut self, deadline_ms: Option<u64>, now_ms: u64) -> bool {
        let Some(due_ms) = deadline_ms.filter(|&at_ms| at_ms <= now_ms) else {
            self.fires_at_ms = None;
            return false;
        };
        match self.fires_at_ms {
            None => {
                let is_late = now_ms - due_ms > LATE_MS && due_ms > self.waited_for_ms;
                self.fires_at_ms = Some(now_ms + if is_late { GRACE_MS } else { 0 });
                self.waited_for_ms = now_ms;
                false
            }
            Some(at_ms) if now_ms < at_ms => false,
            Some(_) => {
                self.fires_at_ms = None;
                true
            }
        }
    }

    /// When `poll_due` is to be called next.
    #[inline]
    pub(crate) fn deadline_ms(&self, deadline_ms: Option<u64>) -> Option<u64> {
        self.fires_at_ms.or(deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_in_the_turn_after_the_one_that_found_it_due() {
        let mut alarm = Alarm::default();
        assert!(!alarm.poll_due(None, 99) && !alarm.poll_due(Some(100), 99));
        assert_eq!(alarm.deadline_ms(Some(100)), Some(100));
        assert!(!alarm.poll_due(Some(100), 100));
        assert_eq!(alarm.deadline_ms(Some(100)), Some(100), "the next turn doesn't wait");
        assert!(alarm.poll_due(Some(100), 100));
    }

    #[test]
    fn after_a_pause_what_came_is_read_first() {
        // On SIGCONT the drivers let a job's time-out fire before they read the result, which had
        // come in time.
        let mut alarm = Alarm::default();
        assert!(!alarm.poll_due(Some(100), 5000));
        assert!(!alarm.poll_due(Some(100), 5000 + GRACE_MS - 1));
        assert_eq!(alarm.deadline_ms(Some(100)), Some(5000 + GRACE_MS));
        assert!(alarm.poll_due(Some(100), 5000 + GRACE_MS));
        // The result was read: nothing is due any more, and the next timer waits anew.
        assert!(!alarm.poll_due(Some(6000), 9000));
        assert!(!alarm.poll_due(None, 9001));
        assert!(!alarm.poll_due(Some(9002), 9002) && alarm.poll_due(Some(9002), 9002));
    }

    #[test]
    fn a_burst_of_timers_waits_once() {
        // A shard fires some thousand timers at a time. Each portion of those that were due at one
        // time waited anew: a million delayed jobs came 5 s late.
        let mut alarm = Alarm::default();
        let mut fired = Vec::new();
        for now_ms in 200..300 {
            if alarm.poll_due(Some(100), now_ms) {
                fired.push(now_ms);
            }
        }
        assert_eq!(fired[..3], [220, 222, 224], "each after another look at the kernel");
        // A timer that becomes due meanwhile waits by itself.
        let mut alarm = Alarm::default();
        assert!(!alarm.poll_due(Some(100), 200) && alarm.poll_due(Some(100), 220));
        assert!(!alarm.poll_due(Some(201), 300) && !alarm.poll_due(Some(201), 319));
        assert!(alarm.poll_due(Some(201), 320));
    }
}
