//! Why a connection ended, in words for the log and for metrics.
//!
//! Knows no connection.

/// Why a connection ends, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::shard) enum EndReason {
    #[default]
    PeerClosed,
    Reset,
    HostGone,
    Malformed,
    Tls,
    Handshake,
    Certificate,
    Unread,
    Drained,
}

/// Number of reasons.
pub(in crate::shard) const END_REASONS: usize = EndReason::ALL.len();

impl EndReason {
    pub(in crate::shard) const ALL: [Self; 9] = [
        Self::PeerClosed,
        Self::Reset,
        Self::HostGone,
        Self::Malformed,
        Self::Tls,
        Self::Handshake,
        Self::Certificate,
        Self::Unread,
        Self::Drained,
    ];

    /// What metrics call it.
    pub(in crate::shard) fn label(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::Reset => "reset",
            Self::HostGone => "host_gone",
            Self::Malformed => "malformed",
            Self::Tls => "tls_on_plain_port",
            Self::Handshake => "handshake",
            Self::Certificate => "certificate",
            Self::Unread => "unread",
            Self::Drained => "drained",
        }
    }

    /// The reason as a line shows it.
    pub(in crate::shard) fn text(self) -> &'static str {
        match self {
            Self::PeerClosed => "the peer closed it",
            Self::Reset => "the connection broke",
            Self::HostGone => "the peer's host is gone",
            Self::Malformed => "malformed bytes",
            Self::Tls => "a TLS handshake on a port without TLS",
            Self::Handshake => "its TLS handshake failed",
            Self::Certificate => "its certificate isn't accepted any more",
            Self::Unread => "too much unread output",
            Self::Drained => "other servers go on, as this one is to end",
        }
    }
}
