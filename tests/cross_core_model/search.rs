//! A scenario in, what is wrong with it out: walks through every state that can be reached.
//!
//! Depth first, so that there are only as many clusters at a time as the way is long. A state is
//! known by a hash of its description. Then looks for circles among the steps that happen of
//! themselves. The way to a breach is shortened: each step is left out that isn't needed for it.
//!
//! Invariant: states are numbered in the order in which they are found; each remembers the one it
//! was found from.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};

use crate::checks::{self, Breach};
use crate::cluster::{Action, Cluster};
use crate::scenario::Scenario;

/// With more states than this a scenario is too large, or counts something without end.
const STATES_MAX: usize = 1_000_000;

/// A breach, and how it comes about.
pub(crate) struct Found {
    pub(crate) breach: Breach,
    pub(crate) way: Vec<Action>,
    state: String,
}

impl Found {
    pub(crate) fn story(&self) -> String {
        format!("{:?} after {:?}\n{}", self.breach, self.way, self.state)
    }
}

/// States, and steps between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) states: usize,
    pub(crate) steps: usize,
}

/// A state whose actions are being tried.
struct Visit {
    /// None once the last action has it.
    cluster: Option<Cluster>,
    number: u32,
    untried: Vec<Action>,
}

struct Search<'a> {
    scenario: &'a Scenario,
    numbers: HashMap<u64, u32>,
    origins: Vec<Option<(u32, Action)>>,
    inner: Vec<(u32, u32)>,
    way: Vec<Action>,
}

impl Drop for Search<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {:?}\nin {:#?}", self.way, self.scenario);
        }
    }
}

/// Walks through all states.
pub(crate) fn explore(scenario: &Scenario) -> Result<Size, Box<Found>> {
    let mut search = Search {
        scenario,
        numbers: HashMap::new(),
        origins: Vec::new(),
        inner: Vec::new(),
        way: Vec::new(),
    };
    let steps = search.walk()?;
    let states = search.origins.len();
    if let Some(at) = circle(states, &mut search.inner) {
        let way = search.way_to(at);
        let cluster = replay(scenario, &way);
        return Err(Box::new(Found { breach: Breach::Livelock, way, state: cluster.describe() }));
    }
    Ok(Size { states, steps })
}

impl Search<'_> {
    /// Answers with the number of steps.
    fn walk(&mut self) -> Result<usize, Box<Found>> {
        let mut visits = Vec::new();
        visits.extend(self.visit(Cluster::start(self.scenario), None)?.1);
        let mut steps = 0;
        while let Some(visit) = visits.last_mut() {
            let Some(action) = visit.untried.pop() else {
                visits.pop();
                self.way.pop();
                continue;
            };
            steps += 1;
            self.way.push(action);
            let number = visit.number;
            let forked = if visit.untried.is_empty() {
                visit.cluster.take()
            } else {
                visit.cluster.as_ref().map(Cluster::fork)
            };
            let mut cluster = forked.unwrap();
            cluster.perform(self.scenario, action);
            let (next, new) = self.visit(cluster, Some((number, action)))?;
            if action.is_inner() {
                self.inner.push((number, next));
            }
            match new {
                Some(visit) => visits.push(visit),
                None => {
                    self.way.pop();
                }
            }
        }
        Ok(steps)
    }

    /// The number of a state, and what is to be tried if it is new.
    fn visit(
        &mut self,
        cluster: Cluster,
        origin: Option<(u32, Action)>,
    ) -> Result<(u32, Option<Visit>), Box<Found>> {
        let mut hasher = DefaultHasher::new();
        hasher.write(cluster.describe().as_bytes());
        let next = u32::try_from(self.origins.len()).unwrap();
        let number = *self.numbers.entry(hasher.finish()).or_insert(next);
        if let Some(breach) = checks::breach(self.scenario, &cluster) {
            let way = shorten(self.scenario, self.way.clone(), breach);
            let state = replay(self.scenario, &way).describe();
            return Err(Box::new(Found { breach, way, state }));
        }
        if number < next {
            return Ok((number, None));
        }
        assert!(self.origins.len() < STATES_MAX, "too many states");
        self.origins.push(origin);
        let untried = cluster.actions(self.scenario);
        Ok((number, Some(Visit { cluster: Some(cluster), number, untried })))
    }

    fn way_to(&self, at: usize) -> Vec<Action> {
        let mut way = Vec::new();
        let mut at = at;
        while let Some((origin, action)) = self.origins[at] {
            way.push(action);
            at = origin as usize;
        }
        way.reverse();
        way
    }
}

fn replay(scenario: &Scenario, way: &[Action]) -> Cluster {
    let mut cluster = Cluster::start(scenario);
    way.iter().for_each(|&action| cluster.perform(scenario, action));
    cluster
}

/// Leaves out of a way to a breach what isn't needed for it.
fn shorten(scenario: &Scenario, mut way: Vec<Action>, breach: Breach) -> Vec<Action> {
    // Answers with how much of it leads there.
    let leads = |way: &[Action]| {
        let mut cluster = Cluster::start(scenario);
        for (at, action) in way.iter().enumerate() {
            if !cluster.actions(scenario).contains(action) {
                return None;
            }
            cluster.perform(scenario, *action);
            if let Some(found) = checks::breach(scenario, &cluster) {
                return (found == breach).then_some(at + 1);
            }
        }
        None
    };
    let mut at = way.len();
    while at > 0 {
        at -= 1;
        // A step and what depends on it directly often go together.
        for count in [1, 2, 3] {
            let mut shorter = way.clone();
            shorter.drain(at..(at + count).min(way.len()));
            if let Some(len) = leads(&shorter) {
                shorter.truncate(len);
                way = shorter;
                at = at.min(way.len());
                break;
            }
        }
    }
    way
}

/// A state on, or behind, a circle of these steps.
fn circle(states: usize, steps: &mut [(u32, u32)]) -> Option<usize> {
    // Kahn: takes states away that no step leads to, until none is left or all are led to.
    steps.sort_unstable();
    let mut indegrees = vec![0_u32; states];
    let mut firsts = vec![0; states + 1];
    for &(from, to) in &*steps {
        indegrees[to as usize] += 1;
        firsts[from as usize + 1] += 1;
    }
    for at in 0..states {
        firsts[at + 1] += firsts[at];
    }
    let mut free: Vec<usize> = (0..states).filter(|&at| indegrees[at] == 0).collect();
    while let Some(at) = free.pop() {
        for &(_, to) in &steps[firsts[at]..firsts[at + 1]] {
            indegrees[to as usize] -= 1;
            if indegrees[to as usize] == 0 {
                free.push(to as usize);
            }
        }
    }
    indegrees.iter().position(|&indegree| indegree > 0)
}
