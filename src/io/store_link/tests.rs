//! The link between a shard and the writer, with a store in memory.

use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::*;
use crate::cluster::lease::Lease;
use crate::engine::handle::job_number;
use crate::engine::reason::Reason;
use crate::engine::record::{DeadRow, Pause, Row};
use crate::io::cores::mesh;
use crate::io::host::clock::Clock;
use crate::io::member::member_channel;
use crate::shard::Settings;
use crate::store::faulty::{Faulty, HOME, sequences_of};
use crate::store::namespace::{Record, next_mark};
use crate::store::{Committed, Store, StoreError, writer};
use crate::wire::Priority;

/// A store that keeps nothing but a record.
#[derive(Debug)]
struct Empty;

impl Store for Empty {
    fn record(&mut self) -> Result<Record, StoreError> {
        Ok(Record::default())
    }

    fn reserve(&mut self, _: &[u8], from: u64) -> Result<Range<u64>, StoreError> {
        Ok(from..next_mark(from))
    }

    fn load(&mut self, _: &mut dyn FnMut(Row)) -> Result<(), StoreError> {
        Ok(())
    }

    fn load_dead(&mut self, _: &mut dyn FnMut(DeadRow)) -> Result<(), StoreError> {
        Ok(())
    }

    fn load_pauses(&mut self, _: &mut dyn FnMut(Bytes, Pause)) -> Result<(), StoreError> {
        Ok(())
    }

    fn commit(&mut self, _: &[Operation]) -> Result<Committed, StoreError> {
        Ok(Committed::default())
    }

    fn check(&mut self) -> Result<Committed, StoreError> {
        Ok(Committed::default())
    }
}

#[test]
fn a_core_gets_its_next_numbers_while_it_still_has_some() {
    let now = Now::default();
    let mut shard = Shard::new(Settings::default(), now);
    let mailbox = mesh::mesh::<()>(1, |()| 0).unwrap().remove(0);
    let (sender, receiver) = outcome_channel(mailbox.waker());
    let mark = 10;
    shard.set_sequences(0..mark);
    let settings = writer::Settings {
        cores: 1,
        timeout: Duration::ZERO,
        prefix: (*b"H:a").into(),
        mark,
        needs_sequences: false,
        health: Arc::default(),
        lease: None,
        view: Arc::default(),
        pauses: Arc::default(),
    };
    let report = move |_: usize, outcome| sender.send(outcome);
    let writer = Writer::start(Box::new(Empty), settings, report).unwrap();
    let mut link = StoreLink::new(0, receiver, &writer, mark, None);
    let deadline = Instant::now() + Duration::from_secs(10);
    for _ in 0..2 {
        while shard.sequences_left() < BLOCK {
            assert!(Instant::now() < deadline, "{} left", shard.sequences_left());
            link.send(&mut shard);
            link.receive(&mut shard, now).unwrap();
        }
        link.send(&mut shard);
        assert!(!link.is_reserving, "half a block is left");
        // As if most of it were used.
        shard.set_sequences(1..BLOCK / 2);
        link.send(&mut shard);
        assert!(link.is_reserving);
    }
    writer.stop(Duration::from_secs(10));
}

/// A core of a server whose store has partitions.
struct Core {
    shard: Shard,
    link: StoreLink,
    /// What reports outcomes beside the writer.
    outcomes: OutcomeSender,
    store: Faulty,
    view: Arc<View>,
    clock: Clock,
    writer: Writer,
}

impl Core {
    fn new() -> Self {
        let (clock, lease) = (Clock::start(), Lease::new(Duration::from_millis(900)));
        let store = Faulty::with_lease(lease);
        let view = Arc::<View>::default();
        let lease = Arc::new(LeaseState::new(lease, 1, clock.began()));
        let mut shard = Shard::new(Settings::default(), clock.now());
        shard.set_sequences(sequences_of(HOME));
        let mailbox = mesh::mesh::<()>(1, |()| 0).unwrap().remove(0);
        let (outcomes, receiver) = outcome_channel(mailbox.waker());
        let mark = sequences_of(HOME).end;
        let settings = writer::Settings {
            cores: 1,
            timeout: Duration::ZERO,
            prefix: (*b"H:a").into(),
            mark,
            needs_sequences: false,
            health: Arc::default(),
            lease: Some(Arc::clone(&lease)),
            view: Arc::clone(&view),
            pauses: Arc::default(),
        };
        let sender = outcomes.clone();
        let report = move |_: usize, outcome| sender.send(outcome);
        let writer = Writer::start(Box::new(store.clone()), settings, report).unwrap();
        let (requests, _) = member_channel();
        let member = MemberLink { lease, view: Arc::clone(&view), requests, is_suspended: false };
        let link = StoreLink::new(0, receiver, &writer, mark, Some(member));
        let mut core = Self { shard, link, outcomes, store, view, clock, writer };
        core.turn_until("no beat", |core| core.lease().suspends_at_ms() > 0);
        core.turn_until("still suspended", |core| !core.is_suspended());
        core
    }

    fn lease(&self) -> &LeaseState {
        &self.link.member.as_ref().unwrap().lease
    }

    fn turn(&mut self) {
        let now = self.clock.now();
        self.link.begin_turn(&mut self.shard, now);
        self.link.receive(&mut self.shard, now).unwrap();
        self.link.send(&mut self.shard);
    }

    fn turn_until(&mut self, what: &str, is_there: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_there(self) {
            assert!(Instant::now() < deadline, "{what}");
            self.turn();
        }
    }

    fn is_suspended(&self) -> bool {
        self.shard.engine().is_suspended()
    }

    fn has_job(&self, number: u64) -> bool {
        self.shard.engine().find(number).is_some()
    }
}

fn row(number: u64) -> Row {
    Row {
        number,
        function: Bytes::from_static(b"f"),
        unique: Bytes::new(),
        reducer: Bytes::new(),
        payload: Bytes::from_static(b"p"),
        priority: Priority::Normal,
        run_at_ms: 0,
        attempts: 0,
        last_reason: None,
        was_lost: false,
        submitted_ms: 0,
    }
}

#[test]
fn a_core_is_suspended_from_its_first_turn_after_the_deadline_to_the_next_beat() {
    let mut core = Core::new();
    assert!(!core.view.is_suspended.load(Ordering::Relaxed));
    core.store.cut_off(true);
    let deadline_ms = core.link.deadline_ms().unwrap();
    assert!(deadline_ms <= core.clock.now().mono_ms + 600, "{deadline_ms}");
    core.turn_until("not suspended", Core::is_suspended);
    assert!(core.view.is_suspended.load(Ordering::Relaxed));
    assert_eq!(core.link.deadline_ms(), None, "nothing more to come");
    core.store.cut_off(false);
    core.turn_until("still suspended", |core| !core.is_suspended());
    assert!(!core.view.is_suspended.load(Ordering::Relaxed));
    core.writer.stop(Duration::from_secs(10));
}

/// A server that goes on after a while hears of its losses before it hands out a job.
#[test]
fn losses_come_before_the_end_of_a_suspension() {
    let mut core = Core::new();
    core.store.cut_off(true);
    core.turn_until("not suspended", Core::is_suspended);
    core.store.take(HOME);
    core.store.cut_off(false);
    core.turn_until("still suspended", |core| !core.is_suspended());
    assert!(core.link.is_homeless, "it has heard of the loss");
    core.store.set_next_home(Some(2));
    core.turn_until("no home", |core| !core.link.is_homeless);
    assert_eq!(core.link.moves, 2);
    let left = sequences_of(2).end - sequences_of(2).start;
    assert_eq!(core.shard.sequences_left(), left, "numbers of the next home only");
    core.writer.stop(Duration::from_secs(10));
}

#[test]
fn jobs_and_dead_letters_come_and_go_with_their_partition() {
    let mut core = Core::new();
    let [ours, theirs] = [100_u64, 101].map(|block| {
        core.view.write().blocks.insert(block, u32::try_from(block).unwrap());
        move |at: u64| job_number((block << 28) + at, 0)
    });
    let letter = |number| DeadRow {
        row: row(number),
        reason: Reason::Fail,
        died_ms: core.clock.now().unix_ms,
        worker: Bytes::new(),
        message: Bytes::new(),
    };
    let jobs = vec![row(theirs(2)), row(theirs(1)), row(ours(1))];
    let dead = vec![letter(theirs(9)), letter(ours(9))];
    core.outcomes.send(Outcome::Adopted { jobs, dead });
    core.turn();
    assert!([theirs(2), theirs(1), ours(1)].iter().all(|&number| core.has_job(number)));
    assert_eq!(core.shard.engine().dead().len(), 2);
    core.outcomes.send(Outcome::Dropped { partition: 101, is_home: false });
    core.turn();
    assert_eq!([theirs(2), theirs(1), ours(1)].map(|it| core.has_job(it)), [false, false, true]);
    assert!(core.shard.engine().dead_row(ours(9)).is_some());
    assert!(core.shard.engine().dead_row(theirs(9)).is_none());
    core.writer.stop(Duration::from_secs(10));
}
