//! `GET /api/v1/jobs` and `/api/v1/jobs/{handle}`: jobs by function and state, and one by its
//! handle.
//!
//! Rows that cores reply with in, JSON out; a list goes through the cores one by one. Knows no
//! engine.
//!
//! Invariant: a peer sees jobs only of functions that it may observe, and payloads only of those
//! that it may change.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::Instant;

use super::super::app::App;
use super::super::error::ApiError;
use super::super::guard::Caller;
use super::super::link::Link;
use super::cursor::ListId;
use super::names::Name;
use super::params::{Named, Params};
use super::{address, needs_some};
use crate::engine::JobId;
use crate::engine::job::State as JobState;
use crate::engine::reason::Reason;
use crate::protocol::access::{Right, Scope};
use crate::shard::cores::Core;
use crate::shard::operator::{
    JobFilter, JobRow, JobWorker, JobsAt, OperatorReply, OperatorRequest, ROWS_MAX,
};
use crate::wire::Priority;

/// Most bytes of a payload.
pub(super) const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// How long a request looks for rows; the rest is in the next answer.
pub(super) const LOOKING_MAX: Duration = Duration::from_secs(1);

/// A job.
#[derive(Debug, Serialize)]
struct Job<'a> {
    handle: &'a str,
    function: Name<'a>,
    unique: Option<Name<'a>>,
    priority: &'static str,
    state: &'static str,
    background: bool,
    bytes: usize,
    age_seconds: f64,
    submitted: f64,
    attempts: u16,
    last_reason: Option<&'static str>,
    run_at: Option<f64>,
    worker: Option<Worker<'a>>,
    running_seconds: Option<f64>,
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Name<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_cut: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Worker<'a> {
    address: String,
    id: Name<'a>,
}

#[derive(Debug, Serialize)]
struct Status {
    numerator: u32,
    denominator: u32,
}

pub(super) fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Normal => "normal",
        Priority::Low => "low",
    }
}

fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Delayed => "delayed",
        JobState::Storing => "storing",
        JobState::Running => "running",
        JobState::Kept => "kept",
    }
}

/// The row of a job at a moment in seconds since 1970.
fn job(row: &JobRow, now_s: f64) -> Job<'_> {
    let submitted = row.submitted_ms as f64 / 1000.0;
    let worker = row.worker.as_ref();
    let (numerator, denominator) = row.status;
    Job {
        handle: &row.handle,
        function: Name(&row.function),
        unique: (!row.unique.is_empty()).then_some(Name(&row.unique)),
        priority: priority_name(row.priority),
        state: match row.state {
            JobState::Delayed if row.attempts > 0 => "retrying",
            state => state_name(state),
        },
        background: row.is_background,
        bytes: row.payload_bytes,
        age_seconds: (now_s - submitted).max(0.0),
        submitted,
        attempts: row.attempts,
        last_reason: row.last_reason.map(Reason::name),
        run_at: (row.run_at_ms > 0).then(|| row.run_at_ms as f64 / 1000.0),
        worker: worker
            .map(|JobWorker { peer, id, .. }| Worker { address: address(*peer), id: Name(id) }),
        running_seconds: worker.map(|it| f64::from(it.run_ms) / 1000.0),
        status: ((numerator, denominator) != (0, 0)).then_some(Status { numerator, denominator }),
        payload: None,
        payload_cut: None,
    }
}

/// Seconds since 1970.
pub(super) fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What was asked for of a payload; a character that is cut through is left out.
pub(super) fn cut_payload(bytes: &[u8], all_bytes: usize) -> &[u8] {
    let is_cut = bytes.len() < all_bytes;
    match str::from_utf8(bytes) {
        Err(error) if is_cut && error.error_len().is_none() => {
            bytes.get(..error.valid_up_to()).unwrap_or(bytes)
        }
        _ => bytes,
    }
}

/// There is no such job.
pub(super) fn unknown(handle: &[u8]) -> ApiError {
    ApiError::not_found(
        format!("there is no job {}", handle.escape_ascii()),
        "jobs are gone once they end; GET /api/v1/jobs lists those that there are",
    )
}

/// The job is of a partition that another server has; `None` if it isn't.
fn elsewhere(app: &App, number: u64, handle: &[u8]) -> Option<ApiError> {
    let owner = app.settings().cluster.as_ref()?.owner_elsewhere(number)?;
    let handle = handle.escape_ascii();
    Some(ApiError::not_found(
        format!("{handle} isn't a job of this server: it is of {}", owner.place()),
        "ask that server",
    ))
}

/// A job that the peer may see, with so many bytes of its payload.
pub(super) async fn find(
    app: &App,
    caller: &Caller,
    handle: &[u8],
    payload_bytes: usize,
) -> Result<Box<JobRow>, ApiError> {
    let link = app.link()?;
    let number = link.handles().number(handle).ok_or_else(|| unknown(handle))?;
    let access = caller.permissions.clone();
    let request = OperatorRequest::Job { number, payload_bytes, access };
    let reply = link.ask(link.cores().owner_of_job(number), request).await?;
    match reply {
        OperatorReply::Job(Some(row)) => Ok(row),
        _ => Err(elsewhere(app, number, handle).unwrap_or_else(|| unknown(handle))),
    }
}

/// `GET /api/v1/jobs/{handle}`.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(handle): Named,
    uri: Uri,
) -> Result<Response, ApiError> {
    needs_some(&caller, Right::Observe)?;
    let has_payload = Params::of(&uri, &["payload"])?.flag("payload")?;
    let mut row = find(&app, &caller, &handle, 0).await?;
    if has_payload {
        caller.may(Right::Admin, Scope::Function(&row.function))?;
        row = find(&app, &caller, &handle, PAYLOAD_BYTES_MAX).await?;
    }
    let mut json = job(&row, now_s());
    if has_payload {
        json.payload = Some(Name(cut_payload(&row.payload, row.payload_bytes)));
        json.payload_cut = (row.payload.len() < row.payload_bytes).then_some(true);
    }
    Ok(Json(json).into_response())
}

#[derive(Debug, Serialize)]
struct List<'a> {
    jobs: Vec<Job<'a>>,
    total: Option<u64>,
    next: Option<String>,
}

/// Where a list goes on: at a core, and where there.
type Place = (Core, JobsAt);

fn write_place((core, at): Place) -> Vec<u8> {
    let (kind, number) = match at {
        JobsAt::Record(id) => (0, u64::from(id.number())),
        JobsAt::Queue(priority, None) => (1 + priority as u8, 0),
        JobsAt::Queue(priority, Some(number)) => (1 + priority as u8, number),
    };
    let core = u8::try_from(core).unwrap_or(u8::MAX);
    [&[core, kind][..], &number.to_be_bytes()].concat()
}

fn read_place(bytes: &[u8]) -> Option<Place> {
    let (&[core, kind], number) = bytes.split_first_chunk()?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    let at = match kind {
        0 => JobsAt::Record(JobId::from_number(u32::try_from(number).ok()?)),
        kind => {
            let priority = *Priority::ALL.get(usize::from(kind) - 1)?;
            JobsAt::Queue(priority, Some(number).filter(|&number| number > 0))
        }
    };
    Some((core.into(), at))
}

/// States, and of jobs in one of them perhaps only those that are to be run again.
const STATES: [(&str, (JobState, Option<bool>)); 4] = [
    ("queued", (JobState::Queued, None)),
    ("running", (JobState::Running, None)),
    ("delayed", (JobState::Delayed, None)),
    ("retrying", (JobState::Delayed, Some(true))),
];

/// `GET /api/v1/jobs`.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, ApiError> {
    needs_some(&caller, Right::Observe)?;
    let params = Params::of(&uri, &["function", "state", "limit", "after"])?;
    let function: Option<Box<[u8]>> = params.bytes("function").map(Into::into);
    if let Some(function) = &function {
        caller.may(Right::Observe, Scope::Function(function))?;
    }
    let state = params.choice("state", &STATES)?;
    let limit = params.limit()?;
    let list = ListId::of(("jobs", &function, params.bytes("state")));
    let (state, is_rerun) = state.map_or((None, None), |(state, is_rerun)| (Some(state), is_rerun));
    let link = app.link()?;
    let cores = link.cores();
    let only = function.as_deref().map(|function| cores.owner_of(function));
    let access = caller.permissions.clone();
    let filter = JobFilter { function, state, is_rerun, access };
    let start = JobsAt::start(&filter);
    let after = list.place(&params, |bytes| {
        read_place(bytes)
            .filter(|(core, _)| *core < cores.count && only.is_none_or(|it| it == *core))
    })?;
    let place = after.unwrap_or_else(|| (only.unwrap_or(0), start));
    let (rows, next) = collect(&link, &filter, place, only.is_some(), limit).await?;
    let total = total(&app, &filter, &link).await?;
    let now_s = now_s();
    let jobs = rows.iter().map(|row| job(row, now_s)).collect();
    let next = next.map(|place| list.cursor(&write_place(place)));
    Ok(Json(List { jobs, total, next }).into_response())
}

/// The next rows, and where the list goes on.
async fn collect(
    link: &Link,
    filter: &JobFilter,
    place: Place,
    is_of_one_core: bool,
    limit: usize,
) -> Result<(Vec<JobRow>, Option<Place>), ApiError> {
    let deadline = Instant::now() + LOOKING_MAX;
    let mut rows = Vec::new();
    let mut next = Some(place);
    while let Some((core, at)) = next {
        if rows.len() >= limit || Instant::now() > deadline {
            break;
        }
        let limit = (limit - rows.len()).min(ROWS_MAX);
        let request = OperatorRequest::Jobs { filter: filter.clone(), at, limit };
        let OperatorReply::Jobs(more, rest) = link.ask(core, request).await? else { break };
        rows.extend(more);
        next = match rest {
            Some(at) => Some((core, at)),
            None if is_of_one_core || core + 1 == link.cores().count => None,
            None => Some((core + 1, JobsAt::start(filter))),
        };
    }
    Ok((rows, next))
}

/// How many jobs a list has, where a function and a state make it known.
async fn total(app: &App, filter: &JobFilter, link: &Link) -> Result<Option<u64>, ApiError> {
    let (Some(function), Some(state)) = (&filter.function, filter.state) else { return Ok(None) };
    let snapshot = app.snapshots().get(link).await?;
    let row = snapshot.functions.iter().find(|row| row.name.as_ref() == Some(function));
    let Some(row) = row else { return Ok(Some(0)) };
    Ok(Some(match state {
        JobState::Queued => row.gauges.queued.iter().copied().map(u64::from).sum(),
        JobState::Running => row.gauges.running.into(),
        _ if filter.is_rerun == Some(true) => row.gauges.retrying.into(),
        _ => row.gauges.delayed.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::blocks::BLOCK_BITS;
    use crate::cluster::partition::State;
    use crate::cluster::view::three_partitions;
    use crate::engine::handle::job_number;
    use crate::ops::HttpSettings;

    #[test]
    fn places_are_read_as_they_were_written() {
        for at in [
            JobsAt::Record(JobId::FIRST),
            JobsAt::Record(JobId::from_number(70_000)),
            JobsAt::Queue(Priority::High, None),
            JobsAt::Queue(Priority::Low, Some(7 << 8)),
        ] {
            assert_eq!(read_place(&write_place((3, at))), Some((3, at)));
        }
        for bad in [&b""[..], b"\0", b"\0\x04\0\0\0\0\0\0\0\0", b"\0\0\0\0\0\x01\0\0\0\0"] {
            assert_eq!(read_place(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_job_of_another_server_is_unknown_with_the_place_where_it_is() {
        let view = three_partitions(std::time::Instant::now());
        {
            let mut contents = view.write();
            contents.blocks.insert(1, 0);
            contents.blocks.insert(2, 1);
        }
        let view = Arc::new(view);
        let cluster = Some(Arc::clone(&view));
        let app = App::new(HttpSettings { cluster, ..HttpSettings::default() });
        let number = |block: u64| job_number(block << BLOCK_BITS, 0);
        let found = |block| elsewhere(&app, number(block), b"H:test:1");
        assert!(found(2).is_none(), "it has been left, and has no server");
        view.write().partitions[1].partition.state = State::Owned;
        assert!(found(1).is_none() && found(3).is_none(), "an own one, and none at all");
        let error = found(2).map(|error| format!("{error:?}")).unwrap();
        assert!(error.contains("H:test:1 isn't a job of this server: it is of web-2"), "{error}");
    }

    #[test]
    fn a_payload_is_not_cut_within_a_character() {
        let row = |payload: &str, cut: usize| JobRow {
            handle: "H:test:1".into(),
            function: (*b"f").into(),
            unique: Box::default(),
            priority: Priority::Normal,
            state: JobState::Queued,
            is_background: true,
            payload_bytes: payload.len(),
            attempts: 0,
            submitted_ms: 1_700_000_000_500,
            run_at_ms: 0,
            last_reason: None,
            worker: None,
            status: (0, 0),
            payload: payload.as_bytes()[..cut].into(),
        };
        assert_eq!(cut_payload("aä".as_bytes().get(..2).unwrap(), 3), b"a");
        assert_eq!(cut_payload("aä".as_bytes(), 3), "aä".as_bytes());
        let json = serde_json::to_value(job(&row("", 0), 1_700_000_002.0)).unwrap();
        assert_eq!(json["age_seconds"], 1.5);
        assert!(json["unique"].is_null() && json["worker"].is_null() && json["run_at"].is_null());
        assert!(json.get("payload").is_none());
    }
}
