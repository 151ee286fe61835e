//! What a connection may do: asked once for each packet and each text line, where it came in and
//! before it is routed to the core that handles it.
//!
//! A session and what it wants in, leave or the reply to a refusal out. Every connection may do
//! everything so far. Knows no cores: a function of another core is no way around it.
//!
//! Invariant: what is refused reaches no session, no engine and no other core.

use super::session::Session;
use crate::wire::{Command, ErrorReply, Request};

/// What a connection wants done.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// A packet.
    Request(&'a Request<'a>),
    /// A packet whose body isn't taken in: it is answered with an error, and may fail a job.
    RefusedPacket(Command),
    /// A line of the text protocol.
    Line(&'a [u8]),
}

/// Whether a session may have something done.
///
/// # Errors
/// The reply to a refusal.
#[inline]
pub fn authorise(_session: &Session, _action: Action<'_>) -> Result<(), ErrorReply> {
    Ok(())
}
