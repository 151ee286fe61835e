//! The wire: bytes of a connection in, frames, requests and text lines out; responses in, chunks of
//! bytes out.
//!
//! `command` is the table of the protocol's packets, `header` and `frame` find where each ends,
//! `request` and `response` parse and write them, `inbound` and `outbox` are the two directions of
//! one connection, `tls` has its records. Knows no engine, no sockets and no time.
//!
//! Invariant: a request causes no allocation unless its body is large.

pub mod buffer_pool;
mod command;
pub mod frame;
mod header;
pub mod inbound;
pub mod outbox;
mod payload;
mod priority;
mod rare_queue;
mod request;
mod response;
pub mod text;
pub mod tls;

#[cfg(test)]
mod tests;

pub use self::command::{ARGUMENTS_BYTES_MAX, Command, LINE_BYTES_MAX, Sender};
pub use self::header::{FrameError, HEADER_BYTES, Header, Magic, header, header_bytes};
pub use self::payload::{Payload, SHARED_BYTES_MIN};
pub use self::priority::{Priority, PrioritySet};
pub use self::request::{Arguments, Grab, PacketError, Request, Submit, Work};
pub use self::response::{ErrorReply, Response, encode};
