//! PyPI's `gear`: a third, independent implementation, with its own admin requests.

use crate::harness::{Contender, Server, each_contender};
use crate::tools::{Tool, has, script};

each_contender!(
    callbacks_see_data_status_warnings_failures_and_exceptions,
    a_worker_gets_the_highest_priority_first,
    two_hundred_jobs_run_at_once,
    a_killed_workers_job_is_done_by_another,
    a_hundred_background_jobs_are_drained,
    five_mebibytes_go_there_and_back,
    admin_requests_and_packets_share_a_connection,
);

/// A server, if Python has the package.
fn start(contender: Contender) -> Option<Server> {
    if !has("python3", &["-c", "import gear"]) {
        return None;
    }
    Server::start(contender)
}

fn worker(server: &Server, mode: &str) -> Tool {
    let (script, port) = (script("worker.py"), server.port().to_string());
    let mut worker = Tool::start("python3", &[&script, "127.0.0.1", &port, mode]);
    worker.wait_for("ready");
    worker
}

fn client(server: &Server, arguments: &[&str]) -> Tool {
    let (script, port) = (script("client.py"), server.port().to_string());
    Tool::start("python3", &[&[script.as_str(), "127.0.0.1", &port], arguments].concat())
}

/// What a client wrote; it has to end well.
fn output(client: Tool) -> String {
    let finished = client.finish();
    assert!(finished.status.success(), "{finished:?}");
    finished.stdout
}

fn callbacks_see_data_status_warnings_failures_and_exceptions(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "");
    let steps = "data one\nstatus 1/2\nwarning careful\ncomplete end\nfail\n";
    let plain = output(client(&server, &["callbacks"]));
    assert_eq!(plain, format!("{steps}fail\ncomplete in time\n"));
    let asking = output(client(&server, &["callbacks", "exceptions"]));
    assert_eq!(asking, format!("{steps}exception boom\ncomplete in time\n"));
}

fn a_worker_gets_the_highest_priority_first(contender: Contender) {
    let Some(server) = start(contender) else { return };
    output(client(&server, &["priorities"]));
    let mut worker = worker(&server, "");
    worker.wait_for("run low");
    assert_eq!(worker.seen(), "ready\nrun high\nrun normal\nrun low\n");
}

fn two_hundred_jobs_run_at_once(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _workers = [worker(&server, ""), worker(&server, "")];
    assert_eq!(output(client(&server, &["tasks", "200"])), "ran 200\n");
}

fn a_killed_workers_job_is_done_by_another(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let mut stuck = worker(&server, "stuck");
    let client = client(&server, &["do", "hello"]);
    stuck.wait_for("run hello");
    let mut second = worker(&server, "");
    stuck.kill();
    assert_eq!(output(client), "olleh\n");
    second.wait_for("run hello");
}

fn a_hundred_background_jobs_are_drained(contender: Contender) {
    let Some(server) = start(contender) else { return };
    // Not more: this worker leaves Nagle's algorithm on, which costs it 40 ms a job.
    assert_eq!(output(client(&server, &["flood", "100"])), "submitted\n");
    assert_eq!(server.admin("status"), "count\t100\t0\t0\n.\n");
    worker(&server, "").wait_for("count 100");
}

fn five_mebibytes_go_there_and_back(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "");
    assert_eq!(output(client(&server, &["large", "5242880"])), "same 5242880\n");
}

fn admin_requests_and_packets_share_a_connection(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let text = output(client(&server, &["admin"]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "'reverse\\t1\\t0\\t0\\n.\\n'");
    assert_eq!(lines[1], "'key\\n.\\n'");
    assert_eq!(lines[2], "'OK\\r\\n'");
    // gearmand keeps a cancelled job until a worker comes by.
    let left = if contender.is_ringgear() { 0 } else { 1 };
    assert_eq!(lines[3], format!("'reverse\\t{left}\\t0\\t0\\n.\\n'"));
    assert!(lines[4].contains(" 127.0.0.1 - :"), "{text}");
}
