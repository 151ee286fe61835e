//! What there is at the start, and what may happen.
//!
//! A scenario in plain values: cores, peers with their functions, jobs in the order in which they
//! come, how often the outside may interfere. Knows no shard.
//!
//! Invariant: a scenario never changes; how much of it has happened is the cluster's.

use ringgear::shard::cores::{Core, Cores};

/// A peer, by number; also the descriptor of its connection.
pub(crate) type PeerId = usize;
/// A function, by number: it belongs to the core of that number modulo the number of cores.
pub(crate) type Function = usize;
/// A job, by number; also its payload.
pub(crate) type Job = usize;

/// A connection's peer: a worker if it has functions, a client if jobs name it.
#[derive(Clone, Debug)]
pub(crate) struct PeerSpec {
    /// The core that it connects to.
    pub(crate) core: Core,
    pub(crate) functions: Vec<Function>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct JobSpec {
    pub(crate) client: PeerId,
    pub(crate) function: Function,
    /// 0 is the most urgent one.
    pub(crate) priority: u8,
    /// The client waits for the outcome.
    pub(crate) foreground: bool,
}

/// A change that the cluster makes to messages on their arrival, or something that it never does: a
/// rule is left out from outside the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `Declined` is lost.
    DropDeclined,
    /// `Sleep` is lost.
    DropSleep,
    /// `Noop` is lost.
    DropNoop,
    /// `Hint` is lost.
    DropHint,
    /// `Noop` and `Assigned` say nothing of the priorities that have jobs.
    StripReady,
    /// Every message to a connection's home has the session of the connection that is there now.
    OldAsNew,
    /// The packet in `Push` is lost: what came for a connection while it moved.
    DropPush,
    /// Leases don't end by time.
    NeverTick,
    /// `MigrationCancelled` is lost.
    DropCancelled,
    /// `SettledIn` says that the worker is awake.
    OffloadedAwake,
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) cores: usize,
    pub(crate) peers: Vec<PeerSpec>,
    pub(crate) jobs: Vec<JobSpec>,
    /// How many times a worker's connection is lost; it connects again.
    pub(crate) losses: u8,
    /// How many times a worker sends `CANT_DO`; `CAN_DO` may follow.
    pub(crate) withdrawals: u8,
    /// How many times a worker grabs though it sleeps, or sleeps though it could grab.
    pub(crate) whims: u8,
    /// How many workers stop for good when they should grab.
    pub(crate) hangs: u8,
    /// Whether leases end by time.
    pub(crate) timers: bool,
    /// `Settings::move_after`.
    pub(crate) move_after: u32,
    /// How many times a core is told to let a connection go to the next core.
    pub(crate) offloads: u8,
    /// How many times a connection can't be handed over.
    pub(crate) stays: u8,
    /// Most events of a batch.
    pub(crate) batch_max: u8,
    pub(crate) fault: Option<Fault>,
}

impl Scenario {
    /// Workers, each with its core and functions; jobs, each with the core of its client, its
    /// function and its priority. There is a client for each core that jobs name.
    pub(crate) fn new(
        cores: usize,
        workers: &[(Core, &[Function])],
        jobs: &[(Core, Function, u8)],
    ) -> Self {
        let worker = |&(core, functions): &(Core, &[Function])| PeerSpec {
            core,
            functions: functions.to_vec(),
        };
        let mut scenario = Self {
            cores,
            peers: workers.iter().map(worker).collect(),
            jobs: Vec::new(),
            losses: 0,
            withdrawals: 0,
            whims: 0,
            hangs: 0,
            timers: false,
            move_after: 0,
            offloads: 0,
            stays: 0,
            batch_max: u8::MAX,
            fault: None,
        };
        for &(core, function, priority) in jobs {
            let clients = scenario.peers.iter().enumerate().skip(workers.len());
            let found = clients.map(|(id, _)| id).find(|&id| scenario.peers[id].core == core);
            let client = found.unwrap_or(scenario.peers.len());
            if found.is_none() {
                scenario.peers.push(PeerSpec { core, functions: Vec::new() });
            }
            scenario.jobs.push(JobSpec { client, function, priority, foreground: false });
        }
        scenario
    }

    /// The same with jobs whose clients wait for the outcome.
    pub(crate) fn in_foreground(mut self) -> Self {
        self.jobs.iter_mut().for_each(|job| job.foreground = true);
        self
    }

    /// The same with all jobs submitted by a worker.
    pub(crate) fn submitted_by(mut self, worker: PeerId) -> Self {
        self.jobs.iter_mut().for_each(|job| job.client = worker);
        let is_client = |id: PeerId| self.jobs.iter().any(|job| job.client == id);
        while let Some(last) = self.peers.len().checked_sub(1)
            && self.peers[last].functions.is_empty()
            && !is_client(last)
        {
            self.peers.pop();
        }
        self
    }

    /// The name of a function: one that the server deals to the core that it belongs to here.
    pub(crate) fn name(&self, function: Function) -> String {
        let cores = Cores { own: 0, count: self.cores };
        let core = function % self.cores;
        let mut names =
            (0..).map(|n| format!("f{n}")).filter(|name| cores.owner_of(name.as_bytes()) == core);
        names.nth(function / self.cores).unwrap()
    }
}
