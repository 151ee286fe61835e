//! Accepts in flight: several for each listener, each with a slot for the peer's address.
//!
//! A multishot accept has only one such slot for all of its connections, and a direct descriptor
//! has no getpeername(2); so each connection takes a submission of its own, batched like all
//! others.
//!
//! Invariant: the kernel writes to a slot only while its accept is armed, and slots never move.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::AsRawFd;

use io_uring::types::{DestinationSlot, Fd};
use io_uring::{opcode, squeue};
use socket2::{SockAddr, SockAddrStorage};

/// Accepts in flight for each listener.
const ACCEPTS_PER_LISTENER: usize = 32;

/// The address of a peer that was gone before it could be read.
const UNKNOWN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

struct Slot {
    address: SockAddrStorage,
    bytes: libc::socklen_t,
    armed: bool,
}

/// All accepts in flight, listener by listener.
pub(super) struct Acceptors {
    slots: Box<[Slot]>,
    idle: Vec<usize>,
}

impl Acceptors {
    pub(super) fn new(listeners: usize) -> Self {
        let count = listeners * ACCEPTS_PER_LISTENER;
        let slot = || Slot { address: SockAddrStorage::zeroed(), bytes: 0, armed: false };
        Self { slots: (0..count).map(|_| slot()).collect(), idle: (0..count).collect() }
    }

    /// Arms an idle accept; returns its number and the submission.
    pub(super) fn next_idle(
        &mut self,
        listeners: &[TcpListener],
    ) -> Option<(usize, squeue::Entry)> {
        let listener = listeners.get(self.idle.last()? / ACCEPTS_PER_LISTENER)?;
        let acceptor = self.idle.pop()?;
        let slot = &mut self.slots[acceptor];
        slot.bytes = slot.address.size_of();
        slot.armed = true;
        let address = (&raw mut slot.address).cast::<libc::sockaddr>();
        let accept = opcode::Accept::new(Fd(listener.as_raw_fd()), address, &raw mut slot.bytes)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        Some((acceptor, accept))
    }

    /// An accept has completed; returns the peer's address.
    pub(super) fn completed(&mut self, acceptor: usize) -> SocketAddr {
        let slot = &mut self.slots[acceptor];
        slot.armed = false;
        self.idle.push(acceptor);
        let address = std::mem::replace(&mut slot.address, SockAddrStorage::zeroed());
        // SAFETY: the kernel has written an address of `bytes` bytes, or none: all zeros are valid.
        #[allow(unsafe_code)]
        let address = unsafe { SockAddr::new(address, slot.bytes) }.as_socket();
        address.unwrap_or(UNKNOWN)
    }

    /// Numbers of the accepts that are in flight.
    pub(super) fn armed(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&acceptor| self.slots[acceptor].armed).collect()
    }
}
