//! In whose name a request is made, and what that peer may do.
//!
//! A connection's origin and a request's head in, a `Caller` or the error of a refusal out. Knows no
//! endpoint and no body.
//!
//! Invariant: without an access list peers on this host may do everything, and others observe.

use std::sync::{Arc, LazyLock};

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::app::App;
use super::error::ApiError;
use super::listen::Origin;
use crate::protocol::access::{AccessList, Peer, Permissions, Right, Rule, Scope, Who};
use crate::protocol::peer_address::PeerAddress;

/// The peer that a request comes from.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Where it is.
    pub(super) peer: PeerAddress,
    /// What it may do; `None` stands for everything.
    pub(super) permissions: Option<Arc<Permissions>>,
}

impl Caller {
    /// Whether it may do what needs a right.
    ///
    /// # Errors
    /// `ApiError` with what it may not do.
    pub(super) fn may(&self, right: Right, scope: Scope<'_>) -> Result<(), ApiError> {
        let Some(permissions) = &self.permissions else { return Ok(()) };
        if permissions.may(right, scope).is_allowed {
            return Ok(());
        }
        let of = match scope {
            Scope::Function(function) => format!(" {}", String::from_utf8_lossy(function)),
            Scope::AllFunctions => " all functions".to_owned(),
        };
        let message = format!("{} may not {right}{of}", permissions.peer());
        let remedy = "ringgeard --access-check tells which rule of the access list decides";
        Err(ApiError::new(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message, remedy))
    }

    /// Whether it may see what concerns all functions.
    ///
    /// # Errors
    /// `ApiError` if it may not.
    pub(super) fn may_observe_all(&self) -> Result<(), ApiError> {
        self.may(Right::Observe, Scope::AllFunctions)
    }

    /// Whether it may see a function in lists.
    pub(super) fn shows(&self, function: &[u8]) -> bool {
        self.permissions.as_ref().is_none_or(|permissions| permissions.shows(function))
    }
}

/// What peers of other hosts may do where there is no access list.
static OBSERVERS: LazyLock<Arc<AccessList>> = LazyLock::new(|| {
    let rights = [Right::Observe].into_iter().collect();
    let who = Who::default();
    Arc::new(AccessList::new(vec![Rule { line: 1, who, allows: true, rights, functions: None }]))
});

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Some(Origin { peer, listener }) = parts.extensions.get::<Origin>().cloned() else {
            return Err(ApiError::not_found("the connection has no origin", "report this"));
        };
        let address = peer.ip();
        let known = Peer { address, listener, ..Peer::default() };
        let list = match app.access_list() {
            Some(list) => list,
            None if address.is_none_or(|it| it.is_loopback()) => {
                return Ok(Self { peer, permissions: None });
            }
            None => Arc::clone(&OBSERVERS),
        };
        Ok(Self { peer, permissions: Some(Arc::new(Permissions::of(&list, &known))) })
    }
}
