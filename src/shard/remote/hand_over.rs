//! Connections that change their core, both sides: so that what would cross with every job crosses
//! once. A worker whose functions all belong to one other core does, and a client after
//! `Settings::move_after` submissions in a row to one.
//!
//! What is under way comes back, the owner keeps what it has for the connection
//! (`MigrationRequested`, `MigrationAccepted`), the driver hands the socket over, and there the
//! proxy becomes the connection itself, with its jobs, functions and sleep. `offload` is the other
//! direction. Knows no sockets.
//!
//! Invariant: nothing is under way between the two cores when a connection is detached, and its
//! home knew nothing of it that its proxy doesn't but the session and bytes that weren't handled.

use tracing::debug;

use super::message::{ConnKey, Message, Rest};
use super::migration::{HandOver, MigratingConnection, Migration, Step};
use crate::engine::{ConnId, Now};
use crate::protocol::session::{Session, SessionOptions};
use crate::shard::Shard;
use crate::shard::connections::{Closing, Transport};
use crate::shard::cores::Core;

/// The home's side.
impl Shard {
    /// A request was for another core: the connection moves there if that is the only one it has to
    /// do with.
    pub(in crate::shard) fn consider_migration(&mut self, conn: ConnId) {
        let connection = &self.connections[conn];
        if self.settings.move_after > 0
            && let Some(owner) = connection.remote().and_then(|remote| remote.home_to_be())
            && self.other_cores.accepting.contains(owner)
            && connection.migration == Migration::No
            && connection.closing == Closing::No
            && connection.listing.is_none()
            && !connection.ended
            && self.engine.is_bare(conn)
        {
            self.connections[conn].migration = Migration::Quiescing(owner);
        }
    }

    /// Goes on with a migration. Returns whether the connection is still to move, and its requests
    /// have to wait.
    pub(in crate::shard) fn advance_migration(&mut self, conn: ConnId) -> bool {
        let connection = &mut self.connections[conn];
        let is_quiet = connection.outbox().is_empty() && !connection.is_grabbing();
        match connection.migration.advance(is_quiet, connection.ended) {
            Step::Wait | Step::Stay => {}
            Step::Request(owner) => {
                let options = connection.session().options();
                let key = self.connections.key(conn);
                self.outgoing.send(owner, Message::MigrationRequested { key, options });
            }
            step => self.stay(conn, step),
        }
        self.connections[conn].migration != Migration::No
    }

    /// Much has come while a connection waits to move. One whose peer doesn't read stays, as the
    /// peer may have more to say before it does.
    pub(in crate::shard) fn reconsider_migration(&mut self, conn: ConnId) {
        let connection = &mut self.connections[conn];
        if !connection.outbox().is_empty() && connection.migration.may_be_cancelled() {
            let step = connection.migration.cancel();
            self.stay(conn, step);
        }
    }

    /// The owner keeps what there is for the connection.
    pub(in crate::shard) fn migration_accepted(&mut self, conn: ConnId, owner: Core) {
        self.connections[conn].migration.accept(owner);
        self.advance_migration(conn);
        self.connections.mark_dirty(conn);
    }

    /// Begins to hand over a connection whose `intake` says so; the driver does it then, and calls
    /// `detach` or `cancel_hand_over`.
    pub fn begin_hand_over(&mut self, conn: ConnId) -> Option<HandOver> {
        let to = self.connections[conn].migration.begin_hand_over()?;
        Some(HandOver { conn, to })
    }

    /// A connection leaves for another core; its number may be given to the next one at once.
    /// Comes when no receive is in flight. What it returns has to be attached (`attach`) there,
    /// after all messages so far.
    pub fn detach(&mut self, hand_over: HandOver, now: Now) -> MigratingConnection {
        let HandOver { conn, to } = hand_over;
        if let Migration::HandingOver(_) = self.connections[conn].migration {
            return self.detach_offloaded(conn, to);
        }
        let was_asleep = self.engine.is_asleep(conn);
        self.engine.disconnect(conn, now);
        let key = self.connections.key(conn);
        if self.connections[conn].blocked {
            self.outgoing.forget(conn);
        }
        let inbound = self.connections.take_inbound(conn);
        self.outgoing.count_detached(inbound.held_bytes());
        let remote = self.connections.take_remote(conn);
        let transport = self.connections.replace_transport(conn, Transport::default());
        let connection = self.connections.remove(conn);
        debug_assert!(connection.outbox().is_empty(), "its peer is to have it before");
        // With functions of other cores, this core's engine isn't told everything.
        let multi_core = remote.filter(|remote| remote.is_multi_core());
        let asleep = multi_core.map_or(was_asleep, |remote| remote.is_asleep());
        let rest = if asleep { Rest::Asleep } else { Rest::Awake };
        let (origin, ended) = (connection.origin, connection.ended);
        debug!(conn = conn.number(), peer = %origin.peer, "moved");
        self.counters.departed += 1;
        let session = connection.into_session();
        let interest = None;
        MigratingConnection { key, origin, session, transport, inbound, rest, ended, interest }
    }

    /// A connection can't be handed over: it goes on where it is, and never moves to its jobs.
    pub fn cancel_hand_over(&mut self, hand_over: HandOver) {
        let HandOver { conn, .. } = hand_over;
        let step = self.connections[conn].migration.cancel();
        self.stay(conn, step);
    }

    /// A migration was given up: the connection goes on here.
    fn stay(&mut self, conn: ConnId, step: Step) {
        match step {
            Step::Wait | Step::Request(_) => return,
            Step::GiveUpOffload => self.offload.give_up(),
            Step::Stay => self.connections.with_remote(conn, |remote| remote.pin()),
            Step::Withdraw(owner) => {
                self.connections.with_remote(conn, |remote| remote.pin());
                let key = self.connections.key(conn);
                self.outgoing.send(owner, Message::MigrationCancelled(key));
            }
        }
        self.connections.resume(conn);
    }
}

/// The owner's side.
impl Shard {
    /// A connection wants to have its home here.
    pub(in crate::shard) fn expect_migration(
        &mut self,
        from: Core,
        key: ConnKey,
        options: SessionOptions,
    ) {
        let conn = self.proxy(from, key);
        self.connections[conn].migration = Migration::Incoming;
        // Until its own session comes.
        let id = self.connections[conn].session().client_id().map(Box::from);
        self.connections.replace_session(conn, Session::of_proxy(id, options));
        self.outgoing.send(from, Message::MigrationAccepted(key));
    }

    /// It stays where it was: what was kept for it follows it there.
    pub(in crate::shard) fn forget_migration(&mut self, from: Core, key: ConnKey) {
        let conn = self.proxy(from, key);
        self.push_kept(conn, from, key);
        if !self.engine.is_asleep(conn) {
            // It may have been woken, and has missed hints. If it isn't asleep it will decline.
            let ready = self.engine.ready(conn);
            self.outgoing.send(from, Message::Noop { key, ready });
        }
    }

    /// A proxy's connection has a home again, which gets what was kept for it.
    pub(in crate::shard) fn push_kept(&mut self, conn: ConnId, home: Core, key: ConnKey) {
        let connection = &mut self.connections[conn];
        connection.migration = Migration::No;
        connection.closing = Closing::No;
        let (packets, _) = self.connections.with_outbox(conn, |outbox| outbox.take_batch());
        if packets.bytes() > 0 {
            self.outgoing.send(home, Message::Push { key, packets });
        }
    }

    /// A connection has come, which `from` has detached. Its requests go on with the next
    /// `poll_dirty`.
    pub fn attach(&mut self, from: Core, migrating: MigratingConnection, now: Now) -> ConnId {
        let migrating = match migrating.interest {
            Some(_) => return self.attach_offloaded(from, migrating, now),
            None => migrating,
        };
        let MigratingConnection { key, origin, session, transport, inbound, rest, ended, .. } =
            migrating;
        let conn = self.proxy(from, key);
        self.proxies[from].remove(&key.conn);
        self.engine.mark_local(conn);
        self.counters.moved += 1;
        let (generation, arrived) = (self.connections.next_generation(), self.counters.arrived());
        self.connections.become_local(conn, origin);
        let connection = &mut self.connections[conn];
        debug_assert_eq!(connection.migration, Migration::Incoming);
        connection.migration = Migration::No;
        connection.generation = generation;
        connection.arrived = arrived;
        connection.ended = ended;
        self.connections.replace_session(conn, session);
        self.connections.replace_transport(conn, transport);
        self.outgoing.count_attached(inbound.held_bytes());
        self.connections.return_inbound(conn, inbound);
        // The proxy hears of a worker's sleep only while it has functions here.
        if rest != Rest::Asleep {
            self.engine.mark_awake(conn);
        } else if self.engine.is_woken(conn) {
            self.push_noop(conn, now);
        } else if !self.engine.is_asleep(conn) {
            self.engine.pre_sleep(conn);
            self.deliver(None, now);
        }
        self.verify_again(conn, now);
        self.admit(conn);
        self.connections.resume(conn);
        debug!(conn = conn.number(), from, peer = %origin.peer, fd = origin.fd, "moved in");
        conn
    }
}
