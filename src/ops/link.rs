//! The links to the cores: requests of operators with their replies, and clients that submit jobs.
//!
//! A client is a connection as other cores see those of a core: it has a number and a generation
//! here, and a proxy at each core that it sent something to, until `Gone`. Knows no HTTP.
//!
//! Invariant: the lock is held for no longer than it takes to move messages, never across a wait.
//! What a client doesn't receive takes at most `unread_bytes_max` and one message.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;
use thiserror::Error;
use tokio::sync::{Notify, oneshot};
use tracing::warn;

use crate::engine::ConnId;
use crate::engine::handle::Handles;
use crate::io::{HttpLink, TurnTimes};
use crate::protocol::access::Permissions;
use crate::protocol::peer_address::PeerAddress;
use crate::shard::cores::{Core, CoreSet, Cores};
use crate::shard::operator::{OperatorReply, OperatorRequest};
use crate::shard::remote::message::{ConnKey, HomeConnId, Message};

/// The server ends, and its cores don't answer any more.
#[derive(Clone, Copy, Debug, Error)]
#[error("the server is ending")]
pub(super) struct Ending;

/// Why a client receives no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// The server ends.
    Ending,
    /// It left more unread than it may.
    Unread,
}

/// What is shared by all requests.
#[derive(Clone, Debug)]
pub(super) struct Link(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Messages wait for space in a ring.
    overflowed: Notify,
}

#[derive(Debug)]
struct State {
    link: HttpLink,
    /// Requests that wait for their replies, by ticket.
    waiting: HashMap<u64, oneshot::Sender<OperatorReply>>,
    next_ticket: u64,
    clients: Slab<Entry>,
    /// The last client's.
    generation: u32,
    limits: Limits,
    has_ended: bool,
}

/// Limits of memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// What the whole server may take.
    pub(super) memory_bytes_max: usize,
    /// What there may be that a client hasn't received when the next message comes.
    pub(super) unread_bytes_max: usize,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    peer: PeerAddress,
    /// Messages that it hasn't received.
    unread: VecDeque<Message>,
    /// What they take.
    unread_bytes: usize,
    /// It left too much unread.
    is_overfull: bool,
    arrived: Arc<Notify>,
}

/// A client that submits jobs. The cores forget it when it is dropped: jobs that only it waits for
/// are dropped, too.
#[derive(Debug)]
pub(super) struct Client {
    link: Link,
    key: ConnKey,
    peer: PeerAddress,
    access: Option<Arc<Permissions>>,
    /// Cores that know it.
    known: CoreSet,
    arrived: Arc<Notify>,
}

/// Bytes that are held for a request, and counted as long as this exists.
#[derive(Debug)]
pub(super) struct Held {
    link: Link,
    bytes: usize,
}

impl Link {
    pub(super) fn new(link: HttpLink, limits: Limits) -> Self {
        let state = State {
            link,
            waiting: HashMap::new(),
            next_ticket: 0,
            clients: Slab::new(),
            generation: 0,
            limits,
            has_ended: false,
        };
        Self(Arc::new(Inner { state: Mutex::new(state), overflowed: Notify::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cores.
    pub(super) fn cores(&self) -> Cores {
        self.lock().link.cores()
    }

    /// Converts job numbers to handles and back.
    pub(super) fn handles(&self) -> Handles {
        self.lock().link.handles().clone()
    }

    /// How long the turns of a core took, and how long its thread ran or waited for a processor, in
    /// seconds.
    pub(super) fn core_times(&self, core: Core) -> (TurnTimes, Option<f64>) {
        let state = self.lock();
        (state.link.turns(core), state.link.busy_seconds(core))
    }

    /// Takes bytes into account that are held for requests, or no more with a negative number.
    pub(super) fn hold(&self, bytes: isize) {
        self.lock().link.hold(bytes);
    }

    /// Counts bytes from now on until what is returned is dropped.
    pub(super) fn held(&self, bytes: usize) -> Held {
        self.hold(bytes.cast_signed());
        Held { link: self.clone(), bytes }
    }

    /// Bytes that may still be allocated.
    pub(super) fn memory_left(&self) -> usize {
        let state = self.lock();
        state.limits.memory_bytes_max.saturating_sub(state.link.taken_bytes())
    }

    /// The server ends: clients receive no more.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        // What the cores sent before they ended; nothing is to be changed any more.
        while state.receive(&|_| {}) {}
        state.has_ended = true;
        state.clients.iter().for_each(|(_, client)| client.arrived.notify_one());
    }

    /// Asks a core. The reply comes within a turn of its loop.
    ///
    /// # Errors
    /// `Ending`: the core has ended.
    pub(super) async fn ask(
        &self,
        core: Core,
        request: OperatorRequest,
    ) -> Result<OperatorReply, Ending> {
        self.send_request(core, request).await.map_err(|_| Ending)
    }

    /// Sends a request to a core. The receiver gets the reply.
    pub(super) fn send_request(
        &self,
        core: Core,
        request: OperatorRequest,
    ) -> oneshot::Receiver<OperatorReply> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.waiting.insert(ticket, sender);
        self.send(&mut state, core, Message::Operator { ticket, request: Box::new(request) });
        receiver
    }

    /// Tells a core something that has no reply.
    pub(super) fn tell(&self, core: Core, message: Message) {
        self.send(&mut self.lock(), core, message);
    }

    fn send(&self, state: &mut State, core: Core, message: Message) {
        state.link.send(core, message);
        if !state.link.flush() {
            self.0.overflowed.notify_one();
        }
    }

    /// A new client.
    pub(super) fn connect(&self, peer: PeerAddress, access: Option<Arc<Permissions>>) -> Client {
        let arrived = Arc::new(Notify::new());
        let mut state = self.lock();
        state.generation = state.generation.wrapping_add(1);
        let generation = state.generation;
        let at = state.clients.insert(Entry {
            generation,
            peer,
            unread: VecDeque::new(),
            unread_bytes: 0,
            is_overfull: false,
            arrived: Arc::clone(&arrived),
        });
        drop(state);
        let key = ConnKey { conn: HomeConnId::of(ConnId::from_index(at)), generation };
        Client { link: self.clone(), key, peer, access, known: CoreSet::default(), arrived }
    }

    /// Receives messages until the server ends. `on_change` gets those that concern this thread
    /// itself: an access list or files of TLS that were read anew.
    ///
    /// # Errors
    /// If the kernel doesn't let the thread wait for the cores.
    pub(super) async fn run(&self, on_change: impl Fn(Message)) -> std::io::Result<()> {
        let woken = self.lock().link.woken()?;
        loop {
            let may_sleep = {
                let mut state = self.lock();
                let has_received = state.receive(&on_change);
                state.link.flush();
                !has_received && state.link.prepare_to_sleep()
            };
            if !may_sleep {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                guard = woken.readable() => guard?.clear_ready(),
                () = self.0.overflowed.notified() => {}
            }
            self.lock().link.wake();
        }
    }
}

impl State {
    /// Passes messages on. Returns whether there were any.
    fn receive(&mut self, on_change: &impl Fn(Message)) -> bool {
        let Self { link, waiting, clients, limits, .. } = self;
        let mut held = 0;
        let has_received = link.receive(|_, message| match message {
            Message::OperatorReply { ticket, reply } => {
                if let Some(sender) = waiting.remove(&ticket) {
                    // The request may have ended meanwhile.
                    drop(sender.send(*reply));
                }
            }
            Message::Access(_) | Message::Tls(_) => on_change(message),
            message => {
                let entry = message.key().and_then(|key| {
                    let entry = clients.get_mut(key.conn.at_home().index())?;
                    (entry.generation == key.generation).then_some(entry)
                });
                if let Some(entry) = entry {
                    held += entry.take_in(message, limits.unread_bytes_max);
                }
            }
        });
        if held != 0 {
            link.hold(held);
        }
        has_received
    }
}

impl Entry {
    /// A message came for it. Returns the bytes that are held more, or with a negative number less.
    fn take_in(&mut self, message: Message, unread_bytes_max: usize) -> isize {
        let before = self.unread_bytes;
        if self.unread_bytes > unread_bytes_max {
            let peer = self.peer;
            warn!(
                %peer,
                "an HTTP client doesn't read its results, which have reached --outbox-max; mend \
                 the client, or raise the limit"
            );
            self.is_overfull = true;
            self.unread = VecDeque::new();
            self.unread_bytes = 0;
        } else if !self.is_overfull {
            self.unread_bytes += message.bytes();
            self.unread.push_back(message);
        }
        self.arrived.notify_one();
        self.unread_bytes.cast_signed() - before.cast_signed()
    }
}

impl Client {
    /// What it is called by the cores.
    pub(super) fn key(&self) -> ConnKey {
        self.key
    }

    /// Sends a message about it to a core, which hears of it first if it doesn't know it.
    pub(super) fn send(&mut self, core: Core, message: Message) {
        let Self { link, key, peer, access, known, .. } = self;
        let mut state = link.lock();
        if known.insert(core) {
            let introduced =
                Message::Introduced { key: *key, peer: *peer, id: None, access: access.clone() };
            link.send(&mut state, core, introduced);
        }
        link.send(&mut state, core, message);
    }

    /// The next message to it.
    ///
    /// # Errors
    /// `Closed` says why there is none.
    pub(super) async fn receive(&mut self) -> Result<Message, Closed> {
        loop {
            if let Some(received) = self.link.next_of(self.key) {
                return received;
            }
            self.arrived.notified().await;
        }
    }

    /// Waits until it will receive no more than has arrived.
    pub(super) async fn closed(&mut self) {
        while !self.link.is_closed(self.key) {
            self.arrived.notified().await;
        }
    }
}

impl Link {
    fn is_closed(&self, key: ConnKey) -> bool {
        let state = self.lock();
        let entry = state.clients.get(key.conn.at_home().index());
        state.has_ended || entry.is_none_or(|entry| entry.is_overfull)
    }

    /// The next message to a client, if there is any, or why there won't be.
    fn next_of(&self, key: ConnKey) -> Option<Result<Message, Closed>> {
        let mut state = self.lock();
        let State { link, clients, has_ended, .. } = &mut *state;
        let entry = clients.get_mut(key.conn.at_home().index())?;
        if let Some(message) = entry.unread.pop_front() {
            let bytes = message.bytes();
            entry.unread_bytes -= bytes;
            link.hold(-bytes.cast_signed());
            return Some(Ok(message));
        }
        if entry.is_overfull {
            return Some(Err(Closed::Unread));
        }
        has_ended.then_some(Err(Closed::Ending))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut state = self.link.lock();
        for core in self.known.iter() {
            self.link.send(&mut state, core, Message::Gone(self.key.conn));
        }
        let entry = state.clients.remove(self.key.conn.at_home().index());
        state.link.hold(-entry.unread_bytes.cast_signed());
    }
}

impl Held {
    /// Counts more bytes.
    pub(super) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.link.hold(bytes.cast_signed());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.link.hold(-self.bytes.cast_signed());
    }
}
