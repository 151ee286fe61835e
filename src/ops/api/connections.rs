//! `GET /api/v1/workers` and `/api/v1/connections`: Gearman's connections, and what they run.
//!
//! Rows that cores reply with in, JSON out. All rows are looked at for a page, but no more than two
//! pages of them are held at a time. Knows no engine.
//!
//! Invariant: paged to its end, a list over connections that stay where they are has each of them
//! once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::super::app::App;
use super::super::error::ApiError;
use super::super::guard::Caller;
use super::super::link::{Ending, Link};
use super::address;
use super::cursor::ListId;
use super::names::Name;
use super::params::Params;
use crate::protocol::peer_address::PeerAddress;
use crate::shard::cores::Core;
use crate::shard::operator::{
    ConnectionFilter, ConnectionRow, OperatorReply, OperatorRequest, WorkerState,
};
use crate::shard::remote::message::{ConnKey, HomeConnId};

/// Most connections that a core is asked about at a time, each of which may run a hundred jobs.
const ASKED_MAX: usize = 64;

/// What connections are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sort {
    Address,
    Since,
    Running,
}

const SORTS: [(&str, Sort); 3] =
    [("address", Sort::Address), ("since", Sort::Since), ("running", Sort::Running)];

/// Orders rows: by what they are sorted by, then, always ascending, by where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    rank: [u8; RANK_BYTES],
    at: [u8; AT_BYTES],
}

/// A kind, an address and a port.
const RANK_BYTES: usize = 1 + 16 + 2;
/// A core, a connection of it and its generation.
const AT_BYTES: usize = 1 + 4 + 4;

impl Place {
    fn of(sort: Sort, home: Core, row: &ConnectionRow, running: usize) -> Self {
        let mut rank = [0; RANK_BYTES];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(room) = rank.get_mut(at..at + bytes.len()) {
                room.copy_from_slice(bytes);
            }
        };
        match (sort, row.peer) {
            (Sort::Address, PeerAddress::Ip(address)) => {
                match address.ip() {
                    IpAddr::V4(ip) => put(13, &ip.octets()),
                    IpAddr::V6(ip) => {
                        put(0, &[1]);
                        put(1, &ip.octets());
                    }
                }
                put(17, &address.port().to_be_bytes());
            }
            (Sort::Address, PeerAddress::Unix(peer)) => {
                put(0, &[2]);
                put(1, &peer.uid.to_be_bytes());
                put(5, &peer.pid.to_be_bytes());
            }
            (Sort::Since, _) => put(0, &row.since_s.to_be_bytes()),
            (Sort::Running, _) => put(0, &(running as u64).to_be_bytes()),
        }
        let mut at = [0; AT_BYTES];
        let number = row.key.conn.at_home().number();
        at[0] = u8::try_from(home).unwrap_or(u8::MAX);
        at[1..5].copy_from_slice(&number.to_be_bytes());
        at[5..].copy_from_slice(&row.key.generation.to_be_bytes());
        Self { rank, at }
    }

    fn cmp(&self, other: &Self, is_descending: bool) -> std::cmp::Ordering {
        let rank = self.rank.cmp(&other.rank);
        let rank = if is_descending { rank.reverse() } else { rank };
        rank.then_with(|| self.at.cmp(&other.at))
    }

    fn write(&self) -> Vec<u8> {
        [&self.rank[..], &self.at].concat()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (rank, at) = bytes.split_first_chunk()?;
        Some(Self { rank: *rank, at: at.try_into().ok()? })
    }
}

/// A connection, its home, and its place in the list.
#[derive(Debug)]
struct Found {
    place: Place,
    home: Core,
    row: ConnectionRow,
}

/// A job's handle, and how long it has run, in seconds.
type Job = (Box<str>, f64);

/// The jobs that connections run, by core and number there.
type Running = HashMap<(Core, HomeConnId), Vec<Job>>;

#[derive(Debug, Serialize)]
struct Connection<'a> {
    address: String,
    id: Name<'a>,
    listener: &'a str,
    tls: bool,
    certificate: Option<&'a str>,
    functions: Vec<Name<'a>>,
    function_count: usize,
    running: Vec<&'a str>,
    /// How long each of them has run.
    running_seconds: Vec<f64>,
    since: f64,
    state: &'static str,
}

impl<'a> Connection<'a> {
    fn of(row: &'a ConnectionRow, running: &'a [Job], places: &'a [String]) -> Self {
        Self {
            address: address(row.peer),
            id: Name(&row.id),
            listener: listener(row, places),
            tls: row.speaks_tls,
            certificate: row.certificate.as_deref(),
            functions: row.functions.iter().map(|name| Name(name)).collect(),
            function_count: row.function_count,
            running: running.iter().map(|(handle, _)| &**handle).collect(),
            running_seconds: running.iter().map(|&(_, seconds)| seconds).collect(),
            since: row.since_s.into(),
            state: match row.state {
                _ if row.function_count == 0 => "-",
                WorkerState::Awake => "awake",
                WorkerState::Asleep => "asleep",
            },
        }
    }
}

/// Where a connection came in. Without `--listen` that is loopback of one version of IP.
fn listener<'a>(row: &'a ConnectionRow, places: &'a [String]) -> &'a str {
    if let Some(name) = &row.listener {
        return name;
    }
    let is_v6 = row.peer.ip().is_some_and(|ip| ip.is_ipv6());
    let of_version = |place: &&String| place.trim_start_matches("tls:").starts_with('[') == is_v6;
    places.iter().find(of_version).map_or("-", |place| place)
}

#[derive(Debug, Serialize)]
struct Workers<'a> {
    workers: Vec<Connection<'a>>,
    total: usize,
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct Connections<'a> {
    connections: Vec<Connection<'a>>,
    total: usize,
    next: Option<String>,
}

/// `GET /api/v1/workers`: connections that can run a function.
pub(super) async fn workers(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, ApiError> {
    answer(&app, &caller, &uri, true).await
}

/// `GET /api/v1/connections`.
pub(super) async fn all(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, ApiError> {
    answer(&app, &caller, &uri, false).await
}

async fn answer(
    app: &App,
    caller: &Caller,
    uri: &Uri,
    workers: bool,
) -> Result<Response, ApiError> {
    caller.may_observe_all()?;
    let params = Params::of(uri, &["filter", "function", "sort", "order", "limit", "after"])?;
    let function: Option<Box<[u8]>> = params.bytes("function").map(Into::into);
    let text = params.text("filter")?.unwrap_or_default().to_lowercase();
    let sort = params.choice("sort", &SORTS)?.unwrap_or(Sort::Address);
    let is_descending = params.is_descending()?;
    let limit = params.limit()?;
    let list = ListId::of(("connections", workers, &function, &text, sort, is_descending));
    let after = list.place(&params, Place::read)?;
    let link = app.link()?;
    let page = Page { sort, is_descending, limit, after, text };
    let filter = ConnectionFilter { workers, function };
    let (found, total, has_more) = page.collect(&link, &filter).await?;
    let keys: Vec<_> = found.iter().map(|it| (it.home, it.row.key)).collect();
    let running = running(&link, &keys).await?;
    let places = &app.settings().places;
    let rows = found.iter().map(|Found { row, home, .. }| {
        let running = running.get(&(*home, row.key.conn));
        Connection::of(row, running.map_or(&[], Vec::as_slice), places)
    });
    let rows = rows.collect();
    let last = found.last().filter(|_| has_more);
    let next = last.map(|last| list.cursor(&last.place.write()));
    Ok(match workers {
        true => Json(Workers { workers: rows, total, next }).into_response(),
        false => Json(Connections { connections: rows, total, next }).into_response(),
    })
}

/// Which part of a list is wanted.
#[derive(Debug)]
struct Page {
    sort: Sort,
    is_descending: bool,
    limit: usize,
    after: Option<Place>,
    /// In small letters.
    text: String,
}

impl Page {
    /// The rows of the page, how many match in all, and whether there are more behind it.
    async fn collect(
        &self,
        link: &Link,
        filter: &ConnectionFilter,
    ) -> Result<(Vec<Found>, usize, bool), Ending> {
        let mut found: Vec<Found> = Vec::new();
        let mut total = 0;
        for home in 0..link.cores().count {
            let mut next = Some(HomeConnId::FIRST);
            while let Some(from) = next {
                let request = OperatorRequest::Connections { filter: filter.clone(), from };
                let reply = link.ask(home, request).await?;
                let OperatorReply::Connections(rows, rest) = reply else { break };
                next = rest;
                let rows: Vec<_> = rows.into_iter().filter(|row| self.matches(row)).collect();
                total += rows.len();
                let counts = match self.sort {
                    Sort::Running => {
                        let keys: Vec<_> = rows.iter().map(|row| (home, row.key)).collect();
                        running(link, &keys).await?
                    }
                    Sort::Address | Sort::Since => Running::new(),
                };
                found.extend(rows.into_iter().filter_map(|row| {
                    let runs = counts.get(&(home, row.key.conn)).map_or(0, Vec::len);
                    let place = Place::of(self.sort, home, &row, runs);
                    let is_behind = |after| place.cmp(after, self.is_descending).is_gt();
                    self.after.as_ref().is_none_or(is_behind).then_some(Found { place, home, row })
                }));
                if found.len() > 2 * self.limit {
                    self.keep(&mut found);
                }
            }
        }
        self.keep(&mut found);
        let has_more = found.len() > self.limit;
        found.truncate(self.limit);
        Ok((found, total, has_more))
    }

    /// Keeps the first rows, and one more.
    fn keep(&self, found: &mut Vec<Found>) {
        found.sort_unstable_by(|one, other| one.place.cmp(&other.place, self.is_descending));
        found.truncate(self.limit + 1);
    }

    fn matches(&self, row: &ConnectionRow) -> bool {
        if self.text.is_empty() {
            return true;
        }
        let has = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_lowercase().contains(&self.text);
        has(address(row.peer).as_bytes())
            || has(&row.id)
            || row.certificate.as_ref().is_some_and(|name| has(name.as_bytes()))
            || row.functions.iter().any(|name| has(name))
    }
}

/// What connections run, at all cores.
async fn running(link: &Link, keys: &[(Core, ConnKey)]) -> Result<Running, Ending> {
    let count = link.cores().count;
    let mut running = Running::new();
    for home in 0..count {
        let conns = keys.iter().filter(|(core, _)| *core == home).map(|&(_, key)| key);
        let conns: Vec<ConnKey> = conns.collect();
        for conns in conns.chunks(ASKED_MAX) {
            let ask = |core| {
                let request = OperatorRequest::Running { home, conns: conns.to_vec() };
                link.send_request(core, request)
            };
            for reply in (0..count).map(ask).collect::<Vec<_>>() {
                let OperatorReply::Running(rows) = reply.await.map_err(|_| Ending)? else {
                    continue;
                };
                for row in rows {
                    let job = (row.handle, f64::from(row.run_ms) / 1000.0);
                    running.entry((home, row.key.conn)).or_default().push(job);
                }
            }
        }
    }
    Ok(running)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ConnId;
    use crate::protocol::peer_address::UnixPeer;

    fn row(peer: PeerAddress, conn: u32) -> ConnectionRow {
        ConnectionRow {
            key: ConnKey { conn: HomeConnId::of(ConnId::from_number(conn)), generation: 7 },
            peer,
            id: (*b"web-1").into(),
            listener: None,
            speaks_tls: false,
            certificate: None,
            functions: vec![(*b"Resize").into()],
            function_count: 1,
            since_s: 5,
            unsent_bytes: 0,
            state: WorkerState::Awake,
        }
    }

    fn ip(text: &str) -> PeerAddress {
        PeerAddress::Ip(text.parse().unwrap())
    }

    #[test]
    fn addresses_come_in_their_order_and_ties_by_where_they_are() {
        let unix = PeerAddress::Unix(UnixPeer { uid: 0, gid: 0, pid: 7 });
        let peers = ["9.0.0.1:5", "10.0.0.1:5", "10.0.0.1:40", "[::1]:1"].map(ip);
        let rows: Vec<_> = peers.into_iter().chain([unix, unix]).zip(0..).collect();
        let place =
            |&(peer, conn): &(PeerAddress, u32)| Place::of(Sort::Address, 0, &row(peer, conn), 0);
        let places: Vec<Place> = rows.iter().map(place).collect();
        assert!(places.is_sorted_by(|one, other| one.cmp(other, false).is_lt()));
        assert!(places[0].cmp(&places[1], true).is_gt());
        assert!(places[4].cmp(&places[5], true).is_lt(), "ties ascend in any case");
        assert_eq!(Place::read(&places[2].write()), Some(places[2]));
        assert_eq!(Place::read(b"short"), None);
        let by = |sort, runs| Place::of(sort, 0, &row(unix, 0), runs);
        assert!(by(Sort::Running, 2).cmp(&by(Sort::Running, 10), false).is_lt());
    }

    #[test]
    fn a_filter_looks_at_address_id_and_functions() {
        let page = |text: &str| Page {
            sort: Sort::Address,
            is_descending: false,
            limit: 1,
            after: None,
            text: text.to_owned(),
        };
        let row = row(ip("192.0.2.7:5000"), 1);
        for (text, matches) in
            [("", true), ("2.7:50", true), ("web", true), ("resize", true), ("mail", false)]
        {
            assert_eq!(page(text).matches(&row), matches, "{text}");
        }
        let places = ["127.0.0.1:4730".to_owned(), "[::1]:4730".to_owned()];
        assert_eq!(listener(&row, &places), "127.0.0.1:4730");
        assert_eq!(listener(&self::row(ip("[::1]:5"), 1), &places), "[::1]:4730");
    }
}
