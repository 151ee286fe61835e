//! Lists of the text protocol, written part by part and core by core, and changes of many that are
//! made likewise.
//!
//! A part is written when the last one has left, so that no list stops a core or fills an outbox;
//! what other cores have to add comes as a message. Knows how far a list has come; the rows
//! themselves are `admin`'s.

mod changes;
pub(super) mod progress;

use std::sync::Arc;

use self::progress::Progress;
use super::Shard;
use super::connections::{Connection, Connections};
use super::driver::Origin;
use super::limits::OUTBOX_PAUSE_BYTES;
use super::remote::state::RemoteState;
use crate::engine::glob::Glob;
use crate::engine::{ConnId, Now};
use crate::protocol::access::Permissions;
use crate::protocol::admin::Task;
use crate::protocol::admin::list::{ConnectionRow, ConnectionRows, ConnectionsAt, Listing, Source};
use crate::shard::cores::Cores;
use crate::shard::remote::message::Rows;
use crate::wire::outbox::Outbox;

impl Shard {
    /// Writes the next part of a list, or has another core do so.
    pub(super) fn go_on_listing(&mut self, conn: ConnId, mut progress: Box<Progress>, now: Now) {
        let Cores { own, count } = self.settings.cores;
        while !progress.asked && self.connections[conn].outbox().bytes() <= OUTBOX_PAUSE_BYTES {
            let next = progress.next;
            match next {
                Some(task) if progress.core == own => {
                    let (access, names) = (self.permissions(conn), progress.names.clone());
                    let (rows, next) = self.do_some(task, names.as_deref(), access.as_ref(), now);
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
                Some(task) => {
                    let names = progress.names.clone();
                    self.ask_for_rows(conn, progress.core, task, names);
                    progress.asked = true;
                }
                None if progress.go_on(count) => {}
                None => {
                    let end = progress.end();
                    let push = |outbox: &mut Outbox| outbox.push_text(&end);
                    let ((), bytes) = self.connections.with_outbox(conn, push);
                    return self.check_outbox(conn, bytes, now);
                }
            }
        }
        self.connections[conn].listing = Some(progress);
    }

    /// This core's next rows of a list, or its next portion of a change, and what is left. It is
    /// about functions with such names for which `access` gives the right.
    pub(super) fn do_some(
        &mut self,
        task: Task,
        names: Option<&Glob>,
        access: Option<&Arc<Permissions>>,
        now: Now,
    ) -> (Rows, Option<Task>) {
        match task {
            Task::List(listing) => {
                let (rows, next) = self.list_rows(listing, names, access.map(|it| &**it), now);
                (rows, next.map(Task::List))
            }
            Task::Change(change) => {
                let (tally, next) = self.change_some(change, names, access, now);
                (Rows { tally, ..Rows::default() }, next.map(Task::Change))
            }
        }
    }

    fn list_rows(
        &mut self,
        listing: Listing,
        names: Option<&Glob>,
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
        let connections = &*connections;
        let mut source = Source { engine, handles, connections, access, names, now };
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
