//! Peers with Nagle's algorithm on, on each event loop: what they write apart costs them the 40 ms
//! of a delayed acknowledgement a few times, and then no more.
//!
//! Time is what is promised here, so time is measured; on a busy machine some rounds take long for
//! other reasons, and another try counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::version::TLS13;

use crate::conn::{Conn, Item, named, packet_type};
use crate::harness::{Contender, Server, each_ringgear};
use crate::skips::skip;
use crate::tls::{Files, client};

each_ringgear!(packets_apart_stall_twice, packets_in_parts_stall_twice, records_apart_stall_twice);

#[test]
fn packets_apart_stall_twice_on_glommio() {
    if Contender::RinggearGlommio.is_here() {
        packets_apart_stall_twice(Contender::RinggearGlommio);
    }
}

#[test]
fn packets_in_parts_stall_twice_on_glommio() {
    if Contender::RinggearGlommio.is_here() {
        packets_in_parts_stall_twice(Contender::RinggearGlommio);
    }
}

const VERBOSE: [&str; 2] = ["--verbose", "DEBUG"];
/// No round that waits for a delayed acknowledgement takes less.
const STALL: Duration = Duration::from_millis(36);
const ROUNDS: usize = 60;
/// Without the server's help nearly all stall.
const STALLS_MAX: usize = 15;
const TRIES: usize = 4;

/// Begins a conversation and gives its rounds' lengths, until few of them are stalls.
fn expect_few_stalls(server: &Server, mut rounds: impl FnMut() -> Vec<Duration>) {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let lengths = rounds();
        if server.log().contains("nothing is acknowledged at once") {
            return skip("io_uring sets no options of sockets before Linux 6.7");
        }
        let stalls = lengths.iter().filter(|&&length| length >= STALL).count();
        if stalls <= STALLS_MAX {
            let begun = server.log().matches(" acknowledged at once: ").count();
            assert!(stalls < 2 || begun > 0, "{}", server.log());
            return;
        }
        seen.push(lengths);
    }
    panic!("too many stalls: {seen:?}");
}

/// A connection whose small writes wait for acknowledgements of those before.
fn with_nagle(conn: Conn) -> Conn {
    conn.stream.set_nodelay(false).expect("a TCP option");
    conn
}

fn expect(conn: &mut Conn, name: &str) -> Vec<u8> {
    match conn.next() {
        Ok(Item::Packet(number, body)) if Some(number) == packet_type(name) => body,
        other => panic!("{other:?} instead of {name}"),
    }
}

/// What Node's libraries do: the result and the next grab are two writes.
fn packets_apart_stall_twice(contender: Contender) {
    let Some(server) = Server::start_with(contender, &VERBOSE) else { return };
    expect_few_stalls(&server, || {
        let mut client = Conn::open(server.address());
        let mut worker = with_nagle(Conn::open(server.address()));
        worker.packet("CAN_DO", &[b"f"]);
        worker.packet("GRAB_JOB", &[]);
        expect(&mut worker, "NO_JOB");
        let round = |_| {
            let start = Instant::now();
            client.packet("SUBMIT_JOB", &[b"f", b"", b"payload"]);
            expect(&mut client, "JOB_CREATED");
            worker.packet("GRAB_JOB", &[]);
            let assigned = expect(&mut worker, "JOB_ASSIGN");
            let handle = assigned.split(|&byte| byte == 0).next().expect("a handle");
            worker.packet("WORK_COMPLETE", &[handle, b"result"]);
            worker.packet("GRAB_JOB", &[]);
            expect(&mut worker, "NO_JOB");
            expect(&mut client, "WORK_COMPLETE");
            start.elapsed()
        };
        (0..ROUNDS).map(round).collect()
    });
}

/// Rounds of a request that is written in two parts, and its answer.
fn rounds_in_parts(conn: Conn) -> Vec<Duration> {
    let mut conn = with_nagle(conn);
    let request = named("ECHO_REQ", &[b"payload"]);
    let (header, body) = request.split_at(12);
    let mut round = || {
        let start = Instant::now();
        conn.send(header);
        conn.send(body);
        expect(&mut conn, "ECHO_RES");
        start.elapsed()
    };
    (0..ROUNDS).map(|_| round()).collect()
}

fn packets_in_parts_stall_twice(contender: Contender) {
    let Some(server) = Server::start_with(contender, &VERBOSE) else { return };
    expect_few_stalls(&server, || rounds_in_parts(Conn::open(server.address())));
}

fn records_apart_stall_twice(contender: Contender) {
    let files = Files::new();
    let server = files.start_without_asking(contender, &VERBOSE);
    let config = client::config(&files.authority.certificate, None, &TLS13);
    expect_few_stalls(&server, || {
        let config = Arc::clone(&config);
        rounds_in_parts(Conn::open_tls(server.address(), config, "jobs.example.com"))
    });
}
