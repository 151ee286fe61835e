//! Mode `lines`: a long-lived process that gets each job as a line of JSON.
//!
//! `process` is the process and its jobs, `talk` how they are told to it, `message` and `output`
//! have the lines. This module starts, replaces and ends processes, and brings jobs to them.
//!
//! Invariant: a job is asked for only while a process is there.

mod message;
mod output;
mod process;
mod talk;

#[cfg(test)]
mod tests;

use std::rc::Rc;

use tokio::time::Instant;

use self::process::{Idle, JobEnd, Process};
use super::backoff::Backoff;
use super::orders::Orders;
use super::outcome::{self, Verdict};
use super::server_side::Assignment;
use super::{Instance, Order, restarts};
use crate::counters::{Ended, Outcome};
use crate::gearman::{Client, Job};
use crate::process::Launch;

/// Keeps a process at work, and replaces it when its lifetime is over, until an order to end.
pub(super) async fn run(instance: Instance) {
    let orders = Orders::new(instance.orders.clone(), instance.worker.stop_wait);
    let instance = Rc::new(instance);
    let client = instance.client();
    Lines { instance, orders, client, waiting: None }.run().await;
}

struct Lines {
    instance: Rc<Instance>,
    orders: Orders,
    client: Client,
    /// A job that was assigned just as its process ended.
    waiting: Option<Job>,
}

impl Lines {
    async fn run(mut self) {
        let mut backoff = Backoff::of(&self.instance.worker);
        let mut told = String::new();
        while self.orders.take() == Order::Work || self.waiting.is_some() {
            let counters = Rc::clone(&self.instance.counters);
            let (reason, wait) = match self.start() {
                Ok(mut process) => {
                    told.clear();
                    self.instance.is_up.send_replace(true);
                    let reason = self.work(&mut process).await;
                    // One that leaks is replaced, however fast it does its jobs.
                    let is_worn = reason == Ended::Memory && process.has_worked();
                    let wait = restarts::wait_after(reason, process.age(), &mut backoff);
                    (reason, wait.filter(|_| !is_worn))
                }
                Err(sentence) => {
                    restarts::tell_not_started(&self.instance, &mut told, sentence);
                    if let Some(job) = self.waiting.take() {
                        self.refuse(job).await;
                    }
                    (Ended::NotStarted, Some(backoff.failed()))
                }
            };
            counters.end(reason);
            let Some(wait) = wait.filter(|_| self.waiting.is_none()) else { continue };
            // A job that was asked for while the process was there needs one at once.
            self.waiting = self.settle().await;
            if self.waiting.is_none() {
                // Other instances get the jobs meanwhile.
                self.client = self.instance.client();
                restarts::pause(&self.instance, reason, wait, &mut self.orders).await;
            }
        }
    }

    fn start(&self) -> Result<Process, String> {
        let servers = [("GEARMAN_SERVERS", self.instance.shared.servers_variable.as_str())];
        let launch = Launch::prepare(&self.instance.worker, &servers)?;
        Process::start(&self.instance, &launch)
    }

    /// Brings jobs to a process until it has ended, and returns why it did.
    async fn work(&mut self, process: &mut Process) -> Ended {
        loop {
            let (job, over) = match self.waiting.take() {
                Some(job) => (job, None),
                None if self.orders.take() == Order::Work => {
                    match process.idle(self.client.next(), &mut self.orders).await {
                        Idle::Next(job) => (job, None),
                        Idle::Ended(reason) => return reason,
                        Idle::Over(reason) => match self.settle().await {
                            Some(job) => (job, Some(reason)),
                            None => return self.retire(process, reason).await,
                        },
                        Idle::Ordered => continue,
                    }
                }
                // A grab may be under way.
                None => match self.settle().await {
                    Some(job) => (job, None),
                    None => {
                        let order = self.orders.take();
                        return self.retire(process, order.ended().unwrap_or(Ended::Stop)).await;
                    }
                },
            };
            let JobEnd { verdict, reason } = self.run_job(process, &job).await;
            let Some(verdict) = verdict else {
                self.waiting = Some(job);
                return reason.unwrap_or(Ended::Exit);
            };
            let over = over.or_else(|| reason.is_none().then(|| process.over()).flatten());
            let is_last = reason.or(over).is_some() || self.orders.take() != Order::Work;
            self.finish(job, verdict, is_last).await;
            if let Some(reason) = reason {
                return reason;
            }
            if let Some(reason) = over {
                return self.retire(process, reason).await;
            }
        }
    }

    async fn run_job(&mut self, process: &mut Process, job: &Job) -> JobEnd {
        let counters = Rc::clone(&self.instance.counters);
        counters.running.set(counters.running.get() + 1);
        let started = Instant::now();
        let mut server = Assignment { client: &mut self.client, job };
        let end = process.run(job, &mut server, &mut self.orders).await;
        counters.running.set(counters.running.get() - 1);
        if let Some(verdict) = &end.verdict {
            counters.job(verdict.outcome, started.elapsed().as_secs_f64());
        }
        end
    }

    async fn finish(&mut self, job: Job, verdict: Verdict, is_last: bool) {
        let Self { instance, client, orders, .. } = self;
        instance.finish(client, orders, job, verdict.ending, is_last).await;
    }

    /// Fails a job that no process could be started for.
    async fn refuse(&mut self, job: Job) {
        let verdict = Verdict::failed(Outcome::NotStarted);
        let handle = String::from_utf8_lossy(&job.handle).into_owned();
        let subject = self.instance.subject(&handle);
        outcome::log(verdict.outcome, None, &self.instance.worker, subject);
        self.instance.counters.job(verdict.outcome, 0.0);
        self.finish(job, verdict, true).await;
    }

    /// The job that a grab under way still brings; none if the instance is to end at once.
    async fn settle(&mut self) -> Option<Job> {
        tokio::select! {
            job = self.client.settle() => job,
            () = self.orders.killed() => None,
        }
    }

    async fn retire(&mut self, process: &mut Process, reason: Ended) -> Ended {
        restarts::tell_replaced(&self.instance, reason, process.age());
        process.retire(&mut self.orders).await;
        reason
    }
}
