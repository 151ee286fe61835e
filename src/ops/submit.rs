//! Jobs by HTTP: `POST /api/v1/functions/{f}/jobs`.
//!
//! `headers` says what is asked for, `body` receives the payload, `job` talks to the function's
//! core, `stream` passes on what a job sends meanwhile; here they are put together and answered. A
//! client that leaves is noticed as its request's future is dropped, with the `Job` in it.
//!
//! Invariant: at most `WAITING_MAX` requests wait for results; those that wait are not at work.

mod body;
mod headers;
mod job;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

pub(super) use self::body::{discard, out_of_memory};
pub(super) use self::headers::{checked_unique, priority};
pub(super) use self::job::{Event, Job, Submission};
use super::app::{App, WAITING_MAX};
use super::error::ApiError;
use super::guard::Caller;
use super::guard::checks::busy;
use super::guard::permit::Permit;
use super::link::{Held, Link};
use crate::engine::numbers::Refused;
use crate::protocol::access::{Right, Scope};
use crate::shard::remote::message::Message;
use crate::wire::{ARGUMENTS_BYTES_MAX, Priority};

/// How long a client waits that doesn't say how long.
const WAIT: Duration = Duration::from_secs(30);
/// Most of an exception's text that a client is told, in bytes.
const EXCEPTION_BYTES_MAX: usize = 64 << 10;
/// What a handle has that a path may not.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b':').remove(b'-').remove(b'.').remove(b'_');

const HANDLE: HeaderName = HeaderName::from_static("ringgear-handle");
const WARNINGS: HeaderName = HeaderName::from_static("ringgear-warnings");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The end of a job that a client waits for.
pub(super) struct Done {
    /// The end of the result.
    pub(super) result: Bytes,
    /// Warnings on the way.
    pub(super) warnings: u64,
}

/// `POST /api/v1/functions/{f}/jobs`.
pub(super) async fn post(
    State(app): State<Arc<App>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, mut body) = request.into_parts();
    let Some(permit) = parts.extensions.get::<Permit>().cloned() else { return Err(busy()) };
    let answer = answer(&app, &caller, &permit, &parts, &mut body).await;
    if answer.is_err() {
        discard(body);
    }
    answer
}

async fn answer(
    app: &App,
    caller: &Caller,
    permit: &Permit,
    parts: &Parts,
    body: &mut Body,
) -> Result<Response, ApiError> {
    let function = function_in(parts.uri.path())?;
    let may = caller.may(Right::Submit, Scope::Function(&function));
    may.inspect_err(|error| count_refusal(app, &function, error))?;
    let streams = streams(parts.uri.query())?;
    let wishes = headers::wishes(&parts.headers)?;
    let submission = Submission {
        function,
        unique: wishes.unique,
        priority: wishes.priority.unwrap_or(Priority::Normal),
        is_background: wishes.is_background || wishes.run_at.is_some(),
        run_at: wishes.run_at,
    };
    let refused = |error: &ApiError| count_refusal(app, &submission.function, error);
    if submission.is_background {
        let job = submit(app, caller, permit, &submission, body).await.inspect_err(refused)?;
        return Ok(accepted(&job, wishes.is_background));
    }
    let waiting = may_wait(app)?;
    let job = submit(app, caller, permit, &submission, body).await.inspect_err(refused)?;
    permit.give_back();
    let mut headers = HeaderMap::new();
    headers.insert(HANDLE, header_value(&job.handle));
    if let Some(wait) = wishes.wait {
        let applied = format!("wait={}", wait.as_secs());
        headers.insert(PREFERENCE_APPLIED, header_value(&applied));
    }
    let wait = wishes.wait.unwrap_or(WAIT);
    let link = app.link()?;
    let handle = header_value(&job.handle);
    let with_handle = |error: ApiError| error.with_header(HANDLE, handle.clone());
    let body = if streams {
        stream::start(link, job, waiting, wait).await.map_err(with_handle)?
    } else {
        let done = wait_for(job, Some(wait)).await.map_err(with_handle)?;
        drop(waiting);
        headers.insert(WARNINGS, done.warnings.into());
        Body::from(counted(&link, done.result))
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok((headers, body).into_response())
}

/// Counts a submission that was refused on this thread, at the core of its function; a core counts
/// what it refuses.
pub(super) fn count_refusal(app: &App, function: &[u8], error: &ApiError) {
    let why = match error.code() {
        "PERMISSION_DENIED" => Refused::Access,
        "PAYLOAD_TOO_LARGE" => Refused::Size,
        _ => return,
    };
    if let Ok(link) = app.link() {
        let message = Message::Refused { function: function.into(), why };
        link.tell(link.cores().owner_of(function), message);
    }
}

/// The right to wait for a result.
///
/// # Errors
/// `ApiError` if as many wait as may.
pub(super) fn may_wait(app: &App) -> Result<OwnedSemaphorePermit, ApiError> {
    let permit = Arc::clone(app.waiting()).try_acquire_owned();
    permit.map_err(|_| {
        let message = format!("{WAITING_MAX} requests wait for results");
        let remedy = "submit in the background, with Prefer: respond-async, or try again later";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        ApiError::new(status, "TOO_MANY_WAIT", message, remedy).retry_after(1)
    })
}

/// Receives a payload and submits it.
///
/// # Errors
/// `ApiError` if it is refused.
pub(super) async fn submit(
    app: &App,
    caller: &Caller,
    permit: &Permit,
    submission: &Submission,
    body: &mut Body,
) -> Result<Job, ApiError> {
    let link = app.link()?;
    let arguments = submission.arguments();
    if submission.function.contains(&0) || arguments.len() > ARGUMENTS_BYTES_MAX {
        let remedy = format!("take a name without NUL, of less than {ARGUMENTS_BYTES_MAX} bytes");
        return Err(ApiError::bad_parameter("function", remedy));
    }
    let bytes_max = app.settings().body_bytes_max;
    let packet = permit.without(body::receive(&link, &arguments, bytes_max, body)).await?;
    Job::submit(&link, caller, submission, packet).await
}

/// Waits for a job's end; `None` = as long as it takes.
///
/// # Errors
/// `ApiError` if it fails, or isn't done in time.
pub(super) async fn wait_for(mut job: Job, wait: Option<Duration>) -> Result<Done, ApiError> {
    let deadline = wait.map(|wait| Instant::now() + wait);
    let mut warnings = 0;
    loop {
        match next_until(&mut job, deadline).await? {
            Event::Data(_) => {}
            Event::Warning => warnings += 1,
            Event::Complete(result) => return Ok(Done { result, warnings }),
            Event::Fail => return Err(failed()),
            Event::Exception(text) => return Err(threw(&text)),
        }
    }
}

/// A job's next event, if it comes in time.
async fn next_until(job: &mut Job, deadline: Option<Instant>) -> Result<Event, ApiError> {
    let Some(deadline) = deadline else { return job.next().await };
    match timeout_at(deadline, job.next()).await {
        Ok(event) => event,
        Err(_) => Err(ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "NOT_DONE",
            format!("the job {} was not done in time", job.handle),
            "wait longer, with Prefer: wait=SECONDS, or submit with Prefer: respond-async",
        )),
    }
}

fn failed() -> ApiError {
    let remedy = "look at the worker's log";
    ApiError::new(StatusCode::BAD_GATEWAY, "WORK_FAIL", "the job failed", remedy)
}

fn threw(text: &[u8]) -> ApiError {
    let text = text.get(..EXCEPTION_BYTES_MAX).unwrap_or(text);
    let message = String::from_utf8_lossy(text);
    let remedy = "look at the worker's log";
    ApiError::new(StatusCode::BAD_GATEWAY, "WORK_EXCEPTION", message, remedy)
}

/// A job that runs in the background.
fn accepted(job: &Job, is_preferred: bool) -> Response {
    let mut headers = HeaderMap::new();
    let handle = percent_encode(job.handle.as_bytes(), IN_PATH);
    headers.insert(LOCATION, header_value(&format!("/api/v1/jobs/{handle}")));
    headers.insert(HANDLE, header_value(&job.handle));
    if is_preferred {
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
    }
    let body = Json(json!({"handle": job.handle, "joined": job.joined}));
    (StatusCode::ACCEPTED, headers, body).into_response()
}

/// The name in `/api/v1/functions/{f}/jobs`: bytes, which needn't be text.
fn function_in(path: &str) -> Result<Vec<u8>, ApiError> {
    let inner = path.strip_prefix("/api/v1/functions/").and_then(|it| it.strip_suffix("/jobs"));
    let name: Vec<u8> = percent_decode(inner.unwrap_or_default().as_bytes()).collect();
    if name.is_empty() {
        return Err(ApiError::not_found("no function has an empty name", "name a function"));
    }
    Ok(name)
}

/// Whether the answer is to come in parts.
fn streams(query: Option<&str>) -> Result<bool, ApiError> {
    let mut streams = false;
    for part in query.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("stream", "1" | "true")) => streams = true,
            Some(("stream", "0" | "false")) => streams = false,
            _ => {
                let name = part.split_once('=').map_or(part, |(name, _)| name);
                return Err(ApiError::bad_parameter(name, "the only parameter is stream=1"));
            }
        }
    }
    Ok(streams)
}

/// Bytes that count as long as they are kept.
pub(super) fn counted(link: &Link, bytes: Bytes) -> Bytes {
    struct Counted {
        bytes: Bytes,
        _held: Held,
    }
    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    let held = link.held(bytes.len());
    Bytes::from_owner(Counted { bytes, _held: held })
}

/// A handle has graphic characters only.
pub(super) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}
