//! Who is measured: how each is found, started and recognised, and which protocol it speaks.
//!
//! A contender that can't be had here says why in one sentence; it then stands in every table as
//! absent. One file per kind of server; they know programs and options, and nothing of scenarios.

mod beanstalkd;
mod gearmand;
mod perl;
mod redis;
mod relay;
mod ringgear;

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::options::{EventLoop, RunOptions};
use crate::process::{Cores, Server};

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

/// Somebody who can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// This project's server.
    Ringgear(EventLoop),
    /// Likewise on glommio.
    RinggearGlommio,
    /// The C server as it comes, or with options that help it.
    Gearmand { tuned: bool },
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
    pub(crate) const ALL: [Self; 10] = [
        Self::Ringgear(EventLoop::Uring),
        Self::Ringgear(EventLoop::Epoll),
        Self::RinggearGlommio,
        Self::Gearmand { tuned: false },
        Self::Gearmand { tuned: true },
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
            Self::Gearmand { tuned: false } => "gearmand",
            Self::Gearmand { tuned: true } => "gearmand-tuned",
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
            Self::Ringgear(EventLoop::Uring) => "ringgeard --io uring",
            Self::Ringgear(EventLoop::Epoll) => "ringgeard --io epoll",
            Self::RinggearGlommio => "ringgeard --io glommio",
            Self::Gearmand { tuned: false } => "C gearmand with --backlog=1024, else its defaults",
            Self::Gearmand { tuned: true } => gearmand::TUNED_ABOUT,
            Self::Perl => "the Perl server (Gearman::Server), defaults",
            Self::Beanstalkd => {
                "put, reserve, delete; nothing is answered to the submitter; no binlog"
            }
            Self::Redis => {
                "LPUSH, BLMOVE, LREM on lists; nothing is answered to the submitter; no persistence"
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
            Self::RinggearGlommio => ringgear::absent(options, EventLoop::Uring),
            Self::Gearmand { .. } => gearmand::absent(options),
            Self::Perl => perl::absent(options),
            Self::Beanstalkd => beanstalkd::absent(options),
            Self::Redis => redis::absent(options),
            Self::Relay(io) => relay::absent(io),
        }
    }

    /// A fresh server, ready for connections.
    pub(crate) fn start(self, options: &RunOptions, cores: &Cores) -> Result<Server> {
        match self {
            Self::Ringgear(io) => ringgear::start(options, io.name(), cores),
            Self::RinggearGlommio => ringgear::start(options, "glommio", cores),
            Self::Gearmand { tuned } => gearmand::start(options, tuned, cores),
            Self::Perl => perl::start(options, cores),
            Self::Beanstalkd => beanstalkd::start(options, cores),
            Self::Redis => redis::start(options, cores),
            Self::Relay(io) => relay::start(io, cores),
        }
    }

    /// Its version, in one line.
    pub(crate) fn version(self, options: &RunOptions) -> String {
        match self {
            Self::Ringgear(_) | Self::RinggearGlommio => ringgear::version(options),
            Self::Gearmand { .. } => gearmand::version(options),
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
