//! One core: its connections, its engine, their outboxes. What the server's drivers run.
//!
//! What came goes in, what to send and what other threads are to have comes out; the shard calls no
//! driver and knows no kernel. `frames` cuts what came, `gate` authorises and routes it, `delivery`
//! brings the engine's effects to connections, `connections` holds them and their sums, `remote`
//! faces other cores.
//!
//! Invariant: a connection that doesn't read its replies is read from all the same, until memory
//! is short, and beyond `Settings::outbox_bytes_max` closed (`unread`); order is kept.

pub mod cores;
pub mod remote;

mod access;
mod connections;
mod counters;
pub mod dead_drops;
mod delivery;
pub mod denials;
mod driver;
#[cfg(debug_assertions)]
pub mod fingerprint;
mod frames;
mod gate;
mod handshakes;
mod job_log;
mod leavers;
mod limits;
mod listing;
mod lookups;
mod losses;
mod memory;
pub mod operator;
mod packet_log;
mod partitions;
mod refusals;
mod route;
mod settings;
pub mod stats;
pub(crate) mod throttle;
mod tls;
mod unread;

use std::ops::Range;
use std::sync::Arc;

use foldhash::HashMap;
use slab::Slab;
use tracing::{debug, info};

pub use self::connections::CONNECTION_BYTES;
use self::connections::{Connection, Connections, EndReason};
pub use self::counters::Counters;
use self::dead_drops::DeadDrops;
use self::denials::Denials;
pub use self::driver::{Intake, Origin, OtherCores, Service, TooManyConnections};
use self::handshakes::Handshakes;
pub use self::job_log::PEERS;
use self::job_log::PeerName;
use self::leavers::Leaver;
use self::lookups::Lookups;
use self::losses::Complaints;
use self::refusals::{Kind, Refusals};
use self::remote::fan_out::FanOut;
use self::remote::message::{HomeConnId, Message};
pub use self::remote::migration::{HandOver, MigratingConnection};
use self::remote::offload::Offload;
use self::remote::outgoing::Outgoing;
pub use self::settings::{Listener, Settings};
use self::throttle::Throttle;
use self::tls::Tls;
use self::unread::Unread;
use crate::engine::policy::Policies;
use crate::engine::record::{DeadRow, Operation, Pause, Row};
use crate::engine::{self, ConnId, DrainGoal, Effect, Engine, Now};
use crate::protocol::access::{AccessList, Hits};
use crate::protocol::peer_address::PeerHost;
use crate::protocol::session::{Context, Session};
use crate::wire::outbox::{Chunk, Slot};
use crate::wire::{ErrorReply, PrioritySet};

/// Timers that one `tick` sees to, so that no burst of them stops the core.
const TIMERS_PER_TICK: usize = 4096;

/// One core's share of the server.
///
/// Around the calls of `Service` a driver makes others, in this order within a turn of its loop:
///
/// 1. What other threads left is handled first: `set_other_cores`, `receive_message`, `attach`,
///    `stored`. A request that a client sent after it had heard of another core's job then comes
///    behind that core's message.
/// 2. What the kernel says, and `tick`: see `Service`.
/// 3. `poll_dirty`, `take` and `intake`: see there. A connection that is to move gets
///    `begin_hand_over` and then `detach` or `cancel_hand_over`. Before replies leave,
///    `take_messages` and `set_congested` pass on what they caused on other cores.
/// 4. What other threads are to have is fetched: `take_operations` for the store, `take_messages`
///    and `set_congested` for other cores.
#[cfg_attr(debug_assertions, derive(Clone))]
#[derive(Debug)]
pub struct Shard {
    settings: Settings,
    engine: Engine,
    connections: Connections,
    /// Effects that are being delivered; empty otherwise.
    effects: Vec<Effect>,
    /// Text of the admin reply that is being made; empty otherwise.
    text: Vec<u8>,
    /// What the store is to do; empty once the driver has fetched it.
    operations: Vec<Operation>,
    /// What is to go to other cores, or on its way.
    outgoing: Outgoing,
    /// Proxies of other cores' connections, by core and number there; also of those that the HTTP
    /// thread has.
    proxies: Vec<HashMap<HomeConnId, ConnId>>,
    /// What all cores are being asked.
    fan_outs: Slab<FanOut>,
    /// Workers that this core's engine woke in vain; empty between calls.
    declined: Vec<ConnId>,
    /// Connections that are to leave because this core has too much to do.
    offload: Offload,
    /// Connections that have much unread.
    unread: Unread,
    /// Connections that end, as the server does.
    leavers: Vec<Leaver>,
    /// Jobs of other servers that clients ask for.
    lookups: Lookups,
    /// Memory and connections of the other cores.
    other_cores: OtherCores,
    /// What `Settings::urgency` says of this core.
    published_priorities: PrioritySet,
    complaints: Complaints,
    refusals: Refusals,
    /// The access list; without one every connection may do everything.
    access_list: Option<Arc<AccessList>>,
    /// How often its rules have decided here.
    hits: Hits,
    /// What it has refused here.
    denials: Denials,
    dead_drops: DeadDrops,
    /// The server's TLS, if a listener speaks it.
    tls: Tls,
    handshakes: Handshakes,
    /// Lines about peers that TLS has refused, by address and reason.
    tls_faults: Throttle<(PeerHost, String)>,
    /// When it was made.
    started: Now,
    /// Stored jobs that run aren't waited for at the end.
    leaves_stored_runs: bool,
    /// Events since the start.
    pub counters: Counters,
}

impl Shard {
    /// A shard without connections.
    #[must_use]
    pub fn new(settings: Settings, now: Now) -> Self {
        settings.urgency.publish(settings.cores.own, PrioritySet::EMPTY);
        let dead = settings.engine.dead.at(settings.cores.own);
        let has_other_servers = settings.has_other_servers;
        let engine = engine::Settings { dead, has_other_servers, ..settings.engine.clone() };
        let mut engine = Engine::new(engine, now);
        let configured = settings.engine.durabilities.named.keys();
        let own = configured.filter(|name| settings.cores.owner_of(name) == settings.cores.own);
        own.for_each(|name| engine.name_function(name));
        Self {
            engine,
            connections: Connections::new(settings.cores),
            effects: Vec::new(),
            text: Vec::new(),
            operations: Vec::new(),
            outgoing: Outgoing::default(),
            proxies: (0..=settings.cores.http()).map(|_| HashMap::default()).collect(),
            fan_outs: Slab::new(),
            declined: Vec::new(),
            offload: Offload::default(),
            unread: Unread::default(),
            leavers: Vec::new(),
            lookups: Lookups::default(),
            other_cores: OtherCores::default(),
            published_priorities: PrioritySet::EMPTY,
            complaints: Complaints::default(),
            refusals: Refusals::default(),
            access_list: settings.access_list.clone(),
            hits: Hits::default(),
            denials: Denials::default(),
            dead_drops: DeadDrops::new(settings.dead_drops.clone()),
            tls: Tls::new(settings.tls.clone(), settings.cores.own == 0, now),
            handshakes: Handshakes::default(),
            tls_faults: Throttle::default(),
            started: now,
            leaves_stored_runs: false,
            counters: Counters::default(),
            settings,
        }
    }

    /// Uses other policies from now on, here and on all other cores. To be called on one core.
    pub fn set_policies(&mut self, policies: &Arc<Policies>, now: Now) {
        for core in self.others_and_http() {
            self.outgoing.send(core, Message::Policies(Arc::clone(policies)));
        }
        self.engine.use_policies(Arc::clone(policies), now);
        self.deliver(None, now);
    }

    /// The server is to end when it has reached this goal.
    pub fn drain(&mut self, goal: DrainGoal, now: Now) {
        self.engine.drain(goal, now);
        // Other cores are to know that there is nothing to grab here.
        self.deliver(None, now);
    }

    /// Stored jobs that run aren't waited for any more: other servers run them again.
    pub fn leave_stored_runs(&mut self) {
        self.leaves_stored_runs = true;
    }

    #[inline]
    fn next_dirty(&mut self, now: Now) -> Option<ConnId> {
        if !self.leavers.is_empty() {
            self.end_leavers();
        }
        loop {
            while let Some(conn) = self.connections.pop_resumed() {
                self.handle_frames(conn, &[], now);
            }
            // All that came together has been handled.
            if self.engine.wake_sleepers(now) {
                self.deliver(None, now);
            }
            if let Some(conn) = self.connections.pop_dirty() {
                return Some(conn);
            }
            if self.unread.is_empty() {
                return None;
            }
            self.check_unread(now);
            if !self.connections.has_dirty() && !self.connections.has_resumed() {
                return None;
            }
        }
    }
}

impl Service for Shard {
    fn connect(&mut self, origin: Origin, now: Now) -> Result<ConnId, TooManyConnections> {
        let origin = Origin { peer: origin.peer.canonical(), ..origin };
        let Origin { fd, peer, .. } = origin;
        let Settings { connections_max, core_connections_max, .. } = self.settings;
        let here = self.connections();
        if here >= core_connections_max || here + self.other_cores.connections >= connections_max {
            self.counters.refused += 1;
            self.refusals.add(Kind::Connections, || peer.to_string(), now);
            return Err(TooManyConnections);
        }
        let generation = self.connections.next_generation();
        let session = Session::new(self.settings.exceptions, now);
        let conn = self.connections.insert(Connection::new(origin, session, generation));
        self.engine.connect(conn);
        self.admit(conn);
        if self.speaks_tls(origin.listener) {
            self.begin_tls(conn, now);
        }
        self.counters.connected += 1;
        info!(target: PEERS, conn = conn.number(), %peer, fd, "connected");
        Ok(conn)
    }

    #[inline]
    fn received(&mut self, conn: ConnId, bytes: &[u8], now: Now) {
        self.counters.received_bytes += bytes.len() as u64;
        if self.connections[conn].transport.is_plain() {
            self.handle_frames(conn, bytes, now);
        } else {
            self.received_records(conn, bytes, now);
        }
    }

    fn ended(&mut self, conn: ConnId, now: Now) {
        self.connections[conn].ended = true;
        self.handle_frames(conn, &[], now);
    }

    /// Jobs that it had go to others, jobs that only it waited for are dropped.
    fn disconnect(&mut self, conn: ConnId, now: Now) {
        self.abandon_handshake(conn);
        self.log_disconnected(conn);
        self.counters.count_closed(self.connections[conn].end_reason);
        self.engine.disconnect(conn, now);
        // While the log and dead letters can still name it.
        self.log_jobs(now);
        self.name_dead(conn);
        self.leave_others(conn);
        if self.connections[conn].blocked {
            self.outgoing.forget(conn);
        }
        self.forget_leaver(conn);
        // Effects on this very connection can't be delivered any more.
        self.connections.remove(conn);
        self.deliver(None, now);
    }

    #[inline]
    fn sent(&mut self, conn: ConnId, chunk: Chunk, now: Now) {
        self.counters.sent_bytes += chunk.as_ref().len() as u64;
        let connection = self.connections.sent(conn, chunk);
        connection.note_read(now.mono_ms);
        if connection.may_resume() {
            self.handle_frames(conn, &[], now);
        } else if connection.awaits_flush() {
            self.connections.mark_dirty(conn);
        }
    }

    #[inline]
    fn sent_some(&mut self, conn: ConnId, now: Now) {
        self.connections[conn].note_read(now.mono_ms);
    }

    fn lend(&mut self, conn: ConnId) -> Option<(Vec<u8>, usize)> {
        self.connections.lend(conn)
    }

    fn give_back(&mut self, conn: ConnId, body: Vec<u8>, now: Now) {
        self.counters.received_bytes += self.connections.give_back(conn, body) as u64;
        self.handle_frames(conn, &[], now);
    }

    fn tick(&mut self, now: Now) {
        self.settings.buffer_pool.age(now.mono_ms);
        self.engine.tick(now, TIMERS_PER_TICK);
        self.complaints.report_left_out(now);
        self.refusals.report(now);
        self.denials.report(now);
        self.dead_drops.report(&self.engine.counters.dead_dropped, now);
        self.close_late_handshakes(now);
        self.tick_tls(now);
        self.report_tls_faults(now);
        self.answer_late_lookups(now);
        self.deliver(None, now);
    }

    /// Requests that waited go on in here, and sleeping workers are woken.
    #[inline]
    fn poll_dirty(&mut self, now: Now) -> Option<ConnId> {
        let dirty = self.next_dirty(now);
        if dirty.is_none() {
            self.connections.end_turn();
        }
        dirty
    }

    #[inline]
    fn take(&mut self, conn: ConnId) -> Option<(Chunk, bool)> {
        if self.connections[conn].holds_back() {
            return None;
        }
        if !self.connections[conn].transport.is_plain() {
            return self.take_records(conn);
        }
        let taken = self.connections.take_chunk(conn)?;
        if let Chunk::Packets(bytes) = &taken.0 {
            packet_log::log_sent(conn, bytes);
        }
        Some(taken)
    }

    #[inline]
    fn has_chunks(&self, conn: ConnId) -> bool {
        let connection = &self.connections[conn];
        !connection.holds_back() && connection.has_output()
    }

    #[inline]
    fn intake(&self, conn: ConnId) -> Intake {
        self.connections[conn].intake()
    }

    fn has_host(&self, conn: ConnId) -> bool {
        self.connections[conn].origin.peer.ip().is_some()
    }

    fn may_accept(&self, listener: u16) -> bool {
        self.handshakes.open() < self.settings.handshakes_max || !self.speaks_tls(listener)
    }

    fn has_resumed(&self) -> bool {
        self.connections.has_resumed()
    }

    #[inline]
    fn deadline_ms(&self) -> Option<u64> {
        let Self { engine, settings, unread, complaints, refusals, denials, .. } = self;
        let Self { tls, handshakes, tls_faults, dead_drops, lookups, .. } = self;
        let deadlines = [
            engine.deadline_ms(),
            settings.buffer_pool.deadline_ms(),
            unread.deadline_ms(),
            complaints.deadline_ms(),
            refusals.deadline_ms(),
            denials.deadline_ms(),
            tls.deadline_ms(),
            handshakes.deadline_ms(),
            tls_faults.deadline_ms(),
            lookups.deadline_ms(),
            dead_drops.deadline_ms(&engine.counters.dead_dropped),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn connections(&self) -> usize {
        self.connections.len()
    }

    fn is_flushed(&self) -> bool {
        self.connections.outbox_bytes() == 0 && self.connections.slots() == 0
    }

    fn note_lost(&mut self, conn: ConnId, beside: isize, reason: &'static str, now: Now) {
        self.log_lost(conn, beside, reason, now);
    }

    fn note_reset(&mut self, conn: ConnId) {
        self.connections[conn].end_reason = EndReason::Reset;
    }
}

/// The store.
impl Shard {
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

    /// Takes back a dead letter that the store kept over a restart. `false` if its handle is taken.
    pub fn restore_dead(&mut self, row: &DeadRow, now: Now) -> bool {
        let restored = self.engine.restore_dead(row, now);
        self.deliver(None, now);
        restored
    }

    /// Pauses a function as it was before a restart.
    pub fn restore_pause(&mut self, function: &[u8], pause: Pause, now: Now) {
        self.engine.restore_pause(function, pause, now);
        self.deliver(None, now);
    }

    /// Moves what the store is to do into `operations`, which must be empty.
    #[inline]
    pub fn take_operations(&mut self, operations: &mut Vec<Operation>) {
        debug_assert!(operations.is_empty());
        std::mem::swap(&mut self.operations, operations);
    }

    /// Jobs are numbered with these sequences from now on, and with no others.
    pub fn set_sequences(&mut self, range: Range<u64>) {
        self.engine.set_sequences(range);
    }

    /// Jobs may be numbered with these sequences, too.
    pub fn allow_sequences(&mut self, range: Range<u64>) {
        self.engine.allow_sequences(range);
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
}

/// How much there is.
impl Shard {
    /// What the other cores take of what all share.
    pub fn set_other_cores(&mut self, other_cores: OtherCores) {
        self.other_cores = other_cores;
    }

    /// Whether nothing is left to be finished.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.unfinished() == 0
    }

    /// Jobs that are to be finished before the server may end, and connections on their way
    /// elsewhere for which results may wait here.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        let jobs = match self.engine.assigns() {
            // What comes while it drains is left to others as soon as it is stored.
            true if self.settings.has_other_servers && self.engine.is_ending() => {
                let left = self.engine.kept() + self.engine.storing();
                let runs = if self.leaves_stored_runs { self.engine.stored_runs() } else { 0 };
                self.engine.jobs().len() - left - runs
            }
            true => self.engine.jobs().len() - self.engine.kept(),
            false => self.engine.running(),
        };
        jobs + self.offload.awaiting_home()
    }

    /// The engine, to look at.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What waits for replies that are to come; see `Outbox::waiting`. For tests.
    #[cfg(debug_assertions)]
    pub fn waiting(&self, conn: ConnId) -> impl Iterator<Item = (Option<Vec<u8>>, Vec<u8>)> {
        self.connections[conn].outbox().waiting()
    }

    /// Whether requests wait because the connection moves to another core. For tests.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn is_moving(&self, conn: ConnId) -> bool {
        self.connections[conn].migration != remote::migration::Migration::No
    }

    /// Proxies of other cores' connections, and questions to all cores that wait for answers. For
    /// tests.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn remote_counts(&self) -> (usize, usize) {
        (self.connections.proxies(), self.fan_outs.len())
    }
}

impl Shard {
    /// Lets a session, or a part of the engine on behalf of a connection, do something. `slot` is
    /// the place of its replies at the connection's home, for a proxy.
    #[inline(always)]
    fn with_context<T>(
        &mut self,
        conn: ConnId,
        slot: Option<Slot>,
        memory_left: usize,
        now: Now,
        act: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> T {
        let Self { engine, connections, settings, .. } = self;
        let ((result, refusal), bytes) = connections.with_session(conn, |session, outbox| {
            let handles = &settings.handles;
            let refusal = None;
            let may_decline = true;
            let mut cx = Context {
                conn,
                engine,
                handles,
                outbox,
                slot,
                memory_left,
                now,
                may_decline,
                refusal,
            };
            let result = act(session, &mut cx);
            (result, cx.refusal)
        });
        if let Some(error) = refusal {
            self.note_refusal(conn, error, now);
        }
        // A proxy keeps none.
        self.check_outbox(conn, bytes, now);
        result
    }

    /// A request was answered with an error.
    #[cold]
    fn note_refusal(&mut self, conn: ConnId, error: ErrorReply, now: Now) {
        if let Some(kind) = Kind::of(error) {
            self.count_refusal(kind, conn, now);
        }
        let peer = || self.peer_name(conn).map_or_else(String::new, |it| it.to_string());
        let (code, text) = (error.code(), error.text());
        debug!(conn = conn.number(), peer = peer(), code, text, "error reply");
    }

    /// Something of a connection's was refused.
    fn count_refusal(&mut self, kind: Kind, conn: ConnId, now: Now) {
        let Self { connections, refusals, .. } = self;
        let peer = || PeerName::of(connections, conn).map_or_else(String::new, |it| it.to_string());
        refusals.add(kind, peer, now);
    }
}

#[cfg(test)]
mod tests;
