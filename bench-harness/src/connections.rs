//! The same closed loop from few and from very many connections: what each of them takes of the
//! memory, and what a job costs the more of them there are.
//!
//! One connection in fifty is a worker, all others are clients with a job in flight. A contender
//! serves all numbers of them with as many threads as the greatest needs, all on its one core: one,
//! unless a thread may not have so many descriptors. One that can't have them at all is absent.

use std::time::Duration;

use crate::bench_target::BenchTarget;
use crate::contender::Contender;
use crate::format::short;
use crate::process::Persistence;
use crate::sample::{Sample, Status};
use crate::wire_protocol::Protocol;

/// Connections for each worker among them.
const CONNECTIONS_PER_WORKER: usize = 50;
/// Descriptors that a server has for other things.
const DESCRIPTORS_BESIDE: usize = 100;
/// The kernel shares connections out by chance: so much more than its part a thread may get, %.
const UNEVEN_PERCENT: usize = 5;
/// So long is the warm-up for each connection at least: a round of all clients takes long.
const WARM_UP_EACH: Duration = Duration::from_micros(100);
/// Ports of one address, of 28 232, before connecting takes long.
const PORTS: usize = 14_000;

/// A fresh server and a sample for each number of connections, where a process may have `limit`
/// descriptors.
pub(crate) fn samples(target: &BenchTarget<'_>, limit: usize, counts: &[usize]) -> Vec<Sample> {
    let threads = |connections: usize| threads(target.contender, connections, limit);
    let most = counts.iter().filter_map(|&count| threads(count).ok()).max().unwrap_or(1);
    let one = |&connections: &usize| {
        let mut sample = match threads(connections) {
            Err(why) => Sample::without(Status::Absent, why),
            Ok(_) => Sample::or_failed(target.with_server(Persistence::Memory, most, |server| {
                let mut load = target.plan(&words(connections))?;
                load.warm_up.0 = load.warm_up.0.max(WARM_UP_EACH * u32::try_from(connections)?);
                target.load(server, &load)
            })),
        };
        if sample.note.is_empty() && most > 1 {
            sample.note = format!(
                "{most} threads on its core, for one may have no more than {} descriptors here",
                short(limit as u64)
            );
        }
        sample.at(short(connections as u64), connections as f64)
    };
    counts.iter().map(one).collect()
}

/// Threads that a contender needs for so many connections, or why it can't have them, where `limit`
/// descriptors are allowed.
fn threads(contender: Contender, connections: usize, limit: usize) -> Result<usize, String> {
    if contender.protocol() != Protocol::Gearman && connections > PORTS {
        let ports = "its driver here connects from one address, which has too few ports";
        return Err(ports.to_owned());
    }
    let room = limit.saturating_sub(DESCRIPTORS_BESIDE);
    if connections <= room {
        return Ok(1);
    }
    if contender.has_rings() && room > 0 {
        // Connections aren't the process's descriptors but the rings'.
        return Ok((connections + connections * UNEVEN_PERCENT / 100).div_ceil(room));
    }
    Err(format!(
        "{} connections are more than the {} descriptors that a process may have here",
        short(connections as u64),
        short(limit as u64)
    ))
}

/// The load of so many connections.
fn words(connections: usize) -> String {
    let workers = (connections / CONNECTIONS_PER_WORKER).max(1);
    format!("--clients={} --workers={workers}", connections - workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Contender {
        Contender::named(name).unwrap()
    }

    #[test]
    fn one_thread_serves_all_where_the_limit_allows_it() {
        for contender in ["ringgear-uring", "gearman-server"].map(named) {
            assert_eq!(threads(contender, 50_000, 1 << 20), Ok(1));
            assert_eq!(threads(contender, 19_000, 20_000), Ok(1));
        }
    }

    #[test]
    fn beyond_it_only_rings_help() {
        assert_eq!(threads(named("ringgear-uring"), 50_000, 20_000), Ok(3));
        let why = threads(named("ringgear-epoll"), 50_000, 20_000).unwrap_err();
        assert!(why.starts_with("50 k connections are more than the 20 k descriptors"), "{why}");
        assert!(threads(named("redis"), 50_000, 1 << 20).unwrap_err().contains("ports"));
    }

    #[test]
    fn all_connections_are_clients_or_workers() {
        assert_eq!(words(50_000), "--clients=49000 --workers=1000");
        assert_eq!(words(10), "--clients=9 --workers=1");
    }
}
