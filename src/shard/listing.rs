//! Lists of the text protocol, written part by part and core by core.
//!
//! A part is written when the last one has left, so that no list stops a core or fills an outbox;
//! what other cores have to add comes as a message. Knows how far a list has come; the rows
//! themselves are `admin`'s.

pub(super) mod progress;

use self::progress::Progress;
use super::Shard;
use super::connections::{Connection, Connections};
use super::driver::Origin;
use super::limits::OUTBOX_PAUSE_BYTES;
use super::remote::state::RemoteState;
use crate::engine::{ConnId, Now};
use crate::protocol::access::Permissions;
use crate::protocol::admin::list::{ConnectionRow, ConnectionRows, ConnectionsAt, Listing, Source};
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
                    let access = self.permissions(conn);
                    let (rows, next) = self.list_rows(listing, access.as_deref(), now);
                    let text = progress.take_in(rows, next);
                    let is_empty = text.is_empty();
                    self.push_text(conn, text, now);
                    if progress.next.is_some() {
                        // Others have their turn before the next part, which follows when this one
                        // has left, if there is anything to leave.
                        if is_empty {
                            self.connections.resume_next_turn(conn);
                        }
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

    /// This core's next rows of a list, and what is left of them. `access` says which functions it
    /// shows; `None` = all.
    pub(super) fn list_rows(
        &mut self,
        listing: Listing,
        access: Option<&Permissions>,
        now: Now,
    ) -> (Rows, Option<Listing>) {
        let arrived = self.counters.arrived();
        let mut rows = Rows { arrived, departed: self.counters.departed, ..Rows::default() };
        if let Listing::Workers(at) | Listing::Connections(at) = listing
            && at.since == Some(arrived)
        {
            return (rows, None);
        }
        let Self { engine, connections, settings, .. } = self;
        let handles = &settings.handles;
        let mut source = Source { engine, handles, connections: &*connections, access, now };
        let next = listing.write(&mut source, &mut rows.text, &mut rows.named);
        (rows, next)
    }
}

impl ConnectionRows for Connections {
    fn rows(&self, at: ConnectionsAt) -> impl Iterator<Item = ConnectionRow<'_>> {
        let ConnectionsAt { conn, since } = at;
        let rows = self.iter_local().skip_while(move |&(at, _)| at < conn);
        rows.filter(move |(_, connection)| since.is_none_or(|it| connection.arrived > it)).map(row)
    }

    fn row(&self, conn: ConnId) -> Option<ConnectionRow<'_>> {
        self.get(conn).map(|connection| row((conn, connection)))
    }
}

fn row((conn, connection): (ConnId, &Connection)) -> ConnectionRow<'_> {
    let Origin { fd, peer, .. } = connection.origin;
    ConnectionRow {
        conn,
        fd,
        peer,
        session: connection.session(),
        functions_elsewhere: connection
            .remote()
            .into_iter()
            .flat_map(RemoteState::functions)
            .collect(),
        jobs_elsewhere: connection.remote().map_or(0, RemoteState::jobs),
        unsent_bytes: connection.outbox().bytes(),
    }
}
