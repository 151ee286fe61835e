//! The command line: arguments and a variable in, options out.
//!
//! Touches no kernel.
//!
//! Invariant: an error is one sentence.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser};
use ringgear::config::mistake;
use ringgear::io::log::{LogFormat, Verbosity};
use thiserror::Error;

/// The variable that names the file unless the command line does.
pub const FILE_VARIABLE: &str = "RINGGEAR_MANAGER_CONFIG_FILE";
/// The variable that names the servers unless the file does.
pub const SERVERS_VARIABLE: &str = "GEARMAN_SERVERS";

/// Runs commands as Gearman workers: starts, counts, limits, drains and restarts them
#[derive(Clone, Debug, Parser)]
#[command(name = "ringgear-manager", version)]
pub struct Options {
    /// What to run: a TOML file. Without it, the file that the variable
    /// RINGGEAR_MANAGER_CONFIG_FILE names
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Check the file, and do nothing else. Looks at no users, folders or programs
    #[arg(long, conflicts_with = "dry_run")]
    pub check: bool,

    /// Print what would run, and do nothing else
    #[arg(long)]
    pub dry_run: bool,

    /// Log more: -v DEBUG, -vv TRACE
    #[arg(short = 'v', action = ArgAction::Count)]
    pub more_verbose: u8,

    /// Form of the log's lines
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Write the manual page and completions to a folder
    #[arg(long, value_name = "DIR", hide = true, exclusive = true)]
    pub generate: Option<PathBuf>,

    /// Be the process that ends the groups of a killed manager
    #[arg(long, hide = true, exclusive = true)]
    pub guard: bool,
}

/// The program ends after its arguments were read.
#[derive(Debug, Error)]
pub enum EarlyExit {
    /// Print this text and exit with 0.
    #[error("{0}")]
    Print(String),
    /// Print this sentence to standard error and exit with 1.
    #[error("{0}")]
    Error(String),
}

impl Options {
    /// Reads a command line, whose first word is the program; `variable` returns an environment
    /// variable.
    ///
    /// # Errors
    /// `EarlyExit` for `--help`, `--version` and mistakes.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EarlyExit> {
        let words: Vec<OsString> = arguments.into_iter().collect();
        let exit = |error: clap::Error| match error.exit_code() {
            0 => EarlyExit::Print(error.render().to_string()),
            _ => EarlyExit::Error(mistake(&Self::command(), &error, &words)),
        };
        let matches = Self::command().try_get_matches_from(&words).map_err(exit)?;
        let mut options = Self::from_arg_matches(&matches).map_err(exit)?;
        if options.config_file.is_none() {
            let named = variable(FILE_VARIABLE).filter(|path| !path.is_empty());
            options.config_file = named.map(PathBuf::from);
        }
        if options.config_file.is_none() && options.generate.is_none() && !options.guard {
            let sentence = "there is nothing to run: name a file with --config-file FILE, or by \
                            the variable RINGGEAR_MANAGER_CONFIG_FILE";
            return Err(EarlyExit::Error(sentence.to_owned()));
        }
        Ok(options)
    }

    /// Least urgent level to log.
    #[must_use]
    pub fn verbosity(&self) -> Verbosity {
        match self.more_verbose {
            0 => Verbosity::Info,
            1 => Verbosity::Debug,
            _ => Verbosity::Trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str, file: Option<&str>) -> Result<Options, String> {
        let words = std::iter::once("ringgear-manager").chain(words.split_ascii_whitespace());
        let variable = |name: &str| file.filter(|_| name == FILE_VARIABLE).map(OsString::from);
        Options::read(words.map(OsString::from), variable).map_err(|exit| match exit {
            EarlyExit::Print(text) => format!("printed: {text}"),
            EarlyExit::Error(sentence) => sentence,
        })
    }

    #[test]
    fn the_command_line_beats_the_variable() {
        let file = |words: &str, file| read(words, file).expect(words).config_file;
        assert_eq!(file("--config-file a", Some("b")), Some("a".into()));
        assert_eq!(file("", Some("b")), Some("b".into()));
        assert_eq!(file("--generate d", None), None);
        let options = read("-vv --check", Some("b")).expect("options");
        assert_eq!((options.check, options.verbosity()), (true, Verbosity::Trace));
        let printed = read("--version", None).expect_err("no options");
        assert_eq!(printed, format!("printed: ringgear-manager {}\n", env!("CARGO_PKG_VERSION")));
        let printed = read("--help", None).expect_err("no options");
        assert!(printed.starts_with("printed: Runs commands as Gearman workers"), "{printed}");
        assert!(!printed.contains("--guard") && !printed.contains("--generate"), "{printed}");
    }

    #[test]
    fn a_mistake_is_one_sentence() {
        let nothing = "there is nothing to run: name a file with --config-file FILE, or by the \
                       variable RINGGEAR_MANAGER_CONFIG_FILE";
        for (words, expected) in [
            ("", nothing),
            ("--chekc", "there is no option --chekc: did you mean --check?"),
            ("--wat", "there is no option --wat: ringgear-manager --help lists all options"),
            ("-check", "there is no option -check: write --check, with two dashes"),
            ("check", "\"check\" has no dashes: write --check"),
            (
                "m.toml",
                "\"m.toml\" is no option: options begin with dashes, and ringgear-manager --help \
                 lists them",
            ),
            ("--config-file", "--config-file needs a value: write --config-file FILE"),
            ("--log-format xml", "--log-format can't be \"xml\": give text or json"),
        ] {
            assert_eq!(read(words, None).expect_err(words), expected, "{words}");
        }
        assert_eq!(read("", Some("")).expect_err("an empty variable"), nothing);
        let both = read("--check --dry-run", Some("b")).expect_err("both");
        assert_eq!(both.lines().count(), 1, "{both}");
    }
}
