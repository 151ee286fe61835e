//! For tests: a job server with a queue and a record of what workers say, and instances for it.
//!
//! Runs in the test's thread. A job is assigned to the connection that asks first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringgear::wire::{Command, HEADER_BYTES, Magic, header, header_bytes};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::memory::Memory;
use super::{Instance, Order, Shared};
use crate::config::{Server, Worker};
use crate::counters::{self, Counters, Ended, Outcome};
use crate::gearman::Servers;
use crate::process::guard::Guard;

/// Long enough for any machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs a test that spawns tasks.
pub(crate) fn in_local_set(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        tokio::time::timeout(DEADLINE, test).await.expect("the test's end within the deadline");
    });
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// A server.
#[derive(Clone)]
pub(crate) struct FakeServer(Rc<State>);

struct State {
    folder: TempDir,
    queue: RefCell<VecDeque<(String, Bytes)>>,
    /// Handle of the cancelled job.
    cancelled: RefCell<Option<String>>,
    /// Packets about jobs: command and body, which begins with the handle.
    said: RefCell<Vec<(Command, Bytes)>>,
    assigned: Cell<usize>,
    grabs: Cell<usize>,
    changed: Notify,
}

impl FakeServer {
    /// A server that listens; must be called in a `LocalSet`.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("socket")).expect("a socket");
        let server = Self(Rc::new(State {
            folder,
            queue: RefCell::default(),
            cancelled: RefCell::default(),
            said: RefCell::default(),
            assigned: Cell::default(),
            grabs: Cell::default(),
            changed: Notify::new(),
        }));
        let accepting = server.clone();
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawn_local(accepting.clone().serve(stream));
            }
        });
        server
    }

    /// Queues a job of function `f`; its handle is as given.
    pub(crate) fn submit(&self, handle: &str, payload: impl Into<Bytes>) {
        self.0.queue.borrow_mut().push_back((handle.to_owned(), payload.into()));
        self.0.changed.notify_waiters();
    }

    /// Cancels a running job.
    pub(crate) fn cancel(&self, handle: &str) {
        self.0.cancelled.replace(Some(handle.to_owned()));
        self.0.changed.notify_waiters();
    }

    /// Jobs that were assigned.
    pub(crate) fn assigned(&self) -> usize {
        self.0.assigned.get()
    }

    /// Requests for a job.
    pub(crate) fn grabs(&self) -> usize {
        self.0.grabs.get()
    }

    /// What workers said of a job: commands and what follows the handle.
    pub(crate) fn said(&self, handle: &str) -> Vec<(Command, String)> {
        let said = self.0.said.borrow();
        let of_job = said.iter().filter_map(|(command, body)| {
            let rest = body.strip_prefix(handle.as_bytes())?;
            let rest = rest.strip_prefix(b"\0").or_else(|| rest.is_empty().then_some(rest))?;
            Some((*command, rest.escape_ascii().to_string()))
        });
        of_job.collect()
    }

    /// Waits for the end of a job; returns it.
    pub(crate) async fn ended(&self, handle: &str) -> (Command, String) {
        let ends = [Command::WorkComplete, Command::WorkFail, Command::WorkException];
        let end = || self.said(handle).into_iter().find(|(command, _)| ends.contains(command));
        until(&format!("the end of {handle}"), || end().is_some()).await;
        end().expect("it has just been there")
    }

    /// An instance that works for this server.
    pub(crate) fn instance(&self, worker: Worker) -> (Instance, Controls) {
        let counters: Rc<Counters> = Rc::default();
        let (orders, orders_receiver) = watch::channel(Order::Work);
        let (is_up_sender, is_up) = watch::channel(false);
        let memory: Rc<Memory> = Rc::default();
        let looking = Rc::clone(&memory);
        let memory_watch = spawn_local(async move { looking.watch().await });
        let instance = Instance {
            counters: counters.worker(&worker.name),
            worker: Rc::new(worker),
            number: 1,
            shared: Rc::new(self.shared(counters)),
            memory,
            orders: orders_receiver,
            is_up: is_up_sender,
        };
        (instance, Controls { orders, is_up, memory_watch })
    }

    /// What instances share that work for this server.
    pub(crate) fn shared(&self, counters: Rc<Counters>) -> Shared {
        let servers = vec![Server::Unix(self.0.folder.path().join("socket"))];
        Shared {
            servers: Rc::new(Servers { servers, tls: None }),
            servers_variable: "fake:4730".to_owned(),
            counters,
            guard: Rc::new(Guard::of_test()),
            host: "host".to_owned(),
        }
    }

    async fn serve(self, mut stream: UnixStream) {
        let mut input = BytesMut::new();
        let mut is_asleep = false;
        let mut running: Option<String> = None;
        loop {
            let mut output = Vec::new();
            let mut send = |command: Command, body: &[u8]| {
                let size = u32::try_from(body.len()).expect("a small body");
                output.extend(header_bytes(Magic::Response, command, size));
                output.extend(body);
            };
            tokio::select! {
                read = stream.read_buf(&mut input) => {
                    if !matches!(read, Ok(1..)) {
                        return;
                    }
                }
                () = self.0.changed.notified() => {}
            }
            while let Some((command, body)) = packet(&mut input) {
                match command {
                    Command::PreSleep => is_asleep = true,
                    Command::GrabJobUniq => {
                        is_asleep = false;
                        self.0.grabs.set(self.0.grabs.get() + 1);
                        if let Some((handle, payload)) = self.0.queue.borrow_mut().pop_front() {
                            self.0.assigned.set(self.0.assigned.get() + 1);
                            let head = format!("{handle}\0f\0u\0").into_bytes();
                            send(Command::JobAssignUniq, &[&head, payload.as_ref()].concat());
                            running = Some(handle);
                        } else {
                            send(Command::NoJob, b"");
                        }
                    }
                    Command::OptionReq => send(Command::OptionRes, &body),
                    Command::SetClientId | Command::CanDo | Command::CanDoTimeout => {}
                    _ => self.0.said.borrow_mut().push((command, body)),
                }
            }
            if is_asleep && !self.0.queue.borrow().is_empty() {
                is_asleep = false;
                send(Command::Noop, b"");
            }
            let is_meant = |handle: &mut String| running.as_ref() == Some(handle);
            if let Some(handle) = self.0.cancelled.borrow_mut().take_if(is_meant) {
                send(Command::WorkFail, handle.as_bytes());
            }
            if stream.write_all(&output).await.is_err() {
                return;
            }
        }
    }
}

fn packet(input: &mut BytesMut) -> Option<(Command, Bytes)> {
    let header = header(input.first_chunk::<HEADER_BYTES>()?).expect("a header");
    let size = HEADER_BYTES + header.body_bytes as usize;
    (input.len() >= size).then(|| {
        let packet = input.split_to(size).freeze();
        (header.command, packet.slice(HEADER_BYTES..))
    })
}

/// What the supervisor holds of an instance.
pub(crate) struct Controls {
    /// Its orders.
    pub(crate) orders: watch::Sender<Order>,
    /// Whether it is up.
    pub(crate) is_up: watch::Receiver<bool>,
    /// Looks at the memory of its processes once a second.
    pub(crate) memory_watch: JoinHandle<()>,
}

/// An instance that runs for a server of its own.
pub(crate) struct Running {
    /// Its server.
    pub(crate) server: FakeServer,
    /// Numbers of its worker.
    pub(crate) counters: Rc<counters::Worker>,
    /// What the supervisor would hold.
    pub(crate) controls: Controls,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts it, in a `LocalSet`.
    pub(crate) fn start(worker: Worker) -> Self {
        let server = FakeServer::start();
        let (instance, controls) = server.instance(worker);
        let counters = Rc::clone(&instance.counters);
        let task = spawn_local(instance.run());
        Self { server, counters, controls, task }
    }

    /// Runs a job; returns its end.
    pub(crate) async fn job(&self, handle: &str, payload: impl Into<Bytes>) -> (Command, String) {
        self.server.submit(handle, payload);
        self.server.ended(handle).await
    }

    /// Jobs with this outcome.
    pub(crate) fn jobs(&self, outcome: Outcome) -> u64 {
        self.counters.jobs.borrow().get(&outcome).copied().unwrap_or(0)
    }

    /// Ends of processes for this reason.
    pub(crate) fn ends(&self, reason: Ended) -> u64 {
        self.counters.ends.borrow().get(&reason).copied().unwrap_or(0)
    }

    /// Gives an order to end, and waits until it has.
    pub(crate) async fn end(self, order: Order) {
        self.controls.orders.send_replace(order);
        self.task.await.expect("no panic");
        assert_eq!((self.counters.processes.get(), self.counters.running.get()), (0, 0));
        assert_eq!(self.counters.backing_off.get(), 0);
    }
}
