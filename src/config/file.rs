//! The configuration file: its text in, command-line arguments out, or the place of a mistake.
//!
//! A file is TOML with the options' long names as keys, and perhaps tables of functions behind
//! them, which `functions` reads; or it is in gearmand's own format: arguments between blanks.
//! Knows the options by clap's description of them only.
//!
//! Invariant: the arguments of a file that is accepted are a valid command line; the default file
//! changes nothing, and names every option that a file may have.

use std::ffi::OsString;
use std::fmt;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory};
use toml::de::{DeTable, DeValue};

use super::functions::tables::{SCHEDULES, TABLES};
use super::mistakes::{Spelling, meant, option as option_named, sentence, single_dash};
use super::options::{COMMAND_LINE_ONLY, Options, command};
use super::values::shown;
use crate::protocol::toml_tables::nearest;

/// Some editors begin a file with it.
const BYTE_ORDER_MARK: char = '\u{feff}';
/// The option whose numbers are octal.
const OCTAL: &str = "unix-mode";

/// A mistake in a file.
#[derive(Debug)]
pub(super) struct Mistake {
    /// Line and column, from 1 on.
    place: (usize, usize),
    sentence: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.place;
        write!(f, "{line}:{column}: {}", self.sentence)
    }
}

/// A file's text.
#[derive(Clone, Copy)]
struct File<'a>(&'a str);

impl File<'_> {
    /// The mistake at a byte of the text.
    fn mistake(self, at: usize, sentence: String) -> Mistake {
        let before = self.0.get(..at).unwrap_or(self.0);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[line_start..].chars().count() + 1;
        Mistake { place: (before.matches('\n').count() + 1, column), sentence }
    }
}

/// A configuration file as command-line arguments. A file whose first line begins with a dash is in
/// gearmand's format, any other one is TOML; lines that begin with `#` are comments in both.
pub(super) fn file_arguments(text: &str) -> Result<Vec<OsString>, Mistake> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if is_in_gearmands_format(text) { words(File(text)) } else { toml(File(text)) }
}

/// Whether a file's first line begins with a dash.
pub(super) fn is_in_gearmands_format(text: &str) -> bool {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut lines = text.lines().map(str::trim_start);
    let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| line.starts_with('-'))
}

/// Arguments in gearmand's format.
fn words(file: File<'_>) -> Result<Vec<OsString>, Mistake> {
    let mut words: Vec<(usize, &str)> = Vec::new();
    let mut line_start = 0;
    for line in file.0.split_inclusive('\n') {
        if !line.trim_start().starts_with('#') {
            let mut from = 0;
            for word in line.split_ascii_whitespace() {
                let at = from + line[from..].find(word).unwrap_or(0);
                words.push((line_start + at, word));
                from = at + word.len();
            }
        }
        line_start += line.len();
    }
    let check = |words: &[(usize, &str)]| {
        check_arguments(words.iter().map(|&(_, word)| word.to_owned()), Spelling::Dashes)
    };
    let Err(sentence) = check(&words) else {
        return Ok(words.into_iter().map(|(_, word)| word.into()).collect());
    };
    // The first word that leads to the mistake.
    let is_cause = |&count: &usize| check(&words[..count]).is_err_and(|other| other == sentence);
    let count = (1..=words.len()).find(is_cause).unwrap_or(words.len());
    let (at, _) = words[count - 1];
    let dashes = single_dash(&command(), words.iter().map(|&(_, word)| word));
    Err(file.mistake(at, dashes.unwrap_or(sentence)))
}

/// Whether these arguments may be in a file.
fn check_arguments(
    arguments: impl Iterator<Item = String>,
    spelling: Spelling,
) -> Result<(), String> {
    let words = std::iter::once("ringgeard".to_owned()).chain(arguments);
    let matches = match command().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) if error.exit_code() == 0 => return Err(command_line_only("--help")),
        Err(error) => return Err(sentence(&command(), &error, spelling)),
    };
    let is_given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let mut ids = matches.ids().map(clap::Id::as_str).filter(|id| is_given(id));
    let refused = ids.find(|id| COMMAND_LINE_ONLY.contains(&id.replace('_', "-").as_str()));
    match refused {
        None => Ok(()),
        Some("at_file") => Err(command_line_only("@FILE")),
        Some(id) => Err(command_line_only(&format!("--{}", id.replace('_', "-")))),
    }
}

fn command_line_only(option: &str) -> String {
    format!("{option} can't stand in a file: give it on the command line")
}

/// The keys and values of a TOML file as arguments.
fn toml(file: File<'_>) -> Result<Vec<OsString>, Mistake> {
    let table = DeTable::parse(file.0).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        file.mistake(line_start(file.0, at), not_toml(file.0, at, error.message()))
    })?;
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_unstable_by_key(|(key, _)| key.span().start);
    let mut arguments = Vec::new();
    for (key, value) in entries {
        let (name, at) = (key.get_ref().as_ref(), key.span().start);
        if [TABLES, SCHEDULES].contains(&name) {
            // `functions` reads them.
            continue;
        }
        let Some(option) = option_named(name) else {
            // `--port=4731` is TOML, too.
            let sentence = match name.starts_with('-') {
                true => not_toml(file.0, at, ""),
                false => unknown_key(name, value.get_ref()),
            };
            return Err(file.mistake(at, sentence));
        };
        if COMMAND_LINE_ONLY.contains(&name) {
            return Err(file.mistake(at, command_line_only(&format!("--{name}"))));
        }
        let of_key = entry(&option, name, value.get_ref())
            .and_then(|words| check_arguments(words.iter().cloned(), Spelling::Key).map(|()| words))
            .map_err(|sentence| file.mistake(value.span().start, sentence))?;
        arguments.extend(of_key.into_iter().map(OsString::from));
    }
    Ok(arguments)
}

/// A key and its value as arguments.
fn entry(option: &Arg, name: &str, value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let has_value = option.get_action().takes_values();
    let is_list = matches!(option.get_action(), ArgAction::Append);
    match value {
        DeValue::Boolean(true) if !has_value => Ok(vec![format!("--{name}")]),
        DeValue::Boolean(false) if !has_value => Ok(Vec::new()),
        _ if !has_value => Err(format!("{name} is a switch: write {name} = true")),
        DeValue::Array(values) if is_list => {
            let single = values.iter().map(|value| entry(option, name, value.get_ref()));
            Ok(single.collect::<Result<Vec<_>, _>>()?.concat())
        }
        DeValue::Array(_) => Err(format!("{name} has one value: write it without brackets")),
        DeValue::String(text) => Ok(vec![format!("--{name}={text}")]),
        DeValue::Integer(number) => {
            let value = i64::from_str_radix(number.as_str(), number.radix());
            let text = match value {
                _ if name == OCTAL && !matches!(number.radix(), 8 | 10) => {
                    return Err(format!("{name} is octal: write {name} = \"0660\""));
                }
                Ok(value) if name != OCTAL => value.to_string(),
                _ => number.as_str().to_owned(),
            };
            Ok(vec![format!("--{name}={text}")])
        }
        other => Err(format!(
            "{name} can't be a {}: write a number or a text in quotes",
            other.type_str()
        )),
    }
}

fn unknown_key(name: &str, value: &DeValue<'_>) -> String {
    let is_table = match value {
        DeValue::Table(_) => true,
        DeValue::Array(values) => values.iter().any(|value| value.get_ref().is_table()),
        _ => false,
    };
    if is_table {
        return match nearest(name, &[TABLES]) {
            Some(meant) => format!("there is no table {name}: did you mean [[{meant}]]?"),
            None => {
                format!("keys stand at the top level, so there is no table [{name}]: leave it out")
            }
        };
    }
    match meant(&command(), name) {
        Some(long) => format!("there is no key {name}: did you mean {long}?"),
        None => format!("there is no key {name}: ringgeard --print-config prints all"),
    }
}

/// The first byte of a line that isn't a blank.
fn line_start(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = &text[start..];
    start + (line.len() - line.trim_start_matches([' ', '\t']).len())
}

/// The sentence about a line that isn't TOML: how to write it, if it can be guessed.
fn not_toml(text: &str, at: usize, message: &str) -> String {
    let line = text[line_start(text, at)..].lines().next().unwrap_or_default().trim_end();
    let is_of_gearmand = line.starts_with('-');
    let (name, value) = match line.trim_start_matches('-').split_once(['=', ' ', '\t']) {
        Some((name, value)) => (name.trim(), value.trim_start_matches(['=', ' ', '\t'])),
        None => (line.trim_start_matches('-'), ""),
    };
    let Some(option) = option_named(&name.replace('_', "-")) else {
        let message = message.lines().collect::<Vec<_>>().join(", ");
        return format!("this line isn't TOML ({message}): ringgeard --print-config prints a file");
    };
    let name = option.get_long().unwrap_or_default();
    if message.contains("duplicate") {
        return format!("{name} is given twice: leave one of them out");
    }
    let value = value.split(" #").next().unwrap_or_default().trim_matches('"');
    let value = &shown(name, value);
    let takes_value = option.get_action().takes_values();
    let toml = match value.as_str() {
        _ if !takes_value => format!("{name} = true"),
        value if value.parse::<i64>().is_ok() => format!("{name} = {value}"),
        value => format!("{name} = \"{value}\""),
    };
    let is_option = |word: &str| {
        let name = word.split('=').next().unwrap_or_default().trim_start_matches('-');
        word.contains('=') && option_named(name).is_some()
    };
    if value.split_whitespace().any(is_option) {
        return format!("this line isn't TOML: give {name} and every other key a line of its own");
    }
    if is_of_gearmand {
        return format!(
            "this line is in gearmand's format, and the first is TOML: write {toml}, or all lines \
             with dashes"
        );
    }
    if value.contains(' ') {
        // gearmand's format has no quotes.
        return format!("this line isn't TOML: write {toml}");
    }
    let words = if takes_value { format!("--{name}={value}") } else { format!("--{name}") };
    format!(
        "this line isn't TOML: write {toml}, or all lines in gearmand's format, this one {words}"
    )
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
        let help = argument.get_long_help().or_else(|| argument.get_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        for line in help.lines().filter(|line| !line.is_empty()) {
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
