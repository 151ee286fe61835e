//! In step: one connection acts at a time, and all that comes is exactly what the model says.
//!
//! After each deed barriers on all connections bring the server to rest. Leases are so long that
//! none ends: what happens follows from the deeds alone. Invariant: a seed gives the same deeds as
//! long as the server gives the same answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::chance::{Chance, Handles, Role};
use crate::connection::{Connection, Received};
use crate::gearmand;
use crate::model::{Checked, Model, Place, Rules};
use crate::operations::{Deed, Request};
use crate::process::{Options, Process, Variant};
use crate::trace::Trace;

const PLACES: usize = 6;
const STEPS: usize = 300;
/// The longest lease that there is, and a run that takes less.
const LEASE_MS: u64 = 60_000;
const TIME_MAX: Duration = Duration::from_secs(50);
/// How long cores may take to tell each other.
const PATIENCE: Duration = Duration::from_secs(4);

struct World {
    process: Process,
    chance: Chance,
    model: Model,
    /// Looks whether connections are gone.
    watch: Connection,
    peers: BTreeMap<Place, (Connection, Role)>,
    /// Whether the server is started again now and then.
    restarts: bool,
    /// Several requests in one write are in step only if nothing between them can be seen. A store
    /// takes its time before the next request sees the job.
    may_pipeline: bool,
}

/// Runs one seed to its end, the deadline or the first difference.
pub(crate) fn run(
    variant: Variant,
    seed: u64,
    deadline: Instant,
    trace: &mut Trace,
) -> Checked<()> {
    let mut chance = Chance::new(seed);
    let mut options = Options::by_chance(&mut chance.rng, LEASE_MS);
    if variant.is_gearmand() {
        gearmand::functions(&mut chance.functions);
        // It wakes all sleepers, and has no limit of attempts that is 0.
        options.wakeup = Some(0);
        options.attempts_max = options.attempts_max.filter(|&max| max > 0);
    }
    let process = Process::start(variant, &options);
    trace.begin(&process.command);
    let rules = Rules {
        cores: process.cores,
        wakeup: options.wakeup,
        attempts_max: options.attempts_max,
        exceptions: options.exceptions,
        gearmand: variant.is_gearmand(),
        pid: process.server.pid(),
    };
    let watch = Connection::open(process.server.address(), process.cores);
    let mut world = World {
        restarts: variant.store && chance.rng.bool(),
        may_pipeline: process.cores == 1 && options.wakeup.is_none() && !variant.store,
        process,
        chance,
        model: Model::new(rules),
        watch,
        peers: BTreeMap::new(),
    };
    let deadline = deadline.min(Instant::now() + TIME_MAX);
    for _ in 0..STEPS {
        if Instant::now() >= deadline {
            break;
        }
        world.step(trace)?;
    }
    Ok(())
}

impl World {
    fn step(&mut self, trace: &mut Trace) -> Checked<()> {
        if self.restarts && self.chance.once_in(50) {
            return self.restart(trace);
        }
        let place = self.chance.rng.usize(..PLACES);
        let mut deed = self.deed(place);
        while self.model.is_of_gearmand() && !gearmand::agrees(&deed, place, &self.model) {
            deed = self.deed(place);
        }
        trace.note(format!("c{place} {deed}"));
        let mut last = BTreeMap::new();
        let mut gone = false;
        match &deed {
            Deed::Open => {
                let connection =
                    Connection::open(self.process.server.address(), self.process.cores);
                let role = self.chance.role();
                self.peers.insert(place, (connection, role));
                self.model.connect(place);
            }
            Deed::Send { requests, fin } => {
                let bytes: Vec<u8> = requests.iter().flat_map(Request::bytes).collect();
                self.connection(place).send(&bytes);
                if *fin {
                    self.connection(place).half_close();
                    last.insert(place, self.connection(place).read_to_end()?);
                    gone = true;
                }
            }
            Deed::Break(bytes) => {
                self.connection(place).send(bytes);
                last.insert(place, self.connection(place).read_to_end()?);
                gone = true;
            }
            Deed::Close { reset } => {
                let (connection, _) = self.peers.remove(&place).expect("an open connection");
                connection.close(*reset);
                gone = true;
            }
        }
        if gone {
            self.peers.remove(&place);
            self.watch.wait_until_gone(self.peers.len())?;
        }
        let mut received = self.rest(place)?;
        received.extend(last.into_iter().map(|(place, items)| (place, Received::of(items))));
        trace.received(&received);
        self.compare(place, &deed, received, gone)?;
        self.wait_for_wake_ups()
    }

    /// A server on the same store takes over, and all connections are gone.
    fn restart(&mut self, trace: &mut Trace) -> Checked<()> {
        let killed = self.chance.rng.bool();
        let signal = if killed { "SIGKILL" } else { "SIGTERM" };
        trace.note(format!("{signal} ends the server, which is started again"));
        self.process.restart(killed)?;
        self.peers.clear();
        self.watch = Connection::open(self.process.server.address(), self.process.cores);
        let rows = self.watch.list("show jobs")?;
        self.model.restart(killed, self.process.server.pid(), &rows)
    }

    fn compare(
        &mut self,
        place: Place,
        deed: &Deed,
        received: BTreeMap<Place, Received>,
        gone: bool,
    ) -> Checked<()> {
        self.model.begin(place, received);
        if let Deed::Send { requests, .. } = deed {
            for request in requests {
                let answered = self.model.handle(place, request);
                answered.map_err(|e| format!("answering {request}: {e}"))?;
            }
        }
        if gone {
            if !matches!(deed, Deed::Close { .. }) {
                self.model.expect_end()?;
            }
            self.model.leave(place);
        }
        self.model.end()
    }

    fn deed(&mut self, place: Place) -> Deed {
        let Some((_, role)) = self.peers.get(&place) else { return Deed::Open };
        let role = *role;
        match self.chance.rng.u32(..200) {
            0 => return Deed::Break(self.chance.nonsense()),
            1 | 2 => return Deed::Close { reset: self.chance.rng.bool() },
            _ => {}
        }
        let fin = self.chance.once_in(150);
        let several = self.may_pipeline && self.chance.once_in(8);
        let count = if several { self.chance.rng.usize(2..7) } else { 1 };
        let own = self.model.running_at(place);
        let live = self.model.live_handles();
        let all = self.model.all_handles();
        let handles = Handles { own: &own, live: &live, all };
        let mut requests: Vec<Request> =
            (0..count).map(|_| self.chance.request(role, &handles)).collect();
        // What is larger than a buffer may be dealt with in two batches.
        if requests.len() > 1 {
            requests.retain(|request| request.bytes().len() < 2000);
        }
        Deed::Send { requests, fin }
    }

    fn connection(&mut self, place: Place) -> &mut Connection {
        &mut self.peers.get_mut(&place).expect("an open connection").0
    }

    /// Barriers on all connections, the acting one first, until all that it did is done with.
    fn rest(&mut self, place: Place) -> Checked<BTreeMap<Place, Received>> {
        let mut order: Vec<Place> = self.peers.keys().copied().collect();
        order.sort_by_key(|&other| other != place);
        // What one core tells a second one because of a third one's letter comes a round later.
        let threads = self.process.cores > 1 || self.model.is_of_gearmand();
        let rounds = if threads { 2 } else { 1 };
        // A wake-up is written behind the answers of its batch, which the first barrier may be of.
        if self.peers.contains_key(&place) {
            self.connection(place).barrier().map_err(|e| format!("c{place}: {e}"))?;
        }
        for _ in 0..rounds {
            for &place in &order {
                self.connection(place).barrier().map_err(|e| format!("c{place}: {e}"))?;
            }
        }
        Ok(self.take())
    }

    fn take(&mut self) -> BTreeMap<Place, Received> {
        let peers = self.peers.iter_mut();
        peers.map(|(&place, (peer, _))| (place, Received::of(peer.take()))).collect()
    }

    /// Between cores, a wake-up may take as long as a letter.
    fn wait_for_wake_ups(&mut self) -> Checked<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(sentence) = self.model.job_beside_a_sleeper() {
            let at_once = self.process.cores == 1 && !self.model.is_of_gearmand();
            if at_once || Instant::now() > deadline {
                return Err(sentence);
            }
            for (place, (peer, _)) in &mut self.peers {
                peer.barrier().map_err(|e| format!("c{place}: {e}"))?;
            }
            let later = self.take();
            self.model.later(later)?;
        }
        Ok(())
    }
}
