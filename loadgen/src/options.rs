//! What can be asked for on the command line, and whether it makes sense together.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::distributions::{PriorityMix, Size, Span, WorkTime};
use crate::error::Error;

/// Most threads: a job's number has room for so many.
pub const THREADS_MAX: usize = 256;

/// Value of `--spawn` that stands for the server beside this program.
pub const BESIDE: &str = "ringgeard";

/// Headings of `--help`.
const SERVER: &str = "Server";
const TLS: &str = "TLS";
const PACE: &str = "Connections and pace";
const JOBS: &str = "Jobs";
const WORKERS: &str = "Workers";
const RUN: &str = "Run";
const OUTPUT: &str = "Output";

/// How jobs are submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// SUBMIT_JOB: answered by the worker's result.
    Foreground,
    /// SUBMIT_JOB_BG: answered by JOB_CREATED; at the end, all must have run.
    Background,
    /// SUBMIT_JOB_EPOCH, `--delay` ahead: answered by JOB_CREATED; at the end, all must have run.
    Delayed,
    /// No jobs: each client connects, asks for an echo, closes and connects again, at most 32 at a
    /// time. What counts as a job is a connection, from the close of the last one to its echo.
    Connect,
}

/// How an open loop spaces its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// Exponential gaps, as independent users make them.
    Poisson,
    /// Equal gaps.
    Even,
}

/// What leaves in one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Writes {
    /// All that has gathered.
    Together,
    /// A packet.
    Packets,
    /// A packet's header, and then the rest of it.
    Parts,
}

/// What the workers of `--idle-workers` are registered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleFor {
    /// A function that no client submits to: they sleep all along.
    Other,
    /// The functions of the load: they sleep until they are woken, and then compete.
    Same,
}

/// Simulates thousands of Gearman clients and workers against a job server, checks every answer,
/// and reports throughput and latency.
///
/// Workers register, then grab until there is no job, sleep, and grab again when woken; a result
/// and the next GRAB_JOB leave in one write, unless --worker-writes says otherwise.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "loadgen", version, args_override_self = true)]
pub struct Options {
    /// Job server to load.
    #[arg(help_heading = SERVER, long, default_value = "127.0.0.1:4730", value_name = "HOST:PORT")]
    pub addr: String,
    /// Start a ringgeard on a free port, load it and stop it (default: the one beside loadgen).
    #[arg(
        help_heading = SERVER, long, num_args = 0..=1, default_missing_value = BESIDE,
        value_name = "PATH", conflicts_with_all = ["addr", "server_pid"]
    )]
    pub spawn: Option<PathBuf>,
    /// Option for the spawned ringgeard, such as --spawn-arg=--io=epoll; may be repeated.
    #[arg(
        help_heading = SERVER, long, value_name = "OPTION", allow_hyphen_values = true,
        requires = "spawn"
    )]
    pub spawn_arg: Vec<String>,
    /// Process whose CPU and memory are reported (default: the one that listens on the port).
    #[arg(help_heading = SERVER, long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Address that connections come from; of several, each takes its turn (default: the kernel's
    /// choice, and for a server on loopback as many addresses as the ports take).
    #[arg(help_heading = SERVER, long, value_name = "ADDRESS")]
    pub source: Vec<IpAddr>,

    /// All connections speak TLS 1.3 or 1.2; the server's certificate and its name are verified.
    #[arg(help_heading = TLS, long)]
    pub tls: bool,
    /// Certificates of the CAs that may have issued the server's, in PEM form.
    #[arg(help_heading = TLS, long, value_name = "FILE", requires = "tls")]
    pub tls_ca: Option<PathBuf>,
    /// Client certificate, with those between it and the CA's.
    #[arg(help_heading = TLS, long, value_name = "FILE", requires_all = ["tls", "tls_key"])]
    pub tls_cert: Option<PathBuf>,
    /// Its private key.
    #[arg(help_heading = TLS, long, value_name = "FILE", requires_all = ["tls", "tls_cert"])]
    pub tls_key: Option<PathBuf>,
    /// Host name or address that the server's certificate must be for (default: that of --addr).
    #[arg(help_heading = TLS, long, value_name = "NAME", requires = "tls")]
    pub tls_name: Option<String>,
    /// Full handshakes only (default: connections resume the session of an earlier one if the
    /// server lets them).
    #[arg(help_heading = TLS, long, requires = "tls")]
    pub tls_no_resumption: bool,

    /// Client connections.
    #[arg(help_heading = PACE, long, default_value_t = 50)]
    pub clients: usize,
    /// Worker connections.
    #[arg(help_heading = PACE, long, default_value_t = 8)]
    pub workers: usize,
    /// Jobs that each client keeps in flight (closed loop).
    #[arg(
        help_heading = PACE, long, default_value_t = 1, value_name = "JOBS",
        conflicts_with = "rate"
    )]
    pub pipeline: usize,
    /// Jobs per second in all, due at fixed moments whatever the server does (open loop); latency
    /// counts from the moment a job was due.
    #[arg(help_heading = PACE, long, value_name = "JOBS_PER_SECOND")]
    pub rate: Option<f64>,
    /// Gaps between the jobs of an open loop.
    #[arg(help_heading = PACE, long, value_enum, default_value = "poisson", requires = "rate")]
    pub spacing: Spacing,
    /// Jobs of an open loop that are due at the same moment, one such burst after the other.
    #[arg(help_heading = PACE, long, default_value_t = 1, value_name = "JOBS", requires = "rate")]
    pub burst: u32,
    /// How jobs are submitted.
    #[arg(help_heading = PACE, long, value_enum, default_value = "foreground")]
    pub mode: Mode,
    /// How far ahead delayed jobs lie; whole seconds.
    #[arg(help_heading = PACE, long, default_value = "1s", value_name = "TIME")]
    pub delay: Span,

    /// Nagle's algorithm is on, as in programs that don't set TCP_NODELAY: a small segment waits
    /// for the acknowledgement of the one before.
    #[arg(help_heading = PACE, long)]
    pub nagle: bool,
    /// What of a client's packets leaves in one write.
    #[arg(
        help_heading = PACE, long, value_enum, default_value = "together", value_name = "HOW"
    )]
    pub client_writes: Writes,
    /// What of a worker's packets leaves in one write.
    #[arg(
        help_heading = PACE, long, value_enum, default_value = "together", value_name = "HOW"
    )]
    pub worker_writes: Writes,

    /// Payload bytes: 64, 1k, 64..1024 (uniform) or exp:1k (exponential).
    #[arg(help_heading = JOBS, long, default_value = "64")]
    pub size: Size,
    /// Result bytes, in the same words (default: as the job's payload).
    #[arg(help_heading = JOBS, long, value_name = "SIZE")]
    pub result_size: Option<Size>,
    /// Functions that the jobs are spread over; every worker registers all of them.
    #[arg(help_heading = JOBS, long, default_value_t = 1, value_name = "N")]
    pub functions: usize,
    /// Each connection has one of them: a worker registers one, a client submits to one.
    #[arg(help_heading = JOBS, long)]
    pub dedicated: bool,
    /// Functions that every worker registers around the used ones and no client submits to.
    #[arg(help_heading = JOBS, long, default_value_t = 0, value_name = "N")]
    pub extra_functions: usize,
    /// Start of all function names; loads that run on one server at a time need different ones.
    #[arg(help_heading = JOBS, long, default_value = "loadgen", value_name = "NAME")]
    pub function_prefix: String,
    /// Share of submissions (0 to 1) with a unique key out of a small repeated set.
    #[arg(help_heading = JOBS, long, default_value_t = 0.0, value_name = "SHARE")]
    pub unique: f64,
    /// Size of that set.
    #[arg(help_heading = JOBS, long, default_value_t = 100, value_name = "N", requires = "unique")]
    pub unique_keys: u32,
    /// Give all other submissions a unique key of their own (default: none).
    #[arg(help_heading = JOBS, long)]
    pub fresh_unique: bool,
    /// Weights of the priorities, high:normal:low.
    #[arg(help_heading = JOBS, long, default_value = "0:1:0", value_name = "H:N:L")]
    pub priority_mix: PriorityMix,

    /// Time a worker works on a job before it answers: 0, 5ms or exp:5ms.
    #[arg(help_heading = WORKERS, long, default_value = "0", value_name = "TIME")]
    pub work_time: WorkTime,
    /// Workers ask with GRAB_JOB_ALL, as libgearman's do, instead of GRAB_JOB.
    #[arg(help_heading = WORKERS, long)]
    pub grab_all: bool,
    /// How long a worker sleeps at most before it grabs unasked, as libgearman's do; 0 is for ever.
    #[arg(help_heading = WORKERS, long, default_value = "10s", value_name = "TIME")]
    pub sleep_max: Span,
    /// Further worker connections that sleep.
    #[arg(help_heading = WORKERS, long, default_value_t = 0, value_name = "N")]
    pub idle_workers: usize,
    /// What those are registered for.
    #[arg(
        help_heading = WORKERS, long, value_enum, default_value = "other",
        requires = "idle_workers"
    )]
    pub idle_for: IdleFor,
    /// Connections that are closed (between two jobs) and replaced per second.
    #[arg(help_heading = WORKERS, long, default_value_t = 0.0, value_name = "PER_SECOND")]
    pub churn: f64,
    /// Share of jobs (0 to 1) whose worker disconnects instead of answering, and comes back.
    #[arg(help_heading = WORKERS, long, default_value_t = 0.0, value_name = "SHARE")]
    pub worker_crash: f64,
    /// Share of runs (0 to 0.99) that end with WORK_FAIL; the server's policy must have such jobs
    /// run again.
    #[arg(help_heading = WORKERS, long, default_value_t = 0.0, value_name = "SHARE")]
    pub worker_fail: f64,

    /// Measured time.
    #[arg(
        help_heading = RUN, long, default_value = "10s", value_name = "TIME",
        conflicts_with = "jobs"
    )]
    pub duration: Span,
    /// Measure this many jobs instead of a time.
    #[arg(help_heading = RUN, long)]
    pub jobs: Option<u64>,
    /// Time under load before the measurement.
    #[arg(help_heading = RUN, long, default_value = "1s", value_name = "TIME")]
    pub warm_up: Span,
    /// How long the end waits for answers while none arrive.
    #[arg(help_heading = RUN, long, default_value = "10s", value_name = "TIME")]
    pub drain_timeout: Span,
    /// Threads (default: one less than the cores, at most 4); more of them if one can't have so
    /// many descriptors.
    #[arg(help_heading = RUN, long)]
    pub threads: Option<usize>,
    /// Seed of the load's shape: the same seed draws the same sizes, functions, keys and times.
    #[arg(help_heading = RUN, long, default_value_t = 1)]
    pub seed: u64,

    /// Write the report as one JSON object to standard output.
    #[arg(help_heading = OUTPUT, long)]
    pub json: bool,
    /// Write the latencies as a percentile distribution (HdrHistogram's .hgrm, in µs).
    #[arg(help_heading = OUTPUT, long, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
    /// Write the counts so far every TIME, each as one JSON object to standard error; the run ends
    /// when they are not read any more.
    #[arg(help_heading = OUTPUT, long, value_name = "TIME")]
    pub live: Option<Span>,
    /// No live progress, even on a terminal.
    #[arg(help_heading = OUTPUT, long)]
    pub quiet: bool,
}

impl Options {
    /// What the words of a command line ask for, without the program's name.
    ///
    /// # Errors
    /// `Error::Usage` if that can't be asked for.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let words = std::iter::once("loadgen").chain(words);
        Self::try_parse_from(words).map_err(|error| Error::Usage(sentence(&error)))
    }

    /// How many threads share the connections.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = self.threads.unwrap_or_else(|| cores.saturating_sub(1).clamp(1, 4));
        wanted.min(self.clients.max(self.workers)).max(1)
    }

    /// All connections of the run.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.clients + self.workers + self.idle_workers
    }

    /// Whether JOB_CREATED is the answer to a job.
    #[must_use]
    pub fn is_background(&self) -> bool {
        matches!(self.mode, Mode::Background | Mode::Delayed)
    }

    /// What is counted, in the plural.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        if self.mode == Mode::Connect { "connections" } else { "jobs" }
    }

    /// Checks what single values cannot tell.
    ///
    /// # Errors
    /// `Error::Usage` with the first contradiction.
    pub fn check(&self) -> Result<(), Error> {
        let share = |share: f64| (0.0..=1.0).contains(&share);
        let is_foreground = self.mode == Mode::Foreground;
        let no_workers = self.workers == 0 && is_foreground;
        let priorities = self.priority_mix.to_string() != "0:1:0";
        let problems = [
            (
                self.tls && self.tls_ca.is_none(),
                "--tls verifies the server: give --tls-ca the file with its CA's certificate",
            ),
            (self.clients == 0, "--clients must be at least 1"),
            (
                no_workers,
                "--workers must be at least 1 for foreground jobs: give one, or --mode background",
            ),
            (self.pipeline == 0, "--pipeline must be at least 1"),
            (self.burst == 0, "--burst must be at least 1"),
            (self.functions == 0, "--functions must be at least 1"),
            (
                self.dedicated && self.workers < self.functions && is_foreground,
                "--dedicated takes a worker for each of the --functions: give more --workers",
            ),
            (
                self.dedicated && self.unique > 0.0,
                "--unique shares keys among clients, and --dedicated gives them different \
                 functions: give one of them",
            ),
            (self.unique_keys == 0, "--unique-keys must be at least 1"),
            (self.jobs == Some(0), "--jobs must be at least 1"),
            (
                self.live.is_some_and(|every| every.0.is_zero()),
                "--live must not be 0: give a time such as 1s",
            ),
            (
                self.jobs.is_none() && self.duration.0.is_zero(),
                "--duration must not be 0: give a time such as 10s",
            ),
            (!share(self.unique), "--unique is a share: give a number from 0 to 1"),
            (
                !(0.0..=0.99).contains(&self.worker_crash),
                "--worker-crash is a share: give a number from 0 to 0.99",
            ),
            (
                !(0.0..=0.99).contains(&self.worker_fail),
                "--worker-fail is a share: give a number from 0 to 0.99",
            ),
            (
                self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e9)),
                "--rate counts jobs per second: give more than 0 and at most 1000000000",
            ),
            (
                !(0.0..=1e6).contains(&self.churn),
                "--churn counts connections per second: give 0 to 1000000",
            ),
            (
                self.threads.is_some_and(|n| n == 0 || n > THREADS_MAX),
                "--threads must be from 1 to 256",
            ),
            (
                self.connections() > 4_000_000,
                "more than 4000000 connections are too many: give fewer --clients and workers",
            ),
            (
                self.function_prefix.is_empty()
                    || self.function_prefix.len() > 400
                    || self.function_prefix.contains(['\0', '\n']),
                "--function-prefix takes 1 to 400 bytes without NUL and line feed",
            ),
            (
                self.mode == Mode::Connect && (self.rate.is_some() || self.churn > 0.0),
                "--mode connect opens connections as fast as they are answered: drop --rate and \
                 --churn",
            ),
            (
                self.mode == Mode::Delayed && priorities,
                "delayed jobs have one priority in the protocol: drop --priority-mix, or take \
                 another --mode",
            ),
        ];
        match problems.iter().find(|(is_problem, _)| *is_problem) {
            Some((_, sentence)) => Err(Error::Usage((*sentence).to_owned())),
            None => Ok(()),
        }
    }
}

/// What clap says about a command line, in one sentence with a remedy.
#[must_use]
pub fn sentence(error: &clap::Error) -> String {
    // The first paragraph is the cause, with the possible values; usage and hints follow it.
    let text = error.render().to_string();
    let cause = text.split("\n\n").next().unwrap_or_default();
    let cause = cause.strip_prefix("error: ").unwrap_or(cause);
    let cause = cause.split_whitespace().collect::<Vec<_>>().join(" ");
    let suggested = [ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let suggested = suggested.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(word) => Some(word.clone()),
        ContextValue::Strings(words) => Some(words.join(" or ")),
        _ => None,
    });
    if error.kind() == ErrorKind::MissingRequiredArgument
        && let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg)
    {
        let missing = missing.join(" and ");
        return format!("an option makes no sense without another: add {missing}, or drop it");
    }
    match (suggested, error.kind()) {
        (Some(word), _) => format!("{cause}; did you mean {word}?"),
        (None, ErrorKind::ArgumentConflict) => format!("{cause}: give one of them"),
        (None, _) => format!("{cause}; see --help"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_options_amend_and_options_for_the_server_add_up() {
        let words = ["loadgen", "--jobs", "1", "--jobs", "2", "--spawn", "--spawn-arg=--io=epoll"];
        let words = words.into_iter().chain(["--spawn-arg", "--verbose"]);
        let options = Options::try_parse_from(words).unwrap();
        assert_eq!(options.jobs, Some(2));
        assert_eq!(options.spawn_arg, ["--io=epoll", "--verbose"]);
        assert!(options.check().is_ok());
    }

    #[test]
    fn help_has_headings() {
        use clap::CommandFactory as _;

        let help = Options::command().render_help().to_string();
        let headings = help.lines().filter(|line| line.ends_with(':') && !line.starts_with(' '));
        let headings: Vec<&str> = headings.map(|line| line.trim_end_matches(':')).collect();
        assert_eq!(headings, ["Options", SERVER, TLS, PACE, JOBS, WORKERS, RUN, OUTPUT]);
        let (_, rest) = help.split_once("\nOptions:\n").unwrap();
        let (unsorted, _) = rest.split_once("\n\n").unwrap();
        assert_eq!(unsorted.lines().count(), 2, "all but --help and --version: {unsorted}");
    }
}
