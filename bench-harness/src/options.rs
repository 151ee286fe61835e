//! The command line: which scenarios, which contenders, how often, and where the results go.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringgear::io::Driver;

/// Measured time of a sample.
const FULL_TIME: Duration = Duration::from_secs(10);
const QUICK_TIME: Duration = Duration::from_secs(1);
/// Time under load before that.
const FULL_WARM_UP: Duration = Duration::from_secs(1);
const QUICK_WARM_UP: Duration = Duration::from_millis(300);

/// Measures ringgear beside the servers it replaces, on this machine.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Measure, and write a folder of results
    Run(Box<RunOptions>),
    /// Load one server with everything at once for long: its memory and descriptors must stay flat
    Soak(Box<SoakOptions>),
    /// Write tables and plots of a folder of results again, from its raw samples
    Report(ReportOptions),
    /// The floor: move bytes between clients and workers without a job queue
    Relay(RelayOptions),
    /// List scenarios and contenders
    List,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct RunOptions {
    /// Scenario to run; all unless given
    #[arg(long = "scenario", value_name = "NAME")]
    pub(crate) scenarios: Vec<String>,
    /// Contender to run; all unless given
    #[arg(long = "contender", value_name = "NAME")]
    pub(crate) contenders: Vec<String>,
    /// Fresh servers that each contender gets for each scenario [default: 5, or 1 with --quick]
    #[arg(long, value_name = "N")]
    pub(crate) repeats: Option<usize>,
    /// Short and small: shows that everything works, not how fast it is
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measured seconds of each sample [default: 10, or 1 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,
    /// Seconds under load before that [default: 1, or 0.3 with --quick]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) warm_up: Option<Duration>,
    /// Name of the run, for its folder and heading [default: full, part or quick]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Core that the server runs on, alone; scenarios of several cores choose by themselves
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub(crate) server_core: usize,
    /// Cores that the load runs on
    #[arg(long, value_name = "CORES", default_value = "1", value_delimiter = ',')]
    pub(crate) load_cores: Vec<usize>,
    /// Jobs a second of the scenario `latency` [default: a quarter of what gearmand manages]
    #[arg(long, value_name = "JOBS")]
    pub(crate) latency_rate: Option<u64>,
    /// Longest time that filling or draining one queue may take before it is cut short
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    pub(crate) phase_limit: Duration,
    #[command(flatten)]
    pub(crate) places: Places,
    /// Database for ringgear's store on PostgreSQL: its tables there are dropped again and again
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,
    /// Binary of C gearmand
    #[arg(long, value_name = "PATH", default_value = "/usr/sbin/gearmand")]
    pub(crate) gearmand: PathBuf,
    /// Binary of another C gearmand, a later one built from source, to measure beside that one
    #[arg(long, value_name = "PATH")]
    pub(crate) gearmand_built: Option<PathBuf>,
    /// Binary of gearman-tools, whose `-w` runs a command for each job
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/gearman")]
    pub(crate) gearman: PathBuf,
    /// Binary of ringgear's manager [default: beside this one]
    #[arg(long, value_name = "PATH")]
    pub(crate) ringgear_manager: Option<PathBuf>,
    /// Program of the Perl server
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/gearmand")]
    pub(crate) gearman_server: PathBuf,
    /// Binary of beanstalkd
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/beanstalkd")]
    pub(crate) beanstalkd: PathBuf,
    /// Binary of Redis
    #[arg(long, value_name = "PATH", default_value = "/usr/bin/redis-server")]
    pub(crate) redis: PathBuf,
}

/// Where programs are, and where files go.
#[derive(Args, Clone, Debug)]
pub(crate) struct Places {
    /// Folder of the results [default: results/DATE-NAME]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Folder for what servers store, on a disk [default: that of this binary]
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
    /// Binary of ringgear's server [default: beside this one]
    #[arg(long, value_name = "PATH")]
    pub(crate) ringgeard: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SoakOptions {
    /// Time under load
    #[arg(long, default_value_t = 30.0)]
    pub(crate) minutes: f64,
    /// Jobs a second, all kinds of load together
    #[arg(long, default_value_t = 1000.0, value_name = "JOBS")]
    pub(crate) rate: f64,
    /// Connections that are closed and opened anew each second, all kinds of load together
    #[arg(long, default_value_t = 20.0, value_name = "CONNECTIONS")]
    pub(crate) churn: f64,
    /// Share of jobs (0 to 1) whose worker disconnects instead of answering
    #[arg(long, default_value_t = 0.005, value_name = "SHARE")]
    pub(crate) worker_crash: f64,
    /// Event loop
    #[arg(long, value_enum, default_value = "uring")]
    pub(crate) io: Driver,
    /// Threads of the server
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Keep background jobs in a store
    #[arg(long, value_enum)]
    pub(crate) store: Option<SoakStore>,
    /// Time between two samples
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    pub(crate) every: Duration,
    /// Growth of memory, fitted over the second half, that still counts as flat, MiB
    #[arg(long, default_value_t = 2.0, value_name = "MIB", allow_negative_numbers = true)]
    pub(crate) growth_max: f64,
    /// Name of the run, for its folder and heading
    #[arg(long, default_value = "soak")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) places: Places,
}

/// Where a soak's background jobs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SoakStore {
    /// A file of SQLite
    Sqlite,
}

#[derive(Args, Debug)]
pub(crate) struct ReportOptions {
    /// Folder of an earlier run
    #[arg(long = "in", value_name = "DIR")]
    pub(crate) folder: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct RelayOptions {
    /// Event loop
    #[arg(long, value_enum, default_value = "epoll")]
    pub(crate) io: Driver,
    /// Port on loopback; 0 takes a free one and says which
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
}

impl RunOptions {
    /// Fresh servers for each scenario and contender.
    pub(crate) fn repeats(&self) -> usize {
        self.repeats.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    /// How long a sample is measured.
    pub(crate) fn duration(&self) -> Duration {
        self.duration.unwrap_or(if self.quick { QUICK_TIME } else { FULL_TIME })
    }

    /// How long the load runs before that.
    pub(crate) fn warm_up(&self) -> Duration {
        self.warm_up.unwrap_or(if self.quick { QUICK_WARM_UP } else { FULL_WARM_UP })
    }

    /// What the folder and the heading are called.
    pub(crate) fn name(&self) -> &str {
        let chosen = !self.scenarios.is_empty() || !self.contenders.is_empty();
        match &self.name {
            Some(name) => name,
            None if self.quick => "quick",
            None if chosen => "part",
            None => "full",
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    let seconds = number.parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_contradict_nothing() {
        Options::command().debug_assert();
    }

    #[test]
    fn scenarios_and_contenders_may_be_given_more_than_once() {
        let line = "bench-harness run --scenario steady --scenario herd --quick --duration 2.5s";
        let Action::Run(options) = Options::parse_from(line.split(' ')).action else {
            panic!("not a run");
        };
        assert_eq!(options.scenarios, ["steady", "herd"]);
        assert_eq!((options.repeats(), options.name()), (1, "quick"));
        assert_eq!(options.duration(), Duration::from_millis(2500));
    }
}
