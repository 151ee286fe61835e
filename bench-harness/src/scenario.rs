//! What is measured: the scenarios of the design, each with the load that makes it.

pub(crate) use loadgen::options::Options as Load;

/// How a scenario is run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// By the load generator with these options, or its like for another protocol.
    Load(&'static str),
    /// Likewise, at a fixed rate, so that the latency is what counts.
    Open(&'static str),
    /// Fill a queue without workers to each of these depths, then drain it.
    QueueDepth(&'static [u64]),
    /// Send payloads of these sizes there and back, each so often.
    Large(&'static [(u64, u64)]),
    /// By the load generator from so many connections, one after the other.
    Connections(&'static [usize]),
    /// By the load generator against servers on so many cores, one after the other.
    Cores(&'static str, &'static [usize]),
    /// Store jobs before the answer, in several ways, and so many for a restart.
    Durable(u64),
    /// Several loads, plain and over TLS: so many sleeping connections, so many large payloads.
    Tls(usize, u64),
    /// Loads while the server is looked at by HTTP, and so many jobs that come in that way.
    Http(u64),
    /// Loads with and without policies, while runs fail, and beside so many dead letters.
    Retries(usize),
    /// Commands that do nothing, by so many workers of each runner.
    Manager(usize),
    /// Loads whose connections have Nagle's algorithm on and write packets or parts of them apart,
    /// by a client with a worker, and by so many.
    Nagle(usize),
}

/// Something to be measured: its name in options and tables, and what happens, for readers of the
/// results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) work: Work,
    /// The same, short and small.
    pub(crate) quick: Work,
}

const MIB: u64 = 1 << 20;

/// All scenarios, in the order of the tables.
pub(crate) const ALL: [Scenario; 23] = [
    load("steady", "50 clients, 8 workers, foreground, 64 bytes", STEADY),
    load("mid", "500 clients, 50 workers, foreground, 64 bytes", "--clients=500 --workers=50"),
    load(
        "crowd",
        "5000 clients, 200 workers, foreground, 64 bytes",
        "--clients=5000 --workers=200",
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
        work: Work::Load("--mode=background --workers=0 --pipeline=16 --jobs=1000000"),
        quick: Work::Load("--mode=background --workers=0 --pipeline=16 --jobs=50000"),
    },
    load(
        "busy",
        "200 clients, 50 workers, foreground, 16 in flight each, over 20 functions",
        "--clients=200 --workers=50 --pipeline=16 --functions=20",
    ),
    Scenario {
        name: "deep",
        what: "background jobs with unique keys pile up without workers, then are drained",
        work: Work::QueueDepth(&[10_000, 100_000, 1_000_000]),
        quick: Work::QueueDepth(&[10_000]),
    },
    load("herd", "1000 sleeping workers, 10 clients, foreground", "--clients=10 --workers=1000"),
    load(
        "functions",
        "steady, with 20 000 functions at each worker, the busy one in the middle",
        "--extra-functions=20000",
    ),
    Scenario {
        name: "latency",
        what: "steady as an open loop, at a quarter of what gearmand manages",
        work: Work::Open(STEADY),
        quick: Work::Open(STEADY),
    },
    load("body-8k", "50 clients, 8 workers, foreground, 8 KiB there and back", "--size=8k"),
    load("body-100k", "50 clients, 8 workers, foreground, 100 KiB there and back", "--size=100k"),
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
        "--clients=1024 --workers=256 --functions=128 --dedicated",
    ),
    cores(
        "cores-busy",
        "the same with 16 jobs in flight for each client",
        "--clients=1024 --workers=256 --functions=128 --dedicated --pipeline=16",
    ),
    cores(
        "cores-all",
        "1024 clients, 256 workers, foreground, 64 bytes, 128 functions, all of them at each \
         connection",
        "--clients=1024 --workers=256 --functions=128",
    ),
    cores(
        "cores-one",
        "1024 clients, 256 workers, foreground, 64 bytes, one function, which is one core's",
        "--clients=1024 --workers=256",
    ),
    Scenario {
        name: "durable",
        what: "50 clients, background, each job with a unique key, on disk before the answer; \
               steady beside a client with 64 of them in flight; a start with 1 million of them",
        work: Work::Durable(1_000_000),
        quick: Work::Durable(10_000),
    },
    Scenario {
        name: "tls",
        what: "plain and over TLS 1.3: steady; 64 MiB there and back, one at a time; 5000 \
               connections that sleep; connections that connect, ask for an echo and close, where \
               jobs are connections, with full handshakes unless they are resumed",
        work: Work::Tls(5000, 10),
        quick: Work::Tls(500, 2),
    },
    Scenario {
        name: "http",
        what: "steady over 1000 functions, and over one of 20 001, without HTTP and with it: \
               unused, with a scrape a second (of gearmand the text command status), with 100 \
               viewers of the page; background submissions of 50 clients one at a time, by packets \
               and by HTTP; memory of an idle server",
        work: Work::Http(200_000),
        quick: Work::Http(5000),
    },
    Scenario {
        name: "retries",
        what: "steady without policies, with one while nothing fails, and while four of five runs \
               fail and are repeated after 1 ms (figures by run); steady beside 100 000 dead \
               letters, and beside their requeue",
        work: Work::Retries(100_000),
        quick: Work::Retries(2000),
    },
    Scenario {
        name: "manager",
        what: "commands as workers, 4 at a time: `true` by gearman -w and by ringgear-manager in \
               mode exec, a process of Perl that answers each line in mode lines; 12 clients, \
               foreground, empty payloads",
        work: Work::Manager(4),
        quick: Work::Manager(4),
    },
    Scenario {
        name: "nagle",
        what: "connections with Nagle's algorithm on, and the same with TCP_NODELAY: a client with \
               a worker that writes its result and its next GRAB_JOB apart, a client that writes a \
               packet's header and body apart with a worker that doesn't, foreground, one job at a \
               time, 64 bytes; the first of these jobs, and 50 such workers with 50 clients",
        work: Work::Nagle(50),
        quick: Work::Nagle(10),
    },
];

/// About how long a server takes to start and a load to connect and to end, in seconds.
const BESIDE_S: f64 = 0.7;

impl Work {
    /// About how long one contender takes, in seconds, where a sample is measured for `measured_s`
    /// behind its warm-up. Kinds that end with their jobs are taken to be as fast as most are.
    pub(crate) fn seconds(self, measured_s: f64, warm_up_s: f64) -> f64 {
        let each = warm_up_s + measured_s + BESIDE_S;
        match self {
            Self::Load(words) if words.contains("--jobs=") => 3.0 + BESIDE_S,
            Self::Load(_) | Self::Open(_) => each,
            Self::QueueDepth(depths) => {
                depths.iter().map(|&depth| BESIDE_S + depth as f64 / 1e5).sum()
            }
            Self::Large(sizes) => {
                sizes.iter().map(|&(bytes, count)| BESIDE_S + (bytes * count) as f64 / 5e8).sum()
            }
            Self::Connections(counts) => {
                counts.iter().map(|&count| each + count as f64 / 5e3).sum()
            }
            Self::Cores(_, counts) => counts.len() as f64 * each,
            Self::Durable(jobs) => 6.0 * each + jobs as f64 / 1e5,
            Self::Tls(_, payloads) => 8.0 * each + payloads as f64,
            Self::Manager(_) => 3.0 * each,
            Self::Nagle(_) => 6.0 * each + 2.0 * (BESIDE_S + 1.4),
            Self::Retries(letters) => 5.0 * each + letters as f64 / 2e4,
            Self::Http(jobs) => 10.0 * each + jobs as f64 / 2e4,
        }
    }
}

/// The load generator's defaults: 50 clients with a foreground job of 64 bytes in flight each, 8
/// workers, one function.
pub(crate) const STEADY: &str = "";

const fn cores(name: &'static str, what: &'static str, plan: &'static str) -> Scenario {
    let work = Work::Cores(plan, &[1, 2, 4, 8]);
    Scenario { name, what, work, quick: Work::Cores(plan, &[1, 2]) }
}

const fn load(name: &'static str, what: &'static str, plan: &'static str) -> Scenario {
    Scenario { name, what, work: Work::Load(plan), quick: Work::Load(plan) }
}

/// The load that options of the load generator make.
pub(crate) fn plan(words: &str) -> Result<Load, loadgen::Error> {
    Load::of_words(words.split_whitespace())
}

impl Scenario {
    /// How it is run, short and small or as it is.
    pub(crate) fn work(&self, quick: bool) -> Work {
        if quick { self.quick } else { self.work }
    }

    /// Whether jobs go to disk.
    pub(crate) fn stores(&self) -> bool {
        matches!(self.work, Work::Durable(_))
    }

    /// Whether it gives the server more and more cores, by its name.
    pub(crate) fn is_of_cores(name: &str) -> bool {
        name.starts_with("cores-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_plans_are_options_of_the_load_generator() {
        for scenario in ALL {
            for work in [scenario.work, scenario.quick] {
                assert!((0.5..600.0).contains(&work.seconds(10.0, 1.0)), "{work:?}");
                if let Work::Load(words) | Work::Open(words) | Work::Cores(words, _) = work {
                    plan(words).unwrap().check().unwrap();
                }
            }
        }
    }
}
