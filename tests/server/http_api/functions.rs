//! Functions: filters, orders, pages, names of any bytes.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use super::{Api, grab, submit};
use crate::harness::{Contender, each_ringgear, wait_until};

each_ringgear!(
    a_list_has_each_function_once_in_every_order,
    names_may_be_any_bytes,
    filters_narrow_a_list,
    parameters_without_meaning_are_refused_and_named,
);

/// What a list is sorted by, of a row; what isn't counted comes first.
fn key(row: &Value, sort: &str) -> f64 {
    let sum = |name: &str| match &row[name] {
        Value::Object(parts) => parts.values().map(|part| part.as_f64().unwrap_or(-1.0)).sum(),
        number => number.as_f64().unwrap_or(-1.0),
    };
    match sort {
        "function" => 0.0,
        "waiting" => sum("jobs_queued"),
        "running" => sum("jobs_running"),
        "workers" => sum("workers"),
        "oldest" => (sum("queue_oldest_age_seconds") * 100.0).round(),
        "delayed" => sum("jobs_delayed"),
        "submitted" => sum("jobs_submitted_total"),
        "completed" => sum("jobs_completed_total"),
        "failed" => sum("jobs_failed_total"),
        "rate" => row["rate"]["completed"].as_f64().unwrap_or(-1.0),
        other => panic!("{other}"),
    }
}

fn a_list_has_each_function_once_in_every_order(contender: Contender) {
    let api = Api::start(contender);
    let (mut client, mut worker) = (api.connect(), api.connect());
    let names: Vec<String> = (0..40).map(|number| format!("f{number:02}")).collect();
    for (number, name) in names.iter().enumerate() {
        for _ in 0..number % 4 {
            submit(&mut client, name.as_bytes(), b"x");
        }
        if number % 5 == 0 {
            client.packet("SUBMIT_JOB_EPOCH", &[name.as_bytes(), b"", b"4000000000", b"x"]);
            super::created(&mut client);
        }
        if number % 3 == 0 {
            worker.packet("CAN_DO", &[name.as_bytes()]);
        }
        api.server.admin(&format!("create function {name}"));
    }
    // One of each that it can do and that waits.
    (0..5).for_each(|_| drop(grab(&mut worker)));
    wait_until("all functions", || {
        (api.json("/api/v1/functions")["total"] == names.len()).then_some(())
    });
    wait_until("five that run", || {
        let list = api.json("/api/v1/functions?sort=running&order=desc");
        (list["functions"][4]["jobs_running"] == 1).then_some(())
    });
    let sorts = [
        "function",
        "waiting",
        "running",
        "workers",
        "oldest",
        "delayed",
        "submitted",
        "completed",
        "failed",
        "rate",
    ];
    for sort in sorts {
        for order in ["asc", "desc"] {
            let path = format!("/api/v1/functions?sort={sort}&order={order}&limit=7");
            let (rows, totals) = api.pages(&path, "functions");
            assert!(totals.iter().all(|total| *total == names.len()), "{totals:?}");
            let found = rows.iter().map(|row| row["function"].as_str().expect("a name"));
            let found: Vec<&str> = found.collect();
            let mut sorted = found.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, names, "{path}");
            let is_sorted = rows.is_sorted_by(|one, other| {
                // Ages go on from page to page.
                let (one, other) = (key(one, sort), key(other, sort));
                if sort == "oldest" && one.min(other) >= 0.0 {
                    return true;
                }
                if order == "asc" { one <= other } else { one >= other }
            });
            assert!(is_sorted, "{path}: {found:?}");
            if sort == "function" {
                assert_eq!(found.is_sorted(), order == "asc", "{path}: {found:?}");
            }
        }
    }
    let one = api.json("/api/v1/functions/f03");
    assert_eq!(one["jobs_queued"]["normal"].as_u64().map(|jobs| jobs >= 2), Some(true), "{one}");
    assert_eq!(one["workers"], 1);
    assert!(one["queue_oldest_age_seconds"].as_f64().is_some_and(|age| age >= 0.0), "{one}");
    assert_eq!(one["maxqueue"], json!({"high": 0, "normal": 0, "low": 0}));
}

fn names_may_be_any_bytes(contender: Contender) {
    let api = Api::start(contender);
    let mut client = api.connect();
    let names: [&[u8]; 5] = [b"a/b c", b"\xff\xfe", "größe".as_bytes(), b"<img src=x>", b"%2F"];
    for name in names {
        submit(&mut client, name, b"x");
    }
    let encoded = ["a%2Fb%20c", "%ff%FE", "gr%C3%B6%C3%9Fe", "%3Cimg%20src=x%3E", "%252F"];
    let written = [
        json!("a/b c"),
        json!({"base64": "//4="}),
        json!("größe"),
        json!("<img src=x>"),
        json!("%2F"),
    ];
    let list = wait_until("all functions", || {
        let list = api.json("/api/v1/functions");
        (list["total"] == names.len()).then_some(list)
    });
    for (encoded, written) in encoded.iter().zip(written) {
        let one = api.json(&format!("/api/v1/functions/{encoded}"));
        assert_eq!(one["function"], written);
        let rows = list["functions"].as_array().expect("rows");
        assert!(rows.iter().any(|row| row["function"] == written), "{list}");
        let jobs = api.json(&format!("/api/v1/jobs?function={encoded}"));
        assert_eq!(jobs["jobs"][0]["function"], written, "{jobs}");
    }
    for missing in ["", "unknown", "a/b"] {
        let answer = api.get(&format!("/api/v1/functions/{missing}"));
        assert_eq!((answer.status, &*answer.code()), (404, "NOT_FOUND"), "{missing}");
    }
}

fn filters_narrow_a_list(contender: Contender) {
    let api = Api::start(contender);
    let mut client = api.connect();
    for name in ["Mail", "mail-in", "mail*", "other"] {
        submit(&mut client, name.as_bytes(), b"x");
    }
    wait_until("all functions", || (api.json("/api/v1/functions")["total"] == 4).then_some(()));
    for (query, names) in [
        ("filter=MAI", &["Mail", "mail*", "mail-in"][..]),
        ("filter=Mail", &["Mail"]),
        ("filter=mail*", &["mail*"]),
        ("filter=MAIL*", &["Mail", "mail*", "mail-in"]),
        ("filter=o?her", &["other"]),
        ("filter=", &["Mail", "mail*", "mail-in", "other"]),
        ("match=mail*", &["mail*", "mail-in"]),
        (r"match=mail%5c*", &["mail*"]),
        ("match=mail", &[]),
        ("match=*a*&filter=in", &["mail-in"]),
    ] {
        let list = api.json(&format!("/api/v1/functions?{query}"));
        let rows = list["functions"].as_array().expect("rows");
        let found: Vec<_> = rows.iter().filter_map(|row| row["function"].as_str()).collect();
        assert_eq!(found, names, "{query}");
        assert_eq!(list["total"], names.len(), "{query}");
    }
}

fn parameters_without_meaning_are_refused_and_named(contender: Contender) {
    let api = Api::start(contender);
    let list = "/api/v1/functions";
    for (path, name) in [
        ("functions?limit=0", "limit"),
        ("functions?limit=1001", "limit"),
        ("functions?sort=name", "sort"),
        ("functions?order=up", "order"),
        ("functions?after=x", "after"),
        ("functions?match=%5c", "match"),
        ("functions?match=%ff", "match"),
        ("functions?fliter=x", "fliter"),
        ("functions?limit=1&limit=2", "limit"),
        ("functions/f?x=1", "x"),
        ("jobs?state=dead", "state"),
        ("jobs?after=AAAA", "after"),
        ("jobs/H:x:1?payload=yes", "payload"),
        ("workers?sort=id", "sort"),
        ("connections?after=", "after"),
        ("server?x", "x"),
        ("events?x", "x"),
    ] {
        assert_eq!(api.refused(&format!("/api/v1/{path}")), name, "{path}");
    }
    let mut client = api.connect();
    for name in [b"a", b"b"] {
        submit(&mut client, name, b"x");
    }
    let cursor = wait_until("two functions", || {
        let page = api.json(&format!("{list}?limit=1&sort=waiting"));
        page["next"].as_str().map(str::to_owned)
    });
    for query in ["sort=waiting", "sort=waiting&limit=9"] {
        let page = api.json(&format!("{list}?{query}&after={cursor}"));
        assert_eq!(page["functions"][0]["function"], "b");
    }
    // A cursor is good for its list only.
    for query in ["sort=function", "sort=waiting&order=desc", "sort=waiting&filter=a"] {
        assert_eq!(api.refused(&format!("{list}?{query}&after={cursor}")), "after");
    }
}

#[test]
fn twenty_thousand_functions_are_listed_page_by_page() {
    let api = Api::start(Contender::RinggearEpoll2);
    let mut stream = api.server.connect();
    let mut text = String::new();
    (0..20_000).for_each(|number| text.push_str(&format!("create function f{number:05}\n")));
    let mut writer = stream.try_clone().expect("a stream");
    let writing = std::thread::spawn(move || writer.write_all(text.as_bytes()));
    let mut left = 20_000;
    let mut buffer = [0; 4096];
    while left > 0 {
        let bytes = stream.read(&mut buffer).expect("answers");
        left -= buffer[..bytes].iter().filter(|&&byte| byte == b'\n').count();
    }
    writing.join().expect("no panic").expect("written");
    wait_until("all functions", || {
        (api.json("/api/v1/functions?limit=1")["total"] == 20_000).then_some(())
    });
    let found = api.json("/api/v1/functions?filter=F199&limit=1000&sort=waiting&order=desc");
    assert_eq!(found["total"], 100, "{found}");
    assert_eq!(found["functions"][99]["function"], "f19999");
    let only = api.json("/api/v1/functions?filter=f12345");
    assert_eq!(only["total"], 1);
    let mut names = Vec::new();
    let mut after = String::new();
    for _ in 0..20 {
        let page = api.json(&format!("/api/v1/functions?limit=1000&order=desc{after}"));
        let rows = page["functions"].as_array().expect("rows");
        names.extend(rows.iter().filter_map(|row| row["function"].as_str().map(str::to_owned)));
        after = format!("&after={}", page["next"].as_str().unwrap_or_default());
    }
    let expected: Vec<String> = (0..20_000).rev().map(|number| format!("f{number:05}")).collect();
    assert!(names == expected, "each once, in order");
    assert_eq!(after, "&after=");
}
