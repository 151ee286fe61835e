//! The level of the log, as the text protocol reads and sets it.
//!
//! Names in gearmand's words in and out. Knows no log.
//!
//! Invariant: `set` changes nothing for an unknown name.

use std::fmt::Debug;

/// A log's level, which may change while the server runs.
pub trait LogLevel: Debug + Send + Sync {
    /// The level's name, upper case.
    fn name(&self) -> &'static str;

    /// Sets the level of this name, in any case; `false` for an unknown name.
    fn set(&self, name: &str) -> bool;
}

/// A level that never changes, where there is no log: in tests and simulations.
#[derive(Clone, Copy, Debug)]
pub struct FixedLevel(pub &'static str);

impl LogLevel for FixedLevel {
    fn name(&self) -> &'static str {
        self.0
    }

    fn set(&self, _name: &str) -> bool {
        false
    }
}
