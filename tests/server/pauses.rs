//! A server that stands still for a while: what came in time meanwhile is in time.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringgear::packet::Command;

use crate::harness::{Contender, Server, wait_until};
use crate::wire::{echo, expect, send};

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
