//! Workers that people have, each in every way in which its jobs can go wrong, for each policy.
//!
//! Background jobs that clients have joined, so that both sides of an outcome are seen. Workers
//! note their runs in a file.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::{By, Clients, Column, Job, Rig, WAYS, Way, expected};
use crate::harness::{Contender, Server, tool, wait_until};
use crate::tools::{Tool, has, script};

/// On both event loops, on several cores.
fn outcomes_of(by: By) {
    for contender in [Contender::RinggearEpoll2, Contender::RinggearUring3] {
        if !contender.is_here() {
            continue;
        }
        let rig = Rig::start(contender);
        thread::scope(|scope| {
            let rig = &rig;
            for way in WAYS.iter().filter(|way| way.by == by) {
                scope.spawn(move || {
                    for column in Column::ALL {
                        check(rig, way, column);
                    }
                });
            }
        });
    }
}

#[test]
fn commands_of_gearman() {
    if tool("gearman").is_some() {
        outcomes_of(By::Gearman);
    }
}

#[test]
fn php() {
    if has("php", &["-r", "exit(extension_loaded('gearman') ? 0 : 1);"]) {
        outcomes_of(By::Php);
    }
}

#[test]
fn perl() {
    if has("perl", &["-MGearman::Worker", "-e", "1"]) {
        outcomes_of(By::Perl);
    }
}

#[test]
fn python() {
    if has("python3", &["-c", "import gear"]) {
        outcomes_of(By::Python);
    }
}

/// A worker's process.
struct Process<'s> {
    server: &'s Server,
    way: &'s Way,
    function: &'s str,
    runs: PathBuf,
}

impl Process<'_> {
    fn start(&self) -> Tool {
        let (port, address) = (self.server.port().to_string(), self.server.address().to_string());
        let runs = self.runs.to_str().expect("text");
        let outcomes = [self.function, self.way.name, runs];
        let with = |program: &str, file: &str, at: &[&str]| {
            Tool::start(program, &[&[&*script(file)], at, &outcomes].concat())
        };
        match self.way.by {
            By::Gearman => {
                let command = format!("echo run >> '{runs}'; {}", self.way.name);
                let worker = ["-h", "127.0.0.1", "-p", &port, "-w", "-f", self.function];
                Tool::start("gearman", &[&worker[..], &["--", "sh", "-c", &command]].concat())
            }
            By::Php => with("php", "outcomes.php", &["127.0.0.1", &port]),
            By::Perl => with("perl", "outcomes.pl", &[&address]),
            By::Python => with("python3", "outcomes.py", &["127.0.0.1", &port]),
            By::Packets => unreachable!("a matter of another test"),
        }
    }

    fn runs(&self) -> usize {
        fs::read_to_string(&self.runs).unwrap_or_default().lines().count()
    }
}

fn check(rig: &Rig, way: &Way, column: Column) {
    let server = &rig.server;
    let expected = expected(way.reason, column, Clients::Both);
    let mut job = Job::submit(server, column, way, Clients::Both);
    let folder = tempfile::tempdir().expect("a folder");
    let (function, runs) = (job.function.clone(), folder.path().join("runs"));
    let process = Process { server, way, function: &function, runs };
    let started = Instant::now();
    let mut worker = process.start();
    for run in 1..=usize::try_from(expected.runs).expect("few") {
        if run > 1 && way.ends {
            worker = process.start();
        }
        wait_until("a run", || (process.runs() >= run).then_some(()));
        if way.name == "killed" {
            worker.kill();
        }
    }
    let least: u64 = expected.delays_ms.iter().sum();
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(least), "{function}: all runs in {took:?}");
    // gearman's worker has no name.
    let name = if way.by == By::Gearman { "-" } else { "outcomes" };
    job.check_end(rig, way, &expected, name);
    assert_eq!(process.runs(), usize::try_from(expected.runs).expect("few"), "{function}");
}
