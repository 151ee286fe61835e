//! `GET /api/v1/functions` and `/api/v1/functions/{function}`: what there is of functions, and what
//! was counted of them.
//!
//! Rows of the snapshot in, JSON out. Knows no core.
//!
//! Invariant: a peer sees functions only that it may observe. Paged to its end, a list that doesn't
//! change meanwhile has each function once.

use std::cmp::Ordering;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::super::app::App;
use super::super::error::ApiError;
use super::super::guard::Caller;
use super::super::history::{Counts, History, Percentiles, Rate};
use super::super::snapshot::Snapshot;
use super::cursor::ListId;
use super::names::{Labelled, Name};
use super::needs_some;
use super::params::{Named, Params};
use crate::engine::glob::Glob;
use crate::engine::numbers::{FAILURES, Failure, REFUSALS, RERUNS, Refused, Rerun};
use crate::engine::reason::Reason;
use crate::engine::record::Pause;
use crate::protocol::access::Right;
use crate::shard::operator::FunctionRow;

/// Each `Reason`, and its name in metrics.
const DEATHS: [(Reason, &str); Reason::ALL.len()] = [
    (Reason::Lost, Reason::Lost.name()),
    (Reason::TimedOut, Reason::TimedOut.name()),
    (Reason::Fail, Reason::Fail.name()),
    (Reason::Exception, Reason::Exception.name()),
    (Reason::Expired, Reason::Expired.name()),
];

/// By priority.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct ByPriority<T> {
    pub(super) high: T,
    pub(super) normal: T,
    pub(super) low: T,
}

impl<T> From<[T; 3]> for ByPriority<T> {
    fn from([high, normal, low]: [T; 3]) -> Self {
        Self { high, normal, low }
    }
}

#[derive(Debug, Serialize)]
struct ByKind {
    foreground: Option<u64>,
    background: Option<u64>,
}

/// A pause.
#[derive(Debug, Serialize)]
struct Paused {
    /// When it ends, in seconds since 1970; null for one that an operator ends.
    until: Option<f64>,
}

/// A function. What isn't counted for each is null: see `--metrics-functions`.
#[derive(Debug, Serialize)]
pub(super) struct Function<'a> {
    function: Name<'a>,
    jobs_queued: ByPriority<u32>,
    jobs_delayed: u32,
    jobs_retrying: u32,
    jobs_running: u32,
    jobs_dead: u32,
    workers: u32,
    workers_busy: u32,
    queue_oldest_age_seconds: Option<f64>,
    jobs_submitted_total: ByKind,
    jobs_joined_total: Option<u64>,
    jobs_recovered_total: Option<u64>,
    jobs_completed_total: Option<u64>,
    jobs_failed_total: Labelled<'a, Failure>,
    jobs_dead_total: Labelled<'a, Reason>,
    jobs_handed_over_total: Option<u64>,
    jobs_rerun_total: Labelled<'a, Rerun>,
    jobs_refused_total: Labelled<'a, Refused>,
    maxqueue: ByPriority<u32>,
    paused: Option<Paused>,
    rate: RateOrNone,
    history: Vec<u32>,
    wait: Option<Percentiles>,
    run: Option<Percentiles>,
}

#[derive(Debug, Serialize)]
struct RateOrNone {
    submitted: Option<f64>,
    completed: Option<f64>,
    failed: Option<f64>,
}

impl From<Option<Rate>> for RateOrNone {
    fn from(rate: Option<Rate>) -> Self {
        Self {
            submitted: rate.map(|rate| rate.submitted),
            completed: rate.map(|rate| rate.completed),
            failed: rate.map(|rate| rate.failed),
        }
    }
}

/// The row of a function.
pub(super) fn function<'a>(
    row: &'a FunctionRow,
    snapshot: &Snapshot,
    history: &History,
) -> Function<'a> {
    let name = name_of(row);
    let FunctionRow { gauges, queue_max, .. } = row;
    let numbers = row.numbers.as_deref();
    Function {
        function: Name(name),
        jobs_queued: gauges.queued.into(),
        jobs_delayed: gauges.delayed,
        jobs_retrying: gauges.retrying,
        jobs_running: gauges.running,
        jobs_dead: gauges.dead,
        workers: gauges.workers,
        workers_busy: gauges.workers_busy,
        queue_oldest_age_seconds: gauges.oldest_ms.map(|ms| snapshot.age_of(ms)),
        jobs_submitted_total: ByKind {
            foreground: numbers.map(|it| it.submitted[0]),
            background: numbers.map(|it| it.submitted[1]),
        },
        jobs_joined_total: numbers.map(|it| it.joined),
        jobs_recovered_total: numbers.map(|it| it.recovered),
        jobs_completed_total: numbers.map(|it| it.completed),
        jobs_failed_total: Labelled { names: &FAILURES, numbers: numbers.map(|it| &it.failed[..]) },
        jobs_dead_total: Labelled { names: &DEATHS, numbers: numbers.map(|it| &it.dead[..]) },
        jobs_handed_over_total: numbers.map(|it| it.handed_over),
        jobs_rerun_total: Labelled { names: &RERUNS, numbers: numbers.map(|it| &it.rerun[..]) },
        jobs_refused_total: Labelled {
            names: &REFUSALS,
            numbers: numbers.map(|it| &it.refused[..]),
        },
        maxqueue: (*queue_max).into(),
        paused: row.pause.map(|pause| Paused {
            until: match pause {
                Pause::Unlimited => None,
                Pause::Until(ms) => Some(ms as f64 / 1000.0),
            },
        }),
        rate: numbers.map(|it| history.rate(name, snapshot.at, it)).into(),
        history: history.ended(name),
        wait: numbers.and_then(|it| history.wait(name, it)),
        run: numbers.and_then(|it| history.run(name, it)),
    }
}

fn name_of(row: &FunctionRow) -> &[u8] {
    row.name.as_deref().unwrap_or_default()
}

/// Whether a function is listed: it is there, or was and has had jobs.
pub(super) fn is_listed(row: &FunctionRow) -> bool {
    let had_jobs =
        |it: &crate::engine::numbers::Numbers| it.recovered + it.submitted.iter().sum::<u64>() > 0;
    row.exists || row.numbers.as_deref().is_some_and(had_jobs)
}

/// `GET /api/v1/functions/{function}`.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(name): Named,
    uri: Uri,
) -> Result<Response, ApiError> {
    caller.may(Right::Observe, crate::protocol::access::Scope::Function(&name))?;
    Params::of(&uri, &[])?;
    let snapshot = app.snapshots().get(&app.link()?).await?;
    let is_it = |row: &&FunctionRow| name_of(row) == name && is_listed(row);
    let row = snapshot.functions.iter().find(is_it).ok_or_else(|| unknown(&name))?;
    let json = app.with_history(|history| Json(function(row, &snapshot, history)).into_response());
    Ok(json)
}

/// There is no such function.
pub(super) fn unknown(name: &[u8]) -> ApiError {
    ApiError::not_found(
        format!("there is no function {}", name.escape_ascii()),
        "a function is there while it has jobs or workers, or was created; GET /api/v1/functions \
         lists them",
    )
}

/// What functions are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Sort {
    Function,
    Waiting,
    Running,
    Workers,
    Oldest,
    Delayed,
    Retrying,
    Dead,
    Submitted,
    Completed,
    Failed,
    Rate,
}

const SORTS: [(&str, Sort); 12] = [
    ("function", Sort::Function),
    ("waiting", Sort::Waiting),
    ("running", Sort::Running),
    ("workers", Sort::Workers),
    ("oldest", Sort::Oldest),
    ("delayed", Sort::Delayed),
    ("retrying", Sort::Retrying),
    ("dead", Sort::Dead),
    ("submitted", Sort::Submitted),
    ("completed", Sort::Completed),
    ("failed", Sort::Failed),
    ("rate", Sort::Rate),
];

impl Sort {
    /// Orders rows as this key does; what isn't counted comes before 0.
    fn rank(self, row: &FunctionRow, snapshot: &Snapshot, history: &History) -> u64 {
        let gauges = &row.gauges;
        let counted = |number: fn(Counts) -> u64| {
            let numbers = row.numbers.as_deref();
            numbers.map_or(0, |numbers| number(Counts::of(numbers)).saturating_add(1))
        };
        match self {
            Self::Function => 0,
            Self::Waiting => gauges.queued.iter().copied().map(u64::from).sum(),
            Self::Running => gauges.running.into(),
            Self::Workers => gauges.workers.into(),
            Self::Delayed => gauges.delayed.into(),
            Self::Retrying => gauges.retrying.into(),
            Self::Dead => gauges.dead.into(),
            // The earlier, the older: unlike ages, moments stay as they are from page to page.
            Self::Oldest => gauges.oldest_ms.map_or(0, |ms| u64::MAX - ms),
            Self::Submitted => counted(|it| it.submitted),
            Self::Completed => counted(|it| it.completed),
            Self::Failed => counted(|it| it.failed),
            Self::Rate => row.numbers.as_deref().map_or(0, |numbers| {
                // Numbers above 0 are in the order of their bits.
                1 + history.rate(name_of(row), snapshot.at, numbers).completed.to_bits()
            }),
        }
    }
}

/// Which names.
#[derive(Debug)]
enum Filter {
    All,
    /// The whole name matches.
    Glob(Glob),
    /// The name has this in it, whatever the case.
    Has(String),
    /// The same, as a glob over the whole name.
    Like(Glob),
    /// This one.
    Only(Vec<u8>),
}

impl Filter {
    /// `text` as a text that is searched for.
    fn search<'a>(text: &str, mut names: impl Iterator<Item = &'a [u8]>) -> Self {
        if text.is_empty() {
            return Self::All;
        }
        if names.any(|name| name == text.as_bytes()) {
            return Self::Only(text.as_bytes().to_vec());
        }
        let lower = text.to_lowercase();
        let glob = text.contains(['*', '?']).then(|| Glob::new(&lower).ok()).flatten();
        glob.map_or(Self::Has(lower), Self::Like)
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Glob(glob) => glob.matches(name),
            Self::Has(text) => memchr::memmem::find(&lower(name), text.as_bytes()).is_some(),
            Self::Like(glob) => glob.matches(&lower(name)),
            Self::Only(only) => only == name,
        }
    }
}

/// A name in small letters.
fn lower(name: &[u8]) -> Vec<u8> {
    match str::from_utf8(name) {
        Ok(text) => text.to_lowercase().into_bytes(),
        Err(_) => name.to_ascii_lowercase(),
    }
}

#[derive(Debug, Serialize)]
struct List<'a> {
    functions: Vec<Function<'a>>,
    total: usize,
    next: Option<String>,
    time: f64,
}

/// `GET /api/v1/functions`.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, ApiError> {
    needs_some(&caller, Right::Observe)?;
    let known = ["match", "filter", "sort", "order", "limit", "after"];
    let params = Params::of(&uri, &known)?;
    let sort = params.choice("sort", &SORTS)?.unwrap_or(Sort::Function);
    let is_descending = params.is_descending()?;
    let limit = params.limit()?;
    let glob = params.text("match")?;
    let text = params.text("filter")?;
    let list = ListId::of(("functions", sort, is_descending, glob, text));
    let after = list.place(&params, |bytes| {
        let (rank, name) = bytes.split_first_chunk()?;
        Some((u64::from_be_bytes(*rank), name.to_vec()))
    })?;
    let glob = glob.map(Glob::new).transpose();
    let glob = glob.map_err(|error| ApiError::bad_parameter("match", format!("it {error}")))?;
    let snapshot = app.snapshots().get(&app.link()?).await?;
    let json = app.with_history(|history| {
        let shown = || {
            let listed = snapshot.functions.iter().filter(|row| is_listed(row));
            listed.filter(|row| caller.shows(name_of(row)))
        };
        let search = text.map_or(Filter::All, |text| Filter::search(text, shown().map(name_of)));
        let glob = glob.map_or(Filter::All, Filter::Glob);
        let is_match = |name: &[u8]| glob.matches(name) && search.matches(name);
        let rows = shown().filter(|row| is_match(name_of(row)));
        let mut rows: Vec<(u64, &FunctionRow)> =
            rows.map(|row| (sort.rank(row, &snapshot, history), row)).collect();
        let total = rows.len();
        let order = |one: (u64, &[u8]), other: (u64, &[u8])| match (sort, is_descending) {
            (Sort::Function, true) => other.1.cmp(one.1),
            (_, true) => other.0.cmp(&one.0).then_with(|| one.1.cmp(other.1)),
            (_, false) => one.cmp(&other),
        };
        let place = |&(rank, row): &(u64, &'_ FunctionRow)| (rank, name_of(row).to_vec());
        if let Some((rank, name)) = &after {
            rows.retain(|row| order((row.0, name_of(row.1)), (*rank, name)) == Ordering::Greater);
        }
        rows.sort_unstable_by(|one, other| {
            order((one.0, name_of(one.1)), (other.0, name_of(other.1)))
        });
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| has_more).map(place);
        let next = last.map(|(rank, name)| list.cursor(&[&rank.to_be_bytes(), &*name].concat()));
        let functions = rows.iter().map(|(_, row)| function(row, &snapshot, history)).collect();
        Json(List { functions, total, next, time: snapshot.unix_s }).into_response()
    });
    Ok(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_for_a_part_a_pattern_or_a_whole_name() {
        let names: [&[u8]; 4] = [b"Mail", b"mail-in", b"mail*", b"m\xff"];
        let found = |text: &str| {
            let filter = Filter::search(text, names.into_iter());
            names.into_iter().filter(|name| filter.matches(name)).collect::<Vec<_>>()
        };
        assert_eq!(found(""), names);
        assert_eq!(found("MAIL"), [&b"Mail"[..], b"mail-in", b"mail*"]);
        assert_eq!(found("Mail"), [b"Mail"]);
        assert_eq!(found("mail*"), [b"mail*"], "there is one of that name");
        assert_eq!(found("MAI*"), [&b"Mail"[..], b"mail-in", b"mail*"]);
        assert_eq!(found("m?"), [b"m\xff"]);
        assert_eq!(found("?"), [b""; 0]);
        assert_eq!(found("*\\"), [b""; 0], "a loose backslash is searched for");
    }

    #[test]
    fn what_is_not_counted_is_null() {
        let row = FunctionRow {
            name: Some((*b"f").into()),
            exists: true,
            gauges: Default::default(),
            numbers: None,
            queue_max: [1, 2, 3],
            pause: None,
        };
        let snapshot = Snapshot::of(vec![row]);
        let history = History::new(snapshot.at);
        let json = serde_json::to_value(function(&snapshot.functions[0], &snapshot, &history));
        let json = json.unwrap();
        assert_eq!(json["function"], "f");
        assert_eq!(json["maxqueue"]["low"], 3);
        assert!(json["jobs_failed_total"].get("expired").unwrap().is_null());
        assert!(json["jobs_failed_total"].get("lost").unwrap().is_null());
        assert!(json["rate"]["completed"].is_null() && json["wait"].is_null());
        assert_eq!(json["history"], serde_json::json!([]));
    }
}
