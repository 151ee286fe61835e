//! The links to the cores: requests of operators with their replies, and clients that submit jobs.
//!
//! A client is a connection as other cores see those of a core: it has a number and a generation
//! here, and a proxy at each core that it sent something to, until `Gone`. Knows no HTTP.
//!
//! Invariant: the lock is held for no longer than it takes to move messages, never across a wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;
use thiserror::Error;
use tokio::sync::{Notify, mpsc, oneshot};

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
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    messages: mpsc::UnboundedSender<Message>,
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
    messages: mpsc::UnboundedReceiver<Message>,
}

impl Link {
    pub(super) fn new(link: HttpLink) -> Self {
        let state = State {
            link,
            waiting: HashMap::new(),
            next_ticket: 0,
            clients: Slab::new(),
            generation: 0,
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

    fn send(&self, state: &mut State, core: Core, message: Message) {
        state.link.send(core, message);
        if !state.link.flush() {
            self.0.overflowed.notify_one();
        }
    }

    /// A new client.
    pub(super) fn connect(&self, peer: PeerAddress, access: Option<Arc<Permissions>>) -> Client {
        let (sender, messages) = mpsc::unbounded_channel();
        let mut state = self.lock();
        state.generation = state.generation.wrapping_add(1);
        let generation = state.generation;
        let at = state.clients.insert(Entry { generation, messages: sender });
        drop(state);
        let key = ConnKey { conn: HomeConnId::of(ConnId::from_index(at)), generation };
        Client { link: self.clone(), key, peer, access, known: CoreSet::default(), messages }
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
        let Self { link, waiting, clients, .. } = self;
        link.receive(|_, message| match message {
            Message::OperatorReply { ticket, reply } => {
                if let Some(sender) = waiting.remove(&ticket) {
                    // Who asked may have left meanwhile.
                    drop(sender.send(*reply));
                }
            }
            Message::Access(_) | Message::Tls(_) => on_change(message),
            message => {
                let entry = message.key().and_then(|key| {
                    let entry = clients.get(key.conn.at_home().index())?;
                    (entry.generation == key.generation).then_some(entry)
                });
                if let Some(entry) = entry {
                    drop(entry.messages.send(message));
                }
            }
        })
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

    /// The next message to it; `None` once the server ends.
    pub(super) async fn receive(&mut self) -> Option<Message> {
        self.messages.recv().await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut state = self.link.lock();
        for core in self.known.iter() {
            self.link.send(&mut state, core, Message::Gone(self.key.conn));
        }
        state.clients.remove(self.key.conn.at_home().index());
    }
}
