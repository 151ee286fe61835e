//! The endpoints, by path and method.
//!
//! Knows nothing of what they do.

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::get;

use super::app::App;
use super::error::ApiError;
use super::{health, metrics, page};

pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::script))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .fallback(unknown)
        .with_state(app)
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found(
        format!("there is nothing at {method} {}", uri.path()),
        "see docs/http.md for the endpoints",
    )
}
