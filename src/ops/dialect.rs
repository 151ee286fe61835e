//! gearmand's dialect of HTTP, on a port of its own: `POST /FUNCTION` with `X-Gearman-*` headers.
//!
//! As gearmand has it where that works, with statuses that say what happened. Old clients send no
//! `X-Ringgear`, and no `Host` that could be checked; pages of browsers are refused by the headers
//! that only browsers send. Without an access list its peers may submit, as at Gearman's own port.
//!
//! Invariant: what is not understood is ignored, as gearmand does.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ALLOW, ORIGIN, SERVER};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

use super::app::App;
use super::error::ApiError;
use super::guard::Caller;
use super::guard::checks::busy;
use super::guard::permit::Permit;
use super::listen::activity::Activity;
use super::submit::{
    Submission, checked_unique, count_refusal, counted, discard, header_value, may_wait, priority,
    submit, wait_for,
};
use crate::protocol::access::{Right, Scope};
use crate::wire::{Command, Priority};

const UNIQUE: &str = "X-Gearman-Unique";
const BACKGROUND: &str = "X-Gearman-Background";
const PRIORITY: &str = "X-Gearman-Priority";
const FETCH_SITE: &str = "Sec-Fetch-Site";
const METHODS: [Method; 4] = [Method::POST, Method::PUT, Method::GET, Method::HEAD];

const HANDLE: HeaderName = HeaderName::from_static("x-gearman-job-handle");
const COMMAND: HeaderName = HeaderName::from_static("x-gearman-command");

/// Unless a client says otherwise, equal payloads are one job.
const PAYLOAD_IS_KEY: &[u8] = b"-";

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new().fallback(serve).with_state(app)
}

async fn serve(State(app): State<Arc<App>>, caller: Caller, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let mut response = match answer(&app, caller, &parts, &mut body).await {
        Ok(response) => response,
        Err(error) => {
            discard(body);
            error.into_response()
        }
    };
    let server = header_value(&format!("Gearman/{}", app.settings().version));
    response.headers_mut().insert(SERVER, server);
    response
}

async fn answer(
    app: &App,
    mut caller: Caller,
    parts: &Parts,
    body: &mut Body,
) -> Result<Response, ApiError> {
    if !METHODS.contains(&parts.method) {
        let remedy = "use POST, PUT, GET or HEAD";
        let (status, code) = (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED");
        let error = ApiError::new(status, code, format!("{} submits no job", parts.method), remedy);
        return Err(error.with_header(ALLOW, HeaderValue::from_static("POST, PUT, GET, HEAD")));
    }
    refuse_pages(&parts.headers)?;
    let connection = parts.extensions.get::<Arc<Activity>>().cloned();
    let permit = Permit::take(app.permits(), connection).ok_or_else(busy)?;
    let submission = submission(&parts.uri, &parts.headers)?;
    if app.access_list().is_none() {
        caller.permissions = None;
    }
    let refused = |error: &ApiError| count_refusal(app, &submission.function, error);
    let may = caller.may(Right::Submit, Scope::Function(&submission.function));
    may.inspect_err(refused)?;
    let waiting = if submission.is_background { None } else { Some(may_wait(app)?) };
    let job = submit(app, &caller, &permit, &submission, body).await.inspect_err(refused)?;
    let handle = header_value(&job.handle);
    let said = |command: Command| [(COMMAND, HeaderValue::from_static(command.name()))];
    if submission.is_background {
        return Ok(([(HANDLE, handle)], said(Command::JobCreated), ()).into_response());
    }
    // gearmand lets clients wait as long as they like.
    permit.give_back();
    let done = wait_for(job, None).await;
    drop(waiting);
    let done = done.map_err(|error| {
        let command = HeaderValue::from_static(error.code());
        error.with_header(HANDLE, handle.clone()).with_header(COMMAND, command)
    })?;
    let result = counted(&app.link()?, done.result);
    let mut response = ([(HANDLE, handle)], said(Command::WorkComplete), result).into_response();
    // gearmand sends none.
    response.headers_mut().remove(axum::http::header::CONTENT_TYPE);
    Ok(response)
}

/// Browsers say where the page is from that makes a request. Gearman's clients are no pages.
fn refuse_pages(headers: &HeaderMap) -> Result<(), ApiError> {
    let is_typed = |site: &HeaderValue| site == "none";
    if !headers.contains_key(ORIGIN) && headers.get_all(FETCH_SITE).iter().all(is_typed) {
        return Ok(());
    }
    let remedy = "submit from a program, or by POST /api/v1/functions/FUNCTION/jobs of --http";
    let message = "a page in a browser makes this request";
    Err(ApiError::new(StatusCode::FORBIDDEN, "CROSS_SITE", message, remedy))
}

/// What is asked for. The function is what follows the slashes, as it is.
fn submission(uri: &Uri, headers: &HeaderMap) -> Result<Submission, ApiError> {
    let path = uri.path_and_query().map_or("", |it| it.as_str());
    let function = path.trim_start_matches('/').as_bytes().to_vec();
    if function.is_empty() {
        return Err(ApiError::not_found("no function is named", "write /FUNCTION"));
    }
    let value = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let unique = checked_unique(UNIQUE, value(UNIQUE).unwrap_or(PAYLOAD_IS_KEY))?;
    let is_background = value(BACKGROUND).is_some_and(|it| it.eq_ignore_ascii_case(b"true"));
    let priority = value(PRIORITY).and_then(priority).unwrap_or(Priority::Normal);
    Ok(Submission { function, unique, priority, is_background, run_at: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter();
        lines.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn paths_are_functions_as_they_are() {
        let function = |path: &'static str| {
            let submission = submission(&Uri::from_static(path), &HeaderMap::new());
            submission.map(|it| String::from_utf8(it.function).unwrap())
        };
        assert_eq!(function("/rev").unwrap(), "rev");
        assert_eq!(function("///a/b%20c?d=e").unwrap(), "a/b%20c?d=e");
        assert_eq!(function("http://host/rev").unwrap(), "rev");
        assert!(function("/").is_err());
    }

    #[test]
    fn headers_are_those_of_gearmand() {
        let uri = Uri::from_static("/f");
        let of = |lines: &[(&'static str, &'static str)]| {
            let submission = submission(&uri, &headers(lines)).unwrap();
            (submission.unique, submission.priority, submission.is_background)
        };
        assert_eq!(of(&[]), (b"-".to_vec(), Priority::Normal, false));
        let all = [(UNIQUE, "u"), (BACKGROUND, "true"), (PRIORITY, "low")];
        assert_eq!(of(&all), (b"u".to_vec(), Priority::Low, true));
        let odd = [(BACKGROUND, "perhaps"), (PRIORITY, "urgent")];
        assert_eq!(of(&odd), (b"-".to_vec(), Priority::Normal, false));
    }

    #[test]
    fn pages_of_browsers_are_refused() {
        for lines in [&[(FETCH_SITE, "cross-site")][..], &[("origin", "http://evil.example")]] {
            assert!(refuse_pages(&headers(lines)).is_err(), "{lines:?}");
        }
        for lines in [&[][..], &[(FETCH_SITE, "none")], &[("user-agent", "curl")]] {
            assert!(refuse_pages(&headers(lines)).is_ok(), "{lines:?}");
        }
    }
}
