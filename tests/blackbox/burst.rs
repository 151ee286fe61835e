//! In bursts: several connections write several requests each at once, some while the server is
//! stopped, so that one turn of its loop gets all of them.
//!
//! Behind each request stands an ECHO_REQ, which tells its answer from what comes unasked. Barriers
//! bring the server to rest; then the ledger is held against what the server says of each job, and
//! at the end workers take and finish all that is left. Invariant: what is asked follows from the
//! seed and from what came before.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::chance::{Chance, Role};
use crate::conn::{Item, named, readable};
use crate::connection::Connection;
use crate::ledger::{Asked, Ending, Ledger, UNREAD};
use crate::model::{Checked, Place};
use crate::operations::{Bytes, Request, SUBMISSIONS, Submission};
use crate::process::{Options, Process, Variant};
use crate::trace::Trace;

const PLACES: usize = 8;
const BURSTS: usize = 60;
/// Jobs at a time, where they are few.
const LEAN_JOBS: usize = 5;
/// What a large body has more than a short one.
const LARGE_BYTES: Range<usize> = 1_000..200_000;
/// A short lease ends in a run, a long one doesn't.
const LEASES_MS: [u64; 2] = [50, 60_000];
/// How long a job may lie beside a sleeper, and a drain take.
const PATIENCE: Duration = Duration::from_secs(8);
/// The worker of the drain.
const DRAIN: Place = PLACES;
const DRAIN_GRABS: usize = 8;

struct World {
    process: Process,
    chance: Chance,
    ledger: Ledger,
    /// Asks for the state of jobs.
    watch: Connection,
    peers: BTreeMap<Place, (Connection, Role)>,
    tokens: u64,
    has_delayed: bool,
    has_store: bool,
    leases_end: bool,
    /// Few jobs at a time, and workers that can do almost everything: most of them sleep.
    lean: bool,
}

/// Runs one seed to its end, or the first difference.
pub(crate) fn run(
    variant: Variant,
    seed: u64,
    deadline: Instant,
    trace: &mut Trace,
) -> Checked<()> {
    let mut chance = Chance::new(seed);
    let lease_ms = chance.pick(&LEASES_MS);
    let mut options = Options::by_chance(&mut chance.rng, lease_ms);
    (options.attempts_max, options.exceptions) = (None, false);
    let process = Process::start(variant, &options);
    trace.begin(&process.command);
    let watch = Connection::open(process.server.address(), process.cores);
    chance.functions = [&b"f"[..], b"g", b"h"].map(<[u8]>::to_vec).into();
    let count = chance.rng.usize(1..=3);
    chance.functions.truncate(count);
    let has_delayed = chance.once_in(8);
    let lean = !chance.once_in(3);
    let mut world = World {
        process,
        chance,
        ledger: Ledger::default(),
        watch,
        peers: BTreeMap::new(),
        tokens: 0,
        has_delayed,
        has_store: variant.store,
        leases_end: lease_ms == LEASES_MS[0],
        lean,
    };
    for _ in 0..BURSTS {
        if Instant::now() >= deadline {
            break;
        }
        let burst = world.make();
        world.burst(burst, trace)?;
    }
    world.drain(trace)
}

/// What connections write at once.
type Burst = Vec<(Place, Vec<Asked>, Ending)>;

impl World {
    fn make(&mut self) -> Burst {
        let mut places: Vec<Place> = (0..PLACES).collect();
        self.chance.rng.shuffle(&mut places);
        places.truncate(self.chance.rng.usize(2..=6));
        let mut burst = Vec::new();
        for place in places {
            if !self.peers.contains_key(&place) {
                self.open(place);
            }
            let ending = match self.chance.rng.u32(..50) {
                0 => Ending::Fin,
                1 | 2 => Ending::Unread,
                _ => Ending::Open,
            };
            let is_worker = self.peers[&place].1 == Role::Worker;
            let asked = if self.lean && is_worker && !self.chance.once_in(4) {
                self.turn(place)
            } else {
                let count = self.chance.rng.usize(1..=if self.lean { 3 } else { 8 });
                (0..count).map(|_| self.request(place, ending)).collect()
            };
            burst.push((place, asked, ending));
        }
        burst
    }

    /// The loop of a worker's program or a part of it: finish the jobs at hand, grab, sleep. A
    /// function may be given up.
    fn turn(&mut self, place: Place) -> Vec<Asked> {
        let mut requests = Vec::new();
        if self.ledger.abilities(place) == 0 {
            let mut names = self.chance.functions.clone();
            self.chance.rng.shuffle(&mut names);
            if self.chance.once_in(3) {
                names.truncate(1);
            }
            let able = |function| Request::CanDo { function, timeout_ms: None };
            requests.extend(names.into_iter().map(able));
        }
        if !self.chance.once_in(4) {
            requests.extend(self.ledger.held(place).into_iter().map(complete));
        }
        let parts = self.chance.rng.u32(..6);
        if parts != 0 {
            requests.push(Request::Grab("GRAB_JOB_UNIQ"));
        }
        if parts < 4 {
            requests.push(Request::PreSleep);
        }
        if self.chance.once_in(12) {
            requests.push(Request::CantDo { function: self.chance.function() });
        }
        requests.into_iter().map(|request| self.ask(request)).collect()
    }

    fn open(&mut self, place: Place) {
        let connection = Connection::open(self.process.server.address(), self.process.cores);
        let role = self.chance.role();
        self.peers.insert(place, (connection, role));
        self.ledger.connect(place);
    }

    fn ask(&mut self, request: Request) -> Asked {
        self.tokens += 1;
        Asked { request, token: format!("t{}", self.tokens).into_bytes() }
    }

    fn request(&mut self, place: Place, ending: Ending) -> Asked {
        let as_worker = match self.peers[&place].1 {
            Role::Client => self.chance.once_in(10),
            Role::Worker => !self.chance.once_in(10),
            Role::Both => self.chance.rng.bool(),
        };
        let request = if as_worker {
            self.worker_request(place)
        } else {
            self.client_request(ending == Ending::Unread)
        };
        self.ask(request)
    }

    fn worker_request(&mut self, place: Place) -> Request {
        match self.chance.rng.u32(..100) {
            0..30 => Request::Grab(self.chance.pick(&["GRAB_JOB", "GRAB_JOB_UNIQ"])),
            30..52 => Request::PreSleep,
            52..62 => Request::CanDo { function: self.function(), timeout_ms: None },
            62..66 => Request::CantDo { function: self.function() },
            66 => Request::ResetAbilities,
            _ => {
                let held = self.ledger.held(place);
                let mut handles =
                    if self.chance.once_in(15) { self.ledger.handles() } else { held };
                handles.truncate(20);
                if handles.is_empty() {
                    return Request::Grab("GRAB_JOB_ALL");
                }
                let names = [
                    "WORK_COMPLETE",
                    "WORK_COMPLETE",
                    "WORK_FAIL",
                    "WORK_EXCEPTION",
                    "WORK_DATA",
                    "WORK_DATA",
                    "WORK_WARNING",
                ];
                let name = self.chance.pick(&names);
                self.tokens += 1;
                let body = format!("w{}", self.tokens).into_bytes();
                let rest = if name == "WORK_FAIL" { Vec::new() } else { vec![body] };
                Request::Work { name, handle: self.chance.pick(&handles), rest }
            }
        }
    }

    fn function(&mut self) -> Bytes {
        if self.chance.once_in(8) { UNREAD.to_vec() } else { self.chance.function() }
    }

    fn client_request(&mut self, unread: bool) -> Request {
        if unread {
            return Request::Submit(self.submission(1, UNREAD, b""));
        }
        let handles = self.ledger.open_jobs();
        let most = if self.lean { LEAN_JOBS } else { usize::MAX };
        match self.chance.rng.u32(..100) {
            0..75 if handles.len() < most => {
                let kinds: Vec<usize> = (0..SUBMISSIONS.len())
                    .filter(|&at| self.has_delayed || SUBMISSIONS[at].0 != "SUBMIT_JOB_EPOCH")
                    .collect();
                let kind = self.chance.pick(&kinds);
                let uniques: [&[u8]; 5] = [b"", b"", b"a", b"b", b"c"];
                let unique = self.chance.pick(&uniques);
                let function = self.chance.function();
                Request::Submit(self.submission(kind, &function, unique))
            }
            0..88 if !handles.is_empty() => {
                Request::GetStatus { handle: self.chance.pick(&handles) }
            }
            88..93 if !handles.is_empty() => {
                let handle = String::from_utf8(self.chance.pick(&handles)).expect("text");
                Request::Text { line: format!("cancel job {handle}"), crlf: false }
            }
            93 => {
                let function = String::from_utf8(self.chance.function()).expect("text");
                Request::Text { line: format!("drop function {function}"), crlf: false }
            }
            _ => {
                let lists =
                    ["status", "workers", "show jobs", "show unique jobs", "prioritystatus"];
                Request::Text { line: self.chance.pick(&lists).to_owned(), crlf: true }
            }
        }
    }

    fn submission(&mut self, kind: usize, function: &[u8], unique: &[u8]) -> Submission {
        self.tokens += 1;
        let now = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
        let epoch = if self.chance.rng.bool() { "0".to_owned() } else { (now + 1).to_string() };
        Submission {
            kind,
            function: function.to_vec(),
            unique: unique.to_vec(),
            reducer: b"sum".to_vec(),
            epoch: epoch.into_bytes(),
            payload: format!("p{}", self.tokens).into_bytes(),
        }
    }

    /// Makes one body large: it is received and sent in other ways than short ones. The first
    /// request of its connection has it, before answers that aren't read yet hold up the write.
    fn enlarge(&mut self, burst: &mut Burst) {
        let bodies =
            burst.iter_mut().filter_map(|(_, asked, _)| match &mut asked.first_mut()?.request {
                Request::Submit(submission) => Some(&mut submission.payload),
                Request::Work { rest, .. } => rest.last_mut(),
                _ => None,
            });
        let mut bodies: Vec<&mut Bytes> = bodies.collect();
        if !bodies.is_empty() {
            let more = self.chance.rng.usize(LARGE_BYTES);
            let body = bodies.swap_remove(self.chance.rng.usize(..bodies.len()));
            body.extend(b"0123456789".iter().cycle().take(more));
        }
    }

    fn burst(&mut self, mut burst: Burst, trace: &mut Trace) -> Checked<()> {
        let unread = burst.iter().any(|(_, _, ending)| *ending == Ending::Unread);
        self.ledger.begin(unread);
        let stops = self.chance.once_in(3);
        // A server that stands still doesn't take so much.
        if !stops && self.chance.once_in(4) {
            self.enlarge(&mut burst);
        }
        if stops {
            trace.note("the server is stopped".to_owned());
            self.signal(Signal::SIGSTOP);
        }
        for (place, asked, ending) in &burst {
            let mut bytes = Vec::new();
            for Asked { request, token } in asked {
                bytes.extend(request.bytes());
                bytes.extend(named("ECHO_REQ", &[token]));
            }
            let words: Vec<String> = asked.iter().map(|asked| asked.request.to_string()).collect();
            trace.note(format!("c{place} sends {}; {ending:?}", words.join(", ")));
            self.connection(*place).send(&bytes);
            match ending {
                Ending::Open => {}
                Ending::Fin => self.connection(*place).half_close(),
                Ending::Unread => {
                    let (connection, _) = self.peers.remove(place).expect("an open connection");
                    connection.close(self.chance.rng.bool());
                }
            }
        }
        if stops {
            trace.note("the server goes on".to_owned());
            self.signal(Signal::SIGCONT);
        }
        let mut came = BTreeMap::new();
        for (place, _, _) in burst.iter().filter(|(_, _, ending)| *ending == Ending::Fin) {
            let mut items = self.connection(*place).read_to_end()?;
            items.pop();
            came.insert(*place, items);
            self.peers.remove(place);
        }
        if burst.iter().any(|(_, _, ending)| *ending != Ending::Open) {
            self.watch.wait_until_gone(self.peers.len())?;
        }
        for _ in 0..if self.process.cores > 1 { 4 } else { 2 } {
            for (place, (peer, _)) in &mut self.peers {
                peer.barrier().map_err(|e| format!("c{place}: {e}"))?;
            }
        }
        for (&place, (peer, _)) in &mut self.peers {
            came.insert(place, peer.take());
        }
        trace.came(&came);
        let asked_by: BTreeMap<Place, &Vec<Asked>> =
            burst.iter().map(|(place, asked, _)| (*place, asked)).collect();
        for (place, items) in came {
            let asked = asked_by.get(&place).map_or(&[][..], |asked| asked);
            self.ledger.read(place, asked, items)?;
        }
        for (place, asked, ending) in &burst {
            match ending {
                Ending::Open => {}
                Ending::Fin => self.ledger.leave(*place, &[]),
                Ending::Unread => self.ledger.leave(*place, asked),
            }
        }
        self.ledger.check_assignments()?;
        self.settle()?;
        self.check_totals()?;
        self.ledger.check_uniques()?;
        // Now and then until every lease has ended, too.
        self.wait_for_wake_ups(true)?;
        if self.leases_end && self.chance.once_in(15) {
            self.wait_for_wake_ups(false)
        } else {
            Ok(())
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.server.pid()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("the server is there");
    }

    fn connection(&mut self, place: Place) -> &mut Connection {
        &mut self.peers.get_mut(&place).expect("an open connection").0
    }

    /// Asks the server for the state of each job that there should be.
    fn settle(&mut self) -> Checked<()> {
        let handles = self.ledger.open_jobs();
        let requests = handles.iter().flat_map(|handle| named("GET_STATUS", &[handle]));
        self.watch.send(&requests.collect::<Vec<u8>>());
        for handle in handles {
            let item = self.watch.next()?;
            let Item::Packet(20, body) = &item else { return Err(format!("{item:?}")) };
            let fields: Vec<&[u8]> = body.split(|&byte| byte == 0).collect();
            if fields[0] != handle {
                return Err(format!("{item:?} in the place of {}", readable(&handle)));
            }
            self.ledger.settle(&handle, fields[1] == b"1", fields[2] == b"1")?;
        }
        Ok(())
    }

    /// `status` says what is known.
    fn check_totals(&mut self) -> Checked<()> {
        let mut due = self.ledger.totals();
        for (name, row) in self.watch.status()? {
            let right = due.remove(&name).unwrap_or_default();
            if row != right && name != UNREAD {
                let name = readable(&name);
                return Err(format!("status says {row:?} of {name:?}, and right is {right:?}"));
            }
        }
        due.remove(UNREAD);
        if due.is_empty() { Ok(()) } else { Err(format!("status lacks {due:?}")) }
    }

    fn wait_for_wake_ups(&mut self, leases: bool) -> Checked<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(sentence) = self.ledger.job_beside_a_sleeper(leases) {
            // One core wakes as many as there are jobs in the turn that brings them.
            if Instant::now() > deadline || (leases && self.process.cores == 1) {
                return Err(sentence);
            }
            for (&place, (peer, _)) in &mut self.peers {
                peer.barrier().map_err(|e| format!("c{place}: {e}"))?;
                self.ledger.read(place, &[], peer.take())?;
            }
        }
        Ok(())
    }

    /// Workers take and finish all that is left.
    fn drain(&mut self, trace: &mut Trace) -> Checked<()> {
        self.open(DRAIN);
        let mut names = self.chance.functions.clone();
        names.push(UNREAD.to_vec());
        let abilities =
            names.into_iter().map(|function| Request::CanDo { function, timeout_ms: None });
        let mut first: Vec<Request> = abilities.collect();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut burst = Vec::new();
            for place in self.peers.keys().copied().collect::<Vec<Place>>() {
                let mut requests: Vec<Request> =
                    self.ledger.held(place).into_iter().map(complete).collect();
                if place == DRAIN {
                    requests.append(&mut first);
                    requests.extend(vec![Request::Grab("GRAB_JOB_UNIQ"); DRAIN_GRABS]);
                }
                let asked = requests.into_iter().map(|request| self.ask(request)).collect();
                burst.push((place, asked, Ending::Open));
            }
            self.burst(burst, trace)?;
            if self.ledger.open_jobs().is_empty() && self.ledger.held(DRAIN).is_empty() {
                let left = self.watch.status()?.into_iter().find(|(_, row)| row[..2] != [0, 0]);
                let Some((name, row)) = left else { return Ok(()) };
                // Jobs whose submitters left unheard may be on their way to the store still.
                if !self.has_store || Instant::now() > deadline {
                    return Err(format!("{row:?} of {:?} are left", readable(&name)));
                }
            }
            if Instant::now() > deadline {
                return Err(format!("no worker gets {:?}", self.ledger.open_jobs()));
            }
        }
    }
}

fn complete(handle: Bytes) -> Request {
    Request::Work { name: "WORK_COMPLETE", handle, rest: vec![b"done".to_vec()] }
}
