//! The mixed load of a soak: some load generators at once, each with another kind of job, all at a
//! fixed rate.
//!
//! In: the options of the soak. Out: live counts, and each generator's report in the end. A
//! generator that nobody listens to any more ends by itself; those that are dropped are killed.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::options::SoakOptions;

/// Start of the names of all functions.
pub(super) const PREFIX: &str = "soak-";

/// One kind of load.
struct Kind {
    name: &'static str,
    /// For readers of the results.
    about: &'static str,
    /// Its share of all jobs, %.
    share: f64,
    options: &'static [&'static str],
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "foreground",
        about: "of three priorities, a fifth with a key that others have too, 1 KiB on average",
        share: 50.0,
        options: &[
            "--clients=40",
            "--workers=12",
            "--idle-workers=10",
            "--functions=8",
            "--size=exp:1k",
            "--work-time=exp:1ms",
            "--unique=0.2",
            "--unique-keys=200",
            "--priority-mix=1:8:1",
        ],
    },
    Kind {
        name: "background",
        about: "of three priorities, a tenth with a key that others have too and the others with \
                one of their own, 2 KiB on average",
        share: 35.0,
        options: &[
            "--mode=background",
            "--clients=20",
            "--workers=10",
            "--functions=5",
            "--size=exp:2k",
            "--unique=0.1",
            "--fresh-unique",
            "--priority-mix=1:3:1",
        ],
    },
    Kind {
        name: "delayed",
        about: "by two seconds, each with a key of its own, 512 bytes on average",
        share: 14.0,
        options: &[
            "--mode=delayed",
            "--delay=2s",
            "--clients=10",
            "--workers=6",
            "--functions=3",
            "--size=exp:512",
            "--fresh-unique",
        ],
    },
    Kind {
        name: "large",
        about: "foreground jobs of 64 KiB to 1 MiB",
        share: 1.0,
        options: &["--clients=4", "--workers=4", "--functions=2", "--size=64k..1m"],
    },
];

/// What a generator says while it runs.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Counts {
    /// Jobs answered: foreground ones by their result, the others by their handle.
    pub(super) answered: u64,
    /// Jobs that its workers have run, each counted once.
    pub(super) ran: u64,
    /// Jobs without an answer.
    pub(super) in_flight: u64,
    /// Everything that went wrong.
    pub(super) faults: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.answered += other.answered;
        self.ran += other.ran;
        self.in_flight += other.in_flight;
        self.faults += other.faults;
    }
}

/// What a generator reports in the end; the figures that a soak shows.
#[derive(Clone, Debug, Deserialize)]
struct Report {
    jobs: u64,
    latency_us: Latency,
    faults: Faults,
    reruns: u64,
    replaced: u64,
    first_error: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
    max: f64,
}

#[derive(Clone, Debug, Deserialize)]
struct Faults {
    lost: u64,
    duplicated: u64,
    foreign: u64,
    failed: u64,
}

/// A kind of load and what came of it: a row of `loads.csv`.
#[derive(Clone, Debug, Serialize)]
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
    /// All that went wrong.
    pub(super) fn faults(&self) -> u64 {
        self.lost + self.duplicated + self.foreign + self.failed
    }
}

/// A running generator.
struct Load {
    kind: &'static Kind,
    child: Child,
    said: Arc<Mutex<Said>>,
    listener: Option<JoinHandle<()>>,
    output: Option<JoinHandle<String>>,
}

/// What a generator has written to its standard error.
#[derive(Default)]
struct Said {
    counts: Counts,
    /// The last line that was no counts.
    words: String,
}

/// All generators.
pub(super) struct Workload {
    loads: Vec<Load>,
}

impl Workload {
    /// Starts all of them; each sends to `ended` at its end.
    pub(super) fn start(
        program: &Path,
        address: SocketAddr,
        options: &SoakOptions,
        ended: &Sender<()>,
    ) -> Result<Self> {
        let start = |kind| Load::start(kind, program, address, options, ended.clone());
        Ok(Self { loads: KINDS.iter().map(start).collect::<Result<_>>()? })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.loads.len()
    }

    /// What all of them have counted so far.
    pub(super) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for load in &self.loads {
            sum += load.said.lock().unwrap_or_else(PoisonError::into_inner).counts;
        }
        sum
    }

    /// Their reports, once all have ended.
    pub(super) fn outcomes(mut self) -> Result<Vec<Outcome>> {
        self.loads.iter_mut().map(Load::outcome).collect()
    }
}

impl Load {
    fn start(
        kind: &'static Kind,
        program: &Path,
        address: SocketAddr,
        options: &SoakOptions,
        ended: Sender<()>,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments(kind, address, options));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.display().to_string())?;
        let said = Arc::new(Mutex::new(Said::default()));
        let (errors, output) = (child.stderr.take(), child.stdout.take());
        let heard = Arc::clone(&said);
        let listener = errors.map(|pipe| std::thread::spawn(move || listen(pipe, &heard)));
        let output = output.map(|mut pipe| {
            std::thread::spawn(move || {
                let mut text = String::new();
                // What is cut short is no report.
                let _ = pipe.read_to_string(&mut text);
                let _ = ended.send(());
                text
            })
        });
        Ok(Self { kind, child, said, listener, output })
    }

    fn outcome(&mut self) -> Result<Outcome> {
        self.child.wait()?;
        let output = self.output.take().map(JoinHandle::join).and_then(Result::ok);
        if let Some(listener) = self.listener.take() {
            listener.join().map_err(|_| anyhow!("a reader failed"))?;
        }
        let Kind { name, about, .. } = *self.kind;
        let Ok(report) = serde_json::from_str::<Report>(&output.unwrap_or_default()) else {
            let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
            bail!("the {name} load has no report: {}", said.words.trim());
        };
        let Faults { lost, duplicated, foreign, failed } = report.faults;
        Ok(Outcome {
            name,
            about,
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
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // One that has ended is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn arguments(kind: &Kind, address: SocketAddr, options: &SoakOptions) -> Vec<String> {
    let part = |of_all: f64| of_all * kind.share / 100.0;
    let mut arguments = vec!["--json".to_owned(), "--quiet".to_owned()];
    let mut option = |name: &str, value: &dyn std::fmt::Display| {
        arguments.push(format!("--{name}={value}"));
    };
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
    arguments.extend(kind.options.iter().map(|&option| option.to_owned()));
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
    use super::*;

    #[test]
    fn the_shares_are_all_jobs_and_the_names_differ() {
        assert!((KINDS.iter().map(|kind| kind.share).sum::<f64>() - 100.0).abs() < 1e-9);
        for (at, kind) in KINDS.iter().enumerate() {
            assert!(KINDS[..at].iter().all(|other| !other.name.starts_with(kind.name)));
        }
    }

    #[test]
    fn counts_and_words_are_told_apart() {
        let said = Mutex::new(Said::default());
        let text = "{\"seconds\":1.0,\"answered\":7,\"ran\":6,\"in_flight\":1,\"faults\":2}\noh\n";
        listen(text.as_bytes(), &said);
        let said = said.into_inner().unwrap();
        assert_eq!((said.counts.answered, said.counts.faults, &*said.words), (7, 2, "oh"));
    }
}
