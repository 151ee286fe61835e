//! Who is measured: how each is found, started and recognised, and which protocol it speaks.
//!
//! A contender that can't be had here says why in one sentence; it then stands in every table as
//! absent. One file per kind of server; they know programs and options, and nothing of scenarios.

mod beanstalkd;
pub(crate) mod gearmand;
mod perl;
mod postgres;
mod redis;
mod relay;
pub(crate) mod ringgear;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::data_dir::disk_bytes;
use crate::options::{EventLoop, RunOptions};
use crate::process::{Cores, Server};
use crate::scenario::Scenario;

/// What a contender speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// The Gearman protocol.
    Gearman,
    /// put, reserve, delete.
    Beanstalk,
    /// LPUSH, BLMOVE, LREM.
    Redis,
}

/// Where a server keeps background jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence<'a> {
    /// In memory.
    Memory,
    /// In files of this folder, on disk before the answer.
    Disk(&'a Path),
    /// In such files, on disk at some time where the server knows that: to fill them fast.
    Async(&'a Path),
}

impl<'a> Persistence<'a> {
    /// The folder, if there is one.
    fn folder(self) -> Option<&'a Path> {
        match self {
            Self::Memory => None,
            Self::Disk(folder) | Self::Async(folder) => Some(folder),
        }
    }
}

/// What a server is started with besides its options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start<'a> {
    /// Where it runs.
    pub(crate) cores: &'a Cores,
    /// Where it keeps jobs.
    pub(crate) persistence: Persistence<'a>,
    /// Threads that serve connections, where it can be told.
    pub(crate) threads: usize,
    /// How long it may take until it listens.
    pub(crate) patience: Duration,
}

/// Somebody who can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// This project's server.
    Ringgear(EventLoop),
    /// Likewise on glommio.
    RinggearGlommio,
    /// The same, looking for something to do before it sleeps, where latency counts.
    RinggearPolling,
    /// The same with its jobs in PostgreSQL, where jobs are stored.
    RinggearPostgres,
    /// The C server as it comes, or with options that help it.
    Gearmand { tuned: bool },
    /// Likewise another version of it, beside the installed one.
    GearmandBuilt { tuned: bool },
    /// The Perl server.
    Perl,
    /// beanstalkd.
    Beanstalkd,
    /// Redis lists.
    Redis,
    /// The floor.
    Relay(EventLoop),
}

impl Contender {
    /// All of them, in the order of tables.
    pub(crate) const ALL: [Self; 14] = [
        Self::Ringgear(EventLoop::Uring),
        Self::Ringgear(EventLoop::Epoll),
        Self::RinggearGlommio,
        Self::RinggearPolling,
        Self::RinggearPostgres,
        Self::Gearmand { tuned: false },
        Self::Gearmand { tuned: true },
        Self::GearmandBuilt { tuned: false },
        Self::GearmandBuilt { tuned: true },
        Self::Perl,
        Self::Beanstalkd,
        Self::Redis,
        Self::Relay(EventLoop::Uring),
        Self::Relay(EventLoop::Epoll),
    ];

    /// Its name in options and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ringgear(EventLoop::Uring) => "ringgear-uring",
            Self::Ringgear(EventLoop::Epoll) => "ringgear-epoll",
            Self::RinggearGlommio => "ringgear-glommio",
            Self::RinggearPolling => "ringgear-polling",
            Self::RinggearPostgres => "ringgear-pg",
            Self::Gearmand { tuned: false } => "gearmand",
            Self::Gearmand { tuned: true } => "gearmand-tuned",
            Self::GearmandBuilt { tuned: false } => "gearmand-built",
            Self::GearmandBuilt { tuned: true } => "gearmand-built-tuned",
            Self::Perl => "gearman-server",
            Self::Beanstalkd => "beanstalkd",
            Self::Redis => "redis",
            Self::Relay(EventLoop::Uring) => "floor-uring",
            Self::Relay(EventLoop::Epoll) => "floor-epoll",
        }
    }

    /// What it is, for readers of the results.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Ringgear(EventLoop::Uring) => {
                "ringgeard --io uring, and in `durable` --store sqlite:PATH"
            }
            Self::Ringgear(EventLoop::Epoll) => {
                "ringgeard --io epoll, and in `durable` --store sqlite:PATH"
            }
            Self::RinggearGlommio => "ringgeard --io glommio, and in `durable` --store sqlite:PATH",
            Self::RinggearPolling => ringgear::POLLING_ABOUT,
            Self::RinggearPostgres => {
                "ringgeard --io uring --store with the database of --postgres, wherever that runs"
            }
            Self::Gearmand { tuned: false } => {
                "C gearmand with --backlog=1024, else its defaults, and in `durable` --queue-type=libsqlite3"
            }
            Self::Gearmand { tuned: true } => gearmand::TUNED_ABOUT,
            Self::GearmandBuilt { tuned: false } => "as gearmand: the binary of --gearmand-built",
            Self::GearmandBuilt { tuned: true } => "as gearmand-tuned: that binary",
            Self::Perl => "the Perl server (Gearman::Server), defaults",
            Self::Beanstalkd => {
                "put, reserve, delete; nothing is answered to the submitter; no binlog, but in `durable` \
                 -b with -f 0"
            }
            Self::Redis => {
                "LPUSH, BLMOVE, LREM on lists; nothing is answered to the submitter; no persistence, \
                 but in `durable` appendonly with appendfsync always"
            }
            Self::Relay(_) => "the floor: the same bytes between the same sockets, no job queue",
        }
    }

    /// What it speaks.
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Beanstalkd => Protocol::Beanstalk,
            Self::Redis => Protocol::Redis,
            _ => Protocol::Gearman,
        }
    }

    /// Why it can't be started here, if so.
    pub(crate) fn absent(self, options: &RunOptions) -> Option<String> {
        match self {
            Self::Ringgear(io) => ringgear::absent(options, io),
            Self::RinggearGlommio | Self::RinggearPolling => {
                ringgear::absent(options, EventLoop::Uring)
            }
            Self::RinggearPostgres => postgres::absent(options),
            Self::Gearmand { .. } => gearmand::absent(&options.gearmand),
            Self::GearmandBuilt { .. } => match &options.gearmand_built {
                Some(path) => gearmand::absent(path),
                None => Some("--gearmand-built isn't given".to_owned()),
            },
            Self::Perl => perl::absent(options),
            Self::Beanstalkd => beanstalkd::absent(options),
            Self::Redis => redis::absent(options),
            Self::Relay(io) => relay::absent(io),
        }
    }

    /// Why it can't keep jobs on disk here, if so.
    pub(crate) fn absent_on_disk(self, options: &RunOptions) -> Option<String> {
        match self {
            Self::Gearmand { .. } => gearmand::absent_on_disk(&options.gearmand),
            Self::GearmandBuilt { .. } => {
                options.gearmand_built.as_deref().and_then(gearmand::absent_on_disk)
            }
            Self::Perl => Some("it keeps jobs in memory only".to_owned()),
            Self::Relay(_) => Some("it keeps no jobs".to_owned()),
            _ => None,
        }
    }

    /// Whether it is measured in a scenario; absent ones stand in the tables, others don't.
    pub(crate) fn takes_part(self, scenario: &Scenario, options: &RunOptions) -> bool {
        match self {
            Self::GearmandBuilt { .. } => options.gearmand_built.is_some(),
            Self::RinggearPostgres => scenario.stores(),
            Self::RinggearPolling => scenario.is_open(),
            _ => true,
        }
    }

    /// What the jobs take of the disk that a server left in a folder, bytes.
    pub(crate) fn disk_bytes(self, options: &RunOptions, folder: &Path) -> Result<u64> {
        match self {
            Self::RinggearPostgres => postgres::disk_bytes(options),
            _ => disk_bytes(folder),
        }
    }

    /// A server, ready for connections; a fresh one unless there are files in its folder.
    pub(crate) fn start(self, options: &RunOptions, start: &Start<'_>) -> Result<Server> {
        match self {
            Self::Ringgear(io) => ringgear::start(options, io.name(), &[], start),
            Self::RinggearGlommio => ringgear::start(options, "glommio", &[], start),
            Self::RinggearPolling => ringgear::start(options, "uring", &ringgear::POLLING, start),
            Self::RinggearPostgres => postgres::start(options, start),
            Self::Gearmand { tuned } => gearmand::start(&options.gearmand, tuned, start),
            Self::GearmandBuilt { tuned } => match &options.gearmand_built {
                Some(path) => gearmand::start(path, tuned, start),
                None => bail!("--gearmand-built isn't given"),
            },
            Self::Perl => perl::start(options, start),
            Self::Beanstalkd => beanstalkd::start(options, start),
            Self::Redis => redis::start(options, start),
            Self::Relay(io) => relay::start(io, start),
        }
    }

    /// Its version, in one line.
    pub(crate) fn version(self, options: &RunOptions) -> String {
        match self {
            Self::Ringgear(_) | Self::RinggearGlommio | Self::RinggearPolling => {
                ringgear::version(options)
            }
            Self::RinggearPostgres => postgres::version(options),
            Self::Gearmand { .. } => gearmand::version(&options.gearmand),
            Self::GearmandBuilt { .. } => {
                options.gearmand_built.as_deref().map_or_else(String::new, gearmand::version)
            }
            Self::Perl => perl::version(),
            Self::Beanstalkd => beanstalkd::version(options),
            Self::Redis => redis::version(options),
            Self::Relay(_) => format!("bench-harness {}", env!("CARGO_PKG_VERSION")),
        }
    }
}

/// Why there is no `io_uring` here, if so.
fn no_uring(io: EventLoop) -> Option<String> {
    let error = match io {
        EventLoop::Uring => io_uring::IoUring::new(2).err()?,
        EventLoop::Epoll => return None,
    };
    Some(format!("the kernel refuses io_uring: {error}"))
}

/// The first line with letters that a program prints.
fn first_line(program: &Path, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return "unknown".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: HashSet<&str> = Contender::ALL.iter().map(|one| one.name()).collect();
        assert_eq!(names.len(), Contender::ALL.len());
    }
}
