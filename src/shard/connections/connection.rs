//! One connection of a core, or the proxy of another core's: what the shard knows of it.
//!
//! Bytes come in through `inbound` and leave through `outbox`; these two, and what a connection has
//! to do with other cores, are changed by the table alone (`Connections`), which keeps the sums.
//! Knows no driver and no engine.
//!
//! Invariant: a proxy receives no bytes, and no driver knows it.

use std::net::Ipv4Addr;

use super::access::Access;
use super::end_reason::EndReason;
use super::transport::Transport;
use crate::engine::handle::Handles;
use crate::protocol::session::{Session, SessionOptions};
use crate::shard::cores::Core;
use crate::shard::driver::{Intake, Origin};
use crate::shard::limits::{OUTBOX_RESUME_BYTES, SLOTS_RESUME};
use crate::shard::listing::progress::{LIST_PIECE_BYTES, Progress};
use crate::shard::remote::message::ConnKey;
use crate::shard::remote::migration::Migration;
use crate::shard::remote::state::RemoteState;
use crate::wire::Request;
use crate::wire::inbound::Inbound;
use crate::wire::outbox::Outbox;

/// Memory a connection takes while nothing is on its way, in round figures.
pub const CONNECTION_BYTES: usize = 512;

const _: () = assert!(size_of::<Connection>() <= 352 && 352 < CONNECTION_BYTES);

/// How a connection comes to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) enum Closing {
    #[default]
    No,
    /// When everything that it waits for has come; nothing more of it is handled.
    Leaving,
    /// When everything has left.
    Flushing,
    /// At once.
    Now,
}

/// A connection, or the proxy of another core's.
#[derive(Clone, Debug)]
pub(in crate::shard) struct Connection {
    pub(in crate::shard) origin: Origin,
    pub(super) session: Session,
    /// What the access list says of it; `None` without a list.
    pub(super) access: Option<Box<Access>>,
    /// What is between its bytes and its frames.
    pub(in crate::shard) transport: Transport,
    pub(super) inbound: Inbound,
    pub(super) outbox: Outbox,
    /// Tells it from earlier connections of its number.
    pub(in crate::shard) generation: u32,
    /// The connection whose proxy this is, and the core that it came in on.
    pub(in crate::shard) proxy_for: Option<(Core, ConnKey)>,
    /// What it has to do with other cores; nothing so far if there is none.
    pub(super) remote: Option<Box<RemoteState>>,
    /// How far it is on its way to another core.
    pub(in crate::shard) migration: Migration,
    /// A list that is being written; requests behind it wait.
    pub(in crate::shard) listing: Option<Box<Progress>>,
    /// How many connections had moved to this core when it did, itself included; 0 if it came in
    /// here.
    pub(in crate::shard) arrived: u64,
    pub(in crate::shard) closing: Closing,
    pub(in crate::shard) end_reason: EndReason,
    /// The peer will send nothing more.
    pub(in crate::shard) ended: bool,
    /// Requests wait for replies to come or to leave, and nothing is received meanwhile.
    pub(in crate::shard) paused: bool,
    /// Memory is short and much is unread: requests wait. When the peer last read something, in
    /// milliseconds of `Now::mono_ms`.
    pub(in crate::shard) throttled: Option<u64>,
    /// Listed in `Unread`.
    pub(in crate::shard) is_listed: bool,
    /// Requests wait until messages to other cores have left; see `Outgoing`.
    pub(in crate::shard) blocked: bool,
    pub(super) dirty: bool,
}

impl Connection {
    pub(in crate::shard) fn new(origin: Origin, session: Session, generation: u32) -> Self {
        Self {
            origin,
            session,
            access: None,
            transport: Transport::default(),
            inbound: Inbound::default(),
            outbox: Outbox::default(),
            generation,
            proxy_for: None,
            remote: None,
            migration: Migration::No,
            listing: None,
            arrived: 0,
            closing: Closing::No,
            end_reason: EndReason::default(),
            ended: false,
            paused: false,
            throttled: None,
            is_listed: false,
            blocked: false,
            dirty: false,
        }
    }

    /// The proxy of a connection that came in on another core.
    pub(in crate::shard) fn proxy(from: Core, key: ConnKey) -> Self {
        let origin = Origin { fd: -1, peer: (Ipv4Addr::UNSPECIFIED, 0).into(), listener: 0 };
        let connection =
            Self::new(origin, Session::of_proxy(None, SessionOptions::default()), key.generation);
        Self { proxy_for: Some((from, key)), ..connection }
    }

    /// A connection that has come with bytes that weren't handled, and with jobs at another core.
    pub(in crate::shard) fn offloaded(self, inbound: Inbound, remote: RemoteState) -> Self {
        Self { inbound, remote: Some(Box::new(remote)), ..self }
    }

    /// What is left of a connection that has been taken out.
    pub(in crate::shard) fn into_session(self) -> Session {
        self.session
    }

    pub(in crate::shard) fn session(&self) -> &Session {
        &self.session
    }

    /// Notes a request before it is handled; see `Session::repeats_failure`.
    #[inline]
    pub(in crate::shard) fn repeats_failure(
        &mut self,
        request: &Request<'_>,
        handles: &Handles,
    ) -> bool {
        self.session.repeats_failure(request, handles)
    }

    /// What the access list says of it.
    #[inline]
    pub(in crate::shard) fn access(&self) -> Option<&Access> {
        self.access.as_deref()
    }

    /// The same, to ask it.
    #[inline]
    pub(in crate::shard) fn access_mut(&mut self) -> Option<&mut Access> {
        self.access.as_deref_mut()
    }

    pub(in crate::shard) fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    #[inline]
    pub(in crate::shard) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    #[inline]
    pub(in crate::shard) fn remote(&self) -> Option<&RemoteState> {
        self.remote.as_deref()
    }

    /// Whether it came in here by a Unix socket.
    pub(in crate::shard) fn is_local_unix(&self) -> bool {
        self.is_local() && self.origin.peer.ip().is_none()
    }

    /// Whether this core has its socket, not another one.
    #[inline]
    pub(in crate::shard) fn is_local(&self) -> bool {
        self.proxy_for.is_none()
    }

    /// The core that messages with what there is for it go to; `None` for a connection of this
    /// core, and for a proxy while its connection is on the way.
    #[inline]
    pub(in crate::shard) fn home(&self) -> Option<(Core, ConnKey)> {
        self.proxy_for.filter(|_| !self.migration.keeps_replies())
    }

    /// Whether it waits for another core's answer to a grab.
    #[inline]
    pub(in crate::shard) fn is_grabbing(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.is_grabbing())
    }

    /// Whether its worker's functions belong, or belonged, to several cores.
    #[inline]
    pub(in crate::shard) fn is_multi_core(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.is_multi_core())
    }

    /// Whether requests that waited, or the end of the connection that did, may go on.
    #[inline]
    pub(in crate::shard) fn may_resume(&self) -> bool {
        let (bytes, slots) = (self.outbox.bytes(), self.outbox.held());
        let waits = self.paused || self.listing.is_some();
        // A peer may read nothing before it has written all: only a list waits for that, and what
        // waits because memory is short.
        let waits_for_peer = self.throttled.is_some() || self.listing.is_some();
        waits && (bytes <= OUTBOX_RESUME_BYTES || !waits_for_peer) && slots <= SLOTS_RESUME
            || self.outbox.is_empty() && matches!(self.migration, Migration::Quiescing(_))
            || self.ended && self.closing == Closing::No && slots == 0
    }

    /// Whether it may be closed at once: a proxy has nothing to close, and a connection that is
    /// being handed over isn't written to.
    pub(in crate::shard) fn may_be_closed(&self) -> bool {
        self.closing != Closing::Now && self.is_local() && !self.migration.is_handing_over()
    }

    /// What the driver should do about its incoming bytes.
    #[inline]
    pub(in crate::shard) fn intake(&self) -> Intake {
        match self.closing {
            Closing::Now => Intake::Close,
            Closing::Flushing if self.is_flushed() => Intake::Close,
            Closing::Flushing | Closing::Leaving => Intake::Pause,
            Closing::No if self.migration != Migration::No => {
                // Its peer may read only when it has said all.
                let may_read = !self.paused && !self.ended;
                self.migration.intake(self.outbox.is_empty(), may_read)
            }
            Closing::No if self.paused || self.ended => Intake::Pause,
            Closing::No if self.inbound.wants_direct() && self.transport.is_plain() => {
                Intake::Direct
            }
            Closing::No => Intake::Read,
        }
    }

    /// Whether nothing is left that has to leave before it is closed.
    #[inline]
    fn is_flushed(&self) -> bool {
        self.outbox.is_empty() && self.transport.is_flushed()
    }

    /// Whether there is something to send.
    #[inline]
    pub(in crate::shard) fn has_output(&self) -> bool {
        match self.transport.is_plain() {
            true => self.outbox.has_chunks(),
            false => self.transport.has_records(&self.outbox, self.is_closing()),
        }
    }

    /// Whether it ends once everything has left.
    #[inline]
    pub(in crate::shard) fn is_closing(&self) -> bool {
        self.closing == Closing::Flushing
    }

    /// Whether the driver is to look at it when everything has left.
    #[inline]
    pub(in crate::shard) fn awaits_flush(&self) -> bool {
        self.closing != Closing::No || self.migration != Migration::No
    }

    /// Whether what it has to send waits: for rows of another core, or for the core that it is
    /// handed over to.
    #[inline]
    pub(in crate::shard) fn holds_back(&self) -> bool {
        self.listing.as_ref().is_some_and(|progress| progress.asked)
            && self.outbox.bytes() < LIST_PIECE_BYTES
            || matches!(self.migration, Migration::HandingOver(_))
    }

    /// The peer has read something.
    #[inline]
    pub(in crate::shard) fn note_read(&mut self, now_ms: u64) {
        self.throttled = self.throttled.map(|_| now_ms);
    }
}
