//! Jobs that are withdrawn while their command runs: by an operator, by a time-out of the server's,
//! by a connection that breaks.

use std::fs;
use std::time::{Duration, Instant};

use crate::child::wait_until;
use crate::client::{Client, Ending};
use crate::manager::{Manager, worker};
use crate::processes::{noted, wait_for_ends};
use crate::server::Server;

const HANGS: &str = "sleep 1000 & echo $! >> $DIR/pids; echo $$ >> $DIR/pids; wait";

#[test]
fn a_cancelled_jobs_command_is_killed() {
    let server = Server::start();
    let script = format!("[ $(cat) = hang ] || exit 0; {HANGS}");
    let manager = Manager::start(&server, &worker("exec", &script, ""));
    let mut client = Client::connect(server.address);
    let handle = client.submit("f", b"hang");
    manager.wait_for_lines("pids", 2);
    let command = format!("cancel job {}", String::from_utf8(handle.clone()).unwrap());
    assert_eq!(server.admin(&command), "OK");
    assert_eq!(client.wait(&handle).ending, Some(Ending::Fail));
    wait_for_ends(&noted(&manager.path("pids")));
    assert_eq!(client.ending("f", b"next"), Ending::Complete(Vec::new()));
    manager.stop();
}

#[test]
fn a_cancelled_job_in_mode_lines_costs_its_process() {
    let server = Server::start();
    let script = format!("read -r line; {HANGS}");
    let manager = Manager::start(&server, &worker("lines", &script, "backoff = [\"1m\", \"1m\"]"));
    let mut client = Client::connect(server.address);
    let handle = client.submit("f", b"");
    manager.wait_for_lines("pids", 2);
    let command = format!("cancel job {}", String::from_utf8(handle.clone()).unwrap());
    assert_eq!(server.admin(&command), "OK");
    assert_eq!(client.wait(&handle).ending, Some(Ending::Fail));
    wait_for_ends(&noted(&manager.path("pids")));
    // The next process needs no back-off.
    client.submit("f", b"");
    manager.wait_for_lines("pids", 4);
}

/// The manager's own time-out is sooner; without one the server's policy may have one.
#[test]
fn a_job_that_the_server_takes_back_in_time_costs_its_command() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("functions.toml");
    let policy = "[[function]]\nmatch = \"f\"\nattempts = 1\nforeground = true\n\
                  timeout = \"300ms\"\n";
    fs::write(&file, policy).unwrap();
    let server = Server::start_with(0, &[&format!("--functions-file={}", file.to_str().unwrap())]);
    let manager = Manager::start(&server, &worker("exec", HANGS, ""));
    let mut client = Client::connect(server.address);
    let submitted = Instant::now();
    let handle = client.submit("f", b"");
    manager.wait_for_lines("pids", 2);
    assert_eq!(client.wait(&handle).ending, Some(Ending::Fail));
    assert!(submitted.elapsed() >= Duration::from_millis(300));
    wait_for_ends(&noted(&manager.path("pids")));
}

/// A half-done import is worse than a repeated one.
#[test]
fn a_command_whose_server_is_gone_runs_to_its_end_and_its_lost_result_is_told() {
    let server = Server::start();
    let script = "echo $$ >> $DIR/pids; while [ ! -e $DIR/go ]; do sleep 0.02; done
        echo finished >> $DIR/finished";
    let manager = Manager::start(&server, &worker("exec", script, ""));
    let mut client = Client::connect(server.address);
    client.submit("f", b"");
    manager.wait_for_lines("pids", 1);
    let port = server.kill();
    let server = Server::start_with(port, &[]);
    manager.touch("go");
    manager.wait_for_lines("finished", 1);
    wait_until("a warning", || {
        let log = manager.log();
        log.lines().any(|line| line.contains("WARN") && line.contains("handle=")).then_some(())
    });
    // The same instance works for the server that is there now.
    let mut client = Client::connect(server.address);
    assert_eq!(client.ending("f", b""), Ending::Complete(Vec::new()));
    manager.stop();
}
