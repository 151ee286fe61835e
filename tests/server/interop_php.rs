//! php-gearman, which is libgearman: scripts of `interop/scripts` against every contender.

use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_contender, wait_until};
use crate::tools::{Tool, has, run, script};

each_contender!(
    the_tutorials_scripts_run_as_they_stand,
    callbacks_see_data_status_warnings_failures_and_exceptions,
    two_tasks_with_one_key_are_one_run_and_both_complete,
    a_worker_gets_the_highest_priority_first,
    two_hundred_tasks_run_in_one_go,
    a_killed_workers_job_is_done_by_another,
    ten_thousand_background_jobs_are_drained,
    five_mebibytes_go_there_and_back,
    a_job_can_be_asked_after_and_the_server_pinged,
    a_worker_is_told_the_key_and_the_function,
);

/// A server, if PHP has its extension.
fn start(contender: Contender) -> Option<Server> {
    if !has("php", &["-r", "exit(extension_loaded('gearman') ? 0 : 1);"]) {
        return None;
    }
    Server::start(contender)
}

fn worker(server: &Server, mode: &str) -> Tool {
    let port = server.port().to_string();
    let mut worker = Tool::start("php", &[&script("worker.php"), "127.0.0.1", &port, mode]);
    worker.wait_for("ready");
    worker
}

fn client(server: &Server, arguments: &[&str]) -> Tool {
    let (script, port) = (script("client.php"), server.port().to_string());
    Tool::start("php", &[&[script.as_str(), "127.0.0.1", &port], arguments].concat())
}

/// What a client wrote; it has to end well and without complaints.
fn output(client: Tool) -> String {
    let finished = client.finish();
    assert!(finished.status.success() && finished.stderr.is_empty(), "{finished:?}");
    finished.stdout
}

fn the_tutorials_scripts_run_as_they_stand(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let port = server.port().to_string();
    let mut worker = Tool::start("php", &[&script("import_worker.php"), "127.0.0.1", &port]);
    let client = run("php", &[&script("import_client.php"), "127.0.0.1", &port], b"");
    let expected = "background done\n\
        tasks accepted\n\
        {\"file\":\"c.csv\",\"imported\":2}\n\
        {\"file\":\"d.csv\",\"imported\":3}\n\
        {\"file\":\"e.csv\",\"imported\":4}\n";
    assert_eq!(client.stdout, expected, "{client:?}");
    worker.wait_for("import a.csv 1");
    worker.wait_for("import e.csv 4");
    for n in 0..3 {
        assert!(worker.seen().contains(&format!("import b{n}.csv {n}")), "{}", worker.seen());
    }
}

fn callbacks_see_data_status_warnings_failures_and_exceptions(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "");
    let steps = "created\ndata one\nstatus 1/2\nwarning careful\ndata two\ncomplete end\n";
    // This client asks for exceptions by itself.
    let text = output(client(&server, &["callbacks"]));
    assert_eq!(text, format!("{steps}created\nfail\ncreated\nexception boom\n"));
}

fn two_tasks_with_one_key_are_one_run_and_both_complete(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let client = client(&server, &["same-key"]);
    let mut asker = Conn::open(server.address());
    // libgearman asks for one key twice on one connection; nobody works before both have.
    wait_until("both tasks to be there", || {
        asker.packet("GET_STATUS_UNIQUE", &[b"the-key"]);
        let Ok(Item::Packet(42, body)) = asker.next() else { panic!("no STATUS_RES_UNIQUE") };
        body.ends_with(b"\x002").then_some(())
    });
    let mut worker = worker(&server, "");
    assert_eq!(output(client), "complete cba\ncomplete cba\n");
    worker.wait_for("run abc");
    wait_until("no job", || server.admin("status").contains("reverse\t0\t0\t1").then_some(()));
    assert_eq!(worker.seen().matches("run abc").count(), 1);
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
    let mut worker = worker(&server, "");
    worker.wait_for("count 10000");
    wait_until("none", || server.admin("status").contains("count\t0\t0\t1\n").then_some(()));
}

fn five_mebibytes_go_there_and_back(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "");
    assert_eq!(output(client(&server, &["large", "5242880"])), "same 5242880\n");
}

fn a_job_can_be_asked_after_and_the_server_pinged(contender: Contender) {
    let Some(server) = start(contender) else { return };
    assert_eq!(output(client(&server, &["status"])), "[true,false,0,0]\npong\n");
}

fn a_worker_is_told_the_key_and_the_function(contender: Contender) {
    let Some(server) = start(contender) else { return };
    let _worker = worker(&server, "");
    assert_eq!(output(client(&server, &["do-unique", "my-key"])), "my-key of unique\n");
}
