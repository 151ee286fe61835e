//! `/metrics` of a running server: valid, complete, and in agreement with what text commands say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use crate::conn::{Conn, Item};
use crate::harness::{Contender, Server, each_ringgear, tool, wait_until};
use crate::http::client::{Answer, ask};
use crate::tools::run;

each_ringgear!(jobs_add_up_in_each_scrape_and_no_counter_falls, names_with_escapes_stay_apart,);

/// A server that serves, and where it has HTTP.
fn start(contender: Contender, more: &[&str]) -> (Server, SocketAddr) {
    let (server, http) = crate::http::start(contender, more);
    let is_ready = || (ask(http, "GET", "/readyz", &[], b"").status == 200).then_some(());
    wait_until("the cores", is_ready);
    (server, http)
}

fn scrape_with(address: SocketAddr, headers: &[(&str, &str)]) -> Answer {
    let answer = ask(address, "GET", "/metrics", headers, b"");
    assert_eq!(answer.header("vary"), Some("Accept-Encoding"), "{}", answer.text());
    answer
}

fn scrape(address: SocketAddr) -> String {
    let answer = scrape_with(address, &[]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    String::from_utf8(answer.body).expect("text")
}

/// Samples by name with labels.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let mut samples = BTreeMap::new();
    for line in lines {
        let (name, value) = line.rsplit_once(' ').expect("a value");
        assert_eq!(samples.insert(name, value.parse().expect("a number")), None, "{line}");
    }
    samples
}

/// The sum of a function's samples of some families.
fn sum(samples: &BTreeMap<&str, f64>, function: &str, families: &[&str]) -> f64 {
    let label = format!("{{function=\"{function}\"");
    let of = |name: &&str| {
        families
            .iter()
            .any(|family| name.strip_prefix(family).is_some_and(|it| it.starts_with(&label)))
    };
    samples.iter().filter(|(name, _)| of(name)).map(|(_, value)| value).sum()
}

const CAME: [&str; 2] = ["ringgear_jobs_submitted_total", "ringgear_jobs_recovered_total"];
const ARE: [&str; 6] = [
    "ringgear_jobs_queued",
    "ringgear_jobs_delayed",
    "ringgear_jobs_running",
    "ringgear_jobs_completed_total",
    "ringgear_jobs_failed_total",
    "ringgear_jobs_handed_over_total",
];

/// Families of a text by their kind.
fn families<'t>(text: &'t str, kind: &str) -> BTreeSet<&'t str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines.filter_map(|line| line.split_once(' ').filter(|it| it.1 == kind).map(|it| it.0)).collect()
}

const FUNCTIONS: [&str; 5] = ["a", "b", "c", "d", "e"];

fn jobs_add_up_in_each_scrape_and_no_counter_falls(contender: Contender) {
    if !contender.is_here() {
        return;
    }
    let (server, http) = start(contender, &[]);
    let (mut client, mut worker) = (Conn::open(server.address()), Conn::open(server.address()));
    for function in FUNCTIONS {
        worker.packet("CAN_DO", &[function.as_bytes()]);
    }
    let mut before = BTreeMap::new();
    for round in 0..30 {
        for function in FUNCTIONS {
            for _ in 0..20 {
                client.packet("SUBMIT_JOB_BG", &[function.as_bytes(), b"", b"x"]);
            }
        }
        for _ in 0..60 {
            worker.packet("GRAB_JOB", &[]);
            let Ok(Item::Packet(11, body)) = worker.next() else { continue };
            let handle = body.split(|&byte| byte == 0).next().expect("a handle");
            match round % 3 {
                0 => worker.packet("WORK_FAIL", &[handle]),
                _ => worker.packet("WORK_COMPLETE", &[handle, b""]),
            }
        }
        let text = scrape(http);
        let samples = samples(&text);
        for function in FUNCTIONS.into_iter().chain(["_other"]) {
            let (came, are) = (sum(&samples, function, &CAME), sum(&samples, function, &ARE));
            assert_eq!(came, are, "{function}\n{text}");
        }
        let counters = families(&text, "counter");
        for (name, value) in &samples {
            let family = name.split('{').next().expect("a name");
            if counters.contains(family) {
                let before = before.insert((*name).to_owned(), *value).unwrap_or(0.0);
                assert!(*value >= before, "{name} fell from {before} to {value}");
            }
        }
    }
    client.sync().expect("answers");
    let status = || {
        let text = server.admin("status");
        let rows = text.lines().filter_map(|line| line.split_once('\t'));
        let first = |rest: &str| rest.split('\t').next().and_then(|it| it.parse::<f64>().ok());
        rows.map(|(name, rest)| (name.to_owned(), first(rest).expect("a number")))
            .collect::<BTreeMap<_, _>>()
    };
    wait_until("the scrape says what status says", || {
        let text = scrape(http);
        let samples = samples(&text);
        let jobs = ["ringgear_jobs_queued", "ringgear_jobs_running"];
        let told = FUNCTIONS.map(|it| (it.to_owned(), sum(&samples, it, &jobs)));
        (status() == BTreeMap::from(told)).then_some(())
    });
}

fn names_with_escapes_stay_apart(contender: Contender) {
    if !contender.is_here() {
        return;
    }
    let (server, http) = start(contender, &[]);
    let names: [&[u8]; 7] = [b"q\"", b"b\\", b"n\n", b"\xff", b"\\xff", b"\\x5cxff", b"_other"];
    let mut client = Conn::open(server.address());
    for name in names {
        client.packet("SUBMIT_JOB_BG", &[name, b"", b"x"]);
        assert!(matches!(client.next(), Ok(Item::Packet(8, _))));
    }
    let text = scrape(http);
    let samples = samples(&text);
    let submitted = |label: &str| sum(&samples, label, &["ringgear_jobs_submitted_total"]);
    let labels = [r#"q\""#, r"b\\", r"n\n", r"\\xff", r"\\x5cxff", r"\\x5cx5cxff", "_other"];
    for label in labels {
        assert_eq!(submitted(label), 1.0, "{label}\n{text}");
    }
    assert_eq!(samples["ringgear_functions{named=\"no\"}"], 1.0);
}

/// Two formats, gzip, and what is taken by none.
#[test]
fn formats_and_codings_are_negotiated() {
    let (_server, http) = start(Contender::RinggearEpoll, &[]);
    let open_metrics = scrape_with(http, &[("Accept", "application/openmetrics-text")]);
    assert!(open_metrics.text().ends_with("\n# EOF\n"));
    assert!(open_metrics.header("content-type").is_some_and(|it| it.contains("version=1.0.0")));
    let gzip = scrape_with(http, &[("Accept-Encoding", "gzip;q=0.5, identity;q=0")]);
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    assert_eq!(gzip.body[..2], [0x1f, 0x8b]);
    let plain = scrape_with(http, &[("Accept-Encoding", "gzip;q=0")]);
    assert_eq!(plain.header("content-encoding"), None);
    let none = scrape_with(http, &[("Accept", "text/plain;q=0")]);
    assert_eq!((none.status, none.code().as_str()), (406, "NOT_ACCEPTABLE"));
}

#[test]
fn twenty_thousand_functions_are_told_in_time_and_in_four_mebibytes() {
    let (server, http) = start(Contender::RinggearEpoll2, &[]);
    let mut worker = Conn::open(server.address());
    for number in 0..20_000 {
        worker.packet("CAN_DO", &[format!("function-{number:05}").as_bytes()]);
    }
    worker.sync().expect("an answer");
    // The other core registers its part after this one has answered.
    let text = wait_until("all functions are there", || {
        let text = scrape(http);
        let samples = samples(&text);
        let others = samples["ringgear_functions{named=\"no\"}"];
        let workers = sum(&samples, "_other", &["ringgear_workers"]);
        ((others, workers) == (19_000.0, 19_000.0)).then_some(text)
    });
    assert_eq!(samples(&text)["ringgear_functions{named=\"yes\"}"], 1000.0);
    assert!(text.len() < 4 << 20, "{} bytes", text.len());
}

#[test]
fn promtool_finds_nothing_wrong() {
    if tool("promtool").is_none() {
        return;
    }
    let (server, http) = start(Contender::RinggearEpoll2, &[]);
    Conn::open(server.address()).packet("SUBMIT_JOB_BG", &[b"f\"\n", b"", b"x"]);
    let finished = run("promtool", &["check", "metrics"], scrape(http).as_bytes());
    assert!(finished.status.success(), "{finished:?}");
    assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("", ""));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring");
    for (word, file) in [("check", "alerts.yml"), ("test", "alerts-tests.yml")] {
        let file = folder.join(file);
        let finished = run("promtool", &[word, "rules", file.to_str().expect("text")], b"");
        assert!(finished.status.success(), "{finished:?}");
    }
}

/// Names of metrics in a text.
fn named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|it| it.starts_with("ringgear_") || it.starts_with("process_"));
    let base = |name: &str| {
        let ends = |it: &&str| it.ends_with("_seconds") || it.ends_with("_attempts");
        let bucket = name.strip_suffix("_bucket").filter(ends);
        bucket.unwrap_or(name).to_owned()
    };
    names.map(base).collect()
}

/// What the rules, the board and the documentation name is there, and all that is there is
/// documented.
#[test]
fn what_is_named_elsewhere_is_there() {
    let folder = tempfile::tempdir().expect("a folder for the store");
    let store = format!("--store=sqlite:{}", folder.path().join("jobs.db").display());
    let (_server, http) = start(Contender::RinggearEpoll, &[&store]);
    let text = scrape(http);
    let there: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("it is there");
    // Those of partitions take PostgreSQL; a unit test compares their part with what is told.
    let manual = read("docs/metrics.md");
    let (before, rest) = manual.split_once("With a store on PostgreSQL").expect("that part");
    let (partitions, behind) = rest.split_once("\n## ").expect("another part behind it");
    assert_eq!(named_in(&format!("{before}{behind}")), there);
    let there = &there | &named_in(partitions);
    for path in ["monitoring/alerts.yml", "monitoring/alerts-tests.yml", "monitoring/grafana.json"]
    {
        let named = named_in(&read(path));
        assert!(named.len() > 5 && named.is_subset(&there), "{path}: {:?}", &named - &there);
    }
    serde_json::from_str::<serde_json::Value>(&read("monitoring/grafana.json")).expect("JSON");
}
