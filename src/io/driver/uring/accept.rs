//! Accepts in flight: several for each listener, each with a slot for the peer's address.
//!
//! A multishot accept has only one such slot for all of its connections, and a direct descriptor
//! has no getpeername(2); so each connection takes a submission of its own, batched like all
//! others. Nor can a direct descriptor be asked for the peer of a Unix socket. So such a connection
//! is accepted as a descriptor of the process, and then put into the ring's table.
//!
//! Invariant: the kernel writes to a slot only while its accept is in flight, and slots never move.

use std::io::Error;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use io_uring::types::{DestinationSlot, Fd};
use io_uring::{opcode, squeue};
use socket2::{SockAddr, SockAddrStorage};

use crate::io::host::listen::{Acceptable, ListeningSocket, peer_of};
use crate::protocol::peer_address::{PeerAddress, UnixPeer};

/// Accepts in flight for each listener.
const ACCEPTS_PER_LISTENER: usize = 32;
/// Has the kernel choose a place in the table: `IORING_FILE_INDEX_ALLOC`.
const ANYWHERE: i32 = -1;

/// The address of a peer that was gone before it could be read.
const UNKNOWN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// How far an accept is.
enum State {
    Idle,
    Armed,
    /// A connection, and its peer, is being put into the ring's table.
    Placing(OwnedFd, UnixPeer),
}

struct Slot {
    address: SockAddrStorage,
    bytes: libc::socklen_t,
    /// The descriptor that is to be put into the table, then its place there.
    placed: RawFd,
    state: State,
}

/// A connection that has come.
pub(super) enum Accepted {
    /// It is in the ring's table.
    Placed(Incoming),
    /// It is to be put there by this submission, and `placed` to be called then.
    Unplaced(squeue::Entry),
}

/// A connection in the ring's table.
pub(super) struct Incoming {
    /// Its place there.
    pub(super) file: u32,
    pub(super) peer: PeerAddress,
    /// The listener that it came to.
    pub(super) listener: u16,
}

/// All accepts in flight, listener by listener.
pub(super) struct Acceptors {
    sockets: Vec<ListeningSocket>,
    /// What outlives `sockets` of each: its listener, and whether it is a Unix socket.
    kinds: Box<[(u16, bool)]>,
    slots: Box<[Slot]>,
    /// Numbers of the accepts that aren't in flight, by socket.
    idle: Vec<Vec<usize>>,
    /// The service accepts nothing from a listener with idle accepts.
    is_held_back: bool,
}

impl Acceptors {
    pub(super) fn new(sockets: Vec<ListeningSocket>) -> Self {
        let slot = || Slot {
            address: SockAddrStorage::zeroed(),
            bytes: 0,
            placed: -1,
            state: State::Idle,
        };
        let count = sockets.len() * ACCEPTS_PER_LISTENER;
        let of_socket = |at| (at * ACCEPTS_PER_LISTENER..(at + 1) * ACCEPTS_PER_LISTENER).collect();
        let kind =
            |from: &ListeningSocket| (from.listener, matches!(from.socket, Acceptable::Unix(_)));
        Self {
            kinds: sockets.iter().map(kind).collect(),
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
        slot.state = State::Armed;
        let socket = Fd(from.socket.as_fd().as_raw_fd());
        let accept = match from.socket {
            Acceptable::Tcp(_) => {
                slot.bytes = slot.address.size_of();
                let address = (&raw mut slot.address).cast::<libc::sockaddr>();
                opcode::Accept::new(socket, address, &raw mut slot.bytes)
                    .file_index(Some(DestinationSlot::auto_target()))
            }
            // It has no name.
            Acceptable::Unix(_) => {
                opcode::Accept::new(socket, std::ptr::null_mut(), std::ptr::null_mut())
                    .flags(libc::SOCK_CLOEXEC)
            }
        };
        Some((acceptor, accept.build()))
    }

    /// Whether `next_idle` passed over listeners that may not accept.
    pub(super) fn is_held_back(&self) -> bool {
        self.is_held_back
    }

    /// An accept has completed, with this result.
    ///
    /// # Errors
    /// Why no connection has come.
    pub(super) fn accepted(&mut self, acceptor: usize, result: i32) -> Result<Accepted, Error> {
        let (listener, is_unix) = self.kinds[acceptor / ACCEPTS_PER_LISTENER];
        let slot = &mut self.slots[acceptor];
        let address = std::mem::replace(&mut slot.address, SockAddrStorage::zeroed());
        let Ok(file) = u32::try_from(result) else {
            self.release(acceptor);
            return Err(Error::from_raw_os_error(-result));
        };
        if !is_unix {
            // SAFETY: the kernel has written an address of `bytes` bytes, or none: all zeros are
            // valid.
            #[allow(unsafe_code)]
            let address = unsafe { SockAddr::new(address, slot.bytes) }.as_socket();
            let peer = address.unwrap_or(UNKNOWN).into();
            self.release(acceptor);
            return Ok(Accepted::Placed(Incoming { file, peer, listener }));
        }
        // SAFETY: the kernel has just made the descriptor, which has no other owner.
        #[allow(unsafe_code)]
        let socket = unsafe { OwnedFd::from_raw_fd(result) };
        match peer_of(&socket) {
            Ok(peer) => {
                slot.placed = socket.as_raw_fd();
                slot.state = State::Placing(socket, peer);
                let place = opcode::FilesUpdate::new(&raw const slot.placed, 1).offset(ANYWHERE);
                Ok(Accepted::Unplaced(place.build()))
            }
            Err(error) => {
                self.release(acceptor);
                Err(error)
            }
        }
    }

    /// A connection was put into the ring's table, with this result; its other descriptor is
    /// closed.
    ///
    /// # Errors
    /// Why it wasn't; it is closed then.
    pub(super) fn placed(&mut self, acceptor: usize, result: i32) -> Result<Incoming, Error> {
        let (listener, _) = self.kinds[acceptor / ACCEPTS_PER_LISTENER];
        let place = self.slots[acceptor].placed;
        let state = self.release(acceptor);
        match (state, u32::try_from(place)) {
            (State::Placing(socket, peer), Ok(file)) if result == 1 => {
                // The table has the connection now.
                drop(socket);
                Ok(Incoming { file, peer: peer.into(), listener })
            }
            _ => Err(Error::from_raw_os_error(-result)),
        }
    }

    /// An accept isn't in flight any more; returns how far it was.
    fn release(&mut self, acceptor: usize) -> State {
        self.idle[acceptor / ACCEPTS_PER_LISTENER].push(acceptor);
        std::mem::replace(&mut self.slots[acceptor].state, State::Idle)
    }

    /// Numbers of the accepts that are in flight.
    pub(super) fn in_flight(&self) -> Vec<usize> {
        let is_idle = |&at: &usize| matches!(self.slots[at].state, State::Idle);
        (0..self.slots.len()).filter(|at| !is_idle(at)).collect()
    }

    /// Gives up the listeners; the kernel closes each with its last accept that is cancelled.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
    }
}
