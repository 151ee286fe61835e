//! Cores, their letters and their workers as one value, and every step that can be taken from it.
//!
//! A core is the home of some workers and owns one function, so "a job of core B" stands for a job
//! of any function that B owns. Letters between two cores stay in order and take as long as they
//! like; those of a core to itself are handled within the step. What the rules leave open (which
//! sleeper, which of two equal cores) is tried in all ways. Knows nothing of searching.
//!
//! Invariant: a step is a function of the state, the action and the choices made on its way.

use std::collections::VecDeque;

/// Where jobs are and workers connect.
pub type Core = usize;
/// A worker's connection, by number.
pub type Worker = usize;
/// A job, by number.
pub type Job = usize;
/// A set of priorities, one bit each; bit 0 is the most urgent one.
pub type Mask = u8;

/// A part of the protocol that can be left out, to see what it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
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
    /// The answer to a grab that found a job says which priorities have more.
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
pub struct Scenario {
    pub cores: usize,
    /// Each worker's home and the cores whose jobs it can run.
    pub workers: Vec<(Core, Vec<Core>)>,
    /// Each job's core and priority; they come in this order, at any time.
    pub jobs: Vec<(Core, u8)>,
    /// How many times a connection is lost; it comes back.
    pub losses: u8,
    /// How many times a worker withdraws an ability.
    pub withdrawals: u8,
    /// How many times a worker grabs though it sleeps, or sleeps though it was woken.
    pub whims: u8,
    /// Whether leases may run out.
    pub timers: bool,
    pub without: Vec<Rule>,
}

impl Scenario {
    pub fn has(&self, rule: Rule) -> bool {
        !self.without.contains(&rule)
    }
}

/// What travels between cores. Behind the worker where it matters: its session; behind that, what
/// it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Letter {
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
pub enum Phase {
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
pub struct Home {
    pub phase: Phase,
    pub session: u8,
    /// By core: its jobs can be run.
    pub able: Vec<bool>,
    /// By core: priorities that may have jobs.
    pub hints: Vec<Mask>,
    /// By core: it was told of a sleep and neither woke the worker nor was asked since.
    pub told: Vec<bool>,
    /// The core whose NOOP woke the worker, until that has asked it or got a job.
    pub woken_by: Option<Core>,
}

/// Whether an owner takes a worker for asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nap {
    Awake,
    Asleep,
    /// Holds a lease.
    Woken,
}

/// What the owner of jobs knows of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proxy {
    pub session: u8,
    pub nap: Nap,
    /// Priorities that had jobs since the worker last looked in vain.
    pub ready: Mask,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    Unsent,
    Queued,
    Running(Worker),
    Done,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The oldest letter between two cores arrives.
    Deliver(Core, Core),
    /// A worker does what a worker does next.
    Act(Worker),
    Submit(Job),
    LeaseEnds(Core, Worker),
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
    pub fn is_inner(self) -> bool {
        matches!(self, Self::Deliver(..) | Self::Act(_) | Self::LeaseEnds(..))
    }
}

/// Answers what the rules leave open; `State::after` goes through all answers.
#[derive(Default)]
struct Choices {
    /// Each choice made and how many there were.
    path: Vec<(usize, usize)>,
    at: usize,
}

impl Choices {
    fn pick<T: Copy>(&mut self, among: &[T]) -> Option<T> {
        if among.len() < 2 {
            return among.first().copied();
        }
        if self.at == self.path.len() {
            self.path.push((0, among.len()));
        }
        let (choice, _) = self.path[self.at];
        self.at += 1;
        Some(among[choice])
    }

    /// Turns to the next combination; `false` when all have been.
    fn turn(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, count)) = self.path.pop() {
            if choice + 1 < count {
                self.path.push((choice + 1, count));
                return true;
            }
        }
        false
    }
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub homes: Vec<Home>,
    /// By core, then worker.
    pub proxies: Vec<Vec<Option<Proxy>>>,
    pub jobs: Vec<Place>,
    /// By sender, then receiver, the oldest letter first.
    pub rings: Vec<Vec<Vec<Letter>>>,
    losses: u8,
    withdrawals: u8,
    whims: u8,
}

impl State {
    /// Workers have just connected and named what they can do.
    pub fn start(scenario: &Scenario) -> Self {
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
            rings: vec![vec![Vec::new(); scenario.cores]; scenario.cores],
            losses: scenario.losses,
            withdrawals: scenario.withdrawals,
            whims: scenario.whims,
        };
        let (choices, own) = (&mut Choices::default(), VecDeque::new());
        let mut step = Step { scenario, choices, state: &mut state, own };
        for worker in 0..scenario.workers.len() {
            step.connect(worker);
            step.handle_own();
        }
        state
    }

    pub fn has_letters(&self) -> bool {
        self.rings.iter().flatten().any(|ring| !ring.is_empty())
    }

    /// What can happen next.
    pub fn actions(&self, scenario: &Scenario) -> Vec<Action> {
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
    pub fn after(&self, scenario: &Scenario, action: Action) -> Vec<Self> {
        let mut choices = Choices::default();
        let mut states = Vec::new();
        loop {
            let mut state = self.clone();
            let own = VecDeque::new();
            let mut step = Step { scenario, choices: &mut choices, state: &mut state, own };
            step.take(action);
            step.handle_own();
            states.push(state);
            if !choices.turn() {
                return states;
            }
        }
    }

    pub fn leases(&self, core: Core) -> impl Iterator<Item = Worker> {
        let proxies = self.proxies[core].iter().enumerate();
        let woken = |proxy: &Proxy| proxy.nap == Nap::Woken;
        proxies.filter(move |(_, proxy)| proxy.as_ref().is_some_and(woken)).map(|(at, _)| at)
    }

    pub fn queued(&self, scenario: &Scenario, core: Core) -> impl Iterator<Item = Job> {
        let jobs = self.jobs.iter().enumerate().zip(&scenario.jobs);
        jobs.filter(move |((_, place), of)| of.0 == core && **place == Place::Queued)
            .map(|((job, _), _)| job)
    }
}

/// A step that is being taken.
struct Step<'a> {
    scenario: &'a Scenario,
    choices: &'a mut Choices,
    state: &'a mut State,
    /// Letters that cores have sent to themselves.
    own: VecDeque<(Core, Letter)>,
}

impl Step<'_> {
    fn take(&mut self, action: Action) {
        match action {
            Action::Deliver(from, to) => {
                let letter = self.state.rings[from][to].remove(0);
                self.receive(from, to, letter);
            }
            Action::Act(worker) => match self.state.homes[worker].phase {
                Phase::Ready => self.ask_next(worker),
                Phase::Idle => self.pre_sleep(worker),
                Phase::Working(job) => self.complete(worker, job),
                Phase::Waiting(_) | Phase::Asleep | Phase::Gone => {}
            },
            Action::Submit(job) => self.enqueue(job),
            Action::LeaseEnds(core, worker) => self.end_lease(core, worker),
            Action::Lose(worker) => {
                self.state.losses -= 1;
                self.lose(worker);
            }
            Action::Connect(worker) => self.connect(worker),
            Action::Withdraw(worker, core) => {
                self.state.withdrawals -= 1;
                self.withdraw(worker, core);
            }
            Action::Offer(worker, core) => self.offer(worker, core),
            Action::Whim(worker) => {
                self.state.whims -= 1;
                match self.state.homes[worker].phase {
                    Phase::Asleep => self.ask_next(worker),
                    _ => self.pre_sleep(worker),
                }
            }
        }
    }

    /// Letters to oneself are handled when the core is done with what it is at.
    fn send(&mut self, from: Core, to: Core, letter: Letter) {
        if from == to {
            self.own.push_back((from, letter));
        } else {
            self.state.rings[from][to].push(letter);
        }
    }

    fn handle_own(&mut self) {
        while let Some((core, letter)) = self.own.pop_front() {
            self.receive(core, core, letter);
        }
    }

    fn receive(&mut self, from: Core, core: Core, letter: Letter) {
        match letter {
            Letter::CanDo(worker, session) => self.can_do(core, worker, session),
            Letter::CantDo(worker) => self.forget(core, worker),
            Letter::Grab(worker, session, priority) => {
                if !self.give(core, worker, priority) {
                    self.send(core, from, Letter::Empty(worker, session, 0));
                }
            },
            Letter::Sleep(worker) => self.sleep(core, worker),
            Letter::Declined(worker) => self.end_lease(core, worker),
            Letter::Complete(worker, job) => {
                if self.state.jobs[job] == Place::Running(worker) {
                    self.state.jobs[job] = Place::Done;
                }
            }
            Letter::Hint(worker, session, _)
            | Letter::Noop(worker, session, _)
            | Letter::Assigned(worker, session, ..)
            | Letter::Empty(worker, session, _) => {
                let home = &self.state.homes[worker];
                let stale = home.session != session && self.scenario.has(Rule::Sessions);
                if !stale && home.phase != Phase::Gone {
                    self.receive_at_home(from, worker, letter);
                }
            }
        }
    }
}

/// What a worker's home does.
impl Step<'_> {
    fn home(&mut self, worker: Worker) -> &mut Home {
        &mut self.state.homes[worker]
    }

    fn post(&mut self, worker: Worker, to: Core, letter: Letter) {
        self.send(self.scenario.workers[worker].0, to, letter);
    }

    fn connect(&mut self, worker: Worker) {
        let home = self.home(worker);
        home.phase = Phase::Ready;
        home.session += 1;
        for core in self.scenario.workers[worker].1.clone() {
            self.offer(worker, core);
        }
    }

    fn offer(&mut self, worker: Worker, core: Core) {
        let home = self.home(worker);
        home.able[core] = true;
        let (session, asleep) = (home.session, home.phase == Phase::Asleep);
        self.post(worker, core, Letter::CanDo(worker, session));
        if asleep {
            self.home(worker).told[core] = true;
            self.post(worker, core, Letter::Sleep(worker));
        }
    }

    fn lose(&mut self, worker: Worker) {
        let home = self.home(worker);
        home.phase = Phase::Gone;
        home.hints.fill(0);
        home.told.fill(false);
        home.woken_by = None;
        for core in 0..self.scenario.cores {
            if std::mem::take(&mut self.home(worker).able[core]) {
                self.post(worker, core, Letter::CantDo(worker));
            }
        }
    }

    /// `CANT_DO`, which also makes the worker give up its job; it goes on as it was otherwise.
    fn withdraw(&mut self, worker: Worker, core: Core) {
        let home = &mut self.state.homes[worker];
        home.able[core] = false;
        home.told[core] = false;
        if let Phase::Working(job) = home.phase
            && self.scenario.jobs[job].0 == core
        {
            home.phase = Phase::Ready;
        }
        if home.woken_by == Some(core) {
            home.woken_by = None;
        }
        self.post(worker, core, Letter::CantDo(worker));
    }

    /// Asks the most promising core, or answers NO_JOB.
    fn ask_next(&mut self, worker: Worker) {
        let home = &mut self.state.homes[worker];
        let priority = |mask: Mask| mask.trailing_zeros();
        let hinted = (0..home.hints.len()).filter(|&core| home.hints[core] != 0);
        let Some(best) = hinted.map(|core| priority(home.hints[core])).min() else {
            home.phase = Phase::Idle;
            return;
        };
        let equals = (0..home.hints.len()).filter(|&core| priority(home.hints[core]) == best);
        let equals: Vec<Core> = equals.collect();
        let first = home.woken_by.filter(|core| equals.contains(core));
        let Some(core) = first.or_else(|| self.choices.pick(&equals)) else { return };
        home.phase = Phase::Waiting(core);
        home.told[core] = false;
        let session = home.session;
        self.post(worker, core, Letter::Grab(worker, session, best as u8));
    }

    fn pre_sleep(&mut self, worker: Worker) {
        let hinted = self.home(worker).hints.iter().any(|&mask| mask != 0);
        if hinted && self.scenario.has(Rule::HintsForbidSleep) {
            self.home(worker).phase = Phase::Ready;
            return;
        }
        self.home(worker).phase = Phase::Asleep;
        let here = self.scenario.workers[worker].0;
        let others = (0..self.scenario.cores).filter(|&core| core != here);
        for core in std::iter::once(here).chain(others) {
            // Its own core may have had a job.
            if self.home(worker).phase == Phase::Asleep
                && self.home(worker).able[core]
                && !(self.home(worker).told[core] && self.scenario.has(Rule::Thrift))
            {
                self.home(worker).told[core] = true;
                self.post(worker, core, Letter::Sleep(worker));
                self.handle_own();
            }
        }
    }

    fn complete(&mut self, worker: Worker, job: Job) {
        self.home(worker).phase = Phase::Ready;
        self.post(worker, self.scenario.jobs[job].0, Letter::Complete(worker, job));
    }

    fn receive_at_home(&mut self, from: Core, worker: Worker, letter: Letter) {
        let noop_hints = self.scenario.has(Rule::NoopHints);
        let home = &mut self.state.homes[worker];
        match letter {
            Letter::Hint(_, _, mask) => home.hints[from] |= mask,
            Letter::Noop(_, _, mask) => {
                home.told[from] = false;
                if noop_hints {
                    home.hints[from] |= mask;
                }
                if home.phase == Phase::Asleep {
                    home.phase = Phase::Ready;
                    home.woken_by = Some(from);
                } else if self.scenario.has(Rule::Decline) {
                    self.post(worker, from, Letter::Declined(worker));
                }
            }
            Letter::Assigned(_, _, job, mask) => {
                home.phase = Phase::Working(job);
                if self.scenario.has(Rule::AssignedHints) {
                    home.hints[from] = mask;
                }
                let woken_by = home.woken_by.take().filter(|&core| core != from);
                if let Some(core) = woken_by.filter(|_| self.scenario.has(Rule::GiveBack)) {
                    self.post(worker, core, Letter::Declined(worker));
                }
            }
            Letter::Empty(_, _, mask) => {
                home.hints[from] = mask;
                if home.woken_by == Some(from) {
                    home.woken_by = None;
                }
                self.ask_next(worker);
            }
            _ => {}
        }
    }
}

/// What the owner of jobs does.
impl Step<'_> {
    fn tell(&mut self, core: Core, worker: Worker, letter: impl Fn(Worker, u8) -> Letter) {
        let Some(proxy) = &self.state.proxies[core][worker] else { return };
        let letter = letter(worker, proxy.session);
        self.send(core, self.scenario.workers[worker].0, letter);
    }

    fn priorities(&self, core: Core) -> Mask {
        let jobs = self.state.queued(self.scenario, core);
        jobs.fold(0, |mask, job| mask | 1 << self.scenario.jobs[job].1)
    }

    /// A job comes, or comes back.
    fn enqueue(&mut self, job: Job) {
        let (core, priority) = self.scenario.jobs[job];
        self.state.jobs[job] = Place::Queued;
        for worker in 0..self.scenario.workers.len() {
            let Some(proxy) = &mut self.state.proxies[core][worker] else { continue };
            let unaware = proxy.ready & 1 << priority == 0;
            proxy.ready |= 1 << priority;
            let asleep = proxy.nap == Nap::Asleep && self.scenario.has(Rule::Thrift);
            if unaware && !asleep {
                self.tell(core, worker, |worker, session| {
                    Letter::Hint(worker, session, 1 << priority)
                });
            }
        }
        self.wake(core);
    }

    /// Wakes sleepers until there are as many leases as jobs.
    fn wake(&mut self, core: Core) {
        while self.state.leases(core).count() < self.state.queued(self.scenario, core).count() {
            let proxies = self.state.proxies[core].iter().enumerate();
            let asleep = |proxy: &Proxy| proxy.nap == Nap::Asleep;
            let sleepers = proxies.filter(|(_, proxy)| proxy.as_ref().is_some_and(asleep));
            let sleepers: Vec<Worker> = sleepers.map(|(worker, _)| worker).collect();
            let Some(worker) = self.choices.pick(&sleepers) else { return };
            self.rouse(core, worker);
        }
    }

    fn rouse(&mut self, core: Core, worker: Worker) {
        let Some(proxy) = &mut self.state.proxies[core][worker] else { return };
        proxy.nap = Nap::Woken;
        let ready = proxy.ready;
        self.tell(core, worker, |worker, session| Letter::Noop(worker, session, ready));
    }

    fn can_do(&mut self, core: Core, worker: Worker, session: u8) {
        let ready = self.priorities(core);
        self.state.proxies[core][worker] = Some(Proxy { session, nap: Nap::Awake, ready });
        if ready != 0 {
            self.tell(core, worker, |worker, session| Letter::Hint(worker, session, ready));
        }
    }

    fn forget(&mut self, core: Core, worker: Worker) {
        self.state.proxies[core][worker] = None;
        for job in 0..self.state.jobs.len() {
            let here = self.scenario.jobs[job].0 == core;
            if here
                && self.state.jobs[job] == Place::Running(worker)
                && self.scenario.has(Rule::Requeue)
            {
                self.enqueue(job);
            }
        }
        self.wake(core);
    }

    fn sleep(&mut self, core: Core, worker: Worker) {
        let jobs = self.priorities(core) != 0 && self.scenario.has(Rule::LookBeforeSleep);
        let Some(proxy) = &mut self.state.proxies[core][worker] else { return };
        match proxy.nap {
            // The NOOP is on its way and finds the worker asleep, or is declined.
            Nap::Woken => {}
            _ if jobs => self.rouse(core, worker),
            _ => proxy.nap = Nap::Asleep,
        }
    }

    fn end_lease(&mut self, core: Core, worker: Worker) {
        let Some(proxy) = &mut self.state.proxies[core][worker] else { return };
        if proxy.nap == Nap::Woken {
            proxy.nap = Nap::Awake;
            if self.scenario.has(Rule::NextSleeper) {
                self.wake(core);
            }
        }
    }

    /// Answers a grab with the most urgent job that is urgent enough; `false` if the worker isn't
    /// known here: it has withdrawn, and an old hint brought it.
    fn give(&mut self, core: Core, worker: Worker, priority: u8) -> bool {
        let jobs = self.state.queued(self.scenario, core);
        let best = jobs.min_by_key(|&job| self.scenario.jobs[job].1);
        let best = best.filter(|&job| self.scenario.jobs[job].1 <= priority);
        if let Some(job) = best
            && self.state.proxies[core][worker].is_some()
        {
            self.state.jobs[job] = Place::Running(worker);
        }
        let ready = self.priorities(core);
        let Some(proxy) = &mut self.state.proxies[core][worker] else { return false };
        let lease = std::mem::replace(&mut proxy.nap, Nap::Awake) == Nap::Woken;
        if self.scenario.has(if best.is_some() { Rule::AssignedHints } else { Rule::EmptyForgets }) {
            proxy.ready = ready;
        }
        self.tell(core, worker, |worker, session| match best {
            Some(job) => Letter::Assigned(worker, session, job, ready),
            None => Letter::Empty(worker, session, ready),
        });
        if lease && self.scenario.has(Rule::NextSleeper) {
            self.wake(core);
        }
        true
    }
}
