//! The other end of a connection: a worker that grabs, sleeps and works, a client that submits.
//!
//! Packets of the server in, the peer's next phase out. What must hold for a single packet is
//! checked here: a peer gets what it asked for, and nothing else.
//!
//! Invariant: a peer has read all that the server has flushed.

use ringgear::engine::ConnId;
use ringgear::shard::cores::Core;
use ringgear::wire::frame::{self, Cut};
use ringgear::wire::{Command, HEADER_BYTES};

use crate::scenario::Job;

/// What a worker does next. A client stays `Ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Sends GRAB_JOB.
    Ready,
    /// Waits for the answer to GRAB_JOB.
    Waiting,
    /// Has NO_JOB, sends PRE_SLEEP.
    Idle,
    /// Waits for NOOP.
    Asleep,
    /// Sends WORK_COMPLETE.
    Working(Job, Vec<u8>),
    /// Sends nothing any more.
    Hung,
    /// Has no connection.
    Gone,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Nowhere,
    At(Core, ConnId),
    /// On its way from one core to another.
    Between,
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) place: Place,
    pub(crate) phase: Phase,
    /// Which of its functions it has named.
    pub(crate) able: Vec<bool>,
    /// The least urgent priority that the answer to its grab may have; none if all depends on what
    /// others do.
    pub(crate) due: Option<u8>,
    /// JOB_CREATED packets that it got.
    pub(crate) created: usize,
    /// Jobs whose outcome it got.
    pub(crate) outcomes: Vec<Job>,
    /// It has sent something that waits until it has moved.
    pub(crate) aside: bool,
    /// Its socket is being handed over.
    pub(crate) boarded: bool,
}

/// A packet as far as peers read it.
#[derive(Debug)]
pub(crate) enum Heard {
    Noop,
    NoJob,
    Assigned { job: Job, handle: Vec<u8> },
    Created,
    Complete(Job),
    Other(Command),
}

/// Reads whole packets.
pub(crate) fn read(mut bytes: &[u8]) -> Vec<Heard> {
    let mut packets = Vec::new();
    while let Ok(Cut::Packet { header, body }) = frame::cut(bytes, 0) {
        let parts: Vec<&[u8]> = body.splitn(3, |&byte| byte == 0).collect();
        packets.push(match header.command {
            Command::Noop => Heard::Noop,
            Command::NoJob => Heard::NoJob,
            Command::JobCreated => Heard::Created,
            Command::JobAssign => {
                Heard::Assigned { job: number(parts[2]), handle: parts[0].to_vec() }
            }
            Command::WorkComplete => Heard::Complete(number(parts[1])),
            other => Heard::Other(other),
        });
        bytes = &bytes[HEADER_BYTES + body.len()..];
    }
    assert!(bytes.is_empty(), "whole packets only: {}", bytes.escape_ascii());
    packets
}

fn number(payload: &[u8]) -> Job {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

impl Heard {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Noop => Command::Noop,
            Self::NoJob => Command::NoJob,
            Self::Assigned { .. } => Command::JobAssign,
            Self::Created => Command::JobCreated,
            Self::Complete(_) => Command::WorkComplete,
            Self::Other(command) => *command,
        }
        .name()
    }
}
