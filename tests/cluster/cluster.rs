//! Three servers on one database, with the ledger of their clients and workers.

use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use crate::child::wait_until;
use crate::database::Pair;
use crate::ledger::{Entries, Ledger, Verdict};
use crate::node::{Listed, Node};

/// Number, state and address of each partition.
pub(crate) type Owners = Vec<(u32, String, String)>;

pub(crate) struct Cluster {
    // The servers end before the database.
    pub(crate) nodes: Vec<Node>,
    pub(crate) database: Pair,
    pub(crate) ledger: Arc<Ledger>,
}

impl Cluster {
    /// Three servers on loopback with these options; `None` if this machine has no PostgreSQL.
    pub(crate) fn start(options: &[&str]) -> Option<Self> {
        let database = Pair::start()?;
        let url = database.url();
        let node = |_| {
            let mut node = Node::on_loopback(&[&["--store", &url, "--cluster"], options].concat());
            node.add_options(&["--advertise", &node.address.to_string()]);
            node
        };
        Some(Self::of((0..3).map(node).collect(), database))
    }

    /// Starts these servers, and waits until they know each other.
    pub(crate) fn of(nodes: Vec<Node>, database: Pair) -> Self {
        let mut cluster = Self { nodes, database, ledger: Arc::new(Ledger::new()) };
        for node in &mut cluster.nodes {
            node.start();
        }
        cluster.wait_until_whole();
        cluster
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    pub(crate) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.ledger.entries()
    }

    /// Waits until every server owns a partition that all the others list, and none is without an
    /// owner.
    pub(crate) fn wait_until_whole(&self) {
        wait_until("all servers to own partitions", || {
            let is_whole = |list: Vec<Listed>| {
                let owns = |node: &Node| {
                    let address = node.address.to_string();
                    list.iter().any(|it| it.is_owned() && it.address == address)
                };
                self.nodes.iter().all(owns) && list.iter().all(|it| self.is_served(it))
            };
            let mut lists = self.nodes.iter().map(Node::partitions);
            lists.all(|list| list.is_ok_and(is_whole)).then_some(())
        });
    }

    /// Whether a partition is free, or owned by a server whose process is there.
    fn is_served(&self, partition: &Listed) -> bool {
        let is_started =
            |node: &Node| node.is_started() && node.address.to_string() == partition.address;
        match &*partition.state {
            "free" => true,
            "owned" => self.nodes.iter().any(is_started),
            _ => false,
        }
    }

    /// The partitions and their owners, as server number `at` lists it.
    pub(crate) fn owners(&self, at: usize) -> Owners {
        let partitions = wait_until("a list", || self.nodes[at].partitions().ok());
        partitions.into_iter().map(|it| (it.id, it.state, it.address)).collect()
    }

    /// The partitions that server number `of` owns, as server number `at` lists them.
    pub(crate) fn owned_by(&self, of: usize, at: usize) -> Vec<u32> {
        let address = self.nodes[of].address.to_string();
        let owners = self.owners(at).into_iter();
        owners.filter(|it| it.1 == "owned" && it.2 == address).map(|it| it.0).collect()
    }

    /// Waits until server number `at` lists another owner for all of these partitions, or none;
    /// how long it took.
    pub(crate) fn wait_until_taken(&self, partitions: &[u32], of: usize, at: usize) -> Duration {
        let start = Instant::now();
        wait_until("partitions to be taken", || {
            let owned = self.owned_by(of, at);
            partitions.iter().all(|id| !owned.contains(id)).then_some(())
        });
        start.elapsed()
    }

    /// Checks the verdict, with what the database has now.
    pub(crate) fn check(&self, what: &str) -> Verdict {
        let stored = self.database.jobs();
        let verdict = self.entries().verdict(&stored);
        verdict.check(what);
        verdict
    }
}
