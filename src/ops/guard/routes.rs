//! Endpoints with `checks` before each of them.
//!
//! Paths and handlers in, a router out. Knows nothing of what they do.
//!
//! Invariant: no handler is reached by a request that `checks` refuses.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::MethodRouter;

use super::checks;
use crate::ops::app::App;
use crate::ops::error::ApiError;

/// Largest body of a request, but for the payload of a job.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Endpoints that `checks` stands before.
pub(in crate::ops) struct Routes {
    app: Arc<App>,
    router: Router<Arc<App>>,
}

impl Routes {
    pub(in crate::ops) fn new(app: Arc<App>) -> Self {
        Self { app, router: Router::new() }
    }

    /// With the methods of a path. Other methods are refused before anything else is looked at.
    pub(in crate::ops) fn route(self, path: &str, methods: MethodRouter<Arc<App>>) -> Self {
        let admit = from_fn_with_state(Arc::clone(&self.app), checks::admit);
        Self { router: self.router.route(path, methods.route_layer(admit)), ..self }
    }

    /// The router. Unknown paths and methods are answered, too.
    pub(in crate::ops) fn finish(self) -> Router {
        self.router
            .method_not_allowed_fallback(other_method)
            .fallback(unknown)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(from_fn(checks::finish))
            .with_state(self.app)
    }
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found(
        format!("there is nothing at {method} {}", uri.path()),
        "see docs/http.md for the endpoints",
    )
}

async fn other_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "METHOD_NOT_ALLOWED",
        format!("{} has no method {method}", uri.path()),
        "use a method that the header Allow names",
    )
}
