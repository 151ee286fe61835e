//! Connections that move to the core where their jobs are, both sides: so that what would cross
//! with every job crosses once. A worker whose functions all belong to one other core does, and a
//! client after `Settings::move_after` submissions in a row to one. What is under way comes back,
//! the owner keeps what it has for it (`MoveIn`, `Welcome`), the driver hands the socket over, and
//! there the stand-in becomes the connection itself, with its jobs, functions and sleep.
//!
//! `relief` is the other way round. Invariant: nothing is under way between the two cores when a
//! connection departs, and its home knew nothing of it that its stand-in doesn't but the session
//! and bytes that weren't handled yet.

use tracing::debug;

use crate::engine::{ConnId, Now};
use crate::protocol::session::Session;
use crate::shard::cores::Core;
use crate::shard::remote::message::{Caller, Letter, Rest};
use crate::shard::remote::offload::Luggage;
use crate::shard::{Closing, Connection, Origin, Shard};
use crate::wire::Response;
use crate::wire::inbound::Inbound;

/// Where a connection is on its way to another core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) enum Moving {
    /// It isn't.
    #[default]
    No,
    /// Its requests wait until the replies that are under way have come and left.
    Settling(Core),
    /// The other core has been asked.
    Asked(Core),
    /// The driver may hand it over when everything has left.
    Packed(Core),
    /// A stand-in: what there is for it waits here, it comes.
    Expected,
    /// It is to make room here; see `relief`.
    Leaving(Core),
    /// The same, and the driver hands it over: what there is for it waits.
    Departing(Core),
    /// A stand-in: what there is for it waits here until its new home has written.
    Left,
}

/// A connection between two cores, without its socket.
#[derive(Debug)]
pub struct Passenger {
    pub(in crate::shard) caller: Caller,
    pub(in crate::shard) origin: Origin,
    pub(in crate::shard) session: Session,
    pub(in crate::shard) inbound: Inbound,
    pub(in crate::shard) rest: Rest,
    /// The peer will send nothing more.
    pub(in crate::shard) ended: bool,
    /// Of one that makes room.
    pub(in crate::shard) luggage: Option<Luggage>,
}

/// The home's side.
impl Shard {
    /// A request was for another core: the connection moves there if that is the only one it has to
    /// do with.
    pub(in crate::shard) fn consider_moving(&mut self, conn: ConnId) {
        let Connection { away, moving, closing, ended, .. } = &mut self.connections[conn as usize];
        let Some(away) = away.as_deref().filter(|_| self.settings.move_after > 0) else { return };
        let owner = away.known.trailing_zeros() as Core;
        if away.known.count_ones() == 1
            && !away.is_rooted
            && self.elsewhere.hospitable >> owner & 1 == 1
            && *moving == Moving::No
            && *closing == Closing::No
            && !*ended
            && self.engine.is_bare(conn)
        {
            *moving = Moving::Settling(owner);
        }
    }

    /// Asks the owner once nothing is under way. `false` if the connection stays after all: one
    /// whose peer has said all isn't worth the way, and may never read what has to leave before.
    pub(in crate::shard) fn go_on_moving(&mut self, conn: ConnId) -> bool {
        let connection = &mut self.connections[conn as usize];
        let settled = connection.outbox.is_empty() && !connection.is_grabbing();
        match connection.moving {
            Moving::Settling(_) | Moving::Leaving(_) if connection.ended => {
                connection.moving = Moving::No;
            }
            Moving::Packed(_) if connection.ended => self.stay(conn),
            Moving::Settling(owner) if settled => {
                connection.moving = Moving::Asked(owner);
                let caller = Caller { conn, session: connection.session_id };
                let exceptions = connection.session.exceptions();
                self.send_letter(owner, Letter::MoveIn { caller, exceptions });
            }
            _ => {}
        }
        self.connections[conn as usize].moving != Moving::No
    }

    /// Much has come while a connection waits to move: one whose peer doesn't read stays, as it may
    /// have more to say before it does.
    pub(in crate::shard) fn consider_staying(&mut self, conn: ConnId) {
        let connection = &mut self.connections[conn as usize];
        if connection.outbox.is_empty() {
            return;
        }
        match connection.moving {
            Moving::Settling(_) => {
                connection.moving = Moving::No;
                connection.away.iter_mut().for_each(|away| away.is_rooted = true);
                self.resumed.push(conn);
            }
            Moving::Packed(_) | Moving::Leaving(_) => self.stay(conn),
            _ => {}
        }
    }

    /// The owner keeps what there is for the connection.
    pub(in crate::shard) fn pack(&mut self, conn: ConnId, owner: Core) {
        let moving = &mut self.connections[conn as usize].moving;
        debug_assert_eq!(*moving, Moving::Asked(owner));
        *moving = Moving::Packed(owner);
        self.go_on_moving(conn);
        self.mark_dirty(conn);
    }

    /// Where a connection moves whose `intake` says so: the driver hands it over. `depart` or
    /// `stay` has to follow.
    #[must_use]
    pub fn destination(&mut self, conn: ConnId) -> Option<Core> {
        let moving = &mut self.connections[conn as usize].moving;
        if let Moving::Leaving(to) = *moving {
            *moving = Moving::Departing(to);
        }
        match *moving {
            Moving::Packed(to) | Moving::Departing(to) => Some(to),
            _ => None,
        }
    }

    /// A connection leaves for its `destination`; its number may be given to the next one at once.
    /// Comes when `intake` says so and no receive is in flight. What it answers with has to
    /// `arrive` there, after all letters so far.
    pub fn depart(&mut self, conn: ConnId, now: Now) -> Passenger {
        if let Moving::Departing(to) = self.connections[conn as usize].moving {
            return self.leave(conn, to);
        }
        let caller = Caller { conn, session: self.connections[conn as usize].session_id };
        let napping = self.engine.is_asleep(conn);
        self.engine.disconnect(conn, now);
        let Connection { origin, session, inbound, outbox, away, ended, blocked, .. } =
            self.connections.remove(conn as usize);
        // With functions of other cores, this core's engine isn't told everything.
        self.away_bytes -= away.as_ref().map_or(0, |away| away.function_bytes());
        let asleep = away.filter(|away| away.roams()).map_or(napping, |away| away.asleep);
        let rest = if asleep { Rest::Asleep } else { Rest::Awake };
        debug_assert!(outbox.is_empty(), "what was sent before is a peer's to have before");
        let held_bytes = inbound.held_bytes();
        self.inbound_bytes -= held_bytes;
        self.letters.bytes += held_bytes.cast_signed();
        if blocked {
            self.letters.forget(conn);
        }
        debug!(conn, peer = %origin.peer, "moved");
        self.counters.departed += 1;
        Passenger { caller, origin, session, inbound, rest, ended, luggage: None }
    }

    /// A connection can't be handed over: it goes on where it is, and never moves to its jobs.
    pub fn stay(&mut self, conn: ConnId) {
        let connection = &mut self.connections[conn as usize];
        if let Moving::Leaving(_) | Moving::Departing(_) = connection.moving {
            connection.moving = Moving::No;
            self.relief.give_up();
            self.resumed.push(conn);
        } else if let Moving::Packed(owner) = connection.moving {
            connection.moving = Moving::No;
            connection.away.iter_mut().for_each(|away| away.is_rooted = true);
            let caller = Caller { conn, session: connection.session_id };
            self.send_letter(owner, Letter::StayedHome(caller));
            self.resumed.push(conn);
        }
    }
}

/// The owner's side.
impl Shard {
    /// A connection wants to have its home here.
    pub(in crate::shard) fn expect(&mut self, from: Core, caller: Caller, exceptions: bool) {
        let conn = self.stand_in(from, caller);
        let connection = &mut self.connections[conn as usize];
        connection.moving = Moving::Expected;
        // Until its own session comes.
        connection.session = Session::new(exceptions);
        self.send_letter(from, Letter::Welcome(caller));
    }

    /// It stays where it was: what was kept for it follows it there.
    pub(in crate::shard) fn expect_no_more(&mut self, from: Core, caller: Caller) {
        let conn = self.stand_in(from, caller);
        self.unsettle(conn);
        let connection = &mut self.connections[conn as usize];
        connection.moving = Moving::No;
        connection.closing = Closing::No;
        let parcel = connection.outbox.take_batch();
        if parcel.bytes() > 0 {
            self.send_letter(from, Letter::Push { caller, parcel });
        }
        if !self.engine.is_asleep(conn) {
            // It may have been woken, and has missed hints. If it isn't asleep it will decline.
            let ready = self.engine.ready(conn).bits();
            self.send_letter(from, Letter::Noop { caller, ready });
        }
    }

    /// A connection has come, which `from` let depart. Its requests go on with the next
    /// `next_dirty`.
    pub fn arrive(&mut self, from: Core, passenger: Passenger, now: Now) -> ConnId {
        if passenger.luggage.is_some() {
            return self.settle_in(from, passenger, now);
        }
        let Passenger { caller, origin, session, inbound, rest, ended, .. } = passenger;
        let conn = self.stand_in(from, caller);
        self.callers[from].remove(&caller.conn);
        self.engine.mark_local(conn);
        self.sessions = self.sessions.wrapping_add(1);
        self.counters.moved += 1;
        let arrived = self.arrived();
        let held_bytes = inbound.held_bytes();
        self.inbound_bytes += held_bytes;
        self.letters.bytes -= held_bytes.cast_signed();
        let connection = &mut self.connections[conn as usize];
        debug_assert_eq!(connection.moving, Moving::Expected);
        connection.moving = Moving::No;
        connection.caller = None;
        connection.session_id = self.sessions;
        connection.origin = origin;
        connection.arrived = arrived;
        connection.session = session;
        connection.inbound = inbound;
        connection.ended = ended;
        // The stand-in hears of a worker's sleep only while it has functions here.
        if rest != Rest::Asleep {
            self.engine.mark_awake(conn);
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
