//! `kill -9` of the manager: nothing that it started is left, in any mode.

use nix::sys::signal::Signal;

use crate::child::wait_until;
use crate::client::Client;
use crate::manager::{Manager, worker};
use crate::processes::{noted, runs, wait_for_ends};
use crate::server::Server;
use crate::workers::gearman;

/// A command with a child and a grandchild, none of which hears of SIGTERM or of a parent's end.
const FAMILY: &str = "trap '' TERM HUP INT; sh -c 'sh -c \"echo \\$\\$ >> $DIR/pids; sleep 1000\" &
    echo $$ >> $DIR/pids; sleep 1000' & echo $$ >> $DIR/pids; sleep 1000";

fn leaves_nothing(worker: &str) {
    let server = Server::start();
    let mut manager = Manager::start(&server, worker);
    let mut client = Client::connect(server.address);
    let packet = "SUBMIT_JOB_BG";
    client.submit_with(packet, "f", "", b"");
    client.submit_with(packet, "f", "", b"");
    manager.wait_for_lines("pids", 6);
    let pids = noted(&manager.path("pids"));
    assert!(pids.iter().all(|&pid| runs(pid)));
    manager.signal(Signal::SIGKILL);
    manager.wait();
    wait_for_ends(&pids);
    // Its jobs are other workers'.
    wait_until("its workers to go", || (server.function("f").workers == 0).then_some(()));
}

#[test]
fn commands_end_with_their_children_and_grandchildren() {
    leaves_nothing(&worker("exec", FAMILY, "count = 2"));
}

#[test]
fn processes_that_read_lines_end_the_same_way() {
    leaves_nothing(&worker("lines", &format!("read -r line\n{FAMILY}"), "count = 2"));
}

#[test]
fn workers_in_mode_gearman_end_the_same_way() {
    leaves_nothing(&gearman(FAMILY, "count = 2"));
}

#[test]
fn idle_processes_end_too() {
    let server = Server::start();
    let script = "echo $$ >> $DIR/pids; while read -r line; do :; done; sleep 1000";
    let mut manager = Manager::start(&server, &worker("lines", script, "count = 4"));
    manager.wait_for_lines("pids", 4);
    manager.signal(Signal::SIGKILL);
    manager.wait();
}

/// A manager that is killed while it starts processes all the time leaves none of them either.
#[test]
fn those_that_start_at_that_moment_end_too() {
    let server = Server::start();
    let mut client = Client::connect(server.address);
    for round in 0..5 {
        let mut manager = Manager::start(&server, &worker("exec", "exec true", "count = 4"));
        for _ in 0..200 {
            client.send("SUBMIT_JOB_BG", "f", "", b"");
        }
        let left = 200 * (round + 1) - 100;
        wait_until("some to be done", || (server.function("f").jobs < left).then_some(()));
        manager.signal(Signal::SIGKILL);
        manager.wait();
    }
}
