//! SIGTERM with `--drain`: a server that assigns nothing more, waits for the jobs that run, and
//! ends.

use std::io::ErrorKind;
use std::net::TcpStream;

use crate::conn::{Conn, Item};
use crate::durable::{Database, drain_texts};
use crate::harness::{Contender, Server, ringgear_tests, wait_until};
use crate::http::client::{ask, get};

/// One test per driver and number of cores.
macro_rules! each_driver {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use super::{Contender, ringgear_tests};

            ringgear_tests!($name);

            #[test]
            fn glommio() {
                if Contender::RinggearGlommio.is_here() {
                    super::$name(Contender::RinggearGlommio);
                }
            }
        }
    )* };
}

each_driver!(
    jobs_that_run_are_finished_and_no_other_is_begun,
    stored_jobs_are_accepted_and_left_to_the_next_server,
    a_second_signal_ends_it_at_once,
    it_ends_when_its_time_is_over,
    http_goes_on,
);

fn worker(server: &Server, functions: &[&[u8]]) -> Conn {
    let mut worker = Conn::open(server.address());
    functions.iter().for_each(|&function| worker.packet("CAN_DO", &[function]));
    worker.sync().expect("registered");
    worker
}

/// Submits; the type of the answer, and what it says.
fn submit(client: &mut Conn, command: &str, arguments: &[&[u8]]) -> (u32, Vec<u8>) {
    client.packet(command, arguments);
    match client.next() {
        Ok(Item::Packet(kind, body)) => (kind, body),
        other => panic!("{other:?}"),
    }
}

fn is_refused(answer: &(u32, Vec<u8>)) -> bool {
    answer.0 == 19 && answer.1.starts_with(b"SHUTDOWN\0")
}

/// A worker that runs a job of `f`, the job's client, and its handle.
fn busy(server: &Server) -> (Conn, Conn, Vec<u8>) {
    let (mut client, mut worker) = (Conn::open(server.address()), worker(server, &[b"f"]));
    let (kind, handle) = submit(&mut client, "SUBMIT_JOB", &[b"f", b"", b"runs"]);
    assert_eq!(kind, 8);
    worker.packet("GRAB_JOB", &[]);
    assert!(matches!(worker.next(), Ok(Item::Packet(11, _))));
    (worker, client, handle)
}

/// Sends SIGTERM and waits until all cores drain that have these functions. What the client submits
/// until then waits for ever.
fn terminate(server: &Server, client: &mut Conn, functions: &[&[u8]]) {
    // One that waits to be accepted ends with its listener.
    client.sync().expect("it is served");
    server.signal("TERM");
    for function in functions {
        wait_until("refusals", || {
            is_refused(&submit(client, "SUBMIT_JOB", &[function, b"", b"late"])).then_some(())
        });
    }
}

fn complete(worker: &mut Conn, client: &mut Conn, handle: &[u8]) {
    worker.packet("WORK_STATUS", &[handle, b"1", b"2"]);
    worker.packet("WORK_COMPLETE", &[handle, b"done"]);
    let status = [handle, b"\x001\x002"].concat();
    assert_eq!(client.next().ok(), Some(Item::Packet(12, status)));
    let result = [handle, b"\0done"].concat();
    assert_eq!(client.next().ok(), Some(Item::Packet(13, result)));
}

fn jobs_that_run_are_finished_and_no_other_is_begun(contender: Contender) {
    let Some(mut server) = Server::start_with(contender, &["--drain", "600"]) else { return };
    let (mut busy, mut client, handle) = busy(&server);
    let mut sleeper = worker(&server, &[b"g", b"h"]);
    sleeper.packet("PRE_SLEEP", &[]);
    sleeper.sync().expect("it sleeps");
    let mut idle = worker(&server, &[b"f", b"g"]);
    let mut probe = Conn::open(server.address());
    terminate(&server, &mut probe, &[b"f", b"g", b"h"]);
    idle.packet("GRAB_JOB", &[]);
    assert_eq!(idle.next().ok(), Some(Item::Packet(10, Vec::new())), "it gets no job");
    let refused = |command: &str, probe: &mut Conn| {
        let answer = submit(probe, command, &[b"h", b"", b"x"]);
        assert!(is_refused(&answer), "{answer:?}");
    };
    refused("SUBMIT_JOB_HIGH", &mut probe);
    refused("SUBMIT_JOB_BG", &mut probe);
    // It was woken at most for what came before the signal.
    idle.packet("GRAB_JOB", &[]);
    assert_eq!(idle.next().ok(), Some(Item::Packet(10, Vec::new())));
    probe.send(b"show running\n");
    let told = String::from_utf8_lossy(&handle).into_owned();
    match probe.next() {
        Ok(Item::Line(line)) => assert!(line.starts_with(told.as_bytes()), "{line:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(probe.next().ok(), Some(Item::Line(b".\n".to_vec())));
    wait_until("closed listeners", || match TcpStream::connect(server.address()) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Some(()),
        _ => None,
    });
    complete(&mut busy, &mut client, &handle);
    assert_eq!(server.wait().code(), Some(0));
    assert!(server.log().contains("no job runs"), "{}", server.log());
}

fn stored_jobs_are_accepted_and_left_to_the_next_server(contender: Contender) {
    let database = Database::new();
    let options = ["--drain", "600", "--durability", "a=async", "--durability", "m=none"];
    let mut server = database.serve(contender, &options);
    let (mut busy, mut client, handle) = busy(&server);
    let mut probe = Conn::open(server.address());
    let before = submit(&mut probe, "SUBMIT_JOB_BG", &[b"f", b"", b"waits"]);
    assert_eq!(before.0, 8);
    let mut sleepers: Vec<Conn> = (0..4).map(|_| worker(&server, &[b"g", b"a"])).collect();
    for sleeper in &mut sleepers {
        sleeper.packet("PRE_SLEEP", &[]);
        sleeper.asks_all_cores = contender.cores() > 1;
    }
    terminate(&server, &mut probe, &[b"m"]);
    let refused = submit(&mut probe, "SUBMIT_JOB_BG", &[b"m", b"", b"x"]);
    assert!(is_refused(&refused), "{refused:?}");
    // Every core drains once functions of each of them are refused.
    for function in 0..16 {
        let name = format!("refused-{function}");
        wait_until("refusals", || {
            is_refused(&submit(&mut probe, "SUBMIT_JOB", &[name.as_bytes(), b"", b""]))
                .then_some(())
        });
    }
    for (function, payload) in [("g", "one"), ("a", "two"), ("new", "three")] {
        let fields = [function.as_bytes(), b"", payload.as_bytes()];
        assert_eq!(submit(&mut probe, "SUBMIT_JOB_BG", &fields).0, 8, "{function}");
    }
    for sleeper in &mut sleepers {
        sleeper.sync().expect("it is served");
        assert_eq!(sleeper.unexpected(), None, "it isn't woken");
    }
    complete(&mut busy, &mut client, &handle);
    assert_eq!(server.wait().code(), Some(0));
    let next = database.serve(contender, &[]);
    let mut left = drain_texts(&next, &["f", "g", "a", "new"]);
    left.sort();
    assert_eq!(left, ["one", "three", "two", "waits"]);
}

fn a_second_signal_ends_it_at_once(contender: Contender) {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("USR1", "TERM")] {
        let started = Server::start_with(contender, &["--drain", "600"]);
        let Some(mut server) = started else { return };
        let (_busy, _client, _) = busy(&server);
        server.signal(first);
        server.wait_for_log("draining: ", |_| Some(()));
        server.signal(second);
        assert_eq!(server.wait().code(), Some(0), "{first}");
        assert!(server.log().contains("jobs are lost"), "{}", server.log());
    }
}

fn it_ends_when_its_time_is_over(contender: Contender) {
    let Some(mut server) = Server::start_with(contender, &["--drain", "1"]) else { return };
    let (_busy, mut client, _) = busy(&server);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(client.next().ok(), Some(Item::End));
    assert!(server.log().contains("jobs are lost"), "{}", server.log());
}

fn http_goes_on(contender: Contender) {
    let database = Database::new();
    let options = ["--drain", "600", "--http", "127.0.0.1:0"];
    let mut server = database.serve(contender, &options);
    let http = crate::http::address(&server);
    let (mut busy, mut client, handle) = busy(&server);
    let mut probe = Conn::open(server.address());
    terminate(&server, &mut probe, &[b"f", b"g"]);
    let ready = get(http, "/readyz");
    assert_eq!((ready.status, ready.text().as_str()), (503, "drain\n"));
    assert_eq!(get(http, "/healthz").text(), "ok\n");
    let post = |headers: &[(&str, &str)]| {
        let headers = [&[("X-Ringgear", "1")], headers].concat();
        ask(http, "POST", "/api/v1/functions/g/jobs", &headers, b"by HTTP")
    };
    let refused = post(&[]);
    assert_eq!((refused.status, refused.code().as_str()), (503, "DRAINING"));
    let accepted = post(&[("Prefer", "respond-async")]);
    assert_eq!(accepted.status, 202, "{accepted:?}");
    complete(&mut busy, &mut client, &handle);
    assert_eq!(server.wait().code(), Some(0));
    let next = database.serve(contender, &[]);
    assert_eq!(drain_texts(&next, &["g"]), ["by HTTP"]);
}
