//! `GET /api/v1/events`: what changed, once a second, as server-sent events.
//!
//! One task makes each second's event for all viewers, as long as there are any. Knows no viewer's
//! address.
//!
//! Invariant: an event has at most `CHANGED_MAX` functions.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::super::app::App;
use super::super::error::ApiError;
use super::super::guard::Caller;
use super::super::history::{History, Rate};
use super::super::link::Link;
use super::super::listen::activity::Activity;
use super::super::snapshot::Snapshot;
use super::super::viewers::VIEWERS_MAX;
use super::functions::{self, Function, is_listed};
use super::params::Params;
use super::server::{self, Numbered};
use crate::shard::operator::FunctionRow;

/// From one event to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most functions of an event; of more the viewers fetch those that they show.
const CHANGED_MAX: usize = 100;

/// `GET /api/v1/events`.
pub(super) async fn stream(
    State(app): State<Arc<App>>,
    caller: Caller,
    activity: Option<Extension<Arc<Activity>>>,
    uri: Uri,
) -> Result<Response, ApiError> {
    caller.may_observe_all()?;
    Params::of(&uri, &[])?;
    let link = app.link()?;
    let (viewer, is_first) = app.viewers().enter().ok_or_else(|| {
        let message = format!("{VIEWERS_MAX} viewers have events already");
        let remedy = "close other pages, or ask for the lists from time to time";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        ApiError::new(status, "TOO_MANY_VIEWERS", message, remedy).retry_after(30)
    })?;
    // From now on its connection waits, and is none of those at work.
    if let Some(Extension(activity)) = activity {
        activity.wait();
    }
    if is_first {
        tokio::spawn(run(Arc::clone(&app), link));
    }
    let start = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"retry: 2000\n\n"))]);
    let events = stream::unfold(viewer, |mut viewer| async move {
        let event = viewer.next().await?;
        Some((Ok(event), viewer))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(start.chain(events))).into_response())
}

/// Makes events until there is no viewer, or the server ends.
async fn run(app: Arc<App>, link: Link) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut earlier = None;
    while !app.viewers().end_if_none() {
        ticks.tick().await;
        let Ok(snapshot) = app.snapshots().get(&link).await else { break };
        let numbered = server::numbered(&app, &link, &snapshot);
        let (event, told) = app.with_history(|history| {
            let told = Told::of(Arc::clone(&snapshot), history);
            (update(&told, earlier.as_ref(), &numbered, history), told)
        });
        earlier = Some(told);
        if let Some(event) = event {
            app.viewers().send(event);
        }
    }
    app.viewers().end();
}

/// What an event was made of.
#[derive(Debug)]
struct Told {
    snapshot: Arc<Snapshot>,
    /// Of functions that are named in metrics, unless they are 0: rates fall though nothing
    /// happens.
    rates: HashMap<Box<[u8]>, Rate>,
}

impl Told {
    fn of(snapshot: Arc<Snapshot>, history: &History) -> Self {
        let rates = snapshot.functions.iter().filter_map(|row| {
            let (name, numbers) = (row.name.as_ref()?, row.numbers.as_ref()?);
            let rate = history.rate(name, snapshot.at, numbers);
            (rate != Rate::default()).then(|| (name.clone(), rate))
        });
        Self { rates: rates.collect(), snapshot }
    }
}

#[derive(Debug, Serialize)]
struct Update<'a> {
    time: f64,
    server: &'a Numbered,
    changed: Vec<Function<'a>>,
    more: bool,
}

/// The event about what changed since the one before; nothing has before the first.
fn update(
    told: &Told,
    earlier: Option<&Told>,
    server: &Numbered,
    history: &History,
) -> Option<Bytes> {
    let changed = earlier.map_or_else(|| Some(Vec::new()), |earlier| changed(told, earlier));
    let more = changed.is_none();
    let rows = changed.unwrap_or_default();
    let snapshot = &told.snapshot;
    let functions = rows.into_iter().map(|row| functions::function(row, snapshot, history));
    let update = Update { time: snapshot.unix_s, server, changed: functions.collect(), more };
    let json = serde_json::to_string(&update).ok()?;
    Some(format!("event: update\ndata: {json}\n\n").into())
}

/// Functions that aren't as they were told; `None` where they are many, or some are gone.
fn changed<'a>(told: &'a Told, earlier: &Told) -> Option<Vec<&'a FunctionRow>> {
    let before: HashMap<&[u8], &FunctionRow> = listed(&earlier.snapshot).collect();
    let mut changed = Vec::new();
    let mut known = 0;
    for (name, row) in listed(&told.snapshot) {
        let old = before.get(name);
        known += usize::from(old.is_some());
        let is_same = old.is_some_and(|old| is_same(old, row))
            && told.rates.get(name) == earlier.rates.get(name);
        if !is_same {
            changed.push(row);
        }
        if changed.len() > CHANGED_MAX {
            return None;
        }
    }
    (known == before.len()).then_some(changed)
}

fn listed(snapshot: &Snapshot) -> impl Iterator<Item = (&[u8], &FunctionRow)> {
    let rows = snapshot.functions.iter().filter(|row| is_listed(row));
    rows.filter_map(|row| Some((row.name.as_deref()?, row)))
}

fn is_same(one: &FunctionRow, other: &FunctionRow) -> bool {
    one.exists == other.exists
        && one.gauges == other.gauges
        && one.numbers == other.numbers
        && one.queue_max == other.queue_max
        && one.pause == other.pause
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::numbers::Gauges;

    fn told(rows: impl IntoIterator<Item = (usize, u32)>) -> Told {
        let row = |(name, running): (usize, u32)| FunctionRow {
            name: Some(name.to_string().into_bytes().into()),
            exists: true,
            gauges: Gauges { running, ..Gauges::default() },
            numbers: None,
            queue_max: [0; 3],
            pause: None,
        };
        let snapshot = Snapshot::of(rows.into_iter().map(row).collect());
        let history = History::new(snapshot.at);
        Told::of(Arc::new(snapshot), &history)
    }

    #[test]
    fn an_event_has_what_changed_unless_that_is_much_or_gone() {
        let names = |new: &Told, old: &Told| {
            let changed = changed(new, old)?;
            Some(changed.into_iter().filter_map(|row| row.name.clone()).collect::<Vec<_>>())
        };
        let old = told([(1, 1), (2, 1), (3, 0)]);
        assert_eq!(names(&old, &old).unwrap().len(), 0);
        let new = told([(1, 1), (2, 2), (3, 0), (4, 0)]);
        assert_eq!(names(&new, &old).unwrap(), [(*b"2").into(), (*b"4").into()]);
        assert_eq!(names(&old, &new), None, "one is gone");
        let many = |running| told((0..101).map(|name| (name, running)));
        assert_eq!(names(&many(1), &many(0)), None);
        let hundred = |running| told((0..100).map(|name| (name, running)));
        assert_eq!(names(&hundred(1), &hundred(0)).unwrap().len(), 100);
    }

    #[test]
    fn a_rate_that_falls_is_a_change() {
        let mut new = told([(1, 1)]);
        let mut old = told([(1, 1)]);
        old.rates.insert((*b"1").into(), Rate { completed: 2.0, ..Rate::default() });
        assert_eq!(changed(&new, &old).unwrap().len(), 1);
        new.rates = old.rates.clone();
        assert_eq!(changed(&new, &old).unwrap().len(), 0);
    }
}
