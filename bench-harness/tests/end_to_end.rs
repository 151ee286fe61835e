//! The binary as it is run: a tiny measurement from start to report, and the relay on real sockets.
//!
//! Needs `ringgeard` and `loadgen` beside it, which `cargo test --workspace` builds. Where they are
//! missing, the test says so and does nothing; under `CI=true` that fails.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing has failed")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use ringgear::wire::{Command as C, HEADER_BYTES, Magic, encode, header};

/// What this machine lacks.
#[path = "../../tests/server/skips.rs"]
#[allow(dead_code)]
mod skips;
use skips::skip;

const PATIENCE: Duration = Duration::from_secs(20);

fn harness() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bench-harness"))
}

fn has_binaries() -> bool {
    let beside = Path::new(env!("CARGO_BIN_EXE_bench-harness"));
    let missing: Vec<&str> = ["ringgeard", "loadgen"]
        .into_iter()
        .filter(|name| !beside.with_file_name(name).is_file())
        .collect();
    if !missing.is_empty() {
        skip(&format!("{missing:?} not built; `cargo build --workspace` does"));
    }
    missing.is_empty()
}

/// Runs with one time after the other until one was long enough. What a busy machine does in any
/// of them can't be told: both a run and a soak failed there, for lack of jobs and of samples.
fn long_enough<T>(
    times: [&str; 4],
    run: impl FnMut(&str) -> T,
    is_too_short: impl Fn(&T) -> bool,
) -> T {
    let mut runs = times.into_iter().map(run);
    let found = runs.find(|it| !is_too_short(it));
    found.unwrap_or_else(|| panic!("even in the longest of {times:?} too little was done"))
}

fn tiny(seconds: &str) -> (tempfile::TempDir, Output) {
    let folder = tempfile::tempdir().unwrap();
    let mut run = harness();
    run.args(["run", "--quick", "--duration", seconds, "--name", "tiny", "--out"])
        .arg(folder.path());
    for scenario in ["steady", "crowd50k", "deep", "durable"] {
        run.args(["--scenario", scenario]);
    }
    for contender in ["ringgear-epoll", "floor-epoll", "gearmand"] {
        run.args(["--contender", contender]);
    }
    // Absent in any case, so that the test is the same everywhere.
    run.args(["--gearmand", "/nonexistent/gearmand"]);
    run.args(["--scratch", env!("CARGO_TARGET_TMPDIR")]);
    let output = run.output().unwrap();
    (folder, output)
}

#[test]
fn a_tiny_run_ends_with_a_folder_that_can_be_reported_again() {
    if !has_binaries() {
        return;
    }
    let has_no_job = |(_, output): &(_, Output)| {
        String::from_utf8_lossy(&output.stderr).contains("(no job was done)")
    };
    let (folder, output) = long_enough(["0.2", "1", "5", "20"], tiny, has_no_job);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let table = String::from_utf8(output.stdout).unwrap();
    for text in [
        "## steady",
        "| ringgear-epoll |",
        "| floor-epoll |",
        "| gearmand | absent |",
        "gearmand: /nonexistent/gearmand is missing; Debian's package gearman-job-server has it",
        "| ringgear-epoll | 500 |",
        "| ringgear-epoll | drain 10 k |",
        "| ringgear-epoll | closed |",
        "| ringgear-epoll | foreground beside |",
        "| ringgear-epoll | recovery |",
        "floor-epoll: it keeps no jobs.",
    ] {
        assert!(table.contains(text), "no {text:?} in\n{table}\n{errors}");
    }
    for file in ["README.md", "samples.csv", "run.json", "throughput.svg", "depth.svg"] {
        assert!(fs::metadata(folder.path().join(file)).unwrap().len() > 0, "{file}");
    }
    let again = harness().args(["report", "--in"]).arg(folder.path()).output().unwrap();
    assert!(again.status.success());
    assert_eq!(String::from_utf8(again.stdout).unwrap(), table);
}

fn soak(growth_max: &str) -> (bool, String) {
    let run = |minutes: &str| soak_for(minutes, growth_max);
    let has_no_trend = |(_, verdict): &(bool, String)| verdict.contains("too few samples");
    long_enough(["0.05", "0.1", "0.4", "2"], run, has_no_trend)
}

fn soak_for(minutes: &str, growth_max: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut soak = harness();
    soak.args(["soak", "--minutes", minutes, "--every", "0.3", "--rate", "200", "--io", "epoll"]);
    soak.args(["--growth-max", growth_max, "--threads", "2", "--worker-crash", "0.05", "--out"]);
    let output = soak.arg(folder.path()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    for file in ["README.md", "soak.csv", "loads.csv", "soak.svg"] {
        let path = folder.path().join(file);
        assert!(fs::metadata(path).is_ok_and(|it| it.len() > 0), "no {file}: {errors}");
    }
    let verdict = String::from_utf8(output.stdout).unwrap();
    let readme = fs::read_to_string(folder.path().join("README.md")).unwrap();
    assert!(readme.contains(verdict.trim_end()), "{readme}");
    (output.status.success(), verdict)
}

#[test]
fn a_short_soak_ends_as_it_began() {
    if !has_binaries() {
        return;
    }
    // Nothing is flat within three seconds.
    let (is_success, verdict) = soak("1000");
    assert!(is_success && !verdict.contains("FAILED"), "{verdict}");
    assert!(verdict.contains("* ok faults: 0."), "{verdict}");
}

#[test]
fn a_soak_whose_memory_grows_too_much_fails() {
    if !has_binaries() {
        return;
    }
    let (is_success, verdict) = soak("-1000");
    assert!(!is_success, "{verdict}");
    assert_eq!(verdict.matches("FAILED").count(), 1, "{verdict}");
    assert!(verdict.contains("* **FAILED** memory: "), "{verdict}");
}

#[test]
fn bad_options_are_one_sentence() {
    let output = harness().args(["run", "--scenario", "nope"]).output().unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("bench-harness: no scenario \"nope\"; there are"), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

/// A relay, and its port; it ends when this is dropped.
struct Relay(Child, u16);

impl Relay {
    fn start(io: &str) -> Self {
        let mut child = harness()
            .args(["relay", "--io", io])
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Self(child, port.unwrap_or_else(|| panic!("{line}")))
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.1)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn say(stream: &mut TcpStream, command: C, arguments: &[&[u8]], payload: &[u8]) {
    let mut bytes = Vec::new();
    encode(&mut bytes, Magic::Request, command, arguments, payload);
    stream.write_all(&bytes).unwrap();
}

fn hear(stream: &mut TcpStream) -> (C, Vec<u8>) {
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).unwrap();
    let header = header(&head).unwrap();
    let mut body = vec![0; header.body_bytes as usize];
    stream.read_exact(&mut body).unwrap();
    (header.command, body)
}

fn round_trips(io: &str) {
    let relay = Relay::start(io);
    let (mut client, mut worker) = (relay.connect(), relay.connect());
    say(&mut worker, C::CanDo, &[b"f"], &[]);
    say(&mut worker, C::PreSleep, &[], &[]);
    // Answered, so the worker sleeps by now.
    say(&mut worker, C::EchoReq, &[], b"there?");
    assert_eq!(hear(&mut worker), (C::EchoRes, b"there?".to_vec()));
    for size in [0, 64, 100_000] {
        let payload = vec![b'x'; size];
        say(&mut client, C::SubmitJob, &[b"f", b""], &payload);
        let (created, handle) = hear(&mut client);
        assert_eq!(created, C::JobCreated);
        assert_eq!(hear(&mut worker).0, C::Noop);
        say(&mut worker, C::GrabJob, &[], &[]);
        let assigned = [&handle[..], b"\0f\0", &payload].concat();
        assert_eq!(hear(&mut worker), (C::JobAssign, assigned));
        say(&mut worker, C::WorkComplete, &[&handle], &payload);
        let completed = [&handle[..], b"\0", &payload].concat();
        assert_eq!(hear(&mut client), (C::WorkComplete, completed));
        say(&mut worker, C::GrabJob, &[], &[]);
        assert_eq!(hear(&mut worker).0, C::NoJob);
        say(&mut worker, C::PreSleep, &[], &[]);
        say(&mut worker, C::EchoReq, &[], b"");
        assert_eq!(hear(&mut worker).0, C::EchoRes);
    }
    // A peer that leaves is no reason to stop.
    drop(client);
    say(&mut relay.connect(), C::EchoReq, &[], b"");
}

#[test]
fn the_relay_passes_jobs_on_through_epoll() {
    round_trips("epoll");
}

#[test]
fn the_relay_passes_jobs_on_through_uring() {
    if let Err(error) = io_uring::IoUring::new(2) {
        skip(&format!("the kernel refuses io_uring: {error}"));
        return;
    }
    round_trips("uring");
}
