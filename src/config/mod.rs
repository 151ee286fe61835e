//! Command line and configuration file in, settings out. One definition for each option: its flag,
//! its key in the file, its help and its default are all read off `Options`.
//!
//! Two steps: `parse` understands what was typed and can't fail on the world (the file's text is
//! given to it); `Options::settings` works out what the server is told, from facts about the host
//! that are given to it, too. Touches no kernel.
//!
//! Invariant: the command line wins over the file, the file over the environment, that over
//! defaults; what this build can't do is refused at the start, never left out in silence.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, Parser};
use thiserror::Error;

use crate::engine::function::{Durabilities, Durability};
use crate::engine::handle::{self, Handles, PrefixError};
use crate::engine::{self, Wakeup};
use crate::io::log::{LogFormat, Verbosity};
use crate::io::{ConnectionLimits, Driver};
use crate::protocol::admin::Identity;
use crate::shard::Settings;
use crate::shard::cores::{CORES_MAX, Cores};
use crate::shard::remote::urgency::Urgency;
use crate::store::open::StoreChoice;
use crate::wire::buffer_pool::BufferPool;
use crate::wire::{ARGUMENTS_BYTES_MAX, HEADER_BYTES};

/// Largest body that still fits a packet when it leaves again with a handle in it.
const BODY_BYTES_MAX: u64 = u32::MAX as u64 - 64;
/// Numbers of jobs start at so many a millisecond since `NUMBERS_START_MS`, so that a later run
/// starts above every number of an earlier one unless that took more jobs a second all its life.
const NUMBERS_PER_MS: u64 = 1 << 10;
/// 2026-01-01 in milliseconds since 1970.
const NUMBERS_START_MS: u64 = 1_767_225_600_000;
/// Share of the host's memory that jobs may take unless told otherwise, in percent.
const MEMORY_PERCENT: u64 = 75;
/// Least memory for jobs and unsent bytes.
const MEMORY_BYTES_MIN: u64 = 1 << 20;

const _: () = assert!(BODY_BYTES_MAX > (ARGUMENTS_BYTES_MAX + HEADER_BYTES) as u64);

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
    /// moves there; a worker whose functions are all of one core does at once. 0 = nobody moves
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub move_after: u32,

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

    /// Milliseconds a woken worker may take to grab before the next one is woken
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

/// Options of gearmand that only matter with an option that this build refuses. They are accepted,
/// so that the refusal names what it is about.
const IDLE_OPTIONS: &[&str] = &[
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

/// The same, without a value.
const IDLE_FLAGS: &[&str] =
    &["store-queue-on-shutdown", "libdrizzle-mysql", "libtokyocabinet-optimize"];

/// Options that make no sense in a file.
const COMMAND_LINE_ONLY: &[&str] =
    &["config-file", "print-config", "check-args", "version", "help", "seed"];

/// What to do instead of serving.
#[derive(Debug, Error)]
pub enum ParseEnd {
    /// Print this and end well.
    #[error("{0}")]
    Print(String),
    /// Print this to standard error and end badly.
    #[error("{0}")]
    Error(String),
}

/// Options that contradict each other, the host, or this build.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SettingsError {
    #[error("{0}; choose another with --job-handle-prefix")]
    Prefix(#[from] PrefixError),
    #[error(
        "this build has no TLS and --ssl must not be ignored: leave it out and keep the port on \
         loopback or behind a TLS proxy"
    )]
    Tls,
    #[error("this build doesn't speak \"{0}\": leave --protocol out")]
    Protocol(String),
    #[error(
        "there is no --queue-type \"{0}\" here: take --store sqlite:PATH or --store postgres://… \
         for background jobs that must survive a restart, or leave it out"
    )]
    QueueType(String),
    #[error("--store \"{0}\" is neither sqlite:PATH nor postgres://USER@HOST/DATABASE")]
    Store(String),
    #[error("--queue-type libsqlite3 needs a file: name it with --libsqlite3-db")]
    SqliteFile,
    #[error("--store and --queue-type both say where to keep jobs: leave one of them out")]
    TwoStores,
    #[error("--{0} needs a store: add --store sqlite:PATH or --store postgres://…")]
    NoStore(&'static str),
    #[error("--job-size-max must be at least 1024 bytes")]
    JobSize,
    #[error("--outbox-max must be at least 64 KiB")]
    Outbox,
    #[error(
        "--memory-max {0} leaves no room for jobs: give at least 1m, 0 for no limit, or leave it \
         out for three quarters of the host's memory"
    )]
    Memory(u64),
    #[error(
        "--connections-max 0 lets no connection in: give at least 1, or leave it out for as many \
         as the descriptors allow"
    )]
    Connections,
    #[error("there are too few descriptors ({0}) to serve: raise them with --file-descriptors")]
    Descriptors(u64),
}

/// What the server has to know of its host.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The host's name.
    pub nodename: String,
    /// Memory of the host or the container, in bytes.
    pub memory_bytes: u64,
    /// Descriptors that the process may have.
    pub descriptors: u64,
    /// Connections that they allow.
    pub connections: ConnectionLimits,
    /// A random number.
    pub random: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// The process's id.
    pub pid: u32,
}

/// Where the numbers of a run's jobs start that begins at this time; with a store they may start
/// higher.
#[must_use]
pub fn first_sequence(unix_ms: u64) -> u64 {
    unix_ms.saturating_sub(NUMBERS_START_MS).saturating_mul(NUMBERS_PER_MS).saturating_add(1)
}

/// Understands a command line; `read_file` gives the text of the configuration file it names.
///
/// # Errors
/// `ParseEnd`: help, the version and the like are asked for, or something is wrong.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    read_file: impl FnOnce(&str) -> std::io::Result<String>,
) -> Result<Options, ParseEnd> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let matches = command().try_get_matches_from(&arguments).map_err(|error| end_of(&error))?;
    let options = Options::from_arg_matches(&matches).map_err(|error| end_of(&error))?;
    if options.print_config {
        return Err(ParseEnd::Print(default_file()));
    }
    if options.version && !options.check_args {
        let version = format!("\nringgeard {}\n", env!("CARGO_PKG_VERSION"));
        return Err(ParseEnd::Print(version));
    }
    let Some(path) = &options.config_file else { return Ok(options) };
    let text = read_file(path).map_err(|cause| {
        ParseEnd::Error(format!("Could not open configuration file. {path}: {cause}"))
    })?;
    let in_file = |problem: String| ParseEnd::Error(format!("{path}: {problem}"));
    let from_file = file_arguments(&text).map_err(in_file)?;
    let file_matches = command()
        .try_get_matches_from(std::iter::once("ringgeard".into()).chain(from_file))
        .map_err(|error| in_file(end_of(&error).to_string()))?;
    // The command line as it was, and of the file what it doesn't say.
    let is_typed = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let mut merged = arguments;
    for id in file_matches.ids().map(clap::Id::as_str) {
        if file_matches.value_source(id) != Some(ValueSource::CommandLine) || is_typed(id) {
            continue;
        }
        if COMMAND_LINE_ONLY.contains(&id.replace('_', "-").as_str()) {
            return Err(in_file(format!("{id} can't be set in a configuration file")));
        }
        merged.extend(as_arguments(&file_matches, id));
    }
    let matches = command().try_get_matches_from(merged).map_err(|error| end_of(&error))?;
    Options::from_arg_matches(&matches).map_err(|error| end_of(&error))
}

impl Options {
    /// What the shard is told.
    ///
    /// # Errors
    /// `SettingsError`: see there.
    pub fn settings(&self, facts: &Facts) -> Result<Settings, SettingsError> {
        self.check()?;
        let limits = facts.connections;
        let connections_max = self.connections_max.unwrap_or(limits.total).min(limits.total);
        if connections_max == 0 {
            return Err(SettingsError::Descriptors(facts.descriptors));
        }
        let prefix = match &self.job_handle_prefix {
            Some(prefix) => prefix.clone(),
            None => default_prefix(&facts.nodename),
        };
        let memory_max = match self.memory_max {
            Some(0) => u64::MAX,
            Some(bytes) => bytes,
            None => facts.memory_bytes / 100 * MEMORY_PERCENT,
        };
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Settings {
            engine: engine::Settings {
                lease_ms: self.wakeup_lease,
                wakeup: self.worker_wakeup.map_or(Wakeup::Lease, Wakeup::Each),
                attempts_max: u32::try_from(self.job_retries).ok(),
                hash_seed: self.seed.unwrap_or(facts.random),
                first_sequence: first_sequence(facts.unix_ms),
                durabilities: self.durabilities(),
            },
            handles: Handles::new(prefix.as_bytes())?,
            identity: Identity {
                version: env!("CARGO_PKG_VERSION"),
                verbosity: self.verbosity().name(),
                pid: facts.pid,
            },
            exceptions: self.exceptions,
            body_bytes_max: bytes(self.job_size_max.min(BODY_BYTES_MAX)),
            memory_bytes_max: bytes(memory_max),
            buffer_pool: BufferPool::new(bytes(memory_max)),
            outbox_bytes_max: bytes(self.outbox_max),
            connections_max: bytes(connections_max),
            core_connections_max: bytes(connections_max.min(limits.per_core)),
            cores: Cores::default(),
            urgency: Urgency::default(),
            move_after: self.move_after,
        })
    }

    /// Refuses what this build can't do.
    ///
    /// # Errors
    /// `SettingsError`: see there.
    pub fn check(&self) -> Result<(), SettingsError> {
        if let Some(prefix) = &self.job_handle_prefix {
            Handles::new(prefix.as_bytes())?;
        }
        if self.ssl {
            return Err(SettingsError::Tls);
        }
        if let Some(protocol) = &self.protocol {
            return Err(SettingsError::Protocol(protocol.clone()));
        }
        self.store_choice()?;
        if self.job_size_max < 1024 {
            return Err(SettingsError::JobSize);
        }
        if self.outbox_max < 64 << 10 {
            return Err(SettingsError::Outbox);
        }
        if let Some(bytes @ 1..MEMORY_BYTES_MIN) = self.memory_max {
            return Err(SettingsError::Memory(bytes));
        }
        if self.connections_max == Some(0) {
            return Err(SettingsError::Connections);
        }
        Ok(())
    }

    /// Where background jobs are kept; `None` = in memory only.
    ///
    /// # Errors
    /// `SettingsError` if the options about it don't go together.
    pub fn store_choice(&self) -> Result<Option<StoreChoice>, SettingsError> {
        let is_type = |name: &str| self.queue_type.eq_ignore_ascii_case(name);
        let sqlite = |path: &str| StoreChoice::Sqlite {
            path: path.into(),
            table: self.libsqlite3_table.clone(),
        };
        let postgres = |conninfo: &str| StoreChoice::Postgres {
            conninfo: conninfo.to_owned(),
            table: self.libpq_table.clone(),
        };
        match &self.store {
            Some(_) if !is_type("builtin") => Err(SettingsError::TwoStores),
            Some(url) => match url.split_once(':') {
                Some(("sqlite", path)) if !path.is_empty() => Ok(Some(sqlite(path))),
                Some(("postgres" | "postgresql", _)) => Ok(Some(postgres(url))),
                _ => Err(SettingsError::Store(url.clone())),
            },
            None if is_type("libsqlite3") => {
                let path = self.libsqlite3_db.as_deref().ok_or(SettingsError::SqliteFile)?;
                Ok(Some(sqlite(path)))
            }
            None if is_type("postgres") => {
                Ok(Some(postgres(self.libpq_conninfo.as_deref().unwrap_or_default())))
            }
            None if !is_type("builtin") => Err(SettingsError::QueueType(self.queue_type.clone())),
            None if self.standby => Err(SettingsError::NoStore("standby")),
            None if !self.durability.is_empty() => Err(SettingsError::NoStore("durability")),
            None => Ok(None),
        }
    }

    /// The durability of every function. Without a store nothing is durable.
    fn durabilities(&self) -> Durabilities {
        if !matches!(self.store_choice(), Ok(Some(_))) {
            return Durabilities::default();
        }
        let mut durabilities = Durabilities { default: Durability::Fsync, named: BTreeMap::new() };
        for (function, durability) in &self.durability {
            match function {
                None => durabilities.default = *durability,
                Some(name) => {
                    durabilities.named.insert(name.as_bytes().to_vec(), *durability);
                }
            }
        }
        durabilities
    }

    /// The level that `--verbose` and `-v` come to.
    #[must_use]
    pub fn verbosity(&self) -> Verbosity {
        let counted = match self.more_verbose {
            0 => return self.verbose,
            1 => Verbosity::Info,
            _ => Verbosity::Debug,
        };
        counted.max(self.verbose)
    }
}

/// All options of the command line.
fn command() -> Command {
    let values = IDLE_OPTIONS
        .iter()
        .map(|&name| clap::Arg::new(name).long(name).hide(true).value_name("VALUE").num_args(1));
    let flags = IDLE_FLAGS
        .iter()
        .map(|&name| clap::Arg::new(name).long(name).hide(true).action(ArgAction::SetTrue));
    let command = Options::command().args(values).args(flags);
    if cfg!(test) {
        // Tests mean the same in every environment.
        return command.mut_args(|argument| argument.env(Resettable::Reset));
    }
    command
}

/// The host's name, cut to what a prefix may have.
fn default_prefix(nodename: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_graphic();
    let name = nodename.chars().filter(is_plain).take(handle::PREFIX_BYTES_MAX - 2);
    format!("H:{}", name.collect::<String>())
}

/// One sentence of what clap has to say.
fn end_of(error: &clap::Error) -> ParseEnd {
    let text = error.render().to_string();
    if error.exit_code() == 0 {
        return ParseEnd::Print(text);
    }
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    ParseEnd::Error(format!("{line}; see --help"))
}

/// A configuration file as command-line arguments: TOML, or gearmand's own words between blanks,
/// which start with a dash.
fn file_arguments(text: &str) -> Result<Vec<OsString>, String> {
    if text.trim_start().starts_with('-') {
        return Ok(text.split_ascii_whitespace().map(OsString::from).collect());
    }
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        error.to_string().lines().collect::<Vec<_>>().join(" ")
    })?;
    let mut arguments = Vec::new();
    for (key, value) in table {
        let values = match value {
            toml::Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            let value = match value {
                toml::Value::Boolean(false) => continue,
                toml::Value::Boolean(true) => None,
                toml::Value::String(text) => Some(text),
                toml::Value::Integer(number) => Some(number.to_string()),
                other => return Err(format!("{key} can't be a {}", other.type_str())),
            };
            arguments.push(match value {
                None => format!("--{key}").into(),
                Some(value) => format!("--{key}={value}").into(),
            });
        }
    }
    Ok(arguments)
}

/// An option of the file as it would be typed.
fn as_arguments(matches: &ArgMatches, id: &str) -> Vec<OsString> {
    let command = command();
    let Some(argument) = command.get_arguments().find(|argument| argument.get_id() == id) else {
        return Vec::new();
    };
    let name = match argument.get_long() {
        Some(long) => format!("--{long}"),
        None => format!("-{}", argument.get_short().unwrap_or('?')),
    };
    match argument.get_action() {
        ArgAction::Count => vec![name.into(); usize::from(matches.get_count(id))],
        action if action.takes_values() => {
            let values = matches.get_raw(id).into_iter().flatten();
            let joined = |value: &std::ffi::OsStr| {
                let mut argument = OsString::from(format!("{name}="));
                argument.push(value);
                argument
            };
            values.map(joined).collect()
        }
        _ => vec![name.into()],
    }
}

/// Every option with its help and default, as a file that changes nothing.
fn default_file() -> String {
    let mut file = String::from(
        "# Configuration of ringgeard. Every line that begins with a word is a default.\n",
    );
    for argument in Options::command().get_arguments() {
        let Some(long) = argument.get_long() else { continue };
        if argument.is_hide_set() || COMMAND_LINE_ONLY.contains(&long) {
            continue;
        }
        file.push('\n');
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines() {
            file.push_str(&format!("# {line}\n"));
        }
        let default = argument.get_default_values().first().and_then(|value| value.to_str());
        let line = match default {
            _ if !argument.get_action().takes_values() => format!("{long} = false\n"),
            None => {
                let value = argument.get_value_names().and_then(|names| names.first());
                format!("# {long} = {}\n", value.map_or("", |name| name.as_str()))
            }
            Some(text) if text.parse::<i64>().is_ok() => format!("{long} = {text}\n"),
            Some(text) => format!("{long} = {}\n", toml::Value::from(text)),
        };
        file.push_str(&line);
    }
    file
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let parsed = parse_size::Config::new().with_binary().parse_size(text);
    parsed.map_err(|error| format!("{error}, a number with k, m or g behind it will do"))
}

/// A port as it is given to getaddrinfo(3), which takes any number and keeps its low 16 bits.
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

#[cfg(test)]
mod tests;
