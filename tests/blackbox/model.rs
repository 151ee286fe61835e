//! What a Gearman server must answer, for deeds that come one at a time: a shadow of all of it.
//!
//! Written from the protocol and the pages in `docs`; shares nothing with the server. A deed and
//! what came in answer go in; a difference comes out as a sentence. Handles are learned from
//! JOB_CREATED. Where the server has a choice (which sleeper to wake, which function's turn it is)
//! the model states what must hold of it. Invariant: after `end` all that came has been accounted
//! for.

mod admin;
mod restart;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::check::{compare_works, difference};
use crate::conn::{Item, packet_type, readable};
use crate::connection::Received;
use crate::operations::{Bytes, Request, Submission};

/// A broken promise, in words.
pub(crate) type Checked<T> = Result<T, String>;

/// The place of a connection.
pub(crate) type Place = usize;

/// The server's options that the model has to know.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) cores: usize,
    /// `--worker-wakeup`, if given.
    pub(crate) wakeup: Option<usize>,
    /// `--job-retries`, if given.
    pub(crate) attempts_max: Option<u32>,
    pub(crate) exceptions: bool,
    /// The server is Debian's gearmand.
    pub(crate) gearmand: bool,
    pub(crate) pid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    Delayed,
    Running { worker: Place, since: u64 },
}

#[derive(Clone, Debug)]
struct Job {
    /// Grows with each job.
    serial: u64,
    function: Bytes,
    unique: Bytes,
    reducer: Bytes,
    payload: Bytes,
    priority: usize,
    background: bool,
    cancelled: bool,
    /// One entry for each foreground submission.
    clients: Vec<Place>,
    state: State,
    attempts: u32,
    /// Of its attempts, those that a store has for certain.
    attempts_kept: u32,
    progress: (u32, u32),
}

impl Job {
    fn runs(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn is_wanted(&self) -> bool {
        !self.cancelled && (self.background || !self.clients.is_empty())
    }

    /// A store, if there is one, has it.
    fn is_kept(&self) -> bool {
        self.background && !self.cancelled
    }
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Bytes>,
    /// Since when it has held a job without a break.
    since: u64,
}

#[derive(Debug, Default)]
struct Function {
    queues: [Queue; 3],
    queue_max: [usize; 3],
}

impl Function {
    fn queued(&self) -> usize {
        self.queues.iter().map(|queue| queue.jobs.len()).sum()
    }
}

#[derive(Debug)]
struct Ability {
    since: u64,
    /// When a job was last taken by it, for each priority.
    served: [u64; 3],
}

/// Whether a worker sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Nap {
    #[default]
    Awake,
    Asleep,
    /// It got a NOOP and hasn't acted since.
    Woken,
}

#[derive(Debug)]
struct Peer {
    abilities: BTreeMap<Bytes, Ability>,
    nap: Nap,
    /// It slept when the step began, or has fallen asleep in it.
    may_be_woken: bool,
    exceptions: bool,
    /// The job of its last packet in this step, if that was WORK_EXCEPTION.
    excepted: Option<Bytes>,
    id: Bytes,
}

/// The shadow of a server.
#[derive(Debug)]
pub(crate) struct Model {
    rules: Rules,
    functions: BTreeMap<Bytes, Function>,
    jobs: BTreeMap<Bytes, Job>,
    /// Jobs that have ended, and that a store may have still.
    ended: BTreeMap<Bytes, Job>,
    peers: BTreeMap<Place, Peer>,
    /// Handles of all jobs that ever were.
    handles: Vec<Bytes>,
    received: BTreeMap<Place, Received>,
    /// Answers that haven't been asked for yet.
    replies: VecDeque<Item>,
    /// What clients are to get; packets of one group may come in any order.
    works: BTreeMap<Place, Vec<(u64, Item)>>,
    /// Grows with everything that happens.
    clock: u64,
    serial: u64,
    /// Wake-ups that the step has reason for.
    wakes_due: usize,
    /// Functions that got a job in the step.
    enqueued: BTreeSet<Bytes>,
}

impl Model {
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            rules,
            functions: BTreeMap::new(),
            jobs: BTreeMap::new(),
            ended: BTreeMap::new(),
            peers: BTreeMap::new(),
            handles: Vec::new(),
            received: BTreeMap::new(),
            replies: VecDeque::new(),
            works: BTreeMap::new(),
            clock: 1,
            serial: 0,
            wakes_due: 0,
            enqueued: BTreeSet::new(),
        }
    }

    pub(crate) fn connect(&mut self, place: Place) {
        let peer = Peer {
            abilities: BTreeMap::new(),
            nap: Nap::Awake,
            may_be_woken: false,
            exceptions: self.rules.exceptions,
            excepted: None,
            id: b"-".to_vec(),
        };
        self.peers.insert(place, peer);
    }

    /// What came while `place` acted.
    pub(crate) fn begin(&mut self, place: Place, mut received: BTreeMap<Place, Received>) {
        self.replies =
            received.get_mut(&place).map(|own| own.replies.drain(..).collect()).unwrap_or_default();
        self.received = received;
        self.works.clear();
        self.wakes_due = 0;
        self.enqueued.clear();
        for peer in self.peers.values_mut() {
            // gearmand may wake a worker again that hasn't grabbed.
            let again = self.rules.gearmand && peer.nap == Nap::Woken;
            peer.may_be_woken = peer.nap == Nap::Asleep || again;
            // The barriers between steps are packets, too.
            peer.excepted = None;
        }
    }

    /// A request of `place`, whose answer must be the next one.
    pub(crate) fn handle(&mut self, place: Place, request: &Request) -> Checked<()> {
        self.clock += 1;
        if self.repeats_failure(place, request) {
            return Ok(());
        }
        match request {
            Request::Submit(submission) => self.submit(place, submission),
            Request::CanDo { function, .. } => {
                self.can_do(place, function);
                Ok(())
            }
            Request::CantDo { function } => {
                self.cant_do(place, function);
                Ok(())
            }
            Request::ResetAbilities => {
                self.reset(place);
                Ok(())
            }
            Request::Grab(name) => self.grab(place, name),
            Request::PreSleep => {
                self.pre_sleep(place);
                Ok(())
            }
            Request::Work { name, handle, rest } => {
                self.work(place, name, handle, rest, &request.work_body())
            }
            Request::GetStatus { handle } => self.status(c_string(handle)),
            Request::GetStatusUnique { unique } => self.status_unique(unique),
            Request::Option { name } => {
                if !name.eq_ignore_ascii_case(b"exceptions") {
                    let text = "Server does not recognize given option";
                    return self.expect_error("UNKNOWN_OPTION", text);
                }
                self.peer(place).exceptions = true;
                self.expect_packet("OPTION_RES", &[name])
            }
            Request::Echo { payload } => self.expect_packet("ECHO_RES", &[payload]),
            Request::SetClientId { id } => {
                self.peer(place).id = id[..id.len().min(127)].to_vec();
                Ok(())
            }
            Request::Unexpected(_) => self.expect_error("INVALID_COMMAND", "Command not expected"),
            Request::WrongMagic => self.expect_error("INVALID_MAGIC", "Request magic expected"),
            Request::Text { line, .. } => self.text(line),
        }
    }

    /// Whether a packet says once more what the one before it said, which only ringgear ignores.
    fn repeats_failure(&mut self, place: Place, request: &Request) -> bool {
        if let Request::Text { .. } = request {
            return false;
        }
        let excepted = self.peer(place).excepted.take();
        let Request::Work { name, handle, .. } = request else { return false };
        let handle = c_string(handle).to_vec();
        if *name == "WORK_EXCEPTION" && self.handles.contains(&handle) {
            self.peer(place).excepted = Some(handle);
            return false;
        }
        *name == "WORK_FAIL" && !self.rules.gearmand && excepted == Some(handle)
    }

    /// The server has closed the connection.
    pub(crate) fn expect_end(&mut self) -> Checked<()> {
        self.expect(&Item::End)
    }

    /// After all that came with the step has been gone through, but for wake-ups.
    pub(crate) fn end(&mut self) -> Checked<()> {
        if let Some(item) = self.replies.pop_front() {
            return Err(format!("nothing was asked for that {item:?} answers"));
        }
        for (place, received) in std::mem::take(&mut self.received) {
            if let Some(item) = received.replies.first() {
                return Err(format!("c{place} asked for nothing and got {item:?}"));
            }
            let due = self.works.remove(&place).unwrap_or_default();
            compare_works(due, received.works).map_err(|e| format!("c{place}: {e}"))?;
            self.see_noops(place, received.noops)?;
        }
        if let Some((place, due)) = self.works.iter().find(|(_, due)| !due.is_empty()) {
            return Err(format!("c{place} should have got {due:?}"));
        }
        Ok(())
    }

    /// What came in a later look, which can only be wake-ups.
    pub(crate) fn later(&mut self, received: BTreeMap<Place, Received>) -> Checked<()> {
        for (place, received) in received {
            if let Some(item) = received.replies.first().or_else(|| received.works.first()) {
                return Err(format!("c{place} got {item:?} only after the barriers"));
            }
            self.see_noops(place, received.noops)?;
        }
        Ok(())
    }

    /// A peer is gone.
    pub(crate) fn leave(&mut self, place: Place) {
        self.clock += 1;
        for (handle, job) in self.jobs.clone() {
            let attached = job.clients.contains(&place);
            let job = self.job(&handle);
            job.clients.retain(|&client| client != place);
            if attached && !job.runs() && !job.is_wanted() {
                self.remove(&handle);
            }
        }
        self.reset(place);
        self.peers.remove(&place);
        self.works.remove(&place);
        self.received.remove(&place);
    }

    fn submit(&mut self, place: Place, submission: &Submission) -> Checked<()> {
        let Submission { function, unique, reducer, payload, .. } = submission;
        let reducer: &[u8] = if submission.reduces() { reducer } else { b"" };
        if unique.len() > 64 || reducer.len() > 64 {
            return self.expect_error("ARGUMENT_TOO_LARGE", "Unique value too large");
        }
        let epoch = if submission.has_epoch() { decimal(&submission.epoch) } else { 0 };
        self.functions.entry(function.clone()).or_default();
        if let Some(handle) = self.equal(function, unique, payload) {
            // gearmand's stays a foreground job.
            let gearmand = self.rules.gearmand;
            let job = self.job(&handle);
            if !submission.background() {
                job.clients.push(place);
            } else if !job.background && !gearmand {
                job.background = true;
                self.commit();
            }
            return self.expect_packet("JOB_CREATED", &[&handle]);
        }
        let priority = submission.priority();
        let max = self.functions[function].queue_max[priority];
        if max > 0 && self.jobs_of(function).count() >= max {
            return self.expect_error("QUEUE_ERROR", "Job queue is full");
        }
        let handle = self.learn_handle()?;
        self.serial += 1;
        let job = Job {
            serial: self.serial,
            function: function.clone(),
            unique: unique.clone(),
            reducer: reducer.to_vec(),
            payload: payload.clone(),
            priority,
            background: submission.background(),
            cancelled: false,
            clients: if submission.background() { Vec::new() } else { vec![place] },
            state: State::Delayed,
            attempts: 0,
            attempts_kept: 0,
            progress: (0, 0),
        };
        self.jobs.insert(handle.clone(), job);
        if submission.background() {
            self.commit();
        }
        // Times are long past or so far away that no run sees them.
        if epoch <= FAR_FUTURE_S {
            self.enqueue(&handle, false);
        }
        Ok(())
    }

    /// JOB_CREATED with a handle that no job has had.
    fn learn_handle(&mut self) -> Checked<Bytes> {
        let Some(item) = self.replies.pop_front() else {
            return Err("no answer to a submission".to_owned());
        };
        let created = packet_type("JOB_CREATED").expect("a packet's name");
        let handle = match item {
            Item::Packet(number, ref body) if number == created => body.clone(),
            item => return Err(format!("a new job should be made, but there came {item:?}")),
        };
        let sound = handle.len() < 64
            && handle.iter().all(u8::is_ascii_graphic)
            && handle.iter().rposition(|&byte| byte == b':').is_some_and(|colon| {
                let number = &handle[colon + 1..];
                !number.is_empty() && number.iter().all(u8::is_ascii_digit)
            });
        if !sound || self.handles.contains(&handle) {
            return Err(format!("{} is no new handle", readable(&handle)));
        }
        self.handles.push(handle.clone());
        Ok(handle)
    }

    /// The job that a submission joins.
    fn equal(&self, function: &[u8], unique: &[u8], payload: &[u8]) -> Option<Bytes> {
        if unique.is_empty() || (unique == b"-" && payload.is_empty()) {
            return None;
        }
        let mut jobs = self.jobs.iter().filter(|(_, job)| {
            job.function == function
                && !job.cancelled
                && job.unique == unique
                && (unique != b"-" || job.payload == payload)
        });
        let handle = jobs.next()?.0.clone();
        assert!(jobs.next().is_none(), "the model has two jobs that should be one");
        Some(handle)
    }

    fn enqueue(&mut self, handle: &[u8], at_head: bool) {
        let clock = self.clock;
        let job = self.job(handle);
        job.state = State::Queued;
        let (function, priority) = (job.function.clone(), job.priority);
        let record = self.functions.get_mut(&function).expect("a job has a function");
        let queue = &mut record.queues[priority];
        if queue.jobs.is_empty() {
            queue.since = clock;
        }
        if at_head {
            queue.jobs.push_front(handle.to_vec());
        } else {
            queue.jobs.push_back(handle.to_vec());
        }
        self.enqueued.insert(function);
        self.wakes_due += match self.rules.wakeup {
            None => 1,
            Some(0) => self.peers.len(),
            Some(limit) => limit,
        };
    }

    /// A job is gone, wherever it was.
    fn remove(&mut self, handle: &[u8]) -> Job {
        let job = self.jobs.remove(handle).expect("a job");
        self.end_of(handle, &job);
        if job.state == State::Queued {
            let function = self.functions.get_mut(&job.function).expect("a job has a function");
            function.queues[job.priority].jobs.retain(|other| other != handle);
        }
        job
    }

    /// Each client of a job is told that it failed, and gets nothing more about it.
    fn fail(&mut self, handle: &[u8], group: u64) {
        for client in std::mem::take(&mut self.job(handle).clients) {
            self.expect_work(client, group, "WORK_FAIL", handle);
        }
    }

    fn status(&mut self, handle: &[u8]) -> Checked<()> {
        let [known, running, n, d] = status_fields(self.jobs.get(handle));
        self.expect_packet("STATUS_RES", &[handle, &known, &running, &n, &d])
    }

    fn status_unique(&mut self, unique: &[u8]) -> Checked<()> {
        let found = self.jobs.values().filter(|job| {
            !job.cancelled && !unique.is_empty() && unique != b"-" && job.unique == unique
        });
        let mut found: Vec<&Job> = found.collect();
        found.sort_by_key(|job| std::cmp::Reverse(job.serial));
        // The latest one; cores don't know whose jobs are later.
        found.truncate(if self.rules.cores > 1 { usize::MAX } else { 1 });
        let packet = |job: Option<&Job>| {
            let [known, running, n, d] = status_fields(job);
            let clients = number(job.map_or(0, |job| job.clients.len()));
            packet("STATUS_RES_UNIQUE", &[unique, &known, &running, &n, &d, &clients])
        };
        let mut right: Vec<Item> = found.iter().map(|&job| packet(Some(job))).collect();
        if right.is_empty() {
            right.push(packet(None));
        }
        let Some(reply) = self.replies.pop_front() else {
            return Err("no answer to GET_STATUS_UNIQUE".to_owned());
        };
        if right.contains(&reply) { Ok(()) } else { Err(difference(&right[0], &reply)) }
    }

    fn expect_error(&mut self, code: &str, text: &str) -> Checked<()> {
        self.expect_packet("ERROR", &[code.as_bytes(), text.as_bytes()])
    }

    fn expect_packet(&mut self, name: &str, parts: &[&[u8]]) -> Checked<()> {
        self.expect(&packet(name, parts))
    }

    fn expect(&mut self, right: &Item) -> Checked<()> {
        match self.replies.pop_front() {
            Some(reply) if reply == *right => Ok(()),
            Some(reply) => Err(difference(right, &reply)),
            None => Err(format!("there should have come {right:?}")),
        }
    }

    fn expect_work(&mut self, client: Place, group: u64, name: &str, body: &[u8]) {
        let number = packet_type(name).expect("a packet's name");
        self.works.entry(client).or_default().push((group, Item::Packet(number, body.to_vec())));
    }

    fn jobs_of<'a>(&'a self, function: &'a [u8]) -> impl Iterator<Item = &'a Job> {
        self.jobs.values().filter(move |job| job.function == function)
    }

    fn job(&mut self, handle: &[u8]) -> &mut Job {
        self.jobs.get_mut(handle).expect("a job")
    }

    fn peer(&mut self, place: Place) -> &mut Peer {
        self.peers.get_mut(&place).expect("an open connection")
    }
}

/// What a generator of deeds may look at.
impl Model {
    pub(crate) fn is_of_gearmand(&self) -> bool {
        self.rules.gearmand
    }

    /// Whether a connection waits for a job.
    pub(crate) fn is_client(&self, place: Place) -> bool {
        self.jobs.values().any(|job| job.clients.contains(&place))
    }

    /// Whether a connection has registered a function.
    pub(crate) fn can(&self, place: Place, function: &[u8]) -> bool {
        self.peers[&place].abilities.contains_key(function)
    }

    pub(crate) fn is_asleep(&self, place: Place) -> bool {
        self.peers[&place].nap == Nap::Asleep
    }

    /// Jobs that a worker has.
    pub(crate) fn running_at(&self, place: Place) -> Vec<Bytes> {
        let runs_here =
            |job: &Job| matches!(job.state, State::Running { worker, .. } if worker == place);
        self.jobs.iter().filter(|(_, job)| runs_here(job)).map(|(at, _)| at.clone()).collect()
    }

    /// Jobs that there are.
    pub(crate) fn live_handles(&self) -> Vec<Bytes> {
        self.jobs.keys().cloned().collect()
    }

    /// Handles of all jobs that ever were.
    pub(crate) fn all_handles(&self) -> &[Bytes] {
        &self.handles
    }
}

/// Times beyond this haven't come when a run ends; others have.
const FAR_FUTURE_S: i64 = 3_000_000_000;

pub(crate) fn packet(name: &str, parts: &[&[u8]]) -> Item {
    Item::Packet(packet_type(name).expect("a packet's name"), parts.join(&0))
}

fn number(number: usize) -> Bytes {
    number.to_string().into_bytes()
}

/// Known, running, numerator, denominator.
fn status_fields(job: Option<&Job>) -> [Bytes; 4] {
    let (n, d) = job.map_or((0, 0), |job| job.progress);
    let flag = |is: bool| if is { b"1".to_vec() } else { b"0".to_vec() };
    let text = |number: u32| number.to_string().into_bytes();
    [flag(job.is_some()), flag(job.is_some_and(Job::runs)), text(n), text(d)]
}

/// What stands before the first NUL.
fn c_string(text: &[u8]) -> &[u8] {
    text.split(|&byte| byte == 0).next().unwrap_or(text)
}

/// A number as C reads it: leading blanks, a sign, digits; 0 for anything else.
fn decimal(text: &[u8]) -> i64 {
    let text = String::from_utf8_lossy(text);
    let text = text.trim_start();
    let digits = text.trim_start_matches(['-', '+']);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let value: i64 = digits[..end].parse().unwrap_or(0);
    if text.starts_with('-') { -value } else { value }
}
