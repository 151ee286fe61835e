//! A scenario in, what is wrong with it out: walks through every state that can be reached.
//!
//! Depth first. A state is known by a hash. The way to a breach is shortened: each step is left out
//! that isn't needed for it.
//!
//! Invariant: each state is looked at once.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::scenario::Scenario;
use crate::world::{Action, Breach, World};

/// With more states than this a scenario is too large.
const STATES_MAX: usize = 2_000_000;
/// One of so many states is followed until all has healed.
const STATES_PER_END: usize = 100;

/// A breach, and how it comes about.
pub(crate) struct Found {
    pub(crate) breach: Breach,
    pub(crate) way: Vec<Action>,
}

impl Found {
    pub(crate) fn story(&self) -> String {
        format!("{:?} after {:?}", self.breach, self.way)
    }
}

/// Walks through all states; returns their number.
pub(crate) fn explore(scenario: Scenario) -> Result<usize, Found> {
    let mut known = HashSet::new();
    let start = World::start(scenario);
    let mut visits = vec![(start.actions(), start)];
    let mut way = Vec::new();
    while let Some((untried, world)) = visits.last_mut() {
        let Some(action) = untried.pop() else {
            visits.pop();
            way.pop();
            continue;
        };
        let mut next = world.clone();
        next.perform(action);
        way.push(action);
        let mut hasher = DefaultHasher::new();
        next.hash(&mut hasher);
        let is_new = known.insert(hasher.finish());
        let checks_end = is_new && known.len() % STATES_PER_END == 0;
        if let Some(breach) = breach(&next, checks_end) {
            return Err(Found { breach, way: shorten(scenario, way, breach) });
        }
        assert!(known.len() < STATES_MAX, "too many states: {scenario:#?}");
        if is_new {
            visits.push((next.actions(), next));
        } else {
            way.pop();
        }
    }
    Ok(known.len())
}

fn breach(world: &World, checks_end: bool) -> Option<Breach> {
    let is_unserved = || (checks_end && !world.is_served_in_the_end()).then_some(Breach::Unserved);
    world.breach.or_else(is_unserved)
}

/// Leaves out of a way to a breach what isn't needed for it.
fn shorten(scenario: Scenario, mut way: Vec<Action>, expected: Breach) -> Vec<Action> {
    let leads = |way: &[Action]| {
        let mut world = World::start(scenario);
        for (at, action) in way.iter().enumerate() {
            if !world.actions().contains(action) {
                return None;
            }
            world.perform(*action);
            if let Some(breach) = breach(&world, at + 1 == way.len()) {
                return (breach == expected).then_some(at + 1);
            }
        }
        None
    };
    let mut at = way.len();
    while at > 0 {
        at -= 1;
        let mut shorter = way.clone();
        shorter.remove(at);
        if let Some(len) = leads(&shorter) {
            shorter.truncate(len);
            way = shorter;
            at = at.min(way.len());
        }
    }
    way
}
