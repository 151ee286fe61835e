//! Where a connection comes from.
//!
//! Set by `listen` when it accepts, read by `guard`. Knows neither of them.

use std::sync::Arc;

use crate::protocol::access::{Certificate, User};
use crate::protocol::peer_address::PeerAddress;

/// Where a connection comes from; an extension of its requests.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Origin {
    /// Its peer.
    pub(in crate::ops) address: PeerAddress,
    /// The listener that it came to, as `--http` names it.
    pub(in crate::ops) listener: Option<Arc<str>>,
    /// The peer's user, on a Unix socket.
    pub(in crate::ops) user: Option<User>,
    /// The peer's certificate, if it has shown one that was verified.
    pub(in crate::ops) certificate: Option<Arc<Certificate>>,
}
