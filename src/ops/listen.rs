//! Sockets for HTTP: bound at the start, served on the thread.
//!
//! Accepts connections, finds out where they come from, and has each served by `router`. A head
//! must come within `HEAD_TIMEOUT` and in `HEAD_BYTES_MAX`. Knows no endpoint.
//!
//! Invariant: a connection that misbehaves ends alone.

use std::convert::Infallible;
use std::io::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tracing::{info, warn};

use super::app::App;
use super::metrics::CountedConnection;
use super::router::router;
use crate::io::{Acceptable, ListenError, Listeners, peer_of};
use crate::protocol::peer_address::PeerAddress;
use crate::shard::Listener;
use crate::shard::remote::message::Message;

/// How long a client may take for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long requests that are at work may still take when the server ends.
const ENDING_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after an accept that failed, for want of descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why HTTP can't be served.
#[derive(Debug, Error)]
pub enum HttpError {
    /// Another process listens there by now.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The kernel refuses the thread.
    #[error("the kernel refuses a thread for HTTP: {0}; raise the limit of threads (TasksMax=)")]
    Thread(Error),
}

/// Where a connection comes from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// Its peer.
    pub(super) peer: PeerAddress,
    /// The listener that it came to, as `--http` names it.
    pub(super) listener: Option<Arc<str>>,
}

/// Serves until the server ends.
pub(super) async fn serve(listeners: Listeners, app: Arc<App>, stopping: watch::Sender<bool>) {
    let mut stop = stopping.subscribe();
    for place in listeners.places() {
        info!("HTTP on {place}");
    }
    let described = listeners.describe();
    // The files are removed when the thread ends.
    let (sockets, _files) = listeners.into_sockets();
    for socket in sockets.into_iter().flatten() {
        let listener = described.get(usize::from(socket.listener)).cloned().unwrap_or_default();
        tokio::spawn(accept(socket.socket, listener, Arc::clone(&app), stop.clone()));
    }
    tokio::spawn(follow_cores(Arc::clone(&app)));
    // An error says that the server is gone.
    drop(stop.wait_for(|&stops| stops).await);
    // Connections hold a receiver each.
    drop(stop);
    drop(tokio::time::timeout(ENDING_TIMEOUT, stopping.closed()).await);
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
    app: Arc<App>,
    mut stop: watch::Receiver<bool>,
) {
    let stopped = stop.clone();
    let spawned = |peer: PeerAddress, connection: Connection| {
        let origin = Origin { peer: peer.canonical(), listener: listener.name.clone() };
        tokio::spawn(connected(connection, origin, Arc::clone(&app), stopped.clone()));
    };
    let accepting = async {
        match socket {
            Acceptable::Tcp(socket) => {
                let socket = TcpListener::from_std(socket)?;
                loop {
                    match socket.accept().await {
                        Ok((stream, peer)) => spawned(peer.into(), Connection::Tcp(stream)),
                        Err(error) => pause(error).await,
                    }
                }
            }
            Acceptable::Unix(socket) => {
                let socket = UnixListener::from_std(socket)?;
                loop {
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

/// A connection that was accepted.
enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Serves one connection.
async fn connected(
    connection: Connection,
    origin: Origin,
    app: Arc<App>,
    stop: watch::Receiver<bool>,
) {
    let _counted = CountedConnection::new(app.metrics());
    match connection {
        Connection::Tcp(stream) => speak(stream, origin, app, stop).await,
        Connection::Unix(stream) => speak(stream, origin, app, stop).await,
    }
}

/// Speaks HTTP on a stream.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    origin: Origin,
    app: Arc<App>,
    mut stop: watch::Receiver<bool>,
) {
    let service = TowerToHyperService::new(router(app).layer(Extension(origin)));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.max_buf_size(HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // What broke, if something did, concerns the client alone.
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|&stops| stops) => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(connection.await);
}
