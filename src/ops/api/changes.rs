//! `DELETE` and `PUT`: jobs are cancelled, one or all that wait, and functions limited.
//!
//! Each change is logged with the peer that asked for it. Knows no engine.
//!
//! Invariant: what a peer may not see is unknown to it, what it may not change stays as it is.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use super::super::app::App;
use super::super::error::ApiError;
use super::super::guard::Caller;
use super::super::link::Link;
use super::params::{Named, Params};
use super::{functions, jobs, needs_some};
use crate::engine::job::State as JobState;
use crate::protocol::access::{Right, Scope};
use crate::shard::operator::{
    CancelOutcome, JobFilter, JobsAt, OperatorReply, OperatorRequest, Purged,
};

/// Largest body of a request that isn't a job.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What log lines call a peer.
fn name_of(caller: &Caller) -> String {
    match &caller.permissions {
        Some(permissions) => permissions.peer().to_owned(),
        None => caller.peer.to_string(),
    }
}

/// `DELETE /api/v1/jobs/{handle}`: cancels a job.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(handle): Named,
    uri: Uri,
) -> Result<StatusCode, ApiError> {
    needs_some(&caller, Right::Admin)?;
    Params::of(&uri, &[])?;
    let link = app.link()?;
    let row = jobs::find(&link, &caller, &handle, 0).await?;
    caller.may(Right::Admin, Scope::Function(&row.function))?;
    let number = link.handles().number(&handle).ok_or_else(|| jobs::unknown(&handle))?;
    let request = OperatorRequest::Cancel { number, access: caller.permissions.clone() };
    let reply = link.ask(link.cores().owner_of_job(number), request).await?;
    match reply {
        OperatorReply::Cancelled(CancelOutcome::Cancelled) => {
            let function = row.function.escape_ascii().to_string();
            info!(peer = %name_of(&caller), handle = %row.handle, %function, "job cancelled");
            app.snapshots().forget().await;
            Ok(StatusCode::NO_CONTENT)
        }
        OperatorReply::Cancelled(CancelOutcome::Storing) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "STORING",
            format!("{} is being written to the store", row.handle),
            "try again in a moment",
        )),
        // It ended meanwhile.
        _ => Err(jobs::unknown(&handle)),
    }
}

/// `DELETE /api/v1/functions/{function}/jobs?state=`: cancels all jobs that wait for a worker, or
/// for their start.
pub(super) async fn purge(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(function): Named,
    uri: Uri,
) -> Result<Response, ApiError> {
    caller.may(Right::Admin, Scope::Function(&function))?;
    let params = Params::of(&uri, &["state"])?;
    let states = [("queued", JobState::Queued), ("delayed", JobState::Delayed)];
    let state = params.choice("state", &states)?.ok_or_else(|| {
        ApiError::bad_parameter("state", "say which jobs: state=queued or state=delayed")
    })?;
    let link = app.link()?;
    let peer = name_of(&caller);
    let (shared, name) = (Arc::clone(&app), function.clone());
    // Goes on to its end though the client leaves.
    let purging = tokio::spawn(async move {
        let removed = purge_all(&link, &name, state).await;
        let function = name.escape_ascii().to_string();
        info!(%peer, %function, removed = removed.as_ref().ok(), "jobs purged");
        shared.snapshots().forget().await;
        removed
    });
    let removed = purging.await.map_err(|_| ApiError::not_serving(app.phase()))??;
    if removed == 0 {
        let snapshot = app.snapshots().get(&app.link()?).await?;
        let is_it = |name: Option<&[u8]>| name == Some(&*function);
        if !snapshot.functions.iter().any(|row| row.exists && is_it(row.name.as_deref())) {
            return Err(functions::unknown(&function));
        }
    }
    Ok((StatusCode::ACCEPTED, Json(json!({"removed": removed}))).into_response())
}

async fn purge_all(link: &Link, function: &[u8], state: JobState) -> Result<usize, ApiError> {
    let core = link.cores().owner_of(function);
    let filter =
        JobFilter { function: Some(function.into()), state: Some(state), ..JobFilter::default() };
    let mut next = Some(JobsAt::start(&filter));
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
    let Limits { high, normal, low } = read_limits(&headers, body).await?;
    let request =
        OperatorRequest::Limit { function: (*function).into(), queue_max: [high, normal, low] };
    let reply = link.ask(link.cores().owner_of(&function), request).await?;
    if !matches!(reply, OperatorReply::Limited(true)) {
        return Err(functions::unknown(&function));
    }
    let name = function.escape_ascii().to_string();
    info!(peer = %name_of(&caller), function = %name, high, normal, low, "queues limited");
    app.snapshots().forget().await;
    Ok(StatusCode::NO_CONTENT)
}

async fn read_limits(headers: &HeaderMap, body: Body) -> Result<Limits, ApiError> {
    let form = "{\"high\": 0, \"normal\": 0, \"low\": 0}, 0 = no limit";
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    let essence = |kind: &[u8]| {
        let essence = kind.split(|&byte| byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    };
    if !kind.is_none_or(essence) {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "the body isn't JSON",
            format!("send application/json: {form}"),
        ));
    }
    let bytes = to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "TOO_LARGE",
            format!("the body has more than {BODY_BYTES_MAX} bytes"),
            format!("send {form}"),
        )
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("the body makes no sense: {error}");
        ApiError::new(StatusCode::BAD_REQUEST, "BAD_BODY", message, format!("send {form}"))
    })
}
