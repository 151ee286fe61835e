//! Access lists: what a peer may do.
//!
//! A file's text in, a list out (`file`); a peer and a list in, its permissions out (`list`); a
//! right and a function in, a verdict out, and the words of a refusal (`denial`). Knows no
//! connections and no cores.
//!
//! Invariant: with a list nothing is allowed that no rule allows.

mod certificate;
mod denial;
mod file;
mod list;
mod peer;
mod right;
mod rule;

pub use self::denial::Denial;
pub use self::file::{Conditions, STARTING_LIST, parse};
pub use self::list::{AccessList, Hits, Permissions, RULES_MAX, Scope, Verdict};
pub use self::peer::{Certificate, Fingerprint, NoFingerprint, Peer, User};
pub use self::right::{RIGHTS, Right, Rights};
pub use self::rule::{CertificatePattern, Rule, UserPattern, Who};

#[cfg(test)]
mod tests;
