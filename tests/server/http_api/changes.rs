//! Changes: jobs that are cancelled and purged, limits, as Gearman peers see them.

use serde_json::json;

use super::{Api, created, grab, submit};
use crate::conn::Item;
use crate::harness::{Contender, each_ringgear, wait_until};

each_ringgear!(
    a_cancelled_job_is_gone_for_its_client,
    a_purge_ends_all_that_waits,
    a_limit_holds_for_the_next_submission,
);

fn a_cancelled_job_is_gone_for_its_client(contender: Contender) {
    let api = Api::start(contender);
    let (mut client, mut worker) = (api.connect(), api.connect());
    for function in ["a", "b", "c"] {
        client.packet("SUBMIT_JOB", &[function.as_bytes(), b"", b"x"]);
        let handle = created(&mut client);
        let path = format!("/api/v1/jobs/{handle}");
        let answer = api.change("DELETE", &path, b"");
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer:?}");
        let failed = Item::Packet(14, handle.clone().into_bytes());
        assert_eq!(client.next().expect("its end"), failed);
        let answer = api.change("DELETE", &path, b"");
        assert_eq!((answer.status, &*answer.code()), (404, "NOT_FOUND"));
        api.server.wait_for_log(&format!("handle={handle}"), |_| Some(()));
    }
    // One that runs ends for its client, and its worker's result is for none.
    client.packet("SUBMIT_JOB", &[b"a", b"", b"x"]);
    let handle = created(&mut client);
    worker.packet("CAN_DO", &[b"a"]);
    assert_eq!(grab(&mut worker), handle);
    let path = format!("/api/v1/jobs/{handle}");
    assert_eq!(api.change("DELETE", &path, b"").status, 204);
    assert_eq!(client.next().expect("its end"), Item::Packet(14, handle.clone().into_bytes()));
    worker.packet("WORK_COMPLETE", &[handle.as_bytes(), b"late"]);
    worker.sync().expect("it lives");
    client.sync().expect("it lives");
    assert_eq!(client.unexpected(), None);
    for path in ["/api/v1/jobs/H:nowhere:7", "/api/v1/jobs/"] {
        assert_eq!(api.change("DELETE", path, b"").status, 404, "{path}");
    }
}

fn a_purge_ends_all_that_waits(contender: Contender) {
    let api = Api::start(contender);
    let (mut client, mut worker) = (api.connect(), api.connect());
    for _ in 0..2500 {
        client.packet("SUBMIT_JOB_BG", &[b"a", b"", b"x"]);
    }
    for _ in 0..2500 {
        created(&mut client);
    }
    client.packet("SUBMIT_JOB_EPOCH", &[b"a", b"", b"4000000000", b"x"]);
    created(&mut client);
    submit(&mut client, b"b", b"x");
    worker.packet("CAN_DO", &[b"a"]);
    let running = grab(&mut worker);
    let answer = api.change("DELETE", "/api/v1/functions/a/jobs?state=queued", b"");
    assert_eq!((answer.status, answer.json()), (202, json!({"removed": 2499})));
    // Delayed jobs and those that run stay.
    let status = api.server.admin("status");
    assert!(status.contains("a\t2\t1\t1\n"), "{status}");
    let row = api.json("/api/v1/functions/a");
    assert_eq!((&row["jobs_delayed"], &row["jobs_running"]), (&json!(1), &json!(1)), "{row}");
    let answer = api.change("DELETE", "/api/v1/functions/a/jobs?state=delayed", b"");
    assert_eq!((answer.status, answer.json()), (202, json!({"removed": 1})));
    let answer = api.change("DELETE", "/api/v1/functions/a/jobs?state=delayed", b"");
    assert_eq!((answer.status, answer.json()), (202, json!({"removed": 0})));
    worker.packet("WORK_COMPLETE", &[running.as_bytes(), b""]);
    worker.sync().expect("it lives");
    let answer = api.change("DELETE", "/api/v1/functions/nothing/jobs?state=queued", b"");
    assert_eq!((answer.status, &*answer.code()), (404, "NOT_FOUND"));
    for (query, status) in [("", 400), ("?state=running", 400), ("?state=queued&x", 400)] {
        let path = format!("/api/v1/functions/b/jobs{query}");
        assert_eq!(api.change("DELETE", &path, b"").status, status, "{path}");
    }
    assert_eq!(api.json("/api/v1/functions/b")["jobs_queued"]["normal"], 1);
    api.server.wait_for_log("jobs purged", |_| Some(()));
}

fn a_limit_holds_for_the_next_submission(contender: Contender) {
    let api = Api::start(contender);
    let mut client = api.connect();
    submit(&mut client, b"a/b", b"x");
    let path = "/api/v1/functions/a%2Fb/maxqueue";
    let limits = br#"{"high": 0, "normal": 2, "low": 1}"#;
    assert_eq!(api.change("PUT", path, limits).status, 204);
    submit(&mut client, b"a/b", b"x");
    client.packet("SUBMIT_JOB_BG", &[b"a/b", b"", b"x"]);
    assert!(matches!(client.next(), Ok(Item::Packet(19, _))), "the queue is full");
    let row = api.json("/api/v1/functions/a%2Fb");
    assert_eq!(row["maxqueue"], json!({"high": 0, "normal": 2, "low": 1}));
    assert_eq!(api.change("PUT", path, br#"{"high": 0, "normal": 0, "low": 0}"#).status, 204);
    submit(&mut client, b"a/b", b"x");
    for body in [
        "",
        "{}",
        "7",
        r#"{"high": 0, "normal": 0}"#,
        r#"{"high":-1,"normal":0,"low":0}"#,
        r#"{"high":0,"normal":0,"low":0,"x":0}"#,
        r#"{"high":0,"normal":0,"low":5000000000}"#,
    ] {
        let answer = api.change("PUT", path, body.as_bytes());
        assert_eq!((answer.status, &*answer.code()), (400, "BAD_BODY"), "{body}");
    }
    let headers = [("X-Ringgear", "1"), ("Content-Type", "text/plain")];
    let answer = crate::http::client::ask(api.http, "PUT", path, &headers, limits);
    assert_eq!(answer.status, 415);
    let unknown = api.change("PUT", "/api/v1/functions/nothing/maxqueue", limits);
    assert_eq!((unknown.status, &*unknown.code()), (404, "NOT_FOUND"));
    wait_until("the log", || api.server.log().contains("queues limited").then_some(()));
    for (method, path, allow) in [
        ("POST", "/api/v1/server", "GET,HEAD"),
        ("PUT", "/api/v1/functions/f", "GET,HEAD"),
        ("GET", "/api/v1/functions/f/maxqueue", "PUT"),
        ("PUT", "/api/v1/jobs/H:x:1", "GET,HEAD,DELETE"),
    ] {
        let answer = api.change(method, path, b"");
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.header("allow"), Some(allow), "{path}");
    }
}
