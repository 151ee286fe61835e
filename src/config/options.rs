//! The options of `ringgeard`: flags, keys of the configuration file, help texts and defaults.
//!
//! `Options` is the one definition of each option; clap derives the command line from it, and
//! `file` the configuration file. Knows neither the host nor what the options lead to.
//!
//! Invariant: every option of gearmand is accepted here, if only to be refused by `settings`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command, CommandFactory, Parser};

use super::functions::loaded::FunctionsFile;
use super::listen::{advertised, http_spec, listen_spec};
use super::values::{self, number};
use crate::cluster::lease;
use crate::engine::function::Durability;
use crate::io::log::{LogFormat, Verbosity};
use crate::io::sandbox::Sandbox;
use crate::io::{Driver, Endpoint, ListenSpec, PassedUse};
use crate::protocol::size;
use crate::shard::cores::CORES_MAX;
use crate::store::open::StoreChoice;
use crate::wire::tls::{ClientCertificates, Versions};

/// Headings of the help.
const LISTENING: &str = "Listening and peers";
const TLS: &str = "TLS";
const HTTP: &str = "HTTP";
const CORES: &str = "Cores";
const JOBS: &str = "Jobs";
const LIMITS: &str = "Limits";
const STORAGE: &str = "Storage";
const LOGGING: &str = "Logging";
const PROCESS: &str = "Process";
const COMPATIBILITY: &str = "For gearmand's sake";

/// Default of `--metrics-functions`.
pub(super) const METRICS_FUNCTIONS: u32 = 1000;
/// Default of `--lease`.
pub(super) const LEASE_SECONDS: u64 = lease::DEFAULT.as_secs();
/// Default of `--drain` with `--cluster`: other servers serve meanwhile.
const CLUSTER_DRAIN_SECONDS: u32 = 10;
/// Largest number of seconds that fits the kernel's 32 bits of milliseconds.
const SECONDS_MAX: i64 = 4_294_967;
/// Largest number of seconds or probes that the kernel's keep-alive takes.
const KEEPALIVE_MAX: i64 = 32_767;

/// A Gearman job server: io_uring, one thread per core, wire compatible with gearmand.
#[derive(Clone, Debug, Parser)]
#[command(name = "ringgeard", disable_version_flag = true, disable_help_flag = true)]
#[command(term_width = 100, after_help = "--help lists all options, and says more.")]
#[command(
    after_long_help = "Sizes take the suffixes k, m and g, in powers of 1024. Exit code: 0, \
    or 1 with a sentence on standard error."
)]
pub struct Options {
    /// HOST, HOST:PORT or unix:/PATH to listen on; loopback unless given
    ///
    /// May be given several times. All addresses of a host are bound; "" means every address of
    /// this host. In TOML a text, or a list of them. tls:HOST:PORT is a port with TLS.
    /// An address of IPv6 that has a port behind it stands in brackets.
    /// Sockets that systemd passes are used, too, and without --listen nothing else.
    #[arg(short = 'L', long, value_name = "SPEC", help_heading = LISTENING,
        value_parser = listen_spec)]
    pub listen: Vec<ListenSpec>,

    /// Port to listen on, where --listen names none
    ///
    /// A number, or a name of /etc/services; 0 takes a free one and logs it. The environment
    /// variable GEARMAND_PORT counts unless this is given, also in a file.
    #[arg(short, long, value_name = "PORT", default_value = "4730", help_heading = LISTENING,
        value_parser = values::port)]
    pub port: String,

    /// Permissions of the files of Unix sockets, as of chmod(1) in digits. 0660 unless given
    #[arg(long, value_name = "OCTAL", help_heading = LISTENING, hide_short_help = true,
        value_parser = values::file_mode)]
    pub unix_mode: Option<u32>,

    /// Owner of the files of Unix sockets, and perhaps their group. The server's user unless given
    #[arg(long, value_name = "USER[:GROUP]", help_heading = LISTENING, hide_short_help = true,
        value_parser = values::owner)]
    pub unix_owner: Option<String>,

    /// Access list: which peers may do what; all may do everything unless given
    ///
    /// A TOML file; see --print-access. SIGHUP reads it anew; with a mistake the old one stays.
    #[arg(long, value_name = "FILE", help_heading = LISTENING, hide_short_help = true)]
    pub access_file: Option<String>,

    /// Ask the access list, and end: exit code 0 allowed, 1 refused, 2 for a word without meaning
    ///
    /// WHO: an address, or what is known of a peer with commas between: network:ADDRESS, cn:NAME,
    /// dns:NAME, uri:URI, sha256:HEX, user:NAME or user:ID, token:NAME, listener:SPEC. RIGHT is
    /// submit, work, observe or admin. FUNCTION is a name, or * for all functions.
    #[arg(long, num_args = 3, value_names = ["WHO", "RIGHT", "FUNCTION"],
        help_heading = LISTENING, hide_short_help = true)]
    pub access_check: Option<Vec<String>>,

    /// Print an access list to begin with, and end
    #[arg(long, help_heading = LISTENING, hide_short_help = true)]
    pub print_access: bool,

    /// Connections that may wait to be accepted
    #[arg(short, long, value_name = "N", default_value_t = 1024, help_heading = LISTENING,
        hide_short_help = true, value_parser = number::<u32>(0, i32::MAX.into()))]
    pub backlog: u32,

    /// Seconds of silence before a peer is probed, -1 = 15
    #[arg(long, value_name = "SECONDS", default_value_t = -1, help_heading = LISTENING,
        hide_short_help = true, value_parser = number::<i32>(-1, KEEPALIVE_MAX))]
    pub keepalive_idle: i32,

    /// Seconds between probes, -1 = 5
    #[arg(long, value_name = "SECONDS", default_value_t = -1, help_heading = LISTENING,
        hide_short_help = true, value_parser = number::<i32>(-1, KEEPALIVE_MAX))]
    pub keepalive_interval: i32,

    /// Probes without an answer after which a peer is given up, -1 = 3
    #[arg(long, value_name = "N", default_value_t = -1, help_heading = LISTENING,
        hide_short_help = true, value_parser = number::<i32>(-1, KEEPALIVE_MAX))]
    pub keepalive_count: i32,

    /// Seconds that a peer's host may acknowledge nothing of what was sent before it is given up,
    /// 0 = until the kernel does
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = LISTENING,
        hide_short_help = true, value_parser = number::<u32>(0, SECONDS_MAX))]
    pub tcp_user_timeout: u32,

    /// TLS on all listeners that have an address and a port
    ///
    /// --listen tls:HOST:PORT has it on one of several. See docs/security.md for the files.
    #[arg(long, help_heading = TLS, hide_short_help = true)]
    pub ssl: bool,

    /// The server's certificate in PEM form, then those that lead from it to an authority
    ///
    /// GEARMAND_SERVER_PEM counts unless this is given, also in a file; without either it is
    /// /etc/ringgear/tls/server.pem. SIGHUP reads all files of TLS anew; with a mistake the old
    /// ones stay.
    #[arg(long, value_name = "FILE", help_heading = TLS, hide_short_help = true)]
    pub ssl_certificate: Option<String>,

    /// Its key in PEM form, not encrypted
    ///
    /// GEARMAND_SERVER_KEY counts unless this is given; without either it is
    /// /etc/ringgear/tls/server.key.
    #[arg(long, value_name = "FILE", help_heading = TLS, hide_short_help = true)]
    pub ssl_key: Option<String>,

    /// Certificates of the authorities that clients are trusted by, in PEM form
    ///
    /// GEARMAND_CA_CERTIFICATE counts unless this is given. Takes --ssl-client-certificates.
    #[arg(long, value_name = "FILE", help_heading = TLS, hide_short_help = true)]
    pub ssl_ca_file: Option<String>,

    /// Revocation list of an authority, in PEM form; as often as needed
    ///
    /// A list that has expired refuses all certificates of its authority.
    #[arg(long, value_name = "FILE", help_heading = TLS, hide_short_help = true)]
    pub ssl_crl_file: Vec<String>,

    /// Ask clients for certificates: off, optional or required
    #[arg(long, value_name = "WHETHER", default_value = "off", help_heading = TLS,
        hide_short_help = true, value_parser = values::client_certificates())]
    pub ssl_client_certificates: ClientCertificates,

    /// Oldest version of TLS: 1.2 or 1.3
    #[arg(long, value_name = "VERSION", default_value = "1.2", help_heading = TLS,
        hide_short_help = true, value_parser = values::tls_versions())]
    pub ssl_min_version: Versions,

    /// Milliseconds that a handshake may take, from the connection to its end
    #[arg(long, value_name = "MS", default_value_t = 5000, help_heading = TLS,
        hide_short_help = true, value_parser = number::<u64>(1, 600_000))]
    pub ssl_handshake_timeout: u64,

    /// Most handshakes of a core that aren't finished; with as many, its listeners that speak TLS
    /// wait
    #[arg(long, value_name = "N", default_value_t = 1024, help_heading = TLS,
        hide_short_help = true, value_parser = number::<u32>(1, 1 << 20))]
    pub ssl_handshakes_max: u32,

    /// HOST:PORT or unix:/PATH for the page, metrics and jobs by HTTP
    ///
    /// Off unless given; may be given several times. tls:HOST:PORT is a port with TLS. Without an
    /// access list, peers on this host may do everything there, all others may look. See
    /// docs/http.md.
    #[arg(long, value_name = "SPEC", help_heading = LISTENING, value_parser = http_spec)]
    pub http: Vec<ListenSpec>,

    /// Allow --http on an address that other hosts reach, without TLS
    ///
    /// Otherwise such a server doesn't start: tokens and jobs could be read along.
    #[arg(long, help_heading = HTTP, hide_short_help = true)]
    pub http_insecure: bool,

    /// Names of this host that requests may be for, beside addresses and localhost
    ///
    /// May be given several times. Requests for other names are refused, so that pages elsewhere
    /// can't reach the server by a name of theirs that leads to it.
    #[arg(long, value_name = "NAME", help_heading = HTTP, hide_short_help = true)]
    pub http_host: Vec<String>,

    /// Tokens of HTTP clients: lines with a name and the SHA-256 of the token
    ///
    /// Rules of the access list name them as token = ["NAME"]. SIGHUP reads the file anew; with a
    /// mistake the old one stays.
    #[arg(long, value_name = "FILE", help_heading = HTTP, hide_short_help = true)]
    pub http_token_file: Option<String>,

    /// Functions that have metrics of their own, the first to appear; others are summed
    #[arg(long, value_name = "N", default_value_t = METRICS_FUNCTIONS,
        help_heading = HTTP,
        hide_short_help = true, value_parser = number::<u32>(0, 1_000_000))]
    pub metrics_functions: u32,

    /// Say ready at /readyz though the store can't be written to
    #[arg(long, help_heading = HTTP, hide_short_help = true)]
    pub ready_without_store: bool,

    /// Cores that serve
    ///
    /// Each has its own listener, event loop and queues; 0 means 1. Half of the processors that the
    /// server may use, at least 1 and at most 4, unless given.
    #[arg(short, long, value_name = "N", help_heading = CORES,
        value_parser = number::<u8>(0, CORES_MAX as i64))]
    pub threads: Option<u8>,

    /// Event loop; auto is io_uring where the kernel allows it, else epoll
    #[arg(long, value_enum, value_name = "LOOP", default_value_t = Driver::Auto,
        help_heading = CORES, hide_short_help = true)]
    pub io: Driver,

    /// Microseconds that a core looks for something to do before it waits in the kernel: answers
    /// come sooner, and up to a whole core is busy all the time. 0 = none
    #[arg(long, value_name = "US", default_value_t = 0, help_heading = CORES,
        hide_short_help = true, value_parser = number::<u64>(0, 10_000))]
    pub busy_poll: u64,

    /// With several cores: submissions in a row to the functions of one core after which a client
    /// moves there; a worker whose functions are all of one core does at once. 0 = none moves
    #[arg(long, value_name = "N", default_value_t = 32, help_heading = CORES,
        hide_short_help = true, value_parser = number::<u32>(0, u32::MAX.into()))]
    pub move_after: u32,

    /// With several cores: connections stay at a core that has no time left, though others have
    #[arg(long, help_heading = CORES, hide_short_help = true)]
    pub no_offload: bool,

    /// Workers that may lose a job before it fails; -1 = no limit
    ///
    /// 0 means 1, as in gearmand 2.0.
    #[arg(short, long, value_name = "N", default_value_t = -1, help_heading = JOBS,
        value_parser = number::<i16>(-1, 255))]
    pub job_retries: i16,

    /// What becomes of jobs that fail, wait or run too long, by function
    ///
    /// A TOML file with tables of functions, which may also stand at the end of the configuration
    /// file; see docs/failed-jobs.md. SIGHUP reads them anew; with a mistake the old ones stay.
    #[arg(long, value_name = "FILE", help_heading = JOBS, hide_short_help = true)]
    pub functions_file: Option<String>,

    /// Print which table applies to a function and when its jobs are run again, and end
    #[arg(long, value_name = "FUNCTION", help_heading = JOBS, hide_short_help = true)]
    pub functions_check: Option<String>,

    /// Most dead letters: jobs that failed for good, kept for an operator. Beyond it the oldest
    /// goes
    #[arg(long, value_name = "N", default_value_t = 10_000, help_heading = JOBS,
        hide_short_help = true, value_parser = number::<u32>(0, u32::MAX.into()))]
    pub dead_max: u32,

    /// Most bytes of dead letters
    #[arg(long, value_name = "BYTES", default_value = "64m", help_heading = JOBS,
        hide_short_help = true, value_parser = size::parse)]
    pub dead_bytes_max: u64,

    /// How long a dead letter is kept: a number with ms, s, m, h or d
    #[arg(long, value_name = "DURATION", default_value = "30d", help_heading = JOBS,
        hide_short_help = true, value_parser = values::duration)]
    pub dead_keep: u64,

    /// Sleeping workers that each job wakes, 0 = all of them
    ///
    /// Unless given, as many are woken as there are jobs to take, the one that fell asleep last
    /// first.
    #[arg(short, long, value_name = "N", help_heading = JOBS,
        value_parser = number::<u32>(0, u32::MAX.into()), hide_short_help = true)]
    pub worker_wakeup: Option<u32>,

    /// Milliseconds a woken worker may take to grab before all other sleepers are woken
    #[arg(long, value_name = "MS", default_value_t = 100, help_heading = JOBS,
        hide_short_help = true, value_parser = number::<u64>(1, 60_000))]
    pub wakeup_lease: u64,

    /// Start of every job handle. "H:" and the host's name unless given; a store keeps the first
    /// server's, and with it another one is refused
    #[arg(long, value_name = "TEXT", help_heading = JOBS, hide_short_help = true)]
    pub job_handle_prefix: Option<String>,

    /// Give every connection exceptions, as if it had asked for them
    #[arg(long, help_heading = JOBS, hide_short_help = true)]
    pub exceptions: bool,

    /// Most memory for jobs and unsent bytes, at least 1m, 0 = no limit
    ///
    /// Three quarters of the host's or container's memory unless given.
    #[arg(long, value_name = "BYTES", help_heading = LIMITS, value_parser = values::memory)]
    pub memory_max: Option<u64>,

    /// Most connections
    ///
    /// As many as there may be descriptors, less 64, unless given; with io_uring as many for each
    /// thread.
    #[arg(long, value_name = "N", help_heading = LIMITS, value_parser = values::count)]
    pub connections_max: Option<u64>,

    /// Descriptors to ask for; as many as the hard limit allows unless given
    #[arg(short, long, value_name = "N", help_heading = LIMITS, hide_short_help = true,
        value_parser = values::count)]
    pub file_descriptors: Option<u64>,

    /// Largest packet body, at least 1k; larger ones are answered with an error
    #[arg(long, value_name = "BYTES", default_value = "4294967295", help_heading = LIMITS,
        hide_short_help = true, value_parser = values::bytes_from(1 << 10, "1k"))]
    pub job_size_max: u64,

    /// Bytes that may wait for a connection that doesn't read before it is closed, at least 64k
    #[arg(long, value_name = "BYTES", default_value = "256m", help_heading = LIMITS,
        hide_short_help = true, value_parser = values::bytes_from(64 << 10, "64k"))]
    pub outbox_max: u64,

    /// Where to keep background jobs; in memory only unless given
    ///
    /// sqlite:PATH, or postgres://USER@HOST/DATABASE: there they outlive the server.
    #[arg(long, value_name = "URL", help_heading = STORAGE, value_parser = values::store)]
    pub store: Option<StoreChoice>,

    /// Which background jobs go to the store: none, async or fsync
    ///
    /// async: answered before they are on disk; fsync: answered when they are. FUNCTION=POLICY for
    /// one function, as often as needed, POLICY for all others. fsync unless given.
    #[arg(long, value_name = "[FUNCTION=]POLICY", help_heading = STORAGE,
        value_parser = values::durability)]
    pub durability: Vec<(Option<String>, Durability)>,

    /// Wait while another server owns the store, then serve
    #[arg(long, help_heading = STORAGE)]
    pub standby: bool,

    /// Share the database of --store with other servers that are active at the same time
    ///
    /// On PostgreSQL. Each server keeps its own jobs there, and takes over those of one that ends,
    /// hangs or is cut off. See docs/cluster.md.
    #[arg(long, help_heading = STORAGE, hide_short_help = true)]
    pub cluster: bool,

    /// Seconds without a sign of life after which other servers take over the jobs of one
    ///
    /// On PostgreSQL; the same on all servers of a database. From 2 s before its end, or a third
    /// of it, a server that doesn't reach the database hands out no stored job.
    #[arg(long, value_name = "SECONDS", default_value_t = LEASE_SECONDS, help_heading = STORAGE,
        hide_short_help = true, value_parser = number::<u64>(1, 3600))]
    pub lease: u64,

    /// Where other hosts reach this server, as the other servers on the database tell it
    ///
    /// On PostgreSQL: text command cluster, /api/v1/cluster and the page. None unless given.
    #[arg(long, value_name = "HOST:PORT", help_heading = STORAGE, hide_short_help = true,
        value_parser = advertised)]
    pub advertise: Option<String>,

    /// Milliseconds a background job may wait for a store that fails before it is refused
    #[arg(long, value_name = "MS", default_value_t = 0, help_heading = STORAGE,
        hide_short_help = true, value_parser = number::<u64>(0, u32::MAX.into()))]
    pub store_timeout: u64,

    /// stderr, none, or a file, which SIGHUP reopens
    #[arg(short, long, value_name = "FILE", default_value = "stderr", help_heading = LOGGING)]
    pub log_file: String,

    /// How to log
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text,
        help_heading = LOGGING, hide_short_help = true)]
    pub log_format: LogFormat,

    /// Log to syslog, too
    #[arg(long, help_heading = LOGGING, hide_short_help = true)]
    pub syslog: bool,

    /// Least urgent level to log
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Verbosity::Notice,
        help_heading = LOGGING)]
    pub verbose: Verbosity,

    /// Log more: -v INFO, -vv DEBUG, -vvv every packet
    #[arg(short = 'v', action = ArgAction::Count, help_heading = LOGGING)]
    pub more_verbose: u8,

    /// Go to the background. The command returns when the port is bound
    #[arg(short, long, help_heading = PROCESS)]
    pub daemon: bool,

    /// File for the process id. None unless given
    #[arg(short = 'P', long, value_name = "FILE", help_heading = PROCESS)]
    pub pid_file: Option<String>,

    /// User to become once the port is bound; takes root to start with
    #[arg(short, long, value_name = "NAME", help_heading = PROCESS)]
    pub user: Option<String>,

    /// Keep files and ports that the server doesn't use out of its reach
    ///
    /// auto: as far as the kernel can (Landlock; all of it from Linux 6.12 on), off: not at all,
    /// require: completely, or the server doesn't start.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Sandbox::Auto,
        help_heading = PROCESS, hide_short_help = true)]
    pub sandbox: Sandbox,

    /// Seconds that jobs which run may take after SIGTERM, 0 = they aren't waited for
    ///
    /// No job is assigned meanwhile, and connections aren't accepted; background jobs that the
    /// store keeps still are. A second SIGTERM ends the server at once. 10 with --cluster and 0
    /// without it, unless given.
    #[arg(long, value_name = "SECONDS", help_heading = PROCESS, hide_short_help = true,
        value_parser = number::<u32>(0, SECONDS_MAX))]
    pub drain: Option<u32>,

    /// Allow core dumps as large as the hard limit
    #[arg(long, help_heading = PROCESS, hide_short_help = true)]
    pub coredump: bool,

    /// Configuration file; @FILE is the same
    ///
    /// TOML with these options' long names as keys (see --print-config), or gearmand's own format.
    /// The command line wins. The environment variable RINGGEARD_CONFIG_FILE counts unless this is
    /// given.
    #[arg(long, value_name = "FILE", help_heading = PROCESS)]
    pub config_file: Option<String>,

    /// The configuration file as `@FILE`
    #[arg(hide = true, value_name = "@FILE", value_parser = values::at_file)]
    pub at_file: Option<String>,

    /// Print all options with their defaults as a TOML file, and end
    #[arg(long, help_heading = PROCESS)]
    pub print_config: bool,

    /// Check options and file, and end: exit code 1 at a mistake
    ///
    /// Looks at what they say, not at the host: addresses, folders and users needn't exist.
    #[arg(long, help_heading = PROCESS, hide_short_help = true)]
    pub check_args: bool,

    /// Write the manual page and the completions into a folder, and end
    #[arg(long, hide = true, value_name = "DIR")]
    pub generate: Option<PathBuf>,

    /// Print the version, and end
    #[arg(short = 'V', long, help_heading = PROCESS)]
    pub version: bool,

    /// Print the most used options (-h) or all of them (--help), and end
    #[arg(short, long, action = ArgAction::Help, help_heading = PROCESS)]
    pub help: Option<bool>,

    /// gearmand's --store: libsqlite3 with --libsqlite3-db, Postgres with --libpq-conninfo, or
    /// builtin
    #[arg(short, long, value_name = "NAME", default_value = "builtin", help_heading = COMPATIBILITY,
        hide_short_help = true)]
    pub queue_type: String,

    /// File of -q libsqlite3
    #[arg(long, value_name = "FILE", help_heading = COMPATIBILITY, hide_short_help = true)]
    pub libsqlite3_db: Option<String>,

    /// gearmand's table in a SQLite store, whose jobs are taken over. gearman_queue unless given
    #[arg(long, value_name = "TABLE", help_heading = COMPATIBILITY, hide_short_help = true)]
    pub libsqlite3_table: Option<String>,

    /// Connection of -q Postgres, in libpq's words
    #[arg(long, value_name = "TEXT", help_heading = COMPATIBILITY, hide_short_help = true)]
    pub libpq_conninfo: Option<String>,

    /// gearmand's table in a PostgreSQL store, whose jobs are taken over. queue unless given
    #[arg(long, value_name = "TABLE", help_heading = COMPATIBILITY, hide_short_help = true)]
    pub libpq_table: Option<String>,

    /// Take turns among the functions of a worker. Always so here; accepted for gearmand's sake
    #[arg(short = 'R', long, help_heading = COMPATIBILITY, hide_short_help = true)]
    pub round_robin: bool,

    /// Probe silent peers. Always so here; accepted for gearmand's sake
    #[arg(long, help_heading = COMPATIBILITY, hide_short_help = true)]
    pub keepalive: bool,

    /// Buckets of gearmand's hash tables. They grow by themselves here; accepted for gearmand's
    /// sake
    #[arg(long, value_name = "N", help_heading = COMPATIBILITY, hide_short_help = true,
        value_parser = number::<u32>(1, u32::MAX.into()))]
    pub hashtable_buckets: Option<u32>,

    /// Another protocol beside Gearman's: http is gearmand's HTTP, for its clients. --http can more
    #[arg(short = 'r', long, value_name = "NAME", help_heading = COMPATIBILITY,
        hide_short_help = true)]
    pub protocol: Option<String>,

    /// Port for -r http, on the addresses of --listen without TLS. 8080 unless given
    #[arg(long, value_name = "PORT", help_heading = COMPATIBILITY, hide_short_help = true,
        value_parser = values::port)]
    pub http_port: Option<String>,

    /// Seed of the hash tables, for tests. Random unless given
    #[arg(long, hide = true)]
    pub seed: Option<u64>,

    /// Submissions that a ring of io_uring has room for. Tests run many servers at once, with
    /// small rings, as the kernel counts the rings of all of a user's processes as locked memory
    #[arg(long, hide = true, value_name = "N", default_value_t = 1024,
        value_parser = number::<u32>(16, 4096))]
    pub ring_entries: u32,

    /// Policies in the configuration file.
    #[arg(skip)]
    pub(super) function_tables: FunctionsFile,

    /// A socket for HTTP was passed to the process.
    #[arg(skip)]
    pub(super) is_http_passed: bool,

    /// A service manager wants to be told how the server is.
    #[arg(skip)]
    pub(super) is_managed: bool,

    /// A socket for TLS was passed to the process.
    #[arg(skip)]
    pub(super) is_tls_passed: bool,

    /// `--port` was given, and each `--listen` has a port of its own.
    #[arg(skip)]
    pub(super) is_port_idle: bool,

    /// Options that were given a value that isn't their default: names and values, without
    /// passwords.
    #[arg(skip)]
    pub changed: Vec<(String, String)>,

    /// Options of gearmand that were given and have neither a field nor an effect.
    #[arg(skip)]
    pub(super) ignored: Vec<&'static Ignored>,
}

/// Options of gearmand that only matter together with one that this build refuses, or that ask for
/// what is always so. They are accepted, so that an error is about that one.
#[derive(Debug)]
pub(super) struct Ignored {
    /// Its long name.
    pub(super) name: &'static str,
    /// Whether it has a value.
    has_value: bool,
    /// Why it has no effect.
    pub(super) reason: &'static str,
}

const NO_MYSQL: &str = "this build has no MySQL queue, and keeps background jobs with --store";
const NO_REDIS: &str = "this build has no Redis queue, and keeps background jobs with --store";
const NO_MEMCACHED: &str =
    "this build has no memcached queue, and keeps background jobs with --store";
const NO_TOKYO: &str =
    "this build has no Tokyo Cabinet queue, and keeps background jobs with --store";
const AT_ONCE: &str = "a store has a background job before the job is acknowledged";

const fn value(name: &'static str, reason: &'static str) -> Ignored {
    Ignored { name, has_value: true, reason }
}

const fn flag(name: &'static str, reason: &'static str) -> Ignored {
    Ignored { name, has_value: false, reason }
}

/// All of them.
pub(super) const IGNORED: &[Ignored] = &[
    value("mysql-host", NO_MYSQL),
    value("mysql-port", NO_MYSQL),
    value("mysql-user", NO_MYSQL),
    value("mysql-password", NO_MYSQL),
    value("mysql-db", NO_MYSQL),
    value("mysql-table", NO_MYSQL),
    value("libdrizzle-host", NO_MYSQL),
    value("libdrizzle-port", NO_MYSQL),
    value("libdrizzle-uds", NO_MYSQL),
    value("libdrizzle-user", NO_MYSQL),
    value("libdrizzle-password", NO_MYSQL),
    value("libdrizzle-db", NO_MYSQL),
    value("libdrizzle-table", NO_MYSQL),
    flag("libdrizzle-mysql", NO_MYSQL),
    value("redis-server", NO_REDIS),
    value("redis-port", NO_REDIS),
    value("redis-password", NO_REDIS),
    value("redis-prefix", NO_REDIS),
    value("libmemcached-servers", NO_MEMCACHED),
    value("libmemcached-prefix", NO_MEMCACHED),
    value("libtokyocabinet-file", NO_TOKYO),
    flag("libtokyocabinet-optimize", NO_TOKYO),
    flag("store-queue-on-shutdown", AT_ONCE),
];

/// Options that are refused in a file.
pub(super) const COMMAND_LINE_ONLY: &[&str] = &[
    "config-file",
    "at-file",
    "print-config",
    "check-args",
    "access-check",
    "functions-check",
    "print-access",
    "generate",
    "version",
    "help",
    "seed",
];

impl Options {
    /// The configuration file.
    pub(super) fn configuration_path(&self) -> Option<&str> {
        self.config_file.as_deref().or(self.at_file.as_deref())
    }

    /// Where to listen.
    #[must_use]
    pub fn listen_specs(&self) -> Vec<ListenSpec> {
        let mut specs = match &self.listen[..] {
            [] => vec![ListenSpec::LOOPBACK],
            specs => specs.to_vec(),
        };
        if self.ssl {
            let with_port = specs.iter_mut().filter(|spec| spec.endpoint.has_port());
            with_port.for_each(|spec| spec.speaks_tls = true);
        }
        specs
    }

    /// How long jobs may still run after the signal to stop; zero: they aren't waited for.
    #[must_use]
    pub fn drain_time(&self) -> Duration {
        let otherwise = if self.cluster { CLUSTER_DRAIN_SECONDS } else { 0 };
        Duration::from_secs(self.drain.unwrap_or(otherwise).into())
    }

    /// The port for `-r http`.
    #[must_use]
    pub fn http_port(&self) -> &str {
        self.http_port.as_deref().unwrap_or("8080")
    }

    /// Where gearmand's HTTP is spoken with `-r http`: on each host once, on a port of its own.
    #[must_use]
    pub fn dialect_specs(&self) -> Vec<ListenSpec> {
        let mut specs: Vec<ListenSpec> = Vec::new();
        let all = if self.protocol.is_some() { self.listen_specs() } else { Vec::new() };
        for mut spec in all {
            if let Endpoint::Host { port, .. } = &mut spec.endpoint {
                *port = None;
            }
            let is_there = specs.iter().any(|it| it.endpoint == spec.endpoint);
            if spec.endpoint.has_port() && !spec.speaks_tls && !is_there {
                specs.push(spec);
            }
        }
        specs
    }

    /// Whether a listener speaks TLS.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        self.ssl
            || self.is_tls_passed
            || self.listen.iter().chain(&self.http).any(|spec| spec.speaks_tls)
    }

    /// The same options, where sockets for these uses were passed to the process, and a service
    /// manager wants to be told how it is, or not. `variable` reads the environment.
    #[must_use]
    pub fn with_environment(
        &self,
        uses: &[PassedUse],
        is_managed: bool,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let mut options = self.clone();
        options.is_http_passed = uses.contains(&PassedUse::Http);
        options.is_managed = is_managed;
        options.is_tls_passed = uses.contains(&PassedUse::Tls);
        options.read_tls_variables(variable);
        options
    }

    /// Whether there is HTTP.
    #[must_use]
    pub fn serves_http(&self) -> bool {
        self.is_http_passed || !self.http.is_empty() || self.protocol.is_some()
    }

    /// Whether there is the thread for HTTP, which also tells a service manager how the server is.
    #[must_use]
    pub fn has_http_thread(&self) -> bool {
        self.serves_http() || self.is_managed
    }

    /// Whether a `--listen` or `--http` is a Unix socket.
    pub(super) fn listens_on_unix_sockets(&self) -> bool {
        self.listen.iter().chain(&self.http).any(|spec| !spec.endpoint.has_port())
    }

    /// Whether each `--listen` has a port of its own.
    pub(super) fn listens_without_port(&self) -> bool {
        let has_own =
            |spec: &ListenSpec| !matches!(spec.endpoint, Endpoint::Host { port: None, .. });
        !self.listen.is_empty() && self.listen.iter().all(has_own)
    }

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
    let ignored = IGNORED.iter().map(|&Ignored { name, has_value, .. }| {
        let argument = clap::Arg::new(name).long(name).hide(true);
        match has_value {
            true => argument.value_name("VALUE").num_args(1),
            false => argument.action(ArgAction::SetTrue),
        }
    });
    // "-1" is a value, which is wrong or right, and no option.
    Options::command().args(ignored).mut_args(|argument| {
        let has_value = argument.get_action().takes_values();
        if has_value { argument.allow_negative_numbers(true) } else { argument }
    })
}

/// The options of gearmand without a field that were given.
pub(super) fn ignored(matches: &ArgMatches) -> Vec<&'static Ignored> {
    let is_given =
        |ignored: &&Ignored| matches.value_source(ignored.name) == Some(ValueSource::CommandLine);
    IGNORED.iter().filter(is_given).collect()
}
