//! The input of one connection: received bytes in, whole frames out.
//!
//! Small frames are cut in place in the driver's buffer; only an incomplete frame is copied. A body
//! of `OWNED_BODY_BYTES_MIN` or more gets an allocation of its own that a job may keep; while
//! `DIRECT_BYTES_MIN` or more of it are missing, the driver receives straight into it. Knows no
//! packet's meaning and no other connection.
//!
//! Invariant: memory grows with the bytes received (at most doubling), never with the size that a
//! header announces. A refused body is skipped, not stored.

use bytes::Bytes;

use crate::wire::buffer_pool::BufferPool;
use crate::wire::frame::{Cut, cut};
use crate::wire::{FrameError, HEADER_BYTES, Header, Payload};

/// Smallest body that is received into an allocation of its own, which a job keeps.
pub const OWNED_BODY_BYTES_MIN: usize = 8 << 10;
/// Missing bytes of a body from which the driver receives straight into its allocation.
pub const DIRECT_BYTES_MIN: usize = 64 << 10;
/// First allocation for an owned body; it doubles as bytes arrive.
const BODY_STEP_BYTES: usize = 64 << 10;
/// Bytes of a refused body that are kept to name its job: enough for a handle and its NUL.
const REFUSED_HEAD_BYTES: usize = 128;

const _: () = assert!(OWNED_BODY_BYTES_MIN > REFUSED_HEAD_BYTES);
const _: () = assert!(DIRECT_BYTES_MIN >= OWNED_BODY_BYTES_MIN);

/// Current limits for a connection's frames, and buffers for large ones.
#[derive(Clone, Copy, Debug)]
pub struct Bounds<'a> {
    /// Largest body that is accepted.
    pub body_bytes_max: usize,
    /// Bytes that this connection may hold: what jobs and other connections leave of
    /// `--memory-max`.
    pub memory_left: usize,
    /// Buffers of earlier large bodies.
    pub buffer_pool: Option<&'a BufferPool>,
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The body exceeds `Bounds::body_bytes_max`.
    TooLarge,
    /// The body exceeds `Bounds::memory_left`.
    OutOfMemory,
}

/// One frame, or the report that a frame is skipped.
#[derive(Debug)]
pub enum Arrival<'a> {
    /// A whole packet.
    Packet {
        /// Its header.
        header: Header,
        /// Its body.
        body: Payload<'a>,
    },
    /// An admin line.
    Line(&'a [u8]),
    /// A packet whose body is skipped.
    Refused {
        /// Its header.
        header: Header,
        /// The first bytes of its body.
        head: &'a [u8],
        /// The reason.
        why: Refusal,
    },
}

#[derive(Clone, Debug, Default)]
enum State {
    /// At a frame boundary, or inside a frame that is short enough for `partial`.
    #[default]
    Frames,
    /// Collecting an owned body.
    Body { header: Header, body: Vec<u8> },
    /// The driver owns the body's allocation and receives into it.
    Lent { header: Header, capacity: usize, bytes: usize },
    /// An owned body is complete; it is returned once and dropped at the next call.
    Whole { header: Header, body: Bytes },
    /// A refused body has been reported.
    Refused { head: Vec<u8>, left: usize },
    /// Skipping the rest of a refused body.
    Skipping { left: usize },
}

/// The receiving side of one connection.
#[derive(Clone, Debug, Default)]
pub struct Inbound {
    /// An incomplete frame, or whole frames that had to wait. Bytes before `start` are used up.
    partial: Vec<u8>,
    start: usize,
    /// Number of bytes from `start` on that are known to contain no line end.
    scanned: usize,
    state: State,
}

/// What `next` returns, decided before anything is borrowed for it.
enum Step {
    Nothing,
    Packet { header: Header, at: usize },
    Line { line_bytes: usize, used: usize },
    Whole,
    Refused { header: Header, why: Refusal },
}

impl Inbound {
    /// The next frame of the stored bytes and `input`, from which the used bytes are removed.
    /// `None` once all of `input` is used up.
    ///
    /// # Errors
    /// `FrameError`: nothing after it can be read; the connection is to be closed.
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        bounds: Bounds<'_>,
    ) -> Result<Option<Arrival<'s>>, FrameError> {
        let step = self.step(input, bounds)?;
        let arrival = match step {
            Step::Nothing => return Ok(None),
            Step::Whole => {
                let State::Whole { header, body } = &self.state else { return Ok(None) };
                return Ok(Some(Arrival::Packet { header: *header, body: Payload::shared(body) }));
            }
            Step::Refused { header, why } => {
                let State::Refused { head, .. } = &self.state else { return Ok(None) };
                return Ok(Some(Arrival::Refused { header, head, why }));
            }
            Step::Packet { header, at } => {
                let frame_bytes = at + header.body_bytes as usize;
                let frame = self.take(frame_bytes, input);
                let body = frame.get(at..).unwrap_or_default();
                Arrival::Packet { header, body: Payload::borrowed(body) }
            }
            Step::Line { line_bytes, used } => {
                let frame = self.take(used, input);
                Arrival::Line(frame.get(..line_bytes).unwrap_or_default())
            }
        };
        Ok(Some(arrival))
    }

    /// Stores bytes for later: the connection must wait before its next frame is handled.
    pub fn stash(&mut self, input: &[u8]) {
        self.partial.extend_from_slice(input);
    }

    /// Whether stored bytes may contain a whole frame.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        self.start < self.partial.len()
    }

    /// Whether nothing is stored: without input, `next` returns nothing.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.partial.is_empty() && matches!(self.state, State::Frames)
    }

    /// Whether a body is incomplete or being skipped.
    #[must_use]
    pub fn is_within_body(&self) -> bool {
        !matches!(self.state, State::Frames | State::Whole { .. })
    }

    /// Memory for this connection's incomplete frames, in bytes.
    #[inline]
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let body_bytes = if let State::Frames = self.state { 0 } else { self.body_bytes() };
        self.partial.len() + body_bytes
    }

    /// Memory for a large body.
    fn body_bytes(&self) -> usize {
        match &self.state {
            State::Body { body, .. } => body.capacity(),
            State::Lent { capacity, .. } => *capacity,
            State::Whole { body, .. } => body.len(),
            State::Refused { head, .. } => head.len(),
            State::Frames | State::Skipping { .. } => 0,
        }
    }

    /// Whether the driver should receive straight into a body: `DIRECT_BYTES_MIN` or more of it are
    /// missing.
    #[must_use]
    pub fn wants_direct(&self) -> bool {
        match &self.state {
            State::Body { header, body } => {
                header.body_bytes as usize - body.len() >= DIRECT_BYTES_MIN && !self.has_unread()
            }
            State::Lent { .. } => true,
            _ => false,
        }
    }

    /// Lends the body's allocation to the driver, which appends what it receives, at most the
    /// returned number of bytes, and gives it back. `None` unless `wants_direct`, or if it is lent.
    pub fn lend(&mut self) -> Option<(Vec<u8>, usize)> {
        if !self.wants_direct() {
            return None;
        }
        let State::Body { header, body } = &mut self.state else { return None };
        let (header, body) = (*header, std::mem::take(body));
        debug_assert!(body.len() < body.capacity(), "nothing to receive into");
        self.state = State::Lent { header, capacity: body.capacity(), bytes: body.len() };
        let bytes_max = body.capacity().min(header.body_bytes as usize) - body.len();
        Some((body, bytes_max))
    }

    /// Takes a lent allocation back; call `next` with no input afterwards. Returns how many bytes
    /// were received into it.
    pub fn give_back(&mut self, body: Vec<u8>) -> usize {
        let State::Lent { header, bytes, .. } = self.state else { return 0 };
        debug_assert!(body.len() <= header.body_bytes as usize);
        let received = body.len() - bytes;
        self.state = State::Body { header, body };
        received
    }

    /// Advances the state until there is something to return or no input left.
    fn step(&mut self, input: &mut &[u8], bounds: Bounds<'_>) -> Result<Step, FrameError> {
        loop {
            match &mut self.state {
                State::Frames => {
                    if let Some(step) = self.step_frames(input, bounds)? {
                        return Ok(step);
                    }
                }
                State::Whole { .. } => self.state = State::Frames,
                State::Refused { left, .. } => self.state = State::Skipping { left: *left },
                State::Skipping { left: 0 } => self.state = State::Frames,
                State::Skipping { left } => {
                    let left = *left;
                    let available = self.available(input);
                    if available == 0 {
                        self.forget_used();
                        return Ok(Step::Nothing);
                    }
                    self.take(left.min(available), input);
                    self.state = State::Skipping { left: left.saturating_sub(available) };
                }
                State::Body { .. } => {
                    if let Some(step) = self.step_body(input, bounds) {
                        return Ok(step);
                    }
                }
                State::Lent { .. } => {
                    self.stash(input);
                    *input = &[];
                    return Ok(Step::Nothing);
                }
            }
        }
    }

    /// In state `Frames`. `None` means that the state has changed.
    fn step_frames(
        &mut self,
        input: &mut &[u8],
        bounds: Bounds<'_>,
    ) -> Result<Option<Step>, FrameError> {
        let held = self.has_unread();
        if held && !input.is_empty() {
            self.partial.extend_from_slice(input);
            *input = &[];
        } else if !held {
            self.forget_used();
        }
        let bytes = if held { self.partial.get(self.start..).unwrap_or_default() } else { *input };
        let body_bytes_max = bounds.body_bytes_max;
        match cut(bytes, self.scanned)? {
            Cut::Packet { header, .. } if header.body_bytes as usize <= body_bytes_max => {
                Ok(Some(Step::Packet { header, at: HEADER_BYTES }))
            }
            Cut::Line { line, used } => Ok(Some(Step::Line { line_bytes: line.len(), used })),
            Cut::Packet { header, .. } | Cut::PartialBody(header) => {
                Ok(self.step_partial_body(header, input, bounds))
            }
            Cut::Partial => {
                let scanned = bytes.len();
                self.keep_tail(input);
                self.scanned = scanned;
                Ok(Some(Step::Nothing))
            }
        }
    }

    /// A header whose body is incomplete or too large.
    fn step_partial_body(
        &mut self,
        header: Header,
        input: &mut &[u8],
        bounds: Bounds<'_>,
    ) -> Option<Step> {
        let body_bytes = header.body_bytes as usize;
        let available = self.available(input);
        if body_bytes > bounds.body_bytes_max {
            let head_bytes = REFUSED_HEAD_BYTES.min(body_bytes);
            if available < HEADER_BYTES + head_bytes {
                self.keep_tail(input);
                return Some(Step::Nothing);
            }
            let frame = self.take(HEADER_BYTES + head_bytes, input);
            let head = frame.get(HEADER_BYTES..).unwrap_or_default().to_vec();
            self.state = State::Refused { head, left: body_bytes - head_bytes };
            return Some(Step::Refused { header, why: Refusal::TooLarge });
        }
        if body_bytes < OWNED_BODY_BYTES_MIN {
            self.keep_tail(input);
            return Some(Step::Nothing);
        }
        self.take(HEADER_BYTES, input);
        let pooled = bounds.buffer_pool.and_then(|pool| pool.take(body_bytes));
        let body = pooled.unwrap_or_default();
        self.state = State::Body { header, body };
        None
    }

    /// In state `Body`: appends what was received. `None` in any other state.
    fn step_body(&mut self, input: &mut &[u8], bounds: Bounds<'_>) -> Option<Step> {
        let State::Body { header, mut body } = std::mem::replace(&mut self.state, State::Frames)
        else {
            return None;
        };
        let total = header.body_bytes as usize;
        loop {
            if body.len() == total {
                let body = match bounds.buffer_pool {
                    Some(pool) => pool.share(body),
                    None => Bytes::from(body),
                };
                self.state = State::Whole { header, body };
                return Some(Step::Whole);
            }
            if body.len() == body.capacity() {
                let head_bytes = total.min(REFUSED_HEAD_BYTES);
                let mut capacity = total.min(BODY_STEP_BYTES.max(2 * body.len()));
                if capacity > bounds.memory_left {
                    if body.len() >= head_bytes {
                        let left = total - body.len();
                        body.truncate(REFUSED_HEAD_BYTES);
                        body.shrink_to_fit();
                        self.state = State::Refused { head: body, left };
                        return Some(Step::Refused { header, why: Refusal::OutOfMemory });
                    }
                    // The first bytes name the job whose result is refused.
                    capacity = head_bytes;
                }
                body.reserve_exact(capacity - body.len());
            }
            let available = self.available(input);
            let missing = body.capacity().min(total) - body.len();
            if available == 0 {
                self.forget_used();
                self.state = State::Body { header, body };
                return Some(Step::Nothing);
            }
            body.extend_from_slice(self.take(missing.min(available), input));
        }
    }

    /// Returns the next `bytes` bytes and marks them as used.
    fn take<'s, 'i: 's>(&'s mut self, bytes: usize, input: &mut &'i [u8]) -> &'s [u8] {
        self.scanned = 0;
        if self.has_unread() {
            let at = self.start;
            self.start += bytes;
            self.partial.get(at..self.start).unwrap_or_default()
        } else {
            let (taken, rest) = input.split_at_checked(bytes).unwrap_or((input, &[]));
            *input = rest;
            taken
        }
    }

    /// Stores the rest of `input`, an incomplete frame.
    fn keep_tail(&mut self, input: &mut &[u8]) {
        if self.has_unread() {
            // `step_frames` has appended the input to the stored bytes; drop the used ones.
            self.partial.drain(..self.start);
            self.start = 0;
        } else {
            self.partial.clear();
            self.start = 0;
            self.partial.extend_from_slice(input);
            *input = &[];
        }
    }

    /// Number of bytes in one piece: of those stored, or else of the input.
    fn available(&self, input: &[u8]) -> usize {
        if self.has_unread() { self.partial.len() - self.start } else { input.len() }
    }

    fn forget_used(&mut self) {
        // A new vector, as an idle connection must hold no buffer.
        self.partial = Vec::new();
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Command, Magic, encode};

    const BOUNDS: Bounds<'_> =
        Bounds { body_bytes_max: 1 << 20, memory_left: 1 << 20, buffer_pool: None };

    fn submit(payload_bytes: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let payload = vec![b'p'; payload_bytes];
        encode(&mut bytes, Magic::Request, Command::SubmitJob, &[b"f", b"u"], &payload);
        bytes
    }

    /// What arrives, in words.
    fn feed(inbound: &mut Inbound, mut input: &[u8], bounds: Bounds<'_>) -> Vec<String> {
        let mut arrivals = Vec::new();
        while let Some(arrival) = inbound.next(&mut input, bounds).unwrap() {
            arrivals.push(match arrival {
                Arrival::Packet { header, body } => {
                    let owned = if body.share().is_some() { "owned" } else { "borrowed" };
                    format!("{} {owned} {}", header.command.name(), body.bytes().len())
                }
                Arrival::Line(line) => format!("line {}", line.escape_ascii()),
                Arrival::Refused { why, head, .. } => format!("{why:?} {}", head.len()),
            });
        }
        arrivals
    }

    #[test]
    fn whole_frames_are_not_held_and_tails_are() {
        let mut inbound = Inbound::default();
        let bytes = [&submit(100)[..], b"status\r\n", &submit(100)[..50]].concat();
        assert_eq!(feed(&mut inbound, &bytes, BOUNDS), ["SUBMIT_JOB borrowed 104", "line status"]);
        assert_eq!(inbound.held_bytes(), 50);
        assert_eq!(feed(&mut inbound, &submit(100)[50..], BOUNDS), ["SUBMIT_JOB borrowed 104"]);
        assert_eq!(feed(&mut inbound, b"", BOUNDS).len(), 0);
        assert_eq!((inbound.held_bytes(), inbound.partial.capacity()), (0, 0));
    }

    #[test]
    fn a_large_body_in_pieces_gets_its_own_allocation() {
        let mut inbound = Inbound::default();
        let bytes = submit(OWNED_BODY_BYTES_MIN);
        let (head, rest) = bytes.split_at(20);
        assert_eq!(feed(&mut inbound, head, BOUNDS).len(), 0);
        assert!(!inbound.wants_direct(), "too little is missing");
        let expected = format!("SUBMIT_JOB owned {}", OWNED_BODY_BYTES_MIN + 4);
        let rest = [rest, b"version\n"].concat();
        assert_eq!(feed(&mut inbound, &rest, BOUNDS), [expected, "line version".to_owned()]);
        assert_eq!(inbound.held_bytes(), 0, "the job has it");
    }

    #[test]
    fn a_lent_body_comes_back_with_what_was_received() {
        let mut inbound = Inbound::default();
        let bytes = submit(200_000);
        let (head, mut rest) = bytes.split_at(5000);
        assert_eq!(feed(&mut inbound, head, BOUNDS).len(), 0);
        let (mut lends, mut arrivals) = (0, Vec::new());
        while let Some((mut body, room_bytes)) = inbound.lend() {
            assert!(inbound.lend().is_none(), "it is lent already");
            assert!(inbound.wants_direct() && inbound.held_bytes() == body.capacity());
            assert!(body.capacity() <= 2 * (bytes.len() - rest.len()).max(BODY_STEP_BYTES));
            let (now, later) = rest.split_at(room_bytes.min(rest.len()));
            body.extend_from_slice(now);
            rest = later;
            inbound.give_back(body);
            arrivals.extend(feed(&mut inbound, b"", BOUNDS));
            lends += 1;
        }
        assert!(lends >= 2, "the allocation grows as bytes arrive");
        arrivals.extend(feed(&mut inbound, rest, BOUNDS));
        assert_eq!(arrivals, ["SUBMIT_JOB owned 200004"]);
    }

    #[test]
    fn what_must_wait_keeps_its_order() {
        let mut inbound = Inbound::default();
        inbound.stash(b"first\nsec");
        inbound.stash(b"ond\n");
        assert!(inbound.has_unread());
        assert_eq!(
            feed(&mut inbound, b"third\n", BOUNDS),
            ["line first", "line second", "line third"]
        );
        assert!(!inbound.has_unread());
    }

    #[test]
    fn bodies_beyond_the_limit_are_reported_once_and_skipped() {
        let bounds = Bounds { body_bytes_max: 50_000, ..BOUNDS };
        let bytes = [&submit(60_000)[..], b"version\n"].concat();
        for step in [1, 100, 7000, bytes.len()] {
            let mut inbound = Inbound::default();
            let mut arrivals = Vec::new();
            for piece in bytes.chunks(step) {
                arrivals.extend(feed(&mut inbound, piece, bounds));
                assert!(inbound.held_bytes() <= HEADER_BYTES + REFUSED_HEAD_BYTES);
            }
            assert_eq!(arrivals, ["TooLarge 128", "line version"], "in steps of {step}");
        }
    }

    #[test]
    fn memory_that_is_not_there_is_not_taken_and_tells_whose_body_it_was() {
        // The first allocation was once refused before a single byte of the body was kept, so the
        // job of a refused result was unknown.
        for memory_left in [0, 1000, 70_000] {
            let bounds = Bounds { memory_left, ..BOUNDS };
            let bytes = [&submit(150_000)[..], b"version\n"].concat();
            let mut inbound = Inbound::default();
            let mut arrivals = Vec::new();
            for piece in bytes.chunks(1000) {
                arrivals.extend(feed(&mut inbound, piece, bounds));
                assert!(inbound.held_bytes() <= memory_left.max(REFUSED_HEAD_BYTES));
            }
            assert_eq!(arrivals, ["OutOfMemory 128", "line version"], "{memory_left} bytes left");
        }
    }

    #[test]
    fn a_request_without_arguments_is_one_when_its_last_byte_has_come() {
        // GRAB_JOB with a body was answered when its header had come, and a job assigned to a peer
        // that hadn't said all.
        let header = |bytes| crate::wire::header_bytes(Magic::Request, Command::GrabJob, bytes);
        let mut inbound = Inbound::default();
        let bytes = [&header(5)[..], b"hello"].concat();
        for byte in &bytes[..bytes.len() - 1] {
            assert!(inbound.next(&mut &[*byte][..], BOUNDS).unwrap().is_none());
        }
        let arrival = inbound.next(&mut &b"o"[..], BOUNDS).unwrap();
        assert!(matches!(arrival, Some(Arrival::Packet { .. })), "{arrival:?}");
        let mut inbound = Inbound::default();
        assert_eq!(
            inbound.next(&mut &header(3_000_000)[..], BOUNDS).unwrap_err(),
            FrameError::Body
        );
    }
}
