//! Settings of the server: options and facts about the host in, `shard::Settings` out.
//!
//! Refuses options that contradict each other or the host, and those that this build can't honour.
//! Touches no kernel: the caller collects `HostInfo`.
//!
//! Invariant: an option is honoured, documented as having no effect, or refused with the remedy.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::options::Options;
use super::values::{MIGRATION_PAGE, similar};
use crate::cluster::lease::Lease;
use crate::engine::dead::DeadBounds;
use crate::engine::function::{Durabilities, Durability};
use crate::engine::handle::{self, Handles, PrefixError};
use crate::engine::{self, NamedFunctions, Wakeup};
use crate::io::{ConnectionLimits, DESCRIPTORS_RESERVED, DriverError, Endpoint, process};
use crate::ops::HttpError;
use crate::protocol::admin::Identity;
use crate::protocol::log_level::FixedLevel;
use crate::shard::Settings;
use crate::shard::cores::{CORES_MAX, Cores};
use crate::shard::dead_drops::DeadDropLog;
use crate::shard::remote::urgency::Urgency;
use crate::store::open::{Membership, StoreChoice};
use crate::wire::buffer_pool::BufferPool;
use crate::wire::{ARGUMENTS_BYTES_MAX, HEADER_BYTES};

/// Largest body of a submission: an assignment adds a handle to it and must fit a packet, too.
const BODY_BYTES_MAX: u64 = u32::MAX as u64 - 64;
/// The first sequence number grows by this per millisecond since `NUMBERS_START_MS`, so that a run
/// starts above every number of an earlier one, unless that created more jobs per millisecond
/// throughout.
const NUMBERS_PER_MS: u64 = 1 << 10;
/// 2026-01-01 in milliseconds since 1970.
pub(super) const NUMBERS_START_MS: u64 = 1_767_225_600_000;
/// gearmand's names of `--queue-type`.
const QUEUE_TYPES: [&str; 8] = [
    "builtin",
    "libsqlite3",
    "Postgres",
    "MySQL",
    "libdrizzle",
    "libmemcached",
    "redis",
    "libtokyocabinet",
];
/// The `--protocol` that there is.
const DIALECT: &str = "http";
/// Default of `--memory-max` in percent of the host's memory.
const MEMORY_PERCENT: u64 = 75;

const _: () = assert!(BODY_BYTES_MAX > (ARGUMENTS_BYTES_MAX + HEADER_BYTES) as u64);

/// Why options are refused: they contradict each other, the host, or this build.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SettingsError {
    #[error("{0}; choose another with --job-handle-prefix")]
    Prefix(#[from] PrefixError),
    #[error(
        "--{0} needs --ssl-ca-file: name the file with the certificates of the authorities that \
         clients are trusted by"
    )]
    NoAuthorities(&'static str),
    #[error(
        "--ssl-crl-file needs --ssl-client-certificates, optional or required: without it clients \
         have no certificates to be revoked"
    )]
    ListsWithoutCertificates,
    #[error("there is no --protocol \"{0}\" here: take http, or leave it out")]
    Protocol(String),
    #[error(
        "--http-token-file needs --access-file: without an access list no token gives a right; \
         begin with ringgeard --print-access"
    )]
    TokensWithoutList,
    #[error(
        "HTTP and notifications of a service manager need a thread of their own, so that --threads \
         can be at most {}: give fewer",
        CORES_MAX - 1
    )]
    NoThreadForHttp,
    #[error("--listen and --http both say {0}: give each an address or a path of its own")]
    SharedListener(String),
    #[error("{}", HttpError::Insecure(.0.clone()))]
    Insecure(String),
    #[error(
        "-r http needs a --listen with a host and without TLS: add one, or take --http \
         tls:HOST:PORT"
    )]
    NoPlainListener,
    #[error(
        "there is no --queue-type \"{0}\" here: take --store sqlite:PATH or --store postgres://… \
         for background jobs that must survive a restart, or leave it out{1}"
    )]
    QueueType(String, String),
    #[error("--queue-type libsqlite3 needs a file: name it with --libsqlite3-db")]
    SqliteFile,
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("--store and --queue-type both say where to keep jobs: leave one of them out")]
    TwoStores,
    #[error("--{0} needs a store: add --store sqlite:PATH or --store postgres://…")]
    NoStore(&'static str),
    #[error(
        "--cluster needs a store on PostgreSQL, as only that is for several servers at a time: \
         give --store postgres://USER@HOST/DATABASE"
    )]
    ClusterWithoutPostgres,
    #[error(
        "--cluster and --standby exclude each other: every server of a cluster serves, and stands \
         by for the others; leave --standby out"
    )]
    ClusterOfStandbys,
    #[error(
        "{0} descriptors are too few, as the server needs {DESCRIPTORS_RESERVED} beside those of \
         connections: give more with --file-descriptors, or raise the limit with `ulimit -n` or \
         LimitNOFILE="
    )]
    Descriptors(u64),
}

/// What settings depend on beside the options.
#[derive(Clone, Debug)]
pub struct HostInfo {
    /// The host's name.
    pub nodename: String,
    /// Memory of the host or the container, in bytes.
    pub memory_bytes: u64,
    /// Limit of the process's descriptors.
    pub descriptors: u64,
    /// Limits of connections that follow from it.
    pub connections: ConnectionLimits,
    /// A random number.
    pub random: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// The process's id.
    pub pid: u32,
}

/// First sequence number of a run that begins at this time; with a store it may be larger.
#[must_use]
pub fn first_sequence(unix_ms: u64) -> u64 {
    unix_ms.saturating_sub(NUMBERS_START_MS).saturating_mul(NUMBERS_PER_MS).saturating_add(1)
}

impl Options {
    /// The settings of the shards; the listeners are put in when they are bound.
    ///
    /// # Errors
    /// `SettingsError` if the options contradict the host, or `check` fails.
    pub fn settings(&self, host: &HostInfo) -> Result<Settings, SettingsError> {
        self.check()?;
        let limits = host.connections;
        let connections_max = self.connections_max.unwrap_or(limits.total).min(limits.total);
        if connections_max == 0 {
            return Err(SettingsError::Descriptors(host.descriptors));
        }
        let prefix = match &self.job_handle_prefix {
            Some(prefix) => prefix.clone(),
            None => default_prefix(&host.nodename),
        };
        let memory_max = match self.memory_max {
            Some(0) => u64::MAX,
            Some(bytes) => bytes,
            None => host.memory_bytes / 100 * MEMORY_PERCENT,
        };
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Ok(Settings {
            has_http: self.has_http_thread(),
            engine: engine::Settings {
                lease_ms: self.wakeup_lease,
                wakeup: self.worker_wakeup.map_or(Wakeup::Lease, Wakeup::Each),
                attempts_max: u32::try_from(self.job_retries).ok(),
                hash_seed: self.seed.unwrap_or(host.random),
                first_sequence: first_sequence(host.unix_ms),
                durabilities: self.durabilities(),
                policies: Arc::default(),
                dead: DeadBounds::new(
                    usize::try_from(self.dead_max).unwrap_or(usize::MAX),
                    bytes(self.dead_bytes_max),
                    self.dead_keep,
                ),
                // Each shard says so to its engine.
                has_other_servers: false,
                metrics_functions: NamedFunctions::up_to(self.metrics_functions as usize),
            },
            handles: Handles::new(prefix.as_bytes())?,
            identity: Identity {
                version: env!("CARGO_PKG_VERSION"),
                log_level: Arc::new(FixedLevel(self.verbosity().name())),
                pid: host.pid,
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
            dead_drops: DeadDropLog::default(),
            cluster: matches!(self.store_choice()?, Some(StoreChoice::Postgres { .. }))
                .then(Arc::default),
            has_other_servers: self.cluster,
            access_list: None,
            user_name: process::user_name,
            tls: None,
            handshake_timeout_ms: self.ssl_handshake_timeout,
            handshakes_max: usize::try_from(self.ssl_handshakes_max).unwrap_or(usize::MAX),
            listeners: Arc::default(),
            move_after: self.move_after,
        })
    }

    /// Checks the options alone, without the host.
    ///
    /// # Errors
    /// `SettingsError` for options that contradict each other, or that this build can't honour.
    pub fn check(&self) -> Result<(), SettingsError> {
        if let Some(prefix) = &self.job_handle_prefix {
            Handles::new(prefix.as_bytes())?;
        }
        self.io.check()?;
        self.check_tls()?;
        self.check_http()?;
        match self.protocol.as_deref() {
            None => {}
            Some(DIALECT) if self.dialect_specs().is_empty() => {
                return Err(SettingsError::NoPlainListener);
            }
            Some(DIALECT) => {}
            Some(protocol) => return Err(SettingsError::Protocol(protocol.to_owned())),
        }
        let choice = self.store_choice()?;
        if self.cluster && !matches!(choice, Some(StoreChoice::Postgres { .. })) {
            return Err(SettingsError::ClusterWithoutPostgres);
        }
        if self.cluster && self.standby {
            return Err(SettingsError::ClusterOfStandbys);
        }
        Ok(())
    }

    /// What this server, on this host, tells others that use the same database.
    #[must_use]
    pub fn membership(&self, host: &HostInfo) -> Membership {
        Membership {
            is_cluster: self.cluster,
            lease: Lease::new(Duration::from_secs(self.lease)),
            name: host.nodename.clone(),
            address: self.advertise.clone().unwrap_or_default(),
        }
    }

    /// Refuses options about HTTP that contradict each other or those about listening.
    fn check_http(&self) -> Result<(), SettingsError> {
        let asked = self.threads.map_or(0, usize::from);
        if self.has_http_thread() && asked >= CORES_MAX {
            return Err(SettingsError::NoThreadForHttp);
        }
        if !self.serves_http() {
            return Ok(());
        }
        if self.http_token_file.is_some() && self.access_file.is_none() {
            return Err(SettingsError::TokensWithoutList);
        }
        let gearman = self.listen_specs();
        for spec in &self.http {
            let name = || spec.name.as_deref().unwrap_or_default().to_owned();
            let is_any_port = matches!(&spec.endpoint, Endpoint::Host { port: Some(port), .. } if
                port == "0");
            if !is_any_port && gearman.iter().any(|other| other.endpoint == spec.endpoint) {
                return Err(SettingsError::SharedListener(name()));
            }
            // Names are looked up when the server starts.
            let is_exposed = match &spec.endpoint {
                Endpoint::Host { host, .. } => {
                    let address = host.split('%').next().unwrap_or_default().parse::<IpAddr>();
                    host.is_empty() || address.is_ok_and(|it| !it.to_canonical().is_loopback())
                }
                Endpoint::Loopback | Endpoint::Unix(_) => false,
            };
            if is_exposed && !spec.speaks_tls && !self.http_insecure {
                return Err(SettingsError::Insecure(name()));
            }
        }
        Ok(())
    }

    /// Where background jobs are stored; `None` = in memory only.
    ///
    /// # Errors
    /// `SettingsError` if the options about the store contradict each other.
    pub fn store_choice(&self) -> Result<Option<StoreChoice>, SettingsError> {
        let is_type = |name: &str| self.queue_type.eq_ignore_ascii_case(name);
        let sqlite = |path: &Path| StoreChoice::Sqlite {
            path: path.into(),
            table: self.libsqlite3_table.clone(),
        };
        let postgres = |conninfo: &str| StoreChoice::Postgres {
            conninfo: conninfo.to_owned(),
            table: self.libpq_table.clone(),
        };
        match &self.store {
            Some(_) if !is_type("builtin") => Err(SettingsError::TwoStores),
            Some(StoreChoice::Sqlite { path, .. }) => Ok(Some(sqlite(path))),
            Some(StoreChoice::Postgres { conninfo, .. }) => Ok(Some(postgres(conninfo))),
            None if is_type("libsqlite3") => {
                let path = self.libsqlite3_db.as_deref().ok_or(SettingsError::SqliteFile)?;
                Ok(Some(sqlite(Path::new(path))))
            }
            None if is_type("postgres") => {
                Ok(Some(postgres(self.libpq_conninfo.as_deref().unwrap_or_default())))
            }
            None if !is_type("builtin") => Err(self.unknown_queue_type()),
            None if self.standby => Err(SettingsError::NoStore("standby")),
            None if !self.durability.is_empty() => Err(SettingsError::NoStore("durability")),
            None => Ok(None),
        }
    }

    fn unknown_queue_type(&self) -> SettingsError {
        let name = &self.queue_type;
        let more = match similar(name, QUEUE_TYPES) {
            Some("MySQL" | "libdrizzle") => {
                format!("; {MIGRATION_PAGE} tells how a MySQL queue is carried over")
            }
            Some(meant @ ("builtin" | "libsqlite3" | "Postgres")) => {
                format!("; did you mean {meant}?")
            }
            _ => String::new(),
        };
        SettingsError::QueueType(name.clone(), more)
    }

    /// The durability of every function: none without a store.
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
}

/// The default prefix: the host's name without invalid characters, cut to the longest prefix.
fn default_prefix(nodename: &str) -> String {
    let is_plain = |c: &char| c.is_ascii_graphic();
    let name = nodename.chars().filter(is_plain).take(handle::PREFIX_BYTES_MAX - 2);
    format!("H:{}", name.collect::<String>())
}
