//! Errors that HTTP clients get: a status, a code, and a sentence with the remedy.
//!
//! Knows no endpoint.
//!
//! Invariant: each error is JSON with `code`, `message` and `remedy`.

use axum::Json;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Phase;
use super::link::Ending;

/// An error that a client gets.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    remedy: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (message, remedy) = (message.into(), remedy.into());
        Self { status, code, message, remedy, headers: Vec::new() }
    }

    /// With a header.
    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The code.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// With the seconds after which another try may go better.
    pub(super) fn retry_after(self, seconds: u32) -> Self {
        self.with_header(RETRY_AFTER, seconds.into())
    }

    /// A parameter makes no sense.
    pub(super) fn bad_parameter(name: &str, remedy: impl Into<String>) -> Self {
        let message = format!("the parameter {name} makes no sense");
        Self::new(StatusCode::BAD_REQUEST, "BAD_PARAMETER", message, remedy)
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message, remedy)
    }

    /// The cores aren't there yet.
    pub(super) fn not_serving(phase: Phase) -> Self {
        let (code, message) = match phase {
            Phase::Recovering | Phase::Serving => {
                ("RECOVERING", "the server is taking back what its store kept")
            }
            Phase::Standby => {
                ("STANDBY", "another server has the store, and this one waits for it")
            }
            Phase::Draining => ("DRAINING", "the server is about to end"),
        };
        let remedy = "try again later, or ask the server that is active";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message, remedy).retry_after(1)
    }
}

impl From<Ending> for ApiError {
    fn from(_: Ending) -> Self {
        Self::not_serving(Phase::Draining)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, code, message, remedy, headers } = self;
        let body = json!({"error": {"code": code, "message": message, "remedy": remedy}});
        let mut response = (status, Json(body)).into_response();
        for (name, value) in headers {
            response.headers_mut().append(name, value);
        }
        response
    }
}
