//! Clients and workers of a cluster: addresses in, a ledger of what they were told out.
//!
//! A submitter has one durable job in flight, goes on at the next server after an error or silence,
//! and returns to its own server every so often. A worker belongs to one server.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::child::wait_until;
use crate::conn::{Conn, Item, Silence};
use crate::ledger::Ledger;
use crate::{IMPATIENCE, PATIENCE};

/// The function of the jobs that submitters submit.
pub(crate) const LOAD: &str = "load";

/// How long a connection may take to be made.
const CONNECTING: Duration = Duration::from_secs(1);
/// Time between two tries of a worker to connect, and between two jobs of a submitter: what is
/// tested is what becomes of jobs and not how many there are.
const PAUSE: Duration = Duration::from_millis(50);
const PACE: Duration = Duration::from_millis(3);
/// How long a worker waits for an answer to GRAB_JOB, and for NOOP before it asks again.
const ANSWERED: Duration = Duration::from_secs(2);
const ASLEEP: Duration = Duration::from_secs(1);
/// Jobs after which a submitter returns to its own server.
const JOBS_ELSEWHERE: u32 = 100;
/// Every so many-th job takes its worker so long.
const LONG: (u64, Duration) = (16, Duration::from_millis(30));

const JOB_CREATED: u32 = 8;
const NOOP: u32 = 6;
const NO_JOB: u32 = 10;
const JOB_ASSIGN: u32 = 11;
const ERROR: u32 = 19;
const STATUS_RES: u32 = 20;

/// Something that ends once, and can be waited for.
#[derive(Default)]
pub(crate) struct Flag {
    is_set: Mutex<bool>,
    changed: Condvar,
}

impl Flag {
    fn set(&self) {
        *self.is_set.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn is_set(&self) -> bool {
        *self.is_set.lock().unwrap()
    }

    /// Waits until it is set, for as long as `longest`.
    fn wait(&self, longest: Duration) {
        let is_set = self.is_set.lock().unwrap();
        drop(self.changed.wait_timeout_while(is_set, longest, |is_set| !*is_set).unwrap());
    }
}

/// What a server answers to a submission.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Created(Vec<u8>),
    Refused(Vec<u8>),
    /// The connection ended, or nothing came.
    Unknown,
}

/// A connection of a client.
pub(crate) struct Client(pub(crate) Conn);

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Option<Self> {
        Conn::try_open(address, CONNECTING).ok().map(Self)
    }

    pub(crate) fn send_job(&mut self, function: &str, number: u64) {
        let payload = number.to_string();
        self.0.packet("SUBMIT_JOB_BG", &[function.as_bytes(), b"", payload.as_bytes()]);
    }

    pub(crate) fn answer(&mut self, patience: Duration) -> Answer {
        match self.0.next_within(patience) {
            Ok(Item::Packet(JOB_CREATED, handle)) => Answer::Created(handle),
            Ok(Item::Packet(ERROR, error)) => Answer::Refused(error),
            Ok(Item::End) | Err(Silence) => Answer::Unknown,
            Ok(other) => panic!("to a submission: {other:?}"),
        }
    }

    /// Whether a server knows a job, and whether the job runs; `None` without an answer.
    pub(crate) fn status(&mut self, handle: &str) -> Option<(bool, bool)> {
        self.0.packet("GET_STATUS", &[handle.as_bytes()]);
        let Ok(Item::Packet(STATUS_RES, body)) = self.0.next_within(ANSWERED) else { return None };
        let parts: Vec<&[u8]> = body.split(|&byte| byte == 0).collect();
        assert_eq!(parts[0], handle.as_bytes(), "of another job");
        Some((parts[1] == b"1", parts[2] == b"1"))
    }
}

/// A connection of a worker of one function.
pub(crate) struct Worker {
    conn: Conn,
    server: usize,
}

/// A job that a worker has got.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) handle: Vec<u8>,
    pub(crate) number: u64,
}

/// What comes of asking for a job.
#[derive(Debug)]
pub(crate) enum Grab {
    Job(Job),
    None,
    /// The connection ended, or nothing came.
    Unknown,
}

impl Worker {
    pub(crate) fn connect(server: usize, address: SocketAddr, function: &str) -> Option<Self> {
        let mut conn = Conn::try_open(address, CONNECTING).ok()?;
        conn.packet("CAN_DO", &[function.as_bytes()]);
        Some(Self { conn, server })
    }

    pub(crate) fn ask(&mut self) {
        self.conn.packet("GRAB_JOB", &[]);
    }

    /// The answer to `ask`; a job is noted as run.
    pub(crate) fn answer(&mut self, patience: Duration, ledger: &Ledger) -> Grab {
        loop {
            match self.conn.next_within(patience) {
                Ok(Item::Packet(NOOP, _)) => {}
                Ok(Item::Packet(NO_JOB, _)) => return Grab::None,
                Ok(Item::Packet(JOB_ASSIGN, body)) => {
                    let mut parts = body.splitn(3, |&byte| byte == 0);
                    let [handle, _, payload] = [(); 3].map(|()| parts.next().expect("a part"));
                    let payload = std::str::from_utf8(payload).expect("a number");
                    let number = payload.parse().expect("a number");
                    ledger.begins(number, self.server, handle);
                    return Grab::Job(Job { handle: handle.to_vec(), number });
                }
                Ok(Item::End) | Err(Silence) => return Grab::Unknown,
                Ok(other) => panic!("to a worker: {other:?}"),
            }
        }
    }

    pub(crate) fn grab(&mut self, ledger: &Ledger) -> Grab {
        self.ask();
        self.answer(ANSWERED, ledger)
    }

    pub(crate) fn complete(&mut self, job: &Job, ledger: &Ledger) {
        self.conn.packet("WORK_COMPLETE", &[&job.handle, b""]);
        ledger.ends(job.number, self.server);
    }

    /// Sleeps until the server wakes it up, for a while; whether the connection is there.
    fn sleep(&mut self) -> bool {
        self.conn.packet("PRE_SLEEP", &[]);
        !matches!(self.conn.next_within(ASLEEP), Ok(Item::End))
    }
}

/// Submits one job and waits for its acknowledgement.
pub(crate) fn submit(address: SocketAddr, function: &str, ledger: &Ledger) -> (u64, String) {
    let number = ledger.new_job();
    let mut client = Client::connect(address).expect("the server listens");
    client.send_job(function, number);
    let Answer::Created(handle) = client.answer(PATIENCE) else { panic!("no JOB_CREATED") };
    ledger.acknowledged(number, &handle);
    (number, String::from_utf8(handle).unwrap())
}

/// Submits jobs until one is acknowledged.
pub(crate) fn insist(address: SocketAddr, function: &str, ledger: &Ledger) {
    wait_until("an acknowledgement", || {
        let number = ledger.new_job();
        let mut client = Client::connect(address)?;
        client.send_job(function, number);
        let Answer::Created(handle) = client.answer(IMPATIENCE) else { return None };
        ledger.acknowledged(number, &handle);
        Some(())
    });
}

/// Submits jobs to one server; their numbers.
pub(crate) fn submit_many(
    address: SocketAddr,
    function: &str,
    count: u32,
    ledger: &Ledger,
) -> Vec<u64> {
    let mut client = Client::connect(address).expect("the server listens");
    let numbers: Vec<u64> = (0..count).map(|_| ledger.new_job()).collect();
    for &number in &numbers {
        client.send_job(function, number);
    }
    for &number in &numbers {
        let answer = client.answer(PATIENCE);
        let Answer::Created(handle) = answer else { panic!("no JOB_CREATED: {answer:?}") };
        ledger.acknowledged(number, &handle);
    }
    numbers
}

/// Submitters and workers that run until they are ended.
pub(crate) struct Load {
    ledger: Arc<Ledger>,
    submitting: Arc<Flag>,
    working: Arc<Flag>,
    submitters: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.submitting.set();
        self.working.set();
    }
}

impl Load {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            submitting: Arc::default(),
            working: Arc::default(),
            submitters: Vec::new(),
            workers: Vec::new(),
        }
    }

    /// Submitters at each of the servers, and workers of their jobs.
    pub(crate) fn on(servers: &[SocketAddr], ledger: &Arc<Ledger>, patience: Duration) -> Self {
        let mut load = Self::new(ledger);
        for _ in 0..2 {
            load.submit(servers, patience);
            load.work(servers, 0..servers.len(), LOAD);
        }
        load
    }

    /// Starts a submitter at each of the servers, which waits for answers so long.
    pub(crate) fn submit(&mut self, servers: &[SocketAddr], patience: Duration) {
        for own in 0..servers.len() {
            let (ledger, ends) = (Arc::clone(&self.ledger), Arc::clone(&self.submitting));
            let servers = servers.to_vec();
            let submit = move || submit_until(&ends, &servers, own, patience, &ledger);
            self.submitters.push(thread::spawn(submit));
        }
    }

    /// Starts a worker at each of the servers that have these places in the list.
    pub(crate) fn work(&mut self, servers: &[SocketAddr], which: Range<usize>, function: &str) {
        for server in which {
            let address = servers[server];
            let (ledger, ends) = (Arc::clone(&self.ledger), Arc::clone(&self.working));
            let function = function.to_owned();
            let work = move || work_until(&ends, server, address, &function, &ledger);
            self.workers.push(thread::spawn(work));
        }
    }

    /// Ends the submitters, and the workers once there is nothing left to do.
    pub(crate) fn end(mut self) {
        self.submitting.set();
        for submitter in self.submitters.drain(..) {
            submitter.join().expect("no panic");
        }
        // The verdict tells what is left.
        self.ledger.wait_until_all_ran(PATIENCE);
        self.working.set();
        for worker in self.workers.drain(..) {
            worker.join().expect("no panic");
        }
    }
}

fn submit_until(
    ends: &Flag,
    servers: &[SocketAddr],
    own: usize,
    patience: Duration,
    ledger: &Ledger,
) {
    let mut at = own;
    while !ends.is_set() {
        if let Some(mut client) = Client::connect(servers[at]) {
            let mut jobs = 0;
            while !ends.is_set() && (at == own || jobs < JOBS_ELSEWHERE) {
                let number = ledger.new_job();
                client.send_job(LOAD, number);
                match client.answer(patience) {
                    Answer::Created(handle) => ledger.acknowledged(number, &handle),
                    Answer::Refused(error) => {
                        ledger.refused(at, &error);
                        break;
                    }
                    Answer::Unknown => break,
                }
                jobs += 1;
                ends.wait(PACE);
            }
            if jobs == JOBS_ELSEWHERE && at != own {
                at = own;
                continue;
            }
        }
        at = (at + 1) % servers.len();
        ends.wait(PACE);
    }
}

fn work_until(ends: &Flag, server: usize, address: SocketAddr, function: &str, ledger: &Ledger) {
    while !ends.is_set() {
        let Some(mut worker) = Worker::connect(server, address, function) else {
            ends.wait(PAUSE);
            continue;
        };
        while !ends.is_set() {
            match worker.grab(ledger) {
                Grab::Job(job) => {
                    if job.number.is_multiple_of(LONG.0) {
                        ends.wait(LONG.1);
                    }
                    worker.complete(&job, ledger);
                }
                Grab::None if worker.sleep() => {}
                Grab::None | Grab::Unknown => break,
            }
        }
    }
}
