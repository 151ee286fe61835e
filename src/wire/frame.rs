//! Bytes in, one whole frame out: a binary packet (12-byte header and body) or one admin line.
//!
//! The first byte of each frame decides which of the two it is (`\0` or not), so a connection may
//! mix both. Knows lengths and the magic, and from the command table whether a packet has arguments
//! or a payload. Allocates nothing and never reads past the frame.
//!
//! Invariant: `cut` returns where a frame ends inside `bytes`, or that more bytes are needed, or an
//! error after which the connection can't be parsed any more. The same bytes give the same frames,
//! however they are split.

use super::command::{ARGUMENTS_BYTES_MAX, LINE_BYTES_MAX};
use super::header::{FrameError, HEADER_BYTES, Header, header};
use memchr::memchr;

/// The first bytes of a TLS handshake: its record type, and the first byte of its version.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 3];

/// What `cut` found at the start of the bytes it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut<'a> {
    /// A whole packet of `HEADER_BYTES + body.len()` bytes.
    Packet {
        /// The packet's header.
        header: Header,
        /// The packet after its header.
        body: &'a [u8],
    },
    /// A whole admin line.
    Line {
        /// The line without its LF and without one CR before that.
        line: &'a [u8],
        /// Bytes up to and including the LF.
        used: usize,
    },
    /// A packet with a whole header and an incomplete body.
    PartialBody(Header),
    /// An incomplete header, or a line without its end.
    Partial,
}

/// Cuts the first frame off `bytes`.
///
/// `scanned` is the number of bytes that an earlier call searched for a line end without finding
/// one (0 for a new frame), so that a line that arrives byte by byte is searched once only.
///
/// # Errors
/// `FrameError`; nothing after it on this connection can be read.
#[inline]
pub fn cut(bytes: &[u8], scanned: usize) -> Result<Cut<'_>, FrameError> {
    let Some(&first) = bytes.first() else {
        return Ok(Cut::Partial);
    };
    if first != 0 {
        return cut_line(bytes, scanned);
    }
    let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Ok(Cut::Partial);
    };
    let header = header(head)?;
    // The size is compared first, as few packets are that large.
    if header.body_bytes as usize > ARGUMENTS_BYTES_MAX && !header.command.has_payload() {
        return Err(match header.command.has_arguments() {
            true => FrameError::Arguments,
            false => FrameError::Body,
        });
    }
    match rest.get(..header.body_bytes as usize) {
        Some(body) => Ok(Cut::Packet { header, body }),
        None => Ok(Cut::PartialBody(header)),
    }
}

fn cut_line(bytes: &[u8], scanned: usize) -> Result<Cut<'_>, FrameError> {
    if bytes.starts_with(&TLS_HANDSHAKE) {
        return Err(FrameError::Tls);
    }
    let unseen = bytes.get(scanned..).unwrap_or_default();
    let Some(at) = memchr(b'\n', unseen).map(|at| scanned + at) else {
        // The byte after the longest line may be a CR.
        return if bytes.len() > LINE_BYTES_MAX + 1 {
            Err(FrameError::Line)
        } else {
            Ok(Cut::Partial)
        };
    };
    let line = bytes.get(..at).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > LINE_BYTES_MAX {
        return Err(FrameError::Line);
    }
    Ok(Cut::Line { line, used: at + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Command;

    fn packet(number: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"\0REQ".to_vec();
        bytes.extend(number.to_be_bytes());
        bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn every_split_of_a_packet_gives_the_same_frame() {
        let bytes = packet(7, b"reverse\0\0hello");
        for end in 0..bytes.len() {
            let cut = cut(&bytes[..end], 0).unwrap();
            let expected_header = end >= HEADER_BYTES;
            assert_eq!(matches!(cut, Cut::PartialBody(_)), expected_header, "{end}");
            assert_eq!(matches!(cut, Cut::Partial), !expected_header, "{end}");
        }
        let Cut::Packet { header, body } = cut(&bytes, 0).unwrap() else { panic!("no packet") };
        assert_eq!((header.command, body), (Command::SubmitJob, &b"reverse\0\0hello"[..]));
    }

    #[test]
    fn bytes_behind_a_frame_are_left_alone() {
        let mut bytes = packet(9, b"");
        bytes.extend(b"status\r\nrest");
        assert!(matches!(cut(&bytes, 0).unwrap(), Cut::Packet { body: b"", .. }));
        let line = cut(&bytes[HEADER_BYTES..], 0).unwrap();
        assert_eq!(line, Cut::Line { line: b"status", used: 8 });
    }

    #[test]
    fn only_one_carriage_return_belongs_to_the_line_end() {
        assert_eq!(cut(b"a\r\r\n", 0), Ok(Cut::Line { line: b"a\r", used: 4 }));
        assert_eq!(cut(b"\n", 0), Ok(Cut::Line { line: b"", used: 1 }));
    }

    #[test]
    fn a_line_may_be_exactly_as_long_as_the_limit() {
        let mut line = vec![b'x'; LINE_BYTES_MAX];
        line.extend(b"\r\n");
        assert!(matches!(cut(&line, 0), Ok(Cut::Line { .. })));
        assert!(matches!(cut(&line[..LINE_BYTES_MAX + 1], 0), Ok(Cut::Partial)));
        line.insert(0, b'x');
        assert_eq!(cut(&line, 0), Err(FrameError::Line));
        assert_eq!(cut(&line[..LINE_BYTES_MAX + 2], 0), Err(FrameError::Line));
    }

    #[test]
    fn what_was_scanned_is_not_searched_again() {
        // A line end that an earlier call must have seen is proof that it isn't looked at twice.
        assert_eq!(cut(b"a\nb", 2), Ok(Cut::Partial));
    }

    #[test]
    fn a_tls_handshake_is_an_error_as_soon_as_it_can_be_told() {
        let hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03";
        for end in 2..hello.len() {
            assert_eq!(cut(&hello[..end], 0), Err(FrameError::Tls));
        }
        assert_eq!(cut(&hello[..1], 0), Ok(Cut::Partial));
        assert_eq!(cut(b"\x16\n", 0), Ok(Cut::Line { line: b"\x16", used: 2 }));
    }

    #[test]
    fn foreign_magic_and_unknown_types_are_errors() {
        assert_eq!(cut(b"\0ABC\0\0\0\x07\0\0\0\0", 0), Err(FrameError::Magic));
        assert_eq!(cut(&packet(0, b""), 0), Err(FrameError::Command(0)));
        assert_eq!(cut(&packet(43, b""), 0), Err(FrameError::Command(43)));
    }

    #[test]
    fn arguments_without_payload_are_bounded_before_they_arrive() {
        let bytes = packet(1, &vec![b'f'; ARGUMENTS_BYTES_MAX + 1]);
        assert_eq!(cut(&bytes[..HEADER_BYTES], 0), Err(FrameError::Arguments));
        let bytes = packet(1, &vec![b'f'; ARGUMENTS_BYTES_MAX]);
        assert!(matches!(cut(&bytes, 0), Ok(Cut::Packet { .. })));
    }
}
