//! `GET /metrics`: all numbers of the server as text for Prometheus and others.
//!
//! A snapshot of the cores in, an answer out, in the format and coding that the client takes
//! (`accept`). The encoder of the formats is a crate's; `functions`, `server` and `process` say
//! which numbers there are and what they are called.
//!
//! Invariant: all numbers of a function are of the same moment.

mod accept;
mod families;
mod functions;
mod label;
mod process;
mod server;
mod state;

use std::fmt::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use self::accept::{Coding, Format};
use self::families::Families;
use self::process::ProcessNumbers;
use self::server::CoreTimes;
pub(super) use self::state::MetricsState;
use super::app::App;
use super::error::ApiError;
use super::guard::Caller;
use super::snapshot::Snapshot;
use crate::protocol::access::RIGHTS;
use crate::store::health::StoreNumbers;

/// All that a scrape tells.
#[derive(Debug)]
struct Scrape {
    snapshot: Arc<Snapshot>,
    version: &'static str,
    driver: &'static str,
    /// The kind of store, if there is one.
    store: Option<&'static str>,
    http_connections: u64,
    /// What the access list refused of HTTP requests, by right.
    http_denied: [u64; RIGHTS],
    /// How the store is, if there is one.
    store_numbers: Option<StoreNumbers>,
    /// `--memory-max`.
    memory_bytes_max: u64,
    /// Until when the server's certificate is valid, if it has one.
    certificate_until_s: Option<u64>,
    /// By core.
    core_times: Vec<CoreTimes>,
    /// By level.
    log_lines: Vec<(&'static str, u64)>,
    /// How long the last scrape took.
    last_seconds: f64,
    process: Option<ProcessNumbers>,
}

/// A scrape, and the format that it is told in.
#[derive(Debug)]
struct Told(Scrape, Format);

impl Collector for Told {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(scrape, format) = self;
        let mut families = Families { encoder, format: *format };
        functions::encode(&mut families, &scrape.snapshot)?;
        server::encode(&mut families, scrape)?;
        if let Some(process) = &scrape.process {
            process.encode(&mut families)?;
        }
        Ok(())
    }
}

impl Scrape {
    async fn take(app: &App) -> Result<Self, ApiError> {
        let link = app.link()?;
        let settings = app.settings();
        let snapshot = app.snapshots().get(&link).await?;
        let core_times = (0..link.cores().count).map(|core| link.core_times(core)).collect();
        Ok(Self {
            snapshot,
            version: settings.version,
            driver: settings.driver,
            store: settings.store,
            http_connections: app.connections().count() as u64,
            http_denied: app.denials(),
            store_numbers: settings.store_health.as_ref().map(|it| it.snapshot()),
            memory_bytes_max: settings.memory_bytes_max as u64,
            certificate_until_s: app.tls().map(|tls| tls.not_after_s()),
            core_times,
            log_lines: settings.log_lines.counts().collect(),
            last_seconds: app.metrics().last_seconds(),
            process: ProcessNumbers::read(),
        })
    }

    fn text(self, format: Format) -> Result<String, Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Told(self, format)));
        let mut out = String::new();
        match format {
            Format::Text => prometheus_text::encode(&mut out, &registry)?,
            Format::OpenMetrics => text::encode(&mut out, &registry)?,
        }
        Ok(out)
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    caller.may_observe_all()?;
    let format = Format::accepted(&headers).ok_or_else(|| {
        not_acceptable("text/plain; version=0.0.4 and application/openmetrics-text; version=1.0.0")
    })?;
    let coding = Coding::accepted(&headers)
        .ok_or_else(|| not_acceptable("the codings gzip and identity"))?;
    let began = Instant::now();
    let text = Scrape::take(&app).await?.text(format).map_err(|_| unwritten())?;
    let mut response = match coding {
        Coding::Identity => text.into_response(),
        Coding::Gzip => {
            let mut response = gzip(text.as_bytes()).map_err(|_| unwritten())?.into_response();
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
    };
    app.metrics().set_last_seconds(began.elapsed().as_secs_f64());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    Ok(response)
}

fn gzip(text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text)?;
    encoder.finish()
}

fn not_acceptable(offer: &str) -> ApiError {
    let remedy = format!("there are {offer}; leave the header out to get the first");
    let message = "the request takes nothing that there is";
    ApiError::new(StatusCode::NOT_ACCEPTABLE, "NOT_ACCEPTABLE", message, remedy)
        .with_header(VARY, HeaderValue::from_static("Accept-Encoding"))
}

/// Strings take all that is written to them.
fn unwritten() -> ApiError {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    ApiError::new(status, "INTERNAL", "the numbers could not be written", "report this")
}

#[cfg(test)]
mod tests;
