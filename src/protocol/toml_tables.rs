//! TOML tables with the places of their keys: a text and a reader in, what the reader returns or
//! the line of a mistake out.
//!
//! Has what readers of several files need: entries in the order of the file, keys and words that
//! were misspelt, lists. Knows no keys, no files and no options.
//!
//! Invariant: a sentence is a line.

use std::fmt;

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

/// Largest file, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1 on.
    pub line: usize,
    /// What is wrong and how to mend it, in one sentence.
    pub sentence: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.sentence)
    }
}

/// A mistake at a byte of the text.
pub type Misplaced = (usize, String);

/// A key of a table, and where it is.
pub type Key<'i> = Spanned<DeString<'i>>;
/// A value of a table, and where it is.
pub type Value<'i> = Spanned<DeValue<'i>>;

/// Passes the top level of a file, which is called `noun` in sentences, to a reader.
///
/// # Errors
/// The first mistake.
pub fn read<T>(
    text: &str,
    noun: &str,
    reader: impl FnOnce(&DeTable<'_>) -> Result<T, Misplaced>,
) -> Result<T, Mistake> {
    let read = || {
        if text.len() > FILE_BYTES_MAX {
            let sentence = format!("the {noun} is larger than {FILE_BYTES_MAX} bytes: shorten it");
            return Err((0, sentence));
        }
        let table = DeTable::parse(text).map_err(|error| {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            let sentence = format!("this isn't TOML: {message}");
            (error.span().map_or(0, |span| span.start), sentence)
        })?;
        reader(table.get_ref())
    };
    read().map_err(|(at, sentence)| Mistake { line: line(text, at), sentence })
}

/// The line of a byte of the text, from 1 on.
pub fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// The entries of a table in the order of the file, so that the first mistake is found first.
pub fn sorted<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Key<'i>, &'t Value<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| key.span().start);
    entries
}

/// Refuses a key that isn't one of `keys`.
pub fn known(key: &Key<'_>, of: &str, keys: &[&str]) -> Result<(), Misplaced> {
    let name = key.get_ref().as_ref();
    if keys.contains(&name) {
        return Ok(());
    }
    let all = keys.join(", ");
    let remedy = match nearest(name, keys) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("{of} has {all}"),
    };
    Err((key.span().start, format!("unknown key {}: {remedy}", quoted(name))))
}

/// The name that a misspelt one stands for.
pub fn nearest<'n>(name: &str, names: &[&'n str]) -> Option<&'n str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let close = |&&known: &&&str| strsim::damerau_levenshtein(&name, known) <= 2;
    let mut close: Vec<&&str> = names.iter().filter(close).collect();
    close.sort_by_key(|&&known| strsim::damerau_levenshtein(&name, known));
    close.first().map(|&&known| known)
}

/// A word of the file in quotes, on one line.
pub fn quoted(word: &str) -> String {
    format!("\"{}\"", word.escape_debug())
}

/// The values of a list, which isn't empty.
pub fn list<'v, 'i>(
    name: &str,
    value: &'v Value<'i>,
    example: &str,
) -> Result<&'v DeArray<'i>, Misplaced> {
    let at = value.span().start;
    match value.get_ref() {
        DeValue::Array(values) if values.is_empty() => {
            Err((at, format!("{name} has no value: write {name} = {example}, or leave it out")))
        }
        DeValue::Array(values) => Ok(values),
        _ => Err((at, format!("{name} is a list: write {name} = {example}"))),
    }
}

/// The text of a value.
pub fn text<'v>(name: &str, value: &'v Value<'_>) -> Result<&'v str, Misplaced> {
    value
        .get_ref()
        .as_str()
        .ok_or_else(|| (value.span().start, format!("write each value of {name} in quotes")))
}
