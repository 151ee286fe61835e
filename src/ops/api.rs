//! The interface for programs and the page: what there is as JSON, and changes.
//!
//! `functions`, `jobs`, `connections`, `cluster` and `server` answer GET, `changes` does what
//! DELETE, POST and PUT ask for, `dead` has all of dead letters, and `events` streams what changed.
//! Submissions are in `submit`.
//!
//! Invariant: a parameter that makes no sense is refused and named, and a peer is told of nothing
//! that it may not observe.

mod body;
mod changes;
mod cluster;
mod connections;
mod cursor;
mod dead;
mod events;
mod functions;
mod jobs;
mod names;
mod params;
mod server;

use axum::routing::{delete, get, post, put};

use super::error::ApiError;
use super::guard::Caller;
use super::guard::routes::Routes;
use super::submit;
use crate::protocol::access::{Right, Scope};
use crate::protocol::peer_address::{PeerAddress, UnixPeer};

/// Adds the endpoints. A function's name may be empty.
pub(super) fn add_to(routes: Routes) -> Routes {
    let mut routes = routes
        .route("/api/v1/server", get(server::one))
        .route("/api/v1/cluster", get(cluster::list))
        .route("/api/v1/events", get(events::stream))
        .route("/api/v1/functions", get(functions::list))
        .route("/api/v1/workers", get(connections::workers))
        .route("/api/v1/connections", get(connections::all))
        .route("/api/v1/jobs", get(jobs::list))
        .route("/api/v1/jobs/{handle}", get(jobs::one).delete(changes::cancel))
        .route("/api/v1/jobs/{handle}/run", post(changes::run))
        .route("/api/v1/dead", get(dead::list).delete(dead::remove))
        .route("/api/v1/dead/requeue", post(dead::requeue))
        .route("/api/v1/dead/{handle}", get(dead::one));
    for function in ["/api/v1/functions/{function}", "/api/v1/functions/"] {
        routes = routes
            .route(function, get(functions::one))
            .route(&format!("{function}/jobs"), delete(changes::purge).post(submit::post))
            .route(&format!("{function}/maxqueue"), put(changes::limit))
            .route(&format!("{function}/pause"), post(changes::pause))
            .route(&format!("{function}/resume"), post(changes::resume));
    }
    routes
}

/// Whether a peer may do what needs a right with any function at all.
fn needs_some(caller: &Caller, right: Right) -> Result<(), ApiError> {
    match &caller.permissions {
        Some(permissions) if !permissions.may_some(right) => caller.may(right, Scope::AllFunctions),
        _ => Ok(()),
    }
}

/// `192.0.2.7:5000`, or `unix:uid=1000,pid=7`.
fn address(peer: PeerAddress) -> String {
    match peer {
        PeerAddress::Ip(address) => address.to_string(),
        PeerAddress::Unix(UnixPeer { uid, pid, .. }) => format!("unix:uid={uid},pid={pid}"),
    }
}
