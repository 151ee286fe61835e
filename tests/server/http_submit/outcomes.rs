//! Each outcome of a submission has its status, and says which job it is about.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use super::{OURS, jobs, path, start, submit, wait_for_jobs, wait_until_ready, worker};
use crate::conn::{Conn, Item};
use crate::durable::Database;
use crate::harness::{Contender, each_ringgear, wait_until};
use crate::http::address;
use crate::http::client::{connect, exchange, get, head};

each_ringgear!(
    a_result_is_the_body,
    failures_are_told_apart,
    parts_come_as_they_are_sent,
    a_job_in_the_background_has_a_handle_and_equal_ones_are_joined,
    a_job_is_done_in_time_or_gone,
    a_client_that_leaves_takes_its_job_along,
    a_full_queue_and_wrong_headers_are_refused,
    a_job_with_a_time_waits_for_it,
    an_answer_to_a_durable_job_comes_after_its_commit,
    the_end_of_the_server_answers_those_that_wait,
);

fn a_result_is_the_body(contender: Contender) {
    let (server, http) = start(contender, &[]);
    worker::start(server.address());
    let mut stream = connect(http);
    for payload in [&b"hello"[..], b"", b"a\0b"] {
        let headers = [OURS, ("Prefer", "wait=20")];
        let answer = exchange(&mut stream, "POST", &path("reverse"), &headers, payload);
        let answer = answer.expect("an answer");
        let reversed: Vec<u8> = payload.iter().rev().copied().collect();
        assert_eq!((answer.status, &answer.body), (200, &reversed), "{answer:?}");
        assert!(answer.header("ringgear-handle").is_some_and(|it| it.starts_with("H:")));
        assert_eq!(answer.header("ringgear-warnings"), Some("0"));
        assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    }
    // Only the end of the result: `stream=1` has the rest.
    let answer = submit(http, "parts", &[], b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "three"));
    assert_eq!(answer.header("ringgear-warnings"), Some("1"));
    let large = vec![b'x'; 3 << 20];
    assert_eq!(submit(http, "reverse", &[], &large).body, large);
}

fn failures_are_told_apart(contender: Contender) {
    let (server, http) = start(contender, &[]);
    worker::start(server.address());
    for (function, code) in [("fail", "WORK_FAIL"), ("throw", "WORK_EXCEPTION")] {
        let answer = submit(http, function, &[], b"x");
        assert_eq!((answer.status, answer.code().as_str()), (502, code));
        assert!(answer.header("ringgear-handle").is_some(), "{answer:?}");
    }
    let text = submit(http, "throw", &[], b"x").json()["error"]["message"].clone();
    assert_eq!(text, "no such \"file\"");
}

fn parts_come_as_they_are_sent(contender: Contender) {
    let (server, http) = start(contender, &[]);
    worker::start(server.address());
    let streamed = |function: &str| format!("{}?stream=1", path(function));
    let mut stream = connect(http);
    for (function, expected) in [("parts", "one two three"), ("reverse", "cba")] {
        let answer = exchange(&mut stream, "POST", &streamed(function), &[OURS], b"abc");
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, expected));
        assert!(answer.header("ringgear-handle").is_some());
    }
    let failed = exchange(&mut stream, "POST", &streamed("fail"), &[OURS], b"abc");
    assert_eq!(failed.expect("an answer").status, 502);
    // A part is there already: all that is left to say is that the body has no end.
    exchange(&mut stream, "POST", &streamed("break-off"), &[OURS], b"").expect_err("no end");
    // A part comes before the job's end.
    let mut client = connect(http);
    let mut slow = Conn::open(server.address());
    slow.packet("CAN_DO", &[b"slow"]);
    slow.sync().expect("registered");
    client.write_all(&head("POST", &streamed("slow"), &[OURS], 0)).expect("it reads");
    wait_for_jobs(&server, "slow", 1);
    slow.packet("GRAB_JOB", &[]);
    let Ok(Item::Packet(11, body)) = slow.next() else { panic!("no job") };
    let handle = body.split(|&byte| byte == 0).next().expect("a handle").to_vec();
    slow.packet("WORK_DATA", &[&handle, b"early"]);
    let mut seen = Vec::new();
    while !seen.ends_with(b"early\r\n") {
        let mut bytes = [0; 1];
        client.read_exact(&mut bytes).expect("a part");
        seen.extend(bytes);
    }
    slow.packet("WORK_COMPLETE", &[&handle, b"late"]);
    wait_for_jobs(&server, "slow", 0);
}

fn a_job_in_the_background_has_a_handle_and_equal_ones_are_joined(contender: Contender) {
    let (server, http) = start(contender, &[]);
    let headers = [("Prefer", "respond-async"), ("Ringgear-Unique", "k")];
    let first = submit(http, "bg%2ff", &headers, b"x");
    assert_eq!(first.status, 202, "{first:?}");
    assert_eq!(first.header("preference-applied"), Some("respond-async"));
    let handle = first.json()["handle"].as_str().expect("a handle").to_owned();
    assert_eq!(first.json()["joined"], false);
    assert_eq!(first.header("location"), Some(&*format!("/api/v1/jobs/{handle}")));
    assert_eq!(jobs(&server, "bg/f"), Some((1, 0)));
    let alias = [("prefer", "respond-async"), ("Idempotency-Key", "k")];
    let second = submit(http, "bg%2Ff", &alias, b"y");
    assert_eq!(second.json(), serde_json::json!({"handle": handle, "joined": true}));
    let third = submit(http, "bg%2ff", &[headers[0], ("Ringgear-Unique", "other")], b"x");
    assert_eq!(third.json()["joined"], false);
    assert_eq!(jobs(&server, "bg/f"), Some((2, 0)));
}

fn a_job_is_done_in_time_or_gone(contender: Contender) {
    let (server, http) = start(contender, &[]);
    let asked = Instant::now();
    let answer = submit(http, "f", &[("Prefer", "wait=1")], b"x");
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert_eq!((answer.status, answer.code().as_str()), (504, "NOT_DONE"));
    let handle = answer.header("ringgear-handle").expect("a handle").to_owned();
    assert!(handle.starts_with("H:") && answer.text().contains(&handle), "{answer:?}");
    wait_for_jobs(&server, "f", 0);
    // A submission in the background wants it, too.
    submit(http, "f", &[("Prefer", "respond-async"), ("Ringgear-Unique", "k")], b"x");
    let answer = submit(http, "f", &[("Prefer", "wait=0"), ("Ringgear-Unique", "k")], b"x");
    assert_eq!(answer.status, 504);
    assert_eq!(jobs(&server, "f"), Some((1, 0)));
}

fn a_client_that_leaves_takes_its_job_along(contender: Contender) {
    let (server, http) = start(contender, &[]);
    for path in [path("f"), format!("{}?stream=1", path("f"))] {
        let mut client = connect(http);
        client.write_all(&head("POST", &path, &[OURS], 0)).expect("it reads");
        wait_for_jobs(&server, "f", 1);
        drop(client);
        wait_for_jobs(&server, "f", 0);
    }
}

fn a_full_queue_and_wrong_headers_are_refused(contender: Contender) {
    let (server, http) = start(contender, &["--job-size-max", "1k"]);
    let background = ("Prefer", "respond-async");
    assert_eq!(submit(http, "full", &[background], b"1").status, 202);
    assert_eq!(server.admin("maxqueue full 1"), "OK\n");
    let answer = submit(http, "full", &[background], b"2");
    assert_eq!((answer.status, answer.code().as_str()), (429, "QUEUE_FULL"));
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    let answer = submit(http, "full", &[background], &[b'x'; 1 << 10]);
    assert_eq!((answer.status, answer.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    assert!(answer.text().contains("1024"), "{answer:?}");
    wait_until("each refusal to be counted once", || {
        let metrics = get(http, "/metrics").text();
        let refused = |reason: &str| {
            format!("ringgear_jobs_refused_total{{function=\"full\",reason=\"{reason}\"}} 1\n")
        };
        ["queue_full", "size"].iter().all(|it| metrics.contains(&refused(it))).then_some(())
    });
    for header in [
        ("Ringgear-Priority", "urgent"),
        ("Ringgear-Run-At", "tomorrow"),
        ("Prefer", "wait=soon"),
        ("Idempotency-Key", &"k".repeat(65)),
    ] {
        let answer = submit(http, "f", &[header], b"x");
        assert_eq!((answer.status, answer.code().as_str()), (400, "BAD_HEADER"));
        assert!(answer.text().contains(header.0), "{answer:?}");
    }
    assert_eq!(submit(http, "f", &[("Content-Encoding", "gzip")], b"x").status, 415);
    assert_eq!(submit(http, "%00", &[], b"x").status, 400);
    assert_eq!(jobs(&server, "f"), None, "nothing was submitted");
}

fn a_job_with_a_time_waits_for_it(contender: Contender) {
    let (server, http) = start(contender, &[]);
    worker::start(server.address());
    let far = submit(http, "reverse", &[("Ringgear-Run-At", "2099-01-01T00:00:00Z")], b"x");
    assert_eq!((far.status, far.header("preference-applied")), (202, None), "{far:?}");
    assert_eq!(submit(http, "reverse", &[("Ringgear-Run-At", "1")], b"x").status, 202);
    // The other is done.
    wait_for_jobs(&server, "reverse", 1);
}

fn an_answer_to_a_durable_job_comes_after_its_commit(contender: Contender) {
    let database = Database::new();
    let server = database.serve(contender, &["--http", "127.0.0.1:0"]);
    let http = address(&server);
    wait_until_ready(http);
    let answer = submit(http, "kept", &[("Prefer", "respond-async")], b"x");
    server.kill();
    assert_eq!(answer.status, 202);
    let server = database.serve(contender, &[]);
    wait_until("what the store kept", || jobs(&server, "kept").filter(|&it| it == (1, 0)));
}

fn the_end_of_the_server_answers_those_that_wait(contender: Contender) {
    let (mut server, http) = start(contender, &[]);
    let mut client = connect(http);
    client.write_all(&head("POST", &path("f"), &[OURS], 0)).expect("it reads");
    wait_for_jobs(&server, "f", 1);
    server.signal("TERM");
    let answer = crate::http::client::read_answer(&mut client, false).expect("an answer");
    assert_eq!((answer.status, answer.code().as_str()), (503, "DRAINING"));
    assert_eq!(server.wait().code(), Some(0));
}
