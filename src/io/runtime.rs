//! One core's runtime: its shard, its ends of what it shares with other threads, and what decides
//! when it acts.
//!
//! A driver owns it. In come the time, and messages and outcomes of other threads; out come the
//! connections to flush, what the shard has for other threads, and deadlines. Knows no event loop
//! and no ring.
//!
//! Invariant: messages that a request caused are in the other cores' rings before its reply leaves.

use std::io::Error;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::info;

use super::cores::drain::Drain;
use super::cores::gauges::{Gauges, Load};
use super::cores::mesh::Mailbox;
use super::cores::numbers::{Number, Numbers};
use super::cores::placement::{accepting_cores, offload_connections, offload_target};
use super::cores::utilization::Meter;
use super::host::alarm::Alarm;
use super::host::clock::Clock;
use super::host::liveness::{Acks, HOST_GONE, HOST_SILENT, Liveness, Output, is_unreachable};
use super::host::signals::Lifecycle;
use super::store_link::{StoreLink, StoreLost};
use crate::engine::{ConnId, Now};
use crate::shard::cores::Core;
use crate::shard::remote::message::Message;
use crate::shard::{HandOver, MigratingConnection, OtherCores, Shard};

/// Messages of other cores that are received before the connections have their turn.
const MESSAGES_PER_TURN: usize = 4096;

/// The cores' rings of io_uring, for moving connections between them; each is there once its core
/// runs.
pub(crate) type Rings = Arc<[OnceLock<OwnedFd>]>;

/// What cores send each other.
#[derive(Debug)]
pub(crate) enum Envelope {
    /// From one shard to the other.
    Message(Message),
    /// A connection that migrates.
    Connection(Box<MigratingConnection>, Socket),
}

impl Envelope {
    /// Memory that it takes on its way, as far as that varies much.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.bytes(),
            Self::Connection(..) => size_of::<MigratingConnection>(),
        }
    }
}

/// The socket of a connection that migrates.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Its descriptor, which is also the number that lists show.
    Descriptor(OwnedFd),
    /// A copy of its descriptor.
    Copy(OwnedFd, Number),
    /// Its place among the direct descriptors of the receiver's ring, where it is already.
    Direct(u32, Number),
}

/// What a driver runs on one core.
pub(crate) struct CoreRuntime {
    pub(crate) shard: Shard,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) drain: Drain,
    pub(crate) clock: Clock,
    /// Messages to and from the other cores.
    pub(crate) mailbox: Mailbox<Envelope>,
    /// What the cores have in use.
    pub(crate) gauges: Gauges,
    /// To and from the store's thread, if there is one.
    pub(crate) store_link: Option<StoreLink>,
    /// Reused to move messages from the shard to the mailbox; empty between calls.
    pub(crate) messages: Vec<(Core, Message)>,
    /// Connections of other cores that the driver is to attach in this turn.
    pub(crate) arrivals: Vec<(ConnId, Socket)>,
    /// For moving connections from ring to ring.
    pub(crate) rings: Rings,
    /// Numbers of connections for lists, where descriptors can't serve as such.
    pub(crate) numbers: Numbers,
    /// How long to look for work before waiting in the kernel.
    pub(crate) busy_poll: Duration,
    /// Most connections of this core.
    pub(crate) connections_max: usize,
    pub(crate) memory: OtherCoresMemory,
    /// None with one core, where connections don't migrate, and where cores poll: these are always
    /// busy.
    pub(crate) meter: Option<Meter>,
    /// Jobs of cores that have ended, which only memory had; summed over all cores.
    pub(crate) lost_jobs: Arc<AtomicUsize>,
    /// Whether connections leave this core when it has no time left.
    pub(crate) offloads: bool,
    pub(crate) alarm: Alarm,
    pub(crate) liveness: Liveness,
}

/// Memory of the other cores, read once a millisecond.
#[derive(Default)]
pub(crate) struct OtherCoresMemory {
    bytes: isize,
    largest_unread_bytes: usize,
    /// In milliseconds of `Now::mono_ms`.
    read_at_ms: Option<u64>,
}

impl CoreRuntime {
    /// Passes to the shard what the other cores and the store have for it.
    ///
    /// # Errors
    /// `StoreLost`: the server must stop.
    pub(crate) fn receive(&mut self, now: Now) -> Result<(), StoreLost> {
        self.update_other_cores(now);
        self.receive_messages(now);
        let Self { shard, store_link, .. } = self;
        store_link.as_mut().map_or(Ok(()), |link| link.receive(shard, now))
    }

    /// Passes the other cores' messages to the shard.
    #[inline]
    pub(crate) fn receive_messages(&mut self, now: Now) {
        let Self { shard, mailbox, arrivals, .. } = self;
        mailbox.receive(MESSAGES_PER_TURN, |from, envelope| match envelope {
            Envelope::Message(message) => shard.receive_message(from, message, now),
            Envelope::Connection(connection, socket) => {
                arrivals.push((shard.attach(from, *connection, now), socket));
            }
        });
    }

    /// Tells the shard what the other cores have in use and which of them accept connections.
    fn update_other_cores(&mut self, now: Now) {
        let Self { shard, gauges, connections_max, memory, meter, offloads, clock, .. } = self;
        if memory.read_at_ms != Some(now.mono_ms) {
            let Load { bytes, largest_unread_bytes, .. } = gauges.elsewhere();
            let read_at_ms = Some(now.mono_ms);
            *memory = OtherCoresMemory { bytes, largest_unread_bytes, read_at_ms };
        }
        let window = meter.as_mut().and_then(|it| it.poll_window(now.mono_ms, || clock.elapsed()));
        if let Some(utilization) = window {
            gauges.publish_utilization(utilization, now.mono_ms);
            if *offloads {
                match offload_target(gauges, *connections_max, now.mono_ms) {
                    Some(to) => shard.start_offload(to, offload_connections(shard.connections())),
                    None => shard.start_offload(gauges.own(), 0),
                }
            }
        }
        let OtherCoresMemory { bytes, largest_unread_bytes, .. } = *memory;
        shard.set_other_cores(OtherCores {
            bytes,
            connections: gauges.connections_elsewhere(),
            accepting: accepting_cores(gauges, *connections_max, now.mono_ms),
            largest_unread_bytes,
        });
    }

    /// Handles the signals that came. A new access list is used at once here, and by the other
    /// cores when the turn's messages reach them.
    pub(crate) fn handle_signals(&mut self, now: Now) {
        self.lifecycle.handle_signals(now);
        if let Some(list) = self.lifecycle.take_access_list() {
            self.shard.set_access_list(&list, now);
        }
    }

    /// Fires timers that are due. Comes after the turn's reads and messages.
    pub(crate) fn tick(&mut self, now: Now) {
        if self.alarm.poll_due(self.shard.deadline_ms(), now.mono_ms) {
            self.shard.tick(now);
        }
    }

    /// Returns the next connection whose replies may leave. Messages that requests caused so far
    /// are sent before, so that other cores know, or find when they look, what a client is told.
    /// `send` wakes them.
    #[inline]
    pub(crate) fn poll_dirty(&mut self, now: Now) -> Option<ConnId> {
        // It handles requests that had to wait, too, and these cause messages.
        let conn = self.shard.poll_dirty(now);
        self.send_messages();
        conn
    }

    /// Sends the messages that requests caused so far. Comes before a reply leaves.
    #[inline]
    pub(crate) fn send_messages(&mut self) {
        let Self { shard, mailbox, messages, .. } = self;
        shard.take_messages(messages);
        if !messages.is_empty() {
            post(messages, mailbox);
            shard.set_congested(mailbox.update_congestion());
        }
    }

    /// Sends a connection to another core, behind all messages so far and before all later ones:
    /// its number may be given to the next connection at once, which may cause messages in this
    /// very turn.
    pub(crate) fn send_connection(&mut self, hand_over: HandOver, socket: Socket, now: Now) {
        let Self { shard, mailbox, messages, .. } = self;
        let to = hand_over.to();
        let connection = Box::new(shard.detach(hand_over, now));
        shard.take_messages(messages);
        post(messages, mailbox);
        mailbox.send(to, Envelope::Connection(connection, socket));
    }

    /// Hands over what the shard has for other threads and wakes them, at the end of a turn.
    pub(crate) fn send(&mut self) {
        let Self { shard, mailbox, gauges, store_link, messages, .. } = self;
        if let Some(store_link) = store_link {
            store_link.send(shard);
        }
        shard.take_messages(messages);
        post(messages, mailbox);
        mailbox.flush();
        shard.set_congested(mailbox.update_congestion());
        gauges.publish(load(shard, mailbox));
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
        self.shard.note_lost(conn, beside, HOST_GONE, now);
        true
    }

    /// A system call says that a connection is broken: logs the loss if the kernel gave up on the
    /// host. `sent_bytes`: what the kernel has taken of the chunk that is being sent.
    pub(crate) fn note_broken(&mut self, conn: ConnId, error: &Error, sent_bytes: usize, now: Now) {
        if is_unreachable(error) {
            self.shard.note_lost(conn, -sent_bytes.cast_signed(), HOST_SILENT, now);
        } else {
            self.shard.note_reset(conn);
        }
    }

    /// A number for a connection that lists can't name by its descriptor.
    pub(crate) fn allocate_number(&self) -> Number {
        self.numbers.allocate(self.mailbox.core())
    }

    /// When the next turn is due, if nothing happens before; `also_ms` is the driver's own
    /// deadline.
    pub(crate) fn deadline_ms(&self, now: Now, also_ms: Option<u64>) -> Option<u64> {
        let deadlines = [
            self.alarm.deadline_ms(self.shard.deadline_ms()),
            self.liveness.deadline_ms(),
            self.lifecycle.deadline_ms(now),
            also_ms,
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Announces that the core is about to wait in the kernel. Returns whether it may: the shard
    /// has no more to do, and no other thread has left anything meanwhile.
    pub(crate) fn prepare_to_sleep(&mut self) -> bool {
        let Self { shard, mailbox, store_link, .. } = self;
        let has_outcome = || store_link.as_mut().is_some_and(StoreLink::poll_outcome);
        !shard.has_resumed() && mailbox.prepare_to_sleep(has_outcome)
    }

    /// Looks for work without waiting, for as long as `busy_poll` says; returns whether there is
    /// some. `look` looks for what the driver waits for, the rest is what other threads leave.
    pub(crate) fn poll_for_work(&mut self, mut look: impl FnMut() -> bool) -> bool {
        if self.shard.has_resumed() || self.busy_poll.is_zero() {
            return self.shard.has_resumed();
        }
        let end = self.clock.elapsed() + self.busy_poll;
        loop {
            let link = self.store_link.as_mut();
            if look() || self.mailbox.has_work() || link.is_some_and(StoreLink::poll_outcome) {
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
        let Self { lifecycle, shard, mailbox, gauges, drain, .. } = self;
        if lifecycle.drains() {
            shard.drain(now);
            drain.join();
            let own = load(shard, mailbox);
            drain.log(own, gauges, now.mono_ms);
            if drain.is_done(own, gauges, mailbox) {
                if gauges.own() == 0 {
                    let kept = own.kept + gauges.elsewhere().kept;
                    info!(left_to_the_next_server = kept, "no job is left");
                }
                lifecycle.stop(now);
            }
        }
        let is_over = lifecycle.is_over(shard, now);
        if is_over {
            self.lost_jobs.fetch_add(shard.engine().unstored(), Ordering::Relaxed);
        }
        is_over
    }
}

#[cfg(test)]
impl CoreRuntime {
    /// A runtime with neither listeners nor a store.
    pub(crate) fn without_threads(shard: Shard, mailbox: Mailbox<Envelope>) -> Self {
        let signals = super::host::signals::Signals::install(1).unwrap().remove(0);
        Self {
            shard,
            listeners: Vec::new(),
            lifecycle: Lifecycle::new(signals, None),
            drain: Drain::of(1).remove(0),
            clock: Clock::start(),
            mailbox,
            gauges: Gauges::of(2).remove(0),
            store_link: None,
            messages: Vec::new(),
            arrivals: Vec::new(),
            rings: Arc::new([]),
            numbers: Numbers::new(1),
            busy_poll: Duration::ZERO,
            connections_max: 100,
            memory: OtherCoresMemory::default(),
            meter: None,
            lost_jobs: Arc::default(),
            offloads: false,
            alarm: Alarm::default(),
            liveness: Liveness::new(Duration::ZERO),
        }
    }
}

/// Moves messages into the mailbox.
#[inline]
fn post(messages: &mut Vec<(Core, Message)>, mailbox: &mut Mailbox<Envelope>) {
    messages.drain(..).for_each(|(to, message)| mailbox.send(to, Envelope::Message(message)));
}

/// What a core has in use.
fn load(shard: &Shard, mailbox: &Mailbox<Envelope>) -> Load {
    Load {
        bytes: shard.load_bytes(),
        connections: shard.connections(),
        jobs: shard.unfinished() + mailbox.overflow(),
        running: shard.engine().running(),
        kept: shard.engine().kept(),
        largest_unread_bytes: shard.largest_unread_bytes(),
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
    use crate::shard::cores::Cores;
    use crate::shard::{Origin, Settings};
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
        let origin = Origin { fd: 9, peer: (Ipv4Addr::LOCALHOST, 4001).into() };
        let conn = runtime.shard.connect(origin, now).unwrap();
        let mut requests = Vec::new();
        let mut say = |command, arguments: &[&[u8]]| {
            encode(&mut requests, Magic::Request, command, arguments, b"");
        };
        say(Command::CanDo, &[theirs.as_bytes()]);
        say(Command::GrabJob, &[]);
        say(Command::SubmitJobBg, &[theirs.as_bytes(), b""]);
        runtime.shard.received(conn, &requests, now);
        while runtime.poll_dirty(now).is_some() {}
        let mut messages = Vec::new();
        other.receive(9, |_, envelope| messages.push(envelope));
        let Some(Envelope::Message(Message::Grab { key, .. })) = messages.pop() else {
            panic!("{messages:?}");
        };
        runtime.shard.receive_message(1, Message::Empty { key, ready: PrioritySet::EMPTY }, now);
        while runtime.poll_dirty(now).is_some() && messages.len() < 3 {
            other.receive(9, |_, envelope| messages.push(envelope));
        }
        let submitted = |envelope: &Envelope| {
            matches!(envelope, Envelope::Message(Message::Request { slot: Some(_), .. }))
        };
        assert!(messages.iter().any(submitted), "{messages:?}");
    }
}
