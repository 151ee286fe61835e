//! Handles of one store: all start alike, and none is given out twice, on whichever server.

use std::collections::HashSet;

use super::standby::{Standby, url};
use super::{Database, created, drain_texts, is_error, is_known, start, submit, submit_bg};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, wait_until};
use crate::postgresql;

each_ringgear!(
    no_handle_is_given_out_again_after_a_failover,
    handles_keep_the_prefix_of_the_first_server,
    until_numbers_are_reserved_jobs_that_were_kept_run_and_others_are_refused,
);

const CONTENDERS: [Contender; 2] = [Contender::RinggearEpoll, Contender::RinggearUring3];

/// Runs a test on PostgreSQL, on one core and on several.
fn each_on_postgresql(test: impl Fn(Contender, &str)) {
    for contender in CONTENDERS.into_iter().filter(|contender| contender.is_here()) {
        let Some(postgresql) = postgresql::Server::start() else { return };
        test(contender, &url(&postgresql));
    }
}

/// Submits jobs of every kind to many functions, so that each core has some; gives the handles.
fn fill(server: &Server) -> Vec<String> {
    let mut client = Conn::open(server.address());
    for at in 0..COUNT {
        let function = format!("f{}", at % 16);
        let name = ["SUBMIT_JOB", "SUBMIT_JOB_BG"][usize::from(at % 32 == 0)];
        client.packet(name, &[function.as_bytes(), b"", b"x"]);
    }
    (0..COUNT).map(|_| created(&mut client)).collect()
}

const COUNT: usize = 1000;

/// What a handle starts with, and its number less the part that stands for the function.
fn parts(handle: &str) -> (&str, u64) {
    let (prefix, number) = handle.rsplit_once(':').expect("a colon");
    (prefix, number.parse::<u64>().expect("a number") >> 8)
}

/// Numbers came from the clock at the start of a server, also of one that stood by for weeks. A
/// standby started together with the server that it followed gave the same handles out again:
/// 18 496 of 40 000.
fn take_over(contender: Contender, store: &str) {
    let mut owner = start(contender, &["--store", store]);
    let mut seen = HashSet::new();
    let mut last = 0;
    for round in 0..3 {
        let mut standby = Standby::start(contender, store);
        let handles = fill(&owner);
        let (lowest, highest) = handles
            .iter()
            .map(|handle| parts(handle).1)
            .fold((u64::MAX, 0), |(low, high), at| (low.min(at), high.max(at)));
        // All that one server could have given out in an hour lies between it and the next.
        assert!(round == 0 || lowest >= last + (1 << 31), "{lowest} after {last}");
        last = highest;
        for handle in handles {
            assert!(!seen.contains(&handle), "{handle} came twice");
            seen.insert(handle);
        }
        owner.kill();
        standby.server.wait_until_it_listens();
        owner = standby.server;
    }
    owner.stop();
}

fn no_handle_is_given_out_again_after_a_failover(contender: Contender) {
    take_over(contender, &Database::new().store);
}

#[test]
fn no_handle_is_given_out_again_after_a_failover_on_postgresql() {
    each_on_postgresql(take_over);
}

/// The prefix was the name of the host, so a standby on another host didn't know any handle.
fn prefixes(contender: Contender, store: &str) {
    let prefix = |handle: &str| parts(handle).0.to_owned();
    let serve = |prefix: &[&str]| start(contender, &[&["--store", store], prefix].concat());
    let owner = serve(&["--job-handle-prefix", "H:first"]);
    let mut client = Conn::open(owner.address());
    let kept = submit(&mut client, "SUBMIT_JOB_BG", &[b"f", b"key", b"x"]);
    assert_eq!(prefix(&kept), "H:first");
    // A standby hears of it before it is needed.
    let (driver, cores) = contender.driver();
    let other = ["--threads", cores, "--store", store, "--job-handle-prefix", "H:other"];
    let standby = [&other[..], &["--standby"]].concat();
    let refuse = |options: &[&str]| {
        let sentence = Server::launch(driver, 0, options).wait_for_failure();
        assert!(sentence.contains("\"H:first\" and --job-handle-prefix"), "{sentence}");
        assert!(sentence.contains("\"H:other\""), "{sentence}");
    };
    refuse(&standby);
    let mut standby = Standby::start(contender, store);
    owner.kill();
    standby.server.wait_until_it_listens();
    let mut client = Conn::open(standby.server.address());
    assert!(is_known(&mut client, &kept));
    assert_eq!(submit(&mut client, "SUBMIT_JOB_BG", &[b"f", b"key", b"joins"]), kept);
    assert_eq!(prefix(&submit_bg(&mut client, "g", "y")), "H:first");
    standby.server.stop();
    refuse(&other);
    serve(&["--job-handle-prefix", "H:first"]).stop();
    // Neither the refused one nor the end of all jobs changes it.
    let server = serve(&[]);
    assert_eq!(drain_texts(&server, &["f", "g"]).len(), 2);
    server.stop();
    let server = serve(&[]);
    assert_eq!(prefix(&submit_bg(&mut Conn::open(server.address()), "f", "z")), "H:first");
    server.stop();
}

fn handles_keep_the_prefix_of_the_first_server(contender: Contender) {
    prefixes(contender, &Database::new().store);
}

#[test]
fn handles_keep_the_prefix_of_the_first_server_on_postgresql() {
    each_on_postgresql(prefixes);
}

/// A server that can't write to its store can't reserve numbers: it must give none out.
fn until_numbers_are_reserved_jobs_that_were_kept_run_and_others_are_refused(contender: Contender) {
    let database = Database::new();
    let server = database.serve(contender, &[]);
    let first = submit_bg(&mut Conn::open(server.address()), "f", "kept");
    server.kill();
    let lock = database.lock();
    let server = database.serve(contender, &[]);
    server.wait_for_log("no job numbers can be reserved", |_| Some(()));
    let mut client = Conn::open(server.address());
    for name in ["SUBMIT_JOB", "SUBMIT_JOB_BG"] {
        client.packet(name, &[b"g", b"", b"x"]);
        let refusal = client.next().expect("an answer");
        assert!(is_error(&refusal, "QUEUE_ERROR"), "{refusal:?}");
    }
    assert!(is_known(&mut client, &first));
    assert_eq!(drain_texts(&server, &["f"]), ["kept"]);
    drop(lock);
    let handle = wait_until("a number", || {
        client.packet("SUBMIT_JOB", &[b"g", b"", b"x"]);
        match client.next().expect("an answer") {
            Item::Packet(8, handle) => Some(handle),
            item => {
                assert!(is_error(&item, "QUEUE_ERROR"), "{item:?}");
                None
            }
        }
    });
    let handle = String::from_utf8(handle).expect("text");
    let marks: Vec<i64> = database.select("SELECT next_sequence FROM ringgear_owner");
    assert!(parts(&handle).1.cast_signed() < marks[0], "{handle} isn't below {marks:?}");
    server.stop();
}
