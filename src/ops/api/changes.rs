//! Jobs are cancelled, one or all that wait, or started before their time; functions are limited
//! and paused.
//!
//! Each change is logged with the peer that asked for it. Knows no engine.
//!
//! Invariant: what a peer may not see is unknown to it, what it may not change stays as it is.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::HeaderMap;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use super::super::app::App;
use super::super::error::ApiError;
use super::super::guard::Caller;
use super::super::link::Link;
use super::super::submit;
use super::dead::Change;
use super::params::{Named, Params};
use super::{body, dead, functions, jobs, needs_some};
use crate::engine::glob::Glob;
use crate::engine::job::State as JobState;
use crate::engine::record::Pause;
use crate::protocol::access::{Right, Scope};
use crate::shard::operator::{
    CancelOutcome, DeadFilter, JobFilter, JobsAt, OperatorReply, OperatorRequest, Purged,
    RunOutcome,
};

/// `DELETE /api/v1/jobs/{handle}`: cancels a job, or removes a dead letter.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(handle): Named,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    needs_some(&caller, Right::Admin)?;
    Params::of(&uri, &[])?;
    let link = app.link()?;
    let function = match jobs::find(&app, &caller, &handle, 0).await {
        Ok(job) => job.function,
        Err(unknown) => {
            let letter = dead::find(&link, &caller, &handle, 0).await;
            letter.map_err(|_| unknown)?.function
        }
    };
    caller.may(Right::Admin, Scope::Function(&function))?;
    let number = link.handles().number(&handle).ok_or_else(|| jobs::unknown(&handle))?;
    let request = OperatorRequest::Cancel { number, access: caller.permissions.clone() };
    let reply = link.ask(link.cores().owner_of_job(number), request).await?;
    match reply {
        OperatorReply::Cancelled(CancelOutcome::Cancelled) => {
            note(&app, &caller, &handle, &function, "job cancelled").await;
            Ok(StatusCode::NO_CONTENT)
        }
        OperatorReply::Cancelled(CancelOutcome::Storing) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "STORING",
            format!("{} is being written to the store", handle.escape_ascii()),
            "try again in a moment",
        )),
        // It ended meanwhile.
        _ => Err(jobs::unknown(&handle)),
    }
}

/// Logs the change of a job.
async fn note(app: &App, caller: &Caller, handle: &[u8], function: &[u8], what: &str) {
    let (handle, function) = (handle.escape_ascii(), function.escape_ascii());
    info!(peer = %caller.name(), %handle, %function, "{what}");
    app.snapshots().forget().await;
}

/// `POST /api/v1/jobs/{handle}/run`: a job that waits for its start, or for its next run, starts
/// now.
pub(super) async fn run(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(handle): Named,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    needs_some(&caller, Right::Admin)?;
    Params::of(&uri, &[])?;
    let link = app.link()?;
    let row = jobs::find(&app, &caller, &handle, 0).await?;
    caller.may(Right::Admin, Scope::Function(&row.function))?;
    let number = link.handles().number(&handle).ok_or_else(|| jobs::unknown(&handle))?;
    let request = OperatorRequest::RunNow { number, access: caller.permissions.clone() };
    let reply = link.ask(link.cores().owner_of_job(number), request).await?;
    match reply {
        OperatorReply::Run(RunOutcome::Queued) => {
            note(&app, &caller, &handle, &row.function, "job started before its time").await;
            Ok(StatusCode::NO_CONTENT)
        }
        OperatorReply::Run(RunOutcome::NotWaiting) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "NOT_WAITING",
            format!("{} doesn't wait for its start", row.handle),
            "only jobs whose state is delayed or retrying can be started before their time",
        )),
        // It ended meanwhile.
        _ => Err(jobs::unknown(&handle)),
    }
}

/// Jobs that are cancelled together.
#[derive(Clone, Copy, Debug)]
enum Purge {
    /// Those in a state, or only those of them that are to be run again.
    Jobs(JobState, Option<bool>),
    Dead,
}

const PURGES: [(&str, Purge); 4] = [
    ("queued", Purge::Jobs(JobState::Queued, None)),
    ("delayed", Purge::Jobs(JobState::Delayed, None)),
    ("retrying", Purge::Jobs(JobState::Delayed, Some(true))),
    ("dead", Purge::Dead),
];

/// `DELETE /api/v1/functions/{function}/jobs?state=`: cancels all jobs that wait for a worker, for
/// their start or for their next run, or removes all dead letters.
pub(super) async fn purge(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(function): Named,
    uri: Uri,
) -> Result<Response, ApiError> {
    caller.may(Right::Admin, Scope::Function(&function))?;
    let params = Params::of(&uri, &["state"])?;
    let what = params.choice("state", &PURGES)?.ok_or_else(|| {
        let names = PURGES.map(|(name, _)| name).join(", ");
        ApiError::bad_parameter("state", format!("say which jobs, it is one of: {names}"))
    })?;
    let link = app.link()?;
    let removed = match what {
        Purge::Dead => {
            let function = Some(Glob::exactly(&function));
            let filter = DeadFilter { function, ..DeadFilter::default() };
            dead::change_all(&app, link, &caller, filter, Change::Remove).await?.0
        }
        Purge::Jobs(state, is_rerun) => {
            let filter = JobFilter {
                function: Some((*function).into()),
                state: Some(state),
                is_rerun,
                access: None,
            };
            purge_jobs(&app, link, &caller, filter).await?
        }
    };
    if removed == 0 {
        let snapshot = app.snapshots().get(&app.link()?).await?;
        let is_it = |name: Option<&[u8]>| name == Some(&*function);
        if !snapshot.functions.iter().any(|row| row.exists && is_it(row.name.as_deref())) {
            return Err(functions::unknown(&function));
        }
    }
    Ok((StatusCode::ACCEPTED, Json(json!({"removed": removed}))).into_response())
}

async fn purge_jobs(
    app: &Arc<App>,
    link: Link,
    caller: &Caller,
    filter: JobFilter,
) -> Result<usize, ApiError> {
    let (shared, peer) = (Arc::clone(app), caller.name());
    // Goes on to its end though the client leaves.
    let purging = tokio::spawn(async move {
        let removed = purge_all(&link, &filter).await;
        let function = filter.function.unwrap_or_default().escape_ascii().to_string();
        info!(%peer, %function, removed = removed.as_ref().ok(), "jobs purged");
        shared.snapshots().forget().await;
        removed
    });
    purging.await.map_err(|_| ApiError::not_serving(app.phase()))?
}

async fn purge_all(link: &Link, filter: &JobFilter) -> Result<usize, ApiError> {
    let core = link.cores().owner_of(filter.function.as_deref().unwrap_or_default());
    let mut next = Some(JobsAt::start(filter));
    let mut all = 0;
    while let Some(at) = next {
        let request = OperatorRequest::Purge { filter: filter.clone(), at };
        let reply = link.ask(core, request).await?;
        let OperatorReply::Purged(Purged { removed, next: rest }) = reply else { break };
        all += removed;
        next = rest;
    }
    Ok(all)
}

/// The body of a limit; 0 = none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    high: u32,
    normal: u32,
    low: u32,
}

/// `PUT /api/v1/functions/{function}/maxqueue`: limits a function's jobs by priority.
pub(super) async fn limit(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(function): Named,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    caller.may(Right::Admin, Scope::Function(&function))?;
    Params::of(&uri, &[])?;
    let link = app.link()?;
    let form = "{\"high\": 0, \"normal\": 0, \"low\": 0}, 0 = no limit";
    let Limits { high, normal, low } = body::read(&headers, body, form).await?;
    let request =
        OperatorRequest::Limit { function: (*function).into(), queue_max: [high, normal, low] };
    let reply = link.ask(link.cores().owner_of(&function), request).await?;
    if !matches!(reply, OperatorReply::Limited(true)) {
        return Err(functions::unknown(&function));
    }
    let name = function.escape_ascii().to_string();
    info!(peer = %caller.name(), function = %name, high, normal, low, "queues limited");
    app.snapshots().forget().await;
    Ok(StatusCode::NO_CONTENT)
}

/// The body of a pause.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PauseFor {
    /// Without it the pause ends when the function is resumed.
    seconds: Option<u64>,
}

/// `POST /api/v1/functions/{function}/pause`: no job of it is assigned for some time, or until it
/// is resumed.
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(function): Named,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    caller.may(Right::Admin, Scope::Function(&function))?;
    Params::of(&uri, &[])?;
    let link = app.link()?;
    let form = "{\"seconds\": 600}, or nothing for a pause until the function is resumed";
    let PauseFor { seconds } = body::read(&headers, body, form).await?;
    let pause = match seconds {
        None => Pause::Unlimited,
        Some(0) => {
            return Err(body::bad("a pause takes a second at least", &format!("send {form}")));
        }
        Some(seconds) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let until = now.saturating_add(Duration::from_secs(seconds)).as_millis();
            Pause::Until(u64::try_from(until).unwrap_or(u64::MAX))
        }
    };
    let request = OperatorRequest::Pause { function: (*function).into(), pause };
    let reply = link.ask(link.cores().owner_of(&function), request).await?;
    if !matches!(reply, OperatorReply::Paused(true)) {
        return Err(submit::out_of_memory());
    }
    let name = function.escape_ascii().to_string();
    info!(peer = %caller.name(), function = %name, seconds, "function paused");
    app.snapshots().forget().await;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/functions/{function}/resume`: ends a pause, if there is one.
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(function): Named,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    caller.may(Right::Admin, Scope::Function(&function))?;
    Params::of(&uri, &[])?;
    let link = app.link()?;
    let request = OperatorRequest::Resume { function: (*function).into() };
    let reply = link.ask(link.cores().owner_of(&function), request).await?;
    if !matches!(reply, OperatorReply::Resumed(true)) {
        return Err(functions::unknown(&function));
    }
    let name = function.escape_ascii().to_string();
    info!(peer = %caller.name(), function = %name, "function resumed");
    app.snapshots().forget().await;
    Ok(StatusCode::NO_CONTENT)
}
