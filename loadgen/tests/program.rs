//! The program itself: exit codes, one-sentence errors, and the JSON that others read.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

#[allow(dead_code, reason = "this test needs two of the wrongs")]
mod fake;

use std::net::TcpListener;
use std::process::{Command, Output};

use fake::{Fake, Wrong};

fn loadgen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen")).args(arguments).output().unwrap()
}

fn against(fake: &Fake, more: &[&str]) -> Output {
    let addr = fake.addr.to_string();
    let mut words = vec!["--addr", &addr, "--clients", "3", "--workers", "2", "--jobs", "200"];
    words.extend(["--warm-up", "0", "--drain-timeout", "300ms"]);
    words.extend(more);
    loadgen(&words)
}

fn sentence(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn bad_options_are_one_sentence() {
    let cases: &[(&[&str], &str)] = &[
        (&["--size", "7"], "at least 32 bytes"),
        (&["--clients", "0"], "--clients must be at least 1"),
        (&["--burst", "0", "--rate", "5"], "--burst must be at least 1"),
        (&["--burst", "4"], "--rate"),
        (&["--unique", "2"], "--unique is a share"),
        (&["--pipeline", "3", "--rate", "5"], "--rate"),
        (&["--work-time", "5x"], "unit of time"),
        (&["--nonsense"], "--nonsense"),
        (&["--addr", "127.0.0.1:x"], "127.0.0.1:x"),
        (&["--spawn", "/nonexistent/ringgeard"], "cargo build --release"),
    ];
    for (arguments, expected) in cases {
        let text = sentence(&loadgen(arguments));
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
}

#[test]
fn a_refused_connection_is_one_sentence() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = sentence(&loadgen(&["--addr", &free.to_string()]));
    assert!(text.contains("refused") && text.contains("connection 1 of 58"), "{text}");
}

#[test]
fn a_server_that_hangs_up_at_once_is_one_sentence() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let text = sentence(&loadgen(&["--addr", &addr]));
    assert!(text.contains("closed a connection"), "{text}");
}

#[test]
fn faults_end_the_program_with_1() {
    let output = against(&Fake::start(Wrong::ChangesByte), &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("0 lost, 0 duplicated, 1 foreign, 0 failed"), "{text}");
}

#[test]
fn the_json_keeps_its_names() {
    let directory = std::env::temp_dir().join(format!("loadgen-test-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("latency.hgrm");
    let output =
        against(&Fake::start(Wrong::Nothing), &["--json", "--hdr", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["jobs"], 200);
    for path in [
        "/seconds /jobs_per_second /bytes_per_second /reruns /server/pid",
        "/latency_us/p50 /latency_us/p90 /latency_us/p99 /latency_us/p999 /latency_us/p9999",
        "/latency_us/max /latency_us/mean /faults/lost /faults/duplicated /faults/foreign",
        "/faults/failed /server/rss_peak_bytes /server/rss_end_bytes /loadgen/cpu_share",
        "/server/cpu_user_us_per_job /server/cpu_system_us_per_job /config/clients",
    ]
    .iter()
    .flat_map(|paths| paths.split(' '))
    {
        let value = report.pointer(path);
        assert!(value.is_some_and(|value| value.is_number()), "{path}: {value:?}");
    }
    assert!(report["loadgen"]["was_limit"].is_boolean());
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["config"]["size"], "64");
    let distribution = std::fs::read_to_string(&file).unwrap();
    assert!(distribution.contains("Total count    =          200"), "{distribution}");
    std::fs::remove_dir_all(&directory).unwrap();
}
