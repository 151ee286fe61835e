//! Connections that move to the core where their jobs are, both sides: so that what would cross
//! with every job crosses once. A worker whose functions all belong to one other core does, and a
//! client after `Settings::move_after` submissions in a row to one. What is under way comes back,
//! the owner keeps what it has for it (`MigrationRequested`, `MigrationAccepted`), the driver hands
//! the socket over, and there the proxy becomes the connection itself, with its jobs, functions and
//! sleep.
//!
//! `offload` is the other way round. Invariant: nothing is under way between the two cores when a
//! connection departs, and its home knew nothing of it that its proxy doesn't but the session
//! and bytes that weren't handled yet.

use tracing::debug;

use crate::engine::{ConnId, Now};
use crate::protocol::session::Session;
use crate::shard::cores::Core;
use crate::shard::remote::message::{ConnKey, Message, Rest};
use crate::shard::remote::offload::RemoteInterest;
use crate::shard::{Closing, Connection, Origin, Shard};
use crate::wire::Response;
use crate::wire::inbound::Inbound;

/// Where a connection is on its way to another core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) enum Migration {
    /// It isn't.
    #[default]
    No,
    /// Its requests wait until the replies that are under way have come and left.
    Quiescing(Core),
    /// The other core has been asked.
    Requested(Core),
    /// The driver may hand it over when everything has left.
    Accepted(Core),
    /// A proxy: what there is for it waits here, it comes.
    Incoming,
    /// It is to make room here; see `offload`.
    Offloading(Core),
    /// The same, and the driver hands it over: what there is for it waits.
    HandingOver(Core),
    /// A proxy: what there is for it waits here until its new home has written.
    Offloaded,
}

/// A connection between two cores, without its socket.
#[derive(Debug)]
pub struct MigratingConnection {
    pub(in crate::shard) key: ConnKey,
    pub(in crate::shard) origin: Origin,
    pub(in crate::shard) session: Session,
    pub(in crate::shard) inbound: Inbound,
    pub(in crate::shard) rest: Rest,
    /// The peer will send nothing more.
    pub(in crate::shard) ended: bool,
    /// Of one that makes room.
    pub(in crate::shard) interest: Option<RemoteInterest>,
}

/// The home's side.
impl Shard {
    /// A request was for another core: the connection moves there if that is the only one it has to
    /// do with.
    pub(in crate::shard) fn consider_moving(&mut self, conn: ConnId) {
        let Connection { remote, migration, closing, ended, .. } =
            &mut self.connections[conn as usize];
        let Some(remote) = remote.as_deref().filter(|_| self.settings.move_after > 0) else {
            return;
        };
        let owner = remote.known.trailing_zeros() as Core;
        if remote.known.count_ones() == 1
            && !remote.is_pinned
            && self.other_cores.hospitable >> owner & 1 == 1
            && *migration == Migration::No
            && *closing == Closing::No
            && !*ended
            && self.engine.is_bare(conn)
        {
            *migration = Migration::Quiescing(owner);
        }
    }

    /// Asks the owner once nothing is under way. `false` if the connection stays after all: one
    /// whose peer has said all isn't worth the way, and may never read what has to leave before.
    pub(in crate::shard) fn go_on_moving(&mut self, conn: ConnId) -> bool {
        let connection = &mut self.connections[conn as usize];
        let settled = connection.outbox.is_empty() && !connection.is_grabbing();
        match connection.migration {
            Migration::Quiescing(_) | Migration::Offloading(_) if connection.ended => {
                connection.migration = Migration::No;
            }
            Migration::Accepted(_) if connection.ended => self.cancel_hand_over(conn),
            Migration::Quiescing(owner) if settled => {
                connection.migration = Migration::Requested(owner);
                let key = ConnKey { conn, generation: connection.generation };
                let exceptions = connection.session.exceptions();
                self.send_message(owner, Message::MigrationRequested { key, exceptions });
            }
            _ => {}
        }
        self.connections[conn as usize].migration != Migration::No
    }

    /// Much has come while a connection waits to move: one whose peer doesn't read stays, as it may
    /// have more to say before it does.
    pub(in crate::shard) fn consider_staying(&mut self, conn: ConnId) {
        let connection = &mut self.connections[conn as usize];
        if connection.outbox.is_empty() {
            return;
        }
        match connection.migration {
            Migration::Quiescing(_) => {
                connection.migration = Migration::No;
                connection.remote.iter_mut().for_each(|remote| remote.is_pinned = true);
                self.resumed.push(conn);
            }
            Migration::Accepted(_) | Migration::Offloading(_) => self.cancel_hand_over(conn),
            _ => {}
        }
    }

    /// The owner keeps what there is for the connection.
    pub(in crate::shard) fn pack(&mut self, conn: ConnId, owner: Core) {
        let migration = &mut self.connections[conn as usize].migration;
        debug_assert_eq!(*migration, Migration::Requested(owner));
        *migration = Migration::Accepted(owner);
        self.go_on_moving(conn);
        self.mark_dirty(conn);
    }

    /// Where a connection moves whose `intake` says so: the driver hands it over. `detach` or
    /// `cancel_hand_over` has to follow.
    #[must_use]
    pub fn begin_hand_over(&mut self, conn: ConnId) -> Option<Core> {
        let migration = &mut self.connections[conn as usize].migration;
        if let Migration::Offloading(to) = *migration {
            *migration = Migration::HandingOver(to);
        }
        match *migration {
            Migration::Accepted(to) | Migration::HandingOver(to) => Some(to),
            _ => None,
        }
    }

    /// A connection leaves for its `begin_hand_over`; its number may be given to the next one at
    /// once. Comes when `intake` says so and no receive is in flight. What it answers with has to
    /// `attach` there, after all messages so far.
    pub fn detach(&mut self, conn: ConnId, now: Now) -> MigratingConnection {
        if let Migration::HandingOver(to) = self.connections[conn as usize].migration {
            return self.leave(conn, to);
        }
        let key = ConnKey { conn, generation: self.connections[conn as usize].generation };
        let napping = self.engine.is_asleep(conn);
        self.engine.disconnect(conn, now);
        let Connection { origin, session, inbound, outbox, remote, ended, blocked, .. } =
            self.connections.remove(conn as usize);
        // With functions of other cores, this core's engine isn't told everything.
        self.remote_bytes -= remote.as_ref().map_or(0, |remote| remote.function_bytes());
        let asleep = remote.filter(|remote| remote.roams()).map_or(napping, |remote| remote.asleep);
        let rest = if asleep { Rest::Asleep } else { Rest::Awake };
        debug_assert!(outbox.is_empty(), "what was sent before is a peer's to have before");
        let held_bytes = inbound.held_bytes();
        self.inbound_bytes -= held_bytes;
        self.messages.bytes += held_bytes.cast_signed();
        if blocked {
            self.messages.forget(conn);
        }
        debug!(conn, peer = %origin.peer, "moved");
        self.counters.departed += 1;
        MigratingConnection { key, origin, session, inbound, rest, ended, interest: None }
    }

    /// A connection can't be handed over: it goes on where it is, and never moves to its jobs.
    pub fn cancel_hand_over(&mut self, conn: ConnId) {
        let connection = &mut self.connections[conn as usize];
        if let Migration::Offloading(_) | Migration::HandingOver(_) = connection.migration {
            connection.migration = Migration::No;
            self.offload.give_up();
            self.resumed.push(conn);
        } else if let Migration::Accepted(owner) = connection.migration {
            connection.migration = Migration::No;
            connection.remote.iter_mut().for_each(|remote| remote.is_pinned = true);
            let key = ConnKey { conn, generation: connection.generation };
            self.send_message(owner, Message::MigrationCancelled(key));
            self.resumed.push(conn);
        }
    }
}

/// The owner's side.
impl Shard {
    /// A connection wants to have its home here.
    pub(in crate::shard) fn expect(&mut self, from: Core, key: ConnKey, exceptions: bool) {
        let conn = self.proxy(from, key);
        let connection = &mut self.connections[conn as usize];
        connection.migration = Migration::Incoming;
        // Until its own session comes.
        connection.session = Session::new(exceptions);
        self.send_message(from, Message::MigrationAccepted(key));
    }

    /// It stays where it was: what was kept for it follows it there.
    pub(in crate::shard) fn expect_no_more(&mut self, from: Core, key: ConnKey) {
        let conn = self.proxy(from, key);
        self.unsettle(conn);
        let connection = &mut self.connections[conn as usize];
        connection.migration = Migration::No;
        connection.closing = Closing::No;
        let parcel = connection.outbox.take_parcel();
        if parcel.bytes() > 0 {
            self.send_message(from, Message::Push { key, parcel });
        }
        if !self.engine.is_asleep(conn) {
            // It may have been woken, and has missed hints. If it isn't asleep it will decline.
            let ready = self.engine.ready(conn);
            self.send_message(from, Message::Noop { key, ready });
        }
    }

    /// A connection has come, which `from` let depart. Its requests go on with the next
    /// `next_dirty`.
    pub fn attach(&mut self, from: Core, migrating: MigratingConnection, now: Now) -> ConnId {
        if migrating.interest.is_some() {
            return self.settle_in(from, migrating, now);
        }
        let MigratingConnection { key, origin, session, inbound, rest, ended, .. } = migrating;
        let conn = self.proxy(from, key);
        self.proxies[from].remove(&key.conn);
        self.engine.mark_local(conn);
        self.sessions = self.sessions.wrapping_add(1);
        self.counters.moved += 1;
        let arrived = self.arrived();
        let held_bytes = inbound.held_bytes();
        self.inbound_bytes += held_bytes;
        self.messages.bytes -= held_bytes.cast_signed();
        let connection = &mut self.connections[conn as usize];
        debug_assert_eq!(connection.migration, Migration::Incoming);
        connection.migration = Migration::No;
        connection.key = None;
        connection.generation = self.sessions;
        connection.origin = origin;
        connection.arrived = arrived;
        connection.session = session;
        connection.inbound = inbound;
        connection.ended = ended;
        // The proxy hears of a worker's sleep only while it has functions here.
        if rest != Rest::Asleep {
            self.engine.rise(conn);
        } else if self.engine.is_woken(conn) {
            self.push(conn, &Response::Noop, now);
        } else if !self.engine.is_asleep(conn) {
            self.engine.pre_sleep(conn);
            self.deliver(None, now);
        }
        self.resumed.push(conn);
        debug!(conn, from, peer = %origin.peer, fd = origin.fd, "moved in");
        conn
    }
}
