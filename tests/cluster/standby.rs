//! One active server and one that waits with `--standby`, on PostgreSQL: no cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::child::wait_until;
use crate::database::Pair;
use crate::ledger::Ledger;
use crate::load::{Answer, Client, Grab, LOAD, Load, Worker, insist, submit_many};
use crate::node::Node;
use crate::{IMPATIENCE, LEASE, PATIENCE, SLACK};

#[test]
fn a_standby_replaces_an_active_server_that_is_killed_under_load() {
    let Some(mut database) = Pair::start() else { return };
    let ledger = Arc::new(Ledger::new());
    let url = database.url();
    let mut active = Node::on_loopback(&["--store", &url]);
    let mut standby = Node::on_loopback(&["--store", &url, "--standby"]);
    active.start();
    let load = Load::on(&[active.address, standby.address], &ledger, IMPATIENCE);
    standby.launch();
    assert!(ledger.wait(PATIENCE, |entries| entries.acknowledgements() > 500));
    ledger.during(|| {
        active.kill();
        standby.wait_until_it_serves();
    });
    // The database fails over, too.
    ledger.during(|| {
        database.fail_over();
        insist(standby.address, LOAD, &ledger);
    });
    load.end();
    ledger.entries().verdict(&database.jobs()).check("the active server killed");
}

#[test]
fn a_standby_replaces_an_active_server_that_hangs_and_nothing_is_acknowledged_by_two() {
    let Some(database) = Pair::start() else { return };
    let ledger = Arc::new(Ledger::new());
    let url = database.url();
    let mut active = Node::on_loopback(&["--store", &url]);
    let mut standby = Node::on_loopback(&["--store", &url, "--standby"]);
    active.start();
    let jobs = submit_many(active.address, "f", 200, &ledger);
    let mut worker = Worker::connect(0, active.address, "f").unwrap();
    let mut client = Client::connect(active.address).unwrap();
    standby.launch();
    wait_until("the standby to wait", || standby.log().contains("standing by").then_some(()));

    let submitted = ledger.during(|| {
        let start = Instant::now();
        active.signal("STOP");
        let submitted = ledger.new_job();
        client.send_job("f", submitted);
        worker.ask();
        standby.wait_until_it_serves();
        let after = start.elapsed();
        eprintln!("hung: the standby served after {after:.2?}");
        assert!(after < LEASE + Duration::from_secs(2) + SLACK, "{after:?}");
        let mut worker = Worker::connect(1, standby.address, "f").unwrap();
        while let Grab::Job(job) = worker.grab(&ledger) {
            worker.complete(&job, &ledger);
        }
        active.signal("CONT");
        submitted
    });
    for job in jobs {
        assert_eq!(ledger.entries().runs_of(job).len(), 1, "job {job}");
    }
    // The one that was replaced acknowledges and hands out nothing.
    let answer = client.answer(PATIENCE);
    assert!(!matches!(answer, Answer::Created(_)), "job {submitted}: {answer:?}");
    let grab = worker.answer(PATIENCE, &ledger);
    assert!(!matches!(grab, Grab::Job(_)), "{grab:?}");
    assert_eq!(active.wait().code(), Some(1));
    ledger.entries().verdict(&database.jobs()).check("the active server stopped");
}
