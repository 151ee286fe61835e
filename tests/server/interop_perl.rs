//! Perl's Gearman::Client and Gearman::Worker: a second, independent implementation of both sides.

use crate::harness::{Contender, Server, each_contender};
use crate::tools::{Tool, has, script};

each_contender!(
    callbacks_see_status_results_failures_and_exceptions,
    two_tasks_with_one_key_both_complete,
    a_worker_gets_the_highest_priority_first,
    two_hundred_tasks_run_in_one_go,
    a_background_job_is_followed_to_its_end,
    a_killed_workers_job_is_done_by_another,
    ten_thousand_background_jobs_are_drained,
    five_mebibytes_go_there_and_back,
    a_worker_that_dies_a_hundred_times_goes_on,
);

/// A server, if Perl has the modules.
fn start(contender: Contender) -> Option<Server> {
    if !has("perl", &["-MGearman::Client", "-MGearman::Worker", "-e", "1"]) {
        return None;
    }
    Server::start(contender)
}

fn worker(server: &Server, mode: &str) -> Tool {
    let mut worker = Tool::start("perl", &[&script("worker.pl"), &address(server), mode]);
    worker.wait_for("ready");
    worker
}

fn client(server: &Server, arguments: &[&str]) -> Tool {
    let (script, address) = (script("client.pl"), address(server));
    Tool::start("perl", &[&[script.as_str(), &address], arguments].concat())
}

fn address(server: &Server) -> String {
    server.address().to_string()
}

/// What a client wrote; it has to end well and without complaints.
fn output(client: Tool) -> String {
    let finished = client.finish();
    assert!(finished.status.success() && finished.stderr.is_empty(), "{finished:?}");
    finished.stdout
}

fn callbacks_see_status_results_failures_and_exceptions(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "");
    let steps = "status 1/2\nstatus 2/2\ncomplete end\nfail\n";
    let asking = output(client(&server, &["callbacks", "exceptions"]));
    assert_eq!(asking, format!("{steps}exception boom\ncomplete in time\n"));
    // gearmand's WORK_FAIL for an exception has a NUL behind the handle; this client dies of it.
    if contender.is_ringgear() {
        let plain = output(client(&server, &["callbacks"]));
        assert_eq!(plain, format!("{steps}fail\ncomplete in time\n"));
    }
}

fn two_tasks_with_one_key_both_complete(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "");
    assert_eq!(output(client(&server, &["same-key"])), "complete cba\ncomplete cba\n");
}

fn a_worker_gets_the_highest_priority_first(contender: Contender) {
    let Some(server) = start(contender) else { return };
    output(client(&server, &["priorities"]));
    let mut worker = worker(&server, "");
    worker.wait_for("run low");
    assert_eq!(worker.seen(), "ready\nrun high\nrun normal\nrun low\n");
}

fn two_hundred_tasks_run_in_one_go(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _workers = [worker(&server, ""), worker(&server, "")];
    assert_eq!(output(client(&server, &["tasks", "200"])), "ran 200\n");
}

fn a_background_job_is_followed_to_its_end(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let mut client = client(&server, &["background"]);
    client.wait_for("waiting");
    let _worker = worker(&server, "");
    assert_eq!(output(client), "known 1 running 0\nwaiting\ndone\n");
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

fn ten_thousand_background_jobs_are_drained(contender: Contender) {
    let Some(server) = start(contender) else { return };
    assert_eq!(output(client(&server, &["flood", "10000"])), "submitted\n");
    assert_eq!(server.admin("status"), "count\t10000\t0\t0\n.\n");
    worker(&server, "").wait_for("count 10000");
}

fn five_mebibytes_go_there_and_back(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "");
    assert_eq!(output(client(&server, &["large", "5242880"])), "same 5242880\n");
}

/// Its worker ends when the WORK_FAIL behind its WORK_EXCEPTION is answered, as gearmand does.
fn a_worker_that_dies_a_hundred_times_goes_on(contender: Contender) {
    if !contender.is_ringgear() {
        return;
    }
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "");
    assert_eq!(output(client(&server, &["deaths", "100"])), "evila\n");
}
