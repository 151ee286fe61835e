//! Shards, what is on its way between them, and their peers as one value; what can happen to it.
//!
//! Messages between two cores stay in order and take as long as they like. A core's batch is any
//! number of events in a row: requests, messages, timers; what it has for others leaves with its
//! end. What happens at other cores meanwhile might as well have happened before or after, so one
//! core at a time has a batch. Knows none of the rules.
//!
//! Invariant: a step is a function of the cluster and the action; `fork` shares nothing that a step
//! changes.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use ringgear::engine::{ConnId, Now};
use ringgear::shard::cores::{Core, CoreSet, Cores};
use ringgear::shard::fingerprint::{describe_message, describe_migrating};
use ringgear::shard::remote::message::{ConnKey, Message, Rest};
use ringgear::shard::remote::urgency::Urgency;
use ringgear::shard::{Intake, MigratingConnection, Origin, OtherCores, Service, Settings, Shard};
use ringgear::wire::{self, Command, Magic, PrioritySet};

use crate::checks::Breach;
use crate::peer::{self, Heard, Peer, Phase, Place};
use crate::scenario::{Fault, Function, Job, PeerId, Scenario};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The oldest of what one core has sent another arrives.
    Deliver(Core, Core),
    /// A worker does what a worker does next.
    Act(PeerId),
    /// The next job's client submits it.
    Submit,
    /// The lease of a core that began first ends by time.
    LeaseEnds(Core),
    /// A core is done with all that came together.
    EndBatch(Core),
    /// The driver asks where a connection moves that is to.
    Board(PeerId),
    /// It has handed the socket over.
    Depart(PeerId),
    /// It can't.
    Stay(PeerId),
    Lose(PeerId),
    Connect(PeerId),
    /// CANT_DO, and CAN_DO once more.
    Withdraw(PeerId, Function),
    Offer(PeerId, Function),
    /// A worker grabs in its sleep, or sleeps when it could grab.
    Whim(PeerId),
    Hang(PeerId),
    /// A connection of a core is to go to the next core.
    Offload(Core),
}

impl Action {
    /// Whether it happens of itself, without clients, failures or whims.
    pub(crate) fn is_inner(self) -> bool {
        matches!(
            self,
            Self::Deliver(..)
                | Self::Act(_)
                | Self::LeaseEnds(_)
                | Self::EndBatch(_)
                | Self::Board(_)
                | Self::Depart(_)
        )
    }
}

#[derive(Clone, Debug)]
enum Mail {
    Message(Message),
    Connection(PeerId, MigratingConnection),
}

pub(crate) struct Cluster {
    pub(crate) shards: Vec<Shard>,
    urgency: Urgency,
    /// Each core's clock.
    now_ms: Vec<u64>,
    /// By sender, then receiver.
    rings: Vec<Vec<VecDeque<Mail>>>,
    /// The core that has begun a batch.
    batch: Option<Core>,
    /// Events that the batch may still have; always the most where that is any number.
    room: u8,
    pub(crate) peers: Vec<Peer>,
    /// Jobs that were submitted.
    pub(crate) submitted: usize,
    /// Jobs whose worker has sent WORK_COMPLETE.
    pub(crate) done: Vec<bool>,
    losses: u8,
    withdrawals: u8,
    whims: u8,
    hangs: u8,
    offloads: u8,
    stays: u8,
    /// What a peer got that it should not have.
    pub(crate) breach: Option<Breach>,
}

impl Cluster {
    /// Peers have connected and named what they can do; what their cores have to say to others is
    /// on its way.
    pub(crate) fn start(scenario: &Scenario) -> Self {
        let (count, urgency) = (scenario.cores, Urgency::default());
        let now = Now { mono_ms: 0, unix_ms: 1_700_000_000_000 };
        let shard = |own| {
            let settings = Settings {
                cores: Cores { own, count },
                urgency: urgency.clone(),
                move_after: scenario.move_after,
                ..Settings::default()
            };
            let mut shard = Shard::new(settings, now);
            shard.set_other_cores(OtherCores { accepting: CoreSet::ALL, ..OtherCores::default() });
            shard
        };
        let peer = |spec: &crate::scenario::PeerSpec| Peer {
            place: Place::Nowhere,
            phase: Phase::Gone,
            able: vec![false; spec.functions.len()],
            due: None,
            created: 0,
            outcomes: Vec::new(),
            aside: false,
            boarded: false,
        };
        let mut cluster = Self {
            shards: (0..count).map(shard).collect(),
            urgency: urgency.clone(),
            now_ms: vec![0; count],
            rings: vec![vec![VecDeque::new(); count]; count],
            batch: None,
            room: scenario.batch_max,
            peers: scenario.peers.iter().map(peer).collect(),
            submitted: 0,
            done: vec![false; scenario.jobs.len()],
            losses: scenario.losses,
            withdrawals: scenario.withdrawals,
            whims: scenario.whims,
            hangs: scenario.hangs,
            offloads: scenario.offloads,
            stays: scenario.stays,
            breach: None,
        };
        for id in 0..cluster.peers.len() {
            cluster.perform(scenario, Action::Connect(id));
            cluster.perform(scenario, Action::EndBatch(scenario.peers[id].core));
        }
        cluster
    }

    /// A cluster in the same state.
    pub(crate) fn fork(&self) -> Self {
        let urgency = Urgency::default();
        for core in 0..self.shards.len() {
            urgency.publish(core, self.urgency.of(core));
        }
        Self {
            shards: self.shards.iter().map(|shard| shard.fork(urgency.clone())).collect(),
            urgency,
            now_ms: self.now_ms.clone(),
            rings: self.rings.clone(),
            peers: self.peers.clone(),
            done: self.done.clone(),
            breach: self.breach,
            ..*self
        }
    }

    /// Nothing is on its way, and all cores are done.
    pub(crate) fn is_quiet(&self) -> bool {
        let moves = |peer: &Peer| {
            peer.boarded
                || matches!(peer.place, Place::At(core, conn)
                    if self.shards[core].intake(conn) == Intake::Move)
        };
        self.batch.is_none()
            && self.rings.iter().flatten().all(VecDeque::is_empty)
            && !self.peers.iter().any(moves)
    }

    /// All that the rules and the peers go by, as a text.
    pub(crate) fn describe(&self) -> String {
        let mut out = String::with_capacity(4096);
        let name = |core: Core, key: ConnKey| {
            let there = self.shards[core].descriptor_of(key).map(i32::cast_unsigned);
            // No peer has so large a descriptor.
            let gone = 2000 + 100 * u32::try_from(core).unwrap();
            there.unwrap_or_else(|| gone.saturating_add(key.conn.at_home().number()))
        };
        self.shards.iter().for_each(|shard| {
            shard.describe(&name, &mut out);
            out.push('#');
        });
        for (from, rings) in self.rings.iter().enumerate() {
            for (to, ring) in rings.iter().enumerate() {
                out.push(';');
                for mail in ring {
                    match mail {
                        Mail::Message(message) => {
                            describe_message(from, to, message, &name, &mut out)
                        }
                        Mail::Connection(_, it) => describe_migrating(from, it, &name, &mut out),
                    }
                }
            }
        }
        let Self { batch, room, peers, submitted, done, .. } = self;
        let left = [self.losses, self.withdrawals, self.whims, self.hangs, self.offloads];
        let rest =
            format!("{batch:?} {room} {peers:?} {submitted} {done:?} {left:?} {}", self.stays);
        out.push_str(&rest);
        out
    }

    /// What can happen next.
    pub(crate) fn actions(&self, scenario: &Scenario) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(core) = self.batch.filter(|_| self.room == 0) {
            return vec![Action::EndBatch(core)];
        }
        let may_act = |core: Core| self.batch.is_none_or(|batch| batch == core);
        for (from, rings) in self.rings.iter().enumerate() {
            let full = rings.iter().enumerate().filter(|(_, ring)| !ring.is_empty());
            let here = full.filter(|&(to, _)| may_act(to));
            actions.extend(here.map(|(to, _)| Action::Deliver(from, to)));
        }
        actions.extend(self.batch.map(Action::EndBatch));
        for (id, peer) in self.peers.iter().enumerate() {
            match peer.place {
                Place::At(core, conn) if may_act(core) => {
                    self.actions_of(scenario, id, (core, conn), &mut actions);
                }
                Place::Nowhere if may_act(scenario.peers[id].core) => {
                    actions.push(Action::Connect(id));
                }
                _ => {}
            }
        }
        if let Some(job) = scenario.jobs.get(self.submitted)
            && self.is_heard(job.client)
        {
            actions.push(Action::Submit);
        }
        for core in (0..self.shards.len()).filter(|&core| may_act(core)) {
            if scenario.timers
                && scenario.fault != Some(Fault::NeverTick)
                && self.shards[core].engine().deadline_ms().is_some()
            {
                actions.push(Action::LeaseEnds(core));
            }
            if self.offloads > 0 {
                actions.push(Action::Offload(core));
            }
        }
        actions
    }

    /// Whether what a peer sends is received.
    fn is_heard(&self, id: PeerId) -> bool {
        let peer = &self.peers[id];
        matches!(peer.place, Place::At(core, conn)
            if self.batch.is_none_or(|batch| batch == core)
                && !peer.boarded
                && self.shards[core].intake(conn) == Intake::Read)
    }

    fn actions_of(
        &self,
        scenario: &Scenario,
        id: PeerId,
        (core, conn): (Core, ConnId),
        actions: &mut Vec<Action>,
    ) {
        let (peer, spec) = (&self.peers[id], &scenario.peers[id]);
        if peer.boarded {
            actions.push(Action::Depart(id));
            if self.stays > 0 {
                actions.push(Action::Stay(id));
            }
            return;
        }
        if self.shards[core].intake(conn) == Intake::Move {
            actions.push(Action::Board(id));
        }
        let is_worker = !spec.functions.is_empty();
        let is_client = scenario.jobs.iter().any(|job| job.client == id);
        // What waits is lost with the connection, a result with it.
        if !is_client && self.losses > 0 && !peer.aside {
            actions.push(Action::Lose(id));
        }
        if !is_worker || !self.is_heard(id) {
            return;
        }
        if matches!(peer.phase, Phase::Ready | Phase::Idle | Phase::Working(..)) {
            actions.push(Action::Act(id));
        }
        if self.whims > 0 && matches!(peer.phase, Phase::Ready | Phase::Asleep) {
            actions.push(Action::Whim(id));
        }
        if self.hangs > 0 && peer.phase == Phase::Ready {
            actions.push(Action::Hang(id));
        }
        if peer.phase != Phase::Waiting {
            for (&function, able) in spec.functions.iter().zip(&peer.able) {
                if *able && self.withdrawals > 0 {
                    actions.push(Action::Withdraw(id, function));
                } else if !*able {
                    actions.push(Action::Offer(id, function));
                }
            }
        }
    }

    pub(crate) fn perform(&mut self, scenario: &Scenario, action: Action) {
        if scenario.batch_max < u8::MAX {
            let ends = matches!(action, Action::EndBatch(_));
            self.room = if ends { scenario.batch_max } else { self.room.saturating_sub(1) };
        }
        match action {
            Action::Deliver(from, to) => self.deliver(scenario, from, to),
            Action::Act(id) => match self.peers[id].phase.clone() {
                Phase::Ready => self.grab(scenario, id),
                Phase::Idle => self.sleep(scenario, id),
                Phase::Working(job, handle) => {
                    self.peers[id].phase = Phase::Ready;
                    self.done[job] = true;
                    let result = job.to_string();
                    self.say(scenario, id, Command::WorkComplete, &[&handle], result.as_bytes());
                }
                Phase::Waiting | Phase::Asleep | Phase::Hung | Phase::Gone => {}
            },
            Action::Submit => self.submit(scenario),
            Action::LeaseEnds(core) => self.end_lease(core),
            Action::EndBatch(core) => self.end_batch(scenario, core),
            Action::Board(id) => {
                let (core, conn) = self.at(id);
                let hand_over = self.shards[core].begin_hand_over(conn);
                assert!(hand_over.is_some(), "{id} is to move and has nowhere to go");
                self.peers[id].boarded = true;
                self.begin(core);
            }
            Action::Depart(id) => self.depart(id),
            Action::Stay(id) => {
                let (core, conn) = self.at(id);
                self.stays -= 1;
                self.peers[id].boarded = false;
                self.begin(core);
                let hand_over = self.shards[core].begin_hand_over(conn).unwrap();
                self.shards[core].cancel_hand_over(hand_over);
            }
            Action::Lose(id) => {
                self.losses -= 1;
                let (core, conn) = self.at(id);
                let now = self.begin(core);
                self.shards[core].disconnect(conn, now);
                let peer = &mut self.peers[id];
                (peer.phase, peer.place, peer.due) = (Phase::Gone, Place::Nowhere, None);
                peer.able.fill(false);
            }
            Action::Connect(id) => self.connect(scenario, id),
            Action::Withdraw(id, function) => {
                self.withdrawals -= 1;
                let peer = &mut self.peers[id];
                if let Phase::Working(job, _) = peer.phase
                    && scenario.jobs[job].function == function
                {
                    peer.phase = Phase::Ready;
                }
                self.set_able(scenario, id, function, false);
            }
            Action::Offer(id, function) => self.set_able(scenario, id, function, true),
            Action::Whim(id) => {
                self.whims -= 1;
                match self.peers[id].phase {
                    Phase::Asleep => self.grab(scenario, id),
                    _ => self.sleep(scenario, id),
                }
            }
            Action::Hang(id) => {
                self.hangs -= 1;
                self.peers[id].phase = Phase::Hung;
            }
            Action::Offload(core) => {
                self.offloads -= 1;
                self.begin(core);
                let to = (core + 1) % self.shards.len();
                self.shards[core].start_offload(to, 1);
            }
        }
    }

    /// A core has something to do; answers with its time.
    fn begin(&mut self, core: Core) -> Now {
        self.batch = Some(core);
        self.now_ms[core] += 1;
        Now { mono_ms: self.now_ms[core], unix_ms: 1_700_000_000_000 }
    }

    fn at(&self, id: PeerId) -> (Core, ConnId) {
        let Place::At(core, conn) = self.peers[id].place else {
            panic!("{id} is nowhere: {:?}", self.peers[id]);
        };
        (core, conn)
    }

    fn say(
        &mut self,
        scenario: &Scenario,
        id: PeerId,
        command: Command,
        arguments: &[&[u8]],
        payload: &[u8],
    ) {
        debug_assert!(id < scenario.peers.len());
        let (core, conn) = self.at(id);
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, Magic::Request, command, arguments, payload);
        self.peers[id].aside |= self.shards[core].is_moving(conn);
        let now = self.begin(core);
        self.shards[core].received(conn, &bytes, now);
    }

    fn connect(&mut self, scenario: &Scenario, id: PeerId) {
        let spec = &scenario.peers[id];
        let now = self.begin(spec.core);
        let peer = (Ipv4Addr::LOCALHOST, 4001).into();
        let origin = Origin { fd: i32::try_from(id).unwrap(), peer, listener: 0 };
        let conn = self.shards[spec.core].connect(origin, now).unwrap();
        let peer = &mut self.peers[id];
        (peer.place, peer.phase) = (Place::At(spec.core, conn), Phase::Ready);
        for &function in &spec.functions {
            self.set_able(scenario, id, function, true);
        }
    }

    fn set_able(&mut self, scenario: &Scenario, id: PeerId, function: Function, able: bool) {
        let at = scenario.peers[id].functions.iter().position(|&it| it == function).unwrap();
        self.peers[id].able[at] = able;
        let command = if able { Command::CanDo } else { Command::CantDo };
        self.say(scenario, id, command, &[scenario.name(function).as_bytes()], b"");
    }

    /// Functions that a peer has named.
    pub(crate) fn able<'a>(
        &'a self,
        scenario: &'a Scenario,
        id: PeerId,
    ) -> impl Iterator<Item = Function> + 'a {
        let named = scenario.peers[id].functions.iter().zip(&self.peers[id].able);
        named.filter(|(_, able)| **able).map(|(&function, _)| function)
    }

    fn grab(&mut self, scenario: &Scenario, id: PeerId) {
        let there = if self.is_quiet() { self.most_urgent(scenario, id) } else { None };
        let due = there.into_iter().chain(self.most_urgent_own(scenario, id)).min();
        // Others may get what was there for them.
        self.peers.iter_mut().for_each(|peer| peer.due = None);
        let alone = !self.peers.iter().any(|peer| peer.phase == Phase::Waiting);
        self.peers[id].due = due.filter(|_| alone);
        self.peers[id].phase = Phase::Waiting;
        self.say(scenario, id, Command::GrabJob, &[], b"");
    }

    /// The priority of the most urgent job that is queued for a peer.
    fn most_urgent(&self, scenario: &Scenario, id: PeerId) -> Option<u8> {
        let queued = self.able(scenario, id).flat_map(|function| {
            let name = scenario.name(function);
            let engine = self.shards[function % self.shards.len()].engine();
            let found = engine.functions().find(name.as_bytes());
            let queues = found.map(|id| &engine.functions()[id].queues);
            queues
                .into_iter()
                .flat_map(|queues| (0..3).filter(|&priority| queues[usize::from(priority)].len > 0))
        });
        queued.min()
    }

    /// The priority of the most urgent job that a worker has submitted itself, if no other worker
    /// could have taken it.
    fn most_urgent_own(&self, scenario: &Scenario, id: PeerId) -> Option<u8> {
        let workers = scenario.peers.iter().filter(|spec| !spec.functions.is_empty());
        let is_alone = workers.count() == 1;
        let own = self.open_jobs().map(|job| scenario.jobs[job]).filter(|job| {
            let mut able = self.able(scenario, id);
            is_alone && job.client == id && able.any(|function| function == job.function)
        });
        own.map(|job| job.priority).min()
    }

    fn sleep(&mut self, scenario: &Scenario, id: PeerId) {
        self.peers[id].phase = Phase::Asleep;
        self.say(scenario, id, Command::PreSleep, &[], b"");
    }

    fn submit(&mut self, scenario: &Scenario) {
        let job = scenario.jobs[self.submitted];
        let payload = self.submitted.to_string();
        self.submitted += 1;
        let command = match (job.priority, job.foreground) {
            (0, true) => Command::SubmitJobHigh,
            (1, true) => Command::SubmitJob,
            (_, true) => Command::SubmitJobLow,
            (0, false) => Command::SubmitJobHighBg,
            (1, false) => Command::SubmitJobBg,
            (_, false) => Command::SubmitJobLowBg,
        };
        let name = scenario.name(job.function);
        self.say(scenario, job.client, command, &[name.as_bytes(), b""], payload.as_bytes());
    }

    fn end_lease(&mut self, core: Core) {
        let now = self.begin(core);
        let shard = &mut self.shards[core];
        let ended = shard.engine().counters.leases_ended;
        // Timers may only move at first. Those that are to end later don't end now, however late.
        while shard.engine().counters.leases_ended == ended {
            let mono_ms = shard.engine().deadline_ms().unwrap();
            shard.tick(Now { mono_ms, ..now });
        }
    }

    /// What a driver does at the end of a turn.
    fn end_batch(&mut self, scenario: &Scenario, core: Core) {
        let now = self.begin(core);
        loop {
            let dirty = self.shards[core].poll_dirty(now);
            self.post(core);
            let Some(conn) = dirty else { break };
            let is_it = |peer: &Peer| peer.place == Place::At(core, conn);
            let Some(id) = self.peers.iter().position(is_it) else {
                panic!("{conn} of core {core} is dirty and has no peer");
            };
            let mut bytes = Vec::new();
            while let Some((chunk, _)) = self.shards[core].take(conn) {
                bytes.extend_from_slice(chunk.as_ref());
                self.shards[core].sent(conn, chunk, now);
            }
            for packet in peer::read(&bytes) {
                self.hear(scenario, id, packet);
            }
            assert_ne!(self.shards[core].intake(conn), Intake::Close, "{id} is closed");
        }
        for peer in &mut self.peers {
            if let Place::At(at, conn) = peer.place
                && at == core
            {
                peer.aside &= self.shards[core].is_moving(conn);
            }
        }
        self.batch = None;
    }

    fn post(&mut self, core: Core) {
        let mut messages = Vec::new();
        self.shards[core].take_messages(&mut messages);
        for (to, message) in messages {
            self.rings[core][to].push_back(Mail::Message(message));
        }
    }

    fn deliver(&mut self, scenario: &Scenario, from: Core, to: Core) {
        let mail = self.rings[from][to].pop_front().unwrap();
        let now = self.begin(to);
        match mail {
            Mail::Message(message) => {
                if let Some(message) = self.spoil(scenario, to, message) {
                    self.shards[to].receive_message(from, message, now);
                }
            }
            Mail::Connection(id, migrating) => {
                let conn = self.shards[to].attach(from, migrating, now);
                self.peers[id].place = Place::At(to, conn);
            }
        }
    }

    /// Makes of a message what the scenario's fault makes of it.
    fn spoil(&self, scenario: &Scenario, to: Core, mut message: Message) -> Option<Message> {
        let drops = matches!(
            (scenario.fault, &message),
            (Some(Fault::DropDeclined), Message::Declined(_))
                | (Some(Fault::DropSleep), Message::Sleep(_))
                | (Some(Fault::DropNoop), Message::Noop { .. })
                | (Some(Fault::DropHint), Message::Hint { .. })
                | (Some(Fault::DropPush), Message::Push { .. })
                | (Some(Fault::DropCancelled), Message::MigrationCancelled(_))
        );
        match (scenario.fault, &mut message) {
            (
                Some(Fault::StripReady),
                Message::Noop { ready, .. } | Message::Assigned { ready, .. },
            ) => *ready = PrioritySet::default(),
            (Some(Fault::OffloadedAwake), Message::Offloaded { rest, .. }) => *rest = Rest::Awake,
            (Some(Fault::OldAsNew), message) if !message.is_to_owner() => {
                if let Some(key) = message.key_mut()
                    && let Some(generation) = self.shards[to].generation_of(key.conn)
                {
                    key.generation = generation;
                }
            }
            _ => {}
        }
        (!drops).then_some(message)
    }

    fn depart(&mut self, id: PeerId) {
        let (core, conn) = self.at(id);
        let now = self.begin(core);
        let hand_over = self.shards[core].begin_hand_over(conn).unwrap();
        let to = hand_over.to();
        let migrating = self.shards[core].detach(hand_over, now);
        // As drivers do: behind all messages so far.
        self.post(core);
        self.rings[core][to].push_back(Mail::Connection(id, migrating));
        let peer = &mut self.peers[id];
        (peer.place, peer.boarded) = (Place::Between, false);
    }

    /// A peer gets a packet.
    fn hear(&mut self, scenario: &Scenario, id: PeerId, packet: Heard) {
        let waits = self.peers[id].phase == Phase::Waiting;
        let due = self.peers[id].due;
        match packet {
            Heard::Noop => {
                if self.peers[id].phase == Phase::Asleep {
                    self.peers[id].phase = Phase::Ready;
                }
            }
            Heard::NoJob if waits => {
                self.peers[id].phase = Phase::Idle;
                if due.is_some() {
                    self.breach = Some(Breach::LessUrgent);
                }
            }
            Heard::Assigned { job, handle } if waits => {
                let spec = scenario.jobs[job];
                if due.is_some_and(|due| spec.priority > due) {
                    self.breach = Some(Breach::LessUrgent);
                }
                let has = |peer: &Peer| matches!(peer.phase, Phase::Working(it, _) if it == job);
                if self.done[job] || self.peers.iter().any(has) {
                    self.breach = Some(Breach::TwiceGiven);
                }
                assert!(self.able(scenario, id).any(|function| function == spec.function));
                self.peers[id].phase = Phase::Working(job, handle);
            }
            Heard::Created => self.peers[id].created += 1,
            Heard::Complete(job) if !self.peers[id].outcomes.contains(&job) => {
                self.peers[id].outcomes.push(job);
            }
            other => self.breach = Some(Breach::Unasked(other.name())),
        }
        if waits && self.peers[id].phase != Phase::Waiting {
            self.peers[id].due = None;
        }
    }

    /// Jobs that were submitted and aren't done.
    pub(crate) fn open_jobs(&self) -> impl Iterator<Item = Job> {
        (0..self.submitted).filter(|&job| !self.done[job])
    }
}
