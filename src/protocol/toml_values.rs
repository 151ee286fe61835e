//! Values of TOML tables: a key's name and its value in, a number, word or duration out, or what is
//! wrong with it and where.
//!
//! Knows no keys: their names are for the sentences.
//!
//! Invariant: a sentence names the key and says what may be written.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::de::DeValue;

use super::toml_tables::{Misplaced, Value, nearest, quoted};
use super::{duration, size};

/// A value that a key can't have; `reason` says what to write.
#[must_use]
pub fn unfit(name: &str, value: &Value<'_>, reason: &str) -> Misplaced {
    let shown = match value.get_ref() {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number.as_str().to_owned(),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    (value.span().start, format!("{name} can't be {shown}: {reason}"))
}

/// `true` or `false`.
///
/// # Errors
/// If the value is anything else: a sentence.
pub fn switch(name: &str, value: &Value<'_>) -> Result<bool, Misplaced> {
    value.get_ref().as_bool().ok_or_else(|| unfit(name, value, "write true or false"))
}

/// One of the words.
///
/// # Errors
/// If the value is anything else: a sentence.
pub fn word<'v>(name: &str, value: &'v Value<'_>, words: &[&str]) -> Result<&'v str, Misplaced> {
    let text = value.get_ref().as_str();
    if let Some(text) = text.filter(|text| words.contains(text)) {
        return Ok(text);
    }
    let all: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    let all = match &all[..] {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        all => all.join(", "),
    };
    let meant = text.and_then(|text| nearest(text, words));
    let meant = meant.map(|meant| format!("; did you mean \"{meant}\"?")).unwrap_or_default();
    Err(unfit(name, value, &format!("write {all}{meant}")))
}

/// The whole number of a value.
fn integer(value: &Value<'_>) -> Option<i64> {
    let number = value.get_ref().as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A whole number of a range; `more` ends the sentence about it.
///
/// # Errors
/// If the value is anything else: a sentence.
pub fn number<T: TryFrom<i64> + Copy + PartialOrd + Display>(
    name: &str,
    value: &Value<'_>,
    range: RangeInclusive<T>,
    more: &str,
) -> Result<T, Misplaced> {
    let number = integer(value).and_then(|number| T::try_from(number).ok());
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        let (low, high) = (range.start(), range.end());
        unfit(name, value, &format!("write a whole number from {low} to {high}{more}"))
    })
}

/// A number of a range.
///
/// # Errors
/// If the value is anything else: a sentence.
pub fn fraction(name: &str, value: &Value<'_>, low: f64, high: f64) -> Result<f64, Misplaced> {
    let number = match value.get_ref() {
        DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
        _ => integer(value).and_then(|number| i32::try_from(number).ok()).map(f64::from),
    };
    // None for "nan", too.
    let number = number.filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| unfit(name, value, &format!("write a number from {low} to {high}")))
}

/// A duration of at most `ms_max`, in milliseconds.
///
/// # Errors
/// If the value is anything else: a sentence.
pub fn milliseconds(name: &str, value: &Value<'_>, ms_max: u64) -> Result<u64, Misplaced> {
    let ms = match value.get_ref() {
        DeValue::String(text) => {
            duration::parse(text).map_err(|reason| unfit(name, value, &reason))?
        }
        DeValue::Integer(number) => {
            let reason = format!("give it a unit and quotes, as in \"{}s\"", number.as_str());
            return Err(unfit(name, value, &reason));
        }
        _ => return Err(unfit(name, value, "write a number with a unit in quotes, as in \"90s\"")),
    };
    if ms > ms_max {
        let reason = format!("give at most \"{}\"", duration::text(ms_max));
        return Err(unfit(name, value, &reason));
    }
    Ok(ms)
}

/// A duration of at most `ms_max` that isn't 0, in milliseconds.
///
/// # Errors
/// If the value is anything else: a sentence.
pub fn limit(name: &str, value: &Value<'_>, ms_max: u64) -> Result<u64, Misplaced> {
    match milliseconds(name, value, ms_max)? {
        0 => Err(unfit(name, value, "give at least \"1ms\", or leave it out for no limit")),
        ms => Ok(ms),
    }
}

/// A number of bytes of at least `least`.
///
/// # Errors
/// If the value is anything else: a sentence.
pub fn bytes(name: &str, value: &Value<'_>, least: u64) -> Result<u64, Misplaced> {
    let bytes = match value.get_ref() {
        DeValue::String(text) => size::parse(text).map_err(|reason| unfit(name, value, &reason))?,
        _ => {
            let number = integer(value).and_then(|number| u64::try_from(number).ok());
            let reason = "write a number of bytes, or a size in quotes, as in \"512M\"";
            number.ok_or_else(|| unfit(name, value, reason))?
        }
    };
    if bytes < least {
        return Err(unfit(name, value, &format!("give at least \"{}\"", size::text(least))));
    }
    Ok(bytes)
}
