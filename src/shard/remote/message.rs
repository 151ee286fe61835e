//! What travels between cores: requests of connections whose jobs belong to another core, and what
//! that core has to say to them.
//!
//! A connection's home is the core it came in on; a function's owner is the core that its slot is
//! dealt to. A message to the owner names the connection by its number at home; a message that
//! comes back also names the session, as numbers are given to the next connection at once. Knows no
//! rings and no engine.
//!
//! Invariant: messages from one core to another arrive in the order in which they were sent; a
//! connection's `Gone` is the last one about it, or else its `MigrationAccepted`, with which it
//! moves.

use std::sync::Arc;

use bytes::Bytes;

pub use super::conn_key::{ConnKey, HomeConnId};
use crate::engine::glob::Glob;
use crate::engine::policy::Policies;
use crate::engine::{ConnId, Status, numbers};
use crate::protocol::access::{AccessList, Hits, Permissions};
use crate::protocol::admin::Task;
use crate::protocol::admin::change::Tally;
use crate::protocol::peer_address::PeerAddress;
use crate::protocol::session::SessionOptions;
use crate::shard::denials::Refused;
use crate::shard::operator::{OperatorReply, OperatorRequest};
use crate::shard::stats::Stats;
use crate::wire::outbox::{PacketBatch, Slot};
use crate::wire::tls::TlsServer;
use crate::wire::{Command, Grab, Header, Priority, PrioritySet};

/// Whether a worker waits for a NOOP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It will grab of itself.
    Awake,
    /// It waits.
    Asleep,
    /// A NOOP was sent to it and it hasn't grabbed since.
    Woken,
}

/// What one core sends to another.
#[derive(Clone, Debug)]
pub enum Message {
    /// To the owner: where a connection comes from. Precedes the first message about it, and
    /// follows each change of its client id and of the access list.
    Introduced {
        /// The connection.
        key: ConnKey,
        /// Its peer.
        peer: PeerAddress,
        /// Its client id.
        id: Option<Box<[u8]>>,
        /// What the access list says of it; `None` without a list.
        access: Option<Arc<Permissions>>,
    },
    /// To the owner: a packet of a connection. Its replies come back as `Reply`.
    Request {
        /// The connection.
        key: ConnKey,
        /// Where the replies go; `None` for a request without a reply.
        slot: Option<Slot>,
        /// The packet.
        header: Header,
        /// The packet's body.
        body: Bytes,
    },
    /// To the owner: a worker asks for a job that is at least so urgent. `Assigned` or `Empty`
    /// comes back.
    Grab {
        /// The worker.
        key: ConnKey,
        /// Which form of assignment it wants.
        grab: Grab,
        /// The least urgent priority.
        least: Priority,
    },
    /// To the owner: a worker has fallen asleep.
    Sleep(ConnKey),
    /// To the owner: a worker that was woken is at work already, or took its job elsewhere.
    Declined(ConnKey),
    /// To the owner: a connection has gone.
    Gone(HomeConnId),
    /// To the owner: an admin command about one of its functions or jobs. `Reply` comes back.
    Line {
        /// The connection.
        key: ConnKey,
        /// Where the reply goes.
        slot: Slot,
        /// The line.
        line: Box<[u8]>,
    },
    /// To every owner: the next rows of a list, or the next portion of a change. `Rows` comes
    /// back.
    Task {
        /// The connection.
        key: ConnKey,
        /// What it is, and where to go on.
        task: Task,
        /// Of which functions; `None` = of all.
        names: Option<Arc<Glob>>,
        /// Which functions it shows or changes; `None` = all.
        access: Option<Arc<Permissions>>,
    },
    /// To the owner: a connection wants to have its home there. From now on what there is for it
    /// is kept there; `MigrationAccepted` comes back.
    MigrationRequested {
        /// The connection.
        key: ConnKey,
        /// What it has asked for.
        options: SessionOptions,
    },
    /// To the owner: a connection that was to move in stays where it is.
    MigrationCancelled(ConnKey),
    /// To the owner: a connection that left it to make room has its home here now.
    Offloaded {
        /// Its proxy's number at the owner.
        proxy: ConnId,
        /// The connection.
        key: ConnKey,
        /// Whether its worker slept when it left.
        rest: Rest,
        /// What the access list says of it; `None` without a list.
        access: Option<Arc<Permissions>>,
    },
    /// To the owner: a connection ends, as the server does, once nothing more follows for it there.
    /// `Left` comes back then.
    Leaving(ConnKey),
    /// To the owner: a connection may not run a function any more. Jobs of it stay with it.
    Revoke {
        /// The connection.
        key: ConnKey,
        /// The function.
        function: Box<[u8]>,
    },
    /// To the owner: a submission of one of its functions was refused where it came in.
    Refused {
        /// The function.
        function: Box<[u8]>,
        /// Why.
        why: numbers::Refused,
    },
    /// To a core: all cores together have too many dead letters, and it has the oldest.
    TrimDead,
    /// To every core: what becomes of jobs from now on.
    Policies(Arc<Policies>),
    /// To every core: the access list from now on.
    Access(Arc<AccessList>),
    /// Files of TLS that were read anew.
    Tls(Arc<TlsServer>),
    /// To a core, from the HTTP thread: something that an operator asks. `OperatorReply` comes
    /// back.
    Operator {
        /// The request's number at the HTTP thread.
        ticket: u64,
        /// The request.
        request: Box<OperatorRequest>,
    },
    /// To the HTTP thread: the reply to a request.
    OperatorReply {
        /// The request's number there.
        ticket: u64,
        /// The reply.
        reply: Box<OperatorReply>,
    },
    /// To every owner: something that only all of them together can answer. `Answer` comes back.
    Ask {
        /// The number of the fan_out at the sender.
        fan_out: usize,
        /// What is asked.
        question: Question,
    },

    /// To the home: the replies that a slot waits for.
    Reply {
        /// The connection.
        key: ConnKey,
        /// The slot.
        slot: Slot,
        /// The replies; may be none.
        packets: PacketBatch,
    },
    /// To the HTTP thread: a submission joins an equal job. Precedes its `Reply`.
    Joined(ConnKey),
    /// To the home: packets that no request waits for.
    Push {
        /// The connection.
        key: ConnKey,
        /// The packets.
        packets: PacketBatch,
    },
    /// To the home: a worker's packet about a job that the connection waits for.
    Forward {
        /// The connection.
        key: ConnKey,
        /// One of the `WORK_*` commands.
        command: Command,
        /// The packet's body.
        body: Bytes,
    },
    /// To the home: the worker's job.
    Assigned {
        /// The worker.
        key: ConnKey,
        /// The packet that says so.
        packets: PacketBatch,
        /// Priorities that may have more; see `Engine::ready`.
        ready: PrioritySet,
    },
    /// To the home: no job that is urgent enough.
    Empty {
        /// The worker.
        key: ConnKey,
        /// Priorities that may have jobs.
        ready: PrioritySet,
    },
    /// To the home: a worker need not finish a job, if it wants to know.
    CancelNotice {
        /// The worker.
        key: ConnKey,
        /// The job.
        number: u64,
    },
    /// To the home: a worker's result came too late and was refused.
    Late {
        /// The worker.
        key: ConnKey,
        /// The job.
        number: u64,
    },
    /// To the home: jobs have come for a worker that is awake.
    Hint {
        /// The worker.
        key: ConnKey,
        /// Priorities that may have jobs.
        ready: PrioritySet,
    },
    /// To the home: wake the worker.
    Noop {
        /// The worker.
        key: ConnKey,
        /// Priorities that may have jobs.
        ready: PrioritySet,
    },
    /// To the home: a connection may come; nothing more follows it to where it was.
    MigrationAccepted(ConnKey),
    /// To the home: nothing more follows for a connection that ends.
    Left(ConnKey),
    /// To the home: rows of a list, or what a portion of a change did.
    Rows {
        /// The connection.
        key: ConnKey,
        /// The rows.
        rows: Box<Rows>,
        /// What is left on that core.
        next: Option<Task>,
    },
    /// To the home: one core's part of what was asked.
    Answer {
        /// The number of the fan_out.
        fan_out: usize,
        /// The part.
        answer: Answer,
    },
}

impl Message {
    /// The connection that a message to its home is about; `None` for `Answer`, and for messages to
    /// owners.
    #[must_use]
    pub fn key(&self) -> Option<ConnKey> {
        match self {
            Self::Reply { key, .. }
            | Self::Push { key, .. }
            | Self::Forward { key, .. }
            | Self::Assigned { key, .. }
            | Self::Empty { key, .. }
            | Self::CancelNotice { key, .. }
            | Self::Late { key, .. }
            | Self::Hint { key, .. }
            | Self::Noop { key, .. }
            | Self::Joined(key)
            | Self::MigrationAccepted(key)
            | Self::Left(key)
            | Self::Rows { key, .. } => Some(*key),
            _ => None,
        }
    }

    /// Memory that it takes on its way, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Request { body, .. } | Self::Forward { body, .. } => body.len(),
                Self::Reply { packets, .. }
                | Self::Push { packets, .. }
                | Self::Assigned { packets, .. } => packets.bytes(),
                Self::Operator { request, .. } => request.bytes(),
                Self::OperatorReply { reply, .. } => reply.bytes(),
                Self::Line { line, .. } => line.len(),
                Self::Introduced { id, .. } => id.as_ref().map_or(0, |id| id.len()),
                Self::Rows { rows, .. } => rows.bytes(),
                Self::Ask { question: Question::StatusUnique { unique, .. }, .. } => unique.len(),
                Self::Ask { question: Question::Line { line, .. }, .. } => line.len(),
                Self::Revoke { function, .. } | Self::Refused { function, .. } => function.len(),
                Self::Answer { answer: Answer::Hits(hits), .. } => hits.bytes(),
                Self::Answer { answer: Answer::Refusals(refusals), .. } => {
                    refusals.iter().map(Refused::bytes).sum()
                }
                Self::Answer { answer: Answer::Text(text), .. } => text.len(),
                Self::Answer { answer: Answer::Stats(_), .. } => size_of::<Stats>(),
                Self::Ask {
                    question: Question::Stats | Question::Access | Question::Refusals,
                    ..
                }
                | Self::Access(_)
                | Self::Policies(_)
                | Self::TrimDead
                | Self::Tls(_)
                | Self::Answer { answer: Answer::Status(_), .. }
                | Self::Grab { .. }
                | Self::Sleep(_)
                | Self::Declined(_)
                | Self::MigrationRequested { .. }
                | Self::MigrationCancelled(_)
                | Self::Offloaded { .. }
                | Self::MigrationAccepted(_)
                | Self::Leaving(_)
                | Self::Left(_)
                | Self::Joined(_)
                | Self::Gone(_)
                | Self::Task { .. }
                | Self::Empty { .. }
                | Self::CancelNotice { .. }
                | Self::Late { .. }
                | Self::Hint { .. }
                | Self::Noop { .. } => 0,
            }
    }
}

/// One core's next rows of a list, or its portion of a change.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The rows.
    pub text: Vec<u8>,
    /// For each connection that is listed, its number and where its row ends.
    pub named: Vec<(i32, usize)>,
    /// Connections that had moved to the core until then.
    pub arrived: u64,
    /// Connections that had moved from it.
    pub departed: u64,
    /// What was changed, if it is a change.
    pub tally: Tally,
}

impl Rows {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.len() + size_of_val(&self.named[..])
    }
}

/// What only all cores together can answer.
#[derive(Clone, Debug)]
pub enum Question {
    /// GET_STATUS_UNIQUE.
    StatusUnique {
        /// The key.
        unique: Box<[u8]>,
        /// Of which functions' jobs; `None` = all.
        access: Option<Arc<Permissions>>,
    },
    /// An admin command about functions whose names differ in case only.
    Line {
        /// The command.
        line: Box<[u8]>,
        /// Which functions it may change; `None` = all.
        access: Option<Arc<Permissions>>,
    },
    /// The text command `stats`.
    Stats,
    /// The text command `show access`.
    Access,
    /// The text command `show refusals`.
    Refusals,
}

/// One core's part of an answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The latest job with the unique: its number, and what GET_STATUS_UNIQUE tells.
    Status(Option<(u64, Status)>),
    /// The reply.
    Text(Vec<u8>),
    /// The core's numbers.
    Stats(Box<Stats>),
    /// How often each rule of the access list has decided.
    Hits(Box<Hits>),
    /// The latest refusals.
    Refusals(Vec<Refused>),
}
