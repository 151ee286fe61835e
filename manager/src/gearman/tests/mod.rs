//! A client against servers that follow a script, packet by packet.
//!
//! Servers listen on Unix sockets, where bytes arrive as they are sent: so the paused clock moves
//! only when both sides wait for time.

mod broken;
mod connections;
mod jobs;
mod turns;

use std::future::Future;
use std::io::Write;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringgear::wire::{Command, HEADER_BYTES, Magic, header, header_bytes};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::Dispatch;
use tracing::subscriber::DefaultGuard;

use super::{Ability, Client, Job, Servers};
use crate::config::Server;
use crate::counters::Counters;

/// A script that takes longer has failed. A clock that is paused is there at once.
const DEADLINE: Duration = Duration::from_secs(100);

/// A server that listens.
struct Listener {
    folder: TempDir,
    listener: UnixListener,
}

impl Listener {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        Self { folder, listener }
    }

    fn server(&self) -> Server {
        Server::Unix(self.folder.path().join("socket"))
    }

    fn name(&self) -> String {
        format!("unix:{}/socket", self.folder.path().display())
    }

    /// A connection, with its announcement read and the option taken.
    async fn accept(&self) -> Peer<UnixStream> {
        let mut peer = self.accept_silently().await;
        peer.send(Command::OptionRes, b"cancel-notice").await;
        peer
    }

    async fn accept_silently(&self) -> Peer<UnixStream> {
        let mut peer = Peer::new(self.listener.accept().await.unwrap().0);
        peer.expect_announcement().await;
        peer
    }
}

/// The server's end of a connection.
struct Peer<S> {
    stream: S,
    input: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    async fn packet(&mut self) -> (Command, Bytes) {
        loop {
            if let Some(bytes) = self.input.first_chunk::<HEADER_BYTES>() {
                let header = header(bytes).unwrap();
                assert_eq!(header.magic, Magic::Request);
                let size = HEADER_BYTES + header.body_bytes as usize;
                if self.input.len() >= size {
                    let packet = self.input.split_to(size).freeze();
                    return (header.command, packet.slice(HEADER_BYTES..));
                }
            }
            assert_ne!(self.stream.read_buf(&mut self.input).await.unwrap(), 0, "closed");
        }
    }

    async fn expect(&mut self, command: Command, body: &[u8]) {
        let (found, found_body) = self.packet().await;
        assert_eq!((found, found_body.escape_ascii().to_string()), (command, text(body)));
    }

    async fn expect_announcement(&mut self) {
        self.expect(Command::SetClientId, b"w@host/1").await;
        self.expect(Command::OptionReq, b"cancel-notice").await;
        self.expect(Command::CanDo, b"plain").await;
        self.expect(Command::CanDoTimeout, b"timed\x006500").await;
    }

    async fn expect_nothing(&mut self) {
        let packet = timeout(Duration::from_millis(1), self.packet()).await;
        assert!(packet.is_err(), "{packet:?}");
    }

    async fn expect_end(&mut self) {
        let read = self.stream.read_buf(&mut self.input).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{}", text(&self.input));
    }

    async fn send(&mut self, command: Command, body: &[u8]) {
        let size = u32::try_from(body.len()).unwrap();
        let header = header_bytes(Magic::Response, command, size);
        self.stream.write_all(&[&header, body].concat()).await.unwrap();
    }

    async fn assign(&mut self, handle: &str) {
        self.expect(Command::GrabJobUniq, b"").await;
        let body = format!("{handle}\0plain\0key\0payload");
        self.send(Command::JobAssignUniq, body.as_bytes()).await;
    }

    /// Says that there is no job, and reads that the worker sleeps.
    async fn put_to_sleep(&mut self) {
        self.expect(Command::GrabJobUniq, b"").await;
        self.send(Command::NoJob, b"").await;
        self.expect(Command::PreSleep, b"").await;
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn servers(listeners: &[&Listener]) -> Rc<Servers> {
    Rc::new(Servers { servers: listeners.iter().map(|it| it.server()).collect(), tls: None })
}

fn client_of(servers: Rc<Servers>, counters: &Rc<Counters>) -> Client {
    let abilities = vec![
        Ability { function: "plain".into(), timeout: None },
        Ability { function: "timed".into(), timeout: Some(Duration::from_millis(1500)) },
    ];
    Client::new(servers, abilities, "w@host/1".into(), Rc::clone(counters))
}

fn client(listeners: &[&Listener]) -> Client {
    client_of(servers(listeners), &Rc::default())
}

/// Runs a script of servers while the client waits for a job, which doesn't come.
async fn while_waiting<T>(client: &mut Client, script: impl Future<Output = T>) -> T {
    tokio::select! {
        job = client.next() => panic!("{job:?}"),
        result = timeout(DEADLINE, script) => result.unwrap(),
    }
}

/// Runs a script of servers until the client has a job.
async fn job_of(client: &mut Client, script: impl Future<Output = ()>) -> Job {
    timeout(DEADLINE, async { tokio::join!(client.next(), script).0 }).await.unwrap()
}

/// Lines that were logged by this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Collects lines until the guard is dropped.
    fn start() -> (Self, DefaultGuard) {
        // While there is one subscriber only, threads of other tests decide by their own, which is
        // none, whether an event is logged anywhere.
        static OTHERS: OnceLock<[Dispatch; 2]> = OnceLock::new();
        OTHERS.get_or_init(|| {
            let other = || tracing_subscriber::fmt().with_writer(std::io::sink).finish();
            [other().into(), other().into()]
        });
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .with_max_level(tracing::Level::INFO)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
