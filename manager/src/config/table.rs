//! A `[[worker]]` table: its keys and values in, the worker or the place of a mistake out.
//!
//! Knows no other table.
//!
//! Invariant: a worker is within its limits, and has nothing that makes no sense in its mode.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use globset::GlobBuilder;
use ringgear::protocol::toml_tables::{Misplaced, Value, known, list, quoted, sorted};
use ringgear::protocol::toml_values::{
    bytes, fraction, limit, milliseconds, number, switch, unfit, word,
};
use ringgear::protocol::{duration, size};
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, WORKER_KEYS};
use super::{Mode, Stderr, Worker};

/// Most instances of a worker.
const COUNT_MAX: usize = 4096;
/// Most `max-jobs`.
const JOBS_MAX: u64 = 1_000_000_000;
/// Longest name in bytes.
const NAME_BYTES_MAX: usize = 64;
/// Longest name of a function in bytes, as in C clients.
const FUNCTION_BYTES_MAX: usize = 512;
/// Longest timeout in milliseconds: 48 days. The server takes 49.
const TIMEOUT_MS_MAX: u64 = 48 * 86_400_000;
/// Smallest `memory-max` in bytes: no program does with less.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Largest `result-max` in bytes: a packet's length has 32 bits.
const RESULT_BYTES_MAX: u64 = 2 << 30;
/// What a command looks like in the file.
const COMMAND: &str = "[\"convert\", \"-\", \"png:-\"]";

/// A table that was understood.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) worker: Worker,
    /// Where the name is.
    pub(super) name_at: usize,
    /// Keys without effect, with a sentence.
    pub(super) idle: Vec<(&'static str, String)>,
}

/// Reads the table that begins at this byte.
pub(super) fn read(at: usize, fields: &DeTable<'_>) -> Result<Table, Misplaced> {
    let mut worker = Worker::default();
    let mut places = BTreeMap::new();
    for (key, value) in sorted(fields) {
        let name = key.get_ref().as_ref();
        if KEYS.contains(&name) {
            let above = if name == "tls" { "[tls]" } else { name };
            let sentence =
                format!("{name} is no key of a worker: write {above} above the first [[worker]]");
            return Err((key.span().start, sentence));
        }
        known(key, "a worker", &WORKER_KEYS)?;
        places.insert(name.to_owned(), key.span().start);
        set(&mut worker, name, value)?;
    }
    let missing =
        |key: &str, example: &str| (at, format!("the worker has no {key}: add {example}"));
    let Some(&name_at) = places.get("name") else {
        return Err(missing("name", "name = \"thumbnail\""));
    };
    if worker.command.is_empty() {
        return Err(missing("command", &format!("command = {COMMAND}")));
    }
    if worker.functions.is_empty() && worker.mode != Mode::Gearman {
        return Err(missing("functions", "functions = [\"thumbnail\"]"));
    }
    let mut checked = Checked { worker: &worker, places: &places, idle: Vec::new() };
    checked.check()?;
    let idle = checked.idle;
    Ok(Table { worker, name_at, idle })
}

fn set(worker: &mut Worker, key: &str, value: &Value<'_>) -> Result<(), Misplaced> {
    let span = Duration::from_millis;
    match key {
        "name" => worker.name = name(value)?,
        "functions" => worker.functions = functions(value)?,
        "command" => worker.command = command(value)?,
        "mode" => {
            worker.mode = match word(key, value, &["exec", "lines", "gearman"])? {
                "exec" => Mode::Exec,
                "lines" => Mode::Lines,
                _ => Mode::Gearman,
            }
        }
        "count" => {
            let count = number(key, value, 1..=COUNT_MAX as u64, "")?;
            worker.count = usize::try_from(count).unwrap_or(COUNT_MAX);
        }
        "timeout" => worker.timeout = Some(span(limit(key, value, TIMEOUT_MS_MAX)?)),
        "max-jobs" => worker.max_jobs = number(key, value, 0..=JOBS_MAX, ", 0 for no limit")?,
        "max-age" => worker.max_age = Some(span(limit(key, value, duration::MS_MAX)?)),
        "splay" => worker.splay = fraction(key, value, 0.0, 1.0)?,
        "memory-max" => worker.memory_max = Some(bytes(key, value, MEMORY_BYTES_MIN)?),
        "result-max" => {
            worker.result_max = bytes(key, value, 1)?;
            if worker.result_max > RESULT_BYTES_MAX {
                let most = format!("give at most \"{}\"", size::text(RESULT_BYTES_MAX));
                return Err(unfit(key, value, &most));
            }
        }
        "stop-wait" => worker.stop_wait = span(milliseconds(key, value, duration::MS_MAX)?),
        "backoff" => worker.backoff = backoff(value)?,
        "user" => worker.user = Some(account(key, value)?),
        "group" => worker.group = Some(account(key, value)?),
        "directory" => worker.directory = Some(directory(value)?),
        "umask" => worker.umask = Some(umask(value)?),
        "nice" => worker.nice = number(key, value, -20..=19, "")?,
        "environment" => worker.environment = environment(value)?,
        "clear-environment" => worker.clear_environment = switch(key, value)?,
        "watch" => worker.watch = watch(value)?,
        // "stderr"
        _ => {
            worker.stderr = match word(key, value, &["log", "warning"])? {
                "log" => Stderr::Log,
                _ => Stderr::Warning,
            }
        }
    }
    Ok(())
}

/// Looks for keys that make no sense beside others.
struct Checked<'a> {
    worker: &'a Worker,
    /// By key: where it is.
    places: &'a BTreeMap<String, usize>,
    idle: Vec<(&'static str, String)>,
}

impl Checked<'_> {
    fn check(&mut self) -> Result<(), Misplaced> {
        let (worker, places) = (self.worker, self.places);
        let warns = worker.stderr == Stderr::Warning;
        if worker.mode == Mode::Gearman {
            let jobless = ["timeout", "max-jobs", "result-max"].into_iter();
            let jobless = jobless.chain(warns.then_some("stderr"));
            let first = jobless.filter_map(|key| Some((*places.get(key)?, key))).min();
            if let Some((at, key)) = first {
                let value = if key == "stderr" { " = \"warning\"" } else { "" };
                let sentence = format!(
                    "{key}{value} makes no sense in mode gearman, where the command takes its jobs \
                     itself: leave it out, or use mode = \"lines\""
                );
                return Err((at, sentence));
            }
            let reason = "in mode gearman, where the command names its functions itself";
            self.remark("functions", reason);
        }
        if worker.mode == Mode::Exec {
            let reason = "in mode exec, where each job has a process of its own";
            self.remark("max-jobs", reason);
            self.remark("max-age", reason);
        }
        if worker.mode == Mode::Exec || worker.max_jobs == 0 && worker.max_age.is_none() {
            self.remark("splay", "without max-jobs or max-age in mode lines or gearman");
        }
        Ok(())
    }

    fn remark(&mut self, key: &'static str, reason: &str) {
        if self.places.contains_key(key) {
            self.idle.push((key, format!("{key} has no effect {reason}: leave it out")));
        }
    }
}

fn name(value: &Value<'_>) -> Result<String, Misplaced> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let name = value.get_ref().as_str().filter(|name| {
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain)
    });
    name.map(str::to_owned).ok_or_else(|| {
        let reason = format!(
            "write 1 to {NAME_BYTES_MAX} of the letters a to z and A to Z, digits, -, _ and . in \
             quotes"
        );
        unfit("name", value, &reason)
    })
}

fn functions(value: &Value<'_>) -> Result<Vec<String>, Misplaced> {
    let mut functions: Vec<String> = Vec::new();
    for value in list("functions", value, "[\"thumbnail\"]")? {
        let odd = |c: char| c.is_whitespace() || c.is_control();
        let function = value.get_ref().as_str().filter(|name| {
            !name.is_empty() && name.len() <= FUNCTION_BYTES_MAX && !name.contains(odd)
        });
        let Some(function) = function else {
            let reason = format!(
                "write a name of 1 to {FUNCTION_BYTES_MAX} bytes in quotes, without blanks"
            );
            return Err(unfit("functions", value, &reason));
        };
        if functions.iter().any(|earlier| earlier == function) {
            return Err(unfit("functions", value, "it is there before, so leave one of them out"));
        }
        functions.push(function.to_owned());
    }
    Ok(functions)
}

fn command(value: &Value<'_>) -> Result<Vec<String>, Misplaced> {
    if let DeValue::String(line) = value.get_ref() {
        let reason = format!(
            "write program and arguments as a list, as in {COMMAND}, or [\"sh\", \"-c\", {}] for a \
             line of the shell",
            quoted(line)
        );
        return Err(unfit("command", value, &reason));
    }
    let mut command = Vec::new();
    for value in list("command", value, COMMAND)? {
        let word = value.get_ref().as_str().filter(|word| !word.contains('\0'));
        let Some(word) = word else {
            return Err(unfit("command", value, "write each argument in quotes, without NUL"));
        };
        if command.is_empty() && word.is_empty() {
            return Err(unfit("command", value, &format!("name a program, as in {COMMAND}")));
        }
        command.push(word.to_owned());
    }
    Ok(command)
}

fn backoff(value: &Value<'_>) -> Result<(Duration, Duration), Misplaced> {
    let pair = match value.get_ref() {
        DeValue::Array(times) => times.first().zip(times.get(1)).filter(|_| times.len() == 2),
        _ => None,
    };
    let Some((first, last)) = pair else {
        let reason = "write the first and the longest time, as in backoff = [\"1s\", \"60s\"]";
        return Err(unfit("backoff", value, reason));
    };
    let first_ms = milliseconds("backoff", first, duration::MS_MAX)?;
    if first_ms == 0 {
        return Err(unfit("backoff", first, "give at least \"1ms\""));
    }
    let last_ms = milliseconds("backoff", last, duration::MS_MAX)?;
    if last_ms < first_ms {
        let reason =
            format!("give at least \"{}\", which is the first time", duration::text(first_ms));
        return Err(unfit("backoff", last, &reason));
    }
    Ok((Duration::from_millis(first_ms), Duration::from_millis(last_ms)))
}

fn account(key: &str, value: &Value<'_>) -> Result<String, Misplaced> {
    let name = value.get_ref().as_str().filter(|name| !name.is_empty() && !name.contains('\0'));
    let reason = "write a name or number in quotes, as in \"www-data\"";
    name.map(str::to_owned).ok_or_else(|| unfit(key, value, reason))
}

fn directory(value: &Value<'_>) -> Result<PathBuf, Misplaced> {
    let path = value.get_ref().as_str();
    let path = path.filter(|path| path.starts_with('/') && !path.contains('\0'));
    let reason = "write the whole path of a folder in quotes, as in \"/srv/app\"";
    path.map(PathBuf::from).ok_or_else(|| unfit("directory", value, reason))
}

fn umask(value: &Value<'_>) -> Result<u32, Misplaced> {
    let digits = value.get_ref().as_str().filter(|text| (3..=4).contains(&text.len()));
    let mask = digits.and_then(|text| u32::from_str_radix(text, 8).ok());
    let reason = "write three octal digits in quotes, as in \"022\"";
    mask.filter(|&mask| mask <= 0o777).ok_or_else(|| unfit("umask", value, reason))
}

fn environment(value: &Value<'_>) -> Result<BTreeMap<String, String>, Misplaced> {
    let DeValue::Table(fields) = value.get_ref() else {
        let reason = "write a table, as in environment = { APP_ENV = \"production\" }";
        return Err(unfit("environment", value, reason));
    };
    let mut environment = BTreeMap::new();
    for (key, value) in sorted(fields) {
        let name = key.get_ref().as_ref();
        if name.is_empty() || name.contains(['=', '\0']) {
            let sentence = format!("{} is no variable's name: leave = and NUL out", quoted(name));
            return Err((key.span().start, sentence));
        }
        let text = value.get_ref().as_str().filter(|text| !text.contains('\0'));
        let Some(text) = text else {
            let reason = format!("write its value in quotes, as in {name} = \"1\"");
            return Err(unfit(name, value, &reason));
        };
        environment.insert(name.to_owned(), text.to_owned());
    }
    Ok(environment)
}

fn watch(value: &Value<'_>) -> Result<Vec<String>, Misplaced> {
    let pattern = |value: &Value<'_>| {
        let text = value.get_ref().as_str().filter(|text| text.starts_with('/'));
        let Some(text) = text else {
            let reason = "write a pattern with the whole path in quotes, as in \
                          \"/srv/app/**/*.php\"";
            return Err(unfit("watch", value, reason));
        };
        let refuse = |error: globset::Error| {
            unfit("watch", value, &format!("{}, so mend the pattern", error.kind()))
        };
        GlobBuilder::new(text).literal_separator(true).build().map_err(refuse)?;
        Ok(text.to_owned())
    };
    list("watch", value, "[\"/srv/app/**/*.php\"]")?.iter().map(pattern).collect()
}
