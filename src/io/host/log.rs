//! Log events in, lines out: to standard error, a file, syslog, or nowhere.
//!
//! The level is the only filter, and every call site knows it as a constant once it is set, so that
//! values that aren't logged aren't evaluated. Knows nothing of what is logged.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use clap::builder::PossibleValue;
use syslog_tracing::{Facility, Syslog};
use thiserror::Error;
use tracing::{Event, Subscriber, error, info};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use super::signals::LogControl;
use crate::engine::event::{self, JOBS};
use crate::protocol::log_level::LogLevel;
use crate::shard::PEERS;
use crate::store::mode::{Wide, narrow};

/// Mode of the log file: its group may read it.
const FILE_MODE: u32 = 0o640;

/// What gearmand calls its log levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "syslog's words")]
pub enum Verbosity {
    Fatal,
    Alert,
    Critical,
    Error,
    Warning,
    Notice,
    Info,
    Debug,
    /// Every packet, too; gearmand has no such level.
    Trace,
}

impl Verbosity {
    const ALL: [Self; 9] = [
        Self::Fatal,
        Self::Alert,
        Self::Critical,
        Self::Error,
        Self::Warning,
        Self::Notice,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// The level of this name, in any case.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(name))
    }

    fn level(self) -> LevelFilter {
        match self {
            Self::Fatal | Self::Alert | Self::Critical | Self::Error => LevelFilter::ERROR,
            Self::Warning => LevelFilter::WARN,
            Self::Notice | Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }

    /// The level of lines about single jobs and connections, which NOTICE leaves out at INFO.
    fn level_of_jobs(self) -> LevelFilter {
        if self == Self::Notice { LevelFilter::WARN } else { self.level() }
    }

    /// What is logged; the engine's and the shards' copy of it is set along with it.
    fn filter(self) -> Targets {
        let of_jobs = self.level_of_jobs();
        event::set_level(of_jobs);
        Targets::new()
            .with_default(self.level())
            .with_target(JOBS, of_jobs)
            .with_target(PEERS, of_jobs)
            // Its lines are each message of each handshake; what goes wrong is in the shard's.
            .with_target("rustls", self.level().min(LevelFilter::WARN))
    }

    /// The level's name, upper case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Alert => "ALERT",
            Self::Critical => "CRITICAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

impl ValueEnum for Verbosity {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the log goes, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings<'a> {
    /// `stderr`, `none`, or a file's path.
    pub target: &'a str,
    /// How lines are written there.
    pub format: LogFormat,
    /// Log to syslog, too.
    pub syslog: bool,
    /// Least urgent level to log.
    pub verbosity: Verbosity,
}

/// Levels of lines with their names, the most urgent first.
const LEVELS: [(tracing::Level, &str); 5] = [
    (tracing::Level::ERROR, "error"),
    (tracing::Level::WARN, "warning"),
    (tracing::Level::INFO, "info"),
    (tracing::Level::DEBUG, "debug"),
    (tracing::Level::TRACE, "trace"),
];

/// How many lines were logged, by level.
#[derive(Debug, Default)]
pub struct LogLines([AtomicU64; LEVELS.len()]);

impl LogLines {
    /// Each level's name and lines since the start.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        LEVELS.into_iter().map(|(_, name)| name).zip(counts)
    }
}

/// Counts the lines that the filter lets through.
struct CountLines(Arc<LogLines>);

impl<S: Subscriber> Layer<S> for CountLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = event.metadata().level();
        if let Some(at) = LEVELS.iter().position(|(it, _)| it == level) {
            self.0.0[at].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Why there is no log.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LogError {
    #[error(
        "cannot open the log file {path}: {cause}; choose another with --log-file, in a folder \
         that the server's user may write to"
    )]
    Open { path: PathBuf, cause: io::Error },
    #[error("cannot reach syslog; leave --syslog out")]
    Syslog,
}

/// The log, to be reopened, and its level.
#[derive(Clone, Debug)]
pub struct Log {
    file: Option<Arc<LogFile>>,
    level: Arc<Level>,
    lines: Arc<LogLines>,
}

/// The level of the log.
#[derive(Debug)]
struct Level {
    at_start: Verbosity,
    current: Mutex<Verbosity>,
    filter: reload::Handle<Targets, Registry>,
}

impl Level {
    fn change(&self, to: Verbosity) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let report = || info!("the log level is {} now", to.name());
        // The line is written while the less urgent of the two levels is in force.
        if to < *current {
            report();
        }
        // The filter is gone only when the log is.
        let _ = self.filter.reload(to.filter());
        if to > *current {
            report();
        }
        *current = to;
    }

    fn current(&self) -> Verbosity {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogLevel for Level {
    fn name(&self) -> &'static str {
        self.current().name()
    }

    fn set(&self, name: &str) -> bool {
        Verbosity::named(name).map(|level| self.change(level)).is_some()
    }
}

impl Log {
    /// Starts logging.
    ///
    /// # Errors
    /// `LogError`: the file can't be opened, or there is no syslog.
    pub fn start(settings: LogSettings<'_>) -> Result<Self, LogError> {
        let mut layers = Vec::new();
        let mut was_wide = None;
        let file = match settings.target {
            "none" => None,
            "stderr" => {
                layers.push(lines(settings.format, io::stderr, io::stderr().is_terminal()));
                None
            }
            path => {
                let (file, wide) = LogFile::open(Path::new(path))?;
                let file = Arc::new(file);
                was_wide = wide;
                layers.push(lines(settings.format, Arc::clone(&file), false));
                Some(file)
            }
        };
        if settings.syslog {
            let syslog =
                Syslog::new(c"ringgeard", syslog_tracing::Options::LOG_PID, Facility::User);
            let syslog = syslog.ok_or(LogError::Syslog)?;
            layers.push(
                tracing_subscriber::fmt::layer()
                    .with_writer(syslog)
                    .without_time()
                    .with_level(false)
                    .with_ansi(false)
                    .boxed(),
            );
        }
        let counted = Arc::<LogLines>::default();
        if !layers.is_empty() {
            layers.push(CountLines(Arc::clone(&counted)).boxed());
        }
        let (filter, handle) = reload::Layer::new(settings.verbosity.filter());
        tracing_subscriber::registry().with(layers.with_filter(filter)).init();
        if let Some(wide) = was_wide {
            wide.log(Path::new(settings.target));
        }
        let at_start = settings.verbosity;
        let level = Level { at_start, current: Mutex::new(at_start), filter: handle };
        Ok(Self { file, level: Arc::new(level), lines: counted })
    }

    /// How many lines were logged.
    #[must_use]
    pub fn lines(&self) -> Arc<LogLines> {
        Arc::clone(&self.lines)
    }

    /// The level, to be read and set.
    #[must_use]
    pub fn level(&self) -> Arc<dyn LogLevel> {
        Arc::clone(&self.level) as Arc<dyn LogLevel>
    }
}

impl LogControl for Log {
    /// Reopens the log file, after a rotation moved it away. If that fails the old one stays in
    /// use.
    fn reopen(&self) {
        if let Some(file) = &self.file
            && let Err(error) = file.reopen()
        {
            error!(
                "SIGHUP, and the log can't be opened again, so it goes on in the old file: {error}"
            );
        }
    }

    fn raise_level(&self) {
        let current = self.level.current();
        let next = Verbosity::ALL.into_iter().find(|&level| level > current);
        self.level.change(next.unwrap_or(self.level.at_start));
    }
}

fn lines<W>(format: LogFormat, writer: W, colours: bool) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colours);
    match format {
        LogFormat::Text => layer.with_target(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    fn open(path: &Path) -> Result<(Self, Option<Wide>), LogError> {
        let (file, wide) = append(path)?;
        Ok((Self { path: path.to_owned(), file: Mutex::new(file) }, wide))
    }

    fn reopen(&self) -> Result<(), LogError> {
        let (file, wide) = append(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        if let Some(wide) = wide {
            wide.log(&self.path);
        }
        Ok(())
    }
}

fn append(path: &Path) -> Result<(File, Option<Wide>), LogError> {
    let file = File::options().append(true).create(true).mode(FILE_MODE).open(path);
    let file = file.map_err(|cause| LogError::Open { path: path.to_owned(), cause })?;
    let wide = narrow(&file, FILE_MODE);
    Ok((file, wide))
}

impl Write for &LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
