//! Jobs by HTTP: requests in, what a client gets, and what the queues have afterwards.
//!
//! `worker` is a worker whose functions end in each way that a job can end.

mod bounds;
mod dialect;
mod outcomes;
mod tools;
mod worker;

use std::net::SocketAddr;

use crate::harness::{Contender, Server, wait_until};
use crate::http::client::{Answer, ask, get};

/// What every request that changes something has.
const OURS: (&str, &str) = ("X-Ringgear", "1");

/// A server with HTTP that takes jobs.
fn start(contender: Contender, more: &[&str]) -> (Server, SocketAddr) {
    let (server, http) = crate::http::start(contender, more);
    wait_until_ready(http);
    (server, http)
}

fn wait_until_ready(http: SocketAddr) {
    wait_until("readiness", || (get(http, "/readyz").status == 200).then_some(()));
}

fn path(function: &str) -> String {
    format!("/api/v1/functions/{function}/jobs")
}

/// A submission.
fn submit(http: SocketAddr, function: &str, headers: &[(&str, &str)], payload: &[u8]) -> Answer {
    ask(http, "POST", &path(function), &[headers, &[OURS]].concat(), payload)
}

/// Jobs and running jobs of a function, as `status` tells them; `None` if it isn't known.
fn jobs(server: &Server, function: &str) -> Option<(u32, u32)> {
    let status = server.admin("status");
    let line = status.lines().find(|line| line.starts_with(&format!("{function}\t")))?;
    let mut numbers = line.split('\t').skip(1).map(|number| number.parse().expect("a number"));
    Some((numbers.next()?, numbers.next()?))
}

fn wait_for_jobs(server: &Server, function: &str, expected: u32) {
    wait_until("jobs in the queue", || {
        (jobs(server, function).map_or(0, |(total, _)| total) == expected).then_some(())
    });
}
