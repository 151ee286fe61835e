//! Lists of the admin protocol, written part by part and core by core.
//!
//! A part is written when the last one has left, so that no list stops a core or fills an outbox;
//! what other cores have to add comes as a letter. Knows how far a list has come; the rows
//! themselves are `admin`'s.

use super::moving::Moving;
use super::{Connection, OUTBOX_PAUSE_BYTES, Origin, Shard};
use crate::admin::{self, Listing, WorkerRow};
use crate::engine::{ConnId, Now};
use crate::letter::{Core, Cores};

/// With less than this to send, a list waits for the rows of the core that was asked: clients take
/// what comes in one piece for all of it, as gearadmin does.
const LIST_PIECE_BYTES: usize = 64 << 10;

/// How far a list has been written, core by core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) core: Core,
    /// What this core is asked for next, or was.
    pub(super) listing: Listing,
    /// What is left of its rows, once it has answered.
    pub(super) next: Option<Listing>,
    /// Its rows are on their way.
    pub(super) asked: bool,
}

impl Progress {
    pub(super) fn of(listing: Listing) -> Self {
        Self { core: 0, listing, next: Some(listing), asked: false }
    }
}

impl Shard {
    /// Writes the next part of a list, or has another core do so.
    pub(super) fn go_on_listing(&mut self, conn: ConnId, progress: Progress, now: Now) {
        let Cores { own, count } = self.settings.cores;
        let mut progress = progress;
        while !progress.asked
            && self.connections[conn as usize].outbox.bytes() <= OUTBOX_PAUSE_BYTES
        {
            match progress.next {
                Some(listing) if progress.core == own => {
                    let mut text = std::mem::take(&mut self.text);
                    progress.next = self.list_rows(listing, &mut text);
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
                None if progress.core + 1 < count => {
                    progress.core += 1;
                    progress.next = Some(progress.listing.restarted());
                }
                None => {
                    self.connections[conn as usize].listing = None;
                    self.unsettle(conn);
                    self.connections[conn as usize].outbox.push_text(b".\n");
                    return self.settle(conn, now);
                }
            }
        }
        self.connections[conn as usize].listing = Some(progress);
    }

    /// Whether what a connection has to send waits: for rows of another core, or for the core that
    /// it is handed over to.
    #[inline]
    pub(super) fn holds_back(&self, conn: ConnId) -> bool {
        let Connection { listing, outbox, moving, .. } = &self.connections[conn as usize];
        listing.is_some_and(|progress| progress.asked) && outbox.bytes() < LIST_PIECE_BYTES
            || matches!(moving, Moving::Departing(_))
    }

    /// Appends this core's next rows of a list; answers with what is left of them.
    pub(super) fn list_rows(&self, listing: Listing, text: &mut Vec<u8>) -> Option<Listing> {
        let own = self.connections.iter().filter(|(_, connection)| connection.caller.is_none());
        admin::list(listing, &self.engine, &self.settings.handles, own.map(worker_row), text)
    }
}

fn worker_row((conn, connection): (usize, &Connection)) -> WorkerRow<'_> {
    let Origin { fd, peer } = connection.origin;
    WorkerRow {
        conn: ConnId::try_from(conn).unwrap_or(ConnId::MAX),
        fd,
        ip: peer.ip(),
        id: connection.session.id(),
        elsewhere: connection.away.iter().flat_map(|away| away.functions()).collect(),
    }
}
