//! Command line, configuration file and environment in, options out, and settings from them.
//!
//! Two steps: `parse` reads the arguments, the file's text and the variable, and depends on nothing
//! else; `Options::settings` derives the server's settings from them and from facts about the host.
//! Both get all input as arguments and touch no kernel.
//!
//! Invariant: the command line overrides the file, the file the environment, and that the defaults.
//! A variable may name the file; the command line overrides that, too.

mod access;
mod changed;
mod cores;
mod file;
mod functions;
mod listen;
pub mod manual;
mod mistakes;
mod options;
mod reach;
mod remarks;
mod settings;
mod tls;
mod values;

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches};
use thiserror::Error;

pub use self::access::read_access_list;
use self::file::{as_arguments, default_file, file_arguments};
pub use self::functions::{
    Conditions as FunctionConditions, FunctionsFile, Tables as FunctionTables,
    parse as parse_functions, parse_configuration as parse_configured_functions,
};
pub use self::mistakes::mistake;
use self::mistakes::unfit;
pub use self::options::Options;
use self::options::command;
pub use self::settings::{HostInfo, SettingsError, first_sequence};
pub use self::tls::TLS_FILE_BYTES_MAX;
use crate::protocol::access::STARTING_LIST;

/// The variable that gives the port unless the command line or the file does.
const PORT_VARIABLE: &str = "GEARMAND_PORT";
/// The variable that names the configuration file unless the command line does.
const FILE_VARIABLE: &str = "RINGGEARD_CONFIG_FILE";

/// The program ends after parsing.
#[derive(Debug, Error)]
pub enum EarlyExit {
    /// Print this text and exit with 0.
    #[error("{0}")]
    Print(String),
    /// Print this text and exit with 1: the access list refuses.
    #[error("{0}")]
    Refused(String),
    /// Print this text to standard error and exit with 2: the access list can't be asked.
    #[error("{0}")]
    Unclear(String),
    /// Print this text to standard error and exit with 1.
    #[error("{0}")]
    Error(String),
    /// Write the manual page and the completions into this folder, and exit with 0.
    #[error("files for {}", .0.display())]
    Generate(PathBuf),
}

/// Parses a command line; `read_file` returns the text of the configuration file that it names,
/// `variable` an environment variable.
///
/// # Errors
/// `EarlyExit` for `--help`, `--version` and the like, and for invalid arguments.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    read_file: impl Fn(&str) -> std::io::Result<String>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Options, EarlyExit> {
    let mut words: Vec<OsString> = arguments.into_iter().collect();
    let typed = matches(&words)?;
    let options = Options::from_arg_matches(&typed).map_err(|error| early_exit(&error, &words))?;
    if options.print_config {
        return Err(EarlyExit::Print(default_file()));
    }
    if options.print_access {
        return Err(EarlyExit::Print(STARTING_LIST.to_owned()));
    }
    if options.version && !options.check_args {
        let version = format!("\nringgeard {}\n", env!("CARGO_PKG_VERSION"));
        return Err(EarlyExit::Print(version));
    }
    if let Some(folder) = options.generate {
        return Err(EarlyExit::Generate(folder));
    }
    if options.config_file.is_some() && options.at_file.is_some() {
        let twice = "--config-file and @FILE both name a file: leave one of them out";
        return Err(EarlyExit::Error(twice.to_owned()));
    }
    let source = configuration_source(&options, &variable)?;
    let file = match &source {
        Some(source) => Some((source, read_configuration(source, &read_file)?)),
        None => None,
    };
    if let Some((source, text)) = &file {
        words.extend(from_file(source, text, &typed)?);
        if source.is_of_variable {
            words.push(format!("--config-file={}", source.path).into());
        }
    }
    let has_port = is_given(&matches(&words)?, "port");
    if !has_port && let Some(port) = variable(PORT_VARIABLE) {
        let port = port.to_string_lossy();
        values::port(&port).map_err(|reason| EarlyExit::Error(bad_variable(&port, &reason)))?;
        words.push(format!("--port={port}").into());
    }
    let matches = matches(&words)?;
    let mut parsed =
        Options::from_arg_matches(&matches).map_err(|error| early_exit(&error, &words))?;
    parsed.read_tls_variables(variable);
    if let Some((source, text)) = &file {
        let read = parsed.read_function_tables(&source.path, text);
        read.map_err(|mistake| source.mistake(&mistake))?;
    }
    if let Some(words) = &parsed.access_check {
        return Err(access::check(words, &parsed, read_file));
    }
    if let Some(function) = &parsed.functions_check {
        return Err(functions::check(function, &parsed, read_file));
    }
    let is_port_idle = has_port && parsed.listens_without_port();
    let (ignored, changed) = (options::ignored(&matches), changed::changed(&matches));
    Ok(Options { ignored, changed, is_port_idle, ..parsed })
}

fn matches(words: &[OsString]) -> Result<ArgMatches, EarlyExit> {
    command().try_get_matches_from(words).map_err(|error| early_exit(&error, words))
}

/// Whether the option of this id was given.
fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// Where the configuration file is.
struct ConfigurationSource {
    path: String,
    /// `FILE_VARIABLE` names it, not the command line.
    is_of_variable: bool,
}

impl ConfigurationSource {
    /// A mistake in the file; a file that the command line doesn't name is told to be the
    /// variable's.
    fn mistake(&self, mistake: &str) -> EarlyExit {
        let named_by = match self.is_of_variable {
            true => format!(" ({FILE_VARIABLE} names this file)"),
            false => String::new(),
        };
        EarlyExit::Error(format!("{mistake}{named_by}"))
    }
}

/// The configuration file that the options name, or else the variable; an empty one names none.
fn configuration_source(
    options: &Options,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Option<ConfigurationSource>, EarlyExit> {
    if let Some(path) = options.configuration_path() {
        return Ok(Some(ConfigurationSource { path: path.to_owned(), is_of_variable: false }));
    }
    let Some(path) = variable(FILE_VARIABLE).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let path = path.into_string().map_err(|path| {
        let remedy = "it isn't UTF-8, so name a file with characters of UTF-8";
        EarlyExit::Error(unfit(FILE_VARIABLE, &path.to_string_lossy(), remedy))
    })?;
    Ok(Some(ConfigurationSource { path, is_of_variable: true }))
}

/// The text of the configuration file.
fn read_configuration(
    source: &ConfigurationSource,
    read_file: impl FnOnce(&str) -> std::io::Result<String>,
) -> Result<String, EarlyExit> {
    let path = &source.path;
    read_file(path).map_err(|cause| {
        let remedy = match cause.kind() {
            ErrorKind::PermissionDenied => "let the user that starts the server read it",
            ErrorKind::InvalidData => "save it as UTF-8",
            _ if source.is_of_variable => "name another file, or unset the variable",
            ErrorKind::NotFound => "name another file, or write it with ringgeard --print-config",
            _ => "name another file with --config-file",
        };
        let problem = format!("Could not open configuration file. {path}: {cause}; {remedy}");
        source.mistake(&problem)
    })
}

/// The arguments of the file, which has this text, for options that weren't typed.
fn from_file(
    source: &ConfigurationSource,
    text: &str,
    typed: &ArgMatches,
) -> Result<Vec<OsString>, EarlyExit> {
    let in_file = |mistake: file::Mistake| source.mistake(&format!("{}:{mistake}", source.path));
    let mut words = vec!["ringgeard".into()];
    words.extend(file_arguments(text).map_err(in_file)?);
    let in_file = matches(&words)?;
    let ids = in_file.ids().map(clap::Id::as_str);
    let new = ids.filter(|id| is_given(&in_file, id) && !is_given(typed, id));
    Ok(new.flat_map(|id| as_arguments(&in_file, id)).collect())
}

/// The sentence about a port in the environment.
fn bad_variable(port: &str, reason: &str) -> String {
    if port.contains("://") {
        // As in tcp://10.0.0.1:4730.
        let number = port.rsplit(':').next().filter(|number| number.parse::<u16>().is_ok());
        let number = number.unwrap_or("4730");
        return unfit(
            PORT_VARIABLE,
            port,
            &format!(
                "Kubernetes sets it for a service named gearmand, so give --port {number}, or set \
                 enableServiceLinks: false in the pod"
            ),
        );
    }
    unfit(PORT_VARIABLE, port, &format!("{reason}, or --port"))
}

/// The text to end with after clap's error.
fn early_exit(error: &clap::Error, words: &[OsString]) -> EarlyExit {
    if error.exit_code() == 0 {
        return EarlyExit::Print(error.render().to_string());
    }
    EarlyExit::Error(mistake(&command(), error, words))
}

#[cfg(test)]
mod tests;
