//! Command line and configuration file in, options out, and settings from them.
//!
//! Two steps: `parse` reads the arguments and the file's text, and depends on nothing else;
//! `Options::settings` derives the server's settings from them and from facts about the host. Both
//! get all input as arguments and touch no kernel.
//!
//! Invariant: the command line overrides the file, the file the environment, and that the defaults.

mod file;
mod options;
mod settings;

use std::ffi::OsString;

use clap::FromArgMatches;
use clap::parser::ValueSource;
use thiserror::Error;

use self::file::{as_arguments, default_file, file_arguments};
pub use self::options::Options;
use self::options::{COMMAND_LINE_ONLY, command};
pub use self::settings::{HostInfo, SettingsError, first_sequence};

/// The program ends after parsing.
#[derive(Debug, Error)]
pub enum EarlyExit {
    /// Print this text and exit with 0.
    #[error("{0}")]
    Print(String),
    /// Print this text to standard error and exit with 1.
    #[error("{0}")]
    Error(String),
}

/// Parses a command line; `read_file` returns the text of the configuration file that it names.
///
/// # Errors
/// `EarlyExit` for `--help`, `--version` and the like, and for invalid arguments.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    read_file: impl FnOnce(&str) -> std::io::Result<String>,
) -> Result<Options, EarlyExit> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let matches = command().try_get_matches_from(&arguments).map_err(|error| early_exit(&error))?;
    let options = Options::from_arg_matches(&matches).map_err(|error| early_exit(&error))?;
    if options.print_config {
        return Err(EarlyExit::Print(default_file()));
    }
    if options.version && !options.check_args {
        let version = format!("\nringgeard {}\n", env!("CARGO_PKG_VERSION"));
        return Err(EarlyExit::Print(version));
    }
    let Some(path) = &options.config_file else { return Ok(options) };
    let text = read_file(path).map_err(|cause| {
        EarlyExit::Error(format!("Could not open configuration file. {path}: {cause}"))
    })?;
    let in_file = |problem: String| EarlyExit::Error(format!("{path}: {problem}"));
    let from_file = file_arguments(&text).map_err(in_file)?;
    let file_matches = command()
        .try_get_matches_from(std::iter::once("ringgeard".into()).chain(from_file))
        .map_err(|error| in_file(early_exit(&error).to_string()))?;
    // The command line, followed by the file's options that it doesn't have.
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
    let matches = command().try_get_matches_from(merged).map_err(|error| early_exit(&error))?;
    Options::from_arg_matches(&matches).map_err(|error| early_exit(&error))
}

/// The first line of clap's message, as one sentence.
fn early_exit(error: &clap::Error) -> EarlyExit {
    let text = error.render().to_string();
    if error.exit_code() == 0 {
        return EarlyExit::Print(text);
    }
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    EarlyExit::Error(format!("{line}; see --help"))
}

#[cfg(test)]
mod tests;
