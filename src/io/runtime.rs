//! One core's runtime: its service, its links to other threads, and what decides when it acts.
//!
//! A driver owns it. In come the time, and what other threads leave; out come the connections to
//! flush, what the service has for other threads, and deadlines. Knows no event loop and no ring.
//!
//! Invariant: messages that a request caused are sent before a connection to flush is named.

use std::io::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::cores::mesh::Mailbox;
use super::cores::numbers::{Number, Numbers};
use super::host::alarm::Alarm;
use super::host::clock::Clock;
use super::host::listen::ListeningSocket;
use super::host::liveness::{Acks, HOST_GONE, HOST_SILENT, Liveness, Output, is_unreachable};
use super::host::quick_ack::{QuickAcks, Stalls};
use super::host::signals::Lifecycle;
use super::links::{Arrivals, Links, Socket};
use super::store_link::StoreLost;
use crate::engine::{ConnId, Now};
use crate::shard::{HandOver, Service};

/// The cores' rings of io_uring, for moving connections between them; each is there once its core
/// runs.
pub(crate) type Rings = Arc<[OnceLock<OwnedFd>]>;

/// What a driver runs on one core.
pub(crate) struct CoreRuntime<L: Links> {
    pub(crate) service: L::Service,
    pub(crate) links: L,
    pub(crate) listeners: Vec<ListeningSocket>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) clock: Clock,
    /// For this turn.
    pub(crate) arrivals: Arrivals,
    /// For moving connections from ring to ring.
    pub(crate) rings: Rings,
    /// Numbers of connections for lists, where descriptors can't serve as such.
    pub(crate) numbers: Numbers,
    /// How long to look for work before waiting in the kernel.
    pub(crate) busy_poll: Duration,
    /// Most connections of this core.
    pub(crate) connections_max: usize,
    pub(crate) alarm: Alarm,
    pub(crate) liveness: Liveness,
    pub(crate) quick_acks: QuickAcks,
}

impl<L: Links> CoreRuntime<L> {
    /// Messages to and from the other cores, and what wakes this one.
    #[inline]
    pub(crate) fn mailbox(&mut self) -> &mut Mailbox<L::Message> {
        self.links.mailbox()
    }

    /// Passes to the service what other threads have for it.
    ///
    /// # Errors
    /// `StoreLost`: the server must stop.
    pub(crate) fn receive(&mut self, now: Now) -> Result<(), StoreLost> {
        self.links.receive(&mut self.service, &mut self.arrivals, now)
    }

    /// When a turn begins, if turns are timed.
    #[inline]
    pub(crate) fn begin_turn(&self) -> Option<Duration> {
        self.links.times_turns().then(|| self.clock.elapsed())
    }

    /// A turn that began then has ended.
    #[inline]
    pub(crate) fn end_turn(&mut self, began: Option<Duration>) {
        if let Some(began) = began {
            self.links.count_turn(self.clock.elapsed().saturating_sub(began));
        }
    }

    /// Passes the other cores' messages to the service.
    #[cfg_attr(
        not(feature = "glommio"),
        allow(dead_code, reason = "glommio alone calls it itself")
    )]
    #[inline]
    pub(crate) fn receive_messages(&mut self, now: Now) {
        self.links.receive_messages(&mut self.service, &mut self.arrivals, now);
    }

    /// Handles the signals that came.
    pub(crate) fn handle_signals(&mut self, now: Now) {
        self.lifecycle.handle_signals(now);
        if self.lifecycle.take_hangup() {
            self.links.reload(&mut self.service, now);
        }
    }

    /// Fires timers that are due. Comes after the turn's reads and messages.
    pub(crate) fn tick(&mut self, now: Now) {
        if self.alarm.poll_due(self.service.deadline_ms(), now.mono_ms) {
            self.service.tick(now);
        }
    }

    /// Returns the next connection whose replies may leave. Messages that requests caused so far
    /// are sent before, so that other cores know, or find when they look, what a client is told.
    /// `send` wakes them.
    #[inline]
    pub(crate) fn poll_dirty(&mut self, now: Now) -> Option<ConnId> {
        // It handles requests that had to wait, too, and these cause messages.
        let conn = self.service.poll_dirty(now);
        self.send_messages();
        conn
    }

    /// Sends the messages that requests caused so far. Comes before a reply leaves.
    #[inline]
    pub(crate) fn send_messages(&mut self) {
        self.links.send_messages(&mut self.service);
    }

    /// A connection may leave for another core: `send_connection` or `cancel_hand_over` follows.
    pub(crate) fn begin_hand_over(&mut self, conn: ConnId) -> Option<HandOver> {
        self.links.begin_hand_over(&mut self.service, conn)
    }

    /// The connection can't be handed over now.
    pub(crate) fn cancel_hand_over(&mut self, hand_over: HandOver) {
        self.links.cancel_hand_over(&mut self.service, hand_over);
    }

    /// Sends a connection to another core.
    pub(crate) fn send_connection(&mut self, hand_over: HandOver, socket: Socket, now: Now) {
        self.links.send_connection(&mut self.service, hand_over, socket, now);
    }

    /// Hands over what the service has for other threads and wakes them, at the end of a turn.
    pub(crate) fn send(&mut self) {
        self.links.send(&mut self.service);
    }

    /// What the driver is to know of the output of a new connection; `None`: the service has no
    /// room for it.
    pub(crate) fn begin_output(&mut self, conn: Option<ConnId>, now: Now) -> Output {
        if self.has_host(conn) { self.liveness.begin(now.mono_ms) } else { Liveness::begin_local() }
    }

    /// What the driver is to know of the stalls of a new connection.
    pub(crate) fn begin_stalls(&self, conn: Option<ConnId>) -> Stalls {
        Stalls::new(self.has_host(conn))
    }

    fn has_host(&self, conn: Option<ConnId>) -> bool {
        conn.is_none_or(|conn| self.service.has_host(conn))
    }

    /// Whether a connection's host is gone, by what the kernel knows of its `socket`; if so, logs
    /// the loss, and `disconnect` is to follow. `sent_bytes`: what the kernel has taken of the
    /// chunk that is being sent, if one is.
    pub(crate) fn is_host_gone(
        &mut self,
        conn: ConnId,
        output: &mut Output,
        socket: &impl AsFd,
        sent_bytes: Option<usize>,
        now: Now,
    ) -> bool {
        let Ok(acks) = Acks::of(socket) else { return false };
        if !self.liveness.is_gone(output, &acks, sent_bytes.is_some(), now.mono_ms) {
            return false;
        }
        let queued_bytes = acks.queued_bytes.cast_signed();
        let beside = queued_bytes - sent_bytes.unwrap_or(0).cast_signed();
        self.service.note_lost(conn, beside, HOST_GONE, now);
        true
    }

    /// A system call says that a connection is broken: logs the loss if the kernel gave up on the
    /// host. `sent_bytes`: what the kernel has taken of the chunk that is being sent.
    pub(crate) fn note_broken(&mut self, conn: ConnId, error: &Error, sent_bytes: usize, now: Now) {
        if is_unreachable(error) {
            self.service.note_lost(conn, -sent_bytes.cast_signed(), HOST_SILENT, now);
        } else {
            self.service.note_reset(conn);
        }
    }

    /// A number for a connection that lists can't name by its descriptor.
    pub(crate) fn allocate_number(&mut self) -> Number {
        self.numbers.allocate(self.links.mailbox().core())
    }

    /// When the next turn is due, if nothing happens before; `also_ms` is the driver's own
    /// deadline.
    pub(crate) fn deadline_ms(&self, now: Now, also_ms: Option<u64>) -> Option<u64> {
        let deadlines = [
            self.alarm.deadline_ms(self.service.deadline_ms()),
            self.liveness.deadline_ms(),
            self.lifecycle.deadline_ms(now),
            self.links.deadline_ms(),
            also_ms,
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Announces that the core is about to wait in the kernel. Returns whether it may: the service
    /// has no more to do, and no other thread has left anything meanwhile.
    pub(crate) fn prepare_to_sleep(&mut self) -> bool {
        !self.service.has_resumed() && self.links.prepare_to_sleep()
    }

    /// Looks for work without waiting, for as long as `busy_poll` says; returns whether there is
    /// some. `look` looks for what the driver waits for, the rest is what other threads leave.
    pub(crate) fn poll_for_work(&mut self, mut look: impl FnMut() -> bool) -> bool {
        if self.service.has_resumed() || self.busy_poll.is_zero() {
            return self.service.has_resumed();
        }
        let end = self.clock.elapsed() + self.busy_poll;
        loop {
            if look() || self.links.has_work() {
                return true;
            }
            if self.clock.elapsed() >= end {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    /// Advances the end of the run, at the end of a turn; returns whether it is reached.
    pub(crate) fn poll_end(&mut self, now: Now) -> bool {
        let Self { lifecycle, service, links, .. } = self;
        if let Some(goal) = lifecycle.goal() {
            let is_ready = lifecycle.is_settled(service.connections(), now);
            if lifecycle.leaves_stored_runs(now) {
                links.leave_stored_runs(service);
            }
            if links.poll_drained(service, goal, is_ready, now) || lifecycle.is_out_of_time(now) {
                lifecycle.stop(now);
            }
        }
        let is_over = lifecycle.is_over(now, |is_joint| match is_joint {
            true => links.poll_flushed(service),
            false => service.is_flushed(),
        });
        if is_over {
            links.end(service);
        }
        is_over
    }
}

#[cfg(test)]
impl CoreRuntime<super::links::ShardLinks> {
    /// A runtime with neither listeners nor a store.
    pub(crate) fn without_threads(
        service: crate::shard::Shard,
        mailbox: Mailbox<super::links::Envelope>,
    ) -> Self {
        let signals = super::host::signals::Signals::install(1).unwrap().remove(0);
        Self {
            service,
            links: super::links::ShardLinks::without_threads(mailbox),
            listeners: Vec::new(),
            lifecycle: Lifecycle::new(signals, None, Duration::ZERO, false),
            clock: Clock::start(),
            arrivals: Vec::new(),
            rings: Arc::new([]),
            numbers: Numbers::new(1),
            busy_poll: Duration::ZERO,
            connections_max: 100,
            alarm: Alarm::default(),
            liveness: Liveness::new(Duration::ZERO),
            quick_acks: QuickAcks::default(),
        }
    }
}

/// Milliseconds until a deadline; `None` = no deadline, 0 = it has passed.
pub(crate) fn wait_ms(now: Now, deadline_ms: Option<u64>) -> Option<u64> {
    Some(deadline_ms?.saturating_sub(now.mono_ms))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::io::cores::mesh;
    use crate::io::links::Envelope;
    use crate::shard::cores::Cores;
    use crate::shard::remote::message::Message;
    use crate::shard::{Origin, Settings, Shard};
    use crate::wire::{Command, Magic, PrioritySet, encode};

    /// A request that waited for another core's answer to a grab is handled when the driver asks
    /// for the next connection to flush. Its messages were sent after its reply, and after the
    /// replies of all connections behind it.
    #[test]
    fn messages_of_a_request_that_waited_are_sent_before_replies() {
        let now = Now { mono_ms: 5000, unix_ms: 1_700_000_000_000 };
        let cores = Cores { own: 0, count: 2 };
        let functions = || (0..).map(|n| format!("f{n}"));
        let theirs = functions().find(|name| cores.owner_of(name.as_bytes()) == 1).unwrap();
        let mut mailboxes = mesh::mesh(2, Envelope::bytes).unwrap();
        let mut other = mailboxes.pop().unwrap();
        let shard = Shard::new(Settings { cores, ..Settings::default() }, now);
        let mut runtime = CoreRuntime::without_threads(shard, mailboxes.remove(0));
        let origin = Origin { fd: 9, peer: (Ipv4Addr::LOCALHOST, 4001).into(), listener: 0 };
        let conn = runtime.service.connect(origin, now).unwrap();
        let mut requests = Vec::new();
        let mut say = |command, arguments: &[&[u8]]| {
            encode(&mut requests, Magic::Request, command, arguments, b"");
        };
        say(Command::CanDo, &[theirs.as_bytes()]);
        say(Command::GrabJob, &[]);
        say(Command::SubmitJobBg, &[theirs.as_bytes(), b""]);
        runtime.service.received(conn, &requests, now);
        while runtime.poll_dirty(now).is_some() {}
        let mut messages = Vec::new();
        other.receive(9, |_, envelope| messages.push(envelope));
        let Some(Envelope::Message(Message::Grab { key, .. })) = messages.pop() else {
            panic!("{messages:?}");
        };
        runtime.service.receive_message(1, Message::Empty { key, ready: PrioritySet::EMPTY }, now);
        while runtime.poll_dirty(now).is_some() && messages.len() < 3 {
            other.receive(9, |_, envelope| messages.push(envelope));
        }
        let submitted = |envelope: &Envelope| {
            matches!(envelope, Envelope::Message(Message::Request { slot: Some(_), .. }))
        };
        assert!(messages.iter().any(submitted), "{messages:?}");
    }
}
