//! What all requests share: the settings, the links to the cores, what was read anew, snapshots.
//!
//! Set by the server's start and by messages, read by handlers. Knows no endpoint.
//!
//! Invariant: nothing here is held across a wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, watch};

use super::Phase;
use super::api::events::Events;
use super::error::ApiError;
use super::history::History;
use super::link::{Limits, Link};
use super::snapshot::Snapshots;
use crate::io::HttpLink;
use crate::protocol::access::AccessList;
use crate::shard::Listener;
use crate::wire::tls::TlsServer;

/// Most requests that wait for a job's result.
pub(super) const WAITING_MAX: usize = 10_000;

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
    /// Most that a client may leave unread of what its job sends, in bytes.
    pub outbox_bytes_max: usize,
    /// Most memory for jobs and for what is on its way.
    pub memory_bytes_max: usize,
    /// Options that differ from their defaults.
    pub options: Vec<(String, String)>,
    /// The listeners for Gearman.
    pub listeners: Arc<[Listener]>,
    /// Where they listen.
    pub places: Vec<String>,
    /// The file of the server's certificate.
    pub certificate_file: String,
    /// The access list at the start; `None` allows everything to peers on this host, and looking to
    /// others.
    pub access_list: Option<Arc<AccessList>>,
    /// TLS at the start, if a listener speaks it.
    pub tls: Option<Arc<TlsServer>>,
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct App {
    settings: HttpSettings,
    started: Instant,
    /// The same in seconds since 1970.
    started_s: f64,
    phase: Mutex<Phase>,
    /// Once the cores are there.
    link: watch::Sender<Option<Link>>,
    access_list: RwLock<Option<Arc<AccessList>>>,
    tls: RwLock<Option<Arc<TlsServer>>>,
    snapshots: Snapshots,
    /// Requests that may still begin to wait for a job's result.
    waiting: Arc<Semaphore>,
    history: Mutex<History>,
    events: Events,
    http_connections: AtomicUsize,
    /// Where HTTP listens.
    places: OnceLock<Vec<String>>,
}

impl App {
    pub(super) fn new(settings: HttpSettings) -> Self {
        let started = Instant::now();
        Self {
            started,
            started_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
            phase: Mutex::new(Phase::Recovering),
            link: watch::Sender::new(None),
            access_list: RwLock::new(settings.access_list.clone()),
            tls: RwLock::new(settings.tls.clone()),
            snapshots: Snapshots::default(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            history: Mutex::new(History::new(started.into())),
            events: Events::default(),
            http_connections: AtomicUsize::new(0),
            places: OnceLock::new(),
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

    /// The same in seconds since 1970.
    pub(super) fn started_s(&self) -> f64 {
        self.started_s
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
        let limits = Limits {
            memory_bytes_max: self.settings.memory_bytes_max,
            unread_bytes_max: self.settings.outbox_bytes_max,
        };
        self.link.send_replace(Some(Link::new(link, limits)));
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

    /// Requests that may still begin to wait for a job's result.
    pub(super) fn waiting(&self) -> &Arc<Semaphore> {
        &self.waiting
    }

    pub(super) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Looks at what changed lately, or adds to it.
    pub(super) fn with_history<T>(&self, act: impl FnOnce(&mut History) -> T) -> T {
        act(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// Connections that speak HTTP.
    pub(super) fn http_connections(&self) -> usize {
        self.http_connections.load(Ordering::Relaxed)
    }

    /// Counts a connection that speaks HTTP, or that it has ended.
    pub(super) fn count_connection(&self, is_new: bool) {
        if is_new {
            self.http_connections.fetch_add(1, Ordering::Relaxed);
        } else {
            self.http_connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Where HTTP listens, in words; none before it does.
    pub(super) fn places(&self) -> &[String] {
        self.places.get().map_or(&[], |places| places)
    }

    pub(super) fn set_places(&self, places: Vec<String>) {
        // Set by the start alone.
        drop(self.places.set(places));
    }
}
