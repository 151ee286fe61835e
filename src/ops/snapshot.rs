//! Snapshots of what all cores count and have, kept for a second.
//!
//! Requests in, one shared snapshot out: ten scrapers cost what one costs. Knows no format.
//!
//! Invariant: of a function, all numbers are of the same moment; the functions of a snapshot were
//! read within the time that it took.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::link::{Ending, Link};
use crate::shard::operator::{
    CoreNumbers, FunctionRow, FunctionsAt, OperatorReply, OperatorRequest,
};

/// How long a snapshot is good for.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// What all cores count and have.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// When it was taken.
    pub(super) at: Instant,
    /// The same, in seconds since 1970.
    pub(super) unix_s: f64,
    /// By core.
    pub(super) cores: Vec<CoreNumbers>,
    /// Functions that are named in metrics, those included that are no longer there, then the
    /// others. None is twice.
    pub(super) functions: Vec<FunctionRow>,
    /// The sum of those that aren't named.
    pub(super) other: FunctionRow,
}

/// The latest snapshot.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Mutex<Option<Arc<Snapshot>>>);

impl Snapshots {
    /// A snapshot that is at most a second old.
    ///
    /// # Errors
    /// `Ending`: the cores have ended.
    pub(super) async fn get(&self, link: &Link) -> Result<Arc<Snapshot>, Ending> {
        // Held while it is taken: others that want it wait for the same.
        let mut latest = self.0.lock().await;
        if let Some(snapshot) = latest.as_ref().filter(|it| it.at.elapsed() < GOOD_FOR) {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot = Arc::new(take(link).await?);
        *latest = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Something was changed by a request: the next snapshot shows it.
    pub(super) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

/// The functions that are named in metrics, and each core's sum of the others.
///
/// # Errors
/// `Ending`: the cores have ended.
pub(super) async fn named_functions(link: &Link) -> Result<Vec<FunctionRow>, Ending> {
    let mut functions = Vec::new();
    for core in 0..link.cores().count {
        let mut next = Some(FunctionsAt::START);
        while let Some(from @ FunctionsAt::Named(_)) = next {
            let reply = link.ask(core, OperatorRequest::Functions(from)).await?;
            let OperatorReply::Functions(rows, rest) = reply else { break };
            functions.extend(rows.into_iter().filter(|row| row.numbers.is_some()));
            next = rest;
        }
    }
    Ok(functions)
}

async fn take(link: &Link) -> Result<Snapshot, Ending> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = Instant::now();
    let (mut cores, mut functions) = (Vec::new(), Vec::new());
    for core in 0..link.cores().count {
        if let OperatorReply::Numbers(numbers) = link.ask(core, OperatorRequest::Numbers).await? {
            cores.push(*numbers);
        }
        let mut next = Some(FunctionsAt::START);
        while let Some(from) = next {
            let reply = link.ask(core, OperatorRequest::Functions(from)).await?;
            let OperatorReply::Functions(rows, rest) = reply else { break };
            functions.extend(rows);
            next = rest;
        }
    }
    Ok(Snapshot::new(at, since_epoch, cores, functions))
}

impl Snapshot {
    /// Of what all cores replied, at a time since 1970.
    pub(super) fn new(
        at: Instant,
        since_epoch: Duration,
        cores: Vec<CoreNumbers>,
        rows: Vec<FunctionRow>,
    ) -> Self {
        let (functions, others): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|row| row.name.is_some());
        Self { at, unix_s: since_epoch.as_secs_f64(), cores, functions, other: sum(others) }
    }
}

/// The sum of all cores' functions that aren't named.
fn sum(rows: Vec<FunctionRow>) -> FunctionRow {
    let mut other = FunctionRow {
        name: None,
        exists: true,
        gauges: Default::default(),
        numbers: Some(Box::default()),
        queue_max: [0; 3],
        pause: None,
    };
    for row in rows {
        other.gauges += &row.gauges;
        if let (Some(sum), Some(numbers)) = (&mut other.numbers, &row.numbers) {
            **sum += numbers;
        }
    }
    other
}

impl Snapshot {
    /// Seconds from a moment, in milliseconds since 1970, to the snapshot.
    pub(super) fn age_of(&self, unix_ms: u64) -> f64 {
        (self.unix_s - unix_ms as f64 / 1000.0).max(0.0)
    }

    /// A snapshot of one core with these functions.
    #[cfg(test)]
    pub(super) fn of(functions: Vec<FunctionRow>) -> Self {
        let other = sum(Vec::new());
        let cores = vec![CoreNumbers::default()];
        Self { at: Instant::now(), unix_s: 1.7e9, cores, functions, other }
    }
}
