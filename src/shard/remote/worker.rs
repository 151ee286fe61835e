//! Workers whose functions belong to several cores, at their home: registrations, grabs and sleep
//! between the worker's `RemoteState`, this core's engine and the messages to other owners.
//!
//! This core is an owner like any other, but what it would be told by messages are calls.
//!
//! Invariant: what the engine of this core knows of the worker's sleep is what `RemoteState` says
//! that this core was told.

use super::message::Message;
use super::state::{GrabStep, Noop, RemoteState};
use crate::engine::{ConnId, Now};
use crate::protocol::session;
use crate::shard::Shard;
use crate::shard::cores::{Core, CoreSet};
use crate::wire::{Grab, Header, Payload, Priority, PrioritySet, Response};

impl Shard {
    /// `CAN_DO` and `CAN_DO_TIMEOUT` of a function of another core.
    pub(in crate::shard) fn register_at(
        &mut self,
        owner: Core,
        conn: ConnId,
        function: &[u8],
        (header, body): (Header, Payload<'_>),
    ) {
        if !self.connections[conn].is_multi_core() {
            self.engine.mark_remote(conn);
            let ready = self.engine.ready(conn);
            let (asleep, woken) = (self.engine.is_asleep(conn), self.engine.is_woken(conn));
            self.connections
                .with_remote(conn, |remote| remote.become_multi_core(ready, asleep, woken));
        }
        let tells_sleep =
            self.connections.with_remote(conn, |remote| remote.register(owner, function));
        self.tell(owner, conn, header, body);
        if tells_sleep {
            let key = self.connections.key(conn);
            self.outgoing.send(owner, Message::Sleep(key));
        }
    }

    /// `CANT_DO` of a function of another core.
    pub(in crate::shard) fn unregister_at(
        &mut self,
        owner: Core,
        conn: ConnId,
        function: &[u8],
        (header, body): (Header, Payload<'_>),
    ) {
        if self.connections.with_remote(conn, |remote| remote.unregister(owner, function)) {
            self.tell(owner, conn, header, body);
        }
    }

    /// `RESET_ABILITIES`, as far as it is about functions of other cores.
    pub(in crate::shard) fn unregister_everywhere(
        &mut self,
        conn: ConnId,
        (header, body): (Header, Payload<'_>),
    ) {
        if self.connections[conn].remote().is_none() {
            return;
        }
        let owners: CoreSet = self.connections.with_remote(conn, RemoteState::unregister_all);
        owners.iter().for_each(|owner| self.tell(owner, conn, header, body));
    }

    /// `GRAB_JOB*`.
    pub(in crate::shard) fn grab_anywhere(&mut self, conn: ConnId, grab: Grab, now: Now) {
        self.wake_at_home(conn);
        self.connections.with_remote(conn, |remote| remote.grab(grab));
        self.ask_next(conn, now);
        self.consider_migration(conn);
    }

    /// `PRE_SLEEP`.
    pub(in crate::shard) fn sleep_everywhere(&mut self, conn: ConnId, now: Now) {
        if !self.connections.with_remote(conn, RemoteState::sleep) {
            self.push_noop(conn, now);
            return self.consider_migration(conn);
        }
        let cores = self.settings.cores;
        if self.connections.with_remote(conn, |remote| remote.tell(cores.own)) {
            self.engine.pre_sleep(conn);
            self.deliver(None, now);
        }
        for core in cores.others() {
            // This very core may have woken it at once.
            if self.connections.with_remote(conn, |remote| remote.tell(core)) {
                let key = self.connections.key(conn);
                self.outgoing.send(core, Message::Sleep(key));
            }
        }
        self.consider_migration(conn);
    }

    /// Asks the most promising core for a job, or answers NO_JOB.
    pub(in crate::shard) fn ask_next(&mut self, conn: ConnId, now: Now) {
        let own = self.settings.cores.own;
        loop {
            let Self { connections, settings, .. } = self;
            let urgency = &settings.urgency;
            let step = connections.with_remote(conn, |remote| remote.next_step(urgency));
            match step {
                None => return,
                Some(GrabStep::NoJob) => {
                    self.push(conn, &Response::NoJob, now);
                    return self.connections.resume(conn);
                }
                Some(GrabStep::Ask(core, least, grab)) if core == own => {
                    self.grab_at_home(conn, grab, least, now);
                }
                Some(GrabStep::Ask(core, least, grab)) => {
                    let key = self.introduce(core, conn);
                    return self.outgoing.send(core, Message::Grab { key, grab, least });
                }
            }
        }
    }

    fn grab_at_home(&mut self, conn: ConnId, grab: Grab, least: Priority, now: Now) {
        let memory_left = self.memory_left();
        let found = self.with_context(conn, None, memory_left, now, |_, cx| {
            session::grab_urgent(grab, least, cx)
        });
        self.connections.mark_dirty(conn);
        let ready = self.engine.ready(conn);
        self.note_answer(conn, self.settings.cores.own, ready, found);
        // The job may have been meant for a sleeper that is to be passed over now.
        self.deliver(None, now);
    }

    /// An owner has answered a grab.
    pub(in crate::shard) fn note_answer(
        &mut self,
        conn: ConnId,
        core: Core,
        ready: PrioritySet,
        found: bool,
    ) {
        let declined =
            self.connections.with_remote(conn, |remote| remote.answered(core, ready, found));
        if let Some(core) = declined {
            self.decline(conn, core);
        }
        if found {
            self.connections.resume(conn);
        }
    }

    /// An owner has jobs for a worker that it takes for asleep.
    pub(in crate::shard) fn receive_noop(
        &mut self,
        conn: ConnId,
        from: Core,
        ready: PrioritySet,
        now: Now,
    ) {
        match self.connections.with_remote(conn, |remote| remote.noop(from, ready)) {
            Noop::Wake => {
                self.wake_at_home(conn);
                self.push_noop(conn, now);
            }
            Noop::Decline => self.decline(conn, from),
        }
    }

    /// Tells the core that woke a worker to wake another: this one took its job elsewhere, or
    /// wasn't asleep.
    fn decline(&mut self, conn: ConnId, core: Core) {
        if core == self.settings.cores.own {
            self.declined.push(conn);
        } else {
            let key = self.connections.key(conn);
            self.outgoing.send(core, Message::Declined(key));
        }
    }

    /// The local engine learns that the worker is awake by a call, no message needed.
    fn wake_at_home(&mut self, conn: ConnId) {
        if self.connections.with_remote(conn, RemoteState::untell_home) {
            self.engine.mark_awake(conn);
            let (own, ready) = (self.settings.cores.own, self.engine.ready(conn));
            self.connections.with_remote(conn, |remote| remote.hint(own, ready));
        }
    }
}
