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

use std::sync::Arc;

use axum::routing::{MethodRouter, delete, get, put};

use super::app::App;
use super::error::ApiError;
use super::guard::Caller;
use super::submit;
use crate::protocol::access::{Right, Scope};
use crate::protocol::peer_address::{PeerAddress, UnixPeer};

/// The endpoints: paths and their methods. A function's name may be empty.
pub(super) fn endpoints() -> Vec<(String, MethodRouter<Arc<App>>)> {
    let mut endpoints = vec![
        ("/api/v1/server".to_owned(), get(server::one)),
        ("/api/v1/events".to_owned(), get(events::stream)),
        ("/api/v1/functions".to_owned(), get(functions::list)),
        ("/api/v1/workers".to_owned(), get(connections::workers)),
        ("/api/v1/connections".to_owned(), get(connections::all)),
        ("/api/v1/jobs".to_owned(), get(jobs::list)),
        ("/api/v1/jobs/{handle}".to_owned(), get(jobs::one).delete(changes::cancel)),
    ];
    for function in ["/api/v1/functions/{function}", "/api/v1/functions/"] {
        endpoints.extend([
            (function.to_owned(), get(functions::one)),
            (format!("{function}/jobs"), delete(changes::purge).post(submit::post)),
            (format!("{function}/maxqueue"), put(changes::limit)),
        ]);
    }
    endpoints
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
