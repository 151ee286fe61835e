//! A server watched from outside: what it says over the text protocol, and what the kernel says of
//! its process and of its port.
//!
//! The kernel's own count of sockets is the figure to trust: io_uring's connections are no
//! descriptors of the process, and a connection that the server forgot is not in its list either.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use procfs::net::{TcpNetEntry, TcpState};

use crate::process::process;
use crate::wire;

/// Sums over the lists that a server gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lists {
    /// Jobs of all functions, the running ones included.
    pub(super) jobs: u64,
    /// Jobs that run.
    pub(super) running: u64,
    /// Names of all functions that have jobs.
    pub(super) busy: Vec<String>,
    /// Connections, the asking one included.
    pub(super) connections: u64,
}

/// Asks for both lists; answers with the time that took, too.
pub(super) fn ask(stream: &TcpStream) -> Result<(Lists, Duration)> {
    let start = Instant::now();
    let lists = wire::ask(stream, b"status\nworkers\n", lists)?;
    Ok((lists, start.elapsed()))
}

/// Both lists, once they are whole: lines, and a full stop behind each list.
fn lists(answer: &[u8]) -> Option<Result<Lists>> {
    let text = String::from_utf8_lossy(answer.strip_suffix(b".\n")?).into_owned();
    let mut parts = text.split_inclusive('\n').collect::<Vec<_>>();
    let end = parts.iter().position(|line| *line == ".\n")?;
    let connections = parts.drain(end..).skip(1).count() as u64;
    let sums =
        parts.iter().try_fold(Lists { connections, ..Lists::default() }, |mut sums, line| {
            let (name, jobs, running) =
                status(line.trim_end()).with_context(|| format!("{line:?}"))?;
            sums.jobs += jobs;
            sums.running += running;
            sums.busy.extend((jobs > 0).then(|| name.to_owned()));
            Ok(sums)
        });
    Some(sums)
}

/// Name, jobs and running jobs of a line `function TAB total TAB running TAB workers`.
fn status(line: &str) -> Option<(&str, u64, u64)> {
    let mut fields = line.rsplitn(4, '\t').skip(1);
    let running = fields.next()?.parse().ok()?;
    let jobs = fields.next()?.parse().ok()?;
    Some((fields.next()?, jobs, running))
}

/// Open descriptors of a process.
pub(super) fn descriptors(pid: u32) -> Option<u64> {
    Some(process(pid)?.fd_count().ok()? as u64)
}

/// The server's ends of connections to a port of 127.0.0.1, by the kernel.
pub(super) fn sockets(port: u16) -> Option<u64> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut table = procfs::net::tcp().ok()?;
    table.retain(|entry| is_end(entry, address));
    // The kernel gives an entry a second time when other sockets come while the table is read.
    let peers = table.iter().map(|entry| entry.remote_address).collect::<HashSet<_>>();
    Some(peers.len() as u64)
}

/// Whether an entry is a server's end of a connection: neither a listener nor one that the kernel
/// keeps without a process. Those have no inode; a port that the kernel gave to an earlier server,
/// too, may still have some of that server's.
fn is_end(entry: &TcpNetEntry, address: SocketAddr) -> bool {
    let is_of_a_process = entry.inode != 0;
    entry.local_address == address && is_of_a_process && entry.state != TcpState::Listen
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn names_with_tabs_spoil_no_figures() {
        assert_eq!(status("a\tb\t12\t3\t7"), Some(("a\tb", 12, 3)));
        assert_eq!(status("OK"), None);
    }

    #[test]
    fn lists_are_read_when_both_are_whole() {
        let answer = b"f\t3\t1\t2\ng\t0\t0\t0\n.\n5 127.0.0.1 - : f\n6 127.0.0.1 - :\n.\n";
        for end in 0..answer.len() {
            assert!(lists(&answer[..end]).is_none(), "{end}");
        }
        let busy = vec!["f".to_owned()];
        let whole = Lists { jobs: 3, running: 1, busy, connections: 2 };
        assert_eq!(lists(answer).unwrap().unwrap(), whole);
        assert_eq!(lists(b".\n.\n").unwrap().unwrap(), Lists::default());
        assert!(lists(b"f\t3\n.\n.\n").unwrap().is_err());
    }

    #[test]
    fn only_the_servers_living_ends_count() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(sockets(address.port()), Some(0));
        let client = TcpStream::connect(address).unwrap();
        let server = listener.accept().unwrap();
        assert_eq!(sockets(address.port()), Some(1));
        drop(client);
        assert_eq!(sockets(address.port()), Some(1), "one that only the peer closed");
        drop(server);
    }

    /// A soak failed in a test run with "4 before, 1 after": the server had been given the port of
    /// an earlier server, of which the kernel still kept three closed ends whose peers were open.
    #[test]
    fn ends_that_the_kernel_keeps_without_a_process_do_not_count() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(sockets(address.port()), Some(1));
        drop(server);
        assert_eq!(sockets(address.port()), Some(0), "the kernel waits for the client's end");
    }

    /// An entry was counted twice while other tests opened sockets.
    #[test]
    fn a_table_that_changes_while_it_is_read_counts_no_end_twice() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let _server = listener.accept().unwrap();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let other = TcpListener::bind("127.0.0.1:0").unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    TcpStream::connect(other.local_addr().unwrap()).unwrap();
                    other.accept().unwrap();
                }
            });
            let counts = (0..8).map(|_| sockets(address.port())).collect::<HashSet<_>>();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(counts, HashSet::from([Some(1)]));
        });
    }
}
