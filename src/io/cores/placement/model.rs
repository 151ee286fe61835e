//! Placement in a closed loop, with a model of what jobs cost: windows in, jobs a second out.
//!
//! Each client waits for its job before it submits the next. A job costs the core that has its
//! client's socket, the one that has its worker's, and, where these aren't the owner of its
//! function, messages on either side. Queueing is that of a closed network (Schweitzer's
//! approximation), utilization is what follows, with some noise. Moves are those that the functions
//! of the module above allow, as the shards make them.
//!
//! Invariant: the same seed gives the same moves.

use super::{accepting_cores, offload_target};
use crate::io::cores::gauges::{Gauges, Load};
use crate::io::cores::utilization::{Utilization, WINDOW_MS};

/// What the sockets of a client and of a worker cost for a job, in microseconds.
const CLIENT_US: f64 = 12.0;
const WORKER_US: f64 = 12.0;
/// What a job costs its owner in any case.
const ENGINE_US: f64 = 1.0;
/// What messages cost for a job whose client, or worker, is elsewhere: at the owner, and there.
const OWNER_US: f64 = 1.0;
const HOME_US: f64 = 2.0;
/// Connections of a core that would move to the core of their jobs and act within a window.
const MOVES_MAX: usize = 16;
const CONNECTIONS_MAX: usize = 100_000;

/// Connections of one kind (clients or workers) of one function, by the core that has them.
type Placed = Vec<usize>;

struct Model {
    gauges: Vec<Gauges>,
    owners: Vec<usize>,
    clients: Vec<Placed>,
    workers: Vec<Placed>,
    /// How long a client waits before its next job, in microseconds.
    think_us: f64,
    random: fastrand::Rng,
    now_ms: u64,
    moved: usize,
}

impl Model {
    /// Connections are on all cores alike, as they are accepted.
    fn new(cores: usize, functions: usize, (clients, workers): (usize, usize)) -> Self {
        let spread = |count: usize, shift: usize| -> Placed {
            let at = |core: usize| (core + shift) % cores;
            (0..cores).map(|core| count / cores + usize::from(at(core) < count % cores)).collect()
        };
        let of = |count: usize| (0..functions).map(|it| spread(count / functions, it)).collect();
        Self {
            gauges: Gauges::of(cores),
            owners: (0..functions).map(|function| function % cores).collect(),
            clients: of(clients),
            workers: of(workers),
            think_us: 0.0,
            random: fastrand::Rng::with_seed(7),
            now_ms: 1000,
            moved: 0,
        }
    }

    fn cores(&self) -> usize {
        self.gauges.len()
    }

    fn connections(&self, core: usize) -> usize {
        self.clients.iter().chain(&self.workers).map(|placed| placed[core]).sum()
    }

    /// What a job of a function costs each core, in microseconds.
    fn demand(&self, function: usize) -> Vec<f64> {
        let mut demand = vec![0.0; self.cores()];
        demand[self.owners[function]] += ENGINE_US;
        for (placed, socket_us) in
            [(&self.clients[function], CLIENT_US), (&self.workers[function], WORKER_US)]
        {
            let all = placed.iter().sum::<usize>().max(1) as f64;
            for (core, &count) in placed.iter().enumerate() {
                let part = count as f64 / all;
                demand[core] += part * socket_us;
                if core != self.owners[function] {
                    demand[core] += part * HOME_US;
                    demand[self.owners[function]] += part * OWNER_US;
                }
            }
        }
        demand
    }

    /// Jobs a second, and how busy each core is, from 0 to 1.
    fn throughput(&self) -> (f64, Vec<f64>) {
        let demands: Vec<Vec<f64>> = (0..self.owners.len()).map(|it| self.demand(it)).collect();
        let clients: Vec<f64> =
            self.clients.iter().map(|placed| placed.iter().sum::<usize>() as f64).collect();
        let cores = self.cores();
        let mut queued: Vec<Vec<f64>> =
            clients.iter().map(|count| vec![count / cores as f64; cores]).collect();
        let mut rates = vec![0.0; clients.len()];
        for _ in 0..200 {
            let sums: Vec<f64> =
                (0..cores).map(|core| queued.iter().map(|it| it[core]).sum()).collect();
            for (function, demand) in demands.iter().enumerate() {
                let own = &mut queued[function];
                let waits =
                    |core: usize| demand[core] * (1.0 + sums[core] - own[core] / clients[function]);
                let waited: Vec<f64> = (0..cores).map(waits).collect();
                rates[function] = clients[function] / (self.think_us + waited.iter().sum::<f64>());
                *own = waited.iter().map(|us| us * rates[function]).collect();
            }
        }
        let load = |core: usize| rates.iter().zip(&demands).map(|(rate, it)| rate * it[core]).sum();
        let mut loads: Vec<f64> = (0..cores).map(load).collect();
        // The approximation may have a core do somewhat more than it can.
        let most = loads.iter().copied().fold(1.0, f64::max);
        loads.iter_mut().for_each(|load| *load /= most);
        (rates.iter().sum::<f64>() / most * 1e6, loads)
    }

    /// A window passes: cores publish, and connections move.
    fn window(&mut self) {
        self.now_ms += WINDOW_MS;
        let (_, loads) = self.throughput();
        for (core, load) in loads.into_iter().enumerate() {
            let noise = 1.0 + (self.random.f64() - 0.5) * 0.04;
            let thousandths = (load * noise * 1000.0).clamp(0.0, 1000.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
            let utilization = thousandths as Utilization;
            self.gauges[core].publish_utilization(utilization, self.now_ms);
            self.publish(core);
        }
        for core in 0..self.cores() {
            if let Some((to, count)) =
                offload_target(&self.gauges[core], CONNECTIONS_MAX, self.now_ms)
            {
                let left = (0..count).filter(|_| self.move_one(core, to, |owner| owner == core));
                self.moved += left.count();
            }
        }
        for core in 0..self.cores() {
            for _ in 0..MOVES_MAX {
                let accepting = accepting_cores(&self.gauges[core], CONNECTIONS_MAX, self.now_ms);
                let Some(to) = accepting
                    .iter()
                    .find(|&to| to != core && self.move_one(core, to, |owner| owner == to))
                else {
                    break;
                };
                self.publish(to);
                self.moved += 1;
            }
        }
    }

    fn publish(&self, core: usize) {
        let connections = self.connections(core);
        self.gauges[core].publish(Load { connections, ..Load::default() });
    }

    /// Moves any connection whose function's owner is one of these; `false` if there is none.
    fn move_one(&mut self, from: usize, to: usize, is_owner: impl Fn(usize) -> bool) -> bool {
        let functions = self.owners.len();
        let first = self.random.usize(..functions);
        for function in (first..functions).chain(0..first) {
            if !is_owner(self.owners[function]) {
                continue;
            }
            let (clients, workers) = (&mut self.clients[function], &mut self.workers[function]);
            let all = clients[from] + workers[from];
            if all > 0 {
                let is_client = self.random.usize(..all) < clients[from];
                let placed = if is_client { clients } else { workers };
                placed[from] -= 1;
                placed[to] += 1;
                return true;
            }
        }
        false
    }

    fn run(&mut self, windows: usize) {
        (0..windows).for_each(|_| self.window());
    }

    /// Jobs a second on the average of so many windows.
    fn rate_over(&mut self, windows: usize) -> f64 {
        let rates = (0..windows).map(|_| {
            self.window();
            self.throughput().0
        });
        rates.sum::<f64>() / windows as f64
    }
}

/// The most jobs a second that any number of an owner's own connections allows, all others being
/// spread alike over the other cores.
fn best_rate(cores: usize, (clients, workers): (usize, usize)) -> f64 {
    let rate = |kept: usize| {
        let mut model = Model::new(cores, 1, (clients, workers));
        for (placed, count) in [(&mut model.clients[0], clients), (&mut model.workers[0], workers)]
        {
            let own = count * kept / 100;
            let others = cores - 1;
            *placed = (0..cores)
                .map(|core| match core {
                    0 => own,
                    _ => (count - own) / others + usize::from(core <= (count - own) % others),
                })
                .collect();
        }
        model.throughput().0
    };
    (0..=100).map(rate).fold(0.0, f64::max)
}

const LOAD: (usize, usize) = (1024, 256);

#[test]
fn the_core_of_one_busy_function_gives_its_connections_away() {
    for cores in [2, 4, 8] {
        let mut model = Model::new(cores, 1, LOAD);
        model.run(40);
        let (best, rate) = (best_rate(cores, LOAD), model.rate_over(40));
        assert!(rate > 0.93 * best, "{cores} cores: {rate:.0} jobs/s of {best:.0}");
        let moved = model.moved;
        model.run(200);
        assert_eq!(model.moved, moved, "{cores} cores: it has come to rest");
    }
}

#[test]
fn connections_of_many_functions_are_at_the_cores_of_their_jobs() {
    let mut model = Model::new(8, 128, LOAD);
    model.run(100);
    let rate = model.rate_over(40);
    let at_home: usize = (0..128)
        .map(|it| model.clients[it][model.owners[it]] + model.workers[it][model.owners[it]])
        .sum();
    let ideal = 8e6 / (CLIENT_US + WORKER_US + ENGINE_US);
    assert!(rate > 0.9 * ideal, "{rate:.0} jobs/s of {ideal:.0}");
    assert!(at_home * 10 > 9 * (LOAD.0 + LOAD.1), "{at_home} connections");
}

#[test]
fn nothing_moves_for_long_in_a_calm_server() {
    let mut model = Model::new(8, 1, LOAD);
    model.think_us = 40_000.0;
    model.run(100);
    let before = (model.moved, model.connections(0));
    model.run(200);
    assert_eq!((model.moved, model.connections(0)), before);
    assert!(before.1 >= (LOAD.0 + LOAD.1) / 8, "the owner keeps those that it accepted");
}
