//! Cores, their letters and their workers as one value, and what can happen to it.
//!
//! A core is the home of some workers and owns one function, so "a job of core B" stands for a job
//! of any function that B owns. Letters between two cores stay in order and take as long as they
//! like. Knows the parts of the protocol by name, and none of the rules.
//!
//! Invariant: the scenario says what is there and how often the outside may interfere; the state
//! says how far that has come.

use crate::step;

/// Where jobs are and workers connect.
pub(crate) type Core = usize;
/// A worker's connection, by number.
pub(crate) type Worker = usize;
/// A job, by number.
pub(crate) type Job = usize;
/// A set of priorities, one bit each; bit 0 is the most urgent one.
pub(crate) type Mask = u8;

/// A part of the protocol that can be left out, to see what it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The owner looks for a job when a worker falls asleep.
    LookBeforeSleep,
    /// A worker whose home has a hint isn't put to sleep.
    HintsForbidSleep,
    /// A NOOP that comes too late is declined.
    Decline,
    /// A lease that ends wakes the next sleeper.
    NextSleeper,
    /// A worker that gets its job elsewhere gives its lease back.
    GiveBack,
    /// A NOOP brings along which priorities have jobs.
    NoopHints,
    /// After a grab that found nothing the owner tells of the next job again.
    EmptyForgets,
    /// The answer to a grab that found a job says which priorities have more, too.
    AssignedHints,
    /// Letters for a connection that is gone don't reach the next one of its number.
    Sessions,
    /// Jobs of a worker that has gone go back to their queue.
    Requeue,
    /// Letters about sleepers are saved: no hints for them, and no second letter about a sleep
    /// that the owner still believes in.
    Thrift,
}

/// What happens within a scenario.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) cores: usize,
    /// Each worker's home and the cores whose jobs it can run.
    pub(crate) workers: Vec<(Core, Vec<Core>)>,
    /// Each job's core and priority; they come in this order, at any time.
    pub(crate) jobs: Vec<(Core, u8)>,
    /// How many times a connection is lost; it comes back.
    pub(crate) losses: u8,
    /// How many times a worker withdraws an ability.
    pub(crate) withdrawals: u8,
    /// How many times a worker grabs though it sleeps, or sleeps though it was woken.
    pub(crate) whims: u8,
    /// Whether leases may run out.
    pub(crate) timers: bool,
    pub(crate) without: Vec<Rule>,
}

impl Scenario {
    pub(crate) fn has(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }
}

/// What travels between cores. Behind the worker where it matters: its session; behind that, what
/// it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Letter {
    // From a worker's home.
    CanDo(Worker, u8),
    CantDo(Worker),
    Grab(Worker, u8, u8),
    Sleep(Worker),
    Declined(Worker),
    Complete(Worker, Job),
    // From the owner of jobs.
    Hint(Worker, u8, Mask),
    Noop(Worker, u8, Mask),
    Assigned(Worker, u8, Job, Mask),
    Empty(Worker, u8, Mask),
}

/// What a worker is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Will grab.
    Ready,
    /// Has grabbed; its home has asked this core.
    Waiting(Core),
    /// Got NO_JOB, will send PRE_SLEEP.
    Idle,
    /// Waits for a NOOP.
    Asleep,
    Working(Job),
    /// Not connected.
    Gone,
}

/// A worker, and what its home knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Home {
    pub(crate) phase: Phase,
    pub(crate) session: u8,
    /// By core: its jobs can be run.
    pub(crate) able: Vec<bool>,
    /// By core: priorities that may have jobs.
    pub(crate) hints: Vec<Mask>,
    /// By core: it was told of a sleep and neither woke the worker nor was asked since.
    pub(crate) told: Vec<bool>,
    /// The core whose NOOP woke the worker, until that has asked it or got a job.
    pub(crate) woken_by: Option<Core>,
}

/// Whether an owner takes a worker for asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Nap {
    Awake,
    Asleep,
    /// Holds a lease.
    Woken,
}

/// What the owner of jobs knows of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Proxy {
    pub(crate) session: u8,
    pub(crate) nap: Nap,
    /// Priorities that had jobs since the worker last looked in vain.
    pub(crate) ready: Mask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Unsent,
    Queued,
    Running(Worker),
    Done,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// The oldest letter between two cores arrives.
    Deliver(Core, Core),
    /// A worker does what a worker does next.
    Act(Worker),
    Submit(Job),
    LeaseEnds(Core, Worker),
    /// A core is done with all that came together.
    EndBatch(Core),
    Lose(Worker),
    Connect(Worker),
    /// `CANT_DO`, and `CAN_DO` once more.
    Withdraw(Worker, Core),
    Offer(Worker, Core),
    /// A worker grabs in its sleep, or sleeps when woken.
    Whim(Worker),
}

impl Action {
    /// Whether it happens of itself, without clients, workers' failures or whims.
    pub(crate) fn is_inner(self) -> bool {
        matches!(self, Self::Deliver(..) | Self::Act(_) | Self::LeaseEnds(..) | Self::EndBatch(_))
    }
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) homes: Vec<Home>,
    /// By core, then worker.
    pub(crate) proxies: Vec<Vec<Option<Proxy>>>,
    pub(crate) jobs: Vec<Place>,
    /// By core: sleepers are to be looked at when it is done with all that came together.
    pub(crate) stirred: Vec<bool>,
    /// By sender, then receiver, the oldest letter first.
    pub(crate) rings: Vec<Vec<Vec<Letter>>>,
    pub(crate) losses: u8,
    pub(crate) withdrawals: u8,
    pub(crate) whims: u8,
}

impl State {
    /// Workers have just connected and named what they can do.
    pub(crate) fn start(scenario: &Scenario) -> Self {
        let homes = scenario.workers.iter().map(|_| Home {
            phase: Phase::Gone,
            session: 0,
            able: vec![false; scenario.cores],
            hints: vec![0; scenario.cores],
            told: vec![false; scenario.cores],
            woken_by: None,
        });
        let mut state = Self {
            homes: homes.collect(),
            proxies: vec![vec![None; scenario.workers.len()]; scenario.cores],
            jobs: vec![Place::Unsent; scenario.jobs.len()],
            stirred: vec![false; scenario.cores],
            rings: vec![vec![Vec::new(); scenario.cores]; scenario.cores],
            losses: scenario.losses,
            withdrawals: scenario.withdrawals,
            whims: scenario.whims,
        };
        for worker in 0..scenario.workers.len() {
            state = step::after(&state, scenario, Action::Connect(worker)).remove(0);
        }
        state
    }

    /// No letter is on its way, and all cores are done.
    pub(crate) fn is_quiet(&self) -> bool {
        self.rings.iter().flatten().all(Vec::is_empty) && !self.stirred.contains(&true)
    }

    /// What can happen next.
    pub(crate) fn actions(&self, scenario: &Scenario) -> Vec<Action> {
        let mut actions = Vec::new();
        for (from, rings) in self.rings.iter().enumerate() {
            let full = rings.iter().enumerate().filter(|(_, ring)| !ring.is_empty());
            actions.extend(full.map(|(to, _)| Action::Deliver(from, to)));
        }
        for (worker, home) in self.homes.iter().enumerate() {
            match home.phase {
                Phase::Gone => {
                    actions.push(Action::Connect(worker));
                    continue;
                }
                Phase::Ready | Phase::Idle | Phase::Working(_) => actions.push(Action::Act(worker)),
                Phase::Waiting(_) | Phase::Asleep => {}
            }
            if self.losses > 0 {
                actions.push(Action::Lose(worker));
            }
            if self.whims > 0 && matches!(home.phase, Phase::Ready | Phase::Asleep) {
                actions.push(Action::Whim(worker));
            }
            // What a worker sends while its grab is held waits behind it.
            if self.withdrawals > 0 && !matches!(home.phase, Phase::Waiting(_)) {
                let able = (0..scenario.cores).filter(|&core| home.able[core]);
                actions.extend(able.map(|core| Action::Withdraw(worker, core)));
            }
            if scenario.withdrawals > 0 && !matches!(home.phase, Phase::Waiting(_)) {
                let able = scenario.workers[worker].1.iter().filter(|&&core| !home.able[core]);
                actions.extend(able.map(|&core| Action::Offer(worker, core)));
            }
        }
        let stirred = self.stirred.iter().enumerate().filter(|&(_, &stirred)| stirred);
        actions.extend(stirred.map(|(core, _)| Action::EndBatch(core)));
        let next = self.jobs.iter().position(|&place| place == Place::Unsent);
        actions.extend(next.map(Action::Submit));
        if scenario.timers {
            for (core, proxies) in self.proxies.iter().enumerate() {
                let woken = |proxy: &Proxy| proxy.nap == Nap::Woken;
                let leases = proxies.iter().enumerate();
                let leases = leases.filter(|(_, proxy)| proxy.as_ref().is_some_and(woken));
                actions.extend(leases.map(|(worker, _)| Action::LeaseEnds(core, worker)));
            }
        }
        actions
    }

    /// Every state that an action can lead to.
    pub(crate) fn after(&self, scenario: &Scenario, action: Action) -> Vec<Self> {
        step::after(self, scenario, action)
    }

    pub(crate) fn leases(&self, core: Core) -> impl Iterator<Item = Worker> {
        let proxies = self.proxies[core].iter().enumerate();
        let woken = |proxy: &Proxy| proxy.nap == Nap::Woken;
        proxies.filter(move |(_, proxy)| proxy.as_ref().is_some_and(woken)).map(|(at, _)| at)
    }

    pub(crate) fn queued(&self, scenario: &Scenario, core: Core) -> impl Iterator<Item = Job> {
        let jobs = self.jobs.iter().enumerate().zip(&scenario.jobs);
        jobs.filter(move |((_, place), of)| of.0 == core && **place == Place::Queued)
            .map(|((job, _), _)| job)
    }
}
