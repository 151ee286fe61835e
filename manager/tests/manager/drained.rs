//! The manager's end: SIGTERM lets running jobs finish, and nothing else.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::child::wait_until;
use crate::client::{Client, Ending};
use crate::manager::{Manager, worker};
use crate::processes::{noted, runs, wait_for_ends};
use crate::server::{Function, Server};
use crate::workers::gearman;

const WAITS: &str = "echo $$ >> $DIR/pids; while [ ! -e $DIR/go ]; do sleep 0.02; done; echo done";
const WAITS_IN_LINES: &str = "while read -r line; do echo $$ >> $DIR/pids
    while [ ! -e $DIR/go ]; do sleep 0.02; done; printf '%s\\n' '{\"result\":\"done\\n\"}'; done";

/// One job runs and one waits when SIGTERM comes.
fn finishes_what_runs(mode: &str, script: &str) {
    let server = Server::start();
    let mut manager = Manager::start(&server, &worker(mode, script, ""));
    let mut client = Client::connect(server.address);
    let running = client.submit("f", b"");
    manager.wait_for_lines("pids", 1);
    client.submit("f", b"");
    manager.signal(Signal::SIGTERM);
    manager.touch("go");
    let done = Ending::Complete(b"done\n".to_vec());
    assert_eq!(client.wait(&running).ending, Some(done));
    assert_eq!(manager.wait().code(), Some(0));
    wait_until("its connections to end", || {
        let left = Function { jobs: 1, running: 0, workers: 0 };
        (server.function("f") == left).then_some(())
    });
    assert_eq!(noted(&manager.path("pids")).len(), 1, "the other job never ran");
}

#[test]
fn a_running_command_finishes_and_no_other_job_is_taken() {
    finishes_what_runs("exec", WAITS);
}

#[test]
fn a_process_finishes_its_job_and_no_other_is_taken() {
    finishes_what_runs("lines", WAITS_IN_LINES);
}

#[test]
fn an_interrupt_drains_the_same_way() {
    let server = Server::start();
    let mut manager = Manager::start(&server, &worker("exec", WAITS, ""));
    let mut client = Client::connect(server.address);
    let running = client.submit("f", b"");
    manager.wait_for_lines("pids", 1);
    manager.signal(Signal::SIGINT);
    manager.touch("go");
    assert_eq!(client.wait(&running).ending, Some(Ending::Complete(b"done\n".to_vec())));
    assert_eq!(manager.wait().code(), Some(0));
}

#[test]
fn idle_ones_end_at_once_whatever_their_mode() {
    let server = Server::start();
    let sleeps = "echo $$ >> $DIR/pids; exec sleep 1000";
    let reads = "echo $$ >> $DIR/pids; while read -r line; do :; done";
    for worker in [
        worker("exec", "cat", "count = 3"),
        worker("lines", reads, "count = 3"),
        gearman(sleeps, "count = 3"),
    ] {
        let manager = Manager::start(&server, &worker);
        if worker.contains("\"exec\"") {
            wait_until("three workers", || (server.function("f").workers == 3).then_some(()));
        } else {
            manager.wait_for_lines("pids", 3);
        }
        let told = Instant::now();
        manager.stop();
        assert!(told.elapsed() < Duration::from_secs(4), "{worker}: {:?}", told.elapsed());
    }
}

#[test]
fn a_command_that_doesnt_finish_is_asked_to_end_after_stop_wait_and_its_job_fails() {
    let script = "echo $$ >> $DIR/pids; trap 'echo asked >> $DIR/asked; exit 0' TERM
        while :; do sleep 0.02; done";
    for mode in ["exec", "lines"] {
        let script =
            if mode == "lines" { format!("read -r line; {script}") } else { script.into() };
        let server = Server::start();
        let worker = worker(mode, &script, "stop-wait = \"400ms\"");
        let mut manager = Manager::start(&server, &worker);
        let mut client = Client::connect(server.address);
        let handle = client.submit("f", b"");
        manager.wait_for_lines("pids", 1);
        let told = Instant::now();
        manager.signal(Signal::SIGTERM);
        // Its exit code doesn't make a job complete that was stopped.
        assert_eq!(client.wait(&handle).ending, Some(Ending::Fail), "{mode}");
        let took = told.elapsed();
        assert!(took >= Duration::from_millis(400), "{mode}: {took:?}");
        assert_eq!(manager.wait().code(), Some(0));
        manager.wait_for_lines("asked", 1);
    }
}

#[test]
fn a_command_that_ignores_even_that_is_killed_with_its_group() {
    let script = "trap '' TERM; sleep 1000 & echo $! >> $DIR/pids; echo $$ >> $DIR/pids; wait";
    let server = Server::start();
    let mut manager = Manager::start(&server, &worker("exec", script, "stop-wait = \"100ms\""));
    let mut client = Client::connect(server.address);
    let handle = client.submit("f", b"");
    manager.wait_for_lines("pids", 2);
    manager.signal(Signal::SIGTERM);
    assert_eq!(client.wait(&handle).ending, Some(Ending::Fail));
    assert_eq!(manager.wait().code(), Some(0));
    wait_for_ends(&noted(&manager.path("pids")));
}

#[test]
fn a_second_signal_kills_at_once() {
    let server = Server::start();
    let script = "trap '' TERM; echo $$ >> $DIR/pids; sleep 1000";
    let mut manager = Manager::start(&server, &worker("exec", script, "stop-wait = \"10m\""));
    let mut client = Client::connect(server.address);
    let handle = client.submit("f", b"");
    manager.wait_for_lines("pids", 1);
    manager.signal(Signal::SIGTERM);
    // Two signals that are both there when it looks are one.
    manager.wait_for_log("a second signal kills");
    assert!(runs(noted(&manager.path("pids"))[0]), "it may finish");
    manager.signal(Signal::SIGTERM);
    assert_eq!(client.wait(&handle).ending, Some(Ending::Fail));
    manager.wait();
    wait_for_ends(&noted(&manager.path("pids")));
}

#[test]
fn a_worker_in_mode_gearman_gets_sigterm_at_once_and_stop_wait_to_finish() {
    let server = Server::start();
    let script = "trap 'echo asked >> $DIR/asked' TERM; echo $$ >> $DIR/pids
        while [ ! -e $DIR/go ]; do sleep 0.02; done; echo finished >> $DIR/finished";
    let mut manager = Manager::start(&server, &gearman(script, "stop-wait = \"1m\""));
    manager.wait_for_lines("pids", 1);
    manager.signal(Signal::SIGTERM);
    manager.wait_for_lines("asked", 1);
    manager.touch("go");
    assert_eq!(manager.wait().code(), Some(0));
    assert_eq!(manager.read("finished"), "finished\n");

    let manager = Manager::start(
        &server,
        &gearman(
            "trap '' TERM; echo $$ >> $DIR/pids
        while :; do sleep 0.02; done",
            "stop-wait = \"300ms\"",
        ),
    );
    manager.wait_for_lines("pids", 1);
    let told = Instant::now();
    let pids = noted(&manager.path("pids"));
    manager.stop();
    let took = told.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(15), "{took:?}");
    wait_for_ends(&pids);
}
