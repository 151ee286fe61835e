//! What is wrong with an argument: clap's error in, a sentence with cause and remedy out.
//!
//! The same mistake can be made on the command line and in a file, so the caller tells how options
//! are written there. Knows a program and its options by clap's description of them only.
//!
//! Invariant: a sentence is a line, and contains no password.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use super::options::command;
use super::values::{shown, similar, without_password};

/// How an option is written where the mistake was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// `--port`.
    Dashes,
    /// `port`, a key of a TOML file.
    Key,
}

impl Spelling {
    fn of(self, long: &str) -> String {
        match self {
            Self::Dashes => format!("--{long}"),
            Self::Key => long.to_owned(),
        }
    }
}

/// The sentence about clap's error in these words of a command line, the first of which is the
/// program.
#[must_use]
pub fn mistake(program: &Command, error: &clap::Error, words: &[OsString]) -> String {
    let dashes = single_dash(program, words.iter().skip(1).filter_map(|word| word.to_str()));
    dashes.unwrap_or_else(|| sentence(program, error, Spelling::Dashes))
}

/// The sentence about clap's error.
pub(super) fn sentence(program: &Command, error: &clap::Error, spelling: Spelling) -> String {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    // As in "--port <PORT>".
    let argument = word(ContextKind::InvalidArg).unwrap_or_default();
    let first = argument.split([' ', '=']).next().unwrap_or_default();
    let option = match first.strip_prefix("--") {
        Some(long) => spelling.of(long),
        None => first.to_owned(),
    };
    let value = word(ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            unknown(program, first, word(ContextKind::SuggestedArg).as_deref(), spelling)
        }
        ErrorKind::UnknownArgument => stray(program, &argument),
        ErrorKind::ValueValidation if !argument.starts_with('-') => stray(program, &value),
        ErrorKind::ArgumentConflict => format!("{option} is given twice: leave one of them out"),
        ErrorKind::TooManyValues => format!("{option} takes no value: leave \"{value}\" out"),
        ErrorKind::InvalidValue if value.is_empty() && is_missing(error) => missing(&argument),
        ErrorKind::InvalidValue => {
            let all = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(texts)) => texts.as_slice(),
                _ => &[],
            };
            not_among(&option, &value, all)
        }
        ErrorKind::ValueValidation => {
            let reason = std::error::Error::source(error).map(ToString::to_string);
            unfit(&option, &value, &reason.unwrap_or_default())
        }
        ErrorKind::InvalidUtf8 => {
            "an argument isn't UTF-8: write it with characters of UTF-8".to_owned()
        }
        _ => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            format!("{}; see --help", line.strip_prefix("error: ").unwrap_or(line))
        }
    }
}

/// A value that an option can't have; `reason` says what to give.
pub(super) fn unfit(option: &str, value: &str, reason: &str) -> String {
    format!("{option} can't be \"{}\": {reason}", without_password(value))
}

/// A word with a single dash that is an option with two, as in "-port".
pub(super) fn single_dash<'a>(
    program: &Command,
    words: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    words.into_iter().find_map(|word| {
        let name = word.strip_prefix('-')?.split('=').next()?;
        let is_long = name.len() > 1 && option_of(program, name).is_some();
        is_long.then(|| format!("there is no option -{name}: write --{name}, with two dashes"))
    })
}

/// The option of `ringgeard` of this long name.
pub(super) fn option(long: &str) -> Option<Arg> {
    option_of(&command(), long).cloned()
}

fn option_of<'p>(program: &'p Command, long: &str) -> Option<&'p Arg> {
    program.get_arguments().find(|argument| argument.get_long() == Some(long))
}

/// The long name that was meant by `name`: the same but for underscores and upper case, its letter,
/// or a similar one.
pub(super) fn meant(program: &Command, name: &str) -> Option<String> {
    let plain = name.trim_matches('-').replace('_', "-").to_ascii_lowercase();
    let visible = || program.get_arguments().filter(|argument| argument.get_long().is_some());
    let long = |argument: &Arg| argument.get_long().map(str::to_owned);
    if let [letter] = name.trim_matches('-').chars().collect::<Vec<_>>()[..] {
        return visible().find(|argument| argument.get_short() == Some(letter)).and_then(long);
    }
    similar(&plain, visible().filter(|argument| !argument.is_hide_set()).filter_map(Arg::get_long))
        .map(str::to_owned)
}

fn unknown(
    program: &Command,
    argument: &str,
    suggested: Option<&str>,
    spelling: Spelling,
) -> String {
    let kind = if spelling == Spelling::Key { "key" } else { "option" };
    let name = argument.trim_start_matches('-');
    let written = if spelling == Spelling::Key { name } else { argument };
    let suggested = suggested.map(|suggested| suggested.trim_start_matches('-').to_owned());
    let meant = if argument.starts_with("--") { meant(program, name).or(suggested) } else { None };
    match meant {
        Some(long) => format!("there is no {kind} {written}: did you mean {}?", spelling.of(&long)),
        None => format!("there is no {kind} {written}: {program} --help lists all options"),
    }
}

fn stray(program: &Command, word: &str) -> String {
    let takes_at_file = program.get_arguments().any(|argument| argument.get_id() == "at_file");
    if takes_at_file && word.len() > 1 && word.starts_with('@') {
        return "a second file is named with @: leave one of them out".to_owned();
    }
    let (name, value) = word.split_once('=').map_or((word, None), |(name, v)| (name, Some(v)));
    let written = without_password(word);
    match (option_of(program, &name.replace('_', "-")), value) {
        (Some(argument), Some(value)) if argument.get_action().takes_values() => {
            let long = argument.get_long().unwrap_or_default();
            format!("\"{written}\" has no dashes: write --{long}={}", shown(long, value))
        }
        (Some(argument), None) => {
            let long = argument.get_long().unwrap_or_default();
            format!("\"{written}\" has no dashes: write --{long}")
        }
        _ => format!(
            "\"{written}\" is no option: options begin with dashes, and {program} --help lists them"
        ),
    }
}

/// Whether clap misses a value, rather than refusing the empty one.
fn is_missing(error: &clap::Error) -> bool {
    !matches!(error.get(ContextKind::ValidValue), Some(ContextValue::Strings(texts))
        if !texts.is_empty())
}

fn missing(argument: &str) -> String {
    let mut words = argument.split(' ');
    let (option, name) = (words.next().unwrap_or_default(), words.next().unwrap_or("<VALUE>"));
    let name = name.trim_start_matches('<').trim_end_matches('>');
    format!("{option} needs a value: write {option} {name}")
}

fn not_among(option: &str, value: &str, all: &[String]) -> String {
    let meant = similar(value, all.iter().map(String::as_str));
    let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
    let list = match all {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        all => all.join(", "),
    };
    unfit(option, value, &format!("give {list}{meant}"))
}
