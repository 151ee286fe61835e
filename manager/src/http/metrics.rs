//! The numbers of `/metrics`, and what they are called: counters in, families out.
//!
//! Invariant: totals of a worker stay after a reload that removes it.

use std::fmt::Error;

use ringgear::ops::exposition::{Families, Histogram, Labels, Numbers, ProcessNumbers};

use crate::counters::{Counters, Ended, Outcome, RUN_SECONDS};

/// All numbers of one moment.
#[derive(Debug)]
pub(super) struct Scrape {
    workers: Vec<Worker>,
    connections: Vec<(String, u64)>,
    /// Taken and refused.
    reloads: (u64, u64),
    process: Option<ProcessNumbers>,
}

#[derive(Debug)]
struct Worker {
    name: String,
    instances: u64,
    processes: u64,
    running: u64,
    backing_off: u64,
    memory_bytes: u64,
    results_lost: u64,
    jobs: Vec<(&'static str, u64)>,
    ends: Vec<(&'static str, u64)>,
    runs: (Vec<u64>, f64),
}

/// Name, help and number of a gauge.
type Gauge = (&'static str, &'static str, fn(&Worker) -> u64);

impl Scrape {
    pub(super) fn take(counters: &Counters) -> Self {
        let workers = counters.workers.borrow();
        let connections = counters.connections.borrow();
        let connections = connections.iter().map(|(name, &count)| (name.clone(), count as u64));
        Self {
            workers: workers.iter().map(|(name, worker)| Worker::take(name, worker)).collect(),
            connections: connections.collect(),
            reloads: counters.reloads.get(),
            process: ProcessNumbers::read(),
        }
    }
}

impl Worker {
    fn take(name: &str, worker: &crate::counters::Worker) -> Self {
        let (jobs, ends) = (worker.jobs.borrow(), worker.ends.borrow());
        let jobs = Outcome::ALL.map(|it| (it.name(), jobs.get(&it).copied().unwrap_or_default()));
        let ends = Ended::ALL.map(|it| (it.name(), ends.get(&it).copied().unwrap_or_default()));
        Self {
            name: name.to_owned(),
            instances: worker.instances.get() as u64,
            processes: worker.processes.get() as u64,
            running: worker.running.get() as u64,
            backing_off: worker.backing_off.get() as u64,
            memory_bytes: worker.memory_bytes.get(),
            results_lost: worker.results_lost.get(),
            jobs: jobs.to_vec(),
            ends: ends.to_vec(),
            runs: (worker.run_buckets.borrow().to_vec(), worker.run_seconds.get()),
        }
    }

    fn labels(&self) -> Labels<'_, 1> {
        [("worker", &self.name)]
    }

    /// Numbers by a second label.
    fn by<'w>(
        &'w self,
        label: &'static str,
        numbers: &'w [(&'static str, u64)],
    ) -> impl Iterator<Item = (Labels<'w, 2>, u64)> {
        numbers
            .iter()
            .map(move |&(value, number)| ([("worker", &*self.name), (label, value)], number))
    }
}

impl Numbers for Scrape {
    fn encode(&self, families: &mut Families<'_>) -> Result<(), Error> {
        self.encode_workers(families)?;
        families.gauge(
            "ringgear_manager_connections",
            "Connections to a server, of all workers",
            self.connections.iter().map(|(server, count)| ([("server", server.as_str())], *count)),
        )?;
        let (taken, refused) = self.reloads;
        families.counter(
            "ringgear_manager_reloads",
            "Times that the file was read anew, by whether it was taken",
            [("taken", taken), ("refused", refused)]
                .map(|(result, count)| ([("result", result)], count)),
        )?;
        families.info(
            "ringgear_manager",
            "The manager's version",
            [("version", env!("CARGO_PKG_VERSION"))],
        )?;
        self.process.as_ref().map_or(Ok(()), |process| process.encode(families))
    }
}

impl Scrape {
    fn encode_workers(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let workers = &self.workers;
        let gauges: [Gauge; 5] = [
            ("instances", "Instances that there are to be", |it| it.instances),
            ("processes", "Processes that run, without their children", |it| it.processes),
            ("jobs_running", "Jobs that run", |it| it.running),
            ("backing_off", "Instances that wait before they start their program again", |it| {
                it.backing_off
            }),
            ("memory_bytes", "Resident memory of all process groups", |it| it.memory_bytes),
        ];
        for (name, help, number) in gauges {
            let samples = workers.iter().map(|worker| (worker.labels(), number(worker)));
            families.gauge(&format!("ringgear_manager_{name}"), help, samples)?;
        }
        families.counter(
            "ringgear_manager_jobs",
            "Jobs that ended, by how",
            workers.iter().flat_map(|worker| worker.by("outcome", &worker.jobs)),
        )?;
        families.histogram(
            "ringgear_manager_job_run_seconds",
            "From the assignment of a job to its end",
            workers.iter().map(|worker| {
                let (buckets, sum) = &worker.runs;
                (worker.labels(), Histogram::new(&RUN_SECONDS, 1.0, buckets, *sum))
            }),
        )?;
        families.counter(
            "ringgear_manager_process_ends",
            "Long-lived processes that ended, by why",
            workers.iter().flat_map(|worker| worker.by("reason", &worker.ends)),
        )?;
        families.counter(
            "ringgear_manager_results_lost",
            "Jobs that ended after their connection broke, so that no server took the result",
            workers.iter().map(|worker| (worker.labels(), worker.results_lost)),
        )
    }
}
