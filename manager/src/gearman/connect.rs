//! A server's address in, a stream of bytes to it out: TCP, TLS over it, or a Unix socket.
//!
//! Knows sockets and TLS, but no packets.
//!
//! Invariant: a stream that is returned is ready for the first packet.

use std::io::{self, Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Server;

/// How long connecting may take, the look-up of a name and the TLS handshake included.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Silence before the kernel asks whether a host is still there, how often it asks again, and how
/// many times: a dead host is found in 30 s.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// A stream of bytes to a server.
#[derive(Debug)]
pub(super) enum Stream {
    /// TCP
    Tcp(TcpStream),
    /// TLS over TCP
    Tls(Box<TlsStream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Connects to a server, with TLS if there is a configuration for it and the server is no Unix
/// socket.
///
/// # Errors
/// What the kernel, the resolver or TLS says, or `ErrorKind::TimedOut`.
pub(super) async fn connect(server: Server, tls: Option<Arc<ClientConfig>>) -> io::Result<Stream> {
    timeout(CONNECT_WITHIN, connect_untimed(server, tls)).await.unwrap_or_else(|_| {
        let text = format!("no connection within {} s", CONNECT_WITHIN.as_secs());
        Err(Error::new(ErrorKind::TimedOut, text))
    })
}

async fn connect_untimed(server: Server, tls: Option<Arc<ClientConfig>>) -> io::Result<Stream> {
    let (host, port) = match server {
        Server::Unix(path) => return Ok(Stream::Unix(UnixStream::connect(path).await?)),
        Server::Tcp { host, port } => (host, port),
    };
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive.with_retries(retries))?;
    let Some(tls) = tls else { return Ok(Stream::Tcp(stream)) };
    let name = ServerName::try_from(host).map_err(Error::other)?;
    let stream = TlsConnector::from(tls).connect(name, stream).await?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// Calls a method of the stream that is inside.
macro_rules! inner {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Tcp(stream) => {
                let $inner = Pin::new(stream);
                $call
            }
            Stream::Tls(stream) => {
                let $inner = Pin::new(&mut **stream);
                $call
            }
            Stream::Unix(stream) => {
                let $inner = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        inner!(self, stream => stream.poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        inner!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        inner!(self, stream => stream.poll_write_vectored(cx, slices))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        inner!(self, stream => stream.poll_shutdown(cx))
    }
}
