//! `ringgear-manager`: options, file, run, exit code.
//!
//! The order of a start: options, file, what this machine has, log, descriptors, HTTP, the guard,
//! signals, workers. An error before the workers run is printed as one sentence, with exit code 1.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;
use std::rc::Rc;

use ringgear::config::manual;
use ringgear::io::log::{Log, LogSettings};
use ringgear::io::{machine, process};
use ringgear_manager::config::Server;
use ringgear_manager::counters::Counters;
use ringgear_manager::gearman::Servers;
use ringgear_manager::http::Listener;
use ringgear_manager::instance::Shared;
use ringgear_manager::options::{EarlyExit, Options, SERVERS_VARIABLE};
use ringgear_manager::process::guard::{self, Guard};
use ringgear_manager::process::strays::Strays;
use ringgear_manager::signals::{self, Reloads, Signals};
use ringgear_manager::source::{Checked, Source};
use ringgear_manager::{dry_run, service, supervisor};
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tracing::{info, warn};

fn main() -> ExitCode {
    let options = match Options::read(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(options) => options,
        Err(EarlyExit::Print(text)) => return end(print(&text)),
        Err(EarlyExit::Error(problem)) => return end(Err(problem)),
    };
    if options.guard {
        guard::run();
        return ExitCode::SUCCESS;
    }
    if let Some(folder) = &options.generate {
        let manual = ringgear_manager::manual::manual();
        return end(manual::generate(&manual, folder).map_err(|error| error.to_string()));
    }
    end(run(options))
}

fn end(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            say(problem);
            ExitCode::FAILURE
        }
    }
}

/// Writes a line to standard error.
fn say(line: impl Display) {
    // Nothing is left to say it to if it is closed.
    let _ = writeln!(std::io::stderr(), "ringgear-manager: {line}");
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|cause| format!("cannot print: {cause}; print to a terminal or a disk with room"))
}

fn run(options: Options) -> Result<(), String> {
    let servers = default_servers()?;
    let source = Source { path: options.config_file.clone().unwrap_or_default(), servers };
    if options.check || options.dry_run {
        let file = source.read()?;
        source.remarks(&file).for_each(say);
        return match options.dry_run {
            true => print(&dry_run::text(&file.config, &machine::nodename())),
            false => Ok(()),
        };
    }
    let checked = source.check()?;
    let log = LogSettings {
        target: "stderr",
        format: options.log_format,
        syslog: false,
        verbosity: options.verbosity(),
    };
    Log::start(log).map_err(|error| error.to_string())?;
    info!("ringgear-manager {}", env!("CARGO_PKG_VERSION"));
    for remark in source.remarks(&checked.file) {
        warn!("{remark}");
    }
    // Each instance has a connection to each server, and pipes.
    process::raise_descriptors(None).map_err(|error| error.to_string())?;
    let line = checked.file.lines.top("http");
    let bind = |address| {
        Listener::bind(address)
            .map_err(|problem| format!("{}:{line}: {problem}", source.path.display()))
    };
    let listener = checked.file.config.http.as_ref().map(bind).transpose()?;
    let guard = Guard::start().map_err(|cause| {
        format!("cannot start the process that ends commands if the manager is killed: {cause}")
    })?;
    let strays = Strays::adopt(&guard)
        .map_err(|cause| format!("cannot adopt orphans: {cause}; run on Linux 5.10 or later"))?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|cause| {
        format!("cannot wait for events: {cause}; raise the limit of descriptors (ulimit -n)")
    })?;
    let served =
        LocalSet::new().block_on(&runtime, serve(source, checked, listener, guard, &strays));
    strays.end();
    served
}

/// The servers of a file that names none.
fn default_servers() -> Result<Vec<Server>, String> {
    let named = std::env::var_os(SERVERS_VARIABLE).unwrap_or_default();
    let named = named.to_string_lossy();
    let servers = Server::parse_list(&named)
        .map_err(|reason| format!("{SERVERS_VARIABLE} can't be \"{named}\": {reason}"))?;
    let own = || vec![Server::Tcp { host: "127.0.0.1".to_owned(), port: Server::PORT }];
    Ok(if servers.is_empty() { own() } else { servers })
}

/// Runs the workers until a signal ends them.
async fn serve(
    source: Source,
    Checked { file, tls }: Checked,
    listener: Option<Listener>,
    guard: Guard,
    strays: &Strays,
) -> Result<(), String> {
    let config = file.config;
    let signals = Signals::install().map_err(|cause| {
        format!("cannot take signals: {cause}; raise the limit of descriptors (ulimit -n)")
    })?;
    let counters = Rc::new(Counters::default());
    if let Some(listener) = listener {
        spawn_local(listener.serve(Rc::clone(&counters)));
    }
    let shared = Shared {
        servers: Rc::new(Servers { servers: config.servers.clone(), tls }),
        servers_variable: Server::list_text(&config.servers),
        counters: Rc::clone(&counters),
        guard: Rc::new(guard),
        host: machine::nodename(),
    };
    let (sender, commands) = mpsc::unbounded_channel();
    let reloads = Reloads { source, config: config.clone(), counters };
    service::ready(config.workers.len());
    tokio::select! {
        () = supervisor::run(config, Rc::new(shared), commands) => {}
        () = signals::forward(signals, reloads, sender) => {}
        () = strays.watch() => {}
    }
    info!("all processes have ended");
    Ok(())
}
