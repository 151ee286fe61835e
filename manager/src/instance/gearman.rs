//! Mode `gearman`: a command that is a Gearman worker itself.
//!
//! Knows no jobs: the command takes them from the servers in `GEARMAN_SERVERS`.
//!
//! Invariant: a process is told by SIGTERM that it is to end, and has `stop-wait` to do so.

use std::os::fd::AsFd as _;
use std::rc::Rc;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::lifetime::Lifetime;
use super::logged_pipe::LoggedPipe;
use super::memory::Entered;
use super::orders::Orders;
use super::subject::Subject;
use super::{Instance, Order, restarts, shutdown};
use crate::counters::{self, Ended};
use crate::process::{Descriptors, Group, Launch, pipes};

/// Keeps the command running, and replaces it when its lifetime is over, until an order to end.
pub(super) async fn run(instance: Instance) {
    let mut orders = Orders::new(instance.orders.clone(), instance.worker.stop_wait);
    let mut backoff = Backoff::of(&instance.worker);
    let mut told = String::new();
    while orders.take() == Order::Work {
        let started = Instant::now();
        let reason = match Process::start(&instance) {
            Ok(mut process) => {
                told.clear();
                instance.is_up.send_replace(true);
                process.watch(&instance, &mut orders, started).await
            }
            Err(sentence) => {
                restarts::tell_not_started(&instance, &mut told, sentence);
                Ended::NotStarted
            }
        };
        instance.counters.end(reason);
        if let Some(wait) = restarts::wait_after(reason, started.elapsed(), &mut backoff) {
            restarts::pause(&instance, reason, wait, &mut orders).await;
        }
    }
}

/// A process that runs.
struct Process {
    group: Group,
    memory: Entered,
    output: LoggedPipe,
    errors: LoggedPipe,
    counters: Rc<counters::Worker>,
}

impl Process {
    fn start(instance: &Instance) -> Result<Self, String> {
        let worker = &instance.worker;
        let servers = [("GEARMAN_SERVERS", instance.shared.servers_variable.as_str())];
        let launch = Launch::prepare(worker, &servers)?;
        let pipe = || {
            pipes::from_command().map_err(|error| {
                format!("cannot start the command: {error}; allow the manager more open files")
            })
        };
        let (output, output_end) = pipe()?;
        let (errors, errors_end) = pipe()?;
        let descriptors = Descriptors {
            output: Some(output_end.as_fd()),
            error: Some(errors_end.as_fd()),
            ..Descriptors::default()
        };
        let group = launch
            .start(&instance.shared.guard, &[], descriptors)
            .map_err(|error| error.to_string())?;
        let counters = Rc::clone(&instance.counters);
        counters.processes.set(counters.processes.get() + 1);
        Ok(Self {
            memory: instance.memory.enter(group.leader(), worker.memory_max, &counters),
            group,
            output: LoggedPipe::new(output, "stdout"),
            errors: LoggedPipe::new(errors, "stderr"),
            counters,
        })
    }

    /// Waits until the process has ended, or ends it; returns why.
    async fn watch(&mut self, instance: &Instance, orders: &mut Orders, started: Instant) -> Ended {
        let subject = instance.subject("");
        let worker = &instance.worker;
        let lifetime = Lifetime::begin(worker, started);
        let has_limit = worker.memory_max.is_some();
        let reason = loop {
            tokio::select! {
                status = self.group.ended() => {
                    restarts::tell_ended(subject, status, started.elapsed());
                    self.finish_logs(subject);
                    return restarts::by_itself(status);
                }
                order = orders.changed() => if let Some(reason) = order.ended() {
                    break reason;
                },
                () = lifetime.aged() => break Ended::MaxAge,
                _ = self.memory.exceeded(), if has_limit => break Ended::Memory,
                count = self.output.read() => self.output.log(count, subject),
                count = self.errors.read() => self.errors.log(count, subject),
            }
        };
        restarts::tell_replaced(instance, reason, started.elapsed());
        let now = Instant::now();
        let kill_at = orders.term_at();
        let Self { group, output, errors, .. } = self;
        let drain = async {
            loop {
                tokio::select! {
                    count = output.read() => output.log(count, subject),
                    count = errors.read() => errors.log(count, subject),
                }
            }
        };
        tokio::select! {
            _ = shutdown::end(group, now, kill_at, orders) => {}
            () = drain => {}
        }
        self.finish_logs(subject);
        reason
    }

    fn finish_logs(&mut self, subject: Subject<'_>) {
        self.output.finish(subject);
        self.errors.finish(subject);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.counters.processes.set(self.counters.processes.get().saturating_sub(1));
    }
}
