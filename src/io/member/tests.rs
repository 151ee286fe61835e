//! The thread over a database in memory, with a writer whose store is in memory, too.

mod database;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use self::database::{Adopting, Database};
use super::*;
use crate::cluster::lease::Lease;
use crate::cluster::partition::{PartitionId, State};
use crate::engine::reason::Reason;
use crate::engine::record::{DeadRow, Operation, Row};
use crate::store::faulty::{Faulty, HOME, number_in, sequences_of};
use crate::store::writer::{self, Batch, Writer};
use crate::wire::Priority;

const LIMIT: Duration = Duration::from_secs(10);
/// Reads come every 150 ms.
const LEASE: Duration = Duration::from_millis(900);
/// The partition that others leave.
const THEIRS: PartitionId = 7;

/// A server's threads, and what they report.
struct Bench {
    member: Option<Member>,
    requests: MemberSender,
    writer: Option<Writer>,
    sender: Sender,
    database: Database,
    store: Faulty,
    lease: Arc<LeaseState>,
    view: Arc<View>,
    memory_left: Arc<AtomicUsize>,
    is_leaving: Arc<AtomicBool>,
    outcomes: Mutex<Receiver<(Core, Outcome)>>,
    cores: Cores,
}

impl Bench {
    /// With two cores, once it has beaten and read.
    fn new() -> Self {
        Self::with_cluster(true)
    }

    fn with_cluster(is_cluster: bool) -> Self {
        let cores = Cores { own: 0, count: 2 };
        let lease = Lease::new(LEASE);
        let state = Arc::new(LeaseState::new(lease, cores.count, Instant::now()));
        // They never count as late.
        (0..cores.count).for_each(|core| state.note_turn(core, u64::MAX));
        let (view, own_pauses) = (Arc::<View>::default(), Arc::<OwnPauses>::default());
        let store = Faulty::with_lease(lease);
        let (tell, outcomes) = mpsc::channel();
        let report = move |core, outcome| drop(tell.send((core, outcome)));
        let settings = writer::Settings {
            cores: cores.count,
            timeout: LIMIT,
            prefix: (*b"H:a").into(),
            mark: sequences_of(HOME).end,
            needs_sequences: false,
            health: Arc::default(),
            lease: Some(Arc::clone(&state)),
            view: Arc::clone(&view),
            pauses: Arc::clone(&own_pauses),
        };
        let writer = Writer::start(Box::new(store.clone()), settings, report.clone()).unwrap();
        let database = Database::default();
        database.own(HOME);
        let memory_left = Arc::new(AtomicUsize::new(1 << 30));
        let is_leaving = Arc::<AtomicBool>::default();
        let (memory, leaving) = (Arc::clone(&memory_left), Arc::clone(&is_leaving));
        let settings = MemberSettings {
            members: Box::new(database.clone()),
            lease: Arc::clone(&state),
            view: Arc::clone(&view),
            writer: writer.sender(),
            cores,
            is_cluster,
            own_pauses,
            pauses: BTreeMap::new(),
            memory_left: Box::new(move || memory.load(Ordering::Relaxed)),
            is_leaving: Box::new(move || leaving.load(Ordering::Relaxed)),
        };
        let (requests, receiver) = member_channel();
        let member = Member::start(settings, (requests.clone(), receiver), report).unwrap();
        let bench = Self {
            member: Some(member),
            requests,
            sender: writer.sender(),
            writer: Some(writer),
            database,
            store,
            lease: state,
            view,
            memory_left,
            is_leaving,
            outcomes: Mutex::new(outcomes),
            cores,
        };
        // The first beat wakes the cores.
        (0..2).for_each(|core| assert_eq!(bench.next(), (core, Outcome::Wake)));
        bench.wait_for("no read", |bench| !bench.view.read().partitions.is_empty());
        bench
    }

    fn next(&self) -> (Core, Outcome) {
        self.outcomes.lock().unwrap().recv_timeout(LIMIT).unwrap()
    }

    fn wait_for(&self, what: &str, is_there: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_there(self) {
            assert!(start.elapsed() < LIMIT, "{what}");
            thread::yield_now();
        }
    }

    /// Waits until so many more reads have been done with.
    fn wait_for_reads(&self, count: u64) {
        let reads = self.database.reads();
        // The last of them may still be in use.
        self.wait_for("no read", |bench| bench.database.reads() > reads + count);
    }

    /// The numbers of adopted jobs and dead letters in the order in which the cores get them; each
    /// batch is taken at once.
    fn take_adopted(&self, count: usize) -> Vec<u64> {
        let mut numbers = Vec::new();
        while numbers.len() < count {
            let (core, outcome) = self.next();
            let Outcome::Adopted { jobs, dead } = outcome else { panic!("{outcome:?}") };
            let rows = jobs.iter().chain(dead.iter().map(|letter| &letter.row));
            for row in rows {
                assert_eq!(self.cores.owner_of(&row.function), core);
                numbers.push(row.number);
            }
            self.requests.note_taken();
        }
        numbers
    }

    fn adopted(&self) -> u64 {
        self.view.adopted.load(Ordering::Relaxed)
    }

    fn is_loading(&self, partition: PartitionId) -> bool {
        self.view.read().loading.contains(&partition)
    }

    /// Another server takes a partition that this one has.
    fn lose(&self, partition: PartitionId) {
        self.store.take(partition);
        self.database.take(partition);
        for core in 0..2 {
            let is_home = partition == HOME;
            assert_eq!(self.next(), (core, Outcome::Dropped { partition, is_home }));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let (member, writer) = (self.member.take(), self.writer.take());
        member.into_iter().for_each(|member| member.stop(LIMIT));
        writer.into_iter().for_each(|writer| {
            writer.stop(LIMIT);
        });
    }
}

fn row(at: u64) -> Row {
    Row {
        number: number_in(THEIRS, at),
        function: Bytes::from(format!("f{}", at % 4)),
        unique: Bytes::new(),
        reducer: Bytes::new(),
        payload: Bytes::from_static(b"payload"),
        priority: Priority::Normal,
        run_at_ms: 0,
        last_reason: None,
        was_lost: false,
        attempts: 0,
        submitted_ms: 0,
    }
}

fn letter(at: u64) -> DeadRow {
    let (worker, message) = (Bytes::new(), Bytes::new());
    DeadRow { row: row(at), reason: Reason::Fail, died_ms: 1, worker, message }
}

fn numbers(at: impl IntoIterator<Item = u64>) -> Vec<u64> {
    at.into_iter().map(|at| number_in(THEIRS, at)).collect()
}

/// As a batch is split by core, numbers descend for each core only.
fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable_by_key(|&number| std::cmp::Reverse(number));
    numbers
}

#[test]
fn an_offered_partition_is_adopted_whole_with_the_largest_numbers_first() {
    let bench = Bench::new();
    bench.database.offer(THEIRS, (1..=20).map(row), (30..=33).map(letter));
    let loaded = bench.take_adopted(24);
    bench.wait_for("not adopted", |bench| bench.adopted() == 1);
    assert_eq!(sorted(loaded[..20].to_vec()), numbers((1..=20).rev()));
    assert_eq!(sorted(loaded[20..].to_vec()), numbers((30..=33).rev()));
    // Batches don't overlap.
    let batch = database::BATCH;
    for batches in loaded[..20].chunks(batch).collect::<Vec<_>>().windows(2) {
        assert!(batches[0].iter().min() > batches[1].iter().max(), "{loaded:?}");
    }
    assert_eq!(bench.store.loaded().len(), 24, "the store's thread knows all");
    assert!(bench.lease.owned().contains(THEIRS) && !bench.is_loading(THEIRS));
    bench.wait_for("not shown", |bench| bench.view.read().is_known_here(THEIRS));
}

#[test]
fn the_next_batch_waits_until_the_cores_have_taken_the_last() {
    let bench = Bench::new();
    bench.database.offer(THEIRS, (1..=20).map(row), []);
    let (_, first) = bench.next();
    assert!(matches!(first, Outcome::Adopted { .. }));
    bench.wait_for_reads(2);
    assert_eq!(bench.database.loads(), 1);
    assert!(bench.is_loading(THEIRS), "only the database knows its jobs");
    // Lookups are answered meanwhile.
    bench.requests.look_up(1, vec![5, 6]);
    let mut outcomes = std::iter::repeat_with(|| bench.next());
    let found = outcomes.find(|(_, it)| !matches!(it, Outcome::Adopted { .. }));
    let expected = Outcome::Found { numbers: vec![(5, false), (6, false)] };
    assert_eq!(found, Some((1, expected)));
}

#[test]
fn a_load_that_fails_goes_on_from_where_it_was() {
    let bench = Bench::new();
    bench.database.fail_loads(2, 2);
    bench.database.offer(THEIRS, (1..=20).map(row), [letter(30)]);
    assert_eq!(sorted(bench.take_adopted(21)), sorted(numbers((1..=20).chain([30]))));
    bench.wait_for("not adopted", |bench| bench.adopted() == 1);
}

#[test]
fn what_is_lost_while_it_is_loaded_is_loaded_no_further() {
    let bench = Bench::new();
    bench.database.offer(THEIRS, (1..=20).map(row), []);
    let (_, first) = bench.next();
    assert!(matches!(first, Outcome::Adopted { .. }));
    bench.wait_for("not read", |bench| bench.lease.owned().contains(THEIRS));
    // The other core's part of the batch may still come.
    bench.store.take(THEIRS);
    bench.database.take(THEIRS);
    let mut parts = 1;
    loop {
        match bench.next() {
            (_, Outcome::Adopted { .. }) => parts += 1,
            (_, Outcome::Dropped { partition: THEIRS, .. }) => break,
            other => panic!("{other:?}"),
        }
    }
    (0..parts).for_each(|_| bench.requests.note_taken());
    bench.wait_for("still loading", |bench| !bench.is_loading(THEIRS));
    bench.wait_for_reads(1);
    assert_eq!((bench.adopted(), bench.lease.owned().contains(THEIRS)), (0, false));
    let (_, outcome) = bench.next();
    assert_eq!(outcome, Outcome::Dropped { partition: THEIRS, is_home: false });

    // Its next owner leaves it: it is loaded from the beginning.
    bench.database.set_state(THEIRS, State::Offered);
    assert_eq!(bench.take_adopted(20).len(), 20);
    bench.wait_for("not adopted", |bench| bench.adopted() == 1);
}

#[test]
fn an_orphan_for_which_there_is_no_memory_is_left_until_there_is() {
    let bench = Bench::new();
    bench.memory_left.store(100, Ordering::Relaxed);
    bench.database.offer(THEIRS, (1..=20).map(row), []);
    let orphaned = |bench: &Bench| bench.view.orphaned.load(Ordering::Relaxed);
    bench.wait_for("not seen", |bench| orphaned(bench) == 1);
    bench.wait_for_reads(2);
    assert_eq!(bench.database.extents(), 1, "the whole partition isn't counted with each read");
    assert!(!bench.is_loading(THEIRS));
    bench.memory_left.store(1 << 20, Ordering::Relaxed);
    bench.take_adopted(20);
    bench.wait_for("still orphaned", |bench| orphaned(bench) == 0);
}

#[test]
fn an_adoption_without_an_answer_is_found_out_about() {
    for (adopting, is_ours) in [(Adopting::Unanswered, true), (Adopting::Refused, false)] {
        let bench = Bench::new();
        bench.database.set_adopting(adopting);
        bench.database.offer(THEIRS, (1..=4).map(row), []);
        bench.wait_for("not tried", |bench| bench.database.adoptions() == 1);
        if !is_ours {
            bench.wait_for_reads(1);
            assert!(!bench.lease.owned().contains(THEIRS));
            bench.database.set_adopting(Adopting::Answered);
        }
        bench.take_adopted(4);
        bench.wait_for("not adopted", |bench| bench.adopted() == 1);
    }
}

#[test]
fn what_another_server_adopts_first_is_left_to_it() {
    let bench = Bench::new();
    bench.database.set_adopting(Adopting::TooLate);
    bench.database.offer(THEIRS, (1..=4).map(row), []);
    bench.wait_for("not tried", |bench| bench.database.adoptions() == 1);
    bench.wait_for_reads(1);
    assert!(!bench.is_loading(THEIRS) && !bench.lease.owned().contains(THEIRS));
}

#[test]
fn nothing_is_adopted_by_a_server_that_is_suspended_homeless_or_about_to_end() {
    let is_quiet = |bench: &Bench| {
        bench.database.offer(THEIRS, (1..=4).map(row), []);
        bench.wait_for_reads(2);
        assert_eq!(bench.database.adoptions(), 0);
    };
    let bench = Bench::new();
    bench.store.cut_off(true);
    bench.wait_for("not suspended", |bench| bench.lease.is_suspended_now());
    is_quiet(&bench);
    bench.store.cut_off(false);
    (0..2).for_each(|core| assert_eq!(bench.next(), (core, Outcome::Wake)));
    bench.take_adopted(4);

    let bench = Bench::new();
    bench.lose(HOME);
    is_quiet(&bench);
    bench.store.set_next_home(Some(2));
    let home = Outcome::Home { sequences: sequences_of(2) };
    (0..2).for_each(|core| assert_eq!(bench.next(), (core, home.clone())));
    bench.take_adopted(4);

    let bench = Bench::new();
    bench.is_leaving.store(true, Ordering::Relaxed);
    is_quiet(&bench);

    let bench = Bench::with_cluster(false);
    is_quiet(&bench);
    assert_eq!(bench.view.read().partitions.len(), 2, "they are shown all the same");
}

#[test]
fn an_adoption_ends_with_the_batch_in_which_the_server_is_told_to_end() {
    let bench = Bench::new();
    bench.database.offer(THEIRS, (1..=20).map(row), []);
    let first = bench.next();
    assert!(matches!(first.1, Outcome::Adopted { .. }));
    bench.is_leaving.store(true, Ordering::Relaxed);
    (0..2).for_each(|_| bench.requests.note_taken());
    bench.wait_for_reads(2);
    assert_eq!((bench.database.loads(), bench.adopted()), (1, 0));
}

#[test]
fn the_view_has_all_partitions_and_blocks() {
    let bench = Bench::new();
    bench.database.add_block(900, THEIRS);
    bench.database.offer(THEIRS, [], []);
    bench.wait_for("not read", |bench| bench.view.read().blocks.last() == Some(900));
    bench.wait_for("not adopted", |bench| bench.adopted() == 1);
    bench.wait_for("not shown", |bench| {
        let known = &bench.view.read().partitions;
        let shown = known.iter().map(|it| (it.partition.id, it.is_own));
        shown.eq([(HOME, true), (THEIRS, true)])
    });
    bench.lose(THEIRS);
    bench.wait_for("own", |bench| !bench.view.read().partitions[1].is_own);
}

#[test]
fn lookups_say_what_the_database_has_and_nothing_while_it_fails() {
    let bench = Bench::new();
    bench.database.store(&[5, 9]);
    let found = |core, numbers: &[(u64, bool)]| (core, Outcome::Found { numbers: numbers.into() });
    bench.requests.look_up(1, vec![9, 4, 9]);
    assert_eq!(bench.next(), found(1, &[(4, false), (9, true)]));
    bench.database.set_down(true);
    bench.requests.look_up(0, vec![5]);
    assert_eq!(bench.next(), found(0, &[(5, false)]));
    bench.database.set_down(false);
    bench.requests.look_up(0, vec![5]);
    assert_eq!(bench.next(), found(0, &[(5, true)]));
}

#[test]
fn pauses_of_others_are_followed_and_own_ones_are_not_taken_back() {
    let bench = Bench::new();
    let name = |at: usize| Bytes::from(format!("f{at}"));
    let core = |at: usize| bench.cores.owner_of(&name(at));
    let changes =
        |at: usize, pause| (core(at), Outcome::Pauses { changes: [(name(at), pause)].into() });
    bench.database.pause(name(0), Some(Pause::Unlimited));
    assert_eq!(bench.next(), changes(0, Some(Pause::Unlimited)));
    // An own one, which the database shows a while after the commit.
    let pause = Some(Pause::Until(9));
    let operations = vec![Operation::Pause { function: name(1), pause }];
    bench.database.hold_reads(true);
    bench.sender.send(Batch { core: core(1), operations, moves: 0 });
    bench.store.wait_for_commits(1);
    bench.database.pause(name(1), pause);
    bench.database.hold_reads(false);
    bench.wait_for_reads(2);
    bench.database.pause(name(0), None);
    assert_eq!(bench.next(), changes(0, None), "nothing of the own one");
    bench.database.pause(name(1), None);
    assert_eq!(bench.next(), changes(1, None));
}
