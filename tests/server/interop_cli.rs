//! Debian's `gearman` and `gearadmin` against every contender.

use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_contender, tool, wait_until};
use crate::tools::{Finished, Tool, run};

each_contender!(
    a_job_goes_through_the_tool_on_both_sides,
    every_line_can_be_a_job,
    a_worker_can_send_lines_as_data,
    background_jobs_run_by_priority,
    one_key_is_one_run,
    a_failed_command_is_a_failed_job,
    several_functions_are_prefixed,
    half_a_mebibyte_goes_there_and_back,
    gearadmin_asks_for_version_level_and_process,
    gearadmin_shows_queue_and_workers,
    gearadmin_creates_drops_and_cancels,
    several_gearadmin_operations_share_a_connection,
);

/// A server, if the tools are here.
fn start(contender: Contender) -> Option<Server> {
    tool("gearman")?;
    tool("gearadmin")?;
    Server::start(contender)
}

fn gearman(server: &Server, arguments: &[&str], stdin: &[u8]) -> Tool {
    let port = server.port().to_string();
    Tool::start_with("gearman", &[&["-h", "127.0.0.1", "-p", &port], arguments].concat(), stdin)
}

/// A worker that the server knows of.
fn worker(server: &Server, function: &str, arguments: &[&str]) -> Tool {
    let worker = gearman(server, &[&["-w", "-f", function], arguments].concat(), b"");
    wait_until("a worker", || {
        let status = server.admin("status");
        let line = status.lines().find(|line| line.starts_with(&format!("{function}\t")))?;
        (!line.ends_with("\t0")).then_some(())
    });
    worker
}

/// What a client wrote; it has to end well and without complaints.
fn output(client: Tool) -> String {
    let finished = client.finish();
    assert!(finished.status.success() && finished.stderr.is_empty(), "{finished:?}");
    finished.stdout
}

fn gearadmin(server: &Server, arguments: &[&str]) -> Finished {
    let port = server.port().to_string();
    run("gearadmin", &[&["-h", "127.0.0.1", "-p", &port], arguments].concat(), b"")
}

fn admin(server: &Server, arguments: &[&str]) -> String {
    let finished = gearadmin(server, arguments);
    assert!(finished.status.success() && finished.stderr.is_empty(), "{finished:?}");
    finished.stdout
}

fn a_job_goes_through_the_tool_on_both_sides(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "upper", &["--", "tr", "a-z", "A-Z"]);
    assert_eq!(output(gearman(&server, &["-f", "upper"], b"hello\n")), "HELLO\n");
    assert_eq!(output(gearman(&server, &["-f", "upper", "one", "two"], b"")), "ONETWO");
    assert_eq!(output(gearman(&server, &["-f", "upper", "-I", "high"], b"")), "HIGH");
    assert_eq!(output(gearman(&server, &["-f", "upper", "-L", "low"], b"")), "LOW");
    assert_eq!(output(gearman(&server, &["-f", "upper", "-s"], b"")), "");
    let told = output(gearman(&server, &["-v", "-f", "upper", "x"], b""));
    assert!(told.contains("Task created: ") && told.contains('X'), "{told}");
}

fn every_line_can_be_a_job(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "rev", &["--", "rev"]);
    assert_eq!(output(gearman(&server, &["-n", "-f", "rev"], b"abc\ndef\n")), "cba\nfed\n");
}

fn a_worker_can_send_lines_as_data(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "one", &["-n", "--", "head", "-n", "1"]);
    assert_eq!(output(gearman(&server, &["-f", "one"], b"abc\ndef\n")), "abc\n");
}

fn background_jobs_run_by_priority(contender: Contender) {
    let Some(server) = start(contender) else { return };
    output(gearman(&server, &["-b", "-L", "-f", "show", "low\n"], b""));
    output(gearman(&server, &["-b", "-f", "show", "normal\n"], b""));
    output(gearman(&server, &["-b", "-I", "-f", "show", "high\n"], b""));
    // Without a command the worker prints what it is given; it ends after the third job.
    let worker = gearman(&server, &["-w", "-c", "3", "-f", "show"], b"");
    assert_eq!(output(worker), "high\nnormal\nlow\n");
    wait_until("its end", || server.admin("status").contains("show\t0\t0\t0").then_some(()));
}

fn one_key_is_one_run(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let first = gearman(&server, &["-u", "key", "-f", "rev", "abc"], b"");
    let second = gearman(&server, &["-u", "key", "-f", "rev", "abc"], b"");
    let clients = |count: u8| {
        let mut conn = Conn::open(server.address());
        conn.packet("GET_STATUS_UNIQUE", &[b"key"]);
        let answer = conn.next().expect("an answer");
        let Item::Packet(42, body) = answer else { panic!("{answer:?}") };
        body.ends_with(&[0, b'0' + count]).then_some(())
    };
    wait_until("both clients", || clients(2));
    let worker = gearman(&server, &["-w", "-c", "1", "-f", "rev", "--", "rev"], b"");
    assert_eq!((output(first).as_str(), output(second).as_str()), ("cba", "cba"));
    output(worker);
    assert!(server.admin("status").contains("rev\t0\t0\t"), "{}", server.admin("status"));
}

fn a_failed_command_is_a_failed_job(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "no", &["--", "false"]);
    let finished = gearman(&server, &["-f", "no", "x"], b"").finish();
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stderr.contains("Job failed"), "{finished:?}");
}

fn several_functions_are_prefixed(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _rev = worker(&server, "rev", &["--", "rev"]);
    let _upper = worker(&server, "upper", &["--", "tr", "a-z", "A-Z"]);
    let text = output(gearman(&server, &["-P", "-f", "rev", "-f", "upper"], b"abc\n"));
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["rev: cba", "upper: ABC"]);
}

fn half_a_mebibyte_goes_there_and_back(contender: Contender) {
    let Some(server) = start(contender) else { return };
    // The tool's worker reads only when its command has taken all its input, so no filter will do.
    // Its client reads its own input so slowly that more would only test that.
    let _worker = worker(&server, "last-first", &["--", "tac"]);
    let lines: Vec<String> = (0..32 * 1024).map(|n| format!("line {n:010}\n")).collect();
    let payload = lines.concat();
    assert_eq!(payload.len(), 512 * 1024);
    let result = output(gearman(&server, &["-f", "last-first"], payload.as_bytes()));
    let reversed: Vec<&str> = lines.iter().rev().map(String::as_str).collect();
    assert!(result == reversed.concat(), "{} bytes", result.len());
}

fn gearadmin_asks_for_version_level_and_process(contender: Contender) {
    let Some(server) = start(contender) else { return };
    assert_eq!(admin(&server, &["--getpid"]), format!("{}\n", server.pid()));
    let version = admin(&server, &["--server-version"]);
    assert!(version.trim().starts_with(|c: char| c.is_ascii_digit()), "{version}");
    let level = if contender.is_ringgear() { "NOTICE" } else { "ERROR" };
    assert_eq!(admin(&server, &["--server-verbose"]), format!("{level}\n"));
}

fn gearadmin_shows_queue_and_workers(contender: Contender) {
    let Some(server) = start(contender) else { return };
    output(gearman(&server, &["-b", "-I", "-u", "key", "-f", "f", "x"], b""));
    assert_eq!(admin(&server, &["--status"]), "f\t1\t0\t0\n.\n");
    assert_eq!(admin(&server, &["--priority-status"]), "f\t1\t0\t0\t0\n.\n");
    assert_eq!(admin(&server, &["--show-unique-jobs"]), "key\n.\n");
    let jobs = admin(&server, &["--show-jobs"]);
    assert!(jobs.ends_with("\t0\t0\t1\n.\n"), "{jobs}");
    let _worker = worker(&server, "g", &["--", "cat"]);
    let workers = admin(&server, &["--workers"]);
    assert!(workers.contains(" 127.0.0.1 - : g\n") && workers.ends_with("\n.\n"), "{workers}");
}

fn gearadmin_creates_drops_and_cancels(contender: Contender) {
    let Some(server) = start(contender) else { return };
    assert_eq!(admin(&server, &["--create-function", "reports"]), "OK\n");
    assert_eq!(admin(&server, &["--status"]), "reports\t0\t0\t0\n.\n");
    assert_eq!(admin(&server, &["--drop-function", "reports"]), "OK\n");
    assert_eq!(admin(&server, &["--status"]), ".\n");
    let missing = gearadmin(&server, &["--drop-function", "reports"]);
    assert_eq!(missing.stderr.trim(), "Error: function not found", "{missing:?}");
    output(gearman(&server, &["-b", "-f", "f", "x"], b""));
    let jobs = admin(&server, &["--show-jobs"]);
    let handle = jobs.split('\t').next().expect("a job");
    assert_eq!(admin(&server, &["--cancel-job", handle]), "OK\n");
    let gone = gearadmin(&server, &["--cancel-job", "H:none:1"]);
    assert_eq!(gone.stderr.trim(), "Error: UNKNOWN_JOB", "{gone:?}");
    let mut worker = Conn::open(server.address());
    worker.packet("CAN_DO", &[b"f"]);
    worker.packet("GRAB_JOB", &[]);
    let answer = worker.next().expect("an answer");
    assert_eq!(answer, Item::Packet(10, Vec::new()), "a cancelled job isn't run");
}

fn several_gearadmin_operations_share_a_connection(contender: Contender) {
    let Some(server) = start(contender) else { return };
    assert_eq!(admin(&server, &["--create-function", "f"]), "OK\n");
    let text = admin(&server, &["--status", "--getpid", "--show-jobs"]);
    assert_eq!(text, format!("{}\n.\nf\t0\t0\t0\n.\n", server.pid()));
}
