//! Dead letters, jobs that are to be run again, and pauses: jobs that workers fail in, lists and
//! what becomes of them out.

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::{Api, created, grab, submit};
use crate::conn::{Conn, Item};
use crate::harness::{Contender, each_ringgear, wait_until};
use crate::http::client;

each_ringgear!(
    a_job_that_failed_for_good_is_a_letter_until_it_is_requeued,
    letters_are_found_by_what_they_are,
    many_letters_are_requeued_and_dropped_by_their_filter,
    a_job_that_is_to_be_run_again_tells_when_and_starts_before,
    a_paused_function_gives_no_jobs_until_it_is_resumed,
);

const FUNCTIONS: &str = r#"
[[function]]
match = "once*"
attempts = 1

[[function]]
match = "slow"
attempts = 5
backoff = { first = "1h", max = "1h", jitter = 0.0 }
"#;

/// A server whose functions have policies; the file is needed as long.
fn start(contender: Contender) -> (Api, NamedTempFile) {
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), FUNCTIONS).expect("written");
    let option = format!("--functions-file={}", file.path().display());
    (Api::start_with(contender, &[&option]), file)
}

/// A worker with an id.
fn worker(api: &Api, functions: &[&str]) -> Conn {
    let mut worker = api.connect();
    worker.packet("SET_CLIENT_ID", &[b"worker-1"]);
    for function in functions {
        worker.packet("CAN_DO", &[function.as_bytes()]);
    }
    worker.sync().expect("registered");
    worker
}

/// Submits a job and has it fail. Returns its handle.
fn fail(api: &Api, function: &str, unique: &str, message: Option<&str>) -> String {
    let (mut client, mut worker) = (api.connect(), worker(api, &[function]));
    client.packet("SUBMIT_JOB_BG", &[function.as_bytes(), unique.as_bytes(), b"payload"]);
    let handle = created(&mut client);
    assert_eq!(grab(&mut worker), handle);
    match message {
        Some(message) => {
            worker.packet("WORK_EXCEPTION", &[handle.as_bytes(), message.as_bytes()]);
        }
        None => worker.packet("WORK_FAIL", &[handle.as_bytes()]),
    }
    worker.sync().expect("it lives");
    handle
}

/// Waits until there are so many letters, with a query that begins with `?`.
fn letters(api: &Api, query: &str, count: usize) -> Vec<Value> {
    wait_until("the letters", || {
        let mut list = api.json(&format!("/api/v1/dead{query}"));
        let Value::Array(letters) = list["dead"].take() else { panic!("no list: {list}") };
        (letters.len() == count).then_some(letters)
    })
}

/// What a path answers with once it has this at a JSON pointer: numbers are up to a second old.
fn once(api: &Api, path: &str, pointer: &str, value: impl Into<Value>) -> Value {
    let value = value.into();
    wait_until(pointer, || {
        let json = api.get(path).json();
        (json.pointer(pointer) == Some(&value)).then_some(json)
    })
}

fn a_job_that_failed_for_good_is_a_letter_until_it_is_requeued(contender: Contender) {
    let (api, _file) = start(contender);
    let handle = fail(&api, "once", "u", Some("no such file"));
    let letters = letters(&api, "", 1);
    let letter = &letters[0];
    assert_eq!(letter["handle"], *handle);
    assert_eq!(letter["function"], "once");
    assert_eq!((&letter["unique"], &letter["priority"]), (&json!("u"), &json!("normal")));
    assert_eq!((&letter["attempts"], &letter["reason"]), (&json!(1), &json!("exception")));
    assert_eq!((&letter["bytes"], &letter["worker"]), (&json!(7), &json!("worker-1")));
    assert_eq!(letter["message"], "no such file");
    assert!(letter["died"].as_f64() >= letter["submitted"].as_f64());
    let path = format!("/api/v1/dead/{handle}");
    let one = api.json(&path);
    assert_eq!((&one["reason"], one.get("payload")), (&json!("exception"), None));
    assert_eq!(api.json(&format!("{path}?payload=1"))["payload"], "payload");
    let function = once(&api, "/api/v1/functions/once", "/jobs_dead", 1);
    assert_eq!((&function["jobs_dead"], &function["jobs_retrying"]), (&json!(1), &json!(0)));
    assert_eq!(function["jobs_dead_total"]["exception"], 1);
    assert_eq!(function["jobs_failed_total"]["exception"], 1);
    let dead = &once(&api, "/api/v1/server", "/dead/count", 1)["dead"];
    assert_eq!((&dead["count"], &dead["count_limit"]), (&json!(1), &json!(10_000)));
    assert_eq!(
        (&dead["limit_bytes"], &dead["keep_seconds"]),
        (&json!(64 << 20), &json!(2_592_000.0))
    );
    assert!(dead["used_bytes"].as_u64() > Some(7));
    assert_eq!(api.get(&format!("/api/v1/jobs/{handle}")).status, 404, "a letter is no job");
    // It is run again with its handle, unless its unique key is in use.
    let body = json!({"handle": handle}).to_string();
    let requeue = |body: &str| {
        let answer = api.change("POST", "/api/v1/dead/requeue", body.as_bytes());
        (answer.status, answer.json())
    };
    let mut client = api.connect();
    client.packet("SUBMIT_JOB_BG", &[b"once", b"u", b"other"]);
    let other = created(&mut client);
    let skipped = json!({"matched": 1, "done": 0, "skipped": 1});
    assert_eq!(requeue(&body), (202, skipped));
    let cancelled = api.change("DELETE", &format!("/api/v1/jobs/{other}"), b"");
    assert_eq!(cancelled.status, 204);
    assert_eq!(requeue(&body), (202, json!({"matched": 1, "done": 1, "skipped": 0})));
    assert_eq!(requeue(&body).0, 404, "it is a job again");
    let mut worker = worker(&api, &["once"]);
    assert_eq!(grab(&mut worker), handle);
    worker.packet("WORK_FAIL", &[handle.as_bytes()]);
    // Cancelling it removes it.
    wait_until("its next death", || (api.get(&path).status == 200).then_some(()));
    let cancelled = api.change("DELETE", &format!("/api/v1/jobs/{handle}"), b"");
    assert_eq!((cancelled.status, api.get(&path).status), (204, 404));
}

fn letters_are_found_by_what_they_are(contender: Contender) {
    let (api, _file) = start(contender);
    let mut handles: Vec<String> = Vec::new();
    for function in ["once-a", "once-b", "once*"] {
        handles.push(fail(&api, function, "u", None));
        handles.push(fail(&api, function, "v", Some("x")));
    }
    letters(&api, "", 6);
    for (query, count) in [
        ("?function=once-a", 2),
        ("?function=once-*", 4),
        ("?function=once%5C*", 2),
        ("?function=none", 0),
        ("?reason=fail", 3),
        ("?unique=v", 3),
        ("?unique=v&reason=fail", 0),
        ("?older=1h", 0),
        ("?older=0s", 6),
    ] {
        assert_eq!(letters(&api, query, count).len(), count, "{query}");
    }
    once(&api, "/api/v1/dead", "/total", 6);
    once(&api, "/api/v1/dead?function=once-*", "/total", 4);
    assert!(api.json("/api/v1/dead?reason=fail")["total"].is_null());
    let (rows, _) = api.pages("/api/v1/dead?limit=1", "dead");
    let mut listed: Vec<&str> = rows.iter().filter_map(|row| row["handle"].as_str()).collect();
    listed.sort_unstable();
    handles.sort_unstable();
    assert_eq!(listed, handles);
    for (query, parameter) in [
        ("?reason=bad", "reason"),
        ("?older=90", "older"),
        ("?older=1w", "older"),
        ("?function=a%5C", "function"),
        ("?limit=0", "limit"),
        ("?after=x", "after"),
        ("?state=dead", "state"),
    ] {
        assert_eq!(api.refused(&format!("/api/v1/dead{query}")), parameter, "{query}");
    }
    let cursor = api.json("/api/v1/dead?limit=1")["next"].as_str().expect("more").to_owned();
    assert_eq!(api.refused(&format!("/api/v1/dead?reason=fail&after={cursor}")), "after");
    for path in ["/api/v1/dead/H:none:7", "/api/v1/dead/x"] {
        assert_eq!(api.get(path).status, 404, "{path}");
    }
}

/// Submits jobs that all fail.
fn fail_many(api: &Api, function: &str, count: usize) {
    let (mut client, mut worker) = (api.connect(), worker(api, &[function]));
    for _ in 0..count {
        client.packet("SUBMIT_JOB_BG", &[function.as_bytes(), b"", b"x"]);
    }
    for _ in 0..count {
        created(&mut client);
    }
    for _ in 0..count {
        let handle = grab(&mut worker);
        worker.packet("WORK_FAIL", &[handle.as_bytes()]);
    }
    worker.sync().expect("it lives");
}

fn many_letters_are_requeued_and_dropped_by_their_filter(contender: Contender) {
    let (api, _file) = start(contender);
    fail_many(&api, "once-a", 600);
    fail_many(&api, "once-b", 3);
    let change = |method: &str, path: &str, body: Value| {
        let answer = api.change(method, path, body.to_string().as_bytes());
        (answer.status, answer.json())
    };
    let all = |count| json!({"matched": count, "done": count, "skipped": 0});
    wait_until("all letters", || (api.json("/api/v1/dead")["total"] == 603).then_some(()));
    for body in [json!({}), json!({"all": false}), json!({"all": true, "reason": "fail"})] {
        let (status, error) = change("DELETE", "/api/v1/dead", body);
        assert_eq!((status, &error["error"]["code"]), (400, &json!("BAD_BODY")), "{error}");
    }
    let nothing = api.change("POST", "/api/v1/dead/requeue", b"");
    assert_eq!((nothing.status, nothing.code().as_str()), (400, "BAD_BODY"));
    let answer = client::ask(api.http, "POST", "/api/v1/dead/requeue", &[], br#"{"all":true}"#);
    assert_eq!((answer.status, answer.code().as_str()), (403, "CROSS_SITE"));
    let old = change("DELETE", "/api/v1/dead", json!({"older": "1h"}));
    assert_eq!(old, (202, all(0)));
    let requeued = change("POST", "/api/v1/dead/requeue", json!({"function": "once-a"}));
    assert_eq!(requeued, (202, all(600)));
    let function = api.json("/api/v1/functions/once-a");
    assert_eq!(
        (&function["jobs_dead"], &function["jobs_queued"]["normal"]),
        (&json!(0), &json!(600))
    );
    let dropped = change("DELETE", "/api/v1/dead", json!({"all": true}));
    assert_eq!(dropped, (202, all(3)));
    fail_many(&api, "once-b", 2);
    wait_until("the letters", || (api.json("/api/v1/dead")["total"] == 2).then_some(()));
    let purged = api.change("DELETE", "/api/v1/functions/once-b/jobs?state=dead", b"");
    assert_eq!((purged.status, purged.json()), (202, json!({"removed": 2})));
    assert_eq!(api.json("/api/v1/dead")["total"], 0);
}

fn a_job_that_is_to_be_run_again_tells_when_and_starts_before(contender: Contender) {
    let (api, _file) = start(contender);
    let handle = fail(&api, "slow", "", None);
    let path = format!("/api/v1/jobs/{handle}");
    let job = wait_until("its failure", || {
        let job = api.json(&path);
        (job["state"] == "retrying").then_some(job)
    });
    assert_eq!((&job["attempts"], &job["last_reason"]), (&json!(1), &json!("fail")));
    let wait_s = job["run_at"].as_f64().unwrap_or(0.0) - job["submitted"].as_f64().unwrap_or(0.0);
    assert!((3590.0..3660.0).contains(&wait_s), "{job}");
    let mut client = api.connect();
    client.packet("SUBMIT_JOB_EPOCH", &[b"slow", b"", b"4000000000", b"x"]);
    let delayed = created(&mut client);
    for (state, count) in [("retrying", 1), ("delayed", 2), ("queued", 0)] {
        let path = format!("/api/v1/jobs?function=slow&state={state}");
        let list = once(&api, &path, "/total", count);
        assert_eq!(list["jobs"].as_array().map(Vec::len), Some(count), "{state}");
    }
    assert_eq!(api.json("/api/v1/functions?sort=retrying")["functions"][0]["jobs_retrying"], 1);
    // Both start before their time; then neither waits any more.
    let mut worker = worker(&api, &["slow"]);
    for handle in [&handle, &delayed] {
        let run = format!("/api/v1/jobs/{handle}/run");
        assert_eq!(api.change("POST", &run, b"").status, 204);
        assert_eq!(grab(&mut worker), **handle);
        let again = api.change("POST", &run, b"");
        assert_eq!((again.status, again.code().as_str()), (409, "NOT_WAITING"));
        worker.packet("WORK_FAIL", &[handle.as_bytes()]);
        worker.sync().expect("it lives");
    }
    assert_eq!(api.change("POST", "/api/v1/jobs/H:none:7/run", b"").status, 404);
    submit(&mut client, b"slow", b"stays");
    let purged = api.change("DELETE", "/api/v1/functions/slow/jobs?state=retrying", b"");
    assert_eq!((purged.status, purged.json()), (202, json!({"removed": 2})));
    once(&api, "/api/v1/functions/slow", "/jobs_queued/normal", 1);
}

fn a_paused_function_gives_no_jobs_until_it_is_resumed(contender: Contender) {
    let (api, _file) = start(contender);
    let mut worker = worker(&api, &["a"]);
    let pause = |body: &[u8]| api.change("POST", "/api/v1/functions/a/pause", body).status;
    assert_eq!(pause(b""), 204);
    assert_eq!(api.json("/api/v1/functions/a")["paused"], json!({"until": null}));
    let handle = submit(&mut api.connect(), b"a", b"x");
    worker.packet("GRAB_JOB", &[]);
    assert_eq!(worker.next().expect("an answer"), Item::Packet(10, Vec::new()), "NO_JOB");
    for body in [&br#"{"seconds":0}"#[..], br#"{"seconds":-1}"#, br#"{"minutes":1}"#, b"x"] {
        assert_eq!(pause(body), 400, "{}", body.escape_ascii());
    }
    assert_eq!(pause(br#"{"seconds":3600}"#), 204);
    let function = api.json("/api/v1/functions/a");
    let now_s = api.json("/api/v1/functions")["time"].as_f64().expect("a time");
    let left_s = function["paused"]["until"].as_f64().expect("a time") - now_s;
    assert!((3500.0..3700.0).contains(&left_s), "{function}");
    let metrics = wait_until("the time of the pause", || {
        let text = api.get("/metrics").text();
        let name = "ringgear_function_limited_seconds_total{function=\"a\",limit=\"pause\"}";
        text.contains(name).then_some(text)
    });
    assert!(metrics.contains("ringgear_jobs_queued{function=\"a\",priority=\"normal\"} 1"));
    let resume = |name: &str| api.change("POST", &format!("/api/v1/functions/{name}/resume"), b"");
    assert_eq!(resume("a").status, 204);
    assert_eq!(grab(&mut worker), handle);
    assert!(api.json("/api/v1/functions/a")["paused"].is_null());
    assert_eq!((resume("a").status, resume("none").status), (204, 404));
    // A function that isn't known yet.
    assert_eq!(api.change("POST", "/api/v1/functions/new/pause", b"").status, 204);
    assert_eq!(api.json("/api/v1/functions/new")["paused"], json!({"until": null}));
}
