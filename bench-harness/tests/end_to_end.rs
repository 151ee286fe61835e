//! The binary as it is run: a tiny measurement from start to report, of the server and of both
//! relays, and a short soak.
//!
//! Needs `ringgeard` beside it, which `cargo test --workspace` builds. Where it is missing,
//! the test says so and does nothing; under `CI=true` that fails.
#![allow(clippy::unwrap_used, reason = "a test that finds nothing has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// What this machine lacks.
#[path = "../../tests/server/skips.rs"]
#[allow(dead_code)]
mod skips;
use ringgear::io::{self, CoreCount, Driver};
use skips::skip;

fn harness() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bench-harness"))
}

fn has_server() -> bool {
    let server = Path::new(env!("CARGO_BIN_EXE_bench-harness")).with_file_name("ringgeard");
    if !server.is_file() {
        skip("ringgeard isn't built; `cargo build --workspace` does");
    }
    server.is_file()
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

/// A brief measurement, and its folder; a longer one if no job was done.
fn measure(scenarios: &[&str], contenders: &[&str]) -> (tempfile::TempDir, Output) {
    let run = |seconds: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut run = harness();
        run.args(["run", "--quick", "--duration", seconds, "--name", "tiny", "--out"]);
        run.arg(folder.path());
        for (option, names) in [("--scenario", scenarios), ("--contender", contenders)] {
            run.args(names.iter().flat_map(|name| [option, name]));
        }
        // Absent in any case, so that the test is the same everywhere.
        run.args(["--gearmand", "/nonexistent/gearmand"]);
        run.args(["--scratch", env!("CARGO_TARGET_TMPDIR")]);
        (folder, run.output().unwrap())
    };
    let has_no_job = |(_, output): &(_, Output)| {
        String::from_utf8_lossy(&output.stderr).contains("(no job was done)")
    };
    long_enough(["0.2", "1", "5", "20"], run, has_no_job)
}

#[test]
fn both_relays_pass_jobs_and_their_results_on() {
    let (_folder, output) =
        measure(&["steady", "body-100k"], &["floor-uring", "floor-epoll", "gearmand"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    if let Err(error) = io::choose(Driver::Uring, CoreCount::exactly(1), 64, true) {
        skip(&error.to_string());
    } else {
        assert_eq!(errors.matches("absent").count(), 2, "gearmand, twice: {errors}");
    }
}

#[test]
fn a_tiny_run_ends_with_a_folder_that_can_be_reported_again() {
    if !has_server() {
        return;
    }
    let (folder, output) = measure(
        &["steady", "crowd50k", "deep", "durable"],
        &["ringgear-epoll", "floor-epoll", "gearmand"],
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains(" measurements, about ") && errors.contains(", 0 s left"), "{errors}");
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

#[test]
fn tls_is_measured_beside_no_tls() {
    if !has_server() {
        return;
    }
    let (_folder, output) = measure(&["tls"], &["ringgear-epoll", "gearmand"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let table = String::from_utf8(output.stdout).unwrap();
    for load in
        ["steady, plain", "steady, TLS", "64 MiB, TLS", "sleepers, TLS", "connect, TLS resumed"]
    {
        let row = format!("| ringgear-epoll | {load} |");
        assert!(table.contains(&row), "no {row:?} in\n{table}\n{errors}");
    }
    assert!(table.contains("| gearmand | absent |"), "{table}");
}

#[test]
fn delayed_acknowledgements_are_measured_beside_none() {
    if !has_server() {
        return;
    }
    let (_folder, output) = measure(&["nagle"], &["ringgear-epoll", "gearmand"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let table = String::from_utf8(output.stdout).unwrap();
    for load in [
        "result and GRAB_JOB apart",
        "result and GRAB_JOB apart, first 30 jobs",
        "header and body apart",
        "header and body apart, TCP_NODELAY",
        "10 pairs, result and GRAB_JOB apart, TCP_NODELAY",
    ] {
        let row = format!("| ringgear-epoll | {load} | ");
        assert!(table.contains(&row), "no {row:?} in\n{table}\n{errors}");
    }
    assert!(table.contains("| gearmand | absent |"), "{table}");
}

#[test]
fn commands_as_workers_are_measured_beside_gearmans_own_runner() {
    let manager = Path::new(env!("CARGO_BIN_EXE_bench-harness")).with_file_name("ringgear-manager");
    if !has_server() {
        return;
    }
    if !manager.is_file() {
        return skip("ringgear-manager isn't built; `cargo build --workspace` does");
    }
    let (_folder, output) = measure(&["manager"], &["ringgear-epoll"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let table = String::from_utf8(output.stdout).unwrap();
    for runner in ["ringgear-manager, exec true", "ringgear-manager, lines"] {
        let rest = table.split_once(&format!("| ringgear-epoll | {runner} | ")).unwrap().1;
        assert!(rest.starts_with(|first: char| first.is_ascii_digit()), "{table}\n{errors}");
    }
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
    if !has_server() {
        return;
    }
    // Nothing is flat within three seconds.
    let (is_success, verdict) = soak("1000");
    assert!(is_success && !verdict.contains("FAILED"), "{verdict}");
    assert!(verdict.contains("* ok faults: 0."), "{verdict}");
}

#[test]
fn a_soak_whose_memory_grows_too_much_fails() {
    if !has_server() {
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
