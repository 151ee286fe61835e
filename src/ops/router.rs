//! The endpoints, by path and method.
//!
//! Knows nothing of what they do.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get, post};

use super::app::App;
use super::error::ApiError;
use super::guard::checks;
use super::{health, page, submit};

/// Largest body of a request, but for the payload of a job.
const BODY_BYTES_MAX: usize = 64 << 10;

pub(super) fn router(app: Arc<App>) -> Router {
    Routes::new(app)
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::script))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/api/v1/functions/{function}/jobs", post(submit::post))
        .finish()
}

/// Endpoints that `checks` stands before.
struct Routes {
    app: Arc<App>,
    router: Router<Arc<App>>,
}

impl Routes {
    fn new(app: Arc<App>) -> Self {
        Self { app, router: Router::new() }
    }

    /// With the methods of a path. Other methods are refused before anything else is looked at.
    fn route(self, path: &str, methods: MethodRouter<Arc<App>>) -> Self {
        let admit = from_fn_with_state(Arc::clone(&self.app), checks::admit);
        Self { router: self.router.route(path, methods.route_layer(admit)), ..self }
    }

    fn finish(self) -> Router {
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
