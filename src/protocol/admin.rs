//! The text protocol: a line in, a text reply out.
//!
//! Knows the commands and their exact replies; line ends differ from command to command, and
//! monitoring scripts depend on them. Knows nothing of packets and sockets.
//!
//! Invariant: a reply has a bounded size. A list of jobs, functions or connections is written in
//! parts of `ROWS_MAX` rows, each after the part before it was sent; a row shows the state at the
//! time when it is written.

use std::io::Write;
use std::sync::Arc;

use super::log_level::LogLevel;
use crate::engine::handle::Handles;
use crate::engine::job::{Job, State};
use crate::engine::{ConnId, Engine, FunctionId, JobId};
use crate::wire::text::decimal;

/// Largest number of words; with more the connection is closed, as in gearmand.
const WORDS_MAX: usize = 5;

/// Rows of a list that are written before other connections are served.
const ROWS_MAX: usize = 4096;

/// Reply if memory is too short for a new function.
const OUT_OF_MEMORY: &[u8] = b"ERR OUT_OF_MEMORY --memory-max+is+reached\r\n";
/// Reply if there is no function to drop.
const NOT_FOUND: &[u8] = b"ERR function not found\r\n";

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

/// A list that is being written, and the number of its next row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// `status`
    Status(FunctionId),
    /// `prioritystatus`
    PriorityStatus(FunctionId),
    /// `show jobs`
    Jobs(JobId),
    /// `show unique jobs`
    UniqueJobs(JobId),
    /// `workers`
    Workers {
        /// Number of the next connection.
        at: ConnId,
        /// Number of connections that had moved to the core at an earlier time: list only those
        /// that moved there since; `None` = all.
        since: Option<u64>,
    },
}

/// A row of `workers`.
#[derive(Debug)]
pub struct WorkerRow<'a> {
    /// Number of the connection.
    pub conn: ConnId,
    /// A number that is unique in the server: the descriptor, or the driver's substitute for it.
    pub fd: i32,
    /// Address of the peer.
    pub ip: std::net::IpAddr,
    /// Client id.
    pub id: &'a [u8],
    /// Functions of other cores that the connection is registered for.
    pub elsewhere: Vec<&'a [u8]>,
}

/// Appends the reply to a line to `out`, or returns the list that is the reply.
///
/// # Errors
/// `TooManyWords`: the connection is to be closed.
pub fn answer(
    line: &[u8],
    engine: &mut Engine,
    handles: &Handles,
    identity: &Identity,
    memory_left: usize,
    out: &mut Vec<u8>,
) -> Result<Option<Listing>, TooManyWords> {
    let mut storage = [&[][..]; WORDS_MAX];
    let words = split(line, &mut storage)?;
    let Some((&command, arguments)) = words.split_first() else { return Ok(None) };
    let is = |name: &str| command.eq_ignore_ascii_case(name.as_bytes());
    if is("status") {
        return Ok(Some(Listing::Status(FunctionId::FIRST)));
    } else if is("prioritystatus") {
        return Ok(Some(Listing::PriorityStatus(FunctionId::FIRST)));
    } else if is("workers") {
        return Ok(Some(Listing::Workers { at: ConnId::FIRST, since: None }));
    } else if is("version") {
        text(out, &[b"OK ", identity.version.as_bytes(), b"\n"]);
    } else if is("verbose") {
        verbose(arguments, &*identity.log_level, out);
    } else if is("getpid") {
        text(out, &[b"OK ", itoa::Buffer::new().format(identity.pid).as_bytes(), b"\n"]);
    } else if is("show") && !arguments.is_empty() {
        return Ok(show(arguments, out));
    } else if is("cancel") && arguments.len() >= 2 {
        cancel(arguments, engine, handles, out);
    } else if is("create") {
        create(command, arguments, engine, memory_left, out);
    } else if is("drop") {
        drop_function(command, arguments, engine, out);
    } else if is("maxqueue") {
        max_queue(command, arguments, engine, out);
    } else {
        // gearmand glues the word on without a separator, and its tests expect that.
        text(out, &[b"ERR UNKNOWN_COMMAND Unknown+server+command", command, b"\r\n"]);
    }
    Ok(None)
}

/// Appends the next rows of a list to `out`, and the number and the end of each connection's row to
/// `named`. Returns the rest of the list, if any. The caller writes the dot after the last row.
pub fn list<'a>(
    listing: Listing,
    engine: &Engine,
    handles: &Handles,
    conns: impl Iterator<Item = WorkerRow<'a>>,
    out: &mut Vec<u8>,
    named: &mut Vec<(i32, usize)>,
) -> Option<Listing> {
    let (mut rows, mut next) = (0..ROWS_MAX, None);
    // Called before each row: `false` ends this part, and the next part begins with that row.
    let mut has_space = |from: Listing| {
        let is_in_part = rows.next().is_some();
        if !is_in_part {
            next = Some(from);
        }
        is_in_part
    };
    match listing {
        Listing::Status(at) => {
            for (_, function) in engine
                .functions()
                .iter_from(at)
                .take_while(|&(at, _)| has_space(Listing::Status(at)))
            {
                let (total, running) = (function.total(), function.running);
                text(out, &[&function.name, b"\t"]);
                numbers(out, &[total, running, function.workers]);
            }
        }
        Listing::PriorityStatus(at) => {
            for (_, function) in engine
                .functions()
                .iter_from(at)
                .take_while(|&(at, _)| has_space(Listing::PriorityStatus(at)))
            {
                let [high, normal, low] = [0, 1, 2].map(|at: usize| function.queues[at].len);
                text(out, &[&function.name, b"\t"]);
                // Delayed jobs are all of normal priority.
                numbers(out, &[high, normal + function.delayed, low, function.workers]);
            }
        }
        Listing::Jobs(at) => {
            for (_, job) in
                engine.jobs().iter_from(at).take_while(|&(at, _)| has_space(Listing::Jobs(at)))
            {
                text(out, &[handles.text(job.number).as_ref(), b"\t"]);
                numbers(
                    out,
                    &[job.attempts.into(), ignored(engine, job), job.is_background().into()],
                );
            }
        }
        Listing::UniqueJobs(at) => {
            for (_, job) in engine
                .jobs()
                .iter_from(at)
                .take_while(|&(at, _)| has_space(Listing::UniqueJobs(at)))
            {
                text(out, &[job.unique(), b"\n"]);
            }
        }
        Listing::Workers { at, since } => {
            let from = conns.skip_while(|row| row.conn < at);
            for row in from.take_while(|row| has_space(Listing::Workers { at: row.conn, since })) {
                // Writing to memory can't fail.
                let _ = write!(out, "{} {} ", row.fd, row.ip);
                text(out, &[row.id, b" :"]);
                for function in engine.functions_of(row.conn).chain(row.elsewhere) {
                    text(out, &[b" ", function]);
                }
                out.push(b'\n');
                named.push((row.fd, out.len()));
            }
        }
    }
    next
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

fn show(arguments: &[&[u8]], out: &mut Vec<u8>) -> Option<Listing> {
    let is = |at: usize, name: &str| {
        arguments.get(at).is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    };
    match arguments.len() {
        1 if is(0, "jobs") => return Some(Listing::Jobs(JobId::FIRST)),
        2 if is(0, "unique") && is(1, "jobs") => return Some(Listing::UniqueJobs(JobId::FIRST)),
        _ => out.extend_from_slice(b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
    }
    None
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

fn cancel(arguments: &[&[u8]], engine: &mut Engine, handles: &Handles, out: &mut Vec<u8>) {
    let reply: &[u8] = match *arguments {
        [what, handle] if what.eq_ignore_ascii_case(b"job") => {
            let number = handles.number(handle);
            if number.is_some_and(|number| engine.cancel(number)) {
                b"OK\r\n"
            } else {
                b"ERR UNKNOWN_JOB\r\n"
            }
        }
        _ => b"ERR UNKNOWN_ERROR\r\n",
    };
    out.extend_from_slice(reply);
}

fn create(
    command: &[u8],
    arguments: &[&[u8]],
    engine: &mut Engine,
    memory_left: usize,
    out: &mut Vec<u8>,
) {
    match *arguments {
        [what, name] if what.eq_ignore_ascii_case(b"function") => {
            let created = engine.create_function(name, memory_left);
            out.extend_from_slice(if created { b"OK\r\n" } else { OUT_OF_MEMORY });
        }
        _ => invalid_arguments(out, command),
    }
}

fn drop_function(command: &[u8], arguments: &[&[u8]], engine: &mut Engine, out: &mut Vec<u8>) {
    let [what, name] = *arguments else { return invalid_arguments(out, command) };
    if !what.eq_ignore_ascii_case(b"function") {
        return invalid_arguments(out, command);
    }
    // Names that differ in case only are all dropped, with a line for each, as in gearmand.
    let functions = engine.functions().iter_from(FunctionId::FIRST);
    let named = functions.filter(|(_, function)| function.name.eq_ignore_ascii_case(name));
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

/// gearmand marks jobs without clients as ignored; here they are removed unless they are running.
fn ignored(engine: &Engine, job: &Job) -> u32 {
    u32::from(job.state == State::Running && !engine.is_wanted(job))
}

fn text(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends numbers separated by tabs, and a line end.
fn numbers(out: &mut Vec<u8>, numbers: &[u32]) {
    for (at, &number) in numbers.iter().enumerate() {
        if at > 0 {
            out.push(b'\t');
        }
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

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
