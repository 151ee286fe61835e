//! A store with partitions: beats, losses, homes, adopted ones.

use super::*;
use crate::cluster::lease::Lease;
use crate::store::faulty::{HOME, number_in, sequences_of};
use crate::store::lease_state::LeaseState;

/// Short, so that beats come often; what is late is 300 ms late.
const LEASE: Duration = Duration::from_millis(900);

/// A writer with a lease, and cores that turn on demand.
struct Leased {
    bench: Bench,
    state: Arc<LeaseState>,
    view: Arc<View>,
    pauses: Arc<OwnPauses>,
    began: Instant,
}

impl Leased {
    fn new(timeout: Duration, lease: Duration) -> Self {
        let began = Instant::now();
        let lease = Lease::new(lease);
        let store = Faulty::with_lease(lease);
        let state = Arc::new(LeaseState::new(lease, 3, began));
        let (view, pauses) = (Arc::<View>::default(), Arc::<OwnPauses>::default());
        let settings = Settings {
            cores: 3,
            timeout,
            prefix: (*b"H:a").into(),
            mark: sequences_of(HOME).end,
            needs_sequences: false,
            health: Arc::default(),
            lease: Some(Arc::clone(&state)),
            view: Arc::clone(&view),
            pauses: Arc::clone(&pauses),
        };
        Self { bench: Bench::start(store, settings), state, view, pauses, began }
    }

    /// One whose cores never count as late, once it has beaten.
    fn lasting(timeout: Duration) -> Self {
        let leased = Self::new(timeout, Duration::from_secs(6000));
        leased.expect_wakes();
        leased
    }

    /// All cores turn now.
    fn turn(&self) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap();
        (0..3).for_each(|core| self.state.note_turn(core, now_ms));
    }

    fn expect_all(&self, outcome: &Outcome) {
        for core in 0..3 {
            assert_eq!(self.bench.next(), (core, outcome.clone()));
        }
    }

    /// The first beat, and each one after a suspension, wakes the cores.
    fn expect_wakes(&self) {
        self.expect_all(&Outcome::Wake);
    }

    /// Waits for something while the cores turn, or don't.
    fn wait_for(&self, turns: bool, what: &str, is_there: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_there() {
            assert!(start.elapsed() < LIMIT, "{what}");
            if turns {
                self.turn();
            }
            thread::yield_now();
        }
    }

    fn send(&self, core: usize, moves: u64, operations: impl Into<Vec<Operation>>) {
        self.bench.sender.send(Batch { core, operations: operations.into(), moves });
    }

    fn waiting(&self) -> u64 {
        self.bench.writer.counters().waiting.load(Ordering::Relaxed)
    }
}

fn dropped(partition: PartitionId) -> Outcome {
    Outcome::Dropped { partition, is_home: partition == HOME }
}

#[test]
fn an_idle_server_beats_while_its_cores_turn_and_no_longer() {
    let leased = Leased::new(LONG, LEASE);
    let store = leased.bench.store.clone();
    leased.expect_wakes();
    leased.wait_for(true, "no beats", || store.checks() >= 3);
    assert!(!leased.state.is_suspended_now());
    // One core hangs: there is one beat at most that was begun before it was late.
    let now_ms = |leased: &Leased| u64::try_from(leased.began.elapsed().as_millis()).unwrap();
    leased.wait_for(false, "not suspended", || {
        (0..2).for_each(|core| leased.state.note_turn(core, now_ms(&leased)));
        leased.state.is_suspended_now()
    });
    assert_eq!(leased.bench.next(), (2, Outcome::Wake), "only the one that is late is woken");
    let checks = store.checks();
    leased.send(0, 0, [insert(number_in(HOME, 1))]);
    let commits = store.commits().len();
    thread::yield_now();
    assert_eq!((store.checks(), store.commits().len()), (checks, commits));
    // It goes on: it beats, commits, and is suspended no more.
    leased.wait_for(true, "no commit", || store.commits().len() > commits);
    leased.expect_wakes();
    assert_eq!(leased.bench.next(), stored(0, &[number_in(HOME, 1)]));
    assert!(store.checks() > checks);
}

#[test]
fn an_insert_fails_when_a_core_hangs_for_longer_than_it_may_wait() {
    let leased = Leased::new(Duration::ZERO, LEASE);
    leased.expect_wakes();
    leased.wait_for(false, "not suspended", || leased.state.is_suspended_now());
    leased.send(0, 0, [insert(number_in(HOME, 1))]);
    let outcomes: Vec<_> = (0..4).map(|_| leased.bench.next()).collect();
    let reason = "core 0 of this server hasn't gone on for seconds";
    assert!(outcomes.contains(&failed(0, &[number_in(HOME, 1)], reason)), "{outcomes:?}");
    assert_eq!(leased.bench.durable(), [0; 0]);
}

#[test]
fn beats_go_on_while_commits_fail() {
    let leased = Leased::new(LONG, LEASE);
    let store = leased.bench.store.clone();
    leased.expect_wakes();
    store.set_down(Some(Fault::Refused));
    leased.send(0, 0, [insert(number_in(HOME, 1))]);
    store.wait_for_commits(1);
    let checks = store.checks();
    leased.wait_for(true, "no beats", || store.checks() >= checks + 3);
    assert!(!leased.state.is_suspended_now());
}

/// Beats succeeded between a commit without an answer and its repetition, and what it had removed
/// was said to be lost.
#[test]
fn nothing_is_missing_before_a_commit_without_an_answer_was_repeated() {
    let leased = Leased::new(LONG, LEASE);
    let store = leased.bench.store.clone();
    leased.expect_wakes();
    let [inserted, lost] = [1, 2].map(|number| number_in(HOME, number));
    store.set_down(Some(Fault::Unanswered));
    leased.send(0, 0, [insert(inserted)]);
    store.wait_for_commits(1);
    store.lose(lost);
    let checks = store.checks();
    leased.wait_for(true, "no beats", || store.checks() >= checks + 3);
    let commits = store.commits().len();
    store.set_down(None);
    leased.wait_for(true, "no commit", || store.commits().len() > commits);
    assert_eq!(leased.bench.next(), stored(0, &[inserted]));
    leased.expect_all(&Outcome::Missing { numbers: [lost].into() });
}

#[test]
fn a_server_that_cannot_beat_is_suspended_until_it_can() {
    let leased = Leased::new(LONG, LEASE);
    leased.expect_wakes();
    leased.bench.store.cut_off(true);
    leased.wait_for(true, "not suspended", || leased.state.is_suspended_now());
    leased.view.is_suspended.store(true, Ordering::Relaxed);
    leased.bench.store.cut_off(false);
    leased.wait_for(true, "suspended", || !leased.state.is_suspended_now());
    leased.expect_wakes();
    leased.wait_for(true, "shown", || !leased.view.is_suspended.load(Ordering::Relaxed));
}

#[test]
fn what_concerns_a_lost_partition_is_dropped_and_the_rest_is_done() {
    let leased = Leased::lasting(LONG);
    assert!(leased.bench.sender.own(7, 3));
    assert!(leased.state.owned().contains(7));
    leased.bench.occupy();
    leased.send(0, 0, [remove(number_in(7, 1)), insert(number_in(HOME, 1))]);
    leased.bench.store.take(7);
    leased.bench.store.hold(false);
    assert_eq!(leased.bench.next(), stored(0, &[number_in(HOME, 1)]));
    leased.expect_all(&dropped(7));
    assert!(!leased.state.owned().contains(7));
    assert_eq!(leased.view.lost.load(Ordering::Relaxed), 1);

    // A core that hasn't heard of it sends more, and so does one that has.
    for moves in [0, 1] {
        let retry = Operation::Retry { number: number_in(7, 2), runs: Runs::default() };
        leased.send(
            1,
            moves,
            [retry, answered(number_in(7, 3)), insert(number_in(HOME, 2 + moves))],
        );
        assert_eq!(leased.bench.next(), stored(1, &[number_in(HOME, 2 + moves)]));
    }
    leased.wait_for(false, "something waits", || leased.waiting() == 0);

    // It is adopted once more: only what was sent before the loss is stale.
    assert!(leased.bench.sender.own(7, 9));
    leased.send(1, 0, [remove(number_in(7, 4))]);
    leased.send(1, 1, [remove(number_in(7, 5))]);
    let store = leased.bench.finish();
    let commits = store.commits();
    assert!(!commits.iter().flatten().any(|it| it == &remove(number_in(7, 4))), "{commits:?}");
    assert_eq!(commits.last().unwrap(), &[remove(number_in(7, 5))]);
}

#[test]
fn jobs_of_a_lost_home_wait_for_the_next_and_are_not_written_under_their_numbers() {
    let leased = Leased::lasting(LONG);
    let store = leased.bench.store.clone();
    leased.bench.occupy();
    leased.send(0, 0, [insert(number_in(HOME, 1))]);
    store.take(HOME);
    store.hold(false);
    leased.expect_all(&dropped(HOME));
    assert_eq!(leased.state.owned().home, None);
    // Not heard of the loss, heard of it.
    leased.send(0, 0, [insert(number_in(HOME, 2))]);
    leased.send(0, 1, [insert(number_in(HOME, 3)), answered(number_in(HOME, 4))]);
    leased.wait_for(false, "something waits", || leased.waiting() == 0);
    store.set_next_home(Some(5));
    leased.expect_all(&Outcome::Home { sequences: sequences_of(5) });
    assert_eq!(leased.state.owned().home, Some(5));
    let block = crate::cluster::blocks::block_of(sequences_of(5).end - 1);
    assert_eq!(leased.view.read().blocks.last(), Some(block));
    // A core that hasn't heard of the home sends them again then.
    leased.send(0, 1, [insert(number_in(HOME, 6))]);
    leased.send(0, 2, [insert(number_in(5, 1))]);
    assert_eq!(leased.bench.next(), stored(0, &[number_in(5, 1)]));
    assert_eq!(leased.waiting(), 0);
    let store = leased.bench.finish();
    let numbers: Vec<u64> = store.durable().iter().map(|row| row.number).collect();
    assert_eq!(numbers, [number_in(5, 1)]);
    assert!(store.has_left());
}

#[test]
fn without_a_home_inserts_wait_as_long_as_they_may() {
    let leased = Leased::lasting(Duration::ZERO);
    leased.bench.store.take(HOME);
    leased.send(0, 0, [remove(number_in(HOME, 1))]);
    leased.expect_all(&dropped(HOME));
    leased.send(0, 1, [insert(number_in(HOME, 2))]);
    let refused = |at| failed(0, &[number_in(HOME, at)], "no home can be had");
    assert_eq!(leased.bench.next(), refused(2));
    leased.send(0, 1, [insert(number_in(HOME, 3))]);
    assert_eq!(leased.bench.next(), refused(3));
    leased.bench.store.set_next_home(Some(2));
    leased.expect_all(&Outcome::Home { sequences: sequences_of(2) });
    leased.bench.finish();
}

/// It may be stored under its number, and another server has it then.
#[test]
fn an_insert_of_unknown_outcome_in_a_lost_home_is_neither_tried_again_nor_refused() {
    let leased = Leased::lasting(LONG);
    let store = leased.bench.store.clone();
    store.fail_at(1, Fault::Unanswered);
    leased.send(0, 0, [insert(number_in(HOME, 1))]);
    leased.bench.wait_for_failures(1);
    store.take(HOME);
    leased.expect_all(&dropped(HOME));
    store.set_next_home(Some(2));
    leased.expect_all(&Outcome::Home { sequences: sequences_of(2) });
    leased.send(0, 2, [insert(number_in(2, 1))]);
    assert_eq!(leased.bench.next(), stored(0, &[number_in(2, 1)]));
    let inserts = store.commits();
    let first = insert(number_in(HOME, 1));
    let tries = inserts.iter().filter(|commit| commit.contains(&first)).count();
    assert_eq!(tries, 2, "the second one found the loss: {inserts:?}");
    leased.bench.finish();
}

#[test]
fn rows_of_an_adopted_partition_come_before_the_loss_and_none_after_it() {
    let leased = Leased::lasting(LONG);
    let sender = leased.bench.sender.clone();
    let part = |at| Part { core: 2, jobs: vec![row(number_in(7, at))], dead: vec![] };
    assert!(!sender.load(7, 3, vec![part(1)]), "it isn't adopted");
    assert!(sender.own(7, 3));
    assert!(sender.load(7, 3, vec![part(1)]));
    let adopted = Outcome::Adopted { jobs: vec![row(number_in(7, 1))], dead: vec![] };
    assert_eq!(leased.bench.next(), (2, adopted));
    assert_eq!(leased.bench.store.loaded(), [number_in(7, 1)]);
    leased.bench.store.take(7);
    leased.send(0, 0, [remove(number_in(7, 1))]);
    leased.expect_all(&dropped(7));
    assert!(!sender.load(7, 3, vec![part(2)]));
    // One that the server has had before.
    assert!(sender.own(7, 5));
    assert!(!sender.load(7, 3, vec![part(2)]), "of an earlier generation");
    leased.bench.store.take(7);
    assert!(sender.own(7, 8));
    leased.expect_all(&dropped(7));
    let Leased { bench, .. } = leased;
    bench.finish();
    assert!(!sender.own(7, 9) && !sender.load(7, 9, vec![part(3)]), "the thread has ended");
}

#[test]
fn pauses_are_settled_once_they_are_committed() {
    let leased = Leased::lasting(LONG);
    let pause =
        Operation::Pause { function: Bytes::from_static(b"f"), pause: Some(Pause::Unlimited) };
    leased.bench.store.set_down(Some(Fault::Refused));
    leased.send(0, 0, [pause]);
    leased.bench.store.wait_for_commits(1);
    assert_eq!(leased.pauses.take_settled(0), None);
    leased.bench.store.set_down(None);
    leased.wait_for(false, "not committed", || leased.pauses.committed() == 1);
    let settled = leased.pauses.take_settled(1).unwrap();
    assert_eq!(settled, [(Bytes::from_static(b"f"), Some(Pause::Unlimited))]);
    leased.bench.finish();
}

#[test]
fn a_server_that_ends_leaves_its_partitions_behind_the_last_commit() {
    let leased = Leased::lasting(LONG);
    leased.bench.occupy();
    leased.send(0, 0, [answered(number_in(HOME, 1))]);
    assert!(!leased.bench.store.has_left());
    leased.bench.store.hold(false);
    let store = leased.bench.finish();
    assert!(store.has_left());
    assert_eq!(store.durable().len(), 1);
}

#[test]
fn an_empty_partition_that_the_store_has_left_may_be_adopted_again() {
    let leased = Leased::lasting(LONG);
    assert!(leased.bench.sender.own(7, 3));
    leased.bench.store.set_free(7);
    leased.wait_for(false, "still owned", || !leased.state.owned().contains(7));
    assert!(leased.bench.sender.own(7, 5));
    assert!(leased.state.owned().contains(7));
    leased.bench.finish();
}

/// It was empty when its next owner gave it up.
#[test]
fn a_home_that_was_lost_may_be_had_again() {
    let leased = Leased::lasting(LONG);
    let store = leased.bench.store.clone();
    leased.bench.occupy();
    leased.send(0, 0, [insert(number_in(HOME, 1))]);
    store.take(HOME);
    store.set_next_home(Some(HOME));
    store.hold(false);
    leased.expect_all(&dropped(HOME));
    leased.expect_all(&Outcome::Home { sequences: sequences_of(HOME) });
    leased.send(0, 1, [answered(number_in(HOME, 2))]);
    // Its core sends it again.
    leased.send(0, 1, [insert(number_in(HOME, 5))]);
    leased.send(0, 2, [insert(number_in(HOME, 3)), answered(number_in(HOME, 4))]);
    assert_eq!(leased.bench.next(), stored(0, &[number_in(HOME, 3)]));
    leased.send(0, 2, [remove(number_in(HOME, 3))]);
    let numbers: Vec<u64> = leased.bench.finish().durable().iter().map(|it| it.number).collect();
    assert_eq!(numbers, [number_in(HOME, 2), number_in(HOME, 4)]);
}

/// Cores that number jobs as a shard does, and what they have been told.
#[derive(Default)]
struct Model {
    /// Home of new jobs, which the cores know of.
    home: PartitionId,
    moves: u64,
    next: u64,
    /// Jobs without an outcome, by number.
    waiting: Vec<u64>,
    stored: std::collections::BTreeSet<u64>,
    refused: std::collections::BTreeSet<u64>,
}

impl Model {
    fn number(&mut self) -> u64 {
        self.next += 1;
        number_in(self.home, self.next)
    }

    /// Handles a report; returns what core 0 sends again.
    fn hear(&mut self, core: usize, outcome: Outcome) -> Vec<Operation> {
        match outcome {
            Outcome::Stored { numbers } | Outcome::Failed { numbers, .. } if core != 0 => {
                panic!("{numbers:?} aren't those of core {core}");
            }
            Outcome::Stored { numbers } => {
                for number in numbers {
                    self.settle(number);
                    assert!(self.stored.insert(number));
                }
            }
            Outcome::Failed { numbers, .. } => {
                for number in numbers {
                    self.settle(number);
                    assert!(self.refused.insert(number));
                }
            }
            Outcome::Dropped { .. } if core == 0 => self.moves += 1,
            Outcome::Home { sequences } if core == 0 => {
                self.moves += 1;
                self.home =
                    u32::try_from(sequences.start / crate::store::faulty::PARTITION).unwrap();
                let again = std::mem::take(&mut self.waiting).len();
                self.waiting = (0..again).map(|_| self.number()).collect();
                return self.waiting.iter().map(|&number| insert(number)).collect();
            }
            _ => {}
        }
        Vec::new()
    }

    fn settle(&mut self, number: u64) {
        let at = self.waiting.iter().position(|&it| it == number);
        self.waiting.swap_remove(at.unwrap_or_else(|| panic!("{number} has two outcomes")));
    }
}

#[test]
fn whatever_is_lost_each_insert_has_one_outcome_and_what_is_stored_is_there() {
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let timeout = if random.bool() { Duration::ZERO } else { LONG };
        let leased = Leased::lasting(timeout);
        let store = leased.bench.store.clone();
        let mut model = Model { home: HOME, ..Model::default() };
        let mut next_home = HOME;
        let hear = |model: &mut Model, outcome: (usize, Outcome)| {
            let again = model.hear(outcome.0, outcome.1);
            if !again.is_empty() {
                leased.send(0, model.moves, again);
            }
        };
        for _ in 0..random.usize(10..60) {
            match random.usize(0..10) {
                0 => {
                    let fault = if random.bool() { Fault::Refused } else { Fault::Unanswered };
                    store.set_down(random.bool().then_some(fault));
                }
                1 => store.fail_at(random.usize(1..3), Fault::Unanswered),
                2 => {
                    next_home += 1;
                    store.take(model.home);
                    store.set_next_home(Some(next_home));
                }
                3 | 4 => {
                    while let Ok(outcome) = leased.bench.outcomes.try_recv() {
                        hear(&mut model, outcome);
                    }
                }
                _ => {
                    let numbers: Vec<u64> =
                        (0..random.usize(1..4)).map(|_| model.number()).collect();
                    model.waiting.extend(&numbers);
                    let inserts: Vec<_> = numbers.into_iter().map(insert).collect();
                    leased.send(0, model.moves, inserts);
                }
            }
        }
        store.set_down(None);
        let start = Instant::now();
        while !model.waiting.is_empty() {
            assert!(start.elapsed() < LIMIT, "seed {seed}: {:?} wait", model.waiting);
            if store.needs_home() {
                next_home += 1;
                store.set_next_home(Some(next_home));
            }
            if let Ok(outcome) = leased.bench.outcomes.recv_timeout(Duration::from_millis(20)) {
                hear(&mut model, outcome);
            }
        }
        let durable: std::collections::BTreeSet<u64> = leased.bench.durable().into_iter().collect();
        assert!(model.stored.is_subset(&durable), "seed {seed}");
        assert!(model.refused.is_disjoint(&model.stored), "seed {seed}");
        assert_eq!(leased.bench.writer.stop(LIMIT), 0, "seed {seed}");
    }
}
