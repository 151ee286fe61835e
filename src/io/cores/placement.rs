//! Which cores connections may move to: numbers that the cores published in, core numbers out.
//!
//! A connection that moves to the core of its jobs saves messages between cores, so a core accepts
//! it when it is about as busy as the sender, and no busier if it has no time left: messages cost
//! less than waiting. A core without time moves connections to the idlest one. `model` shows what
//! comes of it. Knows no socket and no shard.
//!
//! Invariant: of two cores, never does each want the other to take its connections.

use super::gauges::Gauges;
use super::utilization::Utilization;
use crate::shard::cores::CoreSet;

/// A core has no time left from here on.
const FULL: Utilization = 900;
/// A core moves connections to one that is at least this much less busy ...
const OFFLOAD_GAP: Utilization = 100;
/// ... and a core that has time accepts connections from one that is at most this much less busy.
const SLACK: Utilization = 50;
/// Two cores with no more than this together can do the work of both.
const CALM: Utilization = 800;
/// Of the connections that would have to leave for both cores to be equally busy, one in so many
/// leaves in a window: few, as others send some to the same core, and the next window shows what
/// it brought.
const OFFLOAD_PART: usize = 2;

const _: () = assert!(SLACK < OFFLOAD_GAP && CALM < FULL && OFFLOAD_GAP < FULL);

/// Returns the cores that accept connections of this one whose jobs they own: they have room for
/// them, and time. A core has room for `connections_max` connections.
pub(crate) fn accepting_cores(gauges: &Gauges, connections_max: usize, now_ms: u64) -> CoreSet {
    let mut cores = CoreSet::default();
    if gauges.count() < 2 {
        return cores;
    }
    let own = gauges.utilization(gauges.own(), now_ms);
    let accepts = |core: &usize| accepts_migrations(gauges.utilization(*core, now_ms), own);
    for core in below_share(gauges, connections_max).filter(accepts) {
        cores.insert(core);
    }
    cores
}

/// Returns the core that should take connections of this one, and how many before the utilization
/// is looked at again, if this one has no time left and another one has time and room.
pub(crate) fn offload_target(
    gauges: &Gauges,
    connections_max: usize,
    now_ms: u64,
) -> Option<(usize, usize)> {
    let utilization = |core| gauges.utilization(core, now_ms);
    let own = utilization(gauges.own());
    let others = below_share(gauges, connections_max).filter(|&core| core != gauges.own());
    let to = idlest_below(own, others.map(|core| (core, utilization(core))))?;
    Some((to, offload_connections(gauges.connections(gauges.own()), own, utilization(to))))
}

/// How many of its connections a core that is `own` busy should move to one that is `other` busy.
fn offload_connections(connections: usize, own: Utilization, other: Utilization) -> usize {
    let (own, gap) = (own.max(1) as usize, own.saturating_sub(other) as usize);
    (connections * gap / (2 * own)).div_ceil(OFFLOAD_PART)
}

/// Whether a core should accept connections whose jobs it owns from a core that is `sender` busy.
#[inline]
fn accepts_migrations(core: Utilization, sender: Utilization) -> bool {
    let slack = if core < FULL { SLACK } else { 0 };
    core <= sender + slack || core + sender <= CALM
}

/// The idlest of the other cores, if a core that is `own` busy should move connections there.
fn idlest_below<C>(own: Utilization, others: impl Iterator<Item = (C, Utilization)>) -> Option<C> {
    let targets = others.filter(|(_, other)| own >= FULL && other + OFFLOAD_GAP <= own);
    targets.min_by_key(|(_, other)| *other).map(|(core, _)| core)
}

/// Cores that have few enough connections to accept more from others.
fn below_share(gauges: &Gauges, connections_max: usize) -> impl Iterator<Item = usize> {
    let count = gauges.count();
    let total = (0..count).map(|core| gauges.connections(core)).sum();
    let limit = accepted_max(count, total, connections_max);
    (0..count).filter(move |&core| gauges.connections(core) < limit)
}

/// The number of connections up to which a core accepts more from others: a quarter above an equal
/// share, and fifteen sixteenths of those that it has room for, as new ones come, too.
fn accepted_max(cores: usize, total: usize, connections_max: usize) -> usize {
    (1 + total * 5 / (4 * cores)).min(connections_max - connections_max / 16)
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::cores::gauges::Load;

    fn of(cores: CoreSet) -> Vec<usize> {
        (0..2).filter(|&core| cores.contains(core)).collect()
    }

    fn two() -> [Gauges; 2] {
        Gauges::of(2).try_into().unwrap()
    }

    #[test]
    fn cores_accept_connections_up_to_a_quarter_above_their_share() {
        let [one, other] = two();
        let publish = |gauges: &Gauges, connections| {
            gauges.publish(Load { connections, ..Load::default() });
        };
        let accepting = |gauges: &Gauges, max| of(accepting_cores(gauges, max, 0));
        assert_eq!(accepting(&one, 1000), [0, 1], "there are no connections");
        publish(&one, 60);
        publish(&other, 40);
        assert_eq!((accepting(&one, 1000), accepting(&other, 1000)), (vec![0, 1], vec![0, 1]));
        publish(&one, 63);
        publish(&other, 37);
        assert_eq!(accepting(&one, 1000), [1]);
        assert!(accepting(&one, 39).is_empty(), "37 leave too little room for new ones");
        assert_eq!(accepting(&one, 40), [1]);
        assert_eq!(accepted_max(4, 100, 1000), 32);
        assert_eq!(accepted_max(3, 50_000, 19_936), 18_690);
        let alone = Gauges::of(1).remove(0);
        assert!(accepting(&alone, 1000).is_empty(), "there is no other core to come from");
        assert_eq!(offload_target(&alone, 1000, 0), None, "nor to go to");
    }

    #[test]
    fn a_core_without_time_accepts_none_and_offloads_to_one_with_room() {
        let [one, other] = two();
        one.publish_utilization(1000, 0);
        other.publish_utilization(400, 0);
        let accepting = |gauges: &Gauges| of(accepting_cores(gauges, 1000, 0));
        let target = |gauges: &Gauges, now_ms| offload_target(gauges, 1000, now_ms);
        assert_eq!((accepting(&one), accepting(&other)), (vec![0, 1], vec![1]));
        let target = |gauges: &Gauges, now_ms| target(gauges, now_ms).map(|(core, _)| core);
        assert_eq!((target(&one, 0), target(&other, 0)), (Some(1), None));
        other.publish_utilization(1000, 0);
        assert_eq!(target(&one, 0), None);
        one.publish_utilization(1000, 1000);
        assert_eq!(target(&one, 1000), Some(1), "the other's report is stale, so it is idle");
        other.publish(Load { connections: 100, ..Load::default() });
        assert_eq!(target(&one, 0), None, "the other one has more than its share");
    }

    #[test]
    fn a_full_core_offloads_to_the_idlest_one() {
        let others = [(0, 700), (2, 300), (3, 500)];
        assert_eq!(idlest_below(1000, others.into_iter()), Some(2));
        assert_eq!(idlest_below(899, others.into_iter()), None, "it has time left");
        assert_eq!(idlest_below(1000, [(0, 901)].into_iter()), None, "the other one has little");
        assert_eq!(idlest_below(1000, std::iter::empty::<(u8, Utilization)>()), None);
    }

    #[test]
    fn a_part_of_what_would_make_both_equally_busy_leaves_at_a_time() {
        assert_eq!(offload_connections(200, 1000, 600), 20);
        assert_eq!(offload_connections(200, 1000, 0), 50);
        assert_eq!((offload_connections(20, 1000, 900), offload_connections(0, 1000, 0)), (1, 0));
    }

    #[test]
    fn connections_move_to_their_jobs_unless_that_core_has_less_time_than_theirs() {
        for (core, sender) in [(0, 0), (1000, 1000), (890, 840), (300, 900), (600, 200)] {
            assert!(accepts_migrations(core, sender), "{core} from {sender}");
        }
        for (core, sender) in [(1000, 600), (700, 200), (890, 830), (1000, 990)] {
            assert!(!accepts_migrations(core, sender), "{core} from {sender}");
        }
    }

    #[test]
    fn no_connection_is_sent_back_to_the_core_that_it_came_from() {
        for core in (0..=1000).step_by(25) {
            for other in (0..=1000).step_by(25) {
                let sends = idlest_below(core, [((), other)].into_iter()).is_some();
                assert!(!sends || !accepts_migrations(core, other), "{core} to {other} and back");
            }
        }
    }
}
