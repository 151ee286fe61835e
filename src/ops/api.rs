//! The interface for programs and the page: what there is as JSON, and changes.
//!
//! `functions`, `jobs`, `connections` and `server` answer GET, `changes` does what DELETE and PUT
//! ask for, and `events` streams what changed. Submissions are in `submit`.
//!
//! Invariant: a parameter that makes no sense is refused and named, and a peer is told of nothing
//! that it may not observe.

mod changes;
mod connections;
mod cursor;
mod events;
mod functions;
mod jobs;
mod names;
mod params;
mod server;

use axum::routing::{delete, get, put};

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
        .route("/api/v1/events", get(events::stream))
        .route("/api/v1/functions", get(functions::list))
        .route("/api/v1/workers", get(connections::workers))
        .route("/api/v1/connections", get(connections::all))
        .route("/api/v1/jobs", get(jobs::list))
        .route("/api/v1/jobs/{handle}", get(jobs::one).delete(changes::cancel));
    for function in ["/api/v1/functions/{function}", "/api/v1/functions/"] {
        routes = routes
            .route(function, get(functions::one))
            .route(&format!("{function}/jobs"), delete(changes::purge).post(submit::post))
            .route(&format!("{function}/maxqueue"), put(changes::limit));
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
