//! What each server says of the jobs and partitions of the others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::child::wait_until;
use crate::cluster::Cluster;
use crate::load::{Client, Grab, Worker, submit};
use crate::{PATIENCE, SLACK};

#[test]
fn every_server_knows_every_job_until_it_has_ended() {
    let Some(mut cluster) = Cluster::start(&[]) else { return };
    let ledger = cluster.ledger.clone();
    let addresses = cluster.addresses();
    let (_, handle) = submit(addresses[0], "f", &ledger);
    let mut clients: Vec<Client> =
        addresses.iter().map(|&address| Client::connect(address).unwrap()).collect();
    for client in &mut clients {
        assert_eq!(client.status(&handle), Some((true, false)));
    }
    let mut worker = Worker::connect(0, addresses[0], "f").unwrap();
    let Grab::Job(job) = worker.grab(&ledger) else { panic!("no job") };
    assert_eq!(clients[0].status(&handle), Some((true, true)));
    assert!(clients[1].status(&handle).unwrap().0);
    worker.complete(&job, &ledger);
    let start = Instant::now();
    for client in &mut clients {
        wait_until("the job to be unknown", || (!client.status(&handle)?.0).then_some(()));
    }
    assert!(start.elapsed() < Duration::from_secs(3) + SLACK, "{:?}", start.elapsed());

    // A killed server's job is known all the time, and is run under its handle.
    let (number, handle) = submit(addresses[0], "f", &ledger);
    let partitions = cluster.owned_by(0, 1);
    ledger.during(|| {
        cluster.nodes[0].kill();
        wait_until("its partition to be taken", || {
            for client in &mut clients[1..] {
                assert_eq!(client.status(&handle), Some((true, false)));
            }
            let owned = cluster.owned_by(0, 1);
            partitions.iter().all(|id| !owned.contains(id)).then_some(())
        });
    });
    let mut workers = [1, 2].map(|at| Worker::connect(at, addresses[at], "f").unwrap());
    wait_until("the job to be run", || {
        for worker in &mut workers {
            if let Grab::Job(job) = worker.grab(&ledger) {
                worker.complete(&job, &ledger);
            }
        }
        for client in &mut clients[1..] {
            client.status(&handle).expect("an answer");
        }
        (!cluster.entries().runs_of(number).is_empty()).then_some(())
    });
    cluster.check("status of jobs of others");
}

#[test]
fn every_server_lists_the_same_partitions() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let jobs = 7;
    for _ in 0..jobs {
        submit(cluster.nodes[2].address, "f", &cluster.ledger);
    }
    let own = cluster.nodes[2].address.to_string();
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let mut lists = Vec::new();
    for node in &cluster.nodes {
        let list = wait_until("the number of jobs", || {
            let list = node.partitions().ok()?;
            list.iter().any(|it| it.address == own && it.jobs == jobs).then_some(list)
        });
        for partition in list.iter().filter(|it| it.is_owned()) {
            assert_eq!(partition.name, host);
            assert!(partition.generation > 0, "{partition:?}");
            // Below 4 s, but for a machine that is busy.
            let age = partition.age.expect("an owner beats");
            assert!((0.0..4.0 + SLACK.as_secs_f64()).contains(&age), "{partition:?}");
        }
        let is_free = |state: &str| state == "free";
        assert!(list.iter().all(|it| it.age.is_none() == is_free(&it.state)), "{list:?}");
        let owned: BTreeSet<&str> =
            list.iter().filter(|it| it.is_owned()).map(|it| &*it.address).collect();
        assert_eq!(owned.len(), 3, "{list:?}");
        lists.push(list.into_iter().map(|it| (it.id, it.state, it.name, it.address, it.jobs)));
    }
    let mut lists = lists.into_iter().map(Vec::from_iter);
    let first = lists.next().unwrap();
    assert!(lists.all(|list| list == first), "{first:?}");
    let mut worker = Worker::connect(2, cluster.nodes[2].address, "f").unwrap();
    while let Grab::Job(job) = worker.grab(&cluster.ledger) {
        worker.complete(&job, &cluster.ledger);
    }
    assert!(cluster.ledger.wait_until_all_ran(PATIENCE));
    cluster.check("lists of partitions");
}
