//! What a core does for its own connections about jobs of other cores: requests out as letters,
//! the owners' letters in.
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
use crate::protocol::admin::{self, Listing, Scope};
use crate::protocol::session;
use crate::shard::cores::Core;
use crate::shard::remote::message::{Answer, Caller, Letter, Question, Rest};
use crate::shard::remote::urgency::Urgency;
use crate::shard::{Closing, Shard};
use crate::wire::outbox::{PacketBatch, Slot};
use crate::wire::{
    Command, ErrorReply, Grab, Header, Magic, Payload, Priority, Request, Response, Work, text,
};

/// What a connection's home knows of its dealings with other cores.
#[derive(Debug)]
pub(in crate::shard) struct Away {
    /// Cores that know of the connection, one bit each.
    pub(in crate::shard) known: u64,
    /// Submissions to another core since the last one that was for this.
    streak: u32,
    /// It couldn't be moved.
    pub(in crate::shard) is_rooted: bool,
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

impl Away {
    fn new(cores: usize) -> Self {
        Self {
            known: 0,
            streak: 0,
            is_rooted: false,
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
        let mut away = Self::new(cores);
        away.known = 1 << owner;
        away.roams = !functions.is_empty();
        away.able[owner] = u32::try_from(functions.len()).unwrap_or(u32::MAX);
        away.function_bytes = functions.iter().map(|name| entry_bytes(name)).sum();
        away.functions = functions.into_iter().collect();
        if away.roams {
            away.asleep = rest == Rest::Asleep;
            away.told = if away.asleep { 1 << owner | 1 << own } else { 0 };
            // What comes in its sleep comes with the NOOP.
            away.hints[owner] = if away.asleep { 0 } else { ready };
            away.woken_by = (rest == Rest::Woken).then_some(owner);
        }
        away
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
    /// have anything. Without hints every owner is asked once: the letter with a hint may be on its
    /// way.
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
pub(in crate::shard) struct Gathering {
    caller: Caller,
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
                let away = &mut self.connections[conn as usize].away;
                if let Some(away) = away.as_mut().filter(|away| asked && away.able[owner] > 0) {
                    away.submitted |= 1 << owner;
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
                self.gather(conn, Question::StatusUnique(unique.into()), now);
                true
            }
            Request::CanDo { function } | Request::CanDoTimeout { function, .. } => {
                let owner = cores.owner_of(function);
                if owner == cores.own {
                    return false;
                }
                self.offer(conn, owner, function);
                self.tell(owner, conn, header, body);
                let away = self.away(conn);
                if away.asleep && away.told >> owner & 1 == 0 {
                    away.told |= 1 << owner;
                    let caller = self.caller(conn);
                    self.send_letter(owner, Letter::Sleep(caller));
                }
                true
            }
            Request::CantDo { function } => {
                let owner = cores.owner_of(function);
                if owner == cores.own {
                    return false;
                }
                let away = self.away(conn);
                if away.functions.remove(function) {
                    let bytes = entry_bytes(function);
                    away.function_bytes -= bytes;
                    away.able[owner] -= 1;
                    if away.able[owner] == 0 {
                        away.told &= !(1 << owner);
                        away.unheard &= !(1 << owner);
                        away.submitted &= !(1 << owner);
                        away.woken_by = away.woken_by.filter(|&by| by != owner);
                    }
                    self.away_bytes -= bytes;
                    self.tell(owner, conn, header, body);
                }
                true
            }
            Request::ResetAbilities => {
                if let Some(away) = &mut self.connections[conn as usize].away {
                    away.functions.clear();
                    self.away_bytes -= std::mem::take(&mut away.function_bytes);
                    (away.unheard, away.submitted) = (0, 0);
                    let able = std::mem::replace(&mut away.able, vec![0; cores.count].into());
                    away.woken_by = away.woken_by.filter(|&by| able[by] == 0);
                    for owner in (0..cores.count).filter(|&owner| able[owner] > 0) {
                        self.away(conn).told &= !(1 << owner);
                        self.tell(owner, conn, header, body);
                    }
                }
                // Its functions of this core go, too.
                false
            }
            Request::GrabJob(grab) if self.is_roaming(conn) => {
                self.rise(conn);
                let away = self.away(conn);
                away.asleep = false;
                // The others give no hints to one that they take for asleep.
                away.unheard |= away.told;
                away.grabbing = Some(grab);
                away.asked = 0;
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
        let owner = match admin::scope(line) {
            Scope::Any => return false,
            Scope::Function(name) => cores.owner_of(name),
            Scope::Job(handle) => match self.settings.handles.number(handle) {
                Some(number) => cores.owner_of_job(number),
                None => return false,
            },
            Scope::All => {
                self.gather(conn, Question::Line(line.into()), now);
                return true;
            }
        };
        if owner == cores.own {
            return false;
        }
        let slot = self.hold(conn);
        let caller = self.known_caller(owner, conn);
        self.send_letter(owner, Letter::Line { caller, slot, line: line.into() });
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
        self.connections[conn as usize].away.as_ref().is_some_and(|away| away.roams)
    }

    /// Other cores forget a connection that has gone.
    pub(in crate::shard) fn leave_others(&mut self, conn: ConnId, away: Option<Box<Away>>) {
        self.away_bytes -= away.as_ref().map_or(0, |away| away.function_bytes);
        let known = away.map_or(0, |away| away.known);
        for core in self.settings.cores.others().filter(|core| known >> core & 1 == 1) {
            self.send_letter(core, Letter::Gone(conn));
        }
    }

    /// Has another core write the next rows of a list.
    pub(in crate::shard) fn ask_for_rows(&mut self, conn: ConnId, core: Core, listing: Listing) {
        let caller = self.caller(conn);
        self.send_letter(core, Letter::List { caller, listing });
    }

    /// Whether there is memory for a worker's word that it can run a function. Decided here, also
    /// where another core owns it: that core has no reply to refuse it with.
    pub(in crate::shard) fn may_register(&self, conn: ConnId, function: &[u8]) -> bool {
        let room = self.registry_room();
        let owner = self.settings.cores.owner_of(function);
        if owner == self.settings.cores.own {
            return self.engine.has_memory_to_register(conn, function, room);
        }
        let away = &self.connections[conn as usize].away;
        self.engine.has_memory_to_register(
            conn,
            function,
            room.saturating_sub(entry_bytes(function)),
        ) || away.as_ref().is_some_and(|away| away.functions.contains(function))
    }

    pub(in crate::shard) fn refuse_registration(&mut self, conn: ConnId, now: Now) {
        let peer = self.connections[conn as usize].origin.peer;
        self.push(conn, &Response::Error(ErrorReply::OutOfMemoryToRegister), now);
        self.complain(now, || warn!(conn, %peer, "CAN_DO refused: --memory-max is reached"));
    }

    pub(in crate::shard) fn send_letter(&mut self, to: Core, letter: Letter) {
        trace!(to, ?letter, "letter");
        self.letters.send(to, letter);
    }

    /// The job that a worker speaks of.
    pub(in crate::shard) fn number_of(&self, work: &Work<'_>) -> Option<u64> {
        self.settings.handles.number(text::c_string(work.handle))
    }

    fn caller(&self, conn: ConnId) -> Caller {
        Caller { conn, session: self.connections[conn as usize].session_id }
    }

    /// The same, for a letter after which `owner` knows of the connection.
    fn known_caller(&mut self, owner: Core, conn: ConnId) -> Caller {
        self.away(conn).known |= 1 << owner;
        self.caller(conn)
    }

    fn away(&mut self, conn: ConnId) -> &mut Away {
        let cores = self.settings.cores.count;
        let away = &mut self.connections[conn as usize].away;
        away.get_or_insert_with(|| Box::new(Away::new(cores)))
    }

    fn hold(&mut self, conn: ConnId) -> Slot {
        self.slots += 1;
        self.connections[conn as usize].outbox.hold()
    }

    /// Counts submissions to other cores; a client that has enough of them may move.
    fn count_streak(&mut self, conn: ConnId, owner: Core) {
        let Some(away) = &mut self.connections[conn as usize].away else { return };
        away.streak = if owner == self.settings.cores.own { 0 } else { away.streak + 1 };
        if away.streak >= self.settings.move_after {
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
        let caller = self.known_caller(owner, conn);
        self.send_letter(owner, Letter::Request { caller, slot, header, body });
    }

    /// Asks every core, this one included.
    fn gather(&mut self, conn: ConnId, question: Question, now: Now) {
        let (caller, slot) = (self.caller(conn), self.hold(conn));
        let left = self.settings.cores.count;
        let (latest, texts) = (None, Vec::new());
        let asked = question.clone();
        let gathering = Gathering { caller, slot, question, left, latest, texts };
        let gathering = self.gatherings.insert(gathering);
        for core in self.settings.cores.others() {
            self.send_letter(core, Letter::Ask { gathering, question: asked.clone() });
        }
        let answer = self.answer_question(&asked, now);
        self.add_answer(gathering, answer);
    }
}

/// Workers that roam.
impl Shard {
    /// A worker can run a function of another core.
    fn offer(&mut self, conn: ConnId, owner: Core, function: &[u8]) {
        if !self.is_roaming(conn) {
            // So far this core alone knew whether it sleeps and what there is for it.
            self.engine.mark_remote(conn);
            let (own, ready) = (self.settings.cores.own, self.engine.ready(conn).bits());
            let (asleep, woken) = (self.engine.is_asleep(conn), self.engine.is_woken(conn));
            let away = self.away(conn);
            away.roams = true;
            away.hints[own] = ready;
            away.asleep = asleep;
            away.told = u64::from(asleep) << own;
            away.woken_by = woken.then_some(own);
        }
        let away = self.away(conn);
        if away.functions.insert(function.into()) {
            away.able[owner] += 1;
            away.unheard |= 1 << owner;
            let bytes = entry_bytes(function);
            away.function_bytes += bytes;
            self.away_bytes += bytes;
        }
    }

    /// Asks the most promising core, or answers NO_JOB.
    fn ask_next(&mut self, conn: ConnId, now: Now) {
        let own = self.settings.cores.own;
        while let Some(grab) = self.away(conn).grabbing {
            let best = {
                let Self { connections, settings, .. } = &*self;
                let away = connections[conn as usize].away.as_ref();
                away.and_then(|away| away.best(own, &settings.urgency))
            };
            let away = self.away(conn);
            let Some((core, least)) = best else {
                away.grabbing = None;
                self.push(conn, &Response::NoJob, now);
                return self.resume(conn);
            };
            away.turn = core;
            away.told &= !(1 << core);
            if core != own {
                let caller = self.known_caller(core, conn);
                return self.send_letter(core, Letter::Grab { caller, grab, least });
            }
            let (_, mut cx) = self.context(conn, self.room(), now);
            let found = session::grab_urgent(grab, least, &mut cx);
            self.settle(conn, now);
            self.mark_dirty(conn);
            let ready = self.engine.ready(conn).bits();
            self.note_answer(conn, own, ready, found);
            // The job may have been meant for a sleeper that is to be passed over now.
            self.deliver(None, now);
        }
    }

    /// An owner has answered a grab.
    fn note_answer(&mut self, conn: ConnId, core: Core, ready: u8, found: bool) {
        let away = self.away(conn);
        away.hints[core] = ready;
        away.unheard &= !(1 << core);
        away.submitted &= !(1 << core);
        if !found {
            away.asked |= u64::from(ready == 0) << core;
            away.woken_by = away.woken_by.filter(|&by| by != core);
            return;
        }
        away.grabbing = None;
        if let Some(by) = away.woken_by.take().filter(|&by| by != core) {
            self.decline(conn, by);
        }
        self.resume(conn);
    }

    /// Another's turn: the worker took its job elsewhere, or wasn't asleep.
    fn decline(&mut self, conn: ConnId, core: Core) {
        if core == self.settings.cores.own {
            self.declined.push(conn);
        } else {
            let caller = self.caller(conn);
            self.send_letter(core, Letter::Declined(caller));
        }
    }

    /// `PRE_SLEEP` of a worker that roams.
    fn sleep(&mut self, conn: ConnId, now: Now) {
        let own = self.settings.cores.own;
        let away = self.away(conn);
        if away.hints.iter().any(|&mask| mask != 0) {
            // It may have slept already, and is awake now: whoever wakes it is declined.
            away.asleep = false;
            return self.push(conn, &Response::Noop, now);
        }
        away.asleep = true;
        if away.told >> own & 1 == 0 {
            away.told |= 1 << own;
            self.engine.pre_sleep(conn);
            self.deliver(None, now);
        }
        for core in self.settings.cores.others() {
            // This very core may have woken it at once.
            let away = self.away(conn);
            if away.asleep && away.able[core] > 0 && away.told >> core & 1 == 0 {
                away.told |= 1 << core;
                let caller = self.caller(conn);
                self.send_letter(core, Letter::Sleep(caller));
            }
        }
    }

    /// An owner has jobs for a worker that it takes for asleep.
    pub(in crate::shard) fn receive_noop(&mut self, conn: ConnId, from: Core, ready: u8, now: Now) {
        let away = self.away(conn);
        let was_told = away.told >> from & 1 == 1;
        if away.asleep && !was_told {
            // It has nothing to do with that core any more, or has only just stayed here.
            return self.decline(conn, from);
        }
        away.told &= !(1 << from);
        away.hints[from] |= ready;
        if std::mem::take(&mut away.asleep) {
            away.woken_by = Some(from);
            self.rise(conn);
            self.push(conn, &Response::Noop, now);
        } else {
            // One that stays after all is woken once more: that lease, too, ends with this letter.
            away.woken_by = away.woken_by.filter(|&by| by != from);
            self.decline(conn, from);
        }
    }

    /// This core hears that a worker is awake without being asked or declined: it costs nothing.
    fn rise(&mut self, conn: ConnId) {
        let own = self.settings.cores.own;
        let away = self.away(conn);
        if away.told >> own & 1 == 1 {
            away.told &= !(1 << own);
            self.engine.mark_awake(conn);
            let ready = self.engine.ready(conn).bits();
            self.away(conn).hints[own] |= ready;
        }
    }

    /// An owner has jobs for a worker that is awake.
    pub(in crate::shard) fn receive_hint(&mut self, conn: ConnId, from: Core, ready: u8) {
        self.away(conn).hints[from] |= ready;
    }

    fn resume(&mut self, conn: ConnId) {
        self.resumed.push(conn);
    }
}

/// Letters of owners.
impl Shard {
    /// Handles a letter that comes back to a connection's home.
    pub(in crate::shard) fn receive_at_home(&mut self, from: Core, letter: Letter, now: Now) {
        match letter {
            Letter::Reply { caller, slot, parcel } => {
                if let Some(conn) = self.find_caller(caller) {
                    self.fill(conn, |outbox| outbox.fill_with(slot, parcel));
                }
            }
            Letter::Push { caller, parcel } => {
                if let Some(conn) = self.find_caller(caller) {
                    self.push_batch(conn, parcel, now);
                }
            }
            Letter::Forward { caller, command, body } => {
                let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
                let header = Header { magic: Magic::Request, command, body_bytes };
                if let Some(conn) = self.find_caller(caller)
                    && let Ok(Request::Work(work)) = Request::parse(header, Payload::shared(&body))
                {
                    self.forward(conn, &work, now);
                }
            }
            Letter::Assigned { caller, parcel, ready } => {
                // One that has gone meanwhile has told the owner so.
                if let Some(conn) = self.find_caller(caller) {
                    self.push_batch(conn, parcel, now);
                    self.note_answer(conn, from, ready, true);
                }
            }
            Letter::Empty { caller, ready } => {
                if let Some(conn) = self.find_caller(caller) {
                    self.note_answer(conn, from, ready, false);
                    self.ask_next(conn, now);
                }
            }
            Letter::Late { caller, number } => {
                if let Some(conn) = self.find_caller(caller) {
                    self.note_late(conn, number, now);
                }
            }
            Letter::Hint { caller, ready } => {
                if let Some(conn) = self.find_caller(caller) {
                    self.receive_hint(conn, from, ready);
                }
            }
            Letter::Noop { caller, ready } => {
                if let Some(conn) = self.find_caller(caller) {
                    self.receive_noop(conn, from, ready, now);
                }
            }
            Letter::Welcome(caller) => {
                if let Some(conn) = self.find_caller(caller) {
                    self.pack(conn, from);
                }
            }
            Letter::Rows { caller, rows, next } => {
                if let Some(conn) = self.find_caller(caller)
                    && let Some(progress) = &mut self.connections[conn as usize].listing
                {
                    progress.asked = false;
                    let text = progress.take_in(*rows, next);
                    self.push_text(conn, text, now);
                    self.resume(conn);
                }
            }
            Letter::Answer { gathering, answer } => self.add_answer(gathering, answer),
            other => debug_assert!(false, "{other:?} is for an owner"),
        }
    }

    /// A core has answered what all are asked.
    pub(in crate::shard) fn add_answer(&mut self, gathering: usize, answer: Answer) {
        let gathered = &mut self.gatherings[gathering];
        gathered.left -= 1;
        match answer {
            Answer::Status(status) => {
                let latest = [gathered.latest, status].into_iter().flatten();
                gathered.latest = latest.max_by_key(|(number, _)| *number);
            }
            Answer::Text(text) => gathered.texts.push(text),
        }
        if gathered.left > 0 {
            return;
        }
        let Gathering { caller, slot, question, latest, texts, .. } =
            self.gatherings.remove(gathering);
        let Some(conn) = self.find_caller(caller) else { return };
        let mut parcel = PacketBatch::default();
        match &question {
            Question::StatusUnique(unique) => {
                parcel.push(&session::status_unique(unique, latest));
            }
            Question::Line(_) => parcel.push_text(&admin::join(&texts)),
        }
        self.fill(conn, |outbox| outbox.fill_with(slot, parcel));
    }

    /// The connection a letter is about, unless it has gone, or is gone for other cores: an answer
    /// would make itself known to them again, and nothing would make them forget it.
    fn find_caller(&self, caller: Caller) -> Option<ConnId> {
        let connection = self.connections.get(caller.conn as usize)?;
        let is_open = match connection.closing {
            Closing::No => true,
            Closing::Flushing => !connection.ended,
            Closing::Now => false,
        };
        let is_it = connection.session_id == caller.session && connection.caller.is_none();
        (is_it && is_open).then_some(caller.conn)
    }
}
