//! What other cores know a connection by.
//!
//! Knows no connection.
//!
//! Invariant: a number of a connection's home is no index of another core.

use std::fmt;

use crate::engine::{ConnId, Id};

/// A connection's number at its home, as other cores know it: no index of theirs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HomeConnId(ConnId);

impl HomeConnId {
    /// Of a connection that has no home yet.
    pub(in crate::shard) const NONE: Self = Self(ConnId::NONE);

    /// The first number.
    pub const FIRST: Self = Self(ConnId::FIRST);

    /// The number of one of this core's own connections, for other cores.
    #[must_use]
    pub const fn of(conn: ConnId) -> Self {
        Self(conn)
    }

    /// The connection, at its home; means nothing on any other core.
    #[must_use]
    pub const fn at_home(self) -> ConnId {
        self.0
    }
}

impl fmt::Debug for HomeConnId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

/// A connection as other cores know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnKey {
    /// Its number at home.
    pub conn: HomeConnId,
    /// Tells it from earlier connections of that number.
    pub generation: u32,
}
