//! Mode `exec`: a process for each job.
//!
//! `run` is the run of a job, `streams` its pipes. This module takes jobs, and tells servers,
//! metrics and the log how they ended.
//!
//! Invariant: a command that can't be started fails a job for each back-off, and not a queue.

mod run;
mod streams;
#[cfg(test)]
mod tests;

use tokio::time::Instant;

use self::run::End;
use super::backoff::Backoff;
use super::orders::Orders;
use super::outcome::{self, Verdict};
use super::server_side::Assignment;
use super::{Instance, Order, restarts};
use crate::counters::{Ended, Outcome};
use crate::gearman::{Client, Job};
use crate::process::Launch;

/// Runs jobs, each by a process, until an order to end.
pub(super) async fn run(instance: Instance) {
    let orders = Orders::new(instance.orders.clone(), instance.worker.stop_wait);
    let client = instance.client();
    let backoff = Backoff::of(&instance.worker);
    Exec { instance, orders, client, launch: None, backoff, told: String::new() }.run().await;
}

struct Exec {
    instance: Instance,
    orders: Orders,
    client: Client,
    /// `None` before the first job, and after the command couldn't be started.
    launch: Option<Launch>,
    backoff: Backoff,
    /// Why the command couldn't be started, as it was logged last.
    told: String,
}

impl Exec {
    async fn run(mut self) {
        while self.orders.take() == Order::Work {
            self.instance.is_up.send_replace(true);
            let job = tokio::select! {
                job = self.client.next() => job,
                order = self.orders.changed() => {
                    if order == Order::Kill {
                        return;
                    }
                    continue;
                }
            };
            if !self.run_job(job).await {
                let wait = self.backoff.failed();
                restarts::pause(&self.instance, Ended::NotStarted, wait, &mut self.orders).await;
            }
        }
        // A grab may be under way.
        let last = tokio::select! {
            job = self.client.settle() => job,
            () = self.orders.killed() => None,
        };
        if let Some(job) = last {
            self.run_job(job).await;
        }
    }

    /// Runs a job; returns whether its command could be started.
    async fn run_job(&mut self, job: Job) -> bool {
        let running = &self.instance.counters.running;
        running.set(running.get() + 1);
        let started = Instant::now();
        let end = self.run_command(&job).await;
        let counters = &self.instance.counters;
        counters.running.set(counters.running.get() - 1);
        let is_started = end.is_ok();
        let End { verdict, status } = match end {
            Ok(end) => {
                self.told.clear();
                self.backoff.reset();
                end
            }
            Err(sentence) => {
                restarts::tell_not_started(&self.instance, &mut self.told, sentence);
                // What it was prepared from may be corrected: its user and groups.
                self.launch = None;
                End { verdict: Verdict::failed(Outcome::NotStarted), status: None }
            }
        };
        counters.job(verdict.outcome, started.elapsed().as_secs_f64());
        let handle = String::from_utf8_lossy(&job.handle).into_owned();
        outcome::log(
            verdict.outcome,
            status,
            &self.instance.worker,
            self.instance.subject(&handle),
        );
        let is_last = !is_started || self.orders.take() != Order::Work;
        let Self { instance, client, orders, .. } = self;
        instance.finish(client, orders, job, verdict.ending, is_last).await;
        is_started
    }

    /// Runs the command of a job.
    ///
    /// # Errors
    /// If it can't be started: a sentence.
    async fn run_command(&mut self, job: &Job) -> Result<End, String> {
        let launch = match &mut self.launch {
            Some(launch) => launch,
            none => {
                let servers = self.instance.shared.servers_variable.as_str();
                let variables = [("GEARMAN_SERVERS", servers)];
                none.insert(Launch::prepare(&self.instance.worker, &variables)?)
            }
        };
        let mut server = Assignment { client: &mut self.client, job };
        run::run(&self.instance, launch, job, &mut server, &mut self.orders)
            .await
            .map_err(|error| error.to_string())
    }
}
