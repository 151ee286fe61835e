//! One core: its connections, its engine, their outboxes. The only type a driver touches.
//!
//! A driver says what came (`connect`, `received`, `ended`, `disconnect`, `tick`, `stored`,
//! messages) and asks what to do (`next_dirty`, `take`, `intake`, `deadline_ms`, `take_operations`,
//! `take_messages`); the shard calls no driver and knows no kernel. What the frames of a call cause
//! is in the outboxes of the dirty connections when it returns, so that a driver can flush each
//! once a batch. `delivery` fills them; `home`, `owner`, `moving` and `offload` face other cores.
//!
//! Invariant: a connection that doesn't read its replies is read from all the same, until memory
//! is short, and beyond `Settings::outbox_bytes_max` closed (`unread`); order is kept.

pub mod cores;
pub mod remote;

mod counters;
mod delivery;
mod listing;
mod losses;
mod settings;
mod unread;

use std::net::{Ipv4Addr, SocketAddr};

use foldhash::HashMap;
use slab::Slab;
use tracing::{debug, trace, warn};

use self::cores::Core;
pub use self::counters::Counters;
use self::listing::Progress;
use self::losses::Complaints;
use self::remote::home::{FanOut, RemoteState};
use self::remote::message::ConnKey;
pub use self::remote::migration::MigratingConnection;
use self::remote::migration::Migration;
use self::remote::offload::Offload;
use self::remote::outgoing::Outgoing;
pub use self::settings::Settings;
use self::unread::Unread;
use crate::engine::record::{Operation, Row};
use crate::engine::{ConnId, Effect, Engine, Now};
use crate::protocol::admin;
use crate::protocol::session::{Context, Session};
use crate::wire::inbound::{Arrival, Bounds, Inbound};
use crate::wire::outbox::{Chunk, Outbox};
use crate::wire::{Command, ErrorReply, FrameError, Request, Response, text};

/// With more than this waiting to leave, a connection's lists wait, and if memory is short its
/// requests.
const OUTBOX_PAUSE_BYTES: usize = 1 << 20;
/// With no more than this waiting, they go on.
const OUTBOX_RESUME_BYTES: usize = OUTBOX_PAUSE_BYTES / 4;
/// With so many replies that wait for the store, a connection's requests wait.
const SLOTS_PAUSE: usize = 1024;
/// With no more than these, they go on.
const SLOTS_RESUME: usize = SLOTS_PAUSE / 2;
/// With more than this waiting behind a list, a grab that another core sees to or a move to another
/// core, a connection isn't read.
const INBOUND_PAUSE_BYTES: usize = 1 << 20;
/// Timers that one `tick` sees to, so that no burst of them stops the core.
const TIMERS_PER_TICK: usize = 4096;
/// Functions and registrations of a core may always take so much.
const REGISTRY_BYTES_MIN: usize = 64 << 10;
/// Memory a connection takes while nothing is on its way, in round figures.
pub const CONNECTION_BYTES: usize = 512;

const _: () = assert!(size_of::<Connection>() < CONNECTION_BYTES);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Its descriptor, or what the driver has in its place: a number that no other connection of
    /// any core has as long as this one is there.
    pub fd: i32,
    /// Its peer's address and port.
    pub peer: SocketAddr,
}

/// What a driver should do about a connection's incoming bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Receive into any buffer and call `received`.
    Read,
    /// Receive into what `lend` gives and call `give_back`.
    Direct,
    /// Receive nothing now; ask again after `sent`.
    Pause,
    /// Receive nothing, and hand the connection over to its `begin_hand_over`: call `detach`, or
    /// `cancel_hand_over` if that can't be done. Nothing is left to be sent.
    Move,
    /// Nothing more comes in or goes out: call `disconnect` and close.
    Close,
}

/// There are as many connections as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many connections")]
pub struct TooManyConnections;

/// What the other cores take of what all cores share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherCores {
    /// The sum of their `Shard::load_bytes`.
    pub bytes: isize,
    /// Connections.
    pub connections: usize,
    /// Cores that have few enough connections to take in more, one bit each.
    pub hospitable: u64,
    /// The largest of their `Shard::largest_unread_bytes`.
    pub largest_unread_bytes: usize,
}

/// How a connection comes to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Closing {
    #[default]
    No,
    /// When everything has left.
    Flushing,
    /// At once.
    Now,
}

#[derive(Debug)]
struct Connection {
    origin: Origin,
    session: Session,
    inbound: Inbound,
    outbox: Outbox,
    /// Tells it from earlier connections of its number.
    generation: u32,
    /// Whose proxy it is, if its home is another core.
    key: Option<(Core, ConnKey)>,
    /// Its remote_counts with other cores.
    remote: Option<Box<RemoteState>>,
    /// On its way to another core.
    migration: Migration,
    /// A list that is being written; requests behind it wait.
    listing: Option<Box<Progress>>,
    /// How many connections had moved to this core when it did, itself included; 0 if it came in
    /// here.
    arrived: u64,
    closing: Closing,
    /// The peer will send nothing more.
    ended: bool,
    /// Requests wait for replies to come or to leave, and nothing is received meanwhile.
    paused: bool,
    /// Memory is short and much is unread: requests wait. When the peer last read something, in
    /// milliseconds of `Now::mono_ms`.
    throttled: Option<u64>,
    /// Among those that have much unread.
    is_listed: bool,
    /// Requests wait until messages to other cores have left; see `Outgoing`.
    blocked: bool,
    dirty: bool,
}

impl Connection {
    fn new(origin: Origin, session: Session, generation: u32) -> Self {
        Self {
            origin,
            session,
            inbound: Inbound::default(),
            outbox: Outbox::default(),
            generation,
            key: None,
            remote: None,
            migration: Migration::No,
            listing: None,
            arrived: 0,
            closing: Closing::No,
            ended: false,
            paused: false,
            throttled: None,
            is_listed: false,
            blocked: false,
            dirty: false,
        }
    }

    fn proxy(from: Core, key: ConnKey) -> Self {
        let origin = Origin { fd: -1, peer: (Ipv4Addr::UNSPECIFIED, 0).into() };
        let connection = Self::new(origin, Session::new(false), key.generation);
        Self { key: Some((from, key)), ..connection }
    }

    /// The home that messages with what there is for it go to; none for one that is here, or will
    /// be.
    fn home(&self) -> Option<(Core, ConnKey)> {
        self.key.filter(|_| !matches!(self.migration, Migration::Incoming | Migration::Offloaded))
    }

    /// Whether it waits for another core's answer to a grab.
    fn is_grabbing(&self) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.is_grabbing())
    }

    /// Whether requests that waited, or the end of the connection that did, may go on.
    fn may_resume(&self) -> bool {
        let (bytes, slots) = (self.outbox.bytes(), self.outbox.held());
        let waits = self.paused || self.listing.is_some();
        // A peer may read nothing before it has written all: only a list waits for that, and what
        // waits because memory is short.
        let waits_for_peer = self.throttled.is_some() || self.listing.is_some();
        waits && (bytes <= OUTBOX_RESUME_BYTES || !waits_for_peer) && slots <= SLOTS_RESUME
            || self.outbox.is_empty() && matches!(self.migration, Migration::Quiescing(_))
            || self.ended && self.closing == Closing::No && slots == 0
    }

    /// Whether it may be closed at once: a proxy has nothing to close, and what is being handed
    /// over isn't written to.
    fn may_be_closed(&self) -> bool {
        self.closing != Closing::Now
            && self.key.is_none()
            && !matches!(self.migration, Migration::HandingOver(_) | Migration::Offloaded)
    }
}

/// One core's share of the server.
#[derive(Debug)]
pub struct Shard {
    settings: Settings,
    engine: Engine,
    connections: Slab<Connection>,
    dirty: Vec<ConnId>,
    /// Effects that are being delivered; empty otherwise.
    effects: Vec<Effect>,
    /// Text of the admin reply that is being made; empty otherwise.
    text: Vec<u8>,
    /// What the store is to do; empty once the driver has fetched it.
    operations: Vec<Operation>,
    /// What is to go to other cores, or on its way.
    messages: Outgoing,
    /// Proxies of other cores' connections, by core and number there.
    proxies: Vec<HashMap<ConnId, ConnId>>,
    /// What all cores are being asked.
    fan_outs: Slab<FanOut>,
    /// Workers that this core's engine woke in vain; empty between calls.
    declined: Vec<ConnId>,
    /// What this core has been told to do about too much to do.
    offload: Offload,
    /// Connections that have much unread.
    unread: Unread,
    /// Connections so far, proxies not counted.
    sessions: u32,
    /// Memory and connections of the other cores.
    other_cores: OtherCores,
    /// What `Settings::urgency` says of this core.
    published_priorities: u8,
    /// Connections whose requests may go on, which `next_dirty` sees to.
    resumed: Vec<ConnId>,
    inbound_bytes: usize,
    outbox_bytes: usize,
    /// Memory that workers' functions of other cores take.
    remote_bytes: usize,
    /// Replies that wait, or wait behind one that does.
    slots: usize,
    complaints: Complaints,
    /// Events since the start.
    pub counters: Counters,
}

impl Shard {
    /// A shard without connections.
    #[must_use]
    pub fn new(settings: Settings, now: Now) -> Self {
        settings.urgency.publish(settings.cores.own, 0);
        Self {
            engine: Engine::new(settings.engine.clone(), now),
            connections: Slab::new(),
            dirty: Vec::new(),
            effects: Vec::new(),
            text: Vec::new(),
            operations: Vec::new(),
            messages: Outgoing::default(),
            proxies: (0..settings.cores.count).map(|_| HashMap::default()).collect(),
            fan_outs: Slab::new(),
            declined: Vec::new(),
            offload: Offload::default(),
            unread: Unread::default(),
            sessions: 0,
            other_cores: OtherCores::default(),
            published_priorities: 0,
            resumed: Vec::new(),
            inbound_bytes: 0,
            outbox_bytes: 0,
            remote_bytes: 0,
            slots: 0,
            complaints: Complaints::default(),
            counters: Counters::default(),
            settings,
        }
    }

    /// A connection has come.
    ///
    /// # Errors
    /// `TooManyConnections`: the driver is to close it.
    pub fn connect(&mut self, origin: Origin, now: Now) -> Result<ConnId, TooManyConnections> {
        let Origin { fd, peer } = origin;
        // A socket for both versions of IP gives IPv4 addresses as IPv6 ones.
        let origin = Origin { fd, peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()) };
        let Settings { connections_max, core_connections_max, .. } = self.settings;
        let here = self.connections();
        if here >= core_connections_max || here + self.other_cores.connections >= connections_max {
            self.counters.refused += 1;
            self.complain(
                now,
                || warn!(peer = %origin.peer, "turned remote: too many connections"),
            );
            return Err(TooManyConnections);
        }
        self.sessions = self.sessions.wrapping_add(1);
        let session = Session::new(self.settings.exceptions);
        let id = self.connections.insert(Connection::new(origin, session, self.sessions));
        // The limit is a number of descriptors, which fit 31 bits.
        let conn = ConnId::try_from(id).unwrap_or(ConnId::MAX);
        self.engine.connect(conn);
        self.counters.connected += 1;
        debug!(conn, peer = %origin.peer, fd, "connected");
        Ok(conn)
    }

    /// Bytes have come.
    #[inline]
    pub fn received(&mut self, conn: ConnId, bytes: &[u8], now: Now) {
        self.handle_frames(conn, bytes, now);
    }

    /// The peer will send nothing more. What it sent is still handled and answered.
    pub fn ended(&mut self, conn: ConnId, now: Now) {
        self.connections[conn as usize].ended = true;
        self.handle_frames(conn, &[], now);
    }

    /// The connection is gone: jobs that it had go to others, jobs that only it waited for are
    /// dropped. Its number may be given to the next one at once.
    pub fn disconnect(&mut self, conn: ConnId, now: Now) {
        self.engine.disconnect(conn, now);
        // Nobody is left to whom effects on this very connection could be delivered.
        let connection = self.connections.remove(conn as usize);
        self.inbound_bytes -= connection.inbound.held_bytes();
        self.outbox_bytes -= connection.outbox.bytes();
        self.slots -= connection.outbox.held();
        if connection.blocked {
            self.messages.forget(conn);
        }
        self.leave_others(conn, connection.remote);
        self.deliver(None, now);
        debug!(conn, peer = %connection.origin.peer, "disconnected");
    }

    /// The next connection about which `take` and `intake` may have something new to say; to be
    /// asked at the end of a batch until there is none, as it is what wakes sleeping workers. One
    /// that was disconnected meanwhile is never named.
    #[inline]
    pub fn next_dirty(&mut self, now: Now) -> Option<ConnId> {
        loop {
            while let Some(conn) = self.resumed.pop() {
                // Its number may be another's by now; a proxy's is nothing that a driver knows.
                let connection = self.connections.get(conn as usize);
                if connection.is_some_and(|connection| connection.key.is_none()) {
                    self.handle_frames(conn, &[], now);
                }
            }
            // All that came together has been handled.
            if self.engine.wake_sleepers(now) {
                self.deliver(None, now);
            }
            while let Some(conn) = self.dirty.pop() {
                if let Some(connection) = self.connections.get_mut(conn as usize)
                    && std::mem::take(&mut connection.dirty)
                {
                    return Some(conn);
                }
            }
            if self.unread.is_empty() {
                return None;
            }
            self.check_unread(now);
            if self.dirty.is_empty() && self.resumed.is_empty() {
                return None;
            }
        }
    }

    /// What is to be sent next, and whether more stands behind it. The driver holds it until
    /// `sent`.
    #[inline]
    pub fn take(&mut self, conn: ConnId) -> Option<(Chunk, bool)> {
        if self.holds_back(conn) {
            return None;
        }
        self.connections[conn as usize].outbox.take()
    }

    /// Whether `take` has something to hand out.
    #[inline]
    #[must_use]
    pub fn has_chunks(&self, conn: ConnId) -> bool {
        !self.holds_back(conn) && self.connections[conn as usize].outbox.has_chunks()
    }

    /// A chunk has been sent whole.
    #[inline]
    pub fn sent(&mut self, conn: ConnId, chunk: Chunk, now: Now) {
        let connection = &mut self.connections[conn as usize];
        self.outbox_bytes -= chunk.as_ref().len();
        connection.outbox.sent(chunk);
        connection.throttled = connection.throttled.map(|_| now.mono_ms);
        if connection.may_resume() {
            self.handle_frames(conn, &[], now);
        } else if connection.closing != Closing::No || connection.migration != Migration::No {
            self.mark_dirty(conn);
        }
    }

    /// Some of a chunk has been sent: its peer reads.
    #[inline]
    pub fn sent_some(&mut self, conn: ConnId, now: Now) {
        let connection = &mut self.connections[conn as usize];
        connection.throttled = connection.throttled.map(|_| now.mono_ms);
    }

    /// What to do about a connection's incoming bytes.
    #[inline]
    #[must_use]
    pub fn intake(&self, conn: ConnId) -> Intake {
        let connection = &self.connections[conn as usize];
        match connection.closing {
            Closing::Now => Intake::Close,
            Closing::Flushing if connection.outbox.is_empty() => Intake::Close,
            Closing::Flushing => Intake::Pause,
            Closing::No if connection.migration != Migration::No => match connection.migration {
                Migration::Accepted(_) | Migration::Offloading(_)
                    if connection.outbox.is_empty() =>
                {
                    Intake::Move
                }
                // Its peer may read only when it has said all.
                Migration::Quiescing(_) | Migration::Accepted(_) | Migration::Offloading(_)
                    if !connection.paused && !connection.ended =>
                {
                    Intake::Read
                }
                _ => Intake::Pause,
            },
            Closing::No if connection.paused || connection.ended => Intake::Pause,
            Closing::No if connection.inbound.wants_direct() => Intake::Direct,
            Closing::No => Intake::Read,
        }
    }

    /// Lends the allocation that a large body is to be received into; see `Inbound::lend`.
    pub fn lend(&mut self, conn: ConnId) -> Option<(Vec<u8>, usize)> {
        self.connections[conn as usize].inbound.lend()
    }

    /// Takes a lent allocation back, with what was received behind its bytes.
    pub fn give_back(&mut self, conn: ConnId, body: Vec<u8>, now: Now) {
        self.connections[conn as usize].inbound.give_back(body);
        self.handle_frames(conn, &[], now);
    }

    /// When `tick` has to be called next, in milliseconds of `Now::mono_ms`.
    #[inline]
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        let Self { engine, settings, unread, complaints, .. } = self;
        let deadlines = [
            engine.deadline_ms(),
            settings.spares.deadline_ms(),
            unread.deadline_ms(),
            complaints.deadline_ms(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Now) {
        self.settings.spares.age(now.mono_ms);
        self.engine.tick(now, TIMERS_PER_TICK);
        self.count_complaints(now);
        self.deliver(None, now);
    }

    /// The store keeps a job, or, with `kept` false, doesn't and never will.
    pub fn stored(&mut self, number: u64, kept: bool, now: Now) {
        if kept {
            self.engine.stored(number, now);
        } else {
            self.engine.not_stored(number, now);
        }
        self.deliver(None, now);
    }

    /// The store has lost a job that it kept. Nothing happens if it is no job of this core.
    pub fn keep_again(&mut self, number: u64, now: Now) {
        self.engine.keep_again(number);
        self.deliver(None, now);
    }

    /// Takes back a job that the store kept over a restart. `false` if its handle is taken.
    pub fn restore(&mut self, row: &Row, now: Now) -> bool {
        let restored = self.engine.restore(row, now);
        self.deliver(None, now);
        restored
    }

    /// Moves what the store is to do into `operations`, which must be empty.
    #[inline]
    pub fn take_operations(&mut self, operations: &mut Vec<Operation>) {
        debug_assert!(operations.is_empty());
        std::mem::swap(&mut self.operations, operations);
    }

    /// Jobs may be numbered with sequences below `end` from now on.
    pub fn allow_sequences(&mut self, end: u64) {
        self.engine.allow_sequences(end);
    }

    /// How many jobs may still be numbered.
    #[must_use]
    pub fn sequences_left(&self) -> u64 {
        self.engine.sequences_left()
    }

    /// Whether jobs of policy `Async` may be answered before they are on disk; see there.
    pub fn allow_async(&mut self, allowed: bool) {
        self.engine.allow_async(allowed);
    }

    /// What the other cores take of what all share.
    pub fn set_other_cores(&mut self, other_cores: OtherCores) {
        self.other_cores = other_cores;
    }

    /// Number of connections that came in on this core.
    #[must_use]
    pub fn connections(&self) -> usize {
        let stand_ins = self.proxies.iter().map(HashMap::len).sum::<usize>();
        self.connections.len() - stand_ins - self.offload.awaiting_home
    }

    /// Whether every reply has left, on all connections.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        self.outbox_bytes == 0 && self.slots == 0
    }

    /// Whether nothing is left to be finished.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.unfinished() == 0
    }

    /// Takes no more jobs: the server is to end when none is left.
    pub fn drain(&mut self, now: Now) {
        self.engine.drain(now);
    }

    /// Jobs that aren't left to the next server, and connections on their way elsewhere for which
    /// results may wait here.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.engine.jobs().len() - self.engine.kept() + self.offload.awaiting_home
    }

    /// What waits for replies that are to come; see `Outbox::waiting`. For tests.
    #[cfg(debug_assertions)]
    pub fn waiting(&self, conn: ConnId) -> impl Iterator<Item = (Option<Vec<u8>>, Vec<u8>)> {
        self.connections[conn as usize].outbox.waiting()
    }

    /// Whether requests wait because the connection moves to another core. For tests.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn is_moving(&self, conn: ConnId) -> bool {
        self.connections[conn as usize].migration != Migration::No
    }

    /// Proxies of other cores' connections, and questions to all cores that wait for answers.
    /// For tests.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn remote_counts(&self) -> (usize, usize) {
        let stand_ins = self.proxies.iter().map(HashMap::len).sum::<usize>();
        (stand_ins + self.offload.awaiting_home, self.fan_outs.len())
    }

    /// The engine, to look at.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Memory that jobs and bytes on their way take.
    #[inline]
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.engine.job_bytes() + self.inbound_bytes + self.outbox_bytes
    }

    /// Memory that functions, and what workers have registered for, take.
    #[inline]
    #[must_use]
    pub fn registry_bytes(&self) -> usize {
        self.engine.registry_bytes() + self.remote_bytes
    }

    /// Handles `input` and what waited before it, as far as the outbox allows.
    fn handle_frames(&mut self, conn: ConnId, mut input: &[u8], now: Now) {
        let connection = &mut self.connections[conn as usize];
        self.inbound_bytes -= connection.inbound.held_bytes();
        let mut inbound = std::mem::take(&mut connection.inbound);
        loop {
            if self.connections[conn as usize].closing != Closing::No {
                break;
            }
            if self.must_wait(conn, &inbound, now) {
                inbound.stash(input);
                break;
            }
            if input.is_empty() && inbound.is_empty() {
                self.finish_if_ended(conn, now);
                break;
            }
            // What can be had by closing a connection that doesn't read is as good as free.
            let room = self.room();
            let memory_left = room + self.unread.largest_bytes();
            let body_bytes_max = self.settings.body_bytes_max;
            let bounds =
                Bounds { body_bytes_max, memory_left, spares: Some(&self.settings.spares) };
            match inbound.next(&mut input, bounds) {
                Ok(Some(arrival)) => {
                    self.messages.begin();
                    self.handle_arrival(conn, arrival, room, now);
                    self.check_messages(conn);
                }
                Ok(None) => {
                    self.finish_if_ended(conn, now);
                    break;
                }
                Err(error) => {
                    if error == FrameError::Body {
                        self.push(conn, &Response::Error(ErrorReply::BodyTooLarge), now);
                    }
                    self.close_malformed(conn, &error, now);
                    break;
                }
            }
        }
        let connection = &mut self.connections[conn as usize];
        let held_bytes = inbound.held_bytes();
        self.inbound_bytes += held_bytes;
        connection.inbound = inbound;
        if held_bytes > INBOUND_PAUSE_BYTES {
            let moves = connection.migration != Migration::No;
            connection.paused |= connection.is_grabbing() || connection.listing.is_some() || moves;
            self.consider_staying(conn);
        }
        self.consider_leaving(conn);
        self.mark_dirty(conn);
    }

    /// Everything that the peer sent is handled. If it will send nothing more and waits for no
    /// reply, it is gone for the engine, and for the driver once its replies have left.
    #[inline]
    fn finish_if_ended(&mut self, conn: ConnId, now: Now) {
        let connection = &self.connections[conn as usize];
        if connection.ended && connection.outbox.held() == 0 {
            self.finish(conn, now);
        }
    }

    #[inline(never)]
    fn finish(&mut self, conn: ConnId, now: Now) {
        self.connections[conn as usize].closing = Closing::Flushing;
        self.engine.disconnect(conn, now);
        self.engine.connect(conn);
        let remote = self.connections[conn as usize].remote.take();
        self.leave_others(conn, remote);
        self.deliver(None, now);
    }

    /// Goes on with a list, if one is being written; then whether requests have to wait.
    fn must_wait(&mut self, conn: ConnId, inbound: &Inbound, now: Now) -> bool {
        let connection = &mut self.connections[conn as usize];
        if connection.outbox.bytes() <= OUTBOX_PAUSE_BYTES
            && let Some(progress) = connection.listing.take()
        {
            self.go_on_listing(conn, progress, now);
        }
        if self.connections[conn as usize].migration != Migration::No && self.go_on_moving(conn) {
            let connection = &mut self.connections[conn as usize];
            connection.paused = connection.blocked;
            return true;
        }
        let connection = &mut self.connections[conn as usize];
        if connection.is_grabbing() {
            // A reply away; it isn't worth telling the driver, unless the peer sends on and on.
            connection.paused = false;
            return true;
        }
        if connection.outbox.bytes() <= OUTBOX_RESUME_BYTES {
            connection.throttled = None;
        }
        // A body that has begun to come is received: its sender may read nothing until it has left.
        let throttled = connection.throttled.is_some() && !inbound.is_within_body();
        connection.paused =
            throttled || connection.blocked || connection.outbox.held() >= SLOTS_PAUSE;
        // What is left of a list goes on when its last part has left.
        connection.paused || connection.listing.is_some()
    }

    fn handle_arrival(&mut self, conn: ConnId, arrival: Arrival<'_>, room: usize, now: Now) {
        self.counters.frames += 1;
        let alone = self.settings.cores.count == 1;
        match arrival {
            Arrival::Packet { header, body } => match Request::parse(header, body) {
                Ok(request) => {
                    trace!(conn, packet = header.command.name(), bytes = header.body_bytes);
                    if let Request::CanDo { function } | Request::CanDoTimeout { function, .. } =
                        request
                        && !self.may_register(conn, function)
                    {
                        return self.refuse_registration(conn, now);
                    }
                    if !alone && self.send_away(conn, header, body, &request, now) {
                        return self.check_outbox(conn, now);
                    }
                    let late = self.engine.counters.late;
                    let (session, mut cx) = self.context(conn, room, now);
                    session.handle(&request, &mut cx);
                    self.settle(conn, now);
                    let work = if let Request::Work(work) = request { Some(work) } else { None };
                    if self.engine.counters.late > late
                        && let Some(number) = work.and_then(|work| self.number_of(&work))
                    {
                        self.note_late(conn, number, now);
                    }
                    self.deliver(work, now);
                }
                Err(error) => {
                    let (session, cx) = self.context(conn, room, now);
                    let usable = session.handle_bad_packet(error, cx.outbox);
                    self.settle(conn, now);
                    if !usable {
                        self.close_malformed(conn, &error, now);
                    }
                }
            },
            Arrival::Line(line) => {
                if !alone && self.send_line_away(conn, line, now) {
                    self.check_outbox(conn, now);
                } else {
                    self.handle_line(conn, line, now);
                }
            }
            Arrival::Refused { header, head, why } => {
                let (session, mut cx) = self.context(conn, room, now);
                let work = session.handle_refused(header.command, head, why, &mut cx);
                self.settle(conn, now);
                self.deliver(work, now);
                let is_result =
                    matches!(header.command, Command::WorkComplete | Command::WorkException);
                if !alone && is_result && work.is_none() {
                    self.fail_away(conn, text::c_string(head));
                }
            }
        }
    }

    fn handle_line(&mut self, conn: ConnId, line: &[u8], now: Now) {
        trace!(conn, line = %line.escape_ascii());
        let mut text = std::mem::take(&mut self.text);
        let room = self.registry_room();
        let Settings { handles, identity, .. } = &self.settings;
        match admin::answer(line, &mut self.engine, handles, identity, room, &mut text) {
            Ok(listing) => {
                self.connections[conn as usize].listing =
                    listing.map(|it| Box::new(Progress::of(it)));
                self.push_text(conn, text, now);
                self.deliver(None, now);
            }
            Err(error) => {
                self.text = text;
                self.close_malformed(conn, &error, now);
            }
        }
    }

    /// A session and what it works with, `room` the bytes that may be allocated. `settle` has to
    /// follow.
    #[inline]
    fn context(&mut self, conn: ConnId, room: usize, now: Now) -> (&mut Session, Context<'_>) {
        self.unsettle(conn);
        let connection = &mut self.connections[conn as usize];
        let cx = Context {
            conn,
            engine: &mut self.engine,
            handles: &self.settings.handles,
            outbox: &mut connection.outbox,
            slot: None,
            room,
            now,
        };
        (&mut connection.session, cx)
    }

    /// Takes an outbox out of the sums, before something is done to it.
    #[inline]
    fn unsettle(&mut self, conn: ConnId) {
        let outbox = &self.connections[conn as usize].outbox;
        self.outbox_bytes -= outbox.bytes();
        self.slots -= outbox.held();
    }

    /// Takes an outbox into the sums again.
    #[inline]
    fn settle(&mut self, conn: ConnId, now: Now) {
        let outbox = &self.connections[conn as usize].outbox;
        let bytes = outbox.bytes();
        self.outbox_bytes += bytes;
        self.slots += outbox.held();
        if bytes > OUTBOX_PAUSE_BYTES.min(self.settings.outbox_bytes_max) {
            self.check_outbox(conn, now);
        }
    }

    /// A connection was sent something, or has a request whose reply is to come: what it hasn't
    /// read is within its bounds, or it is listed or closed.
    #[inline(never)]
    fn check_outbox(&mut self, conn: ConnId, now: Now) {
        let bytes = self.connections[conn as usize].outbox.bytes();
        if bytes > OUTBOX_PAUSE_BYTES.min(self.settings.outbox_bytes_max) {
            self.list_unread(conn);
            self.check_slow_reader(conn, now);
        }
    }

    fn close_malformed(&mut self, conn: ConnId, error: &dyn std::error::Error, now: Now) {
        let connection = &mut self.connections[conn as usize];
        connection.closing = Closing::Flushing;
        let peer = connection.origin.peer;
        self.counters.malformed += 1;
        self.mark_dirty(conn);
        self.complain(now, || warn!(conn, %peer, %error, "closed: malformed bytes"));
    }

    #[inline]
    fn mark_dirty(&mut self, conn: ConnId) {
        let connection = &mut self.connections[conn as usize];
        // A proxy is nothing that a driver knows.
        if !connection.dirty && connection.key.is_none() {
            connection.dirty = true;
            self.dirty.push(conn);
        }
    }

    /// Bytes that may still be allocated.
    #[inline]
    fn room(&self) -> usize {
        self.settings.memory_bytes_max.saturating_sub(self.taken_bytes())
    }

    /// Bytes that functions and registrations may still take: this core's share of a quarter of the
    /// memory is theirs whatever jobs take, as without workers jobs would stay for ever.
    #[inline]
    fn registry_room(&self) -> usize {
        let Settings { memory_bytes_max, cores, .. } = &self.settings;
        let share = (memory_bytes_max / 4 / cores.count).max(REGISTRY_BYTES_MIN);
        self.room().max(share.saturating_sub(self.registry_bytes()))
    }

    /// Bytes that all cores have taken.
    #[inline]
    fn taken_bytes(&self) -> usize {
        let own = self.memory_bytes() + self.registry_bytes();
        own.saturating_add_signed(self.messages.bytes + self.other_cores.bytes)
    }
}

#[cfg(test)]
mod tests;
