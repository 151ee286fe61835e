//! Connections that leave the core of their jobs because it has too much to do, both sides: they
//! move to a core that has time.
//!
//! A function is one core's. Serving a socket costs more than forwarding its requests: when that
//! core has no time left and others do, its jobs' connections are better served elsewhere, though
//! each of their packets then crosses. The driver says when (`start_offload`); a connection that
//! sends something next and has nothing to do with other cores goes. The owner keeps it as a
//! proxy, with its jobs, functions and sleep, and what there is for it until its new home writes.
//!
//! Invariant: as in `hand_over`, of which this is the reverse; between `detach_offloaded` and
//! `Offloaded` nothing is sent to the new home.

use tracing::debug;

use super::message::{ConnKey, HomeConnId, Message, Rest};
use super::migration::{MigratingConnection, Migration, RemoteInterest};
use super::state::RemoteState;
use crate::engine::{ConnId, Now};
use crate::protocol::session::{Session, SessionOptions};
use crate::shard::Shard;
use crate::shard::connections::{Closing, Connection, Transport};
use crate::shard::cores::Core;

/// Connections that are still to be offloaded.
#[derive(Clone, Debug, Default)]
pub(in crate::shard) struct Offload {
    to: Core,
    left: usize,
    /// Those that were chosen since the last call, as far as they haven't left.
    chosen: Vec<ConnId>,
    /// Proxies whose connection's new home hasn't written yet.
    awaiting_home: usize,
}

impl Offload {
    /// A connection couldn't be handed over, and the next ones can't be either.
    pub(in crate::shard) fn give_up(&mut self) {
        self.left = 0;
    }

    /// Proxies whose connection's new home hasn't written yet.
    pub(in crate::shard) fn awaiting_home(&self) -> usize {
        self.awaiting_home
    }

    /// Where connections are to go and how many, and those that were chosen. For tests.
    #[cfg(debug_assertions)]
    pub(in crate::shard) fn plan(&self) -> (Option<(Core, usize)>, &[ConnId]) {
        ((self.left > 0).then_some((self.to, self.left)), &self.chosen)
    }
}

/// The owner's side.
impl Shard {
    /// This core has too much to do: up to `connections` of its connections are to move to another
    /// core that has less. Stays in force until the next call; 0 connections ends it.
    pub fn start_offload(&mut self, to: Core, connections: usize) {
        debug_assert!(to != self.settings.cores.own || connections == 0);
        (self.offload.to, self.offload.left) = (to, connections);
        // A connection with unsent output is not being read. Cancel its migration, or a client that
        // must send before it reads would deadlock.
        for conn in std::mem::take(&mut self.offload.chosen) {
            if let Some(connection) = self.connections.get_mut(conn)
                && let Migration::Offloading(_) = connection.migration
                && !connection.outbox().is_empty()
            {
                connection.migration = Migration::No;
                self.connections.resume(conn);
            }
        }
    }

    /// A connection has something to do here: it is offloaded, if that is wanted and it has nothing
    /// to do with other cores.
    #[inline]
    pub(in crate::shard) fn consider_offload(&mut self, conn: ConnId) {
        if self.offload.left == 0 {
            return;
        }
        let connection = &mut self.connections[conn];
        if connection.migration == Migration::No
            && connection.closing == Closing::No
            && !connection.ended
            && !connection.paused
            && !connection.blocked
            && connection.listing.is_none()
            && connection.outbox().held() == 0
            && connection.remote().is_none_or(|remote| remote.known().is_empty())
        {
            connection.migration = Migration::Offloading(self.offload.to);
            self.offload.left -= 1;
            self.offload.chosen.push(conn);
        }
    }

    /// A connection leaves, and its proxy stays.
    pub(in crate::shard) fn detach_offloaded(
        &mut self,
        conn: ConnId,
        to: Core,
    ) -> MigratingConnection {
        let ready = self.engine.ready(conn);
        if ready.is_empty() {
            // Its jobs were taken by others. End the lease now, since no hint will make it grab.
            self.engine.end_lease(conn);
        }
        let rest = match (self.engine.is_asleep(conn), self.engine.is_woken(conn)) {
            (true, _) => Rest::Asleep,
            (_, true) => Rest::Woken,
            _ => Rest::Awake,
        };
        let functions: Vec<Box<[u8]>> = self.engine.functions_of(conn).map(Box::from).collect();
        if functions.is_empty() {
            // Has no functions here, so nothing can wake it.
            self.engine.mark_awake(conn);
        }
        let interest = Some(RemoteInterest { proxy: conn, functions, ready });
        self.engine.mark_remote(conn);
        // Placeholder key until `Offloaded` brings the real one.
        let placeholder =
            ConnKey { conn: HomeConnId::NONE, generation: self.connections[conn].generation };
        self.connections.become_proxy(conn, (to, placeholder));
        self.connections.clear_dirty(conn);
        self.connections.take_remote(conn);
        let inbound = self.connections.take_inbound(conn);
        self.outgoing.count_detached(inbound.held_bytes());
        let options = self.connections[conn].session().options();
        let id = self.connections[conn].session().client_id().map(Box::from);
        let proxy = Session::of_proxy(id, options);
        let session = self.connections.replace_session(conn, proxy);
        let transport = self.connections.replace_transport(conn, Transport::default());
        let connection = &mut self.connections[conn];
        let (origin, ended) = (connection.origin, std::mem::take(&mut connection.ended));
        connection.migration = Migration::Offloaded;
        connection.paused = false;
        connection.throttled = None;
        if std::mem::take(&mut connection.blocked) {
            self.outgoing.forget(conn);
        }
        self.offload.awaiting_home += 1;
        self.counters.departed += 1;
        debug!(conn = conn.number(), peer = %origin.peer, to, "offloaded");
        let key = placeholder;
        MigratingConnection { key, origin, session, transport, inbound, rest, ended, interest }
    }

    /// An offloaded connection has its home elsewhere now: it gets what was kept for it.
    pub(in crate::shard) fn find_home(
        &mut self,
        home: Core,
        conn: ConnId,
        key: ConnKey,
        rest: Rest,
    ) {
        debug_assert_eq!(self.connections[conn].migration, Migration::Offloaded);
        self.connections.become_proxy(conn, (home, key));
        self.connections[conn].generation = key.generation;
        let id = self.connections[conn].session().client_id().map(Box::from);
        self.connections.replace_session(conn, Session::of_proxy(id, SessionOptions::default()));
        let earlier = self.proxies[home].insert(key.conn, conn);
        debug_assert_eq!(earlier, None, "a connection of that number has yet to go, or to come");
        self.offload.awaiting_home -= 1;
        self.push_kept(conn, home, key);
        if self.engine.is_asleep(conn) {
            return;
        }
        // What it was woken for, and hints, had nowhere to go.
        let ready = self.engine.ready(conn);
        match rest {
            Rest::Asleep => self.outgoing.send(home, Message::Noop { key, ready }),
            Rest::Awake | Rest::Woken if !ready.is_empty() => {
                self.outgoing.send(home, Message::Hint { key, ready });
            }
            Rest::Awake | Rest::Woken => {}
        }
    }
}

/// The new home's side.
impl Shard {
    /// A connection has come from the core of its jobs; see `attach`.
    pub(in crate::shard) fn attach_offloaded(
        &mut self,
        owner: Core,
        migrating: MigratingConnection,
        now: Now,
    ) -> ConnId {
        let MigratingConnection {
            origin, session, transport, inbound, rest, ended, interest, ..
        } = migrating;
        let Some(RemoteInterest { proxy, functions, ready }) = interest else {
            unreachable!("`attach` has looked");
        };
        self.counters.took_in += 1;
        let generation = self.connections.next_generation();
        let remote = RemoteState::with_jobs_at(owner, self.settings.cores, functions, ready, rest);
        let is_multi_core = remote.is_multi_core();
        self.outgoing.count_attached(inbound.held_bytes());
        let mut connection =
            Connection::new(origin, session, generation).offloaded(inbound, remote);
        (connection.arrived, connection.ended) = (self.counters.arrived(), ended);
        connection.transport = transport;
        let conn = self.connections.insert(connection);
        self.engine.connect(conn);
        if is_multi_core {
            self.engine.mark_remote(conn);
        }
        if rest == Rest::Asleep {
            self.engine.pre_sleep(conn);
            self.deliver(None, now);
        }
        let rest = if is_multi_core { rest } else { Rest::Awake };
        let key = self.connections.key(conn);
        self.verify_again(conn, now);
        self.admit(conn);
        let access = self.permissions(conn);
        self.outgoing.send(owner, Message::Offloaded { proxy, key, rest, access });
        self.connections.resume(conn);
        debug!(conn = conn.number(), from = owner, peer = %origin.peer, fd = origin.fd, "taken in");
        conn
    }
}
