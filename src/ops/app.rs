//! What all requests share: the settings, the links to the cores, what was read anew, snapshots.
//!
//! Set by the server's start and by messages, read by handlers. Knows no endpoint.
//!
//! Invariant: nothing here is held across a wait.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::watch;

use super::Phase;
use super::error::ApiError;
use super::link::Link;
use super::metrics::MetricsState;
use super::snapshot::Snapshots;
use crate::io::HttpLink;
use crate::io::log::LogLines;
use crate::protocol::access::AccessList;
use crate::shard::Listener;
use crate::wire::tls::TlsServer;

/// What the HTTP thread is started with.
#[derive(Clone, Debug, Default)]
pub struct HttpSettings {
    /// The server's version.
    pub version: &'static str,
    /// The event loop that runs.
    pub driver: &'static str,
    /// The kind of store, if there is one.
    pub store: Option<&'static str>,
    /// Names that requests may be for, beside addresses and localhost.
    pub hosts: Vec<String>,
    /// Whether the server is ready though its store can't be written to.
    pub ready_without_store: bool,
    /// Largest body of a job.
    pub body_bytes_max: usize,
    /// Most memory for jobs and for what is on its way.
    pub memory_bytes_max: usize,
    /// Options that differ from their defaults.
    pub options: Vec<(String, String)>,
    /// The listeners for Gearman.
    pub listeners: Arc<[Listener]>,
    /// The access list at the start; `None` allows everything to peers on this host, and looking to
    /// others.
    pub access_list: Option<Arc<AccessList>>,
    /// How many lines were logged.
    pub log_lines: Arc<LogLines>,
    /// TLS at the start, if a listener speaks it.
    pub tls: Option<Arc<TlsServer>>,
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct App {
    settings: HttpSettings,
    started: Instant,
    phase: Mutex<Phase>,
    /// Once the cores are there.
    link: watch::Sender<Option<Link>>,
    access_list: RwLock<Option<Arc<AccessList>>>,
    tls: RwLock<Option<Arc<TlsServer>>>,
    snapshots: Snapshots,
    metrics: Arc<MetricsState>,
}

impl App {
    pub(super) fn new(settings: HttpSettings) -> Self {
        Self {
            started: Instant::now(),
            phase: Mutex::new(Phase::Recovering),
            link: watch::Sender::new(None),
            access_list: RwLock::new(settings.access_list.clone()),
            tls: RwLock::new(settings.tls.clone()),
            snapshots: Snapshots::default(),
            metrics: Arc::default(),
            settings,
        }
    }

    pub(super) fn settings(&self) -> &HttpSettings {
        &self.settings
    }

    /// When it was started.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// The cores are there.
    pub(super) fn attach(&self, link: HttpLink) {
        self.set_phase(Phase::Serving);
        self.link.send_replace(Some(Link::new(link)));
    }

    /// Waits until the cores are there.
    pub(super) async fn attached(&self) -> Option<Link> {
        let mut link = self.link.subscribe();
        let link = link.wait_for(Option::is_some).await.ok()?;
        link.clone()
    }

    /// The links to the cores.
    ///
    /// # Errors
    /// `ApiError` while there are none.
    pub(super) fn link(&self) -> Result<Link, ApiError> {
        self.link.borrow().clone().ok_or_else(|| ApiError::not_serving(self.phase()))
    }

    pub(super) fn access_list(&self) -> Option<Arc<AccessList>> {
        self.access_list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_access_list(&self, list: Arc<AccessList>) {
        *self.access_list.write().unwrap_or_else(PoisonError::into_inner) = Some(list);
    }

    pub(super) fn tls(&self) -> Option<Arc<TlsServer>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_tls(&self, tls: Arc<TlsServer>) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(tls);
    }

    /// What is kept from scrape to scrape.
    pub(super) fn metrics(&self) -> &Arc<MetricsState> {
        &self.metrics
    }

    pub(super) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }
}
