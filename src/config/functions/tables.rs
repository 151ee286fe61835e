//! The tables of functions: a text in, the policies or the place of a mistake out.
//!
//! TOML with a table `[[function]]` for each policy. A mistake names its line, and what was meant.
//! Knows no files and no options.
//!
//! Invariant: a text with anything that it doesn't understand gives no policies; what a table says
//! without effect has a remark.

use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::hidden::Seen;
use crate::engine::function::Durability;
use crate::engine::glob::Glob;
use crate::engine::policy::{Backoff, Expiry, Policies, Policy, Retries};
use crate::engine::reason::Reason;
use crate::protocol::duration;
use crate::protocol::toml_tables::{
    self, Key, Misplaced, Mistake, Value, known, line, list, quoted, sorted,
};
use crate::protocol::toml_values::{fraction, limit, milliseconds, number, switch, unfit, word};

/// The name of the tables.
pub(in crate::config) const TABLES: &str = "function";
/// The name of tables that other versions have.
pub(in crate::config) const SCHEDULES: &str = "schedule";
/// Most patterns of a file, of all its tables together.
const PATTERNS_MAX: usize = 4096;
/// Longest timeout of jobs, in milliseconds: 49 days.
const TIMEOUT_MS_MAX: u64 = 49 * 86_400_000;

/// Keys of a table.
pub(super) const KEYS: [&str; 13] = [
    "match",
    "attempts",
    "retry",
    "backoff",
    "foreground",
    "dead",
    "expire",
    "expire-to",
    "timeout",
    "timeout-max",
    "touch",
    "queue-max",
    "durability",
];
/// Keys that other versions have.
const KEYS_ELSEWHERE: [&str; 6] = ["running-max", "rate", "burst", "age-low", "results", "once"];
/// Keys that say how jobs are run again.
const KEYS_OF_RETRIES: [&str; 4] = ["retry", "backoff", "foreground", "dead"];
/// Reasons that `retry` may name.
const RETRIED: [Reason; 4] = [Reason::Lost, Reason::TimedOut, Reason::Fail, Reason::Exception];

/// What the rest of the configuration allows tables to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Background jobs may be stored.
    pub has_store: bool,
}

/// The tables of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// A policy for each table, in their order.
    pub policies: Arc<Policies>,
    /// By policy: the line of its `match`.
    pub lines: Vec<usize>,
    /// What has no effect.
    pub remarks: Vec<Mistake>,
}

/// Reads a functions file.
///
/// # Errors
/// The first mistake.
pub fn parse(text: &str, conditions: Conditions) -> Result<Tables, Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    toml_tables::read(text, "functions file", |table| {
        for (key, _) in sorted(table) {
            match key.get_ref().as_ref() {
                SCHEDULES => {}
                name if KEYS.contains(&name) => {
                    let sentence = format!("{name} is in no table: write [[function]] above it");
                    return Err((key.span().start, sentence));
                }
                _ => known(key, "a functions file", &[TABLES])?,
            }
        }
        tables(text, table, conditions, &|_| false)
    })
}

/// Reads the tables of a configuration file; `is_option` tells its other keys.
///
/// # Errors
/// The first mistake in a table, or in the whole text if it isn't TOML.
pub fn parse_configuration(
    text: &str,
    conditions: Conditions,
    is_option: &dyn Fn(&str) -> bool,
) -> Result<Tables, Mistake> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    toml_tables::read(text, "file", |table| tables(text, table, conditions, is_option))
}

fn tables(
    text: &str,
    table: &DeTable<'_>,
    conditions: Conditions,
    is_option: &dyn Fn(&str) -> bool,
) -> Result<Tables, Misplaced> {
    let (mut policies, mut lines, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = Seen::default();
    for (key, value) in sorted(table) {
        match key.get_ref().as_ref() {
            TABLES => {}
            SCHEDULES => return Err(elsewhere(key, "[[schedule]]")),
            _ => continue,
        }
        let no_tables =
            |at: usize| (at, "write functions as tables: [[function]], with match".to_owned());
        let DeValue::Array(functions) = value.get_ref() else {
            return Err(no_tables(key.span().start));
        };
        for function in functions {
            let DeValue::Table(fields) = function.get_ref() else {
                return Err(no_tables(function.span().start));
            };
            let mut reader = Reader { conditions, is_option, idle: Vec::new() };
            let (at, policy) = reader.policy(function.span().start, fields)?;
            if seen.len() + policy.patterns.len() > PATTERNS_MAX {
                let sentence =
                    format!("a file has at most {PATTERNS_MAX} patterns: join some with *");
                return Err((at, sentence));
            }
            let its_line = line(text, at);
            let remark = |(at, sentence)| Mistake { line: line(text, at), sentence };
            remarks.extend(reader.idle.into_iter().map(remark));
            if let Some(earlier) = seen.hides(&policy.patterns) {
                let sentence = format!(
                    "no function has this match that the one on line {} doesn't have before it: \
                     move it up, or leave it out",
                    lines[earlier]
                );
                remarks.push(Mistake { line: its_line, sentence });
            }
            seen.add(policies.len(), &policy.patterns);
            lines.push(its_line);
            policies.push(policy);
        }
    }
    Ok(Tables { policies: Arc::new(Policies(policies)), lines, remarks })
}

/// The mistake of a word that other versions have.
fn elsewhere(key: &Key<'_>, written: &str) -> Misplaced {
    (key.span().start, format!("{written} is not in this version: leave it out"))
}

/// Reads one table.
struct Reader<'a> {
    conditions: Conditions,
    /// Whether a key may stand before the tables.
    is_option: &'a dyn Fn(&str) -> bool,
    /// What has no effect, and where it is.
    idle: Vec<Misplaced>,
}

impl Reader<'_> {
    /// The policy of a table, and where its `match` is.
    fn policy(&mut self, at: usize, fields: &DeTable<'_>) -> Result<(usize, Policy), Misplaced> {
        let mut policy = Policy::default();
        let mut matched = None;
        let (mut attempts, mut expire, mut expires_to_dead) = (None, None, false);
        let (mut of_retries, mut touch_at, mut expire_to_at) = (Vec::new(), None, None);
        let mut retries = Retries::of(0);
        for (key, value) in sorted(fields) {
            self.check_key(key)?;
            let (name, at) = (key.get_ref().as_ref(), key.span().start);
            if KEYS_OF_RETRIES.contains(&name) {
                of_retries.push((at, name.to_owned()));
            }
            match name {
                "match" => {
                    matched = Some(at);
                    policy.patterns = patterns(value)?;
                }
                "attempts" => {
                    attempts = Some(number(name, value, 0..=u16::MAX, ", 0 for no limit")?);
                }
                "retry" => retries.retried = retried(value)?,
                "backoff" => retries.backoff = backoff(value)?,
                "foreground" => retries.foreground = switch(name, value)?,
                "dead" => retries.dead = switch(name, value)?,
                "expire" => expire = Some(limit(name, value, duration::MS_MAX)?),
                "expire-to" => {
                    expires_to_dead = word(name, value, &["gone", "dead"])? == "dead";
                    expire_to_at = Some(at);
                }
                "timeout" => policy.timeout_ms = timeout(name, value)?,
                "timeout-max" => policy.timeout_max_ms = timeout(name, value)?,
                "touch" => {
                    policy.touch = switch(name, value)?;
                    touch_at = Some(at);
                }
                "queue-max" => policy.queue_max = Some(queue_max(value)?),
                _ => policy.durability = Some(self.durability(at, value)?),
            }
        }
        let Some(matched) = matched else {
            let sentence = "the function has no match: match = \"*\" stands for all functions";
            return Err((at, sentence.to_owned()));
        };
        match (touch_at, policy.timeout_ms, policy.timeout_max_ms) {
            (Some(at), 0, 0) if policy.touch => {
                let sentence = "touch needs a timeout: add timeout = \"60s\", or timeout-max for \
                                workers that bring their own";
                return Err((at, sentence.to_owned()));
            }
            _ => {}
        }
        if attempts.is_none() {
            let sentence = |name: &str| {
                format!("{name} has no effect without attempts: add attempts = 5, or leave it out")
            };
            self.idle.extend(of_retries.into_iter().map(|(at, name)| (at, sentence(&name))));
        }
        if let (Some(at), None) = (expire_to_at, expire) {
            let sentence = "expire-to has no effect without expire: add expire = \"24h\", or leave \
                            it out";
            self.idle.push((at, sentence.to_owned()));
        }
        policy.retries = attempts.map(|attempts| Retries { attempts, ..retries });
        policy.expiry = expire.map(|after_ms| Expiry { after_ms, dead: expires_to_dead });
        Ok((matched, policy))
    }

    fn check_key(&self, key: &Key<'_>) -> Result<(), Misplaced> {
        let name = key.get_ref().as_ref();
        if KEYS_ELSEWHERE.contains(&name) {
            return Err(elsewhere(key, name));
        }
        if !KEYS.contains(&name) && (self.is_option)(name) {
            let sentence =
                format!("{name} is no key of a function: write it above the first [[function]]");
            return Err((key.span().start, sentence));
        }
        known(key, "a function", &KEYS)
    }

    fn durability(&self, at: usize, value: &Value<'_>) -> Result<Durability, Misplaced> {
        let durability = match word("durability", value, &["none", "async", "fsync"])? {
            "none" => Durability::None,
            "async" => Durability::Async,
            _ => Durability::Fsync,
        };
        if !self.conditions.has_store {
            let sentence =
                "durability needs a store: add --store sqlite:PATH or --store postgres://…";
            return Err((at, sentence.to_owned()));
        }
        Ok(durability)
    }
}

fn patterns(value: &Value<'_>) -> Result<Vec<Glob>, Misplaced> {
    const EXAMPLE: &str = "[\"mail-*\", \"resize\"]";
    let glob = |value: &Value<'_>| {
        let DeValue::String(pattern) = value.get_ref() else {
            let reason = format!("write a name, or a list of names, as in match = {EXAMPLE}");
            return Err(unfit("match", value, &reason));
        };
        let refuse = |error| (value.span().start, format!("{} {error}", quoted(pattern)));
        Glob::new(pattern).map_err(refuse)
    };
    match value.get_ref() {
        DeValue::Array(_) => list("match", value, EXAMPLE)?.iter().map(glob).collect(),
        _ => Ok(vec![glob(value)?]),
    }
}

fn timeout(name: &str, value: &Value<'_>) -> Result<u32, Misplaced> {
    let ms = limit(name, value, TIMEOUT_MS_MAX)?;
    // The longest fits.
    Ok(u32::try_from(ms).unwrap_or(u32::MAX))
}

/// By reason: whether `retry` names it.
fn retried(value: &Value<'_>) -> Result<[bool; 4], Misplaced> {
    let names = RETRIED.map(Reason::name);
    let DeValue::Array(words) = value.get_ref() else {
        let reason = format!("write a list of {}, as in retry = [\"lost\"]", names.join(", "));
        return Err(unfit("retry", value, &reason));
    };
    let mut retried = [false; 4];
    for value in words {
        let name = word("retry", value, &names)?;
        for (reason, is_retried) in RETRIED.iter().zip(&mut retried) {
            if reason.name() == name && std::mem::replace(is_retried, true) {
                let sentence = format!("retry has \"{name}\" twice: leave one of them out");
                return Err((value.span().start, sentence));
            }
        }
    }
    Ok(retried)
}

fn backoff(value: &Value<'_>) -> Result<Backoff, Misplaced> {
    let DeValue::Table(fields) = value.get_ref() else {
        let reason = "write a table, as in backoff = { first = \"1s\", factor = 4.0 }";
        return Err(unfit("backoff", value, reason));
    };
    let mut backoff = Backoff::default();
    let (mut first, mut max) = (None, None);
    for (key, value) in sorted(fields) {
        known(key, "backoff", &["first", "factor", "max", "jitter"])?;
        match key.get_ref().as_ref() {
            name @ "first" => {
                backoff.first_ms = milliseconds(name, value, duration::MS_MAX)?;
                first = Some(value);
            }
            name @ "max" => {
                backoff.max_ms = milliseconds(name, value, duration::MS_MAX)?;
                max = Some(value);
            }
            name @ "factor" => backoff.factor = fraction(name, value, 1.0, 100.0)?,
            name => backoff.jitter = fraction(name, value, 0.0, 1.0)?,
        }
    }
    if backoff.max_ms < backoff.first_ms {
        let (first_text, max_text) =
            (duration::text(backoff.first_ms), duration::text(backoff.max_ms));
        return Err(match (max, first) {
            (Some(max), _) => {
                let reason = format!("give at least \"{first_text}\", which is first");
                unfit("max", max, &reason)
            }
            (None, first) => {
                let reason =
                    format!("give max = \"{first_text}\", too, which is {max_text} unless given");
                unfit("first", first.unwrap_or(value), &reason)
            }
        });
    }
    Ok(backoff)
}

fn queue_max(value: &Value<'_>) -> Result<[u32; 3], Misplaced> {
    let numbers = value.get_ref().as_array().filter(|numbers| numbers.len() == 3);
    let Some(numbers) = numbers else {
        let reason = "write three numbers, for high, normal and low priority, 0 for no limit, as \
                      in queue-max = [0, 1000, 1000]";
        return Err(unfit("queue-max", value, reason));
    };
    let mut queue_max = [0; 3];
    for (max, value) in queue_max.iter_mut().zip(numbers) {
        *max = number("queue-max", value, 0..=u32::MAX, ", 0 for no limit")?;
    }
    Ok(queue_max)
}
