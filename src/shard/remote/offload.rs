//! Connections that make room where there is too much to do: they move from the core of their jobs
//! to one with less, both sides.
//!
//! A function is one core's. When that core has no time left and others do, its jobs' connections
//! are better served elsewhere, though each of their packets then crosses: what is dear is a
//! connection's packets, not its messages. The driver says when (`start_offload`); whoever sends
//! something next and has nothing to do with other cores goes. The owner keeps it as a proxy, with
//! its jobs, functions and sleep, and what there is for it until its new home writes (`Offloaded`).
//!
//! Invariant: as in `moving`, of which this is the reverse; between `leave` and `Offloaded` the
//! proxy has no caller yet, and nothing is written to its home.

use tracing::debug;

use crate::engine::{ConnId, Now};
use crate::protocol::session::Session;
use crate::shard::cores::{Core, Cores};
use crate::shard::remote::home::RemoteState;
use crate::shard::remote::message::{ConnKey, Message, Rest};
use crate::shard::remote::migration::{MigratingConnection, Migration};
use crate::shard::{Closing, Connection, Shard};

/// What the new home of a connection has to know of its remote_counts with the old one.
#[derive(Debug)]
pub(in crate::shard) struct RemoteInterest {
    /// Its number there, as a proxy from now on.
    proxy: ConnId,
    /// What it can run.
    functions: Vec<Box<[u8]>>,
    /// Priorities that may have jobs for it.
    ready: u8,
}

/// Connections that are still to make room.
#[derive(Debug, Default)]
pub(in crate::shard) struct Offload {
    to: Core,
    left: usize,
    /// Those that were told to since the last call, as far as they haven't left.
    leaving: Vec<ConnId>,
    /// Proxies whose new home hasn't written yet.
    pub(in crate::shard) awaiting_home: usize,
}

impl Offload {
    /// One couldn't be handed over, and the next ones can't be either.
    pub(in crate::shard) fn give_up(&mut self) {
        self.left = 0;
    }
}

/// The owner's side.
impl Shard {
    /// This core has too much to do: up to so many connections are to move to another one that has
    /// less. It holds until the next call; no connections, no longer.
    pub fn start_offload(&mut self, to: Core, connections: usize) {
        debug_assert!(to != self.settings.cores.own || connections == 0);
        (self.offload.to, self.offload.left) = (to, connections);
        // Who doesn't read what is left for it isn't read from, and it may have to write first.
        let mut leaving = std::mem::take(&mut self.offload.leaving);
        for conn in leaving.drain(..) {
            if let Some(connection) = self.connections.get_mut(conn as usize)
                && let Migration::Offloading(_) = connection.migration
                && !connection.outbox.is_empty()
            {
                connection.migration = Migration::No;
                self.resumed.push(conn);
            }
        }
        self.offload.leaving = leaving;
    }

    /// A connection has something to do here: it makes room, if that is wanted and it has nothing
    /// to do with other cores.
    #[inline]
    pub(in crate::shard) fn consider_leaving(&mut self, conn: ConnId) {
        if self.offload.left == 0 {
            return;
        }
        let connection = &mut self.connections[conn as usize];
        let Connection { remote, migration, closing, listing, outbox, .. } = connection;
        if *migration == Migration::No
            && *closing == Closing::No
            && !connection.ended
            && !connection.paused
            && !connection.blocked
            && listing.is_none()
            && outbox.held() == 0
            && remote.as_ref().is_none_or(|remote| remote.known == 0)
        {
            *migration = Migration::Offloading(self.offload.to);
            self.offload.left -= 1;
            self.offload.leaving.push(conn);
        }
    }

    /// A connection leaves, and its proxy stays.
    pub(in crate::shard) fn leave(&mut self, conn: ConnId, to: Core) -> MigratingConnection {
        let ready = self.engine.ready(conn);
        if ready == 0 {
            // Woken for what others have by now: without a hint it may fall asleep with the lease.
            self.engine.decline(conn);
        }
        let rest = match (self.engine.is_asleep(conn), self.engine.is_woken(conn)) {
            (true, _) => Rest::Asleep,
            (_, true) => Rest::Woken,
            _ => Rest::Awake,
        };
        let functions: Vec<Box<[u8]>> = self.engine.functions_of(conn).map(Box::from).collect();
        if functions.is_empty() {
            // Nobody's concern here until it names one.
            self.engine.rise(conn);
        }
        let interest = RemoteInterest { proxy: conn, functions, ready };
        self.engine.mark_remote(conn);
        let connection = &mut self.connections[conn as usize];
        let exceptions = connection.session.exceptions();
        let session = std::mem::replace(&mut connection.session, Session::new(exceptions));
        let inbound = std::mem::take(&mut connection.inbound);
        let ended = std::mem::take(&mut connection.ended);
        let origin = connection.origin;
        // Nobody's, until the new home has written.
        let key = ConnKey { conn: ConnId::MAX, generation: connection.generation };
        connection.key = Some((to, key));
        connection.migration = Migration::Offloaded;
        let remote = connection.remote.take();
        self.remote_bytes -= remote.map_or(0, |remote| remote.function_bytes());
        (connection.dirty, connection.paused) = (false, false);
        connection.throttled = None;
        if std::mem::take(&mut connection.blocked) {
            self.messages.forget(conn);
        }
        self.offload.awaiting_home += 1;
        let held_bytes = inbound.held_bytes();
        self.inbound_bytes -= held_bytes;
        self.messages.bytes += held_bytes.cast_signed();
        self.counters.departed += 1;
        debug!(conn, peer = %origin.peer, to, "made room");
        MigratingConnection { key, origin, session, inbound, rest, ended, interest: Some(interest) }
    }

    /// A connection that left has its home elsewhere now: it gets what was kept for it.
    pub(in crate::shard) fn settled_in(
        &mut self,
        home: Core,
        conn: ConnId,
        key: ConnKey,
        rest: Rest,
    ) {
        self.unsettle(conn);
        let connection = &mut self.connections[conn as usize];
        debug_assert_eq!(connection.migration, Migration::Offloaded);
        connection.migration = Migration::No;
        connection.closing = Closing::No;
        connection.key = Some((home, key));
        connection.generation = key.generation;
        connection.session = Session::new(false);
        let parcel = connection.outbox.take_parcel();
        let earlier = self.proxies[home].insert(key.conn, conn);
        debug_assert_eq!(earlier, None, "one of that number has yet to go, or to come");
        self.offload.awaiting_home -= 1;
        if parcel.bytes() > 0 {
            self.send_message(home, Message::Push { key, parcel });
        }
        if self.engine.is_asleep(conn) {
            return;
        }
        // What it was woken for, and hints, had nowhere to go.
        let ready = self.engine.ready(conn);
        match rest {
            Rest::Asleep => self.send_message(home, Message::Noop { key, ready }),
            Rest::Awake | Rest::Woken if ready != 0 => {
                self.send_message(home, Message::Hint { key, ready });
            }
            Rest::Awake | Rest::Woken => {}
        }
    }
}

/// The new home's side.
impl Shard {
    /// A connection has come from the core of its jobs; see `attach`.
    pub(in crate::shard) fn settle_in(
        &mut self,
        owner: Core,
        migrating: MigratingConnection,
        now: Now,
    ) -> ConnId {
        let MigratingConnection { origin, session, inbound, rest, ended, interest, .. } = migrating;
        let Some(RemoteInterest { proxy, functions, ready }) = interest else {
            unreachable!("`attach` has looked");
        };
        self.sessions = self.sessions.wrapping_add(1);
        let held_bytes = inbound.held_bytes();
        self.inbound_bytes += held_bytes;
        self.messages.bytes -= held_bytes.cast_signed();
        let Cores { own, count } = self.settings.cores;
        let remote = RemoteState::with_jobs_at(owner, own, count, functions, ready, rest);
        let roams = remote.roams();
        self.remote_bytes += remote.function_bytes();
        self.counters.took_in += 1;
        let connection = Connection {
            arrived: self.arrived(),
            inbound,
            ended,
            remote: Some(Box::new(remote)),
            ..Connection::new(origin, session, self.sessions)
        };
        let id = self.connections.insert(connection);
        let conn = ConnId::try_from(id).unwrap_or(ConnId::MAX);
        self.engine.connect(conn);
        if roams {
            self.engine.mark_remote(conn);
        }
        if rest == Rest::Asleep {
            self.engine.pre_sleep(conn);
            self.deliver(None, now);
        }
        let key = ConnKey { conn, generation: self.sessions };
        let rest = if roams { rest } else { Rest::Awake };
        self.send_message(owner, Message::Offloaded { proxy, key, rest });
        self.resumed.push(conn);
        debug!(conn, from = owner, peer = %origin.peer, fd = origin.fd, "taken in");
        conn
    }
}
