//! The rules: what a home and an owner do about a letter, a worker or a job.
//!
//! A state and an action in, all states that they lead to out: what the rules leave open (which
//! sleeper, which of two equal cores) is tried in all ways. Letters of a core to itself are handled
//! within the step. Knows nothing of searching.
//!
//! Invariant: a step is a function of the state, the action and the choices made on its way.

use std::collections::VecDeque;

use crate::model::{
    Action, Core, Home, Job, Letter, Mask, Nap, Phase, Place, Proxy, Rule, Scenario, State, Worker,
};

/// Every state that an action can lead to.
pub(crate) fn after(state: &State, scenario: &Scenario, action: Action) -> Vec<State> {
    let mut choices = Choices::default();
    let mut states = Vec::new();
    loop {
        let mut next = state.clone();
        let own = VecDeque::new();
        let mut step = Step { scenario, choices: &mut choices, state: &mut next, own };
        step.take(action);
        step.handle_own();
        states.push(next);
        if !choices.turn() {
            return states;
        }
    }
}

/// Answers what the rules leave open; `after` goes through all answers.
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
            Action::EndBatch(core) => self.wake(core),
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
            }
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
        let all: Mask = home.hints.iter().fold(0, |all, mask| all | mask);
        let Some(best) = (0..8).find(|priority| all & 1 << priority != 0) else {
            home.phase = Phase::Idle;
            return;
        };
        let equals = (0..home.hints.len()).filter(|&core| home.hints[core] & 1 << best != 0);
        let equals: Vec<Core> = equals.collect();
        let first = home.woken_by.filter(|core| equals.contains(core));
        let Some(core) = first.or_else(|| self.choices.pick(&equals)) else { return };
        home.phase = Phase::Waiting(core);
        home.told[core] = false;
        let session = home.session;
        self.post(worker, core, Letter::Grab(worker, session, best));
    }

    fn pre_sleep(&mut self, worker: Worker) {
        let hinted = self.home(worker).hints.iter().any(|&mask| mask != 0);
        if hinted && self.scenario.has(Rule::HintsForbidSleep) {
            self.home(worker).phase = Phase::Ready;
            return;
        }
        self.home(worker).phase = Phase::Asleep;
        for core in 0..self.scenario.cores {
            if self.home(worker).able[core]
                && !(self.home(worker).told[core] && self.scenario.has(Rule::Thrift))
            {
                self.home(worker).told[core] = true;
                self.post(worker, core, Letter::Sleep(worker));
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
        self.stir(core);
    }

    /// Sleepers are looked at when the core is done with what came together.
    fn stir(&mut self, core: Core) {
        self.state.stirred[core] = true;
    }

    /// Wakes sleepers until there are as many leases as jobs.
    fn wake(&mut self, core: Core) {
        self.state.stirred[core] = false;
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
        self.stir(core);
    }

    fn sleep(&mut self, core: Core, worker: Worker) {
        let Some(proxy) = &mut self.state.proxies[core][worker] else { return };
        // The NOOP to one that was woken is on its way and finds it asleep, or is declined.
        if proxy.nap != Nap::Woken {
            proxy.nap = Nap::Asleep;
            if self.scenario.has(Rule::LookBeforeSleep) {
                self.stir(core);
            }
        }
    }

    fn end_lease(&mut self, core: Core, worker: Worker) {
        let Some(proxy) = &mut self.state.proxies[core][worker] else { return };
        if proxy.nap == Nap::Woken {
            proxy.nap = Nap::Awake;
            if self.scenario.has(Rule::NextSleeper) {
                self.stir(core);
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
        if self.scenario.has(if best.is_some() { Rule::AssignedHints } else { Rule::EmptyForgets })
        {
            proxy.ready = ready;
        }
        self.tell(core, worker, |worker, session| match best {
            Some(job) => Letter::Assigned(worker, session, job, ready),
            None => Letter::Empty(worker, session, ready),
        });
        if lease && self.scenario.has(Rule::NextSleeper) {
            self.stir(core);
        }
        true
    }
}
