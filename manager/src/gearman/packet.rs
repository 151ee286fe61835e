//! Packets between a worker and a server: bytes in, packets out; requests in, bytes out.
//!
//! Knows the layout of the packets that a worker needs, but no connection and no order of them.
//!
//! Invariant: a request has at most `BODY_BYTES_MAX` bytes of body; what would be more isn't
//! written at all.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};
use ringgear::wire::{Arguments, Command, FrameError, HEADER_BYTES, Header, Magic, PacketError};
use ringgear::wire::{header, header_bytes};
use thiserror::Error;

/// Largest body of a packet in bytes, both ways.
pub(super) const BODY_BYTES_MAX: usize = i32::MAX as usize;

/// Payloads from this size on are not copied behind their packet's header, but sent from where
/// they are.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// Most slices of one write.
pub(super) const SLICES_MAX: usize = 16;

/// A packet that a server sends to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// There are jobs again.
    Noop,
    /// There is no job.
    NoJob,
    /// JOB_ASSIGN_UNIQ
    Assigned {
        /// Handle.
        handle: Bytes,
        /// Function's name.
        function: Bytes,
        /// Unique key.
        unique: Bytes,
        /// Payload.
        payload: Bytes,
    },
    /// WORK_FAIL: the job with this handle is withdrawn.
    Withdrawn(Bytes),
    /// The server knows the option.
    OptionTaken,
    /// ERROR with a code and a text.
    Refused {
        /// Code.
        code: Bytes,
        /// Text.
        text: Bytes,
    },
}

/// Bytes that no server sends to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Malformed {
    /// Not the header of a packet.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Fewer arguments than the packet has.
    #[error(transparent)]
    Arguments(#[from] PacketError),
    /// `\0REQ`
    #[error("request magic on a packet from the server")]
    RequestMagic,
    /// A packet that answers nothing that a worker sends.
    #[error("an unexpected {}", .0.name())]
    Unexpected(Command),
    /// More than `BODY_BYTES_MAX`.
    #[error("a packet of {0} bytes")]
    TooLarge(u32),
}

/// The header of the packet that `input` begins with; `None` if it isn't there as a whole.
fn first_header(input: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some(bytes) = input.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header = header(bytes)?;
    match header.magic {
        Magic::Request => Err(Malformed::RequestMagic),
        Magic::Response if header.body_bytes as usize > BODY_BYTES_MAX => {
            Err(Malformed::TooLarge(header.body_bytes))
        }
        Magic::Response => Ok(Some(header)),
    }
}

/// Takes a packet off the front of `input`; `None` if there isn't a whole one.
///
/// # Errors
/// `Malformed` for anything that no server sends to a worker.
pub(super) fn take_packet(input: &mut BytesMut) -> Result<Option<Packet>, Malformed> {
    let Some(header) = first_header(input)? else { return Ok(None) };
    let bytes = HEADER_BYTES + header.body_bytes as usize;
    if input.len() < bytes {
        return Ok(None);
    }
    let mut body = input.split_to(bytes).freeze();
    body.advance(HEADER_BYTES);
    let arguments = Arguments::split(header.command, &body)?;
    let part = |index| body.slice_ref(arguments.part(index));
    Ok(Some(match header.command {
        Command::Noop => Packet::Noop,
        Command::NoJob => Packet::NoJob,
        Command::JobAssignUniq => Packet::Assigned {
            handle: part(0),
            function: part(1),
            unique: part(2),
            payload: body.slice(arguments.payload_at()..),
        },
        Command::WorkFail => Packet::Withdrawn(part(0)),
        Command::OptionRes => Packet::OptionTaken,
        Command::Error => Packet::Refused { code: part(0), text: part(1) },
        other => return Err(Malformed::Unexpected(other)),
    }))
}

/// Requests that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Requests {
    /// What goes before `last`.
    first: VecDeque<Bytes>,
    /// Packets behind them, and copied payloads.
    last: BytesMut,
    /// Bytes of both.
    bytes: usize,
}

impl Requests {
    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a packet of arguments only.
    pub(super) fn push(&mut self, command: Command, arguments: &[&[u8]]) {
        let separators = arguments.len().saturating_sub(1);
        let body_bytes = arguments.iter().map(|argument| argument.len()).sum::<usize>();
        let Some(before) = self.push_header(command, body_bytes + separators) else { return };
        for (index, argument) in arguments.iter().enumerate() {
            if index > 0 {
                self.last.extend_from_slice(b"\0");
            }
            self.last.extend_from_slice(argument);
        }
        self.bytes += self.last.len() - before;
    }

    /// Adds a packet of one argument and a payload. Returns whether it isn't too large to be sent.
    pub(super) fn push_payload(
        &mut self,
        command: Command,
        argument: &[u8],
        payload: Bytes,
    ) -> bool {
        let body_bytes = argument.len() + 1 + payload.len();
        let Some(before) = self.push_header(command, body_bytes) else { return false };
        self.last.extend_from_slice(argument);
        self.last.extend_from_slice(b"\0");
        self.bytes += self.last.len() - before + payload.len();
        if payload.len() <= COPIED_BYTES_MAX {
            self.last.extend_from_slice(&payload);
        } else {
            self.first.push_back(self.last.split().freeze());
            self.first.push_back(payload);
        }
        true
    }

    /// Adds a header. Returns how much `last` held before; `None` if no packet is that large.
    fn push_header(&mut self, command: Command, body_bytes: usize) -> Option<usize> {
        let size = u32::try_from(body_bytes).ok().filter(|_| body_bytes <= BODY_BYTES_MAX)?;
        let before = self.last.len();
        self.last.extend_from_slice(&header_bytes(Magic::Request, command, size));
        Some(before)
    }

    /// Fills `slices` with what waits, in order. Returns how many were filled.
    pub(super) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let waiting = self.first.iter().map(|bytes| &**bytes).chain([&*self.last]);
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(waiting.filter(|bytes| !bytes.is_empty())) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// Removes what was written, so many bytes from the front on.
    pub(super) fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(front) = self.first.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.first.pop_front();
        }
        self.last.advance(written);
    }
}
