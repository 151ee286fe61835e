//! What travels between the simulated peers and the shard: requests into bytes, bytes into packets.
//!
//! Uses the server's own `wire::encode` and `frame::cut`, both of which have round-trip
//! properties of their own. Knows nothing of what a packet brings about; that is `model`'s.

use std::fmt;

use ringgear::wire::frame::{self, Cut};
use ringgear::wire::{self, Command, HEADER_BYTES, Magic};

/// Something that a peer sends.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// A packet: its arguments, and the payload if it has one.
    Packet { command: Command, arguments: Vec<Vec<u8>>, payload: Vec<u8> },
    /// The same with the magic of responses.
    WrongMagic,
    /// An admin line.
    Line(String),
    /// A packet type that doesn't exist; the connection is closed for it.
    UnknownType,
    /// A line with more words than any command has; likewise.
    SixWords,
    /// A packet that lacks an argument; likewise.
    LacksArgument,
}

impl Request {
    pub(crate) fn packet(command: Command, arguments: &[&[u8]], payload: Vec<u8>) -> Self {
        let arguments = arguments.iter().map(|argument| argument.to_vec()).collect();
        Self::Packet { command, arguments, payload }
    }

    pub(crate) fn plain(command: Command) -> Self {
        Self::packet(command, &[], Vec::new())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Packet { command, arguments, payload } => {
                let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
                wire::encode(&mut out, Magic::Request, *command, &arguments, payload);
            }
            Self::WrongMagic => wire::encode(&mut out, Magic::Response, Command::Noop, &[], &[]),
            Self::Line(line) => {
                out.extend_from_slice(line.as_bytes());
                out.extend_from_slice(if line.len() % 2 == 0 { b"\n" } else { b"\r\n" });
            }
            Self::UnknownType => out.extend_from_slice(b"\0REQ\0\0\0\x63\0\0\0\0"),
            Self::LacksArgument => out.extend_from_slice(b"\0REQ\0\0\0\x07\0\0\0\x04f\0uu"),
            Self::SixWords => out.extend_from_slice(b"a b c d e f\n"),
        }
        out
    }
}

/// Short enough for a trace.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Packet { command, arguments, payload } = self else {
            return write!(f, "{self:?}");
        };
        write!(f, "{}", command.name())?;
        for argument in arguments {
            write!(f, " {:.40}", argument.escape_ascii().to_string())?;
        }
        if command.has_payload() { write!(f, " +{}", payload.len()) } else { Ok(()) }
    }
}

/// Something that the server sends.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Packet {
    Binary {
        command: Command,
        body: Vec<u8>,
    },
    Line(Vec<u8>),
    /// The place of a reply that waits for the store.
    Held,
}

impl Packet {
    pub(crate) fn of(command: Command, arguments: &[&[u8]], payload: &[u8]) -> Self {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, Magic::Response, command, arguments, payload);
        Self::Binary { command, body: bytes.split_off(HEADER_BYTES) }
    }

    pub(crate) fn line(text: &str) -> Self {
        Self::Line(text.as_bytes().to_vec())
    }

    /// Its size on the wire, without the end of a line.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Binary { body, .. } => HEADER_BYTES + body.len(),
            Self::Line(line) => line.len(),
            Self::Held => 0,
        }
    }

    pub(crate) fn is(&self, wanted: Command) -> bool {
        matches!(self, Self::Binary { command, .. } if *command == wanted)
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary { command, body } => {
                let head = body.get(..80).unwrap_or(body).escape_ascii();
                write!(f, "{} {head} ({} bytes)", command.name(), body.len())
            }
            Self::Line(line) => write!(f, "line {}", line.escape_ascii()),
            Self::Held => write!(f, "a reply to come"),
        }
    }
}

/// Reads everything that one call made the shard send to one connection: whole frames only.
pub(crate) fn read(mut bytes: &[u8]) -> Vec<Packet> {
    let mut packets = Vec::new();
    while !bytes.is_empty() {
        match frame::cut(bytes, 0) {
            Ok(Cut::Packet { header, body }) => {
                assert_eq!(header.magic, Magic::Response, "the server sends responses");
                packets.push(Packet::Binary { command: header.command, body: body.to_vec() });
                bytes = &bytes[HEADER_BYTES + body.len()..];
            }
            Ok(Cut::Line { line, used }) => {
                packets.push(Packet::Line(line.to_vec()));
                bytes = &bytes[used..];
            }
            other => panic!("the server sent something else than frames: {other:?}"),
        }
    }
    packets
}
