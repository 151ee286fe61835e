//! The server's process for one run: an event loop, a number of cores and options by chance.
//!
//! Starts servers with the server tests' harness. Invariant: a seed always gives the same options,
//! and a store is no other run's.

use fastrand::Rng;
use tempfile::TempDir;

use crate::harness::{Contender, Server};

/// An event loop and a number of cores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) driver: &'static str,
    pub(crate) cores: usize,
    /// Whether background jobs are kept in a SQLite file.
    pub(crate) store: bool,
}

impl Variant {
    /// Whether this machine can run it; says why not.
    pub(crate) fn is_here(self) -> bool {
        self.driver == "epoll" || Contender::RinggearUring.is_here()
    }
}

/// A server that runs, and how it was started.
pub(crate) struct Process {
    pub(crate) server: Server,
    /// Its options, for people.
    pub(crate) command: String,
    pub(crate) cores: usize,
    driver: &'static str,
    words: Vec<String>,
    /// Where the store's file is.
    _folder: Option<TempDir>,
}

/// Options that change what must be answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) wakeup: Option<usize>,
    pub(crate) attempts_max: Option<u32>,
    pub(crate) exceptions: bool,
    /// How long a woken worker may take to grab, in milliseconds.
    pub(crate) lease_ms: u64,
    /// `--move-after`; `None` = the default.
    pub(crate) move_after: Option<u32>,
}

impl Options {
    /// Most runs have the defaults.
    pub(crate) fn by_chance(rng: &mut Rng, lease_ms: u64) -> Self {
        let mut options = Self { lease_ms, ..Self::default() };
        if rng.u8(..3) == 0 {
            options.wakeup = [Some(0), Some(1), Some(2), None][rng.usize(..4)];
            options.attempts_max = [None, Some(0), Some(2), Some(3)][rng.usize(..4)];
            options.exceptions = rng.bool();
        }
        options.move_after = [None, Some(0), Some(1)][rng.usize(..3)];
        options
    }
}

impl Process {
    /// Starts one.
    pub(crate) fn start(variant: Variant, options: &Options) -> Self {
        let mut words = vec![format!("--wakeup-lease={}", options.lease_ms)];
        words.extend(options.wakeup.map(|limit| format!("--worker-wakeup={limit}")));
        words.extend(options.attempts_max.map(|max| format!("--job-retries={max}")));
        words.extend(options.exceptions.then(|| "--exceptions".to_owned()));
        words.extend(options.move_after.map(|after| format!("--move-after={after}")));
        words.push(format!("--threads={}", variant.cores));
        let folder = variant.store.then(|| tempfile::tempdir().expect("a folder"));
        let file = folder.as_ref().map(|folder| folder.path().join("jobs.db"));
        words.extend(file.map(|file| format!("--store=sqlite:{}", file.display())));
        let server = start(variant.driver, &words);
        let command = format!("ringgeard --io={} {}", variant.driver, words.join(" "));
        let Variant { driver, cores, .. } = variant;
        Self { server, command, cores, driver, words, _folder: folder }
    }

    /// Ends the server, with `kill` by SIGKILL, else by SIGTERM, and starts it again.
    pub(crate) fn restart(&mut self, kill: bool) -> Result<(), String> {
        self.server.signal(if kill { "KILL" } else { "TERM" });
        let status = self.server.wait();
        if !kill && status.code() != Some(0) {
            return Err(format!("SIGTERM ended the server with {status}"));
        }
        self.server = start(self.driver, &self.words);
        Ok(())
    }
}

fn start(driver: &str, words: &[String]) -> Server {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Server::start_ringgear(driver, 0, &words)
}
