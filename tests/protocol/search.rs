//! A scenario in, what is wrong with it out: walks through every state that can be reached.
//!
//! Breadth first, so that the first breach found has the shortest way to it. Then looks for circles
//! among the steps that happen of themselves. Knows the model's states and what must hold in them,
//! and nothing of how they come about.
//!
//! Invariant: states are numbered in the order in which they are found; each remembers the one it
//! was found from.

use std::collections::HashMap;
use std::rc::Rc;

use crate::model::{Action, Core, Home, Letter, Nap, Phase, Place, Scenario, State};

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    /// A job lies beside a sleeper that could run it, and nobody is about to fetch it.
    LostWakeup,
    /// A worker that is busy holds a lease, so a job waits for nothing.
    IdleLease,
    /// A worker is about and doesn't know of a job, nor does the owner mean to wake it.
    Unaware,
    /// A grab that nobody will answer.
    NoReply,
    /// A job that nobody has.
    LostJob,
    /// A job that is in two hands.
    TwiceGiven,
    /// The steps that happen of themselves can go round in a circle.
    Livelock,
}

/// A breach, and how it comes about.
pub(crate) struct Found {
    pub(crate) breach: Breach,
    way: Vec<Action>,
    state: State,
}

impl Found {
    pub(crate) fn story(&self) -> String {
        format!("{:?} after {:?}\n{:#?}", self.breach, self.way, self.state)
    }
}

/// Walks through all states; answers with their number.
pub(crate) fn explore(scenario: &Scenario) -> Result<usize, Box<Found>> {
    let mut numbers: HashMap<Rc<State>, usize> = HashMap::new();
    let mut states: Vec<Rc<State>> = Vec::new();
    let mut origins: Vec<Option<(usize, Action)>> = Vec::new();
    let mut inner: Vec<(usize, usize)> = Vec::new();
    let start = Rc::new(State::start(scenario));
    numbers.insert(Rc::clone(&start), 0);
    states.push(start);
    origins.push(None);
    let way_to = |origins: &[Option<(usize, Action)>], mut at: usize| {
        let mut way = Vec::new();
        while let Some((origin, action)) = origins[at] {
            way.push(action);
            at = origin;
        }
        way.reverse();
        way
    };
    let mut at = 0;
    while at < states.len() {
        let state = Rc::clone(&states[at]);
        if let Some(breach) = breach(scenario, &state) {
            let way = way_to(&origins, at);
            return Err(Box::new(Found { breach, way, state: State::clone(&state) }));
        }
        for action in state.actions(scenario) {
            for next in state.after(scenario, action) {
                let number = *numbers.entry(Rc::new(next)).or_insert_with_key(|next| {
                    states.push(Rc::clone(next));
                    origins.push(Some((at, action)));
                    states.len() - 1
                });
                if action.is_inner() {
                    inner.push((at, number));
                }
            }
        }
        at += 1;
    }
    if let Some(at) = circle(states.len(), &inner) {
        let (way, state) = (way_to(&origins, at), State::clone(&states[at]));
        return Err(Box::new(Found { breach: Breach::Livelock, way, state }));
    }
    Ok(states.len())
}

/// A state on, or behind, a circle of these steps.
fn circle(states: usize, steps: &[(usize, usize)]) -> Option<usize> {
    // Kahn: takes states away that no step leads to, until none is left or all are led to.
    let mut indegrees = vec![0_u32; states];
    let mut firsts = vec![0; states + 1];
    for &(from, to) in steps {
        indegrees[to] += 1;
        firsts[from + 1] += 1;
    }
    for at in 0..states {
        firsts[at + 1] += firsts[at];
    }
    // Steps were noted by the state they start from, in its order.
    let mut free: Vec<usize> = (0..states).filter(|&at| indegrees[at] == 0).collect();
    while let Some(at) = free.pop() {
        for &(_, to) in &steps[firsts[at]..firsts[at + 1]] {
            indegrees[to] -= 1;
            if indegrees[to] == 0 {
                free.push(to);
            }
        }
    }
    indegrees.iter().position(|&indegree| indegree > 0)
}

/// What is wrong with a state.
fn breach(scenario: &Scenario, state: &State) -> Option<Breach> {
    let quiet = state.is_quiet();
    for (job, &place) in state.jobs.iter().enumerate() {
        let core = scenario.jobs[job].0;
        let holders = state.homes.iter().filter(|home| home.phase == Phase::Working(job)).count();
        if holders > 1 {
            return Some(Breach::TwiceGiven);
        }
        let Place::Running(worker) = place else {
            // What a worker holds that was withdrawn from it is on its way back.
            if holders > 0 {
                return Some(Breach::TwiceGiven);
            }
            continue;
        };
        let home = scenario.workers[worker].0;
        let assigned =
            |letter: &Letter| matches!(letter, Letter::Assigned(_, _, at, _) if *at == job);
        let returned = |letter: &Letter| {
            matches!(letter, Letter::Complete(_, at) if *at == job)
                || matches!(letter, Letter::CantDo(at) if *at == worker)
        };
        let held = state.homes[worker].phase == Phase::Working(job)
            || state.rings[core][home].iter().any(assigned)
            || state.rings[home][core].iter().any(returned);
        if !held {
            return Some(Breach::LostJob);
        }
    }
    if !quiet {
        return None;
    }
    if state.homes.iter().any(|home| matches!(home.phase, Phase::Waiting(_))) {
        return Some(Breach::NoReply);
    }
    (0..scenario.cores).find_map(|core| breach_at(scenario, state, core))
}

/// What is wrong with one core's jobs when no letter is on its way.
fn breach_at(scenario: &Scenario, state: &State, core: Core) -> Option<Breach> {
    if state.leases(core).any(|worker| state.homes[worker].phase != Phase::Ready) {
        return Some(Breach::IdleLease);
    }
    let asleep = |home: &Home| home.phase == Phase::Asleep && home.able[core];
    let unleased = state.queued(scenario, core).count() > state.leases(core).count();
    if unleased && state.homes.iter().any(asleep) {
        return Some(Breach::LostWakeup);
    }
    for (home, proxy) in state.homes.iter().zip(&state.proxies[core]) {
        let Some(proxy) = proxy else { continue };
        let known = |job: usize| home.hints[core] & 1 << scenario.jobs[job].1 != 0;
        if proxy.nap != Nap::Asleep && !state.queued(scenario, core).all(known) {
            return Some(Breach::Unaware);
        }
    }
    None
}
