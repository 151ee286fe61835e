//! The first 12 bytes of a packet, read and written.
//!
//! Knows the magic, the command's number and the size of the body, but not its contents.
//!
//! Invariant: `header` reads what `header_bytes` wrote.

use thiserror::Error;

use super::command::{ARGUMENTS_BYTES_MAX, Command, LINE_BYTES_MAX};

/// Size of a packet header: magic, command number and body size, 4 bytes each, big-endian.
pub const HEADER_BYTES: usize = 12;

const MAGIC_REQUEST: [u8; 4] = *b"\0REQ";
const MAGIC_RESPONSE: [u8; 4] = *b"\0RES";

/// Direction of a packet, as its magic says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Magic {
    /// `\0REQ`: to the job server.
    Request,
    /// `\0RES`: from the job server.
    Response,
}

/// A packet's first 12 bytes, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Direction of the packet.
    pub magic: Magic,
    /// What the packet is.
    pub command: Command,
    /// Bytes that follow the header.
    pub body_bytes: u32,
}

/// Bytes that no Gearman peer sends; the connection is closed without a reply, as gearmand does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The first byte is `\0` but the magic is neither `\0REQ` nor `\0RES`.
    #[error("packet magic is neither \\0REQ nor \\0RES")]
    Magic,
    /// Command number 0, or beyond the last one of the protocol.
    #[error("unknown packet type {0}")]
    Command(u32),
    /// A command without payload announced a body larger than all its arguments may be.
    #[error("arguments exceed {ARGUMENTS_BYTES_MAX} bytes")]
    Arguments,
    /// A command without arguments announced a body beyond what is read and ignored.
    #[error("a body of more than {ARGUMENTS_BYTES_MAX} bytes for a request that has none")]
    Body,
    /// An admin line without an end within `LINE_BYTES_MAX`.
    #[error("text line exceeds {LINE_BYTES_MAX} bytes")]
    Line,
    /// The start of a TLS handshake. It is answered with an alert.
    #[error("a TLS handshake")]
    Tls,
}

/// Reads a header.
///
/// # Errors
/// `FrameError::Magic` and `FrameError::Command` for bytes that can't be a header.
#[inline]
pub fn header(bytes: &[u8; HEADER_BYTES]) -> Result<Header, FrameError> {
    let [m0, m1, m2, m3, c0, c1, c2, c3, s0, s1, s2, s3] = *bytes;
    let magic = match [m0, m1, m2, m3] {
        MAGIC_REQUEST => Magic::Request,
        MAGIC_RESPONSE => Magic::Response,
        _ => return Err(FrameError::Magic),
    };
    let number = u32::from_be_bytes([c0, c1, c2, c3]);
    let command = Command::from_number(number).ok_or(FrameError::Command(number))?;
    let body_bytes = u32::from_be_bytes([s0, s1, s2, s3]);
    Ok(Header { magic, command, body_bytes })
}

/// Writes a header.
#[inline]
#[must_use]
pub fn header_bytes(magic: Magic, command: Command, body_bytes: u32) -> [u8; HEADER_BYTES] {
    let [m0, m1, m2, m3] = match magic {
        Magic::Request => MAGIC_REQUEST,
        Magic::Response => MAGIC_RESPONSE,
    };
    let [c0, c1, c2, c3] = command.number().to_be_bytes();
    let [s0, s1, s2, s3] = body_bytes.to_be_bytes();
    [m0, m1, m2, m3, c0, c1, c2, c3, s0, s1, s2, s3]
}
