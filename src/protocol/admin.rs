//! The text protocol: a line in, a text reply out.
//!
//! Knows the commands and their exact replies; line ends differ from command to command, and
//! monitoring scripts depend on them. Knows nothing of packets and sockets.
//!
//! Invariant: a reply has a bounded size. A list is written in parts (`list`), each after the part
//! before it was sent.

pub mod access_rules;
pub mod change;
pub mod columns;
pub mod list;
mod outcomes;
mod partitions;
pub mod policy_text;

use std::sync::Arc;

use self::change::Change;
use self::columns::text;
use self::list::{ConnectionsAt, FunctionsAt, Listing};
use super::access::{self, Permissions, Right};
use super::log_level::LogLevel;
use crate::cluster::view::View;
use crate::engine::glob::Glob;
use crate::engine::handle::Handles;
use crate::engine::{Engine, FunctionId, JobId, Now};
use crate::wire::text::decimal;

/// Largest number of words; with more the connection is closed, as in gearmand.
const WORDS_MAX: usize = 5;

/// The last word of a command that asks for the names of the columns.
const TITLES: &[u8] = b"#";

/// Reply if memory is too short for a new function.
const OUT_OF_MEMORY: &[u8] = b"ERR OUT_OF_MEMORY --memory-max+is+reached\r\n";
/// Reply if there is no function to drop.
const NOT_FOUND: &[u8] = b"ERR function not found\r\n";

/// Reply if there is no such job.
const UNKNOWN_JOB: &[u8] = b"ERR UNKNOWN_JOB\r\n";

/// Reply to `show` with other words than it knows.
const UNKNOWN_SHOW: &[u8] = b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n";

/// The commands, with what they answer.
const COMMANDS: [(&str, &str); 31] = [
    ("status", "a line a function: name, jobs, running jobs, workers"),
    ("prioritystatus", "a line a function: name, queued jobs by priority, workers"),
    ("workers", "a line a connection: number, address, client id, functions"),
    ("show jobs", "a line a job: handle, attempts, ignored, background"),
    ("show unique jobs", "a line a job: its unique key"),
    ("show running", "a line a running job, with its worker and since when"),
    ("show functions", "a line a function, with the age of its oldest waiting job"),
    ("show dead [F]", "a line a dead letter, the longest dead of each core first"),
    ("show retrying [F]", "a line a job that is to be run again, with its next start"),
    ("show delayed [F]", "a line a job that waits for its first start"),
    ("show policy F", "a line a key of the functions file that applies to a function"),
    ("show connections", "a line a connection: address, client id, functions, jobs"),
    ("show access", "a line a rule of the access list, with how often it has decided"),
    ("show refusals", "a line for each of the latest refusals of the access list"),
    ("stats", "a line a number: its name and value since the start"),
    ("cluster", "a line a partition of the database: its server, age of its beat, jobs"),
    ("cancel job HANDLE", "OK, or an error if there is no such job"),
    ("run job H", "OK; a job that waits for its start, or its next run, starts now"),
    ("requeue dead H|F|*", "OK and how many dead letters are jobs again"),
    ("drop dead H|F|*", "OK and how many dead letters were removed"),
    ("purge function F [queued|delayed|retrying|dead]", "OK and how many jobs were cancelled"),
    ("pause function F [SECONDS]", "OK; no worker gets its jobs until then, or resume"),
    ("resume function F", "OK"),
    ("create function NAME", "OK"),
    ("drop function NAME", "OK, and its waiting jobs are cancelled"),
    ("maxqueue NAME N", "OK; submissions beyond N jobs are refused, 0 = no limit"),
    ("maxqueue NAME HIGH NORMAL LOW", "the same by priority"),
    ("version", "OK and the version"),
    ("verbose [LEVEL]", "OK and the level of the log, after setting it to LEVEL"),
    ("getpid", "OK and the process id"),
    ("help", "this list; lists take # as the last word, for the names of columns"),
];

/// Reply to `verbose` with an unknown level.
const UNKNOWN_LEVEL: &[u8] = b"ERR UNKNOWN_LEVEL FATAL+ALERT+CRITICAL+ERROR+WARNING+NOTICE+INFO+\
    DEBUG+or+TRACE\r\n";

/// What the server reports about itself.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Version of the server.
    pub version: &'static str,
    /// The level of the log.
    pub log_level: Arc<dyn LogLevel>,
    /// Process id.
    pub pid: u32,
}

/// A line with more words than any command may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("text line has more than {WORDS_MAX} words")]
pub struct TooManyWords;

/// What a line is answered with, beside the text that `answer` has appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    Text,
    /// What goes on core by core, of functions with such names; `None` = of all.
    Task(Task, Option<Glob>),
    /// The numbers of all cores together.
    Stats,
    /// The rules of the access list.
    Access,
    /// The latest refusals of the access list.
    Refusals,
}

/// What goes on in portions, core by core, and where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A list.
    List(Listing),
    /// A change of many.
    Change(Change),
}

/// What a line is answered from.
#[derive(Debug)]
pub struct Context<'a> {
    /// The queues.
    pub engine: &'a mut Engine,
    /// Converts handles to job numbers.
    pub handles: &'a Handles,
    /// The server.
    pub identity: &'a Identity,
    /// What is known of the partitions of the database, if it has any.
    pub cluster: Option<&'a View>,
    /// Bytes that may be allocated.
    pub memory_left: usize,
    /// Which functions a line may change whose names differ from the named in case only; `None` =
    /// all.
    pub access: Option<&'a Permissions>,
    /// The time.
    pub now: Now,
}

/// Appends the reply to a line to `out`, and returns what is to follow. `demand` was met.
///
/// # Errors
/// `TooManyWords`: the connection is to be closed.
pub fn answer(
    line: &[u8],
    cx: &mut Context<'_>,
    out: &mut Vec<u8>,
) -> Result<Answer, TooManyWords> {
    let mut storage = [&[][..]; WORDS_MAX];
    let words = split(line, &mut storage)?;
    let Some((&command, arguments)) = words.split_first() else { return Ok(Answer::Text) };
    let is = |name: &str| command.eq_ignore_ascii_case(name.as_bytes());
    if let Some(listing) = listing(command, arguments) {
        if arguments.last().is_some_and(|&word| word == TITLES) {
            text(out, &[b"# ", listing.titles().as_bytes(), b"\n"]);
        }
        return Ok(Answer::Task(Task::List(listing), None));
    } else if let Some(asked) = of_functions(command, arguments) {
        let (listing, names) = match asked {
            Ok(asked) => asked,
            Err(reply) => {
                out.extend_from_slice(reply);
                return Ok(Answer::Text);
            }
        };
        if arguments.last().is_some_and(|&word| word == TITLES) {
            text(out, &[b"# ", listing.titles().as_bytes(), b"\n"]);
        }
        return Ok(Answer::Task(Task::List(listing), names));
    } else if let Some(answer) = outcomes::answer(command, arguments, cx, out) {
        return Ok(answer);
    } else if is("stats") && matches!(arguments, [] | [TITLES]) {
        if !arguments.is_empty() {
            text(out, &[b"# NAME\tVALUE\n"]);
        }
        return Ok(Answer::Stats);
    } else if is("cluster") && matches!(arguments, [] | [TITLES]) {
        if !arguments.is_empty() {
            text(out, &[b"# ", partitions::TITLES.as_bytes(), b"\n"]);
        }
        partitions::write(cx.cluster, cx.now.mono_ms, out);
    } else if let Some((answer, titles)) = of_access(command, arguments) {
        if arguments.last().is_some_and(|&word| word == TITLES) {
            text(out, &[b"# ", titles.as_bytes(), b"\n"]);
        }
        return Ok(answer);
    } else if is("help") && matches!(arguments, [] | [TITLES]) {
        help(!arguments.is_empty(), out);
    } else if is("version") {
        text(out, &[b"OK ", cx.identity.version.as_bytes(), b"\n"]);
    } else if is("verbose") {
        verbose(arguments, &*cx.identity.log_level, out);
    } else if is("getpid") {
        text(out, &[b"OK ", itoa::Buffer::new().format(cx.identity.pid).as_bytes(), b"\n"]);
    } else if is("show") && !arguments.is_empty() {
        text(out, &[UNKNOWN_SHOW]);
    } else if is("cancel") && arguments.len() >= 2 {
        cancel(arguments, cx, out);
    } else if is("create") {
        create(command, arguments, cx, out);
    } else if is("drop") {
        drop_function(command, arguments, cx, out);
    } else if is("maxqueue") {
        max_queue(command, arguments, cx.engine, out);
    } else {
        // gearmand glues the word on without a separator, and its tests expect that.
        text(out, &[b"ERR UNKNOWN_COMMAND Unknown+server+command", command, b"\r\n"]);
    }
    Ok(Answer::Text)
}

/// The list that a line asks for. gearmand takes no notice of words behind its one-word commands.
fn listing(command: &[u8], arguments: &[&[u8]]) -> Option<Listing> {
    let equal = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if equal(command, "status") {
        return Some(Listing::Status(FunctionId::FIRST));
    } else if equal(command, "prioritystatus") {
        return Some(Listing::PriorityStatus(FunctionId::FIRST));
    } else if equal(command, "workers") {
        return Some(Listing::Workers(ConnectionsAt::START));
    } else if !equal(command, "show") {
        return None;
    }
    Some(match arguments.strip_suffix(&[TITLES]).unwrap_or(arguments) {
        [what] if equal(what, "jobs") => Listing::Jobs(JobId::FIRST),
        [unique, jobs] if equal(unique, "unique") && equal(jobs, "jobs") => {
            Listing::UniqueJobs(JobId::FIRST)
        }
        [what] if equal(what, "running") => Listing::Running(JobId::FIRST),
        [what] if equal(what, "functions") => Listing::Functions(FunctionsAt::Start),
        [what] if equal(what, "connections") => Listing::Connections(ConnectionsAt::START),
        _ => return None,
    })
}

/// Appends the commands and what they answer.
fn help(has_titles: bool, out: &mut Vec<u8>) {
    if has_titles {
        out.extend_from_slice(b"# COMMAND\tANSWER\n");
    }
    for (command, answer) in COMMANDS {
        text(out, &[command.as_bytes(), b"\t", answer.as_bytes(), b"\n"]);
    }
    out.extend_from_slice(b".\n");
}

/// What `show access` and `show refusals` ask for, and the names of the columns.
fn of_access(command: &[u8], arguments: &[&[u8]]) -> Option<(Answer, &'static str)> {
    let [what] = arguments.strip_suffix(&[TITLES]).unwrap_or(arguments) else { return None };
    let shows =
        |name: &[u8]| command.eq_ignore_ascii_case(b"show") && what.eq_ignore_ascii_case(name);
    if shows(b"access") {
        Some((Answer::Access, access_rules::TITLES))
    } else if shows(b"refusals") {
        Some((Answer::Refusals, "TIME\tPEER\tRIGHT\tFUNCTION"))
    } else {
        None
    }
}

/// The list that a line asks for of some functions.
fn of_functions(
    command: &[u8],
    arguments: &[&[u8]],
) -> Option<Result<outcomes::Asked, &'static [u8]>> {
    let asks = command.eq_ignore_ascii_case(b"show");
    asks.then(|| outcomes::listing(arguments.strip_suffix(&[TITLES]).unwrap_or(arguments)))?
}

/// What a line needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand<'a> {
    /// Nothing here: every peer may send it; or it asks for a list, which shows allowed functions
    /// only; or it is about a job, whose function its core knows.
    None,
    /// A right.
    Right(Right, access::Scope<'a>),
    /// A right for some functions: it changes those only.
    Some(Right),
}

/// What a line needs.
#[must_use]
pub fn demand<'l>(line: &'l [u8], handles: &Handles) -> Demand<'l> {
    let mut storage = [&[][..]; WORDS_MAX];
    let Ok([command, arguments @ ..]) = split(line, &mut storage) else { return Demand::None };
    let is = |name: &str| command.eq_ignore_ascii_case(name.as_bytes());
    let all = access::Scope::AllFunctions;
    match listing(command, arguments) {
        Some(Listing::Workers(_) | Listing::Connections(_)) => {
            return Demand::Right(Right::Observe, all);
        }
        Some(_) => return Demand::None,
        None => {}
    }
    if let Some(demand) = outcomes::demand(command, arguments, handles) {
        return demand;
    }
    match *arguments {
        [] | [TITLES] if is("stats") || is("cluster") => Demand::Right(Right::Observe, all),
        [_, ..] if is("verbose") => Demand::Right(Right::Admin, all),
        [what, name] if (is("create") || is("drop")) && what.eq_ignore_ascii_case(b"function") => {
            Demand::Right(Right::Admin, access::Scope::Function(name))
        }
        [name, ..] if is("maxqueue") => Demand::Right(Right::Admin, access::Scope::Function(name)),
        _ if of_access(command, arguments).is_some() => Demand::Right(Right::Admin, all),
        _ => Demand::None,
    }
}

/// Which cores can answer a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// Any core: a line about the server, an invalid one, or a list, which each core continues.
    Any,
    /// The core of one function.
    Function(&'a [u8]),
    /// The core of one job, by its handle.
    Job(&'a [u8]),
    /// All cores together.
    All,
}

/// Which cores can answer a line.
#[must_use]
pub fn scope(line: &[u8]) -> Scope<'_> {
    let mut storage = [&[][..]; WORDS_MAX];
    let Ok(words) = split(line, &mut storage) else { return Scope::Any };
    let is = |at: usize, name: &str| {
        words.get(at).is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    };
    if let [command, arguments @ ..] = words
        && let Some(scope) = outcomes::scope(command, arguments)
    {
        return scope;
    }
    match *words {
        [_, _, name] if is(0, "create") && is(1, "function") => Scope::Function(name),
        [_, name, ..] if is(0, "maxqueue") => Scope::Function(name),
        [_, _, handle] if is(0, "cancel") && is(1, "job") => Scope::Job(handle),
        [_, _, _] if is(0, "drop") && is(1, "function") => Scope::All,
        _ => Scope::Any,
    }
}

/// Joins the replies of all cores to one line: "not found" only if all cores reply so.
#[must_use]
pub fn join(replies: &[Vec<u8>]) -> Vec<u8> {
    let found: Vec<u8> =
        replies.iter().filter(|reply| **reply != NOT_FOUND).flatten().copied().collect();
    if found.is_empty() { NOT_FOUND.to_vec() } else { found }
}

/// Splits a line at runs of spaces; a space at either end makes an empty word there.
fn split<'l, 's>(
    line: &'l [u8],
    storage: &'s mut [&'l [u8]; WORDS_MAX],
) -> Result<&'s [&'l [u8]], TooManyWords> {
    let mut rest = line;
    for count in 1..=WORDS_MAX {
        let end = memchr::memchr(b' ', rest);
        if let Some(word) = storage.get_mut(count - 1) {
            *word = end.and_then(|end| rest.get(..end)).unwrap_or(rest);
        }
        let Some(end) = end else { return Ok(storage.get(..count).unwrap_or_default()) };
        rest = rest.get(end..).unwrap_or_default();
        while let Some(behind) = rest.strip_prefix(b" ") {
            rest = behind;
        }
    }
    Err(TooManyWords)
}

fn verbose(arguments: &[&[u8]], log_level: &dyn LogLevel, out: &mut Vec<u8>) {
    if let [name, ..] = *arguments {
        let is_set = std::str::from_utf8(name).is_ok_and(|name| log_level.set(name));
        if !is_set {
            return out.extend_from_slice(UNKNOWN_LEVEL);
        }
    }
    text(out, &[b"OK ", log_level.name().as_bytes(), b"\n"]);
}

fn cancel(arguments: &[&[u8]], cx: &mut Context<'_>, out: &mut Vec<u8>) {
    let reply: &[u8] = match *arguments {
        [what, handle] if what.eq_ignore_ascii_case(b"job") => {
            let number = cx.handles.number(handle);
            if number.is_some_and(|number| cx.engine.cancel(number)) {
                b"OK\r\n"
            } else {
                UNKNOWN_JOB
            }
        }
        _ => b"ERR UNKNOWN_ERROR\r\n",
    };
    out.extend_from_slice(reply);
}

fn create(command: &[u8], arguments: &[&[u8]], cx: &mut Context<'_>, out: &mut Vec<u8>) {
    match *arguments {
        [what, name] if what.eq_ignore_ascii_case(b"function") => {
            let created = cx.engine.create_function(name, cx.memory_left);
            out.extend_from_slice(if created { b"OK\r\n" } else { OUT_OF_MEMORY });
        }
        _ => invalid_arguments(out, command),
    }
}

fn drop_function(command: &[u8], arguments: &[&[u8]], cx: &mut Context<'_>, out: &mut Vec<u8>) {
    let Context { engine, access, .. } = cx;
    let [what, name] = *arguments else { return invalid_arguments(out, command) };
    if !what.eq_ignore_ascii_case(b"function") {
        return invalid_arguments(out, command);
    }
    // Names that differ in case only are all dropped, with a line for each, as in gearmand.
    let functions = engine.functions().iter_from(FunctionId::FIRST);
    let may_drop = |name: &[u8]| {
        let scope = access::Scope::Function(name);
        access.is_none_or(|access| access.may(Right::Admin, scope).is_allowed)
    };
    let named = functions.filter(|(_, function)| {
        function.name.eq_ignore_ascii_case(name) && may_drop(&function.name)
    });
    let ids: Vec<FunctionId> = named.map(|(id, _)| id).collect();
    if ids.is_empty() {
        out.extend_from_slice(NOT_FOUND);
    }
    for id in ids {
        out.extend_from_slice(match engine.drop_function(id) {
            Ok(()) => b"OK\r\n",
            Err(_) => b"ERR there are still connected workers or executing clients\r\n",
        });
    }
}

fn max_queue(command: &[u8], arguments: &[&[u8]], engine: &mut Engine, out: &mut Vec<u8>) {
    let Some((&name, sizes)) = arguments.split_first() else {
        return invalid_arguments(out, command);
    };
    let size = |at: usize| {
        let size = sizes.get(at).map_or(0, |text| decimal(text).max(0));
        u32::try_from(size).unwrap_or(u32::MAX)
    };
    let queue_max = if sizes.len() == 1 { [size(0); 3] } else { [size(0), size(1), size(2)] };
    engine.set_queue_max(name, queue_max);
    out.extend_from_slice(b"OK\r\n");
}

/// The error for wrong arguments; it repeats the command as it was typed.
fn invalid_arguments(out: &mut Vec<u8>, command: &[u8]) {
    let message = b"An+incomplete+set+of+arguments+was+sent+to+this+command+";
    text(out, &[b"ERR INVALID_ARGUMENTS ", message, command, b"\r\n"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The manual lists every command that `help` does.
    #[test]
    fn the_manual_has_every_command() {
        let manual = include_str!("../../docs/operating.md");
        for (command, _) in COMMANDS {
            let is_listed = manual
                .lines()
                .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next())
                .map(|cell| cell.replace("\\|", "|"))
                .any(|cell| cell.split(", ").any(|it| it.trim_matches('`') == command));
            assert!(is_listed, "{command} isn't in the table of text commands");
        }
    }

    #[test]
    fn words_are_split_as_gearmand_splits_them() {
        for (line, words) in [
            ("", vec![""]),
            ("status", vec!["status"]),
            ("a  b", vec!["a", "b"]),
            (" a", vec!["", "a"]),
            ("a ", vec!["a", ""]),
            ("a b c d e", vec!["a", "b", "c", "d", "e"]),
            ("a\tb", vec!["a\tb"]),
        ] {
            let mut storage = [&[][..]; WORDS_MAX];
            let split = split(line.as_bytes(), &mut storage).unwrap();
            let expected: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            assert_eq!(split, expected, "{line:?}");
        }
        let mut storage = [&[][..]; WORDS_MAX];
        assert_eq!(split(b"a b c d e ", &mut storage), Err(TooManyWords));
    }
}
