//! The mixed load of a soak: some load generators at once, each with another kind of job, all at a
//! fixed rate.
//!
//! In: the options of the soak. Out: live counts, and each generator's report in the end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use loadgen::checker::Faults;
use loadgen::distributions::Span;
use loadgen::report::Report;
use loadgen::{LiveCounts, run_observed};
use serde::Serialize;

use crate::options::SoakOptions;
use crate::scenario::{Load, plan};

/// Start of the names of all functions.
const PREFIX: &str = "soak-";

/// One kind of load.
struct Kind {
    name: &'static str,
    /// For readers of the results.
    about: &'static str,
    /// Its share of all jobs, %.
    share: f64,
    /// Options of its load generator.
    plan: &'static str,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "foreground",
        about: "of three priorities, a fifth with a key that others have too, 1 KiB on average",
        share: 50.0,
        plan: "--clients=40 --workers=12 --idle-workers=10 --functions=8 --size=exp:1k \
               --work-time=exp:1ms --unique=0.2 --unique-keys=200 --priority-mix=1:8:1",
    },
    Kind {
        name: "background",
        about: "of three priorities, a tenth with a key that others have too and the others with \
                one of their own, 2 KiB on average",
        share: 35.0,
        plan: "--mode=background --clients=20 --workers=10 --functions=5 --size=exp:2k \
               --unique=0.1 --fresh-unique --priority-mix=1:3:1",
    },
    Kind {
        name: "delayed",
        about: "by two seconds, each with a key of its own, 512 bytes on average",
        share: 14.0,
        plan: "--mode=delayed --delay=2s --clients=10 --workers=6 --functions=3 --size=exp:512 \
               --fresh-unique",
    },
    Kind {
        name: "large",
        about: "foreground jobs of 64 KiB to 1 MiB",
        share: 1.0,
        plan: "--clients=4 --workers=4 --functions=2 --size=64k..1m",
    },
];

/// A kind of load and what came of it: a row of `loads.csv`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Outcome {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) jobs: u64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) max_us: f64,
    pub(super) reruns: u64,
    pub(super) replaced: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) foreign: u64,
    pub(super) failed: u64,
    /// The first thing that went wrong, in words; empty mostly.
    pub(super) first_error: String,
}

impl Outcome {
    fn of(kind: &Kind, report: Report) -> Self {
        let Faults { lost, duplicated, foreign, failed } = report.faults;
        Self {
            name: kind.name,
            about: kind.about,
            jobs: report.jobs,
            p50_us: report.latency_us.p50,
            p99_us: report.latency_us.p99,
            max_us: report.latency_us.max,
            reruns: report.reruns,
            replaced: report.replaced,
            lost,
            duplicated,
            foreign,
            failed,
            first_error: report.first_error.unwrap_or_default(),
        }
    }

    /// All that went wrong.
    pub(super) fn faults(&self) -> u64 {
        self.lost + self.duplicated + self.foreign + self.failed
    }
}

/// A running generator.
struct Generator {
    kind: &'static Kind,
    counts: Arc<Mutex<LiveCounts>>,
    thread: JoinHandle<Result<Report, loadgen::Error>>,
}

/// All generators.
pub(super) struct Workload(Vec<Generator>);

impl Workload {
    /// Starts all of them.
    pub(super) fn start(address: SocketAddr, options: &SoakOptions) -> Result<Self> {
        let start = |kind| {
            let (load, counts) = (load(kind, address, options)?, Arc::default());
            let shared = Arc::clone(&counts);
            let thread = std::thread::spawn(move || {
                run_observed(&load, &mut |counts, _| {
                    *lock(&shared) = *counts;
                    Ok(())
                })
            });
            Ok(Generator { kind, counts, thread })
        };
        Ok(Self(KINDS.iter().map(start).collect::<Result<_>>()?))
    }

    pub(super) fn is_running(&self) -> bool {
        self.0.iter().any(|generator| !generator.thread.is_finished())
    }

    /// What all of them have counted so far.
    pub(super) fn counts(&self) -> LiveCounts {
        let mut sum = LiveCounts::default();
        for generator in &self.0 {
            let counts = *lock(&generator.counts);
            sum.answered += counts.answered;
            sum.ran += counts.ran;
            sum.in_flight += counts.in_flight;
            sum.faults += counts.faults;
        }
        sum
    }

    /// Their reports, once all have ended.
    pub(super) fn outcomes(self) -> Result<Vec<Outcome>> {
        let outcome = |Generator { kind, thread, .. }| {
            let report = thread.join().map_err(|_| anyhow!("it failed"));
            let report = report.and_then(|report| Ok(report?));
            Ok(Outcome::of(kind, report.with_context(|| format!("the {} load", kind.name))?))
        };
        self.0.into_iter().map(outcome).collect()
    }
}

fn lock(counts: &Mutex<LiveCounts>) -> std::sync::MutexGuard<'_, LiveCounts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn load(kind: &Kind, address: SocketAddr, options: &SoakOptions) -> Result<Load> {
    let part = |of_all: f64| of_all * kind.share / 100.0;
    Ok(Load {
        addr: address.to_string(),
        function_prefix: format!("{PREFIX}{}", kind.name),
        threads: Some(1),
        rate: Some(part(options.rate)),
        // A few connections of each kind at least, however small its share of the jobs.
        churn: part(options.churn).max(options.churn / 10.0),
        worker_crash: options.worker_crash,
        duration: Span(Duration::from_secs_f64(options.minutes * 60.0)),
        warm_up: Span::default(),
        quiet: true,
        ..plan(kind.plan)?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_all_jobs_the_names_differ_and_the_plans_are_options() {
        assert!((KINDS.iter().map(|kind| kind.share).sum::<f64>() - 100.0).abs() < 1e-9);
        for (at, kind) in KINDS.iter().enumerate() {
            assert!(KINDS[..at].iter().all(|other| !other.name.starts_with(kind.name)));
            Load { rate: Some(9.0), ..plan(kind.plan).unwrap() }.check().unwrap();
        }
    }
}
