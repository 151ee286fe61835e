//! Where a connection comes from: an address and port, or a process of this host.
//!
//! The driver's facts in, what lists, the log and the access list need of them out. Knows no
//! sockets.
//!
//! Invariant: an IPv4 address is never written as an IPv6 one.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// An address and port.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix(UnixPeer),
}

/// The process at the other end of a Unix socket, as the kernel noted it at connect(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixPeer {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its id, as this process sees it; 0 if it is in another namespace of processes.
    pub pid: i32,
}

/// A peer's address without what tells apart its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PeerHost {
    /// An address.
    Ip(IpAddr),
    /// A user of this host, by its number.
    Unix(u32),
}

impl PeerAddress {
    /// The same with an IPv4 address that a socket for both versions of IP gave as an IPv6 one.
    #[must_use]
    pub fn canonical(self) -> Self {
        match self {
            Self::Ip(address) => {
                Self::Ip(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            Self::Unix(_) => self,
        }
    }

    /// The address without a port, or the user.
    #[must_use]
    pub fn host(self) -> PeerHost {
        match self {
            Self::Ip(address) => PeerHost::Ip(address.ip()),
            Self::Unix(UnixPeer { uid, .. }) => PeerHost::Unix(uid),
        }
    }

    /// The address; none on a Unix socket.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

/// An address and a port.
impl<A: Into<IpAddr>> From<(A, u16)> for PeerAddress {
    fn from(address: (A, u16)) -> Self {
        Self::Ip(address.into())
    }
}

impl From<UnixPeer> for PeerAddress {
    fn from(peer: UnixPeer) -> Self {
        Self::Unix(peer)
    }
}

/// `192.0.2.7:50321`, or `unix:1000` with the user's number.
impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix(UnixPeer { uid, .. }) => write!(f, "unix:{uid}"),
        }
    }
}

/// `192.0.2.7`, or `unix:1000` with the user's number.
impl fmt::Display for PeerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix(uid) => write!(f, "unix:{uid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn peers_are_written_as_address_or_user() {
        let mapped: PeerAddress = (Ipv4Addr::new(10, 0, 0, 7).to_ipv6_mapped(), 4001).into();
        let unix = PeerAddress::from(UnixPeer { uid: 33, gid: 44, pid: 55 });
        for (peer, text, host) in [
            (mapped.canonical(), "10.0.0.7:4001", "10.0.0.7"),
            ("[::1]:9".parse::<SocketAddr>().unwrap().into(), "[::1]:9", "::1"),
            (unix.canonical(), "unix:33", "unix:33"),
        ] {
            assert_eq!((peer.to_string(), peer.host().to_string()), (text.into(), host.into()));
        }
        assert_eq!(unix.ip(), None);
        let other = PeerAddress::from(UnixPeer { uid: 33, gid: 44, pid: 56 });
        assert!(unix != other && unix.host() == other.host());
    }
}
