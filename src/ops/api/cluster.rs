//! `GET /api/v1/cluster`: the partitions of the database and the servers that own them.
//!
//! What the server knows of all partitions in, JSON out. Knows no database.
//!
//! Invariant: all servers of a database tell the same rows, but for what is new to some of them.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::super::app::App;
use super::super::error::ApiError;
use super::super::guard::Caller;
use super::params::Params;
use crate::cluster::partition::PartitionId;
use crate::cluster::view::{Known, View};

#[derive(Debug, Serialize)]
struct Row<'a> {
    id: PartitionId,
    state: &'static str,
    /// Null without an owner, and where it told none.
    name: Option<&'a str>,
    address: Option<&'a str>,
    generation: i64,
    /// Null for a free partition.
    beat_age_seconds: Option<f64>,
    jobs: u64,
}

impl<'a> Row<'a> {
    fn of(known: &'a Known, now: Instant) -> Self {
        let partition = &known.partition;
        let told = |text: &'a str| Some(text).filter(|text| !text.is_empty());
        Self {
            id: partition.id,
            state: partition.state.name(),
            name: told(&partition.name),
            address: told(&partition.address),
            generation: partition.generation,
            beat_age_seconds: known.age(now).map(|age| age.as_millis() as f64 / 1000.0),
            jobs: partition.jobs,
        }
    }
}

#[derive(Debug, Serialize)]
struct List<'a> {
    partitions: Vec<Row<'a>>,
    total: usize,
    /// There is one page.
    next: Option<()>,
}

impl<'a> List<'a> {
    fn of(known: impl Iterator<Item = &'a Known>, now: Instant) -> Self {
        let partitions: Vec<_> = known.map(|known| Row::of(known, now)).collect();
        Self { total: partitions.len(), partitions, next: None }
    }
}

/// What this server has to do with the partitions.
#[derive(Debug, Serialize)]
pub(super) struct Membership {
    partitions: usize,
    own: Vec<PartitionId>,
    suspended: bool,
    adopted: u64,
    lost: u64,
    orphaned: u64,
}

impl Membership {
    pub(super) fn of(view: &View) -> Self {
        let contents = view.read();
        let own = contents.partitions.iter().filter(|known| known.is_own);
        Self {
            partitions: contents.partitions.len(),
            own: own.map(|known| known.partition.id).collect(),
            suspended: view.is_suspended.load(Relaxed),
            adopted: view.adopted.load(Relaxed),
            lost: view.lost.load(Relaxed),
            orphaned: view.orphaned.load(Relaxed),
        }
    }
}

/// `GET /api/v1/cluster`; no rows without a database that has partitions.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, ApiError> {
    caller.may_observe_all()?;
    Params::of(&uri, &[])?;
    let contents = app.settings().cluster.as_deref().map(View::read);
    let known = contents.iter().flat_map(|contents| &contents.partitions);
    Ok(Json(List::of(known, Instant::now())).into_response())
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;
    use crate::cluster::view::three_partitions;

    #[test]
    fn a_row_a_partition_and_null_for_what_there_is_not() {
        let now = Instant::now();
        let view = three_partitions(now);
        let list = to_value(List::of(view.read().partitions.iter(), now)).unwrap();
        let row = |id, state, name, address, generation, age, jobs| {
            json!({"id": id, "state": state, "name": name, "address": address,
                "generation": generation, "beat_age_seconds": age, "jobs": jobs})
        };
        let none = json!(null);
        let rows = [
            row(0, "owned", json!("web-1"), json!("web-1.example:4730"), 3, json!(0.4), 12),
            row(1, "offered", json!("web-2"), none.clone(), 7, json!(2.5), 5),
            row(2, "free", none.clone(), none.clone(), 1, none, 0),
        ];
        assert_eq!(list, json!({"partitions": rows, "total": 3, "next": null}));
    }

    #[test]
    fn the_server_tells_which_are_its_own_and_what_became_of_others() {
        let view = three_partitions(Instant::now());
        let expected = json!({"partitions": 3, "own": [0], "suspended": false, "adopted": 2,
            "lost": 1, "orphaned": 4});
        assert_eq!(to_value(Membership::of(&view)).unwrap(), expected);
        view.is_suspended.store(true, Relaxed);
        assert_eq!(to_value(Membership::of(&view)).unwrap()["suspended"], true);
    }
}
