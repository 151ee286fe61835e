//! Tests of `watch`.

use std::time::Duration;

use super::Watch;
use crate::cluster::lease::Lease;
use crate::cluster::partition::{HintLock, Partition, Reading, Seen, State};

const SEEN: Seen = Seen { id: 1, generation: 3, beat: 7 };

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn reading(Seen { id, generation, beat }: Seen, state: State, lock: HintLock) -> Reading {
    Reading { partition: Partition { id, generation, beat, state, ..Partition::default() }, lock }
}

fn owned(seen: Seen) -> [Reading; 1] {
    [reading(seen, State::Owned, HintLock::Unknown)]
}

/// A watch with the default lease, 6 s, whose reads are half a second apart.
struct Fixture {
    watch: Watch,
    at: Duration,
}

impl Fixture {
    fn new() -> Self {
        Self { watch: Watch::new(Lease::default()), at: Duration::from_secs(100) }
    }

    fn read(&mut self, session: u64, reading: Reading) {
        self.watch.read(self.at, session, &[reading]);
    }

    /// Reads the same until the partition may be adopted; returns the time since the first read.
    fn wait_for_orphan(&mut self, session: u64, reading: &Reading) -> Duration {
        let first = self.at;
        loop {
            self.read(session, reading.clone());
            if self.watch.orphans(self.at, 0) == [reading.partition.seen()] {
                return self.at - first;
            }
            assert!(self.at - first < Duration::from_secs(60), "{:?}", self.watch);
            self.advance(0.5);
        }
    }

    fn advance(&mut self, by: f64) {
        self.at += seconds(by);
    }

    fn lock(&mut self, lock: HintLock, seen: Seen) {
        self.read(1, reading(seen, State::Owned, lock));
    }
}

#[test]
fn an_offered_partition_may_be_adopted_at_once_and_a_free_one_never() {
    let mut watch = Watch::new(Lease::default());
    let free = Seen { id: 2, ..SEEN };
    let readings = [
        reading(SEEN, State::Offered, HintLock::Held),
        reading(free, State::Free, HintLock::Unknown),
    ];
    for second in 0..60 {
        let at = Duration::from_secs(second);
        watch.read(at, 1, &readings);
        assert_eq!(watch.orphans(at, 9), [SEEN]);
    }
    watch.failed();
    assert_eq!(watch.orphans(seconds(60.0), 0), []);
}

#[test]
fn a_beat_that_stands_still_for_the_lease_makes_an_orphan() {
    let mut fixture = Fixture::new();
    let [reading] = owned(SEEN);
    assert_eq!(fixture.wait_for_orphan(1, &reading), seconds(6.0));
}

#[test]
fn fewer_than_five_reads_prove_nothing() {
    let mut watch = Watch::new(Lease::default());
    for at in [0.0, 9.0, 18.0, 27.0] {
        watch.read(seconds(at), 1, &owned(SEEN));
        assert_eq!(watch.orphans(seconds(at), 0), []);
    }
    watch.read(seconds(36.0), 1, &owned(SEEN));
    assert_eq!(watch.orphans(seconds(36.0), 0), [SEEN]);
}

#[test]
fn the_reads_themselves_must_last_as_long_as_the_lease() {
    let mut watch = Watch::new(Lease::default());
    for tenth in 0..60 {
        watch.read(Duration::from_millis(100 * tenth), 1, &owned(SEEN));
    }
    // This server was stopped after the last read.
    assert_eq!(watch.orphans(seconds(60.0), 0), []);
    watch.read(seconds(60.0), 1, &owned(SEEN));
    assert_eq!(watch.orphans(seconds(60.0), 0), [SEEN]);
}

#[test]
fn a_beat_or_generation_that_changes_starts_anew() {
    let mut fixture = Fixture::new();
    let beats = Seen { beat: 8, ..SEEN };
    for seen in [SEEN, beats, Seen { generation: 4, ..beats }, SEEN] {
        let [reading] = owned(seen);
        for _ in 0..12 {
            fixture.read(1, reading.clone());
            assert_eq!(fixture.watch.orphans(fixture.at, 0), []);
            fixture.advance(0.5);
        }
    }
}

#[test]
fn a_failed_read_or_a_new_session_starts_anew() {
    for break_session in [|watch: &mut Watch| watch.failed(), |_: &mut Watch| ()] {
        let mut fixture = Fixture::new();
        let [reading] = owned(SEEN);
        fixture.wait_for_orphan(1, &reading);
        break_session(&mut fixture.watch);
        fixture.advance(0.5);
        assert_eq!(fixture.wait_for_orphan(2, &reading), seconds(6.0));
    }
}

#[test]
fn a_failed_read_starts_anew_even_if_the_session_goes_on() {
    let mut fixture = Fixture::new();
    let [reading] = owned(SEEN);
    fixture.wait_for_orphan(1, &reading);
    fixture.watch.failed();
    assert_eq!(fixture.watch.orphans(fixture.at, 0), []);
    assert_eq!(fixture.wait_for_orphan(1, &reading), seconds(6.0));
}

#[test]
fn each_living_server_with_fewer_jobs_has_200_ms_more() {
    let mut fixture = Fixture::new();
    let [reading] = owned(SEEN);
    fixture.wait_for_orphan(1, &reading);
    assert_eq!(fixture.watch.orphans(fixture.at, 2), []);
    assert_eq!(fixture.watch.orphans(fixture.at + Duration::from_millis(399), 2), []);
    assert_eq!(fixture.watch.orphans(fixture.at + Duration::from_millis(400), 2), [SEEN]);
}

#[test]
fn a_lock_that_was_seen_held_and_then_free_shortens_the_wait() {
    let mut fixture = Fixture::new();
    fixture.lock(HintLock::Held, SEEN);
    fixture.advance(0.5);
    let free = reading(SEEN, State::Owned, HintLock::Free);
    assert_eq!(fixture.wait_for_orphan(1, &free), seconds(1.5));
    assert_eq!(fixture.watch.orphans(fixture.at, 1), [], "the rank counts here, too");
}

#[test]
fn the_last_beat_and_the_release_may_be_seen_together() {
    let mut fixture = Fixture::new();
    fixture.lock(HintLock::Held, SEEN);
    fixture.advance(0.5);
    let free = reading(Seen { beat: 8, ..SEEN }, State::Owned, HintLock::Free);
    assert_eq!(fixture.wait_for_orphan(1, &free), seconds(1.5));
}

#[test]
fn a_released_lock_needs_three_reads() {
    let mut fixture = Fixture::new();
    fixture.lock(HintLock::Held, SEEN);
    for orphans in [&[][..], &[], &[SEEN]] {
        fixture.advance(5.0);
        fixture.lock(HintLock::Free, SEEN);
        assert_eq!(fixture.watch.orphans(fixture.at, 0), orphans);
    }
}

#[test]
fn a_lock_that_was_never_seen_held_in_this_session_shortens_nothing() {
    let free = reading(SEEN, State::Owned, HintLock::Free);
    assert_eq!(Fixture::new().wait_for_orphan(1, &free), seconds(6.0));

    let mut fixture = Fixture::new();
    fixture.lock(HintLock::Held, SEEN);
    assert_eq!(fixture.wait_for_orphan(2, &free), seconds(6.0), "it was in session 1");

    let mut fixture = Fixture::new();
    fixture.lock(HintLock::Held, SEEN);
    fixture.watch.failed();
    assert_eq!(fixture.wait_for_orphan(1, &free), seconds(6.0));

    let mut fixture = Fixture::new();
    fixture.lock(HintLock::Held, Seen { generation: 2, ..SEEN });
    assert_eq!(fixture.wait_for_orphan(1, &free), seconds(6.0), "another owner held it");
}

#[test]
fn an_unknown_lock_shortens_nothing() {
    let mut fixture = Fixture::new();
    fixture.lock(HintLock::Held, SEEN);
    fixture.advance(0.5);
    let unknown = reading(SEEN, State::Owned, HintLock::Unknown);
    assert_eq!(fixture.wait_for_orphan(1, &unknown), seconds(5.5), "6 s since the first read");

    let mut fixture = Fixture::new();
    fixture.lock(HintLock::Held, SEEN);
    fixture.advance(0.5);
    fixture.lock(HintLock::Unknown, SEEN);
    fixture.advance(0.5);
    let free = reading(SEEN, State::Owned, HintLock::Free);
    assert_eq!(fixture.wait_for_orphan(1, &free), seconds(5.0));
}

#[test]
fn an_owner_that_writes_without_its_lock_has_the_whole_lease() {
    let mut fixture = Fixture::new();
    fixture.lock(HintLock::Held, SEEN);
    for beat in 8..10 {
        fixture.advance(0.5);
        fixture.lock(HintLock::Free, Seen { beat, ..SEEN });
    }
    let free = reading(Seen { beat: 9, ..SEEN }, State::Owned, HintLock::Free);
    assert_eq!(fixture.wait_for_orphan(1, &free), seconds(6.0));
    fixture.lock(HintLock::Held, Seen { beat: 10, ..SEEN });
    fixture.advance(0.5);
    let free = reading(Seen { beat: 10, ..SEEN }, State::Owned, HintLock::Free);
    assert_eq!(fixture.wait_for_orphan(1, &free), seconds(1.5), "it has a lock again");
}

#[test]
fn the_time_of_the_last_beat_outlives_the_session() {
    let mut watch = Watch::new(Lease::default());
    assert_eq!(watch.beat_at(1), None);
    watch.read(seconds(1.0), 1, &owned(SEEN));
    watch.read(seconds(2.0), 1, &owned(SEEN));
    watch.failed();
    watch.read(seconds(3.0), 2, &owned(SEEN));
    assert_eq!(watch.beat_at(1), Some(seconds(1.0)));
    watch.read(seconds(4.0), 2, &owned(Seen { beat: 8, ..SEEN }));
    assert_eq!(watch.beat_at(1), Some(seconds(4.0)));
    watch.read(seconds(5.0), 2, &[]);
    assert_eq!(watch.beat_at(1), None, "the partition is gone");
}

#[test]
fn partitions_are_watched_apart() {
    let mut watch = Watch::new(Lease::default());
    let other = Seen { id: 4, generation: 1, beat: 0 };
    for second in 0..7 {
        let beats = Seen { beat: second, ..other };
        let readings = [owned(SEEN), owned(beats)].concat();
        watch.read(Duration::from_secs(second.try_into().unwrap()), 1, &readings);
    }
    assert_eq!(watch.orphans(seconds(6.0), 0), [SEEN]);
}
