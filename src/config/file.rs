//! The configuration file: its text in, command-line arguments out, and the default file.
//!
//! A file is TOML with the options' long names as keys, or gearmand's own format: arguments between
//! blanks. Knows the options by clap's description of them only.
//!
//! Invariant: the default file changes nothing, and names every option that a file may have.

use std::ffi::OsString;

use clap::{ArgAction, ArgMatches, CommandFactory};

use super::options::{COMMAND_LINE_ONLY, Options, command};

/// A configuration file as command-line arguments. A file that begins with a dash is in gearmand's
/// format, any other one is TOML.
pub(super) fn file_arguments(text: &str) -> Result<Vec<OsString>, String> {
    if text.trim_start().starts_with('-') {
        return Ok(text.split_ascii_whitespace().map(OsString::from).collect());
    }
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        error.to_string().lines().collect::<Vec<_>>().join(" ")
    })?;
    let mut arguments = Vec::new();
    for (key, value) in table {
        let values = match value {
            toml::Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            let value = match value {
                toml::Value::Boolean(false) => continue,
                toml::Value::Boolean(true) => None,
                toml::Value::String(text) => Some(text),
                toml::Value::Integer(number) => Some(number.to_string()),
                other => return Err(format!("{key} can't be a {}", other.type_str())),
            };
            arguments.push(match value {
                None => format!("--{key}").into(),
                Some(value) => format!("--{key}={value}").into(),
            });
        }
    }
    Ok(arguments)
}

/// An option of the file as command-line arguments.
pub(super) fn as_arguments(matches: &ArgMatches, id: &str) -> Vec<OsString> {
    let command = command();
    let Some(argument) = command.get_arguments().find(|argument| argument.get_id() == id) else {
        return Vec::new();
    };
    let name = match argument.get_long() {
        Some(long) => format!("--{long}"),
        None => format!("-{}", argument.get_short().unwrap_or('?')),
    };
    match argument.get_action() {
        ArgAction::Count => vec![name.into(); usize::from(matches.get_count(id))],
        action if action.takes_values() => {
            let values = matches.get_raw(id).into_iter().flatten();
            let joined = |value: &std::ffi::OsStr| {
                let mut argument = OsString::from(format!("{name}="));
                argument.push(value);
                argument
            };
            values.map(joined).collect()
        }
        _ => vec![name.into()],
    }
}

/// A file with the help and the default of every option.
pub(super) fn default_file() -> String {
    let mut file = String::from(
        "# Configuration of ringgeard. Every line that begins with a word is a default.\n",
    );
    for argument in Options::command().get_arguments() {
        let Some(long) = argument.get_long() else { continue };
        if argument.is_hide_set() || COMMAND_LINE_ONLY.contains(&long) {
            continue;
        }
        file.push('\n');
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        for line in help.lines() {
            file.push_str(&format!("# {line}\n"));
        }
        let default = argument.get_default_values().first().and_then(|value| value.to_str());
        let line = match default {
            _ if !argument.get_action().takes_values() => format!("{long} = false\n"),
            None => {
                let value = argument.get_value_names().and_then(|names| names.first());
                format!("# {long} = {}\n", value.map_or("", |name| name.as_str()))
            }
            Some(text) if text.parse::<i64>().is_ok() => format!("{long} = {text}\n"),
            Some(text) => format!("{long} = {}\n", toml::Value::from(text)),
        };
        file.push_str(&line);
    }
    file
}
