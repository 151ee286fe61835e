//! Lines about packets, both ways, at the level TRACE: each with its name and its arguments,
//! shortened.
//!
//! Requests and encoded packets in, log lines out. Nothing is decoded or formatted unless the level
//! is on. Knows no meaning of a packet.
//!
//! Invariant: a payload is never written, only its size.

use std::fmt;

use tracing::{Level, trace};

use crate::engine::ConnId;
use crate::engine::event::is_on;
use crate::wire::frame::{Cut, cut};
use crate::wire::{Arguments, Command, HEADER_BYTES, Header};

/// Longer arguments are cut.
const ARGUMENT_BYTES_MAX: usize = 64;

/// The arguments of a packet, as a line shows them.
struct Shortened<'a> {
    command: Command,
    body: &'a [u8],
}

impl fmt::Display for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(arguments) = Arguments::split(self.command, self.body) else {
            return write!(f, "(arguments are missing)");
        };
        for index in 0..self.command.arguments() {
            let argument = arguments.part(index);
            let shown = argument.get(..ARGUMENT_BYTES_MAX).unwrap_or(argument);
            let separator = if index > 0 { " " } else { "" };
            let more = if shown.len() < argument.len() { "…" } else { "" };
            write!(f, "{separator}\"{}{more}\"", shown.escape_ascii())?;
        }
        Ok(())
    }
}

/// A packet or line that came.
#[inline]
pub(super) fn log_received(conn: ConnId, header: Header, body: &[u8]) {
    if is_on(Level::TRACE) {
        log_packet(conn, "received", header, body);
    }
}

/// A text line that came.
#[inline]
pub(super) fn log_line(conn: ConnId, line: &[u8]) {
    trace!(conn = conn.number(), line = %line.escape_ascii(), "received");
}

/// Bytes that leave: whole packets, or text; the body of a last packet may leave separately.
#[inline]
pub(super) fn log_sent(conn: ConnId, bytes: &[u8]) {
    if is_on(Level::TRACE) {
        log_chunk(conn, bytes);
    }
}

#[cold]
fn log_chunk(conn: ConnId, mut bytes: &[u8]) {
    loop {
        match cut(bytes, 0) {
            Ok(Cut::Packet { header, body }) => {
                log_packet(conn, "sent", header, body);
                bytes = bytes.get(HEADER_BYTES + body.len()..).unwrap_or_default();
            }
            Ok(Cut::PartialBody(header)) => {
                let head = bytes.get(HEADER_BYTES..).unwrap_or_default();
                return log_packet(conn, "sent", header, head);
            }
            Ok(Cut::Line { line, used }) => {
                trace!(conn = conn.number(), line = %line.escape_ascii(), "sent");
                bytes = bytes.get(used..).unwrap_or_default();
            }
            Ok(Cut::Partial) | Err(_) => return,
        }
    }
}

#[cold]
fn log_packet(conn: ConnId, direction: &'static str, header: Header, body: &[u8]) {
    let Header { command, body_bytes, .. } = header;
    let arguments = Shortened { command, body };
    trace!(conn = conn.number(), packet = command.name(), %arguments, body_bytes, "{direction}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_escaped_and_shortened_and_payloads_left_out() {
        let body = b"resize\0caf\xc3\xa9\0a payload";
        let line = Shortened { command: Command::SubmitJob, body }.to_string();
        assert_eq!(line, r#""resize" "caf\xc3\xa9""#);
        let long = [&[b'x'; 100][..], b"\0\0"].concat();
        let line = Shortened { command: Command::SubmitJob, body: &long }.to_string();
        assert_eq!(line, format!("\"{}…\" \"\"", "x".repeat(ARGUMENT_BYTES_MAX)));
        let line = Shortened { command: Command::SubmitJob, body: b"no end" }.to_string();
        assert_eq!(line, "(arguments are missing)");
        assert_eq!(Shortened { command: Command::GrabJob, body: b"" }.to_string(), "");
    }
}
