//! HTTP: metrics, health, an interface for operators and for jobs, and the page, on a thread of its
//! own beside the cores.
//!
//! `listen` takes connections in and `router` has the endpoints, `dialect` gearmand's; `guard`
//! decides which requests are handled and in whose name; `link` talks to the cores, by messages, as
//! if it were one more core; `snapshot` has the numbers of all of them. Nothing here waits for a
//! core while it holds a lock, and no core ever waits for this thread.
//!
//! Invariant: a request costs each core at most one bounded reply a turn.

mod api;
mod app;
mod complaints;
mod dialect;
mod error;
pub mod exposition;
mod guard;
mod health;
mod history;
mod link;
mod listen;
mod metrics;
mod page;
mod router;
mod sampler;
mod service;
mod snapshot;
mod submit;
mod tokens;
mod viewers;

use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::watch;

use self::app::App;
pub use self::app::HttpSettings;
pub use self::listen::HttpError;
use self::listen::activity::CONNECTIONS_MAX;
pub use self::tokens::{TokenMistake, Tokens};
use crate::io::{HttpLink, Listeners, ServiceManager};

/// Most connections for HTTP of a process that may have so many descriptors: an eighth of them, and
/// as many as the limits of requests at work and of those that wait allow.
#[must_use]
pub fn http_connections_max(descriptors: u64) -> usize {
    usize::try_from(descriptors / 8).unwrap_or(usize::MAX).min(CONNECTIONS_MAX)
}

/// The HTTP thread.
#[derive(Debug)]
pub struct Http {
    app: Arc<App>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What the server is doing, before and while it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It opens its store, or takes back what that kept.
    Recovering,
    /// It waits for another server to give up the store.
    Standby,
    /// It serves.
    Serving,
    /// It ends, once its jobs or those that run are done.
    Draining,
}

impl Phase {
    /// Its name in status lines.
    fn name(self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::Standby => "standing by",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

impl Http {
    /// Starts the thread; the cores needn't be there yet. `dialect`: where gearmand's dialect is
    /// spoken. `manager` is told how the server is.
    ///
    /// # Errors
    /// `HttpError` if another process listens there by now, or the kernel refuses the thread.
    pub fn start(
        listeners: Listeners,
        dialect: Listeners,
        settings: HttpSettings,
        manager: Option<ServiceManager>,
    ) -> Result<Self, HttpError> {
        listeners.listen()?;
        dialect.listen()?;
        for listeners in [&listeners, &dialect] {
            let found = listeners.find_lost_hosts(settings.host_timeout, false);
            found.map_err(HttpError::Thread)?;
        }
        let app = Arc::new(App::new(settings));
        let stop = watch::Sender::new(false);
        let stopping = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(HttpError::Thread)?;
        let served = Arc::clone(&app);
        let thread = std::thread::Builder::new().name("http".to_owned());
        let thread = thread
            .spawn(move || {
                runtime.block_on(listen::serve(listeners, dialect, served, manager, stopping))
            })
            .map_err(HttpError::Thread)?;
        Ok(Self { app, stop, thread: Some(thread) })
    }

    /// Says what the server is doing.
    pub fn set_phase(&self, phase: Phase) {
        self.app.set_phase(phase);
    }

    /// What takes tokens that were read anew.
    #[must_use]
    pub fn token_control(&self) -> Box<dyn Fn(Arc<Tokens>) + Send> {
        let app = Arc::clone(&self.app);
        Box::new(move |tokens| app.set_tokens(tokens))
    }

    /// What takes the end of the links to the cores.
    #[must_use]
    pub fn attach(&self) -> Box<dyn FnOnce(HttpLink)> {
        let app = Arc::clone(&self.app);
        Box::new(move |link| app.attach(link))
    }
}

/// Answers what is at work, for a short while, and ends.
impl Drop for Http {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported, and the server is at its end.
            drop(thread.join());
        }
    }
}
