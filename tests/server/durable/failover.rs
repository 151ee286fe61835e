//! PostgreSQL fails over to its standby while this server runs: with all commits, or without some.

use super::standby::hosts;
use super::{complete, drain_texts, grab, start, submit_bg, worker};
use crate::conn::Conn;
use crate::harness::Contender;
use crate::postgresql;

/// The standby had not got the last commits when it became the primary. The server held jobs that
/// the table had lost, and said nothing; and jobs that were done would have run again.
#[test]
fn what_an_asynchronous_failover_takes_is_written_again() {
    let Some(mut primary) = postgresql::Server::start() else { return };
    let mut copy = primary.start_standby();
    let store = hosts(&[&primary, &copy]);
    let server = start(Contender::RinggearEpoll2, &["--store", &store]);
    server.wait_for_log("synchronous_standby_names is empty", |_| Some(()));
    let mut client = Conn::open(server.address());
    submit_bg(&mut client, "f", "done");
    submit_bg(&mut client, "f", "kept");
    let is_count = |count: u32| format!("SELECT count(*) = {count} FROM ringgear_job");
    let copied = "SELECT EXISTS (SELECT FROM pg_stat_replication \
                  WHERE replay_lsn >= pg_current_wal_lsn())";
    postgresql::wait_for(&mut primary.admin("jobs"), copied);
    copy.stop();
    let mut its_worker = worker(&server, &["f"]);
    let done = grab(&mut its_worker).expect("a job");
    assert_eq!(done.payload, b"done");
    complete(&mut its_worker, &done);
    for payload in ["lost", "lost, too"] {
        submit_bg(&mut client, "g", payload);
    }
    let mut other_worker = worker(&server, &["h"]);
    let handle = submit_bg(&mut client, "h", "running");
    let running = grab(&mut other_worker).expect("the job");
    assert_eq!(running.handle, handle);
    postgresql::wait_for(&mut primary.admin("jobs"), &is_count(4));

    primary.kill();
    copy.run();
    copy.promote();
    server.wait_for_log("has lost jobs that were committed", |rest| {
        rest.contains("jobs=3").then_some(())
    });
    server
        .wait_for_log("has jobs again that are done", |rest| rest.contains("jobs=1").then_some(()));
    postgresql::wait_for(&mut copy.admin("jobs"), &is_count(4));
    assert_eq!(server.log().matches("are written again").count(), 1, "{}", server.log());
    server.kill();
    let server = start(Contender::RinggearEpoll2, &["--store", &store]);
    assert_eq!(drain_texts(&server, &["f"]), ["kept"]);
    assert_eq!(drain_texts(&server, &["g"]), ["lost", "lost, too"]);
    assert_eq!(drain_texts(&server, &["h"]), ["running"]);
    server.stop();
}
