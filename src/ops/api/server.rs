//! `GET /api/v1/server`: what the server is, has and does as a whole.
//!
//! A snapshot, what changed lately and the settings in, JSON out. Knows no function by name.
//!
//! Invariant: no secret of the options is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::super::app::App;
use super::super::error::ApiError;
use super::super::guard::Caller;
use super::super::history::{Counts, Rate, percentile};
use super::super::link::Link;
use super::super::snapshot::Snapshot;
use super::cluster::Membership;
use super::functions::ByPriority;
use super::params::Params;
use crate::engine::numbers::{Gauges, Numbers};
use crate::protocol::access::{Right, Scope};
use crate::shard::operator::{ConnectionKinds, FunctionRow};
use crate::store::health::{COMMIT_BOUNDS_US, StoreHealth};

#[derive(Debug, Serialize)]
struct Core {
    core: usize,
    busy: f64,
    connections: u64,
    jobs: u64,
    functions: u64,
}

#[derive(Debug, Serialize)]
struct Memory {
    job_bytes: u64,
    used_bytes: u64,
    limit_bytes: usize,
    outbox_bytes: u64,
    resident_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Connections {
    plain: u64,
    tls: u64,
    unix: u64,
    http: usize,
}

#[derive(Debug, Serialize)]
struct Store {
    kind: &'static str,
    up: bool,
    pending_operations: u64,
    oldest_pending_seconds: f64,
    /// Null before the first commit.
    commit_p99_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Jobs {
    queued: ByPriority<u64>,
    delayed: u64,
    running: u64,
}

/// Dead letters and their bounds.
#[derive(Debug, Serialize)]
struct Dead {
    count: u64,
    count_limit: usize,
    used_bytes: u64,
    limit_bytes: usize,
    keep_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Totals {
    submitted: u64,
    completed: u64,
    failed: u64,
    refused: u64,
}

/// What changes from second to second.
#[derive(Debug, Serialize)]
pub(super) struct Numbered {
    cores: Vec<Core>,
    memory: Memory,
    connections: Connections,
    store: Option<Store>,
    /// Null without a database that has partitions.
    cluster: Option<Membership>,
    jobs: Jobs,
    dead: Dead,
    functions: usize,
    totals: Totals,
    rate: Rate,
}

#[derive(Debug, Serialize)]
struct Certificate<'a> {
    file: &'a str,
    not_after: u64,
}

/// What the peer that asks may do with all functions.
#[derive(Debug, Serialize)]
struct May {
    admin: bool,
    submit: bool,
}

#[derive(Debug, Serialize)]
struct Server<'a> {
    version: &'static str,
    uptime_seconds: f64,
    start_time_seconds: f64,
    driver: &'static str,
    pid: u32,
    listeners: Vec<String>,
    options: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    numbered: Numbered,
    history: Vec<u32>,
    certificates: Vec<Certificate<'a>>,
    may: May,
}

/// `GET /api/v1/server`.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, ApiError> {
    caller.may_observe_all()?;
    Params::of(&uri, &[])?;
    let link = app.link()?;
    let snapshot = app.snapshots().get(&link).await?;
    let settings = app.settings();
    let http = app.places().iter().map(|place| format!("http:{place}"));
    let tls = app.tls();
    let certificate = tls
        .iter()
        .map(|tls| Certificate { file: &settings.certificate_file, not_after: tls.not_after_s() });
    let may = |right| {
        let permissions = caller.permissions.as_ref();
        permissions.is_none_or(|it| it.may(right, Scope::AllFunctions).is_allowed)
    };
    let json = Server {
        version: settings.version,
        uptime_seconds: app.started().elapsed().as_secs_f64(),
        start_time_seconds: app.started_s(),
        driver: settings.driver,
        pid: std::process::id(),
        listeners: settings.places.iter().cloned().chain(http).collect(),
        options: settings.options.iter().map(|(name, value)| (&**name, &**value)).collect(),
        numbered: numbered(&app, &link, &snapshot),
        history: app.with_history(|history| history.ended_of_all()),
        certificates: certificate.collect(),
        may: May { admin: may(Right::Admin), submit: may(Right::Submit) },
    };
    Ok(Json(json).into_response())
}

/// The numbers of a snapshot.
pub(super) fn numbered(app: &App, link: &Link, snapshot: &Snapshot) -> Numbered {
    let cores = link.cores();
    // By core: jobs and functions.
    let mut owned = vec![(0, 0); cores.count];
    let mut gauges = Sums::default();
    let mut counts = Counted::default();
    for row in &snapshot.functions {
        let name = row.name.as_deref().unwrap_or_default();
        let core = cores.owner_of(name);
        gauges.add(&row.gauges);
        counts.add(row.numbers.as_deref());
        if let Some((jobs, functions)) = owned.get_mut(core) {
            *jobs += Sums::of(&row.gauges).all();
            *functions += u64::from(row.exists);
        }
    }
    counts.add(snapshot.other.numbers.as_deref());
    let kinds = snapshot.cores.iter().map(|core| core.connections);
    let kinds: Vec<ConnectionKinds> = kinds.collect();
    let sum = |kind: fn(&ConnectionKinds) -> u64| kinds.iter().map(kind).sum();
    let memory: Vec<_> = snapshot.cores.iter().map(|core| core.stats.memory()).collect();
    let used: i64 = memory.iter().map(|memory| memory.used).sum();
    let settings = app.settings();
    Numbered {
        cores: (0..)
            .zip(owned)
            .map(|(core, (jobs, functions))| {
                let busy_s = link.core_times(core).1.unwrap_or_default();
                let kinds = kinds.get(core).copied().unwrap_or_default();
                Core {
                    core,
                    busy: app.with_history(|it| it.busy_share(core, snapshot.at, busy_s)),
                    connections: kinds.plain + kinds.tls + kinds.unix,
                    jobs,
                    functions,
                }
            })
            .collect(),
        memory: Memory {
            job_bytes: memory.iter().map(|memory| memory.jobs).sum(),
            used_bytes: u64::try_from(used).unwrap_or(0),
            limit_bytes: settings.memory_bytes_max,
            outbox_bytes: memory.iter().map(|memory| memory.outboxes).sum(),
            resident_bytes: resident_bytes().unwrap_or(0),
        },
        connections: Connections {
            plain: sum(|kinds| kinds.plain),
            tls: sum(|kinds| kinds.tls),
            unix: sum(|kinds| kinds.unix),
            http: app.connections().count(),
        },
        store: settings.store.zip(settings.store_health.as_ref()).map(|(kind, it)| store(kind, it)),
        cluster: settings.cluster.as_deref().map(Membership::of),
        jobs: Jobs {
            queued: gauges.queued.into(),
            delayed: gauges.delayed,
            running: gauges.running,
        },
        dead: Dead {
            count: gauges.dead,
            count_limit: settings.dead.count_max,
            used_bytes: snapshot.cores.iter().map(|core| core.dead_bytes).sum(),
            limit_bytes: settings.dead.bytes_max,
            keep_seconds: settings.dead.keep_ms as f64 / 1000.0,
        },
        functions: snapshot.functions.iter().filter(|row: &&FunctionRow| row.exists).count(),
        totals: Totals {
            submitted: counts.jobs.submitted,
            completed: counts.jobs.completed,
            failed: counts.jobs.failed,
            refused: counts.refused,
        },
        rate: app.with_history(|history| history.rate_of_all(snapshot.at, counts.jobs)),
    }
}

fn store(kind: &'static str, health: &StoreHealth) -> Store {
    let numbers = health.snapshot();
    let bounds_ms = COMMIT_BOUNDS_US.map(|us| us as f64 / 1000.0);
    Store {
        kind,
        up: numbers.up,
        pending_operations: numbers.pending,
        oldest_pending_seconds: numbers.oldest_pending_ms.unwrap_or(0) as f64 / 1000.0,
        commit_p99_seconds: percentile(&numbers.commits, &bounds_ms, 0.99),
    }
}

/// Memory of the process that is in RAM.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// Jobs of several functions.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    queued: [u64; 3],
    delayed: u64,
    running: u64,
    dead: u64,
}

impl Sums {
    fn of(gauges: &Gauges) -> Self {
        let mut sums = Self::default();
        sums.add(gauges);
        sums
    }

    fn add(&mut self, gauges: &Gauges) {
        self.queued.iter_mut().zip(gauges.queued).for_each(|(sum, more)| *sum += u64::from(more));
        self.delayed += u64::from(gauges.delayed);
        self.running += u64::from(gauges.running);
        self.dead += u64::from(gauges.dead);
    }

    fn all(&self) -> u64 {
        self.queued.iter().sum::<u64>() + self.delayed + self.running
    }
}

/// What was counted of several functions.
#[derive(Debug, Default)]
struct Counted {
    jobs: Counts,
    refused: u64,
}

impl Counted {
    fn add(&mut self, numbers: Option<&Numbers>) {
        let Some(numbers) = numbers else { return };
        self.jobs += Counts::of(numbers);
        self.refused += numbers.refused.iter().sum::<u64>();
    }
}
