//! Connections that end unanswered while the server drains, as other servers are there for them.
//!
//! A submission that this server can't take any more isn't refused: nothing more of its connection
//! is handled, and it ends once all has come that it waits for and will come. What it waits for at
//! other cores these say, its owners (`Leaving`, `Left`).
//!
//! Invariant: a leaver is in the list until it ends; a proxy until nothing more follows for it.

use super::Shard;
use super::connections::{Closing, EndReason};
use super::cores::{Core, CoreSet};
use super::remote::message::{ConnKey, Message};
use crate::engine::ConnId;
use crate::wire::Submit;

/// A connection that ends, or the proxy of one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaver {
    conn: ConnId,
    /// Other cores that may have something for it yet.
    cores: CoreSet,
}

impl Shard {
    /// Whether a submission is left to other servers, and its connection ends for that.
    #[inline]
    pub(super) fn leaves_to_others(&mut self, conn: ConnId, submit: &Submit<'_>) -> bool {
        let leaves = self.settings.has_other_servers
            && self.engine.is_ending()
            && self.engine.declines(submit);
        if leaves {
            self.end_unanswered(conn);
        }
        leaves
    }

    #[cold]
    fn end_unanswered(&mut self, conn: ConnId) {
        let connection = &mut self.connections[conn];
        (connection.closing, connection.end_reason) = (Closing::Leaving, EndReason::Drained);
        let cores = connection.remote().map(|remote| remote.known()).unwrap_or_default();
        let key = self.connections.key(conn);
        for core in cores.iter() {
            self.outgoing.send(core, Message::Leaving(key));
        }
        self.leavers.push(Leaver { conn, cores });
    }

    /// A connection of another core ends once nothing more follows for it.
    pub(super) fn proxy_leaves(&mut self, from: Core, key: ConnKey) {
        match self.proxies[from].get(&key.conn) {
            Some(&conn) => self.leavers.push(Leaver { conn, cores: CoreSet::default() }),
            None => self.outgoing.send(from, Message::Left(key)),
        }
    }

    /// Nothing more follows from another core for a connection that ends.
    pub(super) fn left_by(&mut self, conn: ConnId, core: Core) {
        if let Some(leaver) = self.leavers.iter_mut().find(|leaver| leaver.conn == conn) {
            leaver.cores.remove(core);
        }
    }

    /// A connection or a proxy is gone.
    pub(super) fn forget_leaver(&mut self, conn: ConnId) {
        self.leavers.retain(|leaver| leaver.conn != conn);
    }

    /// Ends connections that wait for nothing more.
    #[cold]
    pub(super) fn end_leavers(&mut self) {
        let mut leavers = std::mem::take(&mut self.leavers);
        leavers.retain(|&leaver| !self.ends(leaver));
        self.leavers = leavers;
    }

    fn ends(&mut self, Leaver { conn, cores }: Leaver) -> bool {
        if self.engine.awaits_reply(conn) {
            return false;
        }
        let connection = &mut self.connections[conn];
        if let Some((home, key)) = connection.proxy_for {
            self.outgoing.send(home, Message::Left(key));
            return true;
        }
        let ends = cores.is_empty() && connection.outbox().held() == 0;
        if ends {
            connection.closing = Closing::Flushing;
            self.connections.mark_dirty(conn);
        }
        ends
    }
}
