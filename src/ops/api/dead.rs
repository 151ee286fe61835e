//! `/api/v1/dead`: lists of dead letters, one by its handle, and requests that requeue or remove
//! them.
//!
//! Rows that cores reply with in, JSON out; lists and changes go through the cores one by one, in
//! portions. Knows no engine.
//!
//! Invariant: a peer sees letters only of functions that it may observe; it changes those, and sees
//! the payloads of those, that it may administer.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::HeaderMap;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use tracing::info;

use super::super::app::App;
use super::super::error::ApiError;
use super::super::guard::Caller;
use super::super::link::Link;
use super::body::{self, Bytes};
use super::changes::name_of;
use super::cursor::ListId;
use super::jobs::{LOOKING_MAX, PAYLOAD_BYTES_MAX, cut_payload, now_s, priority_name};
use super::names::Name;
use super::needs_some;
use super::params::{Named, Params};
use crate::engine::glob::Glob;
use crate::engine::reason::Reason;
use crate::protocol::access::{Right, Scope};
use crate::protocol::duration;
use crate::shard::cores::Core;
use crate::shard::operator::{
    DeadAt, DeadChange, DeadFilter, LetterRow, OperatorReply, OperatorRequest, ROWS_MAX,
};

/// A dead letter.
#[derive(Debug, Serialize)]
struct Letter<'a> {
    handle: &'a str,
    function: Name<'a>,
    unique: Option<Name<'a>>,
    priority: &'static str,
    attempts: u16,
    reason: &'static str,
    died: f64,
    age_seconds: f64,
    submitted: f64,
    bytes: usize,
    worker: Option<Name<'a>>,
    message: Option<Name<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Name<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_cut: Option<bool>,
}

/// The row of a letter at a moment in seconds since 1970.
fn letter(row: &LetterRow, now_s: f64) -> Letter<'_> {
    let died = row.died_ms as f64 / 1000.0;
    Letter {
        handle: &row.handle,
        function: Name(&row.function),
        unique: (!row.unique.is_empty()).then_some(Name(&row.unique)),
        priority: priority_name(row.priority),
        attempts: row.attempts,
        reason: row.reason.name(),
        died,
        age_seconds: (now_s - died).max(0.0),
        submitted: row.submitted_ms as f64 / 1000.0,
        bytes: row.payload_bytes,
        worker: (!row.worker.is_empty()).then_some(Name(&row.worker)),
        message: (!row.message.is_empty()).then_some(Name(&row.message)),
        payload: None,
        payload_cut: None,
    }
}

#[derive(Debug, Serialize)]
struct List<'a> {
    dead: Vec<Letter<'a>>,
    total: Option<u64>,
    next: Option<String>,
}

fn unknown(handle: &[u8]) -> ApiError {
    ApiError::not_found(
        format!("there is no dead letter {}", handle.escape_ascii()),
        "letters are gone once they are requeued or dropped; GET /api/v1/dead lists those that \
         there are",
    )
}

/// A letter that the peer may see, with so many bytes of its payload.
pub(super) async fn find(
    link: &Link,
    caller: &Caller,
    handle: &[u8],
    payload_bytes: usize,
) -> Result<Box<LetterRow>, ApiError> {
    let number = link.handles().number(handle).ok_or_else(|| unknown(handle))?;
    let access = caller.permissions.clone();
    let request = OperatorRequest::DeadLetter { number, payload_bytes, access };
    let reply = link.ask(link.cores().owner_of_job(number), request).await?;
    let OperatorReply::DeadLetter(Some(row)) = reply else { return Err(unknown(handle)) };
    Ok(row)
}

/// `GET /api/v1/dead/{handle}`.
pub(super) async fn one(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(handle): Named,
    uri: Uri,
) -> Result<Response, ApiError> {
    needs_some(&caller, Right::Observe)?;
    let has_payload = Params::of(&uri, &["payload"])?.flag("payload")?;
    let link = app.link()?;
    let mut row = find(&link, &caller, &handle, 0).await?;
    if has_payload {
        caller.may(Right::Admin, Scope::Function(&row.function))?;
        row = find(&link, &caller, &handle, PAYLOAD_BYTES_MAX).await?;
    }
    let mut json = letter(&row, now_s());
    if has_payload {
        json.payload = Some(Name(cut_payload(&row.payload, row.payload_bytes)));
        json.payload_cut = (row.payload.len() < row.payload_bytes).then_some(true);
    }
    Ok(Json(json).into_response())
}

/// Where a list goes on: at a core, and where there.
type Place = (Core, DeadAt);

fn write_place((core, DeadAt { place, end }): Place) -> Vec<u8> {
    let core = u8::try_from(core).unwrap_or(u8::MAX);
    [&[core][..], &place.to_be_bytes(), &end.to_be_bytes()].concat()
}

fn read_place(bytes: &[u8]) -> Option<Place> {
    let (&[core], rest) = bytes.split_first_chunk()?;
    let (place, end) = rest.split_first_chunk()?;
    let (place, end) = (u64::from_be_bytes(*place), u64::from_be_bytes(end.try_into().ok()?));
    Some((core.into(), DeadAt { place, end }))
}

fn reasons() -> [(&'static str, Reason); Reason::ALL.len()] {
    Reason::ALL.map(|reason| (reason.name(), reason))
}

/// `GET /api/v1/dead`.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, ApiError> {
    needs_some(&caller, Right::Observe)?;
    let known = ["function", "reason", "unique", "older", "limit", "after"];
    let params = Params::of(&uri, &known)?;
    let glob = params.bytes("function").map(Glob::of_bytes).transpose();
    let glob = glob.map_err(|error| ApiError::bad_parameter("function", format!("it {error}")))?;
    let only = glob.as_ref().and_then(Glob::only_name);
    if let Some(function) = &only {
        caller.may(Right::Observe, Scope::Function(function))?;
    }
    let reason = params.choice("reason", &reasons())?;
    let older_ms = params.text("older")?.map(duration::parse).transpose();
    let older_ms = older_ms.map_err(|remedy| ApiError::bad_parameter("older", remedy))?;
    let unique: Option<Box<[u8]>> = params.bytes("unique").map(Into::into);
    let limit = params.limit()?;
    let list =
        ListId::of(("dead", params.bytes("function"), reason.map(Reason::name), &unique, older_ms));
    let link = app.link()?;
    let cores = link.cores();
    let only = only.map(|function| cores.owner_of(&function));
    let after = list.place(&params, |bytes| {
        read_place(bytes)
            .filter(|(core, _)| *core < cores.count && only.is_none_or(|it| it == *core))
    })?;
    let place = after.unwrap_or_else(|| (only.unwrap_or(0), DeadAt::START));
    let access = caller.permissions.clone();
    let filter =
        DeadFilter { function: glob, reason, unique, older_ms, access, ..Default::default() };
    let (rows, next) = collect(&link, &filter, place, only.is_some(), limit).await?;
    let total = total(&app, &caller, &filter, &link).await?;
    let now_s = now_s();
    let dead = rows.iter().map(|row| letter(row, now_s)).collect();
    let next = next.map(|place| list.cursor(&write_place(place)));
    Ok(Json(List { dead, total, next }).into_response())
}

/// The next rows, and where the list goes on.
async fn collect(
    link: &Link,
    filter: &DeadFilter,
    place: Place,
    is_of_one_core: bool,
    limit: usize,
) -> Result<(Vec<LetterRow>, Option<Place>), ApiError> {
    let deadline = Instant::now() + LOOKING_MAX;
    let mut rows = Vec::new();
    let mut next = Some(place);
    while let Some((core, at)) = next {
        if rows.len() >= limit || Instant::now() > deadline {
            break;
        }
        let limit = (limit - rows.len()).min(ROWS_MAX);
        let request = OperatorRequest::Dead { filter: filter.clone(), at, limit };
        let OperatorReply::Dead(more, rest) = link.ask(core, request).await? else { break };
        rows.extend(more);
        next = match rest {
            Some(at) => Some((core, at)),
            None if is_of_one_core || core + 1 == link.cores().count => None,
            None => Some((core + 1, DeadAt::START)),
        };
    }
    Ok((rows, next))
}

/// How many letters a list has, if functions alone decide about that.
async fn total(
    app: &App,
    caller: &Caller,
    filter: &DeadFilter,
    link: &Link,
) -> Result<Option<u64>, ApiError> {
    let DeadFilter { function, reason: None, unique: None, older_ms: None, .. } = filter else {
        return Ok(None);
    };
    let snapshot = app.snapshots().get(link).await?;
    let counted = snapshot.functions.iter().filter(|row| {
        let name = row.name.as_deref().unwrap_or_default();
        function.as_ref().is_none_or(|glob| glob.matches(name)) && caller.shows(name)
    });
    Ok(Some(counted.map(|row| u64::from(row.gauges.dead)).sum()))
}

/// Which letters a change is for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    function: Option<Bytes>,
    reason: Option<String>,
    unique: Option<Bytes>,
    older: Option<String>,
    handle: Option<String>,
    #[serde(default)]
    all: bool,
}

const FORM: &str = "{\"function\": \"mail-*\", \"reason\": \"fail\", \"unique\": \"u\", \
                    \"older\": \"1h\", \"handle\": \"H:…\"}, of which each may be left out, or \
                    {\"all\": true}";

impl Wanted {
    /// The filter but for the handle, which names a letter that the peer must be able to see.
    fn filter(&self) -> Result<DeadFilter, ApiError> {
        let Self { function, reason, unique, older, handle, all } = self;
        let is_filtered = function.is_some()
            || reason.is_some()
            || unique.is_some()
            || older.is_some()
            || handle.is_some();
        if *all == is_filtered {
            let why = if *all { "it has filters beside all" } else { "it says not which letters" };
            return Err(body::bad(why, &format!("send {FORM}")));
        }
        let bad = |member: &str, remedy: &str| body::bad(&format!("{member} is wrong"), remedy);
        let glob = function.as_ref().map(|it| Glob::of_bytes(&it.0)).transpose();
        let named = |name: &String| {
            Reason::named(name).ok_or_else(|| {
                let names = Reason::ALL.map(Reason::name).join(", ");
                bad("reason", &format!("it is one of: {names}"))
            })
        };
        let older_ms = older.as_deref().map(duration::parse).transpose();
        Ok(DeadFilter {
            function: glob.map_err(|error| bad("function", &format!("it {error}")))?,
            reason: reason.as_ref().map(named).transpose()?,
            unique: unique.as_ref().map(|it| it.0.clone().into()),
            older_ms: older_ms.map_err(|remedy| bad("older", &remedy))?,
            ..DeadFilter::default()
        })
    }
}

/// What becomes of letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Requeue,
    Remove,
}

/// `POST /api/v1/dead/requeue`.
pub(super) async fn requeue(
    app: State<Arc<App>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    change(app, caller, uri, headers, body, Change::Requeue).await
}

/// `DELETE /api/v1/dead`.
pub(super) async fn remove(
    app: State<Arc<App>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    change(app, caller, uri, headers, body, Change::Remove).await
}

async fn change(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
    change: Change,
) -> Result<Response, ApiError> {
    needs_some(&caller, Right::Admin)?;
    Params::of(&uri, &[])?;
    let link = app.link()?;
    let wanted: Wanted = body::read(&headers, body, FORM).await?;
    let mut filter = wanted.filter()?;
    if let Some(handle) = &wanted.handle {
        let row = find(&link, &caller, handle.as_bytes(), 0).await?;
        caller.may(Right::Admin, Scope::Function(&row.function))?;
        filter.number = link.handles().number(handle.as_bytes());
    }
    let only = filter.function.as_ref().and_then(Glob::only_name);
    if let Some(function) = &only {
        caller.may(Right::Admin, Scope::Function(function))?;
    }
    filter.access = caller.permissions.clone();
    let (done, skipped) = change_all(&app, link, &caller, filter, change).await?;
    let told = json!({"matched": done + skipped, "done": done, "skipped": skipped});
    Ok((StatusCode::ACCEPTED, Json(told)).into_response())
}

/// Changes all letters that match. Returns how many were changed, and how many weren't as their
/// unique keys are in use.
pub(super) async fn change_all(
    app: &Arc<App>,
    link: Link,
    caller: &Caller,
    filter: DeadFilter,
    change: Change,
) -> Result<(usize, usize), ApiError> {
    let (shared, peer) = (Arc::clone(app), name_of(caller));
    // Goes on to its end though the client leaves.
    let changing = tokio::spawn(async move {
        let changed = change_by_portions(&link, &filter, change).await;
        if let Ok((done, skipped)) = changed {
            let function = filter.function.map(|glob| glob.to_string());
            let what = match change {
                Change::Requeue => "dead letters requeued",
                Change::Remove => "dead letters dropped",
            };
            info!(%peer, function, done, skipped, "{what}");
        }
        shared.snapshots().forget().await;
        changed
    });
    changing.await.map_err(|_| ApiError::not_serving(app.phase()))?
}

async fn change_by_portions(
    link: &Link,
    filter: &DeadFilter,
    change: Change,
) -> Result<(usize, usize), ApiError> {
    let cores = link.cores();
    let only = match filter.number {
        Some(number) => Some(cores.owner_of_job(number)),
        None => filter.function.as_ref().and_then(Glob::only_name).map(|it| cores.owner_of(&it)),
    };
    let (mut done, mut skipped) = (0, 0);
    for core in (0..cores.count).filter(|core| only.is_none_or(|only| only == *core)) {
        let mut next = Some(DeadAt::START);
        while let Some(at) = next {
            let filter = filter.clone();
            let request = match change {
                Change::Requeue => OperatorRequest::Requeue { filter, at },
                Change::Remove => OperatorRequest::RemoveDead { filter, at },
            };
            let OperatorReply::DeadChanged(DeadChange { done: more, skipped: left, next: rest }) =
                link.ask(core, request).await?
            else {
                break;
            };
            done += more;
            skipped += left;
            next = rest;
        }
    }
    Ok((done, skipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_were_written() {
        let at = DeadAt { place: 70_000, end: u64::MAX };
        assert_eq!(read_place(&write_place((3, at))), Some((3, at)));
        for bad in [&b""[..], b"\0", &[0; 16], &[0; 18]] {
            assert_eq!(read_place(bad), None, "{bad:?}");
        }
    }

    fn filter(json: &str) -> Result<DeadFilter, String> {
        let wanted: Wanted = serde_json::from_str(json).map_err(|error| error.to_string())?;
        wanted.filter().map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_change_says_which_letters() {
        let found = filter(r#"{"function":{"base64":"/yo="},"reason":"fail","older":"2m"}"#);
        let found = found.unwrap();
        assert!(found.function.unwrap().matches(b"\xffabc"));
        assert_eq!((found.reason, found.older_ms), (Some(Reason::Fail), Some(120_000)));
        assert!(filter(r#"{"all":true}"#).unwrap().function.is_none());
        for (json, needle) in [
            ("{}", "which letters"),
            (r#"{"all":false}"#, "which letters"),
            (r#"{"all":true,"reason":"fail"}"#, "filters beside all"),
            (r#"{"reason":"x"}"#, "lost, timeout, fail, exception, expired"),
            (r#"{"older":"90"}"#, "give it a unit, as in 90s"),
            (r#"{"function":"a\\"}"#, "function is wrong"),
            (r#"{"what":1}"#, "unknown field"),
        ] {
            let error = filter(json).unwrap_err();
            assert!(error.contains(needle), "{json}: {error}");
        }
    }
}
