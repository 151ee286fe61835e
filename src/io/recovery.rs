//! The start with a store: what the store has in, each core's jobs, dead letters and pauses out.
//!
//! Knows the store's rows and which core owns which function, and neither threads nor sockets.
//!
//! Invariant: what concerns a function is restored at the core that owns it, dead letters in the
//! order of their deaths.

use std::collections::BTreeMap;

use bytes::Bytes;
use tracing::{info, warn};

use super::host::clock::Clock;
use crate::engine::record::Pause;
use crate::shard::Shard;
use crate::shard::cores::Cores;
use crate::store::{Store, StoreError};

/// Time between two log lines about a recovery that goes on.
const LOG_INTERVAL_MS: u64 = 1000;

/// How far the recovery is.
#[derive(Default)]
struct Progress {
    jobs: u64,
    dead: u64,
    /// Rows with the handle of another.
    doubles: u64,
    /// When the last line was logged.
    logged_ms: u64,
}

impl Progress {
    fn log(&mut self, now_ms: u64) {
        if now_ms >= self.logged_ms + LOG_INTERVAL_MS {
            self.logged_ms = now_ms;
            info!(jobs = self.jobs, dead = self.dead, "recovering");
        }
    }
}

/// Restores what the store has; returns the paused functions.
///
/// # Errors
/// `StoreError` if not all could be read.
pub(super) fn recover(
    store: &mut dyn Store,
    shards: &mut [Shard],
    clock: &Clock,
) -> Result<BTreeMap<Bytes, Pause>, StoreError> {
    let cores = Cores { own: 0, count: shards.len() };
    let start_ms = clock.now().mono_ms;
    let mut progress = Progress { logged_ms: start_ms, ..Progress::default() };
    store.load(&mut |row| {
        let now = clock.now();
        let restored = shards[cores.owner_of(&row.function)].restore(&row, now);
        *if restored { &mut progress.jobs } else { &mut progress.doubles } += 1;
        progress.log(now.mono_ms);
    })?;
    store.load_dead(&mut |dead| {
        let now = clock.now();
        let restored = shards[cores.owner_of(&dead.row.function)].restore_dead(&dead, now);
        *if restored { &mut progress.dead } else { &mut progress.doubles } += 1;
        progress.log(now.mono_ms);
    })?;
    let mut pauses = BTreeMap::new();
    store.load_pauses(&mut |function, pause| {
        shards[cores.owner_of(&function)].restore_pause(&function, pause, clock.now());
        pauses.insert(function, pause);
    })?;
    let Progress { jobs, dead, doubles, .. } = progress;
    let ms = clock.now().mono_ms - start_ms;
    if doubles > 0 {
        warn!(
            doubles,
            "jobs of the store that have the handle of another were left out: look for rows \
             that something else than ringgeard wrote"
        );
    }
    info!(jobs, dead, ms, "recovered");
    Ok(pauses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::handle::{job_number, slot};
    use crate::engine::reason::Reason;
    use crate::engine::record::{DeadRow, Operation, Row};
    use crate::shard::Settings;
    use crate::store::lock::Lock;
    use crate::store::sqlite::Sqlite;
    use crate::wire::Priority;

    fn row(sequence: u64, function: &'static str) -> Row {
        Row {
            number: job_number(sequence, slot(function.as_bytes())),
            function: Bytes::from_static(function.as_bytes()),
            unique: Bytes::new(),
            reducer: Bytes::new(),
            payload: Bytes::from_static(b"p"),
            priority: Priority::Normal,
            run_at_ms: 0,
            attempts: 3,
            last_reason: Some(Reason::Exception),
            was_lost: true,
            submitted_ms: 1_700_000_000_123,
        }
    }

    fn dead(sequence: u64, function: &'static str, died_ms: u64) -> DeadRow {
        DeadRow {
            row: row(sequence, function),
            reason: Reason::Exception,
            died_ms,
            worker: Bytes::from_static(b"wanda"),
            message: Bytes::from_static(b"boom"),
        }
    }

    #[test]
    fn each_core_gets_what_belongs_to_its_functions() {
        let cores = |own| Cores { own, count: 2 };
        let names = ["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7"];
        let named = |core| names.into_iter().find(|it| cores(0).owner_of(it.as_bytes()) == core);
        let (zero, one) = (named(0).unwrap(), named(1).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::try_acquire(&folder.path().join("jobs.db")).unwrap();
        let mut store = Sqlite::open(lock, None, 1).unwrap();
        let now_ms = Clock::start().now().unix_ms;
        // The one that died first has the larger number.
        let letters = [dead(5, one, now_ms - 9), dead(4, one, now_ms - 8), dead(6, zero, now_ms)];
        let mut operations: Vec<Operation> =
            letters.iter().cloned().map(|it| Operation::Bury(Box::new(it))).collect();
        operations.push(Operation::Insert { row: row(7, zero), answered: true });
        for (function, pause) in [(one, Pause::Unlimited), ("other", Pause::Until(u64::MAX))] {
            let function = Bytes::from_static(function.as_bytes());
            operations.push(Operation::Pause { function, pause: Some(pause) });
        }
        store.commit(&operations).unwrap();

        let clock = Clock::start();
        let shard =
            |own| Shard::new(Settings { cores: cores(own), ..Settings::default() }, clock.now());
        let mut shards = [shard(0), shard(1)];
        recover(&mut store, &mut shards, &clock).unwrap();
        let dead_rows = |core: usize| -> Vec<DeadRow> {
            let engine = shards[core].engine();
            let numbers = engine.dead().iter_from(0).map(|(_, letter)| letter.job.number);
            numbers.filter_map(|number| engine.dead_row(number)).collect()
        };
        let [first, second, third] = letters;
        assert_eq!((dead_rows(0), dead_rows(1)), (vec![third], vec![first, second]));
        let pause = |name: &str| {
            let functions = shards[cores(0).owner_of(name.as_bytes())].engine().functions();
            functions[functions.find(name.as_bytes()).unwrap()].pause
        };
        assert_eq!((pause(zero), pause(one)), (None, Some(Pause::Unlimited)));
        assert_eq!(pause("other"), Some(Pause::Until(u64::MAX)));
        let engine = shards[0].engine();
        let job = engine.find(row(7, zero).number).map(|id| &engine.jobs()[id]);
        assert_eq!(job.map(|job| (job.attempts, job.was_lost)), Some((3, true)));
    }
}
