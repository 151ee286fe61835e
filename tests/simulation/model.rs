//! What a Gearman server must do, said plainly: the shadow of one shard.
//!
//! Requests that the shard handled and the packets it sent in come; a broken promise is a panic.
//! Looks at nothing inside the engine. It keeps jobs in ordinary maps and searches them, so it
//! shares no idea with what it checks. Where the server has a choice (which sleeper to wake, which
//! function's turn it is) it states what must hold of the choice.
//!
//! Invariant: after each call every packet that the shard sent has been accounted for.

mod durable;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringgear::engine::function::Durabilities;
use ringgear::engine::handle::{job_number, slot};
use ringgear::engine::record::Operation;
use ringgear::engine::{ConnId, Now, Wakeup};
use ringgear::shard::cores::Cores;
use ringgear::wire::Command;

use crate::wire::{Packet, Request};
use durable::Durable;

/// The settings that the model needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) lease_ms: u64,
    pub(crate) wakeup: Wakeup,
    pub(crate) attempts_max: Option<u32>,
    pub(crate) body_bytes_max: usize,
    pub(crate) memory_bytes_max: usize,
    pub(crate) exceptions: bool,
    pub(crate) durabilities: Durabilities,
    pub(crate) cores: Cores,
}

/// What the shard sent during one call, and what the model needs to know about that call.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) packets: BTreeMap<ConnId, VecDeque<Packet>>,
    /// For each reply that was to come, the oldest first: it, if it has come.
    pub(crate) filled: BTreeMap<ConnId, Vec<Option<Packet>>>,
    /// What the store is to do.
    pub(crate) operations: Vec<Operation>,
    /// Connections that the shard gave up because they don't read; packets for them may be missing.
    pub(crate) slow: BTreeSet<ConnId>,
    /// Connections whose peers have said all: with their last reply they are gone, and what
    /// another core still has for them with it.
    pub(crate) ended: BTreeSet<ConnId>,
    /// `Shard::memory_bytes` before the call or after it, whichever is more.
    pub(crate) memory_bytes: usize,
    /// The functions that there are, for the one case in which the model can't know.
    pub(crate) functions: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Queued,
    Delayed {
        run_at_s: u64,
    },
    /// Waits to be on disk.
    Storing,
    Running {
        conn: ConnId,
        deadline_ms: Option<u64>,
        grabbed: u64,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) function: Vec<u8>,
    pub(crate) unique: Vec<u8>,
    reducer: Vec<u8>,
    payload: Vec<u8>,
    pub(crate) priority: usize,
    pub(crate) background: bool,
    pub(crate) cancelled: bool,
    /// One entry for each foreground submission.
    clients: Vec<ConnId>,
    pub(crate) place: Place,
    /// The worker whose attempt was the last one and has timed out.
    pub(crate) late: Option<ConnId>,
    /// Earliest start in seconds since 1970; 0 = at once.
    run_at_s: u64,
    pub(crate) attempts: u32,
    /// When it was submitted, in milliseconds since 1970; kept over restarts.
    submitted_ms: u64,
    /// The store keeps it, or will.
    pub(crate) stored: bool,
    /// It isn't on disk yet, and those who submit it in the background wait for that.
    storing: bool,
    /// The store has said that it keeps it: only its end may take it away.
    promised: bool,
    /// Replies that wait for the store: which one of which connection.
    waiting: Vec<(ConnId, u64)>,
    progress: (u32, u32),
}

impl Job {
    /// Whether a worker runs it, or did until its time was over.
    pub(crate) fn is_with(&self, conn: ConnId) -> bool {
        match self.place {
            Place::Running { conn: worker, .. } => worker == conn,
            _ => self.late == Some(conn),
        }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        !self.cancelled && (self.background || !self.clients.is_empty())
    }
}

/// The jobs of one function and priority. Jobs of one group came at the same moment: any of them
/// may be first.
#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<(u64, u64)>,
    /// Since when it has held a job without a break.
    since: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Function {
    queues: [Queue; 3],
    pub(crate) queue_max: [u32; 3],
}

impl Function {
    fn queued(&self) -> usize {
        self.queues.iter().map(|queue| queue.jobs.len()).sum()
    }
}

#[derive(Debug)]
pub(crate) struct Ability {
    timeout_ms: u64,
    since: u64,
    /// When a job was last taken by this ability, for each priority.
    served: [u64; 3],
}

#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) abilities: BTreeMap<Vec<u8>, Ability>,
    /// The same names, the oldest first.
    pub(crate) order: Vec<Vec<u8>>,
    pub(crate) asleep: bool,
    /// When it was woken, if it hasn't answered since and its lease hasn't ended.
    pub(crate) woken_ms: Option<u64>,
    exceptions: bool,
    /// The job of its last packet, if that was WORK_EXCEPTION.
    pub(crate) excepted: Option<u64>,
    pub(crate) id: Vec<u8>,
    pub(crate) fd: i32,
    left: bool,
    /// Replies so far that had to wait for the store, and those of them that still do.
    slots: u64,
    open: Vec<u64>,
}

/// How often things happened, to see that a simulation reaches what it is meant to reach.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) events: BTreeMap<&'static str, u64>,
}

impl Tally {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }
}

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) rules: Rules,
    pub(crate) now: Now,
    pub(crate) functions: BTreeMap<Vec<u8>, Function>,
    pub(crate) jobs: BTreeMap<u64, Job>,
    pub(crate) peers: BTreeMap<ConnId, Peer>,
    /// Each core counts its own jobs.
    next_sequences: Vec<u64>,
    durable: Durable,
    /// The numbers of all jobs that ever were; never empty.
    pub(crate) numbers: Vec<u64>,
    pub(crate) output: Output,
    pub(crate) tally: Tally,
    /// Grows with everything that happens; times of the fairness rule.
    clock: u64,
    /// Wake-ups that this call has reason for.
    wakes_due: u64,
    wakes_seen: u64,
    /// Functions that got a job in this call, and the connection that it is about.
    enqueued: BTreeSet<Vec<u8>>,
    acting: Option<ConnId>,
    /// What clients are to be told of dropped jobs; in which order is the server's choice.
    fails: Vec<(ConnId, Packet)>,
}

impl Model {
    pub(crate) fn new(rules: Rules, next_sequence: u64, now: Now) -> Self {
        Self {
            durable: Durable::default(),
            next_sequences: vec![next_sequence; rules.cores.count],
            rules,
            now,
            functions: BTreeMap::new(),
            jobs: BTreeMap::new(),
            peers: BTreeMap::new(),
            numbers: vec![job_number(next_sequence, 0)],
            output: Output::default(),
            tally: Tally::default(),
            clock: 1,
            wakes_due: 0,
            wakes_seen: 0,
            enqueued: BTreeSet::new(),
            acting: None,
            fails: Vec::new(),
        }
    }

    pub(crate) fn connect(&mut self, conn: ConnId, fd: i32) {
        let exceptions = self.rules.exceptions;
        let peer = Peer { exceptions, id: b"-".to_vec(), fd, ..Peer::default() };
        assert!(self.peers.insert(conn, peer).is_none(), "the number {conn} is taken");
    }

    /// Before the packets of a call about `acting` are gone through.
    pub(crate) fn begin(&mut self, acting: Option<ConnId>, output: Output) {
        (self.acting, self.output) = (acting, output);
        (self.wakes_due, self.wakes_seen) = (0, 0);
        self.enqueued.clear();
        self.begin_replies();
    }

    /// After all that the shard did in a call has been gone through.
    pub(crate) fn end(&mut self) {
        let conns: Vec<ConnId> = self.output.packets.keys().copied().collect();
        for conn in conns {
            self.see_wakes(conn);
            let rest = self.output.packets.get(&conn).map(VecDeque::len);
            assert_eq!(rest, Some(0), "connection {conn} got what nothing explains: {:?}", {
                &self.output.packets[&conn]
            });
        }
        assert!(
            self.wakes_seen <= self.wakes_due,
            "{} sleepers were woken, with reason for {}",
            self.wakes_seen,
            self.wakes_due
        );
        self.check_sleepers();
        self.check_replies();
        self.check_operations();
    }

    /// A runnable job beside a sleeper that could run it is another worker's, who has just been
    /// woken for it.
    fn check_sleepers(&self) {
        for (name, function) in self.functions.iter().filter(|(_, function)| function.queued() > 0)
        {
            let able = || self.peers.iter().filter(|(_, peer)| peer.abilities.contains_key(name));
            if able().any(|(conn, peer)| peer.asleep && !self.output.slow.contains(conn)) {
                // One that doesn't read may have been woken without a word.
                let woken = |&(conn, peer): &(&ConnId, &Peer)| {
                    peer.woken_ms.is_some() || self.output.slow.contains(conn)
                };
                let leases = able().filter(woken).count();
                assert!(
                    leases >= function.queued(),
                    "{} jobs of {} lie beside a sleeper; {leases} were woken for them",
                    function.queued(),
                    name.escape_ascii()
                );
            }
        }
        if self.rules.wakeup == Wakeup::Each(0) {
            let others = self.peers.iter().filter(|&(&conn, _)| Some(conn) != self.acting);
            let others = others.filter(|&(conn, _)| !self.output.slow.contains(conn));
            for (conn, peer) in others.filter(|(_, peer)| peer.asleep) {
                let missed = self.enqueued.iter().find(|&name| peer.abilities.contains_key(name));
                assert_eq!(missed, None, "connection {conn} wasn't woken, and all are to be");
            }
        }
    }

    /// The next packet for a connection, wake-ups apart.
    pub(crate) fn next(&mut self, conn: ConnId) -> Option<Packet> {
        if self.peers[&conn].asleep {
            self.see_wakes(conn);
        }
        self.output.packets.get_mut(&conn)?.pop_front()
    }

    pub(crate) fn expect(&mut self, conn: ConnId, expected: &Packet) {
        match self.next(conn) {
            // What comes from another core finds it given up for what came before.
            Some(Packet::Held) if self.output.slow.contains(&conn) => {
                self.output.packets.remove(&conn);
            }
            Some(packet) => assert_eq!(packet, *expected, "connection {conn}"),
            None => assert!(
                self.output.slow.contains(&conn),
                "connection {conn} waits for {expected:?}"
            ),
        }
    }

    fn see_wakes(&mut self, conn: ConnId) {
        let Some(packets) = self.output.packets.get_mut(&conn) else { return };
        while packets.front().is_some_and(|packet| packet.is(Command::Noop)) {
            packets.pop_front();
            self.wakes_seen += 1;
            self.tally.count("woken");
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            assert!(peer.asleep, "connection {conn} was woken and didn't sleep");
            (peer.asleep, peer.woken_ms) = (false, Some(self.now.mono_ms));
        }
    }

    /// The shard has handled a request of `conn`.
    pub(crate) fn handle(&mut self, conn: ConnId, request: &Request) {
        self.clock += 1;
        match request {
            Request::Packet { command, arguments, payload } => {
                let parts: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
                let excepted = self.peer(conn).excepted.take();
                if self.refused(conn, *command, &parts, payload) {
                    // Answered.
                } else if *command == Command::WorkFail
                    && excepted.is_some()
                    && number_in(parts[0]) == excepted
                {
                    self.tally.count("failure behind an exception");
                } else {
                    if *command == Command::WorkException {
                        self.peer(conn).excepted = number_in(parts[0]);
                    }
                    self.handle_packet(conn, *command, &parts, payload);
                }
            }
            Request::WrongMagic => {
                self.peer(conn).excepted = None;
                self.expect_error(conn, "INVALID_MAGIC", "Request magic expected")
            }
            Request::Line(line) => self.handle_line(conn, line),
            Request::UnknownType | Request::SixWords | Request::LacksArgument => {}
        }
        self.expect_fails();
        if self.peers[&conn].asleep {
            self.see_wakes(conn);
        }
    }

    fn handle_packet(&mut self, conn: ConnId, command: Command, parts: &[&[u8]], payload: &[u8]) {
        use Command as C;
        match command {
            _ if is_submit(command) => self.submit(conn, command, parts, payload),
            C::GrabJob | C::GrabJobUniq | C::GrabJobAll => self.grab(conn, command),
            C::PreSleep => self.pre_sleep(conn),
            C::CanDo => self.can_do(conn, parts[0], 0),
            C::CanDoTimeout => {
                let text = std::str::from_utf8(parts[1]).unwrap();
                let timeout_ms = match text.parse::<i64>() {
                    Ok(ms) if ms > 0 => u64::try_from(ms).unwrap().max(1000),
                    _ => 0,
                };
                self.can_do(conn, parts[0], timeout_ms);
            }
            C::CantDo => self.cant_do(conn, parts[0]),
            C::ResetAbilities => self.reset(conn),
            C::WorkData
            | C::WorkWarning
            | C::WorkStatus
            | C::WorkComplete
            | C::WorkFail
            | C::WorkException => self.work(conn, command, parts, payload),
            C::GetStatus => self.status(conn, parts[0]),
            C::GetStatusUnique => self.status_unique(conn, parts[0]),
            C::EchoReq => self.expect(conn, &Packet::of(C::EchoRes, &[], payload)),
            C::SetClientId => {
                self.peer(conn).id = parts[0][..parts[0].len().min(127)].to_vec();
            }
            C::OptionReq if parts[0].eq_ignore_ascii_case(b"exceptions") => {
                self.peer(conn).exceptions = true;
                self.expect(conn, &Packet::of(C::OptionRes, parts, &[]));
            }
            C::OptionReq => {
                self.expect_error(conn, "UNKNOWN_OPTION", "Server does not recognize given option")
            }
            _ => self.expect_error(conn, "INVALID_COMMAND", "Command not expected"),
        }
    }

    fn expect_error(&mut self, conn: ConnId, code: &str, text: &str) {
        self.tally.count("error reply");
        self.expect(conn, &error(code, text));
    }

    /// Memory is refused only when there is none.
    pub(crate) fn check_short(&self, bytes: usize, what: &str) {
        let wanted = self.output.memory_bytes + bytes;
        assert!(wanted > self.rules.memory_bytes_max, "there was memory for {what}");
    }

    /// Whether the server didn't take the body in, which it may only do for two reasons.
    fn refused(&mut self, conn: ConnId, command: Command, parts: &[&[u8]], payload: &[u8]) -> bool {
        let body = Packet::of(command, parts, payload);
        let Packet::Binary { body, .. } = body else { return false };
        let out_of_memory = error("QUEUE_ERROR", "MEMORY_ALLOCATION_FAILURE");
        if body.len() > self.rules.body_bytes_max {
            self.tally.count("refused: too large");
            self.expect_error(conn, "ARGUMENT_TOO_LARGE", "Job payload exceeds job-size-max");
        } else if (body.len() >= 8 << 10 || is_submit(command))
            && self.output.packets.get(&conn).and_then(VecDeque::front) == Some(&out_of_memory)
        {
            self.tally.count("refused: out of memory");
            self.check_short(2 * body.len() + (64 << 10) + 1024, command.name());
            self.next(conn);
            // Depends on whether the body came in one piece.
            if is_submit(command) && self.output.functions.iter().any(|name| name == parts[0]) {
                self.functions.entry(parts[0].to_vec()).or_default();
            }
        } else {
            return false;
        }
        if matches!(command, Command::WorkComplete | Command::WorkException)
            && let Some(number) = self.running(conn, parts[0])
        {
            let fail = Packet::of(Command::WorkFail, &[parts[0]], &[]);
            self.finish(number, &fail, &fail);
        }
        true
    }

    fn submit(&mut self, conn: ConnId, command: Command, parts: &[&[u8]], payload: &[u8]) {
        use Command as C;
        let (function, unique) = (parts[0], parts[1]);
        let reduces = matches!(command, C::SubmitReduceJob | C::SubmitReduceJobBackground);
        let reducer: &[u8] = if reduces { parts[2] } else { b"" };
        let background = !matches!(
            command,
            C::SubmitJob | C::SubmitJobHigh | C::SubmitJobLow | C::SubmitReduceJob
        );
        let priority = match command {
            C::SubmitJobHigh | C::SubmitJobHighBg => 0,
            C::SubmitJobLow | C::SubmitJobLowBg => 2,
            _ => 1,
        };
        if unique.len() > 64 || reducer.len() > 64 {
            return self.expect_error(conn, "ARGUMENT_TOO_LARGE", "Unique value too large");
        }
        let mut run_at_s = 0;
        if command == C::SubmitJobEpoch {
            let Ok(epoch) = std::str::from_utf8(parts[2]).unwrap().parse::<i64>() else {
                return self.expect_error(conn, "ARGUMENT_TOO_LARGE", "Epoch out of range");
            };
            run_at_s = u64::try_from(epoch).unwrap_or(0);
        }
        self.functions.entry(function.to_vec()).or_default();
        if let Some(number) = self.equal(function, unique, payload) {
            self.tally.count("coalesced");
            let job = self.jobs.get_mut(&number).unwrap();
            if background {
                job.background = true;
                self.store(number);
            } else {
                job.clients.push(conn);
            }
            let waits = background && self.jobs[&number].storing;
            return self.expect_created(conn, number, waits);
        }
        let total = self.jobs.values().filter(|job| job.function == function).count();
        let max = self.functions[function].queue_max[priority] as usize;
        if max > 0 && total >= max {
            self.tally.count("queue full");
            return self.expect_error(conn, "QUEUE_ERROR", "Job queue is full");
        }
        let sequence = &mut self.next_sequences[self.rules.cores.owner_of(function)];
        let number = job_number(*sequence, slot(function));
        *sequence += 1;
        self.numbers.push(number);
        let job = Job {
            function: function.to_vec(),
            unique: unique.to_vec(),
            reducer: reducer.to_vec(),
            payload: payload.to_vec(),
            priority,
            background,
            cancelled: false,
            clients: if background { Vec::new() } else { vec![conn] },
            place: Place::Storing,
            late: None,
            run_at_s: if run_at_s * 1000 > self.now.unix_ms { run_at_s } else { 0 },
            attempts: 0,
            submitted_ms: self.now.unix_ms,
            stored: false,
            storing: false,
            promised: false,
            waiting: Vec::new(),
            progress: (0, 0),
        };
        self.jobs.insert(number, job);
        self.tally.count(if background { "background job" } else { "foreground job" });
        if background {
            self.store(number);
        }
        let waits = self.jobs[&number].storing;
        self.expect_created(conn, number, waits);
        if !waits {
            self.start(number);
        }
    }

    /// A job that is nowhere may start, now or when its time has come.
    fn start(&mut self, number: u64) {
        let job = self.jobs.get_mut(&number).unwrap();
        if job.run_at_s * 1000 > self.now.unix_ms {
            job.place = Place::Delayed { run_at_s: job.run_at_s };
            self.tally.count("delayed job");
        } else {
            self.enqueue_back(number, self.clock);
        }
    }

    /// The job that a submission joins: the same function and unique, or for `-` the same payload.
    fn equal(&self, function: &[u8], unique: &[u8], payload: &[u8]) -> Option<u64> {
        if unique.is_empty() || (unique == b"-" && payload.is_empty()) {
            return None;
        }
        let mut found = self.jobs.iter().filter(|(_, job)| {
            job.function == function
                && !job.cancelled
                && job.unique == unique
                && (unique != b"-" || job.payload == payload)
        });
        let number = *found.next()?.0;
        assert!(found.next().is_none(), "two jobs that should have been one");
        Some(number)
    }

    fn enqueue_back(&mut self, number: u64, group: u64) {
        let clock = self.clock;
        self.queue_of(number, clock).push_back((number, group));
        self.expect_wake();
    }

    fn requeue(&mut self, number: u64, group: u64) {
        let clock = self.clock;
        self.queue_of(number, clock).push_front((number, group));
        self.tally.count("requeued");
        self.expect_wake();
    }

    fn queue_of(&mut self, number: u64, clock: u64) -> &mut VecDeque<(u64, u64)> {
        let job = self.jobs.get_mut(&number).unwrap();
        job.place = Place::Queued;
        let queue = &mut self.functions.get_mut(&job.function).unwrap().queues[job.priority];
        if queue.jobs.is_empty() {
            queue.since = clock;
        }
        self.enqueued.insert(job.function.clone());
        &mut queue.jobs
    }

    fn expect_wake(&mut self) {
        self.wakes_due += match self.rules.wakeup {
            Wakeup::Lease => 1,
            Wakeup::Each(0) => u64::from(u16::MAX),
            Wakeup::Each(limit) => u64::from(limit),
        };
    }

    /// Each client of a job is told that it failed, and gets nothing more about it.
    pub(crate) fn fail(&mut self, number: u64) {
        self.accept(number);
        let packet = Packet::of(Command::WorkFail, &[&handle(number)], &[]);
        for client in std::mem::take(&mut self.jobs.get_mut(&number).unwrap().clients) {
            self.fails.push((client, packet.clone()));
        }
    }

    fn expect_fails(&mut self) {
        while let Some((client, expected)) = self.fails.pop() {
            let Some(packet) = self.next(client) else {
                let gone = self.rules.cores.count > 1 && self.output.ended.contains(&client);
                let excused = gone || self.output.slow.contains(&client);
                assert!(excused, "{client} waits for {expected:?}");
                continue;
            };
            if packet != expected {
                let same = |(other, fail): &(ConnId, Packet)| *other == client && *fail == packet;
                let at = self.fails.iter().position(same);
                let at = at.unwrap_or_else(|| panic!("{client} got {packet:?}, not {expected:?}"));
                self.fails[at].1 = expected;
            }
        }
    }

    /// The job with this handle, if `conn` runs it, or did until its time was over.
    fn running(&self, conn: ConnId, text: &[u8]) -> Option<u64> {
        let number = number_in(text)?;
        let job = self.jobs.get(&number)?;
        job.is_with(conn).then_some(number)
    }

    fn work(&mut self, conn: ConnId, command: Command, parts: &[&[u8]], payload: &[u8]) {
        use Command as C;
        if command == C::WorkFail && parts[0].len() >= 64 {
            let text =
                "Error occurred due to GEARMAND_JOB_HANDLE_SIZE being too small from snprintf";
            return self.expect_error(conn, "ARGUMENT_TOO_LARGE", text);
        }
        let Some(number) = self.running(conn, parts[0]) else {
            let text = match command {
                C::WorkData | C::WorkWarning => "Job does not exist on server",
                C::WorkException => "An exception was received for a job that does not exist",
                _ => "Job given in work result not found",
            };
            return self.expect_error(conn, "JOB_NOT_FOUND", text);
        };
        let packet = Packet::of(command, parts, payload);
        match command {
            C::WorkData | C::WorkWarning => self.forward(number, &packet, &packet),
            C::WorkStatus => {
                let value = |text: &[u8]| std::str::from_utf8(text).unwrap().parse().unwrap_or(0);
                let job = self.jobs.get_mut(&number).unwrap();
                if let Place::Running { .. } = job.place {
                    job.progress = (value(parts[1]), value(parts[2]));
                }
                self.forward(number, &packet, &packet);
            }
            C::WorkException => {
                let fail = Packet::of(C::WorkFail, &[parts[0]], &[]);
                self.finish(number, &packet, &fail);
            }
            _ => self.finish(number, &packet, &packet),
        }
    }

    /// Each client gets the packet, those that want no exceptions the other one.
    fn forward(&mut self, number: u64, packet: &Packet, without_exceptions: &Packet) {
        for client in self.jobs[&number].clients.clone() {
            self.tally.count("forwarded");
            let exceptions = self.peers[&client].exceptions;
            self.expect(client, if exceptions { packet } else { without_exceptions });
        }
    }

    fn finish(&mut self, number: u64, packet: &Packet, without_exceptions: &Packet) {
        self.tally.count("finished");
        self.forward(number, packet, without_exceptions);
        if let Place::Running { .. } = self.jobs[&number].place {
            self.remove(number);
        } else {
            self.tally.count("finished late");
            self.drop_queued(number);
        }
    }

    fn status(&mut self, conn: ConnId, text: &[u8]) {
        let job = number(text).and_then(|number| self.jobs.get(&number));
        let flag = |value: bool| if value { b"1" } else { b"0" };
        let running = job.is_some_and(|job| matches!(job.place, Place::Running { .. }));
        let (n, d) = job.map_or((0, 0), |job| job.progress);
        let (n, d) = (n.to_string(), d.to_string());
        let parts: [&[u8]; 5] =
            [text, flag(job.is_some()), flag(running), n.as_bytes(), d.as_bytes()];
        self.expect(conn, &Packet::of(Command::StatusRes, &parts, &[]));
    }

    fn status_unique(&mut self, conn: ConnId, unique: &[u8]) {
        let jobs = self.jobs.values().rev();
        let job = jobs.into_iter().find(|job| {
            !job.cancelled && !unique.is_empty() && unique != b"-" && job.unique == unique
        });
        let flag = |value: bool| if value { b"1" } else { b"0" };
        let running = job.is_some_and(|job| matches!(job.place, Place::Running { .. }));
        let (n, d) = job.map_or((0, 0), |job| job.progress);
        let clients = job.map_or(0, |job| job.clients.len());
        let texts = [n.to_string(), d.to_string(), clients.to_string()];
        let [n, d, c] = [texts[0].as_bytes(), texts[1].as_bytes(), texts[2].as_bytes()];
        let parts: [&[u8]; 6] = [unique, flag(job.is_some()), flag(running), n, d, c];
        self.expect(conn, &Packet::of(Command::StatusResUnique, &parts, &[]));
    }

    /// Whether a lease may end that the model doesn't know the deadline of.
    pub(crate) fn has_leases(&self) -> bool {
        self.peers.values().any(|peer| peer.woken_ms.is_some()) || !self.output.slow.is_empty()
    }

    /// Time has come to `now`, and nothing that was due meanwhile has been done yet.
    pub(crate) fn stand_still(&mut self, now: Now) {
        self.now = now;
    }

    /// Time has come to `now`, which is no later than the shard's next deadline was.
    pub(crate) fn tick(&mut self, now: Now) {
        self.now = now;
        self.clock += 1;
        let group = self.clock;
        let sleepers = self.peers.values().filter(|peer| peer.asleep).count();
        for peer in self.peers.values_mut() {
            if peer.woken_ms.is_some_and(|woken_ms| woken_ms + self.rules.lease_ms <= now.mono_ms) {
                peer.woken_ms = None;
                // All others of the function may be woken in its place.
                self.wakes_due += sleepers.max(1) as u64;
                self.tally.count("lease ended");
            }
        }
        let numbers: Vec<u64> = self.jobs.keys().copied().collect();
        for number in numbers {
            match self.jobs[&number].place {
                Place::Running { conn, deadline_ms: Some(deadline_ms), .. }
                    if deadline_ms <= now.mono_ms =>
                {
                    self.tally.count("timed out");
                    self.lose_worker(number, group);
                    if let Some(job) = self.jobs.get_mut(&number) {
                        job.late = Some(conn);
                    }
                }
                Place::Delayed { run_at_s } if run_at_s * 1000 <= now.unix_ms => {
                    self.tally.count("started late");
                    self.enqueue_back(number, group);
                }
                _ => {}
            }
        }
        self.expect_fails();
    }

    /// The earliest moment at which something is due for a job.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let offset_ms = self.now.unix_ms - self.now.mono_ms;
        let jobs = self.jobs.values().filter_map(|job| match job.place {
            Place::Running { deadline_ms, .. } => deadline_ms,
            Place::Delayed { run_at_s } => Some(run_at_s * 1000 - offset_ms),
            Place::Queued | Place::Storing => None,
        });
        jobs.min()
    }

    /// A connection is gone, or has said all it will ever say: nothing is for it any more.
    pub(crate) fn leave(&mut self, conn: ConnId) {
        self.clock += 1;
        // The reply that it had to stay for may have come with a wake-up.
        self.see_wakes(conn);
        let numbers: Vec<u64> = self.jobs.keys().copied().collect();
        for number in numbers {
            let job = self.jobs.get_mut(&number).unwrap();
            let attached = job.clients.contains(&conn);
            job.clients.retain(|&client| client != conn);
            job.waiting.retain(|&(client, _)| client != conn);
            let runs = matches!(job.place, Place::Running { .. });
            if attached && !runs && !job.is_wanted() {
                self.tally.count("abandoned");
                self.drop_queued(number);
            }
        }
        self.peer(conn).asleep = false;
        self.peer(conn).left = true;
        self.reset(conn);
        self.expect_fails();
    }

    /// Whether the connection is gone for everybody but its driver.
    pub(crate) fn has_left(&self, conn: ConnId) -> bool {
        self.peers.get(&conn).is_some_and(|peer| peer.left)
    }

    /// The connection's number is free.
    pub(crate) fn disconnect(&mut self, conn: ConnId) {
        self.leave(conn);
        self.peers.remove(&conn);
    }

    pub(crate) fn drop_queued(&mut self, number: u64) {
        let job = self.remove(number);
        let queue = &mut self.functions.get_mut(&job.function).unwrap().queues[job.priority];
        queue.jobs.retain(|&(other, _)| other != number);
    }

    fn peer(&mut self, conn: ConnId) -> &mut Peer {
        self.peers.get_mut(&conn).unwrap()
    }
}

fn is_submit(command: Command) -> bool {
    command.name().starts_with("SUBMIT_") && command != Command::SubmitJobSched
}

fn error(code: &str, text: &str) -> Packet {
    Packet::of(Command::Error, &[code.as_bytes(), text.as_bytes()], &[])
}

pub(crate) fn handle(number: u64) -> Vec<u8> {
    format!("H:sim:{number}").into_bytes()
}

/// The number in a handle that may end with a NUL.
fn number_in(text: &[u8]) -> Option<u64> {
    number(text.strip_suffix(b"\0").unwrap_or(text))
}

pub(crate) fn number(handle: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(handle.strip_prefix(b"H:sim:")?).ok()?;
    let number = text.parse().ok()?;
    // One spelling only: `+1` and `01` name nothing.
    (self::handle(number) == handle).then_some(number)
}
