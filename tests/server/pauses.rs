//! A server that stands still for a while: what came in time meanwhile is in time.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringgear::wire::Command;

use crate::harness::{Contender, Server, wait_until};
use crate::wire::{echo, expect, receive, send};

/// Several, so that workers, clients and functions are of different cores.
const FUNCTIONS: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];
const TIMEOUT: Duration = Duration::from_millis(2000);

struct Pair {
    client: TcpStream,
    worker: TcpStream,
    handle: Vec<u8>,
}

fn start_job(server: &Server, function: &[u8]) -> Pair {
    let (mut client, mut worker) = (server.connect(), server.connect());
    let timeout = TIMEOUT.as_millis().to_string();
    send(&mut worker, Command::CanDoTimeout, &[function, timeout.as_bytes()], b"");
    send(&mut client, Command::SubmitJob, &[function, b""], b"payload");
    let handle = expect(&mut client, Command::JobCreated);
    send(&mut worker, Command::GrabJob, &[], b"");
    expect(&mut worker, Command::JobAssign);
    Pair { client, worker, handle }
}

fn is_stopped(server: &Server) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid()));
    stat.expect("a process").contains(") T ")
}

#[test]
fn a_result_that_came_while_the_server_was_stopped_is_taken() {
    // After SIGSTOP for longer than a job's time-out and SIGCONT, the drivers let the time-out end
    // before they read the result, which had come in time: it was refused, and the job run again.
    for contender in Contender::RINGGEAR.into_iter().filter(|contender| contender.is_here()) {
        eprintln!("{contender:?}");
        let server = Server::start_with(contender, &[]).expect("it is here");
        let mut pairs = FUNCTIONS.map(|function| start_job(&server, function));
        let started = Instant::now();
        server.signal("STOP");
        wait_until("the server to stop", || is_stopped(&server).then_some(()));
        for Pair { worker, handle, .. } in &mut pairs {
            send(worker, Command::WorkComplete, &[handle], b"done");
        }
        assert!(started.elapsed() < TIMEOUT, "this machine is too slow to tell");
        let over = || started.elapsed() > TIMEOUT + Duration::from_millis(200);
        wait_until("the time-out to be over", || over().then_some(()));
        server.signal("CONT");
        for Pair { client, worker, .. } in &mut pairs {
            expect(client, Command::WorkComplete);
            // An error would come before it.
            echo(worker, b"no error");
        }
        server.stop();
    }
}

#[test]
fn a_result_that_is_refused_since_another_worker_has_the_job_is_in_the_log() {
    // Only the core that the worker was connected to said so, and only about its own jobs.
    for contender in Contender::RINGGEAR.into_iter().filter(|contender| contender.is_here()) {
        eprintln!("{contender:?}");
        let server = Server::start_with(contender, &[]).expect("it is here");
        let [mut late, mut next] = [server.connect(), server.connect()];
        for function in FUNCTIONS {
            send(&mut late, Command::CanDoTimeout, &[function, b"1"], b"");
            send(&mut next, Command::CanDo, &[function], b"");
        }
        let mut clients = FUNCTIONS.map(|function| {
            let mut client = server.connect();
            send(&mut client, Command::SubmitJob, &[function, b""], b"");
            let handle = expect(&mut client, Command::JobCreated);
            send(&mut late, Command::GrabJob, &[], b"");
            expect(&mut late, Command::JobAssign);
            (client, handle)
        });
        for _ in &clients {
            wait_until("its time to be over", || {
                send(&mut next, Command::GrabJob, &[], b"");
                let (command, _) = receive(&mut next).expect("an answer");
                (command == Command::JobAssign).then_some(())
            });
        }
        let peer = late.local_addr().expect("a socket").to_string();
        for (client, handle) in &mut clients {
            send(&mut late, Command::WorkComplete, &[handle], b"");
            expect(&mut late, Command::Error);
            let text = String::from_utf8(handle.clone()).expect("text");
            server.wait_for_log("result refused", |line| {
                (line.contains(&text) && line.contains(&peer)).then_some(())
            });
            send(&mut next, Command::WorkComplete, &[handle], b"");
            expect(client, Command::WorkComplete);
        }
        server.stop();
    }
}
