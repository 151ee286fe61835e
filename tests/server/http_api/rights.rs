//! Each endpoint and each right: what peers may see and do that may see or change some functions.

use serde_json::Value;

use super::{Api, CHANGING, submit};
use crate::harness::{Contender, each_ringgear, wait_until};
use crate::http::client::{self, ask};

each_ringgear!(each_endpoint_asks_for_its_right, lists_show_what_a_peer_may_observe);

/// A server whose access list gives rights to this host by HTTP, and everything to Gearman peers.
fn start(contender: Contender, rules: &str) -> Api {
    let folder = tempfile::tempdir().expect("a folder for the list");
    let path = folder.path().join("access.toml");
    let all = "[\"submit\", \"work\", \"observe\", \"admin\"]";
    let list = format!(
        "{rules}[[rule]]\nwho = {{ HTTP }}\nmay-not = {all}\n\
         [[rule]]\nwho = {{ network = [\"127.0.0.1\"] }}\nmay = {all}\n"
    );
    let list = list.replace("HTTP", "listener = [\"127.0.0.1:0\"]");
    std::fs::write(&path, list).expect("the folder is writable");
    let (server, http) =
        crate::http::start(contender, &[&format!("--access-file={}", path.display())]);
    wait_until("the cores", || (client::get(http, "/readyz").status == 200).then_some(()));
    Api { server, http }
}

fn each_endpoint_asks_for_its_right(contender: Contender) {
    // A path, and the answers to those that may do nothing, submit, observe a, observe all, admin
    // a, admin all.
    let table = [
        ("GET", "/api/v1/functions", [403, 403, 200, 200, 200, 200]),
        ("GET", "/api/v1/functions/a", [403, 403, 200, 200, 200, 200]),
        ("GET", "/api/v1/functions/b", [403, 403, 403, 200, 403, 200]),
        ("GET", "/api/v1/jobs", [403, 403, 200, 200, 200, 200]),
        ("GET", "/api/v1/jobs?function=b", [403, 403, 403, 200, 403, 200]),
        ("GET", "/api/v1/jobs/A", [403, 403, 200, 200, 200, 200]),
        ("GET", "/api/v1/jobs/B", [403, 403, 404, 200, 404, 200]),
        ("GET", "/api/v1/jobs/A?payload=1", [403, 403, 403, 403, 200, 200]),
        ("GET", "/api/v1/server", [403, 403, 403, 200, 403, 200]),
        ("GET", "/api/v1/workers", [403, 403, 403, 200, 403, 200]),
        ("GET", "/api/v1/connections", [403, 403, 403, 200, 403, 200]),
        ("GET", "/api/v1/dead", [403, 403, 200, 200, 200, 200]),
        ("GET", "/api/v1/dead?function=b", [403, 403, 403, 200, 403, 200]),
        ("GET", "/api/v1/dead/A", [403, 403, 404, 404, 404, 404]),
        ("POST", "/api/v1/dead/requeue", [403, 403, 403, 403, 202, 202]),
        ("DELETE", "/api/v1/dead", [403, 403, 403, 403, 202, 202]),
        ("POST", "/api/v1/functions/a/pause", [403, 403, 403, 403, 204, 204]),
        ("POST", "/api/v1/functions/b/pause", [403, 403, 403, 403, 403, 204]),
        ("POST", "/api/v1/functions/a/resume", [403, 403, 403, 403, 204, 204]),
        ("POST", "/api/v1/functions/b/resume", [403, 403, 403, 403, 403, 204]),
        ("POST", "/api/v1/jobs/A/run", [403, 403, 403, 403, 409, 409]),
        ("POST", "/api/v1/jobs/B/run", [403, 403, 403, 403, 404, 409]),
        ("PUT", "/api/v1/functions/a/maxqueue", [403, 403, 403, 403, 204, 204]),
        ("PUT", "/api/v1/functions/b/maxqueue", [403, 403, 403, 403, 403, 204]),
        ("DELETE", "/api/v1/jobs/A", [403, 403, 403, 403, 204, 204]),
        ("DELETE", "/api/v1/jobs/B", [403, 403, 403, 403, 404, 204]),
        ("DELETE", "/api/v1/functions/a/jobs?state=queued", [403, 403, 403, 403, 202, 202]),
        ("DELETE", "/api/v1/functions/b/jobs?state=queued", [403, 403, 403, 403, 403, 202]),
    ];
    let rules = [
        "",
        "[[rule]]\nwho = { HTTP }\nmay = [\"submit\"]\n",
        "[[rule]]\nwho = { HTTP }\nmay = [\"observe\"]\nfunctions = [\"a\"]\n",
        "[[rule]]\nwho = { HTTP }\nmay = [\"observe\"]\n",
        "[[rule]]\nwho = { HTTP }\nmay = [\"admin\"]\nfunctions = [\"a\"]\n",
        "[[rule]]\nwho = { HTTP }\nmay = [\"admin\"]\n",
    ];
    for (at, rules) in rules.into_iter().enumerate() {
        let api = start(contender, rules);
        let mut client = api.connect();
        let [a, b] = [b"a", b"b"].map(|function| submit(&mut client, function, b"x"));
        if rules.contains("observe") || rules.contains("admin") {
            wait_until("the functions", || {
                let one = api.get("/api/v1/functions").json();
                (one["total"].as_u64() >= Some(1)).then_some(())
            });
        }
        for (method, path, expected) in table {
            let path = match path.strip_prefix("/api/v1/jobs/") {
                Some(rest) => {
                    let handle = if rest.starts_with('A') { &a } else { &b };
                    format!("/api/v1/jobs/{handle}{}", &rest[1..])
                }
                None => path.to_owned(),
            };
            let body: &[u8] = match method {
                "PUT" => br#"{"high":0,"normal":0,"low":0}"#,
                _ if path.contains("/dead") => br#"{"all":true}"#,
                _ => b"",
            };
            let answer = ask(api.http, method, &path, &CHANGING, body);
            assert_eq!(answer.status, expected[at], "{method} {path} by {rules:?}: {answer:?}");
            if answer.status == 403 {
                assert_eq!(answer.code(), "PERMISSION_DENIED");
                let observes = method == "GET" && (at < 2 || !path.contains("payload"));
                let right = if observes { "observe" } else { "admin" };
                let text = answer.text();
                assert!(text.contains(&format!("may not {right}")), "{method} {path}: {text}");
            }
        }
    }
}

fn lists_show_what_a_peer_may_observe(contender: Contender) {
    let rules = "[[rule]]\nwho = { HTTP }\nmay = [\"observe\"]\nfunctions = [\"mail-*\"]\n";
    let api = start(contender, rules);
    let mut client = api.connect();
    for function in ["mail-a", "secret", "mail-b", "mail"] {
        for _ in 0..5 {
            submit(&mut client, function.as_bytes(), b"x");
        }
    }
    let list = wait_until("both functions", || {
        let list = api.json("/api/v1/functions");
        (list["total"] == 2).then_some(list)
    });
    assert!(!list.to_string().contains("secret"), "{list}");
    let (rows, _) = api.pages("/api/v1/jobs?limit=3", "jobs");
    assert_eq!(rows.len(), 10);
    let is_shown = |row: &Value| row["function"].as_str().is_some_and(|it| it.starts_with("mail-"));
    assert!(rows.iter().all(is_shown), "{rows:?}");
    // Nor does a search tell of others.
    assert_eq!(api.json("/api/v1/functions?filter=mail")["total"], 2);
}
