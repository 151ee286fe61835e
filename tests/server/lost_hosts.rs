//! Peers that don't read, and peers whose hosts are gone, on each event loop.
//!
//! A host that goes is a socket for which all that comes is dropped, so that its kernel
//! acknowledges nothing any more. It takes no privilege.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use io_uring::{IoUring, Probe, opcode};
use nix::sys::socket::setsockopt;
use ringgear::wire::Command;

use crate::harness::{Contender, Server, each_ringgear, wait_until};
use crate::skips::skip;
use crate::wire::{expect, send};

each_ringgear!(a_peer_that_does_not_read_stays, a_lost_host_is_found);

#[test]
fn a_peer_that_does_not_read_stays_on_glommio() {
    if Contender::RinggearGlommio.is_here() {
        a_peer_that_does_not_read_stays(Contender::RinggearGlommio);
    }
}

#[test]
fn a_lost_host_is_found_on_glommio() {
    if Contender::RinggearGlommio.is_here() {
        a_lost_host_is_found(Contender::RinggearGlommio);
    }
}

const TIMEOUT: Duration = Duration::from_secs(1);
const OPTIONS: [&str; 2] = ["--tcp-user-timeout", "1"];
/// More than the kernels of both sides keep.
const RESULT_BYTES: usize = 24 << 20;

/// Whether the driver can look at what a connection's peer has acknowledged.
fn looks(contender: Contender) -> bool {
    if contender.driver().0 != "uring" {
        return true;
    }
    let ring = IoUring::new(2).expect("it was there before");
    let mut operations = Probe::new();
    ring.submitter().register_probe(&mut operations).expect("a list of operations");
    let looks = operations.is_supported(opcode::FixedFdInstall::CODE);
    if !looks {
        skip("direct descriptors can't be asked before Linux 6.8");
    }
    looks
}

fn finish_job(worker: &mut TcpStream, handle: &[u8], result: &[u8]) {
    send(worker, Command::WorkComplete, &[handle], result);
    // Once the answer is there, so is the result at the client's connection.
    send(worker, Command::EchoReq, &[], b"");
    expect(worker, Command::EchoRes);
}

fn begin_job(server: &Server, client: &mut TcpStream) -> (TcpStream, Vec<u8>) {
    let mut worker = server.connect();
    send(&mut worker, Command::CanDo, &[b"f"], b"");
    send(client, Command::SubmitJob, &[b"f", b""], b"");
    let handle = expect(client, Command::JobCreated);
    send(&mut worker, Command::GrabJob, &[], b"");
    expect(&mut worker, Command::JobAssign);
    (worker, handle)
}

/// A client that paused for longer than TCP_USER_TIMEOUT lost what it hadn't read, as the kernel
/// counts its answers to probes of a closed window for nothing.
fn a_peer_that_does_not_read_stays(contender: Contender) {
    if !looks(contender) {
        return;
    }
    let Some(server) = Server::start_with(contender, &OPTIONS) else { return };
    let mut client = server.connect();
    let (mut worker, handle) = begin_job(&server, &mut client);
    let result = vec![b'r'; RESULT_BYTES];
    finish_job(&mut worker, &handle, &result);
    let start = Instant::now();
    wait_until("several time-outs", || (start.elapsed() > 4 * TIMEOUT).then_some(()));
    let body = expect(&mut client, Command::WorkComplete);
    assert!(body[handle.len() + 1..] == result[..], "all of the result");
    assert!(!server.log().contains("closed: the peer's host"), "{}", server.log());
}

/// The least time to live, ip(7), of packets that aren't dropped.
#[derive(Clone, Copy)]
struct TtlMin;

nix::setsockopt_impl!(
    TtlMin,
    libc::IPPROTO_IP,
    libc::IP_MINTTL,
    usize,
    nix::sys::socket::sockopt::SetUsize
);

/// Has this host's kernel drop whatever comes for a connection, before it acknowledges anything:
/// packets start with 64. (A filter would do, too, but some kernels take none from ordinary users.)
fn lose(peer: &TcpStream) {
    setsockopt(peer, TtlMin, &255).expect("an option");
}

/// Whether the server probes the closed window of a peer: proc_net_tcp(5), timer 4.
fn is_probing(server: &Server, peer: &TcpStream) -> bool {
    let port = peer.local_addr().expect("an address").port();
    let connection = (format!(":{:04X}", server.port()), format!(":{port:04X}"));
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("a table");
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = |at: usize, end: &str| fields.get(at).is_some_and(|it| it.ends_with(end));
        is_it(1, &connection.0)
            && is_it(2, &connection.1)
            && fields.get(5).is_some_and(|timer| timer.starts_with("04:"))
    })
}

/// One that has read all so far, and one that hadn't read for a while, so that its window is
/// closed.
fn a_lost_host_is_found(contender: Contender) {
    if !looks(contender) {
        return;
    }
    let Some(server) = Server::start_with(contender, &OPTIONS) else { return };
    let (mut quick, mut slow) = (server.connect(), server.connect());
    let (mut quick_worker, quick_handle) = begin_job(&server, &mut quick);
    let (mut slow_worker, slow_handle) = begin_job(&server, &mut slow);
    finish_job(&mut slow_worker, &slow_handle, &vec![b'r'; RESULT_BYTES]);
    wait_until("the window to be closed", || is_probing(&server, &slow).then_some(()));
    let mut silent = server.connect();
    lose(&quick);
    lose(&slow);
    lose(&silent);
    finish_job(&mut quick_worker, &quick_handle, b"nobody gets it");
    for (peer, least) in [(&quick, 14), (&slow, RESULT_BYTES / 4)] {
        let line = format!("peer={} unsent_bytes=", peer.local_addr().expect("an address"));
        let bytes = server.wait_for_log(&line, |rest| rest.trim_end().parse::<usize>().ok());
        // With io_uring a send of up to 1 MiB is under way, part of which the kernel has.
        let most = RESULT_BYTES + (1 << 20) + 100;
        assert!((least..=most).contains(&bytes), "{bytes} bytes: {}", server.log());
    }
    // The others stay, also the one that was sent nothing: keep-alive is for those. So do the two
    // workers and the one that asks.
    let list = server.admin("workers");
    assert_eq!(list.lines().count(), 5, "{list}");
    silent.set_nonblocking(true).expect("an option");
    assert!(silent.read(&mut [0]).is_err(), "it isn't closed");
}
