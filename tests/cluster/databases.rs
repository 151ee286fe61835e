//! What happens to the database: no partition moves for it, and nothing is lost.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::load::{Load, submit};
use crate::{IMPATIENCE, PATIENCE};

/// Clients don't hear of a failover that takes less.
const HELD: [&str; 2] = ["--store-timeout", "60000"];

/// Waits until so many more jobs were acknowledged.
fn wait_for_more(cluster: &Cluster, jobs: usize) {
    let before = cluster.entries().acknowledgements();
    let goes_on =
        cluster.ledger.wait(PATIENCE, |entries| entries.acknowledgements() > before + jobs);
    assert!(goes_on, "nothing is acknowledged:\n{}", cluster.nodes[0].log());
}

#[test]
fn a_failover_of_the_database_moves_no_partition_and_no_client_hears_of_it() {
    let Some(mut cluster) = Cluster::start(&HELD) else { return };
    let ledger = cluster.ledger.clone();
    let load = Load::on(&cluster.addresses(), &ledger, 2 * PATIENCE);
    wait_for_more(&cluster, 1000);
    let before = cluster.owners(0);
    ledger.during(|| {
        cluster.database.fail_over();
        // Each server has to connect again.
        for node in &cluster.nodes {
            submit(node.address, "late", &ledger);
        }
    });
    wait_for_more(&cluster, 500);
    assert_eq!(cluster.owners(0), before);
    let addresses = cluster.addresses();
    let mut load = load;
    load.work(&addresses, 0..3, "late");
    load.end();
    cluster.check("the standby of the database promoted");
    let refusals = &cluster.entries().refusals;
    assert!(refusals.is_empty(), "{refusals:?}");
}

#[test]
fn sessions_that_are_ended_and_statements_that_are_cancelled_move_no_partition() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let ledger = cluster.ledger.clone();
    let load = Load::on(&cluster.addresses(), &ledger, IMPATIENCE);
    wait_for_more(&cluster, 500);
    let before = cluster.owners(0);
    for _ in 0..3 {
        ledger.during(|| assert!(cluster.database.terminate_sessions() >= 3));
        wait_for_more(&cluster, 200);
    }
    for _ in 0..20 {
        ledger.during(|| cluster.database.cancel_statements());
        wait_for_more(&cluster, 20);
    }
    ledger.during(|| cluster.database.lock_jobs(Duration::from_secs(2)));
    wait_for_more(&cluster, 200);
    assert_eq!(cluster.owners(0), before);
    load.end();
    cluster.check("sessions ended, statements cancelled, table locked");
}
