//! Acknowledgements at once: a due connection in, the submission that sets TCP_QUICKACK out.
//!
//! Direct descriptors have no number that setsockopt(2) takes, but the ring has an operation for
//! it, since Linux 6.7; where that fails, nothing is acknowledged at once.
//!
//! Invariant: the submission refers to no connection's memory. The kernel has done it before it
//! looks at the next one, so a close that follows is no danger to it.

use std::io::Error;

use io_uring::{opcode, squeue};
use tracing::debug;

use super::Uring;
use super::operation::Operation;
use crate::io::links::Links;

/// The option's value: the kernel reads it when it takes the submission.
static ON: libc::c_int = 1;

impl<L: Links> Uring<L> {
    /// Submits a connection's acknowledgement, if it is due.
    pub(super) fn submit_acknowledge(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !connection.stalls.take_due() || connection.conn.is_none() {
            return;
        }
        let level = libc::IPPROTO_TCP.cast_unsigned();
        let option = libc::TCP_QUICKACK.cast_unsigned();
        let bytes = u32::try_from(size_of_val(&ON)).unwrap_or(0);
        let set =
            opcode::SetSockOpt::new(connection.file, level, option, (&raw const ON).cast(), bytes);
        // Nothing waits for it.
        let set = set.build().flags(squeue::Flags::SKIP_SUCCESS);
        self.submit(set.user_data(Operation::Acknowledge.user_data(key)));
    }

    /// The kernel didn't set the option.
    pub(super) fn note_unacknowledged(&mut self, result: i32) {
        if self.runtime.quick_acks.refused() {
            let error = Error::from_raw_os_error(-result);
            debug!(
                %error,
                "nothing is acknowledged at once: no options of sockets by io_uring before Linux \
                 6.7; --io epoll does without"
            );
        }
    }
}
