//! Jobs that outlive their server: real processes on real databases, killed, locked out, replaced.
//!
//! Here is what all of these tests share: a job's way in and out on the wire, a database of its own
//! for each test, and the way to start a server on it again.

mod failover;
mod faults;
mod finished;
mod gearmand;
mod handles;
mod outage;
mod owners;
mod policies;
mod refusals;
mod restart;
mod standby;

pub(crate) use self::standby::url;

use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

use crate::conn::{Conn, Item};
use crate::harness::{Contender, PATIENCE, Server, wait_until};

/// Both ways to end a server.
const SIGNALS: [&str; 2] = ["TERM", "KILL"];

/// A SQLite database, gone with its folder at the end.
pub(crate) struct Database {
    folder: TempDir,
    /// For `--store`.
    store: String,
}

impl Database {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = format!("sqlite:{}", folder.path().join("jobs.db").display());
        Self { folder, store }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("jobs.db")
    }

    /// Starts a server on it.
    pub(crate) fn serve(&self, contender: Contender, options: &[&str]) -> Server {
        start(contender, &[&["--store", &self.store], options].concat())
    }

    /// The first column of what a query finds, as a shell would see it now.
    fn select<T: rusqlite::types::FromSql>(&self, sql: &str) -> Vec<T> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let shell = Connection::open_with_flags(self.path(), flags).expect("a database");
        shell.busy_timeout(PATIENCE).expect("an option");
        let mut select = shell.prepare(sql).expect("a query");
        let values = select.query_map([], |row| row.get(0)).expect("its rows");
        values.collect::<Result<_, _>>().expect("values")
    }

    /// Another program that writes to the database and doesn't come to an end.
    fn lock(&self) -> Connection {
        let other = Connection::open(self.path()).expect("a database");
        other.busy_timeout(PATIENCE).expect("an option");
        other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        other
    }
}

fn start(contender: Contender, options: &[&str]) -> Server {
    Server::start_with(contender, options).expect("this project's own")
}

/// Ends a server with `TERM` or `KILL`.
fn end(server: Server, signal: &str) {
    match signal {
        "TERM" => server.stop(),
        _ => server.kill(),
    }
}

/// A job as a worker gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Assigned {
    handle: String,
    function: String,
    unique: String,
    reducer: String,
    payload: Vec<u8>,
}

/// Submits with a named packet; gives the handle.
fn submit(conn: &mut Conn, name: &str, arguments: &[&[u8]]) -> String {
    conn.packet(name, arguments);
    created(conn)
}

/// The handle in the answer to a submission.
fn created(conn: &mut Conn) -> String {
    match conn.next() {
        Ok(Item::Packet(8, handle)) => String::from_utf8(handle).expect("a readable handle"),
        other => panic!("no JOB_CREATED: {other:?}"),
    }
}

/// Submits in the background without a unique key.
fn submit_bg(conn: &mut Conn, function: &str, payload: &str) -> String {
    submit(conn, "SUBMIT_JOB_BG", &[function.as_bytes(), b"", payload.as_bytes()])
}

/// Whether the packet is an ERROR with this code.
fn is_error(item: &Item, code: &str) -> bool {
    matches!(item, Item::Packet(19, body) if body.starts_with(&[code.as_bytes(), b"\0"].concat()))
}

/// A worker for some functions.
fn worker(server: &Server, functions: &[&str]) -> Conn {
    let mut conn = Conn::open(server.address());
    for function in functions {
        conn.packet("CAN_DO", &[function.as_bytes()]);
    }
    conn
}

/// Asks for a job; `None` if there is none.
fn grab(worker: &mut Conn) -> Option<Assigned> {
    worker.packet("GRAB_JOB_ALL", &[]);
    let (packet_type, body) = match worker.next() {
        Ok(Item::Packet(10, _)) => return None,
        Ok(Item::Packet(packet_type, body)) => (packet_type, body),
        other => panic!("no answer to GRAB_JOB_ALL: {other:?}"),
    };
    let fields = match packet_type {
        31 => 4,
        40 => 5,
        other => panic!("packet {other} instead of a job"),
    };
    let mut parts: Vec<Vec<u8>> =
        body.splitn(fields, |&byte| byte == 0).map(<[u8]>::to_vec).collect();
    let payload = parts.pop().expect("a payload");
    let mut texts = parts.into_iter().map(|part| String::from_utf8(part).expect("text"));
    let mut next = || texts.next().unwrap_or_default();
    Some(Assigned { handle: next(), function: next(), unique: next(), reducer: next(), payload })
}

fn complete(worker: &mut Conn, job: &Assigned) {
    worker.packet("WORK_COMPLETE", &[job.handle.as_bytes(), b"done"]);
}

/// Runs all jobs that there are, in the order in which the server gives them.
fn drain(server: &Server, functions: &[&str]) -> Vec<Assigned> {
    let mut worker = worker(server, functions);
    let mut jobs = Vec::new();
    while let Some(job) = grab(&mut worker) {
        complete(&mut worker, &job);
        jobs.push(job);
    }
    worker.sync().expect("it lives");
    jobs
}

/// The payloads of all jobs that there are, as text.
pub(crate) fn drain_texts(server: &Server, functions: &[&str]) -> Vec<String> {
    let text = |job: Assigned| String::from_utf8(job.payload).expect("text");
    drain(server, functions).into_iter().map(text).collect()
}

/// What GET_STATUS says: known, running.
fn status(conn: &mut Conn, handle: &str) -> (bool, bool) {
    conn.packet("GET_STATUS", &[handle.as_bytes()]);
    match conn.next() {
        Ok(Item::Packet(20, body)) => {
            let fields: Vec<&[u8]> = body.split(|&byte| byte == 0).collect();
            assert_eq!((fields.len(), fields[0]), (5, handle.as_bytes()));
            (fields[1] == b"1", fields[2] == b"1")
        }
        other => panic!("no STATUS_RES: {other:?}"),
    }
}

fn is_known(conn: &mut Conn, handle: &str) -> bool {
    status(conn, handle).0
}

/// Takes a job and leaves with it; comes back when the server has noticed.
fn lose(server: &Server, function: &str) -> Assigned {
    let mut unlucky = worker(server, &[function]);
    let job = grab(&mut unlucky).expect("a job");
    drop(unlucky);
    let mut conn = Conn::open(server.address());
    wait_until("the loss", || (!status(&mut conn, &job.handle).1).then_some(()));
    job
}

/// A foreground job goes through, from submission to result.
fn run_in_foreground(client: &mut Conn, worker: &mut Conn, payload: &str) {
    client.packet("SUBMIT_JOB", &[b"front", b"", payload.as_bytes()]);
    let handle = created(client);
    let job = grab(worker).expect("the job");
    assert_eq!((&*job.handle, &*job.payload), (&*handle, payload.as_bytes()));
    complete(worker, &job);
    let result = [handle.as_bytes(), b"\0done"].concat();
    assert_eq!(client.next().ok(), Some(Item::Packet(13, result)));
}
