//! The servers that are measured: how each is found and started, and which protocol it speaks.
//!
//! A contender that can't be had here says why in one sentence; it then stands in every table as
//! absent. `installed` knows how servers of other projects are called, `ringgear` and `postgres`
//! this one's.

pub(crate) mod installed;
mod postgres;
pub(crate) mod ringgear;

use std::path::{Path, PathBuf};
use std::process::Command;

use ::ringgear::io::{self, CoreCount, Driver};
use anyhow::{Error, Result};

use crate::data_dir::disk_bytes;
use crate::locate::{self, first_line};
use crate::options::RunOptions;
use crate::process::{Server, Start};
use crate::relay::RING_ENTRIES;
use crate::scenario::{Scenario, Work, plan};
use crate::wire_protocol::Protocol;

/// A server that can be measured: its name in options and tables, and what it is, for readers of
/// the results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    kind: Kind,
}

/// How it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// This project's server on an event loop, with these options.
    Ringgear(&'static str, &'static [&'static str]),
    /// The same with its jobs in PostgreSQL, where jobs are stored.
    Postgres,
    /// The C server, or the one of `--gearmand-built`; as it comes, or with options that help it.
    Gearmand {
        built: bool,
        tuned: bool,
    },
    /// The Perl server.
    Perl,
    Beanstalkd,
    Redis,
    /// The floor.
    Relay(&'static str),
}

const fn contender(name: &'static str, about: &'static str, kind: Kind) -> Contender {
    Contender { name, about, kind }
}

impl Contender {
    /// All of them, in the order of tables.
    pub(crate) const ALL: [Self; 14] = [
        contender(
            "ringgear-uring",
            "ringgeard --io uring, and in `durable` --store sqlite:PATH",
            Kind::Ringgear("uring", &[]),
        ),
        contender(
            "ringgear-epoll",
            "ringgeard --io epoll, and in `durable` --store sqlite:PATH",
            Kind::Ringgear("epoll", &[]),
        ),
        contender(
            "ringgear-glommio",
            "ringgeard --io glommio, and in `durable` --store sqlite:PATH",
            Kind::Ringgear("glommio", &[]),
        ),
        contender(
            "ringgear-polling",
            "ringgeard --io uring --busy-poll 200, which is always busy; in `latency` only",
            Kind::Ringgear("uring", &["--busy-poll", "200"]),
        ),
        contender(
            "ringgear-pg",
            "ringgeard --io uring --store with the database of --postgres, wherever that runs",
            Kind::Postgres,
        ),
        contender(
            "gearmand",
            "C gearmand with --backlog=1024, else its defaults, and in `durable` \
             --queue-type=libsqlite3",
            Kind::Gearmand { built: false, tuned: false },
        ),
        contender(
            "gearmand-tuned",
            "C gearmand with --worker-wakeup=1 --hashtable-buckets=1000003 and a thread for each \
             core",
            Kind::Gearmand { built: false, tuned: true },
        ),
        contender(
            "gearmand-built",
            "as gearmand: the binary of --gearmand-built",
            Kind::Gearmand { built: true, tuned: false },
        ),
        contender(
            "gearmand-built-tuned",
            "as gearmand-tuned: that binary",
            Kind::Gearmand { built: true, tuned: true },
        ),
        contender("gearman-server", "the Perl server (Gearman::Server), defaults", Kind::Perl),
        contender(
            "beanstalkd",
            "put, reserve, delete; nothing is answered to the submitter; no binlog, but in \
             `durable` -b with -f 0",
            Kind::Beanstalkd,
        ),
        contender(
            "redis",
            "LPUSH, BLMOVE, LREM on lists; nothing is answered to the submitter; no persistence, \
             but in `durable` appendonly with appendfsync always",
            Kind::Redis,
        ),
        contender("floor-uring", FLOOR, Kind::Relay("uring")),
        contender("floor-epoll", FLOOR, Kind::Relay("epoll")),
    ];

    /// The contender of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name == name)
    }

    pub(crate) fn protocol(self) -> Protocol {
        match self.kind {
            Kind::Beanstalkd => Protocol::Beanstalk,
            Kind::Redis => Protocol::Redis,
            _ => Protocol::Gearman,
        }
    }

    /// Whether it is a C gearmand, whose queue can be filled from here.
    pub(crate) fn is_gearmand(self) -> bool {
        matches!(self.kind, Kind::Gearmand { .. })
    }

    /// Whether it has policies for failed jobs.
    pub(crate) fn has_policies(self) -> bool {
        matches!(self.kind, Kind::Ringgear(..))
    }

    /// Whether connections are descriptors of its rings, of which each thread has one, and not of
    /// its process.
    pub(crate) fn has_rings(self) -> bool {
        matches!(self.kind, Kind::Ringgear("uring", _))
    }

    /// Its program, or how to get it.
    fn program(self, options: &RunOptions) -> Result<PathBuf, String> {
        let (path, package) = match self.kind {
            Kind::Ringgear(..) | Kind::Postgres => {
                return locate::find("ringgeard", options.places.ringgeard.as_deref());
            }
            Kind::Relay(_) => return std::env::current_exe().map_err(|error| error.to_string()),
            Kind::Gearmand { built: true, .. } => {
                let path = options.gearmand_built.as_ref();
                (path.ok_or("--gearmand-built isn't given")?, "gearman-job-server")
            }
            Kind::Gearmand { built: false, .. } => (&options.gearmand, "gearman-job-server"),
            Kind::Perl => (&options.gearman_server, "gearman-server"),
            Kind::Beanstalkd => (&options.beanstalkd, "beanstalkd"),
            Kind::Redis => (&options.redis, "redis-server"),
        };
        locate::installed(path, package)
    }

    /// Why it can't be started here, if so.
    pub(crate) fn absent(self, options: &RunOptions) -> Option<String> {
        let program = match self.program(options) {
            Ok(program) => program,
            Err(why) => return Some(why),
        };
        let needs_uring = match self.kind {
            Kind::Ringgear(io, _) | Kind::Relay(io) => io != "epoll",
            kind => kind == Kind::Postgres,
        };
        let one = CoreCount::exactly(1);
        if needs_uring && let Err(error) = io::choose(Driver::Uring, one, RING_ENTRIES, true) {
            return Some(error.to_string());
        }
        match self.kind {
            Kind::Perl => installed::not_perl(&program),
            Kind::Postgres => postgres::absent(options),
            _ => None,
        }
    }

    /// Why it can't keep jobs on disk here, if so.
    pub(crate) fn absent_on_disk(self, options: &RunOptions) -> Option<String> {
        match self.kind {
            Kind::Gearmand { .. } => installed::no_queue_in_sqlite(&self.program(options).ok()?),
            Kind::Perl => Some("it keeps jobs in memory only".to_owned()),
            Kind::Relay(_) => Some("it keeps no jobs".to_owned()),
            _ => None,
        }
    }

    /// Whether it is measured in a scenario; absent ones stand in the tables, others don't.
    pub(crate) fn takes_part(self, scenario: &Scenario, options: &RunOptions) -> bool {
        let is_ours_or_gearmand = matches!(self.kind, Kind::Ringgear(..) | Kind::Gearmand { .. });
        match self.kind {
            _ if matches!(scenario.work, Work::Tls(..) | Work::Http(_) | Work::Manager(_))
                && !is_ours_or_gearmand =>
            {
                false
            }
            Kind::Gearmand { built: true, .. } => options.gearmand_built.is_some(),
            Kind::Postgres => scenario.stores(),
            Kind::Ringgear(_, more) => more.is_empty() || matches!(scenario.work, Work::Open(_)),
            _ => true,
        }
    }

    /// Why a scenario says nothing about it, if so.
    pub(crate) fn absent_in(self, scenario: &Scenario) -> Option<&'static str> {
        let gearman = self.protocol() == Protocol::Gearman;
        let floor = matches!(self.kind, Kind::Relay(_));
        let why = match scenario.work {
            Work::Open(_) if !gearman => "its driver here has no open loop",
            Work::Load(words) if !gearman && plan(words).is_ok_and(|it| it.extra_functions > 0) => {
                "its workers have no functions"
            }
            Work::Load(words) if floor && plan(words).is_ok_and(|it| it.workers == 0) => {
                "without a queue there is nowhere to put jobs that nobody takes"
            }
            Work::QueueDepth(_) if floor => "without a queue it has no depth",
            Work::Cores(..) if floor => "it has one thread",
            Work::Cores(..) if !gearman => "its driver here has one thread",
            _ => return None,
        };
        Some(why)
    }

    /// What differs for it in a scenario, if anything.
    pub(crate) fn note_in(self, scenario: &Scenario) -> &'static str {
        match scenario.work {
            _ if self.protocol() == Protocol::Gearman => "",
            Work::Load(words) if plan(words).is_ok_and(|it| it.functions > 1) => {
                "one queue instead of many functions"
            }
            Work::QueueDepth(_) | Work::Durable(_) => "no unique keys",
            Work::Large(_) => "nothing goes back: half of the bytes",
            Work::Nagle(_) => {
                "delete and reserve, or LREM and BLMOVE, for a result and GRAB_JOB: the former is \
                 answered, which acknowledges it; a payload for the body of a packet"
            }
            _ => "",
        }
    }

    /// What the jobs take of the disk that a server left in a folder, bytes.
    pub(crate) fn disk_bytes(self, options: &RunOptions, folder: &Path) -> Result<u64> {
        match self.kind {
            Kind::Postgres => postgres::disk_bytes(options),
            _ => disk_bytes(folder),
        }
    }

    /// A server, ready for connections; a fresh one unless there are files in its folder.
    pub(crate) fn start(self, options: &RunOptions, start: &Start<'_>) -> Result<Server> {
        let program = self.program(options).map_err(Error::msg)?;
        let mut command = match self.kind {
            Kind::Ringgear(io, more) => {
                let mut command = ringgear::command(&program, io, start);
                command.args(more);
                command
            }
            Kind::Postgres => postgres::command(&program, options, start)?,
            Kind::Relay(io) => {
                let mut command = Command::new(program);
                command.args(["relay", "--io", io, "--port", "0"]);
                command
            }
            kind => {
                let command = |port: u16| installed::command(kind, &program, port, start);
                return Server::start_told(command, start);
            }
        };
        Server::start_announced(&mut command, start)
    }

    /// Its version, in one line.
    pub(crate) fn version(self, options: &RunOptions) -> String {
        let program = self.program(options);
        let unknown = || "unknown".to_owned();
        let said = |argument: &str| match &program {
            Ok(program) => first_line(program, &[argument]).unwrap_or_else(unknown),
            Err(why) => why.clone(),
        };
        match self.kind {
            Kind::Postgres => format!("{} on {}", said("--version"), postgres::version(options)),
            Kind::Perl => {
                let program =
                    "use Gearman::Server; print 'Gearman::Server ', Gearman::Server->VERSION";
                first_line("perl", &["-e", program]).unwrap_or_else(unknown)
            }
            Kind::Beanstalkd => said("-v"),
            Kind::Relay(_) => format!("bench-harness {}", env!("CARGO_PKG_VERSION")),
            _ => said("--version"),
        }
    }
}

const FLOOR: &str = "the floor: the same bytes between the same sockets, no job queue";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::scenario;

    #[test]
    fn names_are_unique_and_ringgear_is_in_all_scenarios() {
        let names: HashSet<&str> = Contender::ALL.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), Contender::ALL.len());
        for scenario in scenario::ALL {
            assert_eq!(Contender::ALL[0].absent_in(&scenario), None);
        }
    }

    #[test]
    fn the_description_of_the_tuned_gearmand_names_its_options() {
        let tuned = Contender::named("gearmand-tuned").unwrap();
        for option in installed::TUNED {
            assert!(tuned.about.contains(option), "{option}");
        }
    }
}
