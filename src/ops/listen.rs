//! Connections: sockets in, requests with their origin out to `router`.
//!
//! A head must come within `HEAD_TIMEOUT` and in `HEAD_BYTES_MAX`; `activity` has the other limits.
//! A listener speaks TLS or doesn't: what a peer tries instead ends its connection. Knows no
//! endpoint.
//!
//! Invariant: a connection that misbehaves ends alone.

pub(super) mod activity;
pub(super) mod origin;
pub(super) mod stream;

use std::convert::Infallible;
use std::io::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::{info, warn};

use self::activity::{Activity, HEAD_TIMEOUT};
use self::origin::Origin;
use self::stream::{AnswerBody, TimedBody, Watched};
use super::app::App;
use super::dialect;
use super::link::Link;
use super::router::router;
use super::{sampler, service};
use crate::io::process::user_name;
use crate::io::{Acceptable, ListenError, Listeners, ServiceManager, peer_of};
use crate::protocol::access::{Certificate, User};
use crate::protocol::peer_address::PeerAddress;
use crate::shard::Listener;
use crate::shard::remote::message::Message;
use crate::wire::tls::TlsFault;

/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// What the first record of TLS begins with.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long requests that are at work may still take when the server ends.
const ENDING_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after an accept that failed, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why HTTP can't be served.
#[derive(Debug, Error)]
pub enum HttpError {
    /// There is no socket to listen on.
    #[error("{}", .0.to_string().replace("--listen", "--http"))]
    Listen(#[from] ListenError),
    /// Other hosts would see what is said.
    #[error(
        "HTTP on {0} can be reached and read along by other hosts: give --http tls: before the \
         address, listen on loopback or a Unix socket, or say --http-insecure"
    )]
    Insecure(String),
    /// The kernel refuses the thread.
    #[error("the kernel refuses a thread for HTTP: {0}; raise the limit of threads (TasksMax=)")]
    Thread(Error),
}

/// What makes the endpoints of a listener.
type Routes = fn(Arc<App>) -> Router;

/// Serves until the server ends.
pub(super) async fn serve(
    listeners: Listeners,
    dialect: Listeners,
    app: Arc<App>,
    manager: Option<ServiceManager>,
    stopping: watch::Sender<bool>,
) {
    let mut stop = stopping.subscribe();
    if let Some(manager) = manager {
        tokio::spawn(service::follow(Arc::clone(&app), manager, stop.clone()));
    }
    let has_listeners = !listeners.is_empty() || !dialect.is_empty();
    app.set_places(listeners.places());
    // Until the thread ends.
    let mut kept = Vec::new();
    for (listeners, name, routes) in
        [(listeners, "HTTP", router as Routes), (dialect, "gearmand's HTTP", dialect::router)]
    {
        for place in listeners.places() {
            info!("{name} on {place}");
        }
        let described = listeners.describe();
        let router = routes(Arc::clone(&app));
        let (sockets, more) = listeners.into_sockets();
        kept.push(more);
        for socket in sockets.into_iter().flatten() {
            let listener = described.get(usize::from(socket.listener)).cloned().unwrap_or_default();
            let (app, router) = (Arc::clone(&app), router.clone());
            tokio::spawn(accept(socket.socket, listener, (app, router), stop.clone()));
        }
    }
    tokio::spawn(follow_cores(Arc::clone(&app)));
    // Only the page and JSON show rates.
    if has_listeners {
        tokio::spawn(sampler::follow(Arc::clone(&app)));
    }
    // An error says that the server is gone.
    drop(stop.wait_for(|&stops| stops).await);
    // What waits for jobs has its answer.
    app.link().iter().for_each(Link::end);
    // Connections hold a receiver each.
    drop(stop);
    drop(timeout(ENDING_TIMEOUT, stopping.closed()).await);
}

/// Receives what the cores send, once they are there.
async fn follow_cores(app: Arc<App>) {
    let Some(link) = app.attached().await else { return };
    let on_change = |message| match message {
        Message::Access(list) => app.set_access_list(list),
        Message::Tls(server) => app.set_tls(server),
        _ => {}
    };
    if let Err(error) = link.run(on_change).await {
        warn!(%error, "HTTP can't hear the cores: the kernel refuses a descriptor");
    }
}

/// Accepts connections of one socket.
async fn accept(
    socket: Acceptable,
    listener: Listener,
    (app, router): (Arc<App>, Router),
    mut stop: watch::Receiver<bool>,
) {
    let stopped = stop.clone();
    let spawned = |address: PeerAddress, connection: Connection| {
        let origin = Origin {
            address: address.canonical(),
            listener: listener.name.clone(),
            user: user_of(address),
            certificate: None,
        };
        let speaks_tls = listener.speaks_tls;
        let connected = Connected {
            activity: Arc::new(Activity::new(app.connections())),
            app: Arc::clone(&app),
            router: router.clone(),
            origin,
            stop: stopped.clone(),
        };
        tokio::spawn(connected.serve(connection, speaks_tls));
    };
    let accepting = async {
        match socket {
            Acceptable::Tcp(socket) => {
                let socket = TcpListener::from_std(socket)?;
                loop {
                    app.connections().room().await;
                    match socket.accept().await {
                        Ok((stream, peer)) => spawned(peer.into(), Connection::Tcp(stream)),
                        Err(error) => pause(error).await,
                    }
                }
            }
            Acceptable::Unix(socket) => {
                let socket = UnixListener::from_std(socket)?;
                loop {
                    app.connections().room().await;
                    let accepted = socket.accept().await;
                    match accepted.and_then(|(stream, _)| Ok((peer_of(&stream)?, stream))) {
                        Ok((peer, stream)) => spawned(peer.into(), Connection::Unix(stream)),
                        Err(error) => pause(error).await,
                    }
                }
            }
        }
    };
    tokio::select! {
        ended = accepting => {
            let ended: Result<Infallible, Error> = ended;
            let Err(error) = ended;
            warn!(%error, "HTTP can't accept connections: the kernel refuses a descriptor");
        }
        _ = stop.wait_for(|&stops| stops) => {}
    }
}

/// Accepting failed: waits until it may go better.
async fn pause(error: Error) {
    warn!(%error, "HTTP can't accept a connection: raise the limit of descriptors (LimitNOFILE=)");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// The user at the other end of a Unix socket.
fn user_of(address: PeerAddress) -> Option<User> {
    let PeerAddress::Unix(peer) = address else { return None };
    let name = user_name(peer.uid);
    Some(name.map_or(User::Id(peer.uid), |name| User::Both(peer.uid, name)))
}

/// A connection that was accepted.
enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What is known of it.
struct Connected {
    app: Arc<App>,
    router: Router,
    origin: Origin,
    activity: Arc<Activity>,
    stop: watch::Receiver<bool>,
}

impl Connected {
    /// Serves it until its end.
    async fn serve(self, connection: Connection, speaks_tls: bool) {
        match connection {
            Connection::Unix(stream) => self.speak(stream, Vec::new()).await,
            Connection::Tcp(stream) => match timeout(HEAD_TIMEOUT, first_byte(&stream)).await {
                Ok(Some(TLS_HANDSHAKE)) if speaks_tls => self.shake_hands(stream).await,
                Ok(Some(TLS_HANDSHAKE)) => self.fail(&TlsFault::unexpected()),
                Ok(Some(_)) if speaks_tls => self.fail(&TlsFault::plain_bytes()),
                Ok(Some(_)) => self.speak(stream, Vec::new()).await,
                // It has said nothing.
                Ok(None) | Err(_) => {}
            },
        }
    }

    fn fail(&self, fault: &TlsFault) {
        self.app.note_tls_fault(self.origin.address, fault);
    }

    /// The handshake of TLS, and what follows it.
    async fn shake_hands(mut self, stream: TcpStream) {
        let Some(config) = self.app.tls_config() else { return };
        let limit = self.app.settings().handshake_timeout;
        match timeout(limit, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => {
                let (_, connection) = stream.get_ref();
                let chain = connection.peer_certificates().unwrap_or_default();
                let chain: Vec<_> = chain.iter().map(|it| it.clone().into_owned()).collect();
                let certificate = chain.first().map(|it| Arc::new(Certificate::read(it)));
                self.origin.certificate = certificate;
                self.speak(stream, chain).await;
            }
            Ok(Err(error)) => {
                let cause = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
                // Otherwise the peer has left.
                if let Some(cause) = cause {
                    self.fail(&TlsFault::of(cause));
                }
            }
            Err(_) => self.fail(&TlsFault::timeout()),
        }
    }

    /// Speaks HTTP on a stream, whose peer has shown a chain of certificates, or none.
    async fn speak(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        chain: Vec<CertificateDer<'static>>,
    ) {
        let Self { app, router, origin, activity, mut stop } = self;
        let service = TowerToHyperService::new(router);
        let address = origin.address;
        let watched = Arc::clone(&activity);
        let service = service_fn(move |mut request: Request<Incoming>| {
            watched.begin();
            request.extensions_mut().insert(origin.clone());
            request.extensions_mut().insert(Arc::clone(&watched));
            let request = request.map(|body| Body::new(TimedBody::new(body, Arc::clone(&watched))));
            let (answer, watched) = (service.call(request), Arc::clone(&watched));
            async move {
                let answer = answer.await?;
                Ok::<_, Infallible>(answer.map(|body| AnswerBody::new(body, watched)))
            }
        });
        let mut builder = http1::Builder::new();
        // `activity` has the time-outs: hyper's ends connections that are idle, too.
        builder.timer(TokioTimer::new()).header_read_timeout(None);
        builder.max_buf_size(HEAD_BYTES_MAX).title_case_headers(true);
        let stream = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let connection = builder.serve_connection(stream, service);
        tokio::pin!(connection);
        tokio::select! {
            // What broke, if something did, concerns the client alone.
            _ = connection.as_mut() => return,
            () = activity.over() => return,
            fault = refused(&app, &chain) => return app.note_tls_fault(address, &fault),
            _ = stop.wait_for(|&stops| stops) => {}
        }
        connection.as_mut().graceful_shutdown();
        drop(connection.await);
    }
}

/// The first byte that a peer sends; it stays in the stream. `None` if there is none.
async fn first_byte(stream: &TcpStream) -> Option<u8> {
    let mut first = [0];
    let bytes = stream.peek(&mut first).await.ok()?;
    first.first().copied().filter(|_| bytes > 0)
}

/// Waits until the certificate of an open connection is accepted no more.
async fn refused(app: &App, chain: &[CertificateDer<'static>]) -> TlsFault {
    let mut changes = app.tls_changes();
    loop {
        // The sender is there as long as `app`.
        if chain.is_empty() || changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if let Some(Err(fault)) = app.tls().map(|tls| tls.verify(chain, since.as_secs())) {
            return fault;
        }
    }
}
