//! Accepts in flight: several for each listener, each with a slot for the peer's address.
//!
//! A multishot accept has only one such slot for all of its connections, and a direct descriptor
//! has no getpeername(2); so each connection takes a submission of its own, batched like all
//! others.
//!
//! Invariant: the kernel writes to a slot only while its accept is armed, and slots never move.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;

use io_uring::types::{DestinationSlot, Fd};
use io_uring::{opcode, squeue};
use socket2::{SockAddr, SockAddrStorage};

use crate::io::host::listen::ListeningSocket;
use crate::protocol::peer_address::PeerAddress;

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
    sockets: Vec<ListeningSocket>,
    slots: Box<[Slot]>,
    /// Numbers of the accepts that aren't in flight, by socket.
    idle: Vec<Vec<usize>>,
    /// The service accepts nothing from a listener with idle accepts.
    is_held_back: bool,
}

impl Acceptors {
    pub(super) fn new(sockets: Vec<ListeningSocket>) -> Self {
        let slot = || Slot { address: SockAddrStorage::zeroed(), bytes: 0, armed: false };
        let count = sockets.len() * ACCEPTS_PER_LISTENER;
        let of_socket = |at| (at * ACCEPTS_PER_LISTENER..(at + 1) * ACCEPTS_PER_LISTENER).collect();
        Self {
            slots: (0..count).map(|_| slot()).collect(),
            idle: (0..sockets.len()).map(of_socket).collect(),
            sockets,
            is_held_back: false,
        }
    }

    /// Arms an idle accept of a listener that `may_accept`; returns its number and the submission.
    pub(super) fn next_idle(
        &mut self,
        may_accept: impl Fn(u16) -> bool,
    ) -> Option<(usize, squeue::Entry)> {
        self.is_held_back = false;
        let Self { sockets, idle, is_held_back, .. } = self;
        let mut with_idle = sockets.iter().zip(idle).filter(|(_, idle)| !idle.is_empty());
        let (from, idle) = with_idle.find(|(from, _)| {
            let may = may_accept(from.listener);
            *is_held_back |= !may;
            may
        })?;
        let acceptor = idle.pop()?;
        let slot = &mut self.slots[acceptor];
        slot.bytes = slot.address.size_of();
        slot.armed = true;
        let address = (&raw mut slot.address).cast::<libc::sockaddr>();
        let accept = opcode::Accept::new(Fd(from.socket.as_raw_fd()), address, &raw mut slot.bytes)
            .file_index(Some(DestinationSlot::auto_target()))
            .build();
        Some((acceptor, accept))
    }

    /// Whether `next_idle` passed over listeners that may not accept.
    pub(super) fn is_held_back(&self) -> bool {
        self.is_held_back
    }

    /// An accept has completed; returns the peer's address, and its listener.
    pub(super) fn completed(&mut self, acceptor: usize) -> (PeerAddress, u16) {
        let slot = &mut self.slots[acceptor];
        slot.armed = false;
        let at = acceptor / ACCEPTS_PER_LISTENER;
        self.idle[at].push(acceptor);
        let address = std::mem::replace(&mut slot.address, SockAddrStorage::zeroed());
        // SAFETY: the kernel has written an address of `bytes` bytes, or none: all zeros are valid.
        #[allow(unsafe_code)]
        let address = unsafe { SockAddr::new(address, slot.bytes) }.as_socket();
        let listener = self.sockets.get(at).map_or(0, |from| from.listener);
        (address.unwrap_or(UNKNOWN).into(), listener)
    }

    /// Numbers of the accepts that are in flight.
    pub(super) fn armed(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|&acceptor| self.slots[acceptor].armed).collect()
    }

    /// Gives up the listeners; the kernel closes each with its last accept that is cancelled.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
    }
}
