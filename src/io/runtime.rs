//! One core's runtime: its shard, what it shares with other threads, and what decides when it acts.
//! A driver owns one and calls it once a turn.
//!
//! In come the time and what other threads left; out go what the shard has for them, deadlines, and
//! the connections to flush. Knows no event loop and no ring.
//!
//! Invariant: what a request has for other cores is on its way before its reply is.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing::info;

use super::cores::drain::Drain;
use super::cores::mesh::{Load, Post};
use super::cores::numbers::{Number, Numbers};
use super::cores::utilization::{self, Meter};
use super::host::alarm::Alarm;
use super::host::clock::Clock;
use super::host::liveness::Liveness;
use super::host::signals::Lifecycle;
use super::store_link::{StoreLink, StoreLost};
use crate::engine::{ConnId, Now};
use crate::shard::cores::Core;
use crate::shard::remote::message::Message;
use crate::shard::{MigratingConnection, OtherCores, Shard};

/// Letters of other cores that a turn sees to before the connections have theirs.
const LETTERS_PER_TURN: usize = 4096;

/// The cores' rings, for handing connections over; each is there once its core runs.
pub(crate) type Rings = Arc<[OnceLock<OwnedFd>]>;

/// What travels between cores.
#[derive(Debug)]
pub(crate) enum Mail {
    Message(Message),
    /// A connection that moves.
    Connection(Box<MigratingConnection>, Socket),
}

impl Mail {
    /// Memory that it takes on its way, as far as that varies much.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Message(letter) => letter.bytes(),
            Self::Connection(..) => size_of::<MigratingConnection>(),
        }
    }
}

/// The socket of a connection that moves.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Its descriptor, by which lists name it.
    Descriptor(OwnedFd),
    /// A copy of its descriptor.
    Copy(OwnedFd, Number),
    /// It is among the direct descriptors of the receiver's ring already, in this place.
    Direct(u32, Number),
}

/// Everything a driver is made of.
pub(crate) struct CoreRuntime {
    pub(crate) shard: Shard,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) drain: Drain,
    pub(crate) clock: Clock,
    /// To and from the other cores.
    pub(crate) post: Post<Mail>,
    /// To and from the store, if there is one.
    pub(crate) commits: Option<StoreLink>,
    /// Letters that are being moved; empty otherwise.
    pub(crate) letters: Vec<(Core, Message)>,
    /// Connections that have come from other cores, which the driver is to attach.
    pub(crate) arrivals: Vec<(ConnId, Socket)>,
    /// For moving connections from ring to ring.
    pub(crate) rings: Rings,
    /// For connections that lists can't name by their descriptors.
    pub(crate) numbers: Numbers,
    /// How long to look for something to do before waiting in the kernel.
    pub(crate) busy_poll: Duration,
    /// Most connections of this core.
    pub(crate) connections_max: usize,
    pub(crate) memory: MemoryElsewhere,
    /// None with one core, where connections don't move, and where cores look for something to do:
    /// these are always busy.
    pub(crate) meter: Option<Meter>,
    pub(crate) alarm: Alarm,
    pub(crate) liveness: Liveness,
}

/// What the other cores have in use, which is looked at once a millisecond.
#[derive(Default)]
pub(crate) struct MemoryElsewhere {
    bytes: isize,
    largest_unread_bytes: usize,
    /// In milliseconds of `Now::mono_ms`.
    read_at_ms: Option<u64>,
}

impl CoreRuntime {
    /// Hands the shard what other threads have for it. Comes after the turn has found out what is
    /// to be read and before it is: a grab that was written after the JOB_CREATED of another core's
    /// job then comes behind that core's hint.
    pub(crate) fn receive(&mut self, now: Now) -> Result<(), StoreLost> {
        let Self { shard, post, commits, arrivals, connections_max, memory, .. } = self;
        let Self { meter, clock, .. } = self;
        if memory.read_at_ms != Some(now.mono_ms) {
            let Load { bytes, largest_unread_bytes, .. } = post.elsewhere();
            let read_at_ms = Some(now.mono_ms);
            *memory = MemoryElsewhere { bytes, largest_unread_bytes, read_at_ms };
        }
        if let Some(busy) = meter.as_mut().and_then(|it| it.read(now.mono_ms, || clock.elapsed())) {
            post.publish_busy(busy, now.mono_ms);
            match post.reliever(*connections_max, now.mono_ms) {
                Some(to) => shard.start_offload(to, utilization::to_go(shard.connections())),
                None => shard.start_offload(post.core(), 0),
            }
        }
        let connections = post.connections_elsewhere();
        let hospitable = post.hospitable(*connections_max, now.mono_ms);
        let MemoryElsewhere { bytes, largest_unread_bytes, .. } = *memory;
        shard.set_other_cores(OtherCores { bytes, connections, hospitable, largest_unread_bytes });
        post.receive(LETTERS_PER_TURN, |from, mail| match mail {
            Mail::Message(letter) => shard.receive_message(from, letter, now),
            Mail::Connection(passenger, socket) => {
                arrivals.push((shard.attach(from, *passenger, now), socket));
            }
        });
        commits.as_mut().map_or(Ok(()), |commits| commits.receive(shard, now))
    }

    /// The next connection whose replies may leave. What requests so far have for other cores is
    /// passed on before: what a client hears of, others know or find when they look. They are rung
    /// for in `send`.
    pub(crate) fn next_dirty(&mut self, now: Now) -> Option<ConnId> {
        let Self { shard, post, letters, .. } = self;
        // It also sees to requests that had to wait.
        let conn = shard.next_dirty(now);
        shard.take_messages(letters);
        if !letters.is_empty() {
            letters.drain(..).for_each(|(to, letter)| post.send(to, Mail::Message(letter)));
            shard.set_congested(post.congested());
        }
        conn
    }

    /// Lets the shard do what is due. Comes after the turn's reads and letters.
    pub(crate) fn tick(&mut self, now: Now) {
        if self.alarm.is_time(self.shard.deadline_ms(), now.mono_ms) {
            self.shard.tick(now);
        }
    }

    /// A number for a connection that lists can't name by its descriptor.
    pub(crate) fn deal_number(&self) -> Number {
        self.numbers.deal(self.post.core())
    }

    /// When `tick` has to be called next.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        let deadlines =
            [self.alarm.deadline_ms(self.shard.deadline_ms()), self.liveness.deadline_ms()];
        deadlines.into_iter().flatten().min()
    }

    /// Lets a connection go to another core, behind all letters so far and before all others: its
    /// number may be given to the next one at once, which may have something to say in this very
    /// turn.
    pub(crate) fn depart(&mut self, conn: ConnId, to: Core, socket: Socket, now: Now) {
        let Self { shard, post, letters, .. } = self;
        let passenger = Box::new(shard.detach(conn, now));
        shard.take_messages(letters);
        letters.drain(..).for_each(|(to, letter)| post.send(to, Mail::Message(letter)));
        post.send(to, Mail::Connection(passenger, socket));
    }

    /// Hands over what the shard has for other threads, at the end of a turn.
    pub(crate) fn send(&mut self) {
        let Self { shard, post, commits, letters, .. } = self;
        if let Some(commits) = commits {
            commits.send(shard);
        }
        shard.take_messages(letters);
        letters.drain(..).for_each(|(to, letter)| post.send(to, Mail::Message(letter)));
        post.flush();
        shard.set_congested(post.congested());
        post.publish(load(shard, post));
    }

    /// Whether the driver may wait in the kernel: no other thread has left anything meanwhile.
    pub(crate) fn may_sleep(&mut self) -> bool {
        let Self { shard, post, commits, .. } = self;
        let has_outcomes = || commits.as_mut().is_some_and(StoreLink::has_outcomes);
        !shard.has_resumed() && post.prepare_to_sleep(has_outcomes)
    }

    /// Looks for something to do without waiting, for as long as that is wanted; `true` once there
    /// is. `look` is for what the driver waits for, beside what other threads leave.
    pub(crate) fn busy_poll(&mut self, mut look: impl FnMut() -> bool) -> bool {
        if self.shard.has_resumed() || self.busy_poll.is_zero() {
            return self.shard.has_resumed();
        }
        let end = self.clock.elapsed() + self.busy_poll;
        loop {
            let commits = self.commits.as_mut();
            if look() || self.post.is_wanted() || commits.is_some_and(StoreLink::has_outcomes) {
                return true;
            }
            if self.clock.elapsed() >= end {
                return false;
            }
            std::hint::spin_loop();
        }
    }

    pub(crate) fn is_over(&mut self, now: Now) -> bool {
        let Self { lifecycle, shard, post, drain, .. } = self;
        if lifecycle.drains() {
            shard.drain(now);
            drain.join();
            let own = load(shard, post);
            drain.tell(own, post, now.mono_ms);
            if drain.is_done(own, post) {
                if post.core() == 0 {
                    let kept = own.kept + post.elsewhere().kept;
                    info!(left_to_the_next_server = kept, "no job is left");
                }
                lifecycle.stop(now);
            }
        }
        lifecycle.is_over(shard, now)
    }
}

/// What a core has in use.
fn load(shard: &Shard, post: &Post<Mail>) -> Load {
    Load {
        bytes: shard.load_bytes(),
        connections: shard.connections(),
        jobs: shard.unfinished() + post.waiting(),
        running: shard.engine().running(),
        kept: shard.engine().kept(),
        largest_unread_bytes: shard.largest_unread_bytes(),
    }
}

/// Milliseconds until the earlier of two deadlines; `None` = no deadline, 0 = it has passed.
pub(crate) fn wait_ms(now: Now, deadlines: [Option<u64>; 3]) -> Option<u64> {
    let deadline = deadlines.into_iter().flatten().min()?;
    Some(deadline.saturating_sub(now.mono_ms))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::io::cores::mesh;
    use crate::io::host::signals::Signals;
    use crate::shard::cores::Cores;
    use crate::shard::{Origin, Settings};
    use crate::wire::{Command, Magic, encode};

    fn parts(shard: Shard, post: Post<Mail>) -> CoreRuntime {
        CoreRuntime {
            shard,
            listeners: Vec::new(),
            lifecycle: Lifecycle::new(Signals::install(1).unwrap().remove(0), None),
            drain: Drain::of(1).remove(0),
            clock: Clock::start(),
            post,
            commits: None,
            letters: Vec::new(),
            arrivals: Vec::new(),
            rings: Arc::new([]),
            numbers: Numbers::new(1),
            busy_poll: Duration::ZERO,
            connections_max: 100,
            memory: MemoryElsewhere::default(),
            meter: None,
            alarm: Alarm::default(),
            liveness: Liveness::new(Duration::ZERO),
        }
    }

    /// A request that waited for another core's answer to a grab is handled when the driver asks
    /// for the next connection to flush: what it had for other cores came there after its reply had
    /// left, and after the replies of all connections behind it.
    #[test]
    fn what_a_request_that_waited_has_for_another_core_is_on_its_way_before_replies_are() {
        let now = Now { mono_ms: 5000, unix_ms: 1_700_000_000_000 };
        let cores = Cores { own: 0, count: 2 };
        let functions = || (0..).map(|n| format!("f{n}"));
        let theirs = functions().find(|name| cores.owner_of(name.as_bytes()) == 1).unwrap();
        let mut posts = mesh::mesh(2, Mail::bytes).unwrap();
        let mut other = posts.pop().unwrap();
        let shard = Shard::new(Settings { cores, ..Settings::default() }, now);
        let mut parts = parts(shard, posts.remove(0));
        let origin = Origin { fd: 9, peer: (Ipv4Addr::LOCALHOST, 4001).into() };
        let conn = parts.shard.connect(origin, now).unwrap();
        let mut requests = Vec::new();
        let mut say = |command, arguments: &[&[u8]]| {
            encode(&mut requests, Magic::Request, command, arguments, b"");
        };
        say(Command::CanDo, &[theirs.as_bytes()]);
        say(Command::GrabJob, &[]);
        say(Command::SubmitJobBg, &[theirs.as_bytes(), b""]);
        parts.shard.received(conn, &requests, now);
        while parts.next_dirty(now).is_some() {}
        let mut letters = Vec::new();
        other.receive(9, |_, mail| letters.push(mail));
        let Some(Mail::Message(Message::Grab { key, .. })) = letters.pop() else {
            panic!("{letters:?}");
        };
        parts.shard.receive_message(1, Message::Empty { key, ready: 0 }, now);
        while parts.next_dirty(now).is_some() && letters.len() < 2 {
            other.receive(9, |_, mail| letters.push(mail));
        }
        let submitted =
            |mail: &Mail| matches!(mail, Mail::Message(Message::Request { slot: Some(_), .. }));
        assert!(letters.iter().any(submitted), "{letters:?}");
    }
}
