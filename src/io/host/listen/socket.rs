//! Sockets to accept from, of one core: a connection and where it comes from out.
//!
//! Invariant: accepting never waits.

use std::io::Error;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use super::unix::peer_of;
use crate::protocol::peer_address::PeerAddress;

/// A socket to accept from.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    /// The place in `Listeners::describe`.
    pub(crate) listener: u16,
    pub(crate) socket: Acceptable,
}

/// A socket of either kind.
#[derive(Debug)]
pub(crate) enum Acceptable {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptable {
    /// Accepts a connection; the error is `WouldBlock` if there is none.
    #[cfg_attr(not(feature = "glommio"), allow(dead_code, reason = "glommio alone accepts by it"))]
    pub(crate) fn accept(&self) -> Result<(OwnedFd, PeerAddress), Error> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                Ok((stream.into(), address.into()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                let peer = peer_of(&stream)?;
                Ok((stream.into(), peer.into()))
            }
        }
    }
}

impl AsFd for Acceptable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}
