//! One socket: bytes out in as few writes as possible, or in more as the options say, bytes in cut
//! into frames; both through a TLS session where there is one.
//!
//! Knows frames, not packets. Small frames are cut where they were received, in a buffer that all
//! connections share; only the tail of a read is kept. The rest of a large frame is received
//! straight behind that tail. Invariant: `partial` holds less than one frame between two calls.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;

use mio::net::TcpStream;
use nix::sys::socket::{setsockopt, sockopt};
use ringgear::wire::frame::{Cut, cut};
use ringgear::wire::{HEADER_BYTES, Header};
use rustls::HandshakeKind;
use socket2::{Domain, Protocol, Socket, Type};

use crate::tls::{Session, Tls};
use crate::writes::{WriteEnds, Writing};

/// Frames from this size on are received without a detour.
const LARGE_BYTES: usize = 64 << 10;
/// Most plaintext that is sealed before the socket has taken the ciphertext.
const SEALED_BYTES: usize = 256 << 10;

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// More may come.
    Open,
    /// The peer closed, or sent what no server sends.
    Closed,
    /// The receiver wants no more.
    Stopped,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    pub(crate) out: Vec<u8>,
    sent: usize,
    write_ends: WriteEnds,
    partial: Vec<u8>,
    /// Bytes of the frame that `partial` begins, if that is known and much is missing.
    frame_bytes: usize,
    tls: Option<Box<Secured>>,
}

/// A TLS session, and the ciphertext that the socket hasn't taken yet.
#[derive(Debug)]
struct Secured {
    session: Session,
    cipher: Vec<u8>,
    sent: usize,
}

impl Link {
    /// Begins to connect; `source` spreads the connections over more than one address.
    pub(crate) fn open(
        addr: SocketAddr,
        source: Option<IpAddr>,
        tls: Option<&Tls>,
        writing: Writing,
    ) -> io::Result<Self> {
        let session = tls.map(Tls::session).transpose().map_err(io::Error::other)?;
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(!writing.nagle)?;
        if let Some(source) = source {
            // Else the port is taken for all servers, and for a minute after its connection.
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&addr.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            stream: TcpStream::from_std(socket.into()),
            out: Vec::new(),
            sent: 0,
            write_ends: WriteEnds::new(writing.writes),
            partial: Vec::new(),
            frame_bytes: 0,
            tls: session.map(|session| Box::new(Secured { session, cipher: vec![], sent: 0 })),
        })
    }

    /// Whether connecting has come to its end.
    pub(crate) fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How the TLS handshake went, once it is over.
    pub(crate) fn handshake(&self) -> Option<HandshakeKind> {
        self.tls.as_ref().and_then(|tls| tls.session.handshake())
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            if write_all(&mut self.stream, &self.out, &mut self.sent, &mut self.write_ends)? {
                self.all_sent();
            }
            return Ok(());
        };
        loop {
            let end = tls.cipher.len();
            if !write_to(&mut self.stream, &tls.cipher, &mut tls.sent, end)? {
                return Ok(());
            }
            tls.cipher.clear();
            tls.sent = 0;
            let end = self.write_ends.next(&self.out, self.sent).min(self.sent + SEALED_BYTES);
            if self.sent == end && !tls.session.wants_write() {
                self.all_sent();
                return Ok(());
            }
            let plain = self.out.get(self.sent..end).unwrap_or_default();
            tls.session.seal(plain, &mut tls.cipher);
            self.sent = end;
        }
    }

    fn all_sent(&mut self) {
        self.out.clear();
        self.sent = 0;
        self.write_ends.restart();
    }

    /// Reads what is there and hands out its frames, with the bytes to answer on. `is_ending` says
    /// that the peer sends no more.
    pub(crate) fn receive(
        &mut self,
        scratch: &mut [u8],
        is_ending: bool,
        mut handle: impl FnMut(&mut Vec<u8>, Header, &[u8]) -> ControlFlow<()>,
    ) -> io::Result<Received> {
        loop {
            if self.tls.is_none() && self.frame_bytes > self.partial.len() {
                if let Some(received) = self.receive_large()? {
                    return Ok(received);
                }
                if let Err(received) = self.cut_partial(&mut handle) {
                    return Ok(received);
                }
                continue;
            }
            let bytes = match self.stream.read(scratch) {
                Ok(0) => return Ok(Received::Closed),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Received::Open),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let input = scratch.get(..bytes).unwrap_or_default();
            let taken = match self.tls.take() {
                None => self.take_in(input, &mut handle),
                Some(mut tls) => {
                    let mut taken = Ok(());
                    let received = tls.session.received(input, &mut |plain| {
                        if taken.is_ok() {
                            taken = self.take_in(plain, &mut handle);
                        }
                    });
                    self.tls = Some(tls);
                    if let Err(error) = received {
                        // The peer learns why by an alert, if it still reads.
                        let _ = self.flush();
                        return Err(io::Error::other(error));
                    }
                    taken
                }
            };
            if let Err(received) = taken {
                return Ok(received);
            }
            // A short read has taken all there was but the end (epoll(7)): no need to ask.
            if bytes < scratch.len() && !is_ending {
                return Ok(Received::Open);
            }
        }
    }

    /// Hands out the frames that `input` completes, and keeps its tail.
    fn take_in(
        &mut self,
        mut input: &[u8],
        handle: &mut impl FnMut(&mut Vec<u8>, Header, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Received> {
        if self.frame_bytes > self.partial.len() {
            let missing = self.frame_bytes - self.partial.len();
            let (own, rest) = input.split_at(missing.min(input.len()));
            self.partial.reserve_exact(missing);
            self.partial.extend_from_slice(own);
            if own.len() < missing {
                return Ok(());
            }
            self.cut_partial(handle)?;
            input = rest;
        }
        if self.partial.is_empty() {
            let used = self.cut_all(input, handle)?;
            self.partial.extend_from_slice(input.get(used..).unwrap_or_default());
            return Ok(());
        }
        self.partial.extend_from_slice(input);
        self.cut_partial(handle)
    }

    /// Hands out the whole frames of `partial`.
    fn cut_partial(
        &mut self,
        handle: &mut impl FnMut(&mut Vec<u8>, Header, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Received> {
        let mut held = std::mem::take(&mut self.partial);
        let used = self.cut_all(&held, handle)?;
        held.drain(..used);
        self.partial = held;
        Ok(())
    }

    /// Receives straight behind the head of a large frame; `None` once that is whole.
    fn receive_large(&mut self) -> io::Result<Option<Received>> {
        let missing = self.frame_bytes - self.partial.len();
        self.partial.reserve_exact(missing);
        match (&self.stream).take(missing as u64).read_to_end(&mut self.partial) {
            Ok(bytes) if bytes < missing => Ok(Some(Received::Closed)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Ok((self.partial.len() < self.frame_bytes).then_some(Received::Open))
            }
            Err(error) => Err(error),
        }
    }

    /// Hands out all whole frames of `bytes` and says how many bytes they took.
    fn cut_all(
        &mut self,
        bytes: &[u8],
        handle: &mut impl FnMut(&mut Vec<u8>, Header, &[u8]) -> ControlFlow<()>,
    ) -> Result<usize, Received> {
        let mut used = 0;
        self.frame_bytes = 0;
        loop {
            match cut(bytes.get(used..).unwrap_or_default(), 0) {
                Ok(Cut::Packet { header, body }) => {
                    used += HEADER_BYTES + body.len();
                    if handle(&mut self.out, header, body).is_break() {
                        return Err(Received::Stopped);
                    }
                }
                Ok(Cut::PartialBody(header)) => {
                    let frame_bytes = HEADER_BYTES + header.body_bytes as usize;
                    if frame_bytes >= LARGE_BYTES {
                        self.frame_bytes = frame_bytes;
                    }
                    return Ok(used);
                }
                Ok(Cut::Partial) => return Ok(used),
                Ok(Cut::Line { .. }) | Err(_) => return Err(Received::Closed),
            }
        }
    }
}

/// Writes what of `bytes` hasn't been `sent`, up to each end by itself; whether that is all.
fn write_all(
    stream: &mut impl Write,
    bytes: &[u8],
    sent: &mut usize,
    ends: &mut WriteEnds,
) -> io::Result<bool> {
    while *sent < bytes.len() {
        let end = ends.next(bytes, *sent);
        if !write_to(stream, bytes, sent, end)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes what of `bytes` hasn't been `sent`, up to `end`, as far as the socket takes it; whether
/// that is all.
fn write_to(
    stream: &mut impl Write,
    bytes: &[u8],
    sent: &mut usize,
    end: usize,
) -> io::Result<bool> {
    while *sent < end {
        match stream.write(bytes.get(*sent..end).unwrap_or_default()) {
            Ok(count) => *sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use ringgear::wire::{Command, Magic, encode};

    use super::*;
    use crate::options::Writes;

    /// Takes at most so many bytes at a time, and nothing every second time.
    #[derive(Default)]
    struct Slow {
        taken_max: usize,
        is_full: bool,
        taken: Vec<usize>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.is_full = !self.is_full;
            if !self.is_full {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.taken.push(bytes.len().min(self.taken_max));
            Ok(bytes.len().min(self.taken_max))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_part_is_a_write_however_often_the_socket_is_full() {
        let mut bytes = Vec::new();
        encode(&mut bytes, Magic::Request, Command::SubmitJob, &[b"f", b""], &[b'x'; 20]);
        encode(&mut bytes, Magic::Request, Command::GrabJob, &[], &[]);
        for (writes, taken) in [
            (Writes::Together, vec![30, 17]),
            (Writes::Packets, vec![30, 5, 12]),
            (Writes::Parts, vec![12, 23, 12]),
        ] {
            let mut slow = Slow { taken_max: 30, ..Slow::default() };
            let (mut sent, mut ends) = (0, WriteEnds::new(writes));
            while !write_all(&mut slow, &bytes, &mut sent, &mut ends).unwrap() {}
            assert_eq!((sent, slow.taken), (bytes.len(), taken), "{writes:?}");
        }
    }

    #[test]
    fn nagles_algorithm_is_off_unless_it_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for nagle in [false, true] {
            let writing = Writing { nagle, writes: Writes::Together };
            let link = Link::open(listener.local_addr().unwrap(), None, None, writing).unwrap();
            assert_eq!(link.stream.nodelay().unwrap(), !nagle);
        }
    }
}
