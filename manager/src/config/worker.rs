//! One `[[worker]]` table, read.
//!
//! Knows the meaning of each key, but neither TOML nor what is done with it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How a command takes jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A process for each job: payload on standard input, result on standard output.
    Exec,
    /// A long-lived process that reads a JSON object a line for each job, and writes such lines.
    Lines,
    /// The command is a Gearman worker itself.
    Gearman,
}

/// What becomes of a command's standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stderr {
    /// A line of the log for each line.
    Log,
    /// WORK_WARNING to the job's clients (not in mode `gearman`).
    Warning,
}

/// A worker: a command and how many processes of it take jobs.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// Names the worker in ids, the log and metrics.
    pub name: String,
    /// Functions that it can do, most urgent first; may be empty in mode `gearman` only.
    pub functions: Vec<String>,
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// How the command takes jobs.
    pub mode: Mode,
    /// Instances, at least 1.
    pub count: usize,
    /// Longest run of a job; `None` = any.
    pub timeout: Option<Duration>,
    /// Jobs after which a process of mode `lines` is replaced; 0 = any number.
    pub max_jobs: u64,
    /// Age at which a long-lived process is replaced; `None` = any.
    pub max_age: Option<Duration>,
    /// Share by which `max_jobs` and `max_age` differ between instances at random, 0 to 1.
    pub splay: f64,
    /// Most resident memory of the process group in bytes; `None` = any.
    pub memory_max: Option<u64>,
    /// Largest result in bytes.
    pub result_max: u64,
    /// How long running jobs may take after the instance was told to end.
    pub stop_wait: Duration,
    /// Least and most time before a process that ended too early is started again.
    pub backoff: (Duration, Duration),
    /// User to run as, by name or number; `None` = the manager's.
    pub user: Option<String>,
    /// Group to run as; `None` = the user's.
    pub group: Option<String>,
    /// Working folder; `None` = the manager's.
    pub directory: Option<PathBuf>,
    /// File mode creation mask; `None` = the manager's.
    pub umask: Option<u32>,
    /// Added to the niceness, -20 to 19.
    pub nice: i32,
    /// Variables that are set.
    pub environment: BTreeMap<String, String>,
    /// Whether the manager's variables are not passed on, but for PATH, LANG and TZ.
    pub clear_environment: bool,
    /// Glob patterns of files whose change restarts the instances.
    pub watch: Vec<String>,
    /// What becomes of standard error.
    pub stderr: Stderr,
}

impl Worker {
    /// Health after which the back-off begins anew.
    pub const HEALTHY_AFTER: Duration = Duration::from_secs(10);
}

impl Default for Worker {
    /// What a table leaves out; name, functions and command are empty.
    fn default() -> Self {
        Self {
            name: String::new(),
            functions: Vec::new(),
            command: Vec::new(),
            mode: Mode::Exec,
            count: 1,
            timeout: None,
            max_jobs: 0,
            max_age: None,
            splay: 0.1,
            memory_max: None,
            result_max: 64 << 20,
            stop_wait: Duration::from_secs(60),
            backoff: (Duration::from_secs(1), Duration::from_secs(60)),
            user: None,
            group: None,
            directory: None,
            umask: None,
            nice: 0,
            environment: BTreeMap::new(),
            clear_environment: false,
            watch: Vec::new(),
            stderr: Stderr::Log,
        }
    }
}
