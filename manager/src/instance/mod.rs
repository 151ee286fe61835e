//! One instance of a worker: keeps a command at work until it is told to end.
//!
//! An instance is a task. `exec`, `lines` and `gearman` are its three ways to take jobs. Knows no
//! other instance: which of them run, and when they are replaced, the supervisor decides.
//!
//! Invariant: when `run` returns, no process of the instance is left, and each job that it was
//! assigned was finished or given back.

mod backoff;
mod exec;
#[cfg(test)]
pub(crate) mod fake_server;
mod gearman;
mod lifetime;
mod line_buffer;
mod lines;
#[cfg(test)]
mod log_lines;
mod logged_pipe;
pub mod memory;
mod orders;
mod outcome;
mod output_log;
mod restarts;
mod server_side;
mod shutdown;
mod status;
mod stderr;
mod subject;

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use crate::config::{Mode, Worker};
use crate::counters::{self, Counters};
use crate::gearman::{Ability, Client, Ending, Job, Servers};
use crate::process::guard::Guard;

use self::memory::Memory;
use self::orders::Orders;
use self::subject::Subject;

/// By how much the servers' time-out of a job is longer than the worker's.
const SERVER_TIMEOUT: Duration = Duration::from_secs(5);

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

    /// What a line of its log is about; the handle is empty between jobs.
    fn subject<'a>(&'a self, handle: &'a str) -> Subject<'a> {
        Subject { worker: &self.worker.name, instance: self.number, handle }
    }

    /// A client for its functions, not yet connected.
    fn client(&self) -> Client {
        // The server's time-out is for a manager that hangs: its own comes first.
        let timeout = self.worker.timeout.map(|timeout| timeout.saturating_add(SERVER_TIMEOUT));
        let ability = |function: &String| Ability { function: function.clone(), timeout };
        let abilities = self.worker.functions.iter().map(ability).collect();
        let counters = Rc::clone(&self.shared.counters);
        Client::new(Rc::clone(&self.shared.servers), abilities, self.id(), counters)
    }

    /// Tells a job's server how it ended, and asks it for the next unless this is the last. Counts
    /// and logs a result that no server took.
    async fn finish(
        &self,
        client: &mut Client,
        orders: &mut Orders,
        job: Job,
        ending: Ending,
        is_last: bool,
    ) {
        let handle = String::from_utf8_lossy(&job.handle).into_owned();
        let finish = async {
            if is_last {
                client.finish_and_rest(job, ending).await
            } else {
                client.finish(job, ending).await
            }
        };
        let is_taken = tokio::select! {
            // What can be sent at once is, also when the manager ends at once.
            biased;
            is_taken = finish => is_taken,
            () = orders.killed() => false,
        };
        if !is_taken {
            self.counters.results_lost.set(self.counters.results_lost.get() + 1);
            let Subject { worker, instance, handle } = self.subject(&handle);
            warn!(
                worker,
                instance,
                handle,
                "the job's result is lost, as the connection to its server broke; the server gives \
                 the job to another worker, so let jobs bear a second run"
            );
        }
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
