//! The options of `ringgeard`: flags, keys of the configuration file, help texts and defaults.
//!
//! `Options` is the one definition of each option; clap derives the command line from it, and
//! `file` the configuration file. Knows neither the host nor what the options lead to.
//!
//! Invariant: every option of gearmand is accepted here, if only to be refused by `settings`.

use clap::builder::Resettable;
use clap::{ArgAction, Command, CommandFactory, Parser};

use crate::engine::function::Durability;
use crate::io::Driver;
use crate::io::log::{LogFormat, Verbosity};
use crate::shard::cores::CORES_MAX;

/// A Gearman job server: io_uring, one thread per core, wire compatible with gearmand.
#[derive(Clone, Debug, Parser)]
#[command(name = "ringgeard", disable_version_flag = true, term_width = 100)]
pub struct Options {
    /// Host name or address to listen on; all of its addresses are bound. Loopback of both families
    /// unless given; "" means every address of this host
    #[arg(short = 'L', long, value_name = "HOST")]
    pub listen: Option<String>,

    /// Port to listen on: a number, or a name of /etc/services; 0 takes a free one and logs it
    #[arg(short, long, value_name = "PORT", env = "GEARMAND_PORT", default_value = "4730",
        allow_negative_numbers = true, value_parser = parse_port)]
    pub port: String,

    /// Connections that may wait to be accepted
    #[arg(short, long, value_name = "N", default_value_t = 1024)]
    pub backlog: u32,

    /// Event loop: io_uring, epoll, glommio (io_uring, too, and slower), or auto: io_uring where
    /// the kernel allows it, else epoll
    #[arg(long, value_enum, default_value_t = Driver::Auto)]
    pub io: Driver,

    /// Microseconds that a core looks for something to do before it waits in the kernel: answers
    /// come sooner, and up to a whole core is busy all the time. 0 = none
    #[arg(long, value_name = "US", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub busy_poll: u64,

    /// Cores that serve, each with its own listener, event loop and queues; 0 means 1
    #[arg(short, long, value_name = "N", default_value_t = 1, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u8).range(0..=CORES_MAX as i64))]
    pub threads: u8,

    /// With several cores: submissions in a row to the functions of one core after which a client
    /// moves there; a worker whose functions are all of one core does at once. 0 = none moves
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub move_after: u32,

    /// With several cores: connections leave a core that has no time left for one that has. Not
    /// measured yet to be faster
    #[arg(long)]
    pub offload: bool,

    /// Workers that may lose a job before it is failed; -1 = no limit, 0 means 1
    #[arg(short, long, value_name = "N", default_value_t = -1, allow_negative_numbers = true,
        value_parser = parse_job_retries)]
    pub job_retries: i16,

    /// Start of every job handle. "H:" and the host's name unless given; a store keeps the first
    /// server's, and with it another one is refused
    #[arg(long, value_name = "TEXT")]
    pub job_handle_prefix: Option<String>,

    /// Sleeping workers that each job wakes, 0 = all of them. Unless given, as many are woken as
    /// there are jobs to take, the one that fell asleep last first
    #[arg(short, long, value_name = "N")]
    pub worker_wakeup: Option<u32>,

    /// Milliseconds a woken worker may take to grab before all other sleepers are woken
    #[arg(long, value_name = "MS", default_value_t = 100,
        value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub wakeup_lease: u64,

    /// Give every connection exceptions, as if it had asked for them
    #[arg(long)]
    pub exceptions: bool,

    /// Take turns among the functions of a worker. Always so here; accepted for gearmand's sake
    #[arg(short = 'R', long)]
    pub round_robin: bool,

    /// Buckets of gearmand's hash tables. They grow by themselves here; accepted for gearmand's
    /// sake
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub hashtable_buckets: Option<u32>,

    /// Largest packet body in bytes (suffixes k, m, g); larger ones are answered with an error
    #[arg(long, value_name = "BYTES", default_value = "4294967295", value_parser = parse_bytes)]
    pub job_size_max: u64,

    /// Most memory for jobs and unsent bytes (suffixes k, m, g), at least 1m, 0 = no limit. Three
    /// quarters of the host's or container's unless given
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub memory_max: Option<u64>,

    /// Most connections. As many as there may be descriptors, less 64, unless given; with io_uring,
    /// as many for each thread
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub connections_max: Option<u64>,

    /// Bytes that may wait for a connection that doesn't read before it is closed (suffixes k, m,
    /// g)
    #[arg(long, value_name = "BYTES", default_value = "256m", value_parser = parse_bytes)]
    pub outbox_max: u64,

    /// Descriptors to ask for. As many as the hard limit allows unless given
    #[arg(short, long, value_name = "N")]
    pub file_descriptors: Option<u64>,

    /// Probe silent peers. Always so here; accepted for gearmand's sake
    #[arg(long)]
    pub keepalive: bool,

    /// Seconds of silence before the first probe, -1 = 15
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true,
        value_parser = clap::value_parser!(i32).range(-1..=32_767))]
    pub keepalive_idle: i32,

    /// Seconds between probes, -1 = 5
    #[arg(long, value_name = "SECONDS", default_value_t = -1, allow_negative_numbers = true,
        value_parser = clap::value_parser!(i32).range(-1..=32_767))]
    pub keepalive_interval: i32,

    /// Probes without an answer after which a peer is given up, -1 = 3
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true,
        value_parser = clap::value_parser!(i32).range(-1..=32_767))]
    pub keepalive_count: i32,

    /// Seconds that a peer's host may acknowledge nothing of what was sent before it is given up,
    /// 0 = until the kernel does
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub tcp_user_timeout: u32,

    /// Where to log: stderr, none, or a file, which SIGHUP reopens
    #[arg(short, long, value_name = "FILE", default_value = "stderr")]
    pub log_file: String,

    /// How to log
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Log to syslog, too
    #[arg(long)]
    pub syslog: bool,

    /// Least urgent level to log
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Verbosity::Notice)]
    pub verbose: Verbosity,

    /// Log more: -v INFO, -vv DEBUG, -vvv every packet
    #[arg(short = 'v', action = ArgAction::Count)]
    pub more_verbose: u8,

    /// File for the process id. None unless given
    #[arg(short = 'P', long, value_name = "FILE")]
    pub pid_file: Option<String>,

    /// User to become once the port is bound; takes root to start with
    #[arg(short, long, value_name = "NAME")]
    pub user: Option<String>,

    /// Go to the background. The command returns when the port is bound
    #[arg(short, long)]
    pub daemon: bool,

    /// Allow core dumps as large as the hard limit
    #[arg(long)]
    pub coredump: bool,

    /// Where to keep background jobs, so that they outlive the server: sqlite:PATH, or
    /// postgres://USER@HOST/DATABASE. In memory only unless given
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,

    /// Which background jobs go to the store: none, async (answered before they are on disk) or
    /// fsync (answered when they are); FUNCTION=POLICY for one function, as often as needed, POLICY
    /// for all others. fsync unless given
    #[arg(long, value_name = "[FUNCTION=]POLICY", value_parser = parse_durability)]
    pub durability: Vec<(Option<String>, Durability)>,

    /// Milliseconds a background job may wait for a store that fails before it is refused
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub store_timeout: u64,

    /// Wait while another server owns the store, then recover its jobs and serve
    #[arg(long)]
    pub standby: bool,

    /// gearmand's --store: libsqlite3 with --libsqlite3-db, Postgres with --libpq-conninfo, or
    /// builtin
    #[arg(short, long, value_name = "NAME", default_value = "builtin")]
    pub queue_type: String,

    /// File of -q libsqlite3
    #[arg(long, value_name = "FILE")]
    pub libsqlite3_db: Option<String>,

    /// gearmand's table in a SQLite store, whose jobs are taken over. gearman_queue unless given
    #[arg(long, value_name = "TABLE")]
    pub libsqlite3_table: Option<String>,

    /// Connection of -q Postgres, in libpq's words
    #[arg(long, value_name = "TEXT")]
    pub libpq_conninfo: Option<String>,

    /// gearmand's table in a PostgreSQL store, whose jobs are taken over. queue unless given
    #[arg(long, value_name = "TABLE")]
    pub libpq_table: Option<String>,

    /// Another protocol beside Gearman's. gearmand knows "http"; this build knows none
    #[arg(short = 'r', long, value_name = "NAME")]
    pub protocol: Option<String>,

    /// TLS on the Gearman port. This build has none and refuses to start rather than serve without
    #[arg(long)]
    pub ssl: bool,

    /// Configuration file: TOML with these options' long names as keys (see --print-config), or
    /// gearmand's own format
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<String>,

    /// Print all options with their defaults as a TOML file, and end
    #[arg(long)]
    pub print_config: bool,

    /// Check the options, and end
    #[arg(long, hide = true)]
    pub check_args: bool,

    /// Print the version, and end
    #[arg(short = 'V', long)]
    pub version: bool,

    /// Seed of the hash tables, for tests. Random unless given
    #[arg(long, hide = true)]
    pub seed: Option<u64>,

    /// Submissions that a ring of io_uring has room for. Tests run many servers at once, with
    /// small rings, as the kernel counts the rings of all of a user's processes as locked memory
    #[arg(long, hide = true, value_name = "N", default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(16..=4096))]
    pub ring_entries: u32,
}

/// Options of gearmand that only matter together with one that this build refuses. They are
/// accepted, so that the error is about that one.
const IGNORED_OPTIONS: &[&str] = &[
    "http-port",
    "ssl-ca-file",
    "ssl-certificate",
    "ssl-key",
    "mysql-host",
    "mysql-port",
    "mysql-user",
    "mysql-password",
    "mysql-db",
    "mysql-table",
    "libdrizzle-host",
    "libdrizzle-port",
    "libdrizzle-uds",
    "libdrizzle-user",
    "libdrizzle-password",
    "libdrizzle-db",
    "libdrizzle-table",
    "redis-server",
    "redis-port",
    "redis-password",
    "redis-prefix",
    "libmemcached-servers",
    "libmemcached-prefix",
    "libtokyocabinet-file",
];

/// The same for options without a value.
const IGNORED_FLAGS: &[&str] =
    &["store-queue-on-shutdown", "libdrizzle-mysql", "libtokyocabinet-optimize"];

/// Options that are refused in a file.
pub(super) const COMMAND_LINE_ONLY: &[&str] =
    &["config-file", "print-config", "check-args", "version", "help", "seed"];

impl Options {
    /// The log level that follows from `--verbose` and `-v`.
    #[must_use]
    pub fn verbosity(&self) -> Verbosity {
        let counted = match self.more_verbose {
            0 => return self.verbose,
            1 => Verbosity::Info,
            2 => Verbosity::Debug,
            _ => Verbosity::Trace,
        };
        counted.max(self.verbose)
    }
}

/// All options of the command line.
pub(super) fn command() -> Command {
    let values = IGNORED_OPTIONS
        .iter()
        .map(|&name| clap::Arg::new(name).long(name).hide(true).value_name("VALUE").num_args(1));
    let flags = IGNORED_FLAGS
        .iter()
        .map(|&name| clap::Arg::new(name).long(name).hide(true).action(ArgAction::SetTrue));
    let command = Options::command().args(values).args(flags);
    if cfg!(test) {
        // Tests must not depend on the environment.
        return command.mut_args(|argument| argument.env(Resettable::Reset));
    }
    command
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let parsed = parse_size::Config::new().with_binary().parse_size(text);
    parsed.map_err(|error| format!("{error}, a number with k, m or g behind it will do"))
}

/// A port for getaddrinfo(3), which would accept any number and use its low 16 bits.
fn parse_port(text: &str) -> Result<String, String> {
    let number = text.trim().trim_start_matches(['+', '-']);
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = || !text.contains('-') && number.parse::<u16>().is_ok();
    if is_number && !is_port() {
        return Err("a port is a number from 0 to 65535, or a name of /etc/services".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_durability(text: &str) -> Result<(Option<String>, Durability), String> {
    let (function, policy) = match text.rsplit_once('=') {
        Some((function, policy)) => (Some(function.to_owned()), policy),
        None => (None, text),
    };
    let durability = match policy {
        "none" => Durability::None,
        "async" => Durability::Async,
        "fsync" => Durability::Fsync,
        _ => return Err("the policy must be none, async or fsync".to_owned()),
    };
    Ok((function, durability))
}

fn parse_job_retries(text: &str) -> Result<i16, String> {
    let number = text.parse().ok().filter(|number| (-1..=255).contains(number));
    number.ok_or_else(|| "job-retries must be a number from -1 to 255".to_owned())
}
