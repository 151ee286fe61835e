//! Keeps the instances of all workers: a configuration in, tasks out; reloads, restarts, the end.
//!
//! Knows which instances there are, but not how they take jobs. `instances` has those of one
//! worker.
//!
//! Invariant: of one worker, at most one instance is being replaced at a time.

mod instances;

#[cfg(test)]
mod tests;

use std::rc::Rc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::Instant;
use tracing::info;

use self::instances::{Instances, Means};
use crate::config::Config;
use crate::instance::memory::Memory;
use crate::instance::{Order, Shared};
use crate::watch::Watch;

/// What the supervisor is told.
#[derive(Debug)]
pub enum Command {
    /// SIGHUP: take this configuration; only workers that changed restart.
    Reload(Config),
    /// SIGUSR1: restart all instances, one by one.
    RestartAll,
    /// A watched file changed: restart the instances of this worker, one by one.
    Restart(String),
    /// SIGTERM or SIGINT: drain and end. A second one kills what runs.
    Stop,
}

/// Runs the workers of a configuration until `Command::Stop`, and all that they started has ended.
/// Must run in a `LocalSet`.
pub async fn run(config: Config, shared: Rc<Shared>, mut commands: UnboundedReceiver<Command>) {
    let mut supervisor = Supervisor::new(shared);
    supervisor.take(config);
    // A command that starts before its files are watched could miss the change of them.
    supervisor.watch.begun().await;
    let mut is_open = true;
    loop {
        let due = supervisor.step(Instant::now());
        if supervisor.ending.is_some() && supervisor.workers.is_empty() {
            return;
        }
        let wake = Rc::clone(&supervisor.means.wake);
        tokio::select! {
            command = commands.recv(), if is_open => {
                is_open = command.is_some();
                supervisor.obey(command.unwrap_or(Command::Stop));
                supervisor.watch.begun().await;
            }
            worker = supervisor.watch.changed() => {
                info!(worker, "watched files changed");
                supervisor.obey(Command::Restart(worker));
            }
            () = wake.notified() => {}
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

struct Supervisor {
    means: Rc<Means>,
    /// In the order of the file; removed ones stay until they have ended.
    workers: Vec<Instances>,
    watch: Watch,
    /// The order that all have got at the end.
    ending: Option<Order>,
    memory_watch: JoinHandle<()>,
}

impl Supervisor {
    fn new(shared: Rc<Shared>) -> Self {
        let memory: Rc<Memory> = Rc::default();
        let watched = Rc::clone(&memory);
        Self {
            means: Rc::new(Means { shared, memory, wake: Rc::default() }),
            workers: Vec::new(),
            watch: Watch::default(),
            ending: None,
            memory_watch: spawn_local(async move { watched.watch().await }),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Stop => {
                let order = if self.ending.is_some() { Order::Kill } else { Order::Stop };
                match order {
                    Order::Kill => info!("all processes are killed"),
                    _ => info!("all instances end after their jobs; a second signal kills them"),
                }
                self.ending = Some(order);
                self.watch.set(Vec::new());
                for worker in &mut self.workers {
                    worker.end(order);
                }
            }
            _ if self.ending.is_some() => info!("nothing is changed any more, as the manager ends"),
            Command::Reload(config) => self.take(config),
            Command::RestartAll => {
                info!("all instances restart, one of each worker at a time");
                self.workers.iter_mut().for_each(Instances::restart);
            }
            Command::Restart(name) => {
                info!(worker = name, "the worker's instances restart, one by one");
                let is_meant = |worker: &&mut Instances| worker.name() == name;
                self.workers.iter_mut().filter(is_meant).for_each(Instances::restart);
            }
        }
    }

    /// Takes the workers of a configuration instead of those before.
    fn take(&mut self, config: Config) {
        self.means.memory.ask(config.http.is_some());
        let watched = config.workers.iter().filter(|worker| !worker.watch.is_empty());
        self.watch.set(watched.map(|it| (it.name.clone(), it.watch.clone())).collect());
        let mut before = std::mem::take(&mut self.workers);
        for worker in config.workers {
            let known = before.iter().position(|known| known.name() == worker.name);
            let instances = match known.map(|at| before.remove(at)) {
                Some(mut known) => {
                    known.set(worker);
                    known
                }
                None => Instances::new(worker, Rc::clone(&self.means)),
            };
            self.workers.push(instances);
        }
        for mut removed in before {
            if removed.end(Order::Stop) {
                info!(worker = removed.name(), "the worker is removed: its instances end");
            }
            self.workers.push(removed);
        }
    }

    /// Lets each worker go on. Returns when the next step is due.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        let due = self.workers.iter_mut().filter_map(|worker| worker.step(now)).min();
        self.workers.retain(|worker| !worker.has_ended());
        due
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.memory_watch.abort();
    }
}
