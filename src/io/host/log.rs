//! Log events in, lines out: to standard error, a file, syslog, or nowhere.
//!
//! The level is the only filter, and every call site knows it as a constant once it is set, so that
//! values that aren't logged aren't evaluated. Knows nothing of what is logged.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::ValueEnum;
use clap::builder::PossibleValue;
use syslog_tracing::{Facility, Syslog};
use thiserror::Error;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

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
}

impl Verbosity {
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
        }
    }
}

impl ValueEnum for Verbosity {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Fatal,
            Self::Alert,
            Self::Critical,
            Self::Error,
            Self::Warning,
            Self::Notice,
            Self::Info,
            Self::Debug,
        ]
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
    /// Log every packet, too.
    pub packets: bool,
}

/// Why there is no log.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum LogError {
    #[error("cannot open the log file {path}: {cause}; choose another with --log-file")]
    Open { path: PathBuf, cause: io::Error },
    #[error("cannot reach syslog; leave --syslog out")]
    Syslog,
}

/// The log, to be reopened.
#[derive(Clone, Debug)]
pub struct Log {
    file: Option<Arc<LogFile>>,
}

impl Log {
    /// Starts logging.
    ///
    /// # Errors
    /// `LogError`: the file can't be opened, or there is no syslog.
    pub fn start(settings: LogSettings<'_>) -> Result<Self, LogError> {
        let mut layers = Vec::new();
        let file = match settings.target {
            "none" => None,
            "stderr" => {
                layers.push(lines(settings.format, io::stderr, io::stderr().is_terminal()));
                None
            }
            path => {
                let file = Arc::new(LogFile::open(Path::new(path))?);
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
        tracing_subscriber::registry().with(layers.with_filter(level(settings))).init();
        Ok(Self { file })
    }

    /// Reopens the log file, after a rotation moved it away. If that fails the old one stays in
    /// use.
    pub fn reopen(&self) {
        if let Some(file) = &self.file
            && let Err(error) = file.reopen()
        {
            tracing::error!(%error, "the old log file is kept");
        }
    }
}

/// gearmand's levels are syslog's; the messages about the server as a whole are at NOTICE.
fn level(settings: LogSettings<'_>) -> LevelFilter {
    match settings.verbosity {
        _ if settings.packets => LevelFilter::TRACE,
        Verbosity::Fatal | Verbosity::Alert | Verbosity::Critical | Verbosity::Error => {
            LevelFilter::ERROR
        }
        Verbosity::Warning => LevelFilter::WARN,
        Verbosity::Notice | Verbosity::Info => LevelFilter::INFO,
        Verbosity::Debug => LevelFilter::DEBUG,
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
    fn open(path: &Path) -> Result<Self, LogError> {
        let file = Mutex::new(append(path)?);
        Ok(Self { path: path.to_owned(), file })
    }

    fn reopen(&self) -> Result<(), LogError> {
        let file = append(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

fn append(path: &Path) -> Result<File, LogError> {
    let file = File::options().append(true).create(true).open(path);
    file.map_err(|cause| LogError::Open { path: path.to_owned(), cause })
}

impl Write for &LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
