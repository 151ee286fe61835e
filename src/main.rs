//! `ringgeard`: parse, build, run, exit code.
//!
//! The order of a start: options, limits, background, sockets (while still root), user, log, pid
//! file, the store, the shard's driver. Whatever fails before the driver runs is one sentence and
//! exit code 1.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringgear::config::{self, Facts, Options, ParseEnd};
use ringgear::io::log::{Log, LogSettings};
use ringgear::io::machine;
use ringgear::io::memory::{self, Allocator};
use ringgear::io::process::{self, Background, PidFile};
use ringgear::io::{
    self, ConnectionLimits, Driver, KeepAlive, Listeners, Server, Signals, Sockets,
};
use ringgear::store::namespace::Wanted;
use ringgear::store::open::{Opened, open};
use tracing::{error, info, warn};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    memory::free_at_once();
    let options = match config::parse(std::env::args_os(), |path| std::fs::read_to_string(path)) {
        Ok(options) => options,
        Err(ParseEnd::Print(text)) => {
            return match std::io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&format!("cannot print: {error}")),
            };
        }
        Err(ParseEnd::Error(problem)) => return fail(&problem),
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(problem: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("ringgeard: {problem}");
    ExitCode::FAILURE
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    options.check()?;
    if options.check_args {
        io::check_port(&options.port)?;
        return Ok(());
    }
    let descriptors = process::raise_descriptors(options.file_descriptors)?;
    if options.coredump {
        process::allow_core_dumps();
    }
    let background = options.daemon.then(process::go_to_background).transpose()?;
    let listeners = Listeners::open(options.listen.as_deref(), &options.port, &sockets(options))?;
    if let Some(user) = &options.user {
        process::switch_user(user)?;
    }
    let log = Log::start(log_settings(options))?;
    serve_logged(options, descriptors, background, listeners, log).inspect_err(|error| {
        // On standard error it is said in any case.
        if options.log_file != "stderr" {
            error!("{error}");
        }
    })
}

/// The part of `serve` whose errors find a log.
fn serve_logged(
    options: &Options,
    (descriptors_before, descriptors): (u64, u64),
    background: Option<Background>,
    listeners: Listeners,
    log: Log,
) -> Result<(), Box<dyn Error>> {
    // Whoever reads the pid file may send a signal at once.
    let signals = Signals::install(cores(options))?;
    let pid_file = options.pid_file.as_deref().filter(|path| !path.is_empty());
    let _pid_file = pid_file.map(|path| PidFile::create(Path::new(path))).transpose()?;
    // What is wrong with the options is said before anything is logged, whatever the driver.
    let facts = facts(descriptors, io::connection_limits(Driver::Epoll, descriptors, 1))?;
    options.settings(&facts)?;

    info!("ringgeard {}", env!("CARGO_PKG_VERSION"));
    info!(before = descriptors_before, now = descriptors, "descriptors");
    note_idle_options(options);
    let event_loop = io::choose(options.io, cores(options), options.ring_entries)?;
    let connections = io::connection_limits(event_loop.driver(), descriptors, cores(options));
    let facts = Facts { connections, ..facts };
    let mut settings = options.settings(&facts)?;
    info!(most = settings.connections_max, "connections");
    if options.connections_max.is_some_and(|asked| asked > facts.connections.total) {
        warn!(
            "--connections-max asks for more than the descriptors allow: raise them with \
             --file-descriptors"
        );
    }
    let mut background = background;
    let store = match options.store_choice()? {
        None => None,
        Some(choice) => {
            if options.standby {
                background.take().map_or(Ok(()), Background::ready)?;
            }
            let patience = options.standby.then_some(|| !signals.iter().any(Signals::is_stopping));
            let prefix = settings.handles.prefix();
            let wanted = Wanted { prefix, is_given: options.job_handle_prefix.is_some() };
            let opened = open(&choice, &wanted, || config::first_sequence(unix_ms()), patience)?;
            let Some(Opened { store, namespace }) = opened else { return Ok(()) };
            settings.handles = namespace.handles;
            settings.engine.first_sequence = namespace.first_sequence;
            Some(store)
        }
    };
    let server = Server {
        settings,
        event_loop,
        listeners,
        signals,
        store,
        host_timeout: Duration::from_secs(options.tcp_user_timeout.into()),
        store_timeout: Duration::from_millis(options.store_timeout),
        busy_poll: Duration::from_micros(options.busy_poll),
        reopen_log: Box::new(move || log.reopen()),
    };
    io::run(server, || background.map_or(Ok(()), Background::ready))?;
    Ok(())
}

fn log_settings(options: &Options) -> LogSettings<'_> {
    LogSettings {
        target: &options.log_file,
        format: options.log_format,
        syslog: options.syslog,
        verbosity: options.verbosity(),
        packets: options.more_verbose > 2,
    }
}

/// gearmand's 0 means a single thread, too.
fn cores(options: &Options) -> usize {
    usize::from(options.threads.max(1))
}

fn sockets(options: &Options) -> Sockets {
    // gearmand's -1 leaves each to the server.
    let seconds = |given: i32, otherwise: u64| {
        Duration::from_secs(u64::try_from(given).ok().filter(|&s| s > 0).unwrap_or(otherwise))
    };
    let count = u32::try_from(options.keepalive_count).ok().filter(|&count| count > 0).unwrap_or(3);
    Sockets {
        cores: cores(options),
        backlog: options.backlog,
        keep_alive: Some(KeepAlive {
            idle: seconds(options.keepalive_idle, 15),
            interval: seconds(options.keepalive_interval, 5),
            count,
        }),
    }
}

fn facts(descriptors: u64, connections: ConnectionLimits) -> Result<Facts, Box<dyn Error>> {
    Ok(Facts {
        nodename: machine::nodename(),
        memory_bytes: machine::memory_bytes(),
        descriptors,
        connections,
        random: getrandom::u64()?,
        unix_ms: unix_ms(),
        pid: std::process::id(),
    })
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Says of options that gearmand needs and this server doesn't that they do nothing.
fn note_idle_options(options: &Options) {
    if options.hashtable_buckets.is_some() {
        info!("--hashtable-buckets has nothing to do: tables grow by themselves");
    }
}
