//! Room for the run's sockets: descriptors and source addresses.
//!
//! The limit on descriptors holds for a table of them, and a thread may have a table of its own:
//! with more threads, a run has more connections than one process is otherwise allowed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::Error;
use crate::options::THREADS_MAX;

/// Descriptors of a table besides the connections: polls, timers, standard streams, files under
/// /proc.
const DESCRIPTORS_BESIDE: u64 = 64;
/// What each thread adds to those of all tables: its poll, its timer, its waker.
const DESCRIPTORS_PER_THREAD: u64 = 4;

/// Connections per source address. Linux hands out 28 232 local ports unless told otherwise, the
/// even ones first; once those are gone, it searches so long that connecting takes ten times.
const PER_SOURCE: usize = 10_000;
/// The first of the loopback addresses that connections are spread over.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// How the connections are spread over threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) threads: usize,
    /// Whether each thread has a table of descriptors of its own.
    pub(crate) own_tables: bool,
}

/// Makes room for so many connections, on so many threads if that will do.
pub(crate) fn make_room(connections: usize, threads: usize) -> Result<Spread, Error> {
    let needed = table(connections, threads);
    let limit = raise_descriptors(needed)?;
    spread(connections, threads, limit).ok_or(Error::Descriptors { needed, limit })
}

/// Gives this thread a table of descriptors of its own, with all that are open now.
pub(crate) fn own_table(connections: usize) -> Result<(), Error> {
    // Containers may forbid it; then the one table there is is too small.
    unshare(CloneFlags::CLONE_FILES).map_err(|_| {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        Error::Descriptors { needed: table(connections, 1), limit }
    })
}

/// Descriptors of a table that holds so many connections.
fn table(connections: usize, threads: usize) -> u64 {
    connections as u64 + DESCRIPTORS_BESIDE + DESCRIPTORS_PER_THREAD * threads as u64
}

/// The fewest threads, from `threads` on, whose tables hold all connections.
fn spread(connections: usize, threads: usize, limit: u64) -> Option<Spread> {
    if table(connections, threads) <= limit {
        return Some(Spread { threads, own_tables: false });
    }
    let fits = |&threads: &usize| table(connections.div_ceil(threads), threads) <= limit;
    let threads = (threads..=THREADS_MAX).find(fits)?;
    Some(Spread { threads, own_tables: true })
}

/// Raises the limit of a table to `needed` or as far as is allowed; answers with it.
fn raise_descriptors(needed: u64) -> Result<u64, Error> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|errno| Error::kernel("cannot read the limit on open files")(errno.into()))?;
    if soft >= needed {
        return Ok(soft);
    }
    let wanted = needed.max(hard);
    // Beyond the hard limit only root may go.
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(wanted);
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .map_err(|errno| Error::kernel("cannot raise the limit on open files")(errno.into()))?;
    Ok(hard)
}

/// The address that connection `index` of `total` comes from, one of `given` if there are any;
/// `None` leaves it to the kernel.
pub(crate) fn source(
    addr: SocketAddr,
    index: usize,
    total: usize,
    given: &[IpAddr],
) -> Option<IpAddr> {
    if !given.is_empty() {
        return given.get(index % given.len()).copied();
    }
    let IpAddr::V4(target) = addr.ip() else { return None };
    if !target.is_loopback() || total <= PER_SOURCE {
        return None;
    }
    let place = u32::try_from(index / PER_SOURCE).ok()?;
    Some(Ipv4Addr::from_bits(FIRST_SOURCE.to_bits() + place).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_connections_to_loopback_are_spread_unasked() {
        let local: SocketAddr = "127.0.0.1:4730".parse().unwrap();
        let from = |addr, index, total| source(addr, index, total, &[]);
        let host = |last| Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
        assert_eq!(from(local, 5199, 5200), None);
        assert_eq!(from(local, 0, 60_000), host(2));
        assert_eq!(from(local, 29_999, 60_000), host(4));
        assert_eq!(from("10.0.0.1:4730".parse().unwrap(), 0, 60_000), None);
    }

    #[test]
    fn given_sources_take_turns() {
        let target: SocketAddr = "10.0.0.1:4730".parse().unwrap();
        let given: Vec<IpAddr> = vec!["10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap()];
        assert_eq!(source(target, 0, 2, &given), Some(given[0]));
        assert_eq!(source(target, 3, 9, &given), Some(given[1]));
    }

    #[test]
    fn threads_get_tables_of_their_own_when_one_table_is_too_small() {
        let spread = |connections, threads| {
            let Spread { threads, own_tables } = spread(connections, threads, 20_000)?;
            Some((threads, own_tables))
        };
        assert_eq!(spread(19_000, 1), Some((1, false)));
        assert_eq!(spread(20_000, 1), Some((2, true)));
        assert_eq!(spread(50_000, 1), Some((3, true)));
        assert_eq!(spread(50_000, 4), Some((4, true)));
        assert_eq!(spread(100_000_000, 1), None);
    }
}
