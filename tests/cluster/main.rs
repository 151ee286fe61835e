//! Several servers on one database: real processes, PostgreSQL with a synchronous standby, clients
//! and workers that keep a ledger, and faults.
//!
//! Needs PostgreSQL; `nemesis` uses network namespaces and faketime where they are.
//! `CLUSTER_SECONDS=600 cargo test --test cluster nemesis` breaks things for ten minutes,
//! `CLUSTER_SEED` replays the choice; `CLUSTER_LOGS=1` prints the logs of servers that ended.

#![allow(clippy::unwrap_used, reason = "a fault of the test itself is a failed test")]

mod cluster;
mod database;
mod ledger;
mod load;
mod network;
mod node;

mod databases;
mod leaving;
mod nemesis;
mod outside;
mod servers;
mod standby;

/// Programs that are started.
#[path = "../support/child.rs"]
#[allow(dead_code)]
mod child;
/// Packets as the server's own tests cut them.
#[path = "../server/conn.rs"]
#[allow(dead_code)]
mod conn;
/// PostgreSQL as the store's own tests start it, which need more of it than these do.
#[path = "../support/postgres.rs"]
#[allow(dead_code)]
mod postgresql;
/// What this machine or user lacks.
#[path = "../server/skips.rs"]
mod skips;

use std::time::Duration;

/// How long anything may take that should take no time at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a client waits for an answer before it goes on at another server.
const IMPATIENCE: Duration = Duration::from_secs(1);
/// What a busy machine adds to a time that is promised.
const SLACK: Duration = Duration::from_secs(3);
/// What `--lease` is unless given.
const LEASE: Duration = Duration::from_secs(6);
