//! PostgreSQL as a primary and a synchronous standby, and what can happen to it.
//!
//! Commits wait for the standby, so that a promotion loses nothing that was acknowledged. Both
//! servers keep their ports for as long as the pair is there: the job servers' URL has them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use postgres::Client;

use crate::postgresql::Server;

/// The sessions of job servers.
const OURS: &str = "FROM pg_stat_activity WHERE application_name LIKE 'ringgeard%'";

pub(crate) struct Pair {
    primary: Server,
    standby: Option<Server>,
    ports: [u16; 2],
    address: IpAddr,
}

impl Pair {
    /// Starts both on loopback; `None` if this machine has no PostgreSQL.
    pub(crate) fn start() -> Option<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into())
    }

    /// Starts both at an address of this host.
    pub(crate) fn start_at(address: IpAddr) -> Option<Self> {
        let primary = Server::start_at(address)?;
        let standby = primary.start_standby();
        primary.wait_for_standbys(1);
        let ports = [primary.port(), standby.port()];
        Some(Self { primary, standby: Some(standby), ports, address })
    }

    /// What `--store` takes: both servers, the one that can be written to.
    pub(crate) fn url(&self) -> String {
        let hosts = self.ports.map(|port| format!("{}:{port}", self.address)).join(",");
        format!("postgres://postgres@{hosts}/jobs?sslmode=disable&target_session_attrs=read-write")
    }

    /// A session with the primary.
    pub(crate) fn admin(&self) -> Client {
        self.primary.admin("jobs")
    }

    /// Kills the primary and lets the standby become the primary; there is no standby then.
    pub(crate) fn fail_over(&mut self) {
        let standby = self.standby.take().expect("a standby");
        self.primary.kill();
        standby.promote();
        self.primary = standby;
    }

    /// Starts a standby in the place of the server that was killed.
    pub(crate) fn add_standby(&mut self) {
        let port = self.ports.into_iter().find(|&port| port != self.primary.port());
        self.standby = Some(self.primary.start_standby_at(port));
        self.primary.wait_for_standbys(1);
    }

    /// Kills the primary and starts it again.
    pub(crate) fn crash(&mut self) {
        self.primary.kill();
        self.primary.run();
        assert!(self.ports.contains(&self.primary.port()), "its port was taken");
        // A standby that was at the end of the log connects again by itself.
        self.primary.wait_for_standbys(1);
    }

    /// Stops every process of the primary, or lets them go on.
    pub(crate) fn freeze(&self, is_frozen: bool) {
        let signal = if is_frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        for pid in self.primary.processes() {
            // A session may end meanwhile.
            let _ = kill(pid, signal);
        }
    }

    /// Ends the sessions of all job servers.
    pub(crate) fn terminate_sessions(&self) -> u64 {
        self.admin().execute(&format!("SELECT pg_terminate_backend(pid) {OURS}"), &[]).unwrap()
    }

    /// Cancels whatever job servers are waiting for.
    pub(crate) fn cancel_statements(&self) -> u64 {
        self.admin().execute(&format!("SELECT pg_cancel_backend(pid) {OURS}"), &[]).unwrap()
    }

    /// Locks the table of jobs against everything for a while.
    pub(crate) fn lock_jobs(&self, time: Duration) {
        let mut admin = self.admin();
        let mut lock = admin.transaction().unwrap();
        lock.batch_execute("LOCK TABLE ringgear_job IN ACCESS EXCLUSIVE MODE").unwrap();
        lock.execute("SELECT pg_sleep($1)", &[&time.as_secs_f64()]).unwrap();
        lock.commit().unwrap();
    }

    /// The numbers that are the payloads of all jobs in the database.
    pub(crate) fn jobs(&self) -> BTreeSet<u64> {
        let rows = self.admin().query("SELECT payload FROM ringgear_job", &[]).unwrap();
        let payloads = rows.iter().map(|row| String::from_utf8(row.get(0)).unwrap());
        payloads.map(|payload| payload.parse().expect("a number")).collect()
    }
}
