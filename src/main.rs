//! `ringgeard`: parse, build, run, exit code.
//!
//! The order of a start: options, limits, background, sockets (while still root), user, access list
//! and files of TLS, log, pid file, sandbox, rings, store, driver. An error before the driver runs
//! is printed as one sentence, with exit code 1.

use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringgear::config::{
    self, EarlyExit, FunctionsFile, HostInfo, Options, SettingsError, TLS_FILE_BYTES_MAX, manual,
};
use ringgear::engine::policy::Policies;
use ringgear::io::log::{Log, LogError, LogSettings};
use ringgear::io::machine;
use ringgear::io::memory::{self, Allocator};
use ringgear::io::privileges;
use ringgear::io::process::{self, Background, PidFile};
use ringgear::io::sandbox::{self, Sandbox};
use ringgear::io::{
    self, ConnectionLimits, CoreCount, Driver, IoError, KeepAlive, Listeners, PassedSocket,
    PassedUse, Reload, Reloaded, Server, ServiceManager, Signals, Sockets, UnixSockets,
};
use ringgear::ops::{Http, HttpError, HttpSettings, Phase, Tokens, http_connections_max};
use ringgear::protocol::access::AccessList;
use ringgear::protocol::toml_tables::FILE_BYTES_MAX;
use ringgear::shard::Settings;
use ringgear::store::health::StoreHealth;
use ringgear::store::namespace::Wanted;
use ringgear::store::open::{self, Opened};
use ringgear::wire::tls::TlsServer;
use tracing::{error, info, warn};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    memory::free_at_once();
    let parsed = config::parse(std::env::args_os(), read_file, |name| std::env::var_os(name));
    let options = match parsed {
        Ok(options) => options,
        Err(EarlyExit::Print(text)) => return print(&text, ExitCode::SUCCESS),
        Err(EarlyExit::Refused(text)) => return print(&text, ExitCode::FAILURE),
        Err(EarlyExit::Error(problem)) => return fail(&problem),
        Err(EarlyExit::Generate(folder)) => return generate(&folder),
        Err(EarlyExit::Unclear(problem)) => {
            fail(&problem);
            return ExitCode::from(2);
        }
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Prints a text and returns the code to end with.
fn print(text: &str, code: ExitCode) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(error) => {
            fail(&format!("cannot print: {error}; print to a terminal or a disk with room"))
        }
    }
}

/// Writes the manual page and the completions, and returns the code to end with.
fn generate(folder: &Path) -> ExitCode {
    match manual::generate(&manual::ringgeard(), folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The text of a file, which may have no more bytes than any file that the server reads.
fn read_file(path: &str) -> std::io::Result<String> {
    String::from_utf8(read_bytes(path, FILE_BYTES_MAX)?).map_err(|_| ErrorKind::InvalidData.into())
}

/// What is in a file of at most `bytes_max` bytes.
fn read_bytes(path: &str, bytes_max: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max { Err(ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// The access list that the options name.
fn access_list(options: &Options) -> Result<Option<Arc<AccessList>>, String> {
    let path = options.access_file.as_deref();
    let conditions = options.access_conditions();
    path.map(|path| config::read_access_list(path, conditions, read_file)).transpose()
}

/// The files of TLS that the options name.
fn tls(options: &Options, earlier: Option<&TlsServer>) -> Result<Option<Arc<TlsServer>>, String> {
    options.read_tls(|path| read_bytes(path, TLS_FILE_BYTES_MAX), earlier)
}

/// Says what an operator should know of the files of TLS.
fn remark_on_tls(options: &Options, server: &TlsServer) {
    for remark in server.remarks(unix_ms() / 1000) {
        warn!("{remark}");
    }
    let key = options.key_file();
    if std::fs::metadata(key).is_ok_and(|it| it.permissions().mode() & 0o007 != 0) {
        warn!("the key {key} can be read by every user of this host: chmod o= {key}");
    }
}

/// Takes tokens of HTTP clients that were read anew.
type TokenControl = Box<dyn Fn(Arc<Tokens>) + Send>;

/// What reads files anew; the old ones stay where the new ones have a mistake.
fn reload(
    options: Options,
    mut server: Option<Arc<TlsServer>>,
    mut functions: FunctionsFile,
    set_tokens: Option<TokenControl>,
) -> Reload {
    Box::new(move || {
        let stays = |what: &str, problem: &str| error!("{what} stays as it was: {problem}");
        let tls = match tls(&options, server.as_deref()) {
            Ok(tls) => tls,
            Err(problem) => {
                stays("TLS", &problem);
                None
            }
        };
        if let Some(tls) = &tls {
            info!("files of TLS read");
            remark_on_tls(&options, tls);
            server = Some(Arc::clone(tls));
        }
        let access_list = match access_list(&options) {
            Ok(list) => list,
            Err(problem) => {
                stays("the access list", &problem);
                None
            }
        };
        if let Some(list) = &access_list {
            info!(rules = list.rules().len(), "access list read");
        }
        if let Some(set_tokens) = &set_tokens {
            match options.read_tokens(read_file) {
                Ok(None) => {}
                Ok(Some(tokens)) => {
                    info!(tokens = tokens.count(), "tokens read");
                    set_tokens(tokens);
                }
                Err(problem) => stays("the file of tokens", &problem),
            }
        }
        let policies = reread_functions(&options, &mut functions);
        Reloaded { access_list, tls, policies }
    })
}

/// The policies of functions, if they have changed.
fn reread_functions(options: &Options, earlier: &mut FunctionsFile) -> Option<Arc<Policies>> {
    let has_none = options.functions_file.is_none() && earlier.is_empty();
    match options.reread_functions(read_file) {
        Ok(None) => None,
        Ok(Some(functions)) if has_none && functions.is_empty() => None,
        Ok(Some(functions)) => {
            if functions != *earlier {
                functions.remarks().for_each(|remark| warn!("{remark}"));
            }
            info!(functions = functions.policies().0.len(), "functions file read");
            let is_changed = functions.policies() != earlier.policies();
            *earlier = functions;
            is_changed.then(|| Arc::clone(earlier.policies()))
        }
        // Such a server needs its configuration file no more.
        Err(problem) if has_none => {
            info!("no functions read: {problem}");
            None
        }
        Err(problem) => {
            error!("the functions stay as they were: {problem}");
            None
        }
    }
}

fn fail(problem: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("ringgeard: {problem}");
    ExitCode::FAILURE
}

fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    options.check()?;
    let mut specs = options.listen_specs();
    io::check_ports(&specs, &options.port)?;
    options.store_choice()?.as_ref().map_or(Ok(()), open::check)?;
    if options.check_args {
        access_list(options)?;
        tls(options, None)?;
        options.read_tokens(read_file)?;
        let functions = options.read_functions(read_file)?;
        functions.remarks().for_each(|remark| eprintln!("ringgeard: {remark}"));
        return Ok(());
    }
    // Passed to this process, not to the one that goes to the background.
    let passed = io::passed_sockets()?;
    let uses: Vec<PassedUse> = passed.iter().map(PassedSocket::serves).collect();
    // It hears the process that it has started, and no other: so that process stays.
    let is_supervised = ServiceManager::waits_for_this_process();
    let goes_to_background = options.daemon && !is_supervised;
    let manager = ServiceManager::take();
    let manager = if goes_to_background { Ok(None) } else { manager };
    let is_managed = matches!(manager, Ok(Some(_)));
    let options = &options.with_environment(&uses, is_managed, |name| std::env::var_os(name));
    let (for_http, passed): (Vec<_>, Vec<_>) =
        passed.into_iter().partition(|socket| socket.serves() == PassedUse::Http);
    options.check()?;
    if options.listen.is_empty() && !passed.is_empty() {
        specs.clear();
    }
    process::set_umask();
    let descriptors = process::raise_descriptors(options.file_descriptors)?;
    if io::connection_limits(Driver::Epoll, descriptors.1, 1).total == 0 {
        return Err(SettingsError::Descriptors(descriptors.1).into());
    }
    if options.coredump {
        process::allow_core_dumps();
    }
    let background = goes_to_background.then(process::go_to_background).transpose()?;
    let port = &options.port;
    let cores = options.cores(machine::processors_allowed(), descriptors.1);
    let sockets = |cores| sockets(options, cores);
    let listeners =
        Listeners::open_beside(passed, options.ssl, &specs, port, &sockets(cores.most))?;
    let http_listeners = open_http(options, &listeners, for_http)?;
    let dialect = Listeners::open(&options.dialect_specs(), options.http_port(), &sockets(1))?;
    if let Some(user) = &options.user {
        privileges::switch_user(user)?;
    }
    privileges::keep_privileges_down();
    // As the user that reads it anew later.
    let (access_list, tls) = (access_list(options)?, tls(options, None)?);
    let functions = options.read_functions(read_file)?;
    let policies = Some(Arc::clone(functions.policies()));
    let files = (Reloaded { access_list, tls, policies }, functions);
    let tokens = options.read_tokens(read_file)?;
    let (options, log) = &start_log(options, is_supervised)?;
    if options.daemon && is_supervised {
        warn!("--daemon has no effect: the service manager waits for this process to be ready");
    }
    let listeners = (listeners, http_listeners, dialect);
    let log = log.clone();
    let manager = manager.unwrap_or_else(|unreachable| {
        warn!("{unreachable}");
        None
    });
    let started = (background, manager);
    let host = (descriptors, cores);
    serve_logged(options, host, started, listeners, log, (files, tokens)).inspect_err(|error| {
        // `main` prints it to standard error in any case.
        if options.log_file != "stderr" {
            error!("{error}");
        }
    })
}

/// Starts the log, and returns the options as they hold then. Where a service manager reads
/// standard error, that takes the place of a file that can't be opened, as with gearmand.
fn start_log(options: &Options, is_supervised: bool) -> Result<(Options, Log), LogError> {
    let mut options = options.clone();
    let log = match Log::start(log_settings(&options)) {
        Err(problem @ LogError::Open { .. }) if is_supervised => {
            "stderr".clone_into(&mut options.log_file);
            let log = Log::start(log_settings(&options))?;
            warn!("the log goes to standard error: {problem}");
            log
        }
        started => started?,
    };
    Ok((options, log))
}

/// The part of `serve` whose errors are logged.
fn serve_logged(
    options: &Options,
    ((descriptors_before, descriptors), cores): ((u64, u64), CoreCount),
    (background, manager): (Option<Background>, Option<ServiceManager>),
    (mut listeners, http_listeners, dialect): (Listeners, Listeners, Listeners),
    log: Log,
    ((files, functions), tokens): ((Reloaded, FunctionsFile), Option<Arc<Tokens>>),
) -> Result<(), Box<dyn Error>> {
    // Before the pid file: a program that reads it may send a signal at once.
    let mut signals = Signals::install(cores.most).map_err(IoError::Start)?;
    let pid_file = options.pid_file.as_deref().filter(|path| !path.is_empty());
    let _pid_file = pid_file.map(|path| PidFile::create(Path::new(path))).transpose()?;
    // Checked before anything is logged. The driver, chosen below, changes connection limits only.
    let http_max = if options.serves_http() { http_connections_max(descriptors) } else { 0 };
    let left = descriptors.saturating_sub(http_max as u64);
    let host = host_info(descriptors, io::connection_limits(Driver::Epoll, left, 1))?;
    options.settings(&host)?;

    info!("ringgeard {}", env!("CARGO_PKG_VERSION"));
    info!(before = descriptors_before, now = descriptors, "descriptors");
    for remark in options.remarks().into_iter().chain(functions.remarks()) {
        warn!("{remark}");
    }
    if let Some(server) = &files.tls {
        remark_on_tls(options, server);
    }
    sandbox::enter(options.sandbox, &options.reach())?;
    let is_restricted = options.sandbox != Sandbox::Off;
    let event_loop = io::choose(options.io, cores, options.ring_entries, is_restricted)?;
    let cores = event_loop.cores();
    signals.truncate(cores);
    listeners.use_cores(cores);
    info!(threads = cores, "cores that serve");
    let connections = io::connection_limits(event_loop.driver(), left, cores);
    let host = HostInfo { connections, ..host };
    let mut settings = options.settings(&host)?;
    settings.identity.log_level = log.level();
    settings.access_list = files.access_list;
    settings.engine.policies = files.policies.unwrap_or_default();
    settings.tls = files.tls.clone();
    settings.listeners = listeners.describe();
    info!(most = settings.connections_max, "connections");
    if options.connections_max.is_some_and(|asked| asked > host.connections.total) {
        warn!(
            "--connections-max asks for more than the descriptors allow: raise them with \
             --file-descriptors"
        );
    }
    let places = listeners.places();
    let store_health = Arc::<StoreHealth>::default();
    let http = HttpSettings {
        tokens,
        connections_max: http_max,
        leaving: signals.first().map(Signals::leaving).unwrap_or_default(),
        store_health: options.store_choice()?.map(|_| Arc::clone(&store_health)),
        ..http_settings(options, &settings, &places, event_loop.driver(), &log)?
    };
    let start = || Http::start(http_listeners, dialect, http, manager);
    let http = options.has_http_thread().then(start).transpose()?;
    let mut background = background;
    let (store, members) = match options.store_choice()? {
        None => (None, None),
        Some(choice) => {
            if options.standby {
                http.iter().for_each(|http| http.set_phase(Phase::Standby));
                background.take().map_or(Ok(()), Background::ready)?;
            }
            let keep_waiting =
                options.standby.then_some(|| !signals.iter().any(Signals::is_stopping));
            let prefix = settings.handles.prefix();
            let wanted = Wanted { prefix, is_given: options.job_handle_prefix.is_some() };
            let membership = options.membership(&host);
            let first_sequence = || config::first_sequence(unix_ms());
            let opened = open::open(&choice, &wanted, &membership, first_sequence, keep_waiting)?;
            let Some(Opened { store, members, namespace }) = opened else { return Ok(()) };
            http.iter().for_each(|http| http.set_phase(Phase::Recovering));
            settings.handles = namespace.handles;
            settings.engine.first_sequence = namespace.first_sequence;
            (Some(store), members)
        }
    };
    // A server started by hand says that it is ready, and how to stop it.
    let is_watched =
        background.is_none() && options.log_file == "stderr" && std::io::stderr().is_terminal();
    let server = Server {
        settings,
        event_loop,
        listeners,
        signals,
        store,
        members,
        host_timeout: Duration::from_secs(options.tcp_user_timeout.into()),
        store_timeout: Duration::from_millis(options.store_timeout),
        store_health,
        drain: options.drain_time(),
        busy_poll: Duration::from_micros(options.busy_poll),
        offload: !options.no_offload,
        // Servers and containers that ask for nothing would all be on the host's first processors.
        pins_threads: options.threads.is_some(),
        log_control: Box::new(log),
        reload: reload(
            options.clone(),
            files.tls,
            functions,
            http.as_ref().map(Http::token_control),
        ),
        attach_http: http.as_ref().map(Http::attach),
    };
    io::run(server, || {
        if is_watched {
            info!("ready on {}; Ctrl-C stops it", places.join(" and "));
        }
        background.map_or(Ok(()), Background::ready)
    })?;
    Ok(())
}

/// The sockets for HTTP: what the options say, and what was passed to the process.
fn open_http(
    options: &Options,
    gearman: &Listeners,
    passed: Vec<PassedSocket>,
) -> Result<Listeners, HttpError> {
    gearman.check_beside(&options.http)?;
    let sockets = sockets(options, 1);
    let (specs, port) = (&options.http, &options.port);
    let listeners = Listeners::open_beside(passed, false, specs, port, &sockets)?;
    match listeners.exposed().filter(|_| !options.http_insecure) {
        Some(place) => Err(HttpError::Insecure(place)),
        None => Ok(listeners),
    }
}

/// What the thread for HTTP is told of the options.
fn http_settings(
    options: &Options,
    settings: &Settings,
    places: &[String],
    driver: Driver,
    log: &Log,
) -> Result<HttpSettings, Box<dyn Error>> {
    Ok(HttpSettings {
        version: settings.identity.version,
        driver: driver.name(),
        store: options.store_choice()?.map(|it| it.kind()),
        hosts: options.http_host.clone(),
        ready_without_store: options.ready_without_store,
        dead: settings.engine.dead.clone(),
        body_bytes_max: settings.body_bytes_max,
        outbox_bytes_max: settings.outbox_bytes_max,
        memory_bytes_max: settings.memory_bytes_max,
        options: options.changed.clone(),
        listeners: Arc::clone(&settings.listeners),
        places: places.to_vec(),
        certificate_file: options.certificate_file().to_owned(),
        cluster: settings.cluster.clone(),
        access_list: settings.access_list.clone(),
        log_lines: log.lines(),
        tls: settings.tls.clone(),
        handshake_timeout: Duration::from_millis(options.ssl_handshake_timeout),
        host_timeout: Duration::from_secs(options.tcp_user_timeout.into()),
        ..HttpSettings::default()
    })
}

fn log_settings(options: &Options) -> LogSettings<'_> {
    LogSettings {
        target: &options.log_file,
        format: options.log_format,
        syslog: options.syslog,
        verbosity: options.verbosity(),
    }
}

/// How the sockets of so many cores are to be.
fn sockets(options: &Options, cores: usize) -> Sockets {
    // -1 means the server's default, as in gearmand.
    let seconds = |given: i32, otherwise: u64| {
        Duration::from_secs(u64::try_from(given).ok().filter(|&s| s > 0).unwrap_or(otherwise))
    };
    let count = u32::try_from(options.keepalive_count).ok().filter(|&count| count > 0).unwrap_or(3);
    Sockets {
        cores,
        backlog: options.backlog,
        keep_alive: Some(KeepAlive {
            idle: seconds(options.keepalive_idle, 15),
            interval: seconds(options.keepalive_interval, 5),
            count,
        }),
        unix: unix_sockets(options),
    }
}

fn unix_sockets(options: &Options) -> UnixSockets {
    let defaults = UnixSockets::default();
    let mode = options.unix_mode.unwrap_or(defaults.mode);
    match (&options.unix_owner, &options.user) {
        // The socket is made before the server becomes that user.
        (None, Some(user)) if privileges::is_root() => {
            UnixSockets { mode, owner: Some(user.clone()), owner_option: "--user" }
        }
        (owner, _) => UnixSockets { mode, owner: owner.clone(), ..defaults },
    }
}

fn host_info(descriptors: u64, connections: ConnectionLimits) -> Result<HostInfo, Box<dyn Error>> {
    Ok(HostInfo {
        nodename: machine::nodename(),
        memory_bytes: machine::memory_bytes(),
        descriptors,
        connections,
        random: getrandom::u64().map_err(|cause| {
            format!("the kernel gives no random bytes: {cause}; allow getrandom(2) to the server")
        })?,
        unix_ms: unix_ms(),
        pid: std::process::id(),
    })
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
