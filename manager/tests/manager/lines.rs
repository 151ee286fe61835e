//! Mode `lines`: what a process is told, what it may say, and when it is replaced.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::child::wait_until;
use crate::client::{Client, Ending};
use crate::manager::{Manager, worker};
use crate::processes::{noted, resident_bytes, runs, wait_for_ends};
use crate::server::Server;

/// A loop that has the payload of each job in `$payload`, if it has no quotes, and the process id
/// of each process in `$DIR/pids`.
fn looped(body: &str) -> String {
    format!(
        "echo $$ >> $DIR/pids
        while read -r line; do
            payload=${{line#*\\\"payload\\\":\\\"}}; payload=${{payload%%\\\"*}}
            {body}
        done"
    )
}

fn start(body: &str, more: &str) -> (Server, Manager, Client) {
    let server = Server::start();
    let manager = Manager::start(&server, &worker("lines", &looped(body), more));
    let client = Client::connect(server.address);
    (server, manager, client)
}

fn complete(text: &str) -> Ending {
    Ending::Complete(text.as_bytes().to_vec())
}

/// A result that is a number, as a process id.
fn number(ending: Ending) -> i32 {
    let Ending::Complete(text) = ending else { panic!("{ending:?}") };
    String::from_utf8(text).unwrap().parse().unwrap()
}

const SAY_PID: &str = "echo \"{\\\"result\\\":\\\"$$\\\"}\"";

#[test]
fn a_job_is_a_line_with_handle_function_key_and_payload() {
    let back = "printf '{\"result_base64\":\"%s\"}\\n' $(printf %s \"$line\" | base64 -w0)";
    let (_server, _manager, mut client) = start(back, "");
    let mut told = |payload: &[u8]| -> Value {
        let handle = client.submit_with("SUBMIT_JOB", "f", "a key", payload);
        let Some(Ending::Complete(line)) = client.wait(&handle).ending else { panic!("no result") };
        let mut line: Value = serde_json::from_slice(&line).unwrap();
        let said = line.as_object_mut().unwrap().remove("handle").unwrap();
        assert_eq!(said.as_str().unwrap().as_bytes(), handle);
        line
    };
    let expected =
        json!({"function": "f", "unique": "a key", "payload": "gr\u{fc}n \"x\"\\\n\u{1}"});
    assert_eq!(told("gr\u{fc}n \"x\"\\\n\u{1}".as_bytes()), expected);
    let expected = json!({"function": "f", "unique": "a key", "payload": ""});
    assert_eq!(told(b""), expected);
    let expected = json!({"function": "f", "unique": "a key", "payload_base64": "/wD+"});
    assert_eq!(told(b"\xff\0\xfe"), expected);
}

#[test]
fn each_line_is_the_packet_that_it_names() {
    let body = r#"case $payload in
        (steps) echo '{"status":[1,2]}'; echo '{"data":"one"}'; echo '{"warning":"careful"}'
            echo '{"status": [2, 2]}'; echo '{"data":"t\u0077o"}'; echo '{"result":"end"}';;
        (bytes) echo '{"data_base64":"/wD+"}'; echo '{"warning_base64":"AP8="}'
            echo '{"result_base64":"AAEC"}';;
        (fail) echo '{"fail":true}';;
        (exception) echo '{"exception":"no such picture"}';;
        esac"#;
    let (_server, manager, mut client) = start(body, "");
    let told = client.run("f", b"steps");
    assert_eq!(told.statuses, ["1/2", "2/2"]);
    assert_eq!((&told.data[..], &told.warnings[..]), (&b"onetwo"[..], &b"careful"[..]));
    assert_eq!(told.ending, Some(complete("end")));
    let told = client.run("f", b"bytes");
    assert_eq!((&told.data[..], &told.warnings[..]), (&b"\xff\0\xfe"[..], &b"\0\xff"[..]));
    assert_eq!(told.ending, Some(Ending::Complete(vec![0, 1, 2])));
    assert_eq!(client.ending("f", b"fail"), Ending::Fail);
    assert_eq!(client.ending("f", b"exception"), Ending::Exception(b"no such picture".to_vec()));
    assert_eq!(noted(&manager.path("pids")).len(), 1, "the process is the same for all");
    manager.stop();
}

#[test]
fn anything_else_fails_the_job_and_replaces_the_process() {
    let lines = [
        "nonsense",
        "{\"result\":1}",
        "{\"done\":true}",
        "{\"status\":[1]}",
        "{\"status\":[-1,2]}",
        "{\"result\":\"a\",\"fail\":true}",
        "{\"result_base64\":\"?\"}",
        "[\"result\"]",
        "{\"result\":\"half",
    ];
    for line in lines {
        let body = format!("[ \"$payload\" = bad ] && echo '{line}'; {SAY_PID}");
        let (_server, manager, mut client) = start(&body, "backoff = [\"10ms\", \"1s\"]");
        let first = number(client.ending("f", b"good"));
        assert_eq!(client.ending("f", b"bad"), Ending::Fail, "{line}");
        assert_ne!(number(client.ending("f", b"good")), first, "{line}");
        wait_for_ends(&noted(&manager.path("pids"))[..1]);
    }
}

#[test]
fn a_process_that_ends_in_a_job_fails_it_however_it_ends() {
    let body = format!("case $payload in (good) {SAY_PID};; (*) eval \"$payload\";; esac");
    let (_server, _manager, mut client) = start(&body, "backoff = [\"10ms\", \"20ms\"]");
    for end in ["exit 0", "exit 1", "kill -9 $$", "exec sleep 0"] {
        let before = number(client.ending("f", b"good"));
        assert_eq!(client.ending("f", end.as_bytes()), Ending::Fail, "{end}");
        assert_ne!(number(client.ending("f", b"good")), before, "{end}");
    }
}

#[test]
fn output_between_jobs_replaces_the_process() {
    let body =
        format!("{SAY_PID}; [ $payload = late ] && sleep 0.1 && echo '{{\"data\":\"late\"}}'");
    let (_server, manager, mut client) = start(&body, "backoff = [\"10ms\", \"20ms\"]");
    let first = number(client.ending("f", b"late"));
    manager.wait_for_lines("pids", 2);
    let told = client.run("f", b"good");
    assert_eq!(told.data, b"");
    assert_ne!(number(told.ending.unwrap()), first);
}

#[test]
fn a_process_is_replaced_after_max_jobs_and_no_job_is_lost() {
    let (_server, manager, mut client) = start(SAY_PID, "max-jobs = 5\nsplay = 0.0\ncount = 2");
    let handles: Vec<_> = (0..60).map(|_| client.submit("f", b"x")).collect();
    let mut by_process = std::collections::HashMap::new();
    for handle in handles {
        let process = number(client.wait(&handle).ending.unwrap());
        *by_process.entry(process).or_insert(0) += 1;
    }
    assert!(by_process.values().all(|&jobs| jobs <= 5), "{by_process:?}");
    assert!(by_process.len() >= 12, "{by_process:?}");
    wait_for_ends(&noted(&manager.path("pids"))[..10]);
    manager.stop();
}

#[test]
fn a_process_is_replaced_at_max_age_without_back_off() {
    let more = "max-age = \"200ms\"\nsplay = 0.0\nbackoff = [\"1m\", \"1m\"]";
    let (_server, manager, mut client) = start(SAY_PID, more);
    manager.wait_for_lines("pids", 4);
    number(client.ending("f", b"x"));
    wait_for_ends(&noted(&manager.path("pids"))[..3]);
}

#[test]
fn a_process_over_memory_max_is_replaced() {
    let body =
        format!("[ $payload = leak ] && x=$x$(head -c 40000000 /dev/zero | tr '\\0' x); {SAY_PID}");
    let (_server, manager, mut client) = start(&body, "memory-max = \"20M\"");
    let first = number(client.ending("f", b"x"));
    // Looked at each second, too: the job itself may be its last or be failed.
    client.ending("f", b"leak");
    manager.wait_for_lines("pids", 2);
    assert_ne!(number(client.ending("f", b"x")), first);
    wait_for_ends(&noted(&manager.path("pids"))[..1]);
}

#[test]
fn a_line_without_an_end_is_cut_at_result_max() {
    let body = format!("case $payload in (flood) exec cat /dev/zero;; esac; {SAY_PID}");
    let (_server, manager, mut client) =
        start(&body, "result-max = \"64K\"\nbackoff = [\"10ms\", \"1s\"]");
    assert_eq!(client.ending("f", b"flood"), Ending::Fail);
    wait_for_ends(&noted(&manager.path("pids"))[..1]);
    assert!(resident_bytes(manager.pid()) < 64 << 20);
    number(client.ending("f", b"x"));
}

#[test]
fn a_hung_job_ends_the_process_at_its_timeout() {
    let body = format!(
        "[ $payload = hang ] && {{ trap '' TERM; sleep 1000 & echo $! >> $DIR/pids; wait; }}
        {SAY_PID}"
    );
    let (_server, manager, mut client) = start(&body, "timeout = \"300ms\"");
    let first = number(client.ending("f", b"x"));
    assert_eq!(client.ending("f", b"hang"), Ending::Fail);
    assert_ne!(number(client.ending("f", b"x")), first);
    wait_for_ends(&noted(&manager.path("pids"))[..2]);
}

#[test]
fn a_process_that_ends_at_once_for_ever_is_started_at_the_pace_of_its_back_off() {
    let server = Server::start();
    let script = "echo $$ >> $DIR/pids; exit 1";
    let started = Instant::now();
    let more = "backoff = [\"200ms\", \"800ms\"]";
    let manager = Manager::start(&server, &worker("lines", script, more));
    manager.wait_for_lines("pids", 5);
    // The waits between the five.
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(200 + 400 + 800 + 800), "{took:?}");
    manager.stop();
}

#[test]
fn large_payloads_and_results_go_both_ways() {
    let body = "echo \"{\\\"result\\\":\\\"$payload\\\"}\"";
    let (_server, _manager, mut client) = start(body, "");
    let text = "x".repeat(300_000);
    assert_eq!(client.ending("f", text.as_bytes()), complete(&text));
}

#[test]
fn a_process_without_jobs_stays() {
    let (_server, manager, mut client) = start(SAY_PID, "count = 2");
    let before = manager.wait_for_lines("pids", 2);
    let pid = number(client.ending("f", b"x"));
    assert!(before.contains(&pid.to_string()));
    let pids = noted(&manager.path("pids"));
    assert!(pids.len() == 2 && pids.iter().all(|&pid| runs(pid)), "{pids:?}");
    wait_until("a worker each", || (manager.processes().len() >= 2).then_some(()));
    manager.stop();
}
