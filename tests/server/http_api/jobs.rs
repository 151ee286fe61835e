//! Jobs: by function and state, and by handle, with their payloads.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Api, created, grab, submit};
use crate::harness::{Contender, each_ringgear, wait_until};

each_ringgear!(jobs_are_listed_once_each_by_state, a_job_is_told_with_its_payload);

fn handles(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["handle"].as_str().expect("a handle").to_owned()).collect()
}

fn jobs_are_listed_once_each_by_state(contender: Contender) {
    let api = Api::start(contender);
    let (mut client, mut worker) = (api.connect(), api.connect());
    let functions = ["a", "b", "c", "d"];
    let mut all = BTreeSet::new();
    let mut queued = Vec::new();
    for function in functions {
        for job in 0..10 {
            let handle = submit(&mut client, function.as_bytes(), b"x");
            all.insert(handle.clone());
            if function == "a" && job > 0 {
                queued.push(handle);
            }
        }
    }
    client.packet("SUBMIT_JOB_HIGH_BG", &[b"a", b"key", b"x"]);
    let first = created(&mut client);
    client.packet("SUBMIT_JOB_EPOCH", &[b"a", b"", b"4000000000", b"x"]);
    let delayed = created(&mut client);
    client.packet("SUBMIT_JOB_LOW_BG", &[b"a", b"", b"x"]);
    let last = created(&mut client);
    worker.packet("SET_CLIENT_ID", &[b"w\xff"]);
    worker.packet("CAN_DO", &[b"a"]);
    let running = [grab(&mut worker), grab(&mut worker)];
    assert_eq!(running[0], first, "the urgent one");
    all.extend([first, delayed.clone(), last.clone()]);
    let (rows, totals) = api.pages("/api/v1/jobs?limit=7", "jobs");
    let found = handles(&rows);
    assert_eq!(found.len(), all.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), all, "each once");
    assert!(totals.iter().all(Value::is_null), "not known: {totals:?}");
    // As they will be given out.
    queued.push(last);
    wait_until("the numbers", || {
        let list = api.json("/api/v1/jobs?function=a&state=queued");
        (list["total"] == queued.len()).then_some(())
    });
    let (rows, _) = api.pages("/api/v1/jobs?function=a&state=queued&limit=2", "jobs");
    assert_eq!(handles(&rows), queued);
    let (rows, _) = api.pages("/api/v1/jobs?function=a&state=delayed", "jobs");
    assert_eq!(handles(&rows), [delayed]);
    assert_eq!(rows[0]["run_at"], 4_000_000_000.0);
    let (rows, _) = api.pages("/api/v1/jobs?state=running&limit=1", "jobs");
    let mut found = handles(&rows);
    found.sort();
    let mut expected = running.to_vec();
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(rows[0]["worker"]["id"], json!({"base64": "d/8="}));
    assert!(rows[0]["worker"]["address"].as_str().is_some_and(|it| it.starts_with("127.0.0.1:")));
    assert!(rows[0]["running_seconds"].is_number());
    let none = api.json("/api/v1/jobs?function=nothing&state=queued");
    assert_eq!(none, json!({"jobs": [], "total": 0, "next": null}));
}

fn a_job_is_told_with_its_payload(contender: Contender) {
    let api = Api::start(contender);
    let (mut client, mut worker) = (api.connect(), api.connect());
    client.packet("SUBMIT_JOB_LOW_BG", &[b"f", b"key", "größe".as_bytes()]);
    let handle = created(&mut client);
    let path = format!("/api/v1/jobs/{handle}");
    let job = api.json(&path);
    let part = |name: &str| job[name].clone();
    assert_eq!(part("handle"), handle.as_str());
    assert_eq!(part("function"), "f");
    assert_eq!(part("unique"), "key");
    assert_eq!((part("priority"), part("state")), ("low".into(), "queued".into()));
    assert_eq!((part("background"), part("bytes")), (true.into(), 7.into()));
    assert_eq!((part("attempts"), part("worker")), (0.into(), Value::Null));
    assert!(job["age_seconds"].as_f64().is_some_and(|age| (0.0..60.0).contains(&age)), "{job}");
    assert!(job.get("payload").is_none());
    assert_eq!(api.json(&format!("{path}?payload=1"))["payload"], "größe");
    assert_eq!(api.json(&format!("{}?payload=1", path.replace(':', "%3A")))["payload"], "größe");
    worker.packet("CAN_DO", &[b"f"]);
    assert_eq!(grab(&mut worker), handle);
    worker.packet("WORK_STATUS", &[handle.as_bytes(), b"3", b"10"]);
    worker.sync().expect("it lives");
    wait_until("the status", || {
        let job = api.json(&path);
        (job["status"] == json!({"numerator": 3, "denominator": 10})).then_some(())
    });
    worker.packet("WORK_COMPLETE", &[handle.as_bytes(), b""]);
    wait_until("its end", || (api.get(&path).status == 404).then_some(()));
    // Bytes that are no text, and more than are told.
    let handle = submit(&mut client, b"f", b"\xff");
    let job = api.json(&format!("/api/v1/jobs/{handle}?payload=1"));
    assert_eq!(job["payload"], json!({"base64": "/w=="}));
    let handle = submit(&mut client, b"f", "ä".repeat(40_000).as_bytes());
    let job = api.json(&format!("/api/v1/jobs/{handle}?payload=1"));
    assert_eq!(job["payload"].as_str().map(str::len), Some(64 << 10));
    assert_eq!((&job["payload_cut"], &job["bytes"]), (&json!(true), &json!(80_000)));
    for unknown in ["H:nowhere:1", "x", "", "%ff"] {
        assert_eq!(api.get(&format!("/api/v1/jobs/{unknown}")).status, 404, "{unknown}");
    }
}
