//! Many jobs through each mode with four instances: each is done once, and none is lost.

use std::time::Instant;

use crate::client::{Client, Ending};
use crate::manager::{Manager, worker};
use crate::server::Server;
use crate::workers::{gearman, php};

/// Submissions that are on their way at once.
const WINDOW: usize = 200;

fn jobs() -> usize {
    std::env::var("MANAGER_JOBS").map_or(2000, |jobs| jobs.parse().expect("a number"))
}

/// Submits jobs whose payloads are numbers, and looks at each result.
fn all_are_done(worker: &str, function: &str, expected: impl Fn(&str) -> String) {
    let server = Server::start();
    let manager = Manager::start(&server, worker);
    let mut client = Client::connect(server.address);
    let start = Instant::now();
    let mut sent = 0;
    while sent < jobs() {
        let window = WINDOW.min(jobs() - sent);
        let payloads: Vec<String> = (sent..sent + window).map(|n| n.to_string()).collect();
        let handles: Vec<_> =
            payloads.iter().map(|payload| client.submit(function, payload.as_bytes())).collect();
        for (payload, handle) in payloads.iter().zip(handles) {
            let result = Ending::Complete(expected(payload).into_bytes());
            assert_eq!(client.wait(&handle).ending, Some(result), "job {payload}");
        }
        sent += window;
    }
    let per_second = jobs() as f64 / start.elapsed().as_secs_f64();
    println!("{per_second:.0} jobs/s");
    assert_eq!(server.function(function).jobs, 0);
    manager.stop();
}

#[test]
fn a_command_a_job() {
    // The shell reads a line and writes one; it starts no further process.
    let script = "read -r n; echo $n >> $DIR/runs; echo $n";
    let worker = worker("exec", script, "count = 4");
    all_are_done(&worker, "f", |payload| format!("{payload}\n"));
}

#[test]
fn a_process_that_reads_lines() {
    let script = "while read -r line; do n=${line#*\\\"payload\\\":\\\"}; n=${n%%\\\"*}
        echo \"{\\\"result\\\":\\\"$n\\\"}\"; done";
    // It is replaced again and again meanwhile.
    let worker = worker("lines", script, "count = 4\nmax-jobs = 100");
    all_are_done(&worker, "f", str::to_owned);
}

#[test]
fn a_gearman_worker_in_php() {
    let Some(script) = php() else { return };
    all_are_done(&gearman(&script, "count = 4"), "reverse", |payload| {
        payload.chars().rev().collect()
    });
}
