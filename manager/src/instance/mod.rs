//! One instance of a worker: keeps a command at work until it is told to end.
//!
//! An instance is a task. `exec`, `lines` and `gearman` are its three ways to take jobs. Knows no
//! other instance: which of them run, and when they are replaced, the supervisor decides.
//!
//! Invariant: when `run` returns, no process of the instance is left, and each job that it was
//! assigned was finished or given back.

mod backoff;
mod exec;
mod gearman;
mod lifetime;
mod line_buffer;
mod lines;
#[cfg(test)]
mod log_lines;
pub mod memory;
mod outcome;
#[cfg(test)]
pub(crate) mod samples;
mod server_side;
mod status;
mod stderr;
mod subject;

use std::rc::Rc;

use tokio::sync::watch;

use crate::config::{Mode, Worker};
use crate::counters::{self, Counters};
use crate::gearman::Servers;
use crate::process::guard::Guard;

use self::memory::Memory;

/// What an instance is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Take jobs.
    #[default]
    Work,
    /// Take no more jobs and end when the running one has, within `stop-wait`: another instance
    /// takes its place.
    Restart,
    /// The same, as the manager ends.
    Stop,
    /// End at once: kill what runs, and fail its job.
    Kill,
}

/// What all instances share.
#[derive(Debug)]
pub struct Shared {
    /// Where jobs come from.
    pub servers: Rc<Servers>,
    /// `GEARMAN_SERVERS` for commands: the servers with commas between.
    pub servers_variable: String,
    /// Numbers of all workers.
    pub counters: Rc<Counters>,
    /// Ends all processes when the manager is killed.
    pub guard: Rc<Guard>,
    /// This machine's name, for ids.
    pub host: String,
}

/// An instance before it runs.
#[derive(Debug)]
pub struct Instance {
    /// Its worker.
    pub worker: Rc<Worker>,
    /// Its number, from 1 on.
    pub number: usize,
    /// What all instances share.
    pub shared: Rc<Shared>,
    /// Numbers of its worker.
    pub counters: Rc<counters::Worker>,
    /// Looks at the memory of its process groups.
    pub memory: Rc<Memory>,
    /// What it is told.
    pub orders: watch::Receiver<Order>,
    /// Set once it works: its process runs, or it waits for jobs.
    pub is_up: watch::Sender<bool>,
}

impl Instance {
    /// Its id at the servers, as `thumbnail@host/1`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}@{}/{}", self.worker.name, self.shared.host, self.number)
    }

    /// Works until an order to end.
    pub async fn run(self) {
        match self.worker.mode {
            Mode::Exec => exec::run(self).await,
            Mode::Lines => lines::run(self).await,
            Mode::Gearman => gearman::run(self).await,
        }
    }
}
