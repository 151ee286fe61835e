//! The server's process for one run: an event loop, a number of cores and options by chance.
//!
//! Starts servers with the server tests' harness. Invariant: a seed always gives the same options,
//! and a store is no other run's.

use fastrand::Rng;
use tempfile::TempDir;

use crate::harness::{Contender, Server};

/// In the place of an event loop: not this project's server, but gearmand.
pub(crate) const GEARMAND: &str = "gearmand";

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
        match self.driver {
            "epoll" => true,
            GEARMAND => Contender::Gearmand.is_here(),
            "glommio" => Contender::RinggearGlommio.is_here(),
            _ => Contender::RinggearUring.is_here(),
        }
    }

    pub(crate) fn is_gearmand(self) -> bool {
        self.driver == GEARMAND
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
        if variant.is_gearmand() {
            return Self::start_gearmand(variant, options);
        }
        let mut words = vec![format!("--wakeup-lease={}", options.lease_ms)];
        words.extend(options.wakeup.map(|limit| format!("--worker-wakeup={limit}")));
        words.extend(options.attempts_max.map(|max| format!("--job-retries={max}")));
        words.extend(options.exceptions.then(|| "--exceptions".to_owned()));
        words.extend(options.move_after.map(|after| format!("--move-after={after}")));
        words.push(format!("--threads={}", variant.cores));
        let folder = variant.store.then(folder_in_memory);
        let file = folder.as_ref().map(|folder| folder.path().join("jobs.db"));
        words.extend(file.map(|file| format!("--store=sqlite:{}", file.display())));
        let server = start(variant.driver, &words);
        let command = format!("ringgeard --io={} {}", variant.driver, words.join(" "));
        let Variant { driver, cores, .. } = variant;
        Self { server, command, cores, driver, words, _folder: folder }
    }

    fn start_gearmand(variant: Variant, options: &Options) -> Self {
        let mut words = Vec::new();
        words.extend(options.attempts_max.map(|max| format!("--job-retries={max}")));
        words.extend(options.exceptions.then(|| "--exceptions".to_owned()));
        let server = start(variant.driver, &words);
        let command = format!("gearmand {}", words.join(" "));
        let Variant { driver, cores, .. } = variant;
        Self { server, command, cores, driver, words, _folder: None }
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
    if driver == GEARMAND {
        let server = Server::start_with(Contender::Gearmand, &words);
        return server.expect("a gearmand, which was there before");
    }
    Server::start_ringgear(driver, 0, &words)
}

/// A folder in memory, where the system has one: a disk that other programs keep busy may take
/// longer for a commit than the fuzzer waits for the end of a connection.
fn folder_in_memory() -> TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory.or_else(|_| tempfile::tempdir()).expect("a folder")
}
