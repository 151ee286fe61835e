//! The endpoints, by path and method.
//!
//! Knows nothing of what they do.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

use super::app::App;
use super::guard::routes::Routes;
use super::{api, health, metrics, page};

pub(super) fn router(app: Arc<App>) -> Router {
    let routes = Routes::new(app)
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::script))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics));
    api::add_to(routes).finish()
}
