//! Connections that make room where there is too much to do: they move from the core of their jobs
//! to one with less, both sides.
//!
//! A function is one core's. When that core has no time left and others do, its jobs' connections
//! are better served elsewhere, though each of their packets then crosses: what is dear is a
//! connection's packets, not its letters. The driver says when (`relieve`); whoever sends something
//! next and has nothing to do with other cores goes. The owner keeps it as a stand-in, with its
//! jobs, functions and sleep, and what there is for it until its new home writes (`SettledIn`).
//!
//! Invariant: as in `moving`, of which this is the reverse; between `leave` and `SettledIn` the
//! stand-in has no caller yet, and nothing is written to its home.

use tracing::debug;

use crate::engine::{ConnId, Now};
use crate::protocol::session::Session;
use crate::shard::cores::{Core, Cores};
use crate::shard::remote::home::Away;
use crate::shard::remote::message::{Caller, Letter, Rest};
use crate::shard::remote::migration::{Moving, Passenger};
use crate::shard::{Closing, Connection, Shard};

/// What the new home of a connection has to know of its dealings with the old one.
#[derive(Debug)]
pub(in crate::shard) struct Luggage {
    /// Its number there, as a stand-in from now on.
    stand_in: ConnId,
    /// What it can run.
    functions: Vec<Box<[u8]>>,
    /// Priorities that may have jobs for it.
    ready: u8,
}

/// Connections that are still to make room.
#[derive(Debug, Default)]
pub(in crate::shard) struct Relief {
    to: Core,
    left: usize,
    /// Those that were told to since the last call, as far as they haven't left.
    leaving: Vec<ConnId>,
    /// Stand-ins whose new home hasn't written yet.
    pub(in crate::shard) homeless: usize,
}

impl Relief {
    /// One couldn't be handed over, and the next ones can't be either.
    pub(in crate::shard) fn give_up(&mut self) {
        self.left = 0;
    }
}

/// The owner's side.
impl Shard {
    /// This core has too much to do: up to so many connections are to move to another one that has
    /// less. It holds until the next call; no connections, no longer.
    pub fn relieve(&mut self, to: Core, connections: usize) {
        debug_assert!(to != self.settings.cores.own || connections == 0);
        (self.relief.to, self.relief.left) = (to, connections);
        // Who doesn't read what is left for it isn't read from, and it may have to write first.
        let mut leaving = std::mem::take(&mut self.relief.leaving);
        for conn in leaving.drain(..) {
            if let Some(connection) = self.connections.get_mut(conn as usize)
                && let Moving::Leaving(_) = connection.moving
                && !connection.outbox.is_empty()
            {
                connection.moving = Moving::No;
                self.resumed.push(conn);
            }
        }
        self.relief.leaving = leaving;
    }

    /// A connection has something to do here: it makes room, if that is wanted and it has nothing
    /// to do with other cores.
    #[inline]
    pub(in crate::shard) fn consider_leaving(&mut self, conn: ConnId) {
        if self.relief.left == 0 {
            return;
        }
        let connection = &mut self.connections[conn as usize];
        let Connection { away, moving, closing, listing, outbox, .. } = connection;
        if *moving == Moving::No
            && *closing == Closing::No
            && !connection.ended
            && !connection.paused
            && !connection.blocked
            && listing.is_none()
            && outbox.held() == 0
            && away.as_ref().is_none_or(|away| away.known == 0)
        {
            *moving = Moving::Leaving(self.relief.to);
            self.relief.left -= 1;
            self.relief.leaving.push(conn);
        }
    }

    /// A connection leaves, and its stand-in stays.
    pub(in crate::shard) fn leave(&mut self, conn: ConnId, to: Core) -> Passenger {
        let ready = self.engine.ready(conn).bits();
        if ready == 0 {
            // Woken for what others have by now: without a hint it may fall asleep with the lease.
            self.engine.end_lease(conn);
        }
        let rest = match (self.engine.is_asleep(conn), self.engine.is_woken(conn)) {
            (true, _) => Rest::Asleep,
            (_, true) => Rest::Woken,
            _ => Rest::Awake,
        };
        let functions: Vec<Box<[u8]>> = self.engine.functions_of(conn).map(Box::from).collect();
        if functions.is_empty() {
            // Nobody's concern here until it names one.
            self.engine.mark_awake(conn);
        }
        let luggage = Luggage { stand_in: conn, functions, ready };
        self.engine.mark_remote(conn);
        let connection = &mut self.connections[conn as usize];
        let exceptions = connection.session.exceptions();
        let session = std::mem::replace(&mut connection.session, Session::new(exceptions));
        let inbound = std::mem::take(&mut connection.inbound);
        let ended = std::mem::take(&mut connection.ended);
        let origin = connection.origin;
        // Nobody's, until the new home has written.
        let caller = Caller { conn: ConnId::MAX, session: connection.session_id };
        connection.caller = Some((to, caller));
        connection.moving = Moving::Left;
        let away = connection.away.take();
        self.away_bytes -= away.map_or(0, |away| away.function_bytes());
        (connection.dirty, connection.paused) = (false, false);
        connection.throttled = None;
        if std::mem::take(&mut connection.blocked) {
            self.letters.forget(conn);
        }
        self.relief.homeless += 1;
        let held_bytes = inbound.held_bytes();
        self.inbound_bytes -= held_bytes;
        self.letters.bytes += held_bytes.cast_signed();
        self.counters.departed += 1;
        debug!(conn, peer = %origin.peer, to, "made room");
        Passenger { caller, origin, session, inbound, rest, ended, luggage: Some(luggage) }
    }

    /// A connection that left has its home elsewhere now: it gets what was kept for it.
    pub(in crate::shard) fn settled_in(
        &mut self,
        home: Core,
        conn: ConnId,
        caller: Caller,
        rest: Rest,
    ) {
        self.unsettle(conn);
        let connection = &mut self.connections[conn as usize];
        debug_assert_eq!(connection.moving, Moving::Left);
        connection.moving = Moving::No;
        connection.closing = Closing::No;
        connection.caller = Some((home, caller));
        connection.session_id = caller.session;
        connection.session = Session::new(false);
        let parcel = connection.outbox.take_batch();
        let earlier = self.callers[home].insert(caller.conn, conn);
        debug_assert_eq!(earlier, None, "one of that number has yet to go, or to come");
        self.relief.homeless -= 1;
        if parcel.bytes() > 0 {
            self.send_letter(home, Letter::Push { caller, parcel });
        }
        if self.engine.is_asleep(conn) {
            return;
        }
        // What it was woken for, and hints, had nowhere to go.
        let ready = self.engine.ready(conn).bits();
        match rest {
            Rest::Asleep => self.send_letter(home, Letter::Noop { caller, ready }),
            Rest::Awake | Rest::Woken if ready != 0 => {
                self.send_letter(home, Letter::Hint { caller, ready });
            }
            Rest::Awake | Rest::Woken => {}
        }
    }
}

/// The new home's side.
impl Shard {
    /// A connection has come from the core of its jobs; see `arrive`.
    pub(in crate::shard) fn settle_in(
        &mut self,
        owner: Core,
        passenger: Passenger,
        now: Now,
    ) -> ConnId {
        let Passenger { origin, session, inbound, rest, ended, luggage, .. } = passenger;
        let Some(Luggage { stand_in, functions, ready }) = luggage else {
            unreachable!("`arrive` has looked");
        };
        self.sessions = self.sessions.wrapping_add(1);
        let held_bytes = inbound.held_bytes();
        self.inbound_bytes += held_bytes;
        self.letters.bytes -= held_bytes.cast_signed();
        let Cores { own, count } = self.settings.cores;
        let away = Away::with_jobs_at(owner, own, count, functions, ready, rest);
        let roams = away.roams();
        self.away_bytes += away.function_bytes();
        self.counters.took_in += 1;
        let connection = Connection {
            arrived: self.arrived(),
            inbound,
            ended,
            away: Some(Box::new(away)),
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
        let caller = Caller { conn, session: self.sessions };
        let rest = if roams { rest } else { Rest::Awake };
        self.send_letter(owner, Letter::SettledIn { stand_in, caller, rest });
        self.resumed.push(conn);
        debug!(conn, from = owner, peer = %origin.peer, fd = origin.fd, "taken in");
        conn
    }
}
