//! What is measured: the scenarios of the design, each with the load that makes it.

use std::time::Duration;

/// A closed or open loop of small jobs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Connections that submit.
    pub(crate) clients: usize,
    /// Connections that work.
    pub(crate) workers: usize,
    /// Jobs in flight for each client.
    pub(crate) pipeline: usize,
    /// Whether the client waits until the job is kept, and not for its result.
    pub(crate) background: bool,
    /// Payload bytes.
    pub(crate) size: usize,
    /// Functions that jobs are spread over.
    pub(crate) functions: usize,
    /// Whether each connection has to do with one of them only.
    pub(crate) dedicated: bool,
    /// Functions that each worker has besides.
    pub(crate) extra_functions: usize,
    /// Jobs to submit, where it isn't a time that counts.
    pub(crate) jobs: Option<u64>,
    /// Whether jobs come at a fixed rate instead of one after another.
    pub(crate) open: bool,
    /// Jobs of an open loop that come at a time.
    pub(crate) burst: u32,
    /// Whether each job has a unique key of its own, where the protocol has any.
    pub(crate) has_unique: bool,
    /// Start of the functions' names, where not the load generator's own.
    pub(crate) prefix: Option<&'static str>,
}

/// A load and how long it lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Period {
    pub(crate) load: Load,
    /// Jobs a second of an open loop.
    pub(crate) rate: Option<u64>,
    /// Measured time, unless the load says how many jobs.
    pub(crate) duration: Duration,
    /// Time under load before that.
    pub(crate) warm_up: Duration,
}

/// The load that the others are variations of.
pub(crate) const STEADY: Load = Load {
    clients: 50,
    workers: 8,
    pipeline: 1,
    background: false,
    size: 64,
    functions: 1,
    dedicated: false,
    extra_functions: 0,
    jobs: None,
    open: false,
    burst: 1,
    has_unique: false,
    prefix: None,
};

/// How a scenario is run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// By the load generator, or its like for another protocol.
    Load(Load),
    /// Fill a queue without workers to each of these depths, then drain it.
    QueueDepth(&'static [u64]),
    /// Send payloads of these sizes there and back, each so often.
    Large(&'static [(u64, u64)]),
    /// By the load generator from so many connections, one after the other.
    Connections(&'static [usize]),
    /// By the load generator against servers on so many cores, one after the other.
    Cores(Load, &'static [usize]),
    /// Store jobs before the answer, in several ways, and so many for a restart.
    Durable(u64),
}

/// Something to be measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// Its name in options and tables.
    pub(crate) name: &'static str,
    /// What happens, for readers of the results.
    pub(crate) what: &'static str,
    /// How it is run.
    pub(crate) work: Work,
    /// The same, short and small.
    pub(crate) quick: Work,
}

const MIB: u64 = 1 << 20;

/// All scenarios, in the order of the tables.
pub(crate) const ALL: [Scenario; 18] = [
    load("steady", "50 clients, 8 workers, foreground, 64 bytes", STEADY),
    load(
        "mid",
        "500 clients, 50 workers, foreground, 64 bytes",
        Load { clients: 500, workers: 50, ..STEADY },
    ),
    load(
        "crowd",
        "5000 clients, 200 workers, foreground, 64 bytes",
        Load { clients: 5000, workers: 200, ..STEADY },
    ),
    Scenario {
        name: "crowd50k",
        what: "500, 5000 and 50 000 connections, one in 50 of them a worker, each client with a \
               job in flight, foreground, 64 bytes; the last with 5 s of warm-up",
        work: Work::Connections(&[500, 5000, 50_000]),
        quick: Work::Connections(&[50, 500]),
    },
    Scenario {
        name: "flood",
        what: "50 clients, 16 background submits in flight each, 1 million jobs, no workers",
        work: Work::Load(Load { jobs: Some(1_000_000), ..FLOOD }),
        quick: Work::Load(Load { jobs: Some(50_000), ..FLOOD }),
    },
    load(
        "busy",
        "200 clients, 50 workers, foreground, 16 in flight each, over 20 functions",
        Load { clients: 200, workers: 50, pipeline: 16, functions: 20, ..STEADY },
    ),
    Scenario {
        name: "deep",
        what: "background jobs with unique keys pile up without workers, then are drained",
        work: Work::QueueDepth(&[10_000, 100_000, 1_000_000]),
        quick: Work::QueueDepth(&[10_000]),
    },
    load(
        "herd",
        "1000 sleeping workers, 10 clients, foreground",
        Load { clients: 10, workers: 1000, ..STEADY },
    ),
    load(
        "functions",
        "steady, with 20 000 functions at each worker, the busy one in the middle",
        Load { extra_functions: 20_000, ..STEADY },
    ),
    load(
        "latency",
        "steady as an open loop, at a quarter of what gearmand manages",
        Load { open: true, ..STEADY },
    ),
    load(
        "body-8k",
        "50 clients, 8 workers, foreground, 8 KiB there and back",
        Load { size: 8 << 10, ..STEADY },
    ),
    load(
        "body-100k",
        "50 clients, 8 workers, foreground, 100 KiB there and back",
        Load { size: 100 << 10, ..STEADY },
    ),
    Scenario {
        name: "large",
        what: "large payloads to a worker and back as its result, one at a time",
        work: Work::Large(&[(MIB, 500), (16 * MIB, 30), (64 * MIB, 10), (1024 * MIB, 1)]),
        quick: Work::Large(&[(MIB, 20), (16 * MIB, 2)]),
    },
    cores(
        "cores-own",
        "1024 clients, 256 workers, foreground, 64 bytes, 128 functions, of which each connection \
         has one",
        Load { functions: 128, dedicated: true, ..CORES },
    ),
    cores(
        "cores-busy",
        "the same with 16 jobs in flight for each client",
        Load { functions: 128, dedicated: true, pipeline: 16, ..CORES },
    ),
    cores(
        "cores-all",
        "1024 clients, 256 workers, foreground, 64 bytes, 128 functions, all of them at each \
         connection",
        Load { functions: 128, ..CORES },
    ),
    cores(
        "cores-one",
        "1024 clients, 256 workers, foreground, 64 bytes, one function, which is one core's",
        CORES,
    ),
    Scenario {
        name: "durable",
        what: "50 clients, background, each job with a unique key, on disk before the answer; \
               steady beside a client with 64 of them in flight; a start with 1 million of them",
        work: Work::Durable(1_000_000),
        quick: Work::Durable(10_000),
    },
];

/// Background jobs that nobody takes.
pub(crate) const FLOOD: Load =
    Load { clients: 50, workers: 0, pipeline: 16, background: true, ..STEADY };

/// Enough connections for several cores.
const CORES: Load = Load { clients: 1024, workers: 256, ..STEADY };

const fn cores(name: &'static str, what: &'static str, load: Load) -> Scenario {
    let work = Work::Cores(load, &[1, 2, 4, 8]);
    Scenario { name, what, work, quick: Work::Cores(load, &[1, 2]) }
}

const fn load(name: &'static str, what: &'static str, load: Load) -> Scenario {
    Scenario { name, what, work: Work::Load(load), quick: Work::Load(load) }
}

impl Scenario {
    /// Whether jobs go to disk.
    pub(crate) fn stores(&self) -> bool {
        matches!(self.work, Work::Durable(_))
    }

    /// Whether it gives the server more and more cores, by its name.
    pub(crate) fn is_of_cores(name: &str) -> bool {
        name.starts_with("cores-")
    }

    /// Whether jobs come at a fixed rate, so that their latency is what counts.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.work, Work::Load(Load { open: true, .. }))
    }
}
