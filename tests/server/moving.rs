//! Connections that move between the cores of a real server, on each event loop, under load.
//!
//! What peers see must be what one core shows; that they did move is read from the server's log.

use std::collections::HashSet;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use ringgear::wire::Command;

use crate::harness::{Contender, Server, each_ringgear, wait_until};
use crate::wire::{expect, receive, send};

const FUNCTIONS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const WORKERS_PER_FUNCTION: usize = 3;
const CLIENTS: usize = 12;
const JOBS_PER_CLIENT: usize = 200;
/// Every so often a payload that is received straight into its job, while its connection moves.
const LARGE_EVERY: usize = 25;
const LARGE_BYTES: usize = 300_000;

each_ringgear!(lists_name_each_connection_by_a_number_of_its_own);

#[test]
fn lists_name_each_connection_by_a_number_of_its_own_on_glommio() {
    if Contender::RinggearGlommio2.is_here() {
        lists_name_each_connection_by_a_number_of_its_own(Contender::RinggearGlommio2);
    }
}

#[test]
fn jobs_go_on_while_connections_move_on_epoll() {
    jobs_go_on(Contender::RinggearEpoll2);
}

#[test]
fn jobs_go_on_while_connections_move_on_uring() {
    if Contender::RinggearUring3.is_here() {
        jobs_go_on(Contender::RinggearUring3);
    }
}

#[test]
fn jobs_go_on_while_connections_move_on_glommio() {
    if Contender::RinggearGlommio2.is_here() {
        jobs_go_on(Contender::RinggearGlommio2);
    }
}

/// Runs jobs until it is woken for one that says so; answers each with its payload backwards.
fn work(mut stream: TcpStream, function: &str) {
    send(&mut stream, Command::CanDo, &[function.as_bytes()], b"");
    loop {
        send(&mut stream, Command::GrabJob, &[], b"");
        match receive(&mut stream).expect("an answer") {
            (Command::NoJob, _) => {
                send(&mut stream, Command::PreSleep, &[], b"");
                expect(&mut stream, Command::Noop);
            }
            // A worker that a NOOP found awake.
            (Command::Noop, _) => {
                receive(&mut stream).expect("the answer to the grab");
            }
            (Command::JobAssign, body) => {
                let mut parts = body.splitn(3, |&byte| byte == 0);
                let handle = parts.next().expect("a handle").to_vec();
                let mut payload = parts.nth(1).expect("a payload").to_vec();
                payload.reverse();
                send(&mut stream, Command::WorkComplete, &[&handle], &payload);
                if payload == b"dne" {
                    return;
                }
            }
            (command, _) => panic!("{command:?} for a grab"),
        }
    }
}

fn run_jobs(mut stream: TcpStream, client: usize) {
    for job in 0..JOBS_PER_CLIENT {
        // Long enough with one function to move to its core, and then to that of the next one.
        let function = FUNCTIONS[(client + job / (JOBS_PER_CLIENT / 3)) % FUNCTIONS.len()];
        let mut payload = format!("{client}-{job}-").into_bytes();
        if job % LARGE_EVERY == client {
            payload.resize(LARGE_BYTES, b'x');
        }
        send(&mut stream, Command::SubmitJob, &[function.as_bytes(), b""], &payload);
        let handle = expect(&mut stream, Command::JobCreated);
        let body = expect(&mut stream, Command::WorkComplete);
        payload.reverse();
        let expected = [&handle[..], b"\0", &payload].concat();
        assert!(body == expected, "job {job} of client {client} has another's result");
    }
}

fn jobs_go_on(contender: Contender) {
    let Some(server) = Server::start_with(contender, &["--verbose", "DEBUG"]) else { return };
    std::thread::scope(|scope| {
        for function in FUNCTIONS {
            for _ in 0..WORKERS_PER_FUNCTION {
                let stream = server.connect();
                scope.spawn(move || work(stream, function));
            }
        }
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let stream = server.connect();
                scope.spawn(move || run_jobs(stream, client))
            })
            .collect();
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        // Workers end whatever became of the clients, so that the test does.
        let mut stream = server.connect();
        for function in FUNCTIONS {
            for _ in 0..WORKERS_PER_FUNCTION {
                send(&mut stream, Command::SubmitJob, &[function.as_bytes(), b""], b"end");
                expect(&mut stream, Command::JobCreated);
                expect(&mut stream, Command::WorkComplete);
            }
        }
        assert!(ended.iter().all(Result::is_ok), "a client failed");
    });
    let moved = server.log().matches(" moved in ").count();
    assert!(moved > CLIENTS, "only {moved} connections moved");
    wait_until("everybody to be gone", || {
        (server.admin("workers").lines().count() == 2).then_some(())
    });
}

/// Each io_uring numbered its connections for itself, and a monitor that keys by the number showed
/// 11 of 30 workers. Here workers move to their functions while others come and go.
fn lists_name_each_connection_by_a_number_of_its_own(contender: Contender) {
    const POLLS: usize = 60;
    let Some(server) = Server::start_with(contender, &[]) else { return };
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let mut passer_by = server.connect();
                send(&mut passer_by, Command::EchoReq, &[], b"");
                expect(&mut passer_by, Command::EchoRes);
            }
        });
        let mut workers = Vec::new();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for poll in 0..POLLS {
                if let Some(function) = FUNCTIONS.get(poll % (2 * FUNCTIONS.len())) {
                    let mut worker = server.connect();
                    let id = format!("worker-{}", workers.len());
                    send(&mut worker, Command::SetClientId, &[id.as_bytes()], b"");
                    send(&mut worker, Command::CanDo, &[function.as_bytes()], b"");
                    send(&mut worker, Command::GrabJob, &[], b"");
                    expect(&mut worker, Command::NoJob);
                    send(&mut worker, Command::PreSleep, &[], b"");
                    workers.push((worker, format!(" 127.0.0.1 {id} : {function}")));
                }
                let list = server.admin("workers");
                let rows: Vec<&str> = list.lines().filter(|line| *line != ".").collect();
                let number = |row: &&str| row.split(' ').next().and_then(|it| it.parse().ok());
                let numbers: HashSet<i32> = rows.iter().filter_map(number).collect();
                assert_eq!(numbers.len(), rows.len(), "{list}");
                for (_, row) in &workers {
                    let named = rows.iter().filter(|other| other.ends_with(row)).count();
                    assert_eq!(named, 1, "{row} in {list}");
                }
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        ended.expect("every list names each once");
    });
}
