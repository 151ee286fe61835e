//! What must hold: a cluster in, what is wrong with it out.
//!
//! Goes by what peers see and what engines say of leases and queues, not by how cores remember each
//! other's workers. `Cluster::hear` checks single packets.
//!
//! Invariant: changes nothing.

use ringgear::engine::JobId;
use ringgear::engine::job::State;
use ringgear::shard::cores::Core;
use ringgear::shard::remote::message::HomeConnId;

use crate::cluster::Cluster;
use crate::peer::{Peer, Phase, Place};
use crate::scenario::{Function, Scenario};

/// What may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breach {
    /// A job lies beside a sleeper that could run it, and no worker holds a lease for it.
    LostWakeup,
    /// The same, though all leases have ended that end.
    Unserved,
    /// A worker that isn't about to grab holds a lease.
    IdleLease,
    /// A grab that stays without an answer.
    NoReply,
    /// A worker got a less urgent job than was there for it, or none.
    LessUrgent,
    /// A job that is neither queued nor with a worker.
    LostJob,
    /// A job that was given out again while a worker had it, or when it was done.
    TwiceGiven,
    /// A client that doesn't get what it waits for.
    LostReply,
    /// A packet that no peer asked for.
    Unasked(&'static str),
    /// What happens of itself goes round in a circle.
    Livelock,
}

/// What is wrong with a cluster.
pub(crate) fn breach(scenario: &Scenario, cluster: &Cluster) -> Option<Breach> {
    if cluster.breach.is_some() || !cluster.is_quiet() {
        return cluster.breach;
    }
    cluster.shards.iter().for_each(|shard| shard.engine().check_invariants());
    if cluster.peers.iter().any(|peer| peer.phase == Phase::Waiting) {
        return Some(Breach::NoReply);
    }
    if loses_job(scenario, cluster) {
        return Some(Breach::LostJob);
    }
    if loses_reply(scenario, cluster) {
        return Some(Breach::LostReply);
    }
    if has_idle_lease(cluster) {
        return Some(Breach::IdleLease);
    }
    let is_at_rest = scenario.timers && !cluster.actions(scenario).iter().any(|it| it.is_inner());
    functions(scenario).find_map(|function| {
        let (queued, woken) = queued(scenario, cluster, function);
        let sleeps = (0..cluster.peers.len()).any(|id| {
            cluster.peers[id].phase == Phase::Asleep
                && cluster.able(scenario, id).any(|able| able == function)
        });
        match sleeps && queued > 0 {
            true if queued > woken => Some(Breach::LostWakeup),
            true if is_at_rest => Some(Breach::Unserved),
            _ => None,
        }
    })
}

fn functions(scenario: &Scenario) -> impl Iterator<Item = Function> {
    let mut functions: Vec<Function> = scenario.jobs.iter().map(|job| job.function).collect();
    functions.sort_unstable();
    functions.dedup();
    functions.into_iter()
}

/// Queued jobs of a function, and leases for it.
fn queued(scenario: &Scenario, cluster: &Cluster, function: Function) -> (u32, u32) {
    let engine = cluster.shards[function % scenario.cores].engine();
    let found = engine.functions().find(scenario.name(function).as_bytes());
    found.map_or((0, 0), |id| (engine.functions()[id].queued, engine.functions()[id].woken))
}

fn loses_job(scenario: &Scenario, cluster: &Cluster) -> bool {
    let mut states = vec![None; scenario.jobs.len()];
    for shard in &cluster.shards {
        for (_, job) in shard.engine().jobs().iter_from(JobId::FIRST) {
            let payload = std::str::from_utf8(job.payload().bytes()).unwrap();
            let at: usize = payload.parse().unwrap();
            assert!(states[at].replace(job.state).is_none(), "job {at} is there twice");
        }
    }
    let is_held = |job| {
        let holds = |peer: &Peer| matches!(peer.phase, Phase::Working(it, _) if it == job);
        cluster.peers.iter().any(holds)
    };
    let is_lost = |job: usize| match states[job] {
        None => true,
        Some(state) => (state == State::Running) != is_held(job),
    };
    cluster.open_jobs().any(is_lost)
        || (0..scenario.jobs.len()).any(|job| cluster.done[job] && states[job].is_some())
}

fn loses_reply(scenario: &Scenario, cluster: &Cluster) -> bool {
    cluster.peers.iter().enumerate().any(|(id, peer)| {
        let submitted = || scenario.jobs.iter().take(cluster.submitted).enumerate();
        let own = || submitted().filter(|(_, job)| job.client == id);
        let gets = |job: usize| cluster.done[job] == peer.outcomes.contains(&job);
        peer.place != Place::Nowhere
            && (own().count() != peer.created
                || own().any(|(job, spec)| spec.foreground && !gets(job)))
    })
}

fn has_idle_lease(cluster: &Cluster) -> bool {
    let holds = |core: Core, peer: &Peer| {
        let Place::At(home, conn) = peer.place else { return false };
        let shard = &cluster.shards[core];
        shard
            .number_here(home, HomeConnId::of(conn))
            .is_some_and(|conn| shard.engine().is_woken(conn))
    };
    let is_idle = |peer: &&Peer| !matches!(peer.phase, Phase::Ready | Phase::Hung);
    let mut idle = cluster.peers.iter().filter(is_idle);
    idle.any(|peer| (0..cluster.shards.len()).any(|core| holds(core, peer)))
}
