//! The server's process for one run: an event loop, a number of cores and options by chance.
//!
//! Starts servers with the server tests' harness. Invariant: a seed always gives the same options.

use fastrand::Rng;

use crate::harness::{Contender, Server};

/// An event loop and a number of cores.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variant {
    pub(crate) driver: &'static str,
    pub(crate) cores: usize,
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
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let server = Server::start_ringgear(variant.driver, 0, &words);
        let command = format!("ringgeard --io={} {}", variant.driver, words.join(" "));
        Self { server, command, cores: variant.cores }
    }
}
