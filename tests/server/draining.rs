//! SIGUSR1: a server that takes no more jobs, is served and watched until none is left, and ends.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::conn::{Conn, Item};
use crate::durable::{Database, drain_texts};
use crate::harness::{Contender, Server, each_ringgear};
use crate::process::wait_until_it_drains;

each_ringgear!(
    workers_and_operators_are_served_until_no_job_is_left,
    stored_jobs_are_left_to_the_next_server,
    it_ends_under_load_and_answers_what_it_accepted,
);

fn worker(server: &Server, functions: &[&[u8]]) -> Conn {
    let mut worker = Conn::open(server.address());
    functions.iter().for_each(|&function| worker.packet("CAN_DO", &[function]));
    worker.sync().expect("registered");
    worker
}

/// Grabs and completes a job; `None` if there is none, or no server any more.
fn do_one(worker: &mut Conn) -> Option<()> {
    worker.packet("GRAB_JOB", &[]);
    let Ok(Item::Packet(11, body)) = worker.next() else { return None };
    let handle = body.split(|&byte| byte == 0).next().expect("a handle");
    worker.packet("WORK_COMPLETE", &[handle, b"done"]);
    Some(())
}

/// New workers and `gearadmin` were turned away, so jobs without a worker kept a draining server
/// for ever, and its log was silent.
fn workers_and_operators_are_served_until_no_job_is_left(contender: Contender) {
    let Some(mut server) = Server::start(contender) else { return };
    let mut client = Conn::open(server.address());
    for function in [&b"a"[..], b"b", b"c"] {
        client.packet("SUBMIT_JOB_BG", &[function, b"", b"x"]);
        assert!(matches!(client.next(), Ok(Item::Packet(8, _))));
    }
    server.signal("USR1");
    wait_until_it_drains(&server);
    let status = server.admin("status");
    assert!(["a", "b", "c"].iter().all(|it| status.contains(&format!("{it}\t1\t0\t0\n"))));
    let told = |log: &str| log.contains("jobs=3 running=0").then_some(());
    server.wait_for_log("what is left", told);
    let mut worker = worker(&server, &[b"a", b"b", b"c"]);
    (0..3).for_each(|_| do_one(&mut worker).expect("a job"));
    assert_eq!(server.wait().code(), Some(0));
    assert!(server.log().contains("no job is left"), "{}", server.log());
}

fn stored_jobs_are_left_to_the_next_server(contender: Contender) {
    let database = Database::new();
    let mut server = database.serve(contender, &[]);
    let mut client = Conn::open(server.address());
    let mut handles = Vec::new();
    let jobs = [("f", "runs"), ("f", "waits"), ("g", "waits, too"), ("h", "waits, as well")];
    for (function, payload) in jobs {
        client.packet("SUBMIT_JOB_BG", &[function.as_bytes(), b"", payload.as_bytes()]);
        let Ok(Item::Packet(8, handle)) = client.next() else { panic!("no JOB_CREATED") };
        handles.push(handle);
    }
    let mut busy = worker(&server, &[b"f"]);
    busy.packet("GRAB_JOB", &[]);
    assert!(matches!(busy.next(), Ok(Item::Packet(11, _))));
    let mut waiting = Conn::open(server.address());
    waiting.packet("SUBMIT_JOB", &[b"f", b"", b"only in memory"]);
    let Ok(Item::Packet(8, handle)) = waiting.next() else { panic!("no JOB_CREATED") };
    server.signal("USR1");
    wait_until_it_drains(&server);
    let mut other = worker(&server, &[b"f"]);
    do_one(&mut other).expect("the one that only memory has");
    let result = [&handle[..], b"\0done"].concat();
    assert_eq!(waiting.next().ok(), Some(Item::Packet(13, result)));
    assert_eq!(do_one(&mut other), None, "the others are the next server's");
    busy.packet("WORK_COMPLETE", &[&handles[0], b"done"]);
    assert_eq!(server.wait().code(), Some(0));
    // On whichever core: the line counted the first core's only.
    let log = server.log();
    assert!(log.contains("no job is left left_to_the_next_server=3"), "{log}");
    let next = database.serve(contender, &[]);
    let mut left = drain_texts(&next, &["f", "g", "h"]);
    left.sort();
    assert_eq!(left, ["waits", "waits, as well", "waits, too"]);
}

/// With several threads a core ended when it saw no job anywhere; another one got the next job and
/// waited for the dead core's messages, for ever.
fn it_ends_under_load_and_answers_what_it_accepted(contender: Contender) {
    const FUNCTIONS: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];
    let Some(mut server) = Server::start(contender) else { return };
    let done = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut worker = worker(&server, &FUNCTIONS);
                loop {
                    worker.packet("GRAB_JOB", &[]);
                    match worker.next() {
                        Ok(Item::Packet(11, body)) => {
                            let handle = body.split(|&byte| byte == 0).next().expect("a handle");
                            worker.packet("WORK_COMPLETE", &[handle, b""]);
                        }
                        Ok(Item::Packet(10, _)) => {}
                        // The server has ended.
                        _ => break,
                    }
                }
            });
        }
        for at in 0..4 {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                let mut client = Conn::open(server.address());
                for turn in 0.. {
                    client.packet("SUBMIT_JOB", &[FUNCTIONS[(at + turn) % 6], b"", b"x"]);
                    match client.next() {
                        Ok(Item::Packet(8, handle)) => {
                            let result = [&handle[..], b"\0"].concat();
                            assert_eq!(client.next().ok(), Some(Item::Packet(13, result)));
                            done.fetch_add(1, Ordering::Relaxed);
                        }
                        // Refused, or the server has ended.
                        _ => break,
                    }
                }
            });
        }
        crate::harness::wait_until("some work", || {
            (done.load(Ordering::Relaxed) > 200).then_some(())
        });
        server.signal("USR1");
    });
    assert_eq!(server.wait().code(), Some(0));
}
