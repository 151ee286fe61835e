//! Lists of the admin protocol, written part by part and core by core.
//!
//! A part is written when the last one has left, so that no list stops a core or fills an outbox;
//! what other cores have to add comes as a message. Knows how far a list has come; the rows
//! themselves are `admin`'s.

pub(super) mod progress;

use self::progress::Progress;
use super::Shard;
use super::connections::Connection;
use super::driver::Origin;
use super::limits::OUTBOX_PAUSE_BYTES;
use super::remote::state::RemoteState;
use crate::engine::{ConnId, Now};
use crate::protocol::admin::{self, Listing, WorkerRow};
use crate::shard::cores::Cores;
use crate::shard::remote::message::Rows;
use crate::wire::outbox::Outbox;

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
                    let push = |outbox: &mut Outbox| outbox.push_text(b".\n");
                    let ((), bytes) = self.connections.with_outbox(conn, push);
                    return self.check_outbox(conn, bytes, now);
                }
            }
        }
        self.connections[conn].listing = Some(progress);
    }

    /// This core's next rows of a list, and what is left of them.
    pub(super) fn list_rows(&self, listing: Listing) -> (Rows, Option<Listing>) {
        let arrived = self.counters.arrived();
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
}

fn worker_row((conn, connection): (ConnId, &Connection)) -> WorkerRow<'_> {
    let Origin { fd, peer } = connection.origin;
    let elsewhere = connection.remote().into_iter().flat_map(RemoteState::functions).collect();
    WorkerRow { conn, fd, ip: peer.ip(), id: connection.session().id(), elsewhere }
}
