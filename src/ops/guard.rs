//! In whose name a request is made, and what that peer may do.
//!
//! A connection's origin and a request's head in, a `Caller` or the error of a refusal out;
//! `checks` decides which requests are handled at all, `permit` how many at a time. Knows no
//! endpoint and no body.
//!
//! Invariant: without an access list peers on this host may do everything, and others observe.

pub(super) mod checks;
pub(super) mod permit;
pub(super) mod routes;

use std::sync::{Arc, LazyLock};

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};

use super::app::App;
use super::error::ApiError;
use super::listen::origin::Origin;
use super::tokens::Tokens;
use crate::protocol::access::{AccessList, Peer, Permissions, Right, Rule, Scope, Who};
use crate::protocol::peer_address::PeerAddress;

/// The peer that a request comes from.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// Where it is.
    pub(super) peer: PeerAddress,
    /// What it may do; `None` stands for everything.
    pub(super) permissions: Option<Arc<Permissions>>,
    app: Arc<App>,
}

impl Caller {
    /// What log lines call it.
    pub(super) fn name(&self) -> String {
        match &self.permissions {
            Some(permissions) => permissions.peer().to_owned(),
            None => self.peer.to_string(),
        }
    }

    /// Whether it may do what needs a right. A refusal is counted and logged.
    ///
    /// # Errors
    /// `ApiError` with what it may not do.
    pub(super) fn may(&self, right: Right, scope: Scope<'_>) -> Result<(), ApiError> {
        let Some(permissions) = &self.permissions else { return Ok(()) };
        if permissions.may(right, scope).is_allowed {
            return Ok(());
        }
        let (function, of) = match scope {
            Scope::Function(function) => {
                (Some(function), format!(" {}", String::from_utf8_lossy(function)))
            }
            Scope::AllFunctions => (None, " all functions".to_owned()),
        };
        self.app.note_denial(permissions.peer(), right, function, self.peer);
        let message = format!("{} may not {right}{of}", permissions.peer());
        let remedy = match self.app.access_list() {
            Some(_) => "ringgeard --access-check tells which rule of the access list decides",
            None => {
                "name an access list with --access-file: without one only peers on the \
                     server's own host may do more than observe"
            }
        };
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
        let Some(origin) = parts.extensions.get::<Origin>().cloned() else {
            let message = "the request comes from no connection";
            let remedy = "this is an error in ringgeard: report it";
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Err(ApiError::new(status, "NO_ORIGIN", message, remedy));
        };
        let Origin { address, listener, user, certificate } = origin;
        let token = match app.tokens() {
            Some(tokens) => token(&parts.headers, &tokens)?,
            None => None,
        };
        let ip = address.ip();
        let peer = Peer { address: ip, listener, certificate, user, token };
        let list = match app.access_list() {
            Some(list) => list,
            None if ip.is_none_or(|it| it.is_loopback()) => {
                return Ok(Self { peer: address, permissions: None, app: Arc::clone(app) });
            }
            None => Arc::clone(&OBSERVERS),
        };
        let permissions = Some(Arc::new(Permissions::of(&list, &peer)));
        Ok(Self { peer: address, permissions, app: Arc::clone(app) })
    }
}

/// The name of the token that a request shows; `None` if it shows none.
fn token(headers: &HeaderMap, tokens: &Tokens) -> Result<Option<Box<str>>, ApiError> {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    let (first, more) = (shown.next(), shown.next());
    let Some(first) = first else { return Ok(None) };
    let is_bearer = |scheme: &[u8]| scheme.eq_ignore_ascii_case(b"bearer ");
    let token = first.as_bytes().split_at_checked(7).filter(|(scheme, _)| is_bearer(scheme));
    let name = match (token, more) {
        (Some((_, token)), None) => tokens.name_of(token.trim_ascii()),
        _ => None,
    };
    name.map(|name| Some(name.into())).ok_or_else(|| {
        let remedy = "send Authorization: Bearer and a token whose SHA-256 stands in the file of \
                      --http-token-file, once";
        ApiError::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "the token is unknown", remedy)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    })
}

#[cfg(test)]
mod tests;
