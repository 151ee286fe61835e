//! What a core does for its own connections about jobs of other cores: requests out as messages,
//! the owners' messages in.
//!
//! Replies keep their places in the outbox while they are on their way. A worker whose functions
//! belong to several cores (it roams) is served here by hints: each owner says which priorities may
//! have jobs for it, and a grab asks the most promising owner first. `tests/protocol` checks these
//! rules in every order of events.
//!
//! Invariant: a worker that is asleep here has told every owner of its functions so, and no hint is
//! left; a NOOP that finds it awake is declined, so that the owner wakes another one.

use std::collections::BTreeSet;

use bytes::Bytes;
use tracing::{trace, warn};

use crate::engine::{ConnId, Now, Status};
use crate::protocol::admin::{self, Concern, Listing};
use crate::protocol::session;
use crate::shard::cores::Core;
use crate::shard::remote::message::{Answer, ConnKey, Message, Question, Rest};
use crate::shard::remote::urgency::Urgency;
use crate::shard::{Closing, Shard};
use crate::wire::outbox::{Parcel, Slot};
use crate::wire::{
    Command, ErrorReply, Grab, Header, Magic, Payload, Priority, Request, Response, Work, text,
};

/// What a connection's home knows of its remote_counts with other cores.
#[derive(Debug)]
pub(in crate::shard) struct RemoteState {
    /// Cores that know of the connection, one bit each.
    pub(in crate::shard) known: u64,
    /// Submissions to another core since the last one that was for this.
    submissions_in_row: u32,
    /// It couldn't be moved.
    pub(in crate::shard) is_pinned: bool,
    /// Functions of other cores that it can run.
    functions: BTreeSet<Box<[u8]>>,
    /// Memory that they take.
    function_bytes: usize,
    /// How many of them each core owns.
    able: Box<[u32]>,
    /// Priorities that may have jobs, by core.
    hints: Box<[u8]>,
    /// Cores that may have jobs without a hint, one bit each: it has registered there since they
    /// last answered, or they take it for asleep.
    unheard: u64,
    /// Cores of its functions that it has submitted to since they last answered, one bit each: what
    /// they had before says nothing of that job.
    submitted: u64,
    /// Cores that take it for asleep, one bit each.
    told: u64,
    /// The core whose NOOP woke it, until that was asked or it got a job.
    woken_by: Option<Core>,
    /// The core that was asked last.
    turn: Core,
    pub(in crate::shard) asleep: bool,
    /// It can run, or could, functions of another core.
    roams: bool,
    /// A grab that an owner is being asked for; requests behind it wait.
    grabbing: Option<Grab>,
    /// Cores that have no job for it, one bit each.
    asked: u64,
}

impl RemoteState {
    fn new(cores: usize) -> Self {
        Self {
            known: 0,
            submissions_in_row: 0,
            is_pinned: false,
            functions: BTreeSet::new(),
            function_bytes: 0,
            able: vec![0; cores].into(),
            hints: vec![0; cores].into(),
            unheard: 0,
            submitted: 0,
            told: 0,
            woken_by: None,
            turn: 0,
            asleep: false,
            roams: false,
            grabbing: None,
            asked: 0,
        }
    }

    /// Of a connection that comes from the core of its jobs, which knows it with these functions.
    pub(in crate::shard) fn with_jobs_at(
        owner: Core,
        own: Core,
        cores: usize,
        functions: Vec<Box<[u8]>>,
        ready: u8,
        rest: Rest,
    ) -> Self {
        let mut remote = Self::new(cores);
        remote.known = 1 << owner;
        remote.roams = !functions.is_empty();
        remote.able[owner] = u32::try_from(functions.len()).unwrap_or(u32::MAX);
        remote.function_bytes = functions.iter().map(|name| entry_bytes(name)).sum();
        remote.functions = functions.into_iter().collect();
        if remote.roams {
            remote.asleep = rest == Rest::Asleep;
            remote.told = if remote.asleep { 1 << owner | 1 << own } else { 0 };
            // What comes in its sleep comes with the NOOP.
            remote.hints[owner] = if remote.asleep { 0 } else { ready };
            remote.woken_by = (rest == Rest::Woken).then_some(owner);
        }
        remote
    }

    /// Memory that functions of other cores take here, in bytes.
    pub(in crate::shard) fn function_bytes(&self) -> usize {
        self.function_bytes
    }

    pub(in crate::shard) fn roams(&self) -> bool {
        self.roams
    }

    pub(in crate::shard) fn is_grabbing(&self) -> bool {
        self.grabbing.is_some()
    }

    pub(in crate::shard) fn functions(&self) -> impl Iterator<Item = &[u8]> {
        self.functions.iter().map(|name| &**name)
    }

    /// The most promising core to ask, and the least urgent priority that makes it so. Of cores
    /// that weren't heard `urgency` tells what they may have; those that it has submitted to may
    /// have anything. Without hints every owner is asked once: the message with a hint may be on
    /// its way.
    fn best(&self, own: Core, urgency: &Urgency) -> Option<(Core, Priority)> {
        let of_unheard = |core: Core| match self.unheard >> core & 1 {
            1 if self.able[core] > 0 => urgency.of(core),
            _ => 0,
        };
        let urgent = 1 << Priority::High as u8;
        let of_submitted = |core: Core| if self.submitted >> core & 1 == 1 { urgent } else { 0 };
        let mask = |core: Core| self.hints[core] | of_unheard(core) | of_submitted(core);
        let masks = (0..self.hints.len()).map(mask).filter(|mask| *mask != 0);
        let Some(best) = masks.map(u8::trailing_zeros).min() else {
            let is_owner = |core: Core| core == own || self.able[core] > 0;
            let unasked = |&core: &Core| is_owner(core) && self.asked >> core & 1 == 0;
            return (0..self.hints.len()).find(unasked).map(|core| (core, Priority::Low));
        };
        let is_best = |core: Core| mask(core).trailing_zeros() == best;
        let count = self.hints.len();
        let in_turn =
            (1..=count).map(|step| (self.turn + step) % count).find(|&core| is_best(core));
        let core = self.woken_by.filter(|&core| is_best(core)).or(in_turn)?;
        Some((core, *Priority::ALL.get(best as usize)?))
    }
}

/// Memory of a function of another core, with its share of the set, in bytes.
fn entry_bytes(name: &[u8]) -> usize {
    name.len() + 2 * size_of::<Box<[u8]>>()
}

/// What all cores together are asked, as far as they have answered.
#[derive(Debug)]
pub(in crate::shard) struct FanOut {
    key: ConnKey,
    slot: Slot,
    question: Question,
    left: usize,
    latest: Option<(u64, Status)>,
    texts: Vec<Vec<u8>>,
}

/// Requests of connections.
impl Shard {
    /// Sees to a packet that concerns other cores; `false` if it doesn't.
    pub(in crate::shard) fn send_away(
        &mut self,
        conn: ConnId,
        header: Header,
        body: Payload<'_>,
        request: &Request<'_>,
        now: Now,
    ) -> bool {
        let cores = self.settings.cores;
        let number = |handle| self.settings.handles.number(text::c_string(handle));
        match *request {
            // Refused here, as the owner may have ended.
            Request::Submit(_) if self.engine.is_draining() => false,
            Request::Submit(ref submit) => {
                let owner = cores.owner_of(submit.function);
                let asked = owner != cores.own && self.ask(owner, conn, header, body);
                let remote = &mut self.connections[conn as usize].remote;
                if let Some(remote) =
                    remote.as_mut().filter(|remote| asked && remote.able[owner] > 0)
                {
                    remote.submitted |= 1 << owner;
                }
                self.count_streak(conn, owner);
                asked
            }
            Request::Work(ref work) => {
                let owner = self.number_of(work).map(|number| cores.owner_of_job(number));
                owner.is_some_and(|owner| owner != cores.own && self.ask(owner, conn, header, body))
            }
            Request::GetStatus { handle } => {
                let owner = number(handle).map(|number| cores.owner_of_job(number));
                owner.is_some_and(|owner| owner != cores.own && self.ask(owner, conn, header, body))
            }
            Request::GetStatusUnique { unique } => {
                self.ask_all(conn, Question::StatusUnique(unique.into()), now);
                true
            }
            Request::CanDo { function } | Request::CanDoTimeout { function, .. } => {
                let owner = cores.owner_of(function);
                if owner == cores.own {
                    return false;
                }
                self.offer(conn, owner, function);
                self.tell(owner, conn, header, body);
                let remote = self.remote(conn);
                if remote.asleep && remote.told >> owner & 1 == 0 {
                    remote.told |= 1 << owner;
                    let key = self.key(conn);
                    self.send_message(owner, Message::Sleep(key));
                }
                true
            }
            Request::CantDo { function } => {
                let owner = cores.owner_of(function);
                if owner == cores.own {
                    return false;
                }
                let remote = self.remote(conn);
                if remote.functions.remove(function) {
                    let bytes = entry_bytes(function);
                    remote.function_bytes -= bytes;
                    remote.able[owner] -= 1;
                    if remote.able[owner] == 0 {
                        remote.told &= !(1 << owner);
                        remote.unheard &= !(1 << owner);
                        remote.submitted &= !(1 << owner);
                        remote.woken_by = remote.woken_by.filter(|&by| by != owner);
                    }
                    self.remote_bytes -= bytes;
                    self.tell(owner, conn, header, body);
                }
                true
            }
            Request::ResetAbilities => {
                if let Some(remote) = &mut self.connections[conn as usize].remote {
                    remote.functions.clear();
                    self.remote_bytes -= std::mem::take(&mut remote.function_bytes);
                    (remote.unheard, remote.submitted) = (0, 0);
                    let able = std::mem::replace(&mut remote.able, vec![0; cores.count].into());
                    remote.woken_by = remote.woken_by.filter(|&by| able[by] == 0);
                    for owner in (0..cores.count).filter(|&owner| able[owner] > 0) {
                        self.remote(conn).told &= !(1 << owner);
                        self.tell(owner, conn, header, body);
                    }
                }
                // Its functions of this core go, too.
                false
            }
            Request::GrabJob(grab) if self.is_roaming(conn) => {
                self.rise(conn);
                let remote = self.remote(conn);
                remote.asleep = false;
                // The others give no hints to one that they take for asleep.
                remote.unheard |= remote.told;
                remote.grabbing = Some(grab);
                remote.asked = 0;
                self.ask_next(conn, now);
                self.consider_moving(conn);
                true
            }
            Request::PreSleep if self.is_roaming(conn) => {
                self.sleep(conn, now);
                self.consider_moving(conn);
                true
            }
            _ => false,
        }
    }

    /// Sees to an admin line that concerns other cores; `false` if it doesn't.
    pub(in crate::shard) fn send_line_away(&mut self, conn: ConnId, line: &[u8], now: Now) -> bool {
        let cores = self.settings.cores;
        let owner = match admin::concern(line) {
            Concern::Any => return false,
            Concern::Function(name) => cores.owner_of(name),
            Concern::Job(handle) => match self.settings.handles.number(handle) {
                Some(number) => cores.owner_of_job(number),
                None => return false,
            },
            Concern::Everyone => {
                self.ask_all(conn, Question::Line(line.into()), now);
                return true;
            }
        };
        if owner == cores.own {
            return false;
        }
        let slot = self.hold(conn);
        let key = self.known_caller(owner, conn);
        self.send_message(owner, Message::Line { key, slot, line: line.into() });
        true
    }

    /// A result that is refused for its size fails its job, wherever that is.
    pub(in crate::shard) fn fail_away(&mut self, conn: ConnId, handle: &[u8]) {
        let Some(number) = self.settings.handles.number(handle) else { return };
        let owner = self.settings.cores.owner_of_job(number);
        if owner != self.settings.cores.own {
            let body_bytes = u32::try_from(handle.len()).unwrap_or(0);
            let command = Command::WorkFail;
            let header = Header { magic: Magic::Request, command, body_bytes };
            self.tell(owner, conn, header, Payload::borrowed(handle));
        }
    }

    /// Whether a worker's functions belong, or belonged, to several cores.
    pub(in crate::shard) fn is_roaming(&self, conn: ConnId) -> bool {
        self.connections[conn as usize].remote.as_ref().is_some_and(|remote| remote.roams)
    }

    /// Other cores forget a connection that has gone.
    pub(in crate::shard) fn leave_others(
        &mut self,
        conn: ConnId,
        remote: Option<Box<RemoteState>>,
    ) {
        self.remote_bytes -= remote.as_ref().map_or(0, |remote| remote.function_bytes);
        let known = remote.map_or(0, |remote| remote.known);
        for core in self.settings.cores.others().filter(|core| known >> core & 1 == 1) {
            self.send_message(core, Message::Gone(conn));
        }
    }

    /// Has another core write the next rows of a list.
    pub(in crate::shard) fn ask_for_rows(&mut self, conn: ConnId, core: Core, listing: Listing) {
        let key = self.key(conn);
        self.send_message(core, Message::List { key, listing });
    }

    /// Whether there is memory for a worker's word that it can run a function. Decided here, also
    /// where another core owns it: that core has no reply to refuse it with.
    pub(in crate::shard) fn may_register(&self, conn: ConnId, function: &[u8]) -> bool {
        let room = self.registry_room();
        let owner = self.settings.cores.owner_of(function);
        if owner == self.settings.cores.own {
            return self.engine.has_room_to_register(conn, function, room);
        }
        let remote = &self.connections[conn as usize].remote;
        self.engine.has_room_to_register(conn, function, room.saturating_sub(entry_bytes(function)))
            || remote.as_ref().is_some_and(|remote| remote.functions.contains(function))
    }

    pub(in crate::shard) fn refuse_registration(&mut self, conn: ConnId, now: Now) {
        let peer = self.connections[conn as usize].origin.peer;
        self.push(conn, &Response::Error(ErrorReply::OutOfMemoryToRegister), now);
        self.complain(now, || warn!(conn, %peer, "CAN_DO refused: --memory-max is reached"));
    }

    pub(in crate::shard) fn send_message(&mut self, to: Core, message: Message) {
        trace!(to, ?message, "message");
        self.messages.send(to, message);
    }

    /// The job that a worker speaks of.
    pub(in crate::shard) fn number_of(&self, work: &Work<'_>) -> Option<u64> {
        self.settings.handles.number(text::c_string(work.handle))
    }

    fn key(&self, conn: ConnId) -> ConnKey {
        ConnKey { conn, generation: self.connections[conn as usize].generation }
    }

    /// The same, for a message after which `owner` knows of the connection.
    fn known_caller(&mut self, owner: Core, conn: ConnId) -> ConnKey {
        self.remote(conn).known |= 1 << owner;
        self.key(conn)
    }

    fn remote(&mut self, conn: ConnId) -> &mut RemoteState {
        let cores = self.settings.cores.count;
        let remote = &mut self.connections[conn as usize].remote;
        remote.get_or_insert_with(|| Box::new(RemoteState::new(cores)))
    }

    fn hold(&mut self, conn: ConnId) -> Slot {
        self.slots += 1;
        self.connections[conn as usize].outbox.hold()
    }

    /// Counts submissions to other cores; a client that has enough of them may move.
    fn count_streak(&mut self, conn: ConnId, owner: Core) {
        let Some(remote) = &mut self.connections[conn as usize].remote else { return };
        remote.submissions_in_row =
            if owner == self.settings.cores.own { 0 } else { remote.submissions_in_row + 1 };
        if remote.submissions_in_row >= self.settings.move_after {
            self.consider_moving(conn);
        }
    }

    /// Passes a packet on whose replies have their place here. Always `true`.
    fn ask(&mut self, owner: Core, conn: ConnId, header: Header, body: Payload<'_>) -> bool {
        let slot = Some(self.hold(conn));
        self.pass_on(owner, conn, slot, header, body);
        true
    }

    /// Passes a packet on that has no reply.
    fn tell(&mut self, owner: Core, conn: ConnId, header: Header, body: Payload<'_>) {
        self.pass_on(owner, conn, None, header, body);
    }

    fn pass_on(
        &mut self,
        owner: Core,
        conn: ConnId,
        slot: Option<Slot>,
        header: Header,
        body: Payload<'_>,
    ) {
        let body = body.share().unwrap_or_else(|| Bytes::copy_from_slice(body.bytes()));
        let key = self.known_caller(owner, conn);
        self.send_message(owner, Message::Request { key, slot, header, body });
    }

    /// Asks every core, this one included.
    fn ask_all(&mut self, conn: ConnId, question: Question, now: Now) {
        let (key, slot) = (self.key(conn), self.hold(conn));
        let left = self.settings.cores.count;
        let (latest, texts) = (None, Vec::new());
        let asked = question.clone();
        let fan_out = FanOut { key, slot, question, left, latest, texts };
        let fan_out = self.fan_outs.insert(fan_out);
        for core in self.settings.cores.others() {
            self.send_message(core, Message::Ask { fan_out, question: asked.clone() });
        }
        let answer = self.answer_question(&asked, now);
        self.add_answer(fan_out, answer);
    }
}

/// Workers that roam.
impl Shard {
    /// A worker can run a function of another core.
    fn offer(&mut self, conn: ConnId, owner: Core, function: &[u8]) {
        if !self.is_roaming(conn) {
            // So far this core alone knew whether it sleeps and what there is for it.
            self.engine.mark_remote(conn);
            let (own, ready) = (self.settings.cores.own, self.engine.ready(conn));
            let (asleep, woken) = (self.engine.is_asleep(conn), self.engine.is_woken(conn));
            let remote = self.remote(conn);
            remote.roams = true;
            remote.hints[own] = ready;
            remote.asleep = asleep;
            remote.told = u64::from(asleep) << own;
            remote.woken_by = woken.then_some(own);
        }
        let remote = self.remote(conn);
        if remote.functions.insert(function.into()) {
            remote.able[owner] += 1;
            remote.unheard |= 1 << owner;
            let bytes = entry_bytes(function);
            remote.function_bytes += bytes;
            self.remote_bytes += bytes;
        }
    }

    /// Asks the most promising core, or answers NO_JOB.
    fn ask_next(&mut self, conn: ConnId, now: Now) {
        let own = self.settings.cores.own;
        while let Some(grab) = self.remote(conn).grabbing {
            let best = {
                let Self { connections, settings, .. } = &*self;
                let remote = connections[conn as usize].remote.as_ref();
                remote.and_then(|remote| remote.best(own, &settings.urgency))
            };
            let remote = self.remote(conn);
            let Some((core, least)) = best else {
                remote.grabbing = None;
                self.push(conn, &Response::NoJob, now);
                return self.resume(conn);
            };
            remote.turn = core;
            remote.told &= !(1 << core);
            if core != own {
                let key = self.known_caller(core, conn);
                return self.send_message(core, Message::Grab { key, grab, least });
            }
            let (_, mut cx) = self.context(conn, self.room(), now);
            let found = session::grab_urgent(grab, least, &mut cx);
            self.settle(conn, now);
            self.mark_dirty(conn);
            let ready = self.engine.ready(conn);
            self.note_answer(conn, own, ready, found);
            // The job may have been meant for a sleeper that is to be passed over now.
            self.deliver(None, now);
        }
    }

    /// An owner has answered a grab.
    fn note_answer(&mut self, conn: ConnId, core: Core, ready: u8, found: bool) {
        let remote = self.remote(conn);
        remote.hints[core] = ready;
        remote.unheard &= !(1 << core);
        remote.submitted &= !(1 << core);
        if !found {
            remote.asked |= u64::from(ready == 0) << core;
            remote.woken_by = remote.woken_by.filter(|&by| by != core);
            return;
        }
        remote.grabbing = None;
        if let Some(by) = remote.woken_by.take().filter(|&by| by != core) {
            self.decline(conn, by);
        }
        self.resume(conn);
    }

    /// Another's turn: the worker took its job elsewhere, or wasn't asleep.
    fn decline(&mut self, conn: ConnId, core: Core) {
        if core == self.settings.cores.own {
            self.declined.push(conn);
        } else {
            let key = self.key(conn);
            self.send_message(core, Message::Declined(key));
        }
    }

    /// `PRE_SLEEP` of a worker that roams.
    fn sleep(&mut self, conn: ConnId, now: Now) {
        let own = self.settings.cores.own;
        let remote = self.remote(conn);
        if remote.hints.iter().any(|&mask| mask != 0) {
            // It may have slept already, and is awake now: whoever wakes it is declined.
            remote.asleep = false;
            return self.push(conn, &Response::Noop, now);
        }
        remote.asleep = true;
        if remote.told >> own & 1 == 0 {
            remote.told |= 1 << own;
            self.engine.pre_sleep(conn);
            self.deliver(None, now);
        }
        for core in self.settings.cores.others() {
            // This very core may have woken it at once.
            let remote = self.remote(conn);
            if remote.asleep && remote.able[core] > 0 && remote.told >> core & 1 == 0 {
                remote.told |= 1 << core;
                let key = self.key(conn);
                self.send_message(core, Message::Sleep(key));
            }
        }
    }

    /// An owner has jobs for a worker that it takes for asleep.
    pub(in crate::shard) fn receive_noop(&mut self, conn: ConnId, from: Core, ready: u8, now: Now) {
        let remote = self.remote(conn);
        let was_told = remote.told >> from & 1 == 1;
        if remote.asleep && !was_told {
            // It has nothing to do with that core any more, or has only just stayed here.
            return self.decline(conn, from);
        }
        remote.told &= !(1 << from);
        remote.hints[from] |= ready;
        if std::mem::take(&mut remote.asleep) {
            remote.woken_by = Some(from);
            self.rise(conn);
            self.push(conn, &Response::Noop, now);
        } else {
            // One that stays after all is woken once more: that lease, too, ends with this message.
            remote.woken_by = remote.woken_by.filter(|&by| by != from);
            self.decline(conn, from);
        }
    }

    /// This core hears that a worker is awake without being asked or declined: it costs nothing.
    fn rise(&mut self, conn: ConnId) {
        let own = self.settings.cores.own;
        let remote = self.remote(conn);
        if remote.told >> own & 1 == 1 {
            remote.told &= !(1 << own);
            self.engine.rise(conn);
            let ready = self.engine.ready(conn);
            self.remote(conn).hints[own] |= ready;
        }
    }

    /// An owner has jobs for a worker that is awake.
    pub(in crate::shard) fn receive_hint(&mut self, conn: ConnId, from: Core, ready: u8) {
        self.remote(conn).hints[from] |= ready;
    }

    fn resume(&mut self, conn: ConnId) {
        self.resumed.push(conn);
    }
}

/// Outgoing of owners.
impl Shard {
    /// Handles a message that comes back to a connection's home.
    pub(in crate::shard) fn receive_at_home(&mut self, from: Core, message: Message, now: Now) {
        match message {
            Message::Reply { key, slot, parcel } => {
                if let Some(conn) = self.find_caller(key) {
                    self.fill(conn, |outbox| outbox.fill_with(slot, parcel));
                }
            }
            Message::Push { key, parcel } => {
                if let Some(conn) = self.find_caller(key) {
                    self.push_parcel(conn, parcel, now);
                }
            }
            Message::Forward { key, command, body } => {
                let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
                let header = Header { magic: Magic::Request, command, body_bytes };
                if let Some(conn) = self.find_caller(key)
                    && let Ok(Request::Work(work)) = Request::parse(header, Payload::shared(&body))
                {
                    self.forward(conn, &work, now);
                }
            }
            Message::Assigned { key, parcel, ready } => {
                // One that has gone meanwhile has told the owner so.
                if let Some(conn) = self.find_caller(key) {
                    self.push_parcel(conn, parcel, now);
                    self.note_answer(conn, from, ready, true);
                }
            }
            Message::Empty { key, ready } => {
                if let Some(conn) = self.find_caller(key) {
                    self.note_answer(conn, from, ready, false);
                    self.ask_next(conn, now);
                }
            }
            Message::Late { key, number } => {
                if let Some(conn) = self.find_caller(key) {
                    self.note_late(conn, number, now);
                }
            }
            Message::Hint { key, ready } => {
                if let Some(conn) = self.find_caller(key) {
                    self.receive_hint(conn, from, ready);
                }
            }
            Message::Noop { key, ready } => {
                if let Some(conn) = self.find_caller(key) {
                    self.receive_noop(conn, from, ready, now);
                }
            }
            Message::MigrationAccepted(key) => {
                if let Some(conn) = self.find_caller(key) {
                    self.pack(conn, from);
                }
            }
            Message::Rows { key, rows, next } => {
                if let Some(conn) = self.find_caller(key)
                    && let Some(progress) = &mut self.connections[conn as usize].listing
                {
                    progress.asked = false;
                    let text = progress.take_in(*rows, next);
                    self.push_text(conn, text, now);
                    self.resume(conn);
                }
            }
            Message::Answer { fan_out, answer } => self.add_answer(fan_out, answer),
            other => debug_assert!(false, "{other:?} is for an owner"),
        }
    }

    /// A core has answered what all are asked.
    pub(in crate::shard) fn add_answer(&mut self, fan_out: usize, answer: Answer) {
        let pending = &mut self.fan_outs[fan_out];
        pending.left -= 1;
        match answer {
            Answer::Status(status) => {
                let latest = [pending.latest, status].into_iter().flatten();
                pending.latest = latest.max_by_key(|(number, _)| *number);
            }
            Answer::Text(text) => pending.texts.push(text),
        }
        if pending.left > 0 {
            return;
        }
        let FanOut { key, slot, question, latest, texts, .. } = self.fan_outs.remove(fan_out);
        let Some(conn) = self.find_caller(key) else { return };
        let mut parcel = Parcel::default();
        match &question {
            Question::StatusUnique(unique) => {
                parcel.push(&session::status_unique(unique, latest));
            }
            Question::Line(_) => parcel.push_text(&admin::join(&texts)),
        }
        self.fill(conn, |outbox| outbox.fill_with(slot, parcel));
    }

    /// The connection a message is about, unless it has gone, or is gone for other cores: an answer
    /// would make itself known to them again, and nothing would make them forget it.
    fn find_caller(&self, key: ConnKey) -> Option<ConnId> {
        let connection = self.connections.get(key.conn as usize)?;
        let is_open = match connection.closing {
            Closing::No => true,
            Closing::Flushing => !connection.ended,
            Closing::Now => false,
        };
        let is_it = connection.generation == key.generation && connection.key.is_none();
        (is_it && is_open).then_some(key.conn)
    }
}
