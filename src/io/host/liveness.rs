//! What the kernel knows of a connection's output in, whether its peer's host is gone out.
//!
//! TCP_USER_TIMEOUT also ends connections whose peers don't read, as it doesn't count their hosts'
//! answers to probes of a closed window. So this looks, in rounds, at connections whose output may
//! be unacknowledged and that received nothing since the round before. An eighth of the time-out
//! lies between two rounds, and a turn looks at `LOOKS_PER_TURN` connections at most.
//!
//! Invariant: a connection is given up only if its host acknowledged nothing for the whole
//! time-out, while something waited to be acknowledged all the time.

use std::io::Error;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Connections that one turn looks at.
const LOOKS_PER_TURN: usize = 512;
/// Rounds in one time-out.
const ROUNDS: u64 = 8;
/// Least number of retransmissions and probes in one time-out. With more, the kernel would give up
/// on a host before a long time-out is over.
const PROBES: u64 = 4;
/// tcp(7), since Linux 6.15: the longest time between two retransmissions or probes.
const TCP_RTO_MAX_MS: libc::c_int = 44;
/// The least that the option takes.
const RTO_MAX_MS_MIN: u64 = 1000;
/// The most that it takes, and its default.
const RTO_MAX_MS_MAX: u64 = 120_000;

/// What the log says of a connection whose peer's host is gone.
pub(crate) const HOST_GONE: &str =
    "the peer's host acknowledges nothing any more; look after that host and the network";
/// The same when the kernel gave up on the host.
pub(crate) const HOST_SILENT: &str =
    "the peer's host doesn't answer; look after that host and the network";

/// Whether a connection broke because the kernel gave up on its peer's host.
pub(crate) fn is_unreachable(error: &Error) -> bool {
    use std::io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), HostUnreachable | NetworkUnreachable | TimedOut)
}

/// What the kernel knows of a connection's output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acks {
    /// Bytes in the kernel that the peer hasn't acknowledged.
    pub(crate) queued_bytes: usize,
    /// Some of them were sent; otherwise the peer's window is closed.
    in_flight: bool,
    /// Time since the last acknowledgement.
    last_ack_ms: u64,
    /// Time between the last retransmission and the next.
    retransmit_ms: u64,
    /// Unanswered probes of a closed window.
    probes: u8,
}

impl Acks {
    /// Asks the kernel about a socket.
    pub(crate) fn of(socket: &impl AsFd) -> Result<Self, Error> {
        // SAFETY: the struct has integer fields only, so all zeros are a value of it.
        #[allow(unsafe_code)]
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut bytes = u32::try_from(size_of_val(&info)).unwrap_or(0);
        let descriptor = socket.as_fd().as_raw_fd();
        let mut queued: libc::c_int = 0;
        // SAFETY: the kernel writes at most `bytes` bytes to `info` and an int to `queued`, both of
        // which are live.
        #[allow(unsafe_code)]
        let failed = unsafe {
            let info = (&raw mut info).cast();
            libc::getsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_INFO, info, &raw mut bytes)
                != 0
                || libc::ioctl(descriptor, libc::TIOCOUTQ, &raw mut queued) != 0
        };
        if failed {
            return Err(Error::last_os_error());
        }
        Ok(Self {
            queued_bytes: usize::try_from(queued).unwrap_or(0),
            in_flight: info.tcpi_unacked > 0,
            last_ack_ms: info.tcpi_last_ack_recv.into(),
            retransmit_ms: u64::from(info.tcpi_rto) / 1000,
            probes: info.tcpi_probes,
        })
    }
}

/// What the driver knows of one connection's output.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// The peer is a process of this host, of whose acknowledgements the kernel knows nothing.
    is_local: bool,
    /// Something was sent that may be unacknowledged.
    sent: bool,
    /// Something was received since the last round.
    heard: bool,
    /// When something was first found to be unacknowledged, with no acknowledgement since.
    unanswered_since_ms: Option<u64>,
}

impl Output {
    /// Something was received from the peer.
    #[inline]
    pub(crate) fn heard(&mut self) {
        self.heard = true;
    }
}

/// Decides when to look at which connections of a core.
#[derive(Debug)]
pub(crate) struct Liveness {
    /// 0 = hosts are never given up.
    timeout_ms: u64,
    /// When the next round begins, or the next portion of this one.
    due_ms: Option<u64>,
    /// The first connection of the next portion.
    at: usize,
    /// Output was in doubt since the round began, so that another round is needed.
    again: bool,
}

impl Liveness {
    /// Gives up on hosts after `timeout`; zero: never.
    pub(crate) fn new(timeout: Duration) -> Self {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        Self { timeout_ms, due_ms: None, at: 0, again: false }
    }

    /// When `next_portion` is to be called next.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// Something is being sent on a connection.
    #[inline]
    pub(crate) fn sent(&mut self, output: &mut Output, now_ms: u64) {
        output.sent = true;
        self.again = true;
        if self.due_ms.is_none() && self.timeout_ms > 0 {
            self.due_ms = Some(now_ms + self.timeout_ms.div_ceil(ROUNDS));
        }
    }

    /// The output of a new connection; one that migrated may have sent something before.
    pub(crate) fn begin(&mut self, now_ms: u64) -> Output {
        let mut output = Output::default();
        self.sent(&mut output, now_ms);
        output
    }

    /// The output of a connection to a process of this host, which is never in doubt.
    pub(crate) fn begin_local() -> Output {
        Output { is_local: true, ..Output::default() }
    }

    /// Returns which of the connections 0 to `end` to look at now.
    pub(crate) fn next_portion(&mut self, end: usize, now_ms: u64) -> Range<usize> {
        if self.due_ms.is_none_or(|at_ms| now_ms < at_ms) {
            return 0..0;
        }
        if self.at == 0 && !std::mem::take(&mut self.again) {
            self.due_ms = None;
            return 0..0;
        }
        let portion = self.at..end.min(self.at + LOOKS_PER_TURN);
        self.at = portion.end;
        if self.at >= end {
            self.at = 0;
            self.due_ms = Some(now_ms + self.timeout_ms.div_ceil(ROUNDS));
        }
        portion
    }

    /// Whether the kernel is to be asked about a connection; `is_sending`: the driver has something
    /// to send that the kernel doesn't take.
    pub(crate) fn is_in_doubt(&mut self, output: &mut Output, is_sending: bool) -> bool {
        let heard = std::mem::take(&mut output.heard);
        let in_doubt = !output.is_local && (output.sent || is_sending);
        self.again |= in_doubt;
        if heard {
            output.unanswered_since_ms = None;
        }
        in_doubt && !heard
    }

    /// Whether a connection's host is gone, by what the kernel answered.
    pub(crate) fn is_gone(
        &self,
        output: &mut Output,
        acks: &Acks,
        is_sending: bool,
        now_ms: u64,
    ) -> bool {
        output.sent = acks.queued_bytes > 0 || is_sending;
        if !acks.in_flight && acks.probes == 0 {
            output.unanswered_since_ms = None;
            return false;
        }
        let since_ms = output.unanswered_since_ms.get_or_insert(now_ms);
        if acks.last_ack_ms < now_ms - *since_ms {
            *since_ms = now_ms;
        }
        // A peer that closed its window over what was sent acknowledges retransmissions only, and
        // these come less and less often.
        let due = !acks.in_flight || acks.last_ack_ms >= acks.retransmit_ms;
        due && now_ms - *since_ms >= self.timeout_ms
    }
}

/// Makes the kernel retransmit and probe `PROBES` times in a time-out on sockets that a listener
/// accepts. Does nothing before Linux 6.15: there, the loss of a host that hadn't read for long is
/// found up to two minutes later.
pub(crate) fn probe_often(listener: &impl AsFd, timeout: Duration) {
    let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) / PROBES;
    let ms = i32::try_from(ms.clamp(RTO_MAX_MS_MIN, RTO_MAX_MS_MAX)).unwrap_or(i32::MAX);
    // SAFETY: the kernel reads an int, which lives until the call returns.
    #[allow(unsafe_code)]
    unsafe {
        libc::setsockopt(
            listener.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            TCP_RTO_MAX_MS,
            (&raw const ms).cast(),
            libc::socklen_t::try_from(size_of_val(&ms)).unwrap_or(0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_FLIGHT: Acks =
        Acks { queued_bytes: 100, in_flight: true, last_ack_ms: 0, retransmit_ms: 200, probes: 0 };
    const CLOSED: Acks = Acks { in_flight: false, ..IN_FLIGHT };

    fn liveness() -> Liveness {
        Liveness::new(Duration::from_secs(30))
    }

    /// The results of looks: each is given as its time and the time since the last acknowledgement,
    /// in seconds.
    fn looks(looks: &[(u64, u64)], acks: Acks) -> Vec<bool> {
        let (liveness, mut output) = (liveness(), Output::default());
        let look = |&(at_s, ago_s): &(u64, u64)| {
            let acks = Acks { last_ack_ms: ago_s * 1000, ..acks };
            liveness.is_gone(&mut output, &acks, true, at_s * 1000)
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn only_a_host_that_acknowledges_nothing_for_the_whole_time_out_is_gone() {
        // It was idle for an hour before.
        let silent = [(4000, 3600), (4029, 3629), (4030, 3630)];
        assert_eq!(looks(&silent, IN_FLIGHT), [false, false, true]);
        assert_eq!(looks(&[(0, 9), (29, 38), (31, 1), (60, 30)], IN_FLIGHT), [false; 4]);
        assert!(looks(&[(0, 9), (31, 1), (60, 30), (61, 31)], IN_FLIGHT)[3]);
        let rare = Acks { retransmit_ms: 51_200, ..IN_FLIGHT };
        assert_eq!(looks(&[(0, 9), (40, 49)], rare), [false; 2], "nothing was due meanwhile");
        assert_eq!(looks(&[(0, 9), (43, 52)], rare), [false, true]);
    }

    #[test]
    fn a_peer_that_does_not_read_stays_while_its_host_answers_probes() {
        let silent = [(0, 60), (29, 89), (30, 90)];
        assert_eq!(looks(&silent, CLOSED), [false; 3], "the kernel doesn't ask so often");
        let asked = Acks { probes: 1, ..CLOSED };
        assert_eq!(looks(&silent, asked), [false, false, true]);
        assert_eq!(looks(&[(0, 60), (30, 2), (59, 31)], asked), [false; 3]);
        let (liveness, mut output) = (liveness(), Output::default());
        let mut look = |acks: Acks, at_s: u64| {
            let acks = Acks { last_ack_ms: at_s * 1000, ..acks };
            liveness.is_gone(&mut output, &acks, true, at_s * 1000)
        };
        let found = [(asked, 1), (CLOSED, 20), (asked, 40)].map(|(acks, at_s)| look(acks, at_s));
        assert_eq!(found, [false; 3], "the answer that was on its way has come");
    }

    #[test]
    fn rounds_go_on_while_something_is_in_doubt_and_then_rest() {
        let (mut liveness, mut output) = (liveness(), Output::default());
        assert_eq!(liveness.deadline_ms(), None);
        liveness.sent(&mut output, 1000);
        assert_eq!((liveness.deadline_ms(), liveness.next_portion(600, 4749)), (Some(4750), 0..0));
        assert_eq!(
            [liveness.next_portion(600, 4750), liveness.next_portion(600, 4750)],
            [0..512, 512..600]
        );
        output.heard();
        assert!(!liveness.is_in_doubt(&mut output, false), "it lives");
        assert_eq!(liveness.next_portion(1, 16_000), 0..1);
        assert!(liveness.is_in_doubt(&mut output, false));
        let acknowledged = Acks { queued_bytes: 0, in_flight: false, ..IN_FLIGHT };
        assert!(!liveness.is_gone(&mut output, &acknowledged, false, 16_000));
        assert!(!liveness.is_in_doubt(&mut output, false));
        assert_eq!(liveness.next_portion(1, 23_500), 0..1, "it was in doubt in the last round");
        assert!(!liveness.is_in_doubt(&mut output, false));
        assert_eq!((liveness.next_portion(1, 31_000), liveness.deadline_ms()), (0..0, None));
        let mut local = Liveness::begin_local();
        liveness.sent(&mut local, 40_000);
        assert_eq!(liveness.next_portion(1, 43_750), 0..1);
        assert!(!liveness.is_in_doubt(&mut local, true), "no host is between");
        assert_eq!((liveness.next_portion(1, 47_500), liveness.deadline_ms()), (0..0, None));
        let mut never = Liveness::new(Duration::ZERO);
        never.sent(&mut output, 1000);
        assert_eq!(never.deadline_ms(), None);
    }
}
