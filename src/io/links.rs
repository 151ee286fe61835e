//! One core's links to other threads: messages and connections of other cores, what the cores have
//! in use, the store, the end of the run.
//!
//! `Links` is what a runtime asks of them; `ShardLinks` are the server's, around its shard, and
//! `NoLinks` those of a service that is alone. Knows no event loop and no ring.
//!
//! Invariant: messages that a request caused are in the other cores' rings before its reply leaves.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tracing::info;

use super::cores::drain::Drain;
use super::cores::gauges::{Gauges, Load};
use super::cores::mesh::Mailbox;
use super::cores::numbers::Number;
use super::cores::placement::{accepting_cores, offload_target};
use super::cores::utilization::Meter;
use super::host::clock::Clock;
use super::store_link::{StoreLink, StoreLost};
use crate::engine::policy::Policies;
use crate::engine::{ConnId, DrainGoal, Now};
use crate::protocol::access::AccessList;
use crate::shard::cores::Core;
use crate::shard::remote::message::Message;
use crate::shard::{HandOver, MigratingConnection, OtherCores, Service, Shard};
use crate::wire::tls::TlsServer;

/// Messages of other cores that are received before the connections have their turn.
const MESSAGES_PER_TURN: usize = 4096;

/// The socket of a connection that migrates.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Its descriptor, which is also the number that lists show.
    Descriptor(OwnedFd),
    /// A copy of its descriptor.
    #[cfg_attr(
        not(feature = "glommio"),
        allow(dead_code, reason = "glommio alone copies descriptors")
    )]
    Copy(OwnedFd, Number),
    /// Its place among the direct descriptors of the receiver's ring, where it is already.
    Direct(u32, Number),
}

/// Connections of other cores that the driver is to attach.
pub(crate) type Arrivals = Vec<(ConnId, Socket)>;

/// Files that were read anew. `None` stands for those that no option names, and for those that
/// can't be used, so that the old ones stay.
#[derive(Debug, Default)]
pub struct Reloaded {
    /// The access list.
    pub access_list: Option<Arc<AccessList>>,
    /// The files of TLS.
    pub tls: Option<Arc<TlsServer>>,
    /// What becomes of jobs; `None` also stands for what hasn't changed.
    pub policies: Option<Arc<Policies>>,
}

/// Reads files anew, and logs that.
pub type Reload = Box<dyn FnMut() -> Reloaded + Send>;

/// What a core exchanges with other threads, around its service. In a turn: `receive`, then
/// `send_messages` before each reply leaves, then `send`. By default there is nothing to exchange.
pub(crate) trait Links: Sized + 'static {
    /// What runs on the core.
    type Service: Service;
    /// What the cores send each other.
    type Message: Send;

    /// Messages to and from the other cores, and what wakes this one.
    fn mailbox(&mut self) -> &mut Mailbox<Self::Message>;

    /// Passes to the service what other threads have for it.
    ///
    /// # Errors
    /// `StoreLost`: the server must stop.
    fn receive(
        &mut self,
        _service: &mut Self::Service,
        _arrivals: &mut Arrivals,
        _now: Now,
    ) -> Result<(), StoreLost> {
        Ok(())
    }

    /// A turn has taken this long.
    fn count_turn(&mut self, _took: Duration) {}

    /// Whether turns are to be timed.
    fn times_turns(&self) -> bool {
        false
    }

    /// Passes the other cores' messages to the service, and nothing else.
    fn receive_messages(&mut self, _: &mut Self::Service, _arrivals: &mut Arrivals, _now: Now) {}

    /// SIGHUP came: reads anew what may have changed.
    fn reload(&mut self, _service: &mut Self::Service, _now: Now) {}

    /// Sends the messages that requests caused so far.
    fn send_messages(&mut self, _service: &mut Self::Service) {}

    /// Hands over what the service has for other threads and wakes them, at the end of a turn.
    fn send(&mut self, _service: &mut Self::Service) {}

    /// A connection may leave for another core: `send_connection` or `cancel_hand_over` follows.
    fn begin_hand_over(&mut self, _: &mut Self::Service, _conn: ConnId) -> Option<HandOver> {
        None
    }

    /// The connection can't be handed over now.
    fn cancel_hand_over(&mut self, _service: &mut Self::Service, _hand_over: HandOver) {}

    /// Sends a connection to another core, behind all messages so far and before all later ones:
    /// its number may be given to the next connection at once, which may cause messages in this
    /// very turn.
    fn send_connection(&mut self, _: &mut Self::Service, _: HandOver, _: Socket, _now: Now) {}

    /// Whether other threads have left something.
    fn has_work(&mut self) -> bool {
        false
    }

    /// When the next turn is due, if nothing happens before.
    fn deadline_ms(&self) -> Option<u64> {
        None
    }

    /// Announces that the core is about to wait in the kernel. Returns whether it may: no other
    /// thread has left anything meanwhile.
    fn prepare_to_sleep(&mut self) -> bool {
        self.mailbox().prepare_to_sleep(|| false)
    }

    /// Advances a drain, at the end of a turn; returns whether the goal is reached on all cores.
    /// Before this core `is_ready` it isn't.
    fn poll_drained(
        &mut self,
        _service: &mut Self::Service,
        _goal: DrainGoal,
        is_ready: bool,
        _now: Now,
    ) -> bool {
        is_ready
    }

    /// Stored jobs that run aren't waited for any more.
    fn leave_stored_runs(&mut self, _service: &mut Self::Service) {}

    /// Whether everything is answered, on all cores. To be asked when nothing more is read.
    fn poll_flushed(&mut self, service: &mut Self::Service) -> bool {
        service.is_flushed()
    }

    /// The core has ended.
    fn end(&mut self, _service: &Self::Service) {}
}

/// The links of a service that is alone on its core.
pub(crate) struct NoLinks<S> {
    mailbox: Mailbox<Infallible>,
    service: PhantomData<S>,
}

impl<S> NoLinks<S> {
    /// `mailbox`: that of the only core.
    pub(crate) fn new(mailbox: Mailbox<Infallible>) -> Self {
        Self { mailbox, service: PhantomData }
    }
}

impl<S: Service> Links for NoLinks<S> {
    type Service = S;
    type Message = Infallible;

    fn mailbox(&mut self) -> &mut Mailbox<Infallible> {
        &mut self.mailbox
    }
}

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

/// The number of the calling thread.
fn thread_number() -> u32 {
    nix::unistd::gettid().as_raw().cast_unsigned()
}

/// What cores that have ended had in memory only, summed over all cores.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// Jobs.
    pub(crate) jobs: AtomicUsize,
    /// Dead letters.
    pub(crate) dead: AtomicUsize,
}

/// The links of a server's core.
pub(crate) struct ShardLinks {
    pub(crate) mailbox: Mailbox<Envelope>,
    /// What the cores have in use.
    pub(crate) gauges: Gauges,
    pub(crate) drain: Drain,
    pub(crate) clock: Clock,
    /// To and from the store's thread, if there is one.
    pub(crate) store_link: Option<StoreLink>,
    /// Reused to move messages from the shard to the mailbox; empty between calls.
    pub(crate) messages: Vec<(Core, Message)>,
    /// Most connections of this core.
    pub(crate) connections_max: usize,
    pub(crate) memory: OtherCoresMemory,
    /// None with one core, where connections don't migrate, and where cores poll: these are always
    /// busy.
    pub(crate) meter: Option<Meter>,
    pub(crate) lost: Arc<Lost>,
    /// Whether connections leave this core when it has no time left.
    pub(crate) offloads: bool,
    /// Whether the thread for HTTP tells how long turns take.
    pub(crate) times_turns: bool,
    /// The number of the core's thread, once it runs.
    pub(crate) thread: Option<u32>,
    /// The first core's only.
    pub(crate) reload: Option<Reload>,
}

/// Memory of the other cores, read once a millisecond.
#[derive(Default)]
pub(crate) struct OtherCoresMemory {
    bytes: isize,
    largest_unread_bytes: usize,
    /// In milliseconds of `Now::mono_ms`.
    read_at_ms: Option<u64>,
}

impl Links for ShardLinks {
    type Service = Shard;
    type Message = Envelope;

    fn mailbox(&mut self) -> &mut Mailbox<Envelope> {
        &mut self.mailbox
    }

    fn receive(
        &mut self,
        shard: &mut Shard,
        arrivals: &mut Arrivals,
        now: Now,
    ) -> Result<(), StoreLost> {
        self.update_other_cores(shard, now);
        self.receive_messages(shard, arrivals, now);
        self.store_link.as_mut().map_or(Ok(()), |link| link.receive(shard, now))
    }

    fn count_turn(&mut self, took: Duration) {
        let thread = *self.thread.get_or_insert_with(thread_number);
        self.gauges.count_turn(took, thread);
    }

    #[inline]
    fn times_turns(&self) -> bool {
        self.times_turns
    }

    #[inline]
    fn receive_messages(&mut self, shard: &mut Shard, arrivals: &mut Arrivals, now: Now) {
        if let Some(store_link) = &mut self.store_link {
            store_link.begin_turn(shard, now);
        }
        self.mailbox.receive(MESSAGES_PER_TURN, |from, envelope| match envelope {
            Envelope::Message(message) => shard.receive_message(from, message, now),
            Envelope::Connection(connection, socket) => {
                arrivals.push((shard.attach(from, *connection, now), socket));
            }
        });
    }

    fn reload(&mut self, shard: &mut Shard, now: Now) {
        let Some(reload) = &mut self.reload else { return };
        let Reloaded { access_list, tls, policies } = reload();
        if let Some(server) = tls {
            shard.set_tls(&server);
        }
        if let Some(list) = access_list {
            shard.set_access_list(&list, now);
        }
        if let Some(policies) = policies {
            shard.set_policies(&policies, now);
        }
    }

    #[inline]
    fn send_messages(&mut self, shard: &mut Shard) {
        shard.take_messages(&mut self.messages);
        if !self.messages.is_empty() {
            self.post();
            shard.set_congested(self.mailbox.update_congestion());
        }
    }

    fn send(&mut self, shard: &mut Shard) {
        if let Some(store_link) = &mut self.store_link {
            store_link.send(shard);
        }
        shard.take_messages(&mut self.messages);
        self.post();
        self.mailbox.flush();
        shard.set_congested(self.mailbox.update_congestion());
        self.gauges.publish(self.load(shard));
    }

    fn begin_hand_over(&mut self, shard: &mut Shard, conn: ConnId) -> Option<HandOver> {
        shard.begin_hand_over(conn)
    }

    fn cancel_hand_over(&mut self, shard: &mut Shard, hand_over: HandOver) {
        shard.cancel_hand_over(hand_over);
    }

    fn send_connection(
        &mut self,
        shard: &mut Shard,
        hand_over: HandOver,
        socket: Socket,
        now: Now,
    ) {
        let to = hand_over.to();
        let connection = Box::new(shard.detach(hand_over, now));
        shard.take_messages(&mut self.messages);
        self.post();
        self.mailbox.send(to, Envelope::Connection(connection, socket));
    }

    fn has_work(&mut self) -> bool {
        self.mailbox.has_work() || self.store_link.as_mut().is_some_and(StoreLink::poll_outcome)
    }

    fn deadline_ms(&self) -> Option<u64> {
        self.store_link.as_ref().and_then(StoreLink::deadline_ms)
    }

    fn prepare_to_sleep(&mut self) -> bool {
        let Self { mailbox, store_link, .. } = self;
        mailbox.prepare_to_sleep(|| store_link.as_mut().is_some_and(StoreLink::poll_outcome))
    }

    fn poll_drained(
        &mut self,
        shard: &mut Shard,
        goal: DrainGoal,
        is_ready: bool,
        now: Now,
    ) -> bool {
        shard.drain(goal, now);
        if is_ready {
            self.drain.join();
        }
        let own = self.load(shard);
        let Self { drain, gauges, mailbox, .. } = self;
        drain.log(goal, own, gauges, now.mono_ms);
        let is_done = drain.is_done(own, gauges, mailbox);
        if is_done && gauges.own() == 0 {
            let kept = own.kept + gauges.elsewhere().kept;
            match goal {
                DrainGoal::JobsDone => info!(left_to_the_next_server = kept, "no job is left"),
                DrainGoal::RunsDone => info!("no job runs"),
            }
        }
        is_done
    }

    fn leave_stored_runs(&mut self, shard: &mut Shard) {
        shard.leave_stored_runs();
    }

    fn poll_flushed(&mut self, shard: &mut Shard) -> bool {
        // Requests of the HTTP thread have no place in an outbox here.
        let awaits_store = shard.engine().awaiting_store() > 0;
        let is_flushed = shard.is_flushed() && !awaits_store && !self.mailbox.has_work();
        self.drain.is_flushed(is_flushed)
    }

    fn end(&mut self, shard: &Shard) {
        self.lost.jobs.fetch_add(shard.engine().unstored(), Ordering::Relaxed);
        self.lost.dead.fetch_add(shard.engine().unstored_dead(), Ordering::Relaxed);
    }
}

impl ShardLinks {
    /// Tells the shard what the other cores have in use and which of them accept connections.
    fn update_other_cores(&mut self, shard: &mut Shard, now: Now) {
        let Self { gauges, connections_max, memory, meter, offloads, clock, .. } = self;
        if memory.read_at_ms != Some(now.mono_ms) {
            let Load { bytes, largest_unread_bytes, .. } = gauges.elsewhere();
            let read_at_ms = Some(now.mono_ms);
            *memory = OtherCoresMemory { bytes, largest_unread_bytes, read_at_ms };
        }
        let window = meter.as_mut().and_then(|it| it.poll_window(now.mono_ms, || clock.elapsed()));
        if let Some(utilization) = window {
            gauges.publish_utilization(utilization, now.mono_ms);
            if *offloads {
                let target = offload_target(gauges, *connections_max, now.mono_ms);
                let (to, connections) = target.unwrap_or_else(|| (gauges.own(), 0));
                shard.start_offload(to, connections);
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

    /// Moves messages into the mailbox.
    #[inline]
    fn post(&mut self) {
        let Self { messages, mailbox, .. } = self;
        messages.drain(..).for_each(|(to, message)| mailbox.send(to, Envelope::Message(message)));
    }

    /// What this core has in use.
    fn load(&self, shard: &Shard) -> Load {
        Load {
            bytes: shard.load_bytes(),
            connections: shard.connections(),
            jobs: shard.unfinished() + self.mailbox.overflow(),
            running: shard.engine().running(),
            kept: shard.engine().kept(),
            largest_unread_bytes: shard.largest_unread_bytes(),
        }
    }
}

#[cfg(test)]
impl ShardLinks {
    /// The links of a core without a store.
    pub(crate) fn without_threads(mailbox: Mailbox<Envelope>) -> Self {
        Self {
            mailbox,
            gauges: Gauges::of(2).remove(0),
            drain: Drain::of(1).remove(0),
            clock: Clock::start(),
            store_link: None,
            messages: Vec::new(),
            connections_max: 100,
            memory: OtherCoresMemory::default(),
            meter: None,
            lost: Arc::default(),
            offloads: false,
            times_turns: false,
            thread: None,
            reload: None,
        }
    }
}
