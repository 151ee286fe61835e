//! The lists of the text protocol, row by row: where a list has come to in, its next rows out.
//!
//! gearmand's lists keep its exact columns; the others have a tab between columns and get more at
//! their end only. Knows the engine's records and what a connection tells of itself, and no other
//! core.
//!
//! Invariant: one call writes at most `ROWS_MAX` rows and looks at `RECORDS_MAX` records, so that
//! no list stops its core; a row shows the state at the time when it is written.

use std::io::Write;

use super::columns::{age, moment, name, number, numbers, text};
use crate::engine::dead::DeadLetter;
use crate::engine::function::Function;
use crate::engine::glob::Glob;
use crate::engine::handle::Handles;
use crate::engine::job::{Job, State};
use crate::engine::reason::Reason;
use crate::engine::{ConnId, DuePass, Engine, FunctionId, JobId, Now};
use crate::protocol::access::{Permissions, Right};
use crate::protocol::peer_address::PeerAddress;
use crate::protocol::session::Session;
use crate::wire::Priority;

/// Rows of a list that are written before other connections are served.
const ROWS_MAX: usize = 4096;
/// Records that are looked at before other connections are served, where few of them have a row.
const RECORDS_MAX: usize = 32_768;

/// Patterns that are compared in about the time that a record takes.
const PATTERNS_PER_RECORD: usize = 8;

/// A list that is being written, and where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// `status`
    Status(FunctionId),
    /// `prioritystatus`
    PriorityStatus(FunctionId),
    /// `show functions`
    Functions(FunctionsAt),
    /// `show jobs`
    Jobs(JobId),
    /// `show unique jobs`
    UniqueJobs(JobId),
    /// `show running`
    Running(JobId),
    /// `workers`
    Workers(ConnectionsAt),
    /// `show connections`
    Connections(ConnectionsAt),
    /// `show dead`, from this place on.
    Dead(u64),
    /// `show retrying`
    Retrying(JobId),
    /// `show delayed`
    Delayed(JobId),
}

/// How far `show functions` has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionsAt {
    /// Nothing is written.
    Start,
    /// The starts of delayed jobs are being looked for.
    Dues(DuePass),
    /// The next row.
    Row(FunctionId),
}

/// How far a list of connections has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionsAt {
    /// Number of the next connection.
    pub conn: ConnId,
    /// Number of connections that had moved to the core at an earlier time: list only those that
    /// moved there since; `None` = all.
    pub since: Option<u64>,
}

impl ConnectionsAt {
    /// All connections.
    pub const START: Self = Self { conn: ConnId::FIRST, since: None };
}

/// A connection, as lists show it.
#[derive(Debug)]
pub struct ConnectionRow<'a> {
    /// Number of the connection.
    pub conn: ConnId,
    /// A number that is unique in the server: the descriptor, or the driver's substitute for it.
    pub fd: i32,
    /// Where it comes from.
    pub peer: PeerAddress,
    /// Its client id, and since when it is there.
    pub session: &'a Session,
    /// Functions of other cores that it is registered for.
    pub functions_elsewhere: Vec<&'a [u8]>,
    /// Jobs of other cores that it runs.
    pub jobs_elsewhere: u32,
    /// Bytes that wait to leave.
    pub unsent_bytes: usize,
}

/// The connections of a core.
pub trait ConnectionRows {
    /// Those that came in on this core, in the order of their numbers.
    fn rows(&self, at: ConnectionsAt) -> impl Iterator<Item = ConnectionRow<'_>>;

    /// One of them, or of another core's that has to do with this core's jobs.
    fn row(&self, conn: ConnId) -> Option<ConnectionRow<'_>>;
}

/// What lists are made from.
#[derive(Debug)]
pub struct Source<'a, C> {
    /// The queues.
    pub engine: &'a mut Engine,
    /// Converts job numbers to handles.
    pub handles: &'a Handles,
    /// The connections.
    pub connections: &'a C,
    /// Which functions are shown; `None` = all.
    pub access: Option<&'a Permissions>,
    /// Of which functions; `None` = of all.
    pub names: Option<&'a Glob>,
    /// The time.
    pub now: Now,
}

/// Counts the rows of one part of a list, and tells which functions it shows.
struct Part<'a> {
    rows_left: usize,
    records_left: usize,
    /// What a record counts for: with many patterns to compare it with it takes longer.
    record_cost: usize,
    next: Option<Listing>,
    access: Option<&'a Permissions>,
    names: Option<&'a Glob>,
    /// The function that was asked about last, and whether it is shown.
    latest: Option<(FunctionId, bool)>,
}

impl<'a> Part<'a> {
    fn new(access: Option<&'a Permissions>, names: Option<&'a Glob>) -> Self {
        let patterns = access.map_or(0, |access| access.patterns(Right::Observe));
        Self {
            rows_left: ROWS_MAX,
            records_left: RECORDS_MAX,
            record_cost: 1 + patterns / PATTERNS_PER_RECORD,
            next: None,
            access,
            names,
            latest: None,
        }
    }

    /// Whether a function and its jobs are shown.
    fn shows(&mut self, id: FunctionId, name: &[u8]) -> bool {
        let Self { access, names, .. } = *self;
        if access.is_none() && names.is_none() {
            return true;
        }
        let known = self.latest.filter(|&(latest, _)| latest == id);
        let (_, shows) = known.unwrap_or_else(|| {
            let is_named = names.is_none_or(|names| names.matches(name));
            (id, is_named && access.is_none_or(|access| access.shows(name)))
        });
        self.latest = Some((id, shows));
        shows
    }

    /// Whether a record still belongs to this part; if not, the next part begins with it.
    fn takes(&mut self, record: Listing) -> bool {
        if self.rows_left == 0 || self.records_left == 0 {
            self.next = Some(record);
            return false;
        }
        self.records_left = self.records_left.saturating_sub(self.record_cost);
        true
    }

    /// A row has been written.
    fn count_row(&mut self) {
        self.rows_left -= 1;
    }
}

impl Listing {
    /// The names of its columns.
    #[must_use]
    pub fn titles(self) -> &'static str {
        match self {
            Self::Status(_) => "FUNCTION\tTOTAL\tRUNNING\tWORKERS",
            Self::PriorityStatus(_) => "FUNCTION\tHIGH\tNORMAL\tLOW\tWORKERS",
            Self::Functions(_) => {
                "FUNCTION\tHIGH\tNORMAL\tLOW\tRUNNING\tWORKERS\tOLDEST\tDELAYED\tNEXT_DUE\t\
                 STORING\tKEPT"
            }
            Self::Jobs(_) => "HANDLE\tATTEMPTS\tIGNORED\tBACKGROUND",
            Self::UniqueJobs(_) => "UNIQUE",
            Self::Running(_) => "HANDLE\tFUNCTION\tADDRESS\tID\tSINCE\tSUBMITTED\tATTEMPTS\tUNIQUE",
            Self::Workers(_) => "FD IP ID : FUNCTIONS",
            Self::Dead(_) => {
                "HANDLE\tFUNCTION\tUNIQUE\tPRIORITY\tATTEMPTS\tREASON\tDIED_AT\tBYTES\t\
                 LAST_WORKER"
            }
            Self::Retrying(_) | Self::Delayed(_) => {
                "HANDLE\tFUNCTION\tUNIQUE\tATTEMPTS\tDUE_AT\tLAST_REASON"
            }
            Self::Connections(_) => "FD\tADDRESS\tID\tSINCE\tFUNCTIONS\tRUNNING\tUNSENT",
        }
    }

    /// Appends the next rows to `out`, and for a list of connections the number and the end of each
    /// row to `named`. Returns what is left of the list. The caller writes the dot after the last
    /// row.
    pub fn write(
        self,
        source: &mut Source<'_, impl ConnectionRows>,
        out: &mut Vec<u8>,
        named: &mut Vec<(i32, usize)>,
    ) -> Option<Self> {
        let mut part = Part::new(source.access, source.names);
        match self {
            Self::Status(at) => {
                each_function(source.engine, at, &mut part, Self::Status, |function| {
                    text(out, &[&function.name, b"\t"]);
                    numbers(out, &[function.total(), function.running, function.workers]);
                });
            }
            Self::PriorityStatus(at) => {
                each_function(source.engine, at, &mut part, Self::PriorityStatus, |function| {
                    let [high, normal, low] =
                        function.queues.each_ref().map(|queue| queue.len + queue.delayed);
                    text(out, &[&function.name, b"\t"]);
                    numbers(out, &[high, normal, low, function.workers]);
                });
            }
            Self::Functions(at) => return functions(at, source, out),
            Self::Jobs(at) => {
                let Source { engine, handles, .. } = source;
                for (at, job) in engine.jobs().iter_from(at) {
                    if !part.takes(Self::Jobs(at)) {
                        break;
                    }
                    if !part.shows(job.function, &engine.function_of(job).name) {
                        continue;
                    }
                    text(out, &[handles.text(job.number).as_ref(), b"\t"]);
                    let is_background = job.is_background().into();
                    numbers(out, &[job.attempts.into(), ignored(engine, job), is_background]);
                    part.count_row();
                }
            }
            Self::UniqueJobs(at) => {
                let engine = &*source.engine;
                for (at, job) in engine.jobs().iter_from(at) {
                    if !part.takes(Self::UniqueJobs(at)) {
                        break;
                    }
                    if part.shows(job.function, &engine.function_of(job).name) {
                        text(out, &[job.unique(), b"\n"]);
                        part.count_row();
                    }
                }
            }
            Self::Running(at) => {
                for (at, job) in source.engine.jobs().iter_from(at) {
                    if !part.takes(Self::Running(at)) {
                        break;
                    }
                    let function = &source.engine.function_of(job).name;
                    if job.state == State::Running && part.shows(job.function, function) {
                        running(source, job, out);
                        part.count_row();
                    }
                }
            }
            Self::Dead(at) => {
                let Source { engine, handles, .. } = source;
                for (at, letter) in engine.dead().iter_from(at) {
                    if !part.takes(Self::Dead(at)) {
                        break;
                    }
                    let function = &engine.function_of_dead(letter).name;
                    if part.shows(letter.job.function, function) {
                        dead(handles, function, letter, out);
                        part.count_row();
                    }
                }
            }
            Self::Retrying(at) => delayed(source, at, &mut part, true, out),
            Self::Delayed(at) => delayed(source, at, &mut part, false, out),
            Self::Workers(at) => {
                let resume = |conn| Self::Workers(ConnectionsAt { conn, ..at });
                for row in source.connections.rows(at) {
                    if !part.takes(resume(row.conn)) {
                        break;
                    }
                    // Writing to memory can't fail.
                    let _ = match row.peer.ip() {
                        Some(address) => write!(out, "{} {address} ", row.fd),
                        // Programs that read this list may take a colon for the end of the id.
                        None => write!(out, "{} unix ", row.fd),
                    };
                    text(out, &[row.session.id(), b" :"]);
                    let functions = source.engine.functions_of(row.conn);
                    for function in functions.chain(row.functions_elsewhere) {
                        text(out, &[b" ", function]);
                    }
                    out.push(b'\n');
                    named.push((row.fd, out.len()));
                    part.count_row();
                }
            }
            Self::Connections(at) => {
                let resume = |conn| Self::Connections(ConnectionsAt { conn, ..at });
                for row in source.connections.rows(at) {
                    if !part.takes(resume(row.conn)) {
                        break;
                    }
                    connection(source.engine, &row, out);
                    named.push((row.fd, out.len()));
                    part.count_row();
                }
            }
        }
        part.next
    }
}

/// Writes a row for each function from `at` on.
fn each_function(
    engine: &Engine,
    at: FunctionId,
    part: &mut Part<'_>,
    listing: impl Fn(FunctionId) -> Listing,
    mut write: impl FnMut(&Function),
) {
    for (at, function) in engine.functions().iter_from(at) {
        if !part.takes(listing(at)) {
            break;
        }
        if part.shows(at, &function.name) {
            write(function);
            part.count_row();
        }
    }
}

/// The next part of `show functions`.
fn functions<C>(at: FunctionsAt, source: &mut Source<'_, C>, out: &mut Vec<u8>) -> Option<Listing> {
    let Source { engine, now, .. } = source;
    let pass = match at {
        FunctionsAt::Start => engine.due_pass(),
        FunctionsAt::Dues(pass) => Some(pass),
        FunctionsAt::Row(_) => None,
    };
    if let Some(rest) = pass.and_then(|pass| engine.find_next_dues(pass)) {
        return Some(Listing::Functions(FunctionsAt::Dues(rest)));
    }
    let at = if let FunctionsAt::Row(at) = at { at } else { FunctionId::FIRST };
    let mut part = Part::new(source.access, source.names);
    let listing = |at| Listing::Functions(FunctionsAt::Row(at));
    each_function(engine, at, &mut part, listing, |function| {
        name(out, &function.name);
        for queue in &function.queues {
            out.push(b'\t');
            number(out, queue.len);
        }
        text(out, &[b"\t"]);
        number(out, function.running);
        text(out, &[b"\t"]);
        number(out, function.workers);
        text(out, &[b"\t"]);
        let oldest_ms = engine.oldest_ms(function);
        age(out, oldest_ms.map(|since_ms| now.unix_ms.saturating_sub(since_ms)));
        text(out, &[b"\t"]);
        number(out, function.delayed);
        text(out, &[b"\t"]);
        let due_s = (function.next_due_s < u32::MAX).then_some(function.next_due_s);
        moment(out, due_s.map(|due_s| u64::from(due_s) * 1000));
        text(out, &[b"\t"]);
        numbers(out, &[function.storing, function.kept]);
    });
    part.next
}

/// A row of `show running`.
fn running(source: &Source<'_, impl ConnectionRows>, job: &Job, out: &mut Vec<u8>) {
    let Source { engine, handles, connections, now, .. } = source;
    text(out, &[handles.text(job.number).as_ref(), b"\t"]);
    name(out, &engine.function_of(job).name);
    out.push(b'\t');
    match connections.row(engine.worker_of(job)) {
        Some(row) => {
            // Writing to memory can't fail.
            let _ = write!(out, "{}\t", row.peer);
            name(out, row.session.id());
        }
        None => out.extend_from_slice(b"-\t-"),
    }
    out.push(b'\t');
    moment(out, Some(now.unix_ms.saturating_sub(job.run_ms(*now).into())));
    out.push(b'\t');
    moment(out, Some(job.submitted_ms()));
    out.push(b'\t');
    number(out, job.attempts);
    out.push(b'\t');
    name(out, job.unique());
    out.push(b'\n');
}

/// The next rows of `show retrying`, or of `show delayed`.
fn delayed<C>(
    source: &Source<'_, C>,
    at: JobId,
    part: &mut Part<'_>,
    retrying: bool,
    out: &mut Vec<u8>,
) {
    let Source { engine, handles, .. } = source;
    for (at, job) in engine.jobs().iter_from(at) {
        if !part.takes(if retrying { Listing::Retrying(at) } else { Listing::Delayed(at) }) {
            break;
        }
        let function = &engine.function_of(job).name;
        if job.state != State::Delayed
            || (job.attempts > 0) != retrying
            || !part.shows(job.function, function)
        {
            continue;
        }
        text(out, &[handles.text(job.number).as_ref(), b"\t"]);
        name(out, function);
        out.push(b'\t');
        name(out, job.unique());
        out.push(b'\t');
        number(out, job.attempts);
        out.push(b'\t');
        moment(out, Some(job.run_at_ms()));
        let reason = job.last_reason.map_or("-", Reason::name);
        text(out, &[b"\t", reason.as_bytes(), b"\n"]);
        part.count_row();
    }
}

/// A row of `show dead`.
fn dead(handles: &Handles, function: &[u8], letter: &DeadLetter, out: &mut Vec<u8>) {
    let DeadLetter { job, reason, died_ms, worker, .. } = letter;
    text(out, &[handles.text(job.number).as_ref(), b"\t"]);
    name(out, function);
    out.push(b'\t');
    name(out, job.unique());
    let priority = match job.priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    };
    text(out, &[b"\t", priority.as_bytes(), b"\t"]);
    number(out, job.attempts);
    text(out, &[b"\t", reason.name().as_bytes(), b"\t"]);
    moment(out, Some(*died_ms));
    out.push(b'\t');
    number(out, job.payload().bytes().len());
    out.push(b'\t');
    name(out, worker);
    out.push(b'\n');
}

/// A row of `show connections`.
fn connection(engine: &Engine, row: &ConnectionRow<'_>, out: &mut Vec<u8>) {
    // Writing to memory can't fail.
    let _ = write!(out, "{}\t{}\t", row.fd, row.peer);
    name(out, row.session.id());
    out.push(b'\t');
    number(out, row.session.since_s());
    out.push(b'\t');
    number(out, engine.functions_of(row.conn).count() + row.functions_elsewhere.len());
    out.push(b'\t');
    number(out, engine.running_of(row.conn) + row.jobs_elsewhere);
    out.push(b'\t');
    number(out, row.unsent_bytes);
    out.push(b'\n');
}

/// gearmand marks jobs without clients as ignored; here they are removed unless they are running.
fn ignored(engine: &Engine, job: &Job) -> u32 {
    u32::from(job.state == State::Running && !engine.is_wanted(job))
}
