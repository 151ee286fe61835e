//! Receives, sends and the time of a connection in, whether to acknowledge it at once out.
//!
//! Nagle's algorithm holds a program's small write back until the one before it is acknowledged,
//! and the kernel delays an acknowledgement by 40 ms where no answer carries it. So a program that
//! writes WORK_COMPLETE and GRAB_JOB apart, or a header and its body, gets 20 jobs a second. The
//! server sees a stall: bytes without an answer, silence as long as the delay, then the rest. Knows
//! no socket and no packet.
//!
//! Invariant: a connection is acknowledged at once only after stalls, and no longer than that pays:
//! where it doesn't, it takes twice as many stalls the next time.

use std::ops::RangeInclusive;

use tracing::debug;

use crate::engine::ConnId;

/// Silence that may be a stall: Linux sends a delayed acknowledgement after 40 ms and up to one
/// tick of its timer (1 to 10 ms), and the peer's next write comes a round trip later. Less than
/// 40, as a busy core sees the first bytes late; with round trips beyond 50 ms they, and not the
/// stalls, are what a job takes.
const STALL_MS: RangeInclusive<u64> = 36..=100;
/// Stalls after which a connection is acknowledged at once. One gap of this length is nothing
/// special, and each costs a job that time once.
const STALLS_MIN: u8 = 2;
/// The most that it takes, after trials that brought nothing.
const STALLS_MAX: u8 = 128;
/// An acknowledgement has paid if the next bytes come this much sooner than they did in the stall:
/// half a delay.
const SAVED_MS: u64 = 20;
/// Acknowledgements in a row that brought nothing, after which the trial ends.
const VAIN_MAX: u8 = 3;
/// Acknowledgements until the connection has to stall once more to prove that it still would:
/// bytes that would come soon anyway come soon after them, too.
const TRIAL_ACKS: u16 = 128;
/// By how much each proof extends the next trial, in powers of two, and for how many proofs: in the
/// end one stall costs 44 ms in 8192 acknowledgements.
const PROOF_SHIFT: u8 = 3;
const PROOFS_MAX: u8 = 2;
/// Small receives that were followed by more at once, without an acknowledgement or an answer: no
/// write was held back there. Several, as the kernel sometimes acknowledges at once by itself.
const PROMPT_MAX: u8 = 3;
/// A receive of at most so many bytes took in all that had come: a segment holds more.
const SMALL_BYTES: usize = 1200;
/// A time that is far from any other.
const NEVER_MS: u64 = 1 << 63;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Stalls are counted.
    Watching,
    /// What is received is acknowledged at once.
    Trial,
    /// Nothing is acknowledged at once until there is a stall, or it is clear that there is none.
    Proof,
}

/// What was received last. Not kept up while watching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// It may have been a part of what had come.
    Large,
    Small,
    /// It is to be acknowledged at the end of the turn, unless an answer does that.
    Due,
    Acknowledged,
}

/// What a connection's receives and sends so far say about its peer.
#[derive(Debug)]
pub(crate) struct Stalls {
    /// When something was received last; `NEVER_MS` if something was sent since.
    unanswered_ms: u64,
    /// Acknowledgements that are left of this trial.
    acks_left: u16,
    /// How long the last stall was.
    stall_ms: u8,
    /// Stalls that the next trial takes.
    stalls_needed: u8,
    /// Watching: stalls so far. Trial: acknowledgements in a row that brought nothing. Proof: small
    /// receives that were followed by more at once.
    count: u8,
    /// Proofs since the first trial, up to `PROOFS_MAX`.
    proofs: u8,
    phase: Phase,
    last: Last,
}

/// What a receive means for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is the kernel's matter, or decided in this turn already.
    Nothing,
    /// It is due at the end of the turn.
    Due,
    /// The same, and it is the first of a trial.
    Begins,
}

impl Stalls {
    /// Of a new connection; `is_remote`: its peer comes over TCP.
    pub(crate) fn new(is_remote: bool) -> Self {
        Self {
            unanswered_ms: NEVER_MS,
            acks_left: 0,
            stall_ms: 0,
            stalls_needed: if is_remote { STALLS_MIN } else { u8::MAX },
            count: 0,
            proofs: 0,
            phase: Phase::Watching,
            last: Last::Large,
        }
    }

    /// Something is being sent, which carries an acknowledgement.
    #[inline]
    pub(crate) fn answered(&mut self) {
        self.unanswered_ms = NEVER_MS;
    }

    /// So many bytes were received.
    #[inline]
    fn received(&mut self, bytes: usize, now_ms: u64) -> Verdict {
        let before_ms = std::mem::replace(&mut self.unanswered_ms, now_ms);
        let gap_ms = now_ms.wrapping_sub(before_ms);
        if self.phase == Phase::Watching && !STALL_MS.contains(&gap_ms) {
            return Verdict::Nothing;
        }
        self.judge(bytes, gap_ms)
    }

    /// `gap_ms`: since the receive before, if nothing was sent meanwhile; else far more.
    #[cold]
    fn judge(&mut self, bytes: usize, gap_ms: u64) -> Verdict {
        let is_unanswered = gap_ms < NEVER_MS / 2;
        let is_stall = STALL_MS.contains(&gap_ms);
        let now = if bytes <= SMALL_BYTES { Last::Small } else { Last::Large };
        let before = std::mem::replace(&mut self.last, now);
        let mut verdict = if before == Last::Due { Verdict::Nothing } else { Verdict::Due };
        match (self.phase, before) {
            (Phase::Watching, _) => {
                self.count = self.count.saturating_add(1).min(STALLS_MAX);
                if self.count >= self.stalls_needed {
                    self.begin(gap_ms);
                    verdict = Verdict::Begins;
                }
            }
            (Phase::Trial, Last::Acknowledged) if is_unanswered => {
                let is_vain = gap_ms + SAVED_MS > self.stall_ms.into();
                self.count = if is_vain { self.count + 1 } else { 0 };
                if self.count >= VAIN_MAX {
                    self.give_up();
                }
            }
            (Phase::Proof, Last::Small | Last::Large) if is_stall => {
                self.stalls_needed = STALLS_MIN;
                self.proofs = PROOFS_MAX.min(self.proofs + 1);
                self.begin(gap_ms);
            }
            (Phase::Proof, Last::Small) if gap_ms < *STALL_MS.start() => {
                self.count += 1;
                if self.count >= PROMPT_MAX {
                    self.give_up();
                }
            }
            (Phase::Trial | Phase::Proof, _) => {}
        }
        if self.phase != Phase::Trial {
            return Verdict::Nothing;
        }
        self.last = Last::Due;
        verdict
    }

    fn begin(&mut self, stall_ms: u64) {
        self.phase = Phase::Trial;
        self.count = 0;
        self.acks_left = TRIAL_ACKS << (PROOF_SHIFT * self.proofs);
        self.stall_ms = u8::try_from(stall_ms).unwrap_or(u8::MAX);
    }

    fn give_up(&mut self) {
        self.phase = Phase::Watching;
        self.count = 0;
        self.proofs = 0;
        self.stalls_needed = self.stalls_needed.saturating_mul(2).min(STALLS_MAX);
    }

    /// Whether to acknowledge now what was received in this turn.
    pub(crate) fn take_due(&mut self) -> bool {
        if self.last != Last::Due {
            return false;
        }
        self.last = Last::Large;
        if self.unanswered_ms == NEVER_MS {
            return false;
        }
        self.last = Last::Acknowledged;
        self.acks_left = self.acks_left.saturating_sub(1);
        if self.acks_left == 0 {
            self.phase = Phase::Proof;
            self.count = 0;
        }
        true
    }
}

/// A core's connections that may be due to be acknowledged at the end of the turn, by the driver's
/// numbers.
#[derive(Debug, Default)]
pub(crate) struct QuickAcks {
    due: Vec<usize>,
    /// The kernel can't.
    is_refused: bool,
}

impl QuickAcks {
    /// So many bytes were received on a connection that the driver calls `key`.
    #[inline]
    pub(crate) fn received(
        &mut self,
        stalls: &mut Stalls,
        (key, conn): (usize, ConnId),
        bytes: usize,
        now_ms: u64,
    ) {
        let verdict = stalls.received(bytes, now_ms);
        if verdict != Verdict::Nothing {
            self.note(verdict, key, conn);
        }
    }

    #[cold]
    fn note(&mut self, verdict: Verdict, key: usize, conn: ConnId) {
        if self.is_refused {
            return;
        }
        if verdict == Verdict::Begins {
            debug!(
                conn = conn.number(),
                "acknowledged at once: the peer writes packets apart, or in parts, and waits for \
                 each part's acknowledgement; TCP_NODELAY in its program does without"
            );
        }
        self.due.push(key);
    }

    /// The kernel refused an acknowledgement; returns whether it is the first. No connection is
    /// named any more.
    pub(crate) fn refused(&mut self) -> bool {
        self.due.clear();
        !std::mem::replace(&mut self.is_refused, true)
    }

    /// Returns the next one; whether it is due its `Stalls` say.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<usize> {
        self.due.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection and the time.
    struct Peer {
        stalls: Stalls,
        now_ms: u64,
    }

    impl Peer {
        fn new(is_remote: bool) -> Self {
            Self { stalls: Stalls::new(is_remote), now_ms: 1000 }
        }

        /// Receives in a turn that is so much later; returns whether that is acknowledged at once.
        fn receives(&mut self, bytes: usize, later_ms: u64) -> bool {
            self.now_ms += later_ms;
            self.stalls.received(bytes, self.now_ms);
            self.ends_turn()
        }

        /// Receives several times, so many ms apart; returns how often that is acknowledged.
        fn acks_of(&mut self, times: usize, gap_ms: u64) -> usize {
            (0..times).filter(|_| self.receives(100, gap_ms)).count()
        }

        /// Receives, with an answer in that turn.
        fn is_answered(&mut self, bytes: usize, later_ms: u64) {
            self.now_ms += later_ms;
            self.stalls.received(bytes, self.now_ms);
            self.stalls.answered();
            assert!(!self.ends_turn(), "the answer acknowledges");
        }

        fn ends_turn(&mut self) -> bool {
            let is_due = self.stalls.take_due();
            assert!(!self.stalls.take_due(), "once is enough");
            is_due
        }

        /// Gets a job, whose result and next grab it writes apart. Returns whether it stalled.
        fn works(&mut self, delay_ms: u64, round_trip_ms: u64) -> bool {
            let is_prompt = self.receives(40, 5);
            let gap_ms = round_trip_ms + if is_prompt { 0 } else { delay_ms };
            self.is_answered(12, gap_ms);
            !is_prompt
        }

        /// Stalls of so many jobs.
        fn stalls_of(&mut self, jobs: usize, round_trip_ms: u64) -> usize {
            (0..jobs).filter(|_| self.works(44, round_trip_ms)).count()
        }
    }

    #[test]
    fn a_worker_that_writes_apart_stalls_twice_and_then_once_in_a_while() {
        for round_trip_ms in [0, 1, 30, 50] {
            let mut peer = Peer::new(true);
            assert_eq!(peer.stalls_of(2 + 128, round_trip_ms), 2, "{round_trip_ms}");
            assert_eq!(peer.stalls_of(1 + 1024, round_trip_ms), 1, "{round_trip_ms}");
            assert_eq!(peer.stalls_of(5 * (1 + 8192), round_trip_ms), 5, "{round_trip_ms}");
        }
    }

    #[test]
    fn every_delay_of_linux_is_a_stall() {
        // A tick of 1, 4 and 10 ms, and bytes that were seen late.
        for delay_ms in [37, 40, 41, 44, 50] {
            let mut peer = Peer::new(true);
            assert_eq!((0..130).filter(|_| peer.works(delay_ms, 0)).count(), 2, "{delay_ms}");
        }
    }

    #[test]
    fn large_writes_and_long_pauses_between_jobs_change_nothing() {
        let mut peer = Peer::new(true);
        assert_eq!(peer.stalls_of(2, 0), 2);
        for _ in 0..60 {
            assert!(peer.receives(60_000, 700), "a result");
            peer.is_answered(12, 0);
            assert!(!peer.works(44, 0), "a job");
        }
    }

    #[test]
    fn what_is_answered_is_never_acknowledged_at_once() {
        let mut peer = Peer::new(true);
        (0..200).chain([40; 100]).for_each(|gap_ms| peer.is_answered(100, gap_ms));
    }

    #[test]
    fn prompt_writers_and_slow_ones_are_never_acknowledged_at_once() {
        for gap_ms in [0, 1, 10, 30, 35, 101, 150, 1000, 100_000] {
            let mut peer = Peer::new(true);
            assert_eq!(peer.acks_of(500, gap_ms), 0, "{gap_ms}");
        }
    }

    /// Reports of a running job, say, every 50 ms.
    #[test]
    fn a_peer_that_writes_as_seldom_as_it_would_stall_costs_ever_less() {
        for gap_ms in [36, 50, 100] {
            let mut peer = Peer::new(true);
            let acks = peer.acks_of(10_000, gap_ms);
            assert!((20..=300).contains(&acks), "{gap_ms}: {acks}");
        }
    }

    /// Nagle's algorithm is off there, and two pauses looked like stalls.
    #[test]
    fn a_trial_ends_where_bytes_come_at_once_without_acknowledgements() {
        let mut peer = Peer::new(true);
        assert_eq!(peer.acks_of(3, 50) + peer.acks_of(10_000, 1), 128);
        // Next time it takes four.
        assert_eq!((peer.acks_of(3, 50), peer.acks_of(1, 50)), (0, 1));
    }

    /// A part of a large body is followed by the next whether it is acknowledged or not.
    #[test]
    fn parts_of_large_bodies_prove_nothing() {
        let mut peer = Peer::new(true);
        assert_eq!(peer.stalls_of(2 + 128, 0), 2);
        (0..100).for_each(|_| assert!(!peer.receives(8192, 1)));
        assert!(!peer.receives(100, 1));
        peer.is_answered(12, 44);
        assert_eq!(peer.stalls_of(1024, 0), 0);
    }

    #[test]
    fn a_trial_ends_with_the_program_that_needed_it_and_begins_anew() {
        let mut peer = Peer::new(true);
        assert_eq!(peer.stalls_of(50, 0), 2);
        // Now it only reports.
        assert_eq!(peer.acks_of(50, 200), 3);
        assert_eq!(peer.stalls_of(4 + 128, 0), 4);
    }

    #[test]
    fn a_process_of_this_host_is_never_acknowledged_at_once() {
        let mut peer = Peer::new(false);
        assert_eq!(peer.stalls_of(1000, 0), 1000);
    }

    #[test]
    fn a_connection_that_is_due_is_named_once() {
        let (mut acks, mut stalls) = (QuickAcks::default(), Stalls::new(true));
        let key = (7, ConnId::from_index(3));
        for now_ms in [1000, 1044, 1088, 1088, 1088] {
            acks.received(&mut stalls, key, 100, now_ms);
        }
        assert_eq!((acks.next(), acks.next()), (Some(7), None));
        assert!(stalls.take_due());
        assert_eq!([acks.refused(), acks.refused()], [true, false]);
        acks.received(&mut stalls, key, 100, 1090);
        assert_eq!(acks.next(), None);
    }
}
