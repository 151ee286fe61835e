//! One thread's event loop: its share of the clients and workers, on one poll.
//!
//! In: the phase, readiness, and moments that are due (arrivals, ends of work, churn). Out: bytes
//! on sockets and counts. Every connection is flushed once per turn, after all that it received in
//! that turn. Knows when clients and workers are to be called, not what their packets mean.
//! Invariant: no more than `opening_max` connections are between connect and the end of set-up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timer::TimerSetTimeFlags;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags};
use ringgear::wire::{Command, encode};
use rustls::HandshakeKind;

use crate::client::{Client, ClientEvent};
use crate::clock::nanos;
use crate::connection::{Link, Received};
use crate::counts::Counts;
use crate::distributions::Arrivals;
use crate::error::Error;
use crate::limits;
use crate::options::{Mode, Options, Spacing};
use crate::recorder::Recorder;
use crate::shared::{Phase, Shared};
use crate::worker::{Next, SWEEPS, Worker};
use crate::writes::Writing;

const SCRATCH_BYTES: usize = 256 << 10;
const EVENTS_MAX: usize = 1024;
/// Jobs of an open loop that are submitted before sockets are looked at again.
const ARRIVALS_PER_TURN: usize = 1024;
const PROGRESS_NS: u64 = 500_000_000;

/// Token of `Shared`'s wake-ups.
pub(crate) const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// Which side of the protocol a connection plays.
#[derive(Debug)]
pub(crate) enum Role {
    Client(Client),
    Worker(Worker),
}

impl Role {
    /// How its connections write.
    fn writing(&self, options: &Options) -> Writing {
        let writes = match self {
            Self::Client(_) => options.client_writes,
            Self::Worker(_) => options.worker_writes,
        };
        Writing { nagle: options.nagle, writes }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not connected, or not any more.
    Apart,
    Connecting,
    SettingUp,
    Ready,
}

/// A simulated client or worker, whichever connections it has one after the other.
#[derive(Debug)]
struct Peer {
    role: Role,
    state: State,
    link: Option<Link>,
    /// Counts its connections, so that what was due on an earlier one is not done on this.
    generation: u32,
    source: Option<IpAddr>,
    is_dirty: bool,
}

/// Where to connect to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) addr: SocketAddr,
    /// Connections of this thread that may be in set-up at a time.
    pub(crate) opening_max: usize,
    pub(crate) total: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Thread {
    poll: Poll,
    timer: TimerFd,
    armed_ns: u64,
    target: Target,
    recorder: Recorder,
    me: usize,
    peers: Vec<Peer>,
    to_open: VecDeque<usize>,
    opening: usize,
    ready: u64,
    /// Ends of simulated work.
    work: BinaryHeap<Reverse<(u64, usize, u32)>>,
    dirty: Vec<usize>,
    scratch: Vec<u8>,
    arrivals: Option<Arrivals>,
    churn: Option<Arrivals>,
    /// When sleeping workers are looked after.
    sweep_ns: Option<u64>,
    /// Where the open loop looks for the next client; clients come first among the peers.
    next_client: usize,
    clients: usize,
    progress_ns: u64,
    /// Whether no job is in flight and none is to come.
    is_done: bool,
    /// Whether it is to have a table of descriptors of its own.
    own_table: bool,
}

impl Thread {
    pub(crate) fn new(
        poll: Poll,
        target: Target,
        recorder: Recorder,
        me: usize,
        roles: Vec<(Role, Option<IpAddr>)>,
        own_table: bool,
    ) -> Result<Self, Error> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)
            .map_err(|errno| Error::kernel("cannot make a timer")(errno.into()))?;
        poll.registry()
            .register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)
            .map_err(Error::kernel("cannot watch a timer"))?;
        let clients = roles.iter().filter(|(role, _)| matches!(role, Role::Client(_))).count();
        let peer = |(role, source)| Peer {
            role,
            state: State::Apart,
            link: None,
            generation: 0,
            source,
            is_dirty: false,
        };
        let peers: Vec<Peer> = roles.into_iter().map(peer).collect();
        Ok(Self {
            poll,
            timer,
            armed_ns: u64::MAX,
            target,
            recorder,
            me,
            to_open: (0..peers.len()).collect(),
            peers,
            opening: 0,
            ready: 0,
            work: BinaryHeap::new(),
            dirty: Vec::new(),
            scratch: vec![0; SCRATCH_BYTES],
            arrivals: None,
            churn: None,
            sweep_ns: None,
            next_client: 0,
            clients,
            progress_ns: 0,
            is_done: false,
            own_table,
        })
    }

    /// Runs until the run is done.
    pub(crate) fn run(mut self) -> Counts {
        let shared = Arc::clone(&self.recorder.shared);
        if let Some(live) = shared.live.get(self.me) {
            live.thread.store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
        }
        if let Err(error) = self.turns(&shared) {
            shared.fail(error);
        }
        self.recorder.counts
    }

    fn turns(&mut self, shared: &Shared) -> Result<(), Error> {
        if self.own_table {
            limits::own_table(self.target.total)?;
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        while shared.phase() != Phase::Done {
            self.open_more()?;
            self.arm_timer();
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    return Err(Error::kernel("cannot wait for sockets")(error));
                }
                _ => {}
            }
            self.enter(shared.phase());
            for event in &events {
                match event.token() {
                    WAKER => {}
                    TIMER => {
                        // Reading it is what makes it quiet; how often it fired does not matter.
                        let _ = self.timer.wait();
                        self.armed_ns = u64::MAX;
                    }
                    Token(index) => self.event(index, event)?,
                }
            }
            self.run_due()?;
            self.publish();
        }
        Ok(())
    }

    fn now_ns(&self) -> u64 {
        self.recorder.shared.clock.now_ns()
    }

    /// Takes note of a new phase.
    fn enter(&mut self, phase: Phase) {
        if phase == self.recorder.phase {
            return;
        }
        let was = std::mem::replace(&mut self.recorder.phase, phase);
        let options = &self.recorder.shared.options;
        if phase == Phase::Drain || phase == Phase::Done {
            self.arrivals = None;
            self.churn = None;
            return;
        }
        if was != Phase::SetUp {
            return;
        }
        let now_ns = self.recorder.shared.clock.now_ns();
        if !options.sleep_max.0.is_zero() {
            self.sweep_ns = Some(now_ns);
        }
        let threads = self.recorder.shared.live.len() as f64;
        let clients_share = self.clients as f64 / options.clients.max(1) as f64;
        if options.churn > 0.0 {
            self.churn = Some(Arrivals::from(now_ns, options.churn / threads, false));
        }
        if let Some(rate) = options.rate {
            let even = options.spacing == Spacing::Even;
            if self.clients > 0 {
                let arrivals = Arrivals::from(now_ns, rate * clients_share, even);
                self.arrivals = Some(arrivals.in_bursts(options.burst));
            }
            return;
        }
        for index in 0..self.clients {
            self.fill(index);
        }
    }

    /// Opens connections as far as the bound allows.
    fn open_more(&mut self) -> Result<(), Error> {
        while self.opening < self.target.opening_max {
            let Some(index) = self.to_open.pop_front() else { break };
            let Some(peer) = self.peers.get_mut(index) else { break };
            let tls = self.recorder.shared.tls.as_ref();
            let writing = peer.role.writing(&self.recorder.shared.options);
            let opened = Link::open(self.target.addr, peer.source, tls, writing);
            let opened = opened.and_then(|mut link| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(&mut link.stream, Token(index), interest)?;
                Ok(link)
            });
            match opened {
                Ok(link) => peer.link = Some(link),
                Err(cause) => return Err(self.refused(cause)),
            }
            peer.state = State::Connecting;
            peer.generation = peer.generation.wrapping_add(1);
            self.opening += 1;
        }
        Ok(())
    }

    fn refused(&self, cause: io::Error) -> Error {
        if cause.kind() == ErrorKind::AddrNotAvailable {
            return Error::OutOfPorts { addr: self.target.addr };
        }
        let ready = self.recorder.shared.sum(|live| &live.ready);
        if ready == 0 && cause.kind() == ErrorKind::ConnectionRefused {
            return Error::NoServer { addr: self.target.addr };
        }
        Error::Connect {
            addr: self.target.addr,
            cause,
            number: usize::try_from(ready).unwrap_or_default() + 1,
            total: self.target.total,
        }
    }

    fn event(&mut self, index: usize, event: &Event) -> Result<(), Error> {
        let Some(peer) = self.peers.get_mut(index) else { return Ok(()) };
        let Some(link) = &mut peer.link else { return Ok(()) };
        if peer.state == State::Connecting {
            match link.is_connected() {
                Ok(false) => return Ok(()),
                Ok(true) => {}
                Err(cause) => return Err(self.refused(cause)),
            }
            peer.state = State::SettingUp;
            match &mut peer.role {
                Role::Client(_) => {
                    let magic = ringgear::wire::Magic::Request;
                    encode(&mut link.out, magic, Command::EchoReq, &[], b"ready");
                }
                Role::Worker(worker) => worker.connected(&self.recorder, &mut link.out),
            }
        }
        let is_ending = event.is_read_closed() || event.is_error();
        if event.is_readable() || is_ending {
            return self.readable(index, is_ending);
        }
        self.flush(index)
    }

    /// Reads, answers, and flushes once.
    fn readable(&mut self, index: usize, is_ending: bool) -> Result<(), Error> {
        let now_ns = self.now_ns();
        let Some(peer) = self.peers.get_mut(index) else { return Ok(()) };
        let Some(link) = &mut peer.link else { return Ok(()) };
        let (scratch, recorder) = (&mut self.scratch, &mut self.recorder);
        let mut next = Next::Nothing;
        let received = match &mut peer.role {
            Role::Client(client) => link.receive(scratch, is_ending, |_, header, body| {
                if client.handle(recorder, header, body, now_ns) == ClientEvent::Ready {
                    next = Next::Ready;
                }
                ControlFlow::Continue(())
            }),
            Role::Worker(worker) => link.receive(scratch, is_ending, |out, header, body| {
                match worker.handle(recorder, out, header, body) {
                    Next::Nothing => ControlFlow::Continue(()),
                    Next::Ready => {
                        next = Next::Ready;
                        ControlFlow::Continue(())
                    }
                    Next::WorkFor(time) => {
                        next = Next::WorkFor(time);
                        ControlFlow::Continue(())
                    }
                    last => {
                        next = last;
                        ControlFlow::Break(())
                    }
                }
            }),
        };
        if let Next::WorkFor(time) = next {
            let due_ns = now_ns + nanos(time);
            self.work.push(Reverse((due_ns, index, peer.generation)));
        }
        match received {
            Ok(Received::Closed) => return self.closed(index, None),
            Err(cause) => return self.closed(index, Some(&cause)),
            Ok(Received::Open | Received::Stopped) => {}
        }
        self.act(index, next)
    }

    /// What a client or worker asked for, and what is due on its connection after each read.
    fn act(&mut self, index: usize, next: Next) -> Result<(), Error> {
        match next {
            Next::Crash | Next::Leave => {
                self.reconnect(index);
                return Ok(());
            }
            Next::Ready => self.set_up_done(index),
            Next::Nothing | Next::WorkFor(_) => {}
        }
        let Some(peer) = self.peers.get(index) else { return Ok(()) };
        if let Role::Client(client) = &peer.role {
            if client.is_leaving && client.in_flight() == 0 {
                self.reconnect(index);
                return Ok(());
            }
            if peer.state == State::Ready {
                self.fill(index);
            }
        }
        self.flush(index)
    }

    fn set_up_done(&mut self, index: usize) {
        if let Some(peer) = self.peers.get_mut(index)
            && peer.state == State::SettingUp
        {
            peer.state = State::Ready;
            self.opening -= 1;
            self.ready += 1;
            let handshakes = &mut self.recorder.counts.handshakes;
            match peer.link.as_ref().and_then(Link::handshake) {
                None => {}
                Some(HandshakeKind::Resumed) => handshakes.resumed += 1,
                Some(_) => handshakes.full += 1,
            }
        }
    }

    /// Lets a closed loop's client submit, or open its next connection; the bytes leave with the
    /// next flush.
    fn fill(&mut self, index: usize) {
        if self.recorder.shared.options.rate.is_some() {
            return;
        }
        let now_ns = self.recorder.shared.clock.now_ns();
        let Some(peer) = self.peers.get_mut(index) else { return };
        let (Role::Client(client), Some(link)) = (&mut peer.role, &mut peer.link) else { return };
        if peer.state != State::Ready {
            return;
        }
        if self.recorder.shared.options.mode == Mode::Connect {
            if self.recorder.may_submit() {
                client.connect(&mut self.recorder, now_ns);
                self.reconnect(index);
            }
            return;
        }
        client.fill(&mut self.recorder, &mut link.out, now_ns);
        if !link.out.is_empty() && !peer.is_dirty {
            peer.is_dirty = true;
            self.dirty.push(index);
        }
    }

    fn flush(&mut self, index: usize) -> Result<(), Error> {
        let Some(link) = self.peers.get_mut(index).and_then(|peer| peer.link.as_mut()) else {
            return Ok(());
        };
        match link.flush() {
            Ok(()) => Ok(()),
            Err(cause) => self.closed(index, Some(&cause)),
        }
    }

    /// Ends a connection on our side and queues another.
    fn reconnect(&mut self, index: usize) {
        self.drop_link(index);
        if let Some(Peer { role: Role::Client(client), .. }) = self.peers.get_mut(index) {
            client.is_leaving = false;
        }
        self.to_open.push_back(index);
    }

    fn drop_link(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.state == State::Ready {
            self.ready -= 1;
        } else {
            self.opening -= 1;
        }
        peer.link = None;
        peer.state = State::Apart;
    }

    /// The fault of TLS that a connection ended with, if that is why it ended.
    fn tls_fault(&self, index: usize, cause: Option<&io::Error>) -> Option<Error> {
        let tls = self.recorder.shared.tls.as_ref()?;
        let error = cause.and_then(io::Error::get_ref).and_then(|error| error.downcast_ref());
        let is_over = self.peers.get(index)?.link.as_ref()?.handshake().is_some();
        (error.is_some() || !is_over).then(|| tls.fault(self.target.addr, error))
    }

    /// The server ended a connection: a fault, or no run at all if it was never set up.
    fn closed(&mut self, index: usize, cause: Option<&io::Error>) -> Result<(), Error> {
        let fault = self.tls_fault(index, cause);
        if self.recorder.phase == Phase::SetUp {
            if let Some(fault) = fault {
                return Err(fault);
            }
            if let Some(said) = self.recorder.counts.first_error.take() {
                return Err(Error::Refused { addr: self.target.addr, said });
            }
            let ready = usize::try_from(self.recorder.shared.sum(|live| &live.ready));
            return Err(Error::ClosedEarly {
                addr: self.target.addr,
                ready: ready.unwrap_or_default(),
                total: self.target.total,
            });
        }
        let counts = &mut self.recorder.counts;
        if let Some(fault) = fault {
            let is_new = self.peers.get(index).is_some_and(|peer| peer.state != State::Ready);
            counts.handshakes.failed += u64::from(is_new);
            counts.first_error.get_or_insert_with(|| fault.to_string());
        }
        counts.closed += 1;
        counts.faults.failed += 1;
        self.drop_link(index);
        if let Some(Peer { role: Role::Client(client), .. }) = self.peers.get_mut(index) {
            self.recorder.counts.faults.lost += client.abandon(&mut self.recorder);
        }
        Ok(())
    }

    /// Does what time has come for, and writes what that produced.
    fn run_due(&mut self) -> Result<(), Error> {
        let now_ns = self.now_ns();
        while let Some(&Reverse((due_ns, index, generation))) = self.work.peek()
            && due_ns <= now_ns
        {
            self.work.pop();
            self.finish_work(index, generation)?;
        }
        self.submit_due(now_ns);
        while let Some(churn) = &mut self.churn
            && churn.due_ns() <= now_ns
        {
            churn.advance(&mut self.recorder.rng);
            self.replace_one();
        }
        if self.sweep_ns.is_some_and(|due_ns| due_ns <= now_ns) {
            self.sweep(now_ns);
        }
        while let Some(index) = self.dirty.pop() {
            if let Some(peer) = self.peers.get_mut(index) {
                peer.is_dirty = false;
            }
            self.flush(index)?;
        }
        Ok(())
    }

    /// Lets workers that have slept for long grab unasked.
    fn sweep(&mut self, now_ns: u64) {
        let every_ns = nanos(self.recorder.shared.options.sleep_max.0) / u64::from(SWEEPS);
        self.sweep_ns = Some(now_ns + every_ns.max(1_000_000));
        for (index, peer) in self.peers.iter_mut().enumerate().skip(self.clients) {
            let (Role::Worker(worker), Some(link)) = (&mut peer.role, &mut peer.link) else {
                continue;
            };
            worker.sweep(&self.recorder, &mut link.out);
            if !link.out.is_empty() && !peer.is_dirty {
                peer.is_dirty = true;
                self.dirty.push(index);
            }
        }
    }

    fn finish_work(&mut self, index: usize, generation: u32) -> Result<(), Error> {
        let Some(peer) = self.peers.get_mut(index) else { return Ok(()) };
        let (Role::Worker(worker), Some(link)) = (&mut peer.role, &mut peer.link) else {
            return Ok(());
        };
        if peer.generation != generation {
            return Ok(());
        }
        let next = worker.finish(&mut self.recorder, &mut link.out);
        self.act(index, next)
    }

    /// The jobs of an open loop whose moment has come, however late it is.
    fn submit_due(&mut self, now_ns: u64) {
        for _ in 0..ARRIVALS_PER_TURN {
            let Some(arrivals) = &mut self.arrivals else { return };
            let due_ns = arrivals.due_ns();
            if due_ns > now_ns || !self.recorder.may_submit() {
                return;
            }
            // All clients may be busy reconnecting: the job stays due.
            let Some(index) = self.next_ready_client() else { return };
            if let Some(arrivals) = &mut self.arrivals {
                arrivals.advance(&mut self.recorder.rng);
            }
            let Some(peer) = self.peers.get_mut(index) else { return };
            if let (Role::Client(client), Some(link)) = (&mut peer.role, &mut peer.link) {
                client.submit(&mut self.recorder, &mut link.out, due_ns, now_ns);
                if !peer.is_dirty {
                    peer.is_dirty = true;
                    self.dirty.push(index);
                }
            }
        }
    }

    fn next_ready_client(&mut self) -> Option<usize> {
        for _ in 0..self.clients {
            let index = self.next_client;
            self.next_client = (index + 1) % self.clients;
            if let Some(peer) = self.peers.get(index)
                && peer.state == State::Ready
                && matches!(&peer.role, Role::Client(client) if !client.is_leaving)
            {
                return Some(index);
            }
        }
        None
    }

    /// Picks a connection that is closed and opened again as soon as it holds no job.
    fn replace_one(&mut self) {
        let index = self.recorder.rng.usize(0..self.peers.len());
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.state != State::Ready {
            return;
        }
        let at_once = match &mut peer.role {
            Role::Client(client) => {
                client.is_leaving = true;
                client.in_flight() == 0
            }
            Role::Worker(worker) => {
                worker.is_leaving = true;
                worker.is_asleep()
            }
        };
        self.recorder.counts.replaced += 1;
        if at_once {
            self.reconnect(index);
        }
    }

    /// Arms the timer for whatever is due next, if that is not what it is armed for.
    fn arm_timer(&mut self) {
        let due_ns = [
            self.work.peek().map(|Reverse((due_ns, ..))| *due_ns),
            self.arrivals.filter(|_| self.recorder.may_submit()).map(|arrivals| arrivals.due_ns()),
            self.churn.map(|churn| churn.due_ns()),
            self.sweep_ns,
        ];
        let Some(due_ns) = due_ns.into_iter().flatten().min() else { return };
        if due_ns >= self.armed_ns {
            return;
        }
        // Zero would disarm it.
        let wait = Duration::from_nanos(due_ns.saturating_sub(self.now_ns()).max(1));
        let expiration = Expiration::OneShot(TimeSpec::from_duration(wait));
        if self.timer.set(expiration, TimerSetTimeFlags::empty()).is_ok() {
            self.armed_ns = due_ns;
        }
    }

    /// Lets the others see how far this thread is.
    fn publish(&mut self) {
        let now_ns = self.now_ns();
        let recorder = &mut self.recorder;
        let Some(live) = recorder.shared.live.get(self.me) else { return };
        let set = |count: &AtomicU64, value: u64| count.store(value, Ordering::Relaxed);
        set(&live.answered, recorder.counts.answered);
        set(&live.accepted, recorder.accepted);
        set(&live.ran, recorder.ran);
        set(&live.faults, recorder.counts.faults.total());
        set(&live.last_answer_ns, recorder.last_answer_ns);
        set(&live.quota_left, recorder.quota_left.unwrap_or(0));
        if recorder.shared.watched && now_ns >= self.progress_ns + PROGRESS_NS {
            self.progress_ns = now_ns;
            set(&live.p99_ns, recorder.recent_ns.value_at_quantile(0.99));
            recorder.recent_ns.reset();
        }
        let is_set_up = recorder.phase == Phase::SetUp
            && live.ready.load(Ordering::Relaxed) != self.ready
            && self.ready == self.peers.len() as u64;
        let is_done =
            recorder.in_flight == 0 && recorder.phase > Phase::WarmUp && !recorder.may_submit();
        let was_done = std::mem::replace(&mut self.is_done, is_done);
        // Last, and in order: a reader that sees no job in flight sees all else as it was then.
        live.ready.store(self.ready, Ordering::Release);
        live.in_flight.store(recorder.in_flight, Ordering::Release);
        live.phase.store(recorder.phase as u8, Ordering::Release);
        if is_set_up || (is_done && !was_done) {
            recorder.shared.tell_conductor();
        }
    }
}
