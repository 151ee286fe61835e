//! What a server tells others that use the same database.
//!
//! From options and the host; shown in lists of servers. Knows no database.
//!
//! Invariant: it doesn't change while the server runs.

use crate::cluster::lease::Lease;

/// What a server tells others that use the same database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Whether other servers may be active at the same time (`--cluster`).
    pub is_cluster: bool,
    /// How long an owner may go without a beat.
    pub lease: Lease,
    /// Name of this host.
    pub name: String,
    /// Where this server takes connections, as `--advertise` says; may be empty.
    pub address: String,
}
