//! The program itself: exit codes, one-sentence errors, and the JSON that others read.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

#[allow(dead_code, reason = "this test needs two of the wrongs")]
mod fake;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Output;

use fake::{Fake, Wrong};
use ringgear::wire::{Command, Magic, encode};

fn loadgen(arguments: &[&str]) -> Output {
    std::process::Command::new(env!("CARGO_BIN_EXE_loadgen")).args(arguments).output().unwrap()
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
fn bad_options_are_one_sentence_with_a_remedy() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["--size", "7"], &["at least 32 bytes"]),
        (&["--clients", "0"], &["--clients must be at least 1"]),
        (&["--workers", "0"], &["--workers must be at least 1", "--mode background"]),
        (&["--burst", "0", "--rate", "5"], &["--burst must be at least 1"]),
        (&["--burst", "4"], &["add --rate"]),
        (&["--spacing", "even"], &["add --rate"]),
        (&["--spawn-arg=--io=epoll"], &["add --spawn"]),
        (&["--spawn", "--addr", "127.0.0.1:4730"], &["--spawn", "--addr", "give one of them"]),
        (&["--live", "0"], &["--live must not be 0", "1s"]),
        (&["--unique", "2"], &["--unique is a share", "from 0 to 1"]),
        (&["--mode", "connect", "--churn", "5"], &["--mode connect", "drop --rate and --churn"]),
        (&["--pipeline", "3", "--rate", "5"], &["--rate", "--pipeline", "give one of them"]),
        (&["--work-time", "5x"], &["unit of time", "use us, ms, s, m or h"]),
        (&["--nonsense"], &["--nonsense", "see --help"]),
        (&["--clinets", "5"], &["--clinets", "did you mean --clients?"]),
        (&["--mode", "backgroud"], &["background, delayed, connect", "mean background?"]),
        (&["--addr", "127.0.0.1:x"], &["127.0.0.1:x", "1 to 65535", "HOST:PORT"]),
        (&["--addr", "127.0.0.1:0"], &["127.0.0.1:0", "1 to 65535", "HOST:PORT"]),
        (&["--addr", "http://localhost:4730/"], &["http://", "HOST:PORT"]),
        (&["--source", "192.0.2.1"], &["--source 192.0.2.1", "an address of this host"]),
        (&["--source", "::1"], &["--source ::1", "IPv6", "of the same kind"]),
        (&["--server-pid", "4294967295"], &["--server-pid 4294967295", "drop it"]),
        (&["--hdr", "/nonexistent/file"], &["/nonexistent/file", "--hdr"]),
        (&["--spawn", "/nonexistent/ringgeard"], &["cargo build --release", "--spawn"]),
        (&["--spawn", "/bin/false"], &["ended with exit status: 1", "--spawn-arg"]),
    ];
    for (arguments, expected) in cases {
        let text = sentence(&loadgen(arguments));
        for word in *expected {
            assert!(text.contains(word), "{arguments:?}: {text}");
        }
    }
}

#[test]
fn a_refused_connection_says_how_to_start_a_server() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = sentence(&loadgen(&["--addr", &free.to_string()]));
    let expected = format!("nothing listens on {free}");
    assert!(text.contains(&expected) && text.contains("cargo run --release"), "{text}");
}

#[test]
fn a_server_that_hangs_up_at_once_is_asked_for_its_limits() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let text = sentence(&loadgen(&["--addr", &addr]));
    for word in ["closed a connection", "of 58", "--connections-max", "RLIMIT_NOFILE"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn a_server_that_refuses_connections_is_quoted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // What isn't read would reset the connection.
            let _ = stream.read(&mut [0; 4096]);
            let mut refusal = Vec::new();
            let arguments: [&[u8]; 2] = [b"TLS_REQUIRED", b"this port speaks TLS only"];
            encode(&mut refusal, Magic::Response, Command::Error, &arguments, &[]);
            let _ = stream.write_all(&refusal);
        }
    });
    let text = sentence(&loadgen(&["--addr", &addr]));
    for word in ["saying TLS_REQUIRED: this port speaks TLS only", "takes --tls"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn figures_for_people_have_units_that_fit() {
    let output = against(&Fake::start(Wrong::Nothing), &["--work-time", "20ms", "--jobs", "20"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("{name}: {text}"))[20..].to_owned()
    };
    assert!(value("jobs").starts_with("20 in "), "{text}");
    assert!(
        value("latency p50").ends_with(" ms") || value("latency p50").ends_with(" s"),
        "{text}"
    );
    assert!(value("throughput").ends_with(" jobs/s"), "{text}");
    assert!(value("payload bytes").ends_with("B/s"), "{text}");
    assert!(value("server memory").contains("iB at its peak, "), "{text}");
}

#[test]
fn more_connections_than_one_table_of_descriptors_holds_are_spread_over_threads() {
    let fake = Fake::start(Wrong::Nothing);
    let addr = fake.addr.to_string();
    // A user who may raise the hard limit needs no second table.
    let script = "ulimit -n 130 && exec \"$@\"";
    let output = std::process::Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_loadgen"), "--addr", &addr])
        .args(["--clients", "150", "--workers", "5", "--jobs", "1000", "--warm-up", "0"])
        .args(["--threads", "1", "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["jobs"], 1000);
    assert!(
        report["loadgen"]["threads"].as_u64().is_some_and(|threads| threads == 3 || threads == 1)
    );
}

#[test]
fn connections_come_from_the_given_sources_in_turn() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let accepting = std::thread::spawn(move || {
        let streams: Vec<_> = (0..4).map(|_| listener.accept().unwrap()).collect();
        let mut hosts: Vec<_> = streams.iter().map(|(_, peer)| peer.ip().to_string()).collect();
        hosts.sort_unstable();
        hosts
    });
    let mut words = vec!["--addr", &addr, "--clients", "3", "--workers", "1", "--threads", "1"];
    words.extend(["--source", "127.0.0.8", "--source=127.0.0.9"]);
    let text = sentence(&loadgen(&words));
    assert!(text.contains("closed a connection"), "{text}");
    assert_eq!(accepting.join().unwrap(), ["127.0.0.8", "127.0.0.8", "127.0.0.9", "127.0.0.9"]);
}

#[test]
fn programs_can_follow_a_run() {
    let output = against(&Fake::start(Wrong::Nothing), &["--live", "1ms"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for name in ["seconds", "connections", "answered", "ran", "in_flight", "faults"] {
        assert!(last[name].is_number(), "{name}: {text}");
    }
    assert_eq!(last["answered"], 200, "{text}");
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
        "/server/rss_start_bytes /server/rss_idle_bytes /kernel/start_bytes /kernel/idle_bytes",
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
