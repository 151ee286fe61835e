//! Lists of the admin protocol, written part by part and core by core.
//!
//! A part is written when the last one has left, so that no list stops a core or fills an outbox;
//! what other cores have to add comes as a message. Knows how far a list has come; the rows
//! themselves are `admin`'s.

use foldhash::HashSet;

use super::Shard;
use super::connections::{Connection, Origin};
use super::limits::OUTBOX_PAUSE_BYTES;
use super::remote::state::RemoteState;
use crate::engine::{ConnId, Now};
use crate::protocol::admin::{self, Listing, WorkerRow};
use crate::shard::cores::{Core, Cores};
use crate::shard::remote::message::Rows;

/// With less than this to send, a list waits for the rows of the core that was asked: clients take
/// what comes in one piece for all of it, as gearadmin does.
pub(super) const LIST_PIECE_BYTES: usize = 64 << 10;

/// Most rounds of a list of connections. Each takes as long as messages to all cores and back, so
/// this many see no rest only where connections move all the time.
const ROUNDS_MAX: u32 = 100;

/// How far a list has been written, core by core.
#[derive(Debug)]
pub(super) struct Progress {
    core: Core,
    /// What this core is asked for next, or was; nothing is left once it has given its last rows.
    next: Option<Listing>,
    /// The list from its start.
    listing: Listing,
    /// Its rows are on their way.
    pub(super) asked: bool,
    census: Census,
}

/// What a list of connections takes to name each one once, though they move between cores
/// meanwhile: rounds. The first asks all cores for all rows, the others for those of connections
/// that have come since. It is complete when all that had arrived in one round is all that had
/// departed in the next: then none was on its way between the two.
#[derive(Debug, Default)]
struct Census {
    /// Numbers of the connections that were named.
    named: HashSet<i32>,
    /// How many had moved to each core when its part of the round before last began.
    arrived: Vec<u64>,
    /// All that had departed when each core's part of this round began.
    departed: u64,
    /// All that had arrived in the round before; nothing in the first.
    arrived_before: Option<u64>,
    rounds: u32,
}

impl Progress {
    pub(super) fn of(listing: Listing) -> Self {
        Self { core: 0, next: Some(listing), listing, asked: false, census: Census::default() }
    }

    /// A core has given its next rows of the list, and has `next` left: those to be written.
    pub(super) fn take_in(&mut self, rows: Rows, next: Option<Listing>) -> Vec<u8> {
        let listing = std::mem::replace(&mut self.next, next);
        let Some(Listing::Workers { at, .. }) = listing else { return rows.text };
        let Census { named, arrived, departed, .. } = &mut self.census;
        // A connection that comes while a core gives its rows may stand behind the last row.
        if at == 0 {
            arrived.resize(arrived.len().max(self.core + 1), 0);
            arrived[self.core] = rows.arrived;
            *departed += rows.departed;
        }
        let (mut text, mut start) = (Vec::with_capacity(rows.text.len()), 0);
        for (number, end) in rows.named {
            // A number that was named may be the next connection's by now, which is newer than the
            // list.
            if named.insert(number) {
                text.extend_from_slice(rows.text.get(start..end).unwrap_or_default());
            }
            start = end;
        }
        text
    }

    /// A core has no rows left: goes on with the next. `false` at the end of the list.
    fn go_on(&mut self, cores: usize) -> bool {
        self.core += 1;
        let Census { arrived, departed, arrived_before, rounds, .. } = &mut self.census;
        let is_workers = matches!(self.listing, Listing::Workers { .. });
        if self.core == cores {
            let is_complete = *arrived_before == Some(*departed) || *rounds >= ROUNDS_MAX;
            if cores == 1 || !is_workers || is_complete {
                return false;
            }
            self.core = 0;
            *arrived_before = Some(arrived.iter().sum());
            (*departed, *rounds) = (0, *rounds + 1);
        }
        self.next = Some(match self.listing {
            Listing::Workers { .. } if *rounds > 0 => {
                Listing::Workers { at: 0, since: arrived.get(self.core).copied() }
            }
            listing => listing,
        });
        true
    }
}

impl Shard {
    /// Writes the next part of a list, or has another core do so.
    pub(super) fn go_on_listing(&mut self, conn: ConnId, mut progress: Box<Progress>, now: Now) {
        let Cores { own, count } = self.settings.cores;
        while !progress.asked && self.connections[conn].outbox().bytes() <= OUTBOX_PAUSE_BYTES {
            let listing = progress.next;
            match listing {
                Some(listing) if progress.core == own => {
                    let (rows, next) = self.list_rows(listing);
                    let text = progress.take_in(rows, next);
                    self.push_text(conn, text, now);
                    if progress.next.is_some() {
                        // Others have their turn before the next part.
                        break;
                    }
                }
                Some(listing) => {
                    self.ask_for_rows(conn, progress.core, listing);
                    progress.asked = true;
                }
                None if progress.go_on(count) => {}
                None => {
                    self.connections.with_outbox(conn, |outbox| outbox.push_text(b".\n"));
                    return self.check_outbox(conn, now);
                }
            }
        }
        self.connections[conn].listing = Some(progress);
    }

    /// This core's next rows of a list, and what is left of them.
    pub(super) fn list_rows(&self, listing: Listing) -> (Rows, Option<Listing>) {
        let arrived = self.arrived();
        let mut rows = Rows { arrived, departed: self.counters.departed, ..Rows::default() };
        let mut since = None;
        if let Listing::Workers { since: Some(count), .. } = listing {
            if count == arrived {
                return (rows, None);
            }
            since = Some(count);
        }
        let own = self.connections.iter_local();
        let own = own.filter(|(_, connection)| since.is_none_or(|it| connection.arrived > it));
        let Rows { text, named, .. } = &mut rows;
        let (engine, handles) = (&self.engine, &self.settings.handles);
        let next = admin::list(listing, engine, handles, own.map(worker_row), text, named);
        (rows, next)
    }

    /// Connections that have moved to this core so far.
    pub(super) fn arrived(&self) -> u64 {
        self.counters.moved + self.counters.took_in
    }
}

fn worker_row((conn, connection): (ConnId, &Connection)) -> WorkerRow<'_> {
    let Origin { fd, peer } = connection.origin;
    let elsewhere = connection.remote().into_iter().flat_map(RemoteState::functions).collect();
    WorkerRow { conn, fd, ip: peer.ip(), id: connection.session().id(), elsewhere }
}
