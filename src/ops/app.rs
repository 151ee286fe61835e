//! What all requests share: the settings, the links to the cores, what was read anew, snapshots.
//!
//! Set by the server's start and by messages, read by handlers. Knows no endpoint.
//!
//! Invariant: nothing here is held across a wait.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustls::ServerConfig;
use tokio::sync::{Semaphore, watch};
use tracing::error;

use super::Phase;
use super::complaints::Complaints;
use super::error::ApiError;
use super::guard::permit::PERMITS;
use super::history::History;
use super::link::{Limits, Link};
use super::listen::activity::Connections;
use super::metrics::MetricsState;
use super::snapshot::Snapshots;
use super::tokens::Tokens;
use super::viewers::Viewers;
use crate::cluster::view::View;
use crate::engine::Now;
use crate::engine::dead::DeadBounds;
use crate::io::log::LogLines;
use crate::io::{HttpLink, Leaving};
use crate::protocol::access::{AccessList, RIGHTS, Right};
use crate::protocol::peer_address::PeerAddress;
use crate::shard::Listener;
use crate::shard::denials::Refused;
use crate::store::health::StoreHealth;
use crate::wire::tls::{TlsFault, TlsServer};

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
    /// How many dead letters are kept.
    pub dead: DeadBounds,
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
    /// How many lines were logged.
    pub log_lines: Arc<LogLines>,
    /// TLS at the start, if a listener speaks it.
    pub tls: Option<Arc<TlsServer>>,
    /// Tokens of clients at the start, if a file of them is named.
    pub tokens: Option<Arc<Tokens>>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a peer's host may acknowledge nothing before it is given up; zero: for ever.
    pub host_timeout: Duration,
    /// Most connections.
    pub connections_max: usize,
    /// Which signals have come that end the server, at once or after its jobs.
    pub leaving: Arc<Leaving>,
    /// How the store is, if there is one.
    pub store_health: Option<Arc<StoreHealth>>,
    /// What is known of the partitions of a store that several servers may use.
    pub cluster: Option<Arc<View>>,
}

/// What all requests share.
#[derive(Debug)]
pub(super) struct App {
    settings: HttpSettings,
    started: Instant,
    /// The same in seconds since 1970.
    started_s: f64,
    phase: watch::Sender<Phase>,
    /// Once the cores are there.
    link: watch::Sender<Option<Link>>,
    access_list: RwLock<Option<Arc<AccessList>>>,
    tls: RwLock<Option<Tls>>,
    /// How often the files of TLS were read anew.
    tls_changes: watch::Sender<u64>,
    tokens: RwLock<Option<Arc<Tokens>>>,
    connections: Arc<Connections>,
    permits: Arc<Semaphore>,
    complaints: Mutex<Complaints>,
    snapshots: Snapshots,
    /// Requests that may still begin to wait for a job's result.
    waiting: Arc<Semaphore>,
    history: Mutex<History>,
    viewers: Arc<Viewers>,
    /// Where HTTP listens.
    places: OnceLock<Vec<String>>,
    metrics: MetricsState,
}

/// TLS, as a connection of HTTP needs it.
#[derive(Clone, Debug)]
struct Tls {
    server: Arc<TlsServer>,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// `None`, and a line of the log, if the library refuses it.
    fn new(server: Arc<TlsServer>, takes_all: bool) -> Option<Self> {
        match server.for_http(takes_all) {
            Ok(config) => Some(Self { server, config }),
            Err(error) => {
                error!(%error, "HTTP can't speak TLS as the files say: look at --ssl-min-version");
                None
            }
        }
    }
}

impl App {
    pub(super) fn new(settings: HttpSettings) -> Self {
        let started = Instant::now();
        let takes_all = settings.tokens.is_some();
        let tls = settings.tls.clone().and_then(|server| Tls::new(server, takes_all));
        Self {
            started,
            started_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
            phase: watch::Sender::new(Phase::Recovering),
            link: watch::Sender::new(None),
            access_list: RwLock::new(settings.access_list.clone()),
            tls: RwLock::new(tls),
            tls_changes: watch::Sender::new(0),
            tokens: RwLock::new(settings.tokens.clone()),
            connections: Arc::new(Connections::new(settings.connections_max)),
            permits: Arc::new(Semaphore::new(PERMITS)),
            complaints: Mutex::default(),
            snapshots: Snapshots::default(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            history: Mutex::new(History::new(started.into())),
            viewers: Arc::default(),
            places: OnceLock::new(),
            metrics: MetricsState::default(),
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

    /// What the server is doing, by signals first.
    pub(super) fn phase(&self) -> Phase {
        if self.settings.leaving.is_any() {
            return Phase::Draining;
        }
        *self.phase.borrow()
    }

    /// Tells when that has changed, but not of signals.
    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Whether jobs that are to be stored can be, or needn't be for the server to be ready.
    pub(super) fn stores(&self) -> bool {
        let HttpSettings { store_health, cluster, ready_without_store, .. } = &self.settings;
        let is_up = || store_health.as_ref().is_none_or(|it| it.snapshot().up);
        let is_suspended = || cluster.as_ref().is_some_and(|it| it.is_suspended.load(Relaxed));
        *ready_without_store || (is_up() && !is_suspended())
    }

    /// The cores are there.
    pub(super) fn attach(&self, link: HttpLink) {
        let limits = Limits {
            memory_bytes_max: self.settings.memory_bytes_max,
            unread_bytes_max: self.settings.outbox_bytes_max,
        };
        self.link.send_replace(Some(Link::new(link, limits)));
        self.set_phase(Phase::Serving);
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
        let tls = self.tls.read().unwrap_or_else(PoisonError::into_inner);
        tls.as_ref().map(|tls| Arc::clone(&tls.server))
    }

    /// What a connection of HTTP that speaks TLS begins with.
    pub(super) fn tls_config(&self) -> Option<Arc<ServerConfig>> {
        let tls = self.tls.read().unwrap_or_else(PoisonError::into_inner);
        tls.as_ref().map(|tls| Arc::clone(&tls.config))
    }

    pub(super) fn set_tls(&self, server: Arc<TlsServer>) {
        let Some(tls) = Tls::new(server, self.settings.tokens.is_some()) else { return };
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = Some(tls);
        self.tls_changes.send_modify(|changes| *changes += 1);
    }

    /// Tells when the files of TLS were read anew.
    pub(super) fn tls_changes(&self) -> watch::Receiver<u64> {
        self.tls_changes.subscribe()
    }

    pub(super) fn tokens(&self) -> Option<Arc<Tokens>> {
        self.tokens.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_tokens(&self, tokens: Arc<Tokens>) {
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = Some(tokens);
    }

    /// The connections for HTTP.
    pub(super) fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// What requests at work take one of.
    pub(super) fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    /// Counts a refusal for want of a right, and logs it.
    pub(super) fn note_denial(
        self: &Arc<Self>,
        peer: &str,
        right: Right,
        function: Option<&[u8]>,
        address: PeerAddress,
    ) {
        let now = self.now();
        let refused = Refused::new(peer, right, function, now);
        self.complain(|complaints| complaints.note_denial(refused, address, now));
    }

    /// Logs why a connection can't go on with TLS.
    pub(super) fn note_tls_fault(self: &Arc<Self>, address: PeerAddress, fault: &TlsFault) {
        let now = self.now();
        self.complain(|complaints| complaints.note_tls_fault(address, fault, now));
    }

    /// Refusals by right since the start.
    pub(super) fn denials(&self) -> [u64; RIGHTS] {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).denials()
    }

    /// Notes something, and has what is left out of the log summed up later.
    fn complain(self: &Arc<Self>, note: impl FnOnce(&mut Complaints)) {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut complaints);
        if complaints.begin_to_report() {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                while let Some(pause) = this.report() {
                    tokio::time::sleep(pause).await;
                }
            });
        }
    }

    /// Logs what is due; returns when more will be.
    fn report(&self) -> Option<Duration> {
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.report(self.now())
    }

    fn now(&self) -> Now {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: ms(self.started.elapsed()), unix_ms: ms(since_epoch) }
    }

    /// Requests that may still begin to wait for a job's result.
    pub(super) fn waiting(&self) -> &Arc<Semaphore> {
        &self.waiting
    }

    /// What is kept from scrape to scrape.
    pub(super) fn metrics(&self) -> &MetricsState {
        &self.metrics
    }

    pub(super) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Looks at what changed lately, or adds to it.
    pub(super) fn with_history<T>(&self, act: impl FnOnce(&mut History) -> T) -> T {
        act(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn viewers(&self) -> &Arc<Viewers> {
        &self.viewers
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
