//! The policies of functions as the configuration names them: a file's text in, the policies or one
//! sentence out, and the answer of `--functions-check`.
//!
//! They are in a file of their own, or in the configuration file. Knows what the rest of the
//! configuration allows them to say.
//!
//! Invariant: a sentence names the file, the line and the remedy.

mod hidden;
pub(super) mod loaded;
pub(super) mod tables;

use std::io::{Error, ErrorKind};

pub use self::loaded::FunctionsFile;
pub use self::tables::{Conditions, Tables, parse, parse_configuration};
use super::file::is_in_gearmands_format;
use super::mistakes::option as option_named;
use super::{EarlyExit, Options};
use crate::engine::policy::{Backoff, Retries};
use crate::protocol::duration;
use crate::protocol::toml_tables::{FILE_BYTES_MAX, quoted};

/// Reads the tables of the configuration file at `path`, which has this text.
fn of_configuration(
    path: &str,
    text: &str,
    conditions: Conditions,
) -> Result<FunctionsFile, String> {
    if is_in_gearmands_format(text) {
        return Ok(FunctionsFile::default());
    }
    let is_option = |name: &str| option_named(name).is_some();
    let tables = parse_configuration(text, conditions, &is_option);
    let tables = tables.map_err(|mistake| format!("{path}:{mistake}"))?;
    Ok(FunctionsFile::new(path, tables))
}

impl Options {
    fn function_conditions(&self) -> Conditions {
        // Options that contradict each other are told by `check`.
        Conditions { has_store: !matches!(self.store_choice(), Ok(None)) }
    }

    /// Reads the tables of the configuration file at `path`, whose text is given.
    pub(super) fn read_function_tables(&mut self, path: &str, text: &str) -> Result<(), String> {
        let tables = of_configuration(path, text, self.function_conditions())?;
        self.check_single(&tables)?;
        if !tables.is_empty() {
            self.function_tables = tables;
        }
        Ok(())
    }

    /// Refuses tables in the configuration file beside a functions file.
    fn check_single(&self, tables: &FunctionsFile) -> Result<(), String> {
        match &self.functions_file {
            Some(file) if !tables.is_empty() => Err(format!(
                "{}: functions are here and in --functions-file {file}: leave one of them out",
                tables.place(0)
            )),
            _ => Ok(()),
        }
    }

    /// The policies at the start; none if no file has any.
    ///
    /// # Errors
    /// What is wrong with the file, in one sentence.
    pub fn read_functions(
        &self,
        read_file: impl Fn(&str) -> std::io::Result<String>,
    ) -> Result<FunctionsFile, String> {
        match &self.functions_file {
            Some(path) => self.read_functions_file(path, read_file),
            None => Ok(self.function_tables.clone()),
        }
    }

    /// The policies as the files have them now; `None` if no option names a file.
    ///
    /// # Errors
    /// What is wrong with the file, in one sentence.
    pub fn reread_functions(
        &self,
        read_file: impl Fn(&str) -> std::io::Result<String>,
    ) -> Result<Option<FunctionsFile>, String> {
        let configuration = || -> Result<Option<FunctionsFile>, String> {
            let Some(path) = self.configuration_path() else { return Ok(None) };
            let text = read_file(path).map_err(|cause| {
                let remedy = remedy(cause.kind(), "--config-file");
                format!("cannot read the functions in {path}: {cause}; {remedy}")
            })?;
            of_configuration(path, &text, self.function_conditions()).map(Some)
        };
        let Some(path) = &self.functions_file else { return configuration() };
        let file = self.read_functions_file(path, &read_file)?;
        // Of no matter as long as it has no tables.
        if let Ok(Some(tables)) = configuration() {
            self.check_single(&tables)?;
        }
        Ok(Some(file))
    }

    fn read_functions_file(
        &self,
        path: &str,
        read_file: impl Fn(&str) -> std::io::Result<String>,
    ) -> Result<FunctionsFile, String> {
        let text = read_file(path).map_err(|cause| unreadable(path, &cause))?;
        let tables = parse(&text, self.function_conditions());
        let tables = tables.map_err(|mistake| format!("{path}:{mistake}"))?;
        Ok(FunctionsFile::new(path, tables))
    }
}

fn unreadable(path: &str, cause: &Error) -> String {
    if cause.kind() == ErrorKind::FileTooLarge {
        let problem = format!("the functions file is larger than {FILE_BYTES_MAX} bytes");
        return format!("{path}:1: {problem}: shorten it");
    }
    let remedy = remedy(cause.kind(), "--functions-file");
    format!("cannot read the functions file {path}: {cause}; {remedy}")
}

fn remedy(kind: ErrorKind, option: &str) -> String {
    match kind {
        ErrorKind::PermissionDenied => "let the user that the server runs as read it".to_owned(),
        ErrorKind::InvalidData => "save it as UTF-8".to_owned(),
        _ => format!("name another file with {option}"),
    }
}

/// The answer to `--functions-check`.
pub(super) fn check(
    function: &str,
    options: &Options,
    read_file: impl Fn(&str) -> std::io::Result<String>,
) -> EarlyExit {
    match options.read_functions(read_file) {
        Ok(file) => EarlyExit::Print(answer(function, &file)),
        Err(problem) => EarlyExit::Error(problem),
    }
}

/// The match that applies to a function, and the delays of its jobs.
fn answer(function: &str, file: &FunctionsFile) -> String {
    let Some(position) = file.policies().position(function.as_bytes()) else {
        let reason = match file.is_empty() {
            true => "there are no policies: name a file with --functions-file".to_owned(),
            false => format!("{} has no match for it", file.path()),
        };
        return format!("{}: no policy, as {reason}\n", quoted(function));
    };
    let policy = &file.policies().0[position];
    let pattern = policy.patterns.iter().find(|pattern| pattern.matches(function.as_bytes()));
    let pattern = pattern.map(ToString::to_string).unwrap_or_default();
    let mut text = format!("match {}\t{}\n", quoted(&pattern), file.place(position));
    if let Some(retries) = &policy.retries {
        text.push_str(&delays(retries));
    }
    text
}

/// A line for each run after the first, up to that from which on nothing changes.
fn delays(Retries { attempts, backoff, .. }: &Retries) -> String {
    let mut text = String::new();
    let range = |failures| {
        let [low, high] = [backoff.shortest_ms(failures), backoff.longest_ms(failures)];
        format!("{}\t{}\n", duration::text(low), duration::text(high))
    };
    let last = if *attempts > 0 { *attempts } else { u16::MAX };
    for attempt in 2..=last {
        let failures = attempt - 1;
        text.push_str(&format!("attempt {attempt}\t{}", range(failures)));
        if *attempts == 0 && has_stopped_growing(backoff, failures) {
            break;
        }
    }
    if *attempts == 0 {
        text.push_str(&format!("every further attempt\t{}", range(u16::MAX)));
    }
    text
}

fn has_stopped_growing(backoff: &Backoff, failures: u16) -> bool {
    backoff.factor <= 1.0 || backoff.longest_ms(failures) == backoff.longest_ms(u16::MAX)
}

#[cfg(test)]
mod tests;
