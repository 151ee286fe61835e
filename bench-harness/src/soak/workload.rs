//! The mixed load of a soak: some load generators at once, each with another kind of job, all at a
//! fixed rate.
//!
//! In: the options of the soak. Out: live counts, and each generator's report in the end. A
//! generator whose standard error isn't read any more ends by itself; dropped ones are killed.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use loadgen::LiveCounts;
use loadgen::checker::Faults;
use loadgen::report::Figures;
use serde::Serialize;

use crate::load_generator::{read_all, spawn};
use crate::options::SoakOptions;

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
    fn of(kind: &Kind, figures: Figures) -> Self {
        let Faults { lost, duplicated, foreign, failed } = figures.faults;
        Self {
            name: kind.name,
            about: kind.about,
            jobs: figures.jobs,
            p50_us: figures.latency_us.p50,
            p99_us: figures.latency_us.p99,
            max_us: figures.latency_us.max,
            reruns: figures.reruns,
            replaced: figures.replaced,
            lost,
            duplicated,
            foreign,
            failed,
            first_error: figures.first_error.unwrap_or_default(),
        }
    }

    /// All that went wrong.
    pub(super) fn faults(&self) -> u64 {
        self.lost + self.duplicated + self.foreign + self.failed
    }
}

/// A process that ends when this is dropped; one that has ended is only waited for.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running generator.
struct Load {
    kind: &'static Kind,
    child: Ended,
    said: Arc<Mutex<Said>>,
    listener: JoinHandle<()>,
    output: JoinHandle<String>,
}

/// What a generator has written to its standard error.
#[derive(Default)]
struct Said {
    counts: LiveCounts,
    /// The last line that was no counts.
    words: String,
}

/// All generators.
pub(super) struct Workload(Vec<Load>);

impl Workload {
    /// Starts all of them; each sends to `ended` at its end.
    pub(super) fn start(
        program: &Path,
        address: SocketAddr,
        options: &SoakOptions,
        ended: &Sender<()>,
    ) -> Result<Self> {
        let start = |kind| {
            let mut command = Command::new(program);
            Load::start(kind, command.args(arguments(kind, address, options)), ended.clone())
        };
        Ok(Self(KINDS.iter().map(start).collect::<Result<_>>()?))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What all of them have counted so far.
    pub(super) fn counts(&self) -> LiveCounts {
        let mut sum = LiveCounts::default();
        for load in &self.0 {
            let counts = load.said.lock().unwrap_or_else(PoisonError::into_inner).counts;
            sum.answered += counts.answered;
            sum.ran += counts.ran;
            sum.in_flight += counts.in_flight;
            sum.faults += counts.faults;
        }
        sum
    }

    /// Their reports, once all have ended.
    pub(super) fn outcomes(self) -> Result<Vec<Outcome>> {
        self.0.into_iter().map(Load::outcome).collect()
    }
}

impl Load {
    fn start(kind: &'static Kind, command: &mut Command, ended: Sender<()>) -> Result<Self> {
        let mut child = spawn(command)?;
        let said = Arc::new(Mutex::new(Said::default()));
        let (heard, errors) = (Arc::clone(&said), child.stderr.take().context("a pipe")?);
        let listener = std::thread::spawn(move || listen(errors, &heard));
        let output = read_all(child.stdout.take().context("a pipe")?, Some(ended));
        Ok(Self { kind, child: Ended(child), said, listener, output })
    }

    fn outcome(self) -> Result<Outcome> {
        let Self { kind, child, said, listener, output } = self;
        let output = output.join().map_err(|_| anyhow!("a reader failed"))?;
        drop(child);
        listener.join().map_err(|_| anyhow!("a reader failed"))?;
        match serde_json::from_str(&output) {
            Ok(figures) => Ok(Outcome::of(kind, figures)),
            Err(_) => {
                let said = said.lock().unwrap_or_else(PoisonError::into_inner);
                bail!("the {} load has no report: {}", kind.name, said.words.trim())
            }
        }
    }
}

fn arguments(kind: &Kind, address: SocketAddr, options: &SoakOptions) -> Vec<String> {
    let part = |of_all: f64| of_all * kind.share / 100.0;
    let mut arguments = vec!["--json".to_owned(), "--quiet".to_owned()];
    let mut option = |name: &str, value: &dyn Display| arguments.push(format!("--{name}={value}"));
    option("addr", &address);
    option("function-prefix", &format!("{PREFIX}{}", kind.name));
    option("threads", &1);
    option("live", &"1s");
    option("rate", &part(options.rate));
    // A few connections of each kind at least, however small its share of the jobs.
    option("churn", &part(options.churn).max(options.churn / 10.0));
    option("worker-crash", &options.worker_crash);
    option("duration", &format!("{:.0}ms", options.minutes * 60e3));
    option("warm-up", &"0s");
    arguments.extend(kind.plan.split(' ').map(str::to_owned));
    arguments
}

fn listen(pipe: impl Read, said: &Mutex<Said>) {
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        match serde_json::from_str(&line) {
            Ok(counts) => said.counts = counts,
            Err(_) => said.words = line,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use loadgen::options::Options;

    use super::*;

    #[test]
    fn the_shares_are_all_jobs_the_names_differ_and_the_plans_are_options() {
        assert!((KINDS.iter().map(|kind| kind.share).sum::<f64>() - 100.0).abs() < 1e-9);
        for (at, kind) in KINDS.iter().enumerate() {
            assert!(KINDS[..at].iter().all(|other| !other.name.starts_with(kind.name)));
            let words = ["loadgen", "--rate=9"].into_iter().chain(kind.plan.split(' '));
            Options::try_parse_from(words).unwrap().check().unwrap();
        }
    }

    #[test]
    fn counts_and_words_are_told_apart() {
        let said = Mutex::new(Said::default());
        let text = "{\"seconds\":1.0,\"connections\":3,\"answered\":7,\"ran\":6,\"in_flight\":1,\
                    \"faults\":2}\noh\n";
        listen(text.as_bytes(), &said);
        let said = said.into_inner().unwrap();
        assert_eq!((said.counts.answered, said.counts.faults, &*said.words), (7, 2, "oh"));
    }
}
