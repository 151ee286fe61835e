//! `GET /metrics`: all numbers of the server as text for Prometheus and others.
//!
//! A snapshot of the cores in, an answer out. `functions`, `server` and `partitions` say which
//! numbers there are and what they are called; `super::exposition` writes them.
//!
//! Invariant: all numbers of a function are of the same moment.

mod functions;
mod label;
mod partitions;
mod server;
mod state;

use std::fmt::Error;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use self::partitions::Partitions;
use self::server::CoreTimes;
pub(super) use self::state::MetricsState;
use super::app::App;
use super::error::ApiError;
use super::exposition::{Accepted, Families, Numbers, ProcessNumbers};
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
    /// How the partitions are, if the store has any.
    partitions: Option<Partitions>,
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

impl Numbers for Scrape {
    fn encode(&self, families: &mut Families<'_>) -> Result<(), Error> {
        functions::encode(families, &self.snapshot)?;
        server::encode(families, self)?;
        if let Some(partitions) = &self.partitions {
            partitions.encode(families)?;
        }
        if let Some(process) = &self.process {
            process.encode(families)?;
        }
        Ok(())
    }
}

impl Scrape {
    async fn take(app: &App, began: Instant) -> Result<Self, ApiError> {
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
            partitions: settings.cluster.as_deref().map(|it| Partitions::of(it, began)),
            memory_bytes_max: settings.memory_bytes_max as u64,
            certificate_until_s: app.tls().map(|tls| tls.not_after_s()),
            core_times,
            log_lines: settings.log_lines.counts().collect(),
            last_seconds: app.metrics().last_seconds(),
            process: ProcessNumbers::read(),
        })
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    caller.may_observe_all()?;
    let accepted = Accepted::by(&headers)?;
    let began = Instant::now();
    let response = accepted.answer(Scrape::take(&app, began).await?)?;
    app.metrics().set_last_seconds(began.elapsed().as_secs_f64());
    Ok(response)
}

#[cfg(test)]
mod tests;
