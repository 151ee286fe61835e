//! Connections as operators see them, and what they run: where a list has come to in, the next rows
//! out.
//!
//! A connection's row is made by the core that it came in on; what it runs of other cores'
//! functions these tell. Knows no JSON.
//!
//! Invariant: a list over connections that stay has each of them once, but for those that move from
//! core to core meanwhile.

use std::sync::Arc;

use super::{RECORDS_MAX, ROWS_MAX};
use crate::engine::{ConnId, Now};
use crate::protocol::peer_address::PeerAddress;
use crate::shard::Shard;
use crate::shard::connections::Connection;
use crate::shard::remote::conn_key::{ConnKey, HomeConnId};
use crate::shard::remote::state::RemoteState;

/// Most functions of a connection that its row names.
const FUNCTIONS_MAX: usize = 50;
/// Most jobs of a connection that are named.
const RUNNING_MAX: usize = 100;

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// It works, or asks for jobs.
    Awake,
    /// It waits for a NOOP.
    Asleep,
}

/// Which connections.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFilter {
    /// Whether only those that can run a function.
    pub workers: bool,
    /// Those that can run this function; `None` = all.
    pub function: Option<Box<[u8]>>,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    /// What other cores know it by.
    pub key: ConnKey,
    /// Its address.
    pub peer: PeerAddress,
    /// Its client id; `-` without one.
    pub id: Box<[u8]>,
    /// The listener that it came to, as `--listen` names it.
    pub listener: Option<Arc<str>>,
    /// Whether it speaks TLS.
    pub speaks_tls: bool,
    /// The name in its certificate.
    pub certificate: Option<Box<str>>,
    /// The first functions that it can run.
    pub functions: Vec<Box<[u8]>>,
    /// How many they are.
    pub function_count: usize,
    /// Since when it is there, in seconds since 1970.
    pub since_s: u32,
    /// Bytes that wait to leave.
    pub unsent_bytes: usize,
    /// What it does.
    pub state: WorkerState,
}

/// A job that a connection runs.
#[derive(Clone, Debug)]
pub struct RunningRow {
    /// The connection.
    pub key: ConnKey,
    /// The job's handle.
    pub handle: Box<str>,
    /// How long it has run, in milliseconds.
    pub run_ms: u32,
}

impl ConnectionRow {
    pub(super) fn bytes(&self) -> usize {
        let functions: usize =
            self.functions.iter().map(|name| size_of::<Box<[u8]>>() + name.len()).sum();
        size_of::<Self>() + self.id.len() + functions
    }
}

impl RunningRow {
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.handle.len()
    }
}

impl Shard {
    pub(super) fn connection_rows(
        &self,
        from: HomeConnId,
        filter: &ConnectionFilter,
    ) -> (Vec<ConnectionRow>, Option<HomeConnId>) {
        let from = from.at_home();
        let ConnectionFilter { workers, function } = filter;
        let mut rows = Vec::new();
        let mut looked_at = 0;
        for (conn, connection) in self.connections.iter_local().skip_while(|&(it, _)| it < from) {
            if rows.len() == ROWS_MAX || looked_at >= RECORDS_MAX {
                return (rows, Some(HomeConnId::of(conn)));
            }
            let row = self.connection_row(conn, connection);
            looked_at += 1 + row.function_count;
            let is_able = |name: &[u8]| self.functions_of(conn, connection).any(|it| it == name);
            if (!workers || row.function_count > 0) && function.as_deref().is_none_or(is_able) {
                rows.push(row);
            }
        }
        (rows, None)
    }

    /// All functions that a connection can run.
    fn functions_of<'a>(
        &'a self,
        conn: ConnId,
        connection: &'a Connection,
    ) -> impl Iterator<Item = &'a [u8]> {
        let elsewhere = connection.remote().into_iter().flat_map(RemoteState::functions);
        self.engine.functions_of(conn).chain(elsewhere)
    }

    fn connection_row(&self, conn: ConnId, connection: &Connection) -> ConnectionRow {
        let names = || self.functions_of(conn, connection);
        let listener = self.settings.listeners.get(usize::from(connection.origin.listener));
        let is_asleep = match connection.remote() {
            Some(remote) if remote.is_multi_core() => remote.is_asleep(),
            _ => self.engine.is_asleep(conn),
        };
        ConnectionRow {
            key: self.connections.key(conn),
            peer: connection.origin.peer,
            id: connection.session().id().into(),
            listener: listener.and_then(|listener| listener.name.clone()),
            speaks_tls: !connection.transport.is_plain(),
            certificate: connection
                .transport
                .certificate
                .as_ref()
                .and_then(|it| it.name())
                .map(Into::into),
            functions: names().take(FUNCTIONS_MAX).map(Box::from).collect(),
            function_count: names().count(),
            since_s: connection.session().since_s(),
            unsent_bytes: connection.outbox().bytes(),
            state: if is_asleep { WorkerState::Asleep } else { WorkerState::Awake },
        }
    }

    /// What connections that came in on `home` run of this core's functions.
    pub(super) fn running_rows(&self, home: usize, keys: &[ConnKey], now: Now) -> Vec<RunningRow> {
        let mut rows = Vec::new();
        for &key in keys {
            let conn = if home == self.settings.cores.own {
                self.find_key(key)
            } else {
                // It may stand for an earlier connection of that number, whose end is on its way.
                let proxy = self.proxies.get(home).and_then(|proxies| proxies.get(&key.conn));
                let is_it = |conn: &ConnId| self.connections[*conn].proxy_for == Some((home, key));
                proxy.copied().filter(is_it)
            };
            let Some(conn) = conn else { continue };
            let running = self.engine.jobs_of(conn).take(RUNNING_MAX);
            rows.extend(running.map(|job| RunningRow {
                key,
                handle: self.handle_text(job.number),
                run_ms: job.run_ms(now),
            }));
        }
        rows
    }
}
