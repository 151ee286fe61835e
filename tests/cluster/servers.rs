//! Servers that are killed, and servers that hang: what they had is served by the others.

use std::time::{Duration, Instant};

use crate::child::wait_until;
use crate::cluster::Cluster;
use crate::load::{Answer, Client, Grab, Load, Worker, submit, submit_many};
use crate::{IMPATIENCE, LEASE, PATIENCE, SLACK};

/// The function of jobs that wait on one server.
const BACKLOG: &str = "backlog";
const JOBS: u32 = 500;

/// Waits until jobs of the backlog were run: the times from `start` until the first one was, and
/// until all were.
fn wait_for_backlog(cluster: &Cluster, jobs: &[u64], start: Instant) -> [Duration; 2] {
    [1, jobs.len()].map(|count| {
        let done = cluster.ledger.wait(PATIENCE, |entries| {
            jobs.iter().filter(|job| !entries.runs_of(**job).is_empty()).count() >= count
        });
        assert!(done, "the backlog isn't served elsewhere:\n{}", cluster.nodes[1].log());
        start.elapsed()
    })
}

/// A load on all servers, and workers of the backlog on all but the first.
fn start_load(cluster: &Cluster) -> Load {
    let addresses = cluster.addresses();
    let mut load = Load::on(&addresses, &cluster.ledger, IMPATIENCE);
    load.work(&addresses, 1..3, BACKLOG);
    assert!(cluster.ledger.wait(PATIENCE, |entries| entries.acknowledgements() > 1000));
    load
}

#[test]
fn what_a_killed_server_had_is_served_elsewhere_within_3_s() {
    let Some(mut cluster) = Cluster::start(&[]) else { return };
    let backlog = submit_many(cluster.nodes[0].address, BACKLOG, JOBS, &cluster.ledger);
    let load = start_load(&cluster);
    let ledger = cluster.ledger.clone();
    let [first, all] = ledger.during(|| {
        let start = Instant::now();
        cluster.nodes[0].kill();
        wait_for_backlog(&cluster, &backlog, start)
    });
    eprintln!("killed: its first job was run after {first:.2?}, all {JOBS} after {all:.2?}");
    assert!(first < Duration::from_secs(3) + SLACK, "{first:?}");
    cluster.nodes[0].start();
    cluster.wait_until_whole();
    load.end();
    let verdict = cluster.check("one of three killed");
    assert!(verdict.longest_silence < IMPATIENCE + SLACK, "{verdict}");
}

#[test]
fn a_server_that_hangs_is_replaced_and_goes_on_with_nothing_of_what_it_lost() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let ledger = &cluster.ledger;
    let hung = &cluster.nodes[0];
    let backlog = submit_many(hung.address, BACKLOG, JOBS, ledger);
    // One job runs there, and another worker is about to ask.
    let mut busy = Worker::connect(0, hung.address, BACKLOG).unwrap();
    let Grab::Job(running) = busy.grab(ledger) else { panic!("no job") };
    let waiting: Vec<u64> = backlog.iter().copied().filter(|&job| job != running.number).collect();
    let mut asking = Worker::connect(0, hung.address, BACKLOG).unwrap();
    let mut client = Client::connect(hung.address).unwrap();
    let load = start_load(&cluster);
    let lost = cluster.owned_by(0, 1);

    let submitted = ledger.during(|| {
        let start = Instant::now();
        hung.signal("STOP");
        let submitted = ledger.new_job();
        client.send_job(BACKLOG, submitted);
        asking.ask();
        let [first, all] = wait_for_backlog(&cluster, &waiting, start);
        eprintln!("hung: its first job was run after {first:.2?}, all {JOBS} after {all:.2?}");
        let promised = LEASE + Duration::from_secs(2);
        assert!(first < promised + SLACK, "{first:?}");
        hung.signal("CONT");
        submitted
    });

    // The worker that asked meanwhile gets nothing that others have run, or the new job.
    match asking.answer(PATIENCE, ledger) {
        Grab::Job(job) => {
            assert_eq!(job.number, submitted, "a job of the lost partition");
            asking.complete(&job, ledger);
        }
        Grab::None | Grab::Unknown => {}
    }
    // What the other one says of its job goes nowhere.
    busy.complete(&running, ledger);
    let answer = client.answer(PATIENCE);
    if let Answer::Created(handle) = &answer {
        ledger.acknowledged(submitted, handle);
    }
    eprintln!("hung: the submission that waited there was answered with {answer:?}");
    // It has another partition then, and what it takes there is served.
    wait_until("a new partition", || {
        let owned = cluster.owned_by(0, 1);
        (!owned.is_empty() && owned.iter().all(|id| !lost.contains(id))).then_some(())
    });
    let (number, _) = submit(hung.address, BACKLOG, ledger);
    let mut worker = Worker::connect(0, hung.address, BACKLOG).unwrap();
    wait_until("the new jobs to be run", || {
        while let Grab::Job(job) = worker.grab(ledger) {
            assert!(!backlog.contains(&job.number), "a job of the lost partition");
            worker.complete(&job, ledger);
        }
        (!cluster.entries().runs_of(number).is_empty()).then_some(())
    });
    cluster.wait_until_whole();
    load.end();
    cluster.check("one of three stopped");
}
