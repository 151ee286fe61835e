//! A job server that does one thing wrong, and what the load generator says about it.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

mod fake;

use clap::Parser;
use fake::{Fake, Wrong};
use loadgen::checker::Faults;
use loadgen::options::Options;
use loadgen::report::Report;

fn load(fake: &Fake, more: &[&str]) -> Report {
    let addr = fake.addr.to_string();
    let mut words = vec!["loadgen", "--addr", &addr, "--clients", "4", "--workers", "3"];
    words.extend(["--warm-up", "0", "--drain-timeout", "300ms", "--quiet", "--threads", "2"]);
    if !more.contains(&"--duration") {
        words.extend(["--jobs", "400"]);
    }
    words.extend(more);
    let options = Options::try_parse_from(words).unwrap();
    loadgen::run(&options).unwrap()
}

fn faults(wrong: Wrong, more: &[&str]) -> Faults {
    let report = load(&Fake::start(wrong), more);
    assert_eq!(report.exit_code(), u8::from(wrong != Wrong::Nothing), "{report}");
    report.faults
}

#[test]
fn a_right_server_has_no_faults() {
    let report = load(&Fake::start(Wrong::Nothing), &[]);
    assert_eq!((report.jobs, report.faults, report.exit_code()), (400, Faults::default(), 0));
    assert_eq!(report.latency_ns.len(), 400);
    assert!(report.latency_us.p50 > 0.0 && report.latency_us.max >= report.latency_us.p99);
}

#[test]
fn every_kind_of_load_is_clean_against_a_right_server() {
    let loads: &[&[&str]] = &[
        &["--pipeline", "16", "--functions", "5", "--extra-functions", "4"],
        &["--size", "64..300000", "--result-size", "exp:10k"],
        &["--unique", "0.7", "--unique-keys", "3", "--pipeline", "8"],
        &["--fresh-unique", "--priority-mix", "1:2:1", "--grab-all"],
        &["--mode", "background", "--pipeline", "4", "--priority-mix", "1:2:1"],
        &["--rate", "20000", "--spacing", "even"],
        &["--work-time", "exp:1ms", "--idle-workers", "3"],
        &["--idle-workers", "3", "--idle-for", "same"],
        &["--client-writes", "parts", "--worker-writes", "packets", "--extra-functions", "3"],
        &["--client-writes", "parts", "--worker-writes", "parts", "--size", "64..300000"],
    ];
    for more in loads {
        let report = load(&Fake::start(Wrong::Nothing), more);
        assert_eq!(report.faults, Faults::default(), "{more:?}: {report}");
        assert_eq!(report.jobs, 400, "{more:?}");
    }
}

#[test]
fn connections_are_counted_that_do_nothing_but_come_and_go() {
    let report = load(&Fake::start(Wrong::Nothing), &["--mode", "connect"]);
    assert_eq!((report.jobs, report.faults), (400, Faults::default()), "{report}");
    assert_eq!(report.latency_ns.len(), 400);
    let text = report.to_string();
    assert!(
        text.contains("connections         400 in ") && text.contains(" connections/s"),
        "{text}"
    );
}

#[test]
fn a_lost_answer_is_reported() {
    let expected = Faults { lost: 1, ..Faults::default() };
    assert_eq!(faults(Wrong::LosesAnswer, &[]), expected);
}

#[test]
fn a_lost_background_job_is_reported() {
    let expected = Faults { lost: 1, ..Faults::default() };
    assert_eq!(faults(Wrong::LosesJob, &["--mode", "background"]), expected);
}

#[test]
fn a_duplicated_answer_is_reported() {
    let expected = Faults { duplicated: 1, ..Faults::default() };
    assert_eq!(faults(Wrong::DuplicatesAnswer, &[]), expected);
}

#[test]
fn a_job_that_runs_twice_is_reported() {
    let expected = Faults { duplicated: 1, ..Faults::default() };
    assert_eq!(faults(Wrong::RunsTwice, &["--mode", "background"]), expected);
}

#[test]
fn swapped_answers_are_reported() {
    // Two answers, each under the other's handle.
    let expected = Faults { foreign: 2, ..Faults::default() };
    assert_eq!(faults(Wrong::SwapsAnswers, &[]), expected);
}

#[test]
fn an_answer_sent_to_the_wrong_client_is_reported() {
    let found = faults(Wrong::Misdelivers, &[]);
    assert_eq!((found.lost, found.foreign), (1, 1));
}

#[test]
fn a_changed_byte_is_reported() {
    let expected = Faults { foreign: 1, ..Faults::default() };
    assert_eq!(faults(Wrong::ChangesByte, &[]), expected);
}

#[test]
fn a_refused_job_is_reported_with_the_servers_words() {
    let report = load(&Fake::start(Wrong::Refuses), &[]);
    assert_eq!(report.faults, Faults { failed: 1, ..Faults::default() });
    assert_eq!(report.first_error.as_deref(), Some("QUEUE_ERROR: Job queue is full"));
}

#[test]
fn a_closed_connection_is_reported() {
    let found = faults(Wrong::HangsUp, &[]);
    assert_eq!((found.lost, found.failed), (1, 1));
}

#[test]
fn crashing_workers_mean_reruns_and_no_losses() {
    let report = load(&Fake::start(Wrong::Nothing), &["--worker-crash", "0.2"]);
    assert_eq!(report.faults, Faults::default(), "{report}");
    assert!(report.reruns > 20, "{report}");
}

#[test]
fn replaced_connections_lose_nothing() {
    let more = ["--churn", "400", "--duration", "500ms"];
    let report = load(&Fake::start(Wrong::Nothing), &more);
    assert_eq!(report.faults, Faults::default(), "{report}");
    assert!(report.replaced > 20, "{report}");
}
