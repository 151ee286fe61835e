//! Room for the run's sockets: descriptors and source addresses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::Error;

/// Descriptors besides the connections: polls, timers, standard streams, files under /proc.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Connections per source address; Linux hands out 28 232 local ports unless told otherwise.
const PER_SOURCE: usize = 25_000;

/// Makes room for so many connections.
pub(crate) fn raise_descriptors(connections: usize) -> Result<(), Error> {
    let needed = connections as u64 + DESCRIPTORS_BESIDE;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|errno| Error::kernel("cannot read the limit on open files")(errno.into()))?;
    if soft >= needed {
        return Ok(());
    }
    let wanted = needed.max(hard);
    // Beyond the hard limit only root may go.
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
        return Ok(());
    }
    if hard < needed {
        return Err(Error::Descriptors { needed, limit: hard });
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .map_err(|errno| Error::kernel("cannot raise the limit on open files")(errno.into()))
}

/// The address that connection `index` of `total` comes from; `None` leaves it to the kernel.
pub(crate) fn source(addr: SocketAddr, index: usize, total: usize) -> Option<Ipv4Addr> {
    let IpAddr::V4(target) = addr.ip() else { return None };
    if !target.is_loopback() || total <= PER_SOURCE {
        return None;
    }
    let host = u8::try_from(index / PER_SOURCE).unwrap_or(u8::MAX - 2) + 2;
    Some(Ipv4Addr::new(127, 0, 0, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_many_connections_to_loopback_are_spread() {
        let local: SocketAddr = "127.0.0.1:4730".parse().unwrap();
        assert_eq!(source(local, 5199, 5200), None);
        assert_eq!(source(local, 0, 60_000), Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(source(local, 59_999, 60_000), Some(Ipv4Addr::new(127, 0, 0, 4)));
        assert_eq!(source("10.0.0.1:4730".parse().unwrap(), 0, 60_000), None);
    }
}
