//! Accepts in flight: several for each listener, each with room for the peer's address.
//!
//! A multishot accept has only one such room for all of its connections, and a direct descriptor
//! can't be asked for its peer; so each connection takes a submission of its own, batched like all
//! others.
//!
//! Invariant: the kernel writes to a room only while its accept is armed, and rooms never move.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::AsRawFd;

use io_uring::types::{DestinationSlot, Fd};
use io_uring::{opcode, squeue};
use socket2::{SockAddr, SockAddrStorage};

/// Accepts in flight for each listener.
const ACCEPTS_PER_LISTENER: usize = 32;

/// A peer that was gone before its address could be read.
const UNKNOWN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

struct Room {
    address: SockAddrStorage,
    bytes: libc::socklen_t,
    armed: bool,
}

/// All accepts in flight, listener by listener.
pub(super) struct Acceptors {
    rooms: Box<[Room]>,
    idle: Vec<usize>,
}

impl Acceptors {
    pub(super) fn new(listeners: usize) -> Self {
        let count = listeners * ACCEPTS_PER_LISTENER;
        let room = || Room { address: SockAddrStorage::zeroed(), bytes: 0, armed: false };
        Self { rooms: (0..count).map(|_| room()).collect(), idle: (0..count).collect() }
    }

    /// The next accept to be submitted, and its number.
    pub(super) fn next_idle(
        &mut self,
        listeners: &[TcpListener],
    ) -> Option<(usize, squeue::Entry)> {
        let listener = listeners.get(self.idle.last()? / ACCEPTS_PER_LISTENER)?;
        let acceptor = self.idle.pop()?;
        let room = &mut self.rooms[acceptor];
        room.bytes = room.address.size_of();
        room.armed = true;
        let address = (&raw mut room.address).cast::<libc::sockaddr>();
        let accept = opcode::Accept::new(Fd(listener.as_raw_fd()), address, &raw mut room.bytes)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        Some((acceptor, accept))
    }

    /// An accept has come to its end: where the connection comes from, if it is one.
    pub(super) fn completed(&mut self, acceptor: usize) -> SocketAddr {
        let room = &mut self.rooms[acceptor];
        room.armed = false;
        self.idle.push(acceptor);
        let address = std::mem::replace(&mut room.address, SockAddrStorage::zeroed());
        // SAFETY: the kernel has written an address of `bytes` bytes; without one it is all zeros.
        #[allow(unsafe_code)]
        let address = unsafe { SockAddr::new(address, room.bytes) }.as_socket();
        address.unwrap_or(UNKNOWN)
    }

    /// Numbers of the accepts that are in flight.
    pub(super) fn armed(&self) -> Vec<usize> {
        (0..self.rooms.len()).filter(|&acceptor| self.rooms[acceptor].armed).collect()
    }
}
