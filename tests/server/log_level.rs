//! The level of the log, at the start and while the server runs.

use std::io::{Read, Write};

use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear};

each_ringgear!(
    the_level_changes_while_the_server_runs,
    the_default_leaves_out_single_jobs,
    jobs_that_only_memory_had_are_counted_at_the_end,
    a_tls_client_gets_an_alert_and_the_log_a_line,
);

/// A background job is submitted and done.
fn do_a_job(server: &Server, function: &[u8]) {
    let mut conn = Conn::open(server.address());
    conn.packet("SUBMIT_JOB_BG", &[function, b"", b"x"]);
    assert!(matches!(conn.next(), Ok(Item::Packet(8, _))));
    conn.packet("CAN_DO", &[function]);
    conn.packet("GRAB_JOB", &[]);
    let Ok(Item::Packet(11, body)) = conn.next() else { panic!("no job") };
    let handle = body.split(|&byte| byte == 0).next().expect("a handle");
    conn.packet("WORK_FAIL", &[handle]);
    // Answered by the core that has the job, behind its end.
    conn.packet("GET_STATUS", &[handle]);
    assert!(matches!(conn.next(), Ok(Item::Packet(20, _))));
}

fn the_level_changes_while_the_server_runs(contender: Contender) {
    let Some(server) = Server::start(contender) else { return };
    assert_eq!(server.admin("verbose"), "OK NOTICE\n");
    do_a_job(&server, b"unseen");
    assert_eq!(server.admin("verbose nonsense").split('+').next(), Some("ERR UNKNOWN_LEVEL FATAL"));
    assert_eq!(server.admin("verbose info"), "OK INFO\n");
    do_a_job(&server, b"at_info");
    // INFO, DEBUG, TRACE, and the level of the start again.
    for level in ["DEBUG", "TRACE"] {
        server.signal("USR2");
        server.wait_for_log(&format!("the log level is {level} now"), |_| Some(()));
        assert_eq!(server.admin("verbose"), format!("OK {level}\n"));
    }
    do_a_job(&server, b"at_trace");
    server.signal("USR2");
    server.wait_for_log("the log level is NOTICE now", |_| Some(()));
    // The line comes first, and the answer when the level is in force on all cores.
    assert_eq!(server.admin("verbose"), "OK NOTICE\n");
    do_a_job(&server, b"unseen");
    let log = server.log();
    assert!(!log.contains("unseen"), "{log}");
    let lines_with = |word: &str| log.lines().filter(|line| line.contains(word)).count();
    assert_eq!(lines_with("job failed"), 2, "{log}");
    assert!(lines_with("function=at_info") >= 2, "CAN_DO and the failure: {log}");
    assert_eq!(lines_with("job submitted"), 1, "{log}");
    assert!(lines_with("packet=\"GRAB_JOB\"") == 1, "{log}");
}

fn the_default_leaves_out_single_jobs(contender: Contender) {
    let Some(server) = Server::start(contender) else { return };
    do_a_job(&server, b"one");
    assert_eq!(server.admin("version").split(' ').next(), Some("OK"));
    let log = server.log();
    assert!(!log.contains("job ") && !log.contains("connected"), "{log}");
}

fn jobs_that_only_memory_had_are_counted_at_the_end(contender: Contender) {
    let Some(mut server) = Server::start(contender) else { return };
    let mut client = Conn::open(server.address());
    for function in [&b"a"[..], b"b", b"c"] {
        client.packet("SUBMIT_JOB_BG", &[function, b"", b"x"]);
        assert!(matches!(client.next(), Ok(Item::Packet(8, _))));
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let log = server.log();
    assert!(log.contains("jobs are lost: only memory had them"), "{log}");
    assert!(log.contains("jobs=3"), "{log}");
}

/// It got no answer for as long as it cared to wait, and the log said nothing.
fn a_tls_client_gets_an_alert_and_the_log_a_line(contender: Contender) {
    let Some(server) = Server::start(contender) else { return };
    let mut stream = server.connect();
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").expect("the server reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the alert, then the end");
    assert_eq!(answer, [21, 3, 1, 0, 2, 2, 40]);
    server.wait_for_log("TLS handshakes refused", |_| Some(()));
}
