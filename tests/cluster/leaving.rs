//! Servers that leave on purpose: their jobs go on elsewhere, and no client sees an error.

use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::load::{Grab, Load, Worker, submit_many};
use crate::{PATIENCE, SLACK};

const BACKLOG: &str = "backlog";
const JOBS: u32 = 200;
/// How long after the last running job's end the jobs of a server that leaves are served.
const PROMISED: Duration = Duration::from_secs(1);

#[test]
fn what_a_leaving_server_had_is_served_elsewhere_a_second_after_its_last_running_job() {
    let Some(mut cluster) = Cluster::start(&[]) else { return };
    let ledger = cluster.ledger.clone();
    let addresses = cluster.addresses();
    let backlog = submit_many(addresses[0], BACKLOG, JOBS, &ledger);
    let mut worker = Worker::connect(0, addresses[0], BACKLOG).unwrap();
    let Grab::Job(running) = worker.grab(&ledger) else { panic!("no job") };
    let mut load = Load::on(&addresses, &ledger, PATIENCE);
    load.work(&addresses, 1..3, BACKLOG);
    assert!(ledger.wait(PATIENCE, |entries| entries.acknowledgements() > 1000));

    ledger.during(|| {
        let before = cluster.entries().acknowledgements();
        cluster.nodes[0].signal("TERM");
        // The load goes on elsewhere while the job runs.
        let goes_on = ledger.wait(PATIENCE, |entries| entries.acknowledgements() > before + 500);
        assert!(goes_on, "{}", cluster.nodes[0].log());
        worker.complete(&running, &ledger);
        let ended = Instant::now();
        let served = ledger
            .wait(PATIENCE, |entries| backlog.iter().all(|&job| !entries.runs_of(job).is_empty()));
        let after = ended.elapsed();
        assert!(served, "the backlog isn't served elsewhere");
        eprintln!("left: the {JOBS} jobs were run {after:.2?} after the last running job's end");
        assert!(after < PROMISED + SLACK, "{after:?}");
        assert_eq!(cluster.nodes[0].wait().code(), Some(0));
    });
    let runs = cluster.entries().runs_of(running.number).len();
    assert_eq!(runs, 1, "the job that ended while the server left");
    load.end();
    let verdict = cluster.check("one of three left");
    let refusals = &cluster.entries().refusals;
    assert!(refusals.is_empty(), "{refusals:?}");
    assert_eq!(verdict.repeated, 0, "{verdict}");
    assert!(verdict.longest_silence < PROMISED + SLACK, "{verdict}");
}

#[test]
fn a_rolling_restart_is_seen_by_no_client() {
    let Some(mut cluster) = Cluster::start(&[]) else { return };
    let ledger = cluster.ledger.clone();
    let load = Load::on(&cluster.addresses(), &ledger, PATIENCE);
    for at in 0..3 {
        ledger.during(|| {
            cluster.nodes[at].signal("TERM");
            assert_eq!(cluster.nodes[at].wait().code(), Some(0));
        });
        cluster.nodes[at].start();
        cluster.wait_until_whole();
        let before = cluster.entries().acknowledgements();
        assert!(ledger.wait(PATIENCE, |entries| entries.acknowledgements() > before + 300));
    }
    load.end();
    let verdict = cluster.check("all three restarted, one behind another");
    let refusals = &cluster.entries().refusals;
    assert!(refusals.is_empty(), "{refusals:?}");
    assert_eq!(verdict.repeated, 0, "{verdict}");
}
